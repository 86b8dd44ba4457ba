//! How much is sent, when, and what ends it.

use crate::args;
use crate::refusal::Refusal;
use crate::values::{ArrivalPattern, Grace};
use maser_engine::clock::{MILLI, Nanos, SECOND};

/// Requests of a run that nothing bounds.
const REQUESTS: u64 = 10;

/// What requests in flight may take after the duration.
const GRACE: Nanos = 30 * SECOND;

/// Whether requests are sent at the times of the trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FixedSchedule {
    /// Yes.
    Yes,
    /// No.
    No,
    /// Yes if the first row of the file, which is said to be a trace, has a timestamp.
    AutoIfTrace,
}

/// Which part of the trace is sent, on the trace's own axis in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ScheduleWindow {
    /// Rows before this are left out.
    pub(crate) start_ns: Option<Nanos>,
    /// Rows after this are left out.
    pub(crate) end_ns: Option<Nanos>,
    /// `--fixed-schedule-auto-offset` was given.
    pub(crate) auto_given: bool,
}

impl ScheduleWindow {
    /// Whether the first request's time is the schedule's zero; else `start_ns` is, or the trace's own zero.
    pub(crate) fn auto_offset(&self) -> bool {
        self.start_ns.is_none()
    }
}

/// Reads the options of the fixed schedule.
pub(super) fn schedule(args: &args::Profile) -> Result<(FixedSchedule, ScheduleWindow), Refusal> {
    let typed = &args.schedule;
    let fixed = match (typed.fixed_schedule, typed.no_fixed_schedule, args.input.format) {
        (true, ..) => FixedSchedule::Yes,
        (_, true, _) => FixedSchedule::No,
        (.., Some(format)) if format.is_trace() => FixedSchedule::AutoIfTrace,
        _ => FixedSchedule::No,
    };
    for (flag, given) in [
        ("--fixed-schedule-auto-offset", typed.auto_offset),
        ("--fixed-schedule-start-offset", typed.start_offset.is_some()),
        ("--fixed-schedule-end-offset", typed.end_offset.is_some()),
    ] {
        if given && fixed != FixedSchedule::Yes {
            return Err(Refusal::new(format!("{flag} needs --fixed-schedule")));
        }
    }
    if typed.auto_offset && typed.start_offset.is_some() {
        return Err(Refusal::new(
            "--fixed-schedule-auto-offset starts at the first row, --fixed-schedule-start-offset elsewhere; give one",
        ));
    }
    if let (Some(start), Some(end)) = (typed.start_offset, typed.end_offset)
        && start > end
    {
        return Err(Refusal::new(format!(
            "--fixed-schedule-start-offset {start} is after --fixed-schedule-end-offset {end}"
        )));
    }
    if fixed == FixedSchedule::Yes && args.load.request_rate.is_some() {
        return Err(Refusal::new(
            "--request-rate: with --fixed-schedule the trace sets the pace; remove one of the two",
        ));
    }
    let window = ScheduleWindow {
        start_ns: typed.start_offset.map(|ms| ms.saturating_mul(MILLI)),
        end_ns: typed.end_offset.map(|ms| ms.saturating_mul(MILLI)),
        auto_given: typed.auto_offset,
    };
    Ok((fixed, window))
}

/// What decides when a request is due.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Arrival {
    /// The end of another one.
    ClosedLoop,
    /// Even gaps at this many requests per second.
    Constant(f64),
    /// Exponential gaps at this many requests per second.
    Poisson(f64),
    /// The trace.
    FixedSchedule,
}

impl Arrival {
    /// Requests per second, if that is what decides.
    pub(crate) fn rate(self) -> Option<f64> {
        match self {
            Self::Constant(rate) | Self::Poisson(rate) => Some(rate),
            Self::ClosedLoop | Self::FixedSchedule => None,
        }
    }
}

/// Whether a phase counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PhaseKind {
    /// Left out of the results.
    Warmup,
    /// The measurement.
    Profiling,
}

/// One phase of the run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PhaseConfig {
    /// `warmup` or `profiling`.
    pub(crate) name: &'static str,
    /// Whether it counts.
    pub(crate) kind: PhaseKind,
    /// When requests are due.
    pub(crate) arrival: Arrival,
    /// Requests in flight at most; always set in a closed loop.
    pub(crate) concurrency: Option<u32>,
    /// Requests to send; none with a fixed schedule, whose rows say how many.
    pub(crate) requests: Option<u64>,
    /// How long to send, nanoseconds.
    pub(crate) duration_ns: Option<Nanos>,
    /// What requests in flight may take once the duration is over, nanoseconds; none waits for all of them.
    pub(crate) grace_ns: Option<Nanos>,
}

/// The phases in order: a warmup if asked for, then the measurement.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Load {
    /// At least one; the last is the measurement.
    pub(crate) phases: Vec<PhaseConfig>,
}

impl Load {
    /// Resolves the phases; `fixed` says that the trace sets the pace.
    pub(super) fn resolve(
        load: &args::Load,
        warmup: &args::Warmup,
        fixed: bool,
        notes: &mut Vec<String>,
    ) -> Result<Self, Refusal> {
        let warmup = warmup_phase(load, warmup, notes);
        let profiling = profiling_phase(load, fixed, notes)?;
        let phases = warmup.into_iter().chain([profiling]).collect();
        Ok(Self { phases })
    }

    /// The load in a word, for the artefact directory's name.
    pub(crate) fn stimulus(&self) -> String {
        let Some(phase) = self.phases.last() else {
            return String::new();
        };
        let concurrency = phase.concurrency.map(|n| format!("concurrency{n}"));
        let rate = phase.arrival.rate().map(|r| format!("request_rate{r:?}"));
        match phase.arrival {
            Arrival::FixedSchedule => "fixed_schedule".into(),
            _ => [concurrency, rate].into_iter().flatten().collect::<Vec<_>>().join("-"),
        }
    }
}

fn arrival(rate: Option<f64>, pattern: Option<ArrivalPattern>, flag: &str, notes: &mut Vec<String>) -> Arrival {
    match (rate, pattern) {
        (None, None | Some(ArrivalPattern::ConcurrencyBurst)) => Arrival::ClosedLoop,
        (None, Some(_)) => {
            notes.push(format!("{flag} has no effect without a request rate"));
            Arrival::ClosedLoop
        }
        (Some(rate), Some(ArrivalPattern::Constant)) => Arrival::Constant(rate),
        (Some(rate), Some(ArrivalPattern::ConcurrencyBurst)) => {
            notes.push(format!("{flag} concurrency-burst is poisson where there is a request rate"));
            Arrival::Poisson(rate)
        }
        (Some(rate), Some(ArrivalPattern::Poisson) | None) => Arrival::Poisson(rate),
    }
}

fn profiling_phase(load: &args::Load, fixed: bool, notes: &mut Vec<String>) -> Result<PhaseConfig, Refusal> {
    if load.benchmark_grace_period.is_some() && load.benchmark_duration.is_none() {
        return Err(Refusal::new(
            "--benchmark-grace-period needs --benchmark-duration: it begins when the duration ends",
        ));
    }
    let paced = arrival(load.request_rate, load.arrival_pattern, "--arrival-pattern", notes);
    let arrival = if fixed { Arrival::FixedSchedule } else { paced };
    let grace = load.benchmark_grace_period.unwrap_or(Grace::Span(GRACE));
    Ok(PhaseConfig {
        name: "profiling",
        kind: PhaseKind::Profiling,
        arrival,
        concurrency: match arrival {
            Arrival::ClosedLoop => Some(load.concurrency.unwrap_or(1)),
            _ => load.concurrency,
        },
        requests: requests(load, fixed, notes),
        duration_ns: load.benchmark_duration,
        grace_ns: match (load.benchmark_duration, grace) {
            (Some(_), Grace::Span(ns)) => Some(ns),
            (None, _) | (_, Grace::Infinite) => None,
        },
    })
}

fn requests(load: &args::Load, fixed: bool, notes: &mut Vec<String>) -> Option<u64> {
    match (fixed, load.request_count, load.benchmark_duration) {
        (true, Some(_), _) => {
            notes.push("--request-count has no effect with a fixed schedule: the trace says how many".into());
            None
        }
        (true, None, _) | (false, None, Some(_)) => None,
        (false, Some(n), _) => Some(n),
        (false, None, None) => {
            if load.concurrency.is_some_and(|n| u64::from(n) > REQUESTS) {
                notes.push(format!(
                    "only {REQUESTS} requests are sent, fewer than --concurrency; --request-count or \
                     --benchmark-duration sets how many"
                ));
            }
            Some(REQUESTS)
        }
    }
}

fn warmup_phase(load: &args::Load, warmup: &args::Warmup, notes: &mut Vec<String>) -> Option<PhaseConfig> {
    let Some(requests) = warmup.warmup_requests else {
        for (flag, given) in [
            ("--warmup-concurrency", warmup.warmup_concurrency.is_some()),
            ("--warmup-request-rate", warmup.warmup_request_rate.is_some()),
            ("--warmup-arrival-pattern", warmup.warmup_arrival_pattern.is_some()),
        ] {
            if given {
                notes.push(format!("{flag} has no effect without --warmup-request-count"));
            }
        }
        return None;
    };
    let rate = warmup.warmup_request_rate.or(load.request_rate);
    // An inherited pattern has had its note with the measurement.
    let (pattern, notes) = match warmup.warmup_arrival_pattern {
        Some(own) => (Some(own), notes),
        None => (load.arrival_pattern, &mut Vec::new()),
    };
    let arrival = arrival(rate, pattern, "--warmup-arrival-pattern", notes);
    let concurrency = warmup.warmup_concurrency.or(load.concurrency);
    Some(PhaseConfig {
        name: "warmup",
        kind: PhaseKind::Warmup,
        arrival,
        concurrency: match arrival {
            Arrival::ClosedLoop => Some(concurrency.unwrap_or(1)),
            _ => concurrency,
        },
        requests: Some(requests),
        duration_ns: None,
        grace_ns: None,
    })
}
