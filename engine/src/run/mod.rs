//! Runs a plan: the only place that starts threads.

mod thread;
mod topology;

pub use topology::{Cores, Fault, Role, Spin, Thread, Topology, available_cores};

use crate::collector::{Collector, Snapshot, Source};
use crate::credit::{Claims, Issued, Order, Progress, StopSignal};
use crate::executor::Ends;
use crate::net::reactor::Doorbell;
use crate::plan::Plan;
use crate::record::Record;
use crate::ring::{self, Consumer, FrameConsumer, FrameProducer, Producer};
use crate::timing::{Lane, ORDERS, Timing};
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use thread::{Seed, Shared, spawn};

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

/// A run under way.
#[derive(Debug)]
pub struct Run {
    threads: Vec<JoinHandle<()>>,
    /// Executors' counters.
    pub progress: Vec<Arc<Progress>>,
    /// The timing core's counters.
    pub issued: Arc<Issued>,
    /// The live view.
    pub snapshot: Arc<Mutex<Snapshot>>,
    shared: Arc<Shared>,
}

/// Why a run could not be carried to its end.
#[derive(Debug)]
pub enum Failure {
    /// The log could not be written; the run was drained.
    Log(io::Error),
    /// A thread died: which and why, without a full stop. The others stopped, and what was recorded is in the log.
    Died(String),
}

impl Run {
    /// Whether every thread has ended.
    pub fn is_over(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// What went another way than planned and stopped nothing, one sentence each, without a full stop.
    pub fn notes(&self) -> Vec<String> {
        self.shared.notes.lock().map(|notes| notes.clone()).unwrap_or_default()
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// See [`Failure`].
    pub fn join(self) -> Result<(), Failure> {
        for thread in self.threads {
            let name = thread.thread().name().unwrap_or_default().to_owned();
            if thread.join().is_err() {
                // Its parts were wound up before; what panicked last has nothing to do with the results.
                self.shared.break_off(format!("thread {name} panicked as it ended"));
            }
        }
        if let Some(e) = self.shared.failure.lock().ok().and_then(|mut f| f.take()) {
            return Err(Failure::Log(e));
        }
        match self.issued.broken.get() {
            Some(why) => Err(Failure::Died(why.clone())),
            None => Ok(()),
        }
    }
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
/// A thread or a descriptor could not be made, or the plan has more phases than a record can name.
pub fn start(
    plan: Arc<Plan>,
    topology: &Topology,
    log: LogFile,
    stop: Arc<StopSignal>,
    connections: usize,
) -> io::Result<Run> {
    plan.check().map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
    let n = topology.executors();
    let connections = (connections / n).max(1);
    let payloads = if plan.capture.raw { PAYLOADS_RAW } else { PAYLOADS };
    let seats = |k| Rings::new(topology.bell_for(k), plan.phases.len(), (payloads, (BESIDE / n).max(BESIDE_LEAST)));
    let rings: Vec<Rings> = (0..n).map(seats).collect::<io::Result<_>>()?;
    let progress: Vec<_> = rings.iter().map(|r| r.progress.clone()).collect();
    let bells: Vec<_> = rings.iter().map(|r| r.bell.clone()).collect();
    let (issued, snapshot) = (Arc::<Issued>::default(), Arc::default());
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
    let timing = Timing::new(plan.clone(), lanes, marks_in, issued.clone(), stop.clone(), claims.clone());
    let collector = Collector::new(sources, marks_out, issued.clone(), warmup, Arc::clone(&snapshot));
    let mut seeds = Seeds { timing: Some(timing), collector: Some(collector), executors };
    let shared = Arc::new(Shared {
        plan,
        io: topology.io,
        stop,
        claims,
        issued: issued.clone(),
        progress: progress.clone(),
        bells: bells.clone(),
        fault: topology.fault,
        failure: Arc::default(),
        log: Mutex::new(Some((log.file, log.at))),
        notes: Mutex::default(),
    });
    let mut running = Run { threads: Vec::new(), progress, issued, snapshot, shared: shared.clone() };
    for thread in &topology.threads {
        let parts = seeds.take(thread);
        let bell = thread.executors.first().and_then(|&k| bells[k].clone());
        match spawn(thread.clone(), parts, bell, shared.clone()) {
            Ok(handle) => running.threads.push(handle),
            Err(e) => {
                // Those that are there wait for the others.
                shared.break_off(format!("thread {} could not be started: {e}", thread.name()));
                shared.end_all();
                let _ = running.join();
                return Err(e);
            }
        }
    }
    Ok(running)
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
