//! Statistics of curves: how long each value stood, and from that averages, spreads and percentiles.

use super::super::statistics::Descent;
use super::{Flights, Order, State, walk_along_gaps, walk_evenly};
use crate::metric::{Curve, Summary};

/// How a curve's values are kept while its percentiles are looked for.
enum Store {
    /// Time by value, for curves that count.
    Counts(Vec<u64>),
    /// Every value with its time: of short walks.
    All(Vec<(u64, u64)>),
    /// Found over several walks.
    Descent(Descent),
}

/// Bits of doubles that are not negative, so that they order as their values do: the sign is left out.
const DIGITS: &[u32] = &[19, 16, 14, 14];
/// Walks with at most this many changes keep every value.
const KEPT_MAX: u64 = 1 << 18;

impl Store {
    fn of(curve: Curve, changes: u64) -> Self {
        match curve {
            Curve::Concurrency | Curve::DecodeConcurrency | Curve::PrefillConcurrency => Self::Counts(Vec::new()),
            _ if changes <= KEPT_MAX => Self::All(Vec::new()),
            _ => Self::Descent(Descent::new(DIGITS)),
        }
    }

    #[inline]
    fn add(&mut self, value: f64, nanos: u64) {
        match self {
            Self::Counts(times) => {
                let at = value as usize;
                if at >= times.len() {
                    times.resize(at + 1, 0);
                }
                times[at] += nanos;
            }
            Self::All(all) => match all.last_mut() {
                Some((key, time)) if *key == value.to_bits() => *time += nanos,
                _ => all.push((value.to_bits(), nanos)),
            },
            Self::Descent(descent) => descent.add(value.to_bits(), nanos),
        }
    }

    /// The least values whose time, added up from the least one, is greater than each of `ranks` (ascending).
    fn values(&mut self, ranks: &[u64]) -> Vec<f64> {
        match self {
            Self::Counts(times) => at_ranks(times.iter().enumerate().map(|(n, time)| (n as f64, *time)), ranks),
            Self::All(all) => {
                all.sort_unstable();
                at_ranks(all.iter().map(|(key, time)| (f64::from_bits(*key), *time)), ranks)
            }
            Self::Descent(descent) => descent.keys().map(f64::from_bits).collect(),
        }
    }
}

fn at_ranks(steps: impl Iterator<Item = (f64, u64)>, ranks: &[u64]) -> Vec<f64> {
    let (mut found, mut time) = (Vec::with_capacity(ranks.len()), 0);
    for (value, nanos) in steps {
        time += nanos;
        while ranks.get(found.len()).is_some_and(|rank| time > *rank) {
            found.push(value);
        }
    }
    found
}

/// A curve being measured over the time in which its phase is not empty; what is missing to the whole window is time at 0.
struct Measure {
    curve: Curve,
    time: u64,
    area: f64,
    min: f64,
    max: f64,
    /// Mean while active, known after the first walk.
    mean: f64,
    squares: f64,
    store: Store,
    /// Ranks in the time of activity: those of the curve while active, then those over the whole window that do not fall
    /// into the idle time.
    ranks: Vec<u64>,
}

/// The percentiles a curve is given at, as indices into [`crate::metric::PERCENTILES`].
const GIVEN: [(usize, f64); 4] = [(4, 0.50), (6, 0.90), (7, 0.95), (8, 0.99)];

fn ranks_over(time: u64) -> [u64; 4] {
    GIVEN.map(|(_, share)| ((share * time as f64).ceil() as u64).clamp(1, time.max(1)) - 1)
}

impl Measure {
    fn new(curve: Curve, changes: u64) -> Self {
        let store = Store::of(curve, changes);
        let (min, max) = (f64::INFINITY, 0.0);
        Self { curve, time: 0, area: 0.0, min, max, mean: 0.0, squares: 0.0, store, ranks: Vec::new() }
    }

    #[inline]
    fn first_walk(&mut self, state: &State, nanos: u64) {
        if state.active(self.curve) {
            let value = state.value(self.curve);
            self.time += nanos;
            self.area += value * nanos as f64;
            self.min = self.min.min(value);
            self.max = self.max.max(value);
            self.store.add(value, nanos);
        }
    }

    #[inline]
    fn later_walk(&mut self, state: &State, nanos: u64) {
        if state.active(self.curve) {
            let value = state.value(self.curve);
            let off = value - self.mean;
            self.squares += off * off * nanos as f64;
            if let Store::Descent(descent) = &mut self.store {
                descent.add(value.to_bits(), nanos);
            }
        }
    }

    #[inline]
    fn digit_walk(&mut self, state: &State, nanos: u64) {
        if state.active(self.curve)
            && let Store::Descent(descent) = &mut self.store
        {
            descent.add(state.value(self.curve).to_bits(), nanos);
        }
    }

    /// After the first walk: which ranks are wanted, and the spread, where every value is at hand.
    fn aim(&mut self, window: u64) {
        let idle = window.saturating_sub(self.time);
        self.ranks = ranks_over(self.time).into_iter().filter(|_| self.time > 0).collect();
        self.ranks.extend(ranks_over(window).iter().filter_map(|rank| rank.checked_sub(idle)));
        if self.ranks.is_empty() {
            self.store = Store::Counts(Vec::new());
            return;
        }
        let mean = self.area / self.time as f64;
        self.mean = mean;
        let square = |(value, nanos): (f64, u64)| (value - mean) * (value - mean) * nanos as f64;
        match &mut self.store {
            Store::Counts(times) => {
                self.squares = times.iter().enumerate().map(|(n, time)| square((n as f64, *time))).sum();
            }
            Store::All(all) => {
                self.squares = all.iter().map(|(key, time)| square((f64::from_bits(*key), *time))).sum();
            }
            Store::Descent(descent) => {
                descent.aim(self.ranks.iter().copied());
                descent.settle();
            }
        }
    }

    /// Whether another walk has to be shown, and what follows it.
    fn unfinished(&self) -> bool {
        matches!(&self.store, Store::Descent(descent) if descent.unfinished())
    }

    fn settle(&mut self) {
        if let Store::Descent(descent) = &mut self.store {
            descent.settle();
        }
    }

    /// Over the whole window, and over the time of activity alone.
    fn summaries(&mut self, window: u64) -> [Option<Summary>; 2] {
        let mut ranks = self.ranks.clone();
        ranks.sort_unstable();
        let by_rank: Vec<(u64, f64)> = match &self.store {
            Store::Descent(_) => self.ranks.iter().copied().zip(self.store.values(&self.ranks.clone())).collect(),
            _ => ranks.iter().copied().zip(self.store.values(&ranks)).collect(),
        };
        let value = |rank: u64| by_rank.iter().find(|(r, _)| *r == rank).map(|(_, value)| *value);
        let idle = window.saturating_sub(self.time);
        let busy = (self.time > 0).then_some((self.mean, self.squares));
        let active = busy.map(|(avg, squares)| Summary {
            avg: Some(avg),
            min: Some(self.min),
            max: Some(self.max),
            std: Some((squares / self.time as f64).sqrt()),
            percentiles: spread(ranks_over(self.time).map(value)),
            ..Summary::default()
        });
        let whole = (window > 0).then(|| {
            let avg = self.area / window as f64;
            let (busy_avg, squares) = busy.unwrap_or_default();
            let around = squares + self.time as f64 * (busy_avg - avg).powi(2) + idle as f64 * avg * avg;
            Summary {
                avg: Some(avg),
                min: Some(if idle > 0 { 0.0 } else { self.min }),
                max: Some(self.max),
                std: Some((around / window as f64).sqrt()),
                percentiles: spread(ranks_over(window).map(|rank| rank.checked_sub(idle).map_or(Some(0.0), value))),
                ..Summary::default()
            }
        });
        [whole, active]
    }
}

fn spread(values: [Option<f64>; 4]) -> [Option<f64>; 9] {
    let mut percentiles = [None; 9];
    GIVEN.iter().zip(values).for_each(|((k, _), value)| percentiles[*k] = value);
    percentiles
}

/// Measures curves over the window `[window.0, window.1]`, on `threads` threads; `true` beside a curve restricts it to the
/// time its phase is not empty.
pub(in crate::report) fn curves(
    flights: &Flights<'_>,
    window: (u64, u64),
    wanted: &[(Curve, bool)],
    threads: usize,
) -> Vec<Option<Summary>> {
    let mut curves: Vec<Curve> = Vec::new();
    for (curve, _) in wanted {
        if !curves.contains(curve) {
            curves.push(*curve);
        }
    }
    let order = flights.gaps.is_empty().then(|| Order::of(&flights.spans));
    let walk = |measures: &mut [Measure], see: fn(&mut Measure, &State, u64)| {
        let emit = |state: &State, nanos: u64| measures.iter_mut().for_each(|m| see(m, state, nanos));
        match &order {
            Some(order) => walk_evenly(&flights.spans, order, window, emit),
            None => walk_along_gaps(flights, window, emit),
        }
    };
    let changes = flights.changes();
    let threads = if changes <= KEPT_MAX { 1 } else { threads.clamp(1, curves.len().max(1)) };
    // Neighbours in the table are alike: dealt out, the threads have as much to do.
    let parts: Vec<Vec<Curve>> =
        (0..threads).map(|k| curves.iter().skip(k).step_by(threads).copied().collect()).collect();
    let measured: Vec<(Curve, [Option<Summary>; 2])> = std::thread::scope(|scope| {
        let walk = &walk;
        let parts = parts.iter().map(|part| scope.spawn(move || measure(part, changes, window, walk)));
        let parts: Vec<_> = parts.collect();
        parts.into_iter().flat_map(|part| part.join().unwrap_or_else(|e| std::panic::resume_unwind(e))).collect()
    });
    let summary = |(curve, active): &(Curve, bool)| {
        let (_, both) = measured.iter().find(|(c, _)| c == curve)?;
        // Over no time at all a curve is 0 throughout, as the reference has it, so that its row is there in every run.
        both[usize::from(*active)].or_else(|| both[0].map(Summary::at_zero))
    };
    wanted.iter().map(summary).collect()
}

fn measure(
    curves: &[Curve],
    changes: u64,
    window: (u64, u64),
    walk: &impl Fn(&mut [Measure], fn(&mut Measure, &State, u64)),
) -> Vec<(Curve, [Option<Summary>; 2])> {
    let span = window.1.saturating_sub(window.0);
    let mut measures: Vec<Measure> = curves.iter().map(|curve| Measure::new(*curve, changes)).collect();
    walk(&mut measures, Measure::first_walk);
    measures.iter_mut().for_each(|m| m.aim(span));
    // Counting curves are done; the others want the spread, and the rest of their digits.
    let (mut done, mut open): (Vec<_>, Vec<_>) = measures.into_iter().partition(|m| !m.unfinished());
    let mut see: fn(&mut Measure, &State, u64) = Measure::later_walk;
    while open.iter().any(Measure::unfinished) {
        walk(&mut open, see);
        see = Measure::digit_walk;
        open.iter_mut().for_each(Measure::settle);
    }
    done.extend(open);
    done.iter_mut().map(|m| (m.curve, m.summaries(span))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Flight;
    use super::*;
    use crate::record::put_leb128;
    use proptest::prelude::*;

    fn one(curve: Curve, active: bool, flights: &Flights<'_>, window: (u64, u64)) -> Summary {
        curves(flights, window, &[(curve, active)], 1)[0].unwrap()
    }

    #[test]
    fn two_overlapping_requests_by_hand() {
        let second = 1_000_000_000;
        let mut gaps = Vec::new();
        put_leb128(&mut gaps, second);
        put_leb128(&mut gaps, second);
        let flight = |start: u64| Flight {
            start: start * second,
            first: (start + 1) * second,
            end: (start + 3) * second,
            input: 10,
            output: 3,
        };
        // In flight: 1 in [1,2), 2 in [2,4), 1 in [4,5); the window ends at 11.
        let flights = Flights::chunked(vec![(flight(2), gaps.as_slice()), (flight(1), gaps.as_slice())]);
        let window = (second, 11 * second);
        let concurrency = one(Curve::Concurrency, false, &flights, window);
        assert_eq!(concurrency.avg, Some(0.6));
        assert_eq!((concurrency.min, concurrency.max), (Some(0.0), Some(2.0)));
        assert_eq!(concurrency.percentiles[4], Some(0.0));
        assert_eq!(concurrency.percentiles[6], Some(2.0));
        // (6·0² + 2·1² + 2·2²)/10 − 0.6² = 0.64.
        assert!((concurrency.std.unwrap() - 0.8).abs() < 1e-12);
        let decode = one(Curve::DecodeThroughput, true, &flights, window);
        assert!((decode.avg.unwrap() - 4.0 / 3.0).abs() < 1e-12);
        // 10, then 21 + 10 at the second start, …, 13 − 1 just before the last end.
        let tokens = one(Curve::TokensInFlight, true, &flights, window);
        assert_eq!(tokens.max, Some(23.0));
        let prefill = one(Curve::PrefillThroughputPerUser, true, &flights, window);
        assert_eq!((prefill.min, prefill.max), (Some(10.0), Some(10.0)));
    }

    #[test]
    fn an_active_curve_of_an_idle_window_is_zero_and_one_of_no_window_is_not_there() {
        let wanted = [(Curve::Concurrency, false), (Curve::TotalThroughput, true)];
        let summaries = curves(&Flights::default(), (0, 5), &wanted, 2);
        for summary in summaries {
            let summary = summary.unwrap();
            assert_eq!((summary.avg, summary.max, summary.std), (Some(0.0), Some(0.0), Some(0.0)));
        }
        assert_eq!(curves(&Flights::default(), (5, 5), &wanted, 2), [None, None]);
    }

    type Span = (u64, u64, u64, bool, u32);

    fn flights(spans: &[Span]) -> Vec<Flight> {
        let flight = |(start, wait, decode, ok, tokens): &Span| Flight {
            start: 1 + start,
            first: if *ok { 1 + start + wait } else { 0 },
            end: 1 + start + wait + decode,
            input: *tokens,
            output: *tokens,
        };
        spans.iter().map(flight).collect()
    }

    const ALL: [Curve; 9] = [
        Curve::Concurrency,
        Curve::DecodeThroughput,
        Curve::PrefillThroughput,
        Curve::DecodeConcurrency,
        Curve::PrefillConcurrency,
        Curve::TotalThroughput,
        Curve::DecodeThroughputPerUser,
        Curve::PrefillThroughputPerUser,
        Curve::TokensInFlight,
    ];

    proptest! {
        // A search over several walks clears tens of megabytes.
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn sorted_events_and_a_heap_of_events_draw_the_same_curves(
            spans in prop::collection::vec((0..50u64, 0..20u64, 0..20u64, any::<bool>(), 1..9u32), 1..40)
        ) {
            let curves_of = |flights: &Flights<'_>| {
                let wanted = [
                    (Curve::Concurrency, false),
                    (Curve::DecodeConcurrency, false),
                    (Curve::PrefillConcurrency, true),
                    (Curve::TokensInFlight, false),
                ];
                curves(flights, (1, 120), &wanted, 1)
            };
            let heap = Flights::chunked(flights(&spans).into_iter().map(|f| (f, &[][..])).collect());
            prop_assert_eq!(curves_of(&heap), curves_of(&Flights::even(flights(&spans))));
        }

        #[test]
        fn values_found_over_several_walks_are_those_of_kept_ones(
            spans in prop::collection::vec((0..500u64, 0..50u64, 0..80u64, any::<bool>(), 1..2000u32), 1..60),
            window in (0..200u64, 1..600u64)
        ) {
            let flights = Flights::even(flights(&spans));
            let order = Order::of(&flights.spans);
            let window = (window.0, window.0 + window.1);
            let walk = |measures: &mut [Measure], see: fn(&mut Measure, &State, u64)| {
                walk_evenly(&flights.spans, &order, window, |state, nanos| {
                    measures.iter_mut().for_each(|m| see(m, state, nanos));
                });
            };
            let mut kept = measure(&ALL, 0, window, &walk);
            let mut found = measure(&ALL, KEPT_MAX + 1, window, &walk);
            for results in [&mut kept, &mut found] {
                results.sort_by_key(|(curve, _)| ALL.iter().position(|c| c == curve));
            }
            for ((curve, kept), (_, found)) in kept.into_iter().zip(found) {
                for (a, b) in kept.into_iter().zip(found) {
                    prop_assert_eq!(a.map(|s| s.percentiles), b.map(|s| s.percentiles), "{:?}", curve);
                    let std = [a, b].map(|s| s.map_or(0.0, |s| s.std.unwrap()));
                    prop_assert!((std[0] - std[1]).abs() <= 1e-9 * std[0].max(1.0), "{:?} {:?}", curve, std);
                    prop_assert_eq!(a.map(|s| (s.avg, s.min, s.max)), b.map(|s| (s.avg, s.min, s.max)));
                }
            }
        }
    }
}
