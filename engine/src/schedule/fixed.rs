//! Given offsets.

use crate::clock::Nanos;
use std::sync::Arc;

/// A walk over a list that is already in order.
#[derive(Debug, Clone)]
pub struct Fixed {
    offsets: Arc<[Nanos]>,
    n: usize,
}

impl Fixed {
    pub(super) fn new(offsets: Arc<[Nanos]>) -> Self {
        Self { offsets, n: 0 }
    }

    pub(super) fn next_offset(&mut self) -> Option<Nanos> {
        let offset = self.offsets.get(self.n).copied();
        self.n += 1;
        offset
    }
}
