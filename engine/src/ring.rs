//! The single-producer single-consumer rings between threads (rtrb under two small types).
//!
//! Both ends are wait-free. A full ring never blocks: the producer is told and counts it.

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
    /// No room for the payload: push the head again without one.
    Payload,
}

/// The writing end of a ring of frames: a fixed-size head and a payload of any length.
#[derive(Debug)]
pub struct FrameProducer<T> {
    heads: rtrb::Producer<(T, u32)>,
    bytes: rtrb::Producer<u8>,
}

/// The reading end of a ring of frames.
#[derive(Debug)]
pub struct FrameConsumer<T> {
    heads: rtrb::Consumer<(T, u32)>,
    bytes: rtrb::Consumer<u8>,
}

/// A ring of `capacity` frames whose payloads together may hold `bytes` bytes.
pub fn frames<T: Copy>(capacity: usize, bytes: usize) -> (FrameProducer<T>, FrameConsumer<T>) {
    let (head_in, head_out) = rtrb::RingBuffer::new(capacity);
    let (byte_in, byte_out) = rtrb::RingBuffer::new(bytes);
    (FrameProducer { heads: head_in, bytes: byte_in }, FrameConsumer { heads: head_out, bytes: byte_out })
}

impl<T: Copy> FrameProducer<T> {
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
        self.heads.push((head, payload.len() as u32)).map_err(|_| Full::Head)
    }
}

impl<T: Copy> FrameConsumer<T> {
    /// Takes the oldest frame, appending its payload to `payload`.
    pub fn pop(&mut self, payload: &mut Vec<u8>) -> Option<T> {
        let (head, len) = self.heads.pop().ok()?;
        if len > 0
            && let Ok(chunk) = self.bytes.read_chunk(len as usize)
        {
            let (first, second) = chunk.as_slices();
            payload.extend_from_slice(first);
            payload.extend_from_slice(second);
            chunk.commit_all();
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
}
