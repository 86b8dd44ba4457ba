//! Every format on rows as they are met, and on broken ones.

use std::path::{Path, PathBuf};

use maser_datasets::file::{Batch, Format, Options, Replay, Synthesis};
use maser_datasets::lengths::Lengths;
use maser_datasets::texts::Source;
use maser_datasets::{Context, Conversation, Error, Spec, Summary, Tokenizer};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn build(options: &Options) -> Result<(Summary, Vec<Conversation>), Error> {
    let mut all = Vec::new();
    let summary = Spec::File(Box::new(options.clone())).build(Some(&Tokenizer::builtin()), &mut |conversation| {
        all.push(conversation);
        Ok(())
    })?;
    Ok((summary, all))
}

/// A directory with files of these names.
fn dir(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    dir
}

/// Builds from a file of that content.
fn rows(content: &str, options: Options) -> Result<(Summary, Vec<Conversation>), Error> {
    let dir = dir(&[("rows.jsonl", content)]);
    let path = dir.path().join("rows.jsonl");
    let shown = path.display().to_string();
    build(&Options { path, ..options }).map_err(|e| Error(e.0.replace(&shown, "rows.jsonl")))
}

fn of(format: Format) -> Options {
    Options { format: Some(format), ..Options::default() }
}

fn refused(content: &str, options: Options) -> String {
    rows(content, options).unwrap_err().0
}

fn texts(conversation: &Conversation) -> Vec<String> {
    conversation.turns.iter().map(|turn| turn.all_texts().collect::<Vec<_>>().join("|")).collect()
}

fn times(conversation: &Conversation) -> Vec<Option<u64>> {
    conversation.turns.iter().map(|turn| turn.timestamp_ns).collect()
}

#[test]
fn rows_of_one_session_are_one_conversation_in_the_order_of_first_rows() {
    let file = concat!(
        "{\"text\":\"alone\"}\n",
        "{\"session_id\":\"b\",\"text\":\"b0\"}\n",
        "{\"session_id\":\"a\",\"text\":\"a0\"}\n",
        "{\"text\":\"between\"}\n",
        "{\"session_id\":\"a\",\"text\":\"a1\",\"delay\":5}\n",
        "{\"session_id\":\"c\",\"text\":\"c0\"}\n",
        "{\"session_id\":\"b\",\"text\":\"b1\"}\n",
    );
    let (summary, all) = rows(file, Options::default()).unwrap();
    assert_eq!((summary.conversations, summary.requests), (5, 7));
    let ids: Vec<&str> = all.iter().map(|c| c.session_id.as_str()).collect();
    assert_eq!(ids, ["session_000000", "b", "a", "session_000003", "c"]);
    assert_eq!(texts(&all[1]), ["b0", "b1"]);
    assert_eq!((texts(&all[2]), all[2].turns[1].delay_ns), (vec!["a0".into(), "a1".into()], Some(5_000_000)));
    // Each row of a single_turn session is sent by itself.
    assert_eq!((all[0].context, all[2].context), (Context::DeltasWithoutResponses, Context::MessageArray));
}

#[test]
fn a_session_outlives_the_rows_that_a_filter_takes() {
    let file = concat!(
        "{\"session_id\":\"a\",\"text\":\"a0\",\"timestamp\":0}\n",
        "{\"session_id\":\"a\",\"text\":\"a1\",\"timestamp\":10}\n",
        "{\"session_id\":\"b\",\"text\":\"b0\",\"timestamp\":0}\n",
        "{\"session_id\":\"b\",\"text\":\"b1\",\"timestamp\":1}\n",
        "{\"session_id\":\"c\",\"text\":\"c0\",\"timestamp\":12}\n",
    );
    let (summary, all) = rows(file, Options { start_offset_ns: Some(5_000_000), ..Options::default() }).unwrap();
    assert_eq!(all.iter().map(texts).collect::<Vec<_>>(), [["a1"], ["c0"]]);
    assert_eq!(summary.rows_skipped["outside the fixed-schedule offsets"], 3);
}

#[test]
fn multi_turn_conversations_are_deltas_and_may_have_a_system_prompt() {
    let file = concat!(
        "{\"turns\":[{\"role\":\"system\",\"text\":\"Be brief.\"},{\"text\":\"one\"},{\"text\":\"two\",\"delay\":90000}]}\n",
        "{\"session_id\":\"s\",\"turns\":[{\"role\":\"system\",\"text\":\"only\"}]}\n",
        "{\"session_id\":\"t\",\"turns\":[{\"text\":\"t0\"}]}\n",
        "{\"session_id\":\"t\",\"turns\":[{\"text\":\"t1\",\"output_length\":7}]}\n",
    );
    let options = Options { inter_turn_delay_cap_ns: Some(2_000_000_000), ..Options::default() };
    let (summary, all) = rows(file, options).unwrap();
    assert_eq!((&*summary.kind, summary.requests), ("multi_turn", 5));
    assert_eq!((all[0].system.as_deref(), texts(&all[0])), (Some("Be brief."), vec!["one".into(), "two".into()]));
    assert_eq!(all[0].turns[1].delay_ns, Some(2_000_000_000));
    assert_eq!(summary.rows_adjusted["delay lowered to --inter-turn-delay-cap-seconds"], 1);
    assert_eq!((all[1].system.as_deref(), texts(&all[1])), (None, vec!["only".into()]));
    assert_eq!(texts(&all[2]), ["t0", "t1"]);
    let options = Options { ignore_trace_delays: true, ..Options::default() };
    assert_eq!(rows(file, options).unwrap().1[0].turns[1].delay_ns, None);
    for (row, sentence) in [
        ("{\"turns\":[{\"text\":\"a\"},5]}", "rows.jsonl:1: `turns[1]` must be an object"),
        ("{\"turns\":[{\"text\":\"a\"},{}]}", "rows.jsonl:1: turns[1]: no content"),
        (
            "{\"turns\":[{\"text\":\"a\",\"delay\":-1}]}",
            "rows.jsonl:1: turns[0]: `delay` must be a number of milliseconds",
        ),
        ("{\"turns\":[]}", "rows.jsonl:1: `turns` must be a list of at least one turn"),
        ("{\"turns\":5}", "rows.jsonl:1: `turns` must be a list of objects"),
    ] {
        let said = refused(row, of(Format::MultiTurn));
        assert!(said.starts_with(sentence), "{row}: {said}");
    }
}

#[test]
fn media_are_read_from_files_and_left_alone_otherwise() {
    let png = "\u{89}PNG"; // Not the bytes of one: the é of Latin-1 is two bytes here.
    let dir = dir(&[("rows.jsonl", "{\"text\":\"a\",\"image\":\"p.png\"}\n"), ("p.png", png)]);
    std::fs::write(dir.path().join("q.bin"), b"\x89PNG\r\n\x1a\n").unwrap();
    let path = dir.path().join("rows.jsonl");
    let said = build(&Options { path: path.clone(), ..Options::default() }).unwrap_err().0;
    assert!(said.contains("rows.jsonl:1: image ") && said.ends_with("neither PNG, JPEG, WebP nor GIF by its content"));
    let row =
        "{\"images\":[\"q.bin\",\"https://x/y\",\"data:image/png;base64,AA\"],\"image_uuids\":[\"1\",\"2\",\"3\"]}";
    std::fs::write(&path, row).unwrap();
    let turn = build(&Options { path, ..Options::default() }).unwrap().1.remove(0).turns.remove(0);
    let images: Vec<(&str, &str)> = turn.images.iter().map(|i| (i.contents[0].as_str(), i.uuids[0].as_str())).collect();
    assert_eq!(
        images,
        [("data:image/png;base64,iVBORw0KGgo=", "1"), ("https://x/y", "2"), ("data:image/png;base64,AA", "3")]
    );
    let (_, all) = rows("{\"image_uuids\":[\"k\"]}", Options::default()).unwrap();
    assert_eq!((all[0].turns[0].images[0].contents[0].as_str(), &all[0].turns[0].images[0].uuids[0][..]), ("", "k"));
    for (row, sentence) in [
        ("{\"image\":\"a\",\"images\":[\"b\"]}", "`image` and `images` exclude each other"),
        ("{\"image\":\"a\",\"image_uuids\":[\"1\"]}", "`image_uuids` goes with a list of strings in `images`"),
        ("{\"images\":[\"a\"],\"image_uuids\":[\"1\",\"2\"]}", "2 `image_uuids` for 1 `images`"),
        ("{\"images\":[\"a\"],\"image_uuids\":[\"\"]}", "`image_uuids` must not hold empty strings"),
        ("{\"audios\":[{\"contents\":[\"a.wav\"]}]}", "`audios`: \"a.wav\" in `contents` is neither a URL nor encoded"),
    ] {
        let said = refused(row, of(Format::SingleTurn));
        assert!(said.starts_with(&format!("rows.jsonl:1: {sentence}")), "{row}: {said}");
    }
}

#[test]
fn a_random_pool_is_drawn_by_rows_or_by_contents() {
    let pools = dir(&[
        ("queries.jsonl", "{\"text\":\"q1\"}\n{\"text\":\"q2\"}\n"),
        ("passages.jsonl", "{\"texts\":[\"p1\",\"p2\"]}\n{\"texts\":[\"p3\"]}\n"),
    ]);
    let options = Options { path: pools.path().into(), entries: Some(40), seed: 1, ..Options::default() };
    let (summary, all) = build(&options).unwrap();
    assert_eq!((&*summary.kind, summary.requests), ("random_pool", 40));
    let mut seen: Vec<Vec<(String, Vec<String>)>> =
        all.iter().map(|c| c.turns[0].texts.iter().map(|t| (t.name.clone(), t.contents.clone())).collect()).collect();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 4, "both rows of both pools, in all combinations");
    assert!(seen.iter().all(|texts| texts.iter().any(|(name, _)| name == "passages")));
    assert_eq!(build(&options).unwrap().1, all);

    let one = "{\"text\":\"a\"}\n{\"text\":\"b\"}\n";
    let batch = Batch { texts: Some(5), ..Batch::default() };
    let options = Options { batch, entries: Some(3), ..of(Format::RandomPool) };
    let (_, all) = rows(one, options.clone()).unwrap();
    assert!(all.iter().all(|c| c.turns[0].texts.len() == 1 && c.turns[0].texts[0].contents.len() == 5));
    let none = Options { batch: Batch { texts: Some(0), ..Batch::default() }, ..options.clone() };
    assert!(refused(one, none).starts_with("--batch-size-text 0: that leaves nothing of the random_pool to send"));
    let said = build(&Options { path: pools.path().into(), ..options.clone() }).unwrap_err().0;
    assert!(said.starts_with("--batch-size-text: a random_pool of several files is drawn by rows"), "{said}");
    let bound = "{\"text\":\"a\"}\n{\"texts\":[{\"name\":\"n\",\"contents\":[\"b\"]}]}\n";
    let said = refused(bound, options);
    assert!(said.starts_with("rows.jsonl:2: --batch-size-text takes contents apart"), "{said}");
}

#[test]
fn media_of_a_random_pool_lie_beside_its_files_and_missing_ones_have_a_line() {
    let gif = "{\"image\":\"a.gif\"}\n{\"image\":\"b.gif\"}\n";
    let pools = dir(&[("images.jsonl", gif), ("media/a.gif", "GIF89a")]);
    let options =
        Options { path: pools.path().into(), format: Some(Format::RandomPool), entries: Some(2), ..Options::default() };
    let said = build(&options).unwrap_err().0;
    assert!(said.contains("images.jsonl:1: image a.gif: there is no such file"), "{said}");
    let file = pools.path().join("images.jsonl");
    std::fs::write(&file, gif.replace("a.gif", "media/a.gif").replace("b.gif", "media/a.gif")).unwrap();
    let (summary, all) = build(&options).unwrap();
    assert_eq!(summary.attached, 2);
    assert!(all.iter().all(|c| c.turns[0].images[0].contents[0].starts_with("data:image/gif;base64,")));
}

#[test]
fn an_image_of_a_session_may_be_sent_once_and_then_by_its_key() {
    let row = |images: &str, keys: &str| {
        format!("{{\"session_id\":\"s\",\"text\":\"t\",\"images\":[{images}],\"image_uuids\":[{keys}]}}\n")
    };
    let file = [
        row("\"data:a\",\"data:a\"", "\"a\",\"a\""),
        row("\"data:a\",\"data:b\"", "\"a\",\"b\""),
        row("\"no such file\"", "\"b\""),
        "{\"text\":\"t\",\"images\":[\"data:a\"],\"image_uuids\":[\"a\"]}\n".to_owned(),
    ]
    .concat();
    let options = Options { uuid_and_strip: true, ..Options::default() };
    let (_, all) = rows(&file, options.clone()).unwrap();
    let sent: Vec<Vec<&str>> = all
        .iter()
        .flat_map(|c| &c.turns)
        .map(|turn| turn.images.iter().flat_map(|image| image.contents.iter().map(String::as_str)).collect())
        .collect();
    assert_eq!(sent, [vec!["data:a", "data:a"], vec!["", "data:b"], vec![""], vec!["data:a"]]);
    assert!(refused(&file, Options::default()).contains("there is no such file"));
    let said = refused("{\"turns\":[{\"text\":\"a\"}]}", options);
    assert_eq!(said, "--uuid-and-strip goes only with single_turn, and this is multi_turn");
}

#[test]
fn prompts_of_a_trace_are_made_of_the_corpus_asked_for() {
    let trace =
        "{\"input_length\":700,\"output_length\":4,\"hash_ids\":[1,2]}\n{\"input_length\":600,\"hash_ids\":[1,3]}\n";
    let tokenizer = Tokenizer::builtin();
    let of = |corpus| rows(trace, Options { corpus: Some(corpus), ..Options::default() });
    let (_, sonnet) = of(Source::Sonnet).unwrap();
    assert_eq!(rows(trace, Options::default()).unwrap().1, sonnet);
    let (_, coding) = of(Source::Coding).unwrap();
    let [first, second] = [&texts(&coding[0])[0], &texts(&coding[1])[0]];
    assert!(first.contains('\n') && !texts(&sonnet[0])[0].contains('\n'));
    let shared = first.bytes().zip(second.bytes()).take_while(|(a, b)| a == b).count();
    assert!(tokenizer.count(&first[..shared]) >= 510, "the block they share");
    assert_eq!(coding[0].turns[0].input_tokens.unwrap() as usize, tokenizer.count(first));
    let said = of(Source::Random).unwrap_err().0;
    assert!(said.starts_with("--prompt-corpus random does not go with mooncake_trace"), "{said}");
}

#[test]
fn every_format_that_reads_twice_reads_compressed_files_too() {
    use std::io::Write;
    let bailian = concat!(
        "{\"chat_id\":1,\"parent_chat_id\":-1,\"timestamp\":1,\"input_length\":3,\"output_length\":3,\"turn\":1}\n",
        "{\"chat_id\":2,\"parent_chat_id\":-1,\"timestamp\":2,\"input_length\":4,\"output_length\":3,\"turn\":1}\n",
        "{\"chat_id\":3,\"parent_chat_id\":1,\"timestamp\":3,\"input_length\":5,\"output_length\":3,\"turn\":2}\n",
    );
    let capture = |at: u32, said: &str| {
        format!(
            "{{\"captureData\":{{\"endpointInput\":{{\"encoding\":\"JSON\",\"data\":\"{{\\\"messages\\\":[{{\\\"role\\\":\\\"user\\\",\\\"content\\\":\\\"{said}\\\"}}]}}\"}}}},\"eventMetadata\":{{\"inferenceTime\":\"2024-01-01T00:00:{at:02}Z\"}}}}\n"
        )
    };
    let sagemaker = capture(5, "later") + &capture(3, "first");
    let inputs = "{\"version\":1,\"data\":[{\"payloads\":[{\"prompt\":\"x\"},[1]],\"session_id\":\"s\"}]}";
    for text in [bailian, &sagemaker, inputs] {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(text.as_bytes()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.gz");
        std::fs::write(&path, gzip.finish().unwrap()).unwrap();
        let packed = build(&Options { path: path.clone(), ..Options::default() }).unwrap();
        let plain = rows(text, Options::default()).unwrap();
        assert_eq!(packed.0, plain.0);
        // Made prompts are the file's own: their words follow from its bytes.
        let known = |all: &[Conversation]| -> Vec<_> {
            all.iter()
                .map(|c| (c.session_id.clone(), times(c), c.turns.iter().map(|t| t.input_tokens).collect::<Vec<_>>()))
                .collect()
        };
        assert_eq!(known(&packed.1), known(&plain.1), "{text}");
    }
    let (_, all) = rows(&sagemaker, Options::default()).unwrap();
    assert_eq!(all[0].turns[0].messages.as_ref().unwrap()[0]["content"], "first");
}

#[test]
fn mooncake_sessions_have_several_turns() {
    let file = concat!(
        "{\"session_id\":\"a\",\"input_length\":300,\"output_length\":40}\n",
        "{\"session_id\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}\n",
        "{\"session_id\":\"a\",\"delay\":2,\"input_length\":150,\"output_length\":20}\n",
        "{\"session_id\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"y\"}]}\n",
    );
    let (_, all) = rows(file, of(Format::MooncakeTrace)).unwrap();
    assert_eq!(
        all.iter().map(|c| c.context).collect::<Vec<_>>(),
        [Context::DeltasWithoutResponses, Context::MessageArray]
    );
    assert_eq!(all[0].turns.iter().map(|t| t.input_tokens).collect::<Vec<_>>(), [Some(300), Some(150)]);
    assert_eq!(all[0].turns[1].delay_ns, Some(2_000_000));
    let (_, both) =
        rows(&file.replace("\"delay\":2", "\"delay\":2,\"timestamp\":9"), of(Format::MooncakeTrace)).unwrap();
    assert_eq!((both[0].turns[1].delay_ns, times(&both[0])[1]), (Some(2_000_000), Some(9_000_000)));
    let mixed = file.replace("\"session_id\":\"m\"", "\"session_id\":\"a\"");
    assert!(refused(&mixed, of(Format::MooncakeTrace)).contains("rows.jsonl:2: session \"a\" mixes kinds of rows"));
}

#[test]
fn bailian_chats_are_put_together_by_their_roots() {
    let file = concat!(
        "{\"chat_id\":5,\"parent_chat_id\":-1,\"timestamp\":0.5,\"input_length\":32,\"output_length\":3,\"type\":\"text\",\"turn\":1,\"hash_ids\":[1,2]}\n",
        "{\"chat_id\":9,\"parent_chat_id\":7,\"timestamp\":2.25,\"input_length\":40,\"output_length\":0,\"turn\":3,\"hash_ids\":[1,2,3]}\n",
        "{\"chat_id\":7,\"parent_chat_id\":5,\"timestamp\":1.114,\"input_length\":40,\"output_length\":4,\"turn\":2,\"hash_ids\":[1,2,4]}\n",
        "{\"chat_id\":8,\"parent_chat_id\":1,\"timestamp\":3,\"input_length\":10,\"output_length\":4,\"turn\":2}\n",
    );
    let (summary, all) = rows(file, Options::default()).unwrap();
    assert_eq!((&*summary.kind, summary.is_trace, summary.conversations), ("bailian_trace", true, 2));
    assert_eq!(all.iter().map(|c| c.session_id.as_str()).collect::<Vec<_>>(), ["5", "8"]);
    assert_eq!(times(&all[0]), [Some(500_000_000), Some(1_114_000_000), Some(2_250_000_000)]);
    let [first, second, third] = [0, 1, 2].map(|k| texts(&all[0])[k].clone());
    assert!(second.starts_with(&first) && third.starts_with(&first) && second != third);
    assert_eq!(all[0].turns.iter().map(|t| t.input_tokens).collect::<Vec<_>>(), [Some(32), Some(40), Some(40)]);
    let circle = file.replace("\"parent_chat_id\":-1", "\"parent_chat_id\":9");
    assert_eq!(rows(&circle, Options::default()).unwrap().1.len(), 2);
    let said = refused(&file.replace("\"turn\":2", "\"turn\":\"x\""), Options::default());
    assert!(said.starts_with("rows.jsonl:3: `turn` must be a whole number"), "{said}");
}

#[test]
fn the_azure_importer_is_the_converted_trace_row_by_row() {
    let (summary, all) = build(&Options { path: data("azure_code_head.csv"), ..Options::default() }).unwrap();
    assert_eq!((&*summary.kind, summary.is_trace, summary.requests), ("azure_trace", true, 60));
    let converted = std::fs::read_to_string(data("splitwise_code_head.csv")).unwrap();
    for (row, conversation) in converted.lines().skip(1).zip(&all) {
        let [at, input, output] = row.split(',').collect::<Vec<_>>()[..] else { panic!("{row}") };
        let turn = &conversation.turns[0];
        let seconds: f64 = at.parse().unwrap();
        // The conversion kept seven decimals of a second.
        assert!((turn.timestamp_ns.unwrap() as f64 - seconds * 1e9).abs() < 100.0, "{row}");
        assert_eq!(turn.input_tokens, input.parse().ok());
        assert_eq!(turn.max_tokens, output.parse().ok());
    }
}

#[test]
fn csv_rows_that_cannot_be_read_name_line_and_column() {
    let azure = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:04,10,5\n2023-11-16 18:17:03.5,12,0";
    let (summary, all) = rows(azure, Options::default()).unwrap();
    assert_eq!(all.iter().flat_map(times).collect::<Vec<_>>(), [Some(500_000_000), Some(0)]);
    assert_eq!(summary.rows_adjusted["output_length 0 raised to 1"], 1);
    let burst = "\u{feff}Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\r\n5,ChatGPT,12,18,30,x\r\n45.25,GPT-4,7,0,7,y";
    let (summary, all) = rows(burst, Options::default()).unwrap();
    assert_eq!((&*summary.kind, summary.requests), ("burst_gpt_trace", 2));
    assert_eq!(all.iter().flat_map(times).collect::<Vec<_>>(), [Some(5_000_000_000), Some(45_250_000_000)]);
    assert_eq!(all[0].turns[0].input_tokens, Some(12));
    for (file, format, sentence) in [
        (
            azure.replace("18:17:04", "18:77:04"),
            Format::AzureTrace,
            "rows.jsonl:2: `TIMESTAMP` must be a date and time",
        ),
        (
            azure.replace(",12,0", ",x,0"),
            Format::AzureTrace,
            "rows.jsonl:3: `ContextTokens` must be a whole number of tokens, not \"x\"",
        ),
        (
            azure.replace(",12,0", ""),
            Format::AzureTrace,
            "rows.jsonl:3: `ContextTokens` must be a whole number of tokens, not \"\"",
        ),
        (azure.replace("TIMESTAMP", "TIME"), Format::AzureTrace, "rows.jsonl:1: the header has no column `TIMESTAMP`"),
        (
            burst.replace("45.25", "-1"),
            Format::BurstGptTrace,
            "rows.jsonl:3: `Timestamp` must be a number of seconds from 0, not \"-1\"",
        ),
        (String::new(), Format::AzureTrace, "--input-file rows.jsonl: the file has no rows"),
        (
            "TIMESTAMP,ContextTokens,GeneratedTokens\n".into(),
            Format::AzureTrace,
            "--input-file rows.jsonl: the file has no rows",
        ),
    ] {
        let said = refused(&file, of(format));
        assert!(said.starts_with(sentence), "{file}: {said}");
    }
}

#[test]
fn sharegpt_pairs_become_turns_with_the_answers_lengths() {
    let (summary, all) = build(&Options { path: data("sharegpt_head.json"), ..Options::default() }).unwrap();
    assert_eq!(summary.kind, "sharegpt");
    let skipped: u64 = summary.rows_skipped.values().sum();
    assert_eq!(summary.conversations + skipped, 20);
    let tokenizer = Tokenizer::builtin();
    // Its second answer has three tokens.
    assert!(skipped > 0 && all.iter().all(|c| c.session_id != "identity_0"));
    assert!(
        all.iter().flat_map(|c| &c.turns).all(|t| {
            t.input_tokens.is_some_and(|n| (4..=1024).contains(&n)) && t.max_tokens.is_some_and(|n| n >= 4)
        })
    );
    let entries: Vec<serde_json::Value> =
        serde_json::from_slice(&std::fs::read(data("sharegpt_head.json")).unwrap()).unwrap();
    for conversation in &all {
        let row = entries.iter().find(|row| row["id"] == conversation.session_id.as_str()).unwrap();
        let said = |k: usize| row["conversations"][k]["value"].as_str().unwrap();
        for (k, turn) in conversation.turns.iter().enumerate() {
            assert_eq!(turn.all_texts().collect::<Vec<_>>(), [said(2 * k)]);
            assert_eq!(turn.max_tokens, Some(tokenizer.count(said(2 * k + 1)) as u32));
        }
    }
    let short = "[{\"conversations\":[{\"from\":\"human\",\"value\":\"one two three four five\"},{\"from\":\"gpt\",\"value\":\"ok\"}]}]";
    assert!(refused(short, Options::default()).contains("every row was left out: 1 conversation with a prompt not of"));
    let options = Options { osl: Some(Lengths::fixed(9)), ..Options::default() };
    assert_eq!(rows(short, options).unwrap().1[0].turns[0].max_tokens, Some(9));
    let said = refused("[{\"conversations\":[]},5]", of(Format::Sharegpt));
    assert!(said.starts_with("rows.jsonl: entry 2: a row must be a JSON object"), "{said}");
    let said = refused("[{\"conversations\":[]},\n", of(Format::Sharegpt));
    assert!(said.starts_with("rows.jsonl:2: not valid JSON: EOF"), "{said}");
}

#[test]
fn question_files_give_all_turns_or_the_first() {
    let path = data("mt_bench_head.jsonl");
    let (summary, all) = build(&Options { path: path.clone(), ..Options::default() }).unwrap();
    assert_eq!((&*summary.kind, summary.conversations, summary.requests), ("mt_bench", 8, 16));
    assert_eq!(all[0].session_id, "question_81");
    assert!(texts(&all[0])[1].starts_with("Rewrite your previous response"));
    let (_, firsts) = build(&Options { path, ..of(Format::SpecBench) }).unwrap();
    assert!(firsts.len() == 8 && firsts.iter().all(|c| c.turns.len() == 1));
    assert!(refused("{\"turns\":[\"\"]}", of(Format::MtBench)).contains("`turns` must hold at least one text"));
}

#[test]
fn speed_bench_takes_a_category() {
    let file = concat!(
        "{\"question_id\":\"q1\",\"category\":\"coding\",\"messages\":[{\"role\":\"user\",\"content\":\"c\"}]}\n",
        "{\"question_id\":\"q2\",\"category\":\"Low Entropy\",\"messages\":[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"l\"}]}\n",
    );
    let (summary, all) = rows(file, Options::default()).unwrap();
    assert_eq!((&*summary.kind, all.len()), ("speed_bench_qualitative", 2));
    assert_eq!((all[1].system.as_deref(), all[1].turns[0].role.as_deref()), (None, Some("system")));
    let named = |name: &str| rows(file, of(Format::from_name(name).unwrap())).unwrap().1;
    assert_eq!(named("speed-bench-coding")[0].session_id, "q1");
    assert_eq!(named("speed_bench_throughput_2k_low_entropy")[0].session_id, "q2");
    let said = refused(file, of(Format::from_name("speed_bench_math").unwrap()));
    assert!(said.ends_with("every row was left out: 2 of another category"), "{said}");
    let hidden = file.replace("\"l\"", "\"FULL BENCHMARK DATA SHOULD BE FETCHED FROM ELSEWHERE\"");
    assert!(
        refused(&hidden, Options::default())
            .starts_with("rows.jsonl:2: messages[1]: `content` is the hub's placeholder")
    );
}

#[test]
fn sagemaker_captures_come_by_time() {
    let capture = |id: &str, time: &str, input: &str| {
        format!(
            "{{\"captureData\":{{\"endpointInput\":{input},\"endpointOutput\":{{\"encoding\":\"JSON\",\"data\":\"{{\\\"usage\\\":{{\\\"prompt_tokens\\\":5000}}}}\"}}}},\"eventMetadata\":{{\"eventId\":\"{id}\",\"inferenceTime\":\"{time}\"}}}}\n"
        )
    };
    let json =
        r#"{"encoding":"JSON","data":"{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"max_tokens\":7}"}"#;
    // {"messages":[{"role":"user","content":"yo"}],"max_completion_tokens":8}
    let base64 = r#"{"data":"eyJtZXNzYWdlcyI6W3sicm9sZSI6InVzZXIiLCJjb250ZW50IjoieW8ifV0sIm1heF9jb21wbGV0aW9uX3Rva2VucyI6OH0="}"#;
    let late = capture("late", "2024-05-01T12:00:01.5Z", json);
    let early = capture("early", "2024-05-01T14:00:00+02:00", base64);
    let files = dir(&[("2024/05/a.jsonl", &late), ("2024/06/b.jsonl", &early), ("2024/notes.txt", "x")]);
    let (summary, all) = build(&Options { path: files.path().into(), ..Options::default() }).unwrap();
    assert_eq!((&*summary.kind, summary.is_trace), ("sagemaker_data_capture", true));
    let seen: Vec<_> = all.iter().map(|c| (c.session_id.as_str(), times(c)[0], c.turns[0].max_tokens)).collect();
    assert_eq!(seen, [("early", Some(0), Some(8)), ("late", Some(1_500_000_000), Some(7))]);
    assert_eq!(all[1].turns[0].messages.as_ref().unwrap()[0]["content"], "hi");
    let options = Options { path: files.path().into(), synthesis_max_isl: Some(4000), ..Options::default() };
    assert!(build(&options).unwrap_err().0.contains("2 input_length above --synthesis-max-isl"));
    for (row, sentence) in [
        (capture("x", "yesterday", json), "rows.jsonl:1: eventMetadata: `inferenceTime` must be an ISO 8601 time"),
        (
            capture("x", "2024-05-01T12:00:01Z", "{\"data\":\"%\"}"),
            "rows.jsonl:1: captureData.endpointInput: `data` must be base64",
        ),
        (
            capture("x", "2024-05-01T12:00:01Z", "{\"encoding\":\"JSON\",\"data\":\"5\"}"),
            "rows.jsonl:1: captureData.endpointInput: `data` must be a JSON object",
        ),
        (
            capture("x", "2024-05-01T12:00:01Z", "{\"encoding\":\"JSON\",\"data\":\"{}\"}"),
            "rows.jsonl:1: `messages` must not be empty",
        ),
    ] {
        let said = refused(&row, Options::default());
        assert!(said.starts_with(sentence), "{said}");
    }
}

#[test]
fn whole_bodies_are_taken_as_they_stand() {
    let body =
        r#"{"model":"m","messages":[{"role":"user","content":"é\n"}],"stream":true,"temperature":0.30000000000000004}"#;
    let (summary, all) = rows(body, Options { osl: Some(Lengths::fixed(5)), ..of(Format::RawPayload) }).unwrap();
    assert_eq!((&*summary.kind, all[0].context), ("raw_payload", Context::MessageArray));
    assert_eq!(all[0].turns[0].payload.as_ref().unwrap().to_string(), body);
    assert_eq!(all[0].turns[0].max_tokens, None);
    let two = format!("{body}\n{body}\n");
    let files = dir(&[("b.jsonl", &two), ("a.jsonl", body), ("c.txt", "no")]);
    let (_, all) = build(&Options { path: files.path().into(), ..Options::default() }).unwrap();
    assert_eq!(all.iter().map(|c| (c.session_id.as_str(), c.turns.len())).collect::<Vec<_>>(), [("a", 1), ("b", 2)]);

    let inputs =
        format!("{{\n  \"data\": [\n    {{\"session_id\": \"s\", \"payloads\": [{body}, {{\"input\": 1}}]}}\n  ]\n}}");
    let (summary, all) = rows(&inputs, Options::default()).unwrap();
    assert_eq!((&*summary.kind, summary.requests), ("inputs_json", 2));
    assert_eq!(all[0].turns[0].payload.as_ref().unwrap().to_string(), body);
    for (file, sentence) in [
        ("{\"data\":[{\"session_id\":\"s\",\"payloads\":[]}]}", "rows.jsonl: entry 1: `payloads` must hold"),
        (
            "{\"data\":[{\"session_id\":\"s\",\"payloads\":[5]}]}",
            "rows.jsonl: entry 1: `payloads[0]` must be a body: an object, a list or a text",
        ),
        (
            "{\"data\":[{\"session_id\":\"s\",\"payloads\":[{}]},{\"session_id\":\"s\",\"payloads\":[{}]}]}",
            "rows.jsonl: entry 2: `session_id` \"s\" is that of another entry too",
        ),
        ("{\"data\":\n[{}]}", "rows.jsonl: entry 1: no `session_id`"),
    ] {
        let said = refused(file, of(Format::InputsJson));
        assert!(said.starts_with(sentence), "{file}: {said}");
    }
}

#[test]
fn compressed_files_are_read_as_they_are() {
    use std::io::Write;
    let rows = "{\"text\":\"a\"}\n{\"text\":\"b\"}";
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(rows.as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    let zstd = zstd::encode_all(rows.as_bytes(), 3).unwrap();
    for bytes in [gzip, zstd] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows");
        std::fs::write(&path, &bytes).unwrap();
        let options = Options { path: path.clone(), ..Options::default() };
        assert_eq!(build(&options).unwrap().1.iter().flat_map(texts).collect::<Vec<_>>(), ["a", "b"]);
        std::fs::write(&path, &bytes[..bytes.len() - 6]).unwrap();
        assert!(build(&options).unwrap_err().0.starts_with("--input-file "));
    }
}

#[test]
fn rows_without_bounds_are_a_sentence_with_their_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows");
    // 30 KB of file, and a line that would fill the memory.
    let mut bomb = zstd::Encoder::new(Vec::new(), 1).unwrap();
    std::io::Write::write_all(&mut bomb, b"{\"text\":\"a\"}\n{\"text\":\"").unwrap();
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..260 {
        std::io::Write::write_all(&mut bomb, &piece).unwrap();
    }
    std::fs::write(&path, bomb.finish().unwrap()).unwrap();
    let options = || Options { path: path.clone(), format: Some(Format::SingleTurn), ..Options::default() };
    let said = build(&options()).unwrap_err().0;
    assert_eq!(said, format!("{}:2: the line is longer than 256 MiB", path.display()));
    let deep = 200_000;
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let row = format!("{{\"text\":\"a\",\"extra\":{}1{}}}", open.repeat(deep), close.repeat(deep));
        std::fs::write(&path, format!("{{\"text\":\"a\"}}\n{row}\n")).unwrap();
        let said = build(&options()).map(|_| ()).unwrap_err().0;
        assert!(said.starts_with(&format!("{}:2: ", path.display())) && said.len() < 300, "{said}");
    }
}

#[test]
fn a_trace_is_sped_up_from_its_window_and_its_outputs_stretched() {
    let file = concat!(
        "{\"timestamp\":1000,\"input_length\":20,\"output_length\":10}\n",
        "{\"timestamp\":3000,\"input_length\":20,\"output_length\":1}\n",
    );
    let synthesis = Synthesis { speedup: 2.0, output: 1.26, ..Synthesis::default() };
    let (_, all) = rows(file, Options { synthesis, ..Options::default() }).unwrap();
    assert_eq!(all.iter().flat_map(times).collect::<Vec<_>>(), [Some(500_000_000), Some(1_500_000_000)]);
    assert_eq!(all.iter().map(|c| c.turns[0].max_tokens).collect::<Vec<_>>(), [Some(13), Some(1)]);
    let options = Options { synthesis, start_offset_ns: Some(1_000_000_000), ..Options::default() };
    let (_, all) = rows(file, options).unwrap();
    assert_eq!(all.iter().flat_map(times).collect::<Vec<_>>(), [Some(1_000_000_000), Some(2_000_000_000)]);
}

#[test]
fn stretched_traces_keep_what_they_share() {
    let path = data("mooncake_head.jsonl");
    let synthesis = Synthesis { prefix: 2.0, prompt: 0.5, ..Synthesis::default() };
    let options = Options { path: path.clone(), synthesis, isl_block_size: None, seed: 3, ..Options::default() };
    let (_, stretched) = build(&options).unwrap();
    let (_, plain) = build(&Options { path, seed: 3, ..Options::default() }).unwrap();
    let tokenizer = Tokenizer::builtin();
    let shared = |all: &[Conversation]| {
        let [a, b] = [0, 1].map(|k| tokenizer.encode(&texts(&all[k])[0]));
        a.iter().zip(&b).take_while(|(a, b)| a == b).count()
    };
    assert!((512..530).contains(&shared(&plain)) && (1024..1042).contains(&shared(&stretched)));
    for (plain, stretched) in plain.iter().zip(&stretched) {
        let turn = &stretched.turns[0];
        assert_eq!(turn.input_tokens.unwrap() as usize, tokenizer.count(&texts(stretched)[0]));
        assert_ne!(turn.input_tokens, plain.turns[0].input_tokens);
    }
}

#[test]
fn no_file_of_the_corpus_panics_a_reader() {
    let files = ["broken", "seeds"].map(|dir| std::fs::read_dir(data(dir)).unwrap());
    let mut files: Vec<PathBuf> = files.into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 30, "{files:?}");
    for path in files {
        for format in [None].into_iter().chain(Format::ALL.map(Some)) {
            let options = Options { path: path.clone(), format, entries: Some(2), ..Options::default() };
            if let Err(e) = build(&options) {
                assert!(!e.0.contains('\n') && e.0.len() > 20, "{}: {e}", path.display());
            }
        }
    }
}

#[test]
fn every_seed_is_a_good_file_of_its_format() {
    for entry in std::fs::read_dir(data("seeds")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !cfg!(feature = "arrow") && name.starts_with("baseten") {
            continue;
        }
        if name.ends_with(".maserds") {
            let (summary, _) = build(&Options { path, ..Options::default() }).unwrap();
            assert!(summary.requests > 0 && summary.kind == "compiled", "{name}");
            continue;
        }
        let format = Format::from_name(name.split('.').next().unwrap()).unwrap();
        let (summary, _) = build(&Options { path, format: Some(format), ..Options::default() }).unwrap();
        assert!(summary.requests > 0 && summary.kind == format.name(), "{name}");
    }
}

#[cfg(feature = "arrow")]
mod tables {
    use super::*;
    use std::sync::Arc;

    use arrow_array::types::Int64Type;
    use arrow_array::{ArrayRef, Float64Array, Int64Array, ListArray, RecordBatch, StringArray};

    fn table(drop: &str) -> RecordBatch {
        let start = Int64Array::from(vec![1_700_000_001_000, 1_700_000_000_000, 1_700_000_009_000, 1_700_000_002_500]);
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("timestamp_start_unix_ms", Arc::new(start)),
            ("prompt", Arc::new(StringArray::from(vec!["b", "a", "d", "c"]))),
            ("input_tokens", Arc::new(Int64Array::from(vec![1, 1, 1, 1]))),
            ("output_tokens", Arc::new(Int64Array::from(vec![20, 0, 30, 40]))),
            ("provided_session_id", Arc::new(StringArray::from(vec![Some("s"), None, Some("s"), Some("s")]))),
            ("duration_e2e_ms", Arc::new(Float64Array::from(vec![500.0, 1.0, 2.0, 1000.0]))),
            (
                "total_hashes",
                Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(vec![
                    Some(vec![Some(-7), Some(8)]),
                    None,
                    Some(vec![]),
                    Some(vec![Some(9)]),
                ])),
            ),
        ];
        RecordBatch::try_from_iter(columns.into_iter().filter(|(name, _)| *name != drop)).unwrap()
    }

    fn parquet(dir: &Path, batch: &RecordBatch) -> PathBuf {
        let path = dir.join("trace.parquet");
        let file = std::fs::File::create(&path).unwrap();
        let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(batch).unwrap();
        writer.close().unwrap();
        path
    }

    fn arrow(dir: &Path, batch: &RecordBatch) -> PathBuf {
        let path = dir.join("trace.arrow");
        let file = std::fs::File::create(&path).unwrap();
        let mut writer = arrow_ipc::writer::FileWriter::try_new(file, &batch.schema()).unwrap();
        writer.write(batch).unwrap();
        writer.finish().unwrap();
        path
    }

    fn replayed(replay: Replay) -> Vec<Conversation> {
        let dir = tempfile::tempdir().unwrap();
        let path = parquet(dir.path(), &table(""));
        build(&Options { path, replay, seed: 1, ..Options::default() }).unwrap().1
    }

    #[test]
    fn baseten_tables_are_read_from_parquet_and_arrow() {
        let dir = tempfile::tempdir().unwrap();
        let built = [parquet(dir.path(), &table("")), arrow(dir.path(), &table(""))]
            .map(|path| build(&Options { path, ..Options::default() }).unwrap());
        assert_eq!(built[0], built[1]);
        let (summary, all) = &built[0];
        assert_eq!((&*summary.kind, summary.requests), ("baseten_trace", 4));
        assert_eq!(all.iter().map(texts).collect::<Vec<_>>(), [vec!["a"], vec!["b", "c", "d"]]);
        assert_eq!(times(&all[1]), [Some(1_000_000_000), Some(2_500_000_000), Some(9_000_000_000)]);
        assert_eq!((all[0].session_id.as_str(), all[1].session_id.as_str()), ("session_000000", "s"));
        let extra = |k: usize| serde_json::to_string(&all[1].turns[k].extra).unwrap();
        assert_eq!(
            (extra(0), extra(2)),
            (r#"{"min_tokens":20,"hash_ids":[-7,8]}"#.into(), r#"{"min_tokens":30}"#.into())
        );
        assert_eq!(all[0].turns[0].max_tokens, Some(1));
    }

    #[test]
    fn baseten_replays_change_times_and_sessions() {
        let closed = replayed(Replay { open_loop: Some(false), speedup: Some(2.0), ..Replay::default() });
        assert_eq!(times(&closed[1]), [Some(500_000_000), None, None]);
        let delays: Vec<_> = closed[1].turns.iter().map(|t| t.delay_ns).collect();
        assert_eq!(delays, [None, Some(500_000_000), Some(2_750_000_000)]);
        let strict = replayed(Replay { open_loop_strict: true, omit_kv_hints: true, ..Replay::default() });
        let ids: Vec<&str> = strict.iter().map(|c| c.session_id.as_str()).collect();
        assert_eq!(ids, ["session_000000", "s#0", "s#1", "s#2"]);
        assert!(strict.iter().all(|c| c.turns[0].extra.keys().eq(["min_tokens"])));
        let capped = replayed(Replay { max_idle_gap_ns: Some(1_200_000_000), ..Replay::default() });
        assert_eq!(times(&capped[1]), [Some(1_000_000_000), Some(2_200_000_000), Some(3_400_000_000)]);
        let sampled = replayed(Replay { session_sample_ratio: Some(1e-9), ..Replay::default() });
        assert_eq!(sampled.len(), 1);
        let plain = replayed(Replay { force_min_tokens: Some(false), omit_kv_hints: true, ..Replay::default() });
        assert!(plain[0].turns[0].extra.is_empty());
    }

    #[test]
    fn tables_that_cannot_be_used_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let said = build(&Options { path: parquet(dir.path(), &table("prompt")), ..Options::default() }).unwrap_err().0;
        assert!(said.ends_with("the table has no column `prompt`"), "{said}");
        let path = dir.path().join("x.parquet");
        std::fs::write(&path, "nothing").unwrap();
        assert!(build(&Options { path, ..Options::default() }).unwrap_err().0.contains("no Parquet file"));
        let synthesis = Synthesis { speedup: 2.0, ..Synthesis::default() };
        let path = parquet(dir.path(), &table(""));
        let said = build(&Options { path: path.clone(), synthesis, ..Options::default() }).unwrap_err().0;
        assert!(said.starts_with("--synthesis-speedup-ratio does not go with baseten_trace"), "{said}");
        let capped = Options { path, synthesis_max_osl: Some(5), ..Options::default() };
        let (_, all) = build(&capped).unwrap();
        assert!(all.iter().flat_map(|c| &c.turns).all(|t| t.extra["min_tokens"] == t.max_tokens.unwrap()));
    }
}
