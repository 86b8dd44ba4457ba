//! What can be asked, and how it is answered: one file a dialect, one row of [`route`](super::route) a path.
//!
//! There are two kinds. An answer made of tokens has a [`Dialect`]: it reads the request once, then is called for each
//! event. Any other answer is made at once, a [`Ready`], by a plain function; only when it is sent is a matter of time.

pub(super) mod audio;
pub(super) mod chat;
pub(super) mod completions;
pub(super) mod embeddings;
pub(super) mod fields;
pub(super) mod generate;
pub(super) mod images;
pub(super) mod kserve;
pub(super) mod messages;
pub(super) mod openai;
pub(super) mod rankings;
pub(super) mod responses;
pub(super) mod retrieval;
pub(super) mod service;
pub(super) mod solido;
pub(super) mod usage;
pub(super) mod videos;

use super::errors::Refused;
use super::http::{Events, JSON};
use super::words::{self, Text};
use super::world::World;
use crate::clock::Instant;
use serde_json::Value;
use std::fmt;

/// Most tokens an answer may have. Real servers end at their context length; this bounds what one request can cost.
pub const MAX_TOKENS: u32 = 1 << 20;

/// A request as a dialect reads it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    /// The name that stands in the path, where its row leaves one open.
    pub(super) name: &'a str,
    /// Empty if there is none.
    pub(super) content_type: &'a str,
    pub(super) body: &'a [u8],
    /// Order among the requests for inference, from 0: what the answer's id is made of.
    pub(super) number: u64,
    /// When it was complete, seconds since 1970.
    pub(super) created: u64,
    pub(super) now: Instant,
}

/// What an answer of tokens shall be.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Ask {
    /// Index into the models served.
    pub(super) model: usize,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
    /// The usage so far is in every event.
    pub(super) running_usage: bool,
    /// Tokens of each choice, at least 1.
    pub(super) tokens: u32,
    /// Of those, tokens of reasoning, which come first; fewer than all.
    pub(super) reasoning: u32,
    /// At least 1; they are sent side by side.
    pub(super) choices: u32,
    /// An estimate from the bytes of the texts, at least 1.
    pub(super) prompt_tokens: u32,
    /// Of those, tokens said to come from a cache.
    pub(super) cached: u32,
    /// Usage tells what few vendors tell as well.
    pub(super) details: bool,
    /// Messages in the request, those of stored responses before it included.
    pub(super) messages: u32,
    /// The tokens after the reasoning are a call instead of text.
    pub(super) call: Option<Box<Call>>,
    /// What else the dialect remembers of the request.
    pub(super) memo: Value,
}

/// A call of a tool. Its first token is its name, the next opens the arguments, the last closes them, those between are
/// the words of one argument; a call of fewer than three tokens has no arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) name: String,
    /// A `function_call` of the kind that went before tools.
    pub(super) legacy: bool,
}

/// What the next tokens are part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Reasoning,
    Text,
    Call,
}

impl Ask {
    /// A request for `tokens` tokens after a prompt of so many, with the settings of `world`.
    pub(super) fn new(world: &World, tokens: Option<u32>, prompt_tokens: u32) -> Self {
        let config = &world.config;
        Self {
            tokens: tokens.unwrap_or(config.osl).clamp(1, MAX_TOKENS),
            choices: 1,
            prompt_tokens,
            cached: ((f64::from(prompt_tokens) * config.cached) as u32).min(prompt_tokens),
            details: config.usage_details,
            messages: 1,
            ..Self::default()
        }
    }

    /// With as much reasoning as the server does, as far as the length allows.
    pub(super) fn reasons(mut self, world: &World) -> Self {
        self.reasoning = world.config.reasoning.min(self.tokens - 1);
        self
    }

    /// With so many choices.
    ///
    /// # Errors
    /// All choices together would be longer than an answer may be.
    pub(super) fn times(mut self, choices: u32) -> Result<Self, Refused> {
        self.choices = choices;
        let all = u64::from(self.tokens) * u64::from(choices);
        if all <= MAX_TOKENS.into() {
            return Ok(self);
        }
        Err(Refused::bad(format!("{choices} answers of {} tokens are more than {MAX_TOKENS} tokens", self.tokens)))
    }

    /// What token `k` is part of.
    pub(super) fn part(&self, k: u32) -> Part {
        match &self.call {
            _ if k < self.reasoning => Part::Reasoning,
            None => Part::Text,
            Some(_) => Part::Call,
        }
    }

    /// Tokens of all choices.
    pub(super) fn output_tokens(&self) -> u64 {
        u64::from(self.tokens) * u64::from(self.choices)
    }
}

/// An answer that was made at once.
#[derive(Debug, Clone)]
pub(super) struct Ready {
    pub(super) content_type: &'static str,
    pub(super) body: Vec<u8>,
    /// Events of a stream in place of the body: the k-th is due as the k-th token would be.
    pub(super) events: Vec<Vec<u8>>,
    pub(super) prompt_tokens: u32,
    pub(super) messages: u32,
    /// It does not wait for its time.
    pub(super) at_once: bool,
}

impl Ready {
    pub(super) fn json(value: &Value, prompt_tokens: u32) -> Self {
        Self::bytes(JSON, value.to_string().into_bytes(), prompt_tokens)
    }

    pub(super) fn bytes(content_type: &'static str, body: Vec<u8>, prompt_tokens: u32) -> Self {
        Self { content_type, body, events: Vec::new(), prompt_tokens, messages: 0, at_once: false }
    }
}

/// How requests of one kind are read and answered with tokens.
pub(super) trait Dialect: fmt::Debug + Sync {
    /// What `request` asks for.
    ///
    /// # Errors
    /// The request is wrong, or names what is not there.
    fn read(&self, request: &Request<'_>, world: &mut World) -> Result<Ask, Refused>;

    /// What all events of a stream, or all whole answers, begin with.
    fn stem(&self, _stream: bool) -> Option<Stem> {
        None
    }

    /// `Content-Type` of a whole answer.
    fn content_type(&self, _: &Ask) -> &'static str {
        JSON
    }

    /// The whole answer.
    fn whole(&self, body: &mut Body, facts: &Facts<'_>);

    /// What comes before the first token of a stream.
    fn open(&self, _: &mut Events<'_>, _: &Facts<'_>) {}

    /// The events of tokens `from..from + count`, all part of the same.
    fn tokens(&self, out: &mut Events<'_>, facts: &Facts<'_>, from: u32, count: u32);

    /// What comes after the last token.
    fn close(&self, _: &mut Events<'_>, _: &Facts<'_>) {}

    /// What comes instead of the rest where the stream fails with the error `why`, a server error of status 500.
    fn fail(&self, out: &mut Events<'_>, facts: &Facts<'_>, why: &str);
}

/// The beginning of OpenAI's objects: an id, what they are, when they were created, by which model.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stem {
    /// Everything in front of the id.
    pub(super) before_id: &'static str,
    pub(super) object: &'static str,
}

/// What a dialect may tell in an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    pub(super) ask: &'a Ask,
    pub(super) world: &'a World,
    /// The dialect's stem with this answer's id in it.
    pub(super) stem: &'a [u8],
    /// 32 hexadecimal digits.
    pub(super) id: &'a str,
    pub(super) number: u64,
    pub(super) created: u64,
}

impl Facts<'_> {
    /// The text of tokens. In echo mode the first behind the reasoning tells how many messages the request had.
    pub(super) fn text(&self, from: u32, count: u32) -> Text {
        let messages = self.ask.messages.min(999) as u16;
        Text { from, count, number: self.world.config.echo.then_some((self.ask.reasoning, messages)) }
    }

    /// That text on its own.
    pub(super) fn string(&self, from: u32, count: u32) -> String {
        let mut out = Vec::new();
        words::append(&mut out, self.text(from, count));
        String::from_utf8(out).unwrap_or_default()
    }

    /// All reasoning.
    pub(super) fn reasoning(&self) -> String {
        self.string(0, self.ask.reasoning)
    }

    /// All text behind the reasoning.
    pub(super) fn content(&self) -> String {
        self.string(self.ask.reasoning, self.ask.tokens - self.ask.reasoning)
    }

    /// The arguments of the call as far as tokens `from..from + count` bear them.
    pub(super) fn arguments(&self, from: u32, count: u32) -> String {
        let total = self.ask.tokens - self.ask.reasoning;
        let mut out = String::new();
        for k in from..from + count {
            out.push_str(match (k - self.ask.reasoning, total) {
                (0, 1) | (1, 2) => "{}",
                (0, _) => "",
                (1, _) => "{\"text\":\"",
                (k, _) if k == total - 1 => "\"}",
                _ => words::token(k),
            });
        }
        out
    }

    /// All arguments of the call.
    pub(super) fn all_arguments(&self) -> String {
        self.arguments(self.ask.reasoning, self.ask.tokens - self.ask.reasoning)
    }

    /// The model's name.
    pub(super) fn model(&self) -> &str {
        self.world.config.models.get(self.ask.model).map_or("", String::as_str)
    }
}

/// A whole answer while it is written. Keeps where a fault would cut it.
#[derive(Debug, Default)]
pub(super) struct Body {
    pub(super) bytes: Vec<u8>,
    half: u32,
    end: u32,
    /// Where half of the tokens were written.
    half_at: Option<usize>,
    /// Where all of them were.
    end_at: Option<usize>,
}

impl Body {
    /// Empty, for an answer of so many tokens.
    pub(super) fn begin(&mut self, tokens: u32) {
        self.bytes.clear();
        (self.half, self.end, self.half_at, self.end_at) = (tokens / 2, tokens, None, None);
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn json(&mut self, value: &Value) {
        self.bytes.extend_from_slice(value.to_string().as_bytes());
    }

    pub(super) fn text(&mut self, text: Text) {
        let end = text.from + text.count;
        if self.half_at.is_none() && (text.from..=end).contains(&self.half) {
            words::append(&mut self.bytes, Text { count: self.half - text.from, ..text });
            self.half_at = Some(self.bytes.len());
            words::append(&mut self.bytes, Text { from: self.half, count: end - self.half, ..text });
        } else {
            words::append(&mut self.bytes, text);
        }
        if end == self.end {
            self.end_at.get_or_insert(self.bytes.len());
        }
    }

    /// Where the body is cut for the fault `Close`: after half the tokens.
    pub(super) fn half_at(&self) -> usize {
        self.half_at.unwrap_or(self.bytes.len() / 2)
    }

    /// Where it is cut for the fault `Malformed`: where its text ends, which leaves its JSON open.
    pub(super) fn end_at(&self) -> usize {
        self.end_at.unwrap_or(self.bytes.len().saturating_sub(1))
    }
}

/// English prose has about 17 bytes in 4 tokens of today's vocabularies.
pub(super) fn tokens_of(bytes: usize) -> u32 {
    u32::try_from(bytes.saturating_mul(4) / 17).unwrap_or(u32::MAX).max(1)
}
