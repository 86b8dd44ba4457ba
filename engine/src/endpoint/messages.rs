//! Anthropic messages, as Anthropic, vLLM and Dynamo speak them.
//!
//! Events are read by what they hold, not by their type: `delta`, `content_block` and `content` blocks carry the output,
//! `usage` counts wherever it stands.

use super::body::{Body, Report};
use super::content::{self, Forms, put_head, put_list};
use super::images::Images;
use super::reply::{Call, Reply, put_raw};
use super::{Auth, Facts, Options, Reading, Splice, Unfit, Unreadable, latest, put_json, usage};
use crate::wire::json::Scanner;
use maser_datasets::Conversation;
use serde_json::Value;

pub(super) const FACTS: Facts = Facts {
    name: "messages",
    path: "/v1/messages",
    can_stream: true,
    produces_tokens: true,
    media: [true, false, false],
    images: Images::InMessages("image"),
    holds_conversations: true,
    auth: Auth::ApiKey,
    body,
    walk: Some(walk),
    reply,
    message,
    ..Facts::PLAIN
};

/// The protocol wants a limit with every request.
const MAX_TOKENS: u32 = 1024;

const FORMS: Forms = Forms {
    name: "messages",
    tail: b"",
    replays: |_| true,
    text: |out, text| {
        out.extend_from_slice(b"{\"type\":\"text\",\"text\":");
        put_json(out, text);
        out.push(b'}');
    },
    image: |out, url, _| {
        out.extend_from_slice(b"{\"type\":\"image\",\"source\":");
        match content::data_url(url) {
            Some((kind, data)) => {
                out.extend_from_slice(b"{\"type\":\"base64\",\"media_type\":");
                put_json(out, kind);
                out.extend_from_slice(b",\"data\":");
                put_json(out, data);
            }
            None => {
                out.extend_from_slice(b"{\"type\":\"url\",\"url\":");
                put_json(out, url);
            }
        }
        out.extend_from_slice(b"}}");
    },
    audio: None,
    video: None,
};

/// Field order: `model`, `messages`, `max_tokens`, `stream` (if one is asked for), `system`, `tools`, extras.
fn body(options: &Options, conversation: &Conversation, k: usize, out: &mut Vec<u8>) -> Result<Splice, Unfit> {
    let (start, turn) = (out.len(), &conversation.turns[k]);
    let mut spliced = Ok(Splice::NONE);
    let mut body = Body::begin(options, turn, Report::Nothing, out);
    body.model();
    body.field("messages", |out| {
        let head = |out: &mut Vec<u8>| put_head(None, conversation.user_context.as_deref(), out);
        spliced = put_list(&FORMS, turn, start, head, None, out);
    });
    body.put("max_tokens", &turn.max_tokens.unwrap_or(MAX_TOKENS));
    if options.streaming {
        body.put("stream", &true);
    }
    let blocks = latest(conversation, k, |turn| turn.system_blocks.as_ref());
    if let Some(system) = system(conversation.system.as_deref(), blocks) {
        body.put("system", &system);
    }
    if let Some(tools) = latest(conversation, k, |turn| turn.tools.as_ref()) {
        body.put("tools", tools);
    }
    body.finish();
    spliced
}

/// The session's text as it is; as the first block where there are others.
fn system(text: Option<&str>, blocks: Option<&Value>) -> Option<Value> {
    let Some(blocks) = blocks else { return text.map(Value::from) };
    let Some(text) = text else { return Some(blocks.clone()) };
    let mut all = vec![serde_json::json!({"type": "text", "text": text})];
    match blocks {
        Value::Array(blocks) => all.extend(blocks.iter().cloned()),
        Value::String(more) => all.push(serde_json::json!({"type": "text", "text": more})),
        other => all.push(other.clone()),
    }
    Some(all.into())
}

fn walk<'a>(mut scanner: Scanner<'a>, reading: &mut Reading<'a>) -> Result<(), Unreadable> {
    scanner.enter_object()?;
    let mut is_plain = true;
    while let Some(key) = scanner.next_key() {
        match key {
            b"delta" | b"content_block" => read_block(&mut scanner, reading, &mut is_plain),
            b"content" => {
                if scanner.open_array() {
                    while scanner.next_element() {
                        read_block(&mut scanner, reading, &mut is_plain);
                    }
                }
            }
            b"message" => read_start(&mut scanner, reading),
            b"usage" => reading.usage = usage::read(&mut scanner).or(reading.usage),
            b"stop_reason" => reading.finish |= scanner.string().is_some(),
            b"error" => reading.set_error(scanner.raw()),
            _ => scanner.skip(),
        }
    }
    if !is_plain {
        reading.parts = scanner.text();
    }
    scanner.end()
}

/// The message of `message_start`: its usage, and what of its content is there already.
fn read_start<'a>(scanner: &mut Scanner<'a>, reading: &mut Reading<'a>) {
    if !scanner.open_object() {
        return;
    }
    while let Some(key) = scanner.next_key() {
        match key {
            b"usage" => {
                let usage = usage::read(scanner);
                reading.usage = reading.usage.or(usage);
            }
            _ => scanner.skip(),
        }
    }
}

/// A block, whole or a piece of it: text, thinking, or the name and input of a tool.
#[inline]
fn read_block<'a>(scanner: &mut Scanner<'a>, reading: &mut Reading<'a>, is_plain: &mut bool) {
    if !scanner.open_object() {
        return;
    }
    let mut call: [&[u8]; 2] = [&[]; 2];
    while let Some(key) = scanner.next_key() {
        match key {
            b"text" => reading.text.push(scanner.string().unwrap_or_default()),
            b"thinking" => reading.reasoning.push(scanner.string().unwrap_or_default()),
            b"signature" => *is_plain &= scanner.string().unwrap_or_default().is_empty(),
            b"name" => {
                call[0] = scanner.string().unwrap_or_default();
                *is_plain = false;
            }
            b"input" => {
                let raw = scanner.raw();
                if raw != b"{}" && raw != b"null" {
                    call[1] = raw;
                }
            }
            b"partial_json" => {
                call[1] = scanner.string().unwrap_or_default();
                *is_plain = false;
            }
            b"stop_reason" => reading.finish |= scanner.string().is_some(),
            _ => scanner.skip(),
        }
    }
    for part in call {
        reading.text.push(part);
    }
}

/// Takes an event or a whole answer with more in it than text.
fn reply(reply: &mut Reply, reading: &Reading<'_>) {
    let mut scanner = Scanner::new(reading.parts);
    if !scanner.open_object() {
        return;
    }
    let (mut index, mut block) = (None, &b"null"[..]);
    while let Some(key) = scanner.next_key() {
        match key {
            b"index" => index = scanner.count(),
            b"delta" | b"content_block" => block = scanner.raw(),
            b"content" => {
                if scanner.open_array() {
                    let mut place = 0;
                    while scanner.next_element() {
                        reply_block(reply, Some(place), scanner.raw());
                        place += 1;
                    }
                }
            }
            _ => scanner.skip(),
        }
    }
    reply_block(reply, index, block);
}

fn reply_block(reply: &mut Reply, index: Option<u32>, raw: &[u8]) {
    let mut scanner = Scanner::new(raw);
    if !scanner.open_object() {
        return;
    }
    let (mut id, mut name, mut input, mut piece) = (None, None, None, None);
    while let Some(key) = scanner.next_key() {
        match key {
            b"text" => reply.text.extend_from_slice(scanner.string().unwrap_or_default()),
            b"thinking" => reply.reasoning.extend_from_slice(scanner.string().unwrap_or_default()),
            b"signature" => reply.signature.extend_from_slice(scanner.string().unwrap_or_default()),
            b"id" => id = scanner.string(),
            b"name" => name = scanner.string(),
            b"input" => input = Some(scanner.raw()),
            b"partial_json" => piece = scanner.string(),
            _ => scanner.skip(),
        }
    }
    if name.is_some() {
        let call = reply.call(index);
        Call::set(&mut call.id, id);
        Call::set(&mut call.name, name);
        if let Some(input) = input.filter(|input| *input != b"{}") {
            Call::set(&mut call.arguments, Some(input));
            call.is_value = true;
        }
    }
    if let Some(piece) = piece {
        let call = reply.call(index);
        if call.is_value {
            call.arguments.clear();
            call.is_value = false;
        }
        call.arguments.extend_from_slice(piece);
    }
}

/// Text by itself is the content; thinking (where it is signed), text and uses of tools are blocks in this order.
fn message(reply: &Reply, out: &mut Vec<u8>) -> bool {
    let signed = !reply.reasoning.is_empty() && !reply.signature.is_empty();
    let is_plain = reply.calls().is_empty() && !signed;
    let text = if is_plain { reply.plain() } else { &reply.text };
    if is_plain && text.is_empty() {
        return false;
    }
    out.extend_from_slice(b"{\"role\":\"assistant\",\"content\":");
    if is_plain {
        put_raw(out, text);
        out.push(b'}');
        return true;
    }
    let mut lead = b'[';
    let mut begin = |out: &mut Vec<u8>| out.push(std::mem::replace(&mut lead, b','));
    if signed {
        begin(out);
        out.extend_from_slice(b"{\"type\":\"thinking\",\"thinking\":");
        put_raw(out, &reply.reasoning);
        out.extend_from_slice(b",\"signature\":");
        put_raw(out, &reply.signature);
        out.push(b'}');
    }
    if !text.is_empty() {
        begin(out);
        out.extend_from_slice(b"{\"type\":\"text\",\"text\":");
        put_raw(out, text);
        out.push(b'}');
    }
    for call in reply.calls() {
        begin(out);
        out.extend_from_slice(b"{\"type\":\"tool_use\",\"id\":");
        put_raw(out, &call.id);
        out.extend_from_slice(b",\"name\":");
        put_raw(out, &call.name);
        out.extend_from_slice(b",\"input\":");
        call.put_value(out);
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    true
}
