//! The summary of a run, JSON and CSV.

use crate::compare::compare;
use crate::source::{export, log_of, log_of_trace, read};
use maser::export::console;
use serde_json::Value;

#[test]
fn streamed_chat_with_a_warm_up() {
    let exported = compare("chat_stream_concurrency");
    assert!(exported.report.show_http_trace);
}

#[test]
fn thirty_per_cent_errors() {
    let exported = compare("errors_30pct");
    let table = console::render(&exported.report, 120, false);
    assert!(table.contains("Error Summary") && table.contains("mock failure"));
}

#[test]
fn poisson_arrivals_with_service_levels() {
    compare("rate_goodput");
}

#[test]
fn replay_of_a_fixed_schedule() {
    compare("fixed_schedule");
}

#[test]
fn a_replay_s_lag_is_measured_from_the_trace_s_own_times() {
    let exported = export(&log_of_trace("fixed_schedule"));
    let theirs: Value = serde_json::from_str(&read("fixed_schedule", "profile_export_aiperf.json")).unwrap();
    for tag in ["replay_sched_lag_p50", "replay_sched_lag_p90", "replay_sched_lag_p99", "replay_sched_degraded"] {
        let ours = exported.report.metric(tag).unwrap().summary.avg.unwrap();
        let theirs = theirs[tag]["avg"].as_f64().unwrap();
        // Three steps of the reference's clock.
        assert!((ours - theirs).abs() <= 3.0 * 256e-6, "{tag}: {ours}, the reference has {theirs}");
    }
}

/// The log has the users' words alone: the answers' tokens and the joints come from the report.
#[test]
fn conversations_with_their_history() {
    let exported = compare("multiturn");
    let carried = &exported.report.tokens.carried;
    assert_eq!((carried.iter().min(), carried.iter().max()), (Some(&0), Some(&(3 * 17))));
    // As in the reference, `session_num` counts requests, and the turns of a session share its correlation id.
    let lines = exported.text("profile_export.jsonl");
    let theirs = read("multiturn", "profile_export.jsonl");
    let shared = |text: &str| -> Vec<usize> {
        let ids: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        let ids: Vec<&str> = ids.iter().map(|l: &Value| l["metadata"]["x_correlation_id"].as_str().unwrap()).collect();
        ids.iter().map(|id| ids.iter().position(|other| other == id).unwrap()).collect()
    };
    assert_eq!(shared(&lines), shared(&theirs));
}

#[test]
fn an_endpoint_without_tokens_and_streams() {
    let exported = compare("embeddings");
    assert!(exported.report.metric("output_sequence_length").is_none());
}

#[test]
fn a_run_cut_by_an_interrupt() {
    let exported = compare("sigint");
    assert!(exported.report.was_cancelled && !exported.report.is_complete());
    let text = console::render(&exported.report, 140, false);
    assert!(text.contains("INCOMPLETE RESULTS"));
}

#[test]
fn the_curves_stay_within_what_the_requests_allow() {
    let exported = export(&log_of("chat_stream_concurrency", true));
    let max = |tag: &str| exported.report.metric(tag).unwrap().summary.max.unwrap();
    assert_eq!(max("effective_concurrency"), 8.0);
    assert_eq!(max("effective_decode_concurrency"), 8.0);
    // The reference has 1250: a chunk counted twice within a step of its clock.
    assert_eq!(max("tokens_in_flight"), 1249.0);
}
