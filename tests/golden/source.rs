//! The reference's records as a record log of ours, and everything written from it.

use maser::export::{ExportOptions, Written, write_all};
use maser_datasets::Tokenizer;
use maser_engine::clock::{Anchor, Instant};
use maser_engine::log::{
    End, FILE_NAME, Header, Kind, Log, MAGIC, PhaseInfo, PhaseMark, RequestInfo, put_block, put_json, put_record,
    put_request,
};
use maser_engine::record::{Outcome, Record, UNKNOWN, flag, part, put_leb128, put_part, put_piece};
use maser_engine::report::{Options, Report};
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

pub(crate) fn data(run: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden").join(run)
}

pub(crate) fn read(run: &str, file: &str) -> String {
    std::fs::read_to_string(data(run).join(file)).unwrap()
}

/// One line of the reference's records.
pub(crate) struct Row(pub(crate) Value);

impl Row {
    pub(crate) fn meta(&self, key: &str) -> &Value {
        &self.0["metadata"][key]
    }

    pub(crate) fn wall(&self, key: &str) -> Option<u64> {
        self.meta(key).as_u64()
    }

    pub(crate) fn metric(&self, tag: &str) -> Option<f64> {
        self.0["metrics"][tag]["value"].as_f64()
    }

    /// A time metric in nanoseconds: the file has milliseconds.
    pub(crate) fn nanos(&self, tag: &str) -> Option<u64> {
        Some((self.metric(tag)? * 1e6).round() as u64)
    }

    pub(crate) fn count(&self, tag: &str) -> u32 {
        self.metric(tag).map_or(UNKNOWN, |x| x.round() as u32)
    }
}

/// The axis of the fabricated records begins a second before the first of them.
pub(crate) struct Axis {
    anchor: Anchor,
}

impl Axis {
    pub(crate) fn at(&self, wall: u64) -> Instant {
        self.anchor.mono.after(wall - self.anchor.wall)
    }
}

pub(crate) fn fabricate(row: &Row, (index, session): (u32, u64), axis: &Axis, flags: u16) -> (Record, Vec<u8>) {
    let start = axis.at(row.wall("request_start_ns").unwrap());
    let done = axis.at(row.wall("request_end_ns").unwrap());
    let after_start = |tag: &str| row.nanos(tag).map_or(Instant::UNSET, |ns| start.after(ns));
    let first_token = after_start("time_to_first_token");
    let sent = row.nanos("http_req_duration").map_or(start, |ns| done.before(ns));
    let send_end = sent.after(row.nanos("http_req_sending").unwrap_or(0));
    let error = &row.0["error"];
    let mut payload = Vec::new();
    let reply = row.0["reply"].as_str().map(str::to_owned);
    let tokens = reply.or_else(|| row.metric("output_token_count").map(|n| n.to_string()));
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
pub(crate) fn raw_parts(row: &Value, payload: &mut Vec<u8>) {
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
pub(crate) fn rows_of(run: &str) -> Vec<Row> {
    let raw = std::fs::read_to_string(data(run).join("profile_export_raw.jsonl")).unwrap_or_default();
    let raw: Vec<Value> = raw.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let id = |line: &Value| line["metadata"]["x_request_id"].clone();
    let with_raw = |line: &str| {
        let mut row: Value = serde_json::from_str(line).unwrap();
        if let Some(raw) = raw.iter().find(|r| id(r) == id(&row)) {
            row["raw"] = raw.clone();
        }
        if run == HISTORY {
            row["reply"] = REPLY.into();
        }
        Row(row)
    };
    read(run, "profile_export.jsonl").lines().map(with_raw).collect()
}

pub(crate) fn requested(row: &Row) -> Option<u32> {
    let off = row.metric("osl_mismatch_diff_pct")?;
    Some((row.metric("output_sequence_length")? / (1.0 + off / 100.0)).round() as u32)
}

pub(crate) fn stamp(text: &Value) -> u64 {
    let stamp = format!("{}+00:00", text.as_str().unwrap());
    let at = chrono::DateTime::parse_from_rfc3339(&stamp).unwrap();
    at.timestamp_micros() as u64 * 1000
}

/// Start and end of each phase. Where the reference left no manifest its summary gives the start to a microsecond, and
/// requests divided by throughput the length.
pub(crate) fn phases(run: &str, summary: &Value) -> Vec<(&'static str, u64, u64)> {
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
pub(crate) fn log_of(run: &str, ended: bool) -> Vec<u8> {
    log_due(run, ended, |row| row.wall("credit_issued_ns").unwrap())
}

/// The run with the times of its trace as due times.
pub(crate) fn log_of_trace(run: &str) -> Vec<u8> {
    let stamps = timestamps(run);
    let index = |row: &Row| row.meta("conversation_id").as_str().unwrap()[1..].parse::<usize>().unwrap();
    let first = rows_of(run).iter().map(|row| row.wall("request_start_ns").unwrap() - stamps[index(row)]).min();
    log_due(run, true, |row| first.unwrap() + stamps[index(row)])
}

/// `due`: when a request was planned, on the wall clock.
fn log_due(run: &str, ended: bool, due: impl Fn(&Row) -> u64) -> Vec<u8> {
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
    let own = if run == HISTORY { own_tokens(run) } else { HashMap::new() };
    for (k, row) in rows.iter().enumerate() {
        let isl = row.metric("input_sequence_length").or(row.metric("error_isl"));
        let conversation = row.meta("conversation_id").as_str().unwrap();
        let turn = row.meta("turn_index").as_u64().unwrap() as u32;
        let turns = own.get(conversation);
        let input_tokens = turns.map_or(isl.map(|x| x as u32), |own| Some(own[turn as usize]));
        let keeps_reply = turns.is_some_and(|own| (turn as usize) + 1 < own.len());
        let max_tokens = requested(row);
        let info = RequestInfo { conversation, turn, input_tokens, max_tokens, keeps_reply, ..RequestInfo::default() };
        put_request(&mut table, &info);
        let id = row.meta("x_correlation_id");
        let session = rows.iter().position(|other| other.meta("x_correlation_id") == id).unwrap();
        let (mut record, payload) = fabricate(row, (k as u32, session as u64), &axis, flags);
        record.due = axis.at(due(row));
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

pub(crate) fn header(run: &str, summary: &Value, axis: &Axis, phases: &[(&str, u64, u64)]) -> Header {
    let info = &summary["run_info"];
    Header {
        requests: None,
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
        session_headers: vec!["X-Session-Affinity".into()],
        request_headers: [
            ("User-Agent", "aiperf/0.13.0"),
            ("X-Test", "abc"),
            ("Accept", "text/event-stream"),
            ("Content-Type", "application/json"),
        ]
        .map(|(name, value)| (name.into(), value.into()))
        .into(),
        has_inputs: true,
        request_path: String::new(),
        notes: Vec::new(),
    }
}

/// The run whose inputs hold answers: its logs have the lengths without them.
const HISTORY: &str = "multiturn";

/// What the reference's server said in every turn of `multiturn`.
const REPLY: &str = " the of and to in is that for it as was with be by on not";

/// Counts a text of the fabricated records: the number that it is, or [`REPLY`] with the built-in tokenizer's tokens.
pub(crate) fn decimal(text: &str) -> u32 {
    let number = text.trim().parse::<f64>().map(|n| n as u32);
    number.unwrap_or_else(|_| builtin().count(text) as u32)
}

fn builtin() -> &'static Tokenizer {
    static BUILTIN: LazyLock<Tokenizer> = LazyLock::new(Tokenizer::builtin);
    &BUILTIN
}

/// Tokens of the user's texts up to each turn, joined with a space, by conversation.
fn own_tokens(run: &str) -> HashMap<String, Vec<u32>> {
    let inputs: Value = serde_json::from_str(&read(run, "inputs.json")).unwrap();
    let session = |session: &Value| {
        let turns = session["payloads"].as_array().unwrap().iter();
        let texts: Vec<&str> = turns.map(|body| body["messages"][0]["content"].as_str().unwrap()).collect();
        let upto = |k: usize| builtin().count(&texts[..=k].join(" ")) as u32;
        (session["session_id"].as_str().unwrap().to_owned(), (0..texts.len()).map(upto).collect())
    };
    inputs["data"].as_array().unwrap().iter().map(session).collect()
}

/// The trace's timestamps, nanoseconds, row by row.
fn timestamps(run: &str) -> Vec<u64> {
    let row = |line: &str| serde_json::from_str::<Value>(line).unwrap()["timestamp"].as_f64().unwrap() * 1e6;
    read(run, "input_trace.jsonl").lines().map(|line| row(line).round() as u64).collect()
}

pub(crate) struct Exported {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) log: Log,
    pub(crate) report: Report,
    pub(crate) results: Vec<Result<Written, String>>,
}

pub(crate) fn export(bytes: &[u8]) -> Exported {
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
    pub(crate) fn text(&self, file: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(file)).unwrap()
    }
}
