//! From settings to a plan: builds every request body, lays out the phases, resolves the server's address.

use super::{Failure, cache_bust};
use crate::config::{
    Arrival, FixedSchedule, Input, IpVersion, Loop, PhaseConfig, PhaseKind, ProfileConfig, Replay, Url,
};
use crate::refusal::Refusal;
use crate::values::{CacheBust, ExportLevel};
use maser_datasets::file::Format;
use maser_datasets::tokens::Tokenizer;
use maser_datasets::{Context, Conversation, Error, Spec, Summary, synthetic};
use maser_engine::clock::Nanos;
use maser_engine::endpoint::{self, Kind, Unfit};
use maser_engine::log::{self, RequestInfo};
use maser_engine::plan::{self, Capture, History, Phase, Plan, Requests, RequestsBuilder, Reuse, Target, Turn};
use maser_engine::schedule::{self, Gaps, LimitCurve, Ramp, RateCurve, Tied, UserCentric};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long the first look at the server may take.
const FIRST_LOOK: Duration = Duration::from_secs(5);

/// Rows of the request table in one block of the log.
const TABLE_BLOCK: usize = 4096;

/// One row of the request table, owned.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    conversation: String,
    turn: u32,
    input_tokens: Option<u32>,
    max_tokens: Option<u32>,
    keeps_reply: bool,
    resets: bool,
    due: Option<Nanos>,
}

/// The bodies of a run and what is known of each.
#[derive(Debug)]
pub(super) struct Bodies {
    pub(super) requests: Arc<Requests>,
    rows: Vec<Row>,
    pub(super) summary: Summary,
}

impl Bodies {
    /// Each conversation's id and bodies, in the order of the dataset.
    pub(super) fn sessions(&self) -> impl Iterator<Item = (&str, Vec<&[u8]>)> {
        let mut first = 0;
        self.rows.chunk_by(|_, next| next.turn > 0).map(move |turns| {
            let bodies = (first..first + turns.len()).map(|k| self.requests.body(k as u32)).collect();
            first += turns.len();
            (turns.first().map_or("", |turn| turn.conversation.as_str()), bodies)
        })
    }

    /// Appends the request table to the log.
    pub(super) fn put_table(&self, out: &mut Vec<u8>) {
        for rows in self.rows.chunks(TABLE_BLOCK) {
            let mut body = Vec::new();
            for row in rows {
                let info = RequestInfo {
                    conversation: &row.conversation,
                    turn: row.turn,
                    input_tokens: row.input_tokens,
                    max_tokens: row.max_tokens,
                    keeps_reply: row.keeps_reply,
                    resets: row.resets,
                };
                log::put_request(&mut body, &info);
            }
            log::put_block(out, log::Kind::Requests, rows.len() as u32, &body);
        }
    }
}

/// Puts the sessions in the order of their planned times; those at the same time keep the file's order.
fn sort_by_due(requests: &mut Requests, rows: &[Row]) {
    let mut order: Vec<u32> = (0..requests.sessions() as u32).collect();
    order.sort_by_key(|&k| rows[requests.session(k as usize).0 as usize].due);
    requests.reorder(&order);
}

/// The tokenizer the settings name, if the run needs one: to make prompts, or to count what the server is not trusted
/// to.
pub(super) fn tokenizer(config: &ProfileConfig) -> Result<Option<Tokenizer>, Failure> {
    let trace = matches!(&config.input, Input::File { .. });
    if trace && config.use_server_token_count && !makes_prompts(config) {
        return Ok(None);
    }
    let tokenizer =
        Tokenizer::open_found(&config.tokenizer.found).and_then(|tokenizer| match config.tokenizer.chat_template {
            true => tokenizer.with_chat_template(),
            false => Ok(tokenizer),
        });
    tokenizer.map(Some).map_err(|e| Refusal::new(e.0).into())
}

/// Whether prompts are made and not given.
fn makes_prompts(config: &ProfileConfig) -> bool {
    match &config.input {
        Input::Synthetic { .. } => true,
        Input::File { path, format, .. } => match format {
            Some(format) => format.needs_tokenizer(),
            None => Format::detect(path).is_ok_and(Format::needs_tokenizer),
        },
    }
}

/// Settles what only the input file can tell, before anything is built from it.
pub(super) fn settle_file(config: &mut ProfileConfig) -> Result<(), Failure> {
    let Input::File { path, format, .. } = &config.input else { return Ok(()) };
    let format = match format {
        Some(format) => *format,
        None => Format::detect(path).map_err(|e| Refusal::new(e.0))?,
    };
    if format.is_verbatim() && !config.endpoint.extra.is_empty() {
        config.notes.push(format!(
            "--extra-inputs has no effect on the bodies of {}, which are sent as they stand",
            format.name()
        ));
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

fn spec(config: &ProfileConfig, seed: u64) -> Spec {
    let spec = match &config.input {
        Input::Synthetic(made) => Spec::Synthetic(Box::new(synthetic::Options { seed, ..made.options.clone() })),
        Input::File { path, .. } => {
            let mut options = config.input.file_options(&config.window, seed).unwrap_or_default();
            let is_baseten = |format: Format| format == Format::BasetenTrace;
            // Its pauses are what is left of the gaps between recorded times, so its reader has to know.
            if config.replay.open == Loop::Closed
                && options.format.map_or_else(|| Format::detect(path).is_ok_and(is_baseten), is_baseten)
            {
                options.replay.open_loop = Some(false);
            }
            Spec::File(Box::new(options))
        }
    };
    match config.system_prompt.clone() {
        Some(text) => Spec::WithSystem { text, of: Box::new(spec) },
        None => spec,
    }
}

/// Builds every request body into the arena, which lies in `dir`.
pub(super) fn bodies(
    config: &ProfileConfig,
    seed: u64,
    tokenizer: Option<&Tokenizer>,
    dir: &Path,
) -> Result<Bodies, Failure> {
    let full = |e: std::io::Error| Failure::Failed(format!("cannot write request bodies under {}: {e}", dir.display()));
    let mut builder = RequestsBuilder::new(dir).map_err(full)?;
    if config.cache_bust != CacheBust::None {
        builder.set_marked();
    }
    let options = options(config);
    let (mut rows, mut body, mut failed) = (Vec::new(), Vec::new(), None);
    let kind = config.endpoint.kind;
    let place = (config.cache_bust, config.replay.open == Loop::Strict);
    let built = spec(config, seed).build(tokenizer, &mut |mut conversation| {
        cache_bust::mark(&mut conversation, place, tokenizer).map_err(|unfit| Error(unfit.0))?;
        let how = (&config.replay, !config.tokenizer.chat_template);
        match add(&conversation, kind, &options, &mut builder, &mut rows, &mut body, how) {
            Ok(()) => Ok(()),
            Err(Unbuilt::Unfit(unfit)) => Err(Error(unfit.0)),
            Err(Unbuilt::Full(e)) => {
                let sentence = Error(e.to_string());
                failed = Some(e);
                Err(sentence)
            }
        }
    });
    if let Some(e) = failed {
        return Err(full(e));
    }
    let summary = built.map_err(|e| Refusal::new(e.0))?;
    if rows.is_empty() {
        return Err(Refusal::new("--input-file: no row is left to send after the filters").into());
    }
    let mut requests = builder.finish().map_err(full)?;
    if config.fixed_schedule == FixedSchedule::Yes {
        sort_by_due(&mut requests, &rows);
    }
    Ok(Bodies { requests: Arc::new(requests), rows, summary })
}

/// Why a conversation did not become requests.
enum Unbuilt {
    /// The endpoint cannot carry it.
    Unfit(Unfit),
    /// The arena cannot be written.
    Full(std::io::Error),
}

impl From<std::io::Error> for Unbuilt {
    fn from(e: std::io::Error) -> Self {
        Self::Full(e)
    }
}

fn add(
    conversation: &Conversation,
    kind: Kind,
    options: &endpoint::Options,
    builder: &mut RequestsBuilder,
    rows: &mut Vec<Row>,
    body: &mut Vec<u8>,
    (replay, joins): (&Replay, bool),
) -> Result<(), Unbuilt> {
    for (k, turn) in conversation.turns.iter().enumerate() {
        if k == 0 || replay.open == Loop::Strict {
            builder.begin_session();
        }
        body.clear();
        let splice = kind.body(options, conversation, k, body).map_err(Unbuilt::Unfit)?;
        let history = match conversation.context {
            Context::DeltasWithoutResponses => History::OwnAndReply,
            Context::DeltasWithResponses => History::Own,
            Context::MessageArray => History::None,
        };
        let delay = turn.delay_ns.filter(|_| k > 0).map_or(0, |delay| think_time(delay, replay));
        let at = planned(conversation, k, replay).map_err(Unbuilt::Unfit)?;
        builder.push_turn(body, Turn { splice, history, reset: turn.reset_context, delay, at })?;
        let alone = replay.open == Loop::Strict;
        let has_later = k + 1 < conversation.turns.len();
        rows.push(Row {
            conversation: conversation.session_id.clone(),
            turn: k as u32,
            // Where there is no text, there is no count of it.
            input_tokens: input_tokens(conversation, k, alone, joins).filter(|n| *n > 0 && kind.tokenizes_input()),
            max_tokens: turn.max_tokens,
            keeps_reply: history == History::OwnAndReply && splice.is_some() && has_later && !alone,
            resets: turn.reset_context,
            due: turn.timestamp_ns,
        });
    }
    Ok(())
}

/// When the trace has turn `k` sent. In a closed loop a later turn goes when the one before it has been answered and its
/// delay has passed: its timestamp alone does not tell that delay, for the answer lies in between.
fn planned(conversation: &Conversation, k: usize, replay: &Replay) -> Result<Option<Nanos>, Unfit> {
    let turn = &conversation.turns[k];
    match (replay.open, turn.timestamp_ns, turn.delay_ns) {
        (Loop::Closed, Some(_), None) if k > 0 => Err(Unfit(format!(
            "--no-open-loop-replay: turn {} of session {} has a timestamp and no delay, and so no pause after the answer \
             before it",
            k + 1,
            conversation.session_id
        ))),
        (Loop::Closed, ..) if k > 0 => Ok(None),
        (_, at, _) => Ok(at),
    }
}

/// Input tokens of turn `k`, without the server's answers before it. `alone`: the turn is a session of its own, and carries
/// nothing of the turns before it. `joins`: the texts of an input are counted joined with one space, as the reference counts
/// them; it is a token of its own before a text that begins with white space, and part of the first word else.
fn input_tokens(conversation: &Conversation, k: usize, alone: bool, joins: bool) -> Option<u32> {
    let all = conversation.input_tokens(k)?;
    if conversation.context == Context::MessageArray || k == 0 {
        return Some(all);
    }
    let turns = conversation.turns.get(..=k)?;
    if alone {
        let before = conversation.input_tokens(k - 1).filter(|_| !turns[k].reset_context).unwrap_or(0);
        let head = conversation.head_tokens.unwrap_or(0);
        return Some(if turns[k].reset_context { all } else { all - before.min(all) + head });
    }
    let first = turns.iter().rposition(|turn| turn.reset_context).unwrap_or(0);
    let begins_with_space = |turn: &&maser_datasets::Turn| {
        turn.all_texts().next().is_some_and(|text| text.starts_with(char::is_whitespace))
    };
    let joints = if joins { turns[first + 1..].iter().filter(begins_with_space).count() } else { 0 };
    Some(all.saturating_add(joints as u32))
}

/// A delay of the input as it is waited for.
fn think_time(delay: Nanos, replay: &Replay) -> Nanos {
    let faster = (delay as f64 / replay.speedup).round() as Nanos;
    replay.turn_delay_cap.map_or(faster, |cap| faster.min(cap))
}

/// The options of request bodies.
pub(super) fn options(config: &ProfileConfig) -> endpoint::Options {
    endpoint::Options {
        model: config.model.clone(),
        streaming: config.endpoint.streaming,
        use_legacy_max_tokens: config.endpoint.use_legacy_max_tokens,
        per_chunk_usage: config.endpoint.per_chunk_usage,
        use_server_token_count: config.use_server_token_count,
        extra: config.endpoint.extra.clone(),
        template: config.endpoint.template.clone(),
    }
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
    let first = bodies.rows.iter().filter_map(|r| r.due).min().unwrap_or(0);
    let zero = if config.window.auto_offset() { first } else { config.window.start_ns.unwrap_or(0) };
    let offset = |row: &Row| {
        row.due.map(|due| due.saturating_sub(zero)).ok_or_else(|| {
            Refusal::new(format!(
                "--fixed-schedule: the row of session {} has no timestamp to send it at",
                row.conversation
            ))
        })
    };
    let first = |k: usize| bodies.requests.session(k).0 as usize;
    let firsts = (0..bodies.requests.sessions()).map(|k| offset(&bodies.rows[first(k)]));
    firsts.collect()
}

fn target(config: &ProfileConfig, url: &Url) -> Result<Target, Failure> {
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
        path: endpoint.target(url, &config.model),
        correlation_header: endpoint.session_header.clone().unwrap_or_else(|| "X-Correlation-ID".to_owned()),
        headers,
    })
}

/// The server's addresses: IPv4 where there is one, as the reference does, else IPv6; AIPERF_HTTP_IP_VERSION narrows it.
fn addresses(config: &ProfileConfig, url: &Url) -> Result<Vec<SocketAddr>, Failure> {
    let failed = |why: String| Failure::Failed(format!("--url {}: the host name {} {why}", url.as_str(), url.host));
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

/// Whether something listens at every server, before any load is made.
pub(super) fn look_at_servers(config: &ProfileConfig, plan: &Plan) -> Result<(), Failure> {
    config.endpoint.urls.iter().zip(&plan.targets).try_for_each(|(url, target)| look_at_server(url, target))
}

fn look_at_server(url: &Url, target: &Target) -> Result<(), Failure> {
    let mut last = None;
    for addr in &target.addrs {
        match TcpStream::connect_timeout(addr, FIRST_LOOK) {
            Ok(_) => return Ok(()),
            Err(e) => last = Some(e),
        }
    }
    let why = last.map_or_else(|| "the name has no address".to_owned(), |e| e.to_string());
    Err(Failure::Failed(format!("--url {}: cannot connect: {why}", url.as_str())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use maser_engine::clock::MILLI;

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
