//! What starts next: credits, turns that are ready, sessions.

use super::flight::{Exchange, Flight, NONE};
use super::shard::{Mode, Need, Release, Taken};
use super::timers::Timer;
use super::{Executor, Wire};
use crate::clock::Instant;
use crate::credit::{Claims, Credit, Progress};
use crate::plan::History;
use crate::record::{Outcome, Record, UNKNOWN, flag};

/// Requests that one turn starts at most, so that a turn stays short. Where thousands are due at once, the answers to the
/// first of them free connections for the next, which would each open one of their own.
const STARTS_A_TURN: usize = 64;

/// Sessions that one turn looks at to end those that wait.
const SESSIONS_A_TURN: u32 = 256;

/// What lets a turn go.
#[derive(Debug, Clone, Copy)]
struct Permit {
    due: Instant,
    flags: u16,
    /// It is a credit of the timing core's; otherwise the executor's own doing.
    credited: bool,
}

/// Whose turn a request is.
#[derive(Debug, Clone, Copy)]
struct Of {
    /// The session's slot; [`NONE`] where it has one turn.
    slot: u32,
    /// The session's number in its phase.
    number: u64,
    target: u16,
    keeps_reply: bool,
}

impl From<Release> for Permit {
    fn from(release: Release) -> Self {
        let bit = |holds: bool, bit: u16| if holds { bit } else { 0 };
        let flags = bit(release.credit.is_scheduled(), flag::SCHEDULED)
            | bit(release.queued, flag::QUEUED)
            | bit(release.over_limit, flag::OVER_LIMIT);
        Self { due: release.due, flags, credited: true }
    }
}

impl<W: Wire> Executor<W> {
    /// When the next request can start; [`Instant::NEVER`] if that takes an event.
    #[inline]
    pub(super) fn next_start(&self) -> Instant {
        let shard = &self.shards[self.current];
        if shard.mode == Mode::Single { shard.next_due(Need::Session) } else { self.next_turn() }
    }

    /// When the next turn of a session can start.
    fn next_turn(&self) -> Instant {
        let shard = &self.shards[self.current];
        let ready = !self.sessions.ready.is_empty();
        match shard.mode {
            Mode::Single => shard.next_due(Need::Session),
            // What still waits is handed back.
            _ if shard.is_stopped() => shard.front_due(),
            Mode::Loop if ready => shard.slot_at(Need::Turn),
            Mode::Loop if shard.exhausted => Instant::NEVER,
            Mode::Loop => shard.slot_at(Need::Session),
            Mode::Ticks if ready => shard.next_due(Need::Turn),
            Mode::Ticks if shard.exhausted => shard.front_due(),
            Mode::Ticks | Mode::Claimed => shard.next_due(Need::Session),
            Mode::Starts if ready => shard.slot_at(Need::Turn),
            Mode::Starts => shard.next_due(Need::Session),
        }
    }

    /// Starts requests whose time has come and for which a slot is free: all, or as many as a turn may.
    pub(super) fn release(&mut self, now: Instant) {
        let mut left = STARTS_A_TURN;
        while left > 0 && self.ending.is_none_or(|(phase, _)| phase != self.current as u8) && self.next_start() <= now {
            // What is decided by the clock bears the time at which it was: nothing starts after its phase's end.
            let start = self.wire.now();
            if !self.start_next(start) {
                break;
            }
            left -= 1;
        }
        if left == STARTS_A_TURN {
            self.hand_back(now);
        }
        if self.sessions.any_waits() && self.ending.is_none() && self.shards[self.current].is_over(now) {
            self.end_waiting(now);
        }
    }

    /// Hands back the credits that will not be started.
    pub(super) fn hand_back(&mut self, now: Instant) {
        let unused = self.shards[self.current].hand_back(now);
        if unused > 0 {
            Progress::add(&self.counters().unused, unused);
        }
    }

    /// Starts the next request, or disposes of the next credit; `false` if there is nothing to be done.
    fn start_next(&mut self, now: Instant) -> bool {
        let shard = &self.shards[self.current];
        if shard.mode == Mode::Single {
            return self.start_single(now);
        }
        let ends = shard.is_over(now) && !self.is_only_late(now);
        if ends || (matches!(shard.mode, Mode::Ticks | Mode::Claimed) && self.is_served()) {
            self.shards[self.current].stop();
            return false;
        }
        let shard = &mut self.shards[self.current];
        shard.refresh(now);
        let ready = self.sessions.ready.front().copied();
        match (shard.mode, ready) {
            (Mode::Single, _) => false,
            (Mode::Claimed, _) => match self.take(now, Need::Session) {
                Ok(release) => self.start_claimed(release.into(), now),
                Err(disposed) => disposed,
            },
            (Mode::Loop | Mode::Starts, Some(session)) => {
                let over_limit = !shard.has_slot(Need::Turn);
                if over_limit && !shard.sends_over_limit() {
                    return false;
                }
                shard.occupy(Need::Turn);
                let mut flags = if shard.mode == Mode::Starts { flag::SCHEDULED } else { 0 };
                let due = self.sessions.get(session).due;
                if over_limit {
                    flags |= flag::OVER_LIMIT;
                } else if shard.kept_turn(due) {
                    flags |= flag::QUEUED;
                }
                self.resume(session, Permit { due, flags, credited: false }, now)
            }
            (Mode::Loop, None) => {
                if shard.exhausted || !shard.has_slot(Need::Session) {
                    return false;
                }
                shard.occupy(Need::Session);
                let due = shard.freed_at();
                self.begin_next(Permit { due, flags: 0, credited: false }, now)
            }
            (Mode::Ticks, None) if shard.exhausted => {
                let idle = shard.take_idle(now);
                if idle {
                    Progress::add(&self.counters().idle, 1);
                    Progress::add(&self.counters().unused, 1);
                }
                idle
            }
            // Its turn waited for a slot: the end of the phase ends that.
            (Mode::Ticks, Some(session))
                if shard.is_over(now) && shard.kept_tick(shard.front_due(), self.sessions.due(session)) =>
            {
                shard.stop();
                false
            }
            (Mode::Ticks, Some(session)) => match self.take(now, Need::Turn) {
                Ok(mut release) => {
                    let ready = self.sessions.get(session).due;
                    release.queued |= self.shards[self.current].kept_tick(release.due, ready);
                    self.resume(session, release.into(), now)
                }
                Err(disposed) => disposed,
            },
            (Mode::Ticks, None) => match self.take(now, Need::Session) {
                Ok(release) => self.begin_next(release.into(), now),
                Err(disposed) => disposed,
            },
            (Mode::Starts, None) => match self.take(now, Need::Session) {
                Ok(release) => self.begin_bound(release, now),
                Err(disposed) => disposed,
            },
        }
    }

    /// Whether what comes next in a phase that is over was due before its end and is only late.
    fn is_only_late(&self, now: Instant) -> bool {
        let shard = &self.shards[self.current];
        let due = match (shard.mode, self.sessions.ready.front()) {
            (Mode::Starts, Some(&session)) => self.sessions.due(session),
            (Mode::Ticks | Mode::Claimed | Mode::Starts, _) => shard.front_due(),
            (Mode::Single | Mode::Loop, _) => Instant::NEVER,
        };
        shard.is_late_only(due, now)
    }

    /// Whether all requests of the phase have been sent.
    fn is_served(&self) -> bool {
        Progress::get(&self.ends.claims.phase(self.current).requests) >= self.most_requests()
    }

    /// How many requests the phase sends at most.
    fn most_requests(&self) -> u64 {
        self.plan.phases[self.current].most_requests(self.plan.requests.is_single_turn()).unwrap_or(u64::MAX)
    }

    #[inline]
    fn start_single(&mut self, now: Instant) -> bool {
        let release = match self.take(now, Need::Session) {
            Ok(release) => release,
            Err(disposed) => return disposed,
        };
        let Credit { seq, request, .. } = release.credit;
        self.depart(seq, request, release.into(), self.single(seq), now);
        true
    }

    /// Sends the next request that nobody has sent.
    fn start_claimed(&mut self, permit: Permit, now: Instant) -> bool {
        let Some(seq) = self.claim_request() else {
            self.decline(Need::Session, permit, now);
            return false;
        };
        let before = Progress::get(&self.ends.claims.phase(self.current).before);
        let (request, _) = self.plan.requests.session(self.sampler.template(before + seq));
        self.depart(seq, request, permit, self.single(seq), now);
        true
    }

    /// The only turn of session `number`.
    #[inline]
    fn single(&self, number: u64) -> Of {
        Of { slot: NONE, number, target: self.targets.pick(number), keeps_reply: false }
    }

    /// The next credit, with its slots; otherwise whether it was dropped.
    #[inline]
    fn take(&mut self, now: Instant, need: Need) -> Result<Release, bool> {
        match self.shards[self.current].take(now, need) {
            Taken::Go(release) => Ok(release),
            Taken::Nothing => Err(false),
            Taken::Dropped => {
                Progress::add(&self.counters().dropped, 1);
                Progress::add(&self.counters().unused, 1);
                Err(true)
            }
        }
    }

    /// Starts the next session that anybody starts.
    fn begin_next(&mut self, permit: Permit, now: Instant) -> bool {
        let claims = self.ends.claims.phase(self.current);
        let most = self.plan.phases[self.current].sessions.unwrap_or(u64::MAX);
        let Some(number) = Claims::claim(&claims.sessions, most) else {
            self.shards[self.current].exhausted = true;
            if permit.credited {
                Progress::add(&self.counters().idle, 1);
            }
            self.decline(Need::Session, permit, now);
            return true;
        };
        let template = self.sampler.template(Progress::get(&claims.before) + number);
        let span = self.plan.requests.session(template);
        self.begin(number, span, permit, now)
    }

    /// Starts the session that the credit says.
    fn begin_bound(&mut self, release: Release, now: Instant) -> bool {
        let Credit { seq, request, turns, .. } = release.credit;
        self.begin(seq, (request, turns), release.into(), now)
    }

    fn begin(&mut self, number: u64, span: (u32, u32), permit: Permit, now: Instant) -> bool {
        let Some(seq) = self.claim_request() else {
            self.decline(Need::Session, permit, now);
            return false;
        };
        let target = self.targets.pick(number);
        let session = self.sessions.open(self.current as u8, number, target, span);
        Progress::add(&self.counters().sessions, 1);
        self.sessions.get(session).planned = permit.due;
        self.launch(session, seq, permit, now);
        true
    }

    /// Sends the next turn of the session that is first in line.
    fn resume(&mut self, session: u32, permit: Permit, now: Instant) -> bool {
        let Some(seq) = self.claim_request() else {
            self.decline(Need::Turn, permit, now);
            return false;
        };
        self.sessions.ready.pop_front();
        self.count_ready();
        self.launch(session, seq, permit, now);
        true
    }

    /// The number of the next request of the phase. If there is none any more, nothing else is started in it.
    fn claim_request(&mut self) -> Option<u64> {
        let most = self.most_requests();
        let claimed = Claims::claim(&self.ends.claims.phase(self.current).requests, most);
        if claimed.is_none() {
            self.shards[self.current].stop();
        }
        claimed
    }

    /// Gives back what was taken for a request that is not sent after all.
    fn decline(&mut self, need: Need, permit: Permit, now: Instant) {
        let shard = &mut self.shards[self.current];
        if shard.limits_prefill() {
            shard.free_prefill(now);
        }
        if need == Need::Session {
            shard.free_session(now);
        }
        if permit.credited {
            Progress::add(&self.counters().unused, 1);
        }
    }

    /// Sends the session's next turn.
    fn launch(&mut self, slot: u32, seq: u64, permit: Permit, now: Instant) {
        self.sessions.go(slot);
        let session = self.sessions.get(slot);
        let request = session.first + session.next;
        let turn = self.plan.requests.turn(request);
        if turn.reset {
            session.forget();
        }
        session.next += 1;
        let (number, target, is_sent) = (session.number, session.target, session.is_sent());
        if !permit.credited {
            Progress::add(&self.counters().own, 1);
        }
        if is_sent {
            Progress::add(&self.counters().sessions_sent, 1);
        }
        let keeps_reply = !is_sent && turn.history == History::OwnAndReply;
        self.depart(seq, request, permit, Of { slot, number, target, keeps_reply }, now);
    }

    /// Sends a request.
    #[inline]
    fn depart(&mut self, seq: u64, request: u32, permit: Permit, of: Of, now: Instant) {
        let slot = self.board(seq, request, permit, of, now);
        let counters = self.counters();
        Progress::add(&counters.started, 1);
        if permit.flags & (flag::QUEUED | flag::OVER_LIMIT) != 0 {
            let queued = permit.flags & flag::QUEUED != 0;
            Progress::add(if queued { &counters.queued } else { &counters.over_limit }, 1);
        }
        self.note_late(slot, now);
        self.targets.begin(of.target);
        self.seat(slot, now);
    }

    /// Gives the request a slot and a fresh record.
    fn board(&mut self, seq: u64, request: u32, permit: Permit, of: Of, start: Instant) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.flights.push(Flight::new());
            self.flights.len() as u32 - 1
        });
        let phase = self.current as u8;
        // Due before a pause of the thread ended: it waited for that.
        let stalled = if permit.due.is_set() && permit.due < self.stalls.last.1 { flag::STALLED } else { 0 };
        let shard = &self.shards[self.current];
        let flight = &mut self.flights[slot as usize];
        flight.generation = flight.generation.wrapping_add(1);
        flight.live = true;
        flight.conn = None;
        flight.retried = false;
        flight.late = false;
        flight.session = of.slot;
        flight.prefilling = shard.limits_prefill();
        flight.cut_after = shard.cancel.and_then(|draws| draws.delay_of(seq));
        flight.keeps_reply = of.keeps_reply;
        flight.exchange = Exchange::First;
        flight.redirected = None;
        flight.record = Record {
            seq,
            due: if permit.due.is_set() { permit.due } else { start },
            start,
            request,
            phase,
            flags: permit.flags | stalled,
            executor: self.id,
            target: of.target,
            session: of.number,
            usage_prompt: UNKNOWN,
            usage_completion: UNKNOWN,
            usage_reasoning: UNKNOWN,
            usage_cached: UNKNOWN,
            usage_total: UNKNOWN,
            ..bytemuck::Zeroable::zeroed()
        };
        self.link(slot);
        slot
    }

    /// A turn of a session has ended. In a closed loop nothing takes its place before `free_at`.
    pub(super) fn turn_over(&mut self, flight: u32, slot: u32, (outcome, free_at): (Outcome, Instant), now: Instant) {
        let session = self.sessions.get(slot);
        let shard = &self.shards[session.phase as usize];
        if session.is_sent() || shard.is_over(now) {
            return self.end_session(slot, free_at, now);
        }
        let flight = &self.flights[flight as usize];
        let answer = flight.answer.as_ref().filter(|_| outcome == Outcome::Ok);
        let answer = answer.map(|answer| (&answer.kept.reply, self.plan.endpoint));
        session.remember(&self.plan.requests, flight.record.request, answer);
        let next = self.plan.requests.turn(session.first + session.next);
        let due = match (shard.mode, shard.gap, next.at) {
            (Mode::Starts, Some(gap), _) => {
                session.planned = session.planned.after(gap);
                session.planned.max(now)
            }
            (Mode::Starts, None, Some(at)) => shard.start.after(at).max(now),
            _ => now.after(next.delay).max(free_at),
        };
        let generation = session.generation;
        self.sessions.wait(slot, due, free_at > now.after(next.delay));
        if due <= now {
            self.make_ready(slot);
        } else {
            self.timers.set(due, Timer::Turn { session: slot, generation });
        }
    }

    /// The session's next turn can go.
    pub(super) fn make_ready(&mut self, slot: u32) {
        self.sessions.ready.push_back(slot);
        self.count_ready();
    }

    fn count_ready(&self) {
        let n = self.sessions.ready.len() as u64;
        self.counters().ready.store(n, std::sync::atomic::Ordering::Release);
    }

    /// Ends the sessions that wait for a turn, for none will come: some now, the others in the turns that follow.
    pub(super) fn end_waiting(&mut self, now: Instant) {
        self.sessions.ready.clear();
        self.count_ready();
        if self.sessions.any_waits() {
            self.ending = Some((self.current as u8, 0));
            self.end_some(now);
        }
    }

    /// Goes on with that.
    pub(super) fn end_some(&mut self, now: Instant) {
        let Some((phase, from)) = self.ending else { return };
        let slots = self.sessions.slots();
        let to = slots.min(from + SESSIONS_A_TURN);
        for slot in from..to {
            let session = self.sessions.get(slot);
            if session.waiting && session.phase <= phase {
                self.end_session(slot, now, now);
            }
        }
        self.ending = (to < slots).then_some((phase, to));
        if phase == self.current as u8 && !self.sessions.ready.is_empty() {
            // Their time came meanwhile; whether they have ended yet or not, they go no more.
            self.sessions.ready.clear();
            self.count_ready();
        }
    }

    /// Ends a session, whose slot is free at `free_at`.
    fn end_session(&mut self, slot: u32, free_at: Instant, now: Instant) {
        self.sessions.close(slot);
        let session = self.sessions.get(slot);
        let (phase, conn, cut) = (session.phase as usize, session.conn.take(), !session.is_sent());
        if let Some(conn) = conn {
            self.drop_conn(conn);
        }
        self.free_slot(phase, free_at, now);
        let counters = self.ends.progress.phase(phase);
        if cut {
            Progress::add(&counters.sessions_cut, 1);
            Progress::add(&counters.sessions_sent, 1);
        }
        Progress::add(&counters.sessions_ended, 1);
    }
}
