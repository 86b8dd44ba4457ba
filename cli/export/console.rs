//! The tables people read, and the lines after them.

mod panels;
mod table;

use super::verdict::{accounts, verdict};
use super::{Written, headline, printable, thousands};
use maser_engine::metric::{Group, PERCENTILES, Value, flag};
use maser_engine::report::{Entry, ErrorDetails, Quantile, Report};
use table::{Cell, Column, Table, lines, rule, with_units, wrap};

/// Whether to colour what goes to a stream: only a terminal, and not where NO_COLOR is set (<https://no-color.org>).
pub fn colour_wanted(is_terminal: bool) -> bool {
    is_terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// Narrower than this no table is readable; wider lines are then the terminal's to break.
const WIDTH_MIN: usize = 40;

/// The verdict, then every table and warning of a report, no wider than `width` columns.
pub fn render(report: &Report, width: usize, colour: bool) -> String {
    let page = Page { report, width: width.max(WIDTH_MIN), colour };
    let mut out = String::new();
    page.verdict(&mut out);
    // Where nothing was answered they would hold zeros.
    if !report.all_failed() {
        page.tables(&mut out);
    }
    page.errors(&mut out);
    page.warnings(&mut out);
    out
}

/// What stands under the tables: the command, how long it ran, the files and what went wrong with them.
pub fn closing(report: &Report, results: &[Result<Written, String>]) -> String {
    let mut out = format!("CLI Command: {}\n", report.run.header.cli_command);
    if let Some(seconds) = report.metric("benchmark_duration").and_then(|e| e.summary.avg) {
        let early = if report.was_cancelled { " (cancelled early)" } else { "" };
        out.push_str(&format!("Benchmark Duration: {seconds:.2} sec{early}\n"));
    }
    for result in results {
        match result {
            Ok(file) => out.push_str(&format!("{}: {}\n", file.label, file.path.display())),
            Err(sentence) => out.push_str(&format!("Error: {sentence}\n")),
        }
    }
    out
}

struct Page<'a> {
    report: &'a Report,
    width: usize,
    colour: bool,
}

/// Terminal styles, as SGR parameters.
mod style {
    pub(super) const TITLE: &str = "1;36";
    pub(super) const WARNING: &str = "33";
}

impl Page<'_> {
    fn tables(&self, out: &mut String) {
        if self.report.show_http_trace {
            self.metrics(out, "HTTP Trace Timing", |e| e.metric.has(flag::HTTP_TRACE));
        }
        let family = self.report.endpoint().metrics_title();
        for (group, title) in [
            (Group::Effective, format!("{family}: Effective")),
            (Group::Active, format!("{family}: Active")),
            (Group::Usage, format!("{family}: Usage")),
            (Group::Speculation, "Speculative Decoding".to_owned()),
            (Group::Default, family.to_owned()),
            (Group::Client, "Client Truth".to_owned()),
        ] {
            self.metrics(out, &title, |e| e.metric.group == group && !is_flat_zero(e));
        }
        self.quantiles(out);
    }

    fn paint(&self, style: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn verdict(&self, out: &mut String) {
        for (name, said) in
            [("Failed: ", headline::failed(self.report)), ("Stopped:", headline::stopped(self.report, None))]
        {
            if let Some(said) = said {
                self.paragraph(out, &format!("{name} {said}."), Some(style::WARNING));
            }
        }
        let (lines, client) = verdict(self.report);
        for text in &lines {
            self.paragraph(out, text, None);
        }
        for (name, said) in [("Speed: ", headline::speed(self.report)), ("SLO:   ", headline::levels(self.report))] {
            if let Some(said) = said {
                self.paragraph(out, &format!("{name} {said}."), None);
            }
        }
        for line in client.into_iter().chain(accounts(self.report)) {
            self.paragraph(out, &line.text, line.is_off.then_some(style::WARNING));
        }
        out.push('\n');
    }

    fn paragraph(&self, out: &mut String, text: &str, style: Option<&str>) {
        for line in wrap(&with_units(text), self.width) {
            match style {
                Some(style) => out.push_str(&self.paint(style, &line)),
                None => out.push_str(&line),
            }
            out.push('\n');
        }
    }

    fn metrics(&self, out: &mut String, title: &str, belongs: impl Fn(&Entry) -> bool) {
        let mut entries: Vec<&Entry> =
            self.report.metrics.iter().filter(|e| belongs(e) && !e.metric.has(flag::ERROR_ONLY)).collect();
        if entries.is_empty() {
            return;
        }
        entries.sort_by_key(|e| e.metric.order.unwrap_or(u32::MAX));
        let rows = entries.into_iter().map(row).collect();
        let heads = ["Metric", "avg", "min", "max", "p99", "p90", "p50", "std"];
        let mut table =
            Table { title: format!("maser | {title}"), columns: heads.into_iter().map(Column::right).collect(), rows };
        table.fit(self.width);
        self.table(out, &table);
    }

    /// Percentiles that the other tables do not have, and those whose tail the sample may not settle.
    fn quantiles(&self, out: &mut String) {
        let entries = QUANTILES_OF.iter().filter_map(|tag| self.report.metric(tag));
        let rows: Vec<Vec<Cell>> = entries
            .flat_map(|entry| entry.quantiles.iter().filter(|q| is_tail(q)).map(move |q| quantile_row(entry, q)))
            .collect();
        if rows.is_empty() {
            return;
        }
        let heads = ["Metric", "percentile", "value", "at least", "at most", "n", "effective n"];
        let title = "maser | Percentiles, 95% Confidence".to_owned();
        let mut table = Table { title, columns: heads.into_iter().map(Column::right).collect(), rows };
        table.fit(self.width);
        self.table(out, &table);
    }

    fn errors(&self, out: &mut String) {
        if self.report.errors.is_empty() {
            return;
        }
        let columns =
            vec![Column::right("Code"), Column::right("Type"), Column::left("Message"), Column::right("Count")];
        let rows = shown_errors(self.report).iter().map(|(details, n)| self.error(details, *n)).collect();
        self.table(out, &Table { title: "maser | Error Summary".to_owned(), columns, rows });
    }

    fn error(&self, details: &ErrorDetails, n: u64) -> Vec<Cell> {
        let code = details.code.map_or("N/A".to_owned(), |c| c.to_string());
        let kind = wrap(&printable(&details.kind), (self.width / 4).max(10));
        let kind_width = kind.iter().map(|l| l.chars().count()).max().unwrap_or(0);
        let count = thousands(&n.to_string());
        let around = code.len().max(4) + kind_width.max(4) + count.len().max(5) + 13;
        let room = self.width.saturating_sub(around).max(10);
        let mut message = wrap(&printable(&details.message), room);
        message.truncate(MESSAGE_LINES);
        vec![vec![code], kind, message, vec![count]]
    }

    fn warnings(&self, out: &mut String) {
        for panel in panels::panels(self.report) {
            for line in panel.lines(self.width) {
                out.push_str(&self.paint(style::WARNING, &line));
                out.push('\n');
            }
        }
        for sentence in panels::remarks(self.report) {
            self.paragraph(out, &sentence, Some(style::WARNING));
        }
    }

    fn table(&self, out: &mut String, table: &Table) {
        let widths = table.widths();
        let total = widths.iter().sum::<usize>() + 3 * widths.len() + 1;
        let title_room = total.saturating_sub(table.title.chars().count()) / 2;
        out.push_str(&" ".repeat(title_room));
        out.push_str(&self.paint(style::TITLE, &table.title));
        out.push('\n');
        rule(out, &widths, ['┏', '━', '┳', '┓']);
        let heads: Vec<Cell> = table.columns.iter().map(|c| vec![c.head.to_owned()]).collect();
        lines(out, table, &widths, &heads, '┃');
        rule(out, &widths, ['┡', '━', '╇', '┩']);
        for row in &table.rows {
            lines(out, table, &widths, row, '│');
        }
        rule(out, &widths, ['└', '─', '┴', '┘']);
        out.push('\n');
    }
}

/// Whether a curve over time says nothing: the run has no such phase, as one that is not streamed has no decoding.
fn is_flat_zero(entry: &Entry) -> bool {
    let curve = matches!(entry.metric.value, Value::Effective(_) | Value::Active(_));
    curve && entry.summary.min == Some(0.0) && entry.summary.max == Some(0.0)
}

/// Lines of an error message that are shown; the files have all of it.
const MESSAGE_LINES: usize = 6;

/// Different messages of one kind of error that are shown. Servers that put a request's id into each would fill pages.
const MESSAGES: usize = 3;

/// The groups of errors with their counts, the rarer messages of each kind taken together.
fn shown_errors(report: &Report) -> Vec<(ErrorDetails, u64)> {
    let mut shown: Vec<(ErrorDetails, u64)> = Vec::new();
    let mut rest: Vec<(ErrorDetails, u64, u64)> = Vec::new();
    let mut groups: Vec<_> = report.errors.iter().collect();
    groups.sort_by_key(|g| std::cmp::Reverse(g.count));
    for group in groups {
        let same = |d: &ErrorDetails| d.code == group.details.code && d.kind == group.details.kind;
        if shown.iter().filter(|(d, _)| same(d)).count() < MESSAGES {
            shown.push((group.details.clone(), group.count));
        } else if let Some((_, messages, n)) = rest.iter_mut().find(|(d, ..)| same(d)) {
            *messages += 1;
            *n += group.count;
        } else {
            rest.push((group.details.clone(), 1, group.count));
        }
    }
    shown.extend(rest.into_iter().map(|(details, messages, n)| {
        let message = format!("other messages ({messages}); the JSON export has them");
        (ErrorDetails { message, ..details }, n)
    }));
    shown
}

/// Metrics whose percentiles are shown with their confidence intervals.
const QUANTILES_OF: [&str; 4] = ["time_to_first_token", "request_latency", "inter_token_latency", "response_time"];

/// Percentiles from here on rest on few requests.
const TAIL: f64 = 99.0;

fn is_tail(quantile: &Quantile) -> bool {
    quantile.percent >= TAIL || !PERCENTILES.iter().any(|p| f64::from(*p) == quantile.percent)
}

fn quantile_row(entry: &Entry, quantile: &Quantile) -> Vec<Cell> {
    let bounds = quantile.interval;
    vec![
        label(entry),
        vec![format!("p{}", quantile.percent)],
        vec![number(Some(quantile.value))],
        vec![number(bounds.map(|b| b.0))],
        vec![number(bounds.map(|b| b.1))],
        vec![count(entry.summary.count)],
        vec![count(quantile.effective.map(|n| n as u64))],
    ]
}

fn row(entry: &Entry) -> Vec<Cell> {
    let s = &entry.summary;
    let mut cells = vec![label(entry)];
    for figure in [s.avg, s.min, s.max, s.percentiles[8], s.percentiles[6], s.percentiles[4], s.std] {
        cells.push(vec![number(figure)]);
    }
    cells
}

/// Headers longer than this have their unit on a second line.
const HEADER_LINE: usize = 30;

fn label(entry: &Entry) -> Cell {
    let (header, unit) = (entry.metric.header, entry.metric.display);
    if header.chars().count() > HEADER_LINE {
        vec![header.to_owned(), format!("({unit})")]
    } else {
        vec![format!("{header} ({unit})")]
    }
}

fn count(n: Option<u64>) -> String {
    n.map_or_else(|| "N/A".to_owned(), |n| thousands(&n.to_string()))
}

fn number(value: Option<f64>) -> String {
    match value {
        Some(x) if x.is_finite() => thousands(&format!("{x:.2}")),
        _ => "N/A".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_commas_and_two_places() {
        for (value, text) in [(0.0, "0.00"), (999.999, "1,000.00"), (-1234567.5, "-1,234,567.50"), (123.0, "123.00")] {
            assert_eq!(number(Some(value)), text);
        }
        assert_eq!(number(None), "N/A");
        assert_eq!(number(Some(f64::INFINITY)), "N/A");
    }
}
