//! The wire of sockets: TCP on monoio, one reading task a connection.
//!
//! Reads are the runtime's (io_uring receives, or epoll). Sends are direct system calls from whoever sends: a scheduled
//! request leaves the moment it is released and not with the next batch of submissions (1.8 µs after its stamp instead
//! of about 100 µs). What the kernel has no room for goes on through the runtime.

use super::pulse::Pulse;
use super::reactor::Kick;
use super::{Admit, ConnId, Events, Listens, Liveness, Sent, ServerWire, Tells, Wire, options};
use crate::clock::{self, Instant};
use monoio::io::{AsyncReadRent, AsyncWriteRentExt, OwnedReadHalf, OwnedWriteHalf, Splitable};
use monoio::net::TcpStream;
use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::{Rc, Weak};

/// Who is told what happens.
type Owner = Weak<RefCell<dyn Events>>;

/// Bytes a connection can take from the kernel in one read.
pub const READ_BUFFER: usize = 16 * 1024;

/// The sockets of one thread.
#[derive(Clone)]
pub struct SocketWire(Rc<Inner>);

struct Inner {
    kick: Kick,
    read_buffer: usize,
    liveness: Option<Liveness>,
    /// The connection whose end is just being told, if its peer saw nothing of what was sent on it last.
    unseen: Cell<Option<ConnId>>,
    owner: RefCell<Option<Owner>>,
    links: RefCell<Vec<Link>>,
    /// Room to put a request together in.
    joined: RefCell<Vec<u8>>,
}

/// The sending side of a slot.
struct Link {
    epoch: u32,
    /// -1 while connecting, and once closed.
    fd: RawFd,
    /// Taken by the flushing task while it runs.
    writer: Option<OwnedWriteHalf<TcpStream>>,
    /// Bytes sent before the last send, and with it.
    carried: (u64, u64),
    /// What found no room.
    backlog: Vec<u8>,
    flushing: bool,
}

impl Link {
    const EMPTY: Self = Self { epoch: 0, fd: -1, writer: None, carried: (0, 0), backlog: Vec::new(), flushing: false };
}

impl SocketWire {
    /// No sockets yet. `read_buffer` is the bytes held for each connection's next read; `liveness` what connections are told
    /// of peers that no longer answer.
    pub fn new(kick: &Kick, read_buffer: usize, liveness: Option<Liveness>) -> Self {
        Self(Rc::new(Inner {
            kick: kick.clone(),
            read_buffer,
            liveness,
            unseen: Cell::new(None),
            owner: RefCell::new(None),
            links: RefCell::new(Vec::new()),
            joined: RefCell::new(Vec::with_capacity(JOIN)),
        }))
    }
}

impl Tells for SocketWire {
    fn tell(&self, events: Owner) {
        *self.0.owner.borrow_mut() = Some(events);
    }
}

impl Listens for SocketWire {
    fn listen(&self, listener: std::net::TcpListener, mut admit: Admit) {
        let inner = self.0.clone();
        monoio::spawn(async move {
            let ended = accept_all(&inner, listener, &mut |at| admit(Ok(at))).await;
            if let Err(error) = ended {
                admit(Err(error));
            }
        });
    }
}

/// Accepts until that fails for good: a peer that has gone again fails only itself.
async fn accept_all(
    inner: &Rc<Inner>,
    listener: std::net::TcpListener,
    admit: &mut impl FnMut(Instant) -> Option<ConnId>,
) -> io::Result<()> {
    let listener = monoio::net::TcpListener::from_std(listener)?;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if let Some(conn) = admit(clock::now()) {
                    inner.vacate(conn);
                    monoio::spawn(serve_link(inner.clone(), conn, stream, false));
                }
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {}
            Err(e) => return Err(e),
        }
    }
}

impl Inner {
    /// Makes the slot's link belong to `conn`, not yet connected.
    fn vacate(&self, conn: ConnId) {
        let mut links = self.links.borrow_mut();
        let slot = conn.slot as usize;
        if links.len() <= slot {
            links.resize_with(slot + 1, || Link::EMPTY);
        }
        let backlog = std::mem::take(&mut links[slot].backlog);
        links[slot] = Link { epoch: conn.epoch, backlog, ..Link::EMPTY };
        links[slot].backlog.clear();
    }

    fn is_current(&self, conn: ConnId) -> bool {
        self.links.borrow()[conn.slot as usize].epoch == conn.epoch
    }

    fn tell(&self, f: impl FnOnce(&mut dyn Events) -> Instant) {
        let owner = self.owner.borrow().as_ref().and_then(Weak::upgrade);
        if let Some(owner) = owner {
            let at = f(&mut *owner.borrow_mut());
            self.kick.want(at);
        }
    }
}

impl Wire for SocketWire {
    fn now(&self) -> Instant {
        clock::now()
    }

    fn pulse(&self) -> Option<&Pulse> {
        Some(self.0.kick.pulse())
    }

    fn connect(&mut self, conn: ConnId, to: SocketAddr) {
        self.0.vacate(conn);
        let inner = self.0.clone();
        monoio::spawn(async move {
            let result = TcpStream::connect_addr(to).await;
            if !inner.is_current(conn) {
                return;
            }
            match result {
                Ok(stream) => serve_link(inner, conn, stream, true).await,
                Err(e) => inner.tell(|owner| owner.connected(conn, Err(e), clock::now())),
            }
        });
    }

    fn send(&mut self, conn: ConnId, head: &[u8], body: &[u8]) -> io::Result<Sent> {
        let mut links = self.0.links.borrow_mut();
        let link = &mut links[conn.slot as usize];
        if link.epoch != conn.epoch || link.fd < 0 {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let first = clock::now();
        link.carried = (link.carried.1, link.carried.1 + (head.len() + body.len()) as u64);
        let taken = if link.flushing { 0 } else { send_now(link.fd, head, body, &mut self.0.joined.borrow_mut())? };
        if taken == head.len() + body.len() {
            return Ok(Sent { first, last: Some(clock::now()) });
        }
        let (from_head, from_body) = (taken.min(head.len()), taken.saturating_sub(head.len()));
        link.backlog.extend_from_slice(&head[from_head..]);
        link.backlog.extend_from_slice(&body[from_body..]);
        if !link.flushing
            && let Some(writer) = link.writer.take()
        {
            link.flushing = true;
            monoio::spawn(flush(self.0.clone(), conn, writer));
        }
        Ok(Sent { first, last: None })
    }

    fn close(&mut self, conn: ConnId) {
        let mut links = self.0.links.borrow_mut();
        let link = &mut links[conn.slot as usize];
        if link.epoch == conn.epoch {
            if link.fd >= 0 {
                // SAFETY: the reading task still owns the descriptor; it closes it once this wakes it.
                unsafe { libc::shutdown(link.fd, libc::SHUT_RDWR) };
            }
            // An epoch that no event will match: the tasks of this connection end in silence.
            *link = Link { epoch: conn.epoch.wrapping_add(1), ..Link::EMPTY };
        }
    }

    fn was_unseen(&self, conn: ConnId) -> bool {
        self.0.unseen.get() == Some(conn)
    }
}

impl ServerWire for SocketWire {
    fn end_sending(&mut self, conn: ConnId) {
        let links = self.0.links.borrow();
        if let Some(link) = links.get(conn.slot as usize).filter(|l| l.epoch == conn.epoch && l.fd >= 0) {
            // SAFETY: the reading task owns the descriptor and has not ended, or the link would hold none.
            unsafe { libc::shutdown(link.fd, libc::SHUT_WR) };
        }
    }

    fn reset(&mut self, conn: ConnId) {
        let mut links = self.0.links.borrow_mut();
        let Some(link) = links.get_mut(conn.slot as usize).filter(|l| l.epoch == conn.epoch) else { return };
        if link.fd >= 0 {
            dissolve(link.fd);
        }
        *link = Link { epoch: conn.epoch.wrapping_add(1), ..Link::EMPTY };
    }
}

/// Dissolves a connection by connecting its socket, which must be open, to no address at all: the peer is sent a reset at
/// once, and whoever reads meets an error. (Closing with no time to linger would do too, but not while others hold the socket.)
pub(super) fn dissolve(fd: RawFd) {
    // SAFETY: all-zero is a valid address.
    let mut nowhere: libc::sockaddr = unsafe { std::mem::zeroed() };
    nowhere.sa_family = libc::AF_UNSPEC as libc::sa_family_t;
    let size = size_of::<libc::sockaddr>() as libc::socklen_t;
    // SAFETY: the address is live and of that size.
    unsafe { libc::connect(fd, &raw const nowhere, size) };
}

/// Requests up to this size are put together before they are sent: copying them costs less than the kernel's work on two
/// pieces.
pub(super) const JOIN: usize = 8 * 1024;

/// Hands both parts to the kernel in one call; returns how many bytes it took.
pub(super) fn send_now(fd: RawFd, head: &[u8], body: &[u8], joined: &mut Vec<u8>) -> io::Result<usize> {
    if body.is_empty() {
        return send_retrying(|| send_one(fd, head));
    }
    if head.len() + body.len() <= JOIN {
        joined.clear();
        joined.extend_from_slice(head);
        joined.extend_from_slice(body);
        return send_retrying(|| send_one(fd, joined));
    }
    send_retrying(|| send_two(fd, head, body))
}

const SEND_FLAGS: libc::c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;

fn send_one(fd: RawFd, bytes: &[u8]) -> isize {
    // SAFETY: the kernel only reads the live slice.
    unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), SEND_FLAGS) }
}

fn send_two(fd: RawFd, head: &[u8], body: &[u8]) -> isize {
    let mut parts = [head, body].map(|p| libc::iovec { iov_base: p.as_ptr() as *mut _, iov_len: p.len() });
    // SAFETY: all-zero is a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (parts.as_mut_ptr(), parts.len());
    // SAFETY: the message points at two live slices, which the kernel only reads.
    unsafe { libc::sendmsg(fd, &message, SEND_FLAGS) }
}

/// A call that a signal may interrupt; no room is 0 bytes taken.
fn send_retrying(send: impl Fn() -> isize) -> io::Result<usize> {
    loop {
        let sent = send();
        if sent >= 0 {
            return Ok(sent as usize);
        }
        let error = io::Error::last_os_error();
        match error.kind() {
            io::ErrorKind::WouldBlock => return Ok(0),
            io::ErrorKind::Interrupted => {}
            _ => return Err(error),
        }
    }
}

/// The life of a connection's reading side.
async fn serve_link(inner: Rc<Inner>, conn: ConnId, stream: TcpStream, announce: bool) {
    let port = match prepare(&stream, inner.liveness) {
        Ok(port) => port,
        Err(e) => return inner.tell(|owner| owner.connected(conn, Err(e), clock::now())),
    };
    let fd = stream.as_raw_fd();
    let (mut reader, writer) = stream.into_split();
    {
        let mut links = inner.links.borrow_mut();
        let link = &mut links[conn.slot as usize];
        if link.epoch != conn.epoch {
            return;
        }
        link.fd = fd;
        link.writer = Some(writer);
    }
    if announce {
        inner.tell(|owner| owner.connected(conn, Ok(port), clock::now()));
    }
    let how = read_all(&inner, conn, &mut reader).await;
    if inner.is_current(conn) {
        let unseen = how.is_ok() && {
            let (before, with) = inner.links.borrow()[conn.slot as usize].carried;
            before < with && options::acknowledged(fd).is_some_and(|seen| seen <= before)
        };
        inner.unseen.set(unseen.then_some(conn));
        inner.tell(|owner| owner.closed(conn, how, clock::now()));
        inner.unseen.set(None);
    }
    // The tenant may have been replaced while it was told.
    let mut links = inner.links.borrow_mut();
    let link = &mut links[conn.slot as usize];
    if link.epoch == conn.epoch {
        *link = Link { epoch: conn.epoch, ..Link::EMPTY };
    }
}

async fn read_all(inner: &Inner, conn: ConnId, reader: &mut OwnedReadHalf<TcpStream>) -> io::Result<()> {
    let mut buffer = vec![0u8; inner.read_buffer];
    loop {
        let (result, filled) = reader.read(buffer).await;
        let at = clock::now();
        buffer = filled;
        let n = result?;
        if n == 0 || !inner.is_current(conn) {
            return Ok(());
        }
        inner.kick.pulse().brought(at);
        inner.tell(|owner| owner.received(conn, &buffer[..n], at));
        if !inner.is_current(conn) {
            return Ok(());
        }
    }
}

fn prepare(stream: &TcpStream, liveness: Option<Liveness>) -> io::Result<u16> {
    stream.set_nodelay(true)?;
    if let Some(liveness) = liveness {
        options::watch(stream.as_raw_fd(), liveness)?;
    }
    Ok(stream.local_addr()?.port())
}

/// Sends what found no room, through the runtime, until nothing is left.
async fn flush(inner: Rc<Inner>, conn: ConnId, mut writer: OwnedWriteHalf<TcpStream>) {
    loop {
        let bytes = {
            let mut links = inner.links.borrow_mut();
            let link = &mut links[conn.slot as usize];
            if link.epoch != conn.epoch {
                return;
            }
            if link.backlog.is_empty() {
                link.writer = Some(writer);
                link.flushing = false;
                break;
            }
            std::mem::take(&mut link.backlog)
        };
        let (result, _) = writer.write_all(bytes).await;
        if result.is_err() {
            // The reading task meets the same end and tells of it.
            return;
        }
    }
    inner.tell(|owner| owner.flushed(conn, clock::now()));
}
