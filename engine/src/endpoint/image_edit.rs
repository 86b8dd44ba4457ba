//! OpenAI image edits: a form with a prompt and images.

use super::multipart::{Form, decode_base64};
use super::{Encoding, Facts, Options, Splice, Unfit, content, image_generation};
use maser_datasets::Conversation;

pub(super) const FACTS: Facts = Facts {
    name: "image_edit",
    path: "/v1/images/edits",
    media: [true, false, false],
    title: "Image Edit Metrics",
    encoding: Encoding::Multipart,
    reserved: &["prompt", "image", "url", "mask"],
    body,
    read: image_generation::read,
    ..Facts::PLAIN
};

/// The fields `prompt`, `model`, `response_format`, `n` and the extras, then each image: a file, or its `url`.
fn body(options: &Options, conversation: &Conversation, k: usize, out: &mut Vec<u8>) -> Result<Splice, Unfit> {
    let turn = &conversation.turns[k];
    let mut form = Form::begin(out);
    form.text("prompt", content::contents(&turn.texts).next().unwrap_or_default());
    let own = vec![
        ("model", turn.model.as_ref().unwrap_or(&options.model).as_str().into()),
        ("response_format", "b64_json".into()),
        ("n", 1.into()),
    ];
    form.fields(own, options, turn, FACTS.reserved);
    let mut any = false;
    for image in content::contents(&turn.images) {
        any = true;
        if image.starts_with("http://") || image.starts_with("https://") {
            form.text("url", image);
            continue;
        }
        let (kind, data) = content::data_url(image).unwrap_or(("", image));
        let bytes = decode_base64(data).ok_or_else(|| unfit(conversation, "an image that is no base64"))?;
        let kind = match kind.strip_prefix("image/") {
            Some(_) => kind,
            None => sniff(&bytes).ok_or_else(|| unfit(conversation, "an image of an unknown format"))?,
        };
        let ending = kind.strip_prefix("image/").unwrap_or("png");
        form.file("image", &format!("image.{ending}"), kind, &bytes);
    }
    form.end();
    match any {
        true => Ok(Splice::NONE),
        false => Err(unfit(conversation, "no image to edit")),
    }
}

fn unfit(conversation: &Conversation, what: &str) -> Unfit {
    Unfit::new(format!("--endpoint-type image_edit: a turn of session {} has {what}", conversation.session_id))
}

/// The format that the first bytes tell of.
fn sniff(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x89, b'P', b'N', b'G', ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', ..] => Some("image/gif"),
        [b'B', b'M', ..] => Some("image/bmp"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        _ => None,
    }
}
