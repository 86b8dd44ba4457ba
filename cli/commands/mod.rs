//! What the commands do.

mod bodies;
mod body_cache;
mod cache_bust;
mod control;
pub(crate) mod dataset;
pub(crate) mod metrics;
mod mock;
mod pictures;
mod place;
mod prepare;
pub(crate) mod profile;
pub(crate) mod report;
pub(crate) mod serve;
mod signals;

use crate::exit::Exit;
use crate::refusal::Refusal;
use crate::values::Io;
use maser_engine::net::direct;
use maser_engine::net::probe::{self, Driver};
use std::fmt;

/// Why a command did not do what it was asked to: a sentence and an exit code.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line, or a file it names, cannot be used. Nothing was sent.
    Refused(Refusal),
    /// The machine or the server did not play along.
    Failed(String),
    /// A part of the program itself failed.
    Broken(String),
}

impl Failure {
    /// The exit code.
    pub(crate) fn exit_code(&self) -> u8 {
        let exit = match self {
            Self::Refused(_) => Exit::Refused,
            Self::Failed(_) => Exit::Failed,
            Self::Broken(_) => Exit::Broken,
        };
        exit.code()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Failed(sentence) | Self::Broken(sentence) => f.write_str(sentence),
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// What carries the sockets of a load or a server, by what was asked for and what the host allows.
fn io(io: Io) -> Result<probe::Io, Refusal> {
    match io {
        Io::Auto => Ok(probe::best()),
        Io::Epoll => Ok(probe::Io::Runtime(Driver::Epoll)),
        Io::Direct => match direct::refusal() {
            None => Ok(probe::Io::Direct),
            Some(why) => Err(Refusal::new(format!("--io direct: {why}; --io auto takes what there is"))),
        },
        Io::Uring => match (probe::best_driver(), probe::uring_refusal()) {
            (driver @ Driver::Uring(_), _) => Ok(probe::Io::Runtime(driver)),
            (_, why) => Err(Refusal::new(format!("--io uring: {}", why.unwrap_or_default()))),
        },
    }
}
