//! Recorded calls of agents (`exgentic`): a row is a session, its spans are calls to a model with all that was sent.
//!
//! ```json
//! {"session_id": "s", "harness": "tool_calling", "models": ["azure/gpt-4.1"], "spans": [{"type": "llm_call",
//!  "start_time": "2026-01-01T00:00:00Z", "end_time": "2026-01-01T00:00:02Z", "status": {"code": 1},
//!  "attributes": {"gen_ai.usage.input_tokens": 9, "gen_ai.usage.output_tokens": 3, "gen_ai.input.messages": "[…]"}}]}
//! ```
//! Every call is a turn that holds its whole conversation; it follows the one before it after the recorded pause. Calls that
//! failed or counted no tokens, and spans that are none, are left out.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::formats::draft::{Draft, Prompt, Step};
use crate::lengths::MAX_TOKENS;
use crate::read::jsonl::Place;
use crate::read::moment::date_to_ns;
use crate::{Context, Error, Turn};

/// What is read of a row.
pub(crate) const COLUMNS: [&str; 5] = ["session_id", "harness", "models", "benchmark", "spans"];

/// Filters, and the values that each takes.
pub(crate) const FILTERS: [(&str, &[&str]); 3] = [
    ("harness", &["claude_code", "openai_solo", "smolagents_code", "tool_calling", "tool_calling_with_shortlisting"]),
    (
        "source_model",
        &["DeepSeek-V3.2", "Kimi-K2.5", "claude-opus-4-5", "gemini-3-pro-preview", "gpt-4.1", "gpt-5.2-2025-12-11"],
    ),
    ("benchmark", &["appworld", "browsecompplus", "swebench", "tau2_airline", "tau2_retail", "tau2_telecom"]),
];

/// The session of a row, without turns where it does not pass the filters or has no call.
pub(crate) fn draft(
    file: &Path,
    place: Place,
    column: &dyn Fn(&str) -> Option<Value>,
    filters: &BTreeMap<String, String>,
) -> Result<Draft, Error> {
    let text = |name: &str| column(name).and_then(|value| value.as_str().map(str::to_owned));
    let wrong = |what: &str| place.error(file, what);
    let session_id =
        text("session_id").filter(|id| !id.is_empty()).ok_or_else(|| wrong("no usable column `session_id`"))?;
    let mut draft = Draft { session_id: Some(session_id), context: Context::MessageArray, ..Draft::empty(file) };
    let models = column("models").unwrap_or_default();
    let passes = filters.iter().all(|(name, wanted)| match name.as_str() {
        "source_model" => {
            models.as_array().into_iter().flatten().filter_map(Value::as_str).any(|model| is_model(model, wanted))
        }
        name => text(name).is_some_and(|value| value.eq_ignore_ascii_case(wanted)),
    });
    if !passes {
        return Ok(draft);
    }
    let spans = column("spans").ok_or_else(|| wrong("no usable column `spans`"))?;
    let mut calls = Vec::new();
    for (k, span) in spans.as_array().into_iter().flatten().enumerate() {
        calls.extend(call(span).map_err(|what| place.error(file, format_args!("spans[{k}]: {what}")))?);
    }
    calls.sort_by_key(|(start, ..)| *start);
    let mut before: Option<u64> = None;
    for (start, end, mut turn) in calls {
        turn.delay_ns = before.map(|end| start.saturating_sub(end));
        before = Some(end);
        draft.steps.push(Step { place, turn, prompt: Prompt::Given });
    }
    Ok(draft)
}

/// Whether a recorded model, which may have its provider before it, is the one asked for.
fn is_model(recorded: &str, wanted: &str) -> bool {
    let bare = |name: &str| {
        let name = name.to_ascii_lowercase();
        let provider = ["openai/azure/", "azure/", "aws/", "gcp/"].into_iter().find(|p| name.starts_with(p));
        name[provider.map_or(0, str::len)..].to_owned()
    };
    bare(recorded) == bare(wanted)
}

/// Start and end of a call, and its turn.
fn call(span: &Value) -> Result<Option<(u64, u64, Turn)>, String> {
    let of = span.get("attributes").unwrap_or(&Value::Null);
    let at = |name: &str| of.get(name).filter(|value| !value.is_null());
    let is_call = match span.get("type").and_then(Value::as_str) {
        Some(kind) => kind == "llm_call",
        None => at("gen_ai.operation.name").is_some_and(|name| name == "chat"),
    };
    let failed = span.get("status").and_then(|status| status.get("code")).is_some_and(|code| code == 2);
    let count = |name: &str| at(name).and_then(Value::as_u64).unwrap_or(0);
    let output = count("gen_ai.usage.output_tokens");
    if !is_call || failed || output == 0 || count("gen_ai.usage.input_tokens") == 0 {
        return Ok(None);
    }
    let time = |name: &str| {
        let text = span.get(name).and_then(Value::as_str).and_then(date_to_ns);
        text.ok_or_else(|| format!("`{name}` must be an ISO 8601 time"))
    };
    let (start, end) = (time("start_time")?, time("end_time")?);
    if end < start {
        return Err("it ends before it starts".into());
    }
    let mut messages = system(at("gen_ai.system_instructions"))?;
    for message in list(at("gen_ai.input.messages"), "gen_ai.input.messages")? {
        put(&message, &mut messages)?;
    }
    let asked = at("gen_ai.request.max_tokens").and_then(Value::as_u64).filter(|n| *n > 0).unwrap_or(output);
    let tools = list(at("gen_ai.tool.definitions"), "gen_ai.tool.definitions")?;
    let tools: Vec<Value> = tools.iter().map(tool).collect();
    let mut extra = Map::new();
    extra.extend(at("gen_ai.request.temperature").map(|t| ("temperature".to_owned(), t.clone())));
    let stop = at("gen_ai.request.stop_sequences").filter(|stop| stop.as_array().is_some_and(|list| !list.is_empty()));
    extra.extend(stop.map(|stop| ("stop".to_owned(), stop.clone())));
    let turn = Turn {
        max_tokens: Some(asked.min(MAX_TOKENS.into()) as u32),
        messages: Some(messages.into()),
        tools: (!tools.is_empty()).then(|| tools.into()),
        extra,
        ..Turn::default()
    };
    Ok(Some((start, end, turn)))
}

/// A list of objects, as it is or as JSON in a text; empty where there is none.
fn list(value: Option<&Value>, name: &str) -> Result<Vec<Value>, String> {
    let list = match value {
        None => return Ok(Vec::new()),
        Some(Value::String(text)) => serde_json::from_str(text).map_err(|e| format!("`{name}` is no JSON: {e}"))?,
        Some(other) => other.clone(),
    };
    match list {
        Value::Array(items) if items.iter().all(Value::is_object) => Ok(items),
        _ => Err(format!("`{name}` must be a list of objects")),
    }
}

/// System instructions: parts as JSON, or a plain text.
fn system(value: Option<&Value>) -> Result<Vec<Value>, String> {
    let mut messages = Vec::new();
    match value.and_then(Value::as_str) {
        None | Some("") => {}
        Some(text) => match list(value, "gen_ai.system_instructions") {
            Ok(parts) => put(&json!({"role": "system", "parts": parts}), &mut messages)?,
            Err(_) => messages.push(json!({"role": "system", "content": text})),
        },
    }
    Ok(messages)
}

/// What a chat message is made of while its parts are walked through.
#[derive(Default)]
struct Said {
    content: String,
    reasoning: String,
    calls: Vec<Value>,
}

impl Said {
    fn is_empty(&self) -> bool {
        self.content.is_empty() && self.reasoning.is_empty() && self.calls.is_empty()
    }

    fn message(self, role: &str) -> Value {
        let mut message = json!({"role": if role == "developer" { "system" } else { role }, "content": self.content});
        if !self.reasoning.is_empty() {
            message["reasoning_content"] = self.reasoning.into();
        }
        if !self.calls.is_empty() {
            message["tool_calls"] = self.calls.into();
        }
        message
    }
}

/// Appends the chat messages that a recorded message is. What a tool gave back is a message of its own.
fn put(recorded: &Value, messages: &mut Vec<Value>) -> Result<(), String> {
    let text = |part: &Value, name: &str| part.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let json_text = |value: Option<&Value>| match value {
        Some(Value::String(text)) => text.clone(),
        other => other.unwrap_or(&Value::Null).to_string(),
    };
    let role = text(recorded, "role");
    let parts = recorded.get("parts").and_then(Value::as_array);
    let parts = parts.filter(|_| !role.is_empty()).ok_or("a message must have a `role` and a list `parts`")?;
    let (mut said, before) = (Said::default(), messages.len());
    for part in parts {
        match text(part, "type").as_str() {
            "text" => said.content += &text(part, "content"),
            "thinking" => said.reasoning += &text(part, "thinking"),
            "tool_call" => said.calls.push(json!({
                "id": part.get("id"),
                "type": "function",
                "function": {"name": part.get("name"), "arguments": json_text(part.get("arguments"))},
            })),
            "tool_call_response" => {
                if !said.is_empty() {
                    messages.push(std::mem::take(&mut said).message(&role));
                }
                messages.push(json!({
                    "role": "tool",
                    "tool_call_id": part.get("id"),
                    "content": json_text(part.get("result")),
                }));
            }
            other => return Err(format!("a message of {role} has a part of the unknown type {other:?}")),
        }
    }
    if !said.is_empty() || messages.len() == before {
        messages.push(said.message(&role));
    }
    Ok(())
}

fn tool(definition: &Value) -> Value {
    let field = |name: &str| definition.get(name);
    json!({"type": "function", "function": {
        "name": field("name"), "description": field("description"), "parameters": field("parameters"),
    }})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Value {
        let span = |start: u32, end: u32, more: Value| {
            let time = |s: u32| format!("2026-01-01T00:00:{s:02}Z");
            let mut span = json!({"type": "llm_call", "start_time": time(start), "end_time": time(end),
                "attributes": {"gen_ai.usage.input_tokens": 9, "gen_ai.usage.output_tokens": 3,
                    "gen_ai.input.messages": "[{\"role\":\"user\",\"parts\":[{\"type\":\"text\",\"content\":\"hi\"}]}]"}});
            span["attributes"].as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
            span
        };
        let answered = json!({
            "gen_ai.input.messages": [{"role": "assistant", "parts": [
                {"type": "thinking", "thinking": "hm"},
                {"type": "tool_call", "id": "c", "name": "f", "arguments": {"x": 1}},
                {"type": "tool_call_response", "id": "c", "result": "done"},
            ]}],
            "gen_ai.system_instructions": "be brief",
            "gen_ai.request.max_tokens": 50, "gen_ai.request.temperature": 0.5,
            "gen_ai.tool.definitions": "[{\"type\":\"function\",\"name\":\"f\",\"parameters\":{}}]",
        });
        json!({"session_id": "s", "harness": "tool_calling", "models": ["azure/gpt-4.1"], "benchmark": "appworld", "spans": [
            span(10, 12, answered),
            span(1, 4, json!({})),
            span(5, 6, json!({"gen_ai.usage.output_tokens": 0})),
            {"type": "tool"},
        ]})
    }

    fn drafted(row: &Value, filters: &[(&str, &str)]) -> Result<Draft, Error> {
        let filters = filters.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        draft(Path::new("t.jsonl"), Place::Line(3), &|name| row.get(name).cloned(), &filters)
    }

    #[test]
    fn calls_are_turns_with_all_that_was_sent() {
        let draft = drafted(&row(), &[]).unwrap();
        let turns: Vec<&Turn> = draft.steps.iter().map(|step| &step.turn).collect();
        assert_eq!(turns.iter().map(|t| t.delay_ns).collect::<Vec<_>>(), [None, Some(6_000_000_000)]);
        assert_eq!(turns.iter().map(|t| t.max_tokens).collect::<Vec<_>>(), [Some(3), Some(50)]);
        assert_eq!(turns[0].messages, Some(json!([{"role": "user", "content": "hi"}])));
        let calls = json!([{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{\"x\":1}"}}]);
        let expected = json!([
            {"role": "system", "content": "be brief"},
            {"role": "assistant", "content": "", "reasoning_content": "hm", "tool_calls": calls},
            {"role": "tool", "tool_call_id": "c", "content": "done"},
        ]);
        assert_eq!(turns[1].messages, Some(expected));
        assert_eq!(turns[1].extra["temperature"], 0.5);
        assert_eq!(turns[1].tools.as_ref().unwrap()[0]["function"]["name"], "f");
    }

    #[test]
    fn filters_leave_sessions_out() {
        let turns = |filters: &[(&str, &str)]| drafted(&row(), filters).unwrap().steps.len();
        assert_eq!(turns(&[("harness", "Tool_Calling"), ("source_model", "GPT-4.1"), ("benchmark", "appworld")]), 2);
        for other in [("harness", "claude_code"), ("source_model", "Kimi-K2.5"), ("benchmark", "swebench")] {
            assert_eq!(turns(&[other]), 0, "{other:?}");
        }
    }

    #[test]
    fn a_wrong_span_is_named() {
        let mut wrong = row();
        wrong["spans"][1]["end_time"] = "yesterday".into();
        let said = drafted(&wrong, &[]).unwrap_err().0;
        assert_eq!(said, "t.jsonl:3: spans[1]: `end_time` must be an ISO 8601 time");
    }
}
