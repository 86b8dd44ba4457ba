//! Sequence lengths: integer samplers whose moments are the ones asked for.
//!
//! Five shapes: normal, lognormal, uniform, empirical, and a mixture of normals. The reference honours the first alone and
//! takes the others' expected values; here each is drawn as it is said, its bounds included.

mod json;

use crate::Error;
use crate::seed::Stream;

/// No prompt and no output may be asked to be longer, in tokens: a guard against a mistyped number, far above any model.
pub const MAX_TOKENS: u32 = 16_777_216;

/// Draws before a distribution that hardly ever meets its bounds is cut to them.
const TRIES: u32 = 10_000;

/// How lengths are spread, before rounding and bounds.
#[derive(Debug, Clone, PartialEq)]
pub enum Shape {
    /// Normal; a standard deviation of 0 makes every length the same.
    Normal {
        /// Mean.
        mean: f64,
        /// Standard deviation.
        stddev: f64,
    },
    /// The logarithm is normal with mean `ln(median)` and variance `2 ln(mean / median)`, which gives these two.
    LogNormal {
        /// Mean, at least the median.
        mean: f64,
        /// Median.
        median: f64,
    },
    /// Every whole number within the bounds alike.
    Uniform,
    /// Listed values, each with its weight.
    Empirical(Vec<(u32, f64)>),
    /// Normals, each with its weight.
    Mixture(Vec<Peak>),
}

/// One normal of a mixture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Peak {
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub stddev: f64,
    /// Share among the peaks' weights.
    pub weight: f64,
}

/// A distribution of whole numbers, tokens unless said otherwise.
///
/// A draw is rounded to the nearest integer; one outside the bounds is redrawn, which is what truncating a distribution
/// means. So where the mean of a normal lies four standard deviations or more above the lower bound, mean and standard
/// deviation are those asked for (rounding adds 1/12 to the variance); nearer the cut raises the mean, as any truncation
/// must. This is not the reference's sampler, which rounds up and so adds about 0.5 to the mean, and which drops the
/// fraction of a standard deviation.
#[derive(Debug, Clone, PartialEq)]
pub struct Lengths {
    /// How they are spread.
    pub shape: Shape,
    /// No draw is below; at least 1.
    pub min: u32,
    /// No draw is above.
    pub max: u32,
}

impl Lengths {
    /// `mean` tokens, always.
    pub fn fixed(mean: u32) -> Self {
        Self::normal(f64::from(mean), 0.0)
    }

    /// A normal distribution without bounds but those of a length.
    pub fn normal(mean: f64, stddev: f64) -> Self {
        Self { shape: Shape::Normal { mean, stddev }, min: 1, max: MAX_TOKENS }
    }

    /// Every whole number from `min` to `max` alike, both included.
    pub fn uniform(min: u32, max: u32) -> Self {
        Self { shape: Shape::Uniform, min, max }
    }

    /// What a flag's value means: a whole number, or a JSON object.
    ///
    /// ```text
    /// 512
    /// {"mean": 512, "stddev": 50}                             normal
    /// {"mean": 512, "median": 300}                            lognormal
    /// {"min": 100, "max": 900}                                uniform
    /// {"points": [{"value": 128, "weight": 3}, {"value": 4096}]}           empirical
    /// {"peaks": [{"mean": 200, "stddev": 20, "weight": 60}, {"mean": 2000}]}  mixture
    /// ```
    /// Every object may have `min` and `max`; a weight is 1 where none is given. `type` may name the shape.
    ///
    /// # Errors
    /// What is wrong, without the flag's name.
    pub fn parse(text: &str) -> Result<Self, String> {
        json::parse(text)
    }

    /// The expected value of the shape, its bounds left aside but for a uniform distribution, whose they are.
    pub fn mean(&self) -> f64 {
        match &self.shape {
            Shape::Normal { mean, .. } | Shape::LogNormal { mean, .. } => *mean,
            Shape::Uniform => (f64::from(self.min) + f64::from(self.max)) / 2.0,
            Shape::Empirical(points) => weighted(points.iter().map(|(value, weight)| (f64::from(*value), *weight))),
            Shape::Mixture(peaks) => weighted(peaks.iter().map(|peak| (peak.mean, peak.weight))),
        }
    }

    /// Whether every draw is the same.
    pub fn is_fixed(&self) -> bool {
        match &self.shape {
            Shape::Normal { stddev, .. } => *stddev <= 0.0,
            Shape::LogNormal { mean, median } => mean <= median,
            Shape::Uniform => self.min == self.max,
            Shape::Empirical(points) => points.len() == 1,
            Shape::Mixture(_) => false,
        }
    }

    /// Checks the values of the two flags named `flag` and `flag-stddev`.
    ///
    /// # Errors
    /// A sentence naming the flag whose value is out of range.
    pub fn check(&self, flag: &str) -> Result<(), Error> {
        self.check_as(flag, &format!("{flag}-stddev"))
    }

    /// Checks the values of the flags of a mean and of a standard deviation.
    ///
    /// # Errors
    /// A sentence naming the flag whose value is out of range.
    pub fn check_as(&self, flag: &str, stddev_flag: &str) -> Result<(), Error> {
        let most = f64::from(MAX_TOKENS);
        let mean = |what: &str, mean: f64| match (1.0..=most).contains(&mean) {
            true => Ok(()),
            false => Err(Error(format!("{flag}{what} must be between 1 and {MAX_TOKENS}, not {mean}"))),
        };
        let spread = |what: &str, stddev: f64| match (0.0..=most).contains(&stddev) {
            true => Ok(()),
            false => Err(Error(format!("{what} must be between 0 and {MAX_TOKENS}, not {stddev}"))),
        };
        if self.min < 1 || self.min > self.max || self.max > MAX_TOKENS {
            return Err(Error(format!(
                "{flag}: `min` {} and `max` {} must be in order, between 1 and {MAX_TOKENS}",
                self.min, self.max
            )));
        }
        match &self.shape {
            Shape::Normal { mean: m, stddev } => mean("", *m).and_then(|()| spread(stddev_flag, *stddev))?,
            Shape::LogNormal { mean: m, median } => {
                mean(": `mean`", *m)?;
                mean(": `median`", *median)?;
                if m < median {
                    return Err(Error(format!(
                        "{flag}: a lognormal's `mean` {m} cannot lie below its `median` {median}"
                    )));
                }
            }
            Shape::Uniform => {}
            Shape::Empirical(points) => self.check_points(flag, points)?,
            Shape::Mixture(peaks) => {
                check_weights(flag, "peaks", peaks.iter().map(|peak| peak.weight))?;
                let what = format!("{flag}: `stddev` of a peak");
                for peak in peaks {
                    mean(": `mean` of a peak", peak.mean).and_then(|()| spread(&what, peak.stddev))?;
                }
            }
        }
        self.check_reach(flag)
    }

    fn check_points(&self, flag: &str, points: &[(u32, f64)]) -> Result<(), Error> {
        check_weights(flag, "points", points.iter().map(|(_, weight)| *weight))?;
        match points.iter().find(|(value, _)| !(self.min..=self.max).contains(value)) {
            Some((value, _)) => Err(Error(format!(
                "{flag}: the point {value} is not between {} and {}, the bounds of the lengths",
                self.min, self.max
            ))),
            None => Ok(()),
        }
    }

    /// A mean outside the bounds would make nearly every draw a redraw.
    fn check_reach(&self, flag: &str) -> Result<(), Error> {
        let (min, max) = (f64::from(self.min), f64::from(self.max));
        let centres: Vec<f64> = match &self.shape {
            Shape::Normal { mean, .. } => vec![*mean],
            Shape::LogNormal { median, .. } => vec![*median],
            Shape::Mixture(peaks) => peaks.iter().map(|peak| peak.mean).collect(),
            Shape::Uniform | Shape::Empirical(_) => Vec::new(),
        };
        match centres.into_iter().find(|centre| !(min..=max).contains(centre)) {
            Some(centre) => {
                Err(Error(format!("{flag}: the centre {centre} is not between `min` {min} and `max` {max}")))
            }
            None => Ok(()),
        }
    }

    /// One length. Takes nothing from the stream where every length is the same.
    pub fn draw(&self, stream: &mut Stream) -> u32 {
        if self.is_fixed() {
            return self.cut(self.mean());
        }
        match &self.shape {
            Shape::Uniform => self.min + stream.below(u64::from(self.max.saturating_sub(self.min)) + 1) as u32,
            Shape::Empirical(points) => {
                let at = pick(stream, points.iter().map(|(_, weight)| *weight));
                points.get(at).map_or(self.min, |(value, _)| *value)
            }
            Shape::Normal { mean, stddev } => self.within(*mean, || mean + stddev * stream.normal()),
            Shape::LogNormal { mean, median } => {
                let (mu, sigma) = (libm::log(*median), (2.0 * libm::log(mean / median)).sqrt());
                self.within(*median, || libm::exp(mu + sigma * stream.normal()))
            }
            Shape::Mixture(peaks) => {
                let at = pick(stream, peaks.iter().map(|peak| peak.weight));
                let Some(peak) = peaks.get(at) else { return self.min };
                self.within(peak.mean, || peak.mean + peak.stddev * stream.normal())
            }
        }
    }

    fn within(&self, centre: f64, mut draw: impl FnMut() -> f64) -> u32 {
        let (low, high) = (f64::from(self.min) - 0.5, f64::from(self.max) + 0.5);
        for _ in 0..TRIES {
            let x = draw();
            if x >= low && x < high {
                return self.cut(x);
            }
        }
        self.cut(centre)
    }

    fn cut(&self, x: f64) -> u32 {
        (x.round() as u32).clamp(self.min, self.max.max(self.min))
    }
}

fn weighted(parts: impl Iterator<Item = (f64, f64)>) -> f64 {
    let (sum, weights) = parts.fold((0.0, 0.0), |(sum, weights), (x, w)| (sum + x * w, weights + w));
    sum / weights
}

fn check_weights(flag: &str, list: &str, weights: impl Iterator<Item = f64>) -> Result<(), Error> {
    let weights: Vec<f64> = weights.collect();
    let sum: f64 = weights.iter().sum();
    if weights.iter().all(|weight| *weight >= 0.0) && sum > 0.0 && sum.is_finite() {
        return Ok(());
    }
    Err(Error(format!("{flag}: `{list}` needs weights of at least 0, and one above it")))
}

/// The place of one of `weights`, by its share of their sum.
pub(crate) fn pick(stream: &mut Stream, weights: impl Iterator<Item = f64> + Clone) -> usize {
    let aim = stream.unit() * weights.clone().sum::<f64>();
    let (mut reached, mut last) = (0.0, 0);
    for (at, weight) in weights.enumerate() {
        reached += weight;
        if weight > 0.0 {
            last = at;
        }
        if reached > aim {
            return at;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(lengths: &Lengths) -> (f64, f64, Vec<u32>) {
        let mut stream = Stream::new(3, "test");
        let n = 200_000;
        let draws: Vec<u32> = (0..n).map(|_| lengths.draw(&mut stream)).collect();
        let mean = draws.iter().map(|x| f64::from(*x)).sum::<f64>() / f64::from(n);
        let variance = draws.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / f64::from(n);
        (mean, variance.sqrt(), draws)
    }

    #[test]
    fn mean_and_stddev_are_as_asked() {
        for (mean, stddev) in [(550.0, 50.0), (100.0, 20.0), (1024.0, 0.9)] {
            let (m, s, _) = moments(&Lengths::normal(mean, stddev));
            assert!((m - mean).abs() < 0.01 * stddev.max(1.0) + 0.01, "{mean}: {m}");
            let expected = (stddev * stddev + 1.0 / 12.0f64).sqrt();
            assert!((s / expected - 1.0).abs() < 0.02, "{stddev}: {s}");
        }
    }

    #[test]
    fn every_shape_has_its_own_moments() {
        let (mean, _, mut draws) = moments(&Lengths::parse(r#"{"mean": 1000, "median": 600}"#).unwrap());
        draws.sort_unstable();
        assert!((mean / 1000.0 - 1.0).abs() < 0.02, "{mean}");
        assert!((f64::from(draws[100_000]) / 600.0 - 1.0).abs() < 0.02, "{}", draws[100_000]);

        let (mean, stddev, draws) = moments(&Lengths::uniform(100, 300));
        assert!((mean - 200.0).abs() < 0.5 && (stddev - (201.0f64.powi(2) / 12.0).sqrt()).abs() < 0.3);
        assert_eq!((draws.iter().min(), draws.iter().max()), (Some(&100), Some(&300)));

        let text = r#"{"points": [{"value": 128, "weight": 3}, {"value": 4096}]}"#;
        let (mean, _, draws) = moments(&Lengths::parse(text).unwrap());
        assert!(draws.iter().all(|x| [128, 4096].contains(x)));
        assert!((mean / ((3.0 * 128.0 + 4096.0) / 4.0) - 1.0).abs() < 0.01, "{mean}");

        let text = r#"{"peaks": [{"mean": 100, "stddev": 5, "weight": 60}, {"mean": 2000, "weight": 40}]}"#;
        let (_, _, draws) = moments(&Lengths::parse(text).unwrap());
        let high = draws.iter().filter(|x| **x == 2000).count();
        assert!((78_000..82_000).contains(&high), "{high}");
        assert!(draws.iter().all(|x| *x == 2000 || (60..140).contains(x)));
    }

    #[test]
    fn bounds_truncate_and_do_not_pile_up() {
        let lengths = Lengths { min: 90, max: 110, ..Lengths::normal(100.0, 20.0) };
        let (_, _, draws) = moments(&lengths);
        let share = |x| draws.iter().filter(|draw| **draw == x).count();
        assert_eq!((draws.iter().min(), draws.iter().max()), (Some(&90), Some(&110)));
        assert!(share(90) < share(100) && share(110) < share(100), "a clamp would pile draws up at the bounds");
    }

    #[test]
    fn no_length_is_below_1() {
        let mut stream = Stream::new(3, "test");
        let lengths = Lengths::normal(1.0, 5.0);
        assert!((0..10_000).all(|_| lengths.draw(&mut stream) >= 1));
    }

    #[test]
    fn values_out_of_range_name_their_flag() {
        let refused = |mean, stddev| Lengths::normal(mean, stddev).check("--isl").unwrap_err().0;
        assert!(refused(0.0, 0.0).starts_with("--isl must"));
        assert!(refused(f64::NAN, 0.0).starts_with("--isl must"));
        assert!(refused(5.0, -1.0).starts_with("--isl-stddev must"));
        assert!(Lengths::fixed(5).check("--isl").is_ok());
        for (text, said) in [
            (r#"{"mean": 5, "median": 9}"#, "--osl: a lognormal's `mean` 5 cannot lie below its `median` 9"),
            (r#"{"min": 9, "max": 3}"#, "--osl: `min` 9 and `max` 3 must be in order"),
            (r#"{"mean": 9, "stddev": 1, "max": 3}"#, "--osl: the centre 9 is not between"),
            (r#"{"points": [{"value": 3, "weight": 0}]}"#, "--osl: `points` needs weights"),
            (r#"{"points": [{"value": 3}], "min": 4}"#, "--osl: the point 3 is not between 4"),
            (r#"{"peaks": [{"mean": 0.1}]}"#, "--osl: `mean` of a peak must be"),
        ] {
            let why = Lengths::parse(text).unwrap().check("--osl").unwrap_err().0;
            assert!(why.starts_with(said), "{text}: {why}");
        }
    }
}
