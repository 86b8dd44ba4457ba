//! A server's answer as the later requests of its session carry it.
//!
//! Text is appended as it came, still escaped: an answer of a thousand events costs a thousand small copies and no parsing.
//! Only events that say more than text (tool calls, items, blocks) are looked at a second time, and only where a reply is
//! wanted at all.

use super::{Kind, Reading};
use crate::wire::json::{Scanner, unescape_into};

/// Bytes of payload that a reply is made of at most; what comes after them is left out.
const LIMIT: usize = 16 << 20;

/// Calls of tools kept of one answer.
const CALLS: usize = 128;

/// Items kept of one answer.
const ITEMS: usize = 1024;

/// Collects one answer. Buffers are reused from answer to answer.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    /// Visible text, escaped.
    pub(super) text: Vec<u8>,
    /// Reasoning, escaped.
    pub(super) reasoning: Vec<u8>,
    /// What proves the reasoning to the server, escaped.
    pub(super) signature: Vec<u8>,
    calls: Vec<Call>,
    live: usize,
    /// Whole values as they came, commas between them.
    items: Vec<u8>,
    /// Keys of the items, a line feed after each.
    keys: Vec<u8>,
    /// The server's name for the answer, escaped.
    pub(super) id: Vec<u8>,
    /// The answer can not be continued: it failed or was cut.
    pub(super) unfinished: bool,
    /// Bytes of payload that were taken.
    taken: usize,
    /// Items in `items`.
    count: usize,
    /// Something of the answer was left out.
    is_cut: bool,
}

/// One call of a tool.
#[derive(Debug, Clone, Default)]
pub(super) struct Call {
    /// Its place among the calls, or among an answer's blocks.
    pub(super) index: u32,
    pub(super) id: Vec<u8>,
    pub(super) kind: Vec<u8>,
    pub(super) name: Vec<u8>,
    pub(super) arguments: Vec<u8>,
    /// The arguments are a JSON value, not an escaped text.
    pub(super) is_value: bool,
}

impl Reply {
    /// Nothing collected.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets the answer; buffers keep their room.
    pub fn clear(&mut self) {
        for buffer in
            [&mut self.text, &mut self.reasoning, &mut self.signature, &mut self.items, &mut self.keys, &mut self.id]
        {
            buffer.clear();
        }
        self.live = 0;
        (self.taken, self.count) = (0, 0);
        (self.unfinished, self.is_cut) = (false, false);
    }

    /// Room of its buffers, bytes.
    pub fn room(&self) -> usize {
        let of = |buffers: &[&Vec<u8>]| buffers.iter().map(|buffer| buffer.capacity()).sum::<usize>();
        let calls = self.calls.iter().map(|call| of(&[&call.id, &call.kind, &call.name, &call.arguments]));
        of(&[&self.text, &self.reasoning, &self.signature, &self.items, &self.keys, &self.id]) + calls.sum::<usize>()
    }

    /// Takes what one payload of the answer says; `false` if something was left out, of this one or of one before it,
    /// because the answer is too long. `reading` must come from `kind`.
    #[inline]
    pub fn add(&mut self, kind: Kind, reading: &Reading<'_>) -> bool {
        if self.is_cut {
            return false;
        }
        self.taken += match reading.parts {
            [] => reading.text.iter().chain(reading.reasoning.iter()).map(<[u8]>::len).sum(),
            parts => parts.len(),
        };
        if self.taken > LIMIT {
            self.is_cut = true;
        } else if !reading.parts.is_empty() {
            (kind.facts().reply)(self, reading);
        } else if !reading.repeats || self.plain().is_empty() {
            self.add_plain(reading);
        }
        !self.is_cut
    }

    /// Takes text and reasoning as they stand.
    #[inline]
    pub(super) fn add_plain(&mut self, reading: &Reading<'_>) {
        reading.text.iter().for_each(|piece| self.text.extend_from_slice(piece));
        reading.reasoning.iter().for_each(|piece| self.reasoning.extend_from_slice(piece));
    }

    /// Appends the answer as JSON values of the session's history: commas between them, none after. Returns `false`, and
    /// appends nothing, if the answer holds nothing to carry on.
    ///
    /// Reasoning stays out, as the vendors ask for, unless a signature makes it part of the protocol (Anthropic). An
    /// answer that is reasoning and nothing else is carried as text, so that roles go on alternating. The reference
    /// writes reasoning deltas into the assistant's text.
    pub fn message(&self, kind: Kind, out: &mut Vec<u8>) -> bool {
        (kind.facts().message)(self, out)
    }

    /// The server's name for this answer, for a request that continues it instead of repeating it (Responses); escaped as
    /// in JSON. `None` if the server gave none or the answer failed.
    pub fn id(&self) -> Option<&[u8]> {
        Some(self.id.as_slice()).filter(|id| !id.is_empty() && !self.unfinished)
    }

    /// The call at `index`, begun if it is new; `None` is the next free place. Beyond a number that no answer has, what is
    /// said of a call is left out.
    pub(super) fn call(&mut self, index: Option<u32>) -> &mut Call {
        // Mostly it is the one that was spoken of last.
        let known = index.and_then(|index| self.calls().iter().rposition(|call| call.index == index));
        let at = known.unwrap_or_else(|| {
            let next = || self.calls().iter().map(|call| call.index).max().map_or(0, |last| last.saturating_add(1));
            let index = index.unwrap_or_else(next);
            let at = self.live;
            if at == self.calls.len() {
                self.calls.push(Call::default());
            }
            let call = &mut self.calls[at];
            for buffer in [&mut call.id, &mut call.kind, &mut call.name, &mut call.arguments] {
                buffer.clear();
            }
            (call.index, call.is_value) = (index, false);
            if at < CALLS {
                self.live += 1;
            } else {
                self.is_cut = true;
            }
            at
        });
        &mut self.calls[at]
    }

    /// The calls in the order they began.
    pub(super) fn calls(&self) -> &[Call] {
        self.calls.get(..self.live).unwrap_or_default()
    }

    /// Appends a whole value unless one of the same key is there. An empty key is always new.
    pub(super) fn add_item(&mut self, key: &[u8], raw: &[u8]) {
        if !key.is_empty() {
            if self.keys.split(|b| *b == b'\n').any(|known| known == key) {
                return;
            }
            self.keys.extend_from_slice(key);
            self.keys.push(b'\n');
        }
        if self.count == ITEMS {
            self.is_cut = true;
            return;
        }
        self.count += 1;
        if !self.items.is_empty() {
            self.items.push(b',');
        }
        self.items.extend_from_slice(raw);
    }

    /// The values added whole.
    pub(super) fn items(&self) -> &[u8] {
        &self.items
    }

    /// What stands for the answer where only text counts, escaped.
    pub(super) fn plain(&self) -> &[u8] {
        if self.text.is_empty() { &self.reasoning } else { &self.text }
    }
}

impl Call {
    /// Replaces what is known of a field by what is said anew.
    pub(super) fn set(field: &mut Vec<u8>, said: Option<&[u8]>) {
        if let Some(said) = said.filter(|said| !said.is_empty()) {
            field.clear();
            field.extend_from_slice(said);
        }
    }

    /// Appends the arguments as a JSON value: `{}` if they are none.
    pub(super) fn put_value(&self, out: &mut Vec<u8>) {
        let start = out.len();
        match self.is_value {
            true => out.extend_from_slice(&self.arguments),
            false => unescape_into(&self.arguments, out),
        }
        let mut scanner = Scanner::new(&out[start..]);
        scanner.skip();
        if scanner.end().is_err() {
            out.truncate(start);
            out.extend_from_slice(b"{}");
        }
    }
}

/// Appends `"` `raw` `"`.
pub(super) fn put_raw(out: &mut Vec<u8>, raw: &[u8]) {
    out.push(b'"');
    out.extend_from_slice(raw);
    out.push(b'"');
}

/// A reply that carries nothing on: the endpoint holds no conversations.
pub(super) fn no_message(_: &Reply, _: &mut Vec<u8>) -> bool {
    false
}

/// A reply of text only.
pub(super) fn plain(reply: &mut Reply, reading: &Reading<'_>) {
    reply.add_plain(reading);
}
