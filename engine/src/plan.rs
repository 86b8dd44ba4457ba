//! What a run will do, complete before the first byte: immutable, shared by all threads.

use crate::clock::Nanos;
use crate::endpoint::{self, Splice};
use crate::schedule;
use memmap2::Mmap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

/// A whole run.
#[derive(Debug)]
pub struct Plan {
    /// In order; each is drained before the next begins.
    pub phases: Vec<Phase>,
    /// Where requests go.
    pub target: Target,
    /// Which protocol they speak.
    pub endpoint: endpoint::Kind,
    /// The bodies.
    pub requests: Arc<Requests>,
    /// What is kept of each response beside its record.
    pub capture: Capture,
    /// A request without a complete answer after this long has failed.
    pub request_timeout: Option<Nanos>,
    /// Open the connections of a closed loop before the first request.
    pub preconnect: bool,
    /// Key of the request ids.
    pub run_key: u64,
    /// Root of all random streams.
    pub seed: u64,
}

/// A stretch of load with one schedule and one set of limits.
#[derive(Debug, Clone, PartialEq)]
pub struct Phase {
    /// `warmup` or `profiling`.
    pub name: String,
    /// Left out of the results.
    pub warmup: bool,
    /// When requests are due.
    pub schedule: schedule::Spec,
    /// At most this many in flight.
    pub concurrency: Option<u32>,
    /// Ends after this many.
    pub requests: Option<u64>,
    /// Nothing is sent this long after its start.
    pub duration: Option<Nanos>,
    /// What is still in flight this long after `duration` is cut; never if `None`.
    pub grace: Option<Nanos>,
}

/// Where and how requests are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Resolved addresses; connections take them in turn.
    pub addrs: Vec<SocketAddr>,
    /// Value of the Host header.
    pub host: String,
    /// Path and query.
    pub path: String,
    /// Name of the header that carries the session's id.
    pub correlation_header: String,
    /// All other headers, in order.
    pub headers: Vec<(String, String)>,
}

/// What is kept of each response beside its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capture {
    /// Output and reasoning text, for client-side token counts.
    pub text: bool,
    /// The gap before each content response.
    pub gaps: bool,
}

/// The request bodies, end to end in one memory-mapped file that has no name, and the sessions they make up.
#[derive(Debug)]
pub struct Requests {
    map: Option<Mmap>,
    /// Offset and length of each body.
    spans: Vec<(u64, u32)>,
    /// First request and number of turns of each session. Its requests follow one another.
    sessions: Vec<(u32, u32)>,
    /// What is known of each request beside its body; empty where every session has one turn.
    turns: Vec<Turn>,
}

/// One turn among the others of its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// Where the history goes.
    pub splice: Splice,
    /// What of it the later turns carry.
    pub history: History,
    /// The history so far is forgotten before this turn.
    pub reset: bool,
    /// Wait after the end of the session's previous turn, nanoseconds.
    pub delay: Nanos,
    /// Planned offset from the schedule's zero, where the trace gives one.
    pub at: Option<Nanos>,
}

impl Default for Turn {
    /// A turn by itself.
    fn default() -> Self {
        Self { splice: Splice::NONE, history: History::None, reset: false, delay: 0, at: None }
    }
}

/// What a turn leaves behind for the later turns of its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum History {
    /// Nothing.
    None,
    /// Its own values.
    Own,
    /// Its own values and the server's answer.
    OwnAndReply,
}

impl Requests {
    /// Number of bodies.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The body of request `index`; empty if there is no such request.
    pub fn body(&self, index: u32) -> &[u8] {
        let (Some(map), Some(&(from, len))) = (&self.map, self.spans.get(index as usize)) else { return &[] };
        &map[from as usize..from as usize + len as usize]
    }

    /// What is known of request `index` beside its body.
    pub fn turn(&self, index: u32) -> Turn {
        self.turns.get(index as usize).copied().unwrap_or_default()
    }

    /// Number of sessions.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// First request and number of turns of session `index`; `(0, 0)` if there is no such session.
    pub fn session(&self, index: usize) -> (u32, u32) {
        self.sessions.get(index).copied().unwrap_or_default()
    }

    /// Whether every session has one turn.
    pub fn is_single_turn(&self) -> bool {
        self.turns.is_empty()
    }

    /// Renumbers the sessions: what was `order[k]` becomes `k`. `order` must be a permutation. Requests keep their
    /// numbers.
    pub fn reorder(&mut self, order: &[u32]) {
        debug_assert_eq!(order.len(), self.sessions.len());
        self.sessions = order.iter().map(|&k| self.sessions[k as usize]).collect();
    }
}

/// Collects request bodies.
#[derive(Debug)]
pub struct RequestsBuilder {
    file: BufWriter<File>,
    len: u64,
    spans: Vec<(u64, u32)>,
    sessions: Vec<(u32, u32)>,
    turns: Vec<Turn>,
}

impl RequestsBuilder {
    /// Bodies go to an unlinked file in `dir`: nothing is left behind however the run ends.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn new(dir: &Path) -> io::Result<Self> {
        let file = BufWriter::with_capacity(1 << 18, tempfile::tempfile_in(dir)?);
        Ok(Self { file, len: 0, spans: Vec::new(), sessions: Vec::new(), turns: Vec::new() })
    }

    /// Appends a session of one turn; the index of its request is the number of requests before it.
    ///
    /// # Errors
    /// The file cannot be written (a full disk).
    pub fn push(&mut self, body: &[u8]) -> io::Result<()> {
        self.begin_session();
        self.push_turn(body, Turn::default())
    }

    /// Begins a session: the turns pushed from here on are its own.
    pub fn begin_session(&mut self) {
        self.sessions.push((self.spans.len() as u32, 0));
    }

    /// Appends a turn to the session begun last.
    ///
    /// # Errors
    /// The file cannot be written (a full disk).
    pub fn push_turn(&mut self, body: &[u8], turn: Turn) -> io::Result<()> {
        self.file.write_all(body)?;
        self.spans.push((self.len, body.len() as u32));
        self.len += body.len() as u64;
        self.turns.push(turn);
        if let Some((_, turns)) = self.sessions.last_mut() {
            *turns += 1;
        }
        Ok(())
    }

    /// Maps what was collected.
    ///
    /// # Errors
    /// The file cannot be written or mapped.
    pub fn finish(mut self) -> io::Result<Requests> {
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        // SAFETY: the file has no name and this is its only handle, so nobody can change it under the map.
        let map = if self.len > 0 { Some(unsafe { Mmap::map(&file)? }) } else { None };
        if self.sessions.len() == self.spans.len() {
            self.turns = Vec::new();
        }
        Ok(Requests { map, spans: self.spans, sessions: self.sessions, turns: self.turns })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_come_back_by_index() {
        let dir = tempfile::tempdir().unwrap();
        let mut builder = RequestsBuilder::new(dir.path()).unwrap();
        for body in ["a", "", "bcd"] {
            builder.push(body.as_bytes()).unwrap();
        }
        let mut requests = builder.finish().unwrap();
        assert_eq!([0, 1, 2, 3].map(|n| requests.body(n)), [b"a".as_slice(), b"", b"bcd", b""]);
        assert!(requests.is_single_turn());
        requests.reorder(&[2, 0, 1]);
        assert_eq!([0, 1, 2].map(|n| requests.session(n)), [(2, 1), (0, 1), (1, 1)]);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn turns_stay_with_their_session() {
        let dir = tempfile::tempdir().unwrap();
        let mut builder = RequestsBuilder::new(dir.path()).unwrap();
        builder.push(b"alone").unwrap();
        builder.begin_session();
        let turn = Turn {
            splice: Splice { at: 1, end: 2, ..Splice::NONE },
            history: History::Own,
            delay: 5,
            ..Turn::default()
        };
        builder.push_turn(b"[1]", Turn { delay: 0, ..turn }).unwrap();
        builder.push_turn(b"[2]", turn).unwrap();
        let requests = builder.finish().unwrap();
        assert!(!requests.is_single_turn());
        assert_eq!([0, 1, 2].map(|n| requests.session(n)), [(0, 1), (1, 2), (0, 0)]);
        assert_eq!((requests.body(2), requests.turn(2)), (b"[2]".as_slice(), turn));
        assert_eq!(requests.turn(0), Turn::default());
    }
}
