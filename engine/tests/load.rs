//! Whole runs over real sockets against the built-in server: what it received is what the plan says.

use maser_datasets::{Context, Conversation, Turn as Said};
use maser_engine::clock::{Anchor, MILLI, Nanos, SECOND};
use maser_engine::credit::StopSignal;
use maser_engine::endpoint::{Kind, Options};
use maser_engine::log::{self, Header, Kind as Block, Log, PhaseInfo};
use maser_engine::net::probe::{Driver, Io};
use maser_engine::plan::{
    Balance, Cancellation, Capture, History, Phase, Plan, Requests, RequestsBuilder, Reuse, Sampling, Target, Turn,
};
use maser_engine::record::{Outcome, Record};
use maser_engine::report::verify;
use maser_engine::run::{self, Cores, Fault, LogFile, Role, Spin, Thread, Topology, available_cores};
use maser_engine::schedule::{LimitCurve, Spec};
use maser_engine::serve::{Config, Server};
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::sync::Arc;

/// Sessions with so many turns each, every turn a text of its own.
fn sessions(kind: Kind, turns: &[usize], delay: Nanos) -> Requests {
    let options = Options { model: "mock".to_owned(), streaming: true, ..Options::default() };
    let mut builder = RequestsBuilder::new(&std::env::temp_dir()).unwrap();
    for (k, &n) in turns.iter().enumerate() {
        let turns = (0..n).map(|t| Said::of_text(format!("session {k} turn {t}"))).collect();
        let context = Context::DeltasWithoutResponses;
        let conversation = Conversation { session_id: format!("s{k}"), turns, context, ..Conversation::default() };
        builder.begin_session();
        for t in 0..n {
            let mut body = Vec::new();
            let splice = kind.body(&options, &conversation, t, &mut body).unwrap();
            let delay = if t > 0 { delay } else { 0 };
            let turn = Turn { splice, history: History::OwnAndReply, delay, ..Turn::default() };
            builder.push_turn(&body, turn).unwrap();
        }
    }
    builder.finish().unwrap()
}

fn plan(kind: Kind, requests: Requests, phase: Phase) -> Plan {
    Plan {
        phases: vec![phase],
        targets: vec![],
        balance: Balance::RoundRobin,
        reuse: Reuse::Pooled,
        sampling: Sampling::Sequential,
        endpoint: kind,
        requests: requests.into(),
        capture: Capture { text: false, gaps: false, raw: false },
        response_field: None,
        follow_ups: maser_engine::endpoint::FollowUps::default(),
        request_timeout: None,
        transport: maser_engine::plan::Transport::default(),
        preconnect: true,
        run_key: 7,
        seed: 7,
    }
}

fn target(server: &Server, plan: &Plan) -> Target {
    Target {
        addrs: vec![server.local_addr()],
        host: "here".to_owned(),
        path: plan.endpoint.path(true).to_owned(),
        correlation_header: "X-Correlation-ID".to_owned(),
        session_headers: vec!["X-Session-Affinity".to_owned()],
        headers: vec![("Content-Type".to_owned(), "application/json".to_owned())],
    }
}

/// Runs the plan against as many servers as are asked for; what they logged, and what was recorded.
fn run(config: &Config, servers: usize, mut plan: Plan) -> (Vec<Vec<Value>>, Vec<Record>) {
    let dir = tempfile::tempdir().unwrap();
    let stop_servers = Arc::new(StopSignal::default());
    let mut threads = Vec::new();
    for k in 0..servers {
        let log = dir.path().join(format!("truth{k}.jsonl"));
        let server = Server::bind(Config { log: Some(log), ..config.clone() }).unwrap();
        plan.targets.push(target(&server, &plan));
        let stop = stop_servers.clone();
        threads.push(std::thread::spawn(move || server.run(Io::Runtime(Driver::Epoll), false, None, stop)));
    }
    let path = dir.path().join("log");
    let preamble = preamble(&plan);
    let mut file = std::fs::File::create_new(&path).unwrap();
    file.write_all(&preamble).unwrap();
    let log_file = LogFile { file, at: preamble.len() as u64 };
    let topology = Topology::choose(&Cores::Count(1), Spin::Never, Io::Runtime(Driver::Epoll), 1, Some(1)).unwrap();
    run::start(Arc::new(plan), &topology, log_file, Arc::default(), 1000).unwrap().join().unwrap();
    stop_servers.raise();
    let mut truth = Vec::new();
    for (k, thread) in threads.into_iter().enumerate() {
        thread.join().unwrap().unwrap();
        let text = std::fs::read_to_string(dir.path().join(format!("truth{k}.jsonl"))).unwrap();
        truth.push(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect());
    }
    let records = Log::open(&path).unwrap().records().map(|(record, _)| record).collect();
    (truth, records)
}

/// A closed loop that would go on for a quarter of an hour, on these threads; what it ended with, and its log.
fn broken_off(topology: &Topology) -> (Result<(), run::Failure>, Vec<String>, Log) {
    let phase = Phase { concurrency: limit(8), duration: Some(900 * SECOND), ..Phase::default() };
    let mut plan = plan(Kind::Chat, sessions(Kind::Chat, &[1; 20], 0), phase);
    let config = Config { ttft: MILLI, osl: 2, itl: 0, ..Config::default() };
    let server = Server::bind(config).unwrap();
    plan.targets.push(target(&server, &plan));
    let stop_server = Arc::new(StopSignal::default());
    let stop = stop_server.clone();
    let serving = std::thread::spawn(move || server.run(Io::Runtime(Driver::Epoll), false, None, stop));
    let file = tempfile::NamedTempFile::new().unwrap();
    let preamble = preamble(&plan);
    let mut writer = file.reopen().unwrap();
    writer.write_all(&preamble).unwrap();
    let log_file = LogFile { file: writer, at: preamble.len() as u64 };
    let running = run::start(Arc::new(plan), topology, log_file, Arc::default(), 1000).unwrap();
    while !running.is_over() {
        std::thread::park_timeout(std::time::Duration::from_millis(1));
    }
    let notes = running.notes();
    let ended = running.join();
    stop_server.raise();
    serving.join().unwrap().unwrap();
    (ended, notes, Log::open(file.path()).unwrap())
}

/// One thread for all, one for what has sockets and two executors, one for each part.
fn layouts() -> [Vec<Thread>; 3] {
    let cores = available_cores();
    let thread = |k: usize, timing, executors: &[usize], collector| {
        let core = cores[k % cores.len()];
        Thread { core, timing, executors: executors.to_vec(), collector, spin: false }
    };
    [
        vec![thread(0, true, &[0], true)],
        vec![thread(0, true, &[0], true), thread(1, false, &[1], false)],
        vec![
            thread(0, true, &[], false),
            thread(1, false, &[], true),
            thread(0, false, &[0], false),
            thread(1, false, &[1], false),
        ],
    ]
}

/// What can carry sockets here.
fn kinds_of_io() -> Vec<Io> {
    let mut all = vec![Io::Runtime(Driver::Epoll)];
    match maser_engine::net::direct::refusal() {
        None => all.push(Io::Direct),
        Some(why) => println!("skipped: no ring here: {why}"),
    }
    match maser_engine::net::probe::best_driver() {
        Driver::Epoll => println!("skipped: no io_uring here"),
        uring => all.push(Io::Runtime(uring)),
    }
    all
}

#[track_caller]
fn dies(threads: &[Thread], io: Io, fault: Fault, part: &str, how: &str) -> Log {
    println!("{fault:?}, {io}, {} threads", threads.len());
    let topology = Topology { threads: threads.to_vec(), io, fault: Some(fault) };
    let (ended, _, log) = broken_off(&topology);
    let Err(run::Failure::Died(why)) = ended else { panic!("{fault:?}, {io}: {ended:?}") };
    assert!(why.starts_with("thread maser-") && why.contains(part) && why.ends_with(how), "{why}");
    let checked = verify(&log);
    assert!(checked.is_sound(), "{fault:?}, {io}: {:?}", checked.findings);
    let end = log.end.as_ref().unwrap();
    assert_eq!(end.broken.as_ref(), Some(&why));
    assert_eq!(end.issued, end.unused + end.records + end.lost, "{end:?}");
    log
}

#[test]
fn a_part_that_panics_ends_the_run_and_its_log_is_whole() {
    let mut records = 0;
    for io in kinds_of_io() {
        for threads in layouts() {
            let executors = threads.iter().map(|t| t.executors.len()).sum::<usize>();
            let roles = [Role::Timing, Role::Collector].into_iter().chain((0..executors).map(Role::Executor));
            for role in roles {
                records += dies(&threads, io, Fault::Panics(role, 20), &role.to_string(), "to panic").len();
            }
        }
    }
    // How many each has by then depends on the machine.
    assert!(records > 100, "{records} records of what was sent before");
}

#[test]
fn a_part_that_cannot_be_made_ends_the_run_and_its_log_is_whole() {
    for io in kinds_of_io() {
        for threads in layouts() {
            for role in [Role::Timing, Role::Executor(0), Role::Collector] {
                dies(&threads, io, Fault::Refused(role), &role.to_string(), "failed: refused by a test");
            }
        }
    }
}

#[test]
fn more_phases_than_a_record_can_name_are_refused() {
    let plan = plan(Kind::Chat, sessions(Kind::Chat, &[1], 0), Phase::default());
    let phases = |n| Plan { phases: vec![Phase::default(); n], ..copy(&plan) };
    assert_eq!(phases(255).check(), Ok(()));
    assert_eq!(phases(256).check(), Err("256 phases: a run has at most 255".to_owned()));
    let topology = Topology { threads: layouts()[0].clone(), io: Io::Runtime(Driver::Epoll), fault: None };
    let log_file = LogFile { file: tempfile::tempfile().unwrap(), at: 0 };
    let refused = run::start(Arc::new(phases(256)), &topology, log_file, Arc::default(), 10).unwrap_err();
    assert_eq!(refused.to_string(), "256 phases: a run has at most 255");
}

#[test]
fn a_thread_that_cannot_be_pinned_is_a_note() {
    let mut threads = layouts()[0].clone();
    threads[0].core = 1000;
    let topology = Topology { threads, io: Io::Runtime(Driver::Epoll), fault: Some(Fault::Panics(Role::Timing, 20)) };
    let (_, notes, _) = broken_off(&topology);
    assert_eq!(notes, ["could not pin thread maser-exec-0 to core 1000: it may be moved and be late"]);
}

fn preamble(plan: &Plan) -> Vec<u8> {
    let header = Header {
        maser_version: "0".to_owned(),
        benchmark_id: "0".to_owned(),
        run_key: plan.run_key,
        anchor: Anchor::take(),
        endpoint: plan.endpoint.name().to_owned(),
        streaming: true,
        phases: plan.phases.iter().map(|p| PhaseInfo { name: p.name.clone(), warmup: p.warmup }).collect(),
        use_server_token_count: true,
        export_level: "records".to_owned(),
        ..Header::default()
    };
    let mut bytes = log::MAGIC.to_vec();
    log::put_json(&mut bytes, Block::Header, &header);
    bytes
}

/// The lines of each session in the order of their arrival.
fn by_session(truth: &[Value]) -> BTreeMap<&str, Vec<&Value>> {
    let mut sessions: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    truth.iter().for_each(|line| sessions.entry(line["cid"].as_str().unwrap()).or_default().push(line));
    sessions.values_mut().for_each(|lines| lines.sort_by_key(|line| line["body"].as_u64()));
    sessions
}

fn limit(n: u32) -> Option<LimitCurve> {
    Some(LimitCurve::constant(n))
}

#[test]
fn each_turn_carries_what_was_said_before_it() {
    for kind in [Kind::Chat, Kind::Messages, Kind::Responses] {
        let phase = Phase { concurrency: limit(3), sessions: Some(8), ..Phase::default() };
        let config = Config { osl: 3, ..Config::default() };
        let delay = 2 * MILLI;
        let (truth, records) = run(&config, 1, plan(kind, sessions(kind, &[3, 1, 4, 2], delay), phase));
        assert_eq!(records.len(), 20, "{kind:?}: two rounds of four sessions");
        assert!(records.iter().all(|r| r.outcome() == Outcome::Ok), "{kind:?}");
        let sessions = by_session(&truth[0]);
        assert_eq!(sessions.len(), 8);
        for turns in sessions.values() {
            let messages: Vec<u64> = turns.iter().map(|line| line["nmsg"].as_u64().unwrap()).collect();
            assert_eq!(messages, (0..turns.len() as u64).map(|t| 2 * t + 1).collect::<Vec<_>>(), "{kind:?}");
        }
        for r in &records {
            let before = records.iter().find(|b| b.session == r.session && b.request + 1 == r.request);
            assert!(before.is_none_or(|b| r.start >= b.done.after(delay)), "{kind:?}: {r:?}");
        }
    }
}

#[test]
fn a_session_keeps_its_connection_or_nobody_does() {
    for (reuse, connections) in [(Reuse::Sticky, 12), (Reuse::Never, 36)] {
        let phase = Phase { concurrency: limit(4), sessions: Some(12), ..Phase::default() };
        // Time enough for the server to show that it keeps connections.
        let plan = Plan { reuse, ..plan(Kind::Chat, sessions(Kind::Chat, &[3], 100 * MILLI), phase) };
        let (truth, _) = run(&Config::default(), 1, plan);
        let of = |line: &Value| (line["cid"].as_str().unwrap().to_owned(), line["conn"].as_u64().unwrap());
        let used: HashSet<_> = truth[0].iter().map(of).collect();
        let all: HashSet<_> = used.iter().map(|(_, conn)| conn).collect();
        assert_eq!((used.len(), all.len(), truth[0].len()), (connections, connections, 36), "{reuse:?}");
    }
}

#[test]
fn sessions_go_round_the_targets_and_stay_with_theirs() {
    let phase = Phase { concurrency: limit(4), sessions: Some(12), ..Phase::default() };
    let plan = plan(Kind::Chat, sessions(Kind::Chat, &[2], 0), phase);
    let weighted = Plan { balance: Balance::Weighted(vec![3, 1]), ..copy(&plan) };
    for (plan, wanted) in [(plan, [6, 6]), (weighted, [9, 3])] {
        let (truth, records) = run(&Config::default(), 2, plan);
        let found = [0, 1].map(|k| by_session(&truth[k]).values().filter(|turns| turns.len() == 2).count());
        assert_eq!(found, wanted);
        assert_eq!(records.iter().filter(|r| r.target == 1).count(), 2 * wanted[1]);
    }
}

fn copy(plan: &Plan) -> Plan {
    Plan {
        phases: plan.phases.clone(),
        targets: plan.targets.clone(),
        balance: plan.balance.clone(),
        requests: plan.requests.clone(),
        response_field: None,
        follow_ups: maser_engine::endpoint::FollowUps::default(),
        ..*plan
    }
}

#[test]
fn what_is_cut_on_purpose_was_sent_whole_and_leaves_what_had_come() {
    let cancellation = Cancellation { rate: 0.5, delay: 20 * MILLI };
    let phase =
        Phase { concurrency: limit(8), requests: Some(40), cancellation: Some(cancellation), ..Phase::default() };
    let draws = cancellation.draws(7);
    let config = Config { osl: 200, itl: MILLI, ..Config::default() };
    let (truth, records) = run(&config, 1, plan(Kind::Chat, sessions(Kind::Chat, &[2], 0), phase));
    assert_eq!((records.len(), truth[0].len()), (40, 40));
    for r in &records {
        let delay = draws.delay_of(r.seq);
        assert_eq!(r.outcome(), if delay.is_some() { Outcome::Abandoned } else { Outcome::Ok });
        assert!(delay.is_none_or(|delay| r.done.since(r.send_end) >= delay && r.bytes_sent > 100));
    }
    let cut = records.iter().filter(|r| r.outcome() == Outcome::Abandoned);
    assert!(cut.clone().count() > 10 && cut.clone().any(|r| (1..200).contains(&r.chunks)));
}

#[test]
fn turns_of_a_trace_go_at_their_times() {
    let mut builder = RequestsBuilder::new(&std::env::temp_dir()).unwrap();
    for k in 0..20 {
        builder.begin_session();
        for t in 0..3 {
            let body = format!("{{\"model\":\"mock\",\"messages\":[{{\"role\":\"user\",\"content\":\"{k} {t}\"}}]}}");
            let at = Some((k * 3 + t * 10) * MILLI);
            builder.push_turn(body.as_bytes(), Turn { at, ..Turn::default() }).unwrap();
        }
    }
    let phase = Phase { schedule: Spec::Fixed((0..20).map(|k| k * 3 * MILLI).collect()), ..Phase::default() };
    let (_, records) = run(&Config::default(), 1, plan(Kind::Chat, builder.finish().unwrap(), phase));
    assert_eq!(records.len(), 60);
    let zero = records.iter().map(|r| r.due).min().unwrap();
    for r in &records {
        let turn = u64::from(r.request) - 3 * r.session;
        let planned = zero.after((r.session * 3 + turn * 10) * MILLI);
        assert!(r.due >= planned && r.start >= r.due, "{r:?}");
        let before = records.iter().find(|b| b.session == r.session && b.request + 1 == r.request);
        assert_eq!(r.due, planned.max(before.filter(|_| turn > 0).map_or(planned, |b| b.done)));
    }
}
