//! `outputs.json`: the text of every answer of the profiling phases beside its main figures.

use super::jsonl::{Lines, Metadata};
use maser_engine::log::Log;
use maser_engine::record::{Outcome, Payload};
use maser_engine::report::Report;
use serde::Serialize;
use std::borrow::Cow;
use std::io::{self, Write};

/// The file's name inside an artefact directory.
pub(super) const FILE_NAME: &str = "outputs.json";

/// Version of the file's layout.
const SCHEMA_VERSION: &str = "1.0";

/// The figures of a request that stand beside its text, those it has.
const FIGURES: [&str; 6] = [
    "input_sequence_length",
    "output_token_count",
    "output_sequence_length",
    "request_latency",
    "time_to_first_token",
    "inter_token_latency",
];

#[derive(Serialize)]
struct Answer<'a> {
    session_num: u64,
    conversation_id: &'a str,
    turn_index: u32,
    x_request_id: String,
    request_start_ns: u64,
    request_end_ns: u64,
    metrics: serde_json::Map<String, serde_json::Value>,
    response_text: Cow<'a, str>,
}

/// Answers in the order of their sessions and turns. Failed requests have none.
pub(super) fn write(report: &Report, log: &Log, out: &mut impl Write) -> io::Result<()> {
    let lines = Lines::new(report, log);
    let mut order: Vec<(u64, u32, usize, u64)> = Vec::new();
    for (at, (place, record, _)) in log.places().enumerate() {
        let phase = log.header.phases.get(usize::from(record.phase));
        if record.outcome() == Outcome::Ok && phase.is_none_or(|p| !p.warmup) {
            let turn = log.request(record.request).map_or(0, |r| r.turn);
            order.push((record.seq, turn, at, place));
        }
    }
    order.sort_unstable();
    write!(out, "{{\n  \"schema_version\": \"{SCHEMA_VERSION}\",\n  \"data\": [")?;
    let answers = order.iter().filter_map(|(_, _, at, place)| Some((*at, log.record_at(*place)?)));
    for (k, (at, (record, payload))) in answers.enumerate() {
        let Metadata {
            session_num, conversation_id, turn_index, x_request_id, request_start_ns, request_end_ns, ..
        } = lines.metadata(&record);
        let answer = Answer {
            session_num,
            conversation_id,
            turn_index,
            x_request_id,
            request_start_ns,
            request_end_ns,
            metrics: lines.figures(at, (&record, &payload), &FIGURES),
            response_text: text(&payload),
        };
        out.write_all(if k == 0 { b"\n" } else { b",\n" })?;
        indented(&answer, out)?;
    }
    out.write_all(if order.is_empty() { b"]\n}" } else { b"\n  ]\n}" })
}

fn text<'a>(payload: &Payload<'a>) -> Cow<'a, str> {
    String::from_utf8_lossy(payload.text)
}

/// An element of the list, two levels deep.
fn indented(answer: &Answer<'_>, out: &mut impl Write) -> io::Result<()> {
    let text = serde_json::to_string_pretty(answer)?;
    for (k, line) in text.lines().enumerate() {
        out.write_all(if k == 0 { b"    " } else { b"\n    " })?;
        out.write_all(line.as_bytes())?;
    }
    Ok(())
}
