//! `profile_export_aiperf.json`: the summary, keys in the reference's order, maser's own keys beside them.

use super::ExportOptions;
use chrono::{DateTime, FixedOffset, Local};
use maser_engine::metric::{Kind, PERCENTILES};
use maser_engine::report::{Entry, ErrorGroup, Report};
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

pub(super) fn write(report: &Report, options: &ExportOptions, out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer_pretty(out, &document(report, options)).map_err(io::Error::from)
}

fn document(report: &Report, options: &ExportOptions) -> Map<String, Value> {
    let header = &report.run.header;
    let mut top = Map::new();
    top.insert("schema_version".into(), SCHEMA_VERSION.into());
    top.insert("aiperf_version".into(), AIPERF_VERSION.into());
    top.insert("maser_version".into(), header.maser_version.clone().into());
    top.insert("benchmark_id".into(), header.benchmark_id.clone().into());
    for tag in FIRST {
        if let Some(entry) = report.metric(tag) {
            top.insert(tag.into(), metric(entry));
        }
    }
    top.insert("input_config".into(), header.input_config.clone());
    top.insert("run_info".into(), run_info(report));
    top.insert("was_cancelled".into(), report.was_cancelled.into());
    top.insert("is_complete".into(), report.is_complete().into());
    if let Some(reason) = &report.incomplete_reason {
        top.insert("incomplete_reason".into(), reason.clone().into());
    }
    let errors: Vec<Value> = report.errors.iter().map(error).collect();
    top.insert("error_summary".into(), errors.into());
    let offset = options.utc_offset;
    top.insert("start_time".into(), stamp(report.start_ns, offset).into());
    top.insert("end_time".into(), stamp(report.end_ns, offset).into());
    if !report.warmup.is_empty() {
        let warmup: Map<_, _> = report.warmup.iter().map(|e| (e.metric.tag.to_owned(), metric(e))).collect();
        top.insert("warmup_metrics".into(), warmup.into());
    }
    for entry in &report.metrics {
        if !FIRST.contains(&entry.metric.tag) {
            top.insert(entry.metric.tag.into(), metric(entry));
        }
    }
    top.insert("maser".into(), own(report));
    top
}

/// Figures in the reference's order; those that do not exist are left out.
fn metric(entry: &Entry) -> Value {
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

fn error(group: &ErrorGroup) -> Value {
    let mut details = Map::new();
    if let Some(code) = group.details.code {
        details.insert("code".into(), code.into());
    }
    details.insert("type".into(), group.details.kind.clone().into());
    details.insert("message".into(), group.details.message.clone().into());
    json!({"error_details": details, "count": group.count})
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
    json!({
        "topology": report.run.header.topology,
        "ledger": ledger,
        "window_seconds": report.window_seconds,
        "token_source": report.token_source.name(),
        "decode_curves": if report.curves_follow_chunks { "chunks" } else { "even" },
    })
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
