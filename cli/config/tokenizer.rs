//! What tokens are made and counted with.

use crate::args;
use crate::refusal::Refusal;
use crate::values::EndpointKind;
use maser_datasets::tokens::{Found, HubCache, find, not_found};
use std::path::Path;

/// The tokenizer of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tokenizer {
    /// Where it is.
    pub(crate) found: Found,
    /// Prompts are made and counted as its chat template writes them.
    pub(crate) chat_template: bool,
    /// The typed revision, for the files.
    pub(crate) revision: Option<String>,
}

/// What is said of `--apply-chat-template` where it changes nothing.
pub(crate) const NO_CHAT_TEMPLATE: &str = "--apply-chat-template has no effect: the tokenizer has no chat template";

/// Model names that stand for no model in particular.
const PLACEHOLDERS: [&str; 7] = ["test", "mock", "fake", "dummy", "example", "sample", "placeholder"];

/// Parts of such names.
const PLACEHOLDER_PARTS: [&str; 9] =
    ["mock-", "-mock", "fake-", "-fake", "test-model", "your-model", "my-model", "model-name", "model-id"];

fn is_placeholder(model: &str) -> bool {
    if model.contains(['/', '\\']) || model.starts_with(['.', '~']) {
        return false;
    }
    let name = model.to_lowercase().replace('_', "-");
    PLACEHOLDERS.contains(&name.as_str()) || PLACEHOLDER_PARTS.iter().any(|p| name.contains(p))
}

impl Tokenizer {
    /// Where the tokenizer is that `--tokenizer` names.
    pub(crate) fn named(name: &str, revision: &str, cache: Option<&HubCache>) -> Result<Found, Refusal> {
        find(name, revision, cache).ok_or_else(|| Refusal::new(not_found(name, revision, cache).0))
    }

    /// The name that files show, by which it can be opened again.
    pub(crate) fn name(&self) -> String {
        match &self.found {
            Found::BuiltIn("o200k_base") => "builtin".into(),
            Found::BuiltIn(name) => (*name).into(),
            Found::File(path) => path.display().to_string(),
        }
    }

    /// Resolves `--tokenizer`, or the first model's own if it is here.
    pub(super) fn resolve(
        args: &args::Profile,
        models: &[String],
        kind: EndpointKind,
        notes: &mut Vec<String>,
    ) -> Result<Self, Refusal> {
        let typed = &args.tokenizer;
        textless(typed, kind)?;
        if typed.trust_remote_code {
            notes.push("--tokenizer-trust-remote-code has no effect: maser runs no code of a tokenizer's".into());
        }
        let revision = typed.revision.as_deref().unwrap_or("main");
        let cache = HubCache::of_user();
        let found = match typed.name.as_deref() {
            Some(name) => Self::named(name, revision, cache.as_ref())?,
            None => of_models(args, models, revision, cache.as_ref(), notes),
        };
        if typed.apply_chat_template && matches!(found, Found::BuiltIn(_)) {
            notes.push(NO_CHAT_TEMPLATE.into());
        }
        let chats = kind.holds_conversations();
        if typed.apply_chat_template && !chats {
            notes.push(format!("--apply-chat-template has no effect: {} sends no messages", kind.name()));
        }
        Ok(Self { found, chat_template: typed.apply_chat_template && chats, revision: typed.revision.clone() })
    }
}

/// Refuses the options where no token is made or counted.
fn textless(typed: &args::Tokenizer, kind: EndpointKind) -> Result<(), Refusal> {
    if kind.tokenizes_input() || kind.produces_tokens() {
        return Ok(());
    }
    for (flag, given) in [
        ("--tokenizer", typed.name.is_some()),
        ("--tokenizer-revision", typed.revision.is_some()),
        ("--tokenizer-trust-remote-code", typed.trust_remote_code),
        ("--apply-chat-template", typed.apply_chat_template),
    ] {
        if given {
            return Err(Refusal::new(format!("{flag}: {} neither takes nor gives tokens", kind.name())));
        }
    }
    Ok(())
}

/// The first model's own tokenizer: a directory, or in the hub's cache. Else the built-in one, and why.
fn of_models(
    args: &args::Profile,
    models: &[String],
    revision: &str,
    cache: Option<&HubCache>,
    notes: &mut Vec<String>,
) -> Found {
    let builtin = Found::BuiltIn("o200k_base");
    let Some((model, others)) = models.split_first() else { return builtin };
    // A file of that name is hardly a tokenizer.
    if Path::new(model).is_file() {
        return builtin;
    }
    if let Some(found) = find(model, revision, cache).filter(|_| !is_placeholder(model)) {
        if !others.is_empty() {
            let why = "the tokens of all models are counted with the tokenizer of";
            notes.push(format!("{why} {model}; --tokenizer takes another"));
        }
        return found;
    }
    if args.endpoint.use_server_token_count || args.machine.mock.is_some() {
        return builtin;
    }
    notes.push(match is_placeholder(model) {
        true => {
            format!("tokens are counted with the built-in tokenizer: {model} is the name of no model in particular")
        }
        false => format!(
            "tokens are counted with the built-in tokenizer, not with that of {model}: maser downloads nothing; \
             --tokenizer takes the path of a tokenizer.json"
        ),
    });
    builtin
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholder_models() {
        for name in ["mock", "Test", "mock_llm", "my_model", "x-fake", "your-model-id"] {
            assert!(is_placeholder(name), "{name}");
        }
        for name in ["gpt-oss", "org/mock", "./mock", "latest", "mocking"] {
            assert!(!is_placeholder(name), "{name}");
        }
    }
}
