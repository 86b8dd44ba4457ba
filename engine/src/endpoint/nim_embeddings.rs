//! NVIDIA NIM embeddings of texts, of images, or of texts and images pair by pair.

use super::body::{Body, Report};
use super::{Facts, Options, Splice, Unfit, content, embeddings};
use maser_datasets::Conversation;

pub(super) const FACTS: Facts = Facts {
    name: "nim_embeddings",
    path: "/v1/embeddings",
    media: [true, false, false],
    title: "NIM Embeddings Metrics",
    body,
    read: embeddings::read,
    ..Facts::PLAIN
};

/// `{"model","input":[…]}`: the texts, or the images' data URLs, or `<text> <image>` where there are as many of both.
/// `input_type` comes from the extras.
fn body(options: &Options, conversation: &Conversation, k: usize, out: &mut Vec<u8>) -> Result<Splice, Unfit> {
    let turn = &conversation.turns[k];
    let texts: Vec<&str> = content::contents(&turn.texts).collect();
    let images: Vec<&str> = content::contents(&turn.images).collect();
    let input: Vec<String> = match (texts.len(), images.len()) {
        (_, 0) => texts.into_iter().map(str::to_owned).collect(),
        (0, _) => images.into_iter().map(str::to_owned).collect(),
        (t, i) if t == i => texts.into_iter().zip(images).map(|(text, image)| format!("{text} {image}")).collect(),
        (t, i) => {
            return Err(Unfit::new(format!(
                "--endpoint-type nim_embeddings: texts and images go in pairs, and a turn of session {} has {t} texts and \
                 {i} images",
                conversation.session_id
            )));
        }
    };
    let mut body = Body::begin(options, turn, Report::Nothing, out);
    body.model();
    body.put("input", &input);
    body.finish();
    Ok(Splice::NONE)
}
