//! What a request asks for.

use crate::wire::json::{Scanner, Unreadable, unescape_into};

/// Most tokens an answer may have. Real servers end at their context length; this bounds what one request can cost.
pub(super) const MAX_TOKENS: u32 = 1 << 20;

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Route {
    Chat,
    Models,
    Health,
    /// The path exists, for this method.
    Allows(&'static str),
    #[default]
    Unknown,
}

impl Route {
    /// The route of a request line. The query does not matter.
    pub(super) fn of(method: &str, target: &str) -> Self {
        let path = target.split(['?', '#']).next().unwrap_or_default();
        let (allowed, route) = match path {
            "/v1/chat/completions" => ("POST", Self::Chat),
            "/v1/models" => ("GET", Self::Models),
            "/health" => ("GET", Self::Health),
            _ => return Self::Unknown,
        };
        if method == allowed { route } else { Self::Allows(allowed) }
    }
}

/// A chat request, as far as it shapes the answer. Everything else in it is left unread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chat {
    /// Index into the models served.
    pub(super) model: usize,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
    /// Tokens of the answer, at least 1.
    pub(super) tokens: u32,
    /// An estimate from the bytes of the messages' texts, at least 1.
    pub(super) prompt_tokens: u32,
}

/// Why a request is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) status: u16,
    pub(super) why: String,
}

impl Refused {
    fn bad(why: impl Into<String>) -> Self {
        Self { status: 400, why: why.into() }
    }
}

impl From<Unreadable> for Refused {
    fn from(broken: Unreadable) -> Self {
        Self::bad(format!("the body is {broken}"))
    }
}

/// The fields that count, as they are written.
#[derive(Debug, Default)]
struct Fields<'a> {
    model: Option<&'a [u8]>,
    messages: Option<&'a [u8]>,
    stream: Option<&'a [u8]>,
    max_tokens: Option<&'a [u8]>,
    max_completion_tokens: Option<&'a [u8]>,
    include_usage: Option<&'a [u8]>,
}

impl<'a> Fields<'a> {
    fn scan(body: &'a [u8]) -> Result<Self, Refused> {
        let mut json = Scanner::new(body);
        let mut fields = Self::default();
        let is_object = json.open_object();
        while let Some(key) = is_object.then(|| json.next_key()).flatten() {
            match key {
                b"model" => fields.model = Some(json.raw()),
                b"messages" => fields.messages = Some(json.raw()),
                b"stream" => fields.stream = Some(json.raw()),
                b"max_tokens" => fields.max_tokens = Some(json.raw()),
                b"max_completion_tokens" => fields.max_completion_tokens = Some(json.raw()),
                b"stream_options" => fields.include_usage = include_usage(&mut json),
                _ => json.skip(),
            }
        }
        json.end()?;
        if is_object { Ok(fields) } else { Err(Refused::bad("the body is not a JSON object")) }
    }
}

fn include_usage<'a>(json: &mut Scanner<'a>) -> Option<&'a [u8]> {
    let mut include = None;
    if json.open_object() {
        while let Some(key) = json.next_key() {
            match key {
                b"include_usage" => include = Some(json.raw()),
                _ => json.skip(),
            }
        }
    }
    include
}

/// Reads the body of a chat request. `tokens` is the length of the answer where none is asked for.
pub(super) fn read(body: &[u8], models: &[String], tokens: u32) -> Result<Chat, Refused> {
    let fields = Fields::scan(body)?;
    let asked = match count(fields.max_completion_tokens, "max_completion_tokens")? {
        Some(n) => Some(n),
        None => count(fields.max_tokens, "max_tokens")?,
    };
    Ok(Chat {
        model: model(fields.model, models)?,
        stream: flag(fields.stream, "stream")?,
        include_usage: flag(fields.include_usage, "stream_options.include_usage")?,
        tokens: asked.unwrap_or(tokens),
        prompt_tokens: prompt_tokens(fields.messages)?,
    })
}

/// The model's index; the first one where none is named.
fn model(raw: Option<&[u8]>, models: &[String]) -> Result<usize, Refused> {
    let Some(raw) = raw.filter(|raw| *raw != b"null") else { return Ok(0) };
    let Some(quoted) = raw.strip_prefix(b"\"").and_then(|r| r.strip_suffix(b"\"")) else {
        return Err(Refused::bad("model is not a string"));
    };
    if let Some(index) = models.iter().position(|m| m.as_bytes() == quoted) {
        return Ok(index);
    }
    let mut name = Vec::new();
    unescape_into(quoted, &mut name);
    models.iter().position(|m| m.as_bytes() == name).ok_or_else(|| {
        let why = format!("the model `{}` does not exist", String::from_utf8_lossy(&name));
        Refused { status: 404, why }
    })
}

/// English prose has about 17 bytes in 4 tokens of today's vocabularies.
fn prompt_tokens(messages: Option<&[u8]>) -> Result<u32, Refused> {
    let messages = messages.ok_or_else(|| Refused::bad("messages is missing"))?;
    if messages.first() != Some(&b'[') {
        return Err(Refused::bad("messages is not an array"));
    }
    let bytes = sum_members(&mut Scanner::new(messages), b"content", content_len);
    Ok(u32::try_from(bytes * 4 / 17).unwrap_or(u32::MAX).max(1))
}

/// Bytes, as written, of a message's texts: its content is one text, or an array of parts of which some are texts.
fn content_len(json: &mut Scanner<'_>) -> usize {
    match json.string_or_stay() {
        Some(text) => text.len(),
        None => sum_members(json, b"text", |json| json.string().map_or(0, <[u8]>::len)),
    }
}

/// Takes an array; the sum of `value` over the members called `name` of the objects in it.
fn sum_members(json: &mut Scanner<'_>, name: &[u8], value: fn(&mut Scanner<'_>) -> usize) -> usize {
    let mut sum = 0;
    let is_array = json.open_array();
    while is_array && json.next_element() {
        let is_object = json.open_object();
        while let Some(key) = is_object.then(|| json.next_key()).flatten() {
            if key == name {
                sum += value(json);
            } else {
                json.skip();
            }
        }
    }
    sum
}

fn flag(raw: Option<&[u8]>, name: &str) -> Result<bool, Refused> {
    match raw {
        Some(b"true") => Ok(true),
        None | Some(b"false" | b"null") => Ok(false),
        Some(_) => Err(Refused::bad(format!("{name} is neither true nor false"))),
    }
}

fn count(raw: Option<&[u8]>, name: &str) -> Result<Option<u32>, Refused> {
    let Some(raw) = raw.filter(|raw| *raw != b"null") else { return Ok(None) };
    let number = std::str::from_utf8(raw).ok().and_then(|digits| digits.parse().ok());
    match number {
        Some(n @ 1..=MAX_TOKENS) => Ok(Some(n)),
        _ => Err(Refused::bad(format!("{name} is not a whole number from 1 to {MAX_TOKENS}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(body: &str) -> Result<Chat, Refused> {
        read(body.as_bytes(), &["mock".into(), "a\"b".into()], 32)
    }

    #[test]
    fn routes_ignore_the_query_and_know_their_methods() {
        let table = [
            ("POST", "/v1/chat/completions?x=1", Route::Chat),
            ("GET", "/v1/models", Route::Models),
            ("GET", "/health?", Route::Health),
            ("GET", "/v1/chat/completions", Route::Allows("POST")),
            ("POST", "/health", Route::Allows("GET")),
            ("GET", "/metrics", Route::Unknown),
            ("GET", "/v1/models/", Route::Unknown),
        ];
        for (method, target, route) in table {
            assert_eq!(Route::of(method, target), route, "{method} {target}");
        }
    }

    #[test]
    fn a_request_is_read_whatever_the_order_of_its_fields() {
        let chat = read_text(
            r#" {"max_completion_tokens":7,"stream_options":{"include_usage":true},"messages":[{"role":"user",
            "content":"[hi]"}],"temperature":0,"max_tokens":9,"stream":true,"model":"a\"b"} "#,
        );
        assert_eq!(chat, Ok(Chat { model: 1, stream: true, include_usage: true, tokens: 7, prompt_tokens: 1 }));
        let bare = read_text(r#"{"messages":[],"max_tokens":null}"#);
        assert_eq!(bare, Ok(Chat { model: 0, stream: false, include_usage: false, tokens: 32, prompt_tokens: 1 }));
    }

    #[test]
    fn the_prompt_is_measured_by_its_texts() {
        let prose = "x".repeat(170);
        let table = [
            (format!(r#"[{{"role":"user","content":"{prose}"}}]"#), 40),
            (format!(r#"[{{"content":"{prose}","role":"system"}},{{"role":"user","content":"{prose}"}}]"#), 80),
            (
                format!(
                    r#"[{{"content":[{{"type":"text","text":"{prose}"}},{{"type":"image_url","image_url":{{"url":"data:,{prose}"}}}}]}}]"#
                ),
                40,
            ),
            (r#"[{"content":null,"tool_calls":[]},3,"x"]"#.to_owned(), 1),
        ];
        for (messages, tokens) in table {
            let chat = read_text(&format!(r#"{{"messages":{messages}}}"#));
            assert_eq!(chat.map(|c| c.prompt_tokens), Ok(tokens), "{messages}");
        }
    }

    #[test]
    fn a_wrong_request_is_told_what_is_wrong() {
        let table = [
            ("", 400, "the body is not JSON at byte 0: the text ends early"),
            ("[]", 400, "the body is not a JSON object"),
            (r#"{"messages":[]} x"#, 400, "the body is not JSON at byte 16: something follows the value"),
            (r#"{"model":"mock"}"#, 400, "messages is missing"),
            (r#"{"messages":"hi"}"#, 400, "messages is not an array"),
            (r#"{"messages":[],"model":3}"#, 400, "model is not a string"),
            (r#"{"messages":[],"model":"gpt"}"#, 404, "the model `gpt` does not exist"),
            (r#"{"messages":[],"stream":1}"#, 400, "stream is neither true nor false"),
            (r#"{"messages":[],"max_tokens":0}"#, 400, "max_tokens is not a whole number from 1 to 1048576"),
            (r#"{"messages":[],"max_tokens":1048577}"#, 400, "max_tokens is not a whole number from 1 to 1048576"),
        ];
        for (body, status, why) in table {
            assert_eq!(read_text(body), Err(Refused { status, why: why.into() }), "{body}");
        }
    }
}
