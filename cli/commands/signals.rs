//! SIGINT and SIGTERM: the first drains the run, the second ends it, the third ends the process.

use maser_engine::credit::StopSignal;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Signals received so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Signals(Arc<AtomicUsize>);

impl Signals {
    /// Counts signals from now on, in place of what they would do.
    pub(crate) fn watch() -> io::Result<Self> {
        let signals = Self::default();
        for signal in [SIGINT, SIGTERM] {
            let count = signals.0.clone();
            let action = move || {
                if count.fetch_add(1, Ordering::Relaxed) >= 2 {
                    signal_hook::low_level::exit(130);
                }
            };
            // SAFETY: the action touches an atomic and may end the process; both are async-signal-safe.
            unsafe { signal_hook::low_level::register(signal, action)? };
        }
        Ok(signals)
    }

    /// Signals received.
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
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
