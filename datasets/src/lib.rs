//! Files and generators that become the requests of a run.
//!
//! This crate knows nothing of time, sockets or cores: [`Spec::build`] streams [`Conversation`]s into a sink, one at a
//! time, so that a large dataset never has to stand in memory as text. Every stream of random numbers has a name and a
//! seed of its own ([`seed::Stream`]), so the same options give the same data on any machine.

pub mod error;
pub mod seed;

pub use error::Error;

/// One request's worth of a conversation, independent of any endpoint's body format.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Turn {
    /// The texts of the turn; several stand side by side in one message.
    pub texts: Vec<String>,
    /// `user` where the row names none.
    pub role: Option<String>,
    /// Overrides the run's model.
    pub model: Option<String>,
    /// Requested output length in tokens.
    pub max_tokens: Option<u32>,
    /// Planned send time, nanoseconds on the trace's own axis.
    pub timestamp_ns: Option<u64>,
    /// Ready-made chat messages, sent as they are instead of `texts`.
    pub messages: Option<serde_json::Value>,
    /// Tool definitions that go with `messages`.
    pub tools: Option<serde_json::Value>,
    /// A whole request body, sent as it is.
    pub payload: Option<serde_json::Value>,
    /// Fields merged last into the body.
    pub extra: serde_json::Map<String, serde_json::Value>,
    /// Tokens of all texts joined with single spaces, where already known.
    pub input_tokens: Option<u32>,
}

/// A template of one session: an id and its turns in order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conversation {
    /// `session_000000` and so on for generated data, the file's own id where it has one.
    pub session_id: String,
    /// At least one.
    pub turns: Vec<Turn>,
}
