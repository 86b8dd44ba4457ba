//! What a reader wants to know first: what failed and why, whether the run was stopped, how fast the server was, and whether
//! it kept its service levels.

use super::verdict::{count, grade, load};
use super::{GLUE, printable, unbroken};
use maser_engine::clock::SECOND;
use maser_engine::metric::{Metric, flag};
use maser_engine::record::Outcome;
use maser_engine::report::{Entry, ErrorDetails, Report};
use serde_json::Value;

/// Kinds of failure that are named; the table of errors has them all.
const KINDS: usize = 3;

/// Characters of a server's own words that are shown in a line.
const WORDS: usize = 300;

/// Places of the median and the 99th percentile among the figures of a metric.
pub(super) const P50: usize = 4;
pub(super) const P99: usize = 8;

/// The latencies that are shown first, and their short names.
pub(super) const LATENCIES: [(&str, &str); 3] =
    [("time_to_first_token", "TTFT"), ("inter_token_latency", "ITL"), ("request_latency", "latency")];

/// What failed, the most frequent kinds first, each with the server's own words: `all 3 requests: 404 Not Found from POST
/// /v1/chat/completions: the model does not exist`. `None` if nothing did.
pub fn failures(report: &Report) -> Option<String> {
    Some(breakable(&failed(report)?))
}

/// The same for the console: what belongs together is not parted by the end of a line.
pub(super) fn failed(report: &Report) -> Option<String> {
    let (n, all) = (report.failures(), report.valid + report.failed);
    if n == 0 {
        return None;
    }
    let kinds = kinds(report);
    let path = &report.run.header.request_path;
    let alone = kinds.len() == 1;
    let named = |(details, n): &(&ErrorDetails, u64)| {
        let times = if alone { String::new() } else { unbroken(&format!("{n} × ")) };
        let said = times + &printable(&title(details, path));
        match words(&details.message) {
            words if words.is_empty() => said,
            words => format!("{said}: {words}"),
        }
    };
    let mut parts: Vec<String> = kinds.iter().take(KINDS).map(named).collect();
    let others: u64 = kinds.iter().skip(KINDS).map(|(_, n)| n).sum();
    if others > 0 {
        parts.push(format!("{others} others"));
    }
    let share = 100.0 * n as f64 / all as f64;
    let hint = if expects_tls(report) { "; does the server expect https? maser speaks plain http only" } else { "" };
    let of = match all - n {
        0 if all == 1 => "the only request".to_owned(),
        0 => unbroken(&format!("all {all} requests")),
        _ => unbroken(&format!("{n} of {} ({share:.1}%)", count(all, "request"))),
    };
    Some(format!("{of}: {}{hint}", parts.join("; ")))
}

fn breakable(text: &str) -> String {
    text.replace(GLUE, " ")
}

/// Failures by status and kind, the most frequent first, each with its most frequent words. What was cut did not fail.
fn kinds(report: &Report) -> Vec<(&ErrorDetails, u64)> {
    let cut = [Outcome::Cancelled, Outcome::Abandoned].map(Outcome::name);
    let mut groups: Vec<_> = report.errors.iter().filter(|group| !cut.contains(&group.details.kind.as_str())).collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.count));
    let mut kinds: Vec<(&ErrorDetails, u64)> = Vec::new();
    for group in groups {
        let same = |(details, _): &&mut (&ErrorDetails, u64)| {
            details.code == group.details.code && details.kind == group.details.kind
        };
        match kinds.iter_mut().find(same) {
            Some((_, n)) => *n += group.count,
            None => kinds.push((&group.details, group.count)),
        }
    }
    kinds.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    kinds
}

/// A kind of failure in words; a status with where it came from.
fn title(details: &ErrorDetails, path: &str) -> String {
    let own = [Outcome::Timeout, Outcome::InStream, Outcome::Cancelled, Outcome::Abandoned];
    match details.code {
        Some(code) if own.iter().all(|outcome| outcome.name() != details.kind) => {
            let from = if path.is_empty() { String::new() } else { format!(" from POST {path}") };
            // A status without a reason phrase goes by the name of its outcome.
            let reason = if details.kind == Outcome::HttpStatus.name() { "" } else { &details.kind };
            unbroken(format!("{code} {reason}").trim_end()) + &from
        }
        _ => unbroken(&details.kind),
    }
}

/// What a server says of an error, out of the JSON that it says it in, on one line and not too long.
fn words(message: &str) -> String {
    let json: Option<Value> = serde_json::from_str(message).ok();
    let said = json.as_ref().and_then(|json| {
        let error = &json["error"];
        let places = [&error["message"], error, &json["message"], &json["detail"], &json["error_description"]];
        places.into_iter().find_map(Value::as_str)
    });
    let text = printable(said.unwrap_or(message));
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(WORDS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Whether a server behaves like one that expects TLS: it answers nothing that is HTTP, or says so.
fn expects_tls(report: &Report) -> bool {
    const SAID: [&str; 3] = ["sent to HTTPS port", "HTTP request to an HTTPS server", "plain HTTP"];
    let broken = [Outcome::Reset, Outcome::Protocol, Outcome::Truncated].map(Outcome::name);
    let suspect = |details: &ErrorDetails| {
        broken.contains(&details.kind.as_str()) || SAID.iter().any(|said| details.message.contains(said))
    };
    report.all_failed() && report.errors.iter().all(|group| suspect(&group.details))
}

/// How far a run came that did not come to its end: `by SIGTERM after 1.5 of 30 s, with 20 requests finished`. `signal` is what
/// stopped it, where that is known.
pub fn stopped(report: &Report, signal: Option<&str>) -> Option<String> {
    let by = match (&report.run.end, report.was_cancelled) {
        (None, _) => "force",
        (Some(_), true) => signal.unwrap_or("a signal"),
        _ => return None,
    };
    let phase = load(&report.run.header.input_config);
    let asked = |key: &str| phase.map(|phase| &phase[key]);
    let last = report
        .run
        .phases
        .iter()
        .rev()
        .find(|mark| report.run.header.phases.get(usize::from(mark.phase)).is_some_and(|phase| !phase.warmup));
    let sent = last.filter(|mark| mark.sent_end.is_set()).map(|mark| mark.sent_end.since(mark.start));
    let ran = sent.or(report.sending).map(|ns| ns as f64 / SECOND as f64);
    let done = report.valid + report.failed;
    let of_time = asked("duration").and_then(Value::as_f64).map_or_else(String::new, |s| format!(" of {s}"));
    let finished = match asked("requests").and_then(Value::as_u64) {
        Some(of) => format!("{done} of {}", count(of, "request")),
        None => count(done, "request"),
    };
    let after = ran.map_or_else(String::new, |s| format!(" after {s:.1}{of_time} s"));
    Some(format!("by {by}{after}, with {finished} finished"))
}

/// The figures that say how fast the server was; those that there are.
pub(super) fn speed(report: &Report) -> Option<String> {
    let mut parts = Vec::new();
    for (tag, name) in LATENCIES {
        let Some(entry) = report.metric(tag) else { continue };
        let (Some(p50), Some(p99)) = (entry.summary.percentiles[P50], entry.summary.percentiles[P99]) else { continue };
        parts.push(unbroken(&format!("{name} p50 {} / p99 {}", time(p50), time(p99))));
    }
    let rate = |tag: &str| report.metric(tag).and_then(|entry: &Entry| entry.summary.avg);
    let tokens = rate("output_token_throughput").filter(|rate| *rate > 0.0);
    parts.extend(tokens.map(|rate| unbroken(&format!("{} output tokens/s", figure(rate)))));
    parts.extend(rate("request_throughput").map(|rate| unbroken(&format!("{} requests/s", figure(rate)))));
    if report.valid == 0 || parts.is_empty() {
        return None;
    }
    let mut line = parts.join(", ");
    if report.lacks_streaming() {
        line.push_str("; not streamed, so no TTFT or ITL: add --streaming");
    }
    Some(line)
}

/// Which share of the requests kept the service levels, and how many missed each.
pub(super) fn levels(report: &Report) -> Option<String> {
    if report.service_levels.is_empty() || report.is_empty() {
        return None;
    }
    let good = report.metric("good_request_count").and_then(|entry| entry.summary.avg).unwrap_or(0.0);
    let all = report.valid + report.failed;
    let level = |metric: &Metric, bound: f64| {
        let sign = if metric.has(flag::LARGER_IS_BETTER) { '≥' } else { '≤' };
        unbroken(&format!("{} {sign} {bound} {}", short(metric), metric.display))
    };
    let kept: Vec<_> = report.service_levels.iter().map(|l| level(l.metric, l.threshold)).collect();
    let mut missed: Vec<String> = report
        .service_levels
        .iter()
        .zip(&report.missed)
        .filter(|(_, n)| **n > 0)
        .map(|(level, n)| format!("{n} by {}", short(level.metric)))
        .collect();
    if report.failed > 0 {
        missed.push(format!("{} failed or cut", report.failed));
    }
    let missed = if missed.is_empty() { String::new() } else { format!("; missed: {}", missed.join(", ")) };
    let share = 100.0 * good / all as f64;
    Some(format!("{share:.1}% of {} met {}{missed}", count(all, "request"), kept.join(" and ")))
}

fn short(metric: &Metric) -> String {
    let known = LATENCIES.iter().find(|(tag, _)| *tag == metric.tag);
    known.map_or_else(|| metric.header.to_owned(), |(_, name)| (*name).to_owned())
}

/// Milliseconds with a fitting unit and three digits that count.
fn time(ms: f64) -> String {
    match ms {
        _ if ms < 1.0 => format!("{:.0} µs", ms * 1000.0),
        _ if ms < 10.0 => format!("{ms:.2} ms"),
        _ if ms < 100.0 => format!("{ms:.1} ms"),
        _ if ms < 10_000.0 => format!("{ms:.0} ms"),
        _ => format!("{:.1} s", ms / 1000.0),
    }
}

/// A rate with commas, and a decimal where it is small.
fn figure(rate: f64) -> String {
    super::thousands(&if rate < 1000.0 { format!("{rate:.1}") } else { format!("{rate:.0}") })
}

/// The run in one line: how fast, whose numbers, what failed.
pub fn line(report: &Report) -> String {
    let mut parts: Vec<String> = Vec::new();
    parts.extend(speed(report));
    parts.extend(levels(report));
    parts.extend(client(report));
    parts.push(match failures(report) {
        Some(failed) => format!("failed: {failed}"),
        None => format!("{}, none failed", count(report.valid, "request")),
    });
    breakable(&parts.join(" | "))
}

/// Whose the numbers are, in a word or two.
fn client(report: &Report) -> Option<String> {
    report.verdict.as_ref().map(|verdict| format!("client: {}", grade(verdict.grade)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn details(code: Option<u16>, kind: &str) -> ErrorDetails {
        ErrorDetails { code, kind: kind.to_owned(), message: String::new() }
    }

    #[test]
    fn a_status_says_where_it_came_from_and_another_failure_its_name() {
        for (code, kind, said) in [
            (Some(404), "Not Found", "404 Not Found from POST /v1/x"),
            (Some(599), Outcome::HttpStatus.name(), "599 from POST /v1/x"),
            (Some(408), Outcome::Timeout.name(), Outcome::Timeout.name()),
            (None, Outcome::Reset.name(), Outcome::Reset.name()),
        ] {
            assert_eq!(title(&details(code, kind), "/v1/x").replace(GLUE, " "), said);
        }
        assert_eq!(title(&details(Some(404), "Not Found"), ""), unbroken("404 Not Found"));
    }

    #[test]
    fn a_server_s_words_are_taken_out_of_its_json() {
        for (message, said) in [
            (r#"{"error":{"message":"no\nmodel  x","type":"t"}}"#, "no model x"),
            (r#"{"error":"busy"}"#, "busy"),
            (r#"{"detail":"Not Found"}"#, "Not Found"),
            (r#"{"object":"error","message":"m","code":404}"#, "m"),
            ("<html>\u{1b}[31m oops", "<html> [31m oops"),
            ("", ""),
        ] {
            assert_eq!(words(message), said);
        }
        assert_eq!(words(&"é".repeat(400)).chars().count(), WORDS + 1);
    }

    #[test]
    fn times_have_three_digits_and_a_unit() {
        for (ms, said) in
            [(0.02, "20 µs"), (5.0, "5.00 ms"), (20.04, "20.0 ms"), (175.3, "175 ms"), (12_000.0, "12.0 s")]
        {
            assert_eq!(time(ms), said);
        }
        assert_eq!((figure(90.61), figure(2843.4)), ("90.6".to_owned(), "2,843".to_owned()));
    }
}
