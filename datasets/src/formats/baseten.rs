//! `baseten_trace`: a Parquet or Arrow IPC table of a production trace whose prompts are given.
//!
//! Columns `timestamp_start_unix_ms`, `prompt`, `input_tokens`, `output_tokens`; and, where they are there,
//! `provided_session_id` and `poor_man_session_id` (one of them names the session), `duration_e2e_ms`, `total_hashes`,
//! `block_size`. Times are from the earliest row. Prompts wait in a temporary file until it is known whose turn they are.
//! One record batch is held at a time, so an Arrow file that is a single one is held whole.

use crate::Error;

/// Columns that may name the session; the first does where nothing else is asked.
pub const SESSION_COLUMNS: [&str; 2] = ["provided_session_id", "poor_man_session_id"];

/// How a `baseten_trace` is replayed.
#[derive(Debug, Clone, PartialEq)]
pub struct Replay {
    /// `--replay-speedup`: all times are divided by it.
    pub speedup: Option<f64>,
    /// `--max-idle-gap-cap-seconds` in nanoseconds: longer gaps between requests are shortened to it.
    pub max_idle_gap_ns: Option<u64>,
    /// `--trace-session-sample-ratio`: each session is kept with this probability.
    pub session_sample_ratio: Option<f64>,
    /// `--open-loop-replay`: requests are sent at their times; else a session's later turns wait for the earlier ones.
    pub open_loop: Option<bool>,
    /// `--open-loop-strict`: every request is a session of its own.
    pub open_loop_strict: bool,
    /// `--omit-kv-hints`: `hash_ids` and `block_size` stay out of the bodies.
    pub omit_kv_hints: bool,
    /// `--force-min-tokens`: bodies ask for at least the recorded output length.
    pub force_min_tokens: Option<bool>,
    /// Column that names the session.
    pub session_column: &'static str,
}

impl Default for Replay {
    fn default() -> Self {
        Self {
            speedup: None,
            max_idle_gap_ns: None,
            session_sample_ratio: None,
            open_loop: None,
            open_loop_strict: false,
            omit_kv_hints: false,
            force_min_tokens: None,
            session_column: SESSION_COLUMNS[0],
        }
    }
}

impl Replay {
    /// The flag of an option that is not as if never given.
    pub(crate) fn given(&self) -> Option<&'static str> {
        [
            ("--replay-speedup", self.speedup.is_some()),
            ("--max-idle-gap-cap-seconds", self.max_idle_gap_ns.is_some()),
            ("--trace-session-sample-ratio", self.session_sample_ratio.is_some()),
            ("--open-loop-replay", self.open_loop.is_some()),
            ("--open-loop-strict", self.open_loop_strict),
            ("--omit-kv-hints", self.omit_kv_hints),
            ("--force-min-tokens", self.force_min_tokens.is_some()),
        ]
        .into_iter()
        .find_map(|(flag, given)| given.then_some(flag))
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.speedup.is_some_and(|x| !(x.is_finite() && x > 0.0)) {
            return Err(Error("--replay-speedup must be a number above 0".into()));
        }
        if self.session_sample_ratio.is_some_and(|x| !(x > 0.0 && x <= 1.0)) {
            return Err(Error("--trace-session-sample-ratio must be above 0 and at most 1".into()));
        }
        if self.open_loop_strict && self.open_loop == Some(false) {
            return Err(Error("--open-loop-strict needs an open loop; remove --no-open-loop-replay".into()));
        }
        Ok(())
    }
}

/// Without the crates that read tables.
#[cfg(not(feature = "arrow"))]
pub(crate) fn read(path: &Path, _: &Replay, _: u64, _: Emit<'_>) -> Result<(), Error> {
    Err(Error(format!(
        "--input-file {}: this build reads no Parquet or Arrow files (its feature `arrow` is off)",
        path.display()
    )))
}

#[cfg(feature = "arrow")]
pub(crate) use table::{number, read};

#[cfg(feature = "arrow")]
mod table {
    use std::collections::HashMap;
    use std::fs::File;
    use std::path::Path;
    use std::sync::Arc;

    use arrow_array::cast::AsArray;
    use arrow_array::types::{
        Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type,
        UInt64Type,
    };
    use arrow_array::{Array, RecordBatch};
    use arrow_schema::{ArrowError, DataType};
    use serde_json::{Map, Value, json};

    use super::Replay;
    use crate::formats::draft::{Draft, Emit, Prompt, Step};
    use crate::guard::unless_panics;
    use crate::lengths::MAX_TOKENS;
    use crate::read::jsonl::Place;
    use crate::read::source;
    use crate::read::spool::{Span, Spool, Spooled};
    use crate::seed::Stream;
    use crate::{Context, Error, Turn};

    const START: &str = "timestamp_start_unix_ms";
    const REQUIRED: [&str; 4] = [START, "prompt", "input_tokens", "output_tokens"];

    /// One row.
    struct Call {
        place: Place,
        /// Nanoseconds since 1970, then from the earliest row.
        at: u64,
        session: Option<String>,
        prompt: Span,
        input_tokens: u32,
        output_tokens: u32,
        duration: u64,
        /// Eight bytes each.
        hashes: Span,
        block_size: Option<u32>,
    }

    /// Reads the table, and hands its sessions over by their first times.
    pub(crate) fn read(path: &Path, replay: &Replay, seed: u64, emit: Emit<'_>) -> Result<(), Error> {
        let (mut calls, mut spool) = (Vec::new(), Spool::new()?);
        let damaged = || unreadable(path, &ArrowError::ParseError("it is damaged".into()));
        let mut batches = unless_panics(|| batches(path)).ok_or_else(damaged)??;
        while let Some(batch) = unless_panics(|| batches.next()).ok_or_else(damaged)? {
            let batch = batch.map_err(|e| unreadable(path, &e))?;
            append(path, &batch, replay, &mut calls, &mut spool)?;
        }
        let mut spooled = spool.close()?;
        // A stable sort: rows of one time keep their order.
        calls.sort_by_key(|call| call.at);
        set_times(&mut calls, replay);
        let mut sessions = sessions(calls, replay);
        sample(&mut sessions, replay.session_sample_ratio, seed);
        let shared: Arc<Path> = path.into();
        for (id, calls) in sessions {
            emit(draft(&shared, id, calls, replay, &mut spooled)?)?;
        }
        Ok(())
    }

    type Batches = Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>>>;

    fn batches(path: &Path) -> Result<Batches, Error> {
        let file = File::open(path).map_err(|e| source::failed(path, &e))?;
        let ending = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        if ending == "parquet" {
            let builder = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file)
                .map_err(|e| Error(format!("--input-file {}: no Parquet file: {e}", path.display())))?;
            let reader = builder.build().map_err(|e| Error(format!("--input-file {}: {e}", path.display())))?;
            return Ok(Box::new(reader));
        }
        let reader = arrow_ipc::reader::FileReader::try_new_buffered(file, None).map_err(|e| unreadable(path, &e))?;
        Ok(Box::new(reader))
    }

    fn unreadable(path: &Path, e: &ArrowError) -> Error {
        Error(format!("--input-file {}: the table cannot be read: {e}", path.display()))
    }

    fn append(
        path: &Path,
        batch: &RecordBatch,
        replay: &Replay,
        calls: &mut Vec<Call>,
        spool: &mut Spool,
    ) -> Result<(), Error> {
        for column in REQUIRED {
            if batch.column_by_name(column).is_none() {
                return Err(Error(format!("--input-file {}: the table has no column `{column}`", path.display())));
            }
        }
        for row in 0..batch.num_rows() {
            let place = Place::Entry(calls.len() + 1);
            let wrong = |column: &str, expected: &str| place.error(path, format_args!("`{column}` must be {expected}"));
            let number = |column: &str| batch.column_by_name(column).and_then(|array| number(array, row));
            let tokens = |column: &str| {
                let tokens = number(column).filter(|n| (0.0..=f64::from(MAX_TOKENS)).contains(n));
                tokens.map(|n| n as u32).ok_or_else(|| wrong(column, "a whole number of tokens"))
            };
            let text = |column: &str| batch.column_by_name(column).and_then(|array| text(array, row));
            let prompt = text("prompt").ok_or_else(|| wrong("prompt", "a text"))?;
            let hashes = batch.column_by_name("total_hashes").filter(|_| !replay.omit_kv_hints);
            let hashes = hashes.map(|array| list(array, row)).unwrap_or_default();
            calls.push(Call {
                place,
                at: number(START).and_then(millis).ok_or_else(|| wrong(START, "a number of milliseconds from 0"))?,
                session: text(replay.session_column).filter(|id| !id.is_empty()),
                prompt: spool.put(prompt.as_bytes())?,
                input_tokens: tokens("input_tokens")?,
                output_tokens: tokens("output_tokens")?.max(1),
                duration: number("duration_e2e_ms").and_then(millis).unwrap_or(0),
                hashes: spool.put(&hashes.iter().flat_map(|hash| hash.to_le_bytes()).collect::<Vec<u8>>())?,
                block_size: number("block_size").filter(|n| *n >= 1.0).map(|n| n as u32),
            });
        }
        Ok(())
    }

    fn millis(ms: f64) -> Option<u64> {
        // Whole milliseconds since 1970 are exact in a double, and so in nanoseconds.
        let ns = (ms.trunc() as i128) * 1_000_000 + ((ms.fract() * 1e6).round() as i128);
        (ms >= 0.0).then(|| u64::try_from(ns).ok()).flatten()
    }

    /// A number of any type; integers above 2^53 lose their last digits.
    pub(crate) fn number(array: &dyn Array, row: usize) -> Option<f64> {
        if array.is_null(row) {
            return None;
        }
        Some(match array.data_type() {
            DataType::Int8 => f64::from(array.as_primitive::<Int8Type>().value(row)),
            DataType::Int16 => f64::from(array.as_primitive::<Int16Type>().value(row)),
            DataType::Int32 => f64::from(array.as_primitive::<Int32Type>().value(row)),
            DataType::Int64 => array.as_primitive::<Int64Type>().value(row) as f64,
            DataType::UInt8 => f64::from(array.as_primitive::<UInt8Type>().value(row)),
            DataType::UInt16 => f64::from(array.as_primitive::<UInt16Type>().value(row)),
            DataType::UInt32 => f64::from(array.as_primitive::<UInt32Type>().value(row)),
            DataType::UInt64 => array.as_primitive::<UInt64Type>().value(row) as f64,
            DataType::Float32 => f64::from(array.as_primitive::<Float32Type>().value(row)),
            DataType::Float64 => array.as_primitive::<Float64Type>().value(row),
            _ => return None,
        })
    }

    /// A text, or a whole number that stands for one.
    fn text(array: &dyn Array, row: usize) -> Option<String> {
        if array.is_null(row) {
            return None;
        }
        match array.data_type() {
            DataType::Utf8 => Some(array.as_string::<i32>().value(row).to_owned()),
            DataType::LargeUtf8 => Some(array.as_string::<i64>().value(row).to_owned()),
            DataType::Utf8View => Some(array.as_string_view().value(row).to_owned()),
            _ => number(array, row).map(|n| format!("{n}")),
        }
    }

    fn list(array: &dyn Array, row: usize) -> Vec<i64> {
        let items = match array.data_type() {
            _ if array.is_null(row) => return Vec::new(),
            DataType::List(_) => array.as_list::<i32>().value(row),
            DataType::LargeList(_) => array.as_list::<i64>().value(row),
            _ => return Vec::new(),
        };
        let whole = |at: usize| match items.data_type() {
            DataType::Int64 if items.is_valid(at) => Some(items.as_primitive::<Int64Type>().value(at)),
            // Hashes are bit patterns: the same bits, whatever the sign.
            DataType::UInt64 if items.is_valid(at) => Some(items.as_primitive::<UInt64Type>().value(at) as i64),
            _ => number(&items, at).map(|n| n as i64),
        };
        (0..items.len()).filter_map(whole).collect()
    }

    /// Times from the earliest row, sped up, without long gaps. `calls` are in the order of their times.
    fn set_times(calls: &mut [Call], replay: &Replay) {
        let speedup = replay.speedup.unwrap_or(1.0);
        let scaled = |ns: u64| if speedup == 1.0 { ns } else { (ns as f64 / speedup).round() as u64 };
        let zero = calls.first().map_or(0, |call| call.at);
        let (mut before, mut shift) = (0, 0);
        for call in calls {
            let at = scaled(call.at - zero);
            let gap = at - before;
            if let Some(most) = replay.max_idle_gap_ns.filter(|most| gap > *most) {
                shift += gap - most;
            }
            before = at;
            call.at = at - shift;
            call.duration = scaled(call.duration);
        }
    }

    /// Calls by session, in the order of the sessions' first calls. A call without a session is one by itself.
    fn sessions(calls: Vec<Call>, replay: &Replay) -> Vec<(Option<String>, Vec<Call>)> {
        let mut places: HashMap<String, usize> = HashMap::new();
        let mut sessions: Vec<(Option<String>, Vec<Call>)> = Vec::new();
        let mut numbers: HashMap<String, usize> = HashMap::new();
        for call in calls {
            let Some(id) = call.session.clone() else {
                sessions.push((None, vec![call]));
                continue;
            };
            if replay.open_loop_strict {
                let number = numbers.entry(id.clone()).or_default();
                sessions.push((Some(format!("{id}#{number}")), vec![call]));
                *number += 1;
                continue;
            }
            match places.get(&id).and_then(|at| sessions.get_mut(*at)) {
                Some((_, session)) => session.push(call),
                None => {
                    places.insert(id.clone(), sessions.len());
                    sessions.push((Some(id), vec![call]));
                }
            }
        }
        sessions
    }

    /// Keeps each session with probability `ratio`, at least one.
    fn sample(sessions: &mut Vec<(Option<String>, Vec<Call>)>, ratio: Option<f64>, seed: u64) {
        let Some(ratio) = ratio.filter(|ratio| *ratio < 1.0) else {
            return;
        };
        let mut stream = Stream::new(seed, "dataset.loader.baseten_trace.session_sampling");
        let kept: Vec<bool> = sessions.iter().map(|_| stream.unit() < ratio).collect();
        let none = !kept.contains(&true);
        let mut at = 0;
        sessions.retain(|_| {
            at += 1;
            kept.get(at - 1).copied().unwrap_or(false) || none && at == 1
        });
    }

    fn draft(
        path: &Arc<Path>,
        session_id: Option<String>,
        calls: Vec<Call>,
        replay: &Replay,
        spooled: &mut Spooled,
    ) -> Result<Draft, Error> {
        let mut get = |span| spooled.get(span).map_err(|e| source::failed(path, &e));
        let open = replay.open_loop.unwrap_or(true);
        let context = if calls.len() > 1 { Context::MessageArray } else { Context::default() };
        let mut steps: Vec<Step> = Vec::with_capacity(calls.len());
        let mut before: Option<(u64, u64)> = None;
        for call in calls {
            let delay = before.map(|(at, duration)| (call.at - at).saturating_sub(duration));
            before = Some((call.at, call.duration));
            let hashes = get(call.hashes)?;
            let prompt = String::from_utf8_lossy(&get(call.prompt)?).into_owned();
            let extra = extra(&call, &hashes, replay);
            let turn = Turn {
                timestamp_ns: (open || delay.is_none()).then_some(call.at),
                delay_ns: delay.filter(|_| !open),
                max_tokens: Some(call.output_tokens),
                input_tokens: Some(call.input_tokens),
                extra,
                ..Turn::of_text(prompt)
            };
            steps.push(Step { place: call.place, turn, prompt: Prompt::Given });
        }
        Ok(Draft { path: path.clone(), session_id, context, system: None, steps })
    }

    fn extra(call: &Call, hashes: &[u8], replay: &Replay) -> Map<String, Value> {
        let mut extra = Map::new();
        if replay.force_min_tokens.unwrap_or(true) {
            extra.insert("min_tokens".into(), json!(call.output_tokens));
        }
        if !replay.omit_kv_hints {
            let hashes: Vec<i64> = hashes.as_chunks().0.iter().map(|hash| i64::from_le_bytes(*hash)).collect();
            if !hashes.is_empty() {
                extra.insert("hash_ids".into(), json!(hashes));
            }
            if let Some(size) = call.block_size {
                extra.insert("block_size".into(), json!(size));
            }
        }
        extra
    }
}
