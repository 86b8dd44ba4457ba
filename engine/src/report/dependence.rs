//! What a sample is worth whose values depend on their neighbours, as latencies do where requests queue.
//!
//! The variance of a mean of n dependent values is that of n / V independent ones, where V is 1 plus twice the sum of all
//! autocorrelations: n / V is the effective sample size. V is estimated from sums over blocks of consecutive values, by
//! Geyer's initial monotone sequence (*Statistical Science* 7, 1992); where the correlation outlasts the lags looked at,
//! pairs of blocks are merged until it does not, and where that leaves too few of them, the sample is too short to tell.
//!
//! The percentile p is the mean of the indicator "at most p", and each has a V of its own: a queue forgets its median
//! sooner than its tail. A sample that has seen few long queues underestimates the V of its tail, so that of a percentile is
//! never taken to be less than those between it and the median.

use super::ranks;
use statrs::distribution::{ContinuousCDF, StudentsT};

/// Blocks a sample is divided into at most.
pub(super) const BLOCKS: usize = 4096;

/// Fewer blocks than this say nothing.
const FEWEST: usize = 64;

/// In a sample of fewer values a queue can pass for independence.
const SMALL: usize = 200;

/// Pairs of lags looked at before blocks are merged.
const PAIRS: usize = 8;

/// The normal distribution's 97.5th percentile: intervals hold with 95 %.
const Z: f64 = 1.959_963_985;

/// Standard errors by which V must exceed 1 to be taken for more than an accident.
const SURE: f64 = 3.0;

/// The least effective size of a dependent sample that has an interval, and the least part of it beyond the percentile.
/// With less, runs that happen to see no long queue would show intervals that are too narrow.
const LEAST: f64 = 200.0;
const LEAST_BEYOND: f64 = 15.0;

/// V, and how well it is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Dependence {
    /// V; below 1 where neighbours balance each other.
    pub(super) factor: f64,
    /// Degrees of freedom of the estimate.
    freedom: f64,
}

impl Dependence {
    /// That of independent values.
    const NONE: Self = Self { factor: 1.0, freedom: f64::INFINITY };

    /// Of consecutive blocks, from the sum of the deviations from the mean over each; `squares` is the sum of the squared
    /// deviations of all values. `None` if the sample is too short for its correlation.
    pub(super) fn of_blocks(mut sums: Vec<f64>, squares: f64) -> Option<Self> {
        while sums.len() >= FEWEST {
            let blocks = sums.len();
            let lag = |k: usize| sums.iter().zip(&sums[k..]).map(|(a, b)| a * b).sum::<f64>();
            let own = lag(0);
            if own <= 0.0 || squares <= 0.0 {
                return Some(Self::NONE);
            }
            let (mut total, mut least) = (0.0, f64::INFINITY);
            for pair in 0..PAIRS {
                let both = if pair == 0 { own } else { lag(2 * pair) } + lag(2 * pair + 1);
                if both <= 0.0 {
                    let window = if pair == 0 { 1.0 } else { (4 * pair - 1) as f64 };
                    let share = window / blocks as f64;
                    // The mean was taken from the same sample: that hides part of the correlation.
                    let factor = (2.0 * total - own) / squares / (1.0 - share);
                    return Some(Self { factor, freedom: 1.0 / share });
                }
                least = both.min(least);
                total += least;
            }
            sums = sums.chunks(2).map(|pair| pair.iter().sum()).collect();
        }
        None
    }

    /// Of values in their order.
    pub(super) fn of_values(values: &[f64]) -> Option<Self> {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let block = values.len().div_ceil(BLOCKS).max(1);
        let sums = values.chunks(block).map(|part| part.iter().map(|x| x - mean).sum()).collect();
        Self::of_blocks(sums, values.iter().map(|x| (x - mean).powi(2)).sum())
    }

    /// Itself if it differs from independence by more than an accident.
    fn or_none(self) -> Self {
        let accident = SURE * (2.0 / self.freedom).sqrt();
        if (self.factor - 1.0).abs() > accident { self } else { Self::NONE }
    }

    /// The worth of `n` values for their mean: more than `n` where neighbours balance each other, as the gaps of a regular
    /// grid do. `None` if the sample is too short to tell.
    pub(super) fn mean_of(self, n: usize) -> Option<Worth> {
        let sure = self.or_none();
        let worth = Self { factor: sure.factor.max(1.0 / n.max(1) as f64), ..sure }.worth(n);
        Some(worth).filter(|worth| n >= SMALL && (worth.size >= LEAST || sure == Self::NONE))
    }

    /// The stronger of two.
    fn or(self, other: Self) -> Self {
        Self { factor: self.factor.max(other.factor), freedom: self.freedom.min(other.freedom) }
    }

    /// What `n` values are worth.
    fn worth(self, n: usize) -> Worth {
        Worth { size: n as f64 / self.factor, freedom: self.freedom }
    }
}

/// An independent sample that says as much.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Worth {
    /// Its size: n / V.
    pub(super) size: f64,
    /// Degrees of freedom with which that is known; infinite of a sample taken as independent.
    freedom: f64,
}

impl Worth {
    /// Standard errors of 95 % confidence: Student's.
    pub(super) fn width(&self) -> f64 {
        // Beyond, the two agree to a thousandth, and the inverse loses digits.
        let student = StudentsT::new(0.0, 1.0, self.freedom).ok().filter(|_| self.freedom < 2000.0);
        student.map_or(Z, |t| t.inverse_cdf(0.975))
    }

    /// Zero-based ranks among `n` values between which the percentile `percent` lies with 95 % confidence, `None` at an
    /// end that no value bounds.
    ///
    /// Of an independent sample these are [`ranks::interval`]'s; of a dependent one those of its worth, less what is not
    /// known of that, at the same share of the sample.
    pub(super) fn interval(&self, n: u64, percent: f64) -> ranks::Ends {
        if self.freedom.is_infinite() {
            return ranks::interval(n, percent);
        }
        let share = percent / 100.0;
        let beyond = self.size * share.min(1.0 - share);
        if self.size < LEAST || beyond < LEAST_BEYOND {
            return (None, None);
        }
        // The rare long queues that make most of the variance are few: the estimate has hardly more freedom than they.
        let freedom = self.freedom.min(self.size * share * (1.0 - share) / 8.0);
        let size = (self.size * (Z / Self { freedom, ..*self }.width()).powi(2)).floor();
        let (low, high) = ranks::interval(size as u64, percent);
        let place = |rank: u64| (rank + 1) as f64 / (size + 1.0) * (n + 1) as f64;
        let low = low.map(|rank| (place(rank).floor() as u64).saturating_sub(1));
        let high = high.map(|rank| (place(rank).ceil() as u64).clamp(1, n) - 1);
        (low, high)
    }
}

/// What a sample is worth for each of some percentiles, `None` where it is too short to tell. `lens` are the lengths of its
/// blocks; `levels` has the percentiles with their values in the sample, `median` the value of the 50th.
pub(super) fn worth(values: &[f64], lens: &[u32], median: f64, levels: &[(f64, f64)]) -> Vec<Option<Worth>> {
    let mut found = vec![None; levels.len()];
    let at = |value: f64| at_most(values, lens, value);
    let base = if values.len() < SMALL { None } else { at(median) };
    let mut outwards: Vec<usize> = (0..levels.len()).collect();
    outwards.sort_by(|a, b| (levels[*a].0 - 50.0).abs().total_cmp(&(levels[*b].0 - 50.0).abs()));
    for upper in [false, true] {
        let mut so_far = base;
        for k in outwards.iter().copied().filter(|k| (levels[*k].0 > 50.0) == upper) {
            so_far =
                so_far.and_then(|inner| Some(inner.or(if levels[k].1 == median { inner } else { at(levels[k].1)? })));
            found[k] = so_far.map(|dependence| dependence.worth(values.len()));
        }
    }
    found
}

/// The dependence of the indicator "at most `value`"; `None` if the sample is too short for it.
fn at_most(values: &[f64], lens: &[u32], value: f64) -> Option<Dependence> {
    let mut rest = values;
    let mut hits = Vec::with_capacity(lens.len());
    for len in lens {
        let (block, after) = rest.split_at(*len as usize);
        hits.push(block.iter().map(|x| u32::from(*x <= value)).sum::<u32>());
        rest = after;
    }
    let n = values.len() as f64;
    let share = hits.iter().map(|h| f64::from(*h)).sum::<f64>() / n;
    let sums = hits.iter().zip(lens).map(|(h, len)| f64::from(*h) - share * f64::from(*len)).collect();
    let dependence = Dependence::of_blocks(sums, n * share * (1.0 - share))?;
    // An interval is never narrower than that of independent values.
    Some(if dependence.factor > 1.0 { dependence.or_none() } else { Dependence::NONE })
}

#[cfg(test)]
mod tests {
    use super::super::{Quantile, quantiles};
    use super::Dependence;
    use crate::schedule::Spec;

    /// Exponential values of mean 1.
    fn exponential(seed: u64) -> impl Iterator<Item = f64> {
        let mut arrivals = Spec::Poisson(1.0).arrivals(seed);
        let mut last = 0;
        std::iter::from_fn(move || {
            let at = arrivals.next_offset()?;
            Some((at - std::mem::replace(&mut last, at)) as f64 * 1e-9)
        })
    }

    /// Sojourn times of the first customers of one server (Lindley's recursion).
    fn queue(load: f64, services: impl Iterator<Item = f64>, n: usize, seed: u64) -> Vec<f64> {
        let mut wait = 0.0f64;
        let sojourn = |(service, gap): (f64, f64)| {
            let sojourn = wait + service;
            wait = (sojourn - gap / load).max(0.0);
            sojourn
        };
        services.zip(exponential(seed)).take(n).map(sojourn).collect()
    }

    fn holds(quantile: &Quantile, truth: f64) -> Option<bool> {
        quantile.interval.map(|(low, high)| (low..=high).contains(&truth))
    }

    /// Of 60 runs: how many show an interval for the percentile, how many of these hold the truth.
    fn tally(runs: &[Vec<Quantile>], percent: f64, truth: f64) -> (usize, usize) {
        let of = |run: &Vec<Quantile>| holds(run.iter().find(|q| q.percent == percent)?, truth);
        let told: Vec<bool> = runs.iter().filter_map(of).collect();
        (told.len(), told.iter().filter(|held| **held).count())
    }

    #[test]
    fn intervals_of_a_queue_hold_its_percentiles_as_often_as_they_say() {
        // Load 0.5. M/M/1: exponential with rate 0.5. M/D/1: by the distribution of the number in the system (Franx 2001).
        let run =
            |services: &mut dyn Iterator<Item = f64>, seed| quantiles(queue(0.5, services, 4000, seed), &[75.0, 90.0]);
        let markov: Vec<_> = (0..60).map(|seed| run(&mut exponential(1000 + seed), seed)).collect();
        let regular: Vec<_> = (0..60).map(|seed| run(&mut std::iter::repeat(1.0), 2000 + seed)).collect();
        let cases = [
            (&markov, 75.0, 2.0 * 4f64.ln()),
            (&markov, 90.0, 2.0 * 10f64.ln()),
            (&regular, 75.0, 1.810_930_216),
            (&regular, 90.0, 2.515_744_841),
        ];
        for (runs, percent, truth) in cases {
            let (shown, held) = tally(runs, percent, truth);
            // Taken as independent they hold p90 in 55 and 65 of 100 runs.
            assert!(shown >= 54 && held * 100 >= shown * 90, "p{percent}: {held} of {shown}");
        }
        // 1 + 2 Σ ρ of "at most p90" is about 7.1 (M/M/1) and 4.4.
        let effective = |runs: &[Vec<Quantile>]| runs.iter().filter_map(|run| run[1].effective).sum::<f64>() / 60.0;
        assert!((480.0..680.0).contains(&effective(&markov)), "{}", effective(&markov));
        assert!((750.0..1150.0).contains(&effective(&regular)), "{}", effective(&regular));
    }

    #[test]
    fn a_sample_that_is_too_short_for_its_queue_has_no_interval() {
        let runs: Vec<_> = (0..60)
            .map(|seed| quantiles(queue(0.95, exponential(3000 + seed), 2000, seed), &[50.0, 90.0, 99.9]))
            .collect();
        for (percent, truth) in [(50.0, 0.0), (90.0, 0.0)] {
            assert!(tally(&runs, percent, truth).0 <= 1, "p{percent}");
        }
        assert!(runs.iter().all(|run| run.iter().all(|q| q.percent < 99.9)), "p99.9 is not supported");
        // Not even 3,688 values support p99.9 if they depend on each other.
        let long = quantiles(queue(0.8, exponential(1), 20_000, 2), &[99.9]);
        assert_eq!(long, []);
        assert_eq!(quantiles(exponential(1).take(199).collect(), &[50.0])[0].effective, None);
    }

    #[test]
    fn independent_values_lose_nothing() {
        let sizes = |n: usize| {
            let whole = |seed: &u64| {
                let found = quantiles(exponential(*seed).take(n).collect(), &[50.0, 90.0]);
                found.iter().all(|q| q.effective == Some(n as f64))
            };
            (0..100).filter(whole).count()
        };
        for n in [200, 1000, 8000] {
            assert!(sizes(n) >= 94, "{} of 100 runs of {n} values", sizes(n));
        }
        let same = quantiles(vec![7.0; 500], &[50.0, 99.0]);
        assert_eq!((same[0].interval, same[1].effective), (Some((7.0, 7.0)), Some(500.0)));
    }

    #[test]
    fn a_mean_of_neighbours_that_balance_is_worth_more_than_its_count() {
        let jittered: Vec<f64> = exponential(5).take(5001).collect();
        let gaps: Vec<f64> = jittered.windows(2).map(|w| 10.0 + w[1] - w[0]).collect();
        let worth = Dependence::of_values(&gaps).and_then(|d| d.mean_of(gaps.len())).unwrap();
        assert!(worth.size > 20_000.0, "{worth:?}");
        // Each value ten times: a tenth of them counts.
        let tens: Vec<f64> = exponential(6).take(2000).flat_map(|x| [x; 10]).collect();
        let worth = Dependence::of_values(&tens).and_then(|d| d.mean_of(tens.len())).unwrap();
        assert!((1500.0..2700.0).contains(&worth.size), "{worth:?}");
    }
}
