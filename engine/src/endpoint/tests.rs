use super::*;

#[test]
fn names_are_found_in_any_spelling() {
    for name in ["chat", "CHAT", "Chat"] {
        assert_eq!(Kind::from_name(name), Some(Kind::Chat));
    }
    assert_eq!(Kind::from_name("Nim-Rankings"), Some(Kind::NimRankings));
    assert_eq!(Kind::from_name("chats"), None);
    assert_eq!(Kind::from_name(""), None);
    for &kind in Kind::ALL {
        assert_eq!(Kind::from_name(kind.name()), Some(kind));
        let has_path = !matches!(kind, Kind::Raw | Kind::Template);
        assert_eq!(kind.path(kind.can_stream()).starts_with('/'), has_path, "{}", kind.name());
    }
}

#[test]
fn fragments_keep_their_order_beyond_the_inline_room() {
    let all: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    let mut fragments = Fragments::default();
    assert!(fragments.is_empty());
    for text in &all {
        fragments.push(text.as_bytes());
        fragments.push(b"");
    }
    assert!(!fragments.is_empty());
    let back: Vec<_> = fragments.iter().collect();
    assert_eq!(back, all.iter().map(String::as_bytes).collect::<Vec<_>>());
}

/// What a session carries on of an answer that came in these payloads.
fn carried(kind: Kind, payloads: &[&str]) -> Option<String> {
    let mut reply = Reply::new();
    let mut result = None;
    // Twice, so that what a first answer left behind would show.
    for _ in 0..2 {
        reply.clear();
        for payload in payloads {
            reply.add(kind, &kind.read(payload.as_bytes()).unwrap());
        }
        let mut out = b"[".to_vec();
        let any = reply.message(kind, &mut out);
        assert_eq!(any, out.len() > 1);
        let text = String::from_utf8(out.split_off(1)).unwrap();
        if any {
            serde_json::from_str::<Vec<Value>>(&format!("[{text}]")).unwrap();
        }
        result = any.then_some(text);
    }
    result
}

#[test]
fn a_chat_answer_becomes_an_assistant_message() {
    let chat = |payloads: &[&str]| carried(Kind::Chat, payloads);
    assert_eq!(
        chat(&[
            r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#,
            r#"{"choices":[{"index":0,"delta":{"content":"a\"b"}}]}"#,
            r#"{"choices":[{"index":0,"delta":{"content":"\u00e9"},"finish_reason":"stop"}]}"#,
            r#"{"choices":[],"usage":{"prompt_tokens":1}}"#,
        ]),
        Some(r#"{"role":"assistant","content":"a\"b\u00e9"}"#.into())
    );
    // Reasoning stays out, unless there is nothing else.
    let reasoning = r#"{"choices":[{"delta":{"reasoning_content":"r"}}]}"#;
    assert_eq!(
        chat(&[reasoning, r#"{"choices":[{"delta":{"content":"t"}}]}"#]),
        Some(r#"{"role":"assistant","content":"t"}"#.into())
    );
    assert_eq!(chat(&[reasoning]), Some(r#"{"role":"assistant","content":"r"}"#.into()));
    assert_eq!(chat(&[r#"{"choices":[]}"#]), None);
    // The first of several choices goes on.
    assert_eq!(
        chat(&[
            r#"{"choices":[{"index":1,"delta":{"content":"b"}}]}"#,
            r#"{"choices":[{"index":0,"delta":{"content":"a"}},{"index":1,"delta":{"content":"b"}}]}"#,
        ]),
        Some(r#"{"role":"assistant","content":"a"}"#.into())
    );
}

#[test]
fn calls_of_tools_are_merged_by_their_index() {
    let chat = |payloads: &[&str]| carried(Kind::Chat, payloads);
    let call = |inner: &str| format!(r#"{{"choices":[{{"index":0,"delta":{{"tool_calls":[{inner}]}}}}]}}"#);
    let pieces = [
        call(r#"{"index":0,"id":"i","type":"function","function":{"name":"f","arguments":""}}"#),
        call(r#"{"index":1,"id":"j","function":{"name":"g","arguments":"{}"}}"#),
        call(r#"{"index":0,"function":{"arguments":"{\"a\""}}"#),
        call(r#"{"index":0,"id":"","function":{"name":null,"arguments":":1}"}}"#),
    ];
    let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
    let calls = r#""tool_calls":[{"id":"i","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}},{"id":"j","type":"function","function":{"name":"g","arguments":"{}"}}]}"#;
    assert_eq!(chat(&pieces), Some(format!(r#"{{"role":"assistant","content":null,{calls}"#)));
    assert_eq!(
        chat(&[&[r#"{"choices":[{"delta":{"content":"t"}}]}"#], &pieces[..]].concat()),
        Some(format!(r#"{{"role":"assistant","content":"t",{calls}"#))
    );
    let whole = r#"{"choices":[{"message":{"content":null,"tool_calls":[{"id":"i","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}},{"id":"j","type":"function","function":{"name":"g","arguments":"{}"}}]}}]}"#;
    assert_eq!(chat(&[whole]), Some(format!(r#"{{"role":"assistant","content":null,{calls}"#)));
    assert_eq!(
        chat(&[r#"{"choices":[{"message":{"function_call":{"name":"f","arguments":"{}"}}}]}"#]),
        Some(r#"{"role":"assistant","content":null,"tool_calls":[{"id":"","type":"function","function":{"name":"f","arguments":"{}"}}]}"#.into())
    );
}

#[test]
fn an_answer_of_messages_keeps_its_blocks() {
    let messages = |payloads: &[&str]| carried(Kind::Messages, payloads);
    let text = r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"t"}}"#;
    assert_eq!(messages(&[text, text]), Some(r#"{"role":"assistant","content":"tt"}"#.into()));
    let all = [
        r#"{"type":"message_start","message":{"content":[],"usage":{"input_tokens":3,"output_tokens":1}}}"#,
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"h"}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"s"}}"#,
        text,
        r#"{"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"i","name":"f","input":{}}}"#,
        r#"{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":""}}"#,
        r#"{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{\"a\": \"x"}}"#,
        r#"{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"\\n\"}"}}"#,
        r#"{"type":"content_block_stop","index":2}"#,
    ];
    let want = r#"{"role":"assistant","content":[{"type":"thinking","thinking":"h","signature":"s"},{"type":"text","text":"t"},{"type":"tool_use","id":"i","name":"f","input":{"a": "x\n"}}]}"#;
    assert_eq!(messages(&all), Some(want.into()));
    let whole = r#"{"type":"message","content":[{"type":"thinking","thinking":"h","signature":"s"},{"type":"text","text":"t"},{"type":"tool_use","id":"i","name":"f","input":{"a": "x\n"}}],"usage":{"input_tokens":1}}"#;
    assert_eq!(messages(&[whole]), Some(want.into()));
    // A call that was cut has no input to speak of.
    assert_eq!(
        messages(&all[5..8]),
        Some(r#"{"role":"assistant","content":[{"type":"tool_use","id":"i","name":"f","input":{}}]}"#.into())
    );
}

#[test]
fn an_answer_of_responses_is_its_items_once() {
    let item = r#"{"type":"message","id":"m","role":"assistant","content":[{"type":"output_text","text":"t"}]}"#;
    let thought = r#"{"type":"reasoning","id":"r","summary":[]}"#;
    let call = r#"{"type":"function_call","call_id":"c","name":"f","arguments":"{}"}"#;
    let delta = r#"{"type":"response.output_text.delta","delta":"t"}"#.to_owned();
    let done = |item: &str| format!(r#"{{"type":"response.output_item.done","item":{item}}}"#);
    let response = format!(r#"{{"id":"resp_1","status":"completed","output":[{thought},{item},{call}]}}"#);
    let end = format!(r#"{{"type":"response.completed","response":{response}}}"#);
    let carried = |payloads: &[&String]| {
        let payloads: Vec<&str> = payloads.iter().map(|p| p.as_str()).collect();
        carried(Kind::Responses, &payloads)
    };
    let both = Some(format!("{item},{call}"));
    assert_eq!(carried(&[&delta, &done(thought), &done(item), &done(call), &end]), both);
    assert_eq!(carried(&[&delta, &end]), both);
    assert_eq!(carried(&[&response]), both);
    assert_eq!(
        carried(&[&delta, &delta]),
        Some(r#"{"type":"message","role":"assistant","content":[{"type":"output_text","text":"tt"}]}"#.into())
    );
    let mut reply = Reply::new();
    reply.add(Kind::Responses, &Kind::Responses.read(end.as_bytes()).unwrap());
    assert_eq!(reply.id(), Some(&b"resp_1"[..]));
    let failed = end.replace("completed", "failed");
    reply.add(Kind::Responses, &Kind::Responses.read(failed.as_bytes()).unwrap());
    assert_eq!(reply.id(), None);
    reply.clear();
    assert_eq!(reply.id(), None);
}
