//! `inputs.json`: every request body as it is sent, by session.

use super::{Written, private_file};
use maser_engine::endpoint::form_as_json;
use maser_engine::log::{self, Header};
use maser_engine::plan::{Marks, Requests, take_markers};
use std::borrow::Cow;
use std::io::{self, Write};
use std::path::Path;

/// The file's name inside an artefact directory.
pub const FILE_NAME: &str = "inputs.json";

/// Name of the file that has the bodies for as long as `inputs.json` is to be made of them: after a run that was killed.
pub const BODIES_NAME: &str = "bodies.maser";

/// Each conversation's id and bodies, in the order of the dataset. `marked`: where a marker stands in a body, it is no part of
/// it until it is sent.
pub fn sessions(requests: &Requests, marked: bool) -> impl Iterator<Item = (&str, Vec<Cow<'_, [u8]>>)> {
    let body = move |k: u32| {
        let mut body = requests.hidden().shown(requests.body(k));
        if marked {
            take_markers(body.to_mut());
        }
        body
    };
    let mut rows = log::requests_in(requests.table()).zip(0..).peekable();
    std::iter::from_fn(move || {
        let (first, k) = rows.next()?;
        let mut bodies = vec![body(k)];
        while let Some((_, k)) = rows.next_if(|(row, _)| row.turn > 0) {
            bodies.push(body(k));
        }
        Some((first.conversation, bodies))
    })
}

/// Writes the file of a run's bodies into `dir`, and takes away what it would be made of after a kill.
pub fn write_due(dir: &Path, requests: &Requests) -> Result<Written, String> {
    let written = write(dir, sessions(requests, requests.marks() != Marks::None));
    if written.is_ok() {
        // Where it cannot be removed, a report makes the same file again.
        let _ = std::fs::remove_file(dir.join(BODIES_NAME));
    }
    written
}

/// Writes the file that a killed run did not come to into `out`, of the bodies it left in `dir`, which go when `out` is
/// `dir` too. None if there are none.
pub fn restore(dir: &Path, out: &Path, header: &Header) -> Option<Result<Written, String>> {
    let path = dir.join(BODIES_NAME);
    let requests = match Requests::open(&path) {
        Ok(requests) => requests,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return None,
        Err(e) => return Some(Err(format!("{}: cannot be read: {e}", path.display()))),
    };
    if !requests.is_whole() {
        return Some(Err(format!("{}: its bodies are damaged", path.display())));
    }
    let marked = !header.input_config["datasets"][0]["cache_bust"].is_null();
    let written = write(out, sessions(&requests, marked));
    if written.is_ok() && out == dir {
        let _ = std::fs::remove_file(path);
    }
    Some(written)
}

/// Writes the file into `dir`: `{"data": [{"session_id": …, "payloads": [body, …]}]}`, indented by two. Sessions come one
/// at a time and are not kept. A form stands as an object of its fields.
pub fn write<S, B>(dir: &Path, sessions: impl IntoIterator<Item = (S, Vec<B>)>) -> Result<Written, String>
where
    S: AsRef<str>,
    B: AsRef<[u8]>,
{
    private_file("Input Export", dir.join(FILE_NAME), |out| {
        out.write_all(b"{\n  \"data\": [")?;
        let mut empty = true;
        for (id, payloads) in sessions {
            out.write_all(if empty { b"\n    {\n" } else { b",\n    {\n" })?;
            empty = false;
            out.write_all(b"      \"session_id\": ")?;
            serde_json::to_writer(&mut *out, id.as_ref())?;
            out.write_all(b",\n      \"payloads\": [")?;
            for (k, body) in payloads.iter().enumerate() {
                out.write_all(if k == 0 { b"\n        " } else { b",\n        " })?;
                payload(body.as_ref(), out)?;
            }
            out.write_all(if payloads.is_empty() { b"]\n    }" } else { b"\n      ]\n    }" })?;
        }
        out.write_all(if empty { b"]\n}" } else { b"\n  ]\n}" })
    })
}

/// Depth at which bodies stand.
const DEPTH: usize = 4;

fn payload(body: &[u8], out: &mut impl Write) -> io::Result<()> {
    if is_json(body) {
        reindent(body, DEPTH, out)
    } else if let Some(form) = form_as_json(body) {
        reindent(form.to_string().as_bytes(), DEPTH, out)
    } else {
        serde_json::to_writer(out, &String::from_utf8_lossy(body)).map_err(io::Error::from)
    }
}

/// Whether these bytes are one JSON value.
pub(super) fn is_json(bytes: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok()
}

/// Copies valid JSON with new white space: keys, numbers and escapes stay as they were sent.
fn reindent(json: &[u8], mut depth: usize, out: &mut impl Write) -> io::Result<()> {
    let mut at = 0;
    while let Some(&byte) = json.get(at) {
        at += 1;
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {}
            b'"' => {
                let end = string_end(json, at);
                out.write_all(&json[at - 1..end])?;
                at = end;
            }
            b'{' | b'[' => {
                let rest = json[at..].iter();
                let skipped = rest.take_while(|b| b.is_ascii_whitespace()).count();
                out.write_all(&[byte])?;
                if let Some(close @ (b'}' | b']')) = json.get(at + skipped) {
                    out.write_all(&[*close])?;
                    at += skipped + 1;
                } else {
                    depth += 1;
                    line(depth, out)?;
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                line(depth, out)?;
                out.write_all(&[byte])?;
            }
            b',' => {
                out.write_all(b",")?;
                line(depth, out)?;
            }
            b':' => out.write_all(b": ")?,
            _ => out.write_all(&[byte])?,
        }
    }
    Ok(())
}

/// Just after the closing quote of a string whose first character is at `from`.
fn string_end(json: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(&byte) = json.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    json.len()
}

fn line(depth: usize, out: &mut impl Write) -> io::Result<()> {
    out.write_all(b"\n")?;
    for _ in 0..depth {
        out.write_all(b"  ")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(sessions: Vec<(&str, Vec<&[u8]>)>) -> String {
        let dir = tempfile::tempdir().unwrap();
        let written = write(dir.path(), sessions).unwrap();
        std::fs::read_to_string(written.path).unwrap()
    }

    #[test]
    fn the_layout_is_that_of_an_indented_document() {
        let bodies: Vec<&[u8]> = vec![
            br#"{"messages":[{"role":"user","content":"a \"b\": [c], {d}"}],"e":{},"f":[ ],"g":1.50,"h":null}"#,
            b"[1,2]",
        ];
        let text = written(vec![("s \"0\"", bodies.clone()), ("s1", vec![])]);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let indented = serde_json::to_string_pretty(&value).unwrap();
        assert_eq!(text, indented.replace("1.5,", "1.50,"));
        assert_eq!(written(vec![]), "{\n  \"data\": []\n}");
    }

    #[test]
    fn a_body_that_is_not_json_is_a_string() {
        let text = written(vec![("s", vec![b"--boundary\r\n".as_slice()])]);
        assert!(text.contains(r#""--boundary\r\n""#), "{text}");
    }
}
