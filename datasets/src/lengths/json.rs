//! The grammar of a length on the command line.

use serde::Deserialize;
use serde_json::Value;

use super::{Lengths, MAX_TOKENS, Peak, Shape};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Object {
    #[serde(rename = "type")]
    shape: Option<String>,
    mean: Option<f64>,
    stddev: Option<f64>,
    median: Option<f64>,
    peaks: Option<Vec<PeakObject>>,
    points: Option<Vec<PointObject>>,
    min: Option<u32>,
    max: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PeakObject {
    mean: f64,
    #[serde(default)]
    stddev: f64,
    #[serde(default = "one")]
    weight: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PointObject {
    value: u32,
    #[serde(default = "one")]
    weight: f64,
}

fn one() -> f64 {
    1.0
}

/// A whole number or an object, see [`Lengths::parse`].
pub(super) fn parse(text: &str) -> Result<Lengths, String> {
    let text = text.trim();
    if !text.starts_with('{') {
        let n: u32 = text.parse().map_err(
            |_| "expected a whole number of tokens, or a JSON object such as {\"mean\": 512, \"stddev\": 50}",
        )?;
        return Ok(Lengths::fixed(n));
    }
    let value: Value = serde_json::from_str(text).map_err(|e| format!("not a JSON object: {e}"))?;
    let object = Object::deserialize(value).map_err(|e| format!("not a distribution of lengths: {e}"))?;
    let shape = shape(&object)?;
    if let Some(named) = &object.shape
        && named.to_ascii_lowercase().replace(['_', '-'], "") != name(&shape)
    {
        return Err(format!("`type` says {named}, the other fields make it {}", name(&shape)));
    }
    Ok(Lengths { shape, min: object.min.unwrap_or(1), max: object.max.unwrap_or(MAX_TOKENS) })
}

fn name(shape: &Shape) -> &'static str {
    match shape {
        Shape::Normal { .. } => "normal",
        Shape::LogNormal { .. } => "lognormal",
        Shape::Uniform => "uniform",
        Shape::Empirical(_) => "empirical",
        Shape::Mixture(_) => "mixture",
    }
}

fn shape(object: &Object) -> Result<Shape, String> {
    let alone = || match (object.mean, object.stddev, object.median) {
        (None, None, None) => Ok(()),
        _ => Err("`peaks` and `points` stand without `mean`, `stddev` and `median`".to_owned()),
    };
    match (&object.peaks, &object.points, object.mean, object.median) {
        (Some(_), Some(_), ..) => Err("`peaks` and `points` exclude each other".into()),
        (Some(peaks), None, ..) => {
            alone()?;
            let peak = |p: &PeakObject| Peak { mean: p.mean, stddev: p.stddev, weight: p.weight };
            Ok(Shape::Mixture(peaks.iter().map(peak).collect()))
        }
        (None, Some(points), ..) => {
            alone()?;
            Ok(Shape::Empirical(points.iter().map(|p| (p.value, p.weight)).collect()))
        }
        (None, None, Some(mean), Some(median)) if object.stddev.is_none() => Ok(Shape::LogNormal { mean, median }),
        (None, None, Some(_), Some(_)) => Err("`stddev` and `median` exclude each other".into()),
        (None, None, None, Some(_)) => Err("`median` needs a `mean`".into()),
        (None, None, Some(mean), None) => Ok(Shape::Normal { mean, stddev: object.stddev.unwrap_or(0.0) }),
        (None, None, None, None) if object.stddev.is_some() => Err("`stddev` needs a `mean`".into()),
        (None, None, None, None) if object.min.is_some() && object.max.is_some() => Ok(Shape::Uniform),
        (None, None, None, None) => Err("expected `mean`, `peaks`, `points`, or `min` and `max`".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_told_by_their_fields() {
        for (text, want) in [
            ("512", Lengths::fixed(512)),
            (" 0", Lengths::fixed(0)),
            (r#"{"mean": 5}"#, Lengths::fixed(5)),
            (r#"{"type": "normal", "mean": 5, "stddev": 1.5}"#, Lengths::normal(5.0, 1.5)),
            (r#"{"min": 2, "max": 9, "type": "Uniform"}"#, Lengths::uniform(2, 9)),
            (
                r#"{"mean": 9, "median": 4, "max": 50}"#,
                Lengths { shape: Shape::LogNormal { mean: 9.0, median: 4.0 }, min: 1, max: 50 },
            ),
        ] {
            assert_eq!(parse(text), Ok(want), "{text}");
        }
    }

    #[test]
    fn what_is_no_distribution_is_said() {
        for (text, said) in [
            ("12.5", "expected a whole number"),
            ("-1", "expected a whole number"),
            ("", "expected a whole number"),
            ("{", "not a JSON object"),
            (r#"{"men": 5}"#, "not a distribution of lengths: unknown field `men`"),
            (r#"{"mean": 5, "median": 4, "stddev": 1}"#, "`stddev` and `median`"),
            (r#"{"median": 5}"#, "`median` needs a `mean`"),
            (r#"{"stddev": 5}"#, "`stddev` needs a `mean`"),
            (r#"{"min": 5}"#, "expected `mean`"),
            (r#"{"peaks": [], "points": []}"#, "`peaks` and `points` exclude"),
            (r#"{"peaks": [], "mean": 1}"#, "`peaks` and `points` stand without"),
            (r#"{"type": "uniform", "mean": 1}"#, "`type` says uniform"),
        ] {
            let why = parse(text).unwrap_err();
            assert!(why.starts_with(said), "{text}: {why}");
        }
    }
}
