//! The text of `--prompt-corpus coding`: code, logs, configuration and talk of them, from templates with names put in.

use crate::seed::Stream;

const TEMPLATES: &str = include_str!("../../../data/coding.txt");

/// Times each template is used, every time with other names.
const ROUNDS: usize = 24;

const VERBS: [&str; 12] =
    ["load", "index", "merge", "check", "render", "fetch", "pack", "sort", "flush", "scan", "batch", "filter"];
const NOUNS: [&str; 16] = [
    "order", "session", "token", "batch", "record", "packet", "account", "tensor", "invoice", "shard", "message",
    "worker", "ticket", "query", "block", "device",
];
const SERVICES: [&str; 10] =
    ["ledger", "gateway", "cache", "router", "scheduler", "billing", "catalog", "mailer", "broker", "storage"];
const FIELDS: [&str; 12] = [
    "size", "weight", "status", "latency", "priority", "total", "offset", "version", "region", "depth", "width",
    "owner",
];

/// The whole text, the same for every run: prompts differ by where they are cut out of it.
pub(super) fn text() -> String {
    let mut stream = Stream::new(0, "dataset.coding_content.template");
    let templates: Vec<&str> = TEMPLATES.split("\n----\n").map(str::trim_end).collect();
    let mut text = String::new();
    for _ in 0..ROUNDS {
        let mut order: Vec<&str> = templates.clone();
        for i in (1..order.len()).rev() {
            order.swap(i, stream.below(i as u64 + 1) as usize);
        }
        for template in order {
            put(template, &mut stream, &mut text);
            text.push_str("\n\n");
        }
    }
    text
}

/// Appends `template` with its names put in; the same name stands everywhere in it.
fn put(template: &str, stream: &mut Stream, out: &mut String) {
    let mut one_of = |names: &[&'static str]| names[stream.below(names.len() as u64) as usize];
    let names = [
        ("verb", one_of(&VERBS)),
        ("noun", one_of(&NOUNS)),
        ("service", one_of(&SERVICES)),
        ("field", one_of(&FIELDS)),
    ];
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        out.push_str(&rest[..open]);
        rest = &rest[open..];
        let key = rest[1..].find('}').map(|close| &rest[1..=close]).unwrap_or_default();
        let Some(value) = value(key, &names, stream) else {
            out.push('{');
            rest = &rest[1..];
            continue;
        };
        out.push_str(&value);
        rest = &rest[key.len() + 2..];
    }
    out.push_str(rest);
}

/// What stands for `key`; capitals in it are capitals in the name.
fn value(key: &str, names: &[(&str, &'static str)], stream: &mut Stream) -> Option<String> {
    match key {
        "number" => return Some((10 + stream.below(9990)).to_string()),
        "digit" => return Some((1 + stream.below(9)).to_string()),
        _ => {}
    }
    let (_, name) = names.iter().find(|(known, _)| key.eq_ignore_ascii_case(known))?;
    let mut name = (*name).to_owned();
    if key.bytes().all(|b| b.is_ascii_uppercase()) {
        name.make_ascii_uppercase();
    } else if key.starts_with(|first: char| first.is_ascii_uppercase()) {
        name[..1].make_ascii_uppercase();
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_has_its_names_put_in() {
        let text = text();
        for key in ["verb", "Noun", "service", "FIELD", "number", "digit"] {
            assert!(!text.contains(&format!("{{{key}}}")), "{key}");
        }
        assert!(text.len() > 100_000, "{}", text.len());
        assert_eq!(text, super::text());
    }

    #[test]
    fn a_brace_that_names_nothing_stays() {
        let mut out = String::new();
        put("{ {Noun}: {x} {NOUN} {", &mut Stream::new(1, "test"), &mut out);
        assert!(out.starts_with("{ ") && out.contains(": {x} ") && out.ends_with(" {"), "{out}");
    }
}
