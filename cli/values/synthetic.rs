//! Values of the options for generated data.

use super::{Choice, Parsed, finite};
pub(crate) use maser_datasets::lengths::Lengths;
pub(crate) use maser_datasets::media::audio::Format as AudioFormat;
pub(crate) use maser_datasets::media::images::{Format as ImageFormat, Sampling, Source as ImageSource};
pub(crate) use maser_datasets::media::video::{Container, Pattern};
pub(crate) use maser_datasets::sequence::Style;
pub(crate) use maser_datasets::texts::Source;

/// A whole number of tokens, or a distribution as a JSON object.
pub(crate) fn length(raw: &str) -> Parsed<Lengths> {
    Lengths::parse(raw)
}

/// A finite number above 0.
pub(crate) fn positive(raw: &str) -> Parsed<f64> {
    finite(raw).filter(|x| *x > 0.0).ok_or_else(|| "expected a number above 0".into())
}

/// A sample rate in kHz, or in Hz where it is above 96, as Hz.
pub(crate) fn hertz(raw: &str) -> Parsed<u32> {
    let rate = positive(raw).map_err(|_| "expected a sample rate in kHz, such as 16 or 44.1")?;
    let hz = if rate > 96.0 { rate } else { rate * 1000.0 };
    if hz > 1e6 {
        return Err("expected a sample rate of at most 384 kHz".into());
    }
    Ok(hz.round() as u32)
}

/// `noise`, or a directory.
pub(crate) fn image_source(raw: &str) -> Parsed<ImageSource> {
    match raw.to_ascii_lowercase().as_str() {
        "noise" => Ok(ImageSource::Noise),
        "assets" => Err("maser brings no photographs; expected noise, or a directory with pictures".into()),
        _ if std::path::Path::new(raw).is_dir() => Ok(ImageSource::Directory(raw.into())),
        _ => Err("no such directory; expected noise, or a directory with pictures".into()),
    }
}

/// `--cache-bust`: where a marker goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum CacheBust {
    /// Nowhere.
    #[default]
    None,
    /// Before the system prompt.
    SystemPrefix,
    /// After it.
    SystemSuffix,
    /// Before the first turn.
    FirstTurnPrefix,
    /// After it.
    FirstTurnSuffix,
    /// Before the system prompt of warmup requests, the same for all, and nowhere else.
    WarmupIsolationSystem,
    /// Before the first turn of them.
    WarmupIsolationFirstTurn,
}

impl CacheBust {
    /// Whether only requests of a warmup are marked.
    pub(crate) fn is_for_warmup(self) -> bool {
        matches!(self, Self::WarmupIsolationSystem | Self::WarmupIsolationFirstTurn)
    }
}

impl Choice for CacheBust {
    const NAMES: &'static [(&'static str, Option<Self>)] = &[
        ("none", Some(Self::None)),
        ("system-prefix", Some(Self::SystemPrefix)),
        ("system-suffix", Some(Self::SystemSuffix)),
        ("first-turn-prefix", Some(Self::FirstTurnPrefix)),
        ("first-turn-suffix", Some(Self::FirstTurnSuffix)),
        ("warmup-isolation-system", Some(Self::WarmupIsolationSystem)),
        ("warmup-isolation-first-turn", Some(Self::WarmupIsolationFirstTurn)),
    ];
}

impl Choice for Style {
    const NAMES: &'static [(&'static str, Option<Self>)] =
        &[("vllm", Some(Self::Vllm)), ("sglang", Some(Self::Sglang))];
}

impl Choice for Source {
    const NAMES: &'static [(&'static str, Option<Self>)] =
        &[("sonnet", Some(Self::Sonnet)), ("coding", Some(Self::Coding)), ("random", Some(Self::Random))];
}

impl Choice for ImageFormat {
    const NAMES: &'static [(&'static str, Option<Self>)] = &[
        ("png", Some(Self::Png)),
        ("jpeg", Some(Self::Jpeg)),
        ("webp", Some(Self::Webp)),
        ("random", Some(Self::Random)),
    ];
}

impl Choice for Sampling {
    const NAMES: &'static [(&'static str, Option<Self>)] = &[
        ("random-with-replacement", Some(Self::RandomWithReplacement)),
        ("shuffle-cycle", Some(Self::ShuffleCycle)),
        ("sequential-cycle", Some(Self::SequentialCycle)),
    ];
}

impl Choice for AudioFormat {
    const NAMES: &'static [(&'static str, Option<Self>)] = &[("wav", Some(Self::Wav)), ("mp3", Some(Self::Mp3))];
}

impl Choice for Pattern {
    const NAMES: &'static [(&'static str, Option<Self>)] = &[
        ("moving-shapes", Some(Self::MovingShapes)),
        ("grid-clock", Some(Self::GridClock)),
        ("noise", Some(Self::Noise)),
    ];
}

impl Choice for Container {
    const NAMES: &'static [(&'static str, Option<Self>)] = &[("webm", Some(Self::Webm)), ("mp4", Some(Self::Mp4))];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_khz_up_to_96() {
        for (raw, want) in [("16", Some(16_000)), ("44.1", Some(44_100)), ("96", Some(96_000)), ("22050", Some(22_050))]
        {
            assert_eq!(hertz(raw).ok(), want, "{raw}");
        }
        for raw in ["0", "-1", "x", "nan", "1e9"] {
            assert!(hertz(raw).is_err(), "{raw}");
        }
    }

    #[test]
    fn an_image_source_is_noise_or_a_directory() {
        assert_eq!(image_source("Noise"), Ok(ImageSource::Noise));
        let dir = env!("CARGO_MANIFEST_DIR");
        assert_eq!(image_source(dir), Ok(ImageSource::Directory(dir.into())));
        assert!(image_source("assets").is_err_and(|why| why.starts_with("maser brings no photographs")));
        assert!(image_source("/no/such/directory").is_err_and(|why| why.starts_with("no such directory")));
    }
}
