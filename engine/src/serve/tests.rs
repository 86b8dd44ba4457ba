//! The part under a wire and a clock that the test moves.

use super::service::Service;
use super::*;
use crate::clock::{Instant, MICRO, MILLI};
use crate::net::{ConnId, Sent, ServerWire, Wire};
use std::cell::Cell;

/// What the wire was told to do, and when.
#[derive(Debug, Clone, PartialEq)]
enum Done {
    Sent(Instant, Vec<u8>),
    EndedSending,
    Reset,
    Closed,
}

#[derive(Debug, Clone, Default)]
struct Fake {
    now: Rc<Cell<u64>>,
    done: Rc<RefCell<Vec<Done>>>,
    /// The kernel has no room.
    full: Rc<Cell<bool>>,
    /// The peer has gone.
    broken: Rc<Cell<bool>>,
}

impl Wire for Fake {
    fn now(&self) -> Instant {
        Instant(self.now.get())
    }

    fn connect(&mut self, _: ConnId, _: SocketAddr) {}

    fn send(&mut self, _: ConnId, head: &[u8], body: &[u8]) -> io::Result<Sent> {
        if self.broken.get() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let first = self.now();
        self.done.borrow_mut().push(Done::Sent(first, [head, body].concat()));
        Ok(Sent { first, last: (!self.full.get()).then_some(first) })
    }

    fn close(&mut self, _: ConnId) {
        self.done.borrow_mut().push(Done::Closed);
    }
}

impl ServerWire for Fake {
    fn end_sending(&mut self, _: ConnId) {
        self.done.borrow_mut().push(Done::EndedSending);
    }

    fn reset(&mut self, _: ConnId) {
        self.done.borrow_mut().push(Done::Reset);
    }
}

struct Bench {
    wire: Fake,
    service: Service<Fake>,
    stop: Arc<StopSignal>,
}

/// The moment at which requests arrive.
const ARRIVAL: u64 = 77 * MILLI + 13;

impl Bench {
    fn new(config: Config) -> Self {
        let (wire, stop) = (Fake::default(), Arc::new(StopSignal::default()));
        wire.now.set(ARRIVAL);
        let anchor = Anchor { mono: Instant(0), wall: 1_700_000_000_000_000_000 };
        let service = Service::new(config, wire.clone(), anchor, None, 100).until(stop.clone());
        Self { wire, service, stop }
    }

    fn connect(&mut self) -> ConnId {
        self.service.admit(Ok(self.wire.now())).unwrap()
    }

    fn hear(&mut self, conn: ConnId, request: &str) {
        let at = self.wire.now();
        self.service.received(conn, request.as_bytes(), at);
    }

    /// Moves the clock from turn to turn as the loop would, up to `until`.
    fn run_until(&mut self, until: u64) {
        loop {
            let next = self.service.turn(self.wire.now());
            if next.ended || next.at.0 > until {
                self.wire.now.set(until);
                return;
            }
            self.wire.now.set(self.wire.now.get().max(next.at.0));
        }
    }

    fn sends(&self) -> Vec<(u64, String)> {
        let done = self.wire.done.borrow();
        let sends = done.iter().filter_map(|d| match d {
            Done::Sent(at, bytes) => Some((at.0, String::from_utf8(bytes.clone()).unwrap())),
            _ => None,
        });
        sends.collect()
    }
}

fn chat(fields: &str) -> String {
    let body = format!(r#"{{"messages":[{{"role":"user","content":"hi"}}]{fields}}}"#);
    format!("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn paced() -> Config {
    Config { ttft: 20 * MILLI, itl: 5 * MILLI, ..Config::default() }
}

const CONTENT: &str = "\"delta\":{\"content\":\"";

#[test]
fn token_k_leaves_at_its_planned_time() {
    let mut bench = Bench::new(paced());
    let conn = bench.connect();
    bench.hear(conn, &chat(r#","stream":true,"max_tokens":40"#));
    bench.run_until(ARRIVAL + 10_000 * MILLI);
    let sends = bench.sends();
    assert_eq!(sends.len(), 40, "one send a token");
    for (k, (at, bytes)) in sends.iter().enumerate() {
        assert_eq!(*at, ARRIVAL + 20 * MILLI + k as u64 * 5 * MILLI);
        assert_eq!(bytes.matches(CONTENT).count(), 1);
        assert_eq!(bytes.contains("\"role\":\"assistant\""), k == 0);
        assert_eq!(bytes.contains("[DONE]"), k == 39);
    }
    assert_eq!(bench.service.counts.lateness.max(), 0);
}

#[test]
fn a_late_turn_moves_no_later_token() {
    let mut bench = Bench::new(paced());
    let conn = bench.connect();
    bench.hear(conn, &chat(r#","stream":true,"max_tokens":10"#));
    // The loop is held up over tokens 0 to 2.
    bench.wire.now.set(ARRIVAL + 31 * MILLI);
    bench.run_until(ARRIVAL + 1_000 * MILLI);
    let times: Vec<u64> = bench.sends().iter().map(|(at, _)| (at - ARRIVAL) / MILLI).collect();
    assert_eq!(times, [31, 35, 40, 45, 50, 55, 60, 65], "what is due goes out together, the rest at its time");
    assert_eq!(bench.sends()[0].1.matches(CONTENT).count(), 3);
    let late = bench.service.counts.lateness.max();
    assert!(late.abs_diff(11 * MILLI) < 20 * MICRO, "{late}");
}

#[test]
fn chunks_of_several_tokens_are_due_with_their_first() {
    let mut bench = Bench::new(Config { tokens_per_chunk: 4, ..paced() });
    let conn = bench.connect();
    bench.hear(conn, &chat(r#","stream":true,"max_tokens":10"#));
    bench.run_until(ARRIVAL + 1_000 * MILLI);
    let times: Vec<u64> = bench.sends().iter().map(|(at, _)| (at - ARRIVAL) / MILLI).collect();
    assert_eq!(times, [20, 40, 60]);
    assert!(bench.sends()[2].1.contains(&format!("{CONTENT}{}{}\"", token(8), token(9))));
}

fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Milliseconds from the arrival of a request to each send of its answer.
fn times(config: Config, request: &str) -> Vec<u64> {
    let mut bench = Bench::new(config);
    let conn = bench.connect();
    bench.hear(conn, request);
    bench.run_until(ARRIVAL + 10_000 * MILLI);
    bench.sends().iter().map(|(at, _)| (at - ARRIVAL) / MILLI).collect()
}

#[test]
fn what_is_not_made_of_tokens_leaves_when_a_first_token_would() {
    let table: [(&str, &str, &[u64]); 6] = [
        ("/v1/embeddings", r#"{"input":["a","b"]}"#, &[20]),
        ("/rerank", r#"{"query":"q","texts":["a","b"]}"#, &[20]),
        ("/v1/images/generations", r#"{"prompt":"a"}"#, &[20]),
        ("/v1/images/generations", r#"{"prompt":"a","stream":true,"partial_images":2}"#, &[20, 25, 30]),
        ("/v1/completions", r#"{"prompt":["a","b"],"stream":true,"max_tokens":3}"#, &[20, 25, 30]),
        ("/reset_prefix_cache", "", &[0]),
    ];
    for (path, body, want) in table {
        assert_eq!(times(paced(), &post(path, body)), want, "{path} {body}");
    }
    let mut video = post("/v1/videos", r#"{"prompt":"a"}"#);
    video.insert_str(video.find("Content-Length").unwrap(), "Content-Type: application/json\r\n");
    assert_eq!(times(paced(), &video), [0], "a video is only begun");
}

#[test]
fn no_event_is_both_reasoning_and_text() {
    let config = Config { tokens_per_chunk: 4, reasoning: 6, ..paced() };
    assert_eq!(times(config, &chat(r#","stream":true,"max_tokens":11"#)), [20, 40, 50, 70]);
}

#[test]
fn a_whole_answer_leaves_with_its_last_token() {
    let mut bench = Bench::new(paced());
    let conn = bench.connect();
    bench.hear(conn, &chat(r#","max_tokens":9"#));
    bench.run_until(ARRIVAL + 1_000 * MILLI);
    let sends = bench.sends();
    assert_eq!(sends.len(), 1);
    assert_eq!(sends[0].0, ARRIVAL + (20 + 8 * 5) * MILLI);
}

#[test]
fn what_is_due_at_once_leaves_in_few_sends() {
    let mut bench = Bench::new(Config::default());
    let conn = bench.connect();
    bench.hear(conn, &chat(r#","stream":true,"max_tokens":100"#));
    assert_eq!(bench.sends().len(), 1, "100 events go in one send");
    bench.hear(conn, &chat(r#","stream":true,"max_tokens":10000"#));
    bench.run_until(ARRIVAL + 1);
    let sends = bench.sends();
    assert!((30..60).contains(&sends.len()), "{} sends of about 64 KiB", sends.len());
    assert!(sends.iter().all(|(_, bytes)| bytes.len() < 80 * 1024));
}

#[test]
fn a_client_that_does_not_read_holds_its_own_answer_up_and_no_other() {
    let mut bench = Bench::new(paced());
    let (slow, fast) = (bench.connect(), bench.connect());
    bench.hear(slow, &chat(r#","stream":true,"max_tokens":6"#));
    bench.hear(fast, &chat(r#","stream":true,"max_tokens":6,"model":"mock""#));
    bench.wire.full.set(true);
    bench.run_until(ARRIVAL + 22 * MILLI);
    bench.wire.full.set(false);
    let at = bench.wire.now();
    bench.service.flushed(fast, at);
    bench.run_until(ARRIVAL + 200 * MILLI);
    // Both first tokens, then five of `fast` alone.
    assert_eq!(bench.sends().len(), 2 + 5);
    let at = bench.wire.now();
    bench.service.flushed(slow, at);
    let (at, rest) = bench.sends().pop().unwrap();
    assert_eq!((at, rest.matches(CONTENT).count()), (ARRIVAL + 200 * MILLI, 5));
    assert!(rest.contains("[DONE]"));
}

#[test]
fn requests_on_a_connection_are_answered_in_order_and_wait_for_each_other() {
    let mut bench = Bench::new(paced());
    let conn = bench.connect();
    let both = chat(r#","max_tokens":1"#) + &chat(r#","max_tokens":2"#) + "GET /health HTTP/1.1\r\n\r\n";
    // Cut in the middle of the second: the rest comes while the first is being answered.
    let (now, later) = both.split_at(both.len() / 2);
    bench.hear(conn, now);
    bench.hear(conn, later);
    bench.run_until(ARRIVAL + 1_000 * MILLI);
    let sends = bench.sends();
    let times: Vec<u64> = sends.iter().map(|(at, _)| (at - ARRIVAL) / MILLI).collect();
    assert_eq!(times, [20, 45, 45]);
    assert!(sends[1].1.contains(" the of"));
    assert!(sends[2].1.contains("Content-Length: 0"));
}

#[test]
fn a_client_that_leaves_is_forgotten() {
    let mut bench = Bench::new(paced());
    let conn = bench.connect();
    bench.hear(conn, &chat(r#","stream":true,"max_tokens":6"#));
    bench.run_until(ARRIVAL + 27 * MILLI);
    let at = bench.wire.now();
    bench.service.closed(conn, Ok(()), at);
    bench.run_until(ARRIVAL + 500 * MILLI);
    assert_eq!(bench.sends().len(), 2);
    assert_eq!(bench.service.counts.client_closed, 1);
    let next = bench.connect();
    assert_eq!(next.slot, conn.slot);
    assert_ne!(next.epoch, conn.epoch);
    bench.hear(conn, "GET /health HTTP/1.1\r\n\r\n");
    assert_eq!(bench.sends().len(), 2, "the slot's earlier tenant is not heard");
}

#[test]
fn a_send_that_fails_ends_the_request() {
    let mut bench = Bench::new(paced());
    let conn = bench.connect();
    bench.hear(conn, &chat(r#","stream":true,"max_tokens":6"#));
    bench.wire.broken.set(true);
    bench.run_until(ARRIVAL + 500 * MILLI);
    assert_eq!(bench.service.counts.client_closed, 1);
    assert_eq!(bench.service.counts.tokens, 0);
    assert_eq!(bench.wire.done.borrow().as_slice(), [Done::Closed]);
}

#[test]
fn a_connection_that_ends_lingers_for_its_peer() {
    let mut bench = Bench::new(Config::default());
    let conn = bench.connect();
    bench.hear(conn, "GET /health HTTP/1.1\r\nConnection: close\r\n\r\n");
    bench.hear(conn, "GET /health HTTP/1.1\r\n\r\n");
    assert!(bench.sends()[0].1.contains("Connection: close\r\n"));
    bench.run_until(ARRIVAL + 999 * MILLI);
    assert_eq!(bench.wire.done.borrow()[1..], [Done::EndedSending]);
    bench.run_until(ARRIVAL + 1_001 * MILLI);
    assert_eq!(bench.wire.done.borrow()[1..], [Done::EndedSending, Done::Closed]);
}

#[test]
fn a_head_that_is_none_and_a_body_too_long_end_the_connection() {
    for (request, status) in [
        ("nonsense\r\n\r\n", "400 Bad Request"),
        ("POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", "413 Content Too Large"),
    ] {
        let mut bench = Bench::new(Config::default());
        let conn = bench.connect();
        bench.hear(conn, request);
        assert!(bench.sends()[0].1.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{request}");
        assert_eq!(bench.wire.done.borrow().last(), Some(&Done::EndedSending));
    }
}

#[test]
fn more_pipelined_bytes_than_can_be_held_cut_the_connection() {
    let mut bench = Bench::new(paced());
    let conn = bench.connect();
    bench.hear(conn, &chat(""));
    for _ in 0..17 {
        bench.hear(conn, &"x".repeat(64 * 1024));
    }
    assert_eq!(bench.wire.done.borrow().as_slice(), [Done::Closed]);
}

#[test]
fn no_more_connections_are_taken_than_there_is_room_for() {
    let mut bench = Bench::new(Config::default());
    let conns: Vec<_> = (0..100).map(|_| bench.connect()).collect();
    assert_eq!(bench.service.admit(Ok(Instant(ARRIVAL))), None);
    bench.service.closed(conns[7], Ok(()), Instant(ARRIVAL));
    assert!(bench.service.admit(Ok(Instant(ARRIVAL))).is_some());
    assert_eq!((bench.service.counts.connections, bench.service.counts.refused_connections), (101, 1));
}

#[test]
fn a_drain_closes_everything() {
    let mut bench = Bench::new(paced());
    let conn = bench.connect();
    bench.hear(conn, &chat(r#","stream":true"#));
    bench.run_until(ARRIVAL + 30 * MILLI);
    bench.stop.raise();
    bench.run_until(ARRIVAL + 500 * MILLI);
    assert_eq!(bench.wire.done.borrow().last(), Some(&Done::Closed));
    assert!(bench.wire.now.get() <= ARRIVAL + 500 * MILLI && bench.service.turn(Instant(ARRIVAL)).ended);
    assert_eq!(bench.service.counts.open_at_end, 1);
    assert!(bench.sends().len() <= 18, "looked at every 50 ms");
}
