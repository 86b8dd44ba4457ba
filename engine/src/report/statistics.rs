//! Statistics of one column, exactly.

use crate::metric::{PERCENTILES, Summary};

/// Statistics of a column, and the same with `failed` more values that are infinite. Reorders `values`; `None` for an
/// empty column. Percentiles interpolate linearly between closest ranks at `q·(n − 1)`; those of the second summary take
/// the nearest rank, ties to even, and are absent where that rank is infinite.
pub(super) fn column(values: &mut [f64], failed: u64) -> Option<(Summary, Summary)> {
    if values.is_empty() {
        return None;
    }
    let n = values.len();
    let sum = sum(values.iter().copied());
    let avg = sum / n as f64;
    let std = (self::sum(values.iter().map(|x| (x - avg) * (x - avg))) / n as f64).sqrt();
    let between = PERCENTILES.map(|p| position(p, n as u64));
    let nearest = PERCENTILES.map(|p| {
        let (low, share) = position(p, n as u64 + failed);
        ((low as f64 + share).round_ties_even() as usize, 0.0)
    });
    let mut ranks: Vec<usize> = between.iter().flat_map(|(k, _)| [*k, k + 1]).collect();
    ranks.extend(nearest.iter().map(|(k, _)| *k));
    ranks.extend([0, n - 1]);
    ranks.retain(|k| *k < n);
    ranks.sort_unstable();
    ranks.dedup();
    select(values, 0, &ranks);
    let plain = Summary {
        avg: Some(avg),
        min: Some(values[0]),
        max: Some(values[n - 1]),
        sum: Some(sum),
        std: Some(std),
        percentiles: between.map(|(k, share)| Some(interpolate(values[k], values[(k + 1).min(n - 1)], share))),
        count: Some(n as u64),
    };
    let adjusted = Summary {
        min: plain.min,
        percentiles: nearest.map(|(k, _)| values.get(k).copied()),
        count: Some(n as u64 + failed),
        ..Summary::default()
    };
    Some((plain, adjusted))
}

/// Where percentile `p` of `n` values lies: the rank below and the share of the way to the next.
pub(super) fn position(p: u8, n: u64) -> (usize, f64) {
    let at = f64::from(p) / 100.0 * n.saturating_sub(1) as f64;
    (at.floor() as usize, at.fract())
}

/// Between `a` and `b`, from the nearer end, so that both ends come out exactly.
pub(super) fn interpolate(a: f64, b: f64, share: f64) -> f64 {
    if share < 0.5 { a + (b - a) * share } else { b - (b - a) * (1.0 - share) }
}

/// Sum with Neumaier's correction: the order of the records does not show.
pub(super) fn sum(values: impl Iterator<Item = f64>) -> f64 {
    let (mut total, mut lost) = (0.0f64, 0.0f64);
    for x in values {
        let next = total + x;
        lost += if total.abs() >= x.abs() { (total - next) + x } else { (x - next) + total };
        total = next;
    }
    total + lost
}

/// Puts the values of these ranks (sorted, distinct) in their places, the others on their sides.
fn select(values: &mut [f64], base: usize, ranks: &[usize]) {
    if ranks.is_empty() || values.len() < 2 {
        return;
    }
    let middle = ranks.len() / 2;
    let at = ranks[middle] - base;
    let (below, _, above) = values.select_nth_unstable_by(at, f64::total_cmp);
    select(below, base, &ranks[..middle]);
    select(above, base + at + 1, &ranks[middle + 1..]);
}

/// Exact order statistics of a weighted multiset of `u64` keys in bounded memory: the multiset is shown several times,
/// each time the key of every wanted rank is known to [`DIGIT`] more bits.
#[derive(Debug)]
pub(super) struct Descent {
    shift: u32,
    targets: Vec<Target>,
    bins: Vec<(u64, Vec<u64>)>,
}

/// Bits of a key that one showing settles.
pub(super) const DIGIT: u32 = 13;

#[derive(Debug, Clone, Copy)]
struct Target {
    /// Weight that lies before the wanted place, counted inside the prefix.
    rank: u64,
    prefix: u64,
}

impl Descent {
    /// Looks for the smallest keys whose cumulative weight is greater than each of `ranks`, among keys of at most `bits`
    /// bits.
    pub(super) fn new(ranks: impl Iterator<Item = u64>, bits: u32) -> Self {
        let digits = bits.div_ceil(DIGIT).max(1);
        let mut descent = Self {
            shift: digits * DIGIT,
            targets: ranks.map(|rank| Target { rank, prefix: 0 }).collect(),
            bins: Vec::new(),
        };
        descent.open_bins();
        descent
    }

    /// Whether the multiset has to be shown (again).
    pub(super) fn unfinished(&self) -> bool {
        self.shift > 0
    }

    /// Shows one key.
    pub(super) fn add(&mut self, key: u64, weight: u64) {
        let prefix = key.checked_shr(self.shift).unwrap_or(0);
        for (wanted, bins) in &mut self.bins {
            if *wanted == prefix {
                let digit = (key >> (self.shift - DIGIT)) as usize & ((1 << DIGIT) - 1);
                bins[digit] += weight;
            }
        }
    }

    /// Ends one showing.
    pub(super) fn settle(&mut self) {
        for target in &mut self.targets {
            let Some((_, bins)) = self.bins.iter().find(|(p, _)| *p == target.prefix) else {
                continue;
            };
            let mut digit = 0;
            for (k, weight) in bins.iter().enumerate().filter(|(_, w)| **w > 0) {
                digit = k as u64;
                if *weight > target.rank {
                    break;
                }
                target.rank -= weight;
            }
            target.prefix = target.prefix << DIGIT | digit;
        }
        self.shift -= DIGIT;
        self.open_bins();
    }

    /// The keys found, one a rank; meaningful once nothing is unfinished.
    pub(super) fn keys(&self) -> impl Iterator<Item = u64> + '_ {
        self.targets.iter().map(|t| t.prefix)
    }

    fn open_bins(&mut self) {
        self.bins.clear();
        if self.shift == 0 {
            return;
        }
        for target in &self.targets {
            if !self.bins.iter().any(|(p, _)| *p == target.prefix) {
                self.bins.push((target.prefix, vec![0; 1 << DIGIT]));
            }
        }
    }
}

/// Takes one value of a column that is being shown.
pub(super) type See<'a> = dyn FnMut(u64) + 'a;

/// Statistics of a column too long to keep: `show` calls its argument with every value, and is called several times.
pub(super) fn streamed(show: &dyn Fn(&mut See<'_>)) -> Option<Summary> {
    let (mut n, mut total, mut min, mut max) = (0u64, 0u128, u64::MAX, 0u64);
    show(&mut |x| {
        n += 1;
        total += u128::from(x);
        min = min.min(x);
        max = max.max(x);
    });
    if n == 0 {
        return None;
    }
    let avg = total as f64 / n as f64;
    let between = PERCENTILES.map(|p| position(p, n));
    let ranks = between.iter().flat_map(|(k, _)| [*k as u64, (*k as u64 + 1).min(n - 1)]);
    let mut descent = Descent::new(ranks, 64 - max.leading_zeros());
    let mut squares = None;
    while descent.unfinished() {
        let mut sum = 0.0;
        show(&mut |x| {
            sum += (x as f64 - avg) * (x as f64 - avg);
            descent.add(x, 1);
        });
        descent.settle();
        squares.get_or_insert(sum);
    }
    let keys: Vec<f64> = descent.keys().map(|k| k as f64).collect();
    let mut percentiles = [None; 9];
    for (k, (pair, (_, share))) in keys.chunks_exact(2).zip(between).enumerate() {
        percentiles[k] = Some(interpolate(pair[0], pair[1], share));
    }
    Some(Summary {
        avg: Some(avg),
        min: Some(min as f64),
        max: Some(max as f64),
        sum: Some(total as f64),
        std: squares.map(|s| (s / n as f64).sqrt()),
        percentiles,
        count: Some(n),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn naive(values: &[f64], p: u8) -> f64 {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = f64::from(p) / 100.0 * (sorted.len() - 1) as f64;
        let low = at.floor() as usize;
        let high = (low + 1).min(sorted.len() - 1);
        sorted[low] + (sorted[high] - sorted[low]) * (at - low as f64)
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0)
    }

    proptest! {
        #[test]
        fn percentiles_equal_a_naive_implementation(values in prop::collection::vec(-1e9..1e9f64, 1..400)) {
            let (summary, _) = column(&mut values.clone(), 0).unwrap();
            for (k, p) in PERCENTILES.into_iter().enumerate() {
                prop_assert!(close(summary.percentiles[k].unwrap(), naive(&values, p)));
            }
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let var = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / values.len() as f64;
            prop_assert!((summary.avg.unwrap() - mean).abs() < 1e-3);
            prop_assert!((summary.std.unwrap() - var.sqrt()).abs() < 1e-3);
        }

        #[test]
        fn a_streamed_column_has_the_statistics_of_a_kept_one(
            values in prop::collection::vec(prop_oneof![0..5u64, 9_990_000..10_010_000u64, 0..1u64 << 45], 1..400)
        ) {
            let streamed = streamed(&|see| values.iter().for_each(|x| see(*x))).unwrap();
            let mut kept: Vec<f64> = values.iter().map(|x| *x as f64).collect();
            let (kept, _) = column(&mut kept, 0).unwrap();
            prop_assert_eq!(streamed.percentiles, kept.percentiles);
            prop_assert_eq!((streamed.min, streamed.max, streamed.count), (kept.min, kept.max, kept.count));
            prop_assert!(close(streamed.std.unwrap(), kept.std.unwrap()));
        }

        #[test]
        fn a_descent_finds_weighted_ranks_of_full_width(
            rows in prop::collection::vec((any::<u64>(), 1..50u64), 1..60), pick in any::<u64>()
        ) {
            let total: u64 = rows.iter().map(|r| r.1).sum();
            let rank = pick % total;
            let mut descent = Descent::new([rank].into_iter(), 64);
            while descent.unfinished() {
                rows.iter().for_each(|(key, weight)| descent.add(*key, *weight));
                descent.settle();
            }
            let mut sorted = rows.clone();
            sorted.sort_unstable();
            let mut cumulative = 0;
            let expected = sorted.iter().find(|(_, w)| { cumulative += w; cumulative > rank }).unwrap().0;
            prop_assert_eq!(descent.keys().next().unwrap(), expected);
        }
    }

    #[test]
    fn failed_requests_push_the_tail_to_infinity() {
        let mut values = [10.0, 20.0, 30.0];
        let (plain, adjusted) = column(&mut values, 1).unwrap();
        assert_eq!(plain.percentiles[4], Some(20.0));
        // Four values, position 1.5 for the median: to the even rank 2.
        assert_eq!(adjusted.percentiles[4], Some(30.0));
        assert_eq!(adjusted.percentiles[8], None);
        assert_eq!((adjusted.min, adjusted.count), (Some(10.0), Some(4)));
        assert_eq!((adjusted.avg, adjusted.max, adjusted.std), (None, None, None));
    }
}
