//! Videos, encoded by the `ffmpeg` program from frames made here.
//!
//! Frames of shapes and of the clock are the same in every video of a run, so such a video is encoded once.

use std::ffi::OsString;
use std::io::Write;
use std::sync::OnceLock;

use super::{audio, ffmpeg};
use crate::Error;
use crate::seed::Stream;

/// Seconds of a video where no flag says how many.
pub const DEFAULT_SECONDS: f64 = 1.0;

/// No side may be longer, in pixels.
const MAX_SIDE: u32 = 8_192;

/// No video may have more frames.
const MAX_FRAMES: u64 = 100_000;

/// `--video-synth-type`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pattern {
    /// Coloured squares that move over a dark ground.
    #[default]
    MovingShapes,
    /// A grid, and a hand that goes round once in a second.
    GridClock,
    /// Every pixel of every frame by lot.
    Noise,
}

/// `--video-format`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Container {
    /// WebM.
    #[default]
    Webm,
    /// MP4.
    Mp4,
}

impl Container {
    fn name(self) -> &'static str {
        match self {
            Self::Webm => "webm",
            Self::Mp4 => "mp4",
        }
    }
}

/// The sound of a video: white noise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sound {
    /// `--video-audio-sample-rate`, Hz.
    pub rate: u32,
    /// `--video-audio-num-channels`: 1 or 2.
    pub channels: u16,
    /// `--video-audio-depth`, bits.
    pub depth: u16,
    /// `--video-audio-codec`; none is libvorbis in WebM and libopus in MP4.
    pub codec: Option<String>,
}

/// What videos to make.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// `--video-batch-size`: videos of a turn.
    pub batch: u32,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// `--video-duration`, seconds.
    pub seconds: f64,
    /// `--video-fps`.
    pub fps: u32,
    /// What is to be seen.
    pub pattern: Pattern,
    /// File format.
    pub container: Container,
    /// `--video-codec`, as ffmpeg calls it.
    pub codec: String,
    /// Its sound, if any.
    pub sound: Option<Sound>,
}

impl Options {
    /// Videos of a size, all else as the reference has it.
    pub fn of_size(width: u32, height: u32) -> Self {
        Self {
            batch: 1,
            width,
            height,
            seconds: DEFAULT_SECONDS,
            fps: 4,
            pattern: Pattern::default(),
            container: Container::default(),
            codec: "libvpx-vp9".into(),
            sound: None,
        }
    }

    fn frames(&self) -> u64 {
        (self.seconds * f64::from(self.fps)) as u64
    }

    /// Checks the values.
    ///
    /// # Errors
    /// A sentence naming the flag.
    pub fn check(&self) -> Result<(), Error> {
        let refuse = |what: String| Err(Error(what));
        for (flag, side) in [("--video-width", self.width), ("--video-height", self.height)] {
            // The colour planes of yuv420p have half the size.
            if !(2..=MAX_SIDE).contains(&side) || side % 2 == 1 {
                return refuse(format!("{flag} {side}: expected an even number from 2 to {MAX_SIDE}"));
            }
        }
        let some = self.seconds > 0.0 && self.seconds.is_finite() && (1..=MAX_FRAMES).contains(&self.frames());
        if !some {
            return refuse(format!(
                "--video-duration {} at --video-fps {}: expected between 1 and {MAX_FRAMES} frames",
                self.seconds, self.fps
            ));
        }
        let Some(sound) = &self.sound else { return Ok(()) };
        if !(1..=2).contains(&sound.channels) {
            return refuse(format!("--video-audio-num-channels {}: expected 0, 1 or 2", sound.channels));
        }
        if !audio::DEPTHS.contains(&sound.depth) {
            return refuse(format!("--video-audio-depth {}: expected 8, 16, 24 or 32 bits", sound.depth));
        }
        if !(8_000..=192_000).contains(&sound.rate) {
            return refuse(format!("--video-audio-sample-rate: {} Hz is not between 8 and 192 kHz", sound.rate));
        }
        Ok(())
    }
}

/// Makes videos, the same ones once.
pub(crate) struct Studio {
    options: Options,
    /// The one video where all are alike.
    reel: OnceLock<Result<String, Error>>,
}

impl Studio {
    /// # Errors
    /// A sentence naming the flag whose value is out of range.
    pub(crate) fn open(options: &Options) -> Result<Self, Error> {
        options.check()?;
        Ok(Self { options: options.clone(), reel: OnceLock::new() })
    }

    /// A turn's videos, each with the key of its randomness.
    pub(crate) fn plan(&self, draws: &mut Stream) -> Vec<u64> {
        (0..self.options.batch).map(|_| draws.bits()).collect()
    }

    /// The video as a data URL.
    pub(crate) fn make(&self, key: u64) -> Result<String, Error> {
        if self.options.pattern == Pattern::Noise {
            return self.encode(key);
        }
        self.reel.get_or_init(|| self.encode(0)).clone()
    }

    fn encode(&self, key: u64) -> Result<String, Error> {
        let what = "--video-width";
        let dir = ffmpeg::directory(what)?;
        let out = dir.path().join(format!("video.{}", self.options.container.name()));
        let sound = dir.path().join("sound.wav");
        if let Some(of) = &self.options.sound {
            let wav = audio::noise(self.options.seconds, of.rate, of.depth, of.channels, key);
            std::fs::write(&sound, wav).map_err(|e| Error(format!("{what}: {}: {e}", sound.display())))?;
        }
        let mut args = self.arguments(sound.as_os_str().to_owned());
        args.push(out.as_os_str().to_owned());
        ffmpeg::run("a video (--video-width, --video-height)", &args, |pipe| self.put_frames(key, pipe))?;
        let bytes = ffmpeg::read(what, &out)?;
        Ok(super::data_url(&format!("video/{}", self.options.container.name()), &bytes))
    }

    fn arguments(&self, sound: OsString) -> Vec<OsString> {
        let o = &self.options;
        let mut args: Vec<OsString> = Vec::new();
        let mut put = |words: &[&str]| args.extend(words.iter().map(OsString::from));
        let (size, fps) = (format!("{}x{}", o.width, o.height), o.fps.to_string());
        put(&["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", &size, "-r", &fps, "-i", "pipe:0"]);
        if let Some(of) = &o.sound {
            args.push("-i".into());
            args.push(sound);
            let mut put = |words: &[&str]| args.extend(words.iter().map(OsString::from));
            let default = if o.container == Container::Webm { "libvorbis" } else { "libopus" };
            let codec = of.codec.as_deref().unwrap_or(default);
            // Opus has no other rate that every player takes.
            let rate = if codec == "libopus" { 48_000 } else { of.rate }.to_string();
            put(&["-codec:a", codec, "-ar", &rate, "-shortest"]);
        }
        let mut put = |words: &[&str]| args.extend(words.iter().map(OsString::from));
        put(&["-codec:v", &o.codec, "-pix_fmt", "yuv420p"]);
        if o.container == Container::Mp4 {
            put(&["-movflags", "+faststart"]);
        }
        // Without dates and random identifiers: the same program makes the same file.
        put(&["-fflags", "+bitexact", "-flags:v", "+bitexact", "-f", o.container.name()]);
        args
    }

    fn put_frames(&self, key: u64, out: &mut dyn Write) -> std::io::Result<()> {
        let mut stream = Stream::new(key, "video");
        let mut frame = vec![0u8; self.options.width as usize * self.options.height as usize * 3];
        for n in 0..self.options.frames() {
            let t = n as f64 / f64::from(self.options.fps);
            match self.options.pattern {
                Pattern::Noise => stream.fill(&mut frame),
                Pattern::MovingShapes => self.shapes(t, &mut frame),
                Pattern::GridClock => self.clock(t, &mut frame),
            }
            out.write_all(&frame)?;
        }
        Ok(())
    }

    fn size(&self) -> (f64, f64) {
        (f64::from(self.options.width), f64::from(self.options.height))
    }

    /// Five squares, each with a speed and a colour of its own, that turn back at the borders.
    fn shapes(&self, t: f64, frame: &mut [u8]) {
        frame.fill(24);
        let (width, height) = self.size();
        let side = (width.min(height) / 5.0).max(1.0);
        for n in 0..5u8 {
            let k = f64::from(n);
            let bounce = |span: f64, speed: f64| {
                let at = (span * 0.17 * k + t * speed * span).rem_euclid(2.0 * span.max(1.0));
                if at > span { 2.0 * span - at } else { at }
            };
            let (x, y) = (bounce(width - side, 0.31 + 0.07 * k), bounce(height - side, 0.23 + 0.11 * k));
            let colour = [80 + 35 * n, 220 - 40 * n, 60 + (97 * u16::from(n) % 180) as u8];
            self.rectangle(frame, (x, y), (x + side, y + side), colour);
        }
    }

    fn clock(&self, t: f64, frame: &mut [u8]) {
        frame.fill(236);
        let (width, height) = self.size();
        let step = (width.min(height) / 8.0).max(2.0);
        let mut line = 0.0;
        while line < width.max(height) {
            self.rectangle(frame, (line, 0.0), (line + 1.0, height), [170; 3]);
            self.rectangle(frame, (0.0, line), (width, line + 1.0), [170; 3]);
            line += step;
        }
        let (angle, radius) = (std::f64::consts::TAU * t, width.min(height) * 0.4);
        let (sin, cos) = (libm::sin(angle), libm::cos(angle));
        for n in 0..64 {
            let r = radius * f64::from(n) / 64.0;
            let (x, y) = (width / 2.0 + r * sin, height / 2.0 - r * cos);
            self.rectangle(frame, (x - 1.0, y - 1.0), (x + 1.0, y + 1.0), [190, 20, 20]);
        }
    }

    /// Fills from the corner `from` to the corner `to`, what lies outside the frame left out.
    fn rectangle(&self, frame: &mut [u8], from: (f64, f64), to: (f64, f64), colour: [u8; 3]) {
        let (width, height) = (self.options.width as usize, self.options.height as usize);
        let span =
            |from: f64, to: f64, most: usize| (from.max(0.0) as usize).min(most)..(to.max(0.0) as usize).min(most);
        for y in span(from.1, to.1, height) {
            for x in span(from.0, to.0, width) {
                let at = (y * width + x) * 3;
                frame[at..at + 3].copy_from_slice(&colour);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(options: Options, key: u64) -> Vec<u8> {
        let mut out = Vec::new();
        Studio::open(&options).unwrap().put_frames(key, &mut out).unwrap();
        out
    }

    #[test]
    fn every_pattern_has_its_frames_and_moves() {
        for pattern in [Pattern::MovingShapes, Pattern::GridClock, Pattern::Noise] {
            let options = Options { pattern, fps: 3, seconds: 1.5, ..Options::of_size(32, 16) };
            let out = frames(options.clone(), 1);
            let frame = 32 * 16 * 3;
            assert_eq!(out.len(), 4 * frame, "{pattern:?}");
            assert_ne!(out[..frame], out[frame..2 * frame], "{pattern:?}");
            assert_eq!(out == frames(options, 2), pattern != Pattern::Noise, "{pattern:?}");
        }
    }

    #[test]
    fn the_program_is_told_what_to_make() {
        let sound = Sound { rate: 44_100, channels: 1, depth: 16, codec: None };
        let options = Options { container: Container::Mp4, sound: Some(sound), ..Options::of_size(64, 48) };
        let args: Vec<String> = Studio::open(&options)
            .unwrap()
            .arguments("s.wav".into())
            .into_iter()
            .map(|arg| arg.into_string().unwrap())
            .collect();
        assert_eq!(
            args.join(" "),
            "-f rawvideo -pix_fmt rgb24 -s 64x48 -r 4 -i pipe:0 -i s.wav -codec:a libopus -ar 48000 -shortest -codec:v \
             libvpx-vp9 -pix_fmt yuv420p -movflags +faststart -fflags +bitexact -flags:v +bitexact -f mp4"
        );
    }

    #[test]
    fn what_cannot_be_made_is_said() {
        let sound = |rate, channels, depth| Some(Sound { rate, channels, depth, codec: None });
        for (options, said) in [
            (Options::of_size(0, 4), "--video-width 0"),
            (Options::of_size(4, 5), "--video-height 5"),
            (Options { fps: 0, ..Options::of_size(4, 4) }, "--video-duration 1 at --video-fps 0"),
            (Options { seconds: f64::NAN, ..Options::of_size(4, 4) }, "--video-duration NaN"),
            (Options { sound: sound(44_100, 3, 16), ..Options::of_size(4, 4) }, "--video-audio-num-channels 3"),
            (Options { sound: sound(44_100, 1, 12), ..Options::of_size(4, 4) }, "--video-audio-depth 12"),
            (Options { sound: sound(44, 1, 16), ..Options::of_size(4, 4) }, "--video-audio-sample-rate: 44 Hz"),
        ] {
            let why = Studio::open(&options).err().unwrap().0;
            assert!(why.starts_with(said), "{why}");
        }
    }
}
