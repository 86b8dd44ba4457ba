//! `profile_export_raw.jsonl`: for every request what was sent and what came back, whole and with its times.

use super::inputs::is_json;
use super::jsonl::{Failure, Lines, Metadata};
use maser_engine::log::{Header, Log};
use maser_engine::record::{Outcome, Payload, Record, flag};
use maser_engine::report::Report;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use std::borrow::Cow;
use std::io::{self, Write};

pub(super) fn write(report: &Report, log: &Log, out: &mut impl Write) -> io::Result<()> {
    let lines = Lines::new(report, log);
    let mut text = Vec::new();
    for (record, payload) in log.records() {
        let metadata = lines.metadata(&record);
        let line = Line {
            metadata: &metadata,
            start_perf_ns: record.start.0,
            request_headers: Headers { header: &log.header, metadata: &metadata },
            status: (record.status > 0).then_some(record.status),
            responses: responses(&record, &payload),
            responses_cut: is_cut(&record, &payload),
            error: Lines::failure(&record, &payload),
        };
        text.clear();
        serde_json::to_writer(&mut text, &line)?;
        // The body as it was sent, byte for byte: numbers and escapes are not read and written again.
        text.pop();
        out.write_all(&text)?;
        if !payload.sent.is_empty() {
            out.write_all(b",\"payload\":")?;
            body(payload.sent, out)?;
        }
        out.write_all(b"}\n")?;
    }
    Ok(())
}

#[derive(Serialize)]
struct Line<'a> {
    metadata: &'a Metadata<'a>,
    start_perf_ns: u64,
    request_headers: Headers<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    responses: Vec<Response<'a>>,
    /// Ours: more was received than is in `responses`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    responses_cut: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Failure>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Response<'a> {
    /// A message of an event stream.
    Message { perf_ns: u64, packets: Vec<Packet<'a>> },
    /// A body that is no stream.
    Whole {
        perf_ns: u64,
        text: Cow<'a, str>,
        #[serde(skip_serializing_if = "str::is_empty")]
        content_type: Cow<'a, str>,
    },
}

/// A line of a message: the field's name, `comment` for a line that begins with a colon, and what follows the colon.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Packet<'a> {
    name: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Cow<'a, str>>,
}

/// The request's headers in the order in which they were sent; what may be a secret is redacted.
pub(super) struct Headers<'a> {
    pub(super) header: &'a Header,
    pub(super) metadata: &'a Metadata<'a>,
}

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fixed = &self.header.request_headers;
        let given = |name: &str| fixed.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
        let mut map = serializer.serialize_map(None)?;
        let own = [
            ("X-Request-ID", self.metadata.x_request_id.as_str()),
            (self.header.correlation_header.as_str(), self.metadata.x_correlation_id.as_str()),
        ];
        for (name, value) in own.into_iter().filter(|(name, _)| !name.is_empty() && !given(name)) {
            map.serialize_entry(name, value)?;
        }
        for (name, value) in fixed {
            map.serialize_entry(name, value)?;
        }
        for name in self.header.session_headers.iter().filter(|name| !given(name)) {
            map.serialize_entry(name, "<redacted>")?;
        }
        map.end()
    }
}

/// What came back. As in the reference, the body of an error status stands in the error alone.
fn responses<'a>(record: &Record, payload: &Payload<'a>) -> Vec<Response<'a>> {
    if record.outcome() == Outcome::HttpStatus {
        return Vec::new();
    }
    if record.has(flag::STREAMED) {
        let messages = messages(payload.pieces()).into_iter();
        return messages.map(|(at, packets)| Response::Message { perf_ns: record.start.0 + at, packets }).collect();
    }
    let mut whole = Vec::new();
    let mut last = None;
    for (at, piece) in payload.pieces() {
        whole.extend_from_slice(piece);
        last = Some(at);
    }
    let response = last.map(|at| Response::Whole {
        perf_ns: record.start.0 + at,
        text: String::from_utf8_lossy(&whole).into_owned().into(),
        content_type: String::from_utf8_lossy(payload.media_type),
    });
    response.into_iter().collect()
}

/// Whether the log has less of the response than came: it was too long, or the ring to the collector was full.
fn is_cut(record: &Record, payload: &Payload<'_>) -> bool {
    let kept: usize = payload.pieces().map(|(_, piece)| piece.len()).sum();
    record.has(flag::PAYLOAD_LOST) || kept < record.bytes_received as usize
}

/// The messages of an event stream, each with the time of the piece that completed it; what stands after the last blank
/// line is a message too.
fn messages<'a>(pieces: impl Iterator<Item = (u64, &'a [u8])>) -> Vec<(u64, Vec<Packet<'a>>)> {
    let mut stream = Messages::default();
    for (at, piece) in pieces {
        stream.piece(at, piece);
    }
    stream.end()
}

#[derive(Default)]
struct Messages<'a> {
    all: Vec<(u64, Vec<Packet<'a>>)>,
    packets: Vec<Packet<'a>>,
    /// A line as far as earlier pieces had it.
    begun: Vec<u8>,
    after_cr: bool,
    last: u64,
}

impl<'a> Messages<'a> {
    fn piece(&mut self, at: u64, piece: &'a [u8]) {
        self.last = at;
        let mut rest = piece;
        while let Some(&first) = rest.first() {
            if std::mem::replace(&mut self.after_cr, false) && first == b'\n' {
                rest = &rest[1..];
                continue;
            }
            let Some(end) = memchr::memchr2(b'\r', b'\n', rest) else {
                return self.begun.extend_from_slice(rest);
            };
            self.line(at, &rest[..end]);
            self.after_cr = rest[end] == b'\r';
            rest = &rest[end + 1..];
        }
    }

    /// A line that ends with `tail`.
    fn line(&mut self, at: u64, tail: &'a [u8]) {
        if !self.begun.is_empty() {
            self.begun.extend_from_slice(tail);
            self.finish_begun();
        } else if !tail.is_empty() {
            self.packets.push(packet(String::from_utf8_lossy(tail)));
        } else if !self.packets.is_empty() {
            self.all.push((at, std::mem::take(&mut self.packets)));
        }
    }

    fn finish_begun(&mut self) {
        let line = String::from_utf8_lossy(&self.begun).into_owned();
        self.packets.push(packet(line.into()));
        self.begun.clear();
    }

    fn end(mut self) -> Vec<(u64, Vec<Packet<'a>>)> {
        if !self.begun.is_empty() {
            self.finish_begun();
        }
        if !self.packets.is_empty() {
            self.all.push((self.last, self.packets));
        }
        self.all
    }
}

fn packet(line: Cow<'_, str>) -> Packet<'_> {
    match line {
        Cow::Borrowed(line) => split(line),
        Cow::Owned(line) => {
            let Packet { name, value } = split(&line);
            Packet { name: name.into_owned().into(), value: value.map(|value| value.into_owned().into()) }
        }
    }
}

fn split(line: &str) -> Packet<'_> {
    match line.split_once(':') {
        Some(("", comment)) => Packet { name: "comment".into(), value: Some(comment.trim().into()) },
        Some((name, value)) => Packet { name: name.trim().into(), value: Some(value.trim().into()) },
        None => Packet { name: line.trim().into(), value: None },
    }
}

/// A request body on one line; one that is not JSON is a string.
fn body(bytes: &[u8], out: &mut impl Write) -> io::Result<()> {
    if !is_json(bytes) {
        return serde_json::to_writer(out, &String::from_utf8_lossy(bytes)).map_err(io::Error::from);
    }
    // Line ends stand only between the parts of valid JSON, never inside a string.
    for part in bytes.split(|b| matches!(b, b'\r' | b'\n')) {
        out.write_all(part)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packets(of: &[(&'static str, &'static str)]) -> Vec<Packet<'static>> {
        of.iter().map(|(n, v)| Packet { name: (*n).into(), value: Some((*v).into()) }).collect()
    }

    #[test]
    fn messages_are_the_same_however_the_stream_was_cut() {
        let stream = b": hello\n\nevent: a\r\ndata: {\"x\":1}\r\n\r\ndata:y\ndata: z\n\n\ndata: [DONE]";
        let expected = [
            packets(&[("comment", "hello")]),
            packets(&[("event", "a"), ("data", "{\"x\":1}")]),
            packets(&[("data", "y"), ("data", "z")]),
            packets(&[("data", "[DONE]")]),
        ];
        for size in 1..stream.len() {
            let pieces = stream.chunks(size).enumerate().map(|(k, piece)| (k as u64, piece));
            let all: Vec<_> = messages(pieces).into_iter().map(|(_, packets)| packets).collect();
            assert_eq!(all, expected, "pieces of {size}");
        }
    }

    #[test]
    fn a_message_has_the_time_of_its_last_byte() {
        let pieces = [(10, b"data: a\n".as_slice()), (20, b"\ndata: b\n\ndata: c\n\n"), (30, b"data: d")];
        let times: Vec<u64> = messages(pieces.into_iter()).into_iter().map(|(at, _)| at).collect();
        assert_eq!(times, [20, 20, 20, 30]);
    }

    #[test]
    fn a_body_stays_on_one_line() {
        let written = |bytes: &[u8]| {
            let mut out = Vec::new();
            body(bytes, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(written(b"{\r\n  \"a\": 1.50,\n \"b\": \"\\n\"}"), "{  \"a\": 1.50, \"b\": \"\\n\"}");
        assert_eq!(written(b"--x\r\ny"), "\"--x\\r\\ny\"");
    }
}
