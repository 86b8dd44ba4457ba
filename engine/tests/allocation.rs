//! In steady state the timing core and the executors allocate nothing, whatever they are sent; and however much an answer
//! is, what they hold of it has a bound.
//!
//! The allocator counts what one thread allocates while it is armed. Both parts run here, over a wire that answers at
//! once; rings are emptied as the collector would, which is not counted.

use maser_engine::clock::{Instant, MICRO, MILLI, Nanos, SECOND};
use maser_engine::credit::{Claims, Issued, Progress, StopSignal};
use maser_engine::endpoint::{self, Splice};
use maser_engine::executor::{Ends, Executor};
use maser_engine::net::{ConnId, Events, Part, Sent, Wire};
use maser_engine::plan::{
    Balance, Capture, History, Phase, Plan, Requests, RequestsBuilder, Reuse, Sampling, Target, Turn,
};
use maser_engine::record::{Outcome, Payload, Record, flag};
use maser_engine::ring::{self, FrameConsumer};
use maser_engine::schedule::{Gaps, LimitCurve, Ramp, RampStrategy, RateCurve, Spec};
use maser_engine::timing::{Lane, ORDERS, Timing};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

thread_local! {
    static ARMED: Cell<bool> = const { Cell::new(false) };
    static COUNT: Cell<u64> = const { Cell::new(0) };
    /// Bytes that this thread has allocated and not freed, and the most there were.
    static LIVE: Cell<i64> = const { Cell::new(0) };
    static PEAK: Cell<i64> = const { Cell::new(0) };
}

struct Counting;

fn count(bytes: usize) {
    if ARMED.get() {
        COUNT.set(COUNT.get() + 1);
    }
    held(bytes as i64);
}

fn held(bytes: i64) {
    LIVE.set(LIVE.get() + bytes);
    PEAK.set(PEAK.get().max(LIVE.get()));
}

// SAFETY: every call is passed on to the system's allocator as it came; counting touches no memory of the heap.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        held(-(layout.size() as i64));
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both exist while one is copied into the other, at worst.
        count(size);
        held(-(layout.size() as i64));
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations that `f` makes.
fn allocations(f: impl FnOnce()) -> u64 {
    COUNT.set(0);
    ARMED.set(true);
    f();
    ARMED.set(false);
    COUNT.get()
}

/// A wire on which everything happens at once, and its clock.
#[derive(Clone)]
struct Prompt(Rc<PromptState>);

struct PromptState {
    now: Cell<Instant>,
    opening: RefCell<VecDeque<ConnId>>,
    asked: RefCell<VecDeque<ConnId>>,
    closed: Cell<Option<ConnId>>,
}

impl Prompt {
    fn new(start: Instant) -> Self {
        let queue = || RefCell::new(VecDeque::with_capacity(8192));
        Self(Rc::new(PromptState { now: Cell::new(start), opening: queue(), asked: queue(), closed: Cell::new(None) }))
    }
}

impl Wire for Prompt {
    fn now(&self) -> Instant {
        self.0.now.get()
    }

    fn connect(&mut self, conn: ConnId, _to: SocketAddr) {
        self.0.opening.borrow_mut().push_back(conn);
    }

    fn send(&mut self, conn: ConnId, _head: &[u8], _body: &[u8]) -> io::Result<Sent> {
        self.0.asked.borrow_mut().push_back(conn);
        Ok(Sent { first: self.now(), last: Some(self.now()) })
    }

    fn close(&mut self, conn: ConnId) {
        self.0.closed.set(Some(conn));
    }
}

/// One timing core and one executor, driven by hand.
struct Bench {
    wire: Prompt,
    timing: Timing,
    executor: Executor<Prompt>,
    records: FrameConsumer<Record>,
    progress: Arc<Progress>,
    payload: Vec<u8>,
    answer: Vec<u8>,
    /// Reads an answer comes in; the cuts wander.
    reads: usize,
    cut: usize,
    /// Time from one turn to the next.
    step: Nanos,
    failed: u64,
}

impl Bench {
    fn new(schedule: Spec, concurrency: Option<u32>, answer: Vec<u8>, reads: usize, step: Nanos) -> Self {
        Self::of(schedule, concurrency, answer, reads, step, |_| {})
    }

    fn of(
        schedule: Spec,
        concurrency: Option<u32>,
        answer: Vec<u8>,
        reads: usize,
        step: Nanos,
        change: impl FnOnce(&mut Plan),
    ) -> Self {
        let start = Instant(SECOND);
        let wire = Prompt::new(start);
        let mut plan = plan(schedule, concurrency);
        change(&mut plan);
        let plan = Arc::new(plan);
        let (tell, orders) = ring::ring(ORDERS);
        let (frames, records) = ring::frames_and_more(8192, 8 << 20, 128 << 20);
        let (marks, _) = ring::ring(1);
        let progress = Arc::new(Progress::new(1));
        let claims = Arc::new(Claims::new(1, 1));
        let lane = Lane::new(tell, progress.clone(), None);
        let timing = Timing::new(
            plan.clone(),
            vec![lane],
            marks,
            Arc::<Issued>::default(),
            Arc::<StopSignal>::default(),
            claims.clone(),
        );
        let ends = Ends { orders, records: frames, progress: progress.clone(), claims };
        let executor = Executor::new(plan, 0, wire.clone(), ends, 10_000);
        let payload = Vec::with_capacity(1 << 16);
        Self { wire, timing, executor, records, progress, payload, answer, reads, cut: 0, step, failed: 0 }
    }

    /// Runs until so many requests have finished.
    fn run_until(&mut self, finished: u64) {
        let before = self.progress.total(|c| &c.finished);
        let mut rounds = 0;
        while self.progress.total(|c| &c.finished) < finished {
            self.round();
            rounds += 1;
            assert!(rounds < 100 * (finished - before) + 10_000, "no progress");
        }
    }

    fn round(&mut self) {
        let now = self.wire.now().after(self.step);
        self.wire.0.now.set(now);
        self.timing.turn(now);
        self.executor.turn(now);
        while let Some(conn) = self.next_opening() {
            self.executor.connected(conn, Ok(1), now);
        }
        // What is asked for meanwhile is answered in the next round.
        let asked = self.wire.0.asked.borrow().len();
        for _ in 0..asked {
            self.answer_one();
        }
        while let Some(record) = self.pop() {
            self.failed += u64::from(record.outcome() != Outcome::Ok);
        }
    }

    /// The connection on which the next request was sent.
    fn asked(&mut self) -> ConnId {
        for _ in 0..1000 {
            if let Some(conn) = self.wire.0.asked.borrow_mut().pop_front() {
                return conn;
            }
            let now = self.wire.now().after(self.step);
            self.wire.0.now.set(now);
            self.timing.turn(now);
            self.executor.turn(now);
            while let Some(conn) = self.next_opening() {
                self.executor.connected(conn, Ok(1), now);
            }
        }
        panic!("nothing is asked");
    }

    /// Gives `bytes` in reads of 64 KiB; returns whether the client still listens.
    fn give(&mut self, conn: ConnId, bytes: &[u8]) -> bool {
        for read in bytes.chunks(64 << 10) {
            let now = self.wire.now().after(MICRO);
            self.wire.0.now.set(now);
            self.executor.received(conn, read, now);
            if self.wire.0.closed.take() == Some(conn) {
                return false;
            }
        }
        true
    }

    fn next_opening(&self) -> Option<ConnId> {
        self.wire.0.opening.borrow_mut().pop_front()
    }

    fn answer_one(&mut self) {
        let Some(conn) = self.wire.0.asked.borrow_mut().pop_front() else { return };
        let len = self.answer.len();
        let mut from = 0;
        for read in 1..=self.reads {
            self.cut = (self.cut + 7919) % 97;
            let to = if read == self.reads { len } else { (read * len / self.reads + self.cut).min(len - 1) };
            if from < to {
                let now = self.wire.now().after(MICRO);
                self.wire.0.now.set(now);
                self.executor.received(conn, &self.answer[from..to], now);
                from = to;
            }
        }
    }

    fn pop(&mut self) -> Option<Record> {
        self.payload.clear();
        self.records.pop(&mut self.payload)
    }

    /// Allocations of `n` requests after a warm-up of `warm`, in which the thread is late now and then: every slot that
    /// the limit allows has been in use.
    fn measure(mut self, warm: u64, n: u64) -> u64 {
        for part in 1..=10 {
            self.wire.0.now.set(self.wire.now().after(100 * self.step));
            self.run_until(warm * part / 10);
        }
        let count = allocations(|| self.run_until(warm + n));
        assert_eq!(self.failed, 0, "the answers are good ones");
        count
    }
}

fn plan(schedule: Spec, concurrency: Option<u32>) -> Plan {
    let mut requests = RequestsBuilder::new(&std::env::temp_dir()).unwrap();
    for n in 0..7 {
        requests.push(format!("{{\"n\":{n},\"prompt\":\"{}\"}}", "x".repeat(200 * n)).as_bytes()).unwrap();
    }
    Plan {
        phases: vec![Phase { schedule, concurrency: concurrency.map(LimitCurve::constant), ..Phase::default() }],
        targets: vec![Target {
            addrs: vec!["127.0.0.1:8000".parse().unwrap()],
            host: "here".to_owned(),
            path: "/v1/chat/completions".to_owned(),
            correlation_header: "X-Correlation-ID".to_owned(),
            session_headers: vec!["X-Session-Affinity".to_owned()],
            headers: vec![("Content-Type".to_owned(), "application/json".to_owned())],
        }],
        balance: Balance::RoundRobin,
        reuse: Reuse::Pooled,
        sampling: Sampling::Sequential,
        endpoint: endpoint::Kind::Chat,
        requests: requests.finish().unwrap().into(),
        capture: Capture { text: true, gaps: true, raw: false },
        response_field: None,
        follow_ups: maser_engine::endpoint::FollowUps::default(),
        request_timeout: Some(60 * SECOND),
        transport: maser_engine::plan::Transport::default(),
        preconnect: false,
        run_key: 1,
        seed: 1,
    }
}

/// A stream of events in chunks.
fn stream(keep_alive: bool) -> Vec<u8> {
    let mut events = String::from(": hello\n\n");
    for n in 0..20 {
        let name = if n < 3 { "reasoning_content" } else { "content" };
        let delta = format!("{{\"{name}\":\"tok\\u00e9n\\n {n} \"}}");
        events.push_str(&format!("data: {{\"id\":\"chatcmpl\",\"choices\":[{{\"index\":0,\"delta\":{delta}}}]}}\n\n"));
    }
    events.push_str(
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":20}}\n\ndata: [DONE]\n\n",
    );
    let connection = if keep_alive { "" } else { "Connection: close\r\n" };
    let mut bytes =
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{connection}Transfer-Encoding: chunked\r\n\r\n");
    for piece in events.as_bytes().chunks(100) {
        bytes.push_str(&format!("{:x}\r\n{}\r\n", piece.len(), std::str::from_utf8(piece).unwrap()));
    }
    bytes.push_str("0\r\n\r\n");
    bytes.into_bytes()
}

fn whole() -> Vec<u8> {
    let body = "{\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"so\"}}]}";
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

#[test]
fn a_closed_loop_of_streams_allocates_nothing() {
    let bench = Bench::new(Spec::ClosedLoop, Some(32), stream(true), 9, 100 * MICRO);
    assert_eq!(bench.measure(600, 1500), 0);
}

#[test]
fn a_connection_for_each_request_allocates_nothing() {
    let bench = Bench::new(Spec::ClosedLoop, Some(16), stream(false), 3, 100 * MICRO);
    assert_eq!(bench.measure(600, 1000), 0);
}

#[test]
fn scheduled_streams_allocate_nothing() {
    let ramp = Ramp { duration: 100 * MILLI, strategy: RampStrategy::Exponential };
    let ramped = Spec::Varying(Gaps::Gamma(4.0), RateCurve::constant(20_000.0).ramped(&ramp, 0));
    for schedule in [Spec::Constant(20_000.0), Spec::Poisson(20_000.0), ramped] {
        let bench = Bench::new(schedule.clone(), Some(64), stream(true), 5, 100 * MICRO);
        assert_eq!(bench.measure(4000, 1000), 0, "{schedule:?}");
    }
}

/// An optimised build issues a million; without optimisation that takes too long, and a hundred thousand must do.
#[test]
fn a_million_scheduled_credits_take_no_memory() {
    let n = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };
    let bench = Bench::new(Spec::Poisson(500_000.0), None, whole(), 1, 50 * MICRO);
    assert_eq!(bench.measure(20_000, n), 0, "queues, slots and rings stay as they are");
}

#[test]
fn a_schedule_that_outruns_its_limit_takes_no_memory() {
    let bench = Bench::new(Spec::Constant(1e6), Some(2), whole(), 1, 50 * MICRO);
    assert_eq!(bench.measure(10_000, 20_000), 0, "what cannot be sent is kept back, not heaped up");
}

#[test]
fn sessions_allocate_nothing_once_their_buffers_have_grown() {
    for schedule in [Spec::ClosedLoop, Spec::Constant(20_000.0)] {
        let sessions = |plan: &mut Plan| plan.requests = sessions().into();
        let bench = Bench::of(schedule.clone(), Some(16), stream(true), 3, 100 * MICRO, sessions);
        assert_eq!(bench.measure(3000, 2000), 0, "{schedule:?}");
    }
}

/// Sessions of three turns with a history and a moment to think.
fn sessions() -> Requests {
    let mut requests = RequestsBuilder::new(&std::env::temp_dir()).unwrap();
    for n in 0..5 {
        requests.begin_session();
        for _ in 0..3 {
            let own = "x".repeat(100 * n);
            let body = format!("{{\"messages\":[\"{own}\"]}}");
            let splice = Splice { at: 13, end: 15 + own.len() as u32, ..Splice::NONE };
            let turn = Turn { splice, history: History::OwnAndReply, delay: 300 * MICRO, ..Turn::default() };
            requests.push_turn(body.as_bytes(), turn).unwrap();
        }
    }
    requests.finish().unwrap()
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(vec![1u8; 100]))), 1);
}

const STREAM: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";

fn event(text: &str) -> String {
    format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n")
}

fn json(text: &str) -> Vec<u8> {
    let body = format!("{{\"choices\":[{{\"message\":{{\"content\":\"{text}\"}}}}]}}");
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// One request at a time, and what the thread holds before the first.
fn one_by_one(raw: bool) -> (Bench, i64) {
    let bench = Bench::of(Spec::ClosedLoop, Some(1), whole(), 1, 100 * MICRO, |plan| plan.capture.raw = raw);
    PEAK.set(LIVE.get());
    (bench, LIVE.get())
}

const MIB: i64 = 1 << 20;

#[test]
fn an_answer_of_ten_megabytes_is_recorded_whole() {
    let text = "word ".repeat(2 << 20);
    let (mut bench, before) = one_by_one(true);
    for answer in [json(&text), whole()] {
        let conn = bench.asked();
        assert!(bench.give(conn, &answer));
        let record = bench.pop().expect("a record");
        assert_eq!((record.outcome(), record.flags & flag::PAYLOAD_LOST), (Outcome::Ok, 0));
        let payload = Payload::parse(&bench.payload);
        assert!(Payload::is_whole(&bench.payload));
        let pieces: usize = payload.pieces().map(|(_, piece)| piece.len()).sum();
        assert_eq!(pieces, record.bytes_received as usize);
        assert!(payload.text == text.as_bytes() || payload.text == b"so");
    }
    bench.payload = Vec::new();
    assert!(LIVE.get() - before < 64 * MIB, "{} MiB stay", (LIVE.get() - before) / MIB);
}

#[test]
fn a_text_beyond_the_bound_is_cut_with_a_mark_and_its_buffers_are_freed() {
    let (mut bench, before) = one_by_one(false);
    let conn = bench.asked();
    let answer = json(&"\\n€".repeat(20_000_000));
    assert!(bench.give(conn, &answer));
    let record = bench.pop().expect("a record");
    assert_eq!((record.outcome(), record.flags & (flag::PAYLOAD_LOST | flag::TEXT_CUT)), (Outcome::Ok, flag::TEXT_CUT));
    let text = Payload::parse(&bench.payload).text;
    assert!(text.len() <= 16 << 20 && text.len() > 12 << 20, "{} bytes", text.len());
    assert!(std::str::from_utf8(text).unwrap().chars().all(|c| c == '\n' || c == '€'));
    drop(answer);
    bench.payload = Vec::new();
    assert!(LIVE.get() - before < 64 * MIB, "{} MiB stay", (LIVE.get() - before) / MIB);
    let conn = bench.asked();
    assert!(bench.give(conn, &whole()), "and the next answer is as any other");
    assert_eq!(bench.pop().map(|record| (record.outcome(), record.flags & flag::TEXT_CUT)), Some((Outcome::Ok, 0)));
}

#[test]
fn a_stream_without_end_fails_at_its_bound_in_bounded_memory() {
    let (mut bench, _) = one_by_one(false);
    let conn = bench.asked();
    assert!(bench.give(conn, STREAM));
    let event = event(&"x".repeat(60 << 10));
    let mut given = 0u64;
    while bench.give(conn, event.as_bytes()) {
        given += event.len() as u64;
        assert!(given < 2 << 30, "it is read for ever");
    }
    let record = bench.pop().expect("a record");
    assert_eq!(record.outcome(), Outcome::Malformed);
    assert!(record.has(flag::TEXT_CUT) && record.bytes_received > 1 << 30);
    let payload = Payload::parse(&bench.payload);
    let said = std::str::from_utf8(payload.error).unwrap();
    assert_eq!(said, "the response goes on beyond 1 GiB; it was not read to its end");
    assert!(payload.text.len() <= 16 << 20, "{} bytes", payload.text.len());
    assert!(PEAK.get() < 160 * MIB, "{} MiB at most", PEAK.get() / MIB);
    let conn = bench.asked();
    assert!(bench.give(conn, &whole()));
    assert_eq!(bench.pop().map(|record| record.outcome()), Some(Outcome::Ok));
}

#[test]
fn a_body_without_end_fails_and_an_error_page_without_end_keeps_its_status() {
    for (head, outcome, said) in [
        ("HTTP/1.1 200 OK\r\n\r\n", Outcome::Malformed, "the response body is larger than 256 MiB"),
        ("HTTP/1.1 500 So\r\n\r\n", Outcome::HttpStatus, "xxxx"),
    ] {
        let (mut bench, _) = one_by_one(false);
        let conn = bench.asked();
        assert!(bench.give(conn, head.as_bytes()));
        let piece = vec![b'x'; 1 << 20];
        let given = (0..400).take_while(|_| bench.give(conn, &piece)).count();
        assert!(given < 300, "{given} MiB are read");
        let record = bench.pop().expect("a record");
        assert_eq!(record.outcome(), outcome);
        let error = Payload::parse(&bench.payload).error;
        assert!(error.starts_with(said.as_bytes()) && error.len() <= 4096, "{} bytes", error.len());
    }
}

#[test]
fn a_million_gaps_are_recorded_and_many_more_are_cut_with_a_mark() {
    let (mut bench, _) = one_by_one(false);
    let event = event("a").into_bytes();
    for (events, is_cut) in [(1_000_000, false), (9_000_000, true)] {
        // Each gap is a byte, since reads are a microsecond apart; without optimisation the second takes too long.
        if is_cut && cfg!(debug_assertions) {
            continue;
        }
        let conn = bench.asked();
        assert!(bench.give(conn, STREAM));
        let many = event.repeat(1000);
        for _ in 0..events / 1000 {
            assert!(bench.give(conn, &many));
        }
        let now = bench.wire.now();
        bench.executor.closed(conn, Ok(()), now);
        let record = bench.pop().expect("a record");
        let gaps = Payload::parse(&bench.payload).gaps().count();
        assert_eq!((record.outcome(), record.chunks), (Outcome::Ok, events));
        assert_eq!((record.has(flag::TEXT_CUT), gaps == events as usize - 1), (is_cut, !is_cut), "{gaps}");
    }
}

#[test]
fn whatever_fails_at_once_keeps_its_error_text() {
    const REQUESTS: usize = 300;
    let mut bench = Bench::of(Spec::ClosedLoop, Some(REQUESTS as u32), whole(), 1, 100 * MICRO, |plan| {
        plan.capture.raw = true;
        let mut requests = RequestsBuilder::new(&std::env::temp_dir()).unwrap();
        requests.push(&vec![b'x'; 1 << 20]).unwrap();
        plan.requests = requests.finish().unwrap().into();
    });
    let conns: Vec<ConnId> = (0..REQUESTS).map(|_| bench.asked()).collect();
    let now = bench.wire.now();
    for conn in conns {
        bench.executor.received(conn, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", now);
        bench.executor.closed(conn, Ok(()), now);
    }
    let (mut whole, mut lost) = (0, 0);
    while let Some(record) = bench.pop() {
        let payload = Payload::parse(&bench.payload);
        assert_eq!(record.outcome(), Outcome::Truncated);
        assert!(payload.error.starts_with(b"the server closed the connection"), "{}", payload.error.escape_ascii());
        assert_eq!(record.has(flag::PAYLOAD_LOST), payload.sent.is_empty());
        *if payload.sent.is_empty() { &mut lost } else { &mut whole } += 1;
    }
    assert!(lost > 0 && whole > 100 && lost + whole >= REQUESTS, "{lost} lost, {whole} whole");
}
