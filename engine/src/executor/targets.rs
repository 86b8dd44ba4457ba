//! Which target a session goes to, and what a request to it looks like.

use crate::clock::{Instant, MILLI, Nanos, SECOND};
use crate::endpoint::Follow;
use crate::plan::{Balance, Plan};
use crate::wire::http1::Head;

/// The longest rota of weighted targets; larger sums of weights are scaled down to it.
const ROTA: u32 = 4096;

/// What a slot of a closed loop waits at least, and at most, before it is used again when a connection was refused.
const PAUSE: (Nanos, Nanos) = (MILLI, 100 * MILLI);

/// The plan's targets as one executor sees them.
#[derive(Debug)]
pub(super) struct Targets {
    heads: Vec<Head>,
    /// Addresses of each.
    addrs: Vec<Addresses>,
    refusing: Refusing,
    /// Requests in flight to each.
    in_flight: Vec<u32>,
    /// The order in which sessions take them.
    rota: Vec<u16>,
    least: bool,
}

impl Targets {
    pub(super) fn new(plan: &Plan, executor: usize) -> Self {
        let n = plan.targets.len();
        let head = |t: &crate::plan::Target| Head::new("POST", &t.path, &t.host, t.sessions(), &t.headers);
        Self {
            heads: plan.targets.iter().map(head).collect(),
            addrs: plan.targets.iter().map(|t| Addresses::new(t.addrs.len(), executor)).collect(),
            refusing: Refusing(vec![Instant::UNSET; n]),
            in_flight: vec![0; n],
            rota: match &plan.balance {
                Balance::Weighted(weights) => rota(weights, n),
                Balance::RoundRobin | Balance::LeastInFlight => (0..n as u16).collect(),
            },
            least: plan.balance == Balance::LeastInFlight,
        }
    }

    /// The target of session `number`.
    #[inline]
    pub(super) fn pick(&self, number: u64) -> u16 {
        if self.rota.len() == 1 {
            return 0;
        }
        let turn = (number % self.rota.len() as u64) as usize;
        if !self.least {
            return self.rota[turn];
        }
        let n = self.rota.len();
        let from_turn = (0..n).map(|k| (turn + k) % n);
        from_turn.min_by_key(|&k| self.in_flight[k]).unwrap_or(0) as u16
    }

    pub(super) fn head(&mut self, target: u16) -> &mut Head {
        &mut self.heads[target as usize]
    }

    /// The head of a GET that follows a request to the target: what is asked for goes below the request's path, before its
    /// query, unless it is a whole path or an address of the same server.
    ///
    /// # Errors
    /// It is at another server.
    pub(super) fn follow(plan: &Plan, target: u16, follow: &Follow) -> Result<Head, String> {
        let target = &plan.targets[target as usize];
        let asked = follow.path.as_str();
        let path = match asked.split_once("://") {
            Some((_, rest)) if asked.starts_with("http") => {
                let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                if !host.eq_ignore_ascii_case(&target.host) {
                    return Err(format!(
                        "the answer points to {asked}, which is at another server than {}",
                        target.host
                    ));
                }
                if path.is_empty() { "/".to_owned() } else { path.to_owned() }
            }
            _ if asked.starts_with('/') => asked.to_owned(),
            _ => match target.path.split_once('?') {
                Some((path, query)) => format!("{}/{asked}?{query}", path.trim_end_matches('/')),
                None => format!("{}/{asked}", target.path.trim_end_matches('/')),
            },
        };
        if !path.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(format!("the answer points to {asked:?}, which is no address"));
        }
        let of_body = |name: &str| name.eq_ignore_ascii_case("content-type");
        let of_json = |name: &str| follow.is_file && name.eq_ignore_ascii_case("accept");
        let headers: Vec<_> =
            target.headers.iter().filter(|(name, _)| !of_body(name) && !of_json(name)).cloned().collect();
        Ok(Head::new("GET", &path, &target.host, target.sessions(), &headers))
    }

    /// The head of a request to the target that the server sends on to `location`.
    ///
    /// # Errors
    /// It is at another server, or is not an address.
    pub(super) fn redirected(plan: &Plan, target: u16, location: &str) -> Result<Head, String> {
        let target = &plan.targets[target as usize];
        let named = |host: &str| host.trim_end_matches(":80").to_ascii_lowercase();
        let path = match (location.split_once("://"), location) {
            (Some((scheme, rest)), _) => {
                let (host, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
                if scheme != "http" || named(host) != named(&target.host) {
                    return Err(format!("which is at another server than {}", target.host));
                }
                if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
            }
            (None, "") => return Err("without saying where".to_owned()),
            (None, other) if other.starts_with("//") => {
                return Err(format!("which is at another server than {}", target.host));
            }
            (None, path) if path.starts_with('/') => path.to_owned(),
            (None, name) => {
                let path = target.path.split('?').next().unwrap_or_default();
                format!("{}/{name}", path.rsplit_once('/').map_or("", |(parent, _)| parent))
            }
        };
        if !path.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("which is not an address".to_owned());
        }
        Ok(Head::new("POST", &path, &target.host, target.sessions(), &target.headers))
    }

    /// Which of the target's addresses the next connection goes to.
    pub(super) fn next_addr(&mut self, target: u16, now: Instant) -> u16 {
        self.addrs[target as usize].next(now)
    }

    /// Another of the target's addresses, where so many before it could not be reached; `None` if that is all.
    pub(super) fn other_addr(&mut self, target: u16, (addr, tried): (u16, u16), now: Instant) -> Option<u16> {
        let addrs = &mut self.addrs[target as usize];
        let n = addrs.failed.len() as u16;
        addrs.failed[addr as usize] = now;
        (tried < n).then(|| (addr + 1) % n)
    }

    /// A connection to this address of the target stands.
    pub(super) fn reached(&mut self, target: u16, addr: u16) {
        self.addrs[target as usize].failed[addr as usize] = Instant::UNSET;
        self.refusing.0[target as usize] = Instant::UNSET;
    }

    /// No connection to the target could be made at `at`. Returns for how long the next is not to be tried.
    pub(super) fn refused(&mut self, target: u16, at: Instant) -> Nanos {
        self.refusing.pause(target, at)
    }

    #[inline]
    pub(super) fn begin(&mut self, target: u16) {
        if self.least {
            self.in_flight[target as usize] += 1;
        }
    }

    #[inline]
    pub(super) fn end(&mut self, target: u16) {
        if self.least {
            self.in_flight[target as usize] -= 1;
        }
    }
}

/// For how long an address that could not be reached is left out while there are others.
const LEFT_OUT: Nanos = 10 * SECOND;

/// A target's addresses: connections take them in turn.
#[derive(Debug)]
struct Addresses {
    next: usize,
    /// When each could not be reached; [`Instant::UNSET`] if it could.
    failed: Vec<Instant>,
}

impl Addresses {
    fn new(n: usize, first: usize) -> Self {
        Self { next: first, failed: vec![Instant::UNSET; n.max(1)] }
    }

    fn next(&mut self, now: Instant) -> u16 {
        let n = self.failed.len();
        let is_good = |at: Instant| !at.is_set() || now >= at.after(LEFT_OUT);
        let turn = self.next;
        self.next = (turn + 1) % n;
        (0..n).map(|k| (turn + k) % n).find(|&k| is_good(self.failed[k])).unwrap_or(turn % n) as u16
    }
}

/// Since when no attempt to connect to each target has succeeded; [`Instant::UNSET`] if the last one did.
#[derive(Debug)]
struct Refusing(Vec<Instant>);

impl Refusing {
    /// As long as it has been so already, within bounds: attempts thin out by half each time while nobody is there.
    fn pause(&mut self, target: u16, at: Instant) -> Nanos {
        let since = &mut self.0[target as usize];
        if !since.is_set() {
            *since = at;
        }
        at.since(*since).clamp(PAUSE.0, PAUSE.1)
    }
}

/// As many places as its weight for each of `n` targets, spread as evenly as they can be (each step, the target that is
/// owed most).
fn rota(weights: &[u32], n: usize) -> Vec<u16> {
    let sum: u64 = weights.iter().take(n).map(|w| u64::from(*w)).sum();
    let scale = |w: u32| {
        if sum > u64::from(ROTA) { (u64::from(w) * u64::from(ROTA) / sum).max(u64::from(w > 0)) } else { u64::from(w) }
    };
    let weights: Vec<i64> = (0..n).map(|k| scale(weights.get(k).copied().unwrap_or(0)) as i64).collect();
    let divisor = weights.iter().fold(0, |a, &b| gcd(a, b)).max(1);
    let weights: Vec<i64> = weights.iter().map(|w| w / divisor).collect();
    let all: i64 = weights.iter().sum();
    let mut owed = vec![0; n];
    let mut rota = Vec::with_capacity(all as usize);
    for _ in 0..all {
        owed.iter_mut().zip(&weights).for_each(|(owed, weight)| *owed += weight);
        // Of equals the last wins: backwards, so that it is the first.
        let Some(next) = (0..n).rev().max_by_key(|&k| owed[k]) else { break };
        owed[next] -= all;
        rota.push(next as u16);
    }
    if rota.is_empty() { (0..n as u16).collect() } else { rota }
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_refuses_is_left_alone_for_longer_and_longer() {
        let mut refusing = Refusing(vec![Instant::UNSET; 2]);
        let at = |ms: u64| Instant(1 + ms * MILLI);
        for (ms, pause) in [(50, 1), (51, 1), (52, 2), (54, 4), (149, 99), (150, 100), (5_000, 100)] {
            assert_eq!(refusing.pause(0, at(ms)), pause * MILLI, "at {ms} ms");
        }
        assert_eq!(refusing.pause(1, at(5_000)), MILLI, "each target has its own");
        refusing.0[0] = Instant::UNSET;
        assert_eq!(refusing.pause(0, at(5_001)), MILLI);
    }

    #[test]
    fn an_address_that_fails_is_left_out_for_a_while() {
        let mut addrs = Addresses::new(3, 4);
        assert_eq!([1; 4].map(|at| addrs.next(Instant(at))), [1, 2, 0, 1]);
        addrs.failed[2] = Instant(5);
        assert_eq!([6; 4].map(|at| addrs.next(Instant(at))), [0, 0, 1, 0], "its turn goes to the one after it");
        assert_eq!([5 + LEFT_OUT; 3].map(|at| addrs.next(Instant(at))), [0, 1, 2]);
        addrs.failed = vec![Instant(5); 3];
        assert_eq!([6; 3].map(|at| addrs.next(Instant(at))), [0, 1, 2], "where all fail, each is as good");
    }

    #[test]
    fn weights_are_interleaved() {
        assert_eq!(rota(&[2, 1], 2), [0, 1, 0]);
        assert_eq!(rota(&[4, 2, 2], 3), [0, 1, 2, 0]);
        assert_eq!(rota(&[0, 3], 2), [1]);
        assert_eq!(rota(&[0, 0], 2), [0, 1]);
        let long = rota(&[1_000_000, 1], 2);
        assert_eq!((long.iter().filter(|k| **k == 1).count(), long.len() <= 4097), (1, true));
    }
}
