//! A kernel that is none: it does to a ring all that the real one may, and watches what the ring does to it.
//!
//! Behind each socket stands a peer that answers whole messages. Whatever the dice allow happens: completions come late, out
//! of order, or are put aside; receives end early or find no buffer; sends fail or fall short; calls are refused; the queue
//! of submissions is short; a descriptor's number is used again at once.

use super::dice::Dice;
use crate::clock::{Instant, MICRO, MILLI, Nanos};
use crate::net::direct::kernel::{Completion, Kernel, Operation};
use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;

/// Bytes a receive buffer holds.
const BUFFER: usize = 64;
const BUFFERS: u16 = 4;
/// More calls than any run of a test makes.
const MOST_CALLS: u64 = 50_000;

/// How the kernel and the peers behave; shares in permille.
#[derive(Debug, Clone)]
pub(super) struct Manners {
    /// Calls that are refused for now.
    refuse: u64,
    /// Calls that take only some of what is queued.
    partial: u64,
    /// From this call on the kernel is out of memory.
    pub(super) dies_at: u64,
    /// Failures of sends that are told some time later, as no kernel does that we know. (That one fell short, if it were told
    /// so late, would leave a hole.)
    pub(super) late_sends: u64,
    /// Connections that fail.
    no_connection: u64,
    /// Receives that end although they could go on.
    ends_early: u64,
    /// Answers after which the peer resets, and after which it closes.
    resets: u64,
    closes: u64,
    /// Places in the two queues.
    submissions: usize,
    completions: usize,
    /// Bytes a socket has room for, and how long it takes the peer to read them.
    room: usize,
    reads: Nanos,
    /// How long it takes to connect, and the peer to answer.
    connects: Nanos,
    answers: Nanos,
}

impl Manners {
    pub(super) fn drawn(dice: &mut Dice) -> Self {
        Self {
            refuse: dice.pick(&[0, 0, 20, 200]),
            partial: dice.pick(&[0, 0, 200]),
            dies_at: if dice.chance(30) { dice.within(1, 200) } else { u64::MAX },
            late_sends: dice.pick(&[0, 0, 0, 0, 500]),
            no_connection: dice.pick(&[0, 100, 500]),
            ends_early: dice.pick(&[0, 100, 500]),
            resets: dice.pick(&[0, 100, 500, 1000]),
            closes: dice.pick(&[0, 100, 300]),
            submissions: dice.pick(&[1, 3, 8, 1024]),
            completions: dice.pick(&[2, 5, 8192]),
            room: dice.pick(&[200, 2000, 1 << 20, 1 << 20]),
            reads: dice.pick(&[MICRO, 50 * MICRO]),
            connects: dice.pick(&[0, 50 * MICRO]),
            answers: dice.pick(&[0, 20 * MICRO, 200 * MICRO]),
        }
    }
}

/// A message, either way: which connection it belongs to, its number there, its length, and a byte that follows from
/// these, over and over.
pub(super) fn message(connection: u32, number: u32, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len.max(12));
    [connection, number, len.max(12) as u32].iter().for_each(|n| bytes.extend(n.to_le_bytes()));
    bytes.resize(len.max(12), (connection * 31 + number * 7) as u8);
    bytes
}

/// The number of the whole message at the front, and its length.
pub(super) fn parse(bytes: &[u8]) -> Option<(u32, usize)> {
    let word = |at: usize| bytes.get(at..at + 4).map(|word| u32::from_le_bytes(word.try_into().unwrap_or_default()));
    let (number, len) = (word(4)?, word(8)? as usize);
    (bytes.len() >= len).then_some((number, len))
}

/// The address that leads to a connection's peer, so that the kernel knows whose socket it is.
pub(super) fn address(connection: u32) -> SocketAddr {
    SocketAddr::new(IpAddr::from(connection.to_be_bytes()), 80)
}

fn connection(to: SocketAddr) -> u32 {
    match to.ip() {
        IpAddr::V4(ip) => u32::from_be_bytes(ip.octets()),
        IpAddr::V6(_) => u32::MAX,
    }
}

/// A socket and its peer.
#[derive(Debug)]
struct Socket {
    connection: u32,
    /// Tags of the operations on it.
    connect: Option<u64>,
    receive: Option<u64>,
    poll: Option<u64>,
    connected: bool,
    /// Shut by us; ended by the peer; and the error that the next call meets.
    shut: bool,
    ended: bool,
    reset: bool,
    error: Option<i32>,
    room: usize,
    inbox: VecDeque<u8>,
    /// How much of what was sent the peer has answered.
    answered: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Connected(u64),
    Answer(u64, u32),
    /// The peer has read, and there is room again.
    Read(u64),
    Look(u64),
    /// A completion that was put off.
    Late(u64, i32),
}

/// What the ring runs on, and what it must not do.
#[derive(Debug)]
pub(super) struct World {
    now: Instant,
    dice: Dice,
    manners: Manners,
    calls: u64,
    ring_is_closed: bool,
    queue: VecDeque<(Operation, u64)>,
    posted: VecDeque<Completion>,
    aside: VecDeque<Completion>,
    buffers: VecDeque<u16>,
    memory: Vec<Box<[u8]>>,
    heap: BinaryHeap<Reverse<(Instant, u64, Happening)>>,
    events: u64,
    /// Sockets by serial number; by descriptor, which of them has it.
    sockets: BTreeMap<u64, Socket>,
    descriptors: BTreeMap<RawFd, u64>,
    serials: u64,
    /// By connection: all that was ever sent on its socket.
    pub(super) sent: HashMap<u32, Vec<u8>>,
    /// By connection and place among its bytes: when they were taken from the queue.
    pub(super) taken: HashMap<(u32, usize), Instant>,
    /// How often what happened that a run should meet.
    pub(super) met: BTreeMap<&'static str, u64>,
    pub(super) violations: Vec<String>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut dice = Dice::keyed(seed, b"kernel");
        Self {
            now: Instant(1_000_000),
            manners: Manners::drawn(&mut dice),
            dice,
            calls: 0,
            ring_is_closed: false,
            queue: VecDeque::new(),
            posted: VecDeque::new(),
            aside: VecDeque::new(),
            buffers: (0..BUFFERS).collect(),
            memory: (0..BUFFERS).map(|_| vec![0; BUFFER].into()).collect(),
            heap: BinaryHeap::new(),
            events: 0,
            sockets: BTreeMap::new(),
            descriptors: BTreeMap::new(),
            serials: 0,
            sent: HashMap::new(),
            taken: HashMap::new(),
            met: BTreeMap::new(),
            violations: Vec::new(),
        }
    }

    pub(super) fn manners(&self) -> &Manners {
        &self.manners
    }

    /// Descriptors that are open and operations that have not ended.
    pub(super) fn open(&self) -> (usize, usize) {
        let held = self.sockets.values().flat_map(|s| [s.connect, s.receive, s.poll]).flatten().count();
        (self.descriptors.len(), held + self.queue.len())
    }

    /// The sockets that are open, in words.
    pub(super) fn sockets(&self) -> String {
        let sent = |s: &Socket| self.sent.get(&s.connection).map_or(0, Vec::len);
        self.sockets.values().map(|s| format!("{} sent on {s:?}; ", sent(s))).collect()
    }

    /// Buffers that are the kernel's.
    pub(super) fn free_buffers(&self) -> usize {
        self.buffers.len()
    }

    pub(super) const BUFFERS: usize = BUFFERS as usize;

    fn meet(&mut self, what: &'static str) {
        *self.met.entry(what).or_default() += 1;
    }

    fn look(&mut self) -> Instant {
        self.now = self.now.after(self.dice.below(100));
        self.now
    }

    fn schedule(&mut self, most: Nanos, what: Happening) {
        let at = self.now.after(self.dice.below(most + 1));
        self.events += 1;
        self.heap.push(Reverse((at, self.events, what)));
    }

    fn post(&mut self, completion: Completion) {
        if self.posted.len() < self.manners.completions && self.aside.is_empty() {
            self.posted.push_back(completion);
        } else {
            self.meet("put aside");
            self.aside.push_back(completion);
        }
    }

    fn end(&mut self, tag: u64, result: i32) {
        self.post(Completion::new(tag, result, None, false));
    }

    fn serial(&mut self, fd: RawFd, tag: u64) -> Option<u64> {
        let found = self.descriptors.get(&fd).copied();
        if found.is_none() {
            self.violations.push(format!("an operation on descriptor {fd}, which is closed"));
            self.end(tag, -libc::EBADF);
        }
        found
    }

    // ---- The call ------------------------------------------------------------------------------------------------------

    fn enter(&mut self, until: Option<Instant>) -> io::Result<()> {
        self.calls += 1;
        self.now = self.now.after(self.dice.below(5 * MICRO));
        if self.calls >= self.manners.dies_at {
            return Err(io::Error::from_raw_os_error(libc::ENOMEM));
        }
        if self.calls > MOST_CALLS {
            return Err(io::Error::other("calls without end"));
        }
        if self.dice.chance(self.manners.refuse) {
            self.meet("refused");
            let error = self.dice.pick(&[libc::EINTR, libc::EBUSY, libc::EAGAIN]);
            return Err(io::Error::from_raw_os_error(error));
        }
        let before = self.posted.len();
        self.post_what_was_put_aside();
        let mut n = self.queue.len();
        if n > 1 && self.dice.chance(self.manners.partial) {
            self.meet("taken in part");
            n = self.dice.within(1, n as u64) as usize;
        }
        for (operation, tag) in self.queue.drain(..n).collect::<Vec<_>>() {
            self.take(operation, tag);
        }
        self.let_happen();
        let waited = match until {
            // One that does not take all does not wait.
            Some(until) if self.posted.is_empty() && self.queue.is_empty() => self.wait(until),
            _ => Ok(()),
        };
        self.shuffle(before);
        waited
    }

    fn wait(&mut self, until: Instant) -> io::Result<()> {
        let next = self.heap.peek().map(|Reverse((at, ..))| *at);
        if next.is_none() && until > Instant(u64::MAX / 2) {
            return Err(io::Error::other("nothing will ever come"));
        }
        self.now = self.now.max(next.unwrap_or(until).min(until));
        self.let_happen();
        let timed_out = self.posted.is_empty();
        if timed_out { Err(io::Error::from_raw_os_error(libc::ETIME)) } else { Ok(()) }
    }

    fn post_what_was_put_aside(&mut self) {
        while self.posted.len() < self.manners.completions
            && let Some(completion) = self.aside.pop_front()
        {
            self.posted.push_back(completion);
        }
    }

    /// Completions of different operations may come in any order.
    fn shuffle(&mut self, from: usize) {
        for k in from + 1..self.posted.len() {
            if self.posted[k - 1].tag != self.posted[k].tag && self.dice.chance(300) {
                self.posted.swap(k - 1, k);
            }
        }
    }

    fn take(&mut self, operation: Operation, tag: u64) {
        match operation {
            Operation::Nothing => self.end(tag, 0),
            Operation::Connect { fd, .. } => {
                let Some(serial) = self.serial(fd, tag) else { return };
                self.hold(serial, tag, |socket| &mut socket.connect);
                let most = self.manners.connects;
                self.schedule(most, Happening::Connected(serial));
            }
            Operation::Receive { fd } => {
                let Some(serial) = self.serial(fd, tag) else { return };
                self.hold(serial, tag, |socket| &mut socket.receive);
                self.deliver(serial);
            }
            Operation::Room { fd } => {
                let Some(serial) = self.serial(fd, tag) else { return };
                self.hold(serial, tag, |socket| &mut socket.poll);
                self.schedule(MICRO, Happening::Look(serial));
            }
            Operation::Send { fd, bytes, len } => {
                let Some(serial) = self.serial(fd, tag) else { return };
                // SAFETY: the ring says that the bytes stay until the call that takes them up returns.
                let bytes = unsafe { std::slice::from_raw_parts(bytes, len as usize) }.to_vec();
                self.send_queued(serial, &bytes, tag);
            }
            Operation::Cancel { of } => self.cancel(of, tag),
            Operation::Accept { .. } | Operation::Bell { .. } => self.violations.push("no such operation".to_owned()),
        }
    }

    fn hold(&mut self, serial: u64, tag: u64, which: impl Fn(&mut Socket) -> &mut Option<u64>) {
        let Some(socket) = self.sockets.get_mut(&serial) else { return };
        if which(socket).replace(tag).is_some() {
            self.violations.push(format!("two operations of a kind on {socket:?}"));
        }
    }

    fn cancel(&mut self, of: u64, tag: u64) {
        let found = self.sockets.values_mut().find(|socket| socket.connect == Some(of));
        let result = match found {
            Some(socket) => {
                socket.connect = None;
                self.meet("cancelled");
                self.end(of, -libc::ECANCELED);
                0
            }
            None => -libc::ENOENT,
        };
        self.end(tag, result);
    }

    fn send_queued(&mut self, serial: u64, bytes: &[u8], tag: u64) {
        let result = match self.send(serial, bytes) {
            Ok(taken) if taken == bytes.len() => return,
            Ok(0) => -libc::EAGAIN,
            Ok(taken) => taken as i32,
            Err(error) => -error,
        };
        let failed = result < 0 && result != -libc::EAGAIN;
        self.meet(if failed { "queued send failed" } else { "queued send fell short" });
        if failed && self.dice.chance(self.manners.late_sends) {
            self.meet("late word of a send");
            self.schedule(MILLI, Happening::Late(tag, result));
        } else {
            self.end(tag, result);
        }
    }

    /// What a socket takes of some bytes.
    fn send(&mut self, serial: u64, bytes: &[u8]) -> Result<usize, i32> {
        let now = self.now;
        let Some(socket) = self.sockets.get_mut(&serial) else { return Err(libc::EBADF) };
        if socket.shut || socket.reset {
            return Err(socket.error.take().unwrap_or(libc::EPIPE));
        }
        let taken = bytes.len().min(socket.room);
        socket.room -= taken;
        let (connection, full) = (socket.connection, taken < bytes.len());
        let sent = self.sent.entry(connection).or_default();
        if taken > 0 {
            self.taken.insert((connection, sent.len()), now);
        }
        sent.extend_from_slice(&bytes[..taken]);
        if taken > 0 || full {
            let most = self.manners.reads;
            self.schedule(most, Happening::Read(serial));
        }
        Ok(taken)
    }

    // ---- What happens --------------------------------------------------------------------------------------------------

    fn let_happen(&mut self) {
        while let Some(Reverse((at, ..))) = self.heap.peek()
            && *at <= self.now
            && let Some(Reverse((.., what))) = self.heap.pop()
        {
            match what {
                Happening::Connected(serial) => self.connect_ends(serial),
                Happening::Answer(serial, number) => self.answer(serial, number),
                Happening::Read(serial) => self.read(serial),
                Happening::Look(serial) => self.tell_room(serial),
                Happening::Late(tag, result) => self.end(tag, result),
            }
        }
    }

    fn connect_ends(&mut self, serial: u64) {
        let fails = self.dice.chance(self.manners.no_connection);
        let error = self.dice.pick(&[libc::ECONNREFUSED, libc::ETIMEDOUT, libc::EADDRNOTAVAIL]);
        let Some(socket) = self.sockets.get_mut(&serial) else { return };
        let Some(tag) = socket.connect.take() else { return };
        socket.connected = !fails;
        self.end(tag, if fails { -error } else { 0 });
    }

    /// The peer reads what was sent, and will answer each whole message.
    fn read(&mut self, serial: u64) {
        let (room, most) = (self.manners.room, self.manners.answers);
        let Some(socket) = self.sockets.get_mut(&serial) else { return };
        socket.room = room;
        let (connection, mut from) = (socket.connection, socket.answered);
        let mut numbers = Vec::new();
        let sent = self.sent.get(&connection).map_or(&[][..], Vec::as_slice);
        while let Some((number, len)) = parse(sent.get(from..).unwrap_or_default()) {
            from += len;
            numbers.push(number);
        }
        socket.answered = from;
        numbers.into_iter().for_each(|number| self.schedule(most, Happening::Answer(serial, number)));
        self.tell_room(serial);
    }

    fn answer(&mut self, serial: u64, number: u32) {
        let len = self.dice.pick(&[12, 13, 60, 300]);
        let (resets, closes) = (self.dice.chance(self.manners.resets), self.dice.chance(self.manners.closes));
        let Some(socket) = self.sockets.get_mut(&serial).filter(|socket| !socket.ended) else { return };
        socket.inbox.extend(message(socket.connection, number, len));
        if resets {
            (socket.ended, socket.reset, socket.error) = (true, true, Some(libc::ECONNRESET));
        } else if closes {
            socket.ended = true;
        }
        self.deliver(serial);
        self.tell_room(serial);
    }

    fn tell_room(&mut self, serial: u64) {
        let Some(socket) = self.sockets.get_mut(&serial) else { return };
        if socket.room > 0 || socket.shut || socket.reset {
            let tag = socket.poll.take();
            tag.into_iter().for_each(|tag| self.end(tag, libc::POLLOUT.into()));
        }
    }

    /// Gives the receive on a socket what there is for it.
    fn deliver(&mut self, serial: u64) {
        loop {
            let ends_early = self.dice.chance(self.manners.ends_early);
            let piece = self.dice.within(1, BUFFER as u64) as usize;
            let Some(socket) = self.sockets.get_mut(&serial) else { return };
            let Some(tag) = socket.receive else { return };
            let ends = socket.shut || socket.ended;
            if socket.inbox.is_empty() && !ends {
                return;
            }
            if socket.shut || socket.inbox.is_empty() {
                let result = socket.error.take().map_or(0, |error| -error);
                socket.receive = None;
                return self.end(tag, result);
            }
            let Some(buffer) = self.buffers.pop_front() else {
                socket.receive = None;
                self.meet("no buffer");
                return self.end(tag, -libc::ENOBUFS);
            };
            let len = piece.min(socket.inbox.len());
            self.memory[usize::from(buffer)]
                .iter_mut()
                .zip(socket.inbox.drain(..len))
                .for_each(|(at, byte)| *at = byte);
            if ends_early {
                socket.receive = None;
            }
            self.post(Completion::new(tag, len as i32, Some(buffer), !ends_early));
        }
    }

    fn close(&mut self, fd: RawFd) {
        let Some(serial) = self.descriptors.remove(&fd) else { return };
        let queued = self.queue.iter().any(|(operation, _)| descriptor(operation) == Some(fd));
        let Some(socket) = self.sockets.remove(&serial) else { return };
        let held = socket.connect.or(socket.receive).or(socket.poll).is_some();
        if (queued || held) && !self.ring_is_closed {
            self.violations
                .push(format!("descriptor {fd} was closed under an operation (queued: {queued}): {socket:?}"));
        }
    }
}

fn descriptor(operation: &Operation) -> Option<RawFd> {
    match *operation {
        Operation::Connect { fd, .. } | Operation::Receive { fd } | Operation::Room { fd } => Some(fd),
        Operation::Send { fd, .. } | Operation::Accept { fd } | Operation::Bell { fd } => Some(fd),
        Operation::Nothing | Operation::Cancel { .. } => None,
    }
}

/// The ring's side of it. Once it is dropped, descriptors may be closed whatever is queued.
pub(super) struct FakeKernel(pub(super) Rc<RefCell<World>>);

impl Drop for FakeKernel {
    fn drop(&mut self) {
        self.0.borrow_mut().ring_is_closed = true;
    }
}

/// A descriptor that is none.
pub(super) struct FakeDescriptor(RawFd, Rc<RefCell<World>>);

impl AsRawFd for FakeDescriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

impl Drop for FakeDescriptor {
    fn drop(&mut self) {
        self.1.borrow_mut().close(self.0);
    }
}

impl Kernel for FakeKernel {
    type Descriptor = FakeDescriptor;
    const BUFFERS: u16 = BUFFERS;

    fn now(&self) -> Instant {
        self.0.borrow_mut().look()
    }

    unsafe fn push(&self, operation: Operation, tag: u64) -> Option<u32> {
        let mut world = self.0.borrow_mut();
        if world.queue.len() >= world.manners.submissions {
            world.meet("queue full");
            return None;
        }
        world.queue.push_back((operation, tag));
        Some(world.queue.len() as u32)
    }

    fn queued(&self) -> u32 {
        self.0.borrow().queue.len() as u32
    }

    fn enter(&self, until: Option<Instant>) -> io::Result<()> {
        self.0.borrow_mut().enter(until)
    }

    fn reap(&self, into: &mut VecDeque<Completion>) {
        into.extend(self.0.borrow_mut().posted.drain(..));
    }

    fn has_put_aside(&self) -> bool {
        !self.0.borrow().aside.is_empty()
    }

    fn buffer(&self, buffer: u16) -> *const u8 {
        self.0.borrow().memory[usize::from(buffer)].as_ptr()
    }

    fn give_back(&self, buffer: u16) {
        let mut world = self.0.borrow_mut();
        if world.buffers.contains(&buffer) {
            world.violations.push(format!("buffer {buffer} was given back twice"));
        }
        world.buffers.push_back(buffer);
    }

    fn socket(&self, to: SocketAddr) -> io::Result<FakeDescriptor> {
        let mut world = self.0.borrow_mut();
        if world.dice.chance(20) {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        world.serials += 1;
        let serial = world.serials;
        // The lowest number that is free, as kernels do.
        let fd = (3..).find(|fd| !world.descriptors.contains_key(fd)).unwrap_or(RawFd::MAX);
        world.descriptors.insert(fd, serial);
        let room = world.manners.room;
        let socket = Socket {
            connection: connection(to),
            connect: None,
            receive: None,
            poll: None,
            connected: false,
            shut: false,
            ended: false,
            reset: false,
            error: None,
            room,
            inbox: VecDeque::new(),
            answered: 0,
        };
        world.sockets.insert(serial, socket);
        Ok(FakeDescriptor(fd, self.0.clone()))
    }

    unsafe fn adopt(&self, fd: RawFd) -> FakeDescriptor {
        FakeDescriptor(fd, self.0.clone())
    }

    fn narrow(&self, _: RawFd) -> bool {
        self.0.borrow_mut().dice.chance(500)
    }

    fn widen(&self, _: RawFd) {}

    fn settle(&self, _: RawFd) -> io::Result<u16> {
        match self.0.borrow_mut().dice.chance(20) {
            true => Err(io::Error::from_raw_os_error(libc::ENOTCONN)),
            false => Ok(1),
        }
    }

    fn send(&self, fd: RawFd, head: &[u8], body: &[u8]) -> io::Result<usize> {
        let mut world = self.0.borrow_mut();
        let Some(serial) = world.descriptors.get(&fd).copied() else {
            world.violations.push(format!("bytes for descriptor {fd}, which is closed"));
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        };
        world.look();
        world.send(serial, &[head, body].concat()).map_err(io::Error::from_raw_os_error)
    }

    fn shut(&self, fd: RawFd) {
        let mut world = self.0.borrow_mut();
        let Some(serial) = world.descriptors.get(&fd).copied() else { return };
        if let Some(socket) = world.sockets.get_mut(&serial) {
            socket.shut = true;
            socket.inbox.clear();
        }
        world.deliver(serial);
        world.tell_room(serial);
    }
}
