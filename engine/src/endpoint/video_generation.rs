//! OpenAI videos. A job is submitted with a form; its state is asked for until it is done; its file may be fetched.

use super::multipart::Form;
use super::usage::{self, Usage};
use super::{Encoding, Facts, Follow, FollowUps, Options, Reading, Splice, Unfit, Unreadable, content};
use crate::said::Counter;
use crate::wire::json::{Scanner, unescape_into};
use maser_datasets::Conversation;

pub(super) const FACTS: Facts = Facts {
    name: "video_generation",
    path: "/v1/videos",
    title: "Video Generation Metrics",
    encoding: Encoding::Multipart,
    body,
    read,
    follows_up: true,
    next,
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
    scanner.enter_object()?;
    while let Some(key) = scanner.next_key() {
        match key {
            b"status" => match scanner.string() {
                Some(b"completed") => (reading.units, reading.finish) = (1, true),
                Some(b"failed" | b"cancelled") => reading.error = reading.error.or(Some(json)),
                _ => {}
            },
            b"error" => reading.set_error(scanner.raw()),
            b"inference_time_s" => account(Counter::VideoSeconds, &mut scanner, reading),
            b"peak_memory_mb" => account(Counter::VideoMemory, &mut scanner, reading),
            _ => scanner.skip(),
        }
    }
    scanner.end()
}

/// What the server says of its work.
fn account(counter: Counter, scanner: &mut Scanner<'_>, reading: &mut Reading<'_>) {
    usage::note(counter, scanner, reading.usage.get_or_insert_with(Usage::default));
}

/// The longest id or address of a job.
const LONGEST: usize = 2048;

/// A job at work is asked for again, a finished one is fetched if that is wanted: from its `url` if it has one, otherwise
/// from `content` below it. Every other state ends the request.
fn next(body: &[u8], how: &FollowUps) -> Result<Option<Follow>, Unfit> {
    let job = Job::of(body);
    let below = |rest: &str| match text(job.id) {
        Some(id) => Ok(format!("{}{rest}", segment(&id))),
        None => Err(Unfit::new("the answer to the submission of a video has no id")),
    };
    match job.status {
        _ if job.is_broken => Ok(None),
        b"failed" | b"cancelled" => Ok(None),
        b"completed" if !how.fetch => Ok(None),
        b"completed" => {
            let path = text(job.url).map_or_else(|| below("/content"), Ok)?;
            Ok(Some(Follow { after: 0, path, is_file: true }))
        }
        _ => Ok(Some(Follow { after: how.every, path: below("")?, is_file: false })),
    }
}

/// What an answer says of a job; raw JSON strings.
#[derive(Debug, Default)]
struct Job<'a> {
    id: &'a [u8],
    status: &'a [u8],
    url: &'a [u8],
    /// It is no job, or has failed.
    is_broken: bool,
}

impl<'a> Job<'a> {
    fn of(body: &'a [u8]) -> Self {
        let mut job = Self::default();
        let mut scanner = Scanner::new(body);
        job.is_broken = !scanner.open_object();
        while let Some(key) = scanner.next_key() {
            match key {
                b"id" => job.id = scanner.string().unwrap_or_default(),
                b"status" => job.status = scanner.string().unwrap_or_default(),
                b"url" => job.url = scanner.string().unwrap_or_default(),
                b"error" => job.is_broken |= scanner.raw() != b"null",
                _ => scanner.skip(),
            }
        }
        job.is_broken |= scanner.end().is_err();
        job
    }
}

/// The text of a raw JSON string, if there is any and it is not beyond reason.
fn text(raw: &[u8]) -> Option<String> {
    let mut text = Vec::new();
    unescape_into(raw, &mut text);
    String::from_utf8(text).ok().filter(|text| (1..=LONGEST).contains(&text.len()))
}

/// As a segment of a path.
fn segment(id: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~:".contains(&b);
    id.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(body: &str, fetch: bool) -> Result<Option<(String, bool)>, Unfit> {
        next(body.as_bytes(), &FollowUps { every: 7, fetch }).map(|next| {
            next.map(|next| {
                assert_eq!(next.after, if next.is_file { 0 } else { 7 });
                (next.path, next.is_file)
            })
        })
    }

    #[test]
    fn a_job_is_asked_for_until_it_is_done() {
        let poll = |id: &str| Ok(Some((id.to_owned(), false)));
        let file = |path: &str| Ok(Some((path.to_owned(), true)));
        for (body, fetch, want) in [
            (r#"{"id":"v1","status":"queued"}"#, true, poll("v1")),
            (r#"{"id":"v1"}"#, false, poll("v1")),
            (r#"{"id":"a/b\u0020?","status":"in_progress","error":null}"#, false, poll("a%2Fb%20%3F")),
            (r#"{"id":"v1","status":"completed"}"#, false, Ok(None)),
            (r#"{"status":"completed"}"#, false, Ok(None)),
            (r#"{"id":"v1","status":"completed","url":null}"#, true, file("v1/content")),
            (r#"{"id":"v1","status":"completed","url":"/files/1?x=y"}"#, true, file("/files/1?x=y")),
            (r#"{"id":"v1","status":"failed"}"#, true, Ok(None)),
            (r#"{"id":"v1","status":"queued","error":{"message":"m"}}"#, true, Ok(None)),
            ("nonsense", true, Ok(None)),
            (r#"{"id":"v1""#, true, Ok(None)),
            ("[]", true, Ok(None)),
        ] {
            assert_eq!(after(body, fetch), want, "{body}");
        }
        let long = format!(r#"{{"id":"{}"}}"#, "x".repeat(LONGEST + 1));
        for body in [r#"{"status":"queued"}"#, r#"{"id":7}"#, r#"{"id":""}"#, &long] {
            assert!(after(body, false).is_err(), "{body}");
        }
    }
}
