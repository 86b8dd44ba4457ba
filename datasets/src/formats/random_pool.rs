//! `random_pool`: rows of texts and other media to draw requests from.
//!
//! ```json
//! {"text": "Who?", "image": "a.png"}
//! ```
//! A file is a pool, a directory one pool per file. Each request takes one row of every pool, with replacement; media
//! without a name are called after their file (`queries`, `passages`). With a batch size other than 1 the pool's rows come
//! apart: each medium's contents are drawn by themselves, as many as its batch size says.

use std::path::{Path, PathBuf};

use crate::formats::draft::{Draft, Emit, Prompt};
use crate::formats::single_turn;
use crate::media::attachment;
use crate::read::jsonl::{self, Place};
use crate::read::source;
use crate::seed::Stream;
use crate::{Error, Media, Turn};

/// Contents of each medium in a request drawn from a `random_pool`; 0 leaves the medium out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Batch {
    /// `--batch-size-text`.
    pub texts: Option<u32>,
    /// `--batch-size-image`.
    pub images: Option<u32>,
    /// `--batch-size-audio`.
    pub audios: Option<u32>,
    /// `--batch-size-video`.
    pub videos: Option<u32>,
}

impl Batch {
    pub(crate) fn given(&self) -> Option<&'static str> {
        [
            ("--batch-size-text", self.texts),
            ("--batch-size-image", self.images),
            ("--batch-size-audio", self.audios),
            ("--batch-size-video", self.videos),
        ]
        .into_iter()
        .find_map(|(flag, size)| size.map(|_| flag))
    }
}

/// Requests to draw where nothing says how many.
const ENTRIES: u64 = 100;

/// Draws the requests.
pub(crate) fn read(
    path: &Path,
    (entries, batch): (Option<u64>, &Batch),
    seed: u64,
    emit: Emit<'_>,
) -> Result<(), Error> {
    let pools = pools(path)?;
    let mut stream = Stream::new(seed, "dataset.loader.random_pool");
    let batches = Batches::new(batch, &pools)?;
    for entry in 0..entries.unwrap_or(ENTRIES) {
        let turn = match &batches {
            Some(batches) => batches.draw(&mut stream),
            None => merged(&pools, &mut stream),
        };
        let place = Place::Entry(usize::try_from(entry).unwrap_or(usize::MAX - 1) + 1);
        emit(Draft::of_turn(path, place, None, turn, Prompt::Given))?;
    }
    Ok(())
}

/// The rows of one file.
struct Pool {
    rows: Vec<Turn>,
    /// The first line with contents that belong together: under a name, several in one, or with keys.
    bound: Option<(PathBuf, Place)>,
}

/// The pools of a file or directory; none is empty.
fn pools(path: &Path) -> Result<Vec<Pool>, Error> {
    let files: Vec<PathBuf> = if path.is_dir() { source::files(path, false)? } else { vec![path.to_owned()] };
    if files.is_empty() {
        return Err(Error(format!("--input-file {}: the directory has no files", path.display())));
    }
    files.iter().map(|file| pool(file)).collect()
}

fn pool(file: &Path) -> Result<Pool, Error> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.split('.').next().unwrap_or_default();
    let mut pool = Pool { rows: Vec::new(), bound: None };
    jsonl::each(file, &mut |row| {
        let mut turn = single_turn::contents(row)?;
        // What is drawn has no line any more to say where a file is missing.
        attachment::embed(&mut turn.clone(), file).map_err(|e| row.error(e))?;
        for media in all_media(&mut turn).into_iter().flatten() {
            if !media.name.is_empty() || media.contents.len() > 1 || !media.uuids.is_empty() {
                pool.bound.get_or_insert_with(|| (file.to_owned(), row.place));
            }
            if media.name.is_empty() {
                stem.clone_into(&mut media.name);
            }
        }
        pool.rows.push(turn);
        Ok(())
    })?;
    if pool.rows.is_empty() { Err(source::empty(file)) } else { Ok(pool) }
}

fn all_media(turn: &mut Turn) -> [&mut Vec<Media>; 4] {
    [&mut turn.texts, &mut turn.images, &mut turn.audios, &mut turn.videos]
}

/// One row of each pool.
fn merged(pools: &[Pool], stream: &mut Stream) -> Turn {
    let mut merged = Turn::default();
    for Pool { rows, .. } in pools {
        let Some(mut row) = rows.get(stream.below(rows.len() as u64) as usize).cloned() else { continue };
        for (all, own) in all_media(&mut merged).into_iter().zip(all_media(&mut row)) {
            all.append(own);
        }
    }
    merged
}

/// The contents of each medium, and how many of them a request takes.
struct Batches([(Vec<String>, u32); 4]);

impl Batches {
    /// None where every medium goes by rows.
    fn new(batch: &Batch, pools: &[Pool]) -> Result<Option<Self>, Error> {
        let sizes = [batch.texts, batch.images, batch.audios, batch.videos].map(|size| size.unwrap_or(1));
        let mut flat: [(Vec<String>, u32); 4] = sizes.map(|size| (Vec::new(), size));
        for row in pools.iter().flat_map(|pool| &pool.rows) {
            for ((contents, _), media) in flat.iter_mut().zip([&row.texts, &row.images, &row.audios, &row.videos]) {
                contents.extend(media.iter().flat_map(|media| media.contents.iter().cloned()));
            }
        }
        const FLAGS: [&str; 4] =
            ["--batch-size-text", "--batch-size-image", "--batch-size-audio", "--batch-size-video"];
        let there = || FLAGS.iter().zip(&flat).filter(|(_, (contents, _))| !contents.is_empty());
        let Some((flag, _)) = there().find(|(_, (_, size))| *size != 1) else { return Ok(None) };
        if pools.len() > 1 {
            return Err(Error(format!("{flag}: a random_pool of several files is drawn by rows, one of each file")));
        }
        if let Some((file, place)) = pools.iter().find_map(|pool| pool.bound.as_ref()) {
            let what = format_args!(
                "{flag} takes contents apart, which those with a name, several in one or `image_uuids` do not allow"
            );
            return Err(place.error(file, what));
        }
        if there().all(|(_, (_, size))| *size == 0) {
            return Err(Error(format!("{flag} 0: that leaves nothing of the random_pool to send")));
        }
        Ok(Some(Self(flat)))
    }

    fn draw(&self, stream: &mut Stream) -> Turn {
        let mut turn = Turn::default();
        for (media, (contents, size)) in all_media(&mut turn).into_iter().zip(&self.0) {
            if contents.is_empty() || *size == 0 {
                continue;
            }
            let draw = |_| contents.get(stream.below(contents.len() as u64) as usize).cloned().unwrap_or_default();
            media.push(Media { contents: (0..*size).map(draw).collect(), ..Media::default() });
        }
        turn
    }
}
