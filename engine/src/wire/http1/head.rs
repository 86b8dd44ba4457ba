//! The head of a request: written once for a target, patched for each request.

use uuid::Uuid;

const UUID_LEN: usize = 36;
/// Columns kept for the length of the body: bodies below 10 GB.
const LENGTH_COLUMNS: usize = 10;
const REQUEST_ID: &str = "X-Request-ID";
const LENGTH: &str = "Content-Length";

/// Built once per target, patched per request.
///
/// Order on the wire: request line, `Host`, `X-Request-ID`, the correlation header, the fixed headers in their order, the
/// other headers with the session's id, `Content-Length`.
#[derive(Debug, Clone)]
pub struct Head {
    bytes: Vec<u8>,
    request_id_at: Option<usize>,
    correlation_at: Option<usize>,
    /// Where the correlation id stands beside that.
    sessions_at: Vec<usize>,
    /// First column of the length; everything after it is rewritten if the columns do not suffice. A head without columns
    /// has no length.
    length_at: usize,
    length_columns: usize,
}

impl Head {
    /// Lays out the head. `fixed` are all other headers in order (name, value).
    ///
    /// A GET has no body and no length of one. Reserves room for `X-Request-ID`, for a correlation header of the given name
    /// and for the other `session_headers` (all carry the correlation id), and for `Content-Length`, right-aligned: spaces in
    /// front of a value are legal. A fixed header called `Host`, `X-Request-ID` or like the correlation header stands in for
    /// the reserved one; one called like a session header or `Content-Length` gives way to it. Names match in any case. Line
    /// breaks in names and values are for the caller to refuse; here they become spaces, so that no value can end the head.
    pub fn new(
        method: &str,
        path: &str,
        host: &str,
        (correlation_header, session_headers): (&str, &[String]),
        fixed: &[(String, String)],
    ) -> Self {
        let given = |name: &str| fixed.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
        let mut bytes = Vec::with_capacity(512);
        for part in [method, " ", path, " HTTP/1.1\r\n"] {
            bytes.extend_from_slice(part.as_bytes());
        }
        if !given("Host") {
            put(&mut bytes, "Host", host);
        }
        let request_id_at = (!given(REQUEST_ID)).then(|| put_blank(&mut bytes, REQUEST_ID));
        let is_session = |name: &str| session_headers.iter().any(|session| session.eq_ignore_ascii_case(name));
        let one_slot = is_session(correlation_header);
        let correlation_at =
            (!given(correlation_header) && !one_slot).then(|| put_blank(&mut bytes, correlation_header));
        for (name, value) in fixed {
            if !is_session(name) && !name.eq_ignore_ascii_case(LENGTH) {
                put(&mut bytes, name, value);
            }
        }
        let sessions_at = session_headers.iter().map(|name| put_blank(&mut bytes, name)).collect();
        let length_columns = if method == "GET" { 0 } else { LENGTH_COLUMNS };
        if length_columns > 0 {
            bytes.extend_from_slice(LENGTH.as_bytes());
            bytes.extend_from_slice(b": ");
        }
        let length_at = bytes.len();
        bytes.resize(length_at + length_columns, b' ');
        bytes.extend_from_slice(if length_columns > 0 { b"\r\n\r\n".as_slice() } else { b"\r\n" });
        Self { bytes, request_id_at, correlation_at, sessions_at, length_at, length_columns }
    }

    /// The bytes of the head for one request; valid until the next call.
    pub fn patch(&mut self, request_id: Uuid, correlation_id: Uuid, content_length: usize) -> &[u8] {
        self.patch_id(self.request_id_at, request_id);
        let first = self.correlation_at.or(self.sessions_at.first().copied());
        self.patch_id(first, correlation_id);
        if let Some(from) = first {
            for &to in &self.sessions_at {
                self.bytes.copy_within(from..from + UUID_LEN, to);
            }
        }
        if self.length_columns > 0 {
            self.patch_length(content_length);
        }
        &self.bytes
    }

    fn patch_id(&mut self, at: Option<usize>, id: Uuid) {
        if let Some(at) = at
            && let Some(slot) = self.bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut())
        {
            put_id(slot, id);
        }
    }

    fn patch_length(&mut self, length: usize) {
        let mut digits = [b' '; 20];
        let mut left = length;
        let mut first = digits.len();
        loop {
            first -= 1;
            digits[first] = b'0' + (left % 10) as u8;
            left /= 10;
            if left == 0 {
                break;
            }
        }
        let needed = digits.len() - first;
        if needed > self.length_columns {
            self.length_columns = needed;
            self.bytes.truncate(self.length_at);
            self.bytes.resize(self.length_at + needed, b' ');
            self.bytes.extend_from_slice(b"\r\n\r\n");
        }
        let columns = self.length_at..self.length_at + self.length_columns;
        if let Some(slot) = self.bytes.get_mut(columns) {
            slot.copy_from_slice(&digits[digits.len() - self.length_columns..]);
        }
    }
}

/// Writes the id over another one, whose hyphens stay: eight digits at a time, a fifth of what a digit at a time costs.
fn put_id(slot: &mut [u8; UUID_LEN], id: Uuid) {
    let id = id.as_u128();
    let [a, b, c, d] = [96, 64, 32, 0].map(|shift| hex((id >> shift) as u32));
    slot[..8].copy_from_slice(&a);
    slot[9..13].copy_from_slice(&b[..4]);
    slot[14..18].copy_from_slice(&b[4..]);
    slot[19..23].copy_from_slice(&c[..4]);
    slot[24..28].copy_from_slice(&c[4..]);
    slot[28..].copy_from_slice(&d);
}

/// The eight lower-case digits of a number.
fn hex(number: u32) -> [u8; 8] {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let pairs = (u64::from(number) | u64::from(number) << 16) & 0x0000_ffff_0000_ffff;
    let bytes = (pairs | pairs << 8) & 0x00ff_00ff_00ff_00ff;
    let digits = (bytes | bytes << 4) & (0x0f * EACH);
    // One in each byte whose digit is a letter.
    let letters = ((digits + 6 * EACH) >> 4) & EACH;
    (digits + u64::from(b'0') * EACH + letters * u64::from(b'a' - b'9' - 1)).to_be_bytes()
}

fn put(bytes: &mut Vec<u8>, name: &str, value: &str) {
    let tame = |b: u8| {
        if matches!(b, b'\r' | b'\n' | 0) { b' ' } else { b }
    };
    bytes.extend(name.bytes().map(tame));
    bytes.extend_from_slice(b": ");
    bytes.extend(value.bytes().map(tame));
    bytes.extend_from_slice(b"\r\n");
}

/// A header whose value, an id, comes later; returns where.
fn put_blank(bytes: &mut Vec<u8>, name: &str) -> usize {
    put(bytes, name, "00000000-0000-0000-0000-000000000000");
    bytes.len() - UUID_LEN - 2
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Uuid = Uuid::from_u128(0x0123_4567_89ab_4cde_8f01_2345_6789_abcd);
    const B: Uuid = Uuid::from_u128(0xfedc_ba98_7654_4321_9edc_ba98_7654_3210);

    fn fixed(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    }

    fn affinity() -> [String; 1] {
        ["X-Session-Affinity".to_owned()]
    }

    fn patched(head: &mut Head, request: Uuid, session: Uuid, length: usize) -> String {
        String::from_utf8(head.patch(request, session, length).to_vec()).unwrap()
    }

    #[test]
    fn a_head_is_laid_out_and_patched() {
        let headers = fixed(&[("User-Agent", "maser/1"), ("Accept", "text/event-stream")]);
        let mut head = Head::new("POST", "/v1/x?y=1", "h:8000", ("X-Correlation-ID", &affinity()), &headers);
        let want = |request: &str, session: &str, length: &str| {
            format!(
                "POST /v1/x?y=1 HTTP/1.1\r\nHost: h:8000\r\nX-Request-ID: {request}\r\nX-Correlation-ID: {session}\r\n\
                 User-Agent: maser/1\r\nAccept: text/event-stream\r\nX-Session-Affinity: {session}\r\n\
                 Content-Length: {length}\r\n\r\n"
            )
        };
        let (a, b) = (A.to_string(), B.to_string());
        assert_eq!(patched(&mut head, A, B, 1234), want(&a, &b, "      1234"));
        assert_eq!(patched(&mut head, B, A, 0), want(&b, &a, "         0"));
        assert_eq!(patched(&mut head, A, B, 9_999_999_999), want(&a, &b, "9999999999"));
        assert_eq!(patched(&mut head, A, B, usize::MAX), want(&a, &b, "18446744073709551615"));
        assert_eq!(patched(&mut head, A, B, 7), want(&a, &b, "                   7"));
    }

    #[test]
    fn a_fixed_header_never_doubles_a_reserved_one() {
        let headers = fixed(&[
            ("host", "other"),
            ("x-request-id", "mine"),
            ("X-Session", "s"),
            ("x-session-affinity", "gone"),
            ("content-length", "5"),
        ]);
        let mut head = Head::new("POST", "/", "h", ("x-session", &affinity()), &headers);
        assert_eq!(
            patched(&mut head, A, B, 3),
            format!(
                "POST / HTTP/1.1\r\nhost: other\r\nx-request-id: mine\r\nX-Session: s\r\nX-Session-Affinity: {B}\r\n\
                 Content-Length:          3\r\n\r\n"
            )
        );
        let mut head = Head::new("POST", "/", "h", ("x-session-affinity", &affinity()), &[]);
        assert_eq!(patched(&mut head, A, B, 3).matches("ffinity").count(), 1);
    }

    #[test]
    fn a_session_is_named_in_as_many_headers_as_are_wanted() {
        let wanted = ["X-Session-ID", "X-SMG-Routing-Key"].map(str::to_owned);
        let headers = fixed(&[("x-session-id", "gone"), ("X-Session-Affinity", "mine")]);
        let mut head = Head::new("POST", "/", "h", ("X-C", &wanted), &headers);
        for (request, session) in [(A, B), (B, A)] {
            assert_eq!(
                patched(&mut head, request, session, 3),
                format!(
                    "POST / HTTP/1.1\r\nHost: h\r\nX-Request-ID: {request}\r\nX-C: {session}\r\nX-Session-Affinity: mine\r\n\
                     X-Session-ID: {session}\r\nX-SMG-Routing-Key: {session}\r\nContent-Length:          3\r\n\r\n"
                )
            );
        }
        let mut head = Head::new("POST", "/", "h", ("x-session-id", &wanted), &[]);
        let once = patched(&mut head, A, B, 3);
        assert_eq!((once.matches(&B.to_string()).count(), once.contains("x-session-id")), (2, false));
    }

    #[test]
    fn no_value_ends_the_head() {
        let mut head = Head::new("POST", "/", "h", ("C", &[]), &fixed(&[("A", "x\r\n\r\ny\0")]));
        let text = patched(&mut head, A, B, 3);
        assert_eq!(text.find("\r\n\r\n"), Some(text.len() - 4));
        assert!(text.contains("A: x    y \r\n"));
    }
}
