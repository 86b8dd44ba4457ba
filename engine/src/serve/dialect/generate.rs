//! Hugging Face's Text Generation Inference: the path says whether the answer is streamed.

use super::fields::Fields;
use super::{Ask, Body, Dialect, Facts, Request, tokens_of};
use crate::serve::errors::{Refused, Vendor};
use crate::serve::http::Events;
use crate::serve::words;
use crate::serve::world::World;
use serde_json::{Value, json};
use std::io::Write;

/// `/generate`, and `/generate_stream` where it holds `true`.
#[derive(Debug)]
pub(in crate::serve) struct Generate(pub(in crate::serve) bool);

impl Dialect for Generate {
    fn read(&self, request: &Request<'_>, world: &mut World) -> Result<Ask, Refused> {
        let fields = Fields::read(request)?;
        let prompt = fields.need_text("inputs")?;
        let parameters = fields.inner("parameters");
        let mut ask = Ask::new(world, parameters.tokens("max_new_tokens")?, tokens_of(prompt.len()));
        ask.stream = self.0;
        ask.memo = Value::Bool(parameters.flag("details")?);
        Ok(ask)
    }

    fn whole(&self, body: &mut Body, facts: &Facts<'_>) {
        body.bytes(b"{\"generated_text\":\"");
        body.text(facts.text(0, facts.ask.tokens));
        body.bytes(b"\"");
        if facts.ask.memo == true {
            body.bytes(b",\"details\":");
            body.json(&json!({
                "finish_reason": "length", "generated_tokens": facts.ask.tokens, "seed": null, "prefill": [],
                "tokens": [],
            }));
        }
        body.bytes(b"}");
    }

    fn tokens(&self, out: &mut Events<'_>, facts: &Facts<'_>, from: u32, count: u32) {
        out.write(|out, _| {
            let last = from + count;
            let _ = write!(out, "data: {{\"index\":{last},\"token\":{{\"id\":{last},\"text\":\"");
            words::append(out, facts.text(from, count));
            let _ = write!(out, "\",\"logprob\":-0.1,\"special\":false}},");
            if last < facts.ask.tokens {
                out.extend_from_slice(b"\"generated_text\":null,\"details\":null}\n\n");
            } else {
                let details = json!({
                    "finish_reason": "length", "generated_tokens": facts.ask.tokens, "seed": null,
                    "input_length": facts.ask.prompt_tokens,
                });
                let text = Value::from(facts.content());
                let _ = write!(out, "\"generated_text\":{text},\"details\":{details}}}\n\n");
            }
        });
    }

    fn fail(&self, out: &mut Events<'_>, _: &Facts<'_>, why: &str) {
        out.json("", &Vendor::HuggingFace.object(500, why));
    }
}
