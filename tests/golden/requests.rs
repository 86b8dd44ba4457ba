//! The files of single requests: lines, raw lines, answers, bodies, Parquet, histograms.

use crate::compare::{ends_with_its_piece, is_ours, keys};
use crate::source::{export, log_of, read, rows_of};
use maser::export::inputs;
use maser_engine::log::{Kind, MAGIC, put_block, put_json, put_record};
use maser_engine::metric;
use maser_engine::record::{part, put_part};
use serde_json::Value;

#[test]
fn lines_of_single_requests_carry_the_reference_s_keys_and_values() {
    for run in [
        "chat_stream_concurrency",
        "errors_30pct",
        "fixed_schedule",
        "multiturn",
        "rate_goodput",
        "sigint",
        "embeddings",
    ] {
        let exported = export(&log_of(run, true));
        let ours = exported.text("profile_export.jsonl");
        let theirs = read(run, "profile_export.jsonl");
        let summary: Value = serde_json::from_str(&read(run, "profile_export_aiperf.json")).unwrap();
        assert_eq!(ours.lines().count(), theirs.lines().count());
        for (ours, theirs) in ours.lines().zip(theirs.lines()) {
            compare_line(ours, theirs, &summary);
        }
    }
}

fn compare_line(ours: &str, theirs: &str, summary: &Value) {
    let (a, b): (Value, Value) = (serde_json::from_str(ours).unwrap(), serde_json::from_str(theirs).unwrap());
    // The reference's are kept apart here, see `transfers_have_the_reference_s_times`.
    let without_trace: Vec<&str> = keys(&a).into_iter().filter(|key| *key != "trace_data").collect();
    assert_eq!(without_trace, keys(&b));
    assert_eq!(keys(&a["metadata"]), keys(&b["metadata"]));
    assert_eq!(a["error"], b["error"]);
    let made_up = ["x_request_id", "x_correlation_id", "root_correlation_id"];
    let own_names = ["worker_id", "record_processor_id"];
    for key in keys(&b["metadata"]) {
        if !made_up.contains(&key) && !own_names.contains(&key) {
            assert_eq!(a["metadata"][key], b["metadata"][key], "{key}");
        }
    }
    for (tag, reading) in b["metrics"].as_object().unwrap() {
        if reading["value"] == 0 && tag == "output_sequence_length" || ends_with_its_piece(tag, summary) {
            continue;
        }
        let mine = &a["metrics"][tag];
        assert_eq!(mine["unit"], reading["unit"], "{tag}");
        let same = match (&mine["value"], &reading["value"]) {
            (Value::Number(x), Value::Number(y)) => {
                assert_eq!(x.is_f64(), y.is_f64(), "{tag}: {x} or {y}");
                (x.as_f64().unwrap() - y.as_f64().unwrap()).abs() <= 1e-9 * y.as_f64().unwrap().abs()
            }
            (x, y) => x == y,
        };
        assert!(same, "{tag}: {mine} or {reading}");
    }
    for tag in keys(&a["metrics"]) {
        let known = b["metrics"].get(tag).is_some() || is_ours(tag);
        assert!(known, "{tag} is new");
    }
}

#[test]
fn what_was_sent_and_received_is_the_reference_s() {
    for (run, kept) in [("chat_stream_concurrency", 6), ("errors_30pct", 2)] {
        let exported = export(&log_of(run, true));
        let ours = exported.text("profile_export_raw.jsonl");
        let rows = rows_of(run);
        let pairs: Vec<(Value, &Value)> = ours
            .lines()
            .zip(&rows)
            .filter_map(|(line, row)| Some((serde_json::from_str(line).unwrap(), row.0.get("raw")?)))
            .collect();
        assert_eq!(pairs.len(), kept);
        for (mut ours, theirs) in pairs {
            // The reference's records do not say how many bytes a failed request brought.
            ours.as_object_mut().unwrap().shift_remove("responses_cut");
            assert_eq!(keys(&ours), keys(theirs));
            assert_eq!(ours["payload"], theirs["payload"]);
            assert_eq!(ours["error"], theirs["error"]);
            assert_eq!(ours["status"], theirs["status"]);
            compare_responses(&ours, theirs);
            if run == "chat_stream_concurrency" {
                let mut names = [keys(&ours["request_headers"]), keys(&theirs["request_headers"])];
                names.iter_mut().for_each(|names| names.sort_unstable());
                assert_eq!(names[0], names[1]);
            }
        }
    }
}

/// Messages, and their times from the start of the request: the axes differ.
fn compare_responses(ours: &Value, theirs: &Value) {
    let (a, b) = (ours["responses"].as_array().unwrap(), theirs["responses"].as_array().unwrap());
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        let after =
            |line: &Value, at: &Value| at["perf_ns"].as_u64().unwrap() - line["start_perf_ns"].as_u64().unwrap();
        assert_eq!((after(ours, a), &a["packets"]), (after(theirs, b), &b["packets"]));
    }
}

#[test]
fn transfers_have_the_reference_s_times() {
    let run = "chat_stream_concurrency";
    let exported = export(&log_of(run, true));
    let lines = exported.text("profile_export.jsonl");
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let theirs = read(run, "trace_data.jsonl");
    assert_eq!(theirs.lines().count(), 4);
    for (theirs, ours) in theirs.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).zip(&lines) {
        let (ours, theirs) = (&ours["trace_data"], &theirs["trace_data"]);
        for key in ["sending_ns", "waiting_ns", "duration_ns", "connecting_ns"] {
            assert_eq!(ours[key], theirs[key], "{key}");
        }
        for key in ["response_status_code", "response_chunks_count", "request_bytes_total", "response_bytes_total"] {
            assert_eq!(ours[key], theirs[key], "{key}");
        }
        let known = |key: &&str| theirs.get(*key).is_some() || ["blocked_ns"].contains(key);
        assert!(keys(ours).iter().all(known), "{:?}", keys(ours));
    }
}

#[test]
fn answers_stand_in_their_file_as_in_the_reference_s() {
    let exported = export(&log_of("chat_stream_concurrency", true));
    let (ours, theirs) = (exported.text("outputs.json"), read("chat_stream_concurrency", "outputs.json"));
    assert_eq!(ours.lines().count(), theirs.lines().count(), "the same layout");
    let (ours, theirs): (Value, Value) = (serde_json::from_str(&ours).unwrap(), serde_json::from_str(&theirs).unwrap());
    assert_eq!(ours["schema_version"], theirs["schema_version"]);
    let (a, b) = (ours["data"].as_array().unwrap(), theirs["data"].as_array().unwrap());
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        assert_eq!(keys(a), keys(b));
        assert_eq!(keys(&a["metrics"]), keys(&b["metrics"]));
        // In the fabricated records an answer's text is the number of its tokens.
        assert_eq!(a["response_text"].as_str().unwrap(), b["metrics"]["output_token_count"].to_string());
        for key in ["session_num", "conversation_id", "turn_index", "request_start_ns", "request_end_ns"] {
            assert_eq!(a[key], b[key], "{key}");
        }
        for tag in keys(&b["metrics"]) {
            let (x, y) = (a["metrics"][tag].as_f64().unwrap(), b["metrics"][tag].as_f64().unwrap());
            assert!((x - y).abs() <= 1e-9 * y.abs(), "{tag}: {x} or {y}");
        }
    }
}

#[test]
fn the_histogram_log_reads_back() {
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
    let exported = export(&log_of("chat_stream_concurrency", true));
    let text = exported.text("profile_export.hlog");
    for tag in ["request_latency", "time_to_first_token", "inter_token_latency"] {
        let mut whole = hdrhistogram::Histogram::<u64>::new(3).unwrap();
        let mut last = None;
        for entry in IntervalLogIterator::new(text.as_bytes()) {
            let LogEntry::Interval(interval) = entry.unwrap() else { continue };
            if interval.tag().map(|t| t.as_str().to_owned()).as_deref() == Some(tag) {
                assert!(last < Some(interval.start_timestamp()), "intervals in order");
                last = Some(interval.start_timestamp());
                let bytes = base64(interval.encoded_histogram());
                let histogram: hdrhistogram::Histogram<u64> = Deserializer::new().deserialize(&mut &bytes[..]).unwrap();
                whole.add(histogram).unwrap();
            }
        }
        let exact = exported.report.metric(tag).unwrap().summary;
        assert_eq!(Some(whole.len()), exact.count, "{tag}");
        for (seen, exact) in [(whole.mean(), exact.avg), (whole.max() as f64, exact.max)] {
            let exact = exact.unwrap() * 1e6;
            assert!((seen - exact).abs() <= 1e-3 * exact, "{tag}: {seen}, exactly {exact}");
        }
    }
}

fn base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut held, mut bits) = (Vec::new(), 0u32, 0);
    for digit in text.bytes().filter(|b| *b != b'=') {
        held = held << 6 | DIGITS.iter().position(|d| *d == digit).unwrap() as u32;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
        }
    }
    bytes
}

#[test]
fn the_parquet_file_has_the_values_of_the_lines_and_their_units() {
    use arrow_array::{Array, Float64Array, Int64Array, cast::AsArray};
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    for run in ["chat_stream_concurrency", "errors_30pct", "rate_goodput"] {
        let exported = export(&log_of(run, true));
        let file = std::fs::File::open(exported.dir.path().join("profile_export.parquet")).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        let units = reader.metadata().file_metadata().key_value_metadata().unwrap();
        let units = units.iter().find(|pair| pair.key == "units").unwrap().value.clone().unwrap();
        let units: Value = serde_json::from_str(&units).unwrap();
        let batches: Vec<_> = reader.build().unwrap().map(Result::unwrap).collect();
        let [batch] = batches.as_slice() else { panic!("{} batches", batches.len()) };
        let lines = exported.text("profile_export.jsonl");
        let lines: Vec<Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(batch.num_rows(), lines.len());
        for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
            let Some(metric) = metric::find(field.name()) else { continue };
            assert_eq!(field.metadata().get("unit").map(String::as_str), Some(metric.display));
            assert_eq!(units[field.name()], metric.display);
            for (row, line) in lines.iter().enumerate() {
                let value = &line["metrics"][field.name()]["value"];
                assert_eq!(column.is_valid(row), !value.is_null(), "{}", field.name());
                if let Some(reals) = column.as_any().downcast_ref::<Float64Array>().filter(|c| c.is_valid(row)) {
                    assert_eq!(Some(reals.value(row)), value.as_f64());
                } else if let Some(whole) = column.as_any().downcast_ref::<Int64Array>().filter(|c| c.is_valid(row)) {
                    assert_eq!(Some(whole.value(row)), value.as_i64());
                } else if let Some(list) = column.as_list_opt::<i32>().filter(|c| c.is_valid(row)) {
                    assert_eq!(Some(list.value(row).len()), value.as_array().map(Vec::len));
                }
            }
        }
        let codes = batch.column_by_name("error_code").unwrap();
        let failed = lines.iter().filter(|l| l.get("error").is_some()).count();
        assert_eq!(codes.len() - codes.null_count(), failed);
    }
}

#[test]
fn request_bodies_are_laid_out_as_the_reference_does() {
    let text = read("chat_stream_concurrency", "inputs.json");
    let document: Value = serde_json::from_str(&text).unwrap();
    let sessions = document["data"].as_array().unwrap().iter().map(|session| {
        let bodies = session["payloads"].as_array().unwrap();
        let bytes: Vec<Vec<u8>> = bodies.iter().map(|b| serde_json::to_vec(b).unwrap()).collect();
        (session["session_id"].as_str().unwrap(), bytes)
    });
    let dir = tempfile::tempdir().unwrap();
    let written = inputs::write(dir.path(), sessions).unwrap();
    assert_eq!(std::fs::read_to_string(written.path).unwrap(), text);
}

/// The reference has no run of a server that decodes speculatively: names and shape are those of its documentation.
#[test]
fn a_server_s_account_of_speculative_decoding_stands_in_its_request_s_line_and_pooled_in_the_summary() {
    let source = export(&log_of("rate_goodput", true));
    let mut bytes = MAGIC.to_vec();
    put_json(&mut bytes, Kind::Header, &source.log.header);
    let account = br#"{"num_spec_steps": 5, "num_accepted_draft_tokens": 6, "num_draft_tokens": 15,
        "acceptance_histogram": [2, 0, 3], "mean_acceptance_length": 2.2}"#;
    let (mut record, _) = source.log.records().next().unwrap();
    let mut parts = Vec::new();
    put_part(&mut parts, part::SPECULATION, account);
    record.payload_len = parts.len() as u32;
    let mut body = Vec::new();
    put_record(&mut body, &record, &parts);
    put_block(&mut bytes, Kind::Records, 1, &body);
    let exported = export(&bytes);
    let line: Value = serde_json::from_str(&exported.text("profile_export.jsonl")).unwrap();
    let expected = serde_json::json!({
        "num_spec_steps": 5, "num_accepted_draft_tokens": 6, "num_draft_tokens": 15, "mean_acceptance_length": 2.2,
        "acceptance_histogram": {"0": 2, "2": 3}, "engine": "vllm", "completion_tokens": record.usage_completion
    });
    assert_eq!(line["spec_decode_acceptance"], expected);
    assert_eq!(line["metrics"]["spec_decode_acceptance_length"]["value"], 2.2);
    let key = "pooled_spec_decode_acceptance_histogram";
    let summary: Value = serde_json::from_str(&exported.text("profile_export_aiperf.json")).unwrap();
    assert_eq!(summary[key], serde_json::json!({"0": 2, "2": 3}));
    let without: Value = serde_json::from_str(&source.text("profile_export_aiperf.json")).unwrap();
    assert!(without.get(key).is_none(), "of a server that tells nothing there is nothing to pool");
}
