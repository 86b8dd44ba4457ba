//! `trace_data` of a request's line: when its bytes went and came, with `--export-http-trace`.

use super::jsonl::Metadata;
use super::raw::Headers;
use maser_engine::clock::{Anchor, Instant};
use maser_engine::log::Header;
use maser_engine::record::{Payload, Record, flag};
use serde::Serialize;

/// Stamps are nanoseconds since 1970 (UTC), spans nanoseconds. What did not happen is left out.
#[derive(Serialize)]
pub(super) struct Trace<'a> {
    trace_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_send_start_ns: Option<u64>,
    request_headers: Headers<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_send_end_ns: Option<u64>,
    /// One, head and body together.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_chunks_count: Option<u32>,
    request_bytes_total: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_status_code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_receive_start_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_headers_received_ns: Option<u64>,
    /// Stamp and bytes of what came of the body at a time, at export level raw.
    response_chunks: Vec<(u64, usize)>,
    response_chunks_count: u32,
    response_bytes_total: u32,
    response_receive_end_ns: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection_reused_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    local_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sending_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receiving_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    blocked_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connecting_ns: Option<u64>,
}

impl<'a> Trace<'a> {
    pub(super) fn of(header: &'a Header, record: &Record, payload: &Payload<'_>, metadata: &'a Metadata<'a>) -> Self {
        let anchor = &header.anchor;
        let positive = |n: u64| (n > 0).then_some(n);
        Self {
            trace_type: "maser",
            request_send_start_ns: wall(anchor, record.sent),
            request_headers: Headers { header, metadata },
            request_send_end_ns: wall(anchor, record.send_end),
            request_chunks_count: record.sent.is_set().then_some(1),
            request_bytes_total: record.bytes_sent,
            response_status_code: (record.status > 0).then_some(record.status),
            response_receive_start_ns: wall(anchor, record.first_body),
            response_headers_received_ns: wall(anchor, record.first_byte),
            response_chunks: chunks(anchor, record, payload),
            response_chunks_count: record.reads,
            response_bytes_total: record.bytes_received,
            response_receive_end_ns: anchor.wall_ns(record.done),
            connection_reused_ns: wall(anchor, record.start).filter(|_| record.has(flag::REUSED)),
            local_port: (record.local_port > 0).then_some(record.local_port),
            sending_ns: span(record.sent, record.send_end),
            waiting_ns: span(record.send_end, record.first_body),
            receiving_ns: span(record.first_body, record.done),
            duration_ns: span(record.sent, record.done),
            blocked_ns: positive(record.blocked),
            connecting_ns: positive(record.connecting),
        }
    }
}

fn wall(anchor: &Anchor, at: Instant) -> Option<u64> {
    at.is_set().then(|| anchor.wall_ns(at))
}

fn span(from: Instant, to: Instant) -> Option<u64> {
    (from.is_set() && to.is_set()).then(|| to.since(from))
}

fn chunks(anchor: &Anchor, record: &Record, payload: &Payload<'_>) -> Vec<(u64, usize)> {
    let mut chunks: Vec<(u64, usize)> = Vec::new();
    for (after, piece) in payload.pieces() {
        let at = anchor.wall_ns(record.start.after(after));
        match chunks.last_mut() {
            // A read may be kept in several pieces.
            Some((last, bytes)) if *last == at => *bytes += piece.len(),
            _ => chunks.push((at, piece.len())),
        }
    }
    chunks
}
