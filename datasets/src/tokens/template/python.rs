//! What templates call that is Python's and not Jinja's.

use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use minijinja::value::{Kwargs, Object, Rest, Value, ValueKind};
use minijinja::{Error, ErrorKind, Output, State};
use minijinja_contrib::pycompat;
use serde::Serialize;

/// A method of a value that has none in Jinja.
pub(super) fn method(state: &State<'_, '_>, value: &Value, name: &str, given: &[Value]) -> Result<Value, Error> {
    match (value.as_str(), name, given) {
        (Some(text), "removeprefix" | "removesuffix" | "partition" | "rpartition", [part]) => {
            let part = part.as_str().ok_or_else(|| Error::from(ErrorKind::InvalidOperation))?;
            Ok(match name {
                "removeprefix" => text.strip_prefix(part).unwrap_or(text).into(),
                "removesuffix" => text.strip_suffix(part).unwrap_or(text).into(),
                "partition" => text
                    .split_once(part)
                    .map_or([text, "", ""], |(head, tail)| [head, part, tail])
                    .map(str::to_owned)
                    .to_vec()
                    .into(),
                _ => text
                    .rsplit_once(part)
                    .map_or(["", "", text], |(head, tail)| [head, part, tail])
                    .map(str::to_owned)
                    .to_vec()
                    .into(),
            })
        }
        _ => pycompat::unknown_method_callback(state, value, name, given),
    }
}

/// Writes what `{{ … }}` comes to: lists and maps as Python shows them.
pub(super) fn write(out: &mut Output<'_>, state: &State<'_, '_>, value: &Value) -> Result<(), Error> {
    match shown(value) {
        Some(text) => out.write_str(&text).map_err(Error::from),
        None => minijinja::escape_formatter(out, state, value),
    }
}

/// The filter `string`.
pub(super) fn string(value: &Value) -> Value {
    if value.as_str().is_some() { value.clone() } else { text(value).into() }
}

/// The filter `join`: texts of a list's items, or of what they have under `attribute`.
pub(super) fn join(items: &Value, between: Option<&str>, options: Kwargs) -> Result<String, Error> {
    let attribute: Option<&str> = options.get("attribute")?;
    let between = match between {
        Some(between) => between,
        None => options.get::<Option<&str>>("d")?.unwrap_or_default(),
    };
    options.assert_all_used()?;
    if items.is_none() {
        return Err(Error::new(ErrorKind::InvalidOperation, "join: none has no items"));
    }
    let texts: Result<Vec<String>, Error> = items
        .try_iter()?
        .map(|item| Ok(text(&attribute.map_or_else(|| Ok(item.clone()), |name| item.get_attr(name))?)))
        .collect();
    Ok(texts?.join(between))
}

/// Python's `str`.
fn text(value: &Value) -> String {
    shown(value).unwrap_or_else(|| value.to_string())
}

/// Python's `repr` of a list or map. None for anything else. A tuple is a list here.
fn shown(value: &Value) -> Option<String> {
    let mut out = String::new();
    // A text takes all that is written to it.
    matches!(value.kind(), ValueKind::Seq | ValueKind::Map).then(|| put_shown(&mut out, value).map(|()| out).ok())?
}

fn put_shown(out: &mut String, value: &Value) -> fmt::Result {
    let items = || value.try_iter().into_iter().flatten();
    match value.kind() {
        ValueKind::Seq => put_items(out, ['[', ']'], items(), put_shown),
        ValueKind::Map => put_items(out, ['{', '}'], items(), |out, key| {
            put_shown(out, key)?;
            out.write_str(": ")?;
            put_shown(out, &value.get_item(key).unwrap_or_default())
        }),
        ValueKind::String => put_quoted(out, value.as_str().unwrap_or_default()),
        ValueKind::Undefined => out.write_str("Undefined"),
        _ => write!(out, "{value}"),
    }
}

fn put_items(
    out: &mut String,
    [open, close]: [char; 2],
    items: impl Iterator<Item = Value>,
    put: impl Fn(&mut String, &Value) -> fmt::Result,
) -> fmt::Result {
    out.write_char(open)?;
    for (k, item) in items.enumerate() {
        if k > 0 {
            out.write_str(", ")?;
        }
        put(out, &item)?;
    }
    out.write_char(close)
}

/// Python's `repr` of a text: in single quotes, unless it has some and no double ones.
fn put_quoted(out: &mut String, text: &str) -> fmt::Result {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.write_char(quote)?;
    for c in text.chars() {
        match c {
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            '\\' => out.write_str("\\\\")?,
            c if c == quote => write!(out, "\\{c}")?,
            c if c.is_ascii_graphic() || c == ' ' || is_printable(c) => out.write_char(c)?,
            c => match u32::from(c) {
                n @ ..=0xff => write!(out, "\\x{n:02x}")?,
                n @ ..=0xffff => write!(out, "\\u{n:04x}")?,
                n => write!(out, "\\U{n:08x}")?,
            },
        }
    }
    out.write_char(quote)
}

/// Whether Python's `repr` leaves a character as it is. The standard library asks the same of all but the first of a text.
fn is_printable(c: char) -> bool {
    let mut bytes = [b'a'; 5];
    let end = 1 + c.encode_utf8(&mut bytes[1..]).len();
    std::str::from_utf8(&bytes[..end]).is_ok_and(|text| text.escape_debug().count() == 2)
}

/// The function `cycler`.
pub(super) fn cycler(items: Rest<Value>) -> Result<Value, Error> {
    if items.is_empty() {
        return Err(Error::new(ErrorKind::MissingArgument, "cycler: at least one item has to be provided"));
    }
    Ok(Value::from_object(Cycler { items: items.0, at: AtomicUsize::new(0) }))
}

/// Gives its items in turn.
#[derive(Debug)]
struct Cycler {
    items: Vec<Value>,
    at: AtomicUsize,
}

impl Object for Cycler {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        (key.as_str() == Some("current")).then(|| self.items[self.at.load(Ordering::Relaxed)].clone())
    }

    fn call_method(self: &Arc<Self>, _: &State<'_, '_>, name: &str, given: &[Value]) -> Result<Value, Error> {
        let at = self.at.load(Ordering::Relaxed);
        let (next, value) = match (name, given) {
            ("next", []) => ((at + 1) % self.items.len(), self.items[at].clone()),
            ("reset", []) => (0, Value::from(())),
            _ => return Err(Error::from(ErrorKind::UnknownMethod)),
        };
        self.at.store(next, Ordering::Relaxed);
        Ok(value)
    }
}

/// `tojson` as `transformers` defines it: Python's `json.dumps`, with `ensure_ascii` off unless asked for.
pub(super) fn to_json(value: Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    let [item, key] = match separators.as_deref() {
        None => [if indent.is_some() { "," } else { ", " }, ": "],
        Some([item, key]) => [item.as_str(), key],
        Some(_) => return Err(Error::new(ErrorKind::InvalidOperation, "tojson: separators are two texts")),
    };
    let formatter = Dumps {
        item,
        key,
        indent: indent.map(|n| n.min(16)),
        ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        depth: 0,
        empty: true,
    };
    let sort: Option<bool> = options.get("sort_keys")?;
    options.assert_all_used()?;
    let mut out = Vec::new();
    let failed = |e: &dyn std::fmt::Display| Error::new(ErrorKind::BadSerialization, e.to_string());
    let mut value = serde_json::to_value(&value).map_err(|e| failed(&e))?;
    if sort == Some(true) {
        value.sort_all_objects();
    }
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, formatter)).map_err(|e| failed(&e))?;
    String::from_utf8(out).map_err(|e| failed(&e))
}

/// The layout of `json.dumps`.
struct Dumps<'a> {
    /// Between items, and after keys.
    item: &'a str,
    key: &'a str,
    indent: Option<usize>,
    /// Other characters are escaped.
    ascii: bool,
    depth: usize,
    /// What is open has nothing in it yet.
    empty: bool,
}

impl Dumps<'_> {
    fn open<W: ?Sized + Write>(&mut self, out: &mut W, bracket: u8) -> io::Result<()> {
        self.depth += 1;
        self.empty = true;
        out.write_all(&[bracket])
    }

    fn close<W: ?Sized + Write>(&mut self, out: &mut W, bracket: u8) -> io::Result<()> {
        self.depth -= 1;
        if !self.empty {
            self.line(out)?;
        }
        self.empty = false;
        out.write_all(&[bracket])
    }

    fn item<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if !first {
            out.write_all(self.item.as_bytes())?;
        }
        self.empty = false;
        self.line(out)
    }

    fn line<W: ?Sized + Write>(&self, out: &mut W) -> io::Result<()> {
        match self.indent {
            Some(indent) => write!(out, "\n{:1$}", "", indent * self.depth),
            None => Ok(()),
        }
    }
}

impl serde_json::ser::Formatter for Dumps<'_> {
    fn begin_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.open(out, b'[')
    }

    fn end_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.close(out, b']')
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.item(out, first)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.open(out, b'{')
    }

    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.close(out, b'}')
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.item(out, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(self.key.as_bytes())
    }

    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        if !self.ascii || fragment.is_ascii() {
            return out.write_all(fragment.as_bytes());
        }
        for c in fragment.chars() {
            if c.is_ascii() {
                write!(out, "{c}")?;
            } else {
                c.encode_utf16(&mut [0; 2]).iter().try_for_each(|unit| write!(out, "\\u{unit:04x}"))?;
            }
        }
        Ok(())
    }
}

/// What `strftime` makes of `format` at midnight on the day that templates are told it is, 1 January 2025.
pub(super) fn strftime(format: &str) -> String {
    let mut out = String::new();
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let (short, letter) = match after.strip_prefix('-') {
            Some(after) => (true, after.chars().next()),
            None => (false, after.chars().next()),
        };
        rest = &after[usize::from(short) + letter.map_or(0, char::len_utf8)..];
        match letter.and_then(part) {
            Some(part) if short => {
                out.push_str(Some(part.trim_start_matches(['0', ' '])).filter(|p| !p.is_empty()).unwrap_or("0"))
            }
            Some(part) => out.push_str(part),
            None => {
                out.push_str(if short { "%-" } else { "%" });
                out.extend(letter);
            }
        }
    }
    out + rest
}

/// A part of that day's date.
fn part(letter: char) -> Option<&'static str> {
    Some(match letter {
        'Y' => "2025",
        'y' => "25",
        'B' => "January",
        'b' | 'h' => "Jan",
        'm' | 'd' => "01",
        'e' => " 1",
        'j' => "001",
        'A' => "Wednesday",
        'a' => "Wed",
        'u' | 'w' => "3",
        'H' | 'M' | 'S' => "00",
        'I' => "12",
        'p' => "AM",
        'F' => "2025-01-01",
        'D' | 'x' => "01/01/25",
        'T' | 'X' => "00:00:00",
        'R' => "00:00",
        'c' => "Wed Jan  1 00:00:00 2025",
        'Z' | 'z' => "",
        '%' => "%",
        _ => return None,
    })
}
