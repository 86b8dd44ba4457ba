//! Embeddings of texts or messages, as numbers or as base64: unit vectors that depend on the text alone.

use super::fields::{Fields, text_bytes};
use super::{Ready, Request, tokens_of};
use crate::serve::errors::Refused;
use crate::serve::picture::base64;
use crate::serve::world::{World, mix};
use serde_json::{Value, json};

/// Numbers in a vector where the request names no other.
const DIMENSIONS: u32 = 384;

/// Most numbers in a vector.
const MAX_DIMENSIONS: u32 = 8192;

/// Most inputs of one request, as OpenAI has it.
const MAX_INPUTS: usize = 2048;

/// Most numbers in an answer.
const MAX_NUMBERS: usize = 1 << 21;

/// `/v1/embeddings`, for texts, token ids, images as data URLs, and chat messages.
pub(in crate::serve) fn embeddings(request: &Request<'_>, world: &mut World) -> Result<Ready, Refused> {
    let fields = Fields::read(request)?;
    let model = fields.model(world)?;
    let inputs = inputs(&fields)?;
    let dimensions = dimensions(&fields, inputs.len())?;
    let is_coded = match fields.text("encoding_format")?.unwrap_or("float") {
        "float" => false,
        "base64" => true,
        other => return Err(Refused::bad(format!("encoding_format {other} is neither float nor base64"))),
    };
    let data: Vec<_> = inputs
        .iter()
        .enumerate()
        .map(|(index, input)| {
            let vector = vector(input, dimensions);
            let embedding = if is_coded { json!(coded(&vector)) } else { json!(vector) };
            json!({"index": index, "object": "embedding", "embedding": embedding})
        })
        .collect();
    let tokens = inputs.iter().map(|i| tokens(i)).fold(0, u32::saturating_add);
    let answer = json!({
        "id": format!("embd-{}", world.id(request.number)), "object": "list", "created": request.created,
        "model": world.config.models[model], "data": data,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0, "prompt_tokens_details": null},
    });
    let messages = fields.get("messages").and_then(Value::as_array).map_or(inputs.len(), Vec::len);
    Ok(Ready { messages: messages as u32, ..Ready::json(&answer, tokens) })
}

/// `/embed` of Text Embeddings Inference: the vectors and nothing else.
pub(in crate::serve) fn tei(request: &Request<'_>, _: &mut World) -> Result<Ready, Refused> {
    let fields = Fields::read(request)?;
    let inputs = match fields.need("inputs")? {
        text @ Value::String(_) => vec![text],
        Value::Array(items) if items.iter().all(Value::is_string) => items.iter().collect(),
        _ => return Err(Refused::bad("inputs is neither a text nor a list of texts")),
    };
    let dimensions = dimensions(&fields, inputs.len())?;
    let vectors: Vec<_> = inputs.iter().map(|input| vector(input, dimensions)).collect();
    let tokens = inputs.iter().map(|i| tokens(i)).fold(0, u32::saturating_add);
    Ok(Ready { messages: inputs.len() as u32, ..Ready::json(&json!(vectors), tokens) })
}

/// How long the vectors of so many inputs shall be.
fn dimensions(fields: &Fields, inputs: usize) -> Result<u32, Refused> {
    let dimensions = fields.count("dimensions", MAX_DIMENSIONS)?.unwrap_or(DIMENSIONS);
    let most = MAX_INPUTS.min(MAX_NUMBERS / (dimensions as usize).max(1));
    match (1..=most).contains(&inputs) {
        true => Ok(dimensions),
        false => Err(Refused::bad(format!("there must be 1 to {most} inputs, not {inputs}"))),
    }
}

/// What to embed: `input` is one text, one list of token ids, or a list of either; `messages` are one input.
fn inputs(fields: &Fields) -> Result<Vec<&Value>, Refused> {
    let Some(input) = fields.get("input") else {
        fields.list("messages").map_err(|_| Refused::bad("input is missing"))?;
        return Ok(fields.get("messages").into_iter().collect());
    };
    match input {
        Value::String(_) => Ok(vec![input]),
        Value::Array(items) if !items.is_empty() && items.iter().all(Value::is_u64) => Ok(vec![input]),
        Value::Array(items) if items.iter().all(|i| i.is_string() || i.is_array() || i.is_object()) => {
            Ok(items.iter().collect())
        }
        _ => Err(Refused::bad("input is neither a text nor token ids nor a list of either")),
    }
}

fn tokens(input: &Value) -> u32 {
    match input.as_array() {
        Some(ids) if ids.iter().all(Value::is_u64) => ids.len() as u32,
        _ => tokens_of(text_bytes(input)),
    }
}

fn vector(input: &Value, dimensions: u32) -> Vec<f32> {
    let text = input.to_string();
    let key = u64::from(crc32fast::hash(text.as_bytes())) << 32 | text.len() as u64;
    let raw: Vec<f64> = (0..dimensions).map(|k| mix(key ^ mix(k.into())) as i64 as f64).collect();
    let length = raw.iter().map(|x| x * x).sum::<f64>().sqrt();
    raw.iter().map(|x| (x / length) as f32).collect()
}

/// Little-endian, as OpenAI's clients decode it.
fn coded(vector: &[f32]) -> String {
    let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
    base64(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_have_length_one_and_differ_with_the_text() {
        let (a, b) = (vector(&json!("a"), 384), vector(&json!("b"), 384));
        for v in [&a, &b] {
            let length: f32 = v.iter().map(|x| x * x).sum();
            assert!((length - 1.0).abs() < 1e-4, "{length}");
        }
        assert_ne!(a, b);
        assert_eq!(a, vector(&json!("a"), 384));
        assert_eq!(coded(&[1.0]), "AACAPw==");
    }
}
