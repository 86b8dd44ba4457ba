//! A steady population of users who each hold one conversation after another, turn by turn at equal intervals.
//!
//! With N users and a total rate R every user sends a turn each G = N / R seconds, and somebody sends one every 1 / R.
//! So that the population is in its steady state from the start, the first users begin in the middle of imagined
//! sessions: user i (from 0) of N is taken to have sent turns for (N − i)·L / N intervals already, with L the mean number
//! of turns less one, and sends only what is left of them. When a user's last turn has had its interval, a new user takes
//! the place. Everything stands on the grid k / R, where each k has exactly one request as long as turns are on time; the
//! moments are computed from k and never added up.

use super::constant::on_grid;
use crate::clock::Nanos;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

/// A user-centric schedule as asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct UserCentric {
    /// Users at a time, at least 1.
    pub users: u32,
    /// Turns per second of all users together, above 0.
    pub rate: f64,
    /// Turns of each conversation, in the order in which users take them, round and round; at least one.
    pub turns: Arc<[u32]>,
}

/// A user appears and begins a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionStart {
    /// When its first turn is due, nanoseconds from the start of the phase.
    pub offset: Nanos,
    /// Number of the user, from 1; never used again.
    pub user: u64,
    /// Turns it sends, from its conversation's first; never more than the conversation has (in the reference, a
    /// conversation that is shorter than its user's share fails).
    pub turns: u32,
    /// Index of the conversation.
    pub conversation: u32,
    /// From one turn's planned time to the next, nanoseconds. A turn whose predecessor has not been answered by then is
    /// sent when it has been.
    pub gap: Nanos,
}

impl UserCentric {
    /// From one turn of a user to its next, nanoseconds.
    pub fn gap(&self) -> Nanos {
        on_grid(u64::from(self.users), self.rate)
    }

    /// The mean number of turns, rounded to even halves.
    pub fn mean_turns(&self) -> u64 {
        let sum: u64 = self.turns.iter().map(|t| u64::from(*t)).sum();
        (sum as f64 / self.turns.len().max(1) as f64).round_ties_even() as u64
    }

    /// The users in the order in which they begin. Without an end: what ends a phase ends it.
    pub fn sessions(&self) -> Sessions {
        Sessions::new(self)
    }
}

/// A user who is due to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    /// Grid point.
    at: u64,
    /// Number of the user, if it is one of the first; one who takes a place gets its number when it begins.
    first: Option<u64>,
    /// Turns, if fewer than its conversation's.
    turns: Option<u32>,
}

/// A walk over the starts of a [`UserCentric`] schedule.
#[derive(Debug, Clone)]
pub struct Sessions {
    spec: UserCentric,
    heap: BinaryHeap<Reverse<Due>>,
    /// Number of the next new user.
    next_user: u64,
    begun: u64,
}

impl Sessions {
    fn new(spec: &UserCentric) -> Self {
        let n = u64::from(spec.users.max(1));
        let length = spec.mean_turns().saturating_sub(1).max(1);
        let mut heap = BinaryHeap::from([Reverse(Due { at: 0, first: Some(n + 1), turns: None })]);
        for i in 0..n {
            let age = (n - i) * length;
            let turns = length.saturating_sub(age / n);
            if turns > 0 {
                let at = n - slot(age, i, n, length);
                heap.push(Reverse(Due { at, first: Some(i + 1), turns: Some(turns as u32) }));
            }
        }
        Self { spec: spec.clone(), heap, next_user: n + 2, begun: 0 }
    }

    /// The next user to begin.
    pub fn next_session(&mut self) -> Option<SessionStart> {
        let Reverse(due) = self.heap.pop()?;
        let conversation = self.begun % self.spec.turns.len().max(1) as u64;
        let whole = self.spec.turns.get(conversation as usize).copied().unwrap_or(1).max(1);
        let turns = due.turns.map_or(whole, |t| t.min(whole));
        let user = due.first.unwrap_or(self.next_user);
        self.next_user += u64::from(due.first.is_none());
        self.begun += 1;
        let next = due.at + u64::from(turns) * u64::from(self.spec.users.max(1));
        self.heap.push(Reverse(Due { at: next, first: None, turns: None }));
        Some(SessionStart {
            offset: on_grid(due.at, self.spec.rate),
            user,
            turns,
            conversation: conversation as u32,
            gap: self.spec.gap(),
        })
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// How far before the end of an interval user `i` sends: its age's remainder where that gives each user a slot of its own,
/// else spread by a step that shares no factor with N.
fn slot(age: u64, i: u64, n: u64, length: u64) -> u64 {
    if gcd(n, length) == 1 {
        return age % n;
    }
    let step = if n <= 2 { 1 } else { (2..n).find(|s| gcd(*s, n) == 1).unwrap_or(1) };
    i * step % n
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SECOND;
    use proptest::prelude::*;

    fn spec(users: u32, turns: u32, rate: f64) -> UserCentric {
        UserCentric { users, rate, turns: [turns].into() }
    }

    fn starts(spec: &UserCentric, n: usize) -> Vec<SessionStart> {
        let mut sessions = spec.sessions();
        (0..n).map_while(|_| sessions.next_session()).collect()
    }

    /// `(grid point, user, turns)` of the first users; the fresh one is 0 as it is in the table.
    fn table(users: u32, turns: u32) -> Vec<(u64, u64, u32)> {
        let sessions = starts(&spec(users, turns, 1.0), 100);
        let first = sessions.iter().filter(|s| s.user <= u64::from(users) + 1);
        first.map(|s| (s.offset / SECOND, s.user % (u64::from(users) + 1), s.turns)).collect()
    }

    #[test]
    fn the_first_users_are_the_reference_s() {
        assert_eq!(
            table(15, 20),
            [
                (0, 0, 20),
                (1, 5, 6),
                (2, 9, 11),
                (3, 13, 16),
                (4, 2, 2),
                (5, 6, 7),
                (6, 10, 12),
                (7, 14, 17),
                (8, 3, 3),
                (9, 7, 8),
                (10, 11, 13),
                (11, 15, 18),
                (12, 4, 4),
                (13, 8, 9),
                (14, 12, 14)
            ]
        );
        assert_eq!(table(6, 4), [(0, 0, 4), (1, 2, 1), (2, 3, 1), (3, 4, 2), (4, 5, 2), (5, 6, 3)]);
        assert_eq!(table(4, 5), [(0, 0, 5), (1, 2, 1), (2, 3, 2), (3, 4, 3)]);
    }

    #[test]
    fn a_user_s_place_is_taken_when_its_last_turn_has_had_its_interval() {
        let all = starts(&spec(15, 20, 1.0), 40);
        assert_eq!(all[0].gap, 15 * SECOND);
        let five = all.iter().find(|s| s.user == 5).unwrap();
        assert_eq!((five.offset, five.turns), (SECOND, 6));
        let next = all.iter().find(|s| s.offset == 91 * SECOND).unwrap();
        assert_eq!(next.turns, 20);
        assert!(next.user > 16);
        assert_eq!(all.iter().map(|s| s.conversation).max(), Some(0));
    }

    #[test]
    fn nobody_sends_more_turns_than_the_conversation_has() {
        let spec = UserCentric { users: 5, rate: 10.0, turns: [1, 9, 3, 7].into() };
        for s in starts(&spec, 50) {
            assert!(s.turns <= spec.turns[s.conversation as usize], "{s:?}");
        }
    }

    proptest! {
        #[test]
        fn every_point_of_the_grid_has_one_request(users in 1..60u32, turns in 2..40u32) {
            let spec = spec(users, turns, 1.0);
            let mut sessions = spec.sessions();
            let horizon = 20 * u64::from(users);
            let mut requests = vec![0; horizon as usize];
            let mut numbers = std::collections::BTreeSet::new();
            let mut before = 0;
            while let Some(s) = sessions.next_session() {
                prop_assert!(s.offset >= before && numbers.insert(s.user));
                before = s.offset;
                if s.offset / SECOND >= horizon {
                    break;
                }
                for turn in 0..u64::from(s.turns) {
                    if let Some(at) = requests.get_mut((s.offset / SECOND + turn * u64::from(users)) as usize) {
                        *at += 1;
                    }
                }
            }
            prop_assert!(requests.iter().all(|r| *r <= 1), "{:?}", requests);
            // Places whose imagined session is over at once stay empty until the first interval is over, as in the
            // reference; all others are filled from the start.
            let full = requests.iter().skip(users as usize).filter(|r| **r == 1).count() as u64;
            prop_assert!(turns < users || full == horizon - u64::from(users), "{:?}", requests);
        }
    }
}
