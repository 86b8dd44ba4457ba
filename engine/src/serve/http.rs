//! The bytes around answers: response heads, and the chunks of a stream.

use super::digits::put_hex;
use super::words::{self, Text};
use std::io::Write;

/// The interim response that `Expect: 100-continue` waits for.
pub(super) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The end of a chunked body.
pub(super) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

pub(super) const JSON: &str = "application/json";

/// Head and body of a response that is sent in one piece.
#[derive(Debug, Clone, Copy)]
pub(super) struct Response<'a> {
    pub(super) status: u16,
    /// Left out where there is no body.
    pub(super) content_type: &'a str,
    /// Further header lines, each with its end.
    pub(super) fields: &'a str,
    pub(super) body: &'a [u8],
}

impl Response<'_> {
    /// Appends the response; `keep` says whether the connection stays open, `only_head` that HEAD was asked.
    pub(super) fn put(&self, out: &mut Vec<u8>, keep: bool, only_head: bool) {
        out.extend_from_slice(status_line(self.status));
        out.extend_from_slice(b"Server: maser\r\n");
        if !self.body.is_empty() {
            for part in ["Content-Type: ", self.content_type, "\r\n"] {
                out.extend_from_slice(part.as_bytes());
            }
        }
        out.extend_from_slice(b"Content-Length: ");
        append_number(out, self.body.len() as u64);
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(self.fields.as_bytes());
        end_head(out, keep);
        if !only_head {
            out.extend_from_slice(self.body);
        }
    }
}

fn status_line(status: u16) -> &'static [u8] {
    match status {
        200 => b"HTTP/1.1 200 OK\r\n",
        400 => b"HTTP/1.1 400 Bad Request\r\n",
        404 => b"HTTP/1.1 404 Not Found\r\n",
        405 => b"HTTP/1.1 405 Method Not Allowed\r\n",
        413 => b"HTTP/1.1 413 Content Too Large\r\n",
        429 => b"HTTP/1.1 429 Too Many Requests\r\n",
        _ => b"HTTP/1.1 500 Internal Server Error\r\n",
    }
}

/// Appends the head of a stream of events.
pub(super) fn stream_head(out: &mut Vec<u8>, keep: bool) {
    out.extend_from_slice(
        b"HTTP/1.1 200 OK\r\nServer: maser\r\nContent-Type: text/event-stream; charset=utf-8\r\n\
          Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n",
    );
    end_head(out, keep);
}

fn end_head(out: &mut Vec<u8>, keep: bool) {
    out.extend_from_slice(if keep { b"\r\n" } else { b"Connection: close\r\n\r\n" });
}

/// Appends a number; a buffer takes any.
pub(super) fn append_number(out: &mut Vec<u8>, n: u64) {
    let _ = write!(out, "{n}");
}

/// Appends events to what is sent of a stream: each event is one chunk.
#[derive(Debug)]
pub(super) struct Events<'a> {
    out: &'a mut Vec<u8>,
    scratch: &'a mut Vec<u8>,
    /// Events of the answer so far.
    pub(super) number: u32,
}

impl<'a> Events<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>, scratch: &'a mut Vec<u8>, number: u32) -> Self {
        Self { out, scratch, number }
    }

    /// Bytes of what is being sent.
    pub(super) fn len(&self) -> usize {
        self.out.len()
    }

    /// One event of these bytes, its blank line included.
    pub(super) fn parts(&mut self, parts: &[&[u8]]) {
        self.open(parts.iter().map(|p| p.len()).sum());
        self.append(parts);
        self.close();
    }

    /// One event with `text` in it. Nothing is formatted and nothing copied twice: streams live on this.
    pub(super) fn text(&mut self, before: &[&[u8]], text: Text, after: &[&[u8]]) {
        let around: usize = before.iter().chain(after).map(|p| p.len()).sum();
        self.open(around + words::len(text));
        self.append(before);
        words::append(self.out, text);
        self.append(after);
        self.close();
    }

    /// One event that `write` writes, its blank line included, given the event's number.
    pub(super) fn write(&mut self, write: impl FnOnce(&mut Vec<u8>, u32)) {
        let mut event = std::mem::take(self.scratch);
        event.clear();
        write(&mut event, self.number);
        self.parts(&[&event]);
        *self.scratch = event;
    }

    /// One event whose data is `value`, named if `name` is not empty.
    pub(super) fn json(&mut self, name: &str, value: &serde_json::Value) {
        self.write(|out, _| {
            if !name.is_empty() {
                let _ = writeln!(out, "event: {name}");
            }
            let _ = write!(out, "data: {value}\n\n");
        });
    }

    /// `data: [DONE]`.
    pub(super) fn done(&mut self) {
        self.parts(&[b"data: [DONE]\n\n"]);
    }

    fn append(&mut self, parts: &[&[u8]]) {
        for part in parts {
            self.out.extend_from_slice(part);
        }
    }

    fn open(&mut self, len: usize) {
        self.number += 1;
        let mut digits = [0u8; 16];
        let count = (usize::BITS - len.leading_zeros()).div_ceil(4).max(1) as usize;
        put_hex(&mut digits[..count], len as u64);
        self.out.extend_from_slice(&digits[..count]);
        self.out.extend_from_slice(b"\r\n");
    }

    fn close(&mut self) {
        self.out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_tells_its_length() {
        for len in [0usize, 1, 15, 16, 255, 256, 4095, 4096, 70_000] {
            let (mut out, mut scratch) = (Vec::new(), Vec::new());
            Events::new(&mut out, &mut scratch, 0).parts(&[&vec![b'x'; len]]);
            assert_eq!(out, format!("{len:x}\r\n{}\r\n", "x".repeat(len)).into_bytes());
        }
    }
}
