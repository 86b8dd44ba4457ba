//! `--json`: a run in one small object, for scripts. `docs/summary.md` says what each key is.

use super::headline::{self, LATENCIES, P50, P99};
use super::{Written, verdict};
use maser_engine::report::Report;
use serde_json::{Map, Value, json};

/// Changes when a key changes its meaning or goes.
const SCHEMA: u32 = 1;

/// Place of the 90th percentile among the figures of a metric.
const P90: usize = 6;

/// The object. `results` are the files that were written, or why they could not be; `signal` is what stopped the run.
pub fn summary(report: &Report, results: &[Result<Written, String>], signal: Option<&str>) -> Value {
    let header = &report.run.header;
    let figure = |tag: &str| report.metric(tag).and_then(|entry| entry.summary.avg);
    let latency = |(tag, _): &(&str, &str)| {
        let figures = report.metric(tag)?.summary;
        let p = |place: usize| figures.percentiles[place];
        Some((
            (*tag).to_owned(),
            json!({"avg": figures.avg, "p50": p(P50), "p90": p(P90), "p99": p(P99), "max": figures.max}),
        ))
    };
    let files = results.iter().filter_map(|result| result.as_ref().ok());
    json!({
        "schema": SCHEMA,
        "maser_version": header.maser_version,
        "benchmark_id": header.benchmark_id,
        "asked": verdict::asked(&header.input_config),
        "complete": report.is_complete(),
        "stopped": headline::stopped(report, signal),
        "verdict": report.verdict,
        "requests": {
            "finished": report.valid + report.failed,
            "succeeded": report.valid,
            "failed": report.failures(),
            "cut": report.failed - report.failures(),
            "late": figure("late_request_count"),
            "queued": figure("queued_request_count"),
            "dropped": figure("dropped_request_count"),
        },
        "seconds": report.window_seconds,
        "requests_per_second": figure("request_throughput"),
        "output_tokens_per_second": figure("output_token_throughput"),
        "latency_ms": LATENCIES.iter().filter_map(latency).collect::<Map<_, _>>(),
        "slo": levels(report),
        "failures": report.errors.iter().map(super::json::error).collect::<Vec<_>>(),
        "notes": report.notes(),
        "files": files.map(|file| json!({"what": file.label, "path": file.path})).collect::<Vec<_>>(),
        "errors": results.iter().filter_map(|result| result.as_ref().err()).collect::<Vec<_>>(),
    })
}

/// The service levels; `null` where none were given.
fn levels(report: &Report) -> Option<Value> {
    if report.service_levels.is_empty() {
        return None;
    }
    let figure = |tag: &str| report.metric(tag).and_then(|entry| entry.summary.avg);
    let level = |(level, missed): (&maser_engine::report::ServiceLevel, &u64)| json!({"metric": level.metric.tag, "bound": level.threshold, "unit": level.metric.display, "missed": missed});
    let good = figure("good_request_count").unwrap_or(0.0);
    let all = (report.valid + report.failed).max(1);
    Some(json!({
        "levels": report.service_levels.iter().zip(&report.missed).map(level).collect::<Vec<_>>(),
        "good_requests": good,
        "good_percent": 100.0 * good / all as f64,
        "good_requests_per_second": figure("goodput"),
    }))
}
