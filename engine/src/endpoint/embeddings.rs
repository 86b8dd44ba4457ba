//! OpenAI embeddings.

use super::body::{Body, Report};
use super::found::{Want, read_wanted};
use super::{Facts, Options, Reading, Splice, Unfit, Unreadable, content};
use maser_datasets::Conversation;

pub(super) const FACTS: Facts =
    Facts { name: "embeddings", path: "/v1/embeddings", title: "Embeddings Metrics", body, read, ..Facts::PLAIN };

/// `{"model","input":[…]}`, always a list, and the extras.
fn body(options: &Options, conversation: &Conversation, k: usize, out: &mut Vec<u8>) -> Result<Splice, Unfit> {
    let turn = &conversation.turns[k];
    let mut body = Body::begin(options, turn, Report::Nothing, out);
    body.model();
    let input: Vec<&str> = content::contents(&turn.texts).collect();
    body.put("input", &input);
    body.finish();
    Ok(Splice::NONE)
}

/// One unit for each embedding, whatever `object` says; the usage counts too.
pub(super) fn read<'a>(json: &'a [u8], reading: &mut Reading<'a>) -> Result<(), Unreadable> {
    read_wanted(json, &Want { embeddings: true, ..Want::NOTHING }, reading)
}
