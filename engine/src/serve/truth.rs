//! The truth log: what was really sent and when, one JSON line a request.
//!
//! Lines gather in memory and go to the file while nothing is about to be sent, or once a second.

use crate::clock::{Instant, MICRO, Nanos, SECOND};
use serde::Serialize;
use std::fs::File;
use std::io::{self, Write};

/// Bytes written at a time: to the page cache that takes some tens of microseconds.
const WRITE: usize = 64 * 1024;

/// With this much gathered the log is written no matter what is due.
const FULL: usize = 4 << 20;

/// How long nothing may be due for a write to begin.
const QUIET: Nanos = 300 * MICRO;

/// How long a line may wait for company.
const GATHER: Nanos = SECOND / 2;

/// How long it may wait for quiet after that.
const PATIENCE: Nanos = SECOND / 4;

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
    pub(super) ntok: u64,
    pub(super) fault: Option<&'static str>,
    /// 0 where no response was begun.
    pub(super) status: u16,
    /// For each chunk of content, nanoseconds from `body` to just before its send.
    pub(super) ck: &'a [Nanos],
    /// The last byte was handed to the kernel, or the connection ended.
    pub(super) end: u64,
    pub(super) outcome: &'static str,
    /// Bytes of the request's body.
    pub(super) plen: u64,
    /// Tokens of the prompt, as usage tells them; 0 where there was none.
    pub(super) ptok: u32,
    /// Messages in the request (prompts, inputs), those of stored responses before it included.
    pub(super) nmsg: u32,
    /// Tokens of reasoning among `ntok`.
    pub(super) rtok: u64,
    /// The session a router would keep together, from `X-Session-Affinity` or one of its like.
    pub(super) sid: Option<&'a str>,
}

/// The log.
#[derive(Debug)]
pub(super) struct Truth {
    file: File,
    gathered: Vec<u8>,
    /// Of that, bytes written.
    written: usize,
    /// From when on what is gathered should be written.
    write_at: Instant,
}

impl Truth {
    pub(super) fn new(file: File) -> Self {
        Self { file, gathered: Vec::new(), written: 0, write_at: Instant::NEVER }
    }

    pub(super) fn note(&mut self, line: &Line<'_>, now: Instant) {
        // A line has only strings and numbers: it can always be written to memory.
        let _ = serde_json::to_writer(&mut self.gathered, line);
        self.gathered.push(b'\n');
        self.write_at = self.write_at.min(now.after(GATHER));
    }

    /// The latest time at which a turn is wanted; earlier ones are welcome.
    pub(super) fn wants(&self) -> Instant {
        if self.waiting() >= FULL { Instant::UNSET } else { self.write_at.after(PATIENCE) }
    }

    fn waiting(&self) -> usize {
        self.gathered.len() - self.written
    }

    /// Writes a piece if it is time to, or if there is enough for one, and nothing is due before `next`.
    pub(super) fn turn(&mut self, now: Instant, next: Instant) -> io::Result<()> {
        let is_quiet = next > now.after(QUIET);
        let can_wait = now < self.write_at && self.waiting() < WRITE;
        let must = now >= self.write_at.after(PATIENCE) || self.waiting() >= FULL;
        if must || (is_quiet && !can_wait) { self.write(WRITE) } else { Ok(()) }
    }

    /// Writes all that is gathered.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.write(usize::MAX)
    }

    fn write(&mut self, most: usize) -> io::Result<()> {
        let len = self.waiting().min(most);
        self.file.write_all(&self.gathered[self.written..self.written + len])?;
        self.written += len;
        if self.waiting() == 0 {
            self.gathered.clear();
            (self.written, self.write_at) = (0, Instant::NEVER);
        } else if self.written >= FULL {
            // At most as much is moved as was written since the last time.
            self.gathered.drain(..self.written);
            self.written = 0;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::MILLI;

    fn line(rid: &str) -> Line<'_> {
        Line {
            rid: Some(rid),
            cid: None,
            conn: 1,
            nreq: 2,
            path: "/x",
            accept: 3,
            first: 4,
            hdr: 5,
            body: 6,
            stream: true,
            ntok: 7,
            fault: None,
            status: 200,
            ck: &[8, 9],
            end: 10,
            outcome: "ok",
            plen: 0,
            ptok: 0,
            nmsg: 0,
            rtok: 0,
            sid: None,
        }
    }

    fn truth() -> (Truth, tempfile::NamedTempFile) {
        let file = tempfile::NamedTempFile::new().unwrap();
        (Truth::new(file.reopen().unwrap()), file)
    }

    fn length(file: &tempfile::NamedTempFile) -> u64 {
        file.as_file().metadata().unwrap().len()
    }

    #[test]
    fn a_line_waits_for_quiet_but_not_for_ever() {
        let at = Instant(1_000_000_000);
        let half = at.after(500 * MILLI);
        for (now, due, written) in [
            (at.after(400 * MILLI), Instant::NEVER, false),
            (half, half.after(200 * MICRO), false),
            (half, half.after(400 * MICRO), true),
            (at.after(750 * MILLI), Instant::UNSET, true),
        ] {
            let (mut truth, file) = truth();
            truth.note(&line("a"), at);
            assert_eq!(truth.wants(), at.after(750 * MILLI));
            truth.turn(now, due).unwrap();
            assert_eq!(length(&file) > 0, written, "{now:?} {due:?}");
            assert_eq!(truth.wants() == Instant::NEVER, written);
        }
    }

    #[test]
    fn a_busy_log_is_written_piece_by_piece_and_loses_nothing() {
        let (mut truth, file) = truth();
        let mut want = String::new();
        for n in 0..60_000u32 {
            let (rid, now) = (n.to_string(), Instant(u64::from(n)));
            truth.note(&line(&rid), now);
            want += &serde_json::to_string(&line(&rid)).unwrap();
            want.push('\n');
            let before = length(&file);
            truth.turn(now, Instant::UNSET).unwrap();
            assert!(length(&file) - before <= WRITE as u64);
            assert!(truth.waiting() < FULL + WRITE && truth.gathered.len() < 2 * FULL + WRITE);
        }
        assert!(length(&file) > 0, "more than can be held was noted");
        truth.flush().unwrap();
        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), want);
    }
}
