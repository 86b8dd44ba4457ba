//! Secrets that are known, and what they are hidden in.

use super::{REDACTED, credential, is_sensitive, is_sensitive_parameter, secret_members};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::sync::RwLock;

/// The secrets of this process, longest first. Everything it prints goes by them, so that no message can forget to.
static KNOWN: RwLock<Secrets> = RwLock::new(Secrets(Vec::new()));

/// Adds to what [`hidden`] hides from now on.
pub(crate) fn learn(more: Secrets) {
    let mut known = KNOWN.write().unwrap_or_else(std::sync::PoisonError::into_inner);
    known.0.extend(more.0);
    known.sort();
}

/// A text without the known secrets.
pub(crate) fn hidden(text: &str) -> Cow<'_, str> {
    KNOWN.read().unwrap_or_else(std::sync::PoisonError::into_inner).hide(text)
}

/// The same for all texts of a document, names aside.
pub(crate) fn hidden_in(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Cow::Owned(clean) = hidden(text) {
                *text = clean;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(hidden_in),
        Value::Object(members) => members.values_mut().for_each(hidden_in),
        _ => {}
    }
}

/// Texts that are secrets.
#[derive(Default, Clone, PartialEq, Eq)]
pub(crate) struct Secrets(Vec<String>);

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} secrets", self.0.len())
    }
}

/// Whether a text can be told from ordinary words wherever it stands. What cannot (`--api-key test`) is hidden where its
/// flag or name says what it is, and nowhere else: a model called `test` keeps its name.
fn is_telling(text: &str) -> bool {
    let mixed = text.bytes().any(|b| b.is_ascii_digit()) && text.bytes().any(|b| b.is_ascii_alphabetic());
    text.len() >= 12 || (text.len() >= 6 && mixed)
}

impl Secrets {
    /// Takes in a text, and the credential in it if it names a scheme.
    pub(crate) fn add(&mut self, text: &str) {
        let text = text.trim();
        if let Some(credential) = credential(text) {
            return self.add(credential);
        }
        if is_telling(text) {
            let quoted = Value::from(text).to_string();
            self.0.push(text.to_owned());
            // As it stands in JSON.
            self.0.extend(quoted.get(1..quoted.len() - 1).filter(|escaped| *escaped != text).map(str::to_owned));
        }
    }

    /// Takes in every text and number of a value.
    fn add_value(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.add(text),
            Value::Number(number) => self.add(&number.to_string()),
            Value::Array(items) => items.iter().for_each(|item| self.add_value(item)),
            Value::Object(members) => members.values().for_each(|member| self.add_value(member)),
            _ => {}
        }
    }

    /// Takes in the secrets among body fields.
    pub(crate) fn add_fields(&mut self, fields: &Map<String, Value>) {
        secret_members("", fields, &mut |_, value| self.add_value(value));
    }

    /// Takes in the value of a header, if it is one.
    pub(crate) fn add_header(&mut self, name: &str, value: &str) {
        if is_sensitive(name) || credential(value).is_some() {
            self.add(value);
        }
    }

    /// Takes in the credentials of a URL or of a path with a query.
    pub(crate) fn add_url(&mut self, text: &str) {
        let (head, query) = text.split_once('?').unwrap_or((text, ""));
        let rest = head.split_once("://").map_or(head, |(_, rest)| rest);
        let authority = rest.split('/').next().unwrap_or_default();
        if let Some((user, _)) = authority.rsplit_once('@') {
            self.add(user);
            self.add(user.split_once(':').map_or(user, |(_, password)| password));
        }
        for (name, value) in query.split(['&', ';']).filter_map(|part| part.split_once('=')) {
            if is_sensitive_parameter(name) {
                self.add(value);
                self.add(&percent_decoded(value));
            }
        }
    }

    /// Takes in what looks like a secret in a text that may have any form, so that a mistyped one does not show in the
    /// sentence about it: `name:value` and `name=value`, quoted or not, and whatever follows `Bearer`.
    pub(crate) fn add_loose(&mut self, text: &str, sensitive: fn(&str) -> bool) {
        let quotes = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '\\' | '[' | ']');
        for part in text.split([',', ';', '&', '{', '}', '?', '\n']) {
            let mut rest = part;
            while let Some((name, value)) = rest.split_once([':', '=']) {
                if sensitive(name.trim_matches(quotes)) {
                    self.add(value.trim_matches(quotes));
                }
                rest = value;
            }
        }
        let words: Vec<&str> = text.split(|c: char| quotes(c) || matches!(c, ',' | ':' | '{' | '}')).collect();
        for pair in words.windows(2) {
            if pair[0].eq_ignore_ascii_case("bearer") || pair[0].eq_ignore_ascii_case("basic") {
                self.add(pair[1]);
            }
        }
    }

    fn sort(&mut self) {
        self.0.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        self.0.dedup();
    }

    /// The texts as they are.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    pub(super) fn merge(mut self, other: &Self) -> Self {
        self.0.extend_from_slice(&other.0);
        self.sort();
        self
    }

    /// A text without them.
    pub(super) fn hide<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut shown = Cow::Borrowed(text);
        for secret in &self.0 {
            if shown.contains(secret.as_str()) {
                shown = Cow::Owned(shown.replace(secret.as_str(), REDACTED));
            }
        }
        shown
    }
}

/// What a part of a URL means; as it stands where it is not encoded rightly.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..2).and_then(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok());
        match digits.filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}
