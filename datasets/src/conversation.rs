//! The nouns of a dataset: conversations, their turns, and what a build of them adds up to.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::Error;

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
}

/// Takes the conversations one by one, in order; an error of its own stops the build and comes back from it.
pub type Sink<'a> = &'a mut dyn FnMut(Conversation) -> Result<(), Error>;

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
