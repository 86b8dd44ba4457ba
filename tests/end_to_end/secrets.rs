//! Whatever a secret is given as, it is in nothing that a run leaves or prints.

use super::*;
use std::io::Write;
use std::net::TcpListener;

/// The secret of a spelling: each has its own, so that a leak tells where it comes from.
fn secret(n: usize) -> String {
    format!("S3CR3T{n:02}q")
}

/// Spellings in words, `@@` for the secret; each gets the next number.
struct Spellings(usize);

impl Spellings {
    fn words(&mut self, spellings: &[&[&str]]) -> Vec<String> {
        let mut words = Vec::new();
        for spelling in spellings {
            self.0 += 1;
            words.extend(spelling.iter().map(|word| word.replace("@@", &secret(self.0))));
        }
        words
    }
}

/// Nothing below a directory, and nothing printed, has a secret in it.
#[track_caller]
fn nothing_shows(bench: &Bench, ran: &Ran) {
    let mut left = vec![bench.0.path().to_owned()];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_none_or(|kind| kind != "key") {
            clean(&path.display().to_string(), &std::fs::read(&path).unwrap());
        }
    }
    clean("standard output", ran.stdout.as_bytes());
    clean("standard error", ran.stderr.as_bytes());
}

#[track_caller]
fn clean(what: &str, bytes: &[u8]) {
    if let Some(at) = memchr::memmem::find(bytes, b"S3CR3T") {
        let around = &bytes[at.saturating_sub(80)..bytes.len().min(at + 40)];
        panic!("{what}: {}", String::from_utf8_lossy(around));
    }
}

/// A server that lets nobody in, and repeats the whole request to say so, until the test ends.
fn repeating_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || repeat(stream.unwrap()));
        }
    });
    port
}

fn repeat(mut stream: std::net::TcpStream) {
    let (mut request, mut piece) = (Vec::new(), [0; 65536]);
    loop {
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.to_ascii_lowercase();
            let length = length.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
            let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
            if body.len() >= length {
                // The prompt would leave no room for the rest.
                let (body, head) = (&body[body.len().saturating_sub(1500)..], &head[..head.len().min(2500)]);
                let said = format!("not with {head} and {body}");
                let status = "HTTP/1.1 401 Unauthorized\r\nContent-Length";
                let _ = write!(stream, "{status}: {}\r\nConnection: close\r\n\r\n{said}", said.len());
                return;
            }
        }
        match stream.read(&mut piece) {
            Ok(n) if n > 0 => request.extend_from_slice(&piece[..n]),
            _ => return,
        }
    }
}

const FEW: [&str; 6] = ["--request-count", "2", "--export-level", "raw", "--artifact-dir", "run"];

fn run(bench: &Bench, words: &[String]) -> Ran {
    let words: Vec<&str> = FEW.iter().copied().chain(words.iter().map(String::as_str)).collect();
    ran(bench.command("profile", &words))
}

#[test]
fn a_secret_shows_nowhere_however_it_is_spelled() {
    let mut all = Spellings(0);
    let port = repeating_server();
    let url = format!("http://127.0.0.1:{port}");
    headers_and_fields(&mut all);
    bodies_of_other_kinds(&mut all);
    repeated_by_the_server(&mut all, &url);
    refusals(&mut all, &url);
    keys_that_are_not_typed(&mut all, &url);
    assert!(all.0 >= 60, "{} spellings", all.0);
}

fn headers_and_fields(all: &mut Spellings) {
    let words = all.words(&[
        &["--mock=ttft=0,itl=0", "--api-key", "@@"],
        &["-H", "X-Api-Key: @@"],
        &["-H", "Cookie: sid=@@"],
        &["-HX-Auth-Token:@@"],
        &["-H=X-Signature:@@"],
        &["-vHX-Secret:@@"],
        &["-vH", "Key: @@"],
        &["--header={\"X-Jwt-Assertion\": \"@@\"}"],
        &["--header", "X-Pass:@@"],
        &["-H", "X-Odd: Bearer @@"],
        &["-H", "X-Strange: Basic @@"],
        &["-H", "X-A:1,X-Session-Token: a, @@"],
        &["-H", "{\"X-B\":\"bearer @@\"}", "X-C:3"],
        &["--extra-inputs", "api_key:@@"],
        &["--extra-inputs", "{\"password\":\"@@\"}", "seed:7"],
        &["--extra-inputs", "{\"a\":{\"b\":{\"client_secret\":\"@@\"}}}"],
        &["--extra-inputs", "{\"tools\":[{\"type\":\"mcp\",\"authorization\":\"Bearer @@\"}]}"],
        &["--extra-inputs", "{\"mcp\":[{\"headers\":{\"X-Session\":\"@@\"}}]}"],
        &["--extra-inputs", "{\"list\":[[{\"token\":\"@@\"}]]}"],
        &["--extra-inputs", "access_token:@@,min_tokens:5"],
        &["--extra-inputs", "{\"creds\":[\"Bearer @@\"]}"],
        &["--extra-inputs", "{\"aws_credentials\":[\"@@\", \"x\"]}"],
        &["--extra-inputs", "{\"odd\":\"Bearer @@\"}"],
        &["--extra-inputs", "{\"refresh_token\":{\"v\":\"@@\"}}"],
        &["--extra-inputs", "{\"id_token\":\"a\\\"@@\\\\\"}"],
        &["--extra-inputs={\"X-Api-Key\":\"@@\"}"],
        &["--custom-endpoint", "/v1/chat/completions?api-key=@@"],
    ]);
    let bench = Bench::new();
    let mut words = words;
    // These are no secrets, and short ones that are do not take other words with them.
    words.extend(["--extra-inputs", "token:on", "--extra-inputs", "secret:12"].map(str::to_owned));
    words.extend(["--export-parquet", "--export-hdr", "--export-outputs-json"].map(str::to_owned));
    let ran = run(&bench, &words).ends_with(0);
    nothing_shows(&bench, &ran);
    let body = json(&bench.path("run/inputs.json"))["data"][0]["payloads"][0].clone();
    assert_eq!(
        (&body["min_tokens"], &body["seed"], &body["a"]["b"]["client_secret"]),
        (&5.into(), &7.into(), &"<redacted>".into())
    );
    assert_eq!((&body["token"], &body["secret"]), (&"<redacted>".into(), &"<redacted>".into()));
    assert!(!body["messages"][0]["content"].as_str().unwrap().contains("redacted"));
    let raw = std::fs::read_to_string(bench.path("run/profile_export_raw.jsonl")).unwrap();
    let sent: Vec<Value> = raw.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(sent[0]["payload"], body, "what was sent, but for the secrets");
    // What it shows can be sent again.
    let again = ["--mock=ttft=0,itl=0", "--input-file", "run/inputs.json", "--custom-dataset-type", "inputs_json"];
    bench.run("profile", &[&again[..], &["--artifact-dir", "again"]].concat()).ends_with(0);
    let report = bench.run("report", &["run", "-o", "other"]).ends_with(0);
    nothing_shows(&bench, &report);
}

fn bodies_of_other_kinds(all: &mut Spellings) {
    let form = all.words(&[
        &[
            "--mock=ttft=0,itl=0",
            "--endpoint-type",
            "image_edit",
            "--image-width-mean",
            "8",
            "--image-height-mean",
            "8",
        ],
        &["--extra-inputs", "api_key:@@", "user:me"],
        &["--extra-inputs", "{\"secret\":{\"x\":\"@@\"}}"],
    ]);
    let tensors =
        all.words(&[&["--mock=ttft=0,itl=0", "--endpoint-type", "kserve_infer"], &["--extra-inputs", "api_key:@@"]]);
    let words = all.words(&[
        &["--mock=ttft=0,itl=0", "--endpoint-type", "huggingface_generate"],
        &["--extra-inputs", "{\"hf_token\":\"Bearer @@\"}"],
    ]);
    for words in [form, tensors, words] {
        let bench = Bench::new();
        let ran = run(&bench, &words);
        assert!(bench.path("run/inputs.json").exists(), "{words:?}\n{}\n{}", ran.stdout, ran.stderr);
        nothing_shows(&bench, &ran);
    }
    let bench = Bench::new();
    bench.file("rows.jsonl", "{\"text\": \"a\"}\n");
    let words = all.words(&[
        &["--mock=ttft=0,itl=0", "--input-file", "rows.jsonl", "--dataset-cache", "cache"],
        &["--extra-inputs", "api_key:@@"],
    ]);
    let ran = run(&bench, &words).ends_with(0);
    assert!(ran.stderr.contains("--dataset-cache has no effect: --extra-inputs puts a secret"), "{}", ran.stderr);
    nothing_shows(&bench, &ran);
    let options = all.words(&[&["-m x --extra-inputs api_key:@@"]]);
    let ran = bench.run("dataset", &["compile", "rows.jsonl", "rows.maser", "--for", &options[0]]).ends_with(2);
    nothing_shows(&bench, &ran);
}

fn repeated_by_the_server(all: &mut Spellings, url: &str) {
    let two = format!("{url}/v1?x=1,{url}?sig=@@");
    let words = all.words(&[
        &["-m", "m", "-u", &format!("{url}/v1?api-key=@@")],
        &["-u", &two],
        &["-u", &format!("{url}/v1?x=1&subscription-key=a%2F@@;y=2")],
        &["--api-key=@@"],
        &["-H", "X-Plain: Bearer @@"],
        &["--extra-inputs", "{\"api_key\":\"\\\"@@\\\"\"}"],
    ]);
    let bench = Bench::new();
    let ran = run(&bench, &words).ends_with(1);
    nothing_shows(&bench, &ran);
    let jsonl = std::fs::read_to_string(bench.path("run/profile_export.jsonl")).unwrap();
    assert!(jsonl.contains("not with ") && jsonl.contains("Bearer *********"), "the rest is there: {jsonl}");
    let template = "{\"payload_template\": \"{\\\"text\\\": {{ texts|tojson }}, \\\"api_key\\\": \\\"@@\\\"}\"}";
    let words = all.words(&[
        &["-m", "m", "-u", url, "--endpoint-type", "template", "--custom-endpoint", "/x?key=@@"],
        &["--extra-inputs", template],
    ]);
    let bench = Bench::new();
    let ran = run(&bench, &words).ends_with(1);
    nothing_shows(&bench, &ran);
    let body = &json(&bench.path("run/inputs.json"))["data"][0]["payloads"][0];
    assert_eq!(body["api_key"], "<redacted>");
}

/// What is said of a command line that cannot be used, or of a server that cannot.
fn refusals(all: &mut Spellings, url: &str) {
    let key = Bench::new();
    std::fs::write(key.path("bad.key"), "S3CR3T with spaces").unwrap();
    let file = key.path("bad.key").display().to_string();
    let wait = ["--wait-for-model-timeout", "0.2", "--wait-for-model-mode"];
    let spellings: &[(i32, &[&str])] = &[
        (1, &["-u", "http://127.0.0.1:1/v1?api-key=@@"]),
        (1, &["-u", "http://nowhere.invalid:1/v1?code=@@"]),
        (2, &["-u", "http://user:@@@h"]),
        (2, &["-u", "https://h/?token=@@"]),
        (2, &["-u", "http://h:x?jwt=@@"]),
        (2, &["--url=http://a?x=1,ftp://b?sig=@@"]),
        (2, &["--custom-endpoint", "v1?key=@@"]),
        (2, &["--endpoint=/v1#?key=@@"]),
        (2, &["--extra-inputs", "api_key=@@"]),
        (2, &["--extra-inputs", "{\"api_key\":\"@@\""]),
        (2, &["--extra-inputs", "{'password': '@@'}"]),
        (2, &["-H", "Authorization Bearer @@"]),
        (2, &["--header", "{\"Authorization\":[\"@@\"]}"]),
        (2, &["-H", "X-Api-Key: @@\u{1}"]),
        (2, &["-H", "X Api-Key: @@"]),
        (2, &["--api-key", "@@ x"]),
        (2, &["--api-key", "@@", "--api-key-file", "x"]),
        (2, &["--api-key-file", &file]),
        (2, &["--api-key", "@@", "--no-such-option"]),
        (1, &["-u", &format!("{url}?key=@@"), wait[0], wait[1], wait[2], "models"]),
        (1, &["-u", url, "--custom-endpoint", "/v1?key=@@", wait[0], wait[1], wait[2], "inference"]),
    ];
    for (code, spelling) in spellings {
        let words = all.words(&[&["-m", "m"], spelling]);
        let bench = Bench::new();
        let ran = run(&bench, &words).ends_with(*code);
        assert!(!ran.stderr.is_empty() && !ran.stderr.contains('\x1b'), "{spelling:?}: {}", ran.stderr);
        nothing_shows(&bench, &ran);
    }
    // The server is asked for its models, and lets nobody in.
    let words = all.words(&[&["-u", &format!("{url}/v1?key=@@")]]);
    let bench = Bench::new();
    nothing_shows(&bench, &run(&bench, &words).ends_with(2));
}

fn keys_that_are_not_typed(all: &mut Spellings, url: &str) {
    let bench = Bench::new();
    for (n, flag) in ["k.key", "-"].into_iter().enumerate() {
        all.0 += 1;
        std::fs::write(bench.path("k.key"), format!("{}\n", secret(all.0))).unwrap();
        let dir = format!("file{n}");
        let mut command =
            bench.command("profile", &["-m", "m", "-u", url, "--api-key-file", flag, "--request-count", "1"]);
        command.args(["--artifact-dir", &dir]).stdin(std::fs::File::open(bench.path("k.key")).unwrap());
        let ran = ran(command).ends_with(1);
        nothing_shows(&bench, &ran);
        let jsonl = std::fs::read_to_string(bench.path(&dir).join("profile_export.jsonl")).unwrap();
        assert!(jsonl.contains("Authorization: Bearer *********"), "it was sent: {jsonl}");
    }
    all.0 += 1;
    let of_environment = |words: &[&str]| {
        let bench = Bench::new();
        let mut command = bench.command("profile", &["-m", "m", "--request-count", "1", "--artifact-dir", "run"]);
        command.args(words).env("OPENAI_API_KEY", secret(all.0));
        let ran = ran(command);
        nothing_shows(&bench, &ran);
        let said = ran.stderr.contains("note: using OPENAI_API_KEY of the environment as the API key\n");
        let jsonl = std::fs::read_to_string(bench.path("run/profile_export.jsonl")).unwrap_or_default();
        (said, jsonl.contains("Authorization: Bearer *********"))
    };
    assert_eq!(of_environment(&["-u", url]), (true, true));
    assert_eq!(of_environment(&["-u", url, "-H", "authorization: none"]), (false, false), "it was given another");
    assert_eq!(of_environment(&["-u", url, "--endpoint-type", "messages"]), (false, false), "not the key of that API");
    assert_eq!(of_environment(&[AT_ONCE]), (false, false), "nobody named a server");
}
