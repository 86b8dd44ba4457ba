//! Whether what was sent is the process that was asked for, judged by the actual send times.
//!
//! A rate that changes is taken out first: a send at t becomes Λ(t), the number of arrivals expected by then, so that gaps
//! have mean 1 whatever the rate does (the time-rescaling theorem; Brown et al., *Neural Computation* 14, 2002).

use super::dependence::Dependence;
use crate::clock::{Instant, Nanos};
use crate::log::Log;
use crate::record::{Record, flag};
use crate::schedule::{Gaps, Ramp, RampStrategy, RateCurve};
use serde::Serialize;
use serde_json::Value;
use statrs::function::gamma::gamma_lr;
use std::borrow::Borrow;

/// Sends below this number say nothing about a distribution.
const FEWEST: usize = 20;

/// Below this probability a deviation is no accident.
const SURE: f64 = 0.001;

/// And above this distance it matters. With a million sends a microsecond's noise is no accident either.
const MATTERS: f64 = 0.02;

/// The process a phase was asked to follow.
#[derive(Debug, Clone, PartialEq)]
pub enum Intended {
    /// Gaps of a law under a rate.
    Paced(Gaps, RateCurve),
    /// Given times.
    Given,
}

impl Intended {
    /// From a phase of the resolved settings, as the files show it; `None` of a closed loop. `seed` is that of the random
    /// steps of a ramp.
    pub fn from_settings(phase: &Value, seed: u64) -> Option<Self> {
        let gaps = match phase["type"].as_str()? {
            "constant" => Gaps::Regular,
            "poisson" => Gaps::Exponential,
            "gamma" => Gaps::Gamma(phase["smoothness"].as_f64().unwrap_or(1.0)),
            "fixed_schedule" | "user_centric" => return Some(Self::Given),
            _ => return None,
        };
        let points = phase["rate_series"]["points"].as_array().map(|points| {
            let pair = |p: &Value| Some((p["time_s"].as_f64()?, p["qps"].as_f64()?));
            points.iter().filter_map(pair).collect::<Vec<_>>()
        });
        let mut rate = match points {
            Some(points) => RateCurve::series(&points).ok()?,
            None => RateCurve::constant(phase["rate"].as_f64()?),
        };
        if let Some(seconds) = phase["rate_ramp"]["duration"].as_f64() {
            let strategy = match phase["rate_ramp"]["strategy"].as_str() {
                Some("exponential") => RampStrategy::Exponential,
                Some("poisson") => RampStrategy::Poisson,
                _ => RampStrategy::Linear,
            };
            rate = rate.ramped(&Ramp { duration: (seconds * 1e9).round() as Nanos, strategy }, seed);
        }
        Some(Self::Paced(gaps, rate))
    }
}

/// The sends of a phase as a process.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Arrivals {
    /// Sends that had a planned time.
    pub count: u64,
    /// Sends per second, between the first and the last.
    pub rate: f64,
    /// Lower end of the 95 % confidence interval of the rate behind it, for gaps that vary and depend on each other as
    /// these do; none if there are too few sends to tell.
    pub rate_low: Option<f64>,
    /// Its upper end.
    pub rate_high: Option<f64>,
    /// Planned times per second, likewise.
    pub planned_rate: f64,
    /// Standard deviation over mean of the gaps, changes of the rate taken out.
    pub cv: f64,
    /// The same of the planned times.
    pub planned_cv: f64,
    /// The same of the law that the plan was drawn from; none for given times.
    pub intended_cv: Option<f64>,
    /// Kolmogorov and Smirnov's largest distance between the gaps' distribution and the intended one; none for equal gaps
    /// and given times.
    pub ks: Option<f64>,
    /// The probability of a distance as large by accident.
    pub ks_p: Option<f64>,
    /// Correlation of each gap with the next; within ±1.96/√count by accident where gaps are independent.
    pub autocorrelation: f64,
    /// Sends that a limit on concurrency kept from their times.
    pub queued: u64,
    /// What is off, in a sentence; none if nothing is.
    pub verdict: Option<String>,
}

/// Planned and actual time of each send that had a planned one, nanoseconds from `start`.
pub fn sends(start: Instant, records: impl IntoIterator<Item: Borrow<Record>>) -> impl Iterator<Item = (Nanos, Nanos)> {
    let send = move |r: &Record| {
        // What the server took of it, to open a connection, is not the sender's.
        let sent = r.due.after(r.send_delay());
        r.has(flag::SCHEDULED).then(|| (r.due.since(start), sent.since(start)))
    };
    records.into_iter().filter_map(move |r| send(r.borrow()))
}

/// One of the two processes of a phase, summed up.
struct Process {
    rate: f64,
    moments: Moments,
    ks: Option<f64>,
}

impl Process {
    /// Of times in any order; `None` of fewer than 20 and if no time passes between them. The times give their memory to
    /// the gaps, so that a send takes 8 bytes.
    fn of(times: impl Iterator<Item = Nanos>, intended: &Intended, with_distance: bool) -> Option<Self> {
        let mut times: Vec<Nanos> = times.collect();
        if times.len() < FEWEST {
            return None;
        }
        times.sort_unstable();
        let rate = rate(&times)?;
        let mut gaps = gaps(times, intended);
        let moments = Moments::of(&gaps)?;
        let ks = match intended {
            Intended::Paced(Gaps::Exponential, _) if with_distance => Some(kolmogorov(&mut gaps, |x| -(-x).exp_m1())),
            Intended::Paced(Gaps::Gamma(k), _) if with_distance => Some(kolmogorov(&mut gaps, |x| gamma_below(*k, x))),
            _ => None,
        };
        Some(Self { rate, moments, ks })
    }
}

impl Arrivals {
    /// Judges sends in any order, as [`sends`] gives them; `None` of fewer than 20. They are asked for twice, so that only
    /// their planned or their actual times are in memory at once: 8 bytes a send.
    pub fn new<I: Iterator<Item = (Nanos, Nanos)>>(sends: impl Fn() -> I, intended: &Intended) -> Option<Self> {
        let planned = Process::of(sends().map(|s| s.0), intended, false)?;
        let actual = Process::of(sends().map(|s| s.1), intended, true)?;
        let moments = &actual.moments;
        let half = moments.half_width;
        let mut arrivals = Self {
            count: moments.n as u64 + 1,
            rate: actual.rate,
            rate_low: half.map(|half| actual.rate / (1.0 + half)),
            rate_high: half.map(|half| actual.rate / (1.0 - half)),
            planned_rate: planned.rate,
            cv: moments.cv,
            planned_cv: planned.moments.cv,
            intended_cv: match intended {
                Intended::Paced(gaps, _) => Some(gaps.cv()),
                Intended::Given => None,
            },
            ks: actual.ks,
            ks_p: actual.ks.map(|d| p_value(d, moments.n)),
            autocorrelation: moments.autocorrelation,
            queued: 0,
            verdict: None,
        };
        arrivals.verdict = arrivals.judge(intended);
        Some(arrivals)
    }

    /// The same of sends of which so many were kept from their times by a limit that the user asked for.
    fn limited(mut self, queued: u64, intended: &Intended) -> Self {
        self.queued = queued;
        self.verdict = self.judge(intended);
        self
    }

    /// One for each phase of a log with a schedule, beside the phase's index.
    pub fn of_log(log: &Log) -> Vec<(usize, Self)> {
        let settings = &log.header.input_config["phases"];
        // Without a seed of the user's the run took its key for one.
        let seed = log.header.random_seed.unwrap_or(log.header.run_key);
        let of_phase = |n: usize| {
            let mark = log.phases.iter().find(|m| usize::from(m.phase) == n)?;
            let intended = Intended::from_settings(&settings[n], seed)?;
            let own = || log.records().map(|(r, _)| r).filter(move |r| usize::from(r.phase) == n);
            let queued = own().filter(|r| r.has(flag::SCHEDULED | flag::QUEUED)).count() as u64;
            Some((n, Self::new(|| sends(mark.start, own()), &intended)?.limited(queued, &intended)))
        };
        (0..log.header.phases.len()).filter_map(of_phase).collect()
    }

    fn judge(&self, intended: &Intended) -> Option<String> {
        let mut faults = Vec::new();
        // Of few sends the last alone moves the rate: what is off must be worth some of them.
        let off = (self.rate / self.planned_rate - 1.0).abs();
        if off > 0.01 && off * self.count as f64 > 2.0 {
            faults.push(format!("{:.1} requests/s were sent where {:.1} were planned", self.rate, self.planned_rate));
        }
        if (self.cv - self.planned_cv).abs() > 0.05 + 0.05 * self.planned_cv {
            faults.push(format!(
                "the gaps' coefficient of variation is {:.2} where the plan's is {:.2}",
                self.cv, self.planned_cv
            ));
        }
        if let (Some(d), Some(p)) = (self.ks, self.ks_p)
            && d > MATTERS
            && p < SURE
        {
            faults.push(format!("the gaps do not have the intended distribution (Kolmogorov-Smirnov distance {d:.3})"));
        }
        let independent = matches!(intended, Intended::Paced(Gaps::Exponential | Gaps::Gamma(_), _));
        let accident = 3.3 / (self.count as f64).sqrt();
        if independent && self.autocorrelation.abs() > accident.max(5.0 * MATTERS) {
            faults.push(format!("each gap hangs on the one before (correlation {:.2})", self.autocorrelation));
        }
        let what = match self.queued {
            0 => "The sends do not follow the plan".to_owned(),
            n => format!("Concurrency limits kept {n} of {} sends from their times", self.count),
        };
        (!faults.is_empty()).then(|| format!("{what}: {}.", faults.join("; ")))
    }
}

/// The gamma distribution function of shape `k` and mean 1.
fn gamma_below(k: f64, x: f64) -> f64 {
    if x > 0.0 { gamma_lr(k, k * x) } else { 0.0 }
}

/// Events per second between the first and the last of sorted times.
fn rate(times: &[Nanos]) -> Option<f64> {
    let span = times.last()? - times.first()?;
    (span > 0).then(|| (times.len() - 1) as f64 / span as f64 * 1e9)
}

/// The gaps between sorted times, the rate taken out, in the memory of the times (the same size and a plain chain: the
/// standard library collects in place).
fn gaps(times: Vec<Nanos>, intended: &Intended) -> Vec<f64> {
    let first = times.first().copied().unwrap_or(0);
    match intended {
        Intended::Paced(_, curve) => {
            let mut before = curve.expected(first);
            let gap = |t: Nanos| {
                let at = curve.expected(t);
                at - std::mem::replace(&mut before, at)
            };
            times.into_iter().skip(1).map(gap).collect()
        }
        Intended::Given => {
            let mut before = first;
            times.into_iter().skip(1).map(|t| (t - std::mem::replace(&mut before, t)) as f64).collect()
        }
    }
}

/// What a sequence of gaps is summed up to.
struct Moments {
    n: usize,
    cv: f64,
    autocorrelation: f64,
    /// Half the width of the mean gap's 95 % confidence interval, over the mean.
    half_width: Option<f64>,
}

impl Moments {
    fn of(gaps: &[f64]) -> Option<Self> {
        let n = gaps.len() as f64;
        let mean = gaps.iter().sum::<f64>() / n;
        let square = gaps.iter().map(|g| (g - mean).powi(2)).sum::<f64>();
        let cross = gaps.windows(2).map(|w| (w[0] - mean) * (w[1] - mean)).sum::<f64>();
        let autocorrelation = if square > 0.0 { cross / square } else { 0.0 };
        let cv = (square / n).sqrt() / mean;
        let worth = Dependence::of_values(gaps).and_then(|dependence| dependence.mean_of(gaps.len()));
        // With half of the mean the reciprocal's interval is no more than a guess.
        let half_width = worth.map(|worth| worth.width() * cv / worth.size.sqrt()).filter(|half| *half < 0.5);
        (mean > 0.0).then_some(Self { n: gaps.len(), cv, autocorrelation, half_width })
    }
}

/// The largest distance between the distribution of the sample, which is sorted here, and `cdf`.
fn kolmogorov(sample: &mut [f64], cdf: impl Fn(f64) -> f64) -> f64 {
    sample.sort_unstable_by(f64::total_cmp);
    let n = sample.len() as f64;
    let distance = |(k, x): (usize, &f64)| {
        let f = cdf(*x);
        (f - k as f64 / n).max((k + 1) as f64 / n - f)
    };
    sample.iter().enumerate().map(distance).fold(0.0, f64::max)
}

/// The probability of a distance of at least `d` between a law and `n` draws from it: Kolmogorov's series, with Stephens'
/// correction for small n (*JRSS B* 32, 1970).
fn p_value(d: f64, n: usize) -> f64 {
    let root = (n as f64).sqrt();
    let lambda = (root + 0.12 + 0.11 / root) * d;
    if lambda < 0.2 {
        // The alternating series does not converge there; the probability is 1 to thirteen digits.
        return 1.0;
    }
    let term = |k: i32| f64::from(1 - 2 * ((k + 1) % 2)) * (-2.0 * f64::from(k * k) * lambda * lambda).exp();
    (2.0 * (1..=100).map(term).sum::<f64>()).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{MICRO, MILLI, SECOND};
    use crate::schedule::Spec;
    use bytemuck::Zeroable;
    use serde_json::json;

    fn judged(sends: &[(Nanos, Nanos)], intended: &Intended) -> Option<Arrivals> {
        Arrivals::new(|| sends.iter().copied(), intended)
    }

    fn planned(spec: &Spec, n: usize) -> Vec<Nanos> {
        let mut arrivals = spec.arrivals(21);
        (0..n).filter_map(|_| arrivals.next_offset()).collect()
    }

    /// Sends as planned, each later by what `late` makes of its number and time.
    fn sent(spec: &Spec, n: usize, late: impl Fn(usize, Nanos) -> Nanos) -> Vec<(Nanos, Nanos)> {
        planned(spec, n).into_iter().enumerate().map(|(k, due)| (due, due + late(k, due))).collect()
    }

    fn intended(gaps: Gaps, rate: f64) -> Intended {
        Intended::Paced(gaps, RateCurve::constant(rate))
    }

    #[test]
    fn the_plan_itself_passes_for_every_law() {
        let ramp = Ramp { duration: 5 * SECOND, strategy: RampStrategy::Linear };
        for rate in [100.0, 1_000.0, 20_000.0] {
            for gaps in [Gaps::Regular, Gaps::Exponential, Gaps::Gamma(0.5), Gaps::Gamma(4.0)] {
                for curve in [RateCurve::constant(rate), RateCurve::constant(rate).ramped(&ramp, 0)] {
                    let spec = Spec::paced(gaps, curve.clone());
                    let intended = Intended::Paced(gaps, curve);
                    let arrivals = judged(&sent(&spec, 20_000, |_, _| 2 * MICRO), &intended).unwrap();
                    assert_eq!(arrivals.verdict, None, "{rate}/s, {gaps:?}: {arrivals:?}");
                    assert!((arrivals.cv - gaps.cv()).abs() < 0.05 * gaps.cv() + 1e-3, "{arrivals:?}");
                    assert!(arrivals.ks_p.is_none_or(|p| p > SURE), "{arrivals:?}");
                }
            }
        }
    }

    fn holds(arrivals: &Arrivals, rate: f64) -> bool {
        arrivals.rate_low.zip(arrivals.rate_high).is_some_and(|(low, high)| (low..=high).contains(&rate))
    }

    #[test]
    fn the_interval_holds_the_rate_about_as_often_as_it_says() {
        let mut held = 0;
        for seed in 0..400 {
            let mut walk = Spec::Poisson(1000.0).arrivals(seed);
            let times: Vec<_> = (0..500).filter_map(|_| walk.next_offset()).map(|t| (t, t)).collect();
            let arrivals = judged(&times, &intended(Gaps::Exponential, 1000.0)).unwrap();
            held += u32::from(holds(&arrivals, 1000.0));
        }
        // 95 % of 400 is 380, with a standard deviation of 4.4.
        assert!((364..=396).contains(&held), "{held} of 400");
        let even = judged(&sent(&Spec::Constant(100.0), 1000, |_, _| 0), &intended(Gaps::Regular, 100.0)).unwrap();
        assert!(
            (even.rate - 100.0).abs() < 1e-6 && even.rate_high.unwrap() - even.rate_low.unwrap() < 1e-3,
            "{even:?}"
        );
    }

    #[test]
    fn what_is_off_is_said() {
        let poisson = Spec::Poisson(1000.0);
        let law = intended(Gaps::Exponential, 1000.0);
        let said =
            |sends: &[(Nanos, Nanos)], law: &Intended| judged(sends, law).and_then(|a| a.verdict).unwrap_or_default();
        // A timer of a millisecond.
        let rounded = sent(&poisson, 10_000, |_, due| due.next_multiple_of(MILLI) - due);
        assert!(said(&rounded, &law).contains("do not have the intended distribution"), "{}", said(&rounded, &law));
        // A clock that runs 5 % slow.
        let slow = sent(&poisson, 10_000, |_, due| due / 20);
        assert!(said(&slow, &law).starts_with("The sends do not follow the plan: "), "{}", said(&slow, &law));
        assert!(said(&slow, &law).contains("requests/s were sent where"));
        // Pairs: every second one waits for the next.
        let times = planned(&Spec::Constant(1000.0), 10_000);
        let pairs: Vec<_> = times.iter().map(|t| (*t, t.next_multiple_of(2 * MILLI))).collect();
        assert!(said(&pairs, &intended(Gaps::Regular, 1000.0)).contains("coefficient of variation is 1.00"));
        // Arrivals that come in waves.
        let waves = sent(&poisson, 10_000, |k, _| if (k / 500) % 2 == 0 { 0 } else { 400 * MILLI });
        assert!(!said(&waves, &law).is_empty());
        // A trace is held to its own times alone.
        let trace = Spec::Fixed(times.iter().map(|t| t / (40 * MILLI) * 40 * MILLI).collect());
        assert_eq!(said(&sent(&trace, 10_000, |_, _| 3 * MICRO), &Intended::Given), "");
    }

    #[test]
    fn probabilities_of_distances() {
        // Kolmogorov's limit: 5 % at 1.3581, 1 % at 1.6276.
        assert!((p_value(1.3581 / 1000.0, 1_000_000) - 0.05).abs() < 1e-3);
        assert!((p_value(1.6276 / 1000.0, 1_000_000) - 0.01).abs() < 2e-4);
        assert_eq!(p_value(0.0, 100), 1.0);
        assert!(p_value(0.9, 100) < 1e-12);
    }

    #[test]
    fn settings_name_the_process() {
        let of = |phase: Value| Intended::from_settings(&phase, 0);
        assert_eq!(of(json!({"type": "concurrency", "concurrency": 4})), None);
        assert_eq!(of(json!({"type": "constant", "rate": 5.0})), Some(intended(Gaps::Regular, 5.0)));
        assert_eq!(of(json!({"type": "gamma", "rate": 5.0, "smoothness": 3.0})), Some(intended(Gaps::Gamma(3.0), 5.0)));
        assert_eq!(of(json!({"type": "fixed_schedule"})), Some(Intended::Given));
        let points = json!({"points": [{"time_s": 0, "qps": 10.0}, {"time_s": 10, "qps": 20.0}]});
        let phase = json!({"type": "poisson", "rate": 10.0, "rate_series": points, "rate_ramp": {"duration": 2.0}});
        let Some(Intended::Paced(Gaps::Exponential, curve)) = of(phase) else { panic!("a Poisson process") };
        assert!((curve.at(2 * SECOND) - 10.0).abs() < 1e-9 && (curve.at(7 * SECOND) - 15.0).abs() < 1e-9);
    }

    #[test]
    fn only_scheduled_requests_count_and_few_say_nothing() {
        let start = Instant(SECOND);
        let due = start.after(5);
        let with = |flags, sent| Record { due, start: due, sent, flags, ..Record::zeroed() };
        let records = [with(flag::SCHEDULED, due.after(3)), with(0, due), with(flag::SCHEDULED, Instant::UNSET)];
        assert_eq!(sends(start, records).collect::<Vec<_>>(), [(5, 8), (5, 5)]);
        assert_eq!(judged(&[(1, 2); 19], &Intended::Given), None);
        assert_eq!(judged(&[(1, 2); 30], &Intended::Given), None, "no time passes");
    }
}
