//! What a thread's loop knows of its own pauses: how long it did not look at what had come, whoever kept it from that.
//!
//! A loop looks at its queue, tells what it found, and looks again; where nothing is there it waits in the kernel, which wakes
//! it. Waiting is looking, as long as the loop wakes by the time it meant to: while requests are in flight it means to wake
//! every [`WATCH`], so that a thread that stood still sees it afterwards.

use crate::clock::{Instant, MICRO, MILLI, Nanos};
use crate::record::LATE;
use std::cell::Cell;

/// The longest sleep of a thread with requests in flight. Some 250 wake-ups a second, each of a few microseconds.
pub const WATCH: Nanos = 4 * MILLI;

/// Of receives that are due the kernel runs so many at a time (since 6.13; all of them before that): a look that finds fewer
/// has found all there were.
const BATCH: usize = 20;

/// A look that lasted longer than so, and so much more for each thing found, was spent waiting.
const LOOK: Nanos = 100 * MICRO;
const LOOK_EACH: Nanos = 15 * MICRO;

/// Reads no further apart than this belong to one look, where the runtime does not say when it looks.
const APART: Nanos = 200 * MICRO;

/// Pauses of [`LATE`] or more, and the last of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stalls {
    /// How many so far.
    pub count: u64,
    /// Their lengths together, nanoseconds.
    pub sum: Nanos,
    /// From when until when the last one lasted.
    pub last: (Instant, Instant),
}

/// A loop's account of its own pauses. The loop writes it, the parts on its thread read it.
#[derive(Debug, Default)]
pub struct Pulse {
    stalls: Cell<Stalls>,
    /// How long what is being told may have lain unread.
    wait: Cell<Nanos>,
    /// Requests are in flight.
    watched: Cell<bool>,
    /// When it last looked.
    looked: Cell<Instant>,
    /// When it began to wait, and by when it meant to be awake; unset while it does not wait.
    asleep: Cell<Option<(Instant, Instant)>>,
    /// Whatever is found now came after this time.
    since: Cell<Instant>,
    /// What was found since `newer` began is told; with all of it, `newer` becomes `since`.
    newer: Cell<Instant>,
    found: Cell<usize>,
    /// Time spent waiting.
    idle: Cell<Nanos>,
}

impl Pulse {
    /// The pauses so far.
    #[inline]
    pub fn stalls(&self) -> Stalls {
        self.stalls.get()
    }

    /// Upper bound of how long what is being told lay unread, nanoseconds.
    #[inline]
    pub fn wait(&self) -> Nanos {
        self.wait.get()
    }

    /// Time spent waiting so far, nanoseconds; 0 where the loop cannot tell.
    #[inline]
    pub fn idle(&self) -> Nanos {
        self.idle.get()
    }

    /// Says whether requests are in flight: their thread then wakes often enough to know that it can.
    #[inline]
    pub fn watch(&self, on: bool) {
        self.watched.set(on);
    }

    /// Until when a wait that begins at `now` may last that would last until `until`.
    pub fn limit(&self, until: Instant, now: Instant) -> Instant {
        if self.watched.get() { until.min(now.after(WATCH)) } else { until }
    }

    /// The loop is about to look, at `now`, and to wait until `until` if nothing is there.
    pub fn enter(&self, now: Instant, until: Option<Instant>) {
        if self.looked.get().is_set() {
            self.check(self.looked.get(), now);
        }
        self.looked.set(now);
        self.asleep.set(until.map(|until| (now, until.max(now))));
    }

    /// It has looked, at `now`, and found `found` things; `senders` can have sent that many at once.
    pub fn found(&self, now: Instant, found: usize, senders: usize) {
        let (entered, asleep) = (self.looked.get(), self.asleep.take());
        let spent = now.since(entered);
        let overslept = asleep.is_some_and(|(_, until)| self.check(until, now));
        let waited = asleep.is_some() && spent > LOOK + LOOK_EACH * found as Nanos;
        if asleep.is_none() {
            self.check(entered, now);
        }
        if waited || found == 0 {
            self.idle.set(self.idle.get() + spent);
        }
        let wait = match (overslept, waited) {
            // It may have stood still from the moment at which it went to sleep.
            (true, _) => spent,
            (false, true) => 0,
            (false, false) => now.since(self.since.get()),
        };
        self.wait.set(if self.since.get().is_set() { wait } else { 0 });
        self.looked.set(now);
        if overslept && found == 0 {
            // A signal ended the wait; whatever came during the pause is found by the next look.
            self.since.set(entered);
            return;
        }
        self.pass_on(now, waited || found < BATCH, found, senders);
    }

    /// Moves the bound on: to now where all there was has been found; else, once as much has been found as can have been there
    /// before, to when that began, since what comes first is found first.
    fn pass_on(&self, now: Instant, all: bool, found: usize, senders: usize) {
        self.found.set(self.found.get() + found);
        if all {
            self.since.set(now);
        } else if self.found.get() >= senders {
            self.since.set(self.newer.get());
        } else {
            return;
        }
        self.newer.set(now);
        self.found.set(0);
    }

    /// A runtime that looks by itself has brought something at `now`.
    pub fn brought(&self, now: Instant) {
        if let Some((entered, until)) = self.asleep.get()
            && self.check(until, now)
        {
            self.asleep.set(None);
            self.since.set(entered);
        } else if now.since(self.looked.get()) > APART {
            self.since.set(now);
        }
        self.wait.set(now.since(self.since.get()));
        self.looked.set(now);
    }

    /// A loop whose runtime looks by itself is awake at `now`.
    pub fn woke(&self, now: Instant) {
        if let Some((_, until)) = self.asleep.take() {
            self.check(until, now);
        }
        self.looked.set(now);
    }

    /// Counts a pause that lasted from `from`, when the loop meant to be awake, until `now`; whether it was one.
    fn check(&self, from: Instant, now: Instant) -> bool {
        let is_stall = now.since(from) >= LATE;
        if is_stall {
            self.stalled(from, now);
        }
        is_stall
    }

    /// The thread did nothing between these times, though it would have.
    pub fn stalled(&self, from: Instant, to: Instant) {
        let before = self.stalls.get();
        let sum = before.sum + to.since(from);
        self.stalls.set(Stalls { count: before.count + 1, sum, last: (from, to) });
    }

    /// What is told now may have lain unread for so long.
    pub(crate) fn set_wait(&self, wait: Nanos) {
        self.wait.set(wait);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: Instant = Instant(1_000_000_000);

    fn at(micros: u64) -> Instant {
        BEGIN.after(micros * MICRO)
    }

    #[test]
    fn a_thread_that_wakes_when_it_means_to_has_no_pause() {
        let pulse = Pulse::default();
        pulse.watch(true);
        assert_eq!((pulse.limit(at(90_000), at(0)), pulse.limit(at(700), at(0))), (at(4_000), at(700)));
        for k in 0..100 {
            pulse.enter(at(4_100 * k), Some(at(4_100 * k + 4_000)));
            pulse.found(at(4_100 * k + 4_030), 1, 50);
            assert_eq!((pulse.wait(), pulse.stalls().count), (0, 0));
        }
        assert_eq!(pulse.idle(), 100 * 4_030 * MICRO);
        pulse.watch(false);
        assert_eq!(pulse.limit(Instant::NEVER, at(0)), Instant::NEVER);
    }

    #[test]
    fn a_thread_that_stood_still_asleep_at_work_or_between_knows_it() {
        let pulse = Pulse::default();
        pulse.enter(at(0), Some(at(4_000)));
        pulse.found(at(300_000), 3, 50);
        let said = pulse.stalls();
        assert_eq!((said.count, said.sum, said.last), (1, 296 * MILLI, (at(4_000), at(300_000))));
        pulse.enter(at(302_000), Some(at(306_000)));
        pulse.found(at(302_500), 3, 50);
        assert_eq!((pulse.stalls().count, pulse.stalls().last), (2, (at(300_000), at(302_000))));
        pulse.enter(at(302_600), None);
        pulse.found(at(304_000), 0, 50);
        assert_eq!(pulse.stalls().count, 3);
        // The signal that lets it go on ends its wait with nothing found.
        pulse.enter(at(304_100), Some(at(308_100)));
        pulse.found(at(504_100), 0, 50);
        pulse.enter(at(504_120), Some(at(508_120)));
        pulse.found(at(504_150), 7, 50);
        assert_eq!((pulse.stalls().count, pulse.wait()), (4, 200_050 * MICRO));
    }

    #[test]
    fn what_comes_while_it_is_at_work_waits_for_it() {
        let pulse = Pulse::default();
        pulse.enter(at(0), Some(at(4_000)));
        pulse.found(at(2_000), 1, 50);
        // Told for 600 µs; what came meanwhile is there at once.
        pulse.enter(at(2_600), Some(at(4_000)));
        pulse.found(at(2_610), 5, 50);
        assert_eq!(pulse.wait(), 610 * MICRO);
        // 500 at once, 20 a look: the last of them have waited for all the others.
        pulse.enter(at(2_700), Some(at(6_700)));
        pulse.found(at(3_500), 20, 500);
        let mut waits = Vec::new();
        for k in 0..24 {
            pulse.enter(at(3_700 + 200 * k), Some(at(9_000)));
            pulse.found(at(3_720 + 200 * k), 20, 500);
            waits.push(pulse.wait());
        }
        assert!(waits.is_sorted() && waits[23] > 4_500 * MICRO, "{waits:?}");
        // And a bound there is, however long it goes on.
        for k in 24..1000 {
            pulse.enter(at(3_700 + 200 * k), Some(at(9_000 + 200 * k)));
            pulse.found(at(3_720 + 200 * k), 20, 500);
            assert!(pulse.wait() < 11 * MILLI, "{}", pulse.wait());
        }
        assert_eq!(pulse.stalls().count, 0);
    }

    #[test]
    fn a_runtime_s_reads_are_taken_together_where_they_follow_each_other() {
        let pulse = Pulse::default();
        pulse.enter(at(0), Some(at(4_000)));
        for (time, wait) in [(1_000, 0), (1_100, 100), (1_290, 290), (2_000, 0)] {
            pulse.brought(at(time));
            assert_eq!(pulse.wait(), wait * MICRO);
        }
        pulse.brought(at(200_000));
        assert_eq!((pulse.wait(), pulse.stalls().count), (200 * MILLI, 1));
        pulse.brought(at(200_050));
        assert_eq!(pulse.stalls().count, 1);
    }
}
