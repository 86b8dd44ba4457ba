//! OpenAI videos. A job is submitted with a form; its state is asked for until it is done; its file may be fetched.

use super::multipart::Form;
use super::{Encoding, Facts, Options, Reading, Splice, Unfit, Unreadable, content};
use crate::wire::json::Scanner;
use maser_datasets::Conversation;

pub(super) const FACTS: Facts = Facts {
    name: "video_generation",
    path: "/v1/videos",
    title: "Video Generation Metrics",
    encoding: Encoding::Multipart,
    body,
    read,
    ..Facts::PLAIN
};

/// The fields `prompt`, `model` and the extras (size, seconds, seed, …).
fn body(options: &Options, conversation: &Conversation, k: usize, out: &mut Vec<u8>) -> Result<Splice, Unfit> {
    let turn = &conversation.turns[k];
    let mut form = Form::begin(out);
    let own = vec![
        ("prompt", content::contents(&turn.texts).next().unwrap_or_default().into()),
        ("model", turn.model.as_ref().unwrap_or(&options.model).as_str().into()),
    ];
    form.fields(own, options, turn, &[]);
    form.end();
    Ok(Splice::NONE)
}

/// A finished job is one unit; a failed one is an error; one at work is neither.
fn read<'a>(json: &'a [u8], reading: &mut Reading<'a>) -> Result<(), Unreadable> {
    let mut scanner = Scanner::new(json);
    if !scanner.open_object() {
        scanner.end()?;
        return Err(Unreadable { at: 0, what: "an object was expected" });
    }
    while let Some(key) = scanner.next_key() {
        match key {
            b"status" => match scanner.string() {
                Some(b"completed") => (reading.units, reading.finish) = (1, true),
                Some(b"failed" | b"cancelled") => reading.error = reading.error.or(Some(json)),
                _ => {}
            },
            b"error" => reading.set_error(scanner.raw()),
            _ => scanner.skip(),
        }
    }
    scanner.end()
}
