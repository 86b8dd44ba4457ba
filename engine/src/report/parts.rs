//! Parts of a run beside the whole: phase by phase, and slices of equal duration.

use super::rows::{Class, Place, Reader, Rows, Window, known_gaps};
use super::section::{Method, Survey, Unrecorded};
use super::sweep::Flights;
use super::{ALWAYS, Entry, ErrorGroup, Options, QUANTILES, Report, limits, part, reader};
use crate::clock::{Instant, Nanos};
use crate::log::{Log, PhaseMark, WINDOW};
use crate::metric::Applies;

/// The results of one phase.
#[derive(Debug)]
pub struct PhaseReport {
    /// Its index in the plan.
    pub phase: u8,
    /// Its name.
    pub name: String,
    /// Whether it is a warm-up.
    pub warmup: bool,
    /// How it went; `None` if the run was killed in it.
    pub mark: Option<PhaseMark>,
    /// Its start, nanoseconds since 1970 (UTC).
    pub start_ns: u64,
    /// Its end, likewise.
    pub end_ns: u64,
    /// Successful requests.
    pub valid: u64,
    /// Failed requests.
    pub failed: u64,
    /// Of these, requests that were cut by the end of the run.
    pub censored: u64,
    /// Its failures.
    pub errors: Vec<ErrorGroup>,
    /// Its results, in the order of [`crate::metric::METRICS`]; empty if it had no request.
    pub metrics: Vec<Entry>,
}

pub(super) fn phases(report: &Report, log: &Log, options: &Options<'_>) -> Vec<PhaseReport> {
    let reader = reader(log, &report.tokens, report.token_source);
    let percents = if options.percentiles.is_empty() { QUANTILES.to_vec() } else { options.percentiles.clone() };
    let method = Method {
        reader: &reader,
        applies: Applies { hidden: options.hidden, ..report.applies() },
        levels: &report.service_levels,
        percents: &percents,
        threads: options.threads.max(1),
    };
    let anchor = log.header.anchor;
    let one = |(index, info): (usize, &crate::log::PhaseInfo)| {
        let phase = index as u8;
        let (section, _) = part(&method, Class::Phase(phase), ALWAYS);
        PhaseReport {
            phase,
            name: info.name.clone(),
            warmup: info.warmup,
            mark: log.phases.iter().find(|m| m.phase == phase).cloned(),
            start_ns: anchor.wall_ns(section.window.from),
            end_ns: anchor.wall_ns(section.window.to),
            valid: section.valid,
            failed: section.failed,
            censored: section.cut,
            errors: section.errors,
            metrics: section.entries,
        }
    };
    log.header.phases.iter().enumerate().map(one).collect()
}

/// The results of one slice.
#[derive(Debug)]
pub struct Slice {
    /// Its number on the grid, from 0; numbers of empty slices are left out.
    pub index: u64,
    /// Its start, nanoseconds since 1970 (UTC).
    pub start_ns: u64,
    /// Its end, likewise.
    pub end_ns: u64,
    /// Whether it has the full duration: the last one ends with the run.
    pub is_complete: bool,
    /// Successful requests that started in it.
    pub valid: u64,
    /// Failed requests that started in it.
    pub failed: u64,
    /// Its results, in the order of [`crate::metric::METRICS`].
    pub metrics: Vec<Entry>,
}

/// Slices of equal duration, computed one after the other.
///
/// The grid begins at the earliest start of a profiling request and ends with the last end of one. A request belongs to
/// the slice in which it started; curves over time see all requests that reach into the slice. Slices in which none started
/// are left out. Rates divide by the slice's own length: the last slice is shorter, and where the reference divides its
/// counts by the full duration, rates there do not fall off. The lag of a replay is not given.
pub struct Slices<'a> {
    reader: Reader<'a>,
    report: &'a Report,
    applies: Applies,
    threads: usize,
    duration: Nanos,
    zero: Instant,
    end: Instant,
    /// All records of the profiling phases in order of start.
    places: Vec<Place>,
    /// Where the next slice begins in them.
    next: usize,
    /// Records of earlier slices that reach beyond them.
    reaching: Vec<Place>,
    along_gaps: bool,
    /// Up to where the log was given back.
    released: u64,
}

impl std::fmt::Debug for Slices<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { duration, zero, end, next, .. } = self;
        f.debug_struct("Slices")
            .field("duration", duration)
            .field("zero", zero)
            .field("end", end)
            .field("next", next)
            .finish_non_exhaustive()
    }
}

impl<'a> Slices<'a> {
    pub(super) fn new(report: &'a Report, log: &'a Log, duration: Nanos, options: &Options<'_>) -> Self {
        let reader = reader(log, &report.tokens, report.token_source);
        let (from, to) = limits(&reader, report.window);
        let (mut places, mut reaching, mut end) = (Vec::new(), Vec::new(), Instant(0));
        for (at, (place, record, _)) in log.places().enumerate() {
            if !reader.holds(Class::Profiling, record.phase) || record.start >= to {
                continue;
            }
            let place = Place { start: record.start, at, place };
            if record.start >= from {
                places.push(place);
                end = end.max(record.done);
            } else if record.done >= from {
                reaching.push(place);
            }
        }
        places.sort_unstable_by_key(|p| (p.start, p.at));
        let applies = Applies { fixed_schedule: false, hidden: options.hidden, ..report.applies() };
        Self {
            reader,
            report,
            applies,
            threads: options.threads.max(1),
            duration: duration.max(1),
            zero: places.first().map_or(Instant(0), |p| p.start),
            end: end.min(to),
            places,
            next: 0,
            reaching,
            along_gaps: report.curves_follow_chunks,
            released: 0,
        }
    }

    /// How many slices there are from here on, those without a request left out.
    pub fn left(&self) -> u64 {
        let index = |p: &Place| p.start.since(self.zero) / self.duration;
        let places = &self.places[self.next..];
        let begins = places.windows(2).filter(|pair| index(&pair[0]) != index(&pair[1])).count() as u64;
        begins + u64::from(!places.is_empty())
    }

    /// The flights of the slice: records that reach into it, and its own. Keeps those that reach beyond it.
    fn flights(&mut self, own: &[Place], window: &Window) -> Flights<'a> {
        let log = self.reader.log;
        let (mut even, mut chunked) = (Vec::new(), Vec::new());
        let mut kept = Vec::new();
        for place in self.reaching.iter().chain(own) {
            let Some((record, payload)) = log.record_at(place.place) else {
                continue;
            };
            if record.done < window.from {
                continue;
            }
            if record.done >= window.to {
                kept.push(*place);
            }
            let flight = self.reader.flight(place.at, &record);
            if self.along_gaps {
                chunked.push((flight, known_gaps(&record, &payload)));
            } else {
                even.push(flight);
            }
        }
        self.reaching = kept;
        if self.along_gaps { Flights::along_gaps(chunked) } else { Flights::even(even) }
    }
}

impl Iterator for Slices<'_> {
    type Item = Slice;

    fn next(&mut self) -> Option<Slice> {
        let first = *self.places.get(self.next)?;
        let index = first.start.since(self.zero) / self.duration;
        let from = self.zero.after(index * self.duration);
        let full = from.after(self.duration);
        let window = Window::plain(from, full.min(self.end).max(from));
        if first.place.saturating_sub(self.released) >= WINDOW as u64 {
            self.released = first.place;
            self.reader.log.release_before(first.place);
        }
        let len = self.places[self.next..].partition_point(|p| p.start < full);
        let own = self.places[self.next..self.next + len].to_vec();
        self.next += len;
        let flights = self.flights(&own, &window);
        let rows = Rows::Listed(&own);
        let method = Method {
            reader: &self.reader,
            applies: self.applies,
            levels: &self.report.service_levels,
            percents: &[],
            threads: self.threads,
        };
        let survey = Survey::of(&self.reader, &rows, false);
        let section = method.section(&rows, survey, window, Unrecorded::default(), |_| flights);
        let anchor = self.reader.log.header.anchor;
        Some(Slice {
            index,
            start_ns: anchor.wall_ns(window.from),
            end_ns: anchor.wall_ns(window.to),
            is_complete: full <= self.end,
            valid: section.valid,
            failed: section.failed,
            metrics: section.entries,
        })
    }
}
