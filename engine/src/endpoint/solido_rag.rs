//! SOLIDO retrieval-augmented generation.

use super::body::{Body, Report};
use super::found::{Want, read_wanted};
use super::{Facts, Options, Reading, Splice, Unfit, Unreadable, content};
use maser_datasets::Conversation;
use serde_json::json;

pub(super) const FACTS: Facts = Facts {
    name: "solido_rag",
    path: "/rag/api/prompt",
    can_stream: true,
    produces_tokens: true,
    holds_conversations: true,
    title: "SOLIDO RAG Metrics",
    body,
    read,
    ..Facts::PLAIN
};

/// `{"query":[…],"filters":{…},"inference_model"}` and the extras. A session's turns stand each by themselves.
fn body(options: &Options, conversation: &Conversation, k: usize, out: &mut Vec<u8>) -> Result<Splice, Unfit> {
    let turn = &conversation.turns[k];
    let query: Vec<&str> = content::contents(&turn.texts).collect();
    let mut body = Body::begin(options, turn, Report::Nothing, out);
    body.put("query", &query);
    body.put("filters", &json!({"family": "Solido", "tool": "SDE"}));
    body.put("inference_model", turn.model.as_ref().unwrap_or(&options.model));
    body.finish();
    Ok(Splice::NONE)
}

/// The answer is `content`; an event of a stream may have it in a choice.
fn read<'a>(json: &'a [u8], reading: &mut Reading<'a>) -> Result<(), Unreadable> {
    read_wanted(json, &Want { texts: &[b"content"], choices: true, ..Want::NOTHING }, reading)
}
