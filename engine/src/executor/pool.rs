//! An executor's connections: which slot holds what, and which stand idle.

use crate::clock::{Instant, MILLI, Nanos};
use crate::net::ConnId;
use std::collections::VecDeque;

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// No connection.
    Vacant,
    /// Being opened: for a flight, or ahead of need.
    Opening(Option<u32>),
    /// Ready.
    Idle,
    /// Carries a flight.
    Busy(u32),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Conn {
    epoch: u32,
    pub(super) state: State,
    /// Responses carried so far.
    pub(super) served: u32,
    /// When the last of them was complete, and how long it must then stand to show that it is kept.
    answered: Instant,
    trial: Nanos,
    /// It has answered, and is not used again before it has stood for a while.
    on_trial: bool,
    /// Its session has another one by now.
    abandoned: bool,
    pub(super) local_port: u16,
    pub(super) target: u16,
    /// It has stood idle: the server may have closed it meanwhile.
    pub(super) idled: bool,
    /// When the first attempt to connect began.
    pub(super) began: Instant,
    /// The address it leads to, among its target's, and how many have been tried.
    pub(super) addr: u16,
    pub(super) tried: u16,
}

/// After this many connections in a row that the server closed as soon as they had answered, and none that it ever kept,
/// connections are used once: the server does not keep them alive, whatever it announces.
const GIVE_UP_REUSE_AFTER: u32 = 3;

/// How long a connection must stand after an answer to show that its server keeps connections: as long as the answer took,
/// within these bounds. So about one connection more than usual is opened for each request in flight, and a slow machine, on
/// which closing takes long too, has more time for it. Fewer than 10 ms saw llama.cpp's close too late where its
/// threads waited for a core.
const TRIAL: (Nanos, Nanos) = (10 * MILLI, 250 * MILLI);

/// What is known of how a target treats connections that have answered.
///
/// A request that reaches a server which is about to close fails, and cannot be told from one that the server dropped. So
/// until one connection has stood for a while after its answer ([`TRIAL`]), none that has just answered is used again.
#[derive(Debug, Clone, Copy, Default)]
struct Keeping {
    /// One has stood, and none was closed early since.
    proven: bool,
    /// One has ever stood.
    ever: bool,
    /// Closed early, one after the other.
    early: u32,
}

/// Whether `id` still means a connection that is being opened.
fn is_opening(conns: &[Conn], id: ConnId) -> bool {
    conns.get(id.slot as usize).is_some_and(|conn| conn.epoch == id.epoch && matches!(conn.state, State::Opening(_)))
}

#[derive(Debug)]
pub(super) struct Pool {
    conns: Vec<Conn>,
    vacant: Vec<u32>,
    /// By target; most recently used last, never used ones first: the server may not have taken these up yet. Entries whose
    /// connection has closed since are skipped when taken.
    idle: Vec<VecDeque<ConnId>>,
    /// By target: connections being opened for a flight, in that order. Entries that no longer are are skipped.
    opening: Vec<VecDeque<ConnId>>,
    /// By target: connections being opened for a flight that has found another one meanwhile. Entries that no longer are
    /// are skipped.
    spare: Vec<VecDeque<ConnId>>,
    /// Flights (slot, generation) that wait for a connection.
    pub(super) waiting: VecDeque<(u32, u32)>,
    limit: usize,
    open: usize,
    /// Connections being opened and until when they may be, in that order. Entries of others that have ended are skipped.
    attempts: VecDeque<(Instant, ConnId)>,
    /// By target.
    keeping: Vec<Keeping>,
    /// Connections on trial and when it ends. Entries of others that have closed since are skipped.
    trials: Vec<(Instant, ConnId)>,
    /// When the next trial ends; [`Instant::NEVER`] if there is none.
    trial_ends: Instant,
}

impl Pool {
    /// At most `limit` connections at a time, to so many targets.
    pub(super) fn new(limit: usize, targets: usize) -> Self {
        Self {
            conns: Vec::new(),
            vacant: Vec::new(),
            idle: vec![VecDeque::new(); targets],
            opening: vec![VecDeque::new(); targets],
            spare: vec![VecDeque::new(); targets],
            waiting: VecDeque::new(),
            limit,
            open: 0,
            attempts: VecDeque::new(),
            keeping: vec![Keeping::default(); targets],
            trials: Vec::new(),
            trial_ends: Instant::NEVER,
        }
    }

    /// The connection, if `id` still means it.
    pub(super) fn get(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.conns.get_mut(id.slot as usize).filter(|c| c.epoch == id.epoch && c.state != State::Vacant)
    }

    /// A slot for a new connection, or `None` at the limit. The flight of one that is not to be `shared` takes no other.
    pub(super) fn reserve(&mut self, flight: Option<u32>, target: u16, shared: bool, now: Instant) -> Option<ConnId> {
        if self.open >= self.limit {
            return None;
        }
        self.open += 1;
        let fresh = Conn {
            epoch: 0,
            state: State::Vacant,
            served: 0,
            answered: Instant::UNSET,
            trial: 0,
            on_trial: false,
            abandoned: false,
            local_port: 0,
            target,
            idled: false,
            began: now,
            addr: 0,
            tried: 1,
        };
        let slot = self.vacant.pop().unwrap_or_else(|| {
            self.conns.push(fresh);
            self.conns.len() as u32 - 1
        });
        let conn = &mut self.conns[slot as usize];
        *conn = Conn { epoch: conn.epoch.wrapping_add(2), state: State::Opening(flight), ..fresh };
        let id = ConnId { slot, epoch: conn.epoch };
        if flight.is_some() && shared {
            self.note_opening(id, target);
        }
        Some(id)
    }

    /// The connection could not be made, and another address is tried in its place, under a new name; `anew` where it is the
    /// first attempt of all, and when that begins.
    pub(super) fn reopen(&mut self, id: ConnId, anew: Option<Instant>) -> Option<ConnId> {
        let conn = self.get(id)?;
        conn.epoch = conn.epoch.wrapping_add(2);
        conn.tried += 1;
        if let Some(now) = anew {
            (conn.began, conn.tried) = (now, 1);
        }
        let again = ConnId { slot: id.slot, epoch: conn.epoch };
        let target = conn.target as usize;
        // Whoever waits for it keeps its place.
        if let Some(place) = self.opening[target].iter_mut().find(|place| **place == id) {
            *place = again;
        }
        Some(again)
    }

    /// An attempt to connect has until `at`.
    pub(super) fn limit_attempt(&mut self, id: ConnId, at: Instant) {
        let conns = &self.conns;
        if self.attempts.len() > 2 * self.open.max(64) {
            self.attempts.retain(|&(_, id)| is_opening(conns, id));
        }
        self.attempts.push_back((at, id));
    }

    /// When the next attempt to connect has taken too long, at the earliest.
    pub(super) fn attempt_ends(&self) -> Instant {
        self.attempts.front().map_or(Instant::NEVER, |(at, _)| *at)
    }

    /// The next attempt to connect that has taken too long by `now`.
    pub(super) fn next_overdue(&mut self, now: Instant) -> Option<ConnId> {
        while let Some(&(at, id)) = self.attempts.front() {
            let opening = is_opening(&self.conns, id);
            if opening && at > now {
                return None;
            }
            self.attempts.pop_front();
            if opening {
                return Some(id);
            }
        }
        None
    }

    fn note_opening(&mut self, id: ConnId, target: u16) {
        let (conns, opening) = (&self.conns, &mut self.opening[target as usize]);
        opening.push_back(id);
        // Most have been opened long since where nothing was idle for a while.
        if opening.len() > 2 * self.open.max(64) {
            opening.retain(|id| {
                let conn = &conns[id.slot as usize];
                conn.epoch == id.epoch && matches!(conn.state, State::Opening(Some(_)))
            });
        }
    }

    /// Gives a connection that is free for another request to the flight that has waited longest for one of its own to be
    /// opened; that one is then spare. `None` if there is no such flight.
    pub(super) fn relieve(&mut self, id: ConnId) -> Option<u32> {
        let target = self.get(id)?.target;
        while let Some(own) = self.opening[target as usize].pop_front() {
            let Some(opened) = self.get(own) else { continue };
            if let State::Opening(Some(flight)) = opened.state {
                opened.state = State::Opening(None);
                self.spare[target as usize].push_back(own);
                let conn = self.get(id)?;
                // One that was just opened is as fresh as the flight's own would have been.
                (conn.state, conn.idled) = (State::Busy(flight), conn.served > 0);
                return Some(flight);
            }
        }
        None
    }

    /// Lets the flight wait for a spare connection. Each flight would otherwise open one of its own as long as any flight
    /// waits, for that one takes whatever becomes free: a short stall would end in as many connections as requests.
    pub(super) fn take_spare(&mut self, flight: u32, target: u16, shared: bool) -> Option<ConnId> {
        let id = self.first_spare(target as usize)?;
        self.spare[target as usize].pop_front();
        self.get(id)?.state = State::Opening(Some(flight));
        if shared {
            self.note_opening(id, target);
        }
        Some(id)
    }

    fn first_spare(&mut self, target: usize) -> Option<ConnId> {
        while let Some(&id) = self.spare[target].front() {
            if self.get(id).is_some_and(|conn| conn.state == State::Opening(None)) {
                return Some(id);
            }
            self.spare[target].pop_front();
        }
        None
    }

    /// An idle connection to the target, the most recently used first.
    pub(super) fn take_idle(&mut self, flight: u32, target: u16) -> Option<ConnId> {
        while let Some(id) = self.idle[target as usize].pop_back() {
            if self.take(id, flight) {
                return Some(id);
            }
        }
        None
    }

    /// Makes an idle connection carry a flight; `false` if it has closed meanwhile.
    pub(super) fn take(&mut self, id: ConnId, flight: u32) -> bool {
        match self.get(id) {
            Some(conn) if conn.state == State::Idle && !conn.on_trial => {
                conn.state = State::Busy(flight);
                true
            }
            _ => false,
        }
    }

    /// An idle connection to any target, to be closed in favour of another.
    pub(super) fn any_idle(&mut self) -> Option<ConnId> {
        (0..self.idle.len()).find_map(|target| self.last_idle(target))
    }

    fn last_idle(&mut self, target: usize) -> Option<ConnId> {
        while let Some(&id) = self.idle[target].back() {
            if self.get(id).is_some_and(|c| c.state == State::Idle) {
                return Some(id);
            }
            self.idle[target].pop_back();
        }
        None
    }

    /// Whether flights wait for a connection.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether a flight to that target would get a connection: an idle one, a spare or new one, or one in place of an idle
    /// one.
    pub(super) fn has_room(&mut self, target: u16) -> bool {
        self.any_idle().is_some() || self.open < self.limit || self.first_spare(target.into()).is_some()
    }

    /// The connection is free for another request.
    pub(super) fn set_idle(&mut self, id: ConnId) {
        let is_new = self.get(id).is_some_and(|conn| conn.served == 0);
        if let Some(target) = self.hold(id) {
            let idle = &mut self.idle[target as usize];
            if is_new { idle.push_front(id) } else { idle.push_back(id) }
        }
    }

    /// The connection stands idle for whoever knows of it; returns its target.
    pub(super) fn hold(&mut self, id: ConnId) -> Option<u16> {
        let conn = self.get(id)?;
        conn.state = State::Idle;
        conn.idled = true;
        Some(conn.target)
    }

    /// The connection is gone.
    pub(super) fn vacate(&mut self, id: ConnId) {
        if let Some(conn) = self.get(id) {
            conn.state = State::Vacant;
            self.vacant.push(id.slot);
            self.open -= 1;
        }
    }

    /// Whether a connection to the target that has carried a response should carry another.
    pub(super) fn reuses(&self, target: u16) -> bool {
        let keeping = self.keeping[target as usize];
        keeping.ever || keeping.early < GIVE_UP_REUSE_AFTER
    }

    /// A response is complete on the connection; it took so long.
    pub(super) fn note_answer(&mut self, id: ConnId, took: Nanos, now: Instant) {
        if let Some(conn) = self.get(id) {
            conn.served += 1;
            (conn.answered, conn.trial) = (now, took.clamp(TRIAL.0, TRIAL.1));
        }
    }

    /// Puts a connection that has just answered, and is held, on trial; `false` if its target has shown that it keeps them.
    pub(super) fn try_out(&mut self, id: ConnId, now: Instant) -> bool {
        let Some(target) = self.get(id).map(|conn| conn.target) else { return false };
        if self.keeping[target as usize].proven {
            return false;
        }
        self.hold(id);
        if let Some(conn) = self.get(id) {
            conn.on_trial = true;
            let at = now.after(conn.trial);
            self.trials.push((at, id));
            self.trial_ends = self.trial_ends.min(at);
        }
        true
    }

    /// The session that kept the connection does not want it any more, though it may still be on trial.
    pub(super) fn abandon(&mut self, id: ConnId) {
        if let Some(conn) = self.get(id) {
            conn.abandoned = true;
        }
    }

    pub(super) fn is_abandoned(&mut self, id: ConnId) -> bool {
        self.get(id).is_none_or(|conn| conn.abandoned)
    }

    /// When the next trial ends, at the earliest.
    pub(super) fn trial_ends(&self) -> Instant {
        self.trial_ends
    }

    /// The connections whose trial is over by `now`: they have stood, or another to the same target has.
    pub(super) fn end_trials(&mut self, now: Instant) -> Vec<ConnId> {
        if now < self.trial_ends {
            return Vec::new();
        }
        if now.since(self.trial_ends) > MILLI {
            // This thread was away: what the server did meanwhile is still to be told.
            self.trial_ends = now.after(MILLI / 2);
            return Vec::new();
        }
        let mut trials = std::mem::take(&mut self.trials);
        trials.retain(|(_, id)| self.get(*id).is_some_and(|conn| conn.on_trial));
        for &(_, id) in trials.iter().filter(|(at, _)| *at <= now) {
            if let Some(target) = self.get(id).map(|conn| conn.target) {
                self.keeping[target as usize] = Keeping { proven: true, ever: true, early: 0 };
            }
        }
        let (mut over, mut next) = (Vec::new(), Instant::NEVER);
        trials.retain(|&(at, id)| {
            let Some(conn) = self.conns.get_mut(id.slot as usize) else { return false };
            if self.keeping[conn.target as usize].proven {
                conn.on_trial = false;
                over.push(id);
                return false;
            }
            next = next.min(at);
            true
        });
        (self.trials, self.trial_ends) = (trials, next);
        over
    }

    /// The server closed a connection without having said so in its last answer.
    pub(super) fn note_closed(&mut self, id: ConnId, at: Instant) {
        let Some(&mut Conn { target, served, answered, trial, .. }) = self.get(id) else { return };
        if served > 0 && at.since(answered) < trial {
            let keeping = &mut self.keeping[target as usize];
            keeping.proven = false;
            keeping.early += 1;
        }
    }

    /// Every connection there is.
    pub(super) fn all(&self) -> Vec<ConnId> {
        let live = |(slot, c): (usize, &Conn)| {
            (c.state != State::Vacant).then_some(ConnId { slot: slot as u32, epoch: c.epoch })
        };
        self.conns.iter().enumerate().filter_map(live).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn slots_are_reused_under_new_epochs_and_stale_ids_mean_nothing() {
        let mut pool = Pool::new(1, 1);
        let first = pool.reserve(None, 0, true, Instant(1)).unwrap();
        assert_eq!(pool.reserve(None, 0, true, Instant(1)), None, "the limit holds");
        pool.set_idle(first);
        pool.vacate(first);
        assert_eq!(pool.take_idle(7, 0), None, "a closed connection is not handed out");
        let second = pool.reserve(Some(3), 0, true, Instant(2)).unwrap();
        assert_eq!(second.slot, first.slot);
        assert!(pool.get(first).is_none() && pool.get(second).is_some());
    }

    #[test]
    fn who_waits_longest_for_a_connection_of_its_own_takes_one_that_is_free() {
        let mut pool = Pool::new(4, 2);
        let busy = pool.reserve(Some(0), 0, true, Instant(1)).unwrap();
        pool.get(busy).unwrap().state = State::Busy(0);
        let [first, second] = [1, 2].map(|flight| pool.reserve(Some(flight), 0, true, Instant(2)).unwrap());
        let other = pool.reserve(Some(3), 1, true, Instant(2)).unwrap();
        pool.vacate(first);
        pool.reserve(None, 1, true, Instant(2)).unwrap();
        pool.get(busy).unwrap().served = 1;
        assert!(!pool.has_room(0));
        assert_eq!(pool.relieve(busy), Some(2), "the first has given up");
        assert!(pool.get(busy).is_some_and(|c| c.state == State::Busy(2) && c.idled));
        assert_eq!(pool.get(second).unwrap().state, State::Opening(None));
        assert_eq!((pool.has_room(0), pool.take_spare(4, 1, true)), (true, None), "it leads elsewhere");
        assert_eq!(pool.take_spare(4, 0, true), Some(second), "who comes next waits for it, and opens none");
        assert_eq!((pool.take_spare(5, 0, true), pool.get(second).unwrap().state), (None, State::Opening(Some(4))));
        assert_eq!(pool.relieve(busy), Some(4), "and can be relieved like any other");
        assert_eq!(pool.relieve(second), None, "nobody waits for this target");
        pool.vacate(second);
        assert_eq!(pool.take_spare(5, 0, true), None, "it could not be opened");
        assert_eq!(pool.relieve(other), Some(3));
        assert!(!pool.get(other).unwrap().idled, "it is as new as the flight's own");
    }

    #[test]
    fn a_connection_that_has_answered_is_taken_before_one_that_is_new() {
        let mut pool = Pool::new(9, 1);
        let all: Vec<ConnId> = (0..4).map(|flight| pool.reserve(Some(flight), 0, true, Instant(1)).unwrap()).collect();
        pool.get(all[0]).unwrap().served = 1;
        pool.get(all[2]).unwrap().served = 1;
        all.iter().for_each(|conn| pool.set_idle(*conn));
        let taken: Vec<ConnId> = (10..14).filter_map(|flight| pool.take_idle(flight, 0)).collect();
        assert_eq!(taken, [all[2], all[0], all[1], all[3]], "the last to answer first, the new ones in their order");
    }

    #[test]
    fn attempts_that_take_too_long_are_found_in_their_order() {
        let mut pool = Pool::new(1000, 1);
        for n in 0..500 {
            let conn = pool.reserve(Some(n), 0, true, Instant(1)).unwrap();
            pool.limit_attempt(conn, Instant(10 + u64::from(n)));
            pool.get(conn).unwrap().state = State::Idle;
            pool.vacate(conn);
        }
        assert!(pool.attempts.len() <= 129, "{}", pool.attempts.len());
        let [first, second] = [1, 2].map(|flight| pool.reserve(Some(flight), 0, true, Instant(1)).unwrap());
        pool.limit_attempt(first, Instant(600));
        pool.limit_attempt(second, Instant(601));
        let again = pool.reopen(first, None).unwrap();
        pool.limit_attempt(again, Instant(700));
        assert_eq!((pool.next_overdue(Instant(600)), pool.attempt_ends()), (None, Instant(601)));
        assert_eq!(pool.next_overdue(Instant(700)), Some(second));
        pool.vacate(second);
        assert_eq!((pool.next_overdue(Instant(700)), pool.get(again).unwrap().tried), (Some(again), 2));
    }

    #[test]
    fn connections_that_are_long_open_are_not_looked_through() {
        let mut pool = Pool::new(1, 1);
        for flight in 0..10_000 {
            let conn = pool.reserve(Some(flight), 0, true, Instant(1)).unwrap();
            pool.vacate(conn);
        }
        assert!(pool.opening[0].len() <= 128, "{}", pool.opening[0].len());
    }

    /// A connection that has answered at `at`, after `took`, and whether it is on trial now.
    fn answered(pool: &mut Pool, took: Nanos, at: Instant) -> (ConnId, bool) {
        let conn = pool.reserve(None, 0, true, at).unwrap();
        pool.note_answer(conn, took, at);
        let tried = pool.try_out(conn, at);
        (conn, tried)
    }

    #[test]
    fn reuse_is_given_up_only_where_it_never_worked() {
        let trial = TRIAL.0;
        let mut pool = Pool::new(9, 1);
        for at in 1..=u64::from(GIVE_UP_REUSE_AFTER) {
            assert!(pool.reuses(0));
            let (conn, tried) = answered(&mut pool, 0, Instant(at));
            assert!(tried);
            pool.note_closed(conn, Instant(at + trial - 1));
            pool.vacate(conn);
        }
        assert!(!pool.reuses(0));
        let mut pool = Pool::new(9, 1);
        answered(&mut pool, 0, Instant(1));
        assert_eq!(pool.end_trials(Instant(trial + 1)).len(), 1);
        for at in 1..9 {
            let (conn, _) = answered(&mut pool, 0, Instant(trial + at));
            pool.note_closed(conn, Instant(trial + at));
            pool.vacate(conn);
        }
        assert!(pool.reuses(0), "a connection has stood once");
        assert!(answered(&mut pool, 0, Instant(2 * trial)).1, "but each has to show that it stands");
    }

    #[test]
    fn a_connection_that_has_just_answered_waits_until_one_has_stood() {
        let trial = TRIAL.0;
        let mut pool = Pool::new(9, 1);
        let [slow, first, second] =
            [(3 * trial, 1), (trial, 2), (0, 3)].map(|(took, at)| answered(&mut pool, took, Instant(at)).0);
        assert!(!pool.take(first, 7) && pool.take_idle(7, 0).is_none(), "neither is used before");
        assert_eq!(pool.trial_ends(), Instant(trial + 2), "a slow answer is given more time");
        assert_eq!(pool.end_trials(Instant(trial + 1)), []);
        pool.vacate(second);
        assert_eq!(pool.end_trials(Instant(trial + 2)), [slow, first], "the first speaks for all");
        assert_eq!((pool.trial_ends(), pool.end_trials(Instant::NEVER)), (Instant::NEVER, vec![]));
        assert!(pool.take(first, 7));
        let (third, tried) = answered(&mut pool, 0, Instant(trial + 5));
        assert!(!tried, "it has been shown");
        pool.note_closed(third, Instant(2 * trial + 5));
        assert!(!answered(&mut pool, 0, Instant(trial + 5)).1, "one that stood long enough shows nothing new");
    }

    #[test]
    fn a_thread_that_was_away_hears_of_closes_before_it_judges() {
        let mut pool = Pool::new(9, 1);
        let (conn, _) = answered(&mut pool, 0, Instant(1));
        let back = Instant(TRIAL.0 + 2 * MILLI);
        assert_eq!(pool.end_trials(back), []);
        assert!(pool.trial_ends() > back);
        let judged = pool.trial_ends();
        assert_eq!(pool.end_trials(judged), [conn]);
    }

    proptest! {
        #[test]
        fn a_connection_is_one_thing_at_a_time_and_the_limit_holds(
            moves in prop::collection::vec((0..4u8, any::<prop::sample::Index>()), 0..200), limit in 1..5usize
        ) {
            let mut pool = Pool::new(limit, 1);
            // What the pool should hold: each connection, and whether it is idle.
            let mut held: Vec<(ConnId, bool)> = Vec::new();
            let mut ever = std::collections::HashSet::new();
            for (what, which) in moves {
                let room = pool.has_room(0);
                prop_assert_eq!(room, held.len() < limit || held.iter().any(|h| h.1));
                match what {
                    0 => match pool.reserve(None, 0, true, Instant(1)) {
                        Some(id) => {
                            prop_assert!(ever.insert(id), "{id:?} a second time");
                            held.push((id, false));
                        }
                        None => prop_assert_eq!(held.len(), limit),
                    },
                    1 => match pool.take_idle(7, 0) {
                        Some(id) => {
                            let entry = held.iter_mut().find(|h| h.0 == id && h.1);
                            prop_assert!(entry.is_some(), "{id:?} is not idle");
                            entry.into_iter().for_each(|h| h.1 = false);
                        }
                        None => prop_assert!(held.iter().all(|h| !h.1)),
                    },
                    2 if !held.is_empty() => {
                        let entry = which.index(held.len());
                        if !held[entry].1 {
                            pool.set_idle(held[entry].0);
                            held[entry].1 = true;
                        }
                    }
                    3 if !held.is_empty() => {
                        let (id, _) = held.swap_remove(which.index(held.len()));
                        pool.vacate(id);
                        pool.vacate(id);
                        prop_assert!(pool.get(id).is_none());
                    }
                    _ => {}
                }
                let mut all = pool.all();
                let mut wanted: Vec<ConnId> = held.iter().map(|h| h.0).collect();
                all.sort_by_key(|c| c.slot);
                wanted.sort_by_key(|c| c.slot);
                prop_assert_eq!(all, wanted);
                prop_assert!(pool.idle[0].len() <= ever.len() && pool.conns.len() <= limit);
            }
        }
    }
}
