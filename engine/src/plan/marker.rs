//! Markers in bodies: what keeps a server from knowing a conversation again.
//!
//! The finished body holds a [`MARKER`] wherever one may stand. As it is sent, that becomes the session's own marker, or the
//! one of all warmups, or nothing.

use std::ops::Range;

/// What stands in a body where every session has a marker of its own, of the same length: `[rid:`, twelve hexadecimal
/// digits, `]`.
pub const MARKER: &str = "[rid:------------]";

/// The marker of all warmup requests, as the reference has it.
const WARMUP: &[u8] = b"[warmup]";

/// What becomes of the [`MARKER`]s in the bodies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Marks {
    /// There are none.
    #[default]
    None,
    /// Each time a session is sent it has a marker of its own, one for all its turns.
    Session,
    /// Requests of warmups have one and the same; all others have none.
    Warmup,
}

/// Writes `marker` over every [`MARKER`] of a body.
pub fn put_marker(body: &mut [u8], marker: &[u8; MARKER.len()]) {
    let mut from = 0;
    while let Some(at) = find(body, from) {
        let end = at + MARKER.len();
        body[at..end].copy_from_slice(marker);
        from = end;
    }
}

/// Writes `[warmup]` in the place of every [`MARKER`] of a body.
pub fn put_warmup(body: &mut Vec<u8>) {
    let mut from = 0;
    while let Some(at) = find(body, from) {
        body.splice(at..at + MARKER.len(), WARMUP.iter().copied());
        from = at + WARMUP.len();
    }
}

/// Takes every [`MARKER`] out of a body, with what came in with it: the blank line between it and the text, or the part of
/// a message's content that holds nothing else.
pub fn take_markers(body: &mut Vec<u8>) {
    let mut from = 0;
    while let Some(at) = find(body, from) {
        let range = with_its_own(body, at);
        from = range.start;
        body.drain(range);
    }
}

fn find(body: &[u8], from: usize) -> Option<usize> {
    let at = memchr::memmem::find(body.get(from..)?, MARKER.as_bytes())?;
    Some(from + at)
}

/// All bytes that the marker at `at` brought.
fn with_its_own(body: &[u8], at: usize) -> Range<usize> {
    const PARTS: [&[u8]; 2] = [br#"{"type":"text","text":""#, br#"{"type":"input_text","text":""#];
    const BLANK: &[u8] = br"\n\n";
    let (before, after) = (&body[..at], &body[at + MARKER.len()..]);
    let end = at + MARKER.len();
    if let (Some(part), true) = (PARTS.iter().find(|part| before.ends_with(part)), after.starts_with(b"\"}")) {
        let (start, end) = (at - part.len(), end + 2);
        return match (body.get(end), start.checked_sub(1)) {
            (Some(b','), _) => start..end + 1,
            (_, Some(comma)) if body[comma] == b',' => comma..end,
            _ => start..end,
        };
    }
    if after.starts_with(BLANK) {
        at..end + BLANK.len()
    } else if before.ends_with(BLANK) {
        at - BLANK.len()..end
    } else {
        at..end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_marker_of_a_body_is_overwritten_and_nothing_else() {
        let mut body = format!("{MARKER}a{MARKER}{MARKER}[rid:-----------][rid:").into_bytes();
        put_marker(&mut body, b"[rid:0123456789ab]");
        let marked = "[rid:0123456789ab]a[rid:0123456789ab][rid:0123456789ab][rid:-----------][rid:";
        assert_eq!(String::from_utf8(body).unwrap(), marked);
    }

    #[test]
    fn markers_of_warmups_are_put_in_and_taken_out_wherever_they_stand() {
        let text = |text: &str| format!(r#"{{"type":"text","text":"{text}"}}"#);
        let input = |text: &str| format!(r#"{{"type":"input_text","text":"{text}"}}"#);
        let image = r#"{"type":"image"}"#;
        for (marked, bare) in [
            (format!(r#"[{{"content":"{MARKER}\n\nhi"}}]"#), r#"[{"content":"hi"}]"#.to_owned()),
            (format!(r#"[{{"content":"hi\n\n{MARKER}"}}]"#), r#"[{"content":"hi"}]"#.to_owned()),
            (format!(r#"["{MARKER}\n\n\n\nhi","{MARKER}"]"#), r#"["\n\nhi",""]"#.to_owned()),
            (format!("[{},{image}]", text(MARKER)), format!("[{image}]")),
            (format!("[{image},{}]", text(MARKER)), format!("[{image}]")),
            (format!("[{},{image}]", input(MARKER)), format!("[{image}]")),
            (format!("[{}]", text(MARKER)), "[]".to_owned()),
            (format!("[{},{image}]", text(&format!("{MARKER}\\n\\na"))), format!("[{},{image}]", text("a"))),
            (MARKER.to_owned(), String::new()),
            ("no marker".to_owned(), "no marker".to_owned()),
        ] {
            let done = |work: fn(&mut Vec<u8>)| {
                let mut body = marked.clone().into_bytes();
                work(&mut body);
                String::from_utf8(body).unwrap()
            };
            assert_eq!(done(take_markers), bare);
            assert_eq!(done(put_warmup), marked.replace(MARKER, "[warmup]"));
        }
    }
}
