//! The record log: the run as it happened, append-only, in checksummed blocks.
//!
//! The file is [`MAGIC`], then blocks. A block is a head of 20 bytes (little endian: mark `u32`, kind `u16`, zero `u16`,
//! count `u32`, body length `u32`, CRC-32 of everything before and of the body `u32`) and its body. A reader takes every whole
//! block: damage costs the blocks that it is in, and a killed run the one that it was writing. Blocks of kinds that a reader does
//! not know are passed over.
//!
//! The first block is the [`Header`] (JSON), then the request table, then records and phase marks as they came, last the
//! [`End`] (JSON). A log without an end belongs to a run that was killed.

mod scan;

use crate::clock::{Anchor, Instant, Nanos};
use crate::record::{Payload, RECORD_SIZE, Record, UNKNOWN};
use memmap2::{Mmap, UncheckedAdvice};
use scan::{Block, block_at, scan};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;

/// The first 16 bytes of every log; the last is the format's version.
pub const MAGIC: [u8; 16] = *b"maser log\0\0\0\0\0\0\x01";

/// The log's name inside an artefact directory.
pub const FILE_NAME: &str = "records.maser";

const MARK: u32 = u32::from_le_bytes(*b"MBLK");
const HEAD: usize = 20;

/// What a block holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    /// JSON of a [`Header`].
    Header = 1,
    /// `count` rows of the request table, see [`put_request`].
    Requests = 2,
    /// `count` records, each followed by its payload.
    Records = 3,
    /// JSON of a [`PhaseMark`].
    Phase = 4,
    /// JSON of an [`End`].
    End = 5,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Header, Self::Requests, Self::Records, Self::Phase, Self::End];

    fn from_u16(n: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|k| *k as u16 == n)
    }
}

/// What a report must know that the records do not say.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the program that wrote the log.
    pub maser_version: String,
    /// Twelve hexadecimal digits.
    pub benchmark_id: String,
    /// Key of the request ids, see [`crate::record::request_id`].
    pub run_key: u64,
    /// Ties the records' axis to the wall clock.
    pub anchor: Anchor,
    /// The command line as typed, shell-quoted, secrets redacted.
    pub cli_command: String,
    /// The resolved settings, as the files show them.
    pub input_config: serde_json::Value,
    /// `--random-seed`, if given.
    pub random_seed: Option<u64>,
    /// Endpoint type, `chat`.
    pub endpoint: String,
    /// Whether `--streaming` was asked for.
    pub streaming: bool,
    /// The phases in order; a record's `phase` is an index into them.
    pub phases: Vec<PhaseInfo>,
    /// Whether a profiling phase replays a fixed schedule.
    pub fixed_schedule: bool,
    /// `builtin`, a path, or none (server counts).
    pub tokenizer: Option<String>,
    /// Take token counts from the server's usage.
    pub use_server_token_count: bool,
    /// `summary`, `records` or `raw`.
    pub export_level: String,
    /// `--profile-export-prefix`, if given.
    pub export_prefix: Option<String>,
    /// Threads, cores and I/O as they were found, for the results.
    pub topology: serde_json::Value,
    /// Name of the header that carries the session's id.
    #[serde(default)]
    pub correlation_header: String,
    /// Names of the headers that carry it too.
    #[serde(default = "affinity")]
    pub session_headers: Vec<String>,
    /// The headers that are the same in every request, in their order, secrets redacted.
    #[serde(default)]
    pub request_headers: Vec<(String, String)>,
    /// Whether the run has an `inputs.json`: its data are no trace.
    #[serde(default)]
    pub has_inputs: bool,
    /// Rows of the request table; not known of older logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<u64>,
    /// Path of the requests at the first server, without secrets; empty in logs of earlier versions.
    #[serde(default)]
    pub request_path: String,
    /// What the user was told of the settings before the load, a sentence each.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// What carried it in all logs that do not say.
fn affinity() -> Vec<String> {
    vec!["X-Session-Affinity".to_owned()]
}

/// A phase of the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseInfo {
    /// `warmup` or `profiling`.
    pub name: String,
    /// Whether its records are left out of the results.
    pub warmup: bool,
}

/// One phase as it went: written when it has ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseMark {
    /// Index of the phase.
    pub phase: u8,
    /// Its clock's zero.
    pub start: Instant,
    /// The last credit was issued.
    pub sent_end: Instant,
    /// The last credit was returned. Rates divide by `end − start`.
    pub end: Instant,
    /// Cut short by an interrupt.
    pub cancelled: bool,
    /// The grace period ran out with requests in flight.
    pub grace_expired: bool,
    /// Permissions to send: credits issued, and turns that executors sent at their own times. What a schedule offered.
    pub issued: u64,
    /// Credits that were never started: dropped, idle, or the phase was over first.
    pub unused: u64,
    /// Ticks issued ahead that the last request left over, and the stock of a closed loop that only time ended. They were not
    /// offered: neither in `issued` nor in `unused`.
    #[serde(default)]
    pub spare: u64,
    /// Requests that were sent, or were to be when their connection failed.
    #[serde(default)]
    pub sent: u64,
    /// Of `unused`: found no free slot at their time, and the policy was to drop such.
    #[serde(default)]
    pub dropped: u64,
    /// Of `unused`: had nothing to send at their time; all sessions were started and none was waiting.
    #[serde(default)]
    pub idle: u64,
    /// Of `sent`: waited for a slot first.
    #[serde(default)]
    pub queued: u64,
    /// Of `sent`: found no free slot and went beyond the limit.
    #[serde(default)]
    pub over_limit: u64,
    /// Of `sent`, in a closed loop: found nobody to connect to, so that their slot was held back.
    #[serde(default)]
    pub paused: u64,
    /// For how long, nanoseconds, the sum over slots.
    #[serde(default)]
    pub paused_ns: u64,
    /// Pauses of the client's threads of a millisecond or more while something was in flight or due.
    #[serde(default)]
    pub stalls: u64,
    /// Their lengths together, nanoseconds.
    #[serde(default)]
    pub stalled_ns: u64,
    /// The longest, nanoseconds.
    #[serde(default)]
    pub stall_longest_ns: u64,
    /// When that began.
    #[serde(default)]
    pub stall_longest_at: Instant,
    /// The least time that an executor's thread spent waiting for something to do, nanoseconds; 0 where that is not known.
    #[serde(default)]
    pub idle_ns: u64,
    /// Sessions of which a turn was sent.
    #[serde(default)]
    pub sessions: u64,
    /// Of `sessions`: ended before their last turn was sent.
    #[serde(default)]
    pub sessions_cut: u64,
    /// Of `sent`: still in flight when the next phase began.
    #[serde(default)]
    pub carried_over: u64,
    /// More requests failed than allowed, and the run was stopped.
    #[serde(default)]
    pub too_many_failed: bool,
    /// Fewer requests left on time than demanded, and the run was stopped.
    #[serde(default)]
    pub below_adherence: bool,
}

/// The last block: the run's own account of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct End {
    /// An interrupt ended the run early.
    pub was_cancelled: bool,
    /// Permissions to send, all phases: credits issued, and turns that executors sent at their own times.
    pub issued: u64,
    /// Credits returned unstarted.
    pub unused: u64,
    /// Records written.
    pub records: u64,
    /// Records that found the ring full.
    pub lost: u64,
    /// Payloads that found the ring full.
    pub payloads_lost: u64,
    /// Requests sent a second time because the server had closed a reused connection.
    pub retried: u64,
    /// Connections opened.
    pub connections: u64,
    /// Digest of the issued schedule, (due offset, request) in order: the same for any number of cores.
    pub schedule_digest: u64,
    /// User plus system CPU time of the process over the run, nanoseconds.
    pub cpu_ns: u64,
    /// A thread of the run died, and the run ended there: which and why, without a full stop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken: Option<String>,
}

/// One row of the request table: what the dataset knows of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RequestInfo<'a> {
    /// The conversation's id.
    pub conversation: &'a str,
    /// Index of the turn in its conversation.
    pub turn: u32,
    /// Input tokens by the client's tokenizer, if counted; without the server's answers to earlier turns.
    pub input_tokens: Option<u32>,
    /// Requested output tokens, if any.
    pub max_tokens: Option<u32>,
    /// The answer is part of the input of the session's later turns.
    pub keeps_reply: bool,
    /// What the session's earlier turns said is forgotten before this one.
    pub resets: bool,
    /// The images and the sound that it carries.
    pub media: Media,
}

/// What a request carries beside text.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Media {
    /// Images, those of the session's earlier turns included where it carries them.
    pub images: u32,
    /// Length of the first audio clip, seconds, where known.
    pub audio_seconds: Option<f64>,
}

impl Media {
    /// None at all.
    pub const NONE: Self = Self { images: 0, audio_seconds: None };
}

/// What a row of the request table gives to count with.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Lengths {
    /// As [`RequestInfo::input_tokens`].
    pub input: Option<u32>,
    /// As [`RequestInfo::max_tokens`].
    pub requested: Option<u32>,
    /// As [`RequestInfo::media`].
    pub media: Media,
}

/// Bits of the turn's word beside its number.
const KEEPS_REPLY: u32 = 1 << 31;
const RESETS: u32 = 1 << 30;
const HAS_MEDIA: u32 = 1 << 29;
const BITS: u32 = KEEPS_REPLY | RESETS | HAS_MEDIA;

/// Bytes of a row before the id, and of its media after it.
const ROW: usize = 16;
const MEDIA: usize = 12;

/// Appends a row to the body of a [`Kind::Requests`] block: input tokens, requested tokens, turn (`u32` each, little
/// endian, [`UNKNOWN`] for none), length of the id (`u32`) and the id. The three highest bits of the turn's word say
/// whether the reply is kept, whether history is forgotten, and whether the number of images (`u32`) and the seconds of
/// the first audio clip (`f64`, 0 for none or unknown) follow the id; in older logs they are 0.
pub fn put_request(body: &mut Vec<u8>, row: &RequestInfo<'_>) {
    let bit = |set: bool, bit: u32| if set { bit } else { 0 };
    let has_media = row.media != Media::NONE;
    for n in [
        row.input_tokens.unwrap_or(UNKNOWN),
        row.max_tokens.unwrap_or(UNKNOWN),
        row.turn & !BITS | bit(row.keeps_reply, KEEPS_REPLY) | bit(row.resets, RESETS) | bit(has_media, HAS_MEDIA),
        row.conversation.len() as u32,
    ] {
        body.extend_from_slice(&n.to_le_bytes());
    }
    body.extend_from_slice(row.conversation.as_bytes());
    if has_media {
        body.extend_from_slice(&row.media.images.to_le_bytes());
        body.extend_from_slice(&row.media.audio_seconds.unwrap_or(0.0).to_le_bytes());
    }
}

/// Appends a record and its payload to the body of a [`Kind::Records`] block.
pub fn put_record(body: &mut Vec<u8>, record: &Record, payload: &[u8]) {
    debug_assert_eq!(record.payload_len as usize, payload.len());
    body.extend_from_slice(bytemuck::bytes_of(record));
    body.extend_from_slice(payload);
}

/// Appends a whole block to `out`.
pub fn put_block(out: &mut Vec<u8>, kind: Kind, count: u32, body: &[u8]) {
    let from = out.len();
    out.extend_from_slice(&MARK.to_le_bytes());
    out.extend_from_slice(&(kind as u16).to_le_bytes());
    out.extend_from_slice(&0u16.to_le_bytes());
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    let mut crc = crc32fast::Hasher::new();
    crc.update(&out[from..]);
    crc.update(body);
    out.extend_from_slice(&crc.finalize().to_le_bytes());
    out.extend_from_slice(body);
}

/// Appends a block of JSON to `out`.
pub fn put_json(out: &mut Vec<u8>, kind: Kind, value: &impl Serialize) {
    let body = serde_json::to_vec(value).unwrap_or_default();
    put_block(out, kind, 1, &body);
}

/// One block, described.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockInfo {
    /// What it holds.
    pub kind: Kind,
    /// How many of it.
    pub count: u32,
    /// Where its head begins.
    pub offset: u64,
    /// Bytes of its body.
    pub body: u64,
}

/// A part of a log that is not whole blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Offset of its first byte.
    pub offset: u64,
    /// Bytes from there to the next whole block, or the end of the file.
    pub bytes: u64,
    /// Records that were in it, where that can be told.
    pub records: Option<u64>,
}

/// A log, opened for reading.
#[derive(Debug)]
pub struct Log {
    map: Mmap,
    blocks: Vec<Block>,
    /// The run's description.
    pub header: Header,
    /// The phases that ended, in order.
    pub phases: Vec<PhaseMark>,
    /// The run's account; `None` if it was killed.
    pub end: Option<End>,
    /// What is not whole blocks, in order.
    pub damage: Vec<Damage>,
    /// The last block, where the file ends within it and it was begun well: a killed run was writing it, or the file was cut.
    pub torn: Option<Damage>,
    /// Whole blocks of kinds that this version does not know; they were passed over.
    pub unknown: u64,
    /// Offsets of the request table's rows.
    requests: Vec<usize>,
}

impl Log {
    /// Opens a log file and checks every block's checksum.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = std::fs::File::open(path)?;
        // SAFETY: the log is append-only and its writer never shortens it, so mapped bytes stay readable.
        let map = unsafe { Mmap::map(&file)? };
        if map.len() < MAGIC.len() || map[..MAGIC.len()] != MAGIC {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a maser record log of this version"));
        }
        let mut passed = 0;
        let scan::Scan { blocks, damage, torn, unknown } = scan(&map, |at| {
            if at - passed >= WINDOW {
                release(&map, passed, at);
                passed = at;
            }
        });
        let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        let header: Header = match blocks.first() {
            Some(b) if b.kind == Kind::Header => serde_json::from_slice(&map[b.from..b.to])
                .map_err(|e| invalid(format!("unreadable run header: {e}")))?,
            _ if damage.is_empty() => return Err(invalid("the log ends before its run header".into())),
            _ => return Err(invalid("its run header is damaged, and nothing in it can be told without that".into())),
        };
        let (mut phases, mut end, mut requests) = (Vec::new(), None, Vec::new());
        for b in &blocks {
            let body = &map[b.from..b.to];
            match b.kind {
                Kind::Phase => phases.extend(serde_json::from_slice::<PhaseMark>(body).ok()),
                Kind::End => end = serde_json::from_slice(body).ok(),
                Kind::Requests => request_rows(body, b, &mut requests),
                Kind::Header | Kind::Records => {}
            }
        }
        let log = Self { map, blocks, header, phases, end, damage, torn, unknown, requests };
        match log.table_damage() {
            Some(at) => Err(invalid(format!(
                "its request table is damaged (byte {at}), so what its records were sent for cannot be told"
            ))),
            None => Ok(log),
        }
    }

    /// Where the request table lacks rows that records may name.
    fn table_damage(&self) -> Option<u64> {
        let first = self.record_blocks().next().map_or(u64::MAX, |b| b.from as u64);
        let before = self.damage.iter().find(|damage| damage.offset < first);
        let complete = match self.header.requests {
            Some(rows) => rows == self.requests.len() as u64,
            // What older logs have before their records is the table.
            None => before.is_none_or(|damage| damage.records.is_some_and(|n| n > 0)),
        };
        let at = before.or(self.torn.as_ref()).map_or(0, |damage| damage.offset);
        (!complete && (before.is_some() || !self.is_empty())).then_some(at)
    }

    /// How many records were lost to damage of the file; `None` if that cannot be told.
    pub fn lost_to_damage(&self) -> Option<u64> {
        match &self.end {
            _ if self.damage.is_empty() => Some(0),
            Some(end) => Some(end.records.saturating_sub(self.len() as u64)),
            None => self.damage.iter().map(|damage| damage.records).sum(),
        }
    }

    /// For how long a run went that left no end, nanoseconds from the making of its header to its last record; `None` if it has
    /// none.
    pub fn killed_after(&self) -> Option<Nanos> {
        let last = self.blocks().filter(|b| b.kind == Kind::Records).last()?;
        let done = self.rows_of(&last).0.map(|(record, _)| record.done).max()?;
        Some(done.since(self.header.anchor.mono))
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.record_blocks().map(|b| b.count as usize).sum()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rows of the request table.
    pub fn request_count(&self) -> usize {
        self.requests.len()
    }

    /// A row of the request table.
    pub fn request(&self, index: u32) -> Option<RequestInfo<'_>> {
        request_at(&self.map, *self.requests.get(index as usize)?)
    }

    /// Whether the answer of any request is part of a later one's input.
    pub fn keeps_replies(&self) -> bool {
        (0..self.requests.len()).any(|k| self.request(k as u32).is_some_and(|row| row.keeps_reply))
    }

    /// What a request is counted with, as [`Log::request`] has it.
    pub fn lengths(&self, index: u32) -> Lengths {
        let row = self.requests.get(index as usize).and_then(|at| Some((*at, self.map.get(*at..at + ROW)?)));
        let Some((at, head)) = row else { return Lengths::default() };
        let word = |k: usize| u32::from_le_bytes([head[4 * k], head[4 * k + 1], head[4 * k + 2], head[4 * k + 3]]);
        Lengths { input: known(word(0)), requested: known(word(1)), media: media_at(&self.map, at, word(2), word(3)) }
    }

    /// Every record with its payload, in the order they were collected.
    pub fn records(&self) -> impl Iterator<Item = (Record, Payload<'_>)> + '_ {
        self.places().map(|(_, record, payload)| (record, payload))
    }

    /// Every record with its payload and its place, for [`Log::record_at`]. What was passed is given back to the kernel:
    /// a log larger than memory can be read.
    pub fn places(&self) -> impl Iterator<Item = (u64, Record, Payload<'_>)> + '_ {
        let mut passed = 0;
        self.record_blocks().flat_map(move |b| {
            if b.from - passed >= WINDOW {
                release(&self.map, passed, b.from);
                passed = b.from;
            }
            Rows { map: &self.map, at: b.from, to: b.to, left: b.count }
        })
    }

    /// Calls `see` with the number, the record and the payload of every record, as [`Log::places`] gives them; a loop
    /// without an iterator's copies.
    pub(crate) fn each(&self, mut see: impl FnMut(usize, &Record, &[u8])) {
        let (mut passed, mut at) = (0, 0);
        for b in self.record_blocks() {
            if b.from - passed >= WINDOW {
                release(&self.map, passed, b.from);
                passed = b.from;
            }
            let mut rows = Rows { map: &self.map, at: b.from, to: b.to, left: b.count };
            while let Some((_, record, payload)) = rows.advance() {
                see(at, &record, payload);
                at += 1;
            }
        }
    }

    /// Gives back what lies before a place, to whoever reads by place: it can be read again all the same.
    pub(crate) fn release_before(&self, place: u64) {
        release(&self.map, 0, (place as usize).min(self.map.len()));
    }

    /// The record at a place that [`Log::places`] gave.
    pub fn record_at(&self, place: u64) -> Option<(Record, Payload<'_>)> {
        self.raw_at(place).map(|(record, payload)| (record, Payload::parse(payload)))
    }

    /// The same with the payload's bytes.
    pub(crate) fn raw_at(&self, place: u64) -> Option<(Record, &[u8])> {
        let mut rows = Rows { map: &self.map, at: place as usize, to: self.map.len(), left: 1 };
        rows.advance().map(|(_, record, payload)| (record, payload))
    }

    /// What the log is made of, in order.
    pub fn blocks(&self) -> impl Iterator<Item = BlockInfo> + '_ {
        self.blocks.iter().map(|b| BlockInfo {
            kind: b.kind,
            count: b.count,
            offset: (b.from - HEAD) as u64,
            body: (b.to - b.from) as u64,
        })
    }

    /// The records of one block, with the bytes of the body that belong to none of them.
    pub(crate) fn rows_of(&self, block: &BlockInfo) -> (impl Iterator<Item = (Record, &[u8])>, usize) {
        let from = block.offset as usize + HEAD;
        let to = (from + block.body as usize).min(self.map.len());
        let rows = || Rows { map: &self.map, at: from, to, left: block.count }.raw();
        let used: usize = rows().map(|(_, payload)| RECORD_SIZE + payload.len()).sum();
        (rows(), (to - from) - used)
    }

    fn record_blocks(&self) -> impl Iterator<Item = &Block> {
        self.blocks.iter().filter(|b| b.kind == Kind::Records)
    }
}

/// Bytes of the file that stay mapped behind a reader.
pub(crate) const WINDOW: usize = 16 << 20;

/// Gives pages back that have been read. They are the kernel's file cache, but while they are mapped they count as ours.
fn release(map: &Mmap, from: usize, to: usize) {
    const PAGE: usize = 4096;
    let (from, to) = (from.next_multiple_of(PAGE), to / PAGE * PAGE);
    if from < to {
        // SAFETY: the mapping is shared, read-only and of a file: a page that is given back is read from the file again.
        // A refusal costs memory, nothing else.
        let _ = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, from, to - from) };
    }
}

/// Records one after the other, until a count or a border is reached.
struct Rows<'a> {
    map: &'a [u8],
    at: usize,
    to: usize,
    left: u32,
}

impl<'a> Rows<'a> {
    #[inline]
    fn advance(&mut self) -> Option<(u64, Record, &'a [u8])> {
        if self.left == 0 {
            return None;
        }
        let place = self.at as u64;
        let body = self.map.get(self.at..self.to)?;
        let (head, rest) = body.split_at_checked(RECORD_SIZE)?;
        self.left -= 1;
        let record: Record = bytemuck::pod_read_unaligned(head);
        let payload = &rest[..(record.payload_len as usize).min(rest.len())];
        self.at += RECORD_SIZE + payload.len();
        Some((place, record, payload))
    }

    fn raw(mut self) -> impl Iterator<Item = (Record, &'a [u8])> {
        std::iter::from_fn(move || self.advance().map(|(_, record, payload)| (record, payload)))
    }
}

impl<'a> Iterator for Rows<'a> {
    type Item = (u64, Record, Payload<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().map(|(place, record, payload)| (place, record, Payload::parse(payload)))
    }
}

/// How many rows [`requests_in`] gives of blocks that are whole, without looking at them.
pub fn request_count(blocks: &[u8]) -> u64 {
    scan::rows_of_table(blocks)
}

/// The rows of the request table in `blocks`, as [`put_block`] made them; ends where a block is not whole.
pub fn requests_in(blocks: &[u8]) -> impl Iterator<Item = RequestInfo<'_>> {
    let mut at = 0;
    let blocks_in = std::iter::from_fn(move || {
        let block = block_at(blocks, at)?;
        at = block.to;
        Some(block)
    });
    blocks_in.filter(|block| block.kind == Kind::Requests).flat_map(move |block| {
        let mut rows = Vec::new();
        request_rows(&blocks[block.from..block.to], &block, &mut rows);
        rows.into_iter().filter_map(move |at| request_at(blocks, at))
    })
}

/// The row of a request table that begins at byte `at`.
fn request_at(bytes: &[u8], at: usize) -> Option<RequestInfo<'_>> {
    let word = |k: usize| {
        let bytes = bytes.get(at + 4 * k..at + 4 * k + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    let (turn, len) = (word(2)?, word(3)?);
    let id = bytes.get(at + ROW..at + ROW + len as usize)?;
    Some(RequestInfo {
        conversation: std::str::from_utf8(id).unwrap_or(""),
        turn: turn & !BITS,
        input_tokens: known(word(0)?),
        max_tokens: known(word(1)?),
        keeps_reply: turn & KEEPS_REPLY != 0,
        resets: turn & RESETS != 0,
        media: media_at(bytes, at, turn, len),
    })
}

fn known(n: u32) -> Option<u32> {
    (n != UNKNOWN).then_some(n)
}

/// What stands behind the id of the row that begins at byte `at`; `turn` and `len` are its words.
fn media_at(bytes: &[u8], at: usize, turn: u32, len: u32) -> Media {
    let from = at + ROW + len as usize;
    match bytes.get(from..from + MEDIA) {
        Some(&[a, b, c, d, ref seconds @ ..]) if turn & HAS_MEDIA != 0 => Media {
            images: u32::from_le_bytes([a, b, c, d]),
            audio_seconds: seconds.try_into().map(f64::from_le_bytes).ok().filter(|s| *s > 0.0),
        },
        _ => Media::NONE,
    }
}

fn request_rows(body: &[u8], block: &Block, rows: &mut Vec<usize>) {
    let mut at = 0;
    for _ in 0..block.count {
        let Some(&[a, b, c, d, e, f, g, h]) = body.get(at + 8..at + ROW) else {
            return;
        };
        rows.push(block.from + at);
        let has_media = u32::from_le_bytes([a, b, c, d]) & HAS_MEDIA != 0;
        at += ROW + u32::from_le_bytes([e, f, g, h]) as usize + if has_media { MEDIA } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{part, put_part};

    fn header() -> Header {
        Header {
            maser_version: "0".into(),
            benchmark_id: "0123456789ab".into(),
            run_key: 1,
            anchor: Anchor { mono: Instant(1), wall: 2 },
            cli_command: "maser profile".into(),
            input_config: serde_json::json!({}),
            endpoint: "chat".into(),
            streaming: true,
            phases: vec![PhaseInfo { name: "profiling".into(), warmup: false }],
            use_server_token_count: true,
            export_level: "records".into(),
            topology: serde_json::json!({}),
            correlation_header: "X-Correlation-ID".into(),
            session_headers: affinity(),
            request_headers: vec![("Accept".into(), "text/event-stream".into())],
            requests: Some(2),
            ..Header::default()
        }
    }

    const MEDIA_OF_FIRST: Media = Media { images: 2, audio_seconds: Some(12.5) };

    fn sample() -> Vec<u8> {
        let mut log = MAGIC.to_vec();
        put_json(&mut log, Kind::Header, &header());
        let mut table = Vec::new();
        let first = RequestInfo {
            conversation: "a",
            input_tokens: Some(7),
            keeps_reply: true,
            media: MEDIA_OF_FIRST,
            ..RequestInfo::default()
        };
        put_request(&mut table, &first);
        let second =
            RequestInfo { conversation: "bcd", turn: 1, max_tokens: Some(9), resets: true, ..RequestInfo::default() };
        put_request(&mut table, &second);
        put_block(&mut log, Kind::Requests, 2, &table);
        for seq in 0..3 {
            let mut payload = Vec::new();
            put_part(&mut payload, part::TEXT, format!("text {seq}").as_bytes());
            let record = Record { seq, payload_len: payload.len() as u32, ..bytemuck::Zeroable::zeroed() };
            let mut body = Vec::new();
            put_record(&mut body, &record, &payload);
            put_block(&mut log, Kind::Records, 1, &body);
        }
        put_json(&mut log, Kind::End, &End { records: 3, ..End::default() });
        log
    }

    fn open(bytes: &[u8]) -> io::Result<Log> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), bytes)?;
        Log::open(file.path())
    }

    #[test]
    fn what_was_written_is_read() {
        let log = open(&sample()).unwrap();
        assert_eq!(log.header, header());
        assert_eq!((log.len(), log.request_count()), (3, 2));
        let (first, second) = (log.request(0).unwrap(), log.request(1).unwrap());
        assert_eq!((first.conversation, first.turn, first.keeps_reply, first.media), ("a", 0, true, MEDIA_OF_FIRST));
        assert_eq!((second.conversation, second.turn, second.resets, second.media), ("bcd", 1, true, Media::NONE));
        assert_eq!(first.input_tokens, Some(7));
        let texts: Vec<_> = log.records().map(|(r, p)| (r.seq, p.text.to_vec())).collect();
        assert_eq!(texts[2], (2, b"text 2".to_vec()));
        assert_eq!(log.end.as_ref().unwrap().records, 3);
        assert_eq!((log.damage, log.torn, log.unknown), (vec![], None, 0));
    }

    #[test]
    fn a_record_is_found_again_at_its_place() {
        let log = open(&sample()).unwrap();
        let places: Vec<_> = log.places().map(|(place, record, payload)| (place, (record, payload))).collect();
        assert_eq!(places.len(), 3);
        for (place, row) in places {
            log.release_before(place);
            assert_eq!(log.record_at(place), Some(row));
        }
        assert_eq!(log.record_at(u64::MAX), None);
        assert_eq!(log.lengths(0), Lengths { input: Some(7), requested: None, media: MEDIA_OF_FIRST });
        assert_eq!(log.lengths(1), Lengths { input: None, requested: Some(9), media: Media::NONE });
        assert_eq!(log.lengths(99), Lengths::default());
        let kinds: Vec<_> = log.blocks().map(|b| (b.kind, b.count)).collect();
        assert_eq!(kinds[1..3], [(Kind::Requests, 2), (Kind::Records, 1)]);
    }

    #[test]
    fn any_cut_keeps_the_whole_blocks_before_it() {
        let whole = sample();
        let mut most = 0;
        for cut in 0..whole.len() {
            if let Ok(log) = open(&whole[..cut]) {
                assert!(log.end.is_none());
                assert!(log.len() >= most, "a longer file never shows fewer records");
                most = log.len();
            }
        }
        assert_eq!(most, 3);
    }

    /// Offsets of the blocks, and of the end.
    fn borders(log: &Log) -> Vec<usize> {
        let heads = log.blocks().map(|b| b.offset as usize);
        heads.chain([log.map.len()]).collect()
    }

    fn numbers(log: &Log) -> Vec<u64> {
        log.records().map(|(record, _)| record.seq).collect()
    }

    #[test]
    fn a_flipped_bit_costs_its_block_and_no_other() {
        let bytes = sample();
        let borders = borders(&open(&bytes).unwrap());
        // Header, table, three blocks of records, end.
        let in_head = |at: usize| at < MAGIC.len() || borders.iter().any(|from| (*from..from + HEAD).contains(&at));
        // Every bit of a head, one of each byte of a body.
        for bit in (0..8 * bytes.len()).filter(|bit| in_head(bit / 8) || bit % 8 == bit / 8 % 8) {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let block = borders.iter().rposition(|from| *from <= bit / 8);
            let opened = open(&bytes);
            let Some(hit @ 2..) = block else {
                let said = opened.unwrap_err().to_string();
                let place = match block {
                    None => "not a maser record log",
                    Some(0) => "its run header is damaged",
                    Some(_) => "its request table is damaged",
                };
                assert!(said.starts_with(place), "bit {bit}: {said}");
                continue;
            };
            let log = opened.unwrap_or_else(|e| panic!("bit {bit}: {e}"));
            let left: Vec<u64> = (0..3).filter(|seq| *seq as usize + 2 != hit).collect();
            assert_eq!(numbers(&log), left, "bit {bit}");
            assert_eq!((log.damage.len(), log.torn.is_none()), (1, true), "bit {bit}: {:?}", log.torn);
            assert_eq!(log.damage[0].offset as usize, borders[hit], "bit {bit}");
            assert_eq!(log.damage[0].bytes as usize, borders[hit + 1] - borders[hit], "bit {bit}");
            assert_eq!((log.lost_to_damage(), log.end.is_some()), (Some(3 - left.len() as u64), hit < 5), "bit {bit}");
        }
    }

    #[test]
    fn of_a_killed_run_too_a_damaged_block_is_counted() {
        let whole = sample();
        let borders = borders(&open(&whole).unwrap());
        let killed = &whole[..borders[5]];
        for bit in (8 * borders[2]..8 * borders[4]).step_by(3) {
            let mut bytes = killed.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let log = open(&bytes).unwrap();
            assert_eq!((log.len(), log.damage.len(), log.end.is_none()), (2, 1, true), "bit {bit}");
            assert_eq!(log.lost_to_damage(), Some(1), "bit {bit}: {:?}", log.damage);
        }
    }

    #[test]
    fn two_damaged_blocks_and_garbage_between_blocks_cost_what_they_hit() {
        let whole = sample();
        let borders = borders(&open(&whole).unwrap());
        let mut bytes = whole.clone();
        bytes[borders[2] + HEAD + 3] ^= 1;
        bytes[borders[4] + 1] ^= 1;
        let log = open(&bytes).unwrap();
        assert_eq!((numbers(&log), log.damage.len(), log.lost_to_damage()), (vec![1], 2, Some(2)));
        // Marks, and the beginning of a head that announces more than there is.
        let garbage = [&MARK.to_le_bytes()[..], &[3, 0, 0, 0, 9, 0, 0, 0, 0, 1], &MARK.to_le_bytes(), b"MBL"].concat();
        for border in &borders[2..] {
            let mut bytes = whole.clone();
            bytes.splice(*border..*border, garbage.iter().copied());
            let log = open(&bytes).unwrap();
            assert_eq!(
                (numbers(&log), log.lost_to_damage(), log.end.is_some()),
                (vec![0, 1, 2], Some(0), true),
                "{border}"
            );
            let at = log.damage.first().or(log.torn.as_ref()).unwrap();
            assert_eq!((at.offset, at.bytes), (*border as u64, garbage.len() as u64));
        }
    }

    #[test]
    fn what_looks_like_a_block_in_a_payload_is_none() {
        let mut inner = Vec::new();
        let record = Record { seq: 77, ..bytemuck::Zeroable::zeroed() };
        put_block(&mut inner, Kind::Records, 1, bytemuck::bytes_of(&record));
        let mut payload = Vec::new();
        put_part(&mut payload, part::TEXT, &inner);
        let record = Record { payload_len: payload.len() as u32, ..bytemuck::Zeroable::zeroed() };
        let mut body = Vec::new();
        put_record(&mut body, &record, &payload);
        let mut bytes = MAGIC.to_vec();
        put_json(&mut bytes, Kind::Header, &Header { requests: Some(0), ..header() });
        let from = bytes.len();
        put_block(&mut bytes, Kind::Records, 1, &body);
        put_json(&mut bytes, Kind::End, &End { records: 1, ..End::default() });
        assert_eq!(numbers(&open(&bytes).unwrap()), [0]);
        bytes[from + HEAD] ^= 1;
        let log = open(&bytes).unwrap();
        assert_eq!((numbers(&log), log.lost_to_damage()), (vec![], Some(1)));
    }

    #[test]
    fn a_block_of_another_kind_is_passed_over() {
        let mut bytes = sample();
        let end = *borders(&open(&bytes).unwrap()).iter().rev().nth(1).unwrap();
        let mut other = Vec::new();
        put_block(&mut other, Kind::Records, 4, b"readings");
        other[4] = 9;
        let mut crc = crc32fast::Hasher::new();
        crc.update(&other[..16]);
        crc.update(b"readings");
        other[16..20].copy_from_slice(&crc.finalize().to_le_bytes());
        bytes.splice(end..end, other);
        let log = open(&bytes).unwrap();
        assert_eq!((log.len(), log.unknown, log.damage, log.end.is_some()), (3, 1, vec![], true));
    }

    #[test]
    fn a_cut_is_no_damage_and_has_its_place() {
        let whole = sample();
        let borders = borders(&open(&whole).unwrap());
        for cut in borders[2]..whole.len() {
            let log = open(&whole[..cut]).unwrap();
            let torn = log.torn.as_ref().map(|torn| torn.offset as usize);
            let block = borders.iter().rev().find(|from| **from <= cut).copied();
            assert_eq!((torn, log.damage.len()), (block.filter(|from| *from != cut), 0), "{cut}");
        }
    }
}
