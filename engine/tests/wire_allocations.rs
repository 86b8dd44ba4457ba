//! The byte layer allocates nothing once its buffers have grown.

use maser_engine::endpoint::{Kind, Reply};
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
    reply: Reply,
    message: Vec<u8>,
}

impl Connection {
    /// One response in pieces of `size`; returns the bytes of its text and of the message that a session carries on.
    fn receive(&mut self, kind: Kind, bytes: &[u8], size: usize) -> (usize, usize) {
        self.http.reset();
        self.sse.reset();
        self.text.clear();
        self.message.clear();
        self.reply.clear();
        self.head.patch(Uuid::from_u128(1), Uuid::from_u128(2), 3);
        let (text, reply) = (&mut self.text, &mut self.reply);
        for mut rest in bytes.chunks(size) {
            while let Ok(Step::Head(_) | Step::Body(_)) = {
                let step = self.http.step(&mut rest);
                if let Ok(Step::Body(body)) = &step {
                    self.sse.feed(body, &mut |event| {
                        if let Ok(reading) = kind.read(event.data) {
                            reply.add(kind, &reading);
                            reading.text.iter().for_each(|raw| unescape_into(raw, text));
                        }
                    });
                }
                step
            } {}
        }
        reply.message(kind, &mut self.message);
        (self.text.len(), self.message.len())
    }
}

#[test]
fn a_stream_is_read_without_allocating() {
    macro_rules! data {
        ($name:literal) => {
            include_bytes!(concat!("data/", $name)) as &[u8]
        };
    }
    // Text without its repetitions, and the message.
    let streams = [
        (Kind::Chat, data!("captures/llamacpp_chat_stream_usage.http"), (147, 181)),
        (Kind::Completions, data!("captures/vllm_completions_stream.http"), (80, 0)),
        (Kind::Responses, data!("captures/vllm_responses_stream.http"), (183, 238)),
        (Kind::Messages, data!("captures/dynamo_messages_stream.http"), (19, 52)),
    ];
    let mut connection = Connection {
        head: Head::new("POST", "/", "h", ("X-Correlation-ID", &["X-Session-Affinity".to_owned()]), &[]),
        http: ResponseReader::new(),
        sse: SseParser::new(),
        text: Vec::new(),
        reply: Reply::new(),
        message: Vec::new(),
    };
    let mut all = |check: bool| {
        for (kind, bytes, want) in streams {
            for size in [1, 7, 100, bytes.len()] {
                let found = connection.receive(kind, bytes, size);
                assert!(!check || found == want, "{} {found:?}", kind.name());
            }
        }
    };
    all(true);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    assert!(before > 0);
    all(false);
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed), before);
}
