//! The byte layer allocates nothing once its buffers have grown.

use maser_engine::endpoint::Kind;
use maser_engine::wire::http1::{Head, ResponseReader, Step};
use maser_engine::wire::json::unescape_into;
use maser_engine::wire::sse::SseParser;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use uuid::Uuid;

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are those the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Connection {
    head: Head,
    http: ResponseReader,
    sse: SseParser,
    text: Vec<u8>,
}

impl Connection {
    /// One response in pieces of `size`; returns the bytes of its text.
    fn receive(&mut self, bytes: &[u8], size: usize) -> usize {
        self.http.reset();
        self.sse.reset();
        self.text.clear();
        self.head.patch(Uuid::from_u128(1), Uuid::from_u128(2), 3);
        let text = &mut self.text;
        for mut rest in bytes.chunks(size) {
            while let Ok(Step::Head(_) | Step::Body(_)) = {
                let step = self.http.step(&mut rest);
                if let Ok(Step::Body(body)) = &step {
                    self.sse.feed(body, &mut |event| {
                        if let Ok(reading) = Kind::Chat.read(event.data) {
                            reading.text.iter().for_each(|raw| unescape_into(raw, text));
                        }
                    });
                }
                step
            } {}
        }
        text.len()
    }
}

#[test]
fn a_stream_is_read_without_allocating() {
    let bytes = include_bytes!("data/captures/llamacpp_chat_stream_usage.http");
    let mut connection = Connection {
        head: Head::new("POST", "/", "h", "X-Correlation-ID", &[]),
        http: ResponseReader::new(),
        sse: SseParser::new(),
        text: Vec::new(),
    };
    for size in [1, 7, 100, bytes.len()] {
        assert_eq!(connection.receive(bytes, size), 147);
    }
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    assert!(before > 0);
    for size in [1, 7, 100, bytes.len()] {
        connection.receive(bytes, size);
    }
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed), before);
}
