//! What the inference protocols say: a turn becomes a request body, a response event becomes a reading.
//!
//! One file per endpoint type and one arm of [`Kind`] each.

mod audio_transcription;
mod body;
mod chat;
mod chat_embeddings;
mod completions;
mod content;
mod embeddings;
mod follow;
mod found;
mod hf_tei_embeddings;
mod huggingface_generate;
mod image_edit;
mod image_generation;
mod image_retrieval;
mod images;
mod kserve;
mod messages;
mod multipart;
mod nim_embeddings;
mod parts;
mod path;
mod rankings;
mod raw;
mod reply;
mod responses;
mod shape;
mod solido_rag;
mod template;
mod usage;
mod video_generation;

pub use crate::wire::json::Unreadable;
pub use crate::wire::sse::is_done;
pub use follow::{Follow, FollowUps};
pub use path::ResponseField;
pub use reply::Reply;
pub use shape::Shapes;
pub use usage::Usage;

use crate::wire::json::Scanner;
use images::Images;
use maser_datasets::{Context, Conversation, Turn};
use serde_json::{Map, Value};
use smallvec::SmallVec;
use std::fmt;

/// The endpoint types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// OpenAI chat completions.
    Chat,
    /// OpenAI completions.
    Completions,
    /// OpenAI Responses.
    Responses,
    /// Anthropic messages.
    Messages,
    /// OpenAI embeddings.
    Embeddings,
    /// Embeddings of chat messages, as vLLM has them.
    ChatEmbeddings,
    /// NVIDIA NIM embeddings of texts, images, or pairs.
    NimEmbeddings,
    /// Embeddings of Hugging Face's text-embeddings-inference.
    HfTeiEmbeddings,
    /// Rankings of Hugging Face's text-embeddings-inference.
    HfTeiRankings,
    /// NVIDIA NIM rankings.
    NimRankings,
    /// Cohere rankings.
    CohereRankings,
    /// Generation of Hugging Face's text-generation-inference.
    HuggingfaceGenerate,
    /// OpenAI image generation.
    ImageGeneration,
    /// OpenAI image edits.
    ImageEdit,
    /// OpenAI videos: submitted, then asked for until done.
    VideoGeneration,
    /// NVIDIA NIM object detection and its like.
    ImageRetrieval,
    /// OpenAI audio transcription.
    AudioTranscription,
    /// SOLIDO retrieval-augmented generation.
    SolidoRag,
    /// Ready-made bodies, sent as they are.
    Raw,
    /// Bodies made from a template of the user's.
    Template,
    /// KServe v2 inference: tensors of text.
    KserveInfer,
    /// KServe v2 generate extension.
    KserveGenerate,
}

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// JSON.
    Json,
    /// `multipart/form-data`, parts divided by [`BOUNDARY`].
    Multipart,
}

/// How a key is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// `Authorization: Bearer KEY`.
    Bearer,
    /// `x-api-key: KEY` and `anthropic-version`.
    ApiKey,
}

pub use multipart::BOUNDARY;
pub(crate) use multipart::encode_base64;
pub use parts::form_as_json;

/// Everything that is fixed about an endpoint type: one constant a file.
struct Facts {
    name: &'static str,
    /// Below the server's base URL; `{model}` stands for the model.
    path: &'static str,
    /// The path of a stream, if it is another one.
    streaming_path: &'static str,
    can_stream: bool,
    produces_tokens: bool,
    tokenizes_input: bool,
    /// Images, audio, video.
    media: [bool; 3],
    /// Where they are counted.
    images: Images,
    holds_conversations: bool,
    title: &'static str,
    encoding: Encoding,
    /// Fields that are made of the input and of nothing else.
    reserved: &'static [&'static str],
    auth: Auth,
    body: Write,
    /// How a payload is read where there is no `walk`.
    read: Read,
    /// Reads a payload by one walk with the scanner given, so that [`Shapes`] spare most of the walks. Nothing may depend on
    /// a text that goes into the reading but whether it is empty, or on a count taken by
    /// [`Scanner::count_as`](crate::wire::json::Scanner::count_as).
    walk: Option<Walk>,
    /// Takes from a payload what is more than text.
    reply: fn(&mut Reply, &Reading<'_>),
    /// Writes the collected answer.
    message: fn(&Reply, &mut Vec<u8>) -> bool,
    /// Whether an answer may ask for more before its request is done: then `next` says for what.
    follows_up: bool,
    next: follow::Next,
}

type Write = fn(&Options, &Conversation, usize, &mut Vec<u8>) -> Result<Splice, Unfit>;
type Read = for<'a> fn(&'a [u8], &mut Reading<'a>) -> Result<(), Unreadable>;

type Walk = for<'a> fn(Scanner<'a>, &mut Reading<'a>) -> Result<(), Unreadable>;

impl Facts {
    /// What most endpoints have in common: JSON in and out, no stream, nothing to carry on.
    const PLAIN: Self = Self {
        name: "",
        path: "",
        streaming_path: "",
        can_stream: false,
        produces_tokens: false,
        tokenizes_input: true,
        media: [false; 3],
        images: Images::Uncounted,
        holds_conversations: false,
        title: "LLM Metrics",
        encoding: Encoding::Json,
        reserved: &[],
        auth: Auth::Bearer,
        body: raw::body,
        read: found::read,
        walk: None,
        reply: reply::plain,
        message: reply::no_message,
        follows_up: false,
        next: follow::nothing,
    };
}

/// What all request bodies of a run have in common.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Options {
    /// Model of turns that name none.
    pub model: String,
    /// Ask for a stream of events.
    pub streaming: bool,
    /// `max_tokens` in place of `max_completion_tokens`.
    pub use_legacy_max_tokens: bool,
    /// Ask for usage counts with every event of a stream.
    pub per_chunk_usage: bool,
    /// The results count tokens as the server does: Responses must be asked for usage.
    pub use_server_token_count: bool,
    /// Fields merged over every body, before the turn's own.
    pub extra: Map<String, Value>,
    /// Source of the template of [`Kind::Template`].
    pub template: Option<String>,
}

/// Why a turn cannot become a body of this endpoint type: a sentence for the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit(pub String);

impl Unfit {
    fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unfit {}

impl Kind {
    /// Every endpoint type.
    pub const ALL: &'static [Self] = &[
        Self::Chat,
        Self::Completions,
        Self::Responses,
        Self::Messages,
        Self::Embeddings,
        Self::ChatEmbeddings,
        Self::NimEmbeddings,
        Self::HfTeiEmbeddings,
        Self::HfTeiRankings,
        Self::NimRankings,
        Self::CohereRankings,
        Self::HuggingfaceGenerate,
        Self::ImageGeneration,
        Self::ImageEdit,
        Self::VideoGeneration,
        Self::ImageRetrieval,
        Self::AudioTranscription,
        Self::SolidoRag,
        Self::Raw,
        Self::Template,
        Self::KserveInfer,
        Self::KserveGenerate,
    ];

    #[inline]
    fn facts(self) -> &'static Facts {
        match self {
            Self::Chat => &chat::FACTS,
            Self::Completions => &completions::FACTS,
            Self::Responses => &responses::FACTS,
            Self::Messages => &messages::FACTS,
            Self::Embeddings => &embeddings::FACTS,
            Self::ChatEmbeddings => &chat_embeddings::FACTS,
            Self::NimEmbeddings => &nim_embeddings::FACTS,
            Self::HfTeiEmbeddings => &hf_tei_embeddings::FACTS,
            Self::HfTeiRankings => &rankings::HF_TEI,
            Self::NimRankings => &rankings::NIM,
            Self::CohereRankings => &rankings::COHERE,
            Self::HuggingfaceGenerate => &huggingface_generate::FACTS,
            Self::ImageGeneration => &image_generation::FACTS,
            Self::ImageEdit => &image_edit::FACTS,
            Self::VideoGeneration => &video_generation::FACTS,
            Self::ImageRetrieval => &image_retrieval::FACTS,
            Self::AudioTranscription => &audio_transcription::FACTS,
            Self::SolidoRag => &solido_rag::FACTS,
            Self::Raw => &raw::FACTS,
            Self::Template => &template::FACTS,
            Self::KserveInfer => &kserve::INFER,
            Self::KserveGenerate => &kserve::GENERATE,
        }
    }

    /// The name in files and on the command line.
    pub fn name(self) -> &'static str {
        self.facts().name
    }

    /// The type of that name, in any case, with hyphens or underscores.
    pub fn from_name(name: &str) -> Option<Self> {
        let plain = |c: char| match c {
            '-' => '_',
            c => c.to_ascii_lowercase(),
        };
        Self::ALL.iter().copied().find(|kind| kind.name().chars().eq(name.chars().map(plain)))
    }

    /// The path below the server's base URL, empty where the URL is the whole address; `{model}` stands for the model.
    pub fn path(self, streaming: bool) -> &'static str {
        let facts = self.facts();
        if streaming && !facts.streaming_path.is_empty() { facts.streaming_path } else { facts.path }
    }

    /// Title of the console table.
    pub fn metrics_title(self) -> &'static str {
        self.facts().title
    }

    /// Whether it can answer with a stream of events.
    pub fn can_stream(self) -> bool {
        self.facts().can_stream
    }

    /// Whether its answers are counted in tokens.
    pub fn produces_tokens(self) -> bool {
        self.facts().produces_tokens
    }

    /// Whether its inputs are counted in tokens.
    pub fn tokenizes_input(self) -> bool {
        self.facts().tokenizes_input
    }

    /// Whether its requests carry images.
    pub fn takes_images(self) -> bool {
        self.facts().media[0]
    }

    /// How many images a request of it carries, as the reference counts them: content parts of the messages of its body.
    pub fn images(self, body: &[u8]) -> u32 {
        images::count(self.facts().images, body)
    }

    /// Whether its requests carry audio.
    pub fn takes_audio(self) -> bool {
        self.facts().media[1]
    }

    /// Whether its requests carry video.
    pub fn takes_video(self) -> bool {
        self.facts().media[2]
    }

    /// Whether its answers are videos.
    pub fn makes_videos(self) -> bool {
        self == Self::VideoGeneration
    }

    /// Whether a conversation of several turns can be held with it.
    pub fn holds_conversations(self) -> bool {
        self.facts().holds_conversations
    }

    /// How its bodies are written.
    pub fn encoding(self) -> Encoding {
        self.facts().encoding
    }

    /// Fields of its bodies that extras cannot set: they are made of the input.
    pub fn reserved_fields(self) -> &'static [&'static str] {
        self.facts().reserved
    }

    /// How a key is sent to it.
    pub fn auth(self) -> Auth {
        self.facts().auth
    }

    /// Appends the request body of the conversation's turn `k` (which must exist), history left out: compact JSON, fields
    /// in the endpoint's order. A turn with a ready-made payload is that payload and nothing else, as
    /// a form where the endpoint takes one. Says where the history
    /// goes, counted from where `out` ended before.
    ///
    /// # Errors
    /// The turn has what the endpoint cannot carry, or lacks what it needs. What was appended is of no use.
    pub fn body(
        self,
        options: &Options,
        conversation: &Conversation,
        k: usize,
        out: &mut Vec<u8>,
    ) -> Result<Splice, Unfit> {
        let facts = self.facts();
        if let Some(payload) = &conversation.turns[k].payload {
            match facts.encoding {
                Encoding::Json => put_json(out, payload),
                Encoding::Multipart => parts::put_form(payload, out).map_err(|what| {
                    let session = &conversation.session_id;
                    Unfit(format!("--endpoint-type {}: {what}, in session {session}", facts.name))
                })?,
            }
            return Ok(Splice::NONE);
        }
        if !facts.holds_conversations && conversation.turns.len() > 1 && conversation.context != Context::MessageArray {
            return Err(Unfit(format!(
                "--endpoint-type {}: a request has no place for earlier turns, and session {} has {} turns",
                facts.name,
                conversation.session_id,
                conversation.turns.len()
            )));
        }
        (facts.body)(options, conversation, k, out)
    }

    /// Whether a request may take several exchanges, see [`next`](Self::next).
    pub fn follows_up(self) -> bool {
        self.facts().follows_up
    }

    /// What a request goes on with, given the whole body of an answer; `None` if it is done, well or badly.
    ///
    /// # Errors
    /// The answer asks for more and does not say where that is to be had.
    pub fn next(self, body: &[u8], how: &FollowUps) -> Result<Option<Follow>, Unfit> {
        (self.facts().next)(body, how)
    }

    /// Reads one JSON payload: the data of an event, or a whole response body.
    ///
    /// # Errors
    /// It cannot be read.
    #[inline]
    pub fn read<'a>(self, json: &'a [u8]) -> Result<Reading<'a>, Unreadable> {
        let mut reading = Reading::default();
        self.read_into(json, &mut reading).map(|()| reading)
    }

    /// The same into a fresh reading where it lies: it is some hundred bytes, and moving it costs as much as reading a
    /// short event.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    #[inline]
    pub fn read_into<'a>(self, json: &'a [u8], reading: &mut Reading<'a>) -> Result<(), Unreadable> {
        match self {
            Self::Chat => chat::walk(Scanner::new(json), reading),
            other => match other.facts() {
                Facts { walk: Some(walk), .. } => walk(Scanner::new(json), reading),
                facts => (facts.read)(json, reading),
            },
        }
    }
}

/// Where a session's history goes into a body. The history is a run of JSON values with a comma after each; it stands
/// right before the turn's own values, `body[at..end]`, which have commas between them and none after.
///
/// Where a request can continue the server's own copy of the session instead of carrying the history (Responses), it is
/// made from the same body: `body[..head]`, then `body[at..chain]`, then `,"previous_response_id":"<id>"` with the id as
/// [`Reply::id`] has it, then `body[chain..]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Splice {
    /// Offset of the turn's own values.
    pub at: u32,
    /// Where they end.
    pub end: u32,
    /// Where the values at the head of every request begin; the turn's own follow them.
    pub head: u32,
    /// Where the name of the answer that is continued goes; [`u32::MAX`] where nothing is continued.
    pub chain: u32,
}

impl Splice {
    /// The body holds all it needs.
    pub const NONE: Self = Self { at: u32::MAX, end: u32::MAX, head: u32::MAX, chain: u32::MAX };

    /// Whether history can go into the body.
    pub fn is_some(self) -> bool {
        self.at != u32::MAX
    }

    /// Whether the request can continue an answer by its name.
    pub fn chains(self) -> bool {
        self.chain != u32::MAX
    }
}

/// The latest of what turns `0..=k` say of something that holds until said anew: tools, system blocks.
fn latest<'t>(
    conversation: &'t Conversation,
    k: usize,
    field: impl Fn(&'t Turn) -> Option<&'t Value>,
) -> Option<&'t Value> {
    conversation.turns[..=k].iter().rev().find_map(field)
}

/// Appends `value` as compact JSON.
fn put_json(out: &mut Vec<u8>, value: &(impl serde::Serialize + ?Sized)) {
    // Neither a write to a vector nor a value with string keys can fail.
    let _ = serde_json::to_writer(out, value);
}

/// What one payload says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reading<'a> {
    /// Raw (escaped) JSON strings, in order, that are visible output: content, names and arguments of tool calls. None is
    /// empty.
    pub text: Fragments<'a>,
    /// Raw JSON strings that are reasoning. None is empty.
    pub reasoning: Fragments<'a>,
    /// Token counts, if any came.
    pub usage: Option<Usage>,
    /// The raw JSON value of an error.
    pub error: Option<&'a [u8]>,
    /// The answer says that it is complete: it gives a reason for its end.
    pub finish: bool,
    /// Results that are no text: embeddings, rankings, images, detections.
    pub units: u32,
    /// It says again what earlier payloads said in pieces: it counts as content only if none of those came.
    pub repeats: bool,
    /// Which of several answers to one request this is of, from 0.
    pub choice: u32,
    /// Raw JSON of what a reply must look at beyond text, see [`Reply`]; empty for most payloads.
    pub parts: &'a [u8],
    /// Raw JSON of the server's account of its speculative decoding; empty for most payloads.
    pub speculation: &'a [u8],
}

impl<'a> Reading<'a> {
    /// Notes the value of an `error` field; `null` is none.
    fn set_error(&mut self, raw: &'a [u8]) {
        if raw != b"null" {
            self.error = Some(raw);
        }
    }

    /// Whether it carries output or reasoning: whether it counts as a response with content.
    #[inline]
    pub fn has_content(&self) -> bool {
        !self.text.is_empty() || !self.reasoning.is_empty() || self.units > 0
    }
}

/// Content, and the names and arguments of three tool calls.
const INLINE: usize = 8;

/// A short list of slices that are not empty; it allocates only beyond eight.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fragments<'a>(SmallVec<[&'a [u8]; INLINE]>);

impl<'a> Fragments<'a> {
    /// Appends `raw` unless it is empty.
    #[inline]
    pub fn push(&mut self, raw: &'a [u8]) {
        if !raw.is_empty() {
            self.0.push(raw);
        }
    }

    /// The slices in order.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> {
        self.0.iter().copied()
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests;
