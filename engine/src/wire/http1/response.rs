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
    let parsed =
        httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut response, bytes, &mut headers);
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
    for header in response.headers.iter() {
        if header.name.len() == 12 && header.name.eq_ignore_ascii_case("content-type") {
            let kind = media_type(header.value);
            event_stream = kind.eq_ignore_ascii_case(b"text/event-stream");
            json = is_json(kind);
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
        },
        framing,
        minor: response.version.unwrap_or(0),
    })
}

fn is_json(media_type: &[u8]) -> bool {
    let suffix = media_type.len().checked_sub(5).and_then(|at| media_type.get(at..));
    media_type.eq_ignore_ascii_case(b"application/json") || suffix.is_some_and(|end| end.eq_ignore_ascii_case(b"+json"))
}
