//! The images, audio clips and videos of generated requests.

use crate::values::{
    AudioFormat, Container, ImageFormat, ImageSource, Pattern, Sampling, choice, count, count32, deviation, hertz,
    image_source, positive, single, whole32,
};
use clap::Args;

/// Images, audio clips and videos beside the texts.
#[derive(Debug, Clone, PartialEq, Args)]
pub(crate) struct Media {
    #[command(flatten)]
    pub(crate) images: Images,
    #[command(flatten)]
    pub(crate) audio: Audio,
    #[command(flatten)]
    pub(crate) video: Video,
}

/// Generated images.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(next_help_heading = "Image Input")]
pub(crate) struct Images {
    /// Mean width, pixels; any image option adds images to every request [default: 512]
    #[arg(long = "image-width-mean", value_name = "PIXELS", value_parser = single(positive))]
    pub(crate) image_width: Option<f64>,

    /// Standard deviation of that [default: 0]
    #[arg(long = "image-width-stddev", value_name = "PIXELS", value_parser = single(deviation))]
    pub(crate) image_width_stddev: Option<f64>,

    /// Mean height, pixels [default: 512]
    #[arg(long = "image-height-mean", value_name = "PIXELS", value_parser = single(positive))]
    pub(crate) image_height: Option<f64>,

    /// Standard deviation of that [default: 0]
    #[arg(long = "image-height-stddev", value_name = "PIXELS", value_parser = single(deviation))]
    pub(crate) image_height_stddev: Option<f64>,

    /// Images of a request [default: 1]
    #[arg(long = "image-batch-size", visible_alias = "batch-size-image", value_name = "N", value_parser = single(whole32))]
    pub(crate) image_batch: Option<u32>,

    /// png, jpeg, webp, random (png or jpeg by lot) [default: jpeg]
    #[arg(long, value_name = "FORMAT", value_parser = choice::<ImageFormat>)]
    pub(crate) image_format: Option<ImageFormat>,

    /// noise, or a directory whose pictures are brought to the size [default: noise]
    #[arg(long, value_name = "SOURCE", value_parser = image_source)]
    pub(crate) image_source: Option<ImageSource>,

    /// In what order a directory's pictures are taken: random-with-replacement, shuffle-cycle, sequential-cycle
    /// [default: random-with-replacement]
    #[arg(long, value_name = "ORDER", value_parser = choice::<Sampling>)]
    pub(crate) image_source_sampling: Option<Sampling>,
}

/// Generated audio clips.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(next_help_heading = "Audio Input")]
pub(crate) struct Audio {
    /// Clips of a request; any audio option adds clips to every request [default: 1]
    #[arg(long = "audio-batch-size", visible_alias = "batch-size-audio", value_name = "N", value_parser = single(whole32))]
    pub(crate) audio_batch: Option<u32>,

    /// Mean length of a clip, seconds [default: 10]
    #[arg(long = "audio-length-mean", value_name = "SECONDS", value_parser = single(positive))]
    pub(crate) audio_length: Option<f64>,

    /// Standard deviation of that [default: 0]
    #[arg(long, value_name = "SECONDS", value_parser = single(deviation))]
    pub(crate) audio_length_stddev: Option<f64>,

    /// wav, mp3 (by the ffmpeg program) [default: wav]
    #[arg(long, value_name = "FORMAT", value_parser = choice::<AudioFormat>)]
    pub(crate) audio_format: Option<AudioFormat>,

    /// Bits of a sample, several with commas; one by lot [default: 16]
    #[arg(long, value_name = "BITS", value_delimiter = ',', num_args = 1.., value_parser = count)]
    pub(crate) audio_depths: Vec<u64>,

    /// Sample rates, kHz (above 96: Hz), several with commas; one by lot [default: 16]
    #[arg(long, value_name = "KHZ", value_delimiter = ',', num_args = 1.., value_parser = hertz)]
    pub(crate) audio_sample_rates: Vec<u32>,

    /// 1 or 2 [default: 1]
    #[arg(long, value_name = "N", value_parser = count32)]
    pub(crate) audio_num_channels: Option<u32>,
}

/// Generated videos.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(next_help_heading = "Video Input")]
pub(crate) struct Video {
    /// Videos of a request [default: 1]
    #[arg(long = "video-batch-size", visible_alias = "batch-size-video", value_name = "N", value_parser = single(whole32))]
    pub(crate) video_batch: Option<u32>,

    /// Seconds of a video [default: 1]
    #[arg(long, value_name = "SECONDS", value_parser = single(positive))]
    pub(crate) video_duration: Option<f64>,

    /// Frames a second [default: 4]
    #[arg(long, value_name = "N", value_parser = single(count32))]
    pub(crate) video_fps: Option<u32>,

    /// Width, pixels; width and height add videos, made by the ffmpeg program, to every request
    #[arg(long, value_name = "PIXELS", value_parser = single(count32))]
    pub(crate) video_width: Option<u32>,

    /// Height, pixels
    #[arg(long, value_name = "PIXELS", value_parser = single(count32))]
    pub(crate) video_height: Option<u32>,

    /// moving-shapes, grid-clock, noise [default: moving-shapes]
    #[arg(long, value_name = "PATTERN", value_parser = choice::<Pattern>)]
    pub(crate) video_synth_type: Option<Pattern>,

    /// webm, mp4 [default: webm]
    #[arg(long, value_name = "FORMAT", value_parser = choice::<Container>)]
    pub(crate) video_format: Option<Container>,

    /// Codec as ffmpeg calls it [default: libvpx-vp9]
    #[arg(long, value_name = "CODEC")]
    pub(crate) video_codec: Option<String>,

    /// Sample rate of a video's sound, Hz, or kHz up to 192 [default: 44100]
    #[arg(long, value_name = "HZ", value_parser = positive)]
    pub(crate) video_audio_sample_rate: Option<f64>,

    /// Channels of a video's sound: 0 (none), 1, 2 [default: 0]
    #[arg(long, value_name = "N", value_parser = whole32)]
    pub(crate) video_audio_num_channels: Option<u32>,

    /// aac, libvorbis, libopus [default: what the format has]
    #[arg(long, value_name = "CODEC")]
    pub(crate) video_audio_codec: Option<String>,

    /// Bits of a sample of a video's sound: 8, 16, 24, 32 [default: 16]
    #[arg(long, value_name = "BITS", value_parser = count32)]
    pub(crate) video_audio_depth: Option<u32>,
}
