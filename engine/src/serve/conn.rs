//! A connection of the server: what is heard on it, what is being said, and the table of all of them.

use super::answer::Answer;
use super::route::Route;
use crate::clock::{Instant, Nanos};
use crate::net::ConnId;
use crate::wire::http1::{HttpError, RequestHead, RequestReader, RequestStep};

/// Longest body of a request, bytes: several times the longest context as text.
pub(super) const MAX_BODY: usize = 32 << 20;

/// A buffer for bodies larger than this is not kept from one request to the next.
const KEEP_CAPACITY: usize = 1 << 20;

/// What a connection is doing.
#[derive(Debug)]
pub(super) enum State {
    /// No connection.
    Vacant,
    /// Waits for a request or reads one.
    Reading,
    /// An answer is under way.
    Answering(Box<Answer>),
    /// An answer is complete but for bytes the kernel has no room for.
    Flushing,
    /// Nothing more is sent; what comes is dropped until the peer closes.
    Closing,
}

/// The request being read or answered.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub(super) route: Route,
    pub(super) keep: bool,
    /// Answers to HEAD have no body.
    pub(super) only_head: bool,
    request_id: Option<String>,
    correlation_id: Option<String>,
    session: Option<String>,
    /// Spare strings, for their allocations.
    spare: Vec<String>,
    pub(super) path: String,
    /// The name in the path, where the route leaves one open.
    pub(super) name: String,
    pub(super) content_type: String,
    pub(super) first: Instant,
    pub(super) head: Instant,
    /// When it was complete.
    pub(super) complete: Instant,
    pub(super) body: Vec<u8>,
}

impl Heard {
    /// Notes a head. Ids and path are only wanted where they are logged.
    pub(super) fn note(&mut self, head: &RequestHead<'_>, log: bool, at: Instant) {
        self.route = Route::of(head.method, head.path);
        self.keep = head.keep_alive;
        self.only_head = head.method == "HEAD";
        self.head = at;
        if let Some(place) = self.route.place().filter(|p| p.is_open()) {
            self.name.push_str(place.name(head.path));
        }
        if let Some(content_type) = head.content_type {
            self.content_type.push_str(content_type);
        }
        if log {
            self.path.push_str(head.path);
            self.request_id = head.request_id.map(|id| self.text(id));
            self.correlation_id = head.correlation_id.map(|id| self.text(id));
            self.session = head.session.map(|id| self.text(id));
        }
    }

    fn text(&mut self, text: &str) -> String {
        let mut own = self.spare.pop().unwrap_or_default();
        own.push_str(text);
        own
    }

    pub(super) fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref()
    }

    pub(super) fn correlation_id(&self) -> Option<&str> {
        self.correlation_id.as_deref()
    }

    pub(super) fn session(&self) -> Option<&str> {
        self.session.as_deref()
    }

    /// Back in front of a request.
    fn clear(&mut self) {
        for id in [&mut self.request_id, &mut self.correlation_id, &mut self.session] {
            if let Some(mut text) = id.take() {
                text.clear();
                self.spare.push(text);
            }
        }
        (self.route, self.only_head) = (Route::Unknown, false);
        self.path.clear();
        self.name.clear();
        self.content_type.clear();
        self.body.clear();
        self.body.shrink_to(KEEP_CAPACITY);
    }
}

/// What one step of reading came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// There may be more to read.
    On,
    /// All bytes are used up.
    More,
    /// The request is complete.
    Complete,
    /// The client waits to be told to send the body.
    Waits,
    /// The body is or would be longer than [`MAX_BODY`].
    TooLong,
    /// The bytes are no request.
    Broken(HttpError),
}

/// What has been answered so far.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// 0 before a response is begun.
    pub(super) status: u16,
    pub(super) stream: bool,
    pub(super) fault: Option<&'static str>,
    /// Tokens of all choices.
    pub(super) tokens: u64,
    /// Of those, tokens of reasoning.
    pub(super) reasoning: u64,
    pub(super) prompt_tokens: u32,
    pub(super) messages: u32,
    /// It is an answer to a request for inference.
    pub(super) infers: bool,
    /// When the answer was due that waits to be sent with others.
    pub(super) owed: Instant,
    /// For each chunk of content, the span from the complete request to just before the chunk's send.
    pub(super) chunks: Vec<Nanos>,
}

/// A slot of the table, and its connection while it has one.
#[derive(Debug)]
pub(super) struct Conn {
    epoch: u32,
    pub(super) state: State,
    /// Order of acceptance, from 0.
    pub(super) number: u64,
    pub(super) accepted: Instant,
    /// Requests begun on it.
    pub(super) requests: u64,
    pub(super) reader: RequestReader,
    pub(super) heard: Heard,
    pub(super) said: Said,
    /// Bytes of requests behind the one being answered.
    pub(super) pending: Vec<u8>,
}

impl Conn {
    fn new() -> Self {
        Self {
            epoch: 0,
            state: State::Vacant,
            number: 0,
            accepted: Instant::UNSET,
            requests: 0,
            reader: RequestReader::new(),
            heard: Heard::default(),
            said: Said::default(),
            pending: Vec::new(),
        }
    }

    pub(super) fn is_reading(&self) -> bool {
        matches!(self.state, State::Reading)
    }

    /// Reads on. Ids and path are kept only if they are wanted for the log.
    pub(super) fn hear(&mut self, bytes: &mut &[u8], log: bool, at: Instant) -> Step {
        if !self.reader.started() && bytes.iter().any(|b| !matches!(b, b'\r' | b'\n')) {
            self.heard.first = at;
        }
        match self.reader.step(bytes) {
            Ok(RequestStep::Head(head)) => {
                self.heard.note(&head, log, at);
                let length = head.content_length.unwrap_or(0);
                let waits = head.expects_continue && bytes.is_empty() && (head.chunked || length > 0);
                match waits {
                    _ if length > MAX_BODY as u64 => Step::TooLong,
                    true => Step::Waits,
                    false => Step::On,
                }
            }
            Ok(RequestStep::Body(piece)) if self.heard.body.len() + piece.len() > MAX_BODY => Step::TooLong,
            Ok(RequestStep::Body(piece)) => {
                self.heard.body.extend_from_slice(piece);
                Step::On
            }
            Ok(RequestStep::Done) => Step::Complete,
            Ok(RequestStep::More) => Step::More,
            Err(error) => Step::Broken(error),
        }
    }

    /// A request is being answered.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self.state, State::Answering(_) | State::Flushing)
    }

    /// A chunk that was due was sent at `at`; how late that was.
    pub(super) fn stamp(&mut self, due: Instant, at: Instant) -> Nanos {
        self.said.chunks.push(at.since(self.heard.complete));
        at.since(due)
    }

    /// Back in front of a request.
    pub(super) fn clear(&mut self) {
        self.reader.reset();
        self.heard.clear();
        self.said.chunks.clear();
        self.said = Said { chunks: std::mem::take(&mut self.said.chunks), ..Said::default() };
    }
}

/// All connections.
#[derive(Debug)]
pub(super) struct Table {
    conns: Vec<Conn>,
    vacant: Vec<u32>,
    limit: usize,
}

impl Table {
    /// Room for `limit` connections at a time.
    pub(super) fn new(limit: usize) -> Self {
        Self { conns: Vec::new(), vacant: Vec::new(), limit }
    }

    pub(super) fn open(&self) -> usize {
        self.conns.len() - self.vacant.len()
    }

    /// Gives a new connection its slot, unless all are taken.
    pub(super) fn admit(&mut self, number: u64, at: Instant) -> Option<ConnId> {
        if self.open() >= self.limit {
            return None;
        }
        let slot = self.vacant.pop().unwrap_or_else(|| {
            self.conns.push(Conn::new());
            self.conns.len() as u32 - 1
        });
        let conn = self.conns.get_mut(slot as usize)?;
        // The wire marks a connection that was closed on this side by the odd epoch in between.
        conn.epoch = conn.epoch.wrapping_add(2);
        (conn.state, conn.number, conn.accepted, conn.requests) = (State::Reading, number, at, 0);
        conn.pending.clear();
        conn.clear();
        Some(ConnId { slot, epoch: conn.epoch })
    }

    /// The connection, if `id` still means it.
    pub(super) fn get(&mut self, id: ConnId) -> Option<&mut Conn> {
        let conn = self.conns.get_mut(id.slot as usize)?;
        (conn.epoch == id.epoch && !matches!(conn.state, State::Vacant)).then_some(conn)
    }

    /// The connection is gone.
    pub(super) fn vacate(&mut self, id: ConnId) {
        if let Some(conn) = self.get(id) {
            conn.state = State::Vacant;
            conn.pending = Vec::new();
            self.vacant.push(id.slot);
        }
    }

    /// The ids of all connections.
    pub(super) fn ids(&self) -> Vec<ConnId> {
        let taken = self.conns.iter().enumerate().filter(|(_, c)| !matches!(c.state, State::Vacant));
        taken.map(|(slot, c)| ConnId { slot: slot as u32, epoch: c.epoch }).collect()
    }
}
