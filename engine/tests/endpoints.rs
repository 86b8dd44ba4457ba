//! Every endpoint type: request bodies byte for byte, and answers, streamed and whole.
//!
//! Expected counts of captures were computed from the data by an independent script.

use maser_datasets::{Conversation, Media, Turn};
use maser_engine::endpoint::{BOUNDARY, Kind, Options, Reading, Reply, Shapes, Splice, Usage, is_done};
use maser_engine::record::UNKNOWN;
use maser_engine::said::Counter;
use maser_engine::wire::http1::{ResponseReader, Step};
use maser_engine::wire::json::unescape_into;
use maser_engine::wire::sse::SseParser;
use serde_json::{Map, Value, json};

const NO: u32 = UNKNOWN;

/// The payloads of a response that comes in `pieces`.
fn payloads<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
    let (mut http, mut sse) = (ResponseReader::new(), SseParser::new());
    let (mut found, mut body, mut is_stream) = (Vec::new(), Vec::new(), false);
    for piece in pieces {
        let mut rest = piece;
        loop {
            match http.step(&mut rest) {
                Ok(Step::Head(head)) => is_stream = head.event_stream,
                Ok(Step::Body(bytes)) if is_stream => sse.feed(bytes, &mut |event| found.push(event.data.to_vec())),
                Ok(Step::Body(bytes)) => body.extend_from_slice(bytes),
                Ok(Step::More | Step::Done { .. }) => break,
                Err(e) => panic!("{e}"),
            }
        }
    }
    sse.finish(&mut |event| found.push(event.data.to_vec()));
    if !is_stream {
        found.push(body);
    }
    found.retain(|payload| !is_done(payload));
    found
}

/// What payloads say together.
#[derive(Debug, Default, PartialEq)]
struct Said {
    chunks: usize,
    text: String,
    reasoning: String,
    units: u32,
    usage: Option<Usage>,
    finishes: usize,
    errors: usize,
}

fn said<'a>(kind: Kind, payloads: impl IntoIterator<Item = &'a [u8]>) -> Said {
    let (mut text, mut reasoning) = (Vec::new(), Vec::new());
    let mut said = Said::default();
    let mut shapes = Shapes::new();
    for payload in payloads {
        let mut reading = Reading::default();
        shapes
            .read_into(kind, payload, &mut reading)
            .unwrap_or_else(|e| panic!("{}: {e}", String::from_utf8_lossy(payload)));
        said.finishes += usize::from(reading.finish);
        said.errors += usize::from(reading.error.is_some());
        if let Some(usage) = reading.usage {
            said.usage.get_or_insert_default().update(&usage);
        }
        if !reading.has_content() || reading.repeats && said.chunks > 0 {
            continue;
        }
        said.chunks += 1;
        said.units += reading.units;
        reading.text.iter().for_each(|raw| unescape_into(raw, &mut text));
        reading.reasoning.iter().for_each(|raw| unescape_into(raw, &mut reasoning));
    }
    said.text = String::from_utf8(text).expect("UTF-8");
    said.reasoning = String::from_utf8(reasoning).expect("UTF-8");
    said
}

fn usage([prompt, completion, reasoning, cached, total]: [u32; 5]) -> Option<Usage> {
    Some(Usage { prompt, completion, reasoning, cached, total, ..Usage::default() })
}

/// The token counts alone.
fn tokens(usage: Option<Usage>) -> Option<Usage> {
    usage.map(|usage| Usage { said: Default::default(), ..usage })
}

macro_rules! capture {
    ($name:literal) => {
        include_bytes!(concat!("data/captures/", $name, ".http")) as &[u8]
    };
}

macro_rules! stream {
    ($name:literal) => {
        include_bytes!(concat!("data/provider_streams/", $name)) as &[u8]
    };
}

/// Kind, bytes, payloads, chunks, bytes of text, begin of the text, units, usage.
type Capture = (Kind, &'static [u8], usize, usize, usize, &'static str, u32, Option<Usage>);

fn captures() -> Vec<Capture> {
    vec![
        (Kind::Responses, capture!("vllm_responses_stream"), 13, 5, 61, "_cc近千 nắmﱭ", 0, usage([9, 6, 0, 0, 15])),
        (
            Kind::Responses,
            capture!("dynamo_responses_stream"),
            14,
            6,
            24,
            "ner Int indletative pass",
            0,
            usage([9, 6, 0, 0, 15]),
        ),
        (
            Kind::Messages,
            capture!("vllm_anthropic_messages_stream"),
            11,
            6,
            42,
            " cess sorter",
            0,
            usage([15, 6, NO, NO, NO]),
        ),
        // It counts the input anew with every event.
        (
            Kind::Messages,
            capture!("dynamo_messages_stream"),
            11,
            6,
            19,
            "testIntstd blikives",
            0,
            usage([15, 6, NO, NO, 21]),
        ),
        (
            Kind::Completions,
            capture!("vllm_completions_stream"),
            13,
            12,
            80,
            "_spin distra衡量",
            0,
            usage([4, 12, NO, NO, 16]),
        ),
        (Kind::Completions, capture!("dynamo_completions_stream"), 9, 8, 51, " require", 0, None),
        (Kind::HuggingfaceGenerate, capture!("aiperf_mock_tgi_generate_stream"), 4, 4, 16, " gentle work did", 0, None),
        (Kind::Embeddings, capture!("infinity_embeddings"), 1, 1, 0, "", 1, usage([11, NO, NO, NO, 11])),
        (Kind::NimRankings, capture!("fakeai_nim_ranking"), 1, 1, 0, "", 2, None),
        (Kind::CohereRankings, capture!("aiperf_mock_cohere_rerank"), 1, 1, 0, "", 2, None),
        (Kind::HfTeiRankings, capture!("aiperf_mock_tei_rerank"), 1, 1, 0, "", 2, None),
        (
            Kind::SolidoRag,
            capture!("fakeai_solido_rag"),
            1,
            1,
            401,
            "I'd be happy to share",
            0,
            usage([65, 74, NO, NO, 139]),
        ),
    ]
}

#[test]
fn captures_say_what_the_servers_said() {
    for (kind, bytes, count, chunks, len, begin, units, usage) in captures() {
        let payloads = payloads([bytes]);
        let found = said(kind, payloads.iter().map(Vec::as_slice));
        assert_eq!((payloads.len(), found.chunks, found.text.len()), (count, chunks, len), "{} {begin}", kind.name());
        assert!(found.text.starts_with(begin), "{}", found.text);
        assert_eq!((found.units, tokens(found.usage), found.errors), (units, usage, 0), "{} {begin}", kind.name());
    }
}

#[test]
fn captures_cut_anywhere_say_the_same() {
    for (kind, bytes, ..) in captures() {
        let whole = payloads([bytes]);
        for cut in 0..=bytes.len() {
            let (a, b) = bytes.split_at(cut);
            assert!(payloads([a, b]) == whole, "{} cut at {cut}", kind.name());
        }
        assert!(payloads(bytes.chunks(1)) == whole);
    }
}

#[test]
fn provider_streams_say_what_the_providers_said() {
    let events = |bytes: &[u8]| {
        let (mut sse, mut found) = (SseParser::new(), Vec::new());
        sse.feed(bytes, &mut |event| found.push(event.data.to_vec()));
        sse.finish(&mut |event| found.push(event.data.to_vec()));
        found
    };
    let lines: Vec<Vec<u8>> =
        stream!("anthropic-text.chunks.txt").split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(Into::into).collect();
    for (kind, payloads, count, chunks, text, reasoning, usage) in [
        (Kind::Messages, lines, 12, 6, (108, "Hello! I'm doing well"), (0, ""), usage([12, 30, NO, 0, NO])),
        (
            Kind::Messages,
            events(stream!("anthropic_model_thinking_part_stream.0.sse")),
            118,
            108,
            (1021, "Here are the basic steps"),
            (202, "This is a straightforward"),
            usage([43, 282, NO, 0, NO]),
        ),
        (
            Kind::Responses,
            events(stream!("openai_responses_stream.0.sse")),
            11,
            6,
            (31, r#"get_capital{"country":"France"}"#),
            (0, ""),
            usage([255, 16, 0, 0, 271]),
        ),
    ] {
        let found = said(kind, payloads.iter().map(Vec::as_slice));
        assert_eq!((payloads.len(), found.chunks), (count, chunks));
        assert_eq!((found.text.len(), found.reasoning.len()), (text.0, reasoning.0));
        assert!(found.text.starts_with(text.1) && found.reasoning.starts_with(reasoning.1));
        assert_eq!((tokens(found.usage), found.errors), (usage, 0));
        let written = found.usage.and_then(|usage| usage.said.get(Counter::CacheWrite));
        assert_eq!(written, (kind == Kind::Messages).then_some(0.0));
        assert!(found.finishes >= 1);
        let mut reply = Reply::new();
        assert!(payloads.iter().all(|payload| reply.add(kind, &kind.read(payload).expect("read above"))));
        let mut message = Vec::new();
        assert!(reply.message(kind, &mut message));
        let message: Value = serde_json::from_slice(&message).expect("JSON");
        match (kind, reasoning.0) {
            (Kind::Messages, 0) => assert_eq!(message["content"], found.text),
            (Kind::Messages, _) => {
                assert_eq!(message["content"][0]["thinking"], found.reasoning);
                assert!(message["content"][0]["signature"].as_str().is_some_and(|s| s.len() > 100));
                assert_eq!(message["content"][1]["text"], found.text);
            }
            _ => assert_eq!(
                (&message["type"], &message["arguments"]),
                (&json!("function_call"), &json!(r#"{"country":"France"}"#))
            ),
        }
    }
}

/// Chunks, text, reasoning, units, finishes, errors.
type Sum = (usize, &'static str, &'static str, u32, usize, usize);

#[test]
fn answers_of_every_type_are_read() {
    let table: &[(Kind, &[&str], Sum)] = &[
        (
            Kind::Completions,
            &[
                r#"{"object":"whatever","choices":[{"text":"a","index":0,"finish_reason":"stop"},{"text":"b","index":1}]}"#,
            ],
            (1, "ab", "", 0, 1, 0),
        ),
        (Kind::Completions, &[r#"{"choices":[],"usage":{"prompt_tokens":1}}"#], (0, "", "", 0, 0, 0)),
        (Kind::Completions, &[r#"{"error":{"message":"m"}}"#], (0, "", "", 0, 0, 1)),
        (
            Kind::Responses,
            &[
                r#"{"type":"response.output_text.done","text":"ab"}"#,
                r#"{"response":{"output":[{"type":"message","content":[{"type":"output_text","text":"ab"}]}],"status":"completed"},"type":"response.completed"}"#,
            ],
            (1, "ab", "", 0, 1, 0),
        ),
        (
            Kind::Responses,
            &[
                r#"{"delta":"a","type":"response.output_text.delta"}"#,
                r#"{"type":"response.reasoning_text.delta","delta":"r"}"#,
                r#"{"type":"response.output_text.done","text":"a"}"#,
                r#"{"type":"response.incomplete","response":{"output":[],"usage":{"input_tokens":1}}}"#,
            ],
            (2, "a", "r", 0, 1, 0),
        ),
        (
            Kind::Responses,
            &[
                r#"{"object":"response","error":null,"status":"completed","output":[{"type":"reasoning","summary":[{"type":"summary_text","text":"r"}]},{"type":"message","content":[{"type":"output_text","text":"a"}]},{"type":"function_call","name":"f","arguments":"{}"}],"usage":{"input_tokens":1}}"#,
            ],
            (1, "af{}", "r", 0, 1, 0),
        ),
        (Kind::Responses, &[r#"{"object":"response","output_text":"a"}"#], (1, "a", "", 0, 0, 0)),
        (
            Kind::Responses,
            &[
                r#"{"type":"response.failed","response":{"error":{"message":"m"}}}"#,
                r#"{"type":"error","message":"m"}"#,
            ],
            (0, "", "", 0, 0, 2),
        ),
        (
            Kind::Messages,
            &[
                r#"{"type":"ping"}"#,
                r#"{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"i","name":"f","input":{}}}"#,
                r#"{"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"{}"}}"#,
                r#"{"type":"message_delta","delta":{"stop_reason":"tool_use"},"usage":{"output_tokens":3}}"#,
            ],
            (2, "f{}", "", 0, 1, 0),
        ),
        (
            Kind::Messages,
            &[
                r#"{"type":"message","content":[{"type":"thinking","thinking":"h"},{"type":"text","text":"a"},{"type":"tool_use","name":"f","input":{"x":1}}],"stop_reason":"end_turn"}"#,
            ],
            (1, r#"af{"x":1}"#, "h", 0, 1, 0),
        ),
        (
            Kind::Messages,
            &[r#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#],
            (0, "", "", 0, 0, 1),
        ),
        (
            Kind::Embeddings,
            &[r#"{"data":[{"embedding":[1,2]},{"object":"embedding","embedding":"AACAPw=="},{"x":1}]}"#],
            (1, "", "", 2, 0, 0),
        ),
        (Kind::Embeddings, &[r#"{"data":[]}"#, r#"{"text":"no vector"}"#], (0, "", "", 0, 0, 0)),
        (
            Kind::ChatEmbeddings,
            &[r#"{"embeddings":[[1,2],[3,4]]}"#, r#"{"embedding":[1,2]}"#, r#"{"embedding":[]}"#],
            (2, "", "", 3, 0, 0),
        ),
        (Kind::NimEmbeddings, &[r#"{"data":[{"embedding":[1]}]}"#], (1, "", "", 1, 0, 0)),
        (Kind::HfTeiEmbeddings, &["[[0.5,-1],[1e-3,2]]", "[]"], (1, "", "", 2, 0, 0)),
        (Kind::HfTeiRankings, &[r#"[{"index":0,"score":1},{"index":1,"score":0.5}]"#, r#"[]"#], (1, "", "", 2, 0, 0)),
        (Kind::NimRankings, &[r#"{"rankings":[]}"#], (0, "", "", 0, 0, 0)),
        (
            Kind::CohereRankings,
            &[r#"{"results":[{"index":0}],"meta":{"tokens":{"input_tokens":5,"output_tokens":1}}}"#],
            (1, "", "", 1, 0, 0),
        ),
        (
            Kind::HuggingfaceGenerate,
            &[
                r#"{"token":{"text":"a","special":false},"generated_text":null}"#,
                r#"{"token":{"text":"</s>","special":true},"generated_text":"a","details":{"generated_tokens":2}}"#,
            ],
            (1, "a", "", 0, 1, 0),
        ),
        (Kind::HuggingfaceGenerate, &[r#"[{"generated_text":"a"}]"#], (1, "a", "", 0, 1, 0)),
        (Kind::HuggingfaceGenerate, &[r#"{"generated_text":"a"}"#], (1, "a", "", 0, 1, 0)),
        (
            Kind::HuggingfaceGenerate,
            &[r#"{"error":"Model is overloaded","error_type":"overloaded"}"#],
            (0, "", "", 0, 0, 1),
        ),
        (
            Kind::ImageGeneration,
            &[
                r#"{"type":"image_generation.partial_image","b64_json":"AA","partial_image_index":0}"#,
                r#"{"type":"image_generation.completed","b64_json":"AA","usage":{"input_tokens":1,"output_tokens":2}}"#,
            ],
            (2, "", "", 2, 0, 0),
        ),
        (
            Kind::ImageGeneration,
            &[r#"{"created":1,"data":[{"b64_json":"AA"},{"url":"http://x","revised_prompt":"p"},{"b64_json":null}]}"#],
            (1, "", "", 2, 0, 0),
        ),
        (Kind::ImageEdit, &[r#"{"data":[{"b64_json":"AA"}]}"#], (1, "", "", 1, 0, 0)),
        (
            Kind::VideoGeneration,
            &[r#"{"id":"v","status":"queued"}"#, r#"{"id":"v","status":"completed"}"#, r#"{"status":"failed"}"#],
            (1, "", "", 1, 1, 1),
        ),
        (Kind::ImageRetrieval, &[r#"{"data":[{"bounding_boxes":{}}]}"#], (1, "", "", 1, 0, 0)),
        (Kind::AudioTranscription, &[r#"{"text":"hi","usage":{"input_tokens":1}}"#], (1, "hi", "", 0, 0, 0)),
        (Kind::AudioTranscription, &["1\n00:00 --> 00:01\nhi"], (1, "1\n00:00 --> 00:01\nhi", "", 0, 0, 0)),
        (Kind::SolidoRag, &[r#"{"content":"a","sources":[{"content":"x"}]}"#], (1, "a", "", 0, 0, 0)),
        (
            Kind::Raw,
            &[r#"{"output":["a","b"]}"#, r#"{"choices":[{"delta":{"content":"c"}}]}"#, "d"],
            (3, "abcd", "", 0, 0, 0),
        ),
        (Kind::Raw, &[r#"{"data":[{"embedding":[1]}],"text":"x"}"#, r#"{"results":[1,2]}"#], (2, "", "", 3, 0, 0)),
        (Kind::Template, &[r#"{"text":"a","choices":[{"text":"b"}]}"#], (1, "a", "", 0, 0, 0)),
        (
            Kind::KserveInfer,
            &[
                r#"{"model_name":"m","outputs":[{"name":"text_output","datatype":"BYTES","shape":[1],"data":["a"]}]}"#,
                r#"{"outputs":[{"name":"o","datatype":"FP32","shape":[2],"data":[1.0,2.0]}]}"#,
            ],
            (2, "a", "", 1, 0, 0),
        ),
        (Kind::KserveInfer, &[r#"{"error":"no such model"}"#], (0, "", "", 0, 0, 1)),
        (
            Kind::KserveGenerate,
            &[r#"{"model_name":"m","text_output":"a"}"#, r#"{"text_output":["b"]}"#],
            (2, "ab", "", 0, 0, 0),
        ),
    ];
    for (kind, payloads, want) in table {
        let found = said(*kind, payloads.iter().map(|p| p.as_bytes()));
        let (chunks, text, reasoning, units, finishes, errors) = *want;
        assert_eq!(
            (found.chunks, &*found.text, &*found.reasoning, found.units, found.finishes, found.errors),
            (chunks, text, reasoning, units, finishes, errors),
            "{} {payloads:?}",
            kind.name()
        );
    }
}

/// An answer in one piece, the events of one, and what either says: text and units of the first, chunks of the second.
type Forms = (Kind, &'static str, &'static [&'static str], (&'static str, u32), usize);

fn forms() -> Vec<Forms> {
    const VECTOR: &str = r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.5,-1e-3]}],"usage":{"prompt_tokens":3,"total_tokens":3}}"#;
    const IMAGE: &str = r#"{"created":1,"data":[{"b64_json":"AA=="}],"usage":{"input_tokens":1,"output_tokens":2}}"#;
    const COMPLETION: &[&str] =
        &[r#"{"choices":[{"index":0,"text":"é"}]}"#, r#"{"choices":[{"index":0,"text":"b","finish_reason":"stop"}]}"#];
    vec![
        (
            Kind::Chat,
            r#"{"object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"\u00e9b"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2}}"#,
            &[
                r#"{"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#,
                r#"{"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"é"}}]}"#,
                r#"{"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"b"},"finish_reason":"stop"}]}"#,
                r#"{"object":"chat.completion.chunk","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}"#,
            ],
            ("éb", 0),
            2,
        ),
        (
            Kind::Completions,
            r#"{"object":"text_completion","choices":[{"index":0,"text":"éb","finish_reason":"stop"}]}"#,
            COMPLETION,
            ("éb", 0),
            2,
        ),
        (
            Kind::Responses,
            r#"{"object":"response","status":"completed","output":[{"type":"message","content":[{"type":"output_text","text":"éb"}]}],"usage":{"input_tokens":3,"output_tokens":2}}"#,
            &[
                r#"{"type":"response.created","response":{"id":"r","output":[]}}"#,
                r#"{"type":"response.output_text.delta","delta":"é"}"#,
                r#"{"type":"response.output_text.delta","delta":"b"}"#,
                r#"{"type":"response.output_text.done","text":"éb"}"#,
                r#"{"type":"response.completed","response":{"id":"r","output":[],"usage":{"input_tokens":3,"output_tokens":2}}}"#,
            ],
            ("éb", 0),
            2,
        ),
        (
            Kind::Messages,
            r#"{"type":"message","content":[{"type":"text","text":"éb"}],"stop_reason":"end_turn","usage":{"input_tokens":3,"output_tokens":2}}"#,
            &[
                r#"{"type":"message_start","message":{"content":[],"usage":{"input_tokens":3,"output_tokens":1}}}"#,
                r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"é"}}"#,
                r#"{"type":"ping"}"#,
                r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"b"}}"#,
                r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":2}}"#,
                r#"{"type":"message_stop"}"#,
            ],
            ("éb", 0),
            2,
        ),
        (Kind::Embeddings, VECTOR, &[], ("", 1), 0),
        (Kind::ChatEmbeddings, VECTOR, &[], ("", 1), 0),
        (Kind::NimEmbeddings, VECTOR, &[], ("", 1), 0),
        (Kind::HfTeiEmbeddings, "[[0.5,-1e-3],[1,0]]", &[], ("", 2), 0),
        (Kind::HfTeiRankings, r#"[{"index":1,"score":0.9},{"index":0,"score":0.1}]"#, &[], ("", 2), 0),
        (Kind::NimRankings, r#"{"rankings":[{"index":1,"logit":2.5},{"index":0,"logit":-1}]}"#, &[], ("", 2), 0),
        (
            Kind::CohereRankings,
            r#"{"id":"i","results":[{"index":1,"relevance_score":0.9},{"index":0,"relevance_score":0.1}]}"#,
            &[],
            ("", 2),
            0,
        ),
        (
            Kind::HuggingfaceGenerate,
            r#"[{"generated_text":"éb"}]"#,
            &[
                r#"{"token":{"id":1,"text":"é","special":false},"generated_text":null}"#,
                r#"{"token":{"id":2,"text":"b","special":false},"generated_text":"éb"}"#,
            ],
            ("éb", 0),
            2,
        ),
        (
            Kind::ImageGeneration,
            IMAGE,
            &[
                r#"{"type":"image_generation.partial_image","b64_json":"AA==","partial_image_index":0}"#,
                r#"{"type":"image_generation.completed","b64_json":"AAA="}"#,
            ],
            ("", 1),
            2,
        ),
        (Kind::ImageEdit, IMAGE, &[], ("", 1), 0),
        (Kind::VideoGeneration, r#"{"id":"v","object":"video","status":"completed","progress":100}"#, &[], ("", 1), 0),
        (Kind::ImageRetrieval, r#"{"data":[{"index":0,"bounding_boxes":{"table":[]}}]}"#, &[], ("", 1), 0),
        (Kind::AudioTranscription, r#"{"text":"éb","usage":{"input_tokens":3}}"#, &[], ("éb", 0), 0),
        (
            Kind::SolidoRag,
            r#"{"content":"éb","sources":[{"content":"x"}]}"#,
            &[r#"{"content":"é"}"#, r#"{"content":"b"}"#],
            ("éb", 0),
            2,
        ),
        (Kind::Raw, r#"{"choices":[{"text":"éb"}]}"#, COMPLETION, ("éb", 0), 2),
        (Kind::Template, r#"{"output":["é","b"]}"#, COMPLETION, ("éb", 0), 2),
        (
            Kind::KserveInfer,
            r#"{"model_name":"m","outputs":[{"name":"text_output","datatype":"BYTES","shape":[1],"data":["éb"]}]}"#,
            &[],
            ("éb", 0),
            0,
        ),
        (
            Kind::KserveGenerate,
            r#"{"model_name":"m","text_output":"éb"}"#,
            &[r#"{"text_output":"é"}"#, r#"{"text_output":"b"}"#],
            ("éb", 0),
            2,
        ),
    ]
}

/// The bytes of a response in one piece, and those of one in events, each in a chunk of its own.
fn on_the_wire(whole: &str, events: &[&str]) -> (Vec<u8>, Vec<u8>) {
    let whole =
        format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{whole}", whole.len());
    let mut stream =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
    for event in events.iter().chain(&["[DONE]"]) {
        let data = format!(": comment\ndata: {event}\n\n");
        stream += &format!("{:x}\r\n{data}\r\n", data.len());
    }
    (whole.into_bytes(), (stream + "0\r\n\r\n").into_bytes())
}

#[test]
fn every_type_s_answer_says_the_same_however_it_is_cut() {
    let forms = forms();
    assert!(Kind::ALL.iter().all(|kind| forms.iter().any(|(k, ..)| k == kind)), "every type is in the table");
    for (kind, whole, events, (text, units), chunks) in forms {
        assert_eq!(events.is_empty(), !kind.can_stream(), "{}", kind.name());
        let (one, many) = on_the_wire(whole, events);
        for (bytes, chunks) in [(one, 1), (many, chunks)].into_iter().take(1 + usize::from(kind.can_stream())) {
            let found = payloads([&bytes[..]]);
            let told = said(kind, found.iter().map(Vec::as_slice));
            let streamed = chunks != 1;
            let wanted = if streamed && units > 0 { chunks as u32 } else { units };
            assert_eq!((&*told.text, told.units, told.errors), (text, wanted, 0), "{}", kind.name());
            assert_eq!(told.chunks, chunks, "{}", kind.name());
            for cut in 0..=bytes.len() {
                let (a, b) = bytes.split_at(cut);
                assert!(payloads([a, b]) == found, "{} cut at {cut}", kind.name());
            }
            assert!(payloads(bytes.chunks(1)) == found, "{} byte by byte", kind.name());
        }
    }
}

#[test]
fn payloads_of_known_shapes_are_read_as_others_are() {
    let mut all: Vec<(Kind, Vec<u8>)> = Vec::new();
    for (kind, bytes, ..) in captures() {
        all.extend(payloads([bytes]).into_iter().map(|payload| (kind, payload)));
    }
    for (kind, whole, events, ..) in forms() {
        all.extend([whole].iter().chain(events).map(|text| (kind, text.as_bytes().to_vec())));
    }
    let thinking = stream!("anthropic_model_thinking_part_stream.0.sse").split(|b| *b == b'\n');
    all.extend(thinking.filter_map(|line| Some((Kind::Messages, line.strip_prefix(b"data: ")?.to_vec()))));
    let mut seed = 1u64;
    let mut below = move |n: usize| {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 33) as usize % n
    };
    for &kind in Kind::ALL {
        let own: Vec<&Vec<u8>> = all.iter().filter(|(k, _)| *k == kind).map(|(_, payload)| payload).collect();
        let mut shapes = Shapes::new();
        for round in 0..20_000 {
            let mut payload = own[if round % 3 == 0 { below(own.len()) } else { round / 200 % own.len() }].clone();
            for _ in 0..below(3) {
                let at = below(payload.len());
                match below(8) {
                    // Most bytes stand in a value that nobody looks at, or in a text.
                    0..6 if payload[at].is_ascii_alphanumeric() => payload[at] = b"7a"[below(2)],
                    6 => payload[at] = b"\"\\{}[],: 1\n"[below(11)],
                    _ => drop(payload.drain(at..(at + below(4)).min(payload.len()))),
                }
            }
            let mut reading = Reading::default();
            let shaped = shapes.read_into(kind, &payload, &mut reading).map(|()| reading);
            assert_eq!(shaped, kind.read(&payload), "{}: {}", kind.name(), String::from_utf8_lossy(&payload));
        }
    }
}

#[test]
fn no_type_is_brought_down_by_a_cut_or_a_foreign_answer() {
    let answers = [
        r#"{"choices":[{"index":0,"delta":{"content":"a","tool_calls":[{"index":0,"function":{"name":"f","arguments":"{}"}}]}}],"usage":{"input_tokens":1}}"#,
        r#"{"type":"response.completed","response":{"id":"r","output":[{"type":"message","id":"m","content":[{"type":"output_text","text":"t"}]}]}}"#,
        r#"{"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"i","name":"f","input":{"a":[]}}}"#,
        r#"{"data":[{"embedding":[1,2]},[3],4],"embeddings":[[1],2],"rankings":[1],"outputs":[{"data":["a",1]},7]}"#,
        r#"[{"generated_text":"a"},[1],"x",null]"#,
        "[]",
        "null",
        "-1e5",
        "\"text\"",
        "plain text",
    ];
    for &kind in Kind::ALL {
        let mut reply = Reply::new();
        for answer in answers {
            for cut in 0..=answer.len() {
                if let Ok(reading) = kind.read(&answer.as_bytes()[..cut]) {
                    reply.add(kind, &reading);
                    let mut out = Vec::new();
                    let any = reply.message(kind, &mut out);
                    assert_eq!(any, !out.is_empty());
                }
            }
        }
    }
}

fn map(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

fn named(name: &str, contents: &[&str]) -> Media {
    Media { name: name.into(), contents: contents.iter().map(|&c| c.into()).collect(), ..Media::default() }
}

/// The body of the last turn, and where history goes.
fn built(kind: Kind, options: &Options, conversation: &Conversation) -> (String, Splice) {
    let mut out = b"before".to_vec();
    let k = conversation.turns.len() - 1;
    let splice = kind.body(options, conversation, k, &mut out).unwrap_or_else(|e| panic!("{}: {e}", kind.name()));
    (String::from_utf8(out.split_off(6)).expect("UTF-8"), splice)
}

const PNG: &str = "data:image/png;base64,iVBORw0KGgo=";

#[test]
fn bodies_of_every_type_are_written_byte_for_byte() {
    let text = Turn { max_tokens: Some(8), ..Turn::of_text("hi".into()) };
    let several = Turn { texts: vec![named("", &["a", "b"])], ..Turn::default() };
    let ranking = Turn { texts: vec![named("query", &["q"]), named("passages", &["x", "y"])], ..Turn::default() };
    let picture = Turn { images: vec![PNG.into()], ..Turn::of_text("hi".into()) };
    let only_picture = Turn { images: vec![PNG.into()], ..Turn::default() };
    let table: &[(Kind, bool, &Turn, &str)] = &[
        (
            Kind::Completions,
            true,
            &text,
            r#"{"prompt":"hi","model":"m","stream":true,"max_tokens":8,"x":1,"stream_options":{"include_usage":true}}"#,
        ),
        (Kind::Completions, false, &several, r#"{"prompt":["a","b"],"model":"m","stream":false,"x":1}"#),
        (
            Kind::Responses,
            true,
            &text,
            r#"{"input":[{"role":"user","content":"hi","type":"message"}],"model":"m","stream":true,"max_output_tokens":8,"x":1}"#,
        ),
        (
            Kind::Responses,
            false,
            &picture,
            r#"{"input":[{"role":"user","content":[{"type":"input_text","text":"hi"},{"type":"input_image","image_url":"data:image/png;base64,iVBORw0KGgo="}],"type":"message"}],"model":"m","stream":false,"x":1}"#,
        ),
        (
            Kind::Messages,
            true,
            &text,
            r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":8,"stream":true,"x":1}"#,
        ),
        (
            Kind::Messages,
            false,
            &picture,
            r#"{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"hi"},{"type":"image","source":{"type":"base64","media_type":"image/png","data":"iVBORw0KGgo="}}]}],"max_tokens":1024,"x":1}"#,
        ),
        (Kind::Embeddings, false, &text, r#"{"model":"m","input":["hi"],"x":1}"#),
        (Kind::Embeddings, false, &several, r#"{"model":"m","input":["a","b"],"x":1}"#),
        (
            Kind::ChatEmbeddings,
            false,
            &Turn::of_text("hi".into()),
            r#"{"messages":[{"role":"user","content":"hi"}],"model":"m","stream":false,"x":1}"#,
        ),
        (
            Kind::NimEmbeddings,
            false,
            &picture,
            r#"{"model":"m","input":["hi data:image/png;base64,iVBORw0KGgo="],"x":1}"#,
        ),
        (
            Kind::NimEmbeddings,
            false,
            &only_picture,
            r#"{"model":"m","input":["data:image/png;base64,iVBORw0KGgo="],"x":1}"#,
        ),
        (Kind::HfTeiEmbeddings, false, &text, r#"{"inputs":["hi"],"x":1}"#),
        (Kind::HfTeiRankings, false, &ranking, r#"{"query":"q","texts":["x","y"],"x":1}"#),
        (
            Kind::NimRankings,
            false,
            &ranking,
            r#"{"model":"m","query":{"text":"q"},"passages":[{"text":"x"},{"text":"y"}],"x":1}"#,
        ),
        (Kind::CohereRankings, false, &ranking, r#"{"model":"m","query":"q","documents":["x","y"],"x":1}"#),
        (Kind::HuggingfaceGenerate, true, &text, r#"{"inputs":"hi","parameters":{"max_new_tokens":8,"x":1}}"#),
        (Kind::HuggingfaceGenerate, false, &several, r#"{"inputs":"a b","parameters":{"x":1}}"#),
        (
            Kind::ImageGeneration,
            true,
            &text,
            r#"{"prompt":"hi","model":"m","response_format":"b64_json","n":1,"stream":true,"x":1}"#,
        ),
        (
            Kind::ImageGeneration,
            false,
            &text,
            r#"{"prompt":"hi","model":"m","response_format":"b64_json","n":1,"x":1}"#,
        ),
        (
            Kind::ImageRetrieval,
            false,
            &only_picture,
            r#"{"input":[{"type":"image_url","url":"data:image/png;base64,iVBORw0KGgo="}],"x":1}"#,
        ),
        (
            Kind::SolidoRag,
            true,
            &text,
            r#"{"query":["hi"],"filters":{"family":"Solido","tool":"SDE"},"inference_model":"m","x":1}"#,
        ),
        (
            Kind::KserveInfer,
            false,
            &text,
            r#"{"inputs":[{"name":"text_input","shape":[1],"datatype":"BYTES","data":["hi"]},{"name":"x","shape":[1],"datatype":"INT32","data":[1]}]}"#,
        ),
        (Kind::KserveGenerate, true, &text, r#"{"text_input":"hi","max_tokens":8,"stream":true,"x":1}"#),
        (Kind::KserveGenerate, false, &text, r#"{"text_input":"hi","max_tokens":8,"x":1}"#),
        (
            Kind::SolidoRag,
            false,
            &text,
            r#"{"query":["hi"],"filters":{"family":"Solido","tool":"SDE"},"inference_model":"m","x":1}"#,
        ),
        (
            Kind::Chat,
            true,
            &text,
            r#"{"messages":[{"role":"user","content":"hi"}],"model":"m","stream":true,"max_completion_tokens":8,"x":1,"stream_options":{"include_usage":true}}"#,
        ),
        (
            Kind::Chat,
            false,
            &text,
            r#"{"messages":[{"role":"user","content":"hi"}],"model":"m","stream":false,"max_completion_tokens":8,"x":1}"#,
        ),
        (Kind::Template, true, &text, r#"{"t":"hi","n":8,"s":true,"x":1}"#),
        (Kind::Template, false, &text, r#"{"t":"hi","n":8,"s":false,"x":1}"#),
    ];
    // Forms have a test of their own, and a raw body is the payload that every type sends as it is.
    let forms = [Kind::ImageEdit, Kind::VideoGeneration, Kind::AudioTranscription];
    for &kind in Kind::ALL.iter().filter(|kind| !forms.contains(kind) && **kind != Kind::Raw) {
        for streaming in [false, true] {
            let wanted = !streaming || kind.can_stream();
            let has = table.iter().any(|(k, s, ..)| (*k, *s) == (kind, streaming));
            assert!(has || !wanted, "{} streaming {streaming}", kind.name());
        }
    }
    let template = Some(r#"{"t":"{{ text }}","n":{{ max_tokens|tojson }},"s":{{ stream|tojson }}}"#.to_owned());
    for (kind, streaming, turn, want) in table {
        let options = Options {
            model: "m".into(),
            streaming: *streaming,
            extra: map(json!({"x": 1})),
            template: template.clone(),
            ..Options::default()
        };
        let conversation = Conversation { turns: vec![(*turn).clone()], ..Conversation::default() };
        assert_eq!(built(*kind, &options, &conversation).0, *want, "{}", kind.name());
        // The turn's extras count over the run's.
        let turn = Turn { extra: map(json!({"x": 2})), ..(*turn).clone() };
        let (body, _) = built(*kind, &options, &Conversation { turns: vec![turn], ..Conversation::default() });
        assert!(body.contains(r#""x":2"#), "{body}");
        // A ready-made body is sent as it is.
        let payload = Turn { payload: Some(json!({"b": 1, "a": 2})), ..Turn::default() };
        let (body, splice) = built(*kind, &options, &Conversation { turns: vec![payload], ..Conversation::default() });
        assert_eq!((body.as_str(), splice), (r#"{"b":1,"a":2}"#, Splice::NONE));
    }
}

#[test]
fn forms_hold_fields_and_files() {
    let options = Options {
        model: "m".into(),
        extra: map(json!({"size": "1x1", "n": 2, "flag": true, "none": null, "image": "no", "file": "no"})),
        ..Options::default()
    };
    let part = |name: &str, value: &str| {
        format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let edit = Turn {
        images: vec![named("", &["data:image/png;base64,QUJD", "http://x/y.png", "R0lGODlh"])],
        ..Turn::of_text("p".into())
    };
    let want = [
        part("prompt", "p"),
        part("model", "m"),
        part("response_format", "b64_json"),
        part("n", "2"),
        part("size", "1x1"),
        part("flag", "true"),
        part("file", "no"),
        format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"image\"; filename=\"image.png\"\r\nContent-Type: image/png\r\n\r\nABC\r\n"
        ),
        part("url", "http://x/y.png"),
        format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"image\"; filename=\"image.gif\"\r\nContent-Type: image/gif\r\n\r\nGIF89a\r\n"
        ),
        format!("--{BOUNDARY}--\r\n"),
    ];
    let one = |turn: Turn| Conversation { turns: vec![turn], ..Conversation::default() };
    assert_eq!(built(Kind::ImageEdit, &options, &one(edit)).0, want.concat());
    let want = [
        format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"audio.wav\"\r\nContent-Type: audio/wav\r\n\r\nABC\r\n"
        ),
        part("model", "m"),
        part("size", "1x1"),
        part("n", "2"),
        part("flag", "true"),
        part("image", "no"),
        format!("--{BOUNDARY}--\r\n"),
    ];
    for clip in ["wav,QUJD", "data:audio/wav;base64,QUJD"] {
        let turn = Turn { audios: vec![clip.into()], ..Turn::default() };
        assert_eq!(built(Kind::AudioTranscription, &options, &one(turn)).0, want.concat());
    }
    let options = Options { model: "m".into(), ..Options::default() };
    let want = [part("prompt", "p"), part("model", "m"), format!("--{BOUNDARY}--\r\n")];
    assert_eq!(built(Kind::VideoGeneration, &options, &one(Turn::of_text("p".into()))).0, want.concat());
}

#[test]
fn chat_carries_every_medium() {
    let turn = Turn {
        texts: vec!["t".into(), "".into()],
        images: vec![Media {
            contents: vec!["u".into(), "".into()],
            uuids: vec!["k".into(), "l".into()],
            ..Media::default()
        }],
        audios: vec!["mp3,QUJD".into()],
        videos: vec!["v".into()],
        ..Turn::default()
    };
    let options = Options { model: "m".into(), ..Options::default() };
    let (body, _) = built(Kind::Chat, &options, &Conversation { turns: vec![turn], ..Conversation::default() });
    assert_eq!(
        body,
        r#"{"messages":[{"role":"user","content":[{"type":"text","text":"t"},{"type":"image_url","image_url":{"url":"u"},"uuid":"k"},{"type":"image_url","image_url":{"url":""},"uuid":"l"},{"type":"input_audio","input_audio":{"data":"QUJD","format":"mp3"}},{"type":"video_url","video_url":{"url":"v"}}]}],"model":"m","stream":false}"#
    );
}

#[test]
fn system_texts_stand_where_each_protocol_wants_them() {
    let options = Options { model: "m".into(), ..Options::default() };
    let session = |turns: Vec<Turn>| Conversation {
        turns,
        system: Some("S".into()),
        user_context: Some("C".into()),
        ..Conversation::default()
    };
    let hi = || Turn::of_text("hi".into());
    let cases = [
        (
            Kind::Chat,
            vec![hi()],
            r#"{"messages":[{"role":"system","content":"S"},{"role":"user","content":"C"},{"role":"user","content":"hi"}],"model":"m","stream":false}"#,
        ),
        (
            Kind::Responses,
            vec![hi()],
            r#"{"input":[{"type":"message","role":"user","content":"C"},{"role":"user","content":"hi","type":"message"}],"model":"m","stream":false,"instructions":"S"}"#,
        ),
        (
            Kind::Messages,
            vec![Turn { system_blocks: Some(json!([{"type": "text", "text": "B"}])), ..hi() }, hi()],
            r#"{"model":"m","messages":[{"role":"user","content":"C"},{"role":"user","content":"hi"}],"max_tokens":1024,"system":[{"type":"text","text":"S"},{"type":"text","text":"B"}]}"#,
        ),
        // The history begins with a system message of its own: ours goes before its text, and only there.
        (
            Kind::Chat,
            vec![Turn { messages: Some(json!([{"role": "system", "content": "old"}])), ..Turn::default() }],
            r#"{"messages":[{"role":"user","content":"C"},{"role":"system","content":"S\n\nold"}],"model":"m","stream":false}"#,
        ),
        (
            Kind::Chat,
            vec![
                Turn {
                    messages: Some(json!([{"role": "system", "content": [{"type": "text", "text": "old"}]}])),
                    ..Turn::default()
                },
                hi(),
            ],
            r#"{"messages":[{"role":"user","content":"C"},{"role":"user","content":"hi"}],"model":"m","stream":false}"#,
        ),
    ];
    for (kind, turns, want) in cases {
        let (body, splice) = built(kind, &options, &session(turns));
        assert_eq!(body, want);
        let own = &body[splice.at as usize..splice.end as usize];
        serde_json::from_str::<Value>(own).expect("the turn's own value");
        assert_eq!(&body[splice.head as usize - 1..splice.head as usize], "[");
    }
}

#[test]
fn a_stored_answer_is_continued_by_its_name() {
    let session = Conversation {
        turns: vec![Turn::of_text("one".into()), Turn::of_text("two".into())],
        system: Some("S".into()),
        user_context: Some("C".into()),
        ..Conversation::default()
    };
    let options = Options { model: "m".into(), extra: map(json!({"store": true})), ..Options::default() };
    let (body, splice) = built(Kind::Responses, &options, &session);
    assert!(splice.chains());
    let at = |n: u32| n as usize;
    let chained = [
        &body[..at(splice.head)],
        &body[at(splice.at)..at(splice.chain)],
        r#","previous_response_id":"resp_1""#,
        &body[at(splice.chain)..],
    ]
    .concat();
    assert_eq!(
        chained,
        r#"{"input":[{"role":"user","content":"two","type":"message"}],"model":"m","stream":false,"previous_response_id":"resp_1","instructions":"S","store":true}"#
    );
    let plain = Options { model: "m".into(), ..Options::default() };
    assert!(!built(Kind::Responses, &plain, &session).1.chains());
}

#[test]
fn what_an_endpoint_cannot_carry_is_refused_in_a_sentence() {
    let one = |turn: Turn| Conversation { session_id: "s".into(), turns: vec![turn], ..Conversation::default() };
    let clip = Turn { audios: vec!["wav,AA".into()], ..Turn::default() };
    let video = Turn { videos: vec!["v".into()], ..Turn::default() };
    let table = [
        (Kind::Messages, one(clip.clone()), "messages: its messages carry no audio"),
        (Kind::Messages, one(video.clone()), "carry no video"),
        (Kind::Responses, one(video), "responses: its messages carry no video"),
        (Kind::Chat, one(Turn { audios: vec!["no comma".into()], ..Turn::default() }), "no comma"),
        (Kind::NimRankings, one(Turn::of_text("q".into())), "a text named `query`, and a turn of session s has 0"),
        (Kind::ImageEdit, one(Turn::of_text("p".into())), "session s has no image to edit"),
        (Kind::ImageEdit, one(Turn { images: vec!["?".into()], ..Turn::default() }), "no base64"),
        (Kind::ImageEdit, one(Turn { images: vec!["QUJD".into()], ..Turn::default() }), "unknown format"),
        (Kind::ImageRetrieval, one(Turn::of_text("p".into())), "has no image"),
        (Kind::AudioTranscription, one(Turn::of_text("p".into())), "has no audio"),
        (Kind::Raw, one(Turn::of_text("p".into())), "turn 0 of session s is no whole body"),
        (
            Kind::NimEmbeddings,
            one(Turn { images: vec![PNG.into(), PNG.into()], ..Turn::of_text("t".into()) }),
            "1 texts and 2 images",
        ),
        (
            Kind::Completions,
            Conversation { turns: vec![Turn::of_text("a".into()), Turn::of_text("b".into())], ..one(Turn::default()) },
            "session s has 2 turns",
        ),
    ];
    for (kind, conversation, part) in table {
        let refused = kind.body(&Options::default(), &conversation, 0, &mut Vec::new());
        let sentence = refused.expect_err(kind.name()).to_string();
        assert!(sentence.contains(part), "{sentence}");
    }
}

/// The body with the session's history in it, as an executor puts it there.
fn with_history(body: &str, splice: Splice, history: &str) -> String {
    let (front, own) = body.split_at(splice.at as usize);
    [front, history, own].concat()
}

#[test]
fn golden_sessions_are_rebuilt_turn_by_turn() {
    let golden = include_str!("data/golden_sessions.jsonl");
    assert_eq!(golden.lines().count(), 2);
    let options = Options { model: "mock".into(), streaming: true, ..Options::default() };
    for line in golden.lines() {
        let turns: Vec<Value> = serde_json::from_str(line).expect("JSON");
        let bodies: Vec<&str> = turns.iter().map(|turn| turn["body"].as_str().expect("a body")).collect();
        let texts = bodies.iter().map(|body| {
            let body: Value = serde_json::from_str(body).expect("JSON");
            let last = body["messages"].as_array().and_then(|all| all.last()).expect("a message");
            Turn { max_tokens: Some(16), ..Turn::of_text(last["content"].as_str().expect("a text").to_owned()) }
        });
        let conversation = Conversation { turns: texts.collect(), ..Conversation::default() };
        let (mut history, mut reply) = (String::new(), Reply::new());
        for (k, turn) in turns.iter().enumerate() {
            let mut out = Vec::new();
            let splice = Kind::Chat.body(&options, &conversation, k, &mut out).expect("a body");
            let body = String::from_utf8(out).expect("UTF-8");
            assert_eq!(with_history(&body, splice, &history), bodies[k], "turn {k}");
            reply.clear();
            for event in turn["events"].as_array().expect("events") {
                let event = event.as_str().expect("an event").as_bytes();
                if !is_done(event) {
                    reply.add(Kind::Chat, &Kind::Chat.read(event).expect("JSON"));
                }
            }
            let mut message = Vec::new();
            assert!(reply.message(Kind::Chat, &mut message));
            history += &format!("{},", &body[splice.at as usize..splice.end as usize]);
            history += &format!("{},", String::from_utf8(message).expect("UTF-8"));
        }
    }
}

#[test]
fn sessions_of_every_protocol_stay_valid() {
    let text = |kind: Kind| match kind {
        Kind::Messages => r#"{"content":[{"type":"text","text":"an \"answer\""}]}"#,
        Kind::Responses => {
            r#"{"output":[{"type":"message","id":"m","role":"assistant","content":[{"type":"output_text","text":"an \"answer\""}]}]}"#
        }
        _ => r#"{"choices":[{"message":{"content":"an \"answer\""}}]}"#,
    };
    for (kind, field) in [(Kind::Chat, "messages"), (Kind::Messages, "messages"), (Kind::Responses, "input")] {
        let conversation = Conversation {
            turns: vec![Turn::of_text("one".into()), Turn::of_text("two".into())],
            user_context: Some("C".into()),
            ..Conversation::default()
        };
        let options = Options { model: "m".into(), ..Options::default() };
        let mut first = Vec::new();
        let splice = kind.body(&options, &conversation, 0, &mut first).expect("a body");
        let mut history = first[splice.at as usize..splice.end as usize].to_vec();
        history.push(b',');
        let mut reply = Reply::new();
        reply.add(kind, &kind.read(text(kind).as_bytes()).expect("JSON"));
        assert!(reply.message(kind, &mut history));
        history.push(b',');
        let (second, splice) = built(kind, &options, &conversation);
        let whole = with_history(&second, splice, &String::from_utf8(history).expect("UTF-8"));
        let whole: Value = serde_json::from_str(&whole).expect("JSON");
        let roles: Vec<&Value> = whole[field].as_array().expect("a list").iter().map(|m| &m["role"]).collect();
        assert_eq!(roles, ["user", "user", "assistant", "user"], "{}", kind.name());
    }
}
