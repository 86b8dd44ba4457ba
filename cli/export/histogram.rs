//! `profile_export.hlog`: the main latencies of the profiling phases as histograms over time, in the HdrHistogram log
//! format (V2, compressed), one interval a line, tagged with the metric.
//!
//! What reads such logs (HistogramLogAnalyzer, HistogramLogProcessor) merges intervals and runs, and draws them. Values are
//! nanoseconds; a histogram keeps them to three significant digits. The exact figures are in the other files.

use super::jsonl;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use maser_engine::clock::{Nanos, SECOND};
use maser_engine::log::Log;
use maser_engine::metric::{self, Metric};
use maser_engine::record::{Outcome, Record};
use maser_engine::report::Report;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

/// What is logged, in the order of the lines of an interval.
const LATENCIES: [&str; 3] = ["request_latency", "time_to_first_token", "inter_token_latency"];

/// Significant decimal digits of a histogram.
const DIGITS: u8 = 3;

/// Intervals at most: a longer run has longer ones, so that memory stays within some tens of megabytes.
const INTERVALS: u64 = 200;

/// Nanoseconds to the milliseconds of the readable column.
const DIVISOR: f64 = 1e6;

pub(super) fn write(report: &Report, log: &Log, out: &mut impl Write) -> io::Result<()> {
    let length = interval_length(report);
    let start = report.start_ns as f64 / SECOND as f64;
    let mut serializer = V2DeflateSerializer::new();
    let mut writer = IntervalLogWriterBuilder::new()
        .add_comment("[Histogram log format version 1.3]")
        .add_comment(&format!("[Logged by maser {}; values in nanoseconds]", log.header.maser_version))
        .add_comment(&format!("[StartTime: {start:.3} (seconds since epoch)]"))
        .add_comment(&format!("[BaseTime: {start:.3} (seconds since epoch)]"))
        .with_max_value_divisor(DIVISOR)
        .begin_log_with(out, &mut serializer)?;
    for ((interval, latency), histogram) in histograms(report, log, length)? {
        let start = Duration::from_nanos(interval * length);
        writer
            .write_histogram(&histogram, start, Duration::from_nanos(length), Tag::new(LATENCIES[latency]))
            .map_err(|e| io::Error::other(e.to_string()))?;
    }
    Ok(())
}

/// Whole seconds.
fn interval_length(report: &Report) -> Nanos {
    report.end_ns.saturating_sub(report.start_ns).div_ceil(INTERVALS).div_ceil(SECOND).max(1) * SECOND
}

type Histograms = BTreeMap<(u64, usize), Histogram<u32>>;

/// By interval and latency; a request counts in the interval in which it ended.
fn histograms(report: &Report, log: &Log, length: Nanos) -> io::Result<Histograms> {
    let metrics: Vec<(usize, &Metric)> =
        LATENCIES.iter().enumerate().filter_map(|(k, tag)| Some((k, metric::find(tag)?))).collect();
    let profiling = |record: &Record| log.header.phases.get(usize::from(record.phase)).is_none_or(|p| !p.warmup);
    let mut all = Histograms::new();
    for (at, (record, payload)) in log.records().enumerate() {
        if record.outcome() != Outcome::Ok || !profiling(&record) {
            continue;
        }
        let sample = report.sample(log, at, &record, &payload);
        let interval = log.header.anchor.wall_ns(record.done).saturating_sub(report.start_ns) / length;
        for (k, metric) in &metrics {
            let Some(value) = jsonl::value(report, metric, &sample).filter(|_| metric.applies(&report.applies()))
            else {
                continue;
            };
            let histogram = match all.entry((interval, *k)) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => {
                    entry.insert(Histogram::new(DIGITS).map_err(io::Error::other)?)
                }
            };
            histogram.record(value.round() as u64).map_err(io::Error::other)?;
        }
    }
    Ok(all)
}
