//! The one kind of failure here: an input that cannot be used, said in a sentence.

use std::fmt;

/// Why a dataset could not be built. The text is complete: it names the flag, or the file, line and field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(pub String);

impl Error {
    /// An error about one row of a file. `line` counts from 1.
    pub fn row(file: &std::path::Path, line: usize, what: impl fmt::Display) -> Self {
        Self(format!("{}:{line}: {what}", file.display()))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}
