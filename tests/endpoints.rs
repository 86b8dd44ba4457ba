//! Every endpoint type against the built-in server, as a user runs it: all requests answered, all output counted, and the
//! files say what the type has and nothing else.

use maser_engine::endpoint::Kind;
use maser_engine::log::{FILE_NAME, Log};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
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
    maser.env("AIPERF_HTTP_VIDEO_POLL_INTERVAL", "0.004");
    maser.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    maser
}

impl Run {
    /// A run of four requests of eight output tokens each; `rows` are the lines of its input file, if it has one.
    #[track_caller]
    fn of(mock: &str, arguments: &[&str], rows: &[Value]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pace = if mock.contains("itl=") { "" } else { ",itl=0" };
        let (mock, count) = (format!("--mock=ttft=0,osl=8{pace}{mock}"), REQUESTS.to_string());
        let takes_text = !arguments.iter().any(|a| ["image_retrieval", "audio_transcription"].contains(a));
        let mut all = vec![mock.as_str(), "--request-count", &count];
        if rows.is_empty() && takes_text {
            all.extend(["--isl", "16", "--osl", "8", "--random-seed", "1"]);
        } else if !rows.is_empty() {
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

const IMAGES: [&str; 4] = ["--image-width-mean", "8", "--image-height-mean", "8"];
const AUDIO: [&str; 2] = ["--audio-length-mean", "0.05"];

/// What a type needs beyond its name.
fn needs(kind: Kind) -> Vec<&'static str> {
    match kind {
        Kind::ImageEdit | Kind::ImageRetrieval => IMAGES.to_vec(),
        Kind::AudioTranscription => AUDIO.to_vec(),
        Kind::Raw => vec!["--custom-endpoint", "/v1/completions"],
        Kind::Template => vec![
            "--custom-endpoint",
            "/v1/completions",
            "--extra-inputs",
            r#"{"payload_template":{"prompt":"{{ text }}","model":"{{ model }}","max_tokens":8},"response_field":"choices[0].text"}"#,
        ],
        _ => vec![],
    }
}

/// Ready bodies where nothing else is sent.
fn rows(kind: Kind) -> Vec<Value> {
    let payload = json!({"model": "mock", "prompt": "a b c", "max_tokens": 8});
    if kind == Kind::Raw { vec![json!({"payload": payload})] } else { vec![] }
}

#[test]
fn every_type_is_loaded_and_counted() {
    for &kind in Kind::ALL {
        for streaming in [false, true] {
            let mut arguments = vec!["--endpoint-type", kind.name()];
            arguments.extend(needs(kind));
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
                let is_text = kind.produces_tokens() || kind == Kind::AudioTranscription;
                assert_eq!(record.units > 0, !is_text, "{name}");
            }
        }
    }
}

#[test]
fn tokens_of_each_event_are_the_servers() {
    let arguments =
        ["--streaming", "--use-server-token-count", "--per-chunk-usage", "--endpoint-type", "chat", "--model", "mock"];
    let run = Run::of(",tokens-per-chunk=3,itl=2", &arguments, &[]);
    for line in lines(&run, "profile_export.jsonl", "{") {
        let record: Value = serde_json::from_str(&line).unwrap();
        let value = |tag: &str| record["metrics"][tag]["value"].as_f64().unwrap();
        // Five of the eight tokens came after the first event.
        let (decode, itl) = (value("decode_duration"), value("inter_token_latency"));
        assert!((decode - 5.0 * itl).abs() < 1e-6, "{decode} {itl}");
    }
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
        (
            &["--download-video-content", "--endpoint-type", "image-edit"][..],
            "--download-video-content: image_edit makes no videos",
        ),
        (&["--endpoint-type", "nothing"], "--endpoint-type nothing: expected one of chat, completions"),
        (&["--endpoint-type", "raw"], "--endpoint-type raw: bodies are sent as the input file has them"),
        (&["--endpoint-type", "template"], "--endpoint-type template: it needs --extra-inputs payload_template"),
        (
            &["--endpoint-type", "template", "--extra-inputs", r#"{"payload_template":"{\"a\": {{ text }}}"}"#],
            "--endpoint-type template: the template rendered for session session_000000 is no JSON",
        ),
        (
            &["--endpoint-type", "raw", "--extra-inputs", "response_field:length(a"],
            "--extra-inputs response_field: \"length(a\" is neither a JSON pointer nor a JMESPath: ",
        ),
        (&["--endpoint-type", "responses", "--extra-inputs", "store:true"], "add --use-server-token-count"),
        (
            &["--goodput", "time_to_first_token:5"],
            "--goodput time_to_first_token: only streamed answers have it; add --streaming",
        ),
        (
            &["--endpoint-type", "completions", "--goodput", "image_latency:5"],
            "--goodput image_latency: no request of this run can have it: the endpoint takes no images",
        ),
        (
            &["--endpoint-type", "embeddings", "--goodput", "output_sequence_length:5"],
            "--goodput output_sequence_length: no request of this run can have it: the endpoint produces no tokens",
        ),
        (
            &["--use-server-token-count", "--goodput", "usage_prompt_tokens_diff_pct:5"],
            "--goodput usage_prompt_tokens_diff_pct: no request of this run can have it: `--use-server-token-count`",
        ),
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

/// What was sent and what came back, request by request in the order of their starts.
fn exchanges(run: &Run) -> Vec<Value> {
    let text = std::fs::read_to_string(run.dir.path().join("run/profile_export_raw.jsonl")).unwrap();
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    lines.sort_by_key(|line| line["start_perf_ns"].as_u64());
    lines
}

#[test]
fn a_video_is_awaited_and_fetched() {
    // Eight frames, 5 ms from one to the next.
    let shape = ["--endpoint-type", "video_generation", "--extra-inputs", "num_frames:8", "--concurrency", "2"];
    for fetch in [false, true] {
        let mut arguments = shape.to_vec();
        if fetch {
            arguments.push("--download-video-content");
        }
        let run = Run::of(",itl=5", &arguments, &[]);
        assert_eq!((run.avg("request_count"), &run.summary["error_summary"]), (Some(REQUESTS as f64), &json!([])));
        // As the server says, and in the unit of the files.
        assert_eq!(run.summary["video_inference_time"]["unit"], "ms");
        assert_eq!((run.avg("video_inference_time"), run.avg("video_peak_memory")), (Some(35.0), Some(4096.0 + 68.0)));
        for row in ["Video Inference Time (ms),35.00,", "Video Peak Memory (MB),4164.00,"] {
            assert_eq!(lines(&run, "profile_export_aiperf.csv", row).len(), 1, "{row}");
        }
        for row in ["Video Inference Time", "Video Peak Memory"] {
            assert_eq!(lines(&run, "profile_export_console.txt", row).len(), 1, "{row}");
        }
        for line in lines(&run, "profile_export.jsonl", "{") {
            let record: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(record["metrics"]["video_inference_time"], json!({"value": 35.0, "unit": "ms"}));
        }
        for (record, _) in run.log().records() {
            assert_eq!((record.units, record.chunks), (1, 1));
            assert!(record.last_token.since(record.start) >= 35_000_000, "a video was done before it was made");
            assert_eq!(record.bytes_received > 8 * 256, fetch, "{}", record.bytes_received);
        }
    }
}

#[test]
fn pictures_and_sound_go_with_the_text() {
    let both = [IMAGES.as_slice(), &AUDIO, &["--export-level", "raw"]].concat();
    let run = Run::of("", &both, &[]);
    for line in exchanges(&run) {
        let parts = line["payload"]["messages"][0]["content"].as_array().unwrap();
        let types: Vec<&str> = parts.iter().filter_map(|part| part["type"].as_str()).collect();
        assert_eq!(types, ["text", "image_url", "input_audio"]);
    }
    for kind in ["responses", "messages", "nim_embeddings", "chat_embeddings"] {
        let run = Run::of("", &[&["--endpoint-type", kind], IMAGES.as_slice()].concat(), &[]);
        assert_eq!((run.avg("request_count"), &run.summary["error_summary"]), (Some(4.0), &json!([])), "{kind}");
    }
}

#[test]
fn every_counter_of_usage_arrives_in_every_file() {
    let mock = ",usage-details,cached=0.25,reasoning=2";
    for streaming in [&[][..], &["--streaming"]] {
        let run = Run::of(mock, streaming, &[]);
        let records: Vec<Value> =
            lines(&run, "profile_export.jsonl", "{").iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(records.len() as u64, REQUESTS);
        let mut sums = std::collections::BTreeMap::new();
        for record in &records {
            let of = |tag: &str| record["metrics"][tag]["value"].as_f64().unwrap_or_else(|| panic!("{tag} is absent"));
            let (prompt, cached) = (of("usage_prompt_tokens"), of("usage_prompt_cache_read_tokens"));
            let share = |n: f64| (prompt * n).floor();
            assert_eq!(cached, share(0.25));
            for (tag, value) in [
                ("usage_prompt_tokens", prompt),
                ("usage_prompt_cache_read_tokens", cached),
                ("usage_prompt_cache_miss_tokens", prompt - cached),
                ("usage_prompt_cache_write_tokens", ((prompt - cached) / 2.0).floor()),
                ("usage_prompt_audio_tokens", share(0.25)),
                ("usage_prompt_audio_seconds", share(0.25) / 10.0),
                ("usage_tool_use_prompt_tokens", share(0.125)),
                ("usage_completion_tokens", 8.0),
                ("usage_reasoning_tokens", 2.0),
                ("usage_completion_audio_tokens", 2.0),
                ("usage_accepted_prediction_tokens", 4.0),
                ("usage_rejected_prediction_tokens", 1.0),
                ("usage_total_tokens", prompt + 8.0),
            ] {
                assert_eq!(of(tag), value, "{tag}");
                *sums.entry(tag).or_insert(0.0) += value;
            }
        }
        for (tag, sum) in &sums {
            let total = run.avg(&format!("total_{tag}")).unwrap_or_else(|| panic!("total_{tag} is absent"));
            assert!((total - sum).abs() < 1e-9, "{tag}: {total}, summed {sum}");
            assert_eq!(run.summary[tag]["count"].as_u64(), Some(REQUESTS), "{tag}");
            let header = maser_engine::metric::find(tag).unwrap().header;
            let csv = |row: String| lines(&run, "profile_export_aiperf.csv", &row).len();
            assert_eq!((csv(format!("{header} (")), csv(format!("Total {header} ("))), (1, 1), "{header}");
            // On the console a unit may stand in the next line.
            let console = |row: &str| lines(&run, "profile_export_console.txt", row).len();
            assert!((console(header), console(&format!("Total {header}"))) >= (1, 1), "{header}");
        }
        let read = 100.0 * sums["usage_prompt_cache_read_tokens"] / sums["usage_prompt_tokens"];
        assert!((run.avg("overall_usage_prompt_cache_read_pct").unwrap() - read).abs() < 1e-9);
    }
}

/// The lines of a run's file that begin with `start`.
fn lines(run: &Run, file: &str, start: &str) -> Vec<String> {
    let text = std::fs::read_to_string(run.dir.path().join("run").join(file)).unwrap();
    text.lines().filter(|line| line.trim_start_matches(['│', ' ']).starts_with(start)).map(str::to_owned).collect()
}

#[test]
fn images_and_sound_of_the_input_are_measured_by() {
    let batch = ["--batch-size-image", "3", "--export-level", "records"];
    let run = Run::of("", &[IMAGES.as_slice(), &AUDIO, &batch].concat(), &[]);
    assert_eq!((run.avg("num_images"), run.avg("audio_duration")), (Some(3.0), Some(0.05)));
    for line in lines(&run, "profile_export.jsonl", "{") {
        let record: Value = serde_json::from_str(&line).unwrap();
        let value = |tag: &str| record["metrics"][tag]["value"].as_f64().unwrap();
        let seconds = value("request_latency") / 1e3;
        let close = |tag: &str, expected: f64| assert!((value(tag) / expected - 1.0).abs() < 1e-9, "{tag}: {line}");
        close("image_throughput", 3.0 / seconds);
        close("image_latency", seconds * 1e3 / 3.0);
        close("rtfx", 0.05 / seconds);
        assert_eq!(record["metrics"]["num_images"], json!({"value": 3, "unit": "images"}));
        assert_eq!(record["metrics"]["image_latency"]["unit"], "ms/image");
    }
    let rows = ["Image Throughput (images/sec),", "Image Latency (ms/image),", "Number of Images (images),"];
    for row in rows.into_iter().chain(["Audio Duration (sec),", "Inverse Real-Time Factor (RTFx) (ratio),"]) {
        assert_eq!(lines(&run, "profile_export_aiperf.csv", row).len(), 1, "{row}");
    }
    let shown = |header: &str| lines(&run, "profile_export_console.txt", header).len();
    assert_eq!(["Image Throughput", "Image Latency", "Inverse"].map(shown), [1; 3]);
    assert_eq!(["Number of Images", "Audio Duration"].map(shown), [0; 2]);
    // As the reference: a text stands for no image, and lists of plain texts and forms are not looked through.
    for (kind, images) in [("image_retrieval", Some(1.0)), ("messages", Some(1.0)), ("nim_embeddings", None)] {
        let run = Run::of("", &[&["--endpoint-type", kind], IMAGES.as_slice()].concat(), &[]);
        assert_eq!(run.avg("num_images"), images, "{kind}");
        assert_eq!(run.avg("image_latency").is_some(), images.is_some(), "{kind}");
    }
    let run = Run::of("", &[&["--endpoint-type", "audio_transcription"], AUDIO.as_slice()].concat(), &[]);
    assert!((run.avg("audio_duration"), run.avg("rtfx").is_some()) == (Some(0.05), true));
}

#[test]
fn a_later_turn_carries_the_images_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let picture = "data:image/png;base64,iVBORw0KGgo=";
    let session = json!({"session_id": "s", "turns": [
        {"text": "one", "image": picture},
        {"text": "none"},
        {"text": "two", "images": [picture, "http://elsewhere/a.png"]},
    ]});
    std::fs::write(dir.path().join("turns.jsonl"), session.to_string()).unwrap();
    let arguments = ["--mock=ttft=0,itl=0,osl=2", "--custom-dataset-type", "multi_turn", "--input-file", "turns.jsonl"];
    let output = command(dir.path(), &[&arguments[..], &["--num-conversations", "1"]].concat()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(dir.path().join("run/profile_export.jsonl")).unwrap();
    let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let images = records.iter().map(|record| {
        (record["metadata"]["turn_index"].as_u64().unwrap(), record["metrics"]["num_images"]["value"].as_u64().unwrap())
    });
    assert_eq!(images.collect::<Vec<_>>(), [(0, 1), (1, 1), (2, 3)]);
}

#[test]
fn a_trace_of_the_transfer_adds_up() {
    let arguments = ["--streaming", "--export-level", "raw", "--export-http-trace"];
    let run = Run::of(",itl=2", &arguments, &[]);
    for line in lines(&run, "profile_export.jsonl", "{") {
        let trace = &serde_json::from_str::<Value>(&line).unwrap()["trace_data"];
        let chunks: Vec<(u64, u64)> = serde_json::from_value(trace["response_chunks"].clone()).unwrap();
        assert_eq!(Some(chunks.iter().map(|(_, bytes)| bytes).sum()), trace["response_bytes_total"].as_u64());
        assert!(chunks.windows(2).all(|pair| pair[0].0 < pair[1].0), "{chunks:?}");
        assert!(chunks.len() as u64 <= trace["response_chunks_count"].as_u64().unwrap(), "{trace}");
        assert_eq!(trace["request_chunks_count"], 1);
    }
}

#[test]
fn batches_and_candidates_are_counted_one_by_one() {
    let units = |arguments: &[&str]| {
        let run = Run::of("", arguments, &[]);
        run.log().records().map(|(record, _)| record.units).collect::<Vec<_>>()
    };
    for kind in ["embeddings", "hf_tei_embeddings"] {
        assert_eq!(units(&["--endpoint-type", kind, "-b", "3"]), [3; 4], "{kind}");
    }
    for kind in ["nim_rankings", "cohere_rankings", "hf_tei_rankings"] {
        assert_eq!(units(&["--endpoint-type", kind, "--rankings-passages-mean", "5"]), [5; 4], "{kind}");
    }
}

#[test]
fn turns_with_tool_calls_are_sent_as_they_stand() {
    let call = json!({"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}});
    let messages = json!([
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": null, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "42"},
        {"role": "user", "content": [{"type": "text", "text": "and now?"}], "name": "x"}
    ]);
    let row = json!({"messages": messages, "output_length": 8});
    let run = Run::of("", &["--export-level", "raw"], &[row]);
    let lines = exchanges(&run);
    assert_eq!(lines.len(), 4);
    for line in lines {
        assert_eq!(line["payload"]["messages"], messages);
    }
}

#[test]
fn a_stored_answer_is_continued_by_its_name() {
    for streaming in [false, true] {
        let mut arguments = vec!["--endpoint-type", "responses", "--extra-inputs", "store:true", "--concurrency", "1"];
        arguments.extend(["--use-server-token-count", "--conversation-turn-mean", "2", "--export-level", "raw"]);
        if streaming {
            arguments.push("--streaming");
        }
        let run = Run::of("", &arguments, &[]);
        let lines = exchanges(&run);
        let id = |line: &Value| {
            let responses = line["responses"].to_string();
            let at = responses.find("resp_").unwrap();
            responses[at..].split(['"', '\\']).next().unwrap().to_owned()
        };
        assert_eq!(lines.len(), 4);
        for (k, line) in lines.iter().enumerate() {
            let previous = &line["payload"]["previous_response_id"];
            assert_eq!(line["payload"]["input"].as_array().map(Vec::len), Some(1), "its own turn and no other");
            if k % 2 == 0 {
                assert_eq!(*previous, Value::Null);
            } else {
                assert_eq!(*previous, json!(id(&lines[k - 1])));
            }
        }
        // The server counts what it has stored: a later turn's prompt is longer.
        let prompts: Vec<u32> = run.log().records().map(|(record, _)| record.usage_prompt).collect();
        assert!(prompts[1] > prompts[0] && prompts[3] > prompts[2], "{prompts:?}");
    }
}

/// Serves pictures: each path's answer, and how often it was asked for in all.
fn gallery(answers: &'static [(&'static str, u16, &'static [u8])]) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                head.push(byte[0]);
            }
            count.fetch_add(1, Ordering::Relaxed);
            let head = String::from_utf8(head).unwrap();
            let path = head.split(' ').nth(1).unwrap_or_default();
            let known = answers.iter().find(|(known, ..)| *known == path);
            let (status, body) = known.map_or((404, &b""[..]), |(_, status, body)| (*status, *body));
            let moved = if status == 302 { "Location: /a.png\r\n" } else { "" };
            let head =
                format!("HTTP/1.1 {status} Said\r\nContent-Length: {}\r\n{moved}Connection: close\r\n\r\n", body.len());
            let _ = stream.write_all(&[head.as_bytes(), body].concat());
        }
    });
    (url, asked)
}

#[test]
fn pictures_elsewhere_are_fetched_once_before_the_load() {
    const PNG: &[u8] = b"\x89PNG\r\n\x1a\nrest";
    let (url, asked) =
        gallery(&[("/a.png", 200, PNG), ("/moved", 302, b""), ("/page", 200, b"<html>"), ("/late", 500, b"")]);
    let profile = |images: &[&str], code: i32| {
        let dir = tempfile::tempdir().unwrap();
        let rows: Vec<String> =
            images.iter().map(|path| json!({"image": format!("{url}{path}")}).to_string()).collect();
        std::fs::write(dir.path().join("rows.jsonl"), rows.join("\n")).unwrap();
        let arguments = ["--mock=ttft=0", "--endpoint-type", "image_retrieval", "--custom-dataset-type", "single_turn"];
        let more = ["--input-file", "rows.jsonl", "--request-count", "6", "--export-level", "raw"];
        let output = command(dir.path(), &[&arguments[..], &more].concat()).env("NO_PROXY", "*").output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        let sent = std::fs::read_to_string(dir.path().join("run/profile_export_raw.jsonl")).unwrap_or_default();
        let sent: Vec<Value> = sent.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (stderr, sent)
    };
    let (_, sent) = profile(&["/a.png", "/moved", "/a.png"], 0);
    assert_eq!(sent.len(), 6);
    for line in sent {
        assert_eq!(line["payload"]["input"][0]["url"], "data:image/png;base64,iVBORw0KGgpyZXN0");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 3, "each once, and once where it had moved to");
    for (path, why) in [
        ("/none.png?key=k", "/none.png?key=<redacted>: cannot be fetched: http status: 404"),
        ("/late", "/late: cannot be fetched: http status: 500"),
        ("/page", "/page: neither PNG, JPEG, WebP nor GIF by its content"),
    ] {
        let (stderr, sent) = profile(&["/a.png", path], 1);
        let sentence = format!("error: image {url}{why}");
        assert!(stderr.lines().any(|line| line == sentence) && sent.is_empty(), "{sentence}\n{stderr}");
    }
}

#[test]
fn any_jmespath_leads_to_the_output() {
    let extra = r#"{"payload_template":{"prompt":"{{ text }}","max_tokens":8},"response_field":"join('', choices[?index==`0`].text)"}"#;
    let arguments = ["--endpoint-type", "template", "--custom-endpoint", "/v1/completions", "--extra-inputs", extra];
    for streaming in [&[][..], &["--streaming"]] {
        let run = Run::of("", &[&arguments[..], streaming].concat(), &[]);
        assert_eq!((run.avg("output_sequence_length"), run.avg("error_request_count")), (Some(8.0), None));
    }
}

#[test]
fn no_file_shows_a_secret_of_a_body() {
    let secret = r#"--extra-inputs={"api_key":"s\"ekret","nested":{"token":"sekret2"}}"#;
    let run = Run::of("", &[secret, "--export-level", "raw", "-v"], &[]);
    let mut seen = 0;
    for file in std::fs::read_dir(run.dir.path().join("run")).unwrap().flatten().filter(|file| file.path().is_file()) {
        let bytes = std::fs::read(file.path()).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains("ekret"), "{}", file.path().display());
        seen += usize::from(text.contains("<redacted>"));
    }
    assert!(seen >= 4 && !run.stderr.contains("ekret"), "{seen} files\n{}", run.stderr);
    assert_eq!(exchanges(&run)[0]["payload"]["nested"]["token"], "<redacted>");
}
