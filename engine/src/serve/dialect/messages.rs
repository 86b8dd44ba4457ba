//! Anthropic's messages: named events, blocks of thinking, text and tool use, usage with cached tokens apart.

use super::fields::{Fields, prompt_tokens};
use super::usage::Details;
use super::{Ask, Body, Dialect, Facts, Part, Request};
use crate::serve::errors::{Refused, Vendor};
use crate::serve::http::Events;
use crate::serve::world::World;
use serde_json::{Value, json};

/// What stands for the signature of thinking.
const SIGNATURE: &str = "bWFzZXI=";

/// `/v1/messages`.
#[derive(Debug)]
pub(in crate::serve) struct Messages;

impl Dialect for Messages {
    fn read(&self, request: &Request<'_>, world: &mut World) -> Result<Ask, Refused> {
        let fields = Fields::read(request)?;
        let messages = fields.list("messages")?;
        let tokens = fields.tokens("max_tokens")?.ok_or_else(|| Refused::bad("max_tokens: Field required"))?;
        let texts = json!([fields.get("system"), messages]);
        let mut ask = Ask::new(world, Some(tokens), prompt_tokens(&texts)).reasons(world);
        ask.model = fields.model(world)?;
        ask.stream = fields.flag("stream")?;
        ask.messages = messages.len() as u32;
        let (null, last) = (Value::Null, messages.last().cloned().unwrap_or_default());
        let is_result = || last["content"].as_array().is_some_and(|c| c.iter().any(|b| b["type"] == "tool_result"));
        let (tools, choice) = (fields.get("tools").unwrap_or(&null), fields.get("tool_choice").unwrap_or(&null));
        let at_will = || world.config.tool_calls && !is_result();
        ask.call = super::chat::pick(tools, choice, false, at_will)?.map(Box::new);
        Ok(ask)
    }

    fn whole(&self, body: &mut Body, facts: &Facts<'_>) {
        let ask = facts.ask;
        body.bytes(format!("{{\"id\":\"msg_{}\",\"type\":\"message\",\"role\":\"assistant\",", facts.id).as_bytes());
        body.bytes(format!("\"model\":{},\"content\":[", Value::from(facts.model())).as_bytes());
        if ask.reasoning > 0 {
            body.bytes(b"{\"type\":\"thinking\",\"thinking\":\"");
            body.text(facts.text(0, ask.reasoning));
            body.bytes(format!("\",\"signature\":\"{SIGNATURE}\"}},").as_bytes());
        }
        match &ask.call {
            None => {
                body.bytes(b"{\"type\":\"text\",\"text\":\"");
                body.text(facts.text(ask.reasoning, ask.tokens - ask.reasoning));
                body.bytes(b"\"}");
            }
            Some(call) => {
                let input: Value = serde_json::from_str(&facts.all_arguments()).unwrap_or_else(|_| json!({}));
                body.json(&json!({"type": "tool_use", "id": use_id(facts), "name": call.name, "input": input}));
            }
        }
        body.bytes(format!("],\"stop_reason\":\"{}\",\"stop_sequence\":null,\"usage\":", reason(ask)).as_bytes());
        body.json(&usage(ask, ask.tokens));
        body.bytes(b"}");
    }

    fn open(&self, out: &mut Events<'_>, facts: &Facts<'_>) {
        let message = json!({
            "id": format!("msg_{}", facts.id), "type": "message", "role": "assistant", "content": [],
            "model": facts.model(), "stop_reason": null, "stop_sequence": null, "usage": usage(facts.ask, 0),
        });
        out.json("message_start", &json!({"type": "message_start", "message": message}));
        start_block(out, facts, facts.ask.part(0));
        out.json("ping", &json!({"type": "ping"}));
    }

    fn tokens(&self, out: &mut Events<'_>, facts: &Facts<'_>, from: u32, count: u32) {
        let part = facts.ask.part(from);
        if from > 0 && from == facts.ask.reasoning {
            let signature = json!({"type": "signature_delta", "signature": SIGNATURE});
            delta(out, 0, &signature);
            stop_block(out, 0);
            start_block(out, facts, part);
        }
        let index = index(facts.ask, part);
        match part {
            Part::Call => {
                let json = facts.arguments(from, count);
                delta(out, index, &json!({"type": "input_json_delta", "partial_json": json}));
            }
            Part::Text | Part::Reasoning => {
                let open: &[u8] = if part == Part::Text {
                    b"\"delta\":{\"type\":\"text_delta\",\"text\":\""
                } else {
                    b"\"delta\":{\"type\":\"thinking_delta\",\"thinking\":\""
                };
                let at: &[u8] = if index == 0 { b"\"index\":0," } else { b"\"index\":1," };
                let head: &[u8] = b"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",";
                out.text(&[head, at, open], facts.text(from, count), &[b"\"}}\n\n"]);
            }
        }
    }

    fn close(&self, out: &mut Events<'_>, facts: &Facts<'_>) {
        let ask = facts.ask;
        stop_block(out, index(ask, ask.part(ask.tokens - 1)));
        let delta = json!({"stop_reason": reason(ask), "stop_sequence": null});
        let usage = usage(ask, ask.tokens);
        out.json("message_delta", &json!({"type": "message_delta", "delta": delta, "usage": usage}));
        out.json("message_stop", &json!({"type": "message_stop"}));
    }

    fn fail(&self, out: &mut Events<'_>, _: &Facts<'_>, why: &str) {
        out.json("error", &Vendor::Anthropic.object(500, why));
    }
}

/// Anthropic's counts are disjoint: the input is what came from no cache and went to none.
fn usage(ask: &Ask, output: u32) -> Value {
    let written = Details::of(ask, output.into()).map_or(0, |details| details.written);
    json!({
        "input_tokens": ask.prompt_tokens - ask.cached - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": ask.cached,
        "output_tokens": output,
    })
}

fn reason(ask: &Ask) -> &'static str {
    if ask.call.is_some() { "tool_use" } else { "max_tokens" }
}

fn use_id(facts: &Facts<'_>) -> String {
    format!("toolu_{}", facts.id)
}

/// The place of a block among the content.
fn index(ask: &Ask, part: Part) -> u32 {
    u32::from(part != Part::Reasoning && ask.reasoning > 0)
}

fn start_block(out: &mut Events<'_>, facts: &Facts<'_>, part: Part) {
    let block = match (part, &facts.ask.call) {
        (Part::Reasoning, _) => json!({"type": "thinking", "thinking": "", "signature": ""}),
        (Part::Call, Some(call)) => json!({"type": "tool_use", "id": use_id(facts), "name": call.name, "input": {}}),
        _ => json!({"type": "text", "text": ""}),
    };
    let index = index(facts.ask, part);
    out.json("content_block_start", &json!({"type": "content_block_start", "index": index, "content_block": block}));
}

fn delta(out: &mut Events<'_>, index: u32, delta: &Value) {
    out.json("content_block_delta", &json!({"type": "content_block_delta", "index": index, "delta": delta}));
}

fn stop_block(out: &mut Events<'_>, index: u32) {
    out.json("content_block_stop", &json!({"type": "content_block_stop", "index": index}));
}

/// `/v1/messages/count_tokens`.
pub(in crate::serve) fn count(request: &Request<'_>, world: &mut World) -> Result<super::Ready, Refused> {
    let fields = Fields::read(request)?;
    fields.model(world)?;
    let tokens = prompt_tokens(&json!([fields.get("system"), fields.list("messages")?]));
    Ok(super::Ready::json(&json!({"input_tokens": tokens}), tokens))
}
