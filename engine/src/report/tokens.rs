//! Output tokens of every record, from the server's usage or by the client's tokenizer.

use crate::log::Log;
use crate::record::{Outcome, Record, UNKNOWN, flag};
use std::collections::HashMap;
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
    /// Tokens that the input of the request has of the server's answers to the session's earlier turns. Empty where no
    /// conversation keeps answers.
    pub carried: Vec<u32>,
}

/// Records that a thread takes at a time.
const BATCH: usize = 256;

impl TokenColumns {
    /// The client's counts, on `threads` threads.
    pub fn by_tokenizer(log: &Log, count: &CountTokens<'_>, threads: usize) -> Self {
        let keeps = log.keeps_replies();
        let joins = keeps && log.header.input_config["tokenizer"]["apply_chat_template"] != true;
        let column = |len: usize| (0..len).map(|_| AtomicU32::new(UNKNOWN)).collect::<Vec<_>>();
        let (output, reasoning) = (column(log.len()), column(log.len()));
        let kept = column(if keeps { log.len() } else { 0 });
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
                        for (at, (record, payload)) in batch.drain(..) {
                            let tokens = set(&output, at, payload.text, count);
                            set(&reasoning, at, payload.reasoning, count);
                            if let Some(slot) = kept.get(at).filter(|_| !record.has(flag::PAYLOAD_LOST)) {
                                let joint = if joins { joint(payload.text, count) } else { 0 };
                                slot.store(tokens.saturating_add_signed(joint), Ordering::Relaxed);
                            }
                        }
                    }
                });
            }
        });
        let plain = |column: Vec<AtomicU32>| column.into_iter().map(AtomicU32::into_inner);
        let mut carried: Vec<u32> = plain(kept).collect();
        carry(log, &mut carried);
        Self { output: plain(output).collect(), reasoning: plain(reasoning).collect(), carried }
    }

    /// Tokens of earlier answers in the input of a record's request; `None` if one of them was not captured.
    pub(super) fn carried(&self, at: usize) -> Option<u32> {
        self.carried.get(at).map_or(Some(0), |n| Some(*n).filter(|n| *n != UNKNOWN))
    }

    /// The two counts of a record; `None` where unknown.
    pub fn of(&self, at: usize) -> (Option<u32>, Option<u32>) {
        let known = |column: &[u32]| column.get(at).copied().filter(|n| *n != UNKNOWN);
        (known(&self.output), known(&self.reasoning))
    }
}

/// Puts in the place of each record's own answer what the answers before it in its session add up to. The turns of a
/// session come one after the other and from one executor, so their records stand in their order in the log.
fn carry(log: &Log, answers: &mut [u32]) {
    if answers.is_empty() {
        return;
    }
    let mut sessions: HashMap<(u8, u64), u32> = HashMap::new();
    log.each(|at, record, _| {
        let (Some(answer), Some(turn)) = (answers.get_mut(at), log.request(record.request)) else { return };
        let key = (record.phase, record.session);
        let before = sessions.remove(&key).filter(|_| !turn.resets).unwrap_or(0);
        let own = std::mem::replace(answer, before);
        if !turn.keeps_reply {
            return;
        }
        // A turn that failed left its own words in the history, and no answer.
        let own = if record.outcome() == Outcome::Ok { own } else { 0 };
        let sum = if before == UNKNOWN { UNKNOWN } else { before.saturating_add(own) };
        sessions.insert(key, sum);
    });
}

/// Tokens that an answer costs beside its own where it is joined to what is before it: texts of an input are counted joined
/// with one space, as the reference counts them. It lies in the first word, so that is counted alone.
fn joint(text: &[u8], count: &CountTokens<'_>) -> i32 {
    let text = String::from_utf8_lossy(&text[..text.len().min(JOINT_MAX)]);
    let words = text.trim_start();
    let spaces = text.len() - words.len();
    let end = words.find(char::is_whitespace).map_or(text.len(), |at| spaces + at);
    let head = &text[..end];
    if head.is_empty() {
        return 0;
    }
    let alone = i64::from(count(head));
    i32::try_from(i64::from(count(&format!(" {head}"))) - alone).unwrap_or(0)
}

/// Bytes of an answer in which its first word is looked for.
const JOINT_MAX: usize = 64;

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
        all if reasoning == UNKNOWN || record.counts_reasoning_apart() => (all, reasoning),
        all => (all.saturating_sub(reasoning), reasoning),
    }
}

/// A text without tokens has no count: an empty part cannot be told from one that was not captured. Says how many there
/// are.
fn set(column: &[AtomicU32], at: usize, text: &[u8], count: &CountTokens<'_>) -> u32 {
    let text = String::from_utf8_lossy(text);
    if text.is_empty() {
        return 0;
    }
    let n = count(&text);
    if let (Some(slot), true) = (column.get(at), n > 0) {
        slot.store(n, Ordering::Relaxed);
    }
    n
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

    /// Prompt, completion, reasoning and total tokens as vendors state them, and what the output is by them.
    #[test]
    fn reasoning_that_a_vendor_counts_beside_the_completion_is_output_too() {
        for ([usage_prompt, usage_completion, usage_reasoning, usage_total], split, all) in [
            // xAI, and Gemini.
            ([12, 2, 340, 354], (2, 340), 342),
            ([1, 2, 3, 6], (2, 3), 5),
            // DeepSeek, and OpenAI.
            ([6, 212, 198, 218], (14, 198), 212),
            ([9, 104, 0, 113], (104, 0), 104),
            // Sums that are neither say nothing; nor do some of the counts.
            ([12, 2, 340, 355], (0, 340), 2),
            ([12, 2, 340, UNKNOWN], (0, 340), 2),
            ([UNKNOWN, 2, 340, 354], (0, 340), 2),
            ([12, UNKNOWN, 340, 354], (UNKNOWN, 340), UNKNOWN),
            ([12, 2, UNKNOWN, 14], (2, UNKNOWN), 2),
        ] {
            let record = Record { usage_prompt, usage_completion, usage_reasoning, usage_total, ..Record::zeroed() };
            assert_eq!((usage(&record), record.completion()), (split, all), "{record:?}");
        }
    }
}
