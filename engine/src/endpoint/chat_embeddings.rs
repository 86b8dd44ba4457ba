//! Embeddings of chat messages, as vLLM has them: the body of a chat request to the path of embeddings.

use super::images::Images;
use super::{Facts, chat, embeddings};

pub(super) const FACTS: Facts = Facts {
    name: "chat_embeddings",
    path: "/v1/embeddings",
    media: [true, false, false],
    images: Images::InMessages("image_url"),
    title: "Embeddings Metrics",
    holds_conversations: true,
    body: chat::body,
    read: embeddings::read,
    ..Facts::PLAIN
};
