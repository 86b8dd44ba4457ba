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
        (&["profile", "-m", "x", "--concurency", "4"], "--concurency is no option, did you mean --concurrency?"),
        (
            &["profile", "-m", "x", "--ui", "dashboard"],
            "--ui dashboard: not supported yet by this version of maser, which has simple, none",
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
        (&["serve", "--ttft", "soon"], "--ttft soon: expected milliseconds of at least 0"),
        (&["serve", "--frobnicate", "4"], "--frobnicate is no option; `maser serve --help` lists them"),
        (
            &["--concurrency", "4"],
            "--concurrency stands before any command; write it after one, as in `maser profile --concurrency`",
        ),
        (&["profil"], "\"profil\" is no command, did you mean profile?"),
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
