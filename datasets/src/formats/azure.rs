//! `azure_trace`: the CSV files of Azure's public traces of LLM inference (2023 and 2024).
//!
//! ```csv
//! TIMESTAMP,ContextTokens,GeneratedTokens
//! 2023-11-16 18:17:03.9799600,4808,10
//! ```
//! Times are from the earliest row of the file, to the nanosecond. The reference has no reader for them.

use std::path::Path;

use crate::formats::draft::{Draft, Emit, Prompt};
use crate::read::jsonl::Place;
use crate::read::moment::date_to_ns;
use crate::read::table::{Fields, Table};
use crate::{Error, Turn};

const COLUMNS: [&str; 3] = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"];

/// Whether a line is the header of such a file.
pub(crate) fn is_header(line: &str) -> bool {
    COLUMNS.iter().all(|column| line.split(',').any(|field| field.trim() == *column))
}

/// Reads the file twice: the earliest row need not be the first.
pub(crate) fn read(path: &Path, emit: Emit<'_>) -> Result<(), Error> {
    let mut zero = u64::MAX;
    Table::open(path, &COLUMNS)?.each(&mut |row| {
        zero = zero.min(date(&row)?);
        Ok(())
    })?;
    Table::open(path, &COLUMNS)?.each(&mut |row| {
        let tokens = |column| row.tokens(column).ok_or_else(|| row.error(column, "a whole number of tokens"));
        let length = tokens(1)?;
        if length == 0 {
            return Err(row.error(1, "at least 1"));
        }
        let turn = Turn {
            timestamp_ns: Some(date(&row)?.saturating_sub(zero)),
            max_tokens: Some(tokens(2)?),
            ..Turn::default()
        };
        let prompt = Prompt::Synthetic { length, hash_ids: Vec::new() };
        emit(Draft::of_turn(path, Place::Line(row.line), None, turn, prompt))
    })
}

fn date(row: &Fields<'_>) -> Result<u64, Error> {
    date_to_ns(row.get(0)).ok_or_else(|| row.error(0, "a date and time such as 2023-11-16 18:17:03.9799600"))
}
