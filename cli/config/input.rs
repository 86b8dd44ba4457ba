//! What is sent, and what tokens are made and counted with.

use super::replay::ScheduleWindow;
use crate::args;
use crate::refusal::Refusal;
use crate::values::Format;
use maser_datasets::file;
use maser_datasets::lengths::Lengths;
use maser_datasets::public;
use std::path::{Path, PathBuf};

/// Prompts to generate where nothing says how many.
const ENTRIES: u64 = 100;

/// The reference's mean prompt length, tokens.
const ISL: u32 = 550;

/// A length in tokens, normally distributed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Length {
    /// Mean, tokens.
    pub(crate) mean: u32,
    /// Standard deviation, tokens, if given; none is 0. The reference cuts it to a whole number.
    pub(crate) stddev: Option<f64>,
}

/// What is sent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Input {
    /// Generated prompts.
    Synthetic {
        /// Distinct prompts.
        entries: u64,
        /// Whether an option said how many.
        entries_given: bool,
        /// Tokens of a prompt.
        isl: Length,
        /// Tokens to ask for; none leaves it to the server.
        osl: Option<Length>,
        /// Tokens per block, if given.
        block_size: Option<u32>,
    },
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
    pub(super) fn resolve(args: &args::Profile, notes: &mut Vec<String>) -> Result<Self, Refusal> {
        let osl = osl(&args.prompts, notes)?;
        match (&args.input.input_file, &args.input.public_dataset) {
            (Some(path), _) => from_file(args, path, args.input.format, osl, notes),
            (None, Some(name)) => {
                let found = public::find(name, args.input.hf_subset.as_deref()).map_err(|e| Refusal::new(e.0))?;
                from_file(args, &found.path, Some(found.format), osl, notes)
            }
            (None, None) => synthetic(args, osl),
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
            osl: osl.as_ref().map(Length::lengths),
            inter_turn_delay_cap_ns: None,
            ignore_trace_delays: trace.ignore_delays,
            replay: trace.replay.clone(),
            entries: *entries,
            batch: file::Batch::default(),
            cache: trace.cache.clone(),
            seed,
        })
    }
}

impl Length {
    /// As the generators take it.
    pub(crate) fn lengths(&self) -> Lengths {
        Lengths { mean: f64::from(self.mean), stddev: self.stddev.unwrap_or(0.0) }
    }
}

/// How a trace is changed before it is replayed.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Trace {
    /// The `--synthesis` multipliers.
    pub(crate) synthesis: file::Synthesis,
    /// No turn waits.
    pub(crate) ignore_delays: bool,
    /// Where finished datasets are kept.
    pub(crate) cache: Option<PathBuf>,
    /// What only a `baseten_trace` has.
    pub(crate) replay: file::Replay,
}

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
            replay: file::Replay {
                session_sample_ratio: typed.session_sample_ratio,
                omit_kv_hints: typed.omit_kv_hints,
                force_min_tokens: switch(typed.force_min_tokens, typed.no_force_min_tokens),
                ..file::Replay::default()
            },
        }
    }

    /// The first option of the group that was given: all of them need a file.
    fn given(typed: &args::Trace) -> Option<&'static str> {
        [
            ("--ignore-trace-delays", typed.ignore_trace_delays),
            ("--dataset-cache", typed.dataset_cache.is_some()),
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

fn osl(typed: &args::Prompts, notes: &mut Vec<String>) -> Result<Option<Length>, Refusal> {
    match (typed.osl, typed.osl_stddev) {
        (None, Some(_)) => Err(Refusal::new("--osl-stddev needs a mean to spread around; add --osl")),
        (Some(0), _) => {
            notes.push("--osl 0 leaves the length of the answers to the server".into());
            Ok(None)
        }
        (mean, stddev) => Ok(mean.map(|mean| Length { mean, stddev })),
    }
}

fn synthetic(args: &args::Profile, osl: Option<Length>) -> Result<Input, Refusal> {
    let typed = &args.prompts;
    for (flag, given) in [
        ("--custom-dataset-type", args.input.format.is_some()),
        ("--fixed-schedule", args.schedule.fixed_schedule),
        ("--synthesis-max-isl", typed.max_isl.is_some()),
        ("--synthesis-max-osl", typed.max_osl.is_some()),
    ] {
        if given {
            return Err(Refusal::new(format!("{flag} goes with a file; add --input-file")));
        }
    }
    if let Some(flag) = Trace::given(&args.trace) {
        return Err(Refusal::new(format!("{flag} goes with a file; add --input-file")));
    }
    if typed.isl == Some(0) {
        return Err(Refusal::new("--isl 0 leaves nothing to send; expected at least 1 token"));
    }
    let entries = typed.entries.or(args.load.request_count);
    Ok(Input::Synthetic {
        entries: entries.unwrap_or(ENTRIES),
        entries_given: entries.is_some(),
        isl: Length { mean: typed.isl.unwrap_or(ISL), stddev: typed.isl_stddev },
        osl,
        block_size: typed.block_size,
    })
}

fn from_file(
    args: &args::Profile,
    path: &Path,
    format: Option<Format>,
    osl: Option<Length>,
    notes: &mut Vec<String>,
) -> Result<Input, Refusal> {
    let typed = &args.prompts;
    for (flag, given) in [("--isl", typed.isl.is_some()), ("--isl-stddev", typed.isl_stddev.is_some())] {
        if given {
            return Err(Refusal::new(format!("{flag} is for generated prompts; remove it, or remove --input-file")));
        }
    }
    let wrong = |why: &str| Refusal::new(format!("--input-file {}: {why}", path.display()));
    match std::fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(wrong("no such file")),
        Err(e) => return Err(wrong(&e.to_string())),
        Ok(_) => {}
    }
    if typed.entries.is_some() && args.input.format != Some(Format::RandomPool) {
        notes.push(
            "--num-dataset-entries has no effect with --input-file, except random_pool: all its rows are used".into(),
        );
    }
    let input = Input::File {
        path: path.into(),
        format,
        entries: typed.entries.or(args.load.request_count),
        osl,
        block_size: typed.block_size,
        max_isl: typed.max_isl,
        max_osl: typed.max_osl,
        trace: Box::new(Trace::resolve(&args.trace)),
    };
    if let Some(format) = format {
        input.settle(format)?;
    }
    Ok(input)
}

/// What tokens are made and counted with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tokenizer {
    /// The built-in o200k_base vocabulary.
    Builtin,
    /// A `tokenizer.json`.
    File(PathBuf),
}

/// Model names that stand for no model in particular.
const PLACEHOLDERS: [&str; 7] = ["test", "mock", "fake", "dummy", "example", "sample", "placeholder"];

/// Parts of such names.
const PLACEHOLDER_PARTS: [&str; 9] =
    ["mock-", "-mock", "fake-", "-fake", "test-model", "your-model", "my-model", "model-name", "model-id"];

fn is_placeholder(model: &str) -> bool {
    if model.contains(['/', '\\']) || model.starts_with(['.', '~']) {
        return false;
    }
    let name = model.to_lowercase().replace('_', "-");
    PLACEHOLDERS.contains(&name.as_str()) || PLACEHOLDER_PARTS.iter().any(|p| name.contains(p))
}

impl Tokenizer {
    /// The name that files show.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Builtin => "builtin".into(),
            Self::File(path) => path.display().to_string(),
        }
    }

    /// Resolves `--tokenizer`, or the model's own if the model is a local path.
    pub(super) fn resolve(args: &args::Profile, model: &str, notes: &mut Vec<String>) -> Result<Self, Refusal> {
        let Some(name) = args.tokenizer.name.as_deref() else {
            if let Some(path) = inside(Path::new(model)) {
                return Ok(Self::File(path));
            }
            if !args.endpoint.use_server_token_count && !is_placeholder(model) {
                notes.push(format!(
                    "tokens are counted with the built-in tokenizer, not with that of {model}: maser downloads \
                     nothing; --tokenizer takes the path of a tokenizer.json"
                ));
            }
            return Ok(Self::Builtin);
        };
        Self::named(name)
    }

    /// The tokenizer that `--tokenizer` names.
    pub(crate) fn named(name: &str) -> Result<Self, Refusal> {
        if name == "builtin" || name == "o200k_base" {
            return Ok(Self::Builtin);
        }
        local(Path::new(name)).map(Self::File).ok_or_else(|| {
            Refusal::new(format!(
                "--tokenizer {name}: expected builtin, or the path of a tokenizer.json or of a directory with one; \
                 maser downloads nothing"
            ))
        })
    }
}

/// The tokenizer that `path` is, or that stands in it.
fn local(path: &Path) -> Option<PathBuf> {
    if path.is_file() {
        return Some(path.into());
    }
    inside(path)
}

/// The tokenizer in the directory `path`; no directory is not the current one.
fn inside(path: &Path) -> Option<PathBuf> {
    let file = path.join("tokenizer.json");
    (!path.as_os_str().is_empty() && file.is_file()).then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tokenizer_is_a_file_or_stands_in_a_directory() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(local(dir.path()), None);
        let file = dir.path().join("tokenizer.json");
        std::fs::write(&file, "{}").expect("written");
        assert_eq!(local(dir.path()), Some(file.clone()));
        assert_eq!(local(&file), Some(file.clone()));
        assert_eq!(inside(&file), None);
        assert_eq!(local(Path::new("")), None);
    }

    #[test]
    fn placeholder_models() {
        for name in ["mock", "Test", "mock_llm", "my_model", "x-fake", "your-model-id"] {
            assert!(is_placeholder(name), "{name}");
        }
        for name in ["gpt-oss", "org/mock", "./mock", "latest", "mocking"] {
            assert!(!is_placeholder(name), "{name}");
        }
    }
}
