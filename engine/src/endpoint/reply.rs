//! A server's answer as the later requests of its session carry it.

use super::{Kind, Reading};

/// Collects one answer. Buffers are reused from answer to answer.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    /// Visible text, escaped.
    text: Vec<u8>,
}

impl Reply {
    /// Nothing collected.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets the answer; buffers keep their room.
    pub fn clear(&mut self) {
        self.text.clear();
    }

    /// Takes what one payload of the answer says. `reading` must come from `kind`.
    #[inline]
    pub fn add(&mut self, _kind: Kind, reading: &Reading<'_>) {
        reading.text.iter().for_each(|piece| self.text.extend_from_slice(piece));
    }

    /// Appends the answer as JSON values of the session's history: commas between them, none after. Returns `false`, and
    /// appends nothing, if the answer holds nothing to carry on.
    pub fn message(&self, _kind: Kind, out: &mut Vec<u8>) -> bool {
        if self.text.is_empty() {
            return false;
        }
        out.extend_from_slice(b"{\"role\":\"assistant\",\"content\":\"");
        out.extend_from_slice(&self.text);
        out.extend_from_slice(b"\"}");
        true
    }
}
