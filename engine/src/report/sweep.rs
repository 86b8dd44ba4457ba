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
pub(super) struct Flight<'a> {
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
    /// Gaps between content responses, LEB128.
    pub(super) gaps: &'a [u8],
    /// How many of them, see [`count`].
    pub(super) pieces: u32,
}

impl Flight<'_> {
    fn steps(&self) -> f64 {
        f64::from(self.output.saturating_sub(1))
    }
}

/// Beyond this many gaps the decode curves spread each request's tokens evenly: a pass costs tens of nanoseconds a gap.
pub(super) const GAPS_MAX: u64 = 2_000_000;

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

    fn active(&self, curve: Curve) -> bool {
        match curve {
            Curve::DecodeThroughput | Curve::DecodeThroughputPerUser | Curve::DecodeConcurrency => self.decode > 0,
            Curve::PrefillThroughput | Curve::PrefillThroughputPerUser | Curve::PrefillConcurrency => self.prefill > 0,
            Curve::TotalThroughput => self.prefill + self.decode > 0,
            Curve::Concurrency | Curve::TokensInFlight => self.flights > 0,
        }
    }
}

/// What happens next to a flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    First,
    /// The next gap begins at this offset of its gaps.
    Gap(u32),
    End,
}

/// What is to come, in order of time.
enum Next<'a> {
    /// Each flight in the air has one entry: its steps are known one after the other.
    Heap(BinaryHeap<Reverse<(u64, u32, Step)>>),
    /// No gaps are followed: first tokens and ends, each sorted beforehand.
    Sorted { flights: &'a [Flight<'a>], first: &'a [u32], end: &'a [u32] },
}

impl Next<'_> {
    fn push(&mut self, at: u64, id: u32, step: Step) {
        if let Self::Heap(heap) = self {
            heap.push(Reverse((at, id, step)));
        }
    }

    /// A first token comes before an end at the same time, which may be its own.
    fn peek(&self) -> Option<(u64, u32, Step)> {
        match self {
            Self::Heap(heap) => heap.peek().map(|Reverse(entry)| *entry),
            Self::Sorted { flights, first, end } => {
                let entry = |id: u32, step| {
                    let flight = &flights[id as usize];
                    let at = if step == Step::First { flight.first } else { flight.end };
                    (at, id, step)
                };
                let first = first.first().map(|id| entry(*id, Step::First));
                let end = end.first().map(|id| entry(*id, Step::End));
                match (first, end) {
                    (Some(a), Some(b)) => Some(if a.0 <= b.0 { a } else { b }),
                    (a, b) => a.or(b),
                }
            }
        }
    }

    fn pop(&mut self, step: Step) {
        match self {
            Self::Heap(heap) => drop(heap.pop()),
            Self::Sorted { first, .. } if step == Step::First => *first = &first[1..],
            Self::Sorted { end, .. } => *end = &end[1..],
        }
    }
}

/// Where the sweep stands.
struct Sweep<'a> {
    flights: &'a [Flight<'a>],
    chunked: bool,
    state: State,
    next: Next<'a>,
    /// What each flight adds to the chunk rate now.
    rates: Vec<f64>,
}

impl Sweep<'_> {
    fn start(&mut self, id: u32) {
        let flight = &self.flights[id as usize];
        self.state.flights += 1;
        if flight.first == 0 {
            self.next.push(flight.end, id, Step::End);
            return;
        }
        self.state.prefill += 1;
        self.state.tokens += f64::from(flight.input);
        self.state.prefill_rate += prefill_rate(flight);
        self.next.push(flight.first, id, Step::First);
    }

    fn step(&mut self, at: u64, id: u32, step: Step) {
        let flight = self.flights[id as usize];
        match step {
            Step::First => {
                self.state.prefill -= 1;
                self.state.prefill_rate -= prefill_rate(&flight);
                self.state.decode += 1;
                self.state.even_rate += even_rate(&flight);
                self.state.tokens += f64::from(flight.output.min(1));
                self.enter_gap(at, id, 0);
            }
            Step::Gap(from) => {
                self.leave_gap(id, flight.steps() / f64::from(flight.pieces.max(1)));
                self.enter_gap(at, id, from);
            }
            Step::End => {
                self.state.flights -= 1;
                if flight.first != 0 {
                    if self.evenly(&flight) {
                        self.leave_gap(id, flight.steps());
                    }
                    self.state.decode -= 1;
                    self.state.even_rate -= even_rate(&flight);
                    self.state.tokens -= f64::from(flight.input) + f64::from(flight.output);
                }
            }
        }
    }

    /// Without known gaps the whole decode time is one.
    fn evenly(&self, flight: &Flight<'_>) -> bool {
        !self.chunked || flight.pieces == 0
    }

    /// A gap carries an equal share of the request's tokens after the first.
    fn enter_gap(&mut self, at: u64, id: u32, from: u32) {
        let flight = &self.flights[id as usize];
        let end = flight.end.max(at);
        if self.evenly(flight) {
            self.enter(id, even_rate(flight));
            self.next.push(end, id, Step::End);
            return;
        }
        let mut rest = flight.gaps.get(from as usize..).unwrap_or_default();
        let Some(gap) = take_leb128(&mut rest) else {
            self.next.push(end, id, Step::End);
            return;
        };
        let after = (flight.gaps.len() - rest.len()) as u32;
        let rate = flight.steps() / f64::from(flight.pieces) / (gap as f64 * 1e-9);
        self.enter(id, if gap > 0 { rate } else { 0.0 });
        self.next.push(at.saturating_add(gap), id, Step::Gap(after));
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

/// Numbers in a run of LEB128: as many as bytes without the continuation bit.
pub(super) fn count(gaps: &[u8]) -> u32 {
    gaps.iter().filter(|b| **b < 0x80).count() as u32
}

fn prefill_rate(flight: &Flight<'_>) -> f64 {
    let nanos = flight.first.saturating_sub(flight.start);
    if nanos > 0 { f64::from(flight.input) / (nanos as f64 * 1e-9) } else { 0.0 }
}

fn even_rate(flight: &Flight<'_>) -> f64 {
    let nanos = flight.end.saturating_sub(flight.first);
    if nanos > 0 { flight.steps() / (nanos as f64 * 1e-9) } else { 0.0 }
}

/// The flights by first token and by end.
struct Order {
    first: Vec<u32>,
    end: Vec<u32>,
}

impl Order {
    fn of(flights: &[Flight<'_>]) -> Self {
        let all = || 0..flights.len() as u32;
        let first = |id: &u32| flights[*id as usize].first;
        let end = |id: &u32| flights[*id as usize].end;
        let mut order = Self { first: all().filter(|id| first(id) != 0).collect(), end: all().collect() };
        order.first.sort_unstable_by_key(first);
        order.end.sort_unstable_by_key(end);
        order
    }
}

/// Calls `emit` for every stretch of the window in which nothing changes, in order. `flights` is sorted by start; with an
/// order beside them their gaps are not followed.
fn walk(flights: &[Flight<'_>], window: (u64, u64), order: Option<&Order>, emit: &mut dyn FnMut(&State, u64)) {
    let mut sweep = Sweep {
        flights,
        chunked: order.is_none(),
        state: State::default(),
        next: match order {
            None => Next::Heap(BinaryHeap::new()),
            Some(Order { first, end }) => Next::Sorted { flights, first, end },
        },
        rates: vec![0.0; flights.len()],
    };
    let (mut started, mut now) = (0u32, window.0);
    loop {
        let due = sweep.next.peek();
        let start = flights.get(started as usize).map(|f| f.start);
        let Some(at) = [due.map(|d| d.0), start].into_iter().flatten().min() else {
            break;
        };
        let until = at.min(window.1);
        if until > now {
            sweep.state.tidy();
            emit(&sweep.state, until - now);
            now = until;
        }
        match due {
            Some((due, id, step)) if start.is_none_or(|start| due < start) => {
                sweep.next.pop(step);
                sweep.step(due, id, step);
            }
            _ => {
                sweep.start(started);
                started += 1;
            }
        }
    }
    if window.1 > now {
        emit(&State::default(), window.1 - now);
    }
}

/// A curve being measured.
struct Measure {
    curve: Curve,
    active_only: bool,
    time: u64,
    area: f64,
    min: f64,
    max: f64,
    squares: f64,
    descent: Option<Descent>,
}

/// The percentiles a curve is given at, as indices into [`crate::metric::PERCENTILES`].
const GIVEN: [(usize, f64); 4] = [(4, 0.50), (6, 0.90), (7, 0.95), (8, 0.99)];

impl Measure {
    fn new(curve: Curve, active_only: bool) -> Self {
        Self { curve, active_only, time: 0, area: 0.0, min: f64::INFINITY, max: 0.0, squares: 0.0, descent: None }
    }

    fn value(&self, state: &State) -> Option<f64> {
        (!self.active_only || state.active(self.curve)).then(|| state.value(self.curve))
    }

    fn first_pass(&mut self, state: &State, nanos: u64) {
        if let Some(value) = self.value(state) {
            self.time += nanos;
            self.area += value * nanos as f64;
            self.min = self.min.min(value);
            self.max = self.max.max(value);
        }
    }

    fn avg(&self) -> f64 {
        self.area / self.time as f64
    }

    fn descend(&mut self) {
        let time = self.time;
        let ranks = GIVEN.map(|(_, share)| ((share * time as f64).ceil() as u64).clamp(1, time.max(1)) - 1);
        self.descent = (time > 0).then(|| Descent::new(ranks.into_iter(), 64));
    }

    /// Values are not negative, so that their bits order as they do.
    fn later_pass(&mut self, state: &State, nanos: u64, squares: bool) {
        let Some(value) = self.value(state) else {
            return;
        };
        if squares {
            let off = value - self.avg();
            self.squares += off * off * nanos as f64;
        }
        if let Some(descent) = &mut self.descent {
            descent.add(value.to_bits(), nanos);
        }
    }

    fn summary(&self) -> Option<Summary> {
        let descent = self.descent.as_ref()?;
        let mut percentiles = [None; 9];
        for ((k, _), key) in GIVEN.into_iter().zip(descent.keys()) {
            percentiles[k] = Some(f64::from_bits(key));
        }
        Some(Summary {
            avg: Some(self.avg()),
            min: Some(self.min),
            max: Some(self.max),
            std: Some((self.squares / self.time as f64).sqrt()),
            percentiles,
            ..Summary::default()
        })
    }
}

/// Measures curves over the window `[window.0, window.1]`, on `threads` threads; `true` beside a curve restricts it to the
/// time its phase is not empty. Sorts `flights` by start. The flag says whether tokens were spread over the real gaps.
pub(super) fn curves(
    flights: &mut [Flight<'_>],
    window: (u64, u64),
    wanted: &[(Curve, bool)],
    threads: usize,
) -> (Vec<Option<Summary>>, bool) {
    flights.sort_unstable_by_key(|f| f.start);
    let gaps: u64 = flights.iter().map(|f| u64::from(f.pieces)).sum();
    let flights = &*flights;
    let order = (gaps > GAPS_MAX).then(|| Order::of(flights));
    let order = order.as_ref();
    let share = wanted.len().div_ceil(threads.max(1)).max(1);
    let summaries = std::thread::scope(|scope| {
        let parts: Vec<_> =
            wanted.chunks(share).map(|part| scope.spawn(move || measure(flights, window, order, part))).collect();
        parts.into_iter().flat_map(|part| part.join().unwrap_or_else(|e| std::panic::resume_unwind(e))).collect()
    });
    (summaries, order.is_none())
}

fn measure(
    flights: &[Flight<'_>],
    window: (u64, u64),
    order: Option<&Order>,
    wanted: &[(Curve, bool)],
) -> Vec<Option<Summary>> {
    let mut measures: Vec<Measure> = wanted.iter().map(|(c, a)| Measure::new(*c, *a)).collect();
    walk(flights, window, order, &mut |state, nanos| {
        measures.iter_mut().for_each(|m| m.first_pass(state, nanos));
    });
    measures.iter_mut().for_each(Measure::descend);
    let unfinished = |m: &Measure| m.descent.as_ref().is_some_and(Descent::unfinished);
    let mut squares = true;
    while measures.iter().any(unfinished) {
        walk(flights, window, order, &mut |state, nanos| {
            measures.iter_mut().for_each(|m| m.later_pass(state, nanos, squares));
        });
        squares = false;
        measures.iter_mut().filter_map(|m| m.descent.as_mut()).for_each(Descent::settle);
    }
    measures.iter().map(Measure::summary).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::put_leb128;
    use proptest::prelude::*;

    fn one(curve: Curve, active: bool, flights: &mut [Flight<'_>], window: (u64, u64)) -> Summary {
        curves(flights, window, &[(curve, active)], 1).0[0].unwrap()
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
            gaps: &gaps,
            pieces: count(&gaps),
        };
        // In flight: 1 in [1,2), 2 in [2,4), 1 in [4,5); the window ends at 11.
        let mut flights = [flight(2), flight(1)];
        let window = (second, 11 * second);
        let concurrency = one(Curve::Concurrency, false, &mut flights, window);
        assert_eq!(concurrency.avg, Some(0.6));
        assert_eq!((concurrency.min, concurrency.max), (Some(0.0), Some(2.0)));
        assert_eq!(concurrency.percentiles[4], Some(0.0));
        assert_eq!(concurrency.percentiles[6], Some(2.0));
        let decode = one(Curve::DecodeThroughput, true, &mut flights, window);
        assert!((decode.avg.unwrap() - 4.0 / 3.0).abs() < 1e-12);
        // 10, then 21 + 10 at the second start, …, 13 − 1 just before the last end.
        let tokens = one(Curve::TokensInFlight, true, &mut flights, window);
        assert_eq!(tokens.max, Some(23.0));
        let prefill = one(Curve::PrefillThroughputPerUser, true, &mut flights, window);
        assert_eq!((prefill.min, prefill.max), (Some(10.0), Some(10.0)));
    }

    #[test]
    fn an_idle_window_has_no_active_curve() {
        let (summaries, _) = curves(&mut [], (0, 5), &[(Curve::Concurrency, false), (Curve::TotalThroughput, true)], 2);
        assert_eq!(summaries[0].unwrap().max, Some(0.0));
        assert_eq!(summaries[1], None);
    }

    proptest! {
        #[test]
        fn sorted_events_and_a_heap_of_events_draw_the_same_curves(
            spans in prop::collection::vec((0..50u64, 0..20u64, 0..20u64, any::<bool>(), 1..9u32), 1..40)
        ) {
            let mut flights: Vec<Flight<'_>> = spans
                .iter()
                .map(|(start, wait, decode, ok, tokens)| Flight {
                    start: 1 + start,
                    first: if *ok { 1 + start + wait } else { 0 },
                    end: 1 + start + wait + decode,
                    input: *tokens,
                    output: *tokens,
                    gaps: &[],
                    pieces: 0,
                })
                .collect();
            flights.sort_unstable_by_key(|f| f.start);
            let order = Order::of(&flights);
            let curves = [
                (Curve::Concurrency, false),
                (Curve::DecodeConcurrency, false),
                (Curve::PrefillConcurrency, true),
                (Curve::TokensInFlight, false),
            ];
            let heap = measure(&flights, (1, 120), None, &curves);
            let sorted = measure(&flights, (1, 120), Some(&order), &curves);
            prop_assert_eq!(heap, sorted);
        }
    }
}
