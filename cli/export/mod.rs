//! The files a run leaves behind. Every one is a pure function of the report and its log.
//!
//! A file is written under a temporary name beside its own and renamed when it is whole ([`directory`]); one that cannot be
//! written becomes a sentence and the others are still tried.

pub mod console;
mod csv;
pub mod directory;
pub mod headline;
mod histogram;
pub mod inputs;
mod json;
mod jsonl;
mod outputs;
mod parquet;
mod phases;
mod raw;
pub mod summary;
mod timeslices;
mod trace;
pub mod verdict;

use directory::Readers;
use maser_engine::clock::{Nanos, SECOND};
use maser_engine::log::{Header, Log};
use maser_engine::report::{Options, Report, Slice};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Which files are written beside those that every run leaves, and how.
#[derive(Debug, Clone, Copy, Default)]
pub struct ExportOptions {
    /// The records as Parquet.
    pub parquet: bool,
    /// The latencies as a histogram log.
    pub hdr: bool,
    /// The texts of the answers.
    pub outputs: bool,
    /// Results over time, in slices of so many nanoseconds.
    pub slices: Option<Nanos>,
    /// Seconds east of UTC for the stamps of the summary; `None` for this machine's local time, as the reference writes
    /// them.
    pub utc_offset: Option<i32>,
}

impl ExportOptions {
    /// What the run asked for.
    pub fn of(header: &Header) -> Self {
        let asked = |key: &str| header.input_config["artifacts"][key] == true;
        let slice = header.input_config["artifacts"]["slice_duration"].as_f64();
        Self {
            parquet: asked("parquet"),
            hdr: asked("hdr"),
            outputs: asked("export_outputs_json"),
            slices: slice.map(|seconds| (seconds * SECOND as f64).round() as Nanos),
            utc_offset: None,
        }
    }
}

/// A file that stands whole under its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// What the list at the end of a run calls it.
    pub label: &'static str,
    /// Where it stands.
    pub path: PathBuf,
}

/// The names of one run's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The summary for spreadsheets.
    pub csv: String,
    /// The summary.
    pub json: String,
    /// One line a request.
    pub jsonl: String,
    /// What was sent and received, one line a request.
    pub raw: String,
    /// Results over time, for spreadsheets.
    pub slices_csv: String,
    /// Results over time.
    pub slices_json: String,
    /// One row a request.
    pub parquet: String,
    /// Histograms over time.
    pub hdr: String,
    /// The tables as text.
    pub console: String,
}

/// Endings that belong to a file of the family and not to its prefix, longest first.
const FAMILY: [&str; 17] = [
    "_network_latency.jsonl",
    "_server_metrics.parquet",
    "_server_metrics.jsonl",
    "_server_metrics.json",
    "_server_metrics.csv",
    "_gpu_telemetry.jsonl",
    "_timeslices.json",
    "_timeslices.csv",
    "_accuracy.jsonl",
    "_console.txt",
    "_raw.jsonl",
    ".parquet",
    ".hlog",
    ".jsonl",
    ".json",
    ".csv",
    ".txt",
];

/// The prefix without an ending that belongs to a file of the family; empty if there is nothing else.
pub fn strip_ending(prefix: &str) -> &str {
    FAMILY.iter().find_map(|ending| prefix.strip_suffix(ending)).unwrap_or(prefix)
}

/// The prefix without an ending of the family, if it is the beginning of a file name.
pub fn prefix_of(typed: &str) -> Option<&str> {
    let bare = strip_ending(typed);
    (!bare.is_empty() && !bare.contains(['/', '\0']) && bare != "." && bare != "..").then_some(bare)
}

impl Names {
    /// All of them.
    fn into_all(self) -> [String; 9] {
        let Self { csv, json, jsonl, raw, slices_csv, slices_json, parquet, hdr, console } = self;
        [csv, json, jsonl, raw, slices_csv, slices_json, parquet, hdr, console]
    }

    /// The default names, or those of `--profile-export-prefix`; an ending of the family is taken off the prefix first.
    pub fn new(prefix: Option<&str>) -> Self {
        let bare = prefix.map(|p| Some(strip_ending(p)).filter(|bare| !bare.is_empty()).unwrap_or(p));
        match bare.filter(|p| !p.is_empty()) {
            Some(prefix) => Self {
                csv: format!("{prefix}.csv"),
                json: format!("{prefix}.json"),
                jsonl: format!("{prefix}.jsonl"),
                raw: format!("{prefix}_raw.jsonl"),
                slices_csv: format!("{prefix}_timeslices.csv"),
                slices_json: format!("{prefix}_timeslices.json"),
                parquet: format!("{prefix}.parquet"),
                hdr: format!("{prefix}.hlog"),
                console: format!("{prefix}_console.txt"),
            },
            None => Self {
                csv: "profile_export_aiperf.csv".to_owned(),
                json: "profile_export_aiperf.json".to_owned(),
                jsonl: "profile_export.jsonl".to_owned(),
                raw: "profile_export_raw.jsonl".to_owned(),
                slices_csv: "profile_export_aiperf_timeslices.csv".to_owned(),
                slices_json: "profile_export_aiperf_timeslices.json".to_owned(),
                parquet: "profile_export.parquet".to_owned(),
                hdr: "profile_export.hlog".to_owned(),
                console: "profile_export_console.txt".to_owned(),
            },
        }
    }
}

/// Columns of the console text that is kept as a file.
const CONSOLE_FILE_WIDTH: usize = 140;

/// Slices that are written at most: about half a gigabyte of metrics.
pub const MOST_SLICES: u64 = 20_000;

/// Writes every file of the run into `dir`, in the order in which the run lists them. `how` is what the report was built
/// with.
pub fn write_all(
    report: &Report,
    log: &Log,
    dir: &Path,
    options: &ExportOptions,
    how: &Options<'_>,
) -> Vec<Result<Written, String>> {
    let header = &report.run.header;
    let names = Names::new(header.export_prefix.as_deref());
    let mut results = vec![
        file("CSV Export", dir.join(&names.csv), |out| csv::write_run(report, out)),
        file("JSON Export", dir.join(&names.json), |out| json::write(report, options, out)),
    ];
    if header.export_level != "summary" {
        results.push(file("Record Export", dir.join(&names.jsonl), |out| jsonl::write(report, log, out)));
    }
    if header.export_level == "raw" {
        results.push(private_file("Raw Records", dir.join(&names.raw), |out| raw::write(report, log, out)));
    }
    if options.parquet {
        results.push(file("Parquet Export", dir.join(&names.parquet), |out| parquet::write(report, log, out)));
    }
    if options.hdr {
        results.push(file("Histogram Log", dir.join(&names.hdr), |out| histogram::write(report, log, out)));
    }
    if options.outputs {
        results
            .push(private_file("Outputs JSON", dir.join(outputs::FILE_NAME), |out| outputs::write(report, log, out)));
    }
    if let Some(duration) = options.slices {
        let slices = report.slices(log, duration, how);
        match slices.left() {
            0..=MOST_SLICES => {
                let slices: Vec<Slice> = slices.collect();
                results.push(file("Timeslice CSV Export", dir.join(&names.slices_csv), |out| {
                    timeslices::write_csv(&slices, out)
                }));
                results.push(file("Timeslice JSON Export", dir.join(&names.slices_json), |out| {
                    timeslices::write_json(report, &slices, out)
                }));
            }
            n => results.push(Err(format!(
                "--slice-duration {}: {n} slices, of which each has every metric; at most {MOST_SLICES} are written. \
                 maser report DIR --slice-duration SECONDS writes longer ones.",
                duration as f64 / SECOND as f64
            ))),
        }
    }
    if header.phases.len() > 1 && report.window.is_none() {
        results.extend(phases::write_all(report, &report.phases(log, how), dir, options));
    }
    results.push(file("Console Export", dir.join(&names.console), |out| {
        out.write_all(console::render(report, CONSOLE_FILE_WIDTH, false).as_bytes())
    }));
    results
}

/// A text from a server as a terminal may show it: no control characters, and none that turn the direction of a line.
pub fn printable(text: &str) -> String {
    let hidden = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if hidden(c) { ' ' } else { c }).collect()
}

/// Commas between groups of three digits of the whole part.
fn thousands(number: &str) -> String {
    let (sign, rest) = match number.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", number),
    };
    let whole = rest.find('.').unwrap_or(rest.len());
    let mut out = String::from(sign);
    for (k, digit) in rest.chars().enumerate() {
        if k > 0 && k < whole && (whole - k).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Stands for a space at which the console breaks no line, until the line is made.
const GLUE: char = '\u{a0}';

/// A text that the console keeps on one line if a line has room for it.
fn unbroken(text: &str) -> String {
    text.chars().map(|c| if c == ' ' { GLUE } else { c }).collect()
}

/// Writes one file of figures whole or not at all.
fn file(
    label: &'static str,
    path: PathBuf,
    content: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<Written, String> {
    directory::file(label, path, Readers::Umask, content)
}

/// Writes one file of what was sent or answered, which is for its owner alone.
fn private_file(
    label: &'static str,
    path: PathBuf,
    content: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<Written, String> {
    directory::file(label, path, Readers::Owner, content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_loses_the_endings_of_the_family() {
        for prefix in
            ["foo", "foo.csv", "foo.json", "foo.jsonl", "foo_raw.jsonl", "foo_console.txt", "foo_timeslices.csv"]
        {
            let names = Names::new(Some(prefix));
            assert_eq!(names.json, "foo.json", "{prefix}");
            assert_eq!(names.console, "foo_console.txt", "{prefix}");
        }
        assert_eq!(Names::new(Some(".csv")).csv, ".csv.csv");
        assert_eq!(Names::new(None).jsonl, "profile_export.jsonl");
    }
}
