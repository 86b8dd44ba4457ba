//! `profile_export_aiperf.json`: the summary, keys in the reference's order, maser's own keys beside them.

use super::ExportOptions;
use chrono::{DateTime, FixedOffset, Local};
use maser_engine::clock::SECOND;
use maser_engine::metric::{Kind, PERCENTILES};
use maser_engine::report::{Entry, ErrorGroup, Quantile, Report};
use serde_json::{Map, Value, json};
use std::io::{self, Write};

/// Version of the file's layout.
const SCHEMA_VERSION: &str = "1.4";
/// The release of the reference whose layout this is: consumers look for the key.
const AIPERF_VERSION: &str = "0.13.0";

/// Metrics that stand before the run's own keys, in this order; the others follow at the end.
const FIRST: [&str; 25] = [
    "request_throughput",
    "request_latency",
    "request_count",
    "time_to_first_token",
    "time_to_second_token",
    "inter_token_latency",
    "output_token_throughput",
    "output_token_throughput_per_user",
    "output_sequence_length",
    "input_sequence_length",
    "goodput",
    "good_request_count",
    "output_token_count",
    "reasoning_token_count",
    "min_request_timestamp",
    "max_response_timestamp",
    "inter_chunk_latency",
    "total_output_tokens",
    "total_reasoning_tokens",
    "benchmark_duration",
    "total_isl",
    "total_osl",
    "error_request_count",
    "error_isl",
    "total_error_isl",
];

/// What a summary is of: the whole run, or one phase.
pub(super) struct Part<'a> {
    pub(super) metrics: &'a [Entry],
    pub(super) warmup: &'a [Entry],
    pub(super) errors: &'a [ErrorGroup],
    pub(super) was_cancelled: bool,
    pub(super) incomplete_reason: Option<&'a str>,
    /// Start and end, nanoseconds since 1970 (UTC).
    pub(super) span: (u64, u64),
}

impl<'a> Part<'a> {
    fn whole(report: &'a Report) -> Self {
        Self {
            metrics: &report.metrics,
            warmup: &report.warmup,
            errors: &report.errors,
            was_cancelled: report.was_cancelled,
            incomplete_reason: report.incomplete_reason.as_deref(),
            span: (report.start_ns, report.end_ns),
        }
    }

    fn metric(&self, tag: &str) -> Option<&'a Entry> {
        self.metrics.iter().find(|e| e.metric.tag == tag)
    }
}

pub(super) fn write(report: &Report, options: &ExportOptions, out: &mut impl Write) -> io::Result<()> {
    let mut document = document(report, &Part::whole(report), options);
    if !report.acceptance.is_empty() {
        // Pooled over the whole run: the folder of a phase has none.
        document.insert("pooled_spec_decode_acceptance_histogram".into(), json!(report.acceptance));
    }
    document.insert("maser".into(), own(report));
    serde_json::to_writer_pretty(out, &document).map_err(io::Error::from)
}

/// The summary of one phase of the run, with what maser knows of it beyond the reference.
pub(super) fn write_part(
    report: &Report,
    part: &Part<'_>,
    own: Value,
    options: &ExportOptions,
    out: &mut impl Write,
) -> io::Result<()> {
    let mut document = document(report, part, options);
    document.insert("maser".into(), own);
    serde_json::to_writer_pretty(out, &document).map_err(io::Error::from)
}

fn document(report: &Report, part: &Part<'_>, options: &ExportOptions) -> Map<String, Value> {
    let header = &report.run.header;
    let mut top = Map::new();
    top.insert("schema_version".into(), SCHEMA_VERSION.into());
    top.insert("aiperf_version".into(), AIPERF_VERSION.into());
    top.insert("maser_version".into(), header.maser_version.clone().into());
    top.insert("benchmark_id".into(), header.benchmark_id.clone().into());
    for tag in FIRST {
        if let Some(entry) = part.metric(tag) {
            top.insert(tag.into(), metric(entry));
        }
    }
    top.insert("input_config".into(), header.input_config.clone());
    top.insert("run_info".into(), run_info(report));
    top.insert("was_cancelled".into(), part.was_cancelled.into());
    top.insert("is_complete".into(), part.incomplete_reason.is_none().into());
    if let Some(reason) = part.incomplete_reason {
        top.insert("incomplete_reason".into(), reason.into());
    }
    let errors: Vec<Value> = part.errors.iter().map(error).collect();
    top.insert("error_summary".into(), errors.into());
    let offset = options.utc_offset;
    top.insert("start_time".into(), stamp(part.span.0, offset).into());
    top.insert("end_time".into(), stamp(part.span.1, offset).into());
    if !part.warmup.is_empty() {
        let warmup: Map<_, _> = part.warmup.iter().map(|e| (e.metric.tag.to_owned(), metric(e))).collect();
        top.insert("warmup_metrics".into(), warmup.into());
    }
    for entry in part.metrics {
        if !FIRST.contains(&entry.metric.tag) {
            top.insert(entry.metric.tag.into(), metric(entry));
        }
    }
    top
}

/// Figures in the reference's order; those that do not exist are left out.
pub(super) fn metric(entry: &Entry) -> Value {
    let s = &entry.summary;
    let mut map = Map::new();
    map.insert("unit".into(), entry.metric.display.into());
    let mut put = |key: &str, value: Option<f64>| {
        if let Some(x) = value.filter(|x| x.is_finite()) {
            map.insert(key.to_owned(), x.into());
        }
    };
    put("avg", s.avg);
    for (p, value) in PERCENTILES.iter().zip(s.percentiles) {
        put(&format!("p{p}"), value);
    }
    put("min", s.min);
    put("max", s.max);
    put("std", s.std);
    let counted = entry.metric.kind() == Kind::Record || s.is_distribution();
    if let Some(count) = s.count.filter(|_| counted) {
        map.insert("count".into(), count.into());
    }
    if let Some(sum) = s.sum.filter(|x| x.is_finite()) {
        map.insert("sum".into(), sum.into());
    }
    map.into()
}

fn run_info(report: &Report) -> Value {
    let header = &report.run.header;
    let mut info = Map::new();
    info.insert("benchmark_id".into(), header.benchmark_id.clone().into());
    if let Some(seed) = header.random_seed {
        info.insert("random_seed".into(), seed.into());
    }
    info.insert("trial".into(), 0.into());
    info.insert("cli_command".into(), header.cli_command.clone().into());
    info.into()
}

pub(super) fn error(group: &ErrorGroup) -> Value {
    let mut details = Map::new();
    if let Some(code) = group.details.code {
        details.insert("code".into(), code.into());
    }
    details.insert("type".into(), group.details.kind.clone().into());
    details.insert("message".into(), group.details.message.clone().into());
    json!({"error_details": details, "count": group.count})
}

/// What became of a phase's arrivals, and how its sends were spread: `null` where nothing is known of it.
pub(super) fn accounts(report: &Report, phase: usize, name: &str) -> Value {
    json!({"phase": name, "ledger": report.ledger(phase), "arrivals": report.arrivals(phase)})
}

/// What maser knows beyond the reference: where it ran, what became of every credit, where token counts come from.
fn own(report: &Report) -> Value {
    let ledger = report.run.end.as_ref().map(|end| {
        json!({
            "issued": end.issued,
            "unused": end.unused,
            "records": end.records,
            "lost": end.lost,
            "payloads_lost": end.payloads_lost,
            "retried": end.retried,
            "connections": end.connections,
            "schedule_digest": format!("{:016x}", end.schedule_digest),
            "cpu_seconds": end.cpu_ns as f64 * 1e-9,
        })
    });
    let window = report.window.map(|(from, to)| json!({"from_seconds": seconds(from), "to_seconds": seconds(to)}));
    let quantiles: Map<String, Value> = report
        .metrics
        .iter()
        .filter(|e| !e.quantiles.is_empty())
        .map(|e| (e.metric.tag.to_owned(), e.quantiles.iter().map(|q| quantile(q, e.summary.count)).collect()))
        .collect();
    let phases: Vec<Value> = report.ledgers.iter().map(|(n, ledger)| accounts(report, *n, &ledger.phase)).collect();
    json!({
        "verdict": report.verdict,
        "phases": phases,
        "window": window,
        "censored": report.censored,
        "damage": report.run.damage,
        "notes": report.notes(),
        "odd_answers": report.odd,
        "quantiles": quantiles,
        "topology": report.run.header.topology,
        "ledger": ledger,
        "window_seconds": report.window_seconds,
        "token_source": report.token_source.name(),
        "decode_curves": if report.curves_follow_chunks { "chunks" } else { "even" },
    })
}

/// A percentile of `n` values with the number of independent ones that would say as much (null where the sample is too
/// short to tell), and the interval in which the true one lies with 95 % confidence, where there is one.
fn quantile(quantile: &Quantile, n: Option<u64>) -> Value {
    let effective = quantile.effective.map(|n| n as u64);
    let mut value = json!({"p": quantile.percent, "value": quantile.value, "n": n, "n_effective": effective});
    if let Some((low, high)) = quantile.interval {
        (value["low"], value["high"]) = (low.into(), high.into());
    }
    value
}

/// Nanoseconds as seconds; a window without an end has none.
fn seconds(ns: u64) -> Option<f64> {
    (ns != u64::MAX).then_some(ns as f64 / SECOND as f64)
}

/// ISO 8601 with microseconds and without an offset.
fn stamp(ns: u64, offset: Option<i32>) -> String {
    const FORMAT: &str = "%Y-%m-%dT%H:%M:%S%.6f";
    let micros = ns / 1000 + u64::from(ns % 1000 >= 500);
    let Some(utc) = DateTime::from_timestamp_micros(micros as i64) else {
        return String::new();
    };
    match offset.and_then(FixedOffset::east_opt) {
        Some(offset) => utc.with_timezone(&offset).format(FORMAT).to_string(),
        None => utc.with_timezone(&Local).format(FORMAT).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_rounded_to_microseconds_in_the_wanted_offset() {
        let ns = 1_795_487_048_791_245_878;
        assert_eq!(stamp(ns, Some(0)), "2026-11-24T02:24:08.791246");
        assert_eq!(stamp(ns, Some(3600)), "2026-11-24T03:24:08.791246");
    }
}
