//! OpenAI completions: a prompt in, its continuation out.

use super::body::{Body, Report};
use super::{Facts, Options, Reading, Splice, Unfit, Unreadable, chat, content, usage};
use crate::wire::json::Scanner;
use maser_datasets::Conversation;

pub(super) const FACTS: Facts = Facts {
    name: "completions",
    path: "/v1/completions",
    can_stream: true,
    produces_tokens: true,
    body,
    walk: Some(walk),
    ..Facts::PLAIN
};

/// Field order: `prompt`, `model`, `stream`, `max_tokens`, extras, `stream_options`.
fn body(options: &Options, conversation: &Conversation, k: usize, out: &mut Vec<u8>) -> Result<Splice, Unfit> {
    let turn = &conversation.turns[k];
    let mut body = Body::begin(options, turn, Report::Usage, out);
    body.field("prompt", |out| content::put_prompt(turn, out));
    body.model();
    body.put("stream", &options.streaming);
    if let Some(limit) = turn.max_tokens {
        body.put("max_tokens", &limit);
    }
    body.finish();
    Ok(Splice::NONE)
}

fn walk<'a>(mut scanner: Scanner<'a>, reading: &mut Reading<'a>) -> Result<(), Unreadable> {
    scanner.enter_object()?;
    while let Some(key) = scanner.next_key() {
        match key {
            b"choices" => read_choices(&mut scanner, reading),
            b"usage" => reading.usage = usage::read(&mut scanner).or(reading.usage),
            b"error" => reading.set_error(scanner.raw()),
            b"metrics" => chat::read_metrics(&mut scanner, reading),
            b"object" => chat::read_object(&mut scanner, reading),
            _ => scanner.skip(),
        }
    }
    scanner.end()
}

#[inline]
fn read_choices<'a>(scanner: &mut Scanner<'a>, reading: &mut Reading<'a>) {
    if !scanner.open_array() {
        return;
    }
    let mut is_first = true;
    while scanner.next_element() {
        if !scanner.open_object() {
            continue;
        }
        let mut number = 0;
        while let Some(key) = scanner.next_key() {
            match key {
                b"text" => reading.text.push(scanner.string().unwrap_or_default()),
                b"reasoning" | b"reasoning_content" => reading.reasoning.push(scanner.string().unwrap_or_default()),
                b"index" => number = scanner.count().unwrap_or(0),
                b"finish_reason" => reading.finish |= scanner.string().is_some(),
                b"usage" => {
                    let usage = usage::read(scanner);
                    reading.usage = reading.usage.or(usage);
                }
                _ => scanner.skip(),
            }
        }
        if std::mem::take(&mut is_first) {
            reading.choice = number;
        }
    }
}
