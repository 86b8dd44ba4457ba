//! `sagemaker_data_capture`: JSONL of requests as a SageMaker endpoint captured them; a file, or a directory with `.jsonl`
//! files at any depth.
//!
//! ```json
//! {"captureData": {"endpointInput": {"data": "{\"messages\": […]}", "encoding": "JSON"}, "endpointOutput": {…}},
//!  "eventMetadata": {"eventId": "…", "inferenceTime": "2024-05-01T12:00:00Z"}}
//! ```
//! Each capture is a conversation of its own, at its time from the earliest one; captures come in the order of their times.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use crate::formats::draft::{Draft, Emit, Prompt};
use crate::formats::mooncake;
use crate::lengths::MAX_TOKENS;
use crate::read::jsonl::Row;
use crate::read::moment::date_to_ns;
use crate::read::source;
use crate::read::spool::Rows;
use crate::{Context, Error, Turn};

/// Looks at the times of all captures, then reads these in their order.
pub(crate) fn read(path: &Path, emit: Emit<'_>) -> Result<(), Error> {
    let paths: Vec<PathBuf> =
        if path.is_dir() { source::jsonl(source::files(path, true)?) } else { vec![path.to_owned()] };
    let (mut files, mut captures) = (Vec::new(), Vec::new());
    for (number, file) in paths.iter().enumerate() {
        files.push(Rows::index(file, &mut |row, span| {
            captures.push((time(row)?, number, row.place, span));
            Ok(())
        })?);
    }
    captures.sort_by_key(|(at, ..)| *at);
    let zero = captures.first().map_or(0, |(at, ..)| *at);
    for (at, number, place, span) in captures {
        let Some(file) = files.get_mut(number) else { continue };
        let mut draft = file.read(place, span, parse)?;
        draft.steps.iter_mut().for_each(|step| step.turn.timestamp_ns = Some(at - zero));
        emit(draft)?;
    }
    Ok(())
}

fn missing(row: &Row<'_>, field: &str) -> Error {
    row.error(format_args!("no `{field}`"))
}

/// When it was captured, since 1970.
fn time(row: &Row<'_>) -> Result<u64, Error> {
    let metadata = row.row("eventMetadata")?.ok_or_else(|| missing(row, "eventMetadata"))?;
    let time = metadata.string("inferenceTime")?.ok_or_else(|| missing(row, "eventMetadata.inferenceTime"))?;
    date_to_ns(&time)
        .ok_or_else(|| metadata.error(format_args!("`inferenceTime` must be an ISO 8601 time, not {time:?}")))
}

fn parse(row: &Row<'_>) -> Result<Draft, Error> {
    let data = row.row("captureData")?.ok_or_else(|| missing(row, "captureData"))?;
    let input = data.row("endpointInput")?.ok_or_else(|| missing(row, "captureData.endpointInput"))?;
    let body = decode(&input)?.ok_or_else(|| missing(row, "captureData.endpointInput.data"))?;
    let body = Row::parse(row.path, row.place, &body)
        .map_err(|_| input.error("`data` must be a JSON object once it is decoded"))?;
    let length = |field: &str| body.integer(field, MAX_TOKENS);
    let turn = Turn {
        messages: Some(mooncake::messages(&body)?),
        tools: body.list("tools")?.filter(|tools| !tools.is_empty()).map(Value::Array),
        max_tokens: length("max_tokens")?.map_or_else(|| length("max_completion_tokens"), |n| Ok(Some(n)))?,
        input_tokens: prompt_tokens(&data)?,
        ..Turn::default()
    };
    let id = row.row("eventMetadata")?.map_or(Ok(None), |metadata| metadata.string("eventId"))?;
    let mut draft = Draft::of_turn(row.path, row.place, id, turn, Prompt::Given);
    draft.context = Context::MessageArray;
    Ok(draft)
}

/// The captured text; it is base64 unless it is said to be JSON.
fn decode(side: &Row<'_>) -> Result<Option<String>, Error> {
    let Some(data) = side.string("data")? else {
        return Ok(None);
    };
    match side.string("encoding")?.as_deref() {
        Some(encoding) if encoding.eq_ignore_ascii_case("json") => Ok(Some(data)),
        None | Some("BASE64" | "base64") => {
            let text = STANDARD.decode(data.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            text.map(Some).ok_or_else(|| side.error("`data` must be base64 of UTF-8 text"))
        }
        Some(other) => Err(side.error(format_args!("`encoding` must be JSON or BASE64, not {other:?}"))),
    }
}

/// The prompt's length as the server counted it, if its answer says so.
fn prompt_tokens(data: &Row<'_>) -> Result<Option<u32>, Error> {
    let Some(output) = data.row("endpointOutput")? else {
        return Ok(None);
    };
    // A streamed answer is no JSON document; then the length is not known.
    let Some(text) = decode(&output).ok().flatten() else {
        return Ok(None);
    };
    let body: Option<Map<String, Value>> = serde_json::from_str(&text).ok();
    let tokens = body.as_ref().and_then(|body| body.get("usage")?.get("prompt_tokens")?.as_u64());
    Ok(tokens.and_then(|tokens| u32::try_from(tokens).ok()))
}
