//! What a run will do, complete before the first byte: immutable, shared by all threads.

mod hidden;
mod marker;
mod requests;

use crate::clock::{Nanos, SECOND};
use crate::endpoint;
use crate::net::Liveness;
use crate::schedule::{self, LimitCurve};
use maser_datasets::seed::child;
use std::net::SocketAddr;
use std::sync::Arc;

pub use hidden::Hidden;
pub use marker::{MARKER, Marks, put_marker, put_warmup, take_markers};
pub use requests::{History, Requests, RequestsBuilder, Turn};

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
    /// How connections are made and kept.
    pub transport: Transport,
    /// Open the connections of a closed loop before the first request.
    pub preconnect: bool,
    /// Key of the request ids.
    pub run_key: u64,
    /// Root of all random streams.
    pub seed: u64,
}

impl Plan {
    /// The most phases that a run may have: records name theirs in a byte.
    pub const MOST_PHASES: usize = u8::MAX as usize;

    /// Whether the engine can carry the plan.
    ///
    /// # Errors
    /// A sentence, without a full stop.
    pub fn check(&self) -> Result<(), String> {
        match self.phases.len() {
            n if n > Self::MOST_PHASES => Err(format!("{n} phases: a run has at most {}", Self::MOST_PHASES)),
            _ => Ok(()),
        }
    }
}

/// How connections are made and kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transport {
    /// A request is sent again, once, where the server had closed the idle connection before it got any of it.
    pub retry_stale: bool,
    /// An attempt to connect to one address that takes longer has failed.
    pub connect_timeout: Nanos,
    /// When the kernel gives up a peer that no longer answers.
    pub liveness: Liveness,
}

impl Default for Transport {
    fn default() -> Self {
        Self { retry_stale: true, connect_timeout: 30 * SECOND, liveness: Liveness::default() }
    }
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

    /// Whether the schedule is one of ticks: what a tick sends, and whether it sends anything, is settled as it comes. Where
    /// every session has one turn (`single_turn`), that is so if an arrival may be dropped, for then the next takes its
    /// request.
    pub fn is_of_ticks(&self, single_turn: bool) -> bool {
        let is_limited = self.concurrency.is_some() || self.prefill.is_some();
        let is_paced = self.schedule != schedule::Spec::ClosedLoop && !self.schedules_sessions();
        is_paced && (!single_turn || (is_limited && self.late == LatePolicy::Drop))
    }

    /// The most requests it sends; where every session has one turn (`single_turn`), sessions are requests too.
    pub fn most_requests(&self, single_turn: bool) -> Option<u64> {
        self.requests.into_iter().chain(self.sessions.filter(|_| single_turn)).min()
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
    /// It is not sent at all, and counted: the rate is an upper bound, and a number of requests is reached by as many
    /// arrivals as it takes. What the reference does, uncounted.
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
    /// Names of others that carry it too, after all headers: routers keep a session together by them.
    pub session_headers: Vec<String>,
    /// All other headers, in order.
    pub headers: Vec<(String, String)>,
}

impl Target {
    /// The headers that carry the session's id.
    pub fn sessions(&self) -> (&str, &[String]) {
        (&self.correlation_header, &self.session_headers)
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
