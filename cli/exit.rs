//! Exit codes. README has the same table.

/// What the program says to the one who started it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The benchmark ran and its files are there; single requests may have failed. As the reference: also after one
    /// interrupt (Ctrl-C).
    Done = 0,
    /// It did not come to results that can be used: no request succeeded, the server was not there, a file could not be
    /// written, a threshold stopped the run.
    Failed = 1,
    /// The command line, the environment or an input file cannot be used; nothing was sent.
    Refused = 2,
    /// A part of the program itself failed (`EX_SOFTWARE`); the files have what was recorded before.
    Broken = 70,
    /// A second interrupt cut what was in flight.
    Interrupted = 130,
    /// SIGTERM ended the run early. Its files are there, but nobody shall take it for a whole one.
    Terminated = 143,
}

impl Exit {
    /// The code.
    pub(crate) fn code(self) -> u8 {
        self as u8
    }
}
