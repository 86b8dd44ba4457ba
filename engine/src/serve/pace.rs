//! When each token is due, and which request meets a fault.

use super::{Config, Fault, Jitter};
use crate::clock::{Instant, Nanos};
use maser_datasets::seed::Stream;

/// Walks the planned times of one answer's tokens. Planned times are sums of whole nanoseconds from the arrival of the
/// request; when a token was really sent never enters them.
#[derive(Debug, Default)]
pub(super) struct Pace {
    due: Instant,
    itl: Nanos,
    jitter: Option<(Jitter, Stream)>,
}

impl Pace {
    /// The pace of the `number`-th request for inference (from 0), which was complete at `arrival`.
    pub(super) fn new(config: &Config, number: u64, arrival: Instant) -> Self {
        let mut jitter = config
            .jitter
            .is_set()
            .then(|| (config.jitter, Stream::new(config.seed, &format!("serve.jitter.{number}"))));
        let due = arrival.after(stray(config.ttft, &mut jitter));
        Self { due, itl: config.itl, jitter }
    }

    /// The next token is due at `at`, whatever the time of first tokens is.
    pub(super) fn hurry(&mut self, at: Instant) {
        self.due = at;
    }

    /// When the next token is due.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Moves on by `tokens` tokens.
    pub(super) fn advance(&mut self, tokens: u32) {
        if self.jitter.is_none() {
            self.due = self.due.after(self.itl.saturating_mul(tokens.into()));
            return;
        }
        for _ in 0..tokens {
            self.due = self.due.after(stray(self.itl, &mut self.jitter));
        }
    }
}

/// The interval, moved by a uniform draw to either side; never below 0.
fn stray(interval: Nanos, jitter: &mut Option<(Jitter, Stream)>) -> Nanos {
    let Some((jitter, stream)) = jitter else { return interval };
    let reach = match *jitter {
        Jitter::Fraction(f) => interval as f64 * f,
        Jitter::Span(span) => span as f64,
    };
    // A negative result becomes 0 in the conversion.
    (interval as f64 + reach * (2.0 * stream.unit() - 1.0)).round() as Nanos
}

/// Draws the faults: request `n` meets the same one in every run with the same seed.
#[derive(Debug)]
pub(super) struct Dice {
    stream: Stream,
    /// Each fault with the sum of the shares up to and with its own.
    below: Vec<(f64, Fault)>,
}

impl Dice {
    pub(super) fn new(config: &Config) -> Self {
        let mut sum = 0.0;
        let below = config.faults.iter().map(|&(fault, share)| {
            sum += share;
            (sum, fault)
        });
        Self { below: below.collect(), stream: Stream::new(config.seed, "serve.fault") }
    }

    /// The fault of the next request.
    pub(super) fn draw(&mut self) -> Option<Fault> {
        if self.below.is_empty() {
            return None;
        }
        let u = self.stream.unit();
        self.below.iter().find(|(below, _)| u < *below).map(|&(_, fault)| fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{MICRO, MILLI};

    fn config(jitter: Jitter) -> Config {
        Config { ttft: 20 * MILLI, itl: 5 * MILLI, jitter, ..Config::default() }
    }

    fn dues(config: &Config, number: u64, tokens: usize) -> Vec<u64> {
        let mut pace = Pace::new(config, number, Instant(1_000));
        let mut dues = Vec::new();
        for _ in 0..tokens {
            dues.push(pace.due().0);
            pace.advance(1);
        }
        dues
    }

    #[test]
    fn token_k_is_due_at_arrival_plus_ttft_plus_k_intervals() {
        let want: Vec<u64> = (0..1000).map(|k| 1_000 + 20 * MILLI + k * 5 * MILLI).collect();
        assert_eq!(dues(&config(Jitter::Span(0)), 0, 1000), want);
        let mut pace = Pace::new(&config(Jitter::Span(0)), 0, Instant(1_000));
        pace.advance(7);
        assert_eq!(pace.due().0, want[7]);
    }

    #[test]
    fn jitter_moves_each_interval_within_its_reach_and_is_the_same_for_the_same_request() {
        for (jitter, reach) in [(Jitter::Fraction(0.2), MILLI), (Jitter::Span(300 * MICRO), 300 * MICRO)] {
            let config = config(jitter);
            let first = dues(&config, 3, 2000);
            assert_eq!(first, dues(&config, 3, 2000));
            assert_ne!(first, dues(&config, 4, 2000));
            let gaps: Vec<u64> = first.windows(2).map(|w| w[1] - w[0]).collect();
            assert!(gaps.iter().all(|&g| g.abs_diff(5 * MILLI) <= reach));
            let mean = gaps.iter().sum::<u64>() / gaps.len() as u64;
            assert!(mean.abs_diff(5 * MILLI) < reach / 20, "the draws do not lean to a side: {mean}");
        }
    }

    #[test]
    fn a_span_wider_than_the_interval_never_goes_back() {
        let dues = dues(&config(Jitter::Span(50 * MILLI)), 0, 500);
        assert!(dues.windows(2).all(|w| w[0] <= w[1]));
    }

    #[test]
    fn faults_meet_their_shares() {
        let faults = vec![(Fault::Http500, 0.25), (Fault::Hang, 0.5)];
        let mut dice = Dice::new(&Config { faults, ..Config::default() });
        let drawn: Vec<_> = (0..20_000).map(|_| dice.draw()).collect();
        let share = |fault| drawn.iter().filter(|&&d| d == fault).count() as f64 / 20_000.0;
        assert!((share(Some(Fault::Http500)) - 0.25).abs() < 0.02);
        assert!((share(Some(Fault::Hang)) - 0.5).abs() < 0.02);
        assert!((share(None) - 0.25).abs() < 0.02);
    }
}
