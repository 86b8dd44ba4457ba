//! The built-in server over real sockets, read by a client that shares no code with it.

use maser_datasets::tokens::Tokenizer;
use maser_engine::clock::{self, MILLI};
use maser_engine::credit::StopSignal;
use maser_engine::net::direct;
use maser_engine::net::probe::{self, Driver, Io};
use maser_engine::serve::{BindError, Config, Counts, Fault, Server, token};
use serde_json::{Value, json};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

#[path = "serve/dialects.rs"]
mod dialects;

/// A test that would wait for ever fails instead.
const PATIENCE: Duration = Duration::from_secs(60);

/// What this host allows: readiness, and rings where they can be had. What is left out is printed; under
/// `MASER_REQUIRE_URING=1` it fails the test.
fn ways() -> Vec<Io> {
    if let Some(why) = direct::refusal() {
        assert!(std::env::var_os("MASER_REQUIRE_URING").is_none_or(|v| v != "1"), "{why}");
        eprintln!("skipped the direct ring: {why}");
    }
    let mut ways = vec![Io::Runtime(Driver::Epoll), Io::Runtime(probe::best_driver()), probe::best()];
    ways.dedup();
    ways
}

/// Runs a server with each I/O while `client` talks to it; the log lines and counts of the last.
fn serve(mut config: Config, client: impl Fn(SocketAddr)) -> (Vec<Value>, Counts) {
    let mut last = None;
    for io in ways() {
        let dir = tempfile::tempdir().unwrap();
        config.log = Some(dir.path().join("truth.jsonl"));
        let server = Server::bind(config.clone()).unwrap();
        let address = server.local_addr();
        let stop = Arc::new(StopSignal::default());
        let stopped = Stop(stop.clone());
        let thread = std::thread::spawn(move || server.run(io, false, None, stop));
        client(address);
        drop(stopped);
        let counts = thread.join().unwrap().unwrap();
        let text = std::fs::read_to_string(dir.path().join("truth.jsonl")).unwrap();
        let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert!(text.is_empty() || text.ends_with('\n'));
        assert_eq!(lines.len() as u64, counts.requests);
        last = Some((lines, counts));
    }
    last.unwrap()
}

/// Stops the server even if the client fails.
struct Stop(Arc<StopSignal>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.raise();
    }
}

struct Client {
    socket: TcpStream,
    unread: Vec<u8>,
}

/// A response as it came.
struct Response {
    status: u16,
    head: String,
    body: Vec<u8>,
    /// Its framing said that it was complete.
    whole: bool,
}

impl Response {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The data of all events; `Err` for those that are no JSON.
    fn events(&self) -> Vec<Result<Value, String>> {
        let text = String::from_utf8(self.body.clone()).unwrap();
        let data = text.split("\n\n").filter_map(|e| e.trim_start_matches('\n').strip_prefix("data: "));
        data.map(|d| serde_json::from_str(d).map_err(|_| d.to_owned())).collect()
    }

    /// The contents of the events that bear any.
    fn contents(&self) -> Vec<String> {
        let content = |e: Value| e["choices"][0]["delta"]["content"].as_str().map(str::to_owned);
        let contents = self.events().into_iter().flatten().filter_map(content);
        contents.filter(|c| !c.is_empty()).collect()
    }
}

impl Client {
    fn new(to: SocketAddr) -> Self {
        let socket = TcpStream::connect(to).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, unread: Vec::new() }
    }

    fn send(&mut self, bytes: &str) {
        self.socket.write_all(bytes.as_bytes()).unwrap();
    }

    /// Reads more; `false` at the end.
    fn more(&mut self) -> io::Result<bool> {
        let mut buffer = [0u8; 8192];
        let n = loop {
            match self.socket.read(&mut buffer) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        self.unread.extend_from_slice(&buffer[..n]);
        Ok(n > 0)
    }

    fn take(&mut self, n: usize) -> Vec<u8> {
        self.unread.drain(..n).collect()
    }

    /// Takes up to and with `end`.
    fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.unread.windows(end.len()).position(|w| w == end) {
                return Some(self.take(at + end.len()));
            }
            if !self.more().unwrap() {
                return None;
            }
        }
    }

    fn response(&mut self) -> Response {
        let head = String::from_utf8(self.until(b"\r\n\r\n").expect("a response")).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let field = |name: &str| head.lines().find_map(|l| l.strip_prefix(name)).map(str::to_owned);
        let mut body = Vec::new();
        let whole = match field("Content-Length: ") {
            Some(length) => self.exactly(length.parse().unwrap(), &mut body),
            None if status == 100 => true,
            None => {
                assert_eq!(field("Transfer-Encoding: ").as_deref(), Some("chunked"));
                self.chunks(&mut body)
            }
        };
        Response { status, head, body, whole }
    }

    fn exactly(&mut self, n: usize, body: &mut Vec<u8>) -> bool {
        while self.unread.len() < n {
            if !self.more().unwrap() {
                body.append(&mut self.unread);
                return false;
            }
        }
        body.extend(self.take(n));
        true
    }

    fn chunks(&mut self, body: &mut Vec<u8>) -> bool {
        loop {
            let Some(line) = self.until(b"\r\n") else { return false };
            let size = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim_end(), 16).unwrap();
            if !self.exactly(size, body) || self.until(b"\r\n").is_none() {
                return false;
            }
            if size == 0 {
                return true;
            }
        }
    }

    fn ask(&mut self, request: &str) -> Response {
        self.send(request);
        self.response()
    }

    /// Everything up to the end of the connection.
    fn rest(&mut self) -> io::Result<Vec<u8>> {
        while self.more()? {}
        Ok(std::mem::take(&mut self.unread))
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")
}

fn chat(id: &str, fields: Value) -> String {
    let mut body = json!({"model": "mock", "messages": [{"role": "user", "content": "hello"}]});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let body = body.to_string();
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Request-ID: {id}\r\nX-Correlation-ID: session-{id}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn text(tokens: u32) -> String {
    (0..tokens).map(token).collect()
}

#[test]
fn the_text_of_n_tokens_is_n_tokens() {
    let tokenizer = Tokenizer::builtin();
    for n in [1, 2, 97, 98, 1000] {
        assert_eq!(tokenizer.count(&text(n)), n as usize);
    }
}

#[test]
fn a_stream_is_made_of_its_tokens_and_then_the_usage() {
    serve(Config { ttft: MILLI, itl: MILLI / 10, ..Config::default() }, |to| {
        let fields = json!({"stream": true, "max_tokens": 25, "stream_options": {"include_usage": true}});
        let response = Client::new(to).ask(&chat("a", fields));
        assert_eq!(response.status, 200);
        assert!(response.whole && response.head.contains("Content-Type: text/event-stream"));
        let events = response.events();
        assert_eq!(events.len(), 1 + 25 + 1 + 1 + 1);
        let event = |k: usize| events[k].clone().unwrap();
        assert_eq!(event(0)["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
        let contents: Vec<String> = (0..25).map(|k| token(k).to_owned()).collect();
        assert_eq!(response.contents(), contents);
        assert_eq!(event(26)["choices"][0]["finish_reason"], "length");
        assert_eq!(event(27)["choices"], json!([]));
        assert_eq!(event(27)["usage"]["completion_tokens"], 25);
        assert_eq!(events[28], Err("[DONE]".into()));
        for k in 0..28 {
            assert_eq!(event(k)["id"], event(0)["id"]);
            assert_eq!(event(k)["object"], "chat.completion.chunk");
            assert_eq!(event(k)["model"], "mock");
        }
    });
}

#[test]
fn without_being_asked_for_there_is_no_usage_and_the_length_is_the_configured_one() {
    serve(Config { osl: 3, tokens_per_chunk: 2, ..Config::default() }, |to| {
        let response = Client::new(to).ask(&chat("a", json!({"stream": true})));
        assert_eq!(response.contents(), [" the of", " and"]);
        assert!(!String::from_utf8_lossy(&response.body).contains("usage"));
        assert!(response.whole && response.body.ends_with(b"data: [DONE]\n\n"));
    });
}

#[test]
fn a_whole_answer_has_its_text_and_usage() {
    serve(Config::default(), |to| {
        let response = Client::new(to).ask(&chat("a", json!({"max_completion_tokens": 200})));
        assert_eq!(response.status, 200);
        let answer = response.json();
        assert_eq!(answer["object"], "chat.completion");
        assert_eq!(answer["choices"][0]["message"], json!({"role": "assistant", "content": text(200)}));
        let usage = &answer["usage"];
        assert_eq!(usage["completion_tokens"], 200);
        let sum = usage["prompt_tokens"].as_u64().unwrap() + 200;
        assert_eq!(usage["total_tokens"], sum);
        let seconds = clock::wall() / clock::SECOND;
        assert!(answer["created"].as_u64().unwrap().abs_diff(seconds) < 3600);
    });
}

#[test]
fn other_paths_answer_on_the_same_connection() {
    let models = vec!["one".into(), "a \"b\"".into()];
    serve(Config { models, ..Config::default() }, |to| {
        let mut client = Client::new(to);
        assert_eq!(client.ask(&get("/health")).status, 200);
        let models = client.ask(&get("/v1/models?limit=3")).json();
        let ids: Vec<_> = models["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap()).collect();
        assert_eq!(ids, ["one", "a \"b\""]);
        let nowhere = client.ask(&get("/v1/nowhere"));
        assert_eq!((nowhere.status, &nowhere.json()["error"]["code"]), (404, &json!(404)));
        let method = client.ask(&get("/v1/chat/completions"));
        assert_eq!(method.status, 405);
        assert!(method.head.contains("Allow: POST\r\n"));
        let model = client.ask(&chat("m", json!({})));
        assert_eq!(
            (model.status, model.json()["error"]["message"].as_str()),
            (404, Some("the model `mock` does not exist"))
        );
        let named = client.ask(&chat("n", json!({"model": "a \"b\""})));
        assert_eq!(named.json()["model"], "a \"b\"");
        client.send("HEAD /nowhere HTTP/1.1\r\n\r\n");
        let head = client.until(b"\r\n\r\n").unwrap();
        assert!(head.starts_with(b"HTTP/1.1 404 "));
        let broken = client.ask("POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 1\r\n\r\n{");
        assert_eq!(broken.status, 400);
        assert_eq!(client.ask(&get("/health")).status, 200, "the connection outlives a wrong body");
        assert_eq!(client.ask("no request\r\n\r\n").status, 400);
        assert_eq!(client.rest().unwrap(), b"", "and ends with a wrong head");
    });
}

#[test]
fn a_body_may_come_in_chunks_and_wait_for_leave() {
    serve(Config::default(), |to| {
        let mut client = Client::new(to);
        let interim = client
            .ask("POST /v1/chat/completions HTTP/1.1\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert_eq!(interim.status, 100);
        client.send("10\r\n{\"messages\":[],\"\r\n");
        let response = client.ask("10\r\nmax_tokens\": 4 }\r\n0\r\n\r\n");
        assert_eq!(response.json()["choices"][0]["message"]["content"], text(4));
    });
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let (lines, counts) = serve(Config { ttft: MILLI, itl: MILLI / 10, ..Config::default() }, |to| {
        let mut client = Client::new(to);
        let requests: String = (1..=20u32)
            .map(|n| chat(&n.to_string(), json!({"max_tokens": n, "stream": n % 2 == 0})) + &get("/health"))
            .collect();
        client.send(&requests);
        for n in 1..=20u32 {
            let response = client.response();
            let content = if n % 2 == 0 {
                response.contents().concat()
            } else {
                response.json()["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
            };
            assert_eq!(content, text(n));
            assert_eq!(client.response().status, 200);
        }
        drop(client);
    });
    assert_eq!((counts.connections, counts.max_in_flight), (1, 1));
    let order: Vec<_> = lines.iter().map(|l| l["nreq"].as_u64().unwrap()).collect();
    assert_eq!(order, (0..40).collect::<Vec<u64>>());
}

#[test]
fn the_log_tells_what_was_received() {
    let config = Config { ttft: MILLI, itl: MILLI / 10, tokens_per_chunk: 3, ..Config::default() };
    let (lines, counts) = serve(config.clone(), |to| {
        let (mut one, mut two) = (Client::new(to), Client::new(to));
        for n in 1..=10u32 {
            let client = if n % 2 == 0 { &mut one } else { &mut two };
            let response = client.ask(&chat(&n.to_string(), json!({"max_tokens": n, "stream": n != 5})));
            if n != 5 {
                assert_eq!(response.contents().concat(), text(n));
                assert_eq!(response.contents().len(), n.div_ceil(3) as usize);
            }
        }
    });
    assert_eq!(lines.len(), 10);
    for (n, line) in (1..=10u64).zip(&lines) {
        assert_eq!(line["rid"], n.to_string());
        assert_eq!(line["cid"], format!("session-{n}"));
        assert_eq!(line["ntok"], n);
        assert_eq!((&line["status"], &line["outcome"], &line["fault"]), (&json!(200), &json!("ok"), &Value::Null));
        assert_eq!((&line["stream"], &line["path"]), (&json!(n != 5), &json!("/v1/chat/completions")));
        let at = |field: &str| line[field].as_u64().unwrap();
        assert!(at("accept") <= at("first") && at("first") <= at("hdr"));
        assert!(at("hdr") <= at("body") && at("body") < at("end"));
        let chunks: Vec<u64> = line["ck"].as_array().unwrap().iter().map(|c| c.as_u64().unwrap()).collect();
        assert_eq!(chunks.len() as u64, if n == 5 { 1 } else { n.div_ceil(3) });
        for (k, chunk) in chunks.iter().enumerate() {
            let k = if n == 5 { 4 } else { 3 * k as u64 };
            assert!(*chunk >= config.ttft + k * config.itl, "no token leaves before it is due");
        }
        assert!(chunks.is_sorted() && at("body") + chunks.last().unwrap() <= at("end"));
    }
    assert_eq!((counts.requests, counts.tokens, counts.connections), (10, 55, 2));
}

/// A server where every chat request meets `fault`, and its one log line.
fn failing(fault: Fault, client: impl Fn(&mut Client)) -> Value {
    let (lines, counts) = serve(Config { faults: vec![(fault, 1.0)], ..Config::default() }, |to| {
        client(&mut Client::new(to));
    });
    assert_eq!((counts.requests, counts.faults), (1, 1));
    assert_eq!(lines[0]["fault"], fault.name());
    lines[0].clone()
}

fn said(line: &Value) -> (u64, u64, &str) {
    (line["status"].as_u64().unwrap(), line["ntok"].as_u64().unwrap(), line["outcome"].as_str().unwrap())
}

#[test]
fn faulty_statuses() {
    for stream in [false, true] {
        let line = failing(Fault::Http500, |client| {
            let response = client.ask(&chat("a", json!({"stream": stream})));
            assert_eq!((response.status, &response.json()["error"]["code"]), (500, &json!(500)));
        });
        assert_eq!(said(&line), (500, 0, "ok"));
        let line = failing(Fault::Http429, |client| {
            let response = client.ask(&chat("a", json!({"stream": stream})));
            assert_eq!(response.status, 429);
            assert!(response.head.contains("Retry-After: 1\r\n"));
        });
        assert_eq!(said(&line), (429, 0, "ok"));
    }
}

#[test]
fn faulty_resets() {
    let line = failing(Fault::Reset, |client| {
        client.send(&chat("a", json!({"stream": true})));
        assert_eq!(client.rest().map_err(|e| e.kind()), Err(ErrorKind::ConnectionReset));
        assert!(client.unread.is_empty());
    });
    assert_eq!(said(&line), (0, 0, "reset"));
}

#[test]
fn faulty_closes() {
    let line = failing(Fault::Close, |client| {
        let response = client.ask(&chat("a", json!({"stream": true, "max_tokens": 9})));
        assert!(!response.whole);
        assert_eq!(response.contents().concat(), text(4));
        assert_eq!(client.rest().unwrap(), b"");
    });
    assert_eq!(said(&line), (200, 4, "closed"));
    let line = failing(Fault::Close, |client| {
        let response = client.ask(&chat("a", json!({"max_tokens": 9})));
        assert!(!response.whole);
        assert!(response.body.ends_with(format!("\"content\":\"{}", text(4)).as_bytes()));
    });
    assert_eq!(said(&line), (200, 4, "closed"));
}

#[test]
fn faulty_json() {
    let line = failing(Fault::Malformed, |client| {
        let response = client.ask(&chat("a", json!({"stream": true, "max_tokens": 9})));
        assert!(response.whole);
        assert_eq!(response.contents().concat(), text(9));
        let broken: Vec<usize> =
            response.events().iter().enumerate().filter(|(_, e)| e.is_err()).map(|(k, _)| k).collect();
        assert_eq!(broken, [1 + 4, 1 + 9 + 1 + 1], "one in the middle, and [DONE]");
    });
    assert_eq!(said(&line), (200, 9, "ok"));
    let line = failing(Fault::Malformed, |client| {
        let response = client.ask(&chat("a", json!({"max_tokens": 9})));
        assert!(response.whole && serde_json::from_slice::<Value>(&response.body).is_err());
    });
    assert_eq!(said(&line), (200, 9, "ok"));
}

#[test]
fn faulty_events() {
    let line = failing(Fault::ErrorEvent, |client| {
        let response = client.ask(&chat("a", json!({"stream": true, "max_tokens": 9})));
        assert!(response.whole && response.status == 200);
        assert_eq!(response.contents().concat(), text(4));
        let events = response.events();
        assert_eq!(events[1 + 4].as_ref().unwrap()["error"]["code"], 500);
        assert_eq!(events[1 + 4 + 1], Err("[DONE]".into()));
        assert_eq!(events.len(), 7);
    });
    assert_eq!(said(&line), (200, 4, "ok"));
    let line = failing(Fault::ErrorEvent, |client| {
        let response = client.ask(&chat("a", json!({"max_tokens": 9})));
        assert!(response.whole && response.status == 200);
        assert_eq!(response.json()["error"]["code"], 500);
    });
    assert_eq!(said(&line), (200, 0, "ok"));
}

#[test]
fn a_faulty_silence_lasts_until_the_server_stops() {
    let hung = std::sync::Mutex::new(Vec::new());
    let (lines, counts) = serve(Config { faults: vec![(Fault::Hang, 1.0)], ..Config::default() }, |to| {
        let mut client = Client::new(to);
        client.send(&chat("a", json!({})));
        // The request is in the server once another connection, opened later, has been answered twice.
        let mut other = Client::new(to);
        for _ in 0..2 {
            assert_eq!(other.ask(&get("/health")).status, 200);
        }
        hung.lock().unwrap().push(client);
    });
    for mut client in hung.into_inner().unwrap() {
        assert_eq!(client.rest().unwrap(), b"", "the connection ends without a byte");
    }
    assert_eq!((counts.requests, counts.max_in_flight), (3, 2));
    let line = lines.iter().find(|l| l["rid"] == "a").unwrap();
    assert_eq!((said(line), &line["fault"]), ((0, 0, "server_closed"), &json!("hang")));
}

#[test]
fn a_client_that_leaves_in_mid_stream_is_logged() {
    let (lines, counts) = serve(Config { itl: 3_600_000 * MILLI, ..Config::default() }, |to| {
        let mut client = Client::new(to);
        client.send(&chat("a", json!({"stream": true, "max_tokens": 2})));
        client.until(b"\" the\"").unwrap();
        client.socket.shutdown(std::net::Shutdown::Both).unwrap();
        drop(client);
        // Its end has been seen once a connection opened after it has been answered twice.
        let mut other = Client::new(to);
        for _ in 0..2 {
            assert_eq!(other.ask(&get("/health")).status, 200);
        }
    });
    let line = lines.iter().find(|l| l["rid"] == "a").unwrap();
    assert_eq!(said(line), (200, 1, "client_closed"));
    assert_eq!(line["ck"].as_array().unwrap().len(), 1);
    assert_eq!((counts.inferences, counts.client_closed), (1, 1));
}

#[test]
fn the_same_seed_gives_the_same_faults() {
    let faults = vec![(Fault::Http500, 0.3), (Fault::Http429, 0.3)];
    let drawn = |seed| {
        let (lines, _) = serve(Config { faults: faults.clone(), seed, ..Config::default() }, |to| {
            let mut client = Client::new(to);
            for n in 0..40u32 {
                client.ask(&chat(&n.to_string(), json!({"max_tokens": 1})));
            }
        });
        lines.iter().map(|l| l["status"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let first = drawn(1);
    assert_eq!(first, drawn(1));
    assert_ne!(first, drawn(2));
    assert!([200, 429, 500].iter().all(|s| first.contains(s)));
}

#[test]
fn a_port_that_is_taken_and_a_log_that_cannot_be_are_told_apart() {
    let first = Server::bind(Config::default()).unwrap();
    let taken = Config { port: first.local_addr().port(), ..Config::default() };
    assert!(matches!(Server::bind(taken), Err(BindError::Address(e)) if e.kind() == ErrorKind::AddrInUse));
    let log = Config { log: Some("/nowhere/at/all".into()), ..Config::default() };
    assert!(matches!(Server::bind(log), Err(BindError::Log(e)) if e.kind() == ErrorKind::NotFound));
}

#[test]
fn after_its_end_nobody_listens() {
    let address = std::cell::Cell::new(None);
    serve(Config::default(), |to| {
        assert_eq!(Client::new(to).ask(&get("/health")).status, 200);
        address.set(Some(to));
    });
    let refused = TcpStream::connect(address.get().unwrap()).map_err(|e| e.kind());
    assert_eq!(refused.err(), Some(ErrorKind::ConnectionRefused));
}
