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
//! The kernel must be 6.1 or later (single issuer, deferred task work, multishot receive, buffer rings); [`refusal`]
//! tries.

mod door;

use super::gather::Gathered;
use super::ports::Ports;
use super::reactor::{Doorbell, LEAD, SharedPart, is_near, turn_all};
use super::socket::{JOIN, send_now};
use super::{ConnId, Events, Sent, Tells, Wire};
use crate::clock::{self, Instant, SECOND};
use door::Door;
use io_uring::types::{BufRingEntry, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use memmap2::MmapMut;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::mem::ManuallyDrop;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

/// Submissions between two system calls; a full queue is flushed.
const SUBMISSIONS: u32 = 1024;

/// Completions that find room without the kernel putting them aside.
const COMPLETIONS: u32 = 8192;

/// Receive buffers a thread has: a receive that finds none is armed again once some are back. Few in tests, so that they
/// run out.
const BUFFERS: u16 = if cfg!(test) { 8 } else { 256 };

/// Bytes a read can bring.
const BUFFER: usize = 16 * 1024;

/// The group the kernel takes receive buffers from.
const GROUP: u16 = 0;

/// Why such a ring cannot be had here, as a sentence part; `None` if it can. Found out by trying: an old kernel, seccomp,
/// the sysctl and RLIMIT_MEMLOCK all show.
pub fn refusal() -> Option<String> {
    let error = Ring::new(None).err()?;
    Some(format!("the kernel refuses a ring with multishot receives here ({error})"))
}

/// The sockets of one executor on its thread's ring.
#[derive(Clone)]
pub struct DirectWire {
    ring: Rc<Ring>,
    owner: u32,
}

/// A thread's ring and the sockets on it.
pub struct Ring {
    uring: RefCell<IoUring>,
    buffers: RefCell<Buffers>,
    sockets: RefCell<Sockets>,
    owners: RefCell<Vec<Owner>>,
    /// Listeners by number; none where it is just being told of somebody, or has failed.
    doors: RefCell<Vec<Option<Door>>>,
    bell: Option<Arc<Doorbell>>,
    ports: Ports,
    /// The earliest time for which an owner asked for a turn since the last.
    wanted: Cell<Instant>,
    /// Room to put a request together in.
    joined: RefCell<Vec<u8>>,
    /// Sends that wait, and those that were handed over last and are being told.
    gathered: RefCell<Gathered>,
    handed: RefCell<Gathered>,
    /// Completions of the pass under way that have not been told yet.
    untold: RefCell<VecDeque<cqueue::Entry>>,
    /// When the pass under way began; unset between passes.
    passing: Cell<Instant>,
    /// How often a receive was armed.
    #[cfg(test)]
    armed: Cell<u32>,
}

/// One wire's owner and its connections' sockets, by slot.
#[derive(Default)]
struct Owner {
    events: Option<Weak<RefCell<dyn Events>>>,
    links: Vec<Link>,
}

/// The tenant of a slot and its socket.
#[derive(Clone, Copy)]
struct Link {
    epoch: u32,
    socket: u32,
}

/// No socket.
const NONE: u32 = u32::MAX;

#[derive(Default)]
struct Sockets {
    all: Vec<Socket>,
    free: Vec<u32>,
    /// Sockets whose receive found no buffer, in that order.
    starved: VecDeque<u32>,
}

/// A socket. It stays until the kernel has let go of every operation on it.
struct Socket {
    fd: Option<OwnedFd>,
    conn: ConnId,
    owner: u32,
    /// Somebody wants to hear of it.
    live: bool,
    connected: bool,
    /// It was shown a few local ports only.
    narrowed: bool,
    /// Operations the kernel holds.
    pending: u32,
    address: Box<Address>,
    /// Why there is no descriptor.
    fault: Option<io::Error>,
    /// What found no room, and whether the kernel is to say when there is some.
    backlog: Vec<u8>,
    flushing: bool,
}

/// What a completion belongs to: an operation in the low bits, a socket above, or a door.
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

const OP_BITS: u32 = 3;

fn tag(op: Op, socket: u32) -> u64 {
    u64::from(socket) << OP_BITS | op as u64
}

fn untag(data: u64) -> (Op, u32) {
    let op = match data & ((1 << OP_BITS) - 1) {
        0 => Op::Connect,
        1 => Op::Receive,
        2 => Op::Room,
        3 => Op::Bell,
        4 => Op::Cancel,
        6 => Op::Accept,
        _ => Op::Send,
    };
    (op, (data >> OP_BITS) as u32)
}

impl Ring {
    fn new(bell: Option<Arc<Doorbell>>) -> io::Result<Self> {
        let mut builder = IoUring::builder();
        builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag().setup_cqsize(COMPLETIONS);
        let uring = builder.build(SUBMISSIONS)?;
        let buffers = Buffers::register(&uring)?;
        Ok(Self {
            uring: RefCell::new(uring),
            buffers: RefCell::new(buffers),
            sockets: RefCell::default(),
            owners: RefCell::default(),
            doors: RefCell::default(),
            bell,
            ports: Ports::new(),
            wanted: Cell::new(Instant::NEVER),
            joined: RefCell::new(Vec::with_capacity(JOIN)),
            gathered: RefCell::default(),
            handed: RefCell::default(),
            untold: RefCell::default(),
            passing: Cell::new(Instant::UNSET),
            #[cfg(test)]
            armed: Cell::new(0),
        })
    }

    fn submit(&self, entry: &squeue::Entry) {
        let mut uring = self.uring.borrow_mut();
        // SAFETY: what an entry points at (an address, a descriptor) lives in its socket until the operation has ended.
        while unsafe { uring.submission().push(entry) }.is_err() {
            // Full: what is there goes to the kernel. An error shows again at the next wait.
            if uring.submit().is_err() {
                return;
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

    fn complete(&self, entry: &cqueue::Entry) {
        let (op, socket) = untag(entry.user_data());
        match op {
            Op::Connect => self.connect_ended(socket, entry.result()),
            Op::Receive => self.received(socket, entry),
            Op::Room => self.room(socket, entry.result()),
            Op::Send => self.fell_short(socket, entry.result()),
            Op::Accept => self.accepted(socket, entry),
            Op::Bell if !cqueue::more(entry.flags()) => self.listen(),
            Op::Bell | Op::Cancel => {}
        }
    }

    /// Connects a socket again that found all the local ports taken that it was shown; `false` if that is not how it ended.
    fn connects_again(&self, socket: u32, result: i32) -> bool {
        let again = {
            let mut sockets = self.sockets.borrow_mut();
            let entry = &mut sockets.all[socket as usize];
            let is_out = -result == libc::EADDRNOTAVAIL && entry.live && std::mem::take(&mut entry.narrowed);
            entry.raw().filter(|_| is_out).inspect(|&fd| Ports::widen(fd));
            entry.connecting().filter(|_| is_out)
        };
        again.map(|again| self.submit(&again.user_data(tag(Op::Connect, socket)))).is_some()
    }

    fn connect_ended(&self, socket: u32, result: i32) {
        let at = clock::now();
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
            let outcome = match entry.fault.take() {
                Some(fault) => Err(fault),
                None if result < 0 => Err(io::Error::from_raw_os_error(-result)),
                None => entry.settle(),
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
        let fd = {
            let mut sockets = self.sockets.borrow_mut();
            let entry = &mut sockets.all[socket as usize];
            let Some(fd) = entry.raw() else { return };
            entry.pending += 1;
            fd
        };
        #[cfg(test)]
        self.armed.set(self.armed.get() + 1);
        self.submit(&opcode::RecvMulti::new(Fd(fd), GROUP).build().user_data(tag(Op::Receive, socket)));
    }

    fn received(&self, socket: u32, completion: &cqueue::Entry) {
        let at = self.passing.get();
        let (conn, owner, live) = {
            let entry = &self.sockets.borrow().all[socket as usize];
            (entry.conn, entry.owner, entry.live)
        };
        let result = completion.result();
        let buffer = cqueue::buffer_select(completion.flags());
        if let Some(buffer) = buffer.filter(|_| live && result > 0) {
            // SAFETY: the kernel filled that many bytes of this buffer and leaves it alone until it is given back.
            let bytes = unsafe { std::slice::from_raw_parts(Buffers::at(self.base(), buffer), result as usize) };
            self.tell(owner, |events| events.received(conn, bytes, at));
        }
        if let Some(buffer) = buffer {
            self.buffers.borrow_mut().give_back(buffer);
        }
        if !cqueue::more(completion.flags()) {
            self.receive_ended(socket, result);
        }
    }

    /// The kernel has let go of a receive.
    fn receive_ended(&self, socket: u32, result: i32) {
        if -result == libc::ENOBUFS {
            return self.sockets.borrow_mut().starved.push_back(socket);
        }
        let (conn, owner) = {
            let mut sockets = self.sockets.borrow_mut();
            let entry = &mut sockets.all[socket as usize];
            entry.pending -= 1;
            if !entry.live {
                return sockets.let_go(socket);
            }
            (entry.conn, entry.owner)
        };
        if result > 0 {
            // It may end one that it could go on with.
            return self.arm(socket);
        }
        let how = if result == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-result)) };
        self.end(socket);
        self.tell(owner, |events| events.closed(conn, how, clock::now()));
    }

    fn base(&self) -> *const u8 {
        self.buffers.borrow().data.as_ptr()
    }

    /// Receives that found no buffer are armed again, those first that have waited longest: by now all buffers of the last
    /// pass are back. No more than find one: where thousands wait, all others would be armed and starve once more with each
    /// pass.
    fn feed_starved(&self) {
        for _ in 0..BUFFERS {
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
        let at = clock::now();
        let (conn, owner, done) = {
            let mut sockets = self.sockets.borrow_mut();
            let entry = &mut sockets.all[socket as usize];
            entry.pending -= 1;
            entry.flushing = false;
            if !entry.live {
                return sockets.let_go(socket);
            }
            // A broken connection shows at the receive.
            let Some(fd) = entry.raw().filter(|_| result >= 0) else { return };
            let Ok(taken) = send_now(fd, &entry.backlog, &[], &mut Vec::new()) else { return };
            entry.backlog.drain(..taken);
            (entry.conn, entry.owner, entry.backlog.is_empty())
        };
        if done {
            self.tell(owner, |events| events.flushed(conn, at));
        } else {
            self.wait_for_room(socket);
        }
    }

    fn wait_for_room(&self, socket: u32) {
        let fd = {
            let mut sockets = self.sockets.borrow_mut();
            let entry = &mut sockets.all[socket as usize];
            let Some(fd) = entry.raw() else { return };
            if std::mem::replace(&mut entry.flushing, true) {
                return;
            }
            entry.pending += 1;
            fd
        };
        self.submit(&opcode::PollAdd::new(Fd(fd), libc::POLLOUT as u32).build().user_data(tag(Op::Room, socket)));
    }

    /// Keeps a send until the pass under way hands over what has gathered; `false` if it cannot wait.
    fn gather(&self, (socket, owner, conn): (u32, u32, ConnId), head: &[u8], body: &[u8]) -> bool {
        if !self.passing.get().is_set() {
            return false;
        }
        let fd = {
            let sockets = self.sockets.borrow();
            let entry = &sockets.all[socket as usize];
            match entry.raw() {
                Some(fd) if entry.connected && !entry.flushing && entry.backlog.is_empty() => fd,
                _ => return false,
            }
        };
        let Some((bytes, len)) = self.gathered.borrow_mut().add((socket, owner, conn), head, body) else {
            return false;
        };
        // Taken whole, or not waited for: a completion comes only where something is left.
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT | libc::MSG_WAITALL;
        let entry = opcode::Send::new(Fd(fd), bytes, len).flags(flags).build();
        self.submit(&entry.flags(squeue::Flags::SKIP_SUCCESS).user_data(tag(Op::Send, socket)));
        true
    }

    /// Gives the kernel the sends that have gathered.
    fn submit_gathered(&self) {
        let mut uring = self.uring.borrow_mut();
        let first = clock::now();
        loop {
            let left = uring.submission().len() as u32;
            if left == 0 {
                break;
            }
            // What has come meanwhile is had by the same call.
            // SAFETY: no argument is passed.
            if unsafe { uring.submitter().enter::<libc::sigset_t>(left, 0, GETEVENTS, None) }.is_err() {
                // They stay in the queue, and go with the next call.
                return;
            }
        }
        self.gathered.borrow_mut().handed_over(first, clock::now());
    }

    /// Hands over the sends that have gathered and tells when that was.
    fn hand_over(&self) {
        if self.gathered.borrow().sends.is_empty() {
            return;
        }
        self.submit_gathered();
        if self.gathered.borrow().sends.iter().any(|send| !send.first.is_set()) {
            return;
        }
        self.gathered.swap(&self.handed);
        // Those that fell short say so at once, while their bytes are at hand.
        let came: Vec<_> = self.uring.borrow_mut().completion().collect();
        for entry in came {
            match untag(entry.user_data()) {
                (Op::Send, socket) => self.fell_short(socket, entry.result()),
                _ => self.untold.borrow_mut().push_back(entry),
            }
        }
        let n = self.handed.borrow().sends.len();
        for k in 0..n {
            let send = self.handed.borrow().sends[k];
            let is_its = {
                let sockets = self.sockets.borrow();
                let entry = &sockets.all[send.socket as usize];
                entry.live && entry.conn == send.conn
            };
            if is_its {
                let last = (!send.fell_short).then_some(send.last);
                self.tell(send.owner, |events| events.sent(send.conn, Sent { first: send.first, last }));
            }
        }
        self.handed.borrow_mut().clear();
    }

    /// The kernel has not taken all of a gathered send.
    #[cold]
    fn fell_short(&self, socket: u32, result: i32) {
        let (conn, owner, broken) = {
            let (handed, mut sockets) = (self.handed.borrow_mut(), self.sockets.borrow_mut());
            // They went with a later call than their own if that one was refused.
            let mut gathered = if handed.sends.is_empty() { self.gathered.borrow_mut() } else { handed };
            let entry = &mut sockets.all[socket as usize];
            if !entry.live {
                return;
            }
            let rest = gathered.fell_short(socket, result);
            let broken = rest.map(|rest| entry.backlog.extend_from_slice(rest)).err();
            (entry.conn, entry.owner, broken)
        };
        match broken {
            None => self.wait_for_room(socket),
            Some(e) => {
                self.end(socket);
                self.tell(owner, |events| events.closed(conn, Err(e), clock::now()));
            }
        }
    }

    /// Nobody wants to hear of the socket any more.
    fn end(&self, socket: u32) {
        if self.gathered.borrow().holds(socket) {
            // Its descriptor may mean another connection by the time they go.
            self.submit_gathered();
        }
        let cancel = {
            let mut sockets = self.sockets.borrow_mut();
            let entry = &mut sockets.all[socket as usize];
            if !std::mem::replace(&mut entry.live, false) {
                return;
            }
            let connecting = !entry.connected && entry.pending > 0;
            if let Some(fd) = entry.raw() {
                // SAFETY: the descriptor is open; this ends the receive that holds it.
                unsafe { libc::shutdown(fd, libc::SHUT_RDWR) };
            }
            sockets.let_go(socket);
            connecting
        };
        if cancel {
            self.submit(&opcode::AsyncCancel::new(tag(Op::Connect, socket)).build().user_data(tag(Op::Cancel, 0)));
        }
    }
}

impl Sockets {
    fn add(&mut self, fd: io::Result<OwnedFd>, conn: ConnId, owner: u32, to: SocketAddr) -> u32 {
        let (fd, fault) = match fd {
            Ok(fd) => (Some(fd), None),
            Err(e) => (None, Some(e)),
        };
        let socket = Socket {
            fd,
            fault,
            conn,
            owner,
            live: true,
            connected: false,
            narrowed: false,
            pending: 1,
            address: Box::new(Address::from(to)),
            backlog: Vec::new(),
            flushing: false,
        };
        match self.free.pop() {
            Some(at) => {
                self.all[at as usize] = socket;
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

impl Socket {
    fn raw(&self) -> Option<i32> {
        self.fd.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// The operation that connects it.
    fn connecting(&self) -> Option<squeue::Entry> {
        let (address, len) = (self.address.as_ptr(), self.address.len());
        self.raw().map(|fd| opcode::Connect::new(Fd(fd), address, len).build())
    }

    /// Makes a connected socket ready to use; its local port.
    fn settle(&self) -> io::Result<u16> {
        let fd = self.raw().ok_or(io::ErrorKind::NotConnected)?;
        // SAFETY: the descriptor is open and stays the socket's own: it is not closed here.
        let stream = ManuallyDrop::new(unsafe { TcpStream::from_raw_fd(fd) });
        stream.set_nodelay(true)?;
        Ok(stream.local_addr()?.port())
    }
}

impl DirectWire {
    fn link(&self, conn: ConnId) -> Option<u32> {
        let owners = self.ring.owners.borrow();
        let link = owners[self.owner as usize].links.get(conn.slot as usize)?;
        (link.epoch == conn.epoch && link.socket != NONE).then_some(link.socket)
    }
}

impl Tells for DirectWire {
    fn tell(&self, events: Weak<RefCell<dyn Events>>) {
        self.ring.owners.borrow_mut()[self.owner as usize].events = Some(events);
    }
}

impl Wire for DirectWire {
    fn now(&self) -> Instant {
        clock::now()
    }

    fn connect(&mut self, conn: ConnId, to: SocketAddr) {
        let ring = &self.ring;
        let (socket, entry) = {
            let mut sockets = ring.sockets.borrow_mut();
            let socket = sockets.add(open(to), conn, self.owner, to);
            let added = &mut sockets.all[socket as usize];
            added.narrowed = added.raw().is_some_and(|fd| ring.ports.narrow(fd));
            // What has no descriptor is told as every failed attempt is: by a completion, never from within the call.
            let entry = added.connecting().unwrap_or_else(|| opcode::Nop::new().build());
            (socket, entry.user_data(tag(Op::Connect, socket)))
        };
        ring.set_link(self.owner, conn, socket);
        ring.submit(&entry);
    }

    fn send(&mut self, conn: ConnId, head: &[u8], body: &[u8]) -> io::Result<Sent> {
        let socket = self.link(conn).ok_or(io::ErrorKind::NotConnected)?;
        let first = clock::now();
        {
            let mut sockets = self.ring.sockets.borrow_mut();
            let entry = &mut sockets.all[socket as usize];
            let Some(fd) = entry.raw().filter(|_| entry.connected) else {
                return Err(io::ErrorKind::NotConnected.into());
            };
            let waits = entry.flushing || !entry.backlog.is_empty();
            let taken = if waits { 0 } else { send_now(fd, head, body, &mut self.ring.joined.borrow_mut())? };
            if taken == head.len() + body.len() {
                return Ok(Sent { first, last: Some(clock::now()) });
            }
            let (from_head, from_body) = (taken.min(head.len()), taken.saturating_sub(head.len()));
            entry.backlog.extend_from_slice(&head[from_head..]);
            entry.backlog.extend_from_slice(&body[from_body..]);
        }
        self.ring.wait_for_room(socket);
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
            self.ring.set_link(self.owner, conn, NONE);
            self.ring.end(socket);
        }
    }
}

/// A socket that does not block, for an address of this family.
fn open(to: SocketAddr) -> io::Result<OwnedFd> {
    let family = if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: socket takes no pointers; a non-negative result is a descriptor that nobody else owns.
    unsafe {
        let fd = libc::socket(family, libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
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

/// The buffers that the kernel receives into, and the ring through which they are given to it.
struct Buffers {
    /// [`BUFFERS`] entries.
    entries: MmapMut,
    data: MmapMut,
    tail: u16,
}

impl Buffers {
    fn register(uring: &IoUring) -> io::Result<Self> {
        let entries = MmapMut::map_anon(usize::from(BUFFERS) * size_of::<BufRingEntry>())?;
        let data = MmapMut::map_anon(usize::from(BUFFERS) * BUFFER)?;
        // SAFETY: the entries are page-aligned and live as long as the ring, beside which they are kept.
        unsafe { uring.submitter().register_buf_ring(entries.as_ptr() as u64, BUFFERS, GROUP)? };
        let mut buffers = Self { entries, data, tail: 0 };
        for buffer in 0..BUFFERS {
            buffers.give_back(buffer);
        }
        Ok(buffers)
    }

    fn at(base: *const u8, buffer: u16) -> *const u8 {
        // SAFETY: buffer numbers come from the kernel, which has them from us: all are below BUFFERS.
        unsafe { base.add(usize::from(buffer) * BUFFER) }
    }

    fn give_back(&mut self, buffer: u16) {
        let base: *mut BufRingEntry = self.entries.as_mut_ptr().cast();
        // SAFETY: the index is below BUFFERS; the kernel does not read the entry before the tail has passed it.
        unsafe {
            let entry = &mut *base.add(usize::from(self.tail % BUFFERS));
            entry.set_addr(Self::at(self.data.as_ptr(), buffer) as u64);
            entry.set_len(BUFFER as u32);
            entry.set_bid(buffer);
            self.tail = self.tail.wrapping_add(1);
            // The tail lies over the first entry's last field; the kernel reads it with acquire.
            (*BufRingEntry::tail(base).cast::<AtomicU16>()).store(self.tail, Ordering::Release);
        }
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
    let ring = Rc::new(Ring::new(bell.clone())?);
    let parts = build(&ring)?;
    clock::sharpen_sleeps();
    ring.listen();
    loop {
        let mut next = turn_all(&parts);
        if next.ended {
            return Ok(());
        }
        if spin || is_near(next.at) {
            ring.pass(None)?;
            continue;
        }
        if let Some(bell) = &bell {
            bell.settle();
            next = turn_all(&parts);
        }
        if !next.ended && !is_near(next.at) {
            ring.sleep(next.at)?;
        }
        if let Some(bell) = &bell {
            bell.clear();
        }
    }
}

impl Ring {
    /// A wire on this ring.
    pub fn wire(self: &Rc<Self>) -> DirectWire {
        let mut owners = self.owners.borrow_mut();
        owners.push(Owner::default());
        DirectWire { ring: self.clone(), owner: owners.len() as u32 - 1 }
    }

    /// Has the kernel say when the bell rings, each time.
    fn listen(&self) {
        if let Some(bell) = &self.bell {
            let poll = opcode::PollAdd::new(Fd(bell.fd()), libc::POLLIN as u32).multi(true).build();
            self.submit(&poll.user_data(tag(Op::Bell, 0)));
        }
    }

    /// Passes over the completions as they come until shortly before `until`, or until somebody wants a turn.
    fn sleep(&self, mut until: Instant) -> io::Result<()> {
        self.wanted.set(Instant::NEVER);
        loop {
            let rang = self.pass(Some(until.before(LEAD)))?;
            until = until.min(self.wanted.get());
            if rang || until <= clock::now().after(LEAD) {
                return Ok(());
            }
        }
    }

    /// Hands over submissions, waits until the time given or not at all, and tells of every completion there is by then; says
    /// whether the bell was among them. What comes while it tells is left for the next pass, so that each ends.
    fn pass(&self, until: Option<Instant>) -> io::Result<bool> {
        // A receive armed while no buffer was left starved whether anything had come or not: those that were armed since may
        // have nothing to tell, and others something.
        let waits = self.sockets.borrow().starved.is_empty() && self.untold.borrow().is_empty();
        self.enter(until.filter(|_| waits))?;
        self.untold.borrow_mut().extend(self.uring.borrow_mut().completion());
        let mut rang = false;
        let n = self.untold.borrow().len();
        if n > 0 {
            self.passing.set(clock::now());
            for _ in 0..n {
                if self.gathered.borrow().is_full() {
                    self.hand_over();
                }
                let Some(entry) = self.untold.borrow_mut().pop_front() else { break };
                rang |= untag(entry.user_data()).0 == Op::Bell;
                self.complete(&entry);
            }
            self.hand_over();
            self.passing.set(Instant::UNSET);
        }
        self.feed_starved();
        Ok(rang)
    }

    fn enter(&self, until: Option<Instant>) -> io::Result<()> {
        let mut uring = self.uring.borrow_mut();
        let (submissions, task) = {
            let queue = uring.submission();
            (queue.len() as u32, queue.taskrun() || queue.cq_overflow())
        };
        let ready = !uring.completion().is_empty();
        let wait = until.filter(|_| !ready).map(|until| until.since(clock::now())).filter(|&wait| wait > 0);
        let submitter = uring.submitter();
        let result = match wait {
            Some(wait) => {
                let time = Timespec::new().sec(wait / SECOND).nsec((wait % SECOND) as u32);
                let forever = until == Some(Instant::NEVER.before(LEAD));
                let args = if forever { SubmitArgs::new() } else { SubmitArgs::new().timespec(&time) };
                submitter.submit_with_args(1, &args)
            }
            None if submissions > 0 || task => {
                // SAFETY: no argument is passed.
                unsafe { submitter.enter::<libc::sigset_t>(submissions, 0, GETEVENTS, None) }
            }
            None => return Ok(()),
        };
        match result {
            Ok(_) => Ok(()),
            // The time is up; a signal came; completions must be taken first.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)) => {
                Ok(())
            }
            Err(e) => Err(e),
        }
    }
}

/// `IORING_ENTER_GETEVENTS`: run what the kernel has put off and post its completions.
const GETEVENTS: u32 = 1;

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
        if let Some(why) = refusal() {
            eprintln!("skipped: {why}");
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
        let connections = u32::from(BUFFERS) * 5;
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
        if let Some(why) = refusal() {
            return eprintln!("skipped: {why}");
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

    #[test]
    fn tags_come_back() {
        for op in [Op::Connect, Op::Receive, Op::Room, Op::Bell, Op::Cancel, Op::Send] {
            assert_eq!(untag(tag(op, 123_456_789)), (op, 123_456_789));
        }
    }
}
