//! Sequence lengths: an integer sampler whose mean and standard deviation are the ones asked for.

use crate::Error;
use crate::seed::Stream;

/// No prompt and no output may be asked to be longer, in tokens: a guard against a mistyped number, far above any model.
pub const MAX_TOKENS: u32 = 16_777_216;

/// A normal distribution of lengths in tokens, rounded to the nearest integer, never below 1.
///
/// A draw below 0.5 is redrawn. So where the mean lies four standard deviations or more above 1, mean and standard
/// deviation of the lengths are those asked for (rounding adds 1/12 to the variance); nearer to 1 the cut raises the
/// mean, as any truncation must. This is not the reference's sampler, which rounds up and so adds about 0.5 to the mean,
/// and which drops the fraction of a standard deviation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lengths {
    /// Mean, in tokens.
    pub mean: f64,
    /// Standard deviation, in tokens; 0 makes every length the same.
    pub stddev: f64,
}

impl Lengths {
    /// `mean` tokens, always.
    pub fn fixed(mean: u32) -> Self {
        Self { mean: f64::from(mean), stddev: 0.0 }
    }

    /// Checks the values of the two flags named `flag` and `flag-stddev`.
    ///
    /// # Errors
    /// A sentence naming the flag whose value is out of range.
    pub fn check(&self, flag: &str) -> Result<(), Error> {
        let most = f64::from(MAX_TOKENS);
        if !(1.0..=most).contains(&self.mean) {
            return Err(Error(format!("{flag} must be between 1 and {MAX_TOKENS} tokens, not {}", self.mean)));
        }
        if !(0.0..=most).contains(&self.stddev) {
            return Err(Error(format!("{flag}-stddev must be between 0 and {MAX_TOKENS} tokens, not {}", self.stddev)));
        }
        Ok(())
    }

    /// One length. Takes nothing from the stream where the standard deviation is 0.
    pub fn draw(&self, stream: &mut Stream) -> u32 {
        if self.stddev <= 0.0 {
            return to_tokens(self.mean);
        }
        // With a mean of at least 1 more than half of the draws are kept: the bound is never met by chance.
        for _ in 0..10_000 {
            let x = self.mean + self.stddev * stream.normal();
            if x >= 0.5 {
                return to_tokens(x);
            }
        }
        to_tokens(self.mean)
    }
}

fn to_tokens(x: f64) -> u32 {
    (x.round() as u32).clamp(1, MAX_TOKENS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(lengths: Lengths) -> (f64, f64) {
        let mut stream = Stream::new(3, "test");
        let n = 200_000;
        let draws: Vec<f64> = (0..n).map(|_| f64::from(lengths.draw(&mut stream))).collect();
        let mean = draws.iter().sum::<f64>() / f64::from(n);
        let variance = draws.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / f64::from(n);
        (mean, variance.sqrt())
    }

    #[test]
    fn mean_and_stddev_are_as_asked() {
        for (mean, stddev) in [(550.0, 50.0), (100.0, 20.0), (1024.0, 0.9)] {
            let (m, s) = moments(Lengths { mean, stddev });
            assert!((m - mean).abs() < 0.01 * stddev.max(1.0) + 0.01, "{mean}: {m}");
            let expected = (stddev * stddev + 1.0 / 12.0f64).sqrt();
            assert!((s / expected - 1.0).abs() < 0.02, "{stddev}: {s}");
        }
    }

    #[test]
    fn no_length_is_below_1() {
        let mut stream = Stream::new(3, "test");
        let lengths = Lengths { mean: 1.0, stddev: 5.0 };
        assert!((0..10_000).all(|_| lengths.draw(&mut stream) >= 1));
    }

    #[test]
    fn values_out_of_range_name_their_flag() {
        let refused = |mean, stddev| Lengths { mean, stddev }.check("--isl").unwrap_err().0;
        assert!(refused(0.0, 0.0).starts_with("--isl must"));
        assert!(refused(f64::NAN, 0.0).starts_with("--isl must"));
        assert!(refused(5.0, -1.0).starts_with("--isl-stddev must"));
        assert!(Lengths { mean: 5.0, stddev: 0.0 }.check("--isl").is_ok());
    }
}
