//! One request, measured: a fixed-size record and, beside it, a payload of variable length.
//!
//! The record goes through a ring to the collector and byte for byte into the log; it is plain old data. All times are
//! [`Instant`]s, [`Instant::UNSET`] where the event did not happen. As far as they exist:
//! `due ≤ start ≤ sent ≤ first_byte ≤ first_token ≤ last_token ≤ done`.

use crate::clock::{Instant, MILLI, Nanos};
use bytemuck::{Pod, Zeroable};

/// "The server did not say" in a token count.
pub const UNKNOWN: u32 = u32::MAX;

/// What became of a request. Everything but [`Outcome::Ok`] has a class of errors in the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Outcome {
    /// A complete answer with content.
    Ok = 0,
    /// A status outside 2xx; the payload's error text is the body.
    HttpStatus = 1,
    /// No complete answer within the request timeout.
    Timeout = 2,
    /// No connection could be made.
    Connect = 3,
    /// The connection was reset, or closed before any byte of the answer.
    Reset = 4,
    /// The answer ended before its announced end.
    Truncated = 5,
    /// The answer was not HTTP, or its framing was broken.
    Protocol = 6,
    /// A 2xx answer that carried an error instead of a result.
    InStream = 7,
    /// A 2xx answer without any content.
    Empty = 8,
    /// Cut by the end of the run: grace over, or a second interrupt.
    Cancelled = 9,
    /// A 2xx answer with an event that cannot be read.
    Malformed = 10,
    /// Cut on purpose, as the plan asks for: the client of a real user who went away.
    Abandoned = 11,
    /// No connection was made within the time for it.
    ConnectTimeout = 12,
}

impl Outcome {
    /// Every outcome, in the order of their numbers.
    pub const ALL: [Self; 13] = [
        Self::Ok,
        Self::HttpStatus,
        Self::Timeout,
        Self::Connect,
        Self::Reset,
        Self::Truncated,
        Self::Protocol,
        Self::InStream,
        Self::Empty,
        Self::Cancelled,
        Self::Malformed,
        Self::Abandoned,
        Self::ConnectTimeout,
    ];

    /// The outcome with this number, if there is one.
    pub fn from_u8(n: u8) -> Option<Self> {
        Self::ALL.get(n as usize).copied()
    }

    /// Whether it says something of the server: what was cut, on purpose or by the end of the run, neither succeeded nor
    /// failed.
    pub fn is_failure(self) -> bool {
        !matches!(self, Self::Ok | Self::Cancelled | Self::Abandoned)
    }

    /// The error type as the files name it: by the names of the reference, which scripts look for. What happened stands in
    /// the message.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::HttpStatus => "HTTP Error",
            Self::Timeout => "TimeoutError",
            Self::Connect => "ClientConnectorError",
            Self::Reset => "ServerDisconnectedError",
            Self::Truncated => "ClientPayloadError",
            Self::Protocol => "ClientResponseError",
            Self::InStream => "SSEResponseError",
            Self::Empty => "InvalidInferenceResultError",
            Self::Cancelled => "Request Cancelled",
            Self::Malformed => "InvalidInferenceResultError",
            Self::Abandoned => "RequestCancellationError",
            Self::ConnectTimeout => "ConnectionTimeoutError",
        }
    }
}

/// Bits of [`Record::flags`].
pub mod flag {
    /// The server closed an idle connection before any byte of the response: sent once more on a fresh one.
    pub const RETRIED: u16 = 1;
    /// Went out on a connection that had served before.
    pub const REUSED: u16 = 1 << 1;
    /// Found no free slot, of a session or of a prefill, at its due time and waited for one.
    pub const QUEUED: u16 = 1 << 2;
    /// The payload ring was full: text and chunk times of this request are missing.
    pub const PAYLOAD_LOST: u16 = 1 << 3;
    /// Issued on a schedule (open loop): `due` is a planned time. Otherwise `due` is the moment a slot was free.
    pub const SCHEDULED: u16 = 1 << 4;
    /// The answer came as a stream of events.
    pub const STREAMED: u16 = 1 << 5;
    /// Found no free slot at its due time and was sent all the same, beyond the limit.
    pub const OVER_LIMIT: u16 = 1 << 6;
    /// The thread of its executor stood still while it was in flight, so that its times hold the client's own delay.
    pub const STALLED: u16 = 1 << 7;
    /// Its text was longer than a record holds: what is kept was cut.
    pub const TEXT_CUT: u16 = 1 << 8;
    /// Followed a redirect.
    pub const REDIRECTED: u16 = 1 << 9;
    /// This machine had no descriptor, local port or memory left for its connection: it was never sent, and the server had
    /// no part in that.
    pub const LOCAL_LIMIT: u16 = 1 << 10;
    /// Every bit that has a meaning.
    pub const ALL: u16 = RETRIED
        | REUSED
        | QUEUED
        | PAYLOAD_LOST
        | SCHEDULED
        | STREAMED
        | OVER_LIMIT
        | STALLED
        | TEXT_CUT
        | REDIRECTED
        | LOCAL_LIMIT;
}

/// A request whose [send delay](Record::send_delay) is this long or longer is late, nanoseconds. Whatever is called late or
/// on time, in counters, files and sentences, is so by this bound.
pub const LATE: Nanos = MILLI;

/// One request, measured. Plain old data, 200 bytes, no padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Record {
    /// Order of issue within its phase, from 0.
    pub seq: u64,
    /// Planned time; in a closed loop the moment its slot became free.
    pub due: Instant,
    /// The executor took the request up, before it waited for a connection.
    pub start: Instant,
    /// First byte handed to the kernel.
    pub sent: Instant,
    /// Last byte handed to the kernel.
    pub send_end: Instant,
    /// First byte of the response head.
    pub first_byte: Instant,
    /// First byte of the response body.
    pub first_body: Instant,
    /// First response with content.
    pub first_token: Instant,
    /// Second response with content.
    pub second_token: Instant,
    /// First response with content that is not reasoning.
    pub first_output: Instant,
    /// Last response with content.
    pub last_token: Instant,
    /// Last byte of the response, or the moment it failed.
    pub done: Instant,
    /// Nanoseconds spent waiting because this client may have no more connections (0 if one was free or a new one was begun).
    pub blocked: u64,
    /// Nanoseconds within this request in which a connection was being opened for it, whether it went out on that one or on
    /// another that came free meanwhile; 0 if it found one open. The server's part, as far as one can tell from here.
    pub connecting: u64,
    /// Index of the request in the arena.
    pub request: u32,
    /// Bytes sent, head and body.
    pub bytes_sent: u32,
    /// Bytes of the response body, transfer coding taken off.
    pub bytes_received: u32,
    /// Responses (SSE events, or one) with content.
    pub chunks: u32,
    /// Pieces of body as they arrived: reads that carried body bytes.
    pub reads: u32,
    /// `usage.prompt_tokens`, or [`UNKNOWN`].
    pub usage_prompt: u32,
    /// `usage.completion_tokens`, or [`UNKNOWN`].
    pub usage_completion: u32,
    /// `usage.completion_tokens_details.reasoning_tokens`, or [`UNKNOWN`].
    pub usage_reasoning: u32,
    /// `usage.prompt_tokens_details.cached_tokens`, or [`UNKNOWN`].
    pub usage_cached: u32,
    /// `usage.total_tokens`, or [`UNKNOWN`].
    pub usage_total: u32,
    /// Bytes of payload that follow the record.
    pub payload_len: u32,
    /// Local TCP port, 0 if there was no connection.
    pub local_port: u16,
    /// HTTP status, 0 if none came.
    pub status: u16,
    /// Bits of [`flag`].
    pub flags: u16,
    /// Executor that carried it, from 0.
    pub executor: u16,
    /// Index of the phase in the plan.
    pub phase: u8,
    /// Number of an [`Outcome`].
    pub outcome: u8,
    /// Index of the target it went to.
    pub target: u16,
    /// Nanoseconds from the start of a first attempt until its connection turned out to have been closed by the server
    /// before it; 0 where nothing was sent twice.
    pub lost: u64,
    /// Order in which its session started within the phase, from 0.
    pub session: u64,
    /// Results that are no text: embeddings, ranked passages, images, detections.
    pub units: u32,
    /// Upper bound of how long the first content lay in this client's receive queue before it was read, nanoseconds: the
    /// time since the thread had last looked. Saturates at 4.29 s.
    pub read_wait: u32,
    /// The largest such bound over all reads of the response.
    pub read_wait_most: u32,
    /// Zero. Room for what comes, so that old logs stay readable.
    pub reserved: u32,
}

/// Bytes of a record in rings and logs.
pub const RECORD_SIZE: usize = std::mem::size_of::<Record>();

impl Record {
    /// The outcome; an unknown number (a log of a newer version) reads as [`Outcome::Protocol`].
    pub fn outcome(&self) -> Outcome {
        Outcome::from_u8(self.outcome).unwrap_or(Outcome::Protocol)
    }

    /// Whether the flag bits `bits` are all set.
    pub fn has(&self, bits: u16) -> bool {
        self.flags & bits == bits
    }

    /// Whether the server counts reasoning tokens beside its completion tokens and not among them: exactly where prompt,
    /// completion and reasoning tokens add up to its total.
    pub fn counts_reasoning_apart(&self) -> bool {
        let known = |n: u32| (n != UNKNOWN).then_some(u64::from(n));
        let sum = || Some(known(self.usage_prompt)? + known(self.usage_completion)? + known(self.usage_reasoning)?);
        !matches!(self.usage_reasoning, 0 | UNKNOWN)
            && known(self.usage_total).is_some_and(|total| sum() == Some(total))
    }

    /// Tokens of the output as the server counts them, reasoning included wherever it counts that; [`UNKNOWN`] if it does
    /// not say.
    pub fn completion(&self) -> u32 {
        match self.counts_reasoning_apart() {
            true => self.usage_completion.saturating_add(self.usage_reasoning),
            false => self.usage_completion,
        }
    }

    /// From the due time until the executor took the request up, nanoseconds.
    pub fn slip(&self) -> Nanos {
        self.start.since(self.due)
    }

    /// From the due time until the first byte was handed to the kernel, less what the server's side took of it: opening a
    /// connection, and a first attempt that was lost. Nanoseconds. It is the client's own delay, except where the request
    /// waited for a slot of a limit that the user asked for ([`flag::QUEUED`]). A request that was never sent was delayed
    /// until it was given up.
    pub fn send_delay(&self) -> Nanos {
        let left = [self.sent, self.done].into_iter().find(|at| at.is_set());
        self.delay_until(left.unwrap_or(self.start))
    }

    /// The send delay of a request that is sent at `at`, nanoseconds.
    pub fn delay_until(&self, at: Instant) -> Nanos {
        at.since(self.due).saturating_sub(self.connecting.saturating_add(self.lost))
    }

    /// Whether its send delay is long enough to be called late.
    pub fn is_late(&self) -> bool {
        self.send_delay() >= LATE
    }
}

/// The parts of a payload: `tag, length (LEB128), bytes`, in any order, each at most once.
pub mod part {
    /// Visible output text, UTF-8, of all content responses in order.
    pub const TEXT: u8 = 1;
    /// Reasoning text, UTF-8.
    pub const REASONING: u8 = 2;
    /// LEB128 nanoseconds between consecutive content responses; `chunks − 1` of them.
    pub const GAPS: u8 = 3;
    /// Error text, UTF-8, cut at 4 KiB.
    pub const ERROR: u8 = 4;
    /// HTTP reason phrase of an error status, UTF-8.
    pub const REASON: u8 = 5;
    /// The response body as it came, in pieces with their times: see [`put_piece`](super::put_piece).
    pub const RAW: u8 = 16;
    /// The request body as it was sent.
    pub const SENT: u8 = 17;
    /// The media type of a response whose pieces are kept, as far as it is told apart.
    pub const MEDIA_TYPE: u8 = 18;
    /// LEB128 output tokens of each content response, as the server counted them event by event; as many as
    /// [`Record::chunks`](super::Record::chunks), or absent.
    pub const TOKENS: u8 = 6;
    /// The server's account of its speculative decoding, JSON as it came.
    pub const SPECULATION: u8 = 7;
    /// Counters that few servers name, see [`Said::put`](crate::said::Said::put); absent where none was.
    pub const SAID: u8 = 8;
    /// LEB128 number of events of the stream that were not JSON and were ignored; absent where none was.
    pub const IGNORED: u8 = 9;
}

/// Appends a piece of a response body to the body of a [`part::RAW`]: nanoseconds after the piece before it (the first:
/// after [`Record::start`]) and length, both in LEB128, and the bytes.
pub fn put_piece(out: &mut Vec<u8>, after: u64, piece: &[u8]) {
    put_leb128(out, after);
    put_leb128(out, piece.len() as u64);
    out.extend_from_slice(piece);
}

/// Appends `value` in LEB128.
pub fn put_leb128(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes one LEB128 number off the front of `bytes`; `None` if it is cut short or longer than 64 bits.
pub fn take_leb128(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Appends the part `tag` unless `bytes` is empty.
pub fn put_part(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        out.push(tag);
        put_leb128(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    }
}

/// The parts of a payload by name; what is absent is empty.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Payload<'a> {
    /// All of it.
    pub bytes: &'a [u8],
    /// Visible output text.
    pub text: &'a [u8],
    /// Reasoning text.
    pub reasoning: &'a [u8],
    /// Gaps, LEB128.
    pub gaps: &'a [u8],
    /// Error text.
    pub error: &'a [u8],
    /// HTTP reason phrase.
    pub reason: &'a [u8],
    /// The response body in pieces.
    pub raw: &'a [u8],
    /// The request body.
    pub sent: &'a [u8],
    /// Media type of the response.
    pub media_type: &'a [u8],
    /// Tokens of each content response, LEB128.
    pub tokens: &'a [u8],
    /// JSON of the server's speculative decoding.
    pub speculation: &'a [u8],
    /// Counters that few servers name.
    pub said: &'a [u8],
    /// How many events were ignored, LEB128.
    pub ignored: &'a [u8],
}

impl<'a> Payload<'a> {
    /// Reads a payload; stops without complaint at the first part that is cut short.
    pub fn parse(mut bytes: &'a [u8]) -> Self {
        let mut payload = Self { bytes, ..Self::default() };
        while let Some((&tag, rest)) = bytes.split_first() {
            bytes = rest;
            let Some(len) = take_leb128(&mut bytes) else {
                break;
            };
            if len > bytes.len() as u64 {
                break;
            }
            let (body, rest) = bytes.split_at(len as usize);
            bytes = rest;
            match tag {
                part::TEXT => payload.text = body,
                part::REASONING => payload.reasoning = body,
                part::GAPS => payload.gaps = body,
                part::ERROR => payload.error = body,
                part::REASON => payload.reason = body,
                part::RAW => payload.raw = body,
                part::SENT => payload.sent = body,
                part::MEDIA_TYPE => payload.media_type = body,
                part::TOKENS => payload.tokens = body,
                part::SPECULATION => payload.speculation = body,
                part::SAID => payload.said = body,
                part::IGNORED => payload.ignored = body,
                _ => {}
            }
        }
        payload
    }

    /// Whether a payload is made of whole parts.
    pub fn is_whole(mut bytes: &[u8]) -> bool {
        while let [_, rest @ ..] = bytes {
            bytes = rest;
            let Some(len) = take_leb128(&mut bytes) else {
                return false;
            };
            let Some((_, rest)) = usize::try_from(len).ok().and_then(|len| bytes.split_at_checked(len)) else {
                return false;
            };
            bytes = rest;
        }
        true
    }

    /// The gaps between consecutive content responses, nanoseconds.
    pub fn gaps(&self) -> impl Iterator<Item = u64> + 'a {
        numbers(self.gaps)
    }

    /// The pieces of the response body, each with its nanoseconds after [`Record::start`]; ends at the first that is cut
    /// short.
    pub fn pieces(&self) -> impl Iterator<Item = (u64, &'a [u8])> + 'a {
        let (mut bytes, mut at) = (self.raw, 0u64);
        std::iter::from_fn(move || {
            if bytes.is_empty() {
                return None;
            }
            at = at.saturating_add(take_leb128(&mut bytes)?);
            let len = usize::try_from(take_leb128(&mut bytes)?).ok()?;
            let (piece, rest) = bytes.split_at_checked(len)?;
            bytes = rest;
            Some((at, piece))
        })
    }

    /// Events of the stream that were not JSON and were ignored.
    pub fn ignored(&self) -> u64 {
        numbers(self.ignored).next().unwrap_or(0)
    }

    /// Output tokens of each content response, exact: from the server's counts with every event. Nothing if it gave none.
    pub fn tokens(&self) -> impl Iterator<Item = u64> + 'a {
        numbers(self.tokens)
    }
}

/// LEB128 numbers to the end, or to the first that is cut short.
fn numbers<'a>(mut bytes: &'a [u8]) -> impl Iterator<Item = u64> + 'a {
    std::iter::from_fn(move || if bytes.is_empty() { None } else { take_leb128(&mut bytes) })
}

/// The `X-Request-ID` of request `seq` of `phase`: a version 4 UUID that is a pure function of the run's key, so that no
/// record has to carry it.
pub fn request_id(run_key: u64, phase: u8, seq: u64) -> uuid::Uuid {
    derived_id(run_key, 2 * u64::from(phase), seq)
}

/// The `X-Correlation-ID` of session `session` of `phase`, derived likewise.
pub fn correlation_id(run_key: u64, phase: u8, session: u64) -> uuid::Uuid {
    derived_id(run_key, 2 * u64::from(phase) + 1, session)
}

/// What tells session `session` of `phase` from every other for a server's cache: `[rid:`, twelve hexadecimal digits of the
/// session's id, `]`.
pub fn marker(run_key: u64, phase: u8, session: u64) -> [u8; 18] {
    let id = correlation_id(run_key, phase, session).as_u128();
    let mut marker = *b"[rid:------------]";
    for (k, digit) in marker[5..17].iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(id >> (124 - 4 * k)) as usize & 15];
    }
    marker
}

fn derived_id(run_key: u64, stream: u64, n: u64) -> uuid::Uuid {
    let high = mix(run_key ^ mix(n.wrapping_add(stream << 56)));
    let low = mix(high ^ run_key.rotate_left(32) ^ n);
    uuid::Builder::from_u128(u128::from(high) << 64 | u128::from(low))
        .with_variant(uuid::Variant::RFC4122)
        .with_version(uuid::Version::Random)
        .into_uuid()
}

/// The finaliser of SplitMix64: a bijection on 64 bits that scatters neighbours.
fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_the_documented_size() {
        assert_eq!(RECORD_SIZE, 200);
    }

    #[test]
    fn payload_parts_come_back_and_a_cut_is_survived() {
        let mut bytes = Vec::new();
        put_part(&mut bytes, part::TEXT, b"hello");
        put_part(&mut bytes, part::ERROR, b"");
        let mut gaps = Vec::new();
        for gap in [0, 127, 128, 10_000_000, u64::MAX] {
            put_leb128(&mut gaps, gap);
        }
        put_part(&mut bytes, part::GAPS, &gaps);
        let payload = Payload::parse(&bytes);
        assert_eq!(payload.text, b"hello");
        assert_eq!(payload.gaps().collect::<Vec<_>>(), [0, 127, 128, 10_000_000, u64::MAX]);
        for cut in 0..bytes.len() {
            Payload::parse(&bytes[..cut]);
        }
    }

    #[test]
    fn pieces_come_back_with_their_times_and_a_cut_is_survived() {
        let mut raw = Vec::new();
        for (after, piece) in [(1_000_000, b"data: a".as_slice()), (0, b"\n"), (300, b"\n")] {
            put_piece(&mut raw, after, piece);
        }
        let all: Vec<_> = Payload { raw: &raw, ..Payload::default() }.pieces().collect();
        assert_eq!(all, [(1_000_000, b"data: a".as_slice()), (1_000_000, b"\n"), (1_000_300, b"\n")]);
        for cut in 0..raw.len() {
            assert!(Payload { raw: &raw[..cut], ..Payload::default() }.pieces().count() < 3);
        }
    }

    #[test]
    fn ids_are_distinct_version_4_uuids() {
        let mut seen = std::collections::HashSet::new();
        for phase in 0..2 {
            for seq in 0..10_000 {
                let id = request_id(99, phase, seq);
                assert_eq!(id.get_version_num(), 4);
                assert!(seen.insert(id));
                assert!(seen.insert(correlation_id(99, phase, seq)));
            }
        }
    }
}
