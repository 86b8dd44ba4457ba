//! Where a run's requests come from.

use crate::generate::synthetic;
use crate::tokens::body_text;
use crate::{Error, Sink, Summary, Tokenizer, file};

/// Where a run's requests come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Spec {
    /// Generated prompts.
    Synthetic(Box<synthetic::Options>),
    /// A file.
    File(Box<file::Options>),
    /// `--system-prompt`: the conversations of another kind, with a text before each system prompt of their own.
    WithSystem {
        /// The text, sent as it is; an empty line follows it where the conversation has a system prompt already.
        text: String,
        /// Where the conversations come from.
        of: Box<Spec>,
    },
}

impl Spec {
    /// Streams the conversations into `sink`, in order. With a tokenizer every turn's `input_tokens` is filled: counted
    /// for given texts, messages and payloads, exactly the length asked for where prompts are made.
    ///
    /// # Errors
    /// A sentence naming the flag, or file, line and field; or whatever `sink` returned. Conversations that went into
    /// the sink before stay there.
    pub fn build(&self, tokenizer: Option<&Tokenizer>, sink: Sink<'_>) -> Result<Summary, Error> {
        match self {
            Self::Synthetic(options) => options.build(tokenizer, sink),
            Self::File(options) => options.build(tokenizer, &mut |mut conversation| {
                if let Some(tokenizer) = tokenizer {
                    body_text::count_head(&mut conversation, tokenizer);
                }
                sink(conversation)
            }),
            Self::WithSystem { text, of } => {
                // The same for all conversations that bring no head of their own.
                let alone = tokenizer.map(|tokenizer| tokenizer.count_head(Some(text), None) as u32);
                of.build(tokenizer, &mut |mut conversation| {
                    let own = conversation.system.take();
                    conversation.head_tokens = alone.filter(|_| own.is_none() && conversation.user_context.is_none());
                    conversation.system = Some(match own {
                        Some(own) => format!("{text}\n\n{own}"),
                        None => text.clone(),
                    });
                    if let Some(tokenizer) = tokenizer {
                        body_text::count_head(&mut conversation, tokenizer);
                    }
                    sink(conversation)
                })
            }
        }
    }
}
