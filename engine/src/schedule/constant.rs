//! Equal gaps.

use crate::clock::{Nanos, SECOND};

/// Request n (from 0) is due at (n + 1) / rate: the first comes one interval after the start, as in the reference.
#[derive(Debug, Clone)]
pub struct Constant {
    rate: f64,
    n: u64,
}

impl Constant {
    pub(super) fn new(rate: f64) -> Self {
        Self { rate, n: 0 }
    }

    pub(super) fn next_offset(&mut self) -> Nanos {
        self.n += 1;
        on_grid(self.n, self.rate)
    }
}

/// The moment k / rate; saturates.
pub(super) fn on_grid(k: u64, rate: f64) -> Nanos {
    // Whole seconds and the rest apart: the quotient keeps its nanoseconds however long the run is.
    let seconds = (k as f64 / rate).floor();
    let rest = k as f64 - seconds * rate;
    (seconds as u64).saturating_mul(SECOND).saturating_add((rest / rate * SECOND as f64).round() as u64)
}
