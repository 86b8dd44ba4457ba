//! What generated requests look like: conversations, lengths, prompts, prefixes, rankings.

use crate::values::{CacheBust, Lengths, Source, Style, choice, count, count32, deviation, length, single, whole32};
use clap::Args;
use std::path::PathBuf;

/// What generated prompts look like.
#[derive(Debug, Clone, PartialEq, Args)]
pub(crate) struct Prompts {
    /// Distinct conversations to generate; they are sent in turn [default: the request count, else 100]
    #[arg(help_heading = "Conversation Input", long = "num-dataset-entries", visible_alias = "num-prompts", value_name = "N", value_parser = count)]
    pub(crate) entries: Option<u64>,

    /// Mean number of turns in a generated conversation [default: 1]
    #[arg(help_heading = "Conversation Input", long = "conversation-turn-mean", visible_alias = "session-turns-mean", value_name = "N", value_parser = single(count32))]
    pub(crate) turns: Option<u32>,

    /// Standard deviation of that [default: 0]
    #[arg(help_heading = "Conversation Input", long = "conversation-turn-stddev", visible_alias = "session-turns-stddev", value_name = "N", value_parser = single(deviation))]
    pub(crate) turns_stddev: Option<f64>,

    /// Mean wait between an answer and the next turn, milliseconds [default: 0]
    #[arg(help_heading = "Conversation Input", long = "conversation-turn-delay-mean", visible_alias = "session-turn-delay-mean", value_name = "MS", value_parser = single(deviation))]
    pub(crate) delay: Option<f64>,

    /// Standard deviation of that, milliseconds [default: 0]
    #[arg(help_heading = "Conversation Input", long = "conversation-turn-delay-stddev", visible_alias = "session-turn-delay-stddev", value_name = "MS", value_parser = single(deviation))]
    pub(crate) delay_stddev: Option<f64>,

    /// Factor of all generated waits [default: 1]
    #[arg(help_heading = "Conversation Input", long = "conversation-turn-delay-ratio", visible_alias = "session-delay-ratio", value_name = "FACTOR", value_parser = single(deviation))]
    pub(crate) delay_ratio: Option<f64>,

    /// Tokens of a generated prompt: their mean, or a distribution as a JSON object, {"mean": 512, "median": 300} for a
    /// lognormal one, {"min": 1, "max": 9}, {"points": [{"value": 64, "weight": 2}]}, {"peaks": [{"mean": 64}]} [default: 550]
    #[arg(help_heading = "Input Sequence Length (ISL)", long = "isl", visible_aliases = ["prompt-input-tokens-mean", "synthetic-input-tokens-mean"], value_name = "TOKENS", value_parser = single(length))]
    pub(crate) isl: Option<Lengths>,

    /// Standard deviation of that, tokens [default: 0]
    #[arg(help_heading = "Input Sequence Length (ISL)", long = "isl-stddev", visible_aliases = ["prompt-input-tokens-stddev", "synthetic-input-tokens-stddev"], value_name = "TOKENS", value_parser = single(deviation))]
    pub(crate) isl_stddev: Option<f64>,

    /// Tokens that one hash id of a trace stands for [default: 512]
    #[arg(help_heading = "Input Sequence Length (ISL)", long = "isl-block-size", visible_aliases = ["prompt-input-tokens-block-size", "synthetic-input-tokens-block-size"], value_name = "TOKENS", value_parser = count32)]
    pub(crate) block_size: Option<u32>,

    /// Pairs of lengths and how many per cent of the turns have each: `256|10,128|5:60;512,256:40`, with standard
    /// deviations after the bars, or as JSON
    #[arg(
        help_heading = "Input Sequence Length (ISL)",
        long = "seq-dist",
        visible_alias = "sequence-distribution",
        value_name = "PAIRS"
    )]
    pub(crate) seq_dist: Option<String>,

    /// Draw --isl and --osl evenly from a window whose width is this share of them; {"input": 0.1, "output": 0.5} for two
    #[arg(help_heading = "Input Sequence Length (ISL)", long = "random-range-ratio", value_name = "RATIO")]
    pub(crate) range_ratio: Option<String>,

    /// Whose window that is: vllm (around the length), sglang (below it) [default: vllm]
    #[arg(help_heading = "Input Sequence Length (ISL)", long = "random-corpus-style", value_name = "STYLE", value_parser = choice::<Style>)]
    pub(crate) range_style: Option<Style>,

    /// Tokens to ask for in an answer: their mean, or a distribution as for --isl [default: the server's choice]
    #[arg(help_heading = "Output Sequence Length (OSL)", long = "osl", visible_aliases = ["prompt-output-tokens-mean", "output-tokens-mean"], value_name = "TOKENS", value_parser = single(length))]
    pub(crate) osl: Option<Lengths>,

    /// Standard deviation of that, tokens [default: 0]
    #[arg(help_heading = "Output Sequence Length (OSL)", long = "osl-stddev", visible_aliases = ["prompt-output-tokens-stddev", "output-tokens-stddev"], value_name = "TOKENS", value_parser = single(deviation))]
    pub(crate) osl_stddev: Option<f64>,

    /// Texts of a request, each with a length of its own; with random_pool, texts drawn for a request, 0 for none
    /// [default: 1]
    #[arg(help_heading = "Prompt", short = 'b', long = "batch-size-text", visible_aliases = ["prompt-batch-size", "batch-size"], value_name = "N", value_parser = whole32)]
    pub(crate) batch: Option<u32>,

    /// What prompts are made of, those of traces that give lengths too: sonnet, coding, random (tokens by lot, not for
    /// traces) [default: sonnet]
    #[arg(help_heading = "Prompt", long = "prompt-corpus", value_name = "CORPUS", value_parser = choice::<Source>)]
    pub(crate) corpus: Option<Source>,

    /// System prompt of every request, before the dataset's own
    #[arg(help_heading = "Prefix Prompt", long, value_name = "TEXT")]
    pub(crate) system_prompt: Option<String>,

    /// File with that system prompt
    #[arg(help_heading = "Prefix Prompt", long, value_name = "FILE")]
    pub(crate) system_prompt_file: Option<PathBuf>,

    /// Distinct prefixes, one of which begins the first turn of each conversation [default: none]
    #[arg(help_heading = "Prefix Prompt", long = "num-prefix-prompts", visible_aliases = ["prompt-prefix-pool-size", "prefix-prompt-pool-size"], value_name = "N", value_parser = single(count32))]
    pub(crate) prefixes: Option<u32>,

    /// Tokens of each prefix, on top of --isl
    #[arg(help_heading = "Prefix Prompt", long = "prefix-prompt-length", visible_alias = "prompt-prefix-length", value_name = "TOKENS", value_parser = single(count32))]
    pub(crate) prefix_length: Option<u32>,

    /// Tokens of a generated system prompt that all conversations share, on top of --isl
    #[arg(help_heading = "Prefix Prompt", long = "shared-system-prompt-length", value_name = "TOKENS", value_parser = single(count32))]
    pub(crate) shared_system: Option<u32>,

    /// Tokens of a generated user message of its own at the head of each conversation, on top of --isl
    #[arg(help_heading = "Prefix Prompt", long = "user-context-prompt-length", value_name = "TOKENS", value_parser = single(count32))]
    pub(crate) user_context: Option<u32>,

    /// Where a marker goes that differs each time a conversation is sent, so that no cache has it: none, system-prefix,
    /// system-suffix, first-turn-prefix, first-turn-suffix. With warmup-isolation-system or warmup-isolation-first-turn one
    /// and the same marker goes before that text in the warmup alone, whose prompts the measurement then does not meet in a
    /// cache. Generated texts are so much shorter that the length asked for holds [default: none]
    #[arg(help_heading = "Cache Bust", long, value_name = "WHERE", value_parser = choice::<CacheBust>)]
    pub(crate) cache_bust: Option<CacheBust>,

    /// Mean passages of a generated ranking request [default: 10]
    #[arg(help_heading = "Rankings", long = "rankings-passages-mean", value_name = "N", value_parser = single(count32))]
    pub(crate) passages: Option<u32>,

    /// Standard deviation of that [default: 0]
    #[arg(help_heading = "Rankings", long = "rankings-passages-stddev", value_name = "N", value_parser = single(deviation))]
    pub(crate) passages_stddev: Option<f64>,

    /// Mean tokens of a passage [default: 128]
    #[arg(help_heading = "Rankings", long = "rankings-passages-prompt-token-mean", value_name = "TOKENS", value_parser = single(count32))]
    pub(crate) passage_tokens: Option<u32>,

    /// Standard deviation of that [default: 0]
    #[arg(help_heading = "Rankings", long = "rankings-passages-prompt-token-stddev", value_name = "TOKENS", value_parser = single(deviation))]
    pub(crate) passage_tokens_stddev: Option<f64>,

    /// Mean tokens of a query [default: 32]
    #[arg(help_heading = "Rankings", long = "rankings-query-prompt-token-mean", value_name = "TOKENS", value_parser = single(count32))]
    pub(crate) query_tokens: Option<u32>,

    /// Standard deviation of that [default: 0]
    #[arg(help_heading = "Rankings", long = "rankings-query-prompt-token-stddev", value_name = "TOKENS", value_parser = single(deviation))]
    pub(crate) query_tokens_stddev: Option<f64>,

    /// Leave out a trace's requests with longer prompts, tokens
    #[arg(help_heading = "Synthesis", long = "synthesis-max-isl", value_name = "TOKENS", value_parser = count32)]
    pub(crate) max_isl: Option<u32>,

    /// Cap the answers' lengths in a trace, tokens
    #[arg(help_heading = "Synthesis", long = "synthesis-max-osl", value_name = "TOKENS", value_parser = count32)]
    pub(crate) max_osl: Option<u32>,
}
