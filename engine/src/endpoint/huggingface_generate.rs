//! Generation of Hugging Face's text-generation-inference.

use super::{Facts, Options, Reading, Splice, Unfit, Unreadable, content, put_json, usage};
use crate::wire::json::Scanner;
use maser_datasets::Conversation;
use serde_json::{Map, Value};

pub(super) const FACTS: Facts = Facts {
    name: "huggingface_generate",
    path: "/generate",
    streaming_path: "/generate_stream",
    can_stream: true,
    produces_tokens: true,
    body,
    read,
    ..Facts::PLAIN
};

/// `{"inputs":…,"parameters":{"max_new_tokens",…}}`: the run's extras are parameters, the turn's are fields of the body.
fn body(options: &Options, conversation: &Conversation, k: usize, out: &mut Vec<u8>) -> Result<Splice, Unfit> {
    let turn = &conversation.turns[k];
    let texts: Vec<&str> = content::contents(&turn.texts).collect();
    let mut parameters = Map::new();
    if let Some(limit) = turn.max_tokens {
        parameters.insert("max_new_tokens".into(), limit.into());
    }
    parameters.extend(options.extra.clone());
    let mut body = Map::new();
    body.insert("inputs".into(), texts.join(" ").into());
    body.insert("parameters".into(), Value::Object(parameters));
    body.extend(turn.extra.clone());
    put_json(out, &body);
    Ok(Splice::NONE)
}

/// A stream says `token.text` in each event, and in the last one all of it again in `generated_text`. A whole answer is an
/// object, or a list of one, with `generated_text`.
fn read<'a>(json: &'a [u8], reading: &mut Reading<'a>) -> Result<(), Unreadable> {
    let mut scanner = Scanner::new(json);
    if json.trim_ascii_start().first() == Some(&b'[') {
        scanner.open_array();
        while scanner.next_element() {
            read_object(&mut scanner, reading);
        }
    } else {
        read_object(&mut scanner, reading);
    }
    scanner.end()
}

fn read_object<'a>(scanner: &mut Scanner<'a>, reading: &mut Reading<'a>) {
    if !scanner.open_object() {
        return;
    }
    let (mut token, mut whole) = (None, None);
    while let Some(key) = scanner.next_key() {
        match key {
            b"token" => token = read_token(scanner),
            b"generated_text" => whole = scanner.string(),
            b"error" => reading.set_error(scanner.raw()),
            b"details" => read_details(scanner, reading),
            b"usage" => reading.usage = usage::read(scanner).or(reading.usage),
            _ => scanner.skip(),
        }
    }
    reading.finish |= whole.is_some();
    reading.text.push(token.or(whole).unwrap_or_default());
}

/// The text of a token, unless it is a special one: end of text is no output.
fn read_token<'a>(scanner: &mut Scanner<'a>) -> Option<&'a [u8]> {
    let (mut text, mut special) = (None, false);
    if scanner.open_object() {
        while let Some(key) = scanner.next_key() {
            match key {
                b"text" => text = scanner.string(),
                b"special" => special = scanner.raw() == b"true",
                _ => scanner.skip(),
            }
        }
    }
    text.map(|text| if special { &b""[..] } else { text })
}

/// `details` counts the generated tokens, `prefill` aside.
fn read_details<'a>(scanner: &mut Scanner<'a>, reading: &mut Reading<'a>) {
    let usage = usage::read(scanner).filter(|usage| *usage != usage::Usage::default());
    reading.usage = reading.usage.or(usage);
}
