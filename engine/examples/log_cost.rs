//! What the record log costs an executor: filling a record, putting its payload together, pushing both into the ring.
//!
//! ```text
//! log_cost push RECORDS    the executor's side alone, into a ring that holds them all
//! log_cost all RECORDS     the same, drained every 64 records into blocks of a log, as the collector does it
//! ```
//!
//! Prints nanoseconds a record. Two runs of different length under `valgrind --tool=callgrind` give the instructions of one
//! record by their difference.

use maser_engine::clock::{self, Instant};
use maser_engine::log::{Kind, put_block, put_record};
use maser_engine::record::{Outcome, Record, UNKNOWN, flag, part, put_leb128, put_part};
use maser_engine::ring::{FrameConsumer, FrameProducer, frames};
use std::hint::black_box;
use std::io;

/// Gaps between the chunks of an answer: about three bytes each.
const GAPS: u64 = 8;
/// Visible text of an answer, captured for the client's tokenizer.
const TEXT: [u8; 64] = [b'a'; 64];
/// Records between two turns of the collector.
const BATCH: usize = 64;

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [mode, records] = args.as_slice() else {
        return Err(io::Error::other("usage: log_cost push|all RECORDS"));
    };
    let records: usize = records.parse().map_err(|e| io::Error::other(format!("{records}: {e}")))?;
    let drained = mode == "all";
    let held = if drained { BATCH } else { records };
    let (mut tx, mut rx) = frames::<Record>(held, held * 256);
    let (mut payload, mut gaps) = (Vec::with_capacity(256), Vec::with_capacity(64));
    let (mut log, mut body) = (Vec::new(), Vec::new());
    let from = clock::now();
    for seq in 0..records {
        executor(&mut tx, seq as u64, &mut payload, &mut gaps)?;
        if drained && (seq + 1) % BATCH == 0 {
            collector(&mut rx, &mut payload, &mut body, &mut log);
        }
    }
    let spent = clock::now().since(from);
    println!("{:.1} ns a record", spent as f64 / records.max(1) as f64);
    Ok(())
}

fn executor(tx: &mut FrameProducer<Record>, seq: u64, payload: &mut Vec<u8>, gaps: &mut Vec<u8>) -> io::Result<()> {
    payload.clear();
    gaps.clear();
    for k in 0..GAPS {
        put_leb128(gaps, 1_000_000 + k * 1000);
    }
    put_part(payload, part::TEXT, black_box(&TEXT));
    put_part(payload, part::GAPS, gaps);
    let at = |ns: u64| Instant(black_box(1_000_000 * seq + ns));
    let record = Record {
        seq,
        due: at(0),
        start: at(1),
        sent: at(2),
        send_end: at(3),
        first_byte: at(4),
        first_body: at(5),
        first_token: at(6),
        second_token: at(7),
        first_output: at(8),
        last_token: at(9),
        done: at(10),
        chunks: GAPS as u32 + 1,
        usage_cached: UNKNOWN,
        payload_len: payload.len() as u32,
        status: 200,
        flags: flag::REUSED | flag::STREAMED,
        outcome: Outcome::Ok as u8,
        session: seq,
        ..bytemuck::Zeroable::zeroed()
    };
    tx.push(record, payload).map_err(|full| io::Error::other(format!("{full:?}")))
}

fn collector(rx: &mut FrameConsumer<Record>, payload: &mut Vec<u8>, body: &mut Vec<u8>, log: &mut Vec<u8>) {
    body.clear();
    log.clear();
    let mut count = 0;
    loop {
        payload.clear();
        let Some(record) = rx.pop(payload) else { break };
        put_record(body, &record, payload);
        count += 1;
    }
    put_block(log, Kind::Records, count, body);
    black_box(log);
}
