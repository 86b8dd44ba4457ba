//! Tables of the hub's repositories: Parquet, or JSONL, whose columns are put together to requests as
//! [`crate::public`] says.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::intake::{Draft, Emit, Prompt, Step};
use crate::jsonl::{self, Place};
use crate::public::{SETS, Shape};
use crate::{Context, Error, Turn, source};

/// Reads all tables of a set's split that lie in `dir`.
pub(crate) fn read(dir: &Path, number: u8, emit: Emit<'_>) -> Result<(), Error> {
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
    for file in files {
        let mut row = |place: Place, column: &dyn Fn(&str) -> Option<Value>| {
            let wrong = |column: &str| place.error(&file, format_args!("no usable column `{column}`"));
            emit(draft(&file, place, set.shape, column).map_err(wrong)?)
        };
        if file.extension().is_some_and(|ending| ending == "parquet") {
            parquet(&file, columns(set.shape), &mut row)?;
        } else {
            jsonl::each(&file, &mut |json| {
                let value = |column: &str| json.raw(column).and_then(|raw| serde_json::from_str(raw).ok());
                row(json.place, &value)
            })?;
        }
    }
    Ok(())
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
        Shape::File(..) | Shape::NotYet(_) => Vec::new(),
    }
}

/// The session of a row, or the column that it lacks.
fn draft(
    file: &Path,
    place: Place,
    shape: Shape,
    column: &dyn Fn(&str) -> Option<Value>,
) -> Result<Draft, &'static str> {
    let text = |name: &'static str| match column(name) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text),
        _ => Err(name),
    };
    let turns = match shape {
        Shape::Column(name) => vec![Turn::of_text(text(name)?)],
        Shape::Turns(name) => {
            let texts: Vec<String> = column(name)
                .and_then(|list| serde_json::from_value(list).ok())
                .filter(|t: &Vec<String>| !t.is_empty())
                .ok_or(name)?;
            texts.into_iter().map(Turn::of_text).collect()
        }
        Shape::Picture { text: name, image } => {
            vec![Turn { images: vec![text(image)?.into()], ..Turn::of_text(text(name)?) }]
        }
        Shape::Edit { code, request } => {
            let (code, request) = (text(code)?, text(request)?);
            vec![Turn::of_text(format!("{request}\n\nRewrite the whole of this code accordingly:\n\n```\n{code}\n```"))]
        }
        Shape::File(..) | Shape::NotYet(_) => Vec::new(),
    };
    let step = |turn| Step { place, turn, prompt: Prompt::Given };
    Ok(Draft {
        path: file.into(),
        session_id: None,
        context: Context::DeltasWithoutResponses,
        system: None,
        steps: turns.into_iter().map(step).collect(),
    })
}

/// A picture inside a table, as a request carries it.
fn picture(bytes: &[u8]) -> Option<Value> {
    let mime = if bytes.starts_with(b"\x89PNG") { "png" } else { "jpeg" };
    Some(Value::String(format!("data:image/{mime};base64,{}", STANDARD.encode(bytes))))
}

type TakeRow<'a> = &'a mut dyn FnMut(Place, &dyn Fn(&str) -> Option<Value>) -> Result<(), Error>;

#[cfg(not(feature = "arrow"))]
fn parquet(file: &Path, _: Vec<&str>, _: TakeRow<'_>) -> Result<(), Error> {
    let _ = picture;
    Err(Error(format!("{}: this build reads no Parquet files (its feature `arrow` is off)", file.display())))
}

#[cfg(feature = "arrow")]
fn parquet(file: &Path, columns: Vec<&str>, row: TakeRow<'_>) -> Result<(), Error> {
    use parquet::arrow::ProjectionMask;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    let open = std::fs::File::open(file).map_err(|e| source::failed(file, &e))?;
    let wrong = |e: &dyn std::fmt::Display| Error(format!("{}: the table cannot be read: {e}", file.display()));
    let builder = ParquetRecordBatchReaderBuilder::try_new(open).map_err(|e| wrong(&e))?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), columns);
    let reader = builder.with_projection(mask).build().map_err(|e| wrong(&e))?;
    let mut entry = 0;
    for batch in reader {
        let batch = batch.map_err(|e| wrong(&e))?;
        for at in 0..batch.num_rows() {
            entry += 1;
            row(Place::Entry(entry), &|name| batch.column_by_name(name).and_then(|array| cell(array, at)))?;
        }
    }
    Ok(())
}

/// A text, a list of texts, or a picture.
#[cfg(feature = "arrow")]
fn cell(array: &dyn arrow_array::Array, row: usize) -> Option<Value> {
    use arrow_array::cast::AsArray;
    use arrow_schema::DataType;

    if array.is_null(row) {
        return None;
    }
    match array.data_type() {
        DataType::Utf8 => Some(array.as_string::<i32>().value(row).into()),
        DataType::LargeUtf8 => Some(array.as_string::<i64>().value(row).into()),
        DataType::Utf8View => Some(array.as_string_view().value(row).into()),
        DataType::Binary => picture(array.as_binary::<i32>().value(row)),
        DataType::LargeBinary => picture(array.as_binary::<i64>().value(row)),
        DataType::Struct(_) => cell(array.as_struct().column_by_name("bytes")?, row),
        DataType::List(_) | DataType::LargeList(_) => {
            let items = match array.data_type() {
                DataType::List(_) => array.as_list::<i32>().value(row),
                _ => array.as_list::<i64>().value(row),
            };
            (0..items.len()).map(|at| cell(&items, at)).collect::<Option<Vec<_>>>().map(Value::Array)
        }
        _ => None,
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
        let mut texts = Vec::new();
        read(dir.path(), number, &mut |draft| {
            texts.extend(draft.steps.into_iter().map(|step| step.turn.all_texts().collect::<String>()));
            Ok(())
        })
        .unwrap();
        assert_eq!(texts, ["1+1", "2+2"]);
        put("test-00000.jsonl", "{\"problem\":\"1+1\"}\n{\"question\":\"2+2\"}");
        let said = read(dir.path(), number, &mut |_| Ok(())).unwrap_err().0;
        assert!(said.ends_with("test-00000.jsonl:2: no usable column `problem`"), "{said}");
    }
}
