//! Tables of text that fit a width: columns give way, then labels wrap.

use super::super::GLUE;

/// The lines of one cell.
pub(super) type Cell = Vec<String>;

pub(super) struct Column {
    pub(super) head: &'static str,
    left: bool,
}

impl Column {
    pub(super) fn right(head: &'static str) -> Self {
        Self { head, left: false }
    }

    pub(super) fn left(head: &'static str) -> Self {
        Self { head, left: true }
    }
}

pub(super) struct Table {
    pub(super) title: String,
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Vec<Cell>>,
}

/// Columns that give way on a narrow terminal, the first first; the files have them all.
const EXPENDABLE: [&str; 8] = ["n", "effective n", "std", "min", "p90", "max", "p50", "p99"];

impl Table {
    pub(super) fn widths(&self) -> Vec<usize> {
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

    pub(super) fn fit(&mut self, width: usize) {
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

pub(super) fn rule(out: &mut String, widths: &[usize], [left, line, cross, right]: [char; 4]) {
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

pub(super) fn lines(out: &mut String, table: &Table, widths: &[usize], cells: &[Cell], bar: char) {
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
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    // What is too long for a line is broken at its own spaces first.
    let too_long = |word: &str| word.chars().count() > width;
    let words = text.split(' ').flat_map(|word| word.split(move |c| c == GLUE && too_long(word)));
    for word in words {
        let mut word: Vec<char> = word.chars().map(|c| if c == GLUE { ' ' } else { c }).collect();
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

/// The text with every number glued to the word behind it, so that none is parted from its unit.
pub(super) fn with_units(text: &str) -> String {
    let is_number = |word: &str| {
        let word = word.trim_start_matches('(');
        word.starts_with(|c: char| c.is_ascii_digit()) && word.ends_with(|c: char| c.is_ascii_digit())
    };
    let mut out = String::with_capacity(text.len());
    for word in text.split_inclusive(' ') {
        match word.strip_suffix(' ') {
            Some(number) if is_number(number) => out.extend([number, GLUE.encode_utf8(&mut [0; 4])]),
            _ => out.push_str(word),
        }
    }
    out
}

fn push(lines: &mut [String], text: &str) {
    if let Some(last) = lines.last_mut() {
        last.push_str(text);
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::unbroken;
    use super::*;

    #[test]
    fn text_wraps_at_spaces_and_long_words_anywhere() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("abcdefghij k", 4), ["abcd", "efgh", "ij k"]);
        assert_eq!(wrap("", 4), [""]);
    }

    #[test]
    fn a_number_keeps_its_unit() {
        let text = with_units("Got: 20 requests (60 µs at most), answered at 0.0 requests/s.");
        let lines = ["Got: 20 requests", "(60 µs at most),", "answered at", "0.0 requests/s."];
        assert_eq!(wrap(&text, 16), lines);
        assert_eq!(wrap(&with_units("99.5% of the rate, 7 of 9"), 9), ["99.5% of", "the rate,", "7 of 9"]);
        assert_eq!(wrap(&with_units("0.0 requests/s"), 10), ["0.0", "requests/s"]);
    }

    #[test]
    fn what_is_unbroken_stands_on_one_line_if_a_line_has_room() {
        let text = format!("none of {}", unbroken("4 × Not Found"));
        assert_eq!(wrap(&text, 13), ["none of", "4 × Not Found"]);
        assert_eq!(wrap(&text, 12), ["none of 4 ×", "Not Found"]);
        assert_eq!(wrap(&text, 80), ["none of 4 × Not Found"]);
    }
}
