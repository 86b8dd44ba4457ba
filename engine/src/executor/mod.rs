//! An executor: one core's share of the load. It owns its credits, its connections and its requests in flight, shares
//! nothing, and tells the world through counters and a ring of records.
//!
//! It is a state machine over a [`Wire`]: orders and time come in through [`Part::turn`], bytes through [`Events`]. In a
//! closed loop the request that follows a finished one is sent from within the event that finished it.

mod flight;
mod pool;
mod shard;

use crate::clock::{Instant, Nanos};
use crate::credit::{Credit, Order, Progress};
use crate::net::{ConnId, Events, Next, Part, Wire};
use crate::plan::Plan;
use crate::record::{self, Outcome, Record, UNKNOWN, flag};
use crate::ring::{Consumer, FrameProducer, Full};
use crate::wire::http1::{Head, HttpError};
use flight::{Advance, Flight, NONE};
use pool::{Pool, State};
use shard::{Release, Shard};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Orders obeyed in one turn, so that a turn stays short.
const ORDERS_A_TURN: usize = 1024;

/// The ends of an executor's rings.
#[derive(Debug)]
pub struct Ends {
    /// From the timing core.
    pub orders: Consumer<Order>,
    /// To the collector.
    pub records: FrameProducer<Record>,
    /// To anybody.
    pub progress: Arc<Progress>,
}

/// One core's share of the load.
#[derive(Debug)]
pub struct Executor<W> {
    plan: Arc<Plan>,
    id: u16,
    wire: W,
    ends: Ends,
    shard: Shard,
    pool: Pool,
    flights: Vec<Flight>,
    free: Vec<u32>,
    /// Ends of the list of flights in the order they started, which is the order they time out in.
    oldest: u32,
    newest: u32,
    head: Head,
    next_addr: usize,
    payload: Vec<u8>,
    finishing: bool,
}

impl<W: Wire> Executor<W> {
    /// An executor with nothing to do. It opens at most `connections` connections at a time.
    pub fn new(plan: Arc<Plan>, id: u16, wire: W, ends: Ends, connections: usize) -> Self {
        let target = &plan.target;
        let head = Head::new("POST", &target.path, &target.host, &target.correlation_header, &target.headers);
        Self {
            id,
            wire,
            ends,
            shard: Shard::new(ORDERS_A_TURN * 4),
            pool: Pool::new(connections),
            flights: Vec::new(),
            free: Vec::new(),
            oldest: NONE,
            newest: NONE,
            head,
            next_addr: id as usize,
            payload: Vec::new(),
            finishing: false,
            plan,
        }
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> u32 {
        self.shard.in_flight()
    }

    fn obey(&mut self, now: Instant) {
        for _ in 0..ORDERS_A_TURN {
            let Some(order) = self.ends.orders.pop() else { break };
            match order {
                Order::Open(n) => self.open_ahead(n, now),
                Order::Phase { concurrency, stop_at } => self.shard.begin_phase(concurrency, stop_at),
                Order::Credit(credit) => self.shard.push(credit),
                Order::StopStarting => self.shard.stop(),
                Order::CancelInFlight => self.cancel_all(now),
                Order::Finish => self.finishing = true,
            }
        }
    }

    fn open_ahead(&mut self, n: u32, now: Instant) {
        for _ in 0..n {
            match self.pool.reserve(None, now) {
                Some(conn) => self.connect(conn),
                None => Progress::add(&self.ends.progress.opened, 1),
            }
        }
    }

    fn connect(&mut self, conn: ConnId) {
        let addrs = &self.plan.target.addrs;
        let addr = addrs[self.next_addr % addrs.len()];
        self.next_addr = self.next_addr.wrapping_add(1);
        self.wire.connect(conn, addr);
    }

    /// Starts every credit whose time has come and for which a slot is free.
    fn release(&mut self, now: Instant) {
        let mut taken_any = false;
        while self.shard.next_due() <= now {
            // What is decided by the clock bears the time at which it was: nothing starts after its phase's end.
            let start = self.wire.now();
            let Some(release) = self.shard.take(start) else { break };
            let slot = self.board(&release, start);
            Progress::add(&self.ends.progress.started, 1);
            self.seat(slot, start);
            taken_any = true;
        }
        if !taken_any {
            let unused = self.shard.hand_back(now);
            if unused > 0 {
                Progress::add(&self.ends.progress.unused, unused);
            }
        }
    }

    /// Gives the request a slot and a fresh record.
    fn board(&mut self, release: &Release, start: Instant) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.flights.push(Flight::new(self.plan.response_field.clone()));
            self.flights.len() as u32 - 1
        });
        let Credit { seq, request, phase, .. } = release.credit;
        let mut flags = 0;
        if release.credit.is_scheduled() {
            flags |= flag::SCHEDULED;
        }
        if release.queued {
            flags |= flag::QUEUED;
        }
        let flight = &mut self.flights[slot as usize];
        flight.generation = flight.generation.wrapping_add(1);
        flight.live = true;
        flight.credit = release.credit;
        flight.conn = None;
        flight.retried = false;
        flight.answer.reset();
        flight.record = Record {
            seq,
            due: if release.due.is_set() { release.due } else { start },
            start,
            request,
            phase,
            session: seq,
            flags,
            executor: self.id,
            usage_prompt: UNKNOWN,
            usage_completion: UNKNOWN,
            usage_reasoning: UNKNOWN,
            usage_cached: UNKNOWN,
            usage_total: UNKNOWN,
            ..bytemuck::Zeroable::zeroed()
        };
        self.link(slot);
        slot
    }

    /// Finds the request a connection: an idle one, a new one, or a place in the queue.
    fn seat(&mut self, slot: u32, now: Instant) {
        if let Some(conn) = self.pool.take_idle(slot) {
            self.send(slot, conn);
        } else {
            self.seat_fresh(slot, now);
        }
    }

    fn seat_fresh(&mut self, slot: u32, now: Instant) {
        match self.pool.reserve(Some(slot), now) {
            Some(conn) => {
                let flight = &mut self.flights[slot as usize];
                flight.conn = Some(conn);
                self.connect(conn);
            }
            None => self.pool.waiting.push_back((slot, self.flights[slot as usize].generation)),
        }
    }

    /// Requests that wait for a connection get those that have become free to use or to open, first come, first served.
    fn seat_waiting(&mut self, now: Instant) {
        while self.pool.has_waiting() && self.pool.has_room() {
            let Some((slot, generation)) = self.pool.waiting.pop_front() else { return };
            let flight = &mut self.flights[slot as usize];
            if flight.live && flight.generation == generation {
                flight.record.blocked = now.since(flight.record.start);
                self.seat(slot, now);
            }
        }
    }

    fn send(&mut self, slot: u32, conn: ConnId) {
        let Some((served, idled, port)) = self.pool.get(conn).map(|c| (c.served, c.idled, c.local_port)) else {
            return;
        };
        let flight = &mut self.flights[slot as usize];
        flight.conn = Some(conn);
        let body = self.plan.requests.body(flight.credit.request);
        let (Credit { seq, phase, .. }, session) = (flight.credit, flight.record.session);
        let key = self.plan.run_key;
        let (request_id, session_id) =
            (record::request_id(key, phase, seq), record::correlation_id(key, phase, session));
        let head = self.head.patch(request_id, session_id, body.len());
        let bytes = (head.len() + body.len()) as u32;
        let result = self.wire.send(conn, head, body);
        let record = &mut flight.record;
        record.local_port = port;
        if served > 0 {
            record.flags |= flag::REUSED;
        }
        match result {
            Ok(sent) => {
                record.bytes_sent = bytes;
                record.sent = sent.first;
                record.send_end = sent.last.unwrap_or(Instant::UNSET);
            }
            Err(e) => {
                let now = self.wire.now();
                self.drop_conn(conn);
                self.broken(slot, idled, &Err(e), now);
            }
        }
    }

    fn drop_conn(&mut self, conn: ConnId) {
        self.wire.close(conn);
        self.pool.vacate(conn);
    }

    /// The connection under a request is gone before its response was complete.
    fn broken(&mut self, slot: u32, idled: bool, how: &io::Result<()>, now: Instant) {
        let flight = &mut self.flights[slot as usize];
        let silent = !flight.answer.started();
        if silent && idled && !flight.retried {
            // The server had closed the idle connection; that is its right, and no failure of the request.
            flight.retried = true;
            flight.conn = None;
            let record = &mut flight.record;
            record.flags = (record.flags | flag::RETRIED) & !flag::REUSED;
            // What the dead connection carried is forgotten: times and counts are those of the attempt that counts.
            (record.sent, record.send_end, record.first_byte) = (Instant::UNSET, Instant::UNSET, Instant::UNSET);
            (record.bytes_sent, record.local_port) = (0, 0);
            flight.answer.reset();
            self.pool.note_reuse(false);
            Progress::add(&self.ends.progress.retried, 1);
            return self.seat_fresh(slot, now);
        }
        let (outcome, text) = match (how, flight.answer.end()) {
            (Err(e), _) => (Outcome::Reset, format!("the connection broke: {e}")),
            (Ok(()), Err(HttpError::NoResponse)) => {
                (Outcome::Reset, "the server closed the connection before any byte of the response".to_owned())
            }
            (Ok(()), Err(e)) => (Outcome::Truncated, format!("the server closed the connection: {e}")),
            (Ok(()), Ok(())) => return self.complete(slot, now),
        };
        flight.answer.set_error(&text);
        self.finish(slot, outcome, now);
    }

    /// The response is complete.
    fn complete(&mut self, slot: u32, now: Instant) {
        let flight = &mut self.flights[slot as usize];
        let outcome = flight.answer.conclude(now, &mut flight.record, self.plan.endpoint, self.plan.capture);
        self.finish(slot, outcome, now);
    }

    /// Turns a flight into a record.
    fn finish(&mut self, slot: u32, outcome: Outcome, now: Instant) {
        self.unlink(slot);
        let flight = &mut self.flights[slot as usize];
        flight.live = false;
        flight.record.outcome = outcome as u8;
        flight.record.done = now;
        if outcome != Outcome::Ok {
            Progress::add(&self.ends.progress.failed, 1);
        }
        self.payload.clear();
        flight.answer.payload(outcome, flight.record.chunks, &mut self.payload);
        flight.record.payload_len = self.payload.len() as u32;
        let mut pushed = self.ends.records.push(flight.record, &self.payload);
        if pushed == Err(Full::Payload) {
            Progress::add(&self.ends.progress.payloads_lost, 1);
            flight.record.flags |= flag::PAYLOAD_LOST;
            flight.record.payload_len = 0;
            pushed = self.ends.records.push(flight.record, &[]);
        }
        if pushed.is_err() {
            Progress::add(&self.ends.progress.lost, 1);
        }
        self.free.push(slot);
        self.shard.free_slot(now);
        self.ends.progress.last_done.store(now.0, Ordering::Relaxed);
        Progress::add(&self.ends.progress.finished, 1);
    }

    fn cancel_all(&mut self, now: Instant) {
        while self.oldest != NONE {
            let slot = self.oldest;
            self.abandon(slot, Outcome::Cancelled, "cut by the end of the run", now);
        }
    }

    /// Ends a request and the connection it holds.
    fn abandon(&mut self, slot: u32, outcome: Outcome, text: &str, now: Instant) {
        let flight = &mut self.flights[slot as usize];
        flight.answer.set_error(text);
        if let Some(conn) = flight.conn {
            self.drop_conn(conn);
        }
        self.finish(slot, outcome, now);
    }

    fn expire(&mut self, now: Instant) {
        let Some(timeout) = self.plan.request_timeout else { return };
        while self.oldest != NONE {
            let slot = self.oldest;
            if self.flights[slot as usize].record.start.after(timeout) > now {
                return;
            }
            let text = format!("no complete response within {} s", timeout as f64 / 1e9);
            self.abandon(slot, Outcome::Timeout, &text, now);
        }
    }

    fn next_timeout(&self) -> Instant {
        match (self.plan.request_timeout, self.oldest) {
            (Some(timeout), slot) if slot != NONE => self.flights[slot as usize].record.start.after(timeout),
            _ => Instant::NEVER,
        }
    }

    fn link(&mut self, slot: u32) {
        let newest = self.newest;
        let flight = &mut self.flights[slot as usize];
        (flight.earlier, flight.later) = (newest, NONE);
        match newest {
            NONE => self.oldest = slot,
            before => self.flights[before as usize].later = slot,
        }
        self.newest = slot;
    }

    fn unlink(&mut self, slot: u32) {
        let Flight { earlier, later, .. } = self.flights[slot as usize];
        match earlier {
            NONE => self.oldest = later,
            before => self.flights[before as usize].later = later,
        }
        match later {
            NONE => self.newest = earlier,
            after => self.flights[after as usize].earlier = earlier,
        }
    }

    /// After an event: starts what can start, and says when a turn is wanted.
    fn settle(&mut self, at: Instant) -> Instant {
        self.seat_waiting(at);
        if self.shard.next_due() <= at {
            self.release(at);
        }
        // With nothing in flight, or a closed loop short of credits, the timing core may have something to do.
        if self.shard.is_short() || self.shard.in_flight() == 0 { at } else { self.next() }
    }

    fn next(&self) -> Instant {
        self.shard.next_due().min(self.next_timeout()).min(self.shard.void_at())
    }

    fn end(&mut self) -> Next {
        for conn in self.pool.all() {
            self.drop_conn(conn);
        }
        self.ends.progress.ended.store(true, Ordering::Release);
        Next::ENDED
    }

    /// A response is complete on `conn`: keep the connection or let it go.
    fn retire(&mut self, conn: ConnId, reusable: bool) {
        if let Some(entry) = self.pool.get(conn) {
            let reused = entry.served > 0;
            entry.served += 1;
            if reused {
                self.pool.note_reuse(true);
            }
        }
        if reusable && self.pool.reuses() {
            self.pool.set_idle(conn);
        } else {
            self.drop_conn(conn);
        }
    }
}

impl<W: Wire> Part for Executor<W> {
    fn turn(&mut self, now: Instant) -> Next {
        self.obey(now);
        if self.finishing && self.shard.in_flight() == 0 {
            return self.end();
        }
        self.expire(now);
        self.seat_waiting(now);
        self.release(now);
        // More orders than one turn obeys: nobody rings for what is already in the ring.
        Next::at(if self.ends.orders.is_empty() { self.next() } else { now })
    }
}

impl<W: Wire> Events for Executor<W> {
    fn connected(&mut self, conn: ConnId, result: io::Result<u16>, at: Instant) -> Instant {
        let Some(entry) = self.pool.get(conn) else { return self.next() };
        let State::Opening(flight) = entry.state else { return self.next() };
        let took: Nanos = at.since(entry.began);
        if flight.is_none() {
            Progress::add(&self.ends.progress.opened, 1);
        }
        match result {
            Ok(port) => {
                entry.local_port = port;
                Progress::add(&self.ends.progress.connections, 1);
                match flight {
                    Some(slot) => {
                        entry.state = State::Busy(slot);
                        self.flights[slot as usize].record.connecting = took;
                        self.send(slot, conn);
                    }
                    None => self.pool.set_idle(conn),
                }
            }
            Err(e) => {
                self.pool.vacate(conn);
                if let Some(slot) = flight {
                    let flight = &mut self.flights[slot as usize];
                    flight.conn = None;
                    flight.record.connecting = took;
                    let addr = &self.plan.target.host;
                    flight.answer.set_error(&format!("cannot connect to {addr}: {e}"));
                    self.finish(slot, Outcome::Connect, at);
                }
            }
        }
        self.settle(at)
    }

    fn received(&mut self, conn: ConnId, bytes: &[u8], at: Instant) -> Instant {
        let Some(entry) = self.pool.get(conn) else { return self.next() };
        let State::Busy(slot) = entry.state else {
            // Bytes that nobody asked for: whatever they are, the next response cannot be told from them.
            self.drop_conn(conn);
            return self.settle(at);
        };
        let flight = &mut self.flights[slot as usize];
        match flight.answer.read(bytes, at, &mut flight.record, self.plan.endpoint, self.plan.capture) {
            Advance::More => return if self.shard.next_due() <= at { self.settle(at) } else { self.next() },
            Advance::Done { reusable } => {
                // An answer before the end of its request: the rest of the request would come before the next one.
                let whole = flight.record.send_end.is_set();
                self.complete(slot, at);
                self.retire(conn, reusable && whole);
            }
            Advance::Broken(e) => {
                flight.answer.set_error(&format!("the response is not HTTP/1.1: {e}"));
                self.finish(slot, Outcome::Protocol, at);
                self.drop_conn(conn);
            }
        }
        self.settle(at)
    }

    fn flushed(&mut self, conn: ConnId, at: Instant) -> Instant {
        if let Some(State::Busy(slot)) = self.pool.get(conn).map(|c| c.state) {
            self.flights[slot as usize].record.send_end = at;
        }
        self.next()
    }

    fn closed(&mut self, conn: ConnId, how: io::Result<()>, at: Instant) -> Instant {
        let Some(entry) = self.pool.get(conn) else { return self.next() };
        let (state, idled) = (entry.state, entry.idled);
        self.drop_conn(conn);
        if let State::Busy(slot) = state {
            self.broken(slot, idled, &how, at);
        }
        self.settle(at)
    }
}
