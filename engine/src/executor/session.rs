//! Sessions of several turns. Each lives on one executor, from its first turn to its last.

use crate::clock::Instant;
use crate::endpoint::{self, Reply, Splice};
use crate::net::ConnId;
use crate::plan::{History, Requests};
use std::collections::VecDeque;

/// A session under way. Slots are reused, and with them the history's room.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) live: bool,
    /// Counts the sessions that have had this slot.
    pub(super) generation: u32,
    pub(super) phase: u8,
    pub(super) target: u16,
    /// Order in which it started within its phase.
    pub(super) number: u64,
    /// Its first request.
    pub(super) first: u32,
    /// Turns that are sent.
    pub(super) turns: u32,
    /// The next turn.
    pub(super) next: u32,
    /// No turn of it is in flight.
    pub(super) waiting: bool,
    /// When the turn that waits can go at the earliest.
    pub(super) due: Instant,
    /// It waits for the end of a pause after a refused connection, not for its own time.
    pub(super) held: bool,
    /// When the latest turn was planned.
    pub(super) planned: Instant,
    /// Its own connection, while no turn is in flight.
    pub(super) conn: Option<ConnId>,
    /// What its turns said so far: JSON values, a comma after each.
    history: Vec<u8>,
    /// The server's name for all of that, escaped, where the next request can continue it. After a failed turn there is
    /// none: the server does not know what that turn said.
    continued: Vec<u8>,
}

impl Session {
    /// Whether its last turn has been sent.
    pub(super) fn is_sent(&self) -> bool {
        self.next >= self.turns
    }

    /// Appends what the turn of `request` leaves for later ones: its own values, and the answer if it was a good one.
    pub(super) fn remember(&mut self, requests: &Requests, request: u32, answer: Option<(&Reply, endpoint::Kind)>) {
        let turn = requests.turn(request);
        self.continued.clear();
        if turn.history == History::None || !turn.splice.is_some() {
            return;
        }
        let (at, end) = (turn.splice.at as usize, turn.splice.end as usize);
        let own = requests.body(request).get(at..end).unwrap_or_default();
        if !own.is_empty() {
            self.history.extend_from_slice(own);
            self.history.push(b',');
        }
        if let Some((reply, kind)) = answer
            && turn.history == History::OwnAndReply
        {
            if reply.message(kind, &mut self.history) {
                self.history.push(b',');
            }
            self.continued.extend_from_slice(reply.id().unwrap_or_default());
        }
    }

    /// Nothing was said so far.
    pub(super) fn forget(&mut self) {
        self.history.clear();
        self.continued.clear();
    }

    /// The body of `request` with the history in its place, put together in `out`.
    pub(super) fn body(&self, requests: &Requests, request: u32, out: &mut Vec<u8>) {
        out.clear();
        let (body, splice) = (requests.body(request), requests.turn(request).splice);
        if splice.chains() && !self.continued.is_empty() {
            return self.continuing(body, splice, out);
        }
        let (Some((head, tail)), true) = (body.split_at_checked(splice.at as usize), splice.is_some()) else {
            out.extend_from_slice(body);
            return;
        };
        let history = match (splice.at == splice.end, self.history.split_last()) {
            // Nothing of the turn's own follows: no comma either.
            (true, Some((_, rest))) => rest,
            _ => &self.history,
        };
        for part in [head, history, tail] {
            out.extend_from_slice(part);
        }
    }

    /// The body of a request that continues the server's own copy of the session.
    fn continuing(&self, body: &[u8], splice: Splice, out: &mut Vec<u8>) {
        let [head, at, chain] = [splice.head, splice.at, splice.chain].map(|at| (at as usize).min(body.len()));
        out.extend_from_slice(&body[..head]);
        out.extend_from_slice(body.get(at..chain).unwrap_or_default());
        out.extend_from_slice(b",\"previous_response_id\":\"");
        out.extend_from_slice(&self.continued);
        out.push(b'"');
        out.extend_from_slice(&body[chain..]);
    }
}

/// An executor's sessions.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    table: Vec<Session>,
    free: Vec<u32>,
    /// Sessions whose next turn can go, in the order in which they came to it.
    pub(super) ready: VecDeque<u32>,
    /// Live sessions of which no turn is in flight.
    waiting: u32,
    /// Sessions and the connections they kept, the first kept first. Entries of those kept no longer are skipped.
    kept: VecDeque<(u32, ConnId)>,
}

impl Sessions {
    /// When the session's next turn is ready.
    pub(super) fn due(&self, slot: u32) -> Instant {
        self.table[slot as usize].due
    }

    pub(super) fn get(&mut self, slot: u32) -> &mut Session {
        &mut self.table[slot as usize]
    }

    /// Begins a session of `turns` turns from request `first` on.
    pub(super) fn open(&mut self, phase: u8, number: u64, target: u16, (first, turns): (u32, u32)) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.table.push(Session {
                live: false,
                generation: 0,
                phase,
                target,
                number,
                first,
                turns,
                next: 0,
                waiting: false,
                due: Instant::UNSET,
                held: false,
                planned: Instant::UNSET,
                conn: None,
                history: Vec::new(),
                continued: Vec::new(),
            });
            self.table.len() as u32 - 1
        });
        let session = &mut self.table[slot as usize];
        session.live = true;
        session.generation = session.generation.wrapping_add(1);
        (session.phase, session.number, session.target) = (phase, number, target);
        (session.first, session.turns, session.next) = (first, turns, 0);
        (session.waiting, session.conn) = (false, None);
        session.forget();
        slot
    }

    /// A turn has ended, and the next can go at `due`, when a pause ends (`held`) or its own time comes.
    pub(super) fn wait(&mut self, slot: u32, due: Instant, held: bool) {
        self.waiting += 1;
        let session = self.get(slot);
        (session.waiting, session.due, session.held) = (true, due, held);
    }

    /// A turn goes.
    pub(super) fn go(&mut self, slot: u32) {
        let session = self.get(slot);
        if std::mem::replace(&mut session.waiting, false) {
            self.waiting -= 1;
        }
    }

    /// The session has ended.
    pub(super) fn close(&mut self, slot: u32) {
        self.go(slot);
        self.get(slot).live = false;
        self.free.push(slot);
    }

    /// Whether any waits for its next turn.
    pub(super) fn any_waits(&self) -> bool {
        self.waiting > 0
    }

    /// The session keeps a connection for its next turn.
    pub(super) fn keep_connection(&mut self, slot: u32, conn: ConnId) {
        self.get(slot).conn = Some(conn);
        if self.kept.len() > 2 * self.table.len().max(64) {
            let table = &self.table;
            self.kept.retain(|&(slot, conn)| table[slot as usize].conn == Some(conn));
        }
        self.kept.push_back((slot, conn));
    }

    /// A connection that a session keeps for its next turn, the one kept longest; it keeps it no longer.
    pub(super) fn take_connection(&mut self) -> Option<ConnId> {
        while let Some((slot, conn)) = self.kept.pop_front() {
            if self.get(slot).conn == Some(conn) {
                self.get(slot).conn = None;
                return Some(conn);
            }
        }
        None
    }

    /// Slots in use, or used before.
    pub(super) fn slots(&self) -> u32 {
        self.table.len() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{RequestsBuilder, Turn};

    fn requests(bodies: &[(&str, History)]) -> Requests {
        let mut builder = RequestsBuilder::new(&std::env::temp_dir()).unwrap();
        builder.begin_session();
        for (own, history) in bodies {
            let body = format!("{{\"m\":[{own}],\"x\":1}}");
            let splice = Splice { at: 6, end: 6 + own.len() as u32, ..Splice::NONE };
            builder.push_turn(body.as_bytes(), Turn { splice, history: *history, ..Turn::default() }).unwrap();
        }
        builder.finish().unwrap()
    }

    #[test]
    fn the_connection_kept_longest_is_given_up_first_and_the_list_stays_short() {
        let mut sessions = Sessions::default();
        let slots: Vec<u32> = (0..3).map(|n| sessions.open(0, n, 0, (0, 2))).collect();
        let conn = |epoch| ConnId { slot: 1, epoch };
        for epoch in 0..10_000 {
            sessions.keep_connection(slots[epoch as usize % 2], conn(epoch));
        }
        assert!(sessions.kept.len() <= 130, "{}", sessions.kept.len());
        sessions.keep_connection(slots[2], conn(10_000));
        sessions.get(slots[1]).conn = None;
        let taken: Vec<_> = std::iter::from_fn(|| sessions.take_connection()).collect();
        assert_eq!(taken, [conn(9998), conn(10_000)]);
        assert!(slots.iter().all(|&slot| sessions.get(slot).conn.is_none()));
    }

    #[test]
    fn a_history_grows_turn_by_turn_and_stays_json() {
        let requests = requests(&[
            ("\"a\"", History::Own),
            ("\"b\",\"c\"", History::OwnAndReply),
            ("", History::OwnAndReply),
            ("\"d\"", History::None),
        ]);
        let mut sessions = Sessions::default();
        let slot = sessions.open(0, 0, 0, (0, 4));
        let session = sessions.get(slot);
        let mut body = Vec::new();
        let mut seen = Vec::new();
        for request in 0..4 {
            session.body(&requests, request, &mut body);
            seen.push(String::from_utf8(body.clone()).unwrap());
            session.remember(&requests, request, None);
        }
        assert_eq!(
            seen,
            [
                "{\"m\":[\"a\"],\"x\":1}",
                "{\"m\":[\"a\",\"b\",\"c\"],\"x\":1}",
                "{\"m\":[\"a\",\"b\",\"c\"],\"x\":1}",
                "{\"m\":[\"a\",\"b\",\"c\",\"d\"],\"x\":1}"
            ]
        );
    }
}
