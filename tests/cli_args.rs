//! Wrong command lines, end to end: the exact sentence on stderr, exit code 2, nothing on stdout.

use std::process::{Command, Output};

fn maser(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_maser"))
        .args(words)
        .output()
        .unwrap_or_else(|e| panic!("maser did not start: {e}"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_wrong_command_line_is_one_sentence_and_exit_code_2() {
    let table: &[(&[&str], &str)] = &[
        (
            &["profile", "-m", "x", "--otel-url", "http://x"],
            "--otel-url is not supported yet by this version of maser; remove it to run without it",
        ),
        (
            &["profile", "-m", "x", "-f", "4"],
            "-f is not supported yet by this version of maser; remove it to run without it",
        ),
        (
            &["profile", "-m", "x", "--concurrency", "1,2,4"],
            "--concurrency 1,2,4: sweeps are not supported yet by this version of maser, give a single value",
        ),
        (
            &["profile", "-m", "x", "--request-rate", "nan"],
            "--request-rate nan: expected a number above 0 (requests per second)",
        ),
        (&["profile", "-m", "x", "--num-requests=0"], "--num-requests 0: expected a whole number of at least 1"),
        (&["profile", "-m", "x", "--concurency", "4"], "unknown option --concurency, did you mean --concurrency?"),
        (&["profile", "-m", "x", "--ui", "tui"], "--ui tui: expected one of simple, none, dashboard"),
        (&["profile", "-m", "x", "-n", "4"], "unknown option -n, did you mean --request-count?"),
        (
            &["profile", "http://localhost:8000", "-m", "x"],
            "unexpected argument \"http://localhost:8000\" (URLs go with -u: maser profile -u http://localhost:8000)",
        ),
        (
            &["profile", "-m", "x", "--goodput", "ttft:200", "itl:20"],
            "unexpected argument \"itl:20\"; quote the list: --goodput \"… itl:20\"",
        ),
        (
            &["profile", "-m", "x", "-u", "https://host"],
            "--url https://host: https is not supported yet by this version of maser, use http",
        ),
        (
            &["profile", "-m", "x,y", "--model-selection-strategy", "weighted"],
            "--model-selection-strategy weighted: not supported yet by this version of maser, which has round-robin, random",
        ),
        (&["profile", "-m", "x", "--transport", "grpc"], "--transport grpc: expected one of http"),
        (&["profile", "-m", "x", "--transport-type=zmq"], "--transport-type zmq: expected one of http"),
        (
            &["profile", "-m", "x", "--use-think-time-only"],
            "--use-think-time-only shapes only an agentic replay, which this version of maser does not have; remove it, \
             every other run goes on as it would without",
        ),
        (
            &["profile", "-m", "x", "--allow-dataset-wrap"],
            "--allow-dataset-wrap shapes only an agentic replay, which this version of maser does not have; remove it, \
             every other run goes on as it would without",
        ),
        // What is accepted goes on to the next mistake.
        (
            &["profile", "--transport-type", "HTTP"],
            "--model is required; add -m NAME with the name the server knows the model by",
        ),
        (&["profile"], "--model is required; add -m NAME with the name the server knows the model by"),
        (
            &["profile", "-m", "x", "--benchmark-grace-period", "1"],
            "--benchmark-grace-period needs --benchmark-duration: it begins when the duration ends",
        ),
        (
            &["profile", "--mock=fault=boom:1"],
            "--mock=fault=boom:1: --fault boom:1: unknown kind of fault, expected one of http500, http429, reset, \
             close, malformed, error-event, hang",
        ),
        (&["serve", "--ttft", "soon"], "--ttft soon: expected milliseconds of at least 0, or a time such as 20ms, 1s"),
        (&["serve", "--frobnicate", "4"], "unknown option --frobnicate; `maser serve --help` lists them"),
        (&["--concurrency", "4"], "--concurrency must come after a command, as in `maser profile --concurrency`"),
        (&["profil"], "unknown command \"profil\", did you mean profile?"),
    ];
    for (words, sentence) in table {
        let out = maser(words);
        assert_eq!(text(&out.stderr), format!("error: {sentence}\n"), "{words:?}");
        assert_eq!(out.status.code(), Some(2), "{words:?}");
        assert!(out.stdout.is_empty(), "{words:?}");
    }
}

#[test]
fn a_wrong_key_is_not_repeated() {
    let out = maser(&["profile", "-m", "x", "--api-key", "sk s3cr3t"]);
    assert_eq!(out.status.code(), Some(2));
    assert!(text(&out.stderr).starts_with("error: --api-key: "));
    assert!(!text(&out.stderr).contains("s3cr3t"));
}

#[test]
fn help_shows_what_is_supported_and_hides_the_rest() {
    let out = maser(&["profile", "--help"]);
    assert_eq!(out.status.code(), Some(0));
    let help = text(&out.stdout);
    for shown in
        ["Load Generator:", "Only in maser:", "--concurrency <N>", "--isl <TOKENS>", "--mock[=<SPEC>]", "--goodput"]
    {
        assert!(help.contains(shown), "{shown}\n{help}");
    }
    assert!(!help.contains("mlflow"));
    assert!(text(&maser(&["--help"]).stdout).contains("Examples:"));
    assert_eq!(maser(&[]).status.code(), Some(2));
}

/// A run against the built-in server with this command line and environment.
fn short_run(dir: &std::path::Path, words: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_maser"))
        .args(["profile", "--mock=ttft=1,itl=1", "--request-count", "4", "--isl", "8", "--osl", "4", "--artifact-dir"])
        .arg(dir)
        .args(words)
        .envs(variables.iter().copied())
        .output()
        .unwrap_or_else(|e| panic!("maser did not start: {e}"))
}

#[test]
fn options_that_only_add_files_or_change_the_view_end_no_run() {
    let dir = tempfile::tempdir().unwrap();
    let words = [
        "--ui",
        "dashboard",
        "--server-metrics",
        "http://localhost:1/metrics",
        "--server-metrics-formats",
        "json",
        "csv",
        "--gpu-telemetry",
        "pynvml",
        "--auto-plot",
        "--no-sweep-table",
    ];
    let out = short_run(dir.path(), &words, &[("AIPERF_ZMQ_RCVTIMEO", "1")]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let summary = std::fs::read(dir.path().join("profile_export_aiperf.json")).unwrap();
    let summary: serde_json::Value = serde_json::from_slice(&summary).unwrap();
    let notes = summary["maser"]["notes"].to_string();
    for flag in [
        "--ui dashboard",
        "--server-metrics",
        "--server-metrics-formats",
        "--gpu-telemetry",
        "--auto-plot",
        "AIPERF_ZMQ_RCVTIMEO",
    ] {
        assert!(text(&out.stderr).contains(&format!("note: {flag}")), "{flag}: {}", text(&out.stderr));
        assert!(notes.contains(flag), "{flag}: {notes}");
    }
}

#[test]
fn a_variable_that_would_change_results_ends_the_run_however_quiet() {
    let dir = tempfile::tempdir().unwrap();
    for quiet in [&["-q"][..], &["--log-level", "error"]] {
        let out = short_run(dir.path(), quiet, &[("AIPERF_METRICS_OSL_MISMATCH_PCT_THRESHOLD", "7")]);
        assert_eq!(out.status.code(), Some(2));
        assert!(
            text(&out.stderr).starts_with("error: AIPERF_METRICS_OSL_MISMATCH_PCT_THRESHOLD=7 in the environment ")
        );
    }
}

#[test]
fn durations_have_units_and_metrics_their_short_names() {
    let dir = tempfile::tempdir().unwrap();
    let words = ["--streaming", "--request-timeout-seconds", "1m", "--goodput", "ttft:10s e2e:60000"];
    let out = short_run(dir.path(), &words, &[]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let summary = std::fs::read(dir.path().join("profile_export_aiperf.json")).unwrap();
    let summary: serde_json::Value = serde_json::from_slice(&summary).unwrap();
    let levels = &summary["input_config"]["slos"];
    assert_eq!(*levels, serde_json::json!({"time_to_first_token": 10000.0, "request_latency": 60000.0}));
    assert_eq!(summary["good_request_count"]["avg"], 4.0);
}
