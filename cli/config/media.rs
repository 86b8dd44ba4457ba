//! Images, audio and video of generated requests: which options go together, and what they come to.

use crate::args;
use crate::refusal::Refusal;
use crate::values::{EndpointKind, Lengths};
use maser_datasets::media::{audio, images, video};

/// What generated requests carry beside texts.
#[derive(Debug, Default)]
pub(super) struct Media {
    pub(super) images: Option<images::Options>,
    pub(super) audio: Option<audio::Options>,
    pub(super) video: Option<video::Options>,
}

impl Media {
    pub(super) fn any(&self) -> bool {
        self.images.is_some() || self.audio.is_some() || self.video.is_some()
    }
}

/// Which options were typed that say how media are made. How many stand in a request is said of a `random_pool` too.
pub(super) fn given_beside_a_file(typed: &args::Media) -> Vec<(&'static str, bool)> {
    let all = images_given(typed).into_iter().chain(audio_given(typed)).chain(video_given(typed));
    all.filter(|(flag, _)| !flag.ends_with("-batch-size")).collect()
}

fn images_given(typed: &args::Media) -> [(&'static str, bool); 8] {
    let of = &typed.images;
    [
        ("--image-width-mean", of.image_width.is_some()),
        ("--image-width-stddev", of.image_width_stddev.is_some()),
        ("--image-height-mean", of.image_height.is_some()),
        ("--image-height-stddev", of.image_height_stddev.is_some()),
        ("--image-batch-size", of.image_batch.is_some()),
        ("--image-format", of.image_format.is_some()),
        ("--image-source", of.image_source.is_some()),
        ("--image-source-sampling", of.image_source_sampling.is_some()),
    ]
}

fn audio_given(typed: &args::Media) -> [(&'static str, bool); 7] {
    let of = &typed.audio;
    [
        ("--audio-length-mean", of.audio_length.is_some()),
        ("--audio-length-stddev", of.audio_length_stddev.is_some()),
        ("--audio-batch-size", of.audio_batch.is_some()),
        ("--audio-format", of.audio_format.is_some()),
        ("--audio-depths", !of.audio_depths.is_empty()),
        ("--audio-sample-rates", !of.audio_sample_rates.is_empty()),
        ("--audio-num-channels", of.audio_num_channels.is_some()),
    ]
}

fn video_given(typed: &args::Media) -> [(&'static str, bool); 12] {
    let of = &typed.video;
    [
        ("--video-width", of.video_width.is_some()),
        ("--video-height", of.video_height.is_some()),
        ("--video-batch-size", of.video_batch.is_some()),
        ("--video-duration", of.video_duration.is_some()),
        ("--video-fps", of.video_fps.is_some()),
        ("--video-synth-type", of.video_synth_type.is_some()),
        ("--video-format", of.video_format.is_some()),
        ("--video-codec", of.video_codec.is_some()),
        ("--video-audio-sample-rate", of.video_audio_sample_rate.is_some()),
        ("--video-audio-num-channels", of.video_audio_num_channels.is_some()),
        ("--video-audio-codec", of.video_audio_codec.is_some()),
        ("--video-audio-depth", of.video_audio_depth.is_some()),
    ]
}

fn first(given: &[(&'static str, bool)]) -> Option<&'static str> {
    given.iter().find(|(_, given)| *given).map(|(flag, _)| *flag)
}

/// Resolves the options for an endpoint that takes them.
pub(super) fn resolve(typed: &args::Media, kind: EndpointKind) -> Result<Media, Refusal> {
    let refuse = |flag: &str, what: &str| Err(Refusal::new(format!("{flag}: {} takes no {what}", kind.name())));
    let mut media = Media::default();
    if let Some(flag) = first(&images_given(typed)) {
        if !kind.takes_images() {
            return refuse(flag, "images");
        }
        media.images = images(&typed.images)?;
    }
    if let Some(flag) = first(&audio_given(typed)) {
        if !kind.takes_audio() {
            return refuse(flag, "audio");
        }
        media.audio = audio(&typed.audio)?;
    }
    if let Some(flag) = first(&video_given(typed)) {
        if !kind.takes_video() {
            return refuse(flag, "video");
        }
        media.video = video(&typed.video, flag)?;
    }
    Ok(media)
}

fn images(typed: &args::Images) -> Result<Option<images::Options>, Refusal> {
    let default = images::Options::default();
    let side = |flag: &str, mean: Option<f64>, stddev: Option<f64>| {
        let mean = mean.unwrap_or(f64::from(images::DEFAULT_SIDE));
        let lengths = Lengths { max: images::MAX_SIDE, ..Lengths::normal(mean, stddev.unwrap_or(0.0)) };
        let checked = lengths.check_as(&format!("--image-{flag}-mean"), &format!("--image-{flag}-stddev"));
        checked.map(|()| lengths).map_err(|e| Refusal::new(e.0))
    };
    let options = images::Options {
        batch: typed.image_batch.unwrap_or(1),
        width: side("width", typed.image_width, typed.image_width_stddev)?,
        height: side("height", typed.image_height, typed.image_height_stddev)?,
        format: typed.image_format.unwrap_or(default.format),
        source: typed.image_source.clone().unwrap_or(default.source),
        sampling: typed.image_source_sampling.unwrap_or(default.sampling),
    };
    if options.source == images::Source::Noise && options.sampling != images::Sampling::default() {
        return Err(Refusal::new("--image-source-sampling: noise has no pictures to take in an order"));
    }
    Ok((options.batch > 0).then_some(options))
}

fn audio(typed: &args::Audio) -> Result<Option<audio::Options>, Refusal> {
    let default = audio::Options::default();
    let narrow = |n: u64| u16::try_from(n).unwrap_or(u16::MAX);
    let options = audio::Options {
        batch: typed.audio_batch.unwrap_or(1),
        mean: typed.audio_length.unwrap_or(default.mean),
        stddev: typed.audio_length_stddev.unwrap_or(0.0),
        format: typed.audio_format.unwrap_or_default(),
        depths: match typed.audio_depths.as_slice() {
            [] => default.depths,
            depths => depths.iter().map(|depth| narrow(*depth)).collect(),
        },
        rates: match typed.audio_sample_rates.as_slice() {
            [] => default.rates,
            rates => rates.to_vec(),
        },
        channels: narrow(typed.audio_num_channels.unwrap_or(1).into()),
    };
    options.check().map_err(|e| Refusal::new(e.0))?;
    Ok((options.batch > 0).then_some(options))
}

fn video(typed: &args::Video, flag: &str) -> Result<Option<video::Options>, Refusal> {
    let (Some(width), Some(height)) = (typed.video_width, typed.video_height) else {
        return Err(Refusal::new(format!("{flag}: a video needs both --video-width and --video-height")));
    };
    let default = video::Options::of_size(width, height);
    let channels = typed.video_audio_num_channels.unwrap_or(0);
    if let (0, Some(codec)) = (channels, &typed.video_audio_codec) {
        return Err(Refusal::new(format!(
            "--video-audio-codec {codec}: the videos have no sound; add --video-audio-num-channels"
        )));
    }
    if let Some(codec) = typed.video_audio_codec.as_deref().filter(|c| !["aac", "libvorbis", "libopus"].contains(c)) {
        return Err(Refusal::new(format!("--video-audio-codec {codec}: expected one of aac, libvorbis, libopus")));
    }
    let rate = typed.video_audio_sample_rate.unwrap_or(44_100.0);
    let sound = video::Sound {
        rate: if rate <= 192.0 { rate * 1000.0 } else { rate }.round() as u32,
        channels: u16::try_from(channels).unwrap_or(u16::MAX),
        depth: u16::try_from(typed.video_audio_depth.unwrap_or(16)).unwrap_or(u16::MAX),
        codec: typed.video_audio_codec.clone(),
    };
    let options = video::Options {
        batch: typed.video_batch.unwrap_or(1),
        seconds: typed.video_duration.unwrap_or(default.seconds),
        fps: typed.video_fps.unwrap_or(default.fps),
        pattern: typed.video_synth_type.unwrap_or_default(),
        container: typed.video_format.unwrap_or_default(),
        codec: typed.video_codec.clone().unwrap_or(default.codec.clone()),
        sound: (channels > 0).then_some(sound),
        ..default
    };
    options.check().map_err(|e| Refusal::new(e.0))?;
    Ok((options.batch > 0).then_some(options))
}
