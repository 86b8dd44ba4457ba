//! What files and messages may show of a command line: everything but secrets.

use serde_json::{Map, Value};
use std::borrow::Cow;
use std::ffi::OsString;

/// What stands in a secret's place.
pub(crate) const REDACTED: &str = "<redacted>";

/// Parts of names whose values are secrets. Hiding too much costs a reader little, hiding too little costs a key.
const SENSITIVE: [&str; 15] = [
    "auth",
    "token",
    "secret",
    "password",
    "passwd",
    "credential",
    "cookie",
    "apikey",
    "api-key",
    "api_key",
    "session",
    "signature",
    "-key",
    "_key",
    "xsrf",
];

/// Whether a header of this name may carry a secret.
pub(crate) fn is_sensitive(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SENSITIVE.iter().any(|part| name.contains(part))
}

/// A header's value as it may be shown.
pub(crate) fn header_value<'a>(name: &str, value: &'a str) -> &'a str {
    if is_sensitive(name) { REDACTED } else { value }
}

/// Body fields and query parameters: `max_tokens` and its like are no secrets, so only whole names count.
fn is_sensitive_field(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('-', "_");
    let secret = ["api_key", "apikey", "key", "secret", "password", "passwd"];
    let token = ["token", "access_token", "auth_token", "id_token", "refresh_token"];
    secret.contains(&name.as_str())
        || token.contains(&name.as_str())
        || ["authorization", "credential", "signature"].iter().any(|p| name.contains(p))
        || ["_api_key", "_secret", "_password"].iter().any(|p| name.ends_with(p))
}

/// Body fields as they may be shown, at any depth.
pub(crate) fn fields(fields: &Map<String, Value>) -> Map<String, Value> {
    let shown = |(name, value): (&String, &Value)| {
        let value = match value {
            _ if is_sensitive_field(name) => REDACTED.into(),
            Value::Object(inner) => Value::Object(self::fields(inner)),
            other => other.clone(),
        };
        (name.clone(), value)
    };
    fields.iter().map(shown).collect()
}

/// The texts among body fields that are secrets, at any depth: as they stand in JSON, and where that differs as they are.
pub(crate) fn secrets(fields: &Map<String, Value>) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for (name, value) in fields {
        match value {
            Value::Object(inner) => found.extend(secrets(inner)),
            Value::String(text) if is_sensitive_field(name) => {
                let quoted = value.to_string();
                let escaped = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
                found.push(escaped.as_bytes().to_vec());
                if escaped != text {
                    found.push(text.as_bytes().to_vec());
                }
            }
            _ => {}
        }
    }
    found
}

/// A URL without the credentials in it: what stands before an `@`, and query parameters that look like keys.
pub(crate) fn url(text: &str) -> String {
    let (head, query) = match text.split_once('?') {
        Some((head, query)) => (head, Some(query)),
        None => (text, None),
    };
    let (scheme, rest) = match head.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), head),
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let authority = match authority.rsplit_once('@') {
        Some((_, host)) => format!("{REDACTED}@{host}"),
        None => authority.into(),
    };
    let mut shown = format!("{scheme}{authority}{path}");
    for (n, part) in query.iter().flat_map(|q| q.split('&')).enumerate() {
        shown.push(if n == 0 { '?' } else { '&' });
        match part.split_once('=') {
            Some((name, _)) if is_sensitive(name) || is_sensitive_field(name) => {
                shown.push_str(&format!("{name}={REDACTED}"));
            }
            _ => shown.push_str(part),
        }
    }
    shown
}

/// What the values after a flag are, as far as secrets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Values {
    Plain,
    Key,
    Headers,
    Fields,
    Urls,
}

impl Values {
    fn of(flag: &str) -> Self {
        match flag {
            "--api-key" => Self::Key,
            "--header" | "-H" => Self::Headers,
            "--extra-inputs" => Self::Fields,
            "--url" | "-u" => Self::Urls,
            _ => Self::Plain,
        }
    }

    fn shown(self, value: &str) -> String {
        match self {
            Self::Plain => value.into(),
            Self::Key => REDACTED.into(),
            Self::Urls => url(value),
            Self::Headers => pairs(value, is_sensitive),
            Self::Fields => pairs(value, is_sensitive_field),
        }
    }
}

/// A `key:value` list or a JSON object with the values of sensitive names taken out.
fn pairs(item: &str, sensitive: fn(&str) -> bool) -> String {
    if item.trim_start().starts_with('{') {
        return match serde_json::from_str::<Map<String, Value>>(item) {
            Ok(mut object) => {
                for (name, value) in &mut object {
                    if sensitive(name) {
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
            Some((name, _)) => {
                hiding = sensitive(name.trim());
                shown.push(if hiding { format!("{name}: {REDACTED}").into() } else { part.into() });
            }
            // Still the value before it.
            None if hiding => {}
            None => shown.push(part.into()),
        }
    }
    shown.join(",")
}

/// The command line for the files: text in single quotes, numbers and flags bare, secrets redacted. `argv[0]` is shown
/// as `maser`.
pub(crate) fn cli_command(argv: &[OsString]) -> String {
    let mut words = vec!["maser".to_string()];
    let mut values = Values::Plain;
    for (n, arg) in argv.iter().enumerate().skip(1) {
        let arg = arg.to_string_lossy();
        if n == 1 {
            words.push(arg.into_owned());
        } else if is_number(&arg) {
            words.push(values.shown(&arg));
        } else if !arg.starts_with('-') || arg == "-" {
            words.push(quoted(&values.shown(&arg)));
        } else if let Some((flag, value)) = arg.split_once('=').filter(|(f, _)| f.starts_with("--")) {
            words.push(format!("{flag}={}", quoted(&Values::of(flag).shown(value))));
            values = Values::of(flag);
        } else if let Some((flag, value)) = attached(&arg) {
            words.push(format!("{flag} {}", quoted(&Values::of(flag).shown(value))));
            values = Values::of(flag);
        } else {
            values = Values::of(&arg);
            words.push(arg.into_owned());
        }
    }
    words.join(" ")
}

/// A short option with its value in the same word, `-HName:Value`.
fn attached(arg: &str) -> Option<(&str, &str)> {
    let (flag, value) = arg.split_at_checked(2)?;
    let value = value.strip_prefix('=').unwrap_or(value);
    (matches!(flag, "-H" | "-u" | "-m") && !value.is_empty()).then_some((flag, value))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(words: &[&str]) -> String {
        let argv: Vec<OsString> = words.iter().map(OsString::from).collect();
        cli_command(&argv)
    }

    #[test]
    fn the_command_line_is_quoted_as_the_reference_does() {
        let words = "x profile --url http://127.0.0.1:18080 --output-artifact-dir runs/a/art -m mock --endpoint-type \
                     chat --streaming --concurrency 8 --isl-stddev 1.5 --extra-inputs temperature:0.7 -H X-Test:abc";
        let words: Vec<&str> = words.split_whitespace().collect();
        assert_eq!(
            shown(&words),
            "maser profile --url 'http://127.0.0.1:18080' --output-artifact-dir 'runs/a/art' -m 'mock' \
             --endpoint-type 'chat' --streaming --concurrency 8 --isl-stddev 1.5 --extra-inputs 'temperature:0.7' \
             -H 'X-Test:abc'"
        );
        assert_eq!(shown(&["x", "profile", "-m", "it's"]), r"maser profile -m 'it'\''s'");
    }

    #[test]
    fn secrets_are_redacted_wherever_they_stand() {
        for words in [
            &["--api-key", "S3CR3T"][..],
            &["--api-key", "123"],
            &["--api-key=S3CR3T"],
            &["-H", "Authorization: Bearer S3CR3T"],
            &["-H", "X-A:1,Authorization: Bearer S3CR3T, S3CR3T"],
            &["-H", "A:1", "X-Api-Key:S3CR3T"],
            &["-HCookie:S3CR3T"],
            &["--header={\"x-token\": \"S3CR3T\", \"a\": \"b\"}"],
            &["--extra-inputs", "api_key:S3CR3T"],
            &["--extra-inputs", "{\"a\": {\"password\": \"S3CR3T\"}}"],
            &["--url", "http://user:S3CR3T@host/v1"],
            &["-u", "http://host/v1?api-key=S3CR3T&x=1"],
        ] {
            let line = shown(&[&["x", "profile"], words].concat());
            assert!(!line.contains("S3CR3T") && !line.contains("123"), "{line}");
            assert!(line.contains(REDACTED), "{line}");
        }
    }

    #[test]
    fn ordinary_values_stay() {
        for (words, want) in [
            (&["--extra-inputs", "max_tokens:5"][..], "'max_tokens:5'"),
            (&["-H", "X-Trace:on"], "'X-Trace:on'"),
            (&["--use-server-token-count", "--tokenizer", "builtin"], "--tokenizer 'builtin'"),
            (&["--url", "http://h/v1?x=1"], "'http://h/v1?x=1'"),
            (&["--mock=ttft=1"], "--mock='ttft=1'"),
        ] {
            let line = shown(&[&["x", "profile"], words].concat());
            assert!(line.contains(want), "{line}");
            assert!(!line.contains(REDACTED), "{line}");
        }
    }
}
