//! Requests that take several exchanges: what an answer asks for before its request is done.

use super::Unfit;
use crate::clock::{MILLI, Nanos};

/// How jobs that a server works on are followed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FollowUps {
    /// From an answer that says that a job is at work to the next question, nanoseconds.
    pub every: Nanos,
    /// Whether what a finished job has made is fetched.
    pub fetch: bool,
}

impl Default for FollowUps {
    /// The reference's: ten questions a second, and nothing is fetched.
    fn default() -> Self {
        Self { every: 100 * MILLI, fetch: false }
    }
}

/// A GET that a request goes on with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Follow {
    /// Pause before it, nanoseconds.
    pub after: Nanos,
    /// Beginning with `/`, it stands for the whole path; with `http`, for the whole address; otherwise it goes below the
    /// path of the request.
    pub path: String,
    /// The answer is a file: its bytes are counted and not kept.
    pub is_file: bool,
}

/// Given a complete answer, what is next; `None` if the request is done, well or badly.
pub(super) type Next = fn(&[u8], &FollowUps) -> Result<Option<Follow>, Unfit>;

/// No answer asks for anything.
pub(super) fn nothing(_: &[u8], _: &FollowUps) -> Result<Option<Follow>, Unfit> {
    Ok(None)
}
