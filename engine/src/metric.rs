//! Every metric the files can show, one row each.
//!
//! A row says what the metric is called, in which unit it is computed and shown, where it stands, when it applies and how
//! its value comes about. Reports, exports, documentation and tests walk [`METRICS`]; a new metric is a new row. Rows stand
//! after the rows they are derived from.

use crate::clock::Instant;
use crate::endpoint::Kind as Endpoint;
use crate::log::Media;
use crate::record::{Payload, Record, UNKNOWN, flag as record_flag};
use crate::said::{Counter, Said};

/// Bits of [`Metric::flags`].
pub mod flag {
    /// Exists only for streamed answers.
    pub const STREAMING: u32 = 1;
    /// Exists only for endpoints that produce tokens.
    pub const TOKENS: u32 = 1 << 1;
    /// Computed from failed requests only; not shown on the console.
    pub const ERROR_ONLY: u32 = 1 << 2;
    /// Needed by other rows, not exported.
    pub const INTERNAL: u32 = 1 << 3;
    /// Not written into the file of single requests.
    pub const NO_RECORD: u32 = 1 << 4;
    /// Compares the client's token counts with the server's; meaningless when the server's are used for both.
    pub const USAGE_DIFF: u32 = 1 << 5;
    /// Belongs to the HTTP table of the console.
    pub const HTTP_TRACE: u32 = 1 << 6;
    /// Exists only in replays of a fixed schedule.
    pub const FIXED_SCHEDULE: u32 = 1 << 7;
    /// Exists only when service levels were given.
    pub const GOODPUT: u32 = 1 << 8;
    /// More is better: a service level is a lower bound.
    pub const LARGER_IS_BETTER: u32 = 1 << 9;
    /// The value is a whole number in its own unit.
    pub const INTEGER: u32 = 1 << 10;
    /// Not in the reference's files: maser's own.
    pub const OURS: u32 = 1 << 11;
    /// Exists only for endpoints that tokenize their input.
    pub const INPUT_TOKENS: u32 = 1 << 12;
    /// About reasoning; says nothing on when the metric exists.
    pub const REASONING: u32 = 1 << 13;
    /// Neither computed nor shown unless the hidden rows are asked for.
    pub const EXPERIMENTAL: u32 = 1 << 14;
    /// Not in runs that measure accuracy.
    pub const NOT_ON_ACCURACY: u32 = 1 << 15;
    /// Has a row beside it in which failed requests are infinite values.
    pub const FAILED_AS_INFINITE: u32 = 1 << 16;
    /// Exists only for endpoints that take audio.
    pub const AUDIO: u32 = 1 << 17;
    /// Exists only for endpoints that make videos.
    pub const VIDEO: u32 = 1 << 18;
    /// Exists only for endpoints that take images.
    pub const IMAGES: u32 = 1 << 19;
}

mod absent;
mod speculation;
mod table;

pub use absent::{ABSENT, Absent};
pub use speculation::Speculation;
pub use table::METRICS;

use flag::{
    AUDIO, ERROR_ONLY, EXPERIMENTAL, FIXED_SCHEDULE, GOODPUT, IMAGES, INPUT_TOKENS, INTEGER, STREAMING, TOKENS,
    USAGE_DIFF, VIDEO,
};

/// How a metric comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One value (or a list) a request, then statistics over them.
    Record,
    /// One number folded over the requests.
    Aggregate,
    /// One number, or a time-weighted distribution, computed from the whole run.
    Derived,
}

/// The console table a metric stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// In the files only.
    None,
    /// The main table.
    Default,
    /// Token counts as the server reports them.
    Usage,
    /// Speculative decoding as the server reports it.
    Speculation,
    /// Time-weighted curves over the whole window.
    Effective,
    /// Time-weighted curves over the time their phase was busy.
    Active,
    /// maser's account of itself.
    Client,
}

/// A step function of time over the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Curve {
    /// Requests in flight.
    Concurrency,
    /// Output tokens a second, each request's tokens spread over the gaps between its responses.
    DecodeThroughput,
    /// Input tokens a second, each request's tokens spread over its time to first token.
    PrefillThroughput,
    /// Requests between first token and end.
    DecodeConcurrency,
    /// Requests before their first token.
    PrefillConcurrency,
    /// Prefill throughput plus each request's output tokens spread evenly over its decode time.
    TotalThroughput,
    /// Decode throughput divided by decode concurrency.
    DecodeThroughputPerUser,
    /// Prefill throughput divided by prefill concurrency.
    PrefillThroughputPerUser,
    /// Input tokens of the requests in flight plus the output tokens they have received.
    TokensInFlight,
}

/// What a row of the table sees of one request.
#[derive(Debug, Clone, Copy)]
pub struct Sample<'a> {
    /// The record.
    pub record: &'a Record,
    /// The bytes of its payload; see [`Payload::parse`].
    pub payload: &'a [u8],
    /// Input tokens, from the source in use.
    pub input: Option<u32>,
    /// Requested output tokens.
    pub requested: Option<u32>,
    /// What the request carries beside text.
    pub media: Media,
    /// Tokens of visible output, from the source in use; `None` if unknown.
    pub output: Option<u32>,
    /// Tokens of reasoning, likewise.
    pub reasoning: Option<u32>,
    /// The server was asked to count with every event.
    pub counted_by_event: bool,
}

impl<'a> Sample<'a> {
    fn payload(&self) -> Payload<'a> {
        Payload::parse(self.payload)
    }

    fn speculation(&self) -> Option<Speculation> {
        if self.payload.is_empty() { None } else { Speculation::read(self.payload().speculation) }
    }

    fn said(&self, counter: Counter) -> Option<f64> {
        if self.payload.is_empty() { None } else { Said::read(self.payload().said).get(counter) }
    }

    /// Output tokens of the first response with content and of all of them, as the server counted them event by event.
    fn counted(&self) -> Option<(f64, f64)> {
        if self.payload.is_empty() {
            return None;
        }
        let mut tokens = self.payload().tokens();
        let first = tokens.next()? as f64;
        Some((first, first + tokens.map(|n| n as f64).sum::<f64>()))
    }

    fn images(&self) -> Option<f64> {
        (self.media.images > 0).then(|| f64::from(self.media.images))
    }

    /// Results that are no text.
    fn results(&self) -> Option<f64> {
        (self.record.units > 0).then(|| f64::from(self.record.units))
    }

    fn tokens_per_event(&self) -> Option<f64> {
        let all = self.counted().map_or_else(|| self.osl().map(f64::from), |(_, all)| Some(all))?;
        Some(all / self.events()?)
    }

    fn span(later: Instant, earlier: Instant) -> Option<f64> {
        (later.is_set() && earlier.is_set()).then(|| later.since(earlier) as f64)
    }

    fn latency(&self) -> Option<f64> {
        Self::span(self.record.last_token, self.record.start)
    }

    fn ttft(&self) -> Option<f64> {
        Self::span(self.record.first_token, self.record.start)
    }

    fn decode(&self) -> Option<f64> {
        Some(self.latency()? - self.ttft()?)
    }

    /// Output plus reasoning tokens.
    pub fn osl(&self) -> Option<u32> {
        match (self.output, self.reasoning) {
            (None, None) => None,
            (a, b) => Some(a.unwrap_or(0).saturating_add(b.unwrap_or(0))),
        }
    }

    /// The first response counts as one token, or as what the server says, where it was asked and makes sense.
    fn itl(&self) -> Option<f64> {
        let osl = self.osl().filter(|n| *n > 1).map(f64::from)?;
        let counted = if self.counted_by_event { self.counted() } else { None };
        let first = counted.map(|(first, _)| first).filter(|first| *first >= 1.0 && osl - first >= 1.0);
        Some(self.decode()? / (osl - first.unwrap_or(1.0)))
    }

    fn osl_diff_pct(&self) -> Option<f64> {
        let requested = f64::from(self.requested.filter(|n| *n > 0)?);
        Some(100.0 * (f64::from(self.osl()?) - requested) / requested)
    }

    fn osl_mismatch(&self) -> Option<f64> {
        let requested = f64::from(self.requested.filter(|n| *n > 0)?);
        let off = (f64::from(self.osl()?) - requested).abs();
        let allowed = (requested * OSL_MISMATCH_PCT / 100.0).min(OSL_MISMATCH_TOKENS);
        Some(f64::from(u8::from(off > allowed)))
    }

    fn prompt_diff_pct(&self) -> Option<f64> {
        diff_pct(known(self.record.usage_prompt)?, self.input?)
    }

    fn completion_diff_pct(&self) -> Option<f64> {
        diff_pct(known(self.record.completion())?, self.osl()?)
    }

    fn reasoning_diff_pct(&self) -> Option<f64> {
        diff_pct(known(self.record.usage_reasoning)?, self.reasoning?)
    }

    /// Of a request whose input and output were both counted by both.
    fn discrepancy(&self) -> Option<f64> {
        let both = self.prompt_diff_pct()?.max(self.completion_diff_pct()?);
        let worst = self.reasoning_diff_pct().map_or(both, |reasoning| both.max(reasoning));
        Some(f64::from(u8::from(worst > USAGE_DIFF_PCT)))
    }

    /// From the due time to the first response with content.
    fn first_since_due(&self) -> Option<f64> {
        Self::span(self.record.first_token, self.record.due)
    }

    /// What the client itself adds to a request: its send delay; the part of it after the start where there is no planned
    /// time, or a slot of the limit asked for was waited for.
    fn client_delay(&self) -> Option<f64> {
        let record = self.record.sent.is_set().then_some(self.record)?;
        let waited = if self.send_slip().is_some() { 0 } else { record.slip() };
        Some(record.send_delay().saturating_sub(waited) as f64)
    }

    fn events(&self) -> Option<f64> {
        (self.record.chunks > 0).then(|| f64::from(self.record.chunks))
    }

    /// Mean gap between events.
    fn delivered_itl(&self) -> Option<f64> {
        let gaps = self.events()? - 1.0;
        (gaps > 0.0).then_some(self.decode()? / gaps)
    }

    /// Over the tokens of all events but the first: where the server did not count them, as if all carried as many.
    fn amortised_itl(&self) -> Option<f64> {
        let events = self.events().filter(|n| *n > 1.0)?;
        let later = match self.counted() {
            Some((first, all)) => all - first,
            None => f64::from(self.osl()?) * (events - 1.0) / events,
        };
        (later > 0.0).then_some(self.decode()? / later)
    }

    fn sending(&self) -> Option<f64> {
        Self::span(self.record.send_end, self.record.sent)
    }

    fn waiting(&self) -> Option<f64> {
        Self::span(self.record.first_body, self.record.send_end)
    }

    fn receiving(&self) -> Option<f64> {
        Self::span(self.record.done, self.record.first_body)
    }

    fn overhead(&self) -> f64 {
        self.record.blocked as f64 + self.record.connecting as f64
    }

    fn total(&self) -> Option<f64> {
        Some(self.overhead() + self.sending()? + self.waiting()? + self.receiving()?)
    }

    fn setup(&self) -> Option<f64> {
        Self::span(self.record.first_byte, self.record.start)
    }

    fn since_due(&self) -> Option<f64> {
        Self::span(self.record.done, self.record.due)
    }

    fn slip(&self) -> Option<f64> {
        Self::span(self.record.start, self.record.due)
    }

    /// Our own lateness: the send delay of a request with a planned time that did not wait for a slot.
    fn send_slip(&self) -> Option<f64> {
        let ours = self.record.has(record_flag::SCHEDULED) && !self.record.has(record_flag::QUEUED);
        ours.then(|| self.record.send_delay() as f64)
    }

    fn flagged(&self, bits: u16) -> f64 {
        f64::from(u8::from(self.record.has(bits)))
    }
}

/// A record counts as a mismatch when it is off by more than this share of the requested length …
pub const OSL_MISMATCH_PCT: f64 = 5.0;
/// … or by more than this many tokens, whichever is less.
pub const OSL_MISMATCH_TOKENS: f64 = 50.0;
/// Server and client token counts further apart than this are a discrepancy, per cent of the client's count.
pub const USAGE_DIFF_PCT: f64 = 10.0;
/// A replay whose 99th percentile of lag passes this, milliseconds, is called degraded.
pub const REPLAY_DEGRADED_MS: f64 = 500.0;

fn known(n: u32) -> Option<u32> {
    (n != UNKNOWN).then_some(n)
}

fn tokens(n: u32) -> Option<f64> {
    known(n).map(f64::from)
}

fn diff_pct(server: u32, client: u32) -> Option<f64> {
    let client = (client > 0).then(|| f64::from(client))?;
    Some(100.0 * (f64::from(server) - client).abs() / client)
}

/// `per` divided by `nanos` as a rate a second.
fn rate(per: f64, nanos: f64) -> Option<f64> {
    (nanos > 0.0).then(|| per / (nanos * 1e-9))
}

/// The percentiles every distribution is given at.
pub const PERCENTILES: [u8; 9] = [1, 5, 10, 25, 50, 75, 90, 95, 99];

/// What is known of one metric: a distribution, or `avg` alone for a single number.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Summary {
    /// Mean, or the number itself.
    pub avg: Option<f64>,
    /// Least value.
    pub min: Option<f64>,
    /// Greatest value.
    pub max: Option<f64>,
    /// Sum of the values.
    pub sum: Option<f64>,
    /// Population standard deviation (divisor n).
    pub std: Option<f64>,
    /// At [`PERCENTILES`].
    pub percentiles: [Option<f64>; 9],
    /// Number of values.
    pub count: Option<u64>,
}

impl Summary {
    /// A single number.
    pub fn number(value: f64) -> Self {
        Self { avg: Some(value), ..Self::default() }
    }

    /// Every figure but the count multiplied by `factor`.
    pub fn scaled(mut self, factor: f64) -> Self {
        let figures = [&mut self.avg, &mut self.min, &mut self.max, &mut self.sum, &mut self.std];
        for figure in figures.into_iter().chain(&mut self.percentiles) {
            *figure = figure.map(|x| x * factor);
        }
        self
    }

    /// The same figures, all of them 0 but the count.
    pub fn at_zero(self) -> Self {
        self.scaled(0.0)
    }

    /// Whether there is any percentile.
    pub fn is_distribution(&self) -> bool {
        self.percentiles.iter().any(Option::is_some)
    }
}

/// What a derived row sees: the rows before it, in their own units, and the run's window.
#[derive(Debug)]
pub struct Scope {
    /// One slot a row of [`METRICS`].
    pub rows: Vec<Option<Summary>>,
    /// Seconds that rates divide by.
    pub seconds: f64,
    /// Successful requests.
    pub valid: u64,
    /// Failed requests.
    pub failed: u64,
    /// Of these, requests that were cut by the end of the run.
    pub cut: u64,
    /// Of these, requests that were refused because the model's context is too short for them.
    pub overflowed: u64,
    /// Records that were lost on the way to the log; `None` if they cannot be told to belong to this part of the run.
    pub lost: Option<u64>,
    /// Credits that were never started, likewise.
    pub unused: Option<u64>,
}

impl Scope {
    /// The summary of the row `tag`, if it has one.
    pub fn row(&self, tag: &str) -> Option<&Summary> {
        self.rows.get(index(tag)?)?.as_ref()
    }

    /// Sum of a column, or the one number of a row without a distribution.
    pub fn sum(&self, tag: &str) -> Option<f64> {
        let row = self.row(tag)?;
        row.sum.or(row.avg)
    }

    fn rate_of(&self, tag: &str) -> Option<f64> {
        let sum = self.sum(tag)?;
        (self.seconds > 0.0).then(|| sum / self.seconds)
    }

    fn completed(&self) -> f64 {
        (self.valid + self.failed) as f64
    }

    fn share_of_completed(&self, n: f64) -> f64 {
        if self.completed() > 0.0 { n / self.completed() } else { 0.0 }
    }

    fn lag_ms(&self, percentile: usize) -> Option<f64> {
        let offsets = self.row("replay_send_schedule_offset")?;
        Some((offsets.percentiles[percentile]? - offsets.min?) * 1e-6)
    }
}

type PerRequest = fn(&Sample<'_>) -> Option<f64>;
type PerRun = fn(&Scope) -> Option<f64>;

/// How the value of a row comes about.
#[derive(Debug, Clone, Copy)]
pub enum Value {
    /// One value for each successful request.
    Valid(PerRequest),
    /// One value for each failed request.
    Failed(PerRequest),
    /// One value for each request, whatever became of it.
    Every(PerRequest),
    /// The gaps between consecutive content responses of successful requests, nanoseconds.
    Gaps,
    /// Sum over successful requests.
    SumValid(PerRequest),
    /// Sum over all requests.
    SumEvery(PerRequest),
    /// Least over successful requests.
    Least(PerRequest),
    /// Greatest over successful requests.
    Greatest(PerRequest),
    /// Successful requests that keep every service level.
    Good,
    /// Computed from the rows before.
    Run(PerRun),
    /// The column of another row with every failed request entered as infinite.
    Adjusted(&'static str),
    /// Time-weighted over the window.
    Effective(Curve),
    /// Time-weighted over the part of the window in which the curve's phase is not empty.
    Active(Curve),
}

/// One row.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// The key in every file.
    pub tag: &'static str,
    /// The name people read.
    pub header: &'static str,
    /// Unit of the computed value.
    pub unit: &'static str,
    /// Unit in files and tables.
    pub display: &'static str,
    /// Place in its console table; rows without one come last.
    pub order: Option<u32>,
    /// Console table.
    pub group: Group,
    /// Bits of [`flag`].
    pub flags: u32,
    /// How the value comes about.
    pub value: Value,
    /// What it means, in one sentence, for the documentation.
    pub definition: &'static str,
}

impl Metric {
    /// Whether all of `bits` are set.
    pub const fn has(&self, bits: u32) -> bool {
        self.flags & bits == bits
    }

    /// The reference's name for how the value comes about.
    pub fn kind(&self) -> Kind {
        match self.value {
            Value::Valid(_) | Value::Failed(_) | Value::Every(_) | Value::Gaps => Kind::Record,
            Value::SumValid(_) | Value::SumEvery(_) | Value::Least(_) | Value::Greatest(_) | Value::Good => {
                Kind::Aggregate
            }
            Value::Run(_) | Value::Adjusted(_) | Value::Effective(_) | Value::Active(_) => Kind::Derived,
        }
    }

    /// Multiplies a value in [`Metric::unit`] into [`Metric::display`].
    pub fn factor(&self) -> f64 {
        match (self.unit, self.display) {
            ("ns", "ms") => 1e-6,
            ("ns", "sec") => 1e-9,
            ("sec", "ms") => 1e3,
            ("B", "KB") => 1.0 / 1024.0,
            _ => 1.0,
        }
    }

    /// Whether a single value is written as a whole number: it is one, and no unit is converted.
    pub fn whole(&self) -> bool {
        self.has(INTEGER) && self.unit == self.display
    }

    /// Whether the metric exists for such a run.
    pub fn applies(&self, to: &Applies) -> bool {
        self.lacks(to).is_none()
    }

    /// Why the metric does not exist for such a run; `None` if it does.
    pub fn lacks(&self, to: &Applies) -> Option<&'static str> {
        CONDITIONS.iter().find(|c| self.has(c.bit) && !(c.holds)(to)).map(|c| c.absent)
    }

    /// What keeps the metric out of a run's results beside having no value, for the documentation.
    pub fn absent_where(&self) -> Vec<&'static str> {
        let adjusted = matches!(self.value, Value::Adjusted(_)).then_some(NO_FAILURE);
        let flagged = CONDITIONS.iter().filter(|c| self.has(c.bit)).map(|c| c.absent);
        flagged.chain(adjusted).collect()
    }

    const fn new(
        tag: &'static str,
        header: &'static str,
        unit: &'static str,
        value: Value,
        definition: &'static str,
    ) -> Self {
        Self { tag, header, unit, display: unit, order: None, group: Group::None, flags: 0, value, definition }
    }

    const fn shown_in(mut self, display: &'static str) -> Self {
        self.display = display;
        self
    }

    const fn at(mut self, group: Group, order: u32) -> Self {
        self.group = group;
        self.order = Some(order);
        self
    }

    const fn last_in(mut self, group: Group) -> Self {
        self.group = group;
        self
    }

    const fn order(mut self, order: u32) -> Self {
        self.order = Some(order);
        self
    }

    const fn with(mut self, flags: u32) -> Self {
        self.flags |= flags;
        self
    }
}

/// What a run must have for the rows with a flag to exist.
struct Condition {
    bit: u32,
    holds: fn(&Applies) -> bool,
    /// What is so where it does not hold.
    absent: &'static str,
}

const NO_FAILURE: &str = "no request failed";

const CONDITIONS: [Condition; 11] = [
    Condition { bit: STREAMING, holds: |to| to.streaming, absent: "answers are not streamed" },
    Condition { bit: TOKENS, holds: |to| to.tokens, absent: "the endpoint produces no tokens" },
    Condition { bit: INPUT_TOKENS, holds: |to| to.tokenizes_input, absent: "the endpoint tokenizes no input" },
    Condition { bit: IMAGES, holds: |to| to.takes_images, absent: "the endpoint takes no images" },
    Condition { bit: AUDIO, holds: |to| to.takes_audio, absent: "the endpoint takes no audio" },
    Condition { bit: VIDEO, holds: |to| to.makes_videos, absent: "the endpoint makes no videos" },
    Condition { bit: USAGE_DIFF, holds: |to| !to.server_counts, absent: "`--use-server-token-count`" },
    Condition { bit: FIXED_SCHEDULE, holds: |to| to.fixed_schedule, absent: "no fixed schedule is replayed" },
    Condition { bit: GOODPUT, holds: |to| to.goodput, absent: "no `--goodput`" },
    // Such a row exists, and has no value then.
    Condition { bit: ERROR_ONLY, holds: |_| true, absent: NO_FAILURE },
    Condition { bit: EXPERIMENTAL, holds: |to| to.hidden, absent: "it is experimental" },
];

/// What decides which rows exist for a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applies {
    /// Answers are streamed.
    pub streaming: bool,
    /// The endpoint produces tokens.
    pub tokens: bool,
    /// The endpoint tokenizes its input.
    pub tokenizes_input: bool,
    /// The endpoint takes images.
    pub takes_images: bool,
    /// The endpoint takes audio.
    pub takes_audio: bool,
    /// The endpoint makes videos.
    pub makes_videos: bool,
    /// Token counts are the server's.
    pub server_counts: bool,
    /// A fixed schedule is replayed.
    pub fixed_schedule: bool,
    /// Service levels were given.
    pub goodput: bool,
    /// The rows are wanted that the reference keeps to itself: internal and experimental ones.
    pub hidden: bool,
}

impl Applies {
    /// To a run of such an endpoint: nothing replayed, no service levels, no hidden rows.
    pub fn to(kind: Endpoint, streaming: bool, server_counts: bool) -> Self {
        Self {
            streaming,
            tokens: kind.produces_tokens(),
            tokenizes_input: kind.tokenizes_input(),
            takes_images: kind.takes_images(),
            takes_audio: kind.takes_audio(),
            makes_videos: kind.makes_videos(),
            server_counts,
            fixed_schedule: false,
            goodput: false,
            hidden: false,
        }
    }
}

/// The row called `tag`.
pub fn find(tag: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|m| m.tag == tag)
}

/// Index of the row called `tag`.
pub fn index(tag: &str) -> Option<usize> {
    METRICS.iter().position(|m| m.tag == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_unique_and_rows_stand_after_what_they_adjust() {
        let mut seen = std::collections::HashSet::new();
        for metric in METRICS {
            assert!(seen.insert(metric.tag), "{} stands twice", metric.tag);
            assert!(metric.definition.ends_with('.'), "{}", metric.tag);
            if let Value::Adjusted(of) = metric.value {
                assert!(index(of) < index(metric.tag), "{}", metric.tag);
            }
        }
    }

    #[test]
    fn a_row_is_absent_where_one_of_its_conditions_does_not_hold() {
        let row = |tag| find(tag).unwrap();
        assert_eq!(row("request_latency").absent_where(), [""; 0]);
        assert_eq!(row("adj_request_latency").absent_where(), ["no request failed"]);
        let ttft = row("time_to_first_token");
        assert_eq!(ttft.absent_where(), ["answers are not streamed", "the endpoint produces no tokens"]);
        let to = |streaming| Applies::to(Endpoint::Chat, streaming, false);
        assert_eq!((ttft.lacks(&to(true)), ttft.lacks(&to(false))), (None, Some("answers are not streamed")));
        let embeddings = Applies::to(Endpoint::Embeddings, true, false);
        assert_eq!(ttft.lacks(&embeddings), Some("the endpoint produces no tokens"));
    }

    #[test]
    fn unit_conversions_are_the_documented_ones() {
        for metric in METRICS.iter().filter(|m| m.unit != m.display) {
            assert_ne!(metric.factor(), 1.0, "{}: {} -> {}", metric.tag, metric.unit, metric.display);
        }
    }
}
