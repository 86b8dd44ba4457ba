//! The engine of maser: how load is issued, carried and recorded.
//!
//! Layers point one way, from the bottom up:
//! `clock | ring → record → credit | log | schedule | wire → endpoint → net → plan → metric → report →
//! timing | executor | collector → serve → run | sim`. Those of one row never name each other: above all not the three
//! kinds of thread, `timing`, `executor` and `collector`. `tests/layers.rs` holds the sources to it.

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
pub mod said;
pub mod schedule;
pub mod serve;
pub mod sim;
pub mod timing;
pub mod wire;
