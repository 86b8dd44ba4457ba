//! `maser profile`: one benchmark, from the command line to the files.

use super::bodies::{self, Bodies};
use super::body_cache::Unchecked;
use super::control::{self, Profilers};
use super::mock::Mock;
use super::place::{self, Place};
use super::prepare::{self, Times};
use super::report::{Show, View};
use super::signals::{Signals, TERMINATED};
use super::{Failure, report};
use crate::args;
use crate::config::{Environment, Input, ProfileConfig};
use crate::exit::Exit;
use crate::redact;
use crate::refusal::Refusal;
use crate::say;
use crate::ui::progress::Progress;
use crate::values::{LogLevel, Ui, name_of};
use maser::export::{ExportOptions, Written, directory, inputs, verdict};
use maser_engine::clock::{self, Anchor, MILLI};
use maser_engine::credit::StopSignal;
use maser_engine::log::{self, Header, Kind as Block, Log, PhaseInfo};
use maser_engine::net::probe;
use maser_engine::plan::{Phase, Plan, Requests};
use maser_engine::run::{self, Cores, Fault, LogFile, Role, Run, Topology, available_cores};
use maser_engine::schedule::{Spec, Tied, Ties};
use serde_json::json;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often the bar is renewed and signals are passed on.
const TICK: Duration = Duration::from_millis(50);

/// Requests a second that one executor carries with ease; sizes an automatic topology.
const RATE_PER_EXECUTOR: f64 = 20_000.0;

/// Connections that one executor carries with ease; sizes an automatic topology.
const CONNECTIONS_PER_EXECUTOR: u32 = 32;

/// The settings of a run. Where no model is named and a server is, that server is asked for its models.
pub(crate) fn configure(
    args: args::Profile,
    environment: &Environment,
    terminal: bool,
) -> Result<ProfileConfig, Failure> {
    let resolve = |args: args::Profile| {
        let mut config = ProfileConfig::resolve(args, terminal)?;
        config.set_environment(environment);
        Ok::<_, Failure>(config)
    };
    let unnamed = args.endpoint.models.iter().all(|name| name.trim().is_empty());
    if !unnamed || args.machine.mock.is_some() || args.endpoint.urls.is_empty() {
        return resolve(args);
    }
    // What else is wrong with the command line is said before any traffic.
    let named = |name: &str| {
        let mut args = args.clone();
        args.endpoint.models = vec![name.to_owned()];
        resolve(args)
    };
    let (name, remark) = control::only_model(&named("unnamed")?)?;
    let mut config = named(&name)?;
    config.notes.push(remark);
    Ok(config)
}

/// Runs the benchmark; returns the exit code.
pub(crate) fn run(mut config: ProfileConfig, argv: &[OsString]) -> Result<u8, Failure> {
    prepare::settle_file(&mut config)?;
    let mut topology = topology(&config)?;
    topology.fault = fault()?;
    let connections = check_connections(&mut config, topology.executors() as u64)?;
    if let Some(mock) = config.mock.as_mut().filter(|m| m.models == ["mock"]) {
        mock.models = config.models.names().to_vec();
    }
    let mock = config.mock.as_ref().map(|m| Mock::start(m, &topology)).transpose()?;
    if let Some(mock) = &mock {
        config.endpoint.set_port(mock.port());
    }
    // Held until this function returns: nobody else writes into the directory meanwhile.
    let place = Place::take(&mut config)?;
    let dir = place.dir.clone();
    let prepared = match prepare(&mut config, &topology, argv, &dir) {
        Ok(prepared) => prepared,
        Err(failure) => {
            place.leave();
            return Err(failure);
        }
    };
    // From here on there are results to be saved; before, an interrupt just ends the process.
    let signals = Signals::watch().map_err(|e| Failure::Failed(format!("cannot watch signals: {e}")))?;
    let stop = Arc::new(StopSignal::default());
    let plan = prepared.plan;
    let run_key = plan.run_key;
    let mut beside = Beside::new(&config, &plan, &signals);
    if !plan.phases.iter().any(|phase| phase.gated) {
        beside.start()?;
    }
    let running = run::start(plan.clone(), &topology, prepared.log_file, stop.clone(), connections as usize)
        .inspect_err(|_| beside.stop())
        .map_err(|e| Failure::Failed(format!("the run could not start: {e}")))?;
    let issued = running.issued.clone();
    let ended = watch(running, Progress::new(plan.clone(), config.ui == Ui::Simple), &signals, &stop, &mut beside);
    beside.stop();
    let served = mock.map_or(Ok(()), Mock::stop);
    let path = dir.join(log::FILE_NAME);
    let log = Log::open(&path).map_err(|e| Failure::Failed(format!("{}: cannot be read back: {e}", path.display())))?;
    if log.header.run_key != run_key {
        return Err(Failure::Failed(format!(
            "--artifact-dir {}: another run has begun there meanwhile and replaced this run's log",
            dir.display()
        )));
    }
    // Where nothing was there, tables of nothing would hide why.
    let show = Show::of(config.quiet, config.json, prepared.unreached.is_some());
    let view = View::of_run(show, signals.first());
    let code = report::publish(&log, &dir, &ExportOptions::of(&log.header), &view, || prepared.inputs.write(&dir));
    if let Some(failure) = beside.failure {
        return Err(failure);
    }
    let code = prepared.unchecked.map_or(Ok(()), |bodies| bodies.check(&plan.requests)).and(code);
    match ended {
        Err(run::Failure::Log(e)) => Err(Failure::Failed(format!(
            "{} could not be written ({e}), so the run was stopped; the requests before that are in it, and `maser \
             report {}` makes the other files",
            path.display(),
            dir.display()
        ))),
        Err(run::Failure::Died(why)) => {
            let reason = format!("{why}; the run was stopped, and the files have what was recorded before");
            Err(Failure::Broken(stopped_for(&reason, code).to_string()))
        }
        Ok(()) if stop.level() >= StopSignal::ABORT && signals.first() != Some(TERMINATED) => {
            Ok(Exit::Interrupted.code())
        }
        Ok(()) if issued.too_many_failed.load(Ordering::Acquire) => {
            Err(stopped_for("--failed-request-threshold: more requests failed than that, so the run was stopped", code))
        }
        Ok(()) if issued.below_adherence.load(Ordering::Acquire) => Err(stopped_for(
            "--abort-below-adherence: fewer requests left on time than that, so the run was stopped",
            code,
        )),
        Ok(()) if signals.first() == Some(TERMINATED) => served.and(code).map(|_| Exit::Terminated.code()),
        Ok(()) => match prepared.unreached {
            Some(why) => Err(Failure::Failed(why)),
            None => served.and(code),
        },
    }
}

/// What a test of this program breaks in it (`timing`, `collector` or `executor-N`, and in which of its turns it panics; without
/// one it is refused); nothing in a release.
fn fault() -> Result<Option<Fault>, Refusal> {
    const NAME: &str = "MASER_TEST_FAULT";
    let Some(asked) = std::env::var(NAME).ok().filter(|_| cfg!(debug_assertions)) else { return Ok(None) };
    let (part, turn) = asked.split_once(' ').map_or((asked.as_str(), None), |(part, turn)| (part, Some(turn)));
    let role = match part {
        "timing" => Some(Role::Timing),
        "collector" => Some(Role::Collector),
        _ => part.strip_prefix("executor-").and_then(|k| k.parse().ok()).map(Role::Executor),
    };
    match (role, turn.map(str::parse)) {
        (Some(role), None) => Ok(Some(Fault::Refused(role))),
        (Some(role), Some(Ok(turn))) => Ok(Some(Fault::Panics(role, turn))),
        _ => Err(Refusal::new(format!("{NAME}: no such fault: {asked}"))),
    }
}

/// Why the run was stopped comes first, then what is wrong with its results, if anything is.
fn stopped_for(reason: &str, published: Result<u8, Failure>) -> Failure {
    Failure::Failed(match published {
        Ok(_) => reason.to_owned(),
        Err(besides) => format!("{reason}; {besides}"),
    })
}

/// Bytes of bodies that are written to `inputs.json` before the load: some 10 ms. More would keep the first request waiting:
/// of them it is made when the load is over, or by `maser report` where this process does not come to it.
const WRITTEN_BEFORE: u64 = 4 << 20;

/// All that a run is made of before its first request.
struct Prepared {
    plan: Arc<Plan>,
    log_file: LogFile,
    inputs: Inputs,
    unchecked: Option<Unchecked>,
    /// Why no server could be reached before the load.
    unreached: Option<String>,
}

/// `inputs.json`, which data that are no trace have.
enum Inputs {
    None,
    /// Before the load, so that it is there after a crash too: the log does not have the bodies.
    Written(Result<Written, String>),
    /// After the load, and after its results, which are worth more where the disk is full.
    Due(Arc<Requests>),
}

impl Inputs {
    /// Whether there is to be one.
    fn wanted(config: &ProfileConfig, bodies: &Bodies) -> bool {
        matches!(config.input, Input::Synthetic { .. }) || !bodies.summary.is_trace
    }

    fn of(config: &ProfileConfig, bodies: &Bodies, dir: &Path) -> Self {
        match (Self::wanted(config, bodies), bodies.requests.bytes()) {
            (false, _) => Self::None,
            (true, ..=WRITTEN_BEFORE) => Self::Written(inputs::write_due(dir, &bodies.requests)),
            (true, _) => {
                // Without it a killed run has no `inputs.json`, as its report says then.
                let _ = bodies.requests.keep_as(&dir.join(inputs::BODIES_NAME));
                Self::Due(bodies.requests.clone())
            }
        }
    }

    fn write(self, dir: &Path) -> Option<Result<Written, String>> {
        match self {
            Self::None => None,
            Self::Written(result) => Some(result),
            Self::Due(requests) => Some(inputs::write_due(dir, &requests)),
        }
    }
}

/// Builds the requests, looks at the server, and begins the files in `dir`.
fn prepare(
    config: &mut ProfileConfig,
    topology: &Topology,
    argv: &[OsString],
    dir: &Path,
) -> Result<Prepared, Failure> {
    let (run_key, seed) = keys(config);
    let mut bodies = bodies::bodies(config, seed, dir)?;
    config.set_scheduled_requests(bodies.summary.requests);
    notes(config, &bodies);
    let times = Times::of(config, &mut bodies, seed)?;
    if let Some(times) = &times {
        note_ties(config, &times.tied);
        config.set_ties(times.tied);
    }
    let mut plan = prepare::plan(config, &bodies, times.as_ref(), run_key, seed)?;
    control::before_the_load(config, &plan)?;
    let said = config.notes.len();
    let unreached = prepare::look_at_servers(config, &plan);
    config.notes[said..].iter().for_each(|why| note(config, format_args!("{why}")));
    if unreached.is_some() {
        prepare::cut_short(&mut plan);
    }
    let plan = Arc::new(plan);
    make_room(config, dir).map_err(|e| place::cannot(dir, &e))?;
    let header = header(config, &plan, topology, argv, Inputs::wanted(config, &bodies));
    let log_file = begin_log(dir, &header, &bodies).map_err(|e| place::cannot(dir, &e))?;
    let unchecked = bodies.unchecked.take();
    let inputs = Inputs::of(config, &bodies, dir);
    if config.log_level <= LogLevel::Info {
        say_start(config, topology, &header);
    }
    Ok(Prepared { plan, log_file, inputs, unchecked, unreached })
}

/// Makes room for the files of this run where an earlier one left its own.
fn make_room(config: &ProfileConfig, dir: &Path) -> std::io::Result<()> {
    let prefix = config.output.prefix.as_deref();
    if config.output.overwrite {
        if directory::remove_earlier(dir, prefix)? {
            note(config, format_args!("{} had the files of an earlier run; they are replaced", dir.display()));
        }
    } else if let Some(aside) = directory::set_aside(dir, prefix)? {
        let aside = aside.display();
        note(config, format_args!("the files of an earlier run are now in {aside} (--overwrite replaces them)"));
    }
    Ok(())
}

/// What is about to happen, and where.
fn say_start(config: &ProfileConfig, topology: &Topology, header: &Header) {
    let endpoint = &config.endpoint;
    let asked = verdict::asked(&header.input_config).unwrap_or_default();
    let to = match &config.mock {
        Some(_) => format!("the built-in server on port {}", endpoint.urls[0].port),
        None => endpoint.urls.iter().map(|url| redact::url(url.as_str())).collect::<Vec<_>>().join(", "),
    };
    say(std::io::stderr(), format_args!("maser: {asked}, to {to}"));
    say(std::io::stderr(), format_args!("maser: {topology}"));
}

/// What happens on the servers beside the load.
struct Beside<'a> {
    config: &'a ProfileConfig,
    plan: &'a Plan,
    signals: &'a Signals,
    profilers: Option<Profilers<'a>>,
    /// Why the profiling phase could not begin.
    failure: Option<Failure>,
}

impl<'a> Beside<'a> {
    fn new(config: &'a ProfileConfig, plan: &'a Plan, signals: &'a Signals) -> Self {
        Self { config, plan, signals, profilers: None, failure: None }
    }

    fn start(&mut self) -> Result<(), Failure> {
        let before = self.signals.count();
        self.profilers = Profilers::start(self.config, self.plan, &|| self.signals.count() > before)?;
        Ok(())
    }

    fn stop(&mut self) {
        if let Some(profilers) = self.profilers.take() {
            profilers.stop();
        }
    }

    /// Lets a phase begin that waits for the profilers; if they cannot be started, the run ends without it.
    fn attend(&mut self, running: &Run, stop: &StopSignal) {
        let gate = &running.issued.gate;
        if self.failure.is_some() || !gate.is_waited_at() || stop.level() > StopSignal::RUN {
            return;
        }
        match self.start() {
            Ok(()) => gate.open(),
            Err(failure) => {
                // An interrupt is passed on as what it is.
                self.failure = Some(failure).filter(|_| self.signals.count() == 0);
                stop.raise();
            }
        }
    }
}

/// Waits for the run to end, showing how it stands and passing signals on.
fn watch(
    running: Run,
    mut bar: Progress,
    signals: &Signals,
    stop: &StopSignal,
    beside: &mut Beside<'_>,
) -> Result<(), run::Failure> {
    let mut seen = 0;
    while !running.is_over() {
        std::thread::park_timeout(TICK);
        beside.attend(&running, stop);
        match signals.pass_on(stop, &mut seen) {
            Some(StopSignal::DRAIN) => bar.say(
                "maser: stopping: nothing more is sent, waiting for what is in flight (interrupt again to cut it)",
            ),
            Some(_) => bar.say("maser: cutting what is in flight"),
            None => {}
        }
        bar.show(&running);
    }
    bar.end();
    for remark in running.notes() {
        note(beside.config, format_args!("{remark}"));
    }
    running.join()
}

/// The run's key and root seed. Without `--random-seed` the seed is the key, new each time.
fn keys(config: &ProfileConfig) -> (u64, u64) {
    let key = clock::wall() ^ u64::from(std::process::id()).rotate_left(40);
    let key = maser_datasets::seed::child(key, "run");
    (key, config.random_seed.unwrap_or(key))
}

fn topology(config: &ProfileConfig) -> Result<Topology, Failure> {
    let machine = &config.machine;
    let io = super::io(machine.io)?;
    let useful = config.load.phases.iter().map(useful_executors).max().unwrap_or(1);
    // A limit below the number of executors would leave some without a slot.
    let limits = |p: &crate::config::PhaseConfig| p.concurrency.into_iter().chain(p.prefill_concurrency).min();
    let limit = config.load.phases.iter().filter_map(limits).min().unwrap_or(u32::MAX);
    let most = machine.workers_max.unwrap_or(u32::MAX).min(limit) as usize;
    // The mock server gets a core of its own where there is one to spare.
    let cores = match (&machine.cores, available_cores().as_slice()) {
        (Cores::Auto, [rest @ .., _]) if config.mock.is_some() && rest.len() > 1 => Cores::List(rest.to_vec()),
        (cores, _) => cores.clone(),
    };
    Topology::choose(&cores, machine.spin, io, useful, Some(most)).map_err(|e| Refusal::new(e).into())
}

/// What says how many connections the run may have, as its user can change it.
fn connection_bound(config: &ProfileConfig, executors: u64) -> &'static str {
    let each = |limit: u32| u64::from(limit) * executors < descriptors(config);
    if config.connections.is_some_and(each) { "AIPERF_HTTP_CONNECTION_LIMIT" } else { "ulimit -n" }
}

/// How many connections this process has descriptors for: with --mock both ends are its own.
fn descriptors(config: &ProfileConfig) -> u64 {
    (probe::raise_connection_limit() / if config.mock.is_some() { 2 } else { 1 }).max(1)
}

/// How many connections the run may have: each has a descriptor, with --mock both its ends are in this process, and the
/// environment may allow each of so many executors fewer.
fn check_connections(config: &mut ProfileConfig, executors: u64) -> Result<u64, Failure> {
    let descriptors = descriptors(config);
    let most = connections_allowed(config, executors);
    let asked = config.load.phases.iter().filter_map(|p| p.concurrency).max().map_or(0, u64::from);
    if asked <= most {
        return Ok(most);
    }
    let bound = connection_bound(config, executors);
    let why = format!("--concurrency {asked}: this process may have {most} connections at most ({bound})");
    if config.mock.is_some() && asked > descriptors {
        return Err(Refusal::new(format!("{why}, since with --mock both ends are its own")).into());
    }
    config.notes.push(format!("{why}; the other requests wait for one, and are timed as if in flight"));
    Ok(most)
}

/// How many connections all executors together may have.
fn connections_allowed(config: &ProfileConfig, executors: u64) -> u64 {
    let allowed = config.connections.map_or(u64::MAX, |each| u64::from(each) * executors);
    descriptors(config).min(allowed)
}

/// Executors that a phase can keep busy.
fn useful_executors(phase: &crate::config::PhaseConfig) -> usize {
    match (phase.peak_rate(), phase.concurrency) {
        (Some(rate), _) => (rate / RATE_PER_EXECUTOR).ceil() as usize,
        (None, Some(limit)) => limit.div_ceil(CONNECTIONS_PER_EXECUTOR) as usize,
        (None, None) => usize::MAX,
    }
}

/// Remarks that stop nothing; quieter log levels leave them out.
fn note(config: &ProfileConfig, remark: std::fmt::Arguments<'_>) {
    if config.log_level <= LogLevel::Warning {
        say(std::io::stderr(), format_args!("note: {remark}"));
    }
}

/// Shows the remarks on the settings and the data; the results have them too.
fn notes(config: &mut ProfileConfig, bodies: &Bodies) {
    let summary = &bodies.summary;
    let rows = |what: &'static str| move |(why, n): (_, _)| format!("{n} rows of --input-file were {what}: {why}");
    config.notes.extend(summary.rows_skipped.iter().map(rows("left out")));
    config.notes.extend(summary.rows_adjusted.iter().map(rows("changed")));
    for remark in &config.notes {
        note(config, format_args!("{remark}"));
    }
}

/// What a trace's coarse timestamps mean for its replay.
fn note_ties(config: &mut ProfileConfig, tied: &Tied) {
    let (Some(quantum), 1..) = (tied.quantum_ns, tied.tied) else { return };
    let cv = |cv: Option<f64>| cv.map_or_else(|| "none".to_owned(), |cv| format!("{cv:.2}"));
    let (step, n, most) = (quantum as f64 / MILLI as f64, tied.tied, tied.largest);
    let done = match tied.policy {
        Ties::Burst => "they are sent at once, as recorded; --ties uniform or poisson spreads them".to_owned(),
        _ => format!("they are spread over that step, which makes it {}", cv(tied.cv_after)),
    };
    let remark = format!(
        "{n} requests share their timestamp with others, up to {most} to one, in a trace with steps of {step} ms (the \
         gaps' coefficient of variation is {}); {done}",
        cv(tied.cv_before)
    );
    note(config, format_args!("{remark}"));
    config.notes.push(remark);
}

fn header(config: &ProfileConfig, plan: &Plan, topology: &Topology, argv: &[OsString], has_inputs: bool) -> Header {
    let phase = |p: &Phase| PhaseInfo { name: p.name.clone(), warmup: p.warmup };
    let shown = |(name, value): &(String, String)| (name.clone(), redact::header_value(name, value).to_owned());
    let executors = topology.executors() as u64;
    let (limit, by) = (connections_allowed(config, executors), connection_bound(config, executors));
    let mut topology = topology.to_json();
    topology["connections"] = json!({"limit": limit, "by": by});
    if config.mock.is_some() {
        topology["mock"] = true.into();
    }
    Header {
        maser_version: env!("CARGO_PKG_VERSION").to_owned(),
        benchmark_id: format!("{:012x}", plan.run_key >> 16),
        run_key: plan.run_key,
        requests: Some(log::request_count(plan.requests.table())),
        anchor: Anchor::take(),
        cli_command: redact::cli_command(argv),
        input_config: config.input_config(),
        random_seed: config.random_seed,
        endpoint: config.endpoint.kind.name().to_owned(),
        streaming: config.endpoint.streaming,
        phases: plan.phases.iter().map(phase).collect(),
        fixed_schedule: plan.phases.iter().any(|p| matches!(p.schedule, Spec::Fixed(_))),
        tokenizer: Some(config.tokenizer.name()),
        use_server_token_count: config.use_server_token_count,
        export_level: name_of(config.output.level).to_owned(),
        export_prefix: config.output.prefix.clone(),
        topology,
        correlation_header: plan.targets[0].correlation_header.clone(),
        session_headers: plan.targets[0].session_headers.clone(),
        request_headers: plan.targets[0].headers.iter().map(shown).collect(),
        has_inputs,
        request_path: redact::url(&plan.targets[0].path),
        notes: config.notes.clone(),
    }
}

/// Creates the log with its preamble: header and request table.
fn begin_log(dir: &Path, header: &Header, bodies: &Bodies) -> std::io::Result<LogFile> {
    let mut preamble = log::MAGIC.to_vec();
    log::put_json(&mut preamble, Block::Header, header);
    // It has what was sent and answered, which is for its owner alone.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(dir.join(log::FILE_NAME))?;
    file.write_all(&preamble)?;
    let table = bodies.requests.table();
    file.write_all(table)?;
    Ok(LogFile { file, at: (preamble.len() + table.len()) as u64 })
}
