//! `mooncake_trace`: JSONL whose every row is one request of a trace.
//!
//! ```json
//! {"timestamp": 7.215, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47, 48]}
//! {"timestamp": 9, "messages": [{"role": "user", "content": "Why?"}], "tools": [], "output_length": 8}
//! ```
//! Exactly one of `input_length` (a prompt of that length is made), `text_input`, `messages`, `payload` (sent as it
//! stands); `hash_ids` only beside `input_length`, `tools` only beside `messages`. Further `output_length`, `timestamp`
//! and `delay` (milliseconds; in a fixed schedule a later turn goes by its timestamp if it has one, else by its delay),
//! `session_id`, `extra`. Rows of one `session_id` are one conversation, in the file's order:
//! `input_length` and `text_input` are what each turn adds, `messages` and `payload` hold the whole conversation so far.

use serde_json::Value;

use crate::formats::draft::{Draft, Prompt};
use crate::lengths::MAX_TOKENS;
use crate::read::jsonl::Row;
use crate::{Context, Error, Turn};

/// Tokens of a block where nothing says otherwise.
pub(crate) const BLOCK_SIZE: u32 = 512;

/// Fields exactly one of which a row has.
pub(crate) const INPUTS: [&str; 4] = ["input_length", "text_input", "messages", "payload"];

/// One row.
pub(crate) fn parse(row: &Row<'_>) -> Result<Draft, Error> {
    let given: Vec<&str> = INPUTS.into_iter().filter(|field| row.has(field)).collect();
    let [input] = given[..] else {
        let found = if given.is_empty() { "none".to_owned() } else { given.join(" and ") };
        return Err(row.error(format_args!(
            "a row has exactly one of `input_length`, `text_input`, `messages`, `payload`; found {found}"
        )));
    };
    for (field, needs) in [("hash_ids", "input_length"), ("tools", "messages")] {
        if row.is_set(field) && input != needs {
            return Err(row.error(format_args!("`{field}` goes only with `{needs}`, not with `{input}`")));
        }
    }
    let mut turn = Turn {
        max_tokens: row.integer("output_length", MAX_TOKENS)?,
        timestamp_ns: row.millis("timestamp")?,
        delay_ns: row.millis("delay")?,
        extra: row.object("extra")?.unwrap_or_default(),
        ..Turn::default()
    };
    let (mut prompt, mut context) = (Prompt::Given, Context::DeltasWithoutResponses);
    match input {
        "input_length" => prompt = synthetic(row)?,
        "text_input" => turn.texts = vec![text(row)?.into()],
        "messages" => {
            turn.messages = Some(messages(row)?);
            turn.tools = row.list("tools")?.filter(|tools| !tools.is_empty()).map(Value::Array);
            context = Context::MessageArray;
        }
        _ => {
            turn.payload = Some(payload(row)?);
            context = Context::MessageArray;
        }
    }
    Ok(Draft { context, ..Draft::of_turn(row.path, row.place, row.string("session_id")?, turn, prompt) })
}

fn synthetic(row: &Row<'_>) -> Result<Prompt, Error> {
    let length = row.integer("input_length", MAX_TOKENS)?.unwrap_or(0);
    if length == 0 {
        return Err(row.error("`input_length` must be at least 1"));
    }
    // 128 bits hold signed and unsigned 64-bit hashes alike.
    let hash_ids: Vec<i128> = row.read("hash_ids", "a list of whole numbers")?.unwrap_or_default();
    Ok(Prompt::Synthetic { length, hash_ids })
}

fn text(row: &Row<'_>) -> Result<String, Error> {
    let text = row.string("text_input")?.unwrap_or_default();
    if text.is_empty() {
        return Err(row.error("`text_input` must not be empty"));
    }
    Ok(text)
}

pub(crate) fn messages(row: &Row<'_>) -> Result<Value, Error> {
    let list = row.list("messages")?.unwrap_or_default();
    if list.is_empty() {
        return Err(row.error("`messages` must not be empty"));
    }
    if let Some(at) = list.iter().position(|message| !message.get("role").is_some_and(Value::is_string)) {
        return Err(row.error(format_args!("`messages[{at}]` must be an object with a `role`")));
    }
    Ok(Value::Array(list))
}

fn payload(row: &Row<'_>) -> Result<Value, Error> {
    let object = row.object("payload")?.unwrap_or_default();
    if object.is_empty() {
        return Err(row.error("`payload` must not be empty"));
    }
    Ok(Value::Object(object))
}
