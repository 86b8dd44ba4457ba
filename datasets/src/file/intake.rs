//! From rows to sessions: which rows are taken, how filters and fallbacks change them, and which belong together.

use std::collections::{HashMap, VecDeque};
use std::path::Path;

use crate::file::options::Options;
use crate::file::synthesis::{Shared, Synthesizer};
use crate::formats::Format;
use crate::formats::draft::{Draft, Prompt, Step};
use crate::read::jsonl;
use crate::seed::Stream;
use crate::{Error, Summary, Turn};

/// Reasons in [`Summary::rows_skipped`] and [`Summary::rows_adjusted`].
const NO_PAIR: &str = "without a message of the human and one of the model after it";
const OTHER_CATEGORY: &str = "of another category";
const NO_PROMPT: &str = "without a prompt, with a clip of more than 30 s, or left out by --dataset-filter";
const OUTSIDE_WINDOW: &str = "outside the fixed-schedule offsets";
const ABOVE_MAX_ISL: &str = "input_length above --synthesis-max-isl";
const OSL_LOWERED: &str = "output_length lowered to --synthesis-max-osl";
const OSL_RAISED: &str = "output_length 0 raised to 1";
const DELAY_CAPPED: &str = "delay lowered to --inter-turn-delay-cap-seconds";
const DELAY_DROPPED: &str = "delay dropped by --ignore-trace-delays";

/// What a first look over the whole file tells.
#[derive(Debug, Default)]
pub(crate) struct Census {
    /// Rows of each session that has several.
    rows: HashMap<String, u32>,
    /// Ids of blocks that several requests have.
    shared: Shared,
}

impl Census {
    /// Reads the file once if anything needs it.
    pub(crate) fn take(options: &Options, format: Format) -> Result<Self, Error> {
        let mut census = Self::default();
        let sessions = format.names_sessions() && jsonl::mentions(&options.path, "session_id")?;
        let blocks = options.synthesis.changes_blocks();
        if !sessions && !blocks {
            return Ok(census);
        }
        format.read(options.selection(), &mut |draft| {
            if let (Some(id), true) = (draft.session_id, sessions) {
                *census.rows.entry(id).or_default() += 1;
            }
            for step in draft.steps {
                if let (Prompt::Synthetic { hash_ids, .. }, true) = (&step.prompt, blocks) {
                    census.shared.see(hash_ids);
                }
            }
            Ok(())
        })?;
        census.rows.retain(|_, rows| *rows > 1);
        Ok(census)
    }
}

/// Reads drafts, decides which are taken, and puts sessions together. Sessions come out in the order of their first rows.
pub(crate) struct Intake<'o> {
    options: &'o Options,
    format: Format,
    outputs: Stream,
    synthesizer: Synthesizer,
    sessions: Sessions,
    /// Rows skipped and adjusted.
    pub(crate) summary: Summary,
}

impl<'o> Intake<'o> {
    pub(crate) fn new(options: &'o Options, format: Format, census: Census) -> Result<Self, Error> {
        let block_size = options.block_size(format);
        Ok(Self {
            options,
            format,
            outputs: Stream::new(options.seed, "composer.turn.max_tokens"),
            synthesizer: Synthesizer::new(options.synthesis, census.shared, block_size, options.seed)?,
            sessions: Sessions { rows: census.rows, ..Sessions::default() },
            summary: Summary { kind: format.name().into(), is_trace: format.is_trace(), ..Summary::default() },
        })
    }

    /// Takes a draft in.
    pub(crate) fn take(&mut self, mut draft: Draft) -> Result<(), Error> {
        let steps = std::mem::take(&mut draft.steps);
        if steps.is_empty() {
            let reason = match self.format {
                Format::Sharegpt => NO_PAIR,
                Format::SpeedBench(_) => OTHER_CATEGORY,
                _ => NO_PROMPT,
            };
            *self.summary.rows_skipped.entry(reason.into()).or_default() += 1;
        }
        for mut step in steps {
            if let Some(reason) = self.skip(&draft.path, &step)? {
                *self.summary.rows_skipped.entry(reason.into()).or_default() += 1;
                continue;
            }
            self.synthesizer.apply(&mut step).map_err(|e| step.place.error(&draft.path, e))?;
            if self.too_long(&step) {
                *self.summary.rows_skipped.entry(ABOVE_MAX_ISL.into()).or_default() += 1;
                continue;
            }
            self.settle_time(&mut step.turn);
            self.settle_output(&mut step.turn);
            draft.steps.push(step);
        }
        self.sessions.take(draft)
    }

    /// A session whose rows have all been taken in.
    pub(crate) fn next(&mut self) -> Option<Draft> {
        self.sessions.next()
    }

    /// Nothing more comes.
    pub(crate) fn finish(&mut self) {
        self.sessions.waiting.iter_mut().for_each(|(_, left)| *left = 0);
    }

    fn skip(&self, path: &Path, step: &Step) -> Result<Option<&'static str>, Error> {
        let (start, end) = (self.options.start_offset_ns, self.options.end_offset_ns);
        if start.is_some() || end.is_some() {
            let at = step.turn.timestamp_ns.ok_or_else(|| {
                step.place.error(
                    path,
                    "no `timestamp`, which --fixed-schedule-start-offset and --fixed-schedule-end-offset need",
                )
            })?;
            if start.is_some_and(|start| at < start) || end.is_some_and(|end| at > end) {
                return Ok(Some(OUTSIDE_WINDOW));
            }
        }
        Ok(self.too_long(step).then_some(ABOVE_MAX_ISL))
    }

    fn too_long(&self, step: &Step) -> bool {
        let length = match &step.prompt {
            Prompt::Synthetic { length, .. } => Some(*length),
            _ => step.turn.input_tokens,
        };
        matches!((length, self.options.synthesis_max_isl), (Some(length), Some(most)) if length > most)
    }

    /// Time and delay under `--synthesis-speedup-ratio`, `--inter-turn-delay-cap-seconds` and `--ignore-trace-delays`.
    /// What the speed-up divides is the time since the start offset, where there is one: it stays the schedule's zero.
    fn settle_time(&mut self, turn: &mut Turn) {
        let speedup = self.options.synthesis.speedup;
        if let (Some(at), true) = (turn.timestamp_ns, speedup != 1.0) {
            let zero = self.options.start_offset_ns.unwrap_or(0);
            turn.timestamp_ns = Some(zero.saturating_add((at.saturating_sub(zero) as f64 / speedup).round() as u64));
        }
        let mut adjusted = |reason: &'static str| *self.summary.rows_adjusted.entry(reason.into()).or_default() += 1;
        if self.options.ignore_trace_delays && turn.delay_ns.take().is_some_and(|delay| delay > 0) {
            adjusted(DELAY_DROPPED);
        }
        if let (Some(delay), Some(most)) = (turn.delay_ns, self.options.inter_turn_delay_cap_ns)
            && delay > most
        {
            turn.delay_ns = Some(most);
            adjusted(DELAY_CAPPED);
        }
    }

    fn settle_output(&mut self, turn: &mut Turn) {
        let mut adjusted = |reason: &'static str| *self.summary.rows_adjusted.entry(reason.into()).or_default() += 1;
        if turn.max_tokens == Some(0) {
            turn.max_tokens = Some(1);
            adjusted(OSL_RAISED);
        }
        let multiplier = self.options.synthesis.output;
        if let (Some(asked), true) = (turn.max_tokens, multiplier != 1.0) {
            turn.max_tokens = Some(((f64::from(asked) * multiplier).round() as u32).max(1));
        }
        // A ready-made body asks for what it asks for.
        if turn.max_tokens.is_none() && turn.payload.is_none() {
            turn.max_tokens = self.options.osl.as_ref().map(|osl| osl.draw(&mut self.outputs));
        }
        if let (Some(asked), Some(most)) = (turn.max_tokens, self.options.synthesis_max_osl)
            && asked > most
        {
            turn.max_tokens = Some(most);
            adjusted(OSL_LOWERED);
        }
        // What is asked for at least must not be above what is asked for at most.
        if let (Format::BasetenTrace, Some(tokens), Some(least)) =
            (self.format, turn.max_tokens, turn.extra.get_mut("min_tokens"))
        {
            *least = tokens.into();
        }
    }
}

/// Sessions whose rows may stand apart in the file. Those of one row go through as long as none is waited for.
#[derive(Debug, Default)]
struct Sessions {
    /// Rows of each session of several rows that has not begun.
    rows: HashMap<String, u32>,
    /// Sessions in the order of their first rows, each with the number of rows still to come.
    waiting: VecDeque<(Draft, u32)>,
    /// Where a session stands in `waiting`, counted from the first that ever stood there.
    places: HashMap<String, u64>,
    /// Sessions that have left `waiting`.
    gone: u64,
}

impl Sessions {
    fn take(&mut self, draft: Draft) -> Result<(), Error> {
        let known = draft.session_id.as_deref().and_then(|id| self.places.get(id).copied());
        if let Some(place) = known.and_then(|at| at.checked_sub(self.gone))
            && let Some((session, left)) = usize::try_from(place).ok().and_then(|at| self.waiting.get_mut(at))
        {
            *left = left.saturating_sub(1);
            return session.extend_if_any(draft);
        }
        let left = draft.session_id.as_deref().and_then(|id| self.rows.remove(id)).map_or(0, |rows| rows - 1);
        if left > 0
            && let Some(id) = &draft.session_id
        {
            self.places.insert(id.clone(), self.gone + self.waiting.len() as u64);
        }
        self.waiting.push_back((draft, left));
        Ok(())
    }

    /// The first session, if nothing of it is to come. Sessions all of whose rows were left out are none.
    fn next(&mut self) -> Option<Draft> {
        loop {
            if self.waiting.front()?.1 > 0 {
                return None;
            }
            let (draft, _) = self.waiting.pop_front()?;
            self.gone += 1;
            if let Some(id) = &draft.session_id {
                self.places.remove(id);
            }
            if !draft.steps.is_empty() {
                return Some(draft);
            }
        }
    }
}
