//! Limits that change over time.

use crate::clock::Nanos;

/// A limit (sessions, requests before their first token) as a function of the time since the start of its phase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitCurve {
    target: u32,
}

impl LimitCurve {
    /// The same limit all the time.
    pub fn constant(limit: u32) -> Self {
        Self { target: limit }
    }

    /// Where it ends up.
    pub fn target(&self) -> u32 {
        self.target
    }

    /// The limit at `offset` from the start of the phase.
    pub fn at(&self, _offset: Nanos) -> u32 {
        self.target
    }

    /// When the limit next changes after `offset`; `None` once it is at its target.
    pub fn next_change(&self, _offset: Nanos) -> Option<Nanos> {
        None
    }
}

/// The `k`-th of `n` shares of `value`: they differ by at most one and sum to `value` exactly, at every value of a changing
/// limit.
pub fn share(value: u32, k: usize, n: usize) -> u32 {
    let (k, n) = (k as u32, n.max(1) as u32);
    value / n + u32::from(k < value % n)
}
