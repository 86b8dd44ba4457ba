//! HTTP/1.1 (RFC 9112): request heads patched in place, responses read by the client, requests read by the built-in server.

mod body;
mod fields;
mod head;
mod request;
mod response;

pub use head::Head;
pub use request::{RequestHead, RequestReader, RequestStep};
pub use response::{ResponseHead, ResponseReader, Step};

use std::fmt;

/// Why a message could not be read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpError {
    /// The head is not HTTP/1, or contradicts itself.
    Head(&'static str),
    /// The chunked coding is broken.
    Chunk(&'static str),
    /// The head is longer than 64 KiB.
    HeadTooLong,
    /// The connection was closed before the announced end.
    Truncated,
    /// The connection was closed before the first byte.
    NoResponse,
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head(what) => write!(f, "the HTTP head cannot be read: {what}"),
            Self::Chunk(what) => write!(f, "the chunked coding is broken: {what}"),
            Self::HeadTooLong => f.write_str("the HTTP head is longer than 64 KiB"),
            Self::Truncated => f.write_str("the connection was closed before the end of the message"),
            Self::NoResponse => f.write_str("the connection was closed before any byte came"),
        }
    }
}

impl std::error::Error for HttpError {}
