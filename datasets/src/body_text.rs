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
        // Beside the messages: Responses, Anthropic.
        self.strings(Some(body), &["instructions"]);
        self.content(body.get("system"));
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
            self.content(item.get("content"));
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

    /// A text, or parts of which some are texts. Uses of tools and their results (Anthropic) are parts too.
    fn content(&mut self, content: Option<&'a Value>) {
        match content {
            Some(Value::String(text)) => self.texts.push(text.into()),
            Some(Value::Array(parts)) => {
                for part in parts {
                    match part.get("type").and_then(Value::as_str) {
                        Some("tool_use") => {
                            self.strings(Some(part), &["name"]);
                            self.texts.extend(part.get("input").map(|input| Cow::Owned(input.to_string())));
                        }
                        Some("tool_result") => self.content(part.get("content")),
                        _ => self.strings(Some(part), &["text"]),
                    }
                }
            }
            _ => {}
        }
    }

    /// Names, descriptions and parameter schemas (as compact JSON) of tool definitions.
    fn tools(&mut self, tools: Option<&'a Value>) {
        for tool in tools.and_then(Value::as_array).into_iter().flatten() {
            for definition in [tool.get("function"), Some(tool)] {
                self.strings(definition, &["name", "description"]);
                for schema in ["parameters", "input_schema"] {
                    let schema = definition.and_then(|definition| definition.get(schema)).filter(|p| p.is_object());
                    self.texts.extend(schema.map(|schema| Cow::Owned(schema.to_string())));
                }
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
        if body.get("query").is_some() {
            // Rankings: the question and what is ranked, which the reference leaves uncounted but for one form.
            return ["query", "passages", "documents", "texts"].iter().for_each(|field| self.loose(body.get(*field)));
        }
        self.strings(Some(body), &["text_input", "inputs"]);
        // Tensors of text (KServe).
        for tensor in body.get("inputs").and_then(Value::as_array).into_iter().flatten() {
            if tensor.get("datatype").is_some_and(|datatype| datatype == "BYTES") {
                self.loose(tensor.get("data"));
            }
        }
    }

    /// A text, an object with one, or a list of either.
    fn loose(&mut self, value: Option<&'a Value>) {
        match value {
            Some(Value::String(text)) => self.texts.push(text.into()),
            Some(Value::Object(_)) => self.strings(value, &["text"]),
            Some(Value::Array(list)) => list.iter().for_each(|element| self.loose(Some(element))),
            _ => {}
        }
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
            (json!({"query": {"text": "q"}, "passages": [{"text": "a b"}]}), 3),
            (json!({"query": "q", "documents": ["a b", "c"]}), 4),
            (json!({"query": "q", "texts": ["a b"]}), 3),
            (json!({"query": ["q r"], "filters": {"a": "b"}}), 2),
            (json!({"inputs": "a b"}), 2),
            (json!({"text_input": "a b c"}), 3),
            (json!({"inputs": [{"datatype": "BYTES", "data": ["a b", "c"]}, {"datatype": "INT32", "data": [8]}]}), 3),
            (json!({"instructions": "a b", "input": [{"role": "user", "content": "c"}]}), 3),
            (
                json!({"system": [{"type": "text", "text": "a"}], "messages": [
                    {"role": "assistant", "content": [{"type": "tool_use", "name": "f", "input": {}}]},
                    {"role": "user", "content": [{"type": "tool_result", "content": "b c"}]}],
                    "tools": [{"name": "f", "input_schema": {}}]}),
                7,
            ),
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
