//! The directory of a run's files: whose it is while they are written, what an earlier run left there, and how a file is
//! put there whole.

use super::{Names, Written, inputs, outputs, phases};
use maser_engine::log::{self, Log};
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The file whose lock says that somebody writes here.
const LOCK: &str = ".maser.lock";

/// How the directories begin that earlier results are moved to.
const EARLIER: &str = "earlier-";

/// The most bytes of a file that are waited for until the disk has them: a longer one is written behind the run's back,
/// and can be made again from the record log.
const SYNCED: u64 = 64 << 20;

/// The right to write into a directory, for as long as this is kept. The kernel takes it back from a process that dies.
#[derive(Debug)]
pub struct Claim {
    path: PathBuf,
    /// Has the lock.
    file: File,
}

/// What became of asking for a [`Claim`].
#[derive(Debug)]
pub enum Asked {
    /// Nobody else writes there.
    Granted(Claim),
    /// Somebody does: who, as the end of a sentence.
    Busy(String),
    /// The file system has no locks, for this reason.
    NoLocks(io::Error),
}

impl Claim {
    /// Asks for the right to write into `dir`, without waiting for it.
    ///
    /// # Errors
    /// No file can be made there.
    pub fn ask(dir: &Path) -> io::Result<Asked> {
        let path = dir.join(LOCK);
        loop {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).mode(0o666).custom_flags(OFlags::NOFOLLOW.bits() as i32);
            let mut file = options.open(&path)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Ok(Asked::Busy(holder(&path))),
                Err(e) => {
                    let _ = std::fs::remove_file(&path);
                    return Ok(Asked::NoLocks(e.into()));
                }
            }
            // Its last owner may have removed it between the two calls.
            let is_there = match (file.metadata(), std::fs::symlink_metadata(&path)) {
                (Ok(held), Ok(named)) => (held.dev(), held.ino()) == (named.dev(), named.ino()),
                _ => false,
            };
            if is_there {
                // Only for the sentence that another run reads.
                let _ = file.set_len(0).and_then(|()| write!(file, "{}", me()));
                return Ok(Asked::Granted(Self { path, file }));
            }
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // While the lock is held: whoever opened the file before this finds that it has gone.
        let _ = std::fs::remove_file(&self.path);
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

fn me() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let process = format!("process {}", std::process::id());
    if host.trim().is_empty() { process } else { format!("{process} on {}", host.trim()) }
}

fn holder(path: &Path) -> String {
    let said = std::fs::read_to_string(path).unwrap_or_default();
    let said = super::printable(said.trim());
    if said.is_empty() || said.len() > 200 { "another process".into() } else { said }
}

/// The names, below `dir`, of what an earlier run left there that a run with this prefix would write: what has another
/// prefix is in nobody's way and stays, and so does what is not a run's.
fn own(dir: &Path, prefix: Option<&str>) -> Vec<PathBuf> {
    let common = [inputs::FILE_NAME, inputs::BODIES_NAME, outputs::FILE_NAME, log::FILE_NAME];
    let named = Names::new(prefix).into_all().into_iter().map(PathBuf::from).chain(common.map(PathBuf::from));
    let all = named.chain(phases::own(dir));
    all.filter(|name| std::fs::symlink_metadata(dir.join(name)).is_ok()).collect()
}

/// Removes what earlier runs into `dir` left under the names that this run will write, so that no file of one stands
/// beside files of the other, however this run ends. Returns whether there was anything.
///
/// # Errors
/// A file cannot be removed.
pub fn remove_earlier(dir: &Path, prefix: Option<&str>) -> io::Result<bool> {
    let own = own(dir, prefix);
    for name in &own {
        std::fs::remove_file(dir.join(name))?;
    }
    tidy(dir, prefix);
    Ok(!own.is_empty())
}

/// Moves what [`remove_earlier`] would remove to a new directory in `dir`: `earlier-1`, and so on. Returns which, or none
/// if there was nothing.
///
/// # Errors
/// A file cannot be moved; those before it have been.
pub fn set_aside(dir: &Path, prefix: Option<&str>) -> io::Result<Option<PathBuf>> {
    let own = own(dir, prefix);
    if own.is_empty() {
        tidy(dir, prefix);
        return Ok(None);
    }
    let numbers = std::fs::read_dir(dir)?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_prefix(EARLIER)?.parse::<u64>().ok());
    let aside = dir.join(format!("{EARLIER}{}", numbers.max().unwrap_or(0).saturating_add(1)));
    std::fs::create_dir(&aside)?;
    for name in &own {
        let to = aside.join(name);
        if let Some(parent) = to.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::rename(dir.join(name), to)?;
    }
    tidy(dir, prefix);
    Ok(Some(aside))
}

/// Removes directories that are empty now, and what runs that were killed while they wrote left unfinished. Whatever
/// cannot be removed is in nobody's way.
fn tidy(dir: &Path, prefix: Option<&str>) {
    phases::remove_empty(dir);
    let all = Names::new(prefix).into_all();
    let common = [inputs::FILE_NAME, outputs::FILE_NAME, phases::MANIFEST];
    let is_own = |begun: &str| {
        let mut all = all.iter().map(String::as_str).chain(common);
        all.any(|own| begun.strip_prefix(own).is_some_and(|rest| rest.starts_with('.')))
    };
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let begun = name.to_str().and_then(|name| name.strip_prefix('.')?.strip_suffix(".part"));
        if begun.is_some_and(&is_own) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Whether `dir` has results of another run than the one of this log, under the names that this one's would have.
pub fn has_another(dir: &Path, log: &Log) -> bool {
    let header = &log.header;
    let there = dir.join(log::FILE_NAME);
    if std::fs::symlink_metadata(&there).is_ok() {
        return !Log::open(&there).is_ok_and(|other| other.header.run_key == header.run_key);
    }
    let prefix = header.export_prefix.as_deref();
    if own(dir, prefix).is_empty() {
        return false;
    }
    let summary = std::fs::read(dir.join(Names::new(prefix).json)).ok();
    let summary: Option<serde_json::Value> = summary.and_then(|text| serde_json::from_slice(&text).ok());
    !summary.is_some_and(|summary| summary["benchmark_id"] == header.benchmark_id.as_str())
}

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Readers {
    /// Whom the umask lets: figures.
    Umask,
    /// The owner: what was sent or answered.
    Owner,
}

/// Writes one file whole or not at all: under a name that nobody else has, then renamed. A link that stands under its
/// name is replaced, not followed.
pub(super) fn file(
    label: &'static str,
    path: PathBuf,
    readers: Readers,
    content: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<Written, String> {
    let attempt = || {
        let dir = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(dir)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let mode = if readers == Readers::Owner { 0o600 } else { 0o666 };
        let (file, temporary) = tempfile::Builder::new()
            .prefix(&format!(".{name}."))
            .suffix(".part")
            .permissions(Permissions::from_mode(mode))
            .tempfile_in(dir)?
            .into_parts();
        let mut out = BufWriter::with_capacity(1 << 18, file);
        content(&mut out)?;
        let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        if file.metadata()?.len() <= SYNCED {
            file.sync_data()?;
        }
        temporary.persist(&path).map_err(|e| e.error)
    };
    match attempt() {
        Ok(()) => Ok(Written { label, path }),
        Err(error) => Err(format!("{} could not be written: {error}.", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn granted(dir: &Path) -> Claim {
        match Claim::ask(dir).unwrap() {
            Asked::Granted(claim) => claim,
            other => panic!("{other:?}"),
        }
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut all: Vec<_> =
            std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        all.sort();
        all
    }

    #[test]
    fn one_at_a_time_writes_into_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let claim = granted(dir.path());
        let Asked::Busy(who) = Claim::ask(dir.path()).unwrap() else { panic!("two have it") };
        assert!(who.starts_with(&format!("process {}", std::process::id())), "{who}");
        drop(claim);
        assert!(names(dir.path()).is_empty());
        // What a killed process leaves is no lock.
        std::fs::write(dir.path().join(LOCK), "process 1").unwrap();
        drop(granted(dir.path()));
    }

    #[test]
    fn a_planted_lock_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        std::fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, dir.path().join(LOCK)).unwrap();
        assert!(Claim::ask(dir.path()).is_err());
        assert_eq!(std::fs::read_to_string(victim).unwrap(), "precious");
    }

    #[test]
    fn threads_that_take_turns_never_have_it_together() {
        let dir = tempfile::tempdir().unwrap();
        let inside = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut had = 0;
                    while had < 50 {
                        let Asked::Granted(claim) = Claim::ask(dir.path()).unwrap() else {
                            std::thread::yield_now();
                            continue;
                        };
                        assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                        had += 1;
                        inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                        drop(claim);
                    }
                });
            }
        });
    }

    #[test]
    fn earlier_results_are_numbered_and_what_is_not_a_run_s_stays() {
        let dir = tempfile::tempdir().unwrap();
        let phases = dir.path().join("phases/warmup");
        for n in 1..=3 {
            std::fs::create_dir_all(&phases).unwrap();
            for name in
                ["records.maser", "inputs.json", "profile_export.jsonl", "phases/warmup/profile_export_aiperf.json"]
            {
                std::fs::write(dir.path().join(name), n.to_string()).unwrap();
            }
            for name in ["notes.txt", "other.json", ".profile_export.jsonl.abc.part", ".notes.part"] {
                std::fs::write(dir.path().join(name), "").unwrap();
            }
            let aside = set_aside(dir.path(), None).unwrap().unwrap();
            assert_eq!(aside, dir.path().join(format!("earlier-{n}")));
            assert_eq!(names(&aside), ["inputs.json", "phases", "profile_export.jsonl", "records.maser"]);
            let moved = std::fs::read_to_string(aside.join("phases/warmup/profile_export_aiperf.json")).unwrap();
            assert_eq!(moved, n.to_string());
            assert_eq!(set_aside(dir.path(), None).unwrap(), None);
        }
        let left = [".notes.part", "earlier-1", "earlier-2", "earlier-3", "notes.txt", "other.json"];
        assert_eq!(names(dir.path()), left);
        assert!(remove_earlier(dir.path(), Some("other")).unwrap());
        assert!(!dir.path().join("other.json").exists());
    }

    #[test]
    fn a_failed_file_leaves_nothing_and_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        let failed = file("A", path.clone(), Readers::Umask, |out| {
            out.write_all(b"half")?;
            Err(io::Error::from_raw_os_error(28))
        });
        let sentence = failed.unwrap_err();
        assert!(sentence.contains("a.json could not be written: No space left"), "{sentence}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let written = file("A", path.clone(), Readers::Umask, |out| out.write_all(b"whole")).unwrap();
        assert_eq!(std::fs::read(written.path).unwrap(), b"whole");
    }

    #[test]
    fn a_file_replaces_a_planted_link_and_is_for_whom_it_is_meant() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        std::fs::write(&victim, "precious").unwrap();
        for (name, readers, others) in [("a", Readers::Umask, 0o044), ("b", Readers::Owner, 0)] {
            let path = dir.path().join(name);
            std::os::unix::fs::symlink(&victim, &path).unwrap();
            // The name that every run used before.
            std::os::unix::fs::symlink(&victim, dir.path().join(format!(".{name}.part"))).unwrap();
            file("A", path.clone(), readers, |out| out.write_all(b"whole")).unwrap();
            let about = std::fs::symlink_metadata(&path).unwrap();
            assert!(about.is_file());
            // The umask of whoever runs the tests may forbid more.
            assert_eq!(about.permissions().mode() & 0o077 & !others, 0, "{name}");
        }
        assert_eq!(std::fs::read_to_string(victim).unwrap(), "precious");
    }
}
