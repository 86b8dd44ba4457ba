//! What is done with a dataset beside sending it: statistics, analysis, rewriting, compiling.

pub mod analysis;
pub(crate) mod compile;
pub mod rewrite;
pub mod stats;
