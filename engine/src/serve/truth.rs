//! The truth log: what was really sent and when, one JSON line a request.
//!
//! Lines gather in memory and go to the file while nothing is about to be sent, or once a second.

use crate::clock::{Instant, MICRO, Nanos, SECOND};
use serde::Serialize;
use std::fs::File;
use std::io::{self, Write};

/// A write of this many bytes to the page cache takes some tens of microseconds.
const WRITE: usize = 64 * 1024;

/// With this much gathered it is written no matter what.
const FULL: usize = 4 << 20;

/// How long nothing may be due for a write to begin.
const QUIET: Nanos = 300 * MICRO;

/// One request. Points in time are nanoseconds since 1970 (UTC).
#[derive(Debug, Serialize)]
pub(super) struct Line<'a> {
    /// `X-Request-ID`.
    pub(super) rid: Option<&'a str>,
    /// `X-Correlation-ID`.
    pub(super) cid: Option<&'a str>,
    /// The connection, counted from 0.
    pub(super) conn: u64,
    /// Order on its connection, from 0.
    pub(super) nreq: u64,
    /// The target as written, with its query.
    pub(super) path: &'a str,
    /// When the connection was accepted.
    pub(super) accept: u64,
    /// First byte of the request.
    pub(super) first: u64,
    /// Its head was complete.
    pub(super) hdr: u64,
    /// It was complete.
    pub(super) body: u64,
    pub(super) stream: bool,
    /// Tokens handed to the kernel.
    pub(super) ntok: u32,
    pub(super) fault: Option<&'static str>,
    /// 0 where no response was begun.
    pub(super) status: u16,
    /// For each chunk of content, nanoseconds from `body` to just before its send.
    pub(super) ck: &'a [Nanos],
    /// The last byte was handed to the kernel, or the connection ended.
    pub(super) end: u64,
    pub(super) outcome: &'static str,
}

/// The log.
#[derive(Debug)]
pub(super) struct Truth {
    file: File,
    gathered: Vec<u8>,
    /// By when what is gathered must be written.
    write_at: Instant,
}

impl Truth {
    pub(super) fn new(file: File) -> Self {
        Self { file, gathered: Vec::new(), write_at: Instant::NEVER }
    }

    pub(super) fn note(&mut self, line: &Line<'_>, now: Instant) {
        // A line has only strings and numbers: it can always be written to memory.
        let _ = serde_json::to_writer(&mut self.gathered, line);
        self.gathered.push(b'\n');
        if self.write_at == Instant::NEVER {
            self.write_at = now.after(SECOND / 2);
        }
    }

    /// When a turn is wanted.
    pub(super) fn wants(&self) -> Instant {
        self.write_at
    }

    /// Writes if it is time to, or if there is enough and nothing is due before `next`.
    pub(super) fn turn(&mut self, now: Instant, next: Instant) -> io::Result<()> {
        let quiet = next > now.after(QUIET);
        let is_time = now >= self.write_at && (quiet || now >= self.write_at.after(SECOND / 4));
        if self.gathered.len() >= FULL || is_time {
            self.flush()
        } else if quiet && self.gathered.len() >= WRITE {
            self.write_some()
        } else {
            Ok(())
        }
    }

    fn write_some(&mut self) -> io::Result<()> {
        let end = self.gathered[..WRITE].iter().rposition(|&b| b == b'\n').map_or(WRITE, |at| at + 1);
        self.file.write_all(&self.gathered[..end])?;
        self.gathered.drain(..end);
        Ok(())
    }

    /// Writes all that is gathered.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.write_at = Instant::NEVER;
        self.file.write_all(&self.gathered)?;
        self.gathered.clear();
        Ok(())
    }
}
