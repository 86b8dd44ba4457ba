//! Waiting for servers to be ready.

use super::http::{Answer, Ask};
use super::models::listed;
use super::{Failure, news, sleep_until};
use crate::commands::bodies;
use crate::config::{ProfileConfig, Url, Wait};
use crate::redact;
use crate::refusal::Refusal;
use crate::values::WaitMode;
use maser::export::printable;
use maser_datasets::{Conversation, Turn};
use maser_engine::clock::{self, Nanos, SECOND};
use maser_engine::plan::{Plan, Target};

/// What an attempt may take at least: a list of models; an answer, whose first one may have to warm up.
const LEAST: (Nanos, Nanos) = (5 * SECOND, 30 * SECOND);

/// What a look at a server told.
enum State {
    Ready,
    /// Why not.
    NotYet(String),
    /// Why waiting will not change it.
    Never(String),
}

/// By what a server is told to be ready.
#[derive(Clone, Copy)]
enum Look<'a> {
    /// It lists this model, or has no list and answers.
    Models(&'a str),
    /// It answers this request.
    Inference(&'a [u8]),
}

/// Waits for every server in turn, and there for every model, each for as long as was asked for.
///
/// The reference takes any status below 500 for an answer, and so a wrong key or a model that is not there for a ready
/// server. Here a request that is not let in (401, 403) ends the waiting, since more of it will not help; a model or path
/// that is not there (404) and a server that has no room (408, 409, 425, 429) are waited for; any other answer below 500
/// says that somebody is there who reads requests.
pub(super) fn wait(config: &ProfileConfig, plan: &Plan) -> Result<(), Failure> {
    let Some(wait) = &config.control.wait else { return Ok(()) };
    let models = config.models.names();
    let bodies: Vec<Vec<u8>> = match wait.mode {
        WaitMode::Models => Vec::new(),
        WaitMode::Inference | WaitMode::Both => {
            models.iter().map(|model| body(config, model)).collect::<Result<_, _>>()?
        }
    };
    for (url, target) in config.endpoint.urls.iter().zip(&plan.targets) {
        for (n, model) in models.iter().enumerate() {
            if wait.mode != WaitMode::Inference {
                wait_for(config, wait, (url, target), Look::Models(model))?;
            }
            if let Some(body) = bodies.get(n) {
                wait_for(config, wait, (url, target), Look::Inference(body))?;
            }
        }
    }
    Ok(())
}

/// A request for one token.
fn body(config: &ProfileConfig, model: &str) -> Result<Vec<u8>, Failure> {
    let mut turn = Turn::of_text("Lo".to_owned());
    turn.model = Some(model.to_owned());
    turn.max_tokens = Some(1);
    let conversation = Conversation {
        session_id: "ready".to_owned(),
        turns: vec![turn],
        context: maser_datasets::Context::default(),
        system: None,
        user_context: None,
        head_tokens: None,
    };
    let mut options = bodies::options(config);
    // What is added to the load's bodies may ask for long answers.
    (options.streaming, options.extra) = (false, serde_json::Map::new());
    let mut body = Vec::new();
    match config.endpoint.kind.body(&options, &conversation, 0, &mut body) {
        Ok(_) => Ok(body),
        Err(_) => Err(Refusal::new(format!(
            "--wait-for-model-timeout: {} cannot be asked with a short text to see whether it answers; add \
             --wait-for-model-mode models",
            config.endpoint.kind.name()
        ))
        .into()),
    }
}

fn wait_for(
    config: &ProfileConfig,
    wait: &Wait,
    (url, target): (&Url, &Target),
    look: Look<'_>,
) -> Result<(), Failure> {
    let name = redact::url(url.as_str());
    let began = clock::now();
    let deadline = began.after(wait.timeout);
    let seconds = |ns: Nanos| ns as f64 / SECOND as f64;
    let mut said = String::new();
    loop {
        let looked = clock::now();
        // The last look, at the end of the time, is given a moment.
        let left = deadline.since(looked).max(SECOND);
        let why = match look.take(config, wait, (url, target), left) {
            State::Ready if said.is_empty() => return Ok(()),
            State::Ready => {
                news(config, format_args!("{name} is ready after {:.1} s", seconds(looked.since(began))));
                return Ok(());
            }
            State::NotYet(why) => why,
            State::Never(why) => return Err(Failure::Failed(format!("--wait-for-model-timeout: {name}: {why}"))),
        };
        if looked >= deadline || clock::now() >= deadline {
            let after = seconds(wait.timeout);
            return Err(Failure::Failed(format!(
                "--wait-for-model-timeout {after}: {name} is not ready after {after} s: {why}"
            )));
        }
        if said != why {
            let up_to = seconds(wait.timeout);
            news(config, format_args!("waiting up to {up_to} s for {name} to be ready: {why}"));
            said = why;
        }
        sleep_until(looked.after(wait.interval).min(deadline));
    }
}

impl Look<'_> {
    fn take(self, config: &ProfileConfig, wait: &Wait, server: (&Url, &Target), left: Nanos) -> State {
        match self {
            Self::Models(model) => models(config, server, model, wait.interval.max(LEAST.0).min(left)),
            Self::Inference(body) => inference(config, server.1, body, wait.interval.max(LEAST.1).min(left)),
        }
    }
}

/// A request that nobody may make is not let in tomorrow either.
fn locked_out(answer: &Answer, method: &str, path: &str) -> Option<State> {
    let status = answer.status;
    let why = || format!("{method} {} was answered with {}; is the key right?", redact::url(path), answer.said());
    (status == 401 || status == 403).then(|| State::Never(why()))
}

fn models(config: &ProfileConfig, (url, target): (&Url, &Target), model: &str, timeout: Nanos) -> State {
    let path = config.endpoint.beside(url, "/v1/models", config.models.first());
    let get = |path: &str| Ask { method: "GET", path, body: None, timeout }.send(target, &|| false);
    let answer = match get(&path) {
        Ok(answer) => answer,
        Err(why) => return State::NotYet(why),
    };
    if let Some(state) = locked_out(&answer, "GET", &path) {
        return state;
    }
    match answer.status {
        200 => lists(&answer.body, model),
        // There are servers without a list.
        404 => match get(if url.path.is_empty() { "/" } else { &url.path }) {
            Ok(answer) if answer.is_success() => State::Ready,
            Ok(_) => State::NotYet(format!("GET {} was answered with {}", redact::url(&path), answer.said())),
            Err(why) => State::NotYet(why),
        },
        _ => State::NotYet(format!("GET {} was answered with {}", redact::url(&path), answer.said())),
    }
}

/// Whether a list of models has this one.
fn lists(body: &[u8], model: &str) -> State {
    match listed(body) {
        None => State::NotYet("its answer is not a list of models".to_owned()),
        Some(ids) if ids.iter().any(|id| id == model) => State::Ready,
        Some(ids) => State::NotYet(format!("it has no model {model}, it lists: {}", printable(&ids.join(", ")))),
    }
}

fn inference(config: &ProfileConfig, target: &Target, body: &[u8], timeout: Nanos) -> State {
    let content_type = config.endpoint.content_type();
    let ask = Ask { method: "POST", path: &target.path, body: Some((&content_type, body)), timeout };
    let answer = match ask.send(target, &|| false) {
        Ok(answer) => answer,
        Err(why) => return State::NotYet(why),
    };
    if let Some(state) = locked_out(&answer, "POST", &target.path) {
        return state;
    }
    match answer.status {
        404 | 408 | 409 | 425 | 429 | 500.. => {
            State::NotYet(format!("POST {} was answered with {}", redact::url(&target.path), answer.said()))
        }
        _ => State::Ready,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_lists_moves_no_cursor() {
        let list = "{\"data\": [{\"id\": \"a\\u001b[2J\\r\\u009b31m\\u202eb\"}]}";
        match lists(list.as_bytes(), "m") {
            State::NotYet(why) => assert_eq!(why, "it has no model m, it lists: a [2J  31m b"),
            _ => panic!("it has no such model"),
        }
    }
}
