//! Server-sent events, as the WHATWG specification parses them (HTML, section 9.2.6), from bytes cut anywhere.
//!
//! Two leniencies, both seen on real servers: a last event without its blank line is dispatched at the end of the stream,
//! and an event named `error` is dispatched though it has no data.

/// One dispatched event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// The last `event` field; empty if there was none.
    pub name: &'a [u8],
    /// The `data` fields, joined by line feeds.
    pub data: &'a [u8],
}

/// Whether this data is the sentinel with which OpenAI-like streams end.
#[inline]
pub fn is_done(data: &[u8]) -> bool {
    data.first() != Some(&b'{') && data.trim_ascii() == b"[DONE]"
}

const BOM: &[u8] = b"\xef\xbb\xbf";

/// Turns the bytes of an event stream into events.
///
/// What an event spans beyond one call to [`feed`](Self::feed) is copied and held, without a bound of its own: the caller
/// bounds it by the bytes it lets a response have.
#[derive(Debug, Clone, Default)]
pub struct SseParser {
    /// Begin of a line whose end has not come.
    line: Vec<u8>,
    name: Vec<u8>,
    data: Vec<u8>,
    /// The event at work has a data field in `data`.
    has_data: bool,
    /// The last byte was a carriage return: a line feed now belongs to it.
    after_cr: bool,
    /// The first line is over, and with it the place for a byte order mark.
    begun: bool,
}

/// What the event at work has on lines within the bytes being fed: not copied unless it must be.
#[derive(Default)]
struct Pending<'b> {
    name: Option<&'b [u8]>,
    data: Option<&'b [u8]>,
}

impl SseParser {
    /// A parser at the begin of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Back to the begin of a stream; buffers stay.
    pub fn reset(&mut self) {
        self.line.clear();
        self.name.clear();
        self.data.clear();
        self.has_data = false;
        self.after_cr = false;
        self.begun = false;
    }

    /// Bytes held for an event that is not complete.
    pub fn held(&self) -> usize {
        self.line.len() + self.name.len() + self.data.len()
    }

    /// Room of its buffers, bytes.
    #[inline]
    pub fn room(&self) -> usize {
        self.line.capacity() + self.name.capacity() + self.data.capacity()
    }

    /// Takes the next bytes of the stream; calls `sink` for each event they complete.
    pub fn feed(&mut self, bytes: &[u8], sink: &mut impl FnMut(Event<'_>)) {
        let mut rest = bytes;
        if self.after_cr && !rest.is_empty() {
            self.after_cr = false;
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        if !self.line.is_empty() {
            let Some((head, after)) = self.split_line(rest) else {
                self.line.extend_from_slice(rest);
                return;
            };
            self.line.extend_from_slice(head);
            self.end_held_line(sink);
            rest = after;
        }
        let mut pending = Pending::default();
        while let Some((line, after)) = self.split_line(rest) {
            rest = after;
            self.end_line(line, &mut pending, sink);
        }
        self.hold(&pending);
        self.line.extend_from_slice(rest);
    }

    /// The stream is over: dispatches what is complete but for its blank line.
    pub fn finish(&mut self, sink: &mut impl FnMut(Event<'_>)) {
        if !self.line.is_empty() {
            self.end_held_line(sink);
        }
        self.dispatch(&mut Pending::default(), sink);
        self.reset();
    }

    /// The next line without its end, and what follows; `None` if the line does not end here.
    #[inline]
    fn split_line<'b>(&mut self, bytes: &'b [u8]) -> Option<(&'b [u8], &'b [u8])> {
        let end = match bytes.first() {
            Some(b'\n') => 0,
            _ => memchr::memchr2(b'\n', b'\r', bytes)?,
        };
        let (line, rest) = bytes.split_at(end);
        let after = rest.get(1..).unwrap_or_default();
        if rest.first() == Some(&b'\n') {
            return Some((line, after));
        }
        self.after_cr = after.is_empty();
        Some((line, after.strip_prefix(b"\n").unwrap_or(after)))
    }

    fn end_held_line(&mut self, sink: &mut impl FnMut(Event<'_>)) {
        let line = std::mem::take(&mut self.line);
        let mut pending = Pending::default();
        self.end_line(&line, &mut pending, sink);
        self.hold(&pending);
        self.line = line;
        self.line.clear();
    }

    #[inline]
    fn end_line<'b>(&mut self, line: &'b [u8], pending: &mut Pending<'b>, sink: &mut impl FnMut(Event<'_>)) {
        let mut line = line;
        if !self.begun {
            self.begun = true;
            line = line.strip_prefix(BOM).unwrap_or(line);
        }
        if line.is_empty() {
            self.dispatch(pending, sink);
        } else if let Some(value) = field(line, b"data") {
            self.add_data(value, pending);
        } else if let Some(value) = field(line, b"event") {
            pending.name = Some(value);
        }
    }

    #[inline]
    fn add_data<'b>(&mut self, value: &'b [u8], pending: &mut Pending<'b>) {
        if !self.has_data && pending.data.is_none() {
            pending.data = Some(value);
            return;
        }
        if let Some(first) = pending.data.take() {
            self.data.extend_from_slice(first);
            self.has_data = true;
        }
        self.data.push(b'\n');
        self.data.extend_from_slice(value);
    }

    /// Copies what the event at work has so far, since its bytes go away.
    fn hold(&mut self, pending: &Pending<'_>) {
        if let Some(name) = pending.name {
            self.name.clear();
            self.name.extend_from_slice(name);
        }
        if let Some(data) = pending.data {
            self.data.extend_from_slice(data);
            self.has_data = true;
        }
    }

    #[inline]
    fn dispatch(&mut self, pending: &mut Pending<'_>, sink: &mut impl FnMut(Event<'_>)) {
        let name = pending.name.take().unwrap_or(&self.name);
        if let Some(data) = pending.data.take() {
            sink(Event { name, data });
        } else if self.has_data || name.eq_ignore_ascii_case(b"error") {
            sink(Event { name, data: &self.data });
        }
        self.name.clear();
        self.data.clear();
        self.has_data = false;
    }
}

/// The value of the line if its field is called `name`: what follows the colon but for one space; empty without a colon.
#[inline]
fn field<'b>(line: &'b [u8], name: &[u8]) -> Option<&'b [u8]> {
    match line.strip_prefix(name)? {
        [] => Some(&[]),
        [b':', b' ', value @ ..] | [b':', value @ ..] => Some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn events<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<(String, String)> {
        let mut parser = SseParser::new();
        let mut found = Vec::new();
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
        let mut sink = |event: Event<'_>| found.push((text(event.name), text(event.data)));
        for piece in pieces {
            parser.feed(piece, &mut sink);
        }
        parser.finish(&mut sink);
        assert_eq!(parser.held(), 0);
        found
    }

    #[test]
    fn the_rules_of_the_specification_hold() {
        type Wanted = &'static [(&'static str, &'static str)];
        let table: &[(&[u8], Wanted)] = &[
            (b"data: a\n\ndata:b\n\n", &[("", "a"), ("", "b")]),
            (b"data: a\r\n\r\ndata:  b\r\n\r\n", &[("", "a"), ("", " b")]),
            (b"data: a\r\rdata: b\r\r", &[("", "a"), ("", "b")]),
            (b"data: a\ndata: b\ndata\n\n", &[("", r"a\nb\n")]),
            (b"data\n\ndata:\n\n", &[("", ""), ("", "")]),
            (b": comment\n\n:\ndata: a\n: more\n\n", &[("", "a")]),
            (b"event: x\ndata: a\n\ndata: b\n\n", &[("x", "a"), ("", "b")]),
            (b"data: a\nevent: x\nevent: y\n\n", &[("y", "a")]),
            (b"event: x\nevent\ndata: a\n\n", &[("", "a")]),
            (b"event: ping\n\ndata: a\n\n", &[("", "a")]),
            (b"event: error\n\ndata: a\n\n", &[("error", ""), ("", "a")]),
            (b"id: 1\nretry: 5\nother: x\ndatax: b\ndata : c\n\n", &[]),
            (b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n", &[("", "a")]),
            (b"data: a\n", &[("", "a")]),
            (b"data: a\n\ndata: b", &[("", "a"), ("", "b")]),
            (b"\n\n\r\r\n\n", &[]),
            (b"", &[]),
        ];
        for (bytes, want) in table {
            let found = events([*bytes]);
            let found: Vec<_> = found.iter().map(|(n, d)| (n.as_str(), d.as_str())).collect();
            assert_eq!(&found, want, "{}", bytes.escape_ascii());
            assert_eq!(events([*bytes]), events(bytes.chunks(1)));
        }
    }

    #[test]
    fn a_single_line_event_is_passed_without_copying() {
        let bytes = b"data: abc\n\nevent: e\ndata: xyz\n\n";
        let range = bytes.as_ptr_range();
        let mut parser = SseParser::new();
        parser.feed(bytes, &mut |event| {
            assert!(range.contains(&event.data.as_ptr()));
        });
        assert_eq!(parser.data.capacity() + parser.line.capacity(), 0);
    }

    #[test]
    fn the_done_sentinel_is_known_with_and_without_space() {
        assert!(is_done(b"[DONE]") && is_done(b" [DONE] "));
        assert!(!is_done(b"[DONE") && !is_done(b"") && !is_done(b"{}"));
    }

    const PIECES: &[&[u8]] = &[
        b"data: ",
        b"data",
        b"event: error",
        b"event:x",
        b": c",
        b"\n",
        b"\n\n",
        b"\r",
        b"\r\n",
        b"\r\n\r\n",
        b"{\"a\":1}",
        b"\xef\xbb\xbf",
        b"id: 7",
        b":",
        b" ",
        b"\xff",
    ];

    proptest! {
        #[test]
        fn any_cutting_gives_the_same_events(
            pieces in prop::collection::vec(prop::sample::select(PIECES), 0..40),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let bytes = pieces.concat();
            let mut cuts: Vec<usize> = cuts.iter().map(|c| c.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let whole = events([&bytes[..]]);
            prop_assert_eq!(&whole, &events(cuts.windows(2).map(|w| &bytes[w[0]..w[1]])));
            prop_assert_eq!(&whole, &events(bytes.chunks(1)));
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(events([&bytes[..]]), events(bytes.chunks(1)));
        }
    }
}
