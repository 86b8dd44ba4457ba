//! Finished request bodies, kept for later runs of the same data (`--dataset-cache`, `dataset compile --for`).

use super::Failure;
use super::bodies::{Bodies, Built, full, options};
use super::cache_bust;
use crate::config::{Input, ProfileConfig};
use crate::refusal::Refusal;
use maser_datasets::tokens::Found;
use maser_datasets::{Error, Spec, identity};
use maser_engine::clock;
use maser_engine::plan::{Marks, Requests};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

/// Where finished bodies are kept under what they were made of: the input's bytes, every setting that shows in them, and
/// the version of this program.
pub(super) struct Cache {
    dir: PathBuf,
    /// Bytes that the directory may hold.
    pub(super) most: u64,
    input: PathBuf,
    settings: String,
    marks: Marks,
}

/// Extensions of finished bodies, and of the files that say which of them a file as it was last seen has.
const KEPT: &str = "maserrq";
const SEEN: &str = "seen";

/// How the names of files begin that are not whole yet, and how long one may lie still before it is a dead run's.
const UNFINISHED: &str = ".unfinished-";
const ABANDONED: Duration = Duration::from_secs(3600);

/// Bytes of bodies that are looked at before they are used: some 10 ms. More would keep the first request waiting.
const CHECKED_BEFORE: u64 = 128 << 20;

/// Bodies that were taken from a cache unseen, to be looked at when there is time.
#[derive(Debug)]
pub(super) struct Unchecked(PathBuf);

impl Unchecked {
    /// # Errors
    /// The bodies are damaged: they are no longer kept.
    pub(super) fn check(&self, requests: &Requests) -> Result<(), Failure> {
        if requests.is_whole() {
            return Ok(());
        }
        let path = self.0.display();
        let done = match std::fs::remove_file(&self.0) {
            Ok(()) => "it was removed, and the next run makes it anew".to_owned(),
            Err(e) => format!("it cannot be removed: {e}"),
        };
        Err(Failure::Failed(format!(
            "--dataset-cache: {path} is damaged, so what was sent may not be what --input-file says; {done}"
        )))
    }
}

impl Cache {
    /// None where nothing is to be kept: not asked for, or the data are this run's only.
    pub(super) fn of(config: &mut ProfileConfig, spec: &Spec) -> Result<Option<Self>, Failure> {
        let Input::File { path, trace, .. } = &config.input else { return Ok(None) };
        let Some(dir) = trace.cache.clone().or_else(|| Some(beside(path)).filter(|dir| dir.is_dir())) else {
            return Ok(None);
        };
        let (most, input, asked) = (trace.cache_size, path.clone(), trace.cache.is_some());
        if config.hidden().is_in_bodies() {
            if asked {
                config.notes.push(
                    "--dataset-cache has no effect: --extra-inputs puts a secret into the request bodies, which no file may \
                     show"
                        .into(),
                );
            }
            return Ok(None);
        }
        let of = match spec {
            Spec::WithSystem { of, .. } => of,
            other => other,
        };
        let seeded = match of {
            Spec::File(options) => {
                config.models.are_drawn() || options.depends_on_seed().map_err(|e| Refusal::new(e.0))?
            }
            _ => true,
        };
        if seeded && config.random_seed.is_none() {
            config.notes.push(
                "--dataset-cache has no effect without --random-seed: the data depend on the seed, which is new in each run"
                    .into(),
            );
            return Ok(None);
        }
        let settings = settings(config, spec, seeded)?;
        Ok(Some(Self { dir, most, input, settings, marks: cache_bust::marks(config.cache_bust) }))
    }

    pub(super) fn make_dir(&self) -> Result<&Path, Failure> {
        std::fs::create_dir_all(&self.dir).map_err(full(&self.dir))?;
        Ok(&self.dir)
    }

    /// The name of the file with the bodies, by the input's bytes; and of the one that leads there, by the input's stamps.
    fn content_key(&self) -> Result<String, Failure> {
        let content = identity::of_content(&self.input).map_err(|e| Refusal::new(e.0))?;
        Ok(identity::of_texts(&[&self.settings, &content]))
    }

    fn seen(&self) -> Result<Option<PathBuf>, Failure> {
        let stamps = identity::of_stamps(&self.input, clock::wall()).map_err(|e| Refusal::new(e.0))?;
        let name = |stamps: String| identity::of_texts(&[&self.settings, &stamps]);
        Ok(stamps.map(|stamps| self.dir.join(name(stamps)).with_extension(SEEN)))
    }

    fn kept(&self, key: &str) -> PathBuf {
        self.dir.join(key).with_extension(KEPT)
    }

    /// Without reading the input, where it was seen before as it is now; or the key to keep it under. What is damaged is
    /// made anew.
    pub(super) fn find(&self) -> Result<Result<Bodies, String>, Failure> {
        let seen = self.seen()?;
        let known = seen.as_ref().and_then(|seen| std::fs::read_to_string(seen).ok());
        let is_key = |key: &String| key.len() == 32 && key.bytes().all(|b| b.is_ascii_hexdigit());
        if let Some(found) = known.filter(is_key).and_then(|key| self.open(&key)) {
            return Ok(Ok(found));
        }
        let key = self.content_key()?;
        let Some(found) = self.open(&key) else { return Ok(Err(key)) };
        self.remember(seen, &key);
        Ok(Ok(found))
    }

    fn open(&self, key: &str) -> Option<Bodies> {
        let path = self.kept(key);
        let requests = Requests::open(&path).ok()?;
        let summary = serde_json::from_slice(requests.note()).ok()?;
        let checked = requests.bytes() <= CHECKED_BEFORE;
        if requests.is_empty() || (checked && !requests.is_whole()) {
            return None;
        }
        // Used last; a directory that cannot be written has no use for it.
        let _ = std::fs::File::open(&path).and_then(|file| file.set_modified(UNIX_EPOCH + since_1970()));
        let unchecked = (!checked).then_some(Unchecked(path));
        Some(Bodies { unchecked, ..Bodies::new(requests, summary, self.marks) })
    }

    /// Keeps the bodies, unless the input has changed since `key` was made: nobody knows then which bytes were read.
    pub(super) fn keep(&self, built: Built, key: &str) -> Result<Bodies, Failure> {
        let seen = self.seen()?;
        if self.content_key()? != key {
            return built.finish(&self.dir);
        }
        let note = serde_json::to_vec(&built.summary).unwrap_or_default();
        let requests = built.builder.finish_as(&self.kept(key), &note).map_err(full(&self.dir))?;
        self.remember(seen, key);
        // What cannot be removed now may be the next time.
        let _ = self.make_room(&self.kept(key));
        Ok(Bodies::new(requests, built.summary, self.marks))
    }

    /// Removes the bodies that were used longest ago, but never `newest`, until the directory holds what it may; and what
    /// dead runs and removed bodies left behind. A run that has such bodies open keeps them.
    fn make_room(&self, newest: &Path) -> std::io::Result<()> {
        let mut kept = Vec::new();
        let mut seen = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let (path, about) = entry.and_then(|entry| Ok((entry.path(), entry.metadata()?)))?;
            let used = about.modified()?;
            let is = |extension| path.extension().is_some_and(|is| is == extension);
            let begun = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(UNFINISHED));
            if begun && used.duration_since(UNIX_EPOCH).is_ok_and(|used| since_1970().saturating_sub(used) > ABANDONED)
            {
                std::fs::remove_file(path)?;
            } else if is(KEPT) {
                kept.push((used, path, about.len()));
            } else if is(SEEN) {
                seen.push(path);
            }
        }
        kept.sort();
        let mut bytes: u64 = kept.iter().map(|(_, _, len)| len).sum();
        for (_, path, len) in kept {
            if bytes > self.most && path != newest {
                std::fs::remove_file(path)?;
                bytes -= len;
            }
        }
        for path in seen {
            let leads = std::fs::read_to_string(&path).is_ok_and(|key| self.kept(&key).exists());
            if !leads {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// Where this cannot be written, the next run reads the input again, no more.
    fn remember(&self, seen: Option<PathBuf>, key: &str) {
        if let Some(seen) = seen {
            let written = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(&self.dir).and_then(|mut file| {
                file.write_all(key.as_bytes())?;
                Ok(file.persist(seen)?)
            });
            drop(written);
        }
    }
}

/// Where the bodies of a compiled dataset are kept without being asked for, once this is there.
pub(super) fn beside(compiled: &Path) -> PathBuf {
    let mut name = compiled.as_os_str().to_owned();
    name.push(".bodies");
    name.into()
}

/// Everything that shows in the bodies beside the input's bytes: 32 hexadecimal digits.
fn settings(config: &ProfileConfig, spec: &Spec, seeded: bool) -> Result<String, Failure> {
    let tokens = match &config.tokenizer.found {
        Found::BuiltIn(name) => (*name).to_owned(),
        // Its chat template may lie beside it.
        Found::File(path) => {
            let beside = ["tokenizer_config.json", "chat_template.jinja", "chat_template.json"];
            let files = beside.iter().map(|name| path.with_file_name(name)).filter(|file| file.is_file());
            let digests: Result<Vec<String>, Error> =
                std::iter::once(path.clone()).chain(files).map(|file| digest(&file)).collect();
            digests.map_err(|e| Refusal::new(e.0))?.concat()
        }
    };
    let said = format!(
        "{:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        without_place(spec.clone(), seeded),
        options(config),
        config.models,
        config.endpoint.kind,
        config.replay,
        config.fixed_schedule,
        config.tokenizer.chat_template,
        config.use_server_token_count,
        config.cache_bust,
    );
    Ok(identity::of_texts(&[env!("CARGO_PKG_VERSION"), &tokens, &said]))
}

fn digest(file: &Path) -> Result<String, Error> {
    match identity::of_stamps(file, clock::wall())? {
        Some(stamps) => Ok(stamps),
        None => identity::of_content(file),
    }
}

/// The same but for where its file is, and for the seed and the number of entries where they make no difference.
fn without_place(spec: Spec, seeded: bool) -> Spec {
    match spec {
        Spec::File(mut options) => {
            if !options.takes_entries() {
                options.entries = None;
            }
            options.path = PathBuf::new();
            options.seed = if seeded { options.seed } else { 0 };
            Spec::File(options)
        }
        Spec::WithSystem { text, of } => Spec::WithSystem { text, of: Box::new(without_place(*of, seeded)) },
        synthetic @ Spec::Synthetic(_) => synthetic,
    }
}

/// The time, as files are stamped.
fn since_1970() -> Duration {
    Duration::from_nanos(clock::wall())
}

#[cfg(test)]
mod tests {
    use super::*;
    use maser_engine::plan::RequestsBuilder;

    #[test]
    fn damage_found_after_the_load_is_an_error_and_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kept");
        let mut builder = RequestsBuilder::kept_in(dir.path()).unwrap();
        builder.push(b"{}").unwrap();
        let whole = builder.finish_as(&path, b"").unwrap();
        Unchecked(path.clone()).check(&whole).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[1] = b']';
        let damaged = dir.path().join("damaged");
        std::fs::write(&damaged, bytes).unwrap();
        let requests = Requests::open(&damaged).unwrap();
        let said = Unchecked(damaged.clone()).check(&requests).unwrap_err().to_string();
        let end = "is damaged, so what was sent may not be what --input-file says; it was removed, and the next run makes \
                   it anew";
        assert!(said.ends_with(end), "{said}");
        assert!(!damaged.exists() && path.exists());
    }
}
