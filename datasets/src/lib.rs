//! Files and generators that become the requests of a run.
//!
//! This crate knows nothing of time, sockets or cores: [`Spec::build`] streams [`Conversation`]s into a sink, one at a
//! time, so that a large dataset never has to stand in memory as text. Every stream of random numbers has a name and a
//! seed of its own ([`seed::Stream`]), so the same options give the same data on any machine.

mod conversation;
pub mod error;
pub mod file;
mod formats;
mod generate;
mod guard;
pub mod lengths;
pub mod media;
mod parallel;
pub mod public;
mod read;
pub mod seed;
mod spec;
pub mod tokens;
mod tools;

pub use conversation::{Context, Conversation, Media, Sink, Summary, Turn};
pub use error::Error;
pub use formats::{baseten, compiled};
pub use generate::{rankings, sequence, synthetic, texts};
pub use media::attachment::image_data_url;
pub use read::identity;
pub use spec::Spec;
pub use tokens::Tokenizer;
pub use tools::{analysis, compile::compile, rewrite, stats};
