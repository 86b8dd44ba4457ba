//! Whole datasets, generated.

use super::*;
use crate::media::{audio, images};
use crate::tokens::Message;
use crate::tokens::tests::{UNSPLIT_BPE, from_json};
use crate::{Conversation, Spec, Turn};
use proptest::prelude::*;

fn lengths(isl: Lengths, osl: Option<Lengths>) -> Sequence {
    Sequence::Independent { isl: Some(isl), osl }
}

fn build(options: &Options, tokenizer: &Tokenizer) -> Vec<Conversation> {
    let mut all = Vec::new();
    let summary = Spec::Synthetic(Box::new(options.clone()))
        .build(Some(tokenizer), &mut |conversation| {
            all.push(conversation);
            Ok(())
        })
        .unwrap();
    assert_eq!((&*summary.kind, summary.is_trace), ("synthetic", false));
    assert_eq!(summary.conversations, all.len() as u64);
    all
}

#[test]
fn defaults_are_100_prompts_of_550_tokens() {
    let t = Tokenizer::builtin();
    let all = build(&Options::default(), &t);
    assert_eq!(all.len(), 100);
    assert_eq!((all[0].session_id.as_str(), all[99].session_id.as_str()), ("session_000000", "session_000099"));
    for conversation in &all {
        assert_eq!(t.count(conversation.turns[0].all_texts().next().unwrap()), 550);
        assert_eq!(conversation.turns[0].input_tokens, Some(550));
        assert_eq!(conversation.turns[0].max_tokens, None);
    }
}

#[test]
fn a_longer_dataset_starts_with_the_shorter_one() {
    let t = Tokenizer::builtin();
    let options = |entries| Options {
        entries,
        sequence: lengths(Lengths::normal(40.0, 10.0), Some(Lengths::normal(30.0, 5.0))),
        seed: 42,
        ..Options::default()
    };
    let (short, long) = (build(&options(7), &t), build(&options(40), &t));
    assert_eq!(short[..], long[..7]);
    assert_ne!(short, build(&Options { seed: 43, ..options(7) }, &t));
}

#[test]
fn the_number_of_entries_has_an_order_of_precedence() {
    assert_eq!(entries(Some(3), Some(4), Some(5)), 3);
    assert_eq!(entries(None, Some(4), Some(5)), 4);
    assert_eq!(entries(None, None, Some(5)), 5);
    assert_eq!(entries(None, None, None), 100);
}

#[test]
fn a_sink_that_fails_stops_the_build() {
    let mut seen = 0;
    let result = Spec::Synthetic(Box::default()).build(Some(&Tokenizer::builtin()), &mut |_| {
        seen += 1;
        if seen == 3 { Err(Error("full".into())) } else { Ok(()) }
    });
    assert_eq!((result.unwrap_err().0.as_str(), seen), ("full", 3));
}

#[test]
fn without_a_tokenizer_nothing_is_made() {
    let result = Spec::Synthetic(Box::default()).build(None, &mut |_| Ok(()));
    assert!(result.unwrap_err().0.contains("--tokenizer"));
}

fn all_texts(conversations: &[Conversation]) -> Vec<&str> {
    conversations.iter().flat_map(|c| &c.turns).flat_map(Turn::all_texts).collect()
}

#[test]
fn turns_and_delays_are_as_asked() {
    let t = Tokenizer::builtin();
    let options = Options {
        entries: 400,
        turns: Lengths::normal(4.0, 1.0),
        delay: Delay { mean_ms: 800.0, stddev_ms: 100.0, ratio: 0.5 },
        sequence: lengths(Lengths::fixed(3), Some(Lengths::fixed(9))),
        seed: 1,
        ..Options::default()
    };
    let all = build(&options, &t);
    let counts: Vec<f64> = all.iter().map(|c| c.turns.len() as f64).collect();
    let mean = counts.iter().sum::<f64>() / 400.0;
    assert!((mean - 4.0).abs() < 0.15, "{mean}");
    assert!(counts.iter().all(|n| *n >= 1.0));
    assert!(all.iter().all(|c| c.turns[0].delay_ns.is_none()));
    let delays: Vec<f64> =
        all.iter().flat_map(|c| &c.turns[1..]).map(|turn| turn.delay_ns.unwrap() as f64 / 1e6).collect();
    let mean = delays.iter().sum::<f64>() / delays.len() as f64;
    assert!((mean - 400.0).abs() < 6.0, "{mean}");
    for turn in all.iter().flat_map(|c| &c.turns) {
        assert_eq!((turn.input_tokens, turn.max_tokens), (Some(3), Some(9)));
    }
    let texts = all_texts(&all);
    assert!(texts.iter().all(|text| t.count(text) == 3));
}

#[test]
fn a_pool_s_prefixes_are_shared_by_first_turns_and_come_on_top() {
    let t = Tokenizer::builtin();
    let options = Options {
        entries: 60,
        turns: Lengths::fixed(2),
        sequence: lengths(Lengths::fixed(20), None),
        prefix: Prefix::Pool { count: 3, length: 64 },
        ..Options::default()
    };
    let all = build(&options, &t);
    let mut heads = std::collections::BTreeMap::new();
    for conversation in &all {
        let [first, second] = conversation.turns.as_slice() else { panic!("two turns") };
        let text = first.all_texts().next().unwrap();
        assert_eq!((t.count(text), first.input_tokens, second.input_tokens), (84, Some(84), Some(20)));
        *heads.entry(t.decode(&t.encode(text)[..64])).or_insert(0) += 1;
    }
    assert_eq!(heads.len(), 3, "{heads:?}");
}

#[test]
fn heads_are_shared_or_each_conversation_s_own() {
    let t = Tokenizer::builtin();
    let options =
        Options { entries: 5, prefix: Prefix::Messages { system: Some(40), context: Some(30) }, ..Options::default() };
    let spec = Spec::WithSystem { text: "Be kind.".into(), of: Box::new(Spec::Synthetic(Box::new(options.clone()))) };
    let own = build(&options, &t);
    let mut k = 0;
    spec.build(Some(&t), &mut |conversation| {
        assert_eq!(conversation.system, own[k].system.as_ref().map(|own| format!("Be kind.\n\n{own}")));
        let system = conversation.system.as_deref().unwrap();
        assert_eq!(conversation.head_tokens, Some(t.count(system) as u32 + 30));
        k += 1;
        Ok(())
    })
    .unwrap();
    let contexts: std::collections::BTreeSet<&str> = own.iter().filter_map(|c| c.user_context.as_deref()).collect();
    assert_eq!(contexts.len(), 5);
    for conversation in &own {
        assert_eq!(conversation.system, own[0].system);
        assert_eq!(conversation.system.as_deref().map(|text| t.count(text)), Some(40));
        assert_eq!(conversation.user_context.as_deref().map(|text| t.count(text)), Some(30));
        assert_eq!((conversation.head_tokens, conversation.input_tokens(0)), (Some(70), Some(620)));
    }
}

#[test]
fn batches_and_rankings_stand_side_by_side() {
    let t = Tokenizer::builtin();
    let batches = Options { entries: 4, batch: 3, ..Options::default() };
    for conversation in build(&batches, &t) {
        let [texts] = conversation.turns[0].texts.as_slice() else { panic!("one medium") };
        assert_eq!(texts.contents.len(), 3);
        assert!(texts.contents.iter().all(|text| t.count(text) == 550));
        assert_eq!(conversation.turns[0].input_tokens, Some(t.count(&texts.contents.join(" ")) as u32));
    }
    let rankings = Options { entries: 4, rankings: Some(rankings::Options::default()), ..Options::default() };
    for conversation in build(&rankings, &t) {
        let [query, passages] = conversation.turns[0].texts.as_slice() else { panic!("two media") };
        assert_eq!((query.name.as_str(), passages.name.as_str()), ("query", "passages"));
        assert_eq!((query.contents.len(), passages.contents.len()), (1, 10));
        assert_eq!(t.count(&query.contents[0]), 32);
        assert!(passages.contents.iter().all(|text| t.count(text) == 128));
    }
}

#[test]
fn media_stand_beside_or_instead_of_texts() {
    let t = Tokenizer::builtin();
    let side = || Lengths::fixed(8);
    let images = images::Options { batch: 2, width: side(), height: side(), ..images::Options::default() };
    let audio = audio::Options { mean: 0.25, ..audio::Options::default() };
    let options = Options {
        entries: 3,
        sequence: Sequence::Independent { isl: None, osl: None },
        images: Some(images),
        audio: Some(audio),
        ..Options::default()
    };
    for conversation in build(&options, &t) {
        let turn = &conversation.turns[0];
        assert!(turn.texts.is_empty() && turn.videos.is_empty());
        assert_eq!(turn.images[0].contents.len(), 2);
        assert!(turn.images[0].contents[0].starts_with("data:image/jpeg;base64,"));
        assert!(turn.audios[0].contents[0].starts_with("wav,"));
        assert_eq!((turn.audio_seconds, turn.input_tokens), (Some(0.25), Some(0)));
    }
}

/// A word-level tokenizer with a chat template: 3 tokens before a message, 1 after it, 2 at the end.
fn templated() -> (tempfile::TempDir, Tokenizer) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), crate::tokens::tests::WORD_LEVEL).unwrap();
    let template = "{% for m in messages %}start {{ m.role }} : {{ m.content }} end {% endfor %}assistant :";
    std::fs::write(dir.path().join("chat_template.jinja"), template).unwrap();
    let tokenizer = Tokenizer::open(dir.path()).unwrap().with_chat_template().unwrap();
    (dir, tokenizer)
}

#[test]
fn under_a_chat_template_the_whole_request_has_the_length() {
    let (_dir, t) = templated();
    assert!(t.has_chat_template());
    let options = Options {
        entries: 5,
        turns: Lengths::fixed(2),
        sequence: lengths(Lengths::fixed(40), None),
        ..Options::default()
    };
    for conversation in build(&options, &t) {
        let [first, second] = conversation.turns.as_slice() else { panic!("two turns") };
        let message = |content| Message { role: "user", content };
        assert_eq!(t.count_chat(&[message(first.all_texts().next().unwrap())]), Some(40));
        assert_eq!((first.input_tokens, second.input_tokens), (Some(40), Some(44)));
        assert_eq!(t.count(second.all_texts().next().unwrap()), 36);
    }
    let headed = Options { prefix: Prefix::Messages { system: Some(10), context: None }, ..options };
    for conversation in build(&headed, &t) {
        assert_eq!(conversation.turns[0].input_tokens, Some(40));
        assert_eq!(conversation.head_tokens, Some(10 + 4));
        assert_eq!(conversation.input_tokens(1), Some(14 + 40 + 44));
    }
}

#[test]
fn what_cannot_be_generated_names_its_flag() {
    let t = Tokenizer::builtin();
    for (options, said) in [
        (Options { entries: 0, ..Options::default() }, "--num-dataset-entries must"),
        (Options { batch: 0, ..Options::default() }, "--batch-size-text must"),
        (Options { turns: Lengths::fixed(0), ..Options::default() }, "--conversation-turn-mean must"),
        (Options { turns: Lengths::normal(2.0, -1.0), ..Options::default() }, "--conversation-turn-stddev must"),
        (Options { turns: Lengths::fixed(200_000), ..Options::default() }, "--conversation-turn-mean 200000"),
        (
            Options { delay: Delay { mean_ms: -1.0, ..Delay::default() }, ..Options::default() },
            "--conversation-turn-delay-mean must",
        ),
        (Options { prefix: Prefix::Pool { count: 2, length: 0 }, ..Options::default() }, "--prefix-prompt-length must"),
        (
            Options { sequence: Sequence::Independent { isl: None, osl: None }, ..Options::default() },
            "--isl 0 leaves nothing",
        ),
    ] {
        let why = Spec::Synthetic(Box::new(options)).build(Some(&t), &mut |_| Ok(())).unwrap_err().0;
        assert!(why.starts_with(said), "{why}");
    }
}

/// Everything at once, small.
fn golden() -> Options {
    let side = || Lengths::normal(12.0, 3.0);
    Options {
        entries: 12,
        turns: Lengths::normal(2.0, 0.7),
        delay: Delay { mean_ms: 50.0, stddev_ms: 9.0, ratio: 1.5 },
        sequence: lengths(Lengths::normal(30.0, 6.0), Some(Lengths::parse(r#"{"mean": 40, "median": 25}"#).unwrap())),
        batch: 2,
        source: Source::Coding,
        prefix: Prefix::Pool { count: 2, length: 7 },
        images: Some(images::Options {
            width: side(),
            height: side(),
            format: images::Format::Png,
            ..Default::default()
        }),
        audio: Some(audio::Options { mean: 0.02, stddev: 0.005, ..Default::default() }),
        seed: 42,
        ..Options::default()
    }
}

#[test]
fn the_same_seed_gives_the_same_data_on_any_machine_and_number_of_cores() {
    use sha2::{Digest, Sha256};
    let t = Tokenizer::builtin();
    let digest = |options: &Options, cores: usize| {
        let mut hash = Sha256::new();
        options
            .build_on(&mut vec![(); cores], Some(&t), &mut |conversation| {
                for turn in &conversation.turns {
                    let media = [&turn.texts, &turn.images, &turn.audios];
                    let contents = media.map(|media| media.iter().flat_map(|m| m.contents.clone()).collect::<Vec<_>>());
                    let id = &conversation.session_id;
                    hash.update(format!("{id} {:?} {:?} {:?} ", turn.delay_ns, turn.max_tokens, turn.input_tokens));
                    hash.update(format!("{contents:?}"));
                }
                Ok(())
            })
            .unwrap();
        hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let plain = Options { entries: 40, seed: 42, ..Options::default() };
    let random = Options { source: Source::Random, ..plain.clone() };
    for (options, want) in
        [(&plain, "4aa2e4c2f28cbd69"), (&random, "b13963701d426261"), (&golden(), "22f73847b49f10fa")]
    {
        for cores in [1, 2, 5] {
            assert_eq!(digest(options, cores), want, "{cores} cores");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn counts_are_the_drawn_lengths(mean in 1u32..400, stddev in 0f64..50.0, seed: u64) {
        let options = Options { entries: 5, sequence: lengths(Lengths::normal(f64::from(mean), stddev), None), seed, ..Options::default() };
        for t in [Tokenizer::builtin(), from_json(UNSPLIT_BPE)] {
            for conversation in build(&options, &t) {
                let turn = &conversation.turns[0];
                prop_assert_eq!(Some(t.count(turn.all_texts().next().unwrap()) as u32), turn.input_tokens);
                if stddev == 0.0 {
                    prop_assert_eq!(turn.input_tokens, Some(mean));
                }
            }
        }
    }
}
