//! Opening what `--input-file` names: plain, gzip or zstd, told apart by their first bytes.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use crate::Error;

const BOM: &[u8] = b"\xef\xbb\xbf";
const GZIP: &[u8] = b"\x1f\x8b";
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";

/// The content of a file as it is read through.
pub(crate) type Reader = Box<dyn BufRead + Send>;

/// How the content of an opened file lies in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored {
    /// As it is, from this byte on.
    Plain(u64),
    /// Compressed.
    Packed,
}

/// An error of the file system or of a decompressor.
pub(crate) fn failed(path: &Path, e: &io::Error) -> Error {
    Error(format!("--input-file {}: {e}", path.display()))
}

/// A compressed file may always be this long, bytes of its content ...
const PACKED: u64 = 1 << 30;

/// ... and longer only up to so many times its own length: beyond that it was made to fill a machine.
const EXPANSION: u64 = 500;

/// The content of a compressed file up to a bound.
struct Bounded<R> {
    inner: R,
    /// Bytes passed, and how many may.
    passed: u64,
    most: u64,
}

impl<R: BufRead> Bounded<R> {
    fn check(&self) -> io::Result<()> {
        match self.passed > self.most {
            true => Err(io::Error::other(format!(
                "its content is more than 1 GiB and more than {EXPANSION} times the compressed file; decompress it \
                 first if it is to be read"
            ))),
            false => Ok(()),
        }
    }
}

impl<R: BufRead> io::Read for Bounded<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.check()?;
        let read = self.inner.read(out)?;
        self.passed += read as u64;
        Ok(read)
    }
}

impl<R: BufRead> BufRead for Bounded<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.check()?;
        self.inner.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.passed += amount as u64;
        self.inner.consume(amount);
    }
}

/// The longest line, bytes: a video of 190 MB in base64.
pub(crate) const LINE: usize = 256 << 20;

/// Reads up to the next line feed, that included, into an empty buffer; `Ok(None)` at the end.
///
/// # Errors
/// A sentence naming the file, and line `number` where that is too long.
pub(crate) fn line(
    reader: &mut Reader,
    buffer: &mut Vec<u8>,
    (path, number): (&Path, usize),
) -> Result<Option<usize>, Error> {
    let most = LINE as u64 + 1;
    let read = io::Read::take(reader, most).read_until(b'\n', buffer).map_err(|e| failed(path, &e))?;
    match read {
        0 => Ok(None),
        read if read > LINE && buffer.last() != Some(&b'\n') => {
            Err(Error::row(path, number, format_args!("the line is longer than {} MiB", LINE >> 20)))
        }
        read => Ok(Some(read)),
    }
}

/// Opens a file at its first byte after a byte order mark, decompressed.
pub(crate) fn open(path: &Path) -> Result<Reader, Error> {
    Ok(open_as_stored(path)?.0)
}

/// [`open`], and how the content is stored.
pub(crate) fn open_as_stored(path: &Path) -> Result<(Reader, Stored), Error> {
    let metadata = std::fs::metadata(path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Error(format!("--input-file {}: there is no such file", path.display())),
        _ => failed(path, &e),
    })?;
    if metadata.is_dir() {
        return Err(Error(format!(
            "--input-file {}: this is a directory; only random_pool, raw_payload and sagemaker_data_capture read one \
             (--custom-dataset-type)",
            path.display()
        )));
    }
    if !metadata.is_file() {
        return Err(Error(format!("--input-file {}: not a regular file (it is read more than once)", path.display())));
    }
    let file = File::open(path).map_err(|e| failed(path, &e))?;
    let mut raw = BufReader::with_capacity(1 << 16, file);
    let head = raw.fill_buf().map_err(|e| failed(path, &e))?;
    let mut stored = Stored::Packed;
    let most = PACKED.max(metadata.len().saturating_mul(EXPANSION));
    let bounded = |inner| Bounded { inner, passed: 0, most };
    let mut reader: Reader = if head.starts_with(GZIP) {
        let decoder: Box<dyn io::Read + Send> = Box::new(flate2::bufread::MultiGzDecoder::new(raw));
        Box::new(bounded(BufReader::with_capacity(1 << 16, decoder)))
    } else if head.starts_with(ZSTD) {
        let decoder = zstd::stream::read::Decoder::with_buffer(raw).map_err(|e| failed(path, &e))?;
        let decoder: Box<dyn io::Read + Send> = Box::new(decoder);
        Box::new(bounded(BufReader::with_capacity(1 << 16, decoder)))
    } else {
        stored = Stored::Plain(0);
        Box::new(raw)
    };
    if reader.fill_buf().map_err(|e| failed(path, &e))?.starts_with(BOM) {
        reader.consume(BOM.len());
        stored = if stored == Stored::Packed { stored } else { Stored::Plain(BOM.len() as u64) };
    }
    Ok((reader, stored))
}

/// The files of a directory in the order of their paths, all levels deep if `deep`; names that begin with a dot are
/// left out.
pub(crate) fn files(dir: &Path, deep: bool) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).map_err(|e| failed(&dir, &e))? {
            let path = entry.map_err(|e| failed(&dir, &e))?.path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
                continue;
            }
            // A link to a directory is not followed, so that no circle is walked.
            match path.symlink_metadata() {
                Ok(at) if at.is_dir() && deep => dirs.push(path),
                _ if path.is_file() => found.push(path),
                _ => {}
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Those of `files` whose name ends in `.jsonl`, compressed or not.
pub(crate) fn jsonl(files: Vec<PathBuf>) -> Vec<PathBuf> {
    let named = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        [".jsonl", ".jsonl.gz", ".jsonl.zst"].iter().any(|ending| name.ends_with(ending))
    };
    files.into_iter().filter(named).collect()
}

/// A file without a row.
pub(crate) fn empty(path: &Path) -> Error {
    Error(format!("--input-file {}: the file has no rows", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn content_beyond_the_bound_is_an_error_however_it_is_read() {
        let bounded = || Bounded { inner: &b"0123456789"[..], passed: 0, most: 4 };
        assert!(bounded().read_to_end(&mut Vec::new()).is_err());
        assert!(bounded().read_until(b'\n', &mut Vec::new()).is_err());
        let mut all = Vec::new();
        Bounded { most: 10, ..bounded() }.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"0123456789");
    }
}
