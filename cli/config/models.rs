//! The models that are asked for, and which turn asks for which.

use super::{Endpoint, ServeConfig};
use crate::args;
use crate::refusal::Refusal;
use crate::values::{ModelSelection, name_of};
use maser_datasets::Conversation;
use maser_datasets::seed::Stream;
use serde_json::{Value, json};

/// At least one model, and how turns that name none come to theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Models {
    names: Vec<String>,
    selection: Option<ModelSelection>,
}

impl Models {
    pub(super) fn resolve(args: &args::Profile, mock: Option<&ServeConfig>) -> Result<Self, Refusal> {
        let named = args.endpoint.models.iter().map(|m| m.trim()).filter(|m| !m.is_empty());
        let names: Vec<String> = match (named.map(str::to_owned).collect::<Vec<_>>(), mock) {
            (none, Some(mock)) if none.is_empty() => mock.models.iter().take(1).cloned().collect(),
            (names, _) => names,
        };
        if names.is_empty() {
            return Err(Refusal::new("--model is required; add -m NAME with the name the server knows the model by"));
        }
        Ok(Self { names, selection: args.endpoint.model_selection })
    }

    /// Refuses several where the path of all requests names the model.
    pub(super) fn check(&self, endpoint: &Endpoint) -> Result<(), Refusal> {
        if self.names.len() > 1 && endpoint.names_model() {
            return Err(Refusal::new(format!(
                "--model: the path of {} requests names the model, so that all go to one; give one",
                endpoint.kind.name()
            )));
        }
        Ok(())
    }

    /// The first, which stands for all where one is wanted.
    pub(crate) fn first(&self) -> &str {
        &self.names[0]
    }

    /// All of them, in the order given.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// What a directory is named after.
    pub(super) fn directory(&self) -> String {
        let several = if self.names.len() > 1 { "_multi" } else { "" };
        format!("{}{several}", self.first()).replace('/', "_")
    }

    /// As the results show them.
    pub(super) fn document(&self) -> Value {
        let items: Vec<Value> = self.names.iter().map(|name| json!({"name": name})).collect();
        match self.selection {
            None => json!({"items": items}),
            Some(selection) => json!({"strategy": name_of(selection).replace('-', "_"), "items": items}),
        }
    }

    /// Whether the seed decides.
    pub(crate) fn are_drawn(&self) -> bool {
        self.names.len() > 1 && self.selection == Some(ModelSelection::Random)
    }

    /// Gives turns their models, in the order of the dataset; `None` where there is only one.
    pub(crate) fn selector(&self, seed: u64) -> Option<Selector<'_>> {
        let drawn = self.are_drawn().then(|| Stream::new(seed, "composer.turn.model_selection"));
        (self.names.len() > 1).then_some(Selector { names: &self.names, drawn, turns: 0 })
    }
}

/// Which model the next turn asks for.
#[derive(Debug)]
pub(crate) struct Selector<'a> {
    names: &'a [String],
    drawn: Option<Stream>,
    /// Turns that were given one.
    turns: u64,
}

impl Selector<'_> {
    /// Names a model in each turn that names none.
    pub(crate) fn put(&mut self, conversation: &mut Conversation) {
        let n = self.names.len() as u64;
        for turn in conversation.turns.iter_mut().filter(|turn| turn.model.is_none()) {
            let chosen = match &mut self.drawn {
                Some(stream) => stream.below(n),
                None => self.turns % n,
            };
            self.turns += 1;
            turn.model = Some(self.names[chosen as usize].clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use maser_datasets::Turn;

    fn models(names: &[&str], selection: Option<ModelSelection>) -> Models {
        Models { names: names.iter().map(|&n| n.to_owned()).collect(), selection }
    }

    fn chosen(models: &Models, seed: u64, turns: &[usize]) -> Vec<String> {
        let mut selector = models.selector(seed).unwrap();
        let mut all = Vec::new();
        for &n in turns {
            let mut conversation = Conversation {
                session_id: String::new(),
                turns: (0..n).map(|_| Turn::of_text("t".to_owned())).collect(),
                context: maser_datasets::Context::default(),
                system: None,
                user_context: None,
                head_tokens: None,
            };
            conversation.turns.last_mut().unwrap().model = Some("own".to_owned());
            selector.put(&mut conversation);
            all.extend(conversation.turns.into_iter().filter_map(|turn| turn.model));
        }
        all
    }

    #[test]
    fn turns_take_models_in_turn_unless_they_name_one() {
        let two = models(&["a", "b"], None);
        assert_eq!(chosen(&two, 1, &[2, 4, 2]), ["a", "own", "b", "a", "b", "own", "a", "own"]);
        assert!(models(&["a"], Some(ModelSelection::Random)).selector(1).is_none());
    }

    #[test]
    fn drawn_models_follow_the_seed_and_are_as_frequent() {
        let three = models(&["a", "b", "c"], Some(ModelSelection::Random));
        let [one, again, other] = [1, 1, 2].map(|seed| chosen(&three, seed, &[3001]));
        assert!(one == again && one != other);
        for name in ["a", "b", "c"] {
            let n = one.iter().filter(|chosen| *chosen == name).count();
            assert!((900..1100).contains(&n), "{n} times {name}");
        }
    }

    #[test]
    fn several_show_in_names_and_results() {
        let two = models(&["org/a", "b"], Some(ModelSelection::RoundRobin));
        assert_eq!(two.directory(), "org_a_multi");
        assert_eq!(two.document(), json!({"strategy": "round_robin", "items": [{"name": "org/a"}, {"name": "b"}]}));
        assert_eq!(models(&["b"], None).document(), json!({"items": [{"name": "b"}]}));
    }
}
