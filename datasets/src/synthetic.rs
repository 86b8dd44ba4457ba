//! Generated conversations of one turn, whose prompts have exactly the tokens asked for.

use crate::corpus::Corpus;
use crate::lengths::Lengths;
use crate::parallel;
use crate::seed::Stream;
use crate::tokens::Tokenizer;
use crate::{Conversation, Error, Sink, Summary, Turn};

/// Conversations where no flag says how many.
pub const DEFAULT_ENTRIES: u64 = 100;

/// The mean of `--isl` where it is not given, in tokens.
pub const DEFAULT_ISL: u32 = 550;

/// What to generate.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Conversations to make, see [`entries`].
    pub entries: u64,
    /// `--isl` and `--isl-stddev`: tokens of a prompt.
    pub isl: Lengths,
    /// `--osl` and `--osl-stddev`: the requested output length; none leaves the field out of the request.
    pub osl: Option<Lengths>,
    /// The run's root seed. A run without `--random-seed` draws one and reports it, so that it too can be repeated.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { entries: DEFAULT_ENTRIES, isl: Lengths::fixed(DEFAULT_ISL), osl: None, seed: 0 }
    }
}

/// How many conversations to make: `--num-dataset-entries`, else the largest `--num-conversations`, else the largest
/// `--request-count`, else 100.
pub fn entries(num_dataset_entries: Option<u64>, num_conversations: Option<u64>, request_count: Option<u64>) -> u64 {
    num_dataset_entries.or(num_conversations).or(request_count).unwrap_or(DEFAULT_ENTRIES)
}

/// Prompts made at a time: bounds what stands in memory beside the sink's own.
const BATCH_TOKENS: u64 = 1 << 20;

impl Options {
    /// Generates the conversations `session_000000`, `session_000001` and so on (with or without a given seed) in order.
    ///
    /// Lengths come from the stream `dataset.prompt.length`, the texts from `dataset.prompt.corpus` (one draw for each
    /// prompt, the key of a stream of its own), output lengths from `composer.turn.max_tokens`. The target length is
    /// that of the text: tokens that a server adds around it are not subtracted.
    pub(crate) fn build(&self, tokenizer: Option<&Tokenizer>, sink: Sink<'_>) -> Result<Summary, Error> {
        self.isl.check("--isl")?;
        if let Some(osl) = &self.osl {
            osl.check("--osl")?;
        }
        if self.entries == 0 {
            return Err(Error("--num-dataset-entries must be at least 1".into()));
        }
        let tokenizer =
            tokenizer.ok_or_else(|| Error("synthetic prompts need a tokenizer; give --tokenizer".into()))?;
        let corpus = Corpus::new(tokenizer);
        let mut workers = parallel::workers(|| ());
        let mut plans = self.plans();
        let mut summary = Summary { kind: "synthetic", ..Summary::default() };
        loop {
            let (mut batch, mut weight) = (Vec::new(), 0);
            while weight < BATCH_TOKENS
                && let Some(plan) = plans.next()
            {
                weight += u64::from(plan.isl);
                batch.push(plan);
            }
            if batch.is_empty() {
                return Ok(summary);
            }
            for conversation in parallel::map(&mut workers, batch, |(), plan| plan.carry_out(&corpus)) {
                summary.conversations += 1;
                summary.requests += 1;
                sink(conversation?)?;
            }
        }
    }

    fn plans(&self) -> impl Iterator<Item = Plan> {
        let mut lengths = Stream::new(self.seed, "dataset.prompt.length");
        let mut texts = Stream::new(self.seed, "dataset.prompt.corpus");
        let mut outputs = Stream::new(self.seed, "composer.turn.max_tokens");
        let (isl, osl) = (self.isl, self.osl);
        (0..self.entries).map(move |index| Plan {
            index,
            isl: isl.draw(&mut lengths),
            osl: osl.map(|osl| osl.draw(&mut outputs)),
            key: texts.bits(),
        })
    }
}

/// All the randomness of one conversation, drawn in order; the work that follows needs no order.
struct Plan {
    index: u64,
    isl: u32,
    osl: Option<u32>,
    key: u64,
}

impl Plan {
    fn carry_out(&self, corpus: &Corpus) -> Result<Conversation, Error> {
        let prompt = corpus.text(self.isl, &mut Stream::new(self.key, "prompt"))?;
        Ok(Conversation {
            session_id: format!("session_{:06}", self.index),
            turns: vec![Turn { max_tokens: self.osl, input_tokens: Some(prompt.tokens), ..Turn::of_text(prompt.text) }],
            ..Conversation::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Spec;
    use crate::tokens::tests::{UNSPLIT_BPE, from_json};
    use proptest::prelude::*;

    fn build(options: &Options, tokenizer: &Tokenizer) -> Vec<Conversation> {
        let mut all = Vec::new();
        let summary = Spec::Synthetic(options.clone())
            .build(Some(tokenizer), &mut |conversation| {
                all.push(conversation);
                Ok(())
            })
            .unwrap();
        assert_eq!((summary.kind, summary.is_trace), ("synthetic", false));
        assert_eq!(summary.conversations, all.len() as u64);
        all
    }

    #[test]
    fn defaults_are_100_prompts_of_550_tokens() {
        let t = Tokenizer::builtin();
        let all = build(&Options::default(), &t);
        assert_eq!(all.len(), 100);
        assert_eq!((all[0].session_id.as_str(), all[99].session_id.as_str()), ("session_000000", "session_000099"));
        for conversation in &all {
            assert_eq!(t.count(conversation.turns[0].all_texts().next().unwrap()), 550);
            assert_eq!(conversation.turns[0].input_tokens, Some(550));
            assert_eq!(conversation.turns[0].max_tokens, None);
        }
    }

    #[test]
    fn a_longer_dataset_starts_with_the_shorter_one() {
        let t = Tokenizer::builtin();
        let options = |entries| Options {
            entries,
            isl: Lengths { mean: 40.0, stddev: 10.0 },
            osl: Some(Lengths { mean: 30.0, stddev: 5.0 }),
            seed: 42,
        };
        let (short, long) = (build(&options(7), &t), build(&options(40), &t));
        assert_eq!(short[..], long[..7]);
        assert_ne!(short, build(&Options { seed: 43, ..options(7) }, &t));
    }

    #[test]
    fn the_number_of_entries_has_an_order_of_precedence() {
        assert_eq!(entries(Some(3), Some(4), Some(5)), 3);
        assert_eq!(entries(None, Some(4), Some(5)), 4);
        assert_eq!(entries(None, None, Some(5)), 5);
        assert_eq!(entries(None, None, None), 100);
    }

    #[test]
    fn a_sink_that_fails_stops_the_build() {
        let mut seen = 0;
        let result = Spec::Synthetic(Options::default()).build(Some(&Tokenizer::builtin()), &mut |_| {
            seen += 1;
            if seen == 3 { Err(Error("full".into())) } else { Ok(()) }
        });
        assert_eq!((result.unwrap_err().0.as_str(), seen), ("full", 3));
    }

    #[test]
    fn without_a_tokenizer_nothing_is_made() {
        let result = Spec::Synthetic(Options::default()).build(None, &mut |_| Ok(()));
        assert!(result.unwrap_err().0.contains("--tokenizer"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn counts_are_the_drawn_lengths(mean in 1u32..400, stddev in 0f64..50.0, seed: u64) {
            let options = Options { entries: 5, isl: Lengths { mean: f64::from(mean), stddev }, osl: None, seed };
            for t in [Tokenizer::builtin(), from_json(UNSPLIT_BPE)] {
                for conversation in build(&options, &t) {
                    let turn = &conversation.turns[0];
                    prop_assert_eq!(Some(t.count(turn.all_texts().next().unwrap()) as u32), turn.input_tokens);
                    if stddev == 0.0 {
                        prop_assert_eq!(turn.input_tokens, Some(mean));
                    }
                }
            }
        }
    }
}
