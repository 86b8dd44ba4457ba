//! Which thread runs what, on which core.

use crate::net::probe::Io;
use serde_json::{Value, json};
use std::fmt;

/// Cores to use, as asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cores {
    /// As many as make sense here.
    Auto,
    /// This many of those allowed.
    Count(usize),
    /// These.
    List(Vec<usize>),
}

/// Whether threads may spin instead of sleeping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spin {
    /// Where every part has a core of its own.
    Auto,
    /// Always.
    Always,
    /// Only for the last microseconds before a deadline.
    Never,
}

/// One thread: its core and its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thread {
    /// Core it is pinned to.
    pub core: usize,
    /// Whether the timing core runs here.
    pub timing: bool,
    /// Executors that run here.
    pub executors: Vec<usize>,
    /// Whether the collector runs here.
    pub collector: bool,
    /// Never sleeps.
    pub spin: bool,
}

impl Thread {
    /// A name of at most 15 bytes, as the kernel keeps it.
    pub fn name(&self) -> String {
        match (self.timing, self.executors.first()) {
            (_, Some(k)) => format!("maser-exec-{k}"),
            (true, None) => "maser-timing".into(),
            (false, None) => "maser-collect".into(),
        }
    }

    pub(super) fn parts(&self) -> String {
        let timing = self.timing.then_some(Role::Timing);
        let executors = self.executors.iter().map(|&k| Role::Executor(k));
        let collector = self.collector.then_some(Role::Collector);
        let parts: Vec<_> = timing.into_iter().chain(executors).chain(collector).map(|r| r.to_string()).collect();
        parts.join(" + ")
    }
}

/// A part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The timing core.
    Timing,
    /// The executor with this number.
    Executor(usize),
    /// The collector.
    Collector,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timing => f.write_str("timing"),
            Self::Executor(k) => write!(f, "executor {k}"),
            Self::Collector => f.write_str("collector"),
        }
    }
}

/// How a part of a run dies, for tests of what the run makes of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Before its first turn, by an error.
    Refused(Role),
    /// By a panic in its turn with this number, from 0.
    Panics(Role, u64),
}

/// All threads of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// In the order they are started.
    pub threads: Vec<Thread>,
    /// What carries the sockets.
    pub io: Io,
    /// What a test breaks.
    pub fault: Option<Fault>,
}

/// Cores this process may run on, by its affinity mask.
pub fn available_cores() -> Vec<usize> {
    core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|c| c.id).collect()
}

/// Whole cores that the control group's quota leaves, if it sets one.
fn quota() -> Option<usize> {
    let text = std::fs::read_to_string("/sys/fs/cgroup/cpu.max").ok()?;
    let mut words = text.split_whitespace();
    let quota: f64 = words.next()?.parse().ok()?;
    let period: f64 = words.next()?.parse().ok()?;
    Some(((quota / period) as usize).max(1))
}

impl Topology {
    /// Lays the parts out. `useful` is how many executors the load can occupy, `most` a cap on them.
    ///
    /// | cores | threads |
    /// |---|---|
    /// | 1 | timing + executor + collector |
    /// | 2 | timing + executor + collector, executor |
    /// | 3 | timing + collector, executor, executor |
    /// | 4 and more | timing, collector, an executor on each of the others |
    ///
    /// Two threads never share a core: each would wait out the other's time slice of 3–4 ms.
    ///
    /// # Errors
    /// A sentence naming `--cores`.
    pub fn choose(cores: &Cores, spin: Spin, io: Io, useful: usize, most: Option<usize>) -> Result<Self, String> {
        let available = available_cores();
        Self::lay_out(&pick(cores, &available, quota())?, matches!(cores, Cores::Auto), spin, io, useful, most)
    }

    fn lay_out(
        cores: &[usize],
        auto: bool,
        spin: Spin,
        io: Io,
        useful: usize,
        most: Option<usize>,
    ) -> Result<Self, String> {
        let most = most.unwrap_or(usize::MAX).max(1);
        let places = match cores.len() {
            0 => return Err("--cores: this process may not run on any core".into()),
            1 | 2 => cores.len(),
            n @ 3 => n - 1,
            n => n - 2,
        };
        let executors = places.min(most).min(if auto { useful.max(1) } else { usize::MAX });
        let alone = cores.len() >= 4;
        let spin = match spin {
            Spin::Always => true,
            Spin::Never => false,
            Spin::Auto => alone,
        };
        let thread = |core| Thread { core, timing: false, executors: vec![], collector: false, spin };
        let mut threads = Vec::new();
        let mut next_executor = 0;
        let mut executor = |t: &mut Thread| {
            if next_executor < executors {
                t.executors.push(next_executor);
                next_executor += 1;
            }
        };
        for (k, &core) in cores.iter().enumerate() {
            let mut t = thread(core);
            t.timing = k == 0;
            t.collector = if alone { k == 1 } else { k == 0 };
            if cores.len() < 3 || k >= if alone { 2 } else { 1 } {
                executor(&mut t);
            }
            if t.timing || t.collector || !t.executors.is_empty() {
                threads.push(t);
            }
        }
        // A collector with a core of its own sleeps between drains: nobody waits for it.
        for t in threads.iter_mut().filter(|t| t.collector && !t.timing && t.executors.is_empty()) {
            t.spin = false;
        }
        Ok(Self { threads, io, fault: None })
    }

    /// Number of executors.
    pub fn executors(&self) -> usize {
        self.threads.iter().map(|t| t.executors.len()).sum::<usize>().max(1)
    }

    /// Whether executor `k` must be woken from another thread.
    pub fn bell_for(&self, k: usize) -> bool {
        self.threads.iter().any(|t| t.executors.contains(&k) && !t.timing)
    }

    /// For the results.
    pub fn to_json(&self) -> Value {
        let threads: Vec<_> =
            self.threads.iter().map(|t| json!({"core": t.core, "parts": t.parts(), "spins": t.spin})).collect();
        json!({"executors": self.executors(), "io": self.io.to_string(), "threads": threads})
    }
}

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (k, t) in self.threads.iter().enumerate() {
            let comma = if k > 0 { "; " } else { "" };
            write!(f, "{comma}core {}: {}{}", t.core, t.parts(), if t.spin { " (spins)" } else { "" })?;
        }
        write!(f, "; I/O: {}", self.io)
    }
}

fn pick(cores: &Cores, available: &[usize], quota: Option<usize>) -> Result<Vec<usize>, String> {
    let listed = || available.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    match cores {
        Cores::Auto => {
            let n = available.len().min(quota.unwrap_or(usize::MAX));
            // On one or two cores one thread does all, and the other core is left to the system and to the server.
            Ok(available[..if n <= 2 { n.min(1) } else { n }].to_vec())
        }
        Cores::Count(0) => Err("--cores: at least one core is needed".into()),
        Cores::Count(n) if *n > available.len() => {
            Err(format!("--cores {n}: this process may run on {} cores only ({})", available.len(), listed()))
        }
        Cores::Count(n) => Ok(available[..*n].to_vec()),
        Cores::List(list) => {
            for (k, core) in list.iter().enumerate() {
                if !available.contains(core) {
                    return Err(format!(
                        "--cores: core {core} is not among those this process may run on ({})",
                        listed()
                    ));
                }
                if list[..k].contains(core) {
                    return Err(format!("--cores: core {core} is named twice"));
                }
            }
            Ok(list.clone())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::probe::Driver;

    fn lay_out(n: usize) -> Topology {
        let cores: Vec<usize> = (0..n).collect();
        Topology::lay_out(&cores, false, Spin::Auto, Io::Runtime(Driver::Epoll), 99, None).unwrap()
    }

    #[test]
    fn every_part_has_its_place_and_no_core_has_two_threads() {
        for n in 1..10 {
            let t = lay_out(n);
            assert_eq!(t.threads.iter().filter(|t| t.timing).count(), 1);
            assert_eq!(t.threads.iter().filter(|t| t.collector).count(), 1);
            let mut executors: Vec<_> = t.threads.iter().flat_map(|t| t.executors.clone()).collect();
            executors.sort_unstable();
            assert_eq!(executors, (0..t.executors()).collect::<Vec<_>>());
            let mut cores: Vec<_> = t.threads.iter().map(|t| t.core).collect();
            cores.dedup();
            assert_eq!(cores.len(), t.threads.len());
            assert_eq!(t.threads.iter().any(|t| t.spin), n >= 4);
        }
        assert_eq!([1, 2, 3, 4, 9].map(|n| lay_out(n).executors()), [1, 2, 2, 2, 7]);
    }

    #[test]
    fn cores_are_picked_from_those_allowed() {
        let available = [2, 3, 5];
        assert_eq!(pick(&Cores::Auto, &available, None).unwrap(), [2, 3, 5]);
        assert_eq!(pick(&Cores::Auto, &available, Some(1)).unwrap(), [2]);
        assert_eq!(pick(&Cores::Auto, &[0, 1], None).unwrap(), [0]);
        assert_eq!(pick(&Cores::Count(2), &available, None).unwrap(), [2, 3]);
        assert!(pick(&Cores::Count(4), &available, None).unwrap_err().contains("3 cores only"));
        assert!(pick(&Cores::List(vec![4]), &available, None).unwrap_err().contains("core 4"));
        assert!(pick(&Cores::List(vec![5, 5]), &available, None).unwrap_err().contains("twice"));
    }
}
