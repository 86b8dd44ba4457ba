//! What generated texts are made of, whichever it is.

use crate::Error;
use crate::corpus::{Check, Corpus, Counted, Vocabulary};
use crate::seed::Stream;
use crate::tokens::Tokenizer;

/// `--prompt-corpus`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Source {
    /// Words of Shakespeare's sonnets.
    #[default]
    Sonnet,
    /// Code, logs, configuration and questions about them.
    Coding,
    /// Tokens of the vocabulary by lot.
    Random,
}

/// Makes texts of an exact number of tokens.
#[derive(Debug)]
pub(crate) enum Texts {
    Words(Corpus),
    Ids(Vocabulary),
}

impl Texts {
    /// # Errors
    /// Where the tokenizer has nothing to make random texts of.
    pub(crate) fn new(source: Source, tokenizer: &Tokenizer) -> Result<Self, Error> {
        Ok(match source {
            Source::Sonnet => Self::Words(Corpus::sonnet(tokenizer)),
            Source::Coding => Self::Words(Corpus::coding(tokenizer)),
            Source::Random => Self::Ids(Vocabulary::new(tokenizer)?),
        })
    }

    /// A text of exactly `tokens` tokens.
    ///
    /// # Errors
    /// Where the tokenizer has no text of that length.
    pub(crate) fn text(&self, tokens: u32, stream: &mut Stream) -> Result<Counted, Error> {
        match self {
            Self::Words(corpus) => corpus.text(tokens, stream),
            Self::Ids(vocabulary) => vocabulary.extend("", tokens, stream),
        }
    }

    /// `prefix`, which has `prefix_tokens` tokens, and a text after it: `tokens` in all.
    ///
    /// # Errors
    /// As [`Texts::text`].
    pub(crate) fn after(&self, prefix: &Counted, tokens: u32, stream: &mut Stream) -> Result<Counted, Error> {
        match self {
            Self::Words(corpus) => corpus.extend(&prefix.text, prefix.tokens, tokens, Check::Count, stream),
            Self::Ids(vocabulary) => vocabulary.extend(&prefix.text, tokens, stream),
        }
    }
}
