//! The bytes of answers: response heads, bodies, and the events of streams in their chunks.
//!
//! What the answers of a model have in common is laid out once; per answer its id and time of creation are patched in, so
//! that an event costs a few copies and no formatting.

use super::pace::Pace;
use super::request::Chat;
use super::{Config, Fault, words};
use crate::clock::Instant;
use std::io::Write;

/// A send is not begun with more than about this: what is due beyond it goes with the next one.
const BATCH: usize = 64 * 1024;

/// The interim response that `Expect: 100-continue` waits for.
pub(super) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
const DONE_EVENT: &[u8] = b"data: [DONE]\n\n";
const ROLE: &[u8] =
    b"{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n";
const CONTENT_OPEN: &[u8] = b"{\"index\":0,\"delta\":{\"content\":\"";
const CONTENT_CLOSE: &[u8] = b"\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n";
const FINISH: &[u8] = b"{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"length\"}]}\n\n";
const SERVER_ERROR: &str = "the mock server was told to fail here";
const ID_LEN: usize = 32;
const CREATED_LEN: usize = 10;

/// An answer under way.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) chat: Chat,
    pub(super) fault: Option<Fault>,
    pub(super) pace: Pace,
    /// Order among the chat requests, from 0.
    pub(super) number: u64,
    /// Seconds since 1970.
    pub(super) created: u64,
    pub(super) keep: bool,
    /// Tokens put into chunks so far.
    pub(super) sent: u32,
    head_sent: bool,
    spoiled: bool,
}

impl Answer {
    pub(super) fn new(chat: Chat, fault: Option<Fault>, pace: Pace, number: u64, created: u64, keep: bool) -> Self {
        Self { chat, fault, pace, number, created, keep, sent: 0, head_sent: false, spoiled: false }
    }

    fn half(&self) -> u32 {
        self.chat.tokens / 2
    }

    /// Tokens after which the stream ends, one way or the other.
    fn limit(&self) -> u32 {
        match self.fault {
            Some(Fault::Close | Fault::ErrorEvent) => self.half(),
            _ => self.chat.tokens,
        }
    }
}

/// Bytes with places for an id and a time of creation.
#[derive(Debug)]
struct Template {
    bytes: Vec<u8>,
    id_at: usize,
    created_at: usize,
}

impl Template {
    /// `before` ends in front of the id.
    fn new(before: &str, object: &str, model: &str) -> Self {
        let mut bytes = before.as_bytes().to_vec();
        let id_at = bytes.len();
        bytes.extend_from_slice(&[b'0'; ID_LEN]);
        bytes.extend_from_slice(format!("\",\"object\":\"{object}\",\"created\":").as_bytes());
        let created_at = bytes.len();
        bytes.extend_from_slice(&[b'0'; CREATED_LEN]);
        let model = serde_json::Value::from(model);
        bytes.extend_from_slice(format!(",\"model\":{model},\"choices\":[").as_bytes());
        Self { bytes, id_at, created_at }
    }

    fn patch(&mut self, key: u64, number: u64, created: u64) {
        let (high, low) = self.bytes[self.id_at..self.id_at + ID_LEN].split_at_mut(ID_LEN / 2);
        put_hex(high, key);
        put_hex(low, number);
        put_decimal(&mut self.bytes[self.created_at..self.created_at + CREATED_LEN], created);
    }
}

fn put_hex(slot: &mut [u8], mut n: u64) {
    for digit in slot.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(n & 15) as usize];
        n >>= 4;
    }
}

fn put_decimal(slot: &mut [u8], mut n: u64) {
    for digit in slot.iter_mut().rev() {
        *digit = b'0' + (n % 10) as u8;
        n /= 10;
    }
}

/// Appends a number; a buffer takes any.
fn append_number(out: &mut Vec<u8>, n: u64) {
    let _ = write!(out, "{n}");
}

/// Everything the server can say.
#[derive(Debug)]
pub(super) struct Phrases {
    events: Vec<Template>,
    bodies: Vec<Template>,
    models: Vec<u8>,
    per_chunk: u32,
    id_key: u64,
    /// A body, until its length is known.
    body: Vec<u8>,
}

impl Phrases {
    pub(super) fn new(config: &Config, created: u64) -> Self {
        let template = |before: &str, object: &str| {
            config.models.iter().map(|model| Template::new(before, object, model)).collect()
        };
        Self {
            events: template("data: {\"id\":\"chatcmpl-", "chat.completion.chunk"),
            bodies: template("{\"id\":\"chatcmpl-", "chat.completion"),
            models: list_models(&config.models, created),
            per_chunk: config.tokens_per_chunk.max(1),
            id_key: maser_datasets::seed::child(config.seed, "serve.id"),
            body: Vec::new(),
        }
    }

    /// Appends the list of models.
    pub(super) fn models(&self, out: &mut Vec<u8>, keep: bool, only_head: bool) {
        respond(out, 200, "", &self.models, keep, only_head);
    }

    /// Appends the whole answer as one response; `Close` cuts it after half the tokens, `Malformed` leaves the JSON open.
    pub(super) fn whole(&mut self, out: &mut Vec<u8>, answer: &mut Answer) {
        let (chat, body) = (answer.chat, &mut self.body);
        body.clear();
        if answer.fault == Some(Fault::ErrorEvent) {
            error_object(body, 500, SERVER_ERROR);
            return respond(out, 200, "", body, answer.keep, false);
        }
        let Some(template) = self.bodies.get_mut(chat.model) else { return };
        template.patch(self.id_key, answer.number, answer.created);
        body.extend_from_slice(&template.bytes);
        body.extend_from_slice(b"{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"");
        let text_at = body.len();
        words::append(body, 0, chat.tokens);
        if answer.fault != Some(Fault::Malformed) {
            body.extend_from_slice(b"\"},\"logprobs\":null,\"finish_reason\":\"length\"}],");
            append_usage(body, chat);
            body.push(b'}');
        }
        respond(out, 200, "", body, answer.keep, false);
        answer.sent = answer.limit();
        if answer.fault == Some(Fault::Close) {
            out.truncate(out.len() - body.len() + text_at + words::len(0, answer.sent));
        }
    }

    /// Appends what is due of a stream at `now`, and to `dues` when each chunk of content was due. There is always
    /// something: the answer's next chunk must be due. Returns whether that was the end.
    pub(super) fn stream(
        &mut self,
        out: &mut Vec<u8>,
        dues: &mut Vec<Instant>,
        answer: &mut Answer,
        now: Instant,
    ) -> bool {
        let Some(template) = self.events.get_mut(answer.chat.model) else {
            return true;
        };
        template.patch(self.id_key, answer.number, answer.created);
        let prefix = &template.bytes;
        if !std::mem::replace(&mut answer.head_sent, true) {
            stream_head(out, answer.keep);
            chunk(out, &[prefix, ROLE]);
        }
        let limit = answer.limit();
        while answer.sent < limit && answer.pace.due() <= now && out.len() < BATCH {
            let spoil = answer.fault == Some(Fault::Malformed) && answer.sent >= answer.half();
            if spoil && !std::mem::replace(&mut answer.spoiled, true) {
                chunk(out, &[prefix, CONTENT_OPEN, b"\n\n"]);
            }
            let count = self.per_chunk.min(limit - answer.sent);
            dues.push(answer.pace.due());
            chunk_open(out, prefix.len() + CONTENT_OPEN.len() + words::len(answer.sent, count) + CONTENT_CLOSE.len());
            out.extend_from_slice(prefix);
            out.extend_from_slice(CONTENT_OPEN);
            words::append(out, answer.sent, count);
            out.extend_from_slice(CONTENT_CLOSE);
            out.extend_from_slice(b"\r\n");
            answer.sent += count;
            answer.pace.advance(count);
        }
        let ended = answer.sent == limit;
        if ended {
            end_stream(out, prefix, answer, &mut self.body);
        }
        ended
    }
}

/// What stands behind the last token.
fn end_stream(out: &mut Vec<u8>, prefix: &[u8], answer: &Answer, scratch: &mut Vec<u8>) {
    scratch.clear();
    match answer.fault {
        Some(Fault::Close) => return,
        Some(Fault::ErrorEvent) => {
            error_object(scratch, 500, SERVER_ERROR);
            chunk(out, &[b"data: ", scratch, b"\n\n"]);
        }
        _ => {
            chunk(out, &[prefix, FINISH]);
            if answer.chat.include_usage {
                append_usage(scratch, answer.chat);
                chunk(out, &[prefix, b"],", scratch, b"}\n\n"]);
            }
        }
    }
    chunk(out, &[DONE_EVENT]);
    out.extend_from_slice(LAST_CHUNK);
}

/// Appends one chunk made of `parts`.
fn chunk(out: &mut Vec<u8>, parts: &[&[u8]]) {
    chunk_open(out, parts.iter().map(|p| p.len()).sum());
    for part in parts {
        out.extend_from_slice(part);
    }
    out.extend_from_slice(b"\r\n");
}

fn chunk_open(out: &mut Vec<u8>, len: usize) {
    let mut digits = [0u8; 16];
    put_hex(&mut digits, len as u64);
    let first = digits.iter().position(|&d| d != b'0').unwrap_or(15);
    out.extend_from_slice(&digits[first..]);
    out.extend_from_slice(b"\r\n");
}

fn append_usage(out: &mut Vec<u8>, chat: Chat) {
    let (prompt, completion) = (u64::from(chat.prompt_tokens), u64::from(chat.tokens));
    out.extend_from_slice(b"\"usage\":{\"prompt_tokens\":");
    append_number(out, prompt);
    out.extend_from_slice(b",\"total_tokens\":");
    append_number(out, prompt + completion);
    out.extend_from_slice(b",\"completion_tokens\":");
    append_number(out, completion);
    out.push(b'}');
}

fn list_models(models: &[String], created: u64) -> Vec<u8> {
    let data: Vec<_> = models
        .iter()
        .map(|id| serde_json::json!({"id": id, "object": "model", "created": created, "owned_by": "maser"}))
        .collect();
    serde_json::json!({"object": "list", "data": data}).to_string().into_bytes()
}

fn error_object(out: &mut Vec<u8>, status: u16, why: &str) {
    let kind = match status {
        404 => "NotFoundError",
        429 => "RateLimitError",
        400..=499 => "BadRequestError",
        _ => "InternalServerError",
    };
    let error = serde_json::json!({"message": why, "type": kind, "param": null, "code": status});
    out.extend_from_slice(b"{\"error\":");
    out.extend_from_slice(error.to_string().as_bytes());
    out.push(b'}');
}

/// Appends an error in the form OpenAI gives it. `fields` are further header lines, each with its end.
pub(super) fn error(out: &mut Vec<u8>, status: u16, why: &str, fields: &str, keep: bool, only_head: bool) {
    let mut body = Vec::new();
    error_object(&mut body, status, why);
    respond(out, status, fields, &body, keep, only_head);
}

/// Appends the answer of a server that does well.
pub(super) fn health(out: &mut Vec<u8>, keep: bool) {
    respond(out, 200, "", b"", keep, false);
}

fn stream_head(out: &mut Vec<u8>, keep: bool) {
    out.extend_from_slice(
        b"HTTP/1.1 200 OK\r\nServer: maser\r\nContent-Type: text/event-stream; charset=utf-8\r\n\
          Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n",
    );
    end_head(out, keep);
}

fn end_head(out: &mut Vec<u8>, keep: bool) {
    out.extend_from_slice(if keep { b"\r\n" } else { b"Connection: close\r\n\r\n" });
}

fn respond(out: &mut Vec<u8>, status: u16, fields: &str, body: &[u8], keep: bool, only_head: bool) {
    let line: &[u8] = match status {
        200 => b"HTTP/1.1 200 OK\r\n",
        400 => b"HTTP/1.1 400 Bad Request\r\n",
        404 => b"HTTP/1.1 404 Not Found\r\n",
        405 => b"HTTP/1.1 405 Method Not Allowed\r\n",
        413 => b"HTTP/1.1 413 Content Too Large\r\n",
        429 => b"HTTP/1.1 429 Too Many Requests\r\n",
        _ => b"HTTP/1.1 500 Internal Server Error\r\n",
    };
    out.extend_from_slice(line);
    out.extend_from_slice(b"Server: maser\r\n");
    if !body.is_empty() {
        out.extend_from_slice(b"Content-Type: application/json\r\n");
    }
    out.extend_from_slice(b"Content-Length: ");
    append_number(out, body.len() as u64);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(fields.as_bytes());
    end_head(out, keep);
    if !only_head {
        out.extend_from_slice(body);
    }
}

/// The answer of the fault `Http500`.
pub(super) fn failed(out: &mut Vec<u8>, keep: bool) {
    error(out, 500, SERVER_ERROR, "", keep, false);
}

/// The answer of the fault `Http429`.
pub(super) fn limited(out: &mut Vec<u8>, keep: bool) {
    error(out, 429, "the mock server was told to limit the rate here", "Retry-After: 1\r\n", keep, false);
}
