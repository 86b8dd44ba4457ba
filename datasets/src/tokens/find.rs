//! Which tokenizer a name means: a built-in vocabulary, a path, or a model in the hub's local cache. Nothing is downloaded.

use std::path::{Path, PathBuf};

use super::tiktoken;
use crate::Error;

/// What a name was found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A vocabulary that is built in, by its tiktoken name.
    BuiltIn(&'static str),
    /// A `tokenizer.json`.
    File(PathBuf),
}

/// Where the hub's client keeps what it has downloaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubCache {
    /// The directory with `models--ORG--NAME` in it.
    pub root: PathBuf,
}

impl HubCache {
    /// The cache of this user: `HF_HUB_CACHE`, else `HF_HOME/hub`, else `~/.cache/huggingface/hub`.
    pub fn of_user() -> Option<Self> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        Self::from_variables(set)
    }

    fn from_variables(set: impl Fn(&str) -> Option<PathBuf>) -> Option<Self> {
        let root = set("HF_HUB_CACHE")
            .or_else(|| set("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| set("HF_HOME").map(|home| home.join("hub")))
            .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("huggingface/hub")))
            .or_else(|| set("HOME").map(|home| home.join(".cache/huggingface/hub")))?;
        Some(Self { root })
    }

    /// The `tokenizer.json` of the model `id` at `revision`: a branch or tag that the cache knows, or a commit.
    fn tokenizer(&self, id: &str, revision: &str) -> Option<PathBuf> {
        let plain = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.contains(['\\', '\0']);
        if !id.split('/').all(plain) || id.split('/').count() > 2 || !revision.split('/').all(plain) {
            return None;
        }
        let model = self.root.join(format!("models--{}", id.replace('/', "--")));
        let commit = std::fs::read_to_string(model.join("refs").join(revision)).ok();
        let commit = commit.as_deref().map_or(revision, str::trim);
        let file = model.join("snapshots").join(commit).join("tokenizer.json");
        file.is_file().then_some(file)
    }
}

/// The tokenizer that `name` means, or `None` where there is none here.
///
/// `builtin` and the tiktoken names come first, then a path of a `tokenizer.json` or of a directory with one, then a model
/// in the hub's cache.
pub fn find(name: &str, revision: &str, cache: Option<&HubCache>) -> Option<Found> {
    if name == "builtin" {
        return Some(Found::BuiltIn("o200k_base"));
    }
    if let Some(known) = tiktoken::NAMES.into_iter().find(|known| *known == name) {
        return Some(Found::BuiltIn(known));
    }
    let path = Path::new(name);
    if path.is_file() {
        return Some(Found::File(path.into()));
    }
    let inside = path.join("tokenizer.json");
    if !name.is_empty() && inside.is_file() {
        return Some(Found::File(inside));
    }
    cache?.tokenizer(name, revision).map(Found::File)
}

/// What to tell a user whose tokenizer was not found.
pub fn not_found(name: &str, revision: &str, cache: Option<&HubCache>) -> Error {
    let place = cache.map_or_else(String::new, |cache| format!(" nor in {} at {revision}", cache.root.display()));
    Error(format!(
        "--tokenizer {name}: not found here{place}, and nothing is downloaded; give the path of a tokenizer.json or of a \
         directory with one, the name of a model in the hub's cache (`hf download {name}` puts it there), or one of \
         builtin, {}",
        tiktoken::NAMES.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_paths_and_the_cache_are_looked_through_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let cache = HubCache { root: dir.path().join("hub") };
        let model = cache.root.join("models--org--name");
        let snapshot = model.join("snapshots/abc123");
        std::fs::create_dir_all(&snapshot).unwrap();
        std::fs::create_dir_all(model.join("refs")).unwrap();
        std::fs::write(model.join("refs/main"), "abc123\n").unwrap();
        std::fs::write(snapshot.join("tokenizer.json"), "{}").unwrap();
        let file = |path: PathBuf| Some(Found::File(path));
        let found = |name: &str, revision: &str| find(name, revision, Some(&cache));
        assert_eq!(found("builtin", "main"), Some(Found::BuiltIn("o200k_base")));
        assert_eq!(found("cl100k_base", "main"), Some(Found::BuiltIn("cl100k_base")));
        assert_eq!(found("org/name", "main"), file(snapshot.join("tokenizer.json")));
        assert_eq!(found("org/name", "abc123"), file(snapshot.join("tokenizer.json")));
        assert_eq!(find("org/name", "main", None), None);
        for (name, revision) in [
            ("org/name", "v2"),
            ("org/other", "main"),
            ("../name", "main"),
            ("org/name", "../main"),
            ("", "main"),
            ("a/b/c", "main"),
        ] {
            assert_eq!(found(name, revision), None, "{name} {revision}");
        }
        let local = dir.path().join("local");
        std::fs::create_dir_all(&local).unwrap();
        std::fs::write(local.join("tokenizer.json"), "{}").unwrap();
        assert_eq!(found(local.to_str().unwrap(), "main"), file(local.join("tokenizer.json")));
        let path = local.join("tokenizer.json");
        assert_eq!(found(path.to_str().unwrap(), "main"), file(path));
    }

    #[test]
    fn the_cache_is_where_the_variables_say() {
        let root = |set: &[(&str, &str)]| {
            let find = |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, v)| PathBuf::from(v));
            HubCache::from_variables(find).map(|cache| cache.root)
        };
        assert_eq!(root(&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "/c"), ("HOME", "/u")]), Some("/c".into()));
        assert_eq!(root(&[("HF_HOME", "/h"), ("HOME", "/u")]), Some("/h/hub".into()));
        assert_eq!(root(&[("HOME", "/u")]), Some("/u/.cache/huggingface/hub".into()));
        assert_eq!(root(&[]), None);
    }
}
