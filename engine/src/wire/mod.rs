//! The byte layer: HTTP/1.1, server-sent events, and a JSON scanner, as state machines without sockets and without a clock.
//!
//! Every machine here gives the same results for any cutting of the same bytes, never panics on any bytes, and allocates
//! nothing once its buffers have grown to the size its traffic needs.

pub mod http1;
pub mod json;
pub mod sse;
