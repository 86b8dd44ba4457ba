//! What may be done to the times of a recorded trace before they are replayed.
//!
//! All functions take offsets in nanoseconds in rising order and give as many, in rising order. They go in this order: ties
//! (they need the stamps as recorded), speed, caps on idle gaps.

use crate::clock::Nanos;
use maser_datasets::seed::Stream;
use serde::Serialize;

/// Stamps of a trace may lie this part of its quantum off the grid: recorders wake late. Mooncake's are within 3 ms of
/// multiples of 3 s.
const OFF_GRID: u64 = 1000;

/// What becomes of requests with one and the same stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ties {
    /// They go out together, as the trace says (the reference does this).
    #[default]
    Burst,
    /// They are spread evenly over the trace's quantum, the first at the stamp.
    Uniform,
    /// They are spread over the quantum at random, as the arrivals of a Poisson process are whose number is known.
    Poisson,
}

/// What ties there were, and what spreading them did.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Tied {
    /// The policy.
    pub policy: Ties,
    /// The step of which all stamps are multiples, but for a thousandth of it; nanoseconds. `None` if all stamps are equal.
    pub quantum_ns: Option<Nanos>,
    /// Requests that share their stamp with another.
    pub tied: u64,
    /// The most with one stamp.
    pub largest: u64,
    /// Coefficient of variation of the gaps as recorded; `None` with fewer than two gaps, or if all are 0.
    pub cv_before: Option<f64>,
    /// And after spreading.
    pub cv_after: Option<f64>,
}

/// The coarsest step of which all stamps are multiples, up to a common shift and a thousandth of the step; `None` if fewer
/// than two stamps differ.
pub fn quantum(offsets: &[Nanos]) -> Option<Nanos> {
    let first = *offsets.first()?;
    let gaps: Vec<Nanos> = offsets.windows(2).map(|w| w[1].saturating_sub(w[0])).filter(|g| *g > 0).collect();
    let exact = offsets.iter().fold(0, |step, at| gcd(at.saturating_sub(first), step));
    let least = *gaps.iter().min()?;
    let mut near: Vec<Nanos> = gaps.into_iter().filter(|g| *g <= least + least / (OFF_GRID / 4)).collect();
    near.sort_unstable();
    near.dedup();
    let fits = |step: Nanos| {
        let slack = step / OFF_GRID;
        let off = |at: Nanos| {
            let rest = at.saturating_sub(first) % step;
            rest.min(step - rest)
        };
        // The first stamp may itself be off by as much.
        offsets.iter().all(|at| off(*at) <= 2 * slack)
    };
    near.into_iter().rev().find(|step| fits(*step)).map_or(Some(exact), |coarse| Some(coarse.max(exact)))
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Standard deviation over mean of the gaps between `offsets`.
pub fn cv(offsets: &[Nanos]) -> Option<f64> {
    let n = offsets.len().checked_sub(1).filter(|n| *n >= 2)? as f64;
    let mean = (offsets.last()? - offsets.first()?) as f64 / n;
    let square = offsets.windows(2).map(|w| ((w[1] - w[0]) as f64 - mean).powi(2)).sum::<f64>() / n;
    (mean > 0.0).then(|| square.sqrt() / mean)
}

/// Spreads requests with equal stamps by `policy`, in their order, each before the next stamp; random places draw from the
/// stream `timing.replay.ties` under `seed`. Requests with a stamp of their own keep it.
pub fn spread_ties(offsets: &mut [Nanos], policy: Ties, seed: u64) -> Tied {
    let quantum_ns = quantum(offsets);
    let cv_before = cv(offsets);
    let mut stream = Stream::new(seed, "timing.replay.ties");
    let (mut tied, mut largest, mut at) = (0, 0, 0);
    while at < offsets.len() {
        let stamp = offsets[at];
        let len = offsets[at..].iter().take_while(|o| **o == stamp).count();
        let room = offsets.get(at + len).map_or(u64::MAX, |next| next - stamp).min(quantum_ns.unwrap_or(0));
        largest = largest.max(len as u64);
        if len > 1 {
            tied += len as u64;
            place(&mut offsets[at..at + len], room, policy, &mut stream);
        }
        at += len;
    }
    Tied { policy, quantum_ns, tied, largest, cv_before, cv_after: cv(offsets) }
}

fn place(group: &mut [Nanos], room: Nanos, policy: Ties, stream: &mut Stream) {
    let len = group.len() as u128;
    match policy {
        Ties::Burst => {}
        Ties::Uniform => {
            for (k, at) in group.iter_mut().enumerate() {
                *at += (u128::from(room) * k as u128 / len) as Nanos;
            }
        }
        Ties::Poisson => {
            for at in group.iter_mut() {
                *at += (stream.unit() * room as f64) as Nanos;
            }
            group.sort_unstable();
        }
    }
}

/// Divides every offset by `speedup` (above 0).
pub fn speed_up(offsets: &mut [Nanos], speedup: f64) {
    if speedup == 1.0 {
        return;
    }
    for at in offsets {
        *at = (*at as f64 / speedup).round() as Nanos;
    }
}

/// Shortens every gap between neighbours to at most `cap`; what comes after moves up.
pub fn cap_idle_gaps(offsets: &mut [Nanos], cap: Nanos) {
    let (mut before, mut moved) = (offsets.first().copied().unwrap_or(0), 0);
    for at in offsets {
        moved += (*at - before).saturating_sub(cap);
        before = *at;
        *at -= moved;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{MICRO, MILLI, SECOND};
    use proptest::prelude::*;

    #[test]
    fn idle_gaps_are_capped_as_the_reference_caps_them() {
        let mut offsets = [0, 500, 5000, 5200, 9000].map(|ms| ms * MILLI);
        cap_idle_gaps(&mut offsets, 1000 * MILLI);
        assert_eq!(offsets, [0, 500, 1500, 1700, 2700].map(|ms| ms * MILLI));
        cap_idle_gaps(&mut [], 5);
    }

    #[test]
    fn speed_divides() {
        let mut offsets = [0, 4 * SECOND, 9 * SECOND];
        speed_up(&mut offsets, 60.0);
        assert_eq!(offsets, [0, 66_666_667, 150 * MILLI]);
    }

    #[test]
    fn the_quantum_is_the_coarsest_step() {
        let ms = |stamps: &[u64]| quantum(&stamps.iter().map(|s| s * MILLI).collect::<Vec<_>>());
        assert_eq!(ms(&[0, 0, 20, 50, 60]), Some(10 * MILLI));
        assert_eq!(ms(&[7, 17, 37]), Some(10 * MILLI), "counted from the first");
        assert_eq!(ms(&[0, 1, 3, 1000]), Some(MILLI));
        assert_eq!(ms(&[5, 5, 5]), None);
        assert_eq!(ms(&[]), None);
        // Stamps of a recorder that wakes a little early or late.
        assert_eq!(ms(&[0, 0, 3000, 3000, 5999, 9001, 12_000, 41_999]), Some(3000 * MILLI));
        assert_eq!(ms(&[0, 3000, 5990, 9001]), Some(MILLI));
        assert_eq!(quantum(&[0, 1_234_567, 9_999_991]), Some(1));
    }

    #[test]
    fn ties_are_spread_within_the_quantum() {
        let stamps = [0, 0, 0, 0, 1, 2, 2].map(|s| s * SECOND);
        let mut burst = stamps;
        let told = spread_ties(&mut burst, Ties::Burst, 1);
        assert_eq!(burst, stamps);
        assert_eq!((told.quantum_ns, told.tied, told.largest), (Some(SECOND), 6, 4));
        assert_eq!(told.cv_before, told.cv_after);

        let mut even = stamps;
        let told = spread_ties(&mut even, Ties::Uniform, 1);
        assert_eq!(even, [0, 250, 500, 750, 1000, 2000, 2500].map(|ms| ms * MILLI));
        assert!(told.cv_after < told.cv_before);

        let (mut random, mut again, mut other) = (stamps, stamps, stamps);
        spread_ties(&mut random, Ties::Poisson, 1);
        spread_ties(&mut again, Ties::Poisson, 1);
        spread_ties(&mut other, Ties::Poisson, 2);
        assert_eq!(random, again);
        assert_ne!(random, other);
        assert_eq!(random[4], SECOND, "a stamp of its own stays");
    }

    /// Stamps as a coarse clock gives them of a Poisson process.
    fn coarse(n: usize, rate: f64, step: Nanos) -> Vec<Nanos> {
        let mut arrivals = super::super::Spec::Poisson(rate).arrivals(9);
        (0..n).filter_map(|_| arrivals.next_offset()).map(|at| at / step * step).collect()
    }

    #[test]
    fn poisson_arrivals_under_a_coarse_clock_are_poisson_again() {
        let mut offsets = coarse(20_000, 2_000.0, 100 * MILLI);
        let told = spread_ties(&mut offsets, Ties::Poisson, 4);
        assert_eq!(told.quantum_ns, Some(100 * MILLI));
        assert!(told.cv_before.is_some_and(|cv| cv > 10.0), "{told:?}");
        // Within 3 / √n of 1, the sampling error of the coefficient of variation of an exponential.
        assert!(told.cv_after.is_some_and(|cv| (cv - 1.0).abs() < 0.022), "{told:?}");
        let mut even = coarse(20_000, 2_000.0, 100 * MILLI);
        let told = spread_ties(&mut even, Ties::Uniform, 4);
        assert!(told.cv_after.is_some_and(|cv| cv < 0.1), "{told:?}");
    }

    proptest! {
        #[test]
        fn order_and_stamps_survive(
            mut stamps in prop::collection::vec(0..50u64, 0..200),
            step in prop::sample::select(vec![1, MICRO, MILLI, SECOND]),
            way in 0..3usize,
            cap in 1..SECOND,
            speedup in 0.1..100.0f64,
        ) {
            stamps.sort_unstable();
            let before: Vec<Nanos> = stamps.iter().map(|s| s * step).collect();
            let mut after = before.clone();
            let told = spread_ties(&mut after, [Ties::Burst, Ties::Uniform, Ties::Poisson][way], 3);
            prop_assert!(after.is_sorted());
            for (b, a) in before.iter().zip(&after) {
                prop_assert!(b <= a && *a <= b + told.quantum_ns.unwrap_or(0));
            }
            for w in before.windows(2).zip(after.windows(2)).filter(|(b, _)| b[0] < b[1]) {
                prop_assert!(w.1[0] <= w.0[1], "spread past the next stamp");
            }
            speed_up(&mut after, speedup);
            prop_assert!(after.is_sorted());
            let fast = after.clone();
            cap_idle_gaps(&mut after, cap);
            prop_assert!(after.windows(2).zip(fast.windows(2)).all(|(a, f)| a[1] - a[0] == (f[1] - f[0]).min(cap)));
        }
    }
}
