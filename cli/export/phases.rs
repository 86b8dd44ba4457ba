//! What a run of several phases leaves beside its whole: `phase_manifest.json`, and for each phase its summaries in
//! `phases/NAME/`.

use super::json::{self, Part};
use super::{ExportOptions, Written, csv, file};
use maser_engine::report::{Ledger, PhaseReport, Report};
use serde_json::{Value, json};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The list of phases.
pub(super) const MANIFEST: &str = "phase_manifest.json";

/// The directory of the phases' own.
const DIR: &str = "phases";

/// Version of the manifest's layout.
const SCHEMA_VERSION: u32 = 1;

const JSON: &str = "profile_export_aiperf.json";
const CSV: &str = "profile_export_aiperf.csv";

/// Writes the manifest and every phase's files.
pub(super) fn write_all(
    report: &Report,
    phases: &[PhaseReport],
    dir: &Path,
    options: &ExportOptions,
) -> Vec<Result<Written, String>> {
    let mut results = Vec::new();
    if let Some(link) = planted_link(dir, phases) {
        return vec![Err(format!("{} is a link, so no file was written there.", link.display()))];
    }
    for (k, phase) in phases.iter().enumerate() {
        let at = dir.join(folder(phases, k));
        let part = Part {
            metrics: &phase.metrics,
            warmup: &[],
            errors: &phase.errors,
            was_cancelled: phase.mark.as_ref().is_some_and(|m| m.cancelled),
            incomplete_reason: phase.mark.is_none().then_some("The run was killed in this phase."),
            span: (phase.start_ns, phase.end_ns),
        };
        results.push(file("Phase CSV Export", at.join(CSV), |out| csv::write(&phase.metrics, out)));
        let own = json::accounts(report, usize::from(phase.phase), &phase.name);
        let json = file("Phase JSON Export", at.join(JSON), |out| json::write_part(report, &part, own, options, out));
        results.push(json);
    }
    results.push(file("Phase Manifest", dir.join(MANIFEST), |out| manifest(report, phases, out)));
    results
}

/// A link where a directory of the phases should be. It may lead anywhere.
fn planted_link(dir: &Path, phases: &[PhaseReport]) -> Option<PathBuf> {
    let folders = (0..phases.len()).map(|k| dir.join(folder(phases, k)));
    let mut all = std::iter::once(dir.join(DIR)).chain(folders);
    all.find(|path| std::fs::symlink_metadata(path).is_ok_and(|about| about.is_symlink()))
}

/// A phase's directory, from the run's: its name, with its number where two phases are called alike.
fn folder(phases: &[PhaseReport], k: usize) -> PathBuf {
    let name = phases[k].name.replace(['/', '\\'], "_");
    let alone = phases.iter().filter(|p| p.name == phases[k].name).count() == 1;
    let safe = !matches!(name.as_str(), "" | "." | "..");
    Path::new(DIR).join(if alone && safe { name } else { format!("{name}_{k}") })
}

/// Keys in alphabetical order, as the reference writes this one file; the ledger is ours.
fn manifest(report: &Report, phases: &[PhaseReport], out: &mut impl Write) -> io::Result<()> {
    let before = |k: usize| phases[..k].iter().filter(|p| !p.warmup).count();
    let row = |(k, phase): (usize, &PhaseReport)| {
        let ledger = report.ledger(usize::from(phase.phase));
        row(phase, &folder(phases, k), before(k), ledger)
    };
    let list: Vec<Value> = phases.iter().enumerate().map(row).collect();
    serde_json::to_writer_pretty(out, &json!({"phases": list, "schema_version": SCHEMA_VERSION}))
        .map_err(io::Error::from)
}

fn row(phase: &PhaseReport, folder: &Path, profiling_index: usize, ledger: Option<&Ledger>) -> Value {
    let kind = if phase.warmup { "warmup" } else { "profiling" };
    let path = |name: &str| folder.join(name).display().to_string();
    json!({
        "end_ns": phase.end_ns,
        "error_request_count": phase.failed,
        "error_summary": phase.errors.iter().map(json::error).collect::<Vec<_>>(),
        "ledger": ledger,
        "metrics_csv": path(CSV),
        "metrics_json": path(JSON),
        "phase_index": phase.phase,
        "phase_kind": kind,
        "phase_name": phase.name,
        "profiling_index": (!phase.warmup).then_some(profiling_index),
        "start_ns": phase.start_ns,
        "successful_request_count": phase.valid,
        "total_request_count": phase.valid + phase.failed,
        "was_cancelled": phase.mark.as_ref().is_some_and(|m| m.cancelled),
    })
}

/// The names that an earlier run may have left below `dir`.
pub(super) fn own(dir: &Path) -> Vec<PathBuf> {
    let folders = std::fs::read_dir(dir.join(DIR)).into_iter().flatten().flatten();
    let folders = folders.filter(|folder| folder.file_type().is_ok_and(|kind| kind.is_dir()));
    let files = folders.flat_map(|folder| [JSON, CSV].map(|name| Path::new(DIR).join(folder.file_name()).join(name)));
    std::iter::once(PathBuf::from(MANIFEST)).chain(files).collect()
}

/// Removes the directories that are empty.
pub(super) fn remove_empty(dir: &Path) {
    let parent = dir.join(DIR);
    for folder in std::fs::read_dir(&parent).into_iter().flatten().flatten() {
        let _ = std::fs::remove_dir(folder.path());
    }
    let _ = std::fs::remove_dir(parent);
}
