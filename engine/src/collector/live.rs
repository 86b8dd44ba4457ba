//! The live view: approximate, bounded, for people who watch. Final numbers come from the log.

use crate::clock::{Nanos, SECOND};
use crate::record::{Outcome, Record, flag};
use hdrhistogram::Histogram;

/// Three digits up to an hour.
const LONGEST: Nanos = 3600 * SECOND;

/// What there is to see of the run so far, warm-up left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Requests that ended well.
    pub ok: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Median and 99th percentile of the request latency, nanoseconds.
    pub latency: (Nanos, Nanos),
    /// Median and 99th percentile of the time to first token, nanoseconds.
    pub first_token: (Nanos, Nanos),
    /// Median and 99th percentile of our own lateness on scheduled requests, nanoseconds.
    pub slip: (Nanos, Nanos),
}

#[derive(Debug)]
pub(super) struct Live {
    ok: u64,
    failed: u64,
    latency: Histogram<u32>,
    first_token: Histogram<u32>,
    slip: Histogram<u32>,
}

impl Live {
    pub(super) fn new() -> Self {
        // The bounds are constants that hdrhistogram accepts.
        let histogram = || Histogram::new_with_bounds(1_000, LONGEST, 2).unwrap_or_else(|_| unreachable!());
        Self { ok: 0, failed: 0, latency: histogram(), first_token: histogram(), slip: histogram() }
    }

    pub(super) fn add(&mut self, record: &Record) {
        if record.has(flag::SCHEDULED) && !record.has(flag::QUEUED) {
            self.slip.saturating_record(record.send_delay());
        }
        if record.outcome() == Outcome::Ok {
            self.ok += 1;
            self.latency.saturating_record(record.last_token.since(record.start));
            self.first_token.saturating_record(record.first_token.since(record.start));
        } else if record.outcome().is_failure() {
            self.failed += 1;
        }
    }

    pub(super) fn publish(&self, snapshot: &mut Snapshot) {
        let pair = |h: &Histogram<u32>| (h.value_at_quantile(0.5), h.value_at_quantile(0.99));
        *snapshot = Snapshot {
            ok: self.ok,
            failed: self.failed,
            latency: pair(&self.latency),
            first_token: pair(&self.first_token),
            slip: pair(&self.slip),
        };
    }
}
