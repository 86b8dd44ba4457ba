//! The engine of maser: how load is issued, carried and recorded.
//!
//! Layers point one way, from the bottom up:
//! `clock ring → credit record log tally schedule wire → endpoint net → plan → metric report → timing | executor |
//! collector → run | sim`. The three kinds of thread (`timing`, `executor`, `collector`) never name each other.

pub mod clock;
pub mod collector;
pub mod credit;
pub mod endpoint;
pub mod executor;
pub mod log;
pub mod metric;
pub mod net;
pub mod plan;
pub mod record;
pub mod report;
pub mod ring;
pub mod run;
pub mod schedule;
pub mod serve;
pub mod sim;
pub mod timing;
pub mod wire;
