//! `maser dataset` and `maser analyze-trace` as typed.

use super::Trace;
use crate::values::{Format, count32, format, whole};
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// What is done with a dataset.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Dataset {
    /// Print what a dataset is like: requests, arrivals, lengths, sessions, shared prefixes
    Stats(Stats),
    /// Print lengths, shared prefixes and the hit rate of a cache without limits, as AIPerf does
    AnalyzeTrace(Analyze),
    /// Write a trace anew as a mooncake_trace, filtered and stretched
    Synthesize(Box<Synthesize>),
    /// Make a dataset ready once, for --input-file to open at once: prompts made, tokens counted, media encoded
    Compile(Box<Compile>),
    /// List the public datasets that --public-dataset knows
    List,
}

/// The dataset that is looked at.
#[derive(Debug, Clone, Args)]
pub(crate) struct Source {
    /// The dataset: a file or a directory
    #[arg(value_name = "FILE")]
    pub(crate) path: PathBuf,

    /// Its format [default: told by its first row]
    #[arg(long = "custom-dataset-type", value_name = "FORMAT", value_parser = format)]
    pub(crate) format: Option<Format>,
}

/// `maser dataset stats`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Stats {
    #[command(flatten)]
    pub(crate) source: Source,

    /// Tokens that one hash id stands for [default: 512, 16 for bailian_trace]
    #[arg(long = "isl-block-size", visible_alias = "block-size", value_name = "TOKENS", value_parser = count32)]
    pub(crate) block_size: Option<u32>,

    /// What given texts are counted with: `builtin`, or the path of a tokenizer.json [default: builtin]
    #[arg(long, value_name = "NAME")]
    pub(crate) tokenizer: Option<String>,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `maser analyze-trace`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Analyze {
    #[command(flatten)]
    pub(crate) source: Source,

    /// Tokens that one hash id stands for [default: 512, 16 for bailian_trace]
    #[arg(long = "block-size", visible_alias = "isl-block-size", value_name = "TOKENS", value_parser = count32)]
    pub(crate) block_size: Option<u32>,

    /// Write the figures to a JSON file too
    #[arg(long, value_name = "FILE")]
    pub(crate) output_file: Option<PathBuf>,
}

/// `maser dataset synthesize`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Synthesize {
    #[command(flatten)]
    pub(crate) source: Source,

    /// The file to write
    #[arg(value_name = "OUT")]
    pub(crate) out: PathBuf,

    #[command(flatten)]
    pub(crate) trace: Trace,

    /// Leave out requests with longer prompts, tokens
    #[arg(help_heading = "Synthesis", long = "synthesis-max-isl", value_name = "TOKENS", value_parser = count32)]
    pub(crate) max_isl: Option<u32>,

    /// Cap the answers' lengths, tokens
    #[arg(help_heading = "Synthesis", long = "synthesis-max-osl", value_name = "TOKENS", value_parser = count32)]
    pub(crate) max_osl: Option<u32>,

    /// Tokens that one hash id stands for [default: 512, 16 for bailian_trace]
    #[arg(long = "isl-block-size", visible_alias = "block-size", value_name = "TOKENS", value_parser = count32)]
    pub(crate) block_size: Option<u32>,

    /// Seed of everything random [default: 0]
    #[arg(long, value_name = "N", value_parser = whole)]
    pub(crate) random_seed: Option<u64>,
}

/// `maser dataset compile`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Compile {
    #[command(flatten)]
    pub(crate) synthesize: Synthesize,

    /// What tokens are made and counted with: `builtin`, or the path of a tokenizer.json [default: builtin]
    #[arg(long, value_name = "NAME")]
    pub(crate) tokenizer: Option<String>,

    /// Count requests as the tokenizer's chat template writes them: for runs with that flag
    #[arg(long)]
    pub(crate) apply_chat_template: bool,

    /// Options of `maser profile`, as one text: the request bodies of runs with them are made too, so that these begin at
    /// once. They lie in OUT.bodies, where runs with other options then keep theirs as well
    #[arg(long = "for", value_name = "OPTIONS", allow_hyphen_values = true)]
    pub(crate) run: Option<String>,
}
