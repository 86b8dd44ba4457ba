//! Generated data as resolved: which options go together, and what they come to.

use super::{Endpoint, media};
use crate::args;
use crate::refusal::Refusal;
use crate::values::{CacheBust, EndpointKind, Lengths, name_of};
use maser_datasets::lengths::Shape;
use maser_datasets::rankings;
use maser_datasets::sequence::{Range, Sequence, pairs, ratios};
use maser_datasets::synthetic::{self, Delay, Prefix};

/// Generated data.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Synthetic {
    /// What to generate; the seed is the run's, once known.
    pub(crate) options: synthetic::Options,
    /// Whether an option said how many conversations.
    pub(crate) entries_given: bool,
    /// The lengths of `--isl` and `--osl`, for the files.
    pub(crate) isl: Length,
    /// The same of answers.
    pub(crate) osl: Option<Length>,
    /// What was typed, for the files.
    pub(crate) typed: Box<(args::Prompts, args::Media)>,
}

/// A length in tokens, as typed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Length {
    /// The distribution.
    pub(crate) lengths: Lengths,
    /// Whether a standard deviation was given; the reference's files leave it out otherwise.
    pub(crate) stddev_given: bool,
}

impl Length {
    /// The distribution of a flag, and of its `-stddev`.
    fn of(flag: &str, lengths: Lengths, stddev: Option<f64>) -> Result<Self, Refusal> {
        let Some(stddev) = stddev else { return Ok(Self { lengths, stddev_given: false }) };
        match lengths.shape {
            Shape::Normal { mean, stddev: own } if own == 0.0 && lengths == Lengths::normal(mean, 0.0) => {
                Ok(Self { lengths: Lengths::normal(mean, stddev), stddev_given: true })
            }
            _ => {
                Err(Refusal::new(format!("{flag}-stddev goes with a number for {flag}, which is a distribution here")))
            }
        }
    }

    /// Whether nothing is to be made.
    fn is_zero(&self) -> bool {
        self.lengths == Lengths::fixed(0) || matches!(self.lengths.shape, Shape::Normal { mean: 0.0, .. })
    }
}

/// `--osl` and its `-stddev`; a length of 0 leaves it to the server.
pub(super) fn osl(typed: &args::Prompts, notes: &mut Vec<String>) -> Result<Option<Length>, Refusal> {
    let Some(osl) = &typed.osl else {
        return match typed.osl_stddev {
            Some(_) => Err(Refusal::new("--osl-stddev needs a mean to spread around; add --osl")),
            None => Ok(None),
        };
    };
    let osl = Length::of("--osl", osl.clone(), typed.osl_stddev)?;
    if osl.is_zero() {
        notes.push("--osl 0 leaves the length of the answers to the server".into());
        return Ok(None);
    }
    checked(&osl.lengths, "--osl")?;
    Ok(Some(osl))
}

fn checked(lengths: &Lengths, flag: &str) -> Result<(), Refusal> {
    lengths.check(flag).map_err(|e| Refusal::new(e.0))
}

/// Prompts that are generated at most: with the usual lengths they fill some 250 GB.
const MOST_ENTRIES: u64 = 100_000_000;

impl Synthetic {
    /// Resolves what the options say of generated data.
    pub(super) fn resolve(args: &args::Profile, endpoint: &Endpoint, notes: &mut Vec<String>) -> Result<Self, Refusal> {
        let typed = &args.prompts;
        needs_others(args)?;
        let isl = typed.isl.clone().unwrap_or(Lengths::fixed(synthetic::DEFAULT_ISL));
        let isl = Length::of("--isl", isl, typed.isl_stddev)?;
        let osl = osl(typed, notes)?;
        let media = media::resolve(&args.media, endpoint.kind)?;
        let given = [
            ("--num-dataset-entries", typed.entries),
            ("--num-conversations", args.load.num_conversations),
            ("--request-count", args.load.request_count),
        ];
        if let Some((flag, n)) =
            given.into_iter().find_map(|(flag, n)| Some((flag, n?))).filter(|(_, n)| *n > MOST_ENTRIES)
        {
            return Err(Refusal::new(format!(
                "{flag} {n}: at most {MOST_ENTRIES} prompts are generated; --num-dataset-entries sets how many, which are \
                 then sent in turn"
            )));
        }
        let entries = typed.entries.or(args.load.num_conversations).or(args.load.request_count);
        if typed.batch == Some(0) {
            return Err(Refusal::new("--batch-size-text 0: only with random_pool may a request go without texts"));
        }
        let rankings = rankings_of(typed, endpoint, notes)?;
        let options = synthetic::Options {
            entries: entries.unwrap_or(synthetic::DEFAULT_ENTRIES),
            turns: Lengths::normal(f64::from(typed.turns.unwrap_or(1)), typed.turns_stddev.unwrap_or(0.0)),
            delay: delay(typed, notes)?,
            sequence: sequence(typed, endpoint, &isl, osl.as_ref(), media.any(), notes)?,
            batch: typed.batch.unwrap_or(1),
            source: typed.corpus.unwrap_or_default(),
            prefix: prefix(typed)?,
            room: synthetic::Room::default(),
            rankings,
            images: media.images,
            audio: media.audio,
            video: media.video,
            seed: 0,
        };
        fits(&options, typed, endpoint)?;
        Ok(Self {
            options,
            entries_given: entries.is_some(),
            isl,
            osl,
            typed: Box::new((typed.clone(), args.media.clone())),
        })
    }
}

/// Options that mean nothing without a file.
fn needs_others(args: &args::Profile) -> Result<(), Refusal> {
    let typed = &args.prompts;
    for (flag, given) in [
        ("--custom-dataset-type", args.input.format.is_some()),
        ("--fixed-schedule", args.schedule.fixed_schedule),
        ("--synthesis-max-isl", typed.max_isl.is_some()),
        ("--synthesis-max-osl", typed.max_osl.is_some()),
    ] {
        if given {
            return Err(Refusal::new(format!("{flag} goes with a file; add --input-file")));
        }
    }
    Ok(())
}

/// Refuses, by name, the options of generated data beside a file.
pub(super) fn refuse_beside_a_file(args: &args::Profile) -> Result<(), Refusal> {
    let typed = &args.prompts;
    let flags = [
        ("--isl", typed.isl.is_some()),
        ("--isl-stddev", typed.isl_stddev.is_some()),
        ("--seq-dist", typed.seq_dist.is_some()),
        ("--random-range-ratio", typed.range_ratio.is_some()),
        ("--random-corpus-style", typed.range_style.is_some()),
        ("--num-prefix-prompts", typed.prefixes.is_some()),
        ("--prefix-prompt-length", typed.prefix_length.is_some()),
        ("--shared-system-prompt-length", typed.shared_system.is_some()),
        ("--user-context-prompt-length", typed.user_context.is_some()),
        ("--conversation-turn-mean", typed.turns.is_some()),
        ("--conversation-turn-stddev", typed.turns_stddev.is_some()),
        ("--conversation-turn-delay-mean", typed.delay.is_some()),
        ("--conversation-turn-delay-stddev", typed.delay_stddev.is_some()),
        ("--conversation-turn-delay-ratio", typed.delay_ratio.is_some()),
    ];
    let all = flags.into_iter().chain(rankings_given(typed)).chain(media::given_beside_a_file(&args.media));
    match all.into_iter().find(|(_, given)| *given) {
        Some((flag, _)) => {
            Err(Refusal::new(format!("{flag} is for generated prompts; remove it, or remove --input-file")))
        }
        None => Ok(()),
    }
}

fn rankings_given(typed: &args::Prompts) -> [(&'static str, bool); 6] {
    [
        ("--rankings-passages-mean", typed.passages.is_some()),
        ("--rankings-passages-stddev", typed.passages_stddev.is_some()),
        ("--rankings-passages-prompt-token-mean", typed.passage_tokens.is_some()),
        ("--rankings-passages-prompt-token-stddev", typed.passage_tokens_stddev.is_some()),
        ("--rankings-query-prompt-token-mean", typed.query_tokens.is_some()),
        ("--rankings-query-prompt-token-stddev", typed.query_tokens_stddev.is_some()),
    ]
}

/// Lengths of a ranking request, for endpoints that rank.
fn rankings_of(
    typed: &args::Prompts,
    endpoint: &Endpoint,
    notes: &mut Vec<String>,
) -> Result<Option<rankings::Options>, Refusal> {
    if !endpoint.kind.name().contains("rankings") {
        return match rankings_given(typed).into_iter().find(|(_, given)| *given) {
            Some((flag, _)) => Err(Refusal::new(format!(
                "{flag} goes with a ranking endpoint such as --endpoint-type nim-rankings, not with {}",
                endpoint.kind.name()
            ))),
            None => Ok(None),
        };
    }
    for (flag, given) in [
        ("--isl", typed.isl.is_some()),
        ("--isl-stddev", typed.isl_stddev.is_some()),
        ("--seq-dist", typed.seq_dist.is_some()),
        ("--random-range-ratio", typed.range_ratio.is_some()),
        ("--batch-size-text", typed.batch.is_some()),
    ] {
        if given {
            notes.push(format!("{flag} has no effect: a ranking's lengths are those of the --rankings options"));
        }
    }
    let with = |flag: &str, mean: Option<u32>, stddev: Option<f64>, default: u32| match (mean, stddev) {
        (None, Some(_)) => Err(Refusal::new(format!("{flag}-stddev needs a mean to spread around; add {flag}-mean"))),
        (mean, stddev) => Ok(Lengths::normal(f64::from(mean.unwrap_or(default)), stddev.unwrap_or(0.0))),
    };
    Ok(Some(rankings::Options {
        passages: with("--rankings-passages", typed.passages, typed.passages_stddev, rankings::DEFAULT_PASSAGES)?,
        passage_tokens: with(
            "--rankings-passages-prompt-token",
            typed.passage_tokens,
            typed.passage_tokens_stddev,
            rankings::DEFAULT_PASSAGE_TOKENS,
        )?,
        query_tokens: with(
            "--rankings-query-prompt-token",
            typed.query_tokens,
            typed.query_tokens_stddev,
            rankings::DEFAULT_QUERY_TOKENS,
        )?,
    }))
}

fn delay(typed: &args::Prompts, notes: &mut Vec<String>) -> Result<Delay, Refusal> {
    if typed.delay.is_none() {
        if typed.delay_stddev.is_some() {
            return Err(Refusal::new(
                "--conversation-turn-delay-stddev needs a mean to spread around; add --conversation-turn-delay-mean",
            ));
        }
        if typed.delay_ratio.is_some() {
            notes.push("--conversation-turn-delay-ratio has no effect without --conversation-turn-delay-mean".into());
        }
    } else if typed.turns.unwrap_or(1) == 1 && typed.turns_stddev.unwrap_or(0.0) == 0.0 {
        notes.push("--conversation-turn-delay-mean has no effect: every conversation has one turn".into());
    }
    Ok(Delay {
        mean_ms: typed.delay.unwrap_or(0.0),
        stddev_ms: typed.delay_stddev.unwrap_or(0.0),
        ratio: typed.delay_ratio.unwrap_or(1.0),
    })
}

fn sequence(
    typed: &args::Prompts,
    endpoint: &Endpoint,
    isl: &Length,
    osl: Option<&Length>,
    media: bool,
    notes: &mut Vec<String>,
) -> Result<Sequence, Refusal> {
    let kind = endpoint.kind;
    let textless = !kind.tokenizes_input() && !kind.produces_tokens();
    let asked = [
        ("--isl", typed.isl.is_some()),
        ("--isl-stddev", typed.isl_stddev.is_some()),
        ("--isl-block-size", typed.block_size.is_some()),
        ("--batch-size-text", typed.batch.is_some()),
        ("--seq-dist", typed.seq_dist.is_some()),
        ("--random-range-ratio", typed.range_ratio.is_some()),
        ("--num-prefix-prompts", typed.prefixes.is_some()),
        ("--prefix-prompt-length", typed.prefix_length.is_some()),
    ];
    if let Some((flag, _)) = asked.into_iter().find(|(_, given)| *given && textless) {
        return Err(Refusal::new(format!("{flag}: {} takes no text", kind.name())));
    }
    match (&typed.seq_dist, &typed.range_ratio) {
        (Some(_), Some(_)) => Err(Refusal::new("--seq-dist and --random-range-ratio both set the lengths; give one")),
        (Some(text), None) => {
            for (flag, given) in &asked[..2] {
                if *given {
                    notes.push(format!("{flag} has no effect with --seq-dist"));
                }
            }
            if typed.osl.is_some() {
                notes.push("--osl has no effect with --seq-dist".into());
            }
            let pairs = pairs(text).map_err(|why| Refusal::new(format!("--seq-dist {text}: {why}")))?;
            Ok(Sequence::Pairs(pairs))
        }
        (None, Some(text)) => range(typed, text),
        (None, None) if typed.range_style.is_some() => {
            Err(Refusal::new("--random-corpus-style says how --random-range-ratio is meant; add that option"))
        }
        (None, None) => {
            if isl.is_zero() && !media {
                return Err(Refusal::new("--isl 0 leaves nothing to send; expected at least 1 token"));
            }
            if !isl.is_zero() {
                checked(&isl.lengths, "--isl")?;
            }
            let texts = !textless && !isl.is_zero();
            Ok(Sequence::Independent {
                isl: texts.then(|| isl.lengths.clone()),
                osl: osl.map(|osl| osl.lengths.clone()),
            })
        }
    }
}

fn range(typed: &args::Prompts, text: &str) -> Result<Sequence, Refusal> {
    let wrong = |why: String| Refusal::new(format!("--random-range-ratio {text}: {why}"));
    let style = typed.range_style.unwrap_or_default();
    let (input, output) = ratios(text, style).map_err(wrong)?;
    let whole = |lengths: &Option<Lengths>| {
        let lengths = lengths.as_ref()?;
        let plain = lengths.is_fixed() && lengths.mean() >= 1.0 && matches!(lengths.shape, Shape::Normal { .. });
        plain.then(|| lengths.mean() as u32)
    };
    let (Some(isl), Some(osl)) = (whole(&typed.isl), whole(&typed.osl)) else {
        return Err(wrong("it needs --isl and --osl, both whole numbers of at least 1".into()));
    };
    for (flag, given) in [("--isl-stddev", typed.isl_stddev.is_some()), ("--osl-stddev", typed.osl_stddev.is_some())] {
        if given {
            return Err(Refusal::new(format!("{flag} and --random-range-ratio both spread the lengths; give one")));
        }
    }
    Ok(Sequence::Range(Range { isl, osl, input, output, style }))
}

fn prefix(typed: &args::Prompts) -> Result<Prefix, Refusal> {
    let pool = match (typed.prefixes, typed.prefix_length) {
        (Some(count), Some(length)) => Some(Prefix::Pool { count, length }),
        (None, None) => None,
        (Some(_), None) => {
            return Err(Refusal::new("--num-prefix-prompts needs their length; add --prefix-prompt-length"));
        }
        (None, Some(_)) => {
            return Err(Refusal::new("--prefix-prompt-length needs their number; add --num-prefix-prompts"));
        }
    };
    let messages = [
        ("--shared-system-prompt-length", typed.shared_system.is_some()),
        ("--user-context-prompt-length", typed.user_context.is_some()),
        ("--system-prompt", typed.system_prompt.is_some()),
        ("--system-prompt-file", typed.system_prompt_file.is_some()),
    ];
    if let (Some(_), Some((flag, _))) = (&pool, messages.iter().find(|(_, given)| *given)) {
        return Err(Refusal::new(format!("{flag} and --num-prefix-prompts exclude each other")));
    }
    if typed.shared_system.is_some()
        && let Some((flag, _)) = messages[2..].iter().find(|(_, given)| *given)
    {
        return Err(Refusal::new(format!(
            "{flag} and --shared-system-prompt-length both are the system prompt; give one"
        )));
    }
    Ok(match (pool, typed.shared_system, typed.user_context) {
        (Some(pool), ..) => pool,
        (None, None, None) => Prefix::None,
        (None, system, context) => Prefix::Messages { system, context },
    })
}

/// Whether the endpoint can carry such conversations.
fn fits(options: &synthetic::Options, typed: &args::Prompts, endpoint: &Endpoint) -> Result<(), Refusal> {
    let kind = endpoint.kind;
    if kind.holds_conversations() {
        return Ok(());
    }
    let several = !options.turns.is_fixed() || options.turns.mean() > 1.0;
    for (flag, given) in [
        ("--conversation-turn-mean", several),
        ("--shared-system-prompt-length", typed.shared_system.is_some()),
        ("--user-context-prompt-length", typed.user_context.is_some()),
    ] {
        if given {
            return Err(Refusal::new(format!("{flag}: {} takes single texts, not conversations", kind.name())));
        }
    }
    Ok(())
}

/// Where the marker goes. Only what holds conversations has a place for it.
pub(super) fn cache_bust(args: &args::Profile, kind: EndpointKind) -> Result<CacheBust, Refusal> {
    let place = args.prompts.cache_bust.unwrap_or_default();
    let fits = matches!(kind, EndpointKind::Chat | EndpointKind::Responses | EndpointKind::Messages);
    match place == CacheBust::None || fits {
        true => Ok(place),
        false => Err(Refusal::new(format!(
            "--cache-bust {}: it is for chat, responses and messages; {} has no place for a marker",
            name_of(place),
            kind.name()
        ))),
    }
}

/// The text of `--system-prompt` or of its file.
pub(super) fn system_prompt(args: &args::Profile, endpoint: &Endpoint) -> Result<Option<String>, Refusal> {
    let typed = &args.prompts;
    let (flag, text) = match (&typed.system_prompt, &typed.system_prompt_file) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => {
            return Err(Refusal::new("--system-prompt and --system-prompt-file both are the system prompt; give one"));
        }
        (Some(text), None) => ("--system-prompt", text.clone()),
        (None, Some(path)) => {
            let text = std::fs::read_to_string(path)
                .map_err(|e| Refusal::new(format!("--system-prompt-file {}: {e}", path.display())))?;
            ("--system-prompt-file", text)
        }
    };
    if text.trim().is_empty() {
        return Err(Refusal::new(format!("{flag}: the text is empty")));
    }
    if !["chat", "responses", "messages", "chat-embeddings"].contains(&endpoint.kind.name().replace('_', "-").as_str())
    {
        return Err(Refusal::new(format!("{flag}: {} has no system prompt", endpoint.kind.name())));
    }
    Ok(Some(text))
}
