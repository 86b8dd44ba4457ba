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
        // Whole seconds and the rest apart: the quotient keeps its nanoseconds however long the run is.
        let seconds = (self.n as f64 / self.rate).floor();
        let rest = self.n as f64 - seconds * self.rate;
        seconds as u64 * SECOND + (rest / self.rate * SECOND as f64).round() as u64
    }
}
