//! Fields of a JSON body, read one by one. For dialects whose requests are few or small; chat and completions scan.

use super::{MAX_TOKENS, Request, tokens_of};
use crate::serve::errors::Refused;
use crate::serve::world::World;
use serde_json::Value;

/// The body of a request: a JSON object.
#[derive(Debug)]
pub(super) struct Fields(Value);

impl Fields {
    /// # Errors
    /// The body is no JSON object.
    pub(super) fn read(request: &Request<'_>) -> Result<Self, Refused> {
        match serde_json::from_slice(request.body) {
            Ok(Value::Object(members)) => Ok(Self(members.into())),
            Ok(_) => Err(Refused::bad("the body is not a JSON object")),
            Err(e) => Err(Refused::bad(format!("the body is not JSON: {e}"))),
        }
    }

    /// The field, unless it is missing or null.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|v| !v.is_null())
    }

    /// The field, which must be there.
    pub(super) fn need(&self, name: &str) -> Result<&Value, Refused> {
        self.get(name).ok_or_else(|| Refused::bad(format!("{name} is missing")))
    }

    /// The fields of an object in a field; none where it is missing or no object.
    pub(super) fn inner(&self, name: &str) -> Self {
        Self(self.get(name).cloned().unwrap_or_default())
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, Refused> {
        let not_text = || Refused::bad(format!("{name} is not a string"));
        self.get(name).map(|v| v.as_str().ok_or_else(not_text)).transpose()
    }

    pub(super) fn need_text(&self, name: &str) -> Result<&str, Refused> {
        self.text(name)?.ok_or_else(|| Refused::bad(format!("{name} is missing")))
    }

    pub(super) fn list(&self, name: &str) -> Result<&[Value], Refused> {
        let list = self.need(name)?.as_array();
        list.map(Vec::as_slice).ok_or_else(|| Refused::bad(format!("{name} is not an array")))
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, Refused> {
        match self.get(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(Refused::bad(format!("{name} is neither true nor false"))),
        }
    }

    /// A number of tokens.
    pub(super) fn tokens(&self, name: &str) -> Result<Option<u32>, Refused> {
        self.count(name, MAX_TOKENS)
    }

    /// A whole number from 1 to `most`.
    pub(super) fn count(&self, name: &str, most: u32) -> Result<Option<u32>, Refused> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let number = value.as_u64().filter(|n| (1..=most.into()).contains(n));
        match number {
            Some(n) => Ok(Some(n as u32)),
            None => Err(Refused::bad(format!("{name} is not a whole number from 1 to {most}"))),
        }
    }

    /// The index of the model named; the first one where none is.
    pub(super) fn model(&self, world: &World) -> Result<usize, Refused> {
        self.text("model")?.map_or(Ok(0), |name| world.model(name))
    }
}

/// Tokens of all texts in `value`: strings in arrays, and in the members `text`, `content`, `input_text` and the like.
pub(super) fn prompt_tokens(value: &Value) -> u32 {
    tokens_of(text_bytes(value))
}

/// Bytes of all texts in `value`. What is not prose (types, roles, ids, images) is not counted.
pub(super) fn text_bytes(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(text_bytes).sum(),
        Value::Object(members) => {
            let prose = ["text", "content", "thinking", "arguments", "output", "partial_json"];
            members.iter().filter(|(key, _)| prose.contains(&key.as_str())).map(|(_, v)| text_bytes(v)).sum()
        }
        _ => 0,
    }
}
