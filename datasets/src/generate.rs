//! What is made rather than read: texts of an exact length, conversations, lengths, rankings.

pub(crate) mod blocks;
pub(crate) mod corpus;
pub mod rankings;
pub mod sequence;
pub mod synthetic;
pub mod texts;
