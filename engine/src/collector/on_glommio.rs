//! The collector on a core of its own: a glommio executor with two task queues. Draining the rings has shares enough to
//! come first always; writing takes what is left and never holds draining up, since its completions come by io_uring.

use super::plain::report;
use super::{Collector, DRAIN_EVERY, Step};
use crate::clock;
use crate::credit::StopSignal;
use glommio::io::BufferedFile;
use glommio::{Latency, LocalExecutorBuilder, Placement, Shares, executor};
use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{FromRawFd, IntoRawFd};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Draining may be kept waiting this long at most.
const DRAIN_LATENCY: Duration = Duration::from_millis(2);

/// Runs the collector to its end on this thread. `file` stands at `at`, after the log's preamble. Where glommio cannot
/// set its rings up, the same steps run as a plain loop. The first error of writing is left in `failure` and drains the
/// run.
pub fn run(
    collector: Collector,
    file: File,
    at: u64,
    core: usize,
    stop: Arc<StopSignal>,
    failure: Arc<Mutex<Option<io::Error>>>,
) {
    let shared = Rc::new(RefCell::new(collector));
    match LocalExecutorBuilder::new(Placement::Fixed(core)).name("collector").make() {
        Ok(local) => local.run(drive(shared, file, at, stop, failure)),
        Err(_) => loop_plainly(&shared, file, &stop, &failure),
    }
}

async fn drive(
    collector: Rc<RefCell<Collector>>,
    file: File,
    at: u64,
    stop: Arc<StopSignal>,
    failure: Arc<Mutex<Option<io::Error>>>,
) {
    let draining = executor().create_task_queue(Shares::Static(900), Latency::Matters(DRAIN_LATENCY), "drain");
    let writing = executor().create_task_queue(Shares::Static(100), Latency::NotImportant, "write");
    let ended = Rc::new(Cell::new(false));
    let drain = glommio::spawn_local_into(drain(collector.clone(), ended.clone()), draining);
    let write = glommio::spawn_local_into(write(collector, file, at, ended, stop, failure), writing);
    if let (Ok(drain), Ok(write)) = (drain, write) {
        drain.await;
        write.await;
    }
}

async fn drain(collector: Rc<RefCell<Collector>>, ended: Rc<Cell<bool>>) {
    loop {
        let step = collector.borrow_mut().step(clock::now());
        match step {
            Step::More => glommio::yield_if_needed().await,
            Step::Idle => glommio::timer::sleep(Duration::from_nanos(DRAIN_EVERY)).await,
            Step::Ended => return ended.set(true),
        }
    }
}

async fn write(
    collector: Rc<RefCell<Collector>>,
    file: File,
    mut at: u64,
    ended: Rc<Cell<bool>>,
    stop: Arc<StopSignal>,
    failure: Arc<Mutex<Option<io::Error>>>,
) {
    // SAFETY: the descriptor is open, and from here on the only owner is the new file.
    let file = unsafe { BufferedFile::from_raw_fd(file.into_raw_fd()) };
    let mut failed = false;
    loop {
        // Asked before taking: what was put there before the end is then surely taken.
        let last = ended.get();
        let mut bytes = std::mem::take(collector.borrow_mut().output());
        while !bytes.is_empty() && !failed {
            match file.write_at(bytes.clone(), at).await {
                Ok(0) => {
                    failed = true;
                    report(&failure, &stop, io::ErrorKind::WriteZero.into());
                }
                Ok(n) => {
                    at += n as u64;
                    bytes.drain(..n);
                }
                Err(e) => {
                    failed = true;
                    report(&failure, &stop, e.into());
                }
            }
        }
        if last {
            break;
        }
        glommio::timer::sleep(Duration::from_nanos(DRAIN_EVERY)).await;
    }
    let _ = file.close().await;
}

fn loop_plainly(collector: &RefCell<Collector>, mut file: File, stop: &StopSignal, failure: &Mutex<Option<io::Error>>) {
    let mut failed = false;
    loop {
        let mut collector = collector.borrow_mut();
        let step = collector.step(clock::now());
        let output = collector.output();
        // After an error nothing more is written: the log must not have a hole.
        if !failed && let Err(e) = file.write_all(output) {
            failed = true;
            report(failure, stop, e);
        }
        collector.taken();
        match step {
            Step::More => {}
            Step::Idle => clock::sleep_until(clock::now().after(DRAIN_EVERY)),
            Step::Ended => return,
        }
    }
}
