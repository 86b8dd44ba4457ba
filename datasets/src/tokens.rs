//! Tokenizers: how many tokens a text has.
//!
//! Three kinds: the vocabularies OpenAI publishes, which are built in, any `tokenizer.json` file, and a model in the hub's
//! local cache. Nothing is ever downloaded. Counts never include special tokens that a tokenizer would add around a text;
//! special tokens that stand *in* a text count as one each.

pub(crate) mod body_text;
mod fast;
mod find;
pub(crate) mod overhead;
mod template;
mod tiktoken;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokenizers::models::bpe::BPE;
use tokenizers::{
    DecoderWrapper, ModelWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, TokenizerImpl,
};

use crate::Error;
use crate::guard::unless_panics;
use fast::Fast;
pub use find::{Found, HubCache, find, not_found};
pub use template::Message;
use template::Template;
use tiktoken::Vocabulary;

/// Characters that few vocabularies hold, to find out while loading whether a model refuses unknown text.
const UNKNOWN_PROBE: &str = "q\u{00fe}\u{2603} \u{10ffff}\u{4e00} zqxj";

/// A tokenizer, cheap to clone and shared between threads.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<Inner>,
    name: Arc<str>,
    /// Checksum of the file; 0 for a built-in vocabulary.
    sum: u32,
    template: Option<Arc<Template>>,
}

enum Inner {
    BuiltIn(Vocabulary),
    File(Box<FromFile>),
}

/// Where a piece of a text ends that is encoded by itself, whatever stands around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    /// Bytes up to there.
    pub(crate) at: usize,
    /// Tokens up to there.
    pub(crate) tokens: u32,
}

/// A tokenizer.json.
struct FromFile {
    path: PathBuf,
    tokenizer: tokenizers::Tokenizer,
    /// The short way to the same tokens, where the vocabulary allows one.
    fast: Option<Fast>,
}

impl FromFile {
    /// Tokens of `text`; 0 where the model fails.
    fn count(&self, text: &str) -> usize {
        let fast = self.fast.as_ref().and_then(|fast| fast.count(&self.tokenizer, text));
        fast.unwrap_or_else(|| self.tokenizer.encode_fast(text, false).map_or(0, |encoding| encoding.len()))
    }

    /// The ids of `text`; none where the model fails.
    fn encode(&self, text: &str) -> Vec<u32> {
        let fast = self.fast.as_ref().and_then(|fast| fast.encode(&self.tokenizer, text));
        fast.unwrap_or_else(|| {
            self.tokenizer.encode_fast(text, false).map(|encoding| encoding.get_ids().to_vec()).unwrap_or_default()
        })
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Tokenizer").field(&self.name).finish()
    }
}

impl Tokenizer {
    /// The built-in `o200k_base` vocabulary.
    pub fn builtin() -> Self {
        Self { inner: Arc::new(Inner::BuiltIn(Vocabulary::o200k())), name: "builtin".into(), sum: 0, template: None }
    }

    /// A `tokenizer.json` file, or a directory that holds one. Its padding, truncation and BPE dropout are switched
    /// off, since they would change counts.
    ///
    /// # Errors
    /// A sentence naming the path: nothing there, not a tokenizer, or one that fails on characters it does not know.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let shown = path.display();
        let file = if path.is_dir() { path.join("tokenizer.json") } else { path.to_path_buf() };
        let bytes = std::fs::read(&file)
            .map_err(|e| Error(format!("--tokenizer {shown}: cannot read {}: {e}", file.display())))?;
        // A damaged decoder is met with a panic there.
        let sum = crc32fast::hash(&bytes);
        let mut tokenizer = unless_panics(|| parse(&bytes))
            .ok_or_else(|| Error(format!("--tokenizer {shown}: {} is damaged", file.display())))?
            .map_err(|e| Error(format!("--tokenizer {shown}: {} is not a tokenizer.json: {e}", file.display())))?;
        plain(&mut tokenizer).map_err(|e| Error(format!("--tokenizer {shown}: {e}")))?;
        tokenizer.encode_fast(UNKNOWN_PROBE, false).map_err(|e| {
            Error(format!("--tokenizer {shown}: its model refuses text with characters it does not know ({e})"))
        })?;
        let fast = Fast::of(&tokenizer);
        Ok(Self {
            inner: Arc::new(Inner::File(Box::new(FromFile { path: file, tokenizer, fast }))),
            name: shown.to_string().into(),
            sum,
            template: None,
        })
    }

    /// Opens what [`find`] came to.
    ///
    /// # Errors
    /// As [`Tokenizer::open`].
    pub fn open_found(found: &Found) -> Result<Self, Error> {
        match found {
            Found::BuiltIn("o200k_base") => Ok(Self::builtin()),
            Found::BuiltIn(name) => {
                let vocabulary = Vocabulary::named(name)
                    .unwrap_or_else(|| Err(Error(format!("--tokenizer {name}: there is no such vocabulary"))))?;
                Ok(Self { inner: Arc::new(Inner::BuiltIn(vocabulary)), name: (*name).into(), sum: 0, template: None })
            }
            Found::File(path) => Self::open(path),
        }
    }

    /// The tokenizer a flag's value means: see [`find`], with the revision `main` and the user's cache.
    ///
    /// # Errors
    /// A sentence where `name` is nothing of that, or where it holds no usable tokenizer.
    pub fn from_name(name: &str) -> Result<Self, Error> {
        let cache = HubCache::of_user();
        let found = find(name, "main", cache.as_ref()).ok_or_else(|| not_found(name, "main", cache.as_ref()))?;
        let tokenizer = Self::open_found(&found)?;
        Ok(Self { name: if matches!(found, Found::File(_)) { name.into() } else { tokenizer.name }, ..tokenizer })
    }

    /// The same tokenizer with the chat template that stands beside its file; without one where there is none, as beside
    /// a built-in vocabulary.
    ///
    /// # Errors
    /// A sentence: the template or the configuration beside it cannot be read.
    pub fn with_chat_template(mut self) -> Result<Self, Error> {
        if let Inner::File(file) = &*self.inner {
            let template = Template::beside(&file.path).map_err(|e| Error(format!("--apply-chat-template: {e}")))?;
            self.template = template.map(Arc::new);
        }
        Ok(self)
    }

    /// Whether a chat template is applied to messages.
    pub fn has_chat_template(&self) -> bool {
        self.template.is_some()
    }

    /// Tokens of `messages` as the chat template writes them, with what makes the model answer; none without a template,
    /// or where it refuses them.
    pub fn count_chat(&self, messages: &[Message<'_>]) -> Option<usize> {
        let text = self.template.as_ref()?.render(messages).ok()?;
        Some(self.count(&text))
    }

    /// Tokens of a system prompt and of a user message after it, each by itself; under a chat template what they add to
    /// a request.
    pub(crate) fn count_head(&self, system: Option<&str>, context: Option<&str>) -> usize {
        let plain = system.map_or(0, |text| self.count(text)) + context.map_or(0, |text| self.count(text));
        let user = Message { role: "user", content: "The morning is cold and clear" };
        let system = system.map(|content| Message { role: "system", content });
        let context = context.map(|content| Message { role: "user", content });
        let with: Vec<Message<'_>> = system.into_iter().chain(context).chain([user]).collect();
        match (self.count_chat(&with), self.count_chat(&[user])) {
            (Some(with), Some(without)) => with.saturating_sub(without),
            _ => plain,
        }
    }

    /// `builtin`, or the path or name it was opened from.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Special tokens that the tokenizer would put around a text: a beginning of sequence, most often.
    pub fn special_tokens_around(&self) -> u32 {
        match &*self.inner {
            Inner::BuiltIn(_) => 0,
            Inner::File(file) => {
                use tokenizers::PostProcessor as _;
                file.tokenizer.get_post_processor().map_or(0, |post| post.added_tokens(false) as u32)
            }
        }
    }

    /// What tells a tokenizer's file from others, wherever it lies; 0 for a built-in vocabulary.
    pub(crate) fn sum(&self) -> u32 {
        self.sum
    }

    /// What tells the chat template in use from others.
    pub(crate) fn template_sum(&self) -> Option<u32> {
        self.template.as_ref().map(|template| template.sum())
    }

    /// Ids of all tokens that are text, special tokens left out, in order.
    pub(crate) fn text_ids(&self) -> Vec<u32> {
        match &*self.inner {
            Inner::BuiltIn(vocabulary) => vocabulary.text_ids(),
            Inner::File(file) => {
                let tokenizer = &file.tokenizer;
                let added = tokenizer.get_added_tokens_decoder();
                let special = |id: &u32| added.get(id).is_some_and(|token| token.special);
                let mut ids: Vec<u32> = tokenizer.get_vocab(true).into_values().filter(|id| !special(id)).collect();
                ids.sort_unstable();
                ids.dedup();
                ids
            }
        }
    }

    /// Tokens of `text`, no special tokens added.
    ///
    /// A model of a file that fails on a text (none that passed [`Tokenizer::open`] is known to) counts it as 0.
    pub fn count(&self, text: &str) -> usize {
        match &*self.inner {
            Inner::BuiltIn(vocabulary) => vocabulary.count(text),
            Inner::File(file) => file.count(text),
        }
    }

    /// The token ids of `text`, no special tokens added; empty where [`Tokenizer::count`] is 0.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        match &*self.inner {
            Inner::BuiltIn(vocabulary) => vocabulary.encode(text),
            Inner::File(file) => file.encode(text),
        }
    }

    /// The text whose tokens `text` has: the same but for how its characters are composed.
    pub(crate) fn normal<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match &*self.inner {
            Inner::BuiltIn(_) => Cow::Borrowed(text),
            Inner::File(file) => file.fast.as_ref().map_or(Cow::Borrowed(text), |fast| fast.normal(text)),
        }
    }

    /// Where the pieces of `text` end: the last is all of it. None where this tokenizer has no such pieces that we know of, or
    /// none in this text.
    pub(crate) fn pieces(&self, text: &str) -> Option<Vec<End>> {
        match &*self.inner {
            Inner::BuiltIn(vocabulary) => vocabulary.pieces_of(text),
            Inner::File(file) => file.fast.as_ref()?.pieces(&file.tokenizer, text),
        }
    }

    /// The text of `ids`, special tokens kept. Ids outside the vocabulary are left out, and bytes that are not UTF-8
    /// become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        match &*self.inner {
            Inner::BuiltIn(vocabulary) => vocabulary.decode(ids),
            Inner::File(file) => {
                let fast = file.fast.as_ref().and_then(|fast| fast.decode(&file.tokenizer, ids));
                fast.unwrap_or_else(|| file.tokenizer.decode(ids, false).unwrap_or_default())
            }
        }
    }
}

/// A tokenizer whose model is known to be BPE.
type WithBpe = TokenizerImpl<BPE, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

/// What `tokenizers` makes of a file. Where nobody says what the model is, it makes a tree of it first and another of that,
/// which takes as long as all the rest: BPE, which most files are, is tried at once.
fn parse(bytes: &[u8]) -> tokenizers::Result<tokenizers::Tokenizer> {
    match serde_json::from_slice::<WithBpe>(bytes) {
        Ok(tokenizer) => Ok(tokenizer.into()),
        Err(_) => tokenizers::Tokenizer::from_bytes(bytes),
    }
}

/// Switches off what would make the count of a text depend on anything but the text.
fn plain(tokenizer: &mut tokenizers::Tokenizer) -> Result<(), String> {
    tokenizer.with_truncation(None).map_err(|e| e.to_string())?;
    tokenizer.with_padding(None);
    let without_dropout = match tokenizer.get_model() {
        ModelWrapper::BPE(bpe) if bpe.dropout.is_some() => {
            let mut bpe = bpe.clone();
            bpe.dropout = None;
            Some(bpe)
        }
        _ => None,
    };
    if let Some(bpe) = without_dropout {
        tokenizer.with_model(bpe);
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::io::Write;

    /// A word-level tokenizer: every run of letters or of punctuation is one token.
    pub(crate) const WORD_LEVEL: &str = include_str!("../tests/data/word_level.json");
    /// A byte-level BPE without a pre-tokenizer, some of whose merges reach across spaces.
    pub(crate) const UNSPLIT_BPE: &str = include_str!("../tests/data/unsplit_bpe.json");

    pub(crate) fn from_json(json: &str) -> Tokenizer {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(json.as_bytes()).unwrap();
        Tokenizer::open(file.path()).unwrap()
    }

    #[test]
    fn builtin_counts_as_tiktoken_does() {
        // ids by tiktoken's o200k_base.
        let t = Tokenizer::builtin();
        assert_eq!(t.encode("hello world"), [24912, 2375]);
        assert_eq!(t.count("hello world"), 2);
        assert_eq!(t.count(""), 0);
        assert_eq!(t.decode(&[24912, 2375]), "hello world");
    }

    #[test]
    fn special_strings_are_one_token_each() {
        let t = Tokenizer::builtin();
        let text = "<|endof a<|endoftext|>b<|endofprompt|>";
        let ids = t.encode(text);
        assert_eq!(ids.iter().filter(|id| **id >= 199_998).count(), 2);
        assert_eq!(ids.len(), t.count(text));
        assert_eq!(t.decode(&ids), text);
    }

    #[test]
    fn ids_outside_the_vocabulary_are_left_out() {
        let t = Tokenizer::builtin();
        assert_eq!(t.decode(&[u32::MAX, 24912, 199_998, 200_000]), "hello");
    }

    #[test]
    fn padding_and_truncation_do_not_change_counts() {
        let mut json: serde_json::Value = serde_json::from_str(WORD_LEVEL).unwrap();
        json["truncation"] = serde_json::json!(
            {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0});
        json["padding"] = serde_json::json!(
            {"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
             "pad_type_id": 0, "pad_token": "[UNK]"});
        let t = from_json(&json.to_string());
        assert_eq!(t.count("the quick brown fox runs"), 5);
    }

    #[test]
    fn a_model_read_at_once_is_the_one_read_by_way_of_a_tree() {
        let qwen3 = include_str!("../tests/data/qwen3/tokenizer.json");
        let mut legacy: serde_json::Value = serde_json::from_str(UNSPLIT_BPE).unwrap();
        legacy["model"].as_object_mut().unwrap().remove("type");
        for (json, is_bpe) in [(qwen3, true), (UNSPLIT_BPE, true), (&legacy.to_string(), true), (WORD_LEVEL, false)] {
            assert_eq!(serde_json::from_str::<WithBpe>(json).is_ok(), is_bpe);
            let (at_once, usual) = (parse(json.as_bytes()).unwrap(), tokenizers::Tokenizer::from_bytes(json).unwrap());
            assert_eq!(at_once.get_model(), usual.get_model());
            assert_eq!(at_once.to_string(false).unwrap(), usual.to_string(false).unwrap());
            assert_eq!(at_once.get_added_tokens_decoder(), usual.get_added_tokens_decoder());
        }
    }

    #[test]
    fn a_damaged_decoder_is_a_sentence() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), WORD_LEVEL.replacen("\"decoder\":", "\"decoder\":`", 1)).unwrap();
        let error = Tokenizer::open(file.path()).unwrap_err().0;
        assert!(error.starts_with("--tokenizer ") && error.ends_with("is damaged"), "{error}");
    }

    #[test]
    fn a_directory_is_its_tokenizer_json() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Tokenizer::open(dir.path()).unwrap_err().0.contains("tokenizer.json"));
        std::fs::write(dir.path().join("tokenizer.json"), WORD_LEVEL).unwrap();
        let t = Tokenizer::from_name(dir.path().to_str().unwrap()).unwrap();
        assert_eq!(t.count("the rose"), 2);
        assert_eq!(t.name(), dir.path().to_str().unwrap());
    }

    #[test]
    fn a_name_that_is_no_path_is_refused_without_a_download() {
        let error = Tokenizer::from_name("org/no-such-model").unwrap_err();
        assert!(error.0.contains("nothing is downloaded") && error.0.contains("org/no-such-model"), "{error}");
        assert_eq!(Tokenizer::from_name("o200k_base").unwrap().name(), "builtin");
    }

    #[test]
    fn a_model_that_refuses_unknown_words_is_refused() {
        let mut json: serde_json::Value = serde_json::from_str(WORD_LEVEL).unwrap();
        json["model"]["unk_token"] = "missing".into();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(json.to_string().as_bytes()).unwrap();
        assert!(Tokenizer::open(file.path()).unwrap_err().0.contains("does not know"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_survives_and_is_counted_as_it_is_encoded(
            text in "(?s)(.{0,60}|[ \\r\\n\\t]{0,9}|<\\|endof(text|prompt)?\\|?>?){0,4}"
        ) {
            let t = Tokenizer::builtin();
            let ids = t.encode(&text);
            proptest::prop_assert_eq!(ids.len(), t.count(&text));
            proptest::prop_assert_eq!(t.decode(&ids), text);
        }
    }
}
