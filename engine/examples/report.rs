//! A record log of any size, and a report of it: what `benches/report` measures.
//!
//! ```text
//! report make FILE RECORDS [GAPS [LAW]]
//!                                    write a log: streams at 20,000/s, GAPS gaps between chunks in each payload, planned
//!                                    times by LAW: constant (the default), poisson
//! report read FILE [SLICE_MS]        build the report, and the slices if a width is given; print a few figures
//! report verify FILE                 check the log
//! ```

use maser_engine::clock::{Anchor, Instant, MILLI};
use maser_engine::log::{End, Header, Kind, Log, MAGIC, PhaseInfo, PhaseMark};
use maser_engine::log::{RequestInfo, put_block, put_json, put_record, put_request};
use maser_engine::record::{Outcome, Record, UNKNOWN, flag, part, put_leb128, put_part};
use maser_engine::report::{Options, Report, verify};
use maser_engine::schedule::Spec;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<u64>().map_err(|e| io::Error::other(format!("{text}: {e}")));
    match args.as_slice() {
        ["make", file, records] => make(Path::new(file), number(records)?, 0, "constant"),
        ["make", file, records, gaps] => make(Path::new(file), number(records)?, number(gaps)?, "constant"),
        ["make", file, records, gaps, law] => make(Path::new(file), number(records)?, number(gaps)?, law),
        ["read", file] => read(Path::new(file), None),
        ["read", file, ms] => read(Path::new(file), Some(number(ms)? * MILLI)),
        ["verify", file] => check(Path::new(file)),
        _ => Err(io::Error::other("usage: report make FILE RECORDS [GAPS [LAW]] | read FILE [SLICE_MS] | verify FILE")),
    }
}

/// Requests in the table; records refer to them in turn.
const REQUESTS: u64 = 1000;
/// Requests planned in a second.
const RATE: f64 = 20_000.0;
const ZERO: u64 = 1_000_000_000;

fn make(path: &Path, records: u64, gaps: u64, law: &str) -> io::Result<()> {
    let plan = match law {
        "constant" => Spec::Constant(RATE),
        "poisson" => Spec::Poisson(RATE),
        _ => return Err(io::Error::other(format!("{law} is no law: constant, poisson"))),
    };
    let mut plan = plan.arrivals(1);
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut head = MAGIC.to_vec();
    put_json(&mut head, Kind::Header, &header(law));
    let mut table = Vec::new();
    for n in 0..REQUESTS {
        let conversation = format!("session_{n:06}");
        let input_tokens = Some(100 + (n * 37 % 900) as u32);
        let row = RequestInfo {
            conversation: &conversation,
            turn: 0,
            input_tokens,
            max_tokens: Some(128),
            ..RequestInfo::default()
        };
        put_request(&mut table, &row);
    }
    put_block(&mut head, Kind::Requests, REQUESTS as u32, &table);
    out.write_all(&head)?;
    let mut random = 1;
    let (mut block, mut body, mut count, mut last) = (Vec::new(), Vec::new(), 0, ZERO);
    let mut due = ZERO;
    for seq in 0..records {
        due = ZERO + plan.next_offset().unwrap_or_default();
        let (record, payload) = record(seq, due, gaps, &mut random);
        last = last.max(record.done.0);
        put_record(&mut body, &record, &payload);
        count += 1;
        if body.len() >= 64 << 10 || seq + 1 == records {
            block.clear();
            put_block(&mut block, Kind::Records, count, &body);
            out.write_all(&block)?;
            (count, body) = (0, Vec::new());
        }
    }
    let mut tail = Vec::new();
    let mark = PhaseMark { start: Instant(ZERO), end: Instant(last), issued: records, ..PhaseMark::default() };
    put_json(&mut tail, Kind::Phase, &PhaseMark { sent_end: Instant(due), ..mark });
    put_json(&mut tail, Kind::End, &End { issued: records, records, ..End::default() });
    out.write_all(&tail)?;
    out.flush()
}

/// Latencies with a long tail, one request in a thousand failed.
fn record(seq: u64, due: u64, gaps: u64, random: &mut u64) -> (Record, Vec<u8>) {
    let mut draw = || {
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        *random
    };
    let tail = |x: u64| (1 + x % 1000) * (1 + x / 1000 % 8) * 1000;
    let start = due + draw() % 20_000;
    let sent = start + 1000 + draw() % 2000;
    let first = sent + 200_000 + tail(draw());
    let tokens = 2 + draw() % 120;
    let mut payload = Vec::new();
    let mut decode = 0;
    let mut second = 0;
    let mut bytes = Vec::new();
    for k in 0..gaps {
        let gap = 1_000_000 + draw() % 500_000;
        put_leb128(&mut bytes, gap);
        decode += gap;
        second = if k == 0 { first + gap } else { second };
    }
    put_part(&mut payload, part::GAPS, &bytes);
    if gaps == 0 {
        decode = (tokens - 1) * (100_000 + draw() % 50_000);
        second = first + decode / (tokens - 1);
    }
    let ok = draw() % 1000 > 0;
    let done = first + decode + draw() % 10_000;
    let set = |at: u64| Instant(if ok { at } else { 0 });
    let record = Record {
        seq,
        due: Instant(due),
        start: Instant(start),
        sent: Instant(sent),
        send_end: Instant(sent + 3000 + draw() % 1000),
        first_byte: set(first - draw() % 50_000),
        first_body: set(first),
        first_token: set(first),
        second_token: set(second),
        first_output: set(first),
        last_token: set(first + decode),
        done: Instant(done),
        request: (seq % REQUESTS) as u32,
        bytes_sent: 900,
        bytes_received: 4000 + (draw() % 1000) as u32,
        chunks: gaps as u32 + 1,
        reads: 1 + (draw() % 5) as u32,
        usage_prompt: 100 + (seq % 900) as u32,
        usage_completion: tokens as u32,
        usage_reasoning: UNKNOWN,
        usage_cached: UNKNOWN,
        usage_total: 100 + (seq % 900) as u32 + tokens as u32,
        payload_len: payload.len() as u32,
        status: if ok { 200 } else { 0 },
        flags: flag::SCHEDULED | flag::REUSED | flag::STREAMED,
        outcome: if ok { Outcome::Ok } else { Outcome::Reset } as u8,
        ..bytemuck::Zeroable::zeroed()
    };
    (record, payload)
}

fn header(law: &str) -> Header {
    Header {
        maser_version: env!("CARGO_PKG_VERSION").into(),
        benchmark_id: "0123456789ab".into(),
        run_key: 1,
        anchor: Anchor { mono: Instant(ZERO), wall: 1_700_000_000_000_000_000 },
        cli_command: "maser profile".into(),
        input_config: serde_json::json!({"phases": [{"type": law, "rate": RATE}]}),
        endpoint: "chat".into(),
        streaming: true,
        phases: vec![PhaseInfo { name: "profiling".into(), warmup: false }],
        use_server_token_count: true,
        export_level: "summary".into(),
        topology: serde_json::json!({}),
        ..Header::default()
    }
}

fn read(path: &Path, slice: Option<u64>) -> io::Result<()> {
    let log = Log::open(path)?;
    let options = Options { threads: 2, ..Options::default() };
    let report = Report::build(&log, &options);
    println!("{} valid, {} failed, {} rows", report.valid, report.failed, report.metrics.len());
    for tag in ["request_latency", "time_to_first_token", "effective_concurrency", "effective_decode_throughput"] {
        if let Some(entry) = report.metric(tag) {
            println!("{tag}: {:?}", entry.summary);
        }
    }
    report.arrivals.iter().for_each(|(_, arrivals)| println!("{arrivals:?}"));
    if let Some(duration) = slice {
        let (slices, entries) = report
            .slices(&log, duration, &options)
            .fold((0, 0), |(slices, entries), slice| (slices + 1, entries + slice.metrics.len()));
        println!("{slices} slices, {entries} entries");
    }
    Ok(())
}

fn check(path: &Path) -> io::Result<()> {
    let verification = verify(&Log::open(path)?);
    println!("{} blocks, {} records", verification.blocks, verification.records);
    verification.findings.iter().for_each(|finding| println!("{finding}"));
    Ok(())
}
