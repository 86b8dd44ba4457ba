//! The timing core: walks the schedule and issues credits.
//!
//! It writes `due` once. A credit with a planned time is pushed [`LOOKAHEAD`] before it, and the executor's own clock
//! releases it, so the hand-off between threads never shows in the send time. In a closed loop executors hold a stock of
//! credits to refill their slots from, topped up here before it runs out.

use crate::clock::{Instant, MICRO, MILLI, Nanos, SECOND};
use crate::credit::{Credit, Issued, Order, Progress, StopSignal};
use crate::log::PhaseMark;
use crate::net::reactor::Doorbell;
use crate::net::{Next, Part};
use crate::plan::{Phase, Plan};
use crate::ring::Producer;
use crate::schedule::Arrivals;
use std::sync::Arc;
use std::sync::atomic::Ordering;

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

/// The most credits a closed loop's executor holds beyond its free slots: [`POLL_OTHERS`] at a million a second.
const STOCK: u64 = 1024;

/// The timing core's side of one executor.
#[derive(Debug)]
pub struct Lane {
    orders: Producer<Order>,
    progress: Arc<Progress>,
    bell: Option<Arc<Doorbell>>,
    /// Credits pushed, all phases.
    issued: u64,
    /// This executor's share of the phase's concurrency limit.
    share: Option<u32>,
    rung: bool,
}

impl Lane {
    /// A lane to the executor behind `orders`. `bell` wakes it if it sleeps on another thread.
    pub fn new(orders: Producer<Order>, progress: Arc<Progress>, bell: Option<Arc<Doorbell>>) -> Self {
        Self { orders, progress, bell, issued: 0, share: None, rung: true }
    }

    fn tell(&mut self, order: Order) {
        let pushed = self.orders.push(order);
        debug_assert!(pushed.is_ok(), "credits leave room for other orders");
        self.rung = false;
    }

    fn has_room(&self) -> bool {
        self.orders.room() > RESERVED
    }

    /// Wakes the executor once for all it was told since the last time.
    fn ring(&mut self) {
        if !std::mem::replace(&mut self.rung, true)
            && let Some(bell) = &self.bell
        {
            bell.ring();
        }
    }

    fn returned(&self) -> u64 {
        Progress::get(&self.progress.finished) + Progress::get(&self.progress.unused)
    }

    /// Credits pushed and not returned.
    fn outstanding(&self) -> u64 {
        self.issued - self.returned()
    }

    /// Credits pushed and not yet started.
    fn stock(&self) -> u64 {
        self.issued - Progress::get(&self.progress.started) - Progress::get(&self.progress.unused)
    }

    fn free_slots(&self) -> u64 {
        // The older counter first: what starts and finishes between the two reads must not make it the larger one.
        let finished = Progress::get(&self.progress.finished);
        let in_flight = Progress::get(&self.progress.started) - finished;
        u64::from(self.share.unwrap_or(0)).saturating_sub(in_flight)
    }
}

/// Executor `k`'s share of `total` among `n`: the shares sum to the total.
pub fn share(total: u32, k: usize, n: usize) -> u32 {
    let (k, n) = (k as u32, n.max(1) as u32);
    total / n + u32::from(k < total % n)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first phase: connections are being opened until each stands or has failed, or for [`OPENING`].
    Opening,
    /// Phase `n` is being issued.
    Issuing(usize),
    /// Phase `n` is issued; its credits come back.
    Draining(usize),
}

/// The timing core.
#[derive(Debug)]
pub struct Timing {
    plan: Arc<Plan>,
    lanes: Vec<Lane>,
    marks: Producer<PhaseMark>,
    issued: Arc<Issued>,
    stop: Arc<StopSignal>,
    state: State,
    arrivals: Arrivals,
    /// The next arrival, drawn but not yet pushed.
    pending: Option<Instant>,
    mark: PhaseMark,
    /// Credits issued, all phases: requests are taken in order, across phases and round again.
    sampled: u64,
    next_lane: usize,
    /// Connections asked for ahead, and until when they are waited for.
    opening: Option<(u64, Instant)>,
    /// No credit of this phase is due at or after this.
    stop_at: Instant,
    stopped: u8,
    poll: Nanos,
    /// Credits handed back before this phase.
    unused_before: u64,
    digest: u64,
}

impl Timing {
    /// A timing core that will walk the plan's phases over these executors.
    pub fn new(
        plan: Arc<Plan>,
        lanes: Vec<Lane>,
        marks: Producer<PhaseMark>,
        issued: Arc<Issued>,
        stop: Arc<StopSignal>,
    ) -> Self {
        let poll = if lanes.iter().any(|l| l.bell.is_some()) { POLL_OTHERS } else { POLL_STOP };
        Self {
            plan,
            lanes,
            marks,
            issued,
            stop,
            state: State::Opening,
            arrivals: Arrivals::ClosedLoop,
            pending: None,
            mark: PhaseMark::default(),
            sampled: 0,
            next_lane: 0,
            opening: None,
            stop_at: Instant::NEVER,
            stopped: StopSignal::RUN,
            poll,
            unused_before: 0,
            digest: DIGEST_START,
        }
    }

    fn tell_all(&mut self, order: Order) {
        for lane in &mut self.lanes {
            lane.tell(order);
            lane.ring();
        }
    }

    /// Connections a closed loop wants before its first request.
    fn wanted_connections(&self) -> u32 {
        let closed = |p: &&Phase| p.schedule == crate::schedule::Spec::ClosedLoop;
        let wanted = |p: &Phase| {
            let limit = p.concurrency.unwrap_or(1);
            p.requests.map_or(limit, |r| r.min(u64::from(limit)) as u32)
        };
        if self.plan.preconnect { self.plan.phases.iter().filter(closed).map(wanted).max().unwrap_or(0) } else { 0 }
    }

    fn open(&mut self, now: Instant) -> Next {
        if self.stopped > StopSignal::RUN {
            return self.finish();
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
        let Some(phase) = plan.phases.get(n) else { return self.finish() };
        self.stop_at = phase.duration.map_or(Instant::NEVER, |d| now.after(d));
        let lanes = self.lanes.len();
        for (k, lane) in self.lanes.iter_mut().enumerate() {
            lane.share = phase.concurrency.map(|c| share(c, k, lanes));
            lane.tell(Order::Phase { concurrency: lane.share, stop_at: self.stop_at });
        }
        self.arrivals = phase.schedule.arrivals(self.plan.seed);
        self.pending = None;
        self.mark = PhaseMark { phase: n as u8, start: now, ..PhaseMark::default() };
        self.issued.before_phase.store(self.sampled, Ordering::Relaxed);
        self.issued.phase.store(n as u64, Ordering::Relaxed);
        self.issued.phase_start.store(now.0, Ordering::Release);
        self.state = State::Issuing(n);
        self.issue(n, now)
    }

    fn issue(&mut self, n: usize, now: Instant) -> Next {
        let limit = self.plan.phases[n].requests.unwrap_or(u64::MAX);
        let next = if self.arrivals.is_scheduled() { self.issue_due(limit, now) } else { self.issue_stock(limit, now) };
        for lane in &mut self.lanes {
            lane.ring();
        }
        match next {
            Some(at) => Next::at(at.min(now.after(self.poll))),
            None => {
                self.mark.sent_end = now;
                self.state = State::Draining(n);
                self.drain(n, now)
            }
        }
    }

    /// Pushes every credit due within the lookahead; returns when to go on, `None` once all are issued.
    fn issue_due(&mut self, limit: u64, now: Instant) -> Option<Instant> {
        for _ in 0..ORDERS {
            if self.mark.issued == limit {
                return None;
            }
            if self.pending.is_none() {
                self.pending = Some(self.mark.start.after(self.arrivals.next_offset()?));
            }
            let due = self.pending.filter(|&due| due < self.stop_at)?;
            if due > now.after(LOOKAHEAD) {
                return Some(due.before(LOOKAHEAD));
            }
            let Some(lane) = self.route() else { return Some(now.after(RETRY_FULL)) };
            self.push(lane, due);
            self.pending = None;
        }
        Some(now)
    }

    /// Tops up every executor's stock, one credit at a time in turn so that a short run is spread evenly.
    fn issue_stock(&mut self, limit: u64, now: Instant) -> Option<Instant> {
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
                if lane.share == Some(0) || lane.stock() >= lane.free_slots() + spare {
                    continue;
                }
                if lane.has_room() {
                    self.push(k, Instant::UNSET);
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

    /// The executor for the next scheduled credit: each in turn, or under a limit the one with most free slots.
    fn route(&mut self) -> Option<usize> {
        let n = self.lanes.len();
        let turn = self.next_lane;
        self.next_lane = (turn + 1) % n;
        let usable = |&k: &usize| self.lanes[k].has_room() && self.lanes[k].share != Some(0);
        let spare = |&k: &usize| match self.lanes[k].share {
            Some(share) => i64::from(share) - self.lanes[k].outstanding() as i64,
            None => 0,
        };
        // Of equals the last wins: backwards, so that it is the one whose turn it is.
        (0..n).rev().map(|k| (turn + k) % n).filter(usable).max_by_key(spare)
    }

    fn push(&mut self, lane: usize, due: Instant) {
        // A trace's schedule belongs to its own requests; everything else walks on through them.
        let n = if self.arrivals.is_fixed() { self.mark.issued } else { self.sampled };
        let (request, _) = self.plan.requests.session((n % self.plan.requests.sessions().max(1) as u64) as usize);
        let credit = Credit { seq: self.mark.issued, due, request, phase: self.mark.phase };
        self.digest = digest(self.digest, due.since(self.mark.start));
        self.digest = digest(self.digest, u64::from(request));
        self.lanes[lane].tell(Order::Credit(credit));
        self.lanes[lane].issued += 1;
        self.mark.issued += 1;
        self.sampled += 1;
        self.issued.digest.store(self.digest, Ordering::Relaxed);
        self.issued.credits.store(self.sampled, Ordering::Release);
    }

    fn drain(&mut self, n: usize, now: Instant) -> Next {
        if self.lanes.iter().all(|l| l.outstanding() == 0) {
            return self.end_phase(n, now);
        }
        let deadline = match (self.plan.phases[n].grace, self.stop_at) {
            (Some(grace), stop_at) if stop_at != Instant::NEVER => stop_at.after(grace),
            _ => Instant::NEVER,
        };
        if now >= deadline && !self.mark.grace_expired {
            self.mark.grace_expired = true;
            self.tell_all(Order::StopStarting);
            self.tell_all(Order::CancelInFlight);
        }
        let wait = now.after(self.poll);
        Next::at(if self.mark.grace_expired { wait } else { wait.min(deadline) })
    }

    fn end_phase(&mut self, n: usize, now: Instant) -> Next {
        let last = self.lanes.iter().map(|l| l.progress.last_done.load(Ordering::Relaxed)).max().unwrap_or(0);
        self.mark.end = if Instant(last) > self.mark.start { Instant(last) } else { now };
        self.mark.unused = self.total_unused() - self.unused_before;
        self.unused_before = self.total_unused();
        let _ = self.marks.push(std::mem::take(&mut self.mark));
        if self.stopped > StopSignal::RUN { self.finish() } else { self.begin(n + 1, now) }
    }

    fn total_unused(&self) -> u64 {
        self.lanes.iter().map(|l| Progress::get(&l.progress.unused)).sum()
    }

    fn finish(&mut self) -> Next {
        self.tell_all(Order::Finish);
        self.issued.ended.store(true, Ordering::Release);
        Next::ENDED
    }

    /// The user wants the run stopped, or stopped harder.
    fn heed(&mut self, now: Instant) {
        let level = self.stop.level();
        if level == self.stopped {
            return;
        }
        self.stopped = level;
        self.issued.cancelled.store(true, Ordering::Release);
        if let State::Issuing(n) | State::Draining(n) = self.state {
            if self.state == State::Issuing(n) {
                self.mark.sent_end = now;
            }
            self.mark.cancelled = true;
            self.state = State::Draining(n);
            self.tell_all(Order::StopStarting);
            if level == StopSignal::ABORT {
                self.tell_all(Order::CancelInFlight);
            }
        }
    }
}

impl Part for Timing {
    fn turn(&mut self, now: Instant) -> Next {
        if self.issued.ended.load(Ordering::Relaxed) {
            return Next::ENDED;
        }
        self.heed(now);
        match self.state {
            State::Opening => self.open(now),
            State::Issuing(n) => self.issue(n, now),
            State::Draining(n) => self.drain(n, now),
        }
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
    fn shares_sum_to_the_limit_and_differ_by_at_most_one() {
        for total in 0..50 {
            for n in 1..9 {
                let shares: Vec<u32> = (0..n).map(|k| share(total, k, n)).collect();
                assert_eq!(shares.iter().sum::<u32>(), total);
                assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
            }
        }
    }

    proptest! {
        #[test]
        fn shares_of_any_limit_sum_to_it(total: u32, n in 1..200usize) {
            let shares = (0..n).map(|k| share(total, k, n));
            prop_assert_eq!(shares.clone().map(u64::from).sum::<u64>(), u64::from(total));
            prop_assert!(shares.clone().max().unwrap() - shares.min().unwrap() <= 1);
        }

        #[test]
        fn a_digest_tells_orders_apart(a: u64, b: u64) {
            let both = |first, second| digest(digest(DIGEST_START, first), second);
            prop_assert_eq!(both(a, b) == both(b, a), a == b);
        }
    }

    #[test]
    fn free_slots_are_counted_while_the_executor_is_at_work() {
        let progress = Arc::<Progress>::default();
        let mut lane = Lane::new(crate::ring::ring(1).0, progress.clone(), None);
        lane.share = Some(3);
        std::thread::scope(|scope| {
            let executor = scope.spawn(|| {
                for _ in 0..300_000 {
                    Progress::add(&progress.started, 1);
                    Progress::add(&progress.finished, 1);
                }
            });
            while !executor.is_finished() {
                let free = lane.free_slots();
                assert!(free <= 3, "{free} of 3 slots are free");
            }
        });
        assert_eq!(lane.free_slots(), 3);
    }
}
