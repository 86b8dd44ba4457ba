//! A server's account of the speculative decoding of one request.

use serde::Deserialize;

/// What vLLM reports of a request as `metrics.speculative_decoding`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Speculation {
    /// Steps in which draft tokens were verified.
    #[serde(rename = "num_spec_steps")]
    pub steps: u64,
    /// Draft tokens that were accepted.
    #[serde(rename = "num_accepted_draft_tokens")]
    pub accepted: u64,
    /// Draft tokens that were proposed.
    #[serde(rename = "num_draft_tokens")]
    pub drafted: u64,
    /// Steps by the number of draft tokens accepted in them, from 0 on.
    #[serde(rename = "acceptance_histogram", default)]
    pub histogram: Vec<u64>,
}

impl Speculation {
    /// Reads an account, JSON as it came. One without these counts says nothing: it is as if there were none.
    pub fn read(json: &[u8]) -> Option<Self> {
        if json.is_empty() { None } else { serde_json::from_slice(json).ok() }
    }

    /// Steps by the number of draft tokens accepted in them, numbers that did not occur left out.
    pub fn steps_by_accepted(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        (0..).zip(self.histogram.iter().copied()).filter(|(_, steps)| *steps > 0)
    }

    /// Mean tokens a step: the accepted ones and the one that the model adds.
    pub fn acceptance_length(&self) -> Option<f64> {
        ratio(self.accepted, self.steps).map(|share| 1.0 + share)
    }

    /// Accepted draft tokens, per cent of the proposed ones.
    pub fn acceptance_rate(&self) -> Option<f64> {
        ratio(self.accepted, self.drafted).map(|share| 100.0 * share)
    }

    /// Tokens that came out, to tokens that were verified: a step adds one to both.
    pub fn accepted_per_verified(&self) -> Option<f64> {
        ratio(self.accepted.saturating_add(self.steps), self.drafted.saturating_add(self.steps))
    }
}

fn ratio(of: u64, to: u64) -> Option<f64> {
    (to > 0).then(|| of as f64 / to as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_read_and_reckoned_with() {
        let json = br#"{"num_spec_tokens": 3, "num_spec_steps": 10, "num_accepted_draft_tokens": 12,
            "num_draft_tokens": 30, "acceptance_histogram": [4, 2, 2, 2], "mean_acceptance_length": 2.2}"#;
        let account = Speculation::read(json).unwrap();
        assert_eq!(account.acceptance_length(), Some(2.2));
        assert_eq!(account.acceptance_rate(), Some(40.0));
        assert_eq!(account.accepted_per_verified(), Some(22.0 / 40.0));
        assert_eq!(account.steps_by_accepted().collect::<Vec<_>>(), [(0, 4), (1, 2), (2, 2), (3, 2)]);
    }

    #[test]
    fn what_is_no_account_is_none() {
        for json in ["", "{}", "[]", r#"{"num_spec_steps": -1}"#, r#"{"steps": 3}"#] {
            assert_eq!(Speculation::read(json.as_bytes()), None, "{json}");
        }
        let idle = br#"{"num_spec_steps": 0, "num_accepted_draft_tokens": 0, "num_draft_tokens": 0}"#;
        let idle = Speculation::read(idle).unwrap();
        assert_eq!(
            (idle.acceptance_length(), idle.acceptance_rate(), idle.accepted_per_verified()),
            (None, None, None)
        );
    }
}
