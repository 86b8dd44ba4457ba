//! Which file to read and what to take from it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::Error;
use crate::file::synthesis::Synthesis;
use crate::formats::baseten::Replay;
use crate::formats::random_pool::Batch;
use crate::formats::{Format, Selection};
use crate::generate::texts::Source;
use crate::lengths::{Lengths, MAX_TOKENS};
use crate::public;

/// Tokens of a block where a format's hash ids have no size of their own.
pub const DEFAULT_BLOCK_SIZE: u32 = 512;

/// Which file to read and what to take from it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Options {
    /// `--input-file`.
    pub path: PathBuf,
    /// `--custom-dataset-type`; none finds it out.
    pub format: Option<Format>,
    /// `--fixed-schedule-start-offset` in nanoseconds: rows before it are left out, whatever the format. The reference
    /// honours both offsets for traces only.
    pub start_offset_ns: Option<u64>,
    /// `--fixed-schedule-end-offset` in nanoseconds: rows after it are left out, one at it is taken.
    pub end_offset_ns: Option<u64>,
    /// `--synthesis-max-isl`: rows with a larger input length are left out. Traces only; rows whose text is given
    /// without a length are never left out by it.
    pub synthesis_max_isl: Option<u32>,
    /// `--synthesis-max-osl`: larger output lengths are lowered to it. Traces only.
    pub synthesis_max_osl: Option<u32>,
    /// The other options of trace synthesis. Traces only.
    pub synthesis: Synthesis,
    /// `--isl-block-size`: tokens of a block that a hash id stands for. Formats with hash ids only.
    pub isl_block_size: Option<u32>,
    /// `--osl` and `--osl-stddev`: output length of rows that name none.
    pub osl: Option<Lengths>,
    /// `--inter-turn-delay-cap-seconds` in nanoseconds: longer delays between turns are lowered to it.
    pub inter_turn_delay_cap_ns: Option<u64>,
    /// `--ignore-trace-delays`: no turn waits.
    pub ignore_trace_delays: bool,
    /// How a `baseten_trace` is replayed.
    pub replay: Replay,
    /// `random_pool`: conversations to draw, 100 where none is given. Large public datasets: rows to take.
    pub entries: Option<u64>,
    /// `random_pool`: contents of each medium in a request.
    pub batch: Batch,
    /// `--prompt-corpus`: what prompts are made of, for formats whose rows give lengths; sonnets where none is given.
    pub corpus: Option<Source>,
    /// `--dataset-filter`: rows of a public dataset that has such filters, see [`public::check_filters`].
    pub filters: BTreeMap<String, String>,
    /// `--uuid-and-strip`, `single_turn` only: an image whose key stood beside its content in an earlier turn of the
    /// session is sent as the key alone.
    pub uuid_and_strip: bool,
    /// The run's root seed.
    pub seed: u64,
}

impl Options {
    /// What a reader takes from the file.
    pub(crate) fn selection(&self) -> Selection<'_> {
        Selection {
            path: &self.path,
            seed: self.seed,
            entries: self.entries,
            batch: &self.batch,
            filters: &self.filters,
            replay: &self.replay,
        }
    }

    /// Whether another seed may give other conversations.
    ///
    /// # Errors
    /// A sentence: the file's format cannot be told.
    pub fn depends_on_seed(&self) -> Result<bool, Error> {
        let format = self.known_format()?;
        Ok(format.makes_prompts()
            || format == Format::RandomPool
            || self.osl.as_ref().is_some_and(|osl| !osl.is_fixed())
            || self.replay.session_sample_ratio.is_some()
            || self.synthesis.given().is_some())
    }

    /// Whether [`Options::entries`] shows in what comes out.
    pub fn takes_entries(&self) -> bool {
        self.known_format().is_ok_and(Format::takes_entries)
    }

    /// The format given, or the one found out.
    pub(crate) fn known_format(&self) -> Result<Format, Error> {
        Format::of(self.format, &self.path)
    }

    /// Tokens of a block that a hash id stands for.
    pub(crate) fn block_size(&self, format: Format) -> u32 {
        self.isl_block_size.or(format.block_size()).unwrap_or(DEFAULT_BLOCK_SIZE)
    }

    /// Checks what the options say together with the format.
    ///
    /// # Errors
    /// A sentence naming the flag that does not go with it or is out of range.
    pub fn check(&self, format: Format) -> Result<(), Error> {
        self.check_belonging(format)?;
        if self.isl_block_size.is_some_and(|size| size == 0 || size > MAX_TOKENS) {
            return Err(Error(format!("--isl-block-size must be between 1 and {MAX_TOKENS}")));
        }
        if self.synthesis_max_osl == Some(0) {
            return Err(Error("--synthesis-max-osl must be at least 1".into()));
        }
        if let (Some(start), Some(end)) = (self.start_offset_ns, self.end_offset_ns)
            && start > end
        {
            return Err(Error("--fixed-schedule-start-offset lies after --fixed-schedule-end-offset".into()));
        }
        self.synthesis.check()?;
        self.replay.check()?;
        self.osl.as_ref().map_or(Ok(()), |osl| osl.check("--osl"))
    }

    fn check_belonging(&self, format: Format) -> Result<(), Error> {
        let name = format.name();
        let trace_only = [
            ("--synthesis-max-isl", self.synthesis_max_isl.is_some()),
            ("--synthesis-max-osl", self.synthesis_max_osl.is_some()),
        ];
        let trace_only = trace_only.into_iter().find_map(|(flag, given)| given.then_some(flag));
        if let (Some(flag), false) = (trace_only.or(self.synthesis.given()), format.is_trace()) {
            return Err(Error(format!("{flag} goes only with traces, and {name} is none")));
        }
        if self.isl_block_size.is_some() && format.block_size().is_none() {
            return Err(Error(format!(
                "--isl-block-size goes only with traces that have hash ids, and {name} has none"
            )));
        }
        if let (Some(flag), false) = (self.replay.given(), format == Format::BasetenTrace) {
            return Err(Error(format!("{flag} goes only with baseten_trace, and this is {name}")));
        }
        if let (Some(flag), true) = (self.synthesis.given_beside_output(), format == Format::BasetenTrace) {
            return Err(Error(format!(
                "{flag} does not go with baseten_trace, whose prompts are given (--replay-speedup divides its times)"
            )));
        }
        if let (Some(flag), false) = (self.synthesis.given_for_blocks(), format.makes_prompts()) {
            return Err(Error(format!(
                "{flag} goes only with traces whose prompts are made, and those of {name} are not"
            )));
        }
        if let (Some(flag), false) = (self.batch.given(), format == Format::RandomPool) {
            return Err(Error(format!("{flag} goes with generated prompts and random_pool, not {name}")));
        }
        if self.corpus == Some(Source::Random) && format.makes_prompts() {
            return Err(Error(format!(
                "--prompt-corpus random does not go with {name}, whose requests may share text; give sonnet or coding"
            )));
        }
        if !self.filters.is_empty() {
            public::check_filters(format, &self.filters)?;
        }
        if self.uuid_and_strip && format != Format::SingleTurn {
            return Err(Error(format!("--uuid-and-strip goes only with single_turn, and this is {name}")));
        }
        Ok(())
    }
}
