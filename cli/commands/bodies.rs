//! The request bodies of a run: built from the dataset, or taken from where an earlier run kept them.

use super::Failure;
use super::body_cache::{Cache, Unchecked};
use super::cache_bust::{self, Marker};
use super::pictures::Pictures;
use crate::config::{FixedSchedule, Input, Loop, ProfileConfig, Replay};
use crate::refusal::Refusal;
use maser_datasets::file::Format;
use maser_datasets::tokens::Tokenizer;
use maser_datasets::{Context, Conversation, Error, Spec, Summary, synthetic};
use maser_engine::clock::Nanos;
use maser_engine::endpoint::{self, Kind, Unfit};
use maser_engine::log::{self, Media, RequestInfo};
use maser_engine::plan::{History, Marks, Requests, RequestsBuilder, Turn};
use std::path::Path;
use std::sync::Arc;

/// The bodies of a run and what is known of each.
#[derive(Debug)]
pub(super) struct Bodies {
    pub(super) requests: Arc<Requests>,
    pub(super) summary: Summary,
    /// The file of a cache that they were taken from without being looked at.
    pub(super) unchecked: Option<Unchecked>,
}

impl Bodies {
    pub(super) fn new(mut requests: Requests, summary: Summary, marks: Marks) -> Self {
        requests.set_marks(marks);
        Self { requests: Arc::new(requests), summary, unchecked: None }
    }

    /// The id of the conversation that request `index` belongs to.
    pub(super) fn conversation(&self, index: u32) -> &str {
        log::requests_in(self.requests.table()).nth(index as usize).map_or("", |row| row.conversation)
    }
}

/// The bodies of the run: from the cache if they are there, else built, into an arena that lies in `dir` or is kept.
pub(super) fn bodies(config: &mut ProfileConfig, seed: u64, dir: &Path) -> Result<Bodies, Failure> {
    let mut bodies = found_or_built(config, seed, dir)?;
    if let Some(requests) = Arc::get_mut(&mut bodies.requests) {
        requests.set_hidden(config.hidden());
    }
    Ok(bodies)
}

fn found_or_built(config: &mut ProfileConfig, seed: u64, dir: &Path) -> Result<Bodies, Failure> {
    let spec = spec(config, seed);
    let Some(cache) = Cache::of(config, &spec)? else {
        return build(config, (&spec, seed), RequestsBuilder::new(dir).map_err(full(dir))?, dir)?.finish(dir);
    };
    let key = match cache.find()? {
        Ok(found) => return Ok(found),
        Err(key) => key,
    };
    let dir = cache.make_dir()?;
    let built = build(config, (&spec, seed), RequestsBuilder::kept_in(dir).map_err(full(dir))?, dir)?;
    let why = match &built {
        built if built.summary.attached > 0 => {
            "--dataset-cache has no effect: rows name files of images, audio or video, whose changes would not show"
                .into()
        }
        built if built.builder.bytes() > cache.most => format!(
            "--dataset-cache has no effect: the request bodies take {} bytes, and --dataset-cache-size is {}",
            built.builder.bytes(),
            cache.most
        ),
        _ => return cache.keep(built, &key),
    };
    config.notes.push(why);
    built.finish(dir)
}

pub(super) fn full(dir: &Path) -> impl Fn(std::io::Error) -> Failure + '_ {
    |e| Failure::Failed(format!("cannot write request bodies under {}: {e}", dir.display()))
}

/// Bodies whose arena is not closed yet.
pub(super) struct Built {
    pub(super) builder: RequestsBuilder,
    pub(super) summary: Summary,
    pub(super) marks: Marks,
}

impl Built {
    pub(super) fn finish(self, dir: &Path) -> Result<Bodies, Failure> {
        let requests = self.builder.finish().map_err(full(dir))?;
        Ok(Bodies::new(requests, self.summary, self.marks))
    }
}

fn build(
    config: &ProfileConfig,
    (spec, seed): (&Spec, u64),
    mut builder: RequestsBuilder,
    dir: &Path,
) -> Result<Built, Failure> {
    let tokenizer = tokenizer(config)?;
    let options = options(config);
    let kind = config.endpoint.kind;
    let how = (&config.replay, !config.tokenizer.chat_template);
    let (mut body, mut failed) = (Vec::new(), None);
    let marker = Marker::new(config.cache_bust, config.replay.open == Loop::Strict, tokenizer.as_ref());
    let spec = with_room(spec.clone(), marker, config.system_prompt.is_some());
    let pictures = Pictures::of(config, &spec, tokenizer.as_ref())?;
    let mut models = config.models.selector(seed);
    let built = spec.build(tokenizer.as_ref(), &mut |mut conversation| {
        pictures.put(&mut conversation);
        if let Some(models) = &mut models {
            models.put(&mut conversation);
        }
        if let Some(marker) = marker {
            marker.put(&mut conversation).map_err(|unfit| Error(unfit.0))?;
        }
        match add(&conversation, kind, &options, &mut builder, &mut body, how) {
            Ok(()) => Ok(()),
            Err(Unbuilt::Unfit(unfit)) => Err(Error(unfit.0)),
            Err(Unbuilt::Full(e)) => {
                let sentence = Error(e.to_string());
                failed = Some(e);
                Err(sentence)
            }
        }
    });
    if let Some(e) = failed {
        return Err(full(dir)(e));
    }
    let mut summary = built.map_err(|e| Refusal::new(e.0))?;
    summary.attached += pictures.len();
    if builder.is_empty() {
        return Err(Refusal::new("--input-file: no row is left to send after the filters").into());
    }
    if config.fixed_schedule == FixedSchedule::Yes {
        builder.sort_sessions();
    }
    Ok(Built { builder, summary, marks: cache_bust::marks(config.cache_bust) })
}

/// Generated texts leave room for the marker.
fn with_room(spec: Spec, marker: Option<Marker>, given_system: bool) -> Spec {
    match (spec, marker) {
        (Spec::Synthetic(mut made), Some(marker)) => {
            made.room = marker.room(made.prefix.makes_system(), given_system);
            Spec::Synthetic(made)
        }
        (Spec::WithSystem { text, of }, marker) => {
            Spec::WithSystem { text, of: Box::new(with_room(*of, marker, given_system)) }
        }
        (spec, _) => spec,
    }
}

/// The tokenizer the settings name, if the run needs one: to make prompts, or to count what the server is not trusted
/// to.
fn tokenizer(config: &ProfileConfig) -> Result<Option<Tokenizer>, Failure> {
    let trace = matches!(&config.input, Input::File { .. });
    if trace && config.use_server_token_count && !makes_prompts(config) {
        return Ok(None);
    }
    let tokenizer =
        Tokenizer::open_found(&config.tokenizer.found).and_then(|tokenizer| match config.tokenizer.chat_template {
            true => tokenizer.with_chat_template(),
            false => Ok(tokenizer),
        });
    tokenizer.map(Some).map_err(|e| Refusal::new(e.0).into())
}

/// Whether prompts are made and not given.
fn makes_prompts(config: &ProfileConfig) -> bool {
    match &config.input {
        Input::Synthetic { .. } => true,
        Input::File { path, format, .. } => Format::of(*format, path).is_ok_and(Format::needs_tokenizer),
    }
}

fn spec(config: &ProfileConfig, seed: u64) -> Spec {
    let spec = match &config.input {
        Input::Synthetic(made) => Spec::Synthetic(Box::new(synthetic::Options { seed, ..made.options.clone() })),
        Input::File { path, .. } => {
            let mut options = config.input.file_options(&config.window, seed).unwrap_or_default();
            let is_baseten = |format: Format| format == Format::BasetenTrace;
            // Its pauses are what is left of the gaps between recorded times, so its reader has to know.
            if config.replay.open == Loop::Closed
                && options.format.map_or_else(|| Format::detect(path).is_ok_and(is_baseten), is_baseten)
            {
                options.replay.open_loop = Some(false);
            }
            Spec::File(Box::new(options))
        }
    };
    match config.system_prompt.clone() {
        Some(text) => Spec::WithSystem { text, of: Box::new(spec) },
        None => spec,
    }
}

/// Why a conversation did not become requests.
enum Unbuilt {
    /// The endpoint cannot carry it.
    Unfit(Unfit),
    /// The arena cannot be written.
    Full(std::io::Error),
}

impl From<std::io::Error> for Unbuilt {
    fn from(e: std::io::Error) -> Self {
        Self::Full(e)
    }
}

fn add(
    conversation: &Conversation,
    kind: Kind,
    options: &endpoint::Options,
    builder: &mut RequestsBuilder,
    body: &mut Vec<u8>,
    (replay, joins): (&Replay, bool),
) -> Result<(), Unbuilt> {
    let alone = replay.open == Loop::Strict;
    let mut media = Media::NONE;
    for (k, turn) in conversation.turns.iter().enumerate() {
        if k == 0 || alone {
            builder.begin_session();
        }
        body.clear();
        let splice = kind.body(options, conversation, k, body).map_err(Unbuilt::Unfit)?;
        if alone || turn.reset_context || conversation.context == Context::MessageArray {
            media = Media::NONE;
        }
        media.images += kind.images(body);
        media.audio_seconds = media.audio_seconds.or(turn.audio_seconds);
        let history = match conversation.context {
            Context::DeltasWithoutResponses => History::OwnAndReply,
            Context::DeltasWithResponses => History::Own,
            Context::MessageArray => History::None,
        };
        let delay = turn.delay_ns.filter(|_| k > 0).map_or(0, |delay| think_time(delay, replay));
        let at = planned(conversation, k, replay).map_err(Unbuilt::Unfit)?;
        builder.push_turn(body, Turn { splice, history, reset: turn.reset_context, delay, at })?;
        let has_later = k + 1 < conversation.turns.len();
        builder.describe(&RequestInfo {
            conversation: &conversation.session_id,
            turn: k as u32,
            // Where there is no text, there is no count of it.
            input_tokens: input_tokens(conversation, k, alone, joins).filter(|n| *n > 0 && kind.tokenizes_input()),
            max_tokens: turn.max_tokens,
            keeps_reply: history == History::OwnAndReply && splice.is_some() && has_later && !alone,
            resets: turn.reset_context,
            media,
        });
    }
    Ok(())
}

/// When the trace has turn `k` sent. In a closed loop a later turn goes when the one before it has been answered and its
/// delay has passed: its timestamp alone does not tell that delay, for the answer lies in between.
fn planned(conversation: &Conversation, k: usize, replay: &Replay) -> Result<Option<Nanos>, Unfit> {
    let turn = &conversation.turns[k];
    match (replay.open, turn.timestamp_ns, turn.delay_ns) {
        (Loop::Closed, Some(_), None) if k > 0 => Err(Unfit(format!(
            "--no-open-loop-replay: turn {} of session {} has a timestamp and no delay, and so no pause after the answer \
             before it",
            k + 1,
            conversation.session_id
        ))),
        (Loop::Closed, ..) if k > 0 => Ok(None),
        (_, at, _) => Ok(at),
    }
}

/// Input tokens of turn `k`, without the server's answers before it. `alone`: the turn is a session of its own, and carries
/// nothing of the turns before it. `joins`: the texts of an input are counted joined with one space, as the reference counts
/// them; it is a token of its own before a text that begins with white space, and part of the first word else.
fn input_tokens(conversation: &Conversation, k: usize, alone: bool, joins: bool) -> Option<u32> {
    let all = conversation.input_tokens(k)?;
    if conversation.context == Context::MessageArray || k == 0 {
        return Some(all);
    }
    let turns = conversation.turns.get(..=k)?;
    if alone {
        let before = conversation.input_tokens(k - 1).filter(|_| !turns[k].reset_context).unwrap_or(0);
        let head = conversation.head_tokens.unwrap_or(0);
        return Some(if turns[k].reset_context { all } else { all - before.min(all) + head });
    }
    let first = turns.iter().rposition(|turn| turn.reset_context).unwrap_or(0);
    let begins_with_space = |turn: &&maser_datasets::Turn| {
        turn.all_texts().next().is_some_and(|text| text.starts_with(char::is_whitespace))
    };
    let joints = if joins { turns[first + 1..].iter().filter(begins_with_space).count() } else { 0 };
    Some(all.saturating_add(joints as u32))
}

/// A delay of the input as it is waited for.
fn think_time(delay: Nanos, replay: &Replay) -> Nanos {
    let faster = (delay as f64 / replay.speedup).round() as Nanos;
    replay.turn_delay_cap.map_or(faster, |cap| faster.min(cap))
}

/// The options of request bodies.
pub(super) fn options(config: &ProfileConfig) -> endpoint::Options {
    endpoint::Options {
        model: config.models.first().to_owned(),
        streaming: config.endpoint.streaming,
        use_legacy_max_tokens: config.endpoint.use_legacy_max_tokens,
        per_chunk_usage: config.endpoint.per_chunk_usage,
        use_server_token_count: config.use_server_token_count,
        extra: config.endpoint.extra.clone(),
        template: config.endpoint.template.clone(),
    }
}
