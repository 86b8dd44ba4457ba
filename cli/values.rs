//! What a single value on the command line may be.
//!
//! Every parser's error completes the sentence `--flag VALUE: …`.

mod synthetic;

use crate::hints;
pub(crate) use maser_datasets::file::Format;
use maser_engine::clock::{MICRO, MILLI, Nanos, SECOND};
pub(crate) use maser_engine::endpoint::Kind as EndpointKind;
use maser_engine::metric::{Metric, Value, flag};
pub(crate) use maser_engine::plan::{LatePolicy, Reuse, Sampling as DatasetSampling};
pub(crate) use maser_engine::run::{Cores, Spin};
pub(crate) use maser_engine::schedule::{RampStrategy, Ties};
pub(crate) use maser_engine::serve::{Fault as FaultKind, Jitter};
pub(crate) use synthetic::*;

/// What is said of a comma list where the reference would start a sweep.
pub(crate) const SWEEP: &str = "sweeps are not supported yet by this version of maser, give a single value";

type Parsed<T> = Result<T, String>;

/// Wraps the parser of an option that the reference can sweep: a comma list is told apart from a typing error.
pub(crate) fn single<T: 'static>(
    parse: fn(&str) -> Parsed<T>,
) -> impl Fn(&str) -> Parsed<T> + Clone + Send + Sync + 'static {
    move |raw| {
        if raw.contains(',') && raw.split(',').all(|part| parse(part.trim()).is_ok()) {
            return Err(SWEEP.into());
        }
        parse(raw)
    }
}

/// A whole number of at least 1.
pub(crate) fn count(raw: &str) -> Parsed<u64> {
    match raw.parse() {
        Ok(n) if n >= 1 => Ok(n),
        _ => Err("expected a whole number of at least 1".into()),
    }
}

/// A whole number of at least 1 that fits 32 bits.
pub(crate) fn count32(raw: &str) -> Parsed<u32> {
    let n = count(raw)?;
    u32::try_from(n).map_err(|_| format!("expected at most {}", u32::MAX))
}

/// A whole number of at least 0.
pub(crate) fn whole(raw: &str) -> Parsed<u64> {
    raw.parse().map_err(|_| "expected a whole number of at least 0".into())
}

/// A whole number of at least 0 that fits 32 bits.
pub(crate) fn whole32(raw: &str) -> Parsed<u32> {
    let n = whole(raw)?;
    u32::try_from(n).map_err(|_| format!("expected at most {}", u32::MAX))
}

/// A percentile, per cent: above 0 and below 100.
pub(crate) fn percentile(raw: &str) -> Parsed<f64> {
    let p = finite(raw.trim().trim_start_matches('p')).filter(|p| *p > 0.0 && *p < 100.0);
    p.ok_or_else(|| "expected a number between 0 and 100 (per cent), such as 99.9".into())
}

/// Service levels as typed: metrics and their bounds, in the metrics' display units.
#[derive(Debug, Clone)]
pub(crate) struct ServiceLevels(pub(crate) Vec<(&'static Metric, f64)>);

/// `metric:bound`, several with spaces or commas.
pub(crate) fn service_levels(raw: &str) -> Parsed<ServiceLevels> {
    let words = raw.split([' ', ',']).filter(|w| !w.is_empty());
    let level = |word: &str| {
        let (tag, bound) = word.split_once(':').ok_or("expected METRIC:BOUND, such as time_to_first_token:200")?;
        let metric = hints::metric(tag).ok_or_else(|| format!("unknown metric {tag:?}; `maser metrics` lists them"))?;
        let single = matches!(metric.value, Value::Valid(_)) && !metric.has(flag::INTERNAL);
        if !single {
            return Err(format!("{tag} is not a metric of single requests; `maser metrics` lists those that are"));
        }
        // A time may have its unit.
        let time = || match metric.display {
            "ms" => elapsed(bound, MILLI).map(|ns| ns / MILLI as f64),
            _ => None,
        };
        match finite(bound).or_else(time) {
            Some(bound) if bound >= 0.0 => Ok((metric, bound)),
            _ => Err(format!("{bound:?} cannot bound {tag}; expected a number of at least 0 ({})", metric.display)),
        }
    };
    let levels = words.map(level).collect::<Result<Vec<_>, String>>()?;
    match levels.is_empty() {
        true => Err("expected METRIC:BOUND, such as time_to_first_token:200".into()),
        false => Ok(ServiceLevels(levels)),
    }
}

fn finite(raw: &str) -> Option<f64> {
    raw.parse().ok().filter(|x: &f64| x.is_finite())
}

/// Requests per second: finite and above 0.
pub(crate) fn rate(raw: &str) -> Parsed<f64> {
    finite(raw).filter(|x| *x > 0.0).ok_or_else(|| "expected a number above 0 (requests per second)".into())
}

/// A standard deviation: finite and at least 0.
pub(crate) fn deviation(raw: &str) -> Parsed<f64> {
    finite(raw).filter(|x| *x >= 0.0).ok_or_else(|| "expected a number of at least 0".into())
}

/// A share above 0 and at most 1.
pub(crate) fn ratio(raw: &str) -> Parsed<f64> {
    fraction(raw).filter(|x| *x > 0.0).ok_or_else(|| "expected a number above 0 and at most 1".into())
}

/// A share of 1: between 0 and 1, both included.
pub(crate) fn fraction(raw: &str) -> Option<f64> {
    finite(raw).filter(|x| (0.0..=1.0).contains(x))
}

/// A number above 0.
pub(crate) fn factor(raw: &str) -> Parsed<f64> {
    finite(raw).filter(|x| *x > 0.0).ok_or_else(|| "expected a number above 0".into())
}

/// A share of 1: between 0 and 1, both included.
pub(crate) fn share(raw: &str) -> Parsed<f64> {
    fraction(raw).ok_or_else(|| "expected a share from 0 to 1".into())
}

/// A percentage above 0.
pub(crate) fn percent(raw: &str) -> Parsed<f64> {
    let within = |x: &f64| *x > 0.0 && *x <= 100.0;
    finite(raw).filter(within).ok_or_else(|| "expected a percentage above 0 and up to 100".into())
}

/// Units that a duration may be given in, and nanoseconds of each.
const UNITS: [(&str, Nanos); 6] =
    [("us", MICRO), ("µs", MICRO), ("ms", MILLI), ("s", SECOND), ("m", 60 * SECOND), ("h", 3600 * SECOND)];

/// Nanoseconds of a number of `unit`s, or of numbers with units of their own (`90s`, `1m30s`, `1.5h`), without rounding.
fn elapsed(raw: &str, unit: Nanos) -> Option<f64> {
    if let Some(n) = finite(raw) {
        return Some(n * unit as f64);
    }
    let (mut rest, mut sum) = (raw, 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (name, next) = after.split_at(letters);
        let (_, scale) = UNITS.iter().find(|(unit, _)| *unit == name)?;
        sum += finite(number)? * *scale as f64;
        rest = next;
    }
    (!raw.is_empty()).then_some(sum)
}

/// The same as whole nanoseconds, if that is at least 0 and fits 64 bits.
fn nanos(raw: &str, unit: Nanos) -> Option<Nanos> {
    let ns = elapsed(raw, unit)?.round();
    (ns >= 0.0 && ns < u64::MAX as f64).then_some(ns as Nanos)
}

/// A duration above 0, in seconds unless it has a unit, as nanoseconds.
pub(crate) fn seconds(raw: &str) -> Parsed<Nanos> {
    nanos(raw, SECOND)
        .filter(|ns| *ns > 0)
        .ok_or_else(|| "expected seconds above 0, or a time such as 500ms, 10s, 1m".into())
}

/// A duration of at least 0, in seconds unless it has a unit, as nanoseconds.
pub(crate) fn span(raw: &str) -> Parsed<Nanos> {
    nanos(raw, SECOND).ok_or_else(|| "expected seconds of at least 0, or a time such as 500ms, 10s, 1m".into())
}

/// A duration of at least 0, in milliseconds unless it has a unit, as nanoseconds.
pub(crate) fn millis(raw: &str) -> Parsed<Nanos> {
    nanos(raw, MILLI).ok_or_else(|| "expected milliseconds of at least 0, or a time such as 20ms, 1s".into())
}

/// Bytes above 0: a number and a unit of thousands (`kB`, `MB`, `GB`, `TB`) or of 1,024s (`KiB` and so on), or none.
pub(crate) fn bytes(raw: &str) -> Parsed<u64> {
    let digits = raw.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = raw[digits.len()..].to_ascii_lowercase();
    let scale = match unit.as_str() {
        "" | "b" => Some(1.0),
        _ => "kmgt".find(&unit[..1]).and_then(|power| {
            let base: Option<f64> = match &unit[1..] {
                "b" | "" => Some(1e3),
                "ib" => Some(1024.0),
                _ => None,
            };
            Some(base?.powi(power as i32 + 1))
        }),
    };
    finite(digits.trim_end())
        .zip(scale)
        .map(|(n, scale)| n * scale)
        .filter(|bytes| (1.0..1e18).contains(bytes))
        .map(|bytes| bytes as u64)
        .ok_or_else(|| "expected a size above 0, such as 500MB, 20GB or 4GiB".into())
}

/// How long requests in flight at the end of a duration may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grace {
    /// This long, nanoseconds.
    Span(Nanos),
    /// Until all are done.
    Infinite,
}

/// A duration as of [`span`], or `inf`.
pub(crate) fn grace(raw: &str) -> Parsed<Grace> {
    if raw.eq_ignore_ascii_case("inf") || raw.eq_ignore_ascii_case("infinity") {
        return Ok(Grace::Infinite);
    }
    nanos(raw, SECOND)
        .map(Grace::Span)
        .ok_or_else(|| "expected seconds of at least 0, a time such as 500ms, 10s, 1m, or inf".into())
}

/// A value chosen from a list of names; letter case does not matter, and `_` stands for `-`.
pub(crate) trait Choice: Copy + 'static {
    /// The names; those without a value are known to the reference and not supported yet.
    const NAMES: &'static [(&'static str, Option<Self>)];
}

/// Parses a name of the list.
pub(crate) fn choice<T: Choice>(raw: &str) -> Parsed<T> {
    let wanted = raw.to_ascii_lowercase().replace('_', "-");
    let supported = || {
        let names = T::NAMES.iter().filter(|(_, value)| value.is_some());
        let names: Vec<&str> = names.map(|(name, _)| *name).collect();
        names.join(", ")
    };
    match T::NAMES.iter().find(|(name, _)| *name == wanted) {
        Some((_, Some(value))) => Ok(*value),
        Some((_, None)) => Err(format!("not supported yet by this version of maser, which has {}", supported())),
        None => Err(format!("expected one of {}", supported())),
    }
}

/// The name under which a value is chosen.
pub(crate) fn name_of<T: Choice + PartialEq>(value: T) -> &'static str {
    let mut names = T::NAMES.iter();
    names.find(|(_, v)| *v == Some(value)).map_or("", |(name, _)| *name)
}

/// `--endpoint-type`: the API that is loaded.
pub(crate) fn endpoint_type(raw: &str) -> Parsed<EndpointKind> {
    let names = || EndpointKind::ALL.iter().copied().map(EndpointKind::name).collect::<Vec<_>>().join(", ");
    EndpointKind::from_name(raw).ok_or_else(|| format!("expected one of {}", names()))
}

/// `--request-content-type`: how bodies are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ContentType {
    /// JSON.
    Json,
    /// A form with files.
    Multipart,
}

/// A media type, or the reference's spelling of it as a name.
pub(crate) fn content_type(raw: &str) -> Parsed<ContentType> {
    match raw.to_ascii_lowercase().replace(['/', '_'], "-").as_str() {
        "application-json" => Ok(ContentType::Json),
        "multipart-form-data" => Ok(ContentType::Multipart),
        _ => Err("expected application/json or multipart/form-data".into()),
    }
}

/// `--arrival-pattern`: how requests are spaced under a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ArrivalPattern {
    /// Evenly.
    Constant,
    /// With exponential gaps.
    Poisson,
    /// With gamma-distributed gaps.
    Gamma,
    /// As fast as the concurrency allows; Poisson where there is a rate.
    ConcurrencyBurst,
}

impl Choice for ArrivalPattern {
    const NAMES: &'static [(&'static str, Option<Self>)] = &[
        ("constant", Some(Self::Constant)),
        ("poisson", Some(Self::Poisson)),
        ("gamma", Some(Self::Gamma)),
        ("concurrency-burst", Some(Self::ConcurrencyBurst)),
    ];
}

impl Choice for LatePolicy {
    const NAMES: &'static [(&'static str, Option<Self>)] =
        &[("drop", Some(Self::Drop)), ("queue", Some(Self::Queue)), ("send", Some(Self::Send))];
}

impl Choice for Ties {
    const NAMES: &'static [(&'static str, Option<Self>)] =
        &[("burst", Some(Self::Burst)), ("uniform", Some(Self::Uniform)), ("poisson", Some(Self::Poisson))];
}

impl Choice for RampStrategy {
    const NAMES: &'static [(&'static str, Option<Self>)] =
        &[("linear", Some(Self::Linear)), ("exponential", Some(Self::Exponential)), ("poisson", Some(Self::Poisson))];
}

impl Choice for Reuse {
    const NAMES: &'static [(&'static str, Option<Self>)] =
        &[("pooled", Some(Self::Pooled)), ("never", Some(Self::Never)), ("sticky-user-sessions", Some(Self::Sticky))];
}

/// Something that is on or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Switch {
    On,
    Off,
}

impl Choice for Switch {
    const NAMES: &'static [(&'static str, Option<Self>)] = &[("on", Some(Self::On)), ("off", Some(Self::Off))];
}

impl Choice for DatasetSampling {
    const NAMES: &'static [(&'static str, Option<Self>)] =
        &[("sequential", Some(Self::Sequential)), ("random", Some(Self::Random)), ("shuffle", Some(Self::Shuffle))];
}

/// `--url-strategy`: which server a session goes to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum UrlStrategy {
    /// Each in turn.
    #[default]
    RoundRobin,
    /// The one with the fewest requests in flight.
    LeastInFlight,
    /// In proportion to `--url-weights`.
    Weighted,
}

/// `--model-selection-strategy`: which of several models a turn asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ModelSelection {
    /// Each in turn.
    RoundRobin,
    /// Any, all as likely.
    Random,
}

impl Choice for ModelSelection {
    /// Nothing gives them weights, nor does the reference's command line.
    const NAMES: &'static [(&'static str, Option<Self>)] =
        &[("round-robin", Some(Self::RoundRobin)), ("random", Some(Self::Random)), ("weighted", None)];
}

impl Choice for UrlStrategy {
    const NAMES: &'static [(&'static str, Option<Self>)] = &[
        ("round-robin", Some(Self::RoundRobin)),
        ("least-in-flight", Some(Self::LeastInFlight)),
        ("weighted", Some(Self::Weighted)),
    ];
}

/// `--wait-for-model-mode`: how a server is told to be ready.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum WaitMode {
    /// It lists the model.
    Models,
    /// It answers a short request.
    #[default]
    Inference,
    /// First the one, then the other.
    Both,
}

impl Choice for WaitMode {
    const NAMES: &'static [(&'static str, Option<Self>)] =
        &[("models", Some(Self::Models)), ("inference", Some(Self::Inference)), ("both", Some(Self::Both))];
}

/// A path on a server, whatever the base URL's own path.
pub(crate) fn origin_path(raw: &str) -> Parsed<String> {
    if !raw.starts_with('/') || raw.starts_with("//") {
        return Err("expected a path that begins with one /".into());
    }
    if !raw.bytes().all(|b| b.is_ascii_graphic()) || raw.contains('#') {
        return Err("a path has no spaces, no # and only ASCII characters in it".into());
    }
    Ok(raw.into())
}

/// Parses a dataset format.
pub(crate) fn format(raw: &str) -> Parsed<Format> {
    Format::from_name(raw).map_err(|e| e.0)
}

/// `--export-level`: how much of each request is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExportLevel {
    /// Only the summaries.
    Summary,
    /// And a line per request.
    Records,
    /// And what was sent and received, whole.
    Raw,
}

impl Choice for ExportLevel {
    const NAMES: &'static [(&'static str, Option<Self>)] =
        &[("summary", Some(Self::Summary)), ("records", Some(Self::Records)), ("raw", Some(Self::Raw))];
}

/// `--ui`: what is shown while the run goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ui {
    /// A progress bar.
    Simple,
    /// Nothing.
    None,
    /// The reference's full screen; here as [`Ui::Simple`], with a note.
    Dashboard,
}

impl Choice for Ui {
    const NAMES: &'static [(&'static str, Option<Self>)] =
        &[("simple", Some(Self::Simple)), ("none", Some(Self::None)), ("dashboard", Some(Self::Dashboard))];
}

/// `--transport`: how requests travel. The reference has one way, and so have we; other names are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// HTTP/1.1.
    Http,
}

impl Choice for Transport {
    const NAMES: &'static [(&'static str, Option<Self>)] = &[("http", Some(Self::Http))];
}

/// `--log-level`: the least severe message that is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LogLevel {
    /// Everything.
    Trace,
    /// What helps to find a fault.
    Debug,
    /// What a user wants to know.
    Info,
    /// What a user should know.
    Notice,
    /// What may spoil the results.
    Warning,
    /// That a step went well.
    Success,
    /// What failed.
    Error,
    /// What ends the program.
    Critical,
}

impl Choice for LogLevel {
    const NAMES: &'static [(&'static str, Option<Self>)] = &[
        ("trace", Some(Self::Trace)),
        ("debug", Some(Self::Debug)),
        ("info", Some(Self::Info)),
        ("notice", Some(Self::Notice)),
        ("warning", Some(Self::Warning)),
        ("success", Some(Self::Success)),
        ("error", Some(Self::Error)),
        ("critical", Some(Self::Critical)),
    ];
}

impl Choice for Spin {
    const NAMES: &'static [(&'static str, Option<Self>)] =
        &[("auto", Some(Self::Auto)), ("always", Some(Self::Always)), ("never", Some(Self::Never))];
}

/// `--io`: the kernel interface below the sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Io {
    /// io_uring where the kernel allows it, else epoll.
    Auto,
    /// An io_uring of our own.
    Direct,
    /// io_uring.
    Uring,
    /// epoll.
    Epoll,
}

impl Choice for Io {
    const NAMES: &'static [(&'static str, Option<Self>)] = &[
        ("auto", Some(Self::Auto)),
        ("direct", Some(Self::Direct)),
        ("uring", Some(Self::Uring)),
        ("epoll", Some(Self::Epoll)),
    ];
}

/// Far above the number of cores of any machine; bounds what a range may expand to.
const CORE_MAX: usize = 4095;

/// `auto`, a number of cores (`4`), or a list with a comma or a range in it (`0,2-5`, `3-3`).
pub(crate) fn cores(raw: &str) -> Parsed<Cores> {
    let wrong = || "expected auto, a number of cores such as 4, or a list of cores such as 0,2-5".to_string();
    if raw.eq_ignore_ascii_case("auto") {
        return Ok(Cores::Auto);
    }
    if !raw.contains([',', '-']) {
        let n = raw.parse().ok().filter(|n| (1..=CORE_MAX + 1).contains(n));
        return n.map(Cores::Count).ok_or_else(wrong);
    }
    let mut list = Vec::new();
    for part in raw.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to) = (from.trim().parse::<usize>(), to.trim().parse());
        match (from, to) {
            (Ok(from), Ok(to)) if from <= to && to <= CORE_MAX => list.extend(from..=to),
            _ => return Err(wrong()),
        }
    }
    list.sort_unstable();
    list.dedup();
    if list.is_empty() {
        return Err(wrong());
    }
    Ok(Cores::List(list))
}

impl Choice for FaultKind {
    const NAMES: &'static [(&'static str, Option<Self>)] = &[
        ("http500", Some(Self::Http500)),
        ("http429", Some(Self::Http429)),
        ("reset", Some(Self::Reset)),
        ("close", Some(Self::Close)),
        ("malformed", Some(Self::Malformed)),
        ("error-event", Some(Self::ErrorEvent)),
        ("hang", Some(Self::Hang)),
    ];
}

/// A fault and the share of requests that meet it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Fault {
    /// What happens.
    pub(crate) kind: FaultKind,
    /// Share of the requests, 0 to 1.
    pub(crate) fraction: f64,
}

/// `KIND:FRACTION`.
pub(crate) fn fault(raw: &str) -> Parsed<Fault> {
    let (kind, share) = raw.split_once(':').ok_or("expected KIND:FRACTION, for example http500:0.1")?;
    let kind = choice(kind).map_err(|why| format!("unknown kind of fault, {why}"))?;
    let fraction = fraction(share).ok_or("expected a fraction between 0 and 1 after the colon")?;
    Ok(Fault { kind, fraction })
}

/// A fraction of each interval (`0.1`), or milliseconds (`2ms`).
pub(crate) fn jitter(raw: &str) -> Parsed<Jitter> {
    let span = raw.strip_suffix("ms").map(|ms| millis(ms.trim()));
    let parsed = match span {
        Some(ns) => ns.ok().map(Jitter::Span),
        None => fraction(raw).map(Jitter::Fraction),
    };
    parsed.ok_or_else(|| "expected a fraction between 0 and 1, or milliseconds such as 2ms".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_rates_have_bounds() {
        for (raw, want) in [("1", Some(1)), ("0", None), ("-1", None), ("1.5", None), ("", None)] {
            assert_eq!(count(raw).ok(), want, "{raw}");
        }
        for raw in ["0", "-2", "NaN", "inf", "x", ""] {
            assert!(rate(raw).is_err(), "{raw}");
        }
        assert_eq!(rate("0.5"), Ok(0.5));
        for (raw, want) in [("0", None), ("100", Some(100.0)), ("100.1", None), ("0.5", Some(0.5)), ("nan", None)] {
            assert_eq!(percent(raw).ok(), want, "{raw}");
        }
        assert_eq!((share("0"), share("1")), (Ok(0.0), Ok(1.0)));
        assert!(share("1.1").is_err() && factor("0").is_err() && factor("-3").is_err());
        assert!(count32("4294967296").is_err());
        assert_eq!(whole32("0"), Ok(0));
    }

    #[test]
    fn a_comma_list_is_a_sweep_only_if_every_part_would_do() {
        let parse = single(count);
        assert_eq!(parse("1,2, 4"), Err(SWEEP.to_string()));
        assert_eq!(parse("7"), Ok(7));
        assert!(parse("1,x").is_err_and(|why| why != SWEEP));
    }

    #[test]
    fn times_become_whole_nanoseconds() {
        assert_eq!(seconds("0.1"), Ok(100_000_000));
        assert_eq!(millis("2.5"), Ok(2_500_000));
        assert_eq!(millis("0"), Ok(0));
        for raw in ["0", "-1", "nan", "inf", "1e30", "", "s", "5x", "5 s", "1m-2s", "1s2", "0s", "1..5s"] {
            assert!(seconds(raw).is_err(), "{raw}");
        }
        for (raw, want) in [
            ("500ms", 500 * MILLI),
            ("10s", 10 * SECOND),
            ("1m", 60 * SECOND),
            ("1m30s", 90 * SECOND),
            ("1.5h", 5400 * SECOND),
            ("50us", 50 * MICRO),
            ("50µs", 50 * MICRO),
        ] {
            assert_eq!((seconds(raw), span(raw), millis(raw)), (Ok(want), Ok(want), Ok(want)), "{raw}");
            assert_eq!(grace(raw), Ok(Grace::Span(want)), "{raw}");
        }
        assert_eq!((span("0"), span("2.5")), (Ok(0), Ok(2_500_000_000)));
        assert!(span("-1").is_err() && span("inf").is_err());
        assert_eq!(grace("inf"), Ok(Grace::Infinite));
        assert_eq!(grace("0"), Ok(Grace::Span(0)));
        assert!(grace("-1").is_err());
    }

    #[test]
    fn names_are_read_in_any_case_with_either_dash() {
        assert_eq!(choice("Concurrency_Burst"), Ok(ArrivalPattern::ConcurrencyBurst));
        assert_eq!(format("MOONCAKE-trace"), Ok(Format::MooncakeTrace));
        assert_eq!(
            choice::<ModelSelection>("weighted"),
            Err("not supported yet by this version of maser, which has round-robin, random".into())
        );
        assert_eq!(choice::<Ui>("tui"), Err("expected one of simple, none, dashboard".into()));
        assert!(format("weka-trace").is_err_and(|why| why.starts_with("not supported yet")));
    }

    #[test]
    fn cores_are_a_number_or_a_list() {
        assert_eq!(cores("auto"), Ok(Cores::Auto));
        assert_eq!(cores("4"), Ok(Cores::Count(4)));
        assert_eq!(cores("0,2-4,3"), Ok(Cores::List(vec![0, 2, 3, 4])));
        assert_eq!(cores("3-3"), Ok(Cores::List(vec![3])));
        for raw in ["0", "", ",", "a", "5-2", "1-", "0-99999999", "-1"] {
            assert!(cores(raw).is_err(), "{raw}");
        }
    }

    #[test]
    fn faults_and_jitter() {
        let half = Fault { kind: FaultKind::ErrorEvent, fraction: 0.5 };
        assert_eq!(fault("error_event:0.5"), Ok(half));
        for raw in ["http500", "http500:", "http500:2", "boom:0.1", ":0.1"] {
            assert!(fault(raw).is_err(), "{raw}");
        }
        assert_eq!(jitter("0.25"), Ok(Jitter::Fraction(0.25)));
        assert_eq!(jitter("2ms"), Ok(Jitter::Span(2_000_000)));
        for raw in ["2", "-0.1", "ms", "x"] {
            assert!(jitter(raw).is_err(), "{raw}");
        }
    }
}
