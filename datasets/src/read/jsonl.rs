//! JSONL files: lines, and typed access to a row's fields whose errors name file, line and field.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::Error;
use crate::read::moment::decimal_to_ns;
use crate::read::source::{self, Reader, Stored};

/// Where in its file something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// A line, from 1.
    Line(usize),
    /// A row of a table or an element of a list, from 1.
    Entry(usize),
}

impl Place {
    /// The number alone.
    pub(crate) fn number(self) -> usize {
        match self {
            Self::Line(n) | Self::Entry(n) => n,
        }
    }

    /// An error about this place of `path`.
    pub(crate) fn error(self, path: &Path, what: impl fmt::Display) -> Error {
        match self {
            Self::Line(line) => Error::row(path, line, what),
            Self::Entry(n) => Error(format!("{}: entry {n}: {what}", path.display())),
        }
    }
}

/// The lines of a text file, one at a time: a leading byte order mark, line ends of either kind and blank lines are
/// left out.
pub(crate) struct Lines<'p> {
    path: &'p Path,
    reader: Reader,
    buffer: Vec<u8>,
    number: usize,
    stored: Stored,
    /// Bytes of the content that were read.
    passed: u64,
}

impl<'p> Lines<'p> {
    /// Opens a file, compressed or not.
    pub(crate) fn open(path: &'p Path) -> Result<Self, Error> {
        let (reader, stored) = source::open_as_stored(path)?;
        Ok(Self { path, reader, buffer: Vec::new(), number: 0, stored, passed: 0 })
    }

    /// Whether lines lie in the file as they are.
    pub(crate) fn is_plain(&self) -> bool {
        self.stored != Stored::Packed
    }

    /// The next line that is not blank, and its number from 1.
    pub(crate) fn next(&mut self) -> Result<Option<(usize, &str)>, Error> {
        Ok(self.next_at()?.map(|(number, _, line)| (number, line)))
    }

    /// The next line that is not blank: its number from 1, where its first character lies in a plain file, itself.
    pub(crate) fn next_at(&mut self) -> Result<Option<(usize, u64, &str)>, Error> {
        loop {
            self.buffer.clear();
            self.number += 1;
            let place = (self.path, self.number);
            let Some(read) = source::line(&mut self.reader, &mut self.buffer, place)? else { return Ok(None) };
            self.passed += read as u64;
            if !self.buffer.trim_ascii().is_empty() {
                break;
            }
        }
        let start = if let Stored::Plain(start) = self.stored { start } else { 0 };
        let blank = self.buffer.len() - self.buffer.trim_ascii_start().len();
        let at = start + self.passed - (self.buffer.len() - blank) as u64;
        match std::str::from_utf8(&self.buffer) {
            Ok(line) => Ok(Some((self.number, at, line.trim_ascii()))),
            Err(e) => {
                Err(Error::row(self.path, self.number, format_args!("not UTF-8 at byte {}", e.valid_up_to() + 1)))
            }
        }
    }
}

/// Hands over every row of a JSONL file.
pub(crate) fn each(path: &Path, f: &mut dyn FnMut(&Row<'_>) -> Result<(), Error>) -> Result<(), Error> {
    let mut lines = Lines::open(path)?;
    while let Some((line, text)) = lines.next()? {
        f(&Row::parse(path, Place::Line(line), text)?)?;
    }
    Ok(())
}

/// Whether a file holds `needle` anywhere in a line.
pub(crate) fn mentions(path: &Path, needle: &str) -> Result<bool, Error> {
    let finder = memchr::memmem::Finder::new(needle.as_bytes());
    let (mut reader, mut line) = (source::open(path)?, Vec::new());
    for number in 1.. {
        line.clear();
        match source::line(&mut reader, &mut line, (path, number))? {
            None => break,
            Some(_) if finder.find(&line).is_some() => return Ok(true),
            Some(_) => {}
        }
    }
    Ok(false)
}

/// One row: a JSON object whose values are still text.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    pub(crate) path: &'a Path,
    pub(crate) place: Place,
    /// Where in the row this object stands, `turns[2]`; empty for the row itself.
    within: String,
    text: &'a str,
    fields: HashMap<Cow<'a, str>, &'a RawValue>,
}

impl<'a> Row<'a> {
    pub(crate) fn parse(path: &'a Path, place: Place, text: &'a str) -> Result<Self, Error> {
        if !text.starts_with('{') {
            return Err(place.error(path, "a row must be a JSON object"));
        }
        match serde_json::from_str(text) {
            Ok(fields) => Ok(Self { path, place, within: String::new(), text, fields }),
            Err(e) => Err(place.error(path, format_args!("not valid JSON: {}", in_row(&e)))),
        }
    }

    /// The whole row.
    pub(crate) fn whole(&self) -> Result<Map<String, Value>, Error> {
        serde_json::from_str(self.text).map_err(|e| self.error(format_args!("not valid JSON: {}", in_row(&e))))
    }

    /// An error about this row.
    pub(crate) fn error(&self, what: impl fmt::Display) -> Error {
        if self.within.is_empty() {
            return self.place.error(self.path, what);
        }
        self.place.error(self.path, format_args!("{}: {what}", self.within))
    }

    /// The objects of the list `field`, each as a row of its own whose errors name its place in the list. Null and
    /// missing are an empty list.
    pub(crate) fn rows(&self, field: &str) -> Result<Vec<Row<'a>>, Error> {
        let Some(raw) = self.raw(field) else {
            return Ok(Vec::new());
        };
        let items: Vec<&'a RawValue> = serde_json::from_str(raw)
            .map_err(|e| self.error(format_args!("`{field}` must be a list of objects ({})", in_field(&e))))?;
        items.into_iter().enumerate().map(|(k, item)| self.nested(format!("{field}[{k}]"), item)).collect()
    }

    /// The object `field` as a row of its own.
    pub(crate) fn row(&self, field: &str) -> Result<Option<Row<'a>>, Error> {
        self.fields
            .get(field)
            .filter(|raw| raw.get() != "null")
            .map(|raw| self.nested(field.to_owned(), raw))
            .transpose()
    }

    fn nested(&self, name: String, raw: &'a RawValue) -> Result<Row<'a>, Error> {
        let within = if self.within.is_empty() { name } else { format!("{}.{name}", self.within) };
        match serde_json::from_str(raw.get()) {
            Ok(fields) => Ok(Row { path: self.path, place: self.place, within, text: raw.get(), fields }),
            Err(_) => Err(self.place.error(self.path, format_args!("`{within}` must be an object"))),
        }
    }

    /// Whether the field is there, null or not.
    pub(crate) fn names(&self, field: &str) -> bool {
        self.fields.contains_key(field)
    }

    /// Whether the field is there and not null.
    pub(crate) fn has(&self, field: &str) -> bool {
        self.raw(field).is_some()
    }

    /// Whether the field holds something: not null, false, zero, an empty string, list or object.
    pub(crate) fn is_set(&self, field: &str) -> bool {
        self.raw(field).is_some_and(|raw| !matches!(raw, "\"\"" | "[]" | "{}" | "0" | "0.0" | "false"))
    }

    /// The field as it is written; none where it is missing or null.
    pub(crate) fn raw(&self, field: &str) -> Option<&'a str> {
        self.fields.get(field).map(|raw| raw.get()).filter(|raw| *raw != "null")
    }

    /// Reads a field as `T`; `what` completes "`field` must be …".
    pub(crate) fn read<T: DeserializeOwned>(&self, field: &str, what: &str) -> Result<Option<T>, Error> {
        self.raw(field)
            .map(|raw| {
                serde_json::from_str(raw)
                    .map_err(|e| self.error(format_args!("`{field}` must be {what} ({})", in_field(&e))))
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
        self.time(field, 6, "milliseconds")
    }

    /// Seconds as nanoseconds, exact to the last digit.
    pub(crate) fn seconds(&self, field: &str) -> Result<Option<u64>, Error> {
        self.time(field, 9, "seconds")
    }

    fn time(&self, field: &str, scale: i64, unit: &str) -> Result<Option<u64>, Error> {
        let Some(raw) = self.raw(field) else {
            return Ok(None);
        };
        match decimal_to_ns(raw, scale) {
            Some(ns) => Ok(Some(ns)),
            None => Err(self.error(format_args!("`{field}` must be a number of {unit} from 0, not {}", brief(raw)))),
        }
    }
}

/// serde_json's complaint; a row is one line, so its line number says nothing.
pub(crate) fn in_row(e: &serde_json::Error) -> String {
    e.to_string().replace(" at line 1 column ", " at column ")
}

/// The same of a field, whose own columns are not those of the row.
pub(crate) fn in_field(e: &serde_json::Error) -> String {
    let mut said = in_row(e);
    said.truncate(said.rfind(" at column ").unwrap_or(said.len()));
    said
}

pub(crate) fn brief(raw: &str) -> Cow<'_, str> {
    match raw.char_indices().nth(40) {
        Some((at, _)) => Cow::Owned(format!("{}...", &raw[..at])),
        None => Cow::Borrowed(raw),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let row = Row::parse(path, Place::Line(7), r#"{"n": -1, "s": 5, "t": "x"}"#).unwrap();
        assert_eq!(row.integer("n", 9).unwrap_err().0, "f.jsonl:7: `n` must be a whole number from 0 to 9, not -1");
        assert!(row.string("s").unwrap_err().0.starts_with("f.jsonl:7: `s` must be a string (invalid type"));
        assert!(row.millis("t").unwrap_err().0.starts_with("f.jsonl:7: `t` must be a number of milliseconds"));
        assert!(
            Row::parse(path, Place::Line(3), "{\"a\":").unwrap_err().0.starts_with("f.jsonl:3: not valid JSON: EOF")
        );
        assert!(Row::parse(path, Place::Line(3), "[]").unwrap_err().0.contains("must be a JSON object"));
    }
}
