//! Requests of several exchanges over a network worked by hand: every answer, pause and fault at its time.

use maser_engine::clock::{Instant, MILLI, Nanos, SECOND};
use maser_engine::credit::{Claims, Credit, Order, Progress};
use maser_engine::endpoint::{FollowUps, Kind};
use maser_engine::executor::{Ends, Executor};
use maser_engine::net::{ConnId, Events, Part, Sent, Wire};
use maser_engine::plan::{Balance, Capture, Phase, Plan, RequestsBuilder, Reuse, Sampling, Target};
use maser_engine::record::{Outcome, Payload, Record, flag};
use maser_engine::ring::{self, FrameConsumer, Producer};
use maser_engine::schedule::Spec;
use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

const PAUSE: Nanos = 100 * MILLI;
const QUEUED: &str = r#"{"id":"v1","status":"queued"}"#;
const WORKING: &str = r#"{"id":"v1","status":"in_progress","progress":50}"#;
const DONE: &str = r#"{"id":"v1","status":"completed","progress":100}"#;

/// What was asked of the network.
#[derive(Debug, Default)]
struct Net {
    now: Nanos,
    connects: Vec<ConnId>,
    sent: Vec<(ConnId, String)>,
    closed: Vec<ConnId>,
    /// Sends find no room for the last byte.
    is_full: bool,
    /// The server saw nothing of what was sent on the connection that is ending.
    unseen: bool,
}

#[derive(Debug, Clone, Default)]
struct ByHand(Rc<RefCell<Net>>);

impl Wire for ByHand {
    fn now(&self) -> Instant {
        Instant(self.0.borrow().now)
    }

    fn connect(&mut self, conn: ConnId, _: SocketAddr) {
        self.0.borrow_mut().connects.push(conn);
    }

    fn send(&mut self, conn: ConnId, head: &[u8], body: &[u8]) -> io::Result<Sent> {
        let mut net = self.0.borrow_mut();
        let text = String::from_utf8([head, body].concat()).unwrap();
        net.sent.push((conn, text));
        let last = (!net.is_full).then_some(Instant(net.now));
        Ok(Sent { first: Instant(net.now), last })
    }

    fn close(&mut self, conn: ConnId) {
        self.0.borrow_mut().closed.push(conn);
    }

    fn was_unseen(&self, _: ConnId) -> bool {
        self.0.borrow().unseen
    }
}

/// One executor that has one request to send.
struct Bench {
    net: ByHand,
    executor: Executor<ByHand>,
    records: FrameConsumer<Record>,
    _orders: Producer<Order>,
}

impl Bench {
    fn new(fetch: bool, reuse: Reuse, raw: bool) -> Self {
        let mut builder = RequestsBuilder::new(&std::env::temp_dir()).unwrap();
        builder.push(b"FORM").unwrap();
        let target = Target {
            addrs: vec!["127.0.0.1:1".parse().unwrap()],
            host: "here:1".to_owned(),
            path: "/v1/videos?v=2".to_owned(),
            correlation_header: "X-Correlation-ID".to_owned(),
            session_headers: vec!["X-Session-Affinity".to_owned()],
            headers: [("Content-Type", "multipart/form-data"), ("Accept", "application/json"), ("X-Mine", "1")]
                .map(|(n, v)| (n.to_owned(), v.to_owned()))
                .to_vec(),
        };
        let plan = Arc::new(Plan {
            phases: vec![Phase { schedule: Spec::Constant(1.0), ..Phase::default() }],
            targets: vec![target],
            balance: Balance::RoundRobin,
            reuse,
            sampling: Sampling::Sequential,
            endpoint: Kind::VideoGeneration,
            response_field: None,
            follow_ups: FollowUps { every: PAUSE, fetch },
            requests: builder.finish().unwrap().into(),
            capture: Capture { text: false, gaps: false, raw },
            request_timeout: Some(SECOND),
            transport: maser_engine::plan::Transport::default(),
            preconnect: false,
            run_key: 7,
            seed: 7,
        });
        let net = ByHand::default();
        let (mut orders, taken) = ring::ring(16);
        let (put, records) = ring::frames(4, 1 << 16);
        let ends = Ends {
            orders: taken,
            records: put,
            progress: Arc::new(Progress::new(1)),
            claims: Arc::new(Claims::new(1, 1)),
        };
        orders.push(Order::Phase { phase: 0, start: Instant(1), stop_at: Instant::NEVER }).unwrap();
        orders.push(Order::Credit(Credit { seq: 0, due: Instant(MILLI), request: 0, turns: 1, phase: 0 })).unwrap();
        let executor = Executor::new(plan, 0, net.clone(), ends, 8);
        let mut bench = Self { net, executor, records, _orders: orders };
        bench.turn(MILLI);
        bench
    }

    /// Time goes on to `at`; when the executor wants its next turn.
    fn turn(&mut self, at: Nanos) -> Nanos {
        self.net.0.borrow_mut().now = at;
        self.executor.turn(Instant(at)).at.0
    }

    /// The connection asked for last comes to stand.
    fn connect(&mut self) {
        let conn = *self.net.0.borrow().connects.last().unwrap();
        let now = self.net.now();
        self.executor.connected(conn, Ok(5000), now);
    }

    /// The last thing sent, and on what.
    fn last(&self) -> (ConnId, String) {
        self.net.0.borrow().sent.last().unwrap().clone()
    }

    fn sent(&self) -> usize {
        self.net.0.borrow().sent.len()
    }

    /// An answer to what was sent last, after `wait`; when the executor wants a turn.
    fn answer(&mut self, wait: Nanos, status: u16, body: &str) -> Nanos {
        self.net.0.borrow_mut().now += wait;
        let (conn, now) = (self.last().0, self.net.now());
        let answer = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let (head, rest) = answer.as_bytes().split_at(answer.len() / 2);
        self.executor.received(conn, head, now);
        self.executor.received(conn, rest, now).0
    }

    fn close(&mut self, conn: ConnId) {
        let now = self.net.now();
        self.executor.closed(conn, Ok(()), now);
    }

    /// The server had closed the connection before it got what was sent last.
    fn close_unseen(&mut self, conn: ConnId) {
        self.net.0.borrow_mut().unseen = true;
        self.close(conn);
        self.net.0.borrow_mut().unseen = false;
    }

    /// Turns from `at` on until something is sent.
    fn go_on(&mut self, mut at: Nanos) {
        let sent = self.sent();
        for _ in 0..3 {
            if self.sent() == sent {
                at = self.turn(at);
            }
        }
    }

    /// The one record there must be, and its payload.
    #[track_caller]
    fn record(&mut self) -> (Record, Vec<u8>) {
        let mut payload = Vec::new();
        let record = self.records.pop(&mut payload).expect("a record");
        assert!(self.records.is_empty());
        assert_eq!(self.executor.in_flight(), 0);
        (record, payload)
    }

    /// Submitted at 1 ms, answered at 3 ms, on a connection that is free again.
    fn submitted(fetch: bool) -> Self {
        let mut bench = Self::new(fetch, Reuse::Pooled, false);
        bench.connect();
        assert!(bench.last().1.ends_with("\r\n\r\nFORM"));
        // First the connection has to show that it stands.
        let stands = bench.answer(2 * MILLI, 200, QUEUED);
        assert!(stands < 3 * MILLI + PAUSE);
        assert_eq!(bench.turn(stands), 3 * MILLI + PAUSE);
        assert!(bench.records.is_empty());
        bench
    }
}

#[test]
fn a_job_is_asked_for_until_it_is_done_and_is_one_record() {
    let mut bench = Bench::submitted(false);
    let first = bench.last();
    assert_eq!(bench.turn(2 * MILLI + PAUSE).min(4 * PAUSE), 3 * MILLI + PAUSE, "not before its time");
    assert_eq!(bench.sent(), 1);
    bench.turn(3 * MILLI + PAUSE);
    let (conn, head) = bench.last();
    assert_eq!(conn, first.0, "the connection that stood idle meanwhile");
    assert!(head.starts_with("GET /v1/videos/v1?v=2 HTTP/1.1\r\nHost: here:1\r\n"), "{head}");
    assert!(head.contains("\r\nX-Mine: 1\r\n") && head.contains("\r\nAccept: application/json\r\n"), "{head}");
    assert!(!head.contains("Content-") && head.ends_with("\r\n\r\n"), "{head}");
    let id = |text: &str| text.lines().find(|line| line.starts_with("X-Request-ID")).unwrap().to_owned();
    assert_eq!(id(&head), id(&first.1));
    assert_eq!(bench.answer(MILLI, 200, WORKING), 4 * MILLI + 2 * PAUSE);
    bench.turn(4 * MILLI + 2 * PAUSE);
    bench.answer(MILLI, 200, DONE);
    assert_eq!(bench.sent(), 3);
    let (record, payload) = bench.record();
    assert_eq!((record.outcome(), record.status, record.units, record.chunks), (Outcome::Ok, 200, 1, 1));
    let done = 5 * MILLI + 2 * PAUSE;
    assert_eq!([record.start, record.sent, record.send_end].map(|t| t.0), [MILLI; 3]);
    assert_eq!((record.first_byte.0, record.first_token.0, record.done.0), (3 * MILLI, done, done));
    let all: usize = [QUEUED, WORKING, DONE].iter().map(|body| body.len()).sum();
    assert_eq!((record.bytes_received as usize, record.flags), (all, flag::SCHEDULED));
    let sent: usize = bench.net.0.borrow().sent.iter().map(|(_, text)| text.len()).sum();
    assert_eq!(record.bytes_sent as usize, sent);
    assert!(payload.is_empty());
}

#[test]
fn a_finished_job_is_fetched_and_its_file_is_timed() {
    for (done, path) in [
        (DONE.to_owned(), "/v1/videos/v1/content?v=2"),
        (DONE.replace('}', r#","url":"/files/1"}"#), "/files/1"),
        (DONE.replace('}', r#","url":"http://HERE:1/files/2"}"#), "/files/2"),
    ] {
        let mut bench = Bench::submitted(true);
        bench.turn(3 * MILLI + PAUSE);
        let now = 4 * MILLI + PAUSE;
        assert_eq!(bench.answer(MILLI, 200, &done), now, "at once");
        bench.turn(now);
        let head = bench.last().1;
        assert!(head.starts_with(&format!("GET {path} HTTP/1.1\r\n")) && !head.contains("Accept"), "{head}");
        bench.answer(6 * MILLI, 200, "not JSON");
        let (record, _) = bench.record();
        assert_eq!((record.outcome(), record.chunks, record.units), (Outcome::Ok, 1, 1));
        assert_eq!((record.last_token.0, record.done.0), (now, now + 6 * MILLI));
    }
    // One that is not there, and one that is elsewhere.
    for (done, outcome, said) in [
        (DONE.to_owned(), Outcome::HttpStatus, "gone"),
        (
            DONE.replace('}', r#","url":"http://there/1"}"#),
            Outcome::Malformed,
            "which is at another server than here:1",
        ),
        (DONE.replace('}', r#","url":"/a b"}"#), Outcome::Malformed, "which is no address"),
    ] {
        let mut bench = Bench::submitted(true);
        bench.turn(3 * MILLI + PAUSE);
        bench.answer(MILLI, 200, &done);
        bench.turn(4 * MILLI + PAUSE);
        if outcome == Outcome::HttpStatus {
            bench.answer(MILLI, 404, "gone");
        }
        let (record, payload) = bench.record();
        let text = String::from_utf8_lossy(Payload::parse(&payload).error).into_owned();
        assert_eq!(record.outcome(), outcome, "{text}");
        assert!(text.contains(said), "{text}");
    }
}

#[test]
fn what_fails_on_the_way_fails_the_request() {
    for (status, body, outcome, said) in [
        (200, r#"{"id":"v1","status":"failed","error":{"message":"no"}}"#, Outcome::InStream, "no"),
        (200, "nonsense", Outcome::Malformed, "nonsense"),
        (200, r#"{"status":"queued"}"#, Outcome::Malformed, "has no id"),
        (503, "later", Outcome::HttpStatus, "later"),
    ] {
        for polls in 0..3 {
            let mut bench = Bench::new(true, Reuse::Pooled, false);
            bench.connect();
            for _ in 0..polls {
                let at = bench.answer(MILLI, 200, WORKING);
                bench.go_on(at);
            }
            bench.answer(MILLI, status, body);
            let (record, payload) = bench.record();
            let text = String::from_utf8_lossy(Payload::parse(&payload).error).into_owned();
            assert_eq!((record.outcome(), record.status), (outcome, status), "{text}");
            assert!(text.contains(said), "{text}");
        }
    }
}

/// An answer that says no more than where to go, and when the executor wants a turn.
fn send_on(bench: &mut Bench, wait: Nanos, status: u16, location: &str) -> Nanos {
    bench.net.0.borrow_mut().now += wait;
    let (conn, now) = (bench.last().0, bench.net.now());
    let answer = format!("HTTP/1.1 {status} X\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
    bench.executor.received(conn, answer.as_bytes(), now).0
}

#[test]
fn a_redirect_to_the_same_server_is_followed_once() {
    for (location, path) in [("http://HERE:1/v2?w=1", "/v2?w=1"), ("/v2/", "/v2/"), ("films", "/v1/films")] {
        let mut bench = Bench::new(false, Reuse::Never, false);
        bench.connect();
        let at = send_on(&mut bench, 2 * MILLI, 307, location);
        bench.turn(at);
        bench.connect();
        let sent = bench.last().1;
        assert!(sent.starts_with(&format!("POST {path} HTTP/1.1")), "{sent}");
        assert!(sent.contains("X-Mine: 1") && sent.ends_with("\r\n\r\nFORM"), "{sent}");
        bench.answer(MILLI, 200, DONE);
        let (record, _) = bench.record();
        assert_eq!((record.outcome(), record.status), (Outcome::Ok, 200));
        assert_eq!(record.flags, flag::SCHEDULED | flag::REDIRECTED);
        assert_eq!((record.start.0, record.lost, record.sent.0), (MILLI, 2 * MILLI, 3 * MILLI), "the server's time");
    }
}

#[test]
fn other_redirects_are_failures_that_say_where_they_lead() {
    for (status, location, why) in [
        (307, "http://there:1/v2", "which is at another server than here:1"),
        (308, "https://here:1/v2", "which is at another server"),
        (307, "//there/v2", "which is at another server"),
        (308, "", "without saying where"),
        (301, "/v2", "and asks for a GET there"),
        (303, "http://here:1/v2", "and asks for a GET there"),
    ] {
        let mut bench = Bench::new(false, Reuse::Pooled, false);
        bench.connect();
        send_on(&mut bench, MILLI, status, location);
        let (record, payload) = bench.record();
        let text = String::from_utf8_lossy(Payload::parse(&payload).error).into_owned();
        assert_eq!((record.outcome(), record.status), (Outcome::HttpStatus, status));
        assert!(text.contains(location) && text.contains(why) && text.contains("-u"), "{text}");
    }
    let mut bench = Bench::new(false, Reuse::Never, false);
    bench.connect();
    let at = send_on(&mut bench, MILLI, 308, "/a");
    bench.turn(at);
    bench.connect();
    send_on(&mut bench, MILLI, 308, "/b");
    let (_, payload) = bench.record();
    let text = String::from_utf8_lossy(Payload::parse(&payload).error).into_owned();
    assert!(text.contains("/b, a second time"), "{text}");
}

#[test]
fn a_connection_closed_in_a_pause_is_replaced_and_one_closed_in_an_answer_is_not() {
    // Between exchanges nobody holds it.
    let mut bench = Bench::submitted(false);
    bench.close(bench.last().0);
    bench.turn(3 * MILLI + PAUSE);
    assert_eq!((bench.sent(), bench.net.0.borrow().connects.len()), (1, 2));
    bench.connect();
    bench.answer(MILLI, 200, DONE);
    let (record, _) = bench.record();
    assert_eq!((record.outcome(), record.flags, record.connecting), (Outcome::Ok, flag::SCHEDULED, 0));
    // Found dead as the next exchange begins, twice: each exchange has an attempt to spare.
    let mut bench = Bench::submitted(false);
    bench.turn(3 * MILLI + PAUSE);
    bench.close_unseen(bench.last().0);
    bench.connect();
    let at = bench.answer(MILLI, 200, WORKING);
    bench.go_on(at);
    bench.close_unseen(bench.last().0);
    bench.connect();
    assert_eq!(bench.sent(), 5);
    bench.answer(MILLI, 200, DONE);
    let (record, _) = bench.record();
    assert_eq!((record.outcome(), record.flags), (Outcome::Ok, flag::SCHEDULED | flag::RETRIED));
    assert_eq!([record.sent, record.send_end].map(|t| t.0), [MILLI; 2], "the submission stays what it was");
    // The server had the request, and closed.
    let mut bench = Bench::submitted(false);
    bench.turn(3 * MILLI + PAUSE);
    bench.close(bench.last().0);
    assert_eq!(bench.record().0.outcome(), Outcome::Reset);
    // Within an answer.
    let mut bench = Bench::submitted(false);
    bench.turn(3 * MILLI + PAUSE);
    let (conn, now) = (bench.last().0, bench.net.now());
    bench.executor.received(conn, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", now);
    bench.close(conn);
    assert_eq!(bench.record().0.outcome(), Outcome::Truncated);
    // No new one can be had.
    let mut bench = Bench::submitted(false);
    bench.close(bench.last().0);
    bench.turn(3 * MILLI + PAUSE);
    let (conn, now) = (*bench.net.0.borrow().connects.last().unwrap(), bench.net.now());
    bench.executor.connected(conn, Err(io::ErrorKind::ConnectionRefused.into()), now);
    assert_eq!(bench.record().0.outcome(), Outcome::Connect);
}

#[test]
fn time_and_the_end_of_the_run_cut_a_request_in_its_pause_and_in_its_exchanges() {
    for answered in [false, true] {
        let mut bench = Bench::submitted(false);
        bench.turn(3 * MILLI + PAUSE);
        if answered {
            bench.answer(MILLI, 200, WORKING);
        }
        bench.turn(SECOND + 2 * MILLI);
        let (record, _) = bench.record();
        assert_eq!((record.outcome(), record.done.0), (Outcome::Timeout, SECOND + 2 * MILLI));
        // Its timer finds another tenant of its slot, or none.
        let sent = bench.sent();
        bench.turn(2 * SECOND);
        assert_eq!(bench.sent(), sent);
    }
    for answered in [false, true] {
        let mut bench = Bench::submitted(false);
        bench.turn(3 * MILLI + PAUSE);
        if answered {
            bench.answer(MILLI, 200, WORKING);
        }
        bench._orders.push(Order::CancelInFlight(0)).unwrap();
        bench.turn(5 * MILLI + PAUSE);
        assert_eq!(bench.record().0.outcome(), Outcome::Cancelled);
    }
}

#[test]
fn an_answer_before_the_end_of_its_question_costs_the_connection() {
    let mut bench = Bench::submitted(false);
    bench.net.0.borrow_mut().is_full = true;
    bench.turn(3 * MILLI + PAUSE);
    let conn = bench.last().0;
    bench.answer(MILLI, 200, WORKING);
    assert_eq!(bench.net.0.borrow().closed, [conn]);
    bench.turn(4 * MILLI + 2 * PAUSE);
    bench.connect();
    let (conn, now) = (bench.last().0, bench.net.now());
    bench.executor.flushed(conn, now);
    bench.answer(MILLI, 200, DONE);
    let (record, _) = bench.record();
    assert_eq!((record.outcome(), record.send_end.0), (Outcome::Ok, MILLI));
    assert_eq!(bench.net.0.borrow().closed.len(), 1, "this one is kept");
}

#[test]
fn each_exchange_has_a_connection_of_its_own_where_none_is_used_twice() {
    let mut bench = Bench::new(true, Reuse::Never, true);
    for (body, wait) in [(QUEUED, PAUSE), (DONE, 0), ("\0\0\0", 0)] {
        bench.connect();
        bench.answer(0, 200, body);
        let at = bench.net.now().0 + wait;
        bench.turn(at);
    }
    assert_eq!((bench.net.0.borrow().connects.len(), bench.net.0.borrow().closed.len()), (3, 3));
    let (record, payload) = bench.record();
    assert_eq!(record.outcome(), Outcome::Ok);
    let payload = Payload::parse(&payload);
    let kept: Vec<u8> = payload.pieces().flat_map(|(_, piece)| piece.iter().copied()).collect();
    assert_eq!((kept.as_slice(), payload.sent), (DONE.as_bytes(), &b"FORM"[..]), "the last answer that is no file");
}
