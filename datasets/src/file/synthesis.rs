//! Trace synthesis: a recorded trace with longer or shorter prompts and prefixes, several trees of prefixes, other output
//! lengths, another pace.
//!
//! A request's prefix is the run of its leading block ids that occur more than once in the trace; the rest of its tokens
//! is its own prompt. Both are stretched apart from one another, as in the reference:
//!
//! - `--synthesis-prefix-len-multiplier` k ≥ 1: id h becomes the ids h·⌊k⌋ … h·⌊k⌋+⌊k⌋−1, and where k is no whole number
//!   ids of the request's own follow up to ⌈P·k⌉ blocks of its P. k < 1: the first max(1, ⌊P·k⌋) blocks stay.
//! - `--synthesis-prompt-len-multiplier`: ⌊tokens·k⌋ tokens in blocks of the request's own.
//! - `--synthesis-prefix-root-multiplier` r: each request moves to one of r trees; trees share nothing.

use std::collections::HashMap;

use crate::Error;
use crate::formats::draft::{Prompt, Step};
use crate::lengths::MAX_TOKENS;
use crate::seed::Stream;

/// What of a trace is changed, and by how much; 1 changes nothing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Synthesis {
    /// `--synthesis-speedup-ratio`: timestamps are divided by it.
    pub speedup: f64,
    /// `--synthesis-prefix-len-multiplier`.
    pub prefix: f64,
    /// `--synthesis-prompt-len-multiplier`.
    pub prompt: f64,
    /// `--synthesis-output-len-multiplier`.
    pub output: f64,
    /// `--synthesis-prefix-root-multiplier`.
    pub roots: u32,
}

impl Default for Synthesis {
    fn default() -> Self {
        Self { speedup: 1.0, prefix: 1.0, prompt: 1.0, output: 1.0, roots: 1 }
    }
}

impl Synthesis {
    fn flags(&self) -> [(&'static str, f64); 5] {
        [
            ("--synthesis-output-len-multiplier", self.output),
            ("--synthesis-speedup-ratio", self.speedup),
            ("--synthesis-prefix-len-multiplier", self.prefix),
            ("--synthesis-prompt-len-multiplier", self.prompt),
            ("--synthesis-prefix-root-multiplier", f64::from(self.roots)),
        ]
    }

    /// The flag of a value that changes something.
    pub(crate) fn given(&self) -> Option<&'static str> {
        self.flags().into_iter().find_map(|(flag, value)| (value != 1.0).then_some(flag))
    }

    /// The same, output lengths left aside.
    pub(crate) fn given_beside_output(&self) -> Option<&'static str> {
        Self { output: 1.0, ..*self }.given()
    }

    /// The same of what changes prompts.
    pub(crate) fn given_for_blocks(&self) -> Option<&'static str> {
        Self { output: 1.0, speedup: 1.0, ..*self }.given()
    }

    /// Whether ids and lengths of prompts change.
    pub(crate) fn changes_blocks(&self) -> bool {
        self.given_for_blocks().is_some()
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        match self.flags().into_iter().find(|(_, value)| !(value.is_finite() && *value > 0.0)) {
            Some((flag, value)) => Err(Error(format!("{flag} must be a number above 0, not {value}"))),
            None => Ok(()),
        }
    }
}

/// Block ids of a trace and how often each occurs.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Whether an id occurred more than once.
    several: HashMap<i128, bool>,
}

impl Shared {
    pub(crate) fn see(&mut self, ids: &[i128]) {
        for id in ids {
            self.several.entry(*id).and_modify(|several| *several = true).or_insert(false);
        }
    }

    fn has(&self, id: i128) -> bool {
        self.several.get(&id).copied().unwrap_or(false)
    }

    /// An id above all that are shared.
    fn above(&self) -> i128 {
        self.several
            .iter()
            .filter(|(_, several)| **several)
            .map(|(id, _)| *id)
            .max()
            .map_or(0, |id| id.saturating_add(1))
    }
}

/// Stretches the requests of one trace.
#[derive(Debug)]
pub(crate) struct Synthesizer {
    what: Synthesis,
    shared: Shared,
    block_size: u32,
    /// ⌊prefix multiplier⌋, at least 1.
    times: i128,
    /// The next id that nobody has.
    fresh: i128,
    /// Ids that a tree takes up.
    tree: i128,
    trees: Stream,
}

impl Synthesizer {
    pub(crate) fn new(what: Synthesis, shared: Shared, block_size: u32, seed: u64) -> Result<Self, Error> {
        let times = (what.prefix.floor() as i128).max(1);
        let fresh = shared.above().checked_mul(times).ok_or_else(too_far)?;
        // Every tree has room for the ids of the whole trace and for more of its own than any trace has.
        let tree = fresh.checked_add(1 << 40).ok_or_else(too_far)?;
        let trees = Stream::new(seed, "dataset.synthesis.synthesizer");
        Ok(Self { what, shared, block_size, times, fresh, tree, trees })
    }

    /// Stretches a request.
    pub(crate) fn apply(&mut self, step: &mut Step) -> Result<(), Error> {
        if !self.what.changes_blocks() {
            return Ok(());
        }
        let Prompt::Synthetic { length, hash_ids } = &mut step.prompt else {
            return Ok(());
        };
        let size = u64::from(self.block_size);
        let prefix = hash_ids.iter().take_while(|id| self.shared.has(**id)).count();
        // A last block that is only partly filled counts with what is in it.
        let prefix_tokens = (prefix as u64 * size).min(u64::from(*length));
        let own = u64::from(*length) - prefix_tokens;
        let (mut ids, mut tokens) = self.prefix(&hash_ids[..prefix], prefix_tokens)?;
        let own = (own as f64 * self.what.prompt) as u64;
        // Own blocks only follow whole blocks.
        if own > 0 {
            tokens = (ids.len() as u64 * size).saturating_add(own);
        }
        if tokens == 0 || tokens > u64::from(MAX_TOKENS) {
            return Err(Error(format!(
                "the --synthesis multipliers make a prompt of {tokens} tokens; it must have 1 to {MAX_TOKENS}"
            )));
        }
        for _ in 0..own.div_ceil(size) {
            ids.push(self.fresh()?);
        }
        if self.what.roots > 1 {
            let tree = i128::from(self.trees.below(u64::from(self.what.roots)));
            let shift = tree.checked_mul(self.tree).ok_or_else(too_far)?;
            for id in &mut ids {
                *id = id.checked_add(shift).ok_or_else(too_far)?;
            }
        }
        *length = tokens as u32;
        *hash_ids = ids;
        Ok(())
    }

    /// The ids and tokens that a prefix becomes.
    fn prefix(&mut self, ids: &[i128], tokens: u64) -> Result<(Vec<i128>, u64), Error> {
        let k = self.what.prefix;
        if ids.is_empty() || k == 1.0 {
            return Ok((ids.to_vec(), tokens));
        }
        let size = u64::from(self.block_size);
        if k < 1.0 {
            let kept = ((ids.len() as f64 * k) as usize).max(1);
            return Ok((ids[..kept].to_vec(), tokens.min(kept as u64 * size)));
        }
        let wanted = (ids.len() as f64 * k).ceil();
        if wanted * size as f64 > f64::from(MAX_TOKENS) {
            return Err(Error(format!(
                "--synthesis-prefix-len-multiplier {k} makes a prompt above {MAX_TOKENS} tokens"
            )));
        }
        let mut made = Vec::with_capacity(wanted as usize);
        for id in ids {
            let first = id.checked_mul(self.times).ok_or_else(too_far)?;
            for j in 0..self.times {
                made.push(first.checked_add(j).ok_or_else(too_far)?);
            }
        }
        while made.len() < wanted as usize {
            made.push(self.fresh()?);
        }
        let tokens = made.len() as u64 * size;
        Ok((made, tokens))
    }

    fn fresh(&mut self) -> Result<i128, Error> {
        let id = self.fresh;
        self.fresh = id.checked_add(1).ok_or_else(too_far)?;
        Ok(id)
    }
}

fn too_far() -> Error {
    Error("the `hash_ids` are too large for the --synthesis multipliers".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Turn;
    use crate::read::jsonl::Place;

    const SIZE: u32 = 16;

    fn step(length: u32, ids: &[i128]) -> Step {
        let prompt = Prompt::Synthetic { length, hash_ids: ids.to_vec() };
        Step { place: Place::Line(1), turn: Turn::default(), prompt }
    }

    /// Rows after synthesis, in order.
    fn made(what: Synthesis, rows: &[(u32, &[i128])]) -> Vec<(u32, Vec<i128>)> {
        let mut shared = Shared::default();
        rows.iter().for_each(|(_, ids)| shared.see(ids));
        let mut synthesizer = Synthesizer::new(what, shared, SIZE, 1).unwrap();
        let mut result = Vec::new();
        for (length, ids) in rows {
            let mut step = step(*length, ids);
            synthesizer.apply(&mut step).unwrap();
            if let Prompt::Synthetic { length, hash_ids } = step.prompt {
                result.push((length, hash_ids));
            }
        }
        result
    }

    const ROWS: [(u32, &[i128]); 2] = [(40, &[1, 2, 3]), (50, &[1, 2, 4, 5])];

    #[test]
    fn nothing_asked_changes_nothing() {
        let same: Vec<_> = ROWS.iter().map(|(length, ids)| (*length, ids.to_vec())).collect();
        assert_eq!(made(Synthesis { output: 2.0, speedup: 3.0, ..Synthesis::default() }, &ROWS), same);
    }

    #[test]
    fn prefixes_stretch_and_stay_shared() {
        let twice = made(Synthesis { prefix: 2.5, ..Synthesis::default() }, &ROWS);
        // Prefix of 2 blocks becomes 5: ids 2 3 4 5 shared, one of the row's own, then the prompts of 8 and 18 tokens.
        assert_eq!(twice[0], (5 * SIZE + 8, vec![2, 3, 4, 5, 6, 7]));
        assert_eq!(twice[1], (5 * SIZE + 18, vec![2, 3, 4, 5, 8, 9, 10]));
        let half = made(Synthesis { prefix: 0.5, ..Synthesis::default() }, &ROWS);
        assert_eq!(half[0], (SIZE + 8, vec![1, 3]));
        assert_eq!(half[1].1.len(), 3);
    }

    #[test]
    fn prompts_stretch_with_blocks_of_their_own() {
        let made = made(Synthesis { prompt: 3.0, ..Synthesis::default() }, &ROWS);
        assert_eq!(made[0], (2 * SIZE + 24, vec![1, 2, 3, 4]));
        assert_eq!(made[1], (2 * SIZE + 54, vec![1, 2, 5, 6, 7, 8]));
    }

    #[test]
    fn trees_share_nothing() {
        let rows = [ROWS[0]; 50];
        let made = made(Synthesis { roots: 4, ..Synthesis::default() }, &rows);
        let mut heads: Vec<i128> = made.iter().map(|(_, ids)| ids[0]).collect();
        heads.sort_unstable();
        heads.dedup();
        assert_eq!(heads.len(), 4);
    }

    #[test]
    fn what_cannot_be_made_is_refused() {
        let refused = |what: Synthesis| what.check().unwrap_err().0;
        assert!(refused(Synthesis { prefix: 0.0, ..Synthesis::default() }).starts_with("--synthesis-prefix-len"));
        assert!(refused(Synthesis { speedup: f64::NAN, ..Synthesis::default() }).starts_with("--synthesis-speedup"));
        let mut synthesizer =
            Synthesizer::new(Synthesis { prompt: 1e9, ..Synthesis::default() }, Shared::default(), SIZE, 1).unwrap();
        assert!(synthesizer.apply(&mut step(4000, &[])).unwrap_err().0.contains("16777216"));
        let nothing = Synthesis { prompt: 1e-9, ..Synthesis::default() };
        let mut synthesizer = Synthesizer::new(nothing, Shared::default(), SIZE, 1).unwrap();
        assert!(synthesizer.apply(&mut step(5, &[])).is_err());
        let mut shared = Shared::default();
        shared.see(&[i128::MAX, i128::MAX]);
        assert!(Synthesizer::new(Synthesis { prefix: 3.0, ..Synthesis::default() }, shared, SIZE, 1).is_err());
    }
}
