//! What is shown while a run goes on.

pub(crate) mod progress;
