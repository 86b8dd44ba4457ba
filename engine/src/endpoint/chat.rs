//! OpenAI chat completions, as vLLM, Dynamo, llama.cpp and the hosted providers speak it.
//!
//! Reading is lenient where servers differ: the `object` field is not looked at (but for `"error"`), a `delta` and a
//! `message` are read alike, reasoning is `reasoning_content` or `reasoning`, content may be a string or a list of parts.
//! Only the first element of `choices` is read.

use super::{Fragments, Options, Reading, Splice, Unreadable, Usage, latest, put_json};
use crate::record::UNKNOWN;
use crate::wire::json::Scanner;
use maser_datasets::{Conversation, Turn};
use serde_json::{Map, Value};

const STREAM_OPTIONS: &str = "stream_options";

/// Field order: `messages`, `model`, `stream`, `tools`, the limit, the run's extras, the turn's extras, `stream_options`.
/// An extra of the name of an earlier field replaces its value in its place.
pub(super) fn body(options: &Options, conversation: &Conversation, k: usize, out: &mut Vec<u8>) -> Splice {
    let (start, turn) = (out.len(), &conversation.turns[k]);
    let mut splice = Splice::NONE;
    let mut body = Body::begin(options, turn, out);
    body.field("messages", |out| {
        out.push(b'[');
        put_head(conversation, out);
        let at = out.len();
        put_messages(turn, out);
        splice = Splice { at: (at - start) as u32, end: (out.len() - start) as u32 };
        out.push(b']');
    });
    body.field("model", |out| {
        put_json(out, turn.model.as_ref().unwrap_or(&options.model));
    });
    body.field("stream", |out| put_json(out, &options.streaming));
    if let Some(tools) = latest(conversation, k, |turn| turn.tools.as_ref()) {
        body.field("tools", |out| put_json(out, tools));
    }
    if let Some(limit) = turn.max_tokens {
        let name = match options.use_legacy_max_tokens {
            true => "max_tokens",
            false => "max_completion_tokens",
        };
        body.field(name, |out| put_json(out, &limit));
    }
    body.extras();
    body.end();
    splice
}

/// The messages at the head of every request of a session.
fn put_head(conversation: &Conversation, out: &mut Vec<u8>) {
    for (role, text) in [("system", &conversation.system), ("user", &conversation.user_context)] {
        if let Some(text) = text {
            put_message(role, |out| put_json(out, text), out);
            out.push(b',');
        }
    }
}

/// The turn's own messages, commas between them.
fn put_messages(turn: &Turn, out: &mut Vec<u8>) {
    if let Some(messages) = &turn.messages {
        for (n, message) in messages.as_array().into_iter().flatten().enumerate() {
            if n > 0 {
                out.push(b',');
            }
            put_json(out, message);
        }
        return;
    }
    let mut texts = turn.all_texts();
    let content = |out: &mut Vec<u8>| match (texts.next(), texts.next()) {
        (Some(text), None) => put_json(out, text),
        _ => put_parts(turn, out),
    };
    put_message(turn.role.as_deref().unwrap_or("user"), content, out);
}

fn put_message(role: &str, content: impl FnOnce(&mut Vec<u8>), out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"role\":");
    put_json(out, role);
    out.extend_from_slice(b",\"content\":");
    content(out);
    out.push(b'}');
}

/// Several texts are parts of one content; empty ones are left out, and no part at all is the empty text.
fn put_parts(turn: &Turn, out: &mut Vec<u8>) {
    let mut lead: &[u8] = b"[{\"type\":\"text\",\"text\":";
    for text in turn.all_texts().filter(|text| !text.is_empty()) {
        out.extend_from_slice(lead);
        put_json(out, text);
        lead = b"},{\"type\":\"text\",\"text\":";
    }
    let none = turn.all_texts().all(str::is_empty);
    out.extend_from_slice(if none { b"\"\"" } else { b"}]" });
}

/// A body being written. Extras are looked up, not merged into a tree: texts are large and must not be copied twice.
struct Body<'t> {
    options: &'t Options,
    turn: &'t Turn,
    out: &'t mut Vec<u8>,
    /// Names written so far.
    written: [&'static str; 5],
    count: usize,
}

impl<'t> Body<'t> {
    fn begin(options: &'t Options, turn: &'t Turn, out: &'t mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { options, turn, out, written: [""; 5], count: 0 }
    }

    /// What the extras say of a field: the turn's word counts over the run's.
    fn extra(&self, name: &str) -> Option<&'t Value> {
        let (turn, run) = (&self.turn.extra, &self.options.extra);
        turn.get(name).or_else(|| run.get(name))
    }

    fn put_name(&mut self, name: &str) {
        if self.out.last() != Some(&b'{') {
            self.out.push(b',');
        }
        put_json(self.out, name);
        self.out.push(b':');
    }

    fn field(&mut self, name: &'static str, value: impl FnOnce(&mut Vec<u8>)) {
        self.put_name(name);
        match self.extra(name) {
            Some(extra) => put_json(self.out, extra),
            None => value(self.out),
        }
        if let Some(slot) = self.written.get_mut(self.count) {
            *slot = name;
            self.count += 1;
        }
    }

    fn extras(&mut self) {
        let (turn, run) = (&self.turn.extra, &self.options.extra);
        let late = turn.keys().filter(|name| !run.contains_key(*name));
        for name in run.keys().chain(late) {
            if self.written.contains(&name.as_str()) {
                continue;
            }
            let Some(value) = self.extra(name) else {
                continue;
            };
            self.put_name(name);
            match value {
                Value::Object(given) if name == STREAM_OPTIONS && self.streams() => {
                    let merged = self.stream_options(given);
                    put_json(self.out, &merged);
                }
                value => put_json(self.out, value),
            }
        }
    }

    /// Whether the body asks for a stream: the merged value of `stream`, by the reference's notion of truth.
    fn streams(&self) -> bool {
        match self.extra("stream") {
            None => self.options.streaming,
            Some(Value::Null) => false,
            Some(Value::Bool(yes)) => *yes,
            Some(Value::Number(n)) => n.as_f64() != Some(0.0),
            Some(Value::String(text)) => !text.is_empty(),
            Some(Value::Array(items)) => !items.is_empty(),
            Some(Value::Object(members)) => !members.is_empty(),
        }
    }

    /// A stream reports usage unless its author decided otherwise.
    fn stream_options(&self, given: &Map<String, Value>) -> Map<String, Value> {
        let mut merged = given.clone();
        merged.entry("include_usage").or_insert(Value::Bool(true));
        if self.options.per_chunk_usage {
            merged.entry("continuous_usage_stats").or_insert(Value::Bool(true));
        }
        merged
    }

    fn end(mut self) {
        if self.streams() && self.extra(STREAM_OPTIONS).is_none() {
            let merged = self.stream_options(&Map::new());
            self.put_name(STREAM_OPTIONS);
            put_json(self.out, &merged);
        }
        self.out.push(b'}');
    }
}

pub(super) fn read<'a>(json: &'a [u8], reading: &mut Reading<'a>) -> Result<(), Unreadable> {
    let mut scanner = Scanner::new(json);
    if !scanner.open_object() {
        scanner.end()?;
        return Err(Unreadable { at: 0, what: "an object was expected" });
    }
    while let Some(key) = scanner.next_key() {
        match key {
            b"choices" => read_choices(&mut scanner, reading),
            b"usage" => reading.usage = read_usage(&mut scanner).or(reading.usage),
            b"error" => {
                let raw = scanner.raw();
                if raw != b"null" {
                    reading.error = Some(raw);
                }
            }
            // vLLM's older form of an error within a stream.
            b"object" => {
                if scanner.string() == Some(b"error") && reading.error.is_none() {
                    reading.error = Some(json);
                }
            }
            _ => scanner.skip(),
        }
    }
    scanner.end()
}

#[inline]
fn read_choices<'a>(scanner: &mut Scanner<'a>, reading: &mut Reading<'a>) {
    if !scanner.open_array() || !scanner.next_element() {
        return;
    }
    read_choice(scanner, reading);
    while scanner.next_element() {
        scanner.skip();
    }
}

#[inline]
fn read_choice<'a>(scanner: &mut Scanner<'a>, reading: &mut Reading<'a>) {
    if !scanner.open_object() {
        return;
    }
    while let Some(key) = scanner.next_key() {
        match key {
            b"delta" | b"message" => read_message(scanner, reading),
            b"finish_reason" => reading.finish |= scanner.string().is_some(),
            // Some providers report usage here.
            b"usage" => {
                let usage = read_usage(scanner);
                reading.usage = reading.usage.or(usage);
            }
            _ => scanner.skip(),
        }
    }
}

#[inline]
fn read_message<'a>(scanner: &mut Scanner<'a>, reading: &mut Reading<'a>) {
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
            b"tool_calls" => read_tool_calls(scanner, &mut reading.text),
            b"function_call" => read_function(scanner, &mut reading.text),
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

fn read_tool_calls<'a>(scanner: &mut Scanner<'a>, text: &mut Fragments<'a>) {
    if !scanner.open_array() {
        return;
    }
    while scanner.next_element() {
        if !scanner.open_object() {
            continue;
        }
        while let Some(key) = scanner.next_key() {
            match key {
                b"function" => read_function(scanner, text),
                _ => scanner.skip(),
            }
        }
    }
}

/// The name goes before the arguments, in whichever order they come.
fn read_function<'a>(scanner: &mut Scanner<'a>, text: &mut Fragments<'a>) {
    if !scanner.open_object() {
        return;
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
}

/// `None` for anything but an object with members.
fn read_usage(scanner: &mut Scanner<'_>) -> Option<Usage> {
    if !scanner.open_object() {
        return None;
    }
    let mut usage = Usage::default();
    let mut any = false;
    while let Some(key) = scanner.next_key() {
        any = true;
        match key {
            b"prompt_tokens" => usage.prompt = count(scanner),
            b"completion_tokens" => usage.completion = count(scanner),
            b"total_tokens" => usage.total = count(scanner),
            b"completion_tokens_details" => {
                usage.reasoning = detail(scanner, b"reasoning_tokens");
            }
            b"prompt_tokens_details" => usage.cached = detail(scanner, b"cached_tokens"),
            _ => scanner.skip(),
        }
    }
    any.then_some(usage)
}

fn count(scanner: &mut Scanner<'_>) -> u32 {
    scanner.count().unwrap_or(UNKNOWN)
}

/// The count called `name` within an object of details.
fn detail(scanner: &mut Scanner<'_>, name: &[u8]) -> u32 {
    let mut found = UNKNOWN;
    if scanner.open_object() {
        while let Some(key) = scanner.next_key() {
            if key == name {
                found = count(scanner);
            } else {
                scanner.skip();
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Kind;
    use serde_json::json;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap_or_default()
    }

    fn written(options: &Options, turn: &Turn) -> String {
        let mut out = b"before".to_vec();
        let conversation = Conversation { turns: vec![turn.clone()], ..Conversation::default() };
        Kind::Chat.body(options, &conversation, 0, &mut out);
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
    fn only_the_first_choice_counts() {
        let json = r#"{"choices":[{"index":1,"delta":{"content":"a"},"finish_reason":null},{"index":0,"delta":{"content":"b"},"finish_reason":"stop"}]}"#;
        assert_eq!(seen(json), (vec!["a"], vec![], false));
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
        let want = Some(Usage { prompt: 1, completion: 2, total: 3, cached: 4, reasoning: 5 });
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
