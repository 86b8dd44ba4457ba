//! Phases and slices.

use crate::compare::{agree, compare_json, compare_metric, is_metric, keys};
use crate::source::{export, log_of, read};
use maser_engine::metric;
use serde_json::Value;

#[test]
fn phases_have_summaries_of_their_own() {
    let run = "chat_stream_concurrency";
    let exported = export(&log_of(run, true));
    let theirs: Value = serde_json::from_str(&read(run, "phase_manifest.json")).unwrap();
    let ours: Value = serde_json::from_str(&exported.text("phase_manifest.json")).unwrap();
    assert_eq!(ours["schema_version"], theirs["schema_version"]);
    for (ours, theirs) in ours["phases"].as_array().unwrap().iter().zip(theirs["phases"].as_array().unwrap()) {
        let absent = ["server_metrics_json"];
        let wanted: Vec<&str> = keys(theirs).into_iter().filter(|k| !absent.contains(k)).collect();
        // The phase's ledger is ours alone.
        let given: Vec<&str> = keys(ours).into_iter().filter(|k| *k != "ledger").collect();
        assert_eq!(given, wanted);
        for key in wanted {
            assert_eq!(ours[key], theirs[key], "{key}");
        }
    }
    // The reference's whole is its profiling phase here, and its warm-up metrics are its warm-up phase.
    let whole: Value = serde_json::from_str(&read(run, "profile_export_aiperf.json")).unwrap();
    let phase = |name: &str| -> Value {
        serde_json::from_str(&exported.text(&format!("phases/{name}/profile_export_aiperf.json"))).unwrap()
    };
    let mut profiling = whole.clone();
    profiling.as_object_mut().unwrap().shift_remove("warmup_metrics");
    compare_json(&phase("profiling"), &profiling);
    for (tag, metric) in whole["warmup_metrics"].as_object().unwrap() {
        compare_metric(tag, &phase("warmup")[tag], metric, &whole);
    }
    let csv = exported.text("phases/profiling/profile_export_aiperf.csv");
    assert!(csv.starts_with("Metric,avg,") && !csv.contains("GPU_Index") && csv.ends_with("\r\n"));
}

#[test]
fn slices_have_the_reference_s_rows_and_values() {
    let run = "chat_stream_concurrency";
    let exported = export(&log_of(run, true));
    let name = "profile_export_aiperf_timeslices.json";
    let ours: Value = serde_json::from_str(&exported.text(name)).unwrap();
    let theirs: Value = serde_json::from_str(&read(run, name)).unwrap();
    assert_eq!(ours["input_config"], theirs["input_config"]);
    let (a, b) = (ours["timeslices"].as_array().unwrap(), theirs["timeslices"].as_array().unwrap());
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        for edge in ["start_ns", "end_ns"] {
            assert!(a[edge].as_u64().unwrap().abs_diff(b[edge].as_u64().unwrap()) <= 256, "a step of its clock");
        }
        for tag in keys(b).into_iter().filter(|key| is_metric(&b[key])) {
            compare_metric(tag, &a[tag], &b[tag], &theirs);
        }
    }
    let name = "profile_export_aiperf_timeslices.csv";
    compare_slice_rows(&exported.text(name), &read(run, name));
}

fn compare_slice_rows(ours: &str, theirs: &str) {
    let own = |row: &[&str]| metric::METRICS.iter().any(|m| m.has(metric::flag::OURS) && m.header == row[3]);
    // No name of a metric holds a comma.
    let rows = |text: &str| -> Vec<Vec<String>> {
        assert!(!text.replace("\r\n", "").contains(['\r', '\n']), "every line ends in CRLF");
        let rows = text.lines().map(|line| line.split(',').collect::<Vec<_>>()).filter(|row| !own(row));
        rows.map(|row| row.into_iter().map(str::to_owned).collect()).collect()
    };
    let (ours, theirs) = (rows(ours), rows(theirs));
    let known = |rows: &[Vec<String>], row: &[String]| rows.iter().any(|r| r[0] == row[0] && r[3..6] == row[3..6]);
    for row in &ours {
        // Latency from the due time is in the reference's whole, but not in its slices.
        let more = ["Effective Latency (CO-aware)", "Credit-to-Start Latency"].contains(&row[3].as_str());
        assert!(more || known(&theirs, row), "{row:?} is new");
    }
    let shared: Vec<_> = ours.iter().filter(|row| known(&theirs, row)).collect();
    assert_eq!(shared.len(), theirs.len());
    for (a, b) in shared.iter().zip(&theirs) {
        assert_eq!((&a[0], &a[3..6]), (&b[0], &b[3..6]));
        if a[3] == "Metric" {
            continue;
        }
        let tag = metric::METRICS.iter().find(|m| m.header == b[3]).unwrap().tag;
        let (x, y): (f64, f64) = (a[6].parse().unwrap(), b[6].parse().unwrap());
        assert!(agree(tag, &b[5], x, y) || (x - y).abs() < 0.011, "{tag}.{}: {x}, the reference has {y}", b[5]);
    }
}
