//! Every endpoint type against the built-in server, as a user runs it: all requests answered, all output counted, and the
//! files say what the type has and nothing else.

use maser_engine::endpoint::Kind;
use maser_engine::log::{FILE_NAME, Log};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempDir;

const REQUESTS: u64 = 4;

/// What one run left behind.
struct Run {
    dir: TempDir,
    summary: Value,
    stderr: String,
}

fn command(dir: &Path, arguments: &[&str]) -> Command {
    let mut maser = Command::new(env!("CARGO_BIN_EXE_maser"));
    maser.current_dir(dir).arg("profile").args(arguments).args(["--artifact-dir", "run", "--ui", "none"]);
    maser.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    maser
}

impl Run {
    /// A run of four requests of eight output tokens each; `rows` are the lines of its input file, if it has one.
    #[track_caller]
    fn of(mock: &str, arguments: &[&str], rows: &[Value]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (mock, count) = (format!("--mock=ttft=0,itl=0,osl=8{mock}"), REQUESTS.to_string());
        let mut all = vec![mock.as_str(), "--request-count", &count];
        if rows.is_empty() {
            all.extend(["--isl", "16", "--osl", "8", "--random-seed", "1"]);
        } else {
            let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
            std::fs::write(dir.path().join("rows.jsonl"), lines.join("\n")).unwrap();
            all.extend(["--custom-dataset-type", "mooncake_trace", "--input-file", "rows.jsonl"]);
        }
        all.extend(arguments);
        let output = command(dir.path(), &all).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}\n{stderr}");
        let summary = std::fs::read_to_string(dir.path().join("run/profile_export_aiperf.json")).unwrap();
        Self { summary: serde_json::from_str(&summary).unwrap(), stderr, dir }
    }

    fn avg(&self, tag: &str) -> Option<f64> {
        self.summary[tag]["avg"].as_f64()
    }

    fn log(&self) -> Log {
        Log::open(&self.dir.path().join("run").join(FILE_NAME)).unwrap()
    }
}

/// Prompts that are made, or ready bodies where a type takes more than one text.
fn rows(kind: Kind) -> Vec<Value> {
    let payload = match kind {
        Kind::NimRankings => {
            json!({"model": "mock", "query": {"text": "q"}, "passages": [{"text": "a"}, {"text": "b"}]})
        }
        Kind::CohereRankings => json!({"model": "mock", "query": "q", "documents": ["a", "b"]}),
        Kind::HfTeiRankings => json!({"query": "q", "texts": ["a", "b"]}),
        Kind::ImageRetrieval => json!({"input": [{"type": "image_url", "url": "data:image/png;base64,iVBORw0KGgo="}]}),
        Kind::Raw => json!({"model": "mock", "prompt": "a b c", "max_tokens": 8}),
        _ => return Vec::new(),
    };
    vec![json!({"payload": payload})]
}

/// Types whose bodies need what no file format of this version holds.
fn is_out_of_reach(kind: Kind) -> bool {
    matches!(kind, Kind::ImageEdit | Kind::AudioTranscription | Kind::VideoGeneration)
}

#[test]
fn every_type_is_loaded_and_counted() {
    for &kind in Kind::ALL.iter().filter(|kind| !is_out_of_reach(**kind)) {
        for streaming in [false, true] {
            let mut arguments = vec!["--endpoint-type", kind.name()];
            match kind {
                Kind::Raw => arguments.extend(["--custom-endpoint", "/v1/completions"]),
                Kind::Template => arguments.extend([
                    "--custom-endpoint",
                    "/v1/completions",
                    "--extra-inputs",
                    r#"{"payload_template":{"prompt":"{{ text }}","model":"{{ model }}","max_tokens":8},"response_field":"choices[0].text"}"#,
                ]),
                _ => {}
            }
            if streaming {
                arguments.push("--streaming");
            }
            let run = Run::of("", &arguments, &rows(kind));
            let name = format!("{} streaming {streaming}\n{}", kind.name(), run.stderr);
            assert_eq!(run.avg("request_count"), Some(REQUESTS as f64), "{name}");
            assert_eq!(run.summary["error_summary"], json!([]), "{name}");
            let streams = streaming && kind.can_stream();
            assert_eq!(run.stderr.contains("answers in one piece"), streaming && !streams, "{name}");
            if kind.produces_tokens() {
                assert_eq!(run.avg("output_sequence_length"), Some(8.0), "{name}");
            } else {
                assert_eq!(run.avg("output_token_throughput"), None, "{name}");
            }
            assert_eq!(run.avg("time_to_first_token").is_some(), streams && kind.produces_tokens(), "{name}");
            let log = run.log();
            assert_eq!(log.header.endpoint, kind.name());
            for (record, _) in log.records() {
                assert_eq!(record.units > 0, !kind.produces_tokens(), "{name}");
            }
        }
    }
}

#[test]
fn tokens_of_each_event_are_the_servers() {
    let arguments =
        ["--streaming", "--use-server-token-count", "--per-chunk-usage", "--endpoint-type", "chat", "--model", "mock"];
    let run = Run::of(",tokens-per-chunk=3", &arguments, &[]);
    let log = run.log();
    for (record, payload) in log.records() {
        let tokens: Vec<u64> = payload.tokens().collect();
        assert_eq!(tokens, [3, 3, 2]);
        assert_eq!((record.chunks, record.usage_completion), (3, 8));
    }
    let plain = Run::of(",tokens-per-chunk=3", &["--streaming"], &[]);
    assert!(plain.log().records().all(|(_, payload)| payload.tokens.is_empty()));
}

#[test]
fn speculative_decoding_is_kept_as_the_server_tells_it() {
    let run = Run::of(",spec-decode=3", &["--streaming"], &[]);
    for (_, payload) in run.log().records() {
        let told: Value = serde_json::from_slice(payload.speculation).unwrap();
        assert!(told.as_object().is_some_and(|told| !told.is_empty()), "{told}");
    }
}

#[test]
fn every_choice_is_counted() {
    for streaming in [false, true] {
        let mut arguments = vec!["--extra-inputs", "n:3"];
        if streaming {
            arguments.push("--streaming");
        }
        let run = Run::of("", &arguments, &[]);
        assert_eq!(run.avg("usage_completion_tokens"), Some(24.0));
        let counted = run.avg("output_sequence_length").unwrap();
        assert!((23.0..=24.0).contains(&counted), "{counted}");
    }
}

#[test]
fn what_cannot_be_sent_is_refused_before_any_traffic() {
    for (arguments, part) in [
        (&["--endpoint-type", "video-generation"][..], "--endpoint-type video-generation: not supported yet"),
        (&["--endpoint-type", "nothing"], "--endpoint-type nothing: expected one of chat, completions"),
        (&["--endpoint-type", "raw"], "--endpoint-type raw: bodies are sent as the input file has them"),
        (&["--endpoint-type", "template"], "--endpoint-type template: it needs --extra-inputs payload_template"),
        (
            &["--endpoint-type", "template", "--extra-inputs", r#"{"payload_template":"{\"a\": {{ text }}}"}"#],
            "--endpoint-type template: the template rendered for session session_000000 is no JSON",
        ),
        (
            &["--endpoint-type", "raw", "--extra-inputs", "response_field:length(a)"],
            "--extra-inputs response_field: \"length(a)\" is neither",
        ),
        (&["--endpoint-type", "responses", "--extra-inputs", "store:true"], "add --use-server-token-count"),
        (&["--per-chunk-usage"], "--per-chunk-usage: it needs --use-server-token-count"),
        (&["--per-chunk-usage", "--use-server-token-count"], "--per-chunk-usage: it needs --streaming"),
        (
            &["--per-chunk-usage", "--use-server-token-count", "--endpoint-type", "messages", "--streaming"],
            "--per-chunk-usage: it needs --endpoint-type chat",
        ),
        (
            &["--request-content-type", "application/json", "--endpoint-type", "image-edit"],
            "image_edit takes multipart/form-data only",
        ),
        (&["--request-content-type", "multipart-form-data"], "chat takes application/json only"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let output = command(dir.path(), &[&["--mock"], arguments].concat()).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}\n{stderr}");
        assert!(stderr.contains(part), "{arguments:?}\n{stderr}");
    }
}
