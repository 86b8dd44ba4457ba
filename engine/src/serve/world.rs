//! What answers draw on: the settings, what earlier requests left behind, and the counters that `/metrics` tells.

use super::Config;
use super::errors::Refused;
use crate::clock::Instant;
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};

/// Most responses and videos remembered; the oldest are forgotten first.
const REMEMBERED: usize = 1 << 16;

/// Totals since the start.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Totals {
    pub(super) running: u64,
    pub(super) succeeded: u64,
    pub(super) prompt_tokens: u64,
    pub(super) cached_tokens: u64,
    pub(super) output_tokens: u64,
}

/// A response that a later request may follow.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stored {
    pub(super) messages: u32,
    pub(super) prompt_tokens: u32,
}

/// A video on its way.
#[derive(Debug, Clone)]
pub(super) struct Video {
    pub(super) begun: Instant,
    pub(super) done: Instant,
    pub(super) frames: u32,
    /// All that does not change while it is made.
    pub(super) object: Value,
}

/// Everything the service knows beyond its connections.
#[derive(Debug)]
pub(super) struct World {
    pub(super) config: Config,
    /// The first half of every id.
    pub(super) id_key: u64,
    /// Seconds since 1970.
    pub(super) started: u64,
    pub(super) totals: Totals,
    pub(super) responses: Remembered<Stored>,
    pub(super) videos: Remembered<Video>,
}

impl World {
    pub(super) fn new(config: Config, started: u64) -> Self {
        Self {
            id_key: maser_datasets::seed::child(config.seed, "serve.id"),
            config,
            started,
            totals: Totals::default(),
            responses: Remembered::default(),
            videos: Remembered::default(),
        }
    }

    /// The id of the answer to request `number`, 32 hexadecimal digits.
    pub(super) fn id(&self, number: u64) -> String {
        format!("{:016x}{number:016x}", self.id_key)
    }

    /// The model's index.
    pub(super) fn model(&self, name: &str) -> Result<usize, Refused> {
        let found = self.config.models.iter().position(|m| m == name);
        found.ok_or_else(|| Refused::missing(format!("the model `{name}` does not exist")))
    }

    /// Tokens of the answer's `event`-th event (from 0), unless the answer or its reasoning ends before.
    ///
    /// With speculative decoding the first token comes out of the prompt, and then an event is a step of verification: as
    /// many drafted tokens as were accepted, uniformly from none to all, and one more.
    pub(super) fn event_tokens(&self, number: u64, event: u32) -> u32 {
        match self.config.spec_decode {
            None => self.config.tokens_per_chunk.max(1),
            Some(_) if event == 0 => 1,
            Some(drafted) => 1 + (mix(mix(self.id_key ^ number) ^ u64::from(event)) % (u64::from(drafted) + 1)) as u32,
        }
    }

    /// Tokens of the next event of an answer of so many tokens, so many of them reasoning, `sent` tokens and `event` events
    /// after its start.
    pub(super) fn next_tokens(&self, (tokens, reasoning): (u32, u32), number: u64, sent: u32, event: u32) -> u32 {
        let end = if sent < reasoning { reasoning } else { tokens };
        self.event_tokens(number, event).min(end.saturating_sub(sent))
    }

    /// vLLM's account of speculative decoding in the answer to request `number`, of so many tokens, so many of them
    /// reasoning; none for several choices, as there.
    pub(super) fn speculation(&self, choices: u32, (tokens, reasoning): (u32, u32), number: u64) -> Option<Value> {
        let drafted = self.config.spec_decode.filter(|_| choices == 1)?;
        let mut histogram = vec![0u64; drafted as usize + 1];
        let (mut sent, mut event) = (0, 0);
        while sent < tokens {
            let count = self.next_tokens((tokens, reasoning), number, sent, event).max(1);
            if event > 0
                && let Some(steps) = histogram.get_mut(count as usize - 1)
            {
                *steps += 1;
            }
            sent += count;
            event += 1;
        }
        let steps: u64 = histogram.iter().sum();
        let accepted: u64 = (0..).zip(&histogram).map(|(n, steps)| n * steps).sum();
        let all = steps * u64::from(drafted);
        let share = |n: u64, of: u64| if of == 0 { 0.0 } else { n as f64 / of as f64 };
        Some(json!({"speculative_decoding": {
            "mean_acceptance_length": 1.0 + share(accepted, steps),
            "draft_acceptance_rate": share(accepted, all),
            "acceptance_histogram": histogram,
            "num_spec_steps": steps,
            "num_accepted_draft_tokens": accepted,
            "num_draft_tokens": all,
            "num_spec_tokens": drafted,
        }}))
    }
}

/// Spreads a number over all bits (the finaliser of SplitMix64).
pub(super) fn mix(mut n: u64) -> u64 {
    n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// A bounded map that forgets its oldest entries.
#[derive(Debug)]
pub(super) struct Remembered<T> {
    entries: HashMap<String, T>,
    order: VecDeque<String>,
}

impl<T> Default for Remembered<T> {
    fn default() -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new() }
    }
}

impl<T> Remembered<T> {
    /// Keeps a value under an id that was never used before.
    pub(super) fn keep(&mut self, id: String, value: T) {
        if self.order.len() >= REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.entries.remove(&oldest);
        }
        self.order.push_back(id.clone());
        self.entries.insert(id, value);
    }

    pub(super) fn get(&self, id: &str) -> Option<&T> {
        self.entries.get(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_forgotten() {
        let mut remembered = Remembered::default();
        for n in 0..=REMEMBERED {
            remembered.keep(n.to_string(), n);
        }
        assert_eq!((remembered.get("0"), remembered.get("1")), (None, Some(&1)));
        assert_eq!(remembered.entries.len(), REMEMBERED);
    }

    #[test]
    fn the_account_of_speculation_adds_up_to_the_answer() {
        for (tokens, reasoning, drafted) in [(1, 0, 3), (2, 0, 3), (100, 0, 3), (101, 40, 1), (1000, 999, 7)] {
            let world = World::new(Config { spec_decode: Some(drafted), ..Config::default() }, 0);
            let account = &world.speculation(1, (tokens, reasoning), 5).unwrap()["speculative_decoding"];
            let at = |name: &str| account[name].as_u64().unwrap();
            assert_eq!(1 + at("num_spec_steps") + at("num_accepted_draft_tokens"), u64::from(tokens), "{account}");
            assert_eq!(at("num_draft_tokens"), at("num_spec_steps") * u64::from(drafted));
            assert_eq!(account["acceptance_histogram"].as_array().map(Vec::len), Some(drafted as usize + 1));
        }
    }
}
