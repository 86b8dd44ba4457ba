//! What a dataset is like before it is run: how many requests of what lengths, when, in what sessions, and how much of
//! their prompts they share.
//!
//! Prompts of a trace are not made for it: lengths and block ids are read as they stand, filters and synthesis applied.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use crate::file::{Format, Options};
use crate::formats::draft::Prompt;
use crate::tokens::Tokenizer;
use crate::tokens::body_text;
use crate::{Error, Turn};

/// Columns of a plot.
const BINS: usize = 60;

/// Windows, in seconds, over which counts are compared.
const WINDOWS: [f64; 3] = [1.0, 10.0, 60.0];

/// A dataset in figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stats {
    /// Name of the format.
    pub format: &'static str,
    /// Requests: turns of all sessions.
    pub requests: u64,
    /// Sessions.
    pub sessions: u64,
    /// Rows left out, by reason.
    pub rows_skipped: BTreeMap<Cow<'static, str>, u64>,
    /// Rows changed, by reason.
    pub rows_adjusted: BTreeMap<Cow<'static, str>, u64>,
    /// When requests are due; none without timestamps.
    pub arrivals: Option<Arrivals>,
    /// Tokens of the prompts.
    pub input_tokens: Option<Distribution>,
    /// Tokens asked for.
    pub output_tokens: Option<Distribution>,
    /// Blocks that requests name; none where none does.
    pub blocks: Option<Blocks>,
    /// Turns of a session.
    pub turns: Option<Distribution>,
    /// Delays between turns in milliseconds.
    pub delays_ms: Option<Distribution>,
}

/// When requests are due.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Arrivals {
    /// Requests with a timestamp.
    pub requests: u64,
    /// Seconds from the first to the last.
    pub span_s: f64,
    /// Requests per second over the span.
    pub rate: f64,
    /// Standard deviation of the gaps over their mean: 1 for Poisson arrivals, 0 for a beat.
    pub gap_cv: f64,
    /// Variance over mean of the counts in windows of some length: 1 for Poisson arrivals.
    pub fano: Vec<Fano>,
    /// The largest time that all gaps are whole multiples of, seconds.
    pub quantum_s: f64,
    /// Different timestamps.
    pub distinct: u64,
    /// Most requests at one timestamp.
    pub most_at_once: u64,
    /// Whether the file has them in order.
    pub sorted: bool,
    /// Requests in sixty equal parts of the span.
    pub over_time: Vec<u64>,
}

/// Variance over mean of counts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Fano {
    /// Length of a window, seconds.
    pub window_s: f64,
    /// The factor.
    pub factor: f64,
}

/// Values in figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Distribution {
    /// How many.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation (of the whole, not of a sample).
    pub std_dev: f64,
    /// The least.
    pub min: f64,
    /// Quartiles and tails, between values where they fall there.
    pub p25: f64,
    /// Half are below.
    pub median: f64,
    /// Three quarters are below.
    pub p75: f64,
    /// 90 % are below.
    pub p90: f64,
    /// 99 % are below.
    pub p99: f64,
    /// The most.
    pub max: f64,
    /// Values in up to sixty equal parts from the least to the most.
    pub histogram: Vec<u64>,
}

/// Blocks that requests name.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Blocks {
    /// Tokens of a block.
    pub size: u32,
    /// How often any is named.
    pub references: u64,
    /// Different ones.
    pub unique: u64,
    /// Share of references that are not the first to their block.
    pub reuse: f64,
    /// Share of references that an unlimited prefix cache answers, requests coming in the file's order: the block and all
    /// before it in its request have been named before.
    pub prefix_hits: f64,
}

impl Distribution {
    /// The figures of `values`; none of nothing.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_unstable_by(f64::total_cmp);
        let (first, last) = (*values.first()?, *values.last()?);
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let variance = values.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
        let at = |share: f64| {
            let place = share * (n - 1.0);
            let (low, high) = (place.floor() as usize, place.ceil() as usize);
            let (a, b) = (values.get(low).copied().unwrap_or(last), values.get(high).copied().unwrap_or(last));
            a + (b - a) * place.fract()
        };
        Some(Self {
            count: values.len() as u64,
            mean,
            std_dev: variance.sqrt(),
            min: first,
            p25: at(0.25),
            median: at(0.5),
            p75: at(0.75),
            p90: at(0.9),
            p99: at(0.99),
            max: last,
            histogram: if first == last { vec![values.len() as u64] } else { bins(&values, first, last) },
        })
    }
}

/// Counts in equal parts of the range.
fn bins(values: &[f64], first: f64, last: f64) -> Vec<u64> {
    // Whole numbers of a small range have a part each.
    let whole = values.iter().all(|x| x.fract() == 0.0) && last - first < BINS as f64;
    let parts = if whole { (last - first) as usize + 1 } else { BINS };
    let width = if whole { 1.0 } else { (last - first) / parts as f64 };
    let mut bins = vec![0; parts];
    for value in values {
        let at = ((value - first) / width) as usize;
        if let Some(bin) = bins.get_mut(at.min(parts - 1)) {
            *bin += 1;
        }
    }
    bins
}

impl Stats {
    /// Reads a dataset. Given texts are counted with `tokenizer` where the file does not say their length.
    ///
    /// # Errors
    /// A sentence naming flag, or file, line and field.
    pub fn of(options: &Options, tokenizer: Option<&Tokenizer>) -> Result<Self, Error> {
        let format = options.known_format()?;
        options.check(format)?;
        let mut sums = Sums::default();
        let summary = options.sessions(format, &mut |draft| {
            sums.turns.push(draft.steps.len() as f64);
            for (k, step) in draft.steps.iter().enumerate() {
                sums.see(k, &step.turn, &step.prompt, tokenizer);
            }
            Ok(())
        })?;
        if sums.turns.is_empty() {
            return Err(Error(format!("--input-file {}: no rows are left to look at", options.path.display())));
        }
        Ok(sums.into_stats(format, options.block_size(format), summary.rows_skipped, summary.rows_adjusted))
    }
}

#[derive(Debug, Default)]
struct Sums {
    times: Vec<u64>,
    inputs: Vec<f64>,
    outputs: Vec<f64>,
    turns: Vec<f64>,
    delays: Vec<f64>,
    seen: HashMap<i128, ()>,
    references: u64,
    hits: u64,
}

impl Sums {
    fn see(&mut self, k: usize, turn: &Turn, prompt: &Prompt, tokenizer: Option<&Tokenizer>) {
        self.times.extend(turn.timestamp_ns);
        self.outputs.extend(turn.max_tokens.map(f64::from));
        if k > 0 {
            self.delays.extend(turn.delay_ns.map(|ns| ns as f64 / 1e6));
        }
        match prompt {
            Prompt::Synthetic { length, hash_ids } => {
                self.inputs.push(f64::from(*length));
                self.see_blocks(hash_ids);
            }
            Prompt::Given | Prompt::Counted | Prompt::Answered(_) => {
                let counted = || tokenizer.map(|tokenizer| body_text::input_tokens(turn, tokenizer));
                self.inputs.extend(turn.input_tokens.or_else(counted).map(f64::from));
                if let (Prompt::Answered(answer), Some(tokenizer)) = (prompt, tokenizer) {
                    self.outputs.push(tokenizer.count(answer) as f64);
                }
            }
        }
    }

    fn see_blocks(&mut self, ids: &[i128]) {
        let mut cached = true;
        for id in ids {
            let known = self.seen.insert(*id, ()).is_some();
            cached &= known;
            self.references += 1;
            self.hits += u64::from(cached);
        }
    }

    fn into_stats(
        self,
        format: Format,
        block_size: u32,
        rows_skipped: BTreeMap<Cow<'static, str>, u64>,
        rows_adjusted: BTreeMap<Cow<'static, str>, u64>,
    ) -> Stats {
        let unique = self.seen.len() as u64;
        let share = |n: u64| n as f64 / self.references as f64;
        let blocks = (self.references > 0).then(|| Blocks {
            size: block_size,
            references: self.references,
            unique,
            reuse: share(self.references - unique),
            prefix_hits: share(self.hits),
        });
        Stats {
            format: format.name(),
            requests: self.turns.iter().sum::<f64>() as u64,
            sessions: self.turns.len() as u64,
            rows_skipped,
            rows_adjusted,
            arrivals: arrivals(self.times),
            input_tokens: Distribution::of(self.inputs),
            output_tokens: Distribution::of(self.outputs),
            blocks,
            turns: Distribution::of(self.turns),
            delays_ms: Distribution::of(self.delays),
        }
    }
}

fn arrivals(mut times: Vec<u64>) -> Option<Arrivals> {
    let sorted = times.is_sorted();
    times.sort_unstable();
    let (first, last) = (*times.first()?, *times.last()?);
    let span = (last - first) as f64 / 1e9;
    let gaps: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let spread = Distribution::of(gaps.iter().map(|gap| *gap as f64).collect());
    let at_once = times.chunk_by(|a, b| a == b).map(<[u64]>::len);
    Some(Arrivals {
        requests: times.len() as u64,
        span_s: span,
        rate: if span > 0.0 { gaps.len() as f64 / span } else { 0.0 },
        gap_cv: spread.filter(|gaps| gaps.mean > 0.0).map_or(0.0, |gaps| gaps.std_dev / gaps.mean),
        fano: WINDOWS.iter().filter_map(|window_s| fano(&times, *window_s)).collect(),
        quantum_s: gaps.iter().copied().fold(0, gcd) as f64 / 1e9,
        distinct: at_once.clone().count() as u64,
        most_at_once: at_once.max().unwrap_or(0) as u64,
        sorted,
        over_time: if first == last {
            vec![times.len() as u64]
        } else {
            bins(&times.iter().map(|at| *at as f64).collect::<Vec<_>>(), first as f64, last as f64)
        },
    })
}

/// Over the whole windows of the span; none where there are fewer than ten.
fn fano(times: &[u64], window_s: f64) -> Option<Fano> {
    let (first, last) = (*times.first()?, *times.last()?);
    let window = (window_s * 1e9) as u64;
    let whole = (last - first) / window;
    if whole < 10 {
        return None;
    }
    // Windows without a request are many in a sparse trace; they are counted, not listed.
    let (mut sum, mut squares) = (0.0, 0.0);
    for run in times.chunk_by(|a, b| (a - first) / window == (b - first) / window) {
        if run.first().is_some_and(|at| (at - first) / window < whole) {
            sum += run.len() as f64;
            squares += (run.len() * run.len()) as f64;
        }
    }
    let mean = sum / whole as f64;
    Some(Fano { window_s, factor: (squares / whole as f64 - mean * mean) / mean })
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions_have_the_figures_of_their_values() {
        let d = Distribution::of(vec![4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!((d.count, d.mean, d.min, d.p25, d.median, d.p75, d.max), (4, 2.5, 1.0, 1.75, 2.5, 3.25, 4.0));
        assert!((d.std_dev - 1.25f64.sqrt()).abs() < 1e-12);
        assert_eq!(d.histogram, [1; 4]);
        assert_eq!(Distribution::of(vec![0.5, 1.0]).unwrap().histogram.len(), BINS);
        assert_eq!(Distribution::of(vec![7.0; 3]).unwrap().histogram, [3]);
        assert_eq!(Distribution::of(vec![]), None);
    }

    #[test]
    fn arrivals_of_a_beat_are_even() {
        let a = arrivals((0..=100).map(|k| k * 500_000_000).collect()).unwrap();
        assert_eq!((a.span_s, a.rate, a.gap_cv, a.quantum_s), (50.0, 2.0, 0.0, 0.5));
        assert_eq!((a.distinct, a.most_at_once, a.sorted), (101, 1, true));
        assert_eq!(a.fano, [Fano { window_s: 1.0, factor: 0.0 }]);
        let tied = arrivals(vec![3_000, 0, 0, 7_500]).unwrap();
        assert_eq!((tied.distinct, tied.most_at_once, tied.sorted, tied.quantum_s), (3, 2, false, 1.5e-6));
        assert_eq!(arrivals(vec![5]).unwrap().rate, 0.0);
    }

    #[test]
    fn prefix_hits_end_at_the_first_new_block() {
        let mut sums = Sums::default();
        sums.see_blocks(&[1, 2, 3]);
        sums.see_blocks(&[1, 9, 3]);
        assert_eq!((sums.references, sums.seen.len(), sums.hits), (6, 4, 1));
    }
}
