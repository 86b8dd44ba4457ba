//! Layers point one way. This reads the sources and fails on an arrow that points up or sideways.

use std::collections::BTreeSet;
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
