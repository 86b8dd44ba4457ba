//! `burst_gpt_trace`: the CSV files of BurstGPT.
//!
//! ```csv
//! Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
//! 5,ChatGPT,472,18,490,Conversation log
//! ```
//! `Timestamp` in seconds; other columns say nothing here. A failed request stands in the trace with 0 response tokens; it
//! is asked for 1. A row that cannot be read is an error; the reference leaves it out and says nothing.

use std::path::Path;

use crate::formats::draft::{Draft, Emit, Prompt};
use crate::read::jsonl::Place;
use crate::read::moment::decimal_to_ns;
use crate::read::table::Table;
use crate::{Error, Turn};

const COLUMNS: [&str; 3] = ["Timestamp", "Request tokens", "Response tokens"];

/// Whether a line is the header of such a file.
pub(crate) fn is_header(line: &str) -> bool {
    COLUMNS.iter().all(|column| line.split(',').any(|field| field.trim().trim_matches('"') == *column))
}

/// Reads the file.
pub(crate) fn read(path: &Path, emit: Emit<'_>) -> Result<(), Error> {
    Table::open(path, &COLUMNS)?.each(&mut |row| {
        let at = decimal_to_ns(row.get(0), 9).ok_or_else(|| row.error(0, "a number of seconds from 0"))?;
        let tokens = |column| row.tokens(column).ok_or_else(|| row.error(column, "a whole number of tokens"));
        let length = tokens(1)?;
        if length == 0 {
            return Err(row.error(1, "at least 1"));
        }
        let turn = Turn { timestamp_ns: Some(at), max_tokens: Some(tokens(2)?), ..Turn::default() };
        let prompt = Prompt::Synthetic { length, hash_ids: Vec::new() };
        emit(Draft::of_turn(path, Place::Line(row.line), None, turn, prompt))
    })
}
