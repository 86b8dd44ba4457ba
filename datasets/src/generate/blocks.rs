//! Prompts of a trace that says which blocks of tokens its requests share.
//!
//! A block's text is a function of the run's seed, the file's content and the block's id, and of nothing else: requests
//! whose ids start alike have prompts that start with the same bytes, whatever stands between them in the file. Blocks
//! are whole words joined by single spaces, so they stay whole when a server encodes the joined text. No separator token
//! stands between them (the reference puts the tokenizer's BOS there): special strings in user text are read
//! differently from server to server.
//!
//! What is exact: a block has exactly its size in tokens as counted after another word; a prompt without ids, or one
//! that is longer than its blocks, has exactly `input_length` tokens. A prompt of blocks alone has so too with every
//! tokenizer that starts a new token at a space. With others the last block is corrected if it is a partial one, full
//! blocks never are, and the prompt's count then says what was reached.
//!
//! Counting a whole trace takes minutes with a slow tokenizer (145 million tokens in the Mooncake conversation trace). So
//! the first batch of a file's prompts (over a million tokens) is counted; if the tokenizer's prices add up and every
//! one of these was as long as its row asks, the rest is made without being counted.

use std::collections::HashMap;
use std::sync::Arc;

use crate::Error;
use crate::generate::corpus::{Check, Corpus, Counted};
use crate::seed::{Stream, child};

/// Bytes of block texts that one worker keeps. Dropped blocks are made again, alike.
const CACHE_BYTES: usize = 32 << 20;

/// Makes the prompts of one trace file.
#[derive(Debug)]
pub(crate) struct Prompts {
    corpus: Corpus,
    root: u64,
    /// First 16 hexadecimal digits of the SHA-256 of the file.
    trace_id: String,
    block_size: u32,
}

/// Texts of blocks in two generations: when the young one holds half of the bytes, it becomes the old one, and the old
/// one is dropped.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    young: HashMap<(i128, u32), Arc<str>>,
    old: HashMap<(i128, u32), Arc<str>>,
    young_bytes: usize,
}

impl Cache {
    fn get(&mut self, key: (i128, u32)) -> Option<Arc<str>> {
        if let Some(text) = self.young.get(&key) {
            return Some(text.clone());
        }
        let text = self.old.remove(&key)?;
        self.put(key, text.clone());
        Some(text)
    }

    fn put(&mut self, key: (i128, u32), text: Arc<str>) {
        if self.young_bytes + text.len() > CACHE_BYTES / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += text.len();
        self.young.insert(key, text);
    }
}

impl Prompts {
    pub(crate) fn new(corpus: Corpus, seed: u64, trace_id: String, block_size: u32) -> Self {
        Self { corpus, root: child(seed, "dataset.prompt.corpus"), trace_id, block_size }
    }

    /// The prompt of the row at `line`: `length` tokens, starting with the blocks `ids`.
    ///
    /// # Errors
    /// Where the blocks do not fit `length`: the last may be a partial one, none may be left over.
    pub(crate) fn prompt(
        &self,
        line: usize,
        length: u32,
        ids: &[i128],
        check: Check,
        cache: &mut Cache,
    ) -> Result<Counted, Error> {
        let Some((last, full)) = ids.split_last() else {
            return self.corpus.text(length, &mut self.row_stream(line));
        };
        let blocks = ids.len() as u64 * u64::from(self.block_size);
        let before = full.len() as u64 * u64::from(self.block_size);
        if before >= u64::from(length) {
            return Err(Error(format!(
                "{} `hash_ids` of {} tokens each do not fit `input_length` {length} (see --isl-block-size)",
                ids.len(),
                self.block_size
            )));
        }
        // Both fit 32 bits: they are below `length` or cut to it.
        let (before, last_size) = (before as u32, (u64::from(length) - before).min(u64::from(self.block_size)) as u32);
        let mut text = String::with_capacity(length as usize * 5);
        for id in full {
            text.push_str(&self.block(*id, self.block_size, cache)?);
            text.push(' ');
        }
        let head = text.len().saturating_sub(1);
        text.push_str(&self.block(*last, last_size, cache)?);
        if blocks < u64::from(length) {
            return self.corpus.extend(&text, blocks as u32, length, check, &mut self.row_stream(line));
        }
        let tokens = match check {
            Check::Count => self.corpus.count(&text),
            Check::Trust => length,
        };
        if tokens != length && last_size < self.block_size {
            let mut stream = self.block_stream(*last);
            if let Ok(corrected) = self.corpus.extend(&text[..head], before, length, Check::Count, &mut stream) {
                return Ok(corrected);
            }
        }
        Ok(Counted { text, tokens })
    }

    /// What the prompts after some that were counted need, all of which were as long as asked if `exact`.
    pub(crate) fn check_after(&self, exact: bool) -> Check {
        if exact && self.corpus.is_additive() { Check::Trust } else { Check::Count }
    }

    /// The text of block `id` at `size` tokens. A partial block (its prompt's end) starts like the full one.
    fn block(&self, id: i128, size: u32, cache: &mut Cache) -> Result<Arc<str>, Error> {
        if let Some(text) = cache.get((id, size)) {
            return Ok(text);
        }
        let text: Arc<str> = self.corpus.block(size, &mut self.block_stream(id))?.into();
        cache.put((id, size), text.clone());
        Ok(text)
    }

    fn block_stream(&self, id: i128) -> Stream {
        Stream::new(self.root, &format!("{}:{id}", self.trace_id))
    }

    fn row_stream(&self, line: usize) -> Stream {
        Stream::new(self.root, &format!("{}:row:{line}", self.trace_id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::Tokenizer;
    use crate::tokens::tests::{UNSPLIT_BPE, WORD_LEVEL, from_json};

    fn prompts(tokenizer: &Tokenizer, seed: u64, trace_id: &str) -> Prompts {
        Prompts::new(Corpus::sonnet(tokenizer), seed, trace_id.into(), 32)
    }

    fn common_prefix(a: &str, b: &str) -> usize {
        a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count()
    }

    #[test]
    fn shared_ids_are_shared_text() {
        for tokenizer in [Tokenizer::builtin(), from_json(WORD_LEVEL), from_json(UNSPLIT_BPE)] {
            let prompts = prompts(&tokenizer, 42, "f00d");
            let mut cache = Cache::default();
            let a = prompts.prompt(1, 100, &[7, 8, 9, 10], Check::Count, &mut cache).unwrap();
            let b = prompts.prompt(2, 200, &[7, 8, 11, 12], Check::Count, &mut cache).unwrap();
            let shared = prompts.prompt(3, 64, &[7, 8], Check::Count, &mut cache).unwrap();
            assert!(a.text.starts_with(&shared.text) && b.text.starts_with(&shared.text));
            assert!(common_prefix(&a.text, &b.text) < shared.text.len() + 16);
            assert_eq!(tokenizer.count(&b.text), 200);
            assert_eq!(tokenizer.count(&a.text), a.tokens as usize);
        }
    }

    #[test]
    fn lengths_are_exact_where_a_space_starts_a_token() {
        for tokenizer in [Tokenizer::builtin(), from_json(WORD_LEVEL)] {
            let prompts = prompts(&tokenizer, 42, "f00d");
            let mut cache = Cache::default();
            for length in 1..=160u32 {
                let ids: Vec<i128> = (0..i128::from(length.div_ceil(32))).collect();
                let made = prompts.prompt(1, length, &ids, Check::Count, &mut cache).unwrap();
                assert_eq!((made.tokens, tokenizer.count(&made.text)), (length, length as usize));
            }
        }
    }

    #[test]
    fn a_trusted_prompt_is_the_counted_one() {
        for tokenizer in [Tokenizer::builtin(), from_json(WORD_LEVEL)] {
            let prompts = prompts(&tokenizer, 42, "f00d");
            assert_eq!(prompts.check_after(true), Check::Trust);
            assert_eq!(prompts.check_after(false), Check::Count);
            let mut cache = Cache::default();
            for length in (97..=128).chain([200]) {
                let [counted, trusted] = [Check::Count, Check::Trust]
                    .map(|check| prompts.prompt(1, length, &[1, 2, 3, 4], check, &mut cache).unwrap());
                assert_eq!(counted, trusted);
            }
        }
        assert_eq!(prompts(&from_json(UNSPLIT_BPE), 42, "f00d").check_after(true), Check::Count);
    }

    #[test]
    fn a_block_depends_on_seed_file_and_id_only() {
        let tokenizer = Tokenizer::builtin();
        let text = |seed, trace: &str, line, id| {
            prompts(&tokenizer, seed, trace).prompt(line, 32, &[id], Check::Count, &mut Cache::default()).unwrap().text
        };
        let first = text(1, "a", 1, 5);
        assert_eq!(first, text(1, "a", 99, 5));
        assert_ne!(first, text(2, "a", 1, 5));
        assert_ne!(first, text(1, "b", 1, 5));
        assert_ne!(first, text(1, "a", 1, 6));
    }

    #[test]
    fn blocks_that_do_not_fit_are_refused() {
        let prompts = prompts(&Tokenizer::builtin(), 1, "a");
        let mut cache = Cache::default();
        assert!(prompts.prompt(1, 33, &[1, 2], Check::Count, &mut cache).is_ok());
        let error = prompts.prompt(1, 32, &[1, 2], Check::Count, &mut cache).unwrap_err();
        assert!(error.0.contains("--isl-block-size"), "{error}");
    }

    #[test]
    fn the_cache_is_bounded_and_forgets_the_oldest() {
        let mut cache = Cache::default();
        let text: Arc<str> = "x".repeat(1 << 20).into();
        for id in 0..100 {
            cache.put((id, 1), text.clone());
            assert!((cache.young.len() + cache.old.len()) << 20 <= CACHE_BYTES);
        }
        assert!(cache.get((99, 1)).is_some() && cache.get((0, 1)).is_none());
    }
}
