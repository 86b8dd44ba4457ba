//! `mt_bench` and `spec_bench`: JSONL of questions whose `turns` are texts.
//!
//! ```json
//! {"question_id": 81, "category": "writing", "turns": ["Compose a post.", "Rewrite it."]}
//! ```
//! MT-bench asks all turns, each after the answer to the one before; Spec-Bench the first only.

use crate::formats::draft::{Draft, Prompt, Step};
use crate::read::jsonl::Row;
use crate::{Context, Error, Turn};

/// One row.
pub(crate) fn parse(row: &Row<'_>, first_only: bool) -> Result<Draft, Error> {
    let mut turns: Vec<String> = row.read("turns", "a list of strings")?.unwrap_or_default();
    if first_only {
        turns.truncate(1);
    }
    if turns.is_empty() || turns.iter().any(String::is_empty) {
        return Err(row.error("`turns` must hold at least one text, and none that is empty"));
    }
    let step = |text| Step { place: row.place, turn: Turn::of_text(text), prompt: Prompt::Given };
    Ok(Draft {
        path: row.path.into(),
        session_id: row.raw("question_id").map(|id| format!("question_{}", id.trim_matches('"'))),
        context: Context::DeltasWithoutResponses,
        system: None,
        steps: turns.into_iter().map(step).collect(),
    })
}
