//! Which I/O the host allows.

use std::fmt;

/// What carries the sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Io {
    /// An io_uring of our own: multishot receives, shared buffers; kernel 6.1 and later.
    Direct,
    /// The runtime, on this.
    Runtime(Driver),
}

/// What the runtime goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// io_uring, with these set-up flags.
    Uring(RingFlags),
    /// Readiness through epoll.
    Epoll,
}

/// How a ring is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RingFlags {
    /// SINGLE_ISSUER and COOP_TASKRUN: kernel 6.0 and later, about a sixth less CPU a request.
    Cooperative,
    /// None.
    Plain,
}

impl fmt::Display for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct => f.write_str("io_uring (direct, multishot)"),
            Self::Runtime(driver) => driver.fmt(f),
        }
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uring(RingFlags::Cooperative) => "io_uring (single issuer, cooperative)",
            Self::Uring(RingFlags::Plain) => "io_uring",
            Self::Epoll => "epoll",
        })
    }
}

/// Entries of a ring's submission queue: submissions between two system calls; the ring is flushed when full.
pub const RING_ENTRIES: u32 = 4096;

/// The builder of a ring with these flags.
pub fn ring_builder(flags: RingFlags) -> io_uring::Builder {
    let mut builder = io_uring::IoUring::builder();
    if flags == RingFlags::Cooperative {
        // DEFER_TASKRUN would be as fast, but an executor that never parks would then never see a completion.
        builder.setup_single_issuer().setup_coop_taskrun();
    }
    builder
}

/// The best I/O this process may use now, by trying: seccomp, the sysctl and RLIMIT_MEMLOCK all show here.
pub fn best() -> Io {
    if super::direct::refusal().is_none() { Io::Direct } else { Io::Runtime(best_driver()) }
}

/// The best that the runtime may use.
pub fn best_driver() -> Driver {
    for flags in [RingFlags::Cooperative, RingFlags::Plain] {
        if ring_builder(flags).build(RING_ENTRIES).is_ok() {
            return Driver::Uring(flags);
        }
    }
    Driver::Epoll
}

/// Why io_uring cannot be had, as a sentence part; `None` if it can.
pub fn uring_refusal() -> Option<String> {
    let error = ring_builder(RingFlags::Plain).build(RING_ENTRIES).err()?;
    Some(format!("the kernel refuses io_uring here ({error})"))
}

/// Descriptors kept for everything that is not a connection.
const SPARE_DESCRIPTORS: u64 = 128;

/// Lets the process have as many descriptors as it may; returns how many connections that allows, at least 1.
pub fn raise_connection_limit() -> u64 {
    raise_descriptor_limit().saturating_sub(SPARE_DESCRIPTORS).max(1)
}

fn raise_descriptor_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls take a valid rlimit.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) != 0 {
            return 1024;
        }
        let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
        if libc::setrlimit(libc::RLIMIT_NOFILE, &raised) == 0 { limit.rlim_max } else { limit.rlim_cur }
    }
}
