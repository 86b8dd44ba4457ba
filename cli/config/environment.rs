//! The reference's environment variables.
//!
//! What still means something is taken over. What would change results and cannot be taken over ends the run, unless it
//! says what is so anyway. The rest is accepted with a note, so that a script written for the reference runs and nothing in
//! it is ignored in silence.

use crate::refusal::Refusal;
use crate::values::seconds;
use maser_engine::clock::Nanos;
use maser_engine::metric::{OSL_MISMATCH_PCT, OSL_MISMATCH_TOKENS, USAGE_DIFF_PCT};
use maser_engine::net::Liveness;

const PREFIX: &str = "AIPERF_";

/// Which version of the internet protocol servers are reached by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum IpVersion {
    /// 4 where the name has such an address, else 6.
    #[default]
    Prefer4,
    /// 4 alone.
    Only4,
    /// 6 alone.
    Only6,
}

/// What the environment says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Environment {
    /// `AIPERF_HTTP_IP_VERSION`.
    pub(crate) ip_version: IpVersion,
    /// `AIPERF_WORKER_MAX_WORKERS_CAP`: executors at most.
    pub(crate) workers_cap: Option<u32>,
    /// `AIPERF_HTTP_CONNECTION_LIMIT`: connections of one executor at most.
    pub(crate) connections: Option<u32>,
    /// What `AIPERF_HTTP_X_…_FROM_CORRELATION_ID` say, in the order of [`SESSION_HEADERS`].
    session_headers: [Option<bool>; 4],
    /// `AIPERF_HTTP_VIDEO_POLL_INTERVAL`: pause before a video is asked for again, nanoseconds.
    pub(crate) video_poll: Option<Nanos>,
    /// `AIPERF_HTTP_FORCE_CLOSE`: each request has a connection of its own.
    pub(crate) force_close: bool,
    /// `AIPERF_HTTP_TCP_…`: when a peer that no longer answers is given up.
    pub(crate) liveness: Liveness,
    /// A remark for each variable without effect.
    pub(crate) notes: Vec<String>,
}

/// Variables that say whether a header carries the session's id too, the header, and whether it does where they do not say.
const SESSION_HEADERS: [(&str, &str, bool); 4] = [
    ("HTTP_X_SESSION_ID_FROM_CORRELATION_ID", "X-Session-ID", false),
    ("HTTP_X_SESSION_AFFINITY_FROM_CORRELATION_ID", "X-Session-Affinity", true),
    ("HTTP_X_SMG_ROUTING_KEY_FROM_CORRELATION_ID", "X-SMG-Routing-Key", false),
    ("HTTP_X_DYNAMO_SESSION_ID_FROM_CORRELATION_ID", "X-Dynamo-Session-ID", false),
];

impl Environment {
    /// The headers that carry a session's id beside the one that always does.
    pub(crate) fn session_headers(&self) -> Vec<String> {
        let wanted =
            SESSION_HEADERS.iter().zip(&self.session_headers).filter(|((.., usual), said)| said.unwrap_or(*usual));
        wanted.map(|((_, header, _), _)| (*header).to_owned()).collect()
    }
}

/// Beginnings of names, the part after [`PREFIX`], and why they have no effect. The first that fits counts.
const WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("TIMING_MAX_CATCHUP_SECONDS", "maser never moves a planned time"),
    ("TIMING_RATE_RAMP_UPDATE_INTERVAL", "rates are followed exactly, without updates"),
    ("TIMING_HIGH_RES_TIMER", "there is no other timer"),
    ("TIMING_", "maser has no such part"),
    ("ZMQ_", "maser is one process"),
    ("WORKER_", "maser is one process"),
    ("SERVICE_", "maser is one process"),
    ("POD_", "this version does not run on Kubernetes"),
    ("OPERATOR_", "this version does not run on Kubernetes"),
    ("K8S_", "this version does not run on Kubernetes"),
    ("JOB_", "this version does not run on Kubernetes"),
    ("RECORD_", "records are processed after the run"),
    ("DATASET_WEKA_", "this version has no such replay"),
    ("DATASET_TRACELAB_", "this version has no such replay"),
    ("DATASET_PREFORMAT_PAYLOADS", "requests are always made before the run, and their lengths are kept"),
    ("DATASET_", "maser prepares all requests before the run"),
    ("COMPRESSION_", "maser sends no data between processes"),
    ("TOKENIZER_", "maser downloads no tokenizers"),
    ("METRICS_LIST_BACKEND", "maser's percentiles are exact"),
    ("METRICS_TDIGEST_COMPRESSION", "maser's percentiles are exact"),
    ("METRICS_EXPORT_FLUSH_INTERVAL", "files are written after the run"),
    ("HTTP_SSL_VERIFY", "this version speaks no https"),
    ("HTTP_TRUST_ENV", "no proxy is named in the environment"),
    ("HTTP_", "maser has a transport of its own"),
    ("DAG_", "this version has no such replay"),
    ("AGENTX_", "this version has no such replay"),
    ("ACCURACY_", "this version does not measure accuracy"),
    ("SEARCH_PLANNER_", "this version has no searches"),
    ("NETWORK_LATENCY_", "this version does not measure it"),
    ("GPU_", "this version collects no GPU telemetry"),
    ("SERVER_METRICS_", "this version collects no server metrics"),
    ("OTEL_", "this version sends nothing to OpenTelemetry"),
    ("MLFLOW_", "this version sends nothing to MLflow"),
    ("WANDB_", "this version sends nothing to Weights & Biases"),
    ("API_SERVER_", "this version has no server of its own"),
    ("CHAT_", "this version has no chat"),
    ("LOGGING_", "maser keeps no log of messages"),
    ("UI_", "it only changes what is shown"),
    ("DEV_", "it only serves AIPerf's developers"),
    ("RAISE_ON_CALLBACK_ERROR", "it only serves AIPerf's developers"),
];

/// What a variable must say to change nothing.
#[derive(Debug, Clone, Copy)]
enum Usual {
    /// A number.
    Number(f64),
    /// No.
    False,
    /// This text.
    Text(&'static str),
}

impl Usual {
    fn is(self, value: &str) -> bool {
        match self {
            Self::Number(n) => value.parse() == Ok(n),
            Self::False => truth(value) == Some(false),
            Self::Text(text) => value.eq_ignore_ascii_case(text),
        }
    }
}

/// Variables that change results in a way that this version does not have: the part after [`PREFIX`], what it says without
/// one, and what it changes.
const UNSUPPORTED: &[(&str, Usual, &str)] = &[
    ("METRICS_OSL_MISMATCH_PCT_THRESHOLD", Usual::Number(OSL_MISMATCH_PCT), "which output lengths count as mismatched"),
    (
        "METRICS_OSL_MISMATCH_MAX_TOKEN_THRESHOLD",
        Usual::Number(OSL_MISMATCH_TOKENS),
        "which output lengths count as mismatched",
    ),
    ("METRICS_USAGE_PCT_DIFF_THRESHOLD", Usual::Number(USAGE_DIFF_PCT), "which token counts count as discrepant"),
    ("ENDPOINT_FORCE_CONTENT_PARTS", Usual::False, "the bodies of chat requests"),
    ("DATASET_BASETEN_SESSION_COLUMN", Usual::Text("provided_session_id"), "which rows make a session"),
];

/// Variables that name a proxy, which `AIPERF_HTTP_TRUST_ENV` asks for.
const PROXIES: [&str; 4] = ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"];

/// Reads the variables that begin with `AIPERF_`.
///
/// # Errors
/// One that means something has a value that means nothing.
pub(crate) fn read(variables: impl IntoIterator<Item = (String, String)>) -> Result<Environment, Refusal> {
    let mut environment = Environment::default();
    let mut all: Vec<(String, String)> = variables.into_iter().collect();
    all.sort();
    let proxy = all.iter().find(|(name, value)| PROXIES.contains(&name.as_str()) && !value.is_empty());
    for (name, value) in all.iter().filter(|(name, _)| name.starts_with(PREFIX)) {
        let value = value.trim();
        match proxy {
            Some((proxy, _)) if name == "AIPERF_HTTP_TRUST_ENV" && truth(value) == Some(true) => {
                return Err(Refusal::new(format!(
                    "{name} in the environment: this version of maser does not go through a proxy ({proxy}); unset one \
                     of the two"
                )));
            }
            _ => take(&mut environment, name, value)?,
        }
    }
    Ok(environment)
}

/// Refuses a variable that would change results if it were taken over.
fn check(name: &str, value: &str) -> Result<(), Refusal> {
    let known = UNSUPPORTED.iter().find(|(own, ..)| *own == &name[PREFIX.len()..]);
    match known.filter(|(_, usual, _)| !usual.is(value)) {
        None => Ok(()),
        Some((_, _, what)) => Err(Refusal::new(format!(
            "{name}={value} in the environment changes {what}, which this version of maser does not support; unset it to \
             run without it"
        ))),
    }
}

fn take(environment: &mut Environment, name: &str, value: &str) -> Result<(), Refusal> {
    let wrong = |expected: &str| Refusal::new(format!("{name}={value} in the environment: expected {expected}"));
    match &name[PREFIX.len()..] {
        "HTTP_IP_VERSION" => {
            environment.ip_version = match value {
                "4" => IpVersion::Only4,
                "6" => IpVersion::Only6,
                "auto" => IpVersion::Prefer4,
                _ => return Err(wrong("4, 6 or auto")),
            };
        }
        "WORKER_MAX_WORKERS_CAP" => {
            let cap = value.parse().ok().filter(|n| *n > 0);
            environment.workers_cap = Some(cap.ok_or_else(|| wrong("a whole number of at least 1"))?);
        }
        "HTTP_CONNECTION_LIMIT" => {
            let limit = value.parse().ok().filter(|n| (1..=65_000).contains(n));
            environment.connections = Some(limit.ok_or_else(|| wrong("a whole number from 1 to 65000"))?);
        }
        "HTTP_VIDEO_POLL_INTERVAL" => {
            environment.video_poll = Some(seconds(value).map_err(|_| wrong("seconds above 0"))?);
        }
        "HTTP_FORCE_CLOSE" => {
            environment.force_close = truth(value).ok_or_else(|| wrong("true or false"))?;
        }
        rest @ ("HTTP_TCP_KEEPIDLE" | "HTTP_TCP_KEEPINTVL" | "HTTP_TCP_KEEPCNT" | "HTTP_TCP_USER_TIMEOUT") => {
            let (place, most) = match rest {
                "HTTP_TCP_KEEPIDLE" => (&mut environment.liveness.idle_s, 32_767),
                "HTTP_TCP_KEEPINTVL" => (&mut environment.liveness.interval_s, 32_767),
                "HTTP_TCP_KEEPCNT" => (&mut environment.liveness.count, 127),
                _ => (&mut environment.liveness.unacknowledged_ms, 1_000_000),
            };
            let number = value.parse().ok().filter(|n| (1..=most).contains(n));
            *place = number.ok_or_else(|| wrong(&format!("a whole number from 1 to {most}")))?;
        }
        rest => {
            if UNSUPPORTED.iter().any(|(own, ..)| *own == rest) {
                return check(name, value);
            }
            if let Some(k) = SESSION_HEADERS.iter().position(|(name, ..)| *name == rest) {
                environment.session_headers[k] = Some(truth(value).ok_or_else(|| wrong("true or false"))?);
                return Ok(());
            }
            let known = WITHOUT_EFFECT.iter().find(|(beginning, _)| rest.starts_with(beginning));
            let why = known.map_or("maser knows no such variable", |(_, why)| why);
            environment.notes.push(format!("{name} in the environment has no effect: {why}"));
        }
    }
    Ok(())
}

/// A yes or no as the reference reads it.
fn truth(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "true" | "t" | "yes" | "y" | "on" => Some(true),
        "0" | "false" | "f" | "no" | "n" | "off" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Environment, String> {
        let owned = variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        read(owned).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn what_means_something_is_taken_over() {
        let environment = of(&[
            ("AIPERF_HTTP_IP_VERSION", "6"),
            ("AIPERF_HTTP_VIDEO_POLL_INTERVAL", "0.25"),
            ("AIPERF_WORKER_MAX_WORKERS_CAP", "3"),
            ("AIPERF_HTTP_FORCE_CLOSE", "true"),
            ("AIPERF_HTTP_TCP_KEEPIDLE", "5"),
            ("AIPERF_HTTP_TCP_USER_TIMEOUT", "1500"),
            ("PATH", "/"),
        ]);
        let want = Environment {
            ip_version: IpVersion::Only6,
            workers_cap: Some(3),
            video_poll: Some(250_000_000),
            force_close: true,
            liveness: Liveness { idle_s: 5, unacknowledged_ms: 1500, ..Liveness::default() },
            ..Environment::default()
        };
        assert_eq!(environment, Ok(want));
        assert_eq!(of(&[]), Ok(Environment::default()));
        for (name, value, said) in [
            ("AIPERF_HTTP_IP_VERSION", "5", "expected 4, 6 or auto"),
            ("AIPERF_HTTP_VIDEO_POLL_INTERVAL", "0", "expected seconds above 0"),
            ("AIPERF_HTTP_FORCE_CLOSE", "perhaps", "expected true or false"),
            ("AIPERF_WORKER_MAX_WORKERS_CAP", "0", "expected a whole number of at least 1"),
            ("AIPERF_HTTP_TCP_KEEPCNT", "0", "expected a whole number from 1 to 127"),
            ("AIPERF_HTTP_CONNECTION_LIMIT", "65001", "expected a whole number from 1 to 65000"),
            ("AIPERF_HTTP_X_SESSION_ID_FROM_CORRELATION_ID", "2", "expected true or false"),
        ] {
            assert_eq!(of(&[(name, value)]), Err(format!("{name}={value} in the environment: {said}")));
        }
    }

    #[test]
    fn headers_of_a_session_and_connections_are_as_said() {
        let said = of(&[
            ("AIPERF_HTTP_X_SESSION_AFFINITY_FROM_CORRELATION_ID", "False"),
            ("AIPERF_HTTP_X_SMG_ROUTING_KEY_FROM_CORRELATION_ID", "1"),
            ("AIPERF_HTTP_CONNECTION_LIMIT", "7"),
        ])
        .unwrap();
        assert_eq!((said.session_headers(), said.connections), (vec!["X-SMG-Routing-Key".to_owned()], Some(7)));
        assert!(said.notes.is_empty());
        assert_eq!(Environment::default().session_headers(), ["X-Session-Affinity"]);
    }

    #[test]
    fn what_would_change_results_ends_the_run_unless_it_says_what_is_so_anyway() {
        for (name, usual, other) in [
            ("METRICS_OSL_MISMATCH_PCT_THRESHOLD", "5", "10"),
            ("METRICS_OSL_MISMATCH_MAX_TOKEN_THRESHOLD", "50.0", "49"),
            ("METRICS_USAGE_PCT_DIFF_THRESHOLD", "10.0", "20"),
            ("ENDPOINT_FORCE_CONTENT_PARTS", "false", "1"),
            ("DATASET_BASETEN_SESSION_COLUMN", "provided_session_id", "none"),
        ] {
            let name = format!("{PREFIX}{name}");
            assert_eq!(of(&[(&name, usual)]), Ok(Environment::default()), "{name}");
            let said = of(&[(&name, other)]).unwrap_err();
            assert!(said.starts_with(&format!("{name}={other} in the environment changes ")), "{said}");
        }
        let trust = ("AIPERF_HTTP_TRUST_ENV", "true");
        assert_eq!(of(&[trust]).map(|e| e.notes.len()), Ok(1));
        let said = of(&[trust, ("HTTP_PROXY", "http://user:pw@p:1")]).unwrap_err();
        assert!(said.contains("does not go through a proxy (HTTP_PROXY)") && !said.contains("pw"), "{said}");
    }

    /// The beginnings of the names of all variables of the reference 0.13.
    #[test]
    fn every_variable_of_the_reference_is_known() {
        for group in [
            "ACCURACY_",
            "AGENTX_",
            "API_SERVER_",
            "CHAT_",
            "COMPRESSION_",
            "DATASET_",
            "DAG_",
            "DEV_",
            "GPU_",
            "HTTP_",
            "LOGGING_",
            "METRICS_LIST_BACKEND",
            "METRICS_TDIGEST_COMPRESSION",
            "METRICS_EXPORT_FLUSH_INTERVAL",
            "MLFLOW_",
            "OPERATOR_",
            "OTEL_",
            "POD_",
            "RECORD_",
            "SEARCH_PLANNER_",
            "NETWORK_LATENCY_",
            "SERVER_METRICS_",
            "SERVICE_",
            "TIMING_",
            "TOKENIZER_",
            "UI_",
            "WANDB_",
            "WORKER_",
            "ZMQ_",
            "RAISE_ON_CALLBACK_ERROR",
        ] {
            let name = format!("{PREFIX}{group}");
            let notes = of(&[(&name, "1")]).map(|e| e.notes).unwrap_or_default();
            assert!(notes.len() == 1 && !notes[0].contains("knows no such"), "{name}: {notes:?}");
        }
    }

    #[test]
    fn the_rest_is_accepted_with_its_reason() {
        let environment = of(&[
            ("AIPERF_ZMQ_PULL_YIELD_INTERVAL", "1"),
            ("AIPERF_TIMING_MAX_CATCHUP_SECONDS", "1"),
            ("AIPERF_SOMETHING", "1"),
        ]);
        let notes = environment.map(|e| e.notes).unwrap_or_default();
        assert_eq!(
            notes,
            [
                "AIPERF_SOMETHING in the environment has no effect: maser knows no such variable",
                "AIPERF_TIMING_MAX_CATCHUP_SECONDS in the environment has no effect: maser never moves a planned time",
                "AIPERF_ZMQ_PULL_YIELD_INTERVAL in the environment has no effect: maser is one process",
            ]
        );
    }
}
