//! Order statistics: the values at given ranks of a column, exactly, without sorting all of it.

/// Columns up to this length are sorted.
const SMALL: usize = 2048;
/// Buckets a longer one is divided into, as a power of two.
const BUCKET_BITS: u32 = 14;

/// Values at some ranks of a column.
#[derive(Debug)]
pub(super) struct Ranked {
    ranks: Vec<usize>,
    values: Vec<f64>,
}

impl Ranked {
    /// Finds the values at `ranks` (any order, ranks beyond the column are ignored) of finite `values`. Two reads of the
    /// column and a sort of the few values that share a bucket with a wanted one.
    pub(super) fn find(values: &[f64], mut ranks: Vec<usize>) -> Self {
        ranks.retain(|k| *k < values.len());
        ranks.sort_unstable();
        ranks.dedup();
        let mut found = Vec::with_capacity(ranks.len());
        descend(values, 0, &ranks, &mut found);
        Self { ranks, values: found }
    }

    /// The value at a rank that was asked for.
    pub(super) fn at(&self, rank: usize) -> Option<f64> {
        let at = self.ranks.binary_search(&rank).ok()?;
        self.values.get(at).copied()
    }
}

/// A number whose order is that of the value.
fn key(x: f64) -> u64 {
    let bits = x.to_bits();
    bits ^ (((bits as i64 >> 63) as u64) | 1 << 63)
}

/// Appends to `found` the values at `ranks` (sorted, distinct, counted from `base`).
fn descend(values: &[f64], base: usize, ranks: &[usize], found: &mut Vec<f64>) {
    if ranks.is_empty() {
        return;
    }
    if values.len() <= SMALL {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        found.extend(ranks.iter().map(|k| sorted[k - base]));
        return;
    }
    let (mut least, mut greatest) = (u64::MAX, 0);
    for x in values {
        let key = key(*x);
        least = least.min(key);
        greatest = greatest.max(key);
    }
    if least == greatest {
        found.extend(ranks.iter().map(|_| values[0]));
        return;
    }
    let shift = (64 - (greatest - least).leading_zeros()).saturating_sub(BUCKET_BITS);
    let bucket = |x: f64| ((key(x) - least) >> shift) as usize;
    let mut counts = vec![0usize; bucket(f64::from_bits_key(greatest)) + 1];
    values.iter().for_each(|x| counts[bucket(*x)] += 1);
    let wanted = Wanted::of(&counts, base, ranks);
    for (part, slice) in wanted.gather(values, bucket, counts.len()).iter().zip(&wanted.buckets) {
        descend(part, slice.base, &ranks[slice.ranks.clone()], found);
    }
}

trait FromKey {
    fn from_bits_key(key: u64) -> f64;
}

impl FromKey for f64 {
    fn from_bits_key(key: u64) -> f64 {
        f64::from_bits(if key >> 63 == 1 { key ^ 1 << 63 } else { !key })
    }
}

/// A bucket in which some rank lies.
struct Bucket {
    index: usize,
    base: usize,
    len: usize,
    ranks: std::ops::Range<usize>,
}

struct Wanted {
    buckets: Vec<Bucket>,
}

impl Wanted {
    fn of(counts: &[usize], mut base: usize, ranks: &[usize]) -> Self {
        let (mut buckets, mut from) = (Vec::new(), 0);
        for (index, len) in counts.iter().enumerate() {
            let end = base + len;
            let to = from + ranks[from..].iter().take_while(|k| **k < end).count();
            if to > from {
                buckets.push(Bucket { index, base, len: *len, ranks: from..to });
            }
            (base, from) = (end, to);
        }
        Self { buckets }
    }

    fn gather(&self, values: &[f64], bucket: impl Fn(f64) -> usize, buckets: usize) -> Vec<Vec<f64>> {
        const NONE: u16 = u16::MAX;
        let mut slots = vec![NONE; buckets];
        let mut parts: Vec<Vec<f64>> = self.buckets.iter().map(|b| Vec::with_capacity(b.len)).collect();
        for (slot, wanted) in self.buckets.iter().enumerate() {
            slots[wanted.index] = slot as u16;
        }
        for x in values {
            let slot = slots[bucket(*x)];
            if slot != NONE {
                parts[usize::from(slot)].push(*x);
            }
        }
        parts
    }
}

/// Lower and upper end of an interval: zero-based ranks, `None` where no value is extreme enough.
pub(super) type Ends = (Option<u64>, Option<u64>);

/// The order statistics between which the true percentile `percent` lies with at least 95 % confidence, given `n`
/// independent values: zero-based ranks, `None` at an end where no value is extreme enough.
///
/// The number of values below the percentile is binomial, so that the interval from the l-th to the u-th value covers it
/// with probability P(l ≤ B < u), whatever the distribution (David and Nagaraja, Order Statistics, 7.1). Each tail is given
/// 2.5 %.
pub(super) fn interval(n: u64, percent: f64) -> Ends {
    let share = percent / 100.0;
    if n == 0 || share <= 0.0 || share >= 1.0 {
        return (None, None);
    }
    let (low, high) = binomial_quantiles(n, share, 0.025, 0.975);
    (low.checked_sub(1), Some(high).filter(|k| *k < n))
}

/// The least k with P(B ≤ k) ≥ `low`, and likewise for `high`, B binomial with n trials of probability `p`.
fn binomial_quantiles(n: u64, p: f64, low: f64, high: f64) -> (u64, u64) {
    let mean = n as f64 * p;
    let far = 8.0 * (mean * (1.0 - p)).sqrt() + 10.0;
    let mut k = (mean - far).floor().max(0.0) as u64;
    let odds = p / (1.0 - p);
    let mut mass = ln_binomial(n, k, p).exp();
    let (mut cumulative, mut first) = (mass, None);
    while k < n {
        if first.is_none() && cumulative >= low {
            first = Some(k);
        }
        if cumulative >= high {
            break;
        }
        mass *= (n - k) as f64 / (k + 1) as f64 * odds;
        cumulative += mass;
        k += 1;
    }
    (first.unwrap_or(k), k)
}

fn ln_binomial(n: u64, k: u64, p: f64) -> f64 {
    let choose = ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k);
    choose + k as f64 * p.ln() + (n - k) as f64 * (-p).ln_1p()
}

/// Stirling's series beyond the first few.
fn ln_factorial(n: u64) -> f64 {
    if n < 20 {
        return (2..=n).map(|k| (k as f64).ln()).sum();
    }
    let x = n as f64;
    let series = 1.0 / (12.0 * x) - 1.0 / (360.0 * x.powi(3)) + 1.0 / (1260.0 * x.powi(5));
    x * x.ln() - x + 0.5 * (std::f64::consts::TAU * x).ln() + series
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = f64> {
        prop_oneof![Just(0.0), Just(7.0), -5.0..5.0f64, 1e6..1.001e6f64, -1e300..1e300f64]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_rank_is_that_of_a_naive_sort(
            values in prop::collection::vec(value(), 1..9000), picks in prop::collection::vec(any::<prop::sample::Index>(), 0..60)
        ) {
            let ranks: Vec<usize> = picks.iter().map(|i| i.index(values.len())).chain([0, values.len() - 1]).collect();
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            let found = Ranked::find(&values, ranks.clone());
            for k in ranks {
                prop_assert_eq!(found.at(k), Some(sorted[k]), "rank {}", k);
            }
        }
    }

    #[test]
    fn intervals_are_the_tabulated_ones() {
        // Median of 10: the 2nd to the 9th value (97.9 %); of 100: the 40th to the 61st.
        assert_eq!(interval(10, 50.0), (Some(1), Some(8)));
        assert_eq!(interval(100, 50.0), (Some(39), Some(60)));
        // Five values cannot bound a median at 95 %; six can.
        assert_eq!(interval(5, 50.0), (None, None));
        assert_eq!(interval(6, 50.0), (Some(0), Some(5)));
    }

    #[test]
    fn the_far_tail_has_an_upper_bound_only_from_a_certain_sample_size_on() {
        // 1 − 0.999ⁿ ≥ 0.975 from n = 3688 on.
        assert_eq!(interval(3687, 99.9).1, None);
        assert_eq!(interval(3688, 99.9).1, Some(3687));
        assert_eq!(interval(36_886, 99.99).1, None);
        assert_eq!(interval(36_887, 99.99).1, Some(36_886));
    }

    #[test]
    fn an_interval_covers_95_per_cent_and_no_narrower_one_does() {
        for (n, percent) in [(37u64, 50.0), (200, 90.0), (1000, 99.0), (5000, 25.0)] {
            let p: f64 = percent / 100.0;
            let cdf = |k: i64| (0..=k).map(|k| ln_binomial(n, k as u64, p).exp()).sum::<f64>();
            let (low, high) = interval(n, percent);
            let (low, high) = (low.unwrap() as i64, high.unwrap() as i64);
            assert!(cdf(low) <= 0.025 && cdf(low + 1) > 0.025, "{n} {percent}");
            assert!(cdf(high) >= 0.975 && cdf(high - 1) < 0.975, "{n} {percent}");
        }
        let (low, high) = interval(10_000_000, 50.0);
        // Half the width: 1.96 · √(n/4).
        assert!((high.unwrap() - low.unwrap()).abs_diff(6198) < 4);
    }
}
