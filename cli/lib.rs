//! The parts of the command line that tests reach without starting a process.

pub mod export;
