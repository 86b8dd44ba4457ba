//! CSV files: columns by name, errors by line and column. A row is a line: the traces have no line ends inside fields.

use std::path::Path;

use csv::StringRecord;

use crate::Error;
use crate::read::jsonl::{Lines, brief};
use crate::read::source;

/// A CSV file with a header.
pub(crate) struct Table<'p> {
    path: &'p Path,
    lines: Lines<'p>,
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
        let mut lines = Lines::open(path)?;
        let (line, text) = lines.next()?.ok_or_else(|| source::empty(path))?;
        let mut header = StringRecord::new();
        split(path, line, text, &mut header)?;
        let place = |name: &'static str| {
            let found = header.iter().position(|column| column == name).map(|at| (name, at));
            found.ok_or_else(|| Error::row(path, line, format_args!("the header has no column `{name}`")))
        };
        let columns = columns.iter().map(|name| place(name)).collect::<Result<_, _>>()?;
        Ok(Self { path, lines, columns })
    }

    /// Hands over every row.
    pub(crate) fn each(mut self, f: &mut dyn FnMut(Fields<'_>) -> Result<(), Error>) -> Result<(), Error> {
        let mut record = StringRecord::new();
        while let Some((line, text)) = self.lines.next()? {
            split(self.path, line, text, &mut record)?;
            f(Fields { path: self.path, line, fields: &record, columns: &self.columns })?;
        }
        Ok(())
    }
}

/// The fields of one line. The reader is made anew for each: its own line numbers are one behind after CRLF.
fn split(path: &Path, line: usize, text: &str, record: &mut StringRecord) -> Result<(), Error> {
    let mut builder = csv::ReaderBuilder::new();
    builder.has_headers(false).flexible(true).trim(csv::Trim::All).buffer_capacity(256);
    builder.from_reader(text.as_bytes()).read_record(record).map(|_| ()).map_err(|e| Error::row(path, line, e))
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
