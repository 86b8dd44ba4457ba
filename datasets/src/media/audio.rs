//! Audio clips of white noise.
//!
//! Samples are normal with a standard deviation of 0.3 of full scale, cut to it. All depths have full scale; the
//! reference's 24-bit clips are 48 dB too quiet.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::ffmpeg;
use crate::Error;
use crate::seed::Stream;

/// Seconds of a clip where no flag gives its mean.
pub const DEFAULT_SECONDS: f64 = 10.0;

/// The shortest clip, seconds.
const SHORTEST: f64 = 0.01;

/// The longest clip, seconds.
const LONGEST: f64 = 3600.0;

/// No clip may have more bytes.
const MAX_BYTES: u64 = 1 << 30;

/// Full scale of the noise's standard deviation.
const LOUDNESS: f64 = 0.3;

/// Sample rates that MP3 has, Hz.
const MP3_RATES: [u32; 9] = [8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000];

/// Depths of samples, bits.
pub const DEPTHS: [u16; 4] = [8, 16, 24, 32];

/// `--audio-format`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// PCM.
    #[default]
    Wav,
    /// MP3, by the `ffmpeg` program.
    Mp3,
}

/// What clips to make.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// `--audio-batch-size`: clips of a turn.
    pub batch: u32,
    /// `--audio-length-mean`, seconds.
    pub mean: f64,
    /// `--audio-length-stddev`, seconds.
    pub stddev: f64,
    /// File format.
    pub format: Format,
    /// `--audio-depths`, bits; one of them by lot.
    pub depths: Vec<u16>,
    /// `--audio-sample-rates` in Hz; one of them by lot.
    pub rates: Vec<u32>,
    /// `--audio-num-channels`: 1 or 2.
    pub channels: u16,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            batch: 1,
            mean: DEFAULT_SECONDS,
            stddev: 0.0,
            format: Format::Wav,
            depths: vec![16],
            rates: vec![16_000],
            channels: 1,
        }
    }
}

impl Options {
    /// Checks the values.
    ///
    /// # Errors
    /// A sentence naming the flag.
    pub fn check(&self) -> Result<(), Error> {
        let refuse = |what: String| Err(Error(what));
        if !(SHORTEST..=LONGEST).contains(&self.mean) {
            return refuse(format!(
                "--audio-length-mean must be between {SHORTEST} and {LONGEST} seconds, not {}",
                self.mean
            ));
        }
        if !(0.0..=LONGEST).contains(&self.stddev) {
            return refuse(format!(
                "--audio-length-stddev must be between 0 and {LONGEST} seconds, not {}",
                self.stddev
            ));
        }
        if self.depths.is_empty() || self.rates.is_empty() {
            return refuse("--audio-depths and --audio-sample-rates need at least one value".into());
        }
        if let Some(depth) = self.depths.iter().find(|depth| !DEPTHS.contains(depth)) {
            return refuse(format!("--audio-depths {depth}: expected 8, 16, 24 or 32 bits"));
        }
        if let Some(rate) = self.rates.iter().find(|rate| !(1_000..=384_000).contains(*rate)) {
            return refuse(format!("--audio-sample-rates: {rate} Hz is not between 1 and 384 kHz"));
        }
        if !(1..=2).contains(&self.channels) {
            return refuse(format!("--audio-num-channels {}: expected 1 or 2", self.channels));
        }
        match self.rates.iter().find(|rate| self.format == Format::Mp3 && !MP3_RATES.contains(rate)) {
            Some(rate) => {
                let known: Vec<String> = MP3_RATES.iter().map(|rate| (f64::from(*rate) / 1000.0).to_string()).collect();
                refuse(format!("--audio-sample-rates: MP3 has no {rate} Hz, its rates are {} kHz", known.join(", ")))
            }
            None => Ok(()),
        }
    }
}

/// One clip, drawn; making it needs no order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    /// Samples of each channel.
    samples: u32,
    rate: u32,
    depth: u16,
    key: u64,
}

impl Plan {
    /// Length in seconds.
    pub(crate) fn seconds(&self) -> f64 {
        f64::from(self.samples) / f64::from(self.rate)
    }

    /// Bytes of a channel.
    pub(crate) fn bytes(&self) -> u64 {
        u64::from(self.samples) * u64::from(self.depth / 8)
    }
}

/// The streams clips are drawn from.
pub(crate) struct Draws {
    durations: Stream,
    formats: Stream,
    data: Stream,
}

impl Draws {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            durations: Stream::new(seed, "dataset.audio.duration"),
            formats: Stream::new(seed, "dataset.audio.format"),
            data: Stream::new(seed, "dataset.audio.data"),
        }
    }
}

impl Options {
    /// A turn's clips.
    pub(crate) fn plan(&self, draws: &mut Draws) -> Vec<Plan> {
        (0..self.batch).map(|_| self.plan_one(draws)).collect()
    }

    fn plan_one(&self, draws: &mut Draws) -> Plan {
        let mut seconds = self.mean;
        if self.stddev > 0.0 {
            let mut tries = (0..10_000).map(|_| self.mean + self.stddev * draws.durations.normal());
            seconds = tries.find(|s| (SHORTEST..=LONGEST).contains(s)).unwrap_or(self.mean);
        }
        let rate = self.rates[draws.formats.below(self.rates.len() as u64) as usize];
        let depth = self.depths[draws.formats.below(self.depths.len() as u64) as usize];
        Plan { samples: (seconds * f64::from(rate)) as u32, rate, depth, key: draws.data.bits() }
    }

    /// The clip as `<format>,<base64>`.
    pub(crate) fn make(&self, plan: &Plan) -> Result<String, Error> {
        if plan.bytes() * u64::from(self.channels) > MAX_BYTES {
            return Err(Error(format!(
                "--audio-length-mean: a clip of {} s would have over a gigabyte",
                plan.seconds()
            )));
        }
        let wav = wav(plan, self.channels);
        let (name, bytes) = match self.format {
            Format::Wav => ("wav", wav),
            Format::Mp3 => ("mp3", ffmpeg::mp3(&wav)?),
        };
        Ok(format!("{name},{}", STANDARD.encode(bytes)))
    }
}

/// White noise as a WAV file, for the sound of a video.
pub(super) fn noise(seconds: f64, rate: u32, depth: u16, channels: u16, key: u64) -> Vec<u8> {
    wav(&Plan { samples: (seconds * f64::from(rate)) as u32, rate, depth, key }, channels)
}

/// A RIFF file: a head of 44 bytes and the samples, channels side by side.
fn wav(plan: &Plan, channels: u16) -> Vec<u8> {
    let frame = channels * (plan.depth / 8);
    let size = plan.samples.saturating_mul(u32::from(frame));
    let mut out = Vec::with_capacity(44 + size as usize);
    out.extend_from_slice(b"RIFF");
    out.extend_from_slice(&(36u32.saturating_add(size)).to_le_bytes());
    out.extend_from_slice(b"WAVEfmt ");
    out.extend_from_slice(&16u32.to_le_bytes());
    out.extend_from_slice(&1u16.to_le_bytes());
    out.extend_from_slice(&channels.to_le_bytes());
    out.extend_from_slice(&plan.rate.to_le_bytes());
    out.extend_from_slice(&plan.rate.saturating_mul(u32::from(frame)).to_le_bytes());
    out.extend_from_slice(&frame.to_le_bytes());
    out.extend_from_slice(&plan.depth.to_le_bytes());
    out.extend_from_slice(b"data");
    out.extend_from_slice(&size.to_le_bytes());
    let mut stream = Stream::new(plan.key, "audio");
    for _ in 0..u64::from(plan.samples) * u64::from(channels) {
        put_sample((LOUDNESS * stream.normal()).clamp(-1.0, 1.0), plan.depth, &mut out);
    }
    out
}

/// Little endian; 8 bits are unsigned, the others signed.
fn put_sample(x: f64, depth: u16, out: &mut Vec<u8>) {
    let full = f64::from((1u32 << (depth - 1)) - 1);
    let value = (x * full) as i32;
    match depth {
        8 => out.push((value + 128) as u8),
        _ => out.extend_from_slice(&value.to_le_bytes()[..usize::from(depth / 8)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clip(options: &Options) -> (Plan, Vec<u8>) {
        options.check().unwrap();
        let plan = options.plan(&mut Draws::new(1)).remove(0);
        let text = options.make(&plan).unwrap();
        (plan, STANDARD.decode(text.strip_prefix("wav,").unwrap()).unwrap())
    }

    #[test]
    fn heads_say_what_follows() {
        for depth in DEPTHS {
            let options =
                Options { mean: 0.5, depths: vec![depth], rates: vec![8_000], channels: 2, ..Options::default() };
            let (plan, bytes) = clip(&options);
            let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
            let half = |at: usize| u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap());
            assert_eq!(plan.seconds(), 0.5);
            assert_eq!((half(22), word(24), half(34)), (2, 8_000, depth));
            assert_eq!(word(28), 8_000 * 2 * u32::from(depth) / 8);
            assert_eq!((word(40) as usize, word(4) as usize), (bytes.len() - 44, bytes.len() - 8));
            assert_eq!(bytes.len(), 44 + 4_000 * 2 * usize::from(depth) / 8);
        }
    }

    #[test]
    fn every_depth_is_as_loud() {
        for depth in DEPTHS {
            let (_, bytes) = clip(&Options { mean: 1.0, depths: vec![depth], ..Options::default() });
            let width = usize::from(depth / 8);
            let level = |frame: &[u8]| {
                let mut wide = [0u8; 4];
                wide[4 - width..].copy_from_slice(frame);
                let signed = i32::from_le_bytes(wide);
                let signed = if depth == 8 { signed.wrapping_add(i32::MIN) } else { signed };
                f64::from(signed) / f64::from(i32::MAX)
            };
            let samples: Vec<f64> = bytes[44..].chunks(width).map(level).collect();
            let power = samples.iter().map(|x| x * x).sum::<f64>() / samples.len() as f64;
            assert!((power.sqrt() - LOUDNESS).abs() < 0.01, "{depth} bits: {}", power.sqrt());
        }
    }

    #[test]
    fn lengths_are_spread_as_asked() {
        let options = Options { mean: 3.0, stddev: 0.5, batch: 2_000, ..Options::default() };
        let seconds: Vec<f64> = options.plan(&mut Draws::new(1)).iter().map(Plan::seconds).collect();
        let mean = seconds.iter().sum::<f64>() / 2_000.0;
        let variance = seconds.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / 2_000.0;
        assert!((mean - 3.0).abs() < 0.05 && (variance.sqrt() - 0.5).abs() < 0.03, "{mean} {variance}");
    }

    #[test]
    fn what_cannot_be_made_is_said() {
        for (options, said) in [
            (Options { mean: 0.001, ..Options::default() }, "--audio-length-mean must"),
            (Options { stddev: -1.0, ..Options::default() }, "--audio-length-stddev must"),
            (Options { depths: vec![12], ..Options::default() }, "--audio-depths 12"),
            (Options { rates: vec![5], ..Options::default() }, "--audio-sample-rates: 5 Hz"),
            (Options { channels: 3, ..Options::default() }, "--audio-num-channels 3"),
            (
                Options { format: Format::Mp3, rates: vec![96_000], ..Options::default() },
                "--audio-sample-rates: MP3 has no",
            ),
        ] {
            let why = options.check().unwrap_err().0;
            assert!(why.starts_with(said), "{why}");
        }
    }
}
