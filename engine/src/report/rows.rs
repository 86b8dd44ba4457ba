//! Which records a result is computed from, and how they are read: all of a log in its order, or listed ones.

use super::sweep::{self, Flight, Flights};
use super::tokens::{self, TokenColumns, TokenSource};
use crate::clock::Instant;
use crate::log::{Lengths, Log};
use crate::metric::Sample;
use crate::record::{Outcome, Payload, Record, UNKNOWN, flag as record_flag};

/// A log with the token counts beside it.
pub(super) struct Reader<'a> {
    pub(super) log: &'a Log,
    pub(super) tokens: &'a TokenColumns,
    pub(super) source: TokenSource,
    /// Answers are streams of tokens: they have a first token and a decode time.
    pub(super) streams: bool,
    /// The server was asked to count with every event.
    pub(super) counted_by_event: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn sample<'r>(&self, at: usize, record: &'r Record, payload: &'r [u8]) -> Sample<'r> {
        let Lengths { input: of_dataset, requested, media } = self.log.lengths(record.request);
        let (input, (output, reasoning)) = match self.source {
            TokenSource::Client => {
                let carried = || self.tokens.carried(at);
                // Of a text that was cut the client has counted a part.
                let stands_in = record.has(record_flag::TEXT_CUT) && record.usage_completion != UNKNOWN;
                let output = if stands_in { tokens::of_usage(record) } else { self.tokens.of(at) };
                (of_dataset.and_then(|own| Some(own.saturating_add(carried()?))), output)
            }
            TokenSource::Server => (Some(record.usage_prompt).filter(|n| *n != UNKNOWN), tokens::of_usage(record)),
        };
        let counted_by_event = self.counted_by_event;
        Sample { record, payload, input, requested, media, output, reasoning, counted_by_event }
    }

    fn is_warmup(&self, phase: u8) -> bool {
        let phase = self.log.header.phases.get(usize::from(phase));
        phase.is_some_and(|p| p.warmup)
    }

    /// A failed request, or one without a stream of tokens, counts towards concurrency alone.
    pub(super) fn flight(&self, at: usize, record: &Record) -> Flight {
        let sample = self.sample(at, record, &[]);
        let ok = record.outcome() == Outcome::Ok && record.first_token.is_set();
        Flight {
            start: record.start.0,
            first: if ok && self.streams { record.first_token.0 } else { 0 },
            end: record.done.0.max(record.start.0),
            input: sample.input.unwrap_or(0),
            output: sample.osl().unwrap_or(0),
        }
    }

    /// The flights of a class that touch a window.
    pub(super) fn flights(&self, class: Class, window: &Window, expected: u64, along_gaps: bool) -> Flights<'a> {
        let touches =
            |record: &Record| self.holds(class, record.phase) && record.start < window.to && record.done >= window.from;
        let rows = self.log.records().enumerate().filter(|(_, (record, _))| touches(record));
        if along_gaps {
            return Flights::along_gaps(
                rows.map(|(at, (record, payload))| (self.flight(at, &record), known_gaps(&record, &payload))).collect(),
            );
        }
        let mut spans = Vec::with_capacity(expected as usize);
        self.log.each(|at, record, _| {
            if touches(record) {
                spans.push(self.flight(at, record));
            }
        });
        Flights::even(spans)
    }

    pub(super) fn holds(&self, class: Class, phase: u8) -> bool {
        match class {
            Class::Warmup => self.is_warmup(phase),
            Class::Profiling => !self.is_warmup(phase),
            Class::Phase(index) => phase == index,
        }
    }
}

/// The gaps of a request whose payload is whole.
pub(super) fn known_gaps<'p>(record: &Record, payload: &Payload<'p>) -> &'p [u8] {
    let is_part = record.flags & (record_flag::PAYLOAD_LOST | record_flag::TEXT_CUT) != 0
        && sweep::count(payload.gaps) != record.chunks.saturating_sub(1);
    if is_part { &[] } else { payload.gaps }
}

/// Which phases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// All of the warm-up.
    Warmup,
    /// All that are not warm-up.
    Profiling,
    /// The one with this index.
    Phase(u8),
}

/// A record's place in the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Its start.
    pub(super) start: Instant,
    /// Its place in the order of the log.
    pub(super) at: usize,
    /// Its place in the file.
    pub(super) place: u64,
}

/// Records that can be read several times.
pub(super) enum Rows<'a> {
    /// Of these phases, started from the one moment on and before the other.
    Scan(Class, Instant, Instant),
    /// These.
    Listed(&'a [Place]),
}

impl Rows<'_> {
    /// Calls `see` with the place in the log's order, the record and the bytes of its payload.
    pub(super) fn each(&self, reader: &Reader<'_>, mut see: impl FnMut(usize, &Record, &[u8])) {
        match self {
            Self::Scan(class, from, to) => reader.log.each(|at, record, payload| {
                if reader.holds(*class, record.phase) && record.start >= *from && record.start < *to {
                    see(at, record, payload);
                }
            }),
            Self::Listed(places) => {
                for place in *places {
                    if let Some((record, payload)) = reader.log.raw_at(place.place) {
                        see(place.at, &record, payload);
                    }
                }
            }
        }
    }
}

/// The time that results cover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) from: Instant,
    pub(super) to: Instant,
    /// Nanoseconds of it in which a phase was running.
    running: u64,
}

impl Window {
    /// All of it counts.
    pub(super) fn plain(from: Instant, to: Instant) -> Self {
        Self { from, to, running: to.since(from) }
    }

    /// From the marks of the phases; of a killed run, whose last phase left none, from its records. No wider than the
    /// given limits.
    pub(super) fn of(
        reader: &Reader<'_>,
        class: Class,
        seen: Option<(Instant, Instant)>,
        limits: (Instant, Instant),
    ) -> Self {
        let mut spans = running(reader, class, seen);
        for span in &mut spans {
            *span = (span.0.max(limits.0), span.1.min(limits.1));
        }
        spans.retain(|(from, to)| from <= to);
        let idle = reader.log.header.anchor.mono;
        Self {
            from: spans.iter().map(|s| s.0).min().unwrap_or(idle),
            to: spans.iter().map(|s| s.1).max().unwrap_or(idle),
            running: spans.iter().map(|(a, b)| b.since(*a)).sum(),
        }
    }

    pub(super) fn seconds(&self) -> f64 {
        self.running as f64 * 1e-9
    }
}

/// When phases of a class were running.
fn running(reader: &Reader<'_>, class: Class, seen: Option<(Instant, Instant)>) -> Vec<(Instant, Instant)> {
    let marks = reader.log.phases.iter().filter(|m| reader.holds(class, m.phase));
    let planned = (0..reader.log.header.phases.len()).filter(|k| reader.holds(class, *k as u8)).count();
    let mut spans: Vec<_> = marks.map(|m| (m.start, m.end)).collect();
    if spans.len() < planned {
        let from = spans.iter().map(|s| s.1).max();
        let rest = seen.map(|(first, last)| (from.unwrap_or(first).max(first), last));
        spans.extend(rest.filter(|(first, last)| last > first));
    }
    spans
}
