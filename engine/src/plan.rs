//! What a run will do, complete before the first byte: immutable, shared by all threads.

use crate::clock::Nanos;
use crate::endpoint;
use crate::schedule;
use memmap2::Mmap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

/// A whole run.
#[derive(Debug)]
pub struct Plan {
    /// In order; each is drained before the next begins.
    pub phases: Vec<Phase>,
    /// Where requests go.
    pub target: Target,
    /// Which protocol they speak.
    pub endpoint: endpoint::Kind,
    /// The bodies.
    pub requests: Arc<Requests>,
    /// What is kept of each response beside its record.
    pub capture: Capture,
    /// A request without a complete answer after this long has failed.
    pub request_timeout: Option<Nanos>,
    /// Open the connections of a closed loop before the first request.
    pub preconnect: bool,
    /// Key of the request ids.
    pub run_key: u64,
    /// Root of all random streams.
    pub seed: u64,
}

/// A stretch of load with one schedule and one set of limits.
#[derive(Debug, Clone, PartialEq)]
pub struct Phase {
    /// `warmup` or `profiling`.
    pub name: String,
    /// Left out of the results.
    pub warmup: bool,
    /// When requests are due.
    pub schedule: schedule::Spec,
    /// At most this many in flight.
    pub concurrency: Option<u32>,
    /// Ends after this many.
    pub requests: Option<u64>,
    /// Nothing is sent this long after its start.
    pub duration: Option<Nanos>,
    /// What is still in flight this long after `duration` is cut; never if `None`.
    pub grace: Option<Nanos>,
}

/// Where and how requests are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Resolved addresses; connections take them in turn.
    pub addrs: Vec<SocketAddr>,
    /// Value of the Host header.
    pub host: String,
    /// Path and query.
    pub path: String,
    /// Name of the header that carries the session's id.
    pub correlation_header: String,
    /// All other headers, in order.
    pub headers: Vec<(String, String)>,
}

/// What is kept of each response beside its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capture {
    /// Output and reasoning text, for client-side token counts.
    pub text: bool,
    /// The gap before each content response.
    pub gaps: bool,
    /// Both bodies, the response's in the pieces and at the times in which it came.
    pub raw: bool,
}

/// The request bodies, end to end in one memory-mapped file that has no name.
#[derive(Debug)]
pub struct Requests {
    map: Option<Mmap>,
    /// Offset and length of each body.
    spans: Vec<(u64, u32)>,
}

impl Requests {
    /// Number of bodies.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The body of request `index`; empty if there is no such request.
    pub fn body(&self, index: u32) -> &[u8] {
        let (Some(map), Some(&(from, len))) = (&self.map, self.spans.get(index as usize)) else { return &[] };
        &map[from as usize..from as usize + len as usize]
    }

    /// Renumbers the requests: what was `order[k]` becomes `k`. `order` must be a permutation.
    pub fn reorder(&mut self, order: &[u32]) {
        debug_assert_eq!(order.len(), self.spans.len());
        self.spans = order.iter().map(|&k| self.spans[k as usize]).collect();
    }
}

/// Collects request bodies.
#[derive(Debug)]
pub struct RequestsBuilder {
    file: BufWriter<File>,
    spans: Vec<(u64, u32)>,
    len: u64,
}

impl RequestsBuilder {
    /// Bodies go to an unlinked file in `dir`: nothing is left behind however the run ends.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn new(dir: &Path) -> io::Result<Self> {
        Ok(Self { file: BufWriter::with_capacity(1 << 18, tempfile::tempfile_in(dir)?), spans: Vec::new(), len: 0 })
    }

    /// Appends a body; its index is the number of bodies before it.
    ///
    /// # Errors
    /// The file cannot be written (a full disk).
    pub fn push(&mut self, body: &[u8]) -> io::Result<()> {
        self.file.write_all(body)?;
        self.spans.push((self.len, body.len() as u32));
        self.len += body.len() as u64;
        Ok(())
    }

    /// Maps what was collected.
    ///
    /// # Errors
    /// The file cannot be written or mapped.
    pub fn finish(self) -> io::Result<Requests> {
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        // SAFETY: the file has no name and this is its only handle, so nobody can change it under the map.
        let map = if self.len > 0 { Some(unsafe { Mmap::map(&file)? }) } else { None };
        Ok(Requests { map, spans: self.spans })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_come_back_by_index() {
        let dir = tempfile::tempdir().unwrap();
        let mut builder = RequestsBuilder::new(dir.path()).unwrap();
        for body in ["a", "", "bcd"] {
            builder.push(body.as_bytes()).unwrap();
        }
        let mut requests = builder.finish().unwrap();
        assert_eq!([0, 1, 2, 3].map(|n| requests.body(n)), [b"a".as_slice(), b"", b"bcd", b""]);
        requests.reorder(&[2, 0, 1]);
        assert_eq!([0, 1, 2].map(|n| requests.body(n)), [b"bcd".as_slice(), b"a", b""]);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
