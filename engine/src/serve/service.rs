//! The server as a part: requests come in as events, and what is due goes out in its turns.

use super::answer::{Answer, Content, Phrases};
use super::conn::{Conn, State, Step, Table};
use super::dialect::{Ask, Ready, Request};
use super::errors::{Refused, Vendor};
use super::http::{CONTINUE, Response};
use super::pace::{Dice, Pace};
use super::route::{Place, Route, Way};
use super::truth::{Line, Truth};
use super::world::World;
use super::{Config, Counts, Fault};
use crate::clock::{Anchor, Instant, MILLI, Nanos, SECOND};
use crate::credit::StopSignal;
use crate::net::{ConnId, Events, Next, Part, Sent, ServerWire};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::sync::Arc;

/// How often the stop signal is looked at.
const LOOK: Nanos = 50 * MILLI;

/// Sends in one turn. What is due beyond them waits until the sockets have been seen to.
const SENDS: usize = 32;

/// How long a connection that was ended waits for its peer to close: closing at once could destroy the answer in the
/// peer's hands if more bytes of it were still coming (RFC 9112, section 9.6).
const LINGER: Nanos = SECOND;

/// Most bytes held of requests behind the one being answered. A client that sends more without reading is cut off.
const MAX_PIPELINED: usize = 1 << 20;

/// The server on one thread.
#[derive(Debug)]
pub(super) struct Service<W> {
    wire: W,
    anchor: Anchor,
    world: World,
    phrases: Phrases,
    dice: Dice,
    table: Table,
    /// For each answer that waits for its time, and each connection that lingers: when its turn is.
    due: BinaryHeap<Reverse<(Instant, u32, u32)>>,
    truth: Option<Truth>,
    stop: Arc<StopSignal>,
    look_at: Instant,
    ended: bool,
    /// Bytes of the send being put together.
    out: Vec<u8>,
    /// When its chunks were due.
    dues: Vec<Instant>,
    in_flight: u64,
    pub(super) counts: Counts,
    pub(super) failure: Option<io::Error>,
}

impl<W: ServerWire> Service<W> {
    /// Serves at most `limit` connections at a time.
    pub(super) fn new(config: Config, wire: W, anchor: Anchor, truth: Option<Truth>, limit: usize) -> Self {
        Self {
            phrases: Phrases::new(&config),
            dice: Dice::new(&config),
            world: World::new(config, anchor.wall / SECOND),
            wire,
            anchor,
            table: Table::new(limit),
            due: BinaryHeap::new(),
            truth,
            stop: Arc::default(),
            look_at: Instant::UNSET,
            ended: false,
            out: Vec::new(),
            dues: Vec::new(),
            in_flight: 0,
            counts: Counts::default(),
            failure: None,
        }
    }

    /// Ends once `stop` says so.
    pub(super) fn until(mut self, stop: Arc<StopSignal>) -> Self {
        self.stop = stop;
        self
    }

    /// A connection was accepted, or none ever will be again.
    pub(super) fn admit(&mut self, accepted: io::Result<Instant>) -> Option<ConnId> {
        match accepted {
            Ok(at) => {
                let conn = self.table.admit(self.counts.connections, at);
                match conn {
                    Some(_) => self.counts.connections += 1,
                    None => self.counts.refused_connections += 1,
                }
                self.counts.max_open = self.counts.max_open.max(self.table.open() as u64);
                conn
            }
            Err(e) => {
                self.failure = Some(e);
                None
            }
        }
    }

    fn next(&self) -> Instant {
        let due = self.due.peek().map_or(Instant::NEVER, |Reverse((at, ..))| *at);
        let write = self.truth.as_ref().map_or(Instant::NEVER, Truth::wants);
        due.min(self.look_at).min(write)
    }

    fn wait(&mut self, id: ConnId, until: Instant) {
        self.due.push(Reverse((until, id.slot, id.epoch)));
    }

    /// Takes in bytes until they are used up or a request has to be answered first.
    fn read(&mut self, id: ConnId, bytes: &[u8], at: Instant) {
        let mut rest = bytes;
        loop {
            let log = self.truth.is_some();
            let Some(conn) = self.table.get(id) else { return };
            if conn.is_busy() {
                conn.pending.extend_from_slice(rest);
            }
            if !conn.is_reading() {
                return;
            }
            match conn.hear(&mut rest, log, at) {
                Step::On => {}
                Step::More => return,
                Step::Complete => self.answer(id, at),
                Step::Waits if self.wire.send(id, CONTINUE, b"").is_err() => {
                    return self.lose(id, "client_closed", at);
                }
                Step::Waits => {}
                Step::TooLong => return self.end_with(id, 413, "the body of the request is longer than 32 MiB", at),
                Step::Broken(error) => return self.end_with(id, 400, &error.to_string(), at),
            }
        }
    }

    /// Answers with an error after which the connection is of no use.
    fn end_with(&mut self, id: ConnId, status: u16, why: &str, at: Instant) {
        let Some(conn) = self.table.get(id) else { return };
        conn.heard.keep = false;
        let vendor = conn.heard.route.place().map_or(Vendor::OpenAi, |place| place.vendor);
        self.begin_answer(id, at);
        self.refuse(id, vendor, &Refused { status, why: why.into() }, "");
    }

    /// Answers with an error.
    fn refuse(&mut self, id: ConnId, vendor: Vendor, refused: &Refused, fields: &str) {
        let Some(conn) = self.table.get(id) else { return };
        self.out.clear();
        vendor.put(&mut self.out, refused, fields, conn.heard.keep, conn.heard.only_head);
        self.reply(id, refused.status);
    }

    /// The request is complete as far as it will be: from here on it is answered.
    fn begin_answer(&mut self, id: ConnId, at: Instant) {
        let Some(conn) = self.table.get(id) else { return };
        conn.heard.complete = at;
        if !conn.heard.head.is_set() || conn.heard.head < conn.heard.first {
            conn.heard.head = at;
        }
        conn.state = State::Flushing;
        conn.requests += 1;
        self.counts.requests += 1;
        self.in_flight += 1;
        self.counts.max_in_flight = self.counts.max_in_flight.max(self.in_flight);
    }

    fn answer(&mut self, id: ConnId, at: Instant) {
        self.begin_answer(id, at);
        let Some(conn) = self.table.get(id) else { return };
        let route = conn.heard.route;
        match (route, route.place()) {
            (Route::At(index), Some(place)) => self.serve(id, index, place, at),
            (Route::Allows(_), Some(place)) => {
                let why = format!("this path takes {} requests only", place.method());
                let allow = format!("Allow: {}\r\n", place.method());
                self.refuse(id, place.vendor, &Refused { status: 405, why }, &allow);
            }
            _ => self.refuse(id, Vendor::OpenAi, &Refused::missing("there is nothing at this path"), ""),
        }
    }

    fn serve(&mut self, id: ConnId, index: usize, place: &'static Place, at: Instant) {
        let Some(conn) = self.table.get(id) else { return };
        let request = Request {
            name: &conn.heard.name,
            content_type: &conn.heard.content_type,
            body: &conn.heard.body,
            number: self.counts.inferences,
            created: self.anchor.wall_ns(at) / SECOND,
            now: at,
        };
        // Whoever asks is no load.
        self.world.totals.running = self.in_flight - 1;
        let read = match place.way {
            Way::Tokens(dialect) => dialect.read(&request, &mut self.world).map(|ask| (Content::Tokens(dialect), ask)),
            Way::Made(make) => make(&request, &mut self.world).map(made),
            Way::Told(make) => {
                return match make(&request, &mut self.world) {
                    Ok(told) => {
                        self.out.clear();
                        let (content_type, body) = (told.content_type, told.body.as_slice());
                        let response = Response { status: 200, content_type, fields: "", body };
                        response.put(&mut self.out, conn.heard.keep, conn.heard.only_head);
                        self.reply(id, 200);
                    }
                    Err(refused) => self.refuse(id, place.vendor, &refused, ""),
                };
            }
        };
        match read {
            Ok((content, ask)) => self.infer(id, index, place, content, ask, at),
            Err(refused) => self.refuse(id, place.vendor, &refused, ""),
        }
    }

    /// Takes up a request for inference that was read: it meets its fault, or its answer begins.
    fn infer(&mut self, id: ConnId, index: usize, place: &Place, content: Content, ask: Ask, at: Instant) {
        let number = self.counts.inferences;
        let fault = self.dice.draw();
        self.counts.faults += u64::from(fault.is_some());
        self.counts.inferences += 1;
        let Some(conn) = self.table.get(id) else { return };
        let keep = conn.heard.keep;
        let said = &mut conn.said;
        (said.infers, said.stream, said.fault) = (true, ask.stream, fault.map(Fault::name));
        (said.prompt_tokens, said.messages) = (ask.prompt_tokens, ask.messages);
        self.out.clear();
        match fault {
            Some(Fault::Http500) => place.vendor.failed(&mut self.out, keep),
            Some(Fault::Http429) => place.vendor.limited(&mut self.out, keep),
            Some(Fault::Reset) => {
                self.wire.reset(id);
                return self.lose(id, "reset", at);
            }
            _ => {
                let mut pace = Pace::new(&self.world.config, number, at);
                if matches!(&content, Content::Made(ready) if ready.at_once) {
                    pace.hurry(at);
                }
                let mut answer = Answer::new(content, ask, index, place.vendor, pace);
                (answer.number, answer.fault, answer.keep) = (number, fault, keep);
                return self.begin_inference(id, answer, at);
            }
        }
        self.reply(id, if fault == Some(Fault::Http429) { 429 } else { 500 });
    }

    fn begin_inference(&mut self, id: ConnId, mut answer: Answer, at: Instant) {
        answer.created = self.anchor.wall_ns(at) / SECOND;
        if !answer.ask.stream {
            answer.pace.advance(answer.ask.tokens.saturating_sub(1));
        }
        self.world.totals.prompt_tokens += u64::from(answer.ask.prompt_tokens);
        self.world.totals.cached_tokens += u64::from(answer.ask.cached);
        let (due, hangs) = (answer.pace.due(), answer.fault == Some(Fault::Hang));
        let Some(conn) = self.table.get(id) else { return };
        conn.state = State::Answering(Box::new(answer));
        if hangs {
            return;
        }
        if due <= at { self.go_on(id, at) } else { self.wait(id, due) }
    }

    /// Sends what is due of an answer.
    fn go_on(&mut self, id: ConnId, now: Instant) {
        let Some(conn) = self.table.get(id) else { return };
        let State::Answering(answer) = &mut conn.state else { return };
        self.out.clear();
        self.dues.clear();
        let ended = if answer.ask.stream {
            self.phrases.stream(&mut self.out, &mut self.dues, answer, &self.world, now)
        } else {
            self.dues.push(answer.pace.due());
            self.phrases.whole(&mut self.out, answer, &self.world);
            true
        };
        let (tokens, next) = (answer.output_tokens(), answer.pace.due());
        let reasoning = u64::from(answer.ask.reasoning) * u64::from(answer.ask.choices);
        // A whole answer may wait for others to what came with its request.
        let result = match answer.ask.stream {
            true => self.wire.send(id, &self.out, b"").map(Some),
            false => self.wire.send_soon(id, &self.out, b""),
        };
        let Ok(sent) = result else {
            return self.lose(id, "client_closed", now);
        };
        self.counts.chunks += self.dues.len() as u64;
        self.counts.tokens += tokens - conn.said.tokens;
        self.world.totals.output_tokens += tokens - conn.said.tokens;
        conn.said.status = 200;
        (conn.said.tokens, conn.said.reasoning) = (tokens, reasoning.min(tokens));
        let Some(sent) = sent else {
            (conn.said.owed, conn.state) = (self.dues[0], State::Flushing);
            return;
        };
        for &due in &self.dues {
            self.counts.lateness.note(conn.stamp(due, sent.first));
        }
        match (ended, sent.last) {
            (true, Some(last)) => self.finish(id, last),
            (true, None) => conn.state = State::Flushing,
            (false, Some(_)) => self.wait(id, next),
            // The event `flushed` goes on.
            (false, None) => {}
        }
    }

    /// Sends `out`, which is the whole of the response.
    fn reply(&mut self, id: ConnId, status: u16) {
        let Ok(sent) = self.wire.send(id, &self.out, b"") else {
            let now = self.wire.now();
            return self.lose(id, "client_closed", now);
        };
        if let Some(conn) = self.table.get(id) {
            conn.said.status = status;
        }
        if let Some(last) = sent.last {
            self.finish(id, last);
        }
    }

    /// The answer has been handed to the kernel to its last byte.
    fn finish(&mut self, id: ConnId, at: Instant) {
        let Some(conn) = self.table.get(id) else { return };
        let cut = conn.said.fault == Some(Fault::Close.name());
        let keep = conn.heard.keep && !cut;
        let succeeded = conn.said.infers && conn.said.status == 200 && !cut;
        self.world.totals.succeeded += u64::from(succeeded);
        self.note(id, if cut { "closed" } else { "ok" }, at);
        let Some(conn) = self.table.get(id) else { return };
        conn.clear();
        if keep {
            conn.state = State::Reading;
        } else {
            conn.state = State::Closing;
            self.wire.end_sending(id);
            self.wait(id, at.after(LINGER));
        }
    }

    /// The connection is gone or of no use any more; a request on it that was being answered has ended with it.
    fn lose(&mut self, id: ConnId, outcome: &'static str, at: Instant) {
        let Some(conn) = self.table.get(id) else { return };
        if conn.is_busy() {
            self.counts.client_closed += u64::from(outcome == "client_closed");
            self.note(id, outcome, at);
        }
        self.wire.close(id);
        self.table.vacate(id);
    }

    /// Accounts for the end of a request.
    fn note(&mut self, id: ConnId, outcome: &'static str, at: Instant) {
        self.in_flight -= 1;
        let (Some(conn), Some(truth)) = (self.table.get(id), &mut self.truth) else { return };
        truth.note(&line(conn, &self.anchor, outcome, at), at);
    }

    /// Takes up the requests that came while another was being answered.
    fn resume(&mut self, id: ConnId, at: Instant) {
        let Some(conn) = self.table.get(id) else { return };
        if !conn.is_reading() || conn.pending.is_empty() {
            return;
        }
        let mut held = std::mem::take(&mut conn.pending);
        self.read(id, &held, at);
        if let Some(conn) = self.table.get(id)
            && conn.pending.is_empty()
        {
            held.clear();
            conn.pending = held;
        }
    }

    /// It is the time that `id` was waiting for.
    fn fire(&mut self, id: ConnId, now: Instant) {
        let Some(conn) = self.table.get(id) else { return };
        match conn.state {
            State::Answering(_) => {
                self.go_on(id, now);
                self.resume(id, now);
            }
            State::Closing => {
                self.wire.close(id);
                self.table.vacate(id);
            }
            _ => {}
        }
    }

    fn fire_due(&mut self) {
        for _ in 0..SENDS {
            let now = self.wire.now();
            match self.due.peek() {
                Some(&Reverse((at, slot, epoch))) if at <= now => {
                    self.due.pop();
                    self.fire(ConnId { slot, epoch }, now);
                }
                _ => return,
            }
        }
    }

    fn end(&mut self, now: Instant) {
        self.counts.open_at_end = self.table.open() as u64;
        for id in self.table.ids() {
            self.lose(id, "server_closed", now);
        }
        self.due.clear();
        if let Some(truth) = &mut self.truth
            && let Err(e) = truth.flush()
            && self.failure.is_none()
        {
            self.failure = Some(e);
        }
        self.ended = true;
    }
}

/// What was made at once, as an answer: its events count as tokens.
fn made(ready: Ready) -> (Content, Ask) {
    let stream = !ready.events.is_empty();
    let ask = Ask {
        stream,
        tokens: ready.events.len() as u32,
        choices: 1,
        prompt_tokens: ready.prompt_tokens,
        messages: ready.messages,
        ..Ask::default()
    };
    (Content::Made(ready), ask)
}

fn line<'a>(conn: &'a Conn, anchor: &Anchor, outcome: &'static str, end: Instant) -> Line<'a> {
    let (heard, said) = (&conn.heard, &conn.said);
    Line {
        rid: heard.request_id(),
        cid: heard.correlation_id(),
        conn: conn.number,
        nreq: conn.requests - 1,
        path: &heard.path,
        accept: anchor.wall_ns(conn.accepted),
        first: anchor.wall_ns(heard.first),
        hdr: anchor.wall_ns(heard.head),
        body: anchor.wall_ns(heard.complete),
        stream: said.stream,
        ntok: said.tokens,
        fault: said.fault,
        status: said.status,
        ck: &said.chunks,
        end: anchor.wall_ns(end),
        outcome,
        plen: heard.body.len() as u64,
        ptok: said.prompt_tokens,
        nmsg: said.messages,
        rtok: said.reasoning,
        sid: heard.session(),
    }
}

impl<W: ServerWire> Part for Service<W> {
    fn turn(&mut self, now: Instant) -> Next {
        if self.ended {
            return Next::ENDED;
        }
        if now >= self.look_at {
            self.look_at = now.after(LOOK);
            if self.stop.level() >= StopSignal::DRAIN || self.failure.is_some() {
                self.end(now);
                return Next::ENDED;
            }
        }
        self.fire_due();
        let next = self.due.peek().map_or(Instant::NEVER, |Reverse((at, ..))| *at);
        if let Some(truth) = &mut self.truth
            && let Err(e) = truth.turn(now, next)
        {
            self.failure = Some(e);
            self.look_at = now;
        }
        Next::at(self.next())
    }
}

impl<W: ServerWire> Events for Service<W> {
    fn connected(&mut self, id: ConnId, result: io::Result<u16>, _: Instant) -> Instant {
        if result.is_err() {
            self.table.vacate(id);
        }
        self.next()
    }

    fn received(&mut self, id: ConnId, bytes: &[u8], at: Instant) -> Instant {
        if let Some(conn) = self.table.get(id) {
            match conn.state {
                State::Reading => self.read(id, bytes, at),
                State::Answering(_) | State::Flushing if conn.pending.len() + bytes.len() <= MAX_PIPELINED => {
                    conn.pending.extend_from_slice(bytes);
                }
                State::Answering(_) | State::Flushing => self.lose(id, "server_closed", at),
                State::Closing | State::Vacant => {}
            }
        }
        self.next()
    }

    fn sent(&mut self, id: ConnId, sent: Sent) -> Instant {
        if let Some(conn) = self.table.get(id) {
            self.counts.lateness.note(conn.stamp(conn.said.owed, sent.first));
            if let Some(last) = sent.last {
                self.finish(id, last);
                self.resume(id, last);
            }
        }
        self.next()
    }

    fn flushed(&mut self, id: ConnId, at: Instant) -> Instant {
        if let Some(conn) = self.table.get(id) {
            match &conn.state {
                State::Flushing => {
                    self.finish(id, at);
                    self.resume(id, at);
                }
                State::Answering(answer) if answer.pace.due() > at => {
                    let due = answer.pace.due();
                    self.wait(id, due);
                }
                State::Answering(_) => {
                    self.go_on(id, at);
                    self.resume(id, at);
                }
                _ => {}
            }
        }
        self.next()
    }

    fn closed(&mut self, id: ConnId, _: io::Result<()>, at: Instant) -> Instant {
        self.lose(id, "client_closed", at);
        self.next()
    }
}
