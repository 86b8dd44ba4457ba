//! Layers point one way. This reads the sources and fails on an arrow that points up or sideways.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The modules of the engine from the bottom up. A module may name those of lower rows, not those of its own.
const LAYERS: &[&[&str]] = &[
    &["clock", "ring", "said"],
    &["record"],
    &["credit", "log", "schedule", "wire"],
    &["endpoint"],
    &["net"],
    &["plan"],
    &["metric"],
    &["report"],
    &["timing", "executor", "collector"],
    &["serve"],
    &["run", "sim"],
];

/// The same for the datasets.
const DATASET_LAYERS: &[&[&str]] = &[
    &["error", "guard", "seed", "parallel"],
    &["conversation", "lengths"],
    &["read", "tokens"],
    &["media"],
    &["generate", "formats"],
    &["public"],
    &["file"],
    &["spec", "tools"],
];

/// Files that import one another in a circle today, outside the datasets, which have none. A circle that is not among them
/// fails the test, and so does one that is gone and still stands here.
const CIRCLES: &[&str] = &[
    "cli/commands/bodies.rs cli/commands/body_cache.rs",
    "cli/export/jsonl.rs cli/export/raw.rs cli/export/trace.rs",
    "engine/src/net/direct.rs engine/src/net/direct/door.rs engine/src/net/direct/kernel.rs engine/src/net/gather.rs engine/src/net/probe.rs \
     engine/src/net/reactor.rs engine/src/net/socket.rs",
];

/// Ways to ask for the time, or to wait for it, behind the clock's back.
const CLOCKS: &[&str] = &[
    "Instant::now",
    "SystemTime",
    "std::time::Instant",
    "thread::sleep",
    "clock_gettime",
    "clock_nanosleep",
    "gettimeofday",
    "Utc::now",
    "Local::now",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&module))
}

/// A crate's files and what each imports: module paths below the crate's root, such as `net::direct`.
struct Crate {
    files: BTreeMap<Vec<String>, PathBuf>,
    /// Names that the root re-exports, and where from.
    exports: BTreeMap<String, Vec<String>>,
}

impl Crate {
    fn read(dir: &'static str) -> Self {
        let base = root().join(dir);
        let module = |path: &Path| -> Vec<String> {
            let below = path.strip_prefix(&base).unwrap().with_extension("");
            let parts = below.iter().map(|p| p.to_string_lossy().into_owned());
            parts.filter(|p| !["mod", "lib", "main"].contains(&p.as_str())).collect()
        };
        let is_test = |path: &PathBuf| path.iter().any(|part| part == "tests" || part == "tests.rs");
        let files = sources(dir).into_iter().filter(|path| !is_test(path)).map(|path| (module(&path), path)).collect();
        let mut this = Self { files, exports: BTreeMap::new() };
        let roots = ["lib.rs", "main.rs"].map(|name| base.join(name));
        for path in roots.iter().filter(|path| path.exists()) {
            for use_ in without_tests(&code(path)).split("pub use ").skip(1) {
                for path in paths(use_) {
                    let (name, of) = path.split_last().unwrap();
                    this.exports.insert(name.clone(), this.resolve(of).unwrap_or_default());
                }
            }
        }
        this
    }

    /// The longest beginning of the path that is a module.
    fn resolve(&self, path: &[String]) -> Option<Vec<String>> {
        (1..=path.len()).rev().map(|n| path[..n].to_vec()).find(|module| self.files.contains_key(module))
    }

    /// The modules that a file's code names, its own ancestors left aside: that a module names what it belongs to is usual.
    fn imports(&self, module: &[String], code: &str) -> BTreeSet<Vec<String>> {
        let mut found = BTreeSet::new();
        let mut add = |path: Vec<String>| {
            let exported = path.first().and_then(|name| self.exports.get(name)).cloned();
            found.extend(self.resolve(&path).or(exported));
        };
        for (at, _) in code.match_indices("crate::") {
            paths(&code[at + "crate::".len()..]).into_iter().for_each(&mut add);
        }
        for (at, _) in code.match_indices("super::") {
            let before = &code[..at];
            let up = 1 + before.len().saturating_sub(before.trim_end_matches("super::").len()) / "super::".len();
            let Some(keep) = module.len().checked_sub(up) else { continue };
            for path in paths(&code[at + "super::".len()..]) {
                add([&module[..keep], &path].concat());
            }
        }
        for use_ in code.split('\n').filter_map(|line| line.split_once("use ").map(|(_, rest)| rest)) {
            for path in paths(use_) {
                add([module, &path].concat());
            }
        }
        found.retain(|to| !module.starts_with(to));
        found
    }

    fn name_of(&self, module: &[String]) -> String {
        let below = self.files[module].strip_prefix(root()).unwrap();
        below.to_string_lossy().into_owned()
    }

    /// The groups of files that import one another in a circle, each as its sorted names.
    fn circles(&self) -> BTreeSet<String> {
        let imports: BTreeMap<_, _> = self
            .files
            .iter()
            .map(|(module, path)| (module, self.imports(module, &without_tests(&code(path)))))
            .collect();
        let reach = |from: &Vec<String>| {
            let (mut seen, mut todo) = (BTreeSet::new(), vec![from.clone()]);
            while let Some(at) = todo.pop() {
                todo.extend(imports[&at].iter().filter(|to| seen.insert((*to).clone())).cloned());
            }
            seen
        };
        let reached: BTreeMap<_, _> = self.files.keys().map(|module| (module, reach(module))).collect();
        let circle = |module: &Vec<String>| {
            let both = self.files.keys().filter(|to| reached[module].contains(*to) && reached[to].contains(module));
            both.map(|to| self.name_of(to)).collect::<Vec<_>>().join(" ")
        };
        self.files.keys().map(circle).filter(|circle| !circle.is_empty()).collect()
    }
}

/// The code before its unit tests.
fn without_tests(code: &str) -> String {
    code.split("#[cfg(test)]\nmod tests {").next().unwrap_or(code).to_owned()
}

/// The paths that a use tree or a path at the beginning of `text` names: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn paths(text: &str) -> Vec<Vec<String>> {
    let mut path = Vec::new();
    let mut rest = text;
    loop {
        let name = name_at(rest);
        if name.is_empty() {
            break;
        }
        path.push(name.to_owned());
        rest = &rest[name.len()..];
        match rest.strip_prefix("::") {
            Some(after) => rest = after,
            None => return vec![path],
        }
    }
    let Some(list) = rest.strip_prefix('{') else { return vec![path] };
    let (mut found, mut depth, mut at_start) = (Vec::new(), 0, true);
    for (at, c) in list.char_indices() {
        match c {
            '}' if depth == 0 => break,
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => at_start = true,
            c if at_start && depth == 0 && !c.is_whitespace() => {
                found.extend(paths(&list[at..]).into_iter().map(|tail| [path.as_slice(), &tail].concat()));
                at_start = false;
            }
            _ => {}
        }
    }
    found
}

fn sources(dir: &str) -> Vec<PathBuf> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join(dir), &mut found);
    found.sort();
    assert!(!found.is_empty(), "{dir} holds no sources");
    found
}

/// The source without its comments.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let kept = text.lines().map(|line| if line.trim_start().starts_with("//") { "" } else { line });
    kept.map(|line| line.split(" // ").next().unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

/// The module path of a source below `engine/src`: `["executor", "pool"]`.
fn module_path(path: &Path) -> Vec<String> {
    let below = path.strip_prefix(root().join("engine/src")).unwrap().with_extension("");
    let parts: Vec<String> = below.iter().map(|p| p.to_string_lossy().into_owned()).collect();
    parts.into_iter().filter(|p| p != "mod" && p != "lib").collect()
}

fn name_at(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// The modules at the root of the crate that a path after `crate::` or its like names: one, or a list in braces.
fn names_after(rest: &str) -> Vec<&str> {
    let Some(list) = rest.strip_prefix('{') else { return vec![name_at(rest)] };
    let mut depth = 0;
    let mut names = Vec::new();
    let mut at_start = true;
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => at_start = true,
            c if at_start && depth == 0 && !c.is_whitespace() => {
                names.push(name_at(&list[at..]));
                at_start = false;
            }
            _ => {}
        }
    }
    names
}

/// The modules at the root of the engine that `code`, in a module `depth` below the root, names.
fn named(code: &str, depth: usize) -> BTreeSet<&str> {
    let mut found: BTreeSet<&str> = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        found.extend(names_after(&code[at + "crate::".len()..]));
    }
    for (at, _) in code.match_indices("super::") {
        if code[..at].ends_with("super::") {
            continue;
        }
        let mut rest = &code[at..];
        let mut up = 0;
        while let Some(after) = rest.strip_prefix("super::") {
            (rest, up) = (after, up + 1);
        }
        // Out of the root's children, or out of a module of tests within one.
        if up >= depth {
            found.extend(names_after(rest).into_iter().filter(|name| layer(name).is_some()));
        }
    }
    found
}

/// Arrows of one source that must not be.
fn bad_arrows(module: &str, code: &str, depth: usize) -> Vec<String> {
    let Some(from) = layer(module) else { return vec![format!("{module} stands in no layer")] };
    let goes_wrong = |to: &&str| *to != module && layer(to).is_none_or(|to| to >= from);
    named(code, depth).into_iter().filter(goes_wrong).map(|to| format!("{module} names {to}")).collect()
}

#[test]
fn no_arrow_of_the_engine_points_up() {
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for path in sources("engine/src") {
        let modules = module_path(&path);
        let Some(module) = modules.first() else { continue };
        seen.insert(module.clone());
        let arrows = bad_arrows(module, &code(&path), modules.len());
        wrong.extend(arrows.into_iter().map(|arrow| format!("{}: {arrow}", path.display())));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    for module in ["clock", "timing", "executor", "collector", "run", "sim"] {
        assert!(seen.contains(module), "{module} was not looked at");
    }
}

#[test]
fn every_module_of_the_engine_has_a_layer() {
    let lib = code(&root().join("engine/src/lib.rs"));
    let modules: Vec<&str> = lib.match_indices("mod ").map(|(at, _)| name_at(&lib[at + 4..])).collect();
    assert!(modules.len() > 10, "{modules:?}");
    for module in modules {
        assert!(layer(module).is_some(), "{module} stands in no layer");
    }
}

#[test]
fn arrows_are_found_however_they_are_written() {
    let cases = [
        ("timing", "use crate::executor::Executor;", 1, "executor"),
        ("timing", "fn f(x: &crate::collector::Source) {}", 1, "collector"),
        ("executor", "use crate::{clock::Instant, timing::Lane};", 2, "timing"),
        ("executor", "use crate::{\n    net::{Wire, Part},\n    collector,\n};", 1, "collector"),
        ("executor", "use super::super::timing::Lane;", 2, "timing"),
        ("collector", "use super::run::Run;", 1, "run"),
        ("clock", "use crate::ring::ring;", 1, "ring"),
        ("record", "use crate::nowhere::Thing;", 1, "nowhere"),
    ];
    for (module, code, depth, to) in cases {
        assert_eq!(bad_arrows(module, code, depth), [format!("{module} names {to}")], "{code}");
    }
    let good = "use crate::{clock::{Instant, Nanos}, net::Part};\nuse super::pool::Pool;\nuse crate::executor::Ends;";
    assert_eq!(bad_arrows("executor", good, 2), Vec::<String>::new());
}

#[test]
fn no_files_import_one_another_in_a_circle_but_those_named() {
    let found: BTreeSet<String> =
        ["engine/src", "datasets/src", "cli"].into_iter().flat_map(|dir| Crate::read(dir).circles()).collect();
    let named: BTreeSet<String> = CIRCLES.iter().map(|circle| (*circle).to_owned()).collect();
    assert_eq!(found, named);
}

#[test]
fn use_trees_name_their_paths() {
    let named = |text: &str| paths(text).iter().map(|path| path.join("::")).collect::<Vec<_>>();
    assert_eq!(named("net::direct::Ring;"), ["net::direct::Ring"]);
    assert_eq!(
        named("{Error, read::{self, jsonl::Row},\n formats};"),
        ["Error", "read::self", "read::jsonl::Row", "formats"]
    );
}

#[test]
fn no_arrow_of_the_datasets_points_up() {
    let datasets = Crate::read("datasets/src");
    let layer = |module: &[String]| {
        let name = module.first().map_or("", String::as_str);
        DATASET_LAYERS.iter().position(|row| row.contains(&name))
    };
    for (module, path) in datasets.files.iter().filter(|(module, _)| !module.is_empty()) {
        let from = layer(module).unwrap_or_else(|| panic!("{} stands in no layer", datasets.name_of(module)));
        for to in datasets.imports(module, &without_tests(&code(path))) {
            let is_below = to[0] == module[0] || layer(&to).is_some_and(|to| to < from);
            assert!(is_below, "{} names {}", datasets.name_of(module), datasets.name_of(&to));
        }
    }
}

#[test]
fn crates_point_one_way() {
    let must_not = [("datasets/src", "maser_engine"), ("engine/src", "maser_cli"), ("engine/src", "maser::")];
    for (dir, name) in must_not {
        for path in sources(dir) {
            assert!(!code(&path).contains(name), "{} names {name}", path.display());
        }
    }
    for (manifest, name) in [
        ("datasets/Cargo.toml", "maser-engine"),
        ("datasets/Cargo.toml", "path = \"..\""),
        ("engine/Cargo.toml", "path = \"..\""),
    ] {
        let text = fs::read_to_string(root().join(manifest)).unwrap();
        assert!(!text.contains(name), "{manifest} names {name}");
    }
}

#[test]
fn time_enters_through_the_clock_alone() {
    let clock = root().join("engine/src/clock.rs");
    for path in ["engine/src", "datasets/src", "cli"].iter().flat_map(|dir| sources(dir)).filter(|p| *p != clock) {
        let code = code(&path);
        for name in CLOCKS {
            assert!(!code.contains(name), "{} asks {name} for the time", path.display());
        }
    }
    // The list means something: the clock itself is on it.
    assert!(CLOCKS.iter().any(|name| code(&clock).contains(name)));
}
