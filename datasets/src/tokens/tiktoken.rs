//! The vocabularies that OpenAI publishes, by name, built in.
//!
//! Two are encoded in linear time; the older ones, which few models still have, by the usual merging. Special strings in a
//! text are one token each, as where all of them are allowed.

use std::sync::Arc;

use tiktoken_rs::CoreBPE;

use super::End;
use crate::Error;

/// A special string and its id.
type Special = (&'static str, u32);

const O200K: &[Special] = &[("<|endoftext|>", 199_999), ("<|endofprompt|>", 200_018)];
const CL100K: &[Special] = &[
    ("<|endoftext|>", 100_257),
    ("<|fim_prefix|>", 100_258),
    ("<|fim_middle|>", 100_259),
    ("<|fim_suffix|>", 100_260),
    ("<|endofprompt|>", 100_276),
];
const HARMONY: &[Special] = &[
    ("<|startoftext|>", 199_998),
    ("<|endoftext|>", 199_999),
    ("<|return|>", 200_002),
    ("<|constrain|>", 200_003),
    ("<|channel|>", 200_005),
    ("<|start|>", 200_006),
    ("<|end|>", 200_007),
    ("<|message|>", 200_008),
    ("<|call|>", 200_012),
];
const P50K: &[Special] = &[("<|endoftext|>", 50_256)];
const P50K_EDIT: &[Special] =
    &[("<|endoftext|>", 50_256), ("<|fim_prefix|>", 50_281), ("<|fim_middle|>", 50_282), ("<|fim_suffix|>", 50_283)];

/// The numbered special strings of `o200k_harmony` that have no other name.
const HARMONY_RESERVED: &str = "<|reserved_";

/// The names, for `--tokenizer`.
pub(super) const NAMES: [&str; 6] =
    ["o200k_base", "o200k_harmony", "cl100k_base", "p50k_base", "p50k_edit", "r50k_base"];

/// One vocabulary.
pub(super) struct Vocabulary {
    bpe: Bpe,
    specials: &'static [Special],
    reserved: bool,
}

enum Bpe {
    Linear(&'static bpe_openai::Tokenizer),
    Merging(Arc<CoreBPE>),
}

impl Vocabulary {
    pub(super) fn o200k() -> Self {
        Self { bpe: Bpe::Linear(bpe_openai::o200k_base()), specials: O200K, reserved: false }
    }

    /// The vocabulary called `name`, if it is one of [`NAMES`].
    ///
    /// # Errors
    /// Where its table cannot be read: a fault of the build, not of the caller.
    pub(super) fn named(name: &str) -> Option<Result<Self, Error>> {
        let linear = |bpe, specials| Ok(Self { bpe: Bpe::Linear(bpe), specials, reserved: false });
        let merging = |table: Result<CoreBPE, _>, specials| match table {
            Ok(table) => Ok(Self { bpe: Bpe::Merging(Arc::new(table)), specials, reserved: false }),
            Err(e) => Err(Error(format!("--tokenizer {name}: {e}"))),
        };
        Some(match name {
            "o200k_base" => Ok(Self::o200k()),
            "o200k_harmony" => Ok(Self { specials: HARMONY, reserved: true, ..Self::o200k() }),
            "cl100k_base" => linear(bpe_openai::cl100k_base(), CL100K),
            "p50k_base" => merging(tiktoken_rs::p50k_base(), P50K),
            "p50k_edit" => merging(tiktoken_rs::p50k_base(), P50K_EDIT),
            "r50k_base" => merging(tiktoken_rs::r50k_base(), P50K),
            _ => return None,
        })
    }

    pub(super) fn count(&self, text: &str) -> usize {
        let count = |piece| match (piece, &self.bpe) {
            (Piece::Special(_), _) => 1,
            (Piece::Text(text), Bpe::Linear(bpe)) => bpe.count(text),
            (Piece::Text(text), Bpe::Merging(bpe)) => bpe.count_ordinary(text),
        };
        self.pieces(text).map(count).sum()
    }

    pub(super) fn encode(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        for piece in self.pieces(text) {
            match (piece, &self.bpe) {
                (Piece::Special(id), _) => ids.push(id),
                (Piece::Text(text), Bpe::Linear(bpe)) => ids.extend(bpe.encode(text)),
                (Piece::Text(text), Bpe::Merging(bpe)) => ids.extend(bpe.encode_ordinary(text)),
            }
        }
        ids
    }

    /// Where the pieces of `text` end that are encoded by themselves; none with the vocabularies that merge.
    pub(super) fn pieces_of(&self, text: &str) -> Option<Vec<End>> {
        let Bpe::Linear(bpe) = &self.bpe else { return None };
        let (mut ends, mut end) = (Vec::with_capacity(text.len() / 5), End { at: 0, tokens: 0 });
        let mut put = |len: usize, tokens: usize| {
            end = End { at: end.at + len, tokens: end.tokens + tokens as u32 };
            ends.push(end);
        };
        for part in self.pieces(text) {
            match part {
                Piece::Special(id) => put(self.special_text(id)?.len(), 1),
                Piece::Text(text) => {
                    bpe.split(text).for_each(|piece| put(piece.len(), bpe.bpe.count(piece.as_bytes())))
                }
            }
        }
        Some(ends)
    }

    /// The text of `ids`; those outside the vocabulary are left out.
    pub(super) fn decode(&self, ids: &[u32]) -> String {
        let mut bytes = Vec::with_capacity(ids.len() * 5);
        for &id in ids {
            if let Some(text) = self.special_text(id) {
                bytes.extend_from_slice(text.as_bytes());
            } else {
                self.put_bytes(id, &mut bytes);
            }
        }
        String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
    }

    /// Ids of tokens that are text. They are numbered from 0 without gaps.
    pub(super) fn text_ids(&self) -> Vec<u32> {
        let known = match &self.bpe {
            Bpe::Linear(bpe) => bpe.bpe.num_tokens() as u32,
            // p50k is r50k and runs of spaces after its end-of-text.
            Bpe::Merging(_) if self.decodes(50_280) => 50_281,
            Bpe::Merging(_) => 50_256,
        };
        (0..known).filter(|id| self.special_text(*id).is_none()).collect()
    }

    fn decodes(&self, id: u32) -> bool {
        let mut bytes = Vec::new();
        self.put_bytes(id, &mut bytes);
        !bytes.is_empty()
    }

    fn put_bytes(&self, id: u32, out: &mut Vec<u8>) {
        match &self.bpe {
            Bpe::Linear(bpe) if (id as usize) < bpe.bpe.num_tokens() => out.extend_from_slice(bpe.bpe.token_bytes(id)),
            Bpe::Linear(_) => {}
            Bpe::Merging(bpe) => out.extend(bpe.decode_bytes(&[id]).unwrap_or_default()),
        }
    }

    fn special_text(&self, id: u32) -> Option<String> {
        if let Some((text, _)) = self.specials.iter().find(|(_, special)| *special == id) {
            return Some((*text).to_owned());
        }
        (self.reserved && is_reserved(id)).then(|| format!("{HARMONY_RESERVED}{id}|>"))
    }

    /// The special string that `text` starts with: its length and id.
    fn special_at(&self, text: &str) -> Option<(usize, u32)> {
        if let Some((special, id)) = self.specials.iter().find(|(special, _)| text.starts_with(special)) {
            return Some((special.len(), *id));
        }
        let (digits, _) = text.strip_prefix(HARMONY_RESERVED).filter(|_| self.reserved)?.split_once("|>")?;
        let id = digits.parse().ok().filter(|id| digits.len() == 6 && is_reserved(*id))?;
        Some((HARMONY_RESERVED.len() + digits.len() + 2, id))
    }

    /// Cuts `text` at its special strings.
    fn pieces<'a>(&self, text: &'a str) -> impl Iterator<Item = Piece<'a>> {
        let mut rest = text;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let mut from = 0;
            while let Some(at) = rest[from..].find("<|").map(|at| at + from) {
                if let Some((len, id)) = self.special_at(&rest[at..]) {
                    if at > 0 {
                        let head = &rest[..at];
                        rest = &rest[at..];
                        return Some(Piece::Text(head));
                    }
                    rest = &rest[len..];
                    return Some(Piece::Special(id));
                }
                from = at + 1;
            }
            Some(Piece::Text(std::mem::take(&mut rest)))
        })
    }
}

fn is_reserved(id: u32) -> bool {
    (200_000..=201_087).contains(&id) && HARMONY.iter().all(|(_, named)| *named != id)
}

enum Piece<'a> {
    Text(&'a str),
    Special(u32),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vocabulary(name: &str) -> Vocabulary {
        Vocabulary::named(name).unwrap().unwrap()
    }

    #[test]
    fn ids_are_tiktoken_s() {
        // As published for the vocabularies.
        for (name, text, ids) in [
            ("o200k_base", "hello world", &[24912, 2375][..]),
            ("o200k_harmony", "<|start|>hello<|reserved_200013|>", &[200_006, 24912, 200_013]),
            ("cl100k_base", "hello world<|fim_prefix|>", &[15339, 1917, 100_258]),
            ("p50k_base", "hello    world", &[31373, 50258, 995]),
            ("p50k_edit", "hello<|fim_middle|>", &[31373, 50_282]),
            ("r50k_base", "hello world<|endoftext|>", &[31373, 995, 50_256]),
        ] {
            let vocabulary = vocabulary(name);
            assert_eq!(vocabulary.encode(text), ids, "{name}");
            assert_eq!(vocabulary.count(text), ids.len(), "{name}");
            assert_eq!(vocabulary.decode(ids), text, "{name}");
        }
        assert!(Vocabulary::named("gpt2").is_none());
    }

    #[test]
    fn linear_time_encoding_is_the_usual_one() {
        let texts = [
            include_str!("../../tests/data/mt_bench_question.jsonl"),
            include_str!("../../tests/data/token_counts.json"),
            "  a\t\tb\n\n\n   c  \u{1f469}\u{200d}\u{1f4bb} na\u{ef}ve\u{a0}\u{4f60}\u{597d} x**2 'LL I'm 1234567",
        ];
        for (name, usual) in [("cl100k_base", tiktoken_rs::cl100k_base()), ("o200k_base", tiktoken_rs::o200k_base())] {
            let (ours, usual) = (vocabulary(name), usual.unwrap());
            for text in texts.iter().flat_map(|text| text.lines()) {
                assert_eq!(ours.encode(text), usual.encode_ordinary(text), "{name}: {text:?}");
            }
        }
    }

    #[test]
    fn special_strings_of_other_vocabularies_are_text() {
        for (name, text) in [
            ("o200k_base", "<|start|>"),
            ("o200k_harmony", "<|reserved_200006|>"),
            ("o200k_harmony", "<|reserved_0200013|>"),
            ("o200k_harmony", "<|reserved_201088|>"),
            ("r50k_base", "<|fim_prefix|>"),
        ] {
            assert!(vocabulary(name).count(text) > 1, "{name} {text}");
        }
    }

    #[test]
    fn every_text_id_is_a_text() {
        for (name, size) in
            [("o200k_base", 199_998), ("cl100k_base", 100_256), ("p50k_base", 50_280), ("r50k_base", 50_256)]
        {
            let vocabulary = vocabulary(name);
            let ids = vocabulary.text_ids();
            assert_eq!(ids.len(), size, "{name}");
            assert!(ids.iter().step_by(97).all(|id| vocabulary.decodes(*id)), "{name}");
        }
    }
}
