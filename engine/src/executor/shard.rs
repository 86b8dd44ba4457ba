//! An executor's share of the credits and of the limits.

use crate::clock::Instant;
use crate::credit::Credit;
use std::collections::VecDeque;

/// Credits that wait, in the order they were issued, and the slots they wait for.
#[derive(Debug)]
pub(super) struct Shard {
    waiting: VecDeque<Credit>,
    limit: Option<u32>,
    in_flight: u32,
    stop_at: Instant,
    stopped: bool,
    /// Whether the last credit had a planned time: no closed loop is to be kept going.
    scheduled: bool,
    /// When a slot was last freed.
    freed_at: Instant,
    /// When the limit last kept a credit waiting.
    full_until: Instant,
}

/// A credit whose time has come, with a slot of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Release {
    pub(super) credit: Credit,
    /// Planned time; in a closed loop the moment the slot became free ([`Instant::UNSET`] before the first).
    pub(super) due: Instant,
    /// It found no free slot when it was due.
    pub(super) queued: bool,
}

impl Shard {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            waiting: VecDeque::with_capacity(capacity),
            limit: None,
            in_flight: 0,
            stop_at: Instant::NEVER,
            stopped: false,
            scheduled: false,
            freed_at: Instant::UNSET,
            full_until: Instant::UNSET,
        }
    }

    /// A phase begins with this share of its limit.
    pub(super) fn begin_phase(&mut self, limit: Option<u32>, stop_at: Instant) {
        self.limit = limit;
        self.stop_at = stop_at;
        self.stopped = false;
        self.freed_at = Instant::UNSET;
        self.full_until = Instant::UNSET;
    }

    pub(super) fn push(&mut self, credit: Credit) {
        self.scheduled = credit.is_scheduled();
        self.waiting.push_back(credit);
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Whether a closed loop is about to run out of credits to refill its slots with.
    pub(super) fn is_short(&self) -> bool {
        match self.waiting.front() {
            None => !self.scheduled,
            Some(credit) => !credit.is_scheduled() && self.waiting.len() < self.in_flight as usize / 2,
        }
    }

    fn has_slot(&self) -> bool {
        self.limit.is_none_or(|limit| self.in_flight < limit)
    }

    /// When the next credit can be released; [`Instant::NEVER`] if that takes an event.
    pub(super) fn next_due(&self) -> Instant {
        match self.waiting.front() {
            Some(credit) if self.has_slot() => credit.due,
            _ => Instant::NEVER,
        }
    }

    /// The next credit whose time has come, if a slot is free for it.
    pub(super) fn take(&mut self, now: Instant) -> Option<Release> {
        let credit = *self.waiting.front()?;
        let queued = credit.is_scheduled() && credit.due < self.full_until;
        // What was due before the end and is only late may still go; what waited for a slot may not.
        let over = now >= self.stop_at && (queued || !credit.is_scheduled());
        if self.stopped || over || credit.due > now || !self.has_slot() {
            return None;
        }
        self.waiting.pop_front();
        self.in_flight += 1;
        let due = if credit.is_scheduled() { credit.due } else { self.freed_at };
        Some(Release { credit, due, queued })
    }

    /// A request has ended at `now`.
    pub(super) fn free_slot(&mut self, now: Instant) {
        if !self.has_slot() {
            self.full_until = now;
        }
        self.in_flight -= 1;
        self.freed_at = now;
    }

    /// Nothing more is started in this phase.
    pub(super) fn stop(&mut self) {
        self.stopped = true;
    }

    /// Takes back the credits that will not be started; returns how many.
    pub(super) fn hand_back(&mut self, now: Instant) -> u64 {
        let waits = |c: &Credit| !c.is_scheduled() || !self.has_slot() || c.due < self.full_until;
        let over = self.stopped || (now >= self.stop_at && self.waiting.front().is_some_and(waits));
        if !over {
            return 0;
        }
        let n = self.waiting.len() as u64;
        self.waiting.clear();
        n
    }

    /// When credits that wait for a slot become void.
    pub(super) fn void_at(&self) -> Instant {
        if self.waiting.is_empty() { Instant::NEVER } else { self.stop_at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn credit(seq: u64, due: u64) -> Credit {
        Credit { seq, due: Instant(due), request: 0, phase: 0 }
    }

    #[test]
    fn a_limit_of_one_means_one() {
        let mut shard = Shard::new(4);
        shard.begin_phase(Some(1), Instant::NEVER);
        shard.push(credit(0, 0));
        shard.push(credit(1, 0));
        assert_eq!(shard.take(Instant(5)).unwrap().due, Instant::UNSET);
        assert_eq!(shard.take(Instant(6)), None);
        shard.free_slot(Instant(9));
        assert_eq!(shard.take(Instant(10)).unwrap().due, Instant(9), "a closed loop's due is when the slot was freed");
    }

    #[test]
    fn a_scheduled_credit_waits_for_its_time_and_remembers_a_full_house() {
        let mut shard = Shard::new(4);
        shard.begin_phase(Some(1), Instant::NEVER);
        for (seq, due) in [(0, 10), (1, 20), (2, 40)] {
            shard.push(credit(seq, due));
        }
        assert_eq!(shard.take(Instant(9)), None);
        assert_eq!(shard.next_due(), Instant(10));
        assert!(!shard.take(Instant(10)).unwrap().queued);
        assert_eq!(shard.take(Instant(25)), None);
        assert_eq!(shard.next_due(), Instant::NEVER);
        shard.free_slot(Instant(30));
        let late = shard.take(Instant(30)).unwrap();
        assert_eq!((late.queued, late.due), (true, Instant(20)));
        shard.free_slot(Instant(35));
        assert!(!shard.take(Instant(41)).unwrap().queued, "the slot was free again before this one was due");
    }

    #[test]
    fn at_the_end_the_late_may_go_and_the_queued_may_not() {
        let mut shard = Shard::new(4);
        shard.begin_phase(Some(1), Instant(100));
        for seq in 0..3 {
            shard.push(credit(seq, 90 + seq));
        }
        assert!(shard.take(Instant(101)).is_some(), "due before the end, and a slot was free");
        assert_eq!((shard.take(Instant(102)), shard.void_at()), (None, Instant(100)));
        shard.free_slot(Instant(110));
        assert_eq!(shard.take(Instant(110)), None);
        assert_eq!(shard.hand_back(Instant(110)), 2);
    }

    #[test]
    fn what_is_not_started_is_handed_back() {
        let mut shard = Shard::new(4);
        shard.begin_phase(Some(2), Instant(100));
        shard.push(credit(0, 0));
        assert_eq!(shard.hand_back(Instant(99)), 0);
        assert_eq!(shard.take(Instant(100)), None);
        assert_eq!(shard.hand_back(Instant(100)), 1);
        shard.begin_phase(None, Instant::NEVER);
        shard.push(credit(0, 500));
        shard.stop();
        assert_eq!(shard.hand_back(Instant(1)), 1);
    }

    #[derive(Debug, Clone, Copy)]
    enum Move {
        Push(u64),
        Take,
        Free,
        Wait(u64),
        Stop,
        HandBack,
    }

    fn moves() -> impl Strategy<Value = Vec<Move>> {
        let one = prop_oneof![
            6 => (0..20u64).prop_map(Move::Push),
            9 => Just(Move::Take),
            6 => Just(Move::Free),
            6 => (0..15u64).prop_map(Move::Wait),
            1 => Just(Move::HandBack),
        ];
        let end = prop_oneof![Just(Move::Stop), Just(Move::HandBack)];
        (prop::collection::vec(one, 0..150), end).prop_map(|(mut all, end)| {
            all.extend([end, Move::Take, Move::HandBack]);
            all
        })
    }

    proptest! {
        #[test]
        fn credits_are_conserved_in_order_and_within_limits(
            moves in moves(), limit in prop::option::of(1..4u32), scheduled: bool, stop_at in 50..400u64
        ) {
            let mut shard = Shard::new(4);
            shard.begin_phase(limit, Instant(stop_at));
            let (mut now, mut last_due) = (1, 0);
            let (mut pushed, mut taken, mut back, mut freed) = (0, 0, 0, 0);
            // Whether the credit in front was refused a slot after its time.
            let mut refused = false;
            for step in moves {
                match step {
                    Move::Push(gap) => {
                        last_due += gap;
                        shard.push(credit(pushed, if scheduled { last_due + 1 } else { 0 }));
                        pushed += 1;
                    }
                    Move::Take => {
                        let full = limit.is_some_and(|limit| shard.in_flight() == limit);
                        let due = shard.next_due();
                        let Some(release) = shard.take(Instant(now)) else {
                            refused |= full && shard.waiting.front().is_some_and(|c| c.due.0 < now);
                            continue;
                        };
                        prop_assert!(!full && due <= Instant(now), "released although {due:?}, full: {full}");
                        prop_assert_eq!(release.credit.seq, taken + back);
                        prop_assert!(release.due <= Instant(now));
                        prop_assert!(scheduled || now < stop_at);
                        prop_assert!(!release.queued || (scheduled && limit.is_some()));
                        prop_assert!(release.queued || !(scheduled && refused), "it waited for a slot");
                        refused = false;
                        taken += 1;
                    }
                    Move::Free if shard.in_flight() > 0 => {
                        freed += 1;
                        shard.free_slot(Instant(now));
                    }
                    Move::Free => {}
                    Move::Wait(span) => now += span,
                    Move::Stop => shard.stop(),
                    Move::HandBack => {
                        let n = shard.hand_back(Instant(now));
                        refused &= n == 0;
                        back += n;
                    }
                }
                prop_assert!(limit.is_none_or(|limit| shard.in_flight() <= limit));
                prop_assert_eq!(u64::from(shard.in_flight()), taken - freed);
                prop_assert_eq!(pushed, taken + back + shard.waiting.len() as u64);
            }
        }
    }
}
