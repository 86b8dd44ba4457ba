//! The simulated network: one heap of events, and a wire for each executor that feeds it.

use super::dice::Dice;
use super::script::{After, Answer, Content, Manners};
use crate::clock::{Instant, MICRO, MILLI, Nanos};
use crate::net::pulse::Pulse;
use crate::net::{ConnId, Sent, Wire};
use crate::wire::http1::{RequestReader, RequestStep};
use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

/// How an attempt ended, as its client was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It has not.
    Open,
    /// The last byte of the answer came.
    Complete,
    /// The server closed.
    Closed,
    /// The connection was reset.
    Reset,
    /// The client closed the connection first.
    Cut,
}

/// A request that was put on the wire once.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// `X-Request-ID` of its head.
    pub id: String,
    /// `X-Correlation-ID` of its head.
    pub session: String,
    /// Its body.
    pub body: Vec<u8>,
    /// Where it went.
    pub to: SocketAddr,
    /// Counts the connections of the run.
    pub link: usize,
    /// Executor that sent it.
    pub executor: usize,
    /// The server got some of it before it closed the connection.
    pub got: bool,
    /// The connection had carried an answer before.
    pub reused: bool,
    /// On a connection that had stood idle and may have been closed meanwhile. `None` where it was sent from within the
    /// event that told of the connection: for this request, or for another that happened to be due.
    pub idled: Option<bool>,
    /// When its first byte was handed over; unset if the wire refused it.
    pub sent: Instant,
    /// Place among all beginnings and endings of attempts.
    pub begin: u64,
    /// Place of its ending; `u64::MAX` if it did not end.
    pub end: u64,
    /// When it ended.
    pub ended: Instant,
    /// How it ended.
    pub ending: Ending,
    /// When the first bytes came.
    pub first_byte: Instant,
    /// Contents that came, and when.
    pub contents: Vec<(Instant, Content)>,
    /// What the server answered, if it took the request up.
    pub answer: Option<Answer>,
}

impl Attempt {
    /// Whether it ended before any byte of an answer came.
    pub fn was_silent(&self) -> bool {
        matches!(self.ending, Ending::Closed | Ending::Reset) && !(self.first_byte.is_set() && self.speaks())
    }

    /// Whether the client can know that the server got none of it: the wire took nothing, or the server's end came, which
    /// says what it had.
    pub fn was_unseen(&self) -> bool {
        self.was_silent() && (!self.sent.is_set() || (self.ending == Ending::Closed && !self.got))
    }

    fn speaks(&self) -> bool {
        self.answer.as_ref().is_some_and(|a| a.speaks)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Happening {
    Connected {
        link: usize,
    },
    /// The request is whole at the server.
    Arrive {
        link: usize,
        attempt: usize,
    },
    Deliver {
        link: usize,
        from: usize,
        to: usize,
    },
    Flushed {
        link: usize,
    },
    /// The server closes without a word, whatever has come meanwhile.
    Close {
        link: usize,
        reset: bool,
    },
    /// The server loses patience with an idle connection.
    IdleClose {
        link: usize,
        served: u32,
    },
    Gone {
        link: usize,
        reset: bool,
    },
    /// What has gathered on the executor's wire goes to the kernel.
    HandOver {
        executor: usize,
    },
    /// Someone presses Ctrl-C.
    Raise,
}

impl Happening {
    pub(super) fn link(self) -> Option<usize> {
        match self {
            Self::Connected { link }
            | Self::Arrive { link, .. }
            | Self::Deliver { link, .. }
            | Self::Flushed { link }
            | Self::Close { link, .. }
            | Self::IdleClose { link, .. }
            | Self::Gone { link, .. } => Some(link),
            Self::HandOver { .. } | Self::Raise => None,
        }
    }
}

/// A connection, both of its ends.
#[derive(Debug)]
struct Link {
    executor: usize,
    conn: ConnId,
    to: SocketAddr,
    latency: Nanos,
    refused: bool,
    /// Neither closed by the client nor known to it as closed.
    alive: bool,
    /// The server's kernel still takes requests.
    open: bool,
    /// The server reads none any more.
    deaf: bool,
    served: u32,
    flushing: bool,
    attempt: Option<usize>,
    arrived: bool,
}

/// What the owner of a connection is to be told.
#[derive(Debug)]
pub(super) enum Tell {
    Connected(io::Result<u16>),
    Received(Vec<u8>),
    Sent(Sent),
    Flushed,
    Closed(io::Result<()>),
}

/// The network and the server behind it.
#[derive(Debug)]
pub(super) struct World {
    pub(super) now: Instant,
    pub(super) dice: Dice,
    seed: u64,
    manners: Manners,
    /// Longest time one look at the clock takes.
    tick: Nanos,
    heap: BinaryHeap<Reverse<(Instant, u64, Happening)>>,
    places: u64,
    links: Vec<Link>,
    /// By executor and slot: its latest link.
    latest: Vec<Vec<usize>>,
    pub(super) attempts: Vec<Attempt>,
    /// The link whose owner is just being told that it is connected.
    pub(super) greeting: Option<usize>,
    pub(super) connections: u64,
    /// An executor is being told something.
    pub(super) telling: bool,
    /// By executor: attempts that have gathered, with their links.
    gathered: Vec<Vec<(usize, usize)>>,
    /// The connection whose end is just being told, if the server got nothing of what was sent on it last.
    pub(super) unseen: Option<(usize, ConnId)>,
    /// What a wire must never see, in words.
    pub(super) violations: Vec<String>,
}

impl World {
    pub(super) fn new(seed: u64, manners: Manners, executors: usize, start: Instant, tick: Nanos) -> Self {
        Self {
            now: start,
            dice: Dice::new(seed),
            seed,
            manners,
            tick,
            heap: BinaryHeap::new(),
            places: 0,
            links: Vec::new(),
            latest: vec![Vec::new(); executors],
            attempts: Vec::new(),
            greeting: None,
            connections: 0,
            telling: false,
            gathered: vec![Vec::new(); executors],
            unseen: None,
            violations: Vec::new(),
        }
    }

    fn place(&mut self) -> u64 {
        self.places += 1;
        self.places
    }

    pub(super) fn schedule(&mut self, at: Instant, what: Happening) {
        let place = self.place();
        self.heap.push(Reverse((at, place, what)));
    }

    pub(super) fn next_at(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    pub(super) fn pop(&mut self) -> Option<Happening> {
        self.heap.pop().map(|Reverse((.., what))| what)
    }

    /// The executor that is told of it, if one is.
    pub(super) fn executor_of(&self, what: Happening) -> Option<usize> {
        match what {
            Happening::HandOver { executor } => Some(executor),
            what => what.link().map(|link| self.links[link].executor),
        }
    }

    fn look(&mut self) -> Instant {
        let took = self.dice.below(self.tick + 1);
        self.now = self.now.after(took);
        self.now
    }

    fn link_of(&self, executor: usize, conn: ConnId) -> Option<usize> {
        let link = *self.latest[executor].get(conn.slot as usize)?;
        (self.links[link].conn == conn).then_some(link)
    }

    fn connect(&mut self, executor: usize, conn: ConnId, to: SocketAddr) {
        let link = self.links.len();
        let slots = &mut self.latest[executor];
        if slots.len() <= conn.slot as usize {
            slots.resize(conn.slot as usize + 1, usize::MAX);
        }
        let before = std::mem::replace(&mut slots[conn.slot as usize], link);
        if self.links.get(before).is_some_and(|old| old.alive) {
            self.violations.push(format!("{conn:?} is connected while it stands"));
        }
        let latency = self.dice.within(5 * MICRO, MILLI / 2);
        let refused = self.dice.chance(self.manners.refuse);
        self.links.push(Link {
            executor,
            conn,
            to,
            latency,
            refused,
            alive: true,
            open: !refused,
            deaf: false,
            served: 0,
            flushing: false,
            attempt: None,
            arrived: false,
        });
        if !self.dice.chance(self.manners.swallow) {
            let at = self.now.after(self.dice.below(self.manners.connect));
            self.schedule(at, Happening::Connected { link });
        }
    }

    fn send(&mut self, executor: usize, conn: ConnId, head: &[u8], body: &[u8]) -> io::Result<Sent> {
        let (link, attempt) = self.send_next(executor, conn, head, body)?;
        self.hand_over(link, attempt)
    }

    /// Keeps a request until what has gathered is handed over, if it can wait.
    fn send_soon(&mut self, executor: usize, conn: ConnId, head: &[u8], body: &[u8]) -> io::Result<Option<Sent>> {
        if !self.telling || !self.dice.chance(500) {
            return self.send(executor, conn, head, body).map(Some);
        }
        let gathered = self.send_next(executor, conn, head, body)?;
        self.gathered[executor].push(gathered);
        if self.gathered[executor].len() == 1 {
            // What a pass brings is told within some microseconds: events of this and other connections come in between.
            let at = self.now.after(self.dice.pick(&[0, 0, 20 * MICRO]));
            self.schedule(at, Happening::HandOver { executor });
        }
        Ok(None)
    }

    /// The next request on a connection: its link and the attempt.
    fn send_next(&mut self, executor: usize, conn: ConnId, head: &[u8], body: &[u8]) -> io::Result<(usize, usize)> {
        let request = self.read_request(head, body);
        let Some(link) = self.link_of(executor, conn).filter(|&link| self.links[link].alive) else {
            self.violations.push(format!("{conn:?} is sent to and does not stand"));
            return Err(io::ErrorKind::NotConnected.into());
        };
        if self.links[link].attempt.is_some() || self.links[link].flushing {
            self.violations.push(format!("{conn:?} is sent a request upon a request"));
        }
        Ok((link, self.begin(link, request)))
    }

    /// What the kernel says of a request.
    fn hand_over(&mut self, link: usize, attempt: usize) -> io::Result<Sent> {
        let first = self.look();
        if !self.links[link].open && self.dice.chance(300) {
            self.end(link, Ending::Reset);
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.attempts[attempt].sent = first;
        let latency = self.links[link].latency;
        if self.dice.chance(self.manners.partial_send) {
            self.links[link].flushing = true;
            let flushed = self.now.after(self.dice.below(MILLI));
            // Some servers answer before they have all of a request.
            let arrives = if self.dice.chance(100) { self.now } else { flushed };
            self.schedule(flushed, Happening::Flushed { link });
            self.schedule(arrives.after(latency), Happening::Arrive { link, attempt });
            return Ok(Sent { first, last: None });
        }
        self.schedule(self.now.after(latency), Happening::Arrive { link, attempt });
        Ok(Sent { first, last: Some(self.look()) })
    }

    /// The next of the requests that have gathered goes: what its owner is to be told. The connections of some may have ended
    /// meanwhile.
    pub(super) fn hand_over_next(&mut self, executor: usize) -> Option<(ConnId, Tell)> {
        while !self.gathered[executor].is_empty() {
            let (link, attempt) = self.gathered[executor].remove(0);
            if self.links[link].alive && self.links[link].attempt == Some(attempt) {
                let conn = self.links[link].conn;
                let handed = self.hand_over(link, attempt);
                self.unseen = handed.as_ref().err().map(|_| (executor, conn));
                return Some((conn, handed.map_or_else(|e| Tell::Closed(Err(e)), Tell::Sent)));
            }
        }
        None
    }

    /// The request. What is sent at once is one whole request.
    fn read_request(&mut self, head: &[u8], body: &[u8]) -> Request {
        let bytes = [head, body].concat();
        let (mut reader, mut rest, mut request) = (RequestReader::new(), bytes.as_slice(), Request::default());
        loop {
            match reader.step(&mut rest) {
                Ok(RequestStep::Head(head)) => {
                    request.id = head.request_id.unwrap_or_default().to_owned();
                    request.session = head.correlation_id.unwrap_or_default().to_owned();
                }
                Ok(RequestStep::Body(piece)) => request.body.extend_from_slice(piece),
                Ok(RequestStep::Done) if rest.is_empty() => return request,
                other => {
                    self.violations.push(format!("not one request: {other:?}"));
                    return request;
                }
            }
        }
    }

    fn begin(&mut self, link: usize, request: Request) -> usize {
        let begin = self.place();
        let entry = &mut self.links[link];
        (entry.attempt, entry.arrived) = (Some(self.attempts.len()), false);
        self.attempts.push(Attempt {
            id: request.id,
            session: request.session,
            body: request.body,
            to: entry.to,
            link,
            executor: entry.executor,
            got: false,
            reused: entry.served > 0,
            idled: (self.greeting != Some(link)).then_some(true),
            sent: Instant::UNSET,
            begin,
            end: u64::MAX,
            ended: Instant::UNSET,
            ending: Ending::Open,
            first_byte: Instant::UNSET,
            contents: Vec::new(),
            answer: None,
        });
        self.attempts.len() - 1
    }

    fn end(&mut self, link: usize, ending: Ending) {
        let (now, place) = (self.now, self.place());
        if let Some(attempt) = self.links[link].attempt.take() {
            let attempt = &mut self.attempts[attempt];
            (attempt.end, attempt.ended, attempt.ending) = (place, now, ending);
        }
        if ending != Ending::Complete {
            (self.links[link].alive, self.links[link].open) = (false, false);
        }
    }

    fn close(&mut self, executor: usize, conn: ConnId) {
        if let Some(link) = self.link_of(executor, conn).filter(|&link| self.links[link].alive) {
            self.end(link, Ending::Cut);
        }
    }

    /// Lets something happen; what the owner of the connection is to be told, if anything.
    pub(super) fn happen(&mut self, what: Happening) -> Option<(ConnId, Tell)> {
        let link = what.link().filter(|&link| self.links[link].alive)?;
        let conn = self.links[link].conn;
        let tell = match what {
            Happening::Connected { .. } if self.links[link].refused => {
                self.links[link].alive = false;
                // Now and then it is this machine that refuses.
                let why = self.dice.pick(&[libc::ECONNREFUSED, libc::ECONNREFUSED, libc::EMFILE, libc::EADDRNOTAVAIL]);
                Tell::Connected(Err(io::Error::from_raw_os_error(why)))
            }
            Happening::Connected { .. } => {
                self.connections += 1;
                if self.dice.chance(self.manners.close_fresh) {
                    self.links[link].open = false;
                    let at = self.now.after(self.dice.below(MILLI));
                    let reset = self.dice.chance(500);
                    self.schedule(at, Happening::Gone { link, reset });
                }
                self.greeting = Some(link);
                Tell::Connected(Ok(10_000 + (link % 50_000) as u16))
            }
            Happening::Arrive { attempt, .. } => {
                self.answer(link, attempt);
                return None;
            }
            Happening::Deliver { from, to, .. } => Tell::Received(self.deliver(link, from, to)?),
            Happening::Flushed { .. } => {
                self.links[link].flushing = false;
                Tell::Flushed
            }
            Happening::Close { reset, .. } => {
                let entry = &mut self.links[link];
                entry.open = false;
                let at = self.now.after(entry.latency);
                self.schedule(at, Happening::Gone { link, reset });
                return None;
            }
            Happening::IdleClose { served, .. } => {
                let entry = &mut self.links[link];
                if entry.open && !entry.arrived && entry.served == served {
                    entry.open = false;
                    let at = self.now.after(entry.latency);
                    let reset = self.dice.chance(200);
                    self.schedule(at, Happening::Gone { link, reset });
                }
                return None;
            }
            Happening::Gone { reset, .. } => {
                // Of a reset the client's kernel cannot tell, though the server might; of what has only gathered it can.
                let executor = self.links[link].executor;
                let attempt = self.links[link].attempt.filter(|&attempt| {
                    let attempt = &self.attempts[attempt];
                    !attempt.sent.is_set() || !(reset || attempt.got)
                });
                self.unseen = attempt.map(|_| (executor, conn));
                self.end(link, if reset { Ending::Reset } else { Ending::Closed });
                Tell::Closed(if reset { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) })
            }
            Happening::HandOver { .. } | Happening::Raise => return None,
        };
        Some((conn, tell))
    }

    /// The server takes a request up.
    fn answer(&mut self, link: usize, attempt: usize) {
        if !self.links[link].open {
            return;
        }
        self.links[link].arrived = true;
        self.attempts[attempt].got = true;
        if self.links[link].deaf {
            return;
        }
        let id = format!("{} {}", self.attempts[attempt].id, self.attempts[attempt].reused);
        let mut dice = Dice::keyed(self.seed, id.as_bytes());
        let answer = Answer::drawn(&mut dice, &self.manners);
        let mut at = self.now.after(self.links[link].latency).after(dice.below(self.manners.first_byte));
        let mut from = 0;
        while from < answer.bytes.len() {
            let to = (from + dice.pick(&[1, 7, 60, 400, 4000])).min(answer.bytes.len());
            self.schedule(at, Happening::Deliver { link, from, to });
            from = to;
            if dice.chance(600) {
                at = at.after(dice.below(self.manners.gap));
            }
        }
        let closes = answer.reusable && dice.chance(self.manners.close_after);
        match answer.after {
            After::Close => self.schedule(at, Happening::Gone { link, reset: false }),
            After::Reset => self.schedule(at, Happening::Gone { link, reset: true }),
            After::Wait if closes => {
                let at = at.after(dice.below(2 * self.manners.gap));
                self.schedule(at, Happening::Close { link, reset: dice.chance(200) });
                self.links[link].deaf = true;
                self.attempts[attempt].answer = Some(answer);
                return;
            }
            After::Wait | After::Hang => {}
        }
        if answer.after != After::Wait {
            self.links[link].open = false;
        }
        self.attempts[attempt].answer = Some(answer);
    }

    fn deliver(&mut self, link: usize, from: usize, to: usize) -> Option<Vec<u8>> {
        let now = self.now;
        let attempt = &mut self.attempts[self.links[link].attempt?];
        let answer = attempt.answer.as_ref()?;
        if !attempt.first_byte.is_set() {
            attempt.first_byte = now;
        }
        let came = answer.contents.iter().filter(|c| (from + 1..=to).contains(&c.end));
        attempt.contents.extend(came.map(|c| (now, c.clone())));
        let bytes = answer.bytes[from..to].to_vec();
        if answer.complete && to == answer.bytes.len() {
            self.end(link, Ending::Complete);
            let entry = &mut self.links[link];
            entry.served += 1;
            entry.arrived = false;
            let served = entry.served;
            if self.dice.chance(self.manners.idle_close) {
                let at = now.after(self.dice.below(20 * MILLI));
                self.schedule(at, Happening::IdleClose { link, served });
            }
        }
        Some(bytes)
    }
}

/// What a request says.
#[derive(Default)]
struct Request {
    id: String,
    session: String,
    body: Vec<u8>,
}

/// One executor's end of the network.
#[derive(Debug, Clone)]
pub(super) struct SimWire {
    pub(super) world: Rc<RefCell<World>>,
    pub(super) executor: usize,
    pub(super) pulse: Rc<Pulse>,
}

impl Wire for SimWire {
    fn now(&self) -> Instant {
        self.world.borrow_mut().look()
    }

    fn connect(&mut self, conn: ConnId, to: SocketAddr) {
        self.world.borrow_mut().connect(self.executor, conn, to);
    }

    fn send(&mut self, conn: ConnId, head: &[u8], body: &[u8]) -> io::Result<Sent> {
        self.world.borrow_mut().send(self.executor, conn, head, body)
    }

    fn send_soon(&mut self, conn: ConnId, head: &[u8], body: &[u8]) -> io::Result<Option<Sent>> {
        self.world.borrow_mut().send_soon(self.executor, conn, head, body)
    }

    fn close(&mut self, conn: ConnId) {
        self.world.borrow_mut().close(self.executor, conn);
    }

    fn pulse(&self) -> Option<&Pulse> {
        Some(&self.pulse)
    }

    fn was_unseen(&self, conn: ConnId) -> bool {
        self.world.borrow().unseen == Some((self.executor, conn))
    }
}
