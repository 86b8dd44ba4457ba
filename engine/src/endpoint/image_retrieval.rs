//! NVIDIA NIM services that take images and answer with detections.

use super::body::{Body, Report};
use super::found::{Want, read_wanted};
use super::images::Images;
use super::{Facts, Options, Reading, Splice, Unfit, Unreadable, content};
use maser_datasets::Conversation;
use serde_json::json;

pub(super) const FACTS: Facts = Facts {
    name: "image_retrieval",
    path: "/v1/infer",
    tokenizes_input: false,
    media: [true, false, false],
    images: Images::InInput("image_url"),
    title: "Image Retrieval Metrics",
    body,
    read,
    ..Facts::PLAIN
};

/// `{"input":[{"type":"image_url","url":U}]}` and the extras.
fn body(options: &Options, conversation: &Conversation, k: usize, out: &mut Vec<u8>) -> Result<Splice, Unfit> {
    let turn = &conversation.turns[k];
    let input: Vec<_> = content::contents(&turn.images).map(|url| json!({"type": "image_url", "url": url})).collect();
    if input.is_empty() {
        return Err(Unfit::new(format!(
            "--endpoint-type image_retrieval: a turn of session {} has no image",
            conversation.session_id
        )));
    }
    let mut body = Body::begin(options, turn, Report::Nothing, out);
    body.put("input", &input);
    body.finish();
    Ok(Splice::NONE)
}

/// One unit for each element of `data`.
fn read<'a>(json: &'a [u8], reading: &mut Reading<'a>) -> Result<(), Unreadable> {
    read_wanted(json, &Want { data: true, ..Want::NOTHING }, reading)
}
