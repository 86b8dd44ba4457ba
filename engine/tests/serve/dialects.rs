//! Every endpoint the server answers: a request as a client writes it, and what comes back, streamed and whole.

use super::{Client, Response, get, serve, text};
use maser_datasets::tokens::Tokenizer;
use maser_engine::clock::{MILLI, SECOND};
use maser_engine::serve::{Config, Fault, token};
use serde_json::{Value, json};

fn post(path: &str, body: &Value) -> String {
    raw(path, "application/json", &body.to_string())
}

fn raw(path: &str, content_type: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A form of text fields and of files, which have a name with `@` in front.
fn form(path: &str, fields: &[(&str, &str)]) -> String {
    let mut body = String::new();
    for (name, value) in fields {
        let file = if name.starts_with('@') { "; filename=\"f.bin\"\r\nContent-Type: image/png" } else { "" };
        let name = name.trim_start_matches('@');
        body += &format!("--b0undary\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n{value}\r\n");
    }
    body += "--b0undary--\r\n";
    raw(path, "multipart/form-data; boundary=b0undary", &body)
}

/// One answer of a server with these settings.
fn ask(config: Config, request: &str) -> Response {
    let response = std::cell::RefCell::new(None);
    serve(config, |to| {
        response.replace(Some(Client::new(to).ask(request)));
    });
    response.into_inner().unwrap()
}

fn ok(config: Config, path: &str, body: Value) -> Value {
    let response = ask(config, &post(path, &body));
    assert_eq!(response.status, 200, "{}", String::from_utf8_lossy(&response.body));
    assert!(response.whole && response.head.contains("Content-Type: application/json\r\n"));
    response.json()
}

/// Names and data of the events of a stream; data that is no JSON is a string.
fn named_events(response: &Response) -> Vec<(String, Value)> {
    assert!(response.whole && response.head.contains("Content-Type: text/event-stream"));
    let text = String::from_utf8(response.body.clone()).unwrap();
    let event = |event: &str| {
        let (name, data) = match event.split_once('\n') {
            Some((name, data)) => (name.strip_prefix("event: ").unwrap(), data),
            None => ("", event),
        };
        let data = data.strip_prefix("data: ").unwrap();
        (name.to_owned(), serde_json::from_str(data).unwrap_or_else(|_| data.into()))
    };
    text.split_terminator("\n\n").map(event).collect()
}

fn stream(config: Config, path: &str, mut body: Value) -> Vec<(String, Value)> {
    if path != "/generate_stream" && !path.starts_with("/v2/models") {
        body["stream"] = true.into();
    }
    let response = ask(config, &post(path, &body));
    assert_eq!(response.status, 200, "{}", String::from_utf8_lossy(&response.body));
    named_events(&response)
}

/// The strings at `pointer` in the events, those that are not empty.
fn texts(events: &[(String, Value)], pointer: &str) -> Vec<String> {
    let found = events.iter().filter_map(|(_, e)| e.pointer(pointer)?.as_str().map(str::to_owned));
    found.filter(|t| !t.is_empty()).collect()
}

/// The text of tokens `from..to`.
fn span(from: u32, to: u32) -> String {
    (from..to).map(token).collect()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

const CHAT: &str = "/v1/chat/completions";

fn hello(fields: Value) -> Value {
    let mut body = json!({"model": "mock", "messages": [{"role": "user", "content": "hello"}]});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body
}

fn tools() -> Value {
    json!([
        {"type": "function", "function": {"name": "weather", "parameters": {}}},
        {"type": "function", "function": {"name": "time", "parameters": {}}}
    ])
}

fn reasoning(tokens: u32) -> Config {
    Config { reasoning: tokens, ..Config::default() }
}

fn calling() -> Config {
    Config { tool_calls: true, ..Config::default() }
}

#[test]
fn chat_objects_have_fields_that_vllm_has_in_its_order() {
    let captured = |name: &str| {
        let path = format!("{}/tests/data/captures/{name}", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        let line = text.lines().find(|l| l.contains("\"object\":\"chat")).unwrap().to_owned();
        serde_json::from_str::<Value>(line.trim_start_matches("data: ")).unwrap()
    };
    let (real, ours) = (captured("vllm_chat_nonstream.http"), ok(Config::default(), CHAT, hello(json!({}))));
    let (real_chunk, ours_chunk) =
        (captured("vllm_chat_stream_usage.http"), stream(Config::default(), CHAT, hello(json!({})))[0].1.clone());
    for (real, ours) in [
        (&real, &ours),
        (&real["choices"][0], &ours["choices"][0]),
        (&real["usage"], &ours["usage"]),
        (&real_chunk, &ours_chunk),
        (&real_chunk["choices"][0], &ours_chunk["choices"][0]),
    ] {
        let real = keys(real);
        let places: Vec<_> = keys(ours).iter().map(|k| real.iter().position(|r| r == k)).collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?} {real:?}");
    }
}

#[test]
fn chat_reasons_before_it_speaks() {
    let fields = json!({"max_tokens": 7, "stream_options": {"include_usage": true}});
    let events = stream(reasoning(3), CHAT, hello(fields));
    let delta = |name: &str| texts(&events, &format!("/choices/0/delta/{name}"));
    assert_eq!(delta("reasoning_content"), [" the", " of", " and"]);
    assert_eq!(delta("content").concat(), span(3, 7));
    let usage = &events[events.len() - 2].1["usage"];
    assert_eq!(
        (&usage["completion_tokens"], &usage["completion_tokens_details"]["reasoning_tokens"]),
        (&json!(7), &json!(3))
    );
    let answer = ok(reasoning(3), CHAT, hello(json!({"max_tokens": 7})));
    let message = json!({"role": "assistant", "reasoning_content": text(3), "content": span(3, 7)});
    assert_eq!(answer["choices"][0]["message"], message);
    // One token is left for the answer, whatever the length.
    let short = ok(reasoning(30), CHAT, hello(json!({"max_tokens": 2})));
    assert_eq!(short["choices"][0]["message"]["content"], span(1, 2));
}

#[test]
fn chat_calls_the_first_tool_offered() {
    let body = hello(json!({"max_tokens": 6, "tools": tools()}));
    let events = stream(calling(), CHAT, body.clone());
    let calls: Vec<&Value> = events.iter().filter_map(|(_, e)| e.pointer("/choices/0/delta/tool_calls/0")).collect();
    assert_eq!(calls.len(), 6, "one event a token");
    assert_eq!((&calls[0]["function"]["name"], &calls[0]["type"]), (&json!("weather"), &json!("function")));
    assert!(calls.iter().all(|c| c["index"] == 0) && calls[1..].iter().all(|c| c.get("id").is_none()));
    let arguments: String = calls.iter().map(|c| c["function"]["arguments"].as_str().unwrap()).collect();
    assert_eq!(serde_json::from_str::<Value>(&arguments).unwrap(), json!({"text": span(2, 5)}));
    let finish = texts(&events, "/choices/0/finish_reason");
    assert_eq!(finish, ["tool_calls"]);
    let whole = ok(calling(), CHAT, body);
    let message = &whole["choices"][0]["message"];
    assert_eq!(message["content"], Value::Null);
    assert_eq!(message["tool_calls"][0]["function"], json!({"name": "weather", "arguments": arguments}));
    assert_eq!(
        (&whole["choices"][0]["finish_reason"], &whole["usage"]["completion_tokens"]),
        (&json!("tool_calls"), &json!(6))
    );
}

#[test]
fn chat_calls_what_is_insisted_on_and_nothing_where_it_may_not() {
    let named = json!({"type": "function", "function": {"name": "time"}});
    let result = json!([{"role": "user", "content": "x"}, {"role": "tool", "content": "12"}]);
    let table = [
        (false, json!({}), Value::Null),
        (false, json!({"tool_choice": "auto"}), Value::Null),
        (false, json!({"tool_choice": "required"}), json!("weather")),
        (false, json!({"tool_choice": named}), json!("time")),
        (true, json!({"tool_choice": "none"}), Value::Null),
        (true, json!({"messages": result}), Value::Null),
        (true, json!({"tools": []}), Value::Null),
        (true, json!({}), json!("weather")),
    ];
    for (tool_calls, fields, name) in table {
        let mut body = hello(json!({"tools": tools(), "max_tokens": 4}));
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let answer = ok(Config { tool_calls, ..Config::default() }, CHAT, body);
        let message = &answer["choices"][0]["message"];
        assert_eq!(message["tool_calls"][0]["function"]["name"], name, "{fields}");
        assert_eq!(message["content"].is_string(), name.is_null());
    }
}

#[test]
fn chat_knows_the_call_of_a_function_of_old() {
    let body = hello(json!({"max_tokens": 5, "functions": [{"name": "f"}]}));
    let whole = ok(calling(), CHAT, body.clone());
    let call = &whole["choices"][0]["message"]["function_call"];
    assert_eq!((&call["name"], &whole["choices"][0]["finish_reason"]), (&json!("f"), &json!("function_call")));
    let events = stream(calling(), CHAT, body);
    let arguments = texts(&events, "/choices/0/delta/function_call/arguments").concat();
    assert_eq!(call["arguments"], arguments);
    assert_eq!(texts(&events, "/choices/0/delta/function_call/name"), ["f"]);
}

#[test]
fn a_call_of_any_length_has_arguments_that_are_json() {
    for tokens in 1..6u32 {
        let answer = ok(calling(), CHAT, hello(json!({"max_tokens": tokens, "tools": tools()})));
        let arguments = answer["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"].as_str().unwrap();
        assert!(serde_json::from_str::<Value>(arguments).unwrap().is_object(), "{arguments}");
    }
}

#[test]
fn choices_are_sent_side_by_side_and_all_counted() {
    let fields = json!({"max_tokens": 5, "n": 3, "stream_options": {"include_usage": true}});
    let (lines, counts) = serve(Config::default(), |to| {
        let mut body = hello(fields.clone());
        body["stream"] = true.into();
        let events = named_events(&Client::new(to).ask(&post(CHAT, &body)));
        for choice in 0..3 {
            let own = |e: &&(String, Value)| e.1["choices"][0]["index"] == choice;
            let own: Vec<_> = events.iter().filter(own).cloned().collect();
            assert_eq!(texts(&own, "/choices/0/delta/content").concat(), text(5));
            assert_eq!(texts(&own, "/choices/0/finish_reason"), ["length"]);
        }
        assert_eq!(events[events.len() - 2].1["usage"]["completion_tokens"], 15);
    });
    assert_eq!((&lines[0]["ntok"], lines[0]["ck"].as_array().unwrap().len(), counts.tokens), (&json!(15), 5, 15));
    let whole = ok(Config::default(), CHAT, hello(json!({"max_tokens": 5, "n": 3})));
    let choices = whole["choices"].as_array().unwrap();
    assert_eq!(
        (choices.len(), &choices[2]["index"], &choices[2]["message"]["content"]),
        (3, &json!(2), &json!(text(5)))
    );
}

#[test]
fn usage_may_come_with_every_event() {
    let options = json!({"include_usage": true, "continuous_usage_stats": true});
    for (path, pointer, prompt) in [
        (CHAT, "/choices/0/delta/content", json!({"messages": []})),
        ("/v1/completions", "/choices/0/text", json!({"prompt": "x"})),
    ] {
        let mut body = prompt;
        body["max_tokens"] = 10.into();
        body["stream_options"] = options.clone();
        let events = stream(Config { tokens_per_chunk: 4, ..Config::default() }, path, body);
        let mut delivered = 0;
        for (_, event) in events.iter().filter(|(_, e)| e.is_object()) {
            let text = event.pointer(pointer).and_then(Value::as_str).unwrap_or("");
            delivered += Tokenizer::builtin().count(text);
            assert_eq!(event["usage"]["completion_tokens"], delivered, "{event}");
        }
        assert_eq!(delivered, 10);
    }
    // vLLM sends none if usage is not asked for as such.
    let options = json!({"stream_options": {"continuous_usage_stats": true}});
    let events = stream(Config::default(), CHAT, hello(options));
    assert!(events.iter().all(|(_, e)| e.get("usage").is_none()));
}

#[test]
fn a_step_of_speculation_is_an_event() {
    let config = || Config { spec_decode: Some(3), ..Config::default() };
    let fields = json!({"max_tokens": 200, "stream_options": {"include_usage": true}});
    let events = stream(config(), CHAT, hello(fields));
    let contents = texts(&events, "/choices/0/delta/content");
    assert_eq!(contents.concat(), text(200));
    let mut histogram = [0u64; 4];
    for content in &contents[1..] {
        histogram[Tokenizer::builtin().count(content) - 1] += 1;
    }
    assert!(histogram.iter().all(|n| *n > 0), "{histogram:?}");
    let last = &events[events.len() - 2].1;
    let account = &last["metrics"]["speculative_decoding"];
    assert_eq!(account["acceptance_histogram"], json!(histogram));
    let steps = contents.len() as u64 - 1;
    assert_eq!((&account["num_spec_steps"], &account["num_draft_tokens"]), (&json!(steps), &json!(3 * steps)));
    assert_eq!(account["num_accepted_draft_tokens"], 199 - steps);
    let length = account["mean_acceptance_length"].as_f64().unwrap();
    assert!((length - 199.0 / steps as f64).abs() < 1e-9);
    let whole = ok(config(), CHAT, hello(json!({"max_tokens": 200})));
    assert_eq!(whole["metrics"], last["metrics"], "the same seed, the same steps");
    let two = ok(config(), CHAT, hello(json!({"max_tokens": 20, "n": 2})));
    assert_eq!(two.get("metrics"), None, "as from vLLM");
}

#[test]
fn completions_finish_with_their_last_text() {
    let body = json!({"model": "mock", "prompt": "hello", "max_tokens": 4, "stream_options": {"include_usage": true}});
    let events = stream(Config::default(), "/v1/completions", body.clone());
    assert_eq!(texts(&events, "/choices/0/text"), [" the", " of", " and", " a"]);
    assert_eq!(events[3].1["choices"][0]["finish_reason"], "length");
    assert_eq!((&events[4].1["choices"], &events[4].1["usage"]["completion_tokens"]), (&json!([]), &json!(4)));
    assert_eq!((&events[5].1, events.len()), (&json!("[DONE]"), 6));
    assert!(events[..5].iter().all(|(_, e)| e["object"] == "text_completion"));
    let whole = ok(Config::default(), "/completions", json!({"prompt": ["a", [1, 2]], "n": 2, "max_tokens": 3}));
    let choices = whole["choices"].as_array().unwrap();
    assert_eq!((choices.len(), &choices[3]["text"]), (4, &json!(text(3))));
    assert_eq!((&whole["usage"]["prompt_tokens"], &whole["usage"]["completion_tokens"]), (&json!(2), &json!(12)));
}

fn names(events: &[(String, Value)]) -> Vec<&str> {
    let mut names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    names.dedup();
    names
}

#[test]
fn responses_are_streamed_as_numbered_events() {
    let body = json!({"model": "mock", "input": "hello", "max_output_tokens": 6, "instructions": "be brief"});
    let events = stream(reasoning(2), "/v1/responses", body.clone());
    assert_eq!(
        names(&events),
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.reasoning_text.delta",
            "response.reasoning_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    for (number, (name, event)) in events.iter().enumerate() {
        assert_eq!((&event["type"], &event["sequence_number"]), (&json!(name), &json!(number)));
    }
    let deltas = |name: &str| {
        let own: Vec<_> = events.iter().filter(|(n, _)| n == name).cloned().collect();
        texts(&own, "/delta")
    };
    assert_eq!(deltas("response.reasoning_text.delta").concat(), text(2));
    assert_eq!(deltas("response.output_text.delta"), [" and", " a", " to", " in"]);
    let completed = &events.last().unwrap().1["response"];
    assert_eq!((&completed["id"], &completed["status"]), (&events[0].1["response"]["id"], &json!("completed")));
    let items: Vec<_> =
        events.iter().filter(|(n, _)| n == "response.output_item.done").map(|(_, e)| e["item"].clone()).collect();
    assert_eq!(completed["output"], json!(items));
    assert_eq!(completed["usage"]["output_tokens"], 6);
    assert_eq!(completed["usage"]["output_tokens_details"]["reasoning_tokens"], 2);
    let whole = ok(reasoning(2), "/v1/responses", body);
    assert_eq!((&whole["object"], &whole["output"]), (&json!("response"), &completed["output"]));
    assert_eq!((&whole["instructions"], &whole["usage"]), (&json!("be brief"), &completed["usage"]));
}

#[test]
fn responses_call_functions() {
    let tools = json!([{"type": "function", "name": "weather", "parameters": {}}]);
    let body = json!({"input": "hello", "max_output_tokens": 5, "tools": tools});
    let events = stream(calling(), "/v1/responses", body.clone());
    let deltas: Vec<_> =
        events.iter().filter(|(n, _)| n == "response.function_call_arguments.delta").cloned().collect();
    assert_eq!(deltas.len(), 5);
    let item = &events.last().unwrap().1["response"]["output"][0];
    assert_eq!((&item["type"], &item["name"]), (&json!("function_call"), &json!("weather")));
    assert_eq!(item["arguments"], texts(&deltas, "/delta").concat());
    assert_eq!(ok(calling(), "/v1/responses", body.clone())["output"][0], *item);
    let mut answered = body;
    answered["input"] = json!([item, {"type": "function_call_output", "call_id": item["call_id"], "output": "12"}]);
    assert_eq!(ok(calling(), "/v1/responses", answered)["output"][0]["type"], "message");
}

#[test]
fn a_stored_response_can_be_followed() {
    let (lines, _) = serve(Config { echo: true, ..Config::default() }, |to| {
        let mut client = Client::new(to);
        let mut previous = Value::Null;
        for messages in ["1", "3", "5"] {
            let input = json!([{"type": "message", "role": "user", "content": "hello"}]);
            let body = json!({"input": input, "max_output_tokens": 2, "store": true, "previous_response_id": previous});
            let answer = client.ask(&post("/v1/responses", &body)).json();
            assert_eq!(answer["output"][0]["content"][0]["text"], format!("{messages}{}", token(1)));
            assert_eq!((&answer["previous_response_id"], &answer["store"]), (&previous, &json!(true)));
            previous = answer["id"].clone();
        }
        let body = json!({"input": "x", "previous_response_id": "resp_1"});
        let unknown = client.ask(&post("/v1/responses", &body));
        assert_eq!((unknown.status, &unknown.json()["error"]["type"]), (400, &json!("BadRequestError")));
        let body = json!({"input": "x"});
        let id = client.ask(&post("/v1/responses", &body)).json()["id"].clone();
        let body = json!({"input": "x", "previous_response_id": id});
        assert_eq!(client.ask(&post("/v1/responses", &body)).status, 400, "it was not stored");
    });
    let messages: Vec<_> = lines.iter().map(|l| l["nmsg"].as_u64().unwrap()).collect();
    assert_eq!(messages, [1, 3, 5, 0, 1, 0]);
}

#[test]
fn usage_may_tell_all_that_any_vendor_tells() {
    let config = || Config { usage_details: true, cached: 0.5, ..reasoning(2) };
    let prose = "x".repeat(170);
    let body = json!({"messages": [{"role": "user", "content": prose}], "max_tokens": 9});
    let told = json!({
        "prompt_tokens": 40, "completion_tokens": 9, "total_tokens": 49,
        "prompt_tokens_details": {"cached_tokens": 20, "audio_tokens": 10},
        "completion_tokens_details": {
            "reasoning_tokens": 2, "audio_tokens": 2, "accepted_prediction_tokens": 4, "rejected_prediction_tokens": 1,
        },
        "prompt_cache_miss_tokens": 20, "cache_creation_input_tokens": 10, "toolUsePromptTokenCount": 5,
        "prompt_audio_seconds": 1.0,
    });
    assert_eq!(ok(config(), CHAT, body.clone())["usage"], told);
    let mut streamed = body.clone();
    streamed["stream_options"] = json!({"include_usage": true});
    let events = stream(config(), CHAT, streamed);
    assert_eq!(events.iter().find_map(|(_, event)| event.get("usage").filter(|u| !u.is_null())), Some(&told));
    let apart = json!({
        "input_tokens": 10, "cache_creation_input_tokens": 10, "cache_read_input_tokens": 20, "output_tokens": 9,
    });
    assert_eq!(ok(config(), "/v1/messages", body)["usage"], apart);
}

#[test]
fn messages_are_streamed_in_blocks() {
    let body = hello(json!({"max_tokens": 5, "system": "be brief"}));
    let events = stream(Config { cached: 0.5, ..reasoning(2) }, "/v1/messages", body.clone());
    assert_eq!(
        names(&events),
        [
            "message_start",
            "content_block_start",
            "ping",
            "content_block_delta",
            "content_block_stop",
            "content_block_start",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]
    );
    assert!(events.iter().all(|(name, event)| event["type"] == *name));
    assert_eq!(texts(&events, "/delta/thinking").concat(), text(2));
    assert_eq!(texts(&events, "/delta/text"), [" and", " a", " to"]);
    let blocks: Vec<_> =
        events.iter().filter(|(n, _)| n == "content_block_start").map(|(_, e)| &e["content_block"]["type"]).collect();
    assert_eq!(blocks, ["thinking", "text"]);
    let start = &events[0].1["message"];
    assert_eq!((&start["role"], &start["content"]), (&json!("assistant"), &json!([])));
    let delta = &events[events.len() - 2].1;
    assert_eq!((&delta["delta"]["stop_reason"], &delta["usage"]["output_tokens"]), (&json!("max_tokens"), &json!(5)));
    let usage = |u: &Value, name: &str| u[name].as_u64().unwrap();
    // "be brief" and "hello" are 13 bytes, 3 tokens; half of them, rounded down, are cached.
    assert_eq!((usage(&start["usage"], "input_tokens"), usage(&start["usage"], "cache_read_input_tokens")), (2, 1));
    let whole = ok(reasoning(2), "/v1/messages", body);
    let content = whole["content"].as_array().unwrap();
    assert_eq!(
        (&whole["type"], &content[0]["thinking"], &content[1]["text"]),
        (&json!("message"), &json!(text(2)), &json!(span(2, 5)))
    );
    assert_eq!(whole["usage"]["output_tokens"], 5);
}

#[test]
fn messages_use_tools() {
    let tools = json!([{"name": "weather", "input_schema": {}}]);
    let body = hello(json!({"max_tokens": 5, "tools": tools}));
    let events = stream(calling(), "/v1/messages", body.clone());
    let block = &events[1].1["content_block"];
    assert_eq!((&block["type"], &block["name"]), (&json!("tool_use"), &json!("weather")));
    let input: Value = serde_json::from_str(&texts(&events, "/delta/partial_json").concat()).unwrap();
    assert_eq!(input, json!({"text": span(2, 4)}));
    let whole = ok(calling(), "/v1/messages", body);
    assert_eq!((&whole["content"][0]["input"], &whole["stop_reason"]), (&input, &json!("tool_use")));
    let result = json!([{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x", "content": "12"}]}]);
    let answered = json!({"messages": result, "max_tokens": 5, "tools": tools});
    assert_eq!(ok(calling(), "/v1/messages", answered)["stop_reason"], "max_tokens");
    let forced = hello(json!({"max_tokens": 5, "tools": tools, "tool_choice": {"type": "tool", "name": "weather"}}));
    assert_eq!(ok(Config::default(), "/v1/messages", forced)["stop_reason"], "tool_use");
    let counted = ok(Config::default(), "/v1/messages/count_tokens", hello(json!({})));
    assert_eq!(counted, json!({"input_tokens": 1}));
}

#[test]
fn embeddings_are_vectors_one_an_input() {
    let floats = |v: &Value| -> Vec<f64> { v.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect() };
    let answer =
        ok(Config::default(), "/v1/embeddings", json!({"model": "mock", "input": ["a", "b"], "input_type": "query"}));
    assert_eq!((&answer["object"], &answer["model"]), (&json!("list"), &json!("mock")));
    let data = answer["data"].as_array().unwrap();
    assert_eq!(data.len(), 2);
    for (index, item) in data.iter().enumerate() {
        assert_eq!((&item["object"], &item["index"]), (&json!("embedding"), &json!(index)));
        let length: f64 = floats(&item["embedding"]).iter().map(|x| x * x).sum();
        assert!((length - 1.0).abs() < 1e-4 && floats(&item["embedding"]).len() == 384);
    }
    assert_ne!(data[0]["embedding"], data[1]["embedding"]);
    assert_eq!(answer["usage"]["prompt_tokens"], answer["usage"]["total_tokens"]);
    let coded =
        ok(Config::default(), "/v1/embeddings", json!({"input": "a", "encoding_format": "base64", "dimensions": 6}));
    let text = coded["data"][0]["embedding"].as_str().unwrap();
    assert_eq!((text.len(), text.contains('=')), (32, false), "24 bytes");
    let ids = ok(Config::default(), "/v1/embeddings", json!({"input": [5, 6, 7], "dimensions": 2}));
    assert_eq!((ids["data"].as_array().unwrap().len(), &ids["usage"]["prompt_tokens"]), (1, &json!(3)));
    let chat = ok(Config::default(), "/v1/embeddings", hello(json!({"stream": false})));
    assert_eq!(chat["data"].as_array().unwrap().len(), 1);
}

#[test]
fn rankings_put_the_best_first() {
    let passages = ["a", "b", "c", "d"];
    let texts: Vec<_> = passages.iter().map(|p| json!({"text": p})).collect();
    let query = json!({"query": "q", "model": "mock"});
    let with = |name: &str, value: Value| {
        let mut body = query.clone();
        body[name] = value;
        body
    };
    let nim = json!({"model": "mock", "query": {"text": "q"}, "passages": texts});
    let table = [
        ("/v1/ranking", nim, "/rankings", "logit"),
        ("/v2/rerank", with("documents", json!(passages)), "/results", "relevance_score"),
        ("/rerank", with("texts", json!(passages)), "", "score"),
        ("/rerank", with("documents", json!(passages)), "/results", "relevance_score"),
    ];
    for (path, body, pointer, score) in table {
        let answer = ok(Config::default(), path, body);
        let ranked = answer.pointer(pointer).unwrap().as_array().unwrap();
        let scores: Vec<f64> = ranked.iter().map(|r| r[score].as_f64().unwrap()).collect();
        assert!(scores.is_sorted_by(|a, b| a >= b), "{path}: {scores:?}");
        let mut indices: Vec<u64> = ranked.iter().map(|r| r["index"].as_u64().unwrap()).collect();
        indices.sort_unstable();
        assert_eq!(indices, [0, 1, 2, 3]);
    }
    let mut few = with("documents", json!(passages));
    few["top_n"] = 2.into();
    assert_eq!(ok(Config::default(), "/v2/rerank", few)["results"].as_array().unwrap().len(), 2);
    let mut told = with("texts", json!(passages));
    told["return_text"] = true.into();
    let told = ok(Config::default(), "/rerank", told);
    assert_eq!(told[0]["text"], passages[told[0]["index"].as_u64().unwrap() as usize]);
}

#[test]
fn text_generation_inference_streams_by_its_path() {
    let body = json!({"inputs": "hello", "parameters": {"max_new_tokens": 3, "details": true}});
    let events = stream(Config::default(), "/generate_stream", body.clone());
    assert_eq!(texts(&events, "/token/text"), [" the", " of", " and"]);
    assert_eq!(events[0].1["generated_text"], Value::Null);
    let last = &events[2].1;
    assert_eq!((&last["generated_text"], &last["details"]["generated_tokens"]), (&json!(text(3)), &json!(3)));
    let whole = ok(Config::default(), "/generate", body);
    assert_eq!((&whole["generated_text"], &whole["details"]["finish_reason"]), (&json!(text(3)), &json!("length")));
}

/// Decodes base64 the slow way.
fn decode(text: &str) -> Vec<u8> {
    let digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits: String = text.trim_end_matches('=').chars().map(|c| format!("{:06b}", digits.find(c).unwrap())).collect();
    bits.as_bytes().chunks_exact(8).map(|b| u8::from_str_radix(std::str::from_utf8(b).unwrap(), 2).unwrap()).collect()
}

/// Walks the chunks of a PNG and checks their sums.
fn check_png(base64: &Value) {
    let png = decode(base64.as_str().unwrap());
    let mut rest = png.strip_prefix(b"\x89PNG\r\n\x1a\n").unwrap();
    let mut kinds = Vec::new();
    while !rest.is_empty() {
        let length = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
        let sum = u32::from_be_bytes(rest[8 + length..12 + length].try_into().unwrap());
        assert_eq!(crc32fast::hash(&rest[4..8 + length]), sum);
        kinds.push(String::from_utf8(rest[4..8].to_vec()).unwrap());
        rest = &rest[12 + length..];
    }
    assert_eq!(kinds, ["IHDR", "IDAT", "IEND"]);
}

#[test]
fn images_are_generated_and_edited() {
    let path = "/v1/images/generations";
    let answer = ok(
        Config::default(),
        path,
        json!({"prompt": "a cat", "n": 2, "response_format": "b64_json", "size": "512x512"}),
    );
    let data = answer["data"].as_array().unwrap();
    assert_eq!((data.len(), &answer["size"], &answer["output_format"]), (2, &json!("512x512"), &json!("png")));
    data.iter().for_each(|image| check_png(&image["b64_json"]));
    assert_ne!(data[0], data[1]);
    let usage = &answer["usage"];
    assert_eq!(
        usage["total_tokens"],
        usage["input_tokens"].as_u64().unwrap() + usage["output_tokens"].as_u64().unwrap()
    );
    let url = ok(Config::default(), path, json!({"prompt": "a cat", "response_format": "url"}));
    assert!(url["data"][0]["url"].as_str().unwrap().starts_with("data:image/png;base64,"));
    let events = stream(Config::default(), path, json!({"prompt": "a cat", "partial_images": 2}));
    assert_eq!(names(&events), ["image_generation.partial_image", "image_generation.completed"]);
    assert_eq!((events.len(), &events[1].1["partial_image_index"]), (3, &json!(1)));
    events.iter().for_each(|(_, event)| check_png(&event["b64_json"]));
    assert!(events[2].1["usage"].is_object());
    let fields = [("prompt", "a dog"), ("model", "mock"), ("n", "1"), ("@image", "\u{1}PNG\r\n--b0undar")];
    let edited = ask(Config::default(), &form("/v1/images/edits", &fields));
    assert_eq!(edited.status, 200, "{}", String::from_utf8_lossy(&edited.body));
    check_png(&edited.json()["data"][0]["b64_json"]);
    let by_url = ask(Config::default(), &form("/v1/images/edits", &[("prompt", "a dog"), ("url", "http://x/y.png")]));
    assert_eq!(by_url.status, 200);
    let none = ask(Config::default(), &form("/v1/images/edits", &[("prompt", "a dog")]));
    assert_eq!((none.status, &none.json()["error"]["message"]), (400, &json!("image is missing")));
}

#[test]
fn audio_is_transcribed() {
    let path = "/v1/audio/transcriptions";
    let config = || Config { osl: 4, ..Config::default() };
    let sound = "x".repeat(3200 * 7);
    let heard = |more: &[(&str, &str)]| {
        let fields = [&[("@file", sound.as_str()), ("model", "mock")], more].concat();
        let response = ask(config(), &form(path, &fields));
        assert_eq!(response.status, 200, "{}", String::from_utf8_lossy(&response.body));
        response
    };
    let answer = heard(&[("response_format", "json")]).json();
    assert_eq!((&answer["text"], &answer["usage"]["input_tokens"]), (&json!(text(4)), &json!(7)));
    let plain = heard(&[("response_format", "text")]);
    assert_eq!(plain.body, text(4).as_bytes());
    assert!(plain.head.contains("Content-Type: text/plain"));
    assert_eq!(heard(&[("response_format", "verbose_json")]).json()["task"], "transcribe");
    let events = named_events(&heard(&[("stream", "true")]));
    assert_eq!(texts(&events, "/delta").concat(), text(4));
    assert_eq!((&events[4].1["type"], &events[4].1["text"]), (&json!("transcript.text.done"), &json!(text(4))));
    let none = ask(config(), &form(path, &[("model", "mock")]));
    assert_eq!((none.status, &none.json()["error"]["message"]), (400, &json!("file is missing")));
}

#[test]
fn a_video_is_submitted_polled_and_downloaded() {
    let (lines, _) = serve(Config { ttft: 10 * MILLI, itl: MILLI, ..Config::default() }, |to| {
        let mut client = Client::new(to);
        let submitted =
            client.ask(&form("/v1/videos", &[("prompt", "a cat"), ("model", "mock"), ("num_frames", "16")]));
        assert_eq!((submitted.status, &submitted.json()["status"]), (200, &json!("queued")));
        let at = format!("/v1/videos/{}", submitted.json()["id"].as_str().unwrap());
        let done = loop {
            let video = client.ask(&get(&at)).json();
            match video["status"].as_str().unwrap() {
                "in_progress" => assert!(video["progress"].as_u64().unwrap() < 100),
                _ => break video,
            }
        };
        assert_eq!((&done["status"], &done["inference_time_s"]), (&json!("completed"), &json!(0.025)));
        assert_eq!(done["peak_memory_mb"], json!(4096.0 + 16.0 * 8.5));
        let file = client.ask(&get(&format!("{at}/content")));
        assert!(file.head.contains("Content-Type: video/mp4\r\n"));
        assert_eq!((&file.body[4..8], file.body.len()), (&b"ftyp"[..], 28 + 8 + 16 * 256));
        let unknown = client.ask(&get("/v1/videos/video_1"));
        assert_eq!((unknown.status, &unknown.json()["error"]["code"]), (404, &json!(404)));
    });
    assert_eq!((&lines[0]["status"], &lines[0]["ntok"]), (&json!(200), &json!(0)));
    serve(Config { ttft: 3600 * SECOND, ..Config::default() }, |to| {
        let mut client = Client::new(to);
        let id = client.ask(&post("/v1/videos", &json!({"prompt": "a cat", "seconds": "4"}))).json()["id"].clone();
        let at = format!("/v1/videos/{}", id.as_str().unwrap());
        let video = client.ask(&get(&at)).json();
        assert_eq!((&video["status"], &video["seconds"]), (&json!("in_progress"), &json!("4")));
        assert_eq!(client.ask(&get(&format!("{at}/content"))).status, 404);
    });
}

#[test]
fn images_are_retrieved_and_solido_answers() {
    let image = json!({"type": "image_url", "url": "data:image/png;base64,AA=="});
    let answer = ok(Config::default(), "/v1/infer", json!({"input": [image, image]}));
    assert_eq!((answer["data"].as_array().unwrap().len(), &answer["data"][1]["index"]), (2, &json!(1)));
    let filters = json!({"family": "Solido", "tool": "SDE"});
    let body = json!({"query": ["what?"], "filters": filters, "inference_model": "mock"});
    let answer = ok(Config { osl: 5, ..Config::default() }, "/rag/api/prompt", body);
    assert_eq!((&answer["content"], &answer["usage"]["completion_tokens"]), (&json!(text(5)), &json!(5)));
    assert!(answer["sources"][0]["id"].is_string());
}

#[test]
fn kserve_takes_tensors_and_texts() {
    let input = json!({"name": "text_input", "shape": [2, 1], "datatype": "BYTES", "data": ["a", "b"]});
    let models = || Config { models: vec!["org/m".into()], ..Config::default() };
    let body = json!({"id": "7", "inputs": [input], "parameters": {"max_tokens": 3}});
    let answer = ok(models(), "/v2/models/org%2Fm/versions/1/infer", body);
    assert_eq!((&answer["model_name"], &answer["id"]), (&json!("org/m"), &json!("7")));
    let output = &answer["outputs"][0];
    assert_eq!(
        (&output["shape"], &output["datatype"], &output["data"]),
        (&json!([2]), &json!("BYTES"), &json!([text(3), text(3)]))
    );
    let length = json!({"name": "max_tokens", "shape": [1, 1], "datatype": "INT32", "data": [[2]]});
    let answer = ok(models(), "/v2/models/org/m/infer", json!({"inputs": [input, length]}));
    assert_eq!(answer["outputs"][0]["data"][0], text(2));
    let body = json!({"text_input": "hello", "parameters": {"max_tokens": 3}});
    assert_eq!(ok(models(), "/v2/models/org/m/generate", body)["text_output"], text(3));
    let events = stream(models(), "/v2/models/org/m/generate_stream", json!({"text_input": "hello", "max_tokens": 3}));
    assert_eq!(texts(&events, "/text_output"), [" the", " of", " and"]);
    serve(models(), |to| {
        let mut client = Client::new(to);
        for path in ["/v2/health/ready", "/v2/health/live", "/v2/models/org/m/ready"] {
            assert_eq!(client.ask(&get(path)).status, 200, "{path}");
        }
        assert_eq!(client.ask(&get("/v2")).json()["name"], "maser");
        let unknown = client.ask(&get("/v2/models/x/ready"));
        assert_eq!((unknown.status, unknown.json()), (404, json!({"error": "the model `x` does not exist"})));
    });
}

#[test]
fn the_service_tells_of_itself() {
    serve(Config { cached: 0.5, ..Config::default() }, |to| {
        let mut client = Client::new(to);
        let prose = "x".repeat(170);
        client.ask(&post(CHAT, &json!({"messages": [{"role": "user", "content": prose}], "max_tokens": 9})));
        let page = client.ask(&get("/metrics"));
        assert!(page.head.contains("Content-Type: text/plain; version=0.0.4"));
        let page = String::from_utf8(page.body).unwrap();
        let value = |name: &str| {
            let line = page.lines().find(|l| l.starts_with(&format!("vllm:{name}{{"))).expect(name);
            line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
        };
        assert_eq!((value("prompt_tokens_total"), value("generation_tokens_total")), (40.0, 9.0));
        assert_eq!((value("prefix_cache_hits_total"), value("prefix_cache_queries_total")), (20.0, 40.0));
        assert_eq!((value("request_success_total"), value("num_requests_running")), (1.0, 0.0));
        for path in ["/reset_prefix_cache", "/start_profile", "/stop_profile"] {
            assert_eq!(client.ask(&post(path, &json!({}))).status, 200, "{path}");
        }
        assert_eq!(client.ask(&get("/health")).status, 200);
    });
}

#[test]
fn echo_tells_how_many_messages_came_and_the_log_tells_more() {
    let config = Config { echo: true, reasoning: 1, ..Config::default() };
    let (lines, _) = serve(config, |to| {
        let mut client = Client::new(to);
        for count in [1usize, 2, 12] {
            let messages = vec![json!({"role": "user", "content": "hello, world"}); count];
            let body = json!({"messages": messages, "max_tokens": 3, "stream": count == 2}).to_string();
            let request = format!(
                "POST {CHAT} HTTP/1.1\r\nX-Session-Affinity: s{count}\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let response = client.ask(&request);
            let said = if count == 2 {
                response.contents().concat()
            } else {
                response.json()["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
            };
            assert_eq!(said, format!("{count}{}", token(2)));
            assert_eq!(Tokenizer::builtin().count(&said), 2);
        }
    });
    for (line, count) in lines.iter().zip([1u64, 2, 12]) {
        assert_eq!((&line["nmsg"], &line["sid"]), (&json!(count), &json!(format!("s{count}"))));
        assert_eq!((&line["ntok"], &line["rtok"], &line["ptok"]), (&json!(3), &json!(1), &json!(12 * count * 4 / 17)));
        assert!(line["plen"].as_u64().unwrap() > 40 * count);
    }
}

/// One path of each vendor, the smallest request it takes, and where the vendor's error has its text.
fn vendors() -> Vec<(&'static str, Value, &'static str)> {
    vec![
        (CHAT, json!({"messages": []}), "/error/message"),
        ("/v1/completions", json!({"prompt": "x"}), "/error/message"),
        ("/v1/responses", json!({"input": "x"}), "/error/message"),
        ("/v1/messages", json!({"messages": [], "max_tokens": 9}), "/error/message"),
        ("/v1/embeddings", json!({"input": "x"}), "/error/message"),
        ("/v1/images/generations", json!({"prompt": "x"}), "/error/message"),
        ("/v1/ranking", json!({"query": {"text": "q"}, "passages": [{"text": "p"}]}), "/message"),
        ("/v2/rerank", json!({"query": "q", "documents": ["p"]}), "/message"),
        ("/rerank", json!({"query": "q", "texts": ["p"]}), "/error"),
        ("/generate", json!({"inputs": "x"}), "/error"),
        ("/v1/infer", json!({"input": [{"type": "image_url", "url": "data:,"}]}), "/message"),
        ("/rag/api/prompt", json!({"query": "q"}), "/detail"),
        ("/v2/models/mock/infer", json!({"inputs": []}), "/error"),
        ("/v2/models/mock/generate", json!({"text_input": "x"}), "/error"),
    ]
}

#[test]
fn wrong_bodies_are_refused_in_the_form_of_the_vendor() {
    serve(Config::default(), |to| {
        let mut client = Client::new(to);
        for (path, body, pointer) in vendors() {
            assert_eq!(client.ask(&post(path, &body)).status, 200, "{path} {body}");
            let (field, _) = body.as_object().unwrap().iter().next().unwrap();
            let mut wrong = body.clone();
            wrong[field] = json!(true);
            for body in ["", "{", "[]", "{}", &wrong.to_string()] {
                let refused = client.ask(&raw(path, "application/json", body));
                let why = refused.json().pointer(pointer).and_then(Value::as_str).map(str::to_owned);
                assert_eq!(refused.status, 400, "{path} {body}");
                assert!(why.is_some_and(|w| !w.is_empty()), "{path} {body}: {}", refused.json());
            }
            let not_posted = client.ask(&get(path));
            assert!(not_posted.status == 405 && not_posted.json().pointer(pointer).is_some(), "{path}");
            let nowhere = client.ask(&post(&format!("{path}/nowhere"), &body));
            assert_eq!(nowhere.status, 404, "{path}");
        }
        for path in ["/v1/images/edits", "/v1/audio/transcriptions", "/v1/videos"] {
            let refused = client.ask(&raw(path, "multipart/form-data; boundary=x", "--x\r\n"));
            assert_eq!((refused.status, refused.json()["error"]["message"].is_string()), (400, true), "{path}");
        }
        let messages = client.ask(&post("/v1/messages", &json!({"messages": []}))).json();
        assert_eq!(
            messages["error"],
            json!({"type": "invalid_request_error", "message": "max_tokens: Field required"})
        );
        let model = client.ask(&post("/v1/messages", &json!({"messages": [], "max_tokens": 1, "model": "x"})));
        assert_eq!((model.status, &model.json()["error"]["type"]), (404, &json!("not_found_error")));
    });
}

#[test]
fn faults_take_the_form_of_the_vendor() {
    for (fault, status) in [(Fault::Http500, 500), (Fault::Http429, 429), (Fault::ErrorEvent, 200)] {
        let (_, counts) = serve(Config { faults: vec![(fault, 1.0)], ..Config::default() }, |to| {
            let mut client = Client::new(to);
            for (path, body, pointer) in vendors() {
                let failed = client.ask(&post(path, &body));
                assert_eq!(failed.status, status, "{path}");
                assert!(failed.json().pointer(pointer).is_some_and(Value::is_string), "{path}: {}", failed.json());
            }
            assert_eq!(client.ask(&get("/health")).status, 200, "only inference fails");
        });
        assert_eq!(counts.faults, vendors().len() as u64);
    }
}

#[test]
fn streams_break_off_in_the_form_of_the_vendor() {
    let failing = |fault| Config { faults: vec![(fault, 1.0)], osl: 9, ..Config::default() };
    let table = [
        ("/v1/completions", json!({"prompt": "x"}), "/choices/0/text", "/error/message"),
        ("/v1/responses", json!({"input": "x"}), "/delta", "/response/error/message"),
        ("/v1/messages", json!({"messages": [], "max_tokens": 9}), "/delta/text", "/error/message"),
        ("/generate_stream", json!({"inputs": "x"}), "/token/text", "/error"),
        ("/v2/models/mock/generate_stream", json!({"text_input": "x"}), "/text_output", "/error"),
    ];
    for (path, body, token, error) in table {
        let events = stream(failing(Fault::ErrorEvent), path, body.clone());
        assert_eq!(texts(&events, token).concat(), text(4), "{path}");
        assert_eq!(texts(&events, error).len(), 1, "{path}");
        let events = stream(failing(Fault::Malformed), path, body.clone());
        assert_eq!(texts(&events, token).concat(), text(9), "{path}");
        let broken = events.iter().filter(|(_, e)| e.as_str().is_some_and(|text| text != "[DONE]")).count();
        assert_eq!(broken, 1, "{path}");
        let mut body = body;
        body["stream"] = true.into();
        let cut = ask(failing(Fault::Close), &post(path, &body));
        assert!(!cut.whole, "{path}");
    }
}
