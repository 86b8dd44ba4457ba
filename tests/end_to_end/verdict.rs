//! What a run says of itself: whose the numbers are.

use super::{Bench, Ran, Results, Server, json, ran, stop_for};
use maser_engine::clock::MILLI;
use maser_engine::record::{Outcome, flag};
use serde_json::Value;
use std::process::Command;

/// What a run came to, with its summary's verdict.
struct Judged {
    ran: Ran,
    results: Results,
    verdict: Value,
}

impl Judged {
    fn of(bench: &Bench, ran: Ran) -> Self {
        let results = bench.results();
        let verdict = results.summary["maser"]["verdict"].clone();
        Self { ran, results, verdict }
    }

    #[track_caller]
    fn is(&self, grade: &str, cause: Option<&str>) -> &Self {
        assert_eq!(self.verdict["grade"], grade, "{:#}", self.verdict);
        if let Some(cause) = cause {
            assert_eq!(self.verdict["findings"][0]["cause"], cause, "{:#}", self.verdict);
        }
        self
    }

    fn finding(&self, cause: &str) -> &Value {
        let findings = self.verdict["findings"].as_array().unwrap();
        findings.iter().find(|f| f["cause"] == cause).unwrap_or_else(|| panic!("no {cause} in {:#}", self.verdict))
    }
}

/// A run at a server in a process of its own, whose answers take 20 ms; `prepare` has the last word on its command.
fn at_a_server(arguments: &[&str], prepare: impl FnOnce(Command) -> Command) -> Judged {
    let bench = Bench::new();
    let server = Server::start(&bench, &["--ttft", "20", "--itl", "0", "--osl", "1"]);
    let fixed = ["-m", "mock", "-u", &server.1, "--isl", "10", "--artifact-dir", "run", "--cores", "1"];
    let ran = ran(prepare(bench.command("profile", &[&fixed[..], arguments].concat())));
    let ran = ran.ends_with(0);
    Judged::of(&bench, ran)
}

fn with_five_connections(mut command: Command) -> Command {
    command.env("AIPERF_HTTP_CONNECTION_LIMIT", "5");
    command
}

#[test]
fn an_open_loop_short_of_connections_is_the_clients_limit() {
    // Five connections of 20 ms carry 250 a second.
    let load = ["--request-rate", "500", "--arrival-pattern", "constant", "--request-count", "300"];
    let run = at_a_server(&load, with_five_connections);
    run.is("limit", Some("connection_limit"));
    let evidence = run.finding("connection_limit")["evidence"].as_str().unwrap();
    assert!(evidence.contains("only 5 connections are allowed (AIPERF_HTTP_CONNECTION_LIMIT)"), "{evidence}");
    assert!(run.ran.stdout.contains("Client: THE LIMIT; "), "{}", run.ran.stdout);
    // The ledger, the slip and the statistics say the same.
    let ledger = &run.results.summary["maser"]["phases"][0]["ledger"];
    let count = |key: &str| ledger[key].as_u64().unwrap();
    assert!(count("late_connection_limit") > 150 && count("late_queued") == 0, "{ledger}");
    assert_eq!(run.results.metric("late_request_count", "avg"), Some(count("late") as f64));
    assert!(run.results.metric("send_slip", "p50").unwrap() > 20.0);
    assert!(ledger["adherence_percent"].as_f64().unwrap() < 50.0, "{ledger}");
    let notes = run.results.summary["maser"]["notes"].to_string();
    assert!(notes.contains("AIPERF_HTTP_CONNECTION_LIMIT"), "{notes}");
}

#[test]
fn a_closed_loop_with_more_slots_than_connections_is_the_clients_limit() {
    let run = at_a_server(&["--concurrency", "20", "--request-count", "300"], with_five_connections);
    run.is("limit", Some("connection_limit"));
    let notes = run.results.summary["maser"]["notes"].to_string();
    assert!(notes.contains("AIPERF_HTTP_CONNECTION_LIMIT"), "{notes}");
}

#[test]
fn descriptors_are_a_limit_of_the_clients_too() {
    let load = ["--request-rate", "500", "--arrival-pattern", "constant", "--request-count", "300"];
    // The program keeps 128 for itself.
    let run = at_a_server(&load, |command| {
        let mut limited = Command::new("sh");
        limited.args(["-c", "ulimit -n 134 && exec \"$0\" \"$@\""]).arg(command.get_program());
        limited.args(command.get_args()).current_dir(command.get_current_dir().unwrap());
        limited.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
        limited.stderr(std::process::Stdio::piped());
        limited
    });
    run.is("limit", Some("connection_limit"));
    let evidence = run.finding("connection_limit")["evidence"].as_str().unwrap();
    assert!(evidence.contains("(ulimit -n)"), "{evidence}");
}

#[test]
fn a_run_that_waits_for_connections_does_not_keep_its_times() {
    let bench = Bench::new();
    let load = ["--mock=ttft=20,itl=0,osl=1", "--cores", "1", "--request-rate", "1000", "--request-count", "50000"];
    let load = [&load[..], &["--abort-below-adherence", "90", "--artifact-dir", "run"]].concat();
    let ran = ran(with_five_connections(bench.command("profile", &load))).ends_with(1);
    assert!(ran.errors().iter().any(|line| line.contains("--abort-below-adherence")), "{:?}", ran.errors());
    let summary = json(&bench.path("run/profile_export_aiperf.json"));
    let adherence = summary["maser"]["phases"][0]["ledger"]["adherence_percent"].as_f64();
    assert!(adherence.is_some_and(|percent| percent < 90.0), "{adherence:?}");
}

#[test]
fn a_limit_that_was_asked_for_is_named_and_is_not_the_clients() {
    let load =
        ["--request-rate", "500", "--arrival-pattern", "constant", "--request-count", "300", "--concurrency", "2"];
    let run = at_a_server(&load, |command| command);
    let found = run.finding("concurrency");
    assert_eq!((&found["whose"], &found["asks"]), (&"settings".into(), &"sound".into()));
    assert!(found["evidence"].as_str().unwrap().starts_with("under --concurrency 2 "), "{found}");
    let arrivals = &run.results.summary["maser"]["phases"][0]["arrivals"];
    let said = arrivals["verdict"].as_str().unwrap();
    assert!(said.starts_with("Concurrency limits kept ") && !said.contains("do not follow"), "{said}");
    assert!(run.ran.stdout.contains("--concurrency 2"), "{}", run.ran.stdout);
}

#[test]
fn without_evidence_there_is_no_verdict() {
    for (load, doubt) in [
        (&["--request-count", "1"][..], "no slot was ever freed"),
        (&["--request-count", "8", "--concurrency", "8"], "no slot was ever freed"),
        (&["--request-count", "1", "--request-rate", "100"], "1 of them to judge by is too few"),
    ] {
        let run = at_a_server(load, |command| command);
        if run.verdict["findings"][0]["asks"].as_str().is_some_and(|asks| asks != "sound") {
            eprintln!("skipped: this machine stood still meanwhile: {}", run.verdict["sentence"]);
            continue;
        }
        run.is("not judged", None);
        assert!(run.verdict["sentence"].as_str().unwrap().contains(doubt), "{}", run.verdict);
        assert!(run.ran.stdout.contains("Client: not judged; "), "{}", run.ran.stdout);
    }
}

#[test]
fn a_client_that_stood_still_in_a_closed_loop_says_so() {
    let bench = Bench::new();
    let server = Server::start(&bench, &["--ttft", "20", "--itl", "5", "--osl", "8"]);
    let load = ["-m", "mock", "-u", &server.1, "--isl", "10", "--concurrency", "8", "--streaming", "--cores", "1"];
    for io in ["auto", "epoll"] {
        let more = ["--benchmark-duration", "3600", "--io", io];
        let _ = std::fs::remove_dir_all(bench.path("run"));
        let mut running = bench.start(&[&load[..], &more].concat());
        running.wait_for_records();
        let (from, to) = stop_for(&running, 350 * MILLI);
        while !bench.log().records().any(|(record, _)| record.start > to) {
            std::thread::park_timeout(std::time::Duration::from_millis(5));
        }
        running.signal("INT");
        let ran = running.end().ends_with(0);
        let log = bench.log();
        let touched = log.records().filter(|(r, _)| r.start < from && r.done > to);
        let (mut said, mut unread) = (0, 0);
        for (record, _) in touched {
            assert!(record.has(flag::STALLED), "--io {io}: {record:?}");
            said += 1;
            unread = unread.max(record.read_wait_most);
        }
        assert!(said > 0 && u64::from(unread) > 300 * MILLI, "--io {io}: {said} requests, {unread} ns");
        let mark = &log.phases[0];
        assert!(mark.stalls > 0 && mark.stall_longest_ns >= 300 * MILLI, "--io {io}: {mark:?}");
        let run = Judged::of(&bench, ran);
        assert!(run.verdict["grade"] == "degraded" || run.verdict["grade"] == "limit", "--io {io}: {:#}", run.verdict);
        let evidence = run.finding("stall")["evidence"].as_str().unwrap();
        assert!(evidence.starts_with("the client stood still "), "{evidence}");
        assert!(run.ran.stdout.contains("the client stood still"), "{}", run.ran.stdout);
    }
}

#[test]
fn what_is_cut_on_purpose_did_not_fail() {
    let bench = Bench::new();
    let cut = ["--request-cancellation-rate", "50", "--request-cancellation-delay", "0.01"];
    // A threshold that any failure passes: what was cut as asked is none.
    let gate = ["--failed-request-threshold", "0.01", "--concurrency", "4", "--request-count", "40"];
    let mock = ["--mock=ttft=100,itl=0,osl=1", "--random-seed", "3"];
    let ran = bench.profile(&[&mock[..], &cut, &gate].concat()).ends_with(0);
    let (log, results) = (bench.log(), bench.results());
    assert_eq!(results.lines.len(), 40);
    let abandoned = log.records().filter(|(r, _)| r.outcome() == Outcome::Abandoned).count();
    assert!((8..=32).contains(&abandoned), "{abandoned}");
    for line in &results.lines {
        let (metadata, was_cut) = (&line["metadata"], line["error"]["code"] == 499);
        assert_eq!(metadata["was_cancelled"], was_cut, "{line}");
        let end = &metadata["request_end_ns"];
        assert_eq!(metadata["cancellation_time_ns"], if was_cut { end.clone() } else { Value::Null }, "{line}");
    }
    // The keys are the reference's: there it is an error.
    assert_eq!(results.metric("error_request_count", "avg"), Some(abandoned as f64));
    let said = format!("none failed, {abandoned} of 40 were cut on purpose, as asked");
    assert!(ran.stdout.replace('\n', " ").contains(&said), "{}", ran.stdout);
}

#[test]
fn what_the_end_cuts_did_not_fail() {
    let bench = Bench::new();
    let end = ["--benchmark-duration", "0.3", "--benchmark-grace-period", "0.1", "--failed-request-threshold", "0.01"];
    let load = ["--mock=ttft=20,itl=0,osl=1,fault=hang:0.1", "--request-rate", "200", "--random-seed", "3"];
    let ran = bench.profile(&[&load[..], &end].concat()).ends_with(0);
    let cut = bench.log().records().filter(|(r, _)| r.outcome() == Outcome::Cancelled).count();
    assert!(cut > 0);
    assert!(ran.stdout.replace('\n', " ").contains("none failed, "), "{}", ran.stdout);
    assert!(ran.stdout.contains("cut by the end of the run"), "{}", ran.stdout);
}
