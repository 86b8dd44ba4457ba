//! CSV files: columns by name, errors by line and column.

use std::path::Path;

use csv::{Reader, StringRecord};

use crate::jsonl::brief;
use crate::{Error, format, source};

/// A CSV file with a header.
pub(crate) struct Table<'p> {
    path: &'p Path,
    reader: Reader<source::Reader>,
    /// The columns asked for: name and place.
    columns: Vec<(&'static str, usize)>,
}

/// A row of a table: the fields of the columns asked for.
pub(crate) struct Fields<'a> {
    path: &'a Path,
    pub(crate) line: usize,
    fields: &'a StringRecord,
    columns: &'a [(&'static str, usize)],
}

impl<'p> Table<'p> {
    /// Opens a file that has all of `columns`.
    pub(crate) fn open(path: &'p Path, columns: &[&'static str]) -> Result<Self, Error> {
        let mut builder = csv::ReaderBuilder::new();
        let mut reader = builder.flexible(true).trim(csv::Trim::All).from_reader(source::open(path)?);
        let header = reader.headers().map_err(|e| wrong(path, &e))?.clone();
        if header.is_empty() {
            return Err(format::empty(path));
        }
        let place = |name: &'static str| {
            let found = header.iter().position(|column| column == name).map(|at| (name, at));
            found.ok_or_else(|| Error::row(path, 1, format_args!("the header has no column `{name}`")))
        };
        let columns = columns.iter().map(|name| place(name)).collect::<Result<_, _>>()?;
        Ok(Self { path, reader, columns })
    }

    /// Hands over every row.
    pub(crate) fn each(mut self, f: &mut dyn FnMut(Fields<'_>) -> Result<(), Error>) -> Result<(), Error> {
        let mut record = StringRecord::new();
        while self.reader.read_record(&mut record).map_err(|e| wrong(self.path, &e))? {
            let line = record.position().map_or(0, |at| at.line() as usize);
            f(Fields { path: self.path, line, fields: &record, columns: &self.columns })?;
        }
        Ok(())
    }
}

impl Fields<'_> {
    /// The field of the column asked for as number `column`; empty where the row is too short.
    pub(crate) fn get(&self, column: usize) -> &str {
        self.columns.get(column).and_then(|(_, at)| self.fields.get(*at)).unwrap_or_default()
    }

    /// An error about that field.
    pub(crate) fn error(&self, column: usize, expected: &str) -> Error {
        let name = self.columns.get(column).map_or("", |(name, _)| name);
        let what = format_args!("`{name}` must be {expected}, not {:?}", brief(self.get(column)));
        Error::row(self.path, self.line, what)
    }

    /// A whole number of tokens; `16.0` is one.
    pub(crate) fn tokens(&self, column: usize) -> Option<u32> {
        let field = self.get(column);
        let whole = field.strip_suffix(".0").unwrap_or(field);
        whole.parse().ok().filter(|n| *n <= crate::lengths::MAX_TOKENS)
    }
}

fn wrong(path: &Path, e: &csv::Error) -> Error {
    let line = e.position().map_or(0, |at| at.line() as usize);
    match e.kind() {
        csv::ErrorKind::Utf8 { .. } => Error::row(path, line, "not UTF-8"),
        csv::ErrorKind::Io(e) => source::failed(path, e),
        _ => Error::row(path, line, e),
    }
}
