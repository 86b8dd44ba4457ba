//! What a ring asks of the kernel, and the kernel itself. The simulator stands in for it with one that fails, falls short and
//! puts off whatever it may.

use crate::clock::{self, Instant, SECOND};
use crate::net::ports::Ports;
use crate::net::reactor::LEAD;
use crate::net::socket::{JOIN, send_now};
use crate::net::{Liveness, options};
use io_uring::types::{BufRingEntry, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode, squeue};
use memmap2::MmapMut;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::mem::ManuallyDrop;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU16, Ordering};

/// Submissions between two system calls; a full queue is flushed.
const SUBMISSIONS: u32 = 1024;

/// Completions that find room without the kernel putting them aside.
const COMPLETIONS: u32 = 8192;

/// Bytes a read can bring.
const BUFFER: usize = 16 * 1024;

/// The group the kernel takes receive buffers from.
const GROUP: u16 = 0;

/// An operation that is put in the queue of submissions.
#[derive(Debug, Clone, Copy)]
pub enum Operation {
    /// Does nothing.
    Nothing,
    /// Connects a socket.
    Connect {
        /// The socket.
        fd: RawFd,
        /// Where to; read until the operation has ended.
        address: *const libc::sockaddr,
        /// Bytes of the address.
        len: libc::socklen_t,
    },
    /// Receives into shared buffers, one completion after the other, as long as the connection lasts.
    Receive {
        /// The socket.
        fd: RawFd,
    },
    /// Tells when a socket has room to send.
    Room {
        /// The socket.
        fd: RawFd,
    },
    /// Sends what finds room at once. A completion comes only if it fails or falls short.
    Send {
        /// The socket.
        fd: RawFd,
        /// What to send; read only by the call that takes the operation up.
        bytes: *const u8,
        /// How many bytes.
        len: u32,
    },
    /// Takes connections in, as long as the listener stands.
    Accept {
        /// The listener.
        fd: RawFd,
    },
    /// Tells each time that a bell is rung.
    Bell {
        /// The bell.
        fd: RawFd,
    },
    /// Cancels the operation that bears the tag.
    Cancel {
        /// The tag.
        of: u64,
    },
}

/// What the kernel says of an operation.
#[derive(Debug, Clone, Copy)]
pub struct Completion {
    /// The operation's tag.
    pub tag: u64,
    /// What came of it: a count, or an error's number below zero.
    pub result: i32,
    /// Flags as the kernel sets them.
    pub flags: u32,
}

/// `IORING_CQE_F_BUFFER` and `IORING_CQE_F_MORE`.
const HAS_BUFFER: u32 = 1;
const MORE: u32 = 2;

impl Completion {
    /// A completion with these parts.
    pub fn new(tag: u64, result: i32, buffer: Option<u16>, more: bool) -> Self {
        let flags = buffer.map_or(0, |buffer| HAS_BUFFER | u32::from(buffer) << 16) | if more { MORE } else { 0 };
        Self { tag, result, flags }
    }

    /// Whether others of the same operation will follow.
    pub fn more(&self) -> bool {
        self.flags & MORE != 0
    }

    /// The buffer that holds what was received.
    pub fn buffer(&self) -> Option<u16> {
        (self.flags & HAS_BUFFER != 0).then_some((self.flags >> 16) as u16)
    }
}

/// A ring's kernel: two queues, receive buffers, and the system calls that sockets need besides.
pub trait Kernel {
    /// A descriptor; it is closed when it is dropped.
    type Descriptor: AsRawFd;
    /// How many receive buffers there are.
    const BUFFERS: u16;

    /// The time.
    fn now(&self) -> Instant;

    /// Queues an operation; returns how many wait in the queue with it, or `None` if the queue is full.
    ///
    /// # Safety
    /// What the operation points at must stay as long as [`Operation`] says, and its descriptor must stay open until it has
    /// ended.
    unsafe fn push(&self, operation: Operation, tag: u64) -> Option<u32>;

    /// How many operations the kernel has not taken from the queue.
    fn queued(&self) -> u32;

    /// Has the kernel take what is queued, in that order, and post what has completed. With a time it waits for a completion
    /// until then if there is none. It makes no system call if there is nothing to do.
    ///
    /// # Errors
    /// The kernel refused, or the wait ended without a completion. What it has not taken stays queued.
    fn enter(&self, until: Option<Instant>) -> io::Result<()>;

    /// Takes all completions there are.
    fn reap(&self, into: &mut VecDeque<Completion>);

    /// Whether the kernel has put completions aside for want of room: the next [`enter`](Self::enter) posts them.
    fn has_put_aside(&self) -> bool;

    /// Where a receive buffer begins.
    fn buffer(&self, buffer: u16) -> *const u8;

    /// Gives a receive buffer to the kernel again.
    fn give_back(&self, buffer: u16);

    /// A socket that does not block, for an address of this family.
    ///
    /// # Errors
    /// There is none to be had.
    fn socket(&self, to: SocketAddr) -> io::Result<Self::Descriptor>;

    /// A descriptor that an accept has made.
    ///
    /// # Safety
    /// It must come from a completion, and be taken once.
    unsafe fn adopt(&self, fd: RawFd) -> Self::Descriptor;

    /// Shows an unbound socket a few local ports; `false` if it has all.
    fn narrow(&self, fd: RawFd) -> bool;

    /// Shows a socket all local ports again.
    fn widen(&self, fd: RawFd);

    /// Makes a connected socket ready to use; its local port.
    ///
    /// # Errors
    /// The socket's settings are refused.
    fn settle(&self, fd: RawFd) -> io::Result<u16>;

    /// Says when a connected socket's peer is to be given up that no longer answers.
    ///
    /// # Errors
    /// The socket's settings are refused.
    fn watch(&self, fd: RawFd, liveness: Option<Liveness>) -> io::Result<()> {
        let _ = (fd, liveness);
        Ok(())
    }

    /// How many of the bytes sent on a socket its peer, whose end has come, had got; `None` where that is not known.
    fn acknowledged(&self, fd: RawFd) -> Option<u64> {
        let _ = fd;
        None
    }

    /// Sends at once what finds room: how many bytes did.
    ///
    /// # Errors
    /// The connection is gone.
    fn send(&self, fd: RawFd, head: &[u8], body: &[u8]) -> io::Result<usize>;

    /// Ends both ways of a connection, which ends the receive that holds it.
    fn shut(&self, fd: RawFd);
}

/// The kernel under us.
pub struct Uring {
    // First: closing the ring ends what the kernel may do with the buffers below. Fields are dropped in their order.
    uring: RefCell<IoUring>,
    buffers: Buffers,
    ports: Ports,
    /// Room to put a request together in.
    joined: RefCell<Vec<u8>>,
}

impl Uring {
    pub(super) fn new() -> io::Result<Self> {
        let mut builder = IoUring::builder();
        builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag().setup_cqsize(COMPLETIONS);
        let uring = builder.build(SUBMISSIONS)?;
        let buffers = Buffers::register(&uring)?;
        let joined = RefCell::new(Vec::with_capacity(JOIN));
        Ok(Self { uring: RefCell::new(uring), buffers, ports: Ports::new(), joined })
    }
}

/// `IORING_ENTER_GETEVENTS`: run what the kernel has put off and post its completions.
const GETEVENTS: u32 = 1;

/// The operation as the kernel reads it.
#[inline(always)]
fn entry(operation: Operation) -> squeue::Entry {
    match operation {
        Operation::Nothing => opcode::Nop::new().build(),
        Operation::Connect { fd, address, len } => opcode::Connect::new(Fd(fd), address, len).build(),
        Operation::Receive { fd } => opcode::RecvMulti::new(Fd(fd), GROUP).build(),
        Operation::Room { fd } => opcode::PollAdd::new(Fd(fd), libc::POLLOUT as u32).build(),
        Operation::Send { fd, bytes, len } => {
            // Taken whole, or not waited for: it has ended when the call that takes it up returns.
            let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT | libc::MSG_WAITALL;
            opcode::Send::new(Fd(fd), bytes, len).flags(flags).build().flags(squeue::Flags::SKIP_SUCCESS)
        }
        Operation::Accept { fd } => {
            opcode::AcceptMulti::new(Fd(fd)).flags(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC).build()
        }
        Operation::Bell { fd } => opcode::PollAdd::new(Fd(fd), libc::POLLIN as u32).multi(true).build(),
        Operation::Cancel { of } => opcode::AsyncCancel::new(of).build(),
    }
}

impl Kernel for Uring {
    type Descriptor = OwnedFd;
    /// Few in tests, so that they run out.
    const BUFFERS: u16 = if cfg!(test) { 8 } else { 256 };

    fn now(&self) -> Instant {
        clock::now()
    }

    // Whoever calls knows which operation it is: nothing is left of the choice between them.
    #[inline(always)]
    unsafe fn push(&self, operation: Operation, tag: u64) -> Option<u32> {
        let mut uring = self.uring.borrow_mut();
        let mut queue = uring.submission();
        // SAFETY: the caller keeps the contract of `push`.
        unsafe { queue.push(&entry(operation).user_data(tag)) }.ok()?;
        Some(queue.len() as u32)
    }

    fn queued(&self) -> u32 {
        self.uring.borrow_mut().submission().len() as u32
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
        result.map(drop)
    }

    fn reap(&self, into: &mut VecDeque<Completion>) {
        let mut uring = self.uring.borrow_mut();
        into.extend(uring.completion().map(|entry| Completion {
            tag: entry.user_data(),
            result: entry.result(),
            flags: entry.flags(),
        }));
    }

    fn has_put_aside(&self) -> bool {
        self.uring.borrow_mut().submission().cq_overflow()
    }

    fn buffer(&self, buffer: u16) -> *const u8 {
        self.buffers.at(buffer)
    }

    fn give_back(&self, buffer: u16) {
        self.buffers.give_back(buffer);
    }

    fn socket(&self, to: SocketAddr) -> io::Result<OwnedFd> {
        let family = if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        // SAFETY: socket takes no pointers; a non-negative result is a descriptor that nobody else owns.
        unsafe {
            let fd = libc::socket(family, libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0);
            if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
        }
    }

    unsafe fn adopt(&self, fd: RawFd) -> OwnedFd {
        // SAFETY: the caller says that nobody else owns it.
        unsafe { OwnedFd::from_raw_fd(fd) }
    }

    fn narrow(&self, fd: RawFd) -> bool {
        self.ports.narrow(fd)
    }

    fn widen(&self, fd: RawFd) {
        Ports::widen(fd);
    }

    fn settle(&self, fd: RawFd) -> io::Result<u16> {
        // SAFETY: the descriptor is open and stays the socket's own: it is not closed here.
        let stream = ManuallyDrop::new(unsafe { TcpStream::from_raw_fd(fd) });
        stream.set_nodelay(true)?;
        Ok(stream.local_addr()?.port())
    }

    fn watch(&self, fd: RawFd, liveness: Option<Liveness>) -> io::Result<()> {
        liveness.map_or(Ok(()), |liveness| options::watch(fd, liveness))
    }

    fn acknowledged(&self, fd: RawFd) -> Option<u64> {
        options::acknowledged(fd)
    }

    fn send(&self, fd: RawFd, head: &[u8], body: &[u8]) -> io::Result<usize> {
        send_now(fd, head, body, &mut self.joined.borrow_mut())
    }

    fn shut(&self, fd: RawFd) {
        // SAFETY: shutdown takes no pointers.
        unsafe { libc::shutdown(fd, libc::SHUT_RDWR) };
    }
}

/// The buffers that the kernel receives into, and the ring through which they are given to it.
struct Buffers {
    /// [`Kernel::BUFFERS`] entries.
    entries: MmapMut,
    data: MmapMut,
    tail: Cell<u16>,
}

const BUFFERS: u16 = Uring::BUFFERS;

impl Buffers {
    fn register(uring: &IoUring) -> io::Result<Self> {
        let entries = MmapMut::map_anon(usize::from(BUFFERS) * size_of::<BufRingEntry>())?;
        let data = MmapMut::map_anon(usize::from(BUFFERS) * BUFFER)?;
        // SAFETY: the entries are page-aligned and outlive the ring, see `Uring`.
        unsafe { uring.submitter().register_buf_ring(entries.as_ptr() as u64, BUFFERS, GROUP)? };
        let buffers = Self { entries, data, tail: Cell::new(0) };
        for buffer in 0..BUFFERS {
            buffers.give_back(buffer);
        }
        Ok(buffers)
    }

    fn at(&self, buffer: u16) -> *const u8 {
        // SAFETY: buffer numbers come from the kernel, which has them from us: all are below BUFFERS.
        unsafe { self.data.as_ptr().add(usize::from(buffer) * BUFFER) }
    }

    fn give_back(&self, buffer: u16) {
        let base = self.entries.as_ptr().cast_mut().cast::<BufRingEntry>();
        let tail = self.tail.get();
        // SAFETY: the mapping may be written to and nothing of it is borrowed; the index is below BUFFERS; the kernel does not
        // read the entry before the tail has passed it.
        unsafe {
            let entry = &mut *base.add(usize::from(tail % BUFFERS));
            entry.set_addr(self.at(buffer) as u64);
            entry.set_len(BUFFER as u32);
            entry.set_bid(buffer);
            self.tail.set(tail.wrapping_add(1));
            // The tail lies over the first entry's last field; the kernel reads it with acquire.
            (*BufRingEntry::tail(base).cast::<AtomicU16>()).store(self.tail.get(), Ordering::Release);
        }
    }
}
