//! The only place that asks the machine for the time.
//!
//! Everything else takes `now` as an argument. An [`Instant`] is nanoseconds of CLOCK_MONOTONIC; an [`Anchor`] ties that
//! axis to CLOCK_REALTIME once, so that files carry wall-clock stamps that never step within a run.

use bytemuck::{Pod, Zeroable};
use serde::{Deserialize, Serialize};

/// A span of time in nanoseconds.
pub type Nanos = u64;

/// One second.
pub const SECOND: Nanos = 1_000_000_000;
/// One millisecond.
pub const MILLI: Nanos = 1_000_000;
/// One microsecond.
pub const MICRO: Nanos = 1_000;

/// A point on the machine's monotonic axis, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Pod, Zeroable, Serialize, Deserialize)]
#[repr(transparent)]
pub struct Instant(pub u64);

impl Instant {
    /// "Has not happened": the zero of the axis, which no event of a run can bear.
    pub const UNSET: Self = Self(0);
    /// Later than anything.
    pub const NEVER: Self = Self(u64::MAX);

    /// Whether the event has happened.
    pub fn is_set(self) -> bool {
        self.0 != 0
    }

    /// The span since `earlier`; 0 if `earlier` is later.
    pub fn since(self, earlier: Self) -> Nanos {
        self.0.saturating_sub(earlier.0)
    }

    /// This point moved later by `span`; saturates at [`Instant::NEVER`].
    pub fn after(self, span: Nanos) -> Self {
        Self(self.0.saturating_add(span))
    }

    /// This point moved earlier by `span`; saturates at the zero of the axis.
    pub fn before(self, span: Nanos) -> Self {
        Self(self.0.saturating_sub(span))
    }
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut at = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `at` is a valid timespec for the call to fill; both clocks exist on every Linux.
    unsafe { libc::clock_gettime(clock, &mut at) };
    at.tv_sec as u64 * SECOND + at.tv_nsec as u64
}

/// The monotonic time now.
pub fn now() -> Instant {
    Instant(read(libc::CLOCK_MONOTONIC))
}

/// The wall-clock time now, nanoseconds since 1970 (UTC).
pub fn wall() -> u64 {
    read(libc::CLOCK_REALTIME)
}

/// The same moment on both axes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// The moment, monotonic.
    pub mono: Instant,
    /// The moment, nanoseconds since 1970 (UTC).
    pub wall: u64,
}

impl Anchor {
    /// Takes both clocks together: of several tries the one whose two monotonic readings stand closest.
    pub fn take() -> Self {
        let mut best = Self { mono: Instant::UNSET, wall: 0 };
        let mut narrowest = u64::MAX;
        for _ in 0..16 {
            let before = now();
            let wall = wall();
            let width = now().since(before);
            if width < narrowest {
                narrowest = width;
                best = Self { mono: before.after(width / 2), wall };
            }
        }
        best
    }

    /// The wall-clock stamp of `at`, nanoseconds since 1970 (UTC).
    pub fn wall_ns(&self, at: Instant) -> u64 {
        self.wall.wrapping_add(at.0.wrapping_sub(self.mono.0))
    }
}

/// Sleeps until `deadline`, or until a signal is delivered. Early is possible, late is the kernel's affair.
pub fn sleep_until(deadline: Instant) {
    let at = libc::timespec {
        tv_sec: (deadline.0 / SECOND).min(i64::MAX as u64) as libc::time_t,
        tv_nsec: (deadline.0 % SECOND) as libc::c_long,
    };
    // SAFETY: `at` is a valid timespec; the remainder pointer may be null.
    unsafe { libc::clock_nanosleep(libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, &at, std::ptr::null_mut()) };
}

/// Asks the kernel to end this thread's sleeps within a nanosecond of their time instead of the usual 50 µs.
pub fn sharpen_sleeps() {
    // SAFETY: PR_SET_TIMERSLACK takes an integer and touches no memory.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1usize, 0usize, 0usize, 0usize) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_anchor_maps_its_own_moment_and_spans() {
        let anchor = Anchor { mono: Instant(1_000), wall: 5_000 };
        assert_eq!(anchor.wall_ns(Instant(1_000)), 5_000);
        assert_eq!(anchor.wall_ns(Instant(1_500)), 5_500);
        assert_eq!(anchor.wall_ns(Instant(400)), 4_400);
    }

    #[test]
    fn never_and_unset_are_the_ends_of_the_axis() {
        assert_eq!(Instant::NEVER.after(5), Instant::NEVER);
        assert_eq!(Instant(3).since(Instant(9)), 0);
        assert!(!Instant::UNSET.is_set());
    }
}
