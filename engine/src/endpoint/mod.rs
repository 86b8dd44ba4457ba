//! What the inference protocols say: a turn becomes a request body, a response event becomes a reading.
//!
//! One file per endpoint type and one arm of [`Kind`] each.

mod chat;

pub use crate::wire::json::Unreadable;
pub use crate::wire::sse::is_done;

use crate::record::UNKNOWN;
use maser_datasets::{Conversation, Turn};
use serde_json::{Map, Value};

/// The endpoint types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// OpenAI chat completions.
    Chat,
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
    /// Fields merged over every body, before the turn's own.
    pub extra: Map<String, Value>,
}

impl Kind {
    /// Every endpoint type.
    pub const ALL: &'static [Self] = &[Self::Chat];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
        }
    }

    /// The type of that name, in any case, with hyphens or underscores.
    pub fn from_name(name: &str) -> Option<Self> {
        let plain = |c: char| match c {
            '-' => '_',
            c => c.to_ascii_lowercase(),
        };
        Self::ALL.iter().copied().find(|kind| kind.name().chars().eq(name.chars().map(plain)))
    }

    /// The path below the server's base URL.
    pub fn path(self, streaming: bool) -> &'static str {
        match (self, streaming) {
            (Self::Chat, _) => "/v1/chat/completions",
        }
    }

    /// Title of the console table.
    pub fn metrics_title(self) -> &'static str {
        match self {
            Self::Chat => "LLM Metrics",
        }
    }

    /// Whether it can answer with a stream of events.
    pub fn can_stream(self) -> bool {
        match self {
            Self::Chat => true,
        }
    }

    /// Whether its answers are counted in tokens.
    pub fn produces_tokens(self) -> bool {
        match self {
            Self::Chat => true,
        }
    }

    /// Whether its inputs are counted in tokens.
    pub fn tokenizes_input(self) -> bool {
        match self {
            Self::Chat => true,
        }
    }

    /// Appends the request body of the conversation's turn `k` (which must exist), history left out: compact JSON, fields
    /// in the endpoint's order. A turn with a ready-made payload is that payload and nothing else. Says where the history
    /// goes, counted from where `out` ended before.
    pub fn body(self, options: &Options, conversation: &Conversation, k: usize, out: &mut Vec<u8>) -> Splice {
        if let Some(payload) = &conversation.turns[k].payload {
            put_json(out, payload);
            return Splice::NONE;
        }
        match self {
            Self::Chat => chat::body(options, conversation, k, out),
        }
    }

    /// Whether a conversation of several turns can be held with it.
    pub fn holds_conversations(self) -> bool {
        match self {
            Self::Chat => true,
        }
    }

    /// Reads one JSON payload: the data of an event, or a whole response body.
    #[inline]
    pub fn read<'a>(self, json: &'a [u8]) -> Result<Reading<'a>, Unreadable> {
        // Filled where it lies: a reading is some hundred bytes, and moving it costs as much as reading a short event.
        let mut result = Ok(Reading::default());
        if let Ok(reading) = &mut result {
            let read = match self {
                Self::Chat => chat::read(json, reading),
            };
            if let Err(unreadable) = read {
                result = Err(unreadable);
            }
        }
        result
    }
}

/// Where a session's history goes into a body. The history is a run of JSON values with a comma after each; it stands
/// right before the turn's own values, `body[at..end]`, which have commas between them and none after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Splice {
    /// Offset of the turn's own values.
    pub at: u32,
    /// Where they end.
    pub end: u32,
}

impl Splice {
    /// The body holds all it needs.
    pub const NONE: Self = Self { at: u32::MAX, end: u32::MAX };

    /// Whether history can go into the body.
    pub fn is_some(self) -> bool {
        self != Self::NONE
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
}

impl Reading<'_> {
    /// Whether it carries output or reasoning: whether it counts as a response with content.
    pub fn has_content(&self) -> bool {
        !self.text.is_empty() || !self.reasoning.is_empty()
    }
}

/// Token counts as a server reports them; [`UNKNOWN`] where it does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the input.
    pub prompt: u32,
    /// Tokens of the output, reasoning included.
    pub completion: u32,
    /// Tokens of reasoning.
    pub reasoning: u32,
    /// Tokens of the input that were had from a cache.
    pub cached: u32,
    /// All tokens.
    pub total: u32,
}

impl Default for Usage {
    /// Nothing known.
    fn default() -> Self {
        Self { prompt: UNKNOWN, completion: UNKNOWN, reasoning: UNKNOWN, cached: UNKNOWN, total: UNKNOWN }
    }
}

/// Content, and the names and arguments of three tool calls.
const INLINE: usize = 8;

/// A short list of slices that are not empty; it allocates only beyond eight.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fragments<'a> {
    /// Filled from the front; empty where free.
    inline: [&'a [u8]; INLINE],
    more: Vec<&'a [u8]>,
}

impl<'a> Fragments<'a> {
    /// Appends `raw` unless it is empty.
    #[inline]
    pub fn push(&mut self, raw: &'a [u8]) {
        if raw.is_empty() {
            return;
        }
        match self.inline.iter_mut().find(|slot| slot.is_empty()) {
            Some(slot) => *slot = raw,
            None => self.more.push(raw),
        }
    }

    /// The slices in order.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> {
        self.inline.iter().chain(&self.more).copied().take_while(|raw| !raw.is_empty())
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.inline.first().is_none_or(|raw| raw.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_any_spelling() {
        for name in ["chat", "CHAT", "Chat"] {
            assert_eq!(Kind::from_name(name), Some(Kind::Chat));
        }
        assert_eq!(Kind::from_name("chats"), None);
        assert_eq!(Kind::from_name(""), None);
        for &kind in Kind::ALL {
            assert_eq!(Kind::from_name(kind.name()), Some(kind));
            assert!(kind.path(kind.can_stream()).starts_with('/'));
        }
    }

    #[test]
    fn fragments_keep_their_order_beyond_the_inline_room() {
        let all: Vec<String> = (0..20).map(|n| n.to_string()).collect();
        let mut fragments = Fragments::default();
        assert!(fragments.is_empty());
        for text in &all {
            fragments.push(text.as_bytes());
            fragments.push(b"");
        }
        assert!(!fragments.is_empty());
        let back: Vec<_> = fragments.iter().collect();
        assert_eq!(back, all.iter().map(String::as_bytes).collect::<Vec<_>>());
    }
}
