//! Tokenizers: how many tokens a text has.
//!
//! Two kinds: the built-in `o200k_base` vocabulary, and any `tokenizer.json` file. Nothing is ever downloaded. Counts
//! never include special tokens that a tokenizer would add around a text; special tokens that stand *in* a text count
//! as one each.

use std::path::Path;
use std::sync::Arc;

use tokenizers::ModelWrapper;

use crate::Error;

/// The special strings of `o200k_base` and their ids.
const O200K_SPECIALS: [(&str, u32); 2] = [("<|endoftext|>", 199_999), ("<|endofprompt|>", 200_018)];

/// Characters that few vocabularies hold, to find out while loading whether a model refuses unknown text.
const UNKNOWN_PROBE: &str = "q\u{00fe}\u{2603} \u{10ffff}\u{4e00} zqxj";

/// A tokenizer, cheap to clone and shared between threads.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<Inner>,
    name: Arc<str>,
}

enum Inner {
    Builtin(&'static bpe_openai::Tokenizer),
    File(Box<tokenizers::Tokenizer>),
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Tokenizer").field(&self.name).finish()
    }
}

impl Tokenizer {
    /// The built-in `o200k_base` vocabulary.
    pub fn builtin() -> Self {
        Self { inner: Arc::new(Inner::Builtin(bpe_openai::o200k_base())), name: "builtin".into() }
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
        let mut tokenizer = tokenizers::Tokenizer::from_bytes(bytes)
            .map_err(|e| Error(format!("--tokenizer {shown}: {} is not a tokenizer.json: {e}", file.display())))?;
        plain(&mut tokenizer).map_err(|e| Error(format!("--tokenizer {shown}: {e}")))?;
        tokenizer.encode_fast(UNKNOWN_PROBE, false).map_err(|e| {
            Error(format!("--tokenizer {shown}: its model refuses text with characters it does not know ({e})"))
        })?;
        Ok(Self { inner: Arc::new(Inner::File(Box::new(tokenizer))), name: shown.to_string().into() })
    }

    /// The tokenizer a flag's value means: `builtin` or `o200k_base`, else a path.
    ///
    /// # Errors
    /// A sentence where `name` is neither, or where the path holds no usable tokenizer.
    pub fn from_name(name: &str) -> Result<Self, Error> {
        if name == "builtin" || name == "o200k_base" {
            return Ok(Self::builtin());
        }
        let path = Path::new(name);
        if path.exists() {
            return Self::open(path);
        }
        Err(Error(format!(
            "--tokenizer {name}: there is no such file or directory, and tokenizers are not downloaded; give the path \
             of a tokenizer.json, a directory that holds one, or `builtin`"
        )))
    }

    /// `builtin`, or the path it was opened from.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Tokens of `text`, no special tokens added.
    ///
    /// A model of a file that fails on a text (none that passed [`Tokenizer::open`] is known to) counts it as 0.
    pub fn count(&self, text: &str) -> usize {
        match &*self.inner {
            Inner::Builtin(bpe) => o200k_pieces(text)
                .map(|piece| match piece {
                    Piece::Text(text) => bpe.count(text),
                    Piece::Special(_) => 1,
                })
                .sum(),
            Inner::File(tokenizer) => tokenizer.encode_fast(text, false).map_or(0, |encoding| encoding.len()),
        }
    }

    /// The token ids of `text`, no special tokens added; empty where [`Tokenizer::count`] is 0.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        match &*self.inner {
            Inner::Builtin(bpe) => {
                let mut ids = Vec::new();
                for piece in o200k_pieces(text) {
                    match piece {
                        Piece::Text(text) => ids.extend(bpe.encode(text)),
                        Piece::Special(id) => ids.push(id),
                    }
                }
                ids
            }
            Inner::File(tokenizer) => {
                tokenizer.encode_fast(text, false).map(|encoding| encoding.get_ids().to_vec()).unwrap_or_default()
            }
        }
    }

    /// The text of `ids`, special tokens kept. Ids outside the vocabulary are left out, and bytes that are not UTF-8
    /// become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        match &*self.inner {
            Inner::Builtin(bpe) => {
                let known = bpe.bpe.num_tokens() as u32;
                let mut bytes = Vec::with_capacity(ids.len() * 5);
                for &id in ids {
                    if let Some((text, _)) = O200K_SPECIALS.iter().find(|(_, special)| *special == id) {
                        bytes.extend_from_slice(text.as_bytes());
                    } else if id < known {
                        bytes.extend_from_slice(bpe.bpe.token_bytes(id));
                    }
                }
                String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
            }
            Inner::File(tokenizer) => tokenizer.decode(ids, false).unwrap_or_default(),
        }
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

enum Piece<'a> {
    Text(&'a str),
    Special(u32),
}

/// Cuts `text` at the special strings of `o200k_base`.
fn o200k_pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut from = 0;
        while let Some(at) = rest[from..].find("<|endof").map(|at| at + from) {
            if let Some((special, id)) = O200K_SPECIALS.iter().find(|(s, _)| rest[at..].starts_with(s)) {
                if at > 0 {
                    let head = &rest[..at];
                    rest = &rest[at..];
                    return Some(Piece::Text(head));
                }
                rest = &rest[special.len()..];
                return Some(Piece::Special(*id));
            }
            from = at + 1;
        }
        Some(Piece::Text(std::mem::take(&mut rest)))
    })
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
        let error = Tokenizer::from_name("Qwen/Qwen3-0.6B").unwrap_err();
        assert!(error.0.contains("not downloaded") && error.0.contains("Qwen/Qwen3-0.6B"), "{error}");
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
