//! Sessions of several turns without machine: every mode, limit and stop, under any server, at any pace of the threads.
//!
//! A failure names its seed; `MASER_SIM_SEED=<seed> cargo test -p maser-engine --test sessions` runs that one alone.

mod seeds;

use maser_engine::clock::{Instant, MICRO, MILLI, Nanos, SECOND};
use maser_engine::credit::Progress;
use maser_engine::endpoint::{self, Splice};
use maser_engine::log::{Log, PhaseMark};
use maser_engine::plan::{
    Balance, Cancellation, Capture, History, LatePolicy, Phase, Plan, Requests, RequestsBuilder, Reuse, Sampler,
    Sampling, Target, Turn,
};
use maser_engine::record::{Outcome, Record, correlation_id, flag, request_id};
use maser_engine::schedule::{LimitCurve, Ramp, RampStrategy, SessionStart, Sessions, Spec, UserCentric};
use maser_engine::sim::{self, Account, Attempt, Dice, Ending, Manners, Setup};
use seeds::try_quarter;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

macro_rules! ensure {
    ($holds:expr, $($what:tt)*) => {
        if !$holds {
            return Err(format!($($what)*));
        }
    };
}

type Checked = Result<(), String>;

// ---- What is run -------------------------------------------------------------------------------------------------------

/// The turn's own values.
fn own(session: u64, turn: u64) -> String {
    format!("{{\"u\":\"{session}.{turn}\"}}")
}

fn body(session: u64, turn: u64, history: &str) -> String {
    format!("{{\"messages\":[{history}{}],\"end\":1}}", own(session, turn))
}

fn arena(turns: &[u64], mut shape: impl FnMut(u64, u64) -> Turn) -> Requests {
    let mut builder = RequestsBuilder::new(&std::env::temp_dir()).unwrap();
    for (k, &turns) in turns.iter().enumerate() {
        builder.begin_session();
        for t in 0..turns {
            let body = body(k as u64, t, "");
            let end = 13 + own(k as u64, t).len() as u32;
            let splice = Splice { at: 13, end, ..Splice::NONE };
            builder.push_turn(body.as_bytes(), Turn { splice, ..shape(k as u64, t) }).unwrap();
        }
    }
    builder.finish().unwrap()
}

fn drawn_arena(dice: &mut Dice) -> Requests {
    let mut turns: Vec<u64> = (0..dice.within(1, 8)).map(|_| dice.within(1, 5)).collect();
    turns[0] += 1;
    let keeps: Vec<History> = turns
        .iter()
        .map(|_| dice.pick(&[History::OwnAndReply, History::OwnAndReply, History::Own, History::None]))
        .collect();
    let longest = dice.pick(&[0, 0, 100 * MICRO, 3 * MILLI, 15 * MILLI]);
    let timed = dice.chance(600);
    let mut starts: Vec<Nanos> = turns.iter().map(|_| dice.below(60 * MILLI)).collect();
    starts.sort_unstable();
    let mut dice = Dice::new(dice.bits());
    arena(&turns, |k, t| Turn {
        splice: Splice::NONE,
        history: keeps[k as usize],
        reset: t > 0 && dice.chance(100),
        delay: if t > 0 { dice.below(longest + 1) } else { 0 },
        at: (t == 0 || timed).then_some(starts[k as usize] + t * 8 * MILLI),
    })
}

fn target(n: u16) -> Target {
    Target {
        addrs: vec![format!("127.0.0.{}:8000", n + 1).parse().unwrap()],
        host: format!("sim{n}:8000"),
        path: "/v1/chat/completions".to_owned(),
        correlation_header: "X-Correlation-ID".to_owned(),
        session_headers: vec!["X-Session-Affinity".to_owned()],
        headers: vec![],
    }
}

fn fixed(requests: &Requests) -> Spec {
    let at = |k: usize| requests.turn(requests.session(k).0).at.unwrap_or(0);
    Spec::Fixed((0..requests.sessions()).map(at).collect())
}

/// A limit, now and then come up to along a ramp.
fn limit(dice: &mut Dice, choices: &[u32]) -> LimitCurve {
    let target = dice.pick(choices);
    if !dice.chance(300) {
        return LimitCurve::constant(target);
    }
    let strategy = dice.pick(&[RampStrategy::Linear, RampStrategy::Exponential, RampStrategy::Poisson]);
    LimitCurve::ramped(target, &Ramp { duration: dice.within(MILLI, 60 * MILLI), strategy }, dice.bits())
}

fn phase(dice: &mut Dice, requests: &Requests, first: bool) -> Phase {
    let rate = dice.pick(&[200, 1000, 4000]);
    let turns = (0..requests.sessions()).map(|k| requests.session(k).1).collect();
    let schedule = match dice.below(6) {
        0 => Spec::Constant(rate as f64),
        1 => Spec::Poisson(rate as f64),
        2 => fixed(requests),
        3 => Spec::UserCentric(UserCentric { users: dice.within(1, 8) as u32, rate: rate as f64, turns }),
        _ => Spec::ClosedLoop,
    };
    let (is_closed, is_fixed) = (schedule == Spec::ClosedLoop, matches!(schedule, Spec::Fixed(_)));
    let concurrency = (is_closed || dice.chance(500)).then(|| limit(dice, &[1, 1, 2, 3, 7, 20]));
    let requests = dice.chance(if is_fixed { 200 } else { 500 }).then(|| dice.within(1, 60));
    let sessions = dice.chance(if is_fixed { 0 } else { 500 }).then(|| dice.within(1, 25));
    let must_end = requests.is_none() && sessions.is_none() && !is_fixed;
    let duration = (must_end || dice.chance(300)).then(|| dice.within(MILLI, 80 * MILLI));
    Phase {
        name: "profiling".to_owned(),
        seamless: !first && dice.chance(500),
        schedule,
        concurrency,
        prefill: dice.chance(300).then(|| limit(dice, &[1, 2, 5])),
        late: dice.pick(&[LatePolicy::Queue, LatePolicy::Queue, LatePolicy::Drop, LatePolicy::Send]),
        requests,
        sessions,
        duration,
        grace: if duration.is_some() { dice.pick(&[None, Some(0), Some(3 * MILLI), Some(40 * MILLI)]) } else { None },
        cancellation: dice
            .chance(300)
            .then(|| Cancellation { rate: 0.3, delay: dice.pick(&[0, 200 * MICRO, 5 * MILLI]) }),
        ..Phase::default()
    }
}

fn plan(dice: &mut Dice) -> Plan {
    let requests = drawn_arena(dice);
    let phases: Vec<_> = (0..dice.within(1, 3)).map(|n| phase(dice, &requests, n == 0)).collect();
    // Ticks go on while the last sessions hang: that must not take all the turns of a test.
    let endless = |p: &Phase| p.schedule != Spec::ClosedLoop && p.duration.is_none();
    let longest = if phases.iter().any(endless) { 30 * MILLI } else { SECOND };
    let targets = dice.pick(&[1, 1, 2, 3]);
    Plan {
        phases,
        targets: (0..targets).map(target).collect(),
        balance: if dice.chance(300) { Balance::LeastInFlight } else { Balance::RoundRobin },
        reuse: dice.pick(&[Reuse::Pooled, Reuse::Pooled, Reuse::Never, Reuse::Sticky]),
        sampling: dice.pick(&[Sampling::Sequential, Sampling::Sequential, Sampling::Random, Sampling::Shuffle]),
        endpoint: endpoint::Kind::Chat,
        requests: requests.into(),
        capture: Capture { text: false, gaps: false, raw: false },
        response_field: None,
        follow_ups: maser_engine::endpoint::FollowUps::default(),
        request_timeout: dice.pick(&[None, Some(5 * MILLI), Some(30 * MILLI), Some(longest)]),
        transport: maser_engine::plan::Transport::default(),
        preconnect: dice.chance(500),
        run_key: dice.bits(),
        seed: dice.bits(),
    }
}

fn setup(seed: u64) -> Setup {
    let mut dice = Dice::new(seed ^ 0x5e55_1045);
    let plan = plan(&mut dice);
    let stops = (0..dice.pick(&[0, 0, 0, 0, 0, 1, 2])).map(|_| dice.below(100 * MILLI)).collect();
    Setup {
        manners: Manners::drawn(&mut dice, plan.request_timeout.is_some()),
        plan: Arc::new(plan),
        seed,
        executors: dice.within(1, 4) as usize,
        one_thread: dice.chance(400),
        connections: dice.pick(&[1, 2, 4, 1000]),
        ring: (4096, 1 << 20),
        stops,
        tick: dice.pick(&[40, 40, 20 * MICRO]),
        late: dice.pick(&[0, 10, 200]),
    }
}

// ---- What must hold of it ----------------------------------------------------------------------------------------------

/// A run, looked at from all sides.
struct Run<'a> {
    setup: &'a Setup,
    account: &'a Account,
    log: Log,
    attempts: HashMap<&'a str, Vec<&'a Attempt>>,
    /// By phase and session, in the order of their turns.
    sessions: BTreeMap<(u8, u64), Vec<&'a Record>>,
}

impl<'a> Run<'a> {
    fn of(setup: &'a Setup, account: &'a Account) -> Result<Self, String> {
        let file = tempfile::NamedTempFile::new().map_err(|e| e.to_string())?;
        std::fs::write(file.path(), &account.log).map_err(|e| e.to_string())?;
        let log = Log::open(file.path()).map_err(|e| e.to_string())?;
        let mut attempts: HashMap<_, Vec<_>> = HashMap::new();
        for attempt in &account.attempts {
            attempts.entry(attempt.id.as_str()).or_default().push(attempt);
        }
        let mut sessions: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (record, _) in &account.records {
            sessions.entry((record.phase, record.session)).or_default().push(record);
        }
        sessions.values_mut().for_each(|turns| turns.sort_by_key(|r| r.start));
        Ok(Self { setup, account, log, attempts, sessions })
    }

    fn check(&self) -> Checked {
        for mark in &self.log.phases {
            let name = format!("phase {}", mark.phase);
            self.nothing_is_lost_of(mark).map_err(|e| format!("{name}: {e}\n{mark:?}"))?;
            self.counts_are_exact(mark).map_err(|e| format!("{name}: {e}\n{mark:?}"))?;
            self.limits_hold(mark).map_err(|e| format!("{name}: {e}\n{mark:?}"))?;
            self.stops_stop(mark).map_err(|e| format!("{name}: {e}\n{mark:?}"))?;
        }
        self.phases_follow_each_other()?;
        for (&(phase, number), turns) in &self.sessions {
            let name = format!("phase {phase} session {number}");
            self.turns_are_in_order(phase, number, turns).map_err(|e| format!("{name}: {e}\n{turns:#?}"))?;
            self.turns_go_when_they_may(phase, turns).map_err(|e| format!("{name}: {e}\n{turns:#?}"))?;
            self.history_is_what_was_said(phase, turns).map_err(|e| format!("{name}: {e}"))?;
        }
        self.who_is_ready_first_goes_first()?;
        self.only_limits_delay()?;
        self.ticks_are_used_once()?;
        self.cuts_are_those_drawn()?;
        self.connections_are_shared_as_asked()
    }

    fn phase(&self, n: u8) -> &Phase {
        &self.setup.plan.phases[n as usize]
    }

    fn records(&self, phase: u8) -> impl Iterator<Item = &'a Record> {
        self.account.records.iter().map(|(r, _)| r).filter(move |r| r.phase == phase)
    }

    /// (request id's) attempts of a record.
    fn attempts(&self, record: &Record) -> &[&'a Attempt] {
        let id = request_id(self.setup.plan.run_key, record.phase, record.seq).to_string();
        self.attempts.get(id.as_str()).map_or(&[], Vec::as_slice)
    }

    fn is_punctual(&self) -> bool {
        self.setup.late == 0 && self.setup.tick < MICRO
    }

    fn nothing_is_lost_of(&self, mark: &PhaseMark) -> Checked {
        let n = mark.phase as usize;
        let sum = |f: fn(&maser_engine::credit::PhaseCounters) -> &std::sync::atomic::AtomicU64| -> u64 {
            self.account.progress.iter().map(|p| Progress::get(f(p.phase(n)))).sum()
        };
        let records = self.records(mark.phase).count() as u64;
        ensure!(mark.sent == records, "{records} records");
        ensure!(mark.issued == mark.sent + mark.unused, "issued is neither sent nor unused");
        ensure!(mark.dropped + mark.idle <= mark.unused, "dropped and idle are not unused");
        ensure!(sum(|c| &c.started) == sum(|c| &c.finished), "something is in flight at the end");
        ensure!(sum(|c| &c.sessions) == sum(|c| &c.sessions_ended), "a session is live at the end");
        ensure!(sum(|c| &c.sessions_sent) == sum(|c| &c.sessions), "a session has turns left");
        ensure!(sum(|c| &c.ready) == 0, "a turn is still ready");
        let mut seqs: Vec<u64> = self.records(mark.phase).map(|r| r.seq).collect();
        seqs.sort_unstable();
        ensure!(seqs.iter().copied().eq(0..records), "numbers are not 0 to {records}: {seqs:?}");
        let sessions = self.sessions.keys().filter(|(phase, _)| *phase == mark.phase).count() as u64;
        ensure!(mark.sessions == sessions, "{sessions} sessions have records");
        let flagged = |bit| self.records(mark.phase).filter(|r| r.has(bit)).count() as u64;
        ensure!(mark.queued == flagged(flag::QUEUED), "{} records were queued", flagged(flag::QUEUED));
        ensure!(mark.over_limit == flagged(flag::OVER_LIMIT), "{} records over the limit", flagged(flag::OVER_LIMIT));
        let late = self.phase(mark.phase).late;
        ensure!(mark.dropped == 0 || late == LatePolicy::Drop, "dropped against the policy");
        // A session under way waits for its turn's slot whatever becomes of arrivals without one.
        let turns_wait = self.phase(mark.phase).prefill.is_some() && !self.is_of_ticks(mark.phase);
        ensure!(mark.queued == 0 || late == LatePolicy::Queue || turns_wait, "queued against the policy");
        let tardy = self.records(mark.phase).filter(|r| r.has(flag::SCHEDULED) && r.is_late()).count() as u64;
        ensure!(sum(|c| &c.late) == tardy, "{tardy} records are late, {} were counted", sum(|c| &c.late));
        ensure!(mark.over_limit == 0 || late == LatePolicy::Send, "beyond the limit against the policy");
        Ok(())
    }

    /// Sessions that the arena's walk gives to a phase.
    fn before(&self, phase: u8) -> u64 {
        let count = |n: u8| {
            let mark = &self.log.phases[n as usize];
            if self.phase(n).schedules_sessions() { 0 } else { mark.sessions }
        };
        (0..phase).map(count).sum()
    }

    fn span(&self, phase: u8, number: u64) -> (u32, u32) {
        let plan = &self.setup.plan;
        let sampler = Sampler::new(plan.sampling, plan.seed, plan.requests.sessions());
        match &self.phase(phase).schedule {
            Spec::Fixed(_) => plan.requests.session(number as usize),
            Spec::UserCentric(users) => {
                let start = users.sessions().nth_start(number);
                let (first, all) = plan.requests.session(start.conversation as usize);
                (first, all.min(start.turns))
            }
            _ => plan.requests.session(sampler.template(self.before(phase) + number)),
        }
    }

    fn counts_are_exact(&self, mark: &PhaseMark) -> Checked {
        let phase = self.phase(mark.phase);
        let fixed = matches!(phase.schedule, Spec::Fixed(_));
        let cut = mark.cancelled || phase.duration.is_some();
        let most_sessions = if fixed { Some(self.setup.plan.requests.sessions() as u64) } else { phase.sessions };
        if let Some(requests) = phase.requests {
            ensure!(mark.sent <= requests, "{} sent of {requests}", mark.sent);
            ensure!(cut || most_sessions.is_some() || mark.sent == requests, "{} sent of {requests}", mark.sent);
        }
        let Some(most) = most_sessions else { return Ok(()) };
        ensure!(mark.sessions <= most, "{} sessions of {most}", mark.sessions);
        let dropped = phase.schedules_sessions() && mark.dropped > 0;
        if cut || dropped || phase.requests == Some(mark.sent) {
            return Ok(());
        }
        ensure!(mark.sessions == most, "{} sessions of {most}", mark.sessions);
        let turns: u64 = (0..most).map(|k| u64::from(self.span(mark.phase, k).1)).sum();
        ensure!(mark.sent == turns && mark.sessions_cut == 0, "{} sent of the {turns} turns", mark.sent);
        Ok(())
    }

    fn limits_hold(&self, mark: &PhaseMark) -> Checked {
        let phase = self.phase(mark.phase);
        let sends = phase.late == LatePolicy::Send && phase.schedule != Spec::ClosedLoop;
        if let Some(limit) = phase.concurrency.as_ref().filter(|_| !sends) {
            let own = self.sessions.iter().filter(|((n, _), _)| *n == mark.phase);
            let spans = own.map(|(_, turns)| (turns[0].start, turns[turns.len() - 1].done));
            let over = over_limit(spans, limit, mark.start);
            ensure!(over.is_none(), "sessions at once, and allowed: {over:?}");
        }
        if let Some(limit) = phase.prefill.as_ref().filter(|_| !sends) {
            let until = |r: &Record| if r.first_token.is_set() { r.first_token } else { r.done };
            let over = over_limit(self.records(mark.phase).map(|r| (r.start, until(r))), limit, mark.start);
            ensure!(over.is_none(), "requests prefilling at once, and allowed: {over:?}");
        }
        Ok(())
    }

    fn stops_stop(&self, mark: &PhaseMark) -> Checked {
        let phase = self.phase(mark.phase);
        if let Some(duration) = phase.duration {
            let stop_at = mark.start.after(duration);
            // What was due before the end and is only late goes after it.
            let in_time = |r: &Record| r.start < stop_at || (r.has(flag::SCHEDULED) && r.due < stop_at);
            ensure!(self.records(mark.phase).all(in_time), "a start after the end {stop_at:?}");
            let kept = |r: &Record| r.start >= stop_at && r.has(flag::QUEUED);
            ensure!(!self.records(mark.phase).any(kept), "one that waited for a slot went after the end {stop_at:?}");
            if let (true, Some(grace)) = (self.is_punctual(), phase.grace) {
                let deadline = stop_at.after(grace).after(12 * MILLI);
                ensure!(self.records(mark.phase).all(|r| r.done <= deadline), "not cut by {deadline:?}");
            }
        }
        let cut = mark.grace_expired || self.setup.stops.len() > 1;
        let cancelled = self.records(mark.phase).any(|r| r.outcome() == Outcome::Cancelled);
        ensure!(cut || !cancelled, "cut by nobody");
        Ok(())
    }

    fn phases_follow_each_other(&self) -> Checked {
        let marks = &self.log.phases;
        let was_stopped = self.account.issued.cancelled.load(Ordering::Relaxed);
        ensure!(was_stopped || marks.len() == self.setup.plan.phases.len(), "{} phases have a mark", marks.len());
        for (k, pair) in marks.windows(2).enumerate() {
            let (a, b) = (&pair[0], &pair[1]);
            ensure!((a.phase as usize, b.phase as usize) == (k, k + 1), "marks out of order");
            let seamless = self.phase(b.phase).seamless;
            ensure!(a.sent_end <= b.start, "{b:?} began before {a:?} had sent everything");
            ensure!(seamless || a.end <= b.start, "{b:?} began before {a:?} had ended");
            ensure!(seamless || a.carried_over == 0, "{a:?} carries over");
            ensure!(self.records(a.phase).all(|r| r.start <= b.start), "a start of phase {k} in the next");
            let over = self.records(a.phase).filter(|r| r.done > b.start).count() as u64;
            ensure!(!self.is_punctual() || over <= a.carried_over, "{over} carried over, {a:?}");
        }
        Ok(())
    }

    fn turns_are_in_order(&self, phase: u8, number: u64, turns: &[&Record]) -> Checked {
        let (first, all) = self.span(phase, number);
        ensure!(turns.len() <= all as usize, "it has {all} turns");
        let plan = &self.setup.plan;
        for (k, r) in turns.iter().enumerate() {
            ensure!(r.request == first + k as u32, "turn {k} is request {}", first + k as u32);
            ensure!((r.executor, r.target) == (turns[0].executor, turns[0].target), "turn {k} went elsewhere");
            ensure!(k == 0 || turns[k - 1].done <= r.start, "turn {k} overlaps");
            for attempt in self.attempts(r) {
                let session = correlation_id(plan.run_key, phase, number).to_string();
                ensure!(attempt.session == session, "turn {k} bears the id of another session");
                ensure!(attempt.to == plan.targets[r.target as usize].addrs[0], "turn {k} went to {:?}", attempt.to);
            }
        }
        let in_turn = (number % plan.targets.len() as u64) as u16;
        ensure!(plan.balance != Balance::RoundRobin || turns[0].target == in_turn, "not target {in_turn}");
        Ok(())
    }

    fn turns_go_when_they_may(&self, phase: u8, turns: &[&Record]) -> Checked {
        let start = self.log.phases.get(phase as usize).map_or(Instant::UNSET, |m| m.start);
        let spec = &self.phase(phase).schedule;
        let scheduled = *spec != Spec::ClosedLoop;
        for (k, r) in turns.iter().enumerate() {
            ensure!(r.has(flag::SCHEDULED) == scheduled, "turn {k}: scheduled or not?");
            ensure!(r.due <= r.start, "turn {k} went before it was due");
            let turn = self.setup.plan.requests.turn(r.request);
            let due = match (spec, k.checked_sub(1).map(|before| turns[before].done)) {
                (Spec::UserCentric(users), before) => {
                    let first = start.after(users.sessions().nth_start(r.session).offset);
                    first.after(users.gap() * k as u64).max(before.unwrap_or(first))
                }
                (Spec::Fixed(offsets), None) => start.after(offsets[r.session as usize]),
                (Spec::Fixed(_), Some(before)) => match turn.at {
                    Some(at) => start.after(at).max(before),
                    None => before.after(turn.delay),
                },
                (Spec::ClosedLoop, Some(before)) if turns[k - 1].outcome() == Outcome::Connect => {
                    // The slot is held back, for how long depends on how long there has been nobody.
                    let bound = |pause| before.after(turn.delay.max(pause));
                    let tardy = if self.is_punctual() { 100 * MICRO } else { 100 * MILLI };
                    let within = bound(MILLI)..=bound(100 * MILLI + tardy);
                    ensure!(within.contains(&r.due), "turn {k} was due in {within:?}");
                    r.due
                }
                (Spec::ClosedLoop, Some(before)) => before.after(turn.delay),
                (_, Some(before)) => {
                    ensure!(r.start >= before.after(turn.delay), "turn {k} did not wait for its delay");
                    continue;
                }
                (_, None) => continue,
            };
            ensure!(r.due == due, "turn {k} was due at {due:?}");
            let free = self.phase(phase).concurrency.is_none() && self.phase(phase).prefill.is_none();
            let late = r.slip() > 200 * MICRO;
            ensure!(!(self.is_punctual() && free && late), "turn {k} is {} ns late", r.slip());
        }
        Ok(())
    }

    fn history_is_what_was_said(&self, phase: u8, turns: &[&Record]) -> Checked {
        let plan = &self.setup.plan;
        let (first, _) = self.span(phase, turns[0].session);
        let index = (0..plan.requests.sessions()).find(|k| plan.requests.session(*k).0 == first).unwrap_or(0) as u64;
        let mut history = String::new();
        for (k, r) in turns.iter().enumerate() {
            let turn = plan.requests.turn(r.request);
            if turn.reset {
                history.clear();
            }
            let wanted = body(index, k as u64, &history);
            for attempt in self.attempts(r) {
                let sent = String::from_utf8_lossy(&attempt.body);
                ensure!(sent == wanted, "turn {k} is {sent}\ninstead of {wanted}");
            }
            if turn.history != History::None {
                history.push_str(&own(index, k as u64));
                history.push(',');
            }
            if turn.history == History::OwnAndReply && r.outcome() == Outcome::Ok {
                let said = self.attempts(r).last().map(|a| reply(a)).unwrap_or_default();
                history.push_str(&format!("{{\"role\":\"assistant\",\"content\":\"{said}\"}},"));
            }
        }
        Ok(())
    }

    fn who_is_ready_first_goes_first(&self) -> Checked {
        let mut last: HashMap<(u8, u16), &Record> = HashMap::new();
        let mut later: Vec<&Record> = self.sessions.values().flat_map(|turns| &turns[1..]).copied().collect();
        later.retain(|r| self.phase(r.phase).schedule == Spec::ClosedLoop);
        later.sort_by_key(|r| r.start);
        for r in later {
            if let Some(before) = last.insert((r.phase, r.executor), r).filter(|_| self.is_punctual()) {
                ensure!(before.due <= r.due.after(100 * MICRO), "{before:?} overtook {r:?}");
            }
        }
        Ok(())
    }

    fn is_of_ticks(&self, phase: u8) -> bool {
        matches!(self.phase(phase).schedule, Spec::Constant(_) | Spec::Poisson(_))
    }

    /// Where no thread is late, only what waited for a slot starts late, and it is marked so.
    fn only_limits_delay(&self) -> Checked {
        if !self.is_punctual() {
            return Ok(());
        }
        for (r, _) in self.account.records.iter().filter(|(r, _)| !r.has(flag::QUEUED)) {
            // Where every session has one turn, a closed loop waits for credits too.
            let is_stocked = self.setup.plan.requests.is_single_turn() && !r.has(flag::SCHEDULED);
            if is_stocked {
                continue;
            }
            ensure!(r.slip() <= 200 * MICRO, "nothing kept it, and it started {} ns late: {r:?}", r.slip());
        }
        Ok(())
    }

    fn ticks_are_used_once(&self) -> Checked {
        for mark in &self.log.phases {
            let spec = &self.phase(mark.phase).schedule;
            if !matches!(spec, Spec::Constant(_) | Spec::Poisson(_)) {
                continue;
            }
            let mut arrivals = spec.arrivals(self.setup.plan.seed);
            let ticks: HashSet<Instant> =
                (0..mark.issued + mark.spare).filter_map(|_| Some(mark.start.after(arrivals.next_offset()?))).collect();
            let mut used = HashMap::new();
            for r in self.records(mark.phase) {
                ensure!(ticks.contains(&r.due), "{r:?} is on no tick of {mark:?}");
                *used.entry(r.due).or_insert(0) += 1;
            }
            ensure!(
                ticks.len() as u64 != mark.issued + mark.spare || used.values().all(|n| *n == 1),
                "a tick was used twice"
            );
        }
        Ok(())
    }

    fn cuts_are_those_drawn(&self) -> Checked {
        for (r, _) in &self.account.records {
            let draws = self.phase(r.phase).cancellation.map(|c| c.draws(self.setup.plan.seed));
            let delay = draws.and_then(|d| d.delay_of(r.seq));
            let lasted = if r.send_end.is_set() { r.done.since(r.send_end) } else { 0 };
            let is_cut = r.outcome() == Outcome::Abandoned;
            ensure!(
                !is_cut || (r.send_end.is_set() && delay.is_some_and(|d| lasted >= d)),
                "cut before its time: {r:?}"
            );
            let over = delay.is_some_and(|d| lasted > d + 100 * MICRO);
            ensure!(!(self.is_punctual() && over), "not cut at its time: {r:?}");
        }
        Ok(())
    }

    fn connections_are_shared_as_asked(&self) -> Checked {
        let mut users: HashMap<usize, Vec<&Attempt>> = HashMap::new();
        self.account.attempts.iter().for_each(|a| users.entry(a.link).or_default().push(a));
        for attempts in users.values() {
            match self.setup.plan.reuse {
                Reuse::Never => ensure!(attempts.len() == 1, "a connection was used again: {attempts:?}"),
                Reuse::Sticky => {
                    let one = attempts.iter().all(|a| a.session == attempts[0].session);
                    ensure!(one, "two sessions shared a connection: {attempts:?}");
                }
                Reuse::Pooled => {}
            }
        }
        Ok(())
    }
}

/// What a good answer adds to a history, escaped.
fn reply(attempt: &Attempt) -> String {
    let mut contents: Vec<_> = attempt.contents.iter().map(|(_, c)| c).collect();
    if let (Ending::Closed, Some(answer)) = (attempt.ending, &attempt.answer) {
        contents.extend(answer.contents.iter().filter(|c| c.end == usize::MAX));
    }
    let all =
        |is_text: bool| contents.iter().filter(|c| c.text.is_empty() != is_text).map(|c| c.raw).collect::<String>();
    let text = all(true);
    if text.is_empty() { all(false) } else { text }
}

/// Where more spans overlap than the limit allows at that moment: how many, and how many may.
fn over_limit(
    spans: impl Iterator<Item = (Instant, Instant)>,
    limit: &LimitCurve,
    start: Instant,
) -> Option<(Instant, i64, u32)> {
    // One that ends and one that begins at the same time follow each other.
    let mut changes: Vec<(Instant, i64)> = spans.flat_map(|(from, to)| [(from, 1), (to, -1)]).collect();
    changes.sort_unstable();
    let mut now = 0;
    changes.iter().find_map(|&(at, change)| {
        now += change;
        let most = limit.at(at.since(start));
        (change > 0 && now > i64::from(most)).then_some((at, now, most))
    })
}

/// The n-th start of a walk.
trait NthStart {
    fn nth_start(self, n: u64) -> SessionStart;
}

impl NthStart for Sessions {
    fn nth_start(mut self, n: u64) -> SessionStart {
        for _ in 0..n {
            self.next_session();
        }
        self.next_session().unwrap()
    }
}

// ---- Seeds -------------------------------------------------------------------------------------------------------------

fn checked_run(setup: &Setup) -> Result<Account, String> {
    let account = sim::run(setup).map_err(|e| e.to_string())?;
    Run::of(setup, &account)?.check()?;
    Ok(account)
}

fn try_seed(seed: u64) -> Result<(), String> {
    let setup = setup(seed);
    checked_run(&setup).map(drop).map_err(|what| format!("{what}\n{setup:#?}"))
}

#[test]
fn everything_holds_of_the_first_seeds() {
    try_quarter(0, try_seed);
}

#[test]
fn everything_holds_of_the_second_seeds() {
    try_quarter(1, try_seed);
}

#[test]
fn everything_holds_of_the_third_seeds() {
    try_quarter(2, try_seed);
}

#[test]
fn everything_holds_of_the_fourth_seeds() {
    try_quarter(3, try_seed);
}

#[test]
fn the_seeds_reach_every_state() {
    let mut sum = PhaseMark::default();
    let (mut abandoned, mut cancelled, mut grace) = (0, 0, 0);
    for seed in 0..150 {
        let Ok(account) = sim::run(&setup(seed)) else { continue };
        let of = |outcome| account.records.iter().filter(|(r, _)| r.outcome() == outcome).count();
        abandoned += of(Outcome::Abandoned);
        cancelled += of(Outcome::Cancelled);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &account.log).unwrap();
        for mark in Log::open(file.path()).unwrap().phases {
            grace += u64::from(mark.grace_expired);
            sum.dropped += mark.dropped;
            sum.idle += mark.idle;
            sum.queued += mark.queued;
            sum.over_limit += mark.over_limit;
            sum.sessions += mark.sessions;
            sum.sessions_cut += mark.sessions_cut;
            sum.carried_over += mark.carried_over;
        }
    }
    let reached = [sum.dropped, sum.idle, sum.queued, sum.over_limit, sum.sessions_cut, sum.carried_over, grace];
    assert!(reached.iter().all(|n| *n > 0), "{sum:?}, grace over {grace} times");
    assert!(sum.sessions > sum.sessions_cut && abandoned > 0 && cancelled > 0, "{abandoned} {cancelled}");
}

/// A run of one phase against a server that answers everything at once.
fn prompt(phase: Phase, turns: &[u64], executors: usize) -> Setup {
    let mut setup = setup(1);
    let requests = arena(turns, |_, _| Turn { history: History::OwnAndReply, ..Turn::default() });
    setup.plan = Arc::new(Plan {
        phases: vec![phase],
        targets: vec![target(0)],
        balance: Balance::RoundRobin,
        reuse: Reuse::Pooled,
        sampling: Sampling::Sequential,
        endpoint: endpoint::Kind::Chat,
        requests: requests.into(),
        capture: Capture { text: false, gaps: false, raw: false },
        response_field: None,
        follow_ups: maser_engine::endpoint::FollowUps::default(),
        request_timeout: None,
        transport: maser_engine::plan::Transport::default(),
        preconnect: false,
        run_key: 1,
        seed: 1,
    });
    let manners = Manners::prompt();
    Setup { executors, connections: 10_000, stops: vec![], tick: 0, late: 0, one_thread: false, manners, ..setup }
}

#[test]
fn a_number_of_requests_or_of_sessions_is_exact_on_any_number_of_executors() {
    let limited = Phase { concurrency: Some(LimitCurve::constant(2)), ..Phase::default() };
    for executors in 1..=4 {
        let ten = prompt(Phase { requests: Some(10), ..limited.clone() }, &[3], executors);
        assert_eq!(checked_run(&ten).unwrap().attempts.len(), 10);
        let four = prompt(Phase { sessions: Some(4), ..limited.clone() }, &[3], executors);
        assert_eq!(checked_run(&four).unwrap().attempts.len(), 12);
        let paced = Phase { schedule: Spec::Constant(1000.0), ..limited.clone() };
        let ten = prompt(Phase { requests: Some(10), ..paced.clone() }, &[3], executors);
        assert_eq!(checked_run(&ten).unwrap().attempts.len(), 10);
        // Where most arrivals are dropped as well, with one turn or with several; sessions of one turn are requests.
        for (turns, requests, sessions) in [(1, Some(10), None), (1, None, Some(10)), (3, Some(10), None)] {
            let paced = Phase { late: LatePolicy::Drop, requests, sessions, ..paced.clone() };
            let mut slow = prompt(paced, &[turns], executors);
            (slow.manners.gap, slow.manners.first_byte) = (0, 40 * MILLI);
            let account = sim::run(&slow).unwrap();
            let dropped: u64 = account.progress.iter().map(|p| p.total(|c| &c.dropped)).sum();
            assert_eq!(account.attempts.len(), 10, "{turns} turns on {executors} executors");
            assert!(dropped > 20, "{dropped} dropped");
        }
        let four = prompt(Phase { sessions: Some(4), ..paced }, &[3], executors);
        assert_eq!(checked_run(&four).unwrap().attempts.len(), 12);
    }
}

#[test]
fn a_tick_serves_a_turn_that_is_ready_before_it_starts_a_session() {
    let phase = Phase { schedule: Spec::Constant(1000.0), requests: Some(12), ..Phase::default() };
    let account = checked_run(&prompt(phase, &[3], 1)).unwrap();
    let mut records: Vec<&Record> = account.records.iter().map(|(r, _)| r).collect();
    records.sort_by_key(|r| r.due);
    // Each answer is there before the next tick: one session after the other.
    let order: Vec<_> = records.iter().map(|r| (r.session, r.request)).collect();
    assert_eq!(order, (0..12).map(|n| (n / 3, n as u32 % 3)).collect::<Vec<_>>());
    let gaps: HashSet<Nanos> = records.windows(2).map(|w| w[1].due.since(w[0].due)).collect();
    assert_eq!(gaps, HashSet::from([MILLI]));
}

#[test]
fn the_schedule_is_the_same_on_any_number_of_executors() {
    let duration = Some(50 * MILLI);
    for schedule in [Spec::Constant(2000.0), Spec::Poisson(3000.0)] {
        for concurrency in [None, Some(LimitCurve::constant(4))] {
            let phase = Phase { schedule: schedule.clone(), duration, concurrency, ..Phase::default() };
            let digests = [1, 2, 3].map(|executors| {
                let account = checked_run(&prompt(phase.clone(), &[3, 1], executors)).unwrap();
                (account.issued.digest.load(Ordering::Relaxed), Progress::get(&account.issued.credits))
            });
            assert!(digests[0].1 > 90 && digests.iter().all(|d| *d == digests[0]), "{digests:?}");
        }
    }
}

#[test]
fn the_order_of_scheduled_sessions_is_the_same_on_any_number_of_executors() {
    let turns = [3, 1, 4, 2];
    let users = UserCentric { users: 3, rate: 500.0, turns: turns.map(|t| t as u32).into() };
    let fixed = Spec::Fixed([0, MILLI, MILLI, 9 * MILLI].into());
    for (schedule, sessions) in [(Spec::UserCentric(users), Some(20)), (fixed, None)] {
        let starts = [1, 2, 3].map(|executors| {
            let phase = Phase { schedule: schedule.clone(), sessions, ..Phase::default() };
            let account = checked_run(&prompt(phase, &turns, executors)).unwrap();
            let zero = account.records.iter().map(|(r, _)| r.due).min().unwrap();
            // When a later turn goes is up to the answer before it; which one it is, is not.
            let mut all: Vec<_> =
                account.records.iter().map(|(r, _)| (r.session, r.request, r.due.since(zero))).collect();
            all.sort_unstable();
            for k in (1..all.len()).filter(|&k| all[k].0 == all[k - 1].0).collect::<Vec<_>>() {
                all[k].2 = 0;
            }
            (account.issued.digest.load(Ordering::Relaxed), all)
        });
        assert!(starts[0].1.len() >= 10 && starts.iter().all(|s| *s == starts[0]), "{starts:?}");
    }
}

#[test]
fn a_closed_loop_thins_out_while_nobody_is_there_to_connect_to() {
    let limit = Some(LimitCurve::constant(4));
    let dead = |phase: Phase, turns: &[u64], executors| {
        let mut dead = prompt(phase, turns, executors);
        dead.manners.refuse = 1000;
        checked_run(&dead).unwrap()
    };
    let mark = |account: &Account| {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&account.log).unwrap();
        Log::open(file.path()).unwrap().phases[0].clone()
    };
    for (turns, executors) in [(1, 1), (1, 2), (3, 1), (3, 2)] {
        let lasting = Phase { concurrency: limit.clone(), duration: Some(2 * SECOND), ..Phase::default() };
        let account = dead(lasting.clone(), &[turns], executors);
        // A slot tries at most eight times on the way to 100 ms, then 10 times a second.
        let n = account.records.len() as u64;
        assert!((40..=4 * (8 + 20)).contains(&n), "{turns} turns, {executors} executors: {n} requests");
        let mark = mark(&account);
        assert_eq!((mark.paused, mark.sent), (n, n));
        // The pause is over when it is over, and is nobody's lateness.
        assert!(account.records.iter().all(|(r, _)| r.slip() < 100 * MICRO), "{turns} turns");
        assert!((SECOND..=n * 101 * MILLI).contains(&mark.paused_ns), "{} ns", mark.paused_ns);
        // Not even where the threads are often late, and hundreds of pauses end at once.
        let many = Phase { concurrency: Some(LimitCurve::constant(400)), ..lasting.clone() };
        let mut tardy = prompt(many, &[turns], executors);
        (tardy.manners.refuse, tardy.late, tardy.tick) = (1000, 200, MICRO);
        let account = sim::run(&tardy).unwrap();
        let slips = account.records.iter().map(|(r, _)| r.slip());
        // The first ones wait for nothing but the machine.
        let paused = slips.skip(400).max();
        assert!(paused < Some(100 * MICRO), "{turns} turns on {executors}: {paused:?}");
        // A number of requests is reached all the same.
        let counted = dead(Phase { requests: Some(30), duration: None, ..lasting }, &[turns], executors);
        assert_eq!(counted.records.len(), 30);
    }
    // What has a planned time goes at that time, whoever is there.
    let paced = Phase { schedule: Spec::Constant(1000.0), requests: Some(500), ..Phase::default() };
    for turns in [1, 3] {
        let account = dead(paced.clone(), &[turns], 1);
        assert_eq!((account.records.len(), mark(&account).paused), (500, 0), "{turns} turns");
        assert!(account.records.iter().all(|(r, _)| r.start.since(r.due) < MILLI), "{turns} turns");
    }
}

#[test]
fn a_run_of_failures_is_given_up() {
    for (turns, executors) in [(1, 1), (3, 1), (3, 2)] {
        let limit = Some(LimitCurve::constant(4));
        let phase = Phase { concurrency: limit, requests: Some(1000), failed_threshold: Some(0.2), ..Phase::default() };
        let mut failing = prompt(phase.clone(), &[turns], executors);
        failing.manners.trouble = 1000;
        let mut plan = Plan { phases: vec![phase.clone(), phase.clone()], ..Arc::into_inner(failing.plan).unwrap() };
        plan.phases[1].failed_threshold = None;
        failing.plan = Arc::new(plan);
        let account = sim::run(&failing).unwrap();
        assert!(account.issued.too_many_failed.load(Ordering::Relaxed));
        assert!((10..200).contains(&account.records.len()), "{} records", account.records.len());
        assert!(account.records.iter().all(|(r, _)| r.phase == 0), "the next phase began");
        let well = checked_run(&prompt(phase, &[turns], executors));
        let well = well.unwrap();
        assert!(!well.issued.too_many_failed.load(Ordering::Relaxed) && well.records.len() == 1000);
    }
}

#[test]
fn a_run_that_keeps_too_few_of_its_times_is_given_up() {
    // Ten slots of 20 ms serve 500 a second of the 1,000 planned.
    let of = |late, least| {
        let limit = Some(LimitCurve::constant(10));
        let schedule = Spec::Constant(1000.0);
        let phase = Phase { concurrency: limit, schedule, late, requests: Some(3000), ..Phase::default() };
        Phase { least_adherence: Some(least), ..phase }
    };
    for (turns, late, executors) in
        [(1, LatePolicy::Queue, 1), (1, LatePolicy::Queue, 2), (1, LatePolicy::Drop, 1), (3, LatePolicy::Queue, 1)]
    {
        let run = |least| {
            let mut slow = prompt(of(late, least), &[turns], executors);
            slow.manners.gap = 0;
            slow.manners.first_byte = 40 * MILLI;
            sim::run(&slow).unwrap()
        };
        let account = run(0.9);
        assert!(account.issued.below_adherence.load(Ordering::Relaxed), "{turns} turns, {late:?}");
        let begun = account.records.iter().map(|(r, _)| r.due).min().unwrap();
        let last = account.records.iter().map(|(r, _)| r.start).max().unwrap();
        // Not before its second, and soon after it.
        assert!((900 * MILLI..1100 * MILLI).contains(&last.since(begun)), "{}", last.since(begun));
        assert!(!run(0.001).issued.below_adherence.load(Ordering::Relaxed), "{turns} turns, {late:?}");
    }
    let prompt = prompt(Phase { concurrency: None, ..of(LatePolicy::Queue, 1.0) }, &[1], 1);
    assert!(checked_run(&prompt).is_ok_and(|a| !a.issued.below_adherence.load(Ordering::Relaxed)));
}

#[test]
fn a_stall_behind_a_limit_is_noticed_though_nothing_starts_any_more() {
    // The server says nothing for an hour: ten requests are in flight, and all others are overdue, more than may wait on the
    // executors included.
    let schedule = Spec::Constant(8000.0);
    let phase =
        Phase { concurrency: Some(LimitCurve::constant(10)), schedule, requests: Some(100_000), ..Phase::default() };
    for (turns, executors) in [(1, 1), (1, 2), (3, 1), (3, 2)] {
        let mut hung = prompt(Phase { least_adherence: Some(0.9), ..phase.clone() }, &[turns], executors);
        hung.manners.gap = 0;
        hung.manners.first_byte = 3600 * SECOND;
        let account = sim::run(&hung).unwrap();
        assert!(account.issued.below_adherence.load(Ordering::Relaxed), "{turns} turns on {executors}");
        let begun = account.records.iter().map(|(r, _)| r.due).min().unwrap();
        let last = account.records.iter().map(|(r, _)| r.done).max().unwrap();
        assert!((900 * MILLI..1100 * MILLI).contains(&last.since(begun)), "{}", last.since(begun));
    }
}

#[test]
fn users_send_their_turns_on_one_grid_on_any_number_of_executors() {
    let users = UserCentric { users: 15, rate: 1000.0, turns: [20].into() };
    let phase = Phase { schedule: Spec::UserCentric(users), requests: Some(300), ..Phase::default() };
    for executors in 1..=3 {
        let account = sim::run(&prompt(phase.clone(), &[20], executors)).unwrap();
        assert_eq!(account.records.len(), 300);
        let mut records: Vec<&Record> = account.records.iter().map(|(r, _)| r).collect();
        records.sort_by_key(|r| r.due);
        let start = records[0].due;
        let grid: Vec<Nanos> = records.iter().map(|r| r.due.since(start)).collect();
        assert_eq!(grid, (0..300).map(|k| k * MILLI).collect::<Vec<_>>(), "{executors} executors");
        // The first fifteen users, in the order in which they begin, and the turns that each sends.
        let mut turns = [0; 15];
        records.iter().filter(|r| r.session < 15).for_each(|r| turns[r.session as usize] += 1);
        assert_eq!(turns, [20, 6, 11, 16, 2, 7, 12, 17, 3, 8, 13, 18, 4, 9, 14], "{executors} executors");
        // User 5 of the reference's table, the second to begin, is replaced when its sixth turn has had its interval.
        let next = records.iter().filter(|r| r.due.since(start) == 91 * MILLI).map(|r| r.request);
        assert_eq!(next.collect::<Vec<_>>(), [0], "a new user's first turn");
    }
}

#[test]
fn a_ramped_limit_is_kept_to_at_every_moment() {
    let ramp = Ramp { duration: 80 * MILLI, strategy: RampStrategy::Linear };
    let curve = LimitCurve::ramped(5, &ramp, 0);
    for executors in 1..=3 {
        let (concurrency, duration) = (Some(curve.clone()), Some(120 * MILLI));
        let phase = Phase { concurrency, duration, ..Phase::default() };
        let account = sim::run(&prompt(phase, &[1, 1], executors)).unwrap();
        let mut spans: Vec<(Instant, Instant)> = account.records.iter().map(|(r, _)| (r.start, r.done)).collect();
        spans.sort_unstable();
        let begin = spans[0].0;
        let mut reached = 0;
        for (k, (at, _)) in spans.iter().enumerate() {
            let busy = 1 + spans[..k].iter().filter(|(_, done)| done > at).count() as u32;
            // The first request starts a turn of the threads after the phase.
            let limit = curve.at(at.since(begin) + 100 * MICRO);
            assert!(busy <= limit, "{busy} at once, {limit} allowed {} ns after the start", at.since(begin));
            reached = reached.max(busy);
        }
        assert_eq!(reached, 5, "{executors} executors");
    }
}

#[test]
fn a_prefill_slot_is_free_again_with_the_first_token() {
    for schedule in [Spec::ClosedLoop, Spec::Constant(100_000.0)] {
        let (concurrency, prefill) = (Some(LimitCurve::constant(4)), Some(LimitCurve::constant(1)));
        let phase = Phase { schedule, concurrency, prefill, requests: Some(60), ..Phase::default() };
        for turns in [1, 3] {
            let mut setup = prompt(phase.clone(), &[turns], 1);
            setup.manners.gap = 5 * MILLI;
            let account = sim::run(&setup).unwrap();
            let records = || account.records.iter().map(|(r, _)| r);
            let until = |r: &Record| if r.first_token.is_set() { r.first_token } else { r.done };
            let one = LimitCurve::constant(1);
            assert_eq!(over_limit(records().map(|r| (r.start, until(r))), &one, Instant(0)), None);
            assert!(over_limit(records().map(|r| (r.start, r.done)), &one, Instant(0)).is_some(), "never two at once");
        }
    }
}
