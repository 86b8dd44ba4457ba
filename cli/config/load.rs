//! How much is sent, when, and what ends it.

use super::series::RateSeries;
use crate::args;
use crate::refusal::Refusal;
use crate::values::{ArrivalPattern, Grace, LatePolicy, RampStrategy};
use maser_engine::clock::{Nanos, SECOND};
use maser_engine::schedule::Ramp;

/// Requests of a run that nothing bounds.
const REQUESTS: u64 = 10;

/// What requests in flight may take after the duration.
const GRACE: Nanos = 30 * SECOND;

/// What decides when a request is due.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Arrival {
    /// The end of another one.
    ClosedLoop,
    /// Even gaps at this many requests per second.
    Constant(f64),
    /// Exponential gaps at this many requests per second.
    Poisson(f64),
    /// Gamma gaps at `rate` requests per second.
    Gamma {
        /// Requests per second.
        rate: f64,
        /// Shape of the gaps' distribution.
        smoothness: f64,
    },
    /// Turns of a steady population of users.
    UserCentric {
        /// Turns per second of all together.
        rate: f64,
        /// Users at a time.
        users: u32,
    },
    /// The trace.
    FixedSchedule,
}

impl Arrival {
    /// Requests per second, if that is what decides.
    pub(crate) fn rate(self) -> Option<f64> {
        match self {
            Self::Constant(rate) | Self::Poisson(rate) => Some(rate),
            Self::Gamma { rate, .. } | Self::UserCentric { rate, .. } => Some(rate),
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

/// Requests that are cut before their answer is complete.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Cancellation {
    /// Percent of the requests.
    pub(crate) percent: f64,
    /// From the last byte sent to the cut, nanoseconds.
    pub(crate) delay: Nanos,
}

/// One phase of the run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PhaseConfig {
    /// `warmup` or `profiling`.
    pub(crate) name: &'static str,
    /// Whether it counts.
    pub(crate) kind: PhaseKind,
    /// Begins while the last requests of the phase before it are in flight.
    pub(crate) seamless: bool,
    /// When requests are due; under a series at the rate of its first point.
    pub(crate) arrival: Arrival,
    /// How the rate changes.
    pub(crate) series: Option<RateSeries>,
    /// How the rate, or that of the first point, is come up to.
    pub(crate) rate_ramp: Option<Ramp>,
    /// Conversations under way at most; always set in a closed loop.
    pub(crate) concurrency: Option<u32>,
    /// How that is come up to.
    pub(crate) concurrency_ramp: Option<Ramp>,
    /// Requests at most that wait for their first token.
    pub(crate) prefill_concurrency: Option<u32>,
    /// How that is come up to.
    pub(crate) prefill_ramp: Option<Ramp>,
    /// Requests to send; none with a fixed schedule, whose rows say how many.
    pub(crate) requests: Option<u64>,
    /// Conversations to begin; none with a fixed schedule.
    pub(crate) sessions: Option<u64>,
    /// How long to send, nanoseconds.
    pub(crate) duration_ns: Option<Nanos>,
    /// What requests in flight may take once the duration is over, nanoseconds; none waits for all of them.
    pub(crate) grace_ns: Option<Nanos>,
    /// Requests that are cut.
    pub(crate) cancellation: Option<Cancellation>,
}

impl PhaseConfig {
    /// The highest rate it comes to, requests per second, if it has one.
    pub(crate) fn peak_rate(&self) -> Option<f64> {
        self.series.as_ref().map(RateSeries::peak).or_else(|| self.arrival.rate())
    }
}

/// The phases in order: a warmup if asked for, then the measurement.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Load {
    /// At least one; the last is the measurement.
    pub(crate) phases: Vec<PhaseConfig>,
    /// What becomes of a scheduled request that finds no free slot.
    pub(crate) late_policy: LatePolicy,
    /// The share of failed requests above which the run is stopped.
    pub(crate) failed_threshold: Option<f64>,
    /// The percentage of arrivals on time below which the run is stopped.
    pub(crate) abort_below_adherence: Option<f64>,
}

/// The options that the load follows from.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) load: args::Load,
    pub(super) warmup: args::Warmup,
    pub(super) truth: args::Truth,
    pub(super) series: Option<RateSeries>,
    pub(super) streaming: bool,
}

impl Asked {
    fn ramp(&self, duration: Option<Nanos>) -> Option<Ramp> {
        let strategy = self.truth.ramp_strategy.unwrap_or(RampStrategy::Linear);
        duration.map(|duration| Ramp { duration, strategy })
    }
}

impl Load {
    /// Resolves the phases; `fixed` says that the trace sets the pace.
    pub(super) fn resolve(asked: &Asked, fixed: bool, notes: &mut Vec<String>) -> Result<Self, Refusal> {
        let (load, truth) = (&asked.load, &asked.truth);
        check_pace(load)?;
        check_bounds(load)?;
        check_concurrency(asked)?;
        check_prefill(asked)?;
        let warmup = warmup_phase(asked, notes)?;
        let mut profiling = profiling_phase(asked, fixed, notes)?;
        profiling.seamless = truth.seamless_warmup && warmup.is_some();
        note_ramps(asked, &profiling, notes);
        note_truth(truth, &profiling, notes);
        Ok(Self {
            phases: warmup.into_iter().chain([profiling]).collect(),
            late_policy: truth.late_policy.unwrap_or(LatePolicy::Queue),
            failed_threshold: load.failed_request_threshold,
            abort_below_adherence: truth.abort_below_adherence,
        })
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
            Arrival::UserCentric { rate, users } => format!("user_centric-users{users}-qps{rate:?}"),
            _ => [concurrency, rate].into_iter().flatten().collect::<Vec<_>>().join("-"),
        }
    }
}

/// Refuses options that each set a pace of their own. The reference lets some of them win in silence.
fn check_pace(load: &args::Load) -> Result<(), Refusal> {
    let (rate, series, users) = (load.request_rate, &load.request_rate_series, load.user_centric_rate);
    if rate.is_some() && series.is_some() {
        return Err(Refusal::new("--request-rate: --request-rate-series sets the rate; remove one of the two"));
    }
    if load.num_users.is_some() && users.is_none() {
        return Err(Refusal::new("--num-users needs --user-centric-rate: it is the users who share that rate"));
    }
    if users.is_some() {
        for (flag, given) in [
            ("--request-rate", rate.is_some()),
            ("--request-rate-series", series.is_some()),
            ("--arrival-pattern", load.arrival_pattern.is_some()),
            ("--arrival-smoothness", load.arrival_smoothness.is_some()),
            ("--request-rate-ramp-duration", load.request_rate_ramp_duration.is_some()),
        ] {
            if given {
                return Err(Refusal::new(format!(
                    "{flag}: --user-centric-rate sets a pace of its own, turn by turn; remove one of the two"
                )));
            }
        }
        if load.num_users.is_none() {
            return Err(Refusal::new("--user-centric-rate needs --num-users: among how many the rate is shared"));
        }
    }
    if let (Some(_), Some(pattern)) = (load.arrival_smoothness, load.arrival_pattern)
        && pattern != ArrivalPattern::Gamma
    {
        return Err(Refusal::new("--arrival-smoothness goes with --arrival-pattern gamma; remove one of the two"));
    }
    if load.request_rate_ramp_duration.is_some() && rate.is_none() && series.is_none() {
        return Err(Refusal::new("--request-rate-ramp-duration needs --request-rate: there is no rate to come up to"));
    }
    Ok(())
}

fn check_bounds(load: &args::Load) -> Result<(), Refusal> {
    if load.benchmark_grace_period.is_some() && load.benchmark_duration.is_none() {
        return Err(Refusal::new(
            "--benchmark-grace-period needs --benchmark-duration: it begins when the duration ends",
        ));
    }
    if load.request_cancellation_delay.is_some() && load.request_cancellation_rate.is_none() {
        return Err(Refusal::new(
            "--request-cancellation-delay needs --request-cancellation-rate: how many requests are cut",
        ));
    }
    let users = load.num_users.map_or(0, u64::from);
    for (flag, given) in [("--request-count", load.request_count), ("--num-conversations", load.num_conversations)] {
        if let Some(n) = given.filter(|n| *n < users) {
            return Err(Refusal::new(format!("{flag} {n} is fewer than the {users} of --num-users")));
        }
    }
    Ok(())
}

/// Requests in flight at most: each takes about a kilobyte, and the kernel has as many connections in a few machines only.
const MOST_AT_ONCE: u32 = 1_000_000;

fn check_concurrency(asked: &Asked) -> Result<(), Refusal> {
    let given = [
        ("--concurrency", asked.load.concurrency),
        ("--prefill-concurrency", asked.load.prefill_concurrency),
        ("--warmup-concurrency", asked.warmup.warmup_concurrency),
        ("--warmup-prefill-concurrency", asked.warmup.warmup_prefill_concurrency),
        ("--num-users", asked.load.num_users),
    ];
    match given.into_iter().find_map(|(flag, n)| Some((flag, n.filter(|n| *n > MOST_AT_ONCE)?))) {
        Some((flag, n)) => Err(Refusal::new(format!("{flag} {n}: expected at most {MOST_AT_ONCE}"))),
        None => Ok(()),
    }
}

fn check_prefill(asked: &Asked) -> Result<(), Refusal> {
    let (load, warmup) = (&asked.load, &asked.warmup);
    let warmup_concurrency = warmup.warmup_concurrency.or(load.concurrency);
    for (flag, prefill, over, concurrency) in [
        ("--prefill-concurrency", load.prefill_concurrency, "--concurrency", load.concurrency),
        ("--warmup-prefill-concurrency", warmup.warmup_prefill_concurrency, "the warmup's", warmup_concurrency),
    ] {
        let Some(n) = prefill else { continue };
        if !asked.streaming {
            return Err(Refusal::new(format!("{flag} needs --streaming: it counts requests until their first token")));
        }
        if let Some(all) = concurrency.filter(|all| *all < n) {
            return Err(Refusal::new(format!("{flag} {n} is more than {over} {all}")));
        }
    }
    Ok(())
}

/// What sets the pace of one phase.
struct Pace<'a> {
    rate: Option<f64>,
    pattern: Option<ArrivalPattern>,
    smoothness: Option<f64>,
    /// The spelling of the pattern's flag.
    flag: &'a str,
}

impl Pace<'_> {
    fn arrival(&self, notes: &mut Vec<String>) -> Arrival {
        let flag = self.flag;
        let Some(rate) = self.rate else {
            match self.pattern {
                None | Some(ArrivalPattern::ConcurrencyBurst) => {}
                Some(_) => notes.push(format!("{flag} has no effect without a request rate")),
            }
            return Arrival::ClosedLoop;
        };
        match (self.pattern, self.smoothness) {
            (Some(ArrivalPattern::Constant), _) => Arrival::Constant(rate),
            (Some(ArrivalPattern::Gamma), smoothness) => Arrival::Gamma { rate, smoothness: smoothness.unwrap_or(1.0) },
            (None, Some(smoothness)) => Arrival::Gamma { rate, smoothness },
            (Some(ArrivalPattern::ConcurrencyBurst), _) => {
                notes.push(format!("{flag} concurrency-burst is poisson where there is a request rate"));
                Arrival::Poisson(rate)
            }
            (Some(ArrivalPattern::Poisson) | None, _) => Arrival::Poisson(rate),
        }
    }
}

fn profiling_phase(asked: &Asked, fixed: bool, notes: &mut Vec<String>) -> Result<PhaseConfig, Refusal> {
    let load = &asked.load;
    let pace = Pace {
        rate: load.request_rate.or_else(|| asked.series.as_ref().map(RateSeries::first)),
        pattern: load.arrival_pattern,
        smoothness: load.arrival_smoothness,
        flag: "--arrival-pattern",
    };
    let paced = pace.arrival(notes);
    let arrival = match (fixed, load.user_centric_rate, load.num_users) {
        (true, ..) => Arrival::FixedSchedule,
        (false, Some(rate), Some(users)) => Arrival::UserCentric { rate, users },
        _ => paced,
    };
    if load.arrival_smoothness.is_some() && arrival == Arrival::ClosedLoop {
        notes.push("--arrival-smoothness has no effect without a request rate".into());
    }
    let grace = load.benchmark_grace_period.unwrap_or(Grace::Span(GRACE));
    Ok(PhaseConfig {
        name: "profiling",
        kind: PhaseKind::Profiling,
        seamless: false,
        arrival,
        series: asked.series.clone().filter(|_| !fixed),
        rate_ramp: asked.ramp(load.request_rate_ramp_duration),
        concurrency: concurrency(arrival, load.concurrency),
        concurrency_ramp: asked.ramp(load.concurrency_ramp_duration),
        prefill_concurrency: load.prefill_concurrency,
        prefill_ramp: asked.ramp(load.prefill_concurrency_ramp_duration),
        requests: requests(load, fixed, notes),
        sessions: sessions(load, fixed, notes),
        duration_ns: load.benchmark_duration,
        grace_ns: grace_ns(load.benchmark_duration, grace),
        cancellation: load
            .request_cancellation_rate
            .map(|percent| Cancellation { percent, delay: load.request_cancellation_delay.unwrap_or(0) }),
    })
}

/// A closed loop has always a limit.
fn concurrency(arrival: Arrival, typed: Option<u32>) -> Option<u32> {
    match arrival {
        Arrival::ClosedLoop => Some(typed.unwrap_or(1)),
        _ => typed,
    }
}

fn grace_ns(duration: Option<Nanos>, grace: Grace) -> Option<Nanos> {
    match (duration, grace) {
        (Some(_), Grace::Span(ns)) => Some(ns),
        (None, _) | (_, Grace::Infinite) => None,
    }
}

fn requests(load: &args::Load, fixed: bool, notes: &mut Vec<String>) -> Option<u64> {
    if fixed {
        if load.request_count.is_some() {
            notes.push("--request-count has no effect with a fixed schedule: the trace says how many".into());
        }
        return None;
    }
    let bounded = load.benchmark_duration.is_some() || load.num_conversations.is_some();
    if load.request_count.is_some() || bounded {
        return load.request_count;
    }
    // A population of users needs a turn each.
    let users = load.num_users.map_or(0, u64::from);
    if load.concurrency.is_some_and(|n| u64::from(n) > REQUESTS) {
        notes.push(format!(
            "only {REQUESTS} requests are sent, fewer than --concurrency; --request-count or --benchmark-duration sets \
             how many"
        ));
    }
    Some(REQUESTS.max(users))
}

fn sessions(load: &args::Load, fixed: bool, notes: &mut Vec<String>) -> Option<u64> {
    if fixed && load.num_conversations.is_some() {
        notes.push("--num-conversations has no effect with a fixed schedule: the trace says how many".into());
    }
    load.num_conversations.filter(|_| !fixed)
}

/// Ramps of what has no limit.
fn note_ramps(asked: &Asked, phase: &PhaseConfig, notes: &mut Vec<String>) {
    let load = &asked.load;
    for (flag, given, limit, over) in [
        ("--concurrency-ramp-duration", load.concurrency_ramp_duration, phase.concurrency, "--concurrency"),
        (
            "--prefill-concurrency-ramp-duration",
            load.prefill_concurrency_ramp_duration,
            phase.prefill_concurrency,
            "--prefill-concurrency",
        ),
    ] {
        if given.is_some() && limit.is_none() {
            notes.push(format!("{flag} has no effect without {over}"));
        }
    }
    let warmup = &asked.warmup;
    let ramps = [
        load.request_rate_ramp_duration,
        load.concurrency_ramp_duration,
        load.prefill_concurrency_ramp_duration,
        warmup.warmup_request_rate_ramp_duration,
        warmup.warmup_concurrency_ramp_duration,
        warmup.warmup_prefill_concurrency_ramp_duration,
    ];
    if asked.truth.ramp_strategy.is_some() && ramps.iter().all(Option::is_none) {
        notes.push("--ramp-strategy has no effect without the duration of a ramp".into());
    }
}

fn note_truth(truth: &args::Truth, phase: &PhaseConfig, notes: &mut Vec<String>) {
    let scheduled = phase.arrival != Arrival::ClosedLoop;
    if truth.late_policy.is_some() && !(scheduled && phase.concurrency.is_some()) {
        notes.push("--late-policy has no effect without --concurrency over a rate or a schedule".into());
    }
    if truth.abort_below_adherence.is_some() && !scheduled {
        notes.push("--abort-below-adherence has no effect without a rate or a schedule".into());
    }
}

fn warmup_phase(asked: &Asked, notes: &mut Vec<String>) -> Result<Option<PhaseConfig>, Refusal> {
    let (load, warmup) = (&asked.load, &asked.warmup);
    if warmup.warmup_grace_period.is_some() && warmup.warmup_duration.is_none() {
        return Err(Refusal::new("--warmup-grace-period needs --warmup-duration: it begins when the duration ends"));
    }
    if warmup.warmup_requests.is_none() && warmup.warmup_sessions.is_none() && warmup.warmup_duration.is_none() {
        note_no_warmup(warmup, asked.truth.seamless_warmup, notes);
        return Ok(None);
    }
    let rate = warmup.warmup_request_rate.or(load.request_rate);
    if warmup.warmup_request_rate_ramp_duration.is_some() && rate.is_none() {
        return Err(Refusal::new(
            "--warmup-request-rate-ramp-duration needs --warmup-request-rate: there is no rate to come up to",
        ));
    }
    // An inherited pattern has had its note with the measurement.
    let own = warmup.warmup_arrival_pattern;
    let inherited = &mut Vec::new();
    let pace = Pace {
        rate,
        pattern: own.or(load.arrival_pattern),
        smoothness: load.arrival_smoothness,
        flag: "--warmup-arrival-pattern",
    };
    let arrival = pace.arrival(if own.is_some() { notes } else { inherited });
    let rate_ramp = warmup.warmup_request_rate_ramp_duration.or(load.request_rate_ramp_duration);
    Ok(Some(PhaseConfig {
        name: "warmup",
        kind: PhaseKind::Warmup,
        seamless: false,
        arrival,
        series: None,
        rate_ramp: asked.ramp(rate_ramp.filter(|_| rate.is_some())),
        concurrency: concurrency(arrival, warmup.warmup_concurrency.or(load.concurrency)),
        concurrency_ramp: asked.ramp(warmup.warmup_concurrency_ramp_duration.or(load.concurrency_ramp_duration)),
        prefill_concurrency: warmup.warmup_prefill_concurrency.or(load.prefill_concurrency),
        prefill_ramp: asked
            .ramp(warmup.warmup_prefill_concurrency_ramp_duration.or(load.prefill_concurrency_ramp_duration)),
        requests: warmup.warmup_requests,
        sessions: warmup.warmup_sessions,
        duration_ns: warmup.warmup_duration,
        grace_ns: grace_ns(warmup.warmup_duration, warmup.warmup_grace_period.unwrap_or(Grace::Infinite)),
        cancellation: None,
    }))
}

fn note_no_warmup(warmup: &args::Warmup, seamless: bool, notes: &mut Vec<String>) {
    for (flag, given) in [
        ("--seamless-warmup", seamless),
        ("--warmup-concurrency", warmup.warmup_concurrency.is_some()),
        ("--warmup-prefill-concurrency", warmup.warmup_prefill_concurrency.is_some()),
        ("--warmup-request-rate", warmup.warmup_request_rate.is_some()),
        ("--warmup-arrival-pattern", warmup.warmup_arrival_pattern.is_some()),
        ("--warmup-concurrency-ramp-duration", warmup.warmup_concurrency_ramp_duration.is_some()),
        ("--warmup-prefill-concurrency-ramp-duration", warmup.warmup_prefill_concurrency_ramp_duration.is_some()),
        ("--warmup-request-rate-ramp-duration", warmup.warmup_request_rate_ramp_duration.is_some()),
    ] {
        if given {
            notes.push(format!(
                "{flag} has no effect without --warmup-request-count, --num-warmup-sessions or --warmup-duration"
            ));
        }
    }
}
