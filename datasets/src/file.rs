//! Datasets read from a file or a directory: the options, and the path of its rows to conversations.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::attachment;
use crate::blocks::{Cache, Prompts};
use crate::body_text::{self, Templated};
use crate::compiled;
use crate::corpus::{Check, Corpus};
pub use crate::format::Format;
use crate::format::empty;
use crate::intake::{Census, Draft, Intake, Prompt, Step};
use crate::lengths::{Lengths, MAX_TOKENS};
use crate::sharegpt;
pub use crate::synthesis::Synthesis;
use crate::texts::Source;
use crate::tokens::Tokenizer;
use crate::{Context, Conversation, Error, Sink, Summary, Turn, parallel};

/// Tokens of a block where a format's hash ids have no size of their own.
pub const DEFAULT_BLOCK_SIZE: u32 = 512;

/// Which file to read and what to take from it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Options {
    /// `--input-file`.
    pub path: PathBuf,
    /// `--custom-dataset-type`; none finds it out.
    pub format: Option<Format>,
    /// `--fixed-schedule-start-offset` in nanoseconds: rows before it are left out, whatever the format. The reference
    /// heeds both offsets for traces only.
    pub start_offset_ns: Option<u64>,
    /// `--fixed-schedule-end-offset` in nanoseconds: rows after it are left out, one at it is taken.
    pub end_offset_ns: Option<u64>,
    /// `--synthesis-max-isl`: rows with a larger input length are left out. Traces only; rows whose text is given
    /// without a length are never left out by it.
    pub synthesis_max_isl: Option<u32>,
    /// `--synthesis-max-osl`: larger output lengths are lowered to it. Traces only.
    pub synthesis_max_osl: Option<u32>,
    /// The other options of trace synthesis. Traces only.
    pub synthesis: Synthesis,
    /// `--isl-block-size`: tokens of a block that a hash id stands for. Formats with hash ids only.
    pub isl_block_size: Option<u32>,
    /// `--osl` and `--osl-stddev`: output length of rows that name none.
    pub osl: Option<Lengths>,
    /// `--inter-turn-delay-cap-seconds` in nanoseconds: longer delays between turns are lowered to it.
    pub inter_turn_delay_cap_ns: Option<u64>,
    /// `--ignore-trace-delays`: no turn waits.
    pub ignore_trace_delays: bool,
    /// How a `baseten_trace` is replayed.
    pub replay: Replay,
    /// `random_pool`: conversations to draw, 100 where none is given. Large public datasets: rows to take.
    pub entries: Option<u64>,
    /// `random_pool`: contents of each medium in a request.
    pub batch: Batch,
    /// `--prompt-corpus`: what prompts are made of, for formats whose rows give lengths; sonnets where none is given.
    pub corpus: Option<Source>,
    /// `--dataset-filter`: rows of a public dataset that has such filters, see [`crate::public::check_filters`].
    pub filters: BTreeMap<String, String>,
    /// `--uuid-and-strip`, `single_turn` only: an image whose key stood beside its content in an earlier turn of the
    /// session is sent as the key alone.
    pub uuid_and_strip: bool,
    /// The run's root seed.
    pub seed: u64,
}

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
            session_column: crate::baseten::SESSION_COLUMNS[0],
        }
    }
}

impl Replay {
    /// The flag of an option that is not as if never given.
    fn given(&self) -> Option<&'static str> {
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

    fn check(&self) -> Result<(), Error> {
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

/// Contents of each medium in a request drawn from a `random_pool`; 0 leaves the medium out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Batch {
    /// `--batch-size-text`.
    pub texts: Option<u32>,
    /// `--batch-size-image`.
    pub images: Option<u32>,
    /// `--batch-size-audio`.
    pub audios: Option<u32>,
    /// `--batch-size-video`.
    pub videos: Option<u32>,
}

impl Batch {
    fn given(&self) -> Option<&'static str> {
        [
            ("--batch-size-text", self.texts),
            ("--batch-size-image", self.images),
            ("--batch-size-audio", self.audios),
            ("--batch-size-video", self.videos),
        ]
        .into_iter()
        .find_map(|(flag, size)| size.map(|_| flag))
    }
}

/// Sessions worked on at a time, and about how many bytes of text they may have together: bounds what stands in memory
/// beside the sink's own.
const BATCH_ROWS: usize = 1024;
const BATCH_BYTES: usize = 8 << 20;

const INEXACT: &str = "prompt of whole blocks that misses input_length";

impl Summary {
    /// Counts a conversation.
    pub(crate) fn add(&mut self, conversation: &Conversation) {
        self.conversations += 1;
        self.requests += conversation.turns.len() as u64;
        for at in conversation.turns.iter().filter_map(|turn| turn.timestamp_ns) {
            self.first_timestamp_ns = Some(self.first_timestamp_ns.map_or(at, |first| first.min(at)));
            self.last_timestamp_ns = Some(self.last_timestamp_ns.map_or(at, |last| last.max(at)));
        }
    }
}

impl Options {
    /// Reads the file. A session without an id is called `session_000000` and so on by its place among those taken.
    pub(crate) fn build(&self, tokenizer: Option<&Tokenizer>, sink: Sink<'_>) -> Result<Summary, Error> {
        let format = self.known_format()?;
        self.check(format)?;
        let compiled_from_trace = self.check_compiled(format, tokenizer)?;
        let mut output = Output::new(self, format, tokenizer, sink);
        let (mut batch, mut bytes) = (Vec::new(), 0);
        let mut summary = self.sessions(format, &mut |draft| {
            bytes += draft.bytes();
            batch.push(draft);
            if batch.len() >= BATCH_ROWS || bytes >= BATCH_BYTES {
                output.put(std::mem::take(&mut batch))?;
                bytes = 0;
            }
            Ok(())
        })?;
        output.put(batch)?;
        output.add_to(&mut summary);
        summary.is_trace |= compiled_from_trace;
        if summary.requests == 0 {
            return Err(self.nothing_left(&summary.rows_skipped));
        }
        Ok(summary)
    }

    /// Whether a compiled dataset is one of a trace. Its counts must be those of this run's tokenizer.
    fn check_compiled(&self, format: Format, tokenizer: Option<&Tokenizer>) -> Result<bool, Error> {
        if format != Format::Compiled {
            return Ok(false);
        }
        let head = compiled::Compiled::open(&self.path)?.head;
        match tokenizer.and_then(|tokenizer| head.counts_otherwise(tokenizer)) {
            Some(why) => Err(Error(format!("--input-file {}: {why}, or compile it again", self.path.display()))),
            None => Ok(head.is_trace),
        }
    }

    /// Whether another seed may give other conversations.
    ///
    /// # Errors
    /// A sentence: the file's format cannot be told.
    pub fn depends_on_seed(&self) -> Result<bool, Error> {
        let format = self.known_format()?;
        Ok(format.makes_prompts()
            || format == Format::RandomPool
            || self.osl.as_ref().is_some_and(|osl| !osl.is_fixed())
            || self.replay.session_sample_ratio.is_some()
            || self.synthesis.given().is_some())
    }

    /// Whether [`Options::entries`] shows in what comes out.
    pub fn takes_entries(&self) -> bool {
        self.known_format().is_ok_and(Format::takes_entries)
    }

    /// The format given, or the one found out.
    pub(crate) fn known_format(&self) -> Result<Format, Error> {
        Format::of(self.format, &self.path)
    }

    /// Hands over the sessions of the file, filtered and put together, prompts still to be made.
    pub(crate) fn sessions(
        &self,
        format: Format,
        f: &mut dyn FnMut(Draft) -> Result<(), Error>,
    ) -> Result<Summary, Error> {
        let mut intake = Intake::new(self, format, Census::take(self, format)?)?;
        format.read(self, &mut |draft| {
            intake.take(draft)?;
            while let Some(session) = intake.next() {
                f(session)?;
            }
            Ok(())
        })?;
        intake.finish();
        while let Some(session) = intake.next() {
            f(session)?;
        }
        Ok(intake.summary)
    }

    /// Tokens of a block that a hash id stands for.
    pub(crate) fn block_size(&self, format: Format) -> u32 {
        self.isl_block_size.or(format.block_size()).unwrap_or(DEFAULT_BLOCK_SIZE)
    }

    /// Checks what the options say together with the format.
    ///
    /// # Errors
    /// A sentence naming the flag that does not go with it or is out of range.
    pub fn check(&self, format: Format) -> Result<(), Error> {
        self.check_belonging(format)?;
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
        self.synthesis.check()?;
        self.replay.check()?;
        self.osl.as_ref().map_or(Ok(()), |osl| osl.check("--osl"))
    }

    fn check_belonging(&self, format: Format) -> Result<(), Error> {
        let name = format.name();
        let trace_only = [
            ("--synthesis-max-isl", self.synthesis_max_isl.is_some()),
            ("--synthesis-max-osl", self.synthesis_max_osl.is_some()),
        ];
        let trace_only = trace_only.into_iter().find_map(|(flag, given)| given.then_some(flag));
        if let (Some(flag), false) = (trace_only.or(self.synthesis.given()), format.is_trace()) {
            return Err(Error(format!("{flag} goes only with traces, and {name} is none")));
        }
        if self.isl_block_size.is_some() && format.block_size().is_none() {
            return Err(Error(format!(
                "--isl-block-size goes only with traces that have hash ids, and {name} has none"
            )));
        }
        if let (Some(flag), false) = (self.replay.given(), format == Format::BasetenTrace) {
            return Err(Error(format!("{flag} goes only with baseten_trace, and this is {name}")));
        }
        if let (Some(flag), true) = (self.synthesis.given_beside_output(), format == Format::BasetenTrace) {
            return Err(Error(format!(
                "{flag} does not go with baseten_trace, whose prompts are given (--replay-speedup divides its times)"
            )));
        }
        if let (Some(flag), false) = (self.synthesis.given_for_blocks(), format.makes_prompts()) {
            return Err(Error(format!(
                "{flag} goes only with traces whose prompts are made, and those of {name} are not"
            )));
        }
        if let (Some(flag), false) = (self.batch.given(), format == Format::RandomPool) {
            return Err(Error(format!("{flag} goes with generated prompts and random_pool, not {name}")));
        }
        if self.corpus == Some(Source::Random) && format.makes_prompts() {
            return Err(Error(format!(
                "--prompt-corpus random does not go with {name}, whose requests may share text; give sonnet or coding"
            )));
        }
        if !self.filters.is_empty() {
            crate::public::check_filters(format, &self.filters)?;
        }
        if self.uuid_and_strip && format != Format::SingleTurn {
            return Err(Error(format!("--uuid-and-strip goes only with single_turn, and this is {name}")));
        }
        Ok(())
    }

    fn nothing_left(&self, skipped: &BTreeMap<Cow<'static, str>, u64>) -> Error {
        if skipped.is_empty() {
            return empty(&self.path);
        }
        let reasons: Vec<String> = skipped.iter().map(|(reason, rows)| format!("{rows} {reason}")).collect();
        Error(format!("--input-file {}: every row was left out: {}", self.path.display(), reasons.join(", ")))
    }
}

/// Turns drafts into conversations, several at a time and in order.
struct Output<'o, 's> {
    options: &'o Options,
    format: Format,
    tokenizer: Option<&'o Tokenizer>,
    /// Made when the first prompt is to be made: hashing the file and pricing the corpus take time.
    prompts: Option<Prompts>,
    template: Option<Templated<'o>>,
    caches: Vec<Cache>,
    sink: Sink<'s>,
    check: Check,
    /// What of the summary is known at the end only.
    summary: Summary,
    inexact: u64,
}

impl<'o, 's> Output<'o, 's> {
    fn new(options: &'o Options, format: Format, tokenizer: Option<&'o Tokenizer>, sink: Sink<'s>) -> Self {
        let caches = parallel::workers(Cache::default);
        let summary = Summary::default();
        let template = tokenizer.and_then(Templated::of);
        Self {
            options,
            format,
            tokenizer,
            prompts: None,
            template,
            caches,
            sink,
            check: Check::Count,
            summary,
            inexact: 0,
        }
    }

    fn put(&mut self, drafts: Vec<Draft>) -> Result<(), Error> {
        let needs = |draft: &Draft| {
            let step = draft.steps.iter().find(|step| matches!(step.prompt, Prompt::Synthetic { .. }));
            step.map(|step| (draft.path.clone(), step.place))
        };
        if let (Some((path, place)), None) = (drafts.iter().find_map(needs), &self.prompts) {
            self.prompts = Some(self.prepare(&path, place)?);
        }
        let finish = Finish {
            tokenizer: self.tokenizer,
            prompts: self.prompts.as_ref(),
            template: self.template,
            check: self.check,
            given_osl: self.options.osl.is_some(),
            strips_images: self.options.uuid_and_strip,
            format: self.format,
        };
        for result in parallel::map(&mut self.caches, drafts, |cache, draft| finish.conversation(draft, cache)) {
            match result? {
                Ok(Finished { conversation, inexact, attached }) => {
                    self.inexact += inexact;
                    self.summary.attached += attached;
                    self.hand_over(conversation)?;
                }
                Err(reason) => *self.summary.rows_skipped.entry(reason.into()).or_default() += 1,
            }
        }
        self.check = self.prompts.as_ref().map_or(Check::Count, |prompts| prompts.check_after(self.inexact == 0));
        Ok(())
    }

    fn hand_over(&mut self, mut conversation: Conversation) -> Result<(), Error> {
        if conversation.session_id.is_empty() {
            conversation.session_id = format!("session_{:06}", self.summary.conversations);
        }
        self.summary.add(&conversation);
        (self.sink)(conversation)
    }

    fn prepare(&self, path: &Path, place: crate::jsonl::Place) -> Result<Prompts, Error> {
        let tokenizer = self.tokenizer.ok_or_else(|| {
            let what = format!("{} rows with a length need a tokenizer; give --tokenizer", self.format.name());
            place.error(path, what)
        })?;
        let block_size = self.options.block_size(self.format);
        let corpus = match self.options.corpus {
            Some(Source::Coding) => Corpus::coding(tokenizer),
            _ => Corpus::sonnet(tokenizer),
        };
        Ok(Prompts::new(corpus, self.options.seed, trace_id(&self.options.path)?, block_size))
    }

    fn add_to(self, summary: &mut Summary) {
        summary.conversations = self.summary.conversations;
        summary.requests = self.summary.requests;
        summary.attached = self.summary.attached;
        summary.first_timestamp_ns = self.summary.first_timestamp_ns;
        summary.last_timestamp_ns = self.summary.last_timestamp_ns;
        for (reason, rows) in self.summary.rows_skipped {
            *summary.rows_skipped.entry(reason).or_default() += rows;
        }
        if self.inexact > 0 {
            summary.rows_adjusted.insert(INEXACT.into(), self.inexact);
        }
    }
}

/// What drafts become conversations with.
struct Finish<'a> {
    tokenizer: Option<&'a Tokenizer>,
    prompts: Option<&'a Prompts>,
    template: Option<Templated<'a>>,
    check: Check,
    given_osl: bool,
    strips_images: bool,
    format: Format,
}

/// A conversation as it goes to the sink.
struct Finished {
    conversation: Conversation,
    /// Prompts that are not as long as asked.
    inexact: u64,
    /// Files of media that were read for it.
    attached: u64,
}

impl Finish<'_> {
    /// The conversation of a draft, or why it is left out.
    fn conversation(&self, draft: Draft, cache: &mut Cache) -> Result<Result<Finished, &'static str>, Error> {
        let Draft { path, session_id, context, system, mut steps } = draft;
        let (mut inexact, mut attached) = (0, 0);
        if self.strips_images {
            strip_known_images(&mut steps);
        }
        let mut turns = Vec::with_capacity(steps.len());
        for mut step in steps {
            let place = step.place;
            attached += attachment::embed(&mut step.turn, &path).map_err(|e| place.error(&path, e))?;
            let (is_counted, is_made) =
                (matches!(step.prompt, Prompt::Counted), matches!(step.prompt, Prompt::Synthetic { .. }));
            match self.turn(step, cache).map_err(|e| place.error(&path, e))? {
                Ok((mut turn, exact)) => {
                    if !is_counted {
                        self.apply_template(&mut turn, turns.is_empty(), is_made, context);
                    }
                    inexact += u64::from(!exact);
                    turns.push(turn);
                }
                Err(reason) => return Ok(Err(reason)),
            }
        }
        let session_id = session_id.unwrap_or_default();
        let conversation = Conversation { session_id, turns, context, system, ..Conversation::default() };
        Ok(Ok(Finished { conversation, inexact, attached }))
    }

    /// Counts a turn as a chat template writes it, if there is one.
    fn apply_template(&self, turn: &mut Turn, is_first: bool, is_made: bool, context: Context) {
        let (Some(template), Some(tokens)) = (&self.template, turn.input_tokens) else { return };
        let is_alone = is_first || turn.reset_context || context == Context::MessageArray;
        turn.input_tokens = Some(match (is_alone, context) {
            (true, _) if is_made => template.of_text(tokens),
            (true, _) => template.alone(turn, tokens),
            (false, context) => template.added(turn, tokens, (context == Context::DeltasWithoutResponses).into()),
        });
    }

    fn turn(&self, step: Step, cache: &mut Cache) -> Result<Result<(Turn, bool), &'static str>, Error> {
        let Step { place, mut turn, prompt } = step;
        match (prompt, self.prompts) {
            (Prompt::Synthetic { length, hash_ids }, Some(prompts)) => {
                let made = prompts.prompt(place.number(), length, &hash_ids, self.check, cache)?;
                turn.input_tokens = Some(made.tokens);
                turn.texts = vec![made.text.into()];
                return Ok(Ok((turn, made.tokens == length)));
            }
            (Prompt::Answered(answer), _) => {
                let tokenizer = self
                    .tokenizer
                    .ok_or_else(|| Error(format!("{} rows need a tokenizer; give --tokenizer", self.format.name())))?;
                if let Some(reason) = sharegpt::settle(&mut turn, &answer, tokenizer, self.given_osl) {
                    return Ok(Err(reason));
                }
            }
            (Prompt::Counted, _) => {}
            _ => {
                if let Some(tokenizer) = self.tokenizer {
                    turn.input_tokens = Some(body_text::input_tokens(&turn, tokenizer));
                }
            }
        }
        Ok(Ok((turn, true)))
    }
}

/// Leaves out the content of images whose key an earlier turn sent together with its content. Within one turn they stay:
/// a server looks all of a request's keys up before it keeps anything.
fn strip_known_images(steps: &mut [Step]) {
    let mut known: HashSet<String> = HashSet::new();
    for step in steps {
        let mut new = Vec::new();
        for image in &mut step.turn.images {
            for (content, key) in image.contents.iter_mut().zip(&image.uuids) {
                if known.contains(key) {
                    content.clear();
                } else if !content.is_empty() {
                    new.push(key.clone());
                }
            }
        }
        known.extend(new);
    }
}

/// The first 16 hexadecimal digits of the SHA-256 of the file's bytes, as they are stored.
fn trace_id(path: &Path) -> Result<String, Error> {
    let failed = |e: std::io::Error| crate::source::failed(path, &e);
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match std::io::Read::read(&mut file, &mut buffer).map_err(failed)? {
            0 => break,
            read => digest.update(&buffer[..read]),
        }
    }
    Ok(digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}
