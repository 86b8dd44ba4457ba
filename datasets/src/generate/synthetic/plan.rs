//! All the randomness of a conversation, drawn in order.

use super::workshop::Workshop;
use super::{MAX_DELAY_MS, MAX_TURNS, Options};
use crate::generate::rankings;
use crate::generate::sequence::{Drawn, Streams};
use crate::media::{audio, images};
use crate::seed::Stream;

/// One conversation; the work that follows needs no order.
pub(super) struct Plan {
    pub(super) index: u64,
    pub(super) turns: Vec<TurnPlan>,
    /// Key of the conversation's own context.
    pub(super) context: u64,
}

/// One turn of it.
#[derive(Default)]
pub(super) struct TurnPlan {
    /// Tokens of each text and the key of its words; of a ranking the query's first.
    pub(super) texts: Vec<(u32, u64)>,
    pub(super) osl: Option<u32>,
    pub(super) delay_ns: Option<u64>,
    /// The place of its prefix in the pool.
    pub(super) prefix: Option<usize>,
    pub(super) images: Vec<images::Plan>,
    pub(super) audio: Vec<audio::Plan>,
    pub(super) videos: Vec<u64>,
}

impl Plan {
    /// About what it takes to make, in tokens; a few bytes of a medium weigh as much as a token.
    pub(super) fn weight(&self) -> u64 {
        let turn = |turn: &TurnPlan| {
            let texts: u64 = turn.texts.iter().map(|(tokens, _)| u64::from(*tokens)).sum();
            let images: u64 = turn.images.iter().map(images::Plan::pixels).sum();
            let audio: u64 = turn.audio.iter().map(audio::Plan::bytes).sum();
            texts + images / 2 + audio / 4 + 100_000 * turn.videos.len() as u64
        };
        1 + self.turns.iter().map(turn).sum::<u64>()
    }
}

/// Draws conversations, one after the other.
pub(super) struct Plans<'a> {
    options: &'a Options,
    shop: &'a Workshop<'a>,
    next: u64,
    counts: Stream,
    delays: Stream,
    lengths: Streams,
    texts: Stream,
    contexts: Stream,
    prefixes: Stream,
    rankings: rankings::Draws,
    images: Option<images::Draws>,
    audio: audio::Draws,
    videos: Stream,
}

impl<'a> Plans<'a> {
    pub(super) fn new(options: &'a Options, shop: &'a Workshop<'a>) -> Self {
        let stream = |name| Stream::new(options.seed, name);
        Self {
            options,
            shop,
            next: 0,
            counts: stream("composer.conversation.turn_count"),
            delays: stream("composer.conversation.turn_delay"),
            lengths: Streams::new(options.seed),
            texts: stream("dataset.prompt.corpus"),
            contexts: stream("dataset.prompt.context"),
            prefixes: stream("dataset.prompt.prefix"),
            rankings: rankings::Draws::new(options.seed),
            images: shop.gallery.as_ref().map(|gallery| gallery.draws(options.seed)),
            audio: audio::Draws::new(options.seed),
            videos: stream("dataset.video.noise"),
        }
    }

    fn turn(&mut self, first: bool) -> TurnPlan {
        let (mut tokens, osl) = match &self.options.rankings {
            Some(rankings) => (rankings.draw(&mut self.rankings), None),
            None => {
                let around = self.shop.overhead.around(first);
                let Drawn { isl, osl } = self.options.sequence.draw(self.options.batch, around, &mut self.lengths);
                (isl, osl)
            }
        };
        if first {
            self.options.room.take_from(&mut tokens);
        }
        let pool = u64::from(self.options.prefix.pool_size());
        TurnPlan {
            texts: tokens.into_iter().map(|tokens| (tokens, self.texts.bits())).collect(),
            osl,
            delay_ns: if first { None } else { self.delay() },
            prefix: (first && pool > 0).then(|| self.prefixes.below(pool.max(1)) as usize),
            images: match (&self.shop.gallery, &mut self.images) {
                (Some(gallery), Some(draws)) => gallery.plan(draws),
                _ => Vec::new(),
            },
            audio: self.options.audio.as_ref().map(|audio| audio.plan(&mut self.audio)).unwrap_or_default(),
            videos: self.shop.studio.as_ref().map(|studio| studio.plan(&mut self.videos)).unwrap_or_default(),
        }
    }

    fn delay(&mut self) -> Option<u64> {
        let delay = &self.options.delay;
        if delay.mean_ms <= 0.0 {
            return None;
        }
        let mut ms = delay.mean_ms;
        if delay.stddev_ms > 0.0 {
            let mut draws = (0..10_000).map(|_| delay.mean_ms + delay.stddev_ms * self.delays.normal());
            ms = draws.find(|ms| (0.0..=MAX_DELAY_MS).contains(ms)).unwrap_or(delay.mean_ms);
        }
        Some((ms * delay.ratio * 1e6).round() as u64)
    }
}

impl Iterator for Plans<'_> {
    type Item = Plan;

    fn next(&mut self) -> Option<Plan> {
        if self.next == self.options.entries {
            return None;
        }
        let index = self.next;
        self.next += 1;
        let turns = self.options.turns.draw(&mut self.counts).min(MAX_TURNS);
        let turns = (0..turns).map(|k| self.turn(k == 0)).collect();
        Some(Plan { index, turns, context: self.contexts.bits() })
    }
}
