//! What a reader makes of rows: sessions on their way to conversations.

use std::path::Path;
use std::sync::Arc;

use crate::read::jsonl::Place;
use crate::{Context, Error, Turn};

/// Takes the drafts of a file one by one.
pub(crate) type Emit<'a> = &'a mut dyn FnMut(Draft) -> Result<(), Error>;

/// A session, or some of its turns, on the way to a conversation.
#[derive(Debug)]
pub(crate) struct Draft {
    /// The file it comes from.
    pub(crate) path: Arc<Path>,
    pub(crate) session_id: Option<String>,
    pub(crate) context: Context,
    pub(crate) system: Option<String>,
    pub(crate) steps: Vec<Step>,
}

/// A turn on its way.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) place: Place,
    pub(crate) turn: Turn,
    pub(crate) prompt: Prompt,
}

/// Where a turn's input comes from.
#[derive(Debug, Default)]
pub(crate) enum Prompt {
    /// It stands in the turn.
    #[default]
    Given,
    /// It stands in the turn and has been counted.
    Counted,
    /// It is to be made.
    Synthetic { length: u32, hash_ids: Vec<i128> },
    /// It stands in the turn, and here is what was answered.
    Answered(String),
}

impl Draft {
    /// A session that has no turns yet.
    pub(crate) fn empty(path: &Path) -> Self {
        Self { path: path.into(), session_id: None, context: Context::default(), system: None, steps: Vec::new() }
    }

    /// A session of one turn.
    pub(crate) fn of_turn(path: &Path, place: Place, session_id: Option<String>, turn: Turn, prompt: Prompt) -> Self {
        Self {
            path: path.into(),
            session_id,
            context: Context::default(),
            system: None,
            steps: vec![Step { place, turn, prompt }],
        }
    }

    /// About how many bytes of text are held or still to be made.
    pub(crate) fn bytes(&self) -> usize {
        let texts = |step: &Step| step.turn.all_texts().map(str::len).sum::<usize>();
        let made = |step: &Step| match &step.prompt {
            Prompt::Given | Prompt::Counted => 0,
            Prompt::Synthetic { length, .. } => *length as usize * 5,
            Prompt::Answered(answer) => answer.len(),
        };
        self.steps.iter().map(|step| texts(step) + made(step)).sum()
    }

    /// Takes the turns of another draft of the same session.
    fn extend(&mut self, other: Self) -> Result<(), Error> {
        let raw = |draft: &Self| draft.steps.first().is_some_and(|step| step.turn.payload.is_some());
        if self.context != other.context || raw(self) != raw(&other) {
            let place = other.steps.first().map_or(Place::Line(0), |step| step.place);
            let what = format_args!(
                "session {:?} mixes kinds of rows: some hold the whole conversation so far (`messages`, `payload`), \
                 others only what is new",
                other.session_id.as_deref().unwrap_or_default()
            );
            return Err(place.error(&other.path, what));
        }
        self.system = self.system.take().or(other.system);
        self.steps.extend(other.steps);
        Ok(())
    }
}

impl Draft {
    pub(crate) fn extend_if_any(&mut self, other: Self) -> Result<(), Error> {
        if other.steps.is_empty() {
            return Ok(());
        }
        if self.steps.is_empty() {
            let session_id = self.session_id.take();
            *self = Self { session_id, ..other };
            return Ok(());
        }
        self.extend(other)
    }
}
