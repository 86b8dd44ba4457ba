//! What servers are told: to forget their caches, to start and to stop profiling themselves.

use super::http::{Answer, Ask};
use super::{Failure, news, sleep_until};
use crate::config::{ProfileConfig, Profiler};
use crate::say;
use crate::values::LogLevel;
use maser_engine::clock::{self, Nanos, SECOND};
use maser_engine::plan::{Plan, Target};

/// How long a cache that cannot be reset now is asked again.
const PATIENCE: Nanos = 60 * SECOND;

/// The first and the longest pause between such attempts; each is twice the one before.
const PAUSES: (Nanos, Nanos) = (SECOND, 8 * SECOND);

/// A server, whatever path the base URL has.
#[derive(Debug, Clone)]
struct Origin {
    name: String,
    target: Target,
}

/// Every server once, though several base URLs may be on it.
fn origins(config: &ProfileConfig, plan: &Plan) -> Vec<Origin> {
    let mut all: Vec<Origin> = Vec::new();
    for (url, target) in config.endpoint.urls.iter().zip(&plan.targets) {
        let name = format!("http://{}", url.host_header().to_ascii_lowercase());
        if !all.iter().any(|known| known.name == name) {
            all.push(Origin { name, target: target.clone() });
        }
    }
    all
}

impl Origin {
    /// An empty POST.
    fn post(&self, path: &str, timeout: Nanos, interrupted: &dyn Fn() -> bool) -> Result<Answer, String> {
        Ask { method: "POST", path, body: None, timeout }.send(&self.target, interrupted)
    }

    /// An empty POST; anything but success is a sentence.
    fn tell(&self, path: &str, timeout: Nanos, interrupted: &dyn Fn() -> bool) -> Result<(), String> {
        let why = match self.post(path, timeout, interrupted) {
            Ok(answer) if answer.is_success() => return Ok(()),
            Ok(answer) => format!("was answered with {}", answer.said()),
            Err(why) => format!("failed: {why}"),
        };
        Err(format!("POST {}{path} {why}", self.name))
    }
}

/// Has every server forget its cache. One that cannot be reached, or is busy (409, 423, 429, 503), is asked again for up to
/// a minute.
pub(super) fn reset_caches(config: &ProfileConfig, plan: &Plan) -> Result<(), Failure> {
    let Some(reset) = &config.control.reset else { return Ok(()) };
    for origin in origins(config, plan) {
        let give_up = clock::now().after(PATIENCE);
        let mut pause = PAUSES.0;
        loop {
            let why = match origin.post(&reset.path, reset.timeout, &|| false) {
                Ok(answer) if answer.is_success() => break,
                Ok(answer) => {
                    let why = format!("POST {}{} was answered with {}", origin.name, reset.path, answer.said());
                    if ![409, 423, 429, 503].contains(&answer.status) {
                        return Err(Failure::Failed(format!("--reset-kv-cache: {why}")));
                    }
                    why
                }
                Err(why) => format!("POST {}{} failed: {why}", origin.name, reset.path),
            };
            let next = clock::now().after(pause);
            if next > give_up {
                let after = PATIENCE / SECOND;
                return Err(Failure::Failed(format!("--reset-kv-cache: {why}, and so it did for {after} s")));
            }
            news(config, format_args!("--reset-kv-cache: {why}; trying again in {} s", pause / SECOND));
            sleep_until(next);
            pause = (pause * 2).min(PAUSES.1);
        }
        news(config, format_args!("{} has reset its cache", origin.name));
    }
    Ok(())
}

/// The servers' profilers that have been started.
#[derive(Debug)]
pub(in crate::commands) struct Profilers<'a> {
    config: &'a ProfileConfig,
    with: &'a Profiler,
    started: Vec<Origin>,
}

impl<'a> Profilers<'a> {
    /// Starts them, if that was asked for. If one cannot be, or an interrupt comes, those that could are stopped again.
    pub(in crate::commands) fn start(
        config: &'a ProfileConfig,
        plan: &Plan,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Option<Self>, Failure> {
        let Some(with) = &config.control.profiler else { return Ok(None) };
        let mut profilers = Self { config, with, started: Vec::new() };
        for origin in origins(config, plan) {
            if let Err(why) = origin.tell(&with.start, with.timeout, interrupted) {
                profilers.stop();
                return Err(Failure::Failed(format!("--server-profiler: {why}")));
            }
            news(config, format_args!("{} profiles itself", origin.name));
            profilers.started.push(origin);
        }
        Ok(Some(profilers))
    }

    /// Stops them, the last one first. What cannot be stopped is said and changes nothing else.
    pub(in crate::commands) fn stop(self) {
        for origin in self.started.iter().rev() {
            match origin.tell(&self.with.stop, self.with.timeout, &|| false) {
                Ok(()) => news(self.config, format_args!("{} has stopped profiling itself", origin.name)),
                Err(why) if self.config.log_level <= LogLevel::Warning => {
                    say(std::io::stderr(), format_args!("note: --server-profiler: {why}; it may still be profiling"));
                }
                Err(_) => {}
            }
        }
    }
}
