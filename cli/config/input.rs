//! What is sent.

use super::Endpoint;
use super::replay::ScheduleWindow;
use super::synthetic::{Length, Synthetic, osl, refuse_beside_a_file};
use crate::args;
use crate::refusal::Refusal;
use crate::values::Format;
use maser_datasets::file;
use maser_datasets::public;
use maser_datasets::texts::Source;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What is sent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Input {
    /// Generated prompts.
    Synthetic(Box<Synthetic>),
    /// A file.
    File {
        /// As typed.
        path: PathBuf,
        /// As typed; none is told by the first line.
        format: Option<Format>,
        /// Entries as the reference would note them; they do not limit the rows.
        entries: Option<u64>,
        /// Tokens to ask for where a row says nothing.
        osl: Option<Length>,
        /// Tokens that a hash id stands for, if given.
        block_size: Option<u32>,
        /// Rows with longer prompts are left out.
        max_isl: Option<u32>,
        /// Longer answers are cut to this.
        max_osl: Option<u32>,
        /// How it is changed before it is replayed.
        trace: Box<Trace>,
    },
}

impl Input {
    /// Resolves what the options say of the input.
    pub(super) fn resolve(args: &args::Profile, endpoint: &Endpoint, notes: &mut Vec<String>) -> Result<Self, Refusal> {
        if !filters(&args.input.dataset_filters)?.is_empty() && args.input.public_dataset.is_none() {
            return Err(Refusal::new("--dataset-filter goes with a public dataset; add --public-dataset"));
        }
        match (&args.input.input_file, &args.input.public_dataset) {
            (Some(path), _) => from_file(args, path, args.input.format, osl(&args.prompts, notes)?, notes),
            (None, Some(name)) => {
                let found = public::find(name, args.input.hf_subset.as_deref()).map_err(|e| Refusal::new(e.0))?;
                from_file(args, &found.path, Some(found.format), osl(&args.prompts, notes)?, notes)
            }
            (None, None) => {
                let strip = args.endpoint.uuid_and_strip.then_some("--uuid-and-strip");
                if let Some(flag) = Trace::given(&args.trace).or(strip) {
                    return Err(Refusal::new(format!("{flag} goes with a file; add --input-file")));
                }
                Synthetic::resolve(args, endpoint, notes).map(|made| Self::Synthetic(Box::new(made)))
            }
        }
    }

    /// Checks the options that only some formats have.
    pub(super) fn settle(&self, format: Format) -> Result<(), Refusal> {
        match self.file_options(&ScheduleWindow::default(), 0) {
            Some(options) => options.check(format).map_err(|e| Refusal::new(e.0)),
            None => Ok(()),
        }
    }

    /// What the file's reader is told, if there is a file.
    pub(crate) fn file_options(&self, window: &ScheduleWindow, seed: u64) -> Option<file::Options> {
        let Self::File { path, format, entries, osl, block_size, max_isl, max_osl, trace } = self else {
            return None;
        };
        Some(file::Options {
            path: path.clone(),
            format: *format,
            start_offset_ns: window.start_ns,
            end_offset_ns: window.end_ns,
            synthesis_max_isl: *max_isl,
            synthesis_max_osl: *max_osl,
            synthesis: trace.synthesis,
            isl_block_size: *block_size,
            osl: osl.as_ref().map(|osl| osl.lengths.clone()),
            inter_turn_delay_cap_ns: None,
            ignore_trace_delays: trace.ignore_delays,
            replay: trace.replay.clone(),
            entries: *entries,
            batch: trace.batch,
            filters: trace.filters.clone(),
            corpus: trace.corpus,
            uuid_and_strip: trace.uuid_and_strip,
            seed,
        })
    }
}

/// How a file becomes requests, beside what its rows say.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Trace {
    /// The `--synthesis` multipliers.
    pub(crate) synthesis: file::Synthesis,
    /// No turn waits.
    pub(crate) ignore_delays: bool,
    /// Where finished request bodies are kept.
    pub(crate) cache: Option<PathBuf>,
    /// Bytes that may be kept there.
    pub(crate) cache_size: u64,
    /// What only a `baseten_trace` has.
    pub(crate) replay: file::Replay,
    /// Rows of a public dataset that are taken.
    pub(crate) filters: BTreeMap<String, String>,
    /// Contents of each medium in a request of a `random_pool`.
    pub(crate) batch: file::Batch,
    /// What prompts are made of where rows give lengths.
    pub(crate) corpus: Option<Source>,
    /// An image that the session has sent before is sent as its key alone.
    pub(crate) uuid_and_strip: bool,
}

/// Bytes that `--dataset-cache` may take where nothing is said.
const CACHE_SIZE: u64 = 20_000_000_000;

impl Trace {
    /// Fills in what was not given.
    pub(crate) fn resolve(typed: &args::Trace) -> Self {
        let switch = |on: bool, off: bool| (on || off).then_some(on);
        Self {
            synthesis: file::Synthesis {
                speedup: typed.speedup_ratio.unwrap_or(1.0),
                prefix: typed.prefix_multiplier.unwrap_or(1.0),
                prompt: typed.prompt_multiplier.unwrap_or(1.0),
                output: typed.output_multiplier.unwrap_or(1.0),
                roots: typed.root_multiplier.unwrap_or(1),
            },
            ignore_delays: typed.ignore_trace_delays,
            cache: typed.dataset_cache.clone(),
            cache_size: typed.dataset_cache_size.unwrap_or(CACHE_SIZE),
            replay: file::Replay {
                session_sample_ratio: typed.session_sample_ratio,
                omit_kv_hints: typed.omit_kv_hints,
                force_min_tokens: switch(typed.force_min_tokens, typed.no_force_min_tokens),
                ..file::Replay::default()
            },
            ..Self::default()
        }
    }

    /// The first option of the group that was given: all of them need a file.
    fn given(typed: &args::Trace) -> Option<&'static str> {
        [
            ("--ignore-trace-delays", typed.ignore_trace_delays),
            ("--dataset-cache", typed.dataset_cache.is_some()),
            ("--dataset-cache-size", typed.dataset_cache_size.is_some()),
            ("--trace-session-sample-ratio", typed.session_sample_ratio.is_some()),
            ("--omit-kv-hints", typed.omit_kv_hints),
            ("--force-min-tokens", typed.force_min_tokens),
            ("--no-force-min-tokens", typed.no_force_min_tokens),
            ("--synthesis-speedup-ratio", typed.speedup_ratio.is_some()),
            ("--synthesis-prefix-len-multiplier", typed.prefix_multiplier.is_some()),
            ("--synthesis-prefix-root-multiplier", typed.root_multiplier.is_some()),
            ("--synthesis-prompt-len-multiplier", typed.prompt_multiplier.is_some()),
            ("--synthesis-output-len-multiplier", typed.output_multiplier.is_some()),
        ]
        .into_iter()
        .find_map(|(flag, given)| given.then_some(flag))
    }
}

/// `--dataset-filter` by names, each once.
fn filters(typed: &[String]) -> Result<BTreeMap<String, String>, Refusal> {
    let mut filters = BTreeMap::new();
    for item in typed {
        let pair = item.split_once('=').map(|(name, value)| (name.trim(), value.trim()));
        let Some((name, value)) = pair.filter(|(name, value)| !name.is_empty() && !value.is_empty()) else {
            return Err(Refusal::new(format!("--dataset-filter {item}: expected name=value")));
        };
        if filters.insert(name.to_owned(), value.to_owned()).is_some() {
            return Err(Refusal::new(format!("--dataset-filter {item}: {name} is given twice")));
        }
    }
    Ok(filters)
}

fn from_file(
    args: &args::Profile,
    path: &Path,
    format: Option<Format>,
    osl: Option<Length>,
    notes: &mut Vec<String>,
) -> Result<Input, Refusal> {
    let typed = &args.prompts;
    refuse_beside_a_file(args)?;
    let wrong = |why: &str| Refusal::new(format!("--input-file {}: {why}", path.display()));
    match std::fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(wrong("no such file")),
        Err(e) => return Err(wrong(&e.to_string())),
        Ok(_) => {}
    }
    if typed.entries.is_some() && format.is_none_or(|format| !format.takes_entries()) {
        notes.push(
            "--num-dataset-entries has no effect with --input-file, except random_pool: all its rows are used".into(),
        );
    }
    let input = Input::File {
        path: path.into(),
        format,
        entries: typed.entries.or(args.load.num_conversations).or(args.load.request_count),
        osl,
        block_size: typed.block_size,
        max_isl: typed.max_isl,
        max_osl: typed.max_osl,
        trace: Box::new(Trace {
            batch: file::Batch {
                texts: typed.batch,
                images: args.media.images.image_batch,
                audios: args.media.audio.audio_batch,
                videos: args.media.video.video_batch,
            },
            filters: filters(&args.input.dataset_filters)?,
            corpus: typed.corpus,
            uuid_and_strip: args.endpoint.uuid_and_strip,
            ..Trace::resolve(&args.trace)
        }),
    };
    if let Some(format) = format {
        input.settle(format)?;
    }
    Ok(input)
}
