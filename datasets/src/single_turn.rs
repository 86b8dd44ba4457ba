//! `single_turn`: JSONL whose every row is one request with texts.
//!
//! ```json
//! {"text": "Why?", "output_length": 64, "extra": {"temperature": 0}}
//! {"texts": ["one", {"name": "query", "contents": ["two"]}], "timestamp": 12.5, "session_id": "a"}
//! ```
//! Fields: `text` or `texts`, `role`, `model`, `timestamp` (milliseconds) or `delay` (milliseconds), `session_id`,
//! `output_length` (at least 1), `extra` (merged into the body). Other fields are allowed and say nothing here.

use serde::Deserialize;

use crate::Error;
use crate::file::{Draft, Prompt};
use crate::jsonl::Row;
use crate::{Media, Turn};

/// Fields of other media, singular and plural.
const MEDIA: [&str; 7] = ["image", "images", "image_uuids", "audio", "audios", "video", "videos"];

/// Fields one of which makes a row this format's.
pub(crate) const MODALITIES: [&str; 8] = ["text", "texts", "image", "images", "audio", "audios", "video", "videos"];

#[derive(Deserialize)]
#[serde(untagged)]
enum Text {
    Plain(String),
    Named {
        #[serde(default)]
        name: String,
        contents: Vec<String>,
    },
}

/// One row.
pub(crate) fn parse(row: &Row<'_>) -> Result<Draft, Error> {
    if let Some(field) = MEDIA.into_iter().find(|field| row.is_set(field)) {
        return Err(row.error(format_args!("`{field}`: images, audio and video are not supported yet")));
    }
    if row.is_set("timestamp") && row.is_set("delay") {
        return Err(row.error("`timestamp` and `delay` exclude each other"));
    }
    let max_tokens = row.integer("output_length", crate::lengths::MAX_TOKENS)?;
    if max_tokens == Some(0) {
        return Err(row.error("`output_length` must be at least 1"));
    }
    Ok(Draft {
        line: row.line,
        session_id: row.string("session_id")?,
        prompt: Prompt::Given,
        turn: Turn {
            texts: texts(row)?,
            role: row.string("role")?,
            model: row.string("model")?,
            max_tokens,
            timestamp_ns: row.millis("timestamp")?,
            delay_ns: row.millis("delay")?,
            extra: row.object("extra")?.unwrap_or_default(),
            ..Turn::default()
        },
    })
}

fn texts(row: &Row<'_>) -> Result<Vec<Media>, Error> {
    if row.is_set("text") && row.is_set("texts") {
        return Err(row.error("`text` and `texts` exclude each other"));
    }
    if let Some(text) = row.string("text")?.filter(|text| !text.is_empty()) {
        return Ok(vec![text.into()]);
    }
    let list: Vec<Text> = row.read("texts", "a list of strings or of {name, contents} objects")?.unwrap_or_default();
    let texts: Vec<Media> = list
        .into_iter()
        .map(|text| match text {
            Text::Plain(text) => text.into(),
            Text::Named { name, contents } => Media { name, contents, ..Media::default() },
        })
        .collect();
    if texts.iter().all(|text| text.contents.is_empty()) {
        return Err(row.error("neither `text` nor `texts` holds a text"));
    }
    Ok(texts)
}
