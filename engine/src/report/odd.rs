//! What was unusual about the answers, as far as a reader of the results must know it.

use super::TokenSource;
use super::rows::Reader;
use crate::record::{Outcome, Payload, Record, flag};
use serde::Serialize;

/// Unusual answers of the profiling phases, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Oddities {
    /// Events of streams that were not JSON and were ignored.
    pub ignored_events: u64,
    /// Requests with such events.
    pub requests_with_ignored_events: u64,
    /// Requests whose text, gaps or reply were longer than a record holds.
    pub texts_cut: u64,
    /// Successful requests for a stream that were answered by one body.
    pub unstreamed: u64,
    /// Requests whose server counts reasoning tokens beside the completion tokens: the output is both, which is the total
    /// less the prompt.
    pub reasoning_apart: u64,
    /// Requests that were sent again, since the server had closed the idle connection before it got any of them.
    pub sent_again: u64,
    /// Requests that followed a redirect.
    pub redirected: u64,
}

impl Oddities {
    pub(super) fn add(&mut self, reader: &Reader<'_>, record: &Record, payload: &Payload<'_>) {
        let ignored = payload.ignored();
        self.ignored_events += ignored;
        self.requests_with_ignored_events += u64::from(ignored > 0);
        self.texts_cut += u64::from(record.has(flag::TEXT_CUT));
        let is_whole = record.outcome() == Outcome::Ok && !record.has(flag::STREAMED);
        self.unstreamed += u64::from(reader.streams && is_whole);
        self.reasoning_apart += u64::from(record.counts_reasoning_apart());
        self.sent_again += u64::from(record.has(flag::RETRIED));
        self.redirected += u64::from(record.has(flag::REDIRECTED));
    }

    /// One sentence for each.
    pub fn sentences(&self, source: TokenSource) -> Vec<String> {
        let mut out = Vec::new();
        let of = |n: u64, what: &str| if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") };
        if self.ignored_events > 0 {
            out.push(format!(
                "{} not JSON and ignored, in {}.",
                if self.ignored_events == 1 {
                    "1 event was".into()
                } else {
                    format!("{} events were", self.ignored_events)
                },
                of(self.requests_with_ignored_events, "request")
            ));
        }
        if self.texts_cut > 0 {
            out.push(format!(
                "The answers of {} were cut in the record (text beyond 16 MiB, times of events beyond 8 MiB): their token \
                 counts are the server's where it gave any, else lower bounds.",
                of(self.texts_cut, "request")
            ));
        }
        if self.unstreamed > 0 {
            out.push(format!(
                "{} answered by one body although a stream was asked for: their time to first token is that of the whole \
                 answer.",
                if self.unstreamed == 1 { "1 request was".into() } else { format!("{} requests were", self.unstreamed) }
            ));
        }
        if self.reasoning_apart > 0 && source == TokenSource::Server {
            out.push(format!(
                "In {} the server counts reasoning tokens beside the completion tokens (prompt + completion + reasoning = \
                 total): the output is both, total less prompt.",
                of(self.reasoning_apart, "request")
            ));
        }
        let were = |n: u64| if n == 1 { "1 request was".to_owned() } else { format!("{n} requests were") };
        if self.sent_again > 0 {
            out.push(format!(
                "{} sent again: the server had closed the idle connection before it got any of it (--retry-stale off \
                 counts that as a failure).",
                were(self.sent_again)
            ));
        }
        if self.redirected > 0 {
            out.push(format!(
                "{} redirected by the server, which costs each of them an exchange: give the address it means as -u.",
                were(self.redirected)
            ));
        }
        out
    }
}
