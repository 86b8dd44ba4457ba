//! Where in an answer its output stands: the paths that `response_field` names.
//!
//! A JSON pointer (`/choices/0/text`), or a JMESPath of member names, `[n]`, `[*]` and `[]` (`data[*].embedding`). They are
//! followed over the bytes: no tree is built. The rest of JMESPath (filters, functions, pipes, slices) is refused.

use super::{Reading, Unreadable};
use crate::wire::json::Scanner;

/// A path into a JSON value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseField(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Member(String),
    /// An element, or in a pointer a member of that name.
    Element(u32),
    Every,
}

impl ResponseField {
    /// Reads a path.
    ///
    /// # Errors
    /// It is none; the text completes a sentence about the path.
    pub fn parse(text: &str) -> Result<Self, String> {
        let steps = match text.strip_prefix('/') {
            Some(rest) => rest.split('/').map(pointer_step).collect(),
            None => expression(text)?,
        };
        Ok(Self(steps))
    }

    /// Reads what stands at the path: a text, several of them, or vectors. Nothing there is an answer without content.
    /// Errors and token counts of the answer are read as everywhere.
    ///
    /// # Errors
    /// The answer is not JSON.
    pub fn read<'a>(&self, json: &'a [u8]) -> Result<Reading<'a>, Unreadable> {
        let mut reading = Reading::default();
        let mut scanner = Scanner::new(json);
        scanner.skip();
        scanner.end()?;
        let mut around = Reading::default();
        super::found::read(json, &mut around)?;
        (reading.usage, reading.error) = (around.usage, around.error);
        follow(&self.0, Scanner::new(json).raw(), &mut reading);
        Ok(reading)
    }
}

fn pointer_step(token: &str) -> Step {
    let canonical = token == "0" || !token.starts_with('0');
    match token.parse() {
        Ok(n) if canonical => Step::Element(n),
        _ => Step::Member(token.replace("~1", "/").replace("~0", "~")),
    }
}

fn expression(text: &str) -> Result<Vec<Step>, String> {
    let beyond = || {
        format!(
            "{text:?} is neither a JSON pointer nor a path of names, [n] and [*], which is what this version follows"
        )
    };
    let mut steps = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let (inner, after) = after.split_once(']').ok_or_else(beyond)?;
            steps.push(match inner {
                "" | "*" => Step::Every,
                n => Step::Element(n.parse().map_err(|_| beyond())?),
            });
            rest = after;
            continue;
        }
        if let (Some(after), false) = (rest.strip_prefix('.'), steps.is_empty()) {
            rest = after;
        } else if !steps.is_empty() {
            return Err(beyond());
        }
        if let Some(after) = rest.strip_prefix('"') {
            let (name, after) = after.split_once('"').ok_or_else(beyond)?;
            steps.push(Step::Member(name.to_owned()));
            rest = after;
            continue;
        }
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(beyond());
        }
        steps.push(Step::Member(name.to_owned()));
        rest = after;
    }
    if steps.is_empty() { Err(beyond()) } else { Ok(steps) }
}

fn follow<'a>(steps: &[Step], raw: &'a [u8], reading: &mut Reading<'a>) {
    let Some((step, rest)) = steps.split_first() else { return take(raw, reading) };
    let mut scanner = Scanner::new(raw);
    if raw.first() == Some(&b'{') {
        let name = match step {
            Step::Member(name) => name.clone(),
            Step::Element(n) => n.to_string(),
            Step::Every => return,
        };
        scanner.open_object();
        while let Some(key) = scanner.next_key() {
            let value = scanner.raw();
            if key == name.as_bytes() {
                follow(rest, value, reading);
            }
        }
    } else if raw.first() == Some(&b'[') {
        scanner.open_array();
        let mut n = 0;
        while scanner.next_element() {
            let value = scanner.raw();
            if matches!(step, Step::Every) || *step == Step::Element(n) {
                follow(rest, value, reading);
            }
            n += 1;
        }
    }
}

/// A text is output; a list of numbers is a vector; a list of anything else is its elements; numbers and truth values are
/// output as they are written.
fn take<'a>(raw: &'a [u8], reading: &mut Reading<'a>) {
    let mut scanner = Scanner::new(raw);
    match raw.first() {
        Some(b'"') => reading.text.push(scanner.string().unwrap_or_default()),
        Some(b'[') => {
            scanner.open_array();
            let mut numbers = false;
            while scanner.next_element() {
                let element = scanner.raw();
                match element.first() {
                    Some(b'-' | b'0'..=b'9') => numbers = true,
                    _ => take(element, reading),
                }
            }
            reading.units += u32::from(numbers);
        }
        Some(b'{') => {
            let mut inner = Reading::default();
            if super::found::read(raw, &mut inner).is_ok() {
                inner.text.iter().for_each(|piece| reading.text.push(piece));
                reading.units += inner.units;
            }
        }
        Some(b'n') | None => {}
        Some(_) => reading.text.push(raw),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts, joined, and units at the path.
    fn at(path: &str, json: &str) -> (String, u32) {
        let reading = ResponseField::parse(path).unwrap().read(json.as_bytes()).unwrap();
        let text: Vec<u8> = reading.text.iter().flatten().copied().collect();
        (String::from_utf8(text).unwrap(), reading.units)
    }

    #[test]
    fn both_kinds_of_path_are_followed() {
        let json = r#"{"a":{"b c":["x",{"y":"z"}],"0":"n"},"data":[{"e":[1,2]},{"e":[3]}],"v":[1,2],"n":null,"k":7,"m":[[1],[2]]}"#;
        for (path, text, units) in [
            ("/a/b c/0", "x", 0),
            ("/a/b c/1/y", "z", 0),
            ("/a/0", "n", 0),
            ("a.\"b c\"[0]", "x", 0),
            ("a.\"b c\"[1].y", "z", 0),
            ("a.\"b c\"[1]", "", 0),
            ("data[*].e", "", 2),
            ("data[].e", "", 2),
            ("data[1].e", "", 1),
            ("v", "", 1),
            ("m", "", 2),
            ("k", "7", 0),
            ("n", "", 0),
            ("nothing.here", "", 0),
        ] {
            assert_eq!(at(path, json), (text.to_owned(), units), "{path}");
        }
    }

    #[test]
    fn what_is_beyond_is_refused() {
        for path in
            ["", "a.", "a..b", "a[?b]", "a[1:2]", "length(a)", "a | b", "[", "a[x]", "@", "a.*", "a b", "1a", "\"a"]
        {
            assert!(ResponseField::parse(path).is_err(), "{path:?}");
        }
        assert!(ResponseField::parse("a").unwrap().read(b"{").is_err());
    }

    #[test]
    fn counts_and_errors_are_read_beside_the_path() {
        let field = ResponseField::parse("a").unwrap();
        let reading = field.read(br#"{"a":"x","usage":{"prompt_tokens":3},"text":"y"}"#).unwrap();
        assert_eq!(reading.usage.map(|u| u.prompt), Some(3));
        assert_eq!(reading.text.iter().count(), 1);
        assert!(field.read(br#"{"error":"e"}"#).unwrap().error.is_some());
    }
}
