//! `inputs_json`: the `inputs.json` that a run writes, sent again as it stands.
//!
//! ```json
//! {"data": [{"session_id": "session_000000", "payloads": [{"messages": [], "model": "m"}]}]}
//! ```
//! Every payload is a body of its own: nothing of the command line changes it. The document is read whole. Numbers and
//! escapes are written as this program writes them, so a document of its own comes back byte for byte.

use std::collections::HashSet;
use std::path::Path;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::intake::{Draft, Emit, Prompt, Step};
use crate::jsonl::{Place, in_row};
use crate::{Context, Error, Turn, source};

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    data: Vec<Session<'a>>,
}

#[derive(Deserialize)]
struct Session<'a> {
    session_id: String,
    #[serde(borrow)]
    payloads: Vec<&'a RawValue>,
}

/// Reads the document.
pub(crate) fn read(path: &Path, emit: Emit<'_>) -> Result<(), Error> {
    let text = source::text(path)?;
    let document: Document<'_> = serde_json::from_str(&text).map_err(|e| {
        Error::row(path, e.line(), format_args!("no inputs.json, {{\"data\": [{{session_id, payloads}}]}}: {e}"))
    })?;
    let mut seen = HashSet::new();
    for (at, session) in document.data.into_iter().enumerate() {
        let place = Place::Entry(at + 1);
        if session.payloads.is_empty() {
            return Err(place.error(path, "`payloads` must hold at least one body"));
        }
        if !seen.insert(session.session_id.clone()) {
            return Err(
                place.error(path, format_args!("`session_id` {:?} is that of another entry too", session.session_id))
            );
        }
        let mut steps = Vec::with_capacity(session.payloads.len());
        for (k, raw) in session.payloads.iter().enumerate() {
            let body: Map<String, Value> = serde_json::from_str(raw.get())
                .map_err(|e| place.error(path, format_args!("`payloads[{k}]` must be an object ({})", in_row(&e))))?;
            let turn = Turn { payload: Some(Value::Object(body)), ..Turn::default() };
            steps.push(Step { place, turn, prompt: Prompt::Given });
        }
        let session_id = Some(session.session_id);
        emit(Draft { path: path.into(), session_id, context: Context::MessageArray, system: None, steps })?;
    }
    Ok(())
}
