//! What is sent.

use super::Endpoint;
use super::synthetic::{Length, Synthetic, osl, refuse_beside_a_file};
use crate::args;
use crate::refusal::Refusal;
use crate::values::Format;
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
    },
}

impl Input {
    /// Resolves what the options say of the input.
    pub(super) fn resolve(args: &args::Profile, endpoint: &Endpoint, notes: &mut Vec<String>) -> Result<Self, Refusal> {
        match &args.input.input_file {
            Some(path) => file(args, path, osl(&args.prompts, notes)?, notes),
            None => Synthetic::resolve(args, endpoint, notes).map(|made| Self::Synthetic(Box::new(made))),
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

fn file(args: &args::Profile, path: &Path, osl: Option<Length>, notes: &mut Vec<String>) -> Result<Input, Refusal> {
    let typed = &args.prompts;
    refuse_beside_a_file(args)?;
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
