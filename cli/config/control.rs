//! What the servers are asked before the load and beside it.

use super::Endpoint;
use crate::args;
use crate::refusal::Refusal;
use crate::values::{EndpointKind, WaitMode};
use maser_engine::clock::{Nanos, SECOND};

/// From one look at a server to the next.
const INTERVAL: Nanos = 5 * SECOND;

/// What a server may take to do what it is told.
const TIMEOUT: Nanos = 30 * SECOND;

/// What the servers are asked; none of it is asked unless it was given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Control {
    /// Whether they are ready.
    pub(crate) wait: Option<Wait>,
    /// To forget their caches.
    pub(crate) reset: Option<Reset>,
    /// To profile themselves.
    pub(crate) profiler: Option<Profiler>,
}

/// How long a server is waited for, and how it is told that it is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wait {
    /// How long in all, for each server.
    pub(crate) timeout: Nanos,
    /// By what.
    pub(crate) mode: WaitMode,
    /// From one look to the next.
    pub(crate) interval: Nanos,
}

/// How a cache is reset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reset {
    /// What an attempt may take.
    pub(crate) timeout: Nanos,
    /// On the server, whatever the base URL's path.
    pub(crate) path: String,
}

/// How a server's profiler is turned on and off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Profiler {
    /// What each may take.
    pub(crate) timeout: Nanos,
    /// On the server, whatever the base URL's path.
    pub(crate) start: String,
    /// Likewise.
    pub(crate) stop: String,
}

impl Control {
    /// Resolves the options. An option of a group turns the group on, as in the reference.
    pub(super) fn resolve(
        typed: &args::Control,
        endpoint: &Endpoint,
        notes: &mut Vec<String>,
    ) -> Result<Self, Refusal> {
        let path = |typed: &Option<String>, usual: &str| typed.clone().unwrap_or_else(|| usual.to_owned());
        let reset = typed.reset_kv_cache || typed.reset_timeout.is_some() || typed.reset_path.is_some();
        let profiler = typed.server_profiler
            || typed.profiler_timeout.is_some()
            || typed.profiler_start.is_some()
            || typed.profiler_stop.is_some();
        Ok(Self {
            wait: wait(typed, endpoint.kind, notes)?,
            reset: reset.then(|| Reset {
                timeout: typed.reset_timeout.unwrap_or(TIMEOUT),
                path: path(&typed.reset_path, "/reset_prefix_cache"),
            }),
            profiler: profiler.then(|| Profiler {
                timeout: typed.profiler_timeout.unwrap_or(TIMEOUT),
                start: path(&typed.profiler_start, "/start_profile"),
                stop: path(&typed.profiler_stop, "/stop_profile"),
            }),
        })
    }
}

fn wait(typed: &args::Control, kind: EndpointKind, notes: &mut Vec<String>) -> Result<Option<Wait>, Refusal> {
    let timeout = typed.wait_timeout.unwrap_or(0);
    let (mode, interval) = (typed.wait_mode.unwrap_or_default(), typed.wait_interval.unwrap_or(INTERVAL));
    if timeout == 0 {
        for (flag, given, usual) in [
            ("--wait-for-model-mode", typed.wait_mode.is_some(), mode == WaitMode::default()),
            ("--wait-for-model-interval", typed.wait_interval.is_some(), interval == INTERVAL),
        ] {
            match (given, usual) {
                (true, false) => {
                    return Err(Refusal::new(format!("{flag} needs --wait-for-model-timeout: how long to wait")));
                }
                (true, true) => notes.push(format!("{flag} has no effect without --wait-for-model-timeout")),
                (false, _) => {}
            }
        }
        return Ok(None);
    }
    let makes_media = [EndpointKind::VideoGeneration, EndpointKind::ImageGeneration, EndpointKind::ImageEdit];
    if mode != WaitMode::Models && makes_media.contains(&kind) {
        return Err(Refusal::new(format!(
            "--wait-for-model-timeout: to see whether it answers, {} would have to make a whole picture or video; add \
             --wait-for-model-mode models",
            kind.name()
        )));
    }
    Ok(Some(Wait { timeout, mode, interval }))
}
