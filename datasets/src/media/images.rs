//! Pictures: noise, or those of a directory, in a drawn size and format.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::{CompressionType, FilterType as PngFilter, PngEncoder};
use image::codecs::webp::WebPEncoder;
use image::imageops::FilterType;
use image::{DynamicImage, RgbImage};

use crate::Error;
use crate::lengths::Lengths;
use crate::seed::Stream;

/// Pixels of a side where no flag gives its mean.
pub const DEFAULT_SIDE: u32 = 512;

/// No side may be longer, in pixels: JPEG's own limit.
pub const MAX_SIDE: u32 = 65_500;

/// No picture may have more pixels.
const MAX_PIXELS: u64 = 1 << 27;

/// Quality of JPEG files, of 100.
const JPEG_QUALITY: u8 = 85;

/// File endings of a directory's pictures.
const ENDINGS: [&str; 4] = ["png", "jpg", "jpeg", "webp"];

/// `--image-format`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// PNG.
    Png,
    /// JPEG.
    #[default]
    Jpeg,
    /// WebP, lossless.
    Webp,
    /// PNG or JPEG, by lot.
    Random,
}

/// `--image-source`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Source {
    /// Every pixel by lot.
    #[default]
    Noise,
    /// The pictures of a directory, in the order of their names, brought to the drawn size; their shape is not kept.
    Directory(PathBuf),
}

/// `--image-source-sampling`: the order in which a directory's pictures are taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sampling {
    /// Each by lot.
    #[default]
    RandomWithReplacement,
    /// Each once in an order by lot, then again in another.
    ShuffleCycle,
    /// Each once in order, then again.
    SequentialCycle,
}

/// What pictures to make.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// `--image-batch-size`: pictures of a turn.
    pub batch: u32,
    /// `--image-width-mean` and `-stddev`, pixels.
    pub width: Lengths,
    /// `--image-height-mean` and `-stddev`, pixels.
    pub height: Lengths,
    /// File format.
    pub format: Format,
    /// Where pictures come from.
    pub source: Source,
    /// In what order.
    pub sampling: Sampling,
}

impl Default for Options {
    fn default() -> Self {
        let side = Lengths { max: MAX_SIDE, ..Lengths::fixed(DEFAULT_SIDE) };
        Self {
            batch: 1,
            width: side.clone(),
            height: side,
            format: Format::default(),
            source: Source::default(),
            sampling: Sampling::default(),
        }
    }
}

/// One picture, drawn; making it needs no order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    width: u32,
    height: u32,
    format: Format,
    /// The place among the directory's pictures.
    picture: usize,
    key: u64,
}

impl Plan {
    /// Pixels.
    pub(crate) fn pixels(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }
}

/// Draws and makes pictures.
pub(crate) struct Gallery {
    options: Options,
    /// The directory's files.
    pictures: Vec<(PathBuf, Vec<u8>)>,
}

/// The streams pictures are drawn from, and where in the directory's order the draw is.
pub(crate) struct Draws {
    sizes: Stream,
    formats: Stream,
    sources: Stream,
    noise: Stream,
    order: Vec<usize>,
}

impl Gallery {
    /// # Errors
    /// A sentence: a size out of range, or a directory without pictures or with one that cannot be read.
    pub(crate) fn open(options: &Options) -> Result<Self, Error> {
        options.width.check_as("--image-width-mean", "--image-width-stddev")?;
        options.height.check_as("--image-height-mean", "--image-height-stddev")?;
        let pictures = match &options.source {
            Source::Noise if options.sampling != Sampling::RandomWithReplacement => {
                return Err(Error("--image-source-sampling: noise has no pictures to take in an order".into()));
            }
            Source::Noise => Vec::new(),
            Source::Directory(dir) => pictures(dir)?,
        };
        Ok(Self { options: options.clone(), pictures })
    }

    pub(crate) fn draws(&self, seed: u64) -> Draws {
        Draws {
            sizes: Stream::new(seed, "dataset.image.dimensions"),
            formats: Stream::new(seed, "dataset.image.format"),
            sources: Stream::new(seed, "dataset.image.source"),
            noise: Stream::new(seed, "dataset.image.noise"),
            order: Vec::new(),
        }
    }

    /// A turn's pictures.
    pub(crate) fn plan(&self, draws: &mut Draws) -> Vec<Plan> {
        (0..self.options.batch).map(|_| self.plan_one(draws)).collect()
    }

    fn plan_one(&self, draws: &mut Draws) -> Plan {
        let width = self.options.width.draw(&mut draws.sizes);
        let height = self.options.height.draw(&mut draws.sizes);
        let format = match self.options.format {
            Format::Random if draws.formats.below(2) == 0 => Format::Png,
            Format::Random => Format::Jpeg,
            known => known,
        };
        Plan { width, height, format, picture: self.pick(draws), key: draws.noise.bits() }
    }

    fn pick(&self, draws: &mut Draws) -> usize {
        let n = self.pictures.len();
        if n == 0 {
            return 0;
        }
        if self.options.sampling == Sampling::RandomWithReplacement {
            return draws.sources.below(n as u64) as usize;
        }
        if draws.order.is_empty() {
            // Taken from the end.
            draws.order = (0..n).rev().collect();
            if self.options.sampling == Sampling::ShuffleCycle {
                for i in (1..n).rev() {
                    draws.order.swap(i, draws.sources.below(i as u64 + 1) as usize);
                }
            }
        }
        draws.order.pop().unwrap_or_default()
    }

    /// The picture as a data URL.
    pub(crate) fn make(&self, plan: &Plan) -> Result<String, Error> {
        if plan.pixels() > MAX_PIXELS {
            return Err(Error(format!(
                "--image-width-mean, --image-height-mean: a picture of {} by {} pixels is too large, the most is \
                 {MAX_PIXELS} pixels",
                plan.width, plan.height
            )));
        }
        let picture = match self.pictures.get(plan.picture) {
            None => noise(plan),
            Some((path, bytes)) => {
                let full = decode(path, bytes)?;
                full.resize_exact(plan.width, plan.height, FilterType::CatmullRom).into_rgb8()
            }
        };
        let (mime, bytes) = encode(&picture, plan.format)
            .map_err(|e| Error(format!("--image-format: a picture of {} by {}: {e}", plan.width, plan.height)))?;
        Ok(super::data_url(mime, &bytes))
    }
}

fn noise(plan: &Plan) -> RgbImage {
    let mut stream = Stream::new(plan.key, "image");
    let mut picture = RgbImage::new(plan.width, plan.height);
    stream.fill(&mut picture);
    picture
}

fn encode(picture: &RgbImage, format: Format) -> image::ImageResult<(&'static str, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mime = match format {
        Format::Png => {
            picture.write_with_encoder(PngEncoder::new_with_quality(
                &mut bytes,
                CompressionType::Default,
                PngFilter::Adaptive,
            ))?;
            "image/png"
        }
        Format::Webp => {
            picture.write_with_encoder(WebPEncoder::new_lossless(&mut bytes))?;
            "image/webp"
        }
        Format::Jpeg | Format::Random => {
            picture.write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY))?;
            "image/jpeg"
        }
    };
    Ok((mime, bytes))
}

fn decode(path: &Path, bytes: &[u8]) -> Result<DynamicImage, Error> {
    let reader = image::ImageReader::new(Cursor::new(bytes)).with_guessed_format();
    let decoded = reader.map_err(image::ImageError::IoError).and_then(image::ImageReader::decode);
    decoded.map_err(|e| Error(format!("--image-source {}: not a picture that can be read: {e}", path.display())))
}

/// The pictures of a directory in the order of their names, all of which can be read.
fn pictures(dir: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>, Error> {
    let wrong = |path: &Path, e: std::io::Error| Error(format!("--image-source {}: {e}", path.display()));
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(|e| wrong(dir, e))? {
        let path = entry.map_err(|e| wrong(dir, e))?.path();
        let ending = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
        if ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str())) {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        return Err(Error(format!(
            "--image-source {}: the directory has no picture ({})",
            dir.display(),
            ENDINGS.join(", ")
        )));
    }
    paths.sort();
    let read = |path: PathBuf| {
        let bytes = std::fs::read(&path).map_err(|e| wrong(&path, e))?;
        decode(&path, &bytes)?;
        Ok((path, bytes))
    };
    paths.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    fn open(url: &str) -> (String, DynamicImage) {
        let (mime, data) = url.strip_prefix("data:").unwrap().split_once(";base64,").unwrap();
        (mime.to_owned(), image::load_from_memory(&STANDARD.decode(data).unwrap()).unwrap())
    }

    fn made(options: &Options, n: usize) -> Vec<(String, DynamicImage)> {
        let gallery = Gallery::open(options).unwrap();
        let mut draws = gallery.draws(1);
        (0..n).flat_map(|_| gallery.plan(&mut draws)).map(|plan| open(&gallery.make(&plan).unwrap())).collect()
    }

    #[test]
    fn noise_has_the_drawn_size_and_format() {
        for (format, mime) in [(Format::Png, "image/png"), (Format::Jpeg, "image/jpeg"), (Format::Webp, "image/webp")] {
            let side = |mean| Lengths { max: MAX_SIDE, ..Lengths::fixed(mean) };
            let options = Options { batch: 2, width: side(37), height: side(20), format, ..Options::default() };
            let all = made(&options, 1);
            assert_eq!(all.len(), 2);
            for (said, picture) in &all {
                assert_eq!((said.as_str(), picture.width(), picture.height()), (mime, 37, 20));
            }
            assert_ne!(all[0].1, all[1].1);
        }
        let options = Options { width: Lengths::normal(40.0, 9.0), format: Format::Random, ..Options::default() };
        let all = made(&Options { height: Lengths::fixed(8), ..options }, 24);
        let widths: std::collections::BTreeSet<u32> = all.iter().map(|(_, picture)| picture.width()).collect();
        let mimes: std::collections::BTreeSet<&str> = all.iter().map(|(mime, _)| mime.as_str()).collect();
        assert!(widths.len() > 5 && mimes.len() == 2);
    }

    #[test]
    fn pictures_of_a_directory_are_taken_in_the_order_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        for (name, grey) in [("b.png", 100u8), ("a.png", 50), ("c.jpg", 200)] {
            RgbImage::from_pixel(9, 5, image::Rgb([grey; 3])).save(dir.path().join(name)).unwrap();
        }
        std::fs::write(dir.path().join("README"), "no picture").unwrap();
        let options = |sampling| Options {
            width: Lengths::fixed(4),
            height: Lengths::fixed(4),
            format: Format::Png,
            source: Source::Directory(dir.path().into()),
            sampling,
            ..Options::default()
        };
        let greys = |sampling| -> Vec<u8> {
            let all = made(&options(sampling), 9);
            all.iter().map(|(_, picture)| picture.to_rgb8().get_pixel(1, 1).0[0]).collect()
        };
        assert_eq!(greys(Sampling::SequentialCycle), [50, 100, 200].repeat(3));
        let shuffled = greys(Sampling::ShuffleCycle);
        for cycle in shuffled.chunks(3) {
            let mut cycle = cycle.to_vec();
            cycle.sort_unstable();
            assert_eq!(cycle, [50, 100, 200]);
        }
        assert!(greys(Sampling::RandomWithReplacement).iter().all(|grey| [50, 100, 200].contains(grey)));
        std::fs::write(dir.path().join("d.webp"), "no picture").unwrap();
        let why = Gallery::open(&options(Sampling::SequentialCycle)).err().unwrap().0;
        assert!(why.contains("d.webp: not a picture"), "{why}");
    }

    #[test]
    fn what_cannot_be_made_is_said() {
        let empty = tempfile::tempdir().unwrap();
        let refused = |options: Options| match Gallery::open(&options) {
            Ok(gallery) => gallery.make(&gallery.plan(&mut gallery.draws(1))[0]).unwrap_err().0,
            Err(e) => e.0,
        };
        let huge = Options { width: Lengths::fixed(60_000), height: Lengths::fixed(60_000), ..Options::default() };
        assert!(refused(huge).contains("60000 by 60000 pixels is too large"));
        let none = Options { source: Source::Directory(empty.path().into()), ..Options::default() };
        assert!(refused(none).contains("has no picture"));
        let sampled = Options { sampling: Sampling::ShuffleCycle, ..Options::default() };
        assert!(refused(sampled).starts_with("--image-source-sampling"));
        let flat = Options { width: Lengths::fixed(0), ..Options::default() };
        assert!(refused(flat).starts_with("--image-width-mean must"));
    }
}
