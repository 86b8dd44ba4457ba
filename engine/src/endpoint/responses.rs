//! OpenAI Responses.
//!
//! Texts of a stream are its deltas. What repeats them (`….done`, the items of `response.completed`) counts only where no
//! delta came. Events are told by their `type`, wherever it stands among the members.

use super::body::{Body, Report, is_true};
use super::content::{Forms, put_list};
use super::images::Images;
use super::reply::{Reply, put_raw};
use super::{Facts, Options, Reading, Splice, Unfit, Unreadable, chat, latest, put_json, usage};
use crate::wire::json::Scanner;
use maser_datasets::{Context, Conversation};
use serde_json::Value;

pub(super) const FACTS: Facts = Facts {
    name: "responses",
    path: "/v1/responses",
    can_stream: true,
    produces_tokens: true,
    media: [true, true, false],
    images: Images::InMessages("input_image"),
    holds_conversations: true,
    body,
    walk: Some(walk),
    reply,
    message,
    ..Facts::PLAIN
};

const FORMS: Forms = Forms {
    name: "responses",
    tail: b",\"type\":\"message\"",
    replays: |item| !item.get("type").and_then(Value::as_str).is_some_and(|kind| stays_behind(kind.as_bytes())),
    text: |out, text| {
        out.extend_from_slice(b"{\"type\":\"input_text\",\"text\":");
        put_json(out, text);
        out.push(b'}');
    },
    image: |out, url, _| {
        out.extend_from_slice(b"{\"type\":\"input_image\",\"image_url\":");
        put_json(out, url);
        out.push(b'}');
    },
    audio: Some(chat::put_audio),
    video: None,
};

/// Items that only the server that made them can use.
fn stays_behind(kind: &[u8]) -> bool {
    matches!(
        kind,
        b"web_search_call"
            | b"file_search_call"
            | b"image_generation_call"
            | b"code_interpreter_call"
            | b"computer_call"
            | b"reasoning"
    )
}

/// Field order: `input`, `model`, `stream`, `instructions`, `max_output_tokens`, `tools`, extras, `stream_options`. With
/// `store` among the extras later turns can continue the server's copy, see [`Splice`].
fn body(options: &Options, conversation: &Conversation, k: usize, out: &mut Vec<u8>) -> Result<Splice, Unfit> {
    let (start, turn) = (out.len(), &conversation.turns[k]);
    let report = if options.use_server_token_count { Report::Usage } else { Report::Nothing };
    let mut spliced = Ok(Splice::NONE);
    let mut body = Body::begin(options, turn, report, out);
    body.field("input", |out| {
        let head = |out: &mut Vec<u8>| {
            if let Some(context) = &conversation.user_context {
                out.extend_from_slice(b"{\"type\":\"message\",\"role\":\"user\",\"content\":");
                put_json(out, context);
                out.extend_from_slice(b"},");
            }
        };
        spliced = put_list(&FORMS, turn, start, head, None, out);
    });
    body.model();
    body.put("stream", &options.streaming);
    let stored = turn.extra.get("store").or_else(|| options.extra.get("store"));
    if let Ok(splice) = &mut spliced
        && conversation.context == Context::DeltasWithoutResponses
        && stored.is_some_and(is_stored)
        && splice.is_some()
    {
        splice.chain = (body.len() - start) as u32;
    }
    if let Some(system) = &conversation.system {
        body.put("instructions", system);
    }
    if let Some(limit) = turn.max_tokens {
        body.put("max_output_tokens", &limit);
    }
    if let Some(tools) = latest(conversation, k, |turn| turn.tools.as_ref()) {
        body.put("tools", tools);
    }
    body.finish();
    spliced
}

fn is_stored(store: &Value) -> bool {
    match store {
        Value::String(text) => text == "true",
        store => is_true(store),
    }
}

/// What an event holds, before its type is known.
#[derive(Default)]
struct Members<'a> {
    kind: &'a [u8],
    delta: &'a [u8],
    text: &'a [u8],
    item: &'a [u8],
    response: &'a [u8],
}

fn walk<'a>(mut scanner: Scanner<'a>, reading: &mut Reading<'a>) -> Result<(), Unreadable> {
    scanner.enter_object()?;
    let mut members = Members::default();
    while let Some(key) = scanner.next_key() {
        match key {
            b"type" => members.kind = scanner.string().unwrap_or_default(),
            b"delta" => members.delta = scanner.string().unwrap_or_default(),
            b"text" => members.text = scanner.string().unwrap_or_default(),
            b"item" => members.item = scanner.raw(),
            b"response" => members.response = scanner.raw(),
            b"usage" => reading.usage = usage::read(&mut scanner).or(reading.usage),
            b"error" => reading.set_error(scanner.raw()),
            b"metrics" => chat::read_metrics(&mut scanner, reading),
            _ => scanner.skip(),
        }
    }
    scanner.end()?;
    interpret(scanner.text(), &members, reading);
    Ok(())
}

#[inline]
fn interpret<'a>(json: &'a [u8], members: &Members<'a>, reading: &mut Reading<'a>) {
    match members.kind {
        b"response.output_text.delta" | b"response.function_call_arguments.delta" => reading.text.push(members.delta),
        b"response.reasoning_text.delta" | b"response.reasoning_summary_text.delta" => {
            reading.reasoning.push(members.delta);
        }
        b"response.output_text.done" => {
            reading.text.push(members.text);
            reading.repeats = true;
        }
        b"response.output_item.added" => read_name(members.item, reading),
        b"response.output_item.done" => reading.parts = members.item,
        b"response.completed" | b"response.incomplete" => {
            read_response(members.response, reading);
            reading.parts = members.response;
            (reading.finish, reading.repeats) = (true, true);
        }
        b"response.failed" | b"response.cancelled" => {
            read_response(members.response, reading);
            reading.parts = members.response;
            reading.error = reading.error.or(Some(json));
        }
        b"error" | b"response.error" => reading.error = reading.error.or(Some(json)),
        b"" | b"response" => {
            read_response(json, reading);
            reading.parts = json;
        }
        _ => {}
    }
}

/// A call of a tool begins with its name.
fn read_name<'a>(item: &'a [u8], reading: &mut Reading<'a>) {
    let mut scanner = Scanner::new(item);
    let (mut is_call, mut name) = (false, &b""[..]);
    if scanner.open_object() {
        while let Some(key) = scanner.next_key() {
            match key {
                b"type" => is_call = scanner.string() == Some(b"function_call"),
                b"name" => name = scanner.string().unwrap_or_default(),
                _ => scanner.skip(),
            }
        }
    }
    if is_call {
        reading.text.push(name);
    }
}

/// A whole response object.
fn read_response<'a>(raw: &'a [u8], reading: &mut Reading<'a>) {
    let mut scanner = Scanner::new(raw);
    if !scanner.open_object() {
        return;
    }
    let mut short = &b""[..];
    while let Some(key) = scanner.next_key() {
        match key {
            b"usage" => reading.usage = usage::read(&mut scanner).or(reading.usage),
            b"error" => reading.set_error(scanner.raw()),
            b"status" => reading.finish |= matches!(scanner.string(), Some(b"completed" | b"incomplete")),
            b"output" => {
                if scanner.open_array() {
                    while scanner.next_element() {
                        read_item(&mut scanner, reading);
                    }
                }
            }
            b"output_text" => short = scanner.string().unwrap_or_default(),
            _ => scanner.skip(),
        }
    }
    if !reading.has_content() {
        reading.text.push(short);
    }
}

fn read_item<'a>(scanner: &mut Scanner<'a>, reading: &mut Reading<'a>) {
    if !scanner.open_object() {
        return;
    }
    let (mut kind, mut call) = (&b""[..], [&b""[..]; 2]);
    let (mut content, mut summary) = (None, None);
    while let Some(key) = scanner.next_key() {
        match key {
            b"type" => kind = scanner.string().unwrap_or_default(),
            b"name" => call[0] = scanner.string().unwrap_or_default(),
            b"arguments" => call[1] = scanner.string().unwrap_or_default(),
            b"content" => content = Some(scanner.raw()),
            b"summary" => summary = Some(scanner.raw()),
            _ => scanner.skip(),
        }
    }
    match kind {
        b"function_call" => call.into_iter().for_each(|part| reading.text.push(part)),
        b"reasoning" => [content, summary].into_iter().flatten().for_each(|raw| texts(raw, &mut reading.reasoning)),
        _ => content.into_iter().for_each(|raw| texts(raw, &mut reading.text)),
    }
}

/// The texts of a list of parts.
fn texts<'a>(raw: &'a [u8], found: &mut super::Fragments<'a>) {
    let mut scanner = Scanner::new(raw);
    if !scanner.open_array() {
        return;
    }
    while scanner.next_element() {
        if scanner.open_object() {
            while let Some(key) = scanner.next_key() {
                match key {
                    b"text" => found.push(scanner.string().unwrap_or_default()),
                    _ => scanner.skip(),
                }
            }
        }
    }
}

/// Takes an item, or the items and the name of a whole response. Items come twice: by themselves, and in the whole.
fn reply(reply: &mut Reply, reading: &Reading<'_>) {
    let mut scanner = Scanner::new(reading.parts);
    if !scanner.open_object() {
        return;
    }
    let (mut output, mut id, mut status) = (None, None, None);
    while let Some(key) = scanner.next_key() {
        match key {
            b"output" => output = Some(scanner.raw()),
            b"id" => id = scanner.string(),
            b"status" => status = scanner.string(),
            _ => scanner.skip(),
        }
    }
    let Some(output) = output else { return reply_item(reply, reading.parts) };
    reply.id.clear();
    reply.id.extend_from_slice(id.unwrap_or_default());
    reply.unfinished = matches!(status, Some(b"failed" | b"incomplete" | b"cancelled"));
    let mut scanner = Scanner::new(output);
    if scanner.open_array() {
        while scanner.next_element() {
            reply_item(reply, scanner.raw());
        }
    }
    if reply.text.is_empty() {
        reply.add_plain(reading);
    }
}

fn reply_item(reply: &mut Reply, raw: &[u8]) {
    let mut scanner = Scanner::new(raw);
    if !scanner.open_object() {
        return;
    }
    let (mut kind, mut keys) = (&b""[..], [&b""[..]; 3]);
    while let Some(key) = scanner.next_key() {
        match key {
            b"type" => kind = scanner.string().unwrap_or_default(),
            b"id" => keys[0] = scanner.string().unwrap_or_default(),
            b"call_id" => keys[1] = scanner.string().unwrap_or_default(),
            b"item_id" => keys[2] = scanner.string().unwrap_or_default(),
            _ => scanner.skip(),
        }
    }
    if !kind.is_empty() && !stays_behind(kind) {
        let key = keys.into_iter().find(|key| !key.is_empty()).unwrap_or_default();
        reply.add_item(key, raw);
    }
}

/// The answer's items as they came; a message of its text if it had none.
fn message(reply: &Reply, out: &mut Vec<u8>) -> bool {
    if !reply.items().is_empty() {
        out.extend_from_slice(reply.items());
        return true;
    }
    if reply.plain().is_empty() {
        return false;
    }
    out.extend_from_slice(
        b"{\"type\":\"message\",\"role\":\"assistant\",\"content\":[{\"type\":\"output_text\",\"text\":",
    );
    put_raw(out, reply.plain());
    out.extend_from_slice(b"}]}");
    true
}
