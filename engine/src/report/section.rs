//! The metrics of one class of phases: all profiling phases together, or all of the warm-up.

use super::errors::{ErrorDetails, ErrorGroup, ErrorTally};
use super::statistics;
use super::sweep::{self, Flight};
use super::{Reader, Window};
use crate::clock::Instant;
use crate::metric::{Applies, METRICS, Metric, Sample, Scope, Summary, Value, flag, index};
use crate::record::{Outcome, Record, flag as record_flag};

/// One metric of a report, in its display unit.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// The row of the table.
    pub metric: &'static Metric,
    /// Its figures.
    pub summary: Summary,
}

/// A service level: a request is good only if this metric keeps to it.
#[derive(Debug, Clone, Copy)]
pub struct ServiceLevel {
    /// The metric.
    pub metric: &'static Metric,
    /// In the metric's display unit; a lower bound for metrics of which more is better.
    pub threshold: f64,
}

/// The service levels of a resolved configuration, `slos: {tag: threshold}`. Tags that are no metric of single requests
/// were refused before the run.
pub(super) fn service_levels(config: &serde_json::Value) -> Vec<ServiceLevel> {
    let Some(levels) = config["slos"].as_object() else {
        return Vec::new();
    };
    let level = |(tag, threshold): (&String, &serde_json::Value)| {
        Some(ServiceLevel {
            metric: crate::metric::find(tag).filter(|m| matches!(m.value, Value::Valid(_)))?,
            threshold: threshold.as_f64()?,
        })
    };
    levels.iter().filter_map(level).collect()
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

/// The results of one class of phases.
pub(super) struct Section {
    pub(super) entries: Vec<Entry>,
    pub(super) errors: Vec<ErrorGroup>,
    pub(super) valid: u64,
    pub(super) failed: u64,
    pub(super) window: Window,
    pub(super) starts: Option<(Instant, Instant)>,
    pub(super) curves_follow_chunks: bool,
}

/// Counts of one class, taken in a first pass.
#[derive(Default)]
struct Survey {
    valid: u64,
    failed: u64,
    span: Option<(Instant, Instant)>,
    last_start: Instant,
    errors: ErrorTally,
}

impl Survey {
    fn of(reader: &Reader<'_>, warmup: bool) -> Self {
        let mut survey = Self::default();
        for (_, record, payload) in reader.rows(warmup) {
            let (first, last) = survey.span.unwrap_or((record.start, record.done));
            survey.span = Some((first.min(record.start), last.max(record.done)));
            survey.last_start = survey.last_start.max(record.start);
            match ErrorDetails::of(&record, &payload) {
                None => survey.valid += 1,
                Some(details) => {
                    survey.failed += 1;
                    survey.errors.add(details);
                }
            }
        }
        survey
    }
}

impl Section {
    pub(super) fn compute(
        reader: &Reader<'_>,
        applies: &Applies,
        levels: &[ServiceLevel],
        warmup: bool,
        threads: usize,
    ) -> Self {
        let survey = Survey::of(reader, warmup);
        let window = Window::of(reader, warmup, survey.span);
        let mut scope = Scope {
            rows: vec![None; METRICS.len()],
            seconds: window.seconds(),
            valid: survey.valid,
            failed: survey.failed,
            lost: reader.log.end.as_ref().map_or(0, |e| e.lost),
        };
        let mut section = Self {
            entries: Vec::new(),
            errors: survey.errors.finish(),
            valid: survey.valid,
            failed: survey.failed,
            window,
            starts: survey.span.map(|(first, _)| (first, survey.last_start)),
            curves_follow_chunks: true,
        };
        if scope.valid + scope.failed == 0 {
            return section;
        }
        let pass = Pass { reader, applies, warmup };
        pass.columns(&mut scope, threads);
        pass.folds(&mut scope, levels);
        pass.gaps(&mut scope);
        section.curves_follow_chunks = pass.curves(&mut scope, &window, threads);
        pass.derived(&mut scope);
        section.entries = exported(&scope);
        section
    }
}

/// What leaves the scope: everything but what only other rows need, in display units.
fn exported(scope: &Scope) -> Vec<Entry> {
    METRICS
        .iter()
        .zip(&scope.rows)
        .filter(|(metric, _)| !metric.has(flag::INTERNAL))
        .filter_map(|(metric, row)| Some(Entry { metric, summary: row.as_ref()?.scaled(metric.factor()) }))
        .collect()
}

/// Memory for columns being filled: enough for a handful at any size, for many when runs are small.
fn columns_at_once(requests: u64) -> usize {
    const FLOOR: u64 = 16 << 20;
    const FULL_COLUMNS: u64 = 5;
    let column = 8 * requests.max(1);
    ((FLOOR + FULL_COLUMNS * column) / column).min(24) as usize
}

/// The passes over one class of phases.
struct Pass<'a> {
    reader: &'a Reader<'a>,
    applies: &'a Applies,
    warmup: bool,
}

impl Pass<'_> {
    fn rows(&self) -> impl Iterator<Item = (usize, &'static Metric)> {
        METRICS.iter().enumerate().filter(|(_, metric)| metric.applies(self.applies))
    }

    /// Rows with a value a request.
    fn columns(&self, scope: &mut Scope, threads: usize) {
        let rows: Vec<_> = self
            .rows()
            .filter(|(_, m)| matches!(m.value, Value::Valid(_) | Value::Failed(_) | Value::Every(_)))
            .collect();
        let requests = scope.valid + scope.failed;
        for batch in rows.chunks(columns_at_once(requests)) {
            let mut columns = self.fill(batch, requests);
            let failed = scope.failed;
            let results = reduce(&mut columns, failed, threads);
            for ((row, metric), result) in batch.iter().zip(results) {
                let Some((plain, adjusted)) = result else {
                    continue;
                };
                scope.rows[*row] = Some(plain);
                if failed > 0
                    && let Some(of) = self.adjusted(metric.tag)
                {
                    scope.rows[of] = Some(adjusted);
                }
            }
        }
    }

    fn adjusted(&self, tag: &str) -> Option<usize> {
        self.rows().find(|(_, m)| matches!(m.value, Value::Adjusted(of) if of == tag)).map(|(row, _)| row)
    }

    fn fill(&self, batch: &[(usize, &'static Metric)], requests: u64) -> Vec<Vec<f64>> {
        let mut columns: Vec<Vec<f64>> = batch.iter().map(|_| Vec::with_capacity(requests as usize)).collect();
        for (at, record, _) in self.reader.rows(self.warmup) {
            let sample = self.reader.sample(at, &record);
            let valid = record.outcome() == Outcome::Ok;
            for ((_, metric), column) in batch.iter().zip(&mut columns) {
                let value = match metric.value {
                    Value::Valid(f) if valid => f(&sample),
                    Value::Failed(f) if !valid => f(&sample),
                    Value::Every(f) => f(&sample),
                    _ => None,
                };
                column.extend(value);
            }
        }
        columns
    }

    /// Rows with one number folded over the requests.
    fn folds(&self, scope: &mut Scope, levels: &[ServiceLevel]) {
        let rows: Vec<_> = self.rows().collect();
        for (at, record, _) in self.reader.rows(self.warmup) {
            let sample = self.reader.sample(at, &record);
            let valid = record.outcome() == Outcome::Ok;
            for (row, metric) in &rows {
                let (value, fold): (_, fn(f64, f64) -> f64) = match metric.value {
                    Value::SumValid(f) if valid => (f(&sample), |a, b| a + b),
                    Value::SumEvery(f) => (f(&sample), |a, b| a + b),
                    Value::Least(f) if valid => (f(&sample), f64::min),
                    Value::Greatest(f) if valid => (f(&sample), f64::max),
                    Value::Good => {
                        let good = valid && levels.iter().all(|level| level.kept(&sample));
                        (Some(f64::from(u8::from(good))), |a, b| a + b)
                    }
                    _ => continue,
                };
                if let Some(value) = value {
                    let so_far = scope.rows[*row].and_then(|s| s.avg);
                    let folded = so_far.map_or(value, |x| fold(x, value));
                    scope.rows[*row] = Some(Summary::number(folded));
                }
            }
        }
    }

    fn gaps(&self, scope: &mut Scope) {
        let row = self.rows().find(|(_, m)| matches!(m.value, Value::Gaps));
        let Some((row, _)) = row else { return };
        scope.rows[row] = statistics::streamed(&|see| {
            for (_, record, payload) in self.reader.rows(self.warmup) {
                if record.outcome() == Outcome::Ok {
                    payload.gaps().for_each(&mut *see);
                }
            }
        });
    }

    /// Rows over time; says whether decode follows the real gaps.
    fn curves(&self, scope: &mut Scope, window: &Window, threads: usize) -> bool {
        let mut flights = Vec::with_capacity((scope.valid + scope.failed) as usize);
        for (at, record, payload) in self.reader.rows(self.warmup) {
            flights.push(self.flight(at, &record, payload.gaps));
        }
        let rows: Vec<_> = self
            .rows()
            .filter_map(|(row, metric)| match metric.value {
                Value::Effective(curve) => Some((row, (curve, false))),
                Value::Active(curve) => Some((row, (curve, true))),
                _ => None,
            })
            .collect();
        let wanted: Vec<_> = rows.iter().map(|(_, curve)| *curve).collect();
        let over = (window.from.0, window.to.0);
        let (summaries, follows) = sweep::curves(&mut flights, over, &wanted, threads);
        for ((row, _), summary) in rows.iter().zip(summaries) {
            scope.rows[*row] = summary;
        }
        follows
    }

    /// A failed request, or one without a stream of tokens, counts towards concurrency alone.
    fn flight<'p>(&self, at: usize, record: &Record, gaps: &'p [u8]) -> Flight<'p> {
        let sample = self.reader.sample(at, record);
        let streams = self.applies.streaming && self.applies.tokens;
        let ok = record.outcome() == Outcome::Ok && record.first_token.is_set();
        let gaps = if record.has(record_flag::PAYLOAD_LOST) { &[] } else { gaps };
        Flight {
            start: record.start.0,
            first: if ok && streams { record.first_token.0 } else { 0 },
            end: record.done.0.max(record.start.0),
            input: sample.input.unwrap_or(0),
            output: sample.osl().unwrap_or(0),
            gaps,
            pieces: sweep::count(gaps),
        }
    }

    fn derived(&self, scope: &mut Scope) {
        for (row, metric) in self.rows() {
            if let Value::Run(value) = metric.value {
                scope.rows[row] = value(scope).filter(|x| x.is_finite()).map(Summary::number);
            }
        }
        // One lost record cannot be told to belong to the warm-up.
        if self.warmup
            && let Some(row) = index("lost_record_count")
        {
            scope.rows[row] = None;
        }
    }
}

type Reduced = Option<(Summary, Summary)>;

/// Reduces columns, several at a time.
fn reduce(columns: &mut [Vec<f64>], failed: u64, threads: usize) -> Vec<Reduced> {
    let share = columns.len().div_ceil(threads.max(1)).max(1);
    std::thread::scope(|scope| {
        let parts: Vec<_> = columns
            .chunks_mut(share)
            .map(|part| {
                scope.spawn(move || -> Vec<Reduced> {
                    part.iter_mut().map(|column| statistics::column(column, failed)).collect()
                })
            })
            .collect();
        parts.into_iter().flat_map(|part| part.join().unwrap_or_else(|e| std::panic::resume_unwind(e))).collect()
    })
}
