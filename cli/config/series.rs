//! `--request-rate-series`: a rate that changes, from a file.

use crate::refusal::Refusal;
use maser_engine::schedule::RateCurve;
use serde::Deserialize;
use std::path::Path;

/// Points of a rate over time, checked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RateSeries {
    /// Seconds from the start of the series, and requests per second there; at least two, in order.
    pub(crate) points: Vec<(f64, f64)>,
    /// The same as a curve.
    pub(crate) curve: RateCurve,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Point {
    time_s: f64,
    qps: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Points {
    points: Vec<Point>,
}

impl RateSeries {
    /// Reads `[{"time_s":…,"qps":…},…]`, or the same as the field `points` of an object.
    pub(super) fn open(path: &Path) -> Result<Self, Refusal> {
        let wrong = |why: String| Refusal::new(format!("--request-rate-series {}: {why}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|e| wrong(format!("cannot be read: {e}")))?;
        Self::parse(&text).map_err(wrong)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let points = if text.trim_start().starts_with('[') {
            serde_json::from_str::<Vec<Point>>(text)
        } else {
            serde_json::from_str::<Points>(text).map(|object| object.points)
        };
        let points = points.map_err(|e| {
            format!("expected [{{\"time_s\":0,\"qps\":5}},…] or the same as \"points\" of an object, but {e}")
        })?;
        let points: Vec<(f64, f64)> = points.iter().map(|p| (p.time_s, p.qps)).collect();
        if points.len() < 2 {
            return Err("expected at least two points".into());
        }
        let curve = RateCurve::series(&points)?;
        Ok(Self { points, curve })
    }

    /// The rate at the first point: where a ramp before the series leads to.
    pub(crate) fn first(&self) -> f64 {
        self.points.first().map_or(0.0, |p| p.1)
    }

    /// The highest rate.
    pub(crate) fn peak(&self) -> f64 {
        self.points.iter().map(|p| p.1).fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_a_list_or_an_object_with_one() {
        let list = r#"[{"time_s":0,"qps":10},{"time_s":10,"qps":20.5}]"#;
        let series = RateSeries::parse(list).unwrap();
        assert_eq!(series.points, [(0.0, 10.0), (10.0, 20.5)]);
        assert_eq!((series.first(), series.peak()), (10.0, 20.5));
        assert_eq!(RateSeries::parse(&format!(" {{\"points\":{list}}}")), Ok(series));
    }

    #[test]
    fn a_wrong_series_is_said_to_be() {
        for (text, said) in [
            (r#"[{"time_s":0,"qps":1}]"#, "expected at least two points"),
            (r#"[{"time_s":5,"qps":1},{"time_s":5,"qps":2}]"#, "point 2: time_s 5 is not after the 5 before it"),
            (r#"[{"time_s":0,"qps":1},{"time_s":1,"qps":0}]"#, "point 2: qps 0 is not above 0"),
            (r#"[{"time_s":0,"qps":1,"x":1}]"#, "expected [{\"time_s\":0,\"qps\":5},…]"),
            (r#"{"points":[],"more":1}"#, "expected [{"),
            ("x", "expected [{"),
        ] {
            let why = RateSeries::parse(text).unwrap_err();
            assert!(why.starts_with(said) && !why.contains('\n'), "{text}: {why}");
        }
        let why = RateSeries::open(Path::new("/no/such")).unwrap_err().to_string();
        assert!(why.starts_with("--request-rate-series /no/such: cannot be read"), "{why}");
    }
}
