//! The collector with its file: a part that appends with plain writes, for a thread that it may share, and what is left of it
//! when whatever else ran it has failed.

use super::{Collector, DRAIN_EVERY, KEEP, Step};
use crate::clock::Instant;
use crate::credit::StopSignal;
use crate::net::{Next, Part};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

/// Steps in one turn at most: a ring of an executor in 3 ms.
const STEPS: u32 = 64;

/// A collector and its file.
#[derive(Debug)]
pub struct Plain {
    collector: Collector,
    file: File,
    /// Bytes of the file that are written.
    at: u64,
    /// Bytes on their way to the file, which belong at `at`.
    writing: Vec<u8>,
    stop: Arc<StopSignal>,
    failure: Arc<Mutex<Option<io::Error>>>,
    failed: bool,
    ended: bool,
    /// Steps in the next turn. The executors of this thread may finish any number of requests between two turns: as long
    /// as more waits than a turn takes, the next one takes twice as much, so that rings do not run full.
    steps: u32,
}

impl Plain {
    /// `file` holds the log's preamble, `at` bytes. The first error of writing is left in `failure` and drains the run.
    pub fn new(
        collector: Collector,
        (file, at): (File, u64),
        stop: Arc<StopSignal>,
        failure: Arc<Mutex<Option<io::Error>>>,
    ) -> Self {
        Self { collector, file, at, writing: Vec::new(), stop, failure, failed: false, ended: false, steps: 1 }
    }

    /// Another handle of the file.
    pub(super) fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Takes what waits, up to a bound; what it comes to is to be [written](Plain::next_bytes).
    pub(super) fn step(&mut self, now: Instant) -> Step {
        let step = self.collector.step(now);
        self.ended = step == Step::Ended;
        step
    }

    /// Whether everything has been taken, the end block too.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// The bytes that are to be written next, and where; call [`Plain::wrote`] when they are. None after an error: the log must
    /// not have a hole.
    pub(super) fn next_bytes(&mut self) -> (&[u8], u64) {
        if self.writing.is_empty() {
            self.writing.shrink_to(KEEP);
            std::mem::swap(&mut self.writing, self.collector.output());
        }
        if self.failed {
            self.writing.clear();
        }
        (&self.writing, self.at)
    }

    /// So many of the bytes to be written are.
    pub(super) fn wrote(&mut self, result: io::Result<usize>) {
        match result {
            Ok(0) => self.report(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                self.at += n as u64;
                self.writing.drain(..n.min(self.writing.len()));
            }
            Err(e) => self.report(e),
        }
    }

    /// Leaves the first error for the end of the run, and ends it: what cannot be recorded should not be sent.
    fn report(&mut self, error: io::Error) {
        self.failed = true;
        if let Ok(mut slot) = self.failure.lock() {
            slot.get_or_insert(error);
        }
        if self.stop.level() == StopSignal::RUN {
            self.stop.raise();
        }
    }

    fn write(&mut self) {
        loop {
            let (bytes, at) = self.next_bytes();
            if bytes.is_empty() {
                return;
            }
            let len = bytes.len();
            let result = self.file.write_all_at(&self.writing, at);
            self.wrote(result.map(|()| len));
        }
    }

    /// After a panic: what follows is reduced to what the log needs.
    pub(crate) fn rescue(&mut self) {
        self.collector.rescue();
    }
}

impl Part for Plain {
    fn turn(&mut self, now: Instant) -> Next {
        let mut step = Step::More;
        for _ in 0..self.steps {
            step = self.step(now);
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
        let mut plain = Plain::new(collector, (file, 0), Arc::default(), Arc::default());
        let record: Record = bytemuck::Zeroable::zeroed();
        for turn in 1..100 {
            for _ in 0..STEP + STEP / 2 {
                assert!(executor.push(record, &[]).is_ok(), "full in turn {turn}");
            }
            plain.turn(Instant(turn));
        }
    }
}
