//! A command line as typed: the secrets in it, and how the files show it.

use super::{REDACTED, Secrets, credential, fields, is_sensitive, is_sensitive_field, is_sensitive_parameter, url};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::ffi::OsString;

/// Short options that take a value; those that do not may stand before them in one word, as in `-vH`.
const SHORT_WITH_VALUE: [char; 5] = ['H', 'u', 'm', 'b', 'o'];

/// What the values after a flag are, as far as secrets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Values {
    Plain,
    Key,
    Headers,
    Fields,
    Urls,
    /// Another command line.
    Words,
}

impl Values {
    fn of(flag: &str) -> Self {
        match flag {
            "--api-key" => Self::Key,
            "--header" | "-H" => Self::Headers,
            "--extra-inputs" => Self::Fields,
            "--url" | "-u" => Self::Urls,
            "--for" => Self::Words,
            _ => Self::Plain,
        }
    }

    fn shown(self, value: &str) -> String {
        match self {
            Self::Plain if is_location(value) => url(value),
            Self::Plain | Self::Words => value.into(),
            Self::Key => REDACTED.into(),
            // Several stand with commas between them, which no query has then.
            Self::Urls => value.split(',').map(url).collect::<Vec<_>>().join(","),
            Self::Headers => pairs(value, is_sensitive),
            Self::Fields => pairs(value, is_sensitive_field),
        }
    }

    fn secrets(self, value: &str, found: &mut Secrets) {
        match self {
            Self::Plain if is_location(value) => found.add_url(value),
            Self::Plain => {}
            Self::Key => found.add(value),
            Self::Urls => {
                value.split(',').for_each(|one| found.add_url(one));
                found.add_loose(value, is_sensitive_parameter);
            }
            Self::Headers => {
                header_secrets(value, found);
                found.add_loose(value, is_sensitive);
            }
            Self::Fields => {
                if let Ok(fields) = serde_json::from_str::<Map<String, Value>>(value) {
                    found.add_fields(&fields);
                }
                found.add_loose(value, is_sensitive_field);
            }
            Self::Words => {
                let words = shlex::split(value).unwrap_or_default();
                let words =
                    ["maser", "profile"].map(OsString::from).into_iter().chain(words.into_iter().map(Into::into));
                *found = std::mem::take(found).merge(&secrets_of(&words.collect::<Vec<_>>()));
            }
        }
    }
}

/// A URL, or a path with a query.
fn is_location(value: &str) -> bool {
    value.contains("://") || (value.starts_with('/') && value.contains('?'))
}

/// The values of headers may have commas and spaces in them.
fn header_secrets(item: &str, found: &mut Secrets) {
    if let Ok(object) = serde_json::from_str::<Map<String, Value>>(item) {
        for (name, value) in &object {
            found.add_header(name, &value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        }
        return;
    }
    let mut headers: Vec<(&str, String)> = Vec::new();
    for part in item.split(',') {
        match (part.split_once(':'), headers.last_mut()) {
            (Some((name, value)), _) => headers.push((name.trim(), value.trim().to_owned())),
            (None, Some((_, value))) => {
                value.push(',');
                value.push_str(part.trim_end());
            }
            (None, None) => {}
        }
    }
    for (name, value) in &headers {
        found.add_header(name, value);
    }
}

/// A `key:value` list or a JSON object with the values of sensitive names taken out.
fn pairs(item: &str, sensitive: fn(&str) -> bool) -> String {
    if item.trim_start().starts_with('{') {
        return match serde_json::from_str::<Map<String, Value>>(item) {
            Ok(mut object) => {
                for (name, value) in &mut object {
                    if sensitive(name) || value.as_str().and_then(credential).is_some() {
                        *value = REDACTED.into();
                    }
                }
                Value::Object(fields(&object)).to_string()
            }
            Err(_) => REDACTED.into(),
        };
    }
    let mut shown: Vec<Cow<'_, str>> = Vec::new();
    let mut hiding = false;
    for part in item.split(',') {
        match part.split_once(':') {
            Some((name, value)) => {
                hiding = sensitive(name.trim()) || credential(value).is_some();
                shown.push(if hiding { format!("{name}: {REDACTED}").into() } else { part.into() });
            }
            // Still the value before it.
            None if hiding => {}
            None => shown.push(part.into()),
        }
    }
    shown.join(",")
}

/// What a word of the command line is.
enum Word<'a> {
    /// A value of the flag before it.
    Value(&'a str),
    /// A flag, and what stands in the same word: after `=`, or right after a short one.
    Flag { flag: &'a str, of: Values, value: Option<(&'static str, &'a str)> },
}

impl<'a> Word<'a> {
    fn read(word: &'a str) -> Self {
        if is_number(word) || !word.starts_with('-') || word == "-" {
            return Self::Value(word);
        }
        if let Some((flag, value)) = word.split_once('=').filter(|(flag, _)| flag.starts_with("--")) {
            return Self::Flag { flag, of: Values::of(flag), value: Some(("=", value)) };
        }
        if word.starts_with("--") {
            return Self::Flag { flag: word, of: Values::of(word), value: None };
        }
        let Some((at, last)) = word.char_indices().skip(1).find(|(_, c)| SHORT_WITH_VALUE.contains(c)) else {
            return Self::Flag { flag: word, of: Values::Plain, value: None };
        };
        let (flag, value) = word.split_at(at + 1);
        let value = value.strip_prefix('=').unwrap_or(value);
        let value = (!value.is_empty()).then_some((" ", value));
        Self::Flag { flag, of: Values::of(&format!("-{last}")), value }
    }
}

/// The secrets of a command line.
pub(crate) fn secrets_of(argv: &[OsString]) -> Secrets {
    let mut found = Secrets::default();
    let mut values = Values::Plain;
    for word in argv.iter().skip(2) {
        let word = word.to_string_lossy();
        match Word::read(&word) {
            Word::Value(value) => values.secrets(value, &mut found),
            Word::Flag { of, value, .. } => {
                values = of;
                if let Some((_, value)) = value {
                    of.secrets(value, &mut found);
                }
            }
        }
    }
    found
}

/// The command line for the files: text in single quotes, numbers and flags bare, secrets redacted. `argv[0]` is shown
/// as `maser`.
pub(crate) fn cli_command(argv: &[OsString]) -> String {
    let secrets = secrets_of(argv);
    let shown = |of: Values, value: &str| secrets.hide(&super::hidden(&of.shown(value))).into_owned();
    let mut words = vec!["maser".to_string()];
    let mut values = Values::Plain;
    for (n, arg) in argv.iter().enumerate().skip(1) {
        let arg = arg.to_string_lossy();
        if n == 1 {
            words.push(arg.into_owned());
            continue;
        }
        match Word::read(&arg) {
            Word::Value(value) if is_number(value) => words.push(shown(values, value)),
            Word::Value(value) => words.push(quoted(&shown(values, value))),
            Word::Flag { flag, of, value } => {
                values = of;
                words.push(match value {
                    Some((joint, value)) => format!("{flag}{joint}{}", quoted(&shown(of, value))),
                    None => flag.to_owned(),
                });
            }
        }
    }
    words.join(" ")
}

fn is_number(arg: &str) -> bool {
    let digits = arg.strip_prefix('-').unwrap_or(arg);
    digits.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        && digits.bytes().any(|b| b.is_ascii_digit())
        && digits.matches('.').count() <= 1
        && (digits == "0" || digits.starts_with("0.") || !digits.starts_with('0'))
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
