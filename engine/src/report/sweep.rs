//! Time-weighted curves: one pass over starts, responses and ends in order of time.
//!
//! A curve is a step function; its statistics weigh every value by how long it stood. A percentile is the least value at
//! or below which the curve stood for that share of the time.

use super::statistics::Descent;
use crate::metric::{Curve, Summary};
use crate::record::take_leb128;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// One request as the curves see it; times on the records' axis.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flight {
    /// Start.
    pub(super) start: u64,
    /// First token, 0 if there is none: then the request counts towards concurrency alone.
    pub(super) first: u64,
    /// End of the response.
    pub(super) end: u64,
    /// Input tokens.
    pub(super) input: u32,
    /// Output tokens.
    pub(super) output: u32,
}

impl Flight {
    fn steps(&self) -> f64 {
        f64::from(self.output.saturating_sub(1))
    }

    fn prefill_rate(&self) -> f64 {
        let nanos = self.first.saturating_sub(self.start);
        if nanos > 0 { f64::from(self.input) / (nanos as f64 * 1e-9) } else { 0.0 }
    }

    fn even_rate(&self) -> f64 {
        let nanos = self.end.saturating_sub(self.first);
        if nanos > 0 { self.steps() / (nanos as f64 * 1e-9) } else { 0.0 }
    }
}

/// Beyond this many gaps the decode curves spread each request's tokens evenly: a pass costs tens of nanoseconds a gap.
pub(super) const GAPS_MAX: u64 = 2_000_000;

/// The requests of a window, in order of start.
#[derive(Debug, Default)]
pub(super) struct Flights<'a> {
    spans: Vec<Flight>,
    /// Gaps between content responses, LEB128, one entry a span; empty if they are not followed.
    gaps: Vec<&'a [u8]>,
}

impl<'a> Flights<'a> {
    /// Flights whose tokens are spread evenly over their decode time.
    pub(super) fn even(mut spans: Vec<Flight>) -> Self {
        spans.sort_unstable_by_key(|f| f.start);
        Self { spans, gaps: Vec::new() }
    }

    /// Flights whose tokens are spread over the gaps beside them; those without gaps, evenly.
    fn chunked(mut flights: Vec<(Flight, &'a [u8])>) -> Self {
        flights.sort_by_key(|(f, _)| f.start);
        let (spans, gaps) = flights.into_iter().unzip();
        Self { spans, gaps }
    }

    /// The one or the other, as there are gaps.
    pub(super) fn along_gaps(flights: Vec<(Flight, &'a [u8])>) -> Self {
        if flights.iter().any(|(_, gaps)| !gaps.is_empty()) {
            return Self::chunked(flights);
        }
        Self::even(flights.into_iter().map(|(flight, _)| flight).collect())
    }

    /// Most changes that a walk can see.
    fn changes(&self) -> u64 {
        let gaps: u64 = self.gaps.iter().map(|g| u64::from(count(g))).sum();
        3 * self.spans.len() as u64 + gaps
    }
}

/// Numbers in a run of LEB128: as many as bytes without the continuation bit.
pub(super) fn count(gaps: &[u8]) -> u32 {
    gaps.iter().filter(|b| **b < 0x80).count() as u32
}

/// Of these, the ones above zero; zero is a byte by itself.
fn lasting(gaps: &[u8]) -> u32 {
    gaps.iter().filter(|b| (1..0x80).contains(*b)).count() as u32
}

/// What a curve can be restricted to, and its value, at one moment.
#[derive(Debug, Clone, Copy, Default)]
struct State {
    flights: u64,
    prefill: u64,
    decode: u64,
    prefill_rate: f64,
    chunk_rate: f64,
    even_rate: f64,
    tokens: f64,
    top_rate: f64,
}

impl State {
    /// Additions and subtractions of unlike rates leave a residue; where nothing is left to be summed it is cut.
    fn tidy(&mut self) {
        self.top_rate = self.top_rate.max(self.prefill_rate).max(self.chunk_rate).max(self.even_rate);
        let floor = 1e-9 * self.top_rate;
        for (rate, empty) in [
            (&mut self.prefill_rate, self.prefill == 0),
            (&mut self.chunk_rate, self.decode == 0),
            (&mut self.even_rate, self.decode == 0),
        ] {
            if empty || *rate < floor {
                *rate = 0.0;
            }
        }
        if self.flights == 0 {
            self.tokens = 0.0;
        }
    }

    #[inline]
    fn value(&self, curve: Curve) -> f64 {
        let per = |rate: f64, n: u64| if n > 0 { rate / n as f64 } else { 0.0 };
        match curve {
            Curve::Concurrency => self.flights as f64,
            Curve::DecodeThroughput => self.chunk_rate,
            Curve::PrefillThroughput => self.prefill_rate,
            Curve::DecodeConcurrency => self.decode as f64,
            Curve::PrefillConcurrency => self.prefill as f64,
            Curve::TotalThroughput => self.prefill_rate + self.even_rate,
            Curve::DecodeThroughputPerUser => per(self.chunk_rate, self.decode),
            Curve::PrefillThroughputPerUser => per(self.prefill_rate, self.prefill),
            Curve::TokensInFlight => self.tokens.max(0.0),
        }
    }

    /// Whether the curve's phase is not empty. Where it is, the curve stands at 0.
    #[inline]
    fn active(&self, curve: Curve) -> bool {
        match curve {
            Curve::DecodeThroughput | Curve::DecodeThroughputPerUser | Curve::DecodeConcurrency => self.decode > 0,
            Curve::PrefillThroughput | Curve::PrefillThroughputPerUser | Curve::PrefillConcurrency => self.prefill > 0,
            Curve::TotalThroughput => self.prefill + self.decode > 0,
            Curve::Concurrency | Curve::TokensInFlight => self.flights > 0,
        }
    }

    fn take_off(&mut self, flight: &Flight) {
        self.flights += 1;
        if flight.first != 0 {
            self.prefill += 1;
            self.tokens += f64::from(flight.input);
            self.prefill_rate += flight.prefill_rate();
        }
    }

    fn first_token(&mut self, flight: &Flight) {
        self.prefill -= 1;
        self.prefill_rate -= flight.prefill_rate();
        self.decode += 1;
        self.even_rate += flight.even_rate();
        self.tokens += f64::from(flight.output.min(1));
    }

    fn land(&mut self, flight: &Flight) {
        self.flights -= 1;
        if flight.first != 0 {
            self.decode -= 1;
            self.even_rate -= flight.even_rate();
            self.tokens -= f64::from(flight.input) + f64::from(flight.output);
        }
    }
}

/// Splits the window into stretches in which nothing changes.
struct Stretches<F> {
    now: u64,
    end: u64,
    emit: F,
}

impl<F: FnMut(&State, u64)> Stretches<F> {
    /// Before a change at `at`: the state has stood until then.
    #[inline]
    fn until(&mut self, at: u64, state: &mut State) {
        let until = at.min(self.end);
        if until > self.now {
            state.tidy();
            (self.emit)(state, until - self.now);
            self.now = until;
        }
    }

    fn finish(mut self) {
        if self.end > self.now {
            (self.emit)(&State::default(), self.end - self.now);
        }
    }
}

/// The flights by first token and by end.
struct Order {
    first: Vec<u32>,
    end: Vec<u32>,
}

impl Order {
    fn of(flights: &[Flight]) -> Self {
        let all = || 0..flights.len() as u32;
        let first = |id: &u32| flights[*id as usize].first;
        let end = |id: &u32| flights[*id as usize].end;
        let mut order = Self { first: all().filter(|id| first(id) != 0).collect(), end: all().collect() };
        order.first.sort_unstable_by_key(first);
        order.end.sort_unstable_by_key(end);
        order
    }
}

/// Calls `emit` for every stretch of the window in order, tokens spread evenly. At equal times what ends comes after what
/// begins: a first token may be its flight's end as well.
fn walk_evenly(flights: &[Flight], order: &Order, window: (u64, u64), emit: impl FnMut(&State, u64)) {
    let mut stretches = Stretches { now: window.0, end: window.1, emit };
    let mut state = State::default();
    let (mut starts, mut firsts, mut ends) = (flights.iter(), order.first.iter(), order.end.iter());
    let by = |id: Option<&u32>| id.map(|id| &flights[*id as usize]);
    let (mut start, mut first, mut end) = (starts.next(), by(firsts.next()), by(ends.next()));
    while let Some(landing) = end {
        let start_at = start.map_or(u64::MAX, |f| f.start);
        let first_at = first.map_or(u64::MAX, |f| f.first);
        if let Some(flight) = start.filter(|_| start_at <= first_at && start_at <= landing.end) {
            stretches.until(start_at, &mut state);
            state.take_off(flight);
            start = starts.next();
        } else if let Some(flight) = first.filter(|_| first_at <= landing.end) {
            stretches.until(first_at, &mut state);
            state.first_token(flight);
            state.chunk_rate = state.even_rate;
            first = by(firsts.next());
        } else {
            stretches.until(landing.end, &mut state);
            if landing.first != 0 {
                state.tokens += landing.steps();
            }
            state.land(landing);
            state.chunk_rate = state.even_rate;
            end = by(ends.next());
        }
    }
    stretches.finish();
}

/// What happens next to a flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    First,
    /// The next gap begins at this offset of its gaps.
    Gap(u32),
    End,
}

/// Where a walk along the gaps stands.
struct Walk<'a> {
    flights: &'a Flights<'a>,
    state: State,
    /// Each flight in the air has one entry: its steps are known one after the other.
    next: BinaryHeap<Reverse<(u64, u32, Step)>>,
    /// What each flight adds to the chunk rate now.
    rates: Vec<f64>,
}

impl Walk<'_> {
    fn start(&mut self, id: u32) {
        let flight = &self.flights.spans[id as usize];
        self.state.take_off(flight);
        let (at, step) = if flight.first == 0 { (flight.end, Step::End) } else { (flight.first, Step::First) };
        self.next.push(Reverse((at, id, step)));
    }

    fn step(&mut self, at: u64, id: u32, step: Step) {
        let flight = self.flights.spans[id as usize];
        let pieces = count(self.flights.gaps[id as usize]);
        match step {
            Step::First => {
                self.state.first_token(&flight);
                self.enter_gap(at, id, 0);
            }
            Step::Gap(from) => {
                self.leave_gap(id, flight.steps() / f64::from(pieces.max(1)));
                self.enter_gap(at, id, from);
            }
            Step::End => {
                // Without known gaps the whole decode time is one.
                if flight.first != 0 && pieces == 0 {
                    self.leave_gap(id, flight.steps());
                }
                self.state.land(&flight);
            }
        }
    }

    /// A gap that took time carries an equal share of the request's tokens after the first: responses that came together
    /// leave gaps of nothing, over which no token can be spread.
    fn enter_gap(&mut self, at: u64, id: u32, from: u32) {
        let flight = &self.flights.spans[id as usize];
        let gaps = self.flights.gaps[id as usize];
        let end = flight.end.max(at);
        if gaps.is_empty() {
            self.enter(id, flight.even_rate());
            self.next.push(Reverse((end, id, Step::End)));
            return;
        }
        let mut rest = gaps.get(from as usize..).unwrap_or_default();
        let Some(gap) = take_leb128(&mut rest) else {
            self.next.push(Reverse((end, id, Step::End)));
            return;
        };
        let after = (gaps.len() - rest.len()) as u32;
        let rate = flight.steps() / f64::from(lasting(gaps)) / (gap as f64 * 1e-9);
        self.enter(id, if gap > 0 { rate } else { 0.0 });
        self.next.push(Reverse((at.saturating_add(gap), id, Step::Gap(after))));
    }

    fn enter(&mut self, id: u32, rate: f64) {
        self.state.chunk_rate += rate;
        self.rates[id as usize] = rate;
    }

    fn leave_gap(&mut self, id: u32, tokens: f64) {
        self.state.chunk_rate -= self.rates[id as usize];
        self.state.tokens += tokens;
    }
}

/// The same as [`walk_evenly`] with each request's tokens spread over its gaps.
fn walk_along_gaps(flights: &Flights<'_>, window: (u64, u64), emit: impl FnMut(&State, u64)) {
    let rates = vec![0.0; flights.spans.len()];
    let mut walk = Walk { flights, state: State::default(), next: BinaryHeap::new(), rates };
    let mut stretches = Stretches { now: window.0, end: window.1, emit };
    let mut started = 0u32;
    loop {
        let due = walk.next.peek().map(|Reverse(entry)| *entry);
        let start = flights.spans.get(started as usize).map(|f| f.start);
        let Some(at) = [due.map(|d| d.0), start].into_iter().flatten().min() else {
            break;
        };
        stretches.until(at, &mut walk.state);
        match due {
            Some((due, id, step)) if start.is_none_or(|start| due < start) => {
                walk.next.pop();
                walk.step(due, id, step);
            }
            _ => {
                walk.start(started);
                started += 1;
            }
        }
    }
    stretches.finish();
}

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
pub(super) fn curves(
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
        both[usize::from(*active)]
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
    fn an_idle_window_has_no_active_curve() {
        let wanted = [(Curve::Concurrency, false), (Curve::TotalThroughput, true)];
        let summaries = curves(&Flights::default(), (0, 5), &wanted, 2);
        assert_eq!(summaries[0].unwrap().max, Some(0.0));
        assert_eq!(summaries[1], None);
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
        #![proptest_config(ProptestConfig::with_cases(48))]
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
