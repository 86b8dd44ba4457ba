//! How arrivals are spaced at the unit rate, before a rate is laid over them.

use maser_datasets::seed::Stream;
use rand_core::RngCore;
use rand_distr::{Distribution, Gamma};

/// The law of the gaps between arrivals, in units of the mean gap.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Gaps {
    /// All equal: coefficient of variation 0.
    Regular,
    /// Exponential, a Poisson process: coefficient of variation 1.
    Exponential,
    /// Gamma of this shape k > 0, mean 1: coefficient of variation 1/√k. Shape 1 is exponential, below it arrivals
    /// bunch, above it they even out (vLLM's burstiness).
    Gamma(f64),
}

impl Gaps {
    /// Standard deviation over mean of the gaps.
    pub fn cv(self) -> f64 {
        match self {
            Self::Regular => 0.0,
            Self::Exponential => 1.0,
            Self::Gamma(shape) => 1.0 / shape.sqrt(),
        }
    }

    /// A walk over the arrivals at the unit rate.
    pub(super) fn units(self, seed: u64) -> Units {
        match self {
            Self::Regular => Units::Regular,
            Self::Exponential => Units::Exponential(Stream::new(seed, "timing.request.poisson_interval")),
            Self::Gamma(shape) => {
                let bits = Bits(Stream::new(seed, "timing.request.gamma_interval"));
                // A shape that is no number above 0 has no gamma law; it is refused before a schedule is made of it.
                match Gamma::new(shape, 1.0 / shape) {
                    Ok(law) => Units::Gamma(law, bits),
                    Err(_) => Units::Regular,
                }
            }
        }
    }
}

/// Draws gaps of mean 1, one after another from a named stream: the n-th depends on the seed and n alone.
#[derive(Debug, Clone)]
pub(super) enum Units {
    Regular,
    Exponential(Stream),
    Gamma(Gamma<f64>, Bits),
}

impl Units {
    pub(super) fn next_gap(&mut self) -> f64 {
        match self {
            Self::Regular => 1.0,
            Self::Exponential(stream) => stream.exponential(),
            Self::Gamma(law, bits) => law.sample(bits),
        }
    }
}

/// A named stream as the distributions want their bits.
#[derive(Debug, Clone)]
pub(super) struct Bits(Stream);

impl RngCore for Bits {
    fn next_u32(&mut self) -> u32 {
        (self.0.bits() >> 32) as u32
    }

    fn next_u64(&mut self) -> u64 {
        self.0.bits()
    }

    fn fill_bytes(&mut self, to: &mut [u8]) {
        for chunk in to.chunks_mut(8) {
            chunk.copy_from_slice(&self.0.bits().to_le_bytes()[..chunk.len()]);
        }
    }
}
