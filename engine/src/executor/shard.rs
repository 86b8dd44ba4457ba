//! An executor's share of the credits and of the limits of one phase.

use super::slots::Slots;
use crate::clock::{Instant, Nanos};
use crate::credit::Credit;
use crate::plan::{CancellationDraws, LatePolicy, Phase};
use crate::schedule::{LimitCurve, Spec};
use std::collections::VecDeque;

/// Who decides that a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Every session has one turn: a credit is its request.
    Single,
    /// Every session has one turn, and arrivals may be dropped: a credit claims its request as it is sent.
    Claimed,
    /// Closed loop of sessions: a free slot starts one, and its turns follow at their own pace.
    Loop,
    /// A schedule of ticks: each sends a turn that is ready, else starts a session.
    Ticks,
    /// A schedule of sessions; later turns go at their own times.
    Starts,
}

impl Mode {
    pub(super) fn of(phase: &Phase, single_turn: bool) -> Self {
        match (single_turn, phase.is_of_ticks(single_turn)) {
            (true, true) => Self::Claimed,
            (true, false) => Self::Single,
            (false, true) => Self::Ticks,
            (false, false) if phase.schedule == Spec::ClosedLoop => Self::Loop,
            (false, false) => Self::Starts,
        }
    }
}

/// What a request needs before it can go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// A slot for its session, and one to prefill.
    Session,
    /// Its session has its slot: one to prefill.
    Turn,
}

/// Credits that wait, in the order they were issued, and the slots they wait for.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) mode: Mode,
    waiting: VecDeque<Credit>,
    sessions: Slots,
    prefill: Slots,
    /// Either has a limit.
    is_limited: bool,
    late: LatePolicy,
    pub(super) start: Instant,
    stop_at: Instant,
    stopped: bool,
    /// Whether the last credit had a planned time: no closed loop is to be kept going.
    scheduled: bool,
    /// When a slot was last freed.
    freed_at: Instant,
    /// No session can be started any more.
    pub(super) exhausted: bool,
    pub(super) cancel: Option<CancellationDraws>,
    /// From one turn to the next, where the schedule sets it.
    pub(super) gap: Option<Nanos>,
}

/// A credit whose time has come, with its slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Release {
    pub(super) credit: Credit,
    /// Planned time; in a closed loop the moment the slot became free ([`Instant::UNSET`] before the first).
    pub(super) due: Instant,
    /// It found no free slot when it was due, and waited.
    pub(super) queued: bool,
    /// It found no free slot and goes all the same.
    pub(super) over_limit: bool,
}

/// What became of the next credit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// It waits, or there is none.
    Nothing,
    /// It is to be sent.
    Go(Release),
    /// It found no free slot at its time and is not sent.
    Dropped,
}

impl Shard {
    /// A phase that has not begun.
    pub(super) fn idle() -> Self {
        let none = || Slots::new(None, (0, 1), Instant::UNSET);
        Self {
            mode: Mode::Single,
            waiting: VecDeque::new(),
            sessions: none(),
            prefill: none(),
            is_limited: false,
            late: LatePolicy::Queue,
            start: Instant::UNSET,
            stop_at: Instant::NEVER,
            stopped: true,
            scheduled: true,
            freed_at: Instant::UNSET,
            exhausted: true,
            cancel: None,
            gap: None,
        }
    }

    /// Gives a phase that has not begun its queue.
    pub(super) fn reserve(&mut self, queue: VecDeque<Credit>) {
        self.waiting = queue;
    }

    /// A phase that begins at `start`, with share `part.0` of `part.1` of its limits. `queue` keeps its room.
    pub(super) fn begin(
        phase: &Phase,
        mode: Mode,
        part: (usize, usize),
        (start, stop_at): (Instant, Instant),
        seed: u64,
        mut queue: VecDeque<Credit>,
    ) -> Self {
        queue.clear();
        let slots = |curve: &Option<_>| Slots::new(curve.clone(), part, start);
        // A loop without any limit would start sessions for ever.
        let one = Some(LimitCurve::constant(1)).filter(|_| mode == Mode::Loop);
        let concurrency = phase.concurrency.clone().or(one);
        Self {
            mode,
            waiting: queue,
            is_limited: concurrency.is_some() || phase.prefill.is_some(),
            sessions: slots(&concurrency),
            prefill: slots(&phase.prefill),
            late: phase.late,
            start,
            stop_at,
            stopped: false,
            scheduled: phase.schedule != Spec::ClosedLoop || mode != Mode::Single,
            freed_at: Instant::UNSET,
            exhausted: false,
            cancel: phase.cancellation.map(|c| c.draws(seed)),
            gap: phase.turn_gap(),
        }
    }

    /// The queue of a phase that has sent everything, for the next one.
    pub(super) fn take_queue(&mut self) -> VecDeque<Credit> {
        std::mem::take(&mut self.waiting)
    }

    pub(super) fn push(&mut self, credit: Credit) {
        self.waiting.push_back(credit);
    }

    /// Whether a closed loop is about to run out of credits to refill its slots with.
    pub(super) fn is_short(&self) -> bool {
        !self.scheduled && self.waiting.len() < (self.sessions.taken() as usize / 2).max(1)
    }

    /// Whether what ends makes room for what starts, and nothing has a planned time.
    pub(super) fn is_loop(&self) -> bool {
        self.mode == Mode::Loop || (self.mode == Mode::Single && !self.scheduled)
    }

    /// Whether nothing more starts.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Whether nothing more may start at `now`, but for what was due before and is only late.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.stopped || now >= self.stop_at
    }

    /// Whether what was due at `planned` may go after the end: it is late through no limit's doing.
    pub(super) fn is_late_only(&self, planned: Instant, now: Instant) -> bool {
        !self.stopped && planned < self.stop_at && planned <= now
    }

    pub(super) fn has_slot(&self, need: Need) -> bool {
        (need == Need::Turn || self.sessions.is_free()) && self.prefill.is_free()
    }

    /// Takes up what the limits are at `now`.
    #[inline]
    pub(super) fn refresh(&mut self, now: Instant) {
        self.sessions.refresh(now);
        self.prefill.refresh(now);
    }

    /// Until when the limit last kept anything waiting that has this need.
    fn full_until(&self, need: Need) -> Instant {
        match need {
            Need::Session => self.sessions.full_until().max(self.prefill.full_until()),
            Need::Turn => self.prefill.full_until(),
        }
    }

    /// When the next request with this need could go that needs no credit: at once, or when a limit changes.
    pub(super) fn slot_at(&self, need: Need) -> Instant {
        if self.has_slot(need) || (need == Need::Turn && self.sends_over_limit()) {
            Instant::UNSET
        } else {
            self.sessions.changes_at().min(self.prefill.changes_at())
        }
    }

    /// Whether turns that go at planned times go without a slot too.
    pub(super) fn sends_over_limit(&self) -> bool {
        self.mode == Mode::Starts && self.late == LatePolicy::Send
    }

    /// When the next credit, whose request has this need, can be released or dropped; [`Instant::NEVER`] if that takes an
    /// event.
    #[inline]
    pub(super) fn next_due(&self, need: Need) -> Instant {
        match self.waiting.front() {
            None => Instant::NEVER,
            Some(credit) if !self.is_limited => credit.due,
            Some(credit) if credit.is_scheduled() && self.late != LatePolicy::Queue => credit.due,
            Some(credit) => credit.due.max(self.slot_at(need)),
        }
    }

    /// When the next credit is due, slot or no slot.
    pub(super) fn front_due(&self) -> Instant {
        self.waiting.front().map_or(Instant::NEVER, |c| c.due)
    }

    /// The next credit whose time has come, if a slot is free for its request, or it needs none.
    #[inline]
    pub(super) fn take(&mut self, now: Instant, need: Need) -> Taken {
        let Some(&credit) = self.waiting.front() else { return Taken::Nothing };
        if !self.is_limited {
            let over = self.stopped || (now >= self.stop_at && !credit.is_scheduled());
            if over || credit.due > now {
                return Taken::Nothing;
            }
            self.waiting.pop_front();
            self.occupy(need);
            let due = if credit.is_scheduled() { credit.due } else { self.freed_at };
            return Taken::Go(Release { credit, due, queued: false, over_limit: false });
        }
        self.take_limited(credit, now, need)
    }

    /// The same where there is a limit.
    fn take_limited(&mut self, credit: Credit, now: Instant, need: Need) -> Taken {
        self.refresh(now);
        let (scheduled, free) = (credit.is_scheduled(), self.has_slot(need));
        let found_full = scheduled && credit.due < self.full_until(need);
        // What was due before the end and is only late may still go; what waited for a slot may not.
        let over = now >= self.stop_at && (found_full || !free || !scheduled);
        if self.stopped || over || credit.due > now {
            return Taken::Nothing;
        }
        match self.late {
            LatePolicy::Drop if scheduled && (found_full || !free) => {
                self.waiting.pop_front();
                return Taken::Dropped;
            }
            LatePolicy::Send if scheduled => {}
            _ if !free => return Taken::Nothing,
            _ => {}
        }
        self.waiting.pop_front();
        self.occupy(need);
        let due = if scheduled { credit.due } else { self.freed_at() };
        Taken::Go(Release { credit, due, queued: found_full && self.late == LatePolicy::Queue, over_limit: !free })
    }

    /// Takes the next credit if its time has come, with no slot: there is nothing to send.
    pub(super) fn take_idle(&mut self, now: Instant) -> bool {
        !self.stopped && self.front_due() <= now && self.waiting.pop_front().is_some()
    }

    /// Takes the slots for a request.
    pub(super) fn occupy(&mut self, need: Need) {
        if need == Need::Session {
            self.sessions.take();
        }
        if self.prefill.is_limited() {
            self.prefill.take();
        }
    }

    /// Whether a request just started holds a prefill slot.
    pub(super) fn limits_prefill(&self) -> bool {
        self.prefill.is_limited()
    }

    /// When a slot was last freed, or added by a limit that changes.
    pub(super) fn freed_at(&self) -> Instant {
        self.freed_at.max(self.full_until(Need::Session))
    }

    /// Whether the limit, not the client, kept a turn that was due at `due` until now.
    pub(super) fn kept_turn(&self, due: Instant) -> bool {
        due < self.full_until(Need::Turn)
    }

    /// Whether a tick due at `due` found neither a turn nor a free slot for a session, and goes to a turn that was ready
    /// only at `ready`.
    pub(super) fn kept_tick(&self, due: Instant, ready: Instant) -> bool {
        let full = || !self.sessions.is_free() || due < self.sessions.full_until();
        self.late == LatePolicy::Queue && due < ready && full()
    }

    /// A session has ended at `now`.
    pub(super) fn free_session(&mut self, now: Instant) {
        self.sessions.give_back(now);
        self.freed_at = now;
    }

    /// A request has had its first token, or ended without.
    pub(super) fn free_prefill(&mut self, now: Instant) {
        self.prefill.give_back(now);
        self.freed_at = now;
    }

    /// Nothing more is started in this phase.
    pub(super) fn stop(&mut self) {
        self.stopped = true;
    }

    /// Takes back the credits that will not be started; returns how many.
    pub(super) fn hand_back(&mut self, now: Instant) -> u64 {
        if self.waiting.is_empty() {
            return 0;
        }
        let full = self.full_until(Need::Session);
        let waits = |c: &Credit| {
            self.mode != Mode::Single || !c.is_scheduled() || !self.has_slot(Need::Session) || c.due < full
        };
        let over = self.stopped || (now >= self.stop_at && self.waiting.front().is_some_and(waits));
        if !over {
            return 0;
        }
        let n = self.waiting.len() as u64;
        self.waiting.clear();
        n
    }

    /// When what waits becomes void. `sessions_wait` for their next turn.
    pub(super) fn void_at(&self, sessions_wait: bool) -> Instant {
        if self.waiting.is_empty() && !sessions_wait { Instant::NEVER } else { self.stop_at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn begun(limit: Option<u32>, stop_at: Instant, scheduled: bool, late: LatePolicy) -> Shard {
        let schedule = if scheduled { Spec::Constant(1.0) } else { Spec::ClosedLoop };
        let phase = Phase { concurrency: limit.map(LimitCurve::constant), schedule, late, ..Phase::default() };
        Shard::begin(&phase, Mode::Single, (0, 1), (Instant(1), stop_at), 0, VecDeque::new())
    }

    fn go(shard: &mut Shard, now: u64) -> Option<Release> {
        match shard.take(Instant(now), Need::Session) {
            Taken::Go(release) => Some(release),
            Taken::Nothing | Taken::Dropped => None,
        }
    }

    fn credit(seq: u64, due: u64) -> Credit {
        Credit { seq, due: Instant(due), request: 0, turns: 1, phase: 0 }
    }

    #[test]
    fn a_limit_of_one_means_one() {
        let mut shard = begun(Some(1), Instant::NEVER, false, LatePolicy::Queue);
        shard.push(credit(0, 0));
        shard.push(credit(1, 0));
        assert_eq!(go(&mut shard, 5).unwrap().due, Instant::UNSET);
        assert_eq!(go(&mut shard, 6), None);
        shard.free_session(Instant(9));
        assert_eq!(go(&mut shard, 10).unwrap().due, Instant(9), "a closed loop's due is when the slot was freed");
    }

    #[test]
    fn a_scheduled_credit_waits_for_its_time_and_remembers_a_full_house() {
        let mut shard = begun(Some(1), Instant::NEVER, true, LatePolicy::Queue);
        for (seq, due) in [(0, 10), (1, 20), (2, 40)] {
            shard.push(credit(seq, due));
        }
        assert_eq!(go(&mut shard, 9), None);
        assert_eq!(shard.next_due(Need::Session), Instant(10));
        assert!(!go(&mut shard, 10).unwrap().queued);
        assert_eq!(go(&mut shard, 25), None);
        assert_eq!(shard.next_due(Need::Session), Instant::NEVER);
        shard.free_session(Instant(30));
        let late = go(&mut shard, 30).unwrap();
        assert_eq!((late.queued, late.due), (true, Instant(20)));
        shard.free_session(Instant(35));
        assert!(!go(&mut shard, 41).unwrap().queued, "the slot was free again before this one was due");
    }

    #[test]
    fn at_the_end_the_late_may_go_and_the_queued_may_not() {
        let mut shard = begun(Some(1), Instant(100), true, LatePolicy::Queue);
        for seq in 0..3 {
            shard.push(credit(seq, 90 + seq));
        }
        assert!(go(&mut shard, 101).is_some(), "due before the end, and a slot was free");
        assert_eq!((go(&mut shard, 102), shard.void_at(false)), (None, Instant(100)));
        shard.free_session(Instant(110));
        assert_eq!(go(&mut shard, 110), None);
        assert_eq!(shard.hand_back(Instant(110)), 2);
    }

    #[test]
    fn what_is_not_started_is_handed_back() {
        let mut shard = begun(Some(2), Instant(100), false, LatePolicy::Queue);
        shard.push(credit(0, 0));
        assert_eq!(shard.hand_back(Instant(99)), 0);
        assert_eq!(go(&mut shard, 100), None);
        assert_eq!(shard.hand_back(Instant(100)), 1);
        let mut shard = begun(None, Instant::NEVER, true, LatePolicy::Queue);
        shard.push(credit(0, 500));
        shard.stop();
        assert_eq!(shard.hand_back(Instant(1)), 1);
    }

    #[test]
    fn a_late_policy_drops_or_sends_what_finds_no_slot() {
        for late in [LatePolicy::Drop, LatePolicy::Send] {
            let mut shard = begun(Some(1), Instant(100), true, late);
            (0..4).for_each(|seq| shard.push(credit(seq, 10 + 10 * seq)));
            assert!(go(&mut shard, 10).is_some());
            assert_eq!(shard.next_due(Need::Session), Instant(20), "no slot, and yet something is to be done");
            match shard.take(Instant(20), Need::Session) {
                Taken::Dropped if late == LatePolicy::Drop => {}
                Taken::Go(release) if late == LatePolicy::Send => {
                    assert!(release.over_limit && !release.queued);
                    shard.free_session(Instant(21));
                }
                other => panic!("{late:?}: {other:?}"),
            }
            shard.free_session(Instant(32));
            // At its time there was no slot, though now there is one.
            let third = shard.take(Instant(33), Need::Session);
            assert_eq!(third == Taken::Dropped, late == LatePolicy::Drop, "{third:?}");
            if late == LatePolicy::Send {
                shard.free_session(Instant(34));
            }
            assert!(go(&mut shard, 41).is_some_and(|r| !r.over_limit && !r.queued));
        }
    }

    #[test]
    fn a_prefill_slot_is_needed_too() {
        let phase = Phase { prefill: Some(LimitCurve::constant(1)), schedule: Spec::Constant(1.0), ..Phase::default() };
        let span = (Instant(1), Instant::NEVER);
        let mut shard = Shard::begin(&phase, Mode::Single, (0, 1), span, 0, VecDeque::new());
        (0..2).for_each(|seq| shard.push(credit(seq, 10)));
        assert!(go(&mut shard, 10).is_some());
        assert_eq!((go(&mut shard, 11), shard.next_due(Need::Session)), (None, Instant::NEVER));
        shard.free_prefill(Instant(15));
        assert!(go(&mut shard, 15).is_some_and(|r| r.queued));
        assert_eq!(shard.sessions.taken(), 2);
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
            let mut shard = begun(limit, Instant(stop_at), scheduled, LatePolicy::Queue);
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
                        let full = limit.is_some_and(|limit| shard.sessions.taken() == limit);
                        let due = shard.next_due(Need::Session);
                        let Some(release) = go(&mut shard, now) else {
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
                    Move::Free if shard.sessions.taken() > 0 => {
                        freed += 1;
                        shard.free_session(Instant(now));
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
                prop_assert!(limit.is_none_or(|limit| shard.sessions.taken() <= limit));
                prop_assert_eq!(u64::from(shard.sessions.taken()), taken - freed);
                prop_assert_eq!(pushed, taken + back + shard.waiting.len() as u64);
            }
        }
    }
}
