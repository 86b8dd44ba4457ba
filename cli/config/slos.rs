//! `--goodput`: the service levels that a good request keeps to.

use crate::refusal::Refusal;
use crate::values::ServiceLevels;
use maser_engine::metric::Applies;
use serde_json::{Map, Value};

/// The levels as the files show them, `{tag: bound}`; each metric must exist in such a run and be bounded once.
pub(crate) fn resolve(typed: &[ServiceLevels], run: &Applies) -> Result<Map<String, Value>, Refusal> {
    let mut levels = Map::new();
    for (metric, bound) in typed.iter().flat_map(|t| &t.0) {
        let tag = metric.tag;
        if let Some(why) = metric.lacks(run) {
            let streamed = Applies { streaming: true, ..*run };
            return Err(Refusal::new(match metric.lacks(&streamed) {
                None => format!("--goodput {tag}: only streamed answers have it; add --streaming"),
                Some(_) => format!("--goodput {tag}: no request of this run can have it: {why}"),
            }));
        }
        if levels.insert(tag.to_owned(), (*bound).into()).is_some() {
            return Err(Refusal::new(format!("--goodput {tag}: it is bounded twice, give one bound")));
        }
    }
    Ok(levels)
}
