//! What chat and completions have in common: their fields, read without building a tree, and their usage.

use super::usage::Details;
use super::{Ask, Facts, MAX_TOKENS, tokens_of};
use crate::serve::errors::Refused;
use crate::serve::http::append_number;
use crate::serve::world::World;
use crate::wire::json::{Scanner, unescape_into};
use serde_json::json;

/// Most choices of one request, as OpenAI has it.
const MAX_CHOICES: u32 = 128;

/// The fields that count, as they are written. Everything else is left unread.
#[derive(Debug, Default)]
pub(super) struct Fields<'a> {
    model: Option<&'a [u8]>,
    pub(super) messages: Option<&'a [u8]>,
    pub(super) prompt: Option<&'a [u8]>,
    stream: Option<&'a [u8]>,
    max_tokens: Option<&'a [u8]>,
    max_completion_tokens: Option<&'a [u8]>,
    n: Option<&'a [u8]>,
    include_usage: Option<&'a [u8]>,
    continuous_usage: Option<&'a [u8]>,
    pub(super) tools: Option<&'a [u8]>,
    pub(super) tool_choice: Option<&'a [u8]>,
    pub(super) functions: Option<&'a [u8]>,
    pub(super) function_call: Option<&'a [u8]>,
}

impl<'a> Fields<'a> {
    pub(super) fn scan(body: &'a [u8]) -> Result<Self, Refused> {
        let mut json = Scanner::new(body);
        let mut fields = Self::default();
        let is_object = json.open_object();
        while let Some(key) = is_object.then(|| json.next_key()).flatten() {
            match key {
                b"model" => fields.model = Some(json.raw()),
                b"messages" => fields.messages = Some(json.raw()),
                b"prompt" => fields.prompt = Some(json.raw()),
                b"stream" => fields.stream = Some(json.raw()),
                b"max_tokens" => fields.max_tokens = Some(json.raw()),
                b"max_completion_tokens" => fields.max_completion_tokens = Some(json.raw()),
                b"n" => fields.n = Some(json.raw()),
                b"stream_options" => fields.options(&mut json),
                b"tools" => fields.tools = Some(json.raw()),
                b"tool_choice" => fields.tool_choice = Some(json.raw()),
                b"functions" => fields.functions = Some(json.raw()),
                b"function_call" => fields.function_call = Some(json.raw()),
                _ => json.skip(),
            }
        }
        json.end()?;
        if is_object { Ok(fields) } else { Err(Refused::bad("the body is not a JSON object")) }
    }

    fn options(&mut self, json: &mut Scanner<'a>) {
        if json.open_object() {
            while let Some(key) = json.next_key() {
                match key {
                    b"include_usage" => self.include_usage = Some(json.raw()),
                    b"continuous_usage_stats" => self.continuous_usage = Some(json.raw()),
                    _ => json.skip(),
                }
            }
        }
    }

    /// The request, whose prompt has so many tokens; `choices` for each of the `n` it asks for.
    pub(super) fn ask(&self, world: &World, prompt_tokens: u32, choices: u32) -> Result<Ask, Refused> {
        let asked = match count(self.max_completion_tokens, "max_completion_tokens", MAX_TOKENS)? {
            Some(n) => Some(n),
            None => count(self.max_tokens, "max_tokens", MAX_TOKENS)?,
        };
        let n = count(self.n, "n", MAX_CHOICES)?.unwrap_or(1);
        let mut ask = Ask::new(world, asked, prompt_tokens);
        ask.model = model(self.model, world)?;
        ask.stream = flag(self.stream, "stream")?;
        ask.include_usage = flag(self.include_usage, "stream_options.include_usage")?;
        // vLLM heeds the second only with the first.
        ask.running_usage = flag(self.continuous_usage, "stream_options.continuous_usage_stats")? && ask.include_usage;
        if n == 1 && choices == 1 { Ok(ask) } else { ask.times(n.saturating_mul(choices)) }
    }
}

/// The model's index; the first one where none is named.
fn model(raw: Option<&[u8]>, world: &World) -> Result<usize, Refused> {
    let Some(raw) = raw.filter(|raw| *raw != b"null") else { return Ok(0) };
    let Some(quoted) = raw.strip_prefix(b"\"").and_then(|r| r.strip_suffix(b"\"")) else {
        return Err(Refused::bad("model is not a string"));
    };
    if let Some(index) = world.config.models.iter().position(|m| m.as_bytes() == quoted) {
        return Ok(index);
    }
    let mut name = Vec::new();
    unescape_into(quoted, &mut name);
    world.model(&String::from_utf8_lossy(&name))
}

/// How many messages there are, and tokens of their texts.
pub(super) fn prompt(messages: &[u8]) -> (u32, u32) {
    let (count, bytes) = sum_members(&mut Scanner::new(messages), b"content", content_len);
    (count, tokens_of(bytes))
}

/// Bytes, as written, of a message's texts: its content is one text, or an array of parts of which some are texts.
fn content_len(json: &mut Scanner<'_>) -> usize {
    match json.string_or_stay() {
        Some(text) => text.len(),
        None => sum_members(json, b"text", |json| json.string().map_or(0, <[u8]>::len)).1,
    }
}

/// Takes an array; its length, and the sum of `value` over the members called `name` of the objects in it.
fn sum_members(json: &mut Scanner<'_>, name: &[u8], value: fn(&mut Scanner<'_>) -> usize) -> (u32, usize) {
    let (mut count, mut sum) = (0, 0);
    let is_array = json.open_array();
    while is_array && json.next_element() {
        count += 1;
        let is_object = json.open_object();
        while let Some(key) = is_object.then(|| json.next_key()).flatten() {
            if key == name {
                sum += value(json);
            } else {
                json.skip();
            }
        }
    }
    (count, sum)
}

fn flag(raw: Option<&[u8]>, name: &str) -> Result<bool, Refused> {
    match raw {
        Some(b"true") => Ok(true),
        None | Some(b"false" | b"null") => Ok(false),
        Some(_) => Err(Refused::bad(format!("{name} is neither true nor false"))),
    }
}

fn count(raw: Option<&[u8]>, name: &str, most: u32) -> Result<Option<u32>, Refused> {
    let Some(raw) = raw.filter(|raw| *raw != b"null") else { return Ok(None) };
    let number = std::str::from_utf8(raw).ok().and_then(|digits| digits.parse().ok());
    match number {
        Some(n) if (1..=most).contains(&n) => Ok(Some(n)),
        _ => Err(Refused::bad(format!("{name} is not a whole number from 1 to {most}"))),
    }
}

/// Appends the usage after `completion` tokens of every choice; the details only where they are not all 0, or are asked
/// for.
pub(super) fn usage(out: &mut Vec<u8>, ask: &Ask, completion: u64) {
    let prompt = u64::from(ask.prompt_tokens);
    out.extend_from_slice(b"\"usage\":{\"prompt_tokens\":");
    append_number(out, prompt);
    out.extend_from_slice(b",\"total_tokens\":");
    append_number(out, prompt + completion);
    out.extend_from_slice(b",\"completion_tokens\":");
    append_number(out, completion);
    let reasoning = (u64::from(ask.reasoning) * u64::from(ask.choices)).min(completion);
    if let Some(details) = Details::of(ask, completion) {
        put_details(out, ask, reasoning, &details);
        return;
    }
    if ask.cached > 0 {
        out.extend_from_slice(b",\"prompt_tokens_details\":{\"cached_tokens\":");
        append_number(out, ask.cached.into());
        out.push(b'}');
    }
    if ask.reasoning > 0 {
        out.extend_from_slice(b",\"completion_tokens_details\":{\"reasoning_tokens\":");
        append_number(out, reasoning);
        out.push(b'}');
    }
    out.push(b'}');
}

/// Appends the rest of a usage that tells all that any vendor does, each under its name there.
fn put_details(out: &mut Vec<u8>, ask: &Ask, reasoning: u64, details: &Details) {
    let told = json!({
        "prompt_tokens_details": {"cached_tokens": ask.cached, "audio_tokens": details.audio},
        "completion_tokens_details": {
            "reasoning_tokens": reasoning, "audio_tokens": details.spoken,
            "accepted_prediction_tokens": details.accepted, "rejected_prediction_tokens": details.rejected,
        },
        "prompt_cache_miss_tokens": details.miss, "cache_creation_input_tokens": details.written,
        "toolUsePromptTokenCount": details.tools, "prompt_audio_seconds": details.audio_seconds,
    });
    // Its members go on after those that stand already.
    let told = told.to_string();
    out.push(b',');
    out.extend_from_slice(told.strip_prefix('{').unwrap_or_default().as_bytes());
}

/// Appends the final usage, and the account of speculative decoding behind it if there is one.
pub(super) fn final_usage(out: &mut Vec<u8>, facts: &Facts<'_>) {
    usage(out, facts.ask, facts.ask.output_tokens());
    if let Some(account) =
        facts.world.speculation(facts.ask.choices, (facts.ask.tokens, facts.ask.reasoning), facts.number)
    {
        out.extend_from_slice(b",\"metrics\":");
        out.extend_from_slice(account.to_string().as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Dialect, Request, chat::Chat};
    use super::*;
    use crate::clock::Instant;
    use crate::serve::Config;

    fn read_text(body: &str) -> Result<Ask, Refused> {
        let models = vec!["mock".into(), "a\"b".into()];
        let mut world = World::new(Config { models, ..Config::default() }, 0);
        let body = body.as_bytes();
        let request = Request { name: "", content_type: "", body, number: 0, created: 0, now: Instant(1) };
        Chat.read(&request, &mut world)
    }

    #[test]
    fn a_request_is_read_whatever_the_order_of_its_fields() {
        let chat = read_text(
            r#" {"max_completion_tokens":7,"stream_options":{"include_usage":true},"messages":[{"role":"user",
            "content":"[hi]"}],"temperature":0,"max_tokens":9,"stream":true,"model":"a\"b"} "#,
        );
        let plain = Ask { choices: 1, prompt_tokens: 1, ..Ask::default() };
        let want = Ask { model: 1, stream: true, include_usage: true, tokens: 7, messages: 1, ..plain.clone() };
        assert_eq!(chat, Ok(want));
        assert_eq!(read_text(r#"{"messages":[],"max_tokens":null}"#), Ok(Ask { tokens: 32, ..plain }));
    }

    #[test]
    fn the_prompt_is_measured_by_its_texts() {
        let prose = "x".repeat(170);
        let table = [
            (format!(r#"[{{"role":"user","content":"{prose}"}}]"#), 40, 1),
            (format!(r#"[{{"content":"{prose}","role":"system"}},{{"role":"user","content":"{prose}"}}]"#), 80, 2),
            (
                format!(
                    r#"[{{"content":[{{"type":"text","text":"{prose}"}},{{"type":"image_url","image_url":{{"url":"data:,{prose}"}}}}]}}]"#
                ),
                40,
                1,
            ),
            (r#"[{"content":null,"tool_calls":[]},3,"x"]"#.to_owned(), 1, 3),
        ];
        for (messages, tokens, count) in table {
            let chat = read_text(&format!(r#"{{"messages":{messages}}}"#));
            assert_eq!(chat.map(|c| (c.prompt_tokens, c.messages)), Ok((tokens, count)), "{messages}");
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
            (r#"{"messages":[],"n":129}"#, 400, "n is not a whole number from 1 to 128"),
            (
                r#"{"messages":[],"n":2,"max_tokens":1048576}"#,
                400,
                "2 answers of 1048576 tokens are more than 1048576 tokens",
            ),
            (r#"{"messages":[],"tools":[3],"tool_choice":"required"}"#, 400, "tools has no function with a name"),
        ];
        for (body, status, why) in table {
            assert_eq!(read_text(body), Err(Refused { status, why: why.into() }), "{body}");
        }
    }
}
