//! OpenAI chat completions, as vLLM, Dynamo, llama.cpp and the hosted providers speak it.
//!
//! Reading is lenient where servers differ: the `object` field is not looked at (but for `"error"`), a `delta` and a
//! `message` are read alike, reasoning is `reasoning_content` or `reasoning`, content may be a string or a list of parts.
//! Every element of `choices` counts as output (the reference reads the first alone); a session goes on with the first.

use super::body::{Body, Report};
use super::content::{self, Audio, Forms, put_head, put_list};
use super::images::Images;
use super::reply::{Call, Reply, put_raw};
use super::{Facts, Fragments, Options, Reading, Splice, Unfit, Unreadable, latest, put_json, usage};
use crate::wire::json::Scanner;
use maser_datasets::Conversation;

pub(super) const FACTS: Facts = Facts {
    name: "chat",
    path: "/v1/chat/completions",
    can_stream: true,
    produces_tokens: true,
    media: [true; 3],
    images: Images::InMessages("image_url"),
    holds_conversations: true,
    body,
    walk: Some(walk),
    reply,
    message,
    ..Facts::PLAIN
};

pub(super) const FORMS: Forms = Forms {
    name: "chat",
    tail: b"",
    replays: |_| true,
    text: |out, text| {
        out.extend_from_slice(b"{\"type\":\"text\",\"text\":");
        put_json(out, text);
        out.push(b'}');
    },
    image: |out, url, key| {
        out.extend_from_slice(b"{\"type\":\"image_url\",\"image_url\":{\"url\":");
        put_json(out, url);
        out.push(b'}');
        if let Some(key) = key {
            out.extend_from_slice(b",\"uuid\":");
            put_json(out, key);
        }
        out.push(b'}');
    },
    audio: Some(put_audio),
    video: Some(|out, url| {
        out.extend_from_slice(b"{\"type\":\"video_url\",\"video_url\":{\"url\":");
        put_json(out, url);
        out.extend_from_slice(b"}}");
    }),
};

pub(super) fn put_audio(out: &mut Vec<u8>, clip: Audio<'_>) {
    out.extend_from_slice(b"{\"type\":\"input_audio\",\"input_audio\":{\"data\":");
    put_json(out, clip.data);
    out.extend_from_slice(b",\"format\":");
    put_json(out, clip.format);
    out.extend_from_slice(b"}}");
}

/// Field order: `messages`, `model`, `stream`, `tools`, the limit, the run's extras, the turn's extras, `stream_options`.
/// An extra of the name of an earlier field replaces its value in its place.
///
/// A session's system text goes before that of a first message which is a system message already.
pub(super) fn body(
    options: &Options,
    conversation: &Conversation,
    k: usize,
    out: &mut Vec<u8>,
) -> Result<Splice, Unfit> {
    let (start, turn) = (out.len(), &conversation.turns[k]);
    let mut spliced = Ok(Splice::NONE);
    let mut body = Body::begin(options, turn, Report::UsageOrEach, out);
    body.field("messages", |out| {
        let (begins, is_first) = content::own_system(conversation, k);
        let system = conversation.system.as_deref();
        let head = |out: &mut Vec<u8>| {
            put_head(system.filter(|_| !begins), conversation.user_context.as_deref(), out);
        };
        spliced = put_list(&FORMS, turn, start, head, system.filter(|_| begins && is_first), out);
    });
    body.model();
    body.put("stream", &options.streaming);
    if let Some(tools) = latest(conversation, k, |turn| turn.tools.as_ref()) {
        body.put("tools", tools);
    }
    if let Some(limit) = turn.max_tokens {
        let name = match options.use_legacy_max_tokens {
            true => "max_tokens",
            false => "max_completion_tokens",
        };
        body.put(name, &limit);
    }
    body.finish();
    spliced
}

pub(super) fn walk<'a>(mut scanner: Scanner<'a>, reading: &mut Reading<'a>) -> Result<(), Unreadable> {
    scanner.enter_object()?;
    while let Some(key) = scanner.next_key() {
        match key {
            b"choices" => read_choices(&mut scanner, reading),
            b"usage" => reading.usage = usage::read(&mut scanner).or(reading.usage),
            b"error" => reading.set_error(scanner.raw()),
            b"metrics" => read_metrics(&mut scanner, reading),
            // Vendors' wrappers of the same counts.
            b"usageMetadata" => reading.usage = reading.usage.or(usage::read(&mut scanner)),
            b"meta" => reading.usage = reading.usage.or(usage::read_meta(&mut scanner)),
            b"object" => read_object(&mut scanner, reading),
            _ => scanner.skip(),
        }
    }
    scanner.end()
}

/// An object that calls itself `error` is one: vLLM's older form of an error within a stream.
#[inline]
pub(super) fn read_object<'a>(scanner: &mut Scanner<'a>, reading: &mut Reading<'a>) {
    if scanner.string() == Some(b"error") && reading.error.is_none() {
        reading.error = Some(scanner.text());
    }
}

/// The server's account of its speculative decoding.
#[cold]
pub(super) fn read_metrics<'a>(scanner: &mut Scanner<'a>, reading: &mut Reading<'a>) {
    if !scanner.open_object() {
        return;
    }
    while let Some(key) = scanner.next_key() {
        match key {
            b"speculative_decoding" => reading.speculation = scanner.raw(),
            _ => scanner.skip(),
        }
    }
}

/// The first choice gives the reading its number. What a reply cannot take as it stands is kept whole.
#[inline]
fn read_choices<'a>(scanner: &mut Scanner<'a>, reading: &mut Reading<'a>) {
    let start = scanner.position();
    if !scanner.open_array() || !scanner.next_element() {
        return;
    }
    let mut is_plain = true;
    reading.choice = read_choice(scanner, reading, &mut is_plain);
    is_plain &= reading.choice == 0;
    while scanner.next_element() {
        read_choice(scanner, reading, &mut is_plain);
        is_plain = false;
    }
    if !is_plain {
        reading.parts = scanner.since(start);
    }
}

/// Returns the choice's number.
#[inline]
fn read_choice<'a>(scanner: &mut Scanner<'a>, reading: &mut Reading<'a>, is_plain: &mut bool) -> u32 {
    let mut number = 0;
    if !scanner.open_object() {
        return number;
    }
    while let Some(key) = scanner.next_key() {
        match key {
            b"delta" | b"message" => read_message(scanner, reading, is_plain),
            b"finish_reason" => reading.finish |= scanner.string().is_some(),
            b"index" => number = scanner.count().unwrap_or(0),
            // Some providers report usage here.
            b"usage" => {
                let usage = usage::read(scanner);
                reading.usage = reading.usage.or(usage);
            }
            _ => scanner.skip(),
        }
    }
    number
}

#[inline]
fn read_message<'a>(scanner: &mut Scanner<'a>, reading: &mut Reading<'a>, is_plain: &mut bool) {
    if !scanner.open_object() {
        return;
    }
    // Servers in transition send both names with the same text: it counts once.
    let mut reasoning: [&[u8]; 2] = [&[]; 2];
    while let Some(key) = scanner.next_key() {
        match key {
            b"content" => read_content(scanner, reading),
            b"reasoning_content" => reasoning[0] = scanner.string().unwrap_or_default(),
            b"reasoning" => reasoning[1] = scanner.string().unwrap_or_default(),
            b"tool_calls" => *is_plain &= !read_tool_calls(scanner, &mut reading.text),
            b"function_call" => *is_plain &= !read_function(scanner, &mut reading.text),
            _ => scanner.skip(),
        }
    }
    let [first, second] = reasoning;
    reading.reasoning.push(if first.is_empty() { second } else { first });
}

/// Content is a string, or a list of parts: `text` is output, `thinking` (a list of parts itself) is reasoning.
#[inline]
fn read_content<'a>(scanner: &mut Scanner<'a>, reading: &mut Reading<'a>) {
    if let Some(text) = scanner.string_or_stay() {
        reading.text.push(text);
        return;
    }
    read_parts(scanner, &mut reading.text, Some(&mut reading.reasoning))
}

fn read_parts<'a>(scanner: &mut Scanner<'a>, text: &mut Fragments<'a>, mut thinking: Option<&mut Fragments<'a>>) {
    if !scanner.open_array() {
        return;
    }
    while scanner.next_element() {
        if !scanner.open_object() {
            continue;
        }
        while let Some(key) = scanner.next_key() {
            match (key, thinking.as_deref_mut()) {
                (b"text", _) => text.push(scanner.string().unwrap_or_default()),
                (b"thinking", Some(thinking)) => read_parts(scanner, thinking, None),
                _ => scanner.skip(),
            }
        }
    }
}

/// Whether there was any.
fn read_tool_calls<'a>(scanner: &mut Scanner<'a>, text: &mut Fragments<'a>) -> bool {
    if !scanner.open_array() {
        return false;
    }
    let mut any = false;
    while scanner.next_element() {
        any = true;
        if !scanner.open_object() {
            continue;
        }
        while let Some(key) = scanner.next_key() {
            match key {
                b"function" => {
                    read_function(scanner, text);
                }
                _ => scanner.skip(),
            }
        }
    }
    any
}

/// The name goes before the arguments, in whichever order they come. Whether it is a function at all.
fn read_function<'a>(scanner: &mut Scanner<'a>, text: &mut Fragments<'a>) -> bool {
    if !scanner.open_object() {
        return false;
    }
    let mut parts: [&[u8]; 2] = [&[]; 2];
    while let Some(key) = scanner.next_key() {
        match key {
            b"name" => parts[0] = scanner.string().unwrap_or_default(),
            b"arguments" => parts[1] = scanner.string().unwrap_or_default(),
            _ => scanner.skip(),
        }
    }
    for part in parts {
        text.push(part);
    }
    true
}

/// Takes the first choice of a `choices` array: its text as usual, its calls of tools by their index.
fn reply(reply: &mut Reply, reading: &Reading<'_>) {
    let mut scanner = Scanner::new(reading.parts);
    if !scanner.open_array() {
        return;
    }
    while scanner.next_element() {
        let (mut number, mut raw) = (0, &b"null"[..]);
        if scanner.open_object() {
            while let Some(key) = scanner.next_key() {
                match key {
                    b"index" => number = scanner.count().unwrap_or(0),
                    b"delta" | b"message" => raw = scanner.raw(),
                    _ => scanner.skip(),
                }
            }
        }
        if number == 0 {
            reply_message(reply, raw);
        }
    }
}

fn reply_message(reply: &mut Reply, raw: &[u8]) {
    let mut scanner = Scanner::new(raw);
    if !scanner.open_object() {
        return;
    }
    let mut plain = Reading::default();
    let mut calls = (None, None);
    while let Some(key) = scanner.next_key() {
        match key {
            b"content" => read_content(&mut scanner, &mut plain),
            b"reasoning_content" | b"reasoning" if plain.reasoning.is_empty() => {
                plain.reasoning.push(scanner.string().unwrap_or_default());
            }
            b"tool_calls" => calls.0 = Some(scanner.raw()),
            b"function_call" => calls.1 = Some(scanner.raw()),
            _ => scanner.skip(),
        }
    }
    reply.add_plain(&plain);
    if let Some(raw) = calls.0 {
        let mut scanner = Scanner::new(raw);
        if scanner.open_array() {
            while scanner.next_element() {
                reply_call(reply, &mut scanner);
            }
        }
    }
    if let Some(raw) = calls.1 {
        // The legacy form has one call.
        reply_function(reply.call(Some(0)), raw);
    }
}

fn reply_call(reply: &mut Reply, scanner: &mut Scanner<'_>) {
    let (mut index, mut id, mut kind, mut function) = (None, None, None, &b"null"[..]);
    if !scanner.open_object() {
        return;
    }
    while let Some(key) = scanner.next_key() {
        match key {
            b"index" => index = scanner.count(),
            b"id" => id = scanner.string(),
            b"type" => kind = scanner.string(),
            b"function" => function = scanner.raw(),
            _ => scanner.skip(),
        }
    }
    let call = reply.call(index);
    Call::set(&mut call.id, id);
    Call::set(&mut call.kind, kind);
    reply_function(call, function);
}

fn reply_function(call: &mut Call, raw: &[u8]) {
    let mut scanner = Scanner::new(raw);
    if !scanner.open_object() {
        return;
    }
    while let Some(key) = scanner.next_key() {
        match key {
            b"name" => Call::set(&mut call.name, scanner.string()),
            b"arguments" => call.arguments.extend_from_slice(scanner.string().unwrap_or_default()),
            _ => scanner.skip(),
        }
    }
}

/// `{"role":"assistant","content":…}`, and the calls of tools if there are any.
pub(super) fn message(reply: &Reply, out: &mut Vec<u8>) -> bool {
    let text = match reply.calls() {
        [] => reply.plain(),
        _ => reply.text.as_slice(),
    };
    if text.is_empty() && reply.calls().is_empty() {
        return false;
    }
    out.extend_from_slice(b"{\"role\":\"assistant\",\"content\":");
    match text {
        [] => out.extend_from_slice(b"null"),
        text => put_raw(out, text),
    }
    for (n, call) in reply.calls().iter().enumerate() {
        out.extend_from_slice(if n == 0 { b",\"tool_calls\":[" } else { b"," });
        out.extend_from_slice(b"{\"id\":");
        put_raw(out, &call.id);
        out.extend_from_slice(b",\"type\":");
        put_raw(out, if call.kind.is_empty() { b"function" } else { &call.kind });
        out.extend_from_slice(b",\"function\":{\"name\":");
        put_raw(out, &call.name);
        out.extend_from_slice(b",\"arguments\":");
        put_raw(out, &call.arguments);
        out.extend_from_slice(b"}}");
    }
    if !reply.calls().is_empty() {
        out.push(b']');
    }
    out.push(b'}');
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::{Kind, Usage};
    use maser_datasets::Turn;
    use serde_json::{Map, Value, json};

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap_or_default()
    }

    fn written(options: &Options, turn: &Turn) -> String {
        let mut out = b"before".to_vec();
        let conversation = Conversation { turns: vec![turn.clone()], ..Conversation::default() };
        Kind::Chat.body(options, &conversation, 0, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        text.strip_prefix("before").unwrap().to_owned()
    }

    fn options(streaming: bool, extra: Value) -> Options {
        Options { model: "m".into(), streaming, extra: map(extra), ..Options::default() }
    }

    fn turn(texts: &[&str]) -> Turn {
        Turn { texts: texts.iter().map(|&text| text.into()).collect(), ..Turn::default() }
    }

    #[test]
    fn a_body_has_its_fields_in_the_reference_order() {
        let full = Turn {
            max_tokens: Some(64),
            tools: Some(json!([{"type": "function"}])),
            extra: map(json!({"min_tokens": 64})),
            ..turn(&["hi"])
        };
        assert_eq!(
            written(&options(true, json!({"temperature": 0.7, "seed": 1})), &full),
            r#"{"messages":[{"role":"user","content":"hi"}],"model":"m","stream":true,"tools":[{"type":"function"}],"max_completion_tokens":64,"temperature":0.7,"seed":1,"min_tokens":64,"stream_options":{"include_usage":true}}"#
        );
        let legacy = Options { use_legacy_max_tokens: true, ..options(false, json!({})) };
        assert_eq!(
            written(&legacy, &full),
            r#"{"messages":[{"role":"user","content":"hi"}],"model":"m","stream":false,"tools":[{"type":"function"}],"max_tokens":64,"min_tokens":64}"#
        );
    }

    #[test]
    fn content_is_a_string_or_parts() {
        for (texts, want) in [
            (&["hi"][..], r#""hi""#),
            (&[""], r#""""#),
            (&[], r#""""#),
            (&["", ""], r#""""#),
            (&["a", "", "b"], r#"[{"type":"text","text":"a"},{"type":"text","text":"b"}]"#),
            (&["", "b"], r#"[{"type":"text","text":"b"}]"#),
            (&["q\"\\\n\u{1}\u{7f}é"], "\"q\\\"\\\\\\n\\u0001\u{7f}é\""),
        ] {
            let body = written(&options(false, json!({})), &turn(texts));
            let want = format!(r#"{{"messages":[{{"role":"user","content":{want}}}],"model":"m","stream":false}}"#);
            assert_eq!(body, want);
        }
    }

    #[test]
    fn a_turn_overrides_role_model_messages_and_all() {
        let mut one = Turn { role: Some("tool".into()), model: Some("other".into()), ..turn(&["x"]) };
        let none = options(false, json!({}));
        assert_eq!(
            written(&none, &one),
            r#"{"messages":[{"role":"tool","content":"x"}],"model":"other","stream":false}"#
        );
        one.messages = Some(json!([{"role": "system", "content": "s", "z": 1, "a": 2}]));
        assert_eq!(
            written(&none, &one),
            r#"{"messages":[{"role":"system","content":"s","z":1,"a":2}],"model":"other","stream":false}"#
        );
        one.payload = Some(json!({"prompt": "p", "n": 1.5}));
        assert_eq!(written(&options(true, json!({"x": 1})), &one), r#"{"prompt":"p","n":1.5}"#);
    }

    #[test]
    fn extras_replace_in_place_and_the_turns_word_counts() {
        let mut one = turn(&["x"]);
        one.extra = map(json!({"b": 2, "model": "turn", "c": 3}));
        let run = options(true, json!({"a": 1, "b": 1, "stream": false, "model": "run"}));
        assert_eq!(
            written(&run, &one),
            r#"{"messages":[{"role":"user","content":"x"}],"model":"turn","stream":false,"a":1,"b":2,"c":3}"#
        );
    }

    #[test]
    fn stream_options_follow_the_merged_stream_field() {
        let tail = |options: &Options| {
            let body = written(options, &turn(&["x"]));
            body[r#"{"messages":[{"role":"user","content":"x"}],"model":"m","#.len()..].to_owned()
        };
        for (streaming, extra, want) in [
            (true, json!({}), r#""stream":true,"stream_options":{"include_usage":true}}"#),
            (false, json!({"stream": true}), r#""stream":true,"stream_options":{"include_usage":true}}"#),
            (false, json!({"stream": "yes"}), r#""stream":"yes","stream_options":{"include_usage":true}}"#),
            (true, json!({"stream": 0}), r#""stream":0}"#),
            (true, json!({"stream": null}), r#""stream":null}"#),
            (false, json!({"stream_options": {"x": 1}}), r#""stream":false,"stream_options":{"x":1}}"#),
            (
                true,
                json!({"stream_options": {"x": 1}, "k": 2}),
                r#""stream":true,"stream_options":{"x":1,"include_usage":true},"k":2}"#,
            ),
            (
                true,
                json!({"stream_options": {"include_usage": false}}),
                r#""stream":true,"stream_options":{"include_usage":false}}"#,
            ),
            (true, json!({"stream_options": null}), r#""stream":true,"stream_options":null}"#),
        ] {
            assert_eq!(tail(&options(streaming, extra)), want);
        }
        let chatty = Options { per_chunk_usage: true, ..options(true, json!({})) };
        assert_eq!(
            tail(&chatty),
            r#""stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true}}"#
        );
    }

    /// Text fragments, reasoning fragments, finish.
    fn seen(json: &str) -> (Vec<&str>, Vec<&str>, bool) {
        let reading = Kind::Chat.read(json.as_bytes()).unwrap();
        fn all<'a>(fragments: &Fragments<'a>) -> Vec<&'a str> {
            let text = |raw| std::str::from_utf8(raw).unwrap();
            fragments.iter().map(text).collect()
        }
        let (text, reasoning) = (all(&reading.text), all(&reading.reasoning));
        assert_eq!(reading.has_content(), !text.is_empty() || !reasoning.is_empty());
        (text, reasoning, reading.finish)
    }

    #[test]
    fn deltas_and_messages_are_read() {
        let delta = |inner: &str| format!(r#"{{"choices":[{{"index":0,"delta":{inner}}}]}}"#);
        for (inner, text, reasoning) in [
            (r#"{"role":"assistant"}"#, &[][..], &[][..]),
            (r#"{"role":"assistant","content":""}"#, &[], &[]),
            (r#"{"content":null,"tool_calls":null,"function_call":null}"#, &[], &[]),
            (r#"{}"#, &[], &[]),
            (r#"null"#, &[], &[]),
            (r#"{"content":"a\"b"}"#, &[r#"a\"b"#], &[]),
            (r#"{"content":"a","refusal":"r"}"#, &["a"], &[]),
            (r#"{"content":null,"reasoning_content":"r"}"#, &[], &["r"]),
            (r#"{"content":"a","reasoning":"r"}"#, &["a"], &["r"]),
            (r#"{"reasoning":"r","reasoning_content":"r"}"#, &[], &["r"]),
            (r#"{"reasoning":"r","reasoning_content":""}"#, &[], &["r"]),
            (r#"{"reasoning":{"x":"r"}}"#, &[], &[]),
            (
                r#"{"tool_calls":[{"index":0,"id":"i","type":"function","function":{"arguments":"{\"a\":","name":"f"}},{"function":{"arguments":"1}"}}]}"#,
                &["f", r#"{\"a\":"#, "1}"],
                &[],
            ),
            (r#"{"tool_calls":[{"function":{"name":null,"arguments":""}},7,{}]}"#, &[], &[]),
            (r#"{"function_call":{"name":"f","arguments":"{}"}}"#, &["f", "{}"], &[]),
            (
                r#"{"content":[{"type":"thinking","thinking":[{"type":"text","text":"t"}]},{"type":"text","text":"a"},{"type":"text","text":"b"}]}"#,
                &["a", "b"],
                &["t"],
            ),
        ] {
            let json = delta(inner);
            assert_eq!(seen(&json), (text.to_vec(), reasoning.to_vec(), false), "{inner}");
            let json = json.replace("delta", "message");
            assert_eq!(seen(&json), (text.to_vec(), reasoning.to_vec(), false), "{inner}");
        }
    }

    #[test]
    fn every_choice_counts() {
        let json = r#"{"choices":[{"index":1,"delta":{"content":"a"},"finish_reason":null},{"index":0,"delta":{"content":"b"},"finish_reason":"stop"}]}"#;
        assert_eq!(seen(json), (vec!["a", "b"], vec![], true));
        assert_eq!(Kind::Chat.read(json.as_bytes()).unwrap().choice, 1);
        for json in [r#"{"choices":[]}"#, r#"{"choices":null}"#, r#"{"choices":[3]}"#, "{}"] {
            assert_eq!(seen(json), (vec![], vec![], false));
        }
        let json = r#"{"choices":[{"finish_reason":"stop","delta":{"content":"a"}}]}"#;
        assert_eq!(seen(json), (vec!["a"], vec![], true));
    }

    #[test]
    fn usage_is_found_wherever_it_stands() {
        let usage = |json: &str| Kind::Chat.read(json.as_bytes()).unwrap().usage;
        let full = r#"{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3,"prompt_tokens_details":{"audio":0,"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":5}}"#;
        let want = Some(Usage { prompt: 1, completion: 2, total: 3, cached: 4, reasoning: 5, ..Usage::default() });
        assert_eq!(usage(&format!(r#"{{"choices":[],"usage":{full}}}"#)), want);
        assert_eq!(usage(&format!(r#"{{"usage":{full},"choices":[{{"delta":{{"content":"a"}}}}]}}"#)), want);
        assert_eq!(usage(&format!(r#"{{"choices":[{{"usage":{full}}}],"usage":null}}"#)), want);
        assert_eq!(usage(r#"{"usage":null}"#), None);
        assert_eq!(usage(r#"{"usage":{}}"#), None);
        assert_eq!(
            usage(
                r#"{"usage":{"completion_tokens":7,"prompt_tokens":null,"prompt_tokens_details":null,"total_tokens":-1}}"#
            ),
            Some(Usage { completion: 7, ..Usage::default() })
        );
    }

    #[test]
    fn errors_are_noticed() {
        let error = |json: &'static str| Kind::Chat.read(json.as_bytes()).unwrap().error;
        assert_eq!(error(r#"{"error":null,"choices":[]}"#), None);
        assert_eq!(error(r#"{"error": {"code":500} }"#), Some(&br#"{"code":500}"#[..]));
        assert_eq!(error(r#"{"error":"no"}"#), Some(&br#""no""#[..]));
        let old = r#"{"object":"error","message":"m"}"#;
        assert_eq!(error(old), Some(old.as_bytes()));
    }

    #[test]
    fn what_is_no_object_is_unreadable() {
        for json in ["", " ", "[]", "1", "\"x\"", "null", "{", r#"{"choices":[{"delta":{"content":"a"}}]"#, "{} {}"] {
            assert!(Kind::Chat.read(json.as_bytes()).is_err(), "{json}");
        }
    }
}
