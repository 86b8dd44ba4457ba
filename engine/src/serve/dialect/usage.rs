//! What usage tells beyond the tokens of prompt and answer, where the server is to tell all that any vendor does: plain
//! shares, so that whoever reads them can say what they must be.

use super::Ask;

/// Tokens that stand for a second of sound, as in transcriptions.
const AUDIO_TOKENS_A_SECOND: u32 = 10;

/// The counters that few vendors name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::serve) struct Details {
    /// Tokens of the prompt that were in no cache.
    pub(super) miss: u32,
    /// Of those, every second was written to one.
    pub(super) written: u32,
    /// A quarter of the prompt is sound …
    pub(super) audio: u32,
    /// … of so many seconds.
    pub(super) audio_seconds: f64,
    /// An eighth of it are results of tools.
    pub(super) tools: u32,
    /// A quarter of the answer is sound.
    pub(super) spoken: u64,
    /// Half of it had been predicted …
    pub(super) accepted: u64,
    /// … and as much as an eighth of it in vain.
    pub(super) rejected: u64,
}

impl Details {
    /// After an answer of so many tokens; `None` where they are not to be told.
    pub(in crate::serve) fn of(ask: &Ask, completion: u64) -> Option<Self> {
        let (prompt, miss) = (ask.prompt_tokens, ask.prompt_tokens - ask.cached);
        ask.details.then_some(Self {
            miss,
            written: miss / 2,
            audio: prompt / 4,
            audio_seconds: f64::from(prompt / 4) / f64::from(AUDIO_TOKENS_A_SECOND),
            tools: prompt / 8,
            spoken: completion / 4,
            accepted: completion / 2,
            rejected: completion / 8,
        })
    }
}
