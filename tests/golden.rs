//! The reference's own records through our report: the files must say what the reference's files say.
//!
//! Each run's `profile_export.jsonl` becomes a record log (wall-clock stamps plus the values of its metrics give every
//! instant; a text is the decimal number of its tokens, which the stand-in tokenizer reads), and the summary written from
//! it is compared with the reference's summary field by field.

use maser::export::{ExportOptions, Written, console, inputs, write_all};
use maser_engine::clock::{Anchor, Instant};
use maser_engine::log::{
    End, FILE_NAME, Header, Kind, Log, MAGIC, PhaseInfo, PhaseMark, RequestInfo, put_block, put_json, put_record,
    put_request,
};
use maser_engine::metric::{self, Group, Value as Source};
use maser_engine::record::{Outcome, Record, UNKNOWN, flag, part, put_leb128, put_part};
use maser_engine::report::{Options, Report};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Keys of the reference that are knowingly not written.
const ABSENT: [(&str, &str); 2] = [
    ("telemetry_data", "there are no GPU readings in a record log yet"),
    ("context_overflow_count", "context overflow is not told apart from other errors"),
];

/// Keys that are ours alone.
const OURS: [&str; 8] = [
    "maser",
    "maser_version",
    "send_slip",
    "response_time",
    "late_request_count",
    "queued_request_count",
    "lost_record_count",
    "retried_request_count",
];

fn data(run: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden").join(run)
}

fn read(run: &str, file: &str) -> String {
    std::fs::read_to_string(data(run).join(file)).unwrap()
}

/// One line of the reference's records.
struct Row(Value);

impl Row {
    fn meta(&self, key: &str) -> &Value {
        &self.0["metadata"][key]
    }

    fn wall(&self, key: &str) -> Option<u64> {
        self.meta(key).as_u64()
    }

    fn metric(&self, tag: &str) -> Option<f64> {
        self.0["metrics"][tag]["value"].as_f64()
    }

    /// A time metric in nanoseconds: the file has milliseconds.
    fn nanos(&self, tag: &str) -> Option<u64> {
        Some((self.metric(tag)? * 1e6).round() as u64)
    }

    fn count(&self, tag: &str) -> u32 {
        self.metric(tag).map_or(UNKNOWN, |x| x.round() as u32)
    }
}

/// The axis of the fabricated records begins a second before the first of them.
struct Axis {
    anchor: Anchor,
}

impl Axis {
    fn at(&self, wall: u64) -> Instant {
        self.anchor.mono.after(wall - self.anchor.wall)
    }
}

fn fabricate(row: &Row, index: u32, axis: &Axis, scheduled: bool) -> (Record, Vec<u8>) {
    let start = axis.at(row.wall("request_start_ns").unwrap());
    let done = axis.at(row.wall("request_end_ns").unwrap());
    let after_start = |tag: &str| row.nanos(tag).map_or(Instant::UNSET, |ns| start.after(ns));
    let first_token = after_start("time_to_first_token");
    let sent = row.nanos("http_req_duration").map_or(start, |ns| done.before(ns));
    let send_end = sent.after(row.nanos("http_req_sending").unwrap_or(0));
    let error = &row.0["error"];
    let mut payload = Vec::new();
    let tokens = row.metric("output_token_count").map(|n| n.to_string());
    put_part(&mut payload, part::TEXT, tokens.unwrap_or_default().as_bytes());
    let mut gaps = Vec::new();
    for gap in row.0["metrics"]["inter_chunk_latency"]["value"].as_array().into_iter().flatten() {
        put_leb128(&mut gaps, (gap.as_f64().unwrap() * 1e6).round() as u64);
    }
    put_part(&mut payload, part::GAPS, &gaps);
    let text = |key: &str| error[key].as_str().unwrap_or("").as_bytes().to_vec();
    put_part(&mut payload, part::ERROR, &text("message"));
    put_part(&mut payload, part::REASON, &text("type"));
    let failed = !error.is_null();
    let reused = row.metric("http_req_connection_reused") == Some(1.0);
    let bytes = |tag: &str| row.metric(tag).map_or(0, |kb| (kb * 1024.0).round() as u32);
    let record = Record {
        seq: row.meta("session_num").as_u64().unwrap(),
        session: row.meta("session_num").as_u64().unwrap(),
        due: axis.at(row.wall("credit_issued_ns").unwrap()),
        start,
        sent,
        send_end,
        first_byte: row.wall("request_ack_ns").map_or(Instant::UNSET, |ns| axis.at(ns)),
        first_body: send_end.after(row.nanos("http_req_waiting").unwrap_or(0)),
        first_token,
        second_token: row.nanos("time_to_second_token").map_or(Instant::UNSET, |ns| first_token.after(ns)),
        first_output: after_start("time_to_first_output_token"),
        last_token: after_start("request_latency"),
        done,
        blocked: row.nanos("http_req_blocked").unwrap_or(0),
        connecting: row.nanos("http_req_connecting").unwrap_or(0),
        request: index,
        bytes_sent: bytes("http_req_data_sent"),
        bytes_received: bytes("http_req_data_received"),
        reads: row.metric("http_req_chunks_received").unwrap_or(0.0) as u32,
        usage_prompt: row.count("usage_prompt_tokens"),
        usage_completion: row.count("usage_completion_tokens"),
        usage_reasoning: row.count("usage_reasoning_tokens"),
        usage_cached: row.count("usage_prompt_cache_read_tokens"),
        usage_total: row.count("usage_total_tokens"),
        payload_len: payload.len() as u32,
        status: if failed { error["code"].as_u64().unwrap() as u16 } else { 200 },
        flags: flag::STREAMED | if reused { flag::REUSED } else { 0 } | if scheduled { flag::SCHEDULED } else { 0 },
        phase: row.meta("phase_index").as_u64().unwrap() as u8,
        outcome: if failed { Outcome::HttpStatus } else { Outcome::Ok } as u8,
        ..bytemuck::Zeroable::zeroed()
    };
    (record, payload)
}

fn requested(row: &Row) -> Option<u32> {
    let off = row.metric("osl_mismatch_diff_pct")?;
    Some((row.metric("output_sequence_length")? / (1.0 + off / 100.0)).round() as u32)
}

fn stamp(text: &Value) -> u64 {
    let stamp = format!("{}+00:00", text.as_str().unwrap());
    let at = chrono::DateTime::parse_from_rfc3339(&stamp).unwrap();
    at.timestamp_micros() as u64 * 1000
}

/// Start and end of each phase. Where the reference left no manifest its summary gives the start to a microsecond, and
/// requests divided by throughput the length.
fn phases(run: &str, summary: &Value) -> Vec<(&'static str, u64, u64)> {
    if let Ok(text) = std::fs::read_to_string(data(run).join("phases.json")) {
        let all: Value = serde_json::from_str(&text).unwrap();
        return ["warmup", "profiling"]
            .into_iter()
            .map(|name| {
                let ns = |key: &str| all[name][key].as_u64().unwrap();
                (name, ns("start_ns"), ns("end_ns"))
            })
            .collect();
    }
    let start = stamp(&summary["start_time"]);
    let avg = |tag: &str| summary[tag]["avg"].as_f64().unwrap();
    let length = avg("request_count") / avg("request_throughput") * 1e9;
    vec![("profiling", start, start + length.round() as u64)]
}

/// The run as a record log of ours; `ended` leaves the marks of the phases and the end.
fn log_of(run: &str, ended: bool) -> Vec<u8> {
    let summary: Value = serde_json::from_str(&read(run, "profile_export_aiperf.json")).unwrap();
    let lines = read(run, "profile_export.jsonl");
    let rows: Vec<Row> = lines.lines().map(|line| Row(serde_json::from_str(line).unwrap())).collect();
    let phases = phases(run, &summary);
    let axis = Axis { anchor: Anchor { mono: Instant(1_000_000_000), wall: phases[0].1 - 1_000_000_000 } };
    let scheduled = summary["input_config"]["phases"][0]["type"] != "concurrency"
        && !summary["input_config"]["phases"][0]["type"].is_null();
    let mut log = MAGIC.to_vec();
    put_json(&mut log, Kind::Header, &header(run, &summary, &axis, &phases));
    let mut table = Vec::new();
    let mut records = Vec::new();
    for (k, row) in rows.iter().enumerate() {
        let isl = row.metric("input_sequence_length").or(row.metric("error_isl"));
        put_request(
            &mut table,
            &RequestInfo {
                conversation: row.meta("conversation_id").as_str().unwrap(),
                turn: row.meta("turn_index").as_u64().unwrap() as u32,
                input_tokens: isl.map(|x| x as u32),
                max_tokens: requested(row),
            },
        );
        let (record, payload) = fabricate(row, k as u32, &axis, scheduled);
        put_record(&mut records, &record, &payload);
    }
    put_block(&mut log, Kind::Requests, rows.len() as u32, &table);
    put_block(&mut log, Kind::Records, rows.len() as u32, &records);
    if ended {
        for (k, (_, start, end)) in phases.iter().enumerate() {
            let mark = PhaseMark { phase: k as u8, start: axis.at(*start), end: axis.at(*end), ..PhaseMark::default() };
            put_json(&mut log, Kind::Phase, &mark);
        }
        let end = End { records: rows.len() as u64, ..End::default() };
        put_json(&mut log, Kind::End, &end);
    }
    log
}

fn header(run: &str, summary: &Value, axis: &Axis, phases: &[(&str, u64, u64)]) -> Header {
    let info = &summary["run_info"];
    Header {
        maser_version: "0.1.0".into(),
        benchmark_id: info["benchmark_id"].as_str().unwrap().into(),
        run_key: 7,
        anchor: axis.anchor,
        cli_command: info["cli_command"].as_str().unwrap().into(),
        input_config: summary["input_config"].clone(),
        random_seed: info["random_seed"].as_u64(),
        endpoint: "chat".into(),
        streaming: true,
        phases: phases
            .iter()
            .map(|(name, ..)| PhaseInfo { name: (*name).to_owned(), warmup: *name == "warmup" })
            .collect(),
        fixed_schedule: run == "fixed_schedule",
        tokenizer: Some("builtin".into()),
        use_server_token_count: false,
        export_level: "records".into(),
        export_prefix: None,
        topology: serde_json::json!({"cores": [0]}),
    }
}

fn decimal(text: &str) -> u32 {
    text.parse::<f64>().unwrap_or(0.0) as u32
}

struct Exported {
    dir: tempfile::TempDir,
    log: Log,
    report: Report,
    results: Vec<Result<Written, String>>,
}

fn export(bytes: &[u8]) -> Exported {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE_NAME);
    std::fs::write(&path, bytes).unwrap();
    let log = Log::open(&path).unwrap();
    let options = Options { count_tokens: Some(&decimal), threads: 2, ..Options::default() };
    let report = Report::build(&log, &options);
    let results = write_all(&report, &log, dir.path(), &ExportOptions { utc_offset: Some(0) });
    Exported { dir, log, report, results }
}

impl Exported {
    fn text(&self, file: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(file)).unwrap()
    }
}

/// How far a figure may be from the reference's.
///
/// The reference keeps wall-clock nanoseconds in doubles, whose step there is 256 ns: whatever it computes from them is
/// off by that much, and the extremes of its curves show overlaps of chunks that did not happen.
enum Agreement {
    /// To the last digits of a double.
    Exact,
    /// Within three steps of the reference's clock, in the metric's display unit.
    Clock(f64),
    /// Relative, or this much absolute.
    Curve,
    /// The key is there; the number depends on what the records do not say.
    Present,
}

fn agreement(tag: &str, figure: &str) -> Agreement {
    const STEPS_NS: f64 = 3.0 * 256.0;
    let metric = metric::find(tag).unwrap_or_else(|| panic!("{tag} is no metric of ours"));
    match tag {
        "credit_to_start_latency" | "effective_latency" => {
            return Agreement::Clock(STEPS_NS * 1e-6);
        }
        "benchmark_duration" => return Agreement::Clock(STEPS_NS * 1e-9),
        // The reference measures from the trace's own stamps, which its records do not carry; ours is the due time.
        "replay_sched_lag_p50" | "replay_sched_lag_p90" | "replay_sched_lag_p99" => {
            return Agreement::Present;
        }
        _ => {}
    }
    match metric.value {
        Source::Effective(_) | Source::Active(_) if ["min", "max"].contains(&figure) => Agreement::Present,
        Source::Effective(_) | Source::Active(_) => Agreement::Curve,
        // A window known to a nanosecond, from a start known to a microsecond.
        _ => Agreement::Exact,
    }
}

fn agree(tag: &str, figure: &str, ours: f64, theirs: f64) -> bool {
    let off = (ours - theirs).abs();
    // The clock's steps are also summed.
    let sums = if figure == "sum" { 100.0 } else { 1.0 };
    match agreement(tag, figure) {
        Agreement::Exact => off <= 2e-9 * theirs.abs().max(1e-3),
        Agreement::Clock(by) => off <= by * sums,
        Agreement::Curve => off <= 1e-3 * theirs.abs().max(1.0),
        Agreement::Present => true,
    }
}

fn is_metric(value: &Value) -> bool {
    value.get("unit").is_some()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn compare_metric(tag: &str, ours: &Value, theirs: &Value) {
    assert_eq!(keys(ours), keys(theirs), "keys of {tag}");
    assert_eq!(ours["unit"], theirs["unit"], "unit of {tag}");
    assert_eq!(ours["count"], theirs["count"], "count of {tag}");
    for figure in keys(theirs) {
        if let Some(expected) = theirs[figure].as_f64() {
            let got = ours[figure].as_f64().unwrap();
            assert!(agree(tag, figure, got, expected), "{tag}.{figure}: {got}, the reference has {expected}");
        }
    }
}

fn compare_json(ours: &Value, theirs: &Value) {
    let absent = |key: &&str| ABSENT.iter().any(|(k, _)| k == key);
    let wanted: Vec<&str> = keys(theirs).into_iter().filter(|k| !absent(k)).collect();
    for key in &wanted {
        assert!(ours.get(*key).is_some(), "{key} is missing");
    }
    for key in keys(ours) {
        assert!(wanted.contains(&key) || OURS.contains(&key), "{key} is new");
    }
    // The reference declares the order up to `warmup_metrics`; what follows comes in the order of a hash table.
    let fixed = |of: &Value| -> Vec<String> {
        let all = keys(of);
        let end = all.iter().position(|k| *k == "end_time").unwrap();
        let known = all[..=end].iter().filter(|k| !OURS.contains(k) && !absent(k));
        known.map(|k| (*k).to_owned()).collect()
    };
    assert_eq!(fixed(ours), fixed(theirs));
    for key in wanted {
        match key {
            "start_time" | "end_time" => {
                let off = stamp(&ours[key]).abs_diff(stamp(&theirs[key]));
                assert!(off <= 1000, "{key}: {off} ns");
            }
            "warmup_metrics" => {
                for (tag, metric) in theirs[key].as_object().unwrap() {
                    compare_metric(tag, &ours[key][tag], metric);
                }
            }
            _ if is_metric(&theirs[key]) => compare_metric(key, &ours[key], &theirs[key]),
            _ => assert_eq!(ours[key], theirs[key], "{key}"),
        }
    }
}

/// The tag of a CSV row by its name.
fn tag_of(name: &str) -> &'static str {
    let metric = metric::METRICS.iter().find(|m| name == m.header || name == format!("{} ({})", m.header, m.display));
    metric.unwrap_or_else(|| panic!("{name} is no row of ours")).tag
}

fn compare_csv(ours: &str, theirs: &str) {
    assert!(!ours.replace("\r\n", "").contains(['\r', '\n']), "every line ends in CRLF");
    let known = |line: &&str| {
        let name = line.split(',').next().unwrap_or_default();
        !["Context Overflow Count"].contains(&name)
            && !OURS
                .iter()
                .filter_map(|tag| metric::find(tag))
                .any(|m| name.starts_with(m.header) && m.has(metric::flag::OURS))
    };
    let ours: Vec<&str> = ours.split("\r\n").filter(known).collect();
    let theirs: Vec<&str> = theirs.split("\r\n").filter(known).collect();
    let names = |lines: &[&str]| -> Vec<String> {
        lines.iter().map(|l| l.split(',').next().unwrap_or("").to_owned()).collect()
    };
    assert_eq!(names(&ours), names(&theirs));
    for (ours, theirs) in ours.iter().zip(&theirs) {
        if theirs.is_empty() || theirs.starts_with("Metric,") || theirs.starts_with("Endpoint,") {
            assert_eq!(ours, theirs);
            continue;
        }
        compare_csv_row(ours, theirs);
    }
}

fn compare_csv_row(ours: &str, theirs: &str) {
    let heads = "Metric,avg,min,max,sum,p1,p5,p10,p25,p50,p75,p90,p95,p99,std";
    let (a, b): (Vec<_>, Vec<_>) = (ours.split(',').collect(), theirs.split(',').collect());
    assert_eq!(a.len(), b.len(), "{theirs}");
    let tag = tag_of(b[0]);
    for ((a, b), figure) in a.iter().zip(&b).zip(heads.split(',')).skip(1) {
        if matches!(agreement(tag, figure), Agreement::Exact) || b.is_empty() {
            assert_eq!(a, b, "{tag}.{figure}");
        } else {
            let (x, y): (f64, f64) = (a.parse().unwrap(), b.parse().unwrap());
            assert!(agree(tag, figure, x, y) || (x - y).abs() < 0.011, "{tag}.{figure}: {a}, the reference has {b}");
        }
    }
}

fn compare(run: &str) -> Exported {
    let exported = export(&log_of(run, true));
    for result in &exported.results {
        assert!(result.is_ok(), "{result:?}");
    }
    let file = "profile_export_aiperf.json";
    let ours: Value = serde_json::from_str(&exported.text(file)).unwrap();
    compare_json(&ours, &serde_json::from_str(&read(run, file)).unwrap());
    let file = "profile_export_aiperf.csv";
    compare_csv(&exported.text(file), &read(run, file));
    exported
}

#[test]
fn streamed_chat_with_a_warm_up() {
    let exported = compare("chat_stream_concurrency");
    assert!(exported.report.show_http_trace);
}

#[test]
fn thirty_per_cent_errors() {
    let exported = compare("errors_30pct");
    let table = console::render(&exported.report, 120, false);
    assert!(table.contains("Error Summary") && table.contains("mock failure"));
}

#[test]
fn poisson_arrivals_with_service_levels() {
    compare("rate_goodput");
}

#[test]
fn replay_of_a_fixed_schedule() {
    compare("fixed_schedule");
}

#[test]
fn the_curves_stay_within_what_the_requests_allow() {
    let exported = export(&log_of("chat_stream_concurrency", true));
    let max = |tag: &str| exported.report.metric(tag).unwrap().summary.max.unwrap();
    assert_eq!(max("effective_concurrency"), 8.0);
    assert_eq!(max("effective_decode_concurrency"), 8.0);
    // The reference has 1250: a chunk counted twice within a step of its clock.
    assert_eq!(max("tokens_in_flight"), 1249.0);
}

#[test]
fn lines_of_single_requests_carry_the_reference_s_keys_and_values() {
    for run in ["chat_stream_concurrency", "errors_30pct", "fixed_schedule"] {
        let exported = export(&log_of(run, true));
        let ours = exported.text("profile_export.jsonl");
        let theirs = read(run, "profile_export.jsonl");
        assert_eq!(ours.lines().count(), theirs.lines().count());
        for (ours, theirs) in ours.lines().zip(theirs.lines()) {
            compare_line(ours, theirs);
        }
    }
}

fn compare_line(ours: &str, theirs: &str) {
    let (a, b): (Value, Value) = (serde_json::from_str(ours).unwrap(), serde_json::from_str(theirs).unwrap());
    assert_eq!(keys(&a), keys(&b));
    assert_eq!(keys(&a["metadata"]), keys(&b["metadata"]));
    assert_eq!(a["error"], b["error"]);
    let made_up = ["x_request_id", "x_correlation_id", "root_correlation_id"];
    let own_names = ["worker_id", "record_processor_id"];
    for key in keys(&b["metadata"]) {
        if !made_up.contains(&key) && !own_names.contains(&key) {
            assert_eq!(a["metadata"][key], b["metadata"][key], "{key}");
        }
    }
    for (tag, reading) in b["metrics"].as_object().unwrap() {
        let mine = &a["metrics"][tag];
        assert_eq!(mine["unit"], reading["unit"], "{tag}");
        let same = match (&mine["value"], &reading["value"]) {
            (Value::Number(x), Value::Number(y)) => {
                assert_eq!(x.is_f64(), y.is_f64(), "{tag}: {x} or {y}");
                (x.as_f64().unwrap() - y.as_f64().unwrap()).abs() <= 1e-9 * y.as_f64().unwrap().abs()
            }
            (x, y) => x == y,
        };
        assert!(same, "{tag}: {mine} or {reading}");
    }
    for tag in keys(&a["metrics"]) {
        let known = b["metrics"].get(tag).is_some() || OURS.contains(&tag);
        assert!(known, "{tag} is new");
    }
}

#[test]
fn a_killed_run_is_reported_from_its_records() {
    let exported = export(&log_of("rate_goodput", false));
    let report = &exported.report;
    assert!(!report.is_complete() && !report.was_cancelled);
    assert_eq!(report.valid, 100);
    // First start to last end, a little less than the phase's own window.
    assert!((5.3..5.4).contains(&report.window_seconds));
    let json: Value = serde_json::from_str(&exported.text("profile_export_aiperf.json")).unwrap();
    assert!(json["incomplete_reason"].as_str().unwrap().contains("killed"));
    assert!(console::render(report, 100, false).contains("INCOMPLETE RESULTS"));
    assert_eq!(json["is_complete"], false);
}

#[test]
fn a_run_in_which_all_requests_failed_is_written_all_the_same() {
    let source = export(&log_of("errors_30pct", true));
    let mut bytes = MAGIC.to_vec();
    put_json(&mut bytes, Kind::Header, &source.log.header);
    let (mut body, mut count) = (Vec::new(), 0);
    for (mut record, payload) in source.log.records() {
        if record.outcome() != Outcome::Ok {
            let mut parts = Vec::new();
            put_part(&mut parts, part::ERROR, payload.error);
            record.payload_len = parts.len() as u32;
            put_record(&mut body, &record, &parts);
            count += 1;
        }
    }
    put_block(&mut bytes, Kind::Records, count, &body);
    let exported = export(&bytes);
    assert!(exported.report.all_failed());
    assert!(exported.results.iter().all(Result::is_ok));
    let json: Value = serde_json::from_str(&exported.text("profile_export_aiperf.json")).unwrap();
    assert_eq!(json["request_error_rate"]["avg"], 100.0);
    assert_eq!(json["error_request_count"]["avg"], 12.0);
    assert_eq!(json["error_summary"][0]["error_details"]["type"], "HTTP Error");
    assert!(json.get("request_latency").is_none());
}

#[test]
fn an_empty_log_has_an_empty_report() {
    let source = export(&log_of("errors_30pct", true));
    let mut bytes = MAGIC.to_vec();
    put_json(&mut bytes, Kind::Header, &source.log.header);
    let exported = export(&bytes);
    assert!(exported.report.is_empty() && !exported.report.all_failed());
    assert!(exported.results.iter().all(Result::is_ok));
}

#[test]
fn tables_fit_the_terminal_and_colour_only_when_asked() {
    let exported = export(&log_of("errors_30pct", true));
    for width in [60, 80, 100, 140] {
        let text = console::render(&exported.report, width, false);
        assert!(!text.contains('\x1b'));
        for line in text.lines() {
            assert!(line.chars().count() <= width, "{width}: {line}");
        }
    }
    assert!(console::render(&exported.report, 80, true).contains("\x1b["));
}

#[test]
fn the_client_s_own_rows_stand_in_a_table_of_their_own() {
    let exported = export(&log_of("fixed_schedule", true));
    let text = console::render(&exported.report, 140, false);
    let table = &text[text.find("Client Truth").unwrap()..];
    for metric in metric::METRICS.iter().filter(|m| m.group == Group::Client) {
        assert!(table.contains(metric.header), "{}", metric.tag);
    }
    // The reference sent 2 ms and more after its own credits: what it does not show, this does.
    assert!(exported.report.metric("late_request_count").unwrap().summary.avg > Some(0.0));
}

#[test]
fn the_closing_lines_list_what_was_written_and_what_was_not() {
    let mut exported = export(&log_of("errors_30pct", true));
    exported.results.push(Err("disk full.".into()));
    let text = console::closing(&exported.report, &exported.results);
    for part in [
        "CLI Command: aiperf profile",
        "Benchmark Duration: 0.72 sec",
        "CSV Export: ",
        "JSON Export: ",
        "Error: disk full.",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn request_bodies_are_laid_out_as_the_reference_does() {
    let text = read("chat_stream_concurrency", "inputs.json");
    let document: Value = serde_json::from_str(&text).unwrap();
    let sessions = document["data"].as_array().unwrap().iter().map(|session| {
        let bodies = session["payloads"].as_array().unwrap();
        let bytes: Vec<Vec<u8>> = bodies.iter().map(|b| serde_json::to_vec(b).unwrap()).collect();
        (session["session_id"].as_str().unwrap(), bytes)
    });
    let dir = tempfile::tempdir().unwrap();
    let written = inputs::write(dir.path(), sessions).unwrap();
    assert_eq!(std::fs::read_to_string(written.path).unwrap(), text);
}
