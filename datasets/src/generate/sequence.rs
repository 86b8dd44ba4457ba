//! How long the prompts and the answers of generated requests are, together.

use serde::Deserialize;
use serde_json::Value;

use crate::Error;
use crate::lengths::{Lengths, MAX_TOKENS, pick};
use crate::seed::Stream;

/// `--random-corpus-style`: whose rule `--random-range-ratio` follows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Style {
    /// A window around the length: from `length (1 - ratio)` to `length (1 + ratio)`.
    #[default]
    Vllm,
    /// A window below the length: from `length × ratio` to `length`.
    Sglang,
}

/// One pair of `--seq-dist`.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// Tokens of the prompt.
    pub isl: Lengths,
    /// Tokens to ask for.
    pub osl: Lengths,
    /// Per cent of the turns.
    pub percent: f64,
}

/// `--random-range-ratio` around `--isl` and `--osl`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// Tokens of the prompt, special tokens that a server adds included.
    pub isl: u32,
    /// Tokens to ask for.
    pub osl: u32,
    /// Half the width of the prompts' window as a share of `isl`, or its lower end.
    pub input: f64,
    /// The same for outputs.
    pub output: f64,
    /// Which of the two a ratio is.
    pub style: Style,
}

/// The lengths of a turn's texts and of its answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Sequence {
    /// Drawn independently: `--isl` and `--osl`. The former holds for what a server sees of a prompt by itself.
    Independent {
        /// Tokens of each text; none makes no text.
        isl: Option<Lengths>,
        /// Tokens to ask for; none leaves the field out of the request.
        osl: Option<Lengths>,
    },
    /// `--seq-dist`: one pair is drawn for each turn, and its prompt length is that of the bare text.
    Pairs(Vec<Pair>),
    /// `--random-range-ratio`.
    Range(Range),
}

/// The lengths of one turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Drawn {
    /// Tokens of each text of the turn.
    pub(crate) isl: Vec<u32>,
    pub(crate) osl: Option<u32>,
}

/// The streams that lengths come from.
pub(crate) struct Streams {
    prompts: Stream,
    outputs: Stream,
    pairs: Stream,
    ranges: Stream,
}

impl Streams {
    pub(crate) fn new(seed: u64) -> Self {
        let stream = |name| Stream::new(seed, name);
        Self {
            prompts: stream("dataset.prompt.length"),
            outputs: stream("composer.turn.max_tokens"),
            pairs: stream("models.sequence.distribution"),
            ranges: stream("models.range_ratio.distribution"),
        }
    }
}

impl Sequence {
    /// Checks the lengths, and the ratios with `prefix` tokens before each prompt and `special` ones around it.
    ///
    /// # Errors
    /// A sentence naming the flag.
    pub(crate) fn check(&self, prefix: u32, special: u32) -> Result<(), Error> {
        match self {
            Self::Independent { isl, osl } => {
                isl.as_ref().map_or(Ok(()), |isl| isl.check("--isl"))?;
                osl.as_ref().map_or(Ok(()), |osl| osl.check("--osl"))
            }
            Self::Pairs(pairs) => pairs.iter().try_for_each(|pair| {
                pair.isl.check("--seq-dist: a prompt length")?;
                pair.osl.check("--seq-dist: an output length")
            }),
            Self::Range(range) => {
                Lengths::fixed(range.isl).check("--isl")?;
                Lengths::fixed(range.osl).check("--osl")?;
                if u64::from(prefix) + u64::from(range.inputs(special).0) < 1 {
                    return Err(Error(
                        "--random-range-ratio: the shortest prompt has no token; lower the ratio or raise --isl".into(),
                    ));
                }
                Ok(())
            }
        }
    }

    /// The lengths of one turn with `batch` texts, around each of which a server puts `special` tokens.
    pub(crate) fn draw(&self, batch: u32, special: u32, streams: &mut Streams) -> Drawn {
        match self {
            Self::Independent { isl, osl } => {
                let texts = isl.iter().flat_map(|isl| std::iter::repeat_n(isl, batch as usize));
                let isl = texts.map(|isl| isl.draw(&mut streams.prompts).saturating_sub(special).max(1)).collect();
                Drawn { isl, osl: osl.as_ref().map(|osl| osl.draw(&mut streams.outputs)) }
            }
            Self::Pairs(pairs) => {
                let at = pick(&mut streams.pairs, pairs.iter().map(|pair| pair.percent));
                let Some(pair) = pairs.get(at) else { return Drawn { isl: vec![1; batch as usize], osl: None } };
                let isl = pair.isl.draw(&mut streams.pairs);
                Drawn { isl: vec![isl; batch as usize], osl: Some(pair.osl.draw(&mut streams.pairs)) }
            }
            Self::Range(range) => {
                let mut within = |(low, high): (u32, u32)| low + streams.ranges.below(u64::from(high - low) + 1) as u32;
                let isl = (0..batch).map(|_| within(range.inputs(special)).max(1)).collect();
                Drawn { isl, osl: Some(within(range.outputs())) }
            }
        }
    }
}

impl Range {
    /// The shortest and the longest text, `special` tokens around it left aside.
    fn inputs(&self, special: u32) -> (u32, u32) {
        match self.style {
            Style::Vllm => window(self.isl.saturating_sub(special), self.input, 0),
            Style::Sglang => {
                let low = ((f64::from(self.isl) * self.input) as u32).max(1);
                (low.saturating_sub(special).max(1), self.isl.saturating_sub(special).max(1))
            }
        }
    }

    fn outputs(&self) -> (u32, u32) {
        match self.style {
            Style::Vllm => window(self.osl, self.output, 1),
            Style::Sglang => (((f64::from(self.osl) * self.output) as u32).max(1), self.osl.max(1)),
        }
    }
}

fn window(around: u32, ratio: f64, least: u32) -> (u32, u32) {
    let around = f64::from(around);
    let low = ((around * (1.0 - ratio)).floor() as u32).max(least);
    (low, ((around * (1.0 + ratio)).ceil() as u32).clamp(low, MAX_TOKENS))
}

/// The value of `--random-range-ratio`: a number for both, or for the vllm style a JSON object
/// `{"input": a, "output": b}`.
///
/// # Errors
/// What is wrong, without the flag's name.
pub fn ratios(text: &str, style: Style) -> Result<(f64, f64), String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Both {
        input: f64,
        output: f64,
    }
    let text = text.trim();
    let (input, output) = if text.starts_with('{') {
        if style == Style::Sglang {
            return Err("the sglang style has one ratio for both lengths, expected a number".into());
        }
        let both: Both =
            serde_json::from_str(text).map_err(|e| format!("expected {{\"input\": a, \"output\": b}}: {e}"))?;
        (both.input, both.output)
    } else {
        let ratio = text.parse().map_err(|_| "expected a number, or {\"input\": a, \"output\": b}")?;
        (ratio, ratio)
    };
    for ratio in [input, output] {
        match style {
            Style::Vllm if !(0.0..1.0).contains(&ratio) => {
                return Err("expected at least 0 and less than 1 (--random-corpus-style vllm)".into());
            }
            Style::Sglang if !(0.0..=1.0).contains(&ratio) => {
                return Err("expected between 0 and 1 (--random-corpus-style sglang)".into());
            }
            _ => {}
        }
    }
    Ok((input, output))
}

/// The value of `--seq-dist`: `ISL|SD,OSL|SD:PERCENT;...`, `[(ISL|SD,OSL|SD):PERCENT,...]`, or JSON
/// `{"pairs": [{"isl": 256, "isl_stddev": 10, "osl": 128, "osl_stddev": 5, "prob": 60}, ...]}` or its list alone.
/// Standard deviations may be left out; the percentages must sum to 100.
///
/// # Errors
/// What is wrong, without the flag's name.
pub fn pairs(text: &str) -> Result<Vec<Pair>, String> {
    let text = text.trim();
    let pairs = match text.as_bytes() {
        [] => return Err("expected pairs such as 256|10,128|5:60;512,256:40".into()),
        [b'{', ..] => json_pairs(text)?,
        [b'[', rest @ ..] if rest.trim_ascii_start().starts_with(b"{") => json_pairs(text)?,
        [b'[', ..] => bracketed(text)?,
        _ => text.split(';').filter(|part| !part.trim().is_empty()).map(pair).collect::<Result<_, _>>()?,
    };
    let sum: f64 = pairs.iter().map(|pair| pair.percent).sum();
    if pairs.is_empty() {
        return Err("expected at least one pair".into());
    }
    // The reference's tolerance, absolute and relative.
    if (sum - 100.0).abs() > 1e-6 + 1e-6 * 100.0 {
        return Err(format!("the percentages sum to {sum}, expected 100"));
    }
    Ok(pairs)
}

/// `[(ISL,OSL):P,...]`: the same pairs with other signs around them.
fn bracketed(text: &str) -> Result<Vec<Pair>, String> {
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).ok_or("the closing ] is missing")?;
    let mut pairs = Vec::new();
    let mut rest = inner.trim();
    while !rest.is_empty() {
        let open = rest.strip_prefix('(').ok_or_else(|| format!("expected ( before {rest:?}"))?;
        let (lengths, after) = open.split_once(')').ok_or("the closing ) is missing")?;
        let after =
            after.trim_start().strip_prefix(':').ok_or_else(|| format!("expected :PERCENT after ({lengths})"))?;
        let (percent, next) = after.split_once(',').unwrap_or((after, ""));
        pairs.push(pair(&format!("{lengths}:{percent}"))?);
        rest = next.trim();
    }
    Ok(pairs)
}

fn pair(text: &str) -> Result<Pair, String> {
    let text = text.trim();
    let wrong = || format!("expected ISL|SD,OSL|SD:PERCENT, not {text:?}");
    let (lengths, percent) = text.rsplit_once(':').ok_or_else(wrong)?;
    let (isl, osl) = lengths.split_once(',').ok_or_else(wrong)?;
    let percent = percent.trim().parse().map_err(|_| wrong())?;
    Ok(Pair { isl: length(isl, text)?, osl: length(osl, text)?, percent: percentage(percent, text)? })
}

fn length(text: &str, within: &str) -> Result<Lengths, String> {
    let (mean, stddev) = text.split_once('|').map_or((text, None), |(mean, stddev)| (mean, Some(stddev)));
    let mean = mean.trim().parse().ok().filter(|n| (1..=MAX_TOKENS).contains(n));
    let mean = mean.ok_or_else(|| format!("{text:?} in {within:?} is no length in tokens"))?;
    let stddev = stddev.map_or(Ok(0.0), |stddev| stddev.trim().parse());
    spread(mean, stddev.unwrap_or(f64::NAN), within)
}

fn spread(mean: u32, stddev: f64, within: &str) -> Result<Lengths, String> {
    if !(0.0..=f64::from(MAX_TOKENS)).contains(&stddev) {
        return Err(format!("a standard deviation in {within:?} is not a number of at least 0"));
    }
    Ok(Lengths::normal(f64::from(mean), stddev))
}

fn percentage(percent: f64, within: &str) -> Result<f64, String> {
    match (0.0..=100.0).contains(&percent) {
        true => Ok(percent),
        false => Err(format!("the percentage in {within:?} is not between 0 and 100")),
    }
}

fn json_pairs(text: &str) -> Result<Vec<Pair>, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Row {
        isl: u32,
        #[serde(default)]
        isl_stddev: f64,
        osl: u32,
        #[serde(default)]
        osl_stddev: f64,
        prob: f64,
    }
    let value: Value = serde_json::from_str(text).map_err(|e| format!("not JSON: {e}"))?;
    let list = value.get("pairs").cloned().unwrap_or(value);
    let rows: Vec<Row> = serde_json::from_value(list)
        .map_err(|e| format!("expected {{\"pairs\": [{{\"isl\", \"osl\", \"prob\"}}, ...]}}: {e}"))?;
    let pair = |row: Row| {
        let within = format!("isl {}, osl {}", row.isl, row.osl);
        if row.isl == 0 || row.osl == 0 {
            return Err(format!("a length in {within:?} is 0, expected at least 1 token"));
        }
        Ok(Pair {
            isl: spread(row.isl, row.isl_stddev, &within)?,
            osl: spread(row.osl, row.osl_stddev, &within)?,
            percent: percentage(row.prob, &within)?,
        })
    };
    rows.into_iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_grammars_mean_the_same_pairs() {
        let want = pairs("256|10,128|5:60;512,256:40").unwrap();
        assert_eq!(want[0].isl, Lengths::normal(256.0, 10.0));
        assert_eq!((want[1].osl.clone(), want[1].percent), (Lengths::fixed(256), 40.0));
        for text in [
            " 256|10 , 128|5 : 60 ; 512,256:40 ;",
            "[(256|10,128|5):60,(512,256):40]",
            "[ (256|10, 128|5) : 60 , (512,256):40 ]",
            r#"{"pairs":[{"isl":256,"isl_stddev":10,"osl":128,"osl_stddev":5,"prob":60},{"isl":512,"osl":256,"prob":40}]}"#,
            r#"[{"isl":256,"isl_stddev":10,"osl":128,"osl_stddev":5,"prob":60},{"isl":512,"osl":256,"prob":40}]"#,
        ] {
            assert_eq!(pairs(text).as_ref(), Ok(&want), "{text}");
        }
    }

    #[test]
    fn wrong_pairs_are_said() {
        for (text, said) in [
            ("", "expected pairs such as"),
            (";", "expected at least one pair"),
            ("[]", "expected at least one pair"),
            ("256,128:99.9", "the percentages sum to 99.9, expected 100"),
            ("256,128", "expected ISL|SD,OSL|SD:PERCENT"),
            ("256:100", "expected ISL|SD,OSL|SD:PERCENT"),
            ("0,128:100", "\"0\" in"),
            ("256|-1,128:100", "a standard deviation in"),
            ("256|x,128:100", "a standard deviation in"),
            ("256,128:101", "the percentage in"),
            ("256,128:-1;256,128:101", "the percentage in"),
            ("[(256,128):100", "the closing ] is missing"),
            ("[256,128:100]", "expected ( before"),
            ("[(256,128)100]", "expected :PERCENT after"),
            ("{", "not JSON"),
            (r#"{"pairs":[{"isl":1,"osl":0,"prob":100}]}"#, "a length in"),
            (r#"{"pairs":[{"isl":1,"prob":100}]}"#, "expected {\"pairs\""),
        ] {
            let why = pairs(text).unwrap_err();
            assert!(why.starts_with(said), "{text}: {why}");
        }
    }

    #[test]
    fn pairs_are_drawn_together_by_their_shares() {
        let sequence = Sequence::Pairs(pairs("100,10:75;200,20:25").unwrap());
        let mut streams = Streams::new(5);
        let n = 20_000;
        let drawn: Vec<Drawn> = (0..n).map(|_| sequence.draw(1, 7, &mut streams)).collect();
        assert!(drawn.iter().all(|d| d.osl == Some(d.isl[0] / 10)));
        let first = drawn.iter().filter(|d| d.isl[0] == 100).count();
        assert!((first as f64 / f64::from(n) - 0.75).abs() < 0.015, "{first}");
    }

    #[test]
    fn ranges_are_the_windows_of_their_style() {
        let range = |style, ratio| Range { isl: 101, osl: 50, input: ratio, output: ratio, style };
        for (range, special, inputs, outputs) in [
            (range(Style::Vllm, 0.25), 1, (75, 125), (37, 63)),
            (range(Style::Vllm, 0.0), 0, (101, 101), (50, 50)),
            (range(Style::Sglang, 0.25), 1, (24, 100), (12, 50)),
            (range(Style::Sglang, 0.0), 2, (1, 99), (1, 50)),
        ] {
            assert_eq!((range.inputs(special), range.outputs()), (inputs, outputs), "{range:?}");
            let mut streams = Streams::new(5);
            let drawn: Vec<u32> =
                (0..20_000).map(|_| Sequence::Range(range).draw(1, special, &mut streams).isl[0]).collect();
            assert_eq!((drawn.iter().min(), drawn.iter().max()), (Some(&inputs.0), Some(&inputs.1)), "{range:?}");
        }
    }

    #[test]
    fn ratios_have_bounds_by_style() {
        assert_eq!(ratios("0.5", Style::Vllm), Ok((0.5, 0.5)));
        assert_eq!(ratios(r#"{"input": 0.1, "output": 0.2}"#, Style::Vllm), Ok((0.1, 0.2)));
        assert_eq!(ratios("1", Style::Sglang), Ok((1.0, 1.0)));
        for (text, style) in [
            ("1", Style::Vllm),
            ("-0.1", Style::Vllm),
            ("nan", Style::Vllm),
            ("1.1", Style::Sglang),
            (r#"{"input": 0.1, "output": 0.2}"#, Style::Sglang),
            (r#"{"input": 0.1}"#, Style::Vllm),
            ("x", Style::Vllm),
        ] {
            assert!(ratios(text, style).is_err(), "{text}");
        }
    }
}
