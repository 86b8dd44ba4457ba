//! When requests are due: offsets from the start of a phase, in nanoseconds, never decreasing.
//!
//! A [`Spec`] is what was asked for; [`Spec::arrivals`] walks it. Offsets are absolute and exact: the n-th depends on
//! nothing but the spec, the seed and n, never on when the ones before it were sent. Schedules are made of values: any
//! [`Gaps`] go under any [`RateCurve`], and a curve may have a [`Ramp`] before it.

mod constant;
mod fixed;
mod gaps;
mod limit;
mod poisson;
mod ramp;
mod rate;
mod trace;
mod users;
mod varying;

pub use gaps::Gaps;
pub use limit::{LimitCurve, share};
pub use ramp::{Ramp, RampStrategy};
pub use rate::RateCurve;
pub use trace::{Tied, Ties, cap_idle_gaps, cv, quantum, speed_up, spread_ties};
pub use users::{SessionStart, Sessions, UserCentric};

use crate::clock::Nanos;
use std::sync::Arc;

/// A schedule as asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum Spec {
    /// Closed loop: a request is due whenever a slot is free.
    ClosedLoop,
    /// Equal gaps at this rate, requests per second.
    Constant(f64),
    /// Exponential gaps at this mean rate, requests per second.
    Poisson(f64),
    /// Gaps of this law under this rate.
    Varying(Gaps, RateCurve),
    /// Given offsets in nanoseconds, in order, one a request.
    Fixed(Arc<[Nanos]>),
    /// The starts of users' sessions; later turns follow each at its own pace.
    UserCentric(UserCentric),
}

impl Spec {
    /// Gaps of this law under this rate; a rate that never changes needs no curve.
    pub fn paced(gaps: Gaps, rate: RateCurve) -> Self {
        match (gaps, rate.as_constant()) {
            (Gaps::Regular, Some(rate)) => Self::Constant(rate),
            (Gaps::Exponential, Some(rate)) => Self::Poisson(rate),
            _ => Self::Varying(gaps, rate),
        }
    }

    /// The arrivals of the schedule; random ones draw from the stream `timing.request.*` under `seed`.
    pub fn arrivals(&self, seed: u64) -> Arrivals {
        match self {
            Self::ClosedLoop => Arrivals::ClosedLoop,
            Self::Constant(rate) => Arrivals::Constant(constant::Constant::new(*rate)),
            Self::Poisson(rate) => Arrivals::Poisson(Box::new(poisson::Poisson::new(*rate, seed))),
            Self::Varying(gaps, rate) => Arrivals::Varying(Box::new(varying::Varying::new(*gaps, rate.clone(), seed))),
            Self::Fixed(offsets) => Arrivals::Fixed(fixed::Fixed::new(offsets.clone())),
            Self::UserCentric(users) => Arrivals::UserCentric(Box::new(users.sessions())),
        }
    }
}

/// A walk over a schedule.
#[derive(Debug, Clone)]
pub enum Arrivals {
    /// No planned times.
    ClosedLoop,
    /// Equal gaps.
    Constant(constant::Constant),
    /// Exponential gaps.
    Poisson(Box<poisson::Poisson>),
    /// Any gaps under any rate.
    Varying(Box<varying::Varying>),
    /// Given offsets.
    Fixed(fixed::Fixed),
    /// Users' sessions.
    UserCentric(Box<Sessions>),
}

impl Arrivals {
    /// Whether requests have planned times.
    pub fn is_scheduled(&self) -> bool {
        !matches!(self, Self::ClosedLoop)
    }

    /// Whether each arrival is a given request's own.
    pub fn is_fixed(&self) -> bool {
        matches!(self, Self::Fixed(_))
    }

    /// The offset of the next request; `None` once the schedule has ended, and always in a closed loop.
    pub fn next_offset(&mut self) -> Option<Nanos> {
        match self {
            Self::ClosedLoop => None,
            Self::Constant(s) => Some(s.next_offset()),
            Self::Poisson(s) => Some(s.next_offset()),
            Self::Varying(s) => Some(s.next_offset()),
            Self::Fixed(s) => s.next_offset(),
            Self::UserCentric(_) => self.next_session().map(|s| s.offset),
        }
    }

    /// The next session of a user-centric schedule; takes the place of [`Arrivals::next_offset`] there, and is `None`
    /// everywhere else.
    pub fn next_session(&mut self) -> Option<SessionStart> {
        match self {
            Self::UserCentric(sessions) => sessions.next_session(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SECOND;

    fn first(spec: &Spec, seed: u64, n: usize) -> Vec<Nanos> {
        let mut arrivals = spec.arrivals(seed);
        (0..n).map(|_| arrivals.next_offset().unwrap()).collect()
    }

    #[test]
    fn constant_starts_one_interval_in_and_never_drifts() {
        assert_eq!(first(&Spec::Constant(4.0), 0, 3), [SECOND / 4, SECOND / 2, 3 * SECOND / 4]);
        let thirds = first(&Spec::Constant(3.0), 0, 3_000_000);
        assert_eq!(thirds[2_999_999], 1_000_000 * SECOND);
        assert_eq!(thirds[0], 333_333_333);
    }

    #[test]
    fn poisson_has_its_mean_and_its_variance_and_its_seed() {
        let n = 200_000;
        let offsets = first(&Spec::Poisson(1000.0), 5, n);
        let mean = offsets[n - 1] as f64 / n as f64 / 1e6;
        assert!((mean - 1.0).abs() < 0.01, "mean gap {mean} ms");
        let gaps: Vec<f64> = offsets.windows(2).map(|w| (w[1] - w[0]) as f64 / 1e6).collect();
        let variance = gaps.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.02, "coefficient of variation of an exponential is 1");
        assert_eq!(offsets[..100], first(&Spec::Poisson(1000.0), 5, 100)[..]);
        assert_ne!(offsets[..100], first(&Spec::Poisson(1000.0), 6, 100)[..]);
    }

    #[test]
    fn a_fixed_schedule_ends() {
        let mut arrivals = Spec::Fixed([0, 5, 5].into()).arrivals(0);
        assert_eq!([(); 4].map(|()| arrivals.next_offset()), [Some(0), Some(5), Some(5), None]);
    }
}
