//! What tells whether a finished dataset is still that of its sources.

use std::fs::{File, Metadata};
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::Error;
use crate::read::source;

/// A change to a file within this time of another leaves its stamp as it is, on some file systems.
const COARSEST_STAMP_NS: u128 = 2_000_000_000;

/// 32 hexadecimal digits for `parts`; others for any other parts.
pub fn of_texts(parts: &[&str]) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    hex(digest)
}

/// The same for the bytes of a file, or of all files of a directory with their names.
///
/// # Errors
/// A sentence naming the file that cannot be read.
pub fn of_content(path: &Path) -> Result<String, Error> {
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    for file in files(path)? {
        let failed = |e: std::io::Error| source::failed(&file, &e);
        digest.update(file.strip_prefix(path).unwrap_or(&file).as_os_str().as_encoded_bytes());
        let mut opened = File::open(&file).map_err(failed)?;
        digest.update([0]);
        digest.update(opened.metadata().map_err(failed)?.len().to_le_bytes());
        loop {
            match opened.read(&mut buffer).map_err(failed)? {
                0 => break,
                read => digest.update(&buffer[..read]),
            }
        }
    }
    Ok(hex(digest))
}

/// The same for what the file system says of a file, or of all files of a directory: where they are, how large, and when
/// they were changed last. `now_ns` is the time since 1970 in nanoseconds.
///
/// None where a file was changed so lately that it could change again without its stamp, or has no stamp.
///
/// # Errors
/// A sentence naming the file that cannot be looked at.
pub fn of_stamps(path: &Path, now_ns: u64) -> Result<Option<String>, Error> {
    let mut digest = Sha256::new();
    for file in files(path)? {
        let failed = |e: std::io::Error| source::failed(&file, &e);
        let real = file.canonicalize().map_err(failed)?;
        let Some(stamp) = stamp(&real.metadata().map_err(failed)?) else { return Ok(None) };
        if stamp[0] + COARSEST_STAMP_NS > u128::from(now_ns) {
            return Ok(None);
        }
        digest.update(real.as_os_str().as_encoded_bytes());
        digest.update([0]);
        stamp.iter().for_each(|n| digest.update(n.to_le_bytes()));
    }
    Ok(Some(hex(digest)))
}

/// The last change in nanoseconds since 1970, and what else a change shows in.
#[cfg(unix)]
fn stamp(file: &Metadata) -> Option<[u128; 5]> {
    use std::os::unix::fs::MetadataExt;
    let ns = |s: i64, ns: i64| u128::try_from(i128::from(s) * 1_000_000_000 + i128::from(ns)).ok();
    let changed = ns(file.ctime(), file.ctime_nsec())?;
    let modified = ns(file.mtime(), file.mtime_nsec())?;
    Some([changed, modified, file.len().into(), file.ino().into(), file.dev().into()])
}

#[cfg(not(unix))]
fn stamp(_: &Metadata) -> Option<[u128; 5]> {
    None
}

fn files(path: &Path) -> Result<Vec<PathBuf>, Error> {
    if path.is_dir() { source::files(path, true) } else { Ok(vec![path.to_owned()]) }
}

fn hex(digest: Sha256) -> String {
    digest.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Later than now.
    const FAR: u64 = u64::MAX / 2;

    #[test]
    fn a_change_shows() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::write(&a, "x").unwrap();
        let content = [of_content(&a).unwrap(), of_content(dir.path()).unwrap()];
        let stamps = of_stamps(&a, FAR).unwrap();
        assert!(stamps.is_some());
        assert_eq!(of_stamps(&a, FAR).unwrap(), stamps);
        std::fs::write(&a, "yy").unwrap();
        std::fs::write(&b, "x").unwrap();
        assert!(content[0] != of_content(&a).unwrap() && content[1] != of_content(dir.path()).unwrap());
        assert_eq!(content[0], of_content(&b).unwrap(), "not the name, the bytes");
        assert_ne!(of_stamps(&a, FAR).unwrap(), stamps);
    }

    #[test]
    fn what_may_change_unseen_has_no_stamp() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(of_stamps(file.path(), 0).unwrap(), None);
        assert!(of_stamps(file.path(), FAR).unwrap().is_some());
        assert!(of_stamps(Path::new("no such file"), FAR).is_err());
    }

    #[test]
    fn texts_do_not_run_together() {
        assert_ne!(of_texts(&["ab", "c"]), of_texts(&["a", "bc"]));
    }
}
