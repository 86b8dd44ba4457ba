//! Bodies of `multipart/form-data` (RFC 7578), written once before the run.

use super::{Options, put_json};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use maser_datasets::Turn;
use serde_json::Value;

/// What divides the parts. Base64 is decoded, so that files hold any bytes; that one of them holds this line is a chance
/// of one in 2²⁵⁶.
pub const BOUNDARY: &str = "maser-5f1c9a3e77d04b6282be4ad1c0f96e35";

/// A form being written: fields and files in order.
pub(super) struct Form<'t> {
    out: &'t mut Vec<u8>,
}

impl<'t> Form<'t> {
    pub(super) fn begin(out: &'t mut Vec<u8>) -> Self {
        Self { out }
    }

    fn open(&mut self, name: &str) {
        self.out.extend_from_slice(b"--");
        self.out.extend_from_slice(BOUNDARY.as_bytes());
        self.out.extend_from_slice(b"\r\nContent-Disposition: form-data; name=\"");
        self.put_quoted(name);
        self.out.push(b'"');
    }

    /// A name within quotes, as browsers escape it.
    fn put_quoted(&mut self, name: &str) {
        for b in name.bytes() {
            match b {
                b'"' => self.out.extend_from_slice(b"%22"),
                b'\r' => self.out.extend_from_slice(b"%0D"),
                b'\n' => self.out.extend_from_slice(b"%0A"),
                b => self.out.push(b),
            }
        }
    }

    /// A field of text.
    pub(super) fn text(&mut self, name: &str, value: &str) {
        self.open(name);
        self.out.extend_from_slice(b"\r\n\r\n");
        self.out.extend_from_slice(value.as_bytes());
        self.out.extend_from_slice(b"\r\n");
    }

    /// A file.
    pub(super) fn file(&mut self, name: &str, file_name: &str, content_type: &str, bytes: &[u8]) {
        self.open(name);
        self.out.extend_from_slice(b"; filename=\"");
        self.put_quoted(file_name);
        self.out.extend_from_slice(b"\"\r\nContent-Type: ");
        self.out.extend_from_slice(content_type.as_bytes());
        self.out.extend_from_slice(b"\r\n\r\n");
        self.out.extend_from_slice(bytes);
        self.out.extend_from_slice(b"\r\n");
    }

    /// The fields of the endpoint with the extras over them: a name that is there keeps its place, and `reserved` names
    /// are the endpoint's own.
    pub(super) fn fields(&mut self, own: Vec<(&str, Value)>, options: &Options, turn: &Turn, reserved: &[&str]) {
        let mut all = serde_json::Map::new();
        all.extend(own.into_iter().map(|(name, value)| (name.to_owned(), value)));
        for extras in [&options.extra, &turn.extra] {
            for (name, value) in extras.iter().filter(|(name, _)| !reserved.contains(&name.as_str())) {
                all.insert(name.clone(), value.clone());
            }
        }
        for (name, value) in &all {
            self.value(name, value);
        }
    }

    /// A field of any value: none where it is null, a text as it is, another as JSON.
    pub(super) fn value(&mut self, name: &str, value: &Value) {
        match value {
            Value::Null => {}
            Value::String(text) => self.text(name, text),
            other => {
                let mut text = Vec::new();
                put_json(&mut text, other);
                self.text(name, &String::from_utf8_lossy(&text));
            }
        }
    }

    pub(super) fn end(self) {
        self.out.extend_from_slice(b"--");
        self.out.extend_from_slice(BOUNDARY.as_bytes());
        self.out.extend_from_slice(b"--\r\n");
    }
}

/// The bytes that base64 stands for, padding or none; `None` if it is none.
pub(super) fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=');
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 3);
    let (mut bits, mut held) = (0u32, 0);
    for b in text.bytes() {
        let six = match b {
            b'A'..=b'Z' => b - b'A',
            b'a'..=b'z' => b - b'a' + 26,
            b'0'..=b'9' => b - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            b'\r' | b'\n' => continue,
            _ => return None,
        };
        bits = bits << 6 | u32::from(six);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
        }
    }
    (held < 6).then_some(out)
}

/// Base64 with padding (RFC 4648, section 4).
pub(crate) fn encode_base64(data: &[u8]) -> String {
    STANDARD.encode(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_as_in_the_standard() {
        let table =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE=")];
        for (plain, coded) in table {
            assert_eq!(encode_base64(plain.as_bytes()), coded);
        }
        assert_eq!(encode_base64(&[0xfb, 0xff, 0xfe]), "+//+");
    }

    #[test]
    fn base64_is_decoded_or_refused() {
        for (text, want) in
            [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYmFy", "foobar"), ("Zg", "f")]
        {
            assert_eq!(decode_base64(text).as_deref(), Some(want.as_bytes()), "{text}");
        }
        assert_eq!(decode_base64("_-8="), Some(vec![0xff, 0xef]));
        for text in ["Z", "Zm9vY", "Zm 9v", "Z=m8", "é"] {
            assert_eq!(decode_base64(text), None, "{text}");
        }
    }
}
