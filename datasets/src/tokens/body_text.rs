//! The texts of a request body, and so its input length.
//!
//! The same walk for ready-made `messages`, whole payloads and plain texts: all texts joined with single spaces, plus
//! the length of prompts that are token ids already.

use std::borrow::Cow;

use serde_json::Value;

use crate::tokens::overhead::Overhead;
use crate::tokens::{Message, Tokenizer};
use crate::{Conversation, Turn};

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

/// Counts turns as a tokenizer's chat template writes them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Templated<'a> {
    tokenizer: &'a Tokenizer,
    around: Overhead,
}

impl<'a> Templated<'a> {
    /// None where the tokenizer applies no template.
    pub(crate) fn of(tokenizer: &'a Tokenizer) -> Option<Self> {
        tokenizer.has_chat_template().then(|| Self { tokenizer, around: Overhead::measure(tokenizer) })
    }

    /// Tokens of a request with one text of `tokens` tokens, which is not encoded again.
    pub(crate) fn of_text(&self, tokens: u32) -> u32 {
        tokens.saturating_add(self.around.around(true))
    }

    /// Tokens of a request that carries the turn alone; `by_itself` where it has no messages or the template refuses them.
    pub(crate) fn alone(&self, turn: &Turn, by_itself: u32) -> u32 {
        let Some(given) = messages(turn) else { return by_itself };
        let (mut all, mut beside) = (Vec::new(), Found::default());
        for item in given {
            let mut texts = Found::default();
            texts.content(item.get("content"));
            all.extend(item.get("role").and_then(Value::as_str).map(|role| (role, texts.texts.concat())));
            beside.calls(item);
        }
        beside.tools(turn.tools.as_ref().or_else(|| turn.payload.as_ref()?.get("tools")));
        if given.is_empty() {
            all.push((turn.role.as_deref().unwrap_or("user"), turn.all_texts().collect::<Vec<_>>().join(" ")));
        }
        let messages: Vec<Message<'_>> = all.iter().map(|(role, content)| Message { role, content }).collect();
        let beside = || self.tokenizer.count(&beside.texts.join(" "));
        self.tokenizer.count_chat(&messages).map_or(by_itself, |tokens| saturating(tokens + beside()))
    }

    /// Tokens that a later turn adds to its session, and the marks of `answers` answers before it.
    pub(crate) fn added(&self, turn: &Turn, by_itself: u32, answers: usize) -> u32 {
        let marks = |given: &[Value]| self.around.of_messages(given.len().max(1) + answers);
        by_itself.saturating_add(messages(turn).map_or(0, marks))
    }
}

/// The messages of a turn that brings its own, none of a turn of texts; None where it is something else than messages.
fn messages(turn: &Turn) -> Option<&[Value]> {
    let list = match &turn.payload {
        Some(payload) => {
            Some(["messages", "input"].iter().find_map(|field| payload.get(*field).filter(|l| is_item_list(l)))?)
        }
        None => turn.messages.as_ref(),
    };
    Some(list.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default())
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
            self.calls(item);
        }
    }

    /// The calls of tools in a message, and their results.
    fn calls(&mut self, item: &'a Value) {
        for call in item.get("tool_calls").and_then(Value::as_array).into_iter().flatten() {
            self.strings(call.get("function"), &["name", "arguments"]);
        }
        match item.get("type").and_then(Value::as_str) {
            Some("function_call") => self.strings(Some(item), &["name", "arguments"]),
            Some("function_call_output") => self.strings(Some(item), &["output"]),
            _ => {}
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

/// Fills `head_tokens` where there is a head that has not been counted.
pub(crate) fn count_head(conversation: &mut Conversation, tokenizer: &Tokenizer) {
    let Conversation { head_tokens, system, user_context, .. } = conversation;
    if head_tokens.is_none() && (system.is_some() || user_context.is_some()) {
        let head = tokenizer.count_head(system.as_deref(), user_context.as_deref());
        *head_tokens = Some(u32::try_from(head).unwrap_or(u32::MAX));
    }
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
    fn a_template_counts_what_it_writes_and_what_it_does_not_know_of() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("tokenizer.json"), WORD_LEVEL).unwrap();
        let template = "{% for m in messages %}start {{ m.role }} : {{ m.content }} end {% endfor %}assistant :";
        std::fs::write(dir.path().join("chat_template.jinja"), template).unwrap();
        let tokenizer = Tokenizer::open(dir.path()).unwrap();
        assert!(Templated::of(&tokenizer).is_none());
        let tokenizer = tokenizer.with_chat_template().unwrap();
        let templated = Templated::of(&tokenizer).unwrap();
        let payload = |payload| Turn { payload: Some(payload), ..Turn::default() };
        for (turn, alone, added) in [
            (Turn { texts: vec!["a".into(), "b".into()], ..Turn::default() }, 4 + 2 + 2, 4 + 4 + 2),
            (payload(json!({"messages": [{"role": "user", "content": "a b c"}]})), 4 + 3 + 2, 4 + 4 + 3),
            (
                payload(json!({"messages": [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}],
                    "tools": [{"function": {"name": "f", "description": "does it"}}]})),
                4 + 1 + 4 + 1 + 2 + 3,
                3 * 4 + 5,
            ),
            (payload(json!({"input": [{"role": "user", "content": "a"}]})), 4 + 1 + 2, 4 + 4 + 1),
            (payload(json!({"prompt": "a b"})), 2, 2),
        ] {
            let by_itself = input_tokens(&turn, &tokenizer);
            assert_eq!(
                (templated.alone(&turn, by_itself), templated.added(&turn, by_itself, 1)),
                (alone, added),
                "{turn:?}"
            );
        }
        assert_eq!(templated.of_text(5), 4 + 5 + 2);
    }

    #[test]
    fn texts_of_a_turn_are_joined_with_single_spaces() {
        let words = from_json(WORD_LEVEL);
        let turn = Turn { texts: vec!["a".into(), "b".into()], ..Turn::default() };
        assert_eq!(input_tokens(&turn, &words), 2);
    }
}
