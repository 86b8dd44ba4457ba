//! `profile_export.jsonl`: one line a request, warm-up and failures included.

use super::trace::Trace;
use maser_engine::log::Log;
use maser_engine::metric::{self, Applies, METRICS, Metric, Sample, Speculation, Value, flag};
use maser_engine::record::{Outcome, Payload, Record, UNKNOWN, correlation_id, request_id};
use maser_engine::report::{ErrorDetails, Report};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::Value as Json;
use std::io::{self, Write};

pub(super) fn write(report: &Report, log: &Log, out: &mut impl Write) -> io::Result<()> {
    let writer = Lines::new(report, log);
    for (at, (record, payload)) in log.records().enumerate() {
        let metadata = writer.metadata(&record);
        serde_json::to_writer(&mut *out, &writer.line(at, &record, &payload, &metadata))?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// One run's requests as the files of single requests show them.
pub(super) struct Lines<'a> {
    report: &'a Report,
    log: &'a Log,
    applies: Applies,
    /// Lines have `trace_data`.
    traces: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    metadata: &'a Metadata<'a>,
    metrics: Metrics<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_data: Option<Trace<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spec_decode_acceptance: Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Failure>,
}

#[derive(Serialize)]
pub(super) struct Metadata<'a> {
    pub(super) session_num: u64,
    pub(super) x_request_id: String,
    pub(super) x_correlation_id: String,
    pub(super) conversation_id: &'a str,
    pub(super) turn_index: u32,
    pub(super) credit_issued_ns: u64,
    pub(super) request_start_ns: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) request_ack_ns: Option<u64>,
    pub(super) request_end_ns: u64,
    pub(super) worker_id: String,
    record_processor_id: &'static str,
    pub(super) benchmark_phase: &'static str,
    pub(super) phase_index: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    profiling_index: Option<usize>,
    pub(super) phase_name: &'a str,
    phase_kind: &'static str,
    pub(super) was_cancelled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    cancellation_time_ns: Option<u64>,
    /// Sent a second time; absent where it was not. The reference has no such key.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    retried: bool,
    context_overflow_skip: bool,
    agent_depth: u32,
    root_correlation_id: String,
}

#[derive(Serialize)]
pub(super) struct Failure {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) code: Option<u16>,
    pub(super) r#type: String,
    pub(super) message: String,
}

impl<'a> Lines<'a> {
    pub(super) fn new(report: &'a Report, log: &'a Log) -> Self {
        let traces = log.header.input_config["artifacts"]["trace"] == true;
        Self { report, log, applies: report.applies(), traces }
    }

    /// Why the request failed, if it did.
    pub(super) fn failure(record: &Record, payload: &Payload<'_>) -> Option<Failure> {
        ErrorDetails::of(record, payload).map(|d| Failure { code: d.code, r#type: d.kind, message: d.message })
    }

    /// The metrics that files of single requests show.
    pub(super) fn shown(&self) -> impl Iterator<Item = &'static Metric> {
        let applies = self.applies;
        METRICS.iter().filter(move |m| {
            let single =
                matches!(m.value, Value::Valid(_) | Value::Failed(_) | Value::Every(_) | Value::Gaps | Value::Good);
            single && !m.has(flag::INTERNAL) && !m.has(flag::NO_RECORD) && m.applies(&applies)
        })
    }

    /// Those of these metrics that a request has, in display units.
    pub(super) fn figures(
        &self,
        at: usize,
        (record, payload): (&Record, &Payload<'_>),
        tags: &[&str],
    ) -> serde_json::Map<String, Json> {
        let sample = self.report.sample(self.log, at, record, payload);
        let figure = |tag: &&str| {
            let metric = metric::find(tag).filter(|m| m.applies(&self.applies))?;
            let value = value(self.report, metric, &sample)?;
            let value = if metric.whole() { Json::from(value as i64) } else { (value * metric.factor()).into() };
            Some(((*tag).to_owned(), value))
        };
        tags.iter().filter_map(figure).collect()
    }

    fn line(&'a self, at: usize, record: &'a Record, payload: &'a Payload<'a>, metadata: &'a Metadata<'a>) -> Line<'a> {
        let error = Self::failure(record, payload);
        Line {
            metadata,
            trace_data: self.traces.then(|| Trace::of(&self.log.header, record, payload, metadata)),
            metrics: Metrics { lines: self, sample: self.report.sample(self.log, at, record, payload), payload },
            spec_decode_acceptance: acceptance(record, payload),
            error,
        }
    }

    pub(super) fn metadata(&self, record: &Record) -> Metadata<'a> {
        let header = &self.log.header;
        let request = self.log.request(record.request);
        let phase = header.phases.get(usize::from(record.phase));
        let warmup = phase.is_some_and(|p| p.warmup);
        let kind = if warmup { "warmup" } else { "profiling" };
        let before = header.phases.iter().take(usize::from(record.phase));
        let wall = |at| header.anchor.wall_ns(at);
        // By the end of the run or on purpose.
        let was_cancelled = matches!(record.outcome(), Outcome::Cancelled | Outcome::Abandoned);
        let correlation = correlation_id(header.run_key, record.phase, record.session).to_string();
        Metadata {
            // In spite of its name the reference counts requests here; sessions are told by their correlation id.
            session_num: record.seq,
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
            was_cancelled,
            cancellation_time_ns: was_cancelled.then(|| wall(record.done)),
            retried: record.has(maser_engine::record::flag::RETRIED),
            context_overflow_skip: false,
            agent_depth: 0,
            root_correlation_id: correlation,
        }
    }
}

/// The server's account of a request's speculative decoding under its own names, with the histogram as a map of the numbers
/// that occurred.
fn acceptance(record: &Record, payload: &Payload<'_>) -> Option<Json> {
    let account = Speculation::read(payload.speculation)?;
    let mut object: serde_json::Map<String, Json> = serde_json::from_slice(payload.speculation).ok()?;
    let histogram = account.steps_by_accepted().map(|(n, steps)| (n.to_string(), steps.into()));
    object.insert("acceptance_histogram".to_owned(), Json::Object(histogram.collect()));
    object.insert("engine".to_owned(), "vllm".into());
    if record.usage_completion != UNKNOWN {
        object.insert("completion_tokens".to_owned(), record.usage_completion.into());
    }
    Some(Json::Object(object))
}

/// What one request has of a metric of single requests, in the metric's own unit: 1 or 0 for whether it is good. A failed
/// request has no latencies; its own lateness is known all the same.
pub(super) fn value(report: &Report, metric: &Metric, sample: &Sample<'_>) -> Option<f64> {
    let valid = sample.record.outcome() == Outcome::Ok;
    let value = match metric.value {
        Value::Valid(f) if valid => f(sample),
        Value::Failed(f) if !valid => f(sample),
        Value::Every(f) => f(sample),
        Value::Good if valid => Some(f64::from(u8::from(report.is_good(sample)))),
        _ => None,
    };
    value.filter(|x| x.is_finite())
}

/// The gaps between the content responses of a valid request, in display units.
pub(super) fn gaps(metric: &Metric, sample: &Sample<'_>, payload: &Payload<'_>) -> Vec<f64> {
    if sample.record.outcome() != Outcome::Ok {
        return Vec::new();
    }
    payload.gaps().map(|ns| ns as f64 * metric.factor()).collect()
}

/// The metrics of one request, in display units.
struct Metrics<'a> {
    lines: &'a Lines<'a>,
    sample: Sample<'a>,
    payload: &'a Payload<'a>,
}

#[derive(Serialize)]
struct Reading<V> {
    value: V,
    unit: &'static str,
}

impl Serialize for Metrics<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for metric in self.lines.shown() {
            if matches!(metric.value, Value::Gaps) {
                let value = gaps(metric, &self.sample, self.payload);
                if !value.is_empty() {
                    map.serialize_entry(metric.tag, &Reading { value, unit: metric.display })?;
                }
            } else if let Some(value) = value(self.lines.report, metric, &self.sample) {
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
