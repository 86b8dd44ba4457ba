//! Rates that change over time, and the exact way to follow them.
//!
//! A [`RateCurve`] is λ(t) with its integral Λ(t), the number of arrivals expected by t. Arrivals at the unit rate, at
//! u₁ ≤ u₂ ≤ …, become arrivals at the rate λ by tᵢ = Λ⁻¹(uᵢ) (time rescaling; Çinlar, *Introduction to Stochastic
//! Processes*, 1975, ch. 4): a Poisson process stays one, and neither pace nor randomness depends on how often anything is
//! updated. The reference redraws its next gap at every update and keeps the earlier of the two, which makes it too fast
//! while the rate changes (3.2 times at 1/s).

use super::ramp::{self, Ramp, RampStrategy};
use crate::clock::{Nanos, SECOND};
use std::sync::Arc;

/// The first rate of a ramp is what one of its updates would bring in the reference: target · [`FIRST`] / duration.
const FIRST: f64 = 0.1;

/// Most steps of a Poisson ramp: one for each hundredth of the way.
const STEPS: usize = 100;

/// Where a piece's closed form is wanting, the inverse is found to this part of the piece's span: 2⁻⁵⁰.
const PRECISION: f64 = 1.0 / (1u64 << 50) as f64;

/// A rate over time, requests per second, above 0 everywhere; after its last piece it stays where it is.
#[derive(Debug, Clone, PartialEq)]
pub struct RateCurve {
    pieces: Arc<[Piece]>,
    /// Where the last piece ends, seconds.
    end: f64,
    /// Arrivals expected by then.
    mass: f64,
    /// The rate from then on.
    last: f64,
}

/// A stretch of a curve: λ(start + t) = from + (to − from) · (t / span)^power.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Piece {
    /// Seconds from the start of the curve.
    start: f64,
    /// Arrivals expected before it.
    before: f64,
    /// Length, seconds.
    span: f64,
    from: f64,
    to: f64,
    power: f64,
}

impl Piece {
    fn rate(&self, t: f64) -> f64 {
        self.from + (self.to - self.from) * (t / self.span).powf(self.power)
    }

    /// Arrivals expected in its first `t` seconds.
    fn mass(&self, t: f64) -> f64 {
        self.from * t + (self.to - self.from) * t / (self.power + 1.0) * (t / self.span).powf(self.power)
    }

    /// When `units` arrivals of its own are expected, seconds from its start.
    fn inverse(&self, units: f64) -> f64 {
        if self.power == 1.0 {
            // The root of slope/2·t² + from·t = units, written so that nothing cancels and a slope of 0 will do.
            let slope = (self.to - self.from) / self.span;
            let root = (self.from * self.from + 2.0 * slope * units).max(0.0).sqrt();
            return 2.0 * units / (self.from + root);
        }
        self.search(units)
    }

    /// Newton's method, held between bounds that close in.
    fn search(&self, units: f64) -> f64 {
        let (mut low, mut high) = (0.0, self.span);
        let mut t = self.span * (units / self.mass(self.span)).clamp(0.0, 1.0);
        while high - low > self.span * PRECISION {
            let off = self.mass(t) - units;
            if off > 0.0 {
                high = t
            } else {
                low = t
            }
            let newton = t - off / self.rate(t);
            let inside = newton > low && newton < high;
            let next = if inside { newton } else { f64::midpoint(low, high) };
            if (next - t).abs() <= self.span * PRECISION {
                return next;
            }
            t = next;
        }
        t
    }
}

impl RateCurve {
    /// The same rate for ever.
    pub fn constant(rate: f64) -> Self {
        Self { pieces: Arc::new([]), end: 0.0, mass: 0.0, last: rate }
    }

    /// Straight lines between `(seconds, requests per second)` points, of which there is at least one; before the first
    /// and after the last point the rate is theirs (`--request-rate-series`).
    ///
    /// # Errors
    /// A sentence: a time is negative or not above the one before, or a rate is not above 0.
    pub fn series(points: &[(f64, f64)]) -> Result<Self, String> {
        let Some(&(_, first)) = points.first() else { return Err("there is no point".into()) };
        let mut parts = Vec::new();
        let mut at = (0.0, first);
        for (n, &(time, rate)) in points.iter().enumerate() {
            let n_th = n + 1;
            if !(rate.is_finite() && rate > 0.0) {
                return Err(format!("point {n_th}: qps {rate} is not above 0"));
            }
            if !(time.is_finite() && time >= 0.0) {
                return Err(format!("point {n_th}: time_s {time} is not at least 0"));
            }
            if n > 0 && time <= at.0 {
                return Err(format!("point {n_th}: time_s {time} is not after the {} before it", at.0));
            }
            if time > at.0 {
                parts.push(Part { until: time, from: at.1, to: rate, power: 1.0 });
            }
            at = (time, rate);
        }
        Ok(Self::of(parts, at.1))
    }

    /// This curve with a ramp before it: the ramp's target is where the curve begins, and the curve's time begins when
    /// the ramp is over. The ramp starts at target · 0.1 s / duration, or at the target if it is shorter than 0.1 s.
    /// Random steps draw under `seed`.
    #[must_use]
    pub fn ramped(&self, ramp: &Ramp, seed: u64) -> Self {
        let span = ramp.duration as f64 / SECOND as f64;
        if span == 0.0 {
            return self.clone();
        }
        let to = self.at(0);
        let from = to * (FIRST / span).min(1.0);
        let mut parts = match ramp.strategy {
            RampStrategy::Linear => vec![Part { until: span, from, to, power: 1.0 }],
            RampStrategy::Exponential => vec![Part { until: span, from, to, power: ramp::EASE }],
            RampStrategy::Poisson => stairs(ramp.duration, from, to, seed),
        };
        let moved = |p: &Piece| Part { until: span + p.start + p.span, from: p.from, to: p.to, power: p.power };
        parts.extend(self.pieces.iter().map(moved));
        Self::of(parts, self.last)
    }

    fn of(parts: Vec<Part>, last: f64) -> Self {
        let (mut end, mut mass) = (0.0, 0.0);
        let mut pieces = Vec::with_capacity(parts.len());
        for Part { until, from, to, power } in parts {
            let piece = Piece { start: end, before: mass, span: until - end, from, to, power };
            end = until;
            mass += piece.mass(piece.span);
            pieces.push(piece);
        }
        Self { pieces: pieces.into(), end, mass, last }
    }

    /// The rate if it never changes.
    pub fn as_constant(&self) -> Option<f64> {
        self.pieces.is_empty().then_some(self.last)
    }

    /// λ: requests per second at `offset`.
    pub fn at(&self, offset: Nanos) -> f64 {
        let seconds = offset as f64 / SECOND as f64;
        match self.piece(|p| p.start <= seconds) {
            Some(piece) if seconds < self.end => piece.rate(seconds - piece.start),
            _ => self.last,
        }
    }

    /// Λ: arrivals expected from the start to `offset`.
    pub fn expected(&self, offset: Nanos) -> f64 {
        let seconds = offset as f64 / SECOND as f64;
        match self.piece(|p| p.start <= seconds) {
            Some(piece) if seconds < self.end => piece.before + piece.mass(seconds - piece.start),
            _ => self.mass + self.last * (seconds - self.end),
        }
    }

    /// Λ⁻¹: the moment by which `units` arrivals are expected.
    pub fn inverse(&self, units: f64) -> Nanos {
        let seconds = match self.piece(|p| p.before <= units) {
            Some(piece) if units < self.mass => piece.start + piece.inverse(units - piece.before).min(piece.span),
            _ => self.end + (units - self.mass) / self.last,
        };
        // Casting saturates: what is beyond 64 bits is never.
        (seconds * SECOND as f64).round() as Nanos
    }

    /// The last piece of which `begun` holds.
    fn piece(&self, begun: impl Fn(&Piece) -> bool) -> Option<&Piece> {
        self.pieces.partition_point(begun).checked_sub(1).and_then(|k| self.pieces.get(k))
    }
}

/// A piece by its end; it begins where the one before it ends.
struct Part {
    /// Seconds from the start of the curve.
    until: f64,
    from: f64,
    to: f64,
    power: f64,
}

fn stairs(duration: Nanos, from: f64, to: f64, seed: u64) -> Vec<Part> {
    let steps = ramp::poisson_steps(duration, STEPS, seed);
    let mut parts = Vec::with_capacity(steps.len());
    let mut at = 0;
    for (n, &step) in steps.iter().enumerate() {
        let rate = from + (to - from) * n as f64 / steps.len() as f64;
        if step > at {
            parts.push(Part { until: step as f64 / SECOND as f64, from: rate, to: rate, power: 1.0 });
        }
        at = step;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::MILLI;
    use proptest::prelude::*;

    fn linear(target: f64, seconds: u64) -> RateCurve {
        let ramp = Ramp { duration: seconds * SECOND, strategy: RampStrategy::Linear };
        RateCurve::constant(target).ramped(&ramp, 0)
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0)
    }

    #[test]
    fn a_linear_ramp_goes_through_the_reference_s_points() {
        let curve = linear(100.0, 10);
        for (at, rate) in [(0, 1.0), (100, 1.99), (5_000, 50.5), (10_000, 100.0), (99_000, 100.0)] {
            assert!(close(curve.at(at * MILLI), rate), "{at} ms: {}", curve.at(at * MILLI));
        }
        assert!(close(linear(0.5, 5).at(0), 0.01));
        // Trapezoids: (1 + 100) / 2 · 10 = 505 arrivals on the way, then 100 a second.
        assert!(close(curve.expected(10 * SECOND), 505.0));
        assert!(close(curve.expected(12 * SECOND), 705.0));
        assert_eq!(curve.inverse(505.0), 10 * SECOND);
        assert_eq!(curve.inverse(705.0), 12 * SECOND);
    }

    #[test]
    fn an_exponential_ramp_eases_in() {
        let ramp = Ramp { duration: 10 * SECOND, strategy: RampStrategy::Exponential };
        let curve = RateCurve::constant(100.0).ramped(&ramp, 0);
        assert!(close(curve.at(5 * SECOND), 1.0 + 99.0 * 0.25));
        assert!(close(curve.expected(10 * SECOND), 10.0 * (1.0 + 99.0 / 3.0)));
        for t in [0, 1, 999, SECOND, 7 * SECOND + 123_456_789, 10 * SECOND, 11 * SECOND] {
            assert!(curve.inverse(curve.expected(t)).abs_diff(t) <= 1, "{t}");
        }
    }

    #[test]
    fn a_poisson_ramp_climbs_in_equal_steps_to_the_target_at_its_end() {
        let ramp = Ramp { duration: 10 * SECOND, strategy: RampStrategy::Poisson };
        let curve = RateCurve::constant(100.0).ramped(&ramp, 7);
        assert_eq!(curve, RateCurve::constant(100.0).ramped(&ramp, 7));
        assert_ne!(curve, RateCurve::constant(100.0).ramped(&ramp, 8));
        assert!(close(curve.at(0), 1.0));
        assert!(curve.at(10 * SECOND - 1) < 100.0 && close(curve.at(10 * SECOND), 100.0));
        let rates: Vec<f64> = (0..=1000).map(|k| curve.at(k * 10 * MILLI)).collect();
        assert!(rates.is_sorted());
        let middle = curve.expected(10 * SECOND) / 10.0;
        assert!((middle - 50.0).abs() < 15.0, "mean rate {middle}");
    }

    #[test]
    fn a_series_is_clamped_and_interpolated() {
        let curve = RateCurve::series(&[(0.0, 10.0), (10.0, 20.0), (20.0, 20.0), (30.0, 5.0)]).unwrap();
        for (at, rate) in [(5, 15.0), (15, 20.0), (25, 12.5), (99, 5.0)] {
            assert!(close(curve.at(at * SECOND), rate), "{at} s");
        }
        let late = RateCurve::series(&[(4.0, 3.0), (5.0, 6.0)]).unwrap();
        assert!(close(late.at(SECOND), 3.0) && close(late.expected(4 * SECOND), 12.0));
        // After a ramp the series has its own time.
        let ramped = curve.ramped(&Ramp { duration: 2 * SECOND, strategy: RampStrategy::Linear }, 0);
        assert!(close(ramped.at(2 * SECOND), 10.0) && close(ramped.at(7 * SECOND), 15.0));
    }

    #[test]
    fn a_wrong_series_is_a_sentence_with_the_point() {
        for (points, said) in [
            (&[][..], "there is no point"),
            (&[(0.0, 1.0), (0.0, 2.0)], "point 2: time_s 0 is not after the 0 before it"),
            (&[(0.0, 1.0), (1.0, 0.0)], "point 2: qps 0 is not above 0"),
            (&[(-1.0, 1.0)], "point 1: time_s -1 is not at least 0"),
            (&[(0.0, f64::NAN)], "point 1: qps NaN is not above 0"),
        ] {
            assert_eq!(RateCurve::series(points).err().as_deref(), Some(said));
        }
    }

    fn any_curve() -> impl proptest::strategy::Strategy<Value = RateCurve> {
        let points = prop::collection::vec((0.001..100.0f64, 0.01..50_000.0f64), 1..6);
        let strategies =
            prop::sample::select(vec![RampStrategy::Linear, RampStrategy::Exponential, RampStrategy::Poisson]);
        (points, strategies, 0..100 * SECOND, any::<u64>()).prop_map(|(points, strategy, duration, seed)| {
            let mut time = 0.0;
            let points: Vec<(f64, f64)> = points
                .into_iter()
                .map(|(gap, rate)| {
                    time += gap;
                    (time, rate)
                })
                .collect();
            let series = RateCurve::series(&points).unwrap_or_else(|_| RateCurve::constant(1.0));
            series.ramped(&Ramp { duration, strategy }, seed)
        })
    }

    proptest! {
        #[test]
        fn the_inverse_undoes_the_integral(curve in any_curve(), at in 0..1_000 * SECOND) {
            let back = curve.inverse(curve.expected(at));
            // What 53 bits of the count leave of the time, at the rate there.
            let grain = 1e-15 * curve.expected(at) / curve.at(at) * 1e9 * 16.0;
            prop_assert!(back.abs_diff(at) as f64 <= 2.0 + grain, "{} for {}", back, at);
        }

        #[test]
        fn neither_direction_ever_goes_back(curve in any_curve(), mut units in prop::collection::vec(0.0..1e6f64, 2..50)) {
            units.sort_by(f64::total_cmp);
            let times: Vec<_> = units.iter().map(|&u| curve.inverse(u)).collect();
            prop_assert!(times.is_sorted(), "{:?}", times);
            let counts: Vec<_> = times.iter().map(|&t| curve.expected(t)).collect();
            prop_assert!(counts.is_sorted_by(|a, b| *a <= *b + 1e-6));
        }

        #[test]
        fn the_integral_is_the_sum_of_the_rate(curve in any_curve(), at in SECOND..300 * SECOND) {
            // Midpoints; steps and corners cost at most a step's width times the jump there.
            let steps = 20_000;
            let width = at / steps;
            let sum: f64 = (0..steps).map(|k| curve.at(k * width + width / 2) * width as f64 / 1e9).sum();
            let want = curve.expected(steps * width);
            prop_assert!((sum - want).abs() <= 0.02 * want + 1.0, "{} {}", sum, want);
        }
    }
}
