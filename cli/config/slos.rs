//! `--goodput`: the service levels that a good request keeps to.

use crate::refusal::Refusal;
use crate::values::ServiceLevels;
use maser_engine::metric::flag;
use serde_json::{Map, Value};

/// The levels as the files show them, `{tag: bound}`; each metric must exist in such a run and be bounded once.
pub(crate) fn resolve(typed: &[ServiceLevels], streaming: bool) -> Result<Map<String, Value>, Refusal> {
    let mut levels = Map::new();
    for (metric, bound) in typed.iter().flat_map(|t| &t.0) {
        let tag = metric.tag;
        if metric.has(flag::STREAMING) && !streaming {
            return Err(Refusal::new(format!("--goodput {tag}: only streamed answers have it; add --streaming")));
        }
        if levels.insert(tag.to_owned(), (*bound).into()).is_some() {
            return Err(Refusal::new(format!("--goodput {tag}: it is bounded twice, give one bound")));
        }
    }
    Ok(levels)
}
