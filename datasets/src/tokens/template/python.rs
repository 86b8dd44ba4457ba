//! What templates call that is Python's and not Jinja's.

use std::io::{self, Write};

use minijinja::value::{Kwargs, Value};
use minijinja::{Error, ErrorKind, State};
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
