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
    pub(super) socket: u32,
    pub(super) owner: u32,
    pub(super) conn: ConnId,
    from: usize,
    to: usize,
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

    /// Whether a send on this socket waits.
    pub(super) fn holds(&self, socket: u32) -> bool {
        self.sends.iter().any(|send| send.socket == socket && !send.first.is_set())
    }

    /// Keeps a send; `None` if there is no room. Where its bytes lie, as long as they do.
    pub(super) fn add(
        &mut self,
        (socket, owner, conn): (u32, u32, ConnId),
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
        let (first, last) = (Instant::UNSET, Instant::UNSET);
        self.sends.push(Gathering { socket, owner, conn, from, to, first, last, fell_short: false });
        Some((room.as_ptr(), len as u32))
    }

    /// All that waited have been handed over, between `first` and `last`.
    pub(super) fn handed_over(&mut self, first: Instant, last: Instant) {
        for send in self.sends.iter_mut().filter(|send| !send.first.is_set()) {
            (send.first, send.last) = (first, last);
        }
    }

    /// The kernel did not take all of what was sent on this socket: `result` is what it said. The bytes that are left.
    ///
    /// # Errors
    /// It will not take them later either.
    pub(super) fn fell_short(&mut self, socket: u32, result: i32) -> io::Result<&[u8]> {
        let Some(send) = self.sends.iter_mut().rev().find(|send| send.socket == socket) else { return Ok(&[]) };
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
            let (_, len) = gathered.add((n, 0, conn(n)), b"head", &body).unwrap();
            assert!(len as usize == LONGEST && gathered.holds(n));
        }
        assert!(gathered.is_full() && gathered.add((99, 0, conn(99)), b"", b"x").is_none());
        gathered.clear();
        assert!(gathered.add((1, 0, conn(1)), b"head!", &body).is_none(), "longer than any that may wait");
        assert!(gathered.add((1, 0, conn(1)), b"head", &body).is_some());
    }

    #[test]
    fn what_the_kernel_left_is_had_again() {
        let mut gathered = Gathered::default();
        gathered.add((1, 0, conn(1)), b"abc", b"def").unwrap();
        gathered.add((2, 0, conn(2)), b"ghi", b"jkl").unwrap();
        gathered.handed_over(Instant(5), Instant(7));
        assert!(!gathered.holds(2));
        assert_eq!(gathered.fell_short(2, 4).unwrap(), b"kl");
        assert_eq!(gathered.fell_short(1, -libc::EAGAIN).unwrap(), b"abcdef");
        assert_eq!(gathered.fell_short(1, -libc::EPIPE).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(gathered.fell_short(3, 1).unwrap(), b"");
        let times: Vec<_> = gathered.sends.iter().map(|s| (s.first.0, s.last.0, s.fell_short)).collect();
        assert_eq!(times, [(5, 7, true), (5, 7, true)]);
    }
}
