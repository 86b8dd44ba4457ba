//! OpenAI's transcriptions: a form with a sound in it. The transcript has as many tokens as the server answers with where
//! no length is asked for.

use super::{Ask, Body, Dialect, Facts, Request};
use crate::serve::errors::{Refused, Vendor};
use crate::serve::http::{Events, JSON};
use crate::serve::multipart::Form;
use crate::serve::words;
use crate::serve::world::World;
use serde_json::{Value, json};

/// Bytes of sound that stand for one token: a tenth of a second of 16 bits at 16 kHz.
const BYTES_PER_TOKEN: usize = 3200;

/// `/v1/audio/transcriptions`.
#[derive(Debug)]
pub(in crate::serve) struct Transcriptions;

impl Dialect for Transcriptions {
    fn read(&self, request: &Request<'_>, world: &mut World) -> Result<Ask, Refused> {
        let form = Form::read(request)?;
        let file = form.file("file").ok_or_else(|| Refused::bad("file is missing"))?;
        let format = form.text("response_format")?.unwrap_or("json");
        if !matches!(format, "json" | "text" | "verbose_json") {
            return Err(Refused::bad(format!("response_format {format} is not one of json, text, verbose_json")));
        }
        let mut ask =
            Ask::new(world, form.tokens("max_completion_tokens")?, (file.len() / BYTES_PER_TOKEN).max(1) as u32);
        ask.model = form.model(world)?;
        ask.stream = form.flag("stream")?;
        ask.memo = Value::from(format);
        Ok(ask)
    }

    fn content_type(&self, ask: &Ask) -> &'static str {
        if ask.memo == "text" { "text/plain; charset=utf-8" } else { JSON }
    }

    fn whole(&self, body: &mut Body, facts: &Facts<'_>) {
        let text = facts.text(0, facts.ask.tokens);
        if facts.ask.memo == "text" {
            return body.text(text);
        }
        if facts.ask.memo == "verbose_json" {
            let seconds = f64::from(facts.ask.prompt_tokens) / 10.0;
            body.bytes(
                format!("{{\"task\":\"transcribe\",\"language\":\"english\",\"duration\":{seconds},").as_bytes(),
            );
        } else {
            body.bytes(b"{");
        }
        body.bytes(b"\"text\":\"");
        body.text(text);
        body.bytes(b"\",\"usage\":");
        body.json(&usage(facts));
        body.bytes(b"}");
    }

    fn tokens(&self, out: &mut Events<'_>, facts: &Facts<'_>, from: u32, count: u32) {
        out.write(|out, _| {
            out.extend_from_slice(b"data: {\"type\":\"transcript.text.delta\",\"delta\":\"");
            words::append(out, facts.text(from, count));
            out.extend_from_slice(b"\"}\n\n");
        });
    }

    fn close(&self, out: &mut Events<'_>, facts: &Facts<'_>) {
        let text = facts.content();
        out.json("", &json!({"type": "transcript.text.done", "text": text, "usage": usage(facts)}));
    }

    fn fail(&self, out: &mut Events<'_>, _: &Facts<'_>, why: &str) {
        out.json("", &Vendor::OpenAi.object(500, why));
    }
}

fn usage(facts: &Facts<'_>) -> Value {
    let (input, output) = (facts.ask.prompt_tokens, facts.ask.tokens);
    json!({
        "type": "tokens", "input_tokens": input,
        "input_token_details": {"text_tokens": 0, "audio_tokens": input},
        "output_tokens": output, "total_tokens": u64::from(input) + u64::from(output),
    })
}
