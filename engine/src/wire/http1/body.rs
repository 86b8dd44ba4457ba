//! The body of a message, transfer coding taken off.

use super::HttpError;

/// Longest line of a chunk's extension, and most bytes of trailers: nobody sends any to speak of.
const MAX_EXTRA: u32 = 16 * 1024;

/// How much of a body is still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// Nothing.
    Done,
    /// That many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Chunk),
    /// All until the connection is closed.
    UntilClose,
}

/// Where in the chunked coding (RFC 9112, section 7.1) the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunk {
    Size {
        size: u64,
        begun: bool,
    },
    Extension {
        size: u64,
        len: u32,
    },
    SizeLf {
        size: u64,
    },
    Data(u64),
    DataCr,
    DataLf,
    /// `len` counts all trailer bytes; `blank` tells that the line has none so far.
    Trailer {
        len: u32,
        blank: bool,
    },
    TrailerLf {
        len: u32,
        blank: bool,
    },
}

/// What one step over a body gave.
pub(super) enum Piece<'b> {
    /// Bytes of the body, never empty.
    Bytes(&'b [u8]),
    /// The body is complete.
    End,
    /// All bytes are used up.
    More,
}

impl Body {
    /// A chunked body at its begin.
    pub(super) fn chunked() -> Self {
        Self::Chunked(Chunk::Size { size: 0, begun: false })
    }

    /// Takes one piece off the front of `bytes`.
    #[inline]
    pub(super) fn step<'b>(&mut self, bytes: &mut &'b [u8]) -> Result<Piece<'b>, HttpError> {
        match self {
            Self::Done | Self::Length(0) => {
                *self = Self::Done;
                return Ok(Piece::End);
            }
            _ if bytes.is_empty() => {}
            Self::Length(left) => return Ok(Piece::Bytes(take(bytes, left))),
            Self::UntilClose => return Ok(Piece::Bytes(std::mem::take(bytes))),
            Self::Chunked(chunk) => match chunk.step(bytes)? {
                Piece::End => {
                    *self = Self::Done;
                    return Ok(Piece::End);
                }
                piece => return Ok(piece),
            },
        }
        Ok(Piece::More)
    }
}

/// Takes up to `left` bytes off the front of `bytes`.
fn take<'b>(bytes: &mut &'b [u8], left: &mut u64) -> &'b [u8] {
    let len = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
    let (piece, rest) = bytes.split_at(len);
    *bytes = rest;
    *left -= len as u64;
    piece
}

impl Chunk {
    fn step<'b>(&mut self, bytes: &mut &'b [u8]) -> Result<Piece<'b>, HttpError> {
        loop {
            if let Self::Data(left) = self {
                if *left == 0 {
                    *self = Self::DataCr;
                } else if bytes.is_empty() {
                    return Ok(Piece::More);
                } else {
                    return Ok(Piece::Bytes(take(bytes, left)));
                }
            }
            if let Some((size, rest)) = self.whole_size_line(bytes) {
                *self = Self::Data(size);
                *bytes = rest;
                continue;
            }
            let Some((&byte, rest)) = bytes.split_first() else {
                return Ok(Piece::More);
            };
            *bytes = rest;
            match self.after(byte)? {
                Some(next) => *self = next,
                None => return Ok(Piece::End),
            }
        }
    }

    /// The common case in one go: what stands between the data of two chunks, if it is all there, plain and short. The same
    /// as the way through [`after`](Self::after).
    #[inline]
    fn whole_size_line<'b>(&self, bytes: &'b [u8]) -> Option<(u64, &'b [u8])> {
        let line = match self {
            Self::DataCr => bytes.strip_prefix(b"\r\n")?,
            Self::Size { begun: false, .. } => bytes,
            _ => return None,
        };
        let mut size = 0;
        for (at, &byte) in line.iter().enumerate().take(8) {
            match hex(byte) {
                Some(digit) => size = size << 4 | u64::from(digit),
                None if at == 0 || size == 0 => return None,
                None => {
                    return line.get(at..)?.strip_prefix(b"\r\n").map(|rest| (size, rest));
                }
            }
        }
        None
    }

    /// The state after one byte outside of data; `None` at the end of the body.
    #[inline]
    fn after(self, byte: u8) -> Result<Option<Self>, HttpError> {
        let expected = |want: u8, next: Self, what| {
            if byte == want { Ok(Some(next)) } else { Err(HttpError::Chunk(what)) }
        };
        match self {
            Self::Size { size, begun } => after_size(size, begun, byte),
            Self::Extension { size, len } => match byte {
                b'\r' => Ok(Some(Self::SizeLf { size })),
                b'\n' => Err(HttpError::Chunk("a chunk size does not end in CR LF")),
                _ if len == MAX_EXTRA => Err(HttpError::Chunk("a chunk extension is too long")),
                _ => Ok(Some(Self::Extension { size, len: len + 1 })),
            },
            Self::SizeLf { size: 0 } => {
                let next = Self::Trailer { len: 0, blank: true };
                expected(b'\n', next, "a chunk size does not end in CR LF")
            }
            Self::SizeLf { size } => expected(b'\n', Self::Data(size), "a chunk size does not end in CR LF"),
            Self::Data(_) | Self::DataCr => expected(b'\r', Self::DataLf, "a chunk is longer than its size"),
            Self::DataLf => {
                let next = Self::Size { size: 0, begun: false };
                expected(b'\n', next, "a chunk is longer than its size")
            }
            Self::Trailer { len, blank } => match byte {
                _ if len == MAX_EXTRA => Err(HttpError::Chunk("the trailers are too long")),
                b'\r' => Ok(Some(Self::TrailerLf { len, blank })),
                b'\n' => Err(HttpError::Chunk("a trailer does not end in CR LF")),
                _ => Ok(Some(Self::Trailer { len: len + 1, blank: false })),
            },
            Self::TrailerLf { blank: true, .. } if byte == b'\n' => Ok(None),
            Self::TrailerLf { len, .. } => {
                let next = Self::Trailer { len, blank: true };
                expected(b'\n', next, "a trailer does not end in CR LF")
            }
        }
    }
}

#[inline]
fn hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' | b'A'..=b'F' => Some((byte | 0x20) - b'a' + 10),
        _ => None,
    }
}

#[inline]
fn after_size(size: u64, begun: bool, byte: u8) -> Result<Option<Chunk>, HttpError> {
    let Some(digit) = hex(byte) else {
        return match byte {
            b'\r' if begun => Ok(Some(Chunk::SizeLf { size })),
            b';' | b' ' | b'\t' if begun => Ok(Some(Chunk::Extension { size, len: 0 })),
            _ => Err(HttpError::Chunk("a chunk size is not a hexadecimal number")),
        };
    };
    if size >> 60 != 0 {
        return Err(HttpError::Chunk("a chunk size is too large"));
    }
    Ok(Some(Chunk::Size { size: size << 4 | u64::from(digit), begun: true }))
}
