//! One thread's loop: parts take turns, sockets make progress between them, and nothing fires late.
//!
//! Deadlines come from the parts ([`Next`]). The loop sleeps on a timerfd until [`LEAD`] before the earliest one, then
//! spins, giving the sockets a chance at every round; no timer of the runtime is involved (its wheel is a millisecond
//! coarse). Where the thread has a core of its own it may spin all the time.

use super::probe::{Driver, RING_ENTRIES, ring_builder};
use super::pulse::Pulse;
use super::{Next, Part};
use crate::clock::{self, Instant, MICRO, Nanos};
use monoio::net::TcpStream;
use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::task::{Poll, Waker};

/// How long before a deadline the sleep ends and the spin begins: a timerfd fires 24–29 µs late at the median and
/// 67–78 µs at the 99th percentile.
pub const LEAD: Nanos = 60 * MICRO;

/// A part shared between its thread's loop and its thread's sockets.
pub type SharedPart = Rc<RefCell<dyn Part>>;

/// Wakes a loop on another thread, at the price of a system call only if it sleeps.
#[derive(Debug)]
pub struct Doorbell {
    event: OwnedFd,
    asleep: AtomicBool,
}

impl Doorbell {
    /// A bell nobody waits at yet.
    pub fn new() -> io::Result<Self> {
        // SAFETY: eventfd takes no pointers; a non-negative result is a descriptor that nobody else owns.
        let event = unsafe {
            let fd = libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        Ok(Self { event, asleep: AtomicBool::new(false) })
    }

    /// Call after making work visible to the loop.
    pub fn ring(&self) {
        // Pairs with the fence in `settle`: either the loop sees the work, or this sees it asleep.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed) {
            let one = 1u64;
            // SAFETY: eight bytes are read from a live u64, as an eventfd wants them.
            unsafe { libc::write(self.event.as_raw_fd(), (&raw const one).cast(), 8) };
        }
    }

    pub(super) fn fd(&self) -> i32 {
        self.event.as_raw_fd()
    }

    pub(super) fn settle(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    pub(super) fn clear(&self) {
        self.asleep.store(false, Ordering::Relaxed);
        let mut count = 0u64;
        // SAFETY: eight bytes are written to a live u64; the descriptor does not block.
        unsafe { libc::read(self.event.as_raw_fd(), (&raw mut count).cast(), 8) };
    }
}

/// Lets a thread's sockets ask for a turn of its parts before the time the loop sleeps until.
#[derive(Debug, Clone, Default)]
pub struct Kick(Rc<KickState>);

#[derive(Debug, Default)]
struct KickState {
    pulse: Pulse,
    until: Cell<Instant>,
    kicked: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Kick {
    /// What the loop knows of its own pauses.
    pub fn pulse(&self) -> &Pulse {
        &self.0.pulse
    }

    /// A turn is wanted at `at`.
    pub fn want(&self, at: Instant) {
        if at < self.0.until.get()
            && !self.0.kicked.replace(true)
            && let Some(waker) = self.0.waker.borrow_mut().take()
        {
            waker.wake();
        }
    }

    fn sleep_until(&self, at: Instant) {
        self.0.until.set(at);
    }

    fn taken(&self, waker: &Waker) -> bool {
        if self.0.kicked.replace(false) {
            return true;
        }
        let mut slot = self.0.waker.borrow_mut();
        if !slot.as_ref().is_some_and(|w| w.will_wake(waker)) {
            *slot = Some(waker.clone());
        }
        false
    }
}

/// Runs the parts that `build` makes until all have ended. `bell` wakes the loop from other threads; `spin` keeps it
/// from ever sleeping.
///
/// # Errors
/// The runtime could not be set up.
pub fn run(
    driver: Driver,
    spin: bool,
    bell: Option<Arc<Doorbell>>,
    build: impl FnOnce(&Kick) -> io::Result<Vec<SharedPart>>,
) -> io::Result<()> {
    let kick = Kick::default();
    let parts = build(&kick)?;
    clock::sharpen_sleeps();
    match driver {
        Driver::Uring(flags) => RuntimeBuilder::<IoUringDriver>::new()
            .with_entries(RING_ENTRIES)
            .uring_builder(ring_builder(flags))
            .build()?
            .block_on(drive(parts, kick, spin, bell)),
        Driver::Epoll => RuntimeBuilder::<LegacyDriver>::new()
            .with_entries(RING_ENTRIES)
            .build()?
            .block_on(drive(parts, kick, spin, bell)),
    }
}

async fn drive(parts: Vec<SharedPart>, kick: Kick, spin: bool, bell: Option<Arc<Doorbell>>) -> io::Result<()> {
    let alarm = Alarm::new()?;
    let bell_socket = bell.as_ref().map(|b| pollable(b.event.try_clone()?)).transpose()?;
    let mut alarm_rang = pin!(alarm.socket.readable(false));
    let mut bell_rang = pin!(maybe_readable(bell_socket.as_ref()));
    let echo = Echo::spawn();
    loop {
        kick.sleep_until(Instant::UNSET);
        let mut next = turn_all(&parts, clock::now);
        if next.ended {
            return Ok(());
        }
        if !spin && !is_near(next.at, clock::now()) {
            if let Some(bell) = &bell {
                bell.settle();
                next = turn_all(&parts, clock::now);
            }
            if !next.ended && !is_near(next.at, clock::now()) {
                let now = clock::now();
                let until = kick.pulse().limit(next.at.before(LEAD), now);
                kick.pulse().enter(now, Some(until));
                alarm.set(until)?;
                kick.sleep_until(next.at);
                poll_fn(|cx| {
                    let mut woken = kick.taken(cx.waker());
                    if alarm_rang.as_mut().poll(cx).is_ready() {
                        alarm_rang.set(alarm.socket.readable(false));
                        woken = true;
                    }
                    if bell_rang.as_mut().poll(cx).is_ready() {
                        bell_rang.set(maybe_readable(bell_socket.as_ref()));
                        woken = true;
                    }
                    if woken { Poll::Ready(()) } else { Poll::Pending }
                })
                .await;
                kick.pulse().woke(clock::now());
            }
            if let Some(bell) = &bell {
                bell.clear();
            }
            continue;
        }
        kick.pulse().enter(clock::now(), None);
        echo.yield_now().await;
    }
}

pub(super) fn is_near(at: Instant, now: Instant) -> bool {
    at != Instant::NEVER && at <= now.after(LEAD)
}

pub(super) fn turn_all(parts: &[SharedPart], now: impl Fn() -> Instant) -> Next {
    let mut all = Next::ENDED;
    for part in parts {
        let next = part.borrow_mut().turn(now());
        if !next.ended {
            all.ended = false;
            all.at = all.at.min(next.at);
        }
    }
    all
}

async fn maybe_readable(socket: Option<&TcpStream>) -> io::Result<()> {
    match socket {
        Some(socket) => socket.readable(false).await,
        None => std::future::pending().await,
    }
}

/// Any pollable descriptor in the clothes that monoio can wait for.
fn pollable(fd: OwnedFd) -> io::Result<TcpStream> {
    TcpStream::from_std(std::net::TcpStream::from(fd))
}

struct Alarm {
    socket: TcpStream,
    set_to: Cell<Instant>,
}

impl Alarm {
    fn new() -> io::Result<Self> {
        // SAFETY: timerfd_create takes no pointers; a non-negative result is a descriptor that nobody else owns.
        let fd = unsafe {
            let fd = libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        Ok(Self { socket: pollable(fd)?, set_to: Cell::new(Instant::UNSET) })
    }

    /// Rings at `at`; setting it also takes back a ring that was not waited for.
    fn set(&self, at: Instant) -> io::Result<()> {
        if self.set_to.replace(at) == at && at > clock::now() {
            return Ok(());
        }
        // A zero time disarms.
        let at = if at == Instant::NEVER { 0 } else { at.0.max(1) };
        let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let time = libc::itimerspec {
            it_interval: zero,
            it_value: libc::timespec {
                tv_sec: (at / clock::SECOND) as libc::time_t,
                tv_nsec: (at % clock::SECOND) as libc::c_long,
            },
        };
        // SAFETY: `time` is a valid itimerspec; the old value may be null.
        let result = unsafe {
            libc::timerfd_settime(self.socket.as_raw_fd(), libc::TFD_TIMER_ABSTIME, &time, std::ptr::null_mut())
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// A task that wakes whoever wakes it. Yielding through it lets the runtime see to its sockets and every other task
/// first; the runtime's own way to yield puts the yielding task in front of all others.
struct Echo(Rc<EchoState>);

#[derive(Default)]
struct EchoState {
    echo: RefCell<Option<Waker>>,
    caller: RefCell<Option<Waker>>,
}

impl Echo {
    fn spawn() -> Self {
        let state = Rc::new(EchoState::default());
        let shared = state.clone();
        monoio::spawn(poll_fn(move |cx| {
            if let Some(caller) = shared.caller.borrow_mut().take() {
                caller.wake();
            }
            *shared.echo.borrow_mut() = Some(cx.waker().clone());
            Poll::<()>::Pending
        }));
        Self(state)
    }

    async fn yield_now(&self) {
        let mut asked = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut asked, true) && self.0.caller.borrow().is_none() {
                return Poll::Ready(());
            }
            *self.0.caller.borrow_mut() = Some(cx.waker().clone());
            if let Some(echo) = self.0.echo.borrow_mut().take() {
                echo.wake();
            }
            Poll::Pending
        })
        .await
    }
}

/// The loop of a thread without sockets: parts take turns; between them the thread sleeps until shortly before the next
/// deadline, at most `nap` at a time, since other threads hand it work through rings and nobody wakes it.
pub fn run_without_sockets(parts: &[SharedPart], spin: bool, nap: Nanos) {
    clock::sharpen_sleeps();
    loop {
        let all = turn_all(parts, clock::now);
        if all.ended {
            return;
        }
        let now = clock::now();
        if spin || all.at <= now.after(LEAD) {
            std::hint::spin_loop();
        } else {
            clock::sleep_until(all.at.before(LEAD).min(now.after(nap)));
        }
    }
}
