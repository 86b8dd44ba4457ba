//! An executor's connections: which slot holds what, and which stand idle.

use crate::clock::Instant;
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
    pub(super) local_port: u16,
    pub(super) target: u16,
    /// It has stood idle: the server may have closed it meanwhile.
    pub(super) idled: bool,
    /// When the attempt to connect began.
    pub(super) began: Instant,
}

/// After this many requests in a row met a connection that the server had closed, and none that it kept, connections
/// are used once: the server does not keep them alive, whatever it announces.
const GIVE_UP_REUSE_AFTER: u32 = 3;

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
    stale_in_a_row: u32,
    reuse_works: bool,
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
            stale_in_a_row: 0,
            reuse_works: false,
        }
    }

    /// The connection, if `id` still means it.
    pub(super) fn get(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.conns.get_mut(id.slot as usize).filter(|c| c.epoch == id.epoch && c.state != State::Vacant)
    }

    /// A slot for a new connection, or `None` at the limit.
    pub(super) fn reserve(&mut self, flight: Option<u32>, target: u16, now: Instant) -> Option<ConnId> {
        if self.open >= self.limit {
            return None;
        }
        self.open += 1;
        let fresh = Conn { epoch: 0, state: State::Vacant, served: 0, local_port: 0, target, idled: false, began: now };
        let slot = self.vacant.pop().unwrap_or_else(|| {
            self.conns.push(fresh);
            self.conns.len() as u32 - 1
        });
        let conn = &mut self.conns[slot as usize];
        *conn = Conn { epoch: conn.epoch.wrapping_add(2), state: State::Opening(flight), ..fresh };
        let id = ConnId { slot, epoch: conn.epoch };
        if flight.is_some() {
            self.note_opening(id, target);
        }
        Some(id)
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
    pub(super) fn take_spare(&mut self, flight: u32, target: u16) -> Option<ConnId> {
        let id = self.first_spare(target as usize)?;
        self.spare[target as usize].pop_front();
        self.get(id)?.state = State::Opening(Some(flight));
        self.note_opening(id, target);
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
            Some(conn) if conn.state == State::Idle => {
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

    /// Whether a connection that has carried a response should carry another.
    pub(super) fn reuses(&self) -> bool {
        self.reuse_works || self.stale_in_a_row < GIVE_UP_REUSE_AFTER
    }

    /// A request went out on a reused connection: was it still alive?
    pub(super) fn note_reuse(&mut self, alive: bool) {
        if alive {
            self.reuse_works = true;
        } else {
            self.stale_in_a_row += 1;
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
        let first = pool.reserve(None, 0, Instant(1)).unwrap();
        assert_eq!(pool.reserve(None, 0, Instant(1)), None, "the limit holds");
        pool.set_idle(first);
        pool.vacate(first);
        assert_eq!(pool.take_idle(7, 0), None, "a closed connection is not handed out");
        let second = pool.reserve(Some(3), 0, Instant(2)).unwrap();
        assert_eq!(second.slot, first.slot);
        assert!(pool.get(first).is_none() && pool.get(second).is_some());
    }

    #[test]
    fn who_waits_longest_for_a_connection_of_its_own_takes_one_that_is_free() {
        let mut pool = Pool::new(4, 2);
        let busy = pool.reserve(Some(0), 0, Instant(1)).unwrap();
        pool.get(busy).unwrap().state = State::Busy(0);
        let [first, second] = [1, 2].map(|flight| pool.reserve(Some(flight), 0, Instant(2)).unwrap());
        let other = pool.reserve(Some(3), 1, Instant(2)).unwrap();
        pool.vacate(first);
        pool.reserve(None, 1, Instant(2)).unwrap();
        pool.get(busy).unwrap().served = 1;
        assert!(!pool.has_room(0));
        assert_eq!(pool.relieve(busy), Some(2), "the first has given up");
        assert!(pool.get(busy).is_some_and(|c| c.state == State::Busy(2) && c.idled));
        assert_eq!(pool.get(second).unwrap().state, State::Opening(None));
        assert_eq!((pool.has_room(0), pool.take_spare(4, 1)), (true, None), "it leads elsewhere");
        assert_eq!(pool.take_spare(4, 0), Some(second), "who comes next waits for it, and opens none");
        assert_eq!((pool.take_spare(5, 0), pool.get(second).unwrap().state), (None, State::Opening(Some(4))));
        assert_eq!(pool.relieve(busy), Some(4), "and can be relieved like any other");
        assert_eq!(pool.relieve(second), None, "nobody waits for this target");
        pool.vacate(second);
        assert_eq!(pool.take_spare(5, 0), None, "it could not be opened");
        assert_eq!(pool.relieve(other), Some(3));
        assert!(!pool.get(other).unwrap().idled, "it is as new as the flight's own");
    }

    #[test]
    fn a_connection_that_has_answered_is_taken_before_one_that_is_new() {
        let mut pool = Pool::new(9, 1);
        let all: Vec<ConnId> = (0..4).map(|flight| pool.reserve(Some(flight), 0, Instant(1)).unwrap()).collect();
        pool.get(all[0]).unwrap().served = 1;
        pool.get(all[2]).unwrap().served = 1;
        all.iter().for_each(|conn| pool.set_idle(*conn));
        let taken: Vec<ConnId> = (10..14).filter_map(|flight| pool.take_idle(flight, 0)).collect();
        assert_eq!(taken, [all[2], all[0], all[1], all[3]], "the last to answer first, the new ones in their order");
    }

    #[test]
    fn connections_that_are_long_open_are_not_looked_through() {
        let mut pool = Pool::new(1, 1);
        for flight in 0..10_000 {
            let conn = pool.reserve(Some(flight), 0, Instant(1)).unwrap();
            pool.vacate(conn);
        }
        assert!(pool.opening[0].len() <= 128, "{}", pool.opening[0].len());
    }

    #[test]
    fn reuse_is_given_up_only_where_it_never_worked() {
        let mut pool = Pool::new(9, 1);
        for _ in 0..GIVE_UP_REUSE_AFTER {
            assert!(pool.reuses());
            pool.note_reuse(false);
        }
        assert!(!pool.reuses());
        pool.note_reuse(true);
        assert!(pool.reuses());
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
                    0 => match pool.reserve(None, 0, Instant(1)) {
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
