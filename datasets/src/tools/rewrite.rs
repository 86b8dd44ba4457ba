//! A trace as it is after filters and synthesis, written as a `mooncake_trace`.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::Error;
use crate::file::Options;
use crate::formats::draft::{Prompt, Step};

/// Writes the rows of the dataset to `out`, and says how many.
///
/// # Errors
/// A sentence: from the dataset, or that `out` cannot be written.
pub fn as_mooncake(options: &Options, out: &mut dyn Write) -> Result<u64, Error> {
    let format = options.known_format()?;
    options.check(format)?;
    if !format.makes_prompts() {
        return Err(Error(format!(
            "--input-file {}: {} is no trace of lengths, so there is nothing to synthesise",
            options.path.display(),
            format.name()
        )));
    }
    let mut rows = 0;
    options.sessions(format, &mut |draft| {
        for step in &draft.steps {
            // A session of one turn needs no name, but keeps it where it has one.
            let row = Row::of(draft.session_id.as_deref(), step);
            line(&row, out).map_err(|e| Error(format!("the trace cannot be written: {e}")))?;
            rows += 1;
        }
        Ok(())
    })?;
    Ok(rows)
}

fn line(row: &Row<'_>, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, row)?;
    out.write_all(b"\n")
}

#[derive(Serialize)]
struct Row<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    input_length: Option<u32>,
    #[serde(skip_serializing_if = "<[i128]>::is_empty")]
    hash_ids: &'a [i128],
    #[serde(skip_serializing_if = "Option::is_none")]
    text_input: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tools: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_length: Option<u32>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    extra: &'a Map<String, Value>,
}

impl<'a> Row<'a> {
    fn of(session_id: Option<&'a str>, step: &'a Step) -> Self {
        let turn = &step.turn;
        let (input_length, hash_ids): (_, &[i128]) = match &step.prompt {
            Prompt::Synthetic { length, hash_ids } => (Some(*length), hash_ids),
            Prompt::Given | Prompt::Counted | Prompt::Answered(_) => (None, &[]),
        };
        let plain = input_length.is_none() && turn.payload.is_none() && turn.messages.is_none();
        Self {
            session_id,
            timestamp: turn.timestamp_ns.map(millis),
            delay: turn.delay_ns.filter(|_| turn.timestamp_ns.is_none()).map(millis),
            input_length,
            hash_ids,
            text_input: plain.then(|| turn.all_texts().collect::<Vec<_>>().join(" ")),
            messages: turn.messages.as_ref(),
            tools: turn.tools.as_ref(),
            payload: turn.payload.as_ref(),
            output_length: turn.max_tokens,
            extra: &turn.extra,
        }
    }
}

/// Milliseconds, whole where they are.
fn millis(ns: u64) -> Value {
    if ns.is_multiple_of(1_000_000) { json!(ns / 1_000_000) } else { json!(ns as f64 / 1e6) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::Synthesis;

    #[test]
    fn a_rewritten_trace_reads_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trace.jsonl");
        let rows = concat!(
            "{\"timestamp\":7.215,\"input_length\":40,\"hash_ids\":[-1,18446744073709551615],\"output_length\":5}\n",
            "{\"session_id\":\"a\",\"text_input\":\"x\",\"extra\":{\"k\":1}}\n",
            "{\"session_id\":\"a\",\"delay\":3,\"text_input\":\"y\"}\n",
            "{\"messages\":[{\"role\":\"user\",\"content\":\"z\"}],\"tools\":[{\"name\":\"f\"}]}\n",
        );
        std::fs::write(&path, rows).unwrap();
        let options =
            Options { path: path.clone(), format: Some(crate::file::Format::MooncakeTrace), ..Options::default() };
        let mut out = Vec::new();
        assert_eq!(as_mooncake(&options, &mut out), Ok(4));
        let (again, rows) = (String::from_utf8(out).unwrap(), rows.to_owned());
        let values = |text: &str| text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()).collect::<Vec<_>>();
        assert_eq!(values(&again), values(&rows));
        let synthesis = Synthesis { speedup: 0.5, ..Synthesis::default() };
        let mut slow = Vec::new();
        as_mooncake(&Options { synthesis, ..options }, &mut slow).unwrap();
        assert!(String::from_utf8(slow).unwrap().starts_with("{\"timestamp\":14.43,"));
    }
}
