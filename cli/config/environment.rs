//! The reference's environment variables.
//!
//! What still means something is taken over; the rest is accepted with a note, so that a script written for the
//! reference runs and nothing in it is ignored in silence.

use crate::refusal::Refusal;
use crate::values::seconds;
use maser_engine::clock::Nanos;

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
    /// `AIPERF_HTTP_VIDEO_POLL_INTERVAL`: pause before a video is asked for again, nanoseconds.
    pub(crate) video_poll: Option<Nanos>,
    /// A remark for each variable without effect.
    pub(crate) notes: Vec<String>,
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
    ("RECORD_", "records are processed after the run"),
    ("DATASET_", "maser prepares all requests before the run"),
    ("HTTP_CONNECTION_LIMIT", "connections are limited by --concurrency and by the descriptors of the process"),
    ("HTTP_", "maser has a transport of its own"),
    ("DAG_", "this version has no such replay"),
    ("AGENTX_", "this version has no such replay"),
    ("NETWORK_LATENCY_", "this version does not measure it"),
    ("GPU_", "this version reads no GPU telemetry"),
    ("SERVER_METRICS_", "this version reads no server metrics"),
];

/// Reads the variables that begin with `AIPERF_`.
///
/// # Errors
/// One that means something has a value that means nothing.
pub(crate) fn read(variables: impl IntoIterator<Item = (String, String)>) -> Result<Environment, Refusal> {
    let mut environment = Environment::default();
    let mut own: Vec<(String, String)> = variables.into_iter().filter(|(name, _)| name.starts_with(PREFIX)).collect();
    own.sort();
    for (name, value) in own {
        take(&mut environment, &name, value.trim())?;
    }
    Ok(environment)
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
        "HTTP_VIDEO_POLL_INTERVAL" => {
            environment.video_poll = Some(seconds(value).map_err(|_| wrong("seconds above 0"))?);
        }
        rest => {
            let known = WITHOUT_EFFECT.iter().find(|(beginning, _)| rest.starts_with(beginning));
            let why = known.map_or("maser knows no such variable", |(_, why)| why);
            environment.notes.push(format!("{name} in the environment has no effect: {why}"));
        }
    }
    Ok(())
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
            ("PATH", "/"),
        ]);
        let want = Environment {
            ip_version: IpVersion::Only6,
            workers_cap: Some(3),
            video_poll: Some(250_000_000),
            notes: Vec::new(),
        };
        assert_eq!(environment, Ok(want));
        assert_eq!(of(&[]), Ok(Environment::default()));
        for (name, value, said) in [
            ("AIPERF_HTTP_IP_VERSION", "5", "expected 4, 6 or auto"),
            ("AIPERF_HTTP_VIDEO_POLL_INTERVAL", "0", "expected seconds above 0"),
            ("AIPERF_WORKER_MAX_WORKERS_CAP", "0", "expected a whole number of at least 1"),
        ] {
            assert_eq!(of(&[(name, value)]), Err(format!("{name}={value} in the environment: {said}")));
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
