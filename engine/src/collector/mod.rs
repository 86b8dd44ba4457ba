//! The collector: drains the executors' rings into the record log and keeps the live view.
//!
//! [`Collector::step`] is all of it, bounded and without I/O: bytes for the log gather in a buffer that whoever runs the
//! collector appends to the file. On a thread shared with other parts that is [`Plain`]; on a core of its own, where
//! io_uring is to be had, a glommio executor ([`run_on_glommio`]).

mod live;
mod on_glommio;
mod plain;

pub use live::Snapshot;
pub use on_glommio::run as run_on_glommio;
pub use plain::Plain;

use crate::clock::{Instant, MILLI, Nanos};
use crate::credit::{Issued, Progress};
use crate::log::{self, End, Kind, PhaseMark};
use crate::record::Record;
use crate::ring::{Consumer, FrameConsumer};
use live::Live;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

/// How often the rings are drained when they are not filling up.
pub const DRAIN_EVERY: Nanos = 5 * MILLI;

/// Records taken in one step: about 40 µs of work.
const STEP: usize = 256;

/// A step ends early once it has taken so many bytes: 1 ms of copying.
const STEP_BYTES: usize = 1 << 20;

/// Room that the buffers keep: what was larger is freed.
const KEEP: usize = 4 * STEP_BYTES;

/// A block is closed when it has grown to this many bytes ...
const BLOCK_BYTES: usize = 64 * 1024;

/// ... or this long after its first record: what a killed run can lose.
const BLOCK_AGE: Nanos = 200 * MILLI;

/// How often the live view is renewed.
const PUBLISH_EVERY: Nanos = 250 * MILLI;

/// One executor, seen from here.
#[derive(Debug)]
pub struct Source {
    /// Its ring.
    pub records: FrameConsumer<Record>,
    /// Its counters.
    pub progress: Arc<Progress>,
}

/// What a step leaves to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// More waits in the rings.
    More,
    /// The rings were empty.
    Idle,
    /// Every executor has ended, everything is in the buffer, the end block too.
    Ended,
}

/// The state of the collector.
#[derive(Debug)]
pub struct Collector {
    sources: Vec<Source>,
    /// Whose ring is drained first in the next step.
    first: usize,
    marks: Consumer<PhaseMark>,
    issued: Arc<Issued>,
    warmup: Vec<bool>,
    block: Vec<u8>,
    in_block: u32,
    block_since: Instant,
    records: u64,
    payload: Vec<u8>,
    output: Vec<u8>,
    live: Live,
    published: Instant,
    snapshot: Arc<Mutex<Snapshot>>,
    cpu_before: u64,
    ended: bool,
    /// The live view is kept.
    shows: bool,
    /// Steps until one panics, for tests of what a run does then.
    dies_in: Option<u64>,
}

impl Collector {
    /// A collector of these executors' records. `warmup` tells which phases the live view leaves out.
    pub fn new(
        sources: Vec<Source>,
        marks: Consumer<PhaseMark>,
        issued: Arc<Issued>,
        warmup: Vec<bool>,
        snapshot: Arc<Mutex<Snapshot>>,
    ) -> Self {
        Self {
            sources,
            first: 0,
            marks,
            issued,
            warmup,
            block: Vec::with_capacity(2 * BLOCK_BYTES),
            in_block: 0,
            block_since: Instant::UNSET,
            records: 0,
            payload: Vec::with_capacity(4096),
            output: Vec::with_capacity(4 * BLOCK_BYTES),
            live: Live::new(),
            published: Instant::UNSET,
            snapshot,
            cpu_before: process_cpu(),
            ended: false,
            shows: true,
            dies_in: None,
        }
    }

    /// Lets step `n` from here panic: tests look at what a run makes of that.
    #[doc(hidden)]
    pub fn die_in(&mut self, n: u64) {
        self.dies_in = Some(n);
    }

    /// After a panic in a step: what follows is reduced to what the log needs.
    pub(crate) fn rescue(&mut self) {
        (self.shows, self.dies_in) = (false, None);
    }

    /// Bytes for the log, in order; the caller appends them to the file and clears the buffer.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Takes what waits, up to a bound.
    pub fn step(&mut self, now: Instant) -> Step {
        if self.ended {
            return Step::Ended;
        }
        if let Some(left) = &mut self.dies_in {
            assert!(*left > 0, "a test wants the collector to panic");
            *left -= 1;
        }
        // Asked before draining: what was pushed before the end is then surely seen.
        let over = self.issued.ended.load(Ordering::Acquire)
            && self.sources.iter().all(|s| s.progress.ended.load(Ordering::Acquire));
        let more = self.drain(now);
        while let Some(mark) = self.marks.pop() {
            self.close_block();
            log::put_json(&mut self.output, Kind::Phase, &mark);
        }
        if self.block.len() >= BLOCK_BYTES || (self.in_block > 0 && now.since(self.block_since) >= BLOCK_AGE) {
            self.close_block();
        }
        if self.shows && (now.since(self.published) >= PUBLISH_EVERY || over) {
            self.publish(now);
        }
        if more {
            return Step::More;
        }
        if over {
            self.close_block();
            let end = self.account();
            log::put_json(&mut self.output, Kind::End, &end);
            self.ended = true;
            return Step::Ended;
        }
        Step::Idle
    }

    /// Returns whether more waits.
    fn drain(&mut self, now: Instant) -> bool {
        let mut left = STEP;
        let n = self.sources.len();
        let first = self.first;
        // Each in turn comes first: one that always fills a step must not let the others' rings run full.
        self.first = (first + 1) % n.max(1);
        for k in (0..n).map(|k| (first + k) % n) {
            while left > 0 {
                let Some(record) = self.sources[k].records.pop(&mut self.payload) else { break };
                left = if self.block.len() < STEP_BYTES { left - 1 } else { 0 };
                if self.in_block == 0 {
                    self.block_since = now;
                }
                log::put_record(&mut self.block, &record, &self.payload);
                if self.payload.capacity() > KEEP {
                    self.payload = Vec::new();
                }
                self.in_block += 1;
                self.records += 1;
                if self.shows && !self.warmup.get(record.phase as usize).copied().unwrap_or(false) {
                    self.live.add(&record);
                }
            }
        }
        left == 0
    }

    fn close_block(&mut self) {
        if self.in_block > 0 {
            log::put_block(&mut self.output, Kind::Records, self.in_block, &self.block);
            self.block.clear();
            self.block.shrink_to(KEEP);
            self.in_block = 0;
        }
    }

    fn publish(&mut self, now: Instant) {
        self.published = now;
        // A reader that holds the lock just now waits for the next one.
        if let Ok(mut snapshot) = self.snapshot.try_lock() {
            self.live.publish(&mut snapshot);
        }
    }

    fn account(&self) -> End {
        let sum = |f: fn(&Progress) -> u64| self.sources.iter().map(|s| f(&s.progress)).sum::<u64>();
        let issued = Progress::get(&self.issued.credits) + sum(|p| p.total(|c| &c.own));
        let broken = self.issued.broken.get();
        let (unused, lost) = match broken {
            None => (sum(|p| p.total(|c| &c.unused)), sum(|p| Progress::get(&p.lost))),
            // What died gave no account of its own: credits that it held were not started, and what it had started is lost
            // unless there is a record of it.
            Some(_) => {
                let started = sum(|p| p.total(|c| &c.started));
                (issued.saturating_sub(started), started.saturating_sub(self.records))
            }
        };
        End {
            was_cancelled: self.issued.cancelled.load(Ordering::Acquire),
            issued,
            unused,
            records: self.records,
            lost,
            broken: broken.cloned(),
            payloads_lost: sum(|p| Progress::get(&p.payloads_lost)),
            retried: sum(|p| Progress::get(&p.retried)),
            connections: sum(|p| Progress::get(&p.connections)),
            schedule_digest: Progress::get(&self.issued.digest),
            cpu_ns: process_cpu() - self.cpu_before,
        }
    }
}

/// User plus system time of this process, nanoseconds.
fn process_cpu() -> u64 {
    // SAFETY: all-zero is a valid rusage, and the call fills it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let nanos = |t: libc::timeval| t.tv_sec as u64 * 1_000_000_000 + t.tv_usec as u64 * 1_000;
    nanos(usage.ru_utime) + nanos(usage.ru_stime)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::{self, FrameProducer};

    fn source() -> (FrameProducer<Record>, Source) {
        let (producer, records) = ring::frames(4 * STEP, 16);
        (producer, Source { records, progress: Arc::default() })
    }

    #[test]
    fn no_ring_starves_beside_a_full_one() {
        let ((mut busy, a), (mut calm, b)) = (source(), source());
        let (_, marks) = ring::ring(1);
        let mut collector = Collector::new(vec![a, b], marks, Arc::default(), vec![false], Arc::default());
        let record: Record = bytemuck::Zeroable::zeroed();
        calm.push(Record { executor: 1, ..record }, &[]).unwrap();
        let total = |c: &Collector| (c.records, c.sources[1].records.is_empty());
        for step in 1..=2 {
            while busy.push(record, &[]).is_ok() {}
            assert_eq!(collector.step(Instant(step)), Step::More);
        }
        assert_eq!(total(&collector), (2 * STEP as u64, true));
    }
}
