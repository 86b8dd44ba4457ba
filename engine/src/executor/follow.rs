//! Requests that take several exchanges: submitted, asked for until done, perhaps fetched. All of it is one record, from the
//! first byte sent to the last received; between exchanges the request holds no connection.

use super::flight::Exchange;
use super::targets::Targets;
use super::timers::Timer;
use super::{Executor, Wire};
use crate::clock::Instant;
use crate::net::ConnId;
use crate::record::{self, Outcome, flag};

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

    /// The answer sends the request elsewhere: whether it goes there. 307 and 308 keep method and body, and are followed once
    /// where they lead to the same server; everything else is a failure that says where it led.
    #[cold]
    pub(super) fn redirect(&mut self, slot: u32, now: Instant) -> bool {
        let flight = &mut self.flights[slot as usize];
        let is_second = flight.redirected.is_some();
        let (answer, record) = flight.answer(&mut self.answers);
        let (status, location) = (record.status, answer.location.clone());
        let why = match Targets::redirected(&self.plan, record.target, &location) {
            _ if !flight.exchange.is_first() => return false,
            _ if !matches!(status, 307 | 308) => "and asks for a GET there".to_owned(),
            _ if is_second => "a second time".to_owned(),
            Err(why) => why,
            Ok(head) => {
                flight.redirected = Some(Box::new(head));
                flight.begin_again(now);
                flight.record.flags |= flag::REDIRECTED;
                flight.conn = None;
                let timer = Timer::Follow { flight: slot, generation: flight.generation };
                self.timers.set(now, timer);
                return true;
            }
        };
        let said = format!("the server redirects to {location}, {why}; give the address that it means as -u");
        let (answer, record) = flight.answer(&mut self.answers);
        answer.conclude(now, record, &mut self.reader);
        answer.set_error(&said);
        self.finish(slot, Outcome::HttpStatus, now);
        true
    }

    /// The pause of a request is over, if it is still that request.
    pub(super) fn go_on(&mut self, slot: u32, generation: u32, now: Instant) {
        let flight = &mut self.flights[slot as usize];
        if !flight.live || flight.generation != generation {
            return;
        }
        if flight.redirected.is_some() && flight.exchange.is_first() && flight.conn.is_none() {
            return self.seat(slot, now);
        }
        if let Exchange::Paused(follow) = std::mem::replace(&mut flight.exchange, Exchange::First) {
            flight.exchange = Exchange::Follow(follow, false);
            self.seat(slot, now);
        }
    }

    /// Sends what follows a request. The record's times and counts of sending are the request's own, except for the bytes.
    #[cold]
    pub(super) fn send_follow(&mut self, slot: u32, conn: ConnId) {
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
            Err(e) => self.send_failed(slot, conn, e),
        }
    }
}
