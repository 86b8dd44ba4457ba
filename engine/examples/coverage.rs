//! How often the confidence intervals of percentiles and of rates hold the truth: the tables of `docs/confidence.md`.
//!
//! ```text
//! cargo run --release --locked -p maser-engine --example coverage -- [RUNS [LARGEST]]
//! ```
//!
//! Sojourn times of customers of one server (Lindley's recursion, beginning empty, as a run does) against the quantiles of
//! the queue in equilibrium, which are known: of M/M/1 by its exponential law, of M/D/1 from the number in the system
//! (Franx, *Operations Research Letters* 29, 2001). RUNS seeds a line (200), samples up to LARGEST (100000).

use maser_engine::clock::Nanos;
use maser_engine::report::arrivals::{Arrivals, Intended};
use maser_engine::report::quantiles;

const PERCENTS: [f64; 3] = [50.0, 90.0, 99.0];
const SIZES: [usize; 6] = [200, 1000, 5000, 20_000, 100_000, 500_000];

fn main() {
    let args: Vec<usize> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let runs = args.first().copied().unwrap_or(200);
    let largest = args.get(1).copied().unwrap_or(100_000);
    let sizes = || SIZES.into_iter().filter(|n| *n <= largest);
    println!("| model | load | n | p50 | p90 | p99 |\n|---|---|---|---|---|---|");
    for (model, load) in models() {
        let truth = PERCENTS.map(|p| model.quantile(load, p / 100.0));
        for n in sizes() {
            let cells = percentiles(model, load, n, runs, truth);
            println!("| {} | {load} | {n} | {} |", model.name(), cells.map(|c| c.cell(runs)).join(" | "));
        }
    }
    println!("\n| gaps | n | rate |\n|---|---|---|");
    for (name, switch) in
        [("independent", 0.5), ("two rates, 20 gaps of each", 0.05), ("two rates, 200 of each", 0.005)]
    {
        for n in sizes().filter(|n| *n <= 50_000) {
            println!("| {name} | {n} | {} |", rates(switch, n, runs).cell(runs));
        }
    }
}

/// What became of one interval in all runs.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    shown: usize,
    held: usize,
    effective: f64,
    told: usize,
}

impl Tally {
    fn add(&mut self, interval: Option<(f64, f64)>, truth: f64) {
        if let Some((low, high)) = interval {
            self.shown += 1;
            self.held += usize::from((low..=high).contains(&truth));
        }
    }

    /// Coverage where it is shown, how often it is, misses among all runs, mean effective n.
    fn cell(&self, runs: usize) -> String {
        let percent = |part: usize, whole: usize| 100.0 * part as f64 / whole as f64;
        let effective = match self.told {
            0 => String::new(),
            told => format!(", n_eff {:.0}", self.effective / told as f64),
        };
        if self.shown == 0 {
            return format!("–{effective}");
        }
        let (held, shown) = (percent(self.held, self.shown), percent(self.shown, runs));
        format!("{held:.1} (shown {shown:.0}, missed {:.1}{effective})", percent(self.shown - self.held, runs))
    }
}

fn percentiles(model: Model, load: f64, n: usize, runs: usize, truth: [f64; 3]) -> [Tally; 3] {
    let mut tallies = [Tally::default(); 3];
    for seed in 0..runs {
        let mut random = Random((seed + 1_000_003 * n) as u64);
        let found = quantiles(model.sample(load, n, &mut random), &PERCENTS);
        for ((tally, quantile), truth) in tallies.iter_mut().zip(&found).zip(truth) {
            tally.add(quantile.interval, truth);
            tally.effective += quantile.effective.unwrap_or(0.0);
            tally.told += usize::from(quantile.effective.is_some());
        }
    }
    tallies
}

/// Exponential gaps of two means, 1 and 4 ms, that change places with a probability a gap: the mean is 2.5 ms.
fn rates(switch: f64, n: usize, runs: usize) -> Tally {
    let mut tally = Tally::default();
    for seed in 0..runs {
        let mut random = Random((seed + 1_000_003 * n) as u64);
        let mut slow = random.next() < 0.5;
        let mut now = 0.0;
        let times: Vec<Nanos> = (0..n)
            .map(|_| {
                slow ^= random.next() < switch;
                now += random.exponential() * if slow { 4e6 } else { 1e6 };
                now as Nanos
            })
            .collect();
        let arrivals = Arrivals::new(|| times.iter().map(|t| (*t, *t)), &Intended::Given);
        tally.add(arrivals.and_then(|a| a.rate_low.zip(a.rate_high)), 400.0);
    }
    tally
}

#[derive(Debug, Clone, Copy)]
enum Model {
    Independent,
    Markov,
    Regular,
}

fn models() -> impl Iterator<Item = (Model, f64)> {
    let loads = [0.5, 0.8, 0.9, 0.95];
    let queues = loads.into_iter().flat_map(|load| [(Model::Markov, load), (Model::Regular, load)]);
    std::iter::once((Model::Independent, 0.0)).chain(queues)
}

impl Model {
    fn name(self) -> &'static str {
        match self {
            Self::Independent => "independent",
            Self::Markov => "M/M/1",
            Self::Regular => "M/D/1",
        }
    }

    fn sample(self, load: f64, n: usize, random: &mut Random) -> Vec<f64> {
        let mut wait = 0.0f64;
        let one = |_| {
            let service = if matches!(self, Self::Regular) { 1.0 } else { random.exponential() };
            let sojourn = wait + service;
            if load > 0.0 {
                wait = (sojourn - random.exponential() / load).max(0.0);
            }
            sojourn
        };
        (0..n).map(one).collect()
    }

    fn quantile(self, load: f64, share: f64) -> f64 {
        if !matches!(self, Self::Regular) {
            return -(1.0 - share).ln() / (1.0 - load);
        }
        let present = in_system(load, 1200);
        let (mut low, mut high) = (0.0, 400.0);
        for _ in 0..80 {
            let middle = (low + high) / 2.0;
            *(if waits(load, &present, middle) < share { &mut low } else { &mut high }) = middle;
        }
        1.0 + high
    }
}

/// The distribution function of the number of customers in M/D/1, as far as `most`: sums of positive terms only.
fn in_system(load: f64, most: usize) -> Vec<f64> {
    let mut arrivals = vec![(-load).exp()];
    (1..most + 2).for_each(|k| arrivals.push(arrivals[k - 1] * load / k as f64));
    let mut more = vec![0.0; most + 1];
    let mut sum = 0.0;
    for k in (0..=most).rev() {
        sum += arrivals[k + 1];
        more[k] = sum;
    }
    let mut exactly = vec![1.0 - load];
    for j in 0..most {
        let from: f64 = (1..=j).map(|i| exactly[i] * more[j + 1 - i]).sum();
        exactly.push((exactly[0] * more[j] + from) / arrivals[0]);
    }
    let mut sum = 0.0;
    let below = |p: &f64| {
        sum += p;
        sum
    };
    exactly.iter().map(below).collect()
}

/// The probability that a customer of M/D/1 waits no longer than `time` services.
fn waits(load: f64, present: &[f64], time: f64) -> f64 {
    let whole = time.floor() as usize + 1;
    let x = load * (whole as f64 - time);
    let (mut term, mut sum) = ((-x).exp(), 0.0);
    for j in 0..whole {
        sum += present[(whole - j).min(present.len() - 1)] * term;
        term *= x / (j + 1) as f64;
    }
    sum
}

/// SplitMix64.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (((z ^ (z >> 31)) >> 11) as f64 + 0.5) / 2f64.powi(53)
    }

    fn exponential(&mut self) -> f64 {
        -self.next().ln()
    }
}
