//! One request in flight: what has come back so far, folded into its record as it comes.

use crate::clock::{Instant, Nanos};
use crate::endpoint::{self, Follow, Reading, Reply, ResponseField, Shapes, Unreadable, Usage};
use crate::net::ConnId;
use crate::plan::{Capture, Plan};
use crate::record::{Outcome, Record, UNKNOWN, flag, part, put_leb128, put_part, put_piece};
use crate::said::Said;
use crate::wire::http1::{Head, HttpError, ResponseReader, Step};
use crate::wire::json;
use crate::wire::sse::{Event, SseParser};
use std::sync::Arc;

/// Error texts are cut here.
const ERROR_TEXT: usize = 4096;
/// An event of a stream is read as one JSON value; beyond this the request fails.
const EVENT_LIMIT: usize = 64 << 20;
/// So is a response that is not a stream; images come as text within it.
const BODY_LIMIT: usize = 256 << 20;
/// A response that goes on beyond this is not read to its end: the request fails.
const ANSWER_LIMIT: u32 = 1 << 30;
/// Pieces of a response are kept up to here; the rest is left out, which a reader sees by the bytes received.
const RAW_LIMIT: usize = 16 << 20;
/// Text and reasoning of a response, all choices together, are kept up to here; then the record says that they were cut.
const TEXT_LIMIT: usize = 16 << 20;
/// So are the gaps between its events, and the tokens of each: at three bytes a gap, those of 2.8 million events.
const GAPS_LIMIT: usize = 8 << 20;
/// A server's account of its speculative decoding that is longer is not kept.
const SPECULATION_LIMIT: usize = 64 << 10;
/// Room that the buffers of answers which no request has may keep, bytes. Those of an answer that would go beyond it are
/// freed.
const IDLE_LIMIT: usize = 64 << 20;

/// A request from its start to its record. Slots are reused, and with them every buffer.
#[derive(Debug)]
pub(super) struct Flight {
    /// Counts the requests that have had this slot.
    pub(super) generation: u32,
    pub(super) live: bool,
    pub(super) record: Record,
    pub(super) conn: Option<ConnId>,
    pub(super) retried: bool,
    /// It is counted as late.
    pub(super) late: bool,
    /// It holds a prefill slot.
    pub(super) prefilling: bool,
    /// Cut on purpose so long after its last byte is sent.
    pub(super) cut_after: Option<Nanos>,
    /// Slot of its session, or [`NONE`].
    pub(super) session: u32,
    /// What comes back is kept for the session's later turns.
    pub(super) keeps_reply: bool,
    /// Lent by [`Answers`] when there is something to be put in.
    pub(super) answer: Option<Box<Answer>>,
    /// Which of its exchanges is under way.
    pub(super) exchange: Exchange,
    /// The head that it goes with where the server has sent it elsewhere.
    pub(super) redirected: Option<Box<Head>>,
    /// Neighbours in the list of timeouts.
    pub(super) earlier: u32,
    pub(super) later: u32,
}

impl Flight {
    /// Its wait for a connection of the pool ends at `now`. What else has taken its time is no part of that.
    pub(super) fn note_blocked(&mut self, now: Instant) {
        let record = &mut self.record;
        if self.exchange.is_first() {
            record.blocked = now.since(record.start).saturating_sub(record.connecting.saturating_add(record.lost));
        }
    }

    /// The attempt to open its connection, which may have begun before it did or had one to wait for, ends at `now`.
    pub(super) fn note_connecting(&mut self, began: Instant, now: Instant) {
        if self.exchange.is_first() {
            let seated = self.record.start.after(self.record.lost + self.record.blocked);
            self.record.connecting = now.since(began.max(seated));
        }
    }

    /// Whether it began to wait for a connection after `began`.
    pub(super) fn came_after(&self, began: Instant) -> bool {
        self.exchange.is_first() && began < self.record.start.after(self.record.lost + self.record.blocked)
    }

    /// Whether the kernel has all of what is being sent.
    pub(super) fn is_sent(&self) -> bool {
        match self.exchange {
            Exchange::Follow(_, sent) => sent,
            _ => self.record.send_end.is_set(),
        }
    }

    /// Ready for another attempt at the exchange under way. What the dead connection carried of a first one is forgotten:
    /// times and counts are those of the attempt that counts, and what the first one took is lost time.
    pub(super) fn retry(&mut self, now: Instant) {
        (self.retried, self.conn) = (true, None);
        let record = &mut self.record;
        record.flags |= flag::RETRIED;
        if let Exchange::Follow(follow, sent) = &mut self.exchange {
            *sent = false;
            if let Some(answer) = &mut self.answer {
                answer.begin_exchange(follow.is_file);
            }
            return;
        }
        self.begin_again(now);
    }

    /// Ready to be sent anew. What came of the first time is forgotten, and what it took is lost time.
    pub(super) fn begin_again(&mut self, now: Instant) {
        let record = &mut self.record;
        (record.lost, record.connecting) = (now.since(record.start.after(record.blocked)), 0);
        record.flags &= !flag::REUSED;
        (record.sent, record.send_end, record.first_byte) = (Instant::UNSET, Instant::UNSET, Instant::UNSET);
        (record.bytes_sent, record.local_port) = (0, 0);
        (record.first_body, record.bytes_received, record.reads, record.status) = (Instant::UNSET, 0, 0, 0);
        if let Some(answer) = &mut self.answer {
            answer.reset();
        }
    }

    /// The request's answer, and the record that it is folded into.
    #[inline]
    pub(super) fn answer(&mut self, answers: &mut Answers) -> (&mut Answer, &mut Record) {
        let keeps_reply = self.keeps_reply;
        (self.answer.get_or_insert_with(|| answers.lend(keeps_reply)), &mut self.record)
    }

    /// Whether any byte of the response has come.
    pub(super) fn is_answered(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| answer.reader.started())
    }

    pub(super) fn new() -> Self {
        Self {
            generation: 0,
            live: false,
            record: bytemuck::Zeroable::zeroed(),
            conn: None,
            retried: false,
            late: false,
            prefilling: false,
            cut_after: None,
            session: NONE,
            keeps_reply: false,
            answer: None,
            exchange: Exchange::First,
            redirected: None,
            earlier: NONE,
            later: NONE,
        }
    }
}

/// Which exchange of a request is under way. Nearly all have one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Exchange {
    /// The request itself.
    First,
    /// None yet: its time will come.
    Paused(Box<Follow>),
    /// A GET that follows the request, and whether the last of it has been handed to the kernel.
    Follow(Box<Follow>, bool),
}

impl Exchange {
    pub(super) fn is_first(&self) -> bool {
        *self == Self::First
    }
}

/// No flight.
pub(super) const NONE: u32 = u32::MAX;

/// The answers that no request has. A request has one from the first byte of its response to its record: the next one to
/// begin finds the buffers of the last one to end, still in the processor's cache, however many wait for their first byte.
#[derive(Debug, Default)]
#[expect(clippy::vec_box, reason = "an answer moves by its address, not by its bytes")]
pub(super) struct Answers {
    idle: Vec<Box<Answer>>,
    /// Room of their buffers together, bytes.
    held: usize,
}

impl Answers {
    #[inline]
    fn lend(&mut self, keeps_reply: bool) -> Box<Answer> {
        let mut answer = self.idle.pop().unwrap_or_else(|| Box::new(Answer::new()));
        self.held -= std::mem::take(&mut answer.room);
        answer.kept.keeps_reply = keeps_reply;
        answer.reset();
        answer
    }

    #[inline]
    pub(super) fn give_back(&mut self, mut answer: Box<Answer>) {
        let room = answer.room();
        if self.held + room > IDLE_LIMIT {
            *answer = Answer::new();
        } else {
            answer.room = room;
            self.held += room;
        }
        self.idle.push(answer);
    }
}

/// How far a response has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Advance {
    /// More bytes are needed.
    More,
    /// It is complete.
    Done { reusable: bool },
    /// It is not HTTP.
    Broken(HttpError),
    /// It is longer than any that is read.
    TooLong,
}

/// A response as it comes in.
#[derive(Debug)]
pub(super) struct Answer {
    reader: ResponseReader,
    events: SseParser,
    is_stream: bool,
    body: Vec<u8>,
    reason: Vec<u8>,
    /// Where a redirect leads.
    pub(super) location: String,
    pub(super) kept: Kept,
    raw: Vec<u8>,
    /// When the last piece in `raw` came.
    raw_at: Instant,
    json: bool,
    /// It is a file, of which no byte is kept.
    is_file: bool,
    /// Its body is compressed, and is not read.
    is_coded: bool,
    /// Room of its buffers as [`Answers`] counts it; 0 while a request has it.
    room: usize,
}

/// How answers are read: the same for all of a run.
#[derive(Debug)]
pub(super) struct Reader {
    kind: endpoint::Kind,
    capture: Capture,
    /// Where the output stands, if not where the protocol has it.
    field: Option<Arc<ResponseField>>,
    shapes: Shapes,
}

impl Reader {
    /// As the plan has it.
    pub(super) fn new(plan: &Plan) -> Self {
        let field = plan.response_field.clone();
        Self { kind: plan.endpoint, capture: plan.capture, field, shapes: Shapes::new() }
    }

    /// Reads a payload; `made` keeps what a path's expression makes of it, and stays without room where there is none.
    #[inline]
    fn read<'d>(&mut self, data: &'d [u8], made: &'d mut Vec<u8>, reading: &mut Reading<'d>) -> Result<(), Unreadable> {
        match &self.field {
            None => self.shapes.read_into(self.kind, data, reading),
            Some(field) => field.read(data, made).map(|read| *reading = read),
        }
    }
}

/// What payloads are folded into beside the record.
#[derive(Debug, Default)]
pub(super) struct Kept {
    failure: Option<Outcome>,
    text: Vec<u8>,
    reasoning: Vec<u8>,
    gaps: Vec<u8>,
    error: Vec<u8>,
    extras: Extras,
    /// Bytes of text and reasoning, all choices together.
    written: usize,
    /// What a session's later turns carry of the answer.
    pub(super) reply: Reply,
    /// Whether they do.
    keeps_reply: bool,
}

/// What few answers have.
#[derive(Debug, Default)]
struct Extras {
    /// Tokens of each content response so far, as long as the server counts them all.
    tokens: Vec<u8>,
    /// Content responses in `tokens`.
    counted: u32,
    /// The server's count at the last of them.
    so_far: u32,
    speculation: Vec<u8>,
    /// What the server counted beyond the tokens of the record.
    said: Said,
    /// Texts of the second choice and those after it.
    choices: Vec<Vec<u8>>,
    /// Events that were not JSON.
    ignored: u32,
}

impl Kept {
    /// Several answers to one request are counted one after the other, however they came.
    fn gather_choices(&mut self) {
        for text in &mut self.extras.choices {
            self.text.append(text);
        }
    }
}

/// Appends an escaped text as far as there is room: `false` if it was cut. `written` is what all texts of the answer have.
#[inline]
fn append(raw: &[u8], text: &mut Vec<u8>, written: &mut usize) -> bool {
    // An escape is no shorter than what it stands for. Only bytes that are not UTF-8 become more: they end the text sooner.
    let room = TEXT_LIMIT.saturating_sub(*written);
    let is_whole = raw.len() <= room;
    let before = text.len();
    json::unescape_into(if is_whole { raw } else { json::prefix(raw, room) }, text);
    *written += text.len() - before;
    is_whole
}

/// Choices whose texts are kept apart; those beyond share the last place.
const CHOICES: usize = 128;

impl Extras {
    fn clear(&mut self) {
        self.tokens.clear();
        (self.counted, self.so_far, self.ignored) = (0, 0, 0);
        self.speculation.clear();
        if !self.said.is_empty() {
            self.said = Said::default();
        }
        self.choices.iter_mut().for_each(Vec::clear);
    }

    /// Notes the tokens of the next content response, of which `chunks` came before. One without a count ends the notes:
    /// a count that covers several responses cannot be divided among them.
    fn count(&mut self, chunks: u32, usage: Option<Usage>) {
        let all = usage.map_or(UNKNOWN, |usage| usage.completion);
        if chunks == self.counted && all != UNKNOWN {
            put_leb128(&mut self.tokens, u64::from(all.saturating_sub(self.so_far)));
            self.counted += 1;
            self.so_far = all;
        }
    }

    /// Where the text of choice `n`, from 1, goes.
    #[cold]
    fn choice(&mut self, n: u32) -> &mut Vec<u8> {
        let place = (n as usize - 1).min(CHOICES);
        if self.choices.len() <= place {
            self.choices.resize_with(place + 1, Vec::new);
        }
        &mut self.choices[place]
    }
}

impl Answer {
    fn new() -> Self {
        Self {
            reader: ResponseReader::new(),
            events: SseParser::new(),
            is_stream: false,
            body: Vec::new(),
            reason: Vec::new(),
            location: String::new(),
            kept: Kept::default(),
            raw: Vec::new(),
            raw_at: Instant::UNSET,
            json: false,
            is_file: false,
            is_coded: false,
            room: 0,
        }
    }

    /// Room of the buffers, bytes.
    #[inline]
    fn room(&self) -> usize {
        let Kept { text, reasoning, gaps, extras, reply, keeps_reply, .. } = &self.kept;
        let own = [&self.body, &self.raw, text, reasoning, gaps, &extras.tokens, &extras.speculation];
        let choices: usize = extras.choices.iter().map(Vec::capacity).sum();
        let reply = if *keeps_reply { reply.room() } else { 0 };
        own.iter().map(|buffer| buffer.capacity()).sum::<usize>() + self.events.room() + choices + reply
    }

    /// Ready for another response; buffers keep their room.
    pub(super) fn reset(&mut self) {
        self.begin_exchange(false);
        let Kept { failure, text, reasoning, gaps, error, extras, written, reply, keeps_reply } = &mut self.kept;
        (*failure, *written) = (None, 0);
        for buffer in [text, reasoning, gaps, error] {
            buffer.clear();
        }
        extras.clear();
        if *keeps_reply {
            reply.clear();
        }
    }

    /// Ready for another response to the same request: what counts of those before it stays. Of several answers the last
    /// one that is no file is kept as it came.
    pub(super) fn begin_exchange(&mut self, is_file: bool) {
        self.reader.reset();
        self.events.reset();
        self.is_stream = false;
        self.is_file = is_file;
        self.body.clear();
        self.reason.clear();
        self.location.clear();
        if !is_file {
            self.raw.clear();
            self.raw_at = Instant::UNSET;
            self.json = false;
        }
    }

    /// The body of an answer that may ask for more: whole, no stream, no failure.
    pub(super) fn asks(&self, status: u16) -> Option<&[u8]> {
        let may = (200..300).contains(&status) && !self.is_stream && !self.is_file && self.kept.failure.is_none();
        may.then_some(&self.body)
    }

    /// Reads what came at `at`.
    pub(super) fn read(&mut self, mut bytes: &[u8], at: Instant, record: &mut Record, how: &mut Reader) -> Advance {
        let Self {
            reader, events, is_stream, body, reason, location, kept, raw, raw_at, json, is_file, is_coded, ..
        } = self;
        let mut fold = Fold { record, how, at, kept };
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
                    *json = if *is_file { *json } else { head.json };
                    reason.extend_from_slice(head.reason.as_bytes());
                    if (300..400).contains(&head.status) {
                        location.push_str(head.location);
                    }
                    *is_coded = !head.coding.is_empty() && !*is_file;
                    if *is_coded {
                        fold.fail(Outcome::Malformed, coded(head.coding).as_bytes());
                    }
                }
                Ok(Step::Body(piece)) => {
                    has_body = true;
                    fold.record.bytes_received = fold.record.bytes_received.saturating_add(piece.len() as u32);
                    if fold.how.capture.raw && !*is_file && raw.len() < RAW_LIMIT {
                        let before = if raw_at.is_set() { *raw_at } else { fold.record.start };
                        put_piece(raw, at.since(before), &piece[..piece.len().min(RAW_LIMIT - raw.len())]);
                        *raw_at = at;
                    }
                    let is_ok = (200..300).contains(&fold.record.status);
                    if fold.record.bytes_received > if *is_file { u32::MAX - 1 } else { ANSWER_LIMIT } {
                        fold.fail(Outcome::Malformed, b"the response goes on beyond 1 GiB; it was not read to its end");
                        break Advance::TooLong;
                    } else if *is_coded {
                        continue;
                    } else if *is_stream && events.held() <= EVENT_LIMIT {
                        events.feed(piece, &mut |event| fold.event(event));
                    } else if *is_stream {
                        fold.fail(Outcome::Malformed, b"an event is larger than 64 MiB");
                        break Advance::TooLong;
                    } else if *is_file && is_ok {
                        continue;
                    } else if body.len() + piece.len() <= BODY_LIMIT {
                        body.extend_from_slice(piece);
                    } else {
                        fold.fail(Outcome::Malformed, b"the response body is larger than 256 MiB");
                        break Advance::TooLong;
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
    pub(super) fn conclude(&mut self, at: Instant, record: &mut Record, how: &mut Reader) -> Outcome {
        let Self { events, is_stream, body, kept, is_file, is_coded, .. } = self;
        let mut fold = Fold { record, how, at, kept };
        if !(200..300).contains(&fold.record.status) {
            if !*is_coded {
                fold.kept.error.extend_from_slice(cut(body));
            }
            return Outcome::HttpStatus;
        }
        if *is_coded {
            // What came is not text.
        } else if *is_stream {
            events.finish(&mut |event| fold.event(event));
        } else if !*is_file {
            fold.payload(body);
        }
        fold.kept.gather_choices();
        match fold.kept.failure {
            Some(outcome) => outcome,
            // Their first one is the error text.
            None if fold.record.chunks == 0 && fold.kept.extras.ignored > 0 => Outcome::Malformed,
            None if fold.record.chunks == 0 => {
                fold.kept.error.extend_from_slice(b"the response holds no content");
                Outcome::Empty
            }
            None => Outcome::Ok,
        }
    }

    /// The response is not read to its end: names the outcome.
    #[cold]
    pub(super) fn give_up(&mut self, status: u16) -> Outcome {
        if !(200..300).contains(&status) && !self.is_coded {
            self.kept.error.clear();
            self.kept.error.extend_from_slice(cut(&self.body));
            return Outcome::HttpStatus;
        }
        self.kept.gather_choices();
        self.kept.failure.unwrap_or(Outcome::Malformed)
    }

    /// The answer is none that makes sense, and why.
    pub(super) fn set_malformed(&mut self, text: &str) {
        self.kept.failure = Some(Outcome::Malformed);
        self.set_error(text);
    }

    /// Puts an error text in place of what was there.
    pub(super) fn set_error(&mut self, text: &str) {
        self.kept.error.clear();
        self.kept.error.extend_from_slice(cut(text.as_bytes()));
    }

    /// Appends everything kept beside the record.
    pub(super) fn payload(&self, outcome: Outcome, chunks: u32, out: &mut Vec<u8>) {
        put_part(out, part::TEXT, &self.kept.text);
        put_part(out, part::REASONING, &self.kept.reasoning);
        put_part(out, part::GAPS, &self.kept.gaps);
        put_part(out, part::RAW, &self.raw);
        if self.json && !self.raw.is_empty() {
            put_part(out, part::MEDIA_TYPE, b"application/json");
        }
        if self.kept.extras.counted == chunks {
            put_part(out, part::TOKENS, &self.kept.extras.tokens);
        }
        put_part(out, part::SPECULATION, &self.kept.extras.speculation);
        if !self.kept.extras.said.is_empty() {
            let mut said = Vec::new();
            self.kept.extras.said.put(&mut said);
            put_part(out, part::SAID, &said);
        }
        if self.kept.extras.ignored > 0 {
            let mut ignored = Vec::new();
            put_leb128(&mut ignored, u64::from(self.kept.extras.ignored));
            put_part(out, part::IGNORED, &ignored);
        }
        self.failure(outcome, out);
    }

    /// Appends what says why it failed: a few kilobytes, whatever else is kept.
    pub(super) fn failure(&self, outcome: Outcome, out: &mut Vec<u8>) {
        if outcome != Outcome::Ok {
            put_part(out, part::ERROR, &self.kept.error);
            put_part(out, part::REASON, cut(&self.reason));
        }
    }
}

/// Why a compressed body is not read.
#[cold]
fn coded(coding: &str) -> String {
    format!(
        "the response is compressed (Content-Encoding: {coding}), and maser reads no compressed ones: remove \
         Accept-Encoding from the headers, or switch compression off at the server or proxy"
    )
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
    how: &'a mut Reader,
    at: Instant,
    kept: &'a mut Kept,
}

impl Fold<'_> {
    fn event(&mut self, event: Event<'_>) {
        if !event.name.is_empty() && event.name.trim_ascii().eq_ignore_ascii_case(b"error") {
            self.fail(Outcome::InStream, event.data);
        } else if !endpoint::is_done(event.data) {
            self.payload(event.data);
        }
    }

    fn payload(&mut self, data: &[u8]) {
        let (mut made, mut reading) = (Vec::new(), Reading::default());
        match self.how.read(data, &mut made, &mut reading) {
            Ok(()) => self.reading(&reading),
            Err(_) => self.odd_payload(data),
        }
    }

    /// Servers send keep-alives without data, events that lack the blank line between them, and events that are not JSON:
    /// what of them can be read is, the rest is counted. A body that cannot be read is broken.
    #[cold]
    fn odd_payload(&mut self, data: &[u8]) {
        if !self.record.has(flag::STREAMED) {
            return self.fail(Outcome::Malformed, data);
        }
        let lines =
            data.split(|b| *b == b'\n').filter(|line| !line.trim_ascii().is_empty() && !endpoint::is_done(line));
        for line in lines {
            let (mut made, mut reading) = (Vec::new(), Reading::default());
            if self.how.read(line, &mut made, &mut reading).is_ok() {
                self.reading(&reading);
                continue;
            }
            let Kept { extras, error, failure, .. } = &mut *self.kept;
            if extras.ignored == 0 && failure.is_none() {
                error.clear();
                error.extend_from_slice(cut(line));
            }
            extras.ignored = extras.ignored.saturating_add(1);
        }
    }

    fn reading(&mut self, reading: &Reading<'_>) {
        if let Some(error) = reading.error {
            self.fail(Outcome::InStream, error);
        }
        if let Some(usage) = reading.usage {
            self.usage(&usage);
        }
        if !reading.speculation.is_empty() && reading.speculation.len() <= SPECULATION_LIMIT {
            self.kept.extras.speculation.clear();
            self.kept.extras.speculation.extend_from_slice(reading.speculation);
        }
        if self.kept.keeps_reply && !self.kept.reply.add(self.how.kind, reading) {
            self.record.flags |= flag::TEXT_CUT;
        }
        if reading.has_content() && !(reading.repeats && self.record.chunks > 0) {
            self.content(reading);
        }
    }

    /// Counts of one answer come piece by piece with some servers.
    fn usage(&mut self, said: &Usage) {
        if !said.said.is_empty() {
            self.kept.extras.said.update(&said.said);
        }
        let record = &mut *self.record;
        let mut usage = Usage {
            prompt: record.usage_prompt,
            completion: record.usage_completion,
            reasoning: record.usage_reasoning,
            cached: record.usage_cached,
            total: record.usage_total,
            said: Said::default(),
        };
        usage.update(said);
        record.usage_prompt = usage.prompt;
        record.usage_completion = usage.completion;
        record.usage_reasoning = usage.reasoning;
        record.usage_cached = usage.cached;
        record.usage_total = usage.total;
    }

    fn content(&mut self, reading: &Reading<'_>) {
        let (record, kept) = (&mut *self.record, &mut *self.kept);
        match record.chunks {
            0 => record.first_token = self.at,
            1 => record.second_token = self.at,
            _ => {}
        }
        if self.how.capture.gaps {
            if kept.gaps.len() >= GAPS_LIMIT {
                record.flags |= flag::TEXT_CUT;
            } else {
                if record.chunks > 0 {
                    put_leb128(&mut kept.gaps, self.at.since(record.last_token));
                }
                kept.extras.count(record.chunks, reading.usage);
            }
        }
        record.chunks += 1;
        record.last_token = self.at;
        record.units = record.units.saturating_add(reading.units);
        if !record.first_output.is_set() && !reading.text.is_empty() {
            record.first_output = self.at;
        }
        if self.how.capture.text {
            let mut is_whole = true;
            let text = if reading.choice == 0 { &mut kept.text } else { kept.extras.choice(reading.choice) };
            for piece in reading.text.iter() {
                is_whole &= append(piece, text, &mut kept.written);
            }
            for piece in reading.reasoning.iter() {
                is_whole &= append(piece, &mut kept.reasoning, &mut kept.written);
            }
            if !is_whole {
                record.flags |= flag::TEXT_CUT;
            }
        }
    }

    /// The first failure of a response names its outcome.
    fn fail(&mut self, outcome: Outcome, text: &[u8]) {
        if self.kept.failure.is_none() {
            self.kept.failure = Some(outcome);
            let text = if text.is_empty() { b"an event without data".as_slice() } else { text };
            self.kept.error.clear();
            self.kept.error.extend_from_slice(cut(text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Kind;
    use crate::record::Payload;
    use bytemuck::Zeroable;

    /// Outcome, record and what is kept of an answer, cut into single bytes.
    fn concluded(kind: Kind, head: &str, body: &str) -> (Outcome, Record, Vec<u8>) {
        let bytes = format!("HTTP/1.1 200 OK\r\n{head}Content-Length: {}\r\n\r\n{body}", body.len());
        let capture = Capture { text: true, gaps: true, raw: false };
        let mut record = Record { usage_completion: UNKNOWN, usage_cached: UNKNOWN, ..Record::zeroed() };
        let mut how = Reader { kind, capture, field: None, shapes: Shapes::new() };
        let mut answer = Answer::new();
        for (n, byte) in bytes.bytes().enumerate() {
            answer.read(&[byte], Instant(n as u64 + 1), &mut record, &mut how);
        }
        let outcome = answer.conclude(Instant(bytes.len() as u64 + 1), &mut record, &mut how);
        let mut payload = Vec::new();
        answer.payload(outcome, record.chunks, &mut payload);
        (outcome, record, payload)
    }

    fn streamed(kind: Kind, events: &[&str]) -> (Outcome, Record, Vec<u8>) {
        let body: String = events.iter().map(|event| format!("{event}\n\n")).collect();
        concluded(kind, "Content-Type: text/event-stream\r\n", &body)
    }

    fn delta(choice: u32, text: &str, usage: Option<u32>) -> String {
        let usage = usage.map_or("null".to_owned(), |n| format!("{{\"completion_tokens\":{n}}}"));
        format!("data: {{\"choices\":[{{\"index\":{choice},\"delta\":{{\"content\":\"{text}\"}}}}],\"usage\":{usage}}}")
    }

    #[test]
    fn keep_alives_are_no_tokens_and_run_together_events_are_two() {
        let (a, b) = (delta(0, "a", None), delta(0, "b", None));
        for events in [
            &[a.as_str(), ": ping", "data:", "event: ping\ndata: ", &b, "data: [DONE]"][..],
            &[&format!("{a}\n{b}"), "data: [DONE]"],
            &[&format!("{a}\n{b}\ndata: [DONE]")],
        ] {
            let (outcome, record, payload) = streamed(Kind::Chat, events);
            assert_eq!(
                (outcome, record.chunks, Payload::parse(&payload).text),
                (Outcome::Ok, 2, &b"ab"[..]),
                "{events:?}"
            );
        }
        for events in [
            &[a.as_str(), "data: {"][..],
            &[&format!("{a}\ndata: x")],
            &["data: [HEARTBEAT]", &a],
            &[&a, "data: [DONE]", "data: OK"],
        ] {
            let (outcome, record, payload) = streamed(Kind::Chat, events);
            let payload = Payload::parse(&payload);
            assert_eq!((outcome, record.chunks, payload.text), (Outcome::Ok, 1, &b"a"[..]), "{events:?}");
            assert_eq!(payload.ignored(), 1, "{events:?}");
        }
        let (outcome, _, payload) = streamed(Kind::Chat, &["data: <html>", "data: ping", "data: [DONE]"]);
        let payload = Payload::parse(&payload);
        assert_eq!((outcome, payload.ignored(), payload.error), (Outcome::Malformed, 2, &b"<html>"[..]));
        for name in ["error", "Error", "ERROR"] {
            let (outcome, _, payload) = streamed(Kind::Chat, &[&a, &format!("event: {name}\ndata: no")]);
            assert_eq!((outcome, Payload::parse(&payload).error), (Outcome::InStream, &b"no"[..]), "{name}");
        }
        assert_eq!(concluded(Kind::Chat, "", "").0, Outcome::Malformed);
        let (outcome, _, payload) = streamed(Kind::Chat, &[&a, "data: {\"error\":{\"message\":\"m\"}}"]);
        assert_eq!((outcome, Payload::parse(&payload).error), (Outcome::InStream, &br#"{"message":"m"}"#[..]));
    }

    #[test]
    fn a_compressed_answer_says_what_to_do() {
        for (coding, said) in [("gzip", true), ("identity", false), ("", false)] {
            let (outcome, _, payload) = concluded(Kind::Chat, &format!("Content-Encoding: {coding}\r\n"), "\x1f\u{8b}");
            let error = String::from_utf8_lossy(Payload::parse(&payload).error).into_owned();
            assert_eq!((outcome, error.contains("Content-Encoding: gzip")), (Outcome::Malformed, said), "{error}");
        }
    }

    #[test]
    fn tokens_of_each_event_are_kept_if_all_are_known() {
        let tokens = |events: &[String]| {
            let events: Vec<&str> = events.iter().map(String::as_str).collect();
            let (_, record, payload) = streamed(Kind::Chat, &events);
            (record.usage_completion, Payload::parse(&payload).tokens().collect::<Vec<_>>())
        };
        let all = [delta(0, "a", Some(3)), delta(0, "", Some(4)), delta(0, "b", Some(6)), delta(0, "c", Some(6))];
        assert_eq!(tokens(&all), (6, vec![3, 3, 0]));
        assert_eq!(tokens(&[delta(0, "a", Some(3)), delta(0, "b", None), delta(0, "c", Some(9))]), (9, vec![]));
        assert_eq!(tokens(&[delta(0, "a", None), delta(0, "b", Some(2))]), (2, vec![]));
    }

    #[test]
    fn choices_are_gathered_one_after_the_other() {
        let events =
            [delta(0, "a", None), delta(2, "x", None), delta(1, "m", None), delta(0, "b", None), delta(2, "y", None)];
        let events: Vec<&str> = events.iter().map(String::as_str).collect();
        let (_, record, payload) = streamed(Kind::Chat, &events);
        assert_eq!((record.chunks, Payload::parse(&payload).text), (5, &b"abmxy"[..]));
    }

    #[test]
    fn counts_that_come_in_pieces_add_up() {
        let (outcome, record, payload) = streamed(
            Kind::Messages,
            &[
                r#"data: {"type":"message_start","message":{"usage":{"input_tokens":3,"cache_read_input_tokens":9,"output_tokens":1}}}"#,
                r#"data: {"delta":{"type":"text_delta","text":"t"}}"#,
                r#"data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":5}}"#,
            ],
        );
        assert_eq!(
            (outcome, record.usage_prompt, record.usage_cached, record.usage_completion),
            (Outcome::Ok, 12, 9, 5)
        );
        assert_eq!(Payload::parse(&payload).text, b"t");
    }

    #[test]
    fn what_is_no_text_is_counted_in_units_and_repetitions_not_at_all() {
        let (outcome, record, _) = concluded(Kind::Embeddings, "", r#"{"data":[{"embedding":[1]},{"embedding":[2]}]}"#);
        assert_eq!((outcome, record.units, record.chunks), (Outcome::Ok, 2, 1));
        assert_eq!(concluded(Kind::NimRankings, "", r#"{"rankings":[]}"#).0, Outcome::Empty);
        let done = r#"data: {"type":"response.output_text.done","text":"ab"}"#;
        let delta = r#"data: {"type":"response.output_text.delta","delta":"ab"}"#;
        for events in [&[done][..], &[delta, done]] {
            let (outcome, record, payload) = streamed(Kind::Responses, events);
            assert_eq!((outcome, record.chunks, Payload::parse(&payload).text), (Outcome::Ok, 1, &b"ab"[..]));
        }
        let body = r#"{"choices":[{"message":{"content":"a"}}],"metrics":{"speculative_decoding":{"steps": 3}}}"#;
        let (_, _, payload) = concluded(Kind::Chat, "", body);
        assert_eq!(Payload::parse(&payload).speculation, br#"{"steps": 3}"#);
    }

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
