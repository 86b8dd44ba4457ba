//! Traces whose prompts are made: lengths, blocks, sessions.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use maser_datasets::Tokenizer;
use maser_datasets::file::Format;

static WORDS: LazyLock<Tokenizer> = LazyLock::new(|| {
    let file = maser_fuzz::file(include_bytes!("../../datasets/tests/data/word_level.json"), ".json");
    Tokenizer::open(file.path()).expect("a tokenizer")
});

fuzz_target!(|bytes: &[u8]| {
    for format in [Format::MooncakeTrace, Format::BailianTrace, Format::AzureTrace, Format::BurstGptTrace] {
        maser_fuzz::read(bytes, ".jsonl", Some(format), Some(&WORDS));
    }
});
