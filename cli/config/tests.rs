//! Whole command lines, resolved.

use super::*;
use crate::args::Command;
use crate::redact;
use crate::values::Ties;
use maser_datasets::synthetic::Options;
use maser_engine::schedule::{Ramp, RampStrategy};
use serde_json::{Value, json};
use std::ffi::OsString;

mod synthetic;

/// What the reference wrote of four of its runs.
const RUNS: &str = include_str!("../../tests/data/aiperf-runs.json");

fn argv<S: AsRef<str>>(words: &[S]) -> Vec<OsString> {
    let typed = words.iter().map(|w| OsString::from(w.as_ref()));
    ["maser".into(), "profile".into()].into_iter().chain(typed).collect()
}

fn resolve<S: AsRef<str>>(words: &[S]) -> Result<ProfileConfig, String> {
    match args::parse(&argv(words)) {
        Ok(Command::Profile(profile)) => ProfileConfig::resolve(*profile, false).map_err(|refusal| refusal.to_string()),
        other => Err(format!("not parsed: {other:?}")),
    }
}

fn run(line: &str) -> ProfileConfig {
    let words: Vec<&str> = line.split_whitespace().collect();
    resolve(&words).unwrap_or_else(|why| panic!("{line}: {why}"))
}

fn refused(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    match resolve(&words) {
        Ok(config) => panic!("{line} was taken: {config:?}"),
        Err(why) => why,
    }
}

/// A file that exists wherever the tests run.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");

/// A rate that goes from 10/s to 20/s, stays, and falls to 5/s.
const SERIES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/rate-series.json");

/// A line with the files in it that exist.
fn named(line: &str) -> String {
    line.replace("FILE", FILE).replace("SERIES", SERIES)
}

#[test]
fn options_that_do_not_go_together_are_refused_by_name() {
    let table = [
        ("--streaming", "--model is required; add -m NAME"),
        ("-m a,b --endpoint-type kserve-infer", "--model: the path of kserve_infer requests names the model"),
        ("-m x -u a -u b:0", "--url b:0: expected a port"),
        ("-m x -u a,b,,c", "--url : the URL names no host"),
        ("-m x -u a -u b --url-weights 1,2", "--url-weights needs --url-strategy weighted; round-robin has"),
        ("-m x -u a -u b --url-strategy weighted", "--url-strategy weighted needs --url-weights"),
        ("-m x -u a,b --url-strategy weighted --url-weights 1,2,3", "--url-weights: there are 3 for the 2 of --url"),
        ("-m x --wait-for-model-mode models", "--wait-for-model-mode needs --wait-for-model-timeout"),
        ("-m x --wait-for-model-interval 1", "--wait-for-model-interval needs --wait-for-model-timeout"),
        (
            "-m x --endpoint-type image_generation --wait-for-model-timeout 5",
            "--wait-for-model-timeout: to see whether it answers, image_generation would have to make",
        ),
        (
            "-m x --input-file FILE --fixed-schedule --dataset-sampling-strategy shuffle",
            "--dataset-sampling-strategy: --fixed-schedule, so every request has its time",
        ),
        (
            "-m x --user-centric-rate 1 --num-users 2 --dataset-sampling-strategy random",
            "--dataset-sampling-strategy: with --user-centric-rate",
        ),
        ("-m x -u https://h", "--url https://h: https is not supported yet"),
        ("-m x -u http://h:0", "--url http://h:0: expected a port"),
        ("-m x -u http://me:pw@h", "--url http://<redacted>@h: credentials"),
        ("--mock -u http://h", "--url: --mock loads a server"),
        ("--mock=itl=x", "--mock=itl=x: --itl x: expected milliseconds"),
        ("--mock=host=a/b", "--mock=host=a/b: --host a/b: expected a name"),
        ("-m x --endpoint v1/chat", "--custom-endpoint v1/chat: expected a path"),
        ("-m x --api-key=", "--api-key: expected a key"),
        ("-m x -H nothing", "--header: expected Name:Value"),
        ("-m x -H Content-Length:3", "--header: Content-Length is set by maser"),
        ("-m x --session-header a:b", "--session-header: \"a:b\" is no header name"),
        ("-m x --extra-inputs a", "--extra-inputs: expected key:value"),
        ("-m x --isl 0", "--isl 0 leaves nothing to send"),
        ("-m x --osl-stddev 3", "--osl-stddev needs a mean"),
        ("-m x --custom-dataset-type single_turn", "--custom-dataset-type goes with a file"),
        ("-m x --fixed-schedule", "--fixed-schedule goes with a file"),
        ("-m x --synthesis-max-isl 4", "--synthesis-max-isl goes with a file"),
        ("-m x --input-file /no/such/file", "--input-file /no/such/file: no such file"),
        ("-m x --omit-kv-hints", "--omit-kv-hints goes with a file"),
        (
            "-m x --input-file FILE --custom-dataset-type mooncake_trace --omit-kv-hints",
            "--omit-kv-hints goes only with baseten_trace",
        ),
        ("-m x --public-dataset none", "--public-dataset none: expected one of sharegpt"),
        ("-m x --input-file FILE --isl 4", "--isl is for generated prompts"),
        ("-m x --input-file FILE --isl-stddev 4", "--isl-stddev is for generated prompts"),
        (
            "-m x --input-file FILE --custom-dataset-type single_turn --isl-block-size 4",
            "--isl-block-size goes only with traces",
        ),
        (
            "-m x --input-file FILE --fixed-schedule --request-rate 5",
            "--request-rate: with --fixed-schedule the trace sets the pace",
        ),
        ("-m x --fixed-schedule-start-offset 5", "--fixed-schedule-start-offset needs --fixed-schedule"),
        (
            "-m x --input-file FILE --fixed-schedule --fixed-schedule-auto-offset --fixed-schedule-start-offset 5",
            "--fixed-schedule-auto-offset starts at the first row",
        ),
        (
            "-m x --input-file FILE --fixed-schedule --fixed-schedule-start-offset 5 --fixed-schedule-end-offset 4",
            "--fixed-schedule-start-offset 5 is after --fixed-schedule-end-offset 4",
        ),
        ("-m x --benchmark-grace-period 5", "--benchmark-grace-period needs --benchmark-duration"),
        ("-m x --request-count 5 --benchmark-grace-period inf", "--benchmark-grace-period needs --benchmark-duration"),
        ("-m x --warmup-grace-period 5", "--warmup-grace-period needs --warmup-duration"),
        ("-m x --warmup-grace-period 5 --warmup-request-count 4", "--warmup-grace-period needs --warmup-duration"),
        (
            "-m x --warmup-request-count 4 --warmup-request-rate-ramp-duration 5",
            "--warmup-request-rate-ramp-duration needs --warmup-request-rate",
        ),
        ("-m x --num-users 5", "--num-users needs --user-centric-rate"),
        ("-m x --user-centric-rate 5", "--user-centric-rate needs --num-users"),
        (
            "-m x --user-centric-rate 5 --num-users 4 --request-rate 3",
            "--request-rate: --user-centric-rate sets a pace",
        ),
        (
            "-m x --user-centric-rate 5 --num-users 4 --arrival-pattern gamma",
            "--arrival-pattern: --user-centric-rate sets a pace",
        ),
        (
            "-m x --user-centric-rate 5 --num-users 4 --request-rate-ramp-duration 3",
            "--request-rate-ramp-duration: --user-centric-rate sets a pace",
        ),
        ("-m x --user-centric-rate 5 --num-users 4 --request-count 3", "--request-count 3 is fewer than the 4"),
        ("-m x --user-centric-rate 5 --num-users 4 --num-sessions 3", "--num-conversations 3 is fewer than the 4"),
        ("-m x --request-rate 5 --request-rate-series SERIES", "--request-rate: --request-rate-series sets the rate"),
        (
            "-m x --user-centric-rate 5 --num-users 4 --request-rate-series SERIES",
            "--request-rate-series: --user-centric-rate sets a pace",
        ),
        ("-m x --request-rate-series /no/such", "--request-rate-series /no/such: cannot be read"),
        ("-m x --request-rate-series FILE", "--request-rate-series FILE: expected [{"),
        ("-m x --request-rate-ramp-duration 4", "--request-rate-ramp-duration needs --request-rate"),
        (
            "-m x --request-rate 5 --arrival-pattern poisson --vllm-burstiness 2",
            "--arrival-smoothness goes with --arrival-pattern gamma",
        ),
        ("-m x --prefill-concurrency 2", "--prefill-concurrency needs --streaming"),
        (
            "-m x --streaming --concurrency 2 --prefill-concurrency 3",
            "--prefill-concurrency 3 is more than --concurrency 2",
        ),
        (
            "-m x --streaming --warmup-concurrency 2 --warmup-prefill-concurrency 3",
            "--warmup-prefill-concurrency 3 is more than the warmup's 2",
        ),
        ("-m x --request-cancellation-delay 1", "--request-cancellation-delay needs --request-cancellation-rate"),
        (
            "-m x --input-file FILE --fixed-schedule --user-centric-rate 5 --num-users 3",
            "--user-centric-rate: with --fixed-schedule the trace sets the pace",
        ),
        (
            "-m x --input-file FILE --fixed-schedule --arrival-smoothness 5",
            "--arrival-smoothness: with --fixed-schedule the trace sets the pace",
        ),
        (
            "-m x --input-file FILE --fixed-schedule --request-rate-series SERIES",
            "--request-rate-series: with --fixed-schedule the trace sets the pace",
        ),
        (
            "-m x --input-file FILE --fixed-schedule --open-loop-strict --no-open-loop-replay",
            "--open-loop-strict sends every row at its timestamp",
        ),
        ("-m x --concurrency 100000000", "--concurrency 100000000: expected at most 1000000"),
        ("-m x --streaming --prefill-concurrency 2000000", "--prefill-concurrency 2000000: expected at most 1000000"),
        (
            "-m x --request-count 1000000000000",
            "--request-count 1000000000000: at most 100000000 prompts are generated",
        ),
        (
            "-m x --num-prompts 1000000000000 --request-count 5",
            "--num-dataset-entries 1000000000000: at most 100000000",
        ),
        ("-m x --isl 1000000000", "--isl must be between 1 and 16777216"),
        ("-m x --tokenizer org/no-such-model", "--tokenizer org/no-such-model: not found here"),
        ("-m x --profile-export-prefix a/b", "--profile-export-prefix a/b: expected the beginning"),
        ("-m x --profile-export-prefix .json", "--profile-export-prefix .json: expected the beginning"),
    ];
    for (line, said) in table {
        let why = refused(&named(line));
        assert!(why.starts_with(&named(said)), "{line}: {why}");
        assert!(!why.contains('\n') && !why.ends_with('.'), "{line}: {why}");
    }
}

#[test]
fn what_has_no_effect_is_noted() {
    let table = [
        ("", ""),
        ("--arrival-pattern constant", "--arrival-pattern has no effect without a request rate"),
        ("--arrival-pattern concurrency-burst", ""),
        (
            "--arrival-pattern concurrency-burst --request-rate 4",
            "--arrival-pattern concurrency-burst is poisson where there is a request rate",
        ),
        ("--concurrency 64", "only 10 requests are sent, fewer than --concurrency"),
        ("--concurrency 64 --benchmark-duration 1", ""),
        ("--warmup-concurrency 4", "--warmup-concurrency has no effect without --warmup-request-count"),
        ("--warmup-prefill-concurrency 4 --streaming", "--warmup-prefill-concurrency has no effect without"),
        ("--warmup-request-rate-ramp-duration 4", "--warmup-request-rate-ramp-duration has no effect without"),
        ("--num-warmup-sessions 4 --warmup-concurrency 2", ""),
        ("--arrival-smoothness 2", "--arrival-smoothness has no effect without a request rate"),
        ("--request-rate 5 --concurrency-ramp-duration 2", "--concurrency-ramp-duration has no effect without --con"),
        ("--concurrency 5 --concurrency-ramp-duration 2", ""),
        ("--prefill-concurrency-ramp-duration 2", "--prefill-concurrency-ramp-duration has no effect without"),
        ("--ramp-strategy poisson", "--ramp-strategy has no effect without the duration"),
        ("--late-policy drop", "--late-policy has no effect without"),
        ("--late-policy drop --request-rate 5 --concurrency 3", ""),
        ("--abort-below-adherence 90", "--abort-below-adherence has no effect without"),
        ("--ties poisson", "--ties has no effect without the timestamps"),
        ("--replay-speedup 2", "--replay-speedup has no effect without the timestamps"),
        ("--max-idle-gap-cap-seconds 2", "--max-idle-gap-cap-seconds has no effect without"),
        ("--open-loop-strict", "--open-loop-strict has no effect without"),
        ("--record-processor-service-count 2", "--record-processors has no effect"),
        ("--stats-interval 5", "--stats-interval has no effect"),
        ("--input-file FILE --fixed-schedule --num-sessions 5", "--num-conversations has no effect with a fixed"),
        ("--input-file FILE --fixed-schedule --ties uniform --replay-speedup 2 --max-idle-gap-cap-seconds 3", ""),
        ("--osl 0", "--osl 0 leaves the length"),
        ("--zmq-host h", "--zmq-host has no effect"),
        ("-H Authorization:x --api-key k", "--api-key replaces the Authorization header"),
        ("--input-file FILE --num-prompts 5", "--num-dataset-entries has no effect"),
        ("--input-file FILE --fixed-schedule --request-count 5", "--request-count has no effect with a fixed schedule"),
        ("--model llama", "tokens are counted with the built-in tokenizer"),
        ("--model llama --use-server-token-count", ""),
        ("--model llama --tokenizer builtin", ""),
    ];
    for (line, said) in table {
        let model = if line.contains("--model") { "" } else { "-m mock --tokenizer builtin" };
        let config = run(&named(&format!("{model} {line}")));
        match said {
            "" => assert!(config.notes.is_empty(), "{line}: {:?}", config.notes),
            said => assert!(config.notes.len() == 1 && config.notes[0].starts_with(said), "{line}: {:?}", config.notes),
        }
    }
}

#[test]
fn of_several_models_the_first_has_the_tokenizer() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), "{}").unwrap();
    let first = dir.path().display();
    let said = format!("the tokens of all models are counted with the tokenizer of {first}; --tokenizer takes another");
    assert_eq!(run(&format!("-m {first} -m other")).notes, [said]);
    assert_eq!(run(&format!("-m {first}")).notes, [""; 0]);
    assert_eq!(run(&format!("-m {first} -m other --tokenizer builtin")).notes, [""; 0]);
}

#[test]
fn the_defaults_are_the_reference_s() {
    let config = run("-m mock");
    assert_eq!(config.endpoint.urls[0].as_str(), "http://localhost:8000");
    assert_eq!(config.endpoint.target(&config.endpoint.urls[0], "m"), "/v1/chat/completions");
    assert_eq!(config.endpoint.timeout, 21_600_000_000_000);
    assert_eq!(config.ui, Ui::None);
    assert_eq!(config.tokenizer.name(), "builtin");
    assert!(config.machine.preconnect);
    let phase = PhaseConfig {
        seamless: false,
        name: "profiling",
        kind: PhaseKind::Profiling,
        arrival: Arrival::ClosedLoop,
        series: None,
        rate_ramp: None,
        concurrency: Some(1),
        concurrency_ramp: None,
        prefill_concurrency: None,
        prefill_ramp: None,
        requests: Some(10),
        sessions: None,
        duration_ns: None,
        grace_ns: None,
        cancellation: None,
    };
    assert_eq!(config.load.phases, [phase]);
    let Input::Synthetic(made) = config.input else {
        panic!("prompts are generated");
    };
    assert_eq!(made.options, Options::default());
}

#[test]
fn phases_follow_the_options() {
    let config = run("-m x --request-rate 50 --concurrency 8 --benchmark-duration 2.5 --warmup-request-count 4 \
                      --warmup-concurrency 2");
    let [warmup, profiling] = config.load.phases.as_slice() else {
        panic!("two phases");
    };
    assert_eq!(warmup.kind, PhaseKind::Warmup);
    assert_eq!(warmup.arrival, Arrival::Poisson(50.0));
    assert_eq!((warmup.concurrency, warmup.requests, warmup.grace_ns), (Some(2), Some(4), None));
    assert_eq!(profiling.arrival, Arrival::Poisson(50.0));
    assert_eq!(profiling.concurrency, Some(8));
    assert_eq!(profiling.requests, None);
    assert_eq!(profiling.duration_ns, Some(2_500_000_000));
    assert_eq!(profiling.grace_ns, Some(30_000_000_000));

    let last = |line: &str| run(line).load.phases.pop();
    let endless = last("-m x --benchmark-duration 1 --benchmark-grace-period inf");
    assert_eq!(endless.map(|p| p.grace_ns), Some(None));
    let even = last("-m x --request-rate 5 --request-rate-mode constant");
    assert_eq!(even.map(|p| (p.arrival, p.concurrency)), Some((Arrival::Constant(5.0), None)));
}

#[test]
fn every_way_to_pace_is_understood() {
    let last = |line: &str| run(&named(line)).load.phases.pop().expect("a phase");
    for (line, arrival) in [
        ("-m x --request-rate 5 --arrival-pattern gamma", Arrival::Gamma { rate: 5.0, smoothness: 1.0 }),
        ("-m x --request-rate 5 --vllm-burstiness 0.5", Arrival::Gamma { rate: 5.0, smoothness: 0.5 }),
        (
            "-m x --request-rate 5 --request-rate-mode gamma --arrival-smoothness 4",
            Arrival::Gamma { rate: 5.0, smoothness: 4.0 },
        ),
        ("-m x --user-centric-rate 2 --num-users 8", Arrival::UserCentric { rate: 2.0, users: 8 }),
        ("-m x --request-rate-series SERIES", Arrival::Poisson(10.0)),
        ("-m x --request-rate-series SERIES --arrival-pattern constant", Arrival::Constant(10.0)),
    ] {
        assert_eq!(last(line).arrival, arrival, "{line}");
    }
    let series = last("-m x --request-rate-series SERIES --request-rate-ramp-duration 2");
    assert_eq!((series.peak_rate(), series.rate_ramp.map(|r| r.duration)), (Some(20.0), Some(2_000_000_000)));
    assert_eq!(series.series.map(|s| s.points.len()), Some(4));
}

#[test]
fn limits_and_their_ramps_are_understood() {
    let config = run("-m x --streaming --concurrency 9 --concurrency-ramp-duration 3 --prefill-concurrency 4 \
         --prefill-concurrency-ramp-duration 2 --ramp-strategy exponential --request-cancellation-rate 12.5 \
         --request-cancellation-delay 0.5 --num-sessions 40 --failed-request-threshold 0.2");
    let phase = &config.load.phases[0];
    let ramp = |seconds: u64| Some(Ramp { duration: seconds * 1_000_000_000, strategy: RampStrategy::Exponential });
    assert_eq!((phase.concurrency, phase.concurrency_ramp), (Some(9), ramp(3)));
    assert_eq!((phase.prefill_concurrency, phase.prefill_ramp), (Some(4), ramp(2)));
    assert_eq!(phase.cancellation, Some(load::Cancellation { percent: 12.5, delay: 500_000_000 }));
    // Conversations bound the run, so that ten requests do not.
    assert_eq!((phase.sessions, phase.requests), (Some(40), None));
    assert_eq!(config.load.failed_threshold, Some(0.2));
}

#[test]
fn a_warmup_inherits_what_it_does_not_say() {
    let config =
        run("-m x --streaming --request-rate 8 --arrival-smoothness 3 --concurrency 9 --prefill-concurrency 4 \
         --request-rate-ramp-duration 2 --concurrency-ramp-duration 3 --request-cancellation-rate 5 \
         --warmup-duration 4 --num-warmup-sessions 7 --warmup-concurrency-ramp-duration 1");
    let warmup = &config.load.phases[0];
    assert_eq!(warmup.kind, PhaseKind::Warmup);
    assert_eq!(warmup.arrival, Arrival::Gamma { rate: 8.0, smoothness: 3.0 });
    assert_eq!((warmup.concurrency, warmup.prefill_concurrency), (Some(9), Some(4)));
    assert_eq!(warmup.concurrency_ramp.map(|r| r.duration), Some(1_000_000_000));
    assert_eq!(warmup.rate_ramp.map(|r| r.duration), Some(2_000_000_000));
    assert_eq!((warmup.requests, warmup.sessions, warmup.duration_ns), (None, Some(7), Some(4_000_000_000)));
    assert_eq!((warmup.grace_ns, warmup.cancellation), (None, None), "it waits for all, and cuts none");
    let own =
        run("-m x --request-rate 8 --warmup-request-count 3 --warmup-arrival-pattern constant --warmup-duration 2 \
         --warmup-grace-period 1");
    assert_eq!(own.load.phases[0].arrival, Arrival::Constant(8.0));
    assert_eq!(own.load.phases[0].grace_ns, Some(1_000_000_000));
    // A series is the measurement's alone.
    let series = run(&named("-m x --request-rate-series SERIES --warmup-request-count 3"));
    assert_eq!((series.load.phases[0].arrival, series.load.phases[0].concurrency), (Arrival::ClosedLoop, Some(1)));
}

#[test]
fn a_replay_s_options_are_understood() {
    let config = run(&named(
        "-m x --input-file FILE --fixed-schedule --ties poisson --replay-speedup 60 --max-idle-gap-cap-seconds 1.5 \
         --inter-turn-delay-cap-seconds 0 --no-open-loop-replay",
    ));
    let replay = config.replay;
    assert_eq!((replay.ties, replay.speedup, replay.open), (Ties::Poisson, 60.0, Loop::Closed));
    assert_eq!((replay.idle_gap_cap, replay.turn_delay_cap), (Some(1_500_000_000), Some(0)));
    let strict = run(&named("-m x --input-file FILE --fixed-schedule --open-loop-strict"));
    assert_eq!(strict.replay.open, Loop::Strict);
    // The later of the two counts, as with any switch.
    let line = "-m x --input-file FILE --fixed-schedule --no-open-loop-replay --open-loop-replay";
    assert_eq!(run(&named(line)).replay.open, Loop::Open);
}

#[test]
fn the_load_shows_in_the_files() {
    let phase = |line: &str| run(&named(line)).input_config()["phases"][0].to_string();
    assert_eq!(
        phase(
            "-m m --streaming --request-rate 8 --arrival-smoothness 3 --request-rate-ramp-duration 2 \
             --concurrency 9 --concurrency-ramp-duration 3 --ramp-strategy poisson --prefill-concurrency 4 \
             --num-sessions 5 --request-cancellation-rate 5 --failed-request-threshold 0.5"
        ),
        r#"{"name":"profiling","kind":"profiling","type":"gamma","sessions":5,"concurrency":9,"concurrency_ramp":{"duration":3.0,"strategy":"poisson"},"prefill_concurrency":4,"cancellation":{"rate":5.0,"delay":0.0},"failed_request_threshold":0.5,"rate":8.0,"rate_ramp":{"duration":2.0,"strategy":"poisson"},"smoothness":3.0}"#
    );
    assert_eq!(
        phase("-m m --user-centric-rate 2 --num-users 12"),
        r#"{"name":"profiling","kind":"profiling","type":"user_centric","requests":12,"rate":2.0,"users":12}"#
    );
    let series = phase("-m m --request-rate-series SERIES");
    assert!(series.contains(r#""rate":10.0,"rate_series":{"points":[{"time_s":0.0,"qps":10.0},"#), "{series}");
}

#[test]
fn a_trace_with_timestamps_sets_the_pace() {
    let line = format!("-m x --input-file {FILE} --custom-dataset-type mooncake_trace --concurrency 3");
    let mut timed = run(&line);
    assert_eq!(timed.fixed_schedule, FixedSchedule::AutoIfTrace);
    assert_eq!(timed.settle_file(Format::MooncakeTrace, true), Ok(()));
    assert_eq!(timed.fixed_schedule, FixedSchedule::Yes);
    let phase = &timed.load.phases[0];
    assert_eq!((phase.arrival, phase.requests), (Arrival::FixedSchedule, None));
    assert_eq!(phase.concurrency, Some(3));
    assert!(timed.artifact_dir().ends_with("x-openai-chat-fixed_schedule"));

    let mut untimed = run(&line);
    assert_eq!(untimed.settle_file(Format::MooncakeTrace, false), Ok(()));
    assert_eq!(untimed.fixed_schedule, FixedSchedule::No);
    assert_eq!(untimed.load.phases[0].requests, Some(10));

    let mut kept = run(&format!("{line} --no-fixed-schedule"));
    assert_eq!(kept.settle_file(Format::MooncakeTrace, true), Ok(()));
    assert_eq!(kept.fixed_schedule, FixedSchedule::No);

    let mut paced = run(&format!("{line} --request-rate 5"));
    let why = paced.settle_file(Format::MooncakeTrace, true).map_err(|r| r.to_string());
    assert!(why.is_err_and(|w| w.starts_with("--request-rate: the trace has timestamps")));
    assert_eq!(paced.settle_file(Format::MooncakeTrace, false), Ok(()));

    let mut shaped = run(&format!("{line} --vllm-burstiness 5"));
    let why = shaped.settle_file(Format::MooncakeTrace, true).map_err(|r| r.to_string());
    assert!(why.is_err_and(|w| w.starts_with("--arrival-smoothness: the trace has timestamps")));

    let mut dull = run(&format!("-m x --input-file {FILE} --fixed-schedule"));
    assert!(dull.settle_file(Format::SingleTurn, false).is_err());
    let mut capped = run(&format!("-m x --input-file {FILE} --synthesis-max-osl 5"));
    assert!(capped.settle_file(Format::SingleTurn, false).is_err());
}

#[test]
fn the_directory_is_named_after_the_run() {
    for (line, want) in [
        ("-m org/m --concurrency 10", "artifacts/org_m-openai-chat-concurrency10"),
        ("-m m --request-rate 20", "artifacts/m-openai-chat-request_rate20.0"),
        ("-m m --request-rate 2.5 --concurrency 3", "artifacts/m-openai-chat-concurrency3-request_rate2.5"),
        ("-m m --user-centric-rate 1 --num-users 3", "artifacts/m-openai-chat-user_centric-users3-qps1.0"),
        ("-m m --artifact-dir a/b", "a/b"),
    ] {
        assert_eq!(run(line).artifact_dir(), PathBuf::from(want), "{line}");
    }
    let named = run("-m m --profile-export-file foo_raw.jsonl");
    assert_eq!(named.output.prefix.as_deref(), Some("foo"));
}

#[test]
fn the_key_makes_the_authorization_header() {
    let config = run("-m m -H Authorization:x -H X-A:1 -H x-a:2 --api-key sesame");
    let sent: Vec<_> = config.endpoint.headers.iter().map(|h| (h.name.as_str(), h.value.as_str())).collect();
    assert_eq!(sent, [("x-a", "2"), ("Authorization", "Bearer sesame")]);
    assert!(!format!("{config:?} {}", config.input_config()).contains("sesame"));
    assert_eq!(config.input_config()["endpoint"]["api_key"], json!("<redacted>"));
    assert_eq!(config.input_config()["endpoint"]["headers"], json!({"x-a": "2"}));
}

#[test]
fn each_vendor_gets_the_key_its_own_way() {
    let sent = |line: &str| {
        let config = run(line);
        assert!(!format!("{config:?} {}", config.input_config()).contains("sesame"));
        let pair = |h: &crate::config::endpoint::Header| format!("{}: {}", h.name, h.value);
        config.endpoint.headers.iter().map(pair).collect::<Vec<_>>()
    };
    let messages = "-m m --endpoint-type messages";
    assert_eq!(sent(&format!("{messages} --api-key sesame")), ["x-api-key: sesame", "anthropic-version: 2023-06-01"]);
    assert_eq!(
        sent(&format!("{messages} -H Anthropic-Version:9 -H X-API-Key:sesame")),
        ["Anthropic-Version: 9", "X-API-Key: sesame"]
    );
    assert_eq!(sent("-m m --endpoint-type embeddings --api-key sesame"), ["Authorization: Bearer sesame"]);
}

#[test]
fn each_type_has_its_path_and_stream() {
    for (line, target) in [
        ("--endpoint-type Chat", "/v1/chat/completions"),
        ("--endpoint-type HUGGINGFACE-generate", "/generate"),
        ("--endpoint-type huggingface_generate --streaming", "/generate_stream"),
        ("--endpoint-type kserve-infer --streaming", "/v2/models/org%2Fm/infer"),
        ("--endpoint-type kserve-generate --streaming", "/v2/models/org%2Fm/generate_stream"),
        ("--endpoint-type raw -u http://h/x/y", "/x/y"),
        ("--endpoint-type nim-rankings -u http://h/v1", "/v1/ranking"),
        ("--endpoint-type embeddings --custom-endpoint /e", "/e"),
    ] {
        let config = run(&format!("-m org/m {line}"));
        assert_eq!(config.endpoint.target(&config.endpoint.urls[0], "org/m"), target, "{line}");
    }
    let config = run("-m m --endpoint-type nim-rankings --streaming");
    assert!(!config.endpoint.streaming);
    assert!(config.notes.iter().any(|note| note.starts_with("--streaming: nim_rankings answers in one piece")));
    assert_eq!(config.endpoint.content_type(), "application/json");
    let config = run("-m m --endpoint-type image-edit --request-content-type multipart/form-data");
    assert!(config.endpoint.content_type().starts_with("multipart/form-data; boundary=maser-"));
    let config = run("-m m --endpoint-type image-edit --extra-inputs mask:x,size:y");
    assert!(config.notes.iter().any(|note| note.starts_with("--extra-inputs mask: image_edit makes that field")));
}

#[test]
fn a_mock_is_the_server() {
    let mut config = run("--mock=model=tiny,host=::1 --streaming");
    assert_eq!(config.models.first(), "tiny");
    config.endpoint.set_port(4321);
    assert_eq!(config.endpoint.urls[0].as_str(), "http://[::1]:4321");
    assert_eq!(config.endpoint.urls[0].host_header(), "[::1]:4321");
    assert_eq!(run("--mock").models.first(), "mock");
}

/// Options of the reference's runs that this version refuses, with their values.
const OUT_OF_SCOPE: [&str; 4] = ["--server-metrics-formats", "json", "csv", "jsonl"];

/// Takes out of a settings object what those options put in, and what the reference collects by default.
fn in_scope(config: &mut Value) {
    let drop = |value: &mut Value, keys: &[&str]| {
        if let Some(object) = value.as_object_mut() {
            object.retain(|key, _| !keys.contains(&key.as_str()));
        }
    };
    drop(config, &["gpu_telemetry", "server_metrics"]);
}

#[test]
fn the_settings_in_the_files_are_the_reference_s() {
    let runs: Vec<Value> = serde_json::from_str(RUNS).expect("JSON");
    assert_eq!(runs.len(), 4);
    for theirs in runs {
        let words = theirs["argv"].as_array().expect("a list").iter().skip(1);
        let words = words.map(|w| w.as_str().expect("text"));
        let words: Vec<String> =
            words.filter(|w| !OUT_OF_SCOPE.contains(w)).map(|w| w.replace("traces/golden.jsonl", FILE)).collect();
        let mut config = resolve(&words).expect("resolved");
        if config.fixed_schedule == FixedSchedule::Yes {
            config.settle_file(Format::MooncakeTrace, true).expect("a trace");
            config.set_scheduled_requests(100);
        }
        let mut ours = config.input_config();
        let mut want = theirs["input_config"].clone();
        in_scope(&mut ours);
        in_scope(&mut want);
        // As text: the order of the keys counts.
        let ours = ours.to_string().replace(FILE, "traces/golden.jsonl");
        assert_eq!(ours, want.to_string(), "{}", theirs["run"]);

        let typed: Vec<&str> =
            theirs["argv"].as_array().expect("a list").iter().skip(1).filter_map(Value::as_str).collect();
        let line = redact::cli_command(&argv(&typed));
        assert_eq!(Some(line.replacen("maser", "aiperf", 1).as_str()), theirs["cli_command"].as_str());
    }
}

#[test]
fn given_options_show_in_the_files_in_the_reference_s_order() {
    let config = run("-m m --use-legacy-max-tokens --use-server-token-count --session-header X-S \
         --endpoint /x --request-timeout-seconds 1.5 --export-level summary --isl 5 --isl-block-size 4 \
         --benchmark-duration 3 --benchmark-grace-period inf --workers-max 2 --log-level debug --ui simple \
         --profile-export-prefix p --extra-inputs api_key:abc,n:1");
    let shown = config.input_config();
    let text = |key: &str| shown[key].to_string();
    assert_eq!(
        text("endpoint"),
        r#"{"urls":["http://localhost:8000"],"path":"/x","timeout":1.5,"use_legacy_max_tokens":true,"use_server_token_count":true,"extra":{"api_key":"<redacted>","n":1},"session_header":"X-S"}"#
    );
    assert_eq!(
        text("phases"),
        r#"[{"name":"profiling","kind":"profiling","type":"concurrency","duration":3.0,"concurrency":1,"grace_period":null}]"#
    );
    assert_eq!(
        text("artifacts"),
        r#"{"dir":"artifacts/m-openai-chat-concurrency1","prefix":"p","records":false,"raw":false,"auto_plot":false,"plot_required":false}"#
    );
    assert_eq!(
        text("datasets"),
        r#"[{"name":"main","type":"synthetic","prompts":{"isl":{"mean":5.0},"block_size":4}}]"#
    );
    assert_eq!(text("runtime"), r#"{"ui":"simple","workers":2}"#);
    assert_eq!(text("logging"), r#"{"level":"DEBUG"}"#);
}

#[test]
fn servers_and_what_they_are_asked_show_in_the_files() {
    let config = run("-m m -u a:1,b:2/v1 --url-strategy weighted --url-weights 3,1 --connection-reuse-strategy never \
         --wait-for-model-timeout 9 --server-profiler --reset-kv-cache-path /flush --dataset-sampling-strategy shuffle \
         --warmup-request-count 2 --seamless-warmup");
    let shown = config.input_config();
    assert_eq!(
        shown["endpoint"].to_string(),
        r#"{"urls":["http://a:1","http://b:2/v1"],"url_strategy":"weighted","url_weights":[3,1],"connection_reuse":"never","wait_for_model":{"timeout":9.0,"mode":"inference","interval":5.0},"reset_kv_cache":{"timeout":30.0,"path":"/flush"},"server_profiler":{"timeout":30.0,"start_path":"/start_profile","stop_path":"/stop_profile"}}"#
    );
    assert_eq!(shown["datasets"][0]["sampling"], "shuffle");
    assert_eq!((&shown["phases"][0]["seamless"], &shown["phases"][1]["seamless"]), (&Value::Null, &true.into()));
    let at = &config.endpoint;
    let beside: Vec<String> = at.urls.iter().map(|url| at.beside(url, "/v1/models", "m")).collect();
    assert_eq!(beside, ["/v1/models", "/v1/models"]);
    let whole = run("-m m -u h/proxy/v1/chat/completions?x=1");
    assert_eq!(whole.endpoint.beside(&whole.endpoint.urls[0], "/v1/models", "m"), "/proxy/v1/models?x=1");
    let noted =
        run("-m m --url-strategy least-in-flight --wait-for-model-interval 5 --seamless-warmup").notes.join("\n");
    for flag in ["--url-strategy least-in-flight", "--wait-for-model-interval", "--seamless-warmup"] {
        assert!(noted.contains(&format!("{flag} has no effect ")), "{noted}");
    }
}
