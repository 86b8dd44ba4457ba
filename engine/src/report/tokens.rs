//! Output tokens of every record, from the server's usage or by the client's tokenizer.

use crate::log::Log;
use crate::record::{Record, UNKNOWN};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

/// Counts the tokens of a text.
pub type CountTokens<'a> = dyn Fn(&str) -> u32 + Sync + 'a;

/// Where token counts come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenSource {
    /// The server's usage object.
    Server,
    /// The client's tokenizer over the captured texts.
    Client,
}

impl TokenSource {
    /// The name in the files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
        }
    }
}

/// The client's counts: two numbers a record, [`UNKNOWN`] where there is none, in the order of the log. Empty where the
/// server's counts are used: those stand in the records.
#[derive(Debug, Default)]
pub struct TokenColumns {
    /// Tokens of visible output.
    pub output: Vec<u32>,
    /// Tokens of reasoning.
    pub reasoning: Vec<u32>,
}

/// Records that a thread takes at a time.
const BATCH: usize = 256;

impl TokenColumns {
    /// The client's counts, on `threads` threads.
    pub fn by_tokenizer(log: &Log, count: &CountTokens<'_>, threads: usize) -> Self {
        let column = || (0..log.len()).map(|_| AtomicU32::new(UNKNOWN)).collect();
        let (output, reasoning): (Vec<_>, Vec<_>) = (column(), column());
        let rows = Mutex::new(log.records().enumerate());
        std::thread::scope(|scope| {
            for _ in 0..threads.max(1) {
                scope.spawn(|| {
                    let mut batch = Vec::with_capacity(BATCH);
                    loop {
                        // A poisoned lock means that another thread's tokenizer panicked; the scope passes that on.
                        let Ok(mut rows) = rows.lock() else { return };
                        batch.extend(rows.by_ref().take(BATCH));
                        drop(rows);
                        if batch.is_empty() {
                            return;
                        }
                        for (at, (_, payload)) in batch.drain(..) {
                            set(&output, at, payload.text, count);
                            set(&reasoning, at, payload.reasoning, count);
                        }
                    }
                });
            }
        });
        let plain = |column: Vec<AtomicU32>| column.into_iter().map(AtomicU32::into_inner);
        Self { output: plain(output).collect(), reasoning: plain(reasoning).collect() }
    }

    /// The two counts of a record; `None` where unknown.
    pub fn of(&self, at: usize) -> (Option<u32>, Option<u32>) {
        let known = |column: &[u32]| column.get(at).copied().filter(|n| *n != UNKNOWN);
        (known(&self.output), known(&self.reasoning))
    }
}

/// The server's counts of a record: completion minus reasoning tokens, and reasoning tokens.
pub(super) fn of_usage(record: &Record) -> (Option<u32>, Option<u32>) {
    let known = |n: u32| Some(n).filter(|n| *n != UNKNOWN);
    let (output, reasoning) = usage(record);
    (known(output), known(reasoning))
}

fn usage(record: &Record) -> (u32, u32) {
    let reasoning = record.usage_reasoning;
    match record.usage_completion {
        UNKNOWN => (UNKNOWN, reasoning),
        all if reasoning == UNKNOWN => (all, UNKNOWN),
        all => (all.saturating_sub(reasoning), reasoning),
    }
}

/// A text without tokens has no count: an empty part cannot be told from one that was not captured.
fn set(column: &[AtomicU32], at: usize, text: &[u8], count: &CountTokens<'_>) {
    let text = String::from_utf8_lossy(text);
    if text.is_empty() {
        return;
    }
    let n = count(&text);
    if let (Some(slot), true) = (column.get(at), n > 0) {
        slot.store(n, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::Zeroable;

    #[test]
    fn usage_splits_completion_into_output_and_reasoning() {
        let split = |usage_completion, usage_reasoning| {
            usage(&Record { usage_completion, usage_reasoning, ..Record::zeroed() })
        };
        assert_eq!(split(10, 4), (6, 4));
        assert_eq!(split(10, UNKNOWN), (10, UNKNOWN));
        assert_eq!(split(3, 9), (0, 9));
        assert_eq!(split(UNKNOWN, UNKNOWN), (UNKNOWN, UNKNOWN));
    }
}
