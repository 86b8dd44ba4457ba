//! What requests and responses have in common: finding the end of a head, and the header fields that frame a body.

use super::HttpError;
use super::body::Body;

/// Longest head read, bytes. Servers send a few hundred; 64 KiB is twice what the common ones would send at all.
pub(super) const MAX_HEAD: usize = 64 * 1024;
/// Most header fields read.
pub(super) const MAX_FIELDS: usize = 128;

/// Gathers a head from pieces; a head that comes whole is not copied.
#[derive(Debug, Clone, Default)]
pub(super) struct HeadBytes {
    held: Vec<u8>,
}

impl HeadBytes {
    /// Forgets what was gathered; the buffer stays.
    pub(super) fn clear(&mut self) {
        self.held.clear();
    }

    /// The head that [`Taken::Held`] told of.
    pub(super) fn held(&self, len: usize) -> &[u8] {
        self.held.get(..len).unwrap_or_default()
    }

    /// Takes the head off the front of `bytes`, its blank line included, or all bytes if it does not end among them. Line
    /// breaks in front of a head are dropped (RFC 9112, section 2.2). `start` is what every head of this kind starts with:
    /// other bytes fail at once rather than being waited on.
    pub(super) fn take<'b>(&mut self, bytes: &mut &'b [u8], start: &[u8]) -> Result<Taken<'b>, HttpError> {
        if self.held.is_empty() {
            *bytes = skip_line_breaks(bytes);
            check_start(bytes, start)?;
            if let Some(end) = end_of_head(bytes, 0) {
                let (head, rest) = bytes.split_at(end);
                *bytes = rest;
                return Ok(Taken::Whole(head));
            }
        }
        let old = self.held.len();
        let room = (MAX_HEAD - old).min(bytes.len());
        let (piece, rest) = bytes.split_at(room);
        self.held.extend_from_slice(piece);
        check_start(&self.held, start)?;
        // The first line feed of the blank line may be the last but one byte held before.
        if let Some(end) = end_of_head(&self.held, old.saturating_sub(2)) {
            *bytes = bytes.get(end - old..).unwrap_or_default();
            return Ok(Taken::Held(end));
        }
        if self.held.len() == MAX_HEAD {
            return Err(HttpError::HeadTooLong);
        }
        *bytes = rest;
        Ok(Taken::Nothing)
    }
}

/// Where a complete head lies.
#[derive(Debug, Clone, Copy)]
pub(super) enum Taken<'b> {
    /// Nowhere: it is not complete.
    Nothing,
    /// Whole within the caller's bytes.
    Whole(&'b [u8]),
    /// In the buffer, of that length.
    Held(usize),
}

fn skip_line_breaks(bytes: &[u8]) -> &[u8] {
    let first = bytes.iter().position(|b| !matches!(b, b'\r' | b'\n')).unwrap_or(bytes.len());
    bytes.get(first..).unwrap_or_default()
}

fn check_start(bytes: &[u8], start: &[u8]) -> Result<(), HttpError> {
    let seen = bytes.len().min(start.len());
    if bytes.get(..seen) == start.get(..seen) { Ok(()) } else { Err(HttpError::Head("it does not start like one")) }
}

/// One past the blank line that ends the head, looked for from `from`; at most [`MAX_HEAD`].
fn end_of_head(bytes: &[u8], from: usize) -> Option<usize> {
    let bytes = bytes.get(..bytes.len().min(MAX_HEAD))?;
    memchr::memchr_iter(b'\n', bytes.get(from..)?).find_map(|found| {
        let next = from + found + 1;
        match bytes.get(next..)? {
            [b'\n', ..] => Some(next + 1),
            [b'\r', b'\n', ..] => Some(next + 2),
            _ => None,
        }
    })
}

/// The fields that frame the body and rule the connection.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Framing {
    pub(super) length: Option<u64>,
    pub(super) chunked: bool,
    close: bool,
    keep_alive: bool,
}

impl Framing {
    /// Takes note of one field; fields that do not frame are ignored.
    pub(super) fn note(&mut self, name: &str, value: &[u8]) -> Result<(), HttpError> {
        match name.len() {
            10 if name.eq_ignore_ascii_case("connection") => {
                for token in tokens(value) {
                    self.close |= token.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            14 if name.eq_ignore_ascii_case("content-length") => {
                for token in tokens(value) {
                    let length = decimal(token).ok_or(HttpError::Head("Content-Length is not a number"))?;
                    if self.length.is_some_and(|other| other != length) {
                        return Err(HttpError::Head("it has two different Content-Lengths"));
                    }
                    self.length = Some(length);
                }
            }
            17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                for token in tokens(value) {
                    if token.eq_ignore_ascii_case(b"chunked") && !self.chunked {
                        self.chunked = true;
                    } else if !token.eq_ignore_ascii_case(b"identity") {
                        return Err(HttpError::Head("a transfer coding other than chunked"));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether the connection outlives the message (RFC 9112, section 9.3); `minor` is the minor version of HTTP/1. A
    /// message with both a length and chunks ends its connection (section 6.1).
    pub(super) fn keeps(&self, minor: u8) -> bool {
        let wanted = if minor == 0 { self.keep_alive && !self.chunked } else { true };
        wanted && !self.close && !(self.chunked && self.length.is_some())
    }

    /// The body that follows; `unframed` is the one of a head that tells neither length nor chunks.
    pub(super) fn body(&self, unframed: Body) -> Body {
        match self.length {
            _ if self.chunked => Body::chunked(),
            Some(length) => Body::Length(length),
            None => unframed,
        }
    }
}

/// The members of a comma-separated list; empty ones only if all is empty.
fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(<[u8]>::trim_ascii)
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |n, b| {
        b.is_ascii_digit().then(|| n.checked_mul(10)?.checked_add(u64::from(b - b'0'))).flatten()
    })
}

/// The media type of a `Content-Type`, its parameters cut off.
pub(super) fn media_type(value: &[u8]) -> &[u8] {
    let end = memchr::memchr(b';', value).unwrap_or(value.len());
    value.get(..end).unwrap_or_default().trim_ascii()
}

/// The error of a head that the parser refuses. It was complete, so a partial parse is an error too.
pub(super) fn refused(error: Option<httparse::Error>) -> HttpError {
    HttpError::Head(match error {
        Some(httparse::Error::HeaderName) => "a header name has a forbidden byte",
        Some(httparse::Error::HeaderValue) => "a header value has a forbidden byte",
        Some(httparse::Error::NewLine) => "a line does not end as it should",
        Some(httparse::Error::Status) => "the status line cannot be read",
        Some(httparse::Error::Token) => "the request line cannot be read",
        Some(httparse::Error::TooManyHeaders) => "it has more than 128 headers",
        Some(httparse::Error::Version) => "the version is neither HTTP/1.0 nor HTTP/1.1",
        None => "a line does not end as it should",
    })
}
