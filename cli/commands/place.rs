//! Where a command writes its files, and that nobody else does so at the same time.

use super::Failure;
use crate::config::ProfileConfig;
use crate::refusal::Refusal;
use crate::say;
use maser::export::directory::{Asked, Claim};
use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

/// Runs with the same default directory that may go on at a time.
const BESIDE: u32 = 100;

/// The directory of a run's files, taken until this is dropped.
pub(super) struct Place {
    pub(super) dir: PathBuf,
    /// Of a file system that has locks.
    claim: Option<Claim>,
    /// It was not there before.
    made: bool,
}

impl Place {
    /// Takes the directory that the run was given. Where it was given none, and another run is writing into the usual one,
    /// takes the next in number, `...-2` and so on: two servers may be measured from one place at once.
    pub(super) fn take(config: &mut ProfileConfig) -> Result<Self, Failure> {
        let place = Self::free(config)?;
        if place.dir != config.artifact_dir() {
            let (dir, usual) = (place.dir.display(), config.artifact_dir());
            config.notes.push(format!("another run is writing into {}: the files go to {dir}", usual.display()));
            config.output.dir = Some(place.dir.clone());
        }
        Ok(place)
    }

    fn free(config: &mut ProfileConfig) -> Result<Self, Failure> {
        let usual = config.artifact_dir();
        let (mut dir, mut number) = (usual.clone(), 1);
        loop {
            let made = !dir.exists();
            std::fs::create_dir_all(&dir).map_err(|e| cannot(&dir, &e))?;
            let who = match Claim::ask(&dir).map_err(|e| cannot(&dir, &e))? {
                Asked::Granted(claim) => return Ok(Self { dir, claim: Some(claim), made }),
                Asked::NoLocks(e) => {
                    config.notes.push(no_locks(&dir, &e));
                    return Ok(Self { dir, claim: None, made });
                }
                Asked::Busy(who) => who,
            };
            if config.output.dir.is_some() || number == BESIDE {
                let dir = dir.display();
                return Err(Refusal::new(format!(
                    "--artifact-dir {dir}: another run is writing there ({who}); wait for its end, or give another \
                     directory"
                ))
                .into());
            }
            number += 1;
            let mut name = usual.clone().into_os_string();
            name.push(format!("-{number}"));
            dir = name.into();
        }
    }

    /// Gives it back; an empty directory that was not there before goes.
    pub(super) fn leave(self) {
        drop(self.claim);
        if self.made {
            // Only an empty directory can go; what is in it is for the user to see.
            let _ = std::fs::remove_dir(&self.dir);
        }
    }
}

pub(super) fn cannot(dir: &Path, e: &io::Error) -> Failure {
    Failure::Failed(format!("--artifact-dir {}: cannot write files there: {e}", dir.display()))
}

fn no_locks(dir: &Path, e: &dyn Display) -> String {
    format!("{}: its file system has no locks ({e}), so a second run into it would not be noticed", dir.display())
}

/// Takes the directory that a report is written to. Where no lock can be made, the files will say why, if they cannot be
/// either.
pub(super) fn for_report(out: &Path) -> Result<Option<Claim>, Failure> {
    match Claim::ask(out) {
        Ok(Asked::Granted(claim)) => Ok(Some(claim)),
        Ok(Asked::Busy(who)) => Err(Refusal::new(format!(
            "{}: another run or report is writing there ({who}); wait for its end, or give another directory with -o",
            out.display()
        ))
        .into()),
        Ok(Asked::NoLocks(e)) => {
            say(std::io::stderr(), format_args!("note: {}", no_locks(out, &e)));
            Ok(None)
        }
        Err(_) => Ok(None),
    }
}
