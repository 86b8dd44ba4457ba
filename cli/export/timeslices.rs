//! Results over time: `profile_export_aiperf_timeslices.csv` in long format, and `….json` with an object a slice.

use super::json;
use csv::{Terminator, WriterBuilder};
use maser_engine::metric::PERCENTILES;
use maser_engine::report::{Entry, Report, Slice};
use serde_json::{Map, Value};
use std::io::{self, Write};

/// One row a figure, the metrics of a slice by tag; CRLF line ends as the reference writes.
pub(super) fn write_csv(slices: &[Slice], out: &mut impl Write) -> io::Result<()> {
    let mut rows = WriterBuilder::new().terminator(Terminator::CRLF).from_writer(out);
    rows.write_record(["Timeslice", "Start_NS", "End_NS", "Metric", "Unit", "Stat", "Value"])?;
    for slice in slices {
        let place = [slice.index.to_string(), slice.start_ns.to_string(), slice.end_ns.to_string()];
        let mut entries: Vec<&Entry> = slice.metrics.iter().collect();
        entries.sort_by_key(|e| e.metric.tag);
        for entry in entries {
            for (figure, value) in figures(entry) {
                let [index, start, end] = &place;
                rows.write_record([index, start, end, entry.metric.header, entry.metric.display, &figure, &value])?;
            }
        }
    }
    rows.flush()
}

fn figures(entry: &Entry) -> impl Iterator<Item = (String, String)> {
    let s = &entry.summary;
    let mut all = vec![("avg".to_owned(), s.avg), ("min".to_owned(), s.min), ("max".to_owned(), s.max)];
    all.push(("sum".to_owned(), s.sum));
    all.extend(PERCENTILES.iter().map(|p| format!("p{p}")).zip(s.percentiles));
    all.push(("std".to_owned(), s.std));
    all.into_iter().filter_map(|(figure, value)| Some((figure, format!("{:.2}", value?))))
}

/// `{"timeslices": [{start_ns, end_ns, …}, …], "input_config": …}`.
pub(super) fn write_json(report: &Report, slices: &[Slice], out: &mut impl Write) -> io::Result<()> {
    let mut document = Map::new();
    document.insert("timeslices".into(), slices.iter().map(object).collect::<Vec<_>>().into());
    document.insert("input_config".into(), report.run.header.input_config.clone());
    serde_json::to_writer_pretty(out, &document).map_err(io::Error::from)
}

fn object(slice: &Slice) -> Value {
    let mut map = Map::new();
    map.insert("start_ns".into(), slice.start_ns.into());
    map.insert("end_ns".into(), slice.end_ns.into());
    if !slice.is_complete {
        map.insert("is_complete".into(), false.into());
    }
    map.extend(slice.metrics.iter().map(|e| (e.metric.tag.to_owned(), json::metric(e))));
    map.into()
}
