//! Reports of logs made by hand: what every row of the table is, parts of a run, censored requests, the check of a log.

use maser_engine::clock::{Anchor, Instant, MILLI, SECOND};
use maser_engine::log::{
    End, Header, Kind, Log, MAGIC, Media, PhaseInfo, PhaseMark, RequestInfo, put_block, put_json, put_record,
    put_request,
};
use maser_engine::metric::{METRICS, Value};
use maser_engine::record::{Outcome, Payload, Record, UNKNOWN, flag, part, put_leb128, put_part};
use maser_engine::report::{Options, Report, ServiceLevel, verify};
use maser_engine::said::{Counter, Said};
use proptest::prelude::*;

/// The records' axis: phases start here.
const ZERO: u64 = 1000 * SECOND;

fn at(ms: f64) -> Instant {
    Instant(ZERO + (ms * 1e6) as u64)
}

fn header() -> Header {
    Header {
        maser_version: "0".into(),
        benchmark_id: "0123456789ab".into(),
        run_key: 1,
        anchor: Anchor { mono: Instant(ZERO), wall: 1_700_000_000_000_000_000 },
        cli_command: "maser profile".into(),
        input_config: serde_json::json!({}),
        endpoint: "chat".into(),
        streaming: true,
        phases: vec![PhaseInfo { name: "profiling".into(), warmup: false }],
        use_server_token_count: true,
        export_level: "records".into(),
        topology: serde_json::json!({}),
        ..Header::default()
    }
}

/// A log as it is written.
struct Run {
    header: Header,
    media: Media,
    records: Vec<(Record, Vec<u8>)>,
    marks: Vec<PhaseMark>,
    end: Option<End>,
}

impl Run {
    /// One phase over `ms` milliseconds, every credit a record.
    fn new(records: Vec<(Record, Vec<u8>)>, ms: f64) -> Self {
        let issued = records.len() as u64;
        let mark = PhaseMark { start: at(0.0), sent_end: at(ms), end: at(ms), issued, ..PhaseMark::default() };
        let end = Some(End { issued, records: issued, ..End::default() });
        Self { header: header(), media: Media::NONE, records, marks: vec![mark], end }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        put_json(&mut out, Kind::Header, &self.header);
        let mut table = Vec::new();
        put_request(
            &mut table,
            &RequestInfo {
                conversation: "c",
                input_tokens: Some(16),
                max_tokens: Some(10),
                media: self.media,
                ..RequestInfo::default()
            },
        );
        put_block(&mut out, Kind::Requests, 1, &table);
        for part in self.records.chunks(7) {
            let mut body = Vec::new();
            for (record, payload) in part {
                put_record(&mut body, record, payload);
            }
            put_block(&mut out, Kind::Records, part.len() as u32, &body);
        }
        for mark in &self.marks {
            put_json(&mut out, Kind::Phase, mark);
        }
        if let Some(end) = &self.end {
            put_json(&mut out, Kind::End, end);
        }
        out
    }

    fn log(&self) -> Log {
        open(&self.bytes())
    }
}

fn open(bytes: &[u8]) -> Log {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    Log::open(file.path()).unwrap()
}

/// A successful stream: due, start, first token, last token and end, milliseconds.
fn stream(seq: u64, [due, start, first, last, done]: [f64; 5]) -> (Record, Vec<u8>) {
    let record = Record {
        seq,
        session: seq,
        due: at(due),
        start: at(start),
        sent: at(start),
        send_end: at(start),
        first_byte: at(first),
        first_body: at(first),
        first_token: at(first),
        first_output: at(first),
        last_token: at(last),
        done: at(done),
        chunks: 1,
        usage_prompt: 20,
        usage_completion: 11,
        usage_reasoning: UNKNOWN,
        usage_cached: UNKNOWN,
        usage_total: UNKNOWN,
        status: 200,
        flags: flag::SCHEDULED | flag::STREAMED,
        ..bytemuck::Zeroable::zeroed()
    };
    (record, Vec::new())
}

fn with_payload((mut record, _): (Record, Vec<u8>), parts: &[(u8, &[u8])]) -> (Record, Vec<u8>) {
    let mut payload = Vec::new();
    parts.iter().for_each(|(tag, bytes)| put_part(&mut payload, *tag, bytes));
    record.payload_len = payload.len() as u32;
    (record, payload)
}

fn gaps(ms: &[f64]) -> Vec<u8> {
    let mut bytes = Vec::new();
    ms.iter().for_each(|gap| put_leb128(&mut bytes, (gap * 1e6) as u64));
    bytes
}

/// Every stamp of it apart.
fn full() -> (Record, Vec<u8>) {
    let (record, _) = stream(0, [10.0, 12.0, 22.0, 42.0, 45.0]);
    let record = Record {
        sent: at(13.0),
        send_end: at(14.0),
        first_byte: at(20.0),
        first_body: at(21.0),
        second_token: at(26.0),
        first_output: at(24.0),
        blocked: MILLI / 5,
        connecting: 3 * MILLI / 10,
        bytes_sent: 2048,
        bytes_received: 1024,
        chunks: 6,
        reads: 3,
        usage_reasoning: 3,
        usage_cached: 5,
        usage_total: 31,
        flags: flag::SCHEDULED | flag::REUSED | flag::STREAMED,
        ..record
    };
    let gaps = gaps(&[4.0, 4.0, 4.0, 4.0, 4.0]);
    with_payload((record, Vec::new()), &[(part::TEXT, b"12345678"), (part::REASONING, b"123"), (part::GAPS, &gaps)])
}

fn build(log: &Log) -> Report {
    Report::build(log, &Options { threads: 2, ..Options::default() })
}

fn avg(report: &Report, tag: &str) -> Option<f64> {
    report.metric(tag).and_then(|e| e.summary.avg)
}

/// Tag and expected value, in display units.
fn check(report: &Report, expected: &[(&str, f64)]) {
    for (tag, value) in expected {
        let got = avg(report, tag).unwrap_or_else(|| panic!("{tag} is absent"));
        assert!((got - value).abs() <= 1e-9 * value.abs().max(1.0), "{tag}: {got}, by hand {value}");
    }
}

#[test]
fn one_request_by_hand() {
    let log = Run::new(vec![full()], 100.0).log();
    let report = Report::build(&log, &Options { hidden: true, ..Options::default() });
    let expected = [
        ("request_latency", 30.0),
        ("time_to_first_token", 10.0),
        ("time_to_second_token", 4.0),
        ("time_to_first_output_token", 12.0),
        ("inter_token_latency", 2.0),
        ("inter_chunk_latency", 4.0),
        ("decode_duration", 20.0),
        ("stream_setup_latency", 8.0),
        ("stream_prefill_latency", 2.0),
        ("output_sequence_length", 11.0),
        ("input_sequence_length", 20.0),
        ("output_token_count", 8.0),
        ("reasoning_token_count", 3.0),
        ("requested_osl", 10.0),
        ("osl_mismatch_diff_pct", 10.0),
        ("osl_mismatch_count", 1.0),
        ("thinking_efficiency", 0.375),
        ("overall_thinking_efficiency", 0.375),
        ("output_token_throughput_per_user", 500.0),
        ("e2e_output_token_throughput", 11.0 / 0.030),
        ("prefill_throughput_per_user", 2000.0),
        ("usage_prompt_tokens", 20.0),
        ("usage_prompt_cache_read_tokens", 5.0),
        ("usage_completion_tokens", 11.0),
        ("usage_reasoning_tokens", 3.0),
        ("usage_total_tokens", 31.0),
        ("overall_usage_prompt_cache_read_pct", 25.0),
        ("http_req_blocked", 0.2),
        ("http_req_dns_lookup", 0.0),
        ("http_req_connecting", 0.3),
        ("http_req_sending", 1.0),
        ("http_req_waiting", 7.0),
        ("http_req_receiving", 24.0),
        ("http_req_connection_reused", 1.0),
        ("http_req_data_sent", 2.0),
        ("http_req_data_received", 1.0),
        ("http_req_chunks_sent", 1.0),
        ("http_req_chunks_received", 3.0),
        ("http_req_connection_overhead", 0.5),
        ("http_req_duration", 32.0),
        ("http_req_total", 32.5),
        ("request_count", 1.0),
        ("completed_request_count", 1.0),
        ("request_error_rate", 0.0),
        ("benchmark_duration", 0.030),
        ("total_osl", 11.0),
        ("request_throughput", 10.0),
        ("output_token_throughput", 110.0),
        ("input_token_throughput", 200.0),
        ("total_token_throughput", 310.0),
        ("credit_drop_latency", 2.0),
        ("credit_to_start_latency", 2.0),
        ("effective_latency", 35.0),
        ("effective_concurrency", 0.33),
        ("send_slip", 2.7),
        ("client_delay", 2.7),
        ("response_time_to_first_token", 12.0),
        ("response_time", 35.0),
        ("tokens_per_event", 11.0 / 6.0),
        ("delivered_inter_token_latency", 4.0),
        ("amortised_inter_token_latency", 20.0 / (11.0 * 5.0 / 6.0)),
        ("late_request_count", 1.0),
        ("queued_request_count", 0.0),
        ("over_limit_request_count", 0.0),
        ("lost_record_count", 0.0),
        ("retried_request_count", 0.0),
        ("dropped_request_count", 0.0),
        ("cut_request_count", 0.0),
    ];
    check(&report, &expected);
    assert!(report.metric("usage_discrepancy_count").is_none(), "the server's counts are both sides");
    assert!(report.metric("error_request_count").is_none(), "absent, not 0, where nothing failed");
}

#[test]
fn the_rows_hidden_by_default_are_the_reference_s_own() {
    let log = Run::new(vec![full()], 100.0).log();
    let report = build(&log);
    for tag in ["requested_osl", "credit_drop_latency", "stream_setup_latency", "overall_thinking_efficiency"] {
        assert!(report.metric(tag).is_none(), "{tag}");
    }
}

#[test]
fn the_server_s_counts_are_compared_with_the_client_s() {
    let mut run = Run::new(vec![full()], 100.0);
    run.header.use_server_token_count = false;
    let log = run.log();
    let count = |text: &str| text.len() as u32;
    let report = Report::build(&log, &Options { count_tokens: Some(&count), threads: 1, ..Options::default() });
    let expected = [
        ("input_sequence_length", 16.0),
        ("output_sequence_length", 11.0),
        ("usage_prompt_tokens_diff_pct", 25.0),
        ("usage_completion_tokens_diff_pct", 0.0),
        ("usage_reasoning_tokens_diff_pct", 0.0),
        ("usage_discrepancy_count", 1.0),
    ];
    check(&report, &expected);
}

fn failed(seq: u64, outcome: Outcome, status: u16, message: &str) -> (Record, Vec<u8>) {
    let (record, _) = stream(seq, [0.0, 0.0, 0.0, 0.0, 50.0]);
    let unset = Instant::UNSET;
    let record = Record {
        first_token: unset,
        first_output: unset,
        last_token: unset,
        chunks: 0,
        outcome: outcome as u8,
        status,
        ..record
    };
    with_payload((record, Vec::new()), &[(part::ERROR, message.as_bytes())])
}

#[test]
fn failures_are_misses_and_infinite_and_the_cut_ones_are_said() {
    let records = vec![
        stream(0, [0.0, 0.0, 1.0, 10.0, 10.0]),
        stream(1, [0.0, 0.0, 1.0, 20.0, 20.0]),
        failed(2, Outcome::HttpStatus, 400, "maximum context length is 4096 tokens"),
        failed(3, Outcome::Cancelled, 0, "the run ended"),
    ];
    let log = Run::new(records, 100.0).log();
    let slos = vec![ServiceLevel::new("request_latency", 15.0).unwrap()];
    let report = Report::build(&log, &Options { slos: Some(slos), ..Options::default() });
    let expected = [
        ("good_request_count", 1.0),
        ("good_request_fraction", 0.25),
        ("goodput", 10.0),
        ("error_request_count", 2.0),
        ("request_error_rate", 50.0),
        ("context_overflow_count", 1.0),
        ("cut_request_count", 1.0),
        ("error_isl", 20.0),
    ];
    check(&report, &expected);
    let adjusted = &report.metric("adj_request_latency").unwrap().summary;
    // Ranks 1.5 to 2 and 3·0.25 to 1: the third of four values is infinite.
    assert_eq!((adjusted.percentiles[3], adjusted.percentiles[4]), (Some(20.0), None));
    assert_eq!((report.censored, report.failed), (1, 2));
    assert!(report.notes()[0].starts_with("Cut in flight at the end of the run: 1."), "{:?}", report.notes());
    let (good, _) = stream(0, [0.0, 0.0, 1.0, 10.0, 10.0]);
    assert!(report.is_good(&report.sample(&log, 0, &good, &Payload::default())));
}

/// Ten requests, one a second, each of a second and a half.
fn steady() -> Run {
    let second = |k: u64| stream(k, [0.0, 0.0, 500.0, 1500.0, 1500.0].map(|ms| ms + 1000.0 * k as f64));
    Run::new((0..10).map(second).collect(), 10_500.0)
}

#[test]
fn a_window_has_the_requests_that_start_in_it_and_the_curves_of_all_that_reach_into_it() {
    let log = steady().log();
    let window = Some((2 * SECOND, 5 * SECOND));
    let report = Report::build(&log, &Options { window, ..Options::default() });
    check(&report, &[("request_count", 3.0), ("request_throughput", 1.0), ("effective_concurrency", 1.5)]);
    assert_eq!(report.window_seconds, 3.0);
    assert_eq!(report.start_ns, 1_700_000_002_000_000_000);
    assert_eq!(report.metric("effective_concurrency").unwrap().summary.min, Some(1.0));
    assert!(report.metric("lost_record_count").is_none(), "a loss cannot be told to lie in a window");
    let first = report.slices(&log, SECOND, &Options::default()).next().unwrap();
    let concurrency = first.metrics.iter().find(|e| e.metric.tag == "effective_concurrency").unwrap();
    assert_eq!((first.valid, concurrency.summary.avg), (1, Some(1.5)), "a request from before the window reaches in");
    let beyond = Some((20 * SECOND, 30 * SECOND));
    let report = Report::build(&log, &Options { window: beyond, ..Options::default() });
    assert!(report.is_empty() && report.metrics.is_empty());
}

#[test]
fn slices_stand_on_a_grid_from_the_first_start() {
    let log = steady().log();
    let report = build(&log);
    let slices: Vec<_> = report.slices(&log, 4 * SECOND, &Options::default()).collect();
    let shape: Vec<_> =
        slices.iter().map(|s| (s.index, s.valid, s.is_complete, (s.end_ns - s.start_ns) / MILLI)).collect();
    assert_eq!(shape, [(0, 4, true, 4000), (1, 4, true, 4000), (2, 2, false, 2500)]);
    let figure = |k: usize, tag: &str| {
        let slice: &maser_engine::report::Slice = &slices[k];
        slice.metrics.iter().find(|e| e.metric.tag == tag).and_then(|e| e.summary.avg)
    };
    assert_eq!(figure(1, "request_throughput"), Some(1.0));
    assert_eq!(figure(2, "request_throughput"), Some(0.8));
    // One request reaches in: 1.5 all along.
    assert_eq!(figure(1, "effective_concurrency"), Some(1.5));
    assert_eq!(figure(1, "replay_sched_lag_p50"), None);
    assert_eq!(slices[1].start_ns, 1_700_000_004_000_000_000);
    let fine: Vec<_> = report.slices(&log, SECOND / 2, &Options::default()).map(|s| s.index).collect();
    assert_eq!(fine, [0, 2, 4, 6, 8, 10, 12, 14, 16, 18], "empty slices are left out");
}

#[test]
fn decode_curves_of_slices_follow_the_gaps() {
    // Three tokens after the first: one in the first second, two in the next, one gap across the border.
    let streamed = stream(0, [0.0, 0.0, 500.0, 2000.0, 2000.0]);
    let record = Record { chunks: 4, usage_completion: 4, ..streamed.0 };
    let gaps = gaps(&[500.0, 500.0, 500.0]);
    let later = stream(1, [1000.0, 1000.0, 1900.0, 1900.0, 2000.0]);
    let log = Run::new(vec![with_payload((record, Vec::new()), &[(part::GAPS, &gaps)]), later], 2000.0).log();
    let report = build(&log);
    assert!(report.curves_follow_chunks);
    let rate = |slice: maser_engine::report::Slice| {
        slice.metrics.iter().find(|e| e.metric.tag == "effective_decode_throughput").and_then(|e| e.summary.avg)
    };
    let slices: Vec<_> = report.slices(&log, SECOND, &Options::default()).map(rate).collect();
    // The second request's ten tokens come in its last 100 ms.
    assert!((slices[0].unwrap() - 1.0).abs() < 1e-9, "{slices:?}");
    assert!((slices[1].unwrap() - 12.0).abs() < 1e-9, "{slices:?}");
}

#[test]
fn phases_are_reported_one_by_one() {
    let mut run = steady();
    run.header.phases =
        vec![PhaseInfo { name: "warmup".into(), warmup: true }, PhaseInfo { name: "profiling".into(), warmup: false }];
    for (record, _) in &mut run.records[4..] {
        record.phase = 1;
        record.seq -= 4;
    }
    let mark = |phase, from: f64, to: f64, issued| PhaseMark {
        phase,
        start: at(from),
        sent_end: at(to),
        end: at(to),
        issued,
        ..PhaseMark::default()
    };
    run.marks = vec![mark(0, 0.0, 4500.0, 4), mark(1, 4500.0, 10_500.0, 6)];
    let log = run.log();
    assert_eq!(verify(&log).findings, [""; 0]);
    let report = build(&log);
    let phases = report.phases(&log, &Options::default());
    let shape: Vec<_> =
        phases.iter().map(|p| (p.name.as_str(), p.warmup, p.valid, p.start_ns / MILLI % 100_000)).collect();
    assert_eq!(shape, [("warmup", true, 4, 0), ("profiling", false, 6, 4500)]);
    let of = |entries: &[maser_engine::report::Entry]| -> Vec<_> {
        entries.iter().map(|e| (e.metric.tag, e.summary)).collect()
    };
    assert!(of(&phases[1].metrics) == of(&report.metrics), "the only profiling phase is all of the profiling");
    let throughput =
        |k: usize| phases[k].metrics.iter().find(|e| e.metric.tag == "request_throughput").unwrap().summary;
    assert_eq!((throughput(0).avg, throughput(1).avg), (Some(4.0 / 4.5), Some(1.0)));
}

#[test]
fn percentiles_are_those_asked_for_with_intervals_of_the_sample() {
    // One start a microsecond, latencies scattered over them.
    let scattered =
        (0..200).map(|k| stream(k, [0.0, k as f64 * 1e-3, 1.0, 1.0 + (k * 77 % 200) as f64 + k as f64 * 1e-3, 300.0]));
    let log = Run::new(scattered.collect(), 300.0).log();
    let options = Options { percentiles: vec![50.0, 97.5, 99.9], ..Options::default() };
    let report = Report::build(&log, &options);
    let entry = report.metric("request_latency").unwrap();
    let percents: Vec<f64> = entry.quantiles.iter().map(|q| q.percent).collect();
    assert_eq!(percents, [50.0, 97.5], "200 values do not support p99.9");
    let median = entry.quantile(50.0).unwrap();
    assert!((median.value - 100.5).abs() < 1e-9);
    // The 86th to the 115th value.
    assert_eq!(median.interval.map(|(a, b)| (a.round(), b.round())), Some((86.0, 115.0)));
    assert_eq!(median.effective, Some(200.0));
    assert!(entry.quantile(99.9).is_none());
    // The same latencies, but each request a little slower than the one before it.
    let rising = (0..200).map(|k| stream(k, [0.0, k as f64 * 1e-3, 1.0, 1.0 + k as f64 * 1.001, 300.0]));
    let report = Report::build(&Run::new(rising.collect(), 300.0).log(), &options);
    let median = report.metric("request_latency").unwrap().quantile(50.0).unwrap();
    assert!((median.value - 100.5).abs() < 0.2 && median.interval.is_none(), "{median:?}");
}

fn findings(run: &Run) -> Vec<String> {
    verify(&run.log()).findings
}

#[test]
fn a_sound_log_has_no_findings() {
    let mut run = steady();
    run.records.push(full());
    run.records[10].0.seq = 10;
    run.marks[0].issued = 13;
    run.marks[0].unused = 2;
    run.end = Some(End { issued: 13, unused: 2, records: 11, ..End::default() });
    assert_eq!(findings(&run), [""; 0]);
    assert!(verify(&run.log()).is_sound());
}

type Damage = fn(&mut Run);

#[test]
fn every_fault_is_found_and_named() {
    let faults: &[(Damage, &str)] = &[
        (
            |r| r.records[3].0.sent = at(0.0),
            "1 record has times out of order; the first is request 3 of profiling: sent before start.",
        ),
        (|r| r.records[3].0.first_token = at(90_000.0), "last token before first token"),
        (|r| r.records[3].0.due = Instant::UNSET, "1 record lacks a due time, a start or an end"),
        (
            |r| r.records[3].0.outcome = 77,
            "1 record has an outcome that this version does not know; the first is request 3 of profiling: number 77.",
        ),
        (
            |r| r.records[3].0.phase = 9,
            "a phase that the plan does not have; the first is request 3 of an unknown phase: index 9.",
        ),
        (|r| r.records[3].0.request = 9, "1 record refers to a request that the table does not have"),
        (|r| r.records[3].0.seq = 12, "1 record has a number beyond the credits issued in its phase"),
        (
            |r| r.records[3].0.seq = 4,
            "1 record has a number that another record of its phase has; the first is request 4",
        ),
        (|r| r.records[3].0.reserved = 1, "1 record carries fields or flags that this version does not know"),
        (
            |r| r.records[3] = with_payload(r.records[3].clone(), &[(part::GAPS, &gaps(&[1.0]))]),
            "another number of gaps than it has responses with content; the first is request 3 of profiling: 1 gaps, 1 responses.",
        ),
        (
            |r| {
                r.records[3].1 = vec![1, 200];
                r.records[3].0.payload_len = 2;
            },
            "1 record has a payload that cannot be read to its end",
        ),
        (
            |r| drop(r.records.pop()),
            "10 credits were issued, but 9 records, 0 unused credits and 0 lost records make 9.",
        ),
        (|r| drop(r.records.pop()), "The end of the log counts 10 records, the log holds 9."),
        (|r| r.end = None, "The log has no end: the run was killed after "),
        (
            |r| r.records[3].0.flags |= flag::RETRIED,
            "The end of the log counts 0 requests sent twice, the records show 1.",
        ),
        (
            |r| {
                r.marks[0].issued = 8;
                r.records[9].0.seq = 0;
            },
            "Phase profiling issued 8 credits and has 10 records and 0 unused ones.",
        ),
    ];
    for (damage, sentence) in faults {
        let mut run = steady();
        damage(&mut run);
        let found = findings(&run);
        assert!(found.iter().any(|f| f.contains(sentence)), "{sentence} is not in {found:?}");
    }
}

#[test]
fn a_lost_record_is_in_the_balance() {
    let mut run = steady();
    run.records.remove(5);
    run.end = Some(End { issued: 10, records: 9, lost: 1, ..End::default() });
    assert_eq!(findings(&run), [""; 0]);
    check(&build(&run.log()), &[("lost_record_count", 1.0)]);
}

#[test]
fn a_broken_checksum_is_found() {
    let mut bytes = steady().bytes();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let found = verify(&open(&bytes)).findings;
    assert!(found[0].contains("not a whole block"), "{found:?}");
}

fn records() -> impl Strategy<Value = Vec<(Record, Vec<u8>)>> {
    let one = (0..5000u32, 0..20u32, 1..300u32, 0..400u32, 0..9u32);
    prop::collection::vec(one, 1..60).prop_map(|all| {
        let record = |(seq, (due, slip, wait, decode, outcome)): (usize, (u32, u32, u32, u32, u32))| {
            let start = due + slip;
            let times = [due, start, start + wait, start + wait + decode, start + wait + decode].map(f64::from);
            if outcome == 0 { failed(seq as u64, Outcome::Reset, 0, "reset") } else { stream(seq as u64, times) }
        };
        all.into_iter().enumerate().map(record).collect()
    })
}

/// Tag, count, maximum and percentiles.
type Known = (&'static str, Option<u64>, Option<f64>, [Option<f64>; 9]);

/// Everything that does not depend on what else is in flight.
fn of_requests(report: &Report) -> Vec<Known> {
    let curve = |v: &Value| matches!(v, Value::Effective(_) | Value::Active(_) | Value::Run(_));
    let entries = report.metrics.iter().filter(|e| !curve(&e.metric.value));
    entries.map(|e| (e.metric.tag, e.summary.count, e.summary.max, e.summary.percentiles)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn the_order_in_which_shards_were_collected_does_not_show(records in records(), by in any::<u64>()) {
        let log = |records| {
            let mut run = Run::new(records, 6000.0);
            run.header.input_config = serde_json::json!({"phases": [{"type": "poisson", "rate": 10.0}]});
            run.log()
        };
        let whole = log(records.clone());
        let mut shuffled = records;
        shuffled.sort_by_key(|(r, _)| (r.seq + 1).wrapping_mul(by | 1));
        let shuffled = log(shuffled);
        // Nor does the number of threads.
        let (a, b) = (build(&whole), Report::build(&shuffled, &Options { threads: 2, ..Options::default() }));
        prop_assert_eq!(of_requests(&a), of_requests(&b));
        prop_assert_eq!(&a.ledgers, &b.ledgers);
        prop_assert_eq!(&a.arrivals, &b.arrivals);
        prop_assert_eq!((a.arrivals.len(), a.ledgers.len()), (usize::from(whole.len() >= 20), 1));
        for (a, b) in a.metrics.iter().zip(&b.metrics) {
            let (x, y) = (a.summary.avg.unwrap_or(0.0), b.summary.avg.unwrap_or(0.0));
            prop_assert!((x - y).abs() <= 1e-9 * x.abs().max(1e-9), "{}: {} {}", a.metric.tag, x, y);
        }
    }

    #[test]
    fn a_window_reports_what_a_log_of_its_requests_would(records in records(), from in 0..5000u64, len in 1..3000u64) {
        let log = Run::new(records.clone(), 6000.0).log();
        let window = (from * MILLI, (from + len) * MILLI);
        let report = Report::build(&log, &Options { window: Some(window), ..Options::default() });
        let inside = |r: &Record| (window.0..window.1).contains(&r.start.since(Instant(ZERO)));
        let part: Vec<_> = records.into_iter().filter(|(r, _)| inside(r)).collect();
        let alone = build(&Run::new(part, 6000.0).log());
        prop_assert_eq!(of_requests(&report), of_requests(&alone));
        prop_assert_eq!(report.valid, alone.valid);
    }

    #[test]
    fn slices_share_the_requests_out(records in records(), duration in 1..4000u64) {
        let log = Run::new(records, 6000.0).log();
        let report = build(&log);
        let slices: Vec<_> = report.slices(&log, duration * MILLI, &Options::default()).collect();
        prop_assert_eq!(slices.iter().map(|s| s.valid).sum::<u64>(), report.valid);
        prop_assert_eq!(slices.iter().map(|s| s.failed).sum::<u64>(), report.failed);
        let area = |entries: &[maser_engine::report::Entry], seconds: f64| {
            let entry = entries.iter().find(|e| e.metric.tag == "effective_concurrency");
            entry.and_then(|e| e.summary.avg).unwrap_or(0.0) * seconds
        };
        let dense = slices.iter().enumerate().all(|(k, s)| s.index == k as u64);
        let parts: f64 = slices.iter().map(|s| area(&s.metrics, (s.end_ns - s.start_ns) as f64 * 1e-9)).sum();
        let whole = area(&report.metrics, report.window_seconds);
        // Slices without a start are left out, with what reaches through them.
        let covers = dense && slices.last().is_some_and(|s| !s.is_complete);
        prop_assert!(!covers || (parts - whole).abs() <= 1e-6 * whole.max(1.0), "{} {}", parts, whole);
        prop_assert!(parts <= whole * (1.0 + 1e-9) + 1e-9);
    }

    #[test]
    fn a_made_run_is_sound(records in records()) {
        let verification = verify(&Run::new(records, 6000.0).log());
        prop_assert!(verification.is_sound(), "{:?}", verification.findings);
    }
}

#[test]
fn every_row_of_the_table_has_a_value_somewhere_in_these_tests() {
    let (mut record, _) = full();
    record.units = 4;
    let parts = [(part::TEXT, &b"12345678"[..]), (part::REASONING, b"123"), (part::GAPS, &gaps(&[4.0; 5]))];
    let counted =
        [(part::TOKENS, &[6, 1, 1, 1, 1, 1][..]), (part::SPECULATION, SPECULATION), (part::SAID, &said(&ALL_SAID))];
    let whole = with_payload((record, Vec::new()), &[&parts[..], &counted[..]].concat());
    let mut run = Run::new(vec![whole, failed(1, Outcome::Reset, 0, "reset")], 100.0);
    run.header.fixed_schedule = true;
    run.header.use_server_token_count = false;
    run.media = MEDIA;
    let count = |text: &str| text.len() as u32;
    let options = Options {
        count_tokens: Some(&count),
        slos: Some(vec![ServiceLevel::new("request_latency", 100.0).unwrap()]),
        hidden: true,
        ..Options::default()
    };
    let mut absent = |endpoint: &str| {
        run.header.endpoint = endpoint.into();
        let report = Report::build(&run.log(), &options);
        METRICS.iter().filter(|m| report.metric(m.tag).is_none()).map(|m| m.tag).collect::<Vec<_>>()
    };
    // No endpoint has all: what makes videos takes neither images nor sound.
    assert_eq!(absent("chat"), VIDEO);
    assert!(absent("video_generation").iter().all(|tag| !VIDEO.contains(tag)));
}

const VIDEO: [&str; 2] = ["video_inference_time", "video_peak_memory"];

const MEDIA: Media = Media { images: 2, audio_seconds: Some(3.0) };

#[test]
fn images_and_sound_by_hand() {
    let ok = |seq: u64, last: f64| stream(seq, [0.0, 0.0, 1.0, last, last]);
    let mut run = Run::new(vec![ok(0, 10.0), ok(1, 40.0), failed(2, Outcome::Reset, 0, "reset")], 100.0);
    run.media = MEDIA;
    let report = build(&run.log());
    let expected = [
        ("num_images", 2.0),
        ("image_throughput", (200.0 + 50.0) / 2.0),
        ("image_latency", (5.0 + 20.0) / 2.0),
        ("audio_duration", 3.0),
        ("rtfx", (300.0 + 75.0) / 2.0),
    ];
    check(&report, &expected);
    let counts = expected.map(|(tag, _)| report.metric(tag).unwrap().summary.count);
    assert_eq!(counts, [Some(2); 5], "failed requests are no part of it");
    run.media = Media::NONE;
    let without = build(&run.log());
    assert_eq!(expected.map(|(tag, _)| avg(&without, tag)), [None; 5]);
}

#[test]
fn what_an_endpoint_cannot_have_is_absent_whatever_the_records_say() {
    let (mut record, _) = full();
    record.units = 1;
    let parts = [(part::TEXT, &b"1234"[..]), (part::GAPS, &gaps(&[4.0; 5])), (part::SAID, &said(&ALL_SAID))];
    let mut run = Run::new(vec![with_payload((record, Vec::new()), &parts)], 100.0);
    run.media = MEDIA;
    let images = ["num_images", "image_throughput", "image_latency"];
    let sound = ["audio_duration", "rtfx", "usage_prompt_audio_tokens", "total_usage_prompt_audio_seconds"];
    let spoken = ["usage_completion_audio_tokens", "total_usage_completion_audio_tokens"];
    let tokens =
        ["output_sequence_length", "usage_completion_tokens", "total_usage_total_tokens", "time_to_first_token"];
    let input = ["input_sequence_length", "usage_prompt_tokens", "total_usage_prompt_tokens", "total_isl"];
    // As the reference's endpoints register: images, audio in, audio out, tokens out, tokens in, videos.
    for (endpoint, has) in [
        ("chat", [true, true, true, true, true, false]),
        ("raw", [true, true, true, true, true, false]),
        ("template", [true, true, true, true, true, false]),
        ("responses", [true, true, true, true, true, false]),
        ("messages", [true, false, false, true, true, false]),
        ("completions", [false, false, false, true, true, false]),
        ("huggingface_generate", [false, false, false, true, true, false]),
        ("solido_rag", [false, false, false, true, true, false]),
        ("embeddings", [false, false, false, false, true, false]),
        ("chat_embeddings", [true, false, false, false, true, false]),
        ("nim_embeddings", [true, false, false, false, true, false]),
        ("nim_rankings", [false, false, false, false, true, false]),
        ("cohere_rankings", [false, false, false, false, true, false]),
        ("hf_tei_rankings", [false, false, false, false, true, false]),
        ("image_generation", [false, false, false, false, true, false]),
        ("image_edit", [true, false, false, false, true, false]),
        ("image_retrieval", [true, false, false, false, false, false]),
        ("audio_transcription", [false, true, false, false, false, false]),
        ("video_generation", [false, false, false, false, true, true]),
    ] {
        run.header.endpoint = endpoint.into();
        let report = build(&run.log());
        let groups: [&[&str]; 6] = [&images, &sound, &spoken, &tokens, &input, &VIDEO];
        for (tags, has) in groups.into_iter().zip(has) {
            for tag in tags {
                assert_eq!(avg(&report, tag).is_some(), has, "{endpoint}: {tag}");
            }
        }
    }
}

const SPECULATION: &[u8] = br#"{"num_spec_steps": 10, "num_accepted_draft_tokens": 12, "num_draft_tokens": 30,
    "acceptance_histogram": [4, 2, 2, 2]}"#;

const ALL_SAID: [(Counter, f64); 10] = [
    (Counter::CacheWrite, 10.0),
    (Counter::CacheMiss, 20.0),
    (Counter::PromptAudio, 30.0),
    (Counter::ToolUsePrompt, 40.0),
    (Counter::PromptAudioSeconds, 2.5),
    (Counter::CompletionAudio, 50.0),
    (Counter::AcceptedPrediction, 60.0),
    (Counter::RejectedPrediction, 70.0),
    (Counter::VideoSeconds, 1.5),
    (Counter::VideoMemory, 2048.25),
];

fn said(counters: &[(Counter, f64)]) -> Vec<u8> {
    let mut said = Said::default();
    counters.iter().for_each(|(counter, value)| said.set(*counter, *value));
    let mut bytes = Vec::new();
    said.put(&mut bytes);
    bytes
}

#[test]
fn counters_that_few_servers_name_by_hand() {
    let of = |seq: u64, counters: &[(Counter, f64)]| {
        with_payload(stream(seq, [0.0, 0.0, 1.0, 10.0, 10.0]), &[(part::SAID, &said(counters))])
    };
    let report =
        build(&Run::new(vec![of(0, &ALL_SAID), of(1, &[(Counter::CacheWrite, 0.0)]), of(2, &[])], 100.0).log());
    check(
        &report,
        &[
            ("usage_prompt_cache_write_tokens", 5.0),
            ("total_usage_prompt_cache_write_tokens", 10.0),
            ("usage_prompt_cache_miss_tokens", 20.0),
            ("usage_prompt_audio_tokens", 30.0),
            ("usage_tool_use_prompt_tokens", 40.0),
            ("total_usage_prompt_audio_seconds", 2.5),
            ("usage_completion_audio_tokens", 50.0),
            ("total_usage_accepted_prediction_tokens", 60.0),
            ("usage_rejected_prediction_tokens", 70.0),
        ],
    );
    let mut video = Run::new(vec![of(0, &ALL_SAID)], 100.0);
    video.header.endpoint = "video_generation".into();
    check(&build(&video.log()), &[("video_inference_time", 1500.0), ("video_peak_memory", 2048.25)]);
    assert_eq!(report.metric("usage_prompt_cache_write_tokens").unwrap().summary.count, Some(2));
    assert_eq!(report.metric("usage_prompt_cache_miss_tokens").unwrap().summary.count, Some(1));
}

#[test]
fn what_the_server_counts_event_by_event_is_exact() {
    let counted = with_payload(full(), &[(part::GAPS, &gaps(&[4.0; 5])), (part::TOKENS, &[6, 1, 1, 1, 1, 1])]);
    let mut run = Run::new(vec![counted], 100.0);
    // 11 tokens in 6 events; 5 of them in the 20 ms after the first, which brought 6.
    check(
        &build(&run.log()),
        &[
            ("tokens_per_event", 11.0 / 6.0),
            ("first_event_tokens", 6.0),
            ("amortised_inter_token_latency", 4.0),
            ("inter_token_latency", 2.0),
        ],
    );
    // As the reference: only where the run asked for the counts do they show in the inter token latency.
    run.header.input_config = serde_json::json!({"endpoint": {"per_chunk_usage": true}});
    check(&build(&run.log()), &[("inter_token_latency", 4.0), ("output_token_throughput_per_user", 250.0)]);
    // All of it in the first event, or nothing: as if it had been one token.
    for first in [11, 0] {
        run.records = vec![with_payload(full(), &[(part::GAPS, &gaps(&[4.0; 5])), (part::TOKENS, &[first, 0])])];
        check(&build(&run.log()), &[("inter_token_latency", 2.0)]);
    }
}

#[test]
fn counts_that_are_zero_or_missing_are_the_reference_s() {
    // All of the answer is reasoning: it has a length and no visible tokens.
    let (record, payload) = stream(0, [0.0, 0.0, 1.0, 10.0, 10.0]);
    let all_reasoning = Record { usage_reasoning: 11, usage_completion: 11, ..record };
    let report = build(&Run::new(vec![(all_reasoning, payload.clone())], 100.0).log());
    check(&report, &[("output_sequence_length", 11.0), ("reasoning_token_count", 11.0)]);
    assert_eq!((avg(&report, "output_token_count"), avg(&report, "total_output_tokens")), (None, None));
    // Client and server are compared where both counted input and output.
    let count = |text: &str| text.len() as u32;
    let compared = |usage_completion: u32| {
        let record = Record { usage_completion, ..record };
        let mut run = Run::new(vec![with_payload((record, Vec::new()), &[(part::TEXT, b"12345678901")])], 100.0);
        run.header.use_server_token_count = false;
        let report = Report::build(&run.log(), &Options { count_tokens: Some(&count), ..Options::default() });
        (avg(&report, "usage_prompt_tokens_diff_pct"), avg(&report, "usage_discrepancy_count"))
    };
    assert_eq!(compared(11), (Some(25.0), Some(1.0)));
    assert_eq!(compared(UNKNOWN), (Some(25.0), None));
}

#[test]
fn speculative_decoding_by_hand() {
    let other = br#"{"num_spec_steps": 2, "num_accepted_draft_tokens": 6, "num_draft_tokens": 6,
        "acceptance_histogram": [0, 0, 0, 2]}"#;
    let one = with_payload(stream(0, [0.0, 0.0, 1.0, 10.0, 10.0]), &[(part::SPECULATION, SPECULATION)]);
    let two = with_payload(stream(1, [0.0, 0.0, 1.0, 10.0, 10.0]), &[(part::SPECULATION, other)]);
    let broken = with_payload(stream(2, [0.0, 0.0, 1.0, 10.0, 10.0]), &[(part::SPECULATION, b"{\"num_spec")]);
    let report = build(&Run::new(vec![one, two, broken], 100.0).log());
    check(
        &report,
        &[
            ("spec_decode_acceptance_length", (2.2 + 4.0) / 2.0),
            ("spec_decode_draft_acceptance_rate", 70.0),
            ("spec_decode_accepted_per_verified", (22.0 / 40.0 + 1.0) / 2.0),
            ("total_spec_decode_steps", 12.0),
            ("total_accepted_draft_tokens", 18.0),
            ("total_draft_tokens", 36.0),
            ("spec_decode_token_weighted_acceptance_length", 2.5),
            ("spec_decode_overall_draft_acceptance_rate", 50.0),
        ],
    );
    assert_eq!(report.metric("spec_decode_steps").unwrap().summary.count, Some(2));
    assert_eq!(report.acceptance.into_iter().collect::<Vec<_>>(), [(0, 4), (1, 2), (2, 2), (3, 4)]);
}

#[test]
fn results_that_are_no_text_have_a_count_and_a_rate() {
    let of = |seq: u64, units: u32| {
        let (record, payload) = stream(seq, [0.0, 0.0, 1.0, 10.0, 10.0]);
        (Record { units, ..record }, payload)
    };
    let mut run = Run::new(vec![of(0, 3), of(1, 5)], 500.0);
    run.header.endpoint = "embeddings".into();
    check(&build(&run.log()), &[("results_per_request", 4.0), ("result_throughput", 16.0)]);
    assert!(avg(&build(&Run::new(vec![of(0, 0)], 500.0).log()), "result_throughput").is_none());
}

/// The log of sessions of three turns: `turns` says of each row whether it keeps its reply and whether it forgets, `records`
/// which session and row a record belongs to.
fn sessions(turns: &[(bool, bool)], records: &[(u64, u32, Record, &[u8])]) -> Vec<Option<f64>> {
    let mut out = MAGIC.to_vec();
    put_json(&mut out, Kind::Header, &Header { use_server_token_count: false, ..header() });
    let mut table = Vec::new();
    for (turn, (keeps_reply, resets)) in (0..).zip(turns.iter().copied()) {
        let info = RequestInfo {
            conversation: "c",
            turn,
            input_tokens: Some(100),
            keeps_reply,
            resets,
            ..RequestInfo::default()
        };
        put_request(&mut table, &info);
    }
    put_block(&mut out, Kind::Requests, turns.len() as u32, &table);
    let mut body = Vec::new();
    for (session, request, record, text) in records {
        let (record, payload) = with_payload((*record, Vec::new()), &[(part::TEXT, text)]);
        put_record(&mut body, &Record { session: *session, request: *request, ..record }, &payload);
    }
    put_block(&mut out, Kind::Records, records.len() as u32, &body);
    let log = open(&out);
    let words = |text: &str| text.split_whitespace().count() as u32 + u32::from(text.starts_with("  "));
    let report = Report::build(&log, &Options { count_tokens: Some(&words), ..Options::default() });
    let input = |(at, (record, payload)): (usize, (Record, maser_engine::record::Payload<'_>))| {
        report.sample(&log, at, &record, &payload).input.map(f64::from)
    };
    log.records().enumerate().map(input).collect()
}

#[test]
fn the_input_of_a_later_turn_holds_the_answers_before_it() {
    let ok = stream(0, [0.0, 0.0, 1.0, 10.0, 10.0]).0;
    let bad = failed(0, Outcome::Reset, 0, "reset").0;
    let unseen = Record { flags: ok.flags | flag::PAYLOAD_LOST, ..ok };
    let keeping = [(true, false), (true, false), (false, false)];
    let of = |turns: &[(bool, bool)], records: &[(u64, u32, Record, &[u8])]| sessions(turns, records);
    // Two sessions in turn; an answer that begins with a space costs one token more.
    let two = [
        (0, 0, ok, &b"a b"[..]),
        (1, 0, ok, b" a b c"),
        (0, 1, ok, b"d"),
        (1, 1, ok, b"e"),
        (0, 2, ok, b"f"),
        (1, 2, ok, b"g"),
    ];
    let known = |all: &[u32]| all.iter().map(|n| Some(f64::from(*n))).collect::<Vec<_>>();
    assert_eq!(of(&keeping, &two), known(&[100, 100, 102, 104, 103, 105]));
    // A failed turn leaves no answer.
    assert_eq!(of(&keeping, &[(0, 0, ok, b"a"), (0, 1, bad, b"x y"), (0, 2, ok, b"")]), known(&[100, 101, 101]));
    // What is forgotten is not carried on.
    let forgetting = [(true, false), (true, true), (false, false)];
    assert_eq!(of(&forgetting, &[(0, 0, ok, b"a b"), (0, 1, ok, b"c"), (0, 2, ok, b"")]), known(&[100, 100, 101]));
    // An answer that nobody kept leaves the lengths after it unknown.
    let lost = of(&keeping, &[(0, 0, unseen, b""), (0, 1, ok, b"a"), (0, 2, ok, b"")]);
    assert_eq!(lost, [Some(100.0), None, None]);
    // Where no turn says that it keeps its answer, as in older logs, nothing is added.
    assert_eq!(of(&[(false, false); 3], &[(0, 0, ok, b"a b"), (0, 1, ok, b"")]), known(&[100, 100]));
}

/// A killed run's log ends anywhere: the report has every record of the blocks that are whole, and says what is missing.
#[test]
fn a_log_cut_anywhere_is_reported_up_to_its_last_whole_block() {
    let run = steady();
    let bytes = run.bytes();
    let whole = open(&bytes);
    let (mut ends, mut records) = (Vec::new(), 0);
    for block in whole.blocks() {
        records += if block.kind == Kind::Records { block.count as usize } else { 0 };
        ends.push(((block.offset + 20 + block.body) as usize, records));
    }
    for (k, (end, records)) in ends.iter().enumerate().skip(1) {
        let next = ends.get(k + 1).map_or(bytes.len(), |(end, _)| *end);
        for cut in [*end, (*end + next) / 2] {
            let log = open(&bytes[..cut]);
            let report = build(&log);
            assert_eq!((report.valid as usize, log.len()), (*records, *records), "cut at {cut}");
            let last = run.records[..*records].iter().map(|(r, _)| r.last_token).max();
            let first = run.records[..*records].iter().map(|(r, _)| r.start).min();
            let lasted = last.zip(first).map(|(last, first)| last.since(first) as f64 * 1e-9);
            assert_eq!(avg(&report, "benchmark_duration"), lasted, "cut at {cut}");
            assert_eq!(report.is_complete(), cut == bytes.len());
            assert_eq!(report.notes().iter().any(|n| n.contains("killed")), cut < bytes.len());
        }
    }
}

#[test]
fn unusual_answers_are_counted_and_said() {
    let (ok, _) = stream(0, [0.0, 1.0, 2.0, 3.0, 4.0]);
    let with = |seq: u64, record: Record| (Record { seq, ..record }, Vec::new());
    let ignoring = with_payload(with(0, ok), &[(part::IGNORED, &[3])]);
    let cut = with(1, Record { flags: ok.flags | flag::TEXT_CUT, ..ok });
    let whole = with(2, Record { flags: ok.flags & !flag::STREAMED, ..ok });
    let counts = Record { usage_prompt: 12, usage_completion: 2, usage_reasoning: 340, usage_total: 354, ..ok };
    let report = build(&open(&Run::new(vec![ignoring, cut, whole, with(3, counts)], 100.0).bytes()));
    assert_eq!(report.odd.unstreamed, 1, "{:?}", report.odd);
    let notes = report.notes().join(" ");
    assert_eq!(report.odd.reasoning_apart, 1);
    assert_eq!((report.odd.ignored_events, report.odd.requests_with_ignored_events, report.odd.texts_cut), (3, 1, 1));
    for said in
        ["3 events were not JSON and ignored, in 1 request.", "The answers of 1 request were cut", "total less prompt"]
    {
        assert!(notes.contains(said), "{said}: {notes}");
    }
    let osl = report.metric("output_sequence_length").and_then(|entry| entry.summary.max);
    assert_eq!(osl, Some(342.0));
}
