//! What became of every arrival that a phase offered: the account that must balance.

use crate::clock::{Instant, MICRO, MILLI, Nanos, SECOND};
use crate::log::{Log, PhaseMark};
use crate::record::{LATE, Record, flag};
use serde::Serialize;
use std::borrow::Borrow;

/// An arrival that is sent this long after its time or later is late.
pub const TOLERANCE: Nanos = LATE;

/// Upper edges of the histogram of send delays, nanoseconds; what is at or above the last is in a bucket of its own.
pub const EDGES: [Nanos; 12] = [
    MICRO,
    10 * MICRO,
    50 * MICRO,
    100 * MICRO,
    500 * MICRO,
    MILLI,
    5 * MILLI,
    10 * MILLI,
    50 * MILLI,
    100 * MILLI,
    500 * MILLI,
    SECOND,
];

/// The arrivals with a send delay below an edge and not below the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Bucket {
    /// Upper edge, nanoseconds, itself not included; `None` for the last bucket.
    pub below_ns: Option<Nanos>,
    /// Arrivals.
    pub count: u64,
}

/// Neighbouring arrivals that were all late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Stretch {
    /// When the first of them was due, nanoseconds from the start of the phase.
    pub from_ns: Nanos,
    /// From then until the last of them was sent, what the server took not counted, nanoseconds.
    pub span_ns: Nanos,
    /// How many.
    pub arrivals: u64,
    /// The largest send delay among them, nanoseconds.
    pub worst_ns: Nanos,
}

/// A distribution of spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Spread {
    /// How many spans.
    pub count: u64,
    /// The median (nearest rank), nanoseconds.
    pub p50_ns: Nanos,
    /// The 99th percentile (nearest rank), nanoseconds.
    pub p99_ns: Nanos,
    /// The longest, nanoseconds.
    pub max_ns: Nanos,
}

impl Spread {
    /// Of spans in any order; `None` of none.
    pub fn of(mut waits: Vec<Nanos>) -> Option<Self> {
        let count = waits.len();
        let rank = |percent: usize| (count * percent).div_ceil(100).saturating_sub(1);
        let max_ns = *waits.iter().max()?;
        let mut at = |percent| *waits.select_nth_unstable(rank(percent)).1;
        Some(Self { count: count as u64, p50_ns: at(50), p99_ns: at(99), max_ns })
    }
}

/// What the timing core and the executors counted of a phase, for what leaves no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Permissions to send, dropped and idle ones included.
    pub issued: u64,
    /// Arrivals given up because no slot was free and the policy was to drop them.
    pub dropped: u64,
    /// Arrivals that had nothing to send: all sessions were begun and none was waiting.
    pub idle: u64,
    /// Permissions handed back unstarted when the phase ended.
    pub unsent: u64,
    /// Requests sent beyond a limit because no slot was free and the policy was to send them.
    pub over_limit: u64,
    /// Requests of a closed loop that found nobody to connect to, so that their slot was held back.
    pub paused: u64,
    /// For how long, nanoseconds, the sum over slots.
    pub paused_ns: Nanos,
    /// Requests in flight when the next phase began.
    pub carried_over: u64,
    /// When the last credit was issued; [`Instant::UNSET`] if that is not known.
    pub sent_end: Instant,
}

impl Counts {
    /// Of a phase that came to its end.
    pub fn of(mark: &PhaseMark) -> Self {
        Self {
            issued: mark.issued,
            dropped: mark.dropped,
            idle: mark.idle,
            // A log may be damaged or another version's: its counters need not fit together.
            unsent: mark.unused.saturating_sub(mark.dropped).saturating_sub(mark.idle),
            over_limit: mark.over_limit,
            paused: mark.paused,
            paused_ns: mark.paused_ns,
            carried_over: mark.carried_over,
            sent_end: mark.sent_end,
        }
    }
}

/// The account of one phase: `offered = sent + dropped + idle + unsent + unrecorded`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ledger {
    /// The phase's name.
    pub phase: String,
    /// Whether it is left out of the results.
    pub warmup: bool,
    /// Whether its arrivals had planned times; without, nothing can be late.
    pub scheduled: bool,
    /// Arrivals that the schedule called for while the phase was issuing (in a closed loop: requests it had slots for).
    pub offered: u64,
    /// Requests that were started.
    pub sent: u64,
    /// Of those with a planned time, with a send delay of [`TOLERANCE`] or more:
    /// `late = late_queued + late_connection_limit + late_stall + late_other`.
    pub late: u64,
    /// Of those late, that waited for a free slot: it was the limit asked for that kept them, not the client.
    pub late_queued: u64,
    /// Of those late, that waited for a connection because the client may have no more, or could open none.
    pub late_connection_limit: u64,
    /// Of those late, that were due, or not yet sent, while their thread stood still.
    pub late_stall: u64,
    /// Of those late, that were late for no reason known: the client was busy.
    pub late_other: u64,
    /// Of those sent, that found no free slot at their time and waited for one.
    pub queued: u64,
    /// Of those sent, that went beyond a limit.
    pub over_limit: u64,
    /// Of those sent, that were still waiting, due already, when the phase had issued its last.
    pub backlog: u64,
    /// Of those sent, that were in flight when the next phase began.
    pub carried_over: u64,
    /// Of those sent in a closed loop, that found nobody to connect to: their slot was held back.
    pub paused: u64,
    /// For how long, nanoseconds, the sum over slots.
    pub paused_ns: Nanos,
    /// Given up because no slot was free.
    pub dropped: u64,
    /// Had nothing to send.
    pub idle: u64,
    /// Handed back unstarted when the phase ended.
    pub unsent: u64,
    /// Started, but the record was lost or had not been written when the run was killed.
    pub unrecorded: u64,
    /// Send delays of the scheduled ones among `sent`.
    pub slip: Vec<Bucket>,
    /// Nanoseconds: the bound of "on time".
    pub tolerance_ns: Nanos,
    /// Share of the offered arrivals with a send delay within the tolerance, percent; `None` without a schedule.
    pub adherence_percent: Option<f64>,
    /// The late stretch that lasted longest.
    pub longest_late: Option<Stretch>,
    /// Send delays of requests without a planned time, from when their slot was free or their session's think time over.
    /// Those that a limit kept back are not among them, nor those that began with the phase; `None` if there are no others.
    pub refill: Option<Spread>,
    /// Waits of [`TOLERANCE`] or more for one of the connections that the client may have, whatever it was that waited.
    pub connection_wait: Option<Spread>,
    /// Times of [`TOLERANCE`] or more in which a connection was being opened: the server's part.
    pub connecting: Option<Spread>,
    /// All of it in a sentence.
    pub verdict: String,
}

impl Ledger {
    /// The account of the phase `name` that began at `start`, from its records in any order.
    pub fn new(
        (name, warmup): (&str, bool),
        start: Instant,
        counts: Option<Counts>,
        records: impl IntoIterator<Item: Borrow<Record>>,
    ) -> Self {
        let mut tally = Tally::default();
        for record in records {
            tally.add(record.borrow(), counts.map_or(Instant::UNSET, |c| c.sent_end));
        }
        let counts = counts.unwrap_or(Counts { issued: tally.sent, ..Counts::default() });
        let accounted = tally.sent + counts.dropped + counts.idle + counts.unsent;
        let offered = counts.issued.max(accounted);
        let scheduled = !tally.times.is_empty() || counts.dropped > 0;
        let on_time = tally.times.len() as u64 - tally.late;
        // Turns that follow an answer have no planned time of their own, and nobody can be late with nothing.
        let planned = offered - counts.idle - (tally.sent - tally.times.len() as u64);
        let adherence = (scheduled && planned > 0).then(|| 100.0 * on_time as f64 / planned as f64);
        let mut ledger = Self {
            phase: name.to_owned(),
            warmup,
            scheduled,
            offered,
            sent: tally.sent,
            late: tally.late,
            late_queued: tally.late_by[Cause::Slot as usize],
            late_connection_limit: tally.late_by[Cause::Connection as usize],
            late_stall: tally.late_by[Cause::Stall as usize],
            late_other: tally.late_by[Cause::Other as usize],
            queued: tally.queued,
            over_limit: counts.over_limit,
            paused: counts.paused,
            paused_ns: counts.paused_ns,
            backlog: tally.backlog,
            carried_over: counts.carried_over,
            dropped: counts.dropped,
            idle: counts.idle,
            unsent: counts.unsent,
            unrecorded: offered - accounted,
            slip: tally.buckets(),
            tolerance_ns: TOLERANCE,
            adherence_percent: adherence,
            longest_late: longest_late(&mut tally.times, start),
            refill: Spread::of(tally.waits),
            connection_wait: Spread::of(tally.blocked),
            connecting: Spread::of(tally.connecting),
            verdict: String::new(),
        };
        ledger.verdict = ledger.sentence(planned);
        ledger
    }

    /// One account for each phase that a log knows of and that has begun, beside the phase's index.
    pub fn of_log(log: &Log) -> Vec<(usize, Self)> {
        let of_phase = |(n, info): (usize, &crate::log::PhaseInfo)| {
            let own = || log.records().map(|(r, _)| r).filter(move |r| usize::from(r.phase) == n);
            let mark = log.phases.iter().find(|m| usize::from(m.phase) == n);
            let start = mark.map(|m| m.start).or_else(|| own().map(|r| r.due).min())?;
            Some((n, Self::new((&info.name, info.warmup), start, mark.map(Counts::of), own())))
        };
        log.header.phases.iter().enumerate().filter_map(of_phase).collect()
    }

    /// What kept those that were late, in brackets; nothing where no reason is known.
    fn causes(&self) -> String {
        let kept: Vec<String> = [
            (self.late_queued, "waited for a slot"),
            (self.late_connection_limit, "waited for a connection"),
            (self.late_stall, "were held up while the client stood still"),
        ]
        .into_iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, what)| if n == self.late { format!("all {what}") } else { format!("{n} {what}") })
        .collect();
        if kept.is_empty() { String::new() } else { format!(" ({})", kept.join(", ")) }
    }

    fn sentence(&self, planned: u64) -> String {
        let mut troubles = Vec::new();
        if let Some(worst) = self.longest_late {
            let (kept, were) = (self.causes(), if self.late == 1 { "was" } else { "were" });
            troubles.push(format!(
                "{} {were} late{kept}; worst stretch: {} long from {} on, by up to {}",
                self.late,
                span(worst.span_ns),
                span(worst.from_ns),
                span(worst.worst_ns)
            ));
        }
        for (n, what) in [
            (self.queued, "waited for a free slot"),
            (self.over_limit, "went beyond the limit"),
            (self.backlog, "were still waiting when the last had been issued"),
            (self.carried_over, "were in flight when the next phase began"),
            (self.dropped, "were dropped because no slot was free"),
            (self.idle, "had nothing to send"),
            (self.unsent, "were not sent before the end"),
            (self.unrecorded, "have no record"),
        ] {
            if n > 0 {
                troubles.push(format!("{n} {what}"));
            }
        }
        if self.paused > 0 {
            let (n, all) = (self.paused, span(self.paused_ns));
            troubles.push(format!("slots paused after refused connections {n} times, for {all} in all"));
        }
        let head = match self.adherence_percent {
            Some(percent) => {
                let tolerance = span(self.tolerance_ns);
                format!("{} % of {planned} arrivals were sent within {tolerance} of their time", share(percent))
            }
            None => format!("{} of {} requests were sent as slots came free", self.sent, self.offered),
        };
        if troubles.is_empty() { format!("{head}.") } else { format!("{head}; {}.", troubles.join("; ")) }
    }
}

/// Why a request was late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Slot,
    Connection,
    Stall,
    Other,
}

impl Cause {
    /// Of a request that is late: the client's own limit before the one asked for, since it waited for both.
    fn of(record: &Record) -> Self {
        match () {
            () if record.blocked >= TOLERANCE || record.has(flag::LOCAL_LIMIT) => Self::Connection,
            () if record.has(flag::QUEUED) => Self::Slot,
            () if record.has(flag::STALLED) => Self::Stall,
            () => Self::Other,
        }
    }
}

/// A percentage that is 100 only if nothing is missing from it.
fn share(percent: f64) -> String {
    if percent >= 100.0 { "100".to_owned() } else { format!("{:.2}", (percent * 100.0).floor() / 100.0) }
}

fn span(ns: Nanos) -> String {
    match ns {
        SECOND.. => format!("{:.2} s", ns as f64 / SECOND as f64),
        MILLI.. => format!("{} ms", (ns as f64 / 1e4).round() / 100.0),
        _ => format!("{} µs", (ns as f64 / 10.0).round() / 100.0),
    }
}

/// What one pass over the records gathers.
#[derive(Default)]
struct Tally {
    sent: u64,
    late: u64,
    /// By [`Cause`].
    late_by: [u64; 4],
    queued: u64,
    backlog: u64,
    slip: [u64; EDGES.len() + 1],
    /// Due time of every scheduled request, and when it was sent but for the server's part.
    times: Vec<(Instant, Instant)>,
    /// Send delays of all others that waited for no slot and follow something.
    waits: Vec<Nanos>,
    blocked: Vec<Nanos>,
    connecting: Vec<Nanos>,
}

impl Tally {
    fn add(&mut self, record: &Record, sent_end: Instant) {
        self.sent += 1;
        let (delay, queued) = (record.send_delay(), record.has(flag::QUEUED));
        self.queued += u64::from(queued);
        self.blocked.extend(Some(record.blocked).filter(|wait| *wait >= TOLERANCE));
        self.connecting.extend(Some(record.connecting).filter(|time| *time >= TOLERANCE));
        if !record.has(flag::SCHEDULED) {
            // The first requests of a closed loop follow nothing: no slot was freed for them.
            self.waits.extend((!queued && record.start > record.due).then_some(delay));
            return;
        }
        if record.is_late() {
            self.late += 1;
            self.late_by[Cause::of(record) as usize] += 1;
        }
        // A phase has issued its last up to the lookahead before it is due, so being on time is looked at too.
        let after_the_last = sent_end.is_set() && record.start > sent_end;
        self.backlog += u64::from(after_the_last && record.slip() >= TOLERANCE && record.due <= sent_end);
        self.slip[EDGES.partition_point(|edge| *edge <= delay)] += 1;
        self.times.push((record.due, record.due.after(delay)));
    }

    fn buckets(&self) -> Vec<Bucket> {
        let edges = EDGES.iter().copied().map(Some).chain([None]);
        edges.zip(self.slip).map(|(below_ns, count)| Bucket { below_ns, count }).collect()
    }
}

/// Sorts the arrivals by their planned time and finds the longest run of late ones.
fn longest_late(times: &mut [(Instant, Instant)], begin: Instant) -> Option<Stretch> {
    times.sort_unstable();
    let late = |&(due, sent): &(Instant, Instant)| sent.since(due) >= TOLERANCE;
    let stretch = |run: &[(Instant, Instant)]| {
        let first = run.first()?.0;
        Some(Stretch {
            from_ns: first.since(begin),
            span_ns: run.iter().map(|t| t.1.since(first)).max()?,
            arrivals: run.len() as u64,
            worst_ns: run.iter().map(|t| t.1.since(t.0)).max()?,
        })
    };
    let runs = times.chunk_by(|a, b| late(a) == late(b)).filter(|run| run.first().is_some_and(late));
    // Of equals the first.
    runs.filter_map(stretch).reduce(|a, b| if b.span_ns > a.span_ns { b } else { a })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::Zeroable;
    use proptest::prelude::*;

    const START: Instant = Instant(7 * SECOND);

    fn record(due: Nanos, slip: Nanos) -> Record {
        let due = START.after(due);
        Record { due, start: due.after(slip), flags: flag::SCHEDULED, ..Record::zeroed() }
    }

    fn counts(issued: u64) -> Counts {
        Counts { issued, sent_end: START.after(60 * SECOND), ..Counts::default() }
    }

    fn ledger(counts: Counts, records: &[Record]) -> Ledger {
        Ledger::new(("profiling", false), START, Some(counts), records)
    }

    #[test]
    fn a_phase_that_went_well_says_so() {
        let records: Vec<Record> = (0..1000).map(|k| record(k * MILLI, 300 + k)).collect();
        let ledger = ledger(counts(1000), &records);
        assert_eq!(ledger.adherence_percent, Some(100.0));
        assert_eq!(ledger.verdict, "100 % of 1000 arrivals were sent within 1 ms of their time.");
        assert_eq!(ledger.longest_late, None);
        let counts: Vec<u64> = ledger.slip.iter().map(|b| b.count).collect();
        assert_eq!(counts, [700, 300, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_process_stopped_for_200_ms_shows_every_late_slot() {
        // 100 a second; between 1.000 s and 1.200 s nothing runs, then what is due leaves at once.
        let records: Vec<Record> = (0..300)
            .map(|k| {
                let due = k * 10 * MILLI;
                let stopped = (SECOND..1200 * MILLI).contains(&due);
                record(due, if stopped { 1200 * MILLI - due } else { 5 * MICRO })
            })
            .collect();
        let ledger = ledger(counts(300), &records);
        assert_eq!((ledger.late, ledger.offered, ledger.sent), (20, 300, 300));
        let stretch = Stretch { from_ns: SECOND, span_ns: 200 * MILLI, arrivals: 20, worst_ns: 200 * MILLI };
        assert_eq!(ledger.longest_late, Some(stretch));
        assert_eq!(
            ledger.verdict,
            "93.33 % of 300 arrivals were sent within 1 ms of their time; 20 were late; worst stretch: 200 ms long \
             from 1.00 s on, by up to 200 ms."
        );
    }

    #[test]
    fn what_was_not_sent_counts_against_the_client() {
        let mut records = vec![record(0, 0), record(MILLI, 0)];
        records[1].flags |= flag::QUEUED;
        let counts = Counts { issued: 13, dropped: 4, idle: 3, unsent: 3, ..Counts::default() };
        let ledger = ledger(counts, &records);
        assert_eq!((ledger.sent, ledger.dropped, ledger.unsent, ledger.unrecorded), (2, 4, 3, 1));
        assert_eq!(ledger.adherence_percent, Some(20.0));
        assert_eq!(
            ledger.verdict,
            "20.00 % of 10 arrivals were sent within 1 ms of their time; 1 waited for a free slot; 4 were dropped because no \
             slot was free; 3 had nothing to send; 3 were not sent before the end; 1 have no record."
        );
    }

    #[test]
    fn who_waits_beyond_the_last_issue_is_backlog() {
        let counts = Counts { issued: 3, sent_end: START.after(SECOND), ..Counts::default() };
        let records = [record(0, 0), record(900 * MILLI, 300 * MILLI), record(SECOND + MILLI, 0)];
        assert_eq!(ledger(counts, &records).backlog, 1);
    }

    #[test]
    fn a_closed_loop_has_nothing_to_be_late_for() {
        let records: Vec<Record> = (0..5).map(|k| Record { flags: 0, ..record(k, 9 * MILLI) }).collect();
        let ledger = ledger(counts(5), &records);
        assert!(!ledger.scheduled && ledger.adherence_percent.is_none() && ledger.late == 0);
        assert_eq!(ledger.verdict, "5 of 5 requests were sent as slots came free.");
    }

    #[test]
    fn what_a_limit_kept_is_told_from_what_the_client_kept() {
        let mut records: Vec<Record> = (0..4).map(|k| record(k * MILLI, 3 * MILLI)).collect();
        records[..2].iter_mut().for_each(|r| r.flags |= flag::QUEUED);
        let half = ledger(counts(4), &records);
        assert_eq!((half.late, half.late_queued, half.refill), (4, 2, None));
        assert!(half.verdict.contains("; 4 were late (2 waited for a slot); worst"), "{}", half.verdict);
        records.iter_mut().for_each(|r| r.flags |= flag::QUEUED);
        let all = ledger(counts(4), &records).verdict;
        assert!(all.contains("; 4 were late (all waited for a slot); worst"), "{all}");
        // In a closed loop what waited for a slot says nothing about the client.
        let mut records: Vec<Record> = (1..=100).map(|k| Record { flags: 0, ..record(k * SECOND, k) }).collect();
        records.push(Record { flags: flag::QUEUED, ..record(0, SECOND) });
        let refill = ledger(counts(101), &records).refill;
        assert_eq!(refill, Some(Spread { count: 100, p50_ns: 50, p99_ns: 99, max_ns: 100 }));
    }

    #[test]
    fn turns_that_follow_an_answer_are_sent_but_not_judged() {
        let mut records = vec![record(0, 0), record(MILLI, 5 * MILLI)];
        records.extend((0..8).map(|k| Record { flags: 0, ..record(k, 0) }));
        let ledger = ledger(counts(10), &records);
        assert_eq!((ledger.sent, ledger.late, ledger.adherence_percent), (10, 1, Some(50.0)));
    }

    #[test]
    fn almost_all_is_not_all() {
        assert_eq!(share(99.9999), "99.99");
        assert_eq!(share(100.0), "100");
        assert_eq!(span(1_500_000), "1.5 ms");
        assert_eq!(span(12_340), "12.34 µs");
    }

    proptest! {
        #[test]
        fn the_account_balances(
            slips in prop::collection::vec((0..10 * SECOND, 0..2 * SECOND, any::<bool>()), 0..100),
            (dropped, idle) in (0..50u64, 0..9u64),
            unsent in 0..50u64,
            lost in 0..5u64,
        ) {
            let mut records: Vec<Record> = slips.iter().map(|(due, slip, _)| record(*due, *slip)).collect();
            for (r, (.., queued)) in records.iter_mut().zip(&slips) {
                r.flags |= if *queued { flag::QUEUED } else { 0 };
            }
            let sent = records.len() as u64;
            let issued = sent + dropped + idle + unsent + lost;
            let counts =
                Counts { issued, dropped, idle, unsent, sent_end: START.after(5 * SECOND), ..Counts::default() };
            let ledger = ledger(counts, &records);
            let idle = ledger.idle;
            prop_assert_eq!(ledger.offered, ledger.sent + ledger.dropped + idle + ledger.unsent + ledger.unrecorded);
            prop_assert_eq!(ledger.slip.iter().map(|b| b.count).sum::<u64>(), sent);
            let late: u64 = ledger.slip.iter().filter(|b| b.below_ns.is_none_or(|e| e > TOLERANCE)).map(|b| b.count).sum();
            prop_assert_eq!(ledger.late, late);
            prop_assert_eq!(ledger.longest_late.is_some(), late > 0);
            prop_assert!(ledger.backlog <= ledger.late && ledger.queued <= ledger.sent);
            records.reverse();
            let again = Ledger::new(("profiling", false), START, Some(counts), &records);
            prop_assert_eq!(again, ledger);
        }
    }
}
