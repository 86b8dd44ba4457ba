//! `profile_export.jsonl`: one line a request, warm-up and failures included.

use maser_engine::log::Log;
use maser_engine::metric::{Applies, METRICS, Metric, Sample, Value, flag};
use maser_engine::record::{Outcome, Payload, Record, correlation_id, request_id};
use maser_engine::report::{ErrorDetails, Report};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use std::io::{self, Write};

pub(super) fn write(report: &Report, log: &Log, out: &mut impl Write) -> io::Result<()> {
    let writer = Lines { report, log, applies: report.applies() };
    for (at, (record, payload)) in log.records().enumerate() {
        serde_json::to_writer(&mut *out, &writer.line(at, &record, &payload))?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

struct Lines<'a> {
    report: &'a Report,
    log: &'a Log,
    applies: Applies,
}

#[derive(Serialize)]
struct Line<'a> {
    metadata: Metadata<'a>,
    metrics: Metrics<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Failure>,
}

#[derive(Serialize)]
struct Metadata<'a> {
    session_num: u64,
    x_request_id: String,
    x_correlation_id: String,
    conversation_id: &'a str,
    turn_index: u32,
    credit_issued_ns: u64,
    request_start_ns: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_ack_ns: Option<u64>,
    request_end_ns: u64,
    worker_id: String,
    record_processor_id: &'static str,
    benchmark_phase: &'static str,
    phase_index: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    profiling_index: Option<usize>,
    phase_name: &'a str,
    phase_kind: &'static str,
    was_cancelled: bool,
    context_overflow_skip: bool,
    agent_depth: u32,
    root_correlation_id: String,
}

#[derive(Serialize)]
struct Failure {
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
    r#type: String,
    message: String,
}

impl<'a> Lines<'a> {
    fn line(&self, at: usize, record: &'a Record, payload: &'a Payload<'a>) -> Line<'a> {
        let error =
            ErrorDetails::of(record, payload).map(|d| Failure { code: d.code, r#type: d.kind, message: d.message });
        Line {
            metadata: self.metadata(record),
            metrics: Metrics { sample: self.report.sample(self.log, at, record), payload, applies: self.applies },
            error,
        }
    }

    fn metadata(&self, record: &Record) -> Metadata<'a> {
        let header = &self.log.header;
        let request = self.log.request(record.request);
        let phase = header.phases.get(usize::from(record.phase));
        let warmup = phase.is_some_and(|p| p.warmup);
        let kind = if warmup { "warmup" } else { "profiling" };
        let before = header.phases.iter().take(usize::from(record.phase));
        let wall = |at| header.anchor.wall_ns(at);
        let correlation = correlation_id(header.run_key, record.phase, record.session).to_string();
        Metadata {
            session_num: record.session,
            x_request_id: request_id(header.run_key, record.phase, record.seq).to_string(),
            x_correlation_id: correlation.clone(),
            conversation_id: request.map_or("", |r| r.conversation),
            turn_index: request.map_or(0, |r| r.turn),
            credit_issued_ns: wall(record.due),
            request_start_ns: wall(record.start),
            request_ack_ns: record.first_byte.is_set().then(|| wall(record.first_byte)),
            request_end_ns: wall(record.done),
            worker_id: format!("executor_{}", record.executor),
            record_processor_id: "collector",
            benchmark_phase: kind,
            phase_index: record.phase,
            profiling_index: (!warmup).then(|| before.filter(|p| !p.warmup).count()),
            phase_name: phase.map_or(kind, |p| p.name.as_str()),
            phase_kind: kind,
            was_cancelled: record.outcome() == Outcome::Cancelled,
            context_overflow_skip: false,
            agent_depth: 0,
            root_correlation_id: correlation,
        }
    }
}

/// The metrics of one request, in display units.
struct Metrics<'a> {
    sample: Sample<'a>,
    payload: &'a Payload<'a>,
    applies: Applies,
}

#[derive(Serialize)]
struct Reading<V> {
    value: V,
    unit: &'static str,
}

impl Serialize for Metrics<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let valid = self.sample.record.outcome() == Outcome::Ok;
        for metric in METRICS {
            if metric.has(flag::INTERNAL) || metric.has(flag::NO_RECORD) || !metric.applies(&self.applies) {
                continue;
            }
            let value = match metric.value {
                Value::Valid(f) if valid => f(&self.sample),
                Value::Failed(f) if !valid => f(&self.sample),
                // A failed request has no latencies; its own lateness is known all the same.
                Value::Every(f) => f(&self.sample),
                Value::Gaps if valid => {
                    self.gaps(metric, &mut map)?;
                    None
                }
                _ => None,
            };
            if let Some(value) = value.filter(|x| x.is_finite()) {
                reading(metric, value, &mut map)?;
            }
        }
        map.end()
    }
}

fn reading<M: SerializeMap>(metric: &Metric, value: f64, map: &mut M) -> Result<(), M::Error> {
    let unit = metric.display;
    if metric.whole() {
        let value = value as i64;
        map.serialize_entry(metric.tag, &Reading { value, unit })
    } else {
        let value = value * metric.factor();
        map.serialize_entry(metric.tag, &Reading { value, unit })
    }
}

impl Metrics<'_> {
    fn gaps<M: SerializeMap>(&self, metric: &Metric, map: &mut M) -> Result<(), M::Error> {
        let factor = metric.factor();
        let value: Vec<f64> = self.payload.gaps().map(|ns| ns as f64 * factor).collect();
        if value.is_empty() {
            return Ok(());
        }
        let unit = metric.display;
        map.serialize_entry(metric.tag, &Reading { value, unit })
    }
}
