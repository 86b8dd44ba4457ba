//! The metric table against the reference's: every tag it registers is a row with its name, units, place and flags, or is
//! listed as absent with a reason. `data/aiperf-metrics.txt` lists what AIPerf 0.13.0 registers (facts read off the
//! program: tag, header, units, order, flags, group, kind).

use maser_engine::metric::{ABSENT, Group, Kind, METRICS, Metric, find, flag};
use std::collections::BTreeSet;

struct Registered {
    kind: &'static str,
    tag: &'static str,
    header: &'static str,
    unit: &'static str,
    display: &'static str,
    order: Option<u32>,
    flags: BTreeSet<&'static str>,
    group: &'static str,
    integer: bool,
}

fn registered() -> Vec<Registered> {
    let rows = include_str!("data/aiperf-metrics.txt").lines().filter(|line| line.contains('|'));
    rows.map(|line| {
        let f: Vec<&str> = line.split(" | ").map(str::trim).collect();
        Registered {
            kind: f[0],
            tag: f[1],
            header: f[2],
            unit: f[4],
            display: if f[5].is_empty() { f[4] } else { f[5] },
            order: f[6].parse().ok(),
            flags: f[7].split('|').flat_map(spelled_out).collect(),
            group: f[8],
            integer: f[9].contains("int"),
        }
    })
    .collect()
}

fn spelled_out(name: &'static str) -> Vec<&'static str> {
    match name {
        "NONE" => vec![],
        "STREAMING_TOKENS_ONLY" => vec!["STREAMING_ONLY", "PRODUCES_TOKENS_ONLY"],
        name => vec![name],
    }
}

fn flags_of(metric: &Metric) -> BTreeSet<&'static str> {
    let names = [
        (flag::STREAMING, "STREAMING_ONLY"),
        (flag::TOKENS, "PRODUCES_TOKENS_ONLY"),
        (flag::INPUT_TOKENS, "TOKENIZES_INPUT_ONLY"),
        (flag::ERROR_ONLY, "ERROR_ONLY"),
        (flag::INTERNAL, "INTERNAL"),
        (flag::NO_RECORD, "NO_INDIVIDUAL_RECORDS"),
        (flag::USAGE_DIFF, "USAGE_DIFF_ONLY"),
        (flag::HTTP_TRACE, "HTTP_TRACE_ONLY"),
        (flag::FIXED_SCHEDULE, "FIXED_SCHEDULE_ONLY"),
        (flag::GOODPUT, "GOODPUT"),
        (flag::LARGER_IS_BETTER, "LARGER_IS_BETTER"),
        (flag::REASONING, "SUPPORTS_REASONING"),
        (flag::EXPERIMENTAL, "EXPERIMENTAL"),
        (flag::NOT_ON_ACCURACY, "DISABLE_ON_ACCURACY"),
        (flag::AUDIO, "SUPPORTS_AUDIO_ONLY"),
        (flag::IMAGES, "SUPPORTS_IMAGE_ONLY"),
        (flag::VIDEO, "PRODUCES_VIDEO_ONLY"),
        (flag::FAILED_AS_INFINITE, "PERCENTILE_INCLUDES_FAILED_REQUESTS"),
    ];
    names.into_iter().filter(|(bit, _)| metric.has(*bit)).map(|(_, name)| name).collect()
}

fn group_of(metric: &Metric) -> &'static str {
    match metric.group {
        Group::None => "none",
        Group::Default => "default",
        Group::Usage => "usage",
        Group::Speculation => "spec_decode",
        Group::Effective => "effective",
        Group::Active => "active",
        Group::Client => "client",
    }
}

/// Flags that differ on purpose.
fn registered_flags(theirs: &Registered) -> BTreeSet<&'static str> {
    let mut flags = theirs.flags.clone();
    if theirs.tag == "goodput" {
        // More of it is better, which its registration does not say.
        flags.insert("LARGER_IS_BETTER");
    }
    flags
}

/// What is wrong with a row of ours, as seen from the reference's.
fn differences(theirs: &Registered, ours: &Metric) -> Vec<String> {
    let mut found = Vec::new();
    let mut same = |what: &str, a: String, b: String| {
        if a != b {
            found.push(format!("{}: {what} is {a}, registered {b}", theirs.tag));
        }
    };
    same("header", ours.header.into(), theirs.header.into());
    same("unit", ours.unit.into(), theirs.unit.into());
    same("display unit", ours.display.into(), theirs.display.into());
    same("order", format!("{:?}", ours.order), format!("{:?}", theirs.order));
    same("group", group_of(ours).into(), theirs.group.into());
    same("flags", format!("{:?}", flags_of(ours)), format!("{:?}", registered_flags(theirs)));
    if ours.kind() == Kind::Record {
        same("kind", "record".into(), theirs.kind.into());
        same("whole", ours.has(flag::INTEGER).to_string(), theirs.integer.to_string());
    }
    found
}

#[test]
fn every_registered_tag_is_a_row_as_registered_or_absent_with_a_reason() {
    let mut wrong = Vec::new();
    for theirs in registered() {
        let absent = ABSENT.iter().find(|a| a.tag == theirs.tag);
        match (find(theirs.tag), absent) {
            (Some(ours), None) => wrong.extend(differences(&theirs, ours)),
            (None, Some(absent)) => assert!(absent.reason.ends_with('.'), "{}", absent.tag),
            (Some(_), Some(_)) => wrong.push(format!("{} is both a row and absent", theirs.tag)),
            (None, None) => wrong.push(format!("{} is neither a row nor absent", theirs.tag)),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_absent_is_no_row_and_says_why_once() {
    let mut seen = BTreeSet::new();
    for absent in ABSENT {
        assert!(find(absent.tag).is_none() && seen.insert(absent.tag), "{}", absent.tag);
        assert!(absent.reason.ends_with('.'), "{}", absent.tag);
    }
}

#[test]
fn rows_beyond_the_registered_ones_are_the_injected_ones_or_ours() {
    let registered: BTreeSet<&str> = registered().iter().map(|r| r.tag).collect();
    for metric in METRICS.iter().filter(|m| !registered.contains(m.tag)) {
        let injected = metric.tag.starts_with("adj_")
            || matches!(metric.group, Group::Effective | Group::Active)
            || metric.tag == "credit_to_start_latency";
        assert!(injected || metric.has(flag::OURS), "{}", metric.tag);
    }
}
