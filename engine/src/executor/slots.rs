//! One executor's share of a limit.

use crate::clock::Instant;
use crate::schedule::{LimitCurve, share};

/// Slots under a limit that may change over time. At every instant the shares of all executors sum to the limit.
#[derive(Debug)]
pub(super) struct Slots {
    curve: Option<LimitCurve>,
    /// Which share of how many.
    part: (usize, usize),
    /// Zero of the curve.
    start: Instant,
    share: u32,
    /// Until when the share is this.
    until: Instant,
    taken: u32,
    /// When the limit last kept somebody waiting.
    full_until: Instant,
}

impl Slots {
    /// Share `part.0` of `part.1` of a limit whose zero is `start`; as many as are wanted if there is none.
    pub(super) fn new(curve: Option<LimitCurve>, part: (usize, usize), start: Instant) -> Self {
        let until = if curve.is_some() { start } else { Instant::NEVER };
        let mut slots = Self { curve, part, start, share: u32::MAX, until, taken: 0, full_until: Instant::UNSET };
        slots.refresh(start);
        slots
    }

    pub(super) fn is_limited(&self) -> bool {
        self.curve.is_some()
    }

    pub(super) fn taken(&self) -> u32 {
        self.taken
    }

    /// Takes up what the limit is at `now`.
    #[inline]
    pub(super) fn refresh(&mut self, now: Instant) {
        if now >= self.until {
            self.change(now);
        }
    }

    #[cold]
    fn change(&mut self, now: Instant) {
        let Some(curve) = &self.curve else { return };
        let was_full = !self.is_free();
        let offset = now.since(self.start);
        self.share = share(curve.at(offset), self.part.0, self.part.1);
        let changed = self.until;
        self.until = curve.next_change(offset).map_or(Instant::NEVER, |at| self.start.after(at));
        if was_full && self.is_free() {
            self.full_until = changed;
        }
    }

    pub(super) fn is_free(&self) -> bool {
        self.taken < self.share
    }

    pub(super) fn take(&mut self) {
        self.taken += 1;
    }

    pub(super) fn give_back(&mut self, now: Instant) {
        if !self.is_free() {
            self.full_until = now;
        }
        self.taken -= 1;
    }

    /// When the limit next changes, if none is free before.
    pub(super) fn changes_at(&self) -> Instant {
        self.until
    }

    pub(super) fn full_until(&self) -> Instant {
        self.full_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_limit_there_is_always_one_more() {
        let mut slots = Slots::new(None, (0, 3), Instant(5));
        (0..1000).for_each(|_| slots.take());
        assert!(slots.is_free() && !slots.is_limited());
    }

    #[test]
    fn it_remembers_until_when_it_was_full() {
        let mut slots = Slots::new(Some(LimitCurve::constant(5)), (0, 3), Instant(5));
        assert!(slots.is_free());
        slots.take();
        slots.give_back(Instant(7));
        assert_eq!(slots.full_until(), Instant::UNSET);
        (0..2).for_each(|_| slots.take());
        assert!(!slots.is_free());
        slots.give_back(Instant(9));
        assert_eq!((slots.full_until(), slots.taken()), (Instant(9), 1));
    }
}
