//! Load shapes through the program itself, against what servers saw: who got which request, on which connection, when.

use maser_engine::clock::{MILLI, SECOND};
use maser_engine::log::{FILE_NAME, Log};
use maser_engine::plan::Cancellation;
use maser_engine::record::{Outcome, Record};
use maser_engine::run::available_cores;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use tempfile::TempDir;

/// A server that answers at once.
const AT_ONCE: &str = "--mock=ttft=0,itl=0,osl=4,log=truth.jsonl";

/// A directory of its own for each run, and the program in it.
struct Bench(TempDir);

impl Bench {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, content: &str) {
        std::fs::write(self.path(name), content).unwrap();
    }

    fn command(&self, command: &str, arguments: &[&str]) -> Command {
        let mut maser = Command::new(env!("CARGO_BIN_EXE_maser"));
        maser.current_dir(self.0.path()).arg(command).args(arguments);
        maser.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        maser
    }

    /// `maser profile` into the directory `run`; returns what it said on standard error.
    #[track_caller]
    fn profile(&self, arguments: &[&str], code: i32) -> String {
        let all: Vec<&str> = arguments.iter().copied().chain(["--artifact-dir", "run"]).collect();
        let output = self.command("profile", &all).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{}\n{stderr}", text(&output.stdout));
        assert!(!stderr.contains("panicked"), "{stderr}");
        stderr
    }

    fn start(&self, arguments: &[&str]) -> Running {
        let all: Vec<&str> = arguments.iter().copied().chain(["--artifact-dir", "run"]).collect();
        Running::new(self.command("profile", &all).spawn().unwrap())
    }

    fn log(&self) -> Log {
        Log::open(&self.path("run").join(FILE_NAME)).unwrap()
    }

    fn records(&self) -> Vec<Record> {
        self.log().records().map(|(record, _)| record).collect()
    }

    fn digest(&self) -> String {
        let text = std::fs::read_to_string(self.path("run/profile_export_aiperf.json")).unwrap();
        let summary: Value = serde_json::from_str(&text).unwrap();
        summary["maser"]["ledger"]["schedule_digest"].as_str().unwrap().to_owned()
    }

    /// What the server of `--mock` with `log=truth.jsonl` saw.
    fn truth(&self) -> Vec<Seen> {
        truth(&self.path("truth.jsonl"))
    }
}

/// A process whose standard error is read as it comes; ended if the test fails.
struct Running {
    child: Child,
    stderr: BufReader<std::process::ChildStderr>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    fn new(mut child: Child) -> Self {
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Self { child, stderr }
    }

    /// Reads standard error up to a line with this in it.
    fn wait_for(&mut self, part: &str) {
        let (mut line, mut all) = (String::new(), String::new());
        while !line.contains(part) {
            line.clear();
            assert!(self.stderr.read_line(&mut line).unwrap() > 0, "no {part:?} in {all}");
            all.push_str(&line);
        }
    }

    fn interrupt(&self) {
        let sent = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    /// The exit code, and the rest of standard error.
    fn end(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.stderr.read_to_string(&mut rest).unwrap();
        let mut stdout = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

/// `maser serve` in a process of its own.
struct Server {
    child: Child,
    url: String,
    log: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(bench: &Bench, log: &str, options: &[&str]) -> Self {
        let all = [&["--port", "0", "--itl", "0", "--osl", "4", "--log", log][..], options].concat();
        let mut child = bench.command("serve", &all).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address = line.strip_prefix("maser serve: listening on ").and_then(|rest| rest.split(' ').next());
        Self { url: address.unwrap().to_owned(), child, log: bench.path(log) }
    }

    /// Ends it, so that its log is whole.
    fn seen(mut self) -> Vec<Seen> {
        let sent = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        assert!(sent.unwrap().success() && self.child.wait().unwrap().success());
        truth(&self.log)
    }
}

/// A request as a server saw it; times in nanoseconds since 1970.
#[derive(Debug)]
struct Seen {
    path: String,
    session: String,
    connection: u64,
    /// Its first byte came.
    first: u64,
    /// The first chunk of its answer went, if one did.
    answered: Option<u64>,
    end: u64,
    messages: u64,
}

fn truth(path: &Path) -> Vec<Seen> {
    let text = std::fs::read_to_string(path).unwrap();
    let seen = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let number = |key: &str| line[key].as_u64().unwrap();
        Seen {
            path: line["path"].as_str().unwrap().to_owned(),
            session: line["cid"].as_str().unwrap_or_default().to_owned(),
            connection: number("conn"),
            first: number("first"),
            answered: line["ck"][0].as_u64().map(|after| number("body") + after),
            end: number("end"),
            messages: number("nmsg"),
        }
    };
    text.lines().map(seen).collect()
}

/// The most of these spans that overlap. One that ends when another begins has made room for it.
fn most_at_once(spans: impl Iterator<Item = (u64, u64)>) -> i64 {
    let mut steps: Vec<(u64, i64)> = spans.flat_map(|(from, to)| [(from, 1), (to, -1)]).collect();
    steps.sort_unstable();
    let mut now = 0;
    steps.iter().map(|(_, step)| (now += step, now).1).max().unwrap_or(0)
}

fn sessions(seen: &[Seen]) -> BTreeMap<&str, Vec<&Seen>> {
    let mut all: BTreeMap<&str, Vec<&Seen>> = BTreeMap::new();
    seen.iter().for_each(|request| all.entry(&request.session).or_default().push(request));
    all
}

fn connections<'a>(seen: impl IntoIterator<Item = &'a Seen>) -> BTreeSet<u64> {
    seen.into_iter().map(|request| request.connection).collect()
}

/// Conversations of so many turns each.
fn conversations(turns: &[usize]) -> String {
    let line = |(k, n): (usize, &usize)| {
        let turns: Vec<String> = (0..*n).map(|t| format!(r#"{{"text":"c{k} t{t}"}}"#)).collect();
        format!("{{\"session_id\":\"c{k}\",\"turns\":[{}]}}\n", turns.join(","))
    };
    turns.iter().enumerate().map(line).collect()
}

const FILE: [&str; 4] = ["--input-file", "turns.jsonl", "--custom-dataset-type", "multi_turn"];

// Several servers.

#[test]
fn two_servers_take_turns_and_a_session_stays_with_its_own() {
    let bench = Bench::new();
    bench.file("turns.jsonl", &conversations(&[2, 3, 2, 3, 2, 3]));
    let (one, two) =
        (Server::start(&bench, "one.jsonl", &["--ttft", "0"]), Server::start(&bench, "two.jsonl", &["--ttft", "0"]));
    let load = ["-m", "mock", "--num-conversations", "12", "--concurrency", "3", "-u", &one.url, "-u", &two.url];
    bench.profile(&[&load[..], &FILE].concat(), 0);
    let (one, two) = (one.seen(), two.seen());
    let (of_one, of_two) = (sessions(&one), sessions(&two));
    assert_eq!((of_one.len(), of_two.len()), (6, 6));
    assert!(of_one.keys().all(|session| !of_two.contains_key(session)));
    // Every second conversation has three turns: those are the second server's.
    assert!(of_one.values().all(|turns| turns.len() == 2) && of_two.values().all(|turns| turns.len() == 3));
    let messages: Vec<u64> = of_two.values().next().unwrap().iter().map(|turn| turn.messages).collect();
    assert_eq!(messages, [1, 3, 5], "answers are in the history");
}

#[test]
fn shares_are_exact_and_the_least_busy_server_gets_the_most() {
    let bench = Bench::new();
    let (one, two) =
        (Server::start(&bench, "a1.jsonl", &["--ttft", "0"]), Server::start(&bench, "a2.jsonl", &["--ttft", "0"]));
    let both = format!("{},{}", one.url, two.url);
    let load = ["-m", "mock", "-u", &both, "--request-count", "40", "--concurrency", "4", "--isl", "8"];
    bench.profile(&[&load[..], &["--url-strategy", "weighted", "--url-weights", "3,1"]].concat(), 0);
    assert_eq!((one.seen().len(), two.seen().len()), (30, 10));

    let (fast, slow) =
        (Server::start(&bench, "b1.jsonl", &["--ttft", "0"]), Server::start(&bench, "b2.jsonl", &["--ttft", "400"]));
    let both = format!("{},{}", slow.url, fast.url);
    let load = ["-m", "mock", "-u", &both, "--request-count", "40", "--concurrency", "4", "--isl", "8", "--cores", "1"];
    bench.profile(&[&load[..], &["--url-strategy", "least-in-flight"]].concat(), 0);
    let (fast, slow) = (fast.seen().len(), slow.seen().len());
    assert!(fast + slow == 40 && fast > 2 * slow, "{fast} and {slow}");
}

#[test]
fn of_several_servers_one_that_is_gone_fails_its_own_requests() {
    let bench = Bench::new();
    let one = Server::start(&bench, "one.jsonl", &["--ttft", "0"]);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let gone = format!("http://127.0.0.1:{port}");
    let load = ["-m", "mock", "-u", &one.url, "-u", &gone, "--request-count", "20", "--isl", "8"];
    let said = bench.profile(&load, 0);
    assert!(said.contains(&format!("--url {gone}: cannot connect: ")), "{said}");
    assert_eq!(one.seen().len(), 10);
}

// Connections.

#[test]
fn connections_are_shared_as_was_asked() {
    let bench = Bench::new();
    // Time enough between the turns for the server to show that it keeps connections.
    let turn = |t: usize| format!(r#"{{"text":"t{t}","delay":{}}}"#, if t > 0 { 80 } else { 0 });
    let turns = |n: usize| (0..n).map(turn).collect::<Vec<_>>().join(",");
    let line = |n: usize| format!("{{\"session_id\":\"c{n}\",\"turns\":[{}]}}\n", turns(n));
    bench.file("turns.jsonl", &[2, 3, 4].map(line).concat());
    let load = ["--num-conversations", "6", "--concurrency", "3"];
    let seen = |reuse: &str| {
        let all = [&[AT_ONCE, "--connection-reuse-strategy", reuse][..], &load, &FILE].concat();
        bench.profile(&all, 0);
        let seen = bench.truth();
        assert_eq!(seen.len(), 18, "{reuse}");
        seen
    };
    assert_eq!(connections(&seen("never")).len(), 18);
    let pooled = connections(&seen("pooled")).len();
    assert!((1..=3).contains(&pooled), "{pooled}");
    let sticky = seen("sticky-user-sessions");
    let of_session = sessions(&sticky);
    assert_eq!((of_session.len(), connections(&sticky).len()), (6, 6));
    assert!(of_session.values().all(|turns| connections(turns.iter().copied()).len() == 1));
}

// Limits and counts.

#[test]
fn a_count_of_requests_holds_for_conversations_too() {
    let bench = Bench::new();
    bench.file("turns.jsonl", &conversations(&[3, 4, 2, 3]));
    bench.profile(&[&[AT_ONCE, "--request-count", "10", "--concurrency", "2"][..], &FILE].concat(), 0);
    assert_eq!((bench.truth().len(), bench.records().len()), (10, 10));
}

#[test]
fn never_more_requests_wait_for_their_first_token_than_allowed() {
    let bench = Bench::new();
    let mock = "--mock=ttft=4,itl=2,osl=20,log=truth.jsonl";
    let limits = ["--streaming", "--prefill-concurrency", "4", "--concurrency", "24", "--request-count", "200"];
    bench.profile(&[&[mock, "--isl", "8"][..], &limits].concat(), 0);
    let seen = bench.truth();
    assert_eq!(seen.len(), 200);
    let prefills = most_at_once(seen.iter().map(|s| (s.first, s.answered.unwrap())));
    assert!((2..=4).contains(&prefills), "{prefills} before their first token at once");
    let all = most_at_once(seen.iter().map(|s| (s.first, s.end)));
    assert!(all > 4 && all <= 24, "{all} at once");
}

#[test]
fn never_more_requests_are_under_way_than_allowed() {
    let bench = Bench::new();
    let mock = "--mock=ttft=5,itl=0,osl=4,log=truth.jsonl";
    let load = ["--concurrency", "100", "--request-count", "10000", "--isl", "8", "--num-dataset-entries", "20"];
    bench.profile(&[&[mock][..], &load].concat(), 0);
    let seen = bench.truth();
    assert_eq!(seen.len(), 10_000);
    let all = most_at_once(seen.iter().map(|s| (s.first, s.end)));
    assert!(all > 50 && all <= 100, "{all} at once");
}

#[test]
fn what_is_dropped_is_in_the_account() {
    let bench = Bench::new();
    let mock = "--mock=ttft=40,itl=0,osl=4,log=truth.jsonl";
    let rate = ["--request-rate", "200", "--arrival-pattern", "constant", "--request-count", "60"];
    bench.profile(&[&[mock, "--concurrency", "2", "--late-policy", "drop", "--isl", "8"][..], &rate].concat(), 0);
    let (log, records) = (bench.log(), bench.records());
    let mark = &log.phases[0];
    // As many were sent as were asked for: others took the place of those dropped, and their requests.
    assert_eq!((mark.sent, mark.issued, mark.unused), (60, 60 + mark.dropped, mark.dropped));
    assert!(records.iter().map(|r| r.seq).eq(0..60));
    assert_eq!((mark.sent, bench.truth().len()), (records.len() as u64, records.len()));
    assert!(mark.dropped > 20 && records.iter().all(|r| r.due.is_set() && r.start >= r.due), "{mark:?}");
    assert!(most_at_once(bench.truth().iter().map(|s| (s.first, s.end))) <= 2);
}

#[test]
fn the_requests_that_the_seed_says_are_cut() {
    let bench = Bench::new();
    let mock = "--mock=ttft=1,itl=5,osl=60,log=truth.jsonl";
    let cut = ["--request-cancellation-rate", "50", "--request-cancellation-delay", "0.02", "--random-seed", "7"];
    let load = ["--streaming", "--concurrency", "20", "--request-count", "80", "--isl", "8"];
    bench.profile(&[&[mock][..], &cut, &load].concat(), 0);
    let draws = Cancellation { rate: 0.5, delay: 20 * MILLI }.draws(7);
    let records = bench.records();
    assert_eq!((records.len(), bench.truth().len()), (80, 80), "each was sent, cut or not");
    for record in &records {
        let is_cut = record.outcome() != Outcome::Ok;
        assert_eq!(is_cut, draws.delay_of(record.seq).is_some(), "{record:?}");
        if is_cut {
            assert!(record.done.since(record.sent) >= 20 * MILLI, "{record:?}");
        }
    }
    let kept = records.iter().filter(|r| r.outcome() != Outcome::Ok && r.first_token.is_set()).count();
    assert!(kept > 10, "what had come of their answers is kept: {kept}");
}

// The order of things.

#[test]
fn a_seed_gives_the_same_schedule_on_one_core_and_on_two() {
    let cores = available_cores().len().min(2).to_string();
    let rate = ["--request-rate", "400", "--request-count", "60", "--isl", "8"];
    let shapes: [&[&str]; 4] = [
        &["--arrival-pattern", "poisson", "--dataset-sampling-strategy", "shuffle", "--num-dataset-entries", "7"],
        &["--arrival-smoothness", "0.5", "--dataset-sampling-strategy", "random"],
        &["--arrival-pattern", "constant", "--request-rate-ramp-duration", "0.1"],
        &["--seamless-warmup", "--warmup-request-count", "20"],
    ];
    let mut digests = BTreeSet::new();
    for shape in shapes {
        let of = |cores: &str| {
            let bench = Bench::new();
            bench.profile(&[&[AT_ONCE, "--random-seed", "5", "--cores", cores][..], &rate, shape].concat(), 0);
            bench.digest()
        };
        let one = of("1");
        assert_eq!(one, of(&cores), "{shape:?}");
        digests.insert(one);
    }
    assert_eq!(digests.len(), 4, "each shape has its own");
}

#[test]
fn a_dataset_is_walked_in_the_order_that_was_asked_for() {
    let bench = Bench::new();
    let rows: String = (0..8).map(|k| format!("{{\"text\":\"{}\"}}\n", "word ".repeat(k + 1))).collect();
    bench.file("rows.jsonl", &rows);
    let order = |strategy: &[&str]| {
        let file = ["--input-file", "rows.jsonl", "--request-count", "16", "--random-seed", "3"];
        bench.profile(&[&[AT_ONCE][..], &file, strategy].concat(), 0);
        let mut records = bench.records();
        records.sort_by_key(|record| record.seq);
        records.iter().map(|record| record.request).collect::<Vec<_>>()
    };
    let walk: Vec<u32> = (0..16).map(|k| k % 8).collect();
    assert_eq!(order(&[]), walk);
    assert_eq!(order(&["--dataset-sampling-strategy", "sequential"]), walk);
    let shuffled = order(&["--dataset-sampling-strategy", "shuffle"]);
    for round in shuffled.chunks(8) {
        assert_eq!(round.iter().collect::<BTreeSet<_>>().len(), 8, "{shuffled:?}");
    }
    assert!(shuffled != walk && shuffled[..8] != shuffled[8..], "{shuffled:?}");
    let random = order(&["--dataset-sampling-strategy", "random"]);
    assert!(random.chunks(8).any(|round| round.iter().collect::<BTreeSet<_>>().len() < 8), "{random:?}");
}

#[test]
fn a_seamless_measurement_begins_while_the_warmup_is_in_flight() {
    let bench = Bench::new();
    let mock = "--mock=ttft=150,itl=0,osl=4,log=truth.jsonl";
    let load = ["--request-rate", "100", "--arrival-pattern", "constant", "--request-count", "10", "--isl", "8"];
    let warmup = ["--warmup-request-count", "5"];
    let began = |more: &[&str]| {
        bench.profile(&[&[mock][..], &load, &warmup, more].concat(), 0);
        let (log, records) = (bench.log(), bench.records());
        assert_eq!(records.len(), 15);
        let last = records.iter().filter(|r| r.phase == 0).map(|r| r.done).max().unwrap();
        log.phases.iter().find(|mark| mark.phase == 1).unwrap().start < last
    };
    assert!(began(&["--seamless-warmup"]));
    assert!(!began(&[]));
}

#[test]
fn a_closed_loop_waits_for_answers_where_the_trace_tells_the_pauses() {
    let bench = Bench::new();
    let turns =
        |later: &str| format!("{{\"turns\":[{{\"text\":\"a\",\"timestamp\":10}},{{\"text\":\"b\",{later}}}]}}\n");
    bench.file("turns.jsonl", &turns("\"delay\":30"));
    let load = [AT_ONCE, "--fixed-schedule", "--no-open-loop-replay"];
    bench.profile(&[&load[..], &FILE].concat(), 0);
    let mut records = bench.records();
    records.sort_by_key(|record| record.start);
    assert!(records.len() == 2 && records[1].start >= records[0].done.after(30 * MILLI), "{records:?}");
    bench.file("turns.jsonl", &turns("\"timestamp\":500"));
    let said = bench.profile(&[&load[..], &FILE].concat(), 2);
    assert!(said.contains("--no-open-loop-replay: turn 2 of session ") && said.lines().count() == 1, "{said}");
}

// What servers are asked beside the load.

/// A server of a few lines, for what the built-in one never does: it answers by the path and by how often that was asked.
struct Scripted {
    port: u16,
    asked: Receiver<Asked>,
}

/// A request that came: its path, whether it had the key, its body.
type Asked = (String, bool, Vec<u8>);

/// What it answers to the n-th request of a path, from 0.
type Script = fn(&str, usize) -> u16;

const COMPLETION: &str =
    r#"{"choices":[{"message":{"role":"assistant","content":"a"}}],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#;

impl Scripted {
    fn start(listener: TcpListener, script: Script) -> Self {
        let (told, asked) = channel();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let counts = std::sync::Mutex::new(BTreeMap::new());
            std::thread::scope(|scope| {
                for stream in listener.incoming().flatten() {
                    let (told, counts) = (told.clone(), &counts);
                    scope.spawn(move || answer(stream, script, counts, &told));
                }
            });
        });
        Self { port, asked }
    }

    fn any(script: Script) -> Self {
        Self::start(TcpListener::bind("127.0.0.1:0").unwrap(), script)
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Paths asked so far, in order; every one must have had the key.
    fn asked(&self) -> Vec<String> {
        self.asked.try_iter().map(|(path, has_key, _)| (assert!(has_key, "{path}"), path).1).collect()
    }
}

/// Answers the one request of a connection; a connection without one is a look whether somebody listens.
fn answer(stream: TcpStream, script: Script, counts: &std::sync::Mutex<BTreeMap<String, usize>>, told: &Sender<Asked>) {
    let mut reader = BufReader::new(stream);
    let (mut path, mut length, mut has_key, mut line) = (String::new(), 0, false, String::new());
    while reader.read_line(&mut line).is_ok_and(|n| n > 2) {
        match line.to_ascii_lowercase().split_once(": ") {
            Some(("content-length", n)) => length = n.trim().parse().unwrap(),
            Some(("authorization", key)) => has_key = key.trim() == "bearer k",
            None => path = line.split(' ').nth(1).unwrap().to_owned(),
            _ => {}
        }
        line.clear();
    }
    let mut asked = vec![0; length];
    if path.is_empty() || reader.read_exact(&mut asked).is_err() {
        return;
    }
    let n = {
        let mut counts = counts.lock().unwrap();
        let count: &mut usize = counts.entry(path.clone()).or_default();
        (*count, *count += 1).0
    };
    let _ = told.send((path.clone(), has_key, asked));
    let status = script(&path, n);
    let body = if status != 200 {
        ""
    } else if path == "/v1/models" {
        r#"{"data":[{"id":"m"}]}"#
    } else {
        COMPLETION
    };
    let head = format!("HTTP/1.1 {status} Said\r\nContent-Type: application/json\r\nConnection: close\r\n");
    let _ = write!(reader.get_mut(), "{head}Content-Length: {}\r\n\r\n{body}", body.len());
}

const CHAT: &str = "/v1/chat/completions";

/// A small load of a scripted server.
fn ask(url: &str) -> Vec<&str> {
    vec!["-m", "m", "--api-key", "k", "-u", url, "--request-count", "2", "--isl", "8"]
}

#[test]
fn a_server_that_is_not_there_yet_is_waited_for() {
    let bench = Bench::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}");
    let wait = ["--wait-for-model-timeout", "60", "--wait-for-model-interval", "0.05", "--wait-for-model-mode", "both"];
    let mut running = bench.start(&[&ask(&url)[..], &wait].concat());
    running.wait_for(&format!("maser: waiting up to 60 s for {url} to be ready: cannot connect: "));
    let busy_at_first = |path: &str, n: usize| if path == CHAT && n < 2 { 503 } else { 200 };
    let server = Scripted::start(TcpListener::bind(("127.0.0.1", port)).unwrap(), busy_at_first);
    running.wait_for(&format!("maser: {url} is ready after "));
    running.wait_for(": POST /v1/chat/completions was answered with 503 Said");
    running.wait_for(&format!("maser: {url} is ready after "));
    let (code, rest) = running.end();
    assert_eq!(code, Some(0), "{rest}");
    assert_eq!(server.asked(), ["/v1/models", CHAT, CHAT, CHAT, CHAT, CHAT]);
    assert_eq!(bench.records().len(), 2);
}

#[test]
fn a_server_that_is_never_ready_is_a_sentence() {
    let bench = Bench::new();
    let wait =
        |mode| ["--wait-for-model-timeout", "0.3", "--wait-for-model-interval", "0.1", "--wait-for-model-mode", mode];
    for (mode, script, why) in [
        (
            "inference",
            (|_, _| 503) as Script,
            "is not ready after 0.3 s: POST /v1/chat/completions was answered with 503 Said",
        ),
        ("inference", |_, _| 404, "is not ready after 0.3 s: POST /v1/chat/completions was answered with 404 Said"),
        ("models", |_, _| 404, "is not ready after 0.3 s: GET /v1/models was answered with 404 Said"),
        ("models", |_, _| 401, "GET /v1/models was answered with 401 Said; is the key right?"),
    ] {
        let server = Scripted::any(script);
        let said = bench.profile(&[&ask(&server.url())[..], &wait(mode)].concat(), 1);
        let last = said.lines().last().unwrap();
        assert!(last.starts_with("error: --wait-for-model-timeout") && last.ends_with(why), "{said}");
        assert!(!bench.path("run").exists(), "nothing was begun");
    }
    let server = Scripted::any(|_, _| 200);
    let other = ["-m", "other", "--api-key", "k", "-u", &server.url()];
    let said = bench.profile(&[&other[..], &wait("models")].concat(), 1);
    assert!(said.ends_with("it has no model other, it lists: m\n"), "{said}");
    // Answers, if only to refuse: somebody reads requests there. A server without a list is asked for its front page.
    for (mode, script) in [
        ("inference", (|path, n| if path == CHAT && n == 0 { 400 } else { 200 }) as Script),
        ("models", |path, _| if path == "/v1/models" { 404 } else { 200 }),
    ] {
        let server = Scripted::any(script);
        bench.profile(&[&ask(&server.url())[..], &wait(mode)].concat(), 0);
    }
}

#[test]
fn caches_are_reset_once_on_each_server_before_the_load() {
    let bench = Bench::new();
    let busy = Scripted::any(|path, n| if path == "/reset_prefix_cache" && n == 0 { 503 } else { 200 });
    let twice = format!("{0},{0}/v1", busy.url());
    let said = bench.profile(&[&ask(&twice)[..], &["--reset-kv-cache"]].concat(), 0);
    assert!(said.contains("was answered with 503 Said; trying again in 1 s\n"), "{said}");
    assert_eq!(busy.asked(), ["/reset_prefix_cache", "/reset_prefix_cache", CHAT, CHAT]);
    let without = Scripted::any(|path, _| if path == "/flush" { 404 } else { 200 });
    let said = bench.profile(&[&ask(&without.url())[..], &["--reset-kv-cache-path", "/flush"]].concat(), 1);
    let why = format!("error: --reset-kv-cache: POST {}/flush was answered with 404 Said\n", without.url());
    assert!(said.ends_with(&why), "{said}");
    assert_eq!(without.asked(), ["/flush"], "nothing else was sent");
}

#[test]
fn profilers_run_for_the_measurement_and_not_for_the_warmup() {
    let bench = Bench::new();
    let server = Scripted::any(|_, _| 200);
    let load = ["--warmup-request-count", "3", "--server-profiler"];
    bench.profile(&[&ask(&server.url())[..], &load].concat(), 0);
    assert_eq!(server.asked(), [CHAT, CHAT, CHAT, "/start_profile", CHAT, CHAT, "/stop_profile"]);
    bench.profile(&[&ask(&server.url())[..], &["--server-profiler-start-path", "/on"]].concat(), 0);
    assert_eq!(server.asked(), ["/on", CHAT, CHAT, "/stop_profile"]);
    bench.profile(&[&ask(&server.url())[..], &load, &["--seamless-warmup"]].concat(), 0);
    assert_eq!(server.asked(), ["/start_profile", CHAT, CHAT, CHAT, CHAT, CHAT, "/stop_profile"]);
}

#[test]
fn a_profiler_that_cannot_be_started_ends_the_run_and_one_that_cannot_be_stopped_does_not() {
    let bench = Bench::new();
    let (good, bad) =
        (Scripted::any(|_, _| 200), Scripted::any(|path, _| if path == "/start_profile" { 500 } else { 200 }));
    let both = format!("{},{}", good.url(), bad.url());
    let said = bench.profile(&[&ask(&both)[..], &["--server-profiler"]].concat(), 1);
    let why = format!("error: --server-profiler: POST {}/start_profile was answered with 500 Said\n", bad.url());
    assert!(said.ends_with(&why), "{said}");
    assert_eq!(good.asked(), ["/start_profile", "/stop_profile"]);
    let said =
        bench.profile(&[&ask(&bad.url())[..], &["--server-profiler", "--warmup-request-count", "1"]].concat(), 1);
    assert!(said.ends_with(&why), "{said}");
    assert_eq!(bench.records().len(), 1, "the measurement was not begun");
    let stuck = Scripted::any(|path, _| if path == "/stop_profile" { 500 } else { 200 });
    let said = bench.profile(&[&ask(&stuck.url())[..], &["--server-profiler"]].concat(), 0);
    assert!(said.contains("/stop_profile was answered with 500 Said; it may still be profiling\n"), "{said}");
}

#[test]
fn an_interrupt_stops_the_profilers_too() {
    let bench = Bench::new();
    let mock = ["--mock=ttft=5,itl=1", "--request-rate", "50", "--benchmark-duration", "60", "--server-profiler"];
    let mut running = bench.start(&mock);
    running.wait_for(" profiles itself");
    running.interrupt();
    let (code, rest) = running.end();
    assert!(rest.contains(" has stopped profiling itself\n"), "{rest}");
    // On a busy machine the interrupt may come before the first answer: then there are no results, and 1 says so.
    assert!(code == Some(0) || (code == Some(1) && rest.contains("no request was finished")), "{code:?} {rest}");
    assert!(bench.log().end.is_some_and(|end| end.was_cancelled));
}

#[test]
fn the_built_in_server_has_what_is_asked_of_servers() {
    let bench = Bench::new();
    let all =
        ["--wait-for-model-timeout", "20", "--wait-for-model-mode", "both", "--reset-kv-cache", "--server-profiler"];
    let said = bench.profile(&[&[AT_ONCE, "--request-count", "4"][..], &all].concat(), 0);
    for part in [" has reset its cache\n", " profiles itself\n", " has stopped profiling itself\n"] {
        assert!(said.contains(part), "{said}");
    }
    let paths: BTreeSet<String> = bench.truth().into_iter().map(|seen| seen.path).collect();
    assert!(paths.contains(CHAT), "{paths:?}");
    assert!(bench.records().iter().all(|r| r.outcome() == Outcome::Ok && r.done.since(r.start) < 60 * SECOND));
}

#[test]
fn a_marker_is_new_each_time_a_conversation_is_sent_and_the_same_for_all_its_turns() {
    let bench = Bench::new();
    bench.file("turns.jsonl", &conversations(&[1, 3]));
    let markers = |place: &str, more: &[&str]| {
        let server = Scripted::any(|_, _| 200);
        let url = server.url();
        let load = ["-m", "m", "-u", &url, "--num-conversations", "4", "--cache-bust", place, "--export-level", "raw"];
        bench.profile(&[&load[..], &FILE, more].concat(), 0);
        let sent: Vec<Value> =
            server.asked.try_iter().map(|(.., body)| serde_json::from_slice(&body).unwrap()).collect();
        let raw = std::fs::read_to_string(bench.path("run/profile_export_raw.jsonl")).unwrap();
        let told: Vec<Value> = raw.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect();
        assert!(
            sent.len() == 8 && told.iter().all(|line| sent.contains(&line["payload"])),
            "what is told is what was sent"
        );
        sent.iter().map(|body| body["messages"][0]["content"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let first = markers("first-turn-prefix", &[]);
    let marker = |text: &str| text.split_once("]\n\n").map(|(marker, _)| marker.to_owned()).unwrap();
    assert!(
        first.iter().all(|text| text.starts_with("[rid:") && text.find(']') == Some(17) && !text.contains('-')),
        "{first:?}"
    );
    // One, three, one, three turns.
    let all: Vec<String> = first.iter().map(|text| marker(text)).collect();
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 4, "{all:?}");
    assert!(all[1] == all[2] && all[2] == all[3] && all[5] == all[7], "{all:?}");
    let single = markers("system-suffix", &["--system-prompt", "be brief"]);
    assert!(single.iter().all(|text| text.starts_with("be brief\n\n[rid:") && text.ends_with(']')), "{single:?}");
}

#[test]
fn only_the_warmup_s_requests_have_the_warmup_s_marker() {
    let bench = Bench::new();
    bench.file("turns.jsonl", &conversations(&[1, 2]));
    let picture = r#"{"messages":[{"role":"user","content":[{"type":"text","text":"see"}]}]}"#;
    bench.file("parts.jsonl", picture);
    let sent = |place: &str, more: &[&str]| {
        let server = Scripted::any(|_, _| 200);
        let url = server.url();
        let load = ["-m", "m", "-u", &url, "--cache-bust", place, "--concurrency", "1", "--warmup-request-count", "3"];
        let said = bench.profile(&[&load[..], &["--request-count", "3"], more].concat(), 0);
        assert!(!said.contains("without a warmup"), "{said}");
        let bodies: Vec<Value> =
            server.asked.try_iter().map(|(.., body)| serde_json::from_slice(&body).unwrap()).collect();
        bodies.iter().map(|body| body["messages"].clone()).collect::<Vec<_>>()
    };
    let first = |messages: &Value| messages[0]["content"].as_str().unwrap().to_owned();
    let marked: Vec<String> = sent("warmup-isolation-first-turn", &FILE).iter().map(first).collect();
    let (warmup, profiling) = marked.split_at(3);
    assert!(warmup.iter().all(|text| text.starts_with("[warmup]\n\n") && text.matches("[warmup]").count() == 1));
    let bare: Vec<&str> = warmup.iter().filter_map(|text| text.strip_prefix("[warmup]\n\n")).collect();
    assert_eq!(bare, profiling, "the same conversations, and nothing else about them");
    let written = std::fs::read_to_string(bench.path("run/inputs.json")).unwrap();
    assert!(!written.contains("[rid:") && !written.contains("[warmup]"), "{written}");
    let system = sent("warmup-isolation-system", &[&FILE[..], &["--system-prompt", "be brief"]].concat());
    let system: Vec<String> = system.iter().map(first).collect();
    assert_eq!(system[..3], ["[warmup]\n\nbe brief"; 3]);
    assert_eq!(system[3..], ["be brief"; 3]);
    let parts =
        sent("warmup-isolation-system", &["--custom-dataset-type", "mooncake_trace", "--input-file", "parts.jsonl"]);
    let part = |text: &str| serde_json::json!({"type": "text", "text": text});
    assert_eq!(parts[0][0]["content"], serde_json::json!([part("[warmup]"), part("see")]));
    assert_eq!(parts[3][0]["content"], serde_json::json!([part("see")]));
}

#[test]
fn a_generated_input_has_its_length_with_the_marker_in_it() {
    let bench = Bench::new();
    let lengths = |more: &[&str]| {
        let load = ["--mock=ttft=0,itl=0,osl=1", "--isl", "80", "--osl", "1", "--num-conversations", "4"];
        bench.profile(&[&load[..], &["--random-seed", "1"], more].concat(), 0);
        let text = std::fs::read_to_string(bench.path("run/profile_export_aiperf.json")).unwrap();
        let summary: Value = serde_json::from_str(&text).unwrap();
        let sequence = &summary["input_sequence_length"];
        (sequence["avg"].as_f64().unwrap(), sequence["max"].as_f64().unwrap())
    };
    for place in ["first-turn-prefix", "first-turn-suffix", "system-prefix", "warmup-isolation-first-turn"] {
        assert_eq!(lengths(&["--cache-bust", place]), (80.0, 80.0), "{place}");
    }
    // What the server gets: the words of the generated text are fewer by the marker's.
    let plain = lengths(&["--shared-system-prompt-length", "40"]);
    let marked = lengths(&["--shared-system-prompt-length", "40", "--cache-bust", "system-suffix"]);
    assert_eq!(plain, marked);
    let own = lengths(&["--system-prompt", "be brief", "--cache-bust", "system-prefix"]);
    assert!(own.0 > 85.0, "a text of the user's is not cut: {own:?}");
    let said = bench.profile(
        &["--mock=ttft=0,itl=0,osl=1", "--isl", "8", "--request-count", "1", "--cache-bust", "warmup-isolation-system"],
        0,
    );
    assert!(said.contains("--cache-bust warmup-isolation-system: without a warmup nothing is marked"), "{said}");
}
