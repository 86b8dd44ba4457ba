//! The short way through a byte-level BPE of a tokenizer.json.
//!
//! `tokenizers` keeps for every text how each of its characters came to be, which costs far more than the tokens do. Here
//! only what counts is done: the text is cut by the file's own pattern, and each piece is looked up among those met before
//! or else given to the file's own model. So any such vocabulary gains, and what merges is the same code. A text that needs
//! more (one with an added token in it) is refused, and goes the long way.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{OnceLock, PoisonError, RwLock};

use aho_corasick::AhoCorasick;
use regex_automata::{Anchored, Input, meta::Regex};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{
    DecoderWrapper, Model as _, ModelWrapper, NormalizedString, NormalizerWrapper, SplitDelimiterBehavior,
};
use unicode_normalization::{IsNormalized, is_nfc_quick};

use super::End;

/// How the usual patterns end: white space up to the last before a word, or what is left of it.
const TAIL: &str = r"|\s+(?!\S)|\s+";

/// The pattern of a byte-level pre-tokenizer that has none beside it, without [`TAIL`].
const OWN_HEAD: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+";

/// Pieces that are remembered, at most, and the bytes one has at most.
const PIECES: usize = 1 << 16;
const LONGEST: usize = 48;

/// Encoded both ways while a file is opened: the short way is taken only where they agree.
const PROBE: &str = "I'll say it's 12345 x\u{b2}  \u{e9}e\u{301} \u{17f}'\u{17f} \u{4f60}\u{597d}\u{3002}\u{3000}\u{a0}\u{85}\
    \u{0939}\u{093f}\u{1f469}\u{200d}\u{1f4bb}\t\tif (a!=b) {\r\n\r\n  return c;//..\n}\n \n  CamelCASE'LL\u{1c5}\u{2160}   ";

/// What a file needs for the short way.
pub(super) struct Fast {
    cut: Cut,
    nfc: bool,
    /// Finds what `tokenizers` cuts out before anything else.
    added: AhoCorasick,
    pieces: RwLock<HashMap<Box<str>, Box<[u32]>>>,
    /// How the vocabulary spells a byte.
    letters: [char; 256],
    /// What each id stands for, made when it is first asked for; none where the file's decoder is not of the usual kind.
    spellings: OnceLock<Option<Spellings>>,
}

impl Fast {
    /// The short way for `tokenizer`; none where it is not a byte-level BPE of the usual kind, or encodes otherwise.
    pub(super) fn of(tokenizer: &tokenizers::Tokenizer) -> Option<Self> {
        let nfc = match tokenizer.get_normalizer() {
            None => false,
            Some(NormalizerWrapper::NFC(_)) => true,
            Some(_) => return None,
        };
        matches!(tokenizer.get_model(), ModelWrapper::BPE(_)).then_some(())?;
        let cut = Cut::of(tokenizer.get_pre_tokenizer()?)?;
        let added = added_texts(tokenizer, nfc)?;
        let fast = Self { cut, nfc, added, pieces: RwLock::default(), letters: letters(), spellings: OnceLock::new() };
        let usual = tokenizer.encode_fast(PROBE, false).ok()?;
        (fast.encode(tokenizer, PROBE)? == usual.get_ids()).then_some(fast)
    }

    /// The ids of `text`, or none where it has to go the long way.
    pub(super) fn encode(&self, tokenizer: &tokenizers::Tokenizer, text: &str) -> Option<Vec<u32>> {
        let mut all = Vec::with_capacity(text.len() / 3);
        self.each(tokenizer, text, |ids, _| all.extend_from_slice(ids))?;
        Some(all)
    }

    /// How many ids [`Fast::encode`] gives.
    pub(super) fn count(&self, tokenizer: &tokenizers::Tokenizer, text: &str) -> Option<usize> {
        let mut count = 0;
        self.each(tokenizer, text, |ids, _| count += ids.len())?;
        Some(count)
    }

    /// Where the pieces of `text` end; none where it has to go the long way, or is not in its normal form.
    pub(super) fn pieces(&self, tokenizer: &tokenizers::Tokenizer, text: &str) -> Option<Vec<End>> {
        if matches!(self.normal(text), Cow::Owned(_)) {
            return None;
        }
        let (mut ends, mut tokens) = (Vec::with_capacity(text.len() / 5), 0);
        self.each(tokenizer, text, |ids, at| {
            tokens += ids.len() as u32;
            ends.push(End { at, tokens });
        })?;
        Some(ends)
    }

    /// The text of `ids`, as the file's own decoder gives it; none where that is not of the usual kind.
    pub(super) fn decode(&self, tokenizer: &tokenizers::Tokenizer, ids: &[u32]) -> Option<String> {
        let spellings = self.spellings.get_or_init(|| Spellings::of(tokenizer, &self.letters)).as_ref()?;
        let mut bytes = Vec::with_capacity(ids.len() * 6);
        ids.iter().for_each(|id| bytes.extend_from_slice(spellings.of_id(*id)));
        Some(String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
    }

    /// The ids of `text`, a piece at a time with where it ends in the normal form. One lock is taken for the whole text: threads would wait on one for each piece.
    fn each(&self, tokenizer: &tokenizers::Tokenizer, text: &str, mut put: impl FnMut(&[u32], usize)) -> Option<()> {
        let normal = self.normal(text);
        if self.added.is_match(text) || (matches!(normal, Cow::Owned(_)) && self.added.is_match(&*normal)) {
            return None;
        }
        let known = self.pieces.read().unwrap_or_else(PoisonError::into_inner);
        let mut met: HashMap<Box<str>, Box<[u32]>> = HashMap::new();
        let (mut at, mut spelled) = (0, String::new());
        while at < normal.len() {
            let end = self.cut.end(&normal, at)?;
            let piece = &normal[at..end];
            at = end;
            if let Some(ids) = known.get(piece).or_else(|| met.get(piece)) {
                put(ids, end);
                continue;
            }
            spelled.clear();
            spelled.extend(piece.bytes().map(|byte| self.letters[usize::from(byte)]));
            let tokens = tokenizer.get_model().tokenize(&spelled).ok()?;
            let ids: Box<[u32]> = tokens.iter().map(|token| token.id).collect();
            put(&ids, end);
            if piece.len() <= LONGEST && known.len() + met.len() < PIECES {
                met.insert(piece.into(), ids);
            }
        }
        drop(known);
        if !met.is_empty() {
            let mut known = self.pieces.write().unwrap_or_else(PoisonError::into_inner);
            let room = PIECES.saturating_sub(known.len());
            known.extend(met.into_iter().take(room));
        }
        Some(())
    }

    /// `text` as the file normalizes it. What a newer Unicode calls normal is so in an older one, too; what is not, or may
    /// not be, is left to the code and the tables of `tokenizers`.
    pub(super) fn normal<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if !self.nfc || text.is_ascii() || is_nfc_quick(text.chars()) == IsNormalized::Yes {
            return Cow::Borrowed(text);
        }
        let mut normalized = NormalizedString::from(text);
        normalized.nfc();
        if normalized.get() == text { Cow::Borrowed(text) } else { Cow::Owned(normalized.get().to_owned()) }
    }
}

/// A pattern that cuts a text into pieces without leaving anything out.
struct Cut(Regex);

/// What [`TAIL`] is without looking ahead: white space that ends the text, white space whose last character is given back,
/// and any.
const ENDS: [&str; 2] = [r"\s+\s", r"\s+"];

impl Cut {
    fn of(pre: &PreTokenizerWrapper) -> Option<Self> {
        match pre {
            PreTokenizerWrapper::ByteLevel(ByteLevel { add_prefix_space: false, use_regex: true, .. }) => {
                Self::head(OWN_HEAD)
            }
            PreTokenizerWrapper::Sequence(steps) => match steps.as_ref() {
                [
                    PreTokenizerWrapper::Split(Split {
                        pattern: SplitPattern::Regex(pattern),
                        behavior: SplitDelimiterBehavior::Isolated,
                        invert: false,
                        ..
                    }),
                    PreTokenizerWrapper::ByteLevel(ByteLevel { add_prefix_space: false, use_regex: false, .. }),
                ] => Self::head(pattern.strip_suffix(TAIL)?),
                _ => None,
            },
            _ => None,
        }
    }

    /// A pattern that is `head` and [`TAIL`]; none where `head` looks around itself.
    fn head(head: &str) -> Option<Self> {
        if has_possessive(head) {
            return None;
        }
        let first = format!(r"(?:{head})|\s+$");
        Regex::new_many(&[first.as_str(), ENDS[0], ENDS[1]]).ok().map(Self)
    }

    /// Where the piece that starts at `at` ends; none where no piece starts there.
    fn end(&self, text: &str, at: usize) -> Option<usize> {
        let found = self.0.find(Input::new(text).span(at..text.len()).anchored(Anchored::Yes))?;
        let given_back = match found.pattern().as_usize() {
            1 => text[at..found.end()].chars().next_back()?.len_utf8(),
            _ => 0,
        };
        let end = found.end() - given_back;
        (end > at).then_some(end)
    }
}

/// The bytes of every token, end to end.
struct Spellings {
    bytes: Vec<u8>,
    /// Where each id's end, by id. An id that no token has, has none.
    ends: Vec<u32>,
}

impl Spellings {
    fn of(tokenizer: &tokenizers::Tokenizer, letters: &[char; 256]) -> Option<Self> {
        matches!(tokenizer.get_decoder(), Some(DecoderWrapper::ByteLevel(_))).then_some(())?;
        let byte_of: HashMap<char, u8> = letters.iter().zip(0..=255).map(|(letter, byte)| (*letter, byte)).collect();
        let mut tokens: Vec<(u32, String)> =
            tokenizer.get_vocab(true).into_iter().map(|(token, id)| (id, token)).collect();
        tokens.sort_unstable();
        let (mut bytes, mut ends) = (Vec::with_capacity(tokens.len() * 7), Vec::with_capacity(tokens.len()));
        for (id, token) in tokens {
            // Ids that far apart are no vocabulary to keep a row for each.
            if id as usize > ends.len() + (1 << 20) {
                return None;
            }
            ends.resize(id as usize, bytes.len() as u32);
            let from = bytes.len();
            // What is not spelled so, such as an added token with a space, is itself.
            if !token.chars().all(|letter| byte_of.get(&letter).map(|byte| bytes.push(*byte)).is_some()) {
                bytes.truncate(from);
                bytes.extend_from_slice(token.as_bytes());
            }
            ends.push(bytes.len() as u32);
        }
        Some(Self { bytes, ends })
    }

    fn of_id(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let Some(&end) = self.ends.get(id) else { return &[] };
        let from = id.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[from as usize..end as usize]
    }
}

/// Whether `pattern` has a repetition that never gives back (`a++`, `a{1,3}+`): this engine would read it as a plain one.
fn has_possessive(pattern: &str) -> bool {
    let counted = |at: usize| pattern[..at].trim_end_matches(|c: char| c.is_ascii_digit() || c == ',').ends_with('{');
    ["++", "*+", "?+"].iter().any(|plus| pattern.contains(plus))
        || pattern.match_indices("}+").any(|(at, _)| counted(at))
}

/// Finds the tokens that were added to the vocabulary. None where one is written otherwise once it is normalized.
fn added_texts(tokenizer: &tokenizers::Tokenizer, nfc: bool) -> Option<AhoCorasick> {
    let texts: Vec<String> = tokenizer.get_added_vocabulary().get_vocab().keys().cloned().collect();
    if nfc && texts.iter().any(|text| is_nfc_quick(text.chars()) != IsNormalized::Yes) {
        return None;
    }
    AhoCorasick::new(texts).ok()
}

/// How byte-level vocabularies spell each byte: as itself where it is seen in print, else as one of the characters from
/// U+0100 on.
fn letters() -> [char; 256] {
    let mut unseen = 0x100..;
    std::array::from_fn(|byte| {
        let itself = u8::try_from(byte).ok().filter(|byte| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..));
        itself.map(char::from).or_else(|| unseen.next().and_then(char::from_u32)).unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    const QWEN3: &[u8] = include_bytes!("../../tests/data/qwen3/tokenizer.json");

    fn tokenizer(change: impl FnOnce(&mut Value)) -> tokenizers::Tokenizer {
        let mut json: Value = serde_json::from_slice(QWEN3).unwrap();
        change(&mut json);
        tokenizers::Tokenizer::from_bytes(json.to_string()).unwrap()
    }

    /// The pre-tokenizer of a file whose pattern is `pattern`.
    fn cut_by(pattern: &str) -> Value {
        json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false}]})
    }

    /// Files of the kinds that models have: that of Qwen3, with the patterns of Llama 3, of o200k and of GPT-2, without
    /// normalizer, and with an added token that is sought after normalizing.
    fn files() -> Vec<tokenizers::Tokenizer> {
        let llama = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
        let o200k = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
        vec![
            tokenizer(|_| {}),
            tokenizer(|json| json["pre_tokenizer"] = cut_by(llama)),
            tokenizer(|json| {
                json["pre_tokenizer"] = cut_by(o200k);
                json["normalizer"] = Value::Null;
                json["model"]["ignore_merges"] = true.into();
            }),
            tokenizer(|json| {
                json["pre_tokenizer"] = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                                               "use_regex": true});
                json["added_tokens"][0]["content"] = "K;".into();
                json["added_tokens"][0]["normalized"] = true.into();
                json["added_tokens"][1]["lstrip"] = true.into();
                json["added_tokens"][1]["single_word"] = true.into();
            }),
        ]
    }

    #[test]
    fn files_of_other_kinds_go_the_long_way() {
        let of = |change: fn(&mut Value)| Fast::of(&tokenizer(change)).is_some();
        assert!(of(|_| {}));
        assert!(!of(|json| json["normalizer"] = json!({"type": "NFKC"})));
        assert!(!of(|json| json["pre_tokenizer"]["pretokenizers"][1]["add_prefix_space"] = true.into()));
        assert!(!of(|json| json["pre_tokenizer"]["pretokenizers"][1]["use_regex"] = true.into()));
        assert!(!of(|json| json["pre_tokenizer"]["pretokenizers"][0]["behavior"] = "Removed".into()));
        assert!(!of(|json| json["pre_tokenizer"]["pretokenizers"][0]["invert"] = true.into()));
        assert!(!of(|json| json["pre_tokenizer"] = cut_by(r"\p{L}+| ?[^\s\p{L}]+")));
        assert!(!of(|json| json["pre_tokenizer"] = cut_by(r"\p{L}++| ?[^\s\p{L}]+|\s+(?!\S)|\s+")));
        assert!(!of(|json| json["pre_tokenizer"] = cut_by(r"(?=a)\p{L}+| ?[^\s\p{L}]+|\s+(?!\S)|\s+")));
        assert!(!of(|json| json["pre_tokenizer"] = cut_by(r"\p{L}{1,3}+| ?[^\s\p{L}]+|\s+(?!\S)|\s+")));
        // Digits are in no piece.
        assert!(!of(|json| json["pre_tokenizer"] = cut_by(r"\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")));
        assert!(!of(|json| json["added_tokens"][0]["content"] = "e\u{301}".into()));
    }

    #[test]
    fn a_text_with_an_added_token_goes_the_long_way() {
        for tokenizer in files() {
            let fast = Fast::of(&tokenizer).unwrap();
            assert!(fast.encode(&tokenizer, "a<|im_end|>b").is_none());
            assert!(fast.encode(&tokenizer, "a<|im_end|").is_some());
        }
        let last = files().pop().unwrap();
        let fast = Fast::of(&last).unwrap();
        // The sign of kelvin and the Greek question mark are a K and a semicolon once they are normalized.
        assert!(fast.encode(&last, "a \u{212a}\u{37e} b").is_none());
        assert!(fast.encode(&last, "a \u{212a} b").is_some());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn the_short_way_and_the_long_way_give_the_same_ids(
            parts in prop::collection::vec(prop_oneof![
                "(?s).{0,12}",
                "[ \\t\\r\\n\u{a0}\u{3000}\u{85}\u{2028}]{0,6}",
                "[0-9\u{660}\u{2160}]{0,7}",
                "(I|we|x)?'(s|S|T|ll|LL|re|VE|\u{17f}|d)[a-zA-Z]?",
                "[aeoK\u{212a}\u{37e}\u{ac00}\u{1100}\u{93f}][\u{300}-\u{330}\u{1161}\u{11a8}\u{93c}]{0,3}",
                "\\PC{0,8}", "[a-zA-Z ,.(){};/]{0,24}",
                "<\\|?(im_end|endoftext|think|K;)\\|?>",
            ], 0..8),
            ids in prop::collection::vec(0u32..6346, 0..24),
        ) {
            thread_local!(static FILES: Vec<(tokenizers::Tokenizer, Fast)> =
                files().into_iter().map(|file| { let fast = Fast::of(&file).unwrap(); (file, fast) }).collect());
            FILES.with(|files| {
                for (file, fast) in files {
                    prop_assert_eq!(fast.decode(file, &ids), Some(file.decode(&ids, false).unwrap()));
                    for text in [parts.concat(), file.decode(&ids, false).unwrap()] {
                        let usual = file.encode_fast(text.as_str(), false).unwrap();
                        if let Some(ids) = fast.encode(file, &text) {
                            prop_assert_eq!(&ids[..], usual.get_ids(), "{:?}", text);
                            prop_assert_eq!(fast.count(file, &text), Some(ids.len()));
                            if let Some(ends) = fast.pieces(file, &text) {
                                let usual = file.encode(text.as_str(), false).unwrap();
                                for end in ends {
                                    let head = usual.get_offsets().iter().filter(|(_, to)| *to <= end.at).count();
                                    prop_assert_eq!(end.tokens as usize, head, "{:?}", &text[..end.at]);
                                }
                            }
                        } else {
                            let normal = fast.normal(&text);
                            prop_assert!(fast.added.is_match(&text) || fast.added.is_match(&*normal), "{:?}", text);
                        }
                    }
                }
                Ok(())
            })?;
        }
    }
}
