//! How near our files must be to the reference's, and what is knowingly different.

use crate::source::{Exported, export, log_of, phases, read, stamp};
use maser_engine::metric::{self, Curve, Value as Source};
use serde_json::Value;

/// Keys of the reference that are knowingly not written.
pub(crate) const ABSENT: [(&str, &str); 1] = [("telemetry_data", "there are no GPU readings in a record log yet")];

/// The endpoint of the run makes no tokens.
pub(crate) fn without_tokens(summary: &Value) -> bool {
    summary["input_config"]["endpoint"]["type"] == "embeddings"
}

/// Metrics whose values are not compared where a body came in one piece: the reference ends the transfer at that piece but
/// the request some microseconds later, which its records do not tell apart.
pub(crate) fn ends_with_its_piece(tag: &str, summary: &Value) -> bool {
    without_tokens(summary) && ["http_req_receiving", "http_req_total"].contains(&tag)
}

/// Whether a key of the reference's is knowingly not written. Of an endpoint without tokens the reference gives an output
/// length of 0 for every request, although it registers the metric for endpoints that produce tokens alone: an answer that
/// is no text has no length, and 0 would go into every mean over runs.
pub(crate) fn is_absent(key: &str, summary: &Value) -> bool {
    ABSENT.iter().any(|(absent, _)| *absent == key) || without_tokens(summary) && key == "output_sequence_length"
}

/// The reference's rates of a cancelled run are over the time from its first request to its last answer, while its curves
/// and all else are over the phase's window; ours are all over the window.
pub(crate) fn rate_over_the_window(tag: &str, theirs: f64, summary: &Value) -> f64 {
    let metric = metric::find(tag).unwrap();
    if summary["was_cancelled"] != true || !metric.unit.ends_with("/sec") || !matches!(metric.value, Source::Run(_)) {
        return theirs;
    }
    let ends = phases("sigint", summary)[0];
    theirs * summary["benchmark_duration"]["avg"].as_f64().unwrap() / ((ends.2 - ends.1) as f64 * 1e-9)
}

/// Sentences of the reference in the place of which stand our own.
pub(crate) const SENTENCES: [&str; 1] = ["incomplete_reason"];

/// Keys that are ours alone, beside the metrics that say so of themselves.
pub(crate) const OURS: [&str; 2] = ["maser", "maser_version"];

pub(crate) fn is_ours(key: &str) -> bool {
    OURS.contains(&key) || metric::find(key).is_some_and(|m| m.has(metric::flag::OURS))
}

/// How far a figure may be from the reference's.
///
/// The reference keeps wall-clock nanoseconds in doubles, whose step there is 256 ns: whatever it computes from them is
/// off by that much, and for a step of its clock neighbouring chunks overlap or leave a gap that never was: extremes of what
/// follows chunks (rates of decoding and their share a user, tokens in flight) lie further out than the truth.
pub(crate) enum Agreement {
    /// To the last digits of a double.
    Exact,
    /// Within three steps of the reference's clock, in the metric's display unit.
    Clock(f64),
    /// Relative, or this much absolute.
    Curve,
    /// An extreme of a curve along chunks, no further out than the reference's.
    Within,
    /// The key is there; the number depends on what the records do not say.
    Present,
}

pub(crate) fn agreement(tag: &str, figure: &str) -> Agreement {
    const STEPS_NS: f64 = 3.0 * 256.0;
    let metric = metric::find(tag).unwrap_or_else(|| panic!("{tag} is no metric of ours"));
    match tag {
        "credit_to_start_latency" | "effective_latency" => {
            return Agreement::Clock(STEPS_NS * 1e-6);
        }
        "benchmark_duration" => return Agreement::Clock(STEPS_NS * 1e-9),
        // The reference measures from the trace's own stamps, see `a_replay_s_lag_is_measured_from_the_trace_s_own_times`.
        "replay_sched_lag_p50" | "replay_sched_lag_p90" | "replay_sched_lag_p99" => {
            return Agreement::Present;
        }
        _ => {}
    }
    let along_chunks = |curve: Curve| {
        let rates = matches!(curve, Curve::DecodeThroughput | Curve::DecodeThroughputPerUser);
        rates || curve == Curve::TokensInFlight && figure == "max"
    };
    match metric.value {
        Source::Effective(curve) | Source::Active(curve) if ["min", "max"].contains(&figure) && along_chunks(curve) => {
            Agreement::Within
        }
        Source::Effective(_) | Source::Active(_) => Agreement::Curve,
        // A window known to a nanosecond, from a start known to a microsecond.
        _ => Agreement::Exact,
    }
}

pub(crate) fn agree(tag: &str, figure: &str, ours: f64, theirs: f64) -> bool {
    let off = (ours - theirs).abs();
    // The clock's steps are also summed.
    let sums = if figure == "sum" { 100.0 } else { 1.0 };
    let curve = 1e-3 * theirs.abs().max(1.0);
    match agreement(tag, figure) {
        Agreement::Exact => off <= 2e-9 * theirs.abs().max(1e-3),
        Agreement::Clock(by) => off <= by * sums,
        Agreement::Curve => off <= curve,
        Agreement::Within if figure == "min" => ours >= theirs - curve,
        Agreement::Within => ours <= theirs + curve,
        Agreement::Present => true,
    }
}

pub(crate) fn is_metric(value: &Value) -> bool {
    value.get("unit").is_some()
}

pub(crate) fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

pub(crate) fn compare_metric(tag: &str, ours: &Value, theirs: &Value, summary: &Value) {
    assert_eq!(keys(ours), keys(theirs), "keys of {tag}");
    assert_eq!(ours["unit"], theirs["unit"], "unit of {tag}");
    assert_eq!(ours["count"], theirs["count"], "count of {tag}");
    for figure in keys(theirs) {
        if ends_with_its_piece(tag, summary) {
            continue;
        }
        if let Some(expected) = theirs[figure].as_f64() {
            let expected = rate_over_the_window(tag, expected, summary);
            let got = ours[figure].as_f64().unwrap();
            assert!(agree(tag, figure, got, expected), "{tag}.{figure}: {got}, the reference has {expected}");
        }
    }
}

pub(crate) fn compare_json(ours: &Value, theirs: &Value) {
    let absent = |key: &&str| is_absent(key, theirs);
    let wanted: Vec<&str> = keys(theirs).into_iter().filter(|k| !absent(k)).collect();
    for key in &wanted {
        assert!(ours.get(*key).is_some(), "{key} is missing");
    }
    for key in keys(ours) {
        assert!(wanted.contains(&key) || is_ours(key), "{key} is new");
    }
    // The reference declares the order up to `warmup_metrics`; what follows comes in the order of a hash table.
    let fixed = |of: &Value| -> Vec<String> {
        let all = keys(of);
        let end = all.iter().position(|k| *k == "end_time").unwrap();
        let known = all[..=end].iter().filter(|k| !is_ours(k) && !absent(k));
        known.map(|k| (*k).to_owned()).collect()
    };
    assert_eq!(fixed(ours), fixed(theirs));
    for key in wanted {
        match key {
            // Of a cancelled run the reference writes when it was wound up, and divides rates by an earlier end; ours
            // writes that one.
            "end_time" if theirs["was_cancelled"] == true => assert!(stamp(&ours[key]) <= stamp(&theirs[key])),
            "start_time" | "end_time" => {
                let off = stamp(&ours[key]).abs_diff(stamp(&theirs[key]));
                assert!(off <= 1000, "{key}: {off} ns");
            }
            "warmup_metrics" => {
                for (tag, metric) in theirs[key].as_object().unwrap() {
                    compare_metric(tag, &ours[key][tag], metric, theirs);
                }
            }
            _ if SENTENCES.contains(&key) => assert!(ours[key].is_string(), "{key}"),
            _ if is_metric(&theirs[key]) => compare_metric(key, &ours[key], &theirs[key], theirs),
            _ => assert_eq!(ours[key], theirs[key], "{key}"),
        }
    }
}

/// The tag of a CSV row by its name.
pub(crate) fn tag_of(name: &str) -> &'static str {
    let metric = metric::METRICS.iter().find(|m| name == m.header || name == format!("{} ({})", m.header, m.display));
    metric.unwrap_or_else(|| panic!("{name} is no row of ours")).tag
}

pub(crate) fn compare_csv(ours: &str, theirs: &str, summary: &Value) {
    assert!(!ours.replace("\r\n", "").contains(['\r', '\n']), "every line ends in CRLF");
    let known = |line: &&str| {
        let name = line.split(',').next().unwrap_or_default();
        let shown = |tag: &str| metric::find(tag).map_or("", |m| m.header);
        let absent = keys(summary).into_iter().filter(|key| is_absent(key, summary)).map(shown);
        !absent.into_iter().any(|header| name == header || name.starts_with(&format!("{header} (")))
            && !metric::METRICS.iter().any(|m| m.has(metric::flag::OURS) && name.starts_with(m.header))
    };
    let ours: Vec<&str> = ours.split("\r\n").filter(known).collect();
    let theirs: Vec<&str> = theirs.split("\r\n").filter(known).collect();
    let names = |lines: &[&str]| -> Vec<String> {
        lines.iter().map(|l| l.split(',').next().unwrap_or("").to_owned()).collect()
    };
    assert_eq!(names(&ours), names(&theirs));
    for (ours, theirs) in ours.iter().zip(&theirs) {
        if theirs.is_empty() || theirs.starts_with("Metric,") || theirs.starts_with("Endpoint,") {
            assert_eq!(ours, theirs);
            continue;
        }
        compare_csv_row(ours, theirs, summary);
    }
}

pub(crate) fn compare_csv_row(ours: &str, theirs: &str, summary: &Value) {
    let heads = "Metric,avg,min,max,sum,p1,p5,p10,p25,p50,p75,p90,p95,p99,std";
    let (a, b): (Vec<_>, Vec<_>) = (ours.split(',').collect(), theirs.split(',').collect());
    assert_eq!(a.len(), b.len(), "{theirs}");
    let tag = tag_of(b[0]);
    if ends_with_its_piece(tag, summary) {
        return;
    }
    for ((a, b), figure) in a.iter().zip(&b).zip(heads.split(',')).skip(1) {
        let moved = b.parse().is_ok_and(|y: f64| rate_over_the_window(tag, y, summary) != y);
        if matches!(agreement(tag, figure), Agreement::Exact) && !moved || b.is_empty() {
            assert_eq!(a, b, "{tag}.{figure}");
        } else {
            let (x, y): (f64, f64) = (a.parse().unwrap(), b.parse().unwrap());
            let y = rate_over_the_window(tag, y, summary);
            assert!(agree(tag, figure, x, y) || (x - y).abs() < 0.011, "{tag}.{figure}: {a}, the reference has {b}");
        }
    }
}

pub(crate) fn compare(run: &str) -> Exported {
    let exported = export(&log_of(run, true));
    for result in &exported.results {
        assert!(result.is_ok(), "{result:?}");
    }
    let file = "profile_export_aiperf.json";
    let ours: Value = serde_json::from_str(&exported.text(file)).unwrap();
    let theirs = serde_json::from_str(&read(run, file)).unwrap();
    compare_json(&ours, &theirs);
    let file = "profile_export_aiperf.csv";
    compare_csv(&exported.text(file), &read(run, file), &theirs);
    exported
}
