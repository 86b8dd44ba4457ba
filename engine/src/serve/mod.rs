//! The built-in server: inference endpoints of many dialects whose timing and faults are known.
//!
//! It speaks HTTP/1.1 on one thread, with the same reactor and sockets as the executors; `route.rs` has a row for each of its
//! paths, `dialect/` a file for each way of asking. Token `k` of an answer, from 0, is due at the moment the request was
//! complete plus [`Config::ttft`] plus `k` times [`Config::itl`], moved by [`Config::jitter`]; a chunk of several tokens is
//! due with its first. A whole answer is due with its last token, one that is not made of tokens (embeddings, rankings,
//! images) at the time of a first token. Each chunk is one event and goes out in a system call of its own when it is due;
//! what is due by then goes out together, and the head of a stream and the events that open it go with the first chunk, as
//! those that close it go with the last.
//!
//! Of a request it reads what shapes the answer: the model, whether and how it is streamed, the length in the dialect's own
//! fields, the number of choices, the tools; and of the prompt its size: the count of its tokens is an estimate, 4 tokens
//! for 17 bytes of text. Every answer ends for its length, and its tokens are words of one token each ([`token`]), so that
//! a client can count them. In a call of a tool the name and the two ends of the arguments are one token each, as the
//! server counts, whatever they are in a vocabulary. Requests that come on a connection before the answer to the one in
//! front has ended are taken up when it has.

mod answer;
mod conn;
mod dialect;
mod digits;
mod errors;
mod http;
mod multipart;
mod pace;
mod picture;
mod route;
mod service;
#[cfg(test)]
mod tests;
mod truth;
mod words;
mod world;

pub use dialect::MAX_TOKENS;
pub use words::token;

use crate::clock::{Anchor, Nanos};
use crate::credit::StopSignal;
use crate::net::probe::{Driver, Io, raise_connection_limit};
use crate::net::reactor::{self, SharedPart};
use crate::net::socket::{READ_BUFFER, SocketWire};
use crate::net::{Events, Listens, Next, Part, direct};
use hdrhistogram::Histogram;
use service::Service;
use std::cell::RefCell;
use std::fmt;
use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use truth::Truth;

/// Connections the kernel completes ahead of their acceptance.
const BACKLOG: libc::c_int = 4096;

/// What a server does.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Name or address to listen on.
    pub host: String,
    /// Port to listen on; 0 picks a free one.
    pub port: u16,
    /// Models to answer for, at least one; a request for any other gets 404, one that names none the first.
    pub models: Vec<String>,
    /// From a complete request to its first token, nanoseconds.
    pub ttft: Nanos,
    /// From one token to the next, nanoseconds.
    pub itl: Nanos,
    /// Tokens of an answer where the request names no length, at least 1.
    pub osl: u32,
    /// Tokens in one event of a stream, at least 1.
    pub tokens_per_chunk: u32,
    /// Tokens of reasoning in front of an answer, in dialects that know it; they count towards its length, and one token of
    /// it is always left for the rest.
    pub reasoning: u32,
    /// Requests that offer tools are answered with a call of the first one, unless they bring the result of a call.
    pub tool_calls: bool,
    /// Tokens drafted in each step of speculative decoding, if the server is to do it: then an event is a step, with one
    /// token and as many of the drafted ones as were accepted, and [`Self::tokens_per_chunk`] does not count; chat and
    /// completions account for it beside their usage.
    pub spec_decode: Option<u32>,
    /// The first token of the text is the number of messages in the request (999 for more).
    pub echo: bool,
    /// Share of a prompt's tokens, from 0 to 1, that usage says came from a cache.
    pub cached: f64,
    /// Usage tells what few vendors tell as well: tokens written to a cache or missed in it, audio, predictions, tools.
    pub usage_details: bool,
    /// How far the intervals stray from their means.
    pub jitter: Jitter,
    /// What goes wrong with requests for inference, and which share of them meets it; the shares add up to at most 1.
    pub faults: Vec<(Fault, f64)>,
    /// Where to write what was really sent, one JSON line a request.
    pub log: Option<PathBuf>,
    /// Seed of jitter and faults.
    pub seed: u64,
}

impl Default for Config {
    /// A server on a free port of 127.0.0.1 that answers at once, with 32 tokens for the model `mock`.
    fn default() -> Self {
        Self {
            host: "127.0.0.1".into(),
            port: 0,
            models: vec!["mock".into()],
            ttft: 0,
            itl: 0,
            osl: 32,
            tokens_per_chunk: 1,
            reasoning: 0,
            tool_calls: false,
            spec_decode: None,
            echo: false,
            cached: 0.0,
            usage_details: false,
            jitter: Jitter::Span(0),
            faults: Vec::new(),
            log: None,
            seed: 0,
        }
    }
}

/// How far each interval strays from its mean: uniformly to both sides, never below an interval of 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Jitter {
    /// By this share of the interval.
    Fraction(f64),
    /// By this span, nanoseconds.
    Span(Nanos),
}

impl Jitter {
    fn is_set(self) -> bool {
        !matches!(self, Self::Span(0) | Self::Fraction(0.0))
    }
}

/// What goes wrong with a request for inference. The first three happen as soon as the request is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Status 500.
    Http500,
    /// Status 429 with `Retry-After`.
    Http429,
    /// The connection is reset before any byte.
    Reset,
    /// The connection is closed after half the tokens; a whole answer breaks off there, short of its announced length.
    Close,
    /// After half the tokens comes an event that is no JSON, then the stream goes on; the JSON of a whole answer ends
    /// early.
    Malformed,
    /// After half the tokens comes an event with an error instead of the rest, then what ends a stream; a whole answer is an
    /// error under the status 200.
    ErrorEvent,
    /// Nothing is ever answered.
    Hang,
}

impl Fault {
    /// The name in options and in the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http500 => "http500",
            Self::Http429 => "http429",
            Self::Reset => "reset",
            Self::Close => "close",
            Self::Malformed => "malformed",
            Self::ErrorEvent => "error-event",
            Self::Hang => "hang",
        }
    }
}

/// A server's account of itself.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Connections taken.
    pub connections: u64,
    /// Connections closed at once because as many were open as the process may have descriptors.
    pub refused_connections: u64,
    /// Most connections open at a time.
    pub max_open: u64,
    /// Connections still open when the server was stopped.
    pub open_at_end: u64,
    /// Requests answered or begun to be, errors included.
    pub requests: u64,
    /// Requests for inference among them that were valid.
    pub inferences: u64,
    /// Requests for inference that met a fault.
    pub faults: u64,
    /// Requests whose connection the client closed before the answer's end.
    pub client_closed: u64,
    /// Most requests being answered at a time.
    pub max_in_flight: u64,
    /// Tokens sent.
    pub tokens: u64,
    /// Chunks of content and whole answers sent.
    pub chunks: u64,
    /// From when each of those was due to just before its send.
    pub lateness: Lateness,
}

/// A distribution of delays, nanoseconds, to three digits.
#[derive(Debug, Clone)]
pub struct Lateness(Histogram<u64>);

impl Default for Lateness {
    fn default() -> Self {
        // A lowest value of 1, a highest of 18 minutes and three digits are always accepted.
        Self(Histogram::new_with_bounds(1, 1 << 40, 3).unwrap_or_else(|_| unreachable!()))
    }
}

impl Lateness {
    fn note(&mut self, late: Nanos) {
        self.0.saturating_record(late);
    }

    /// The delay that the share `q` of all does not exceed, nanoseconds; 0 if there are none.
    pub fn quantile(&self, q: f64) -> Nanos {
        self.0.value_at_quantile(q)
    }

    /// The longest delay, nanoseconds; 0 if there are none.
    pub fn max(&self) -> Nanos {
        self.0.max()
    }
}

/// Why a server could not be set up.
#[derive(Debug)]
pub enum BindError {
    /// The address cannot be listened on.
    Address(io::Error),
    /// The log cannot be created.
    Log(io::Error),
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(e) => write!(f, "cannot listen on the address: {e}"),
            Self::Log(e) => write!(f, "cannot create the log: {e}"),
        }
    }
}

impl std::error::Error for BindError {}

/// A server that listens and does not answer yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    config: Config,
    log: Option<File>,
}

impl Server {
    /// Listens, and creates the log.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn bind(config: Config) -> Result<Self, BindError> {
        let listener = TcpListener::bind((config.host.as_str(), config.port)).map_err(BindError::Address)?;
        let address = listener.local_addr().map_err(BindError::Address)?;
        // SAFETY: the descriptor is a listening socket; listening again only changes its backlog.
        if unsafe { libc::listen(listener.as_raw_fd(), BACKLOG) } != 0 {
            return Err(BindError::Address(io::Error::last_os_error()));
        }
        let log = config.log.as_ref().map(File::create).transpose().map_err(BindError::Log)?;
        Ok(Self { listener, address, config, log })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves on this thread, pinned to `core` if one is named, until `stop` says to drain; looks at it every 50 ms.
    /// Then all connections are closed, whatever is in flight on them.
    ///
    /// # Errors
    /// The ring or runtime could not be set up, nothing could be accepted any more, or the log could not be written.
    pub fn run(self, io: Io, spin: bool, core: Option<usize>, stop: Arc<StopSignal>) -> io::Result<Counts> {
        if let Some(id) = core {
            core_affinity::set_for_current(core_affinity::CoreId { id });
        }
        // Readiness wants a descriptor that does not block, a ring one that does.
        self.listener.set_nonblocking(io == Io::Runtime(Driver::Epoll))?;
        let door = self.listener.try_clone()?;
        let counts = match io {
            Io::Direct => {
                let mut kept = None;
                direct::run(spin, None, |ring| Ok(self.parts(ring.wire(), stop, &mut kept)))
                    .and_then(|()| outcome(kept))
            }
            Io::Runtime(driver) => {
                let mut kept = None;
                reactor::run(driver, spin, None, |kick| {
                    Ok(self.parts(SocketWire::new(kick, READ_BUFFER, None), stop, &mut kept))
                })
                .and_then(|()| outcome(kept))
            }
        };
        // SAFETY: the descriptor is open. A ring may keep the listener itself open beyond its runtime: nobody shall connect.
        unsafe { libc::shutdown(door.as_raw_fd(), libc::SHUT_RDWR) };
        counts
    }

    /// The parts of the thread that serves; the service among them is `kept` too.
    fn parts<W: Listens + 'static>(
        self,
        wire: W,
        stop: Arc<StopSignal>,
        kept: &mut Option<Rc<RefCell<Service<W>>>>,
    ) -> Vec<SharedPart> {
        let limit = usize::try_from(raise_connection_limit()).unwrap_or(usize::MAX);
        let truth = self.log.map(Truth::new);
        let service = Service::new(self.config, wire.clone(), Anchor::take(), truth, limit).until(stop);
        let service = Rc::new(RefCell::new(service));
        let events: Rc<RefCell<dyn Events>> = service.clone();
        wire.tell(Rc::downgrade(&events));
        let door = Door { wire, listener: Some(self.listener), service: Rc::downgrade(&service) };
        *kept = Some(service.clone());
        vec![service, Rc::new(RefCell::new(door))]
    }
}

/// What a service that has ended came to.
fn outcome<W>(service: Option<Rc<RefCell<Service<W>>>>) -> io::Result<Counts> {
    let Some(service) = service else { return Ok(Counts::default()) };
    let mut service = service.borrow_mut();
    match service.failure.take() {
        Some(e) => Err(e),
        None => Ok(std::mem::take(&mut service.counts)),
    }
}

/// Begins to accept once the loop runs.
struct Door<W> {
    wire: W,
    listener: Option<TcpListener>,
    service: Weak<RefCell<Service<W>>>,
}

impl<W: Listens + 'static> Part for Door<W> {
    fn turn(&mut self, _: crate::clock::Instant) -> Next {
        if let Some(listener) = self.listener.take() {
            let service = self.service.clone();
            self.wire.listen(listener, Box::new(move |accepted| service.upgrade()?.borrow_mut().admit(accepted)));
        }
        Next::ENDED
    }
}
