//! `maser metrics`: the page of all metrics, made from the metric table.

use crate::say;
use maser_engine::metric::{
    ABSENT, Group, METRICS, Metric, OSL_MISMATCH_PCT, OSL_MISMATCH_TOKENS, PERCENTILES, USAGE_DIFF_PCT, Value, flag,
};

/// Prints the page, Markdown.
pub(crate) fn run() -> u8 {
    say(std::io::stdout(), format_args!("{}", page().trim_end()));
    0
}

const HEAD: &str = "\
# Metrics

Made by `maser metrics` from the table that the results are computed from. A metric stands under its tag in the JSON files
and under its name in the tables and the CSV.

- **Kind.** *Each request*: one value a request, then statistics over the requests. *Whole run*: one number, as `avg`. *Over
  time*: statistics of a curve, weighted by time.
- **Statistics** of the kind *each request* are avg, min, max, sum, the percentiles listed below, std (population, divisor n)
  and count. A percentile interpolates linearly between the two closest ranks, at q·(n − 1). Curves have no sum and no count.
- **Which requests.** Latencies and lengths are those of the requests that succeeded; failed ones have theirs where it is
  said. Requests of a warm-up are in `warmup_metrics` alone.
- **Rates** divide by the time in which profiling phases were running, from the start of a phase to its last answer.
- A metric that cannot be computed for a request has no value there, and no zero; one that has no value at all is left out.
";

/// Console tables in their order, with their headings.
const GROUPS: [(Group, &str); 7] = [
    (Group::Default, "In the main table"),
    (Group::Effective, "Over time, the whole run"),
    (Group::Active, "Over time, while the phase is not empty"),
    (Group::Usage, "As the server counts"),
    (Group::Speculation, "Speculative decoding"),
    (Group::Client, "Client truth: what only maser measures"),
    (Group::None, "In the files only"),
];

fn page() -> String {
    let percentiles = PERCENTILES.map(|p| format!("p{p}")).join(", ");
    let mut out = format!(
        "{HEAD}\n\
         Percentiles: {percentiles}. An output length is a mismatch when it is off by more than {OSL_MISMATCH_PCT} % of \
         the requested one or by more than {OSL_MISMATCH_TOKENS} tokens, whichever is less; token counts of client and \
         server further apart than {USAGE_DIFF_PCT} % are a discrepancy.\n"
    );
    for (group, heading) in GROUPS {
        let mut rows: Vec<&Metric> = METRICS.iter().filter(|m| m.group == group && is_shown(m)).collect();
        if rows.is_empty() {
            continue;
        }
        rows.sort_by_key(|m| m.order.unwrap_or(u32::MAX));
        out.push_str(&format!("\n## {heading}\n\n| name | tag | unit | kind | meaning | absent when |\n"));
        out.push_str("|---|---|---|---|---|---|\n");
        for metric in rows {
            out.push_str(&row(metric));
        }
    }
    out.push_str("\n## What AIPerf 0.13 has and maser does not\n\n| tag | why |\n|---|---|\n");
    for absent in ABSENT {
        out.push_str(&format!("| `{}` | {} |\n", absent.tag, absent.reason));
    }
    out
}

/// Internal and experimental rows are in no file.
fn is_shown(metric: &Metric) -> bool {
    !metric.has(flag::INTERNAL) && !metric.has(flag::EXPERIMENTAL)
}

fn row(metric: &Metric) -> String {
    let ours = if metric.has(flag::OURS) { " (maser's own)" } else { "" };
    let better = if metric.has(flag::LARGER_IS_BETTER) { " More is better." } else { "" };
    format!(
        "| {}{ours} | `{}` | {} | {} | {}{better} | {} |\n",
        cell(metric.header),
        metric.tag,
        metric.display,
        kind(metric),
        cell(metric.definition),
        metric.absent_where().join("; "),
    )
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn kind(metric: &Metric) -> &'static str {
    match metric.value {
        Value::Valid(_) | Value::Adjusted(_) => "each request",
        Value::Failed(_) => "each failed request",
        Value::Every(_) => "each request, failed ones too",
        Value::Gaps => "each gap of each request",
        Value::Effective(_) | Value::Active(_) => "over time",
        _ => "whole run",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exported_metric_has_one_row() {
        let page = page();
        for metric in METRICS {
            let rows = page.matches(&format!("| `{}` |", metric.tag)).count();
            assert_eq!(rows, usize::from(is_shown(metric)), "{}", metric.tag);
        }
    }

    #[test]
    fn the_committed_page_is_this_one() {
        let committed = include_str!("../../docs/metrics.md");
        assert!(committed == page(), "docs/metrics.md is not what `maser metrics` prints: print it there again");
    }
}
