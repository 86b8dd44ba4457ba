//! The timing core: walks the schedule and issues credits.
//!
//! It writes `due` once. A credit with a planned time is pushed [`LOOKAHEAD`] before it, and the executor's own clock
//! releases it, so the hand-off between threads never shows in the send time. In a closed loop executors hold a stock of
//! credits to refill their slots from, topped up here before it runs out.
//!
//! A phase is *issued* until everything in it has been sent, then it *drains*. One phase is issued at a time; any number
//! may drain, each with its own grace period, where the phases after them are seamless.

use crate::clock::{Instant, MICRO, MILLI, Nanos, SECOND};
use crate::credit::{Claims, Credit, Issued, Order, PhaseCounters, Progress, StopSignal};
use crate::log::PhaseMark;
use crate::net::reactor::Doorbell;
use crate::net::{Next, Part};
use crate::plan::{Phase, Plan, Reuse, Sampler};
use crate::record::LATE;
use crate::ring::Producer;
use crate::schedule::{Arrivals, LimitCurve, Spec, share};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How long before its time a credit is handed to its executor. Covers a parked thread's waking (16–31 µs, at worst some
/// hundreds) many times over.
pub const LOOKAHEAD: Nanos = 2 * MILLI;

/// Capacity of an executor's ring of orders: [`LOOKAHEAD`] at two million requests a second.
pub const ORDERS: usize = 4096;

/// Room that credits leave in the ring for other orders.
const RESERVED: usize = 16;

/// How often executors on other threads are looked at; nothing else tells of what they did.
const POLL_OTHERS: Nanos = MILLI;

/// How often the stop signal is looked at when nothing else is to do.
const POLL_STOP: Nanos = 10 * MILLI;

/// How long connections opened ahead may take before the run begins without those that have not answered: far longer
/// than any that will, far shorter than the kernel tries (two minutes).
const OPENING: Nanos = 10 * SECOND;

/// How soon a full ring is tried again.
const RETRY_FULL: Nanos = 50 * MICRO;

/// How soon executors that hold all the scheduled credits they may are looked at again.
const RETRY_STOCKED: Nanos = MILLI / 2;

/// The most scheduled credits that wait on an executor. A schedule that outruns its limits is kept back here, where it
/// takes no memory, with `due` as planned.
const WAITING: u64 = ORDERS as u64;

/// The fewest ended requests of which the part that failed is looked at.
const JUDGED: u64 = 10;

/// The fewest arrivals of which the part that left on time is looked at, and how long after the phase's start: whatever
/// shakes a start-up is over then.
const JUDGED_ARRIVALS: (u64, Nanos) = (200, SECOND);

/// Arrivals that one turn's look at the part that left on time walks past: 4 million a second while others are polled.
const OVERDUE_A_TURN: usize = 4096;

/// The most credits a closed loop's executor holds beyond its free slots: [`POLL_OTHERS`] at a million a second.
const STOCK: u64 = 1024;

/// The timing core's side of one executor.
#[derive(Debug)]
pub struct Lane {
    orders: Producer<Order>,
    progress: Arc<Progress>,
    bell: Option<Arc<Doorbell>>,
    /// Credits pushed, by phase.
    issued: Vec<u64>,
    /// This executor's share of the phase's concurrency limit.
    share: Option<u32>,
    /// It has a share of every limit of the phase.
    has_share: bool,
    rung: bool,
    /// Orders that found the ring full. Credits never do: they leave room, and wait while anything is here.
    kept: VecDeque<Order>,
}

impl Lane {
    /// A lane to the executor behind `orders`. `bell` wakes it if it sleeps on another thread.
    pub fn new(orders: Producer<Order>, progress: Arc<Progress>, bell: Option<Arc<Doorbell>>) -> Self {
        Self {
            orders,
            progress,
            bell,
            issued: Vec::new(),
            share: None,
            has_share: true,
            rung: true,
            kept: VecDeque::new(),
        }
    }

    /// Gives an order; one that finds the ring full is kept, and those after it, until [`Lane::flush`] finds room.
    fn tell(&mut self, order: Order) {
        if !self.kept.is_empty() || self.orders.push(order).is_err() {
            self.kept.push_back(order);
        }
        self.rung = false;
    }

    /// Passes on what was kept, as far as there is room.
    fn flush(&mut self) {
        while let Some(&order) = self.kept.front()
            && self.orders.push(order).is_ok()
        {
            self.kept.pop_front();
            self.rung = false;
        }
        self.ring();
    }

    fn has_room(&self) -> bool {
        self.kept.is_empty() && self.orders.room() > RESERVED
    }

    /// Wakes the executor once for all it was told since the last time.
    fn ring(&mut self) {
        if !std::mem::replace(&mut self.rung, true)
            && let Some(bell) = &self.bell
        {
            bell.ring();
        }
    }

    /// Credits of phase `n` pushed and neither started nor handed back. Never too few: of two counters that grow together,
    /// the one that makes it smaller is read first.
    fn stock(&self, n: usize) -> u64 {
        let counters = self.progress.phase(n);
        let gone = Progress::get(&counters.started) + Progress::get(&counters.unused);
        (self.issued[n] + Progress::get(&counters.own)).saturating_sub(gone)
    }

    /// Credits of phase `n` not returned, and requests in flight without one.
    fn outstanding(&self, n: usize) -> u64 {
        let counters = self.progress.phase(n);
        let back = Progress::get(&counters.finished) + Progress::get(&counters.unused);
        (self.issued[n] + Progress::get(&counters.own)).saturating_sub(back)
    }

    /// Slots of sessions that are taken, or will be.
    fn occupied(&self, n: usize, single_turn: bool) -> u64 {
        if single_turn {
            return self.outstanding(n);
        }
        let counters = self.progress.phase(n);
        let ended = Progress::get(&counters.sessions_ended);
        self.stock(n) + Progress::get(&counters.sessions) - ended
    }

    /// Whether nothing of phase `n` will ever start or end here any more. `stopped`: only if told so.
    fn is_drained(&self, n: usize, stopped: bool) -> bool {
        let counters = self.progress.phase(n);
        let told = !stopped || counters.stopped.load(Ordering::Acquire);
        let ended = Progress::get(&counters.sessions_ended);
        told && self.outstanding(n) == 0 && ended == Progress::get(&counters.sessions)
    }

    fn free_slots(&self, n: usize) -> u64 {
        // The older counter first: what starts and finishes between the two reads must not make it the larger one.
        let finished = Progress::get(&self.progress.phase(n).finished);
        let in_flight = Progress::get(&self.progress.phase(n).started) - finished;
        u64::from(self.share.unwrap_or(0)).saturating_sub(in_flight)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first phase: connections are being opened until each stands or has failed, or for [`OPENING`].
    Opening,
    /// This phase is being issued.
    Issuing(usize),
    /// None is, until those issued before have drained; then this one begins.
    Before(usize),
}

/// A phase that has sent everything.
#[derive(Debug)]
struct Draining {
    mark: PhaseMark,
    /// When what is still in flight is cut.
    deadline: Instant,
}

/// The timing core.
#[derive(Debug)]
pub struct Timing {
    plan: Arc<Plan>,
    lanes: Vec<Lane>,
    marks: Producer<PhaseMark>,
    issued: Arc<Issued>,
    stop: Arc<StopSignal>,
    claims: Arc<Claims>,
    sampler: Sampler,
    state: State,
    draining: VecDeque<Draining>,
    arrivals: Arrivals,
    /// The next arrival, drawn but not yet pushed.
    pending: Option<Arrival>,
    /// Everything of the phase has been pushed.
    all_pushed: bool,
    mark: PhaseMark,
    /// Sessions of the walk through the arena, all phases before this one; where every session has one turn, of this one
    /// too. A trace's schedule has its own.
    sampled: u64,
    next_lane: usize,
    /// Connections asked for ahead, and until when they are waited for.
    opening: Option<(u64, Instant)>,
    /// No credit of this phase is due at or after this.
    stop_at: Instant,
    stopped: u8,
    /// The phase has a limit.
    is_limited: bool,
    /// Too many requests have failed: no further phase begins.
    given_up: bool,
    /// Every executor was told that nothing more comes.
    finishing: bool,
    /// By phase: the arrivals whose time has passed, where that is judged.
    overdue: Vec<Option<Overdue>>,
    poll: Nanos,
    /// No executor is on its thread.
    is_alone: bool,
    /// When it asked for the turn under way.
    wanted: Instant,
    digest: u64,
}

/// A point of the schedule.
#[derive(Debug, Clone, Copy)]
struct Arrival {
    due: Instant,
    /// Session of the arena and number of turns, where the schedule says so.
    session: Option<(u32, u32)>,
}

/// A second walk over a phase's schedule, which counts the arrivals whose time has passed, issued or not: those that a limit
/// or a stall keeps back included, as soon as they are late.
#[derive(Debug)]
struct Overdue {
    arrivals: Arrivals,
    next: Option<Nanos>,
    count: u64,
}

impl Overdue {
    fn new(mut arrivals: Arrivals) -> Self {
        Self { next: arrivals.next_offset(), arrivals, count: 0 }
    }

    /// How many arrivals, `most` of them at most, were due at `offset` from the phase's start or before. One call walks a
    /// bounded part of the way, and the next goes on from there: until it has caught up it says too few.
    fn until(&mut self, offset: Nanos, most: u64) -> u64 {
        for _ in 0..OVERDUE_A_TURN {
            if self.count >= most || self.next.is_none_or(|next| next > offset) {
                break;
            }
            self.count += 1;
            self.next = self.arrivals.next_offset();
        }
        self.count.min(most)
    }
}

impl Timing {
    /// A timing core that will walk the plan's phases over these executors.
    pub fn new(
        plan: Arc<Plan>,
        mut lanes: Vec<Lane>,
        marks: Producer<PhaseMark>,
        issued: Arc<Issued>,
        stop: Arc<StopSignal>,
        claims: Arc<Claims>,
    ) -> Self {
        let poll = if lanes.iter().any(|l| l.bell.is_some()) { POLL_OTHERS } else { POLL_STOP };
        let is_alone = !lanes.is_empty() && lanes.iter().all(|l| l.bell.is_some());
        lanes.iter_mut().for_each(|lane| lane.issued = vec![0; plan.phases.len()]);
        let judged = |p: &Phase| p.least_adherence.map(|_| Overdue::new(p.schedule.arrivals(plan.seed)));
        let plan_overdue = plan.phases.iter().map(judged).collect();
        Self {
            sampler: Sampler::new(plan.sampling, plan.seed, plan.requests.sessions()),
            draining: VecDeque::with_capacity(plan.phases.len()),
            plan,
            lanes,
            marks,
            issued,
            stop,
            claims,
            state: State::Opening,
            arrivals: Arrivals::ClosedLoop,
            pending: None,
            all_pushed: false,
            mark: PhaseMark::default(),
            sampled: 0,
            next_lane: 0,
            opening: None,
            stop_at: Instant::NEVER,
            stopped: StopSignal::RUN,
            is_limited: false,
            given_up: false,
            finishing: false,
            overdue: plan_overdue,
            poll,
            is_alone,
            wanted: Instant::UNSET,
            digest: DIGEST_START,
        }
    }

    fn tell_all(&mut self, order: Order) {
        for lane in &mut self.lanes {
            lane.tell(order);
            lane.ring();
        }
    }

    fn sum(&self, n: usize, counter: impl Fn(&PhaseCounters) -> &AtomicU64) -> u64 {
        self.lanes.iter().map(|l| Progress::get(counter(l.progress.phase(n)))).sum()
    }

    fn is_single_turn(&self) -> bool {
        self.plan.requests.is_single_turn()
    }

    /// Whether a credit of phase `n` is its request.
    fn is_single(&self, n: usize) -> bool {
        self.is_single_turn() && !self.is_of_ticks(n)
    }

    /// Connections a closed loop wants before its first request.
    fn wanted_connections(&self) -> u32 {
        let closed = |p: &&Phase| p.schedule == Spec::ClosedLoop;
        let wanted = |p: &Phase| {
            let limit = p.concurrency.as_ref().map_or(1, LimitCurve::target);
            let requests = p.requests.into_iter().chain(p.sessions).min();
            requests.map_or(limit, |r| r.min(u64::from(limit)) as u32)
        };
        let ahead = self.plan.preconnect && self.plan.reuse == Reuse::Pooled;
        if ahead { self.plan.phases.iter().filter(closed).map(wanted).max().unwrap_or(0) } else { 0 }
    }

    fn open(&mut self, now: Instant) -> Next {
        if self.stopped > StopSignal::RUN {
            return self.finish(now);
        }
        let Some((wanted, until)) = self.opening else {
            let wanted = self.wanted_connections();
            let n = self.lanes.len();
            for (k, lane) in self.lanes.iter_mut().enumerate() {
                lane.tell(Order::Open(share(wanted, k, n)));
                lane.ring();
            }
            self.opening = Some((u64::from(wanted), now.after(OPENING)));
            return Next::at(now);
        };
        let opened: u64 = self.lanes.iter().map(|l| Progress::get(&l.progress.opened)).sum();
        if opened < wanted && now < until {
            return Next::at(now.after(POLL_OTHERS));
        }
        self.begin(0, now)
    }

    fn begin(&mut self, n: usize, now: Instant) -> Next {
        let plan = self.plan.clone();
        let Some(phase) = plan.phases.get(n).filter(|_| !self.given_up && self.stopped == StopSignal::RUN) else {
            self.state = State::Before(plan.phases.len());
            return if self.draining.is_empty() { self.finish(now) } else { Next::at(now.after(self.poll)) };
        };
        if phase.gated && !self.issued.gate.lets_through() {
            return Next::at(now.after(self.poll));
        }
        self.stop_at = phase.duration.map_or(Instant::NEVER, |d| now.after(d));
        self.claims.phase(n).before.store(self.sampled, Ordering::Release);
        self.tell_all(Order::Phase { phase: n as u8, start: now, stop_at: self.stop_at });
        self.arrivals = phase.schedule.arrivals(plan.seed);
        self.pending = None;
        self.all_pushed = false;
        self.mark = PhaseMark { phase: n as u8, start: now, ..PhaseMark::default() };
        let before: u64 = self.lanes.iter().flat_map(|l| &l.issued).sum();
        self.issued.before_phase.store(before, Ordering::Relaxed);
        self.issued.phase.store(n as u64, Ordering::Relaxed);
        self.issued.phase_start.store(now.0, Ordering::Release);
        self.state = State::Issuing(n);
        self.issue(n, now)
    }

    fn issue(&mut self, n: usize, now: Instant) -> Next {
        self.set_shares(n, now);
        let next = if self.all_pushed { None } else { self.push_some(n, now) };
        for lane in &mut self.lanes {
            lane.ring();
        }
        if let Some(at) = next {
            return Next::at(at.min(now.after(self.poll)));
        }
        self.all_pushed = true;
        if !self.is_sent(n, now) {
            // After its end what executors hold comes back at once.
            let soon = if now < self.stop_at { self.stop_at } else { now.after(RETRY_STOCKED) };
            return Next::at(now.after(self.poll).min(soon));
        }
        self.end_issuing(n, now)
    }

    /// Each executor's share of the phase's limit as it is now.
    fn set_shares(&mut self, n: usize, now: Instant) {
        let (phase, offset) = (&self.plan.phases[n], now.since(self.mark.start));
        self.is_limited = phase.concurrency.is_some() || phase.prefill.is_some();
        let lanes = self.lanes.len();
        for (k, lane) in self.lanes.iter_mut().enumerate() {
            let own = |curve: &Option<LimitCurve>| curve.as_ref().map(|curve| share(curve.at(offset), k, lanes));
            lane.share = own(&phase.concurrency);
            lane.has_share = lane.share != Some(0) && own(&phase.prefill) != Some(0);
        }
    }

    /// Pushes what credits can be pushed; returns when to go on, `None` once the phase needs no more.
    fn push_some(&mut self, n: usize, now: Instant) -> Option<Instant> {
        let phase = &self.plan.phases[n];
        let requests = phase.most_requests(self.is_single_turn()).unwrap_or(u64::MAX);
        let sessions = phase.sessions.unwrap_or(u64::MAX);
        match (self.is_single(n), self.arrivals.is_scheduled()) {
            (true, true) => self.issue_due(n, requests, now),
            (true, false) => self.issue_stock(n, requests, now),
            // Executors start sessions by themselves.
            (false, false) => None,
            // Users and ticks come without an end: what ends them is what they have sent.
            (false, true) if self.is_served(n) => None,
            (false, true) if phase.schedules_sessions() => self.issue_due(n, sessions, now),
            // Ticks may come to nothing, so they go on until all requests are sent: one that is to make up for another must
            // be on its way before anybody knows that it is needed. What is over at the end was never offered.
            (false, true) => self.issue_due(n, u64::MAX, now),
        }
    }

    /// Whether everything of phase `n` has been sent that will be, once all is pushed.
    fn is_sent(&self, n: usize, now: Instant) -> bool {
        let next_waits = self.plan.phases.get(n + 1).is_none_or(|next| !next.seamless);
        if self.is_single(n) {
            return next_waits || self.lanes.iter().all(|l| l.stock(n) == 0);
        }
        self.is_served(n) || (now >= self.stop_at && self.has_sent_the_late(n))
    }

    /// Whether the phase's credits are ticks, which any request may use.
    fn is_of_ticks(&self, n: usize) -> bool {
        self.plan.phases[n].is_of_ticks(self.is_single_turn())
    }

    /// Whether the phase is a closed loop that only time ends: then its credits are a stock for slots that may come free,
    /// and what is left of it was not to be sent.
    fn is_open_ended(&self, n: usize) -> bool {
        let phase = &self.plan.phases[n];
        phase.schedule == Spec::ClosedLoop && phase.requests.is_none() && phase.sessions.is_none()
    }

    /// Whether what was due before the phase's end has gone, or has been handed back.
    fn has_sent_the_late(&self, n: usize) -> bool {
        self.lanes.iter().all(|l| l.stock(n) == 0 && Progress::get(&l.progress.phase(n).ready) == 0)
    }

    /// Whether the phase has sent as much as it may.
    fn is_served(&self, n: usize) -> bool {
        let (phase, claims) = (&self.plan.phases[n], self.claims.phase(n));
        let single = self.is_single_turn();
        if phase.most_requests(single).is_some_and(|most| Progress::get(&claims.requests) >= most) {
            return true;
        }
        if single {
            return false;
        }
        let starts = phase.schedules_sessions();
        let all_started = match phase.sessions {
            _ if starts => self.all_pushed && self.lanes.iter().all(|l| l.stock(n) == 0),
            Some(most) => Progress::get(&claims.sessions) >= most && self.sum(n, |c| &c.sessions) >= most,
            None => false,
        };
        let sent = self.sum(n, |c| &c.sessions_sent);
        all_started && sent == self.sum(n, |c| &c.sessions)
    }

    /// The phase has sent everything, or is to send nothing more.
    fn end_issuing(&mut self, n: usize, now: Instant) -> Next {
        self.mark.sent_end = now;
        if !self.is_single(n) {
            self.tell_all(Order::StopStarting);
            self.sampled += self.sessions_begun(n);
        }
        let seamless = self.plan.phases.get(n + 1).is_some_and(|next| next.seamless);
        if seamless {
            let finished = self.sum(n, |c| &c.finished);
            self.mark.carried_over = self.sum(n, |c| &c.started) - finished;
        }
        self.let_drain(n);
        if seamless {
            return self.begin(n + 1, now);
        }
        self.drain(now);
        self.go_on(n + 1, now)
    }

    /// How far phase `n`, whose sessions the executors chose, has gone through the arena.
    fn sessions_begun(&self, n: usize) -> u64 {
        let phase = &self.plan.phases[n];
        if self.is_single_turn() {
            // Claims go beyond the last one that is granted.
            Progress::get(&self.claims.phase(n).requests).min(phase.most_requests(true).unwrap_or(u64::MAX))
        } else if phase.schedules_sessions() {
            0
        } else {
            self.sum(n, |c| &c.sessions)
        }
    }

    /// The phase under way is issued: what it has in flight comes back.
    fn let_drain(&mut self, n: usize) {
        let deadline = match self.plan.phases[n].grace {
            Some(grace) if self.stop_at != Instant::NEVER => self.stop_at.after(grace),
            _ => Instant::NEVER,
        };
        self.draining.push_back(Draining { mark: std::mem::take(&mut self.mark), deadline });
        self.state = State::Before(n + 1);
    }

    /// Begins the next phase if it is its time.
    fn go_on(&mut self, n: usize, now: Instant) -> Next {
        if self.draining.is_empty() {
            return self.begin(n, now);
        }
        let deadline = self.draining.iter().map(|d| d.deadline).min().unwrap_or(Instant::NEVER);
        Next::at(now.after(self.poll).min(deadline.max(now)))
    }

    /// Pushes every credit due within the lookahead; returns when to go on, `None` once all are issued.
    fn issue_due(&mut self, n: usize, limit: u64, now: Instant) -> Option<Instant> {
        for _ in 0..ORDERS {
            if self.mark.issued >= limit {
                return None;
            }
            if self.pending.is_none() {
                self.pending = Some(self.next_arrival()?);
            }
            let arrival = self.pending.filter(|arrival| arrival.due < self.stop_at)?;
            if arrival.due > now.after(LOOKAHEAD) {
                return Some(arrival.due.before(LOOKAHEAD));
            }
            let Some(lane) = self.route(n) else {
                let stocked = self.lanes.iter().all(|l| l.stock(n) >= WAITING);
                return Some(now.after(if stocked { RETRY_STOCKED } else { RETRY_FULL }));
            };
            self.push(n, lane, arrival.due, arrival.session);
            self.pending = None;
        }
        Some(now)
    }

    fn next_arrival(&mut self) -> Option<Arrival> {
        let start = self.mark.start;
        if let Arrivals::UserCentric(sessions) = &mut self.arrivals {
            let next = sessions.next_session()?;
            return Some(Arrival { due: start.after(next.offset), session: Some((next.conversation, next.turns)) });
        }
        Some(Arrival { due: start.after(self.arrivals.next_offset()?), session: None })
    }

    /// Tops up every executor's stock, one credit at a time in turn so that a short run is spread evenly.
    fn issue_stock(&mut self, n: usize, limit: u64, now: Instant) -> Option<Instant> {
        if now >= self.stop_at {
            return None;
        }
        let lanes = self.lanes.len() as u64;
        loop {
            let (mut pushed, mut full) = (false, false);
            for k in 0..self.lanes.len() {
                let left = limit - self.mark.issued;
                if left == 0 {
                    return None;
                }
                let lane = &self.lanes[k];
                let spare = (left / (2 * lanes)).clamp(1, STOCK);
                if !lane.has_share || lane.stock(n) >= lane.free_slots(n) + spare {
                    continue;
                }
                if lane.has_room() {
                    self.push(n, k, Instant::UNSET, None);
                    pushed = true;
                } else {
                    full = true;
                }
            }
            if !pushed {
                return Some(if full { self.stop_at.min(now.after(RETRY_FULL)) } else { self.stop_at });
            }
        }
    }

    /// The executor for the next scheduled credit: one whose sessions wait for it; else each in turn, or under a limit the
    /// one with most free slots.
    fn route(&mut self, n: usize) -> Option<usize> {
        let lanes = self.lanes.len();
        let turn = self.next_lane;
        self.next_lane = (turn + 1) % lanes;
        let single = self.is_single_turn();
        if single && !self.is_limited {
            // What is due goes at once, wherever it is: there is nothing to weigh.
            return (0..lanes).map(|k| (turn + k) % lanes).find(|&k| self.lanes[k].has_room());
        }
        let usable = |&k: &usize| {
            let lane = &self.lanes[k];
            lane.has_room() && lane.has_share && lane.stock(n) < WAITING
        };
        let wanted = |lane: &Lane| {
            let ready = Progress::get(&lane.progress.phase(n).ready);
            ready.saturating_sub(lane.stock(n))
        };
        let spare = |&k: &usize| {
            let lane = &self.lanes[k];
            let free = lane.share.map_or(0, |share| i64::from(share) - lane.occupied(n, single) as i64);
            (wanted(lane), free)
        };
        // Of equals the last wins: backwards, so that it is the one whose turn it is.
        (0..lanes).rev().map(|k| (turn + k) % lanes).filter(usable).max_by_key(spare)
    }

    fn push(&mut self, n: usize, lane: usize, due: Instant, session: Option<(u32, u32)>) {
        let seq = self.mark.issued;
        let (request, turns) = match session {
            Some((index, turns)) => (self.plan.requests.session(index as usize).0, turns),
            None if self.is_of_ticks(n) => (Credit::ANY, 0),
            // A trace's schedule belongs to its own sessions; everything else walks on through them.
            None if self.arrivals.is_fixed() => {
                self.plan.requests.session((seq % self.plan.requests.sessions().max(1) as u64) as usize)
            }
            None => self.plan.requests.session(self.sampler.template(self.sampled)),
        };
        let credit = Credit { seq, due, request, turns, phase: self.mark.phase };
        // How many spare ticks are issued depends on when the last request was sent.
        if seq < self.plan.phases[n].most_requests(self.is_single_turn()).unwrap_or(u64::MAX) {
            self.digest = digest(self.digest, due.since(self.mark.start));
            self.digest = digest(self.digest, u64::from(request));
        }
        self.lanes[lane].tell(Order::Credit(credit));
        self.lanes[lane].issued[n] += 1;
        self.mark.issued += 1;
        if self.is_single(n) && !self.arrivals.is_fixed() {
            self.sampled += 1;
        }
        self.issued.digest.store(self.digest, Ordering::Relaxed);
        Progress::add(&self.issued.credits, 1);
    }

    /// Sees what of the phases that have sent everything has come back, and cuts what has had its grace.
    fn drain(&mut self, now: Instant) {
        while let Some(front) = self.draining.front() {
            let n = front.mark.phase as usize;
            let is_stopped = !self.is_single(n);
            if !self.lanes.iter().all(|l| l.is_drained(n, is_stopped)) {
                break;
            }
            let Some(ended) = self.draining.pop_front() else { break };
            let mark = self.account(n, ended.mark, now);
            let _ = self.marks.push(mark);
        }
        for k in 0..self.draining.len() {
            let draining = &mut self.draining[k];
            if now >= draining.deadline && !draining.mark.grace_expired {
                draining.mark.grace_expired = true;
                draining.deadline = Instant::NEVER;
                let phase = draining.mark.phase;
                if self.state == State::Before(phase as usize + 1) && self.is_single(phase as usize) {
                    self.tell_all(Order::StopStarting);
                }
                self.tell_all(Order::CancelInFlight(phase));
            }
        }
    }

    /// The mark of a phase that has ended.
    fn account(&self, n: usize, mark: PhaseMark, now: Instant) -> PhaseMark {
        let last = self.lanes.iter().map(|l| l.progress.phase(n).last_done.load(Ordering::Relaxed)).max().unwrap_or(0);
        let sent = self.sum(n, |c| &c.started);
        let single = self.is_single_turn();
        let broken = self.claims.is_broken();
        // An executor that died hands nothing back.
        let stranded = if broken { self.lanes.iter().map(|l| l.stock(n)).sum() } else { 0 };
        let unused = self.sum(n, |c| &c.unused) + stranded;
        let (dropped, idle) = (self.sum(n, |c| &c.dropped), self.sum(n, |c| &c.idle));
        let pause = |l: &Lane| {
            let counters = l.progress.phase(n);
            (Progress::get(&counters.stall_longest_ns), Progress::get(&counters.stall_longest_at))
        };
        let own = (mark.stall_longest_ns, mark.stall_longest_at.0);
        let longest = self.lanes.iter().map(pause).fold(own, std::cmp::max);
        let nobody_s = !broken && (self.is_open_ended(n) || self.is_of_ticks(n) && self.is_served(n));
        let spare = if nobody_s { unused.saturating_sub(dropped + idle) } else { 0 };
        PhaseMark {
            end: if Instant(last) > mark.start { Instant(last) } else { now },
            issued: (mark.issued + self.sum(n, |c| &c.own)).saturating_sub(spare),
            unused: unused.saturating_sub(spare),
            spare,
            sent,
            dropped,
            idle,
            queued: self.sum(n, |c| &c.queued),
            over_limit: self.sum(n, |c| &c.over_limit),
            paused: self.sum(n, |c| &c.paused),
            paused_ns: self.sum(n, |c| &c.paused_ns),
            stalls: self.sum(n, |c| &c.stalls) + mark.stalls,
            stalled_ns: self.sum(n, |c| &c.stalled_ns) + mark.stalled_ns,
            stall_longest_ns: longest.0,
            stall_longest_at: Instant(longest.1),
            idle_ns: self.lanes.iter().map(|l| Progress::get(&l.progress.phase(n).idle_ns)).min().unwrap_or(0),
            sessions: if single { sent } else { self.sum(n, |c| &c.sessions) },
            sessions_cut: self.sum(n, |c| &c.sessions_cut),
            ..mark
        }
    }

    fn finish(&mut self, now: Instant) -> Next {
        if !std::mem::replace(&mut self.finishing, true) {
            self.tell_all(Order::Finish);
        }
        if self.lanes.iter().any(|lane| !lane.kept.is_empty()) {
            return Next::at(now.after(RETRY_FULL));
        }
        self.issued.ended.store(true, Ordering::Release);
        Next::ENDED
    }

    /// A thread has died. The executors end by themselves; then every phase is accounted for as far as it came.
    fn break_off(&mut self, now: Instant) -> Next {
        if let State::Issuing(n) = self.state {
            self.mark.sent_end = now;
            self.let_drain(n);
        }
        if !self.lanes.iter().all(|l| l.progress.ended.load(Ordering::Acquire)) {
            return Next::at(now.after(POLL_OTHERS));
        }
        while let Some(ended) = self.draining.pop_front() {
            let mark = self.account(ended.mark.phase as usize, ended.mark, now);
            let _ = self.marks.push(mark);
        }
        self.issued.ended.store(true, Ordering::Release);
        Next::ENDED
    }

    /// On a thread of its own it sees its own pauses; elsewhere the executor beside it does.
    fn note_stall(&mut self, now: Instant) {
        let late = now.since(self.wanted);
        if late < LATE || !self.is_alone || !self.wanted.is_set() || !matches!(self.state, State::Issuing(_)) {
            return;
        }
        self.mark.stalls += 1;
        self.mark.stalled_ns += late;
        if late > self.mark.stall_longest_ns {
            (self.mark.stall_longest_ns, self.mark.stall_longest_at) = (late, self.wanted);
        }
    }

    /// The user wants the run stopped, or stopped harder.
    fn heed(&mut self, now: Instant) {
        let level = self.stop.level();
        if level == self.stopped {
            return;
        }
        self.stopped = level;
        self.issued.cancelled.store(true, Ordering::Release);
        self.mark.cancelled = true;
        self.draining.iter_mut().for_each(|d| d.mark.cancelled = true);
        self.cut_short(level == StopSignal::ABORT, now);
    }

    /// Ends the phase under way before its time; what is in flight of it and of those before it is cut if `hard`.
    fn cut_short(&mut self, hard: bool, now: Instant) {
        match self.state {
            State::Opening => return,
            State::Issuing(n) => {
                self.mark.sent_end = now;
                self.let_drain(n);
                self.tell_all(Order::StopStarting);
            }
            State::Before(n) if self.is_single(n.saturating_sub(1)) => self.tell_all(Order::StopStarting),
            State::Before(_) => {}
        }
        if hard {
            for k in 0..self.draining.len() {
                let phase = self.draining[k].mark.phase;
                self.tell_all(Order::CancelInFlight(phase));
            }
        }
    }

    /// Ends the run if more of the phase's requests have failed than may, or too few left on time.
    fn judge(&mut self, n: usize, now: Instant) {
        let (failed, late) = (self.too_many_failed(n), self.is_below_adherence(n, now));
        if self.given_up || !(failed || late) {
            return;
        }
        self.given_up = true;
        self.issued.too_many_failed.store(failed, Ordering::Release);
        self.issued.below_adherence.store(late, Ordering::Release);
        let draining = self.draining.iter_mut().map(|d| &mut d.mark).find(|mark| mark.phase as usize == n);
        let mark = draining.unwrap_or(&mut self.mark);
        (mark.too_many_failed, mark.below_adherence) = (failed, late);
        self.cut_short(true, now);
    }

    /// Whether fewer of the phase's arrivals left on time than must. What still waits, for whatever reason, has not as soon
    /// as it is late.
    fn is_below_adherence(&mut self, n: usize, now: Instant) -> bool {
        let Some(least) = self.plan.phases[n].least_adherence else { return false };
        let draining = self.draining.iter().map(|d| &d.mark).find(|mark| mark.phase as usize == n);
        let is_issued = draining.is_some() || self.all_pushed;
        let mark = draining.unwrap_or(&self.mark);
        let (begun, issued) = (mark.start, mark.issued);
        let (fewest, after) = JUDGED_ARRIVALS;
        if now < begun.after(after) {
            return false;
        }
        // The smaller counter first, so that it is a part of the larger one.
        let late = self.sum(n, |c| &c.late);
        let started = self.sum(n, |c| &c.started);
        let dropped = self.sum(n, |c| &c.dropped);
        let (own, back) = (self.sum(n, |c| &c.own), self.sum(n, |c| &c.unused));
        let passed = now.min(self.stop_of(n, begun)).since(begun).saturating_sub(LATE);
        let most = if is_issued { issued } else { self.most_arrivals(n) };
        let due = self.overdue[n].as_mut().map_or(0, |o| o.until(passed, most));
        // What was handed back otherwise was not to be sent.
        let arrivals = (started + dropped).max((due + own + dropped).saturating_sub(back));
        arrivals >= fewest && ((started - late) as f64) < least * arrivals as f64
    }

    /// When phase `n`, which began at `start`, ends at the latest.
    fn stop_of(&self, n: usize, start: Instant) -> Instant {
        self.plan.phases[n].duration.map_or(Instant::NEVER, |duration| start.after(duration))
    }

    /// How many arrivals phase `n` has at most.
    fn most_arrivals(&self, n: usize) -> u64 {
        let phase = &self.plan.phases[n];
        let requests = phase.requests.filter(|_| self.is_single(n));
        let sessions = phase.sessions.filter(|_| self.is_single(n) || phase.schedules_sessions());
        requests.into_iter().chain(sessions).min().unwrap_or(u64::MAX)
    }

    /// Whether more of the phase's requests have failed than may.
    fn too_many_failed(&self, n: usize) -> bool {
        let phase = &self.plan.phases[n];
        let Some(threshold) = phase.failed_threshold else { return false };
        let limit = phase.concurrency.as_ref().map_or(0, |c| u64::from(c.target()));
        // The smaller counter first, so that it is a part of the larger one.
        let failed = self.sum(n, |c| &c.failed);
        let finished = self.sum(n, |c| &c.finished);
        finished >= limit.max(JUDGED) && failed as f64 > threshold * finished as f64
    }

    /// Does what a turn of a run that goes well does.
    fn advance(&mut self, now: Instant) -> Next {
        self.heed(now);
        if let State::Issuing(n) = self.state {
            self.judge(n, now);
        }
        for k in 0..self.draining.len() {
            self.judge(self.draining[k].mark.phase as usize, now);
        }
        if self.state != State::Opening {
            self.drain(now);
        }
        match self.state {
            State::Opening => self.open(now),
            State::Issuing(n) => self.issue(n, now),
            State::Before(n) => self.go_on(n, now),
        }
    }
}

impl Part for Timing {
    fn turn(&mut self, now: Instant) -> Next {
        if self.issued.ended.load(Ordering::Relaxed) {
            return Next::ENDED;
        }
        if self.claims.is_broken() {
            return self.break_off(now);
        }
        self.lanes.iter_mut().for_each(Lane::flush);
        if self.finishing {
            return self.finish(now);
        }
        self.note_stall(now);
        let next = self.advance(now);
        self.wanted = next.at;
        // Nobody tells when a full ring has room again.
        let full = self.lanes.iter().any(|lane| !lane.kept.is_empty());
        if full && !next.ended { Next::at(next.at.min(now.after(RETRY_FULL))) } else { next }
    }
}

const DIGEST_START: u64 = 0xcbf2_9ce4_8422_2325;

/// Folds `n` into an order-dependent digest (FNV-1a over its bytes).
fn digest(so_far: u64, n: u64) -> u64 {
    n.to_le_bytes().iter().fold(so_far, |d, &byte| (d ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_walk_over_a_schedule_of_any_rate_is_bounded_a_turn_and_gets_there() {
        let mut walk = Overdue::new(Spec::Constant(1e9).arrivals(0));
        assert_eq!(walk.until(SECOND, u64::MAX), OVERDUE_A_TURN as u64);
        let mut walk = Overdue::new(Spec::Constant(1e6).arrivals(0));
        let counts: Vec<u64> = (0..4).map(|_| walk.until(10 * MILLI, 10_000)).collect();
        assert_eq!(counts, [4096, 8192, 10_000, 10_000]);
    }

    proptest! {
        #[test]
        fn a_digest_tells_orders_apart(a: u64, b: u64) {
            let both = |first, second| digest(digest(DIGEST_START, first), second);
            prop_assert_eq!(both(a, b) == both(b, a), a == b);
        }
    }

    #[test]
    fn an_order_that_finds_the_ring_full_is_kept_in_its_place() {
        let (orders, mut taken) = crate::ring::ring(2);
        let mut lane = Lane::new(orders, Arc::new(Progress::new(1)), None);
        let given: Vec<Order> = (0..7).map(Order::CancelInFlight).chain([Order::Finish]).collect();
        given.iter().for_each(|order| lane.tell(*order));
        assert!(!lane.has_room());
        let mut got = Vec::new();
        while !lane.kept.is_empty() || !taken.is_empty() {
            got.extend(taken.pop());
            lane.flush();
        }
        assert_eq!(got, given);
    }

    #[test]
    fn free_slots_are_counted_while_the_executor_is_at_work() {
        let progress = Arc::new(Progress::new(1));
        let mut lane = Lane::new(crate::ring::ring(1).0, progress.clone(), None);
        let counters = progress.phase(0);
        lane.share = Some(3);
        std::thread::scope(|scope| {
            let executor = scope.spawn(|| {
                for _ in 0..300_000 {
                    Progress::add(&counters.started, 1);
                    Progress::add(&counters.finished, 1);
                }
            });
            while !executor.is_finished() {
                let free = lane.free_slots(0);
                assert!(free <= 3, "{free} of 3 slots are free");
            }
        });
        assert_eq!(lane.free_slots(0), 3);
    }
}
