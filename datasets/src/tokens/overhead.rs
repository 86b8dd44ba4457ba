//! What a server puts around texts before it encodes them.

use crate::tokens::{Message, Tokenizer};

/// Tokens that stand around a turn's text when a server encodes it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Overhead {
    /// Around a first turn's.
    first: u32,
    /// Around a later one's.
    later: u32,
    /// Around an answer and the turn after it.
    exchange: u32,
}

impl Overhead {
    /// Without a chat template: the special tokens that the tokenizer puts around a text. With one: what the template
    /// writes around one message, and around each of the messages after it.
    pub(crate) fn measure(tokenizer: &Tokenizer) -> Self {
        let special = tokenizer.special_tokens_around();
        let plain = Self { first: special, later: special, exchange: 0 };
        let probe = "The morning is cold and clear";
        let [user, assistant] = ["user", "assistant"].map(|role| Message { role, content: probe });
        let (Some(one), Some(three)) = (tokenizer.count_chat(&[user]), tokenizer.count_chat(&[user, assistant, user]))
        else {
            return plain;
        };
        let around = |all: usize, texts: usize| all.saturating_sub(texts * tokenizer.count(probe)) as u32;
        let (one, three) = (around(one, 1), around(three, 3));
        let exchange = three.saturating_sub(one);
        Self { first: one, later: exchange / 2, exchange }
    }

    /// Around a turn's text, be it the first of its session or a later one.
    pub(crate) fn around(&self, first: bool) -> u32 {
        if first { self.first } else { self.later }
    }

    /// Around an answer and the turn after it.
    pub(crate) fn exchange(&self) -> u32 {
        self.exchange
    }

    /// Around `messages` more messages of a session.
    pub(crate) fn of_messages(&self, messages: usize) -> u32 {
        u32::try_from(messages).map_or(u32::MAX, |n| (self.exchange / 2).saturating_mul(n))
    }
}
