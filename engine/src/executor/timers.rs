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

/// Timers by their times. Bounded by the live sessions, the requests in flight and the limits of closed loops.
#[derive(Debug, Default)]
pub(super) struct Timers(BinaryHeap<Reverse<(Instant, Timer)>>);

impl Timers {
    pub(super) fn set(&mut self, at: Instant, timer: Timer) {
        self.0.push(Reverse((at, timer)));
    }

    /// When the next is due; [`Instant::NEVER`] if there is none.
    #[inline]
    pub(super) fn next(&self) -> Instant {
        self.0.peek().map_or(Instant::NEVER, |Reverse((at, _))| *at)
    }

    /// Takes one that is due at `now`, and when it was.
    pub(super) fn take(&mut self, now: Instant) -> Option<(Instant, Timer)> {
        if self.next() > now {
            return None;
        }
        self.0.pop().map(|Reverse(due)| due)
    }
}
