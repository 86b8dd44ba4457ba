//! What files and messages may show of a command line: everything but secrets.
//!
//! A secret is known by where it stands (`--api-key`, a header's or a field's name, a URL's query, `Bearer` before it), and
//! once known it is hidden wherever else it shows: [`learn`] collects, [`hidden`] is asked by everything that prints.

mod known;
mod words;

pub(crate) use known::{Secrets, hidden, hidden_in, learn};
pub(crate) use words::{cli_command, secrets_of};

use maser_engine::plan::Hidden;
use serde_json::{Map, Value};

/// What stands in a secret's place.
pub(crate) const REDACTED: &str = "<redacted>";

/// Parts of names whose values are secrets. Hiding too much costs a reader little, hiding too little costs a key.
const SENSITIVE: [&str; 18] = [
    "auth",
    "token",
    "secret",
    "pass",
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
    "csrf",
    "jwt",
    "saml",
    "bearer",
];

/// Whether a header of this name may carry a secret.
pub(crate) fn is_sensitive(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name == "key" || SENSITIVE.iter().any(|part| name.contains(part))
}

/// What stands before a credential in a value, whatever the header or field is called.
const SCHEMES: [&str; 3] = ["bearer ", "basic ", "apikey "];

/// The credential in a value that names its scheme.
fn credential(value: &str) -> Option<&str> {
    let value = value.trim_start();
    let scheme = SCHEMES.iter().find(|s| value.get(..s.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(s)))?;
    Some(value[scheme.len()..].trim())
}

/// A header's value as it may be shown.
pub(crate) fn header_value<'a>(name: &str, value: &'a str) -> &'a str {
    if is_sensitive(name) || credential(value).is_some() { REDACTED } else { value }
}

/// Body fields and query parameters: `max_tokens` and its like are no secrets, so only whole names count.
pub(crate) fn is_sensitive_field(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('-', "_");
    let secret = ["api_key", "apikey", "key", "secret", "password", "passwd", "pwd", "jwt"];
    let token = ["token", "access_token", "auth_token", "id_token", "refresh_token"];
    secret.contains(&name.as_str())
        || token.contains(&name.as_str())
        || ["authorization", "credential", "signature"].iter().any(|p| name.contains(p))
        || ["_api_key", "_apikey", "_secret", "_password", "_access_key", "_auth_token"]
            .iter()
            .any(|p| name.ends_with(p))
}

/// Query parameters: like headers, and what stores of objects and functions call theirs.
fn is_sensitive_parameter(name: &str) -> bool {
    let short = ["sig", "code", "pwd"].iter().any(|known| name.eq_ignore_ascii_case(known));
    short || is_sensitive(name) || is_sensitive_field(name)
}

/// Whether a member of a body is a secret; `within` is the name of the object it is in.
fn is_secret(within: &str, name: &str, value: &Value) -> bool {
    let in_headers = within.to_ascii_lowercase().ends_with("headers");
    (in_headers && is_sensitive(name)) || is_sensitive_field(name) || value.as_str().and_then(credential).is_some()
}

/// Body fields as they may be shown, at any depth.
pub(crate) fn fields(fields: &Map<String, Value>) -> Map<String, Value> {
    shown_members("", fields)
}

fn shown_members(within: &str, members: &Map<String, Value>) -> Map<String, Value> {
    members.iter().map(|(name, value)| (name.clone(), shown(within, name, value))).collect()
}

fn shown(within: &str, name: &str, value: &Value) -> Value {
    match value {
        _ if is_secret(within, name, value) => REDACTED.into(),
        Value::Object(members) => Value::Object(shown_members(name, members)),
        Value::Array(items) => items.iter().map(|item| shown(within, name, item)).collect(),
        other => other.clone(),
    }
}

/// The members of body fields that are secrets, at any depth.
fn secret_members<'a>(within: &str, members: &'a Map<String, Value>, found: &mut dyn FnMut(&'a str, &'a Value)) {
    for (name, value) in members {
        secret_member(within, name, value, found);
    }
}

fn secret_member<'a>(within: &str, name: &'a str, value: &'a Value, found: &mut dyn FnMut(&'a str, &'a Value)) {
    match value {
        _ if is_secret(within, name, value) => found(name, value),
        Value::Object(members) => secret_members(name, members, found),
        Value::Array(items) => items.iter().for_each(|item| secret_member(within, name, item, found)),
        _ => {}
    }
}

/// What no file may show of bodies that `extra` and `template` show in, and of the answers to them.
///
/// A field is hidden by its name and its value together, in the forms that the endpoints write it in (JSON, a form, a
/// tensor): its value alone may be a word that a prompt has too.
pub(crate) fn in_bodies(extra: &Map<String, Value>, template: Option<&str>, known: &Secrets) -> Hidden {
    let mut fields = Vec::new();
    secret_members("", extra, &mut |name, value| in_body(name, value, &mut fields));
    let mut of_template = Secrets::default();
    template.iter().for_each(|text| of_template.add_loose(text, is_sensitive_field));
    for text in of_template.texts() {
        fields.push((Value::from(text).to_string().into_bytes(), Value::from(REDACTED).to_string().into_bytes()));
    }
    Hidden { fields, texts: known.texts().map(|text| text.as_bytes().to_vec()).collect() }
}

fn in_body(name: &str, value: &Value, fields: &mut Vec<(Vec<u8>, Vec<u8>)>) {
    let (key, json, shown) = (Value::from(name), value.to_string(), Value::from(REDACTED));
    let mut put = |before: &str, value: &str, shown: &str, after: &str| {
        fields.push((format!("{before}{value}{after}").into_bytes(), format!("{before}{shown}{after}").into_bytes()));
    };
    let shown_json = shown.to_string();
    // What follows tells where a number ends.
    for after in [",", "}"] {
        put(&format!("{key}:"), &json, &shown_json, after);
    }
    for kind in ["BYTES", "BOOL", "FP32", "INT32"] {
        put(&format!("\"name\":{key},\"shape\":[1],\"datatype\":\"{kind}\",\"data\":["), &json, &shown_json, "]");
    }
    let text = value.as_str().map_or(json.clone(), str::to_owned);
    put(&format!("name=\"{name}\"\r\n\r\n"), &text, REDACTED, "\r\n--");
}

/// A URL, or a path with its query, without the credentials in it: what stands before an `@`, and query parameters that
/// look like keys.
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
    let mut query = query.map_or("", |_| &text[head.len()..]);
    while !query.is_empty() {
        // The separator, then a parameter up to the next one.
        shown.push_str(&query[..1]);
        let end = query[1..].find(['&', ';']).map_or(query.len(), |at| at + 1);
        match query[1..end].split_once('=') {
            Some((name, _)) if is_sensitive_parameter(name) => shown.push_str(&format!("{name}={REDACTED}")),
            _ => shown.push_str(&query[1..end]),
        }
        query = &query[end..];
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

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
