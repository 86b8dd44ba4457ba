//! Sends that wait to be handed to the kernel together.

use super::ConnId;
use crate::clock::Instant;
use std::io;

/// Sends handed over together: few enough that the first is not kept back for long, many enough that what one system call
/// costs, and the change between two sets of code in the processor's caches, is shared.
pub(super) const MOST: usize = 16;

/// Bytes of one send; longer ones do not wait.
pub(super) const LONGEST: usize = super::socket::JOIN;

/// Sends that wait, and their bytes.
///
/// The kernel reads the bytes when it is given the operations, and of what it did not take they are needed once more: so they
/// stay until [`clear`](Self::clear).
#[derive(Debug)]
pub(super) struct Gathered {
    bytes: Box<[u8]>,
    used: usize,
    pub(super) sends: Vec<Gathering>,
}

/// One of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gathering {
    /// The socket's place, and which of the place's tenants it is.
    pub(super) socket: u32,
    pub(super) generation: u32,
    pub(super) owner: u32,
    pub(super) conn: ConnId,
    from: usize,
    to: usize,
    /// Which it is of the operations that are queued; [`u32::MAX`] until that is known.
    place: u32,
    /// When it was handed over, and when that was done; [`Instant::UNSET`] while it waits.
    pub(super) first: Instant,
    pub(super) last: Instant,
    /// The kernel did not take all of it.
    pub(super) fell_short: bool,
}

impl Default for Gathered {
    fn default() -> Self {
        Self { bytes: vec![0; MOST * LONGEST].into(), used: 0, sends: Vec::with_capacity(MOST) }
    }
}

impl Gathered {
    /// Whether as many wait as should.
    pub(super) fn is_full(&self) -> bool {
        self.sends.len() >= MOST
    }

    /// Whether any waits to be handed over.
    pub(super) fn waits(&self) -> bool {
        // In the order in which they came.
        self.sends.last().is_some_and(|send| !send.first.is_set())
    }

    /// Whether a send on this socket waits.
    pub(super) fn holds(&self, socket: u32) -> bool {
        self.sends.iter().any(|send| send.socket == socket && !send.first.is_set())
    }

    /// Keeps a send; `None` if there is no room. Where its bytes lie, as long as they do.
    #[inline]
    pub(super) fn add(
        &mut self,
        (socket, generation): (u32, u32),
        (owner, conn): (u32, ConnId),
        head: &[u8],
        body: &[u8],
    ) -> Option<(*const u8, u32)> {
        let len = head.len() + body.len();
        if len > LONGEST || self.is_full() {
            return None;
        }
        let (from, to) = (self.used, self.used + len);
        let room = self.bytes.get_mut(from..to)?;
        let (left, right) = room.split_at_mut(head.len());
        left.copy_from_slice(head);
        right.copy_from_slice(body);
        self.used = to;
        self.sends.push(Gathering {
            socket,
            generation,
            owner,
            conn,
            from,
            to,
            place: u32::MAX,
            first: Instant::UNSET,
            last: Instant::UNSET,
            fell_short: false,
        });
        Some((room.as_ptr(), len as u32))
    }

    /// The one that came last is queued, at this place.
    pub(super) fn queued(&mut self, place: u32) {
        if let Some(send) = self.sends.last_mut() {
            send.place = place;
        }
    }

    /// The kernel has taken so many operations from the queue, between `first` and `last`. `ended` is told the socket of each
    /// send among them.
    pub(super) fn taken(&mut self, n: u32, first: Instant, last: Instant, mut ended: impl FnMut(u32)) {
        for send in self.sends.iter_mut().filter(|send| !send.first.is_set()) {
            if send.place <= n {
                (send.first, send.last) = (first, last);
                ended(send.socket);
            } else if send.place != u32::MAX {
                send.place -= n;
            }
        }
    }

    /// The kernel did not take all of what was sent on this socket: `result` is what it said. The bytes that are left.
    ///
    /// # Errors
    /// It will not take them later either, or they are not at hand any more.
    pub(super) fn fell_short(&mut self, (socket, generation): (u32, u32), result: i32) -> io::Result<&[u8]> {
        let its = |send: &&mut Gathering| (send.socket, send.generation) == (socket, generation);
        let Some(send) = self.sends.iter_mut().find(its) else { return Err(io::ErrorKind::WriteZero.into()) };
        let taken = match -result {
            libc::EAGAIN | libc::EINTR => 0,
            error if error > 0 => return Err(io::Error::from_raw_os_error(error)),
            _ => result as usize,
        };
        send.fell_short = true;
        Ok(self.bytes.get((send.from + taken).min(send.to)..send.to).unwrap_or_default())
    }

    /// Forgets them all.
    pub(super) fn clear(&mut self) {
        self.sends.clear();
        self.used = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conn(slot: u32) -> ConnId {
        ConnId { slot, epoch: 1 }
    }

    #[test]
    fn what_waits_is_kept_whole_and_only_so_much_of_it() {
        let mut gathered = Gathered::default();
        let body = vec![b'b'; LONGEST - 4];
        for n in 0..MOST as u32 {
            assert!(!gathered.is_full() && !gathered.holds(n));
            let (_, len) = gathered.add((n, 0), (0, conn(n)), b"head", &body).unwrap();
            gathered.queued(n + 1);
            assert!(len as usize == LONGEST && gathered.holds(n));
        }
        assert!(gathered.is_full() && gathered.add((99, 0), (0, conn(99)), b"", b"x").is_none());
        gathered.clear();
        assert!(gathered.add((1, 7), (0, conn(1)), b"head!", &body).is_none(), "longer than any that may wait");
        assert!(gathered.add((1, 7), (0, conn(1)), b"head", &body).is_some());
    }

    #[test]
    fn what_the_kernel_takes_is_stamped_and_what_it_refuses_waits() {
        let mut gathered = Gathered::default();
        for (n, place) in [(1, 3), (2, 4), (3, 9)] {
            gathered.add((n, 0), (0, conn(n)), b"x", b"y").unwrap();
            gathered.queued(place);
        }
        let mut taken = |n, at| {
            let mut sockets = Vec::new();
            gathered.taken(n, Instant(at), Instant(at + 1), |socket| sockets.push(socket));
            (sockets, gathered.waits())
        };
        assert_eq!(taken(2, 5), (vec![], true));
        assert_eq!(taken(2, 6), (vec![1, 2], true));
        assert_eq!(taken(4, 7), (vec![], true));
        assert_eq!(taken(1, 8), (vec![3], false));
        assert_eq!(gathered.sends.iter().map(|send| send.first.0).collect::<Vec<_>>(), [6, 6, 8]);
    }

    #[test]
    fn what_the_kernel_left_is_had_again() {
        let mut gathered = Gathered::default();
        gathered.add((1, 7), (0, conn(1)), b"abc", b"def").unwrap();
        gathered.queued(1);
        gathered.add((2, 7), (0, conn(2)), b"ghi", b"jkl").unwrap();
        gathered.queued(2);
        gathered.taken(2, Instant(5), Instant(7), |_| ());
        assert!(!gathered.holds(2));
        assert_eq!(gathered.fell_short((2, 7), 4).unwrap(), b"kl");
        assert_eq!(gathered.fell_short((1, 7), -libc::EAGAIN).unwrap(), b"abcdef");
        assert_eq!(gathered.fell_short((1, 7), -libc::EPIPE).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert!(
            gathered.fell_short((1, 8), 1).is_err() && gathered.fell_short((3, 7), 1).is_err(),
            "of another tenant"
        );
        let times: Vec<_> = gathered.sends.iter().map(|s| (s.first.0, s.last.0, s.fell_short)).collect();
        assert_eq!(times, [(5, 7, true), (5, 7, true)]);
    }
}
