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

/// Bytes of the text of tokens `from..from + count`.
pub(super) fn len(from: u32, count: u32) -> usize {
    (from..from + count).map(|k| token(k).len()).sum()
}

/// Appends the text of tokens `from..from + count`.
pub(super) fn append(out: &mut Vec<u8>, from: u32, count: u32) {
    for k in from..from + count {
        out.extend_from_slice(token(k).as_bytes());
    }
}
