//! How a value comes up to its target.

use crate::clock::Nanos;
use maser_datasets::seed::Stream;

/// The exponent of [`RampStrategy::Exponential`], the reference's.
pub(super) const EASE: f64 = 2.0;

/// The path of a ramp. The reference reads these names and ramps linearly whatever they say; here they count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RampStrategy {
    /// At an even pace.
    #[default]
    Linear,
    /// Slowly, then fast: the share of the way is (t/D)², by which the reference means an exponent, not eˣ.
    Exponential,
    /// In equal steps at the times of a Poisson process, stretched so that the last falls on the ramp's end.
    Poisson,
}

/// A ramp: from its start value to the target within `duration`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ramp {
    /// From the start of the phase to the target, nanoseconds.
    pub duration: Nanos,
    /// The path.
    pub strategy: RampStrategy,
}

/// The moments of `steps` Poisson steps over `duration`, rising, the last exactly at its end; drawn from the stream
/// `timing.ramp.poisson` under `seed`.
pub(super) fn poisson_steps(duration: Nanos, steps: usize, seed: u64) -> Vec<Nanos> {
    let mut stream = Stream::new(seed, "timing.ramp.poisson");
    let mut sum = 0.0;
    let sums: Vec<f64> = (0..steps)
        .map(|_| {
            sum += stream.exponential();
            sum
        })
        .collect();
    sums.iter().map(|s| ((s / sum * duration as f64).round() as Nanos).min(duration)).collect()
}
