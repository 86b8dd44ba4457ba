//! What conversations begin with: prefixes that many share, a system prompt that all do, a context of their own.

use super::Room;
use crate::Error;
use crate::generate::corpus::Counted;
use crate::generate::texts::Texts;
use crate::lengths::Lengths;
use crate::parallel;
use crate::seed::Stream;

/// Tokens before the prompts proper; they come on top of `--isl`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Prefix {
    /// None.
    #[default]
    None,
    /// `--num-prefix-prompts` texts of `--prefix-prompt-length` tokens; each first turn begins with one of them by lot.
    Pool {
        /// Texts.
        count: u32,
        /// Tokens of each.
        length: u32,
    },
    /// Messages of their own before the first turn.
    Messages {
        /// `--shared-system-prompt-length`: tokens of the one system prompt.
        system: Option<u32>,
        /// `--user-context-prompt-length`: tokens of each conversation's own user message.
        context: Option<u32>,
    },
}

impl Prefix {
    pub(super) fn check(&self) -> Result<(), Error> {
        let length = |flag: &str, length: u32| Lengths::fixed(length).check(flag);
        match *self {
            Self::None => Ok(()),
            Self::Pool { count: 0, .. } => Err(Error("--num-prefix-prompts must be at least 1".into())),
            Self::Pool { length: tokens, .. } => length("--prefix-prompt-length", tokens),
            Self::Messages { system, context } => {
                system.map_or(Ok(()), |tokens| length("--shared-system-prompt-length", tokens))?;
                context.map_or(Ok(()), |tokens| length("--user-context-prompt-length", tokens))
            }
        }
    }

    /// Whether there is a system prompt among it.
    pub fn makes_system(&self) -> bool {
        matches!(self, Self::Messages { system: Some(_), .. })
    }

    /// Tokens before a prompt within the same text.
    pub(super) fn pooled(&self) -> u32 {
        match self {
            Self::Pool { length, .. } => *length,
            Self::None | Self::Messages { .. } => 0,
        }
    }

    /// Texts to choose from.
    pub(super) fn pool_size(&self) -> u32 {
        match self {
            Self::Pool { count, .. } => *count,
            Self::None | Self::Messages { .. } => 0,
        }
    }

    /// Tokens of each conversation's own context.
    pub(super) fn context(&self) -> Option<u32> {
        match self {
            Self::Messages { context, .. } => *context,
            Self::None | Self::Pool { .. } => None,
        }
    }

    /// The texts of the pool, each from a stream of its own: a larger pool begins with the smaller one.
    pub(super) fn make_pool(&self, seed: u64, texts: &Texts, workers: &mut [()]) -> Result<Vec<Counted>, Error> {
        let one = |(), n: u32| texts.text(self.pooled(), &mut Stream::new(seed, &format!("dataset.prompt.prefix:{n}")));
        parallel::map(workers, (0..self.pool_size()).collect(), |(), n| one((), n)).into_iter().collect()
    }

    /// The system prompt that all conversations share.
    pub(super) fn make_system(&self, seed: u64, room: Room, texts: &Texts) -> Result<Option<String>, Error> {
        let Self::Messages { system: Some(tokens), .. } = self else { return Ok(None) };
        texts.text(room.in_system(*tokens), &mut Stream::new(seed, "dataset.prompt.system")).map(|made| Some(made.text))
    }
}
