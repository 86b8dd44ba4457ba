//! A form as JSON and back, so that a file of bodies can hold it and a later run sends the same bytes.
//!
//! A form becomes an object of its fields: a text is a string, a file `{"b64_data", "filename", "content_type"}` as the
//! reference writes it. Where two parts have one name it becomes a list of objects of one field each.

use super::multipart::{BOUNDARY, Form, decode_base64, encode_base64};
use memchr::memmem;
use serde_json::{Map, Value, json};

/// The fields of a body that this module's sibling wrote; `None` if it is no such form.
pub fn form_as_json(body: &[u8]) -> Option<Value> {
    let delimiter = format!("\r\n--{BOUNDARY}");
    let mut rest = body.strip_prefix(&delimiter.as_bytes()[2..])?;
    let mut parts = Vec::new();
    while let Some(part) = rest.strip_prefix(b"\r\n") {
        let end = memmem::find(part, delimiter.as_bytes())?;
        parts.push(field(&part[..end])?);
        rest = &part[end + delimiter.len()..];
    }
    if rest != b"--\r\n" {
        return None;
    }
    let object: Map<String, Value> = parts.iter().cloned().collect();
    if object.len() == parts.len() {
        return Some(Value::Object(object));
    }
    Some(parts.into_iter().map(|(name, value)| Value::Object(Map::from_iter([(name, value)]))).collect())
}

/// Name and value of one part.
fn field(part: &[u8]) -> Option<(String, Value)> {
    let end = memmem::find(part, b"\r\n\r\n")?;
    let (head, content) = (std::str::from_utf8(&part[..end]).ok()?, &part[end + 4..]);
    let quoted = |what: &str| {
        let from = head.find(what)? + what.len();
        Some(unquoted(&head[from..][..head[from..].find('"')?]))
    };
    let name = quoted(" name=\"")?;
    let Some(file) = quoted("; filename=\"") else {
        return Some((name, std::str::from_utf8(content).ok()?.into()));
    };
    let kind = head.rsplit_once("\r\nContent-Type: ")?.1;
    Some((name, json!({"b64_data": encode_base64(content), "filename": file, "content_type": kind})))
}

/// What [`Form`] escapes in names, put back.
fn unquoted(name: &str) -> String {
    name.replace("%22", "\"").replace("%0D", "\r").replace("%0A", "\n")
}

/// Writes a ready-made body as a form.
///
/// # Errors
/// The end of a sentence: it is no object, or a file in it is none.
pub(super) fn put_form(body: &Value, out: &mut Vec<u8>) -> Result<(), &'static str> {
    const WRONG: &str = "a ready-made body is no object of form fields";
    let objects: Vec<&Map<String, Value>> = match body {
        Value::Object(fields) => vec![fields],
        Value::Array(parts) => parts.iter().map(|part| part.as_object().ok_or(WRONG)).collect::<Result<_, _>>()?,
        _ => return Err(WRONG),
    };
    let mut form = Form::begin(out);
    for (name, value) in objects.into_iter().flatten() {
        match value.as_object().filter(|file| file.contains_key("b64_data")) {
            Some(file) => {
                let text = |key: &str| file.get(key).and_then(Value::as_str);
                let bytes =
                    text("b64_data").and_then(decode_base64).ok_or("a file in a ready-made body is no base64")?;
                let kind = text("content_type").filter(|kind| !kind.contains(['\r', '\n']));
                let kind = kind.unwrap_or("application/octet-stream");
                form.file(name, text("filename").unwrap_or("file"), kind, &bytes);
            }
            None => form.value(name, value),
        }
    }
    form.end();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_form_has_the_fields_and_files_it_was_made_of() {
        let mut out = Vec::new();
        let body = json!({
            "prompt": "a\r\nb é", "n": 1, "left": null, "a\"\r\n": "quoted",
            "image": {"b64_data": "iVBORw==", "filename": "i.png", "content_type": "image/png"},
        });
        put_form(&body, &mut out).unwrap();
        assert!(memmem::find(&out, b"filename=\"i.png\"\r\nContent-Type: image/png\r\n\r\n\x89PNG\r\n--").is_some());
        let mut read = body.clone();
        read["n"] = "1".into();
        read.as_object_mut().unwrap().shift_remove("left");
        assert_eq!(form_as_json(&out), Some(read));
        assert_eq!(form_as_json(&out[..out.len() - 1]), None);
        assert_eq!(form_as_json(b"{}"), None);
        for wrong in [json!("x"), json!([1]), json!({"f": {"b64_data": "Z=m"}})] {
            assert!(put_form(&wrong, &mut Vec::new()).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn every_form_comes_back_byte_for_byte(
            parts in prop::collection::vec((".{0,8}", prop::collection::vec(any::<u8>(), 0..40), any::<bool>()), 0..6),
        ) {
            let mut first = Vec::new();
            let mut form = Form::begin(&mut first);
            for (name, bytes, is_file) in &parts {
                match is_file {
                    true => form.file(name, name, "image/png", bytes),
                    false => form.text(name, &String::from_utf8_lossy(bytes)),
                }
            }
            form.end();
            let mut second = Vec::new();
            put_form(&form_as_json(&first).unwrap(), &mut second).unwrap();
            prop_assert_eq!(first, second);
        }
    }
}
