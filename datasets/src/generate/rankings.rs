//! Generated data for ranking endpoints: a query and the passages to rank.

use crate::Error;
use crate::lengths::Lengths;
use crate::seed::Stream;

/// Passages of a request where no flag says how many.
pub const DEFAULT_PASSAGES: u32 = 10;

/// Tokens of a passage where no flag says how many.
pub const DEFAULT_PASSAGE_TOKENS: u32 = 128;

/// Tokens of a query where no flag says how many.
pub const DEFAULT_QUERY_TOKENS: u32 = 32;

/// What to rank.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// `--rankings-passages-mean` and `-stddev`: passages of a request.
    pub passages: Lengths,
    /// `--rankings-passages-prompt-token-mean` and `-stddev`: tokens of a passage.
    pub passage_tokens: Lengths,
    /// `--rankings-query-prompt-token-mean` and `-stddev`: tokens of a query.
    pub query_tokens: Lengths,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            passages: Lengths::fixed(DEFAULT_PASSAGES),
            passage_tokens: Lengths::fixed(DEFAULT_PASSAGE_TOKENS),
            query_tokens: Lengths::fixed(DEFAULT_QUERY_TOKENS),
        }
    }
}

/// The streams that rankings are drawn from.
pub(crate) struct Draws {
    passages: Stream,
    lengths: Stream,
}

impl Draws {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            passages: Stream::new(seed, "dataset.rankings.passages"),
            lengths: Stream::new(seed, "dataset.prompt.length"),
        }
    }
}

impl Options {
    /// # Errors
    /// A sentence naming the flag.
    pub(crate) fn check(&self) -> Result<(), Error> {
        for (lengths, flag) in [
            (&self.passages, "--rankings-passages"),
            (&self.passage_tokens, "--rankings-passages-prompt-token"),
            (&self.query_tokens, "--rankings-query-prompt-token"),
        ] {
            lengths.check_as(&format!("{flag}-mean"), &format!("{flag}-stddev"))?;
        }
        Ok(())
    }

    /// Tokens of the query, then of each passage.
    pub(crate) fn draw(&self, draws: &mut Draws) -> Vec<u32> {
        let passages = self.passages.draw(&mut draws.passages);
        let query = self.query_tokens.draw(&mut draws.lengths);
        let rest = (0..passages).map(|_| self.passage_tokens.draw(&mut draws.lengths));
        std::iter::once(query).chain(rest).collect()
    }
}
