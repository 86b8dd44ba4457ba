//! The text of answers: words that are one token each.

/// Every one of these, with its space, is exactly one token of OpenAI's o200k_base and cl100k_base, and since both split
/// in front of a space, so is each in any row of them. (Counted once with the crate bpe-openai 0.3.)
const WORDS: [&str; 97] = [
    " the", " of", " and", " a", " to", " in", " is", " you", " that", " it", " he", " was", " for", " on", " are",
    " as", " with", " his", " they", " at", " be", " this", " have", " from", " or", " one", " had", " by", " word",
    " but", " not", " what", " all", " were", " we", " when", " your", " can", " said", " there", " use", " an",
    " each", " which", " she", " do", " how", " their", " if", " will", " up", " other", " about", " out", " many",
    " then", " them", " these", " so", " some", " her", " would", " make", " like", " him", " into", " time", " has",
    " look", " two", " more", " write", " go", " see", " no", " way", " could", " my", " than", " first", " water",
    " been", " call", " who", " oil", " its", " now", " find", " long", " down", " day", " did", " get", " come",
    " made", " may", " part",
];

/// Token `k` of any answer.
pub fn token(k: u32) -> &'static str {
    WORDS[k as usize % WORDS.len()]
}

/// The text of tokens `from..from + count` of an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text {
    pub(super) from: u32,
    pub(super) count: u32,
    /// A token that is a number instead of a word: which one, and the number, below 1000.
    pub(super) number: Option<(u32, u16)>,
}

impl Text {
    /// Where the number stands in this text, if it does.
    fn number(self) -> Option<(u32, u16)> {
        self.number.filter(|(at, _)| (self.from..self.from + self.count).contains(at))
    }
}

/// Bytes of a text.
pub(super) fn len(text: Text) -> usize {
    let words = |from: u32, to: u32| -> usize { (from..to).map(|k| token(k).len()).sum() };
    let end = text.from + text.count;
    match text.number() {
        None => words(text.from, end),
        Some((at, n)) => words(text.from, at) + digits(n).1 + words(at + 1, end),
    }
}

/// Appends a text.
pub(super) fn append(out: &mut Vec<u8>, text: Text) {
    let number = text.number();
    for k in text.from..text.from + text.count {
        match number {
            Some((at, n)) if at == k => {
                let (digits, len) = digits(n);
                out.extend_from_slice(&digits[3 - len..]);
            }
            _ => out.extend_from_slice(token(k).as_bytes()),
        }
    }
}

/// Three digits of a number below 1000, and how many of them count. The vocabularies have one token for any of these
/// numbers, without a space in front.
fn digits(n: u16) -> ([u8; 3], usize) {
    let mut digits = [0; 3];
    super::digits::put_decimal(&mut digits, n.into());
    (
        digits,
        if n < 10 {
            1
        } else if n < 100 {
            2
        } else {
            3
        },
    )
}
