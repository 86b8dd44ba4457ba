//! The collector on a core of its own: a glommio executor with two task queues. Draining the rings has shares enough to
//! come first always; writing takes what is left and never holds draining up, since its completions come by io_uring.

use super::{DRAIN_EVERY, Plain, Step};
use crate::clock;
use crate::net::Part;
use glommio::io::BufferedFile;
use glommio::{Latency, LocalExecutorBuilder, Placement, Shares, executor};
use std::any::Any;
use std::cell::RefCell;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

/// Draining may be kept waiting this long at most.
const DRAIN_LATENCY: Duration = Duration::from_millis(2);

/// Runs the collector to its end on this thread, which is pinned to `core`. Where glommio cannot set its rings up or start its
/// tasks, the same steps run as a plain loop.
///
/// # Panics
/// Where a step does.
pub fn run(collector: &Rc<RefCell<Plain>>, core: usize) {
    let panic = Panic::default();
    if let Ok(local) = LocalExecutorBuilder::new(Placement::Fixed(core)).name("collector").make() {
        local.run(drive(collector.clone(), panic.clone()));
    }
    if let Some(panic) = panic.take() {
        resume_unwind(panic);
    }
    // What glommio has left to do.
    loop {
        let next = collector.borrow_mut().turn(clock::now());
        if next.ended {
            return;
        }
        clock::sleep_until(next.at);
    }
}

/// What a step said as it panicked. It must not unwind through glommio, whose destructors would end the process while a write is
/// under way.
type Panic = Rc<RefCell<Option<Box<dyn Any + Send>>>>;

async fn drive(collector: Rc<RefCell<Plain>>, panic: Panic) {
    let Ok(file) = collector.borrow().file() else { return };
    // SAFETY: the descriptor is open, and from here on the only owner is the new file.
    let file = unsafe { BufferedFile::from_raw_fd(file.into_raw_fd()) };
    let draining = executor().create_task_queue(Shares::Static(900), Latency::Matters(DRAIN_LATENCY), "drain");
    let writing = executor().create_task_queue(Shares::Static(100), Latency::NotImportant, "write");
    let drain = glommio::spawn_local_into(drain(collector.clone(), panic.clone()), draining);
    let write = glommio::spawn_local_into(write(collector, file, panic), writing);
    if let (Ok(drain), Ok(write)) = (drain, write) {
        drain.await;
        write.await;
    }
}

async fn drain(collector: Rc<RefCell<Plain>>, panic: Panic) {
    loop {
        match catch_unwind(AssertUnwindSafe(|| collector.borrow_mut().step(clock::now()))) {
            Ok(Step::More) => glommio::yield_if_needed().await,
            Ok(Step::Idle) => glommio::timer::sleep(Duration::from_nanos(DRAIN_EVERY)).await,
            Ok(Step::Ended) => return,
            Err(said) => {
                *panic.borrow_mut() = Some(said);
                return;
            }
        }
    }
}

async fn write(collector: Rc<RefCell<Plain>>, file: BufferedFile, panic: Panic) {
    loop {
        // Asked before taking: what was put there before the end is then surely taken.
        let last = collector.borrow().has_ended() || panic.borrow().is_some();
        loop {
            // A copy: if this thread dies meanwhile, the bytes are still there to be written.
            let (bytes, at) = {
                let mut collector = collector.borrow_mut();
                let (bytes, at) = collector.next_bytes();
                (bytes.to_vec(), at)
            };
            if bytes.is_empty() {
                break;
            }
            let result = file.write_at(bytes, at).await;
            collector.borrow_mut().wrote(result.map_err(Into::into));
        }
        if last {
            break;
        }
        glommio::timer::sleep(Duration::from_nanos(DRAIN_EVERY)).await;
    }
    let _ = file.close().await;
}
