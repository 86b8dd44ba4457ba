//! When a trace's rows are sent, and what is done to their times.

use crate::args;
use crate::refusal::Refusal;
use crate::values::{DatasetSampling, Ties};
use maser_engine::clock::{MILLI, Nanos};

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
    if let Some(flag) = own_pace(&args.load).filter(|_| fixed == FixedSchedule::Yes) {
        return Err(Refusal::new(format!(
            "{flag}: with --fixed-schedule the trace sets the pace; remove one of the two"
        )));
    }
    let window = ScheduleWindow {
        start_ns: typed.start_offset.map(|ms| ms.saturating_mul(MILLI)),
        end_ns: typed.end_offset.map(|ms| ms.saturating_mul(MILLI)),
        auto_given: typed.auto_offset,
    };
    Ok((fixed, window))
}

/// In which order conversations are sent, and that something else does not have it.
pub(super) fn sampling(args: &args::Profile, fixed: FixedSchedule) -> Result<DatasetSampling, Refusal> {
    let sampling = args.input.sampling.unwrap_or(DatasetSampling::Sequential);
    if fixed == FixedSchedule::Yes {
        check_order(sampling, "--fixed-schedule")?;
    }
    if args.load.user_centric_rate.is_some() && sampling != DatasetSampling::Sequential {
        return Err(Refusal::new(
            "--dataset-sampling-strategy: with --user-centric-rate the users take the conversations in order; remove one \
             of the two",
        ));
    }
    Ok(sampling)
}

/// A schedule has its own order; `why` there is one.
pub(super) fn check_order(sampling: DatasetSampling, why: &str) -> Result<(), Refusal> {
    match sampling {
        DatasetSampling::Sequential => Ok(()),
        DatasetSampling::Random | DatasetSampling::Shuffle => Err(Refusal::new(format!(
            "--dataset-sampling-strategy: {why}, so every request has its time and there is no other order; use sequential"
        ))),
    }
}

/// The flag that sets a pace of its own, if there is one: it does not go with a trace's.
pub(super) fn own_pace(load: &args::Load) -> Option<&'static str> {
    let flags = [
        ("--request-rate", load.request_rate.is_some()),
        ("--request-rate-series", load.request_rate_series.is_some()),
        ("--user-centric-rate", load.user_centric_rate.is_some()),
        ("--arrival-smoothness", load.arrival_smoothness.is_some()),
        ("--request-rate-ramp-duration", load.request_rate_ramp_duration.is_some()),
    ];
    flags.into_iter().find(|(_, given)| *given).map(|(flag, _)| flag)
}

/// Who decides when later turns of a trace's conversations are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loop {
    /// Their timestamps.
    Open,
    /// Their timestamps, and each row is a conversation of its own.
    Strict,
    /// The answers before them.
    Closed,
}

/// What is done to a trace's times, in this order: ties are spread, all is sped up, pauses are shortened.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Replay {
    /// What becomes of equal timestamps.
    pub(crate) ties: Ties,
    /// Timestamps and delays are divided by this.
    pub(crate) speedup: f64,
    /// The longest pause between timestamps, nanoseconds.
    pub(crate) idle_gap_cap: Option<Nanos>,
    /// The longest delay between an answer and the next turn, nanoseconds.
    pub(crate) turn_delay_cap: Option<Nanos>,
    /// Who decides when later turns are sent.
    pub(crate) open: Loop,
}

impl Replay {
    /// Reads the options; what `fixed` says of the schedule may leave some of them without effect.
    pub(super) fn resolve(
        typed: &args::Replay,
        ties: Option<Ties>,
        fixed: bool,
        notes: &mut Vec<String>,
    ) -> Result<Self, Refusal> {
        let open = match (typed.open_loop_strict, typed.no_open_loop_replay) {
            (true, true) => {
                return Err(Refusal::new(
                    "--open-loop-strict sends every row at its timestamp, --no-open-loop-replay does not; remove one of \
                     the two",
                ));
            }
            (true, false) => Loop::Strict,
            (false, true) if fixed => Loop::Closed,
            (false, _) => Loop::Open,
        };
        for (flag, given) in [
            ("--ties", ties.is_some()),
            ("--replay-speedup", typed.replay_speedup.is_some()),
            ("--max-idle-gap-cap-seconds", typed.max_idle_gap_cap_seconds.is_some()),
            ("--open-loop-replay", typed.open_loop_replay),
            ("--no-open-loop-replay", typed.no_open_loop_replay),
            ("--open-loop-strict", typed.open_loop_strict),
        ] {
            if given && !fixed {
                notes.push(format!("{flag} has no effect without the timestamps of a trace (--fixed-schedule)"));
            }
        }
        Ok(Self {
            ties: ties.unwrap_or_default(),
            speedup: typed.replay_speedup.unwrap_or(1.0),
            idle_gap_cap: typed.max_idle_gap_cap_seconds,
            turn_delay_cap: typed.inter_turn_delay_cap_seconds,
            open,
        })
    }
}
