//! `raw_payload`: JSONL whose every row is a whole chat body, sent as it stands.
//!
//! ```json
//! {"model": "m", "messages": [{"role": "user", "content": "Why?"}], "stream": true}
//! ```
//! In a file every row is a conversation; in a directory every `.jsonl` file is one, and its rows are the turns. Each body
//! holds the whole conversation so far.

use std::path::Path;

use serde_json::Value;

use crate::formats::draft::{Draft, Emit, Prompt, Step};
use crate::formats::mooncake;
use crate::read::jsonl::{self, Row};
use crate::read::source;
use crate::{Context, Error, Turn};

/// Reads a file or a directory.
pub(crate) fn read(path: &Path, emit: Emit<'_>) -> Result<(), Error> {
    if !path.is_dir() {
        return jsonl::each(path, &mut |row| {
            let mut draft = Draft::of_turn(path, row.place, None, turn(row)?, Prompt::Given);
            draft.context = Context::MessageArray;
            emit(draft)
        });
    }
    for file in source::jsonl(source::files(path, false)?) {
        let mut steps = Vec::new();
        jsonl::each(&file, &mut |row| {
            steps.push(Step { place: row.place, turn: turn(row)?, prompt: Prompt::Given });
            Ok(())
        })?;
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        emit(Draft {
            session_id: Some(name.split('.').next().unwrap_or_default().to_owned()),
            context: Context::MessageArray,
            system: None,
            steps,
            path: file.as_path().into(),
        })?;
    }
    Ok(())
}

fn turn(row: &Row<'_>) -> Result<Turn, Error> {
    mooncake::messages(row)?;
    Ok(Turn { payload: Some(Value::Object(row.whole()?)), ..Turn::default() })
}
