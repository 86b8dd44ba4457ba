//! Tables of the hub's repositories: Parquet, or JSONL, whose columns are put together to requests as
//! [`crate::public`] says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[cfg(feature = "arrow")]
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::formats::draft::{Draft, Emit, Prompt, Step};
use crate::formats::sets::{self, SETS, Shape};
use crate::formats::spans;
use crate::read::jsonl::{Lines, Place, Row};
use crate::read::source;
use crate::{Error, Media, Turn};

/// Seconds of a clip above which it is left out, as speech recognition is measured.
const LONGEST_CLIP: f64 = 30.0;

/// What is asked of a clip; the reference's words, so that the same is sent.
const TRANSCRIBE: &str = "Transcribe this audio.";

/// The columns of a row: none where there is no such column, null where it holds nothing.
type Column<'a> = &'a dyn Fn(&str) -> Option<Value>;

/// Reads the tables of a set's split: all, or as many rows as were asked for.
pub(crate) fn read(
    dir: &Path,
    number: u8,
    (entries, filters): (Option<u64>, &BTreeMap<String, String>),
    emit: Emit<'_>,
) -> Result<(), Error> {
    let Some(set) = SETS.get(usize::from(number)) else { return Ok(()) };
    let files = if dir.is_dir() { split(source::files(dir, true)?, dir, set.split) } else { vec![dir.to_owned()] };
    if files.is_empty() {
        return Err(Error(format!(
            "--public-dataset {}: no .parquet or .jsonl file of the split {} in {}",
            set.name,
            set.split,
            dir.display()
        )));
    }
    let mut left = entries.filter(|_| sets::is_large(number)).unwrap_or(u64::MAX);
    for file in files {
        let mut row = |place: Place, column: Column<'_>| {
            let draft = match set.shape {
                Shape::Spans { .. } => spans::draft(&file, place, column, filters)?,
                shape => {
                    let steps = steps(place, shape, column)
                        .map_err(|column| place.error(&file, format_args!("no usable column `{column}`")))?;
                    Draft { steps, ..Draft::empty(&file) }
                }
            };
            left -= u64::from(!draft.steps.is_empty());
            emit(draft)?;
            Ok(left > 0)
        };
        let goes_on = if file.extension().is_some_and(|ending| ending == "parquet") {
            parquet(&file, columns(set.shape), &mut row)?
        } else {
            rows(&file, &mut row)?
        };
        if !goes_on {
            break;
        }
    }
    Ok(())
}

/// Rows of a JSONL file, until no more are wanted.
fn rows(file: &Path, row: TakeRow<'_>) -> Result<bool, Error> {
    let mut lines = Lines::open(file)?;
    while let Some((line, text)) = lines.next()? {
        let json = Row::parse(file, Place::Line(line), text)?;
        let value = |column: &str| {
            json.names(column)
                .then(|| json.raw(column).and_then(|raw| serde_json::from_str(raw).ok()).unwrap_or_default())
        };
        if !row(json.place, &value)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Tables whose name, or the name of whose directory, begins with the split; all tables where none does.
fn split(files: Vec<PathBuf>, dir: &Path, split: &str) -> Vec<PathBuf> {
    let table = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "parquet" || ending == "jsonl");
    let tables: Vec<PathBuf> = files.into_iter().filter(table).collect();
    let of_split = |path: &&PathBuf| {
        let below = path.strip_prefix(dir).unwrap_or(path);
        below.iter().any(|part| part.to_string_lossy().starts_with(split))
    };
    let named: Vec<PathBuf> = tables.iter().filter(of_split).cloned().collect();
    if named.is_empty() { tables } else { named }
}

fn columns(shape: Shape) -> Vec<&'static str> {
    match shape {
        Shape::Column(text) | Shape::Turns(text) => vec![text],
        Shape::Picture { text, image } => vec![text, image],
        Shape::Edit { code, request } => vec![code, request],
        Shape::Choice { text, choices, video } => vec![text, choices, video],
        Shape::Opening { messages, image, .. } => vec![messages, image],
        Shape::Sound(audio) => vec![audio],
        Shape::Spans { .. } => spans::COLUMNS.to_vec(),
        Shape::File { .. } | Shape::NotYet(_) => Vec::new(),
    }
}

/// The turns of a row, none where it has no prompt; or the column that it lacks.
fn steps(place: Place, shape: Shape, column: Column<'_>) -> Result<Vec<Step>, &'static str> {
    let there = |name: &'static str| column(name).ok_or(name);
    let text = |name: &'static str| match there(name)? {
        Value::String(text) => Ok(text),
        Value::Null => Ok(String::new()),
        _ => Err(name),
    };
    let turns = match shape {
        Shape::Column(name) => vec![Turn::of_text(text(name)?)],
        Shape::Turns(name) => {
            let texts: Vec<String> = serde_json::from_value(there(name)?).map_err(|_| name)?;
            texts.into_iter().map(Turn::of_text).collect()
        }
        Shape::Picture { text: name, image } => {
            vec![Turn { images: first_picture(there(image)?), ..Turn::of_text(text(name)?) }]
        }
        Shape::Edit { code, request } => {
            let (code, request) = (text(code)?, text(request)?);
            vec![Turn::of_text(format!("{request}\n\nRewrite the whole of this code accordingly:\n\n```\n{code}\n```"))]
        }
        Shape::Choice { text: name, choices, video } => {
            let link = text(video)?;
            let link = if link.is_empty() || crate::media::attachment::is_ready(&link) {
                link
            } else {
                format!("file://{link}")
            };
            let question = question(text(name)?.trim(), &there(choices)?);
            if link.is_empty() {
                Vec::new()
            } else {
                vec![Turn { videos: vec![link.into()], ..Turn::of_text(question) }]
            }
        }
        Shape::Opening { messages, content, image } => {
            let opening = opening(&there(messages)?, content).unwrap_or_default();
            vec![Turn { images: first_picture(there(image)?), ..Turn::of_text(opening) }]
        }
        Shape::Sound(audio) => clip(text(audio)?).into_iter().collect(),
        Shape::Spans { .. } | Shape::File { .. } | Shape::NotYet(_) => Vec::new(),
    };
    let said = turns.into_iter().filter(|turn| turn.all_texts().any(|text| !text.trim().is_empty()));
    Ok(said.map(|turn| Step { place, turn, prompt: Prompt::Given }).collect())
}

/// The question with the answers to choose from: `Which? A.this B.that`.
fn question(question: &str, choices: &Value) -> String {
    let choices = choices.as_object().into_iter().flatten();
    let choices =
        choices.filter_map(|(name, text)| text.as_str().filter(|t| !t.is_empty()).map(|t| format!("{name}.{t}")));
    let parts: Vec<String> = [question.to_owned()].into_iter().filter(|q| !q.is_empty()).chain(choices).collect();
    parts.join(" ")
}

/// What the person says first, without marks for pictures. Some sets put each message into a list of its own.
fn opening(messages: &Value, content: &str) -> Option<String> {
    let messages: Vec<&Value> = messages.as_array()?.iter().map(|message| message.get(0).unwrap_or(message)).collect();
    let is_person = |message: &&&Value| {
        let role = message.get("role").or(message.get("from")).and_then(Value::as_str).unwrap_or_default();
        role.eq_ignore_ascii_case("user") || role.eq_ignore_ascii_case("human")
    };
    let first = messages.iter().find(is_person).or(messages.first())?;
    Some(first.get(content)?.as_str()?.replace("<image>", "").trim().to_owned())
}

/// The picture, or the first of a list.
fn first_picture(value: Value) -> Vec<Media> {
    let first = match value {
        Value::Array(list) => list.into_iter().next().unwrap_or_default(),
        one => one,
    };
    first.as_str().filter(|url| !url.is_empty()).map(Media::from).into_iter().collect()
}

/// The turn of a clip, unless it is long.
fn clip(audio: String) -> Option<Turn> {
    let seconds = crate::media::attachment::seconds(&audio);
    let fits = !audio.is_empty() && seconds.is_none_or(|seconds| seconds <= LONGEST_CLIP);
    fits.then(|| Turn { audios: vec![audio.into()], audio_seconds: seconds, ..Turn::of_text(TRANSCRIBE.into()) })
}

/// A picture or a clip inside a table, as a request carries it.
#[cfg(feature = "arrow")]
fn medium(bytes: &[u8]) -> Option<Value> {
    let encoded = || STANDARD.encode(bytes);
    Some(Value::String(match crate::media::attachment::sniff(bytes)? {
        sound @ ("wav" | "mp3") => format!("{sound},{}", encoded()),
        video @ ("mp4" | "webm") => format!("data:video/{video};base64,{}", encoded()),
        image => format!("data:image/{image};base64,{}", encoded()),
    }))
}

/// Takes a row; says whether more are wanted.
type TakeRow<'a> = &'a mut dyn FnMut(Place, Column<'_>) -> Result<bool, Error>;

#[cfg(not(feature = "arrow"))]
fn parquet(file: &Path, _: Vec<&str>, _: TakeRow<'_>) -> Result<bool, Error> {
    Err(Error(format!("{}: this build reads no Parquet files (its feature `arrow` is off)", file.display())))
}

#[cfg(feature = "arrow")]
fn parquet(file: &Path, columns: Vec<&str>, row: TakeRow<'_>) -> Result<bool, Error> {
    use crate::guard::unless_panics;
    use parquet::arrow::ProjectionMask;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    let open = std::fs::File::open(file).map_err(|e| source::failed(file, &e))?;
    let wrong = |e: &dyn std::fmt::Display| Error(format!("{}: the table cannot be read: {e}", file.display()));
    let damaged = || wrong(&"it is damaged");
    let builder = unless_panics(|| ParquetRecordBatchReaderBuilder::try_new(open)).ok_or_else(damaged)?;
    let builder = builder.map_err(|e| wrong(&e))?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), columns);
    let mut reader = builder.with_projection(mask).with_batch_size(64).build().map_err(|e| wrong(&e))?;
    let mut entry = 0;
    while let Some(batch) = unless_panics(|| reader.next()).ok_or_else(damaged)? {
        let batch = batch.map_err(|e| wrong(&e))?;
        for at in 0..batch.num_rows() {
            entry += 1;
            let value = |name: &str| batch.column_by_name(name).map(|array| cell(array, at).unwrap_or_default());
            if !row(Place::Entry(entry), &value)? {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// The value as JSON. Bytes, or a record of them and a path, are a picture or a clip.
#[cfg(feature = "arrow")]
fn cell(array: &dyn arrow_array::Array, row: usize) -> Option<Value> {
    use arrow_array::cast::AsArray;
    use arrow_schema::DataType;

    if array.is_null(row) {
        return None;
    }
    let list = |items: arrow_array::ArrayRef| {
        Some((0..items.len()).map(|at| cell(&items, at).unwrap_or_default()).collect::<Vec<_>>().into())
    };
    match array.data_type() {
        DataType::Boolean => Some(array.as_boolean().value(row).into()),
        DataType::Utf8 => Some(array.as_string::<i32>().value(row).into()),
        DataType::LargeUtf8 => Some(array.as_string::<i64>().value(row).into()),
        DataType::Utf8View => Some(array.as_string_view().value(row).into()),
        DataType::Binary => medium(array.as_binary::<i32>().value(row)),
        DataType::LargeBinary => medium(array.as_binary::<i64>().value(row)),
        DataType::Struct(fields) => {
            let record = array.as_struct();
            if let Some(bytes) = record.column_by_name("bytes") {
                return cell(bytes, row);
            }
            let pairs = fields.iter().zip(record.columns());
            let values = pairs.filter_map(|(field, column)| Some((field.name().clone(), cell(column, row)?)));
            Some(Value::Object(values.collect()))
        }
        DataType::List(_) => list(array.as_list::<i32>().value(row)),
        DataType::LargeList(_) => list(array.as_list::<i64>().value(row)),
        DataType::Float32 | DataType::Float64 => crate::formats::baseten::number(array, row).map(Value::from),
        _ => crate::formats::baseten::number(array, row).map(|n| Value::from(n as i64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_the_split_are_read() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("data")).unwrap();
        let put = |name: &str, rows: &str| std::fs::write(dir.path().join("data").join(name), rows).unwrap();
        put("train.jsonl", "{\"problem\":\"wrong split\"}");
        put("test-00000.jsonl", "{\"problem\":\"1+1\"}\n{\"problem\":\"2+2\"}");
        put("README.md", "no table");
        let number = SETS.iter().position(|set| set.name == "spec_al_math500").unwrap() as u8;
        let all = (None, &BTreeMap::new());
        let mut texts = Vec::new();
        read(dir.path(), number, all, &mut |draft| {
            texts.extend(draft.steps.into_iter().map(|step| step.turn.all_texts().collect::<String>()));
            Ok(())
        })
        .unwrap();
        assert_eq!(texts, ["1+1", "2+2"]);
        put("test-00000.jsonl", "{\"problem\":\"1+1\"}\n{\"question\":\"2+2\"}");
        let said = read(dir.path(), number, all, &mut |_| Ok(())).unwrap_err().0;
        assert!(said.ends_with("test-00000.jsonl:2: no usable column `problem`"), "{said}");
    }

    fn built(name: &str, rows: &str, entries: Option<u64>) -> Result<Vec<Vec<Turn>>, Error> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.jsonl");
        std::fs::write(&path, rows).unwrap();
        let number = SETS.iter().position(|set| set.name == name).unwrap() as u8;
        let mut all = Vec::new();
        read(&path, number, (entries, &BTreeMap::new()), &mut |draft| {
            all.push(draft.steps.into_iter().map(|step| step.turn).collect());
            Ok(())
        })?;
        Ok(all)
    }

    #[test]
    fn questions_have_their_choices_and_media() {
        let choice = concat!(
            "{\"question\":\"Which? \",\"choices\":{\"A\":\"this\",\"B\":\"\",\"C\":\"that\"},\"video\":\"https://x/y.mp4\"}\n",
            "{\"question\":\"Why?\",\"choices\":null,\"video\":\"/v/z.mp4\"}\n",
            "{\"question\":\"No video\",\"choices\":{},\"video\":null}\n",
        );
        let all = built("mmvu", choice, Some(1)).unwrap();
        let said: Vec<_> =
            all.iter().flatten().map(|t| (t.all_texts().collect(), t.videos[0].contents[0].as_str())).collect();
        assert_eq!(said, [("Which? A.this C.that".to_owned(), "https://x/y.mp4"), ("Why?".into(), "file:///v/z.mp4")]);
        let opening = concat!(
            "{\"conversation\":[[{\"role\":\"user\",\"content\":\"<image>\\nWhat?\"}],[{\"role\":\"assistant\",\"content\":\"x\"}]],\"images\":[\"data:a\",\"data:b\"]}\n",
            "{\"conversation\":[{\"content\":\"\"}],\"images\":[]}\n",
            "{\"conversation\":[{\"role\":\"user\",\"content\":\"two\"}],\"images\":[]}\n",
            "{\"conversation\":[{\"role\":\"user\",\"content\":\"three\"}],\"images\":[]}\n",
        );
        let all = built("vision_arena", opening, Some(2)).unwrap();
        assert_eq!(all.iter().map(Vec::len).collect::<Vec<_>>(), [1, 0, 1], "two that can be sent were asked for");
        assert_eq!((all[0][0].all_texts().collect::<String>(), all[0][0].images.len()), ("What?".into(), 1));
        let said = built("llava_onevision", opening, None).unwrap_err().0;
        assert!(said.ends_with("rows.jsonl:1: no usable column `conversations`"), "{said}");
    }

    #[test]
    fn clips_of_half_a_minute_are_sent() {
        let wav = |seconds: u32| {
            let mut bytes = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0".to_vec();
            bytes.extend([8000u32, 8000].map(u32::to_le_bytes).concat());
            bytes.extend([1, 0, 8, 0]);
            bytes.extend(b"data");
            bytes.extend((seconds * 8000).to_le_bytes());
            bytes.resize(bytes.len() + seconds as usize * 8000, 0);
            let coded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes);
            format!("{{\"audio\":\"wav,{coded}\"}}\n")
        };
        let all = built("ami", &(wav(30) + &wav(31)), None).unwrap();
        assert_eq!(all.iter().map(Vec::len).collect::<Vec<_>>(), [1, 0]);
        assert_eq!(all[0][0].audio_seconds, Some(30.0));
    }

    #[cfg(feature = "arrow")]
    #[test]
    fn cells_of_tables_are_json_or_media() {
        use arrow_array::{ArrayRef, BinaryArray, Int64Array, StringArray, StructArray};
        use arrow_schema::{DataType, Field};
        use std::sync::Arc;

        let pair = |name: &str, kind: DataType, array: ArrayRef| (Arc::new(Field::new(name, kind, true)), array);
        let plain = StructArray::from(vec![
            pair("n", DataType::Int64, Arc::new(Int64Array::from(vec![Some(7), None]))),
            pair("s", DataType::Utf8, Arc::new(StringArray::from(vec!["a", "b"]))),
        ]);
        assert_eq!(cell(&plain, 0), Some(serde_json::json!({"n": 7, "s": "a"})));
        assert_eq!(cell(&plain, 1), Some(serde_json::json!({"s": "b"})));
        let bytes: Vec<&[u8]> = vec![b"RIFF\0\0\0\0WAVE", b"fLaC"];
        let media = StructArray::from(vec![
            pair("bytes", DataType::Binary, Arc::new(BinaryArray::from(bytes))),
            pair("path", DataType::Utf8, Arc::new(StringArray::from(vec!["a", "b"]))),
        ]);
        assert_eq!(cell(&media, 0), Some("wav,UklGRgAAAABXQVZF".into()));
        assert_eq!(cell(&media, 1), None);
    }
}
