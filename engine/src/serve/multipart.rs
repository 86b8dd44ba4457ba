//! `multipart/form-data` (RFC 7578) as far as uploads need it: fields with names, some of them files.

use super::dialect::{MAX_TOKENS, Request};
use super::errors::Refused;
use super::world::World;
use memchr::memmem;

/// Most fields of a form.
const MAX_FIELDS: usize = 64;

/// Longest boundary (RFC 2046).
const MAX_BOUNDARY: usize = 70;

/// A field of a form.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Field<'a> {
    pub(super) name: String,
    pub(super) is_file: bool,
    pub(super) data: &'a [u8],
}

/// A form as it came.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Form<'a>(Vec<Field<'a>>);

impl<'a> Form<'a> {
    /// Reads the body of `request`.
    ///
    /// # Errors
    /// The content type names no form or no boundary, or the body is not made of fields up to the closing boundary.
    pub(super) fn read(request: &Request<'a>) -> Result<Self, Refused> {
        let boundary = boundary(request.content_type)?;
        parse(request.body, boundary).map(Self).map_err(|why| Refused::bad(format!("the form is broken: {why}")))
    }

    fn get(&self, name: &str) -> Option<&Field<'a>> {
        self.0.iter().find(|f| f.name == name)
    }

    /// The contents of a file.
    pub(super) fn file(&self, name: &str) -> Option<&'a [u8]> {
        self.get(name).filter(|f| f.is_file).map(|f| f.data)
    }

    /// All files of a name, which arrays have with brackets behind it.
    pub(super) fn files(&self, name: &str) -> usize {
        let brackets = format!("{name}[]");
        self.0.iter().filter(|f| f.is_file && (f.name == name || f.name == brackets)).count()
    }

    /// A field that is text.
    pub(super) fn text(&self, name: &str) -> Result<Option<&'a str>, Refused> {
        let Some(field) = self.get(name) else { return Ok(None) };
        let text = std::str::from_utf8(field.data).map_err(|_| Refused::bad(format!("{name} is not text")))?;
        Ok(Some(text.trim()).filter(|t| !t.is_empty()))
    }

    pub(super) fn need_text(&self, name: &str) -> Result<&'a str, Refused> {
        self.text(name)?.ok_or_else(|| Refused::bad(format!("{name} is missing")))
    }

    /// A whole number from 1 to `most`.
    pub(super) fn count(&self, name: &str, most: u32) -> Result<Option<u32>, Refused> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        match text.parse() {
            Ok(n) if (1..=most).contains(&n) => Ok(Some(n)),
            _ => Err(Refused::bad(format!("{name} is not a whole number from 1 to {most}"))),
        }
    }

    /// A number of tokens.
    pub(super) fn tokens(&self, name: &str) -> Result<Option<u32>, Refused> {
        self.count(name, MAX_TOKENS)
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, Refused> {
        match self.text(name)? {
            Some("true" | "True" | "1") => Ok(true),
            None | Some("false" | "False" | "0") => Ok(false),
            Some(_) => Err(Refused::bad(format!("{name} is neither true nor false"))),
        }
    }

    /// The index of the model named; the first one where none is.
    pub(super) fn model(&self, world: &World) -> Result<usize, Refused> {
        self.text("model")?.map_or(Ok(0), |name| world.model(name))
    }
}

fn boundary(content_type: &str) -> Result<&str, Refused> {
    let (kind, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return Err(Refused::bad("the body is not multipart/form-data"));
    }
    let named = parameters.split(';').filter_map(|p| p.trim().split_once('='));
    let boundary =
        named.filter(|(name, _)| name.eq_ignore_ascii_case("boundary")).map(|(_, v)| v.trim_matches('"')).next();
    boundary
        .filter(|b| (1..=MAX_BOUNDARY).contains(&b.len()))
        .ok_or_else(|| Refused::bad("Content-Type has no boundary of 1 to 70 characters"))
}

fn parse<'a>(body: &'a [u8], boundary: &str) -> Result<Vec<Field<'a>>, &'static str> {
    let delimiter = format!("\r\n--{boundary}");
    let finder = memmem::Finder::new(delimiter.as_bytes());
    let mut rest = match body.strip_prefix(&delimiter.as_bytes()[2..]) {
        Some(rest) => rest,
        None => {
            let at = finder.find(body).ok_or("its boundary does not occur")?;
            &body[at + delimiter.len()..]
        }
    };
    let mut fields = Vec::new();
    loop {
        if rest.starts_with(b"--") {
            return Ok(fields);
        }
        if fields.len() == MAX_FIELDS {
            return Err("it has more than 64 fields");
        }
        let part = strip_line_end(rest).ok_or("a boundary is not followed by a line end")?;
        let end = finder.find(part).ok_or("it has no closing boundary")?;
        fields.push(field(&part[..end])?);
        rest = &part[end + delimiter.len()..];
    }
}

/// White space between a boundary and its line end is allowed.
fn strip_line_end(rest: &[u8]) -> Option<&[u8]> {
    let blank = rest.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
    rest.get(blank..)?.strip_prefix(b"\r\n")
}

fn field(part: &[u8]) -> Result<Field<'_>, &'static str> {
    let end = memmem::find(part, b"\r\n\r\n").ok_or("a field has no blank line behind its head")?;
    let head = std::str::from_utf8(&part[..end]).map_err(|_| "the head of a field is not text")?;
    let disposition = head.lines().filter_map(|l| l.split_once(':'));
    let disposition = disposition.filter(|(n, _)| n.eq_ignore_ascii_case("content-disposition")).map(|(_, v)| v).next();
    let disposition = disposition.ok_or("a field has no Content-Disposition")?;
    let name = parameter(disposition, "name").ok_or("a field has no name")?;
    let is_file = parameter(disposition, "filename").is_some();
    Ok(Field { name, is_file, data: &part[end + 4..] })
}

/// A parameter of `form-data; name="a"; filename="b.png"`, with its quotes undone.
fn parameter(disposition: &str, wanted: &str) -> Option<String> {
    let mut rest = disposition;
    loop {
        let (_, behind) = rest.split_once(';')?;
        let (name, value) = behind.split_once('=')?;
        let (value, after) = value_of(value);
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        rest = after;
    }
}

/// The value in front, quoted or not, and what stands behind it.
fn value_of(text: &str) -> (String, &str) {
    let text = text.trim_start();
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(';').unwrap_or(text.len());
        return (text[..end].trim().to_owned(), &text[end..]);
    };
    let (mut value, mut chars) = (String::new(), quoted.char_indices());
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Instant;
    use proptest::prelude::*;

    fn read<'a>(content_type: &'a str, body: &'a [u8]) -> Result<Form<'a>, Refused> {
        Form::read(&Request { name: "", content_type, body, number: 0, created: 0, now: Instant(1) })
    }

    const TYPE: &str = "multipart/form-data; boundary=x";

    #[test]
    fn fields_and_files_are_told_apart_and_kept_byte_for_byte() {
        let body = b"preamble\r\n--x\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nmock\r\n--x  \r\n\
            content-type: image/png\r\ncontent-disposition: form-data; filename=\"a;\\\"=.png\"; name=image\r\n\r\n\
            \x89PNG\r\n--y\r\n\r\n--x\r\nContent-Disposition: form-data; name=\"n\"\r\n\r\n2\r\n--x--\r\nepilogue";
        let form = read("Multipart/Form-Data; charset=utf-8; boundary=\"x\"", body).unwrap();
        assert_eq!(form.text("model"), Ok(Some("mock")));
        assert_eq!(form.count("n", 10), Ok(Some(2)));
        assert_eq!(form.file("image"), Some(&b"\x89PNG\r\n--y\r\n"[..]));
        assert_eq!((form.file("model"), form.files("image"), form.files("mask")), (None, 1, 0));
        assert_eq!(form.need_text("prompt").unwrap_err().why, "prompt is missing");
        assert_eq!(form.count("n", 1).unwrap_err().why, "n is not a whole number from 1 to 1");
        assert_eq!(form.text("image").unwrap_err().why, "image is not text");
    }

    #[test]
    fn a_broken_form_is_told_what_is_wrong() {
        let part = "Content-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n";
        let many = format!("--x\r\n{part}").repeat(65) + "--x--";
        let table: [(&str, &str, &str); 9] = [
            ("application/json", "{}", "the body is not multipart/form-data"),
            ("multipart/form-data", "--x--", "Content-Type has no boundary of 1 to 70 characters"),
            (TYPE, "", "the form is broken: its boundary does not occur"),
            (
                TYPE,
                "--x\r\nContent-Disposition: form-data; name=a\r\n\r\n1",
                "the form is broken: it has no closing boundary",
            ),
            (TYPE, "--xContent", "the form is broken: a boundary is not followed by a line end"),
            (TYPE, "--x\r\n\r\n1\r\n--x--", "the form is broken: a field has no blank line behind its head"),
            (TYPE, "--x\r\nA: b\r\n\r\n1\r\n--x--", "the form is broken: a field has no Content-Disposition"),
            (
                TYPE,
                "--x\r\nContent-Disposition: form-data\r\n\r\n1\r\n--x--",
                "the form is broken: a field has no name",
            ),
            (TYPE, &many, "the form is broken: it has more than 64 fields"),
        ];
        for (content_type, body, why) in table {
            let refused = read(content_type, body.as_bytes()).expect_err(body);
            assert_eq!((refused.status, refused.why.as_str()), (400, why));
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(TYPE, &body);
        }

        #[test]
        fn what_was_put_in_comes_out(data in prop::collection::vec(any::<u8>(), 0..200), name in "[a-z\"\\\\;=]{1,8}") {
            prop_assume!(memmem::find(&data, b"\r\n--x").is_none());
            let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
            let mut body = format!("--x\r\nContent-Disposition: form-data; name=\"{quoted}\"; filename=f\r\n\r\n").into_bytes();
            body.extend_from_slice(&data);
            body.extend_from_slice(b"\r\n--x--\r\n");
            let form = read(TYPE, &body);
            prop_assert_eq!(form, Ok(Form(vec![Field { name, is_file: true, data: &data }])));
        }
    }
}
