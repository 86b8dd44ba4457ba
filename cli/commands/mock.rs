//! The server of `maser profile --mock`: the built-in one, on a thread of this process.

use super::{Failure, serve};
use crate::config::ServeConfig;
use maser_engine::credit::StopSignal;
use maser_engine::run::{Topology, available_cores};
use maser_engine::serve::Counts;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

/// A server under way.
#[derive(Debug)]
pub(super) struct Mock {
    port: u16,
    stop: Arc<StopSignal>,
    thread: JoinHandle<io::Result<Counts>>,
}

impl Mock {
    /// Starts it, on a core that the run's own threads leave free, if there is one.
    pub(super) fn start(config: &ServeConfig, topology: &Topology) -> Result<Self, Failure> {
        let io = super::io(config.io)?;
        let server = serve::bind(config).map_err(|failure| match failure {
            Failure::Failed(why) => Failure::Failed(format!("--mock: {why}")),
            refused => refused,
        })?;
        let port = server.local_addr().port();
        let core = serve::core(&config.cores).or_else(|| {
            available_cores().into_iter().rev().find(|core| topology.threads.iter().all(|t| t.core != *core))
        });
        let stop = Arc::new(StopSignal::default());
        let stopped = stop.clone();
        let thread = std::thread::Builder::new()
            .name("maser-serve".into())
            .spawn(move || server.run(io, false, core, stopped))
            .map_err(|e| Failure::Failed(format!("--mock: the server could not start: {e}")))?;
        Ok(Self { port, stop, thread })
    }

    /// The port it listens on.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Stops it and waits for its log to be written.
    pub(super) fn stop(self) -> Result<(), Failure> {
        self.stop.raise();
        match self.thread.join() {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(e)) => Err(Failure::Failed(format!("--mock: the server failed: {e}"))),
            // A panic is a bug; it has been reported on stderr.
            Err(_) => std::process::exit(70),
        }
    }
}
