//! Embeddings of Hugging Face's text-embeddings-inference, which the reference lacks.

use super::body::{Body, Report};
use super::{Facts, Options, Splice, Unfit, content, embeddings};
use maser_datasets::Conversation;

pub(super) const FACTS: Facts = Facts {
    name: "hf_tei_embeddings",
    path: "/embed",
    title: "Embeddings Metrics",
    body,
    read: embeddings::read,
    ..Facts::PLAIN
};

/// `{"inputs":[…]}`, always a list, and the extras; the server has one model and is not told its name. The answer is a bare
/// list of vectors.
fn body(options: &Options, conversation: &Conversation, k: usize, out: &mut Vec<u8>) -> Result<Splice, Unfit> {
    let turn = &conversation.turns[k];
    let mut body = Body::begin(options, turn, Report::Nothing, out);
    let inputs: Vec<&str> = content::contents(&turn.texts).collect();
    body.put("inputs", &inputs);
    body.finish();
    Ok(Splice::NONE)
}
