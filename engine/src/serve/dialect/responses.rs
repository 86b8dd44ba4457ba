//! OpenAI's responses: an answer is a list of items, streamed as named and numbered events. One that was asked to be
//! stored can be followed by a request that names it and sends only what is new.

use super::fields::{Fields, prompt_tokens};
use super::{Ask, Body, Dialect, Facts, Part, Request};
use crate::serve::errors::Refused;
use crate::serve::http::Events;
use crate::serve::words;
use crate::serve::world::{Stored, World};
use serde_json::{Value, json};
use std::io::Write;

/// `/v1/responses`.
#[derive(Debug)]
pub(in crate::serve) struct Responses;

impl Dialect for Responses {
    fn read(&self, request: &Request<'_>, world: &mut World) -> Result<Ask, Refused> {
        let fields = Fields::read(request)?;
        let input = fields.need("input")?;
        let items = match input {
            Value::String(_) => 1,
            Value::Array(items) => items.len() as u32,
            _ => return Err(Refused::bad("input is neither a string nor an array")),
        };
        let before = match fields.text("previous_response_id")? {
            None => Stored { messages: 0, prompt_tokens: 0 },
            Some(id) => *world
                .responses
                .get(id)
                .ok_or_else(|| Refused::bad(format!("Previous response with id '{id}' not found.")))?,
        };
        let own = prompt_tokens(&json!([fields.get("instructions"), input]));
        let prompt = own.saturating_add(before.prompt_tokens);
        let mut ask = Ask::new(world, fields.tokens("max_output_tokens")?, prompt).reasons(world);
        ask.model = fields.model(world)?;
        ask.stream = fields.flag("stream")?;
        ask.messages = items.saturating_add(before.messages);
        ask.call = call(&fields, input, world)?.map(Box::new);
        let store = fields.flag("store")?;
        if store {
            let messages = ask.messages.saturating_add(1);
            let stored = Stored { messages, prompt_tokens: prompt.saturating_add(ask.tokens) };
            world.responses.keep(format!("resp_{}", world.id(request.number)), stored);
        }
        ask.memo = json!({
            "instructions": fields.get("instructions"), "max_output_tokens": fields.get("max_output_tokens"),
            "previous_response_id": fields.get("previous_response_id"), "store": store,
        });
        Ok(ask)
    }

    fn whole(&self, body: &mut Body, facts: &Facts<'_>) {
        body.json(&response(facts, "completed"));
    }

    fn open(&self, out: &mut Events<'_>, facts: &Facts<'_>) {
        for name in ["response.created", "response.in_progress"] {
            event(out, name, json!({"response": response(facts, "in_progress")}));
        }
        open_item(out, facts, facts.ask.part(0));
    }

    fn tokens(&self, out: &mut Events<'_>, facts: &Facts<'_>, from: u32, count: u32) {
        let part = facts.ask.part(from);
        if from > 0 && from == facts.ask.reasoning {
            close_item(out, facts, Part::Reasoning);
            open_item(out, facts, part);
        }
        let (name, place, index) = (Names::of(part), item_id(facts, part), index(facts.ask, part));
        if part == Part::Call {
            let delta = facts.arguments(from, count);
            return event(
                out,
                &format!("{}.delta", name.content),
                json!({
                    "item_id": place, "output_index": index, "delta": delta,
                }),
            );
        }
        out.write(|out, number| {
            let kind = name.content;
            let _ = write!(out, "event: {kind}.delta\ndata: {{\"type\":\"{kind}.delta\",\"sequence_number\":{number},");
            let _ = write!(out, "\"item_id\":\"{place}\",\"output_index\":{index},\"content_index\":0,\"delta\":\"");
            words::append(out, facts.text(from, count));
            out.extend_from_slice(if part == Part::Text { b"\",\"logprobs\":[]}\n\n" } else { b"\"}\n\n" });
        });
    }

    fn close(&self, out: &mut Events<'_>, facts: &Facts<'_>) {
        close_item(out, facts, facts.ask.part(facts.ask.tokens - 1));
        event(out, "response.completed", json!({"response": response(facts, "completed")}));
    }

    fn fail(&self, out: &mut Events<'_>, facts: &Facts<'_>, why: &str) {
        let mut failed = response(facts, "failed");
        failed["error"] = json!({"code": "server_error", "message": why});
        event(out, "response.failed", json!({"response": failed}));
    }
}

fn call(fields: &Fields, input: &Value, world: &World) -> Result<Option<super::Call>, Refused> {
    let last = input.as_array().and_then(|items| items.last());
    let is_result = last.is_some_and(|item| item["type"] == "function_call_output");
    let null = Value::Null;
    let (tools, choice) = (fields.get("tools").unwrap_or(&null), fields.get("tool_choice").unwrap_or(&null));
    super::chat::pick(tools, choice, false, || world.config.tool_calls && !is_result)
}

/// An event called `name`, with its type and number in front of `members`.
fn event(out: &mut Events<'_>, name: &str, members: Value) {
    let mut value = json!({"type": name, "sequence_number": out.number});
    if let (Some(value), Value::Object(members)) = (value.as_object_mut(), members) {
        value.extend(members);
    }
    out.json(name, &value);
}

/// How a part is called in events.
struct Names {
    content: &'static str,
    id: &'static str,
}

impl Names {
    fn of(part: Part) -> Self {
        match part {
            Part::Reasoning => Self { content: "response.reasoning_text", id: "rs" },
            Part::Text => Self { content: "response.output_text", id: "msg" },
            Part::Call => Self { content: "response.function_call_arguments", id: "fc" },
        }
    }
}

fn item_id(facts: &Facts<'_>, part: Part) -> String {
    format!("{}_{}", Names::of(part).id, facts.id)
}

/// The place of an item among the output.
fn index(ask: &Ask, part: Part) -> u32 {
    u32::from(part != Part::Reasoning && ask.reasoning > 0)
}

fn text_part(part: Part, text: &str) -> Value {
    match part {
        Part::Reasoning => json!({"type": "reasoning_text", "text": text}),
        _ => json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []}),
    }
}

/// An item at its start or at its end. A reader of whole answers finds the reasoning in the summary.
fn item(facts: &Facts<'_>, part: Part, done: bool) -> Value {
    let (id, status) = (item_id(facts, part), if done { "completed" } else { "in_progress" });
    match (part, &facts.ask.call) {
        (Part::Reasoning, _) => {
            let summary = if done { json!([{"type": "summary_text", "text": facts.reasoning()}]) } else { json!([]) };
            json!({"id": id, "type": "reasoning", "summary": summary, "status": status})
        }
        (Part::Call, Some(call)) => {
            let arguments = if done { facts.all_arguments() } else { String::new() };
            let call_id = format!("call_{}", facts.id);
            json!({
                "id": id, "type": "function_call", "call_id": call_id, "name": call.name, "arguments": arguments,
                "status": status,
            })
        }
        _ => {
            let content = if done { json!([text_part(part, &facts.content())]) } else { json!([]) };
            json!({"id": id, "type": "message", "role": "assistant", "content": content, "status": status})
        }
    }
}

fn open_item(out: &mut Events<'_>, facts: &Facts<'_>, part: Part) {
    let index = index(facts.ask, part);
    event(out, "response.output_item.added", json!({"output_index": index, "item": item(facts, part, false)}));
    if part != Part::Call {
        let id = item_id(facts, part);
        event(
            out,
            "response.content_part.added",
            json!({
                "item_id": id, "output_index": index, "content_index": 0, "part": text_part(part, ""),
            }),
        );
    }
}

fn close_item(out: &mut Events<'_>, facts: &Facts<'_>, part: Part) {
    let (index, id, name) = (index(facts.ask, part), item_id(facts, part), Names::of(part).content);
    if part == Part::Call {
        event(
            out,
            &format!("{name}.done"),
            json!({
                "item_id": id, "output_index": index, "arguments": facts.all_arguments(),
            }),
        );
    } else {
        let text = if part == Part::Text { facts.content() } else { facts.reasoning() };
        event(
            out,
            &format!("{name}.done"),
            json!({
                "item_id": id, "output_index": index, "content_index": 0, "text": text,
            }),
        );
        event(
            out,
            "response.content_part.done",
            json!({
                "item_id": id, "output_index": index, "content_index": 0, "part": text_part(part, &text),
            }),
        );
    }
    event(out, "response.output_item.done", json!({"output_index": index, "item": item(facts, part, true)}));
}

/// The response with this status. It ends as completed although its length was limited: clients take an incomplete one
/// for a failure, and every answer here ends for its length.
fn response(facts: &Facts<'_>, status: &str) -> Value {
    let ask = facts.ask;
    let is_done = status == "completed";
    let parts = [(ask.reasoning > 0).then_some(Part::Reasoning), Some(ask.part(ask.tokens - 1))];
    let output: Vec<_> = parts.into_iter().flatten().filter(|_| is_done).map(|p| item(facts, p, true)).collect();
    let usage = is_done.then(|| {
        json!({
            "input_tokens": ask.prompt_tokens, "input_tokens_details": {"cached_tokens": ask.cached},
            "output_tokens": ask.tokens, "output_tokens_details": {"reasoning_tokens": ask.reasoning},
            "total_tokens": u64::from(ask.prompt_tokens) + u64::from(ask.tokens),
        })
    });
    json!({
        "id": format!("resp_{}", facts.id), "object": "response", "created_at": facts.created, "status": status,
        "error": null, "incomplete_details": null, "instructions": ask.memo["instructions"],
        "max_output_tokens": ask.memo["max_output_tokens"], "model": facts.model(), "output": output,
        "parallel_tool_calls": true, "previous_response_id": ask.memo["previous_response_id"],
        "store": ask.memo["store"], "temperature": 1.0, "tool_choice": "auto", "tools": [], "top_p": 1.0,
        "usage": usage,
    })
}
