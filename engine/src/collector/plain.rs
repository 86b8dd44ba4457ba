//! The collector on a thread that it may share: a part that appends with plain writes.

use super::{Collector, DRAIN_EVERY, Step};
use crate::clock::Instant;
use crate::credit::StopSignal;
use crate::net::{Next, Part};
use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

/// Steps in one turn at most: a ring of an executor in 3 ms.
const STEPS: u32 = 64;

/// A collector and its file.
#[derive(Debug)]
pub struct Plain {
    collector: Collector,
    file: File,
    stop: Arc<StopSignal>,
    failure: Arc<Mutex<Option<io::Error>>>,
    failed: bool,
    /// Steps in the next turn. The executors of this thread may finish any number of requests between two turns: as long
    /// as more waits than a turn takes, the next one takes twice as much, so that rings do not run full.
    steps: u32,
}

impl Plain {
    /// `file` stands after the log's preamble. The first error of writing is left in `failure` and drains the run.
    pub fn new(
        collector: Collector,
        file: File,
        stop: Arc<StopSignal>,
        failure: Arc<Mutex<Option<io::Error>>>,
    ) -> Self {
        Self { collector, file, stop, failure, failed: false, steps: 1 }
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
        self.collector.taken();
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
        let mut step = Step::More;
        for _ in 0..self.steps {
            step = self.collector.step(now);
            self.write();
            if step != Step::More {
                break;
            }
        }
        self.steps = if step == Step::More { STEPS.min(2 * self.steps) } else { 1 };
        match step {
            Step::More => Next::at(now),
            Step::Idle => Next::at(now.after(DRAIN_EVERY)),
            Step::Ended => Next::ENDED,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collector::{STEP, Source};
    use crate::record::Record;
    use crate::ring;

    #[test]
    fn more_than_a_step_between_two_turns_does_not_fill_the_ring() {
        let (mut executor, records) = ring::frames(4 * STEP, 16);
        let (_, marks) = ring::ring(1);
        let source = Source { records, progress: Arc::default() };
        let collector = Collector::new(vec![source], marks, Arc::default(), vec![false], Arc::default());
        let file = tempfile::tempfile().unwrap();
        let mut plain = Plain::new(collector, file, Arc::default(), Arc::default());
        let record: Record = bytemuck::Zeroable::zeroed();
        for turn in 1..100 {
            for _ in 0..STEP + STEP / 2 {
                assert!(executor.push(record, &[]).is_ok(), "full in turn {turn}");
            }
            plain.turn(Instant(turn));
        }
    }
}
