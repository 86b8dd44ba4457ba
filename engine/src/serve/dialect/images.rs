//! OpenAI's images: generated from a prompt, whole or as a stream of ever better ones, or edited from an upload.

use super::fields::Fields;
use super::{Ready, Request, tokens_of};
use crate::serve::errors::Refused;
use crate::serve::multipart::Form;
use crate::serve::picture::{base64, png};
use crate::serve::world::{World, mix};
use serde_json::{Value, json};

/// Most images of one request, as OpenAI has it.
const MAX_IMAGES: u32 = 10;

/// Most partial images of a stream, as OpenAI has it.
const MAX_PARTIAL: u32 = 3;

/// What one image costs in tokens: OpenAI's price of a small one.
const IMAGE_TOKENS: u32 = 272;

/// What is asked for, whichever way it came.
struct Wanted<'a> {
    /// The beginning of the events' names.
    kind: &'static str,
    prompt: &'a str,
    n: u32,
    as_url: bool,
    size: &'a str,
    quality: &'a str,
    background: &'a str,
    /// Images sent along.
    inputs: u32,
    /// Events before the last one, in a stream.
    partial: Option<u32>,
}

/// `/v1/images/generations`.
pub(in crate::serve) fn generations(request: &Request<'_>, world: &mut World) -> Result<Ready, Refused> {
    let fields = Fields::read(request)?;
    fields.model(world)?;
    let partial = match fields.get("partial_images") {
        Some(n) if n == 0 => 0,
        _ => fields.count("partial_images", MAX_PARTIAL)?.unwrap_or(0),
    };
    answer(
        request,
        world,
        &Wanted {
            kind: "image_generation",
            prompt: fields.need_text("prompt")?,
            n: fields.count("n", MAX_IMAGES)?.unwrap_or(1),
            as_url: is_url(fields.text("response_format")?)?,
            size: fields.text("size")?.unwrap_or("1024x1024"),
            quality: fields.text("quality")?.unwrap_or("low"),
            background: fields.text("background")?.unwrap_or("opaque"),
            inputs: 0,
            partial: fields.flag("stream")?.then_some(partial),
        },
    )
}

/// `/v1/images/edits`.
pub(in crate::serve) fn edits(request: &Request<'_>, world: &mut World) -> Result<Ready, Refused> {
    let form = Form::read(request)?;
    form.model(world)?;
    let inputs = form.files("image") as u32 + u32::from(form.text("url")?.is_some());
    if inputs == 0 {
        return Err(Refused::bad("image is missing"));
    }
    answer(
        request,
        world,
        &Wanted {
            kind: "image_edit",
            prompt: form.need_text("prompt")?,
            n: form.count("n", MAX_IMAGES)?.unwrap_or(1),
            as_url: is_url(form.text("response_format")?)?,
            size: form.text("size")?.unwrap_or("1024x1024"),
            quality: form.text("quality")?.unwrap_or("low"),
            background: form.text("background")?.unwrap_or("opaque"),
            inputs,
            partial: form.flag("stream")?.then_some(0),
        },
    )
}

fn is_url(format: Option<&str>) -> Result<bool, Refused> {
    match format {
        None | Some("b64_json") => Ok(false),
        Some("url") => Ok(true),
        Some(other) => Err(Refused::bad(format!("response_format {other} is neither url nor b64_json"))),
    }
}

fn answer(request: &Request<'_>, world: &World, wanted: &Wanted<'_>) -> Result<Ready, Refused> {
    let key = mix(world.id_key ^ request.number);
    let text = tokens_of(wanted.prompt.len());
    let input = text + wanted.inputs * IMAGE_TOKENS;
    let usage = json!({
        "total_tokens": input + wanted.n * IMAGE_TOKENS, "input_tokens": input,
        "output_tokens": wanted.n * IMAGE_TOKENS,
        "input_tokens_details": {"text_tokens": text, "image_tokens": input - text},
    });
    let Some(partial) = wanted.partial else {
        let data: Vec<_> = (0..wanted.n).map(|n| image(key.wrapping_add(n.into()), wanted.as_url)).collect();
        let answer = json!({
            "created": request.created, "background": wanted.background, "data": data, "output_format": "png",
            "quality": wanted.quality, "size": wanted.size, "usage": usage,
        });
        return Ok(Ready::json(&answer, input));
    };
    let event = |name: &str, index: u32, last: (&str, Value)| {
        let name = format!("{}.{name}", wanted.kind);
        let mut event = json!({
            "type": name, "b64_json": base64(&png(key.wrapping_add(index.into()))), "created_at": request.created,
            "size": wanted.size, "quality": wanted.quality, "background": wanted.background, "output_format": "png",
        });
        event[last.0] = last.1;
        format!("event: {name}\ndata: {event}\n\n").into_bytes()
    };
    let mut events: Vec<_> =
        (0..partial).map(|k| event("partial_image", k, ("partial_image_index", json!(k)))).collect();
    events.push(event("completed", partial, ("usage", usage)));
    Ok(Ready { events, ..Ready::bytes("", Vec::new(), input) })
}

fn image(key: u64, as_url: bool) -> Value {
    let coded = base64(&png(key));
    if as_url { json!({"url": format!("data:image/png;base64,{coded}")}) } else { json!({"b64_json": coded}) }
}
