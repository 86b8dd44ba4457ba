//! The tables people read, and the lines after them.

use super::verdict::{Client, verdict};
use super::{Written, printable};
use maser_engine::metric::{Group, flag};
use maser_engine::report::{Entry, ErrorDetails, Report};

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
    if report.show_http_trace {
        page.metrics(&mut out, "HTTP Trace Timing", |e| e.metric.has(flag::HTTP_TRACE));
    }
    let family = report.endpoint().metrics_title();
    for (group, title) in [
        (Group::Effective, format!("{family}: Effective")),
        (Group::Active, format!("{family}: Active")),
        (Group::Usage, format!("{family}: Usage")),
        (Group::Default, family.to_owned()),
        (Group::Client, "Client Truth".to_owned()),
    ] {
        page.metrics(&mut out, &title, |e| e.metric.group == group);
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
    fn paint(&self, style: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn verdict(&self, out: &mut String) {
        let (lines, client) = verdict(self.report);
        for text in &lines {
            self.paragraph(out, text, None);
        }
        match client {
            Some(Client::KeptUp(text)) => self.paragraph(out, &text, None),
            Some(Client::Late(text)) => self.paragraph(out, &text, Some(style::WARNING)),
            None => {}
        }
        out.push('\n');
    }

    fn paragraph(&self, out: &mut String, text: &str, style: Option<&str>) {
        for line in wrap(text, self.width) {
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
        for sentence in warnings(self.report) {
            self.paragraph(out, &format!("Warning: {sentence}"), Some(style::WARNING));
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

/// The lines of one cell.
type Cell = Vec<String>;

struct Column {
    head: &'static str,
    left: bool,
}

impl Column {
    fn right(head: &'static str) -> Self {
        Self { head, left: false }
    }

    fn left(head: &'static str) -> Self {
        Self { head, left: true }
    }
}

struct Table {
    title: String,
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

/// Columns that give way on a narrow terminal, the first first; the files have them all.
const EXPENDABLE: [&str; 6] = ["std", "min", "p90", "max", "p50", "p99"];

impl Table {
    fn widths(&self) -> Vec<usize> {
        let cell = |c: &Cell| c.iter().map(|l| l.chars().count()).max().unwrap_or(0);
        let column = |(k, column): (usize, &Column)| {
            let cells = self.rows.iter().filter_map(|r| r.get(k)).map(cell);
            cells.max().unwrap_or(0).max(column.head.len())
        };
        self.columns.iter().enumerate().map(column).collect()
    }

    fn total(&self) -> usize {
        let widths = self.widths();
        widths.iter().sum::<usize>() + 3 * widths.len() + 1
    }

    fn fit(&mut self, width: usize) {
        for head in EXPENDABLE {
            if self.total() <= width {
                return;
            }
            let Some(k) = self.columns.iter().position(|c| c.head == head) else {
                continue;
            };
            self.columns.remove(k);
            for row in &mut self.rows {
                row.remove(k);
            }
        }
        let over = self.total().saturating_sub(width);
        let room = self.widths()[0].saturating_sub(over).max(12);
        for row in &mut self.rows {
            row[0] = row[0].iter().flat_map(|line| wrap(line, room)).collect();
        }
    }
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

fn number(value: Option<f64>) -> String {
    match value {
        Some(x) if x.is_finite() => thousands(&format!("{x:.2}")),
        _ => "N/A".to_owned(),
    }
}

/// Commas between groups of three digits of the whole part.
fn thousands(number: &str) -> String {
    let (sign, rest) = match number.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", number),
    };
    let whole = rest.find('.').unwrap_or(rest.len());
    let mut out = String::from(sign);
    for (k, digit) in rest.chars().enumerate() {
        if k > 0 && k < whole && (whole - k).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn rule(out: &mut String, widths: &[usize], [left, line, cross, right]: [char; 4]) {
    out.push(left);
    for (k, width) in widths.iter().enumerate() {
        if k > 0 {
            out.push(cross);
        }
        out.extend(std::iter::repeat_n(line, width + 2));
    }
    out.push(right);
    out.push('\n');
}

fn lines(out: &mut String, table: &Table, widths: &[usize], cells: &[Cell], bar: char) {
    let height = cells.iter().map(Vec::len).max().unwrap_or(0);
    for line in 0..height {
        out.push(bar);
        for ((cell, column), width) in cells.iter().zip(&table.columns).zip(widths) {
            let text = cell.get(line).map_or("", String::as_str);
            let space = " ".repeat(width.saturating_sub(text.chars().count()));
            if column.left {
                out.push_str(&format!(" {text}{space} {bar}"));
            } else {
                out.push_str(&format!(" {space}{text} {bar}"));
            }
        }
        out.push('\n');
    }
}

/// Breaks a text at spaces into lines of at most `width`, longer words anywhere.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        if used > 0 && used + 1 + word.len() <= width {
            used += 1;
            push(&mut lines, " ");
        } else if used > 0 {
            lines.push(String::new());
            used = 0;
        }
        while word.len() > width {
            let rest = word.split_off(width);
            push(&mut lines, &word.iter().collect::<String>());
            lines.push(String::new());
            word = rest;
        }
        used += word.len();
        push(&mut lines, &word.iter().collect::<String>());
    }
    lines
}

fn push(lines: &mut [String], text: &str) {
    if let Some(last) = lines.last_mut() {
        last.push_str(text);
    }
}

/// What a reader must know before he believes the tables, one sentence each.
fn warnings(report: &Report) -> Vec<String> {
    let mut out = Vec::new();
    let count = |tag: &str| {
        let entry = report.metric(tag);
        entry.and_then(|e| e.summary.avg).unwrap_or(0.0)
    };
    let of = |n: f64| {
        let share = 100.0 * n / report.valid.max(1) as f64;
        format!("{n:.0} of {} requests ({share:.1}%)", report.valid)
    };
    if let Some(reason) = &report.incomplete_reason {
        out.push(format!("INCOMPLETE RESULTS. {reason}"));
    }
    if report.all_failed() {
        out.push("no request was answered; there are no latencies.".to_owned());
    }
    let differ = count("usage_discrepancy_count");
    // The built-in server does not tokenize: its prompt counts are a guess from the size.
    let guessed = report.run.header.topology["mock"] == true;
    if differ > 0.0 && !guessed {
        out.push(format!(
            "in {} the server's token counts differ from the client's by more than 10%: check --tokenizer, or take the \
             server's with --use-server-token-count.",
            of(differ)
        ));
    }
    let mismatch = count("osl_mismatch_count");
    if mismatch > 0.0 {
        out.push(format!(
            "in {} the output length is not the requested one: servers stop early unless told not to, for example with \
             --extra-inputs ignore_eos:true.",
            of(mismatch)
        ));
    }
    if let (_, Some(Client::Late(_))) = verdict(report) {
        out.push(
            "this client held the load back: it needs more or freer cores (--cores). Response Time counts from the \
             planned moment, so it has the client's part in it; the other latencies do not."
                .to_owned(),
        );
    }
    let payloads = report.run.end.as_ref().map_or(0, |e| e.payloads_lost);
    if payloads > 0 {
        out.push(format!(
            "the texts and chunk times of {payloads} requests were lost; their records are complete otherwise."
        ));
    }
    out
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

    #[test]
    fn text_wraps_at_spaces_and_long_words_anywhere() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("abcdefghij k", 4), ["abcd", "efgh", "ij k"]);
        assert_eq!(wrap("", 4), [""]);
        assert_eq!(printable("a\u{1b}[31mb"), "a [31mb");
    }
}
