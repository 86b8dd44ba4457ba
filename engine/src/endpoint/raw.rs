//! Ready-made bodies, sent as they are; whatever the answer holds is found in it.

use super::images::Images;
use super::{Facts, Options, Splice, Unfit};
use maser_datasets::Conversation;

pub(super) const FACTS: Facts = Facts {
    name: "raw",
    can_stream: true,
    produces_tokens: true,
    media: [true; 3],
    images: Images::InMessages("image_url"),
    holds_conversations: true,
    body,
    ..Facts::PLAIN
};

/// Never reached by a turn that has a payload.
pub(super) fn body(_: &Options, conversation: &Conversation, k: usize, _: &mut Vec<u8>) -> Result<Splice, Unfit> {
    Err(Unfit::new(format!(
        "--endpoint-type raw: bodies are sent as the input file has them, and turn {k} of session {} is no whole body",
        conversation.session_id
    )))
}
