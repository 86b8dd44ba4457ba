//! Datasets read from a file: which format it has, which rows are taken, and the path of a row to a conversation.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::blocks::{Cache, Prompts};
use crate::body_text;
use crate::corpus::{Check, Corpus};
use crate::jsonl::{Lines, Row};
use crate::lengths::{Lengths, MAX_TOKENS};
use crate::seed::Stream;
use crate::tokens::Tokenizer;
use crate::{Conversation, Error, Sink, Summary, Turn, mooncake, parallel, single_turn};

/// Tokens of a block of a `mooncake_trace` where `--isl-block-size` is not given.
pub const DEFAULT_BLOCK_SIZE: u32 = 512;

/// A format this crate reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One request a row, texts given.
    SingleTurn,
    /// One request a row, with times and lengths of a production trace.
    MooncakeTrace,
}

/// Formats that are known by name and not read yet. `speed_bench_*` stands for a family.
const NOT_YET: [&str; 12] = [
    "multi_turn",
    "random_pool",
    "bailian_trace",
    "burst_gpt_trace",
    "baseten_trace",
    "sagemaker_data_capture",
    "raw_payload",
    "inputs_json",
    "dag_jsonl",
    "speed_bench_*",
    "tracelab",
    "weka_trace",
];

impl Format {
    const ALL: [Self; 2] = [Self::SingleTurn, Self::MooncakeTrace];

    /// The name `--custom-dataset-type` knows it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::SingleTurn => "single_turn",
            Self::MooncakeTrace => "mooncake_trace",
        }
    }

    /// Whether its rows are a recorded trace: such a file may turn a run into a fixed schedule.
    pub fn is_trace(self) -> bool {
        self == Self::MooncakeTrace
    }

    /// The format a value of `--custom-dataset-type` names; any case, hyphens as underscores.
    ///
    /// # Errors
    /// A sentence: the format is not supported yet, or there is none of that name.
    pub fn from_name(name: &str) -> Result<Self, Error> {
        match lookup(name) {
            Some(Ok(format)) => Ok(format),
            Some(Err(known)) => Err(Error(format!("--custom-dataset-type {known} is not supported yet"))),
            None => Err(Error(format!(
                "--custom-dataset-type {name}: there is no such type; supported are single_turn and mooncake_trace"
            ))),
        }
    }

    /// The format of the file at `path`, from its first row.
    ///
    /// # Errors
    /// A sentence: no such file, an empty one, a format that is not supported yet, or one that cannot be told.
    pub fn detect(path: &Path) -> Result<Self, Error> {
        if matches!(path.extension().and_then(|e| e.to_str()), Some("parquet" | "arrow" | "ipc")) {
            return Err(not_yet(path, "baseten_trace"));
        }
        let mut lines = Lines::open(path)?;
        let (line, text) = lines.next()?.ok_or_else(|| empty(path))?;
        if ["Timestamp", "Request tokens", "Response tokens"].iter().all(|column| text.contains(column)) {
            return Err(not_yet(path, "burst_gpt_trace"));
        }
        let row = Row::parse(path, line, text)?;
        if let Some(known) = row.string("type").ok().flatten().and_then(|name| lookup(&name)) {
            return known.map_err(|name| not_yet(path, name));
        }
        guess(&row)
    }

    /// Whether the first row of the file at `path` has a timestamp.
    ///
    /// # Errors
    /// A sentence: no such file, an empty one, or a first row that is not JSON.
    pub fn first_row_is_timed(path: &Path) -> Result<bool, Error> {
        let mut lines = Lines::open(path)?;
        let (line, text) = lines.next()?.ok_or_else(|| empty(path))?;
        Ok(Row::parse(path, line, text)?.has("timestamp"))
    }

    fn parse(self, row: &Row<'_>) -> Result<Draft, Error> {
        match self {
            Self::SingleTurn => single_turn::parse(row),
            Self::MooncakeTrace => mooncake::parse(row),
        }
    }
}

/// The format called `name`, or the name of one that is not supported yet.
fn lookup(name: &str) -> Option<Result<Format, &'static str>> {
    let name = name.to_ascii_lowercase().replace('-', "_");
    if let Some(format) = Format::ALL.into_iter().find(|format| format.name() == name) {
        return Some(Ok(format));
    }
    let known = NOT_YET.into_iter().find(|known| *known == name);
    known.or(name.starts_with("speed_bench").then_some("speed_bench_*")).map(Err)
}

/// The format whose rows look like this one. Telltale fields of formats that are not read yet come first, so that such
/// a file is refused by its name and not half understood.
fn guess(row: &Row<'_>) -> Result<Format, Error> {
    let telltale: [(&[&str], &'static str); 6] = [
        (&["turns"], "multi_turn"),
        (&["chat_id", "timestamp", "input_length", "output_length"], "bailian_trace"),
        (&["captureData", "eventMetadata"], "sagemaker_data_capture"),
        (&["round_index", "timing_events"], "tracelab"),
        (&["question_id", "category", "messages"], "speed_bench_*"),
        (&["data"], "inputs_json"),
    ];
    let input = mooncake::INPUTS.iter().any(|field| row.has(field));
    let text = single_turn::MODALITIES.iter().any(|field| row.is_set(field));
    for (fields, name) in telltale {
        let sure = fields.len() > 1 || !(input || text);
        if sure && fields.iter().all(|field| row.has(field)) {
            return Err(not_yet(row.path, name));
        }
    }
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
            "no supported format has such rows (single_turn needs `text` or `texts`, mooncake_trace one of \
             `input_length`, `text_input`, `messages`, `payload`); see --custom-dataset-type",
        )),
    }
}

fn not_yet(path: &Path, name: &str) -> Error {
    Error(format!(
        "--input-file {}: this looks like {name}, which is not supported yet (--custom-dataset-type says otherwise \
         where the guess is wrong)",
        path.display()
    ))
}

fn empty(path: &Path) -> Error {
    Error(format!("--input-file {}: the file has no rows", path.display()))
}

/// Which file to read and what to take from it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Options {
    /// `--input-file`.
    pub path: PathBuf,
    /// `--custom-dataset-type`; none finds it out.
    pub format: Option<Format>,
    /// `--fixed-schedule-start-offset` in nanoseconds: rows before it are left out.
    pub start_offset_ns: Option<u64>,
    /// `--fixed-schedule-end-offset` in nanoseconds: rows after it are left out, one at it is taken.
    pub end_offset_ns: Option<u64>,
    /// `--synthesis-max-isl`: rows with a larger `input_length` are left out. Traces only; rows whose text is given are
    /// never left out by it.
    pub synthesis_max_isl: Option<u32>,
    /// `--synthesis-max-osl`: larger output lengths are lowered to it. Traces only.
    pub synthesis_max_osl: Option<u32>,
    /// `--isl-block-size`: tokens of a block that a hash id stands for. Traces only; 512 where none is given.
    pub isl_block_size: Option<u32>,
    /// `--osl` and `--osl-stddev`: output length of rows that name none.
    pub osl: Option<Lengths>,
    /// The run's root seed.
    pub seed: u64,
}

/// A row on its way to a conversation.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) line: usize,
    pub(crate) session_id: Option<String>,
    pub(crate) turn: Turn,
    pub(crate) prompt: Prompt,
}

/// Where a row's input comes from.
#[derive(Debug)]
pub(crate) enum Prompt {
    /// It stands in the turn.
    Given,
    /// It is to be made.
    Synthetic { length: u32, hash_ids: Vec<i128> },
}

/// Rows worked on at a time, and about how many bytes of text they may have together: bounds what stands in memory
/// beside the sink's own.
const BATCH_ROWS: usize = 1024;
const BATCH_BYTES: usize = 8 << 20;

/// Reasons in [`Summary::rows_skipped`] and [`Summary::rows_adjusted`].
const OUTSIDE_WINDOW: &str = "outside the fixed-schedule offsets";
const ABOVE_MAX_ISL: &str = "input_length above --synthesis-max-isl";
const OSL_LOWERED: &str = "output_length lowered to --synthesis-max-osl";
const OSL_RAISED: &str = "output_length 0 raised to 1";
const INEXACT: &str = "prompt of whole blocks that misses input_length";

impl Options {
    /// Reads the file. A row without a session id is called `session_000000` and so on by its place among the rows
    /// taken.
    pub(crate) fn build(&self, tokenizer: Option<&Tokenizer>, sink: Sink<'_>) -> Result<Summary, Error> {
        let format = match self.format {
            Some(format) => format,
            None => Format::detect(&self.path)?,
        };
        self.check(format)?;
        let mut intake = Intake::new(self, format);
        let mut output = Output::new(self, format, tokenizer, sink);
        let mut lines = Lines::open(&self.path)?;
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some((line, text)) = lines.next()? {
            let Some(draft) = intake.take(line, text)? else {
                continue;
            };
            bytes += text.len() + draft.prompt.bytes();
            batch.push(draft);
            if batch.len() >= BATCH_ROWS || bytes >= BATCH_BYTES {
                output.put(std::mem::take(&mut batch))?;
                bytes = 0;
            }
        }
        output.put(batch)?;
        let mut summary = intake.summary;
        if output.inexact > 0 {
            summary.rows_adjusted.insert(INEXACT, output.inexact);
        }
        if summary.requests == 0 {
            return Err(self.nothing_left(&summary.rows_skipped));
        }
        Ok(summary)
    }

    fn check(&self, format: Format) -> Result<(), Error> {
        if !format.is_trace() {
            let trace_only = [
                ("--synthesis-max-isl", self.synthesis_max_isl),
                ("--synthesis-max-osl", self.synthesis_max_osl),
                ("--isl-block-size", self.isl_block_size),
            ];
            if let Some((flag, _)) = trace_only.into_iter().find(|(_, value)| value.is_some()) {
                return Err(Error(format!("{flag} goes only with traces, and {} is none", format.name())));
            }
        }
        if self.isl_block_size.is_some_and(|size| size == 0 || size > MAX_TOKENS) {
            return Err(Error(format!("--isl-block-size must be between 1 and {MAX_TOKENS}")));
        }
        if self.synthesis_max_osl == Some(0) {
            return Err(Error("--synthesis-max-osl must be at least 1".into()));
        }
        if let (Some(start), Some(end)) = (self.start_offset_ns, self.end_offset_ns)
            && start > end
        {
            return Err(Error("--fixed-schedule-start-offset lies after --fixed-schedule-end-offset".into()));
        }
        self.osl.as_ref().map_or(Ok(()), |osl| osl.check("--osl"))
    }

    fn nothing_left(&self, skipped: &BTreeMap<&'static str, u64>) -> Error {
        if skipped.is_empty() {
            return empty(&self.path);
        }
        let reasons: Vec<String> = skipped.iter().map(|(reason, rows)| format!("{rows} {reason}")).collect();
        Error(format!("--input-file {}: every row was left out: {}", self.path.display(), reasons.join(", ")))
    }
}

impl Prompt {
    /// About how many bytes of text are still to be made.
    fn bytes(&self) -> usize {
        match self {
            Self::Given => 0,
            Self::Synthetic { length, .. } => *length as usize * 5,
        }
    }
}

/// Reads rows, decides which are taken, and counts.
struct Intake<'o> {
    options: &'o Options,
    format: Format,
    outputs: Stream,
    /// Ids seen, with the line of each.
    sessions: HashMap<String, usize>,
    summary: Summary,
}

impl<'o> Intake<'o> {
    fn new(options: &'o Options, format: Format) -> Self {
        Self {
            options,
            format,
            outputs: Stream::new(options.seed, "composer.turn.max_tokens"),
            sessions: HashMap::new(),
            summary: Summary { kind: format.name(), is_trace: format.is_trace(), ..Summary::default() },
        }
    }

    /// The row at `line`, or none where a filter leaves it out.
    fn take(&mut self, line: usize, text: &str) -> Result<Option<Draft>, Error> {
        let row = Row::parse(&self.options.path, line, text)?;
        let mut draft = self.format.parse(&row)?;
        if let Some(reason) = self.skip(&row, &draft)? {
            *self.summary.rows_skipped.entry(reason).or_default() += 1;
            return Ok(None);
        }
        self.settle_output(&mut draft.turn);
        self.settle_session(&row, &mut draft)?;
        let summary = &mut self.summary;
        summary.conversations += 1;
        summary.requests += 1;
        if let Some(at) = draft.turn.timestamp_ns {
            summary.first_timestamp_ns = Some(summary.first_timestamp_ns.map_or(at, |first| first.min(at)));
            summary.last_timestamp_ns = Some(summary.last_timestamp_ns.map_or(at, |last| last.max(at)));
        }
        Ok(Some(draft))
    }

    fn skip(&self, row: &Row<'_>, draft: &Draft) -> Result<Option<&'static str>, Error> {
        let (start, end) = (self.options.start_offset_ns, self.options.end_offset_ns);
        if start.is_some() || end.is_some() {
            let at = draft.turn.timestamp_ns.ok_or_else(|| {
                row.error("no `timestamp`, which --fixed-schedule-start-offset and --fixed-schedule-end-offset need")
            })?;
            if start.is_some_and(|start| at < start) || end.is_some_and(|end| at > end) {
                return Ok(Some(OUTSIDE_WINDOW));
            }
        }
        let too_long = match (&draft.prompt, self.options.synthesis_max_isl) {
            (Prompt::Synthetic { length, .. }, Some(most)) => *length > most,
            _ => false,
        };
        Ok(too_long.then_some(ABOVE_MAX_ISL))
    }

    fn settle_output(&mut self, turn: &mut Turn) {
        let mut adjusted = |reason| *self.summary.rows_adjusted.entry(reason).or_default() += 1;
        if turn.max_tokens == Some(0) {
            turn.max_tokens = Some(1);
            adjusted(OSL_RAISED);
        }
        if turn.max_tokens.is_none() {
            turn.max_tokens = self.options.osl.as_ref().map(|osl| osl.draw(&mut self.outputs));
        }
        if let (Some(asked), Some(most)) = (turn.max_tokens, self.options.synthesis_max_osl)
            && asked > most
        {
            turn.max_tokens = Some(most);
            adjusted(OSL_LOWERED);
        }
    }

    fn settle_session(&mut self, row: &Row<'_>, draft: &mut Draft) -> Result<(), Error> {
        let place = self.summary.conversations;
        let id = draft.session_id.get_or_insert_with(|| format!("session_{place:06}")).clone();
        match self.sessions.insert(id, row.line) {
            None => Ok(()),
            Some(before) => Err(row.error(format_args!(
                "`session_id` {:?} is that of line {before} too; sessions with several turns are not supported yet",
                draft.session_id.as_deref().unwrap_or_default()
            ))),
        }
    }
}

/// Turns drafts into conversations, several at a time and in order.
struct Output<'o, 's> {
    options: &'o Options,
    format: Format,
    tokenizer: Option<&'o Tokenizer>,
    /// Made when the first prompt is to be made: hashing the file and pricing the corpus take time.
    prompts: Option<Prompts>,
    caches: Vec<Cache>,
    sink: Sink<'s>,
    check: Check,
    inexact: u64,
}

impl<'o, 's> Output<'o, 's> {
    fn new(options: &'o Options, format: Format, tokenizer: Option<&'o Tokenizer>, sink: Sink<'s>) -> Self {
        let caches = parallel::workers(Cache::default);
        Self { options, format, tokenizer, prompts: None, caches, sink, check: Check::Count, inexact: 0 }
    }

    fn put(&mut self, drafts: Vec<Draft>) -> Result<(), Error> {
        let to_make = drafts.iter().find(|draft| matches!(draft.prompt, Prompt::Synthetic { .. }));
        if let Some(draft) = to_make
            && self.prompts.is_none()
        {
            self.prompts = Some(self.prepare(draft.line)?);
        }
        let check = self.check;
        let (tokenizer, prompts, path) = (self.tokenizer, self.prompts.as_ref(), self.options.path.as_path());
        let made = parallel::map(&mut self.caches, drafts, |cache, draft| {
            let line = draft.line;
            finish(draft, tokenizer, prompts, check, cache).map_err(|e| Error::row(path, line, e))
        });
        for result in made {
            let (conversation, exact) = result?;
            self.inexact += u64::from(!exact);
            (self.sink)(conversation)?;
        }
        self.check = self.prompts.as_ref().map_or(Check::Count, |prompts| prompts.check_after(self.inexact == 0));
        Ok(())
    }

    fn prepare(&self, line: usize) -> Result<Prompts, Error> {
        let path = &self.options.path;
        let tokenizer = self.tokenizer.ok_or_else(|| {
            let what = format!("{} rows with `input_length` need a tokenizer; give --tokenizer", self.format.name());
            Error::row(path, line, what)
        })?;
        let block_size = self.options.isl_block_size.unwrap_or(DEFAULT_BLOCK_SIZE);
        Ok(Prompts::new(Corpus::sonnet(tokenizer), self.options.seed, trace_id(path)?, block_size))
    }
}

/// The conversation of a draft, and whether its prompt is as long as the row asks.
fn finish(
    draft: Draft,
    tokenizer: Option<&Tokenizer>,
    prompts: Option<&Prompts>,
    check: Check,
    cache: &mut Cache,
) -> Result<(Conversation, bool), Error> {
    let Draft { line, session_id, mut turn, prompt } = draft;
    let mut exact = true;
    match (prompt, prompts) {
        (Prompt::Synthetic { length, hash_ids }, Some(prompts)) => {
            let made = prompts.prompt(line, length, &hash_ids, check, cache)?;
            exact = made.tokens == length;
            turn.input_tokens = Some(made.tokens);
            turn.texts = vec![made.text.into()];
        }
        _ => turn.input_tokens = tokenizer.map(|tokenizer| body_text::input_tokens(&turn, tokenizer)),
    }
    let session_id = session_id.unwrap_or_default();
    Ok((Conversation { session_id, turns: vec![turn], ..Conversation::default() }, exact))
}

/// The first 16 hexadecimal digits of the SHA-256 of the file's bytes.
fn trace_id(path: &Path) -> Result<String, Error> {
    let failed = |e: std::io::Error| Error(format!("--input-file {}: {e}", path.display()));
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => break,
            read => digest.update(&buffer[..read]),
        }
    }
    Ok(digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}
