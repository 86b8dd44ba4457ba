//! The server's side: requests, read step by step.

use super::HttpError;
use super::body::{Body, Piece};
use super::fields::{Framing, HeadBytes, MAX_FIELDS, Taken, refused};
use std::mem::MaybeUninit;

/// What one step over a request gave.
#[derive(Debug)]
pub enum RequestStep<'a> {
    /// The head is complete. Comes once.
    Head(RequestHead<'a>),
    /// Bytes of the body, transfer coding taken off. Never empty.
    Body(&'a [u8]),
    /// The request is complete; bytes left over belong to the next one.
    Done,
    /// All given bytes are used up; more are needed.
    More,
}

/// The head of a request, as far as the built-in server cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHead<'a> {
    /// `POST` and the like, as written.
    pub method: &'a str,
    /// The target with its query, as written.
    pub path: &'a str,
    /// `X-Request-ID`.
    pub request_id: Option<&'a str>,
    /// `X-Correlation-ID`.
    pub correlation_id: Option<&'a str>,
    /// The session that a router should keep together: the first of `X-Session-Affinity`, `X-Session-ID`,
    /// `X-SMG-Routing-Key` and `X-Dynamo-Session-ID`.
    pub session: Option<&'a str>,
    /// `Content-Type`.
    pub content_type: Option<&'a str>,
    /// The client wants to keep the connection.
    pub keep_alive: bool,
    /// Announced length of the body, if any.
    pub content_length: Option<u64>,
    /// The body comes in chunks.
    pub chunked: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
}

/// Incremental request reader, one per connection, reused.
#[derive(Debug, Clone, Default)]
pub struct RequestReader {
    head: HeadBytes,
    /// What is to come of the body; `None` while the head is not complete.
    body: Option<Body>,
    started: bool,
}

impl RequestReader {
    /// A reader in front of a request.
    pub fn new() -> Self {
        Self::default()
    }

    /// Back in front of a request; buffers stay.
    pub fn reset(&mut self) {
        self.head.clear();
        self.body = None;
        self.started = false;
    }

    /// Whether any byte of the current request has been seen.
    pub fn started(&self) -> bool {
        self.started
    }

    /// Takes one step over `bytes`, advancing it. To be called again until [`RequestStep::More`] or [`RequestStep::Done`];
    /// after `Done` it gives `Done` until [`reset`](Self::reset).
    pub fn step<'s, 'b: 's>(&'s mut self, bytes: &mut &'b [u8]) -> Result<RequestStep<'s>, HttpError> {
        if let Some(body) = &mut self.body {
            return Ok(match body.step(bytes)? {
                Piece::Bytes(piece) => RequestStep::Body(piece),
                Piece::More => RequestStep::More,
                Piece::End => RequestStep::Done,
            });
        }
        self.started |= bytes.iter().any(|b| !matches!(b, b'\r' | b'\n'));
        let head = match self.head.take(bytes, b"")? {
            Taken::Nothing => return Ok(RequestStep::More),
            Taken::Whole(head) => head,
            Taken::Held(len) => self.head.held(len),
        };
        let (head, body) = parse(head)?;
        self.body = Some(body);
        Ok(RequestStep::Head(head))
    }

    /// The peer closed. `Ok` between requests, [`HttpError::Truncated`] within one.
    pub fn eof(&self) -> Result<(), HttpError> {
        match self.body {
            Some(Body::Done | Body::Length(0)) => Ok(()),
            None if !self.started => Ok(()),
            _ => Err(HttpError::Truncated),
        }
    }
}

/// Reads a complete head.
fn parse(bytes: &[u8]) -> Result<(RequestHead<'_>, Body), HttpError> {
    let mut headers = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(bytes, &mut headers) {
        Ok(httparse::Status::Complete(len)) if len == bytes.len() => {}
        Ok(_) => return Err(refused(None)),
        Err(error) => return Err(refused(Some(error))),
    }
    let mut framing = Framing::default();
    let mut head = RequestHead {
        method: request.method.unwrap_or(""),
        path: request.path.unwrap_or(""),
        request_id: None,
        correlation_id: None,
        session: None,
        content_type: None,
        keep_alive: false,
        content_length: None,
        chunked: false,
        expects_continue: false,
    };
    for header in request.headers.iter() {
        let text = std::str::from_utf8(header.value).ok();
        match header.name.len() {
            6 if header.name.eq_ignore_ascii_case("expect") => {
                head.expects_continue |= header.value.eq_ignore_ascii_case(b"100-continue");
            }
            12 if header.name.eq_ignore_ascii_case("x-request-id") => head.request_id = text,
            16 if header.name.eq_ignore_ascii_case("x-correlation-id") => {
                head.correlation_id = text;
            }
            12 if header.name.eq_ignore_ascii_case("content-type") => head.content_type = text,
            12 | 17..=19 if names_a_session(header.name) => head.session = head.session.or(text),
            _ => framing.note(header.name, header.value)?,
        }
    }
    head.keep_alive = framing.keeps(request.version.unwrap_or(0));
    head.content_length = framing.length;
    head.chunked = framing.chunked;
    Ok((head, framing.body(Body::Done)))
}

fn names_a_session(name: &str) -> bool {
    let names = ["x-session-affinity", "x-session-id", "x-smg-routing-key", "x-dynamo-session-id"];
    names.iter().any(|n| name.eq_ignore_ascii_case(n))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::http1::Head;
    use uuid::Uuid;

    /// All requests of one connection: heads and bodies as text.
    fn said(pieces: &[&[u8]]) -> Result<Vec<String>, HttpError> {
        let mut reader = RequestReader::new();
        let mut requests = Vec::new();
        let mut body = String::new();
        for piece in pieces {
            let mut rest = *piece;
            loop {
                match reader.step(&mut rest)? {
                    RequestStep::Head(head) => body = format!("{head:?} "),
                    RequestStep::Body(piece) => body += &piece.escape_ascii().to_string(),
                    RequestStep::Done => {
                        requests.push(std::mem::take(&mut body));
                        assert_eq!(reader.eof(), Ok(()));
                        reader.reset();
                    }
                    RequestStep::More => break,
                }
            }
        }
        assert_eq!(reader.eof().is_err(), reader.started());
        Ok(requests)
    }

    #[test]
    fn the_client_s_own_head_is_read_back() {
        let mut head =
            Head::new("POST", "/v1/x?a=1", "h", ("X-Correlation-ID", &["X-Session-Affinity".to_owned()]), &[]);
        let (a, b) = (Uuid::from_u128(7), Uuid::from_u128(8));
        let mut bytes = head.patch(a, b, 4).to_vec();
        bytes.extend_from_slice(b"body");
        let want = RequestHead {
            method: "POST",
            path: "/v1/x?a=1",
            request_id: Some("00000000-0000-0000-0000-000000000007"),
            correlation_id: Some("00000000-0000-0000-0000-000000000008"),
            session: Some("00000000-0000-0000-0000-000000000008"),
            content_type: None,
            keep_alive: true,
            content_length: Some(4),
            chunked: false,
            expects_continue: false,
        };
        let twice = [&bytes[..], &bytes].concat();
        let want = vec![format!("{want:?} body"); 2];
        assert_eq!(said(&[&twice]), Ok(want.clone()));
        for cut in 0..twice.len() {
            let (a, b) = twice.split_at(cut);
            assert_eq!(said(&[a, b]), Ok(want.clone()));
        }
        assert_eq!(said(&twice.chunks(1).collect::<Vec<_>>()), Ok(want));
    }

    #[test]
    fn requests_without_length_have_no_body_and_expectations_are_seen() {
        let found = said(&[b"GET /health HTTP/1.0\r\n\r\n"]).unwrap();
        assert!(found[0].contains("keep_alive: false") && found[0].ends_with("} "));
        let bytes = b"POST / HTTP/1.1\r\nExpect: 100-Continue\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n1\r\nx\r\n0\r\n\r\n";
        let found = said(&[bytes]).unwrap();
        for part in ["expects_continue: true", "chunked: true", "keep_alive: false"] {
            assert!(found[0].contains(part), "{found:?}");
        }
        assert!(found[0].ends_with("} x"));
    }

    #[test]
    fn broken_requests_are_refused() {
        for bytes in [
            "GET\r\n\r\n",
            "GET / HTTP/3.0\r\n\r\n",
            "P /\u{1} HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        ] {
            assert!(matches!(said(&[bytes.as_bytes()]), Err(HttpError::Head(_))), "{bytes:?}");
        }
    }
}
