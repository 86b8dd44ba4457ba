//! Texts of an exact number of tokens, made of the words of a built-in text.
//!
//! There are three sources: Shakespeare's sonnets, code and what stands around it, and random tokens of the vocabulary.
//! The first two work alike.
//!
//! A text is a row of short runs: each starts at a uniformly drawn word of the corpus and takes 4 to 12 consecutive
//! words. One long window would be simpler, but the corpus has only about four thousand places to start from, so among
//! a thousand prompts some would begin alike and a server's prefix cache would answer for them.
//!
//! Every word's price in tokens is measured once for a tokenizer. Where a space always starts a new token (all common
//! byte-level BPE, WordPiece and word-level vocabularies) prices add up, so a text of the right length is found without
//! encoding it. It is counted all the same, and corrected until the count is the one asked for.

mod coding;
mod random;

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use crate::Error;
use crate::seed::Stream;
use crate::tokens::Tokenizer;

pub(crate) use random::Vocabulary;

const SONNETS: &str = include_str!("../../data/sonnet.txt");

static CODE: LazyLock<String> = LazyLock::new(coding::text);

/// What stands before a word or a block while its price inside a text is measured.
const CONTEXT: &str = "and";

/// Correction rounds of fresh words before single steps are tried.
const ROUNDS: usize = 24;
/// Single steps before the tokenizer is declared unable.
const STEPS: usize = 256;
/// Endings that, each in some vocabulary, add exactly one token.
const ENDINGS: [&str; 12] = [" a", "a", " the", "s", ".", "e", " I", "!", "x", "7", "?", "y"];

/// The built-in text as one tokenizer sees it.
#[derive(Debug)]
pub(crate) struct Corpus {
    tokenizer: Tokenizer,
    words: Vec<Word>,
    /// Places in `words` that cost one token.
    singles: Vec<usize>,
    /// Consecutive words that a run has at least, and how many lengths there are above.
    runs: (u64, u64),
    additive: bool,
}

#[derive(Debug, Clone, Copy)]
struct Word {
    text: &'static str,
    /// What stands between the word and the one before it: a space, or a line break and an indentation.
    gap: &'static str,
    /// Tokens at the start of a text.
    first: u32,
    /// Tokens after another word and the gap.
    joined: u32,
}

/// A text and the number of its tokens, counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) text: String,
    pub(crate) tokens: u32,
}

/// Whether a text is counted before it is given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// Counted, and corrected where the count is not the one asked for.
    Count,
    /// Believed to have the sum of its words' prices: for tokenizers whose prices add up, after many texts that did.
    Trust,
}

impl Corpus {
    /// The sonnets, every word after a single space.
    pub(crate) fn sonnet(tokenizer: &Tokenizer) -> Self {
        let words = SONNETS.split_whitespace().map(|word| (" ", word));
        Self::of(tokenizer, words, (4, 9))
    }

    /// Code, its lines and indentations kept. Runs are long, so that what is cut out of it looks like code.
    pub(crate) fn coding(tokenizer: &Tokenizer) -> Self {
        Self::of(tokenizer, words_and_gaps(&CODE), (24, 41))
    }

    fn of(tokenizer: &Tokenizer, words: impl Iterator<Item = (&'static str, &'static str)>, runs: (u64, u64)) -> Self {
        let context = tokenizer.count(CONTEXT);
        let mut known: HashMap<(&'static str, &'static str), Word> = HashMap::new();
        let words: Vec<Word> = words
            .map(|(gap, text)| {
                *known.entry((gap, text)).or_insert_with(|| Word {
                    text,
                    gap,
                    first: tokenizer.count(text) as u32,
                    joined: tokenizer.count(&format!("{CONTEXT}{gap}{text}")).saturating_sub(context) as u32,
                })
            })
            .collect();
        let singles = (0..words.len()).filter(|&i| words[i].joined == 1).collect();
        let mut corpus = Self { tokenizer: tokenizer.clone(), words, singles, runs, additive: false };
        corpus.additive = corpus.prices_add_up();
        corpus
    }

    pub(crate) fn is_additive(&self) -> bool {
        self.additive
    }

    /// Whether a sample of drafts has exactly the tokens that its words' prices sum to, and so has a text in which every
    /// last letter of a word meets every first one: pre-tokenizers look no further than that.
    fn prices_add_up(&self) -> bool {
        let mut stream = Stream::new(0, "dataset.prompt.probe");
        let samples_do = (1..=32u32).all(|i| {
            let mut draft = Draft::after("", 0);
            self.fill(&mut draft, i * 5, &mut stream);
            draft.tokens == i * 5 && self.count(&draft.text) == draft.tokens
        });
        samples_do && {
            let draft = self.all_meetings();
            self.count(&draft.text) == draft.tokens
        }
    }

    fn all_meetings(&self) -> Draft {
        let by = |edge: fn(&str) -> Option<char>| -> BTreeMap<Option<char>, Word> {
            self.words.iter().map(|word| (edge(word.text), *word)).collect()
        };
        let (firsts, lasts) = (by(|word| word.chars().next()), by(|word| word.chars().next_back()));
        let mut draft = Draft::after(CONTEXT, self.count(CONTEXT));
        for last in lasts.values() {
            for first in firsts.values() {
                draft.push(last, last.joined);
                draft.push(first, first.joined);
            }
        }
        draft
    }

    pub(crate) fn count(&self, text: &str) -> u32 {
        u32::try_from(self.tokenizer.count(text)).unwrap_or(u32::MAX)
    }

    /// A text of exactly `tokens` tokens that neither starts nor ends with a space.
    pub(crate) fn text(&self, tokens: u32, stream: &mut Stream) -> Result<Counted, Error> {
        self.extend("", 0, tokens, Check::Count, stream)
    }

    /// A block of `tokens` tokens as counted after another word and a space. Where the tokenizer's prices add up it is
    /// not counted again: whoever joins blocks counts the whole.
    pub(crate) fn block(&self, tokens: u32, stream: &mut Stream) -> Result<String, Error> {
        let context = self.count(CONTEXT);
        let check = if self.additive { Check::Trust } else { Check::Count };
        let text = self.extend(CONTEXT, context, context + tokens, check, stream)?.text;
        Ok(text[CONTEXT.len()..].trim_start_matches(' ').to_owned())
    }

    /// `prefix`, which has about `prefix_tokens` tokens, and words after it: `tokens` in all, exactly.
    pub(crate) fn extend(
        &self,
        prefix: &str,
        prefix_tokens: u32,
        tokens: u32,
        check: Check,
        stream: &mut Stream,
    ) -> Result<Counted, Error> {
        let mut draft = Draft::after(prefix, prefix_tokens);
        for _ in 0..ROUNDS {
            self.fill(&mut draft, tokens, stream);
            if check == Check::Trust && draft.tokens == tokens {
                return Ok(Counted { text: draft.text, tokens });
            }
            let counted = self.count(&draft.text);
            draft.tokens = counted;
            if counted == tokens {
                return Ok(Counted { text: draft.text, tokens });
            }
            if counted > tokens && !draft.shorten(counted - tokens) {
                break;
            }
        }
        self.step(draft, tokens).ok_or_else(|| {
            Error(format!(
                "--tokenizer {}: no text of exactly {tokens} tokens can be made with it",
                self.tokenizer.name()
            ))
        })
    }

    /// Appends words until their prices sum to `tokens`, or no word fits any more.
    fn fill(&self, draft: &mut Draft, tokens: u32, stream: &mut Stream) {
        let places = self.words.len() as u64;
        let (mut at, mut run, mut misses) = (0, 0, 0);
        while draft.tokens < tokens && misses < 64 {
            if run == 0 {
                at = stream.below(places) as usize;
                run = self.runs.0 + stream.below(self.runs.1);
            }
            let word = self.words[at];
            let price = if draft.text.is_empty() { word.first } else { word.joined };
            // The first word of a text costs the same at the start and after a space where possible: then a block is as
            // long at the head of a prompt as inside it.
            let fits = price > 0
                && price <= tokens - draft.tokens
                && (draft.words.is_empty() <= (word.first == word.joined) || misses > 32);
            if fits {
                draft.push(&word, price);
                at = (at + 1) % self.words.len();
                run -= 1;
            } else if !draft.words.is_empty() && !self.singles.is_empty() {
                let single = self.singles[stream.below(self.singles.len() as u64) as usize];
                draft.push(&self.words[single], 1);
                run = 0;
            } else {
                misses += 1;
                run = 0;
            }
        }
    }

    /// Reaches `tokens` by single endings, for tokenizers whose words have no fixed price.
    fn step(&self, mut draft: Draft, tokens: u32) -> Option<Counted> {
        let mut counted = self.count(&draft.text);
        for turn in 0..STEPS {
            if counted == tokens {
                return Some(Counted { text: draft.text, tokens });
            }
            let before = draft.text.len();
            let grown = (counted < tokens)
                .then(|| (0..ENDINGS.len()).map(|i| ENDINGS[(i + turn) % ENDINGS.len()]))
                .into_iter()
                .flatten()
                .find_map(|ending| {
                    draft.text.push_str(if before == 0 { ending.trim_start() } else { ending });
                    let now = self.count(&draft.text);
                    if now > counted && now <= tokens {
                        return Some(now);
                    }
                    draft.text.truncate(before);
                    None
                });
            counted = match grown {
                Some(now) => now,
                None if draft.shorten(1) => self.count(&draft.text),
                None => return None,
            };
        }
        None
    }
}

/// The words of a text, each with the white space before it.
fn words_and_gaps(text: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    let mut rest = text.trim_end();
    std::iter::from_fn(move || {
        let start = rest.find(|c: char| !c.is_whitespace())?;
        let (gap, tail) = rest.split_at(start);
        let end = tail.find(char::is_whitespace).unwrap_or(tail.len());
        let word;
        (word, rest) = tail.split_at(end);
        Some((if gap.is_empty() { "\n\n" } else { gap }, word))
    })
}

/// A text that grows and shrinks by whole words, after a prefix that stays.
struct Draft {
    text: String,
    /// What is believed or known of the count of `text`.
    tokens: u32,
    /// For each word its offset in `text` (its space included) and its price.
    words: Vec<(usize, u32)>,
}

impl Draft {
    fn after(prefix: &str, tokens: u32) -> Self {
        Self { text: prefix.to_owned(), tokens, words: Vec::new() }
    }

    fn push(&mut self, word: &Word, price: u32) {
        self.words.push((self.text.len(), price));
        if !self.text.is_empty() {
            self.text.push_str(word.gap);
        }
        self.text.push_str(word.text);
        self.tokens += price;
    }

    /// Takes off words worth at least `excess` tokens; false where there was none to take.
    fn shorten(&mut self, excess: u32) -> bool {
        let mut taken = 0;
        while taken < excess {
            let Some((offset, price)) = self.words.pop() else {
                break;
            };
            self.text.truncate(offset);
            taken += price;
        }
        self.tokens = self.tokens.saturating_sub(taken);
        taken > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::tests::{UNSPLIT_BPE, WORD_LEVEL, from_json};
    use proptest::prelude::*;

    #[test]
    fn prices_add_up_where_a_space_starts_a_token() {
        assert!(Corpus::sonnet(&Tokenizer::builtin()).additive);
        assert!(Corpus::sonnet(&from_json(WORD_LEVEL)).additive);
        assert!(!Corpus::sonnet(&from_json(UNSPLIT_BPE)).additive);
    }

    #[test]
    fn counts_are_exact_with_every_tokenizer() {
        for tokenizer in [Tokenizer::builtin(), from_json(WORD_LEVEL), from_json(UNSPLIT_BPE)] {
            let corpus = Corpus::sonnet(&tokenizer);
            let mut stream = Stream::new(1, "test");
            for target in (1..80).chain([127, 512, 550, 2000, 9000]) {
                let made = corpus.text(target, &mut stream).unwrap();
                assert_eq!(tokenizer.count(&made.text), target as usize, "{}", made.text);
                assert_eq!(made.text.trim(), made.text);
            }
        }
    }

    #[test]
    fn code_keeps_its_lines_and_is_exact() {
        for tokenizer in [Tokenizer::builtin(), from_json(WORD_LEVEL), from_json(UNSPLIT_BPE)] {
            let corpus = Corpus::coding(&tokenizer);
            let mut stream = Stream::new(1, "test");
            for target in (1..40).chain([127, 550, 2000]) {
                let made = corpus.text(target, &mut stream).unwrap();
                assert_eq!(tokenizer.count(&made.text), target as usize, "{}", made.text);
                assert!(target < 550 || made.text.contains("\n    "), "{}", made.text);
            }
        }
    }

    #[test]
    fn joined_blocks_have_the_sum_of_their_tokens() {
        let tokenizer = Tokenizer::builtin();
        let corpus = Corpus::sonnet(&tokenizer);
        let mut stream = Stream::new(1, "test");
        let blocks: Vec<String> = (0..200).map(|_| corpus.block(64, &mut stream).unwrap()).collect();
        for pair in blocks.chunks(2) {
            assert_eq!(tokenizer.count(&pair[0]), 64);
            assert_eq!(tokenizer.count(&pair.join(" ")), 128);
        }
    }

    #[test]
    fn a_tokenizer_that_sees_one_token_only_is_refused() {
        let mut json: serde_json::Value = serde_json::from_str(WORD_LEVEL).unwrap();
        json["pre_tokenizer"] = serde_json::Value::Null;
        let corpus = Corpus::sonnet(&from_json(&json.to_string()));
        let mut stream = Stream::new(1, "test");
        assert_eq!(corpus.text(1, &mut stream).unwrap().tokens, 1);
        assert!(corpus.text(2, &mut stream).unwrap_err().0.contains("exactly 2 tokens"));
    }

    #[test]
    fn a_thousand_prompts_do_not_begin_alike() {
        let corpus = Corpus::sonnet(&Tokenizer::builtin());
        let mut stream = Stream::new(42, "test");
        let heads: std::collections::HashSet<Vec<u32>> = (0..1000)
            .map(|_| corpus.tokenizer.encode(&corpus.text(64, &mut stream).unwrap().text)[..32].to_vec())
            .collect();
        assert_eq!(heads.len(), 1000);
    }

    proptest! {
        #[test]
        fn any_target_and_seed_is_met_exactly(target in 1u32..3000, seed: u64) {
            thread_local!(static CORPORA: [Corpus; 2] =
                [Corpus::sonnet(&Tokenizer::builtin()), Corpus::sonnet(&from_json(UNSPLIT_BPE))]);
            CORPORA.with(|corpora| {
                for corpus in corpora {
                    let made = corpus.text(target, &mut Stream::new(seed, "test")).unwrap();
                    prop_assert_eq!(corpus.count(&made.text), target);
                    let again = corpus.text(target, &mut Stream::new(seed, "test")).unwrap();
                    prop_assert_eq!(made, again);
                }
                Ok(())
            })?;
        }
    }
}
