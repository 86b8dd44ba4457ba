//! A scanner over one JSON text that steps into what is wanted and skips the rest, without building a tree.
//!
//! It checks what it must to notice a broken or cut text: brackets pair up, strings end, members have keys and colons,
//! nothing follows the value. It does not check what it only skips over in finer detail (the grammar of numbers, escapes,
//! commas within skipped values). Keys are compared as they are written: an escaped spelling of a key is another key.

use std::fmt;

/// Why a text could not be read, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable {
    /// Offset of the byte at which reading stopped.
    pub at: usize,
    /// What is wrong there, as part of a sentence.
    pub what: &'static str,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not JSON at byte {}: {}", self.at, self.what)
    }
}

impl std::error::Error for Unreadable {}

const CUT: &str = "the text ends early";

/// Deepest nesting of a skipped value. Real payloads stay below 20.
const MAX_DEPTH: u32 = 128;

/// A position in one JSON text.
///
/// The caller walks: [`open_object`](Self::open_object), then [`next_key`](Self::next_key) until `None`, taking exactly one
/// value ([`skip`](Self::skip), [`string`](Self::string), an inner object, …) after each key; likewise
/// [`open_array`](Self::open_array) and [`next_element`](Self::next_element).
#[derive(Debug, Clone)]
pub struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The last thing read was an opening bracket: no comma is due.
    opened: bool,
}

impl<'a> Scanner<'a> {
    /// Starts in front of the value of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, opened: false }
    }

    #[cold]
    fn broken(&self, what: &'static str) -> Unreadable {
        Unreadable { at: self.at, what }
    }

    /// The next byte that is not white space, not taken.
    #[inline]
    fn peek(&mut self) -> Result<u8, Unreadable> {
        loop {
            match self.bytes.get(self.at) {
                Some(b' ' | b'\t' | b'\n' | b'\r') => self.at += 1,
                Some(&byte) => return Ok(byte),
                None => return Err(self.broken(CUT)),
            }
        }
    }

    /// Steps into the next value if it is an object; otherwise skips it and returns `false`.
    #[inline]
    pub fn open_object(&mut self) -> Result<bool, Unreadable> {
        self.open(b'{')
    }

    /// Steps into the next value if it is an array; otherwise skips it and returns `false`.
    #[inline]
    pub fn open_array(&mut self) -> Result<bool, Unreadable> {
        self.open(b'[')
    }

    #[inline]
    fn open(&mut self, bracket: u8) -> Result<bool, Unreadable> {
        if self.peek()? == bracket {
            self.at += 1;
            self.opened = true;
            Ok(true)
        } else {
            self.skip()?;
            Ok(false)
        }
    }

    /// The key of the next member, as written between its quotes; `None` steps out of the object.
    #[inline]
    pub fn next_key(&mut self) -> Result<Option<&'a [u8]>, Unreadable> {
        if !self.next(b'}')? {
            return Ok(None);
        }
        if self.peek()? != b'"' {
            return Err(self.broken("a member has no key"));
        }
        let key = self.quoted()?;
        if self.peek()? != b':' {
            return Err(self.broken("a key has no colon"));
        }
        self.at += 1;
        Ok(Some(key))
    }

    /// Whether another element stands next; `false` steps out of the array.
    #[inline]
    pub fn next_element(&mut self) -> Result<bool, Unreadable> {
        self.next(b']')
    }

    #[inline]
    fn next(&mut self, close: u8) -> Result<bool, Unreadable> {
        let byte = self.peek()?;
        let first = std::mem::take(&mut self.opened);
        if byte == close {
            self.at += 1;
            return Ok(false);
        }
        if !first {
            if byte != b',' {
                return Err(self.broken("a comma or a closing bracket is missing"));
            }
            self.at += 1;
        }
        Ok(true)
    }

    /// Takes the next value if it is a string, as written between its quotes; otherwise skips it.
    #[inline]
    pub fn string(&mut self) -> Result<Option<&'a [u8]>, Unreadable> {
        if self.peek()? == b'"' {
            self.quoted().map(Some)
        } else {
            self.skip()?;
            Ok(None)
        }
    }

    /// Takes the next value if it is a string, as written between its quotes; otherwise stays in front of it.
    #[inline]
    pub fn string_or_stay(&mut self) -> Result<Option<&'a [u8]>, Unreadable> {
        if self.peek()? == b'"' { self.quoted().map(Some) } else { Ok(None) }
    }

    /// Takes the next value if it is a string; `None` for the empty string and for anything else.
    #[inline]
    pub fn text(&mut self) -> Result<Option<&'a [u8]>, Unreadable> {
        Ok(self.string()?.filter(|raw| !raw.is_empty()))
    }

    /// Takes the next value if it is a whole number below 2³²; otherwise skips it.
    pub fn count(&mut self) -> Result<Option<u32>, Unreadable> {
        let raw = self.raw()?;
        let digits = raw.iter().all(u8::is_ascii_digit) && raw.len() <= 10;
        let value = raw.iter().take(10).fold(0u64, |n, &b| n * 10 + u64::from(b & 0x0f));
        Ok(u32::try_from(value).ok().filter(|_| digits))
    }

    /// Skips the next value and returns it as written.
    #[inline]
    pub fn raw(&mut self) -> Result<&'a [u8], Unreadable> {
        self.peek()?;
        let start = self.at;
        self.skip()?;
        Ok(self.bytes.get(start..self.at).unwrap_or_default())
    }

    /// Skips the next value, whatever it is.
    #[inline]
    pub fn skip(&mut self) -> Result<(), Unreadable> {
        self.opened = false;
        match self.peek()? {
            b'"' => self.quoted().map(drop),
            b'{' | b'[' => self.skip_nested(),
            _ => self.skip_scalar(),
        }
    }

    /// The text must be over but for white space.
    #[inline]
    pub fn end(&mut self) -> Result<(), Unreadable> {
        match self.peek() {
            Ok(_) => Err(self.broken("something follows the value")),
            Err(_) => Ok(()),
        }
    }

    /// The string that starts at the quote under the cursor.
    #[inline]
    fn quoted(&mut self) -> Result<&'a [u8], Unreadable> {
        self.opened = false;
        let start = self.at + 1;
        let mut at = start;
        loop {
            match find_special(self.bytes, at) {
                Some(end) if self.bytes.get(end) == Some(&b'"') => {
                    self.at = end + 1;
                    return Ok(self.bytes.get(start..end).unwrap_or_default());
                }
                Some(backslash) => at = backslash + 2,
                None => {
                    self.at = self.bytes.len();
                    return Err(self.broken("a string does not end"));
                }
            }
        }
    }

    #[inline]
    fn skip_scalar(&mut self) -> Result<(), Unreadable> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let len = match rest.first() {
            Some(b'n') if rest.starts_with(b"null") => 4,
            Some(b't') if rest.starts_with(b"true") => 4,
            Some(b'f') if rest.starts_with(b"false") => 5,
            Some(b'-' | b'0'..=b'9') => rest
                .iter()
                .position(|b| !matches!(b, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'))
                .unwrap_or(rest.len()),
            _ => return Err(self.broken("no value starts like this")),
        };
        self.at += len;
        Ok(())
    }

    /// Skips an object or array without recursion; one bit a level remembers the kind of bracket.
    fn skip_nested(&mut self) -> Result<(), Unreadable> {
        let mut depth = 0;
        let mut objects = 0u128;
        while let Some(&byte) = self.bytes.get(self.at) {
            match byte {
                b'"' => {
                    self.quoted()?;
                    continue;
                }
                b'{' | b'[' => {
                    if depth == MAX_DEPTH {
                        return Err(self.broken("nested too deep"));
                    }
                    depth += 1;
                    objects = objects << 1 | u128::from(byte == b'{');
                }
                b'}' | b']' => {
                    if (objects & 1 == 1) != (byte == b'}') {
                        return Err(self.broken("a bracket closes another kind"));
                    }
                    depth -= 1;
                    objects >>= 1;
                }
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                return Ok(());
            }
        }
        Err(self.broken(CUT))
    }
}

/// Bytes looked at word by word before the vectorised search takes over: keys and tokens are shorter, and for them a call
/// costs more than the search.
const NEAR: usize = 48;

/// The next quote or backslash at or after `at`.
#[inline]
fn find_special(bytes: &[u8], mut at: usize) -> Option<usize> {
    let near = at + NEAR;
    while at < near {
        let Some(word) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) else {
            let rest = bytes.get(at..)?;
            return rest.iter().position(|&b| b == b'"' || b == b'\\').map(|found| at + found);
        };
        let word = u64::from_le_bytes(*word);
        let hits = zero_bytes(word ^ QUOTES) | zero_bytes(word ^ BACKSLASHES);
        if hits != 0 {
            return Some(at + hits.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    memchr::memchr2(b'"', b'\\', bytes.get(at..)?).map(|found| at + found)
}

const ONES: u64 = u64::MAX / 0xff;
const QUOTES: u64 = ONES * b'"' as u64;
const BACKSLASHES: u64 = ONES * b'\\' as u64;

/// The high bit of each zero byte of `word`; exact up to and including the lowest one.
#[inline]
fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & (ONES << 7)
}

/// Appends the text that the raw string `raw` stands for, always as UTF-8: pairs of surrogates become their character,
/// lone ones and bytes that are not UTF-8 become U+FFFD; an unknown or cut escape stands for itself.
pub fn unescape_into(raw: &[u8], out: &mut Vec<u8>) {
    let mut rest = raw;
    while let Some(backslash) = memchr::memchr(b'\\', rest) {
        let (plain, escape) = rest.split_at(backslash);
        put_utf8(plain, out);
        rest = unescape_one(escape, out);
    }
    put_utf8(rest, out);
}

#[inline]
fn put_utf8(bytes: &[u8], out: &mut Vec<u8>) {
    if std::str::from_utf8(bytes).is_ok() {
        out.extend_from_slice(bytes);
        return;
    }
    for chunk in bytes.utf8_chunks() {
        out.extend_from_slice(chunk.valid().as_bytes());
        if !chunk.invalid().is_empty() {
            put_char(char::REPLACEMENT_CHARACTER, out);
        }
    }
}

fn put_char(c: char, out: &mut Vec<u8>) {
    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

/// Takes the escape at the front of `rest` (a backslash) and returns what follows it.
fn unescape_one<'a>(rest: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    let plain = match rest.get(1) {
        Some(b'n') => b'\n',
        Some(b't') => b'\t',
        Some(b'r') => b'\r',
        Some(b'b') => 0x08,
        Some(b'f') => 0x0c,
        Some(&byte @ (b'"' | b'\\' | b'/')) => byte,
        Some(b'u') => return unescape_unicode(rest, out),
        _ => {
            out.push(b'\\');
            return rest.get(1..).unwrap_or_default();
        }
    };
    out.push(plain);
    rest.get(2..).unwrap_or_default()
}

fn unescape_unicode<'a>(rest: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    let Some(first) = code_unit(rest) else {
        out.push(b'\\');
        return rest.get(1..).unwrap_or_default();
    };
    let after = rest.get(6..).unwrap_or_default();
    if let 0xd800..0xdc00 = first
        && let Some(second @ 0xdc00..0xe000) = code_unit(after)
    {
        let code = 0x1_0000 + ((first - 0xd800) << 10 | (second - 0xdc00));
        put_char(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), out);
        return after.get(6..).unwrap_or_default();
    }
    put_char(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER), out);
    after
}

/// The number of an escape `\uXXXX` at the front of `bytes`.
fn code_unit(bytes: &[u8]) -> Option<u32> {
    let hex = bytes.strip_prefix(b"\\u")?.first_chunk::<4>()?;
    hex.iter().try_fold(0, |n, &b| Some(n << 4 | char::from(b).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn members(text: &str) -> Result<Vec<(String, String)>, Unreadable> {
        let mut scanner = Scanner::new(text.as_bytes());
        let mut found = Vec::new();
        if scanner.open_object()? {
            while let Some(key) = scanner.next_key()? {
                let raw = scanner.raw()?;
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                found.push((text(key), text(raw)));
            }
        }
        scanner.end()?;
        Ok(found)
    }

    fn unescaped(raw: &str) -> String {
        let mut out = Vec::new();
        unescape_into(raw.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn members_come_in_order_with_their_raw_values() {
        let text = r#" { "a" : 1 , "b":"x\"}" ,"c":[1,{"d":"]"}], "e":{}, "f":null,"g":-1.5e3 , "h":true} "#;
        let found = members(text).unwrap();
        let pairs: Vec<_> = found.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(
            pairs,
            [
                ("a", "1"),
                ("b", r#""x\"}""#),
                ("c", r#"[1,{"d":"]"}]"#),
                ("e", "{}"),
                ("f", "null"),
                ("g", "-1.5e3"),
                ("h", "true")
            ]
        );
    }

    #[test]
    fn broken_texts_are_noticed() {
        for text in [
            "",
            "{",
            "{\"a\"",
            "{\"a\":",
            "{\"a\":1",
            "{\"a\":1,}",
            "{,\"a\":1}",
            "{\"a\" 1}",
            "{a:1}",
            "{\"a\":1 \"b\":2}",
            "{\"a\":\"x}",
            "{\"a\":\"x\\\"}",
            "{\"a\":[1}",
            "{\"a\":[1}]",
            "{\"a\":nul}",
            "{\"a\":True}",
            "{\"a\":}",
            "{}{}",
            "{} x",
            "nope",
        ] {
            assert!(members(text).is_err(), "{text}");
        }
        let deep = format!("{}{}", "[".repeat(129), "]".repeat(129));
        assert_eq!(members(&deep).unwrap_err().what, "nested too deep");
        assert_eq!(members("{\"a\":x}").unwrap_err().to_string(), "not JSON at byte 5: no value starts like this");
    }

    #[test]
    fn counts_are_whole_numbers_of_32_bits() {
        for (text, want) in [
            ("0", Some(0)),
            ("15", Some(15)),
            ("4294967295", Some(u32::MAX)),
            ("4294967296", None),
            ("99999999999999999999999", None),
            ("-1", None),
            ("1.0", None),
            ("null", None),
            ("\"7\"", None),
            ("[7]", None),
        ] {
            assert_eq!(Scanner::new(text.as_bytes()).count(), Ok(want), "{text}");
        }
    }

    #[test]
    fn escapes_become_their_characters() {
        assert_eq!(unescaped(r#"a\n\t\r\b\f\"\\\/z"#), "a\n\t\r\u{8}\u{c}\"\\/z");
        assert_eq!(unescaped(r"\u00e9\u4F60"), "é你");
        assert_eq!(unescaped(r"\ud83d\ude00!"), "😀!");
        assert_eq!(unescaped(r"\ud83d!"), "\u{fffd}!");
        assert_eq!(unescaped(r"\ude00\ud83d"), "\u{fffd}\u{fffd}");
        assert_eq!(unescaped(r"\ud83d\n"), "\u{fffd}\n");
        assert_eq!(unescaped(r"\ud83d\u0041"), "\u{fffd}A");
        assert_eq!(unescaped(r"\x\u12"), r"\x\u12");
        assert_eq!(unescaped("\\"), "\\");
        let mut out = Vec::new();
        unescape_into(b"a\xffb\\n\xe4\xbd", &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "a\u{fffd}b\n\u{fffd}");
    }

    #[test]
    fn a_quote_is_found_at_every_distance() {
        for distance in 0..200 {
            for special in [b'"', b'\\'] {
                let mut bytes = vec![b'a'; 300];
                bytes[3 + distance] = special;
                assert_eq!(find_special(&bytes, 3), Some(3 + distance));
                assert_eq!(find_special(&bytes[..3 + distance], 3), None);
            }
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec(("[a-z\u{e9}]{0,12}", inner), 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_object_reads_as_a_full_parser_reads_it(
            object in prop::collection::vec(("[a-z]{1,12}", any_json()), 0..6),
            pretty: bool,
        ) {
            let object: serde_json::Map<String, Value> = object.into_iter().collect();
            let text = if pretty { serde_json::to_string_pretty(&object) } else { serde_json::to_string(&object) };
            let text = text.unwrap();
            let found = members(&text).unwrap();
            prop_assert_eq!(found.len(), object.len());
            for ((key, raw), (want_key, want)) in found.iter().zip(&object) {
                prop_assert_eq!(key, want_key);
                prop_assert_eq!(&serde_json::from_str::<Value>(raw).unwrap(), want);
                if let Value::String(want) = want {
                    prop_assert_eq!(&unescaped(&raw[1..raw.len() - 1]), want);
                }
            }
            for cut in 0..text.len() {
                if text.is_char_boundary(cut) {
                    prop_assert!(members(&text[..cut]).is_err(), "cut at {}", cut);
                }
            }
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(&b"{}[]\",:\\u0ntf1"[..])], 0..200)) {
            let mut scanner = Scanner::new(&bytes);
            let _ = scanner.skip();
            let mut scanner = Scanner::new(&bytes);
            if scanner.open_object() == Ok(true) {
                while let Ok(Some(_)) = scanner.next_key() {
                    if scanner.raw().is_err() { break; }
                }
            }
            let mut out = Vec::new();
            unescape_into(&bytes, &mut out);
            prop_assert!(String::from_utf8(out).is_ok());
        }
    }
}
