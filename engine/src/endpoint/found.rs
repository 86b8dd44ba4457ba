//! Answers of the smaller protocols: one walk over the members that any of them has, taking what an endpoint wants.

use super::{Reading, Unreadable, usage};
use crate::wire::json::Scanner;

/// What an endpoint's answers hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Want {
    /// `data[].embedding`, `embeddings`, `embedding`.
    pub(super) embeddings: bool,
    /// `rankings`, `results`, or a bare list.
    pub(super) rankings: bool,
    /// `data[]`, or one at the top, with `b64_json` or `url`.
    pub(super) images: bool,
    /// `data[]`, whatever its elements are.
    pub(super) data: bool,
    /// Members that are texts, or lists of texts.
    pub(super) texts: &'static [&'static [u8]],
    /// `choices[]` with `text`, `message` or `delta`.
    pub(super) choices: bool,
    /// What is not JSON is text.
    pub(super) plain: bool,
}

impl Want {
    pub(super) const NOTHING: Self = Self {
        embeddings: false,
        rankings: false,
        images: false,
        data: false,
        texts: &[],
        choices: false,
        plain: false,
    };

    /// Whatever is there, in the order in which a user would look: embeddings, rankings, texts, choices.
    pub(super) const ANYTHING: Self = Self {
        embeddings: true,
        rankings: true,
        images: true,
        data: false,
        texts: &[b"text", b"content", b"response", b"output", b"result", b"generated_text", b"text_output"],
        choices: true,
        plain: true,
    };
}

/// Reads any answer.
pub(super) fn read<'a>(json: &'a [u8], reading: &mut Reading<'a>) -> Result<(), Unreadable> {
    read_wanted(json, &Want::ANYTHING, reading)
}

/// Reads what is wanted of an answer.
pub(super) fn read_wanted<'a>(json: &'a [u8], want: &Want, reading: &mut Reading<'a>) -> Result<(), Unreadable> {
    let mut scanner = Scanner::new(json);
    match json.trim_ascii_start().first() {
        Some(b'{') => read_object(&mut scanner, want, reading),
        Some(b'[') => read_list(&mut scanner, want, reading),
        Some(b'"') if want.plain => reading.text.push(scanner.string().unwrap_or_default()),
        Some(_) if want.plain => {
            reading.text.push(json);
            return Ok(());
        }
        _ => {
            scanner.skip();
            scanner.end()?;
            return Err(Unreadable { at: 0, what: "an object or a list was expected" });
        }
    }
    let end = scanner.end();
    if end.is_err() && want.plain {
        *reading = Reading::default();
        reading.text.push(json);
        return Ok(());
    }
    end
}

fn read_object<'a>(scanner: &mut Scanner<'a>, want: &Want, reading: &mut Reading<'a>) {
    let mut found = Reading::default();
    let mut choices = Reading::default();
    scanner.open_object();
    while let Some(key) = scanner.next_key() {
        match key {
            b"data" if want.embeddings || want.images || want.data => reading.units += read_data(scanner, want),
            b"embeddings" if want.embeddings => reading.units += vectors(scanner),
            b"embedding" if want.embeddings => reading.units += vectors(scanner),
            b"rankings" | b"results" if want.rankings => reading.units += elements(scanner),
            b"b64_json" | b"url" if want.images => reading.units += u32::from(is_text(scanner)),
            b"choices" if want.choices => read_choices(scanner, &mut choices),
            b"token" if want.choices => read_token(scanner, &mut choices),
            b"usage" | b"usageMetadata" => reading.usage = usage::read(scanner).or(reading.usage),
            b"meta" => reading.usage = reading.usage.or(usage::read_meta(scanner)),
            b"error" => reading.set_error(scanner.raw()),
            key if want.texts.contains(&key) => read_texts(scanner, &mut found),
            _ => scanner.skip(),
        }
    }
    if reading.units == 0 {
        let all = if found.text.is_empty() { choices.text } else { found.text };
        all.iter().for_each(|piece| reading.text.push(piece));
    }
}

fn read_list<'a>(scanner: &mut Scanner<'a>, want: &Want, reading: &mut Reading<'a>) {
    if want.rankings && !want.embeddings {
        reading.units += elements(scanner);
        return;
    }
    scanner.open_array();
    while scanner.next_element() {
        let mut element = Scanner::new(scanner.raw());
        let raw = element.clone().raw();
        match raw.first() {
            Some(b'{') => read_object(&mut element, want, reading),
            Some(b'[') if want.embeddings => reading.units += 1,
            Some(b'"') if want.plain => reading.text.push(element.string().unwrap_or_default()),
            _ => {}
        }
    }
}

/// The elements of `data` that count.
fn read_data(scanner: &mut Scanner<'_>, want: &Want) -> u32 {
    if want.data {
        return elements(scanner);
    }
    let mut units = 0;
    if !scanner.open_array() {
        return units;
    }
    while scanner.next_element() {
        if !scanner.open_object() {
            continue;
        }
        let mut counts = false;
        while let Some(key) = scanner.next_key() {
            match key {
                b"embedding" if want.embeddings => {
                    let raw = scanner.raw();
                    counts |= raw != b"null" && raw != b"[]";
                }
                b"b64_json" | b"url" if want.images => counts |= is_text(scanner),
                _ => scanner.skip(),
            }
        }
        units += u32::from(counts);
    }
    units
}

fn is_text(scanner: &mut Scanner<'_>) -> bool {
    scanner.string().is_some_and(|text| !text.is_empty())
}

/// How many elements the next value has, if it is a list.
fn elements(scanner: &mut Scanner<'_>) -> u32 {
    let mut n = 0;
    if scanner.open_array() {
        while scanner.next_element() {
            scanner.skip();
            n += 1;
        }
    }
    n
}

/// How many vectors the next value is: a list of numbers is one, a list of lists is many.
fn vectors(scanner: &mut Scanner<'_>) -> u32 {
    let raw = scanner.raw();
    let Some(inner) = raw.strip_prefix(b"[") else { return 0 };
    match inner.trim_ascii_start().first() {
        Some(b'[' | b'{') => elements(&mut Scanner::new(raw)),
        Some(b']') | None => 0,
        Some(_) => 1,
    }
}

/// A text, or a list of them.
fn read_texts<'a>(scanner: &mut Scanner<'a>, found: &mut Reading<'a>) {
    if let Some(text) = scanner.string_or_stay() {
        found.text.push(text);
    } else if scanner.open_array() {
        while scanner.next_element() {
            if let Some(text) = scanner.string() {
                found.text.push(text);
            }
        }
    }
}

fn read_choices<'a>(scanner: &mut Scanner<'a>, found: &mut Reading<'a>) {
    if !scanner.open_array() {
        return;
    }
    while scanner.next_element() {
        if !scanner.open_object() {
            continue;
        }
        while let Some(key) = scanner.next_key() {
            match key {
                b"text" => read_texts(scanner, found),
                b"message" | b"delta" => read_token(scanner, found),
                _ => scanner.skip(),
            }
        }
    }
}

/// An object whose text is `text` or `content`.
fn read_token<'a>(scanner: &mut Scanner<'a>, found: &mut Reading<'a>) {
    if !scanner.open_object() {
        return;
    }
    while let Some(key) = scanner.next_key() {
        match key {
            b"text" | b"content" => read_texts(scanner, found),
            _ => scanner.skip(),
        }
    }
}
