//! `bailian_trace`: JSONL of Alibaba's Bailian traces, whose requests name the chat they continue.
//!
//! ```json
//! {"chat_id": 159, "parent_chat_id": 55, "timestamp": 61.114, "input_length": 521, "output_length": 132,
//!  "type": "text", "turn": 2, "hash_ids": [1089, 1090, 1091]}
//! ```
//! `timestamp` in seconds. A session is all chats of one root, in the order of `turn`; its id is the root's. A chat whose
//! parent is not in the file is a root (`parent_chat_id` is −1 at the start of a chat).
//!
//! `input_length` of a later turn counts the whole conversation so far, and its `hash_ids` begin with those of the
//! earlier turns. The reference takes both for what the turn adds, so that contexts grow faster than they were recorded;
//! here every turn is the whole recorded prompt, sent by itself at its own time: the server sees the lengths and the
//! shared blocks that the trace has.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use crate::formats::draft::{Draft, Emit, Prompt, Step};
use crate::lengths::MAX_TOKENS;
use crate::read::jsonl::{Place, Row};
use crate::read::spool::{Rows, Span};
use crate::{Context, Error, Turn};

/// Tokens of a block where nothing says otherwise.
pub(crate) const BLOCK_SIZE: u32 = 16;

/// What says where a row belongs.
struct Chat {
    id: i64,
    turn: i64,
    place: Place,
    span: Span,
}

/// Reads the file and hands over its sessions in the order of their first rows. Chats of one root may stand far apart, so
/// rows are looked at first and read when their session's turn has come.
pub(crate) fn read(path: &Path, emit: Emit<'_>) -> Result<(), Error> {
    let (mut chats, mut parents) = (Vec::new(), HashMap::new());
    let mut rows = Rows::index(path, &mut |row, span| {
        let (id, parent, turn) = identity(row)?;
        parents.insert(id, parent);
        chats.push(Chat { id, turn, place: row.place, span });
        Ok(())
    })?;
    for (root, chats) in sessions(chats, &parents) {
        let steps = chats.into_iter().map(|chat| rows.read(chat.place, chat.span, step)).collect::<Result<_, _>>()?;
        emit(Draft {
            path: path.into(),
            session_id: Some(root.to_string()),
            context: Context::MessageArray,
            system: None,
            steps,
        })?;
    }
    Ok(())
}

/// Each root with its chats in the order of their turns.
fn sessions(chats: Vec<Chat>, parents: &HashMap<i64, i64>) -> impl Iterator<Item = (i64, Vec<Chat>)> {
    let mut first: HashMap<i64, usize> = HashMap::new();
    let mut sessions: BTreeMap<usize, (i64, Vec<Chat>)> = BTreeMap::new();
    for (row, chat) in chats.into_iter().enumerate() {
        let root = root(chat.id, parents);
        let session = *first.entry(root).or_insert(row);
        sessions.entry(session).or_insert_with(|| (root, Vec::new())).1.push(chat);
    }
    sessions.into_values().map(|(root, mut chats)| {
        chats.sort_by_key(|chat| chat.turn);
        (root, chats)
    })
}

/// Walks up to the chat that began it all. A circle ends where it closes.
fn root(mut id: i64, parents: &HashMap<i64, i64>) -> i64 {
    let mut seen = HashSet::from([id]);
    while let Some(parent) = parents.get(&id).filter(|parent| parents.contains_key(parent)) {
        if !seen.insert(*parent) {
            return least_of_circle(*parent, parents);
        }
        id = *parent;
    }
    id
}

/// The chat that all of a circle agree on.
fn least_of_circle(start: i64, parents: &HashMap<i64, i64>) -> i64 {
    let (mut least, mut at) = (start, start);
    while let Some(next) = parents.get(&at).copied().filter(|next| *next != start) {
        (least, at) = (least.min(next), next);
    }
    least
}

fn missing(row: &Row<'_>, field: &str) -> Error {
    row.error(format_args!("no `{field}`"))
}

/// Chat, parent and turn.
fn identity(row: &Row<'_>) -> Result<(i64, i64, i64), Error> {
    let whole = |field: &str| row.read::<i64>(field, "a whole number");
    let id = whole("chat_id")?.ok_or_else(|| missing(row, "chat_id"))?;
    Ok((id, whole("parent_chat_id")?.unwrap_or(-1), whole("turn")?.unwrap_or(0)))
}

fn step(row: &Row<'_>) -> Result<Step, Error> {
    let length = row.integer("input_length", MAX_TOKENS)?.ok_or_else(|| missing(row, "input_length"))?;
    if length == 0 {
        return Err(row.error("`input_length` must be at least 1"));
    }
    let turn = Turn {
        timestamp_ns: Some(row.seconds("timestamp")?.ok_or_else(|| missing(row, "timestamp"))?),
        max_tokens: Some(row.integer("output_length", MAX_TOKENS)?.ok_or_else(|| missing(row, "output_length"))?),
        ..Turn::default()
    };
    let hash_ids = row.read("hash_ids", "a list of whole numbers")?.unwrap_or_default();
    Ok(Step { place: row.place, turn, prompt: Prompt::Synthetic { length, hash_ids } })
}
