//! `sharegpt`: conversations between a human and a model, as one JSON array or as JSONL.
//!
//! ```json
//! [{"id": "a", "conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Because."}]}]
//! ```
//! Every message of the human with the model's after it is a turn; the output length asked for is that of the recorded
//! answer. As in the reference, which has it from vLLM, a conversation is left out if one of its pairs is out of bounds:
//! prompts have 4 to 1024 tokens, answers at least 4 (where `--osl` does not set their length), both together at most 2048.

use std::fmt;
use std::io::BufRead;
use std::path::Path;

use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::formats::draft::{Draft, Emit, Prompt, Step};
use crate::read::jsonl::{self, Place, Row};
use crate::read::source;
use crate::tokens::Tokenizer;
use crate::{Context, Error, Turn};

const PROMPT: std::ops::RangeInclusive<usize> = 4..=1024;
const LEAST_ANSWER: usize = 4;
const MOST_TOGETHER: usize = 2048;

/// Why a conversation is left out.
const OUT_OF_BOUNDS: &str = "conversation with a prompt not of 4 to 1024 tokens, an answer below 4, or both above 2048";

/// Reads the file, one entry at a time.
pub(crate) fn read(path: &Path, emit: Emit<'_>) -> Result<(), Error> {
    let mut reader = source::open(path)?;
    if !begins_with_list(&mut reader).map_err(|e| source::failed(path, &e))? {
        return jsonl::each(path, &mut |row| emit(parse(row)?));
    }
    let mut wrong = None;
    let mut entries = Entries { path, emit, wrong: &mut wrong };
    let mut json = serde_json::Deserializer::from_reader(reader);
    let read = json.deserialize_seq(&mut entries).and_then(|()| json.end());
    match (wrong, read) {
        (Some(error), _) => Err(error),
        (None, Err(e)) => Err(Error::row(path, e.line(), format_args!("not valid JSON: {e}"))),
        (None, Ok(())) => Ok(()),
    }
}

/// Whether the first character that is not white space is a bracket; takes the white space away.
fn begins_with_list(reader: &mut source::Reader) -> std::io::Result<bool> {
    loop {
        let head = reader.fill_buf()?;
        match head.iter().position(|byte| !byte.is_ascii_whitespace()) {
            Some(at) => return Ok(head.get(at) == Some(&b'[')),
            None if head.is_empty() => return Ok(false),
            None => {
                let all = head.len();
                reader.consume(all);
            }
        }
    }
}

/// Takes the elements of the list one by one. What is wrong with one goes to `wrong`: serde's errors are texts.
struct Entries<'a, 'e> {
    path: &'a Path,
    emit: Emit<'e>,
    wrong: &'a mut Option<Error>,
}

impl<'de> Visitor<'de> for &mut Entries<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of conversations")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let mut at = 0;
        while let Some(entry) = list.next_element::<Box<RawValue>>()? {
            at += 1;
            let row = Row::parse(self.path, Place::Entry(at), entry.get());
            if let Err(e) = row.and_then(|row| parse(&row)).and_then(&mut self.emit) {
                *self.wrong = Some(e);
                return Err(serde::de::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}

fn parse(row: &Row<'_>) -> Result<Draft, Error> {
    let mut steps = Vec::new();
    let messages = row.rows("conversations")?;
    let mut texts = Vec::with_capacity(messages.len());
    for message in &messages {
        let from = message.string("from")?.or(message.string("role")?).unwrap_or_default();
        let value = message.string("value")?.or(message.string("content")?).unwrap_or_default();
        texts.push((matches!(from.as_str(), "human" | "user"), matches!(from.as_str(), "gpt" | "assistant"), value));
    }
    let mut at = 0;
    while let [(human, _, prompt), (_, model, answer), ..] = texts.get_mut(at..).unwrap_or_default() {
        if *human && *model {
            let turn = Turn::of_text(std::mem::take(prompt));
            steps.push(Step { place: row.place, turn, prompt: Prompt::Answered(std::mem::take(answer)) });
            at += 2;
        } else {
            at += 1;
        }
    }
    Ok(Draft {
        path: row.path.into(),
        session_id: row.string("id")?,
        context: Context::DeltasWithoutResponses,
        system: None,
        steps,
    })
}

/// Counts a pair and sets the output length; says so where it is out of bounds.
pub(crate) fn settle(turn: &mut Turn, answer: &str, tokenizer: &Tokenizer, given_osl: bool) -> Option<&'static str> {
    let prompt = turn.all_texts().map(|text| tokenizer.count(text)).sum::<usize>();
    let counted = tokenizer.count(answer);
    let answer = match turn.max_tokens {
        Some(asked) if given_osl => asked as usize,
        _ => counted,
    };
    if !PROMPT.contains(&prompt) || (!given_osl && answer < LEAST_ANSWER) || prompt + answer > MOST_TOGETHER {
        return Some(OUT_OF_BOUNDS);
    }
    turn.input_tokens = u32::try_from(prompt).ok();
    turn.max_tokens = u32::try_from(answer).ok();
    None
}
