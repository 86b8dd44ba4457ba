//! Options of generated data, resolved.

use super::{FILE, argv, resolve, run};
use crate::args::{self, Stop};
use crate::config::Input;
use crate::values::Lengths;
use maser_datasets::media::{audio, images, video};
use maser_datasets::sequence::{Range, Sequence, Style, pairs};
use maser_datasets::synthetic::{Delay, Options, Prefix};
use maser_datasets::{rankings, texts};
use serde_json::json;

const MODEL: &str = "-m mock --tokenizer builtin";

fn options(words: &str) -> Options {
    match run(&format!("{MODEL} {words}")).input {
        Input::Synthetic(made) => made.options,
        Input::File { .. } => panic!("{words}: a file"),
    }
}

#[test]
fn options_become_what_is_generated() {
    let independent = |isl, osl| Sequence::Independent { isl: Some(isl), osl };
    let default = Options::default;
    for (words, want) in [
        (
            "--conversation-turn-mean 4 --session-turns-stddev 1.5 --session-turn-delay-mean 200 \
             --conversation-turn-delay-stddev 20 --session-delay-ratio 0.5",
            Options {
                turns: Lengths::normal(4.0, 1.5),
                delay: Delay { mean_ms: 200.0, stddev_ms: 20.0, ratio: 0.5 },
                ..default()
            },
        ),
        (
            "--isl 64 --isl-stddev 0.5 --osl {\"min\":2,\"max\":9} -b 3 --prompt-corpus coding",
            Options {
                sequence: independent(Lengths::normal(64.0, 0.5), Some(Lengths::uniform(2, 9))),
                batch: 3,
                source: texts::Source::Coding,
                ..default()
            },
        ),
        (
            "--seq-dist 256|10,128|5:60;512,256:40",
            Options { sequence: Sequence::Pairs(pairs("256|10,128|5:60;512,256:40").expect("pairs")), ..default() },
        ),
        (
            "--random-range-ratio 0.25 --random-corpus-style sglang --isl 100 --osl 40",
            Options {
                sequence: Sequence::Range(Range { isl: 100, osl: 40, input: 0.25, output: 0.25, style: Style::Sglang }),
                ..default()
            },
        ),
        (
            "--num-prefix-prompts 5 --prompt-prefix-length 64",
            Options { prefix: Prefix::Pool { count: 5, length: 64 }, ..default() },
        ),
        (
            "--shared-system-prompt-length 30 --user-context-prompt-length 7",
            Options { prefix: Prefix::Messages { system: Some(30), context: Some(7) }, ..default() },
        ),
        ("--num-prompts 7 --request-count 9", Options { entries: 7, ..default() }),
        ("--request-count 9", Options { entries: 9, ..default() }),
        ("--request-count 9 --num-sessions 4", Options { entries: 4, ..default() }),
    ] {
        assert_eq!(options(words), want, "{words}");
    }
}

#[test]
fn rankings_have_lengths_of_their_own() {
    let made = options("--endpoint-type nim_rankings");
    assert_eq!(made.rankings, Some(rankings::Options::default()));
    let made =
        options("--endpoint-type cohere_rankings --rankings-passages-mean 3 --rankings-query-prompt-token-mean 8");
    let want = rankings::Options {
        passages: Lengths::fixed(3),
        query_tokens: Lengths::fixed(8),
        ..rankings::Options::default()
    };
    assert_eq!(made.rankings, Some(want));
    let config = run(&format!("{MODEL} --endpoint-type nim_rankings --isl 5"));
    assert!(config.notes[0].starts_with("--isl has no effect: a ranking's lengths"), "{:?}", config.notes);
}

#[test]
fn any_option_of_a_medium_adds_it() {
    let none = options("");
    assert_eq!((none.images, none.audio, none.video), (None, None, None));
    let side = |mean, stddev| Lengths { max: images::MAX_SIDE, ..Lengths::normal(mean, stddev) };
    let made = options("--image-height-mean 64 --image-height-stddev 2 --image-format png --isl 0");
    let want = images::Options { height: side(64.0, 2.0), format: images::Format::Png, ..images::Options::default() };
    assert_eq!(made.images, Some(want));
    assert_eq!(made.sequence, Sequence::Independent { isl: None, osl: None });
    assert_eq!(options("--batch-size-image 0").images, None);

    let made = options("--audio-depths 8,16 --audio-sample-rates 8 44.1 --audio-num-channels 2");
    let want =
        audio::Options { depths: vec![8, 16], rates: vec![8_000, 44_100], channels: 2, ..audio::Options::default() };
    assert_eq!(made.audio, Some(want));

    let made = options("--video-width 64 --video-height 48 --video-audio-num-channels 1 --video-synth-type grid_clock");
    let sound = video::Sound { rate: 44_100, channels: 1, depth: 16, codec: None };
    let pattern = video::Pattern::GridClock;
    assert_eq!(made.video, Some(video::Options { pattern, sound: Some(sound), ..video::Options::of_size(64, 48) }));
}

#[test]
fn options_that_do_not_go_together_are_refused_by_name() {
    for (words, said) in [
        ("--isl {\"mean\":5,\"median\":4} --isl-stddev 2", "--isl-stddev goes with a number for --isl"),
        ("--isl {\"mean\":5,\"median\":9}", "--isl: a lognormal's `mean` 5 cannot lie below"),
        ("--isl {\"men\":5}", "--isl {\"men\":5}: not a distribution of lengths"),
        ("--isl 128,512", "--isl 128,512: sweeps are not supported yet"),
        ("--seq-dist 256,128:99", "--seq-dist 256,128:99: the percentages sum to 99"),
        ("--seq-dist 1,1:100 --random-range-ratio 0.1", "--seq-dist and --random-range-ratio both set"),
        ("--random-range-ratio 0.1", "--random-range-ratio 0.1: it needs --isl and --osl"),
        ("--random-range-ratio 0.1 --isl 5 --osl 0", "--random-range-ratio 0.1: it needs --isl and --osl"),
        ("--random-range-ratio 1 --isl 5 --osl 5", "--random-range-ratio 1: expected at least 0 and less than 1"),
        ("--random-range-ratio 0.1 --isl 5 --osl 5 --osl-stddev 1", "--osl-stddev and --random-range-ratio both"),
        ("--random-corpus-style vllm", "--random-corpus-style says how --random-range-ratio"),
        ("--num-prefix-prompts 3", "--num-prefix-prompts needs their length"),
        ("--prefix-prompt-length 3", "--prefix-prompt-length needs their number"),
        ("--num-prefix-prompts 0 --prefix-prompt-length 3", "--num-prefix-prompts 0: expected a whole number"),
        (
            "--num-prefix-prompts 3 --prefix-prompt-length 3 --user-context-prompt-length 3",
            "--user-context-prompt-length and --num-prefix-prompts exclude",
        ),
        ("--system-prompt a --shared-system-prompt-length 3", "--system-prompt and --shared-system-prompt-length both"),
        ("--system-prompt a --system-prompt-file FILE", "--system-prompt and --system-prompt-file both"),
        ("--system-prompt=", "--system-prompt: the text is empty"),
        ("--system-prompt-file /no/such", "--system-prompt-file /no/such: "),
        ("--system-prompt a --endpoint-type completions", "--system-prompt: completions has no system prompt"),
        ("--conversation-turn-delay-stddev 3", "--conversation-turn-delay-stddev needs a mean"),
        (
            "--conversation-turn-mean 2 --endpoint-type completions",
            "--conversation-turn-mean: completions takes single",
        ),
        ("--rankings-passages-mean 2", "--rankings-passages-mean goes with a ranking endpoint"),
        (
            "--rankings-passages-stddev 2 --endpoint-type nim_rankings",
            "--rankings-passages-stddev needs a mean to spread around",
        ),
        (
            "--cache-bust warmup_isolation_system --endpoint-type embeddings",
            "--cache-bust warmup-isolation-system: it is for chat, responses and messages; embeddings has no place",
        ),
        (
            "--cache-bust system_prefix --endpoint-type completions",
            "--cache-bust system-prefix: it is for chat, responses and messages; completions has no place",
        ),
        ("--image-width-mean 64 --endpoint-type completions", "--image-width-mean: completions takes no images"),
        ("--image-source-sampling shuffle_cycle", "--image-source-sampling: noise has no pictures"),
        ("--image-source /no/such", "--image-source /no/such: no such directory"),
        ("--image-width-mean 99999", "--image-width-mean: the centre 99999"),
        ("--audio-length-mean 5 --endpoint-type embeddings", "--audio-length-mean: embeddings takes no audio"),
        ("--audio-depths 12", "--audio-depths 12: expected 8, 16"),
        ("--audio-format mp3 --audio-sample-rates 96", "--audio-sample-rates: MP3 has no 96000 Hz"),
        ("--video-fps 4", "--video-fps: a video needs both --video-width and --video-height"),
        ("--video-width 64 --video-height 63", "--video-height 63: expected an even number"),
        (
            "--video-width 64 --video-height 64 --video-audio-codec aac",
            "--video-audio-codec aac: the videos have no sound",
        ),
        ("--isl 5 --endpoint-type image_retrieval --image-width-mean 9", "--isl: image_retrieval takes no text"),
        ("--input-file FILE --conversation-turn-mean 2", "--conversation-turn-mean is for generated prompts"),
        ("--input-file FILE --seq-dist 1,1:100", "--seq-dist is for generated prompts"),
        ("--input-file FILE --image-width-mean 2", "--image-width-mean is for generated prompts"),
        ("--input-file FILE --rankings-passages-mean 2", "--rankings-passages-mean is for generated prompts"),
    ] {
        let line = format!("{MODEL} {words}").replace("FILE", FILE);
        let words: Vec<&str> = line.split(' ').collect();
        let why = match args::parse(&argv(&words)) {
            Err(Stop::Refused(refusal)) => refusal.to_string(),
            _ => resolve(&words).err().unwrap_or_else(|| panic!("{line} was taken")),
        };
        assert!(why.starts_with(&said.replace("FILE", FILE)), "{line}: {why}");
        assert!(!why.contains('\n') && !why.ends_with('.'), "{line}: {why}");
    }
    let why = resolve(&["-m", "x", "--endpoint-type", "audio_transcription", "--tokenizer", "builtin"]).unwrap_err();
    assert!(why.starts_with("--tokenizer: audio_transcription neither takes nor gives tokens"), "{why}");
}

#[test]
fn what_has_no_effect_is_noted() {
    for (words, said) in [
        ("--seq-dist 1,1:100 --isl 5", "--isl has no effect with --seq-dist"),
        ("--conversation-turn-delay-mean 5", "--conversation-turn-delay-mean has no effect"),
        ("--conversation-turn-delay-ratio 5", "--conversation-turn-delay-ratio has no effect"),
        ("--tokenizer-trust-remote-code", "--tokenizer-trust-remote-code has no effect"),
        ("--apply-chat-template", "--apply-chat-template has no effect: the tokenizer has no chat template"),
        (
            "--cache-bust warmup-isolation-system",
            "--cache-bust warmup-isolation-system: without a warmup nothing is marked",
        ),
    ] {
        let config = run(&format!("{MODEL} {words}"));
        assert!(config.notes.len() == 1 && config.notes[0].starts_with(said), "{words}: {:?}", config.notes);
    }
    let placeholder = run("-m mock");
    assert!(placeholder.notes[0].ends_with("mock is the name of no model in particular"), "{:?}", placeholder.notes);
}

#[test]
fn tokenizers_have_names() {
    assert_eq!(run("-m x --tokenizer cl100k_base").tokenizer.name(), "cl100k_base");
    let shown = run("-m x --tokenizer o200k_base --tokenizer-revision v2 --apply-chat-template").input_config();
    assert_eq!(shown["tokenizer"], json!({"name": "builtin", "revision": "v2", "apply_chat_template": true}));
}

#[test]
fn generated_data_shows_in_the_files() {
    let shown = |words: &str| run(&format!("{MODEL} {words}")).input_config()["datasets"][0].to_string();
    assert_eq!(
        shown(
            "--num-prompts 12 --random-seed 42 --isl 64 --osl 16 --conversation-turn-mean 3 --conversation-turn-stddev 1 \
             --conversation-turn-delay-mean 100 --conversation-turn-delay-stddev 0"
        ),
        "{\"name\":\"main\",\"type\":\"synthetic\",\"entries\":12,\"random_seed\":42,\"prompts\":{\"isl\":{\"mean\":64.0},\
         \"osl\":{\"mean\":16.0}},\"turns\":{\"mean\":3.0,\"stddev\":1.0},\"turn_delay\":{\"mean\":100.0,\"stddev\":0.0}}"
    );
    assert_eq!(
        shown("--isl {\"mean\":9,\"median\":4,\"max\":50} --image-format png"),
        "{\"name\":\"main\",\"type\":\"synthetic\",\"prompts\":{\"isl\":{\"mean\":9.0,\"median\":4.0,\"max\":50}},\
         \"images\":{\"batch_size\":1,\"width\":{\"mean\":512.0},\"height\":{\"mean\":512.0},\"format\":\"png\"}}"
    );
}
