//! The `ffmpeg` program, which encodes what no library here does.

use std::ffi::OsStr;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::Error;

/// Runs the program on `input`; what it made is in a file that the arguments name.
///
/// # Errors
/// A sentence: the program is not there, or what it said last.
pub(super) fn run<A: AsRef<OsStr>>(
    what: &str,
    args: &[A],
    input: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<(), Error> {
    let mut child = Command::new("ffmpeg")
        .args(["-hide_banner", "-loglevel", "error", "-nostdin", "-y"].map(OsStr::new).iter().copied())
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| match e.kind() {
            ErrorKind::NotFound => Error(format!(
                "{what} is made by the program ffmpeg, which is not installed here (wav clips and images need none)"
            )),
            _ => Error(format!("{what}: ffmpeg cannot be started: {e}")),
        })?;
    // A program that stops early closes the pipe; its own words say why, so a failed write alone is no error.
    let written = child.stdin.take().map(|mut pipe| input(&mut pipe));
    let done = child.wait_with_output().map_err(|e| Error(format!("{what}: ffmpeg: {e}")))?;
    let said = String::from_utf8_lossy(&done.stderr);
    let last = said.lines().last().unwrap_or("it said nothing").trim();
    match (done.status.success(), written) {
        (false, _) => Err(Error(format!("{what}: ffmpeg failed: {last}"))),
        (true, Some(Err(e))) => Err(Error(format!("{what}: ffmpeg took no more input: {e}"))),
        (true, _) => Ok(()),
    }
}

/// A directory for the files of one run of the program.
pub(super) fn directory(what: &str) -> Result<tempfile::TempDir, Error> {
    tempfile::tempdir().map_err(|e| Error(format!("{what}: no temporary directory can be made: {e}")))
}

pub(super) fn read(what: &str, path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|e| Error(format!("{what}: what ffmpeg made cannot be read: {e}")))
}

/// A WAV file as MP3.
pub(super) fn mp3(wav: &[u8]) -> Result<Vec<u8>, Error> {
    let what = "--audio-format mp3";
    let dir = directory(what)?;
    let out = dir.path().join("clip.mp3");
    let args = ["-f", "wav", "-i", "pipe:0", "-codec:a", "libmp3lame", "-f", "mp3"].map(OsStr::new);
    let args: Vec<&OsStr> = args.into_iter().chain([out.as_os_str()]).collect();
    run(what, &args, |pipe| pipe.write_all(wav))?;
    read(what, &out)
}
