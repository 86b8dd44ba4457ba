//! What is asked of the servers beside the load: whether they are ready, to forget their caches, to profile themselves.

mod hooks;
mod http;
mod models;
mod ready;

pub(super) use hooks::Profilers;
pub(super) use models::only as only_model;

use super::Failure;
use crate::config::ProfileConfig;
use crate::say;
use crate::values::LogLevel;
use maser_engine::clock::{self, Instant};
use maser_engine::plan::Plan;

/// All that is asked before the load: first whether the servers are ready, for only then they can be told anything.
pub(super) fn before_the_load(config: &ProfileConfig, plan: &Plan) -> Result<(), Failure> {
    ready::wait(config, plan)?;
    hooks::reset_caches(config, plan)
}

/// Says how it goes on standard error.
fn news(config: &ProfileConfig, what: std::fmt::Arguments<'_>) {
    if config.log_level <= LogLevel::Info {
        say(std::io::stderr(), format_args!("maser: {what}"));
    }
}

/// Sleeps until then, whatever signals come.
fn sleep_until(at: Instant) {
    while clock::now() < at {
        clock::sleep_until(at);
    }
}
