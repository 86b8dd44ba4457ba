//! What the server is asked before the load and beside it.

use crate::values::{WaitMode, choice, origin_path, seconds, span};
use clap::Args;
use maser_engine::clock::Nanos;

/// What the server is asked before the load and beside it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Endpoint")]
pub(crate) struct Control {
    /// Seconds to wait for each server to be ready before anything is sent; 0 does not wait [default: 0]
    #[arg(long = "wait-for-model-timeout", value_name = "SECONDS", value_parser = span)]
    pub(crate) wait_timeout: Option<Nanos>,

    /// How it is told: models (it lists the model), inference (it answers a request for one token), both [default:
    /// inference]
    #[arg(long = "wait-for-model-mode", value_name = "MODE", value_parser = choice::<WaitMode>)]
    pub(crate) wait_mode: Option<WaitMode>,

    /// Seconds from one look to the next [default: 5]
    #[arg(long = "wait-for-model-interval", value_name = "SECONDS", value_parser = seconds)]
    pub(crate) wait_interval: Option<Nanos>,

    /// Have each server forget its prefix cache before anything is sent
    #[arg(long)]
    pub(crate) reset_kv_cache: bool,

    /// Seconds that may take; implies --reset-kv-cache [default: 30]
    #[arg(long = "reset-kv-cache-timeout-seconds", value_name = "SECONDS", value_parser = seconds)]
    pub(crate) reset_timeout: Option<Nanos>,

    /// Path on the server that resets the cache; implies --reset-kv-cache [default: /reset_prefix_cache]
    #[arg(long = "reset-kv-cache-path", value_name = "PATH", value_parser = origin_path)]
    pub(crate) reset_path: Option<String>,

    /// Have each server profile itself during the measurement, and not during warmup
    #[arg(long)]
    pub(crate) server_profiler: bool,

    /// Seconds its start and its stop may take; implies --server-profiler [default: 30]
    #[arg(long = "server-profiler-timeout-seconds", value_name = "SECONDS", value_parser = seconds)]
    pub(crate) profiler_timeout: Option<Nanos>,

    /// Path on the server that starts the profiler; implies --server-profiler [default: /start_profile]
    #[arg(long = "server-profiler-start-path", value_name = "PATH", value_parser = origin_path)]
    pub(crate) profiler_start: Option<String>,

    /// Path on the server that stops the profiler; implies --server-profiler [default: /stop_profile]
    #[arg(long = "server-profiler-stop-path", value_name = "PATH", value_parser = origin_path)]
    pub(crate) profiler_stop: Option<String>,
}
