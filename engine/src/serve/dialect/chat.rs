//! OpenAI's chat completions, with the extensions of vLLM: reasoning, usage in every event, speculative decoding.

use super::openai::{self, Fields};
use super::{Ask, Body, Call, Dialect, Facts, Part, Request, Stem};
use crate::serve::errors::{Refused, Vendor};
use crate::serve::http::{Events, append_number};
use crate::serve::words;
use crate::serve::world::World;
use serde_json::{Value, json};
use std::io::Write;

const ROLE: &[u8] =
    b"{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n";
const CONTENT_OPEN: &[u8] = b"{\"index\":0,\"delta\":{\"content\":\"";
const REASONING_OPEN: &[u8] = b"{\"index\":0,\"delta\":{\"reasoning_content\":\"";
const DELTA_CLOSE: &[u8] = b"\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n";
const FINISH: &[u8] = b"{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"length\"}]}\n\n";

/// `/v1/chat/completions`.
#[derive(Debug)]
pub(in crate::serve) struct Chat;

impl Dialect for Chat {
    fn read(&self, request: &Request<'_>, world: &mut World) -> Result<Ask, Refused> {
        let fields = Fields::scan(request.body)?;
        let messages = fields.messages.ok_or_else(|| Refused::bad("messages is missing"))?;
        if messages.first() != Some(&b'[') {
            return Err(Refused::bad("messages is not an array"));
        }
        let (count, prompt_tokens) = openai::prompt(messages);
        let mut ask = fields.ask(world, prompt_tokens, 1)?.reasons(world);
        ask.messages = count;
        ask.call = call(&fields, messages, world)?.map(Box::new);
        Ok(ask)
    }

    fn stem(&self, stream: bool) -> Option<Stem> {
        Some(if stream {
            Stem { before_id: "data: {\"id\":\"chatcmpl-", object: "chat.completion.chunk" }
        } else {
            Stem { before_id: "{\"id\":\"chatcmpl-", object: "chat.completion" }
        })
    }

    fn whole(&self, body: &mut Body, facts: &Facts<'_>) {
        let ask = facts.ask;
        body.bytes(facts.stem);
        for choice in 0..ask.choices {
            body.bytes(if choice == 0 { b"{\"index\":" } else { b",{\"index\":" });
            append_number(&mut body.bytes, choice.into());
            body.bytes(b",\"message\":{\"role\":\"assistant\",");
            if ask.reasoning > 0 {
                body.bytes(b"\"reasoning_content\":\"");
                body.text(facts.text(0, ask.reasoning));
                body.bytes(b"\",");
            }
            message(body, facts);
            body.bytes(b"},\"logprobs\":null,\"finish_reason\":\"");
            body.bytes(reason(ask).as_bytes());
            body.bytes(b"\"}");
        }
        body.bytes(b"],");
        openai::final_usage(&mut body.bytes, facts);
        body.bytes(b"}");
    }

    fn open(&self, out: &mut Events<'_>, facts: &Facts<'_>) {
        if is_plain(facts.ask) {
            return out.parts(&[facts.stem, ROLE]);
        }
        for choice in 0..facts.ask.choices {
            event(out, facts, choice, (0, 0), None, |out| {
                out.extend_from_slice(b"\"role\":\"assistant\",\"content\":\"\"")
            });
        }
    }

    fn tokens(&self, out: &mut Events<'_>, facts: &Facts<'_>, from: u32, count: u32) {
        let part = facts.ask.part(from);
        if is_plain(facts.ask) {
            let open = if part == Part::Text { CONTENT_OPEN } else { REASONING_OPEN };
            return out.text(&[facts.stem, open], facts.text(from, count), &[DELTA_CLOSE]);
        }
        for choice in 0..facts.ask.choices {
            event(out, facts, choice, (from, count), None, |out| match part {
                Part::Call => call_delta(out, facts, choice, from, count),
                Part::Text | Part::Reasoning => {
                    let name: &[u8] = if part == Part::Text { b"\"content\":\"" } else { b"\"reasoning_content\":\"" };
                    out.extend_from_slice(name);
                    words::append(out, facts.text(from, count));
                    out.push(b'"');
                }
            });
        }
    }

    fn close(&self, out: &mut Events<'_>, facts: &Facts<'_>) {
        let ask = facts.ask;
        if is_plain(ask) {
            out.parts(&[facts.stem, FINISH]);
        } else {
            for choice in 0..ask.choices {
                event(out, facts, choice, (ask.tokens, 0), Some(reason(ask)), |_| {});
            }
        }
        usage_event(out, facts);
        out.done();
    }

    fn fail(&self, out: &mut Events<'_>, _: &Facts<'_>, why: &str) {
        out.json("", &Vendor::OpenAi.object(500, why));
        out.done();
    }
}

/// The last event but one, if usage was asked for.
pub(super) fn usage_event(out: &mut Events<'_>, facts: &Facts<'_>) {
    if facts.ask.include_usage {
        out.write(|out, _| {
            out.extend_from_slice(facts.stem);
            out.extend_from_slice(b"],");
            openai::final_usage(out, facts);
            out.extend_from_slice(b"}\n\n");
        });
    }
}

/// An answer whose events need no formatting.
fn is_plain(ask: &Ask) -> bool {
    ask.choices == 1 && ask.call.is_none() && !ask.running_usage
}

fn reason(ask: &Ask) -> &'static str {
    match &ask.call {
        None => "length",
        Some(call) if call.legacy => "function_call",
        Some(_) => "tool_calls",
    }
}

/// One event of a choice, with `count` tokens behind the first `from`.
fn event(
    out: &mut Events<'_>,
    facts: &Facts<'_>,
    choice: u32,
    (from, count): (u32, u32),
    finish: Option<&str>,
    delta: impl FnOnce(&mut Vec<u8>),
) {
    out.write(|out, _| {
        out.extend_from_slice(facts.stem);
        let _ = write!(out, "{{\"index\":{choice},\"delta\":{{");
        delta(out);
        let _ = write!(out, "}},\"logprobs\":null,\"finish_reason\":{}}}]", json!(finish));
        if facts.ask.running_usage {
            out.push(b',');
            // The choices behind this one have not had their event yet.
            let all = u64::from(from) * u64::from(facts.ask.choices) + u64::from(count) * u64::from(choice + 1);
            openai::usage(out, facts.ask, all);
        }
        out.extend_from_slice(b"}\n\n");
    });
}

/// Id of the call of a choice.
fn call_id(facts: &Facts<'_>, choice: u32) -> String {
    format!("call_{}{choice:02x}", facts.id)
}

fn call_delta(out: &mut Vec<u8>, facts: &Facts<'_>, choice: u32, from: u32, count: u32) {
    let Some(call) = &facts.ask.call else { return };
    let arguments = facts.arguments(from, count);
    let first = from == facts.ask.reasoning;
    let function =
        if first { json!({"name": call.name, "arguments": arguments}) } else { json!({"arguments": arguments}) };
    let _ = match (call.legacy, first) {
        (true, _) => write!(out, "\"function_call\":{function}"),
        (false, true) => {
            let call = json!({"index": 0, "id": call_id(facts, choice), "type": "function", "function": function});
            write!(out, "\"tool_calls\":[{call}]")
        }
        (false, false) => write!(out, "\"tool_calls\":[{}]", json!({"index": 0, "function": function})),
    };
}

/// The message of a choice, behind its role and reasoning.
fn message(body: &mut Body, facts: &Facts<'_>) {
    let ask = facts.ask;
    let Some(call) = &ask.call else {
        body.bytes(b"\"content\":\"");
        body.text(facts.text(ask.reasoning, ask.tokens - ask.reasoning));
        return body.bytes(b"\"");
    };
    let function = json!({"name": call.name, "arguments": facts.all_arguments()});
    body.bytes(b"\"content\":null,");
    if call.legacy {
        body.bytes(b"\"function_call\":");
        body.json(&function);
    } else {
        body.bytes(b"\"tool_calls\":");
        body.json(&json!([{"id": call_id(facts, 0), "type": "function", "function": function}]));
    }
}

/// Whether the answer is a call, and of what: the function that the request insists on; or, where the server calls tools
/// and the last message is not the result of a call, the first one that the request offers.
fn call(fields: &Fields<'_>, messages: &[u8], world: &World) -> Result<Option<Call>, Refused> {
    if fields.tools.is_none() && fields.functions.is_none() {
        return Ok(None);
    }
    let (offered, choice, legacy) = match fields.tools {
        Some(tools) => (tools, fields.tool_choice, false),
        None => (fields.functions.unwrap_or_default(), fields.function_call, true),
    };
    let parse = |raw: &[u8]| -> Value { serde_json::from_slice(raw).unwrap_or_default() };
    let (offered, choice) = (parse(offered), choice.map(parse).unwrap_or_default());
    let is_result = || {
        let messages = parse(messages);
        let last = messages.as_array().and_then(|m| m.last()).and_then(|m| m["role"].as_str());
        matches!(last, Some("tool" | "function"))
    };
    pick(&offered, &choice, legacy, || world.config.tool_calls && !is_result())
}

/// The function to call: `choice` is `none`, `auto`, `required`, or an object that names it.
pub(super) fn pick(
    offered: &Value,
    choice: &Value,
    legacy: bool,
    at_will: impl FnOnce() -> bool,
) -> Result<Option<Call>, Refused> {
    let name_of = |tool: &Value| {
        let name = tool["function"]["name"].as_str().or_else(|| tool["name"].as_str());
        name.map(str::to_owned)
    };
    let named = choice.is_object().then(|| name_of(choice)).flatten();
    let wanted = match choice.as_str().or_else(|| choice["type"].as_str().filter(|_| named.is_none())) {
        Some("none") => return Ok(None),
        Some("required" | "any") => true,
        _ => named.is_some(),
    };
    let is_empty = offered.as_array().is_some_and(Vec::is_empty) || offered.is_null();
    if !wanted && (is_empty || !at_will()) {
        return Ok(None);
    }
    let first = || offered.as_array()?.iter().find_map(name_of);
    match named.or_else(first) {
        Some(name) => Ok(Some(Call { name, legacy })),
        None => Err(Refused::bad("tools has no function with a name")),
    }
}
