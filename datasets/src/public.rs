//! Public datasets by name: where a copy of each may lie on this machine, and how its rows become requests.
//!
//! Nothing is downloaded. A copy is looked for in the user's hub cache (`HF_HUB_CACHE`, else `HF_HOME/hub`, else
//! `~/.cache/huggingface/hub`), which keeps a repository under `datasets--ORG--NAME/snapshots/REVISION/`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::formats::sets::{SETS, Set, Shape, WEKA};
use crate::formats::{Format, spans};
use crate::read::source;

/// A copy that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The file, or the directory with the tables.
    pub path: PathBuf,
    /// How it is read.
    pub format: Format,
}

/// The names that `--public-dataset` knows and this crate reads, with the hub repository of each.
pub fn names() -> impl Iterator<Item = (&'static str, &'static str)> {
    SETS.iter().filter(|set| !matches!(set.shape, Shape::NotYet(_))).map(|set| (set.name, set.repo))
}

/// Checks `--dataset-filter`, names and values in any case.
///
/// # Errors
/// A sentence: the dataset has no filters, none of that name, or none of its values is that one.
pub fn check_filters(format: Format, filters: &BTreeMap<String, String>) -> Result<(), Error> {
    let set = if let Format::Hub(at) = format { SETS.get(usize::from(at)) } else { None };
    let Some(Set { shape: Shape::Spans { benchmarks }, name, .. }) = set else {
        let name = set.map_or(format.name(), |set| set.name);
        return Err(Error(format!("--dataset-filter goes only with exgentic and exgentic_v2, and this is {name}")));
    };
    let known = || spans::FILTERS.iter().filter(|(filter, _)| *benchmarks || *filter != "benchmark");
    for (filter, wanted) in filters {
        let Some((_, values)) = known().find(|(name, _)| name == filter) else {
            let names: Vec<&str> = known().map(|(name, _)| *name).collect();
            return Err(Error(format!(
                "--dataset-filter {filter}={wanted}: {name} has the filters {}",
                names.join(", ")
            )));
        };
        if !values.iter().any(|value| value.eq_ignore_ascii_case(wanted)) {
            return Err(Error(format!("--dataset-filter {filter}={wanted}: expected one of {}", values.join(", "))));
        }
    }
    Ok(())
}

/// The copy of the dataset `name` in the user's hub cache, as the environment says where that is.
///
/// # Errors
/// A sentence: there is no such dataset, it is not read yet, or no copy was found and where to put one.
pub fn find(name: &str, subset: Option<&str>) -> Result<Found, Error> {
    find_in(&cache_dirs(), name, subset)
}

/// [`find`], in these directories laid out as hub caches.
///
/// # Errors
/// As there.
pub fn find_in(caches: &[PathBuf], name: &str, subset: Option<&str>) -> Result<Found, Error> {
    let wanted = name.to_ascii_lowercase().replace('-', "_");
    let known = |set: &Set| set.name == wanted || (set.name == WEKA && wanted.starts_with(WEKA));
    let Some(at) = SETS.iter().position(known) else {
        let known: Vec<&str> = names().map(|(name, _)| name).collect();
        return Err(Error(format!("--public-dataset {name}: expected one of {}", known.join(", "))));
    };
    let set = &SETS[at];
    if let Shape::NotYet(why) = set.shape {
        return Err(Error(format!("--public-dataset {name} is not supported yet by this version of maser: {why}")));
    }
    let Some(snapshot) = caches.iter().find_map(|cache| snapshot(cache, set.repo)) else {
        return Err(missing(name, set, caches));
    };
    match set.shape {
        Shape::File { format, name: file } => {
            let path = source::files(&snapshot, true)?.into_iter().find(|path| path.ends_with(file));
            let path =
                path.ok_or_else(|| Error(format!("--public-dataset {name}: {} has no {file}", snapshot.display())))?;
            if let Some(subset) = subset {
                return Err(Error(format!("--hf-subset {subset}: {name} is a single file without subsets")));
            }
            Ok(Found { path, format: Format::from_name(format)? })
        }
        _ => {
            let path = match subset.or(set.subset).map(|subset| snapshot.join(subset)) {
                Some(dir) if dir.is_dir() => dir,
                Some(dir) if subset.is_some() => {
                    return Err(Error(format!("--hf-subset: there is no directory {}", dir.display())));
                }
                _ => snapshot,
            };
            Ok(Found { path, format: Format::Hub(u8::try_from(at).unwrap_or(0)) })
        }
    }
}

fn missing(name: &str, set: &Set, caches: &[PathBuf]) -> Error {
    let place = caches.first().map(|cache| cache.join(folder(set.repo)).join("snapshots/REVISION"));
    let place = place.map_or_else(String::new, |place| format!(" in {}", place.display()));
    let by_file = match set.shape {
        Shape::File { format, name: file } => {
            format!(", or give {file} with --input-file and --custom-dataset-type {format}")
        }
        _ => String::new(),
    };
    Error(format!(
        "--public-dataset {name}: no copy of {} was found, and maser downloads nothing; put its files{place} (as \
         `hf download --repo-type dataset {}` does){by_file}",
        set.repo, set.repo
    ))
}

fn folder(repo: &str) -> String {
    format!("datasets--{}", repo.replace('/', "--"))
}

/// The revision that `main` names, or else the last by name.
fn snapshot(cache: &Path, repo: &str) -> Option<PathBuf> {
    let repo = cache.join(folder(repo));
    let snapshots = repo.join("snapshots");
    let main = std::fs::read_to_string(repo.join("refs/main")).ok().map(|revision| snapshots.join(revision.trim()));
    if let Some(main) = main.filter(|main| main.is_dir()) {
        return Some(main);
    }
    let revisions = std::fs::read_dir(&snapshots).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    revisions.filter(|revision| revision.is_dir()).max()
}

/// Where the hub's own programs keep what they have downloaded.
fn cache_dirs() -> Vec<PathBuf> {
    let var = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = var("HF_HOME").map(|home| home.join("hub"));
    let user = var("XDG_CACHE_HOME").or_else(|| var("HOME").map(|home| home.join(".cache")));
    let user = user.map(|cache| cache.join("huggingface/hub"));
    [var("HF_HUB_CACHE"), home, user].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_found_where_the_hub_puts_it() {
        let dir = tempfile::tempdir().unwrap();
        let caches = [dir.path().to_owned()];
        let said = find_in(&caches, "spec-bench", None).unwrap_err().0;
        assert!(said.contains("maser downloads nothing") && said.contains("datasets--hemingkx--Spec-Bench"), "{said}");
        let repo = dir.path().join("datasets--hemingkx--Spec-Bench");
        for revision in ["aaa", "bbb"] {
            std::fs::create_dir_all(repo.join("snapshots").join(revision).join("data")).unwrap();
        }
        let file = repo.join("snapshots/aaa/data/question.jsonl");
        std::fs::write(&file, "{}").unwrap();
        let said = find_in(&caches, "spec_bench", None).unwrap_err().0;
        assert!(said.ends_with("snapshots/bbb has no question.jsonl"), "{said}");
        std::fs::create_dir_all(repo.join("refs")).unwrap();
        std::fs::write(repo.join("refs/main"), "aaa\n").unwrap();
        assert_eq!(find_in(&caches, "SPEC_BENCH", None), Ok(Found { path: file, format: Format::SpecBench }));
    }

    #[test]
    fn unknown_names_list_the_known_ones() {
        assert!(find_in(&[], "nothing", None).unwrap_err().0.contains("expected one of sharegpt, aimo"));
        assert!(
            find_in(&[], "semianalysis_cc_traces_weka_061526_256k", None).unwrap_err().0.contains("not supported yet")
        );
    }

    #[test]
    fn filters_are_those_of_the_dataset() {
        let set = |name: &str| Format::Hub(SETS.iter().position(|set| set.name == name).unwrap() as u8);
        let check = |format: Format, name: &str, value: &str| {
            check_filters(format, &BTreeMap::from([(name.to_owned(), value.to_owned())])).map_err(|e| e.0)
        };
        assert_eq!(check(set("exgentic"), "harness", "Claude_Code"), Ok(()));
        assert_eq!(check(set("exgentic_v2"), "benchmark", "swebench"), Ok(()));
        for (format, name, value, said) in [
            (set("exgentic"), "benchmark", "swebench", "exgentic has the filters harness, source_model"),
            (set("exgentic"), "harness", "x", "--dataset-filter harness=x: expected one of claude_code, "),
            (set("aimo"), "harness", "x", "goes only with exgentic and exgentic_v2, and this is aimo"),
            (Format::SingleTurn, "harness", "x", "and this is single_turn"),
        ] {
            let wrong = check(format, name, value).unwrap_err();
            assert!(wrong.contains(said), "{wrong}");
        }
    }
}
