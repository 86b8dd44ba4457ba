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
use maser_engine::record::{Outcome, Record, UNKNOWN, flag, part, put_leb128, put_part, put_piece};
use maser_engine::report::{Options, Report};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Keys of the reference that are knowingly not written.
const ABSENT: [(&str, &str); 1] = [("telemetry_data", "there are no GPU readings in a record log yet")];

/// The endpoint of the run makes no tokens.
fn without_tokens(summary: &Value) -> bool {
    summary["input_config"]["endpoint"]["type"] == "embeddings"
}

/// Metrics whose values are not compared where a body came in one piece: the reference ends the transfer at that piece but
/// the request some microseconds later, which its records do not tell apart.
fn ends_with_its_piece(tag: &str, summary: &Value) -> bool {
    without_tokens(summary) && ["http_req_receiving", "http_req_total"].contains(&tag)
}

/// Whether a key of the reference's is knowingly not written. Of an endpoint without tokens the reference gives an output
/// length of 0, and the curves of phases that never were as all 0.
fn is_absent(key: &str, summary: &Value) -> bool {
    let none = key == "output_sequence_length" || key.starts_with("active_");
    ABSENT.iter().any(|(absent, _)| *absent == key) || without_tokens(summary) && none
}

/// The reference's rates of a cancelled run are over the time from its first request to its last answer, while its curves
/// and all else are over the phase's window; ours are all over the window.
fn rate_over_the_window(tag: &str, theirs: f64, summary: &Value) -> f64 {
    let metric = metric::find(tag).unwrap();
    if summary["was_cancelled"] != true || !metric.unit.ends_with("/sec") || !matches!(metric.value, Source::Run(_)) {
        return theirs;
    }
    let ends = phases("sigint", summary)[0];
    theirs * summary["benchmark_duration"]["avg"].as_f64().unwrap() / ((ends.2 - ends.1) as f64 * 1e-9)
}

/// Sentences of the reference in the place of which stand our own.
const SENTENCES: [&str; 1] = ["incomplete_reason"];

/// Keys that are ours alone, beside the metrics that say so of themselves.
const OURS: [&str; 2] = ["maser", "maser_version"];

fn is_ours(key: &str) -> bool {
    OURS.contains(&key) || metric::find(key).is_some_and(|m| m.has(metric::flag::OURS))
}

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

fn fabricate(row: &Row, (index, session): (u32, u64), axis: &Axis, flags: u16) -> (Record, Vec<u8>) {
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
    raw_parts(&row.0, &mut payload);
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
        session,
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
        chunks: if failed { 0 } else { gaps.iter().filter(|b| **b < 0x80).count() as u32 + 1 },
        reads: row.metric("http_req_chunks_received").unwrap_or(0.0) as u32,
        usage_prompt: row.count("usage_prompt_tokens"),
        usage_completion: row.count("usage_completion_tokens"),
        usage_reasoning: row.count("usage_reasoning_tokens"),
        usage_cached: row.count("usage_prompt_cache_read_tokens"),
        usage_total: row.count("usage_total_tokens"),
        payload_len: payload.len() as u32,
        status: if failed { error["code"].as_u64().unwrap() as u16 } else { 200 },
        flags: flags | if reused { flag::REUSED } else { 0 },
        phase: row.meta("phase_index").as_u64().unwrap() as u8,
        outcome: if failed { Outcome::HttpStatus } else { Outcome::Ok } as u8,
        ..bytemuck::Zeroable::zeroed()
    };
    (record, payload)
}

/// What was sent and received, of the requests whose raw lines are kept here.
fn raw_parts(row: &Value, payload: &mut Vec<u8>) {
    let Some(line) = row.get("raw") else { return };
    let start = line["start_perf_ns"].as_u64().unwrap();
    let (mut raw, mut last) = (Vec::new(), start);
    for response in line["responses"].as_array().unwrap() {
        let at = response["perf_ns"].as_u64().unwrap();
        let packets = response["packets"].as_array().unwrap().iter();
        let fields = packets.map(|p| format!("{}: {}\n", p["name"].as_str().unwrap(), p["value"].as_str().unwrap()));
        put_piece(&mut raw, at - last, format!("{}\n", fields.collect::<String>()).as_bytes());
        last = at;
    }
    put_part(payload, part::RAW, &raw);
    put_part(payload, part::SENT, &serde_json::to_vec(&line["payload"]).unwrap());
}

/// The records with their raw lines, as far as those are kept here, under `raw`.
fn rows_of(run: &str) -> Vec<Row> {
    let raw = std::fs::read_to_string(data(run).join("profile_export_raw.jsonl")).unwrap_or_default();
    let raw: Vec<Value> = raw.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let id = |line: &Value| line["metadata"]["x_request_id"].clone();
    let with_raw = |line: &str| {
        let mut row: Value = serde_json::from_str(line).unwrap();
        if let Some(raw) = raw.iter().find(|r| id(r) == id(&row)) {
            row["raw"] = raw.clone();
        }
        Row(row)
    };
    read(run, "profile_export.jsonl").lines().map(with_raw).collect()
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
    if summary["was_cancelled"] == true {
        let lines = read(run, "profile_export.jsonl");
        let ends = lines.lines().map(|l| Row(serde_json::from_str(l).unwrap()).wall("request_end_ns").unwrap());
        return vec![("profiling", start, ends.max().unwrap())];
    }
    let avg = |tag: &str| summary[tag]["avg"].as_f64().unwrap();
    let length = avg("request_count") / avg("request_throughput") * 1e9;
    vec![("profiling", start, start + length.round() as u64)]
}

/// The run as a record log of ours; `ended` leaves the marks of the phases and the end.
fn log_of(run: &str, ended: bool) -> Vec<u8> {
    let summary: Value = serde_json::from_str(&read(run, "profile_export_aiperf.json")).unwrap();
    let rows = rows_of(run);
    let phases = phases(run, &summary);
    let axis = Axis { anchor: Anchor { mono: Instant(1_000_000_000), wall: phases[0].1 - 1_000_000_000 } };
    let scheduled = summary["input_config"]["phases"][0]["type"] != "concurrency"
        && !summary["input_config"]["phases"][0]["type"].is_null();
    let streamed = summary["input_config"]["endpoint"]["streaming"] == true;
    let flags = if streamed { flag::STREAMED } else { 0 } | if scheduled { flag::SCHEDULED } else { 0 };
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
                keeps_reply: false,
                resets: false,
            },
        );
        let id = row.meta("x_correlation_id");
        let session = rows.iter().position(|other| other.meta("x_correlation_id") == id).unwrap();
        let (record, payload) = fabricate(row, (k as u32, session as u64), &axis, flags);
        put_record(&mut records, &record, &payload);
    }
    put_block(&mut log, Kind::Requests, rows.len() as u32, &table);
    put_block(&mut log, Kind::Records, rows.len() as u32, &records);
    if ended {
        for (k, (_, start, end)) in phases.iter().enumerate() {
            let mark = PhaseMark { phase: k as u8, start: axis.at(*start), end: axis.at(*end), ..PhaseMark::default() };
            put_json(&mut log, Kind::Phase, &mark);
        }
        let was_cancelled = summary["was_cancelled"] == true;
        let end = End { records: rows.len() as u64, was_cancelled, ..End::default() };
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
        endpoint: summary["input_config"]["endpoint"]["type"].as_str().unwrap_or("chat").into(),
        streaming: summary["input_config"]["endpoint"]["streaming"] == true,
        phases: phases
            .iter()
            .map(|(name, ..)| PhaseInfo { name: (*name).to_owned(), warmup: *name == "warmup" })
            .collect(),
        fixed_schedule: run == "fixed_schedule",
        tokenizer: Some("builtin".into()),
        use_server_token_count: false,
        export_level: "raw".into(),
        export_prefix: None,
        topology: serde_json::json!({"cores": [0]}),
        correlation_header: "X-Correlation-ID".into(),
        request_headers: [
            ("User-Agent", "aiperf/0.13.0"),
            ("X-Test", "abc"),
            ("Accept", "text/event-stream"),
            ("Content-Type", "application/json"),
        ]
        .map(|(name, value)| (name.into(), value.into()))
        .into(),
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
    let wanted =
        ExportOptions { utc_offset: Some(0), parquet: true, hdr: true, outputs: true, slices: Some(1_000_000_000) };
    let results = write_all(&report, &log, dir.path(), &wanted, &options);
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

fn compare_metric(tag: &str, ours: &Value, theirs: &Value, summary: &Value) {
    assert_eq!(keys(ours), keys(theirs), "keys of {tag}");
    assert_eq!(ours["unit"], theirs["unit"], "unit of {tag}");
    assert_eq!(ours["count"], theirs["count"], "count of {tag}");
    for figure in keys(theirs) {
        if ends_with_its_piece(tag, summary) {
            continue;
        }
        if let Some(expected) = theirs[figure].as_f64() {
            let expected = rate_over_the_window(tag, expected, summary);
            let got = ours[figure].as_f64().unwrap();
            assert!(agree(tag, figure, got, expected), "{tag}.{figure}: {got}, the reference has {expected}");
        }
    }
}

fn compare_json(ours: &Value, theirs: &Value) {
    let absent = |key: &&str| is_absent(key, theirs);
    let wanted: Vec<&str> = keys(theirs).into_iter().filter(|k| !absent(k)).collect();
    for key in &wanted {
        assert!(ours.get(*key).is_some(), "{key} is missing");
    }
    for key in keys(ours) {
        assert!(wanted.contains(&key) || is_ours(key), "{key} is new");
    }
    // The reference declares the order up to `warmup_metrics`; what follows comes in the order of a hash table.
    let fixed = |of: &Value| -> Vec<String> {
        let all = keys(of);
        let end = all.iter().position(|k| *k == "end_time").unwrap();
        let known = all[..=end].iter().filter(|k| !is_ours(k) && !absent(k));
        known.map(|k| (*k).to_owned()).collect()
    };
    assert_eq!(fixed(ours), fixed(theirs));
    for key in wanted {
        match key {
            // Of a cancelled run the reference writes when it was wound up, and divides rates by an earlier end; ours
            // writes that one.
            "end_time" if theirs["was_cancelled"] == true => assert!(stamp(&ours[key]) <= stamp(&theirs[key])),
            "start_time" | "end_time" => {
                let off = stamp(&ours[key]).abs_diff(stamp(&theirs[key]));
                assert!(off <= 1000, "{key}: {off} ns");
            }
            "warmup_metrics" => {
                for (tag, metric) in theirs[key].as_object().unwrap() {
                    compare_metric(tag, &ours[key][tag], metric, theirs);
                }
            }
            _ if SENTENCES.contains(&key) => assert!(ours[key].is_string(), "{key}"),
            _ if is_metric(&theirs[key]) => compare_metric(key, &ours[key], &theirs[key], theirs),
            _ => assert_eq!(ours[key], theirs[key], "{key}"),
        }
    }
}

/// The tag of a CSV row by its name.
fn tag_of(name: &str) -> &'static str {
    let metric = metric::METRICS.iter().find(|m| name == m.header || name == format!("{} ({})", m.header, m.display));
    metric.unwrap_or_else(|| panic!("{name} is no row of ours")).tag
}

fn compare_csv(ours: &str, theirs: &str, summary: &Value) {
    assert!(!ours.replace("\r\n", "").contains(['\r', '\n']), "every line ends in CRLF");
    let known = |line: &&str| {
        let name = line.split(',').next().unwrap_or_default();
        let shown = |tag: &str| metric::find(tag).map_or("", |m| m.header);
        let absent = keys(summary).into_iter().filter(|key| is_absent(key, summary)).map(shown);
        !absent.into_iter().any(|header| name == header || name.starts_with(&format!("{header} (")))
            && !metric::METRICS.iter().any(|m| m.has(metric::flag::OURS) && name.starts_with(m.header))
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
        compare_csv_row(ours, theirs, summary);
    }
}

fn compare_csv_row(ours: &str, theirs: &str, summary: &Value) {
    let heads = "Metric,avg,min,max,sum,p1,p5,p10,p25,p50,p75,p90,p95,p99,std";
    let (a, b): (Vec<_>, Vec<_>) = (ours.split(',').collect(), theirs.split(',').collect());
    assert_eq!(a.len(), b.len(), "{theirs}");
    let tag = tag_of(b[0]);
    if ends_with_its_piece(tag, summary) {
        return;
    }
    for ((a, b), figure) in a.iter().zip(&b).zip(heads.split(',')).skip(1) {
        let moved = b.parse().is_ok_and(|y: f64| rate_over_the_window(tag, y, summary) != y);
        if matches!(agreement(tag, figure), Agreement::Exact) && !moved || b.is_empty() {
            assert_eq!(a, b, "{tag}.{figure}");
        } else {
            let (x, y): (f64, f64) = (a.parse().unwrap(), b.parse().unwrap());
            let y = rate_over_the_window(tag, y, summary);
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
    let theirs = serde_json::from_str(&read(run, file)).unwrap();
    compare_json(&ours, &theirs);
    let file = "profile_export_aiperf.csv";
    compare_csv(&exported.text(file), &read(run, file), &theirs);
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
fn conversations_with_their_history() {
    let exported = compare("multiturn");
    // As in the reference, `session_num` counts requests, and the turns of a session share its correlation id.
    let lines = exported.text("profile_export.jsonl");
    let theirs = read("multiturn", "profile_export.jsonl");
    let shared = |text: &str| -> Vec<usize> {
        let ids: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        let ids: Vec<&str> = ids.iter().map(|l: &Value| l["metadata"]["x_correlation_id"].as_str().unwrap()).collect();
        ids.iter().map(|id| ids.iter().position(|other| other == id).unwrap()).collect()
    };
    assert_eq!(shared(&lines), shared(&theirs));
}

#[test]
fn an_endpoint_without_tokens_and_streams() {
    let exported = compare("embeddings");
    assert!(exported.report.metric("output_sequence_length").is_none());
}

#[test]
fn a_run_cut_by_an_interrupt() {
    let exported = compare("sigint");
    assert!(exported.report.was_cancelled && !exported.report.is_complete());
    let text = console::render(&exported.report, 140, false);
    assert!(text.contains("INCOMPLETE RESULTS"));
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
    for run in ["chat_stream_concurrency", "errors_30pct", "fixed_schedule", "multiturn", "sigint", "embeddings"] {
        let exported = export(&log_of(run, true));
        let ours = exported.text("profile_export.jsonl");
        let theirs = read(run, "profile_export.jsonl");
        let summary: Value = serde_json::from_str(&read(run, "profile_export_aiperf.json")).unwrap();
        assert_eq!(ours.lines().count(), theirs.lines().count());
        for (ours, theirs) in ours.lines().zip(theirs.lines()) {
            compare_line(ours, theirs, &summary);
        }
    }
}

fn compare_line(ours: &str, theirs: &str, summary: &Value) {
    let (a, b): (Value, Value) = (serde_json::from_str(ours).unwrap(), serde_json::from_str(theirs).unwrap());
    // The reference's are kept apart here, see `transfers_have_the_reference_s_times`.
    let without_trace: Vec<&str> = keys(&a).into_iter().filter(|key| *key != "trace_data").collect();
    assert_eq!(without_trace, keys(&b));
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
        if reading["value"] == 0 && tag == "output_sequence_length" || ends_with_its_piece(tag, summary) {
            continue;
        }
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
        let known = b["metrics"].get(tag).is_some() || is_ours(tag);
        assert!(known, "{tag} is new");
    }
}

#[test]
fn what_was_sent_and_received_is_the_reference_s() {
    for (run, kept) in [("chat_stream_concurrency", 6), ("errors_30pct", 2)] {
        let exported = export(&log_of(run, true));
        let ours = exported.text("profile_export_raw.jsonl");
        let rows = rows_of(run);
        let pairs: Vec<(Value, &Value)> = ours
            .lines()
            .zip(&rows)
            .filter_map(|(line, row)| Some((serde_json::from_str(line).unwrap(), row.0.get("raw")?)))
            .collect();
        assert_eq!(pairs.len(), kept);
        for (mut ours, theirs) in pairs {
            // The reference's records do not say how many bytes a failed request brought.
            ours.as_object_mut().unwrap().shift_remove("responses_cut");
            assert_eq!(keys(&ours), keys(theirs));
            assert_eq!(ours["payload"], theirs["payload"]);
            assert_eq!(ours["error"], theirs["error"]);
            assert_eq!(ours["status"], theirs["status"]);
            compare_responses(&ours, theirs);
            if run == "chat_stream_concurrency" {
                let mut names = [keys(&ours["request_headers"]), keys(&theirs["request_headers"])];
                names.iter_mut().for_each(|names| names.sort_unstable());
                assert_eq!(names[0], names[1]);
            }
        }
    }
}

/// Messages, and their times from the start of the request: the axes differ.
fn compare_responses(ours: &Value, theirs: &Value) {
    let (a, b) = (ours["responses"].as_array().unwrap(), theirs["responses"].as_array().unwrap());
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        let after =
            |line: &Value, at: &Value| at["perf_ns"].as_u64().unwrap() - line["start_perf_ns"].as_u64().unwrap();
        assert_eq!((after(ours, a), &a["packets"]), (after(theirs, b), &b["packets"]));
    }
}

#[test]
fn transfers_have_the_reference_s_times() {
    let run = "chat_stream_concurrency";
    let exported = export(&log_of(run, true));
    let lines = exported.text("profile_export.jsonl");
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let theirs = read(run, "trace_data.jsonl");
    assert_eq!(theirs.lines().count(), 4);
    for (theirs, ours) in theirs.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).zip(&lines) {
        let (ours, theirs) = (&ours["trace_data"], &theirs["trace_data"]);
        for key in ["sending_ns", "waiting_ns", "duration_ns", "connecting_ns"] {
            assert_eq!(ours[key], theirs[key], "{key}");
        }
        for key in ["response_status_code", "response_chunks_count", "request_bytes_total", "response_bytes_total"] {
            assert_eq!(ours[key], theirs[key], "{key}");
        }
        let known = |key: &&str| theirs.get(*key).is_some() || ["blocked_ns"].contains(key);
        assert!(keys(ours).iter().all(known), "{:?}", keys(ours));
    }
}

#[test]
fn answers_stand_in_their_file_as_in_the_reference_s() {
    let exported = export(&log_of("chat_stream_concurrency", true));
    let (ours, theirs) = (exported.text("outputs.json"), read("chat_stream_concurrency", "outputs.json"));
    assert_eq!(ours.lines().count(), theirs.lines().count(), "the same layout");
    let (ours, theirs): (Value, Value) = (serde_json::from_str(&ours).unwrap(), serde_json::from_str(&theirs).unwrap());
    assert_eq!(ours["schema_version"], theirs["schema_version"]);
    let (a, b) = (ours["data"].as_array().unwrap(), theirs["data"].as_array().unwrap());
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        assert_eq!(keys(a), keys(b));
        assert_eq!(keys(&a["metrics"]), keys(&b["metrics"]));
        // In the fabricated records an answer's text is the number of its tokens.
        assert_eq!(a["response_text"].as_str().unwrap(), b["metrics"]["output_token_count"].to_string());
        for key in ["session_num", "conversation_id", "turn_index", "request_start_ns", "request_end_ns"] {
            assert_eq!(a[key], b[key], "{key}");
        }
        for tag in keys(&b["metrics"]) {
            let (x, y) = (a["metrics"][tag].as_f64().unwrap(), b["metrics"][tag].as_f64().unwrap());
            assert!((x - y).abs() <= 1e-9 * y.abs(), "{tag}: {x} or {y}");
        }
    }
}

#[test]
fn phases_have_summaries_of_their_own() {
    let run = "chat_stream_concurrency";
    let exported = export(&log_of(run, true));
    let theirs: Value = serde_json::from_str(&read(run, "phase_manifest.json")).unwrap();
    let ours: Value = serde_json::from_str(&exported.text("phase_manifest.json")).unwrap();
    assert_eq!(ours["schema_version"], theirs["schema_version"]);
    for (ours, theirs) in ours["phases"].as_array().unwrap().iter().zip(theirs["phases"].as_array().unwrap()) {
        let absent = ["server_metrics_json"];
        let wanted: Vec<&str> = keys(theirs).into_iter().filter(|k| !absent.contains(k)).collect();
        let shared: Vec<&str> = keys(ours).into_iter().filter(|k| *k != "ledger").collect();
        assert_eq!(shared, wanted);
        for key in wanted {
            assert_eq!(ours[key], theirs[key], "{key}");
        }
    }
    // The reference's whole is its profiling phase here, and its warm-up metrics are its warm-up phase.
    let whole: Value = serde_json::from_str(&read(run, "profile_export_aiperf.json")).unwrap();
    let phase = |name: &str| -> Value {
        serde_json::from_str(&exported.text(&format!("phases/{name}/profile_export_aiperf.json"))).unwrap()
    };
    let mut profiling = whole.clone();
    profiling.as_object_mut().unwrap().shift_remove("warmup_metrics");
    compare_json(&phase("profiling"), &profiling);
    for (tag, metric) in whole["warmup_metrics"].as_object().unwrap() {
        compare_metric(tag, &phase("warmup")[tag], metric, &whole);
    }
    let csv = exported.text("phases/profiling/profile_export_aiperf.csv");
    assert!(csv.starts_with("Metric,avg,") && !csv.contains("GPU_Index") && csv.ends_with("\r\n"));
}

#[test]
fn slices_have_the_reference_s_rows_and_values() {
    let run = "chat_stream_concurrency";
    let exported = export(&log_of(run, true));
    let name = "profile_export_aiperf_timeslices.json";
    let ours: Value = serde_json::from_str(&exported.text(name)).unwrap();
    let theirs: Value = serde_json::from_str(&read(run, name)).unwrap();
    assert_eq!(ours["input_config"], theirs["input_config"]);
    let (a, b) = (ours["timeslices"].as_array().unwrap(), theirs["timeslices"].as_array().unwrap());
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        for edge in ["start_ns", "end_ns"] {
            assert!(a[edge].as_u64().unwrap().abs_diff(b[edge].as_u64().unwrap()) <= 256, "a step of its clock");
        }
        for tag in keys(b).into_iter().filter(|key| is_metric(&b[key])) {
            compare_metric(tag, &a[tag], &b[tag], &theirs);
        }
    }
    let name = "profile_export_aiperf_timeslices.csv";
    compare_slice_rows(&exported.text(name), &read(run, name));
}

fn compare_slice_rows(ours: &str, theirs: &str) {
    let own = |row: &[&str]| metric::METRICS.iter().any(|m| m.has(metric::flag::OURS) && m.header == row[3]);
    // No name of a metric holds a comma.
    let rows = |text: &str| -> Vec<Vec<String>> {
        assert!(!text.replace("\r\n", "").contains(['\r', '\n']), "every line ends in CRLF");
        let rows = text.lines().map(|line| line.split(',').collect::<Vec<_>>()).filter(|row| !own(row));
        rows.map(|row| row.into_iter().map(str::to_owned).collect()).collect()
    };
    let (ours, theirs) = (rows(ours), rows(theirs));
    let known = |rows: &[Vec<String>], row: &[String]| rows.iter().any(|r| r[0] == row[0] && r[3..6] == row[3..6]);
    for row in &ours {
        // Latency from the due time is in the reference's whole, but not in its slices.
        let more = ["Effective Latency (CO-aware)", "Credit-to-Start Latency"].contains(&row[3].as_str());
        assert!(more || known(&theirs, row), "{row:?} is new");
    }
    let shared: Vec<_> = ours.iter().filter(|row| known(&theirs, row)).collect();
    assert_eq!(shared.len(), theirs.len());
    for (a, b) in shared.iter().zip(&theirs) {
        assert_eq!((&a[0], &a[3..6]), (&b[0], &b[3..6]));
        if a[3] == "Metric" {
            continue;
        }
        let tag = metric::METRICS.iter().find(|m| m.header == b[3]).unwrap().tag;
        let (x, y): (f64, f64) = (a[6].parse().unwrap(), b[6].parse().unwrap());
        assert!(agree(tag, &b[5], x, y) || (x - y).abs() < 0.011, "{tag}.{}: {x}, the reference has {y}", b[5]);
    }
}

/// First cells of the rows of every table, by the table's title; a label on two lines is one.
fn tables(text: &str) -> Vec<(String, Vec<String>)> {
    let mut all: Vec<(String, Vec<String>)> = Vec::new();
    let (mut before, mut inside) = ("", false);
    for line in text.lines() {
        inside &= !line.starts_with('└');
        if line.starts_with('┏') {
            let title = before.trim();
            all.push((title.split_once(" | ").map_or(title, |(_, t)| t).to_owned(), Vec::new()));
            inside = true;
        } else if inside
            && let Some(row) = line.strip_prefix('│')
            && let Some((_, rows)) = all.last_mut()
        {
            let cells: Vec<&str> = row.split('│').map(str::trim).collect();
            match (cells[1].is_empty(), rows.last_mut()) {
                (true, Some(label)) => *label = format!("{label} {}", cells[0]),
                _ => rows.push(cells[0].to_owned()),
            }
        }
        before = line;
    }
    all
}

#[test]
fn the_console_has_the_reference_s_tables_and_rows_in_its_order() {
    for run in ["chat_stream_concurrency", "errors_30pct", "fixed_schedule", "rate_goodput", "multiturn", "embeddings"]
    {
        let exported = export(&log_of(run, true));
        let ours = tables(&exported.text("profile_export_console.txt"));
        let mut theirs = tables(&read(run, "profile_export_console.txt"));
        theirs.retain(|(title, _)| !title.contains("Error"));
        if run == "embeddings" {
            theirs.retain(|(title, _)| !title.contains("Active"));
            theirs.iter_mut().for_each(|(_, rows)| rows.retain(|row| row != "Output Sequence Length (tokens)"));
        }
        let shared: Vec<_> = ours.iter().filter(|(title, _)| theirs.iter().any(|(t, _)| t == title)).collect();
        let titles = |tables: &[&(String, Vec<String>)]| tables.iter().map(|(t, _)| t.clone()).collect::<Vec<_>>();
        assert_eq!(titles(&shared), titles(&theirs.iter().collect::<Vec<_>>()), "{run}");
        for ((title, ours), (_, theirs)) in shared.into_iter().zip(&theirs) {
            assert_eq!(ours, theirs, "{run}: {title}");
        }
    }
}

#[test]
fn the_histogram_log_reads_back() {
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
    let exported = export(&log_of("chat_stream_concurrency", true));
    let text = exported.text("profile_export.hlog");
    for tag in ["request_latency", "time_to_first_token", "inter_token_latency"] {
        let mut whole = hdrhistogram::Histogram::<u64>::new(3).unwrap();
        let mut last = None;
        for entry in IntervalLogIterator::new(text.as_bytes()) {
            let LogEntry::Interval(interval) = entry.unwrap() else { continue };
            if interval.tag().map(|t| t.as_str().to_owned()).as_deref() == Some(tag) {
                assert!(last < Some(interval.start_timestamp()), "intervals in order");
                last = Some(interval.start_timestamp());
                let bytes = base64(interval.encoded_histogram());
                let histogram: hdrhistogram::Histogram<u64> = Deserializer::new().deserialize(&mut &bytes[..]).unwrap();
                whole.add(histogram).unwrap();
            }
        }
        let exact = exported.report.metric(tag).unwrap().summary;
        assert_eq!(Some(whole.len()), exact.count, "{tag}");
        for (seen, exact) in [(whole.mean(), exact.avg), (whole.max() as f64, exact.max)] {
            let exact = exact.unwrap() * 1e6;
            assert!((seen - exact).abs() <= 1e-3 * exact, "{tag}: {seen}, exactly {exact}");
        }
    }
}

fn base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut held, mut bits) = (Vec::new(), 0u32, 0);
    for digit in text.bytes().filter(|b| *b != b'=') {
        held = held << 6 | DIGITS.iter().position(|d| *d == digit).unwrap() as u32;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
        }
    }
    bytes
}

#[test]
fn the_parquet_file_has_the_values_of_the_lines_and_their_units() {
    use arrow_array::{Array, Float64Array, Int64Array, cast::AsArray};
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    for run in ["chat_stream_concurrency", "errors_30pct"] {
        let exported = export(&log_of(run, true));
        let file = std::fs::File::open(exported.dir.path().join("profile_export.parquet")).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        let units = reader.metadata().file_metadata().key_value_metadata().unwrap();
        let units = units.iter().find(|pair| pair.key == "units").unwrap().value.clone().unwrap();
        let units: Value = serde_json::from_str(&units).unwrap();
        let batches: Vec<_> = reader.build().unwrap().map(Result::unwrap).collect();
        let [batch] = batches.as_slice() else { panic!("{} batches", batches.len()) };
        let lines = exported.text("profile_export.jsonl");
        let lines: Vec<Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(batch.num_rows(), lines.len());
        for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
            let Some(metric) = metric::find(field.name()) else { continue };
            assert_eq!(field.metadata().get("unit").map(String::as_str), Some(metric.display));
            assert_eq!(units[field.name()], metric.display);
            for (row, line) in lines.iter().enumerate() {
                let value = &line["metrics"][field.name()]["value"];
                assert_eq!(column.is_valid(row), !value.is_null(), "{}", field.name());
                if let Some(reals) = column.as_any().downcast_ref::<Float64Array>().filter(|c| c.is_valid(row)) {
                    assert_eq!(Some(reals.value(row)), value.as_f64());
                } else if let Some(whole) = column.as_any().downcast_ref::<Int64Array>().filter(|c| c.is_valid(row)) {
                    assert_eq!(Some(whole.value(row)), value.as_i64());
                } else if let Some(list) = column.as_list_opt::<i32>().filter(|c| c.is_valid(row)) {
                    assert_eq!(Some(list.value(row).len()), value.as_array().map(Vec::len));
                }
            }
        }
        let codes = batch.column_by_name("error_code").unwrap();
        let failed = lines.iter().filter(|l| l.get("error").is_some()).count();
        assert_eq!(codes.len() - codes.null_count(), failed);
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
