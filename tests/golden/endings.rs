//! Runs that did not end as they should.

use crate::source::{export, log_of};
use maser::export::console;
use maser_engine::log::{Kind, MAGIC, put_block, put_json, put_record};
use maser_engine::record::{Outcome, part, put_part};
use serde_json::Value;

#[test]
fn a_killed_run_is_reported_from_its_records() {
    let exported = export(&log_of("rate_goodput", false));
    let report = &exported.report;
    assert!(!report.is_complete() && !report.was_cancelled);
    assert_eq!(report.valid, 100);
    // First start to last end, a little less than the phase's own window.
    assert!((5.3..5.4).contains(&report.window_seconds));
    let json: Value = serde_json::from_str(&exported.text("profile_export_aiperf.json")).unwrap();
    assert!(json["incomplete_reason"].as_str().unwrap().contains("killed"));
    assert!(console::render(report, 100, false).contains("INCOMPLETE RESULTS"));
    assert_eq!(json["is_complete"], false);
}

#[test]
fn a_run_in_which_all_requests_failed_is_written_all_the_same() {
    let source = export(&log_of("errors_30pct", true));
    let mut bytes = MAGIC.to_vec();
    put_json(&mut bytes, Kind::Header, &source.log.header);
    let (mut body, mut count) = (Vec::new(), 0);
    for (mut record, payload) in source.log.records() {
        if record.outcome() != Outcome::Ok {
            let mut parts = Vec::new();
            put_part(&mut parts, part::ERROR, payload.error);
            record.payload_len = parts.len() as u32;
            put_record(&mut body, &record, &parts);
            count += 1;
        }
    }
    put_block(&mut bytes, Kind::Records, count, &body);
    let exported = export(&bytes);
    assert!(exported.report.all_failed());
    assert!(exported.results.iter().all(Result::is_ok));
    let json: Value = serde_json::from_str(&exported.text("profile_export_aiperf.json")).unwrap();
    assert_eq!(json["request_error_rate"]["avg"], 100.0);
    assert_eq!(json["error_request_count"]["avg"], 12.0);
    assert_eq!(json["error_summary"][0]["error_details"]["type"], "HTTP Error");
    assert!(json.get("request_latency").is_none());
}

#[test]
fn an_empty_log_has_an_empty_report() {
    let source = export(&log_of("errors_30pct", true));
    let mut bytes = MAGIC.to_vec();
    put_json(&mut bytes, Kind::Header, &source.log.header);
    let exported = export(&bytes);
    assert!(exported.report.is_empty() && !exported.report.all_failed());
    assert!(exported.results.iter().all(Result::is_ok));
}
