//! What an executor does at times of its own, by its own clock.

use crate::clock::Instant;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What is to be done. Each names a tenant of a slot, which may have moved out meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The next turn of a session.
    Turn { session: u32, generation: u32 },
    /// A request is cut on purpose.
    Cut { flight: u32, generation: u32 },
    /// A request goes on with its next exchange.
    Follow { flight: u32, generation: u32 },
    /// A slot of a closed loop that was held back may be used again.
    Slot { phase: u8 },
}

/// Timers by their times. Bounded by the live sessions, twice the requests in flight and the limits of closed loops.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, Timer)>>,
    /// How many were left by the last sweep.
    swept: usize,
}

/// Timers that may be there without a sweep.
const FEW: usize = 1024;

impl Timers {
    pub(super) fn set(&mut self, at: Instant, timer: Timer) {
        self.heap.push(Reverse((at, timer)));
    }

    /// Takes out those that mean nothing any more, once half of all may be such: of requests that ended long before the time
    /// at which they were to be cut.
    pub(super) fn sweep(&mut self, means: impl Fn(&Timer) -> bool) {
        if self.heap.len() >= FEW.max(2 * self.swept) {
            self.heap.retain(|Reverse((_, timer))| means(timer));
            self.swept = self.heap.len();
        }
    }

    /// When the next is due; [`Instant::NEVER`] if there is none.
    #[inline]
    pub(super) fn next(&self) -> Instant {
        self.heap.peek().map_or(Instant::NEVER, |Reverse((at, _))| *at)
    }

    /// Takes one that is due at `now`, and when it was.
    pub(super) fn take(&mut self, now: Instant) -> Option<(Instant, Timer)> {
        if self.next() > now {
            return None;
        }
        self.heap.pop().map(|Reverse(due)| due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_of_what_has_ended_do_not_stay() {
        let mut timers = Timers::default();
        for generation in 0..100_000 {
            // Two are in flight at a time, and are to be cut in an hour.
            timers.sweep(|timer| matches!(timer, Timer::Cut { generation: of, .. } if of + 2 > generation));
            timers.set(Instant(u64::from(generation)), Timer::Cut { flight: generation % 2, generation });
            assert!(timers.heap.len() <= FEW, "{} timers", timers.heap.len());
        }
    }
}
