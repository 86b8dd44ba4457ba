//! `maser report DIR`: rebuilds every file of a run from its record log.

use super::Failure;
use crate::args;
use crate::refusal::Refusal;
use crate::say;
use crate::values::{ExportLevel, name_of};
use maser::export::{self, ExportOptions, Written, console};
use maser_datasets::Tokenizer;
use maser_engine::log::{FILE_NAME, Log};
use maser_engine::report::{Options, Report};
use std::io::IsTerminal;
use std::path::Path;

/// Columns of the tables where standard output is not a terminal, and at most where it is: the reference's.
const WIDTH: usize = 140;

/// Rebuilds the files and prints the tables.
pub(crate) fn run(args: &args::Report) -> Result<u8, Failure> {
    let path = args.dir.join(FILE_NAME);
    let mut log = Log::open(&path).map_err(|e| {
        Failure::Refused(Refusal::new(format!("{}: cannot be read as a run's record log: {e}", path.display())))
    })?;
    if let Some(level) = args.level {
        log.header.export_level = name_of::<ExportLevel>(level).to_owned();
    }
    if let Some(damage) = &log.damage {
        say(
            std::io::stderr(),
            format_args!(
                "note: {}: the last {} bytes are not a whole block and were left out",
                path.display(),
                damage.bytes
            ),
        );
    }
    publish(&log, &args.dir, Vec::new())
}

/// Writes every file of a log, prints the tables and what was written; returns the exit code.
pub(super) fn publish(log: &Log, dir: &Path, before: Vec<Result<Written, String>>) -> Result<u8, Failure> {
    let tokenizer = tokenizer(log);
    let count = tokenizer.as_ref().map(|t| |text: &str| t.count(text) as u32);
    let options = Options {
        count_tokens: count.as_ref().map(|c| c as &maser_engine::report::CountTokens<'_>),
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        ..Options::default()
    };
    let report = Report::build(log, &options);
    let mut results = export::write_all(&report, log, dir, &ExportOptions::default());
    results.extend(before);
    let stdout = std::io::stdout();
    let text = console::render(&report, width(), console::colour_wanted(stdout.is_terminal()));
    say(&stdout, format_args!("{text}\n{}", console::closing(&report, &results).trim_end()));
    if report.is_empty() {
        return Err(Failure::Failed("no request was finished: there are no results".into()));
    }
    if report.all_failed() {
        return Err(Failure::Failed(format!(
            "all {} requests failed; the files are written all the same",
            report.failed
        )));
    }
    match results.iter().filter(|r| r.is_err()).count() {
        0 => Ok(0),
        n => Err(Failure::Failed(format!("{n} of {} files could not be written, as listed above", results.len()))),
    }
}

/// The tokenizer that counts the captured texts, unless the server's counts are taken: because that was asked for, or
/// because the tokenizer's file has gone since the run.
fn tokenizer(log: &Log) -> Option<Tokenizer> {
    let name = log.header.tokenizer.as_ref().filter(|_| !log.header.use_server_token_count)?;
    match Tokenizer::from_name(name) {
        Ok(tokenizer) => Some(tokenizer),
        Err(e) => {
            say(std::io::stderr(), format_args!("note: {e}; the server's token counts are taken instead"));
            None
        }
    }
}

fn width() -> usize {
    let columns = std::io::stdout().is_terminal().then(terminal_size::terminal_size).flatten();
    columns.map_or(WIDTH, |(columns, _)| usize::from(columns.0).min(WIDTH))
}
