//! What the scripted server answers: bytes, and what a client must make of them.

use super::dice::Dice;
use crate::clock::{MICRO, MILLI, Nanos};
use crate::record::Outcome;

/// How the server behaves, in permille of the cases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manners {
    /// Answers that do not go well, of all kinds.
    pub trouble: u64,
    /// Requests that are never answered in full. Only for plans with a request timeout.
    pub hang: u64,
    /// Connections refused.
    pub refuse: u64,
    /// Attempts to connect that are never answered. Only for plans with a request timeout.
    pub swallow: u64,
    /// Connections closed as soon as they stand.
    pub close_fresh: u64,
    /// Connections closed after an answer that did not announce it.
    pub close_after: u64,
    /// Connections closed some time after an answer, if no request has come.
    pub idle_close: u64,
    /// Requests of which the kernel first takes a part only.
    pub partial_send: u64,
    /// Answers that come as a stream.
    pub stream: u64,
    /// Longest time to the first byte of an answer.
    pub first_byte: Nanos,
    /// Longest time between two pieces of an answer.
    pub gap: Nanos,
    /// Longest time to connect.
    pub connect: Nanos,
}

impl Manners {
    /// A server that answers everything, in no time to speak of, in streams.
    pub fn prompt() -> Self {
        Self {
            trouble: 0,
            hang: 0,
            refuse: 0,
            swallow: 0,
            close_fresh: 0,
            close_after: 0,
            idle_close: 0,
            partial_send: 0,
            stream: 1000,
            first_byte: 10 * MICRO,
            gap: MICRO,
            connect: 10 * MICRO,
        }
    }

    /// A server of some character. `may_hang` lets it leave requests without an answer.
    pub fn drawn(dice: &mut Dice, may_hang: bool) -> Self {
        let hang = dice.pick(&[0, 0, 30]);
        let swallow = dice.pick(&[0, 0, 0, 100]);
        Self {
            trouble: dice.pick(&[0, 50, 300, 1000]),
            hang: if may_hang { hang } else { 0 },
            swallow: if may_hang { swallow } else { 0 },
            refuse: dice.pick(&[0, 0, 50, 500]),
            close_fresh: dice.pick(&[0, 0, 100, 700]),
            close_after: dice.pick(&[0, 0, 100, 1000]),
            idle_close: dice.pick(&[0, 300, 1000]),
            partial_send: dice.pick(&[0, 100, 1000]),
            stream: dice.pick(&[0, 500, 1000, 1000]),
            first_byte: dice.pick(&[50 * MICRO, MILLI, 20 * MILLI]),
            gap: dice.pick(&[MICRO, 200 * MICRO, 2 * MILLI]),
            connect: dice.pick(&[20 * MICRO, MILLI, 10 * MILLI]),
        }
    }
}

/// A response with content, as the server meant it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Bytes of the answer after which a client has read it; `usize::MAX` if only the close tells.
    pub end: usize,
    /// Visible output.
    pub text: &'static str,
    /// Either as the answer's JSON has it.
    pub raw: &'static str,
    /// Reasoning.
    pub reasoning: &'static str,
}

/// What the server does after the last byte of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// Waits for the next request.
    Wait,
    /// Closes.
    Close,
    /// Resets.
    Reset,
    /// Nothing more, ever.
    Hang,
}

/// An answer as scripted.
#[derive(Debug, Clone)]
pub struct Answer {
    /// All of its bytes.
    pub bytes: Vec<u8>,
    /// Its contents in order.
    pub contents: Vec<Content>,
    /// Whether the last byte completes it.
    pub complete: bool,
    /// What follows.
    pub after: After,
    /// What a client makes of it once all has come.
    pub outcome: Outcome,
    /// Whether a client may use the connection again, going by the answer.
    pub reusable: bool,
    /// Status in its head; 0 if no whole head comes.
    pub status: u16,
    /// Whether any of its bytes belong to a head.
    pub speaks: bool,
}

impl Answer {
    /// The answer that the dice make.
    pub fn drawn(dice: &mut Dice, manners: &Manners) -> Self {
        let streamed = dice.chance(manners.stream);
        let framing = dice.pick(&Framing::ALL);
        if dice.chance(manners.hang) {
            return Self::with_body(dice, streamed, Outcome::Ok, framing).cut(dice, After::Hang, Outcome::Timeout);
        }
        let kind = if dice.chance(manners.trouble) { dice.within(1, 9) } else { 0 };
        match kind {
            1 => Self::with_body(dice, streamed, Outcome::InStream, framing),
            2 => {
                let answer = Self::with_body(dice, streamed, Outcome::Malformed, framing);
                // Of a stream one event cannot be read, and is ignored.
                Self { outcome: if streamed { Outcome::Ok } else { Outcome::Malformed }, ..answer }
            }
            3 => Self::with_body(dice, streamed, Outcome::Empty, framing),
            4 => Self::with_body(dice, false, Outcome::HttpStatus, framing),
            5 => Self::silent(dice.pick(&[b"".as_slice(), b"", b"\r\n"]), After::Close),
            6 => Self::silent(b"", After::Reset),
            7 => {
                // Until the connection is closed, any end is a proper one.
                let framing = if framing == Framing::UntilClose { Framing::Length } else { framing };
                Self::with_body(dice, streamed, Outcome::Ok, framing).cut(dice, After::Close, Outcome::Truncated)
            }
            8 => Self::with_body(dice, streamed, Outcome::Ok, framing).cut(dice, After::Reset, Outcome::Reset),
            9 => Self::garbage(),
            _ => Self::with_body(dice, streamed, Outcome::Ok, framing),
        }
    }

    fn garbage() -> Self {
        let silent = Self::silent(b"SSH-2.0-OpenSSH_9.6\r\n", After::Wait);
        Self { outcome: Outcome::Protocol, speaks: true, ..silent }
    }

    fn silent(bytes: &[u8], after: After) -> Self {
        Self {
            bytes: bytes.to_vec(),
            contents: Vec::new(),
            complete: false,
            after,
            outcome: Outcome::Reset,
            reusable: false,
            status: 0,
            speaks: false,
        }
    }

    fn with_body(dice: &mut Dice, streamed: bool, outcome: Outcome, framing: Framing) -> Self {
        let status = if outcome == Outcome::HttpStatus { 500 } else { 200 };
        let mut body = Body::default();
        match (outcome, streamed) {
            (Outcome::HttpStatus, _) => body.put("{\"message\":\"out of order\"}"),
            (_, true) => body.stream(dice, outcome),
            (_, false) => body.whole(dice, outcome),
        }
        let announced = framing != Framing::UntilClose && dice.chance(100);
        let mut bytes = Vec::new();
        if dice.chance(30) {
            bytes.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        let kind = if streamed { "text/event-stream; charset=utf-8" } else { "application/json" };
        bytes.extend_from_slice(format!("HTTP/1.1 {status} So\r\nContent-Type: {kind}\r\n").as_bytes());
        if announced {
            bytes.extend_from_slice(b"Connection: close\r\n");
        }
        let mut answer = Self { outcome, status, speaks: true, ..Self::silent(b"", After::Wait) };
        answer.complete = framing != Framing::UntilClose;
        answer.reusable = answer.complete && !announced;
        answer.after = if answer.reusable { After::Wait } else { After::Close };
        answer.bytes = bytes;
        answer.frame(dice, body, framing);
        answer
    }

    fn frame(&mut self, dice: &mut Dice, body: Body, framing: Framing) {
        let Body { bytes: body, contents } = body;
        let out = &mut self.bytes;
        match framing {
            Framing::Length => out.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes()),
            Framing::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n"),
            Framing::UntilClose => out.extend_from_slice(b"\r\n"),
        }
        let mut place = contents.into_iter().peekable();
        let mut at = 0;
        while at < body.len() {
            let left = body.len() - at;
            let len = if framing == Framing::Chunked { dice.within(1, 150).min(left as u64) as usize } else { left };
            if framing == Framing::Chunked {
                out.extend_from_slice(format!("{len:x}\r\n").as_bytes());
            }
            while let Some(content) = place.next_if(|c| c.end <= at + len) {
                self.contents.push(Content { end: out.len() + content.end - at, ..content });
            }
            out.extend_from_slice(&body[at..at + len]);
            if framing == Framing::Chunked {
                out.extend_from_slice(b"\r\n");
            }
            at += len;
        }
        if framing == Framing::Chunked {
            out.extend_from_slice(b"0\r\n\r\n");
        }
        // What only the end of the answer tells.
        let end = if framing == Framing::UntilClose { usize::MAX } else { out.len() };
        self.contents.extend(place.map(|content| Content { end, ..content }));
    }

    /// The answer up to somewhere before its end.
    fn cut(mut self, dice: &mut Dice, after: After, outcome: Outcome) -> Self {
        let from = if after == After::Hang { 0 } else { 1 };
        self.bytes.truncate(dice.within(from, self.bytes.len() as u64 - 1) as usize);
        let len = self.bytes.len();
        self.contents.retain(|c| c.end <= len);
        Self { complete: false, after, outcome, reusable: false, ..self }
    }
}

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length,
    Chunked,
    UntilClose,
}

impl Framing {
    const ALL: [Self; 5] = [Self::Length, Self::Chunked, Self::Chunked, Self::Chunked, Self::UntilClose];
}

/// Pieces of text: as JSON has them, and as they read.
const TEXTS: [(&str, &str); 5] =
    [("Hello ", "Hello "), ("a\\nb", "a\nb"), ("\\u00e9t\\u00e9", "été"), ("\\\"so\\\"", "\"so\""), ("日本", "日本")];

/// A body and its contents, ends counted in bytes of the body; `usize::MAX` for the end of it.
#[derive(Debug, Default)]
struct Body {
    bytes: Vec<u8>,
    contents: Vec<Content>,
}

impl Body {
    fn put(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
    }

    fn stream(&mut self, dice: &mut Dice, outcome: Outcome) {
        let line_end = dice.pick(&["\n", "\n", "\r\n"]);
        if dice.chance(300) {
            self.event(": hello", line_end);
        }
        self.event("data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}", line_end);
        let events = if outcome == Outcome::Empty { 0 } else { dice.within(1, 8) };
        let bad = dice.below(events.max(1));
        for n in 0..events {
            if n == bad {
                match outcome {
                    Outcome::Malformed => self.event("data: {\"choices\":[{\"delta\"", line_end),
                    Outcome::InStream if dice.chance(500) => self.event("event: error", line_end),
                    Outcome::InStream => self.event("data: {\"error\":{\"message\":\"no\",\"code\":1}}", line_end),
                    _ => {}
                }
            }
            self.content_event(dice, line_end);
        }
        if dice.chance(500) {
            self.event("data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4}}", line_end);
        }
        if dice.chance(900) {
            self.event("data: [DONE]", line_end);
        }
    }

    fn content_event(&mut self, dice: &mut Dice, line_end: &str) {
        let (raw, text) = dice.pick(&TEXTS);
        let is_text = dice.chance(800);
        let name = if is_text { "content" } else { "reasoning_content" };
        self.event(&format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"{name}\":\"{raw}\"}}}}]}}"), line_end);
        // A blank line is over with its first byte, be that CR or LF.
        let end = self.bytes.len() + 1 - line_end.len();
        let (text, reasoning) = if is_text { (text, "") } else { ("", text) };
        self.contents.push(Content { end, text, raw, reasoning });
    }

    fn event(&mut self, line: &str, line_end: &str) {
        self.put(line);
        self.put(line_end);
        self.put(line_end);
    }

    fn whole(&mut self, dice: &mut Dice, outcome: Outcome) {
        let (raw, text) = dice.pick(&TEXTS);
        match outcome {
            Outcome::Malformed => self.put("{\"choices\":[{\"message\":{\"content\":\"x\"}"),
            Outcome::InStream => self.put("{\"error\":{\"message\":\"overloaded\"}}"),
            Outcome::Empty => self.put("{\"choices\":[{\"message\":{\"role\":\"assistant\",\"content\":null}}]}"),
            _ => {
                let message = format!("{{\"role\":\"assistant\",\"content\":\"{raw}\"}}");
                self.put(&format!("{{\"id\":\"x\",\"choices\":[{{\"index\":0,\"message\":{message}}}]}}"));
                self.contents.push(Content { end: usize::MAX, text, raw, reasoning: "" });
            }
        }
    }
}
