//! One request in flight: what has come back so far, folded into its record as it comes.

use crate::clock::{Instant, Nanos};
use crate::credit::Credit;
use crate::endpoint::{self, Reading, Reply, Usage};
use crate::net::ConnId;
use crate::plan::Capture;
use crate::record::{Outcome, Record, flag, part, put_leb128, put_part, put_piece};
use crate::wire::http1::{HttpError, ResponseReader, Step};
use crate::wire::json;
use crate::wire::sse::{Event, SseParser};

/// Error texts are cut here.
const ERROR_TEXT: usize = 4096;
/// A response that is not a stream is read as one JSON value, and so is an event; beyond this it is refused.
const BODY_LIMIT: usize = 64 << 20;
/// Pieces of a response are kept up to here; the rest is left out, which a reader sees by the bytes received.
const RAW_LIMIT: usize = 16 << 20;

/// A request from its start to its record. Slots are reused, and with them every buffer.
#[derive(Debug)]
pub(super) struct Flight {
    /// Counts the requests that have had this slot.
    pub(super) generation: u32,
    pub(super) live: bool,
    pub(super) credit: Credit,
    pub(super) record: Record,
    pub(super) conn: Option<ConnId>,
    pub(super) retried: bool,
    /// It holds a prefill slot.
    pub(super) prefilling: bool,
    /// Cut on purpose so long after its last byte is sent.
    pub(super) cut_after: Option<Nanos>,
    /// Slot of its session, or [`NONE`].
    pub(super) session: u32,
    pub(super) answer: Answer,
    /// Neighbours in the list of timeouts.
    pub(super) earlier: u32,
    pub(super) later: u32,
}

impl Flight {
    pub(super) fn new() -> Self {
        Self {
            generation: 0,
            live: false,
            credit: Credit { seq: 0, due: Instant::UNSET, request: 0, turns: 0, phase: 0 },
            record: bytemuck::Zeroable::zeroed(),
            conn: None,
            retried: false,
            prefilling: false,
            cut_after: None,
            session: NONE,
            answer: Answer::new(),
            earlier: NONE,
            later: NONE,
        }
    }
}

/// No flight.
pub(super) const NONE: u32 = u32::MAX;

/// How far a response has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Advance {
    /// More bytes are needed.
    More,
    /// It is complete.
    Done { reusable: bool },
    /// It is not HTTP.
    Broken(HttpError),
}

/// A response as it comes in.
#[derive(Debug)]
pub(super) struct Answer {
    reader: ResponseReader,
    events: SseParser,
    is_stream: bool,
    failure: Option<Outcome>,
    body: Vec<u8>,
    text: Vec<u8>,
    reasoning: Vec<u8>,
    gaps: Vec<u8>,
    error: Vec<u8>,
    reason: Vec<u8>,
    /// What a session's later turns carry of it.
    pub(super) reply: Reply,
    /// Whether they do.
    pub(super) keeps_reply: bool,
    raw: Vec<u8>,
    /// When the last piece in `raw` came.
    raw_at: Instant,
    json: bool,
}

impl Answer {
    fn new() -> Self {
        Self {
            reader: ResponseReader::new(),
            events: SseParser::new(),
            is_stream: false,
            failure: None,
            body: Vec::new(),
            text: Vec::new(),
            reasoning: Vec::new(),
            gaps: Vec::new(),
            error: Vec::new(),
            reason: Vec::new(),
            reply: Reply::new(),
            keeps_reply: false,
            raw: Vec::new(),
            raw_at: Instant::UNSET,
            json: false,
        }
    }

    /// Ready for another response; buffers keep their room.
    pub(super) fn reset(&mut self) {
        self.reader.reset();
        self.events.reset();
        self.is_stream = false;
        self.failure = None;
        self.raw_at = Instant::UNSET;
        self.json = false;
        let Self { body, text, reasoning, gaps, error, reason, raw, .. } = self;
        for buffer in [body, text, reasoning, gaps, error, reason, raw] {
            buffer.clear();
        }
        if self.keeps_reply {
            self.reply.clear();
        }
    }

    /// Whether any byte of the response has come.
    pub(super) fn started(&self) -> bool {
        self.reader.started()
    }

    /// Reads what came at `at`.
    pub(super) fn read(
        &mut self,
        mut bytes: &[u8],
        at: Instant,
        record: &mut Record,
        kind: endpoint::Kind,
        capture: Capture,
    ) -> Advance {
        let Self {
            reader,
            events,
            is_stream,
            failure,
            body,
            text,
            reasoning,
            gaps,
            error,
            reason,
            reply,
            keeps_reply,
            raw,
            raw_at,
            json,
        } = self;
        let reply = keeps_reply.then_some(reply);
        let mut fold = Fold { record, kind, capture, at, failure, text, reasoning, gaps, error, reply };
        if !fold.record.first_byte.is_set() {
            fold.record.first_byte = at;
        }
        let mut has_body = false;
        let advance = loop {
            match reader.step(&mut bytes) {
                Ok(Step::Head(head)) => {
                    fold.record.status = head.status;
                    *is_stream = head.event_stream && (200..300).contains(&head.status);
                    if *is_stream {
                        fold.record.flags |= flag::STREAMED;
                    }
                    *json = head.json;
                    reason.extend_from_slice(head.reason.as_bytes());
                }
                Ok(Step::Body(piece)) => {
                    has_body = true;
                    if capture.raw && raw.len() + piece.len() <= RAW_LIMIT {
                        let before = if raw_at.is_set() { *raw_at } else { fold.record.start };
                        put_piece(raw, at.since(before), piece);
                        *raw_at = at;
                    }
                    fold.record.bytes_received = fold.record.bytes_received.saturating_add(piece.len() as u32);
                    if *is_stream && events.held() <= BODY_LIMIT {
                        events.feed(piece, &mut |event| fold.event(event));
                    } else if *is_stream {
                        fold.fail(Outcome::Malformed, b"an event is larger than 64 MiB");
                    } else if body.len() + piece.len() <= BODY_LIMIT {
                        body.extend_from_slice(piece);
                    } else {
                        fold.fail(Outcome::Malformed, b"the response body is larger than 64 MiB");
                    }
                }
                Ok(Step::Done { reusable }) => break Advance::Done { reusable: reusable && bytes.is_empty() },
                Ok(Step::More) => break Advance::More,
                Err(e) => break Advance::Broken(e),
            }
        };
        if has_body {
            fold.record.reads += 1;
            if !fold.record.first_body.is_set() {
                fold.record.first_body = at;
            }
        }
        advance
    }

    /// The peer closed: whether that completes the response.
    pub(super) fn end(&mut self) -> Result<(), HttpError> {
        self.reader.eof()
    }

    /// The response is complete at `at`: folds what only its end can tell and names the outcome.
    pub(super) fn conclude(
        &mut self,
        at: Instant,
        record: &mut Record,
        kind: endpoint::Kind,
        capture: Capture,
    ) -> Outcome {
        let Self { events, is_stream, failure, body, text, reasoning, gaps, error, reply, keeps_reply, .. } = self;
        let reply = keeps_reply.then_some(reply);
        let mut fold = Fold { record, kind, capture, at, failure, text, reasoning, gaps, error, reply };
        if !(200..300).contains(&fold.record.status) {
            fold.error.extend_from_slice(cut(body));
            return Outcome::HttpStatus;
        }
        if *is_stream {
            events.finish(&mut |event| fold.event(event));
        } else {
            fold.payload(body);
        }
        match *fold.failure {
            Some(outcome) => outcome,
            None if fold.record.chunks == 0 => {
                fold.error.extend_from_slice(b"the response holds no content");
                Outcome::Empty
            }
            None => Outcome::Ok,
        }
    }

    /// Puts an error text in place of what was there.
    pub(super) fn set_error(&mut self, text: &str) {
        self.error.clear();
        self.error.extend_from_slice(cut(text.as_bytes()));
    }

    /// Appends everything kept beside the record.
    pub(super) fn payload(&self, outcome: Outcome, out: &mut Vec<u8>) {
        put_part(out, part::TEXT, &self.text);
        put_part(out, part::REASONING, &self.reasoning);
        put_part(out, part::GAPS, &self.gaps);
        put_part(out, part::RAW, &self.raw);
        if self.json && !self.raw.is_empty() {
            put_part(out, part::MEDIA_TYPE, b"application/json");
        }
        if outcome != Outcome::Ok {
            put_part(out, part::ERROR, &self.error);
            put_part(out, part::REASON, &self.reason);
        }
    }
}

/// The begin of an error text, not cut within a character.
fn cut(text: &[u8]) -> &[u8] {
    let is_inside = |&at: &usize| text.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
    let end = (0..=text.len().min(ERROR_TEXT)).rev().find(|at| !is_inside(at)).unwrap_or(0);
    &text[..end]
}

/// Where events of one read are folded into.
struct Fold<'a> {
    record: &'a mut Record,
    kind: endpoint::Kind,
    capture: Capture,
    at: Instant,
    failure: &'a mut Option<Outcome>,
    text: &'a mut Vec<u8>,
    reasoning: &'a mut Vec<u8>,
    gaps: &'a mut Vec<u8>,
    error: &'a mut Vec<u8>,
    reply: Option<&'a mut Reply>,
}

impl Fold<'_> {
    fn event(&mut self, event: Event<'_>) {
        if event.name == b"error" {
            self.fail(Outcome::InStream, event.data);
        } else if !endpoint::is_done(event.data) {
            self.payload(event.data);
        }
    }

    fn payload(&mut self, data: &[u8]) {
        match self.kind.read(data) {
            Ok(reading) => self.reading(&reading),
            Err(_) => self.fail(Outcome::Malformed, data),
        }
    }

    fn reading(&mut self, reading: &Reading<'_>) {
        if let Some(error) = reading.error {
            self.fail(Outcome::InStream, error);
        }
        if let Some(usage) = reading.usage {
            self.usage(&usage);
        }
        if let Some(reply) = &mut self.reply {
            reply.add(self.kind, reading);
        }
        if reading.has_content() && !(reading.repeats && self.record.chunks > 0) {
            self.content(reading);
        }
    }

    /// Counts of one answer come piece by piece with some servers.
    fn usage(&mut self, said: &Usage) {
        let record = &mut *self.record;
        let mut usage = Usage {
            prompt: record.usage_prompt,
            completion: record.usage_completion,
            reasoning: record.usage_reasoning,
            cached: record.usage_cached,
            total: record.usage_total,
        };
        usage.update(said);
        record.usage_prompt = usage.prompt;
        record.usage_completion = usage.completion;
        record.usage_reasoning = usage.reasoning;
        record.usage_cached = usage.cached;
        record.usage_total = usage.total;
    }

    fn content(&mut self, reading: &Reading<'_>) {
        let record = &mut *self.record;
        match record.chunks {
            0 => record.first_token = self.at,
            1 => record.second_token = self.at,
            _ => {}
        }
        if record.chunks > 0 && self.capture.gaps {
            put_leb128(self.gaps, self.at.since(record.last_token));
        }
        record.chunks += 1;
        record.last_token = self.at;
        if !record.first_output.is_set() && !reading.text.is_empty() {
            record.first_output = self.at;
        }
        if self.capture.text {
            for piece in reading.text.iter() {
                json::unescape_into(piece, self.text);
            }
            for piece in reading.reasoning.iter() {
                json::unescape_into(piece, self.reasoning);
            }
        }
    }

    /// The first failure of a response names its outcome.
    fn fail(&mut self, outcome: Outcome, text: &[u8]) {
        if self.failure.is_none() {
            *self.failure = Some(outcome);
            let text = if text.is_empty() { b"an event without data".as_slice() } else { text };
            self.error.clear();
            self.error.extend_from_slice(cut(text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_text_is_cut_between_characters() {
        for shift in 0..3 {
            let text = format!("{}{}", "x".repeat(shift), "日".repeat(2000));
            let short = std::str::from_utf8(cut(text.as_bytes())).unwrap();
            assert!((ERROR_TEXT - 2..=ERROR_TEXT).contains(&short.len()));
        }
        assert_eq!(cut(b"short"), b"short");
    }
}
