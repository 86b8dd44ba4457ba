//! Token counts as servers report them, in every spelling.

use crate::record::UNKNOWN;
use crate::said::{Counter, Said};
use crate::wire::json::Scanner;

/// Token counts as a server reports them; [`UNKNOWN`] where it does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the input, those of a cache included.
    pub prompt: u32,
    /// Tokens of the output, reasoning included.
    pub completion: u32,
    /// Tokens of reasoning.
    pub reasoning: u32,
    /// Tokens of the input that were had from a cache.
    pub cached: u32,
    /// All tokens.
    pub total: u32,
    /// What few servers say.
    pub said: Said,
}

impl Default for Usage {
    /// Nothing known.
    fn default() -> Self {
        Self {
            prompt: UNKNOWN,
            completion: UNKNOWN,
            reasoning: UNKNOWN,
            cached: UNKNOWN,
            total: UNKNOWN,
            said: Said::default(),
        }
    }
}

/// One of the counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Field {
    Prompt,
    Completion,
    Reasoning,
    Cached,
    Total,
}

impl Field {
    const ALL: [Self; 5] = [Self::Prompt, Self::Completion, Self::Reasoning, Self::Cached, Self::Total];

    /// The one that is number `n`.
    pub(super) fn from_number(n: u8) -> Option<Self> {
        Self::ALL.get(usize::from(n)).copied()
    }
}

impl Usage {
    #[inline]
    pub(super) fn put(&mut self, field: Field, count: u32) {
        *match field {
            Field::Prompt => &mut self.prompt,
            Field::Completion => &mut self.completion,
            Field::Reasoning => &mut self.reasoning,
            Field::Cached => &mut self.cached,
            Field::Total => &mut self.total,
        } = count;
    }

    /// Takes what a later count of the same answer says; what it leaves out stays. An input count that does not tell of
    /// the cache never lowers one that did: some streams count the input in full at their begin, and at their end only
    /// what was not cached.
    #[inline]
    pub fn update(&mut self, later: &Self) {
        let take = |known: &mut u32, said: u32| {
            if said != UNKNOWN {
                *known = said;
            }
        };
        if !(self.cached != UNKNOWN && later.cached == UNKNOWN && self.prompt != UNKNOWN && later.prompt < self.prompt)
        {
            take(&mut self.prompt, later.prompt);
        }
        take(&mut self.completion, later.completion);
        take(&mut self.reasoning, later.reasoning);
        take(&mut self.cached, later.cached);
        take(&mut self.total, later.total);
        if !later.said.is_empty() {
            self.said.update(&later.said);
        }
    }
}

/// Reads the next value as token counts; `None` for anything but an object with members.
///
/// The names are those of OpenAI, Anthropic, Gemini, Bedrock, Cohere, DeepSeek, Mistral, TGI and watsonx. Where counts of a cache stand
/// beside `input_tokens` and not within its details, they are apart from it, and the input is the sum of all.
pub(super) fn read(scanner: &mut Scanner<'_>) -> Option<Usage> {
    if !scanner.open_object() {
        return None;
    }
    let mut usage = Usage::default();
    let mut apart = 0u32;
    let mut apart_from = false;
    let mut beside = false;
    let mut any = false;
    while let Some(key) = scanner.next_key() {
        any = true;
        match key {
            b"prompt_tokens" | b"promptTokenCount" | b"input_token_count" | b"prompt_eval_count" => {
                set(Field::Prompt, &mut usage, scanner);
            }
            b"input_tokens" | b"inputTokens" => apart_from |= set(Field::Prompt, &mut usage, scanner),
            b"completion_tokens"
            | b"output_tokens"
            | b"candidatesTokenCount"
            | b"outputTokens"
            | b"generated_token_count"
            | b"generated_tokens"
            | b"eval_count" => {
                set(Field::Completion, &mut usage, scanner);
            }
            b"total_tokens" | b"totalTokenCount" | b"totalTokens" => {
                set(Field::Total, &mut usage, scanner);
            }
            b"completion_tokens_details" | b"output_tokens_details" => {
                details(scanner, |name, scanner| completion_detail(name, scanner, &mut usage));
            }
            // The last as OpenAI's transcriptions have it.
            b"prompt_tokens_details" | b"input_tokens_details" | b"input_token_details" => {
                details(scanner, |name, scanner| prompt_detail(name, scanner, &mut usage));
            }
            b"reasoning_tokens" | b"thoughtsTokenCount" => {
                set(Field::Reasoning, &mut usage, scanner);
            }
            b"cachedContentTokenCount" | b"prompt_cache_hit_tokens" => {
                set(Field::Cached, &mut usage, scanner);
            }
            b"cache_read_input_tokens" | b"cacheReadInputTokens" => {
                beside |= set(Field::Cached, &mut usage, scanner);
            }
            b"cache_creation_input_tokens" | b"cacheWriteInputTokens" => {
                if let Some(count) = scanner.count() {
                    apart = count;
                    beside = true;
                    usage.said.set(Counter::CacheWrite, f64::from(apart));
                }
            }
            b"prompt_cache_miss_tokens" => note(Counter::CacheMiss, scanner, &mut usage),
            b"toolUsePromptTokenCount" => note(Counter::ToolUsePrompt, scanner, &mut usage),
            b"prompt_audio_seconds" => note(Counter::PromptAudioSeconds, scanner, &mut usage),
            b"tokens" | b"usageMetadata" => {
                // Which count wins depends on the counts.
                scanner.distrust();
                if let Some(inner) = read(scanner) {
                    usage.update(&inner);
                }
            }
            _ => scanner.skip(),
        }
    }
    if beside && apart_from && usage.prompt != UNKNOWN {
        scanner.distrust();
        let cached = if usage.cached == UNKNOWN { 0 } else { usage.cached };
        usage.prompt = usage.prompt.saturating_add(cached).saturating_add(apart);
    }
    any.then_some(usage)
}

/// Reads `meta`, in which Cohere keeps its counts.
#[cold]
pub(super) fn read_meta(scanner: &mut Scanner<'_>) -> Option<Usage> {
    let mut usage = None;
    if scanner.open_object() {
        while let Some(key) = scanner.next_key() {
            match key {
                b"tokens" => usage = read(scanner),
                _ => scanner.skip(),
            }
        }
    }
    usage
}

/// A `null` beside another spelling of the same count takes nothing away. Whether there was a count.
fn set(field: Field, usage: &mut Usage, scanner: &mut Scanner<'_>) -> bool {
    let said = scanner.count_as(field as u8);
    if let Some(count) = said {
        usage.put(field, count);
    }
    said.is_some()
}

/// Takes an object of details, each member by `take`.
fn details<'a>(scanner: &mut Scanner<'a>, mut take: impl FnMut(&[u8], &mut Scanner<'a>)) {
    if scanner.open_object() {
        while let Some(name) = scanner.next_key() {
            take(name, scanner);
        }
    }
}

fn prompt_detail(name: &[u8], scanner: &mut Scanner<'_>, usage: &mut Usage) {
    match name {
        b"cached_tokens" => {
            set(Field::Cached, usage, scanner);
        }
        b"audio_tokens" => note(Counter::PromptAudio, scanner, usage),
        _ => scanner.skip(),
    }
}

fn completion_detail(name: &[u8], scanner: &mut Scanner<'_>, usage: &mut Usage) {
    match name {
        b"reasoning_tokens" => {
            set(Field::Reasoning, usage, scanner);
        }
        b"audio_tokens" => note(Counter::CompletionAudio, scanner, usage),
        b"accepted_prediction_tokens" => note(Counter::AcceptedPrediction, scanner, usage),
        b"rejected_prediction_tokens" => note(Counter::RejectedPrediction, scanner, usage),
        _ => scanner.skip(),
    }
}

/// Takes a number; anything else says nothing.
#[cold]
pub(super) fn note(counter: Counter, scanner: &mut Scanner<'_>, usage: &mut Usage) {
    let number = std::str::from_utf8(scanner.raw()).ok().and_then(|text| text.parse().ok());
    if let Some(number) = number {
        usage.said.set(counter, number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO: u32 = UNKNOWN;

    fn usage(json: &str) -> Option<Usage> {
        let mut scanner = Scanner::new(json.as_bytes());
        let usage = read(&mut scanner);
        assert_eq!(scanner.end(), Ok(()), "{json}");
        usage
    }

    fn counts([prompt, completion, reasoning, cached, total]: [u32; 5]) -> Option<Usage> {
        Some(Usage { prompt, completion, reasoning, cached, total, said: Said::default() })
    }

    #[test]
    fn what_few_servers_say_is_kept() {
        use Counter::*;
        let table: [(&str, &[(Counter, f64)]); 8] = [
            (r#"{"input_tokens":3,"cache_creation_input_tokens":10}"#, &[(CacheWrite, 10.0)]),
            (r#"{"inputTokens":3,"cacheWriteInputTokens":0}"#, &[(CacheWrite, 0.0)]),
            (r#"{"prompt_tokens":9,"prompt_cache_hit_tokens":4,"prompt_cache_miss_tokens":5}"#, &[(CacheMiss, 5.0)]),
            (r#"{"promptTokenCount":9,"toolUsePromptTokenCount":2}"#, &[(ToolUsePrompt, 2.0)]),
            (r#"{"prompt_tokens":9,"prompt_audio_seconds":2.5}"#, &[(PromptAudioSeconds, 2.5)]),
            (
                r#"{"type":"tokens","input_tokens":9,"input_token_details":{"text_tokens":0,"audio_tokens":9}}"#,
                &[(PromptAudio, 9.0)],
            ),
            (
                r#"{"prompt_tokens_details":{"audio_tokens":1,"cached_tokens":0},"completion_tokens_details":
                {"audio_tokens":2,"accepted_prediction_tokens":3,"rejected_prediction_tokens":4,"x":{}}}"#,
                &[(PromptAudio, 1.0), (CompletionAudio, 2.0), (AcceptedPrediction, 3.0), (RejectedPrediction, 4.0)],
            ),
            (
                r#"{"prompt_audio_seconds":{},"prompt_cache_miss_tokens":null,"toolUsePromptTokenCount":-2,
                "cache_creation_input_tokens":"x"}"#,
                &[],
            ),
        ];
        for (json, want) in table {
            let mut said = Said::default();
            for (counter, value) in want {
                said.set(*counter, *value);
            }
            assert_eq!(usage(json).map(|u| u.said), Some(said), "{json}");
        }
        let hit = usage(r#"{"prompt_tokens":9,"prompt_cache_hit_tokens":4}"#).map(|u| u.cached);
        assert_eq!(hit, Some(4));
    }

    #[test]
    fn every_spelling_is_read() {
        for (json, want) in [
            (r#"{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}"#, [1, 2, NO, NO, 3]),
            (
                r#"{"input_tokens":9,"input_tokens_details":{"cached_tokens":4},"output_tokens":6,"output_tokens_details":{"reasoning_tokens":5},"total_tokens":15}"#,
                [9, 6, 5, 4, 15],
            ),
            (
                r#"{"promptTokenCount":1,"candidatesTokenCount":2,"thoughtsTokenCount":3,"cachedContentTokenCount":4,"totalTokenCount":6}"#,
                [1, 2, 3, 4, 6],
            ),
            (r#"{"inputTokens":1,"outputTokens":2,"totalTokens":3}"#, [1, 2, NO, NO, 3]),
            (r#"{"input_token_count":1,"generated_token_count":2}"#, [1, 2, NO, NO, NO]),
            (r#"{"tokens":{"input_tokens":1,"output_tokens":2}}"#, [1, 2, NO, NO, NO]),
            // Apart from the input, and within it.
            (
                r#"{"input_tokens":3,"cache_creation_input_tokens":10,"cache_read_input_tokens":100}"#,
                [113, NO, NO, 100, NO],
            ),
            (r#"{"cacheReadInputTokens":100,"inputTokens":3,"cacheWriteInputTokens":null}"#, [103, NO, NO, 100, NO]),
            (
                r#"{"prompt_tokens":113,"cache_creation_input_tokens":10,"cache_read_input_tokens":100}"#,
                [113, NO, NO, 100, NO],
            ),
            (
                r#"{"prompt_tokens":65,"completion_tokens":7,"input_tokens":null,"output_tokens":null}"#,
                [65, 7, NO, NO, NO],
            ),
            (r#"{"prompt_tokens":"x","completion_tokens":1.5,"tokens":[1],"total_tokens":{}}"#, [NO; 5]),
        ] {
            let usage = usage(json).map(|usage| Usage { said: Said::default(), ..usage });
            assert_eq!(usage, counts(want), "{json}");
        }
        for none in ["{}", "null", "[]", "7"] {
            assert_eq!(usage(none), None);
        }
    }

    #[test]
    fn a_later_count_adds_to_an_earlier_one() {
        let Some(mut all) = usage(r#"{"input_tokens":3,"cache_read_input_tokens":100,"output_tokens":1}"#) else {
            panic!("no usage");
        };
        all.update(&usage(r#"{"input_tokens":3,"output_tokens":9}"#).unwrap_or_default());
        assert_eq!(Some(all), counts([103, 9, NO, 100, NO]));
        all.update(&usage(r#"{"output_tokens":10,"total_tokens":113}"#).unwrap_or_default());
        assert_eq!(Some(all), counts([103, 10, NO, 100, 113]));
        all.update(&Usage::default());
        assert_eq!(Some(all), counts([103, 10, NO, 100, 113]));
    }
}
