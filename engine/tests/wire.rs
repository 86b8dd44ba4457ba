//! Real responses through the whole byte layer (HTTP/1.1, SSE, JSON, chat), cut everywhere; golden request bodies.
//!
//! Expected numbers were computed from the data by an independent script.

use maser_datasets::{Conversation, Turn};
use maser_engine::endpoint::{Kind, Options, Usage, is_done};
use maser_engine::record::UNKNOWN;
use maser_engine::wire::http1::{HttpError, ResponseReader, Step};
use maser_engine::wire::json::unescape_into;
use maser_engine::wire::sse::{Event, SseParser};
use proptest::prelude::*;

/// Everything a response said.
#[derive(Debug, Default, Clone, PartialEq)]
struct Answer {
    status: u16,
    reason: String,
    /// Names and data of events, or the whole body.
    payloads: Vec<(String, Vec<u8>)>,
    end: Option<Result<bool, HttpError>>,
}

impl Answer {
    fn push(&mut self, event: Event<'_>) {
        let name = String::from_utf8_lossy(event.name).into_owned();
        self.payloads.push((name, event.data.to_vec()));
    }
}

/// Reads a response that comes in `pieces`, after which the peer closes.
fn answer<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Answer {
    let mut http = ResponseReader::new();
    let mut sse = SseParser::new();
    let mut answer = Answer::default();
    let mut body: Option<Vec<u8>> = None;
    'pieces: for piece in pieces {
        let mut rest = piece;
        loop {
            match http.step(&mut rest) {
                Ok(Step::Head(head)) => {
                    answer.status = head.status;
                    answer.reason = head.reason.to_owned();
                    body = (!head.event_stream).then(Vec::new);
                }
                Ok(Step::Body(bytes)) => match &mut body {
                    Some(body) => body.extend_from_slice(bytes),
                    None => sse.feed(bytes, &mut |event| answer.push(event)),
                },
                Ok(Step::Done { reusable }) => {
                    answer.end = Some(Ok(reusable));
                    break 'pieces;
                }
                Ok(Step::More) => break,
                Err(error) => {
                    answer.end = Some(Err(error));
                    break 'pieces;
                }
            }
        }
    }
    if answer.end.is_none() {
        answer.end = Some(http.eof().map(|()| false));
    }
    sse.finish(&mut |event| answer.push(event));
    if let Some(body) = body {
        answer.push(Event { name: b"", data: &body });
    }
    answer
}

/// What the payloads of an answer say together.
#[derive(Debug, PartialEq)]
struct Said {
    payloads: usize,
    chunks: usize,
    text: String,
    reasoning: String,
    usage: Option<Usage>,
    finishes: usize,
}

fn said<'a>(payloads: impl IntoIterator<Item = &'a [u8]>) -> Said {
    let (mut text, mut reasoning) = (Vec::new(), Vec::new());
    let (mut count, mut chunks, mut finishes) = (0, 0, 0);
    let mut usage = None;
    for payload in payloads {
        if is_done(payload) {
            continue;
        }
        count += 1;
        let reading = Kind::Chat.read(payload).expect("a readable payload");
        chunks += usize::from(reading.has_content());
        finishes += usize::from(reading.finish);
        usage = reading.usage.or(usage);
        reading.text.iter().for_each(|raw| unescape_into(raw, &mut text));
        reading.reasoning.iter().for_each(|raw| unescape_into(raw, &mut reasoning));
    }
    Said {
        payloads: count,
        chunks,
        text: String::from_utf8(text).expect("UTF-8"),
        reasoning: String::from_utf8(reasoning).expect("UTF-8"),
        usage,
        finishes,
    }
}

fn usage(counts: [u32; 5]) -> Option<Usage> {
    let [prompt, completion, reasoning, cached, total] = counts;
    Some(Usage { prompt, completion, reasoning, cached, total, ..Usage::default() })
}

macro_rules! data {
    ($name:literal) => {
        include_bytes!(concat!("data/", $name)) as &[u8]
    };
}

const CAPTURES: &[(&str, &[u8])] = &[
    ("vllm stream", data!("captures/vllm_chat_stream_usage.http")),
    ("vllm", data!("captures/vllm_chat_nonstream.http")),
    ("vllm 404", data!("captures/vllm_error_404_model.http")),
    ("dynamo stream", data!("captures/dynamo_chat_stream_usage.http")),
    ("dynamo", data!("captures/dynamo_chat_nonstream.http")),
    ("dynamo 404", data!("captures/dynamo_error_404.http")),
    ("llama.cpp stream", data!("captures/llamacpp_chat_stream_usage.http")),
    ("llama.cpp", data!("captures/llamacpp_chat_nonstream.http")),
    ("llama.cpp 400", data!("captures/llamacpp_error_400.http")),
    ("nginx", data!("captures/nginx_static_sse.http")),
];

fn capture(name: &str) -> &'static [u8] {
    let found = CAPTURES.iter().find(|(n, _)| *n == name);
    found.expect("a capture of that name").1
}

#[test]
fn captured_answers_say_what_the_servers_said() {
    const NO: u32 = UNKNOWN;
    let vllm = "锹صراع is hacks JonahutationsEqualToArticles\tLOGGER Совет despre Cathy环境保护 דיגיט ,-針對";
    let llama = "$request佁because.getStatusCode.tile=imgㄹ debate";
    let nginx: String = (0..32).map(|n| format!("tok{n} ")).collect();
    let table = [
        ("vllm stream", 26, 24, format!("{vllm} cioèбриDetect specifically minds مجلBatman emission"), usage([15, 24, NO, NO, 39])),
        ("vllm", 1, 1, vllm.to_owned(), usage([15, 16, NO, NO, 31])),
        (
            "dynamo stream",
            25,
            23,
            "lection mon findritá\t\nreak etamespaceoin list*/Error ins saidodule were find param\"). \u{fffd}char expect comple".to_owned(),
            usage([15, 24, NO, 0, 39]),
        ),
        ("dynamo", 1, 1, "_DESuringThis NULL);cessarent".to_owned(), usage([15, 8, NO, 0, 23])),
        (
            "llama.cpp stream",
            27,
            24,
            format!("{llama}\tRandom lé fucked المشار wool Sudan gt老師irma underscore(jq iParam_esc+++ Column三个"),
            usage([15, 24, NO, 3, 39]),
        ),
        ("llama.cpp", 1, 1, llama.to_owned(), usage([15, 8, NO, 14, 23])),
        ("nginx", 33, 32, nginx, None),
    ];
    for (name, payloads, chunks, text, usage) in table {
        let answer = answer([capture(name)]);
        assert_eq!((answer.status, answer.reason.as_str()), (200, "OK"));
        // All these captures were asked to close.
        assert_eq!(answer.end, Some(Ok(false)), "{name}");
        let want = Said { payloads, chunks, text, reasoning: String::new(), usage, finishes: 1 };
        assert_eq!(said(answer.payloads.iter().map(|p| &p.1[..])), want, "{name}");
    }
}

#[test]
fn captured_errors_carry_their_bodies() {
    for (name, status, reason, error) in [
        ("vllm 404", 404, "Not Found", Some("The model `nope` does not exist")),
        ("dynamo 404", 404, "Not Found", None),
        ("llama.cpp 400", 400, "Bad Request", Some("'messages' is required")),
    ] {
        let answer = answer([capture(name)]);
        assert_eq!((answer.status, answer.reason.as_str()), (status, reason));
        assert_eq!(answer.end, Some(Ok(false)));
        let reading = Kind::Chat.read(&answer.payloads[0].1).expect("JSON");
        assert!(!reading.has_content() && reading.usage.is_none());
        let found = reading.error.map(String::from_utf8_lossy);
        assert_eq!(found.is_some(), error.is_some(), "{name}");
        assert!(found.unwrap_or_default().contains(error.unwrap_or("")));
    }
}

#[test]
fn a_capture_cut_anywhere_says_the_same() {
    for (name, bytes) in CAPTURES {
        let whole = answer([*bytes]);
        for cut in 0..=bytes.len() {
            let (a, b) = bytes.split_at(cut);
            assert_eq!(answer([a, b]), whole, "{name} cut at {cut}");
        }
        assert_eq!(answer(bytes.chunks(1)), whole, "{name} byte by byte");
    }
}

#[test]
fn a_capture_that_ends_early_is_truncated() {
    for (name, bytes) in CAPTURES {
        for cut in 0..bytes.len() {
            let want = match cut {
                0 => HttpError::NoResponse,
                _ => HttpError::Truncated,
            };
            let end = answer([&bytes[..cut]]).end;
            assert_eq!(end, Some(Err(want)), "{name} cut at {cut}");
        }
    }
}

/// Recorded streams of providers as event streams.
fn provider_streams() -> Vec<(&'static str, Vec<u8>)> {
    let lines = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        let events = text.lines().filter(|line| !line.is_empty());
        let events: String = events.map(|line| format!("data: {line}\n\n")).collect();
        events.into_bytes()
    };
    vec![
        ("openai", lines(data!("provider_streams/openai-text.chunks.txt"))),
        ("mistral", lines(data!("provider_streams/mistral-text.chunks.txt"))),
        ("deepseek", lines(data!("provider_streams/deepseek-reasoning.chunks.txt"))),
        ("deepseek sse", data!("provider_streams/deepseek_model_thinking_stream.0.sse").to_vec()),
        ("openrouter", data!("provider_streams/openrouter_stream_with_reasoning.0.sse").to_vec()),
    ]
}

fn events<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Answer {
    let mut sse = SseParser::new();
    let mut answer = Answer::default();
    for piece in pieces {
        sse.feed(piece, &mut |event| answer.push(event));
    }
    sse.finish(&mut |event| answer.push(event));
    answer
}

#[test]
fn provider_streams_say_what_the_providers_said() {
    // Payloads, chunks, bytes of text, bytes of reasoning, how text and reasoning start, usage.
    const NO: u32 = UNKNOWN;
    let table = [
        ("openai", [303, 300, 1730, 0], "**Holiday Name:** Harmony Day\n", "", [16, 300, 0, 0, 316]),
        ("mistral", [8, 6, 38, 0], "Hello, world! This is a test response.", "", [13, 8, NO, NO, 21]),
        (
            "deepseek",
            [220, 218, 42, 606],
            "The word \"strawberry\" contains three \"r\"s.",
            "We need to count the number of",
            [18, 219, 205, 0, 237],
        ),
        (
            "deepseek sse",
            [211, 209, 43, 882],
            "Hello there! 😊 How can I help you today?",
            "Hmm, the user just said \"Hello",
            [6, 212, 198, 0, 218],
        ),
        ("openrouter", [102, 98, 454, 0], "I\u{2019}m ChatGPT, a large-language-", "", [9, 104, 0, 0, 113]),
    ];
    for ((name, bytes), (want_name, counts, text, reasoning, tokens)) in provider_streams().iter().zip(table) {
        assert_eq!(*name, want_name);
        let found = said(events([&bytes[..]]).payloads.iter().map(|p| &p.1[..]));
        let lengths = [found.payloads, found.chunks, found.text.len(), found.reasoning.len()];
        assert_eq!(lengths, counts, "{name}");
        assert!(found.text.starts_with(text) && found.reasoning.starts_with(reasoning));
        let counts = found.usage.map(|usage| Usage { said: Default::default(), ..usage });
        assert_eq!(counts, usage(tokens), "{name}");
        assert_eq!(found.finishes, 1, "{name}");
    }
}

#[test]
fn a_provider_stream_cut_anywhere_says_the_same() {
    for (name, bytes) in provider_streams() {
        let whole = events([&bytes[..]]);
        assert_eq!(events(bytes.chunks(1)), whole, "{name} byte by byte");
        for size in 2..40 {
            assert_eq!(events(bytes.chunks(size)), whole, "{name} by {size}");
        }
        // Every position of the first events, then positions strewn over the rest.
        let (first, rest) = (bytes.len().min(3000), bytes.len());
        for cut in (0..first).chain((first..rest).step_by(997)) {
            let (a, b) = bytes.split_at(cut);
            assert!(events([a, b]) == whole, "{name} cut at {cut}");
        }
    }
}

#[test]
fn golden_bodies_are_rebuilt_byte_for_byte() {
    let golden = String::from_utf8_lossy(data!("golden_bodies.jsonl"));
    assert_eq!(golden.lines().count(), 5);
    for line in golden.lines() {
        let parsed: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let messages = parsed["messages"].as_array().expect("messages");
        let mut turn =
            Turn { max_tokens: parsed["max_completion_tokens"].as_u64().map(|n| n as u32), ..Turn::default() };
        match &messages[..] {
            [one] => turn.texts = vec![one["content"].as_str().expect("a text").into()],
            _ => turn.messages = Some(parsed["messages"].clone()),
        }
        let mut options = Options { model: "mock".into(), streaming: true, ..Options::default() };
        for name in ["temperature", "ignore_eos"] {
            if let Some(value) = parsed.get(name) {
                options.extra.insert(name.into(), value.clone());
            }
        }
        let mut body = Vec::new();
        let mut conversation = Conversation { turns: vec![turn], ..Conversation::default() };
        Kind::Chat.body(&options, &conversation, 0, &mut body).expect("a body");
        assert_eq!(String::from_utf8_lossy(&body), line);

        conversation.turns[0].payload = Some(parsed);
        body.clear();
        Kind::Chat.body(&Options::default(), &conversation, 0, &mut body).expect("a body");
        assert_eq!(String::from_utf8_lossy(&body), line);
    }
}

const FRAGMENTS: &[&[u8]] = &[
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.0 200 OK\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 404\r\n",
    b"Content-Length: 9\r\n",
    b"Content-Type: text/event-stream\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"\r\n",
    b"\n",
    b"7\r\n",
    b"data: x\r\n",
    b"data: x\n\n",
    b"0\r\n\r\n",
    b"a;x\r\n",
    b"\xff",
    b"",
];

proptest! {
    #[test]
    fn any_response_cut_anywhere_says_the_same(
        pieces in prop::collection::vec(prop::sample::select(FRAGMENTS), 0..16),
        starts: bool,
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let mut bytes = if starts { FRAGMENTS[0].to_vec() } else { Vec::new() };
        bytes.extend(pieces.concat());
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let whole = answer([&bytes[..]]);
        prop_assert_eq!(&answer(cuts.windows(2).map(|w| &bytes[w[0]..w[1]])), &whole);
        prop_assert_eq!(&answer(bytes.chunks(1)), &whole);
    }

    #[test]
    fn a_damaged_capture_is_survived(
        which in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = which.get(CAPTURES).1.to_vec();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let whole = answer([&bytes[..]]);
        prop_assert_eq!(&answer(bytes.chunks(7)), &whole);
        for (_, payload) in &whole.payloads {
            if let Ok(reading) = Kind::Chat.read(payload) {
                let mut text = Vec::new();
                reading.text.iter().for_each(|raw| unescape_into(raw, &mut text));
                prop_assert!(String::from_utf8(text).is_ok());
            }
        }
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert_eq!(answer(bytes.chunks(3)), answer([&bytes[..]]));
        let _ = Kind::Chat.read(&bytes);
    }
}
