//! A turn as messages: what chat, Responses and Anthropic messages have in common.

use super::{Splice, Unfit, put_json};
use maser_datasets::{Context, Conversation, Media, Turn};
use serde_json::Value;

/// How an endpoint writes the parts of a message.
pub(super) struct Forms {
    /// Name of the endpoint, for sentences.
    pub(super) name: &'static str,
    /// Members after `content`.
    pub(super) tail: &'static [u8],
    /// Whether a ready-made message is replayed.
    pub(super) replays: fn(&Value) -> bool,
    pub(super) text: fn(&mut Vec<u8>, &str),
    /// Takes a URL and a cache key, if there is one.
    pub(super) image: fn(&mut Vec<u8>, &str, Option<&str>),
    pub(super) audio: Option<fn(&mut Vec<u8>, Audio<'_>)>,
    pub(super) video: Option<fn(&mut Vec<u8>, &str)>,
}

/// An audio clip as the datasets write it, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Audio<'t> {
    /// `wav`, `mp3`.
    pub(super) format: &'t str,
    /// Base64.
    pub(super) data: &'t str,
}

impl<'t> Audio<'t> {
    /// Takes `wav,<base64>` or `data:audio/wav;base64,<base64>` apart.
    pub(super) fn parse(raw: &'t str) -> Result<Self, Unfit> {
        let Some((front, data)) = raw.split_once(',') else {
            return Err(Unfit::new(
                "an audio clip must be `<format>,<base64>` or a data URL, and this one has no comma",
            ));
        };
        let format = match front.strip_prefix("data:audio/") {
            Some(rest) => rest.split(';').next().unwrap_or(rest),
            None => front,
        };
        Ok(Self { format, data })
    }
}

/// A data URL taken apart: its type and its base64.
pub(super) fn data_url(raw: &str) -> Option<(&str, &str)> {
    let (front, data) = raw.strip_prefix("data:")?.split_once(',')?;
    Some((front.strip_suffix(";base64")?, data))
}

/// Non-empty contents of a modality, in order.
pub(super) fn contents(media: &[Media]) -> impl Iterator<Item = &str> {
    media.iter().flat_map(|media| &media.contents).map(String::as_str).filter(|content| !content.is_empty())
}

/// Images with their cache keys; an image that is only a key has no content.
fn images(media: &[Media]) -> impl Iterator<Item = (&str, Option<&str>)> {
    media.iter().flat_map(with_keys).filter(|(content, key)| !content.is_empty() || key.is_some())
}

fn with_keys(media: &Media) -> impl Iterator<Item = (&str, Option<&str>)> {
    let key = |n: usize| media.uuids.get(n).map(String::as_str).filter(|uuid| !uuid.is_empty());
    media.contents.iter().enumerate().map(move |(n, content)| (content.as_str(), key(n)))
}

/// Appends one message.
fn put_message<E>(
    role: &str,
    tail: &[u8],
    content: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    out: &mut Vec<u8>,
) -> Result<(), E> {
    out.extend_from_slice(b"{\"role\":");
    put_json(out, role);
    out.extend_from_slice(b",\"content\":");
    content(out)?;
    out.extend_from_slice(tail);
    out.push(b'}');
    Ok(())
}

/// The turn's own messages, commas between them. `system` is set before the text of a first message of that role.
fn put_messages(forms: &Forms, turn: &Turn, system: Option<&str>, out: &mut Vec<u8>) -> Result<(), Unfit> {
    let Some(messages) = &turn.messages else {
        let role = turn.role.as_deref().unwrap_or("user");
        return put_message(role, forms.tail, |out| put_content(forms, turn, out), out);
    };
    let replayed = messages.as_array().into_iter().flatten().filter(|message| (forms.replays)(message));
    for (n, message) in replayed.enumerate() {
        if n > 0 {
            out.push(b',');
        }
        match system {
            Some(system) if n == 0 => put_json(out, &with_system(message, system)),
            _ => put_json(out, message),
        }
    }
    Ok(())
}

/// Appends a request's list of messages, the session's head and then the turn's own, and says where the history goes,
/// counted from `start`. `system` is as for [`put_messages`].
pub(super) fn put_list(
    forms: &Forms,
    turn: &Turn,
    start: usize,
    put_head: impl FnOnce(&mut Vec<u8>),
    system: Option<&str>,
    out: &mut Vec<u8>,
) -> Result<Splice, Unfit> {
    out.push(b'[');
    let head = out.len();
    put_head(out);
    let at = out.len();
    put_messages(forms, turn, system, out)?;
    let [head, at, end] = [head, at, out.len()].map(|place| (place - start) as u32);
    out.push(b']');
    Ok(Splice { at, end, head, ..Splice::NONE })
}

/// Appends the messages at the head of every request of a session, a comma after each.
pub(super) fn put_head(system: Option<&str>, user_context: Option<&str>, out: &mut Vec<u8>) {
    for (role, text) in [("system", system), ("user", user_context)] {
        if let Some(text) = text {
            let content = |out: &mut Vec<u8>| -> Result<(), std::convert::Infallible> {
                put_json(out, text);
                Ok(())
            };
            let _ = put_message(role, b"", content, out);
            out.push(b',');
        }
    }
}

/// The message with `system` set before its own text.
fn with_system(message: &Value, system: &str) -> Value {
    let mut message = message.clone();
    match message.get_mut("content") {
        Some(Value::String(text)) => *text = format!("{system}\n\n{text}"),
        Some(Value::Array(parts)) => parts.insert(0, serde_json::json!({"type": "text", "text": system})),
        _ => {
            if let Value::Object(members) = &mut message {
                members.insert("content".to_owned(), system.into());
            }
        }
    }
    message
}

/// Whether the history of turn `k` begins with a system message of its own, and whether it begins with turn `k` itself.
pub(super) fn own_system(conversation: &Conversation, k: usize) -> (bool, bool) {
    let first = match conversation.context {
        Context::MessageArray => k,
        _ => (0..=k).rev().find(|&j| conversation.turns[j].reset_context).unwrap_or(0),
    };
    let message = conversation.turns[first].messages.as_ref().and_then(|messages| messages.get(0));
    let begins = message.and_then(|message| message.get("role")).is_some_and(|role| role == "system");
    (begins, first == k)
}

/// One text by itself is the content; anything else is a list of parts in the order texts, images, audio, videos. Empty
/// texts are left out of a list, and a list without parts is the empty text.
fn put_content(forms: &Forms, turn: &Turn, out: &mut Vec<u8>) -> Result<(), Unfit> {
    let media = [&turn.images, &turn.audios, &turn.videos];
    let mut texts = turn.all_texts();
    if let (Some(text), None, true) = (texts.next(), texts.next(), media.iter().all(|media| media.is_empty())) {
        put_json(out, text);
        return Ok(());
    }
    let start = out.len();
    let begin = |out: &mut Vec<u8>| out.push(if out.len() == start { b'[' } else { b',' });
    for text in contents(&turn.texts) {
        begin(out);
        (forms.text)(out, text);
    }
    for (url, key) in images(&turn.images) {
        begin(out);
        (forms.image)(out, url, key);
    }
    for clip in contents(&turn.audios) {
        let put = forms.audio.ok_or_else(|| lacks(forms, "audio"))?;
        let clip = Audio::parse(clip)?;
        begin(out);
        put(out, clip);
    }
    for url in contents(&turn.videos) {
        let put = forms.video.ok_or_else(|| lacks(forms, "video"))?;
        begin(out);
        put(out, url);
    }
    match out.len() == start {
        true => out.extend_from_slice(b"\"\""),
        false => out.push(b']'),
    }
    Ok(())
}

fn lacks(forms: &Forms, what: &str) -> Unfit {
    Unfit::new(format!("--endpoint-type {}: its messages carry no {what}", forms.name))
}

/// The texts of the turn as one prompt or a list: a single text stands by itself.
pub(super) fn put_prompt(turn: &Turn, out: &mut Vec<u8>) {
    let texts: Vec<&str> = contents(&turn.texts).collect();
    match texts.as_slice() {
        [one] => put_json(out, one),
        [] => put_json(out, ""),
        many => put_json(out, many),
    }
}
