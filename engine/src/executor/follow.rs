//! Requests that take several exchanges: submitted, asked for until done, perhaps fetched. All of it is one record, from the
//! first byte sent to the last received; between exchanges the request holds no connection.

use super::flight::Exchange;
use super::targets::Targets;
use super::timers::Timer;
use super::{Executor, Wire};
use crate::clock::Instant;
use crate::net::ConnId;
use crate::record::{self, Outcome};

impl<W: Wire> Executor<W> {
    /// An exchange is complete: whether the request goes on with another.
    pub(super) fn follow_up(&mut self, slot: u32, now: Instant) -> bool {
        let flight = &mut self.flights[slot as usize];
        let (answer, record) = flight.answer(&mut self.answers);
        let Some(body) = answer.asks(record.status) else { return false };
        let follow = match self.plan.endpoint.next(body, &self.plan.follow_ups) {
            Ok(Some(follow)) => follow,
            Ok(None) => return false,
            Err(unfit) => {
                answer.set_malformed(&unfit.0);
                return false;
            }
        };
        if follow.is_file {
            // A file follows the answer that counts.
            let outcome = answer.conclude(now, record, &mut self.reader);
            if outcome != Outcome::Ok {
                self.finish(slot, outcome, now);
                return true;
            }
            if std::mem::take(&mut flight.prefilling) {
                self.shards[flight.record.phase as usize].free_prefill(now);
            }
        }
        flight.answer(&mut self.answers).0.begin_exchange(follow.is_file);
        (flight.conn, flight.retried) = (None, false);
        let timer = Timer::Follow { flight: slot, generation: flight.generation };
        self.timers.set(now.after(follow.after), timer);
        flight.exchange = Exchange::Paused(Box::new(follow));
        true
    }

    /// The pause of a request is over, if it is still that request.
    pub(super) fn go_on(&mut self, slot: u32, generation: u32, now: Instant) {
        let flight = &mut self.flights[slot as usize];
        if !flight.live || flight.generation != generation {
            return;
        }
        if let Exchange::Paused(follow) = std::mem::replace(&mut flight.exchange, Exchange::First) {
            flight.exchange = Exchange::Follow(follow, false);
            self.seat(slot, now);
        }
    }

    /// Sends what follows a request. The record's times and counts of sending are the request's own, except for the bytes.
    #[cold]
    pub(super) fn send_follow(&mut self, slot: u32, conn: ConnId, idled: bool) {
        let flight = &mut self.flights[slot as usize];
        let Exchange::Follow(follow, sent) = &mut flight.exchange else { return };
        let mut head = match Targets::follow(&self.plan, flight.record.target, follow) {
            Ok(head) => head,
            Err(why) => {
                let now = self.wire.now();
                return self.abandon(slot, Outcome::Malformed, &why, now);
            }
        };
        let (key, phase) = (self.plan.run_key, flight.record.phase);
        let request_id = record::request_id(key, phase, flight.record.seq);
        let session_id = record::correlation_id(key, phase, flight.record.session);
        let bytes = head.patch(request_id, session_id, 0);
        match self.wire.send(conn, bytes, &[]) {
            Ok(handed) => {
                *sent = handed.last.is_some();
                flight.record.bytes_sent = flight.record.bytes_sent.saturating_add(bytes.len() as u32);
            }
            Err(e) => {
                let now = self.wire.now();
                self.drop_conn(conn);
                self.broken(slot, idled, &Err(e), now);
            }
        }
    }
}
