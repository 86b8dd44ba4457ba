//! The single-producer single-consumer rings between threads (rtrb under two small types).
//!
//! Both ends are wait-free. A full ring never blocks: the producer is told and counts it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The writing end of a ring of plain values.
#[derive(Debug)]
pub struct Producer<T>(rtrb::Producer<T>);

/// The reading end of a ring of plain values.
#[derive(Debug)]
pub struct Consumer<T>(rtrb::Consumer<T>);

/// A ring of `capacity` values.
pub fn ring<T>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    let (producer, consumer) = rtrb::RingBuffer::new(capacity);
    (Producer(producer), Consumer(consumer))
}

impl<T> Producer<T> {
    /// Appends a value, or gives it back if the ring is full.
    pub fn push(&mut self, value: T) -> Result<(), T> {
        self.0.push(value).map_err(|rtrb::PushError::Full(value)| value)
    }

    /// How many values fit now, at least.
    pub fn room(&self) -> usize {
        self.0.slots()
    }
}

impl<T> Consumer<T> {
    /// Takes the oldest value.
    pub fn pop(&mut self) -> Option<T> {
        self.0.pop().ok()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What did not fit into a ring of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// No room for the head: the frame is lost.
    Head,
    /// No room for the payload: push the head again with a smaller one.
    Payload,
}

/// Payloads up to this size, bytes, that find the ring of bytes full are handed over beside it whatever else is: an error
/// text is never lost for want of room. At most one for each head.
pub const SMALL: usize = 16 << 10;

/// Payloads beyond this size, bytes, are handed over beside the ring of bytes, by their address: copying them would keep
/// others out.
const LARGE: usize = 1 << 20;

/// Where a frame's payload is.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// That many bytes in the ring.
    Ring(u32),
    /// Beside it, the next one.
    Beside,
}

/// The writing end of a ring of frames: a fixed-size head and a payload of any length.
#[derive(Debug)]
pub struct FrameProducer<T> {
    heads: rtrb::Producer<(T, Place)>,
    bytes: rtrb::Producer<u8>,
    beside: rtrb::Producer<Vec<u8>>,
    /// Bytes beside the ring, and how many may be.
    held: Arc<AtomicUsize>,
    most: usize,
}

/// The reading end of a ring of frames.
#[derive(Debug)]
pub struct FrameConsumer<T> {
    heads: rtrb::Consumer<(T, Place)>,
    bytes: rtrb::Consumer<u8>,
    beside: rtrb::Consumer<Vec<u8>>,
    held: Arc<AtomicUsize>,
}

/// A ring of `capacity` frames whose payloads together may hold `bytes` bytes.
pub fn frames<T: Copy>(capacity: usize, bytes: usize) -> (FrameProducer<T>, FrameConsumer<T>) {
    frames_and_more(capacity, bytes, 0)
}

/// The same, where payloads that do not fit go beside the ring, up to `beside` bytes at a time: see
/// [`FrameProducer::hand_over`].
pub fn frames_and_more<T: Copy>(capacity: usize, bytes: usize, beside: usize) -> (FrameProducer<T>, FrameConsumer<T>) {
    let (head_in, head_out) = rtrb::RingBuffer::new(capacity);
    let (byte_in, byte_out) = rtrb::RingBuffer::new(bytes);
    let (beside_in, beside_out) = rtrb::RingBuffer::new(if beside > 0 { capacity } else { 0 });
    let held = Arc::<AtomicUsize>::default();
    (
        FrameProducer { heads: head_in, bytes: byte_in, beside: beside_in, held: held.clone(), most: beside },
        FrameConsumer { heads: head_out, bytes: byte_out, beside: beside_out, held },
    )
}

impl<T: Copy> FrameProducer<T> {
    /// Whether there is room for a head now.
    #[inline]
    pub fn has_room(&self) -> bool {
        !self.heads.is_full()
    }

    /// Appends a frame whole, or nothing of it.
    pub fn push(&mut self, head: T, payload: &[u8]) -> Result<(), Full> {
        if self.heads.is_full() {
            return Err(Full::Head);
        }
        if !payload.is_empty() {
            // The payload goes first: who sees the head finds the bytes.
            let mut chunk = self.bytes.write_chunk(payload.len()).map_err(|_| Full::Payload)?;
            let (first, second) = chunk.as_mut_slices();
            let (left, right) = payload.split_at(first.len());
            first.copy_from_slice(left);
            second.copy_from_slice(right);
            chunk.commit_all();
        }
        self.heads.push((head, Place::Ring(payload.len() as u32))).map_err(|_| Full::Head)
    }

    /// As [`push`](Self::push), but a large payload, and one that finds the ring of bytes full, goes beside it: the buffer
    /// is taken, and `payload` is left empty without room.
    pub fn hand_over(&mut self, head: T, payload: &mut Vec<u8>) -> Result<(), Full> {
        let pushed = if payload.len() > LARGE { Err(Full::Payload) } else { self.push(head, payload) };
        if pushed != Err(Full::Payload) {
            return pushed;
        }
        if self.heads.is_full() {
            return Err(Full::Head);
        }
        let size = payload.capacity();
        let fits = payload.len() <= SMALL || self.held.load(Ordering::Relaxed).saturating_add(size) <= self.most;
        if !fits || self.beside.is_full() {
            return Err(Full::Payload);
        }
        self.held.fetch_add(size, Ordering::Relaxed);
        self.beside.push(std::mem::take(payload)).map_err(|_| Full::Payload)?;
        self.heads.push((head, Place::Beside)).map_err(|_| Full::Head)
    }
}

impl<T: Copy> FrameConsumer<T> {
    /// Takes the oldest frame and puts its payload in place of what is in `payload`.
    pub fn pop(&mut self, payload: &mut Vec<u8>) -> Option<T> {
        let (head, place) = self.heads.pop().ok()?;
        payload.clear();
        match place {
            Place::Ring(0) => {}
            Place::Ring(len) => {
                if let Ok(chunk) = self.bytes.read_chunk(len as usize) {
                    let (first, second) = chunk.as_slices();
                    payload.extend_from_slice(first);
                    payload.extend_from_slice(second);
                    chunk.commit_all();
                }
            }
            Place::Beside => {
                *payload = self.beside.pop().unwrap_or_default();
                self.held.fetch_sub(payload.capacity(), Ordering::Relaxed);
            }
        }
        Some(head)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// How many frames wait.
    pub fn len(&self) -> usize {
        self.heads.slots()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_as_they_went_in_across_the_wrap() {
        let (mut tx, mut rx) = frames::<u32>(4, 10);
        let mut payload = Vec::new();
        for n in 0..100u32 {
            let body = vec![n as u8; (n % 7) as usize];
            tx.push(n, &body).unwrap();
            payload.clear();
            assert_eq!(rx.pop(&mut payload), Some(n));
            assert_eq!(payload, body);
        }
    }

    #[test]
    fn a_full_ring_says_what_is_full() {
        let (mut tx, mut rx) = frames::<u32>(2, 4);
        assert_eq!(tx.push(1, b"abc"), Ok(()));
        assert_eq!(tx.push(2, b"de"), Err(Full::Payload));
        assert_eq!(tx.push(2, b""), Ok(()));
        assert_eq!(tx.push(3, b""), Err(Full::Head));
        assert_eq!(rx.pop(&mut Vec::new()), Some(1));
        assert_eq!(tx.push(3, b"f"), Ok(()));
    }

    #[test]
    fn a_payload_larger_than_the_ring_comes_out_whole_and_in_its_order() {
        let (mut tx, mut rx) = frames_and_more::<u32>(8, 64, 8 << 20);
        let bodies = [vec![1; 10], vec![2; 2 << 20], vec![3; 10], vec![4; 3 << 20], vec![5; 60]];
        for (n, body) in bodies.iter().enumerate() {
            assert_eq!(tx.hand_over(n as u32, &mut body.clone()), Ok(()), "{n}");
        }
        let mut payload = Vec::new();
        for (n, body) in bodies.iter().enumerate() {
            assert_eq!(rx.pop(&mut payload), Some(n as u32));
            assert!(payload == *body, "{n}: {} bytes", payload.len());
        }
        assert_eq!(rx.held.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_is_beside_the_ring_has_a_bound_that_small_payloads_pass() {
        let (mut tx, mut rx) = frames_and_more::<u32>(4, 8, 1 << 20);
        assert_eq!(tx.hand_over(1, &mut vec![0; 1 << 20]), Ok(()));
        let mut second = vec![1; SMALL + 1];
        assert_eq!(tx.hand_over(2, &mut second), Err(Full::Payload));
        assert_eq!(second.len(), SMALL + 1);
        assert_eq!(tx.hand_over(2, &mut vec![2; SMALL]), Ok(()));
        let mut payload = Vec::new();
        assert_eq!((rx.pop(&mut payload), payload.len()), (Some(1), 1 << 20));
        assert_eq!((rx.pop(&mut payload), payload.len()), (Some(2), SMALL));
        assert_eq!(tx.hand_over(3, &mut second), Ok(()));
    }
}
