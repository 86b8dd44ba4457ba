//! One thread of a run: its parts in the loop that fits them, and what is made of them when one dies.
//!
//! A part that panics, or a loop that the kernel refuses, takes its thread down and breaks the run off. What can be saved is:
//! the thread's other parts go on without sockets until they have ended (the collector even after a panic of its own), so that
//! every record that left an executor reaches the log, and the log has its end.

use super::topology::{Fault, Role, Thread};
use crate::clock::{MILLI, Nanos};
use crate::collector::{self, Collector, Plain};
use crate::credit::{Claims, Issued, Progress, StopSignal};
use crate::executor::{Ends, Executor};
use crate::net::direct;
use crate::net::probe::{Driver, Io};
use crate::net::reactor::{self, Doorbell, SharedPart};
use crate::net::socket::SocketWire;
use crate::net::{Events, Next, Part, Tells};
use crate::plan::Plan;
use crate::timing::Timing;
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// How long a thread without sockets sleeps at most: executors on other threads do not wake it.
const NAP: Nanos = MILLI;

/// A part, with what it takes to make it, before its thread exists.
pub(super) enum Seed {
    Timing(Box<Timing>),
    Executor { id: u16, ends: Box<Ends>, connections: usize },
    Collector(Box<Collector>),
}

impl Seed {
    fn role(&self) -> Role {
        match self {
            Self::Timing(_) => Role::Timing,
            Self::Executor { id, .. } => Role::Executor(usize::from(*id)),
            Self::Collector(_) => Role::Collector,
        }
    }
}

/// What the threads of a run share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) plan: Arc<Plan>,
    pub(super) io: Io,
    pub(super) stop: Arc<StopSignal>,
    pub(super) claims: Arc<Claims>,
    pub(super) issued: Arc<Issued>,
    pub(super) progress: Vec<Arc<Progress>>,
    pub(super) bells: Vec<Option<Arc<Doorbell>>>,
    pub(super) fault: Option<Fault>,
    pub(super) failure: Arc<Mutex<Option<io::Error>>>,
    pub(super) log: Mutex<Option<(File, u64)>>,
    pub(super) notes: Mutex<Vec<String>>,
}

impl Shared {
    /// Ends the run at once, for this reason if none was given before; whoever sleeps is woken.
    pub(super) fn break_off(&self, why: String) {
        let _ = self.issued.broken.set(why);
        self.claims.break_off();
        self.bells.iter().flatten().for_each(|bell| bell.ring());
    }

    /// No part that has not ended will: nobody waits for one.
    pub(super) fn end_all(&self) {
        self.progress.iter().for_each(|progress| progress.ended.store(true, Ordering::Release));
        self.issued.ended.store(true, Ordering::Release);
    }

    /// The executor has died: nobody waits for it.
    fn end_executor(&self, k: usize) {
        self.progress[k].ended.store(true, Ordering::Release);
    }

    fn plain(&self, mut collector: Collector) -> io::Result<Plain> {
        if let Some(Fault::Panics(Role::Collector, step)) = self.fault {
            collector.die_in(step);
        }
        let log = self.log.lock().ok().and_then(|mut log| log.take());
        let log = log.ok_or_else(|| io::Error::other("the log has one collector"))?;
        Ok(Plain::new(collector, log, self.stop.clone(), self.failure.clone()))
    }

    fn refuses(&self, role: Role) -> io::Result<()> {
        match self.fault {
            Some(Fault::Refused(refused)) if refused == role => Err(io::Error::other("refused by a test")),
            _ => Ok(()),
        }
    }
}

/// Starts a thread. Whoever starts it is unparked when it ends.
pub(super) fn spawn(
    thread: Thread,
    parts: Vec<Seed>,
    bell: Option<Arc<Doorbell>>,
    shared: Arc<Shared>,
) -> io::Result<JoinHandle<()>> {
    let starter = std::thread::current();
    std::thread::Builder::new().name(thread.name()).spawn(move || {
        let mut seats = Seats::new(parts, &shared);
        let ran = catch_unwind(AssertUnwindSafe(|| {
            pin(&thread, &shared);
            seats.carry(&thread, bell)
        }));
        let died = match ran {
            Ok(Ok(())) => None,
            Ok(Err(e)) => Some((format!("failed: {e}"), false)),
            Err(panic) => Some((format!("panicked: {}", said(&*panic)), true)),
        };
        if let Some((how, panicked)) = died {
            let what = seats.busy.get().map_or_else(|| thread.parts(), |role| role.to_string());
            shared.break_off(format!("thread {} ({what}) {how}", thread.name()));
            seats.wind_up(panicked);
        }
        starter.unpark();
    })
}

fn pin(thread: &Thread, shared: &Shared) {
    if !core_affinity::set_for_current(core_affinity::CoreId { id: thread.core })
        && let Ok(mut notes) = shared.notes.lock()
    {
        notes.push(format!(
            "could not pin thread {} to core {}: it may be moved and be late",
            thread.name(),
            thread.core
        ));
    }
}

/// What a panic says.
fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a word")
}

/// The parts of a thread, held where its loop's end does not drop them.
struct Seats<'a> {
    shared: &'a Shared,
    /// Not made yet.
    seeds: Vec<Seed>,
    timing: Option<SharedPart>,
    executors: Vec<(usize, SharedPart)>,
    collector: Option<Rc<RefCell<Plain>>>,
    /// Which of timing core and collector has its turn now.
    busy: Rc<Cell<Option<Role>>>,
}

impl<'a> Seats<'a> {
    fn new(seeds: Vec<Seed>, shared: &'a Shared) -> Self {
        Self { shared, seeds, timing: None, executors: Vec::new(), collector: None, busy: Rc::default() }
    }

    /// Runs the parts to their end, each kind of thread in its own loop.
    fn carry(&mut self, thread: &Thread, bell: Option<Arc<Doorbell>>) -> io::Result<()> {
        if !thread.executors.is_empty() {
            let liveness = self.shared.plan.transport.liveness;
            return match self.shared.io {
                Io::Direct => direct::run(thread.spin, bell, |ring| self.seat(|| ring.client_wire(liveness))),
                Io::Runtime(driver) => reactor::run(driver, thread.spin, bell, |kick| {
                    self.seat(|| SocketWire::new(kick, crate::net::socket::READ_BUFFER, Some(liveness)))
                }),
            };
        }
        // There is nothing that could ask for a wire.
        let parts = self.seat(|| SocketWire::new(&reactor::Kick::default(), 0, None))?;
        let on_ring = thread.collector && !thread.timing && self.shared.io != Io::Runtime(Driver::Epoll);
        if let (true, Some(collector)) = (on_ring, &self.collector) {
            self.busy.set(Some(Role::Collector));
            collector::run_on_glommio(collector, thread.core);
            self.busy.set(None);
            return Ok(());
        }
        reactor::run_without_sockets(&parts, thread.spin, NAP);
        Ok(())
    }

    /// Makes the parts, in the order they take turns.
    fn seat<W: Tells + 'static>(&mut self, wire: impl Fn() -> W) -> io::Result<Vec<SharedPart>> {
        let mut parts = Vec::new();
        while !self.seeds.is_empty() {
            self.shared.refuses(self.seeds[0].role())?;
            let seed = self.seeds.remove(0);
            let role = seed.role();
            let part = self.make(seed, &wire)?;
            let part = self.breaks(role, part);
            match role {
                Role::Timing => self.timing = Some(part.clone()),
                Role::Executor(k) => self.executors.push((k, part.clone())),
                Role::Collector => {}
            }
            parts.push(part);
        }
        Ok(parts)
    }

    fn make<W: Tells + 'static>(&mut self, seed: Seed, wire: &impl Fn() -> W) -> io::Result<SharedPart> {
        Ok(match seed {
            Seed::Timing(timing) => self.watched(Role::Timing, Rc::new(RefCell::new(*timing))),
            Seed::Collector(collector) => {
                let collector = Rc::new(RefCell::new(self.shared.plain(*collector)?));
                self.collector = Some(collector.clone());
                self.watched(Role::Collector, collector)
            }
            Seed::Executor { id, ends, connections } => {
                let wire = wire();
                let executor = Executor::new(self.shared.plan.clone(), id, wire.clone(), *ends, connections);
                let executor = Rc::new(RefCell::new(executor));
                let events: Rc<RefCell<dyn Events>> = executor.clone();
                wire.tell(Rc::downgrade(&events));
                executor
            }
        })
    }

    fn watched(&self, role: Role, part: SharedPart) -> SharedPart {
        Rc::new(RefCell::new(Watched { part, role, busy: self.busy.clone() }))
    }

    /// The part as a test wants it.
    fn breaks(&self, role: Role, part: SharedPart) -> SharedPart {
        match self.shared.fault {
            Some(Fault::Panics(doomed, turn)) if doomed == role && role != Role::Collector => {
                Rc::new(RefCell::new(Doomed { part, left: turn, role, busy: self.busy.clone() }))
            }
            _ => part,
        }
    }

    /// Lets what is sound of this thread come to its end, and says of the rest that it has.
    fn wind_up(mut self, mut panicked: bool) {
        let mut rescued = false;
        loop {
            self.give_up_what_died(panicked, &mut rescued);
            let parts: Vec<SharedPart> = self.parts_left();
            let ended = catch_unwind(AssertUnwindSafe(|| reactor::run_without_sockets(&parts, false, NAP)));
            if ended.is_ok() {
                break;
            }
            panicked = true;
        }
        // Sockets of a runtime that is gone must not be closed through it; the process ends soon.
        self.executors.into_iter().for_each(std::mem::forget);
    }

    fn give_up_what_died(&mut self, panicked: bool, rescued: &mut bool) {
        // Parts that were not made: the log wants its end all the same, nothing else is missed.
        for seed in std::mem::take(&mut self.seeds) {
            match seed {
                Seed::Collector(collector) => {
                    self.collector = self.shared.plain(*collector).ok().map(|plain| Rc::new(RefCell::new(plain)));
                }
                Seed::Timing(timing) => self.timing = Some(self.watched(Role::Timing, Rc::new(RefCell::new(*timing)))),
                Seed::Executor { id, .. } => self.shared.end_executor(usize::from(id)),
            }
        }
        match self.busy.take() {
            Some(Role::Timing) => {
                self.timing = None;
                self.shared.issued.ended.store(true, Ordering::Release);
            }
            Some(Role::Collector) if std::mem::replace(rescued, true) => {
                self.collector = None;
                self.shared.claims.give_up_records();
            }
            Some(Role::Collector) => {
                if let Some(collector) = &self.collector {
                    collector.borrow_mut().rescue();
                }
            }
            // An executor, or the loop while it told one of an event.
            _ if panicked => self.give_up_executors(),
            _ => {}
        }
        if self.shared.io != Io::Direct {
            // The runtime of their sockets has gone.
            self.give_up_executors();
        }
    }

    fn give_up_executors(&mut self) {
        for (k, executor) in self.executors.drain(..) {
            self.shared.end_executor(k);
            std::mem::forget(executor);
        }
    }

    fn parts_left(&self) -> Vec<SharedPart> {
        let executors = self.executors.iter().map(|(_, part)| part.clone());
        let collector = self.collector.iter().map(|c| self.watched(Role::Collector, c.clone()));
        self.timing.iter().cloned().chain(executors).chain(collector).collect()
    }
}

/// A part that says when it has its turn, so that it is known who died in one.
struct Watched {
    part: SharedPart,
    role: Role,
    busy: Rc<Cell<Option<Role>>>,
}

impl Part for Watched {
    fn turn(&mut self, now: crate::clock::Instant) -> Next {
        self.busy.set(Some(self.role));
        let next = self.part.borrow_mut().turn(now);
        self.busy.set(None);
        next
    }
}

/// A part that a test lets panic.
struct Doomed {
    part: SharedPart,
    left: u64,
    role: Role,
    busy: Rc<Cell<Option<Role>>>,
}

impl Part for Doomed {
    fn turn(&mut self, now: crate::clock::Instant) -> Next {
        if self.left == 0 {
            self.busy.set(Some(self.role).filter(|role| *role == Role::Timing));
            panic!("a test wants {} to panic", self.role);
        }
        self.left -= 1;
        self.part.borrow_mut().turn(now)
    }
}
