//! From settings to a plan: builds every request body, lays out the phases, resolves the server's address.

use super::Failure;
use super::bodies::Bodies;
use crate::config::{Arrival, FixedSchedule, Input, IpVersion, PhaseConfig, PhaseKind, ProfileConfig, Url};
use crate::redact;
use crate::refusal::Refusal;
use crate::values::ExportLevel;
use maser_datasets::file::Format;
use maser_engine::clock::Nanos;
use maser_engine::plan::{self, Capture, Phase, Plan, Requests, Reuse, Target};
use maser_engine::schedule::{self, Gaps, LimitCurve, Ramp, RateCurve, Tied, UserCentric};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

/// How long the first look at the server may take.
const FIRST_LOOK: Duration = Duration::from_secs(5);

/// Settles what only the input file can tell, before anything is built from it.
pub(super) fn settle_file(config: &mut ProfileConfig) -> Result<(), Failure> {
    let Input::File { path, format, trace, .. } = &config.input else { return Ok(()) };
    let format = Format::of(*format, path).map_err(|e| Refusal::new(e.0))?;
    if format.is_verbatim() && !config.endpoint.extra.is_empty() {
        config.notes.push(format!(
            "--extra-inputs has no effect on the bodies of {}, which are sent as they stand",
            format.name()
        ));
    }
    if trace.corpus.is_some() && !format.makes_prompts() {
        config.notes.push(format!("--prompt-corpus has no effect on {}, whose prompts are given", format.name()));
    }
    let timed = format.is_timed(path).map_err(|e| Refusal::new(e.0))?;
    let typed = matches!(&config.input, Input::File { format: Some(_), .. });
    if timed && format.is_trace() && !typed && config.fixed_schedule == FixedSchedule::No {
        config.notes.push(
            "the timestamps in --input-file are not used; --fixed-schedule sends each request at its own".to_owned(),
        );
    }
    config.settle_file(format, timed)?;
    Ok(())
}

/// The plan of the run. `times` are those of a fixed schedule.
pub(super) fn plan(
    config: &ProfileConfig,
    bodies: &Bodies,
    times: Option<&Times>,
    run_key: u64,
    seed: u64,
) -> Result<Plan, Failure> {
    let phases = phases(config, bodies, times, seed);
    for phase in &phases {
        check_users(&phase.schedule)?;
    }
    let timeout = config.endpoint.timeout;
    Ok(Plan {
        phases,
        targets: config.endpoint.urls.iter().map(|url| target(config, url)).collect::<Result<_, _>>()?,
        balance: config.endpoint.balance(),
        reuse: config.endpoint.reuse.unwrap_or(Reuse::Pooled),
        sampling: config.sampling,
        endpoint: config.endpoint.kind,
        response_field: config.endpoint.response_field.clone().map(Arc::new),
        follow_ups: config.endpoint.follow_ups,
        requests: bodies.requests.clone(),
        capture: Capture {
            text: captures_text(config) || config.output.outputs,
            gaps: config.output.level != ExportLevel::Summary,
            raw: config.output.level == ExportLevel::Raw,
        },
        request_timeout: (timeout > 0).then_some(timeout),
        transport: config.machine.transport,
        preconnect: config.machine.preconnect,
        run_key,
        seed,
    })
}

/// Whether output is kept to be counted by the client's tokenizer.
fn captures_text(config: &ProfileConfig) -> bool {
    !config.use_server_token_count && config.endpoint.kind.produces_tokens()
}

fn phases(config: &ProfileConfig, bodies: &Bodies, times: Option<&Times>, seed: u64) -> Vec<Phase> {
    let limit = |limit: Option<u32>, ramp: &Option<Ramp>| {
        limit.map(|n| ramp.as_ref().map_or_else(|| LimitCurve::constant(n), |ramp| LimitCurve::ramped(n, ramp, seed)))
    };
    let phase = |p: &PhaseConfig| {
        let warmup = p.kind == PhaseKind::Warmup;
        let scheduled = p.arrival != Arrival::ClosedLoop;
        Phase {
            name: p.name.to_owned(),
            warmup,
            seamless: p.seamless,
            gated: is_gated(config, p),
            schedule: schedule(p, bodies, times, seed),
            concurrency: limit(p.concurrency, &p.concurrency_ramp),
            prefill: limit(p.prefill_concurrency, &p.prefill_ramp),
            late: config.load.late_policy,
            requests: p.requests,
            sessions: p.sessions,
            duration: p.duration_ns,
            grace: p.grace_ns,
            failed_threshold: config.load.failed_threshold.filter(|_| !warmup),
            least_adherence: config.load.abort_below_adherence.filter(|_| !warmup && scheduled).map(|p| p / 100.0),
            cancellation: p
                .cancellation
                .filter(|_| !warmup)
                .map(|c| plan::Cancellation { rate: c.percent / 100.0, delay: c.delay }),
        }
    };
    config.load.phases.iter().map(phase).collect()
}

/// Whether a phase waits for the servers' profilers. They cannot be started between phases that have no gap, nor need
/// they be where nothing goes before.
pub(super) fn is_gated(config: &ProfileConfig, phase: &PhaseConfig) -> bool {
    let follows = config.load.phases.len() > 1 && phase.kind == PhaseKind::Profiling;
    config.control.profiler.is_some() && follows && !phase.seamless
}

/// Users need turns to send at their pace.
fn check_users(schedule: &schedule::Spec) -> Result<(), Refusal> {
    match schedule {
        schedule::Spec::UserCentric(users) if users.mean_turns() < 2 => Err(Refusal::new(
            "--user-centric-rate needs conversations of at least 2 turns on average; for single turns there is \
             --request-rate",
        )),
        _ => Ok(()),
    }
}

/// When the requests of a phase are due.
fn schedule(phase: &PhaseConfig, bodies: &Bodies, times: Option<&Times>, seed: u64) -> schedule::Spec {
    let gaps = match phase.arrival {
        Arrival::ClosedLoop => return schedule::Spec::ClosedLoop,
        Arrival::UserCentric { rate, users } => {
            let requests = &bodies.requests;
            let turns = (0..requests.sessions()).map(|k| requests.session(k).1).collect();
            return schedule::Spec::UserCentric(UserCentric { users, rate, turns });
        }
        Arrival::FixedSchedule => return schedule::Spec::Fixed(times.map(|t| t.offsets.clone()).unwrap_or_default()),
        Arrival::Constant(_) => Gaps::Regular,
        Arrival::Poisson(_) => Gaps::Exponential,
        Arrival::Gamma { smoothness, .. } => Gaps::Gamma(smoothness),
    };
    let rate = match (&phase.series, phase.arrival.rate()) {
        (Some(series), _) => series.curve.clone(),
        (None, rate) => RateCurve::constant(rate.unwrap_or(1.0)),
    };
    let rate = phase.rate_ramp.map_or_else(|| rate.clone(), |ramp| rate.ramped(&ramp, seed));
    schedule::Spec::paced(gaps, rate)
}

/// The planned times of a fixed schedule.
#[derive(Debug)]
pub(super) struct Times {
    /// In the order of the sessions, nanoseconds from the start.
    pub(super) offsets: Arc<[Nanos]>,
    /// The ties of the trace.
    pub(super) tied: Tied,
}

impl Times {
    /// `None` without a fixed schedule.
    pub(super) fn of(config: &ProfileConfig, bodies: &mut Bodies, seed: u64) -> Result<Option<Self>, Failure> {
        if config.fixed_schedule != FixedSchedule::Yes {
            return Ok(None);
        }
        let mut offsets = offsets(config, bodies)?;
        let replay = &config.replay;
        let tied = schedule::spread_ties(&mut offsets, replay.ties, seed);
        schedule::speed_up(&mut offsets, replay.speedup);
        if let Some(requests) = Arc::get_mut(&mut bodies.requests) {
            // Later turns keep their distance from their session's first.
            requests.retime(|session, first, at| {
                let after = at.saturating_sub(first) as f64 / replay.speedup;
                offsets[session].saturating_add(after.round() as Nanos)
            });
            if let Some(cap) = replay.idle_gap_cap {
                cap_pauses(requests, &mut offsets, cap);
            }
        }
        Ok(Some(Self { offsets: offsets.into(), tied }))
    }
}

/// Shortens the pauses of a schedule to `cap`. They are those of all turns together: whatever is sent ends one.
fn cap_pauses(requests: &mut Requests, offsets: &mut [Nanos], cap: Nanos) {
    let turns = 0..if requests.is_single_turn() { 0 } else { requests.len() as u32 };
    let mut events: Vec<Nanos> = turns.filter_map(|k| requests.turn(k).at).chain(offsets.iter().copied()).collect();
    events.sort_unstable();
    let mut capped = events.clone();
    schedule::cap_idle_gaps(&mut capped, cap);
    let moved = |at: Nanos| events.binary_search(&at).map_or(at, |k| capped[k]);
    offsets.iter_mut().for_each(|at| *at = moved(*at));
    requests.retime(|_, _, at| moved(at));
}

/// Planned times from the schedule's zero: the first row's time, or the start offset, or the trace's own zero.
fn offsets(config: &ProfileConfig, bodies: &Bodies) -> Result<Vec<Nanos>, Refusal> {
    let requests = &bodies.requests;
    let first = (0..requests.len() as u32).filter_map(|k| requests.planned(k)).min().unwrap_or(0);
    let zero = if config.window.auto_offset() { first } else { config.window.start_ns.unwrap_or(0) };
    let offset = |k: usize| {
        let first = requests.session(k).0;
        requests.planned(first).map(|due| due.saturating_sub(zero)).ok_or_else(|| {
            Refusal::new(format!(
                "--fixed-schedule: the row of session {} has no timestamp to send it at",
                bodies.conversation(first)
            ))
        })
    };
    (0..requests.sessions()).map(offset).collect()
}

/// A server as the run speaks to it.
pub(super) fn target(config: &ProfileConfig, url: &Url) -> Result<Target, Failure> {
    let endpoint = &config.endpoint;
    let user = |name: &str| endpoint.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name));
    let mut headers = Vec::new();
    let accept = if endpoint.streaming { "text/event-stream" } else { "application/json" };
    let agent = concat!("maser/", env!("CARGO_PKG_VERSION"));
    let content_type = endpoint.content_type();
    let own = [("User-Agent", agent), ("Accept", accept), ("Content-Type", content_type.as_str())];
    headers.extend(own.iter().filter(|(n, _)| user(n).is_none()).map(|(n, v)| ((*n).to_owned(), (*v).to_owned())));
    let users = endpoint.headers.iter().filter(|h| !h.name.eq_ignore_ascii_case("host"));
    headers.extend(users.map(|h| (h.name.clone(), h.value.clone())));
    Ok(Target {
        addrs: addresses(config, url)?,
        host: user("host").map_or_else(|| url.host_header(), |h| h.value.clone()),
        path: endpoint.target(url, config.models.first()),
        correlation_header: endpoint.session_header.clone().unwrap_or_else(|| "X-Correlation-ID".to_owned()),
        session_headers: config.session_headers.clone(),
        headers,
    })
}

/// The server's addresses: IPv4 where there is one, as the reference does, else IPv6; AIPERF_HTTP_IP_VERSION narrows it.
fn addresses(config: &ProfileConfig, url: &Url) -> Result<Vec<SocketAddr>, Failure> {
    let failed =
        |why: String| Failure::Failed(format!("--url {}: the host name {} {why}", redact::url(url.as_str()), url.host));
    let all = (url.host.as_str(), url.port).to_socket_addrs();
    let all: Vec<SocketAddr> = all.map_err(|e| failed(format!("cannot be resolved: {e}")))?.collect();
    let (v4, v6): (Vec<SocketAddr>, Vec<SocketAddr>) = all.into_iter().partition(SocketAddr::is_ipv4);
    let (wanted, version) = match config.ip_version {
        IpVersion::Prefer4 => return Ok(if v4.is_empty() { v6 } else { v4 }),
        IpVersion::Only4 => (v4, 4),
        IpVersion::Only6 => (v6, 6),
    };
    if wanted.is_empty() {
        return Err(failed(format!("has no IPv{version} address (AIPERF_HTTP_IP_VERSION={version})")));
    }
    Ok(wanted)
}

/// Looks whether something listens at the servers, before any load is made. Of several, one that is not there is noted: its
/// requests will fail. Where none is, what is wrong.
pub(super) fn look_at_servers(config: &mut ProfileConfig, plan: &Plan) -> Option<String> {
    let looked = config.endpoint.urls.iter().zip(&plan.targets).map(|(url, target)| look_at_server(url, target));
    let gone: Vec<String> = looked.filter_map(Result::err).collect();
    if gone.len() < plan.targets.len() {
        let noted = gone.into_iter().map(|why| format!("{why}; as long as that is so, the requests to it fail"));
        config.notes.extend(noted);
        return None;
    }
    Some(format!(
        "{}; the first requests were tried all the same, and their errors are in the files. Where the server is still \
         starting, --wait-for-model-timeout 300 waits for it",
        gone.join("; ")
    ))
}

/// Leaves of a load that no server is there for as much as says so.
pub(super) fn cut_short(plan: &mut Plan) {
    for phase in &mut plan.phases {
        let slots = phase.concurrency.as_ref().map_or(1, LimitCurve::target);
        let most = u64::from(slots.clamp(1, 10));
        phase.requests = Some(phase.requests.map_or(most, |asked| asked.min(most)));
    }
}

fn look_at_server(url: &Url, target: &Target) -> Result<(), String> {
    let mut last = None;
    for addr in &target.addrs {
        match TcpStream::connect_timeout(addr, FIRST_LOOK) {
            Ok(_) => return Ok(()),
            Err(e) => last = Some(e),
        }
    }
    let why = last.map_or_else(|| "the name has no address".to_owned(), |e| e.to_string());
    Err(format!("--url {}: cannot connect: {why}", redact::url(url.as_str())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use maser_engine::clock::MILLI;
    use maser_engine::plan::{RequestsBuilder, Turn};

    #[test]
    fn a_pause_is_one_in_which_no_turn_is_due() {
        let mut builder = RequestsBuilder::new(&std::env::temp_dir()).unwrap();
        for turns in [&[0, 5000, 9000][..], &[500, 5200]] {
            builder.begin_session();
            for at in turns {
                builder.push_turn(b"{}", Turn { at: Some(at * MILLI), ..Turn::default() }).unwrap();
            }
        }
        let mut requests = builder.finish().unwrap();
        let mut offsets = [0, 500 * MILLI];
        cap_pauses(&mut requests, &mut offsets, 1000 * MILLI);
        assert_eq!(offsets, [0, 500 * MILLI]);
        let times: Vec<_> = (0..5).filter_map(|k| requests.turn(k).at).map(|at| at / MILLI).collect();
        assert_eq!(times, [0, 1500, 2700, 500, 1700], "as the reference moves them");
    }
}
