//! Generated conversations, whose texts have exactly the tokens asked for.

mod make;
mod plan;
mod prefix;
mod workshop;

#[cfg(test)]
mod tests;

use crate::generate::rankings;
use crate::generate::sequence::Sequence;
use crate::generate::texts::{Source, Texts};
use crate::media::{audio, images, video};
use crate::tokens::Tokenizer;
use crate::{Error, Sink, Summary, parallel};

use crate::lengths::Lengths;
pub use prefix::Prefix;
use workshop::Workshop;

/// Conversations where no flag says how many.
pub const DEFAULT_ENTRIES: u64 = 100;

/// The mean of `--isl` where it is not given, in tokens.
pub const DEFAULT_ISL: u32 = 550;

/// What to generate.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Conversations to make, see [`entries`].
    pub entries: u64,
    /// `--conversation-turn-mean` and `-stddev`: turns of a conversation.
    pub turns: Lengths,
    /// `--conversation-turn-delay-*`: the wait before every turn but the first.
    pub delay: Delay,
    /// Tokens of prompts and answers.
    pub sequence: Sequence,
    /// `--batch-size-text`: texts of a turn.
    pub batch: u32,
    /// `--prompt-corpus`.
    pub source: Source,
    /// What all conversations, or many of them, begin with.
    pub prefix: Prefix,
    /// What is left free in them.
    pub room: Room,
    /// A query and passages instead of prompts.
    pub rankings: Option<rankings::Options>,
    /// Images of each turn.
    pub images: Option<images::Options>,
    /// Audio clips of each turn.
    pub audio: Option<audio::Options>,
    /// Videos of each turn.
    pub video: Option<video::Options>,
    /// The run's root seed. A run without `--random-seed` draws one and reports it, so that it too can be repeated.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            entries: DEFAULT_ENTRIES,
            turns: Lengths::fixed(1),
            delay: Delay::default(),
            sequence: Sequence::Independent { isl: Some(Lengths::fixed(DEFAULT_ISL)), osl: None },
            batch: 1,
            source: Source::default(),
            prefix: Prefix::default(),
            room: Room::default(),
            rankings: None,
            images: None,
            audio: None,
            video: None,
            seed: 0,
        }
    }
}

/// Tokens that a text is made shorter by, since as many are put in before it is sent. At least one is left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Room {
    /// Nothing is put in.
    #[default]
    None,
    /// In the system prompt that all conversations share.
    System(u32),
    /// In the first text of each first turn.
    FirstText(u32),
    /// In the last text of it.
    LastText(u32),
}

impl Room {
    /// The tokens to make of a system prompt.
    fn in_system(self, tokens: u32) -> u32 {
        match self {
            Self::System(room) => tokens.saturating_sub(room).max(1),
            _ => tokens,
        }
    }

    /// Shortens the text of a first turn that it is for.
    fn take_from(self, texts: &mut [u32]) {
        let (text, room) = match self {
            Self::FirstText(room) => (texts.first_mut(), room),
            Self::LastText(room) => (texts.last_mut(), room),
            Self::None | Self::System(_) => return,
        };
        if let Some(tokens) = text {
            *tokens = tokens.saturating_sub(room).max(1);
        }
    }
}

/// The wait between an answer and the next turn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Delay {
    /// Mean, milliseconds; 0 is no wait.
    pub mean_ms: f64,
    /// Standard deviation, milliseconds; a draw below 0 is redrawn.
    pub stddev_ms: f64,
    /// What every draw is multiplied with.
    pub ratio: f64,
}

impl Default for Delay {
    fn default() -> Self {
        Self { mean_ms: 0.0, stddev_ms: 0.0, ratio: 1.0 }
    }
}

/// How many conversations to make: `--num-dataset-entries`, else the largest `--num-conversations`, else the largest
/// `--request-count`, else 100.
pub fn entries(num_dataset_entries: Option<u64>, num_conversations: Option<u64>, request_count: Option<u64>) -> u64 {
    num_dataset_entries.or(num_conversations).or(request_count).unwrap_or(DEFAULT_ENTRIES)
}

/// Made at a time, by [`plan::Plan::weight`]: bounds what stands in memory beside the sink's own.
const BATCH_WEIGHT: u64 = 1 << 20;

/// Turns of a conversation at most.
const MAX_TURNS: u32 = 100_000;

/// The longest wait, milliseconds: a week.
const MAX_DELAY_MS: f64 = 7.0 * 86_400_000.0;

impl Options {
    /// Generates the conversations `session_000000`, `session_000001` and so on (with or without a given seed) in order.
    ///
    /// All that is random is drawn in order from streams that are named as the reference's; the work that follows is
    /// spread over the cores and gives the same on any number of them.
    pub(crate) fn build(&self, tokenizer: Option<&Tokenizer>, sink: Sink<'_>) -> Result<Summary, Error> {
        self.build_on(&mut parallel::workers(|| ()), tokenizer, sink)
    }

    fn build_on(&self, workers: &mut [()], tokenizer: Option<&Tokenizer>, sink: Sink<'_>) -> Result<Summary, Error> {
        let tokenizer =
            tokenizer.ok_or_else(|| Error("synthetic prompts need a tokenizer; give --tokenizer".into()))?;
        self.check(tokenizer)?;
        let shop = Workshop::open(self, tokenizer, Texts::new(self.source, tokenizer)?, workers)?;
        let mut plans = plan::Plans::new(self, &shop);
        let mut summary = Summary { kind: "synthetic".into(), ..Summary::default() };
        loop {
            let (mut batch, mut weight) = (Vec::new(), 0);
            while weight < BATCH_WEIGHT
                && let Some(plan) = plans.next()
            {
                weight += plan.weight();
                batch.push(plan);
            }
            if batch.is_empty() {
                return Ok(summary);
            }
            for conversation in parallel::map(workers, batch, |(), plan| shop.carry_out(plan)) {
                let conversation = conversation?;
                summary.conversations += 1;
                summary.requests += conversation.turns.len() as u64;
                sink(conversation)?;
            }
        }
    }

    fn check(&self, tokenizer: &Tokenizer) -> Result<(), Error> {
        if self.entries == 0 {
            return Err(Error("--num-dataset-entries must be at least 1".into()));
        }
        if self.batch == 0 {
            return Err(Error("--batch-size-text must be at least 1".into()));
        }
        let turns = "--conversation-turn-mean";
        self.turns.check_as(turns, "--conversation-turn-stddev")?;
        if self.turns.mean() > f64::from(MAX_TURNS) {
            return Err(Error(format!("{turns} {}: the most is {MAX_TURNS}", self.turns.mean())));
        }
        self.delay.check()?;
        self.prefix.check()?;
        if let Some(rankings) = &self.rankings {
            return rankings.check();
        }
        self.sequence.check(self.prefix.pooled(), tokenizer.special_tokens_around())?;
        let texts = !matches!(&self.sequence, Sequence::Independent { isl: None, .. });
        if !texts && self.images.is_none() && self.audio.is_none() && self.video.is_none() {
            return Err(Error(
                "--isl 0 leaves nothing to send; expected at least 1 token, or images, audio or video".into(),
            ));
        }
        Ok(())
    }
}

impl Delay {
    fn check(&self) -> Result<(), Error> {
        for (flag, value, most) in [
            ("--conversation-turn-delay-mean", self.mean_ms, MAX_DELAY_MS),
            ("--conversation-turn-delay-stddev", self.stddev_ms, MAX_DELAY_MS),
            ("--conversation-turn-delay-ratio", self.ratio, 1e6),
        ] {
            if !(0.0..=most).contains(&value) {
                return Err(Error(format!("{flag} must be between 0 and {most}, not {value}")));
            }
        }
        Ok(())
    }
}
