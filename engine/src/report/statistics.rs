//! Statistics of one column, exactly.

use super::blocks;
use super::dependence;
use super::ranks::{Ends, Ranked, interval};
use crate::metric::{PERCENTILES, Summary};

/// A percentile with what the sample says about its certainty.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quantile {
    /// Which, in per cent: 99.9 for p99.9.
    pub percent: f64,
    /// Its value, interpolated linearly between the closest ranks at `percent / 100 · (n − 1)`.
    pub value: f64,
    /// Two values of the sample between which the true percentile lies with 95 % confidence, by order statistics of
    /// as many values as the sample is worth. `None` where that is too few, and for gaps between chunks.
    pub interval: Option<(f64, f64)>,
    /// How many independent values would say as much about this percentile: fewer than there are where neighbours in
    /// the order of their starts are alike, as behind a queue. `None` where the sample is too short for its
    /// correlation, and for gaps between chunks.
    pub effective: Option<f64>,
}

/// What [`Quantile`]s are given at unless others are asked for.
pub const QUANTILES: [f64; 11] = [1.0, 5.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99];

/// Percentiles beyond this one are given only where the sample supports them: where it is worth enough for an upper
/// bound at 95 % confidence (3,688 independent values for p99.9, 36,887 for p99.99).
const SUPPORT_NEEDED_BEYOND: f64 = 99.0;

fn supported(percent: f64, high: Option<u64>) -> bool {
    percent <= SUPPORT_NEEDED_BEYOND || percent >= 100.0 || high.is_some()
}

/// Percentiles of values in the order in which their requests started, with 95 % confidence intervals.
pub fn quantiles(values: Vec<f64>, percents: &[f64]) -> Vec<Quantile> {
    column(&blocks::Column::in_order(values), 0, percents).map_or_else(Vec::new, |column| column.quantiles)
}

/// What is known of one column.
#[derive(Debug)]
pub(super) struct Column {
    /// Its statistics; percentiles interpolate linearly between closest ranks at `q·(n − 1)`.
    pub(super) plain: Summary,
    /// The same with failed requests as infinite values: nearest rank, ties to even; absent where that is infinite.
    pub(super) adjusted: Summary,
    /// The wanted percentiles with their intervals.
    pub(super) quantiles: Vec<Quantile>,
}

/// Statistics of a column; `failed` more values are infinite in the adjusted ones. `None` for an empty column.
pub(super) fn column(column: &blocks::Column, failed: u64, percents: &[f64]) -> Option<Column> {
    let values = column.values();
    if values.is_empty() {
        return None;
    }
    let n = values.len();
    let sum = sum(values.iter().copied());
    let avg = sum / n as f64;
    let std = (self::sum(values.iter().map(|x| (x - avg) * (x - avg))) / n as f64).sqrt();
    let between = PERCENTILES.map(|p| position(f64::from(p), n as u64));
    let nearest = PERCENTILES.map(|p| {
        let (low, share) = position(f64::from(p), n as u64 + failed);
        (low as f64 + share).round_ties_even() as usize
    });
    let mut ranks = vec![0, n - 1];
    let positions = between.iter().copied().chain(percents.iter().map(|p| position(*p, n as u64)));
    ranks.extend(positions.flat_map(|(k, _)| [k, k + 1]));
    ranks.extend(nearest);
    // Those of independent values, as most are: then the column is not searched a second time.
    ranks.extend(percents.iter().flat_map(|p| ends(interval(n as u64, *p))));
    let ranked = Ranked::find(values, ranks);
    let value = |(k, share): (usize, f64)| {
        let low = ranked.at(k)?;
        Some(interpolate(low, ranked.at(k + 1).unwrap_or(low), share))
    };
    let quantiles = certain(column, &ranked, value(position(50.0, n as u64))?, &levels(percents, value, n));
    let plain = Summary {
        avg: Some(avg),
        min: ranked.at(0),
        max: ranked.at(n - 1),
        sum: Some(sum),
        std: Some(std),
        percentiles: between.map(value),
        count: Some(n as u64),
    };
    let adjusted = Summary {
        min: plain.min,
        percentiles: nearest.map(|k| ranked.at(k)),
        count: Some(n as u64 + failed),
        ..Summary::default()
    };
    Some(Column { plain, adjusted, quantiles })
}

/// The wanted percentiles with their values.
fn levels(percents: &[f64], value: impl Fn((usize, f64)) -> Option<f64>, n: usize) -> Vec<(f64, f64)> {
    percents.iter().filter_map(|p| Some((*p, value(position(*p, n as u64))?))).collect()
}

/// The ranks of an interval.
fn ends((low, high): Ends) -> impl Iterator<Item = usize> {
    [low, high].into_iter().flatten().map(|rank| rank as usize)
}

/// Percentiles with their intervals, as far as the sample supports them. `ranked` has the ranks of independent values.
fn certain(column: &blocks::Column, ranked: &Ranked, median: f64, levels: &[(f64, f64)]) -> Vec<Quantile> {
    if levels.is_empty() {
        return Vec::new();
    }
    let (values, n) = (column.values(), column.values().len() as u64);
    let worths = dependence::worth(values, column.lens(), median, levels);
    let bounds = worths.iter().zip(levels);
    let bounds: Vec<Ends> =
        bounds.map(|(worth, level)| worth.map_or((None, None), |worth| worth.interval(n, level.0))).collect();
    let missing: Vec<usize> = bounds.iter().flat_map(|b| ends(*b)).filter(|k| ranked.at(*k).is_none()).collect();
    let further = Ranked::find(if missing.is_empty() { &[] } else { values }, missing);
    let at = |rank: u64| ranked.at(rank as usize).or_else(|| further.at(rank as usize));
    let quantile = |k: usize| {
        let ((percent, value), (low, high)) = (levels[k], bounds[k]);
        let interval = low.and_then(at).zip(high.and_then(at));
        let effective = worths[k].map(|worth| worth.size);
        supported(percent, high).then_some(Quantile { percent, value, interval, effective })
    };
    (0..levels.len()).filter_map(quantile).collect()
}

/// Where a percentile of `n` values lies: the rank below and the share of the way to the next.
pub(super) fn position(percent: f64, n: u64) -> (usize, f64) {
    let at = (percent / 100.0).clamp(0.0, 1.0) * n.saturating_sub(1) as f64;
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

/// Exact order statistics of a weighted multiset of `u64` keys in bounded memory: the multiset is shown several times,
/// each time the key of every wanted rank is known to one more digit.
#[derive(Debug)]
pub(super) struct Descent {
    /// Bits of the digits that are still to be found, the next one first.
    digits: &'static [u32],
    shift: u32,
    targets: Vec<Target>,
    bins: Vec<(u64, Vec<u64>)>,
}

#[derive(Debug, Clone, Copy)]
struct Target {
    /// Weight that lies before the wanted place, counted inside the prefix.
    rank: u64,
    prefix: u64,
}

impl Descent {
    /// Over keys that fit the digits (of so many bits each) together.
    pub(super) fn new(digits: &'static [u32]) -> Self {
        let mut descent = Self { digits, shift: digits.iter().sum(), targets: Vec::new(), bins: Vec::new() };
        descent.open_bins();
        descent
    }

    /// Says for which ranks the smallest keys are wanted whose cumulative weight is greater. Before the first
    /// [`Descent::settle`].
    pub(super) fn aim(&mut self, ranks: impl Iterator<Item = u64>) {
        self.targets = ranks.map(|rank| Target { rank, prefix: 0 }).collect();
    }

    /// Whether the multiset has to be shown (again).
    pub(super) fn unfinished(&self) -> bool {
        !self.digits.is_empty()
    }

    /// Shows one key.
    #[inline]
    pub(super) fn add(&mut self, key: u64, weight: u64) {
        let [bits, ..] = self.digits else { return };
        let prefix = key.checked_shr(self.shift).unwrap_or(0);
        for (wanted, bins) in &mut self.bins {
            if *wanted == prefix {
                bins[(key >> (self.shift - bits)) as usize & ((1 << bits) - 1)] += weight;
                return;
            }
        }
    }

    /// Ends one showing.
    pub(super) fn settle(&mut self) {
        let [bits, rest @ ..] = self.digits else { return };
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
            target.prefix = target.prefix << bits | digit;
        }
        self.shift -= bits;
        self.digits = rest;
        self.open_bins();
    }

    /// The keys found, one a rank; meaningful once nothing is unfinished.
    pub(super) fn keys(&self) -> impl Iterator<Item = u64> + '_ {
        self.targets.iter().map(|t| t.prefix)
    }

    /// One set of bins for each prefix that a target has; before there are targets, one for all keys.
    fn open_bins(&mut self) {
        self.bins.clear();
        let [bits, ..] = self.digits else { return };
        let prefixes = self.targets.iter().map(|t| t.prefix).chain(self.targets.is_empty().then_some(0));
        for prefix in prefixes {
            if !self.bins.iter().any(|(p, _)| *p == prefix) {
                self.bins.push((prefix, vec![0; 1 << bits]));
            }
        }
    }
}

/// Digits for keys of so many bits, as few as reach.
fn digits(bits: u32) -> &'static [u32] {
    const ALL: [u32; 5] = [13; 5];
    &ALL[..bits.div_ceil(13).clamp(1, 5) as usize]
}

/// Takes one value of a column that is being shown.
pub(super) type See<'a> = dyn FnMut(u64) + 'a;

/// Statistics of a column too long to keep: `show` calls its argument with every value, and is called several times.
/// The percentiles carry no intervals.
pub(super) fn streamed(show: &dyn Fn(&mut See<'_>), percents: &[f64]) -> Option<(Summary, Vec<Quantile>)> {
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
    let percents: Vec<f64> = percents.iter().copied().filter(|p| supported(*p, interval(n, *p).1)).collect();
    let wanted = PERCENTILES.iter().map(|p| f64::from(*p)).chain(percents.iter().copied());
    let between: Vec<_> = wanted.map(|p| position(p, n)).collect();
    let mut descent = Descent::new(digits(64 - max.leading_zeros()));
    descent.aim(between.iter().flat_map(|(k, _)| [*k as u64, (*k as u64 + 1).min(n - 1)]));
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
    let values: Vec<f64> =
        keys.chunks_exact(2).zip(between).map(|(pair, (_, share))| interpolate(pair[0], pair[1], share)).collect();
    let mut percentiles = [None; 9];
    percentiles.iter_mut().zip(&values).for_each(|(slot, value)| *slot = Some(*value));
    let quantiles = percents.iter().zip(&values[PERCENTILES.len()..]);
    let quantiles = quantiles.map(|(percent, value)| Quantile {
        percent: *percent,
        value: *value,
        interval: None,
        effective: None,
    });
    let summary = Summary {
        avg: Some(avg),
        min: Some(min as f64),
        max: Some(max as f64),
        sum: Some(total as f64),
        std: squares.map(|s| (s / n as f64).sqrt()),
        percentiles,
        count: Some(n),
    };
    Some((summary, quantiles.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use statrs::statistics::Statistics;

    fn naive(values: &[f64], percent: f64) -> f64 {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = percent / 100.0 * (sorted.len() - 1) as f64;
        let low = at.floor() as usize;
        let high = (low + 1).min(sorted.len() - 1);
        sorted[low] + (sorted[high] - sorted[low]) * (at - low as f64)
    }

    fn column(values: &[f64], failed: u64, percents: &[f64]) -> Option<Column> {
        super::column(&blocks::Column::in_order(values.to_vec()), failed, percents)
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0)
    }

    proptest! {
        #[test]
        fn percentiles_equal_a_naive_implementation(values in prop::collection::vec(-1e9..1e9f64, 1..400)) {
            let Column { plain: summary, quantiles, .. } = column(&values, 0, &[0.0, 33.3, 97.5, 100.0]).unwrap();
            for (k, p) in PERCENTILES.into_iter().enumerate() {
                prop_assert!(close(summary.percentiles[k].unwrap(), naive(&values, f64::from(p))));
            }
            prop_assert_eq!(quantiles.len(), 4);
            for q in quantiles {
                prop_assert!(close(q.value, naive(&values, q.percent)), "{:?}", q);
                prop_assert!(q.interval.is_none_or(|(low, high)| low <= q.value && q.value <= high), "{:?}", q);
            }
        }

        #[test]
        fn moments_equal_those_of_statrs(values in prop::collection::vec(-1e9..1e9f64, 1..400), offset in 0..1u64 << 40) {
            // Far from zero as well: there the naive sum of squares loses all digits.
            let values: Vec<f64> = values.iter().map(|x| x + offset as f64).collect();
            let summary = column(&values, 0, &[]).unwrap().plain;
            let scale = offset as f64 + 1e9;
            prop_assert!((summary.avg.unwrap() - values.iter().mean()).abs() <= 1e-12 * scale);
            prop_assert!((summary.std.unwrap() - values.iter().population_std_dev()).abs() <= 1e-9 * 1e9 + 1e-12 * scale);
            prop_assert_eq!((summary.min.unwrap(), summary.max.unwrap()), (Statistics::min(&values), Statistics::max(&values)));
        }

        #[test]
        fn a_streamed_column_has_the_statistics_of_a_kept_one(
            values in prop::collection::vec(prop_oneof![0..5u64, 9_990_000..10_010_000u64, 0..1u64 << 45], 1..400)
        ) {
            let (streamed, quantiles) = streamed(&|see| values.iter().for_each(|x| see(*x)), &[12.5]).unwrap();
            let kept: Vec<f64> = values.iter().map(|x| *x as f64).collect();
            let Column { plain: kept, quantiles: of_kept, .. } = column(&kept, 0, &[12.5]).unwrap();
            prop_assert_eq!(quantiles[0].value, of_kept[0].value);
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
            let mut descent = Descent::new(&[19, 16, 15, 14]);
            descent.aim([rank].into_iter());
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

    /// `numpy.percentile(v, [1, 5, 10, 25, 50, 75, 90, 95, 99])`, `v.mean()` and `v.std()`, numpy 2.4, of the first n of
    /// `(k * 7919 % 1009)**2 / 7`.
    #[test]
    fn statistics_equal_numpy_s() {
        let numpy: [(u32, [f64; 9], f64, f64); 3] = [
            (
                2,
                [
                    1046.7657142857145,
                    5233.828571428572,
                    10467.657142857144,
                    26169.14285714286,
                    52338.28571428572,
                    78507.42857142858,
                    94208.9142857143,
                    99442.74285714286,
                    103629.80571428571,
                ],
                52338.28571428572,
                52338.28571428572,
            ),
            (
                10,
                [
                    106.47,
                    532.35,
                    1064.7,
                    12007.75,
                    50955.78571428572,
                    85197.03571428571,
                    107020.47142857143,
                    117568.0214285714,
                    126006.06142857144,
                ],
                52757.09999999999,
                43042.95393882483,
            ),
            (
                778,
                [
                    13.661428571428573,
                    369.40714285714284,
                    1448.6714285714286,
                    9036.142857142857,
                    36288.142857142855,
                    81756.14285714286,
                    117599.07142857145,
                    130876.60714285714,
                    142351.90142857144,
                ],
                48438.86889460154,
                43335.57148933294,
            ),
        ];
        for (n, percentiles, mean, std) in numpy {
            let values: Vec<f64> = (0..n).map(|k| f64::from((k * 7919 % 1009).pow(2)) / 7.0).collect();
            let summary = column(&values, 0, &[]).unwrap().plain;
            for (ours, theirs) in summary.percentiles.into_iter().zip(percentiles) {
                assert!(close(ours.unwrap(), theirs), "{n}: {ours:?} {theirs}");
            }
            assert!(close(summary.avg.unwrap(), mean) && close(summary.std.unwrap(), std), "{n}: {summary:?}");
        }
    }

    #[test]
    fn failed_requests_push_the_tail_to_infinity() {
        let Column { plain, adjusted, .. } = column(&[10.0, 20.0, 30.0], 1, &[]).unwrap();
        assert_eq!(plain.percentiles[4], Some(20.0));
        // Four values, position 1.5 for the median: to the even rank 2.
        assert_eq!(adjusted.percentiles[4], Some(30.0));
        assert_eq!(adjusted.percentiles[8], None);
        assert_eq!((adjusted.min, adjusted.count), (Some(10.0), Some(4)));
        assert_eq!((adjusted.avg, adjusted.max, adjusted.std), (None, None, None));
    }

    #[test]
    fn far_percentiles_are_given_only_where_the_sample_bounds_them() {
        let given = |n: u32| {
            // Scattered: sorted values would depend on each other as much as any can.
            let values: Vec<f64> = (0..n).map(|k| f64::from(k * 24_721 % n)).collect();
            let quantiles = column(&values, 0, &QUANTILES).unwrap().quantiles;
            quantiles.into_iter().filter(|q| q.percent > 99.0).collect::<Vec<_>>()
        };
        assert_eq!(given(3687), []);
        let far = given(40_000);
        assert_eq!(far.len(), 2);
        assert!(far[0].percent == 99.9 && close(far[0].value, 0.999 * 39_999.0), "{far:?}");
        let (low, high) = far[0].interval.unwrap();
        assert!(low < far[0].value && far[0].value < high && high < 39_999.0, "{low} {high}");
    }
}
