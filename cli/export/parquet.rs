//! `profile_export.parquet`: one row a request, warm-up and failures included; a column for each metric of single
//! requests, in the units of the other files.
//!
//! Units stand in the metadata of each field (`unit`, beside the metric's name as `header`), which Arrow readers show, and
//! once more in the file's own key `units` (JSON), which every Parquet reader shows.

use super::jsonl::{self, Failure, Lines, Metadata};
use arrow_array::builder::{
    BooleanBuilder, Float64Builder, Int64Builder, ListBuilder, StringBuilder, StringDictionaryBuilder,
};
use arrow_array::types::Int32Type;
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use maser_engine::log::Log;
use maser_engine::metric::{Metric, Sample, Value};
use maser_engine::record::Payload;
use maser_engine::report::Report;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::Arc;

/// Rows that are built at a time; a row group holds several such batches.
const BATCH: usize = 8192;

/// Rows of a row group: its columns are in memory until it is written.
const GROUP: usize = 1 << 17;

pub(super) fn write(report: &Report, log: &Log, out: &mut (impl Write + Send)) -> io::Result<()> {
    let lines = Lines::new(report, log);
    let mut columns: Vec<Column> = FIELDS.iter().map(Column::of_field).collect();
    columns.extend(lines.shown().map(Column::of_metric));
    let schema = Arc::new(Schema::new(columns.iter().map(Column::field).collect::<Vec<_>>()));
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_max_row_group_row_count(Some(GROUP))
        .set_created_by(format!("maser {}", report.run.header.maser_version))
        .set_key_value_metadata(Some(described(report, &columns)))
        .build();
    let mut writer = ArrowWriter::try_new(out, schema.clone(), Some(properties)).map_err(io::Error::other)?;
    let mut rows = log.records().enumerate().peekable();
    while rows.peek().is_some() {
        for (at, (record, payload)) in rows.by_ref().take(BATCH) {
            let row = Row {
                report,
                metadata: lines.metadata(&record),
                failure: Lines::failure(&record, &payload),
                sample: report.sample(log, at, &record, &payload),
                payload,
            };
            columns.iter_mut().for_each(|column| column.append(&row));
        }
        let cells: Vec<ArrayRef> = columns.iter_mut().map(|c| c.cells.finish()).collect();
        let batch = RecordBatch::try_new(schema.clone(), cells).map_err(io::Error::other)?;
        writer.write(&batch).map_err(io::Error::other)?;
    }
    writer.close().map_err(io::Error::other)?;
    Ok(())
}

/// What the file says of itself.
fn described(report: &Report, columns: &[Column]) -> Vec<KeyValue> {
    let header = &report.run.header;
    let units: serde_json::Map<_, _> =
        columns.iter().filter(|c| !c.unit.is_empty()).map(|c| (c.name.to_owned(), c.unit.into())).collect();
    let pairs = [
        ("maser_version", header.maser_version.clone()),
        ("benchmark_id", header.benchmark_id.clone()),
        ("cli_command", header.cli_command.clone()),
        ("token_source", report.token_source.name().to_owned()),
        ("units", serde_json::Value::from(units).to_string()),
    ];
    pairs.into_iter().map(|(key, value)| KeyValue::new(key.to_owned(), value)).collect()
}

/// One request as the columns see it.
struct Row<'a> {
    report: &'a Report,
    metadata: Metadata<'a>,
    failure: Option<Failure>,
    sample: Sample<'a>,
    payload: Payload<'a>,
}

/// A column that is no metric.
struct FieldOf {
    name: &'static str,
    unit: &'static str,
    read: Read,
}

/// How a cell is read off a row.
#[derive(Clone, Copy)]
enum Read {
    Whole(fn(&Row<'_>) -> Option<u64>),
    Truth(fn(&Row<'_>) -> bool),
    Text(for<'r> fn(&'r Row<'_>) -> Option<&'r str>),
    /// A text of which there are few different ones.
    Name(for<'r> fn(&'r Row<'_>) -> Option<&'r str>),
    Metric(&'static Metric),
}

const fn whole(name: &'static str, unit: &'static str, read: fn(&Row<'_>) -> Option<u64>) -> FieldOf {
    FieldOf { name, unit, read: Read::Whole(read) }
}

const fn other(name: &'static str, read: Read) -> FieldOf {
    FieldOf { name, unit: "", read }
}

/// The keys of the line of a request and of its error, as in the JSON lines.
const FIELDS: [FieldOf; 19] = [
    whole("session_num", "", |r| Some(r.metadata.session_num)),
    other("x_request_id", Read::Text(|r| Some(&r.metadata.x_request_id))),
    other("x_correlation_id", Read::Text(|r| Some(&r.metadata.x_correlation_id))),
    other("conversation_id", Read::Text(|r| Some(r.metadata.conversation_id))),
    whole("turn_index", "", |r| Some(r.metadata.turn_index.into())),
    whole("credit_issued_ns", "ns", |r| Some(r.metadata.credit_issued_ns)),
    whole("request_start_ns", "ns", |r| Some(r.metadata.request_start_ns)),
    whole("request_ack_ns", "ns", |r| r.metadata.request_ack_ns),
    whole("request_end_ns", "ns", |r| Some(r.metadata.request_end_ns)),
    other("worker_id", Read::Name(|r| Some(&r.metadata.worker_id))),
    other("benchmark_phase", Read::Name(|r| Some(r.metadata.benchmark_phase))),
    whole("phase_index", "", |r| Some(r.metadata.phase_index.into())),
    other("phase_name", Read::Name(|r| Some(r.metadata.phase_name))),
    other("was_cancelled", Read::Truth(|r| r.metadata.was_cancelled)),
    whole("http_status", "", |r| Some(r.sample.record.status.into()).filter(|s| *s > 0)),
    whole("local_port", "", |r| Some(r.sample.record.local_port.into()).filter(|p| *p > 0)),
    whole("error_code", "", |r| r.failure.as_ref()?.code.map(u64::from)),
    other("error_type", Read::Name(|r| Some(&r.failure.as_ref()?.r#type))),
    other("error_message", Read::Text(|r| Some(&r.failure.as_ref()?.message))),
];

struct Column {
    name: &'static str,
    unit: &'static str,
    header: &'static str,
    read: Read,
    cells: Cells,
}

impl Column {
    fn of_field(field: &FieldOf) -> Self {
        let cells = match field.read {
            Read::Whole(_) | Read::Metric(_) => Cells::Whole(Int64Builder::new()),
            Read::Truth(_) => Cells::Truth(BooleanBuilder::new()),
            Read::Text(_) => Cells::Text(StringBuilder::new()),
            Read::Name(_) => Cells::Names(StringDictionaryBuilder::new()),
        };
        Self { name: field.name, unit: field.unit, header: "", read: field.read, cells }
    }

    fn of_metric(metric: &'static Metric) -> Self {
        let cells = match metric.value {
            Value::Gaps => Cells::Reals(ListBuilder::new(Float64Builder::new())),
            _ if metric.whole() => Cells::Whole(Int64Builder::new()),
            _ => Cells::Real(Float64Builder::new()),
        };
        Self { name: metric.tag, unit: metric.display, header: metric.header, read: Read::Metric(metric), cells }
    }

    fn field(&self) -> Field {
        let known = [("unit", self.unit), ("header", self.header)];
        let metadata: HashMap<_, _> =
            known.into_iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        Field::new(self.name, self.cells.data_type(), true).with_metadata(metadata)
    }

    fn append(&mut self, row: &Row<'_>) {
        match (&mut self.cells, self.read) {
            (Cells::Whole(cells), Read::Whole(read)) => {
                cells.append_option(read(row).and_then(|x| i64::try_from(x).ok()));
            }
            (Cells::Truth(cells), Read::Truth(read)) => cells.append_value(read(row)),
            (Cells::Text(cells), Read::Text(read)) => cells.append_option(read(row)),
            (Cells::Names(cells), Read::Name(read)) => cells.append_option(read(row)),
            (Cells::Whole(cells), Read::Metric(metric)) => {
                cells.append_option(jsonl::value(row.report, metric, &row.sample).map(|x| x as i64));
            }
            (Cells::Real(cells), Read::Metric(metric)) => {
                cells.append_option(jsonl::value(row.report, metric, &row.sample).map(|x| x * metric.factor()));
            }
            (Cells::Reals(cells), Read::Metric(metric)) => {
                let gaps = jsonl::gaps(metric, &row.sample, &row.payload);
                cells.values().append_slice(&gaps);
                cells.append(!gaps.is_empty());
            }
            // A column's cells are made for its own way of reading.
            _ => {}
        }
    }
}

/// The values of a column that are not yet written.
enum Cells {
    Whole(Int64Builder),
    Real(Float64Builder),
    Reals(ListBuilder<Float64Builder>),
    Truth(BooleanBuilder),
    Text(StringBuilder),
    /// Texts of which there are few different ones.
    Names(StringDictionaryBuilder<Int32Type>),
}

impl Cells {
    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Whole(b) => Arc::new(b.finish()),
            Self::Real(b) => Arc::new(b.finish()),
            Self::Reals(b) => Arc::new(b.finish()),
            Self::Truth(b) => Arc::new(b.finish()),
            Self::Text(b) => Arc::new(b.finish()),
            Self::Names(b) => Arc::new(b.finish()),
        }
    }

    fn data_type(&self) -> DataType {
        match self {
            Self::Whole(_) => DataType::Int64,
            Self::Real(_) => DataType::Float64,
            Self::Reals(_) => DataType::new_list(DataType::Float64, true),
            Self::Truth(_) => DataType::Boolean,
            Self::Text(_) => DataType::Utf8,
            Self::Names(_) => DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
        }
    }
}
