//! What a reader must know before he believes the tables.

use super::table::wrap;
use maser_engine::metric::{OSL_MISMATCH_PCT, OSL_MISMATCH_TOKENS, USAGE_DIFF_PCT};
use maser_engine::report::{Grade, Report};

/// A titled box: what was found, and what can be done about it.
pub(super) struct Panel {
    pub(super) title: &'static str,
    /// Sentences; those that begin with a dash are indented.
    pub(super) says: Vec<String>,
}

impl Panel {
    /// The box, no wider than `width`.
    pub(super) fn lines(&self, width: usize) -> Vec<String> {
        let room = width.saturating_sub(4).max(10);
        let mut inside: Vec<String> = Vec::new();
        for sentence in &self.says {
            match sentence.strip_prefix("- ") {
                Some(item) => {
                    let lines = wrap(item, room.saturating_sub(2)).into_iter().enumerate();
                    inside.extend(lines.map(|(k, line)| format!("{}{line}", if k == 0 { "- " } else { "  " })));
                }
                None => inside.extend(wrap(sentence, room)),
            }
        }
        let title = format!(" {} ", self.title);
        let widest = inside.iter().map(|line| line.chars().count()).max().unwrap_or(0);
        let inner = widest.max(title.chars().count()).min(room);
        let after = (inner + 2).saturating_sub(1 + title.chars().count());
        let mut lines = vec![format!("╭─{title}{}╮", "─".repeat(after))];
        lines.extend(inside.into_iter().map(|line| {
            let space = " ".repeat(inner.saturating_sub(line.chars().count()));
            format!("│ {line}{space} │")
        }));
        lines.push(format!("╰{}╯", "─".repeat(inner + 2)));
        lines
    }
}

/// The boxes of a report, in the reference's order; the one on incomplete results is the last there and here.
pub(super) fn panels(report: &Report) -> Vec<Panel> {
    [mismatch(report), discrepancy(report), incomplete(report)].into_iter().flatten().collect()
}

fn avg(report: &Report, tag: &str) -> Option<f64> {
    report.metric(tag)?.summary.avg
}

/// `n` as a share of the valid requests; `None` for none.
fn share(report: &Report, tag: &str) -> Option<String> {
    let n = avg(report, tag).filter(|n| *n > 0.0)?;
    Some(format!("{n:.0} of {} requests ({:.1}%)", report.valid, 100.0 * n / report.valid.max(1) as f64))
}

fn mismatch(report: &Report) -> Option<Panel> {
    let share = share(report, "osl_mismatch_count")?;
    let mut says = vec![format!(
        "{share} have an output length off the requested one by more than {OSL_MISMATCH_PCT}% or \
         {OSL_MISMATCH_TOKENS} tokens, whichever is less."
    )];
    let off = report.metric("osl_mismatch_diff_pct").map(|e| e.summary);
    if let Some((avg, min, max)) = off.and_then(|s| Some((s.avg?, s.min?, s.max?))) {
        says.push(format!("Off by {avg:+.1}% on average, from {min:+.1}% to {max:+.1}%."));
        says.push(match avg < 0.0 {
            true => "- Shorter: servers end an answer where the model does. Many take --extra-inputs ignore_eos:true, \
                     some also min_tokens:N."
                .to_owned(),
            false => {
                "- Longer: the server does not keep to max_completion_tokens; try --use-legacy-max-tokens, or the \
                      client's tokenizer is not the model's (--tokenizer)."
                    .to_owned()
            }
        });
    }
    says.push("- osl_mismatch_diff_pct of single requests is in profile_export.jsonl.".to_owned());
    Some(Panel { title: "Output Length Mismatch", says })
}

fn discrepancy(report: &Report) -> Option<Panel> {
    let share = share(report, "usage_discrepancy_count")?;
    // The built-in server does not tokenize: its prompt counts are a guess from the size.
    if report.run.header.topology["mock"] == true {
        return None;
    }
    let mut says = vec![format!(
        "{share} have token counts of the server's (usage) and of the client's tokenizer that differ by more than \
         {USAGE_DIFF_PCT}%."
    )];
    for (what, server, client) in [
        ("Prompts", "usage_prompt_tokens", "input_sequence_length"),
        ("Answers", "usage_completion_tokens", "output_sequence_length"),
    ] {
        if let (Some(server), Some(client)) = (avg(report, server), avg(report, client)) {
            says.push(format!("{what}: {server:.1} tokens on average by the server, {client:.1} by the client."));
        }
    }
    says.push("- Another tokenizer: --tokenizer takes the path of the model's own.".to_owned());
    says.push("- A chat template: the server counts what it puts around the texts.".to_owned());
    says.push("- To go by the server's counts: --use-server-token-count.".to_owned());
    says.push("- usage_*_diff_pct of single requests are in profile_export.jsonl.".to_owned());
    Some(Panel { title: "Token Count Discrepancy", says })
}

fn incomplete(report: &Report) -> Option<Panel> {
    let reason = report.incomplete_reason.clone()?;
    Some(Panel { title: "INCOMPLETE RESULTS", says: vec![reason] })
}

/// Remarks that need no box, one sentence each.
pub(super) fn remarks(report: &Report) -> Vec<String> {
    let mut out = Vec::new();
    if report.censored > 0 {
        out.push(format!(
            "Warning: {} requests were cut in flight by the end of the run; they count as failed, and only the \
             error-adjusted latencies have them.",
            report.censored
        ));
    }
    if report.verdict.as_ref().is_some_and(|verdict| verdict.grade == Grade::Limit) {
        out.push(
            "Warning: this client held the load back. Response Time counts from the planned moment, so it has all of the \
             client's part in it; request latency and TTFT have what came after the start."
                .to_owned(),
        );
    }
    let payloads = report.run.end.as_ref().map_or(0, |e| e.payloads_lost);
    if payloads > 0 {
        out.push(format!(
            "Warning: the texts and chunk times of {payloads} requests were lost; their records are complete otherwise."
        ));
    }
    out.extend(report.odd.sentences(report.token_source).into_iter().map(|said| format!("Note: {said}")));
    let usage = report.metric("usage_prompt_tokens").is_some();
    let mock = report.run.header.topology["mock"] == true;
    if usage && !mock && report.metric("usage_prompt_cache_read_tokens").is_none() {
        out.push(
            "Note: the server reports usage but no cached prompt tokens. If it caches prefixes it may have to be told to \
             report them: vLLM --enable-prompt-tokens-details, SGLang --enable-cache-report."
                .to_owned(),
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panel_is_a_box_of_the_width_it_needs_and_no_wider_than_it_may() {
        let says = vec!["One sentence of some length.".to_owned(), "- and an item".to_owned()];
        let panel = Panel { title: "Title", says };
        for width in [20, 25, 32, 80] {
            let lines = panel.lines(width);
            let lengths: Vec<usize> = lines.iter().map(|l| l.chars().count()).collect();
            assert!(lengths.iter().all(|n| *n == lengths[0] && *n <= width), "{lines:?}");
        }
        assert_eq!(panel.lines(80)[1], "│ One sentence of some length. │");
        assert_eq!(panel.lines(80)[0], "╭─ Title ──────────────────────╮");
    }
}
