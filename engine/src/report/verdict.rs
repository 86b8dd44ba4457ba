//! Whether the numbers are the server's: the evidence, what was found in it, and the grade that follows. The rules stand in
//! `docs/truth.md`, in the order in which they are applied here.

use super::ledger::Spread;
use crate::clock::{MICRO, MILLI, Nanos, SECOND};
use crate::log::{Log, PhaseMark};
use crate::record::{LATE, Outcome, Record, flag};
use serde::Serialize;
use serde_json::Value;

/// What touches no more than this share of the requests changes no grade.
const SHARE: f64 = 0.01;

/// A delay of the client's is a large part of what is reported from this share of the median latency on.
const LARGE: f64 = 0.1;

/// Fewer requests than this are no evidence for a 99th percentile: two of them would make it.
const FEW: u64 = 200;

/// Of few requests, so many are evidence for a fault of the client's, and so many without one for its absence.
const FEW_FAULTS: u64 = 3;
const FEW_SOUND: u64 = 20;

/// A rate that falls short of the planned one by more than this share was not kept.
const OFF: f64 = 0.01;

/// A thread that is awake for this share of the time has no time to spare.
const BUSY: f64 = 0.95;

/// Whether the numbers are the server's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Grade {
    /// They are.
    #[serde(rename = "sound")]
    Sound,
    /// The client had a part in them, small beside what is measured.
    #[serde(rename = "degraded")]
    Degraded,
    /// The client was the limit, or a large part of what is reported.
    #[serde(rename = "limit")]
    Limit,
    /// There is too little evidence.
    #[serde(rename = "not judged")]
    NotJudged,
}

impl Grade {
    /// As the files name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sound => "sound",
            Self::Degraded => "degraded",
            Self::Limit => "limit",
            Self::NotJudged => "not judged",
        }
    }
}

/// Whose doing something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Whose {
    /// This client's: it changes the grade.
    Client,
    /// The server's, as far as one can tell from here.
    Server,
    /// A limit's that the user asked for.
    Settings,
}

/// Something that kept requests from being what they would have been with an endless client.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// A name for scripts: `late`, `refill`, `connection_limit`, `local_limit`, `stall`, `unread`, `concurrency`,
    /// `connecting`.
    pub cause: &'static str,
    /// Whose doing it is.
    pub whose: Whose,
    /// The grade that it asks for; [`Grade::Sound`] if it changes none.
    pub asks: Grade,
    /// Requests touched.
    pub touched: u64,
    /// Their share of all requests, percent.
    pub share_percent: f64,
    /// How long, over the requests touched; of `late` and `refill` over all that were judged.
    pub size: Option<Spread>,
    /// What was seen, without a full stop.
    pub evidence: String,
    /// What lifts it, without a full stop.
    pub remedy: Option<String>,
}

/// The grade of a run and why.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// The grade.
    pub grade: Grade,
    /// All of it in a sentence.
    pub sentence: String,
    /// What was found, what asks for the worst grade first.
    pub findings: Vec<Finding>,
}

/// Pauses of the client's threads of [`LATE`] or more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stalls {
    /// How many.
    pub count: u64,
    /// The longest, nanoseconds.
    pub longest: Nanos,
    /// All of them, nanoseconds.
    pub sum: Nanos,
    /// When the longest began, nanoseconds from the start of its phase.
    pub longest_at: Nanos,
}

/// Of requests whose delay is the client's own: how long, and how many were late.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Delays {
    /// Their send delays.
    pub spread: Option<Spread>,
    /// Late ones among them.
    pub late: u64,
}

impl Delays {
    fn count(&self) -> u64 {
        self.spread.map_or(0, |s| s.count)
    }
}

/// What a verdict is made of. All of it is of the profiling phases, or of the part of them that is looked at.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Evidence {
    /// Requests.
    pub requests: u64,
    /// Requests that failed; those cut at the end or on purpose are not among them.
    pub failed: u64,
    /// Requests cut on purpose, as asked.
    pub abandoned: u64,
    /// Requests cut by the end of the run.
    pub cut: u64,
    /// Requests with a planned time.
    pub scheduled: u64,
    /// Requests that waited for a slot of a limit that was asked for.
    pub queued: u64,
    /// Requests with a planned time that waited for no slot.
    pub sends: Delays,
    /// Requests without one that followed something: a freed slot, or a session's think time.
    pub refills: Delays,
    /// Waits of [`LATE`] or more for a connection that the client may not have.
    pub blocked: Option<Spread>,
    /// Requests never sent for want of a descriptor or a port.
    pub local_limit: u64,
    /// Bounds of [`LATE`] or more on how long an answer lay unread; of requests that no stall touched.
    pub unread: Option<Spread>,
    /// Requests in flight, or due, while a thread stood still.
    pub stalled: u64,
    /// The pauses themselves.
    pub stalls: Stalls,
    /// Times of [`LATE`] or more in which a connection was being opened.
    pub connecting: Option<Spread>,
    /// Planned and actual requests per second, where there was a plan.
    pub rate: Option<(f64, f64)>,
    /// Median request latency, nanoseconds.
    pub latency: Option<Nanos>,
    /// Most requests in flight at once.
    pub in_flight: u64,
    /// Length of the part that is looked at, seconds.
    pub seconds: f64,
    /// Share of the time in which the busiest executor was awake, where that is known.
    pub busy: Option<f64>,
    /// How many connections this client may have, and what says so.
    pub connections: Option<(u64, String)>,
    /// The limits that were asked for, as typed.
    pub limits: Option<String>,
}

impl Evidence {
    /// Of the records of the profiling phases that started between these times.
    pub(super) fn of_log(log: &Log, (from, to): (crate::clock::Instant, crate::clock::Instant)) -> Self {
        let mut tally = Tally::default();
        let is_profiling = |n: u8| log.header.phases.get(usize::from(n)).is_some_and(|p| !p.warmup);
        for (record, _) in log.records().filter(|(r, _)| is_profiling(r.phase) && (from..to).contains(&r.start)) {
            tally.add(&record);
        }
        let mut evidence = tally.evidence();
        for mark in log.phases.iter().filter(|mark| is_profiling(mark.phase)) {
            evidence.stalls.add(mark);
            evidence.busy = busy(mark).or(evidence.busy);
        }
        let connections = &log.header.topology["connections"];
        evidence.connections =
            connections["limit"].as_u64().zip(connections["by"].as_str().map(str::to_owned)).filter(|(n, _)| *n > 0);
        evidence.limits = asked_limits(&log.header.input_config);
        evidence
    }

    /// Whether more requests failed than were answered.
    fn mostly_failed(&self) -> bool {
        let answered = self.requests.saturating_sub(self.failed + self.abandoned + self.cut);
        self.failed > answered
    }

    fn share(&self, touched: u64) -> f64 {
        touched as f64 / self.requests.max(1) as f64
    }

    /// Whether `span` is a large part of the median latency; nothing is of a latency that is not known.
    fn is_large(&self, span: Nanos) -> bool {
        self.latency.is_some_and(|latency| span as f64 > LARGE * latency as f64)
    }

    /// Whether so many touched requests are more than an accident.
    fn counts(&self, touched: u64) -> bool {
        self.share(touched) > SHARE && (self.requests >= FEW || touched >= FEW_FAULTS)
    }

    /// The same of what stands in the requests' own latency, for `worst` in the worst of them: one is enough where that is
    /// a large part.
    fn shows(&self, touched: u64, worst: Nanos) -> bool {
        self.counts(touched) || (self.share(touched) > SHARE && self.is_large(worst))
    }

    /// Whether fewer requests left than were planned in their time; of few requests the last alone moves a rate.
    fn rate_fell_short(&self) -> bool {
        self.rate.is_some_and(|(planned, sent)| {
            let off = 1.0 - sent / planned;
            off > OFF && off * self.scheduled as f64 > 2.0
        })
    }

    /// What the grade rests on where nothing was found: the delays of all that could be late.
    fn judged(&self) -> &Delays {
        if self.sends.count() >= self.refills.count() { &self.sends } else { &self.refills }
    }
}

impl Stalls {
    fn add(&mut self, mark: &PhaseMark) {
        self.count += mark.stalls;
        self.sum += mark.stalled_ns;
        if mark.stall_longest_ns > self.longest {
            (self.longest, self.longest_at) = (mark.stall_longest_ns, mark.stall_longest_at.since(mark.start));
        }
    }
}

/// Share of a phase in which its busiest executor did not wait for something to do.
fn busy(mark: &PhaseMark) -> Option<f64> {
    let span = mark.end.since(mark.start);
    (mark.idle_ns > 0 && span > 0).then(|| (1.0 - mark.idle_ns as f64 / span as f64).max(0.0))
}

/// The concurrency limits of the last profiling phase as they are typed.
fn asked_limits(settings: &Value) -> Option<String> {
    let phase = settings["phases"].as_array()?.iter().rev().find(|p| p["kind"] != "warmup")?;
    let of = |key: &str, option: &str| phase[key].as_u64().map(|n| format!("--{option} {n}"));
    let limits: Vec<String> = [of("concurrency", "concurrency"), of("prefill_concurrency", "prefill-concurrency")]
        .into_iter()
        .flatten()
        .collect();
    (!limits.is_empty()).then(|| limits.join(" and "))
}

/// What one pass over the records gathers.
#[derive(Default)]
struct Tally {
    counts: Evidence,
    sends: Vec<Nanos>,
    refills: Vec<Nanos>,
    blocked: Vec<Nanos>,
    unread: Vec<Nanos>,
    connecting: Vec<Nanos>,
}

impl Tally {
    fn add(&mut self, record: &Record) {
        let n = &mut self.counts;
        let delay = record.send_delay();
        n.requests += 1;
        match record.outcome() {
            Outcome::Ok => {}
            Outcome::Cancelled => n.cut += 1,
            Outcome::Abandoned => n.abandoned += 1,
            _ => n.failed += 1,
        }
        n.scheduled += u64::from(record.has(flag::SCHEDULED));
        n.queued += u64::from(record.has(flag::QUEUED));
        n.local_limit += u64::from(record.has(flag::LOCAL_LIMIT));
        n.stalled += u64::from(record.has(flag::STALLED));
        let unread = if record.has(flag::STALLED) { 0 } else { Nanos::from(record.read_wait_most) };
        for (spans, span) in
            [(&mut self.blocked, record.blocked), (&mut self.connecting, record.connecting), (&mut self.unread, unread)]
        {
            spans.extend(Some(span).filter(|span| *span >= LATE));
        }
        match (record.has(flag::QUEUED), record.has(flag::SCHEDULED)) {
            (true, _) => {}
            (false, true) => {
                n.sends.late += u64::from(record.is_late());
                self.sends.push(delay);
            }
            // The first requests of a closed loop follow nothing.
            (false, false) if record.start > record.due => {
                n.refills.late += u64::from(record.is_late());
                self.refills.push(delay);
            }
            (false, false) => {}
        }
    }

    fn evidence(self) -> Evidence {
        let mut evidence = self.counts;
        evidence.sends.spread = Spread::of(self.sends);
        evidence.refills.spread = Spread::of(self.refills);
        evidence.blocked = Spread::of(self.blocked);
        evidence.unread = Spread::of(self.unread);
        evidence.connecting = Spread::of(self.connecting);
        evidence
    }
}

impl Verdict {
    /// The verdict on such evidence; `None` if there was no request.
    pub fn on(evidence: &Evidence) -> Option<Self> {
        if evidence.requests == 0 {
            return None;
        }
        let mut findings = evidence.findings();
        findings.sort_by_key(|finding| std::cmp::Reverse(severity(finding.asks)));
        let worst = findings.first().map_or(Grade::Sound, |finding| finding.asks);
        let doubt = if worst == Grade::Sound { evidence.doubt() } else { None };
        let grade = if doubt.is_some() { Grade::NotJudged } else { worst };
        let mut said: Vec<String> = doubt.into_iter().collect();
        said.extend(findings.iter().filter(|f| f.asks != Grade::Sound).map(|f| f.evidence.clone()));
        if said.is_empty() {
            said.extend(evidence.soundness());
        }
        if grade != Grade::NotJudged && evidence.scheduled > 0 {
            said.extend(evidence.rate_said());
        }
        said.extend(
            findings.iter().filter(|f| f.asks == Grade::Sound && f.whose != Whose::Client).map(|f| f.evidence.clone()),
        );
        said.extend(findings.first().filter(|f| f.asks != Grade::Sound).and_then(|f| f.remedy.clone()));
        let sentence = format!("{}.", said.join("; "));
        Some(Self { grade, sentence, findings })
    }
}

fn severity(grade: Grade) -> u8 {
    match grade {
        Grade::Limit => 2,
        Grade::Degraded => 1,
        Grade::Sound | Grade::NotJudged => 0,
    }
}

impl Evidence {
    /// Why there is nothing to judge by, where nothing was found either.
    fn doubt(&self) -> Option<String> {
        if self.mostly_failed() {
            return Some("most requests failed, and a failure asks less of a client than an answer does".to_owned());
        }
        let judged = self.judged();
        let Some(spread) = judged.spread else {
            let none = if self.scheduled > 0 { "every request waited for a slot" } else { "no slot was ever freed" };
            return Some(format!("{none}, so nothing shows how fast this client is"));
        };
        let n = spread.count;
        match n {
            FEW.. => None,
            FEW_SOUND.. if judged.late == 0 => None,
            _ => Some(format!(
                "{n} of them to judge by {}; it takes {FEW}, or {FEW_SOUND} without a late one",
                if n == 1 { "is too few" } else { "are too few" }
            )),
        }
    }

    /// What a sound verdict rests on.
    fn soundness(&self) -> Option<String> {
        let judged = self.judged();
        let s = judged.spread?;
        let (usual, of) = if s.count >= FEW { (s.p99_ns, "p99") } else { (s.p50_ns, "median") };
        let (usual, most) = (span(usual), span(s.max_ns));
        Some(match (self.scheduled > 0, self.queued) {
            (true, 0) => format!("all requests were sent within {most} of their time ({of} {usual})"),
            (true, _) => {
                format!("requests that found a free slot were sent within {most} of their time ({of} {usual})")
            }
            (false, _) => format!("freed slots were refilled within {usual} ({of}), {most} at most"),
        })
    }

    /// Whether the planned rate was kept; nothing where a limit that was asked for kept it down.
    fn rate_said(&self) -> Option<String> {
        let (planned, sent) = self.rate?;
        match (self.rate_fell_short(), self.queued) {
            (false, _) => Some(format!("{sent:.1} requests/s sent, as planned")),
            (true, 0) => Some(format!("{sent:.1} of {planned:.1} planned requests/s sent")),
            (true, _) => None,
        }
    }

    fn findings(&self) -> Vec<Finding> {
        let all = [
            self.connection_limit(),
            self.local_limit(),
            self.stall(),
            self.late(),
            self.refill(),
            self.unread(),
            self.concurrency(),
            self.connecting(),
        ];
        all.into_iter().flatten().collect()
    }

    fn finding(&self, cause: &'static str, asks: Grade, touched: u64, evidence: String) -> Finding {
        let share_percent = 100.0 * self.share(touched);
        Finding { cause, whose: Whose::Client, asks, touched, share_percent, size: None, evidence, remedy: None }
    }

    /// `touched` of all, as words.
    fn of(&self, touched: u64) -> String {
        format!("{touched} of {} requests ({:.1}%)", self.requests, 100.0 * self.share(touched))
    }

    fn connection_limit(&self) -> Option<Finding> {
        let waits = self.blocked?;
        let asks = if self.shows(waits.count, waits.max_ns) { Grade::Limit } else { Grade::Sound };
        let (n, most) = (self.of(waits.count), span(waits.max_ns));
        let (allowed, remedy) = match &self.connections {
            Some((limit, by)) => (
                format!("only {limit} connections are allowed ({by})"),
                format!("raise {by} to allow {} connections or more", self.in_flight.max(limit + 1)),
            ),
            None => (
                "the client may have no more connections".to_owned(),
                "raise AIPERF_HTTP_CONNECTION_LIMIT or ulimit -n".to_owned(),
            ),
        };
        let evidence = format!("{n} waited for a connection for up to {most}, since {allowed}");
        let finding = self.finding("connection_limit", asks, waits.count, evidence);
        Some(Finding { size: Some(waits), remedy: Some(remedy), ..finding })
    }

    fn local_limit(&self) -> Option<Finding> {
        let n = self.local_limit;
        let asks = if self.share(n) > SHARE { Grade::Limit } else { Grade::Degraded };
        let evidence =
            format!("{} were never sent: this machine had no descriptor or local port left for them", self.of(n));
        let remedy = Some("raise ulimit -n, or widen net.ipv4.ip_local_port_range".to_owned());
        (n > 0).then(|| Finding { remedy, ..self.finding("local_limit", asks, n, evidence) })
    }

    fn stall(&self) -> Option<Finding> {
        let Stalls { count, longest, sum, longest_at } = self.stalls;
        let n = self.stalled;
        if n == 0 {
            return None;
        }
        let asks = match self.shows(n, longest) {
            true if sum as f64 > LARGE * self.seconds * SECOND as f64 => Grade::Limit,
            true => Grade::Degraded,
            false => Grade::Sound,
        };
        let stood = match count {
            0 => "the client stood still or was too busy to read".to_owned(),
            1 => {
                format!("the client stood still or was too busy to read for {} at {}", span(longest), span(longest_at))
            }
            _ => format!(
                "the client stood still or was too busy to read {count} times, for {} in all and {} at most, at {}",
                span(sum),
                span(longest),
                span(longest_at)
            ),
        };
        let evidence = format!("{stood}, with {} in flight or due", self.of(n));
        let remedy = Some("give the client more or freer cores (--cores)".to_owned());
        Some(Finding { remedy, ..self.finding("stall", asks, n, evidence) })
    }

    /// Requests with a planned time that left late, through no limit's doing.
    fn late(&self) -> Option<Finding> {
        let (late, spread) = (self.sends.late, self.sends.spread.filter(|_| self.sends.late > 0)?);
        let typical = if spread.count >= FEW { spread.p99_ns } else { spread.p50_ns };
        let asks = match self.counts(late) {
            true if self.is_large(typical) || (self.rate_fell_short() && self.queued == 0) => Grade::Limit,
            true => Grade::Degraded,
            false => Grade::Sound,
        };
        let evidence = format!("{} were sent 1 ms or more after their time{}", self.of(late), self.sized(&spread));
        let remedy = Some("give the client more or freer cores (--cores)".to_owned());
        Some(Finding { size: Some(spread), remedy, ..self.finding("late", asks, late, evidence) })
    }

    /// Slots that stayed empty.
    fn refill(&self) -> Option<Finding> {
        let (late, spread) = (self.refills.late, self.refills.spread.filter(|_| self.refills.late > 0)?);
        let typical = if spread.count >= FEW { spread.p99_ns } else { spread.p50_ns };
        let asks = match self.counts(late) {
            true if self.is_large(typical) => Grade::Limit,
            true => Grade::Degraded,
            false => Grade::Sound,
        };
        let evidence = format!("{late} freed slots stayed empty for 1 ms or more{}", self.sized(&spread));
        let remedy = Some("give the client more or freer cores (--cores)".to_owned());
        Some(Finding { size: Some(spread), remedy, ..self.finding("refill", asks, late, evidence) })
    }

    /// The 99th percentile, what that is of the latency, and the worst.
    fn sized(&self, spread: &Spread) -> String {
        let (typical, of) = if spread.count >= FEW { (spread.p99_ns, "p99") } else { (spread.p50_ns, "median") };
        let part = self.latency.filter(|latency| *latency > 0).map_or_else(String::new, |latency| {
            format!(" = {:.1}% of the median latency", 100.0 * typical as f64 / latency as f64)
        });
        format!(" ({of} {}{part}, at most {})", span(typical), span(spread.max_ns))
    }

    fn unread(&self) -> Option<Finding> {
        let waits = self.unread?;
        let busy = self.busy.filter(|busy| *busy >= BUSY && self.scheduled == 0);
        let asks = match self.shows(waits.count, waits.max_ns) {
            true if busy.is_some() => Grade::Limit,
            true => Grade::Degraded,
            false => Grade::Sound,
        };
        let core = busy.map_or_else(String::new, |busy| format!(", its core {:.0}% busy", 100.0 * busy));
        let evidence = format!(
            "answers of {} may have lain unread here for 1 ms or more (median {}, at most {}){core}",
            self.of(waits.count),
            span(waits.p50_ns),
            span(waits.max_ns)
        );
        let remedy = Some("give the client more or freer cores (--cores)".to_owned());
        Some(Finding { size: Some(waits), remedy, ..self.finding("unread", asks, waits.count, evidence) })
    }

    /// A limit that was asked for kept requests back: that is what it is for, and no fault of the client's.
    fn concurrency(&self) -> Option<Finding> {
        if self.queued == 0 || self.scheduled == 0 {
            return None;
        }
        let limits = self.limits.clone().unwrap_or_else(|| "a concurrency limit".to_owned());
        let evidence = match self.rate.filter(|_| self.rate_fell_short()) {
            Some((planned, sent)) => format!(
                "under {limits} {sent:.1} of {planned:.1} planned requests/s were sent: raise it, or read Response Time"
            ),
            None => format!("{} waited for a slot under {limits}", self.of(self.queued)),
        };
        let finding = self.finding("concurrency", Grade::Sound, self.queued, evidence);
        Some(Finding { whose: Whose::Settings, ..finding })
    }

    /// Connections that took the server long: shown where they are a large part of some latencies.
    fn connecting(&self) -> Option<Finding> {
        let times = self.connecting.filter(|times| self.share(times.count) > SHARE && self.is_large(times.max_ns))?;
        let evidence = format!(
            "the server let {} wait for a connection to be accepted, for up to {}, which is in their latency",
            self.of(times.count),
            span(times.max_ns)
        );
        let remedy = Some("look at the server's listen backlog".to_owned());
        let finding = self.finding("connecting", Grade::Sound, times.count, evidence);
        Some(Finding { whose: Whose::Server, size: Some(times), remedy, ..finding })
    }
}

/// A span with a fitting unit.
fn span(ns: Nanos) -> String {
    match ns {
        SECOND.. => format!("{:.2} s", ns as f64 / SECOND as f64),
        MILLI.. => format!("{:.2} ms", ns as f64 / MILLI as f64),
        _ => format!("{:.0} µs", ns as f64 / MICRO as f64),
    }
}

#[cfg(test)]
mod tests;
