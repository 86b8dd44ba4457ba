//! Named random streams.
//!
//! A stream's key is the first eight bytes, big endian, of SHA-256 over `"<root>:<name>"` (the reference's derivation),
//! and its numbers come from ChaCha8 under that key: draw `n` depends on nothing but the root seed, the name and `n`.
//! Logarithm and cosine are computed here and not by the system's C library, whose last bits differ between machines.

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use sha2::{Digest, Sha256};

/// The key of the stream `name` under the root seed `root`.
pub fn child(root: u64, name: &str) -> u64 {
    let digest = Sha256::digest(format!("{root}:{name}").as_bytes());
    let mut first = [0u8; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(first)
}

/// A named stream of random numbers.
#[derive(Debug, Clone)]
pub struct Stream(ChaCha8Rng);

impl Stream {
    /// The stream `name` under `root`.
    pub fn new(root: u64, name: &str) -> Self {
        Self(ChaCha8Rng::seed_from_u64(child(root, name)))
    }

    /// 64 uniform bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform bytes.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }

    /// Uniform in the open interval (0, 1), 53 bits; never 0, so its logarithm is finite.
    pub fn unit(&mut self) -> f64 {
        ((self.bits() >> 11) as f64 + 0.5) * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in `0..n`, without bias. `n` must not be 0.
    pub fn below(&mut self, n: u64) -> u64 {
        assert!(n > 0, "an empty range has no element");
        let zone = u64::MAX - u64::MAX % n;
        loop {
            let x = self.bits();
            if x < zone {
                return x % n;
            }
        }
    }

    /// Exponential with mean 1.
    pub fn exponential(&mut self) -> f64 {
        -libm::log(self.unit())
    }

    /// Standard normal, by Box and Muller's transform (one draw of the pair is used).
    pub fn normal(&mut self) -> f64 {
        (-2.0 * libm::log(self.unit())).sqrt() * libm::cos(std::f64::consts::TAU * self.unit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_child_key_is_the_head_of_the_digest() {
        // SHA-256("42:dataset.prompt.corpus"), first eight bytes, by Python's hashlib.
        assert_eq!(child(42, "dataset.prompt.corpus"), CHILD_42_CORPUS);
    }

    const CHILD_42_CORPUS: u64 = 0x928903bcec5ac976;

    #[test]
    fn the_normal_stream_has_mean_0_and_variance_1() {
        let mut stream = Stream::new(7, "test");
        let n = 100_000;
        let (mut sum, mut squares) = (0.0, 0.0);
        for _ in 0..n {
            let x = stream.normal();
            sum += x;
            squares += x * x;
        }
        assert!((sum / n as f64).abs() < 0.02);
        assert!((squares / n as f64 - 1.0).abs() < 0.03);
    }
}
