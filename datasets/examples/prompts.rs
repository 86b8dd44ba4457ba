//! Generates prompts and prints how many tokens they have: what generation costs, under `time`.
//!
//! `time cargo run --release -p maser-datasets --example prompts -- TOKENIZER COUNT TOKENS [sonnet|coding|random]`

use maser_datasets::lengths::Lengths;
use maser_datasets::sequence::Sequence;
use maser_datasets::synthetic::Options;
use maser_datasets::texts::Source;
use maser_datasets::{Error, Spec, Tokenizer};

fn main() -> Result<(), Error> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: u32| args.get(at).and_then(|text| text.parse().ok()).unwrap_or(default);
    let tokenizer = Tokenizer::from_name(args.first().map_or("builtin", String::as_str))?;
    let source = match args.get(3).map(String::as_str) {
        Some("coding") => Source::Coding,
        Some("random") => Source::Random,
        _ => Source::Sonnet,
    };
    let options = Options {
        entries: number(1, 1000).into(),
        sequence: Sequence::Independent { isl: Some(Lengths::fixed(number(2, 2000))), osl: None },
        source,
        ..Options::default()
    };
    let mut tokens = 0u64;
    let summary = Spec::Synthetic(Box::new(options)).build(Some(&tokenizer), &mut |conversation| {
        tokens += conversation.turns.iter().filter_map(|turn| turn.input_tokens).map(u64::from).sum::<u64>();
        Ok(())
    })?;
    println!("{} prompts, {tokens} tokens", summary.conversations);
    Ok(())
}
