//! OpenAI image generation.

use super::body::{Body, Report};
use super::found::{Want, read_wanted};
use super::{Facts, Options, Reading, Splice, Unfit, Unreadable, content};
use maser_datasets::Conversation;

pub(super) const FACTS: Facts = Facts {
    name: "image_generation",
    path: "/v1/images/generations",
    can_stream: true,
    title: "Image Generation Metrics",
    body,
    read,
    ..Facts::PLAIN
};

/// `{"prompt","model","response_format":"b64_json","n":1,"stream":true?}` and the extras (size, quality, partial_images).
fn body(options: &Options, conversation: &Conversation, k: usize, out: &mut Vec<u8>) -> Result<Splice, Unfit> {
    let turn = &conversation.turns[k];
    let mut body = Body::begin(options, turn, Report::Nothing, out);
    body.put("prompt", content::contents(&turn.texts).next().unwrap_or_default());
    body.model();
    body.put("response_format", "b64_json");
    body.put("n", &1);
    if options.streaming {
        body.put("stream", &true);
    }
    body.finish();
    Ok(Splice::NONE)
}

/// One unit for each image, the partial ones of a stream included.
pub(super) fn read<'a>(json: &'a [u8], reading: &mut Reading<'a>) -> Result<(), Unreadable> {
    read_wanted(json, &Want { images: true, ..Want::NOTHING }, reading)
}
