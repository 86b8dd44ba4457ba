//! Time-weighted curves: one pass over starts, responses and ends in order of time.
//!
//! A curve is a step function; its statistics weigh every value by how long it stood. A percentile is the least value at
//! or below which the curve stood for that share of the time.

mod measure;

pub(super) use measure::curves;

use crate::metric::Curve;
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
