//! Failed requests, grouped by what they say.

use crate::record::{Outcome, Payload, Record};
use std::collections::HashMap;

/// What one failed request says; requests that say the same are one group.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ErrorDetails {
    /// The HTTP status, or the status that names this kind of failure; none fits some kinds.
    pub code: Option<u16>,
    /// The reason phrase of an error status, else the name of the outcome.
    pub kind: String,
    /// The body of an error status, else what went wrong.
    pub message: String,
}

impl ErrorDetails {
    /// Of a failed request; `None` of a successful one.
    pub fn of(record: &Record, payload: &Payload<'_>) -> Option<Self> {
        let outcome = record.outcome();
        if outcome == Outcome::Ok {
            return None;
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let reason = text(payload.reason);
        Some(Self {
            code: code(outcome, record.status),
            kind: if outcome == Outcome::HttpStatus && !reason.is_empty() { reason } else { outcome.name().to_owned() },
            message: text(payload.error),
        })
    }

    /// Whether a server said that the request does not fit the model's context.
    pub fn is_context_overflow(&self) -> bool {
        // A client's fault by status, or told in a stream.
        let told = matches!(self.code, Some(400 | 413 | 422 | 502));
        let message = || self.message.to_ascii_lowercase();
        told && OVERFLOWS.iter().any(|words| message().contains(words))
    }
}

/// How servers say it: OpenAI's error code; vLLM and OpenAI; SGLang; llama.cpp; TGI; Anthropic and TensorRT-LLM.
const OVERFLOWS: [&str; 7] = [
    "context_length_exceeded",
    "maximum context length",
    "longer than the model's context length",
    "exceeds the available context size",
    "`inputs` tokens + `max_new_tokens` must be",
    "prompt is too long",
    "exceeds max_input_len",
];

/// 499 is nginx's "client closed request", the reference's code for a request cut by the end of the run.
fn code(outcome: Outcome, status: u16) -> Option<u16> {
    match outcome {
        Outcome::HttpStatus => Some(status),
        Outcome::InStream => Some(502),
        Outcome::Cancelled | Outcome::Abandoned => Some(499),
        Outcome::Ok
        | Outcome::Timeout
        | Outcome::Connect
        | Outcome::ConnectTimeout
        | Outcome::Reset
        | Outcome::Truncated
        | Outcome::Protocol
        | Outcome::Empty
        | Outcome::Malformed => None,
    }
}

/// Requests that failed in the same words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorGroup {
    /// The words.
    pub details: ErrorDetails,
    /// How many.
    pub count: u64,
}

/// Distinct groups that are kept apart; failures in further words are counted under one last group. A server that puts
/// a request id into every error body must not fill memory.
pub(super) const GROUPS_MAX: usize = 1000;

/// Groups while records come.
#[derive(Debug, Default)]
pub(super) struct ErrorTally {
    groups: HashMap<ErrorDetails, (usize, u64)>,
    beyond: u64,
}

impl ErrorTally {
    /// Counts one failure.
    pub(super) fn add(&mut self, details: ErrorDetails) {
        let order = self.groups.len();
        if let Some((_, count)) = self.groups.get_mut(&details) {
            *count += 1;
        } else if order < GROUPS_MAX {
            self.groups.insert(details, (order, 1));
        } else {
            self.beyond += 1;
        }
    }

    /// The groups in the order in which they first occurred.
    pub(super) fn finish(self) -> Vec<ErrorGroup> {
        let mut groups: Vec<_> = self.groups.into_iter().collect();
        groups.sort_by_key(|(_, (order, _))| *order);
        let mut groups: Vec<_> =
            groups.into_iter().map(|(details, (_, count))| ErrorGroup { details, count }).collect();
        if self.beyond > 0 {
            groups.push(ErrorGroup {
                details: ErrorDetails {
                    code: None,
                    kind: "Other".to_owned(),
                    message: format!("errors in further words, beyond the first {GROUPS_MAX}"),
                },
                count: self.beyond,
            });
        }
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn details(message: &str) -> ErrorDetails {
        ErrorDetails { code: None, kind: String::new(), message: message.to_owned() }
    }

    #[test]
    fn equal_words_are_one_group_in_order_of_first_occurrence() {
        let mut tally = ErrorTally::default();
        for message in ["b", "a", "b"] {
            tally.add(details(message));
        }
        let groups = tally.finish();
        let seen: Vec<_> = groups.iter().map(|g| (g.details.message.as_str(), g.count)).collect();
        assert_eq!(seen, [("b", 2), ("a", 1)]);
    }

    #[test]
    fn a_refusal_for_length_is_told_apart() {
        let said = |code, message: &str| ErrorDetails { code: Some(code), ..details(message) }.is_context_overflow();
        assert!(said(400, "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens"));
        assert!(said(400, r#"{"error":{"code":"context_length_exceeded"}}"#));
        assert!(said(413, "the request exceeds the available context size (4096 tokens)"));
        assert!(!said(400, "unknown field"));
        assert!(!said(500, "maximum context length"));
    }

    #[test]
    fn unique_bodies_do_not_fill_memory() {
        let mut tally = ErrorTally::default();
        for n in 0..GROUPS_MAX + 5 {
            tally.add(details(&n.to_string()));
        }
        let groups = tally.finish();
        assert_eq!(groups.len(), GROUPS_MAX + 1);
        assert_eq!(groups.last().map(|g| g.count), Some(5));
    }
}
