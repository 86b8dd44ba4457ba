//! The server's side of the ring: connections that come in, and ends that only a server makes.

use super::kernel::{Completion, Kernel, Operation};
use super::{DirectWire, Op, Ring, tag};
use crate::net::socket::dissolve;
use crate::net::{Admit, ConnId, Listens, ServerWire, Wire};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsRawFd;

/// A listener whose connections are taken as they come.
pub(super) struct Door {
    listener: TcpListener,
    owner: u32,
    admit: Admit,
}

impl Listens for DirectWire {
    fn listen(&self, listener: TcpListener, admit: Admit) {
        let number = {
            let mut doors = self.ring.doors.borrow_mut();
            doors.push(Some(Door { listener, owner: self.owner, admit }));
            doors.len() as u32 - 1
        };
        self.ring.open_door(number);
    }
}

impl<K: Kernel> Ring<K> {
    /// Arms the accept that lasts until it fails.
    fn open_door(&self, door: u32) {
        let doors = self.doors.borrow();
        if let Some(Some(Door { listener, .. })) = doors.get(door as usize) {
            self.submit(Operation::Accept { fd: listener.as_raw_fd() }, tag(Op::Accept, door, 0));
        }
    }

    /// Somebody came, or nobody will any more. A peer that has gone again fails only itself.
    pub(super) fn accepted(&self, door: u32, completion: &Completion) {
        let result = completion.result;
        if result >= 0 {
            // SAFETY: the kernel has just made this descriptor; nobody else owns it.
            self.let_in(door, unsafe { self.kernel.adopt(result) });
        }
        if completion.more() {
            return;
        }
        match -result {
            ..=0 | libc::ECONNABORTED | libc::EINTR | libc::EAGAIN => self.open_door(door),
            error => {
                if let Some(mut door) = self.doors.borrow_mut()[door as usize].take() {
                    (door.admit)(Err(io::Error::from_raw_os_error(error)));
                }
            }
        }
    }

    fn let_in(&self, number: u32, fd: K::Descriptor) {
        // It is told outside all borrows, and refused by being closed.
        let Some(mut door) = self.doors.borrow_mut()[number as usize].take() else { return };
        let (admitted, owner) = ((door.admit)(Ok(self.now())), door.owner);
        self.doors.borrow_mut()[number as usize] = Some(door);
        let Some(conn) = admitted else { return };
        let (socket, settled) = {
            let mut sockets = self.sockets.borrow_mut();
            let socket = sockets.add(Ok(fd), conn, owner, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
            let entry = &mut sockets.all[socket as usize];
            (entry.connected, entry.pending) = (true, 0);
            (socket, entry.raw().map_or(Err(io::ErrorKind::NotConnected.into()), |fd| self.kernel.settle(fd)))
        };
        self.set_link(owner, conn, socket);
        match settled {
            Ok(_) => self.arm(socket),
            Err(e) => {
                self.end(socket);
                self.tell(owner, |events| events.connected(conn, Err(e), self.now()));
            }
        }
    }
}

impl ServerWire for DirectWire {
    fn end_sending(&mut self, conn: ConnId) {
        if let Some(fd) = self.descriptor(conn) {
            // SAFETY: the descriptor is open: its socket is live.
            unsafe { libc::shutdown(fd, libc::SHUT_WR) };
        }
    }

    fn reset(&mut self, conn: ConnId) {
        if let Some(fd) = self.descriptor(conn) {
            dissolve(fd);
        }
        self.close(conn);
    }
}

impl DirectWire {
    fn descriptor(&self, conn: ConnId) -> Option<i32> {
        let sockets = self.ring.sockets.borrow();
        let entry = sockets.all.get(self.link(conn)? as usize)?;
        entry.raw().filter(|_| entry.live)
    }
}
