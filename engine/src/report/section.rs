//! The metrics of one selection of records: all profiling phases together, the warm-up, one phase, a window, a slice.

use super::blocks::{self, Blocks};
use super::errors::{ErrorDetails, ErrorGroup, ErrorTally};
use super::odd::Oddities;
use super::rows::{Reader, Rows, Window};
use super::statistics::{self, Column, Quantile};
use super::sweep::{self, Flights, GAPS_MAX};
use crate::clock::Instant;
use crate::metric::{Applies, METRICS, Metric, Sample, Scope, Speculation, Summary, Value, flag};
use crate::record::{Outcome, Payload};
use std::collections::BTreeMap;

/// One metric of a report, in its display unit.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The row of the table.
    pub metric: &'static Metric,
    /// Its figures.
    pub summary: Summary,
    /// The percentiles that were asked for, each with its confidence interval; of metrics with a value a request (and of
    /// gaps between chunks) alone. Empty in slices.
    pub quantiles: Vec<Quantile>,
}

impl Entry {
    /// The quantile at so many per cent, if it was asked for and the sample supports it.
    pub fn quantile(&self, percent: f64) -> Option<&Quantile> {
        self.quantiles.iter().find(|q| q.percent == percent)
    }
}

/// A service level: a request is good only if this metric keeps to it.
#[derive(Debug, Clone, Copy)]
pub struct ServiceLevel {
    /// The metric.
    pub metric: &'static Metric,
    /// In the metric's display unit; a lower bound for metrics of which more is better.
    pub threshold: f64,
}

impl ServiceLevel {
    /// The level of the metric `tag`; `None` if that is no metric with one value for each successful request.
    pub fn new(tag: &str, threshold: f64) -> Option<Self> {
        let metric = crate::metric::find(tag).filter(|m| matches!(m.value, Value::Valid(_)))?;
        Some(Self { metric, threshold })
    }
}

/// The service levels of a resolved configuration, `slos: {tag: threshold}`. Tags that are no metric of single requests
/// were refused before the run.
pub(super) fn service_levels(config: &serde_json::Value) -> Vec<ServiceLevel> {
    let Some(levels) = config["slos"].as_object() else {
        return Vec::new();
    };
    levels.iter().filter_map(|(tag, threshold)| ServiceLevel::new(tag, threshold.as_f64()?)).collect()
}

impl ServiceLevel {
    fn kept(&self, sample: &Sample<'_>) -> bool {
        let Value::Valid(value) = self.metric.value else {
            return false;
        };
        let value = value(sample).map(|x| x * self.metric.factor());
        let larger = self.metric.has(flag::LARGER_IS_BETTER);
        value.is_some_and(|x| if larger { x >= self.threshold } else { x <= self.threshold })
    }
}

/// Whether a request keeps every level. A level on a metric that the request lacks is missed, and a failure misses all.
pub(super) fn is_good(levels: &[ServiceLevel], sample: &Sample<'_>) -> bool {
    sample.record.outcome() == Outcome::Ok && levels.iter().all(|level| level.kept(sample))
}

/// The results of one selection.
pub(super) struct Section {
    pub(super) entries: Vec<Entry>,
    pub(super) errors: Vec<ErrorGroup>,
    pub(super) valid: u64,
    pub(super) failed: u64,
    pub(super) cut: u64,
    pub(super) abandoned: u64,
    pub(super) window: Window,
    pub(super) starts: Option<(Instant, Instant)>,
    pub(super) acceptance: BTreeMap<u64, u64>,
    pub(super) odd: Oddities,
    /// Successful requests that missed each service level, in their order.
    pub(super) missed: Vec<u64>,
}

/// Counts of one selection, taken in a first pass.
#[derive(Default)]
pub(super) struct Survey {
    pub(super) valid: u64,
    pub(super) failed: u64,
    cut: u64,
    abandoned: u64,
    overflowed: u64,
    gaps: u64,
    /// Requests by the order of their starts.
    pub(super) blocks: Blocks,
    /// First start and last end.
    pub(super) span: Option<(Instant, Instant)>,
    last_start: Instant,
    errors: ErrorTally,
    /// Steps of speculative decoding by the number of draft tokens accepted in them.
    acceptance: BTreeMap<u64, u64>,
    odd: Oddities,
}

impl Survey {
    /// With `in_blocks` of requests in the order of their starts, which confidence intervals rest on, or without.
    pub(super) fn of(reader: &Reader<'_>, rows: &Rows<'_>, in_blocks: bool) -> Self {
        let mut survey = Self::default();
        let (mut starts, mut done, mut other) = (Vec::new(), 0, 0);
        rows.each(reader, |_, record, payload| {
            let ok = record.outcome() == Outcome::Ok;
            *(if ok { &mut done } else { &mut other }) += 1;
            if in_blocks {
                starts.push(blocks::start(record.start.0, ok));
            }
            let payload = Payload::parse(payload);
            let (first, last) = survey.span.unwrap_or((record.start, record.done));
            survey.span = Some((first.min(record.start), last.max(record.done)));
            survey.last_start = survey.last_start.max(record.start);
            survey.odd.add(reader, record, &payload);
            survey.cut += u64::from(record.outcome() == Outcome::Cancelled);
            survey.abandoned += u64::from(record.outcome() == Outcome::Abandoned);
            if survey.gaps <= GAPS_MAX {
                survey.gaps += u64::from(sweep::count(payload.gaps));
            }
            match ErrorDetails::of(record, &payload) {
                None => {
                    survey.valid += 1;
                    if let Some(account) = Speculation::read(payload.speculation) {
                        account
                            .steps_by_accepted()
                            .for_each(|(n, steps)| *survey.acceptance.entry(n).or_default() += steps);
                    }
                }
                Some(details) => {
                    survey.failed += 1;
                    survey.overflowed += u64::from(details.is_context_overflow());
                    survey.errors.add(details);
                }
            }
        });
        survey.blocks = if in_blocks { Blocks::of(&starts) } else { Blocks::one(done, other) };
        survey
    }

    /// Whether decode curves are to follow the gaps between chunks: there are some, and not too many.
    pub(super) fn follows_gaps(&self) -> bool {
        (1..=GAPS_MAX).contains(&self.gaps)
    }

    /// Whether tokens are spread evenly although there are gaps.
    pub(super) fn too_many_gaps(&self) -> bool {
        self.gaps > GAPS_MAX
    }
}

/// Credits that left no record; `None` where they cannot be told to belong to the selection.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Unrecorded {
    pub(super) lost: Option<u64>,
    pub(super) unused: Option<u64>,
}

/// How sections are computed.
pub(super) struct Method<'a> {
    pub(super) reader: &'a Reader<'a>,
    pub(super) applies: Applies,
    pub(super) levels: &'a [ServiceLevel],
    pub(super) percents: &'a [f64],
    pub(super) threads: usize,
}

impl Method<'_> {
    /// Computes the metrics of `rows`. `flights` is called once the columns are gone: both are large.
    pub(super) fn section<'f>(
        &self,
        rows: &Rows<'_>,
        survey: Survey,
        window: Window,
        unrecorded: Unrecorded,
        flights: impl FnOnce(&Survey) -> Flights<'f>,
    ) -> Section {
        let scope = Scope {
            rows: vec![None; METRICS.len()],
            seconds: window.seconds(),
            valid: survey.valid,
            failed: survey.failed,
            cut: survey.cut,
            overflowed: survey.overflowed,
            lost: unrecorded.lost,
            unused: unrecorded.unused,
        };
        let mut missed = vec![0; self.levels.len()];
        let mut pass = Pass {
            method: self,
            rows,
            blocks: &survey.blocks,
            scope,
            quantiles: vec![Vec::new(); METRICS.len()],
            missed: missed.clone(),
        };
        let mut entries = Vec::new();
        if survey.valid + survey.failed > 0 {
            pass.columns();
            pass.folds();
            pass.gaps();
            pass.curves(&flights(&survey), &window);
            pass.derived();
            missed = std::mem::take(&mut pass.missed);
            entries = pass.exported();
        }
        Section {
            entries,
            valid: survey.valid,
            failed: survey.failed,
            abandoned: survey.abandoned,
            cut: survey.cut,
            window,
            starts: survey.span.map(|(first, _)| (first, survey.last_start)),
            acceptance: survey.acceptance,
            odd: survey.odd,
            missed,
            errors: survey.errors.finish(),
        }
    }
}

/// Memory for columns being filled: enough for a handful at any size, for many when runs are small.
fn columns_at_once(requests: u64) -> usize {
    const FLOOR: u64 = 16 << 20;
    const FULL_COLUMNS: u64 = 8;
    let column = 8 * requests.max(1);
    ((FLOOR + FULL_COLUMNS * column) / column).min(24) as usize
}

/// The passes over one selection.
struct Pass<'a> {
    method: &'a Method<'a>,
    rows: &'a Rows<'a>,
    blocks: &'a Blocks,
    scope: Scope,
    quantiles: Vec<Vec<Quantile>>,
    missed: Vec<u64>,
}

impl Pass<'_> {
    fn metrics(&self) -> impl Iterator<Item = (usize, &'static Metric)> + use<> {
        let applies = self.method.applies;
        METRICS.iter().enumerate().filter(move |(_, metric)| metric.applies(&applies))
    }

    /// Metrics with a value a request.
    fn columns(&mut self) {
        let wanted: Vec<_> = self
            .metrics()
            .filter(|(_, m)| matches!(m.value, Value::Valid(_) | Value::Failed(_) | Value::Every(_)))
            .collect();
        let requests = self.scope.valid + self.scope.failed;
        let failed = self.scope.failed;
        let mut columns: Vec<blocks::Column> = Vec::new();
        for batch in wanted.chunks(columns_at_once(requests)) {
            self.fill(batch, &mut columns);
            for ((row, metric), result) in batch.iter().zip(self.reduce(&columns)) {
                let Some(column) = result else {
                    continue;
                };
                self.scope.rows[*row] = Some(column.plain);
                self.quantiles[*row] = column.quantiles;
                if failed > 0
                    && let Some(of) = self.adjusted(metric.tag)
                {
                    self.scope.rows[of] = Some(column.adjusted);
                }
            }
        }
    }

    fn adjusted(&self, tag: &str) -> Option<usize> {
        self.metrics().find(|(_, m)| matches!(m.value, Value::Adjusted(of) if of == tag)).map(|(row, _)| row)
    }

    /// Fills one column a metric, in the room of earlier ones.
    fn fill(&self, batch: &[(usize, &'static Metric)], columns: &mut Vec<blocks::Column>) {
        columns.resize_with(batch.len(), blocks::Column::default);
        for ((_, metric), column) in batch.iter().zip(&mut *columns) {
            let (valid, failed) = (!matches!(metric.value, Value::Failed(_)), !matches!(metric.value, Value::Valid(_)));
            *column = self.blocks.column(valid, failed, std::mem::take(column));
        }
        let reader = self.method.reader;
        self.rows.each(reader, |at, record, payload| {
            let sample = reader.sample(at, record, payload);
            let valid = record.outcome() == Outcome::Ok;
            let block = self.blocks.at(record.start.0);
            for ((_, metric), column) in batch.iter().zip(&mut *columns) {
                let value = match metric.value {
                    Value::Valid(f) if valid => f(&sample),
                    Value::Failed(f) if !valid => f(&sample),
                    Value::Every(f) => f(&sample),
                    _ => None,
                };
                if let Some(value) = value {
                    column.put(block, value);
                }
            }
        });
        columns.iter_mut().for_each(blocks::Column::close);
    }

    /// Reduces columns, one a thread at a time.
    fn reduce(&self, columns: &[blocks::Column]) -> Vec<Option<Column>> {
        let (failed, percents) = (self.scope.failed, self.method.percents);
        let total: usize = columns.iter().map(|column| column.values().len()).sum();
        let threads = if total < 100_000 { 1 } else { self.method.threads };
        in_parallel(columns, threads, |column| statistics::column(column, failed, percents))
    }

    /// Metrics with one number folded over the requests.
    fn folds(&mut self) {
        let metrics: Vec<_> = self.metrics().collect();
        let (reader, levels) = (self.method.reader, self.method.levels);
        let (scope, missed) = (&mut self.scope, &mut self.missed);
        self.rows.each(reader, |at, record, payload| {
            let sample = reader.sample(at, record, payload);
            let valid = record.outcome() == Outcome::Ok;
            for (level, missed) in levels.iter().zip(&mut *missed).filter(|_| valid) {
                *missed += u64::from(!level.kept(&sample));
            }
            for (row, metric) in &metrics {
                let (value, fold): (_, fn(f64, f64) -> f64) = match metric.value {
                    Value::SumValid(f) if valid => (f(&sample), |a, b| a + b),
                    Value::SumEvery(f) => (f(&sample), |a, b| a + b),
                    Value::Least(f) if valid => (f(&sample), f64::min),
                    Value::Greatest(f) if valid => (f(&sample), f64::max),
                    Value::Good => (Some(f64::from(u8::from(is_good(levels, &sample)))), |a, b| a + b),
                    _ => continue,
                };
                if let Some(value) = value {
                    let so_far = scope.rows[*row].and_then(|s| s.avg);
                    let folded = so_far.map_or(value, |x| fold(x, value));
                    scope.rows[*row] = Some(Summary::number(folded));
                }
            }
        });
    }

    fn gaps(&mut self) {
        let row = self.metrics().find(|(_, m)| matches!(m.value, Value::Gaps));
        let Some((row, _)) = row else { return };
        let show = |see: &mut statistics::See<'_>| {
            self.rows.each(self.method.reader, |_, record, payload| {
                if record.outcome() == Outcome::Ok {
                    Payload::parse(payload).gaps().for_each(&mut *see);
                }
            });
        };
        if let Some((summary, quantiles)) = statistics::streamed(&show, self.method.percents) {
            self.scope.rows[row] = Some(summary);
            self.quantiles[row] = quantiles;
        }
    }

    /// Metrics over time.
    fn curves(&mut self, flights: &Flights<'_>, window: &Window) {
        let rows: Vec<_> = self
            .metrics()
            .filter_map(|(row, metric)| match metric.value {
                Value::Effective(curve) => Some((row, (curve, false))),
                Value::Active(curve) => Some((row, (curve, true))),
                _ => None,
            })
            .collect();
        let wanted: Vec<_> = rows.iter().map(|(_, curve)| *curve).collect();
        let summaries = sweep::curves(flights, (window.from.0, window.to.0), &wanted, self.method.threads);
        for ((row, _), summary) in rows.iter().zip(summaries) {
            self.scope.rows[*row] = summary;
        }
    }

    fn derived(&mut self) {
        for (row, metric) in self.metrics() {
            if let Value::Run(value) = metric.value {
                self.scope.rows[row] = value(&self.scope).filter(|x| x.is_finite()).map(Summary::number);
            }
        }
    }

    /// What leaves the pass: everything but what only other rows need, in display units.
    fn exported(self) -> Vec<Entry> {
        let hidden = self.method.applies.hidden;
        let rows = METRICS.iter().zip(self.scope.rows).zip(self.quantiles);
        let entry = |((metric, row), mut quantiles): ((&'static Metric, Option<Summary>), Vec<Quantile>)| {
            let factor = metric.factor();
            for q in &mut quantiles {
                q.value *= factor;
                q.interval = q.interval.map(|(low, high)| (low * factor, high * factor));
            }
            Some(Entry { metric, summary: row?.scaled(factor), quantiles })
        };
        rows.filter(|((metric, _), _)| hidden || !metric.has(flag::INTERNAL)).filter_map(entry).collect()
    }
}

/// `work` over all items in their order, on so many threads.
fn in_parallel<T: Sync, R: Send>(items: &[T], threads: usize, work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let share = items.len().div_ceil(threads.max(1)).max(1);
    if share >= items.len() {
        return items.iter().map(work).collect();
    }
    let work = &work;
    std::thread::scope(|scope| {
        let parts: Vec<_> =
            items.chunks(share).map(|part| scope.spawn(move || part.iter().map(work).collect::<Vec<R>>())).collect();
        parts.into_iter().flat_map(|part| part.join().unwrap_or_else(|e| std::panic::resume_unwind(e))).collect()
    })
}
