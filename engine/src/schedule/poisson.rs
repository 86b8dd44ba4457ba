//! Exponential gaps.

use crate::clock::{Nanos, SECOND};
use maser_datasets::seed::Stream;

/// Nanoseconds are split in 1024 for the sum of gaps, so that rounding each gap cannot bias the rate.
const FRACTION_BITS: u32 = 10;

/// The running sum of exponential gaps of mean 1 / rate, in fixed point.
#[derive(Debug, Clone)]
pub struct Poisson {
    mean: f64,
    stream: Stream,
    at: u64,
}

impl Poisson {
    pub(super) fn new(rate: f64, seed: u64) -> Self {
        let mean = SECOND as f64 / rate * f64::from(1u32 << FRACTION_BITS);
        Self { mean, stream: Stream::new(seed, "timing.request.poisson_interval"), at: 0 }
    }

    pub(super) fn next_offset(&mut self) -> Nanos {
        self.at = self.at.saturating_add((self.stream.exponential() * self.mean).round() as u64);
        self.at >> FRACTION_BITS
    }
}
