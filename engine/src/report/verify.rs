//! Whether a log can be believed: that it is whole, that every credit is accounted for, that no time runs backwards.

use crate::clock::Instant;
use crate::log::{Kind, Log, PhaseMark, WINDOW};
use crate::record::{Outcome, Payload, Record, flag as record_flag};
use std::collections::BTreeMap;

/// What was looked at, and what was found to be wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    /// Blocks whose checksum holds.
    pub blocks: u64,
    /// Records read.
    pub records: u64,
    /// What is wrong, one sentence each; empty if nothing is.
    pub findings: Vec<String>,
    /// Nothing is but that the log has no end, as that of a run that was killed.
    pub only_killed: bool,
}

impl Verification {
    /// Whether nothing was found.
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }
}

/// Checks a log: checksums and order of its blocks; that credits issued are records, unused credits and counted losses;
/// that numbers are unique in their phase; that the times of every record stand in order (`due ≤ start ≤ sent ≤ first byte
/// ≤ first token ≤ last token ≤ done`, as far as they are set); that outcomes, phases, requests and payloads are known
/// and whole. One pass, memory one bit a record.
pub fn verify(log: &Log) -> Verification {
    let mut check = Check { log, ..Check::new(log) };
    check.blocks();
    check.ledger();
    let (blocks, records, findings) = (log.blocks().count() as u64, check.records, check.findings());
    let only_killed = findings.len() == 1 && findings[0] == killed(log);
    Verification { blocks, records, findings, only_killed }
}

/// What there is to say of a log that just stops.
fn killed(log: &Log) -> String {
    let after = log.killed_after().map_or(String::new(), |after| format!(" after {:.1} s", after as f64 * 1e-9));
    let torn = log.torn.as_ref().map_or(String::new(), |torn| {
        format!("; {} bytes of its last block, at byte {}, were written", torn.bytes, torn.offset)
    });
    format!("The log has no end: the run was killed{after}, or the file was cut{torn}.")
}

/// Records that share a fault.
#[derive(Debug, Default)]
struct Faulty {
    count: u64,
    first: String,
}

struct Check<'a> {
    log: &'a Log,
    records: u64,
    retried: u64,
    payloads_lost: u64,
    phases: Vec<Seen>,
    faults: BTreeMap<Fault, Faulty>,
    sentences: Vec<String>,
}

/// The numbers of one phase.
#[derive(Debug, Default)]
struct Seen {
    records: u64,
    numbers: Vec<u64>,
}

/// What can be wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Order,
    Unset,
    Outcome,
    Phase,
    Request,
    Number,
    Twice,
    Payload,
    Gaps,
    Newer,
}

impl Fault {
    fn says(self, count: u64) -> &'static str {
        let one = count == 1;
        match self {
            Self::Order if one => "has times out of order",
            Self::Order => "have times out of order",
            Self::Unset if one => "lacks a due time, a start or an end",
            Self::Unset => "lack a due time, a start or an end",
            Self::Outcome if one => "has an outcome that this version does not know",
            Self::Outcome => "have an outcome that this version does not know",
            Self::Phase if one => "belongs to a phase that the plan does not have",
            Self::Phase => "belong to a phase that the plan does not have",
            Self::Request if one => "refers to a request that the table does not have",
            Self::Request => "refer to a request that the table does not have",
            Self::Number if one => "has a number beyond the credits issued in its phase",
            Self::Number => "have a number beyond the credits issued in their phase",
            Self::Twice if one => "has a number that another record of its phase has",
            Self::Twice => "have a number that another record of their phase has",
            Self::Payload if one => "has a payload that cannot be read to its end",
            Self::Payload => "have a payload that cannot be read to its end",
            Self::Gaps if one => "has another number of gaps than it has responses with content",
            Self::Gaps => "have another number of gaps than they have responses with content",
            Self::Newer if one => "carries fields or flags that this version does not know",
            Self::Newer => "carry fields or flags that this version does not know",
        }
    }
}

impl<'a> Check<'a> {
    fn new(log: &'a Log) -> Self {
        Self {
            log,
            records: 0,
            retried: 0,
            payloads_lost: 0,
            phases: log.header.phases.iter().map(|_| Seen::default()).collect(),
            faults: BTreeMap::new(),
            sentences: Vec::new(),
        }
    }

    fn say(&mut self, sentence: String) {
        self.sentences.push(sentence);
    }

    fn fault(&mut self, fault: Fault, record: &Record, more: &str) {
        let phases = &self.log.header.phases;
        let name = phases.get(usize::from(record.phase)).map_or("an unknown phase", |p| p.name.as_str());
        let faulty = self.faults.entry(fault).or_default();
        faulty.count += 1;
        if faulty.count == 1 {
            faulty.first = format!("request {} of {name}{more}", record.seq);
        }
    }

    /// Blocks in their order, and the records in them.
    fn blocks(&mut self) {
        let log = self.log;
        let mut counts = [0u64; 6];
        let (mut ended, mut passed) = (false, 0);
        for block in log.blocks() {
            if block.offset - passed >= WINDOW as u64 {
                passed = block.offset;
                log.release_before(passed);
            }
            if ended {
                self.say(format!("A block follows the end of the log, at byte {}.", block.offset));
            }
            ended |= block.kind == Kind::End;
            counts[block.kind as usize] += 1;
            if block.kind == Kind::Requests && counts[Kind::Records as usize] > 0 {
                self.say(format!("A part of the request table follows records, at byte {}.", block.offset));
            }
            if block.kind == Kind::Records {
                self.records_of(&block);
            }
        }
        if counts[Kind::Header as usize] != 1 {
            self.say(format!("The log has {} run headers instead of one.", counts[Kind::Header as usize]));
        }
        if counts[Kind::Phase as usize] != log.phases.len() as u64 {
            self.say("The mark of a phase cannot be read.".to_owned());
        }
        for damage in &log.damage {
            let records = match damage.records {
                Some(n) => format!("{n} records were in them"),
                None => "how many records were in them cannot be told".to_owned(),
            };
            self.say(format!(
                "From byte {} on {} bytes are damaged, not a whole block; {records}.",
                damage.offset, damage.bytes
            ));
        }
        match (&log.end, ended) {
            (None, true) => self.say("The end of the log cannot be read.".to_owned()),
            // Its end may be what is damaged.
            (None, false) if log.damage.is_empty() => self.say(killed(log)),
            _ => {}
        }
    }

    fn records_of(&mut self, block: &crate::log::BlockInfo) {
        let (rows, left) = self.log.rows_of(block);
        let mut count = 0;
        for (record, payload) in rows {
            count += 1;
            self.record(&record, payload);
        }
        if count != block.count || left > 0 {
            self.say(format!(
                "The block at byte {} announces {} records and holds {count}, with {left} bytes left over.",
                block.offset, block.count
            ));
        }
    }

    fn record(&mut self, record: &Record, payload: &[u8]) {
        self.records += 1;
        self.retried += u64::from(record.has(record_flag::RETRIED));
        self.payloads_lost += u64::from(record.has(record_flag::PAYLOAD_LOST));
        if [record.due, record.start, record.done].iter().any(|at| !at.is_set()) {
            self.fault(Fault::Unset, record, "");
        }
        if let Some((later, earlier)) = out_of_order(record) {
            self.fault(Fault::Order, record, &format!(": {later} before {earlier}"));
        }
        if Outcome::from_u8(record.outcome).is_none() {
            self.fault(Fault::Outcome, record, &format!(": number {}", record.outcome));
        }
        if self.log.request_count() > 0 && record.request as usize >= self.log.request_count() {
            self.fault(Fault::Request, record, &format!(": index {}", record.request));
        }
        let newer = record.flags & !record_flag::ALL != 0 || record.reserved != 0;
        if newer {
            self.fault(Fault::Newer, record, "");
        }
        self.payload(record, payload);
        self.number(record);
    }

    fn payload(&mut self, record: &Record, bytes: &[u8]) {
        if record.payload_len as usize != bytes.len() || !Payload::is_whole(bytes) {
            self.fault(Fault::Payload, record, "");
            return;
        }
        let gaps = Payload::parse(bytes).gaps().count() as u64;
        let expected = u64::from(record.chunks.saturating_sub(1));
        // None at all: a run may be told not to keep them.
        if gaps != 0 && gaps != expected {
            self.fault(Fault::Gaps, record, &format!(": {gaps} gaps, {} responses", record.chunks));
        }
    }

    /// Numbers are those of the credits: below the issued ones, each at most once.
    fn number(&mut self, record: &Record) {
        let Some(seen) = self.phases.get_mut(usize::from(record.phase)) else {
            self.fault(Fault::Phase, record, &format!(": index {}", record.phase));
            return;
        };
        seen.records += 1;
        let issued = self.log.phases.iter().find(|m| m.phase == record.phase).map(|m| m.issued);
        if issued.is_some_and(|issued| record.seq >= issued) {
            self.fault(Fault::Number, record, "");
            return;
        }
        // Of a phase without a mark no number is known to be too large; absurd ones must not fill memory.
        const ABSURD: u64 = 1 << 36;
        let word = (record.seq.min(ABSURD) / 64) as usize;
        if word >= seen.numbers.len() {
            seen.numbers.resize(word + 1, 0);
        }
        let bit = 1 << (record.seq % 64);
        let twice = seen.numbers[word] & bit != 0;
        seen.numbers[word] |= bit;
        if twice {
            self.fault(Fault::Twice, record, "");
        }
    }

    /// Credits and records balance, phase by phase and as a whole.
    fn ledger(&mut self) {
        let log = self.log;
        let Some(end) = &log.end else {
            return;
        };
        if end.records != self.records {
            self.say(format!("The end of the log counts {} records, the log holds {}.", end.records, self.records));
        }
        // A timing core that died left none of the phase under way.
        let lacks_marks = end.broken.is_some() && log.phases.len() < log.header.phases.len();
        let mut missing = 0;
        for mark in &log.phases {
            missing += self.missing(mark);
        }
        let accounted = self.records + end.unused + end.lost;
        if end.issued != accounted {
            self.say(format!(
                "{} credits were issued, but {} records, {} unused credits and {} lost records make {accounted}.",
                end.issued, self.records, end.unused, end.lost
            ));
        } else if missing != end.lost as i128 && !lacks_marks {
            self.say(format!("The phases lack {missing} records, but {} are counted as lost.", end.lost));
        }
        for (what, counted, found) in [
            ("requests sent twice", end.retried, self.retried),
            ("lost payloads", end.payloads_lost, self.payloads_lost),
        ] {
            // A lost record may have been one of them.
            if found > counted || found + end.lost < counted {
                self.say(format!("The end of the log counts {counted} {what}, the records show {found}."));
            }
        }
    }

    fn missing(&mut self, mark: &PhaseMark) -> i128 {
        let records = self.phases.get(usize::from(mark.phase)).map_or(0, |p| p.records);
        let missing = i128::from(mark.issued) - i128::from(mark.unused) - i128::from(records);
        if missing < 0 {
            let name = self.log.header.phases.get(usize::from(mark.phase)).map_or("unknown", |p| &p.name);
            let sentence = format!(
                "Phase {name} issued {} credits and has {records} records and {} unused ones.",
                mark.issued, mark.unused
            );
            self.say(sentence);
        }
        missing
    }

    fn findings(self) -> Vec<String> {
        let mut findings = self.sentences;
        for (fault, Faulty { count, first }) in self.faults {
            let records = if count == 1 { "record" } else { "records" };
            findings.push(format!("{count} {records} {}; the first is {first}.", fault.says(count)));
        }
        findings
    }
}

/// The first pair of times that stand the wrong way round, the later one's name first.
fn out_of_order(record: &Record) -> Option<(&'static str, &'static str)> {
    let main = [
        ("due", record.due),
        ("start", record.start),
        ("sent", record.sent),
        ("first byte", record.first_byte),
        ("first body", record.first_body),
        ("first token", record.first_token),
        ("second token", record.second_token),
        ("last token", record.last_token),
        ("done", record.done),
    ];
    let sending = [("sent", record.sent), ("send end", record.send_end), ("done", record.done)];
    let output =
        [("first token", record.first_token), ("first output", record.first_output), ("last token", record.last_token)];
    [&main[..], &sending[..], &output[..]].into_iter().find_map(first_fall)
}

fn first_fall(stamps: &[(&'static str, Instant)]) -> Option<(&'static str, &'static str)> {
    let set: Vec<_> = stamps.iter().filter(|(_, at)| at.is_set()).collect();
    set.windows(2).find(|pair| pair[1].1 < pair[0].1).map(|pair| (pair[1].0, pair[0].0))
}
