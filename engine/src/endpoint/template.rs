//! Bodies made from a template of the user's.

use super::{Facts, Options, Splice, Unfit};
use maser_datasets::Conversation;

pub(super) const FACTS: Facts = Facts {
    name: "template",
    can_stream: true,
    produces_tokens: true,
    media: [true; 3],
    holds_conversations: true,
    body,
    ..Facts::PLAIN
};

fn body(_: &Options, _: &Conversation, _: usize, _: &mut Vec<u8>) -> Result<Splice, Unfit> {
    Err(Unfit::new("--endpoint-type template: no template is given"))
}
