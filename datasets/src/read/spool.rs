//! Rows that are handed over in another order than their file has them: what orders them stays in memory, the rest is
//! read again where it lies.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use crate::Error;
use crate::read::jsonl::{Lines, Place, Row};
use crate::read::source;

/// Where bytes lie in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    at: u64,
    length: usize,
}

/// Bytes put down one after another in a file without a name, in the directory for temporary files.
pub(crate) struct Spool {
    file: BufWriter<File>,
    end: u64,
}

impl Spool {
    pub(crate) fn new() -> Result<Self, Error> {
        let file = tempfile::tempfile().map_err(|e| unwritable(&e))?;
        Ok(Self { file: BufWriter::with_capacity(1 << 16, file), end: 0 })
    }

    /// Appends bytes.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<Span, Error> {
        self.file.write_all(bytes).map_err(|e| unwritable(&e))?;
        let span = Span { at: self.end, length: bytes.len() };
        self.end += bytes.len() as u64;
        Ok(span)
    }

    /// Nothing more is put down.
    pub(crate) fn close(self) -> Result<Spooled, Error> {
        Ok(Spooled(self.file.into_inner().map_err(|e| unwritable(e.error()))?))
    }
}

fn unwritable(e: &io::Error) -> Error {
    Error(format!(
        "a file under {} cannot be written: {e} (TMPDIR names another place)",
        std::env::temp_dir().display()
    ))
}

/// What was put down, or a file as it is.
pub(crate) struct Spooled(File);

impl Spooled {
    /// The bytes that lie there.
    pub(crate) fn get(&mut self, span: Span) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; span.length];
        self.0.seek(SeekFrom::Start(span.at))?;
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

/// The rows of a JSONL file, to be read once more in any order. Those of a compressed file are put down first.
pub(crate) struct Rows<'p> {
    path: &'p Path,
    spooled: Spooled,
}

impl<'p> Rows<'p> {
    /// Shows every row to `index` together with where it lies.
    pub(crate) fn index(
        path: &'p Path,
        index: &mut dyn FnMut(&Row<'_>, Span) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let mut lines = Lines::open(path)?;
        let mut copy = if lines.is_plain() { None } else { Some(Spool::new()?) };
        while let Some((line, at, text)) = lines.next_at()? {
            let span = match &mut copy {
                Some(copy) => copy.put(text.as_bytes())?,
                None => Span { at, length: text.len() },
            };
            index(&Row::parse(path, Place::Line(line), text)?, span)?;
        }
        let spooled = match copy {
            Some(copy) => copy.close()?,
            None => Spooled(File::open(path).map_err(|e| source::failed(path, &e))?),
        };
        Ok(Self { path, spooled })
    }

    /// Reads the row that lies there and stands at `line`, as `index` was told.
    pub(crate) fn read<T>(
        &mut self,
        line: Place,
        span: Span,
        parse: impl FnOnce(&Row<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let bytes = self.spooled.get(span).map_err(|e| source::failed(self.path, &e))?;
        let text =
            std::str::from_utf8(&bytes).map_err(|_| line.error(self.path, "the file changes while it is read"))?;
        parse(&Row::parse(self.path, line, text)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_again_in_any_order() {
        let dir = tempfile::tempdir().unwrap();
        let text = "\u{feff}{\"n\":1}\r\n\n  {\"n\":22, \"é\":0} \n{\"n\":3}";
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(text.as_bytes()).unwrap();
        for (name, bytes) in [("plain", text.as_bytes().to_vec()), ("packed", gzip.finish().unwrap())] {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let mut found = Vec::new();
            let mut rows = Rows::index(&path, &mut |row, span| {
                found.push((row.place, span));
                Ok(())
            })
            .unwrap();
            let numbers: Vec<_> = found
                .iter()
                .rev()
                .map(|(line, span)| rows.read(*line, *span, |row| Ok((row.place, row.integer("n", 99)?))).unwrap())
                .collect();
            let expected = [(4, Some(3)), (3, Some(22)), (1, Some(1))].map(|(line, n)| (Place::Line(line), n));
            assert_eq!(numbers, expected, "{name}");
        }
    }
}
