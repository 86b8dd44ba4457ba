//! `multi_turn`: JSONL whose every row is a conversation; its turns are rows of `single_turn`.
//!
//! ```json
//! {"session_id": "a", "turns": [{"text": "Why?"}, {"text": "And then?", "delay": 500}]}
//! ```
//! Each turn holds what is new; the answers in between are the server's. Rows of one `session_id` are one conversation. A
//! first turn that is a bare text of role `system` becomes the conversation's system prompt, unless it is the only turn or
//! the next one has that role too.

use crate::formats::draft::{Draft, Prompt, Step};
use crate::formats::single_turn;
use crate::read::jsonl::Row;
use crate::{Error, Turn};

/// One row.
pub(crate) fn parse(row: &Row<'_>) -> Result<Draft, Error> {
    let mut steps = Vec::new();
    for turn in row.rows("turns")? {
        steps.push(Step { place: row.place, turn: single_turn::turn(&turn)?, prompt: Prompt::Given });
    }
    if steps.is_empty() {
        return Err(row.error("`turns` must be a list of at least one turn"));
    }
    let system = hoist(&mut steps);
    Ok(Draft {
        path: row.path.into(),
        session_id: row.string("session_id")?,
        context: crate::Context::DeltasWithoutResponses,
        system,
        steps,
    })
}

/// Takes a leading system prompt off the turns.
fn hoist(steps: &mut Vec<Step>) -> Option<String> {
    let is_system = |step: &Step| step.turn.role.as_deref() == Some("system");
    if !steps.first().is_some_and(|first| is_system(first) && is_bare(&first.turn))
        || steps.get(1).is_none_or(is_system)
    {
        return None;
    }
    let text = steps.first()?.turn.all_texts().collect::<Vec<_>>().join("\n");
    steps.remove(0);
    Some(text)
}

/// Whether a turn is a text and nothing else.
fn is_bare(turn: &Turn) -> bool {
    let alone = Turn { texts: turn.texts.clone(), role: turn.role.clone(), ..Turn::default() };
    *turn == alone
}
