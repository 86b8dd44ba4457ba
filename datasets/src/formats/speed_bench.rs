//! `speed_bench_*`: JSONL of NVIDIA's SPEED-Bench as exported from its hub repository, one conversation a row.
//!
//! ```json
//! {"question_id": "…", "category": "coding", "messages": [{"role": "user", "content": "…"}]}
//! ```
//! Every message is a turn with its role. The name says which split a file is; a name that ends in a category takes only
//! the rows of that category.

use std::path::Path;

use crate::formats::draft::{Draft, Emit, Prompt, Step};
use crate::read::jsonl::{self, Row};
use crate::{Context, Error, Turn};

/// What the hub's tables have in place of texts that it may not give out.
const PLACEHOLDER: &str = "FULL BENCHMARK DATA SHOULD BE FETCHED";

/// Names of the splits and their parts, and the category that each takes; none takes all.
const NAMES: [(&str, Option<&str>); 32] = [
    ("speed_bench_qualitative", None),
    ("speed_bench_throughput_1k", None),
    ("speed_bench_throughput_2k", None),
    ("speed_bench_throughput_8k", None),
    ("speed_bench_throughput_16k", None),
    ("speed_bench_throughput_32k", None),
    ("speed_bench_coding", Some("coding")),
    ("speed_bench_humanities", Some("humanities")),
    ("speed_bench_math", Some("math")),
    ("speed_bench_multilingual", Some("multilingual")),
    ("speed_bench_qa", Some("qa")),
    ("speed_bench_rag", Some("rag")),
    ("speed_bench_reasoning", Some("reasoning")),
    ("speed_bench_roleplay", Some("roleplay")),
    ("speed_bench_stem", Some("stem")),
    ("speed_bench_summarization", Some("summarization")),
    ("speed_bench_writing", Some("writing")),
    ("speed_bench_throughput_1k_low_entropy", Some("low_entropy")),
    ("speed_bench_throughput_1k_mixed", Some("mixed")),
    ("speed_bench_throughput_1k_high_entropy", Some("high_entropy")),
    ("speed_bench_throughput_2k_low_entropy", Some("low_entropy")),
    ("speed_bench_throughput_2k_mixed", Some("mixed")),
    ("speed_bench_throughput_2k_high_entropy", Some("high_entropy")),
    ("speed_bench_throughput_8k_low_entropy", Some("low_entropy")),
    ("speed_bench_throughput_8k_mixed", Some("mixed")),
    ("speed_bench_throughput_8k_high_entropy", Some("high_entropy")),
    ("speed_bench_throughput_16k_low_entropy", Some("low_entropy")),
    ("speed_bench_throughput_16k_mixed", Some("mixed")),
    ("speed_bench_throughput_16k_high_entropy", Some("high_entropy")),
    ("speed_bench_throughput_32k_low_entropy", Some("low_entropy")),
    ("speed_bench_throughput_32k_mixed", Some("mixed")),
    ("speed_bench_throughput_32k_high_entropy", Some("high_entropy")),
];

/// The number of a name in any of the spellings that `--custom-dataset-type` takes.
pub(crate) fn number(name: &str) -> Option<u8> {
    NAMES.iter().position(|(known, _)| *known == name).and_then(|at| u8::try_from(at).ok())
}

/// The name of that number.
pub(crate) fn name(number: u8) -> &'static str {
    NAMES.get(usize::from(number)).map_or("speed_bench_qualitative", |(name, _)| name)
}

/// Reads the rows of the category that the name stands for.
pub(crate) fn read(path: &Path, number: u8, emit: Emit<'_>) -> Result<(), Error> {
    let wanted = NAMES.get(usize::from(number)).and_then(|(_, category)| *category);
    jsonl::each(path, &mut |row| {
        let category = row.string("category")?.unwrap_or_default().to_lowercase().replace([' ', '-'], "_");
        if wanted.is_some_and(|wanted| wanted != category) {
            return emit(Draft::empty(path));
        }
        emit(parse(row)?)
    })
}

fn parse(row: &Row<'_>) -> Result<Draft, Error> {
    let mut steps = Vec::new();
    for message in row.rows("messages")? {
        let content = message.string("content")?.unwrap_or_default();
        if content.is_empty() {
            return Err(message.error("`content` must be a text that is not empty"));
        }
        if content.starts_with(PLACEHOLDER) {
            return Err(message.error(
                "`content` is the hub's placeholder; the text has to be fetched with the benchmark's own script first",
            ));
        }
        let turn = Turn { role: message.string("role")?, ..Turn::of_text(content) };
        steps.push(Step { place: row.place, turn, prompt: Prompt::Given });
    }
    if steps.is_empty() {
        return Err(row.error("`messages` must hold at least one message"));
    }
    Ok(Draft {
        path: row.path.into(),
        session_id: row.string("question_id")?,
        context: Context::DeltasWithoutResponses,
        system: None,
        steps,
    })
}
