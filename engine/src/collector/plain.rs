//! The collector on a thread that it may share: a part that appends with plain writes.

use super::{Collector, DRAIN_EVERY, Step};
use crate::clock::Instant;
use crate::credit::StopSignal;
use crate::net::{Next, Part};
use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

/// A collector and its file.
#[derive(Debug)]
pub struct Plain {
    collector: Collector,
    file: File,
    stop: Arc<StopSignal>,
    failure: Arc<Mutex<Option<io::Error>>>,
    failed: bool,
}

impl Plain {
    /// `file` stands after the log's preamble. The first error of writing is left in `failure` and drains the run.
    pub fn new(
        collector: Collector,
        file: File,
        stop: Arc<StopSignal>,
        failure: Arc<Mutex<Option<io::Error>>>,
    ) -> Self {
        Self { collector, file, stop, failure, failed: false }
    }

    fn write(&mut self) {
        let output = self.collector.output();
        if output.is_empty() {
            return;
        }
        if !self.failed
            && let Err(e) = self.file.write_all(output)
        {
            self.failed = true;
            report(&self.failure, &self.stop, e);
        }
        output.clear();
    }
}

/// Leaves the first error for the end of the run, and ends it: what cannot be recorded should not be sent.
pub(super) fn report(failure: &Mutex<Option<io::Error>>, stop: &StopSignal, error: io::Error) {
    if let Ok(mut slot) = failure.lock() {
        slot.get_or_insert(error);
    }
    if stop.level() == StopSignal::RUN {
        stop.raise();
    }
}

impl Part for Plain {
    fn turn(&mut self, now: Instant) -> Next {
        let step = self.collector.step(now);
        self.write();
        match step {
            Step::More => Next::at(now),
            Step::Idle => Next::at(now.after(DRAIN_EVERY)),
            Step::Ended => Next::ENDED,
        }
    }
}
