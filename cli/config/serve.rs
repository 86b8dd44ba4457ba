//! The mock server's settings.

use crate::args;
use crate::refusal::Refusal;
use crate::values::{Cores, Fault, Io, Jitter};
use maser_engine::clock::{MILLI, Nanos};
use maser_engine::serve::MAX_TOKENS;
use std::path::PathBuf;

/// Most tokens drafted in a step: real drafts have up to ten or so.
const MAX_DRAFTED: u32 = 64;

/// A mock endpoint with known timing and faults: `maser serve`, or `maser profile --mock`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ServeConfig {
    /// Address to listen on.
    pub(crate) host: String,
    /// Port to listen on; 0 picks a free one.
    pub(crate) port: u16,
    /// Models to answer for, at least one.
    pub(crate) models: Vec<String>,
    /// From a request to its first token, nanoseconds.
    pub(crate) ttft: Nanos,
    /// From one token to the next, nanoseconds.
    pub(crate) itl: Nanos,
    /// Tokens of an answer where the request names no length.
    pub(crate) osl: u32,
    /// Tokens in one event of a stream, at least 1.
    pub(crate) tokens_per_chunk: u32,
    /// Tokens of reasoning at the start of each answer.
    pub(crate) reasoning: u32,
    /// Requests that offer tools are answered with calls.
    pub(crate) tool_calls: bool,
    /// Tokens drafted in a step of speculative decoding.
    pub(crate) spec_decode: Option<u32>,
    /// Answers begin with the number of messages.
    pub(crate) echo: bool,
    /// Share of prompts said to come from a cache.
    pub(crate) cached: f64,
    /// Usage tells what few vendors tell as well.
    pub(crate) usage_details: bool,
    /// How far intervals stray from their means.
    pub(crate) jitter: Jitter,
    /// What goes wrong, and how often; the fractions add up to at most 1.
    pub(crate) faults: Vec<Fault>,
    /// Where to write what was really sent, JSON lines.
    pub(crate) log: Option<PathBuf>,
    /// Seed of jitter and faults.
    pub(crate) seed: u64,
    /// The cores that may be used.
    pub(crate) cores: Cores,
    /// The kernel interface below the sockets.
    pub(crate) io: Io,
}

impl ServeConfig {
    /// Resolves the options of `maser serve`.
    pub(crate) fn resolve(args: args::Serve) -> Result<Self, Refusal> {
        Self::with_port(args, 8000)
    }

    /// Resolves `--mock=SPEC`; it listens on a free port unless the spec names one.
    pub(crate) fn mock(spec: &str) -> Result<Self, Refusal> {
        Self::with_port(args::parse_mock(spec)?, 0).map_err(|why| Refusal::new(format!("--mock={spec}: {why}")))
    }

    fn with_port(args: args::Serve, port: u16) -> Result<Self, Refusal> {
        let shares: f64 = args.faults.iter().map(|f| f.fraction).sum();
        if shares > 1.0 + 1e-9 {
            return Err(Refusal::new("--fault: the fractions add up to more than 1"));
        }
        if args.spec_decode.is_some() && args.tokens_per_chunk.is_some() {
            return Err(Refusal::new("--tokens-per-chunk: with --spec-decode it is the steps that say how many"));
        }
        if args.spec_decode.is_some_and(|n| n > MAX_DRAFTED) {
            return Err(Refusal::new(format!("--spec-decode: expected at most {MAX_DRAFTED} drafted tokens")));
        }
        if args.osl.is_some_and(|n| n > MAX_TOKENS) {
            return Err(Refusal::new(format!("--osl: expected at most {MAX_TOKENS} tokens")));
        }
        let host = args.host.unwrap_or_else(|| "127.0.0.1".into());
        if !is_host(&host) {
            return Err(Refusal::new(format!("--host {host}: expected a name or an address")));
        }
        let mut models = args.models;
        models.retain(|m| !m.trim().is_empty());
        if models.is_empty() {
            models.push("mock".into());
        }
        Ok(Self {
            host,
            port: args.port.unwrap_or(port),
            models,
            ttft: args.ttft.unwrap_or(20 * MILLI),
            itl: args.itl.unwrap_or(5 * MILLI),
            osl: args.osl.unwrap_or(32),
            tokens_per_chunk: args.tokens_per_chunk.unwrap_or(1),
            reasoning: args.reasoning.unwrap_or(0),
            tool_calls: args.tool_calls,
            spec_decode: args.spec_decode,
            echo: args.echo,
            cached: args.cached.unwrap_or(0.0),
            usage_details: args.usage_details,
            jitter: args.jitter.unwrap_or(Jitter::Span(0)),
            faults: args.faults,
            log: args.log,
            seed: args.seed.unwrap_or(0),
            cores: args.cores.unwrap_or(Cores::Auto),
            io: args.io.unwrap_or(Io::Auto),
        })
    }
}

fn is_host(text: &str) -> bool {
    let name = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    let is_name = !text.is_empty() && text.bytes().all(name);
    is_name || text.parse::<std::net::Ipv6Addr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::FaultKind;

    #[test]
    fn a_spec_fills_in_the_rest() {
        let mock = ServeConfig::mock("ttft=1.5,tokens-per-chunk=4,fault=reset:0.25").expect("a spec");
        assert_eq!((mock.ttft, mock.itl, mock.osl, mock.port), (1_500_000, 5_000_000, 32, 0));
        assert_eq!(mock.tokens_per_chunk, 4);
        let reset = Fault { kind: FaultKind::Reset, fraction: 0.25 };
        assert_eq!(mock.faults, [reset]);
        assert_eq!(mock.models, ["mock"]);
        assert_eq!(ServeConfig::mock("port=9000").map(|m| m.port), Ok(9000));
    }

    #[test]
    fn a_spec_may_say_what_answers_are_made_of() {
        let mock = ServeConfig::mock("reasoning=8,tool-calls,spec-decode=3,echo,cached=0.25").expect("a spec");
        assert_eq!((mock.reasoning, mock.tool_calls, mock.spec_decode, mock.echo), (8, true, Some(3), true));
        assert_eq!(mock.cached, 0.25);
        assert_eq!(ServeConfig::mock("tokens-per-event=4").map(|m| m.tokens_per_chunk), Ok(4));
        for (spec, why) in [
            (
                "spec-decode=3,tokens-per-event=4",
                "--tokens-per-chunk: with --spec-decode it is the steps that say how many",
            ),
            ("spec-decode=65", "--spec-decode: expected at most 64 drafted tokens"),
            ("osl=1048577", "--osl: expected at most 1048576 tokens"),
            ("cached=1.5", "--cached 1.5: expected a share from 0 to 1"),
        ] {
            let said = ServeConfig::mock(spec).expect_err(spec).to_string();
            assert!(said.ends_with(why), "{said}");
        }
    }

    #[test]
    fn faults_cannot_meet_more_than_every_request() {
        let said = ServeConfig::mock("fault=hang:0.6,fault=close:0.6").map_err(|r| r.to_string());
        assert_eq!(
            said.err().as_deref(),
            Some("--mock=fault=hang:0.6,fault=close:0.6: --fault: the fractions add up to more than 1")
        );
        assert!(ServeConfig::mock("fault=hang:0.7,fault=close:0.3").is_ok());
    }
}
