//! `single_turn`: JSONL whose every row is one request with texts, images, audio or video.
//!
//! ```json
//! {"text": "What is in it?", "image": "/pictures/a.png", "output_length": 64, "extra": {"temperature": 0}}
//! {"texts": ["one", {"name": "query", "contents": ["two"]}], "timestamp": 12.5, "session_id": "a"}
//! ```
//! Fields: `text` or `texts`, `image` or `images` (with `image_uuids`), `audio` or `audios`, `video` or `videos`, `role`,
//! `model`, `timestamp` (milliseconds) or `delay` (milliseconds), `session_id`, `output_length` (at least 1), `extra`
//! (merged into the body). Other fields are allowed and say nothing here. Rows of one `session_id` are the turns of one
//! conversation, each of which is sent by itself, without the earlier ones.

use serde::Deserialize;

use crate::formats::draft::{Draft, Prompt};
use crate::media::attachment;
use crate::read::jsonl::Row;
use crate::{Context, Error, Media, Turn};

/// Fields one of which makes a row this format's.
pub(crate) const MODALITIES: [&str; 9] =
    ["text", "texts", "image", "images", "image_uuids", "audio", "audios", "video", "videos"];

#[derive(Deserialize)]
#[serde(untagged)]
enum Item {
    Plain(String),
    Named {
        #[serde(default)]
        name: String,
        contents: Vec<String>,
    },
}

/// One row.
pub(crate) fn parse(row: &Row<'_>) -> Result<Draft, Error> {
    let session_id = row.string("session_id")?;
    let context = if session_id.is_some() { Context::MessageArray } else { Context::default() };
    Ok(Draft { context, ..Draft::of_turn(row.path, row.place, session_id, turn(row)?, Prompt::Given) })
}

/// The request that a row, or a turn of a `multi_turn` row, is.
pub(crate) fn turn(row: &Row<'_>) -> Result<Turn, Error> {
    if row.is_set("timestamp") && row.is_set("delay") {
        return Err(row.error("`timestamp` and `delay` exclude each other"));
    }
    let max_tokens = row.integer("output_length", crate::lengths::MAX_TOKENS)?;
    if max_tokens == Some(0) {
        return Err(row.error("`output_length` must be at least 1"));
    }
    let turn = Turn {
        role: row.string("role")?,
        model: row.string("model")?,
        max_tokens,
        timestamp_ns: row.millis("timestamp")?,
        delay_ns: row.millis("delay")?,
        extra: row.object("extra")?.unwrap_or_default(),
        ..contents(row)?
    };
    Ok(turn)
}

/// Texts and other media of a row, at least one.
pub(crate) fn contents(row: &Row<'_>) -> Result<Turn, Error> {
    let turn = Turn {
        texts: medium(row, "text", "texts", false)?,
        images: images(row)?,
        audios: medium(row, "audio", "audios", true)?,
        videos: medium(row, "video", "videos", true)?,
        ..Turn::default()
    };
    if [&turn.texts, &turn.images, &turn.audios, &turn.videos].iter().all(|media| media.is_empty()) {
        return Err(row.error("no content: none of `text`, `image`, `audio`, `video` and their plurals holds anything"));
    }
    Ok(turn)
}

/// The contents of one medium. Named ones must not need a file.
fn medium(row: &Row<'_>, one: &str, many: &str, files: bool) -> Result<Vec<Media>, Error> {
    if row.is_set(one) && row.is_set(many) {
        return Err(row.error(format_args!("`{one}` and `{many}` exclude each other")));
    }
    if let Some(content) = row.string(one)?.filter(|content| !content.is_empty()) {
        return Ok(vec![content.into()]);
    }
    let items: Vec<Item> = row.read(many, "a list of strings or of {name, contents} objects")?.unwrap_or_default();
    let mut media: Vec<Media> = Vec::with_capacity(items.len());
    for item in items {
        media.push(match item {
            Item::Plain(content) => content.into(),
            Item::Named { name, contents } => {
                if let Some(file) = contents.iter().find(|content| files && !attachment::is_ready(content)) {
                    return Err(row.error(format_args!(
                        "`{many}`: {:?} in `contents` is neither a URL nor encoded; only plain strings may be files",
                        crate::read::jsonl::brief(file)
                    )));
                }
                Media { name, contents, ..Media::default() }
            }
        });
    }
    media.retain(|m| !m.contents.is_empty());
    Ok(media)
}

fn images(row: &Row<'_>) -> Result<Vec<Media>, Error> {
    let mut images = medium(row, "image", "images", true)?;
    let uuids: Vec<String> = row.read("image_uuids", "a list of strings")?.unwrap_or_default();
    if uuids.is_empty() {
        return Ok(images);
    }
    if uuids.iter().any(String::is_empty) {
        return Err(row.error("`image_uuids` must not hold empty strings"));
    }
    let named = images.iter().any(|image| !image.name.is_empty() || image.contents.len() > 1);
    if row.is_set("image") || named {
        return Err(row.error("`image_uuids` goes with a list of strings in `images`"));
    }
    if images.is_empty() {
        // The server has the images of these keys already.
        images = uuids.iter().map(|_| Media::from("")).collect();
    }
    if images.len() != uuids.len() {
        return Err(row.error(format_args!("{} `image_uuids` for {} `images`", uuids.len(), images.len())));
    }
    for (image, uuid) in images.iter_mut().zip(uuids) {
        image.uuids = vec![uuid];
    }
    Ok(images)
}
