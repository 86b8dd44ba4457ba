//! One line on standard error: how far the run is, how fast, and how it does. Draws nothing where standard error is not a
//! terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use maser_engine::clock::{self, Instant, Nanos, SECOND};
use maser_engine::credit::Progress as Counters;
use maser_engine::plan::{Phase, Plan};
use maser_engine::run::Run;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The bar of one run.
pub(crate) struct Progress {
    bar: ProgressBar,
    plan: Arc<Plan>,
    phase: usize,
    /// Requests finished before the phase shown.
    before: u64,
}

impl Progress {
    /// A bar for this plan; hidden unless `shown`.
    pub(crate) fn new(plan: Arc<Plan>, shown: bool) -> Self {
        let target = if shown { ProgressDrawTarget::stderr_with_hz(8) } else { ProgressDrawTarget::hidden() };
        let progress = Self { bar: ProgressBar::with_draw_target(None, target), plan, phase: 0, before: 0 };
        progress.begin_phase();
        progress
    }

    fn begin_phase(&self) {
        let Some(phase) = self.plan.phases.get(self.phase) else { return };
        let length = expected(phase, &self.plan);
        let template = match (phase.requests.is_some() || length.is_some(), phase.duration) {
            (true, _) => "{prefix:10} {bar:30} {pos}/{len} [{elapsed_precise}] {msg}",
            (false, Some(_)) => "{prefix:10} {bar:30} [{elapsed_precise}] {msg}",
            (false, None) => "{prefix:10} {pos} [{elapsed_precise}] {msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style.progress_chars("━━ "));
        }
        let mut name = phase.name.clone();
        if let Some(first) = name.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        self.bar.set_prefix(name);
        self.bar.set_length(length.or(phase.duration.map(|d| d / clock::MILLI)).unwrap_or(0));
        self.bar.reset();
    }

    /// Shows how the run stands.
    pub(crate) fn show(&mut self, run: &Run) {
        if self.bar.is_hidden() {
            return;
        }
        let sum = |f: fn(&Counters) -> u64| run.progress.iter().map(|p| f(p)).sum::<u64>();
        let finished = sum(|p| p.total(|c| &c.finished));
        let failed = sum(|p| p.total(|c| &c.failed));
        let in_flight = sum(|p| p.total(|c| &c.started)).saturating_sub(finished);
        let phase = Counters::get(&run.issued.phase) as usize;
        if phase != self.phase {
            self.phase = phase;
            self.before = finished;
            self.begin_phase();
        }
        let start = Instant(run.issued.phase_start.load(Ordering::Acquire));
        let elapsed = if start.is_set() { clock::now().since(start) } else { 0 };
        let done = finished - self.before;
        let by_time =
            self.plan.phases.get(phase).is_some_and(|p| expected(p, &self.plan).is_none() && p.duration.is_some());
        self.bar.set_position(if by_time { elapsed / clock::MILLI } else { done });
        let rate = if elapsed > 0 { done as f64 * SECOND as f64 / elapsed as f64 } else { 0.0 };
        let mut text = format!("{rate:.1} req/s, {in_flight} in flight, {failed} failed");
        if let Ok(live) = run.snapshot.try_lock()
            && live.ok > 0
        {
            text.push_str(&format!(
                ", TTFT p50 {} p99 {}, latency p50 {} p99 {}",
                span(live.first_token.0),
                span(live.first_token.1),
                span(live.latency.0),
                span(live.latency.1)
            ));
        }
        self.bar.set_message(text);
    }

    /// Prints a line above the bar.
    pub(crate) fn say(&self, line: &str) {
        // Printed past the bar, it would be wiped out with it.
        self.bar.suspend(|| crate::say(std::io::stderr(), format_args!("{line}")));
    }

    /// Takes the bar away.
    pub(crate) fn end(self) {
        self.bar.finish_and_clear();
    }
}

/// Requests a phase will send, if that is known.
fn expected(phase: &Phase, plan: &Plan) -> Option<u64> {
    match phase.schedule {
        maser_engine::schedule::Spec::Fixed(_) => Some(plan.requests.len() as u64),
        _ => phase.requests,
    }
}

fn span(ns: Nanos) -> String {
    match ns {
        0..10_000_000 => format!("{:.2}ms", ns as f64 / 1e6),
        10_000_000..10_000_000_000 => format!("{:.0}ms", ns as f64 / 1e6),
        _ => format!("{:.1}s", ns as f64 / 1e9),
    }
}
