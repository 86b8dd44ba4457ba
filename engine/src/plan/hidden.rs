//! What no file may show of what was sent and answered.

use std::borrow::Cow;

/// What stands in a secret's place.
const REDACTED: &[u8] = b"<redacted>";

/// The secrets of a run, as they stand in bytes.
#[derive(Clone, Default)]
pub struct Hidden {
    /// What bodies hold, with what a file shows in its place: a field's name and value, so that nothing else is taken for it
    /// and the rest stays as it was sent.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// Texts that are secrets wherever they stand. They are long enough not to be part of ordinary words.
    pub texts: Vec<Vec<u8>>,
}

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} fields, {} texts", self.fields.len(), self.texts.len())
    }
}

impl Hidden {
    /// Whether the bodies hold a secret.
    pub fn is_in_bodies(&self) -> bool {
        !self.fields.is_empty()
    }

    /// A body as it may be written to a file: secrets have `<redacted>` in their place.
    pub fn shown<'a>(&self, body: &'a [u8]) -> Cow<'a, [u8]> {
        let fields = self.fields.iter().map(|(of, with)| (of.as_slice(), with.as_slice()));
        let texts = self.texts.iter().map(|text| (text.as_slice(), REDACTED));
        fields.chain(texts).fold(Cow::Borrowed(body), |shown, (of, with)| replaced(shown, of, with))
    }

    /// Writes asterisks over the texts, so that nothing moves: what a server said of a request may repeat its key.
    pub fn mask(&self, said: &mut [u8]) {
        for text in self.texts.iter().filter(|text| !text.is_empty()) {
            let mut from = 0;
            while let Some(at) = memchr::memmem::find(&said[from..], text) {
                let end = from + at + text.len();
                said[from + at..end].fill(b'*');
                from = end;
            }
        }
    }
}

fn replaced<'a>(mut shown: Cow<'a, [u8]>, of: &[u8], with: &[u8]) -> Cow<'a, [u8]> {
    let mut from = 0;
    while let Some(at) = shown.get(from..).filter(|_| !of.is_empty()).and_then(|rest| memchr::memmem::find(rest, of)) {
        let start = from + at;
        shown.to_mut().splice(start..start + of.len(), with.iter().copied());
        from = start + with.len();
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_hidden_and_its_text_elsewhere_is_not() {
        let field = |of: &str, with: &str| (of.as_bytes().to_vec(), with.as_bytes().to_vec());
        let hidden = Hidden {
            fields: vec![field(r#""token":"on""#, r#""token":"<redacted>""#), field(r#""n":1}"#, r#""n":0}"#)],
            texts: vec![b"S3CR3T".to_vec(), Vec::new()],
        };
        let body = br#"{"content":"no one \"token\":\"on\"","token":"on","on":"token","x":"a S3CR3T b","n":1}"#;
        let want =
            r#"{"content":"no one \"token\":\"on\"","token":"<redacted>","on":"token","x":"a <redacted> b","n":0}"#;
        assert_eq!(String::from_utf8_lossy(&hidden.shown(body)), want);
        assert!(matches!(hidden.shown(b"nothing"), Cow::Borrowed(_)));
        assert!(hidden.is_in_bodies() && !Hidden::default().is_in_bodies());
    }

    #[test]
    fn what_a_server_repeats_keeps_its_length() {
        let hidden = Hidden { fields: Vec::new(), texts: vec![b"S3CR3T".to_vec(), Vec::new()] };
        let mut said = b"key S3CR3TS3CR3T is wrong: S3CR3".to_vec();
        hidden.mask(&mut said);
        assert_eq!(said, b"key ************ is wrong: S3CR3");
    }
}
