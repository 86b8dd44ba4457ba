//! The console.

use crate::source::{export, log_of, read};
use maser::export::console;
use maser_engine::metric::{self, Group};

/// First cells of the rows of every table, by the table's title; a label on two lines is one.
fn tables(text: &str) -> Vec<(String, Vec<String>)> {
    let mut all: Vec<(String, Vec<String>)> = Vec::new();
    let (mut before, mut inside) = ("", false);
    for line in text.lines() {
        inside &= !line.starts_with('└');
        if line.starts_with('┏') {
            let title = before.trim();
            all.push((title.split_once(" | ").map_or(title, |(_, t)| t).to_owned(), Vec::new()));
            inside = true;
        } else if inside
            && let Some(row) = line.strip_prefix('│')
            && let Some((_, rows)) = all.last_mut()
        {
            let cells: Vec<&str> = row.split('│').map(str::trim).collect();
            match (cells[1].is_empty(), rows.last_mut()) {
                (true, Some(label)) => *label = format!("{label} {}", cells[0]),
                _ => rows.push(cells[0].to_owned()),
            }
        }
        before = line;
    }
    all
}

#[test]
fn the_console_has_the_reference_s_tables_and_rows_in_its_order() {
    for run in ["chat_stream_concurrency", "errors_30pct", "fixed_schedule", "rate_goodput", "multiturn", "embeddings"]
    {
        let exported = export(&log_of(run, true));
        let ours = tables(&exported.text("profile_export_console.txt"));
        let mut theirs = tables(&read(run, "profile_export_console.txt"));
        theirs.retain(|(title, _)| !title.contains("Error"));
        if run == "embeddings" {
            theirs.retain(|(title, _)| !title.contains("Active"));
            // Curves of phases that such requests do not have are zero throughout there, and left out here.
            let is_zero =
                |row: &str| ["Decode", "Prefill", "Effective Total", "In Flight"].iter().any(|s| row.contains(s));
            let absent = |row: &str| row == "Output Sequence Length (tokens)" || is_zero(row);
            theirs.iter_mut().for_each(|(_, rows)| rows.retain(|row| !absent(row)));
        }
        let shared: Vec<_> = ours.iter().filter(|(title, _)| theirs.iter().any(|(t, _)| t == title)).collect();
        let titles = |tables: &[&(String, Vec<String>)]| tables.iter().map(|(t, _)| t.clone()).collect::<Vec<_>>();
        assert_eq!(titles(&shared), titles(&theirs.iter().collect::<Vec<_>>()), "{run}");
        for ((title, ours), (_, theirs)) in shared.into_iter().zip(&theirs) {
            assert_eq!(ours, theirs, "{run}: {title}");
        }
    }
}

#[test]
fn tables_fit_the_terminal_and_colour_only_when_asked() {
    let exported = export(&log_of("errors_30pct", true));
    for width in [60, 80, 100, 140] {
        let text = console::render(&exported.report, width, false);
        assert!(!text.contains('\x1b'));
        for line in text.lines() {
            assert!(line.chars().count() <= width, "{width}: {line}");
        }
    }
    assert!(console::render(&exported.report, 80, true).contains("\x1b["));
}

#[test]
fn the_client_s_own_rows_stand_in_a_table_of_their_own() {
    let exported = export(&log_of("fixed_schedule", true));
    let text = console::render(&exported.report, 140, false);
    let table = &text[text.find("Client Truth").unwrap()..];
    for metric in metric::METRICS.iter().filter(|m| m.group == Group::Client) {
        assert!(table.contains(metric.header), "{}", metric.tag);
    }
    // The reference sent 2 ms and more after its own credits: what it does not show, this does.
    assert!(exported.report.metric("late_request_count").unwrap().summary.avg > Some(0.0));
}

#[test]
fn the_closing_lines_list_what_was_written_and_what_was_not() {
    let mut exported = export(&log_of("errors_30pct", true));
    exported.results.push(Err("disk full.".into()));
    let text = console::closing(&exported.report, &exported.results);
    for part in [
        "CLI Command: aiperf profile",
        "Benchmark Duration: 0.72 sec",
        "CSV Export: ",
        "JSON Export: ",
        "Error: disk full.",
    ] {
        assert!(text.contains(part), "{text}");
    }
}
