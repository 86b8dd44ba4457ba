//! Texts of random tokens, for `--prompt-corpus random`.

use super::{Check, Corpus, Counted};
use crate::Error;
use crate::seed::Stream;
use crate::tokens::Tokenizer;

/// Decode-and-encode rounds before words of the built-in text fill what is left.
const ROUNDS: usize = 10;

/// Tokens left to words at most where the rounds did not come out even.
const WORDS: usize = 16;

/// A vocabulary to draw from.
#[derive(Debug)]
pub(crate) struct Vocabulary {
    tokenizer: Tokenizer,
    /// Ids that stand for text.
    ids: Vec<u32>,
    /// What ends a text that random tokens alone do not bring to its length.
    words: Corpus,
}

impl Vocabulary {
    /// # Errors
    /// Where the tokenizer has no token that is a text.
    pub(crate) fn new(tokenizer: &Tokenizer) -> Result<Self, Error> {
        let ids = tokenizer.text_ids();
        if ids.is_empty() {
            return Err(Error(format!(
                "--prompt-corpus random: the tokenizer {} has no text tokens",
                tokenizer.name()
            )));
        }
        Ok(Self { tokenizer: tokenizer.clone(), ids, words: Corpus::sonnet(tokenizer) })
    }

    /// `prefix`, which may be empty, and after it consecutive ids of the vocabulary from a random place on: `tokens`
    /// tokens in all, exactly, when the text is encoded. Ids whose text is encoded otherwise are cut and topped up by
    /// random ones.
    pub(crate) fn extend(&self, prefix: &str, tokens: u32, stream: &mut Stream) -> Result<Counted, Error> {
        let target = tokens as usize;
        let mut ids = if prefix.is_empty() { Vec::new() } else { self.tokenizer.encode(prefix) };
        let places = self.ids.len() as u64;
        let from = stream.below(places);
        let missing = target.saturating_sub(ids.len()) as u64;
        ids.extend((0..missing).map(|j| self.ids[((from + j) % places) as usize]));
        for _ in 0..ROUNDS {
            let text = self.tokenizer.decode(&ids);
            ids = self.tokenizer.encode(&text);
            if ids.len() == target {
                return Ok(Counted { text, tokens });
            }
            ids.truncate(target);
            while ids.len() < target {
                ids.push(self.ids[stream.below(places) as usize]);
            }
        }
        for kept in [target.saturating_sub(WORDS), target / 2, target / 8] {
            let head = self.tokenizer.decode(&ids[..kept.min(ids.len())]);
            let counted = self.words.count(&head);
            if counted <= tokens
                && head.starts_with(prefix)
                && let Ok(made) = self.words.extend(&head, counted, tokens, Check::Count, stream)
            {
                return Ok(made);
            }
        }
        self.words.extend(prefix, self.words.count(prefix), tokens, Check::Count, stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::tests::{UNSPLIT_BPE, WORD_LEVEL, from_json};

    #[test]
    fn random_texts_have_exactly_their_tokens() {
        for tokenizer in [Tokenizer::builtin(), from_json(WORD_LEVEL), from_json(UNSPLIT_BPE)] {
            let vocabulary = Vocabulary::new(&tokenizer).unwrap();
            let mut stream = Stream::new(1, "test");
            for tokens in (1..40).chain([127, 550, 2000]) {
                let made = vocabulary.extend("", tokens, &mut stream).unwrap();
                assert_eq!(tokenizer.count(&made.text), tokens as usize, "{:?}", made.text);
            }
        }
    }

    #[test]
    fn a_prefix_stays() {
        let tokenizer = Tokenizer::builtin();
        let vocabulary = Vocabulary::new(&tokenizer).unwrap();
        let made = vocabulary.extend("Shall I compare thee", 60, &mut Stream::new(1, "test")).unwrap();
        assert!(made.text.starts_with("Shall I compare thee"));
        assert_eq!(tokenizer.count(&made.text), 60);
    }
}
