//! The verdict above the tables: what was asked for, what came of it, and whether this client was the limit.

use maser_engine::clock::{MILLI, SECOND};
use maser_engine::report::Report;
use serde_json::Value;
use std::collections::HashMap;

/// A client that is late with more than this share of its requests is taken for the limit.
const LATE_SHARE: f64 = 0.01;

/// Milliseconds that a request may leave late. The metric table counts late requests by the same bound.
const LATE_MS: f64 = 1.0;

/// Kinds of failure that are named; the table of errors has them all.
const KINDS: usize = 3;

/// Place of the median among the figures of a metric.
const P50: usize = 4;

/// Place of the 99th percentile there.
const P99: usize = 8;

/// Requests below this number are no evidence for a 99th percentile: two of them would make it.
const FEW: u64 = 200;

/// The load that the settings ask for, such as `200 requests/s (constant), 100 requests`; `None` where they do not say.
pub fn asked(input_config: &Value) -> Option<String> {
    let phase = load(input_config)?;
    let concurrency = phase["concurrency"].as_u64();
    let pattern = phase["type"].as_str()?;
    let mut parts = match (phase["rate"].as_f64(), concurrency) {
        (Some(rate), _) => vec![format!("{rate} requests/s ({pattern})")],
        (None, _) if pattern == "fixed_schedule" => vec!["the trace's own times".to_owned()],
        (None, Some(1)) => vec!["one request at a time".to_owned()],
        (None, Some(n)) => vec![format!("{n} requests at a time")],
        (None, None) => return None,
    };
    if let Some(n) = concurrency.filter(|_| pattern != "concurrency") {
        parts.push(format!("at most {n} in flight"));
    }
    parts.extend(phase["requests"].as_u64().map(|n| count(n, "request")));
    parts.extend(phase["duration"].as_f64().map(|s| format!("for {s} s")));
    Some(parts.join(", "))
}

/// The last phase that is no warm-up, as the settings show it.
fn load(input_config: &Value) -> Option<&Value> {
    input_config["phases"].as_array()?.iter().rev().find(|p| p["kind"] != "warmup")
}

/// How a client stands to its load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Client {
    /// The numbers are the server's.
    KeptUp(String),
    /// The client held the load back.
    Late(String),
    /// There is too little to say.
    Unclear(String),
}

/// One line on a phase's account.
pub(super) struct Line {
    pub(super) text: String,
    /// It says that something is not as it was planned.
    pub(super) is_off: bool,
}

/// What became of each phase's arrivals, and where the sends do not follow the plan.
pub(super) fn accounts(report: &Report) -> Vec<Line> {
    let several = report.ledgers.len() > 1;
    let mut lines = Vec::new();
    for (phase, ledger) in &report.ledgers {
        let of = if several { format!(" of {}", super::printable(&ledger.phase)) } else { String::new() };
        lines.push(Line { text: format!("Ledger{of}: {}", ledger.verdict), is_off: false });
        if let Some(said) = report.arrivals(*phase).and_then(|arrivals| arrivals.verdict.as_ref()) {
            lines.push(Line { text: format!("Arrivals{of}: {said}"), is_off: true });
        }
    }
    lines
}

/// The verdict's lines, unwrapped: asked, got, and the client's part if there is anything to judge it by.
pub(super) fn verdict(report: &Report) -> (Vec<String>, Option<Client>) {
    let mut lines = Vec::new();
    lines.extend(asked(&report.run.header.input_config).map(|asked| format!("Asked:  {asked}.")));
    if let Some((from, to)) = report.window {
        let from = from as f64 / SECOND as f64;
        lines.push(match to {
            u64::MAX => format!("Seen:   from {from} s on."),
            to => format!("Seen:   from {from} s to {} s.", to as f64 / SECOND as f64),
        });
    }
    if report.is_empty() {
        lines.push("Got:    no request was finished.".to_owned());
        return (lines, None);
    }
    lines.push(format!("Got:    {}.", got(report)));
    (lines, client(report))
}

fn figure(report: &Report, tag: &str) -> Option<f64> {
    report.metric(tag)?.summary.avg
}

fn got(report: &Report) -> String {
    let n = report.valid + report.failed;
    let cut = if report.is_complete() { "" } else { " (incomplete)" };
    let mut parts = Vec::new();
    if !mostly_failed(report) {
        parts.push(format!("{}{cut}", count(n, "request")));
    }
    let scheduled = report.metric("send_slip").is_some();
    match report.sending.map(|ns| ns as f64 / SECOND as f64).filter(|s| scheduled && *s > 0.0) {
        Some(seconds) => {
            let rate = (n - 1) as f64 / seconds;
            // A Poisson schedule of so few requests is seldom at its mean rate.
            let grid = load(&report.run.header.input_config).filter(|phase| phase["type"] == "constant");
            let share = grid.and_then(|phase| phase["rate"].as_f64());
            let share =
                share.map_or_else(String::new, |asked| format!(" ({:.1}% of the rate asked)", 100.0 * rate / asked));
            parts.push(format!("sent at {rate:.1} requests/s{share} over {seconds:.2} s"));
        }
        None => {
            let limit = load(&report.run.header.input_config).and_then(|phase| phase["concurrency"].as_u64());
            let of = limit.map_or_else(String::new, |limit| format!(" of {limit}"));
            let mean = figure(report, "effective_concurrency");
            parts.extend(mean.map(|mean| format!("{mean:.1}{of} in flight on average")));
        }
    }
    parts.extend(figure(report, "request_throughput").map(|rate| format!("answered at {rate:.1} requests/s")));
    let queued = figure(report, "queued_request_count").unwrap_or(0.0);
    if queued > 0.0 {
        let limits = limits(load(&report.run.header.input_config));
        parts.push(format!("{queued:.0} waited for a free slot under {limits}"));
    }
    if mostly_failed(report) {
        // That is the result; the rest is of a server that hardly served.
        parts.insert(0, failures(report, &format!("{} of {}{cut} failed", report.failed, count(n, "request"))));
        return parts.join("; ");
    }
    parts.push(match report.failed {
        0 => "none failed".to_owned(),
        failed => failures(report, &super::unbroken(&format!("{failed} failed"))),
    });
    parts.join(", ")
}

/// Whether more requests failed than were answered.
fn mostly_failed(report: &Report) -> bool {
    report.failed > report.valid
}

/// The options that a wait for a slot can come from.
fn limits(phase: Option<&Value>) -> &'static str {
    let set = |key: &str| phase.is_some_and(|phase| phase[key].is_u64());
    match (set("concurrency"), set("prefill_concurrency")) {
        (true, true) => "--concurrency and --prefill-concurrency",
        (false, true) => "--prefill-concurrency",
        _ => "--concurrency",
    }
}

/// After `what`: the share that it is, and of what; the most frequent kinds first, each with its number on one line.
fn failures(report: &Report, what: &str) -> String {
    let mut kinds: HashMap<&str, u64> = HashMap::new();
    for group in &report.errors {
        *kinds.entry(group.details.kind.as_str()).or_default() += group.count;
    }
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_by_key(|(kind, n)| (std::cmp::Reverse(*n), *kind));
    let named = |(kind, n): &(&str, u64)| super::unbroken(&format!("{n} × {}", super::printable(kind)));
    let named: Vec<_> = kinds.iter().take(KINDS).map(named).collect();
    let more = if kinds.len() > KINDS { ", and others" } else { "" };
    let share = 100.0 * report.failed as f64 / (report.valid + report.failed) as f64;
    format!("{what}{}({share:.1}%): {}{more}", super::GLUE, named.join(", "))
}

fn client(report: &Report) -> Option<Client> {
    judged(report).map(|client| in_spite_of(client, mostly_failed(report)))
}

/// A client that failures hardly loaded has shown nothing, unless it was late even so.
fn in_spite_of(client: Client, mostly_failed: bool) -> Client {
    match client {
        Client::KeptUp(_) if mostly_failed => Client::Unclear(
            "Client: not judged; most requests failed, and a failure asks less of a client than an answer does."
                .to_owned(),
        ),
        client => client,
    }
}

/// The client by its delays alone, whatever became of the requests.
fn judged(report: &Report) -> Option<Client> {
    let queued = figure(report, "queued_request_count").unwrap_or(0.0) as u64;
    if let Some(slip) = report.metric("send_slip") {
        let (p50, p99) = (slip.summary.percentiles[P50]?, slip.summary.percentiles[P99]?);
        let delays = Delays { count: slip.summary.count?, queued, p50, p99, max: slip.summary.max? };
        return Some(open_loop(&delays, figure(report, "late_request_count").unwrap_or(0.0) as u64));
    }
    // Where every request of a schedule waited for a slot, the limit asked for was the limit; in a closed loop those that
    // waited for none are to be told from the others.
    if queued > 0 {
        let ms = |ns: u64| ns as f64 / MILLI as f64;
        let refill = report.ledgers.iter().rev().find(|(_, ledger)| !ledger.warmup)?.1.refill?;
        let (p50, p99, max) = (ms(refill.p50_ns), ms(refill.p99_ns), ms(refill.max_ns));
        return Some(closed_loop(&Delays { count: refill.count, queued, p50, p99, max }));
    }
    let entry = report.metric("credit_to_start_latency")?;
    let (p50, p99) = (entry.summary.percentiles[P50]?, entry.summary.percentiles[P99]?);
    Some(closed_loop(&Delays { count: entry.summary.count?, queued, p50, p99, max: entry.summary.max? }))
}

/// How long the client took to start what no limit kept back, milliseconds.
#[derive(Debug, Clone, Copy)]
struct Delays {
    count: u64,
    /// How many others a limit did keep back.
    queued: u64,
    p50: f64,
    p99: f64,
    max: f64,
}

impl Delays {
    /// Whether the sample has a 99th percentile.
    fn has_tail(&self) -> bool {
        self.count >= FEW
    }

    /// The sentence for a sample that has none, with the half of it for evidence; a few beside many that a limit kept are
    /// none.
    fn without_tail(&self, said: &str) -> Client {
        match (self.p50 > LATE_MS && self.queued < self.count, self.max > LATE_MS) {
            (true, _) => Client::Late(format!("Client: THE LIMIT; {said}.")),
            (false, false) => Client::KeptUp(format!("Client: not the limit; {said}.")),
            (false, true) => Client::Unclear(format!(
                "Client: not judged; {said}, and fewer than {FEW} requests are no evidence for a 99th percentile."
            )),
        }
    }
}

/// Of the requests with a planned time that waited for no slot, `late` left late.
fn open_loop(delays: &Delays, late: u64) -> Client {
    let (n, worst) = (delays.count, span(delays.max));
    let p99 =
        if delays.has_tail() { format!("p99 {}", span(delays.p99)) } else { format!("median {}", span(delays.p50)) };
    let which = if delays.queued > 0 { "requests that found a free slot" } else { "requests" };
    let said = match (late, delays.queued) {
        (1.., _) => format!(
            "{late} of {n} {which} ({:.1}%) left more than {LATE_MS} ms after their time ({p99}, at most {worst})",
            100.0 * late as f64 / n.max(1) as f64
        ),
        (0, 1..) => format!("{which} left within {worst} of their time ({p99})"),
        (0, 0) => format!("all {which} left within {worst} of their time ({p99})"),
    };
    if !delays.has_tail() {
        return delays.without_tail(&said);
    }
    match late as f64 / n as f64 > LATE_SHARE {
        true => Client::Late(format!("Client: THE LIMIT; {said}.")),
        false => Client::KeptUp(format!("Client: not the limit; {said}.")),
    }
}

/// In a closed loop nothing has a planned time; what counts is how long a freed slot stays empty.
fn closed_loop(delays: &Delays) -> Client {
    let (usual, worst) = (if delays.has_tail() { delays.p99 } else { delays.p50 }, span(delays.max));
    let of = if delays.has_tail() { "p99" } else { "median" };
    let said = format!("a freed slot was in use again within {} ({of}), {worst} at most", span(usual));
    match delays.p99 > LATE_MS {
        _ if !delays.has_tail() => delays.without_tail(&said),
        true => Client::Late(format!("Client: THE LIMIT; {said}.")),
        false => Client::KeptUp(format!("Client: not the limit; {said}.")),
    }
}

fn count(n: u64, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// Milliseconds with a fitting unit.
fn span(ms: f64) -> String {
    match ms {
        _ if ms < 1.0 => format!("{:.0} µs", ms * 1000.0),
        _ if ms < 1000.0 => format!("{ms:.2} ms"),
        _ => format!("{:.2} s", ms / 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_load_is_said_in_words() {
        for (phase, words) in [
            (json!({"type": "concurrency", "concurrency": 1, "requests": 10}), "one request at a time, 10 requests"),
            (json!({"type": "concurrency", "concurrency": 16, "duration": 2.5}), "16 requests at a time, for 2.5 s"),
            (
                json!({"type": "constant", "rate": 200.0, "requests": 1, "concurrency": 4}),
                "200 requests/s (constant), at most 4 in flight, 1 request",
            ),
            (json!({"type": "fixed_schedule", "requests": 9}), "the trace's own times, 9 requests"),
        ] {
            let warmup = json!({"kind": "warmup", "type": "concurrency", "concurrency": 3});
            assert_eq!(asked(&json!({"phases": [warmup, phase]})).as_deref(), Some(words));
        }
        assert_eq!(asked(&json!({})), None);
    }

    /// `count` delays, the median and the rest.
    fn delays(count: u64, p50: f64, p99: f64, max: f64) -> Delays {
        Delays { count, queued: 0, p50, p99, max }
    }

    #[test]
    fn one_late_request_in_a_hundred_is_still_the_server_s_run() {
        let said = |late| open_loop(&delays(1000, 0.01, 0.5, 3.0), late);
        assert!(matches!(said(0), Client::KeptUp(said) if said.contains("all requests left within 3.00 ms")));
        assert!(matches!(said(10), Client::KeptUp(said) if said.contains("10 of 1000 requests (1.0%)")));
        assert!(matches!(said(11), Client::Late(said) if said.contains("(p99 500 µs, at most 3.00 ms)")));
    }

    #[test]
    fn a_slot_that_stays_empty_for_long_is_the_client_s_fault() {
        let said = |p99| closed_loop(&delays(200, 0.01, p99, 3.0));
        assert!(matches!(said(0.05), Client::KeptUp(said) if said.contains("within 50 µs (p99), 3.00 ms")));
        assert!(matches!(said(1.5), Client::Late(said) if said.contains("1.50 ms")));
    }

    #[test]
    fn few_requests_have_no_99th_percentile() {
        let few = |p50, max| [open_loop(&delays(199, p50, 9.0, max), 3), closed_loop(&delays(199, p50, 9.0, max))];
        for client in few(0.02, 30.0) {
            assert!(
                matches!(&client, Client::Unclear(said) if said.contains("not judged") && !said.contains("p99")),
                "{client:?}"
            );
        }
        assert!(few(2.0, 30.0).iter().all(|client| matches!(client, Client::Late(_))));
        let kept = Delays { queued: 500, ..delays(10, 2.0, 9.0, 30.0) };
        let said = open_loop(&kept, 8);
        assert!(matches!(&said, Client::Unclear(said) if said.contains("8 of 10 requests that found a free slot")));
        assert!(few(0.02, 0.9).iter().all(|client| matches!(client, Client::KeptUp(_))));
    }

    #[test]
    fn failures_are_no_evidence_for_a_client() {
        let kept = || open_loop(&delays(1000, 0.01, 0.5, 3.0), 0);
        assert_eq!(in_spite_of(kept(), false), kept());
        assert!(matches!(in_spite_of(kept(), true), Client::Unclear(said) if said.contains("most requests failed")));
        let late = || open_loop(&delays(1000, 0.01, 0.5, 3.0), 500);
        assert_eq!(in_spite_of(late(), true), late());
    }

    #[test]
    fn a_wait_is_said_to_be_that_of_the_limit_that_was_set() {
        let of = |phase: Value| limits(Some(&phase));
        assert_eq!(of(json!({"concurrency": 3, "prefill_concurrency": 1})), "--concurrency and --prefill-concurrency");
        assert_eq!(of(json!({"prefill_concurrency": 1})), "--prefill-concurrency");
        assert_eq!(of(json!({"concurrency": 3})), "--concurrency");
    }
}
