//! The verdict above the tables: what was asked for, what came of it, and whether this client was the limit.

use maser_engine::clock::SECOND;
use maser_engine::report::{Grade, Report};
use serde_json::Value;

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
pub(super) fn load(input_config: &Value) -> Option<&Value> {
    input_config["phases"].as_array()?.iter().rev().find(|p| p["kind"] != "warmup")
}

/// One line of the verdict.
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
pub(super) fn verdict(report: &Report) -> (Vec<String>, Option<Line>) {
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
    let mut parts = vec![format!("{}{cut}", count(n, "request"))];
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
    let answered = figure(report, "request_throughput").filter(|_| report.valid > 0);
    parts.extend(answered.map(|rate| format!("answered at {rate:.1} requests/s")));
    let queued = figure(report, "queued_request_count").unwrap_or(0.0);
    if queued > 0.0 {
        let limits = limits(load(&report.run.header.input_config));
        parts.push(format!("{queued:.0} waited for a free slot under {limits}"));
    }
    parts.push(match report.failures() {
        0 => "none failed".to_owned(),
        failed => super::unbroken(&format!("{failed} failed")),
    });
    parts.extend(cuts(report));
    parts.join(", ")
}

/// Requests that were cut and did not fail.
fn cuts(report: &Report) -> Vec<String> {
    let n = report.valid + report.failed;
    let (purpose, end) = (report.abandoned, report.censored);
    let be = |n: u64| if n == 1 { "was" } else { "were" };
    let on_purpose = (purpose > 0).then(|| format!("{purpose} of {n} {} cut on purpose, as asked", be(purpose)));
    let at_end = (end > 0).then(|| format!("{end} {} cut by the end of the run", be(end)));
    on_purpose.into_iter().chain(at_end).collect()
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

/// The client's grade in a word or two.
pub(super) fn grade(grade: Grade) -> &'static str {
    match grade {
        Grade::Limit => "THE LIMIT",
        other => other.name(),
    }
}

/// The client's part in the numbers, as a line; `None` if there was no request.
fn client(report: &Report) -> Option<Line> {
    let verdict = report.verdict.as_ref()?;
    let is_off = matches!(verdict.grade, Grade::Degraded | Grade::Limit);
    Some(Line { text: format!("Client: {}; {}", grade(verdict.grade), verdict.sentence), is_off })
}

pub(super) fn count(n: u64, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
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

    #[test]
    fn a_wait_is_said_to_be_that_of_the_limit_that_was_set() {
        let of = |phase: Value| limits(Some(&phase));
        assert_eq!(of(json!({"concurrency": 3, "prefill_concurrency": 1})), "--concurrency and --prefill-concurrency");
        assert_eq!(of(json!({"prefill_concurrency": 1})), "--prefill-concurrency");
        assert_eq!(of(json!({"concurrency": 3})), "--concurrency");
    }
}
