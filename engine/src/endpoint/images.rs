//! How many images a request carries, counted in its body as the reference counts them.

use memchr::memmem;
use serde_json::Value;

/// Where an endpoint's bodies have images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Images {
    /// Nowhere, or, as in forms and in lists of plain texts, where the reference does not count them.
    Uncounted,
    /// Parts of this type in the messages.
    InMessages(&'static str),
    /// Parts of this type in `input` itself.
    InInput(&'static str),
}

/// The images of a body; 0 if it is no JSON.
pub(super) fn count(images: Images, body: &[u8]) -> u32 {
    let (name, in_messages) = match images {
        Images::Uncounted => return 0,
        Images::InMessages(name) => (name, true),
        Images::InInput(name) => (name, false),
    };
    // Most bodies have none, and need not be read.
    if memmem::find(body, name.as_bytes()).is_none() {
        return 0;
    }
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return 0 };
    let list = |name: &str| body.get(name).and_then(Value::as_array).into_iter().flatten();
    let is_image = |part: &&Value| part.get("type").is_some_and(|of| of == name);
    let found = if in_messages {
        let messages = list("messages").chain(list("input"));
        let parts = messages.filter_map(|message| message.get("content")?.as_array()).flatten();
        parts.filter(is_image).count()
    } else {
        list("input").filter(is_image).count()
    };
    u32::try_from(found).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::Kind;

    #[test]
    fn images_are_counted_where_the_endpoint_has_them() {
        let parts = |part: &str| format!(r#"[{{"type":"text","text":"a"}},{part},{part}]"#);
        let chat = parts(r#"{"type":"image_url","image_url":{"url":"data:image/png;base64,AA"}}"#);
        let responses = parts(r#"{"type":"input_image","image_url":"http://h/a.png"}"#);
        let messages = parts(r#"{"type":"image","source":{"type":"url","url":"http://h/a.png"}}"#);
        let told = |list: &str, content: &str| {
            format!(
                r#"{{"model":"m","{list}":[{{"role":"user","content":"image_url"}},{{"role":"user","content":{content}}}]}}"#
            )
        };
        for (kind, body, images) in [
            (Kind::Chat, told("messages", &chat), 2),
            (Kind::ChatEmbeddings, told("messages", &chat), 2),
            (Kind::Raw, told("messages", &chat), 2),
            (Kind::Template, told("input", &chat), 2),
            (Kind::Responses, told("input", &responses), 2),
            (Kind::Messages, told("messages", &messages), 2),
            (Kind::Messages, told("messages", &chat), 0),
            (Kind::Chat, told("prompts", &chat), 0),
            (Kind::Chat, r#"{"messages":"image_url"}"#.into(), 0),
            (Kind::Chat, r#"{"messages":[{"type":"image_url"},"image_url",{"content":["image_url"]}]}"#.into(), 0),
            (Kind::ImageRetrieval, r#"{"input":[{"type":"image_url","url":"data:"},{"type":"text"}]}"#.into(), 1),
            (Kind::ImageRetrieval, told("input", &chat), 0),
            (Kind::Completions, told("messages", &chat), 0),
            (Kind::NimEmbeddings, r#"{"input":["data:image/png;base64,AA"]}"#.into(), 0),
            (Kind::Chat, r#"{"messages":[{"content":[{"type":"image_url"}]}"#.into(), 0),
        ] {
            assert_eq!(kind.images(body.as_bytes()), images, "{} {body}", kind.name());
        }
    }
}
