//! What a server may send: HTTP/1.1, events, payloads of every endpoint. However it is cut, it says the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use maser_engine::endpoint::{Kind, Reading, Shapes, form_as_json};
use maser_engine::wire::http1::{ResponseReader, Step};
use maser_engine::wire::sse::SseParser;

fn payloads<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, bool) {
    let (mut http, mut sse) = (ResponseReader::new(), SseParser::new());
    let (mut all, mut whole) = (Vec::new(), Vec::new());
    let mut streamed = false;
    for mut rest in pieces {
        loop {
            match http.step(&mut rest) {
                Ok(Step::Head(head)) => streamed = head.event_stream,
                Ok(Step::Body(bytes)) if streamed => sse.feed(bytes, &mut |event| all.push(event.data.to_vec())),
                Ok(Step::Body(bytes)) => whole.extend_from_slice(bytes),
                Ok(Step::More) => break,
                Ok(Step::Done { .. }) | Err(_) => {
                    all.push(whole);
                    return (all, true);
                }
            }
        }
    }
    all.push(whole);
    (all, http.eof().is_ok())
}

fuzz_target!(|bytes: &[u8]| {
    let (all, ended) = payloads(std::iter::once(bytes));
    assert_eq!((all.clone(), ended), payloads(bytes.chunks(1)));
    form_as_json(bytes);
    // Lines stand for payloads that came one after the other.
    let lines: Vec<&[u8]> = bytes.split(|b| *b == b'\n').collect();
    for &kind in Kind::ALL {
        let mut shapes = Shapes::new();
        for payload in all.iter().map(Vec::as_slice).chain([bytes]).chain(lines.iter().chain(&lines).copied()) {
            let mut reading = Reading::default();
            assert_eq!(shapes.read_into(kind, payload, &mut reading).map(|()| reading), kind.read(payload));
        }
    }
});
