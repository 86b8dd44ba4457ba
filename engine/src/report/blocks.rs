//! Blocks of requests that started one after the other, and columns that are filled block by block whatever the order of
//! the log: requests are recorded as they end.

use super::dependence::BLOCKS;

/// Bits of the number of bins that find a block by time.
const BIN_BITS: u32 = 14;

/// Starts that edges are taken from, about: all of a small run's, else a part that is chosen by the start alone, so that
/// the order of the records does not show.
const SAMPLE_BITS: u32 = 17;

/// How the requests of a selection are divided.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// The earliest start of each block.
    edges: Vec<u64>,
    /// For each bin of time, the block in which it begins.
    bins: Vec<u32>,
    shift: u32,
    /// Successful requests in each.
    valid: Vec<u32>,
    /// Failed ones.
    failed: Vec<u32>,
}

/// Start of a request with its outcome, in one word.
pub(super) fn start(ns: u64, valid: bool) -> u64 {
    ns << 1 | u64::from(valid)
}

impl Blocks {
    /// Divides requests given by [`start`], in any order.
    pub(super) fn of(starts: &[u64]) -> Self {
        let mut sample = sample(starts);
        sample.sort_unstable();
        let blocks = sample.len().min(BLOCKS);
        let mut edges: Vec<u64> = (0..blocks).map(|k| sample[k * sample.len() / blocks]).collect();
        edges.dedup();
        if let Some(first) = edges.first_mut() {
            *first = starts.iter().map(|s| s >> 1).min().unwrap_or(0);
        }
        let from = edges.first().copied().unwrap_or(0);
        let span = edges.last().copied().unwrap_or(0) - from;
        let shift = (64 - span.leading_zeros()).saturating_sub(BIN_BITS);
        let before = |time: u64| edges.partition_point(|e| *e <= time).saturating_sub(1) as u32;
        let bins = (0..=(span >> shift) + 1).map(|k| before(from.saturating_add(k << shift))).collect();
        let none = vec![0; edges.len().max(1)];
        let mut blocks = Self { edges, bins, shift, valid: none.clone(), failed: none };
        for start in starts {
            let block = blocks.at(start >> 1);
            let counts = if start & 1 == 1 { &mut blocks.valid } else { &mut blocks.failed };
            counts[block] += 1;
        }
        blocks
    }

    /// All requests in one.
    pub(super) fn one(valid: u64, failed: u64) -> Self {
        Self { valid: vec![valid as u32], failed: vec![failed as u32], ..Self::default() }
    }

    /// The block of a request of the selection.
    #[inline]
    pub(super) fn at(&self, start: u64) -> usize {
        let Some(from) = self.edges.first() else { return 0 };
        let bin = (start.saturating_sub(*from) >> self.shift) as usize;
        let last = self.bins.len() - 1;
        let (low, high) = (self.bins[bin.min(last)] as usize, self.bins[(bin + 1).min(last)] as usize);
        low + self.edges[low + 1..=high].partition_point(|e| *e <= start)
    }

    /// An empty column with room for the requests of these classes, in the memory of an earlier one.
    pub(super) fn column(&self, valid: bool, failed: bool, old: Column) -> Column {
        let Column { mut values, mut begins, mut lens } = old;
        begins.clear();
        let mut end = 0;
        for (ok, bad) in self.valid.iter().zip(&self.failed) {
            begins.push(end);
            end += if valid { *ok as usize } else { 0 } + if failed { *bad as usize } else { 0 };
        }
        values.clear();
        values.reserve_exact(end);
        values.resize(end, 0.0);
        lens.clear();
        lens.resize(begins.len(), 0);
        Column { values, begins, lens }
    }
}

fn sample(starts: &[u64]) -> Vec<u64> {
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
    let bits = (64 - (starts.len() as u64).leading_zeros()).saturating_sub(SAMPLE_BITS);
    let chosen = |ns: u64| bits == 0 || ns.wrapping_mul(GOLDEN) >> (64 - bits) == 0;
    starts.iter().map(|s| s >> 1).filter(|ns| chosen(*ns)).collect()
}

/// Values of one metric, those of a block beside each other.
#[derive(Debug, Default)]
pub(super) struct Column {
    values: Vec<f64>,
    begins: Vec<usize>,
    lens: Vec<u32>,
}

impl Column {
    /// Of values in their order.
    pub(super) fn in_order(values: Vec<f64>) -> Self {
        let n = values.len();
        let blocks = n.clamp(1, BLOCKS);
        let begins: Vec<usize> = (0..blocks).map(|k| k * n / blocks).collect();
        let lens = (0..blocks).map(|k| ((k + 1) * n / blocks - begins[k]) as u32).collect();
        Self { values, begins, lens }
    }

    /// Adds the value of a request of the block; no block takes more than it has requests.
    #[inline]
    pub(super) fn put(&mut self, block: usize, value: f64) {
        self.values[self.begins[block] + self.lens[block] as usize] = value;
        self.lens[block] += 1;
    }

    /// Closes the room of requests that have no value.
    pub(super) fn close(&mut self) {
        let mut end = 0;
        for (begin, len) in self.begins.iter_mut().zip(&self.lens) {
            let len = *len as usize;
            if *begin != end {
                self.values.copy_within(*begin..*begin + len, end);
                *begin = end;
            }
            end += len;
        }
        self.values.truncate(end);
    }

    /// The values, block by block.
    pub(super) fn values(&self) -> &[f64] {
        &self.values
    }

    /// The lengths of the blocks.
    pub(super) fn lens(&self) -> &[u32] {
        &self.lens
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Every value in a block of its start, blocks in the order of starts; returns their number.
    fn divided(requests: &[(u64, bool)]) -> usize {
        let starts: Vec<u64> = requests.iter().map(|(ns, ok)| start(*ns, *ok)).collect();
        let blocks = Blocks::of(&starts);
        let mut column = blocks.column(true, true, Column::default());
        let mut of_valid = blocks.column(true, false, Column::in_order(vec![5.0; 9]));
        for (ns, ok) in requests {
            column.put(blocks.at(*ns), *ns as f64);
            if *ok && ns % 3 > 0 {
                of_valid.put(blocks.at(*ns), *ns as f64);
            }
        }
        column.close();
        of_valid.close();
        for column in [&column, &of_valid] {
            assert_eq!(column.lens().iter().map(|n| *n as usize).sum::<usize>(), column.values().len());
            let (mut rest, mut before) = (column.values(), -1.0);
            for len in column.lens() {
                let (block, after) = rest.split_at(*len as usize);
                let least = block.iter().copied().fold(f64::INFINITY, f64::min);
                assert!(block.is_empty() || least > before, "{least} {before}");
                before = block.iter().copied().fold(before, f64::max);
                rest = after;
            }
        }
        let of = |all: bool| requests.iter().filter(move |(ns, ok)| all || *ok && ns % 3 > 0).map(|(ns, _)| *ns as f64);
        let sorted = |mut values: Vec<f64>| {
            values.sort_unstable_by(f64::total_cmp);
            values
        };
        assert_eq!(sorted(column.values().to_vec()), sorted(of(true).collect()));
        assert_eq!(sorted(of_valid.values().to_vec()), sorted(of(false).collect()));
        column.lens().len()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn blocks_follow_the_starts_whatever_the_order(
            requests in prop::collection::vec((prop_oneof![0..50u64, 0..1u64 << 40, Just(1 << 60)], any::<bool>()), 0..600)
        ) {
            let distinct: std::collections::BTreeSet<_> = requests.iter().map(|r| r.0).collect();
            prop_assert_eq!(divided(&requests), distinct.len().max(1));
        }
    }

    #[test]
    fn many_requests_are_divided_by_a_part_of_them() {
        let requests: Vec<_> = (0..400_000u64).map(|k| (k * 123_457 % 400_009 * 50_000, k % 10 > 0)).collect();
        let blocks = divided(&requests);
        assert!((BLOCKS - 8..=BLOCKS).contains(&blocks), "{blocks}");
    }
}
