//! Generated data as the settings show it. Only what was given appears, in the shapes of the reference's configuration file.

use super::Object;
use crate::args;
use crate::config::Length;
use crate::config::synthetic::Synthetic;
use crate::values::{ImageSource, Lengths, name_of};
use maser_datasets::lengths::{MAX_TOKENS, Shape};
use maser_datasets::sequence::{Pair, Sequence};
use serde_json::{Value, json};

/// The members of a `datasets` entry after its name.
pub(super) fn dataset(made: &Synthetic, seed: Option<u64>, named: Object) -> Object {
    let (typed, media) = &*made.typed;
    named
        .put("type", "synthetic")
        .put_if(made.entries_given, "entries", made.options.entries)
        .put_some("random_seed", seed)
        .put("prompts", prompts(made, typed))
        .put_some("prefix_prompts", prefix(typed))
        .put_some("turns", typed.turns.map(|mean| spread(f64::from(mean), typed.turns_stddev)))
        .put_some("turn_delay", typed.delay.map(|mean| spread(mean, typed.delay_stddev)))
        .put_some("turn_delay_ratio", typed.delay_ratio)
        .put_some("rankings", rankings(made, typed))
        .put_some("images", images(made, &media.images))
        .put_some("audio", audio(made))
        .put_some("video", video(made))
}

fn prompts(made: &Synthetic, typed: &args::Prompts) -> Object {
    let pairs = match &made.options.sequence {
        Sequence::Pairs(pairs) => Some(pairs.iter().map(pair).collect::<Vec<Value>>()),
        _ => None,
    };
    Object::default()
        .put("isl", length(&made.isl))
        .put_some("osl", made.osl.as_ref().map(length))
        .put_some("block_size", typed.block_size)
        .put_some("batch_size", typed.batch)
        .put_some("sequence_distribution", pairs)
        .put_some("random_range_ratio", typed.range_ratio.clone())
        .put_some("random_corpus_style", typed.range_style.map(name_of))
        .put_some("corpus", typed.corpus.map(name_of))
}

fn pair(pair: &Pair) -> Value {
    let stddev = |lengths: &Lengths| match lengths.shape {
        Shape::Normal { stddev, .. } => stddev,
        _ => 0.0,
    };
    json!({"isl": pair.isl.mean(), "isl_stddev": stddev(&pair.isl), "osl": pair.osl.mean(),
        "osl_stddev": stddev(&pair.osl), "probability": pair.percent})
}

fn prefix(typed: &args::Prompts) -> Option<Object> {
    let any = typed.prefixes.or(typed.shared_system).or(typed.user_context);
    any.map(|_| {
        Object::default()
            .put_some("pool_size", typed.prefixes)
            .put_some("length", typed.prefix_length)
            .put_some("shared_system_length", typed.shared_system)
            .put_some("user_context_length", typed.user_context)
    })
}

fn rankings(made: &Synthetic, typed: &args::Prompts) -> Option<Object> {
    made.options.rankings.as_ref()?;
    let given = |mean: Option<u32>, stddev| mean.map(|mean| spread(f64::from(mean), stddev));
    Some(
        Object::default()
            .put_some("passages", given(typed.passages, typed.passages_stddev))
            .put_some("passage_tokens", given(typed.passage_tokens, typed.passage_tokens_stddev))
            .put_some("query_tokens", given(typed.query_tokens, typed.query_tokens_stddev)),
    )
}

fn images(made: &Synthetic, typed: &args::Images) -> Option<Object> {
    let of = made.options.images.as_ref()?;
    let source = match &of.source {
        ImageSource::Noise => "noise".to_owned(),
        ImageSource::Directory(dir) => dir.display().to_string(),
    };
    let sampling = typed.image_source_sampling.map(|order| file_name(name_of(order)));
    Some(
        Object::default()
            .put("batch_size", of.batch)
            .put("width", lengths(&of.width, typed.image_width_stddev.is_some()))
            .put("height", lengths(&of.height, typed.image_height_stddev.is_some()))
            .put("format", name_of(of.format))
            .put_if(typed.image_source.is_some(), "source", source)
            .put_some("source_sampling", sampling),
    )
}

fn audio(made: &Synthetic) -> Option<Object> {
    let of = made.options.audio.as_ref()?;
    let khz: Vec<f64> = of.rates.iter().map(|hz| f64::from(*hz) / 1000.0).collect();
    Some(
        Object::default()
            .put("batch_size", of.batch)
            .put("length", spread(of.mean, (of.stddev > 0.0).then_some(of.stddev)))
            .put("format", name_of(of.format))
            .put("depths", of.depths.clone())
            .put("sample_rates", khz)
            .put("channels", of.channels),
    )
}

fn video(made: &Synthetic) -> Option<Object> {
    let of = made.options.video.as_ref()?;
    let sound = of.sound.as_ref().map(|sound| {
        Object::default()
            .put("sample_rate", sound.rate)
            .put("channels", sound.channels)
            .put_some("codec", sound.codec.clone())
            .put("depth", sound.depth)
    });
    Some(
        Object::default()
            .put("batch_size", of.batch)
            .put("duration", of.seconds)
            .put("fps", of.fps)
            .put("width", of.width)
            .put("height", of.height)
            .put("synth_type", file_name(name_of(of.pattern)))
            .put("format", name_of(of.container))
            .put("codec", of.codec.clone())
            .put_some("audio", sound),
    )
}

fn spread(mean: f64, stddev: Option<f64>) -> Object {
    Object::default().put("mean", mean).put_some("stddev", stddev)
}

/// A length as the reference's configuration file would have it.
pub(super) fn length(length: &Length) -> Object {
    lengths(&length.lengths, length.stddev_given)
}

fn lengths(lengths: &Lengths, stddev_given: bool) -> Object {
    let object = match &lengths.shape {
        Shape::Normal { mean, stddev } => spread(*mean, (stddev_given || *stddev > 0.0).then_some(*stddev)),
        Shape::LogNormal { mean, median } => Object::default().put("mean", *mean).put("median", *median),
        Shape::Uniform => return Object::default().put("min", lengths.min).put("max", lengths.max),
        Shape::Empirical(points) => {
            let point = |(value, weight): &(u32, f64)| json!({"value": value, "weight": weight});
            Object::default().put("points", points.iter().map(point).collect::<Vec<_>>())
        }
        Shape::Mixture(peaks) => {
            let peak =
                |p: &maser_datasets::lengths::Peak| json!({"mean": p.mean, "stddev": p.stddev, "weight": p.weight});
            Object::default().put("peaks", peaks.iter().map(peak).collect::<Vec<_>>())
        }
    };
    let most = if lengths.max == maser_datasets::media::images::MAX_SIDE { lengths.max } else { MAX_TOKENS };
    object.put_if(lengths.min > 1, "min", lengths.min).put_if(lengths.max < most, "max", lengths.max)
}

/// A name as the reference's files spell it.
fn file_name(choice: &str) -> String {
    choice.replace('-', "_")
}
