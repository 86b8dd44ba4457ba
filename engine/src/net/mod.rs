//! Bytes in and out: what an executor may ask of the network, and what the network tells it.
//!
//! [`Wire`] and [`Events`] are the whole of it. Three kinds of wire exist: sockets on monoio ([`socket`]), sockets on a ring of
//! our own ([`direct`]), and the simulator's. A read yields its bytes and the time they were had; where the kernel stamps
//! arrivals, its stamps will come through the same argument.

pub mod direct;
mod gather;
mod options;
mod ports;
pub mod probe;
pub mod pulse;
pub mod reactor;
pub mod socket;

use crate::clock::Instant;
use pulse::Pulse;
use std::cell::RefCell;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Weak;

/// A connection: a slot, and which of its successive tenants is meant. Events of an earlier tenant are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnId {
    /// Index into the owner's table.
    pub slot: u32,
    /// Counts the connections that have had this slot.
    pub epoch: u32,
}

/// When the kernel gives up a peer that no longer answers: one whose machine went away without a word. 0 leaves a part to
/// the kernel's own settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Liveness {
    /// Silence after which the kernel asks whether the peer is there, seconds.
    pub idle_s: u32,
    /// Between two such questions, seconds.
    pub interval_s: u32,
    /// Questions without an answer after which it gives up.
    pub count: u32,
    /// How long what was sent may stay unacknowledged, milliseconds.
    pub unacknowledged_ms: u32,
}

impl Default for Liveness {
    fn default() -> Self {
        Self { idle_s: 60, interval_s: 30, count: 1, unacknowledged_ms: 30_000 }
    }
}

/// When bytes were handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Just before the first byte was handed to the kernel.
    pub first: Instant,
    /// Just after the last was; `None` while some wait for room ([`Events::flushed`] will tell).
    pub last: Option<Instant>,
}

/// What may be asked of the network. No call blocks.
pub trait Wire {
    /// The time by this wire's clock.
    fn now(&self) -> Instant;
    /// Begins a connection; [`Events::connected`] tells how it went.
    fn connect(&mut self, conn: ConnId, to: SocketAddr);
    /// Hands bytes to the kernel at once. What finds no room is kept and sent as room comes.
    fn send(&mut self, conn: ConnId, head: &[u8], body: &[u8]) -> io::Result<Sent>;
    /// Hands bytes to the kernel soon, perhaps together with others: once what came with the event that is being told has
    /// been told. `None` if so, and [`Events::sent`] will say when; otherwise as [`send`](Self::send).
    fn send_soon(&mut self, conn: ConnId, head: &[u8], body: &[u8]) -> io::Result<Option<Sent>> {
        self.send(conn, head, body).map(Some)
    }
    /// Ends a connection, or the attempt at one. No event of it follows.
    fn close(&mut self, conn: ConnId);
    /// What the wire's loop knows of its own pauses; nothing where it has none.
    fn pulse(&self) -> Option<&Pulse> {
        None
    }
    /// Whether the peer had closed the connection before it had any byte of what was sent on it last: it can have done
    /// nothing about it. To be asked from within [`Events::closed`]; `false` where it cannot be told for certain.
    fn was_unseen(&self, conn: ConnId) -> bool {
        let _ = conn;
        false
    }
}

/// What a server may ask besides.
pub trait ServerWire: Wire {
    /// Nothing more will be sent: the peer sees the end once it has all that was sent before. Bytes may still come.
    fn end_sending(&mut self, conn: ConnId);
    /// Ends a connection so that the peer sees it reset. No event of it follows.
    fn reset(&mut self, conn: ConnId);
}

/// Names the slot of a connection that was accepted at that time, or refuses it. An error ends the listening.
pub type Admit = Box<dyn FnMut(io::Result<Instant>) -> Option<ConnId>>;

/// A wire whose owner is named once it is there.
pub trait Tells: Wire + Clone {
    /// Says who is told what happens. Must come before the first connection.
    fn tell(&self, events: Weak<RefCell<dyn Events>>);
}

/// A wire that lets connections in.
pub trait Listens: ServerWire + Tells {
    /// Takes connections from `listener` as they come. Must be called on the loop's thread, while the loop runs.
    fn listen(&self, listener: TcpListener, admit: Admit);
}

/// What the network tells. Each call returns the earliest time at which the owner wants a turn.
pub trait Events {
    /// An attempt to connect has ended; `Ok` holds the local port.
    fn connected(&mut self, conn: ConnId, result: io::Result<u16>, at: Instant) -> Instant;
    /// Bytes came.
    fn received(&mut self, conn: ConnId, bytes: &[u8], at: Instant) -> Instant;
    /// What was to be sent soon has been handed to the kernel.
    fn sent(&mut self, _conn: ConnId, _sent: Sent) -> Instant {
        Instant::NEVER
    }
    /// The rest of an earlier send has been handed to the kernel.
    fn flushed(&mut self, conn: ConnId, at: Instant) -> Instant;
    /// The peer closed (`Ok`), or the connection broke (`Err`). Nothing follows.
    fn closed(&mut self, conn: ConnId, how: io::Result<()>, at: Instant) -> Instant;
}

/// When a part wants its next turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Next {
    /// At the latest at this time; [`Instant::NEVER`] if only an event can give it work.
    pub at: Instant,
    /// It has ended and wants no further turn.
    pub ended: bool,
}

impl Next {
    /// Wants a turn at `at`.
    pub fn at(at: Instant) -> Self {
        Self { at, ended: false }
    }

    /// Has ended.
    pub const ENDED: Self = Self { at: Instant::NEVER, ended: true };
}

/// A value that makes progress by bounded turns that never block. A thread is a list of parts.
pub trait Part {
    /// Does what can be done at `now`.
    fn turn(&mut self, now: Instant) -> Next;
}
