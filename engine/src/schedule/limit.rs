//! Limits that change over time.

use super::ramp::{self, Ramp, RampStrategy};
use crate::clock::Nanos;
use std::sync::Arc;

/// Most moments that a Poisson ramp changes a limit at; a higher target takes larger steps.
const STEPS: u32 = 1 << 16;

/// A limit (sessions, requests before their first token) as a function of the time since the start of its phase.
///
/// A ramp begins at 1 and rises by one at a time, to v once (v − 1) / (target − 1) of the way is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitCurve {
    target: u32,
    path: Path,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Path {
    Flat,
    Linear(Nanos),
    Eased(Nanos),
    /// Moments of equal steps, the last of which reaches the target.
    Steps(Arc<[Nanos]>),
}

impl LimitCurve {
    /// The same limit all the time.
    pub fn constant(limit: u32) -> Self {
        Self { target: limit, path: Path::Flat }
    }

    /// From 1 to `target` along `ramp`; random steps draw under `seed`.
    pub fn ramped(target: u32, ramp: &Ramp, seed: u64) -> Self {
        let rises = target.saturating_sub(1);
        let path = match ramp.strategy {
            _ if rises == 0 || ramp.duration == 0 => Path::Flat,
            RampStrategy::Linear => Path::Linear(ramp.duration),
            RampStrategy::Exponential => Path::Eased(ramp.duration),
            RampStrategy::Poisson => {
                let steps = ramp::poisson_steps(ramp.duration, rises.min(STEPS) as usize, seed);
                Path::Steps(steps.into())
            }
        };
        Self { target, path }
    }

    /// Where it ends up.
    pub fn target(&self) -> u32 {
        self.target
    }

    /// The limit at `offset` from the start of the phase.
    pub fn at(&self, offset: Nanos) -> u32 {
        // The largest value whose time has come. The first is there from the start.
        let (mut low, mut high) = (1, self.target);
        if self.path == Path::Flat {
            return self.target;
        }
        while low < high {
            let middle = high - (high - low) / 2;
            if self.reached(middle) <= offset { low = middle } else { high = middle - 1 }
        }
        low
    }

    /// When the limit next changes after `offset`; `None` once it is at its target.
    pub fn next_change(&self, offset: Nanos) -> Option<Nanos> {
        let now = self.at(offset);
        (now < self.target).then(|| self.reached(now + 1))
    }

    /// The moment at which the limit is first at least `value`, nanoseconds; never decreasing in `value`.
    fn reached(&self, value: u32) -> Nanos {
        if value <= 1 {
            return 0;
        }
        let (done, all) = (u64::from(value.min(self.target) - 1), u64::from(self.target - 1));
        let part = done as f64 / all as f64;
        match &self.path {
            Path::Flat => 0,
            Path::Linear(d) => (u128::from(*d) * u128::from(done)).div_ceil(u128::from(all)) as Nanos,
            Path::Eased(d) => (*d as f64 * part.powf(1.0 / ramp::EASE)).round() as Nanos,
            Path::Steps(moments) => {
                let step = (done * moments.len() as u64).div_ceil(all);
                moments.get((step as usize).saturating_sub(1)).copied().unwrap_or(0)
            }
        }
    }
}

/// The `k`-th of `n` shares of `value`: they differ by at most one and sum to `value` exactly, at every value of a changing
/// limit.
pub fn share(value: u32, k: usize, n: usize) -> u32 {
    let (k, n) = (k as u32, n.max(1) as u32);
    value / n + u32::from(k < value % n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SECOND;
    use proptest::prelude::*;

    fn changes(curve: &LimitCurve) -> Vec<(Nanos, u32)> {
        let mut found = vec![(0, curve.at(0))];
        let mut at = 0;
        while let Some(next) = curve.next_change(at) {
            assert!(next > at, "time goes on");
            found.push((next, curve.at(next)));
            at = next;
        }
        found
    }

    fn ramp(seconds: u64, strategy: RampStrategy) -> Ramp {
        Ramp { duration: seconds * SECOND, strategy }
    }

    #[test]
    fn a_linear_ramp_steps_as_the_reference_s() {
        let curve = LimitCurve::ramped(5, &ramp(8, RampStrategy::Linear), 0);
        let seconds = [(0, 1), (2, 2), (4, 3), (6, 4), (8, 5)].map(|(s, v)| (s * SECOND, v));
        assert_eq!(changes(&curve), seconds);
        assert_eq!(curve.at(2 * SECOND - 1), 1);
        assert_eq!(changes(&LimitCurve::ramped(1, &ramp(8, RampStrategy::Linear), 0)), [(0, 1)]);
        assert_eq!(changes(&LimitCurve::constant(7)), [(0, 7)]);
    }

    #[test]
    fn an_exponential_ramp_eases_in() {
        let curve = LimitCurve::ramped(100, &ramp(10, RampStrategy::Exponential), 0);
        // 1 + 99 · 0.25 = 25.75, of which only whole slots count.
        assert_eq!(curve.at(5 * SECOND), 25);
        assert_eq!((curve.at(0), curve.at(10 * SECOND - 1), curve.at(10 * SECOND)), (1, 99, 100));
        assert_eq!(changes(&curve).len(), 100);
    }

    #[test]
    fn a_poisson_ramp_is_random_by_its_seed_and_ends_on_time() {
        let curve = LimitCurve::ramped(20, &ramp(10, RampStrategy::Poisson), 3);
        let all = changes(&curve);
        assert_eq!(all.last(), Some(&(10 * SECOND, 20)));
        assert_eq!(all.len(), 20);
        assert_ne!(curve, LimitCurve::ramped(20, &ramp(10, RampStrategy::Poisson), 4));
        let gaps: Vec<u64> = all.windows(2).map(|w| w[1].0 - w[0].0).collect();
        assert!(gaps.iter().max() > gaps.iter().min(), "the steps are not even");
        let wide = LimitCurve::ramped(1_000_000, &ramp(10, RampStrategy::Poisson), 3);
        assert_eq!((wide.at(0), wide.at(10 * SECOND)), (1, 1_000_000));
    }

    #[test]
    fn shares_sum_to_the_limit_and_differ_by_at_most_one() {
        for total in 0..50 {
            for n in 1..9 {
                let shares: Vec<u32> = (0..n).map(|k| share(total, k, n)).collect();
                assert_eq!(shares.iter().sum::<u32>(), total);
                assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
            }
        }
    }

    proptest! {
        #[test]
        fn shares_of_any_limit_sum_to_it(total: u32, n in 1..200usize) {
            let shares = (0..n).map(|k| share(total, k, n));
            prop_assert_eq!(shares.clone().map(u64::from).sum::<u64>(), u64::from(total));
            prop_assert!(shares.clone().max().unwrap() - shares.min().unwrap() <= 1);
        }

        #[test]
        fn limits_rise_from_one_to_the_target_and_their_shares_sum_to_them(
            target in 1..2_000u32,
            duration in 1..1_000 * SECOND,
            way in 0..3usize,
            n in 1..40usize,
            mut times in prop::collection::vec(0..1_100 * SECOND, 1..20),
        ) {
            let strategy = [RampStrategy::Linear, RampStrategy::Exponential, RampStrategy::Poisson][way];
            let curve = LimitCurve::ramped(target, &Ramp { duration, strategy }, 1);
            prop_assert_eq!((curve.at(0).min(target), curve.at(duration)), (curve.at(0), target));
            times.sort_unstable();
            let mut before = 1;
            for at in times {
                let now = curve.at(at);
                prop_assert!((before..=target).contains(&now));
                before = now;
                prop_assert_eq!((0..n).map(|k| share(now, k, n)).sum::<u32>(), now);
                if let Some(next) = curve.next_change(at) {
                    prop_assert!(next > at && next <= duration);
                    prop_assert!(curve.at(next) > now && curve.at(next - 1) == now);
                } else {
                    prop_assert_eq!(now, target);
                }
            }
        }
    }
}
