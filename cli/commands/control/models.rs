//! Which models a server has.

use super::http::Ask;
use crate::commands::prepare;
use crate::config::{Endpoint, ProfileConfig};
use crate::redact;
use crate::refusal::Refusal;
use maser::export::printable;
use maser_engine::clock::SECOND;
use serde_json::Value;

/// How many models a refusal names.
const NAMED: usize = 10;

/// The names in a server's list of models, as a terminal may show them; `None` if `body` is not one.
pub(super) fn listed(body: &[u8]) -> Option<Vec<String>> {
    let list: Value = serde_json::from_slice(body).ok()?;
    let ids = list["data"].as_array()?.iter().filter_map(|entry| entry["id"].as_str());
    Some(ids.map(printable).collect())
}

/// The one model that the first server lists, and a remark on it, for a run that names none. `config` is that run's, under a
/// name that does not matter.
///
/// # Errors
/// There is not exactly one.
pub(in crate::commands) fn only(config: &ProfileConfig) -> Result<(String, String), Refusal> {
    let endpoint: &Endpoint = &config.endpoint;
    let url = &endpoint.urls[0];
    let shown = redact::url(url.as_str());
    let required = |why: String| Refusal::new(format!("--model is required, add -m NAME; {why}"));
    let target = prepare::target(config, url).map_err(|failure| required(failure.to_string()))?;
    let path = endpoint.beside(url, "/v1/models", "");
    let ask = Ask { method: "GET", path: &path, body: None, timeout: 5 * SECOND };
    let answer = ask
        .send(&target, &|| false)
        .map_err(|why| required(format!("{shown} could not be asked for its models: {why}")))?;
    let listed = listed(&answer.body).filter(|_| answer.is_success());
    let listed =
        listed.ok_or_else(|| required(format!("{shown} has no list of models ({} from GET {path})", answer.said())))?;
    match listed.as_slice() {
        [] => Err(required(format!("{shown} lists no models"))),
        [one] => Ok((one.clone(), format!("--model was not given: {one:?} is the only model that {shown} lists"))),
        several => {
            let named = several.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
            let more = if several.len() > NAMED { ", and others" } else { "" };
            Err(required(format!("{shown} lists {named}{more}")))
        }
    }
}
