//! A scanner over one JSON text that steps into what is wanted and skips the rest, without building a tree.
//!
//! It checks what it must to notice a broken or cut text: brackets pair up, strings end, members have keys and colons,
//! nothing follows the value. It does not check what it only skips over in finer detail (the grammar of numbers, escapes,
//! commas within skipped values). Keys are compared as they are written: an escaped spelling of a key is another key.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::Range;

/// Why a text could not be read, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable {
    /// Offset of the byte at which reading stopped.
    pub at: usize,
    /// What is wrong there, as part of a sentence.
    pub what: &'static str,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not JSON at byte {}: {}", self.at, self.what)
    }
}

impl std::error::Error for Unreadable {}

const CUT: &str = "the text ends early";

/// Deepest nesting of a skipped value. Real payloads stay below 20.
const MAX_DEPTH: u32 = 128;

/// Which values of a text a walk took without looking at them, in order. What else there is in the text may have led the
/// walk; these have not.
#[derive(Debug, Default)]
pub struct Trace {
    taken: RefCell<Vec<(Range<usize>, Taken)>>,
    distrusted: Cell<bool>,
}

/// How a value was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// By [`Scanner::skip`].
    Skipped,
    /// By [`Scanner::count_as`], with its number.
    Count(u8),
}

impl Trace {
    /// What was taken, and where it stands; `None` if the walk went by more than this tells.
    pub fn into_taken(self) -> Option<Vec<(Range<usize>, Taken)>> {
        (!self.distrusted.get()).then(|| self.taken.into_inner())
    }
}

/// A position in one JSON text.
///
/// The caller walks: [`open_object`](Self::open_object), then [`next_key`](Self::next_key) until `None`, taking exactly one
/// value ([`skip`](Self::skip), [`string`](Self::string), an inner object, …) after each key; likewise
/// [`open_array`](Self::open_array) and [`next_element`](Self::next_element). What is broken ends every walk, and
/// [`end`](Self::end) tells of it: what was read before counts only if that is `Ok`.
#[derive(Debug, Clone)]
pub struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The last thing read was an opening bracket: no comma is due.
    opened: bool,
    broken: Option<Unreadable>,
    /// Where the block of `specials` starts, a multiple of [`BLOCK`]; `usize::MAX` before the first one.
    block: usize,
    /// One bit for each quote or backslash of the block. Found for a whole block at once, so that the way from one string
    /// to the next is a shift and a count of zeros rather than a search.
    specials: u64,
    trace: Option<&'a Trace>,
}

impl<'a> Scanner<'a> {
    /// Starts in front of the value of `bytes`.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, opened: false, broken: None, block: usize::MAX, specials: 0, trace: None }
    }

    /// The same, telling `trace` what is taken.
    pub fn traced(bytes: &'a [u8], trace: &'a Trace) -> Self {
        Self { trace: Some(trace), ..Self::new(bytes) }
    }

    /// The whole text.
    #[inline]
    pub fn text(&self) -> &'a [u8] {
        self.bytes
    }

    /// Takes `literal`, byte for byte; stays in front of anything else. Walks by keys and elements cannot be mixed with it.
    #[inline(always)]
    pub fn literal(&mut self, literal: &[u8]) -> bool {
        let end = self.at + literal.len();
        let is_there = self.bytes.get(self.at..end) == Some(literal);
        if is_there {
            self.at = end;
        }
        is_there
    }

    /// Gives up, so that every walk ends. The first reason counts.
    #[cold]
    #[inline(never)]
    fn fail(&mut self, what: &'static str) {
        let what = if self.at >= self.bytes.len() { CUT } else { what };
        self.broken.get_or_insert(Unreadable { at: self.at, what });
        self.at = self.bytes.len();
    }

    /// The next byte that is not white space, not taken; 0, which starts nothing, at the end.
    #[inline(always)]
    fn peek(&mut self) -> u8 {
        match self.bytes.get(self.at) {
            Some(&byte) if byte > b' ' => byte,
            _ => self.peek_beyond_space(),
        }
    }

    #[inline(never)]
    fn peek_beyond_space(&mut self) -> u8 {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.bytes.get(self.at) {
            self.at += 1;
        }
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    /// Steps into the object that the whole text must be.
    ///
    /// # Errors
    /// It is something else, or nothing that can be read.
    #[inline(always)]
    pub fn enter_object(&mut self) -> Result<(), Unreadable> {
        if self.open_object() { Ok(()) } else { Err(self.no_object()) }
    }

    #[cold]
    fn no_object(&mut self) -> Unreadable {
        self.end().err().unwrap_or(Unreadable { at: 0, what: "an object was expected" })
    }

    /// Steps into the next value if it is an object; otherwise skips it and returns `false`.
    #[inline]
    pub fn open_object(&mut self) -> bool {
        self.open(b'{')
    }

    /// Steps into the next value if it is an array; otherwise skips it and returns `false`.
    #[inline]
    pub fn open_array(&mut self) -> bool {
        self.open(b'[')
    }

    #[inline(always)]
    fn open(&mut self, bracket: u8) -> bool {
        if self.peek() == bracket {
            self.at += 1;
            self.opened = true;
            true
        } else {
            self.pass();
            false
        }
    }

    /// The key of the next member, as written between its quotes; `None` steps out of the object.
    #[inline(always)]
    pub fn next_key(&mut self) -> Option<&'a [u8]> {
        let quote = self.at + usize::from(!self.opened);
        let is_parted = self.opened || self.bytes.get(self.at) == Some(&b',');
        if is_parted && self.bytes.get(quote) == Some(&b'"') {
            let end = self.next_special(quote + 1);
            if let Some([b'"', b':']) = self.bytes.get(end..end + 2) {
                (self.at, self.opened) = (end + 2, false);
                return self.bytes.get(quote + 1..end);
            }
        }
        self.next_key_or_close()
    }

    /// The same for what is not written tightly, for the end, and for what is broken.
    #[inline(never)]
    fn next_key_or_close(&mut self) -> Option<&'a [u8]> {
        if !self.next(b'}') {
            return None;
        }
        if self.peek() != b'"' {
            self.fail("a member has no key");
            return None;
        }
        let key = self.quoted();
        if self.peek() != b':' {
            self.fail("a key has no colon");
            return None;
        }
        self.at += 1;
        Some(key)
    }

    /// Whether another element stands next; `false` steps out of the array.
    #[inline]
    pub fn next_element(&mut self) -> bool {
        self.next(b']')
    }

    #[inline(always)]
    fn next(&mut self, close: u8) -> bool {
        let byte = self.peek();
        let first = std::mem::take(&mut self.opened);
        if byte == close {
            self.at += 1;
            return false;
        }
        if first {
            return true;
        }
        if byte != b',' {
            self.fail("a comma or a closing bracket is missing");
            return false;
        }
        self.at += 1;
        true
    }

    /// Takes the next value if it is a string, as written between its quotes; otherwise skips it.
    #[inline]
    pub fn string(&mut self) -> Option<&'a [u8]> {
        let text = self.string_or_stay();
        if text.is_none() {
            self.pass();
        }
        text
    }

    /// Takes the next value if it is a string, as written between its quotes; otherwise stays in front of it.
    #[inline(always)]
    pub fn string_or_stay(&mut self) -> Option<&'a [u8]> {
        (self.peek() == b'"').then(|| self.quoted())
    }

    /// Takes the next value if it is a whole number below 2³²; otherwise skips it.
    pub fn count(&mut self) -> Option<u32> {
        self.peek();
        let (start, mut value) = (self.at, 0u64);
        while let Some(&byte @ b'0'..=b'9') = self.bytes.get(self.at) {
            value = value.wrapping_mul(10).wrapping_add(u64::from(byte & 0x0f));
            self.at += 1;
        }
        let is_whole =
            matches!(self.bytes.get(self.at), None | Some(b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r'));
        if is_whole && (1..=10).contains(&(self.at - start)) {
            self.opened = false;
            return u32::try_from(value).ok();
        }
        self.at = start;
        self.pass();
        None
    }

    /// The same for a count that goes by the number `n` and nowhere else: nothing may depend on it but where it is put.
    #[inline]
    pub fn count_as(&mut self, n: u8) -> Option<u32> {
        let Some(trace) = self.trace else { return self.count() };
        self.peek();
        let start = self.at;
        let count = self.count();
        if count.is_some() {
            trace.taken.borrow_mut().push((start..self.at, Taken::Count(n)));
        }
        count
    }

    /// The trace does not tell all that this walk goes by.
    #[inline]
    pub fn distrust(&self) {
        if let Some(trace) = self.trace {
            trace.distrusted.set(true);
        }
    }

    /// Skips the next value and returns it as written.
    #[inline]
    pub fn raw(&mut self) -> &'a [u8] {
        self.peek();
        let start = self.at;
        self.pass();
        self.bytes.get(start..self.at).unwrap_or_default()
    }

    /// Where the cursor stands, for [`since`](Self::since).
    #[inline(always)]
    pub fn position(&self) -> usize {
        self.at
    }

    /// What was read since the cursor stood at `from`, as written; a colon or comma before it is part of it.
    #[inline]
    pub fn since(&self, from: usize) -> &'a [u8] {
        self.bytes.get(from..self.at).unwrap_or_default()
    }

    /// Skips the next value, whatever it is.
    #[inline(always)]
    pub fn skip(&mut self) {
        match self.trace {
            None => self.pass(),
            Some(trace) => self.skip_traced(trace),
        }
    }

    #[cold]
    fn skip_traced(&mut self, trace: &Trace) {
        self.peek();
        let start = self.at;
        self.pass();
        trace.taken.borrow_mut().push((start..self.at, Taken::Skipped));
    }

    #[inline(always)]
    fn pass(&mut self) {
        if self.peek() == b'"' {
            self.quoted();
        } else {
            self.skip_other();
        }
    }

    #[inline(never)]
    fn skip_other(&mut self) {
        self.opened = false;
        match self.peek() {
            b'{' | b'[' => self.skip_nested(),
            b'n' => self.skip_literal(b"null"),
            b't' => self.skip_literal(b"true"),
            b'f' => self.skip_literal(b"false"),
            b'-' | b'0'..=b'9' => self.skip_number(),
            _ => self.fail("no value starts like this"),
        }
    }

    /// The text must be over but for white space, and nothing in it broken.
    #[inline]
    pub fn end(&mut self) -> Result<(), Unreadable> {
        self.peek();
        if self.at < self.bytes.len() {
            self.fail("something follows the value");
        }
        match self.broken {
            None => Ok(()),
            Some(broken) => Err(broken),
        }
    }

    /// The string that starts at the quote under the cursor.
    #[inline(always)]
    fn quoted(&mut self) -> &'a [u8] {
        self.opened = false;
        let start = self.at + 1;
        let found = self.next_special(start);
        if self.bytes.get(found) == Some(&b'"') {
            self.at = found + 1;
            return self.bytes.get(start..found).unwrap_or_default();
        }
        self.quoted_beyond(start, found)
    }

    /// The same for a string from `start` of which `found` is the first backslash, or the end of the text.
    #[inline(never)]
    fn quoted_beyond(&mut self, start: usize, mut found: usize) -> &'a [u8] {
        loop {
            match self.bytes.get(found) {
                Some(b'"') => {
                    self.at = found + 1;
                    return self.bytes.get(start..found).unwrap_or_default();
                }
                Some(_) => found = self.next_special(found + 2),
                None => break,
            }
        }
        self.at = self.bytes.len();
        self.fail(CUT);
        &[]
    }

    /// The next quote or backslash at or after `at`; the length of the text if there is none.
    #[inline(always)]
    fn next_special(&mut self, at: usize) -> usize {
        if at & !(BLOCK - 1) == self.block {
            let hits = self.specials >> (at % BLOCK);
            if hits != 0 {
                return at + hits.trailing_zeros() as usize;
            }
        }
        self.next_special_beyond(at)
    }

    /// The same where the block at hand has none left.
    #[inline(never)]
    fn next_special_beyond(&mut self, at: usize) -> usize {
        let mut block = at & !(BLOCK - 1);
        if block == self.block {
            block += BLOCK;
        }
        let mut from = at.max(block);
        for _ in 0..NEAR {
            if from >= self.bytes.len() {
                return self.bytes.len();
            }
            self.enter(block);
            let hits = self.specials >> (from % BLOCK);
            if hits != 0 {
                return from + hits.trailing_zeros() as usize;
            }
            block += BLOCK;
            from = block;
        }
        let rest = self.bytes.get(from..).unwrap_or_default();
        match memchr::memchr2(b'"', b'\\', rest) {
            Some(found) => {
                self.enter((from + found) & !(BLOCK - 1));
                from + found
            }
            None => self.bytes.len(),
        }
    }

    /// Makes `block`, the start of a block within the text, the block at hand.
    #[inline]
    fn enter(&mut self, block: usize) {
        let rest = self.bytes.get(block..).unwrap_or_default();
        self.block = block;
        self.specials = if let Some(whole) = rest.first_chunk() {
            specials(whole)
        } else if let Some(last) = self.bytes.last_chunk() {
            // Looks back, then shifts out what lies before the block.
            specials(last) >> (BLOCK - rest.len())
        } else {
            let mut padded = [0; BLOCK];
            padded[..rest.len()].copy_from_slice(rest);
            specials(&padded)
        };
    }

    #[inline]
    fn skip_literal(&mut self, literal: &[u8]) {
        match self.bytes.get(self.at..) {
            Some(rest) if rest.starts_with(literal) => self.at += literal.len(),
            _ => self.fail("no value starts like this"),
        }
    }

    #[inline]
    fn skip_number(&mut self) {
        while let Some(b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    /// Skips an object or array without recursion; one bit a level remembers the kind of bracket.
    fn skip_nested(&mut self) {
        let mut depth = 0;
        let mut objects = 0u128;
        while let Some(&byte) = self.bytes.get(self.at) {
            match byte {
                b'"' => {
                    self.quoted();
                    continue;
                }
                b'{' | b'[' if depth == MAX_DEPTH => return self.fail("nested too deep"),
                b'{' | b'[' => {
                    depth += 1;
                    objects = objects << 1 | u128::from(byte == b'{');
                }
                b'}' | b']' => {
                    if (objects & 1 == 1) != (byte == b'}') {
                        return self.fail("a bracket closes another kind");
                    }
                    depth -= 1;
                    objects >>= 1;
                }
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                return;
            }
            if byte == b'[' {
                self.skip_numbers();
            }
        }
        self.fail(CUT);
    }

    /// Moves to the end of a list if it is one of numbers: embeddings have thousands.
    #[inline]
    fn skip_numbers(&mut self) {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some(b'-' | b'0'..=b'9') = rest.first() else { return };
        let Some(end) = memchr::memchr3(b']', b'[', b'"', rest) else { return };
        let (list, after) = rest.split_at(end);
        if after.first() == Some(&b']') && memchr::memchr2(b'{', b'}', list).is_none() {
            self.at += end;
        }
    }
}

/// Bytes whose quotes and backslashes are found together: one bit each in a word.
const BLOCK: usize = 64;

/// Blocks without any after which the vectorised search takes over: only a long text has so many.
const NEAR: usize = 4;

/// One bit for each quote or backslash of the block, the first byte's lowest.
#[inline(always)]
fn specials(block: &[u8; BLOCK]) -> u64 {
    let (parts, _) = block.as_chunks::<16>();
    parts.iter().rev().fold(0, |bits, part| bits << 16 | u64::from(specials_of_part(part)))
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn specials_of_part(part: &[u8; 16]) -> u16 {
    use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_movemask_epi8, _mm_or_si128, _mm_set_epi64x, _mm_set1_epi8};
    let bits = u128::from_le_bytes(*part);
    // SAFETY: the intrinsics ask for nothing but SSE2, which every x86_64 processor has; they touch no memory.
    unsafe {
        let part = _mm_set_epi64x((bits >> 64) as i64, bits as i64);
        let quotes = _mm_cmpeq_epi8(part, _mm_set1_epi8(b'"' as i8));
        let backslashes = _mm_cmpeq_epi8(part, _mm_set1_epi8(b'\\' as i8));
        _mm_movemask_epi8(_mm_or_si128(quotes, backslashes)) as u16
    }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn specials_of_part(part: &[u8; 16]) -> u16 {
    part.iter().rev().fold(0, |bits, b| bits << 1 | u16::from(matches!(b, b'"' | b'\\')))
}

/// Appends the text that the raw string `raw` stands for, always as UTF-8: pairs of surrogates become their character,
/// lone ones and bytes that are not UTF-8 become U+FFFD; an unknown or cut escape stands for itself.
pub fn unescape_into(raw: &[u8], out: &mut Vec<u8>) {
    let mut rest = raw;
    while let Some(backslash) = memchr::memchr(b'\\', rest) {
        let (plain, escape) = rest.split_at(backslash);
        put_utf8(plain, out);
        rest = unescape_one(escape, out);
    }
    put_utf8(rest, out);
}

/// The front of an escaped text, at most `most` bytes of it, cut neither within an escape nor within a character.
#[cold]
pub fn prefix(raw: &[u8], most: usize) -> &[u8] {
    let mut end = 0;
    while end < raw.len() {
        let rest = &raw[end..];
        let step = match memchr::memchr(b'\\', rest) {
            Some(0) if rest.get(1) == Some(&b'u') => 6,
            Some(0) => 2,
            Some(plain) => plain,
            None => rest.len(),
        };
        if end + step > most {
            if rest[0] != b'\\' {
                end = (end..=most).rev().find(|at| raw[*at] & 0xc0 != 0x80).unwrap_or(end);
            }
            break;
        }
        end += step;
    }
    &raw[..end.min(raw.len())]
}

#[inline]
fn put_utf8(bytes: &[u8], out: &mut Vec<u8>) {
    if std::str::from_utf8(bytes).is_ok() {
        out.extend_from_slice(bytes);
        return;
    }
    for chunk in bytes.utf8_chunks() {
        out.extend_from_slice(chunk.valid().as_bytes());
        if !chunk.invalid().is_empty() {
            put_char(char::REPLACEMENT_CHARACTER, out);
        }
    }
}

fn put_char(c: char, out: &mut Vec<u8>) {
    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

/// Takes the escape at the front of `rest` (a backslash) and returns what follows it.
fn unescape_one<'a>(rest: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    let plain = match rest.get(1) {
        Some(b'n') => b'\n',
        Some(b't') => b'\t',
        Some(b'r') => b'\r',
        Some(b'b') => 0x08,
        Some(b'f') => 0x0c,
        Some(&byte @ (b'"' | b'\\' | b'/')) => byte,
        Some(b'u') => return unescape_unicode(rest, out),
        _ => {
            out.push(b'\\');
            return rest.get(1..).unwrap_or_default();
        }
    };
    out.push(plain);
    rest.get(2..).unwrap_or_default()
}

fn unescape_unicode<'a>(rest: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    let Some(first) = code_unit(rest) else {
        out.push(b'\\');
        return rest.get(1..).unwrap_or_default();
    };
    let after = rest.get(6..).unwrap_or_default();
    if let 0xd800..0xdc00 = first
        && let Some(second @ 0xdc00..0xe000) = code_unit(after)
    {
        let code = 0x1_0000 + ((first - 0xd800) << 10 | (second - 0xdc00));
        put_char(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), out);
        return after.get(6..).unwrap_or_default();
    }
    put_char(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER), out);
    after
}

/// The number of an escape `\uXXXX` at the front of `bytes`.
fn code_unit(bytes: &[u8]) -> Option<u32> {
    let hex = bytes.strip_prefix(b"\\u")?.first_chunk::<4>()?;
    hex.iter().try_fold(0, |n, &b| Some(n << 4 | char::from(b).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn members(text: &str) -> Result<Vec<(String, String)>, Unreadable> {
        let mut scanner = Scanner::new(text.as_bytes());
        let mut found = Vec::new();
        if scanner.open_object() {
            while let Some(key) = scanner.next_key() {
                let raw = scanner.raw();
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                found.push((text(key), text(raw)));
            }
        }
        scanner.end()?;
        Ok(found)
    }

    fn unescaped(raw: &str) -> String {
        let mut out = Vec::new();
        unescape_into(raw.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn members_come_in_order_with_their_raw_values() {
        let text = r#" { "a" : 1 , "b":"x\"}" ,"c":[1,{"d":"]"}], "e":{}, "f":null,"g":-1.5e3 , "h":true} "#;
        let found = members(text).unwrap();
        let pairs: Vec<_> = found.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(
            pairs,
            [
                ("a", "1"),
                ("b", r#""x\"}""#),
                ("c", r#"[1,{"d":"]"}]"#),
                ("e", "{}"),
                ("f", "null"),
                ("g", "-1.5e3"),
                ("h", "true")
            ]
        );
    }

    #[test]
    fn a_prefix_is_cut_between_characters_and_escapes() {
        let raw = r#"ab\n\u00e9日\"z"#;
        let cuts: Vec<&str> =
            (0..=raw.len()).map(|most| std::str::from_utf8(prefix(raw.as_bytes(), most)).unwrap()).collect();
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.len()).collect();
        assert!(cuts.iter().enumerate().all(|(most, cut)| cut.len() <= most && raw.starts_with(cut)), "{cuts:?}");
        ends.dedup();
        assert_eq!(ends, [0, 1, 2, 4, 10, 13, 15, 16]);
    }

    #[test]
    fn broken_texts_are_noticed() {
        for text in [
            "",
            "{",
            "{\"a\"",
            "{\"a\":",
            "{\"a\":1",
            "{\"a\":1,}",
            "{,\"a\":1}",
            "{\"a\" 1}",
            "{a:1}",
            "{\"a\":1 \"b\":2}",
            "{\"a\":\"x}",
            "{\"a\":\"x\\\"}",
            "{\"a\":[1}",
            "{\"a\":[1}]",
            "{\"a\":nul}",
            "{\"a\":True}",
            "{\"a\":}",
            "{}{}",
            "{} x",
            "nope",
        ] {
            assert!(members(text).is_err(), "{text}");
        }
        let deep = format!("{}{}", "[".repeat(129), "]".repeat(129));
        assert_eq!(members(&deep).unwrap_err().what, "nested too deep");
        assert_eq!(members("{\"a\":x}").unwrap_err().to_string(), "not JSON at byte 5: no value starts like this");
    }

    #[test]
    fn counts_are_whole_numbers_of_32_bits() {
        for (text, want) in [
            ("0", Some(0)),
            ("15", Some(15)),
            ("4294967295", Some(u32::MAX)),
            ("4294967296", None),
            ("99999999999999999999999", None),
            ("-1", None),
            ("1.0", None),
            ("null", None),
            ("\"7\"", None),
            ("[7]", None),
        ] {
            assert_eq!(Scanner::new(text.as_bytes()).count(), want, "{text}");
        }
    }

    #[test]
    fn escapes_become_their_characters() {
        assert_eq!(unescaped(r#"a\n\t\r\b\f\"\\\/z"#), "a\n\t\r\u{8}\u{c}\"\\/z");
        assert_eq!(unescaped(r"\u00e9\u4F60"), "é你");
        assert_eq!(unescaped(r"\ud83d\ude00!"), "😀!");
        assert_eq!(unescaped(r"\ud83d!"), "\u{fffd}!");
        assert_eq!(unescaped(r"\ude00\ud83d"), "\u{fffd}\u{fffd}");
        assert_eq!(unescaped(r"\ud83d\n"), "\u{fffd}\n");
        assert_eq!(unescaped(r"\ud83d\u0041"), "\u{fffd}A");
        assert_eq!(unescaped(r"\x\u12"), r"\x\u12");
        assert_eq!(unescaped("\\"), "\\");
        let mut out = Vec::new();
        unescape_into(b"a\xffb\\n\xe4\xbd", &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "a\u{fffd}b\n\u{fffd}");
    }

    #[test]
    fn a_string_ends_at_every_distance_from_every_place() {
        for place in [0, 1, 15, 16, 60, 63, 64, 65, 130] {
            for distance in 0..700 {
                for ending in ["\"", "\\\"\"", "\\\\\""] {
                    let text = format!("{}\"{}{ending}", " ".repeat(place), "a".repeat(distance));
                    let want = &text[place + 1..text.len() - 1];
                    for follow in ["", " ", &" ".repeat(200)] {
                        let padded = format!("{text}{follow}");
                        let mut scanner = Scanner::new(padded.as_bytes());
                        assert_eq!(scanner.string(), Some(want.as_bytes()));
                        assert_eq!(scanner.end(), Ok(()));
                    }
                    let mut scanner = Scanner::new(&text.as_bytes()[..text.len() - 1]);
                    scanner.skip();
                    assert_eq!(scanner.end().map_err(|e| e.what), Err(CUT));
                }
            }
        }
    }

    #[test]
    fn lists_of_numbers_end_where_they_end() {
        for (text, ok) in [
            ("[1,2,-3.5e4]", true),
            ("[[1,2],[3]]", true),
            ("[1,[2],{\"a\":[3]}]", true),
            ("[1,\"]\",2]", true),
            ("[1,{\"a\":2}]", true),
            ("{\"a\":[1,2]}", true),
            ("[1}", false),
            ("[1,2}]", false),
            ("[1,{]}", false),
            ("[1,2", false),
            ("[1,2]]", false),
        ] {
            let mut scanner = Scanner::new(text.as_bytes());
            scanner.skip();
            assert_eq!(scanner.end().is_ok(), ok, "{text}");
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec(("[a-z\u{e9}]{0,12}", inner), 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_object_reads_as_a_full_parser_reads_it(
            object in prop::collection::vec(("[a-z]{1,12}", any_json()), 0..6),
            pretty: bool,
        ) {
            let object: serde_json::Map<String, Value> = object.into_iter().collect();
            let text = if pretty { serde_json::to_string_pretty(&object) } else { serde_json::to_string(&object) };
            let text = text.unwrap();
            let found = members(&text).unwrap();
            prop_assert_eq!(found.len(), object.len());
            for ((key, raw), (want_key, want)) in found.iter().zip(&object) {
                prop_assert_eq!(key, want_key);
                prop_assert_eq!(&serde_json::from_str::<Value>(raw).unwrap(), want);
                if let Value::String(want) = want {
                    prop_assert_eq!(&unescaped(&raw[1..raw.len() - 1]), want);
                }
            }
            for cut in 0..text.len() {
                if text.is_char_boundary(cut) {
                    prop_assert!(members(&text[..cut]).is_err(), "cut at {}", cut);
                }
            }
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(&b"{}[]\",:\\u0ntf1"[..])], 0..200)) {
            let mut scanner = Scanner::new(&bytes);
            scanner.skip();
            let _ = scanner.end();
            let mut scanner = Scanner::new(&bytes);
            let mut steps = 0;
            if scanner.open_object() {
                while scanner.next_key().is_some() {
                    scanner.raw();
                    steps += 1;
                }
            }
            prop_assert!(steps <= bytes.len());
            let _ = scanner.end();
            let mut out = Vec::new();
            unescape_into(&bytes, &mut out);
            prop_assert!(String::from_utf8(out).is_ok());
        }
    }
}
