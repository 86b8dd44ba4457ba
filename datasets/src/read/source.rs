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
    let mut reader: Reader = if head.starts_with(GZIP) {
        Box::new(BufReader::with_capacity(1 << 16, flate2::bufread::MultiGzDecoder::new(raw)))
    } else if head.starts_with(ZSTD) {
        let decoder = zstd::stream::read::Decoder::with_buffer(raw).map_err(|e| failed(path, &e))?;
        Box::new(BufReader::with_capacity(1 << 16, decoder))
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
