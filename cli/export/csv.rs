//! `profile_export_aiperf.csv`: distributions, then single numbers, rows by tag; CRLF line ends as the reference writes.

use csv::{Terminator, WriterBuilder};
use maser_engine::metric::{Metric, PERCENTILES, Summary};
use maser_engine::report::{Entry, Report};
use std::io::{self, Write};

/// The last section, of GPU readings: its head stands even where there are none.
const GPU_HEAD: &str =
    "Endpoint,GPU_Index,GPU_Name,GPU_UUID,Platform,Metric,avg,min,max,sum,p1,p5,p10,p25,p50,p75,p90,p95,p99,std\r\n";

/// The whole run's: the metrics, and the head of the GPU section.
pub(super) fn write_run(report: &Report, out: &mut impl Write) -> io::Result<()> {
    write(&report.metrics, out)?;
    out.write_all(b"\r\n\r\n")?;
    out.write_all(GPU_HEAD.as_bytes())
}

/// Two sections: distributions, numbers.
pub(super) fn write(metrics: &[Entry], out: &mut impl Write) -> io::Result<()> {
    let mut entries: Vec<&Entry> = metrics.iter().collect();
    entries.sort_by_key(|e| e.metric.tag);
    let (distributions, numbers): (Vec<_>, Vec<_>) = entries.into_iter().partition(|e| e.summary.is_distribution());
    let mut head: Vec<String> = ["Metric", "avg", "min", "max", "sum"].map(Into::into).into();
    head.extend(PERCENTILES.map(|p| format!("p{p}")));
    head.push("std".to_owned());
    section(out, &head, distributions, figures)?;
    out.write_all(b"\r\n")?;
    section(out, &["Metric", "Value"].map(Into::into), numbers, |s| vec![s.avg])
}

fn section(
    out: &mut impl Write,
    head: &[String],
    entries: Vec<&Entry>,
    figures: impl Fn(&Summary) -> Vec<Option<f64>>,
) -> io::Result<()> {
    let mut rows = WriterBuilder::new().terminator(Terminator::CRLF).from_writer(out);
    rows.write_record(head)?;
    for entry in entries {
        let mut row = vec![name(entry.metric)];
        row.extend(figures(&entry.summary).into_iter().map(number));
        rows.write_record(row)?;
    }
    rows.flush()
}

fn figures(s: &Summary) -> Vec<Option<f64>> {
    let mut row = vec![s.avg, s.min, s.max, s.sum];
    row.extend(s.percentiles);
    row.push(s.std);
    row
}

fn name(metric: &Metric) -> String {
    match metric.display {
        "count" | "requests" => metric.header.to_owned(),
        unit => format!("{} ({unit})", metric.header),
    }
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(String::new, |x| format!("{x:.2}"))
}
