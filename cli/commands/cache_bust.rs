//! `--cache-bust`: where in a conversation the marker goes that keeps a server from knowing it again.
//!
//! What is put in here is [`MARKER`]; as a body is sent, the executor makes of it what [`marks`] says.

use crate::values::CacheBust;
use maser_datasets::synthetic::Room;
use maser_datasets::tokens::Tokenizer;
use maser_datasets::{Context, Conversation, Turn};
use maser_engine::endpoint::Unfit;
use maser_engine::plan::{MARKER, Marks};
use maser_engine::record;
use serde_json::{Value, json};

/// A place in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Start,
    End,
}

impl At {
    /// The text with the marker in it, a blank line between them.
    fn put(self, text: &str) -> String {
        match self {
            Self::Start => format!("{MARKER}\n\n{text}"),
            Self::End => format!("{text}\n\n{MARKER}"),
        }
    }

    /// Tokens of a marker and its blank line, in the mean.
    fn tokens(self, tokenizer: &Tokenizer) -> u32 {
        let one = |n: u64| {
            let marker = record::marker(n, 0, n);
            let marker = std::str::from_utf8(&marker).unwrap_or(MARKER);
            tokenizer.count(&self.put("").replace(MARKER, marker)) as f64
        };
        ((0..SAMPLES).map(one).sum::<f64>() / SAMPLES as f64).round() as u32
    }

    /// A list of content with the marker as a part of its own.
    fn put_part(self, parts: &mut Vec<Value>) {
        let part = json!({"type": "text", "text": MARKER});
        match self {
            Self::Start => parts.insert(0, part),
            Self::End => parts.push(part),
        }
    }
}

/// Markers are counted by this many of them: their twelve digits do not all come to as many tokens.
const SAMPLES: u64 = 8;

/// A marker, and where it goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Marker {
    /// Into the system prompt, where there is one.
    system: bool,
    at: At,
    /// Every turn is sent by itself.
    alone: bool,
    /// What it adds to an input in the mean, with its blank line. That of a warmup adds nothing to what is measured.
    tokens: u32,
}

impl Marker {
    /// What `--cache-bust` asks for; each turn of a conversation is sent `alone` or after those before it. Without a
    /// tokenizer nothing is counted.
    pub(super) fn new(place: CacheBust, alone: bool, tokenizer: Option<&Tokenizer>) -> Option<Self> {
        let (system, at) = match place {
            CacheBust::None => return None,
            CacheBust::SystemPrefix | CacheBust::WarmupIsolationSystem => (true, At::Start),
            CacheBust::SystemSuffix => (true, At::End),
            CacheBust::FirstTurnPrefix | CacheBust::WarmupIsolationFirstTurn => (false, At::Start),
            CacheBust::FirstTurnSuffix => (false, At::End),
        };
        let tokens = tokenizer.filter(|_| marks(place) == Marks::Session).map_or(0, |tokenizer| at.tokens(tokenizer));
        Some(Self { system, at, alone, tokens })
    }

    /// What generated texts leave free for it, so that the whole has the length asked for. A system prompt that the user
    /// wrote, or a file, cannot be made shorter: there it comes on top, as with the reference.
    pub(super) fn room(&self, makes_system: bool, given_system: bool) -> Room {
        match (self.system, self.at) {
            (true, _) if makes_system => Room::System(self.tokens),
            (true, _) if given_system => Room::None,
            (_, At::Start) => Room::FirstText(self.tokens),
            (_, At::End) => Room::LastText(self.tokens),
        }
    }

    /// Puts the marker into the conversation: into its system prompt if that is asked for and there is one, else into each
    /// turn that a request has nothing before. Its tokens are counted with the input.
    ///
    /// # Errors
    /// There is no place for it.
    pub(super) fn put(&self, conversation: &mut Conversation) -> Result<(), Unfit> {
        let Self { system, at, alone, tokens } = *self;
        if let Some(text) = conversation.system.as_mut().filter(|_| system) {
            *text = at.put(text);
            conversation.head_tokens = conversation.head_tokens.map(|n| n.saturating_add(tokens));
            return Ok(());
        }
        let whole = alone || conversation.context == Context::MessageArray;
        for (k, turn) in conversation.turns.iter_mut().enumerate() {
            if k > 0 && !whole && !turn.reset_context {
                continue;
            }
            if !mark_turn(turn, system, at) {
                return Err(Unfit(format!(
                    "--cache-bust: turn {} of session {} has no text that the marker could go to",
                    k + 1,
                    conversation.session_id
                )));
            }
            turn.input_tokens = turn.input_tokens.map(|n| n.saturating_add(tokens));
        }
        Ok(())
    }
}

/// What becomes of the markers as bodies are sent.
pub(super) fn marks(place: CacheBust) -> Marks {
    match place {
        CacheBust::None => Marks::None,
        CacheBust::WarmupIsolationSystem | CacheBust::WarmupIsolationFirstTurn => Marks::Warmup,
        _ => Marks::Session,
    }
}

fn mark_turn(turn: &mut Turn, system: bool, at: At) -> bool {
    if turn.payload.is_some() {
        return false;
    }
    if let Some(Value::Array(blocks)) = turn.system_blocks.as_mut().filter(|_| system) {
        at.put_part(blocks);
        return true;
    }
    if let Some(messages) = &mut turn.messages {
        return mark_message(messages, system, at);
    }
    let mut texts = turn.texts.iter_mut().flat_map(|media| media.contents.iter_mut());
    let text = if at == At::Start { texts.next() } else { texts.last() };
    match text {
        Some(text) => *text = at.put(text),
        None => turn.texts.push(MARKER.into()),
    }
    true
}

/// The first message of the role that is asked for; without a system message it is the first of the user's.
fn mark_message(messages: &mut Value, system: bool, at: At) -> bool {
    let Some(messages) = messages.as_array_mut() else { return false };
    let first = |role: &str| messages.iter().position(|message| message["role"] == role);
    let Some(k) = first("system").filter(|_| system).or_else(|| first("user")) else { return false };
    match messages[k].get_mut("content") {
        Some(Value::String(text)) => *text = at.put(text),
        Some(Value::Array(parts)) => at.put_part(parts),
        _ => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation(turns: Vec<Turn>, system: Option<&str>) -> Conversation {
        Conversation {
            session_id: "s".into(),
            turns,
            context: Context::default(),
            system: system.map(Into::into),
            user_context: None,
            head_tokens: Some(5),
        }
    }

    fn mark(conversation: &mut Conversation, place: CacheBust, alone: bool) -> Result<(), Unfit> {
        Marker::new(place, alone, None).map_or(Ok(()), |marker| marker.put(conversation))
    }

    fn marked(mut conversation: Conversation, place: CacheBust) -> Conversation {
        mark(&mut conversation, place, false).unwrap();
        conversation
    }

    fn texts(conversation: &Conversation) -> Vec<&str> {
        conversation.turns.iter().flat_map(Turn::all_texts).collect()
    }

    #[test]
    fn the_marker_goes_where_it_was_asked_to() {
        let turns = || vec![Turn::of_text("a".into()), Turn::of_text("b".into())];
        let start = format!("{MARKER}\n\na");
        let end = format!("a\n\n{MARKER}");
        let of = |place, system| marked(conversation(turns(), system), place);
        assert_eq!(texts(&of(CacheBust::None, None)), ["a", "b"]);
        assert_eq!(texts(&of(CacheBust::FirstTurnPrefix, Some("x"))), [start.as_str(), "b"]);
        assert_eq!(texts(&of(CacheBust::FirstTurnSuffix, None)), [end.as_str(), "b"]);
        let with_system = of(CacheBust::SystemSuffix, Some("x"));
        assert_eq!(
            (with_system.system.as_deref(), texts(&with_system)),
            (Some(&*format!("x\n\n{MARKER}")), vec!["a", "b"])
        );
        assert_eq!(texts(&of(CacheBust::SystemPrefix, None)), [start.as_str(), "b"], "without one, the first turn");
        assert_eq!(texts(&of(CacheBust::WarmupIsolationSystem, None)), [start.as_str(), "b"]);
        assert_eq!(texts(&of(CacheBust::WarmupIsolationFirstTurn, Some("x"))), [start.as_str(), "b"]);
        let mut alone = conversation(turns(), None);
        mark(&mut alone, CacheBust::FirstTurnSuffix, true).unwrap();
        assert_eq!(texts(&alone), [end.as_str(), &format!("b\n\n{MARKER}")]);
        let mut array = conversation(turns(), None);
        array.context = Context::MessageArray;
        assert_eq!(texts(&marked(array, CacheBust::FirstTurnPrefix)), [start.as_str(), &format!("{MARKER}\n\nb")]);
    }

    #[test]
    fn ready_made_messages_are_marked_and_ready_made_bodies_are_not() {
        let turn = |messages| vec![Turn { messages: Some(messages), ..Turn::default() }];
        let both =
            json!([{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "u"}]}]);
        let content = |place, k: usize| {
            let marked = marked(conversation(turn(both.clone()), None), place);
            marked.turns[0].messages.as_ref().unwrap()[k]["content"].clone()
        };
        assert_eq!(content(CacheBust::SystemPrefix, 0), format!("{MARKER}\n\ns"));
        assert_eq!(content(CacheBust::FirstTurnSuffix, 1)[1]["text"], MARKER);
        for turns in [
            turn(json!([{"role": "tool", "content": "x"}])),
            vec![Turn { payload: Some(json!({})), ..Turn::default() }],
        ] {
            let refused = mark(&mut conversation(turns, None), CacheBust::SystemPrefix, false);
            assert!(refused.is_err_and(|unfit| unfit.0.starts_with("--cache-bust: turn 1 of session s has no text")));
        }
    }

    #[test]
    fn generated_texts_make_room_where_the_marker_goes() {
        let tokenizer = Tokenizer::builtin();
        let room = |place, made, given| Marker::new(place, false, Some(&tokenizer)).unwrap().room(made, given);
        let Room::System(tokens) = room(CacheBust::SystemPrefix, true, false) else { panic!("the system prompt's") };
        assert!((8..=16).contains(&tokens), "{tokens}");
        assert_eq!(room(CacheBust::SystemSuffix, false, true), Room::None, "the user's own text stays as it is");
        assert!(matches!(room(CacheBust::SystemPrefix, false, false), Room::FirstText(n) if n == tokens));
        assert!(matches!(room(CacheBust::FirstTurnSuffix, true, true), Room::LastText(n) if n.abs_diff(tokens) < 3));
        assert_eq!(room(CacheBust::WarmupIsolationFirstTurn, false, false), Room::FirstText(0));
        assert!(Marker::new(CacheBust::None, false, Some(&tokenizer)).is_none());
    }
}
