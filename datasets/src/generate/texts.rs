//! What generated texts are made of, whichever it is.

use crate::Error;
use crate::generate::corpus::{Check, Corpus, Counted, Vocabulary};
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
    /// Of words, counted or trusted.
    Words(Corpus, Check),
    Ids(Vocabulary),
}

/// Texts that are counted before a tokenizer whose words' prices add up is trusted with the others.
const PROBES: u32 = 8;

/// Tokens of these; the first has one, the last all.
const PROBE_TOKENS: u32 = 1200;

impl Texts {
    /// # Errors
    /// Where the tokenizer has nothing to make random texts of.
    pub(crate) fn new(source: Source, tokenizer: &Tokenizer) -> Result<Self, Error> {
        Ok(match source {
            Source::Sonnet => Self::of(Corpus::sonnet(tokenizer)),
            Source::Coding => Self::of(Corpus::coding(tokenizer)),
            Source::Random => Self::Ids(Vocabulary::new(tokenizer)?),
        })
    }

    /// Counting every text takes most of the time of making it. Where every word's price was found to hold after every
    /// other and long texts prove it, the sum is the count.
    fn of(corpus: Corpus) -> Self {
        let mut stream = Stream::new(0, "dataset.prompt.probe.long");
        let mut exact = |n: u32| {
            let tokens = 1 + (PROBE_TOKENS - 1) * n / (PROBES - 1);
            let made = corpus.extend("", 0, tokens, Check::Trust, &mut stream);
            made.is_ok_and(|made| corpus.count(&made.text) == tokens)
        };
        let check = if corpus.is_additive() && (0..PROBES).all(&mut exact) { Check::Trust } else { Check::Count };
        Self::Words(corpus, check)
    }

    /// A text of exactly `tokens` tokens.
    ///
    /// # Errors
    /// Where the tokenizer has no text of that length.
    pub(crate) fn text(&self, tokens: u32, stream: &mut Stream) -> Result<Counted, Error> {
        match self {
            Self::Words(corpus, check) => corpus.extend("", 0, tokens, *check, stream),
            Self::Ids(vocabulary) => vocabulary.extend("", tokens, stream),
        }
    }

    /// `prefix`, which has `prefix_tokens` tokens, and a text after it: `tokens` in all.
    ///
    /// # Errors
    /// As [`Texts::text`].
    pub(crate) fn after(&self, prefix: &Counted, tokens: u32, stream: &mut Stream) -> Result<Counted, Error> {
        match self {
            Self::Words(corpus, check) => corpus.extend(&prefix.text, prefix.tokens, tokens, *check, stream),
            Self::Ids(vocabulary) => vocabulary.extend(&prefix.text, tokens, stream),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::tests::{UNSPLIT_BPE, WORD_LEVEL, from_json};

    #[test]
    fn only_texts_whose_prices_add_up_are_trusted() {
        let check = |tokenizer: &Tokenizer, source| match Texts::new(source, tokenizer) {
            Ok(Texts::Words(_, check)) => check,
            other => panic!("{other:?}"),
        };
        for trusted in [Tokenizer::builtin(), from_json(WORD_LEVEL)] {
            assert_eq!(check(&trusted, Source::Sonnet), Check::Trust);
        }
        assert_eq!(check(&from_json(UNSPLIT_BPE), Source::Sonnet), Check::Count);
        assert_eq!(check(&Tokenizer::builtin(), Source::Coding), Check::Count);
    }

    #[test]
    fn a_trusted_text_is_the_counted_one() {
        let tokenizer = Tokenizer::builtin();
        let (texts, corpus) = (Texts::new(Source::Sonnet, &tokenizer).unwrap(), Corpus::sonnet(&tokenizer));
        for tokens in (1..300).chain([2000]) {
            let stream = || Stream::new(tokens.into(), "test");
            let counted = corpus.text(tokens, &mut stream()).unwrap();
            assert_eq!(texts.text(tokens, &mut stream()).unwrap(), counted);
            assert_eq!(tokenizer.count(&counted.text), tokens as usize);
        }
    }
}
