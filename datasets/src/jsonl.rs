//! JSONL files: lines, and typed access to a row's fields whose errors name file, line and field.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::Error;

const BOM: &[u8] = b"\xef\xbb\xbf";
const GZIP: &[u8] = b"\x1f\x8b";

/// The lines of a text file, one at a time: a leading byte order mark, line ends of either kind and blank lines are
/// left out.
#[derive(Debug)]
pub(crate) struct Lines<'p> {
    path: &'p Path,
    reader: BufReader<File>,
    buffer: Vec<u8>,
    number: usize,
}

impl<'p> Lines<'p> {
    /// Opens `--input-file`. Refuses what is not a plain, uncompressed file.
    pub(crate) fn open(path: &'p Path) -> Result<Self, Error> {
        let failed = |e: std::io::Error| Error(format!("--input-file {}: {e}", path.display()));
        let metadata = std::fs::metadata(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Error(format!("--input-file {}: there is no such file", path.display())),
            _ => failed(e),
        })?;
        if metadata.is_dir() {
            return Err(Error(format!("--input-file {}: directories are not supported yet", path.display())));
        }
        if !metadata.is_file() {
            return Err(Error(format!(
                "--input-file {}: not a regular file (it is read more than once)",
                path.display()
            )));
        }
        let mut reader = BufReader::with_capacity(1 << 16, File::open(path).map_err(failed)?);
        let head = reader.fill_buf().map_err(failed)?;
        if head.starts_with(GZIP) {
            return Err(Error(format!(
                "--input-file {}: gzip files are not supported yet; unpack it first",
                path.display()
            )));
        }
        if head.starts_with(BOM) {
            reader.consume(BOM.len());
        }
        Ok(Self { path, reader, buffer: Vec::new(), number: 0 })
    }

    /// The next line that is not blank, and its number from 1.
    pub(crate) fn next(&mut self) -> Result<Option<(usize, &str)>, Error> {
        loop {
            self.buffer.clear();
            let read = self
                .reader
                .read_until(b'\n', &mut self.buffer)
                .map_err(|e| Error(format!("--input-file {}: {e}", self.path.display())))?;
            if read == 0 {
                return Ok(None);
            }
            self.number += 1;
            if !self.buffer.trim_ascii().is_empty() {
                break;
            }
        }
        match std::str::from_utf8(&self.buffer) {
            Ok(line) => Ok(Some((self.number, line.trim_ascii()))),
            Err(e) => {
                Err(Error::row(self.path, self.number, format_args!("not UTF-8 at byte {}", e.valid_up_to() + 1)))
            }
        }
    }
}

/// One row: a JSON object whose values are still text.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    pub(crate) path: &'a Path,
    pub(crate) line: usize,
    fields: HashMap<Cow<'a, str>, &'a RawValue>,
}

impl<'a> Row<'a> {
    pub(crate) fn parse(path: &'a Path, line: usize, text: &'a str) -> Result<Self, Error> {
        if !text.starts_with('{') {
            return Err(Error::row(path, line, "a row must be a JSON object"));
        }
        match serde_json::from_str(text) {
            Ok(fields) => Ok(Self { path, line, fields }),
            Err(e) => Err(Error::row(path, line, format_args!("not valid JSON: {}", in_row(&e)))),
        }
    }

    /// An error about this row.
    pub(crate) fn error(&self, what: impl std::fmt::Display) -> Error {
        Error::row(self.path, self.line, what)
    }

    /// Whether the field is there and not null.
    pub(crate) fn has(&self, field: &str) -> bool {
        self.raw(field).is_some()
    }

    /// Whether the field holds something: not null, false, zero, an empty string, list or object.
    pub(crate) fn is_set(&self, field: &str) -> bool {
        self.raw(field).is_some_and(|raw| !matches!(raw, "\"\"" | "[]" | "{}" | "0" | "0.0" | "false"))
    }

    fn raw(&self, field: &str) -> Option<&'a str> {
        self.fields.get(field).map(|raw| raw.get()).filter(|raw| *raw != "null")
    }

    /// Reads a field as `T`; `what` completes "`field` must be …".
    pub(crate) fn read<T: DeserializeOwned>(&self, field: &str, what: &str) -> Result<Option<T>, Error> {
        self.raw(field)
            .map(|raw| {
                serde_json::from_str(raw)
                    .map_err(|e| self.error(format_args!("`{field}` must be {what} ({})", in_row(&e))))
            })
            .transpose()
    }

    pub(crate) fn string(&self, field: &str) -> Result<Option<String>, Error> {
        self.read(field, "a string")
    }

    pub(crate) fn object(&self, field: &str) -> Result<Option<Map<String, Value>>, Error> {
        self.read(field, "an object")
    }

    pub(crate) fn list(&self, field: &str) -> Result<Option<Vec<Value>>, Error> {
        self.read(field, "a list")
    }

    /// A whole number from 0 to `most`; `16.0` is one.
    pub(crate) fn integer(&self, field: &str, most: u32) -> Result<Option<u32>, Error> {
        let Some(raw) = self.raw(field) else {
            return Ok(None);
        };
        let whole = raw.parse().ok().or_else(|| {
            let x: f64 = raw.parse().ok()?;
            (x.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&x)).then_some(x as u32)
        });
        match whole {
            Some(x) if x <= most => Ok(Some(x)),
            _ => Err(self.error(format_args!("`{field}` must be a whole number from 0 to {most}, not {}", brief(raw)))),
        }
    }

    /// Milliseconds as nanoseconds, exact to the last digit.
    pub(crate) fn millis(&self, field: &str) -> Result<Option<u64>, Error> {
        let Some(raw) = self.raw(field) else {
            return Ok(None);
        };
        match millis_to_ns(raw) {
            Some(ns) => Ok(Some(ns)),
            None => {
                Err(self.error(format_args!("`{field}` must be a number of milliseconds from 0, not {}", brief(raw))))
            }
        }
    }
}

/// serde_json's complaint; a row is one line, so its line number says nothing.
fn in_row(e: &serde_json::Error) -> String {
    e.to_string().replace(" at line 1 column ", " at column ")
}

fn brief(raw: &str) -> Cow<'_, str> {
    match raw.char_indices().nth(40) {
        Some((at, _)) => Cow::Owned(format!("{}...", &raw[..at])),
        None => Cow::Borrowed(raw),
    }
}

/// A JSON number of milliseconds as nanoseconds: decimal arithmetic on the digits as written; digits beyond the
/// nanosecond are rounded half up. None where it is no number, negative, or beyond 64 bits.
fn millis_to_ns(json: &str) -> Option<u64> {
    let (mantissa, exponent) = match json.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (json, 0),
    };
    let (negative, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits: Vec<u8> =
        whole.bytes().chain(fraction.bytes()).map(|b| b - b'0').skip_while(|digit| *digit == 0).collect();
    if digits.is_empty() {
        return Some(0);
    }
    // ns = digits * 10^scale
    let scale = exponent.checked_sub(i64::try_from(fraction.len()).ok()?)?.checked_add(6)?;
    // Leading zeros of the fraction are gone from `digits` already, so this is where the nanoseconds end.
    let kept = i64::try_from(digits.len()).ok()?.checked_add(scale)?;
    if negative || kept > 20 {
        return None;
    }
    if kept < 0 {
        return Some(0);
    }
    let kept = kept as usize;
    let digit = |at: usize| u128::from(digits.get(at).copied().unwrap_or(0));
    let ns = (0..kept).fold(0u128, |ns, at| ns * 10 + digit(at)) + u128::from(digit(kept) >= 5);
    u64::try_from(ns).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn milliseconds_are_exact() {
        for (json, ns) in [
            ("0", Some(0)),
            ("-0.0", Some(0)),
            ("7.215", Some(7_215_000)),
            ("27482", Some(27_482_000_000)),
            ("1700000000123.456789", Some(1_700_000_000_123_456_789)),
            ("0.0000005", Some(1)),
            ("0.0000004999", Some(0)),
            ("0.000001", Some(1)),
            ("1.5e3", Some(1_500_000_000)),
            ("15E-1", Some(1_500_000)),
            ("1e-300", Some(0)),
            ("0e999999999999999999", Some(0)),
            ("18446744073709.551615", Some(u64::MAX)),
            ("18446744073709.551616", None),
            ("1e300", None),
            ("-1", None),
            ("\"7\"", None),
            ("true", None),
            ("1e99999999999999999999", None),
        ] {
            assert_eq!(millis_to_ns(json), ns, "{json}");
        }
    }

    proptest! {
        #[test]
        fn any_nanosecond_survives_being_written_in_milliseconds(ns: u64) {
            let json = format!("{}.{:06}", ns / 1_000_000, ns % 1_000_000);
            prop_assert_eq!(millis_to_ns(&json), Some(ns));
        }

        #[test]
        fn no_number_text_panics(json in "-?[0-9]{0,30}(\\.[0-9]{0,30})?([eE][+-]?[0-9]{0,20})?") {
            millis_to_ns(&json);
        }
    }

    #[test]
    fn lines_know_their_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, b"\xef\xbb\xbf{\"a\":1}\r\n\r\n  \n{\"b\":2}").unwrap();
        let mut lines = Lines::open(&path).unwrap();
        assert_eq!(lines.next().unwrap(), Some((1, "{\"a\":1}")));
        assert_eq!(lines.next().unwrap(), Some((4, "{\"b\":2}")));
        assert_eq!(lines.next().unwrap(), None);
    }

    #[test]
    fn errors_name_file_line_and_field() {
        let path = Path::new("f.jsonl");
        let row = Row::parse(path, 7, r#"{"n": -1, "s": 5, "t": "x"}"#).unwrap();
        assert_eq!(row.integer("n", 9).unwrap_err().0, "f.jsonl:7: `n` must be a whole number from 0 to 9, not -1");
        assert!(row.string("s").unwrap_err().0.starts_with("f.jsonl:7: `s` must be a string (invalid type"));
        assert!(row.millis("t").unwrap_err().0.starts_with("f.jsonl:7: `t` must be a number of milliseconds"));
        assert!(Row::parse(path, 3, "{\"a\":").unwrap_err().0.starts_with("f.jsonl:3: not valid JSON: EOF"));
        assert!(Row::parse(path, 3, "[]").unwrap_err().0.contains("must be a JSON object"));
    }
}
