//! Tokenizers of real models: their counts, and prompts made for them.

use maser_datasets::file::{self, Format};
use maser_datasets::lengths::Lengths;
use maser_datasets::sequence::Sequence;
use maser_datasets::synthetic::{Options, Prefix};
use maser_datasets::tokens::{Found, Message};
use maser_datasets::{Conversation, Spec, Tokenizer, texts};
use proptest::prelude::*;
use serde_json::Value;
use std::path::PathBuf;

const COUNTS: &str = include_str!("data/token_counts.json");
const QUESTIONS: &str = include_str!("data/mt_bench_question.jsonl");
const SONNETS: &str = include_str!("../data/sonnet.txt");

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn model(name: &str) -> Tokenizer {
    Tokenizer::open(&data(name)).unwrap()
}

/// The text that a key of the counts stands for.
fn text(key: &str, counts: &Value) -> String {
    if key == "sonnet.txt" {
        return SONNETS.to_owned();
    }
    let Some(place) = key.strip_prefix("mt_bench/") else {
        return counts["extra_texts"][key.trim_start_matches("extra/")].as_str().unwrap().to_owned();
    };
    let (question, turn) = place.split_once('/').unwrap();
    let question: u64 = question.parse().unwrap();
    let rows = QUESTIONS.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let row = rows.into_iter().find(|row| row["question_id"] == question).unwrap();
    row["turns"][turn.parse::<usize>().unwrap()].as_str().unwrap().to_owned()
}

#[test]
fn counts_are_those_of_the_models_own_tokenizers() {
    let counts: Value = serde_json::from_str(COUNTS).unwrap();
    for name in ["qwen3", "minilm"] {
        let tokenizer = model(name);
        let of = counts["counts"][name].as_object().unwrap();
        assert_eq!(of.len(), 164);
        for (key, count) in of {
            assert_eq!(Some(tokenizer.count(&text(key, &counts)) as u64), count.as_u64(), "{name} {key}");
        }
    }
}

#[test]
fn special_tokens_are_those_around_one_text() {
    assert_eq!(Tokenizer::builtin().special_tokens_around(), 0);
    assert_eq!(model("qwen3").special_tokens_around(), 0);
    assert_eq!(model("minilm").special_tokens_around(), 2);
}

#[test]
fn a_real_chat_template_is_the_one_transformers_renders() {
    let tokenizer = model("qwen3").with_chat_template().unwrap();
    // Counted with Python's Jinja and the same tokenizer file.
    for (messages, tokens) in [
        (&[("user", "Shall I compare thee to a summer day?")][..], 20),
        (&[("system", "Be kind."), ("user", "Shall I compare thee")], 24),
        (
            &[
                ("system", "Be kind."),
                ("user", "Shall I"),
                ("assistant", "<think>x</think>Thou art"),
                ("user", "more lovely"),
            ],
            39,
        ),
    ] {
        let messages: Vec<Message<'_>> = messages.iter().map(|&(role, content)| Message { role, content }).collect();
        assert_eq!(tokenizer.count_chat(&messages), Some(tokens), "{messages:?}");
    }
    assert_eq!(model("minilm").with_chat_template().unwrap().count_chat(&[]), None);
}

#[test]
fn prompts_in_a_real_chat_template_have_the_asked_length() {
    let tokenizer = model("qwen3").with_chat_template().unwrap();
    let sequence = Sequence::Independent { isl: Some(Lengths::normal(120.0, 30.0)), osl: None };
    let options = Options { sequence, turns: Lengths::fixed(3), ..Options::default() };
    for conversation in build(&options, &tokenizer) {
        let mut messages = Vec::new();
        let mut added = 0;
        for turn in &conversation.turns {
            messages.push(Message { role: "user", content: turn.all_texts().next().unwrap() });
            added += turn.input_tokens.unwrap() as usize;
            assert_eq!(tokenizer.count_chat(&messages), Some(added));
            messages.push(Message { role: "assistant", content: "Thou art" });
            added += tokenizer.count("Thou art");
        }
        assert_eq!(conversation.turns.len(), 3);
    }
}

#[test]
fn rows_of_files_are_counted_as_a_real_chat_template_writes_them() {
    let tokenizer = model("qwen3").with_chat_template().unwrap();
    let dir = tempfile::tempdir().unwrap();
    // Counted with transformers and the same files.
    for (format, row, counts) in [
        ("single_turn", r#"{"text":"Shall I compare thee"}"#, &[15][..]),
        ("single_turn", r#"{"texts":["to a","summer day"]}"#, &[14]),
        ("multi_turn", r#"{"session_id":"s","turns":[{"text":"Hello there"},{"text":"and more"}]}"#, &[12, 26]),
        ("mooncake_trace", r#"{"timestamp":0,"input_length":40,"output_length":4}"#, &[50]),
        (
            "raw_payload",
            r#"{"messages":[{"role":"system","content":"Be kind."},{"role":"user","content":"Shall I compare thee"}]}"#,
            &[24],
        ),
    ] {
        let path = dir.path().join("rows.jsonl");
        std::fs::write(&path, row).unwrap();
        let format = Some(Format::from_name(format).unwrap());
        let spec = Spec::File(Box::new(file::Options { path, format, ..file::Options::default() }));
        let mut all = Vec::new();
        spec.build(Some(&tokenizer), &mut |conversation| {
            all.push(conversation);
            Ok(())
        })
        .unwrap();
        let counted: Vec<u32> = (0..counts.len()).map(|k| all[0].input_tokens(k).unwrap()).collect();
        assert_eq!(counted, counts, "{row}");
    }
}

fn build(options: &Options, tokenizer: &Tokenizer) -> Vec<Conversation> {
    let mut all = Vec::new();
    let sink = &mut |conversation| {
        all.push(conversation);
        Ok(())
    };
    Spec::Synthetic(Box::new(options.clone())).build(Some(tokenizer), sink).unwrap();
    all
}

fn tokenizers() -> Vec<Tokenizer> {
    let named = |name| Tokenizer::open_found(&Found::BuiltIn(name)).unwrap();
    vec![Tokenizer::builtin(), named("cl100k_base"), named("r50k_base"), model("qwen3"), model("minilm")]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn generated_texts_are_encoded_to_the_asked_length(
        isl in 4u32..1200,
        prefix in 1u32..200,
        source in prop::sample::select(vec![texts::Source::Sonnet, texts::Source::Coding, texts::Source::Random]),
        seed: u64,
    ) {
        thread_local!(static ALL: Vec<Tokenizer> = tokenizers());
        let all = ALL.with(Clone::clone);
        for tokenizer in &all {
            let special = tokenizer.special_tokens_around();
            let options = Options {
                entries: 3,
                sequence: Sequence::Independent { isl: Some(Lengths::fixed(isl)), osl: None },
                source,
                seed,
                ..Options::default()
            };
            let pooled = Options { prefix: Prefix::Pool { count: 2, length: prefix }, ..options.clone() };
            for (options, want) in [(options, isl - special), (pooled, prefix + isl - special)] {
                for conversation in build(&options, tokenizer) {
                    let turn = &conversation.turns[0];
                    let text = turn.all_texts().next().unwrap();
                    prop_assert_eq!(tokenizer.count(text) as u32, want, "{:?} {:?}", tokenizer, text);
                    prop_assert_eq!(turn.input_tokens, Some(want));
                }
            }
        }
    }
}
