//! The plan of a run, computed a second time from its seed, against the planned times in its record log.
//!
//! Nothing of maser's generator is used: the streams (SHA-256 key, ChaCha8) and the laws over them are written out here as
//! `datasets/src/seed.rs` and `engine/src/schedule` document them. Times are compared to the nanosecond; when requests
//! left is no matter of this file.

use maser_engine::log::{FILE_NAME, Log};
use maser_engine::schedule::{Gaps, RateCurve, Spec};
use rand_core::RngCore;
use rand_distr::{Distribution, StandardNormal};
use sha2::{Digest, Sha256};
use std::process::Command;

const SEED: u64 = 77;
const RATES: [f64; 3] = [100.0, 1_000.0, 20_000.0];
const SHAPE: f64 = 4.0;

/// ChaCha with 8 rounds over a key drawn from a name: words in order, two of them to 64 bits, the low one first.
struct Stream {
    key: [u32; 8],
    block: u64,
    words: [u32; 16],
    used: usize,
}

impl Stream {
    fn new(seed: u64, name: &str) -> Self {
        let digest = Sha256::digest(format!("{seed}:{name}").as_bytes());
        let mut state = digest[..8].iter().fold(0u64, |key, byte| key << 8 | u64::from(*byte));
        // PCG32 makes the 32 bytes of a key out of 64 bits.
        let key = std::array::from_fn(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(11_634_580_027_462_260_723);
            ((((state >> 18) ^ state) >> 27) as u32).rotate_right((state >> 59) as u32)
        });
        Self { key, block: 0, words: [0; 16], used: 16 }
    }

    fn refill(&mut self) {
        let mut start = [0u32; 16];
        start[..4].copy_from_slice(&[0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574]);
        start[4..12].copy_from_slice(&self.key);
        (start[12], start[13]) = (self.block as u32, (self.block >> 32) as u32);
        let mut x = start;
        for _ in 0..4 {
            for k in 0..4 {
                quarter(&mut x, [k, k + 4, k + 8, k + 12]);
            }
            for k in 0..4 {
                quarter(&mut x, [k, (k + 1) % 4 + 4, (k + 2) % 4 + 8, (k + 3) % 4 + 12]);
            }
        }
        self.words = std::array::from_fn(|k| x[k].wrapping_add(start[k]));
        self.block += 1;
        self.used = 0;
    }

    fn bits(&mut self) -> u64 {
        if self.used == 16 {
            self.refill();
        }
        self.used += 2;
        u64::from(self.words[self.used - 1]) << 32 | u64::from(self.words[self.used - 2])
    }

    /// Exponential with mean 1, from 53 bits in the open interval (0, 1).
    fn exponential(&mut self) -> f64 {
        -libm::log(((self.bits() >> 11) as f64 + 0.5) / 2f64.powi(53))
    }

    /// Gamma with this shape of at least 1 and mean 1, by Marsaglia and Tsang's method (2000).
    fn gamma(&mut self, shape: f64) -> f64 {
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x: f64 = StandardNormal.sample(self);
            let v = 1.0 + c * x;
            if v <= 0.0 {
                continue;
            }
            let v = v * v * v;
            // 52 bits in the open interval (0, 1).
            let u = ((self.bits() >> 12) as f64 + 0.5) / 2f64.powi(52);
            let squeezed = u < 1.0 - 0.0331 * (x * x) * (x * x);
            if squeezed || libm::log(u) < 0.5 * x * x + d * (1.0 - v + libm::log(v)) {
                return d * v * (1.0 / shape);
            }
        }
    }
}

impl RngCore for Stream {
    fn next_u32(&mut self) -> u32 {
        (self.bits() >> 32) as u32
    }

    fn next_u64(&mut self) -> u64 {
        self.bits()
    }

    fn fill_bytes(&mut self, to: &mut [u8]) {
        to.chunks_mut(8).for_each(|part| part.copy_from_slice(&self.bits().to_le_bytes()[..part.len()]));
    }
}

fn quarter(x: &mut [u32; 16], [a, b, c, d]: [usize; 4]) {
    for (turns, (to, from, mixed)) in [(16, (a, b, d)), (12, (c, d, b)), (8, (a, b, d)), (7, (c, d, b))] {
        x[to] = x[to].wrapping_add(x[from]);
        x[mixed] = (x[mixed] ^ x[to]).rotate_left(turns);
    }
}

fn constant(rate: f64, n: usize) -> Vec<u64> {
    (1..=n as u64).map(|k| k * 1_000_000_000 / rate as u64).collect()
}

/// Sums of gaps, each rounded to 1/1024 ns.
fn poisson(rate: f64, n: usize) -> Vec<u64> {
    let mut stream = Stream::new(SEED, "timing.request.poisson_interval");
    let mean = 1e9 / rate * 1024.0;
    let sums = (0..n).scan(0u64, |sum, _| {
        *sum += (stream.exponential() * mean).round() as u64;
        Some(*sum / 1024)
    });
    sums.collect()
}

fn gamma(rate: f64, n: usize) -> Vec<u64> {
    let mut stream = Stream::new(SEED, "timing.request.gamma_interval");
    let sums = (0..n).scan(0.0, |sum, _| {
        *sum += stream.gamma(SHAPE);
        Some((*sum / rate * 1e9).round() as u64)
    });
    sums.collect()
}

/// Poisson arrivals at the unit rate, moved under straight lines between `(seconds, rate)` points, the first at 0.
fn lines(points: &[(f64, f64)], n: usize) -> Vec<u64> {
    let mut stream = Stream::new(SEED, "timing.request.poisson_interval");
    let at = |units: f64| {
        let mut before = 0.0;
        for pair in points.windows(2) {
            let [(from, low), (to, high)] = [pair[0], pair[1]];
            // A trapezoid of arrivals; within it the root of slope / 2 · t² + low · t = what is left.
            let mass = low * (to - from) + (high - low) * (to - from) / 2.0;
            if units < before + mass {
                let (slope, left) = ((high - low) / (to - from), units - before);
                return from + (2.0 * left / (low + (low * low + 2.0 * slope * left).sqrt())).min(to - from);
            }
            before += mass;
        }
        let (end, rate) = points[points.len() - 1];
        end + (units - before) / rate
    };
    let sums = (0..n).scan(0.0, |sum, _| {
        *sum += stream.exponential();
        Some((at(*sum) * 1e9).round() as u64)
    });
    sums.collect()
}

/// What was planned in a run of the program: offsets from the start of its phase, in the order of the requests' numbers.
#[track_caller]
fn planned(n: usize, load: &[&str]) -> Vec<u64> {
    let dir = tempfile::tempdir().unwrap();
    let (seed, n) = (SEED.to_string(), n.to_string());
    let common = ["profile", "--mock=ttft=0,itl=0,osl=2", "--isl", "8", "--num-dataset-entries", "8"];
    let counted = ["--artifact-dir", "run", "--random-seed", &seed, "--request-count", &n];
    let mut maser = Command::new(env!("CARGO_BIN_EXE_maser"));
    let output = maser.current_dir(dir.path()).args(common).args(counted).args(load).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let log = Log::open(&dir.path().join("run").join(FILE_NAME)).unwrap();
    let start = log.phases[0].start;
    let mut all: Vec<(u64, u64)> = log.records().map(|(record, _)| (record.seq, record.due.since(start))).collect();
    all.sort_unstable();
    all.into_iter().map(|(_, due)| due).collect()
}

/// Standard deviation over mean of the gaps, the first from 0.
fn cv(offsets: &[u64]) -> f64 {
    let gaps: Vec<f64> = std::iter::once(&0).chain(offsets).zip(offsets).map(|(a, b)| (b - a) as f64).collect();
    let n = gaps.len() as f64;
    let mean = gaps.iter().sum::<f64>() / n;
    (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / n).sqrt() / mean
}

/// As many arrivals as come in a good half second, within bounds.
fn few(rate: f64) -> usize {
    ((rate * 0.6) as usize).clamp(60, 3_000)
}

#[test]
fn a_run_plans_what_the_seed_says() {
    for rate in RATES {
        let (n, per_second) = (few(rate), rate.to_string());
        let paced = |words: &[&str]| planned(n, &[&["--request-rate", &per_second][..], words].concat());
        assert_eq!(paced(&["--arrival-pattern", "constant"]), constant(rate, n), "{rate}/s");
        assert_eq!(paced(&["--arrival-pattern", "poisson"]), poisson(rate, n), "{rate}/s");
        let words = ["--arrival-pattern", "gamma", "--arrival-smoothness", "4"];
        assert_eq!(paced(&words), gamma(rate, n), "{rate}/s");
    }
}

#[test]
fn a_run_with_a_changing_rate_plans_what_the_seed_says() {
    // A ramp begins with what 0.1 s of it bring.
    let ramp = ["--request-rate", "2000", "--arrival-pattern", "poisson", "--request-rate-ramp-duration", "0.5"];
    assert_eq!(planned(1_200, &ramp), lines(&[(0.0, 2_000.0 * (0.1 / 0.5)), (0.5, 2_000.0)], 1_200));
    let file = tempfile::NamedTempFile::new().unwrap();
    let points = [(0.0, 500.0), (0.25, 4_000.0), (0.5, 1_000.0)];
    let json: Vec<String> = points.iter().map(|(t, q)| format!("{{\"time_s\":{t},\"qps\":{q}}}")).collect();
    std::fs::write(file.path(), format!("[{}]", json.join(","))).unwrap();
    let series = ["--request-rate-series", file.path().to_str().unwrap(), "--arrival-pattern", "poisson"];
    assert_eq!(planned(1_500, &series), lines(&points, 1_500));
}

#[test]
fn long_plans_are_the_same_and_vary_as_their_laws_do() {
    const N: usize = 40_000;
    let walk = |spec: &Spec| {
        let mut arrivals = spec.arrivals(SEED);
        (0..N).filter_map(|_| arrivals.next_offset()).collect::<Vec<u64>>()
    };
    for rate in RATES {
        let curve = || RateCurve::constant(rate);
        let (even, poisson, gamma) = (constant(rate, N), poisson(rate, N), gamma(rate, N));
        assert_eq!(walk(&Spec::paced(Gaps::Regular, curve())), even);
        assert_eq!(walk(&Spec::paced(Gaps::Exponential, curve())), poisson);
        assert_eq!(walk(&Spec::paced(Gaps::Gamma(SHAPE), curve())), gamma);
        assert_eq!(cv(&even), 0.0, "{rate}/s");
        // 99.7 % of all samples: the standard error is 1 / √n for an exponential; for a gamma it follows from its
        // kurtosis of 3 + 6/k.
        let error = 3.0 / (N as f64).sqrt();
        assert!((cv(&poisson) - 1.0).abs() < error, "{rate}/s: {}", cv(&poisson));
        let own = 1.0 / SHAPE.sqrt();
        let error = 3.0 * own * ((2.0 + 10.0 / SHAPE) / (4.0 * N as f64)).sqrt();
        assert!((cv(&gamma) - own).abs() < error, "{rate}/s: {}", cv(&gamma));
        assert!((cv(&gamma) - cv(&poisson)).abs() > 0.4, "the laws are told apart");
    }
}
