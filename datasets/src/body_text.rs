//! The texts of a request body, and so its input length.
//!
//! The same walk for ready-made `messages`, whole payloads and plain texts: all texts joined with single spaces, plus
//! the length of prompts that are token ids already.

use std::borrow::Cow;

use serde_json::Value;

use crate::Turn;
use crate::tokens::Tokenizer;

/// Input tokens of a turn by itself: its payload, else its messages and tools, else its texts.
pub(crate) fn input_tokens(turn: &Turn, tokenizer: &Tokenizer) -> u32 {
    let mut found = Found::default();
    if let Some(payload) = &turn.payload {
        found.body(payload);
    } else if let Some(messages) = &turn.messages {
        found.items(messages);
        found.tools(turn.tools.as_ref());
    } else {
        found.texts.extend(turn.all_texts().map(Cow::Borrowed));
    }
    if let ([text], 0) = (found.texts.as_slice(), found.ids) {
        return saturating(tokenizer.count(text));
    }
    saturating(tokenizer.count(&found.texts.join(" ")).saturating_add(found.ids))
}

fn saturating(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[derive(Default)]
struct Found<'a> {
    texts: Vec<Cow<'a, str>>,
    /// Elements of prompts given as token ids.
    ids: usize,
}

impl<'a> Found<'a> {
    /// The texts of a body of any of the text endpoints.
    fn body(&mut self, body: &'a Value) {
        let lists = ["messages", "input"].map(|field| body.get(field).filter(|list| is_item_list(list)));
        for list in lists.into_iter().flatten() {
            self.items(list);
        }
        self.tools(body.get("tools"));
        if lists.iter().all(Option::is_none) {
            self.prompt(body);
        }
    }

    /// Chat messages, or items of the Responses API.
    fn items(&mut self, list: &'a Value) {
        for item in list.as_array().into_iter().flatten() {
            match item.get("content") {
                Some(Value::String(text)) => self.texts.push(text.into()),
                Some(Value::Array(parts)) => {
                    let texts = parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str));
                    self.texts.extend(texts.map(Cow::Borrowed));
                }
                _ => {}
            }
            for call in item.get("tool_calls").and_then(Value::as_array).into_iter().flatten() {
                self.strings(call.get("function"), &["name", "arguments"]);
            }
            match item.get("type").and_then(Value::as_str) {
                Some("function_call") => self.strings(Some(item), &["name", "arguments"]),
                Some("function_call_output") => self.strings(Some(item), &["output"]),
                _ => {}
            }
        }
    }

    /// Names, descriptions and parameter schemas (as compact JSON) of tool definitions.
    fn tools(&mut self, tools: Option<&'a Value>) {
        for tool in tools.and_then(Value::as_array).into_iter().flatten() {
            for definition in [tool.get("function"), Some(tool)] {
                self.strings(definition, &["name", "description"]);
                let schema = definition.and_then(|definition| definition.get("parameters")).filter(|p| p.is_object());
                self.texts.extend(schema.map(|schema| Cow::Owned(schema.to_string())));
            }
        }
    }

    /// The first of the prompt fields that a body without items has.
    fn prompt(&mut self, body: &'a Value) {
        for field in ["prompt", "input"] {
            match body.get(field) {
                Some(Value::String(text)) => return self.texts.push(text.into()),
                Some(Value::Array(list)) if !list.is_empty() => return self.prompt_list(list),
                _ => {}
            }
        }
        if let (Some(Value::String(query)), Some(Value::Array(passages))) = (body.get("query"), body.get("passages")) {
            self.texts.push(query.into());
            let text = |passage: &'a Value| passage.as_str().or_else(|| passage.get("text").and_then(Value::as_str));
            return self.texts.extend(passages.iter().filter_map(text).map(Cow::Borrowed));
        }
        self.strings(Some(body), &["inputs"]);
    }

    fn prompt_list(&mut self, list: &'a [Value]) {
        for element in list {
            match element {
                Value::String(text) => self.texts.push(text.into()),
                Value::Number(_) => self.ids += 1,
                Value::Array(ids) => self.ids += ids.iter().filter(|id| id.is_number()).count(),
                _ => {}
            }
        }
    }

    fn strings(&mut self, object: Option<&'a Value>, fields: &[&str]) {
        let found = fields.iter().filter_map(|field| object?.get(*field)?.as_str());
        self.texts.extend(found.map(Cow::Borrowed));
    }
}

fn is_item_list(list: &Value) -> bool {
    list.as_array().is_some_and(|items| items.iter().any(|i| i.get("role").is_some() || i.get("type").is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::tests::{WORD_LEVEL, from_json};
    use serde_json::json;

    #[test]
    fn texts_of_bodies_are_counted() {
        let words = from_json(WORD_LEVEL);
        for (payload, tokens) in [
            (json!({"messages": [{"role": "system", "content": "a b"}, {"role": "user", "content": "c"}]}), 3),
            (
                json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "a b"},
                {"type": "image_url", "image_url": {"url": "x y z"}}]}]}),
                2,
            ),
            (
                json!({"messages": [{"role": "assistant", "content": null,
                "tool_calls": [{"function": {"name": "f", "arguments": "x y"}}]}]}),
                3,
            ),
            (json!({"input": [{"type": "function_call_output", "output": "a b c"}]}), 3),
            (
                json!({"messages": [{"role": "user", "content": "a"}],
                "tools": [{"type": "function", "function": {"name": "f", "description": "does it", "parameters": {}}}]}),
                5,
            ),
            (json!({"prompt": "a b c d", "model": "not counted"}), 4),
            (json!({"prompt": ["a b", "c"]}), 3),
            (json!({"prompt": [1, 2, 3]}), 3),
            (json!({"input": [[1, 2], [3]]}), 3),
            (json!({"query": "q", "passages": ["a b", {"text": "c"}]}), 4),
            (json!({"inputs": "a b"}), 2),
            (json!({"messages": 5, "prompt": {}}), 0),
        ] {
            let turn = Turn { payload: Some(payload.clone()), ..Turn::default() };
            assert_eq!(input_tokens(&turn, &words), tokens, "{payload}");
        }
    }

    #[test]
    fn texts_of_a_turn_are_joined_with_single_spaces() {
        let words = from_json(WORD_LEVEL);
        let turn = Turn { texts: vec!["a".into(), "b".into()], ..Turn::default() };
        assert_eq!(input_tokens(&turn, &words), 2);
    }
}
