//! A run without machine: the real timing core, executors and collector under a manual clock, against a scripted server.
//!
//! One heap holds everything that will happen; time jumps from one happening, or wanted turn, to the next. Parts take
//! turns as their threads' loops would give them, now and then late. All of it follows from one seed.

#[cfg(test)]
mod adversary;
mod dice;
#[cfg(test)]
mod kernel;
mod script;
mod wire;

pub use dice::Dice;
pub use script::{After, Answer, Content, Manners};
pub use wire::{Attempt, Ending};

use crate::clock::{Anchor, Instant, MICRO, MILLI, Nanos};
use crate::collector::{Collector, DRAIN_EVERY, Source, Step};
use crate::credit::{Claims, Issued, Order, Progress, StopSignal};
use crate::executor::{Ends, Executor};
use crate::log::{self, Header, Kind, PhaseInfo};
use crate::net::pulse::Pulse;
use crate::net::{ConnId, Events, Next, Part};
use crate::plan::Plan;
use crate::record::Record;
use crate::ring::{self, Consumer, FrameConsumer, FrameProducer, Producer};
use crate::timing::{Lane, ORDERS, Timing};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use wire::{Happening, SimWire, Tell, World};

/// What a simulated run is made of.
#[derive(Debug, Clone)]
pub struct Setup {
    /// What to do.
    pub plan: Arc<Plan>,
    /// Decides everything that the plan does not.
    pub seed: u64,
    /// Number of executors.
    pub executors: usize,
    /// All parts take turns on one thread; otherwise each has its own.
    pub one_thread: bool,
    /// Connections an executor may have.
    pub connections: usize,
    /// Frames and payload bytes an executor's ring of records holds.
    pub ring: (usize, usize),
    /// How the server behaves.
    pub manners: Manners,
    /// When the stop signal is raised, from the begin of time.
    pub stops: Vec<Nanos>,
    /// Longest time that one look at the clock takes: how slow the machine is.
    pub tick: Nanos,
    /// Threads are late in this many of a thousand cases.
    pub late: u64,
}

/// How a simulated run went.
#[derive(Debug)]
pub struct Account {
    /// Every record with its payload, as it left its executor.
    pub records: Vec<(Record, Vec<u8>)>,
    /// The log file.
    pub log: Vec<u8>,
    /// Everything that was sent, in order.
    pub attempts: Vec<Attempt>,
    /// Connections that came to stand.
    pub connections: u64,
    /// Executors' counters.
    pub progress: Vec<Arc<Progress>>,
    /// The timing core's counters.
    pub issued: Arc<Issued>,
    /// When time began and when the last part ended.
    pub span: (Instant, Instant),
    /// When the run was first asked to stop.
    pub stopped: Option<Instant>,
    /// Pauses of a millisecond or more of the executors' threads: whose, from when, until when.
    pub stalls: Vec<(usize, Instant, Instant)>,
    /// Turns taken.
    pub turns: u64,
}

/// Why a simulated run did not come to its end.
#[derive(Debug)]
pub enum Stuck {
    /// Nothing will ever happen any more, and parts wait.
    Deadlock(Instant),
    /// Turns are taken without end.
    Livelock(Instant),
    /// A wire was used in a way that it must not be.
    Misuse(Vec<String>),
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deadlock(at) => write!(f, "at {} ns nothing happens any more, and parts wait", at.0),
            Self::Livelock(at) => write!(f, "at {} ns parts still take turns without end", at.0),
            Self::Misuse(what) => write!(f, "misuse of a wire: {}", what.join("; ")),
        }
    }
}

impl std::error::Error for Stuck {}

/// When time begins.
const BEGIN: Instant = Instant(1_000_000_000);
/// More turns than any sensible run of a test takes.
const MOST_TURNS: u64 = 300_000;

/// Runs `setup` to its end.
///
/// # Errors
/// It does not come to its end, see [`Stuck`].
pub fn run(setup: &Setup) -> Result<Account, Stuck> {
    Simulation::new(setup).run()
}

struct Simulation {
    world: Rc<RefCell<World>>,
    timing: Timing,
    executors: Vec<Executor<SimWire>>,
    /// What each executor's thread knows of its own pauses.
    pulses: Vec<Rc<Pulse>>,
    /// Between timing core and executors, so that bells ring when they should and at no other time.
    relays: Vec<(Consumer<Order>, Producer<Order>)>,
    /// Between executors and collector, so that what passes is seen.
    taps: Vec<(FrameConsumer<Record>, FrameProducer<Record>)>,
    collector: Collector,
    stop: Arc<StopSignal>,
    threads: Vec<Thread>,
    late: u64,
    account: Account,
}

struct Thread {
    parts: Vec<PartId>,
    /// When a turn is wanted.
    wants: Instant,
    /// It does nothing before this.
    stalled: Instant,
    /// When that began, until it is noticed.
    stood: Option<Instant>,
    /// What has come for its sockets meanwhile.
    held: VecDeque<Happening>,
    ended: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum PartId {
    Timing,
    Executor(usize),
    Collector,
}

impl Simulation {
    fn new(setup: &Setup) -> Self {
        let mut world = World::new(setup.seed, setup.manners.clone(), setup.executors, BEGIN, setup.tick);
        for &after in &setup.stops {
            world.schedule(BEGIN.after(after), Happening::Raise);
        }
        let world = Rc::new(RefCell::new(world));
        let (issued, stop) = (Arc::<Issued>::default(), Arc::<StopSignal>::default());
        let (mut lanes, mut sources, mut executors, mut progress) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (mut relays, mut taps, mut pulses) = (Vec::new(), Vec::new(), Vec::new());
        let phases = setup.plan.phases.len();
        let claims = Arc::new(Claims::new(setup.executors, phases));
        for k in 0..setup.executors {
            let (orders, relayed) = (ring::ring(ORDERS), ring::ring(ORDERS));
            // Half of the seeds have room beside the ring, as a real run has.
            let beside = if setup.seed.is_multiple_of(2) { setup.ring.1 } else { 0 };
            let records = ring::frames_and_more(setup.ring.0, setup.ring.1, beside);
            let onward = ring::frames(4096, 1 << 22);
            let counters = Arc::new(Progress::new(phases));
            lanes.push(Lane::new(orders.0, counters.clone(), None));
            relays.push((orders.1, relayed.0));
            sources.push(Source { records: onward.1, progress: counters.clone() });
            taps.push((records.1, onward.0));
            let (orders, progress_of) = (relayed.1, counters.clone());
            let ends = Ends { orders, records: records.0, progress: progress_of, claims: claims.clone() };
            let pulse = Rc::<Pulse>::default();
            let wire = SimWire { world: world.clone(), executor: k, pulse: pulse.clone() };
            pulses.push(pulse);
            executors.push(Executor::new(setup.plan.clone(), k as u16, wire, ends, setup.connections));
            progress.push(counters);
        }
        let (marks_in, marks_out) = ring::ring(setup.plan.phases.len().max(1));
        let warmup = setup.plan.phases.iter().map(|p| p.warmup).collect();
        let mut all = vec![PartId::Timing];
        all.extend((0..setup.executors).map(PartId::Executor));
        all.push(PartId::Collector);
        let threads = if setup.one_thread { vec![all] } else { all.into_iter().map(|part| vec![part]).collect() };
        let thread =
            |parts| Thread { parts, wants: BEGIN, stalled: BEGIN, stood: None, held: VecDeque::new(), ended: false };
        Self {
            world,
            timing: Timing::new(setup.plan.clone(), lanes, marks_in, issued.clone(), stop.clone(), claims),
            executors,
            pulses,
            relays,
            taps,
            collector: Collector::new(sources, marks_out, issued.clone(), warmup, Arc::default()),
            stop,
            threads: threads.into_iter().map(thread).collect(),
            late: setup.late,
            account: Account {
                records: Vec::new(),
                log: preamble(&setup.plan),
                attempts: Vec::new(),
                connections: 0,
                progress,
                issued,
                span: (BEGIN, BEGIN),
                stopped: None,
                stalls: Vec::new(),
                turns: 0,
            },
        }
    }

    fn run(mut self) -> Result<Account, Stuck> {
        while self.threads.iter().any(|t| !t.ended) {
            self.step()?;
            let world = self.world.borrow();
            if self.account.turns > MOST_TURNS {
                return Err(Stuck::Livelock(world.now));
            }
            if !world.violations.is_empty() {
                return Err(Stuck::Misuse(world.violations.clone()));
            }
        }
        let mut world = self.world.borrow_mut();
        self.account.attempts = std::mem::take(&mut world.attempts);
        self.account.connections = world.connections;
        self.account.span.1 = world.now;
        drop(world);
        Ok(self.account)
    }

    /// Time jumps to the next thing that can be done, and it is done.
    fn step(&mut self) -> Result<(), Stuck> {
        let turn = self.earliest(|t| if t.ended { Instant::NEVER } else { t.wants.max(t.stalled) });
        let held = self.earliest(|t| if t.held.is_empty() { Instant::NEVER } else { t.stalled });
        let event = self.world.borrow().next_at().unwrap_or(Instant::NEVER);
        let at = turn.0.min(held.0).min(event);
        {
            let mut world = self.world.borrow_mut();
            if at == Instant::NEVER {
                return Err(Stuck::Deadlock(world.now));
            }
            world.now = world.now.max(at);
        }
        if at == held.0 {
            let what = self.threads[held.1].held.pop_front();
            what.into_iter().for_each(|what| self.pass_on(what));
        } else if at == event {
            self.let_happen();
        } else {
            self.take_turn(turn.1);
        }
        Ok(())
    }

    fn earliest(&self, at: impl Fn(&Thread) -> Instant) -> (Instant, usize) {
        let all = self.threads.iter().enumerate().map(|(k, t)| (at(t), k));
        all.min().unwrap_or((Instant::NEVER, 0))
    }

    fn thread_of(&self, part: PartId) -> usize {
        self.threads.iter().position(|t| t.parts.contains(&part)).unwrap_or(0)
    }

    /// Other work, or another process, now and then has the core.
    fn maybe_stall(&mut self, thread: usize) {
        let mut world = self.world.borrow_mut();
        if world.dice.chance(self.late) {
            let most = world.dice.pick(&[50 * MICRO, MILLI, 5 * MILLI]);
            let span = world.dice.below(most);
            self.threads[thread].stood.get_or_insert(world.now);
            self.threads[thread].stalled = world.now.after(span).max(self.threads[thread].stalled);
        }
    }

    /// The thread does something: a pause before that is over, and it says how long it was. What is told until all that came
    /// meanwhile is told may have waited for as long.
    fn notice(&mut self, thread: usize) {
        let (stood, to) = (self.threads[thread].stood.take(), self.threads[thread].stalled);
        for part in &self.threads[thread].parts {
            let PartId::Executor(k) = *part else { continue };
            let wait = stood.map_or(0, |from| to.since(from));
            if wait > 0 || self.threads[thread].held.is_empty() {
                self.pulses[k].set_wait(wait);
            }
            if let Some(from) = stood.filter(|_| wait >= MILLI) {
                self.pulses[k].stalled(from, to);
                self.account.stalls.push((k, from, to));
            }
        }
    }

    fn take_turn(&mut self, thread: usize) {
        self.notice(thread);
        self.maybe_stall(thread);
        let mut all = Next::ENDED;
        for n in 0..self.threads[thread].parts.len() {
            let part = self.threads[thread].parts[n];
            let next = self.turn(part);
            if !next.ended {
                all = Next { at: all.at.min(next.at), ended: false };
            }
        }
        (self.threads[thread].wants, self.threads[thread].ended) = (all.at, all.ended);
    }

    /// Passes the timing core's orders on, and rings where there are any: that wakes a thread, some time later.
    fn relay(&mut self) {
        for k in 0..self.relays.len() {
            let (from, to) = &mut self.relays[k];
            let mut any = false;
            while to.room() > 0
                && let Some(order) = from.pop()
            {
                any = true;
                // There is room, and nobody else writes.
                let _ = to.push(order);
            }
            if any {
                let mut world = self.world.borrow_mut();
                let at = world.now.after(world.dice.below(40 * MICRO));
                let thread = self.thread_of(PartId::Executor(k));
                self.threads[thread].wants = self.threads[thread].wants.min(at);
            }
        }
    }

    fn turn(&mut self, part: PartId) -> Next {
        self.account.turns += 1;
        let now = self.world.borrow().now;
        match part {
            PartId::Timing => {
                let next = self.timing.turn(now);
                self.relay();
                next
            }
            PartId::Executor(k) => self.executors[k].turn(now),
            PartId::Collector => self.collect(now),
        }
    }

    fn collect(&mut self, now: Instant) -> Next {
        let mut payload = Vec::new();
        for (from, to) in &mut self.taps {
            while let Some(record) = from.pop(&mut payload) {
                // The tap's ring holds more than a test records.
                let _ = to.push(record, &payload);
                self.account.records.push((record, std::mem::take(&mut payload)));
            }
        }
        let step = self.collector.step(now);
        self.account.log.append(self.collector.output());
        match step {
            Step::More => Next::at(now),
            Step::Idle => Next::at(now.after(DRAIN_EVERY)),
            Step::Ended => Next::ENDED,
        }
    }

    fn let_happen(&mut self) {
        let Some(what) = self.world.borrow_mut().pop() else { return };
        let now = self.world.borrow().now;
        if what == Happening::Raise {
            self.stop.raise();
            self.account.stopped.get_or_insert(now);
            return;
        }
        if matches!(what, Happening::Arrive { .. } | Happening::Close { .. } | Happening::IdleClose { .. }) {
            self.world.borrow_mut().happen(what);
            return;
        }
        let Some(executor) = self.world.borrow().executor_of(what) else { return };
        let thread = self.thread_of(PartId::Executor(executor));
        let thread = &mut self.threads[thread];
        if thread.stalled > now || !thread.held.is_empty() {
            thread.held.push_back(what);
        } else {
            self.pass_on(what);
        }
    }

    /// Tells an executor what happened on one of its connections.
    fn pass_on(&mut self, what: Happening) {
        let now = self.world.borrow().now;
        let Some(executor) = self.world.borrow().executor_of(what) else { return };
        let thread = self.thread_of(PartId::Executor(executor));
        self.notice(thread);
        if what == (Happening::HandOver { executor }) {
            return self.hand_over(executor, thread);
        }
        let told = self.world.borrow_mut().happen(what);
        if let Some((conn, tell)) = told {
            self.world.borrow_mut().telling = true;
            self.tell((executor, thread), conn, tell, now);
            (self.world.borrow_mut().greeting, self.world.borrow_mut().unseen) = (None, None);
            self.maybe_stall(thread);
        }
    }

    /// What has gathered on an executor's wire is handed over, and told; what it sends meanwhile goes at once.
    fn hand_over(&mut self, executor: usize, thread: usize) {
        loop {
            let told = self.world.borrow_mut().hand_over_next(executor);
            let Some((conn, tell)) = told else { return };
            let now = self.world.borrow().now;
            self.tell((executor, thread), conn, tell, now);
            self.world.borrow_mut().unseen = None;
        }
    }

    fn tell(&mut self, (executor, thread): (usize, usize), conn: ConnId, tell: Tell, now: Instant) {
        let owner = &mut self.executors[executor];
        let wants = match tell {
            Tell::Connected(result) => owner.connected(conn, result, now),
            Tell::Received(bytes) => owner.received(conn, &bytes, now),
            Tell::Sent(sent) => owner.sent(conn, sent),
            Tell::Flushed => owner.flushed(conn, now),
            Tell::Closed(how) => owner.closed(conn, how, now),
        };
        self.world.borrow_mut().telling = false;
        self.threads[thread].wants = self.threads[thread].wants.min(wants);
    }
}

/// The begin of the log: what a run writes before its threads start.
fn preamble(plan: &Plan) -> Vec<u8> {
    let phase = |p: &crate::plan::Phase| PhaseInfo { name: p.name.clone(), warmup: p.warmup };
    let header = Header {
        maser_version: env!("CARGO_PKG_VERSION").to_owned(),
        benchmark_id: "000000000000".to_owned(),
        run_key: plan.run_key,
        anchor: Anchor { mono: BEGIN, wall: BEGIN.0 },
        cli_command: "maser".to_owned(),
        random_seed: Some(plan.seed),
        endpoint: plan.endpoint.name().to_owned(),
        streaming: true,
        phases: plan.phases.iter().map(phase).collect(),
        use_server_token_count: true,
        export_level: "records".to_owned(),
        correlation_header: plan.targets[0].correlation_header.clone(),
        session_headers: plan.targets[0].session_headers.clone(),
        ..Header::default()
    };
    let mut log = log::MAGIC.to_vec();
    log::put_json(&mut log, Kind::Header, &header);
    log
}
