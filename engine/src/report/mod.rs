//! From a record log to everything the files and tables show: a pure function of the log.
//!
//! Columns are computed a few at a time and reduced at once, so that memory stays a small multiple of eight bytes a
//! request; what is too long to keep (gaps between chunks, curves over time) is read several times instead. All results
//! are exact.

pub mod arrivals;
mod errors;
pub mod ledger;
mod section;
mod statistics;
mod sweep;
mod tokens;

pub use errors::{ErrorDetails, ErrorGroup};
pub use section::{Entry, ServiceLevel};
pub use tokens::{CountTokens, TokenColumns, TokenSource};

use crate::clock::{Instant, Nanos};
use crate::endpoint::Kind;
use crate::log::{Header, Log, PhaseMark};
use crate::metric::{Applies, Sample};
use crate::record::{Payload, Record, UNKNOWN};
use section::Section;

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
    /// The service levels that goodput counts against.
    pub service_levels: Vec<ServiceLevel>,
    /// Whether the console shows the HTTP table.
    pub show_http_trace: bool,
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
}

/// How to build a report.
#[derive(Default)]
pub struct Options<'a> {
    /// Counts the tokens of captured texts; without it the server's counts are used.
    pub count_tokens: Option<&'a CountTokens<'a>>,
    /// Threads for tokenizing and reducing; 0 for one.
    pub threads: usize,
}

impl std::fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("count_tokens", &self.count_tokens.is_some())
            .field("threads", &self.threads)
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
            None => (TokenColumns::from_usage(log), TokenSource::Server),
        };
        let service_levels = section::service_levels(&log.header.input_config);
        let reader = Reader { log, tokens: &tokens, source: token_source };
        let applies = applies(&log.header, token_source, &service_levels);
        let main = Section::compute(&reader, &applies, &service_levels, false, threads);
        let warmup = Section::compute(&reader, &applies, &service_levels, true, threads);
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
            metrics: main.entries,
            warmup: if warmup.valid + warmup.failed > 0 { warmup.entries } else { Vec::new() },
            errors: main.errors,
            token_source,
            curves_follow_chunks: main.curves_follow_chunks,
            service_levels,
            show_http_trace: log.header.input_config["artifacts"]["show_trace_timing"] == true,
            tokens,
            run: RunInfo {
                header: log.header.clone(),
                end: log.end.clone(),
                phases: log.phases.clone(),
                records: log.len() as u64,
            },
        }
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

    /// Whether there was no profiling request at all.
    pub fn is_empty(&self) -> bool {
        self.valid + self.failed == 0
    }

    /// Whether the results cover the whole plan.
    pub fn is_complete(&self) -> bool {
        self.incomplete_reason.is_none()
    }

    /// One record as the rows of the table see it; `at` is its place in the log.
    pub fn sample<'a>(&self, log: &Log, at: usize, record: &'a Record) -> Sample<'a> {
        let reader = Reader { log, tokens: &self.tokens, source: self.token_source };
        reader.sample(at, record)
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

/// A log names no other type than this version has: a newer one has another version in its magic.
fn endpoint(header: &Header) -> Kind {
    Kind::from_name(&header.endpoint).unwrap_or(Kind::Chat)
}

fn applies(header: &Header, source: TokenSource, levels: &[ServiceLevel]) -> Applies {
    Applies {
        streaming: header.streaming,
        tokens: endpoint(header).produces_tokens(),
        server_counts: source == TokenSource::Server,
        fixed_schedule: header.fixed_schedule,
        goodput: !levels.is_empty(),
    }
}

/// A log with the token counts beside it.
struct Reader<'a> {
    log: &'a Log,
    tokens: &'a TokenColumns,
    source: TokenSource,
}

impl<'a> Reader<'a> {
    fn sample<'r>(&self, at: usize, record: &'r Record) -> Sample<'r> {
        let request = self.log.request(record.request);
        let (output, reasoning) = self.tokens.of(at);
        let input = match self.source {
            TokenSource::Client => request.and_then(|r| r.input_tokens),
            TokenSource::Server => Some(record.usage_prompt).filter(|n| *n != UNKNOWN),
        };
        Sample { record, input, requested: request.and_then(|r| r.max_tokens), output, reasoning }
    }

    fn is_warmup(&self, phase: u8) -> bool {
        let phase = self.log.header.phases.get(usize::from(phase));
        phase.is_some_and(|p| p.warmup)
    }

    /// Every record of the warm-up or of the profiling phases.
    fn rows(&self, warmup: bool) -> impl Iterator<Item = (usize, Record, Payload<'a>)> + '_ {
        self.log
            .records()
            .enumerate()
            .filter(move |(_, (record, _))| self.is_warmup(record.phase) == warmup)
            .map(|(at, (record, payload))| (at, record, payload))
    }
}

/// The time that results cover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    from: Instant,
    to: Instant,
    /// Nanoseconds of it in which a phase was running.
    running: u64,
}

impl Window {
    /// From the marks of the phases; of a killed run, whose last phase left none, from its records.
    fn of(reader: &Reader<'_>, warmup: bool, seen: Option<(Instant, Instant)>) -> Self {
        let marks = reader.log.phases.iter().filter(|m| reader.is_warmup(m.phase) == warmup);
        let phases = reader.log.header.phases.iter();
        let planned = phases.filter(|p| p.warmup == warmup).count();
        let mut spans: Vec<_> = marks.map(|m| (m.start, m.end)).collect();
        if spans.len() < planned {
            let from = spans.iter().map(|s| s.1).max();
            let rest = seen.map(|(first, last)| (from.unwrap_or(first).max(first), last));
            spans.extend(rest.filter(|(first, last)| last > first));
        }
        let least = spans.iter().map(|s| s.0).min();
        let greatest = spans.iter().map(|s| s.1).max();
        Self {
            from: least.unwrap_or(reader.log.header.anchor.mono),
            to: greatest.unwrap_or(reader.log.header.anchor.mono),
            running: spans.iter().map(|(a, b)| b.since(*a)).sum(),
        }
    }

    fn seconds(&self) -> f64 {
        self.running as f64 * 1e-9
    }
}

fn was_cancelled(log: &Log) -> bool {
    log.end.as_ref().is_some_and(|e| e.was_cancelled) || log.phases.iter().any(|p| p.cancelled)
}

fn incomplete_reason(log: &Log) -> Option<String> {
    if let Some(damage) = &log.damage {
        return Some(format!(
            "The record log is damaged from byte {}: {} bytes after it could not be read.",
            damage.offset, damage.bytes
        ));
    }
    let Some(end) = &log.end else {
        return Some("The run was killed before it came to its end.".to_owned());
    };
    if was_cancelled(log) {
        return Some("The run was cancelled before all planned requests were done.".to_owned());
    }
    (end.lost > 0).then(|| format!("{} records were lost because the ring to the collector was full.", end.lost))
}
