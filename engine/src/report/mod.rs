//! From a record log to everything the files and tables show: a pure function of the log.
//!
//! Columns are computed a few at a time and reduced at once, so that memory stays a small multiple of eight bytes a
//! request; what is too long to keep (gaps between chunks, curves over time) is read several times instead. All results
//! are exact.

pub mod arrivals;
mod blocks;
mod dependence;
mod errors;
pub mod ledger;
mod odd;
mod parts;
mod ranks;
mod rows;
mod section;
mod statistics;
mod sweep;
mod tokens;
pub mod verdict;
mod verify;

pub use arrivals::Arrivals;
pub use errors::{ErrorDetails, ErrorGroup};
pub use ledger::Ledger;
pub use odd::Oddities;
pub use parts::{PhaseReport, Slice, Slices};
pub use section::{Entry, ServiceLevel};
pub use statistics::{QUANTILES, Quantile, quantiles};
pub use tokens::{CountTokens, TokenColumns, TokenSource};
pub use verdict::{Finding, Grade, Verdict};
pub use verify::{Verification, verify};

use crate::clock::{Instant, Nanos};
use crate::endpoint::Kind;
use crate::log::{Header, Log, PhaseMark};
use crate::metric::{Applies, Sample};
use crate::record::{Payload, Record};
use rows::{Class, Reader, Rows, Window};
use section::{Method, Section, Survey, Unrecorded};
use std::collections::BTreeMap;
use verdict::Evidence;

/// Everything there is to say about a run.
#[derive(Debug)]
pub struct Report {
    /// Results of the profiling phases, in the order of [`crate::metric::METRICS`].
    pub metrics: Vec<Entry>,
    /// The same of the warm-up phases; empty if there was no warm-up request.
    pub warmup: Vec<Entry>,
    /// Failures of the profiling phases.
    pub errors: Vec<ErrorGroup>,
    /// Successful requests of the profiling phases.
    pub valid: u64,
    /// Failed requests of the profiling phases.
    pub failed: u64,
    /// Of these, requests that were in flight when the run ended and were cut. Their latencies are not known, only that
    /// they are longer than these requests had run: no distribution but the error-adjusted ones has them.
    pub censored: u64,
    /// Of the failed ones, requests that were cut on purpose, as asked. With those that the end cut they stand among the
    /// failed in the files, as in the reference's, and are no failures of the server's.
    pub abandoned: u64,
    /// The part of the run that the results cover, see [`Options::window`]; `None` for all of it.
    pub window: Option<(Nanos, Nanos)>,
    /// An interrupt ended the run early.
    pub was_cancelled: bool,
    /// Why the results do not cover the whole plan; `None` if they do.
    pub incomplete_reason: Option<String>,
    /// Start of the first profiling phase, nanoseconds since 1970 (UTC).
    pub start_ns: u64,
    /// End of the last profiling phase, likewise.
    pub end_ns: u64,
    /// Seconds that rates divide by: the profiling phases' own lengths, the pauses between them left out.
    pub window_seconds: f64,
    /// Nanoseconds from the start of the first request of the profiling phases to that of the last; `None` if there was
    /// none. A rate of sending is over this: [`Report::window_seconds`] goes on until the last answer.
    pub sending: Option<Nanos>,
    /// Where token counts come from.
    pub token_source: TokenSource,
    /// Whether the decode curves follow the real gaps between chunks; with very many of them tokens are spread evenly.
    pub curves_follow_chunks: bool,
    /// Steps of speculative decoding of the successful profiling requests, by the number of draft tokens that were accepted
    /// in them; empty where servers give no such account.
    pub acceptance: BTreeMap<u64, u64>,
    /// What was unusual about the answers.
    pub odd: Oddities,
    /// The service levels that goodput counts against.
    pub service_levels: Vec<ServiceLevel>,
    /// How many of the successful requests missed each of them, in their order.
    pub missed: Vec<u64>,
    /// Whether the console shows the HTTP table.
    pub show_http_trace: bool,
    /// What became of the arrivals of each phase, warm-up included, beside the phase's index; empty of a part of a run
    /// ([`Report::window`]).
    pub ledgers: Vec<(usize, Ledger)>,
    /// The sends of each phase with a schedule as a process, beside the phase's index; empty of a part of a run.
    pub arrivals: Vec<(usize, Arrivals)>,
    /// Whether the numbers are the server's; `None` if there was no profiling request.
    pub verdict: Option<Verdict>,
    /// Output tokens of every record, in the order of the log.
    pub tokens: TokenColumns,
    /// Copied from the log: what the files repeat.
    pub run: RunInfo,
}

/// What the files repeat of the log's header and end.
#[derive(Debug, Clone, PartialEq)]
pub struct RunInfo {
    /// The header.
    pub header: Header,
    /// The end, if the run came to one.
    pub end: Option<crate::log::End>,
    /// The phases that ended.
    pub phases: Vec<PhaseMark>,
    /// Records in the log, all phases.
    pub records: u64,
    /// What damage took from the log.
    pub damage: Option<Damaged>,
    /// Blocks of the log of kinds that this version does not know.
    pub unknown_blocks: u64,
}

/// What damage of its file took from a log.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Damaged {
    /// Offset of the first damaged byte.
    pub offset: u64,
    /// Damaged parts of the file.
    pub places: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Requests whose record was in them; `None` if that cannot be told.
    pub lost_requests: Option<u64>,
}

impl Damaged {
    /// `None` of a sound log.
    pub fn of(log: &Log) -> Option<Self> {
        let first = log.damage.first()?;
        Some(Self {
            offset: first.offset,
            places: log.damage.len() as u64,
            bytes: log.damage.iter().map(|damage| damage.bytes).sum(),
            lost_requests: log.lost_to_damage(),
        })
    }

    /// What is wrong and what is missing, without a full stop.
    pub fn sentence(&self) -> String {
        let places = match self.places {
            1 => String::new(),
            2 => " and in one more place".to_owned(),
            n => format!(" and in {} more places", n - 1),
        };
        let lost = match self.lost_requests {
            Some(0) => "no request is missing".to_owned(),
            Some(1) => "1 request is missing".to_owned(),
            Some(n) => format!("{n} requests are missing"),
            None => "an unknown number of requests is missing".to_owned(),
        };
        format!("The record log is damaged at byte {}{places}: {lost}", self.offset)
    }
}

/// How to build a report.
#[derive(Clone, Default)]
pub struct Options<'a> {
    /// Counts the tokens of captured texts; without it the server's counts are used.
    pub count_tokens: Option<&'a CountTokens<'a>>,
    /// Threads for tokenizing and reducing; 0 for one.
    pub threads: usize,
    /// Service levels instead of the run's own.
    pub slos: Option<Vec<ServiceLevel>>,
    /// Only requests started in this part of the run: nanoseconds from the start of the first profiling phase, the end
    /// not included. Rates divide by the length of the part as far as a phase was running in it; curves over time see the
    /// requests that reach into it from before. There is no warm-up then.
    pub window: Option<(Nanos, Nanos)>,
    /// Percentiles of [`Entry::quantiles`], in per cent; [`QUANTILES`] if empty. Those beyond the 99th are given only
    /// where the sample supports them.
    pub percentiles: Vec<f64>,
    /// Compute and show as well what the reference keeps to itself: its internal and experimental metrics.
    pub hidden: bool,
}

impl std::fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("count_tokens", &self.count_tokens.is_some())
            .field("threads", &self.threads)
            .field("slos", &self.slos)
            .field("window", &self.window)
            .field("percentiles", &self.percentiles)
            .field("hidden", &self.hidden)
            .finish()
    }
}

impl Report {
    /// Builds the report of a log.
    pub fn build(log: &Log, options: &Options<'_>) -> Self {
        let threads = options.threads.max(1);
        let counter = options.count_tokens.filter(|_| !log.header.use_server_token_count);
        let (tokens, token_source) = match counter {
            Some(count) => (TokenColumns::by_tokenizer(log, count, threads), TokenSource::Client),
            None => (TokenColumns::default(), TokenSource::Server),
        };
        let service_levels = options.slos.clone().unwrap_or_else(|| section::service_levels(&log.header.input_config));
        let reader = reader(log, &tokens, token_source);
        let percents = if options.percentiles.is_empty() { QUANTILES.to_vec() } else { options.percentiles.clone() };
        let method = Method {
            reader: &reader,
            applies: Applies { hidden: options.hidden, ..applies(&log.header, token_source, &service_levels) },
            levels: &service_levels,
            percents: &percents,
            threads,
        };
        let limits = limits(&reader, options.window);
        let whole = options.window.is_none();
        let has_warmup = whole && log.header.phases.iter().any(|p| p.warmup);
        let sections = || {
            let main = part(&method, Class::Profiling, limits);
            (main, has_warmup.then(|| part(&method, Class::Warmup, ALWAYS).0))
        };
        let accounts = || {
            let (ledgers, arrivals) =
                if whole { (Ledger::of_log(log), Arrivals::of_log(log)) } else { Default::default() };
            (ledgers, arrivals, Evidence::of_log(log, limits))
        };
        let (((main, curves_follow_chunks), warmup), (ledgers, arrivals, evidence)) =
            both(threads > 1, sections, accounts);
        let evidence = with_figures(evidence, &main, rate_of(log, &arrivals));
        let anchor = log.header.anchor;
        Self {
            was_cancelled: was_cancelled(log),
            incomplete_reason: incomplete_reason(log),
            start_ns: anchor.wall_ns(main.window.from),
            end_ns: anchor.wall_ns(main.window.to),
            window_seconds: main.window.seconds(),
            sending: main.starts.map(|(first, last)| last.since(first)),
            valid: main.valid,
            failed: main.failed,
            censored: main.cut,
            abandoned: main.abandoned,
            window: options.window,
            metrics: main.entries,
            warmup: warmup.map_or_else(Vec::new, |w| w.entries),
            errors: main.errors,
            token_source,
            curves_follow_chunks,
            acceptance: main.acceptance,
            odd: main.odd,
            service_levels,
            missed: main.missed,
            show_http_trace: log.header.input_config["artifacts"]["show_trace_timing"] == true,
            ledgers,
            arrivals,
            verdict: Verdict::on(&evidence),
            tokens,
            run: RunInfo {
                header: log.header.clone(),
                end: log.end.clone(),
                phases: log.phases.clone(),
                records: log.len() as u64,
                damage: Damaged::of(log),
                unknown_blocks: log.unknown,
            },
        }
    }

    /// The results phase by phase, warm-up included, in the order of the plan. `log` is the one the report was built of.
    pub fn phases(&self, log: &Log, options: &Options<'_>) -> Vec<PhaseReport> {
        parts::phases(self, log, options)
    }

    /// The results in slices of a given duration, see [`Slices`]. `log` is the one the report was built of.
    pub fn slices<'a>(&'a self, log: &'a Log, duration: Nanos, options: &Options<'_>) -> Slices<'a> {
        Slices::new(self, log, duration, options)
    }

    /// What a reader of the results must know about the settings, and about requests that are not in the results, one
    /// sentence each.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = self.run.header.notes.clone();
        if self.lacks_streaming() {
            notes.push("Not streamed, so there is no time to first token and no inter token latency.".to_owned());
        }
        if self.censored > 0 {
            notes.push(format!(
                "Cut in flight at the end of the run: {}. These requests count as failed; how long they would have taken is \
                 not known, and no distribution but the error-adjusted ones has them.",
                self.censored
            ));
        }
        let findings = self.verdict.iter().flat_map(|verdict| &verdict.findings);
        for finding in findings.filter(|f| f.whose == verdict::Whose::Client && f.asks == Grade::Limit) {
            let remedy = finding.remedy.as_ref().map_or_else(String::new, |remedy| format!("; {remedy}"));
            notes.push(format!("This client was the limit: {}{remedy}.", finding.evidence));
        }
        if let Some(lost) = self.run.end.as_ref().map(|e| e.lost).filter(|n| *n > 0) {
            notes.push(format!("Records lost because the ring to the collector was full: {lost}."));
        }
        if let Some(damage) = &self.run.damage {
            notes.push(format!("{}.", damage.sentence()));
        }
        if self.run.unknown_blocks > 0 {
            notes.push(format!(
                "{} blocks of the log are of kinds that this version does not know; they were passed over.",
                self.run.unknown_blocks
            ));
        }
        if self.run.end.is_none() {
            notes.push("Requests that were in flight when the run was killed left no record.".to_owned());
        }
        notes.extend(self.odd.sentences(self.token_source));
        if !self.curves_follow_chunks {
            notes.push("With so many chunks, curves over time spread each request's tokens evenly.".to_owned());
        }
        notes
    }

    /// Whether the answers could have been streamed and were not, so that no token has a time.
    pub fn lacks_streaming(&self) -> bool {
        let kind = self.endpoint();
        !self.run.header.streaming && kind.can_stream() && kind.produces_tokens()
    }

    /// The account of phase `phase`; `None` if it did not begin, and of a part of a run.
    pub fn ledger(&self, phase: usize) -> Option<&Ledger> {
        self.ledgers.iter().find(|(n, _)| *n == phase).map(|(_, ledger)| ledger)
    }

    /// How the sends of phase `phase` were spread; `None` in a closed loop, of few sends, and of a part of a run.
    pub fn arrivals(&self, phase: usize) -> Option<&Arrivals> {
        self.arrivals.iter().find(|(n, _)| *n == phase).map(|(_, arrivals)| arrivals)
    }

    /// The profiling result called `tag`.
    pub fn metric(&self, tag: &str) -> Option<&Entry> {
        self.metrics.iter().find(|e| e.metric.tag == tag)
    }

    /// Whether there were requests and none was answered: the files are written all the same (the reference writes none),
    /// and the program's exit code says it.
    pub fn all_failed(&self) -> bool {
        self.valid == 0 && self.failed > 0
    }

    /// Profiling requests that failed and were not cut, by the end of the run or on purpose.
    pub fn failures(&self) -> u64 {
        self.failed.saturating_sub(self.censored + self.abandoned)
    }

    /// Whether there was no profiling request at all.
    pub fn is_empty(&self) -> bool {
        self.valid + self.failed == 0
    }

    /// Whether the results cover the whole plan.
    pub fn is_complete(&self) -> bool {
        self.incomplete_reason.is_none()
    }

    /// One record and its payload as the rows of the table see them; `at` is its place in the log.
    pub fn sample<'a>(&self, log: &Log, at: usize, record: &'a Record, payload: &Payload<'a>) -> Sample<'a> {
        reader(log, &self.tokens, self.token_source).sample(at, record, payload.bytes)
    }

    /// Whether a request keeps every service level; a failed one does not.
    pub fn is_good(&self, sample: &Sample<'_>) -> bool {
        section::is_good(&self.service_levels, sample)
    }

    /// Which rows of the table exist for this run.
    pub fn applies(&self) -> Applies {
        applies(&self.run.header, self.token_source, &self.service_levels)
    }

    /// The run's endpoint type.
    pub fn endpoint(&self) -> Kind {
        endpoint(&self.run.header)
    }
}

/// Planned and actual rate of the last profiling phase with a schedule.
fn rate_of(log: &Log, arrivals: &[(usize, Arrivals)]) -> Option<(f64, f64)> {
    let is_profiling = |n: usize| log.header.phases.get(n).is_some_and(|phase| !phase.warmup);
    let last = arrivals.iter().rev().find(|(n, _)| is_profiling(*n));
    last.map(|(_, a)| (a.planned_rate, a.rate)).filter(|(planned, _)| *planned > 0.0)
}

/// The evidence with what the metrics say.
fn with_figures(evidence: Evidence, section: &Section, rate: Option<(f64, f64)>) -> Evidence {
    const P50: usize = 4;
    let summary =
        |tag: &str| section.entries.iter().find(|e| e.metric.tag == tag).map(|e| (&e.summary, e.metric.factor()));
    let median = |tag: &str| summary(tag).and_then(|(s, factor)| Some(s.percentiles[P50]? / factor));
    Evidence {
        rate,
        latency: median("request_latency").map(|ns| ns as Nanos),
        in_flight: summary("effective_concurrency").and_then(|(s, _)| s.max).unwrap_or(0.0) as u64,
        seconds: section.window.seconds(),
        ..evidence
    }
}

/// Runs two pieces of work, the second on a thread of its own if there may be one.
fn both<A, B: Send>(at_once: bool, first: impl FnOnce() -> A, second: impl FnOnce() -> B + Send) -> (A, B) {
    if !at_once {
        return (first(), second());
    }
    std::thread::scope(|scope| {
        let second = scope.spawn(second);
        let first = first();
        (first, second.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// A log names no other type than this version has: a newer one has another version in its magic.
fn endpoint(header: &Header) -> Kind {
    Kind::from_name(&header.endpoint).unwrap_or(Kind::Chat)
}

fn applies(header: &Header, source: TokenSource, levels: &[ServiceLevel]) -> Applies {
    Applies {
        fixed_schedule: header.fixed_schedule,
        goodput: !levels.is_empty(),
        ..Applies::to(endpoint(header), header.streaming, source == TokenSource::Server)
    }
}

fn reader<'a>(log: &'a Log, tokens: &'a TokenColumns, source: TokenSource) -> Reader<'a> {
    let streams = log.header.streaming && endpoint(&log.header).produces_tokens();
    let counted_by_event = log.header.input_config["endpoint"]["per_chunk_usage"] == true;
    Reader { log, tokens, source, streams, counted_by_event }
}

/// No limits.
const ALWAYS: (Instant, Instant) = (Instant(0), Instant::NEVER);

/// A window's ends on the records' axis.
fn limits(reader: &Reader<'_>, window: Option<(Nanos, Nanos)>) -> (Instant, Instant) {
    let Some((from, to)) = window else {
        return ALWAYS;
    };
    let zero = zero(reader);
    (zero.after(from), zero.after(to))
}

/// The start of the first profiling phase; of a killed run that left no mark of it, its first due time.
fn zero(reader: &Reader<'_>) -> Instant {
    let marks = reader.log.phases.iter().filter(|m| reader.holds(Class::Profiling, m.phase));
    let records = || {
        let records = reader.log.records().filter(|(record, _)| reader.holds(Class::Profiling, record.phase));
        records.map(|(record, _)| record.due).min()
    };
    marks.map(|m| m.start).min().or_else(records).unwrap_or(reader.log.header.anchor.mono)
}

/// Records of a class that were lost: what its phases issued and have neither as a record nor as unused. `None` for a
/// killed run.
fn lost(reader: &Reader<'_>, class: Class, records: u64) -> Option<u64> {
    let end = reader.log.end.as_ref()?;
    if end.lost == 0 && reader.log.damage.is_empty() {
        return Some(0);
    }
    let marks = reader.log.phases.iter().filter(|m| reader.holds(class, m.phase));
    let due: u64 = marks.map(|m| m.issued.saturating_sub(m.unused)).sum();
    Some(due.saturating_sub(records))
}

/// The section of a class, and whether its curves follow the gaps between chunks.
fn part(method: &Method<'_>, class: Class, limits: (Instant, Instant)) -> (Section, bool) {
    let reader = method.reader;
    let rows = Rows::Scan(class, limits.0, limits.1);
    let survey = Survey::of(reader, &rows, !method.percents.is_empty());
    let follows = !survey.too_many_gaps();
    let window = Window::of(reader, class, survey.span, limits);
    let whole = limits == ALWAYS;
    let marks = || reader.log.phases.iter().filter(|m| reader.holds(class, m.phase));
    let unrecorded = Unrecorded {
        lost: lost(reader, class, survey.valid + survey.failed).filter(|_| whole),
        unused: whole.then(|| marks().map(|m| m.unused).sum()),
    };
    let section = method.section(&rows, survey, window, unrecorded, |survey| {
        reader.flights(class, &window, survey.valid + survey.failed, survey.follows_gaps())
    });
    (section, follows)
}

fn was_cancelled(log: &Log) -> bool {
    log.end.as_ref().is_some_and(|e| e.was_cancelled) || log.phases.iter().any(|p| p.cancelled)
}

fn incomplete_reason(log: &Log) -> Option<String> {
    if let Some(damage) = Damaged::of(log) {
        return Some(format!("{}.", damage.sentence()));
    }
    let Some(end) = &log.end else {
        return Some(match log.killed_after() {
            Some(after) => format!("The run was killed after {:.1} s, before it came to its end.", after as f64 * 1e-9),
            None => "The run was killed before its first record was written.".to_owned(),
        });
    };
    if let Some(why) = &end.broken {
        return Some(format!("The run broke off: {why}."));
    }
    if was_cancelled(log) {
        return Some("The run was cancelled before all planned requests were done.".to_owned());
    }
    if log.phases.iter().any(|p| p.too_many_failed) {
        return Some(
            "The run was stopped because more requests failed than --failed-request-threshold allows.".to_owned(),
        );
    }
    if log.phases.iter().any(|p| p.below_adherence) {
        return Some(
            "The run was stopped because fewer requests left on time than --abort-below-adherence demands.".to_owned(),
        );
    }
    (end.lost > 0).then(|| format!("{} records were lost because the ring to the collector was full.", end.lost))
}
