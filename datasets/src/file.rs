//! Datasets read from a file or a directory: the way of its rows to conversations.

mod intake;
mod options;
mod synthesis;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::file::intake::{Census, Intake};
pub use crate::file::options::{DEFAULT_BLOCK_SIZE, Options};
pub use crate::file::synthesis::Synthesis;
pub use crate::formats::Format;
pub use crate::formats::baseten::Replay;
use crate::formats::compiled;
use crate::formats::draft::{Draft, Prompt, Step};
pub use crate::formats::random_pool::Batch;
use crate::formats::sharegpt;
use crate::generate::blocks::{Cache, Prompts};
use crate::generate::corpus::{Check, Corpus};
use crate::generate::texts::Source;
use crate::media::attachment;
use crate::read::source;
use crate::tokens::Tokenizer;
use crate::tokens::body_text::{self, Templated};
use crate::{Context, Conversation, Error, Sink, Summary, Turn, parallel};

/// Sessions worked on at a time, and about how many bytes of text they may have together: bounds what stands in memory
/// beside the sink's own.
const BATCH_ROWS: usize = 1024;
const BATCH_BYTES: usize = 8 << 20;

const INEXACT: &str = "prompt of whole blocks that misses input_length";

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

    /// Hands over the sessions of the file, filtered and put together, prompts still to be made.
    pub(crate) fn sessions(
        &self,
        format: Format,
        f: &mut dyn FnMut(Draft) -> Result<(), Error>,
    ) -> Result<Summary, Error> {
        let mut intake = Intake::new(self, format, Census::take(self, format)?)?;
        format.read(self.selection(), &mut |draft| {
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

    fn nothing_left(&self, skipped: &BTreeMap<Cow<'static, str>, u64>) -> Error {
        if skipped.is_empty() {
            return source::empty(&self.path);
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

    fn prepare(&self, path: &Path, place: crate::read::jsonl::Place) -> Result<Prompts, Error> {
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
    let failed = |e: std::io::Error| crate::read::source::failed(path, &e);
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
