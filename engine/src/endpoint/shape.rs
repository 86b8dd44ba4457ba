//! Payloads that differ from earlier ones in a few values only, read by what they share.
//!
//! A server writes its payloads by one template: the same members in the same order, with other texts and counts. A
//! [`Shape`] is what such payloads have in common, byte for byte, and between that what a walk over one of them took
//! without looking at it: values it skipped, texts it handed on, counts it put down. A payload that fits the shape would
//! have led the walk the same way, so its reading is the earlier one with its own texts and counts in place. It is had for
//! a comparison of bytes instead of a walk from key to key: about a third of the instructions.

use super::usage::Field;
use super::{Kind, Reading, Unreadable, Usage};
use crate::wire::json::{Scanner, Taken, Trace};
use std::ops::Range;

/// Shapes kept at a time: a stream has a first, a middle, a last and a usage payload, and some more with several choices.
const SHAPES: usize = 8;

/// Payloads from this size on are read as they come.
const LARGEST: usize = 16 << 10;

/// Payloads without a shape between two attempts to find one, at most.
const MOST_PATIENCE: u32 = 1 << 16;

/// The shapes that have turned up. What they say of a payload equals what [`Kind::read_into`] says.
#[derive(Debug, Default)]
pub struct Shapes {
    /// What fits often moves to the front.
    shapes: Vec<Shape>,
    /// Payloads without a shape that are still let pass before another shape is looked for.
    wait: u32,
    /// Doubles with each attempt: payloads that are all different must not be studied one by one.
    patience: u32,
}

impl Shapes {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads one payload of `kind`, always the same, into a fresh reading.
    ///
    /// # Errors
    /// As [`Kind::read_into`].
    #[inline]
    pub fn read_into<'a>(&mut self, kind: Kind, json: &'a [u8], reading: &mut Reading<'a>) -> Result<(), Unreadable> {
        match self.shapes.first() {
            Some(first) if first.read_into(json, reading) => Ok(()),
            _ => self.read_otherwise(kind, json, reading),
        }
    }

    #[inline(never)]
    fn read_otherwise<'a>(&mut self, kind: Kind, json: &'a [u8], reading: &mut Reading<'a>) -> Result<(), Unreadable> {
        for n in 1..self.shapes.len() {
            if self.shapes[n].read_into(json, reading) {
                self.shapes.swap(n, n - 1);
                return Ok(());
            }
        }
        kind.read_into(json, reading)?;
        if self.wait > 0 {
            self.wait -= 1;
        } else {
            self.study(kind, json, reading);
        }
        Ok(())
    }

    #[cold]
    fn study(&mut self, kind: Kind, json: &[u8], reading: &Reading<'_>) {
        self.patience = (self.patience * 2).clamp(1, MOST_PATIENCE);
        self.wait = self.patience;
        if let Some(shape) = Shape::of(kind, json, reading) {
            self.shapes.truncate(SHAPES - 1);
            self.shapes.push(shape);
        }
    }
}

/// What payloads of one template have in common.
#[derive(Debug)]
struct Shape {
    /// What they share, end to end.
    shared: Vec<u8>,
    /// What they share up to a value, and the value.
    steps: Vec<Step>,
    /// Where in `shared` that starts which follows the last value.
    rest: usize,
    finish: bool,
    units: u32,
    repeats: bool,
    choice: u32,
    usage: Option<Usage>,
}

#[derive(Debug)]
struct Step {
    /// In the shape's `shared`.
    before: Range<usize>,
    value: Free,
}

/// A value that payloads do not share.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Free {
    Skipped,
    Text,
    Reasoning,
    Count(Field),
}

impl Shape {
    /// The shape of a payload with its reading, if it has one.
    fn of(kind: Kind, json: &[u8], reading: &Reading<'_>) -> Option<Self> {
        let walk = kind.facts().walk.filter(|_| json.len() < LARGEST)?;
        if reading.error.is_some() || !reading.parts.is_empty() || !reading.speculation.is_empty() {
            return None;
        }
        let trace = Trace::default();
        walk(Scanner::traced(json, &trace), &mut Reading::default()).ok()?;
        let mut free = Vec::new();
        for (range, taken) in trace.into_taken()? {
            let value = match taken {
                Taken::Skipped => Free::Skipped,
                Taken::Count(n) => Free::Count(Field::from_number(n)?),
            };
            free.push((range, value));
        }
        for (pieces, value) in [(&reading.text, Free::Text), (&reading.reasoning, Free::Reasoning)] {
            for piece in pieces.iter() {
                free.push((string_at(json, piece)?, value));
            }
        }
        free.sort_by_key(|(range, _)| range.start);
        let shape = Self::with(json, &free, reading)?;
        shape.holds(kind, json, &free).then_some(shape)
    }

    fn with(json: &[u8], free: &[(Range<usize>, Free)], reading: &Reading<'_>) -> Option<Self> {
        let (mut shared, mut steps, mut at) = (Vec::new(), Vec::new(), 0);
        for (range, value) in free {
            let start = shared.len();
            shared.extend_from_slice(json.get(at..range.start)?);
            steps.push(Step { before: start..shared.len(), value: *value });
            at = range.end;
        }
        let rest = shared.len();
        shared.extend_from_slice(json.get(at..)?);
        let Reading { finish, units, repeats, choice, usage, .. } = *reading;
        Some(Self { shared, steps, rest, finish, units, repeats, choice, usage })
    }

    /// Whether payloads with other values are read the same by the shape and without it. The order of texts, or one count
    /// that stands in two places, can show only there.
    fn holds(&self, kind: Kind, json: &[u8], free: &[(Range<usize>, Free)]) -> bool {
        (0..3).all(|round| {
            let (mut other, mut at) = (Vec::new(), 0);
            for (n, (range, value)) in free.iter().enumerate() {
                other.extend_from_slice(&json[at..range.start]);
                at = range.end;
                let value = match value {
                    Free::Text | Free::Reasoning if round == 1 => "\"\"".to_owned(),
                    Free::Text | Free::Reasoning => format!("\"text {n}\\n\""),
                    Free::Skipped => ["null", "\"x\"", "[1]"][round].to_owned(),
                    Free::Count(_) => (1000 * round + n).to_string(),
                };
                other.extend_from_slice(value.as_bytes());
            }
            other.extend_from_slice(&json[at..]);
            let (mut by_shape, mut by_walk) = (Reading::default(), Reading::default());
            self.read_into(&other, &mut by_shape) && kind.read_into(&other, &mut by_walk).is_ok() && by_shape == by_walk
        })
    }

    /// Reads a payload of this shape; of another one nothing is read and `reading` left fresh.
    #[inline]
    fn read_into<'a>(&self, json: &'a [u8], reading: &mut Reading<'a>) -> bool {
        let fits = self.values(json, reading);
        if !fits {
            *reading = Reading::default();
        }
        fits
    }

    #[inline]
    fn values<'a>(&self, json: &'a [u8], reading: &mut Reading<'a>) -> bool {
        let mut scanner = Scanner::new(json);
        reading.usage = self.usage;
        for step in &self.steps {
            if !scanner.literal(&self.shared[step.before.clone()]) {
                return false;
            }
            match step.value {
                Free::Skipped => scanner.skip(),
                Free::Text | Free::Reasoning => {
                    let Some(text) = scanner.string_or_stay() else { return false };
                    let pieces = if step.value == Free::Text { &mut reading.text } else { &mut reading.reasoning };
                    pieces.push(text);
                }
                Free::Count(field) => {
                    let (Some(count), Some(usage)) = (scanner.count(), &mut reading.usage) else { return false };
                    usage.put(field, count);
                }
            }
        }
        if !scanner.literal(&self.shared[self.rest..]) || scanner.end().is_err() {
            return false;
        }
        reading.finish = self.finish;
        reading.units = self.units;
        reading.repeats = self.repeats;
        reading.choice = self.choice;
        true
    }
}

/// Where in `json` the string stands of which `piece` is the inside, quotes included.
fn string_at(json: &[u8], piece: &[u8]) -> Option<Range<usize>> {
    let start = (piece.as_ptr() as usize).checked_sub(json.as_ptr() as usize)?.checked_sub(1)?;
    let range = start..start + piece.len() + 2;
    let is_string = json.get(range.clone())?.starts_with(b"\"") && json.get(range.end - 1) == Some(&b'"');
    is_string.then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether payloads of the shape of `first` can be read by it, and whether `second` is one.
    fn fits(kind: Kind, first: &str, second: &str) -> (bool, bool) {
        let Some(shape) = Shape::of(kind, first.as_bytes(), &kind.read(first.as_bytes()).unwrap()) else {
            return (false, false);
        };
        let (mut by_shape, by_walk) = (Reading::default(), kind.read(second.as_bytes()));
        let fits = shape.read_into(second.as_bytes(), &mut by_shape);
        assert_eq!(by_shape, if fits { by_walk.unwrap() } else { Reading::default() }, "{second}");
        (true, fits)
    }

    #[test]
    fn what_a_server_writes_by_one_template_has_one_shape() {
        let event = |id: &str, n: u64, text: &str| {
            format!(
                r#"{{"id":"{id}","object":"chat.completion.chunk","created":{n},"choices":[{{"index":0,"delta":{{"content":"{text}"}},"finish_reason":null}}],"usage":{{"prompt_tokens":7,"completion_tokens":{n},"prompt_tokens_details":{{"cached_tokens":{n}}}}}}}"#
            )
        };
        let first = event("a", 1, "x");
        for (second, fit) in [
            (event("bcd\\\\", 17, r#"longer \"text\""#), true),
            (event("", 4_294_967_295, ""), true),
            (event("a", 4_294_967_296, "x"), false),
            (event("a", 1, "x").replace("null", "\"stop\""), false),
            (event("a", 1, "x").replace("\"index\":0", "\"index\":1"), false),
            (event("a", 1, "x").replace("chat.completion.chunk", "error"), false),
            (event("a", 1, "x").replace(",\"created\"", ", \"created\""), false),
            (event("a", 1, "x").replace(":1,\"choices", ":[{\"x\":[]}],\"choices"), true),
            (event("a", 1, "x") + "\n", true),
            (event("a", 1, "x") + "x", false),
        ] {
            assert_eq!(fits(Kind::Chat, &first, &second), (true, fit), "{second}");
        }
        let delta = |n: u32, text: &str| {
            format!(
                r#"{{"type":"response.output_text.delta","item_id":"m","logprobs":[{n}],"sequence_number":{n},"delta":"{text}"}}"#
            )
        };
        assert_eq!(fits(Kind::Responses, &delta(1, "a"), &delta(99, "bc")), (true, true));
        let done = delta(1, "a").replace("text.delta", "text.done");
        assert_eq!(fits(Kind::Responses, &delta(1, "a"), &done), (true, false));
    }

    #[test]
    fn a_count_that_goes_further_than_its_place_has_no_shape() {
        for (kind, text) in [
            // A sum of three.
            (Kind::Chat, r#"{"usage":{"input_tokens":5,"cache_read_input_tokens":2,"cache_creation_input_tokens":1}}"#),
            // The later one wins, or the larger.
            (Kind::Chat, r#"{"usage":{"prompt_tokens":5,"cached_tokens":1,"tokens":{"prompt_tokens":4}}}"#),
            // The name goes before the arguments, wherever it stands.
            (Kind::Chat, r#"{"choices":[{"delta":{"tool_calls":[{"function":{"arguments":"{}","name":"f"}}]}}]}"#),
            (Kind::Chat, r#"{"choices":[{"delta":{"content":"a"}}],"error":{"message":"m"}}"#),
            (Kind::Embeddings, r#"{"data":[{"embedding":[1]}]}"#),
        ] {
            assert_eq!(fits(kind, text, text), (false, false), "{text}");
        }
        // Of two accounts the first counts: the second is shared, or the payload is of another shape.
        let two = r#"{"choices":[{"usage":{"prompt_tokens":5}}],"meta":{"tokens":{"input_tokens":6}}}"#;
        assert!(!fits(Kind::Chat, two, two).0);
    }

    #[test]
    fn studying_what_has_no_shape_grows_rare() {
        let mut shapes = Shapes::new();
        let text = br#"{"error":{"message":"m"}}"#;
        for _ in 0..10_000 {
            assert_eq!(shapes.read_into(Kind::Chat, text, &mut Reading::default()), Ok(()));
        }
        assert!(shapes.shapes.is_empty() && shapes.patience > 4000);
    }
}
