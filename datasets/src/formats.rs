//! The formats of dataset files: their names, what tells them apart, and the way from a format to its reader.

pub(crate) mod azure;
pub(crate) mod bailian;
pub mod baseten;
pub(crate) mod burst_gpt;
pub mod compiled;
pub(crate) mod draft;
mod hub;
mod inputs_json;
mod mooncake;
mod multi_turn;
mod questions;
pub(crate) mod random_pool;
mod raw_payload;
mod sagemaker;
pub(crate) mod sets;
pub(crate) mod sharegpt;
mod single_turn;
pub(crate) mod spans;
mod speed_bench;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use crate::Error;
use crate::read::jsonl::{self, Lines, Place, Row};
use crate::read::source::{self, empty};
use draft::Emit;

/// What of a run's options decides which rows of a file are taken, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Selection<'a> {
    pub(crate) path: &'a Path,
    pub(crate) seed: u64,
    pub(crate) entries: Option<u64>,
    pub(crate) batch: &'a random_pool::Batch,
    pub(crate) filters: &'a BTreeMap<String, String>,
    pub(crate) replay: &'a baseten::Replay,
}

/// A format this crate reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// One request a row, texts and media given.
    SingleTurn,
    /// One conversation a row.
    MultiTurn,
    /// Rows to draw from.
    RandomPool,
    /// One request a row, with times and lengths of a production trace.
    MooncakeTrace,
    /// A production trace whose requests name the chat they continue.
    BailianTrace,
    /// A CSV of times and lengths.
    BurstGptTrace,
    /// A CSV of dates and lengths.
    AzureTrace,
    /// A Parquet or Arrow table of times, prompts and lengths.
    BasetenTrace,
    /// Requests as a SageMaker endpoint captured them.
    SagemakerDataCapture,
    /// Whole chat bodies.
    RawPayload,
    /// Whole bodies by session, as a run of maser or of the reference writes them.
    InputsJson,
    /// Conversations between a human and a model.
    Sharegpt,
    /// Questions, the first turn of each.
    SpecBench,
    /// Questions, all turns of each.
    MtBench,
    /// Conversations by category; the number is that of a split or category.
    SpeedBench(u8),
    /// Tables of a public dataset; the number says which. Has no name for `--custom-dataset-type`.
    Hub(u8),
    /// A dataset that was compiled; has no name for `--custom-dataset-type`, it is known by its first bytes.
    Compiled,
}

/// Formats that are known by name and not read yet.
const NOT_YET: [&str; 3] = ["dag_jsonl", "tracelab", "weka_trace"];

/// Extensions of tables in columns.
const COLUMNAR: [&str; 3] = ["parquet", "arrow", "ipc"];

/// Bytes of a document looked at to tell what it is.
const HEAD: u64 = 1 << 16;

impl Format {
    /// Every format, SPEED-Bench once.
    pub const ALL: [Self; 15] = [
        Self::SingleTurn,
        Self::MultiTurn,
        Self::RandomPool,
        Self::MooncakeTrace,
        Self::BailianTrace,
        Self::BurstGptTrace,
        Self::AzureTrace,
        Self::BasetenTrace,
        Self::SagemakerDataCapture,
        Self::RawPayload,
        Self::InputsJson,
        Self::Sharegpt,
        Self::SpecBench,
        Self::MtBench,
        Self::SpeedBench(0),
    ];

    /// The name `--custom-dataset-type` knows it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::SingleTurn => "single_turn",
            Self::MultiTurn => "multi_turn",
            Self::RandomPool => "random_pool",
            Self::MooncakeTrace => "mooncake_trace",
            Self::BailianTrace => "bailian_trace",
            Self::BurstGptTrace => "burst_gpt_trace",
            Self::AzureTrace => "azure_trace",
            Self::BasetenTrace => "baseten_trace",
            Self::SagemakerDataCapture => "sagemaker_data_capture",
            Self::RawPayload => "raw_payload",
            Self::InputsJson => "inputs_json",
            Self::Sharegpt => "sharegpt",
            Self::SpecBench => "spec_bench",
            Self::MtBench => "mt_bench",
            Self::SpeedBench(n) => speed_bench::name(n),
            Self::Compiled => "compiled",
            Self::Hub(n) => sets::SETS.get(usize::from(n)).map_or("public dataset", |set| set.name),
        }
    }

    /// Whether its rows are a recorded trace: such a file may turn a run into a fixed schedule.
    pub fn is_trace(self) -> bool {
        use Format::{AzureTrace, BailianTrace, BasetenTrace, BurstGptTrace, MooncakeTrace, SagemakerDataCapture};
        matches!(self, MooncakeTrace | BailianTrace | BurstGptTrace | AzureTrace | BasetenTrace | SagemakerDataCapture)
    }

    /// Whether its rows may give a length in place of a prompt, which then has to be made.
    pub fn makes_prompts(self) -> bool {
        use Format::{AzureTrace, BailianTrace, BurstGptTrace, MooncakeTrace};
        matches!(self, MooncakeTrace | BailianTrace | BurstGptTrace | AzureTrace)
    }

    /// Whether its rows cannot be read without a tokenizer.
    pub fn needs_tokenizer(self) -> bool {
        self.makes_prompts() || self == Self::Sharegpt
    }

    /// Tokens of a block that a hash id stands for where nothing says otherwise; none for formats without hash ids.
    pub fn block_size(self) -> Option<u32> {
        match self {
            Self::MooncakeTrace => Some(mooncake::BLOCK_SIZE),
            Self::BailianTrace => Some(bailian::BLOCK_SIZE),
            _ => None,
        }
    }

    /// Whether whole bodies are sent as they stand, so that nothing of the command line can change them.
    pub fn is_verbatim(self) -> bool {
        matches!(self, Self::RawPayload | Self::InputsJson)
    }

    /// Whether the number of conversations taken from it can be said.
    pub fn takes_entries(self) -> bool {
        self == Self::RandomPool || matches!(self, Self::Hub(n) if sets::is_large(n))
    }

    /// Whether rows name a session, so that several may belong to one.
    pub(crate) fn names_sessions(self) -> bool {
        matches!(self, Self::SingleTurn | Self::MultiTurn | Self::MooncakeTrace)
    }

    /// The format a value of `--custom-dataset-type` names; any case, hyphens as underscores.
    ///
    /// # Errors
    /// The end of a sentence that begins with flag and value: the format is not supported yet, or there is none of that
    /// name.
    pub fn from_name(name: &str) -> Result<Self, Error> {
        match lookup(name) {
            Some(Ok(format)) => Ok(format),
            Some(Err(_)) => Err(Error(format!("not supported yet by this version of maser, which has {}", names()))),
            None => Err(Error(format!("expected one of {}", names()))),
        }
    }

    /// The format of the file at `path`: the one given, or the one found out.
    ///
    /// # Errors
    /// A sentence: a compiled dataset, which says itself what it is, is given another; or as [`Format::detect`].
    pub fn of(given: Option<Self>, path: &Path) -> Result<Self, Error> {
        match given {
            Some(format) if format != Self::Compiled && compiled::is_compiled(path) => Err(Error(format!(
                "--custom-dataset-type {}: {} is a compiled dataset, which is told by its first bytes; leave the option out",
                format.name(),
                path.display()
            ))),
            Some(format) => Ok(format),
            None => Self::detect(path),
        }
    }

    /// The format of the file or directory at `path`, from its name and its first row.
    ///
    /// # Errors
    /// A sentence: no such file, an empty one, a format that is not supported yet, or one that cannot be told.
    pub fn detect(path: &Path) -> Result<Self, Error> {
        if path.is_dir() {
            return directory(path);
        }
        if compiled::is_compiled(path) {
            return Ok(Self::Compiled);
        }
        let ending = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
        if ending.is_some_and(|ending| COLUMNAR.contains(&ending.as_str())) {
            return Ok(Self::BasetenTrace);
        }
        if let Some(format) = long_document(path)? {
            return Ok(format);
        }
        let mut lines = Lines::open(path)?;
        let (line, text) = lines.next()?.ok_or_else(|| empty(path))?;
        if burst_gpt::is_header(text) {
            return Ok(Self::BurstGptTrace);
        }
        if azure::is_header(text) {
            return Ok(Self::AzureTrace);
        }
        let row = match Row::parse(path, Place::Line(line), text) {
            Ok(row) => row,
            // A document of several lines, or no JSON at all.
            Err(e) => return document(path)?.ok_or(e),
        };
        if let Some(known) = row.string("type").ok().flatten().and_then(|name| lookup(&name)) {
            return known.map_err(|name| not_yet(path, name));
        }
        guess(&row)
    }

    /// Whether the requests of the file at `path` have times, by its first row.
    ///
    /// # Errors
    /// A sentence: no such file, an empty one, or a first row that is not JSON.
    pub fn is_timed(self, path: &Path) -> Result<bool, Error> {
        match self {
            Self::SingleTurn | Self::MooncakeTrace | Self::MultiTurn => {
                let mut lines = Lines::open(path)?;
                let (line, text) = lines.next()?.ok_or_else(|| empty(path))?;
                let row = Row::parse(path, Place::Line(line), text)?;
                if self == Self::MultiTurn {
                    return Ok(row.rows("turns")?.iter().any(|turn| turn.has("timestamp")));
                }
                Ok(row.has("timestamp"))
            }
            Self::Compiled => Ok(compiled::Compiled::open(path)?.is_timed()),
            _ => Ok(self.is_trace()),
        }
    }

    /// Reads all rows of the file in order.
    pub(crate) fn read(self, from: Selection<'_>, emit: Emit<'_>) -> Result<(), Error> {
        match self {
            Self::SingleTurn => jsonl::each(from.path, &mut |row| emit(single_turn::parse(row)?)),
            Self::MultiTurn => jsonl::each(from.path, &mut |row| emit(multi_turn::parse(row)?)),
            Self::MooncakeTrace => jsonl::each(from.path, &mut |row| emit(mooncake::parse(row)?)),
            Self::SpecBench => jsonl::each(from.path, &mut |row| emit(questions::parse(row, true)?)),
            Self::MtBench => jsonl::each(from.path, &mut |row| emit(questions::parse(row, false)?)),
            Self::SpeedBench(n) => speed_bench::read(from.path, n, emit),
            Self::Compiled => compiled::read(from.path, emit),
            Self::Hub(n) => hub::read(from.path, n, (from.entries, from.filters), emit),
            Self::RandomPool => random_pool::read(from.path, (from.entries, from.batch), from.seed, emit),
            Self::BailianTrace => bailian::read(from.path, emit),
            Self::BurstGptTrace => burst_gpt::read(from.path, emit),
            Self::AzureTrace => azure::read(from.path, emit),
            Self::BasetenTrace => baseten::read(from.path, from.replay, from.seed, emit),
            Self::SagemakerDataCapture => sagemaker::read(from.path, emit),
            Self::RawPayload => raw_payload::read(from.path, emit),
            Self::InputsJson => inputs_json::read(from.path, emit),
            Self::Sharegpt => sharegpt::read(from.path, emit),
        }
    }
}

/// All names, for a sentence.
fn names() -> String {
    let names: Vec<&str> =
        Format::ALL.iter().filter(|f| !matches!(f, Format::SpeedBench(_))).map(|f| f.name()).collect();
    format!("{}, and speed_bench_qualitative and its like", names.join(", "))
}

/// The format called `name`, or the name of one that is not supported yet.
fn lookup(name: &str) -> Option<Result<Format, &'static str>> {
    let name = name.to_ascii_lowercase().replace('-', "_");
    if let Some(n) = speed_bench::number(&name) {
        return Some(Ok(Format::SpeedBench(n)));
    }
    if let Some(format) = Format::ALL.into_iter().find(|format| format.name() == name) {
        return Some(Ok(format));
    }
    NOT_YET.into_iter().find(|known| *known == name).map(Err)
}

/// The format whose rows look like this one. Telltale fields come first, then what is left between the formats that
/// share theirs.
fn guess(row: &Row<'_>) -> Result<Format, Error> {
    if let Some(format) = telltale(row)? {
        return Ok(format);
    }
    let input = mooncake::INPUTS.iter().any(|field| row.has(field));
    let text = single_turn::MODALITIES.iter().any(|field| row.is_set(field));
    match (text, input) {
        (true, false) => Ok(Format::SingleTurn),
        // A row of bare messages is a whole body to one format and a trace's request to the other.
        (false, true) if row.has("messages") => Err(row
            .error("rows with `messages` may be mooncake_trace or raw_payload; say which with --custom-dataset-type")),
        (false, true) => Ok(Format::MooncakeTrace),
        (true, true) => {
            Err(row.error("rows may be single_turn or mooncake_trace; say which with --custom-dataset-type"))
        }
        (false, false) => Err(row.error(
            "no format has such rows (single_turn needs `text` or an image, audio or video, multi_turn `turns`, \
             mooncake_trace one of `input_length`, `text_input`, `messages`, `payload`); see --custom-dataset-type",
        )),
    }
}

/// A format with fields that no other has.
fn telltale(row: &Row<'_>) -> Result<Option<Format>, Error> {
    let all = |fields: &[&str]| fields.iter().all(|field| row.has(field));
    if all(&["round_index", "timing_events"]) {
        return Err(not_yet(row.path, "tracelab"));
    }
    if all(&["requests", "block_size"]) {
        return Err(not_yet(row.path, "weka_trace"));
    }
    if all(&["turns"]) {
        return turns(row).map(Some);
    }
    Ok(if all(&["chat_id", "timestamp", "input_length", "output_length"]) {
        Some(Format::BailianTrace)
    } else if all(&["captureData", "eventMetadata"]) {
        Some(Format::SagemakerDataCapture)
    } else if all(&["question_id", "category", "messages"]) {
        Some(Format::SpeedBench(0))
    } else if all(&["conversations"]) {
        Some(Format::Sharegpt)
    } else if all(&["data"]) && !all(&["messages"]) {
        Some(Format::InputsJson)
    } else {
        None
    })
}

/// The formats whose rows have `turns`: of strings, of requests, or of a graph.
fn turns(row: &Row<'_>) -> Result<Format, Error> {
    if row.read::<Vec<String>>("turns", "a list of strings").is_ok() {
        return Ok(Format::MtBench);
    }
    let graph = |turn: &Row<'_>| ["messages", "forks", "spawns"].iter().any(|field| turn.has(field));
    if row.rows("turns")?.iter().any(graph) {
        return Err(not_yet(row.path, "dag_jsonl"));
    }
    let text = single_turn::MODALITIES.iter().any(|field| row.is_set(field));
    let input = mooncake::INPUTS.iter().any(|field| row.has(field));
    if text || input {
        return Err(row.error(
            "rows have `turns` and a request's own fields, so they may be multi_turn or another format; say which \
             with --custom-dataset-type",
        ));
    }
    Ok(Format::MultiTurn)
}

fn head(path: &Path) -> Result<Vec<u8>, Error> {
    let mut head = Vec::new();
    source::open(path)?.take(HEAD).read_to_end(&mut head).map_err(|e| source::failed(path, &e))?;
    Ok(head)
}

/// The format of a document whose first line is long, if its beginning tells: the line may be all of a large file.
fn long_document(path: &Path) -> Result<Option<Format>, Error> {
    let head = head(path)?;
    let text = String::from_utf8_lossy(&head);
    let text = text.trim();
    let is_long = head.len() as u64 == HEAD && !text.contains('\n');
    let is_document = text.starts_with('[') || text.replacen([' ', '\t'], "", 4).starts_with("{\"data\":[");
    if is_long && is_document { document(path) } else { Ok(None) }
}

/// The format of a document of several lines, by its first bytes: none where it is no JSON document.
fn document(path: &Path) -> Result<Option<Format>, Error> {
    let head = head(path)?;
    let text = String::from_utf8_lossy(&head);
    let text = text.trim_start();
    let has = |field: &str| text.contains(&format!("\"{field}\""));
    if text.starts_with('[') && has("conversations") {
        return Ok(Some(Format::Sharegpt));
    }
    if text.starts_with('{') && has("requests") && has("block_size") {
        return Err(not_yet(path, "weka_trace"));
    }
    Ok((text.starts_with('{') && has("data") && has("payloads")).then_some(Format::InputsJson))
}

/// The format of a directory, by the first row of its first file.
fn directory(path: &Path) -> Result<Format, Error> {
    let files = source::files(path, true)?;
    let first = source::jsonl(files).into_iter().next().ok_or_else(|| {
        Error(format!("--input-file {}: the directory has no .jsonl file to tell its format by", path.display()))
    })?;
    let mut lines = Lines::open(&first)?;
    let (line, text) = lines.next()?.ok_or_else(|| empty(&first))?;
    let row = Row::parse(&first, Place::Line(line), text)?;
    if row.has("captureData") && row.has("eventMetadata") {
        return Ok(Format::SagemakerDataCapture);
    }
    if row.has("messages") && !row.has("conversation_id") {
        return Ok(Format::RawPayload);
    }
    if single_turn::MODALITIES.iter().any(|field| row.is_set(field)) {
        return Ok(Format::RandomPool);
    }
    Err(row.error(
        "no format that may be a directory has such rows (random_pool needs `text` or another medium, raw_payload \
         `messages`, sagemaker_data_capture `captureData`)",
    ))
}

fn not_yet(path: &Path, name: &str) -> Error {
    Error(format!(
        "--input-file {}: this looks like {name}, which is not supported yet (--custom-dataset-type says otherwise \
         where the guess is wrong)",
        path.display()
    ))
}
