//! One HTTP request at a time, on a connection of its own, waited for: for what is asked of a server beside the load.

use maser::export::printable;
use maser_engine::clock::{self, Instant, MILLI, Nanos, SECOND};
use maser_engine::plan::Target;
use maser_engine::wire::http1::{ResponseReader, Step};
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// How long a read sleeps before it looks whether it is still wanted.
const SLICE: Nanos = 50 * MILLI;

/// The most of an answer that is kept: a list of models takes some kilobytes.
const MOST: usize = 16 << 20;

/// A request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask<'a> {
    pub(super) method: &'a str,
    /// Path and query.
    pub(super) path: &'a str,
    /// Its type, and itself.
    pub(super) body: Option<(&'a str, &'a [u8])>,
    /// What it may take, from the connect to the last byte.
    pub(super) timeout: Nanos,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    reason: String,
}

impl Answer {
    /// Whether the status says that all is well.
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The status in words, as a terminal may show them.
    pub(super) fn said(&self) -> String {
        printable(format!("{} {}", self.status, self.reason).trim_end())
    }
}

impl Ask<'_> {
    /// Sends the request to the target's first address that takes a connection, with the target's headers, and waits for
    /// the answer. Gives up early once `interrupted`.
    ///
    /// # Errors
    /// Why there is no answer, as the end of a sentence.
    pub(super) fn send(&self, target: &Target, interrupted: &dyn Fn() -> bool) -> Result<Answer, String> {
        let by = Deadline { at: clock::now().after(self.timeout), timeout: self.timeout };
        let mut stream = connect(target, &by)?;
        let lost = |e: io::Error| format!("the connection was lost: {e}");
        stream.set_nodelay(true).map_err(lost)?;
        stream.set_write_timeout(Some(by.left(Nanos::MAX)?)).map_err(lost)?;
        stream.write_all(&self.bytes(target)).map_err(|e| if would_wait(&e) { by.passed() } else { lost(e) })?;
        let mut reading = Reading::default();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            if interrupted() {
                return Err("an interrupt came first".to_owned());
            }
            stream.set_read_timeout(Some(by.left(SLICE)?)).map_err(lost)?;
            match stream.read(&mut buffer) {
                Ok(0) => return reading.end(),
                Ok(n) => {
                    if let Some(answer) = reading.take(&buffer[..n])? {
                        return Ok(answer);
                    }
                }
                Err(e) if would_wait(&e) => {}
                Err(e) => return Err(lost(e)),
            }
        }
    }

    fn bytes(&self, target: &Target) -> Vec<u8> {
        let mut head =
            format!("{} {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.method, self.path, target.host);
        let of_the_load = ["accept", "content-type"];
        for (name, value) in &target.headers {
            if !of_the_load.iter().any(|own| name.eq_ignore_ascii_case(own)) {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        if let Some((content_type, _)) = self.body {
            head.push_str(&format!("Content-Type: {content_type}\r\n"));
        }
        let body = self.body.map_or(&[][..], |(_, body)| body);
        if self.method != "GET" {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        [head.as_bytes(), body].concat()
    }
}

/// When a request has taken as long as it may.
struct Deadline {
    at: Instant,
    timeout: Nanos,
}

impl Deadline {
    /// What is left, at most `most`.
    fn left(&self, most: Nanos) -> Result<Duration, String> {
        match self.at.since(clock::now()).min(most) {
            0 => Err(self.passed()),
            left => Ok(Duration::from_nanos(left)),
        }
    }

    fn passed(&self) -> String {
        format!("no answer within {} s", self.timeout as f64 / SECOND as f64)
    }
}

fn would_wait(e: &io::Error) -> bool {
    matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

fn connect(target: &Target, by: &Deadline) -> Result<TcpStream, String> {
    let mut last = "the name has no address".to_owned();
    for addr in &target.addrs {
        match TcpStream::connect_timeout(addr, by.left(Nanos::MAX)?) {
            Ok(stream) => return Ok(stream),
            Err(e) => last = format!("cannot connect: {e}"),
        }
    }
    Err(last)
}

/// An answer on its way.
#[derive(Default)]
struct Reading {
    reader: ResponseReader,
    answer: Option<Answer>,
    /// Its end is announced.
    framed: bool,
}

impl Reading {
    /// Takes what came; returns the answer once it is complete.
    fn take(&mut self, mut bytes: &[u8]) -> Result<Option<Answer>, String> {
        loop {
            match self.reader.step(&mut bytes).map_err(|e| format!("the answer is no HTTP: {e}"))? {
                Step::Head(head) => {
                    self.framed = head.chunked || head.content_length.is_some();
                    self.answer =
                        Some(Answer { status: head.status, reason: head.reason.to_owned(), body: Vec::new() });
                }
                Step::Body(piece) => {
                    let Some(answer) = &mut self.answer else { continue };
                    if answer.body.len() + piece.len() > MOST {
                        return Err(format!("the answer is longer than {} MiB", MOST >> 20));
                    }
                    answer.body.extend_from_slice(piece);
                }
                Step::Done { .. } => return Ok(self.answer.take()),
                Step::More => return Ok(None),
            }
        }
    }

    /// The server has closed.
    fn end(mut self) -> Result<Answer, String> {
        match self.answer.take() {
            Some(answer) if !self.framed => Ok(answer),
            Some(_) => Err("the answer was cut short".to_owned()),
            None => Err("the connection was closed without an answer".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    const ASK: Ask<'static> =
        Ask { method: "POST", path: "/p?q=1", body: Some(("application/json", b"{}")), timeout: 20 * SECOND };

    /// Asks a server that answers with these bytes and closes; returns what came of it, and what the server got.
    fn asked(answer: &'static [u8], ask: Ask<'static>) -> (Result<Answer, String>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = Target {
            addrs: vec![listener.local_addr().unwrap()],
            host: "h:1".into(),
            path: "/not/asked".into(),
            correlation_header: "X-C".into(),
            session_headers: Vec::new(),
            headers: vec![("Authorization".into(), "Bearer k".into()), ("Accept".into(), "text/event-stream".into())],
        };
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut got, mut buffer) = (Vec::new(), [0; 4096]);
            while !got.ends_with(b"\r\n\r\n") && !got.ends_with(b"{}") {
                let n = stream.read(&mut buffer).unwrap();
                got.extend_from_slice(&buffer[..n]);
            }
            stream.write_all(answer).unwrap();
            got
        });
        let said = ask.send(&target, &|| false);
        (said, server.join().unwrap())
    }

    #[test]
    fn a_request_carries_the_key_and_its_answer_comes_back() {
        let (said, got) = asked(b"HTTP/1.1 503 Busy\r\nContent-Length: 3\r\n\r\nabc", ASK);
        let said = said.unwrap();
        assert_eq!((said.status, said.body.as_slice(), said.said()), (503, &b"abc"[..], "503 Busy".to_owned()));
        assert!(!said.is_success());
        let got = String::from_utf8(got).unwrap();
        assert!(got.starts_with("POST /p?q=1 HTTP/1.1\r\nHost: h:1\r\nConnection: close\r\n"), "{got}");
        assert!(got.contains("\r\nAuthorization: Bearer k\r\n") && !got.contains("event-stream"), "{got}");
        assert!(got.ends_with("\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"), "{got}");
    }

    #[test]
    fn answers_of_every_framing_are_read_and_broken_ones_are_told() {
        let get = Ask { method: "GET", body: None, ..ASK };
        let body = |answer| asked(answer, get).0.map(|a| String::from_utf8(a.body).unwrap());
        assert_eq!(body(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"), Ok("ab".into()));
        assert_eq!(body(b"HTTP/1.1 200 OK\r\n\r\nto the end"), Ok("to the end".into()));
        assert_eq!(body(b"HTTP/1.1 204 No Content\r\n\r\n"), Ok(String::new()));
        for (answer, why) in [
            (&b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab"[..], "the answer was cut short"),
            (b"", "the connection was closed without an answer"),
            (b"SSH-2.0-x\r\n\r\n", "the answer is no HTTP: "),
        ] {
            assert!(body(answer).is_err_and(|said| said.starts_with(why)), "{why}");
        }
    }

    #[test]
    fn a_server_that_says_nothing_is_left_at_the_deadline_or_the_interrupt() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = Target {
            addrs: vec![listener.local_addr().unwrap()],
            host: "h".into(),
            path: String::new(),
            correlation_header: String::new(),
            session_headers: Vec::new(),
            headers: Vec::new(),
        };
        let brief = Ask { timeout: 20 * MILLI, ..ASK };
        assert_eq!(brief.send(&target, &|| false), Err("no answer within 0.02 s".to_owned()));
        assert_eq!(ASK.send(&target, &|| true), Err("an interrupt came first".to_owned()));
        let nobody = Target { addrs: Vec::new(), ..target };
        assert_eq!(ASK.send(&nobody, &|| false), Err("the name has no address".to_owned()));
    }
}
