//! Runs a plan: the only place that starts threads.

mod topology;

pub use topology::{Cores, Spin, Thread, Topology, available_cores};

use crate::clock::{MILLI, Nanos};
use crate::collector::{self, Collector, Snapshot, Source};
use crate::credit::{Claims, Issued, Order, Progress, StopSignal};
use crate::executor::{Ends, Executor};
use crate::net::direct;
use crate::net::probe::{Driver, Io};
use crate::net::reactor::{self, Doorbell, SharedPart};
use crate::net::socket::SocketWire;
use crate::net::{Events, Part, Tells};
use crate::plan::Plan;
use crate::record::Record;
use crate::ring::{self, Consumer, FrameConsumer, FrameProducer, Producer};
use crate::timing::{Lane, ORDERS, Timing};
use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// Frames an executor's ring holds: a tenth of a second at 160,000 requests a second.
const RECORDS: usize = 16 * 1024;

/// Payload bytes an executor's ring holds.
const PAYLOADS: usize = 8 << 20;

/// The same where whole bodies go through it.
const PAYLOADS_RAW: usize = 64 << 20;

/// Payload bytes that may lie beside the rings, all executors together: those of large answers, and of many that end at
/// once.
const BESIDE: usize = 512 << 20;

/// What an executor may have of them at least: the largest payload fits.
const BESIDE_LEAST: usize = 128 << 20;

/// How long a thread without sockets sleeps at most: executors on other threads do not wake it.
const NAP: Nanos = MILLI;

/// A run under way.
#[derive(Debug)]
pub struct Run {
    threads: Vec<JoinHandle<io::Result<()>>>,
    /// Executors' counters.
    pub progress: Vec<Arc<Progress>>,
    /// The timing core's counters.
    pub issued: Arc<Issued>,
    /// The live view.
    pub snapshot: Arc<Mutex<Snapshot>>,
    failure: Arc<Mutex<Option<io::Error>>>,
}

/// Why a run could not be carried to its end.
#[derive(Debug)]
pub enum Failure {
    /// The log could not be written; the run was drained.
    Log(io::Error),
    /// A thread could not do its work.
    Thread(io::Error),
}

impl Run {
    /// Whether every thread has ended.
    pub fn is_over(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// See [`Failure`]. A panic of a thread ends the process: it is a bug, and numbers after it would be worth nothing.
    pub fn join(self) -> Result<(), Failure> {
        let mut result = Ok(());
        for thread in self.threads {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(e)) => result = Err(Failure::Thread(e)),
                Err(_) => std::process::exit(70),
            }
        }
        match self.failure.lock().ok().and_then(|mut f| f.take()) {
            Some(e) => Err(Failure::Log(e)),
            None => result,
        }
    }
}

/// A part, named and with what it takes to make it, before its thread exists.
enum Seed {
    Timing(Box<Timing>),
    Executor { id: u16, ends: Box<Ends>, connections: usize },
    Collector(Box<Collector>),
}

/// The log's file, written up to `at`.
#[derive(Debug)]
pub struct LogFile {
    /// Open for writing, standing at its end.
    pub file: File,
    /// Bytes written: magic, header and request table.
    pub at: u64,
}

/// Starts all threads of a run, which together open at most `connections` connections at a time. The calling thread is unparked whenever one of them ends.
///
/// # Errors
/// A thread or a descriptor could not be made.
pub fn start(
    plan: Arc<Plan>,
    topology: &Topology,
    log: LogFile,
    stop: Arc<StopSignal>,
    connections: usize,
) -> io::Result<Run> {
    let n = topology.executors();
    let connections = (connections / n).max(1);
    let payloads = if plan.capture.raw { PAYLOADS_RAW } else { PAYLOADS };
    let seats = |k| Rings::new(topology.bell_for(k), plan.phases.len(), (payloads, (BESIDE / n).max(BESIDE_LEAST)));
    let rings: Vec<Rings> = (0..n).map(seats).collect::<io::Result<_>>()?;
    let progress: Vec<_> = rings.iter().map(|r| r.progress.clone()).collect();
    let bells: Vec<_> = rings.iter().map(|r| r.bell.clone()).collect();
    let (issued, snapshot, failure) = (Arc::<Issued>::default(), Arc::default(), Arc::default());
    let (marks_in, marks_out) = ring::ring(plan.phases.len().max(1));
    let claims = Arc::new(Claims::new(n, plan.phases.len()));
    let (mut lanes, mut sources, mut executors) = (Vec::new(), Vec::new(), Vec::new());
    for (k, r) in rings.into_iter().enumerate() {
        lanes.push(Lane::new(r.orders.0, r.progress.clone(), r.bell));
        sources.push(Source { records: r.records.1, progress: r.progress.clone() });
        let ends = Ends { orders: r.orders.1, records: r.records.0, progress: r.progress, claims: claims.clone() };
        executors.push(Some(Seed::Executor { id: k as u16, ends: Box::new(ends), connections }));
    }
    let warmup = plan.phases.iter().map(|p| p.warmup).collect();
    let timing = Timing::new(plan.clone(), lanes, marks_in, issued.clone(), stop.clone(), claims);
    let collector = Collector::new(sources, marks_out, issued.clone(), warmup, Arc::clone(&snapshot));
    let mut seeds = Seeds { timing: Some(timing), collector: Some(collector), executors };
    let shared = Shared { plan, io: topology.io, stop, failure: Arc::clone(&failure), log: Mutex::new(Some(log)) };
    let shared = Arc::new(shared);
    let mut threads = Vec::new();
    for thread in &topology.threads {
        let parts = seeds.take(thread);
        let bell = thread.executors.first().and_then(|&k| bells[k].clone());
        threads.push(spawn(thread.clone(), parts, bell, shared.clone())?);
    }
    Ok(Run { threads, progress, issued, snapshot, failure })
}

struct Rings {
    orders: (Producer<Order>, Consumer<Order>),
    records: (FrameProducer<Record>, FrameConsumer<Record>),
    progress: Arc<Progress>,
    bell: Option<Arc<Doorbell>>,
}

impl Rings {
    fn new(with_bell: bool, phases: usize, (payloads, beside): (usize, usize)) -> io::Result<Self> {
        Ok(Self {
            orders: ring::ring(ORDERS),
            records: ring::frames_and_more(RECORDS, payloads, beside),
            progress: Arc::new(Progress::new(phases)),
            bell: if with_bell { Some(Arc::new(Doorbell::new()?)) } else { None },
        })
    }
}

struct Seeds {
    timing: Option<Timing>,
    collector: Option<Collector>,
    executors: Vec<Option<Seed>>,
}

impl Seeds {
    /// The parts of a thread, in the order they take turns.
    fn take(&mut self, thread: &Thread) -> Vec<Seed> {
        let mut parts = Vec::new();
        if thread.timing {
            parts.extend(self.timing.take().map(|t| Seed::Timing(Box::new(t))));
        }
        parts.extend(thread.executors.iter().filter_map(|&k| self.executors[k].take()));
        if thread.collector {
            parts.extend(self.collector.take().map(|c| Seed::Collector(Box::new(c))));
        }
        parts
    }
}

struct Shared {
    plan: Arc<Plan>,
    io: Io,
    stop: Arc<StopSignal>,
    failure: Arc<Mutex<Option<io::Error>>>,
    log: Mutex<Option<LogFile>>,
}

impl Shared {
    fn log(&self) -> io::Result<LogFile> {
        let taken = self.log.lock().ok().and_then(|mut log| log.take());
        taken.ok_or_else(|| io::Error::other("the log has one collector"))
    }

    fn plain(&self, collector: Collector) -> io::Result<collector::Plain> {
        Ok(collector::Plain::new(collector, self.log()?.file, self.stop.clone(), self.failure.clone()))
    }
}

fn spawn(
    thread: Thread,
    parts: Vec<Seed>,
    bell: Option<Arc<Doorbell>>,
    shared: Arc<Shared>,
) -> io::Result<JoinHandle<io::Result<()>>> {
    let starter = std::thread::current();
    std::thread::Builder::new().name(thread.name()).spawn(move || {
        core_affinity::set_for_current(core_affinity::CoreId { id: thread.core });
        let result = carry(&thread, parts, bell, &shared);
        starter.unpark();
        result
    })
}

/// Runs a thread's parts to their end, each kind of thread in its own loop.
fn carry(thread: &Thread, parts: Vec<Seed>, bell: Option<Arc<Doorbell>>, shared: &Shared) -> io::Result<()> {
    if !thread.executors.is_empty() {
        return match shared.io {
            Io::Direct => direct::run(thread.spin, bell, |ring| {
                let wire = || ring.wire();
                seat_parts(parts, wire, shared)
            }),
            Io::Runtime(driver) => reactor::run(driver, thread.spin, bell, |kick| {
                let wire = || SocketWire::new(kick, crate::net::socket::READ_BUFFER);
                seat_parts(parts, wire, shared)
            }),
        };
    }
    let on_ring = thread.collector && !thread.timing && shared.io != Io::Runtime(Driver::Epoll);
    let mut boxed: Vec<Box<dyn Part>> = Vec::new();
    for part in parts {
        match part {
            Seed::Timing(timing) => boxed.push(timing),
            Seed::Collector(collector) if on_ring => {
                let log = shared.log()?;
                let (stop, failure) = (shared.stop.clone(), shared.failure.clone());
                collector::run_on_glommio(*collector, log.file, log.at, thread.core, stop, failure);
            }
            Seed::Collector(collector) => boxed.push(Box::new(shared.plain(*collector)?)),
            Seed::Executor { .. } => {}
        }
    }
    reactor::run_without_sockets(boxed, thread.spin, NAP);
    Ok(())
}

/// Makes the parts of a thread that has sockets, on that thread.
fn seat_parts<W: Tells + 'static>(
    parts: Vec<Seed>,
    wire: impl Fn() -> W,
    shared: &Shared,
) -> io::Result<Vec<SharedPart>> {
    let mut seated: Vec<SharedPart> = Vec::new();
    for part in parts {
        match part {
            Seed::Timing(timing) => seated.push(Rc::new(RefCell::new(*timing))),
            Seed::Collector(collector) => seated.push(Rc::new(RefCell::new(shared.plain(*collector)?))),
            Seed::Executor { id, ends, connections } => {
                let wire = wire();
                let executor = Executor::new(shared.plan.clone(), id, wire.clone(), *ends, connections);
                let executor = Rc::new(RefCell::new(executor));
                let events: Rc<RefCell<dyn Events>> = executor.clone();
                wire.tell(Rc::downgrade(&events));
                seated.push(executor);
            }
        }
    }
    Ok(seated)
}
