//! Texts of random tokens, for `--prompt-corpus random`.

use std::borrow::Cow;

use super::{Check, Corpus, Counted};
use crate::Error;
use crate::seed::Stream;
use crate::tokens::{End, Tokenizer};

/// Decode-and-encode rounds before words of the built-in text fill what is left.
const ROUNDS: usize = 10;

/// Where ids had to be added, one in so many more are.
const MERGED: u64 = 8;

/// Pieces before a joint that are encoded again with what follows it: more than any pattern looks ahead, or a special token is
/// long.
const OVERLAP: usize = 16;

/// Texts that are counted whole before a tokenizer's pieces are trusted to be encoded by themselves, and the tokens of the
/// longest.
const PROBES: u32 = 8;
const PROBE_TOKENS: u32 = 1200;

/// Where a text begins.
const START: End = End { at: 0, tokens: 0 };

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
    /// Pieces of a text are known and encoded by themselves.
    has_pieces: bool,
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
        let mut vocabulary =
            Self { tokenizer: tokenizer.clone(), ids, words: Corpus::sonnet(tokenizer), has_pieces: false };
        vocabulary.has_pieces = vocabulary.pieces_add_up();
        Ok(vocabulary)
    }

    /// Whether texts of which only the end was encoded again have as many tokens as they should.
    fn pieces_add_up(&self) -> bool {
        let mut stream = Stream::new(0, "dataset.prompt.probe.random");
        let made: Vec<Counted> = (1..=PROBES)
            .filter_map(|n| {
                let from = stream.below(self.ids.len() as u64);
                self.by_pieces("", PROBE_TOKENS * n / PROBES, from, &mut stream)
            })
            .collect();
        !made.is_empty() && made.iter().all(|made| self.words.count(&made.text) == made.tokens)
    }

    /// `prefix`, which may be empty, and after it consecutive ids of the vocabulary from a random place on: `tokens`
    /// tokens in all, exactly, when the text is encoded. Ids whose text is encoded otherwise are cut and topped up by
    /// random ones.
    pub(crate) fn extend(&self, prefix: &str, tokens: u32, stream: &mut Stream) -> Result<Counted, Error> {
        let from = stream.below(self.ids.len() as u64);
        let made = if self.has_pieces { self.by_pieces(prefix, tokens, from, stream) } else { None };
        made.map_or_else(|| self.by_rounds(prefix, tokens, from, stream), Ok)
    }

    /// Consecutive ids of the vocabulary.
    fn row(&self, from: u64, count: u64) -> impl Iterator<Item = u32> {
        let places = self.ids.len() as u64;
        (from..from + count).map(move |place| self.ids[(place % places) as usize])
    }

    /// [`Vocabulary::extend`] for a tokenizer that cuts texts into pieces: only what stands at the end is encoded more than
    /// once, until it comes out even. None where it does not.
    fn by_pieces(&self, prefix: &str, tokens: u32, from: u64, stream: &mut Stream) -> Option<Counted> {
        let mut text = prefix.to_owned();
        let mut ends = Vec::new();
        let mut taken = 0;
        for _ in 0..ROUNDS {
            let missing = u64::from(tokens.saturating_sub(ends.last().map_or(0, |end: &End| end.tokens)));
            // Ids that merge have fewer tokens.
            let merged = if taken > 0 { missing / MERGED + 1 } else { 0 };
            let more: Vec<u32> = self.row(from + taken, missing + merged).collect();
            taken += more.len() as u64;
            text.push_str(&self.tokenizer.decode(&more));
            if let Cow::Owned(normal) = self.tokenizer.normal(&text) {
                text = normal;
                ends.clear();
            }
            // What is encoded again may begin where the pieces before the new text do.
            ends.truncate(ends.len().saturating_sub(OVERLAP));
            let known = ends.last().copied().unwrap_or(START);
            let new = self.tokenizer.pieces(&text[known.at..])?;
            ends.extend(new.into_iter().map(|end| End { at: known.at + end.at, tokens: known.tokens + end.tokens }));
            if ends.last()?.tokens >= tokens {
                break;
            }
        }
        self.cut(text, &ends, prefix, tokens, stream)
    }

    /// `text`, which begins with `prefix`, cut to `tokens` tokens and changed at its end until it has them. `ends` are those of its
    /// pieces.
    fn cut(&self, text: String, ends: &[End], prefix: &str, tokens: u32, stream: &mut Stream) -> Option<Counted> {
        let fitting = ends.partition_point(|end| end.tokens <= tokens);
        // White space is cut by what stands after it.
        let is_firm = |end: &&End| !text[..end.at].ends_with(char::is_whitespace);
        let head = ends[..fitting].iter().rev().find(is_firm).copied().unwrap_or(START);
        if head.at < prefix.len() || !text.starts_with(prefix) {
            return None;
        }
        let near = ends[..fitting].iter().rev().filter(is_firm).nth(OVERLAP).copied().unwrap_or(START);
        let rest = (tokens - head.tokens) as usize;
        let next = ends.get(fitting).map_or(text.len(), |end| end.at);
        let mut tail = self.tokenizer.encode(&text[head.at..next]);
        for _ in 0..ROUNDS {
            tail.truncate(rest);
            while tail.len() < rest {
                tail.push(self.ids[stream.below(self.ids.len() as u64) as usize]);
            }
            let decoded = self.tokenizer.decode(&tail);
            let last = [&text[near.at..head.at], &decoded].concat();
            if self.tokenizer.count(&last) as u32 == tokens - near.tokens {
                return Some(Counted { text: [&text[..head.at], &decoded].concat(), tokens });
            }
            tail = self.tokenizer.encode(&decoded);
        }
        None
    }

    /// [`Vocabulary::extend`] for any tokenizer: the whole text is decoded and encoded until it comes out even.
    fn by_rounds(&self, prefix: &str, tokens: u32, from: u64, stream: &mut Stream) -> Result<Counted, Error> {
        let target = tokens as usize;
        let mut ids = if prefix.is_empty() { Vec::new() } else { self.tokenizer.encode(prefix) };
        let places = self.ids.len() as u64;
        let missing = target.saturating_sub(ids.len()) as u64;
        ids.extend(self.row(from, missing));
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
