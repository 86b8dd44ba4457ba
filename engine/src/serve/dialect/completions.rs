//! OpenAI's completions. As from vLLM, the reason to finish comes with the last text.

use super::openai::{self, Fields};
use super::{Ask, Body, Dialect, Facts, Request, Stem, tokens_of};
use crate::serve::errors::{Refused, Vendor};
use crate::serve::http::Events;
use crate::serve::words;
use crate::serve::world::World;
use serde_json::Value;
use std::io::Write;

/// Most prompts of one request.
const MAX_PROMPTS: usize = 2048;

/// `/v1/completions`.
#[derive(Debug)]
pub(in crate::serve) struct Completions;

impl Dialect for Completions {
    fn read(&self, request: &Request<'_>, world: &mut World) -> Result<Ask, Refused> {
        let fields = Fields::scan(request.body)?;
        let prompt = fields.prompt.ok_or_else(|| Refused::bad("prompt is missing"))?;
        let prompt: Value = serde_json::from_slice(prompt).map_err(|e| Refused::bad(format!("prompt: {e}")))?;
        let (prompts, tokens) = measure(&prompt)?;
        let mut ask = fields.ask(world, tokens, prompts)?;
        ask.messages = prompts;
        Ok(ask)
    }

    fn stem(&self, stream: bool) -> Option<Stem> {
        let before_id = if stream { "data: {\"id\":\"cmpl-" } else { "{\"id\":\"cmpl-" };
        Some(Stem { before_id, object: "text_completion" })
    }

    fn whole(&self, body: &mut Body, facts: &Facts<'_>) {
        body.bytes(facts.stem);
        for choice in 0..facts.ask.choices {
            let comma = if choice == 0 { "" } else { "," };
            let _ = write!(body.bytes, "{comma}{{\"index\":{choice},\"text\":\"");
            body.text(facts.text(0, facts.ask.tokens));
            body.bytes(
                b"\",\"logprobs\":null,\"finish_reason\":\"length\",\"stop_reason\":null,\"prompt_logprobs\":null}",
            );
        }
        body.bytes(b"],");
        openai::final_usage(&mut body.bytes, facts);
        body.bytes(b"}");
    }

    fn tokens(&self, out: &mut Events<'_>, facts: &Facts<'_>, from: u32, count: u32) {
        let ask = facts.ask;
        let finish: &[u8] = if from + count == ask.tokens { b"\"length\"" } else { b"null" };
        for choice in 0..ask.choices {
            out.write(|out, _| {
                out.extend_from_slice(facts.stem);
                let _ = write!(out, "{{\"index\":{choice},\"text\":\"");
                words::append(out, facts.text(from, count));
                out.extend_from_slice(b"\",\"logprobs\":null,\"finish_reason\":");
                out.extend_from_slice(finish);
                out.extend_from_slice(b",\"stop_reason\":null}]");
                if ask.running_usage {
                    out.push(b',');
                    let all = u64::from(from) * u64::from(ask.choices) + u64::from(count) * u64::from(choice + 1);
                    openai::usage(out, ask, all);
                }
                out.extend_from_slice(b"}\n\n");
            });
        }
    }

    fn close(&self, out: &mut Events<'_>, facts: &Facts<'_>) {
        super::chat::usage_event(out, facts);
        out.done();
    }

    fn fail(&self, out: &mut Events<'_>, _: &Facts<'_>, why: &str) {
        out.json("", &Vendor::OpenAi.object(500, why));
        out.done();
    }
}

/// How many prompts there are, and their tokens: one text, one list of token ids, or a list of either.
fn measure(prompt: &Value) -> Result<(u32, u32), Refused> {
    let wrong = || Refused::bad("prompt is neither a text nor token ids nor a list of either");
    let ids = |list: &[Value]| list.iter().all(Value::is_u64).then_some(list.len() as u32);
    match prompt {
        Value::String(text) => Ok((1, tokens_of(text.len()))),
        Value::Array(items) if items.is_empty() => Err(Refused::bad("prompt is empty")),
        Value::Array(items) if items.iter().all(Value::is_u64) => Ok((1, items.len() as u32)),
        Value::Array(items) if items.len() > MAX_PROMPTS => {
            Err(Refused::bad(format!("prompt has more than {MAX_PROMPTS} prompts")))
        }
        Value::Array(items) => {
            let each = items.iter().map(|item| match item {
                Value::String(text) => Ok(text.len() * 4 / 17),
                Value::Array(list) => ids(list).map(|n| n as usize).ok_or_else(wrong),
                _ => Err(wrong()),
            });
            let tokens: usize = each.sum::<Result<usize, Refused>>()?;
            Ok((items.len() as u32, u32::try_from(tokens).unwrap_or(u32::MAX).max(1)))
        }
        _ => Err(wrong()),
    }
}
