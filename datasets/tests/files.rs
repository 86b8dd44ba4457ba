//! Files as they are met: formats told apart, rows read, filters applied, wrong ones refused in one sentence.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use maser_datasets::file::{Batch, Format, Options, Replay, Synthesis};
use maser_datasets::lengths::Lengths;
use maser_datasets::{Conversation, Error, Spec, Summary, Tokenizer};
use proptest::prelude::*;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn build(options: &Options, tokenizer: Option<&Tokenizer>) -> Result<(Summary, Vec<Conversation>), Error> {
    let mut all = Vec::new();
    let summary = Spec::File(Box::new(options.clone())).build(tokenizer, &mut |conversation| {
        all.push(conversation);
        Ok(())
    })?;
    assert_eq!(summary.conversations, all.len() as u64);
    Ok((summary, all))
}

/// Builds from a file `rows.jsonl` that holds `bytes`.
fn from_bytes(bytes: impl AsRef<[u8]>, options: Options) -> Result<(Summary, Vec<Conversation>), Error> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.jsonl");
    std::fs::write(&path, bytes).unwrap();
    let result = build(&Options { path: path.clone(), ..options }, Some(&Tokenizer::builtin()));
    result.map_err(|e| Error(e.0.replace(&path.display().to_string(), "rows.jsonl")))
}

fn refused(bytes: impl AsRef<[u8]>, options: Options) -> String {
    from_bytes(bytes, options).unwrap_err().0
}

fn mooncake() -> Options {
    Options { path: data("mooncake_head.jsonl"), seed: 42, ..Options::default() }
}

#[test]
fn single_turn_rows_become_conversations() {
    let rows = "\u{feff}{\"text\":\"Why?\",\"output_length\":64,\"extra\":{\"temperature\":0},\"unknown\":[1]}\r\n\r\n\
        {\"texts\":[\"one\",{\"name\":\"query\",\"contents\":[\"two\",\"three\"]}],\"timestamp\":7.215,\"role\":\"system\",\"model\":\"m\"}\r\n\
        {\"session_id\":\"s\",\"text\":\"t\",\"delay\":2.5}";
    let (summary, all) = from_bytes(rows, Options::default()).unwrap();
    assert_eq!((&*summary.kind, summary.is_trace, summary.requests), ("single_turn", false, 3));
    assert_eq!((summary.first_timestamp_ns, summary.last_timestamp_ns), (Some(7_215_000), Some(7_215_000)));
    let ids: Vec<&str> = all.iter().map(|c| c.session_id.as_str()).collect();
    assert_eq!(ids, ["session_000000", "session_000001", "s"]);
    let [first, second, third] = [0, 1, 2].map(|i| all[i].turns[0].clone());
    assert_eq!(
        (first.texts, first.max_tokens, first.input_tokens),
        (vec!["Why?".to_owned().into()], Some(64), Some(2))
    );
    assert_eq!(serde_json::to_string(&first.extra).unwrap(), "{\"temperature\":0}");
    assert_eq!(second.all_texts().collect::<Vec<_>>(), ["one", "two", "three"]);
    assert_eq!(second.input_tokens, Some(3));
    assert_eq!((second.role.as_deref(), second.model.as_deref()), (Some("system"), Some("m")));
    assert_eq!((third.delay_ns, third.timestamp_ns), (Some(2_500_000), None));
}

#[test]
fn rows_without_an_output_length_take_it_from_osl() {
    let rows = "{\"text\":\"a\",\"output_length\":7}\n{\"text\":\"b\"}\n";
    let (_, all) = from_bytes(rows, Options { osl: Some(Lengths::fixed(33)), ..Options::default() }).unwrap();
    assert_eq!([all[0].turns[0].max_tokens, all[1].turns[0].max_tokens], [Some(7), Some(33)]);
}

#[test]
fn wrong_single_turn_rows_name_file_line_and_field() {
    for (rows, sentence) in [
        ("", "--input-file rows.jsonl: the file has no rows"),
        ("\n \r\n", "--input-file rows.jsonl: the file has no rows"),
        ("{\"text\":\"a\"}\n{\"text\":", "rows.jsonl:2: not valid JSON: EOF while parsing a value at column 8"),
        ("{\"text\":\"a\"}\n[1]", "rows.jsonl:2: a row must be a JSON object"),
        ("{\"text\":5}", "rows.jsonl:1: `text` must be a string (invalid type: integer `5`"),
        ("{\"text\":\"a\",\"texts\":[\"b\"]}", "rows.jsonl:1: `text` and `texts` exclude each other"),
        ("{\"text\":\"a\"}\n{\"text\":\"\"}", "rows.jsonl:2: no content: none of `text`, `image`"),
        ("{\"texts\":[5]}", "rows.jsonl:1: `texts` must be a list of strings or of {name, contents} objects"),
        ("{\"text\":\"a\",\"image\":\"x.png\"}", "rows.jsonl:1: image x.png: there is no such file"),
        ("{\"text\":\"a\",\"output_length\":0}", "rows.jsonl:1: `output_length` must be at least 1"),
        ("{\"text\":\"a\",\"output_length\":-5}", "rows.jsonl:1: `output_length` must be a whole number from 0"),
        (
            "{\"text\":\"a\",\"timestamp\":-1}",
            "rows.jsonl:1: `timestamp` must be a number of milliseconds from 0, not -1",
        ),
        ("{\"text\":\"a\",\"timestamp\":1,\"delay\":1}", "rows.jsonl:1: `timestamp` and `delay` exclude each other"),
        ("{\"text\":\"a\",\"extra\":[]}", "rows.jsonl:1: `extra` must be an object"),
    ] {
        let said = refused(rows, Options::default());
        assert!(said.starts_with(sentence), "{rows}\n said {said}\n not  {sentence}");
    }
    assert_eq!(
        refused(b"{\"text\":\"a\"}\n{\"text\":\"\xff\"}", Options::default()),
        "rows.jsonl:2: not UTF-8 at byte 10"
    );
}

#[test]
fn wrong_mooncake_rows_name_file_line_and_field() {
    let options = Options { format: Some(Format::MooncakeTrace), ..Options::default() };
    for (row, sentence) in [
        (
            "{\"output_length\":5}",
            "a row has exactly one of `input_length`, `text_input`, `messages`, `payload`; found none",
        ),
        (
            "{\"input_length\":5,\"text_input\":\"a\"}",
            "a row has exactly one of `input_length`, `text_input`, `messages`, `payload`; found input_length and text_input",
        ),
        ("{\"text_input\":\"a\",\"hash_ids\":[1]}", "`hash_ids` goes only with `input_length`, not with `text_input`"),
        ("{\"payload\":{\"a\":1},\"tools\":[{}]}", "`tools` goes only with `messages`, not with `payload`"),
        ("{\"input_length\":0}", "`input_length` must be at least 1"),
        ("{\"input_length\":1.5}", "`input_length` must be a whole number from 0 to 16777216, not 1.5"),
        ("{\"input_length\":4000000000}", "`input_length` must be a whole number from 0 to 16777216, not 4000000000"),
        ("{\"input_length\":512,\"hash_ids\":[1,2]}", "2 `hash_ids` of 512 tokens each do not fit `input_length` 512"),
        ("{\"input_length\":5,\"hash_ids\":[\"a\"]}", "`hash_ids` must be a list of whole numbers"),
        ("{\"messages\":[]}", "`messages` must not be empty"),
        ("{\"messages\":[{\"content\":\"a\"}]}", "`messages[0]` must be an object with a `role`"),
        ("{\"payload\":{}}", "`payload` must not be empty"),
        ("{\"text_input\":\"\"}", "`text_input` must not be empty"),
    ] {
        let said = refused(row, options.clone());
        assert!(said.starts_with(&format!("rows.jsonl:1: {sentence}")), "{row}\n said {said}");
    }
}

#[test]
fn mooncake_rows_of_every_kind_are_read() {
    let rows = concat!(
        "{\"timestamp\":7.215,\"session_id\":\"r0\",\"input_length\":64,\"output_length\":16}\n",
        "{\"text_input\":\"hello world\",\"output_length\":0}\n",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"hello world\"}],\"tools\":[{\"name\":\"f\"}]}\n",
        "{\"payload\":{\"prompt\":\"hello\",\"max_tokens\":50},\"extra\":{\"x\":1}}\n",
    );
    let (summary, all) =
        from_bytes(rows, Options { format: Some(Format::MooncakeTrace), ..Options::default() }).unwrap();
    assert_eq!((&*summary.kind, summary.is_trace), ("mooncake_trace", true));
    assert_eq!(summary.rows_adjusted, BTreeMap::from([("output_length 0 raised to 1".into(), 1)]));
    let turns: Vec<_> = all.iter().map(|c| &c.turns[0]).collect();
    assert_eq!(turns.iter().map(|t| t.input_tokens).collect::<Vec<_>>(), [Some(64), Some(2), Some(3), Some(1)]);
    assert_eq!((turns[0].timestamp_ns, turns[0].texts.len()), (Some(7_215_000), 1));
    assert_eq!(turns[1].max_tokens, Some(1));
    assert!(turns[2].messages.is_some() && turns[2].tools.is_some() && turns[2].texts.is_empty());
    assert_eq!(turns[3].payload.as_ref().unwrap().to_string(), "{\"prompt\":\"hello\",\"max_tokens\":50}");
}

#[test]
fn the_head_of_the_mooncake_trace_has_its_lengths_and_shares_its_blocks() {
    let tokenizer = Tokenizer::builtin();
    let (summary, all) = build(&mooncake(), Some(&tokenizer)).unwrap();
    assert_eq!((summary.requests, summary.rows_adjusted.len(), summary.rows_skipped.len()), (60, 0, 0));
    let rows: Vec<serde_json::Value> = std::fs::read_to_string(data("mooncake_head.jsonl"))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for (row, conversation) in rows.iter().zip(&all) {
        let turn = &conversation.turns[0];
        assert_eq!(row["input_length"], tokenizer.count(turn.all_texts().next().unwrap()));
        assert_eq!(row["output_length"], turn.max_tokens.unwrap());
        assert_eq!(row["timestamp"].as_u64().unwrap() * 1_000_000, turn.timestamp_ns.unwrap());
    }
    // Rows 0 and 1 share block 0 and nothing more.
    let [a, b] = [0, 1].map(|i| tokenizer.encode(all[i].turns[0].all_texts().next().unwrap()));
    let shared = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    assert!((512..520).contains(&shared), "{shared}");
    assert_eq!(build(&mooncake(), Some(&tokenizer)).unwrap().1, all);
}

#[test]
fn filters_leave_rows_out_and_count_them() {
    let tokenizer = Tokenizer::builtin();
    let options = Options {
        start_offset_ns: Some(3_000_000_000),
        end_offset_ns: Some(6_000_000_000),
        synthesis_max_isl: Some(4096),
        synthesis_max_osl: Some(100),
        ..mooncake()
    };
    let (summary, all) = build(&options, Some(&tokenizer)).unwrap();
    // Counted in the file by hand.
    let rows: Vec<(u64, u64, u64)> = std::fs::read_to_string(data("mooncake_head.jsonl"))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|r| [&r["timestamp"], &r["input_length"], &r["output_length"]].map(|x| x.as_u64().unwrap()).into())
        .collect();
    let inside = rows.iter().filter(|r| (3000..=6000).contains(&r.0));
    let short: Vec<_> = inside.clone().filter(|r| r.1 <= 4096).collect();
    let lowered = short.iter().filter(|r| r.2 > 100).count() as u64;
    assert!(!short.is_empty() && lowered > 0 && inside.clone().any(|r| r.0 == 3000 || r.0 == 6000));
    assert_eq!(summary.requests, short.len() as u64);
    assert_eq!(summary.rows_skipped["outside the fixed-schedule offsets"], 60 - inside.clone().count() as u64);
    assert_eq!(summary.rows_skipped["input_length above --synthesis-max-isl"], (inside.count() - short.len()) as u64);
    assert_eq!(summary.rows_adjusted["output_length lowered to --synthesis-max-osl"], lowered);
    assert!(all.iter().all(|c| c.turns[0].max_tokens <= Some(100)));

    let nothing = build(&Options { synthesis_max_isl: Some(1), ..mooncake() }, Some(&tokenizer)).unwrap_err();
    assert!(nothing.0.ends_with("every row was left out: 60 input_length above --synthesis-max-isl"), "{nothing}");
}

#[test]
fn times_are_read_to_the_nanosecond() {
    let options = Options { path: data("microsecond_trace.jsonl"), ..Options::default() };
    let (summary, all) = build(&options, Some(&Tokenizer::builtin())).unwrap();
    assert_eq!(summary.first_timestamp_ns, Some(7_215_000));
    assert_eq!(all[1].turns[0].timestamp_ns, Some(101_222_000));
    assert_eq!(all[0].session_id, "r000000");
}

#[test]
fn formats_are_told_apart() {
    for (row, kind) in [
        ("{\"text\":\"a\"}", "single_turn"),
        ("{\"type\":\"single_turn\",\"text\":\"a\"}", "single_turn"),
        ("{\"type\":\"mooncake_trace\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}", "mooncake_trace"),
        ("{\"type\":\"text\",\"input_length\":5}", "mooncake_trace"),
        ("{\"payload\":{\"prompt\":\"a\"}}", "mooncake_trace"),
    ] {
        assert_eq!(from_bytes(row, Options::default()).unwrap().0.kind, kind, "{row}");
    }
    for (row, what) in [
        ("{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}", "mooncake_trace or raw_payload"),
        ("{\"text\":\"a\",\"input_length\":5}", "single_turn or mooncake_trace"),
        ("{\"type\":\"multi_turn\",\"turns\":[]}", "rows.jsonl:1: `turns` must be a list of at least one turn"),
        ("{\"turns\":[{\"messages\":[]}]}", "dag_jsonl, which is not supported yet"),
        ("{\"turns\":[{\"text\":\"a\"}],\"input_length\":5}", "multi_turn or another format"),
        ("{\"round_index\":0,\"timing_events\":[]}", "tracelab, which is not supported yet"),
        ("{\"id\":1,\n\"block_size\":64,\"requests\":[]}", "weka_trace, which is not supported yet"),
        ("{\"type\":\"dag-jsonl\",\"text\":\"a\"}", "dag_jsonl, which is not supported yet"),
        ("{\"a\":1}", "no format has such rows"),
        ("a,b\n1,2\n", "a row must be a JSON object"),
    ] {
        let said = refused(row, Options::default());
        assert!(said.contains(what), "{row}\n said {said}");
    }
}

#[test]
fn types_of_the_reference_are_known_by_name() {
    for format in Format::ALL {
        assert_eq!(Format::from_name(&format.name().to_uppercase().replace('_', "-")), Ok(format));
    }
    let split = Format::from_name("speed_bench_throughput_8k").unwrap();
    assert_eq!(split.name(), "speed_bench_throughput_8k");
    for name in ["tracelab", "WEKA_TRACE", "dag_jsonl"] {
        assert!(Format::from_name(name).unwrap_err().0.starts_with("not supported yet by this version"), "{name}");
    }
    assert!(Format::from_name("speed_bench_nothing").unwrap_err().0.starts_with("expected one of single_turn, "));
}

#[test]
fn options_that_do_not_fit_are_refused() {
    let text = "{\"text\":\"a\"}";
    for (options, flag) in [
        (Options { synthesis_max_isl: Some(5), ..Options::default() }, "--synthesis-max-isl goes only with traces"),
        (Options { isl_block_size: Some(5), ..Options::default() }, "--isl-block-size goes only with traces that"),
        (
            Options { synthesis: Synthesis { prefix: 2.0, ..Synthesis::default() }, ..Options::default() },
            "--synthesis-prefix-len-multiplier goes only with traces",
        ),
        (
            Options { replay: Replay { omit_kv_hints: true, ..Replay::default() }, ..Options::default() },
            "--omit-kv-hints goes only with baseten_trace, and this is single_turn",
        ),
        (
            Options { batch: Batch { images: Some(2), ..Batch::default() }, ..Options::default() },
            "--batch-size-image goes with generated prompts and random_pool",
        ),
        (Options { start_offset_ns: Some(5), ..Options::default() }, "rows.jsonl:1: no `timestamp`"),
        (Options { start_offset_ns: Some(5), end_offset_ns: Some(4), ..Options::default() }, "--fixed-schedule-start"),
        (Options { osl: Some(Lengths::normal(0.0, 0.0)), ..Options::default() }, "--osl must"),
    ] {
        let said = refused(text, options);
        assert!(said.starts_with(flag), "{said}");
    }
    let said = build(&mooncake(), None).unwrap_err().0;
    assert!(
        said.ends_with("mooncake_head.jsonl:1: mooncake_trace rows with a length need a tokenizer; give --tokenizer"),
        "{said}"
    );
    let missing = build(&Options { path: "no/such".into(), ..Options::default() }, None).unwrap_err();
    assert_eq!(missing.0, "--input-file no/such: there is no such file");
    let format = Some(Format::SingleTurn);
    let directory = build(&Options { path: data(""), format, ..Options::default() }, None).unwrap_err();
    assert!(directory.0.contains("this is a directory; only random_pool"), "{directory}");
}

#[test]
fn many_rows_keep_their_order() {
    let rows: String = (0..5000).map(|i| format!("{{\"text\":\"row {i}\",\"timestamp\":{i}}}\n")).collect();
    let (_, all) = from_bytes(rows, Options::default()).unwrap();
    assert!(all.iter().enumerate().all(|(i, c)| c.turns[0].all_texts().eq([format!("row {i}")])));
    assert_eq!(all[4999].session_id, "session_004999");
}

#[test]
fn without_a_tokenizer_given_texts_are_not_counted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.jsonl");
    std::fs::write(&path, "{\"text\":\"a\"}").unwrap();
    let (_, all) = build(&Options { path, ..Options::default() }, None).unwrap();
    assert_eq!(all[0].turns[0].input_tokens, None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        for format in [None].into_iter().chain(Format::ALL.map(Some)) {
            let _ = from_bytes(&bytes, Options { format, ..Options::default() });
        }
    }

    #[test]
    fn no_row_of_known_fields_panics(
        fields in proptest::collection::vec((
            prop::sample::select(vec!["text", "texts", "type", "timestamp", "delay", "output_length", "input_length",
                "hash_ids", "messages", "payload", "tools", "extra", "session_id", "text_input", "role", "turns",
                "chat_id", "parent_chat_id", "turn", "conversations", "data", "question_id", "category", "captureData",
                "eventMetadata", "image_uuids"]),
            prop::sample::select(vec!["1", "0", "-1", "1e400", "7.215", "null", "true", "\"a\"", "\"\\u0000\"", "[]",
                "[1]", "[-1,18446744073709551615]", "[\"a\"]", "{}", "{\"role\":\"user\"}", "[{\"role\":\"user\"}]",
                "[{\"contents\":[\"b\"]}]", "{\"prompt\":[[1,2]]}", "99999999999", "\"\\ud800\"", "16", "[{\"text\":\"a\"}]",
                "[{\"session_id\":\"s\",\"payloads\":[{}]}]", "{\"endpointInput\":{\"data\":\"e30=\"}}",
                "{\"inferenceTime\":\"2024-01-01T00:00:00Z\"}", "[{\"from\":\"human\",\"value\":\"a\"}]"]),
        ), 0..6),
        format in prop::sample::select([None].into_iter().chain(Format::ALL.map(Some)).collect::<Vec<_>>()),
        block in prop::option::of(1u32..64),
    ) {
        let body: Vec<String> = fields.iter().map(|(k, v)| format!("\"{k}\":{v}")).collect();
        let row = format!("{{{}}}", body.join(","));
        match from_bytes(&row, Options { format, isl_block_size: block, entries: Some(1), ..Options::default() }) {
            Ok((summary, _)) => prop_assert!(summary.requests >= 1),
            Err(e) => prop_assert!(!e.0.is_empty() && !e.0.contains('\n')),
        }
    }
}
