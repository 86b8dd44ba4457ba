//! Permissions to send, and the account of what became of them.
//!
//! The timing core issues [`Credit`]s and other [`Order`]s through a ring to each executor. The way back is not a ring
//! but [`Progress`]: a handful of counters that only the executor writes and anybody reads. They cannot overflow, cost a
//! plain store each, and the timing core needs only their sums.
//!
//! Where sessions have several turns, a credit does not say what to send: only the executor knows which of its sessions
//! has a turn ready. Numbers that must be exact over all executors (the n-th session, the n-th request) are then drawn
//! from [`Claims`] at the moment of sending, one atomic addition each, so that no permission can strand on an executor
//! that has nothing to send. Where every session has one turn, nothing is shared: a credit is its request.

use crate::clock::Instant;
use crossbeam::utils::CachePadded;
use std::ops::Deref;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

/// Permission to send exactly one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credit {
    /// Order of issue within the phase, from 0.
    pub seq: u64,
    /// When to send. [`Instant::UNSET`] in a closed loop: as soon as a slot is free.
    pub due: Instant,
    /// Index of the request in the arena: a session's first. [`Credit::ANY`] where the executor chooses.
    pub request: u32,
    /// Turns of the session that are sent.
    pub turns: u32,
    /// Index of the phase.
    pub phase: u8,
}

impl Credit {
    /// A tick of a schedule: whatever session has a turn ready, or a new one.
    pub const ANY: u32 = u32::MAX;

    /// Whether it has a planned time.
    pub fn is_scheduled(&self) -> bool {
        self.due.is_set()
    }
}

/// What the timing core tells an executor. Orders are obeyed in the order they were given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Open this many connections ahead of the first request.
    Open(u32),
    /// A phase begins: its limits hold from now on. The one before it has sent everything.
    Phase {
        /// Its index.
        phase: u8,
        /// Its zero, from which its limits run.
        start: Instant,
        /// No request starts at or after this time.
        stop_at: Instant,
    },
    /// Send a request.
    Credit(Credit),
    /// Start nothing more in this phase: hand every waiting credit back, end every waiting session.
    StopStarting,
    /// Cut every request of this phase in flight.
    CancelInFlight(u8),
    /// Nothing more will come: close all connections and end.
    Finish,
}

/// An executor's account of itself. One writer, any number of readers; on cache lines of its own, so that the counters of
/// one executor do not slow down another's.
#[derive(Debug, Default)]
pub struct Progress {
    counters: CachePadded<Counters>,
    phases: Box<[CachePadded<PhaseCounters>]>,
}

impl Deref for Progress {
    type Target = Counters;

    fn deref(&self) -> &Counters {
        &self.counters
    }
}

/// What an executor counts.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections asked for by [`Order::Open`] that stand or have failed.
    pub opened: AtomicU64,
    /// Records that found the ring full.
    pub lost: AtomicU64,
    /// Payloads that found the ring full.
    pub payloads_lost: AtomicU64,
    /// Requests sent a second time on a fresh connection.
    pub retried: AtomicU64,
    /// Connections opened.
    pub connections: AtomicU64,
    /// The executor has ended; nothing above changes any more.
    pub ended: AtomicBool,
}

/// What an executor counts by phase.
#[derive(Debug, Default)]
pub struct PhaseCounters {
    /// Requests started.
    pub started: AtomicU64,
    /// Of `started`: without a credit, at times of the executor's own: turns that follow their session's first one at
    /// planned times, and all of a closed loop whose sessions have several turns.
    pub own: AtomicU64,
    /// Requests finished, well or not; a record was made for each.
    pub finished: AtomicU64,
    /// Requests among `finished` that failed; those that were cut are not among them.
    pub failed: AtomicU64,
    /// Credits handed back unstarted.
    pub unused: AtomicU64,
    /// Of `unused`: found no free slot at their time.
    pub dropped: AtomicU64,
    /// Of `unused`: had nothing to send at their time.
    pub idle: AtomicU64,
    /// Of `started`: had waited for a slot.
    pub queued: AtomicU64,
    /// Of `started`: beyond a limit.
    pub over_limit: AtomicU64,
    /// Of `started`: with a planned time and [late](crate::record::Record::is_late), for a slot or through the client's
    /// doing; those that still wait for a connection included, as soon as they are.
    pub late: AtomicU64,
    /// Of `finished`, in a closed loop: found nobody to connect to, so that their slot was held back.
    pub paused: AtomicU64,
    /// For how long, nanoseconds, the sum over slots.
    pub paused_ns: AtomicU64,
    /// Pauses of the executor's thread of [`LATE`](crate::record::LATE) or more while something was in flight or due.
    pub stalls: AtomicU64,
    /// Their lengths together, nanoseconds.
    pub stalled_ns: AtomicU64,
    /// The longest, nanoseconds.
    pub stall_longest_ns: AtomicU64,
    /// When that began, nanoseconds of the monotonic axis.
    pub stall_longest_at: AtomicU64,
    /// Time in which the executor's thread waited for something to do, nanoseconds; 0 where that is not known.
    pub idle_ns: AtomicU64,
    /// Sessions of several turns that were started.
    pub sessions: AtomicU64,
    /// Of `sessions`: their last turn was sent, or they ended before.
    pub sessions_sent: AtomicU64,
    /// Of `sessions`: have ended.
    pub sessions_ended: AtomicU64,
    /// Of `sessions`: ended before their last turn was sent.
    pub sessions_cut: AtomicU64,
    /// Turns of sessions that wait for a credit now.
    pub ready: AtomicU64,
    /// When the last request finished, nanoseconds of the monotonic axis.
    pub last_done: AtomicU64,
    /// [`Order::StopStarting`] was obeyed.
    pub stopped: AtomicBool,
}

impl Progress {
    /// An account of a run of so many phases.
    pub fn new(phases: usize) -> Self {
        Self { counters: CachePadded::default(), phases: (0..phases).map(|_| CachePadded::default()).collect() }
    }

    /// The account of phase `n`, which must be one of the run's.
    #[inline]
    pub fn phase(&self, n: usize) -> &PhaseCounters {
        &self.phases[n]
    }

    /// The sum of a counter over all phases.
    pub fn total(&self, counter: impl Fn(&PhaseCounters) -> &AtomicU64) -> u64 {
        self.phases.iter().map(|p| Self::get(counter(p))).sum()
    }

    /// Adds to a counter that only this thread writes: a load and a store, no locked instruction.
    pub fn add(counter: &AtomicU64, n: u64) {
        counter.store(counter.load(Ordering::Relaxed) + n, Ordering::Release);
    }

    /// Reads a counter.
    pub fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Acquire)
    }
}

/// The timing core's account of itself. One writer, any number of readers.
#[derive(Debug, Default)]
pub struct Issued {
    /// Credits issued, all phases.
    pub credits: AtomicU64,
    /// Index of the phase under way.
    pub phase: AtomicU64,
    /// Start of the phase under way, nanoseconds of the monotonic axis; 0 before the first.
    pub phase_start: AtomicU64,
    /// Credits issued before the phase under way.
    pub before_phase: AtomicU64,
    /// Digest of the schedule issued, the same for any number of executors.
    pub digest: AtomicU64,
    /// An interrupt cut the run short.
    pub cancelled: AtomicBool,
    /// More requests failed than a phase allows, and the run was stopped.
    pub too_many_failed: AtomicBool,
    /// Where gated phases wait.
    pub gate: Gate,
    /// Fewer requests left on time than a phase demands, and the run was stopped.
    pub below_adherence: AtomicBool,
    /// The timing core has ended; nothing above changes any more.
    pub ended: AtomicBool,
    /// Why the run broke off, a sentence without its full stop: the first thread that died says it.
    pub broken: OnceLock<String>,
}

/// Where a phase waits until whoever runs the plan lets it begin: the timing core waits, the other opens.
#[derive(Debug, Default)]
pub struct Gate {
    waiting: AtomicBool,
    open: AtomicBool,
}

impl Gate {
    /// Lets every phase through that waits or will.
    pub fn open(&self) {
        self.open.store(true, Ordering::Release);
    }

    /// Whether a phase waits.
    pub fn is_waited_at(&self) -> bool {
        self.waiting.load(Ordering::Acquire) && !self.open.load(Ordering::Acquire)
    }

    /// Whether a phase may begin; says that it waits if not.
    pub(crate) fn lets_through(&self) -> bool {
        let open = self.open.load(Ordering::Acquire);
        if !open {
            self.waiting.store(true, Ordering::Release);
        }
        open
    }
}

/// What all executors of a run share: numbers drawn where sessions have several turns, one account a phase, and whether the
/// run has broken off.
#[derive(Debug)]
pub struct Claims {
    executors: usize,
    phases: Box<[CachePadded<PhaseClaims>]>,
    /// 1: it has; 2: and nobody takes records any more.
    broken: AtomicU8,
}

/// What executors have claimed in one phase.
#[derive(Debug, Default)]
pub struct PhaseClaims {
    /// Sessions.
    pub sessions: AtomicU64,
    /// Requests.
    pub requests: AtomicU64,
    /// Sessions of the phases before it: the walk through the arena goes on from there.
    pub before: AtomicU64,
}

impl Claims {
    /// Of a run of so many executors and phases.
    pub fn new(executors: usize, phases: usize) -> Self {
        let phases = (0..phases).map(|_| CachePadded::default()).collect();
        Self { executors, phases, broken: AtomicU8::new(0) }
    }

    /// A thread of the run has died: the others start nothing more, cut what is in flight and wait for nobody.
    pub fn break_off(&self) {
        self.broken.fetch_max(1, Ordering::AcqRel);
    }

    /// The collector has died for good: no record waits for room.
    pub fn give_up_records(&self) {
        self.broken.store(2, Ordering::Release);
    }

    /// Whether nobody takes records any more.
    #[inline]
    pub fn is_uncollected(&self) -> bool {
        self.broken.load(Ordering::Acquire) > 1
    }

    /// Whether the run has broken off.
    #[inline]
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire) > 0
    }

    /// Number of executors that share them, and with them every limit.
    pub fn executors(&self) -> usize {
        self.executors
    }

    /// Those of phase `n`, which must be one of the run's.
    pub fn phase(&self, n: usize) -> &PhaseClaims {
        &self.phases[n]
    }

    /// The next number, from 0, unless `most` have been drawn.
    pub fn claim(counter: &AtomicU64, most: u64) -> Option<u64> {
        if counter.load(Ordering::Relaxed) >= most {
            return None;
        }
        Some(counter.fetch_add(1, Ordering::AcqRel)).filter(|n| *n < most)
    }
}

/// How far the user wants the run stopped.
#[derive(Debug, Default)]
pub struct StopSignal(AtomicU8);

impl StopSignal {
    /// Nobody asked.
    pub const RUN: u8 = 0;
    /// Issue nothing more, let what is in flight finish.
    pub const DRAIN: u8 = 1;
    /// Cut what is in flight.
    pub const ABORT: u8 = 2;

    /// One step further: run, drain, abort.
    pub fn raise(&self) -> u8 {
        let further = |level: u8| (level < Self::ABORT).then_some(level + 1);
        match self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, further) {
            Ok(before) => before + 1,
            Err(most) => most,
        }
    }

    /// The level asked for.
    pub fn level(&self) -> u8 {
        self.0.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_signal_goes_one_step_at_a_time_and_no_further() {
        let stop = StopSignal::default();
        assert_eq!(stop.level(), StopSignal::RUN);
        assert_eq!([(); 4].map(|()| stop.raise()), [1, 2, 2, 2]);
        assert_eq!(stop.level(), StopSignal::ABORT);
    }

    #[test]
    fn claims_are_exact_on_any_number_of_threads() {
        let claims = Claims::new(3, 1);
        let mut all: Vec<u64> = std::thread::scope(|scope| {
            let claim = || (0..1000).filter_map(|_| Claims::claim(&claims.phase(0).requests, 1500)).collect::<Vec<_>>();
            let threads = [(); 3].map(|()| scope.spawn(claim));
            threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
        });
        all.sort_unstable();
        assert_eq!(all, (0..1500).collect::<Vec<_>>());
    }

    #[test]
    fn a_counter_adds_up() {
        let counter = AtomicU64::default();
        for n in 0..10 {
            Progress::add(&counter, n);
        }
        assert_eq!(Progress::get(&counter), 45);
    }
}
