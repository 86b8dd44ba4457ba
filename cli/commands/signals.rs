//! SIGINT and SIGTERM: the first drains the run, the second ends it, the third ends the process.

use crate::exit::Exit;
use maser_engine::credit::StopSignal;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

/// What tells a program to end.
pub(crate) const TERMINATED: &str = "SIGTERM";

/// Signals received so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Signals {
    count: Arc<AtomicUsize>,
    /// The first of them; 0 before it came.
    first: Arc<AtomicI32>,
}

impl Signals {
    /// Counts signals from now on, in place of what they would do.
    pub(crate) fn watch() -> io::Result<Self> {
        let signals = Self::default();
        for signal in [SIGINT, SIGTERM] {
            let (count, first) = (signals.count.clone(), signals.first.clone());
            let action = move || {
                let _ = first.compare_exchange(0, signal, Ordering::Relaxed, Ordering::Relaxed);
                if count.fetch_add(1, Ordering::Relaxed) >= 2 {
                    signal_hook::low_level::exit(Exit::Interrupted.code().into());
                }
            };
            // SAFETY: the action touches atomics and may end the process; both are async-signal-safe.
            unsafe { signal_hook::low_level::register(signal, action)? };
        }
        Ok(signals)
    }

    /// Signals received.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// The name of the first signal received.
    pub(crate) fn first(&self) -> Option<&'static str> {
        match self.first.load(Ordering::Relaxed) {
            0 => None,
            SIGTERM => Some(TERMINATED),
            _ => Some("SIGINT"),
        }
    }

    /// Passes what came since on to the run; returns the level reached if that changed it.
    pub(crate) fn pass_on(&self, stop: &StopSignal, seen: &mut usize) -> Option<u8> {
        let mut reached = None;
        while *seen < self.count() {
            *seen += 1;
            reached = Some(stop.raise());
        }
        reached
    }
}
