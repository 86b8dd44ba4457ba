//! What few servers say of a request beyond its token counts: counters of caches, audio, predictions and videos.

/// One of these counters. Its number stands in payloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Counter {
    /// Tokens of the input that were written to a cache.
    CacheWrite = 0,
    /// Tokens of the input that were looked for in a cache and not found.
    CacheMiss = 1,
    /// Tokens of audio in the input.
    PromptAudio = 2,
    /// Tokens of the input that the results of tools make up.
    ToolUsePrompt = 3,
    /// Seconds of audio in the input.
    PromptAudioSeconds = 4,
    /// Tokens of audio in the output.
    CompletionAudio = 5,
    /// Tokens of a predicted output that appeared in the output.
    AcceptedPrediction = 6,
    /// Tokens of a predicted output that did not.
    RejectedPrediction = 7,
    /// Seconds that the server worked on a video.
    VideoSeconds = 8,
    /// The most memory that the work on a video took, megabytes.
    VideoMemory = 9,
}

/// How many there are.
const COUNTERS: usize = 10;

/// Bytes of one in a payload.
const ENTRY: usize = 9;

/// The counters that a server named.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Said {
    /// A bit for each counter that was named.
    named: u16,
    /// Bits of finite `f64`s that are not negative; 0 where not named.
    values: [u64; COUNTERS],
}

impl Said {
    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.named == 0
    }

    /// The value of a counter, if it was named.
    pub fn get(&self, counter: Counter) -> Option<f64> {
        self.value(counter as usize)
    }

    /// Notes a counter; what is negative or no number says nothing.
    pub fn set(&mut self, counter: Counter, value: f64) {
        self.note(counter as usize, value);
    }

    /// Takes what a later account says; what that leaves out stays.
    pub fn update(&mut self, later: &Self) {
        for k in 0..COUNTERS {
            if let Some(value) = later.value(k) {
                self.note(k, value);
            }
        }
    }

    /// Appends the named counters: for each its number and its value, an `f64` in little-endian order.
    pub fn put(&self, out: &mut Vec<u8>) {
        for k in 0..COUNTERS {
            if let Some(value) = self.value(k) {
                out.push(k as u8);
                out.extend_from_slice(&value.to_le_bytes());
            }
        }
    }

    /// Reads what [`put`](Self::put) wrote, up to an entry that is cut short; unknown numbers are passed over.
    pub fn read(bytes: &[u8]) -> Self {
        let mut said = Self::default();
        for entry in bytes.chunks_exact(ENTRY) {
            if let [k, value @ ..] = entry
                && let Ok(value) = <[u8; 8]>::try_from(value)
            {
                said.note(usize::from(*k), f64::from_le_bytes(value));
            }
        }
        said
    }

    fn value(&self, k: usize) -> Option<f64> {
        let bits = self.values.get(k)?;
        (self.named & (1 << k) != 0).then(|| f64::from_bits(*bits))
    }

    fn note(&mut self, k: usize, value: f64) {
        if let Some(place) = self.values.get_mut(k)
            && value.is_finite()
            && value >= 0.0
        {
            self.named |= 1 << k;
            *place = value.to_bits();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_come_back_and_a_cut_or_an_unknown_one_is_survived() {
        let mut said = Said::default();
        said.set(Counter::CacheWrite, 0.0);
        said.set(Counter::VideoMemory, 1536.25);
        said.set(Counter::CacheMiss, -1.0);
        said.set(Counter::PromptAudio, f64::NAN);
        let mut bytes = Vec::new();
        said.put(&mut bytes);
        assert_eq!(bytes.len(), 2 * ENTRY);
        assert_eq!(Said::read(&bytes), said);
        assert_eq!(said.get(Counter::CacheWrite), Some(0.0));
        assert_eq!((said.get(Counter::CacheMiss), said.get(Counter::PromptAudio)), (None, None));
        let cut = Said::read(&bytes[..bytes.len() - 1]);
        assert_eq!((cut.get(Counter::CacheWrite), cut.get(Counter::VideoMemory)), (Some(0.0), None));
        bytes[0] = 200;
        assert_eq!(Said::read(&bytes).get(Counter::VideoMemory), Some(1536.25));
    }

    #[test]
    fn a_later_account_adds_to_an_earlier_one() {
        let (mut all, mut later) = (Said::default(), Said::default());
        all.set(Counter::CacheWrite, 5.0);
        all.set(Counter::CacheMiss, 6.0);
        later.set(Counter::CacheMiss, 0.0);
        all.update(&later);
        assert_eq!((all.get(Counter::CacheWrite), all.get(Counter::CacheMiss)), (Some(5.0), Some(0.0)));
    }
}
