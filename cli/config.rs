//! The run as resolved: what [`crate::args`] read, checked together, with every default filled in.

mod control;
mod document;
mod endpoint;
mod environment;
mod grammar;
mod input;
mod load;
mod media;
mod models;
mod replay;
mod series;
mod serve;
pub(crate) mod slos;
mod synthetic;
mod tokenizer;

pub(crate) use control::{Control, Profiler, Wait};
pub(crate) use endpoint::{Endpoint, Url, read_keys};
pub(crate) use environment::{Environment, IpVersion, read as environment};
pub(crate) use input::{Input, Trace};
pub(crate) use load::{Arrival, Load, PhaseConfig, PhaseKind};
pub(crate) use models::Models;
pub(crate) use replay::{FixedSchedule, Loop, Replay, ScheduleWindow};
pub(crate) use serve::ServeConfig;
pub(crate) use synthetic::Length;
pub(crate) use tokenizer::{NO_CHAT_TEMPLATE, Tokenizer};

use crate::args;
use crate::redact;
use crate::refusal::Refusal;
use crate::values::{CacheBust, Cores, DatasetSampling, ExportLevel, Format, Io, LogLevel, Reuse, Spin, Switch, Ui};
use maser_engine::clock::Nanos;
use maser_engine::metric::Applies;
use maser_engine::plan::{Hidden, Transport};
use maser_engine::schedule::Tied;
use serde_json::{Map, Value};
use std::path::PathBuf;

/// Everything that `maser profile` was asked for.
#[derive(Debug, Clone)]
pub(crate) struct ProfileConfig {
    /// The models asked for where the input names none.
    pub(crate) models: Models,
    /// The server and how it is spoken to.
    pub(crate) endpoint: Endpoint,
    /// What the servers are asked beside the load.
    pub(crate) control: Control,
    /// The phases. While `fixed_schedule` is [`FixedSchedule::AutoIfTrace`] they are as without a schedule.
    pub(crate) load: Load,
    /// Whether requests are sent at the times of the trace.
    pub(crate) fixed_schedule: FixedSchedule,
    /// Which part of the trace is sent.
    pub(crate) window: ScheduleWindow,
    /// What is done to its times.
    pub(crate) replay: Replay,
    /// What is sent.
    pub(crate) input: Input,
    /// In which order its conversations are.
    pub(crate) sampling: DatasetSampling,
    /// Where a marker goes that keeps a server from knowing a conversation again.
    pub(crate) cache_bust: CacheBust,
    /// The text of `--system-prompt`.
    pub(crate) system_prompt: Option<String>,
    /// What tokens are made and counted with.
    pub(crate) tokenizer: Tokenizer,
    /// Token counts of the results are the server's.
    pub(crate) use_server_token_count: bool,
    /// What is written where.
    pub(crate) output: Output,
    /// The bounds that good requests keep to, `{tag: bound}`, in the metrics' display units.
    pub(crate) service_levels: Map<String, Value>,
    /// Where the threads run, and on what.
    pub(crate) machine: Machine,
    /// Which version of the internet protocol the server is reached by.
    pub(crate) ip_version: IpVersion,
    /// Connections of one executor at most, where the environment says so.
    pub(crate) connections: Option<u32>,
    /// Headers that carry the session's id beside the one that `--session-header` names.
    pub(crate) session_headers: Vec<String>,
    /// Nothing is shown but what goes wrong.
    pub(crate) quiet: bool,
    /// Standard output has the summary as JSON and nothing else.
    pub(crate) json: bool,
    /// What is shown during the run.
    pub(crate) ui: Ui,
    /// The least severe message that is shown.
    pub(crate) log_level: LogLevel,
    /// Seed of everything random, if given.
    pub(crate) random_seed: Option<u64>,
    /// The mock server to start and load; its port, once known, goes to [`Endpoint::set_port`].
    pub(crate) mock: Option<ServeConfig>,
    /// Remarks for the user, a sentence each; none of them stops the run.
    pub(crate) notes: Vec<String>,
    typed: Typed,
}

/// What the resolved values no longer tell: which options were given.
#[derive(Debug, Clone)]
struct Typed {
    asked: load::Asked,
    replay: args::Replay,
    endpoint_type: bool,
    sampling: bool,
    export_level: bool,
    log_level: Option<LogLevel>,
    /// Requests of the schedule, once known.
    scheduled: Option<u64>,
    /// Its ties, once known.
    tied: Option<Tied>,
}

impl Typed {
    /// The load, and what is done to a trace's times; `fixed` says that these set the pace.
    fn resolve(&self, fixed: bool, notes: &mut Vec<String>) -> Result<(Load, Replay), Refusal> {
        let load = Load::resolve(&self.asked, fixed, notes)?;
        let replay = Replay::resolve(&self.replay, self.asked.truth.ties, fixed, notes)?;
        Ok((load, replay))
    }
}

/// What is written where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Output {
    /// The directory, if given; [`ProfileConfig::artifact_dir`] has the one to use.
    pub(crate) dir: Option<PathBuf>,
    /// Earlier results there are replaced instead of moved aside.
    pub(crate) overwrite: bool,
    /// What file names begin with, if given, without a file name's ending.
    pub(crate) prefix: Option<String>,
    /// How much of each request is written.
    pub(crate) level: ExportLevel,
    /// The texts of the answers in a file of their own.
    pub(crate) outputs: bool,
    /// Results over time, in slices of this length.
    pub(crate) slice_ns: Option<Nanos>,
    /// The times of each request's transfer in its line.
    pub(crate) traces: bool,
    /// The table of the HTTP transfer's phases.
    pub(crate) trace_timing: bool,
    /// The requests as Parquet.
    pub(crate) parquet: bool,
    /// The latencies as a histogram log.
    pub(crate) hdr: bool,
}

/// Where the threads run, and on what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Machine {
    /// The cores that may be used.
    pub(crate) cores: Cores,
    /// Where to wait in a loop.
    pub(crate) spin: Spin,
    /// The kernel interface below the sockets.
    pub(crate) io: Io,
    /// Executors at most, if limited.
    pub(crate) workers_max: Option<u32>,
    /// Open a closed loop's connections before the start.
    pub(crate) preconnect: bool,
    /// How connections are made and kept.
    pub(crate) transport: Transport,
}

impl Output {
    fn resolve(typed: args::Output, extra: args::Extra) -> Result<Self, Refusal> {
        Ok(Self {
            outputs: typed.export_outputs_json,
            slice_ns: typed.slice_duration,
            traces: typed.export_http_trace,
            trace_timing: typed.show_trace_timing,
            parquet: extra.export_parquet,
            hdr: extra.export_hdr,
            dir: typed.dir,
            overwrite: extra.overwrite,
            prefix: typed.prefix.map(prefix).transpose()?,
            level: typed.level.unwrap_or(ExportLevel::Records),
        })
    }
}

impl Machine {
    fn resolve(typed: &args::Machine, workers_max: Option<u32>) -> Self {
        let usual = Transport::default();
        let transport = Transport {
            retry_stale: typed.retry_stale != Some(Switch::Off),
            connect_timeout: typed.connect_timeout_seconds.unwrap_or(usual.connect_timeout),
            ..usual
        };
        Self {
            transport,
            cores: typed.cores.clone().unwrap_or(Cores::Auto),
            spin: typed.spin.unwrap_or(Spin::Auto),
            io: typed.io.unwrap_or(Io::Auto),
            workers_max,
            preconnect: !typed.no_preconnect,
        }
    }
}

impl ProfileConfig {
    /// Checks the options together and fills in what they leave open. `terminal` says whether a person may be watching.
    /// The notes are complete once [`ProfileConfig::settle_file`] has been called, where there is a file.
    pub(crate) fn resolve(args: args::Profile, terminal: bool) -> Result<Self, Refusal> {
        let mut notes = Vec::new();
        let mock = mock(&args)?;
        let models = Models::resolve(&args, mock.as_ref())?;
        let endpoint = Endpoint::resolve(&args, mock.as_ref(), &mut notes)?;
        models.check(&endpoint)?;
        let control = Control::resolve(&args.control, &endpoint, &mut notes)?;
        let input = Input::resolve(&args, &endpoint, &mut notes)?;
        let system_prompt = synthetic::system_prompt(&args, &endpoint)?;
        let cache_bust = synthetic::cache_bust(&args, endpoint.kind)?;
        let (fixed_schedule, window) = replay::schedule(&args)?;
        let sampling = replay::sampling(&args, fixed_schedule)?;
        let tokenizer = Tokenizer::resolve(&args, models.names(), endpoint.kind, &mut notes)?;
        let (ui, log_level) = verbosity(&args.service, args.machine.quiet, terminal, &mut notes);
        idle_options(&args.service, &mut notes);
        let series = args.load.request_rate_series.as_deref().map(series::RateSeries::open).transpose()?;
        let streaming = endpoint.streaming;
        let asked = load::Asked { load: args.load, warmup: args.warmup, truth: args.truth, series, streaming };
        let typed = Typed {
            endpoint_type: args.endpoint.kind.is_some(),
            sampling: args.input.sampling.is_some(),
            export_level: args.output.level.is_some(),
            log_level: (args.service.log_level.is_some() || log_level < LogLevel::Info).then_some(log_level),
            asked,
            replay: args.replay,
            scheduled: None,
            tied: None,
        };
        let (load, replay) = match fixed_schedule {
            // Its notes wait until the file has told which it is.
            FixedSchedule::AutoIfTrace => typed.resolve(false, &mut Vec::new())?,
            known => typed.resolve(known == FixedSchedule::Yes, &mut notes)?,
        };
        if cache_bust.is_for_warmup() && load.phases.iter().all(|phase| phase.kind != PhaseKind::Warmup) {
            notes.push(format!(
                "--cache-bust {}: without a warmup nothing is marked",
                crate::values::name_of(cache_bust)
            ));
        }
        let applies = Applies::to(endpoint.kind, endpoint.streaming, args.endpoint.use_server_token_count);
        Ok(Self {
            models,
            endpoint,
            control,
            load,
            fixed_schedule,
            window,
            replay,
            input,
            sampling,
            cache_bust,
            system_prompt,
            tokenizer,
            use_server_token_count: args.endpoint.use_server_token_count,
            service_levels: slos::resolve(&args.output.goodput, &applies)?,
            quiet: args.machine.quiet,
            json: args.machine.json,
            output: Output::resolve(args.output, args.extra)?,
            machine: Machine::resolve(&args.machine, args.service.workers_max),
            ip_version: IpVersion::default(),
            connections: None,
            session_headers: Environment::default().session_headers(),
            ui,
            log_level,
            random_seed: args.input.random_seed,
            mock,
            notes,
            typed,
        })
    }

    /// The texts that are secrets, wherever they came from.
    pub(crate) fn secrets(&self) -> redact::Secrets {
        let mut secrets = redact::Secrets::default();
        let endpoint = &self.endpoint;
        if let Some(key) = &endpoint.api_key {
            secrets.add(key.expose());
        }
        endpoint.headers.iter().for_each(|header| secrets.add_header(&header.name, &header.value));
        endpoint.urls.iter().for_each(|url| secrets.add_url(url.as_str()));
        endpoint.custom_path.iter().for_each(|path| secrets.add_url(path));
        secrets.add_fields(&endpoint.extra);
        if let Some(template) = &endpoint.template {
            secrets.add_loose(template, redact::is_sensitive_field);
        }
        secrets
    }

    /// What no file may show of bodies and answers.
    pub(crate) fn hidden(&self) -> Hidden {
        let template = self.endpoint.template.as_deref();
        redact::in_bodies(&self.endpoint.extra, template, &self.secrets())
    }

    /// Takes over what the environment says.
    pub(crate) fn set_environment(&mut self, environment: &Environment) {
        self.ip_version = environment.ip_version;
        self.session_headers = environment.session_headers();
        self.connections = environment.connections;
        if environment.force_close {
            self.endpoint.reuse = Some(Reuse::Never);
        }
        self.machine.transport.liveness = environment.liveness;
        if let Some(every) = environment.video_poll {
            self.endpoint.follow_ups.every = every;
        }
        let most = environment.workers_cap.into_iter().chain(self.machine.workers_max).min();
        self.machine.workers_max = most;
        self.notes.extend(environment.notes.iter().cloned());
    }

    /// Says what the input file turned out to be, and whether its first row has a timestamp. Refuses options that do
    /// not go with it, and settles [`FixedSchedule::AutoIfTrace`]. To be called once for a run with a file.
    pub(crate) fn settle_file(&mut self, format: Format, timed: bool) -> Result<(), Refusal> {
        self.input.settle(format)?;
        let fixed = match (self.fixed_schedule, timed) {
            (FixedSchedule::Yes, true) => return Ok(()),
            (FixedSchedule::Yes, false) => {
                return Err(Refusal::new(
                    "--fixed-schedule: the first row of --input-file has no timestamp to send it at",
                ));
            }
            (FixedSchedule::No, _) => return Ok(()),
            (FixedSchedule::AutoIfTrace, timed) => timed,
        };
        if let Some(flag) = replay::own_pace(&self.typed.asked.load).filter(|_| fixed) {
            return Err(Refusal::new(format!(
                "{flag}: the trace has timestamps, which set the pace; remove {flag}, or add --no-fixed-schedule to \
                 ignore them"
            )));
        }
        if fixed {
            replay::check_order(self.sampling, "the trace has timestamps")?;
        }
        (self.load, self.replay) = self.typed.resolve(fixed, &mut self.notes)?;
        self.fixed_schedule = if fixed { FixedSchedule::Yes } else { FixedSchedule::No };
        Ok(())
    }

    /// Says how many requests the fixed schedule has, for the files.
    pub(crate) fn set_scheduled_requests(&mut self, requests: u64) {
        self.typed.scheduled = Some(requests);
    }

    /// Says what ties the fixed schedule had, for the files.
    pub(crate) fn set_ties(&mut self, tied: Tied) {
        self.typed.tied = Some(tied);
    }

    /// The directory of the run's files: as given, else `artifacts/` and in it a directory named after model, endpoint
    /// and load.
    pub(crate) fn artifact_dir(&self) -> PathBuf {
        if let Some(dir) = &self.output.dir {
            return dir.clone();
        }
        let model = self.models.directory();
        let kind = self.endpoint.kind.name();
        let stimulus = self.load.stimulus();
        PathBuf::from("artifacts").join(format!("{model}-openai-{kind}-{stimulus}"))
    }
}

fn mock(args: &args::Profile) -> Result<Option<ServeConfig>, Refusal> {
    let Some(spec) = &args.machine.mock else {
        return Ok(None);
    };
    if !args.endpoint.urls.is_empty() {
        return Err(Refusal::new("--url: --mock loads a server of its own; remove one of the two"));
    }
    ServeConfig::mock(spec).map(Some)
}

fn prefix(typed: String) -> Result<String, Refusal> {
    match maser::export::prefix_of(&typed) {
        Some(bare) => Ok(bare.to_owned()),
        None => Err(Refusal::new(format!(
            "--profile-export-prefix {typed}: expected the beginning of a file name, without a directory"
        ))),
    }
}

fn verbosity(service: &args::Service, quiet: bool, terminal: bool, notes: &mut Vec<String>) -> (Ui, LogLevel) {
    if service.ui == Some(Ui::Dashboard) {
        notes.push("--ui dashboard: this version has no dashboard, so --ui simple is used".to_owned());
    }
    if quiet {
        return (Ui::None, LogLevel::Error);
    }
    if service.extra_verbose || service.verbose > 1 {
        return (Ui::Simple, LogLevel::Trace);
    }
    if service.verbose == 1 {
        return (Ui::Simple, LogLevel::Debug);
    }
    let default = if terminal { Ui::Simple } else { Ui::None };
    let ui = match service.ui.unwrap_or(default) {
        Ui::Dashboard => Ui::Simple,
        ui => ui,
    };
    (ui, service.log_level.unwrap_or(LogLevel::Info))
}

fn idle_options(service: &args::Service, notes: &mut Vec<String>) {
    let zmq = [
        ("--zmq-host", service.zmq_host.is_some()),
        ("--zmq-ipc-path", service.zmq_ipc_path.is_some()),
        ("--zmq-dual-bind", service.zmq_dual_bind),
    ];
    let absent = [
        ("--server-metrics", service.server_metrics.is_some(), "server metrics are not collected"),
        ("--server-metrics-formats", !service.server_metrics_formats.is_empty(), "server metrics are not collected"),
        ("--gpu-telemetry", service.gpu_telemetry.is_some(), "GPU telemetry is not collected"),
        ("--auto-plot", service.auto_plot, "no plots are drawn"),
    ];
    for (flag, _, what) in absent.iter().filter(|(_, given, _)| *given) {
        notes.push(format!("{flag}: {what} by this version of maser; the run is the same without"));
    }
    for (flag, _) in zmq.iter().filter(|(_, given)| *given) {
        notes.push(format!("{flag} has no effect: maser is one process"));
    }
    if service.record_processors.is_some() {
        notes.push("--record-processors has no effect: records are processed after the run, on all cores".into());
    }
    if service.stats_interval.is_some() {
        notes.push("--stats-interval has no effect: the progress bar is always up to date".into());
    }
}

#[cfg(test)]
mod tests;
