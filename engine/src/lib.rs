//! The engine of maser: how load is issued, carried and recorded.
//!
//! Layers point one way, from the bottom up:
//! `clock ring → credit record tally schedule wire → endpoint log net → plan → report → timing | executor | collector →
//! run | sim`. The three kinds of thread (`timing`, `executor`, `collector`) never name each other.

pub mod clock;
pub mod endpoint;
pub mod log;
pub mod metric;
pub mod record;
pub mod report;
