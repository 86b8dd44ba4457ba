//! The seeds that a simulation is run with: four quarters, which run side by side, or the one that `MASER_SIM_SEED` names.

/// Seeds in a quarter.
const QUARTER: u64 = 250;

/// Says which seed a panic belongs to.
pub(crate) struct Seed(pub(crate) u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("MASER_SIM_SEED={} fails", self.0);
        }
    }
}

/// Runs every seed of a quarter; `run` says what does not hold.
pub(crate) fn try_quarter(quarter: u64, run: impl Fn(u64) -> Result<(), String>) {
    let try_seed = |seed| {
        let _named = Seed(seed);
        if let Err(what) = run(seed) {
            panic!("MASER_SIM_SEED={seed}: {what}");
        }
    };
    match std::env::var("MASER_SIM_SEED").ok().and_then(|s| s.parse().ok()) {
        Some(seed) if quarter == 0 => try_seed(seed),
        Some(_) => {}
        None => (quarter * QUARTER..(quarter + 1) * QUARTER).for_each(try_seed),
    }
}
