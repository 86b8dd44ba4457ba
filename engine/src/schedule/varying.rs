//! Any gaps under any rate.

use super::gaps::{Gaps, Units};
use super::rate::RateCurve;
use crate::clock::Nanos;

/// Arrivals at the unit rate, each moved to the time by which the curve expects as many.
#[derive(Debug, Clone)]
pub struct Varying {
    units: Units,
    curve: RateCurve,
    /// Sum of the gaps so far, in arrivals.
    sum: f64,
    /// The last offset: over years the inverse is not exact to the nanosecond, and time must not go back for that.
    at: Nanos,
}

impl Varying {
    pub(super) fn new(gaps: Gaps, curve: RateCurve, seed: u64) -> Self {
        Self { units: gaps.units(seed), curve, sum: 0.0, at: 0 }
    }

    pub(super) fn next_offset(&mut self) -> Nanos {
        self.sum += self.units.next_gap();
        self.at = self.at.max(self.curve.inverse(self.sum));
        self.at
    }
}
