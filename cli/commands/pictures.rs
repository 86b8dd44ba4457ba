//! Pictures that rows name by their URL, for the endpoint whose servers do not fetch any: each is fetched once, before the
//! load, and sent encoded.

use super::Failure;
use crate::config::{Input, ProfileConfig};
use crate::redact;
use crate::refusal::Refusal;
use crate::values::EndpointKind;
use maser_datasets::tokens::Tokenizer;
use maser_datasets::{Conversation, Spec, image_data_url};
use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;
use std::time::Duration;
use ureq::Agent;

/// Pictures that are on their way at a time, what each may take in all, and the most bytes it may have. The first two are
/// the reference's.
const AT_A_TIME: usize = 10;
const TIMEOUT: Duration = Duration::from_secs(60);
const MOST: u64 = 64 << 20;

/// Encoded pictures by their URLs.
#[derive(Debug, Default)]
pub(super) struct Pictures(HashMap<String, String>);

impl Pictures {
    /// All those of the input, or none where the endpoint takes URLs.
    ///
    /// # Errors
    /// The input cannot be read, or one cannot be had, or is no picture.
    pub(super) fn of(config: &ProfileConfig, spec: &Spec, tokenizer: Option<&Tokenizer>) -> Result<Self, Failure> {
        if config.endpoint.kind != EndpointKind::ImageRetrieval || !matches!(config.input, Input::File { .. }) {
            return Ok(Self::default());
        }
        let mut urls = BTreeSet::new();
        let seen = spec.build(tokenizer, &mut |mut conversation| {
            urls.extend(remote(&mut conversation).map(|url| url.clone()));
            Ok(())
        });
        seen.map_err(|e| Refusal::new(e.0))?;
        fetched(&urls).map(Self).map_err(Failure::Failed)
    }

    /// Puts them in the place of their URLs.
    pub(super) fn put(&self, conversation: &mut Conversation) {
        if self.0.is_empty() {
            return;
        }
        for url in remote(conversation) {
            if let Some(encoded) = self.0.get(url) {
                url.clone_from(encoded);
            }
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> u64 {
        self.0.len() as u64
    }
}

/// The images of a conversation that are elsewhere.
fn remote(conversation: &mut Conversation) -> impl Iterator<Item = &mut String> {
    let images = conversation.turns.iter_mut().flat_map(|turn| &mut turn.images);
    images.flat_map(|image| &mut image.contents).filter(|content| is_remote(content))
}

fn is_remote(content: &str) -> bool {
    let scheme = content.split_once("://").map_or("", |(scheme, _)| scheme);
    ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known))
}

/// Fetches all; the first failure ends it.
fn fetched(urls: &BTreeSet<String>) -> Result<HashMap<String, String>, String> {
    let agent: Agent = Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .user_agent(concat!("maser/", env!("CARGO_PKG_VERSION")))
        .build()
        .into();
    let left = Mutex::new(urls.iter());
    let next = || left.lock().ok().and_then(|mut left| left.next());
    let work = || -> Result<Vec<(String, String)>, String> {
        let mut done = Vec::new();
        while let Some(url) = next() {
            let fail = |why: String| {
                // Whoever else fetches need not begin another.
                while next().is_some() {}
                format!("image {}: {why}", redact::url(url))
            };
            let bytes = fetch(&agent, url).map_err(|e| fail(format!("cannot be fetched: {e}")))?;
            let encoded = image_data_url(&bytes).map_err(|why| fail(why.to_owned()))?;
            done.push((url.clone(), encoded));
        }
        Ok(done)
    };
    let all: Result<Vec<Vec<(String, String)>>, String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_A_TIME.min(urls.len())).map(|_| scope.spawn(work)).collect();
        let ended = threads.into_iter().map(|thread| thread.join());
        ended.map(|end| end.unwrap_or_else(|_| Err("images cannot be fetched: a thread died".to_owned()))).collect()
    });
    Ok(all?.into_iter().flatten().collect())
}

fn fetch(agent: &Agent, url: &str) -> Result<Vec<u8>, ureq::Error> {
    agent.get(url).call()?.body_mut().with_config().limit(MOST).read_to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_elsewhere_is_remote() {
        for url in ["http://h/a.png", "HTTPS://h/a?b=c"] {
            assert!(is_remote(url), "{url}");
        }
        for content in ["", "data:image/png;base64,AA", "/a.png", "s3://b/a.png", "file:///a.png", "http.png"] {
            assert!(!is_remote(content), "{content}");
        }
    }
}
