//! Which local ports the next connections may take.
//!
//! Left to itself, the kernel looks through half of all local ports, one by one, before it tries the other half. Once the
//! first half is taken by connections to one address (14,116 as Linux comes), each further connection costs it more than a
//! millisecond instead of 30 µs, on the thread that asks: an open loop that has fallen behind would never catch up. So each
//! socket is shown a few ports only, in turn. Kernels before 6.3 know no such bound and go on as they are.

use crate::clock;
use std::cell::Cell;
use std::ops::RangeInclusive;

/// Ports a socket is shown.
const SHOWN: u32 = 64;

/// Sockets that are shown the same ones: fewer than there are, so that most find one at once.
const SHARE: u32 = SHOWN / 2;

/// The socket option, which `libc` does not name everywhere: both ends of the range, the upper one above 16 bits.
const IP_LOCAL_PORT_RANGE: libc::c_int = 51;

/// The local ports, and who is shown which.
#[derive(Debug)]
pub(super) struct Ports {
    low: u32,
    /// Groups of [`SHOWN`] ports; 0 where nothing is known of the ports.
    groups: u32,
    /// Sockets that were shown some.
    shown: Cell<u32>,
}

impl Ports {
    /// Those of this machine. Every ring begins elsewhere, so that they seldom meet.
    pub(super) fn new() -> Self {
        let said = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
        let ports = Self::of(said.ok().and_then(|said| parse(&said)), clock::now().0 as u32);
        // Few in tests, so that they run out.
        if cfg!(test) { Self { groups: ports.groups.min(2), ..ports } } else { ports }
    }

    fn of(range: Option<RangeInclusive<u16>>, begin: u32) -> Self {
        let low = range.as_ref().map_or(0, |range| u32::from(*range.start()));
        let groups = range.map_or(0, |range| range.len() as u32 / SHOWN);
        Self { low, groups, shown: Cell::new(begin) }
    }

    /// The ports that the next socket is shown.
    fn next(&self) -> Option<(u32, u32)> {
        let n = self.shown.get();
        self.shown.set(n.wrapping_add(1));
        let group = (n / SHARE).checked_rem(self.groups)?;
        let first = self.low + group * SHOWN;
        Some((first, first + SHOWN - 1))
    }

    /// Shows an unbound socket a few ports; `false` if the kernel knows no such bound.
    pub(super) fn narrow(&self, fd: i32) -> bool {
        self.next().is_some_and(|(first, last)| set(fd, last << 16 | first))
    }

    /// Shows an unbound socket all ports.
    pub(super) fn widen(fd: i32) {
        set(fd, 0);
    }
}

fn parse(said: &str) -> Option<RangeInclusive<u16>> {
    let mut ends = said.split_whitespace().map(str::parse);
    Some(ends.next()?.ok()?..=ends.next()?.ok()?)
}

fn set(fd: i32, range: u32) -> bool {
    let size = size_of::<u32>() as libc::socklen_t;
    // SAFETY: the value is valid for the call and has the size given.
    unsafe { libc::setsockopt(fd, libc::IPPROTO_IP, IP_LOCAL_PORT_RANGE, (&raw const range).cast(), size) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn all_ports_are_shown_in_turn_and_each_to_a_few() {
        for begin in [0, 7, u32::MAX - 100] {
            let ports = Ports::of(Some(32_768..=60_999), begin);
            let mut shown: HashMap<u32, u32> = HashMap::new();
            for _ in 0..2 * SHARE * ports.groups {
                let (first, last) = ports.next().unwrap();
                assert!(first >= 32_768 && last <= 60_999 && last - first == SHOWN - 1);
                *shown.entry(first).or_default() += 1;
            }
            assert!(shown.len() as u32 >= ports.groups - 1, "{} of {}", shown.len(), ports.groups);
            assert!(shown.values().all(|n| *n <= 3 * SHARE), "{shown:?}");
        }
    }

    #[test]
    fn where_there_are_few_ports_nothing_is_done() {
        assert_eq!(parse("32768\t60999\n"), Some(32_768..=60_999));
        assert_eq!(parse("no ports"), None);
        assert!([None, Some(1024..=1050)].into_iter().all(|range| Ports::of(range, 5).next().is_none()));
    }
}
