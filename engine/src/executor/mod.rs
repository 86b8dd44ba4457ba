//! An executor: one core's share of the load. It owns its credits, its connections and its requests in flight, shares
//! nothing, and tells the world through counters and a ring of records.
//!
//! It is a state machine over a [`Wire`]: orders and time come in through [`Part::turn`], bytes through [`Events`]. In a
//! closed loop the request that follows a finished one is sent from within the event that finished it.

mod flight;
mod follow;
mod pool;
mod release;
mod session;
mod shard;
mod slots;
mod targets;
mod timers;

use crate::clock::{Instant, MICRO, Nanos};
use crate::credit::{Claims, Order, PhaseCounters, Progress};
use crate::net::pulse::{Pulse, Stalls};
use crate::net::{ConnId, Events, Next, Part, Sent, Wire};
use crate::plan::{Marks, Plan, Reuse, Sampler, put_marker, put_warmup, take_markers};
use crate::record::{self, LATE, Outcome, Record, flag, part, put_part};
use crate::ring::{Consumer, FrameProducer, Full};
use crate::wire::http1::HttpError;
use flight::{Advance, Answers, Exchange, Flight, NONE, Reader};
use pool::{Pool, State};
use session::Sessions;
use shard::{Mode, Shard};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use targets::Targets;
use timers::{Timer, Timers};

/// Orders obeyed in one turn, so that a turn stays short.
const ORDERS_A_TURN: usize = 1024;

/// Timers that fire in one turn: most bring about a request, or end one.
const TIMERS_A_TURN: usize = 64;

/// Requests that one turn ends by itself, because they are to be cut or have had their time.
const ENDS_A_TURN: usize = 256;

/// Connections opened ahead in one turn, at 30 µs each.
const OPENED_A_TURN: u32 = 64;

/// When a ring of records without room is looked at again: what a turn ends by itself can wait for its record's place.
const RETRY_FULL: Nanos = 100 * MICRO;

/// Credits that wait on an executor at most: the timing core keeps the others back.
pub const CREDITS: usize = 4 * ORDERS_A_TURN;

/// The ends of an executor's rings, and what it shares with others.
#[derive(Debug)]
pub struct Ends {
    /// From the timing core.
    pub orders: Consumer<Order>,
    /// To the collector.
    pub records: FrameProducer<Record>,
    /// To anybody.
    pub progress: Arc<Progress>,
    /// Numbers drawn by all executors.
    pub claims: Arc<Claims>,
}

/// One core's share of the load.
#[derive(Debug)]
pub struct Executor<W> {
    plan: Arc<Plan>,
    id: u16,
    wire: W,
    ends: Ends,
    /// By phase. Only the one that began last starts anything; what those before it have in flight comes back.
    shards: Vec<Shard>,
    /// The phase that began last.
    current: usize,
    sampler: Sampler,
    sessions: Sessions,
    timers: Timers,
    targets: Targets,
    pool: Pool,
    reader: Reader,
    answers: Answers,
    flights: Vec<Flight>,
    free: Vec<u32>,
    /// Ends of the list of flights in the order they started, which is the order they time out in.
    oldest: u32,
    newest: u32,
    /// Of those that wait for a connection, so many of the first have been looked at for being late.
    overdue: usize,
    /// The pauses of its thread that it has looked at, and the time without work.
    stalls: Stalls,
    idle: Nanos,
    /// A body put together from a turn and its session's history.
    body: Vec<u8>,
    payload: Vec<u8>,
    finishing: bool,
    /// Connections to be opened ahead: from this number on, up to that one.
    ahead: (u32, u32),
    /// Phases of which what is in flight is to be cut.
    cut: Vec<u8>,
    /// Sessions that wait for a turn are to be ended: those of phases up to this one, in slots from this one on.
    ending: Option<(u8, u32)>,
    /// Whether a request may take several exchanges.
    follows_up: bool,
}

impl<W: Wire> Executor<W> {
    /// An executor with nothing to do. It opens at most `connections` connections at a time.
    pub fn new(plan: Arc<Plan>, id: u16, wire: W, ends: Ends, connections: usize) -> Self {
        let mut shards: Vec<Shard> = (0..plan.phases.len().max(1)).map(|_| Shard::idle()).collect();
        shards[0].reserve(VecDeque::with_capacity(CREDITS));
        Self {
            id,
            wire,
            ends,
            shards,
            current: 0,
            sampler: Sampler::new(plan.sampling, plan.seed, plan.requests.sessions()),
            sessions: Sessions::default(),
            timers: Timers::default(),
            targets: Targets::new(&plan, id as usize),
            pool: Pool::new(connections, plan.targets.len()),
            reader: Reader::new(&plan),
            answers: Answers::default(),
            flights: Vec::new(),
            free: Vec::new(),
            oldest: NONE,
            newest: NONE,
            overdue: 0,
            stalls: Stalls::default(),
            idle: 0,
            body: Vec::new(),
            payload: Vec::new(),
            finishing: false,
            ahead: (0, 0),
            cut: Vec::with_capacity(plan.phases.len()),
            ending: None,
            follows_up: plan.endpoint.follows_up(),
            plan,
        }
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> u32 {
        (self.flights.len() - self.free.len()) as u32
    }

    fn obey(&mut self, now: Instant) {
        for _ in 0..ORDERS_A_TURN {
            let Some(order) = self.ends.orders.pop() else { break };
            match order {
                Order::Open(n) => self.ahead = (0, n),
                Order::Phase { phase, start, stop_at } => self.begin_phase(phase as usize, (start, stop_at), now),
                Order::Credit(credit) => self.shards[self.current].push(credit),
                Order::StopStarting => {
                    self.shards[self.current].stop();
                    self.hand_back(now);
                    self.end_waiting(now);
                    self.counters().stopped.store(true, Ordering::Release);
                }
                Order::CancelInFlight(phase) => self.cut.push(phase),
                Order::Finish => self.finishing = true,
            }
        }
    }

    /// A thread of the run has died: nothing more starts, and what is in flight is cut.
    #[cold]
    fn break_off(&mut self, now: Instant) {
        self.shards[self.current].stop();
        self.hand_back(now);
        if self.ending.is_none() {
            self.end_waiting(now);
        }
        if !std::mem::replace(&mut self.finishing, true) {
            self.cut = (0..self.plan.phases.len() as u8).collect();
        }
    }

    fn begin_phase(&mut self, n: usize, (start, stop_at): (Instant, Instant), now: Instant) {
        let plan = self.plan.clone();
        let Some(phase) = plan.phases.get(n) else { return };
        self.shards[self.current].stop();
        self.hand_back(now);
        let queue = self.shards[self.current].take_queue();
        self.current = n;
        let mode = Mode::of(phase, plan.requests.is_single_turn());
        let part = (self.id as usize, self.ends.claims.executors());
        self.shards[n] = Shard::begin(phase, mode, part, (start, stop_at), plan.seed, queue);
    }

    /// The account of the phase that began last.
    fn counters(&self) -> &PhaseCounters {
        self.ends.progress.phase(self.current)
    }

    fn open_ahead(&mut self, now: Instant) {
        let (from, to) = self.ahead;
        self.ahead.0 = to.min(from + OPENED_A_TURN);
        for k in from..self.ahead.0 {
            let target = (k as usize % self.plan.targets.len()) as u16;
            match self.pool.reserve(None, target, true, now) {
                Some(conn) => self.connect(conn, target, now),
                None => Progress::add(&self.ends.progress.opened, 1),
            }
        }
    }

    /// Begins a connection that has been reserved.
    fn connect(&mut self, conn: ConnId, target: u16, now: Instant) {
        let addr = self.targets.next_addr(target, now);
        self.attempt(conn, (target, addr), now);
    }

    fn attempt(&mut self, conn: ConnId, (target, addr): (u16, u16), now: Instant) {
        if let Some(entry) = self.pool.get(conn) {
            entry.addr = addr;
            if let State::Opening(Some(slot)) = entry.state {
                self.flights[slot as usize].conn = Some(conn);
            }
        }
        self.pool.limit_attempt(conn, now.after(self.plan.transport.connect_timeout));
        self.wire.connect(conn, self.plan.targets[target as usize].addrs[addr as usize]);
    }

    /// An attempt to connect has failed: another address of the target is tried, or there is none.
    fn unreached(&mut self, conn: ConnId, outcome: Outcome, why: &str, at: Instant) {
        let Some(&mut pool::Conn { state: State::Opening(flight), target, addr, tried, began, .. }) =
            self.pool.get(conn)
        else {
            return;
        };
        let mut other = self.targets.other_addr(target, (addr, tried), at);
        // A flight that took up an attempt which had begun long before it has one of its own: that one says more.
        let anew = flight.is_some_and(|slot| self.flights[slot as usize].came_after(began));
        if anew {
            other = Some(self.targets.next_addr(target, at));
        }
        if let Some(addr) = other
            && let Some(conn) = self.pool.reopen(conn, anew.then_some(at))
        {
            return self.attempt(conn, (target, addr), at);
        }
        self.pool.vacate(conn);
        let Some(slot) = flight else { return Progress::add(&self.ends.progress.opened, 1) };
        let flight = &mut self.flights[slot as usize];
        flight.conn = None;
        flight.note_connecting(began, at);
        let host = &self.plan.targets[target as usize].host;
        flight.answer(&mut self.answers).0.set_error(&format!("cannot connect to {host}: {why}"));
        self.finish(slot, outcome, at);
    }

    /// Gives up attempts to connect that have taken too long.
    fn give_up_attempts(&mut self, now: Instant) {
        for _ in 0..ENDS_A_TURN {
            let Some(conn) = self.pool.next_overdue(now) else { return };
            self.wire.close(conn);
            let why = format!("no answer within {} s", self.plan.transport.connect_timeout as f64 / 1e9);
            self.unreached(conn, Outcome::ConnectTimeout, &why, now);
        }
    }

    /// Finds the request a connection: an idle one, one that is being opened, a new one, or a place in the queue.
    fn seat(&mut self, slot: u32, now: Instant) {
        let target = self.flights[slot as usize].record.target;
        let idle = match self.plan.reuse {
            Reuse::Sticky => self.own_connection(slot),
            Reuse::Pooled | Reuse::Never => self.pool.take_idle(slot, target),
        };
        match idle {
            Some(conn) => self.send(slot, conn),
            None => self.seat_fresh(slot, now),
        }
    }

    /// The connection that the request's session has kept, if it still stands.
    fn own_connection(&mut self, slot: u32) -> Option<ConnId> {
        let session = self.flights[slot as usize].session;
        if session == NONE {
            return None;
        }
        let conn = self.sessions.get(session).conn.take()?;
        if self.pool.take(conn, slot) {
            return Some(conn);
        }
        self.pool.abandon(conn);
        None
    }

    /// Connections whose trial is over are used again.
    fn end_trials(&mut self, now: Instant) {
        for conn in self.pool.end_trials(now) {
            match self.plan.reuse {
                Reuse::Sticky if !self.pool.is_abandoned(conn) => {}
                // Its session's next turn came before the end of the trial, and has another one.
                Reuse::Sticky | Reuse::Never => self.drop_conn(conn),
                Reuse::Pooled => self.hand_on(conn, now),
            }
        }
    }

    fn seat_fresh(&mut self, slot: u32, now: Instant) {
        let flight = &self.flights[slot as usize];
        // What is sent again waits for a connection of its own: one that has served might be closed too.
        let (target, shared) = (flight.record.target, !flight.retried);
        if let Some(conn) = self.pool.take_spare(slot, target, shared) {
            self.flights[slot as usize].conn = Some(conn);
            return;
        }
        let mut reserved = self.pool.reserve(Some(slot), target, shared, now);
        while reserved.is_none()
            && let Some(other) = self.pool.any_idle().or_else(|| self.sessions.take_connection())
        {
            // It leads to another target, or waits for the next turn of a session, which can have another one then.
            self.drop_conn(other);
            reserved = self.pool.reserve(Some(slot), target, shared, now);
        }
        match reserved {
            Some(conn) => self.connect(conn, target, now),
            None => self.pool.waiting.push_back((slot, self.flights[slot as usize].generation)),
        }
    }

    /// Requests that wait for a connection get those that have become free to use or to open, first come, first served.
    fn seat_waiting(&mut self, now: Instant) {
        while let Some(&(slot, generation)) = self.pool.waiting.front() {
            let flight = &mut self.flights[slot as usize];
            let waits = flight.live && flight.generation == generation;
            if waits && !self.pool.has_room(flight.record.target) {
                return;
            }
            self.pool.waiting.pop_front();
            self.overdue = self.overdue.saturating_sub(1);
            if waits {
                flight.note_blocked(now);
                if flight.retried {
                    self.seat_fresh(slot, now);
                } else {
                    self.seat(slot, now);
                }
            }
        }
    }

    /// The connection is free for another request: one that waits for its own to be opened takes it. A server that was busy
    /// may let a connection wait for seconds, when it has long been answering on others. That wait is the server's.
    fn hand_on(&mut self, conn: ConnId, now: Instant) {
        let Some(slot) = self.pool.relieve(conn) else { return self.pool.set_idle(conn) };
        self.flights[slot as usize].note_connecting(Instant::UNSET, now);
        self.send(slot, conn);
    }

    /// Puts the request's body together in `self.body`; `false` if it goes as it lies in the arena.
    fn compose(&mut self, slot: u32) -> bool {
        let flight = &self.flights[slot as usize];
        let (requests, request) = (&self.plan.requests, flight.record.request);
        if flight.session != NONE {
            self.sessions.get(flight.session).body(requests, request, &mut self.body);
        } else if requests.marks() != Marks::None {
            self.body.clear();
            self.body.extend_from_slice(requests.body(request));
        } else {
            return false;
        }
        let phase = flight.record.phase;
        match requests.marks() {
            Marks::None => {}
            Marks::Session => {
                let marker = record::marker(self.plan.run_key, phase, flight.record.session);
                put_marker(&mut self.body, &marker);
            }
            Marks::Warmup if self.plan.phases.get(usize::from(phase)).is_some_and(|phase| phase.warmup) => {
                put_warmup(&mut self.body);
            }
            Marks::Warmup => take_markers(&mut self.body),
        }
        true
    }

    fn send(&mut self, slot: u32, conn: ConnId) {
        let Some((served, port)) = self.pool.get(conn).map(|c| (c.served, c.local_port)) else { return };
        let is_composed = self.compose(slot);
        let flight = &mut self.flights[slot as usize];
        flight.conn = Some(conn);
        if !flight.exchange.is_first() {
            return self.send_follow(slot, conn);
        }
        let Record { seq, phase, request, session, .. } = flight.record;
        let body = if is_composed { &self.body } else { self.plan.requests.body(request) };
        let key = self.plan.run_key;
        let (request_id, session_id) =
            (record::request_id(key, phase, seq), record::correlation_id(key, phase, session));
        let head = match &mut flight.redirected {
            Some(head) => head,
            None => self.targets.head(flight.record.target),
        };
        let head = head.patch(request_id, session_id, body.len());
        let bytes = (head.len() + body.len()) as u32;
        // What has a planned time goes at once; what follows an answer may wait for its like.
        let result = match flight.record.has(flag::SCHEDULED) {
            true => self.wire.send(conn, head, body).map(Some),
            false => self.wire.send_soon(conn, head, body),
        };
        let record = &mut flight.record;
        record.local_port = port;
        if served > 0 {
            record.flags |= flag::REUSED;
        }
        match result {
            Ok(sent) => {
                record.bytes_sent = bytes;
                if let Some(sent) = sent {
                    self.note_sent(slot, sent);
                }
            }
            Err(e) => self.send_failed(slot, conn, e),
        }
    }

    fn note_sent(&mut self, slot: u32, sent: Sent) {
        let record = &mut self.flights[slot as usize].record;
        record.sent = sent.first;
        if let Some(last) = sent.last {
            record.send_end = last;
            self.arm_cut(slot, last);
        }
        self.note_late(slot, sent.first);
    }

    /// Counts the request as late, once, if it has a planned time and leaves, or still waits, at `at`.
    #[inline]
    fn note_late(&mut self, slot: u32, at: Instant) {
        let flight = &mut self.flights[slot as usize];
        let record = &flight.record;
        if record.has(flag::SCHEDULED) && !flight.late && record.delay_until(at) >= LATE {
            flight.late = true;
            Progress::add(&self.ends.progress.phase(record.phase.into()).late, 1);
        }
    }

    /// Counts those as late that wait for a connection and should have left by now. Each is looked at once.
    fn note_overdue(&mut self, now: Instant) {
        while let Some(slot) = self.next_overdue().filter(|(_, at)| *at <= now).map(|next| next.0) {
            self.note_late(slot, now);
            self.overdue += 1;
        }
    }

    /// The first in line for a connection that is not late yet, and when it will be; [`Instant::UNSET`] where that says
    /// nothing.
    fn next_overdue(&self) -> Option<(u32, Instant)> {
        let &(slot, generation) = self.pool.waiting.get(self.overdue)?;
        let flight = &self.flights[slot as usize];
        let waits = flight.live && flight.generation == generation && flight.record.has(flag::SCHEDULED);
        let record = &flight.record;
        Some((slot, if waits { record.due.after(record.connecting + record.lost + LATE) } else { Instant::UNSET }))
    }

    /// How long what is read now may have lain unread, nanoseconds.
    #[inline]
    fn note_read(&mut self) -> u32 {
        self.note_stalls();
        self.wire.pulse().map_or(0, |pulse| u32::try_from(pulse.wait()).unwrap_or(u32::MAX))
    }

    /// Looks for a pause of the thread since the last look: whatever was in flight was touched by it.
    #[inline]
    fn note_stalls(&mut self) {
        let Some(stalls) = self.wire.pulse().map(Pulse::stalls) else { return };
        if stalls.count != self.stalls.count {
            self.note_stall(stalls);
        }
    }

    #[cold]
    fn note_stall(&mut self, stalls: Stalls) {
        let before = std::mem::replace(&mut self.stalls, stalls);
        let (from, to) = stalls.last;
        if self.in_flight() == 0 && self.shards[self.current].front_due() >= to {
            return;
        }
        let counters = self.counters();
        Progress::add(&counters.stalls, stalls.count - before.count);
        Progress::add(&counters.stalled_ns, stalls.sum - before.sum);
        if to.since(from) > Progress::get(&counters.stall_longest_ns) {
            counters.stall_longest_ns.store(to.since(from), Ordering::Release);
            counters.stall_longest_at.store(from.0, Ordering::Release);
        }
        let mut next = self.oldest;
        while next != NONE {
            let flight = &mut self.flights[next as usize];
            flight.record.flags |= flag::STALLED;
            next = flight.later;
        }
    }

    /// Tells the loop whether anything is in flight, and counts the time without work.
    fn note_idle(&mut self) {
        let Some(pulse) = self.wire.pulse() else { return };
        pulse.watch(self.in_flight() > 0);
        let idle = pulse.idle();
        Progress::add(&self.counters().idle_ns, idle - self.idle);
        self.idle = idle;
    }

    /// The request is sent whole: from here on it is counted when it is cut, if it is to be.
    fn arm_cut(&mut self, slot: u32, at: Instant) {
        let flight = &self.flights[slot as usize];
        if let Some(delay) = flight.cut_after {
            let flights = &self.flights;
            self.timers.sweep(|timer| match *timer {
                Timer::Cut { flight, generation } => {
                    flights.get(flight as usize).is_some_and(|f| f.live && f.generation == generation)
                }
                _ => true,
            });
            self.timers.set(at.after(delay), Timer::Cut { flight: slot, generation: flight.generation });
        }
    }

    fn drop_conn(&mut self, conn: ConnId) {
        self.wire.close(conn);
        self.pool.vacate(conn);
    }

    /// The kernel took nothing of what was to be sent: the connection was gone before.
    #[cold]
    fn send_failed(&mut self, slot: u32, conn: ConnId, error: io::Error) {
        let now = self.wire.now();
        let stale = self.end_stale(conn, true, now);
        self.drop_conn(conn);
        self.broken(slot, stale, &Err(error), now);
    }

    /// Whether a connection that is gone, and whose peer saw nothing of what was sent last (`unseen`), had been closed while
    /// it stood idle.
    fn end_stale(&mut self, conn: ConnId, unseen: bool, now: Instant) -> bool {
        let stale = unseen && self.pool.get(conn).is_some_and(|entry| entry.idled);
        if stale {
            self.pool.note_closed(conn, now);
        }
        stale
    }

    /// The connection under a request is gone before its response was complete; it was `stale` if the server had closed it
    /// while it stood idle, and saw nothing of the request.
    fn broken(&mut self, slot: u32, stale: bool, how: &io::Result<()>, now: Instant) {
        let flight = &mut self.flights[slot as usize];
        if stale && self.plan.transport.retry_stale && !flight.is_answered() && !flight.retried {
            // That is the server's right, and no failure of the request. Everything else that breaks is.
            flight.retry(now);
            Progress::add(&self.ends.progress.retried, 1);
            return self.seat_fresh(slot, now);
        }
        let (outcome, text) = match (how, flight.answer(&mut self.answers).0.end()) {
            (Err(e), _) => (Outcome::Reset, format!("the connection broke: {e}")),
            (Ok(()), Err(HttpError::NoResponse)) => {
                (Outcome::Reset, "the server closed the connection before any byte of the response".to_owned())
            }
            (Ok(()), Err(e)) => (Outcome::Truncated, format!("the server closed the connection: {e}")),
            (Ok(()), Ok(())) => return self.complete(slot, now),
        };
        flight.answer(&mut self.answers).0.set_error(&text);
        self.finish(slot, outcome, now);
    }

    /// The response is complete.
    fn complete(&mut self, slot: u32, now: Instant) {
        if (300..400).contains(&self.flights[slot as usize].record.status) && self.redirect(slot, now) {
            return;
        }
        if self.follows_up && self.follow_up(slot, now) {
            return;
        }
        let flight = &mut self.flights[slot as usize];
        let (answer, record) = flight.answer(&mut self.answers);
        let outcome = answer.conclude(now, record, &mut self.reader);
        self.finish(slot, outcome, now);
    }

    /// Turns a flight into a record.
    fn finish(&mut self, slot: u32, outcome: Outcome, now: Instant) {
        self.unlink(slot);
        let flight = &mut self.flights[slot as usize];
        flight.live = false;
        flight.record.outcome = outcome as u8;
        flight.record.done = now;
        let phase = flight.record.phase as usize;
        if !flight.record.sent.is_set() {
            self.note_late(slot, now);
        }
        let flight = &self.flights[slot as usize];
        let counters = self.ends.progress.phase(phase);
        if outcome.is_failure() {
            Progress::add(&counters.failed, 1);
        }
        self.payload.clear();
        if let Some(answer) = &flight.answer {
            answer.payload(outcome, flight.record.chunks, &mut self.payload);
        }
        if outcome != Outcome::Ok || self.plan.capture.raw {
            self.plan.requests.hidden().mask(&mut self.payload);
        }
        if self.plan.capture.raw {
            let request = flight.record.request;
            // What the session says so far is what it said when this turn went: the answer joins it below.
            let body = if self.compose(slot) { &self.body } else { self.plan.requests.body(request) };
            put_part(&mut self.payload, part::SENT, &self.plan.requests.hidden().shown(body));
        }
        let flight = &mut self.flights[slot as usize];
        flight.record.payload_len = self.payload.len() as u32;
        let mut pushed = self.ends.records.hand_over(flight.record, &mut self.payload);
        if pushed == Err(Full::Payload) {
            Progress::add(&self.ends.progress.payloads_lost, 1);
            flight.record.flags |= flag::PAYLOAD_LOST;
            self.payload = Vec::new();
            if let Some(answer) = &flight.answer {
                answer.failure(outcome, &mut self.payload);
            }
            flight.record.payload_len = self.payload.len() as u32;
            pushed = self.ends.records.hand_over(flight.record, &mut self.payload);
        }
        if pushed.is_err() {
            Progress::add(&self.ends.progress.lost, 1);
        }
        self.free.push(slot);
        self.targets.end(flight.record.target);
        let shard = &mut self.shards[phase];
        if std::mem::take(&mut flight.prefilling) {
            shard.free_prefill(now);
        }
        let (session, target) = (flight.session, flight.record.target);
        let free_at = now.after(self.pause(phase, outcome, target, now));
        if session == NONE {
            self.free_slot(phase, free_at, now);
        }
        let counters = self.ends.progress.phase(phase);
        counters.last_done.store(now.0, Ordering::Relaxed);
        Progress::add(&counters.finished, 1);
        if session != NONE {
            self.turn_over(slot, session, (outcome, free_at), now);
        }
        if let Some(answer) = self.flights[slot as usize].answer.take() {
            self.answers.give_back(answer);
        }
    }

    /// For how long the slot of a request that has ended is held back: without that, a closed loop would send to a server
    /// that refuses connections as fast as it can refuse them.
    fn pause(&mut self, phase: usize, outcome: Outcome, target: u16, now: Instant) -> Nanos {
        if outcome != Outcome::Connect || !self.shards[phase].is_loop() {
            return 0;
        }
        let pause = self.targets.refused(target, now);
        let counters = self.ends.progress.phase(phase);
        Progress::add(&counters.paused, 1);
        Progress::add(&counters.paused_ns, pause);
        pause
    }

    /// Frees a session's slot in the phase, now or at its time.
    fn free_slot(&mut self, phase: usize, at: Instant, now: Instant) {
        if at <= now {
            self.shards[phase].free_session(now);
        } else {
            self.timers.set(at, Timer::Slot { phase: phase as u8 });
        }
    }

    /// Whether a turn may end a request by itself: there is room for its record, or will never be.
    fn has_room(&self) -> bool {
        self.ends.records.has_room() || self.ends.claims.is_uncollected()
    }

    /// Cuts requests of the phases that are to be cut, as many as a turn may.
    fn cut_some(&mut self) {
        let (mut left, mut next) = (ENDS_A_TURN, self.oldest);
        while next != NONE {
            let slot = next;
            next = self.flights[slot as usize].later;
            if self.cut.contains(&self.flights[slot as usize].record.phase) {
                if left == 0 || !self.has_room() {
                    return;
                }
                let now = self.wire.now();
                self.abandon(slot, Outcome::Cancelled, "cut by the end of the run", now);
                left -= 1;
            }
        }
        self.cut.clear();
    }

    /// Ends a request and the connection it holds.
    fn abandon(&mut self, slot: u32, outcome: Outcome, text: &str, now: Instant) {
        let flight = &mut self.flights[slot as usize];
        flight.answer(&mut self.answers).0.set_error(text);
        match flight.conn {
            Some(conn) => {
                let opening = self.pool.get(conn).filter(|c| c.state == State::Opening(Some(slot))).map(|c| c.began);
                opening.into_iter().for_each(|began| flight.note_connecting(began, now));
                self.drop_conn(conn);
            }
            None if !flight.record.sent.is_set() => flight.note_blocked(now),
            None => {}
        }
        self.finish(slot, outcome, now);
    }

    fn expire(&mut self, now: Instant) {
        let Some(timeout) = self.plan.request_timeout.filter(|_| self.next_timeout() <= now) else { return };
        let text = format!("no complete response within {} s", timeout as f64 / 1e9);
        for _ in 0..ENDS_A_TURN {
            if self.next_timeout() > now || !self.has_room() {
                return;
            }
            let now = self.wire.now();
            self.abandon(self.oldest, Outcome::Timeout, &text, now);
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
        if let Some(now) = self.can_start(at) {
            self.release(now);
        }
        // With nothing in flight, or a closed loop short of credits, the timing core may have something to do.
        if self.shards[self.current].is_short() || self.in_flight() == 0 { at } else { self.next() }
    }

    /// The time, if a request can start by now. What happened at `at` may be told some time later.
    fn can_start(&self, at: Instant) -> Option<Instant> {
        match self.next_start() {
            Instant::NEVER => None,
            start if start <= at => Some(at),
            start => Some(self.wire.now()).filter(|&now| start <= now),
        }
    }

    fn next(&self) -> Instant {
        let void_at = self.shards[self.current].void_at(self.sessions.any_waits());
        let overdue = self.next_overdue().map_or(Instant::NEVER, |next| next.1);
        let of_pool = self.pool.trial_ends().min(self.pool.attempt_ends());
        self.next_start().min(self.next_timeout()).min(void_at).min(overdue).min(self.timers.next()).min(of_pool)
    }

    /// Does what is due at times of its own.
    fn fire(&mut self, now: Instant) {
        // Those that were set together are due together: what follows each takes its time.
        let mut left = TIMERS_A_TURN;
        while left > 0
            && let Some((at, timer)) = self.timers.take(now)
        {
            left -= 1;
            match timer {
                Timer::Turn { session, generation } => {
                    let (phase, held) = match self.sessions.get(session) {
                        entry if entry.live && entry.waiting && entry.generation == generation => {
                            (entry.phase, entry.held)
                        }
                        _ => continue,
                    };
                    if held {
                        self.sessions.get(session).due = self.end_pause(phase, at);
                    }
                    self.make_ready(session);
                    if held {
                        self.release(now);
                    }
                }
                Timer::Cut { flight, generation } => {
                    let entry = &self.flights[flight as usize];
                    let Some(delay) = entry.cut_after.filter(|_| entry.live && entry.generation == generation) else {
                        continue;
                    };
                    // Another attempt has a time of its own.
                    if entry.record.send_end.is_set() && entry.record.send_end.after(delay) == at {
                        let text = format!("cut on purpose, {} s after it was sent", delay as f64 / 1e9);
                        self.abandon(flight, Outcome::Abandoned, &text, now);
                    }
                }
                Timer::Follow { flight, generation } => self.go_on(flight, generation, now),
                Timer::Slot { phase } => {
                    let ended = self.end_pause(phase, at);
                    self.shards[usize::from(phase)].free_session(ended);
                    self.release(now);
                }
            }
        }
    }

    /// A pause that was to end at `at` ends now; returns when that is. It is as long as it turns out to be: nothing is late
    /// that follows it, since the server is what it waits for.
    fn end_pause(&mut self, phase: u8, at: Instant) -> Instant {
        let now = self.wire.now();
        Progress::add(&self.ends.progress.phase(phase.into()).paused_ns, now.since(at));
        now
    }

    fn end(&mut self) -> Next {
        for conn in self.pool.all() {
            self.drop_conn(conn);
        }
        self.ends.progress.ended.store(true, Ordering::Release);
        Next::ENDED
    }

    /// The response to the request that had `slot` is complete on `conn`: keep the connection or let it go.
    fn retire(&mut self, slot: u32, conn: ConnId, reusable: bool, now: Instant) {
        let took = now.since(self.flights[slot as usize].record.sent);
        self.pool.note_answer(conn, took, now);
        let target = self.flights[slot as usize].record.target;
        if !reusable || !self.pool.reuses(target) {
            return self.drop_conn(conn);
        }
        match self.plan.reuse {
            Reuse::Pooled if self.pool.try_out(conn, now) => {}
            Reuse::Pooled => self.hand_on(conn, now),
            Reuse::Never => self.drop_conn(conn),
            Reuse::Sticky => {
                let session = self.flights[slot as usize].session;
                // Whoever waits for a connection may hold what this session waits for next.
                if session == NONE || !self.sessions.get(session).live || self.pool.has_waiting() {
                    return self.drop_conn(conn);
                }
                if !self.pool.try_out(conn, now) {
                    self.pool.hold(conn);
                }
                self.sessions.keep_connection(session, conn);
            }
        }
    }
}

/// Whether a connection failed for want of something on this machine: descriptors, local ports, memory.
fn is_local(error: &io::Error) -> bool {
    let local = [libc::EMFILE, libc::ENFILE, libc::EADDRNOTAVAIL, libc::ENOBUFS, libc::ENOMEM];
    error.raw_os_error().is_some_and(|code| local.contains(&code))
}

impl<W: Wire> Part for Executor<W> {
    fn turn(&mut self, now: Instant) -> Next {
        self.note_stalls();
        self.obey(now);
        if self.ends.claims.is_broken() {
            self.break_off(now);
        }
        if self.finishing && self.in_flight() == 0 {
            return self.end();
        }
        if self.ahead.0 < self.ahead.1 {
            self.open_ahead(now);
        }
        if self.ending.is_some() {
            self.end_some(now);
        }
        if !self.cut.is_empty() {
            self.cut_some();
        }
        self.fire(now);
        self.expire(now);
        self.give_up_attempts(now);
        self.end_trials(now);
        self.seat_waiting(now);
        self.note_overdue(now);
        self.release(now);
        self.note_idle();
        if !self.has_room() {
            // What has had its time waits for room; nobody tells when there is.
            return Next::at(self.next_start().min(now.after(RETRY_FULL)));
        }
        // More than one turn does: nobody rings for what is already here.
        let is_done = self.ends.orders.is_empty() && self.cut.is_empty() && self.ending.is_none();
        Next::at(if is_done && self.ahead.0 == self.ahead.1 { self.next() } else { now })
    }
}

impl<W: Wire> Events for Executor<W> {
    fn connected(&mut self, conn: ConnId, result: io::Result<u16>, at: Instant) -> Instant {
        self.note_stalls();
        let Some(entry) = self.pool.get(conn) else { return self.next() };
        let State::Opening(flight) = entry.state else { return self.next() };
        let port = match result {
            Ok(port) => port,
            Err(e) => {
                if let Some(slot) = flight.filter(|_| is_local(&e)) {
                    self.flights[slot as usize].record.flags |= flag::LOCAL_LIMIT;
                }
                self.unreached(conn, Outcome::Connect, &e.to_string(), at);
                return self.settle(at);
            }
        };
        entry.local_port = port;
        let began = entry.began;
        self.targets.reached(entry.target, entry.addr);
        Progress::add(&self.ends.progress.connections, 1);
        match flight {
            Some(slot) => {
                entry.state = State::Busy(slot);
                self.flights[slot as usize].note_connecting(began, at);
                self.send(slot, conn);
            }
            None => {
                Progress::add(&self.ends.progress.opened, 1);
                self.hand_on(conn, at);
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
        let wait = self.note_read();
        let flight = &mut self.flights[slot as usize];
        let (answer, record) = flight.answer(&mut self.answers);
        if !record.first_token.is_set() {
            record.read_wait = wait;
        }
        record.read_wait_most = record.read_wait_most.max(wait);
        match answer.read(bytes, at, record, &mut self.reader) {
            Advance::More => {
                if flight.prefilling && flight.record.first_token.is_set() {
                    flight.prefilling = false;
                    self.shards[flight.record.phase as usize].free_prefill(at);
                }
                return if self.can_start(at).is_some() { self.settle(at) } else { self.next() };
            }
            Advance::Done { reusable } => {
                // An answer before the end of its request: the rest of the request would come before the next one.
                let whole = flight.is_sent();
                self.complete(slot, at);
                self.retire(slot, conn, reusable && whole, at);
            }
            Advance::Broken(e) => {
                answer.set_error(&format!("the response is not HTTP/1.1: {e}"));
                self.finish(slot, Outcome::Protocol, at);
                self.drop_conn(conn);
            }
            Advance::TooLong => {
                let outcome = answer.give_up(record.status);
                self.finish(slot, outcome, at);
                self.drop_conn(conn);
            }
        }
        self.settle(at)
    }

    fn sent(&mut self, conn: ConnId, sent: Sent) -> Instant {
        let Some(State::Busy(slot)) = self.pool.get(conn).map(|c| c.state) else { return Instant::NEVER };
        self.note_sent(slot, sent);
        self.timers.next()
    }

    fn flushed(&mut self, conn: ConnId, at: Instant) -> Instant {
        if let Some(State::Busy(slot)) = self.pool.get(conn).map(|c| c.state) {
            match &mut self.flights[slot as usize].exchange {
                Exchange::Follow(_, sent) => *sent = true,
                _ => {
                    self.flights[slot as usize].record.send_end = at;
                    self.arm_cut(slot, at);
                }
            }
        }
        self.next()
    }

    fn closed(&mut self, conn: ConnId, how: io::Result<()>, at: Instant) -> Instant {
        self.note_stalls();
        let Some(entry) = self.pool.get(conn) else { return self.next() };
        let state = entry.state;
        if let State::Opening(_) = state {
            // No wire should tell this of what it has not told to stand. A flight that waits for it must not wait for ever.
            return self.connected(conn, Err(how.err().unwrap_or(io::ErrorKind::ConnectionAborted.into())), at);
        }
        let stale = match state {
            State::Busy(_) => {
                let unseen = self.wire.was_unseen(conn);
                self.end_stale(conn, unseen, at)
            }
            _ => {
                self.pool.note_closed(conn, at);
                false
            }
        };
        self.drop_conn(conn);
        if let State::Busy(slot) = state {
            self.broken(slot, stale, &how, at);
        }
        self.settle(at)
    }
}
