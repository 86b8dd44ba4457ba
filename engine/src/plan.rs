//! What a run will do, complete before the first byte: immutable, shared by all threads.

use crate::clock::Nanos;
use crate::endpoint::{self, Splice};
use crate::schedule::{self, LimitCurve};
use maser_datasets::seed::child;
use memmap2::Mmap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

/// A whole run.
#[derive(Debug)]
pub struct Plan {
    /// In order; each is drained before the next begins, unless that one is seamless.
    pub phases: Vec<Phase>,
    /// Where requests go; at least one.
    pub targets: Vec<Target>,
    /// Which session goes to which target.
    pub balance: Balance,
    /// Which requests share a connection.
    pub reuse: Reuse,
    /// Which session of the arena the n-th session of the run is.
    pub sampling: Sampling,
    /// Which protocol they speak.
    pub endpoint: endpoint::Kind,
    /// Where in an answer its output stands, if not where the protocol has it.
    pub response_field: Option<Arc<endpoint::ResponseField>>,
    /// How requests that take several exchanges go on.
    pub follow_ups: endpoint::FollowUps,
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
    /// Its name in the files.
    pub name: String,
    /// Left out of the results.
    pub warmup: bool,
    /// Begins as soon as the phase before it has sent everything, while that one's last requests are in flight.
    pub seamless: bool,
    /// Begins, once the phases before it have drained, only when [`Issued::gate`](crate::credit::Issued) lets it.
    pub gated: bool,
    /// When requests are due.
    pub schedule: schedule::Spec,
    /// At most this many sessions at a time; a session counts from its first turn to the end of its last. Where every
    /// session has one turn, that is the requests in flight.
    pub concurrency: Option<LimitCurve>,
    /// At most this many requests at a time that have not had their first token.
    pub prefill: Option<LimitCurve>,
    /// What becomes of a scheduled request that finds no free slot at its time.
    pub late: LatePolicy,
    /// Ends after this many requests.
    pub requests: Option<u64>,
    /// Starts this many sessions at most.
    pub sessions: Option<u64>,
    /// Nothing is sent this long after its start.
    pub duration: Option<Nanos>,
    /// What is still in flight this long after `duration` is cut; never if `None`.
    pub grace: Option<Nanos>,
    /// The run is stopped when more than this part of the phase's requests have failed: looked at once as many have ended
    /// as the larger of its concurrency and ten.
    pub failed_threshold: Option<f64>,
    /// The run is stopped when less than this part of the phase's arrivals started on time: looked at once 200 have been
    /// started or dropped and a second has passed. Of a phase with a schedule only.
    pub least_adherence: Option<f64>,
    /// Requests cut on purpose.
    pub cancellation: Option<Cancellation>,
}

impl Default for Phase {
    /// A closed loop without any limit or end: for the caller to narrow.
    fn default() -> Self {
        Self {
            name: "profiling".to_owned(),
            warmup: false,
            seamless: false,
            gated: false,
            schedule: schedule::Spec::ClosedLoop,
            concurrency: None,
            prefill: None,
            late: LatePolicy::Queue,
            requests: None,
            sessions: None,
            duration: None,
            grace: None,
            failed_threshold: None,
            least_adherence: None,
            cancellation: None,
        }
    }
}

impl Phase {
    /// Whether what is scheduled are the starts of sessions, whose later turns go at times of their own.
    pub fn schedules_sessions(&self) -> bool {
        matches!(self.schedule, schedule::Spec::Fixed(_) | schedule::Spec::UserCentric(_))
    }

    /// From one planned turn of a session to its next, where the schedule says so.
    pub fn turn_gap(&self) -> Option<Nanos> {
        match &self.schedule {
            schedule::Spec::UserCentric(users) => Some(users.gap()),
            _ => None,
        }
    }
}

/// What becomes of a scheduled request that finds no free slot, of a session or of a prefill, at its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LatePolicy {
    /// It is not sent at all, and counted: the rate is an upper bound. What the reference does, uncounted.
    Drop,
    /// It waits for a slot, and its response time counts from when it was due.
    Queue,
    /// It is sent beyond the limit, and counted.
    Send,
}

/// Requests that are sent whole and then cut, drawn one by one from the stream `timing.request.cancellation`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cancellation {
    /// Part of the requests, from 0 to 1.
    pub rate: f64,
    /// From a request's last byte to the cut.
    pub delay: Nanos,
}

impl Cancellation {
    /// Who decides, by the request's number.
    pub fn draws(&self, seed: u64) -> CancellationDraws {
        CancellationDraws { key: child(seed, "timing.request.cancellation"), rate: self.rate, delay: self.delay }
    }
}

/// Decides which requests are cut: a function of the request's number and nothing else.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CancellationDraws {
    key: u64,
    rate: f64,
    delay: Nanos,
}

impl CancellationDraws {
    /// How long after its last byte request `seq` is cut, if it is.
    pub fn delay_of(&self, seq: u64) -> Option<Nanos> {
        let unit = (draw(self.key, seq) >> 11) as f64 / (1u64 << 53) as f64;
        (unit < self.rate).then_some(self.delay)
    }
}

/// Which session goes to which target. All of a session's turns go to one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Balance {
    /// Each in turn, by the session's number.
    RoundRobin,
    /// In proportion to these weights, one a target, interleaved as evenly as they allow.
    Weighted(Vec<u32>),
    /// To the target with the fewest requests in flight, as the executor that starts the session sees them.
    LeastInFlight,
}

/// Which requests share a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// Any that follow one another.
    Pooled,
    /// None.
    Never,
    /// The turns of one session.
    Sticky,
}

/// Which session of the arena the n-th session of the run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sampling {
    /// In order, round and round.
    Sequential,
    /// Any, each time anew; drawn from the stream `dataset.sampler.random`.
    Random,
    /// Every session once in random order, then again in another; drawn from the stream `dataset.sampler.shuffle`.
    Shuffle,
}

/// [`Sampling`] of a given number of sessions: a function of n, so that any core can ask for any n.
#[derive(Debug, Clone, Copy)]
pub struct Sampler {
    sampling: Sampling,
    key: u64,
    count: u64,
}

impl Sampler {
    /// A sampler of `count` sessions under the root seed `seed`.
    pub fn new(sampling: Sampling, seed: u64, count: usize) -> Self {
        let key = match sampling {
            Sampling::Sequential => 0,
            Sampling::Random => child(seed, "dataset.sampler.random"),
            Sampling::Shuffle => child(seed, "dataset.sampler.shuffle"),
        };
        Self { sampling, key, count: count.max(1) as u64 }
    }

    /// The index of the n-th session's template.
    pub fn template(&self, n: u64) -> usize {
        let at = match self.sampling {
            Sampling::Sequential => n % self.count,
            Sampling::Random => ((u128::from(draw(self.key, n)) * u128::from(self.count)) >> 64) as u64,
            Sampling::Shuffle => shuffled(draw(self.key, n / self.count), n % self.count, self.count),
        };
        at as usize
    }
}

/// Where a permutation of `0..count`, chosen by `key`, puts `n`: a Feistel network over the next power of four, gone
/// through until it lands below `count`.
fn shuffled(key: u64, n: u64, count: u64) -> u64 {
    let half = (64 - (count - 1).max(1).leading_zeros()).div_ceil(2);
    let mask = (1u64 << half) - 1;
    let mut at = n;
    loop {
        let (mut left, mut right) = (at >> half, at & mask);
        for round in 0..6 {
            (left, right) = (right, left ^ (draw(key ^ round, right) & mask));
        }
        at = (left << half) | right;
        if at < count {
            return at;
        }
    }
}

/// 64 uniform bits: the n-th of the stream `key` (the finaliser of SplitMix64 over a Weyl sequence).
fn draw(key: u64, n: u64) -> u64 {
    let mut x = key.wrapping_add(n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
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

/// What stands in a body where every session has a marker of its own, of the same length: `[rid:`, twelve hexadecimal
/// digits, `]`.
pub const MARKER: &str = "[rid:------------]";

/// Writes `marker` over every [`MARKER`] of a body.
pub fn put_marker(body: &mut [u8], marker: &[u8; MARKER.len()]) {
    let mut from = 0;
    while let Some(at) = memchr::memmem::find(body.get(from..).unwrap_or_default(), MARKER.as_bytes()) {
        let (start, end) = (from + at, from + at + MARKER.len());
        body[start..end].copy_from_slice(marker);
        from = end;
    }
}

/// What is kept of each response beside its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capture {
    /// Output and reasoning text, for client-side token counts.
    pub text: bool,
    /// The gap before each content response.
    pub gaps: bool,
    /// Both bodies, the response's in the pieces and at the times in which it came.
    pub raw: bool,
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
    marked: bool,
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

    /// Changes the planned times of turns, as where a trace's zero is moved or its pace changed: `new` is given the session,
    /// the planned time of its first turn, and the turn's.
    pub fn retime(&mut self, new: impl Fn(usize, Nanos, Nanos) -> Nanos) {
        for (k, &(from, n)) in self.sessions.iter().enumerate() {
            let Some(turns) = self.turns.get_mut(from as usize..(from + n) as usize) else { continue };
            let first = turns.first().and_then(|turn| turn.at).unwrap_or(0);
            turns.iter_mut().for_each(|turn| turn.at = turn.at.map(|at| new(k, first, at)));
        }
    }

    /// Whether bodies have [`MARKER`] in them.
    pub fn is_marked(&self) -> bool {
        self.marked
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
    marked: bool,
}

impl RequestsBuilder {
    /// Bodies go to an unlinked file in `dir`: nothing is left behind however the run ends.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn new(dir: &Path) -> io::Result<Self> {
        let file = BufWriter::with_capacity(1 << 18, tempfile::tempfile_in(dir)?);
        Ok(Self { file, len: 0, spans: Vec::new(), sessions: Vec::new(), turns: Vec::new(), marked: false })
    }

    /// Says that bodies have [`MARKER`] in them, to be overwritten each time one is sent.
    pub fn set_marked(&mut self) {
        self.marked = true;
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
        Ok(Requests { map, spans: self.spans, sessions: self.sessions, turns: self.turns, marked: self.marked })
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
    fn every_marker_of_a_body_is_overwritten_and_nothing_else() {
        let mut body = format!("{MARKER}a{MARKER}{MARKER}[rid:-----------][rid:").into_bytes();
        put_marker(&mut body, b"[rid:0123456789ab]");
        let marked = "[rid:0123456789ab]a[rid:0123456789ab][rid:0123456789ab][rid:-----------][rid:";
        assert_eq!(String::from_utf8(body).unwrap(), marked);
    }

    #[test]
    fn a_shuffle_has_every_session_once_a_round_and_rounds_differ() {
        for count in [1, 2, 3, 5, 16, 17, 1000] {
            let sampler = Sampler::new(Sampling::Shuffle, 5, count);
            let round = |r: usize| (0..count).map(|n| sampler.template((r * count + n) as u64)).collect::<Vec<_>>();
            let mut sorted = round(0);
            sorted.sort_unstable();
            assert_eq!(sorted, (0..count).collect::<Vec<_>>());
            assert!(count < 16 || (round(0) != round(1) && round(0) != sorted));
        }
    }

    #[test]
    fn random_sampling_is_even_and_sequential_sampling_is_a_walk() {
        let random = Sampler::new(Sampling::Random, 5, 10);
        let mut counts = [0; 10];
        (0..10_000).for_each(|n| counts[random.template(n)] += 1);
        assert!(counts.iter().all(|c| (850..1150).contains(c)), "{counts:?}");
        let walk = Sampler::new(Sampling::Sequential, 5, 3);
        assert_eq!([0, 1, 2, 3, 7].map(|n| walk.template(n)), [0, 1, 2, 0, 1]);
    }

    #[test]
    fn as_many_requests_are_cut_as_the_rate_says() {
        let draws = Cancellation { rate: 0.2, delay: 7 }.draws(3);
        let cut = (0..50_000).filter(|n| draws.delay_of(*n).is_some()).count();
        assert!((9_600..10_400).contains(&cut), "{cut}");
        let all = Cancellation { rate: 1.0, delay: 7 }.draws(3);
        assert!((0..1000).all(|n| all.delay_of(n) == Some(7)));
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
