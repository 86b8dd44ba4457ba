//! What all conversations are made with.

use super::Options;
use crate::Error;
use crate::generate::corpus::Counted;
use crate::generate::texts::Texts;
use crate::media::{images, video};
use crate::tokens::Tokenizer;
use crate::tokens::overhead::Overhead;

/// The tools and the stock of a build.
pub(super) struct Workshop<'a> {
    pub(super) options: &'a Options,
    pub(super) tokenizer: &'a Tokenizer,
    pub(super) texts: Texts,
    /// The pool of prefixes.
    pub(super) prefixes: Vec<Counted>,
    pub(super) system: Option<String>,
    pub(super) overhead: Overhead,
    pub(super) gallery: Option<images::Gallery>,
    pub(super) studio: Option<video::Studio>,
}

impl<'a> Workshop<'a> {
    pub(super) fn open(
        options: &'a Options,
        tokenizer: &'a Tokenizer,
        texts: Texts,
        workers: &mut [()],
    ) -> Result<Self, Error> {
        if let Some(audio) = &options.audio {
            audio.check()?;
        }
        Ok(Self {
            options,
            tokenizer,
            prefixes: options.prefix.make_pool(options.seed, &texts, workers)?,
            system: options.prefix.make_system(options.seed, options.room, &texts)?,
            texts,
            overhead: Overhead::measure(tokenizer),
            gallery: options.images.as_ref().map(images::Gallery::open).transpose()?,
            studio: options.video.as_ref().map(video::Studio::open).transpose()?,
        })
    }
}
