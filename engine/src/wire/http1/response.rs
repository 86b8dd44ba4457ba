//! The client's side: responses, read step by step.

use super::HttpError;
use super::body::{Body, Piece};
use super::fields::{Framing, HeadBytes, MAX_FIELDS, Taken, media_type, refused};
use std::mem::MaybeUninit;

/// What one step over a response gave.
#[derive(Debug)]
pub enum Step<'a> {
    /// The head is complete. Comes once.
    Head(ResponseHead<'a>),
    /// Bytes of the body, transfer coding taken off. Never empty.
    Body(&'a [u8]),
    /// The response is complete; bytes left over belong to no response that was asked for, unless requests were pipelined.
    Done {
        /// Whether the connection may carry another request.
        reusable: bool,
    },
    /// All given bytes are used up; more are needed.
    More,
}

/// The head of a response, as far as a client of inference servers cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseHead<'a> {
    /// Status code, 200 to 999: interim responses are skipped.
    pub status: u16,
    /// Reason phrase, often empty.
    pub reason: &'a str,
    /// The body is `text/event-stream`.
    pub event_stream: bool,
    /// The body is `application/json` or of a type that ends in `+json`.
    pub json: bool,
    /// Announced length of the body, if any.
    pub content_length: Option<u64>,
    /// The body comes in chunks.
    pub chunked: bool,
    /// How the body is compressed, `gzip`; empty where it is not.
    pub coding: &'a str,
    /// Where a redirect leads (`Location`); empty where the head does not say.
    pub location: &'a str,
}

/// Incremental response reader, one per connection, reused.
#[derive(Debug, Clone, Default)]
pub struct ResponseReader {
    head: HeadBytes,
    /// What is to come of the body; `None` while the head is not complete.
    body: Option<Body>,
    reusable: bool,
    started: bool,
    bodiless: bool,
    memo: Memo,
}

/// The last head that came in one piece, and what it said. Servers repeat their heads byte for byte, at least within a
/// second (the Date field), and comparing one costs a hundredth of reading it.
#[derive(Debug, Clone, Default)]
struct Memo {
    /// The head with its blank line; empty if there is none.
    bytes: Vec<u8>,
    reason: String,
    status: u16,
    event_stream: bool,
    json: bool,
    content_length: Option<u64>,
    chunked: bool,
    coding: String,
    location: String,
    body: Option<Body>,
    reusable: bool,
}

impl Memo {
    /// Longer heads are not kept.
    const LIMIT: usize = 4096;

    fn keep(&mut self, bytes: &[u8], head: &ResponseHead<'_>, body: Body, reusable: bool) {
        self.bytes.clear();
        if bytes.len() > Self::LIMIT {
            return;
        }
        self.bytes.extend_from_slice(bytes);
        self.reason.clear();
        self.reason.push_str(head.reason);
        self.coding.clear();
        self.coding.push_str(head.coding);
        self.location.clear();
        self.location.push_str(head.location);
        let ResponseHead { status, event_stream, json, content_length, chunked, .. } = *head;
        (self.status, self.event_stream, self.json) = (status, event_stream, json);
        (self.content_length, self.chunked) = (content_length, chunked);
        (self.body, self.reusable) = (Some(body), reusable);
    }

    /// Whether `bytes` start with the same head.
    fn matches(&self, bytes: &[u8]) -> bool {
        !self.bytes.is_empty() && bytes.starts_with(&self.bytes)
    }

    fn head(&self) -> ResponseHead<'_> {
        ResponseHead {
            status: self.status,
            reason: &self.reason,
            event_stream: self.event_stream,
            json: self.json,
            content_length: self.content_length,
            chunked: self.chunked,
            coding: &self.coding,
            location: &self.location,
        }
    }
}

struct Parsed<'a> {
    head: ResponseHead<'a>,
    framing: Framing,
    minor: u8,
}

impl ResponseReader {
    /// A reader in front of a response.
    pub fn new() -> Self {
        Self::default()
    }

    /// Back in front of a response; buffers stay.
    pub fn reset(&mut self) {
        self.head.clear();
        self.body = None;
        self.reusable = false;
        self.started = false;
        self.bodiless = false;
    }

    /// Tells that the request was a `HEAD`: the response has no body, whatever it announces. Holds until the next reset.
    pub fn expect_no_body(&mut self) {
        self.bodiless = true;
    }

    /// Whether any byte of the current response has been seen.
    pub fn started(&self) -> bool {
        self.started
    }

    /// Takes one step over `bytes`, advancing it. Interim 1xx heads are skipped. Responses to `HEAD` and with status 204 or
    /// 304 have no body. To be called again until [`Step::More`] or [`Step::Done`]; after `Done` it gives `Done` until
    /// [`reset`](Self::reset).
    pub fn step<'s, 'b: 's>(&'s mut self, bytes: &mut &'b [u8]) -> Result<Step<'s>, HttpError> {
        if let Some(body) = &mut self.body {
            return Ok(match body.step(bytes)? {
                Piece::Bytes(piece) => Step::Body(piece),
                Piece::More => Step::More,
                Piece::End => Step::Done { reusable: self.reusable },
            });
        }
        if !self.started && !self.bodiless && self.memo.matches(bytes) {
            *bytes = bytes.get(self.memo.bytes.len()..).unwrap_or_default();
            self.started = true;
            (self.body, self.reusable) = (self.memo.body, self.memo.reusable);
            return Ok(Step::Head(self.memo.head()));
        }
        self.step_head(bytes)
    }

    fn step_head<'s, 'b: 's>(&'s mut self, bytes: &mut &'b [u8]) -> Result<Step<'s>, HttpError> {
        self.started |= bytes.iter().any(|b| !matches!(b, b'\r' | b'\n'));
        let taken = loop {
            let taken = self.head.take(bytes, b"HTTP/")?;
            let head = match taken {
                Taken::Nothing => return Ok(Step::More),
                Taken::Whole(head) => head,
                Taken::Held(len) => self.head.held(len),
            };
            if !is_interim(head) {
                break taken;
            }
            if parse(head)?.head.status == 101 {
                return Err(HttpError::Head("it switches to another protocol"));
            }
            self.head.clear();
        };
        let Parsed { head, framing, minor } = parse(match taken {
            Taken::Held(len) => self.head.held(len),
            Taken::Whole(head) => head,
            Taken::Nothing => &[],
        })?;
        let body = match head.status {
            _ if self.bodiless => Body::Done,
            204 | 304 => Body::Done,
            _ => framing.body(Body::UntilClose),
        };
        self.reusable = framing.keeps(minor) && body != Body::UntilClose;
        self.body = Some(body);
        if let (Taken::Whole(bytes), false) = (taken, self.bodiless) {
            self.memo.keep(bytes, &head, body, self.reusable);
        }
        Ok(Step::Head(head))
    }

    /// The peer closed. `Ok` if that ends the response properly: it was complete, or it announced neither a length nor
    /// chunks. The connection is of no more use either way.
    pub fn eof(&mut self) -> Result<(), HttpError> {
        match self.body {
            Some(Body::Done | Body::Length(0) | Body::UntilClose) => {
                self.body = Some(Body::Done);
                self.reusable = false;
                Ok(())
            }
            None if !self.started => Err(HttpError::NoResponse),
            _ => Err(HttpError::Truncated),
        }
    }
}

fn is_interim(head: &[u8]) -> bool {
    matches!(head.get(8..), Some([b' ', b'1', b'0'..=b'9', b'0'..=b'9', ..]))
}

/// Reads a complete head.
fn parse(bytes: &[u8]) -> Result<Parsed<'_>, HttpError> {
    let mut headers = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    // As lenient as the reference's client: proxies fold lines and put spaces before a colon.
    let mut config = httparse::ParserConfig::default();
    config.allow_spaces_after_header_name_in_responses(true).allow_obsolete_multiline_headers_in_responses(true);
    let parsed = config.parse_response_with_uninit_headers(&mut response, bytes, &mut headers);
    match parsed {
        Ok(httparse::Status::Complete(len)) if len == bytes.len() => {}
        Ok(_) => return Err(refused(None)),
        Err(error) => return Err(refused(Some(error))),
    }
    let status = response.code.unwrap_or(0);
    if status < 100 {
        return Err(HttpError::Head("the status line cannot be read"));
    }
    let mut framing = Framing::default();
    let mut event_stream = false;
    let mut json = false;
    let (mut coding, mut location) = ("", "");
    for header in response.headers.iter() {
        if header.name.len() == 12 && header.name.eq_ignore_ascii_case("content-type") {
            let kind = media_type(header.value);
            event_stream = kind.eq_ignore_ascii_case(b"text/event-stream");
            json = is_json(kind);
        }
        if header.name.eq_ignore_ascii_case("content-encoding") {
            let named = std::str::from_utf8(header.value).unwrap_or("unknown").trim();
            coding = if named.eq_ignore_ascii_case("identity") { "" } else { named };
        }
        if header.name.len() == 8 && header.name.eq_ignore_ascii_case("location") {
            location = std::str::from_utf8(header.value).unwrap_or_default().trim();
        }
        framing.note(header.name, header.value)?;
    }
    Ok(Parsed {
        head: ResponseHead {
            status,
            reason: response.reason.unwrap_or(""),
            event_stream,
            json,
            content_length: framing.length,
            chunked: framing.chunked,
            coding,
            location,
        },
        framing,
        minor: response.version.unwrap_or(0),
    })
}

fn is_json(media_type: &[u8]) -> bool {
    let suffix = media_type.len().checked_sub(5).and_then(|at| media_type.get(at..));
    media_type.eq_ignore_ascii_case(b"application/json") || suffix.is_some_and(|end| end.eq_ignore_ascii_case(b"+json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything a response says, as text, and whether the bytes were enough.
    fn said(reader: &mut ResponseReader, pieces: &[&[u8]]) -> Result<String, HttpError> {
        let mut said = String::new();
        let mut body = Vec::new();
        for piece in pieces {
            let mut rest = *piece;
            loop {
                match reader.step(&mut rest)? {
                    Step::Head(head) => {
                        let ResponseHead { status, reason, content_length: length, .. } = head;
                        let kind = match (head.event_stream, head.json) {
                            (true, _) => "sse",
                            (_, true) => "json",
                            _ => "-",
                        };
                        let chunked = if head.chunked { " chunked" } else { "" };
                        said = format!("{status} {reason} {kind} {length:?}{chunked}");
                    }
                    Step::Body(piece) => {
                        assert!(!piece.is_empty());
                        body.extend_from_slice(piece);
                    }
                    Step::Done { reusable } => {
                        let keep = if reusable { "keep" } else { "close" };
                        return Ok(format!("{said} [{}] {keep}", body.escape_ascii()));
                    }
                    Step::More => break,
                }
            }
        }
        Ok(format!("{said} [{}] more", body.escape_ascii()))
    }

    fn whole(bytes: &[u8]) -> Result<String, HttpError> {
        let mut reader = ResponseReader::new();
        let result = said(&mut reader, &[bytes]);
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        reader.reset();
        assert_eq!(result, said(&mut reader, &single), "{}", bytes.escape_ascii());
        result
    }

    #[test]
    fn a_repeated_head_says_the_same_and_a_similar_one_its_own() {
        let mut reader = ResponseReader::new();
        let first = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
        let other = b"HTTP/1.1 429 Slow\r\nContent-Length: 3\r\n\r\nhi!";
        for (bytes, want) in [
            (first.as_slice(), "200 OK - Some(2) [hi] close"),
            (first, "200 OK - Some(2) [hi] close"),
            (other, "429 Slow - Some(3) [hi!] keep"),
            (first, "200 OK - Some(2) [hi] close"),
        ] {
            reader.reset();
            assert_eq!(said(&mut reader, &[bytes]).as_deref(), Ok(want));
        }
        reader.reset();
        let (left, right) = first.split_at(20);
        assert_eq!(said(&mut reader, &[left, right]).as_deref(), Ok("200 OK - Some(2) [hi] close"));
    }

    #[test]
    fn responses_are_read_by_their_framing() {
        for (bytes, want) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "200 OK - Some(2) [hi] keep"),
            ("HTTP/1.1 200\r\ncontent-length:2\r\n\r\nhi+", "200  - Some(2) [hi] keep"),
            ("HTTP/1.1 200 OK\nContent-Length: 2\n\nhi", "200 OK - Some(2) [hi] keep"),
            ("HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nhi", "200 OK - Some(2) [hi] keep"),
            ("HTTP/1.1 200 OK\r\nX: a,\r\n\tb\r\nContent-Length:\r\n 2\r\n\r\nhi", "200 OK - Some(2) [hi] keep"),
            ("\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "200 OK - Some(0) [] keep"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi", "200 OK - Some(3) [hi] more"),
            ("HTTP/1.1 200 OK\r\n\r\nhi", "200 OK - None [hi] more"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\nContent-Length: 2\r\n\r\nhi", "200 OK - Some(2) [hi] keep"),
            ("HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 0\r\n\r\n", "200 OK - Some(0) [] close"),
            ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", "200 OK - Some(0) [] close"),
            ("HTTP/1.0 200 OK\r\nConnection: x, Keep-Alive\r\nContent-Length: 0\r\n\r\n", "200 OK - Some(0) [] keep"),
            ("HTTP/1.1 204 No Content\r\n\r\n", "204 No Content - None [] keep"),
            ("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", "304 Not Modified - Some(9) [] keep"),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
                "200 OK - Some(1) [x] keep",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nContent-Length: 0\r\n\r\n",
                "200 OK sse Some(0) [] keep",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Type: Application/JSON\r\nContent-Length: 0\r\n\r\n",
                "200 OK json Some(0) [] keep",
            ),
            (
                "HTTP/1.1 500 E\r\nContent-Type: application/problem+json\r\nContent-Length: 0\r\n\r\n",
                "500 E json Some(0) [] keep",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-streams\r\nContent-Length: 0\r\n\r\n",
                "200 OK - Some(0) [] keep",
            ),
        ] {
            assert_eq!(whole(bytes.as_bytes()).as_deref(), Ok(want), "{bytes:?}");
        }
    }

    #[test]
    fn chunks_are_taken_apart() {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        for (body, want) in [
            ("2\r\nhi\r\n0\r\n\r\n", "[hi] keep"),
            ("2\r\nhi\r\n0A;x=\"y\"\r\n0123456789\r\n0\r\n\r\nHTTP", "[hi0123456789] keep"),
            ("00000000000000000000000000000002\r\nhi\r\n000\r\n\r\n", "[hi] keep"),
            ("2 \r\nhi\r\n0\r\nTrailer: x\r\nOther: y\r\n\r\n", "[hi] keep"),
            ("2\r\nhi\r\n", "[hi] more"),
            ("5\r\nhi", "[hi] more"),
            ("0\r\n", "[] more"),
            ("", "[] more"),
        ] {
            let bytes = format!("{head}{body}");
            let want = format!("200 OK - None chunked {want}");
            assert_eq!(whole(bytes.as_bytes()), Ok(want), "{body:?}");
        }
        for body in [
            "x\r\n",
            "\r\n",
            ";\r\n",
            "-1\r\n",
            "2\nhi\r\n",
            "2\rhi",
            "2\r\nhix",
            "2\r\nhi\n",
            "2\r\nhi\rx",
            "10000000000000000\r\n",
            "2;a\nhi",
            "0\r\nT: x\n",
            "0\r\nT: x\rx",
            "2\r\nhi\r\nx",
        ] {
            let bytes = format!("{head}{body}");
            assert!(matches!(whole(bytes.as_bytes()), Err(HttpError::Chunk(_))), "{body:?}");
        }
        let long = format!("{head}1;{}\r\nx\r\n", "e".repeat(20_000));
        assert!(matches!(whole(long.as_bytes()), Err(HttpError::Chunk(_))));
        let both = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
        assert_eq!(whole(both.as_bytes()).as_deref(), Ok("200 OK - Some(9) chunked [] close"));
    }

    #[test]
    fn broken_heads_are_refused() {
        for head in [
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n",
            "HTTP/1.1 099 Low\r\n\r\n",
            "HTTP/1.1 20\r\n\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: \u{1}\r\n\r\n",
            "HTTP/\r\n\r\n",
            "<html>",
            "x",
        ] {
            let result = whole(head.as_bytes());
            assert!(matches!(result, Err(HttpError::Head(_))), "{head:?}: {result:?}");
        }
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(129));
        assert!(matches!(whole(many.as_bytes()), Err(HttpError::Head(_))));
    }

    #[test]
    fn a_head_has_a_bound_wherever_it_is_cut() {
        let head = |padding: usize| format!("HTTP/1.1 204 \r\nA: {}\r\n\r\n", "x".repeat(padding));
        let bound = 64 * 1024 - head(0).len();
        for (padding, fits) in [(bound, true), (bound + 1, false), (bound + 9, false)] {
            let result = whole(head(padding).as_bytes());
            match fits {
                true => assert_eq!(result.as_deref(), Ok("204  - None [] keep")),
                false => assert_eq!(result, Err(HttpError::HeadTooLong)),
            }
        }
        assert_eq!(whole("HTTP/1.1 200 OK".repeat(5000).as_bytes()), Err(HttpError::HeadTooLong));
    }

    #[test]
    fn the_end_of_the_connection_is_judged() {
        for (bytes, want) in [
            ("", Err(HttpError::NoResponse)),
            ("\r\n", Err(HttpError::NoResponse)),
            ("H", Err(HttpError::Truncated)),
            ("HTTP/1.1 100 Continue\r\n\r\n", Err(HttpError::Truncated)),
            ("HTTP/1.1 200 OK\r\n\r\n", Ok(())),
            ("HTTP/1.1 200 OK\r\n\r\nsome", Ok(())),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nh", Err(HttpError::Truncated)),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", Ok(())),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n", Err(HttpError::Truncated)),
        ] {
            let mut reader = ResponseReader::new();
            said(&mut reader, &[bytes.as_bytes()]).unwrap();
            assert_eq!(reader.started(), want != Err(HttpError::NoResponse));
            assert_eq!(reader.eof(), want, "{bytes:?}");
        }
    }

    #[test]
    fn a_reader_is_reused_and_head_requests_have_no_body() {
        let mut reader = ResponseReader::new();
        let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
        let whole = "200 OK - Some(2) [hi] keep";
        for cut in 0..bytes.len() {
            let (a, b) = bytes.split_at(cut);
            assert_eq!(said(&mut reader, &[a, b]).as_deref(), Ok(whole));
            reader.reset();
            assert!(!reader.started());
        }
        reader.expect_no_body();
        let head = "200 OK - Some(2) [] keep";
        assert_eq!(said(&mut reader, &[bytes]).as_deref(), Ok(head));
        reader.reset();
        assert_eq!(said(&mut reader, &[bytes]).as_deref(), Ok(whole));
    }

    #[test]
    fn errors_read_as_parts_of_a_sentence() {
        let text = HttpError::Chunk("a chunk is longer than its size").to_string();
        assert_eq!(text, "the chunked coding is broken: a chunk is longer than its size");
        for error in [HttpError::HeadTooLong, HttpError::Truncated, HttpError::NoResponse] {
            assert!(error.to_string().starts_with("the "));
        }
    }
}
