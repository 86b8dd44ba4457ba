//! Where in an answer its output stands: the paths that `response_field` names.
//!
//! A JSON pointer (`/choices/0/text`), or a JMESPath. Pointers, and JMESPaths of nothing but names and `[n]`, are followed
//! over the bytes and build no tree; any other JMESPath is compiled once and given the answer as a tree, which costs some
//! microseconds a kilobyte.

use super::{Reading, Unreadable};
use crate::wire::json::Scanner;
use jmespath::Expression;

/// A path into a JSON value.
#[derive(Debug, Clone, PartialEq)]
pub struct ResponseField {
    place: Place,
    /// Where nothing stands there, whatever else the answer holds is its output.
    or_anything: bool,
}

#[derive(Debug, Clone, PartialEq)]
enum Place {
    Steps(Vec<Step>),
    Expression(Expression<'static>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Member(String),
    Element(u32),
    /// Of a pointer: an element, or the member of that name.
    Either(u32),
}

impl ResponseField {
    /// Reads a path.
    ///
    /// # Errors
    /// It is none; the text completes a sentence about the path.
    pub fn parse(text: &str) -> Result<Self, String> {
        let place = if let Some(rest) = text.strip_prefix('/') {
            Place::Steps(rest.split('/').map(pointer_step).collect())
        } else if let Some(steps) = plain_steps(text) {
            Place::Steps(steps)
        } else {
            Place::Expression(jmespath::compile(text).map_err(|e| {
                let what = e.reason.to_string().replace('\n', " ");
                let what = what.strip_prefix("Parse error: ").unwrap_or(&what).trim_end_matches('.');
                format!("{text:?} is neither a JSON pointer nor a JMESPath: {what} at character {}", e.offset + 1)
            })?)
        };
        Ok(Self { place, or_anything: false })
    }

    /// The same path; where nothing stands there, output is looked for as in an answer without one.
    pub fn or_anything(self) -> Self {
        Self { or_anything: true, ..self }
    }

    /// Reads what stands at the path: a text, several of them, vectors, or a ranking's rows. Nothing there is an answer
    /// without content. Errors and token counts of the answer are read as everywhere. What does not stand in the answer
    /// as it is, is written into `made`.
    ///
    /// # Errors
    /// The answer is not JSON.
    pub fn read<'a>(&self, json: &'a [u8], made: &'a mut Vec<u8>) -> Result<Reading<'a>, Unreadable> {
        let mut reading = Reading::default();
        let mut scanner = Scanner::new(json);
        scanner.skip();
        scanner.end()?;
        let mut around = Reading::default();
        super::found::read(json, &mut around)?;
        match &self.place {
            Place::Steps(steps) => follow(steps, Scanner::new(json).raw(), &mut reading),
            Place::Expression(expression) => {
                made.clear();
                // What an expression cannot be applied to is not there: a function's argument of another type.
                if let Ok(tree) = serde_json::from_slice::<serde_json::Value>(json)
                    && let Ok(found) = expression.search(tree)
                    && serde_json::to_writer(&mut *made, &found).is_ok()
                {
                    take(made, &mut reading);
                }
            }
        }
        if self.or_anything && !reading.has_content() {
            return Ok(around);
        }
        (reading.usage, reading.error) = (around.usage, around.error);
        Ok(reading)
    }
}

fn pointer_step(token: &str) -> Step {
    let canonical = token == "0" || !token.starts_with('0');
    match token.parse() {
        Ok(n) if canonical => Step::Either(n),
        _ => Step::Member(token.replace("~1", "/").replace("~0", "~")),
    }
}

/// The steps of a JMESPath that has names and `[n]` only.
fn plain_steps(text: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    for (k, part) in text.split('.').enumerate() {
        let name_end = part.find('[').unwrap_or(part.len());
        let (name, mut rest) = part.split_at(name_end);
        let is_name = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && !name.is_empty();
        if is_name && !name.starts_with(|c: char| c.is_ascii_digit()) {
            steps.push(Step::Member(name.to_owned()));
        } else if !(name.is_empty() && k == 0 && !rest.is_empty()) {
            return None;
        }
        while !rest.is_empty() {
            let (n, after) = rest.strip_prefix('[')?.split_once(']')?;
            steps.push(Step::Element(n.parse().ok()?));
            rest = after;
        }
    }
    Some(steps)
}

fn follow<'a>(steps: &[Step], raw: &'a [u8], reading: &mut Reading<'a>) {
    let Some((step, rest)) = steps.split_first() else { return take(raw, reading) };
    let mut scanner = Scanner::new(raw);
    if raw.first() == Some(&b'{') {
        let name = match step {
            Step::Member(name) => name.clone(),
            Step::Either(n) => n.to_string(),
            Step::Element(_) => return,
        };
        scanner.open_object();
        while let Some(key) = scanner.next_key() {
            let value = scanner.raw();
            if key == name.as_bytes() {
                follow(rest, value, reading);
            }
        }
    } else if raw.first() == Some(&b'[') {
        scanner.open_array();
        let mut n = 0;
        while scanner.next_element() {
            let value = scanner.raw();
            if matches!(step, Step::Element(k) | Step::Either(k) if *k == n) {
                follow(rest, value, reading);
            }
            n += 1;
        }
    }
}

/// A text is output; a list of numbers is a vector; a list of anything else is its elements, of which objects without any
/// output of their own are rows of a ranking; numbers and truth values are output as they are written.
fn take<'a>(raw: &'a [u8], reading: &mut Reading<'a>) {
    let mut scanner = Scanner::new(raw);
    match raw.first() {
        Some(b'"') => reading.text.push(scanner.string().unwrap_or_default()),
        Some(b'[') => {
            scanner.open_array();
            let mut numbers = false;
            while scanner.next_element() {
                let element = scanner.raw();
                match element.first() {
                    Some(b'-' | b'0'..=b'9') => numbers = true,
                    Some(b'{') => {
                        let before = (reading.units, reading.text.iter().count());
                        take(element, reading);
                        let any = before != (reading.units, reading.text.iter().count());
                        reading.units += u32::from(!any);
                    }
                    _ => take(element, reading),
                }
            }
            reading.units += u32::from(numbers);
        }
        Some(b'{') => {
            let mut inner = Reading::default();
            if super::found::read(raw, &mut inner).is_ok() {
                inner.text.iter().for_each(|piece| reading.text.push(piece));
                reading.units += inner.units;
            }
        }
        Some(b'n') | None => {}
        Some(_) => reading.text.push(raw),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts, joined, and units.
    fn told(field: &ResponseField, json: &str) -> (String, u32) {
        let mut made = Vec::new();
        let reading = field.read(json.as_bytes(), &mut made).unwrap();
        let text: Vec<u8> = reading.text.iter().flatten().copied().collect();
        (String::from_utf8(text).unwrap(), reading.units)
    }

    const JSON: &str = r#"{"a":{"b c":["x",{"y":"z"}],"0":"n"},"data":[{"e":[1,2]},{"e":[3]}],"v":[1,2],"n":null,"k":7,
        "m":[[1],[2]],"r":[{"index":0,"score":1},{"index":1,"score":2}],"parts":[{"type":"text","text":"é\"1"},
        {"type":"image"},{"type":"text","text":"2"}]}"#;

    #[test]
    fn every_kind_of_path_is_followed() {
        for (path, text, units) in [
            ("/a/b c/0", "x", 0),
            ("/a/b c/1/y", "z", 0),
            ("/a/0", "n", 0),
            ("a.\"b c\"[0]", "x", 0),
            ("a.\"b c\"[1].y", "z", 0),
            ("a.\"b c\"[-1].y", "z", 0),
            ("a.\"b c\"[1]", "", 0),
            ("a[0]", "", 0),
            ("data[*].e", "", 2),
            ("data[].e", "", 2),
            ("data[1].e", "", 1),
            ("v", "", 1),
            ("v[*]", "", 1),
            ("m", "", 2),
            ("m[]", "", 1),
            ("r", "", 2),
            ("r[*].score", "", 1),
            ("k", "7", 0),
            ("n", "", 0),
            ("nothing.here", "", 0),
            ("parts[?type=='text'].text | join('', @)", "é\\\"12", 0),
            ("parts[0:2].text", "é\\\"1", 0),
            ("{first: a.\"b c\"[0], text: parts[2].text}", "2", 0),
            ("length(a)", "2", 0),
            ("length(k)", "", 0),
            ("a.*", "nx", 1),
        ] {
            assert_eq!(told(&ResponseField::parse(path).unwrap(), JSON), (text.to_owned(), units), "{path}");
        }
    }

    #[test]
    fn names_and_numbers_alone_build_no_tree() {
        for path in ["a", "a_1.b[0].c", "[0]", "[1][2].x", "/a/b c/-"] {
            let field = ResponseField::parse(path).unwrap();
            assert!(matches!(field.place, Place::Steps(_)), "{path}");
        }
    }

    #[test]
    fn what_is_no_path_is_refused_with_the_place() {
        for path in ["", "a.", "a..b", "a[?b", "nothing(a", "a |", "[", "a[x]", "a b", "1a", "\"a"] {
            let said = ResponseField::parse(path).unwrap_err();
            assert!(said.starts_with(&format!("{path:?} is neither a JSON pointer nor a JMESPath: ")), "{said}");
            assert!(said.contains(" at character ") && !said.contains('\n'), "{said}");
        }
        assert!(ResponseField::parse("a").unwrap().read(b"{", &mut Vec::new()).is_err());
    }

    #[test]
    fn counts_and_errors_are_read_beside_the_path() {
        for path in ["a", "a | @"] {
            let field = ResponseField::parse(path).unwrap();
            let mut made = Vec::new();
            let reading = field.read(br#"{"a":"x","usage":{"prompt_tokens":3},"text":"y"}"#, &mut made).unwrap();
            assert_eq!(reading.usage.map(|u| u.prompt), Some(3));
            assert_eq!(reading.text.iter().count(), 1);
            assert!(field.read(br#"{"error":"e"}"#, &mut Vec::new()).unwrap().error.is_some());
        }
    }

    #[test]
    fn output_is_looked_for_elsewhere_only_where_that_is_allowed() {
        let field = ResponseField::parse("b[?c]").unwrap();
        assert_eq!(told(&field, r#"{"text":"x"}"#), (String::new(), 0));
        assert_eq!(told(&field.clone().or_anything(), r#"{"text":"x"}"#), ("x".to_owned(), 0));
        assert_eq!(told(&field.or_anything(), r#"{"text":"x","b":[{"c":1,"text":"y"}]}"#), ("y".to_owned(), 0));
    }
}
