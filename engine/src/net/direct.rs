//! The wire of sockets on a ring of our own: multishot receives into shared buffers, no task and no buffer a connection.
//!
//! One receive is armed for the life of a connection; the kernel picks a buffer for each completion and posts it, so that
//! a read costs neither a submission nor a wake-up of a task. Completions are taken and told in one pass over the queue; the
//! parts take turns between passes. What a pass brings bears one time, that of the pass: it was there before the first of it
//! was told.
//!
//! Sends are direct system calls, as on the runtime's wire. Those that need not go at once (in a closed loop, what follows an
//! answer) gather during a pass and are handed over by the ring, up to 16 with one system call.
//!
//! A socket's place in the table has one tenant after the other. A tenant leaves once the kernel holds no operation on it, be
//! it queued or under way; what is said of it later bears its number and is not taken for its successor's.
//!
//! The kernel must be 6.1 or later (single issuer, deferred task work, multishot receive, buffer rings); [`refusal`]
//! tries.

mod door;
pub(crate) mod kernel;

use super::gather::Gathered;
use super::pulse::Pulse;
use super::reactor::{Doorbell, LEAD, SharedPart, is_near, turn_all};
use super::{ConnId, Events, Liveness, Sent, Tells, Wire};
use crate::clock::{self, Instant};
use door::Door;
use kernel::{Completion, Kernel, Operation, Uring};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::rc::{Rc, Weak};
use std::sync::Arc;

/// Why such a ring cannot be had here, as a sentence part; `None` if it can. Found out by trying: an old kernel, seccomp,
/// the sysctl and RLIMIT_MEMLOCK all show.
pub fn refusal() -> Option<String> {
    let error = Uring::new().err()?;
    Some(format!("the kernel refuses a ring with multishot receives here ({error})"))
}

/// The sockets of one executor on its thread's ring.
pub struct DirectWire<K: Kernel = Uring> {
    ring: Rc<Ring<K>>,
    owner: u32,
}

impl<K: Kernel> Clone for DirectWire<K> {
    fn clone(&self) -> Self {
        Self { ring: self.ring.clone(), owner: self.owner }
    }
}

/// A thread's ring and the sockets on it.
pub struct Ring<K: Kernel = Uring> {
    // First: once it is closed, no operation is left that points at anything below. Fields are dropped in their order.
    kernel: K,
    sockets: RefCell<Sockets<K>>,
    owners: RefCell<Vec<Owner>>,
    /// Listeners by number; none where it is just being told of somebody, or has failed.
    doors: RefCell<Vec<Option<Door>>>,
    bell: Option<Arc<Doorbell>>,
    /// The earliest time for which an owner asked for a turn since the last.
    wanted: Cell<Instant>,
    /// Operations that found the queue full and the kernel unwilling. While there are any, the queue is full.
    overflow: RefCell<VecDeque<(Operation, u64)>>,
    /// Sends that wait, and those that were handed over last and are being told.
    gathered: RefCell<Gathered>,
    handed: RefCell<Gathered>,
    /// What the kernel said of gathered sends that it did not take whole.
    short: RefCell<VecDeque<Completion>>,
    /// Completions of the pass under way that have not been told yet.
    untold: RefCell<VecDeque<Completion>>,
    /// When the pass under way began; unset between passes.
    passing: Cell<Instant>,
    pulse: Pulse,
    /// The connection whose end is just being told, if its peer saw nothing of what was sent on it last.
    unseen: Cell<Option<(u32, ConnId)>>,
    /// How often a receive was armed.
    #[cfg(test)]
    armed: Cell<u32>,
}

/// One wire's owner and its connections' sockets, by slot.
#[derive(Default)]
struct Owner {
    events: Option<Weak<RefCell<dyn Events>>>,
    links: Vec<Link>,
    /// What its connections are told of peers that no longer answer.
    liveness: Option<Liveness>,
}

/// The tenant of a slot and its socket.
#[derive(Clone, Copy)]
struct Link {
    epoch: u32,
    socket: u32,
}

/// No socket.
const NONE: u32 = u32::MAX;

struct Sockets<K: Kernel> {
    all: Vec<Socket<K>>,
    free: Vec<u32>,
    /// Sockets whose receive found no buffer, in that order.
    starved: VecDeque<u32>,
}

/// A socket. It stays until the kernel has let go of every operation on it.
struct Socket<K: Kernel> {
    /// Which of this place's tenants it is.
    generation: u32,
    fd: Option<K::Descriptor>,
    conn: ConnId,
    owner: u32,
    /// Somebody wants to hear of it.
    live: bool,
    connected: bool,
    /// It was shown a few local ports only.
    narrowed: bool,
    /// Operations that are queued or that the kernel holds.
    pending: u32,
    address: Box<Address>,
    /// Why there is no descriptor.
    fault: Option<io::Error>,
    /// A send of it has gathered and has not been told of.
    gathering: bool,
    /// Bytes sent before the last send, and with it.
    carried: (u64, u64),
    /// What found no room, and whether the kernel is to say when there is some.
    backlog: Vec<u8>,
    flushing: bool,
}

/// What a completion belongs to: an operation, and a socket's place or a door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
enum Op {
    Connect = 0,
    Receive = 1,
    Room = 2,
    Bell = 3,
    Cancel = 4,
    Send = 5,
    Accept = 6,
}

/// From the lowest bit: the operation, the place, the tenant's number.
const OP_BITS: u32 = 3;
const PLACE_BITS: u32 = 29;

fn tag(op: Op, place: u32, generation: u32) -> u64 {
    u64::from(generation) << (OP_BITS + PLACE_BITS) | u64::from(place) << OP_BITS | op as u64
}

fn untag(tag: u64) -> (Op, u32, u32) {
    let op = match tag & ((1 << OP_BITS) - 1) {
        0 => Op::Connect,
        1 => Op::Receive,
        2 => Op::Room,
        3 => Op::Bell,
        4 => Op::Cancel,
        6 => Op::Accept,
        _ => Op::Send,
    };
    (op, (tag >> OP_BITS) as u32 & ((1 << PLACE_BITS) - 1), (tag >> (OP_BITS + PLACE_BITS)) as u32)
}

impl<K: Kernel> Ring<K> {
    /// A ring without sockets.
    pub(crate) fn new(kernel: K, bell: Option<Arc<Doorbell>>) -> Self {
        Self {
            kernel,
            sockets: RefCell::new(Sockets { all: Vec::new(), free: Vec::new(), starved: VecDeque::new() }),
            owners: RefCell::default(),
            doors: RefCell::default(),
            bell,
            wanted: Cell::new(Instant::NEVER),
            overflow: RefCell::default(),
            gathered: RefCell::default(),
            handed: RefCell::default(),
            short: RefCell::default(),
            untold: RefCell::default(),
            passing: Cell::new(Instant::UNSET),
            pulse: Pulse::default(),
            unseen: Cell::new(None),
            #[cfg(test)]
            armed: Cell::new(0),
        }
    }

    fn now(&self) -> Instant {
        self.kernel.now()
    }

    /// Queues an operation; how many go before it, with itself.
    ///
    /// What it points at is an address, which its socket keeps until the operation has ended, or a gathered send's bytes,
    /// which stay until the batch is told: longer than the call that takes it up. A socket closes its descriptor once it has
    /// no operation pending.
    #[inline(always)]
    fn submit(&self, operation: Operation, tag: u64) -> u32 {
        // SAFETY: see above.
        match unsafe { self.kernel.push(operation, tag) } {
            Some(place) => place,
            None => self.submit_later(operation, tag),
        }
    }

    /// The queue is full: what is there goes to the kernel. What it refuses now it will be asked again, and an error that
    /// stays ends the next pass.
    #[cold]
    fn submit_later(&self, operation: Operation, tag: u64) -> u32 {
        self.overflow.borrow_mut().push_back((operation, tag));
        let _ = self.enter(None);
        self.refill();
        self.kernel.queued() + self.overflow.borrow().len() as u32
    }

    /// Queues what found the queue full, as far as there is room now.
    fn refill(&self) {
        let mut overflow = self.overflow.borrow_mut();
        while let Some(&(operation, tag)) = overflow.front() {
            // SAFETY: as in `submit`.
            if unsafe { self.kernel.push(operation, tag) }.is_none() {
                return;
            }
            overflow.pop_front();
        }
    }

    /// Has the kernel take what is queued, and waits for a completion if a time is given.
    fn enter(&self, until: Option<Instant>) -> io::Result<()> {
        let sends = self.gathered.borrow().waits();
        let result = if sends { self.enter_with_sends(until) } else { self.kernel.enter(until) };
        if !self.overflow.borrow().is_empty() {
            self.refill();
        }
        match result {
            // The time is up; a signal came; completions must be taken first, or there is no memory for more just now.
            Err(e) if !matches!(e.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)) => {
                Err(e)
            }
            _ => Ok(()),
        }
    }

    /// Enters the kernel, and notes of the gathered sends that it took when that was.
    fn enter_with_sends(&self, until: Option<Instant>) -> io::Result<()> {
        let (first, before) = (self.now(), self.kernel.queued());
        let result = self.kernel.enter(until);
        let (last, taken) = (self.now(), before - self.kernel.queued());
        let mut sockets = self.sockets.borrow_mut();
        self.gathered.borrow_mut().taken(taken, first, last, |socket| {
            sockets.all[socket as usize].pending -= 1;
            sockets.let_go(socket);
        });
        result
    }

    /// Takes the completions there are. Those of gathered sends are put apart until their batch is told.
    fn reap(&self) {
        let mut untold = self.untold.borrow_mut();
        let before = untold.len();
        self.kernel.reap(&mut untold);
        if self.gathered.borrow().sends.is_empty() {
            return;
        }
        for completion in untold.range_mut(before..) {
            if untag(completion.tag).0 == Op::Send {
                let blank = Completion::new(tag(Op::Cancel, 0, 0), 0, None, false);
                self.short.borrow_mut().push_back(std::mem::replace(completion, blank));
            }
        }
    }

    /// The slot's connection has this socket.
    fn set_link(&self, owner: u32, conn: ConnId, socket: u32) {
        let mut owners = self.owners.borrow_mut();
        let links = &mut owners[owner as usize].links;
        let slot = conn.slot as usize;
        if links.len() <= slot {
            links.resize(slot + 1, Link { epoch: 0, socket: NONE });
        }
        links[slot] = Link { epoch: conn.epoch, socket };
    }

    /// Tells the owner of a socket, outside all borrows: it may send, connect or close from within.
    fn tell(&self, owner: u32, f: impl FnOnce(&mut dyn Events) -> Instant) {
        let events = self.owners.borrow().get(owner as usize).and_then(|o| o.events.as_ref().and_then(Weak::upgrade));
        if let Some(events) = events {
            let at = f(&mut *events.borrow_mut());
            self.wanted.set(self.wanted.get().min(at));
        }
    }

    fn complete(&self, completion: &Completion) {
        let (op, place, generation) = untag(completion.tag);
        match op {
            Op::Connect => self.connect_ended(place, completion.result),
            Op::Receive => self.received(place, completion),
            Op::Room => self.room(place, completion.result),
            Op::Send => self.fell_short((place, generation), completion.result),
            Op::Accept => self.accepted(place, completion),
            Op::Bell if !completion.more() => self.listen(),
            Op::Bell | Op::Cancel => {}
        }
    }

    /// Connects a socket again that found all the local ports taken that it was shown; `false` if that is not how it ended.
    fn connects_again(&self, socket: u32, result: i32) -> bool {
        let again = {
            let mut sockets = self.sockets.borrow_mut();
            let entry = &mut sockets.all[socket as usize];
            let is_out = -result == libc::EADDRNOTAVAIL && entry.live && std::mem::take(&mut entry.narrowed);
            entry.raw().filter(|_| is_out).inspect(|&fd| self.kernel.widen(fd));
            entry.connecting().filter(|_| is_out).map(|again| (again, entry.tag(Op::Connect, socket)))
        };
        again.map(|(again, tag)| self.submit(again, tag)).is_some()
    }

    fn connect_ended(&self, socket: u32, result: i32) {
        let at = self.now();
        if self.connects_again(socket, result) {
            return;
        }
        let (conn, owner, outcome) = {
            let mut sockets = self.sockets.borrow_mut();
            let entry = &mut sockets.all[socket as usize];
            entry.pending -= 1;
            if !entry.live {
                return sockets.let_go(socket);
            }
            let outcome = match (entry.fault.take(), entry.raw()) {
                (Some(fault), _) => Err(fault),
                (None, _) if result < 0 => Err(io::Error::from_raw_os_error(-result)),
                (None, Some(fd)) => {
                    let liveness = self.owners.borrow()[entry.owner as usize].liveness;
                    self.kernel.settle(fd).and_then(|port| self.kernel.watch(fd, liveness).map(|()| port))
                }
                (None, None) => Err(io::ErrorKind::NotConnected.into()),
            };
            entry.connected = outcome.is_ok();
            (entry.conn, entry.owner, outcome)
        };
        match outcome {
            Ok(port) => {
                self.arm(socket);
                self.tell(owner, |events| events.connected(conn, Ok(port), at));
            }
            Err(e) => {
                self.end(socket);
                self.tell(owner, |events| events.connected(conn, Err(e), at));
            }
        }
    }

    /// Arms the receive that lasts as long as the connection does.
    fn arm(&self, socket: u32) {
        let (fd, tag) = {
            let mut sockets = self.sockets.borrow_mut();
            let entry = &mut sockets.all[socket as usize];
            let Some(fd) = entry.raw() else { return };
            entry.pending += 1;
            (fd, entry.tag(Op::Receive, socket))
        };
        #[cfg(test)]
        self.armed.set(self.armed.get() + 1);
        self.submit(Operation::Receive { fd }, tag);
    }

    fn received(&self, socket: u32, completion: &Completion) {
        let at = self.passing.get();
        let (conn, owner, live) = {
            let entry = &self.sockets.borrow().all[socket as usize];
            (entry.conn, entry.owner, entry.live)
        };
        let (result, buffer) = (completion.result, completion.buffer());
        if let Some(buffer) = buffer.filter(|_| live && result > 0) {
            // SAFETY: the kernel filled that many bytes of this buffer and leaves it alone until it is given back.
            let bytes = unsafe { std::slice::from_raw_parts(self.kernel.buffer(buffer), result as usize) };
            self.tell(owner, |events| events.received(conn, bytes, at));
        }
        if let Some(buffer) = buffer {
            self.kernel.give_back(buffer);
        }
        if !completion.more() {
            self.receive_ended(socket, result);
        }
    }

    /// The kernel has let go of a receive.
    fn receive_ended(&self, socket: u32, result: i32) {
        if -result == libc::ENOBUFS {
            return self.sockets.borrow_mut().starved.push_back(socket);
        }
        {
            let mut sockets = self.sockets.borrow_mut();
            let entry = &mut sockets.all[socket as usize];
            entry.pending -= 1;
            if !entry.live {
                return sockets.let_go(socket);
            }
        }
        if result > 0 {
            // It may end one that it could go on with.
            return self.arm(socket);
        }
        let how = if result == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-result)) };
        let unseen = self.gathered.borrow().holds(socket) || how.is_ok() && self.is_unseen(socket);
        self.lose(socket, how, unseen);
    }

    /// Whether the peer, whose end has come, had got none of what was sent last.
    fn is_unseen(&self, socket: u32) -> bool {
        let entry = &self.sockets.borrow().all[socket as usize];
        let (before, with) = entry.carried;
        let seen = || entry.raw().and_then(|fd| self.kernel.acknowledged(fd));
        before < with && seen().is_some_and(|seen| seen <= before)
    }

    /// The connection is gone: its owner is told, and for as long whether its peer saw nothing of what was sent last.
    fn lose(&self, socket: u32, how: io::Result<()>, unseen: bool) {
        let (conn, owner) = {
            let entry = &self.sockets.borrow().all[socket as usize];
            (entry.conn, entry.owner)
        };
        self.end(socket);
        self.unseen.set(unseen.then_some((owner, conn)));
        self.tell(owner, |events| events.closed(conn, how, self.now()));
        self.unseen.set(None);
    }

    /// Receives that found no buffer are armed again, those first that have waited longest: by now all buffers of the last
    /// pass are back. No more than find one: where thousands wait, all others would be armed and starve once more with each
    /// pass.
    fn feed_starved(&self) {
        for _ in 0..K::BUFFERS {
            let (socket, live) = {
                let mut sockets = self.sockets.borrow_mut();
                let Some(socket) = sockets.starved.pop_front() else { return };
                let entry = &mut sockets.all[socket as usize];
                entry.pending -= 1;
                (socket, entry.live)
            };
            if live {
                self.arm(socket);
            } else {
                self.sockets.borrow_mut().let_go(socket);
            }
        }
    }

    /// There is room to send what found none.
    fn room(&self, socket: u32, result: i32) {
        let at = self.now();
        let sent = {
            let mut sockets = self.sockets.borrow_mut();
            let entry = &mut sockets.all[socket as usize];
            entry.pending -= 1;
            entry.flushing = false;
            if !entry.live {
                return sockets.let_go(socket);
            }
            if entry.gathering {
                // What went before it may not be whole yet.
                return;
            }
            let Some(fd) = entry.raw() else { return };
            let taken = match result {
                ..0 => Err(io::Error::from_raw_os_error(-result)),
                _ => self.kernel.send(fd, &entry.backlog, &[]),
            };
            taken.map(|taken| {
                entry.backlog.drain(..taken);
                entry.backlog.is_empty().then_some((entry.conn, entry.owner))
            })
        };
        match sent {
            Ok(Some((conn, owner))) => self.tell(owner, |events| events.flushed(conn, at)),
            Ok(None) => self.wait_for_room(socket),
            // A broken connection shows at the receive, after what came before it broke.
            Err(e) if matches!(e.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {}
            Err(e) => self.lose(socket, Err(e), false),
        }
    }

    fn wait_for_room(&self, socket: u32) {
        let (fd, tag) = {
            let mut sockets = self.sockets.borrow_mut();
            let entry = &mut sockets.all[socket as usize];
            let Some(fd) = entry.raw() else { return };
            if std::mem::replace(&mut entry.flushing, true) {
                return;
            }
            entry.pending += 1;
            (fd, entry.tag(Op::Room, socket))
        };
        self.submit(Operation::Room { fd }, tag);
    }

    /// Keeps a send until the pass under way hands over what has gathered; `false` if it cannot wait.
    fn gather(&self, (socket, owner, conn): (u32, u32, ConnId), head: &[u8], body: &[u8]) -> bool {
        if !self.passing.get().is_set() {
            return false;
        }
        let mut gathered = self.gathered.borrow_mut();
        let (operation, tag) = {
            let mut sockets = self.sockets.borrow_mut();
            let entry = &mut sockets.all[socket as usize];
            let fd = match entry.raw() {
                Some(fd) if entry.connected && entry.backlog.is_empty() && !entry.flushing && !entry.gathering => fd,
                _ => return false,
            };
            let Some((bytes, len)) = gathered.add((socket, entry.generation), (owner, conn), head, body) else {
                return false;
            };
            entry.gathering = true;
            entry.carry(len as usize);
            entry.pending += 1;
            (Operation::Send { fd, bytes, len }, entry.tag(Op::Send, socket))
        };
        drop(gathered);
        let place = self.submit(operation, tag);
        self.gathered.borrow_mut().queued(place);
        true
    }

    /// Hands over the sends that have gathered and tells when that was. While the kernel refuses, they stay, and the next pass
    /// asks again.
    fn hand_over(&self) -> io::Result<()> {
        if self.gathered.borrow().sends.is_empty() {
            return Ok(());
        }
        while self.gathered.borrow().waits() {
            let before = self.kernel.queued();
            self.enter(None)?;
            if self.gathered.borrow().waits() && self.kernel.queued() >= before {
                return Ok(());
            }
        }
        // What has come meanwhile is taken too. Sends that fell short say so at once, while their bytes are at hand.
        self.reap();
        while self.kernel.has_put_aside() {
            let before = self.untold.borrow().len();
            self.enter(None)?;
            self.reap();
            if self.kernel.has_put_aside() && self.untold.borrow().len() == before {
                return Ok(());
            }
        }
        self.gathered.swap(&self.handed);
        loop {
            let Some(short) = self.short.borrow_mut().pop_front() else { break };
            let (_, place, generation) = untag(short.tag);
            self.fell_short((place, generation), short.result);
        }
        let n = self.handed.borrow().sends.len();
        for k in 0..n {
            self.tell_sent(k);
        }
        self.handed.borrow_mut().clear();
        Ok(())
    }

    /// Tells of one of those that were handed over.
    fn tell_sent(&self, k: usize) {
        let (socket, owner, conn, sent, left) = {
            let (handed, mut sockets) = (self.handed.borrow(), self.sockets.borrow_mut());
            let send = &handed.sends[k];
            let entry = &mut sockets.all[send.socket as usize];
            if !entry.live || entry.generation != send.generation {
                return;
            }
            entry.gathering = false;
            let last = (!send.fell_short).then_some(send.last);
            (send.socket, send.owner, send.conn, Sent { first: send.first, last }, !entry.backlog.is_empty())
        };
        if left {
            self.wait_for_room(socket);
        }
        self.tell(owner, |events| events.sent(conn, sent));
    }

    /// The kernel has not taken all of a gathered send.
    #[cold]
    fn fell_short(&self, (socket, generation): (u32, u32), result: i32) {
        let broken = {
            let (mut handed, mut sockets) = (self.handed.borrow_mut(), self.sockets.borrow_mut());
            let entry = &mut sockets.all[socket as usize];
            if !entry.live || entry.generation != generation {
                // It has ended, and its place may have another tenant.
                return;
            }
            let rest = handed.fell_short((socket, generation), result);
            rest.map(|rest| drop(entry.backlog.splice(..0, rest.iter().copied()))).err()
        };
        if let Some(e) = broken {
            // An error means that none of it was taken.
            self.lose(socket, Err(e), true);
        }
    }

    /// Nobody wants to hear of the socket any more.
    fn end(&self, socket: u32) {
        let cancel = {
            let mut sockets = self.sockets.borrow_mut();
            let entry = &mut sockets.all[socket as usize];
            if !std::mem::replace(&mut entry.live, false) {
                return;
            }
            let cancel = (!entry.connected && entry.pending > 0).then(|| entry.tag(Op::Connect, socket));
            let (owner, conn) = (entry.owner, entry.conn);
            if let Some(fd) = entry.raw() {
                // A gathered send of it that has not gone yet finds it shut, and holds the descriptor until then.
                self.kernel.shut(fd);
            }
            sockets.let_go(socket);
            self.unlink(owner, conn, socket);
            cancel
        };
        if let Some(of) = cancel {
            self.submit(Operation::Cancel { of }, tag(Op::Cancel, 0, 0));
        }
    }

    /// The slot's connection, if it still is this one, has no socket any more.
    fn unlink(&self, owner: u32, conn: ConnId, socket: u32) {
        let mut owners = self.owners.borrow_mut();
        let link = owners.get_mut(owner as usize).and_then(|owner| owner.links.get_mut(conn.slot as usize));
        if let Some(link) = link.filter(|link| link.epoch == conn.epoch && link.socket == socket) {
            link.socket = NONE;
        }
    }
}

impl<K: Kernel> Sockets<K> {
    fn add(&mut self, fd: io::Result<K::Descriptor>, conn: ConnId, owner: u32, to: SocketAddr) -> u32 {
        let (fd, fault) = match fd {
            Ok(fd) => (Some(fd), None),
            Err(e) => (None, Some(e)),
        };
        let socket = Socket {
            generation: 0,
            fd,
            fault,
            conn,
            owner,
            live: true,
            connected: false,
            narrowed: false,
            pending: 1,
            address: Box::new(Address::from(to)),
            gathering: false,
            carried: (0, 0),
            backlog: Vec::new(),
            flushing: false,
        };
        match self.free.pop() {
            Some(at) => {
                let place = &mut self.all[at as usize];
                *place = Socket { generation: place.generation.wrapping_add(1), ..socket };
                at
            }
            None => {
                self.all.push(socket);
                self.all.len() as u32 - 1
            }
        }
    }

    /// Closes a socket that nobody wants once the kernel holds no operation on it.
    fn let_go(&mut self, socket: u32) {
        let entry = &mut self.all[socket as usize];
        if !entry.live && entry.pending == 0 {
            entry.fd = None;
            self.free.push(socket);
        }
    }
}

impl<K: Kernel> Socket<K> {
    fn raw(&self) -> Option<i32> {
        self.fd.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// The tag of an operation on it.
    fn tag(&self, op: Op, place: u32) -> u64 {
        tag(op, place, self.generation)
    }

    /// So many bytes are sent.
    fn carry(&mut self, bytes: usize) {
        self.carried = (self.carried.1, self.carried.1 + bytes as u64);
    }

    /// The operation that connects it.
    fn connecting(&self) -> Option<Operation> {
        let (address, len) = (self.address.as_ptr(), self.address.len());
        self.raw().map(|fd| Operation::Connect { fd, address, len })
    }
}

impl<K: Kernel> DirectWire<K> {
    fn link(&self, conn: ConnId) -> Option<u32> {
        let owners = self.ring.owners.borrow();
        let link = owners[self.owner as usize].links.get(conn.slot as usize)?;
        (link.epoch == conn.epoch && link.socket != NONE).then_some(link.socket)
    }
}

impl<K: Kernel> Tells for DirectWire<K> {
    fn tell(&self, events: Weak<RefCell<dyn Events>>) {
        self.ring.owners.borrow_mut()[self.owner as usize].events = Some(events);
    }
}

impl<K: Kernel> Wire for DirectWire<K> {
    fn now(&self) -> Instant {
        self.ring.now()
    }

    fn pulse(&self) -> Option<&Pulse> {
        Some(&self.ring.pulse)
    }

    fn connect(&mut self, conn: ConnId, to: SocketAddr) {
        let ring = &self.ring;
        let (socket, operation, tag) = {
            let mut sockets = ring.sockets.borrow_mut();
            let socket = sockets.add(ring.kernel.socket(to), conn, self.owner, to);
            let added = &mut sockets.all[socket as usize];
            added.narrowed = added.raw().is_some_and(|fd| ring.kernel.narrow(fd));
            // What has no descriptor is told as every failed attempt is: by a completion, never from within the call.
            (socket, added.connecting().unwrap_or(Operation::Nothing), added.tag(Op::Connect, socket))
        };
        ring.set_link(self.owner, conn, socket);
        ring.submit(operation, tag);
    }

    fn send(&mut self, conn: ConnId, head: &[u8], body: &[u8]) -> io::Result<Sent> {
        let socket = self.link(conn).ok_or(io::ErrorKind::NotConnected)?;
        let first = self.ring.now();
        let gathering = {
            let mut sockets = self.ring.sockets.borrow_mut();
            let entry = &mut sockets.all[socket as usize];
            let Some(fd) = entry.raw().filter(|_| entry.connected) else {
                return Err(io::ErrorKind::NotConnected.into());
            };
            let waits = entry.flushing || entry.gathering || !entry.backlog.is_empty();
            entry.carry(head.len() + body.len());
            let taken = if waits { 0 } else { self.ring.kernel.send(fd, head, body)? };
            if taken == head.len() + body.len() {
                return Ok(Sent { first, last: Some(self.ring.now()) });
            }
            let (from_head, from_body) = (taken.min(head.len()), taken.saturating_sub(head.len()));
            entry.backlog.extend_from_slice(&head[from_head..]);
            entry.backlog.extend_from_slice(&body[from_body..]);
            entry.gathering
        };
        if !gathering {
            self.ring.wait_for_room(socket);
        }
        Ok(Sent { first, last: None })
    }

    fn send_soon(&mut self, conn: ConnId, head: &[u8], body: &[u8]) -> io::Result<Option<Sent>> {
        let socket = self.link(conn).ok_or(io::ErrorKind::NotConnected)?;
        if self.ring.gather((socket, self.owner, conn), head, body) {
            return Ok(None);
        }
        self.send(conn, head, body).map(Some)
    }

    fn close(&mut self, conn: ConnId) {
        if let Some(socket) = self.link(conn) {
            self.ring.end(socket);
        }
    }

    fn was_unseen(&self, conn: ConnId) -> bool {
        self.ring.unseen.get() == Some((self.owner, conn))
    }
}

/// An address as the kernel reads it.
#[repr(C)]
union Address {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(v4) => Self {
                v4: libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: v4.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                    sin_zero: [0; 8],
                },
            },
            SocketAddr::V6(v6) => Self {
                v6: libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: v6.port().to_be(),
                    sin6_flowinfo: v6.flowinfo(),
                    sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                    sin6_scope_id: v6.scope_id(),
                },
            },
        }
    }
}

impl Address {
    fn as_ptr(&self) -> *const libc::sockaddr {
        std::ptr::from_ref(self).cast()
    }

    fn len(&self) -> libc::socklen_t {
        // SAFETY: both variants begin with the family.
        let family = i32::from(unsafe { self.v4.sin_family });
        let size =
            if family == libc::AF_INET { size_of::<libc::sockaddr_in>() } else { size_of::<libc::sockaddr_in6>() };
        size as libc::socklen_t
    }
}

/// Runs the parts that `build` makes until all have ended, as [`super::reactor::run`] does.
///
/// # Errors
/// The ring could not be set up, or the kernel refused to wait on it.
pub fn run(
    spin: bool,
    bell: Option<Arc<Doorbell>>,
    build: impl FnOnce(&Rc<Ring>) -> io::Result<Vec<SharedPart>>,
) -> io::Result<()> {
    let ring = Rc::new(Ring::new(Uring::new()?, bell));
    let parts = build(&ring)?;
    clock::sharpen_sleeps();
    ring.drive(&parts, spin)
}

impl<K: Kernel> Ring<K> {
    /// A wire on this ring.
    pub fn wire(self: &Rc<Self>) -> DirectWire<K> {
        let mut owners = self.owners.borrow_mut();
        owners.push(Owner::default());
        DirectWire { ring: self.clone(), owner: owners.len() as u32 - 1 }
    }

    /// A wire whose connections notice peers that no longer answer.
    pub fn client_wire(self: &Rc<Self>, liveness: Liveness) -> DirectWire<K> {
        let wire = self.wire();
        self.owners.borrow_mut()[wire.owner as usize].liveness = Some(liveness);
        wire
    }

    /// Gives the parts turns, and passes over the completions between them, until all parts have ended.
    pub(crate) fn drive(&self, parts: &[SharedPart], spin: bool) -> io::Result<()> {
        self.listen();
        loop {
            let mut next = turn_all(parts, || self.now());
            if next.ended {
                return Ok(());
            }
            let now = self.now();
            if spin || is_near(next.at, now) {
                self.pass(None, now)?;
                continue;
            }
            if let Some(bell) = &self.bell {
                bell.settle();
                next = turn_all(parts, || self.now());
            }
            let now = self.now();
            if !next.ended && !is_near(next.at, now) {
                self.sleep(next.at, now)?;
            }
            if let Some(bell) = &self.bell {
                bell.clear();
            }
        }
    }

    /// Has the kernel say when the bell rings, each time.
    fn listen(&self) {
        if let Some(bell) = &self.bell {
            self.submit(Operation::Bell { fd: bell.fd() }, tag(Op::Bell, 0, 0));
        }
    }

    /// Passes over the completions as they come until shortly before `until`, or until somebody wants a turn.
    fn sleep(&self, mut until: Instant, mut now: Instant) -> io::Result<()> {
        self.wanted.set(Instant::NEVER);
        loop {
            let rang = self.pass(Some(until.before(LEAD)), now)?;
            until = until.min(self.wanted.get());
            now = self.now();
            if rang || until <= now.after(LEAD) {
                return Ok(());
            }
        }
    }

    /// Hands over submissions, waits until the time given or not at all, and tells of every completion there is by then; says
    /// whether the bell was among them. What comes while it tells is left for the next pass, so that each ends.
    pub(crate) fn pass(&self, until: Option<Instant>, now: Instant) -> io::Result<bool> {
        // What the kernel refused at the end of the last pass.
        self.hand_over()?;
        // A receive armed while no buffer was left starved whether anything had come or not: those that were armed since may
        // have nothing to tell, and others something.
        let nothing_to_tell = self.sockets.borrow().starved.is_empty() && self.untold.borrow().is_empty();
        let waits = nothing_to_tell && self.gathered.borrow().sends.is_empty() && self.overflow.borrow().is_empty();
        let until = until.filter(|_| waits).map(|until| self.pulse.limit(until, now));
        self.pulse.enter(now, until);
        self.enter(until)?;
        self.reap();
        let (found_at, found) = (self.now(), self.untold.borrow().len());
        self.pulse.found(found_at, found, self.sockets.borrow().all.len());
        self.hand_over()?;
        let mut rang = false;
        // That requests were sent is told before their answers.
        let n = if self.gathered.borrow().sends.is_empty() { found } else { 0 };
        if n > 0 {
            self.passing.set(found_at);
            for _ in 0..n {
                if self.gathered.borrow().is_full() {
                    self.hand_over()?;
                }
                let Some(completion) = self.untold.borrow_mut().pop_front() else { break };
                rang |= untag(completion.tag).0 == Op::Bell;
                self.complete(&completion);
            }
            // What is sent while these are told goes at once: it would wait for the next pass.
            self.passing.set(Instant::UNSET);
            self.hand_over()?;
        }
        self.feed_starved();
        Ok(rang)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Next, Part};
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::mpsc;
    use std::thread;

    /// Opens connections, sends one message on each, and keeps what comes until every one has ended.
    struct Client {
        wire: DirectWire,
        to: SocketAddr,
        message: Vec<u8>,
        connections: u32,
        begun: bool,
        came: Vec<Vec<u8>>,
        ends: Vec<Result<(), io::ErrorKind>>,
        flushed: usize,
        /// When the last connection stands, nothing goes on before this says so.
        until: Option<mpsc::Receiver<()>>,
    }

    impl Part for Client {
        fn turn(&mut self, _now: Instant) -> Next {
            if !std::mem::replace(&mut self.begun, true) {
                for slot in 0..self.connections {
                    self.wire.connect(ConnId { slot, epoch: 7 }, self.to);
                }
            }
            if self.ends.len() == self.connections as usize { Next::ENDED } else { Next::at(Instant::NEVER) }
        }
    }

    impl Events for Client {
        fn connected(&mut self, conn: ConnId, result: io::Result<u16>, at: Instant) -> Instant {
            match result {
                Ok(port) => {
                    assert_ne!(port, 0);
                    let sent = self.wire.send(conn, &self.message[..1], &self.message[1..]).unwrap();
                    self.flushed += usize::from(sent.last.is_some());
                    if let Some(until) = self.until.take_if(|_| self.flushed == self.connections as usize) {
                        until.recv().unwrap();
                    }
                }
                Err(e) => {
                    // Those who wait for all connections would wait for ever.
                    assert_ne!(
                        e.kind(),
                        io::ErrorKind::AddrNotAvailable,
                        "there are more local ports than it was shown"
                    );
                    self.ends.push(Err(e.kind()));
                }
            }
            at
        }

        fn received(&mut self, conn: ConnId, bytes: &[u8], _at: Instant) -> Instant {
            self.came[conn.slot as usize].extend_from_slice(bytes);
            Instant::NEVER
        }

        fn flushed(&mut self, _conn: ConnId, _at: Instant) -> Instant {
            self.flushed += 1;
            Instant::NEVER
        }

        fn closed(&mut self, conn: ConnId, how: io::Result<()>, at: Instant) -> Instant {
            self.wire.close(conn);
            self.ends.push(how.map_err(|e| e.kind()));
            at
        }
    }

    /// Whether this machine has such rings. If not, that is printed, and under `MASER_REQUIRE_URING=1` it fails the test.
    fn is_to_be_had() -> bool {
        let Some(why) = refusal() else { return true };
        assert!(std::env::var_os("MASER_REQUIRE_URING").is_none_or(|v| v != "1"), "{why}");
        eprintln!("skipped: {why}");
        false
    }

    /// Runs a client to its end; `None`, and said so, where the host refuses the ring.
    fn client(to: SocketAddr, connections: u32, message: &[u8]) -> Option<Rc<RefCell<Client>>> {
        held_client(to, connections, message, None)
    }

    fn held_client(
        to: SocketAddr,
        connections: u32,
        message: &[u8],
        until: Option<mpsc::Receiver<()>>,
    ) -> Option<Rc<RefCell<Client>>> {
        if !is_to_be_had() {
            return None;
        }
        let mut made = None;
        run(false, None, |ring| {
            let wire = ring.wire();
            let client = Rc::new(RefCell::new(Client {
                wire: wire.clone(),
                to,
                message: message.to_vec(),
                connections,
                begun: false,
                came: vec![Vec::new(); connections as usize],
                ends: Vec::new(),
                flushed: 0,
                until,
            }));
            let events: Rc<RefCell<dyn Events>> = client.clone();
            wire.tell(Rc::downgrade(&events));
            made = Some(client.clone());
            Ok(vec![client])
        })
        .unwrap();
        made
    }

    /// Takes so many connections, and on each reads a message of that length and answers with its bytes, then closes.
    fn echo(connections: usize, length: usize) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let all: Vec<_> = (0..connections).map(|_| listener.accept().unwrap().0).collect();
            for mut stream in all {
                let mut message = vec![0; length];
                stream.read_exact(&mut message).unwrap();
                stream.write_all(&message).unwrap();
            }
        });
        address
    }

    #[test]
    fn messages_larger_than_all_room_come_back_whole() {
        let message: Vec<u8> = (0..12_000_000u32).map(|n| (n % 251) as u8).collect();
        let to = echo(1, message.len());
        let Some(client) = client(to, 1, &message) else { return };
        let client = client.borrow();
        assert!(client.came[0] == message);
        assert_eq!((client.flushed, &client.ends[..]), (1, &[Ok(())][..]));
    }

    #[test]
    fn more_connections_than_buffers_lose_nothing() {
        let connections = u32::from(Uring::BUFFERS) * 5;
        let to = echo(connections as usize, 40_000);
        let Some(client) = client(to, connections, &[b'x'; 40_000]) else { return };
        let client = client.borrow();
        assert!(client.came.iter().all(|bytes| bytes.len() == 40_000));
        assert!(client.ends.iter().all(Result::is_ok));
    }

    #[test]
    fn answers_that_come_all_at_once_are_not_waited_for_over_and_over() {
        let connections = 300;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let (answered, until) = mpsc::channel();
        thread::spawn(move || {
            let mut all: Vec<_> = (0..connections).map(|_| listener.accept().unwrap().0).collect();
            for stream in &mut all {
                stream.read_exact(&mut [0; 2]).unwrap();
                stream.write_all(b"hello").unwrap();
            }
            answered.send(()).unwrap();
        });
        let Some(client) = held_client(to, connections, b"hi", Some(until)) else { return };
        let client = client.borrow();
        assert!(client.came.iter().all(|bytes| bytes == b"hello") && client.ends.iter().all(Result::is_ok));
        // Once at first, and once or twice more for want of a buffer; not all that are left with every few buffers.
        let armed = client.wire.ring.armed.get();
        assert!((connections..5 * connections).contains(&armed), "{armed} times");
    }

    #[test]
    fn a_refused_connection_is_told_of() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let Some(client) = client(free, 3, b"hello") else { return };
        assert_eq!(client.borrow().ends, [Err(io::ErrorKind::ConnectionRefused); 3]);
    }

    /// On each connection, asks again as soon as it has been answered, so many times; then closes.
    struct Asker {
        wire: DirectWire,
        to: SocketAddr,
        connections: u32,
        rounds: usize,
        begun: bool,
        asked: Vec<usize>,
        /// By connection: how many of its sends went with others, and when it was told of the last.
        gathered: Vec<usize>,
        told: Vec<Instant>,
        open: u32,
    }

    impl Asker {
        fn ask(&mut self, conn: ConnId) {
            let slot = conn.slot as usize;
            self.asked[slot] += 1;
            if self.wire.send_soon(conn, b"ask", b"ed").unwrap().is_none() {
                self.gathered[slot] += 1;
            }
        }
    }

    impl Part for Asker {
        fn turn(&mut self, _now: Instant) -> Next {
            if !std::mem::replace(&mut self.begun, true) {
                (0..self.connections).for_each(|slot| self.wire.connect(ConnId { slot, epoch: 1 }, self.to));
            }
            if self.open == 0 { Next::ENDED } else { Next::at(Instant::NEVER) }
        }
    }

    impl Events for Asker {
        fn connected(&mut self, conn: ConnId, result: io::Result<u16>, _at: Instant) -> Instant {
            result.unwrap();
            self.ask(conn);
            Instant::NEVER
        }

        fn received(&mut self, conn: ConnId, bytes: &[u8], at: Instant) -> Instant {
            let slot = conn.slot as usize;
            assert_eq!(bytes, b"asked", "each request comes back whole, and by itself");
            assert!(self.told[slot] <= at, "told of the send before its answer");
            if self.asked[slot] < self.rounds {
                self.ask(conn);
            } else {
                // The other connections' requests that wait must go all the same.
                self.wire.close(conn);
                self.open -= 1;
            }
            Instant(1)
        }

        fn sent(&mut self, conn: ConnId, sent: Sent) -> Instant {
            assert!(sent.first.is_set() && sent.last.is_some_and(|last| sent.first <= last));
            assert!(self.told[conn.slot as usize] <= sent.first);
            self.told[conn.slot as usize] = sent.first;
            Instant::NEVER
        }

        fn flushed(&mut self, _conn: ConnId, _at: Instant) -> Instant {
            Instant::NEVER
        }

        fn closed(&mut self, _conn: ConnId, how: io::Result<()>, _at: Instant) -> Instant {
            panic!("nobody closes before the last answer: {how:?}");
        }
    }

    #[test]
    fn gathered_requests_each_go_once_and_are_told_of() {
        if !is_to_be_had() {
            return;
        }
        let (connections, rounds) = (40, 30);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        thread::spawn(move || {
            let mut all: Vec<_> = (0..connections).map(|_| listener.accept().unwrap().0).collect();
            for _ in 0..rounds {
                // All of a round together, so that the answers come together too.
                let mut message = [0; 5];
                all.iter_mut().for_each(|stream| stream.read_exact(&mut message).unwrap());
                all.iter_mut().for_each(|stream| stream.write_all(&message).unwrap());
            }
        });
        let mut made = None;
        run(false, None, |ring| {
            let asker = Rc::new(RefCell::new(Asker {
                wire: ring.wire(),
                to,
                connections,
                rounds,
                begun: false,
                asked: vec![0; connections as usize],
                gathered: vec![0; connections as usize],
                told: vec![Instant::UNSET; connections as usize],
                open: connections,
            }));
            let events: Rc<RefCell<dyn Events>> = asker.clone();
            asker.borrow().wire.tell(Rc::downgrade(&events));
            made = Some(asker.clone());
            Ok(vec![asker])
        })
        .unwrap();
        let asker = made.unwrap();
        let asker = asker.borrow();
        assert!(asker.asked.iter().all(|&n| n == rounds));
        assert!(asker.gathered.iter().sum::<usize>() > 0, "none waited for another");
        assert!(asker.gathered.iter().zip(&asker.told).all(|(&n, told)| (n > 0) == told.is_set()));
    }

    /// On each connection asks, and asks again once it is answered; when that ends, asks once more on another connection.
    struct Returner {
        wire: DirectWire,
        to: SocketAddr,
        connections: u32,
        begun: bool,
        /// By slot: the connection that has it.
        epochs: Vec<u32>,
        asked: u32,
        answered: u32,
        ends: u32,
        /// When each has asked, nothing goes on before this says so.
        until: Option<mpsc::Receiver<()>>,
    }

    impl Part for Returner {
        fn turn(&mut self, _now: Instant) -> Next {
            if !std::mem::replace(&mut self.begun, true) {
                (0..self.connections).for_each(|slot| self.wire.connect(ConnId { slot, epoch: 0 }, self.to));
            }
            if self.answered == 2 * self.connections { Next::ENDED } else { Next::at(Instant::NEVER) }
        }
    }

    impl Events for Returner {
        fn connected(&mut self, conn: ConnId, result: io::Result<u16>, at: Instant) -> Instant {
            result.unwrap();
            self.wire.send(conn, b"ask", b"ed!").unwrap();
            self.asked += 1;
            if let Some(until) = self.until.take_if(|_| self.asked == self.connections) {
                until.recv().unwrap();
            }
            at
        }

        fn received(&mut self, conn: ConnId, bytes: &[u8], at: Instant) -> Instant {
            assert_eq!((bytes, conn.epoch), (&b"asked"[..], self.epochs[conn.slot as usize]));
            self.answered += 1;
            if conn.epoch == 0 {
                let _ = self.wire.send_soon(conn, b"ask", b"ed!");
            }
            at
        }

        fn flushed(&mut self, _conn: ConnId, _at: Instant) -> Instant {
            Instant::NEVER
        }

        fn closed(&mut self, conn: ConnId, how: io::Result<()>, at: Instant) -> Instant {
            assert_eq!((how.is_err(), conn.epoch), (true, 0), "the second connection stands: {how:?}");
            self.ends += 1;
            self.wire.close(conn);
            self.epochs[conn.slot as usize] = 1;
            self.wire.connect(ConnId { epoch: 1, ..conn }, self.to);
            at
        }
    }

    #[test]
    fn a_reset_after_an_answer_is_not_charged_to_the_next_connection() {
        if !is_to_be_had() {
            return;
        }
        let connections = 8;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let (reset, until) = mpsc::channel();
        let server = thread::spawn(move || {
            let mut all: Vec<_> = (0..connections).map(|_| listener.accept().unwrap().0).collect();
            all.iter_mut().for_each(|stream| {
                stream.read_exact(&mut [0; 5]).unwrap();
                stream.write_all(b"asked").unwrap();
            });
            // One byte was not read: closing resets.
            drop(all);
            reset.send(()).unwrap();
            let again: Vec<_> = (0..connections).map(|_| listener.accept().unwrap().0).collect();
            again
                .into_iter()
                .map(|mut stream| {
                    stream.read_exact(&mut [0; 6]).unwrap();
                    stream.write_all(b"asked").unwrap();
                    stream
                })
                .collect::<Vec<_>>()
        });
        let mut made = None;
        run(false, None, |ring| {
            let returner = Rc::new(RefCell::new(Returner {
                wire: ring.wire(),
                to,
                connections,
                begun: false,
                epochs: vec![0; connections as usize],
                asked: 0,
                answered: 0,
                ends: 0,
                until: Some(until),
            }));
            let events: Rc<RefCell<dyn Events>> = returner.clone();
            returner.borrow().wire.tell(Rc::downgrade(&events));
            made = Some(returner.clone());
            Ok(vec![returner])
        })
        .unwrap();
        assert_eq!(made.unwrap().borrow().ends, connections);
        server.join().unwrap();
    }

    #[test]
    fn tags_come_back() {
        for op in [Op::Connect, Op::Receive, Op::Room, Op::Bell, Op::Cancel, Op::Send, Op::Accept] {
            for (place, generation) in [(0, 0), (123_456_789, u32::MAX), ((1 << PLACE_BITS) - 1, 1)] {
                assert_eq!(untag(tag(op, place, generation)), (op, place, generation));
            }
        }
    }
}
