//! Permissions to send, and the account of what became of them.
//!
//! The timing core issues [`Credit`]s and other [`Order`]s through a ring to each executor. The way back is not a ring
//! but [`Progress`]: a handful of counters that only the executor writes and anybody reads. They cannot overflow, cost a
//! plain store each, and the timing core needs only their sums.

use crate::clock::Instant;
use crossbeam::utils::CachePadded;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

/// Permission to send exactly one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credit {
    /// Order of issue within the phase, from 0.
    pub seq: u64,
    /// When to send. [`Instant::UNSET`] in a closed loop: as soon as a slot is free.
    pub due: Instant,
    /// Index of the request in the arena: a session's first.
    pub request: u32,
    /// Index of the phase.
    pub phase: u8,
}

impl Credit {
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
    /// A phase begins: its limits hold from now on.
    Phase {
        /// This executor's share of the concurrency limit, if there is one.
        concurrency: Option<u32>,
        /// No request starts at or after this time.
        stop_at: Instant,
    },
    /// Send a request.
    Credit(Credit),
    /// Start nothing more: hand every waiting credit back.
    StopStarting,
    /// Cut every request in flight.
    CancelInFlight,
    /// Nothing more will come: close all connections and end.
    Finish,
}

/// An executor's account of itself. One writer, any number of readers; on cache lines of its own, so that the counters of
/// one executor do not slow down another's.
#[derive(Debug, Default)]
pub struct Progress(CachePadded<Counters>);

impl Deref for Progress {
    type Target = Counters;

    fn deref(&self) -> &Counters {
        &self.0
    }
}

/// What an executor counts.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections asked for by [`Order::Open`] that stand or have failed.
    pub opened: AtomicU64,
    /// Credits whose request has started.
    pub started: AtomicU64,
    /// Requests finished, well or not; a record was made for each.
    pub finished: AtomicU64,
    /// Requests among `finished` that failed.
    pub failed: AtomicU64,
    /// Credits handed back unstarted.
    pub unused: AtomicU64,
    /// Records that found the ring full.
    pub lost: AtomicU64,
    /// Payloads that found the ring full.
    pub payloads_lost: AtomicU64,
    /// Requests sent a second time on a fresh connection.
    pub retried: AtomicU64,
    /// Connections opened.
    pub connections: AtomicU64,
    /// When the last request finished, nanoseconds of the monotonic axis.
    pub last_done: AtomicU64,
    /// The executor has ended; nothing above changes any more.
    pub ended: AtomicBool,
}

impl Progress {
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
    /// The timing core has ended; nothing above changes any more.
    pub ended: AtomicBool,
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
    fn a_counter_adds_up() {
        let counter = AtomicU64::default();
        for n in 0..10 {
            Progress::add(&counter, n);
        }
        assert_eq!(Progress::get(&counter), 45);
    }
}
