//! Files and generators that become the requests of a run.
//!
//! This crate knows nothing of time, sockets or cores: [`Spec::build`] streams [`Conversation`]s into a sink, one at a
//! time, so that a large dataset never has to stand in memory as text. Every stream of random numbers has a name and a
//! seed of its own ([`seed::Stream`]), so the same options give the same data on any machine.

pub mod analysis;
mod attachment;
mod azure;
mod bailian;
pub mod baseten;
mod blocks;
mod body_text;
mod burst_gpt;
pub mod compiled;
mod corpus;
pub mod error;
pub mod file;
mod format;
mod guard;
mod hub;
pub mod identity;
mod inputs_json;
mod intake;
mod jsonl;
pub mod lengths;
pub mod media;
mod moment;
mod mooncake;
mod multi_turn;
mod overhead;
mod parallel;
pub mod public;
mod questions;
mod random_pool;
pub mod rankings;
mod raw_payload;
pub mod rewrite;
mod sagemaker;
pub mod seed;
pub mod sequence;
mod sharegpt;
mod single_turn;
mod source;
mod spans;
mod speed_bench;
mod spool;
pub mod stats;
mod synthesis;
pub mod synthetic;
mod table;
pub mod texts;
pub mod tokens;

use std::borrow::Cow;
use std::collections::BTreeMap;

pub use attachment::image_data_url;
pub use error::Error;
pub use tokens::Tokenizer;

/// Content of one modality: a name where a ranking or a template asks for one, and the contents, which stand side by side
/// in one request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Media {
    /// `query`, `passages`, or whatever the file calls it; empty for none.
    pub name: String,
    /// Texts as they are; images and videos as a URL or `data:<mime>;base64,<data>`; audio as `<format>,<base64>`.
    pub contents: Vec<String>,
    /// Cache keys of images, one for each content, or empty.
    pub uuids: Vec<String>,
}

impl From<String> for Media {
    fn from(content: String) -> Self {
        Self { contents: vec![content], ..Self::default() }
    }
}

impl From<&str> for Media {
    fn from(content: &str) -> Self {
        content.to_owned().into()
    }
}

/// One request's worth of a conversation, independent of any endpoint's body format.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Turn {
    /// The texts of the turn; several stand side by side in one message.
    pub texts: Vec<Media>,
    /// Its images.
    pub images: Vec<Media>,
    /// Its audio clips.
    pub audios: Vec<Media>,
    /// Its videos.
    pub videos: Vec<Media>,
    /// `user` where the row names none.
    pub role: Option<String>,
    /// Overrides the run's model.
    pub model: Option<String>,
    /// Requested output length in tokens.
    pub max_tokens: Option<u32>,
    /// Planned send time, nanoseconds on the trace's own axis.
    pub timestamp_ns: Option<u64>,
    /// Wait after the session's previous turn, nanoseconds; a session's first turn has nothing to wait for.
    pub delay_ns: Option<u64>,
    /// Ready-made chat messages, sent as they are instead of `texts`.
    pub messages: Option<serde_json::Value>,
    /// The conversation so far is forgotten before this turn.
    pub reset_context: bool,
    /// Tool definitions; they hold for the session's later turns until others come.
    pub tools: Option<serde_json::Value>,
    /// System blocks in the Anthropic form; they hold like tools.
    pub system_blocks: Option<serde_json::Value>,
    /// A whole request body, sent as it is.
    pub payload: Option<serde_json::Value>,
    /// Fields merged last into the body.
    pub extra: serde_json::Map<String, serde_json::Value>,
    /// Length of the first audio clip in seconds.
    pub audio_seconds: Option<f64>,
    /// Tokens of all texts joined with single spaces, where already known.
    pub input_tokens: Option<u32>,
}

impl Turn {
    /// A turn of one text.
    pub fn of_text(text: String) -> Self {
        Self { texts: vec![text.into()], ..Self::default() }
    }

    /// All texts of the turn in order, names left aside.
    pub fn all_texts(&self) -> impl Iterator<Item = &str> {
        self.texts.iter().flat_map(|media| media.contents.iter().map(String::as_str))
    }
}

/// What the k-th request of a session carries beside its own turn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Context {
    /// All earlier turns and the server's answers to them, as they came.
    #[default]
    DeltasWithoutResponses,
    /// All earlier turns, which hold the recorded answers already; live answers are not looked at.
    DeltasWithResponses,
    /// Nothing: every turn holds the conversation so far.
    MessageArray,
}

/// A template of one session: an id and its turns in order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conversation {
    /// `session_000000` and so on for generated data, the file's own id where it has one.
    pub session_id: String,
    /// At least one.
    pub turns: Vec<Turn>,
    /// What later turns carry of earlier ones.
    pub context: Context,
    /// System prompt, at the head of every request of the session.
    pub system: Option<String>,
    /// A user message of its own that follows the system prompt in every request.
    pub user_context: Option<String>,
    /// Tokens of both, where known.
    pub head_tokens: Option<u32>,
}

impl Conversation {
    /// Input tokens of the request of turn `k` without the server's answers before it: the head, and what the request
    /// carries of earlier turns beside its own. None where one of these is not known.
    pub fn input_tokens(&self, k: usize) -> Option<u32> {
        let head = match (&self.system, &self.user_context) {
            (None, None) => 0,
            _ => self.head_tokens?,
        };
        let turns = self.turns.get(..=k)?;
        let first = match self.context {
            Context::MessageArray => k,
            _ => turns.iter().rposition(|turn| turn.reset_context).unwrap_or(0),
        };
        turns[first..].iter().try_fold(head, |sum, turn| Some(sum.saturating_add(turn.input_tokens?)))
    }

    /// Fills `head_tokens` where there is a head that has not been counted.
    fn count_head(&mut self, tokenizer: &Tokenizer) {
        if self.head_tokens.is_none() && (self.system.is_some() || self.user_context.is_some()) {
            let head = tokenizer.count_head(self.system.as_deref(), self.user_context.as_deref());
            self.head_tokens = Some(u32::try_from(head).unwrap_or(u32::MAX));
        }
    }
}

/// Takes the conversations one by one, in order; an error of its own stops the build and comes back from it.
pub type Sink<'a> = &'a mut dyn FnMut(Conversation) -> Result<(), Error>;

/// Where a run's requests come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Spec {
    /// Generated prompts.
    Synthetic(Box<synthetic::Options>),
    /// A file.
    File(Box<file::Options>),
    /// `--system-prompt`: the conversations of another kind, with a text before each system prompt of their own.
    WithSystem {
        /// The text, sent as it is; an empty line follows it where the conversation has a system prompt already.
        text: String,
        /// Where the conversations come from.
        of: Box<Spec>,
    },
}

/// What a build came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Summary {
    /// `synthetic`, or the name of the file's format.
    pub kind: Cow<'static, str>,
    /// Conversations given to the sink.
    pub conversations: u64,
    /// Turns of all of them.
    pub requests: u64,
    /// Rows that a filter left out, by reason.
    pub rows_skipped: BTreeMap<Cow<'static, str>, u64>,
    /// Rows that were taken otherwise than they stand, by reason.
    pub rows_adjusted: BTreeMap<Cow<'static, str>, u64>,
    /// The earliest timestamp among the rows taken, in file order or not.
    pub first_timestamp_ns: Option<u64>,
    /// The latest timestamp among the rows taken.
    pub last_timestamp_ns: Option<u64>,
    /// Whether the format is a recorded trace.
    pub is_trace: bool,
    /// Files of media that rows name and that were read.
    pub attached: u64,
}

impl Spec {
    /// Streams the conversations into `sink`, in order. With a tokenizer every turn's `input_tokens` is filled: counted
    /// for given texts, messages and payloads, exactly the length asked for where prompts are made.
    ///
    /// # Errors
    /// A sentence naming the flag, or file, line and field; or whatever `sink` returned. Conversations that went into
    /// the sink before stay there.
    pub fn build(&self, tokenizer: Option<&Tokenizer>, sink: Sink<'_>) -> Result<Summary, Error> {
        match self {
            Self::Synthetic(options) => options.build(tokenizer, sink),
            Self::File(options) => options.build(tokenizer, &mut |mut conversation| {
                if let Some(tokenizer) = tokenizer {
                    conversation.count_head(tokenizer);
                }
                sink(conversation)
            }),
            Self::WithSystem { text, of } => {
                // The same for all conversations that bring no head of their own.
                let alone = tokenizer.map(|tokenizer| tokenizer.count_head(Some(text), None) as u32);
                of.build(tokenizer, &mut |mut conversation| {
                    let own = conversation.system.take();
                    conversation.head_tokens = alone.filter(|_| own.is_none() && conversation.user_context.is_none());
                    conversation.system = Some(match own {
                        Some(own) => format!("{text}\n\n{own}"),
                        None => text.clone(),
                    });
                    if let Some(tokenizer) = tokenizer {
                        conversation.count_head(tokenizer);
                    }
                    sink(conversation)
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_s_tokens_are_those_it_carries() {
        let turn = |tokens| Turn { input_tokens: Some(tokens), ..Turn::default() };
        let mut conversation =
            Conversation { turns: vec![turn(10), turn(20), turn(40), turn(80)], ..Conversation::default() };
        let all = |conversation: &Conversation| [0, 1, 2, 3, 4].map(|k| conversation.input_tokens(k));
        assert_eq!(all(&conversation), [Some(10), Some(30), Some(70), Some(150), None]);
        conversation.system = Some("s".into());
        assert_eq!(all(&conversation), [None; 5]);
        conversation.head_tokens = Some(1);
        conversation.turns[2].reset_context = true;
        assert_eq!(all(&conversation), [Some(11), Some(31), Some(41), Some(121), None]);
        conversation.context = Context::MessageArray;
        assert_eq!(all(&conversation), [Some(11), Some(21), Some(41), Some(81), None]);
        conversation.turns[0].input_tokens = None;
        assert_eq!(conversation.input_tokens(0), None);
    }
}
