//! Datasets as the program sends them, seen by a server that keeps every body.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

/// A server on a port of its own that answers everything alike.
struct Server {
    port: u16,
    bodies: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let bodies: Arc<Mutex<Vec<String>>> = Arc::default();
        let kept = bodies.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(stream), kept) = (stream, kept.clone()) else { return };
                std::thread::spawn(move || serve(stream, &kept));
            }
        });
        Self { port, bodies }
    }

    fn taken(&self) -> Vec<String> {
        std::mem::take(&mut self.bodies.lock().unwrap())
    }
}

fn serve(stream: TcpStream, kept: &Mutex<Vec<String>>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut writer = stream;
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        // Other bytes than text, those of files in a form, stand as one character each.
        let text = String::from_utf8(body).unwrap_or_else(|e| e.as_bytes().iter().map(|b| char::from(*b)).collect());
        kept.lock().unwrap().push(text);
        let answer = r#"{"object":"chat.completion","choices":[{"message":{"role":"assistant","content":"yes"}}]}"#;
        write!(writer, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", answer.len())
            .ok()?;
        writer.write_all(answer.as_bytes()).ok()?;
    }
}

fn maser(dir: &Path, arguments: &[&str]) -> Output {
    let mut maser = Command::new(env!("CARGO_BIN_EXE_maser"));
    maser.current_dir(dir).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn profile(dir: &Path, server: &Server, arguments: &[&str]) -> Vec<String> {
    let url = format!("http://127.0.0.1:{}", server.port);
    let common = ["profile", "-m", "mock-model", "-u", &url, "--use-server-token-count", "--concurrency", "1"];
    let ran = maser(dir, &[&common, arguments].concat());
    assert_eq!(ran.status.code(), Some(0), "{}", String::from_utf8_lossy(&ran.stderr));
    server.taken()
}

#[test]
fn a_run_from_inputs_json_sends_the_same_bytes() {
    let (dir, server) = (tempfile::tempdir().unwrap(), Server::start());
    let rows = concat!(
        "{\"text\":\"é \\u0001 \\\\ \\\"\",\"output_length\":64,\"extra\":{\"temperature\":0.1,\"big\":18446744073709551615,\"tiny\":5e-324}}\n",
        "{\"text\":\"two\",\"extra\":{\"nested\":{\"b\":[1.5,-0.0,1e300,null],\"a\":{}}}}\n",
        "{\"texts\":[\"three\",\"four\"],\"role\":\"user\"}\n",
    );
    std::fs::write(dir.path().join("rows.jsonl"), rows).unwrap();
    let first = profile(
        dir.path(),
        &server,
        &["--input-file", "rows.jsonl", "--request-count", "3", "--artifact-dir", "one", "--extra-inputs", "top_p:0.9"],
    );
    assert_eq!(first.len(), 3);
    let second = profile(
        dir.path(),
        &server,
        &["--input-file", "one/inputs.json", "--request-count", "3", "--artifact-dir", "two"],
    );
    assert_eq!(first, second);
    // What the second run writes is what it read.
    let read = |run: &str| std::fs::read(dir.path().join(run).join("inputs.json")).unwrap();
    assert_eq!(read("one"), read("two"));
    // Its own input may lie where its files go.
    let third = profile(
        dir.path(),
        &server,
        &["--input-file", "two/inputs.json", "--request-count", "3", "--artifact-dir", "two"],
    );
    assert_eq!((third, read("one")), (first, read("two")));
}

/// What every endpoint can send, by its name: rows, and options of the run.
fn of_every_endpoint() -> Vec<(&'static str, String, Vec<&'static str>)> {
    let text = "{\"text\":\"a \\\"é\\n\",\"output_length\":5,\"extra\":{\"x\":[1.5,{\"y\":null}]}}\n{\"text\":\"b\"}\n";
    let media = concat!(
        "{\"text\":\"a\",\"images\":[\"data:image/png;base64,iVBORw0KGgr/\",\"data:image/jpeg;base64,/9j/\"],\"image_uuids\":[\"k\",\"l\"]}\n",
        "{\"texts\":[\"a\",\"b\"],\"image\":\"data:image/webp;base64,UklGRg==\"}\n",
    );
    let sound = "{\"text\":\"a\",\"audio\":\"wav,UklGRv8A\",\"video\":\"data:video/mp4;base64,AAAA\"}\n";
    let heard = "{\"text\":\"a\",\"audio\":\"mp3,//sA\",\"extra\":{\"language\":\"en\",\"n\":2,\"t\":0.5}}\n";
    let ranked =
        "{\"texts\":[{\"name\":\"query\",\"contents\":[\"q\"]},{\"name\":\"passages\",\"contents\":[\"p\",\"r\"]}]}\n";
    let turns = concat!(
        "{\"session_id\":\"s\",\"turns\":[{\"text\":\"one\",\"role\":\"system\"},{\"text\":\"two\"},{\"text\":\"three\"}]}\n",
        "{\"turns\":[{\"text\":\"four\"}]}\n",
    );
    let ready = "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"n\":1e2,\"big\":18446744073709551615,\"b\":{\"c\":[]}}\n";
    let paired = "{\"text\":\"a\",\"image\":\"data:image/png;base64,iVBORw0KGgr/\"}\n";
    let all = [
        ("chat", text, "--extra-inputs top_p:0.9"),
        ("chat", media, ""),
        ("chat", sound, "--streaming"),
        ("chat", turns, "--system-prompt before"),
        ("chat", ready, "--custom-dataset-type raw_payload"),
        ("responses", media, ""),
        ("responses", turns, "--streaming"),
        ("messages", media, ""),
        ("messages", turns, ""),
        ("completions", text, "--streaming"),
        ("embeddings", text, ""),
        ("chat_embeddings", media, ""),
        ("nim_embeddings", paired, ""),
        ("hf_tei_embeddings", text, "--extra-inputs normalize:false"),
        ("hf_tei_rankings", ranked, ""),
        ("nim_rankings", ranked, "--extra-inputs truncate:END"),
        ("cohere_rankings", ranked, ""),
        ("huggingface_generate", text, "--extra-inputs top_k:3"),
        ("image_generation", text, "--extra-inputs size:8x8"),
        ("image_edit", media, "--extra-inputs size:8x8"),
        ("video_generation", text, "--extra-inputs seconds:2"),
        ("image_retrieval", paired, ""),
        ("audio_transcription", heard, "--extra-inputs temperature:0.5"),
        ("solido_rag", text, ""),
        ("raw", ready, "--custom-dataset-type raw_payload"),
        (
            "template",
            text,
            "--extra-inputs {\"payload_template\":\"{\\\"a\\\":[{{texts|tojson}},1.0e1],\\\"b\\\":1}\"}",
        ),
        ("template", turns, "--extra-inputs payload_template:{{[text]|tojson}}"),
    ];
    all.map(|(endpoint, rows, options)| (endpoint, rows.to_owned(), options.split_whitespace().collect())).into()
}

#[test]
fn every_endpoint_s_inputs_json_is_sent_again_byte_for_byte() {
    let server = Server::start();
    let url = format!("http://127.0.0.1:{}", server.port);
    for (endpoint, rows, options) in of_every_endpoint() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("rows.jsonl"), &rows).unwrap();
        let sent = |input: &[&str], run: &str, sessions: &str| {
            let common =
                ["profile", "-m", "mock-model", "-u", &url, "--endpoint-type", endpoint, "--artifact-dir", run];
            let load = ["--use-server-token-count", "--concurrency", "1", "--num-conversations", sessions];
            // The server's answer is not what every endpoint expects: what it was sent is what counts.
            let ran = maser(dir.path(), &[&common, &load[..], input].concat());
            let inputs = std::fs::read(dir.path().join(run).join("inputs.json"));
            let said = String::from_utf8_lossy(&ran.stderr).into_owned();
            (server.taken(), inputs.unwrap_or_else(|_| panic!("{endpoint}: {said}")))
        };
        let sessions = rows.lines().count();
        let first = [&["--input-file", "rows.jsonl"], &options[..]].concat();
        let (first, exported) = sent(&first, "one", &sessions.to_string());
        let mut again = vec!["--input-file", "one/inputs.json"];
        match endpoint {
            // It does without no template, used or not.
            "template" => again.extend(&options),
            _ => again.extend(options.iter().filter(|option| **option == "--streaming")),
        }
        let (second, exported_again) = sent(&again, "two", &sessions.to_string());
        assert_eq!(exported, exported_again, "{endpoint}");
        let turns = if rows.contains("\"turns\"") { sessions + 1 } else { sessions };
        assert!(first.len() >= sessions && second.len() >= turns, "{endpoint}: {} {}", first.len(), second.len());
        if turns == sessions {
            assert_eq!(first, second, "{endpoint}");
            continue;
        }
        // A later turn of a live session carries the server's answers; the file has each turn by itself.
        let document: serde_json::Value = serde_json::from_slice(&exported).unwrap();
        let listed: Vec<String> = document["data"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|session| session["payloads"].as_array().unwrap())
            .map(serde_json::Value::to_string)
            .collect();
        assert_eq!(second, listed, "{endpoint}");
        assert!(second.contains(&first[0]), "{endpoint}: the first turn is alone in both");
    }
}

#[test]
fn a_pool_is_drawn_by_batches_and_images_are_sent_once() {
    let (dir, server) = (tempfile::tempdir().unwrap(), Server::start());
    std::fs::write(dir.path().join("pool.jsonl"), "{\"text\":\"a\",\"image\":\"data:i\"}\n{\"text\":\"b\"}\n").unwrap();
    let pool = ["--input-file", "pool.jsonl", "--custom-dataset-type", "random_pool", "--artifact-dir", "pool"];
    let batches = ["--batch-size-text", "3", "--batch-size-image", "0", "--num-conversations", "4"];
    let sent = profile(dir.path(), &server, &[&pool[..], &batches].concat());
    assert_eq!(sent.len(), 4);
    assert!(sent.iter().all(|body| body.matches("{\"type\":").count() == 3 && !body.contains("image")), "{sent:?}");
    let row = "{\"session_id\":\"s\",\"text\":\"t\",\"images\":[\"data:i\"],\"image_uuids\":[\"k\"]}\n";
    std::fs::write(dir.path().join("keys.jsonl"), row.repeat(2)).unwrap();
    let keys = ["--input-file", "keys.jsonl", "--num-conversations", "1", "--artifact-dir", "keys", "--uuid-and-strip"];
    let sent = profile(dir.path(), &server, &keys);
    let image = |url: &str| format!("{{\"type\":\"image_url\",\"image_url\":{{\"url\":\"{url}\"}},\"uuid\":\"k\"}}");
    assert!(sent[0].contains(&image("data:i")) && sent[1].contains(&image("")), "{sent:?}");
    for (arguments, said) in [
        (&["--uuid-and-strip"][..], "--uuid-and-strip goes with a file"),
        (&["--uuid-and-strip", "--endpoint-type", "responses"], "--uuid-and-strip: it needs --endpoint-type chat"),
        (&["--input-file", "keys.jsonl", "-b", "2"], "--batch-size-text goes with generated prompts and random_pool"),
        (&["--dataset-filter", "harness"], "--dataset-filter harness: expected name=value"),
        (&["--dataset-filter", "a=1", "a=2"], "--dataset-filter a=2: a is given twice"),
    ] {
        let refused = maser(dir.path(), &[&["profile", "-m", "x"], arguments].concat());
        let err = String::from_utf8(refused.stderr).unwrap();
        assert!(refused.status.code() == Some(2) && err.starts_with(&format!("error: {said}")), "{arguments:?}: {err}");
    }
}

/// What was sent, as JSON.
fn bodies_sent(rows: &str, arguments: &[&str]) -> Vec<serde_json::Value> {
    let (server, dir) = (Server::start(), tempfile::tempdir().unwrap());
    std::fs::write(dir.path().join("rows.jsonl"), rows).unwrap();
    let sessions = rows.lines().count().to_string();
    let common = ["--input-file", "rows.jsonl", "--num-conversations", &sessions];
    let sent = profile(dir.path(), &server, &[&common, arguments].concat());
    sent.iter().map(|body| serde_json::from_str(body).unwrap()).collect()
}

#[test]
fn several_models_share_the_turns_that_name_none() {
    let rows =
        "{\"text\":\"a\"}\n{\"text\":\"b\",\"model\":\"own\"}\n{\"text\":\"c\"}\n{\"text\":\"d\"}\n{\"text\":\"e\"}\n";
    let asked = |more: &[&str]| -> Vec<String> {
        let sent = bodies_sent(rows, &[&["--model-names", "two,three"], more].concat());
        sent.iter().map(|body| body["model"].as_str().unwrap().to_owned()).collect()
    };
    let in_turn = asked(&[]);
    assert_eq!(
        in_turn.iter().filter(|model| *model != "own").collect::<Vec<_>>(),
        ["mock-model", "two", "three", "mock-model"]
    );
    assert_eq!(asked(&["--model-selection-strategy", "round_robin"]), in_turn);
    let drawn = |seed: &str| asked(&["--model-selection-strategy", "random", "--random-seed", seed]);
    assert_eq!(drawn("1"), drawn("1"));
    assert!((2..12).any(|seed| drawn(&seed.to_string()) != drawn("1")), "the seed decides");
}

#[test]
fn a_template_may_be_an_array() {
    let rows = "{\"text\":\"a\"}\n";
    for template in ["payload_template:[{{ text|tojson }}]", r#"{"payload_template":["{{ text }}"]}"#] {
        let options = ["--endpoint-type", "template", "--custom-endpoint", "/v1/x", "--extra-inputs", template];
        assert_eq!(bodies_sent(rows, &options), [serde_json::json!(["a"])], "{template}");
    }
}

#[test]
fn every_session_stands_in_inputs_json_with_all_its_turns() {
    let (dir, server) = (tempfile::tempdir().unwrap(), Server::start());
    let rows = concat!(
        "{\"session_id\":\"a\",\"turns\":[{\"text\":\"a0\"},{\"text\":\"a1\"}]}\n",
        "{\"session_id\":\"b\",\"turns\":[{\"text\":\"b0\"}]}\n",
    );
    std::fs::write(dir.path().join("rows.jsonl"), rows).unwrap();
    profile(dir.path(), &server, &["--input-file", "rows.jsonl", "--request-count", "1", "--artifact-dir", "run"]);
    let inputs: serde_json::Value =
        serde_json::from_slice(&std::fs::read(dir.path().join("run/inputs.json")).unwrap()).unwrap();
    let said =
        |session: usize, turn: usize| inputs["data"][session]["payloads"][turn]["messages"][0]["content"].clone();
    assert_eq!([said(0, 0), said(0, 1), said(1, 0)], ["a0", "a1", "b0"]);
    assert_eq!((&inputs["data"][0]["session_id"], &inputs["data"][1]["session_id"]), (&"a".into(), &"b".into()));
}

#[test]
fn datasets_are_looked_at_and_written_anew() {
    let dir = tempfile::tempdir().unwrap();
    let rows = concat!(
        "{\"timestamp\":0,\"input_length\":1000,\"output_length\":5,\"hash_ids\":[1,2]}\n",
        "{\"timestamp\":2000,\"input_length\":1500,\"output_length\":7,\"hash_ids\":[1,2,3]}\n",
    );
    std::fs::write(dir.path().join("trace.jsonl"), rows).unwrap();
    let out = |arguments: &[&str]| {
        let ran = maser(dir.path(), arguments);
        assert_eq!(ran.status.code(), Some(0), "{}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8(ran.stdout).unwrap()
    };
    let stats: serde_json::Value = serde_json::from_str(&out(&["dataset", "stats", "trace.jsonl", "--json"])).unwrap();
    assert_eq!((&stats["blocks"]["references"], &stats["blocks"]["unique"]), (&5.into(), &3.into()));
    assert_eq!(stats["arrivals"]["span_s"], 2.0);
    assert!(out(&["dataset", "stats", "trace.jsonl"]).contains("5 references, 3 unique"));
    assert!(out(&["analyze-trace", "trace.jsonl", "--output-file", "a.json"]).contains("Theoretical Hit Rates"));
    let analysis: serde_json::Value =
        serde_json::from_slice(&std::fs::read(dir.path().join("a.json")).unwrap()).unwrap();
    assert_eq!((&analysis["total_requests"], &analysis["max_isl"]), (&2.into(), &1500.0.into()));
    assert!(out(&["dataset", "list"]).contains("sharegpt"));
    assert_eq!(
        out(&["dataset", "synthesize", "trace.jsonl", "fast.jsonl", "--synthesis-speedup-ratio", "4"]),
        "fast.jsonl: 2 rows\n"
    );
    assert!(std::fs::read_to_string(dir.path().join("fast.jsonl")).unwrap().contains("\"timestamp\":500,"));
    let refused = |arguments: &[&str]| String::from_utf8(maser(dir.path(), arguments).stderr).unwrap();
    let own = refused(&["dataset", "synthesize", "trace.jsonl", "./trace.jsonl"]);
    assert_eq!(own, "error: ./trace.jsonl: the file would overwrite itself\n");
    assert_eq!(refused(&["dataset", "stats", "none"]), "error: none: there is no such file\n");
    let public = refused(&["profile", "-m", "x", "--public-dataset", "sharegpt"]);
    assert!(public.contains("maser downloads nothing") && public.lines().count() == 1, "{public}");
}

#[test]
fn a_compiled_dataset_sends_the_same_bytes() {
    let (dir, server) = (tempfile::tempdir().unwrap(), Server::start());
    let rows: String =
        (0..5).map(|k| format!("{{\"input_length\":{},\"output_length\":4,\"hash_ids\":[{k}]}}\n", 30 + k)).collect();
    std::fs::write(dir.path().join("trace.jsonl"), rows).unwrap();
    let ran = maser(dir.path(), &["dataset", "compile", "trace.jsonl", "out.maserds", "--random-seed", "7"]);
    assert_eq!(String::from_utf8(ran.stdout).unwrap(), "out.maserds: 5 requests in 5 sessions\n");
    let sent = |arguments: &[&str]| {
        let all = [&["--random-seed", "7", "--request-count", "5", "--artifact-dir", "run"], arguments].concat();
        profile(dir.path(), &server, &all)
    };
    let direct = sent(&["--input-file", "trace.jsonl"]);
    assert_eq!(direct.len(), 5);
    assert_eq!(sent(&["--input-file", "out.maserds"]), direct);
    let another = ["profile", "-m", "m", "-u", "localhost:1", "--input-file", "out.maserds"];
    let another = maser(dir.path(), &[&another[..], &["--custom-dataset-type", "mooncake_trace"]].concat());
    let why = "out.maserds is a compiled dataset, which is told by its first bytes; leave the option out";
    let said = String::from_utf8(another.stderr).unwrap();
    assert_eq!(
        (another.status.code(), said),
        (Some(2), format!("error: --custom-dataset-type mooncake_trace: {why}\n"))
    );
}

#[test]
fn a_dataset_compiled_for_a_run_has_its_bodies() {
    let (dir, server) = (tempfile::tempdir().unwrap(), Server::start());
    let rows: String = (0..5).map(|k| format!("{{\"text\":\"prompt {k}\",\"output_length\":4}}\n")).collect();
    std::fs::write(dir.path().join("rows.jsonl"), rows).unwrap();
    let compile = |run: &str| {
        maser(dir.path(), &["dataset", "compile", "rows.jsonl", "out.maserds", "--random-seed", "7", "--for", run])
    };
    let ran = compile("-m mock-model --use-server-token-count --extra-inputs '{\"a\": \"b c\"}'");
    let said = String::from_utf8(ran.stdout).unwrap();
    assert!(said.lines().nth(1).unwrap().starts_with("out.maserds.bodies: "), "{said}");
    let beside = dir.path().join("out.maserds.bodies");
    let made = kept(&beside);
    assert_eq!(made.len(), 1);
    let sent = |arguments: &[&str]| {
        let input =
            ["--request-count", "5", "--artifact-dir", "run", "--extra-inputs", "{\"a\": \"b c\"}", "--input-file"];
        profile(dir.path(), &server, &[&input, arguments].concat())
    };
    let direct = sent(&["rows.jsonl"]);
    assert!(direct.len() == 5 && direct[0].contains("\"a\":\"b c\""), "{direct:?}");
    assert_eq!((sent(&["out.maserds"]), kept(&beside)), (direct, made), "they are found, and no others made");
    sent(&["out.maserds", "--streaming"]);
    assert_eq!(kept(&beside).len(), 2, "a run with other options keeps its own");
    for (run, why) in [
        ("-m x --no-such", "--for \"-m x --no-such\": unknown option --no-such"),
        ("-m 'x", "--for \"-m 'x\": a quote is not closed"),
        ("--help", "expected options of `maser profile`, such as \"-m MODEL --streaming\""),
        ("--streaming", "--for \"--streaming\": "),
    ] {
        let refused = compile(run);
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(refused.status.code() == Some(2) && said.contains(why) && said.lines().count() == 1, "{run}: {said}");
    }
}

#[test]
fn a_compiled_dataset_has_the_counts_of_the_chat_template_it_was_compiled_with() {
    let (dir, server) = (tempfile::tempdir().unwrap(), Server::start());
    let place = |name: &str| dir.path().join(name);
    std::fs::write(place("tokenizer.json"), include_str!("../datasets/tests/data/word_level.json")).unwrap();
    std::fs::write(place("chat_template.jinja"), "{% for m in messages %}[ {{ m.content }} ] {% endfor %}go").unwrap();
    let rows = "{\"text\":\"the rose\"}\n{\"text\":\"the quick brown fox\"}\n";
    std::fs::write(place("rows.jsonl"), rows).unwrap();
    let counts = ["--tokenizer", "tokenizer.json"];
    let under = ["--tokenizer", "tokenizer.json", "--apply-chat-template"];
    for (how, out) in [(&counts[..], "plain.maserds"), (&under[..], "chat.maserds")] {
        let ran = maser(dir.path(), &[&["dataset", "compile", "rows.jsonl", out], how].concat());
        assert_eq!((ran.status.code(), &*ran.stderr), (Some(0), &b""[..]));
    }
    let url = format!("http://127.0.0.1:{}", server.port);
    let run = |file: &str, how: &[&str]| {
        let common =
            ["profile", "-m", "m", "-u", &url, "--concurrency", "1", "--request-count", "2", "--artifact-dir", "run"];
        maser(dir.path(), &[&common[..], &["--input-file", file], how].concat())
    };
    let counted = |file: &str, how: &[&str]| {
        let ran = run(file, how);
        assert_eq!(ran.status.code(), Some(0), "{}", String::from_utf8_lossy(&ran.stderr));
        let lines = std::fs::read_to_string(place("run/profile_export.jsonl")).unwrap();
        let count = |line: &str| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["metrics"]["input_sequence_length"]["value"].as_u64().unwrap()
        };
        lines.lines().map(count).collect::<Vec<_>>()
    };
    assert_eq!((counted("rows.jsonl", &counts), counted("plain.maserds", &counts)), (vec![2, 4], vec![2, 4]));
    assert_eq!((counted("rows.jsonl", &under), counted("chat.maserds", &under)), (vec![5, 7], vec![5, 7]));
    for (file, how, why) in [
        (
            "chat.maserds",
            &counts[..],
            "it was compiled with --apply-chat-template; give it here too, or compile it again",
        ),
        (
            "plain.maserds",
            &under,
            "it was compiled without --apply-chat-template; leave it out here, or compile it again",
        ),
    ] {
        let ran = run(file, how);
        let said = String::from_utf8(ran.stderr).unwrap();
        assert_eq!((ran.status.code(), said), (Some(2), format!("error: --input-file {file}: {why}\n")));
    }
    // The same files elsewhere are the same tokenizer; another template under the same name is not.
    std::fs::create_dir(place("copy")).unwrap();
    for name in ["tokenizer.json", "chat_template.jinja"] {
        std::fs::copy(place(name), place("copy").join(name)).unwrap();
    }
    let elsewhere = ["--tokenizer", "copy", "--apply-chat-template"];
    assert_eq!(counted("chat.maserds", &elsewhere), [5, 7]);
    std::fs::write(place("chat_template.jinja"), "{{ messages[0].content }} go").unwrap();
    for (how, why) in [
        (
            &under[..],
            "the chat template of tokenizer.json has been changed since; give what it was, or compile it again",
        ),
        (
            &["--tokenizer", "builtin"],
            "it was compiled with the tokenizer tokenizer.json, and this run counts with builtin; give --tokenizer \
             tokenizer.json, or compile it again",
        ),
    ] {
        let said = String::from_utf8(run("chat.maserds", how).stderr).unwrap();
        assert_eq!(said, format!("error: --input-file chat.maserds: {why}\n"));
    }
    let ran = maser(dir.path(), &["dataset", "compile", "rows.jsonl", "out.maserds", "--apply-chat-template"]);
    let said = String::from_utf8(ran.stderr).unwrap();
    assert_eq!(said, "note: --apply-chat-template has no effect: the tokenizer has no chat template\n");
}

/// The finished bodies in a cache.
fn kept(cache: &Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(cache) else { return Vec::new() };
    entries.map(|e| e.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "maserrq")).collect()
}

#[test]
fn bodies_are_kept_and_sent_again_until_something_changes() {
    let (dir, server) = (tempfile::tempdir().unwrap(), Server::start());
    let cache = dir.path().join("cache");
    let rows: String = (0..5)
        .map(|k| format!("{{\"timestamp\":{},\"input_length\":{},\"output_length\":4}}\n", (k * 3) % 5, 30 + k))
        .collect();
    std::fs::write(dir.path().join("trace.jsonl"), rows).unwrap();
    let common = ["--input-file", "trace.jsonl", "--request-count", "5", "--artifact-dir", "run"];
    let sent = |arguments: &[&str]| profile(dir.path(), &server, &[&common, arguments].concat());
    let seeded = ["--random-seed", "7"];
    let with_cache = ["--random-seed", "7", "--dataset-cache", "cache"];
    let direct = sent(&seeded);
    let written = || {
        use std::os::unix::fs::MetadataExt;
        kept(&cache).iter().map(|path| std::fs::metadata(path).unwrap().ino()).collect::<Vec<_>>()
    };
    assert_eq!(sent(&with_cache), direct);
    let first = written();
    assert_eq!(sent(&with_cache), direct);
    assert_eq!((written(), first.len()), (first.clone(), 1), "made once");
    let fewer = ["--input-file", "trace.jsonl", "--request-count", "3", "--artifact-dir", "run"];
    assert_eq!(profile(dir.path(), &server, &[&fewer[..], &with_cache].concat()), direct[..3]);
    assert_eq!(written(), first, "the number of requests does not show in the bodies");
    // A damaged one is made anew, and a cut one.
    let file = kept(&cache).remove(0);
    let bytes = std::fs::read(&file).unwrap();
    let at = bytes.windows(10).position(|w| w == b"mock-model").unwrap();
    let put = |bytes: &[u8]| {
        // A new file, for the old one is mapped by nobody but may be linked.
        std::fs::remove_file(&file).unwrap();
        std::fs::write(&file, bytes).unwrap();
    };
    put(&[&bytes[..at], b"M", &bytes[at + 1..]].concat());
    assert_eq!(sent(&with_cache), direct);
    assert_eq!(std::fs::read(&file).unwrap(), bytes);
    put(&bytes[..bytes.len() - 1]);
    assert_eq!(sent(&with_cache), direct);
    // Whatever shows in the bodies, or in their order, has bodies of its own.
    let others: [&[&str]; 3] = [&["--streaming"], &["--extra-inputs", "top_p:0.9"], &["--fixed-schedule"]];
    for (k, other) in others.into_iter().enumerate() {
        let without = sent(&[&seeded[..], other].concat());
        for _ in 0..2 {
            assert_eq!(sent(&[&with_cache[..], other].concat()), without, "{other:?}");
        }
        assert_eq!(kept(&cache).len(), 2 + k, "{other:?}");
    }
    std::fs::write(dir.path().join("trace.jsonl"), "{\"input_length\":9,\"output_length\":4}\n").unwrap();
    let changed = sent(&with_cache);
    assert_eq!((changed.len(), kept(&cache).len()), (5, 5));
    assert!(changed[0].len() < direct[0].len());
}

#[test]
fn what_was_used_longest_ago_makes_room() {
    let (dir, server) = (tempfile::tempdir().unwrap(), Server::start());
    let cache = dir.path().join("cache");
    let run = |n: usize, size: &[&str]| {
        let name = format!("{n}.jsonl");
        std::fs::write(dir.path().join(&name), format!("{{\"text\":\"{n} {}\"}}\n", "rose ".repeat(2000))).unwrap();
        let all = ["--input-file", &name, "--dataset-cache", "cache", "--request-count", "1", "--artifact-dir", "run"];
        let sent = profile(dir.path(), &server, &[&all, size].concat());
        assert!(sent[0].contains(&format!("\"{n} rose")));
    };
    // Which of `0` to `9` are kept: their texts begin so. Stamps are set, so that none is as young as another.
    let texts = |age: u64| -> Vec<String> {
        let mut texts: Vec<String> = kept(&cache)
            .iter()
            .map(|path| {
                let bytes = std::fs::read(path).unwrap();
                let at = bytes.windows(6).position(|w| w == b" rose ").unwrap();
                let time = std::fs::metadata(path).unwrap().modified().unwrap();
                let file = std::fs::File::open(path).unwrap();
                file.set_modified(time - std::time::Duration::from_secs(age)).unwrap();
                char::from(bytes[at - 1]).to_string()
            })
            .collect();
        texts.sort();
        texts
    };
    let size = ["--dataset-cache-size", "25kB"];
    run(0, &[]);
    assert_eq!(texts(60), ["0"]);
    run(1, &[]);
    assert_eq!(texts(60), ["0", "1"]);
    run(0, &size);
    assert_eq!(texts(60), ["0", "1"], "nothing new, so nothing goes");
    std::fs::write(cache.join(".unfinished-now"), "").unwrap();
    let dead = std::fs::File::create(cache.join(".unfinished-dead")).unwrap();
    dead.set_modified(std::time::UNIX_EPOCH).unwrap();
    run(2, &size);
    assert_eq!(texts(60), ["0", "2"], "0 was used after 1");
    assert!(cache.join(".unfinished-now").exists() && !cache.join(".unfinished-dead").exists());
    run(3, &["--dataset-cache-size", "12kB"]);
    assert_eq!(texts(60), ["3"]);
    let url = format!("http://127.0.0.1:{}", server.port);
    let all = ["profile", "-m", "x", "-u", &url, "--use-server-token-count", "--request-count", "1"];
    let cached = ["--input-file", "0.jsonl", "--dataset-cache", "cache", "--artifact-dir", "run"];
    let small = maser(dir.path(), &[&all[..], &cached, &["--dataset-cache-size", "9000"]].concat());
    let err = String::from_utf8(small.stderr).unwrap();
    assert!(small.status.success() && err.contains("and --dataset-cache-size is 9000"), "{err}");
    assert_eq!(texts(0), ["3"], "what does not fit drives nothing out");
    for (arguments, said) in [
        (&["--dataset-cache-size", "20 GB"][..], "--dataset-cache <DIR>"),
        (&["--dataset-cache", "cache", "--dataset-cache-size", "0"], "expected a size above 0, such as 500MB"),
        (&["--dataset-cache", "cache", "--dataset-cache-size", "20GiBs"], "expected a size above 0, such as 500MB"),
    ] {
        let ran = maser(dir.path(), &[&all[..], &["--input-file", "0.jsonl"], arguments].concat());
        let err = String::from_utf8(ran.stderr).unwrap();
        assert!(ran.status.code() == Some(2) && err.contains(said), "{err}");
    }
}

#[test]
fn bodies_of_this_run_alone_are_not_kept() {
    let (dir, server) = (tempfile::tempdir().unwrap(), Server::start());
    let url = format!("http://127.0.0.1:{}", server.port);
    std::fs::write(dir.path().join("made.jsonl"), "{\"input_length\":9,\"output_length\":4}\n").unwrap();
    std::fs::write(dir.path().join("given.jsonl"), "{\"text\":\"x\"}\n").unwrap();
    std::fs::write(dir.path().join("media.jsonl"), "{\"text\":\"x\",\"image\":\"a.gif\"}\n").unwrap();
    std::fs::write(dir.path().join("a.gif"), "GIF89a").unwrap();
    for (file, said, count) in [
        ("made.jsonl", "--dataset-cache has no effect without --random-seed", 0),
        ("media.jsonl", "--dataset-cache has no effect: rows name files of images", 0),
        ("given.jsonl", "", 1),
    ] {
        let arguments = ["profile", "-m", "x", "-u", &url, "--use-server-token-count", "--request-count", "1"];
        let cached = ["--input-file", file, "--dataset-cache", "cache", "--artifact-dir", "run"];
        let ran = maser(dir.path(), &[&arguments[..], &cached].concat());
        let err = String::from_utf8(ran.stderr).unwrap();
        assert_eq!(ran.status.code(), Some(0), "{err}");
        assert!(err.contains(said), "{err}");
        assert_eq!(kept(&dir.path().join("cache")).len(), count, "{file}");
    }
}
