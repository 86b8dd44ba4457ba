//! What is sent, and what tokens are made and counted with.

use crate::args;
use crate::refusal::Refusal;
use crate::values::Format;
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
    },
}

impl Input {
    /// Resolves what the options say of the input.
    pub(super) fn resolve(args: &args::Profile, notes: &mut Vec<String>) -> Result<Self, Refusal> {
        let osl = osl(&args.prompts, notes)?;
        match &args.input.input_file {
            Some(path) => file(args, path, osl, notes),
            None => synthetic(args, osl),
        }
    }

    /// Checks the options that only some formats have.
    pub(super) fn settle(&self, format: Format) -> Result<(), Refusal> {
        let Self::File { block_size, max_isl, max_osl, .. } = self else {
            return Ok(());
        };
        if format.is_trace() {
            return Ok(());
        }
        for (flag, given) in [
            ("--isl-block-size", block_size.is_some()),
            ("--synthesis-max-isl", max_isl.is_some()),
            ("--synthesis-max-osl", max_osl.is_some()),
        ] {
            if given {
                return Err(Refusal::new(format!(
                    "{flag} goes with a trace such as mooncake_trace; remove it, this input file is none"
                )));
            }
        }
        Ok(())
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

fn file(args: &args::Profile, path: &Path, osl: Option<Length>, notes: &mut Vec<String>) -> Result<Input, Refusal> {
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
        Ok(at) if at.is_dir() => {
            return Err(wrong("directories are not supported yet by this version of maser, give a file"));
        }
        Ok(_) => {}
    }
    if typed.entries.is_some() {
        notes.push("--num-dataset-entries has no effect with --input-file: all its rows are used".into());
    }
    let input = Input::File {
        path: path.into(),
        format: args.input.format,
        entries: typed.entries.or(args.load.request_count),
        osl,
        block_size: typed.block_size,
        max_isl: typed.max_isl,
        max_osl: typed.max_osl,
    };
    if let Some(format) = args.input.format {
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
