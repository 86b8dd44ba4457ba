//! What it takes to receive: an executor is fed streamed chat answers, event by event, over a network that is none.
//!
//! Prints nothing but the number of events; counted with
//! `valgrind --tool=callgrind target/release/examples/receive [REQUESTS] [EVENTS]`, of which two runs with different numbers
//! of events give the instructions of one event by their difference. With 0 events each answer is one JSON value in one piece,
//! and two runs with different numbers of requests give the instructions of one request.

use maser_engine::clock::Instant;
use maser_engine::credit::{Claims, Credit, Order, Progress};
use maser_engine::endpoint::{FollowUps, Kind};
use maser_engine::executor::{Ends, Executor};
use maser_engine::net::{ConnId, Events, Part, Sent, Wire};
use maser_engine::plan::{Balance, Capture, Phase, Plan, RequestsBuilder, Reuse, Sampling, Target};
use maser_engine::ring;
use maser_engine::schedule::Spec;
use std::cell::Cell;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

/// A network that takes everything and says what it was asked for last.
#[derive(Debug, Clone, Default)]
struct Nowhere {
    asked: Rc<Cell<Option<ConnId>>>,
}

impl Wire for Nowhere {
    fn now(&self) -> Instant {
        Instant(1)
    }

    fn connect(&mut self, conn: ConnId, _: SocketAddr) {
        self.asked.set(Some(conn));
    }

    fn send(&mut self, conn: ConnId, _: &[u8], _: &[u8]) -> io::Result<Sent> {
        self.asked.set(Some(conn));
        Ok(Sent { first: Instant(1), last: Some(Instant(1)) })
    }

    fn close(&mut self, _: ConnId) {}
}

fn plan() -> Result<Plan, Box<dyn Error>> {
    let mut builder = RequestsBuilder::new(&std::env::temp_dir())?;
    builder.push(b"{}")?;
    Ok(Plan {
        phases: vec![Phase { schedule: Spec::Constant(1.0), ..Phase::default() }],
        targets: vec![Target {
            addrs: vec!["127.0.0.1:1".parse()?],
            host: "nowhere".to_owned(),
            path: Kind::Chat.path(true).to_owned(),
            correlation_header: "X-Correlation-ID".to_owned(),
            session_headers: vec!["X-Session-Affinity".to_owned()],
            headers: vec![],
        }],
        balance: Balance::RoundRobin,
        reuse: Reuse::Pooled,
        sampling: Sampling::Sequential,
        endpoint: Kind::Chat,
        response_field: None,
        follow_ups: FollowUps::default(),
        requests: builder.finish()?.into(),
        capture: Capture { text: true, gaps: true, raw: false },
        request_timeout: None,
        transport: maser_engine::plan::Transport::default(),
        preconnect: false,
        run_key: 1,
        seed: 1,
    })
}

/// A chunk of the transfer coding with one event in it.
fn chunk(data: &str) -> Vec<u8> {
    let event = format!("data: {data}\n\n");
    format!("{:x}\r\n{event}\r\n", event.len()).into_bytes()
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut numbers = std::env::args().skip(1);
    let mut number = |default: u64| numbers.next().map_or(Ok(default), |text| text.parse());
    let (requests, events): (u64, u64) = (number(100)?, number(1000)?);
    let plan = Arc::new(plan()?);
    let (mut tell, orders) = ring::ring(16);
    let (put, mut records) = ring::frames(16, 1 << 24);
    let ends = Ends { orders, records: put, progress: Progress::new(1).into(), claims: Claims::new(1, 1).into() };
    let wire = Nowhere::default();
    let mut executor = Executor::new(plan, 0, wire.clone(), ends, 4);
    let _ = tell.push(Order::Phase { phase: 0, start: Instant(1), stop_at: Instant::NEVER });
    let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let token = chunk(
        r#"{"id":"chatcmpl-01c9d3f4a5b6","object":"chat.completion.chunk","created":1763970000,"model":"llama-3.1-8b","choices":[{"index":0,"delta":{"content":" token"},"logprobs":null,"finish_reason":null}]}"#,
    );
    let end = [chunk("[DONE]"), b"0\r\n\r\n".to_vec()].concat();
    let body = r#"{"id":"chatcmpl-01c9d3f4a5b6","object":"chat.completion","created":1763970000,"model":"llama-3.1-8b","choices":[{"index":0,"message":{"role":"assistant","content":"hello from the target"},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":250,"completion_tokens":4,"total_tokens":254}}"#;
    let whole =
        format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let mut payload = Vec::new();
    for seq in 0..requests {
        let _ = tell.push(Order::Credit(Credit { seq, due: Instant(1), request: 0, turns: 1, phase: 0 }));
        executor.turn(Instant(1));
        let conn = wire.asked.get().ok_or("nothing was asked for")?;
        if seq == 0 {
            executor.connected(conn, Ok(1), Instant(1));
        }
        if events == 0 {
            executor.received(conn, whole.as_bytes(), Instant(2));
        } else {
            executor.received(conn, head, Instant(2));
            for k in 0..events {
                executor.received(conn, &token, Instant(1000 * (k + 3)));
            }
            executor.received(conn, &end, Instant(1000 * (events + 4)));
        }
        payload.clear();
        let record = records.pop(&mut payload).ok_or("no record")?;
        if u64::from(record.chunks) != events.max(1) {
            return Err(format!("{} events of {events} were read", record.chunks).into());
        }
    }
    println!("{} events", requests * events);
    Ok(())
}
