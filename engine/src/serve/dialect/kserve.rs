//! KServe v2 over HTTP, as Triton has it: tensors by `infer`, text by its `generate` extension.

use super::fields::{Fields, prompt_tokens};
use super::{Ask, Body, Dialect, Facts, Ready, Request, tokens_of};
use crate::serve::errors::{Refused, Vendor};
use crate::serve::http::Events;
use crate::serve::words;
use crate::serve::world::World;
use serde_json::{Value, json};
use std::io::Write;

/// What is asked of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::serve) enum KServe {
    /// Tensors in, tensors out.
    Infer,
    /// Text in, text out.
    Generate,
    /// The same as a stream.
    GenerateStream,
}

impl Dialect for KServe {
    fn read(&self, request: &Request<'_>, world: &mut World) -> Result<Ask, Refused> {
        let fields = Fields::read(request)?;
        let model = model_of(request, world)?;
        let parameters = fields.inner("parameters");
        let mut asked = match parameters.tokens("max_tokens")? {
            Some(n) => Some(n),
            None => fields.tokens("max_tokens")?,
        };
        let mut ask = if *self == Self::Infer {
            let inputs = fields.list("inputs")?;
            let (texts, limit) = tensors(inputs)?;
            asked = asked.or(limit);
            let ask = Ask::new(world, asked, prompt_tokens(&json!(texts)));
            ask.times((texts.len() as u32).max(1))?
        } else {
            Ask::new(world, asked, tokens_of(fields.need_text("text_input")?.len()))
        };
        ask.model = model;
        ask.stream = *self == Self::GenerateStream;
        ask.memo = json!(fields.get("id"));
        Ok(ask)
    }

    fn whole(&self, body: &mut Body, facts: &Facts<'_>) {
        body.bytes(named(facts).as_bytes());
        if *self != Self::Infer {
            body.bytes(b",\"text_output\":\"");
            body.text(facts.text(0, facts.ask.tokens));
            return body.bytes(b"\"}");
        }
        if facts.ask.memo.is_string() {
            let _ = write!(body.bytes, ",\"id\":{}", facts.ask.memo);
        }
        let outputs = facts.ask.choices;
        let _ = write!(
            body.bytes,
            ",\"outputs\":[{{\"name\":\"text_output\",\"datatype\":\"BYTES\",\"shape\":[{outputs}],\"data\":["
        );
        for output in 0..outputs {
            body.bytes(if output == 0 { b"\"" } else { b",\"" });
            body.text(facts.text(0, facts.ask.tokens));
            body.bytes(b"\"");
        }
        body.bytes(b"]}]}");
    }

    fn tokens(&self, out: &mut Events<'_>, facts: &Facts<'_>, from: u32, count: u32) {
        out.write(|out, _| {
            let _ = write!(out, "data: {},\"text_output\":\"", named(facts));
            words::append(out, facts.text(from, count));
            out.extend_from_slice(b"\"}\n\n");
        });
    }

    fn fail(&self, out: &mut Events<'_>, _: &Facts<'_>, why: &str) {
        out.json("", &Vendor::KServe.object(500, why));
    }
}

/// The model named in the path, percent-encoded or not, its version left aside.
fn model_of(request: &Request<'_>, world: &World) -> Result<usize, Refused> {
    let name = request.name.split("/versions/").next().unwrap_or_default();
    let (mut bytes, mut rest) = (Vec::new(), name.as_bytes());
    while let [byte, behind @ ..] = rest {
        let digits = behind.get(..2).and_then(|d| std::str::from_utf8(d).ok()).filter(|_| *byte == b'%');
        let decoded = digits.and_then(|d| u8::from_str_radix(d, 16).ok());
        bytes.push(decoded.unwrap_or(*byte));
        rest = behind.get(if decoded.is_some() { 2 } else { 0 }..).unwrap_or_default();
    }
    world.model(&String::from_utf8_lossy(&bytes))
}

/// The beginning of an answer.
fn named(facts: &Facts<'_>) -> String {
    format!("{{\"model_name\":{},\"model_version\":\"1\"", Value::from(facts.model()))
}

/// The texts among the inputs, and the length asked for: an input called `max_tokens` or, as Triton's models have it,
/// `request_output_len`.
fn tensors(inputs: &[Value]) -> Result<(Vec<&Value>, Option<u32>), Refused> {
    let (mut texts, mut limit) = (Vec::new(), None);
    for (index, input) in inputs.iter().enumerate() {
        let name = input["name"].as_str().ok_or_else(|| Refused::bad(format!("inputs[{index}] has no name")))?;
        let data = input["data"].as_array().ok_or_else(|| Refused::bad(format!("input '{name}' has no data")))?;
        if matches!(name, "max_tokens" | "request_output_len") {
            let asked = data.iter().flat_map(|d| d.as_array().map_or(std::slice::from_ref(d), |v| v)).next();
            let asked = asked.and_then(Value::as_u64).filter(|n| (1..=super::MAX_TOKENS.into()).contains(n));
            limit = Some(asked.ok_or_else(|| Refused::bad(format!("input '{name}' is no number of tokens")))? as u32);
        } else if input["datatype"] == "BYTES" {
            texts.extend(data);
        }
    }
    Ok((texts, limit))
}

/// `/v2/health/ready` and `/v2/health/live`.
pub(in crate::serve) fn health(_: &Request<'_>, _: &mut World) -> Result<Ready, Refused> {
    Ok(Ready::bytes("", Vec::new(), 0))
}

/// `/v2/models/M/ready`.
pub(in crate::serve) fn ready(request: &Request<'_>, world: &mut World) -> Result<Ready, Refused> {
    model_of(request, world)?;
    Ok(Ready::bytes("", Vec::new(), 0))
}

/// `/v2/models/M`.
pub(in crate::serve) fn model(request: &Request<'_>, world: &mut World) -> Result<Ready, Refused> {
    let index = model_of(request, world)?;
    let tensor = |name: &str| json!([{"name": name, "datatype": "BYTES", "shape": [-1]}]);
    Ok(Ready::json(
        &json!({
            "name": world.config.models[index], "versions": ["1"], "platform": "maser",
            "inputs": tensor("text_input"), "outputs": tensor("text_output"),
        }),
        0,
    ))
}

/// `/v2`.
pub(in crate::serve) fn server(_: &Request<'_>, _: &mut World) -> Result<Ready, Refused> {
    Ok(Ready::json(&json!({"name": "maser", "version": env!("CARGO_PKG_VERSION"), "extensions": ["generate"]}), 0))
}
