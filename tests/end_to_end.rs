//! The program as its users run it: what it prints, the files it leaves behind, its exit codes.

#[path = "end_to_end/verdict.rs"]
mod verdict;

use maser_engine::clock::{self, Instant, MILLI, SECOND};
use maser_engine::log::{FILE_NAME, Log, PhaseMark};
use maser_engine::record::{Outcome, Record};
use maser_engine::run::available_cores;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

#[path = "end_to_end/secrets.rs"]
mod secrets;

/// A server that answers at once.
const AT_ONCE: &str = "--mock=ttft=0,itl=0,osl=8";

/// A directory of its own for each run, and the program in it.
struct Bench(TempDir);

/// What a run of the program came to.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

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
        maser
            .current_dir(self.0.path())
            .arg(command)
            .args(arguments)
            .env_remove("NO_COLOR")
            .env_remove("OPENAI_API_KEY");
        maser.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        maser
    }

    fn run(&self, command: &str, arguments: &[&str]) -> Ran {
        ran(self.command(command, arguments))
    }

    /// `maser profile` into the directory `run`.
    fn profile(&self, arguments: &[&str]) -> Ran {
        let all: Vec<&str> = arguments.iter().copied().chain(["--artifact-dir", "run"]).collect();
        self.run("profile", &all)
    }

    fn start(&self, arguments: &[&str]) -> Running {
        let all: Vec<&str> = arguments.iter().copied().chain(["--artifact-dir", "run"]).collect();
        let mut child = self.command("profile", &all).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Running { child, stderr, log: self.path("run").join(FILE_NAME) }
    }

    fn results(&self) -> Results {
        Results::of(&self.path("run"), "profile_export_aiperf.json", "profile_export.jsonl")
    }

    fn log(&self) -> Log {
        Log::open(&self.path("run").join(FILE_NAME)).unwrap()
    }

    /// Names in the directory `run`, in order.
    fn files(&self) -> Vec<String> {
        names_in(&self.path("run"))
    }
}

/// Names in a directory, in order.
fn names_in(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn ran(mut command: Command) -> Ran {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

impl Ran {
    #[track_caller]
    fn ends_with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.stdout, self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self
    }

    /// The errors on stderr, without the lines that say what is going on.
    fn errors(&self) -> Vec<&str> {
        let news = |line: &&str| !line.is_empty() && !line.starts_with("maser: ") && !line.starts_with("note: ");
        self.stderr.lines().filter(news).collect()
    }
}

/// A run under way; killed if the test fails.
struct Running {
    child: Child,
    stderr: BufReader<std::process::ChildStderr>,
    log: PathBuf,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    /// Waits until there are records in the log: it has grown beyond its preamble.
    fn wait_for_records(&mut self) {
        self.wait_for_stderr("maser: core");
        let preamble = std::fs::metadata(&self.log).unwrap().len();
        for _ in 0..20_000 {
            assert!(self.child.try_wait().unwrap().is_none(), "the run ended by itself");
            if std::fs::metadata(&self.log).unwrap().len() > preamble {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
        panic!("no record came");
    }

    /// Reads standard error up to a line that begins so.
    fn wait_for_stderr(&mut self, start: &str) {
        let mut line = String::new();
        while !line.starts_with(start) {
            line.clear();
            assert!(self.stderr.read_line(&mut line).unwrap() > 0, "stderr ended before {start:?}");
        }
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    fn end(mut self) -> Ran {
        let mut stdout = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
        let mut stderr = String::new();
        self.stderr.read_to_string(&mut stderr).unwrap();
        Ran { code: self.child.wait().unwrap().code(), stdout, stderr }
    }
}

/// The files of a run, read back.
struct Results {
    summary: Value,
    lines: Vec<Value>,
}

impl Results {
    fn of(dir: &Path, summary: &str, lines: &str) -> Self {
        let text = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
        Self {
            summary: serde_json::from_str(&text(summary)).unwrap(),
            lines: text(lines).lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
        }
    }

    fn metric(&self, tag: &str, figure: &str) -> Option<f64> {
        self.summary[tag][figure].as_f64()
    }

    /// Every request's value of a metric.
    fn each<'a>(&'a self, tag: &'a str) -> impl Iterator<Item = f64> + 'a {
        self.lines.iter().filter_map(move |line| line["metrics"][tag]["value"].as_f64())
    }

    fn digest(&self) -> &str {
        self.summary["maser"]["ledger"]["schedule_digest"].as_str().unwrap()
    }

    fn of_phase(&self, kind: &str) -> usize {
        self.lines.iter().filter(|line| line["metadata"]["benchmark_phase"] == kind).count()
    }
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

// What a run leaves behind.

#[test]
fn a_streamed_run_counts_every_request_and_token() {
    let bench = Bench::new();
    let ran = bench.profile(&[
        AT_ONCE,
        "--streaming",
        "--concurrency",
        "16",
        "--request-count",
        "200",
        "--isl",
        "64",
        "--osl",
        "12",
    ]);
    let ran = ran.ends_with(0);
    let all = ["inputs.json", "profile_export.jsonl", "profile_export_aiperf.csv", "profile_export_aiperf.json"];
    assert_eq!(bench.files()[..4], all);
    assert_eq!(bench.files()[4..], ["profile_export_console.txt", FILE_NAME]);
    let results = bench.results();
    assert_eq!(results.lines.len(), 200);
    assert_eq!(results.metric("request_count", "avg"), Some(200.0));
    assert_eq!(results.metric("error_request_count", "avg"), None);
    for (tag, tokens) in [("output_sequence_length", 12.0), ("input_sequence_length", 64.0)] {
        let counts: Vec<f64> = results.each(tag).collect();
        assert_eq!(counts, [tokens; 200], "{tag}");
    }
    assert_eq!(results.each("time_to_first_token").count(), 200);
    assert_eq!(results.summary["is_complete"], true);
    let ledger = &results.summary["maser"]["ledger"];
    assert_eq!((&ledger["issued"], &ledger["records"], &ledger["lost"]), (&200.into(), &200.into(), &0.into()));
    let mut csv = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .from_path(bench.path("run/profile_export_aiperf.csv"))
        .unwrap();
    assert!(csv.records().all(|row| row.is_ok()));
    let console = std::fs::read_to_string(bench.path("run/profile_export_console.txt")).unwrap();
    assert!(ran.stdout.contains(&console), "the file has what is printed");
    for name in &all {
        assert!(ran.stdout.contains(&format!(": run/{name}\n")) || ran.stdout.trim_end().ends_with(name), "{name}");
    }
}

#[test]
fn the_bodies_are_kept_as_they_are_sent() {
    let bench = Bench::new();
    bench.profile(&[AT_ONCE, "--request-count", "20", "--isl", "30", "--osl", "5"]).ends_with(0);
    let inputs = json(&bench.path("run/inputs.json"));
    let sessions = inputs["data"].as_array().unwrap();
    assert_eq!(sessions.len(), 20);
    for session in sessions {
        let body = &session["payloads"][0];
        assert_eq!((&body["model"], &body["max_completion_tokens"]), (&"mock".into(), &5.into()));
        assert_eq!(body["messages"][0]["role"], "user");
        assert!(body["messages"][0]["content"].as_str().is_some_and(|text| text.len() > 30));
    }
    let results = bench.results();
    assert_eq!(results.each("output_sequence_length").collect::<Vec<_>>(), [5.0; 20]);
    assert_eq!(results.metric("time_to_first_token", "avg"), None, "nothing was streamed");
}

#[test]
fn every_file_that_was_asked_for_is_there_and_whole() {
    let bench = Bench::new();
    let some = ["--request-count", "20", "--warmup-request-count", "5", "--concurrency", "4", "--osl", "6"];
    let files = ["--export-level", "raw", "--export-outputs-json", "--export-parquet", "--export-hdr"];
    let more = ["--slice-duration", "0.5", "--streaming", "-H", "X-Api-Key:sesame"];
    bench.profile(&[&[AT_ONCE][..], &some, &files, &more].concat()).ends_with(0);
    let written = [
        "inputs.json",
        "outputs.json",
        "phase_manifest.json",
        "phases",
        "profile_export.hlog",
        "profile_export.jsonl",
        "profile_export.parquet",
        "profile_export_aiperf.csv",
        "profile_export_aiperf.json",
        "profile_export_aiperf_timeslices.csv",
        "profile_export_aiperf_timeslices.json",
        "profile_export_console.txt",
        "profile_export_raw.jsonl",
        FILE_NAME,
    ];
    assert_eq!(bench.files(), written);
    let inputs = json(&bench.path("run/inputs.json"));
    let raw = std::fs::read_to_string(bench.path("run/profile_export_raw.jsonl")).unwrap();
    assert_eq!(raw.lines().count(), 25);
    for line in raw.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let bodies = inputs["data"].as_array().unwrap().iter().map(|session| &session["payloads"][0]);
        assert!(bodies.into_iter().any(|body| *body == line["payload"]), "it was one of the inputs");
        assert_eq!(line["request_headers"]["X-Api-Key"], "<redacted>");
        let responses = line["responses"].as_array().unwrap();
        assert_eq!(responses.last().unwrap()["packets"][0]["value"], "[DONE]");
        let times: Vec<u64> = responses.iter().map(|r| r["perf_ns"].as_u64().unwrap()).collect();
        assert!(times.is_sorted() && times[0] > line["start_perf_ns"].as_u64().unwrap());
        assert!(line.get("responses_cut").is_none());
    }
    assert_eq!(json(&bench.path("run/outputs.json"))["data"].as_array().unwrap().len(), 20);
    let raw_before = std::fs::read(bench.path("run/profile_export_raw.jsonl")).unwrap();
    bench.run("report", &["run"]).ends_with(0);
    assert_eq!(std::fs::read(bench.path("run/profile_export_raw.jsonl")).unwrap(), raw_before, "rebuilt from the log");
    // What the next run does not ask for does not stay.
    bench.profile(&[AT_ONCE, "--request-count", "4", "--overwrite"]).ends_with(0);
    let few = ["inputs.json", "profile_export.jsonl", "profile_export_aiperf.csv", "profile_export_aiperf.json"];
    assert_eq!(bench.files()[..4], few);
    assert_eq!(bench.files()[4..], ["profile_export_console.txt", FILE_NAME]);
}

#[test]
fn a_report_looks_at_a_run_in_other_ways() {
    let bench = Bench::new();
    let mock = "--mock=ttft=0,itl=0";
    let load = ["--streaming", "--request-rate", "100", "--arrival-pattern", "constant", "--request-count", "50"];
    bench.profile(&[&[mock][..], &load].concat()).ends_with(0);
    assert_eq!(bench.run("report", &["run", "--verify"]).ends_with(0).stdout.lines().count(), 1);
    bench.run("report", &["run", "--from", "0.1", "--to", "0.3", "-o", "part", "-q"]).ends_with(0);
    let part = json(&bench.path("part/profile_export_aiperf.json"));
    let log = bench.log();
    let after = |record: &Record| record.start.since(log.phases[0].start);
    let inside = log.records().filter(|(record, _)| (100_000_000..300_000_000).contains(&after(record))).count();
    assert!((1..50).contains(&inside), "{inside}");
    assert_eq!(part["request_count"]["avg"], inside as f64);
    assert_eq!(part["maser"]["window"]["from_seconds"], 0.1);
    let levels = ["--goodput", "request_latency:100000 time_to_first_token:0", "--percentiles", "50,97.5"];
    bench.run("report", &[&["run", "-o", "other", "-q"][..], &levels].concat()).ends_with(0);
    let other = json(&bench.path("other/profile_export_aiperf.json"));
    assert_eq!(other["good_request_count"]["avg"], 0.0);
    let asked: Vec<_> = other["maser"]["quantiles"]["request_latency"].as_array().unwrap().iter().collect();
    assert_eq!(asked.iter().map(|q| q["p"].as_f64().unwrap()).collect::<Vec<_>>(), [50.0, 97.5]);
    assert_eq!(asked[0]["value"], other["request_latency"]["p50"]);
    for (words, code, start) in [
        (&["--from", "3", "--to", "2"][..], 2, "--from: "),
        (&["--from", "99"], 1, "--from, --to: no request"),
        (&["--goodput", "ttfb:1"], 2, "--goodput ttfb:1: unknown metric \"ttfb\""),
        (&["--goodput", "request_count:1"], 2, "--goodput request_count:1: request_count is not a metric of single"),
        (&["--goodput", "video_peak_memory:1"], 2, "--goodput video_peak_memory: no request of this run can have it: "),
        (&["--percentiles", "101"], 2, "--percentiles 101: "),
        (&["--export-level", "raw"], 2, "--export-level raw: the run was recorded at level records"),
    ] {
        refused(bench.run("report", &[&["run"], words].concat()), code, start);
    }
}

/// Whether this machine has not got the kernel interface `io`. That is printed, and under `MASER_REQUIRE_URING=1` it fails the
/// test.
fn is_refused(io: &str, ran: &Ran) -> bool {
    if ran.code != Some(2) {
        return false;
    }
    let start = format!("error: --io {io}: ");
    assert!(ran.stderr.starts_with(&start) && ran.stderr.lines().count() == 1, "{}", ran.stderr);
    assert!(std::env::var_os("MASER_REQUIRE_URING").is_none_or(|v| v != "1"), "{}", ran.stderr);
    eprintln!("skipped --io {io}: {}", ran.stderr);
    true
}

#[test]
fn every_kernel_interface_carries_a_run_or_says_why_not() {
    for (io, name) in [("epoll", "epoll"), ("uring", "io_uring"), ("direct", "io_uring (direct")] {
        let bench = Bench::new();
        let ran = bench.profile(&[AT_ONCE, "--streaming", "--io", io, "--concurrency", "4", "--request-count", "40"]);
        if io != "epoll" && is_refused(io, &ran) {
            continue;
        }
        ran.ends_with(0);
        let results = bench.results();
        assert_eq!(results.lines.len(), 40);
        let used = results.summary["maser"]["topology"]["io"].as_str().unwrap();
        assert!(used.starts_with(name), "{used}");
    }
}

/// Answers each request and resets the connection right after; returns where it listens.
fn server_that_resets() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let body = r#"{"choices":[{"index":0,"message":{"role":"assistant","content":"hi"}}]}"#;
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut request = BufReader::with_capacity(1, stream.unwrap());
            let (mut length, mut line) = (0, String::new());
            while request.read_line(&mut line).is_ok_and(|n| n > 2) {
                let field = line.to_ascii_lowercase();
                length = field.strip_prefix("content-length:").map_or(length, |n| n.trim().parse().unwrap());
                line.clear();
            }
            // What is left unread when a socket closes makes the kernel reset the connection: all but one byte is read.
            let mut rest = vec![0; usize::saturating_sub(length, 1)];
            if request.read_exact(&mut rest).is_ok() {
                let _ = request.get_mut().write_all(format!("{head}{body}").as_bytes());
            }
        }
    });
    url
}

#[test]
fn a_server_that_resets_each_connection_after_its_answer_keeps_no_request_for_ever() {
    for io in ["direct", "uring", "epoll"] {
        let (bench, url) = (Bench::new(), server_that_resets());
        let load = ["-m", "m", "-u", &url, "--isl", "8", "--osl", "1", "--tokenizer", "builtin", "--cores", "1"];
        let more = ["--io", io, "--concurrency", "8", "--request-count", "200", "--request-timeout-seconds", "30"];
        let ran = bench.profile(&[&load[..], &more].concat());
        if io != "epoll" && is_refused(io, &ran) {
            continue;
        }
        let log = bench.log();
        let count = |outcome| log.records().filter(|(record, _)| record.outcome() == outcome).count();
        assert_eq!((log.len(), count(Outcome::Timeout)), (200, 0), "--io {io}: {}", ran.stdout);
        assert!(count(Outcome::Ok) > 100, "--io {io}: {} succeeded", count(Outcome::Ok));
    }
}

#[test]
fn a_constant_rate_is_a_grid_and_lateness_is_measured_against_it() {
    let bench = Bench::new();
    let rate = ["--request-rate", "200", "--arrival-pattern", "constant", "--request-count", "100"];
    bench.profile(&[&[AT_ONCE, "--streaming", "--warmup-request-count", "5"][..], &rate[..]].concat()).ends_with(0);
    let log = bench.log();
    assert_eq!((log.phases.len(), log.header.phases[0].warmup), (2, true));
    let mut seen = [0; 2];
    for (record, _) in log.records() {
        let phase = usize::from(record.phase);
        assert_eq!(record.due.since(log.phases[phase].start), (record.seq + 1) * 5 * MILLI);
        assert!(record.start >= record.due, "nothing is sent before its time");
        seen[phase] += 1;
    }
    assert_eq!(seen, [5, 100]);
    let results = bench.results();
    assert_eq!((results.of_phase("warmup"), results.of_phase("profiling")), (5, 100));
    assert_eq!(results.metric("request_count", "avg"), Some(100.0));
    assert_eq!(results.metric("send_slip", "count"), Some(100.0));
    let slips: f64 = log.records().filter(|(r, _)| r.phase == 1).map(|(r, _)| r.send_delay() as f64 / 1e6).sum();
    let mean = results.metric("send_slip", "avg").unwrap();
    assert!((mean - slips / 100.0).abs() < 1e-6, "{mean}");
    assert_eq!(results.summary["warmup_metrics"]["request_count"]["avg"], 5.0);
}

#[test]
fn a_duration_ends_the_sending() {
    let bench = Bench::new();
    bench.profile(&["--mock=ttft=5,itl=0", "--benchmark-duration", "1", "--concurrency", "4"]).ends_with(0);
    let log = bench.log();
    assert!(log.len() >= 4);
    for (record, _) in log.records() {
        assert!(record.start.since(log.phases[0].start) < SECOND);
    }
    let results = bench.results();
    assert_eq!((results.lines.len(), &results.summary["was_cancelled"]), (log.len(), &false.into()));
    // What was kept in stock for slots that might come free was never to be sent.
    assert!(log.phases[0].spare > 0 && log.phases[0].issued == log.len() as u64, "{:?}", log.phases[0]);
    assert_eq!(results.summary["dropped_request_count"]["avg"], 0.0);
}

#[test]
fn a_trace_is_sent_at_its_times() {
    let bench = Bench::new();
    let times = [40, 70, 70, 160, 100];
    let rows =
        times.map(|ms| format!(r#"{{"timestamp": {ms}, "input_length": 40, "output_length": 6, "hash_ids": [1, 2]}}"#));
    bench.file("trace.jsonl", &rows.join("\n"));
    let trace = ["--input-file", "trace.jsonl", "--custom-dataset-type", "mooncake_trace", "--fixed-schedule"];
    bench.profile(&[&[AT_ONCE, "--streaming", "--isl-block-size", "20"][..], &trace[..]].concat()).ends_with(0);
    let log = bench.log();
    let mut due: Vec<u64> = log.records().map(|(r, _)| r.due.since(log.phases[0].start)).collect();
    due.sort_unstable();
    assert_eq!(due, [0, 30, 30, 60, 120].map(|ms| ms * MILLI));
    let results = bench.results();
    assert_eq!(results.each("input_sequence_length").collect::<Vec<_>>(), [40.0; 5]);
    assert_eq!(results.each("output_sequence_length").collect::<Vec<_>>(), [6.0; 5]);
    assert_eq!(results.metric("send_slip", "count"), Some(5.0));
    let ran = bench.profile(&[AT_ONCE, "--input-file", "trace.jsonl", "--isl-block-size", "20"]).ends_with(0);
    assert!(ran.stderr.contains("note: the timestamps in --input-file are not used; "), "{}", ran.stderr);
}

#[test]
fn prompts_come_from_a_file() {
    let bench = Bench::new();
    bench.file("prompts.jsonl", "{\"text\": \"first \\\"one\\\"\"}\n\n{\"text\": \"second\"}\n");
    bench.profile(&[AT_ONCE, "--input-file", "prompts.jsonl", "--request-count", "7"]).ends_with(0);
    let inputs = json(&bench.path("run/inputs.json"));
    let text = |k: usize| inputs["data"][k]["payloads"][0]["messages"][0]["content"].clone();
    assert_eq!((text(0), text(1), text(2)), ("first \"one\"".into(), "second".into(), Value::Null));
    assert_eq!(bench.results().lines.len(), 7);
}

#[test]
fn token_counts_can_be_the_server_s() {
    let bench = Bench::new();
    let counts = ["--use-server-token-count", "--streaming", "--osl", "9", "--request-count", "10"];
    bench.profile(&[&[AT_ONCE][..], &counts[..]].concat()).ends_with(0);
    let results = bench.results();
    assert_eq!(results.summary["maser"]["token_source"], "server");
    assert_eq!(results.each("output_sequence_length").collect::<Vec<_>>(), [9.0; 10]);
    let prompt: Vec<f64> = bench.log().records().map(|(r, _)| f64::from(r.usage_prompt)).collect();
    assert_eq!(results.each("input_sequence_length").collect::<Vec<_>>(), prompt);
}

#[test]
fn files_have_the_names_and_the_place_that_were_asked_for() {
    let bench = Bench::new();
    let few = ["--request-count", "4", "--concurrency", "2"];
    bench.profile(&[&[AT_ONCE, "--profile-export-prefix", "foo"][..], &few[..]].concat()).ends_with(0);
    assert_eq!(bench.files(), ["foo.csv", "foo.json", "foo.jsonl", "foo_console.txt", "inputs.json", FILE_NAME]);
    assert_eq!(Results::of(&bench.path("run"), "foo.json", "foo.jsonl").lines.len(), 4);
    bench.run("profile", &[&[AT_ONCE][..], &few[..]].concat()).ends_with(0);
    assert!(bench.path("artifacts/mock-openai-chat-concurrency2/profile_export_aiperf.json").exists());
}

#[test]
fn a_second_run_leaves_no_file_of_the_first_and_loses_none() {
    let bench = Bench::new();
    bench.profile(&[AT_ONCE, "--request-count", "4"]).ends_with(0);
    std::fs::write(bench.path("run/notes.txt"), "mine").unwrap();
    let first = bench.files();
    let ran = bench.profile(&[AT_ONCE, "--request-count", "6", "--export-level", "summary"]).ends_with(0);
    let moved = "note: the files of an earlier run are now in run/earlier-1 (--overwrite replaces them)\n";
    assert!(ran.stderr.contains(moved), "{}", ran.stderr);
    assert!(!bench.files().contains(&"profile_export.jsonl".to_owned()));
    assert_eq!(std::fs::read_to_string(bench.path("run/notes.txt")).unwrap(), "mine", "a foreign file stays");
    let summary = json(&bench.path("run/profile_export_aiperf.json"));
    assert_eq!(summary["request_count"]["avg"], 6.0);
    // The log knows more than the summary asked for.
    bench.run("report", &["run", "--export-level", "records"]).ends_with(0);
    assert_eq!(bench.results().lines.len(), 6);
    let mut aside = names_in(&bench.path("run/earlier-1"));
    aside.push("notes.txt".into());
    aside.sort();
    assert_eq!(aside, first);
    bench.run("report", &["run/earlier-1"]).ends_with(0);
    let earlier = Results::of(&bench.path("run/earlier-1"), "profile_export_aiperf.json", "profile_export.jsonl");
    assert_eq!(earlier.lines.len(), 4);
    let ran = bench.profile(&[AT_ONCE, "--request-count", "3", "--overwrite"]).ends_with(0);
    assert!(ran.stderr.contains("note: run had the files of an earlier run; they are replaced\n"), "{}", ran.stderr);
    assert_eq!(bench.results().lines.len(), 3);
    assert!(bench.path("run/earlier-1").exists() && !bench.path("run/earlier-2").exists());
}

#[test]
fn two_runs_do_not_write_into_one_directory() {
    let bench = Bench::new();
    let load = ["--mock=ttft=5,itl=1", "--request-rate", "100", "--benchmark-duration", "60"];
    let mut first = bench.start(&load);
    first.wait_for_records();
    refused(
        bench.profile(&[AT_ONCE, "--request-count", "4"]),
        2,
        "--artifact-dir run: another run is writing there (pro",
    );
    refused(
        bench.profile(&[AT_ONCE, "--request-count", "4", "--overwrite"]),
        2,
        "--artifact-dir run: another run is wr",
    );
    refused(bench.run("report", &["run"]), 2, "run: another run or report is writing there (process ");
    // Elsewhere a report of what it has so far may be made.
    bench.run("report", &["run", "-o", "so-far"]).ends_with(0);
    first.signal("INT");
    first.end().ends_with(0);
    let records = bench.log().len();
    assert_eq!(bench.results().lines.len(), records, "the first run has all of its results");
    assert!(!bench.files().contains(&".maser.lock".to_owned()));
    bench.profile(&[AT_ONCE, "--request-count", "4"]).ends_with(0);
}

#[test]
fn runs_without_a_directory_of_their_own_keep_apart() {
    let bench = Bench::new();
    let load = ["--mock=ttft=5,itl=1", "--request-rate", "100", "--benchmark-duration", "60"];
    let mut child = bench.command("profile", &load).spawn().unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let usual = "artifacts/mock-openai-chat-request_rate100.0";
    let mut first = Running { child, stderr, log: bench.path(usual).join(FILE_NAME) };
    first.wait_for_records();
    let few = ["--request-rate", "100", "--request-count", "4"];
    let ran = bench.run("profile", &[&[AT_ONCE][..], &few[..]].concat()).ends_with(0);
    let said = format!("note: another run is writing into {usual}: the files go to {usual}-2\n");
    assert!(ran.stderr.contains(&said), "{}", ran.stderr);
    let second = bench.path(&format!("{usual}-2/profile_export_aiperf.json"));
    assert_eq!(json(&second)["input_config"]["artifacts"]["dir"], format!("{usual}-2"));
    first.signal("INT");
    first.end().ends_with(0);
    assert!(bench.path(usual).join("profile_export_aiperf.json").exists());
    // What scripts look for is where they look for it, and is the newest.
    let ran = bench.run("profile", &[&[AT_ONCE][..], &few[..]].concat()).ends_with(0);
    assert!(ran.stderr.contains(&format!("are now in {usual}/earlier-1")), "{}", ran.stderr);
    assert_eq!(json(&bench.path(usual).join("profile_export_aiperf.json"))["request_count"]["avg"], 4.0);
}

#[test]
fn a_report_does_not_replace_another_run_s_results() {
    let bench = Bench::new();
    let run = |dir: &str, n: &str| {
        bench.run("profile", &[AT_ONCE, "--request-count", n, "--artifact-dir", dir]).ends_with(0);
    };
    run("a", "4");
    run("b", "5");
    let lines =
        |dir: &str| std::fs::read_to_string(bench.path(dir).join("profile_export.jsonl")).unwrap().lines().count();
    let refusal = "-o b: the results of another run are there; give another directory, or --overwrite to replace them";
    refused(bench.run("report", &["a", "-o", "b"]), 2, refusal);
    assert_eq!(lines("b"), 5);
    // A directory without a log is the run's whose summary is there.
    for _ in 0..2 {
        bench.run("report", &["a", "-o", "new"]).ends_with(0);
    }
    refused(bench.run("report", &["b", "-o", "new"]), 2, "-o new: the results of another run are there");
    bench.run("report", &["b", "-o", "new", "--overwrite"]).ends_with(0);
    assert_eq!(lines("new"), 5);
    bench.run("report", &["a", "-o", "b", "--overwrite"]).ends_with(0);
    assert_eq!((lines("b"), bench.path("b").join(FILE_NAME).exists()), (4, false));
    bench.run("report", &["a", "-o", "a"]).ends_with(0);
}

/// The same log with another header.
fn with_header(log: &Path, change: impl FnOnce(&mut Value)) {
    let bytes = std::fs::read(log).unwrap();
    let mut header: Value = serde_json::to_value(&Log::open(log).unwrap().header).unwrap();
    change(&mut header);
    let mut changed = maser_engine::log::MAGIC.to_vec();
    maser_engine::log::put_json(&mut changed, maser_engine::log::Kind::Header, &header);
    // A block's head is 20 bytes: mark, kind, count, length of the body, checksum.
    let head = maser_engine::log::MAGIC.len();
    let len = u32::from_le_bytes(bytes[head + 12..head + 16].try_into().unwrap()) as usize;
    changed.extend_from_slice(&bytes[head + 20 + len..]);
    std::fs::write(log, changed).unwrap();
}

#[test]
fn a_foreign_log_writes_nowhere_else_and_opens_nothing_in_silence() {
    let bench = Bench::new();
    bench.profile(&[AT_ONCE, "--request-count", "4"]).ends_with(0);
    let log = bench.path("run").join(FILE_NAME);
    for prefix in ["../stray", "/tmp/stray", "a/b", "..", ""] {
        with_header(&log, |header| header["export_prefix"] = prefix.into());
        refused(bench.run("report", &["run"]), 2, "run/records.maser: its files would begin with ");
    }
    assert_eq!(names_in(bench.0.path()), ["run"]);
    bench.file("tokenizer.json", "{}");
    with_header(&log, |header| {
        header["export_prefix"] = Value::Null;
        header["tokenizer"] = "./tokenizer.json".into();
    });
    let ran = bench.run("report", &["run"]).ends_with(0);
    let said = "note: tokens are counted with ./tokenizer.json, as run/records.maser says\n";
    assert!(ran.stderr.contains(said), "{}", ran.stderr);
}

#[test]
fn what_was_sent_and_answered_is_the_owner_s_to_read() {
    use std::os::unix::fs::PermissionsExt;
    let bench = Bench::new();
    let all = [AT_ONCE, "--request-count", "4", "--export-level", "raw", "--export-outputs-json"];
    bench.profile(&all).ends_with(0);
    for name in [FILE_NAME, "inputs.json", "profile_export_raw.jsonl", "outputs.json"] {
        let about = std::fs::metadata(bench.path("run").join(name)).unwrap();
        assert_eq!(about.permissions().mode() & 0o777, 0o600, "{name}");
    }
}

#[test]
fn a_seed_gives_the_same_requests_at_the_same_times_on_any_number_of_cores() {
    let cores = available_cores().len().min(2);
    let runs: Vec<_> = ["1", "1", &cores.to_string()]
        .into_iter()
        .map(|cores| {
            let bench = Bench::new();
            let load = ["--request-rate", "500", "--request-count", "60", "--isl", "20", "--isl-stddev", "5"];
            bench.profile(&[&[AT_ONCE, "--random-seed", "7", "--cores", cores][..], &load[..]].concat()).ends_with(0);
            (std::fs::read_to_string(bench.path("run/inputs.json")).unwrap(), bench.results().digest().to_owned())
        })
        .collect();
    assert_eq!(runs[0], runs[1]);
    assert_eq!(runs[0], runs[2]);
    let bench = Bench::new();
    bench.profile(&[AT_ONCE, "--random-seed", "8", "--request-rate", "500", "--request-count", "60"]).ends_with(0);
    assert_ne!(runs[0].1, bench.results().digest());
}

#[test]
fn a_report_without_the_tokenizer_takes_the_server_s_counts() {
    let bench = Bench::new();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/datasets/tests/data/unsplit_bpe.json");
    std::fs::copy(source, bench.path("tokenizer.json")).unwrap();
    let load = ["--streaming", "--request-count", "5", "--isl", "8", "--osl", "4", "--tokenizer", "tokenizer.json"];
    bench.profile(&[&[AT_ONCE][..], &load[..]].concat()).ends_with(0);
    std::fs::remove_file(bench.path("tokenizer.json")).unwrap();
    let ran = bench.run("report", &["run"]).ends_with(0);
    assert!(ran.stderr.contains("the server's token counts are taken instead"), "{}", ran.stderr);
    let summary = json(&bench.path("run/profile_export_aiperf.json"));
    assert_eq!((&summary["maser"]["token_source"], &summary["total_osl"]["avg"]), (&"server".into(), &20.0.into()));
}

#[test]
fn a_load_far_beyond_the_machine_loses_no_record() {
    let bench = Bench::new();
    let load = ["--request-rate", "1000000", "--request-count", "50000", "--num-dataset-entries", "10", "--isl", "10"];
    let mock = "--mock=ttft=0,itl=0,osl=1";
    bench.profile(&[&[mock, "--cores", "1", "--export-level", "summary"][..], &load[..]].concat()).ends_with(0);
    let summary = json(&bench.path("run/profile_export_aiperf.json"));
    let ledger = &summary["maser"]["ledger"];
    assert_eq!((&ledger["records"], &ledger["lost"]), (&50_000.into(), &0.into()));
    let console = std::fs::read_to_string(bench.path("run/profile_export_console.txt")).unwrap();
    assert!(console.contains("Client: THE LIMIT; "), "nobody sends a million requests a second from one core");
}

// What goes wrong at the server.

/// The type under which a fault must appear; `None` for a good answer.
fn class(fault: Option<&str>) -> Option<&'static str> {
    Some(match fault? {
        "http500" => "Internal Server Error",
        "http429" => "Too Many Requests",
        "reset" => Outcome::Reset.name(),
        "close" => Outcome::Truncated.name(),
        "malformed" => Outcome::Malformed.name(),
        "error-event" => Outcome::InStream.name(),
        "hang" => Outcome::Timeout.name(),
        other => panic!("unknown fault {other}"),
    })
}

/// What the server knows of each request: the class of its last try, and how many tries there were.
fn truth(path: &Path) -> HashMap<String, (u64, Option<&'static str>, u64)> {
    let mut known = HashMap::new();
    for line in std::fs::read_to_string(path).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let (id, at) = (line["rid"].as_str().unwrap().to_owned(), line["body"].as_u64().unwrap());
        let entry = known.entry(id).or_insert((0, None, 0));
        entry.2 += 1;
        if at >= entry.0 {
            (entry.0, entry.1) = (at, class(line["fault"].as_str()));
        }
    }
    known
}

/// A third of the requests meet `fault`; every one of them must appear as what it was.
fn agrees_with_the_server(fault: &str, more: &[&str]) {
    let bench = Bench::new();
    let mock = format!("--mock=ttft=0,itl=0,osl=8,fault={fault}:0.3,log=truth.jsonl");
    let load = ["--concurrency", "16", "--request-count", "100", "--isl", "16"];
    let ran = bench.profile(&[&[mock.as_str()][..], &load[..], more].concat()).ends_with(0);
    let (truth, results) = (truth(&bench.path("truth.jsonl")), bench.results());
    assert_eq!((truth.len(), results.lines.len()), (100, 100));
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for line in &results.lines {
        let id = line["metadata"]["x_request_id"].as_str().unwrap();
        let (_, class, _) = truth[id];
        assert_eq!(line["error"]["type"].as_str(), class, "{fault} {more:?} {id}");
        *counts.entry(class.unwrap_or("OK")).or_default() += 1;
    }
    let mut told: BTreeMap<&str, u64> = BTreeMap::new();
    for group in results.summary["error_summary"].as_array().unwrap() {
        *told.entry(group["error_details"]["type"].as_str().unwrap()).or_default() += group["count"].as_u64().unwrap();
    }
    let failed = told.values().sum::<u64>();
    assert_eq!(results.metric("error_request_count", "avg"), Some(failed as f64));
    told.insert("OK", results.metric("request_count", "avg").unwrap() as u64);
    assert_eq!(told, counts);
    let tries: u64 = truth.values().map(|(_, _, tries)| tries - 1).sum();
    assert_eq!(results.summary["maser"]["ledger"]["retried"], tries);
    assert!(failed >= 5, "the fault came too rarely to tell anything: {failed}");
    let head = format!("Failed:  {failed} of 100 requests ({failed}.0%): ");
    assert!(ran.stdout.starts_with(&head), "{}", ran.stdout);
    for (class, n) in counts.iter().filter(|(class, _)| **class != "OK") {
        // A kind has its number where there are several.
        let times = if counts.len() > 2 { format!("{n} × ") } else { String::new() };
        let lines = || ran.stdout.lines().take_while(|line| !line.starts_with("Asked:"));
        let named = |line: &str| line.contains(class) && line.contains(&times);
        assert!(lines().any(named), "{times}{class} on one line: {}", ran.stdout);
    }
}

#[test]
fn error_statuses_are_counted_as_the_server_counts_them() {
    for fault in ["http500", "http429"] {
        agrees_with_the_server(fault, &[]);
        agrees_with_the_server(fault, &["--streaming"]);
    }
}

#[test]
fn broken_connections_are_counted_as_the_server_counts_them() {
    for fault in ["reset", "close"] {
        agrees_with_the_server(fault, &[]);
        agrees_with_the_server(fault, &["--streaming"]);
    }
}

#[test]
fn broken_answers_are_counted_as_the_server_counts_them() {
    agrees_with_the_server("malformed", &[]);
    agrees_with_the_server("error-event", &[]);
    agrees_with_the_server("error-event", &["--streaming"]);
}

#[test]
fn events_that_are_not_json_are_ignored_and_counted() {
    let bench = Bench::new();
    let mock = "--mock=ttft=0,itl=0,osl=8,fault=malformed:0.3,log=truth.jsonl";
    let ran = bench.profile(&[mock, "--streaming", "--concurrency", "8", "--request-count", "50"]).ends_with(0);
    let truth = std::fs::read_to_string(bench.path("truth.jsonl")).unwrap();
    let spoiled = truth.lines().filter(|line| line.contains("malformed")).count();
    assert!(spoiled > 3, "{truth}");
    let results = bench.results();
    assert_eq!(
        (results.metric("request_count", "avg"), results.metric("error_request_count", "avg")),
        (Some(50.0), None)
    );
    let said = format!("{spoiled} events were not JSON and ignored, in {spoiled} requests.");
    assert!(results.summary["maser"]["notes"].as_array().unwrap().iter().any(|note| *note == said), "{said}");
    assert_eq!(results.summary["maser"]["odd_answers"]["ignored_events"], spoiled);
    assert!(ran.stdout.contains(&said), "{}", ran.stdout);
}

#[test]
fn requests_that_are_never_answered_time_out() {
    agrees_with_the_server("hang", &["--streaming", "--request-timeout-seconds", "0.5"]);
}

#[test]
fn a_run_in_which_everything_fails_is_a_failure_with_files() {
    let bench = Bench::new();
    let ran = bench.profile(&["--mock=ttft=0,fault=http500:1.0", "--request-count", "10"]).ends_with(1);
    let why = "all 10 requests: 500 Internal Server Error from POST /v1/chat/completions: the mock server was told to fail here";
    assert_eq!(ran.errors(), [format!("error: failed: {why}; results were still written to run")]);
    assert_eq!(ran.stdout.lines().next(), Some(&*format!("Failed:  {why}.")));
    assert!(!ran.stdout.contains("LLM Metrics") && !ran.stdout.contains("0.00"), "no tables of zeros: {}", ran.stdout);
    let results = bench.results();
    assert_eq!((results.lines.len(), results.metric("error_request_count", "avg")), (10, Some(10.0)));
    assert!(!ran.stdout.contains("Client: sound"), "failures show nothing of it: {}", ran.stdout);
    // Nor of one that had times to keep.
    let dead = ["--mock=ttft=0,fault=http500:1.0", "--request-rate", "500", "--request-count", "50"];
    let ran = Bench::new().profile(&dead).ends_with(1);
    assert!(ran.stdout.starts_with("Failed:  all 50 requests: 500 Internal"), "{}", ran.stdout);
    assert!(ran.stdout.contains("Client: ") && !ran.stdout.contains("Client: sound"), "{}", ran.stdout);
}

/// Answers every connection with these bytes, whatever it is asked, and closes it.
fn answers(bytes: &'static [u8]) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 4096]);
            let _ = std::io::Write::write_all(&mut stream, bytes);
        }
    });
    url
}

#[test]
fn a_server_that_speaks_tls_is_guessed() {
    // The alert that OpenSSL sends to whoever speaks something else.
    let url = answers(b"\x15\x03\x01\x00\x02\x02\x46");
    let ran = Bench::new().profile(&["-m", "m", "-u", &url, "--request-count", "3", "-q"]).ends_with(1);
    assert!(ran.stderr.contains("does the server expect https? maser speaks plain http only"), "{}", ran.stderr);
    let html = answers(b"HTTP/1.1 404 Not Found\r\nContent-Length: 12\r\nConnection: close\r\n\r\n<html>\x1b[31m\n");
    let ran = Bench::new().profile(&["-m", "m", "-u", &html, "--request-count", "3", "-q"]).ends_with(1);
    let said = "error: failed: all 3 requests: 404 Not Found from POST /v1/chat/completions: <html> [31m; results";
    assert!(ran.errors()[0].starts_with(said), "{}", ran.stderr);
}

#[test]
fn what_failed_is_said_on_stderr_however_quiet() {
    let bench = Bench::new();
    let words = ["--mock=ttft=0,itl=0,osl=4,fault=http429:0.5", "--request-count", "40", "--concurrency", "4", "-q"];
    let ran = bench.profile(&words).ends_with(0);
    assert!(ran.stderr.starts_with("maser: failed: "), "{}", ran.stderr);
    assert!(ran.stderr.contains(" of 40 requests ("), "{}", ran.stderr);
    assert!(ran.stderr.contains("%): 429 Too Many Requests from POST /v1/chat/completions"), "{}", ran.stderr);
    assert_eq!((ran.stderr.lines().count(), ran.stdout.lines().count()), (1, 1), "{}{}", ran.stdout, ran.stderr);
}

#[test]
fn the_first_lines_say_how_fast_and_what_was_kept() {
    let bench = Bench::new();
    let load = ["--mock=ttft=1,itl=1,osl=8", "--request-count", "40", "--concurrency", "4", "--osl", "8"];
    let levels = ["--streaming", "--goodput", "ttft:0 e2e:60000"];
    let ran = bench.profile(&[&load[..], &levels].concat()).ends_with(0);
    let head: Vec<&str> = ran.stdout.lines().take_while(|line| !line.is_empty()).collect();
    let line =
        |name: &str| head.iter().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {head:?}"));
    for figure in ["TTFT p50 ", "ITL p50 ", "latency p50 "] {
        assert!(line("Speed:").contains(figure), "{head:?}");
    }
    let met = "SLO:    0.0% of 40 requests met TTFT ≤ 0 ms and latency ≤ 60000 ms; missed: 40 by TTFT.";
    assert_eq!(*line("SLO:"), met);
    // Without streaming there is a word on it, and no zeros.
    let ran = bench.profile(&load).ends_with(0);
    assert!(ran.stdout.contains("not streamed, so no TTFT or ITL: add --streaming"), "{}", ran.stdout);
    assert!(!ran.stdout.contains("Decode") && !ran.stdout.contains("Prefill"), "{}", ran.stdout);
    assert!(ran.stdout.contains("Effective Concurrency"), "{}", ran.stdout);
    let notes = bench.results().summary["maser"]["notes"].to_string();
    assert!(notes.contains("Not streamed"), "{notes}");
}

#[test]
fn the_results_are_one_json_object_for_a_script() {
    let bench = Bench::new();
    let load = ["--mock=ttft=1,itl=1,osl=8,fault=http500:0.3", "--request-count", "40", "--streaming", "--json"];
    let ran = bench.profile(&[&load[..], &["--goodput", "ttft:60000"]].concat()).ends_with(0);
    let said: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(ran.stdout.lines().count(), 1);
    let (ok, failed) = (said["requests"]["succeeded"].as_u64().unwrap(), said["requests"]["failed"].as_u64().unwrap());
    assert!(ok > 0 && failed > 0 && ok + failed == 40, "{said}");
    let whole = bench.results().summary;
    for tag in ["time_to_first_token", "inter_token_latency", "request_latency"] {
        for p in ["avg", "p50", "p90", "p99", "max"] {
            assert_eq!(said["latency_ms"][tag][p], whole[tag][p], "{tag} {p}");
        }
    }
    assert_eq!(said["requests_per_second"], whole["request_throughput"]["avg"]);
    assert_eq!(said["failures"], whole["error_summary"]);
    assert_eq!((&said["slo"]["good_requests"], &said["slo"]["levels"][0]["missed"]), (&json_number(ok), &0.into()));
    assert!(said["verdict"]["grade"].is_string() && said["complete"] == true && said["stopped"].is_null(), "{said}");
    for file in said["files"].as_array().unwrap() {
        assert!(bench.path(file["path"].as_str().unwrap()).exists(), "{file}");
    }
    let again = bench.run("report", &["run", "--json"]).ends_with(0);
    let again: Value = serde_json::from_str(&again.stdout).unwrap();
    assert_eq!(again["latency_ms"], said["latency_ms"]);
}

fn json_number(n: u64) -> Value {
    (n as f64).into()
}

// What ends a run early.

#[test]
fn a_run_that_was_told_to_end_says_so_and_is_not_taken_for_a_whole_one() {
    let bench = Bench::new();
    let load = ["--mock=ttft=5,itl=0,osl=1", "--benchmark-duration", "600", "--concurrency", "2", "--json"];
    for (signal, name, code) in [("TERM", "SIGTERM", 143), ("INT", "SIGINT", 0)] {
        let mut running = bench.start(&load);
        running.wait_for_records();
        running.signal(signal);
        let ran = running.end().ends_with(code);
        let said: Value = serde_json::from_str(&ran.stdout).unwrap();
        let stopped = said["stopped"].as_str().unwrap();
        assert!(stopped.starts_with(&format!("by {name} after ")) && stopped.contains(" of 600 s, with "), "{stopped}");
        assert!(ran.stderr.contains(&format!("maser: stopped {stopped}\n")), "{}", ran.stderr);
        assert_eq!(said["complete"], false);
        let console = std::fs::read_to_string(bench.path("run/profile_export_console.txt")).unwrap();
        assert!(console.starts_with("Stopped: by a signal after "), "{console}");
    }
}

#[test]
fn a_run_in_which_too_much_fails_is_stopped() {
    let bench = Bench::new();
    let few = ["--mock=fault=http500:0.5", "--request-count", "100000", "--concurrency", "4"];
    let ran = bench.profile(&[&few[..], &["--failed-request-threshold", "0.2"]].concat());
    let ran = ran.ends_with(1);
    assert!(ran.errors().iter().any(|line| line.contains("--failed-request-threshold")), "{:?}", ran.errors());
    let log = bench.log();
    assert!((10..10_000).contains(&log.len()) && log.phases[0].too_many_failed, "{} records", log.len());
}

#[test]
fn why_a_run_was_stopped_comes_before_what_else_is_wrong() {
    // Four slots that each wait 100 ms in vain serve 40 a second of the 1,000 planned.
    let failing = ["--mock=fault=hang:1.0", "--request-timeout-seconds", "0.1", "--request-count", "50000"];
    let failing = [&failing[..], &["--concurrency", "4"]].concat();
    let late = ["--request-rate", "1000", "--abort-below-adherence", "90"];
    for stop in [&late[..], &["--failed-request-threshold", "0.2"]] {
        let bench = Bench::new();
        let ran = bench.profile(&[&failing[..], stop].concat()).ends_with(1);
        let errors = ran.errors();
        let option = stop[stop.len() - 2];
        let [line] = &errors[..] else { panic!("one line, not {errors:?}") };
        assert!(line.starts_with(&format!("error: {option}: ")), "{line}");
        assert!(line.contains("so the run was stopped; ") && line.contains("failed: "), "{line}");
    }
}

#[test]
fn a_run_that_cannot_keep_its_times_is_stopped() {
    let bench = Bench::new();
    // Four slots of 20 ms serve 200 a second of the 1,000 planned.
    let load =
        ["--mock=ttft=20,itl=0,osl=1", "--request-rate", "1000", "--concurrency", "4", "--request-count", "50000"];
    let ran = bench.profile(&[&load[..], &["--abort-below-adherence", "90"]].concat()).ends_with(1);
    assert!(ran.errors().iter().any(|line| line.contains("--abort-below-adherence")), "{:?}", ran.errors());
    assert!(ran.stdout.contains("INCOMPLETE RESULTS"), "{}", ran.stdout);
    let (log, summary) = (bench.log(), bench.results().summary);
    assert!(log.phases[0].below_adherence && (4..50_000).contains(&log.len()), "{} records", log.len());
    assert!(summary["incomplete_reason"].as_str().is_some_and(|why| why.contains("--abort-below-adherence")));
    assert!(
        summary["maser"]["phases"][0]["ledger"]["adherence_percent"].as_f64().is_some_and(|percent| percent < 90.0)
    );
}

/// A server in a process of its own, killed at the end.
struct Server(Child, String);

impl Server {
    fn start(bench: &Bench, arguments: &[&str]) -> Self {
        let mut child = bench.command("serve", &[&["--port", "0"], arguments].concat()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.split(' ').find(|word| word.starts_with("http://")).unwrap().trim().to_owned();
        Self(child, url)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_run_without_a_model_takes_the_only_one_that_the_server_lists() {
    let bench = Bench::new();
    let one = Server::start(&bench, &["--ttft", "0", "--itl", "0", "-m", "org/the-one"]);
    let words = ["-u", &one.1, "--request-count", "3", "--isl", "8", "--osl", "4"];
    let ran = bench.profile(&words).ends_with(0);
    assert!(ran.stderr.contains("note: --model was not given: \"org/the-one\" is the only model"), "{}", ran.stderr);
    let results = bench.results();
    assert_eq!(results.summary["input_config"]["models"]["items"][0]["name"], "org/the-one");
    assert!(results.summary["maser"]["notes"].to_string().contains("--model was not given"));

    let two = Server::start(&bench, &["-m", "a", "-m", "b"]);
    let lists = format!("--model is required, add -m NAME; {} lists a, b", two.1);
    refused(bench.profile(&["-u", &two.1]), 2, &lists);
    // What else is wrong with the command line comes first.
    refused(bench.profile(&["-u", &two.1, "--benchmark-grace-period", "2"]), 2, "--benchmark-grace-period needs");
    refused(
        bench.profile(&["-u", "http://127.0.0.1:9"]),
        2,
        "--model is required, add -m NAME; http://127.0.0.1:9 could",
    );
}

/// Stops a run for at least this long; returns from when until when it certainly stood still.
fn stop_for(running: &Running, span: u64) -> (Instant, Instant) {
    let stat = format!("/proc/{}/stat", running.child.id());
    let is_stopped = || std::fs::read_to_string(&stat).unwrap().rsplit(") ").next().unwrap().starts_with('T');
    running.signal("STOP");
    while !is_stopped() {
        std::thread::park_timeout(Duration::from_millis(1));
    }
    let from = clock::now();
    while clock::now() < from.after(span) {
        std::thread::park_timeout(Duration::from_millis(5));
    }
    let to = clock::now();
    running.signal("CONT");
    (from, to)
}

/// A run of 100 requests a second that stood still for a while and was ended some time after.
struct Stopped {
    ledger: Value,
    mark: PhaseMark,
    records: Vec<Record>,
    /// When it certainly stood still.
    span: std::ops::Range<Instant>,
}

impl Stopped {
    /// At a server whose first token takes so many milliseconds. However slow the machine is, the load goes on until requests
    /// have left that were due after the process went on.
    fn run(bench: &Bench, ttft: &str, more: &[&str]) -> Self {
        let server = Server::start(bench, &["--ttft", ttft, "--itl", "0", "--osl", "1"]);
        let rate = ["--request-rate", "100", "--arrival-pattern", "constant", "--benchmark-duration", "3600"];
        let load = [&["-m", "mock", "-u", &server.1, "--isl", "10"], &rate[..], more].concat();
        let mut running = bench.start(&load);
        running.wait_for_records();
        let (from, to) = stop_for(&running, 300 * MILLI);
        while !bench.log().records().any(|(record, _)| record.due > to.after(100 * MILLI)) {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        running.signal("INT");
        running.end().ends_with(0);
        let log = bench.log();
        assert_eq!(log.end.as_ref().map(|end| end.lost), Some(0));
        let ledger = bench.results().summary["maser"]["phases"][0]["ledger"].clone();
        let records = log.records().map(|(record, _)| record).collect();
        Self { ledger, mark: log.phases[0].clone(), records, span: from..to }
    }

    fn count(&self, key: &str) -> u64 {
        self.ledger[key].as_u64().unwrap()
    }

    /// How many arrivals were due in that time, by the plan.
    fn due(&self) -> usize {
        let ticks = (1..=self.mark.issued).map(|k| self.mark.start.after(k * 10 * MILLI));
        ticks.filter(|at| self.span.contains(at)).count()
    }

    /// The records of those of them that were sent.
    fn sent(&self) -> Vec<&Record> {
        self.records.iter().filter(|r| self.span.contains(&r.due)).collect()
    }
}

#[test]
fn a_process_that_was_stopped_has_every_late_slot_in_its_ledger() {
    let bench = Bench::new();
    let run = Stopped::run(&bench, "0", &[]);
    let (ledger, stopped, to) = (&run.ledger, run.sent(), run.span.end);
    let count = |key: &str| run.count(key);
    assert!(stopped.len() >= 29 && stopped.len() == run.due(), "{} were due", stopped.len());
    assert!(stopped.iter().all(|r| r.start >= to), "nothing left while the process stood still");
    let late = stopped.iter().filter(|r| to.since(r.due) >= MILLI).count() as u64;
    assert!(count("late") >= late && count("late_queued") == 0, "{ledger}");
    let worst = stopped.iter().map(|r| r.slip()).max().unwrap();
    assert!(worst >= 280 * MILLI);
    let longest = |key: &str| ledger["longest_late"][key].as_u64().unwrap();
    let first = stopped.iter().map(|r| r.due).min().unwrap();
    let span = stopped.iter().map(|r| r.start.since(first)).max().unwrap();
    assert!(longest("span_ns") >= span, "{ledger}");
    // On a machine that stalls by itself another one may have been longer.
    let begins = run.mark.start.after(longest("from_ns"));
    if (begins..=begins.after(longest("span_ns"))).contains(&first) {
        assert!(longest("arrivals") >= late && longest("worst_ns") >= worst, "{ledger}");
    }
    let on_time = 100.0 * (count("sent") - count("late")) as f64 / count("offered") as f64;
    assert!((ledger["adherence_percent"].as_f64().unwrap() - on_time).abs() < 1e-9);
    // Every slot was sent, once: no more than were due. What was on its way when the run was ended is in the account too.
    assert_eq!((count("offered"), count("dropped")), (count("sent") + count("unsent"), 0));
    let mut due: Vec<_> = run.records.iter().map(|r| r.due.since(run.mark.start)).collect();
    due.sort_unstable();
    assert!(due.iter().copied().eq((1..=count("sent")).map(|k| k * 10 * MILLI)), "{due:?}");
    // The wait is in the response time, and in that alone.
    let results = bench.results();
    assert!(results.metric("response_time", "max").unwrap() >= 280.0);
    assert!(stopped.iter().all(|r| r.done.since(r.start) < r.done.since(r.due)));
    assert!(
        results.metric("request_latency", "p50").unwrap() < results.metric("response_time", "max").unwrap() - 200.0
    );
}

#[test]
fn what_a_stopped_process_drops_is_in_its_ledger() {
    let bench = Bench::new();
    // Two slots of 100 ms serve a fifth of what is planned: they are taken whenever anything stands still.
    let run = Stopped::run(&bench, "100", &["--concurrency", "2", "--late-policy", "drop"]);
    let (ledger, due, sent) = (&run.ledger, run.due(), run.sent().len());
    let count = |key: &str| run.count(key);
    assert_eq!(count("offered"), count("sent") + count("dropped") + count("unsent"));
    assert_eq!((count("sent"), count("unrecorded")), (run.records.len() as u64, 0));
    // Whatever found both slots taken was dropped, not sent in a burst as the process went on.
    assert!(due >= 29 && sent < 10 && count("dropped") >= (due - sent) as u64, "{sent} of {due} were sent: {ledger}");
    assert!(run.sent().iter().all(|r| r.start >= run.span.end), "nothing left while the process stood still");
    assert!(ledger["verdict"].as_str().unwrap().contains(" were dropped because no slot was free"), "{ledger}");
    let mut ends: Vec<_> = run.records.iter().flat_map(|r| [(r.start, 1), (r.done, -1)]).collect();
    ends.sort_unstable();
    let in_flight = ends.iter().scan(0, |n, (_, step)| {
        *n += step;
        Some(*n)
    });
    assert_eq!(in_flight.max(), Some(2));
}

#[test]
fn every_phase_has_its_ledger_in_all_the_files() {
    let bench = Bench::new();
    let load = ["--request-rate", "500", "--request-count", "100", "--warmup-request-count", "30"];
    let ran = bench.profile(&[&[AT_ONCE][..], &load].concat()).ends_with(0);
    let whole = bench.results().summary["maser"]["phases"].clone();
    let manifest = json(&bench.path("run/phase_manifest.json"));
    for (k, (name, offered)) in [("warmup", 30), ("profiling", 100)].into_iter().enumerate() {
        let own = json(&bench.path(&format!("run/phases/{name}/profile_export_aiperf.json")));
        assert_eq!(own["maser"], whole[k]);
        assert_eq!(manifest["phases"][k]["ledger"], whole[k]["ledger"]);
        let (ledger, arrivals) = (&whole[k]["ledger"], &whole[k]["arrivals"]);
        assert_eq!(
            (&ledger["phase"], &ledger["offered"], &ledger["sent"]),
            (&name.into(), &offered.into(), &offered.into())
        );
        let slips: u64 = ledger["slip"].as_array().unwrap().iter().map(|b| b["count"].as_u64().unwrap()).sum();
        assert_eq!((slips, &arrivals["count"]), (offered, &offered.into()));
        assert!(ran.stdout.contains(&format!("Ledger of {name}: ")), "{}", ran.stdout);
    }
    bench.run("report", &["run"]).ends_with(0);
    assert_eq!(bench.results().summary["maser"]["phases"], whole, "the log has it all");
    bench.run("report", &["run", "--to", "0.1"]).ends_with(0);
    assert_eq!(bench.results().summary["maser"]["phases"].as_array().map(Vec::len), Some(0), "of whole phases only");
}

#[test]
fn an_interrupt_stops_the_sending_and_loses_nothing() {
    let bench = Bench::new();
    let mut running = bench.start(&["--mock=ttft=5,itl=1", "--request-rate", "100", "--benchmark-duration", "60"]);
    running.wait_for_records();
    running.signal("INT");
    let ran = running.end().ends_with(0);
    assert!(ran.stdout.contains("(cancelled early)") && ran.stdout.contains("INCOMPLETE RESULTS"), "{}", ran.stdout);
    let (log, results) = (bench.log(), bench.results());
    let end = log.end.as_ref().unwrap();
    assert_eq!((end.was_cancelled, end.records, end.issued - end.unused), (true, log.len() as u64, log.len() as u64));
    assert!(log.records().all(|(record, _)| record.outcome() == Outcome::Ok), "what was in flight was waited for");
    assert_eq!(results.summary["was_cancelled"], true);
    assert_eq!((results.lines.len(), results.metric("request_count", "avg")), (log.len(), Some(log.len() as f64)));
}

#[test]
fn a_second_interrupt_cuts_what_is_in_flight() {
    let bench = Bench::new();
    let mock = "--mock=ttft=0,itl=0,fault=hang:0.5";
    let mut running = bench.start(&[mock, "--streaming", "--request-rate", "200", "--benchmark-duration", "60"]);
    running.wait_for_records();
    running.signal("INT");
    running.wait_for_stderr("maser: stopping: ");
    running.signal("INT");
    running.end().ends_with(130);
    let (log, results) = (bench.log(), bench.results());
    assert_eq!((results.lines.len(), &results.summary["was_cancelled"]), (log.len(), &true.into()));
    let cut = results.lines.iter().filter(|line| line["metadata"]["was_cancelled"] == true);
    let hung = log.records().filter(|(record, _)| record.outcome() == Outcome::Cancelled).count();
    assert!(hung > 0);
    assert_eq!(cut.filter(|line| line["error"]["code"] == 499).count(), hung);
}

#[test]
fn many_inputs_are_written_after_the_load_however_it_ends() {
    let bench = Bench::new();
    let row = |k: usize| format!("{{\"text\":\"{k} {}\"}}\n", "Shall I compare thee? ".repeat(50_000));
    bench.file("rows.jsonl", &(0..5).map(row).collect::<String>());
    let data = ["--input-file", "rows.jsonl", "--use-server-token-count", "-m", "mock"];
    let load = ["--mock=ttft=5,itl=1,osl=2", "--request-rate", "20", "--benchmark-duration", "60"];
    let all = [&data[..], &load].concat();
    let mut killed = bench.start(&all);
    killed.wait_for_records();
    killed.signal("KILL");
    assert_eq!(killed.end().code, None);
    let inputs = bench.path("run/inputs.json");
    assert_eq!(
        bench.files(),
        [".maser.lock", "bodies.maser", FILE_NAME],
        "what would keep the first request waiting comes later"
    );
    // A report elsewhere leaves what is there, one in the same place tidies up.
    bench.run("report", &["run", "-o", "other"]);
    let restored = std::fs::read(bench.path("other/inputs.json")).unwrap();
    let ran = bench.run("report", &["run"]);
    assert!(ran.stdout.contains("Input Export: "), "{}", ran.stdout);
    assert!(inputs.exists() && !bench.path("run/bodies.maser").exists());
    let again = bench.run("report", &["run"]);
    assert!(inputs.exists() && !again.stderr.contains("inputs.json"), "{}", again.stderr);
    std::fs::remove_file(&inputs).unwrap();
    let without = bench.run("report", &["run"]);
    assert!(without.stderr.contains("note: there is no inputs.json: the run was killed"), "{}", without.stderr);
    let mut running = bench.start(&all);
    running.wait_for_records();
    running.signal("INT");
    let ran = running.end().ends_with(0);
    assert!(ran.stdout.contains("Input Export: ") && !bench.path("run/bodies.maser").exists(), "{}", ran.stdout);
    let inputs = std::fs::read(inputs).unwrap();
    assert!(inputs == restored, "what a report restores is what the run writes");
    let inputs: Value = serde_json::from_slice(&inputs).unwrap();
    let texts = inputs["data"].as_array().unwrap().iter().map(|row| {
        let text = row["payloads"][0]["messages"][0]["content"].as_str().unwrap();
        (text.len(), text.chars().next())
    });
    assert_eq!(texts.collect::<Vec<_>>(), (0..5).map(|k| (1_100_002, char::from_digit(k, 10))).collect::<Vec<_>>());
}

#[test]
fn a_thread_that_dies_ends_the_run_and_leaves_its_files() {
    let faults = [
        ("timing 40", "(timing) panicked: "),
        ("executor-0 40", " panicked: "),
        ("collector", "(timing + executor 0 + "),
    ];
    for (fault, said) in faults {
        let bench = Bench::new();
        let load = ["--concurrency", "4", "--benchmark-duration", "900", "--cores", "1", "--artifact-dir", "run"];
        let mut maser =
            bench.command("profile", &[AT_ONCE, "-m", "mock"].iter().chain(&load).copied().collect::<Vec<_>>());
        maser.env("MASER_TEST_FAULT", fault);
        let ran = ran(maser);
        assert_eq!(ran.code, Some(70), "{}\n{}", ran.stdout, ran.stderr);
        let error = ran.stderr.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
        assert!(error.starts_with("error: thread maser-exec-0 (") && error.contains(said), "{}", ran.stderr);
        assert!(error.contains("; the run was stopped, and the files have what was recorded before"), "{error}");
        let log = bench.log();
        let end = log.end.as_ref().unwrap();
        assert!(error.contains(end.broken.as_ref().unwrap()) && log.damage.is_empty(), "{end:?}");
        assert!(bench.path("run/profile_export_aiperf.json").exists(), "{:?}", bench.files());
        let report = bench.run("report", &["run", "--verify"]).ends_with(0);
        assert!(report.stdout.contains("The log is sound"), "{}", report.stdout);
    }
}

#[test]
fn a_killed_run_can_be_reported() {
    let bench = Bench::new();
    let mut running = bench.start(&["--mock=ttft=5,itl=1", "--request-rate", "100", "--benchmark-duration", "60"]);
    running.wait_for_records();
    running.signal("KILL");
    assert_eq!(running.end().code, None);
    assert_eq!(bench.files(), [".maser.lock", "inputs.json", FILE_NAME], "a lock without an owner");
    let ran = bench.run("report", &["run"]).ends_with(0);
    for part in ["─ INCOMPLETE RESULTS ─", "│ The run was killed after "] {
        assert!(ran.stdout.contains(part), "{}", ran.stdout);
    }
    let (log, results) = (bench.log(), bench.results());
    assert!(!log.is_empty() && log.end.is_none());
    assert_eq!(results.lines.len(), log.len());
    for (line, (record, _)) in results.lines.iter().zip(log.records()) {
        assert_eq!(line["metadata"]["request_start_ns"], log.header.anchor.wall_ns(record.start));
    }
    assert_eq!((&results.summary["is_complete"], &results.summary["was_cancelled"]), (&false.into(), &false.into()));
}

#[test]
fn a_log_cut_anywhere_is_reported_up_to_the_cut() {
    let bench = Bench::new();
    bench.profile(&[AT_ONCE, "--request-count", "30"]).ends_with(0);
    let (log, whole) = (bench.path("run").join(FILE_NAME), bench.log().len());
    let bytes = std::fs::read(&log).unwrap();
    std::fs::write(&log, &bytes[..bytes.len() - 1]).unwrap();
    let ran = bench.run("report", &["run"]).ends_with(0);
    assert!(ran.stderr.contains("are not a whole block and were left out"), "{}", ran.stderr);
    assert_eq!(bench.results().lines.len(), whole);
    std::fs::write(&log, &bytes[..30]).unwrap();
    let ran = bench.run("report", &["run"]).ends_with(2);
    assert_eq!(ran.errors().len(), 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("the log ends before its run header"), "{}", ran.stderr);
}

#[test]
fn a_damaged_log_loses_the_damaged_block_and_the_report_says_so() {
    let bench = Bench::new();
    let load = [AT_ONCE, "--concurrency", "1", "--request-rate", "100", "--request-count", "100"];
    bench.profile(&load).ends_with(0);
    let (path, whole) = (bench.path("run").join(FILE_NAME), bench.log());
    let records: Vec<_> = whole.blocks().filter(|b| b.kind == maser_engine::log::Kind::Records).collect();
    assert!(records.len() >= 3, "a second of records has a block every 200 ms: {records:?}");
    let hit = records[1];
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[(hit.offset + 20 + hit.body / 2) as usize] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let sentence = format!("The record log is damaged at byte {}: {} requests are missing", hit.offset, hit.count);
    for (file, quiet) in [("run", false), ("run/records.maser", true)] {
        let ran = bench.run("report", &[&[file][..], if quiet { &["-q"] } else { &[] }].concat()).ends_with(1);
        assert_eq!(ran.errors(), [format!("error: {sentence}; the files have the others")]);
    }
    let results = bench.results();
    assert_eq!(results.lines.len() as u64, 100 - u64::from(hit.count));
    let damage = &results.summary["maser"]["damage"];
    assert_eq!((&damage["offset"], &damage["lost_requests"]), (&hit.offset.into(), &hit.count.into()));
    assert_eq!(results.summary["incomplete_reason"], format!("{sentence}."));
    let ran = bench.run("report", &["run", "--verify"]).ends_with(1);
    let damaged = format!("error: From byte {} on {} bytes are damaged, not a whole block;", hit.offset, hit.body + 20);
    assert!(ran.errors()[0].starts_with(&damaged), "{}", ran.stderr);
    // That of a killed run is told from it.
    let end = whole.blocks().last().unwrap().offset as usize;
    bytes[(hit.offset + 20 + hit.body / 2) as usize] ^= 1;
    std::fs::write(&path, &bytes[..end]).unwrap();
    let ran = bench.run("report", &["run", "--verify"]).ends_with(1);
    assert!(ran.errors()[0].starts_with("error: The log has no end: the run was killed after "), "{}", ran.stderr);
    assert!(ran.errors()[1].starts_with("error: --verify: the run was killed; all "), "{}", ran.stderr);
}

// What cannot be used.

/// One sentence, beginning with `error: ` and this, and nothing on standard output.
#[track_caller]
fn refused(ran: Ran, code: i32, start: &str) {
    let ran = ran.ends_with(code);
    let errors = ran.errors();
    assert_eq!(errors.len(), 1, "{}", ran.stderr);
    assert!(errors[0].starts_with(&format!("error: {start}")), "{}", errors[0]);
    assert_eq!(ran.stdout, "");
}

#[test]
fn a_server_that_is_not_there_is_a_sentence() {
    let bench = Bench::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}");
    let ran = bench.profile(&["-m", "x", "-u", &url, "--tokenizer", "builtin"]).ends_with(1);
    let errors = ran.errors();
    let said = errors.last().cloned().unwrap_or_default();
    assert!(said.starts_with(&format!("error: --url {url}: cannot connect: Connection refused")), "{said}");
    assert!(said.contains("--wait-for-model-timeout"), "{said}");
    let lines = std::fs::read_to_string(bench.path("run").join("profile_export.jsonl")).unwrap();
    assert!(lines.contains("ClientConnectorError"), "{lines}");
    // Too long for a name: nobody is asked.
    let url = format!("http://{}.invalid:80", "a".repeat(70));
    let bench = Bench::new();
    refused(bench.profile(&["-m", "x", "-u", &url]), 1, &format!("--url {url}: the host name "));
    assert!(!bench.path("run").exists(), "nothing was begun");
}

#[test]
fn an_input_file_that_cannot_be_used_is_a_sentence_with_its_place() {
    let bench = Bench::new();
    bench.file("empty.jsonl", "");
    bench.file("broken.jsonl", "{\"text\": \"a\"}\n{\"text\":\n");
    bench.file("wrong.jsonl", "{\"text\": \"a\"}\n{\"text\": 3}\n");
    for (file, sentence) in [
        ("empty.jsonl", "--input-file empty.jsonl: the file has no rows"),
        ("missing.jsonl", "--input-file missing.jsonl: no such file"),
        ("broken.jsonl", "broken.jsonl:2: not valid JSON"),
        ("wrong.jsonl", "wrong.jsonl:2: "),
    ] {
        refused(bench.profile(&["--mock", "--input-file", file]), 2, sentence);
        assert!(!bench.path("run").exists(), "nothing was begun");
    }
}

#[test]
fn a_wrong_option_is_a_sentence() {
    let bench = Bench::new();
    refused(bench.profile(&["--mock", "--no-such-option"]), 2, "unknown option --no-such-option");
    refused(bench.profile(&["--mock=fault=zap:1"]), 2, "--mock=fault=zap:1: --fault zap:1: unknown kind of fault");
    refused(bench.profile(&["--mock=log=/nowhere/at/all"]), 1, "--mock: --log /nowhere/at/all: ");
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = port.local_addr().unwrap().port();
    refused(bench.run("serve", &["--port", &taken.to_string()]), 1, &format!("--port {taken}: cannot listen"));
}

#[test]
fn a_directory_that_cannot_be_one_is_a_sentence() {
    let bench = Bench::new();
    bench.file("file", "");
    for dir in ["file", "file/in"] {
        refused(bench.run("profile", &["--mock", "--artifact-dir", dir]), 1, &format!("--artifact-dir {dir}: "));
    }
    refused(bench.run("report", &["nowhere"]), 2, "no maser run in nowhere (no records.maser)");
    std::fs::create_dir(bench.path("empty")).unwrap();
    refused(bench.run("report", &["empty"]), 2, "no maser run in empty (no records.maser)");
    refused(bench.run("report", &["file"]), 2, "file: cannot be read as a run's record log: ");
}

#[test]
fn more_connections_than_descriptors_are_said_before_the_run() {
    let bench = Bench::new();
    let mut limited = Command::new("sh");
    let script = "ulimit -n 1000; exec \"$0\" \"$@\"";
    limited.current_dir(bench.0.path()).args(["-c", script, env!("CARGO_BIN_EXE_maser"), "profile", "--mock"]);
    limited.args(["--concurrency", "500"]);
    refused(ran(limited), 2, "--concurrency 500: this process may have 436 connections at most (ulimit -n)");
}

#[test]
fn the_built_in_server_answers_for_the_model_that_is_asked_for() {
    let bench = Bench::new();
    bench.profile(&[AT_ONCE, "-m", "some/model", "--request-count", "2"]).ends_with(0);
    bench.profile(&["--mock=model=one", "-m", "other", "--request-count", "2"]).ends_with(1);
}

/// A log that fills its place in mid-run: one sentence, and what came before can be reported.
fn reported_after_a_full_disk(bench: &Bench, ran: Ran) {
    let ran = ran.ends_with(1);
    let errors = ran.errors();
    assert_eq!(errors.len(), 1, "{}", ran.stderr);
    assert!(errors[0].starts_with("error: run/records.maser could not be written ("), "{}", errors[0]);
    assert!(errors[0].ends_with("`maser report run` makes the other files"), "{}", errors[0]);
    let log = bench.log();
    assert!(!log.is_empty() && log.end.is_none());
}

const MUCH: [&str; 8] =
    ["--streaming", "--request-count", "20000", "--num-dataset-entries", "10", "--isl", "10", "--concurrency"];

#[test]
fn a_log_that_can_grow_no_more_ends_the_run_and_is_readable() {
    let bench = Bench::new();
    let mut limited = Command::new("sh");
    let script = "trap '' XFSZ; ulimit -f 600; exec \"$0\" \"$@\"";
    limited.current_dir(bench.0.path()).args(["-c", script, env!("CARGO_BIN_EXE_maser"), "profile", AT_ONCE]);
    limited.args(MUCH).args(["32", "--artifact-dir", "run", "--export-level", "summary"]);
    reported_after_a_full_disk(&bench, ran(limited));
    let ran = bench.run("report", &["run", "--export-level", "records"]).ends_with(0);
    assert!(ran.stdout.contains("INCOMPLETE RESULTS"), "{}", ran.stdout);
    assert_eq!(bench.results().lines.len(), bench.log().len());
}

/// A file system of its own, taken away at the end.
struct SmallDisk<'a>(&'a Path);

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

#[test]
fn a_full_disk_ends_the_run_and_leaves_it_readable() {
    let bench = Bench::new();
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(bench.0.path()).stderr(Stdio::null());
    if !mount.status().is_ok_and(|status| status.success()) {
        println!("skipped: no file system can be mounted here");
        return;
    }
    let _disk = SmallDisk(bench.0.path());
    let ran = bench.profile(&[&[AT_ONCE][..], &MUCH[..], &["32"][..]].concat());
    assert!(ran.stdout.contains("Error: run/profile_export.jsonl could not be written: "), "{}", ran.stdout);
    reported_after_a_full_disk(&bench, ran);
    let again = bench.run("report", &["run"]).ends_with(1);
    assert!(again.errors()[0].contains(" files could not be written, the first: run/"), "{}", again.stderr);
    assert!(again.stdout.contains("(incomplete), ") && again.stdout.contains("LLM Metrics"), "{}", again.stdout);
    std::fs::remove_dir_all(bench.path("run")).unwrap();
    let ran = bench.profile(&[AT_ONCE, "--isl", "2000", "--request-count", "1000"]);
    refused(ran, 1, "cannot write request bodies under run: ");
}

// How it speaks.

#[test]
fn a_reader_that_goes_early_is_no_reason_to_fail() {
    let bench = Bench::new();
    for (command, arguments) in
        [("profile", &[AT_ONCE, "--request-count", "4", "--artifact-dir", "run"][..]), ("report", &["run"])]
    {
        let mut child = bench.command(command, arguments).spawn().unwrap();
        drop(child.stdout.take());
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
    }
    assert_eq!(bench.results().lines.len(), 4);
}

#[test]
fn there_are_no_escape_codes_where_there_is_no_terminal() {
    let bench = Bench::new();
    let all = [AT_ONCE, "--request-count", "4", "--artifact-dir", "run"];
    for ui in [&[][..], &["--ui", "none"], &["--ui", "simple"], &["-v"]] {
        for no_color in [false, true] {
            let mut command = bench.command("profile", &[&all[..], ui].concat());
            if no_color {
                command.env("NO_COLOR", "1");
            }
            let ran = ran(command).ends_with(0);
            assert!(!ran.stdout.contains('\x1b') && !ran.stderr.contains('\x1b'), "{ui:?}");
        }
    }
}

#[test]
fn help_has_groups_and_units_and_the_version_is_told() {
    let bench = Bench::new();
    let help = bench.run("profile", &["--help"]).ends_with(0).stdout;
    for part in ["\nLoad Generator:\n", "\nEndpoint:\n", "Seconds to send", "Requests per second", "milliseconds"] {
        assert!(help.contains(part), "{part}");
    }
    let version = bench.run("--version", &[]).ends_with(0).stdout;
    assert_eq!(version, concat!("maser ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn a_run_says_what_it_does_and_what_came_of_it() {
    let bench = Bench::new();
    let load = ["--request-rate", "100", "--arrival-pattern", "constant", "--request-count", "50"];
    let ran = bench.profile(&[&[AT_ONCE][..], &load[..]].concat()).ends_with(0);
    let news: Vec<&str> = ran.stderr.lines().collect();
    assert!(news[0].starts_with("maser: 100 requests/s (constant), 50 requests, to the built-in server on port "));
    assert!(news[1].starts_with("maser: core "), "{}", ran.stderr);
    let said: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(said[0], "Asked:  100 requests/s (constant), 50 requests.");
    assert!(said[1].starts_with("Got:    50 requests, sent at ") && said[1].ends_with(", none failed."), "{}", said[1]);
    assert!(said[2].starts_with("Speed:  latency p50 "), "{}", said[2]);
    assert!(said[3].starts_with("Client: "), "{}", said[3]);
    assert!(!ran.stdout.contains("token counts differ"), "the built-in server's guess is no news");
    let quiet = bench.profile(&[AT_ONCE, "--request-count", "4", "--log-level", "error"]).ends_with(0);
    assert_eq!(quiet.stderr, "");
}
