//! The command line as typed.
//!
//! One struct per group of options, in the reference's groups and spellings. Values are checked one by one here; what
//! several options say together is [`crate::config`]'s affair.

mod control;
mod dataset;
mod media;
mod prompts;

pub(crate) use control::Control;
pub(crate) use dataset::{Analyze, Compile, Dataset, Source, Stats as DatasetStats, Synthesize};

use crate::refusal::Refusal;
use crate::values::{
    ArrivalPattern, ContentType, Cores, DatasetSampling, EndpointKind, ExportLevel, Fault, Format, Grace, Io, Jitter,
    LatePolicy, LogLevel, ModelSelection, RampStrategy, Reuse, ServiceLevels, Spin, Switch, Ties, Transport, Ui,
    UrlStrategy, bytes, choice, content_type, cores, count, count32, endpoint_type, factor, fault, format, grace,
    jitter, millis, percent, percentile, rate, ratio, seconds, service_levels, share, single, span, whole, whole32,
};
use crate::{hints, options, redact};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use maser_engine::clock::Nanos;
pub(crate) use media::{Audio, Images, Media, Video};
pub(crate) use prompts::Prompts;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  64 streams at a time against a server, for a minute:
    maser profile -m my-model -u http://gpu-node:8000 --streaming \\
        --concurrency 64 --benchmark-duration 60 --isl 512 --osl 128

  The same shape of run against a server of its own, to see what this machine can do:
    maser profile --mock --streaming --request-rate 2000 --benchmark-duration 10

`maser COMMAND --help` lists a command's options. Options are spelled as in NVIDIA AIPerf.";

/// Loads AI inference endpoints and measures them, thread per core.
///
/// Sends chat requests in a closed loop, at a rate, or at the times of a recorded trace, and writes the files that
/// NVIDIA AIPerf writes, under the same options.
#[derive(Debug, Parser)]
#[command(name = "maser", version, after_help = EXAMPLES, after_long_help = EXAMPLES, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What maser is asked to do.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Command {
    /// Load an endpoint and report how it fared
    Profile(Box<Profile>),
    /// Print and write a finished run's report again, from its record log
    Report(Report),
    /// List every metric with its unit, its meaning and when it is absent
    Metrics,
    /// Serve mock inference endpoints with known timing and faults, to test a client against
    Serve(Box<Serve>),
    /// Look at datasets and traces, and write traces anew
    #[command(subcommand)]
    Dataset(Dataset),
    /// Print lengths, shared prefixes and the hit rate of a cache without limits, as AIPerf does
    AnalyzeTrace(Analyze),
}

/// `maser profile`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Profile {
    #[command(flatten)]
    pub(crate) endpoint: Endpoint,
    #[command(flatten)]
    pub(crate) control: Control,
    #[command(flatten)]
    pub(crate) input: Input,
    #[command(flatten)]
    pub(crate) trace: Trace,
    #[command(flatten)]
    pub(crate) schedule: Schedule,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) tokenizer: Tokenizer,
    #[command(flatten)]
    pub(crate) load: Load,
    #[command(flatten)]
    pub(crate) replay: Replay,
    #[command(flatten)]
    pub(crate) warmup: Warmup,
    #[command(flatten)]
    pub(crate) prompts: Prompts,
    #[command(flatten)]
    pub(crate) media: Media,
    #[command(flatten)]
    pub(crate) service: Service,
    #[command(flatten)]
    pub(crate) truth: Truth,
    #[command(flatten)]
    pub(crate) machine: Machine,
    #[command(flatten)]
    pub(crate) extra: Extra,
}

/// The server and how it is spoken to.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Endpoint")]
pub(crate) struct Endpoint {
    /// The model to ask for. Several, with commas or repeated, share the turns. Required, except with --mock [default with
    /// --mock: mock]
    #[arg(short = 'm', long = "model", visible_alias = "model-names", value_name = "NAME", value_delimiter = ',')]
    pub(crate) models: Vec<String>,

    /// Which of several models a turn asks for that names none: round-robin, random [default: round-robin]
    #[arg(long = "model-selection-strategy", value_name = "STRATEGY", value_parser = choice::<ModelSelection>)]
    pub(crate) model_selection: Option<ModelSelection>,

    /// The server's base URL, http only; `http://` may be left out. Several, with commas or repeated, share the sessions
    /// [default: http://localhost:8000]
    #[arg(short = 'u', long = "url", value_name = "URL", num_args = 1.., value_delimiter = ',')]
    pub(crate) urls: Vec<String>,

    /// Which of several servers a session goes to, with all its turns: round-robin, least-in-flight (the one with the
    /// fewest requests in flight), weighted (see --url-weights) [default: round-robin]
    #[arg(long, value_name = "STRATEGY", value_parser = choice::<UrlStrategy>)]
    pub(crate) url_strategy: Option<UrlStrategy>,

    /// Shares of the servers under --url-strategy weighted, one for each --url in their order: 3,1 gives the first three
    /// sessions of four
    #[arg(help_heading = "Only in maser", long, value_name = "N,N", value_delimiter = ',', value_parser = count32)]
    pub(crate) url_weights: Vec<u32>,

    /// Which requests share a connection: pooled (any that follow one another), never (none), sticky-user-sessions (the
    /// turns of one conversation) [default: pooled]
    #[arg(long = "connection-reuse-strategy", value_name = "STRATEGY", value_parser = choice::<Reuse>)]
    pub(crate) reuse: Option<Reuse>,

    /// The API that is loaded: chat, completions, responses, messages, embeddings, and others of the reference's names; a
    /// wrong one lists them all [default: chat]
    #[arg(long = "endpoint-type", value_name = "TYPE", value_parser = endpoint_type)]
    pub(crate) kind: Option<EndpointKind>,

    /// How requests travel: http, which is the only way and the default
    #[arg(long, visible_alias = "transport-type", value_name = "TRANSPORT", value_parser = choice::<Transport>)]
    pub(crate) transport: Option<Transport>,

    /// Ask for the answer as a stream of events, and time its tokens
    #[arg(long)]
    pub(crate) streaming: bool,

    /// Path of the requests, beginning with `/` [default: the API's own, /v1/chat/completions for chat]
    #[arg(long = "custom-endpoint", visible_alias = "endpoint", value_name = "PATH")]
    pub(crate) path: Option<String>,

    /// Sent as `Authorization: Bearer KEY`, to Anthropic's API as `x-api-key`; replaces such a header given with --header.
    /// Whoever lists this machine's processes sees it: --api-key-file hides it [default: OPENAI_API_KEY of the environment,
    /// where --url is given, the API takes a bearer token and --header has no Authorization]
    #[arg(long, value_name = "KEY")]
    pub(crate) api_key: Option<String>,

    /// File that has the key of --api-key and nothing else; `-` reads standard input
    #[arg(help_heading = "Only in maser", long, value_name = "FILE", conflicts_with = "api_key")]
    pub(crate) api_key_file: Option<PathBuf>,

    /// What it has.
    #[arg(skip)]
    pub(crate) api_key_of_file: Option<String>,

    /// OPENAI_API_KEY of the environment.
    #[arg(skip)]
    pub(crate) api_key_of_environment: Option<String>,

    /// Seconds a request may take, from its start to its last byte [default: 21600]
    #[arg(long = "request-timeout-seconds", value_name = "SECONDS", value_parser = seconds)]
    pub(crate) timeout: Option<Nanos>,

    /// Take token counts from the server's usage instead of counting them here
    #[arg(long)]
    pub(crate) use_server_token_count: bool,

    /// Ask for the output length in `max_tokens`, not `max_completion_tokens`
    #[arg(long)]
    pub(crate) use_legacy_max_tokens: bool,

    /// Ask for token counts with every event of a chat stream, so that tokens and not events are timed
    #[arg(long)]
    pub(crate) per_chunk_usage: bool,

    /// application/json or multipart/form-data, as the API takes it [default: what the API takes]
    #[arg(long = "request-content-type", value_name = "TYPE", value_parser = content_type)]
    pub(crate) content_type: Option<ContentType>,

    /// Fetch each finished video of video_generation; its bytes are timed and thrown away
    #[arg(long)]
    pub(crate) download_video_content: bool,

    /// Send an image that an earlier turn of the session has sent as its `image_uuids` key alone; chat and single_turn only
    #[arg(long)]
    pub(crate) uuid_and_strip: bool,

    /// Header that carries the session's id [default: X-Correlation-ID]
    #[arg(long, value_name = "NAME")]
    pub(crate) session_header: Option<String>,
}

/// What is sent.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Input")]
pub(crate) struct Input {
    /// Fields added to every body: `key:value`, several with commas, or a JSON object; may be repeated
    #[arg(long, value_name = "KEY:VALUE", num_args = 1..)]
    pub(crate) extra_inputs: Vec<String>,

    /// Header added to every request: `Name:Value` or a JSON object; may be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME:VALUE", num_args = 1..)]
    pub(crate) headers: Vec<String>,

    /// File with the prompts or the trace, gzip and zstd too, or a directory of such; without it prompts are generated
    #[arg(long, value_name = "FILE")]
    pub(crate) input_file: Option<PathBuf>,

    /// Dataset by name, from a local copy or the hub's cache; nothing is downloaded. `maser dataset list` has the names
    #[arg(long, value_name = "NAME", conflicts_with_all = ["input_file", "format"])]
    pub(crate) public_dataset: Option<String>,

    /// Subset of the public dataset in place of its usual one
    #[arg(long, value_name = "NAME", requires = "public_dataset")]
    pub(crate) hf_subset: Option<String>,

    /// Take only rows of the public dataset with this value: `harness=claude_code`; may be repeated. exgentic has harness
    /// and source_model, exgentic_v2 benchmark too
    #[arg(long = "dataset-filter", value_name = "NAME=VALUE", num_args = 1..)]
    pub(crate) dataset_filters: Vec<String>,

    /// Format of the input file: single_turn, multi_turn, random_pool, mooncake_trace, bailian_trace, burst_gpt_trace,
    /// azure_trace, baseten_trace, sagemaker_data_capture, raw_payload, inputs_json, sharegpt, spec_bench, mt_bench,
    /// speed_bench_… [default: told by its first row]
    #[arg(long = "custom-dataset-type", value_name = "FORMAT", value_parser = format)]
    pub(crate) format: Option<Format>,

    /// Which conversation of the dataset comes next: sequential (in order, round and round), random (any, each time anew),
    /// shuffle (each once in random order, then again in another) [default: sequential]
    #[arg(long = "dataset-sampling-strategy", value_name = "STRATEGY", value_parser = choice::<DatasetSampling>)]
    pub(crate) sampling: Option<DatasetSampling>,

    /// Seed of everything random; the same seed gives the same requests at the same planned times
    #[arg(long, value_name = "N", value_parser = whole)]
    pub(crate) random_seed: Option<u64>,
}

/// How a trace or a file of conversations is changed before it is replayed.
#[derive(Debug, Clone, Args)]
pub(crate) struct Trace {
    /// Pay no heed to the delays between the turns of a conversation in the file
    #[arg(help_heading = "Input", long)]
    pub(crate) ignore_trace_delays: bool,

    /// Keep the finished request bodies in this directory, and take them from there the next time
    #[arg(help_heading = "Only in maser", long, value_name = "DIR")]
    pub(crate) dataset_cache: Option<PathBuf>,

    /// Bytes that --dataset-cache may take, as 500MB or 20GB; what was used longest ago goes first [default: 20GB]
    #[arg(help_heading = "Only in maser", long, value_name = "SIZE", value_parser = bytes, requires = "dataset_cache")]
    pub(crate) dataset_cache_size: Option<u64>,

    /// baseten_trace: keep each session with this probability, above 0 and at most 1
    #[arg(help_heading = "Input", long = "trace-session-sample-ratio", value_name = "FRACTION", value_parser = ratio)]
    pub(crate) session_sample_ratio: Option<f64>,

    /// baseten_trace: leave `hash_ids` and `block_size` out of the bodies
    #[arg(help_heading = "Conversation Input", long)]
    pub(crate) omit_kv_hints: bool,

    /// baseten_trace: ask for at least the recorded output length with `min_tokens` [default: on]
    #[arg(help_heading = "Conversation Input", long, conflicts_with = "no_force_min_tokens")]
    pub(crate) force_min_tokens: bool,

    /// baseten_trace: leave `min_tokens` out of the bodies
    #[arg(help_heading = "Conversation Input", long)]
    pub(crate) no_force_min_tokens: bool,

    /// Divide a trace's timestamps by this [default: 1]
    #[arg(help_heading = "Synthesis", long = "synthesis-speedup-ratio", value_name = "FACTOR", value_parser = factor)]
    pub(crate) speedup_ratio: Option<f64>,

    /// Stretch what requests of a trace share by this [default: 1]
    #[arg(help_heading = "Synthesis", long = "synthesis-prefix-len-multiplier", value_name = "FACTOR", value_parser = factor)]
    pub(crate) prefix_multiplier: Option<f64>,

    /// Spread a trace's requests over this many trees that share nothing [default: 1]
    #[arg(help_heading = "Synthesis", long = "synthesis-prefix-root-multiplier", value_name = "N", value_parser = count32)]
    pub(crate) root_multiplier: Option<u32>,

    /// Stretch what requests of a trace have to themselves by this [default: 1]
    #[arg(help_heading = "Synthesis", long = "synthesis-prompt-len-multiplier", value_name = "FACTOR", value_parser = factor)]
    pub(crate) prompt_multiplier: Option<f64>,

    /// Stretch a trace's output lengths by this [default: 1]
    #[arg(help_heading = "Synthesis", long = "synthesis-output-len-multiplier", value_name = "FACTOR", value_parser = factor)]
    pub(crate) output_multiplier: Option<f64>,
}

/// When a trace's requests are sent.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Fixed Schedule")]
pub(crate) struct Schedule {
    /// Send each request at its timestamp in the input file [default: on for a trace named by --custom-dataset-type, if it has timestamps]
    #[arg(long, conflicts_with = "no_fixed_schedule")]
    pub(crate) fixed_schedule: bool,

    /// Pay no heed to the trace's timestamps
    #[arg(long)]
    pub(crate) no_fixed_schedule: bool,

    /// Send the first request at once [default: on, unless a start offset is given]
    #[arg(long = "fixed-schedule-auto-offset")]
    pub(crate) auto_offset: bool,

    /// Leave out what the trace has before this; it becomes the start, milliseconds
    #[arg(long = "fixed-schedule-start-offset", value_name = "MS", value_parser = whole)]
    pub(crate) start_offset: Option<u64>,

    /// Leave out what the trace has after this, milliseconds
    #[arg(long = "fixed-schedule-end-offset", value_name = "MS", value_parser = whole)]
    pub(crate) end_offset: Option<u64>,
}

/// What is written where.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct Output {
    /// Directory of the run's files [default: artifacts/, and in it a directory named after the run]
    #[arg(long = "artifact-dir", visible_alias = "output-artifact-dir", value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,

    /// Name that the files begin with in place of `profile_export`
    #[arg(long = "profile-export-prefix", visible_alias = "profile-export-file", value_name = "NAME")]
    pub(crate) prefix: Option<String>,

    /// summary; records: a line per request besides; raw: and all that was sent and received [default: records]
    #[arg(long = "export-level", visible_alias = "profile-export-level", value_name = "LEVEL", value_parser = choice::<ExportLevel>)]
    pub(crate) level: Option<ExportLevel>,

    /// Write a file with the text of every answer, outputs.json
    #[arg(long)]
    pub(crate) export_outputs_json: bool,

    /// Give each request's line the times of its transfer, `trace_data`
    #[arg(long)]
    pub(crate) export_http_trace: bool,

    /// Seconds of a slice: results over time in files of their own, 20000 slices at most
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) slice_duration: Option<Nanos>,

    /// Print a table of the HTTP transfer's phases
    #[arg(long)]
    pub(crate) show_trace_timing: bool,

    /// Service levels, such as `time_to_first_token:200 inter_token_latency:20`: metric and bound, in its unit in the
    /// tables; a request is good if it keeps to all of them
    #[arg(long, value_name = "METRIC:BOUND", value_parser = service_levels)]
    pub(crate) goodput: Vec<ServiceLevels>,
}

/// Files that only maser writes, and what becomes of earlier ones.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Only in maser")]
pub(crate) struct Extra {
    /// Write the requests as Parquet too: a row each, units in the fields' metadata
    #[arg(long)]
    pub(crate) export_parquet: bool,

    /// Write the latencies over time as a log of HDR histograms too
    #[arg(long)]
    pub(crate) export_hdr: bool,

    /// Replace the results of another run in the directory, its record log too [default: a run moves them to earlier-1,
    /// earlier-2 and so on in that directory, a report refuses]
    #[arg(long)]
    pub(crate) overwrite: bool,
}

/// How tokens are counted.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Tokenizer")]
pub(crate) struct Tokenizer {
    /// `builtin` (o200k_base), another tiktoken name, the path of a tokenizer.json or of a directory with one, or a model
    /// in the hub's local cache; nothing is downloaded [default: the model if it is one of these, else builtin]
    #[arg(long = "tokenizer", value_name = "NAME")]
    pub(crate) name: Option<String>,

    /// Branch, tag or commit of a tokenizer in the hub's local cache [default: main]
    #[arg(long = "tokenizer-revision", value_name = "REVISION")]
    pub(crate) revision: Option<String>,

    /// Accepted and without effect: maser runs no code of a tokenizer's
    #[arg(long = "tokenizer-trust-remote-code")]
    pub(crate) trust_remote_code: bool,

    /// Make and count prompts as the tokenizer's chat template writes them
    #[arg(long)]
    pub(crate) apply_chat_template: bool,
}

/// How much is sent, and when it ends.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Load Generator")]
pub(crate) struct Load {
    /// Conversations under way at most, up to 1000000; where each has one turn, that is requests in flight [default: 1
    /// without a rate or schedule, else no limit]
    #[arg(long, value_name = "N", value_parser = single(count32))]
    pub(crate) concurrency: Option<u32>,

    /// Requests at most that wait for their first token; needs --streaming [default: no limit]
    #[arg(long, value_name = "N", value_parser = single(count32))]
    pub(crate) prefill_concurrency: Option<u32>,

    /// Requests per second, whatever the answers take
    #[arg(long, value_name = "PER_SECOND", value_parser = single(rate))]
    pub(crate) request_rate: Option<f64>,

    /// Spacing under a rate: constant, poisson, gamma, concurrency-burst (which with a rate is poisson) [default:
    /// poisson, or gamma with --arrival-smoothness]
    #[arg(long, visible_alias = "request-rate-mode", value_name = "PATTERN", value_parser = choice::<ArrivalPattern>)]
    pub(crate) arrival_pattern: Option<ArrivalPattern>,

    /// Shape of gamma gaps: below 1 requests bunch, 1 is poisson, above they even out [default with gamma: 1]
    #[arg(long, visible_alias = "vllm-burstiness", value_name = "SHAPE", value_parser = factor)]
    pub(crate) arrival_smoothness: Option<f64>,

    /// JSON file with a rate that changes, [{"time_s":0,"qps":5},…]; between its points the rate goes in straight lines
    #[arg(long, value_name = "FILE")]
    pub(crate) request_rate_series: Option<PathBuf>,

    /// Requests to send, later turns of conversations included [default: 10 if nothing else ends the run; the
    /// reference's help promises more than it sends]
    #[arg(long, visible_alias = "num-requests", value_name = "N", value_parser = single(count))]
    pub(crate) request_count: Option<u64>,

    /// Seconds to send requests for
    #[arg(long, value_name = "SECONDS", value_parser = single(seconds))]
    pub(crate) benchmark_duration: Option<Nanos>,

    /// Seconds that requests in flight may take once the duration is over, or inf [default: 30]
    #[arg(long, value_name = "SECONDS", value_parser = grace)]
    pub(crate) benchmark_grace_period: Option<Grace>,

    /// Seconds in which the concurrency comes up from 1
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) concurrency_ramp_duration: Option<Nanos>,

    /// Seconds in which the prefill concurrency comes up from 1
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) prefill_concurrency_ramp_duration: Option<Nanos>,

    /// Seconds in which the rate comes up; exact all the way
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) request_rate_ramp_duration: Option<Nanos>,

    /// Stop the run once more than this share of the answered requests has failed, 0 to 1 [default: never]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub(crate) failed_request_threshold: Option<f64>,

    /// Turns per second of a steady population of --num-users, each of whom sends one at equal intervals
    #[arg(help_heading = "User-Centric Rate", long, value_name = "PER_SECOND", value_parser = rate)]
    pub(crate) user_centric_rate: Option<f64>,

    /// Users at a time under --user-centric-rate
    #[arg(help_heading = "User-Centric Rate", long, value_name = "N", value_parser = single(count32))]
    pub(crate) num_users: Option<u32>,

    /// Percent of the requests whose connection is closed before the answer is complete
    #[arg(help_heading = "Request Cancellation", long, value_name = "PERCENT", value_parser = percent)]
    pub(crate) request_cancellation_rate: Option<f64>,

    /// Seconds from the last byte of such a request to the close [default: 0]
    #[arg(help_heading = "Request Cancellation", long, value_name = "SECONDS", value_parser = span)]
    pub(crate) request_cancellation_delay: Option<Nanos>,

    /// Conversations to begin; each is carried to its last turn [default: no limit]
    #[arg(help_heading = "Conversation Input", long, visible_aliases = ["conversation-num", "num-sessions"], value_name = "N", value_parser = single(count))]
    pub(crate) num_conversations: Option<u64>,
}

/// What is done to the times of a trace.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Conversation Input")]
pub(crate) struct Replay {
    /// Replay a trace this many times as fast: divides its timestamps and delays [default: 1]
    #[arg(long, value_name = "FACTOR", value_parser = factor)]
    pub(crate) replay_speedup: Option<f64>,

    /// Shorten every pause in a trace's timestamps to this, seconds, after the speedup [default: as recorded]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) max_idle_gap_cap_seconds: Option<Nanos>,

    /// Shorten every delay between an answer and the next turn to this, seconds [default: as recorded]
    #[arg(long, value_name = "SECONDS", value_parser = span)]
    pub(crate) inter_turn_delay_cap_seconds: Option<Nanos>,

    /// Send the turns of a trace at their timestamps, whatever the answers take [default: on]
    #[arg(long, overrides_with = "no_open_loop_replay")]
    pub(crate) open_loop_replay: bool,

    /// Send later turns of a trace's conversations when the one before is answered and its delay has passed
    #[arg(long, overrides_with = "open_loop_replay")]
    pub(crate) no_open_loop_replay: bool,

    /// Send each row of a trace at its timestamp as a conversation of its own
    #[arg(long)]
    pub(crate) open_loop_strict: bool,
}

/// The requests before the measurement.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Warmup")]
pub(crate) struct Warmup {
    /// Requests to send and wait for before the measurement; they count in no result [default: none]
    #[arg(long = "warmup-request-count", visible_alias = "num-warmup-requests", value_name = "N", value_parser = count)]
    pub(crate) warmup_requests: Option<u64>,

    /// Conversations to begin before the measurement [default: none]
    #[arg(long = "num-warmup-sessions", value_name = "N", value_parser = count)]
    pub(crate) warmup_sessions: Option<u64>,

    /// Seconds to send requests for before the measurement [default: none]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) warmup_duration: Option<Nanos>,

    /// Conversations under way at most during warmup [default: as in the measurement]
    #[arg(long, value_name = "N", value_parser = count32)]
    pub(crate) warmup_concurrency: Option<u32>,

    /// Requests at most that wait for their first token during warmup [default: as in the measurement]
    #[arg(long, value_name = "N", value_parser = count32)]
    pub(crate) warmup_prefill_concurrency: Option<u32>,

    /// Requests per second during warmup [default: as in the measurement]
    #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
    pub(crate) warmup_request_rate: Option<f64>,

    /// Spacing under the warmup's rate: constant, poisson, gamma, concurrency-burst [default: as in the measurement]
    #[arg(long, value_name = "PATTERN", value_parser = choice::<ArrivalPattern>)]
    pub(crate) warmup_arrival_pattern: Option<ArrivalPattern>,

    /// Seconds that requests in flight may take once the warmup's duration is over, or inf [default: inf]
    #[arg(long, value_name = "SECONDS", value_parser = grace)]
    pub(crate) warmup_grace_period: Option<Grace>,

    /// Seconds in which the warmup's concurrency comes up from 1 [default: as in the measurement]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) warmup_concurrency_ramp_duration: Option<Nanos>,

    /// Seconds in which the warmup's prefill concurrency comes up from 1 [default: as in the measurement]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) warmup_prefill_concurrency_ramp_duration: Option<Nanos>,

    /// Seconds in which the warmup's rate comes up [default: as in the measurement]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) warmup_request_rate_ramp_duration: Option<Nanos>,
}

/// The program itself, in the reference's options.
#[derive(Debug, Clone, Args)]
pub(crate) struct Service {
    /// trace, debug, info, notice, warning, success, error, critical [default: info]
    #[arg(help_heading = "Service", long, value_name = "LEVEL", value_parser = choice::<LogLevel>)]
    pub(crate) log_level: Option<LogLevel>,

    /// Log level debug, and --ui simple; -vv is --extra-verbose
    #[arg(help_heading = "Service", short = 'v', long, action = ArgAction::Count)]
    pub(crate) verbose: u8,

    /// Log level trace, and --ui simple
    #[arg(help_heading = "Service", long)]
    pub(crate) extra_verbose: bool,

    /// Accepted with a note: this version collects no server metrics
    #[arg(help_heading = "Server Metrics", long, value_name = "URL", num_args = 0.., conflicts_with = "no_server_metrics")]
    pub(crate) server_metrics: Option<Vec<String>>,

    /// Accepted without effect: this version collects no server metrics
    #[arg(help_heading = "Server Metrics", long)]
    pub(crate) no_server_metrics: bool,

    /// Accepted with a note: this version collects no server metrics
    #[arg(help_heading = "Server Metrics", long, value_name = "FORMAT", num_args = 1..)]
    pub(crate) server_metrics_formats: Vec<String>,

    /// Accepted with a note: this version collects no GPU telemetry
    #[arg(help_heading = "GPU Telemetry", long, value_name = "SOURCE", num_args = 0.., conflicts_with = "no_gpu_telemetry")]
    pub(crate) gpu_telemetry: Option<Vec<String>>,

    /// Accepted without effect: this version collects no GPU telemetry
    #[arg(help_heading = "GPU Telemetry", long)]
    pub(crate) no_gpu_telemetry: bool,

    /// Accepted with a note: this version draws no plots
    #[arg(help_heading = "Output", long, conflicts_with = "no_auto_plot")]
    pub(crate) auto_plot: bool,

    /// Accepted without effect: this version draws no plots
    #[arg(help_heading = "Output", long)]
    pub(crate) no_auto_plot: bool,

    /// Accepted without effect: this version has no sweeps
    #[arg(help_heading = "Multi-Run", long)]
    pub(crate) no_sweep_table: bool,

    /// What to show during the run: simple (a progress bar), none; dashboard is taken as simple [default: simple on a
    /// terminal, else none]
    #[arg(help_heading = "UI", long = "ui", visible_alias = "ui-type", value_name = "UI", value_parser = choice::<Ui>)]
    pub(crate) ui: Option<Ui>,

    /// Executors at most, each a thread with a core of its own [default: what the cores allow]
    #[arg(help_heading = "Workers", long, visible_alias = "max-workers", value_name = "N", value_parser = count32)]
    pub(crate) workers_max: Option<u32>,

    /// Accepted and without effect: records are processed after the run, on all cores
    #[arg(help_heading = "Service", long, visible_alias = "record-processor-service-count", value_name = "N", value_parser = count)]
    pub(crate) record_processors: Option<u64>,

    /// Accepted and without effect: the progress bar is always up to date
    #[arg(help_heading = "Service", long, value_name = "SECONDS", value_parser = span)]
    pub(crate) stats_interval: Option<Nanos>,

    /// Accepted and without effect: maser is one process
    #[arg(help_heading = "ZMQ Communication", long, value_name = "HOST")]
    pub(crate) zmq_host: Option<String>,

    /// Accepted and without effect: maser is one process
    #[arg(help_heading = "ZMQ Communication", long, value_name = "PATH")]
    pub(crate) zmq_ipc_path: Option<PathBuf>,

    /// Accepted and without effect: maser is one process
    #[arg(help_heading = "ZMQ Communication", long)]
    pub(crate) zmq_dual_bind: bool,
}

/// How closely the plan is kept to, for which the reference has no options.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Only in maser")]
pub(crate) struct Truth {
    /// A scheduled request that finds no free slot under --concurrency is dropped (as in the reference, but counted),
    /// waits in a queue, or is sent all the same: drop, queue, send [default: queue]. Dropped ones do not count towards
    /// --request-count, and the next to find a slot takes their place in the dataset
    #[arg(long, value_name = "POLICY", value_parser = choice::<LatePolicy>)]
    pub(crate) late_policy: Option<LatePolicy>,

    /// Requests of a trace with one and the same timestamp: burst, or spread over the timestamps' step as uniform or
    /// poisson [default: burst]
    #[arg(long, value_name = "POLICY", value_parser = choice::<Ties>)]
    pub(crate) ties: Option<Ties>,

    /// Path of all ramps: linear, exponential (slowly, then fast), poisson (equal steps at random times) [default:
    /// linear]
    #[arg(long, value_name = "PATH", value_parser = choice::<RampStrategy>)]
    pub(crate) ramp_strategy: Option<RampStrategy>,

    /// Begin the measurement as soon as the warmup has sent everything, while its last requests are in flight
    #[arg(long)]
    pub(crate) seamless_warmup: bool,

    /// Stop the run once less than this percentage of the planned requests left on time; what waits for a slot or behind a
    /// stall counts as soon as it is late [default: never]
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub(crate) abort_below_adherence: Option<f64>,
}

/// What the reference has no options for.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Only in maser")]
pub(crate) struct Machine {
    /// Cores to run on: auto, a number (4), or a list with a comma or a range (0,2-5) [default: auto]
    #[arg(long, value_name = "CORES", value_parser = cores)]
    pub(crate) cores: Option<Cores>,

    /// Wait in a loop instead of sleeping: auto (on cores of one's own), always, never [default: auto]
    #[arg(long, value_name = "WHEN", value_parser = choice::<Spin>)]
    pub(crate) spin: Option<Spin>,

    /// Kernel interface below the sockets: direct (an io_uring of our own with multishot receives, kernel 6.1), uring
    /// (the runtime's), epoll; auto takes the first that the host allows [default: auto]
    #[arg(long, value_name = "IO", value_parser = choice::<Io>)]
    pub(crate) io: Option<Io>,

    /// Print the results as one JSON object on standard output, and nothing else there; docs/summary.md has its keys
    #[arg(long)]
    pub(crate) json: bool,

    /// Print one line with the results, and what goes wrong: no progress, no remarks, no tables
    #[arg(short = 'q', long, conflicts_with_all = ["verbose", "extra_verbose", "ui", "log_level"])]
    pub(crate) quiet: bool,

    /// Let the first requests of a closed loop open their connections, instead of opening them before the start
    #[arg(long)]
    pub(crate) no_preconnect: bool,

    /// Send a request again, once, where the server had closed the idle connection before it got any of it: on or off.
    /// Whatever else breaks is a failure [default: on]
    #[arg(long, value_name = "WHEN", value_parser = choice::<Switch>)]
    pub(crate) retry_stale: Option<Switch>,

    /// How long a connection may take to one address before the next is tried; after the last, the request fails
    /// [default: 30]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) connect_timeout_seconds: Option<Nanos>,

    /// Load a mock server inside this process instead of --url. SPEC has the options of `maser serve`:
    /// ttft=20,itl=5,osl=32,fault=http500:0.3
    #[arg(long, value_name = "SPEC", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub(crate) mock: Option<String>,
}

/// `maser report`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Report {
    /// Artefact directory of the run, or its records.maser
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,

    /// summary; records: a line per request besides; raw: and all that was sent and received [default: as in the run]
    #[arg(long = "export-level", visible_alias = "profile-export-level", value_name = "LEVEL", value_parser = choice::<ExportLevel>)]
    pub(crate) level: Option<ExportLevel>,

    /// Write a file with the text of every answer too, outputs.json
    #[arg(long)]
    pub(crate) export_outputs_json: bool,

    /// Service levels in place of the run's, such as `time_to_first_token:200`: metric and bound, in its unit in the tables
    #[arg(long, value_name = "METRIC:BOUND", value_parser = service_levels)]
    pub(crate) goodput: Vec<ServiceLevels>,

    /// Seconds of a slice, in place of the run's: results over time in files of their own
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) slice_duration: Option<Nanos>,

    /// Only requests that started this long or longer after the start of the first profiling phase, seconds
    #[arg(long, value_name = "SECONDS", value_parser = span)]
    pub(crate) from: Option<Nanos>,

    /// Only requests that started before this, likewise
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) to: Option<Nanos>,

    /// Percentiles to give with their confidence intervals, per cent: `50,99,99.9`
    #[arg(long, value_name = "P,P,...", value_delimiter = ',', value_parser = percentile)]
    pub(crate) percentiles: Vec<f64>,

    /// Only check the log: checksums, every request accounted for, times in order; exit code 1 if it fails
    #[arg(long, conflicts_with_all = [
        "level", "export_outputs_json", "export_parquet", "export_hdr", "goodput", "slice_duration", "from", "to",
        "percentiles", "show_trace_timing", "export_http_trace", "output", "json", "overwrite"
    ])]
    pub(crate) verify: bool,

    /// Directory to write the files to [default: DIR itself, in place of the run's]
    #[arg(short = 'o', long = "artifact-dir", visible_alias = "output-artifact-dir", value_name = "OUT")]
    pub(crate) output: Option<PathBuf>,

    /// Give each request's line the times of its transfer, `trace_data`
    #[arg(long)]
    pub(crate) export_http_trace: bool,

    /// Print the table of the HTTP transfer's phases too
    #[arg(long)]
    pub(crate) show_trace_timing: bool,

    /// Print the results as one JSON object, and nothing else on standard output
    #[arg(long)]
    pub(crate) json: bool,

    /// Print one line with the results and what goes wrong, no tables
    #[arg(short, long)]
    pub(crate) quiet: bool,

    // Last: its heading holds for what follows.
    #[command(flatten)]
    pub(crate) extra: Extra,
}

/// `maser serve`, and what `--mock=SPEC` says.
#[derive(Debug, Clone, Args)]
pub(crate) struct Serve {
    /// Address to listen on [default: 127.0.0.1]
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Option<String>,

    /// Port to listen on; 0 picks a free one and prints it [default: 8000, 0 with --mock]
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,

    /// Model to answer for; may be repeated [default: mock]
    #[arg(short = 'm', long = "model", value_name = "NAME")]
    pub(crate) models: Vec<String>,

    /// Milliseconds from a request to its first token [default: 20]
    #[arg(long, value_name = "MS", value_parser = millis)]
    pub(crate) ttft: Option<Nanos>,

    /// Milliseconds from one token to the next [default: 5]
    #[arg(long, value_name = "MS", value_parser = millis)]
    pub(crate) itl: Option<Nanos>,

    /// Tokens of an answer where the request names no length [default: 32]
    #[arg(long, value_name = "TOKENS", value_parser = count32)]
    pub(crate) osl: Option<u32>,

    /// Tokens in one event of a stream [default: 1]
    #[arg(long, visible_alias = "tokens-per-event", value_name = "N", value_parser = count32)]
    pub(crate) tokens_per_chunk: Option<u32>,

    /// Tokens of reasoning at the start of each answer (chat, responses, messages), within its length [default: 0]
    #[arg(long, value_name = "TOKENS", value_parser = whole32)]
    pub(crate) reasoning: Option<u32>,

    /// Answer requests that offer tools with a call of the first one, unless they bring the result of a call
    #[arg(long)]
    pub(crate) tool_calls: bool,

    /// Decode speculatively with N drafted tokens a step: an event is a step and carries 1 to N+1 tokens, and chat and
    /// completions tell acceptance beside their usage
    #[arg(long, value_name = "N", value_parser = count32)]
    pub(crate) spec_decode: Option<u32>,

    /// Begin the text of each answer with the number of messages in the request, in place of its first word
    #[arg(long)]
    pub(crate) echo: bool,

    /// Share of each prompt that usage says came from a cache [default: 0]
    #[arg(long, value_name = "FRACTION", value_parser = share)]
    pub(crate) cached: Option<f64>,

    /// Tell in the usage of chat and completions what few vendors tell as well: of the prompt, tokens missed in the cache
    /// and written to it (half of those), audio (a quarter) and results of tools (an eighth); of the answer, audio (a
    /// quarter) and predicted tokens taken (half) and not taken (an eighth). Messages tell what was written to the cache
    #[arg(long)]
    pub(crate) usage_details: bool,

    /// How far each interval strays from its mean to either side: a fraction of it (0.1), or milliseconds (2ms)
    /// [default: 0]
    #[arg(long, value_name = "JITTER", value_parser = jitter)]
    pub(crate) jitter: Option<Jitter>,

    /// Share of requests that fail, and how: http500, http429, reset, close, malformed, error-event, hang; may be
    /// repeated, the shares add up to at most 1
    #[arg(long = "fault", value_name = "KIND:FRACTION", value_parser = fault)]
    pub(crate) faults: Vec<Fault>,

    /// Write what was really sent, and when, one JSON line a request
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,

    /// Seed of jitter and faults [default: 0]
    #[arg(long, value_name = "N", value_parser = whole)]
    pub(crate) seed: Option<u64>,

    /// Cores to run on: auto, a number (4), or a list with a comma or a range (0,2-5) [default: auto]
    #[arg(long, value_name = "CORES", value_parser = cores)]
    pub(crate) cores: Option<Cores>,

    /// Kernel interface below the sockets: auto, uring, epoll [default: auto]
    #[arg(long, value_name = "IO", value_parser = choice::<Io>)]
    pub(crate) io: Option<Io>,
}

/// Why there is no command to carry out.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Help or the version was asked for (or nothing at all); the text is ready to print.
    Text(clap::Error),
    /// The command line is wrong.
    Refused(Refusal),
}

/// The tree of commands and options.
fn command_tree() -> clap::Command {
    let negative = |arg: clap::Arg| {
        let takes_value = arg.get_action().takes_values() && !arg.is_positional();
        arg.allow_negative_numbers(takes_value)
    };
    Cli::command().mut_subcommands(|sub| sub.mut_args(negative))
}

/// Reads a command line; `argv[0]` is the program's name.
pub(crate) fn parse(argv: &[OsString]) -> Result<Command, Stop> {
    let mut tree = command_tree();
    let parsed = tree.try_get_matches_from_mut(argv).and_then(|matches| Cli::from_arg_matches(&matches));
    match parsed {
        Ok(cli) => Ok(cli.command),
        Err(error) => Err(stop(error, argv)),
    }
}

/// Reads `ttft=20,fault=http500:0.3` as the options of `maser serve`.
pub(crate) fn parse_mock(spec: &str) -> Result<Serve, Refusal> {
    let pairs = spec.split(',').map(str::trim).filter(|p| !p.is_empty());
    let flags = pairs.map(|pair| format!("--{pair}").into());
    let argv: Vec<OsString> = ["maser".into(), "serve".into()].into_iter().chain(flags).collect();
    let wrong = |what: String| Refusal::new(format!("--mock={spec}: {what}"));
    match parse(&argv) {
        Ok(Command::Serve(serve)) => Ok(*serve),
        Err(Stop::Refused(refusal)) => Err(wrong(refusal.to_string())),
        _ => Err(wrong("expected KEY=VALUE pairs with commas between them, for example ttft=20,itl=5".into())),
    }
}

/// Reads a text as the options of `maser profile` on `input`.
pub(crate) fn parse_profile(text: &str, input: &Path) -> Result<Profile, Refusal> {
    let words = shlex::split(text).ok_or_else(|| Refusal::new("a quote is not closed"))?;
    let file = ["--input-file".into(), input.as_os_str().to_owned()];
    let argv: Vec<OsString> = ["maser", "profile"].map(Into::into).into_iter().chain(file).collect();
    match parse(&argv.into_iter().chain(words.into_iter().map(Into::into)).collect::<Vec<_>>()) {
        Ok(Command::Profile(profile)) => Ok(*profile),
        Err(Stop::Refused(refusal)) => Err(refusal),
        _ => Err(Refusal::new("expected options of `maser profile`, such as \"-m MODEL --streaming\"")),
    }
}

fn stop(error: clap::Error, argv: &[OsString]) -> Stop {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            Stop::Text(error)
        }
        ErrorKind::UnknownArgument => Stop::Refused(unknown(&error, argv)),
        ErrorKind::ValueValidation => Stop::Refused(bad_value(&error, argv)),
        ErrorKind::InvalidSubcommand => Stop::Refused(unknown_command(&error)),
        _ => Stop::Refused(Refusal::new(first_sentence(&error))),
    }
}

fn context(error: &clap::Error, kind: ContextKind) -> Option<String> {
    match error.get(kind)? {
        ContextValue::String(s) => Some(s.clone()),
        ContextValue::Strings(all) => all.first().cloned(),
        _ => None,
    }
}

fn unknown_command(error: &clap::Error) -> Refusal {
    let typed = context(error, ContextKind::InvalidSubcommand).unwrap_or_default();
    let hint = match context(error, ContextKind::SuggestedSubcommand) {
        Some(similar) => format!("did you mean {similar}?"),
        None => "maser has profile, report, metrics, serve, dataset and analyze-trace".into(),
    };
    Refusal::new(format!("unknown command {typed:?}, {hint}"))
}

/// An argument that no option has: one of the reference's, a misspelling, or a stray word.
fn unknown(error: &clap::Error, argv: &[OsString]) -> Refusal {
    let typed = context(error, ContextKind::InvalidArg).unwrap_or_default();
    let flag = typed.split('=').next().unwrap_or_default();
    let command = argv.get(1).map(|a| a.to_string_lossy()).unwrap_or_default();
    if command.starts_with('-') {
        return Refusal::new(format!("{flag} must come after a command, as in `maser profile {flag}`"));
    }
    if !flag.starts_with('-') {
        return stray_word(&typed, argv);
    }
    if let Some(refusal) = options::refusal(flag).filter(|_| is_profile(argv)) {
        return refusal;
    }
    let meant = hints::intent(flag).filter(|_| is_profile(argv)).map(str::to_owned);
    Refusal::new(match meant.or_else(|| hints::similar(flag, spellings(&command).into_iter())) {
        Some(meant) => format!("unknown option {flag}, did you mean {meant}?"),
        None if flag == "--version" => "--version must stand alone, as in `maser --version`".to_owned(),
        None => format!("unknown option {flag}; `maser {command} --help` lists them"),
    })
}

/// Every spelling of the long options of a command.
fn spellings(command: &str) -> Vec<String> {
    let tree = command_tree();
    let Some(sub) = tree.find_subcommand(command) else { return Vec::new() };
    let names = |arg: &clap::Arg| {
        let aliases = arg.get_all_aliases().unwrap_or_default();
        arg.get_long().into_iter().chain(aliases).map(|name| format!("--{name}")).collect::<Vec<_>>()
    };
    sub.get_arguments().flat_map(names).collect()
}

/// A word that no option takes: a server's URL, a service level whose list is not quoted, or anything.
fn stray_word(word: &str, argv: &[OsString]) -> Refusal {
    let has = |flag: &str| {
        let is = |a: &OsString| a.to_string_lossy().split('=').next() == Some(flag);
        argv.iter().any(is)
    };
    if word.starts_with("http://") || word.starts_with("https://") {
        let url = redact::url(word);
        return Refusal::new(format!("unexpected argument {url:?} (URLs go with -u: maser profile -u {url})"));
    }
    let level = word.split(':').next().is_some_and(|name| hints::metric(name).is_some());
    if level && word.contains(':') && has("--goodput") {
        return Refusal::new(format!("unexpected argument {word:?}; quote the list: --goodput \"… {word}\""));
    }
    Refusal::new(format!("unexpected argument {word:?}"))
}

fn is_profile(argv: &[OsString]) -> bool {
    argv.get(1).is_some_and(|a| a == "profile")
}

/// A value that its option cannot take.
fn bad_value(error: &clap::Error, argv: &[OsString]) -> Refusal {
    let arg = context(error, ContextKind::InvalidArg).unwrap_or_default();
    let flag = as_typed(arg.split([' ', '=', '[']).next().unwrap_or_default(), argv);
    let value = context(error, ContextKind::InvalidValue).unwrap_or_default();
    let why = std::error::Error::source(error).map(ToString::to_string);
    let why = why.unwrap_or_else(|| "not a value of this option".into());
    Refusal::new(format!("{flag} {value}: {why}"))
}

/// The spelling of the option `flag` that the command line has.
fn as_typed(flag: &str, argv: &[OsString]) -> String {
    let tree = command_tree();
    let sub = argv.get(1).and_then(|name| tree.find_subcommand(name));
    let name = flag.trim_start_matches('-');
    let arg = sub.and_then(|s| s.get_arguments().find(|a| a.get_long() == Some(name)));
    let aliases = arg.and_then(clap::Arg::get_all_aliases).unwrap_or_default();
    let spellings = std::iter::once(name).chain(aliases);
    let mut typed = spellings.filter(|s| {
        let long = format!("--{s}");
        argv.iter().any(|a| {
            let a = a.to_string_lossy();
            a == long.as_str() || a.strip_prefix(&long).is_some_and(|r| r.starts_with('='))
        })
    });
    typed.next().map_or_else(|| flag.to_string(), |s| format!("--{s}"))
}

/// Clap's own words, without its usage lines.
fn first_sentence(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let paragraph = text.split("\n\n").next().unwrap_or_default();
    let words: Vec<&str> = paragraph.split_whitespace().collect();
    let sentence = words.join(" ");
    sentence.strip_prefix("error: ").unwrap_or(&sentence).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Every option of the reference: all spellings, the default as its help prints it.
    const REFERENCE: &str = include_str!("../tests/data/aiperf-options.tsv");

    fn read(words: &[&str]) -> Result<Command, String> {
        let argv: Vec<OsString> = ["maser"].iter().chain(words).map(OsString::from).collect();
        parse(&argv).map_err(|stop| match stop {
            Stop::Refused(refusal) => refusal.to_string(),
            Stop::Text(error) => error.to_string(),
        })
    }

    fn profile(words: &[&str]) -> Profile {
        match read(&[&["profile"], words].concat()) {
            Ok(Command::Profile(profile)) => *profile,
            other => panic!("{words:?} gave {other:?}"),
        }
    }

    fn supported() -> BTreeSet<String> {
        let tree = command_tree();
        let profile = tree.find_subcommand("profile").expect("a command");
        let mut all = BTreeSet::from(["-vv".to_string()]);
        for arg in profile.get_arguments() {
            all.extend(arg.get_long().map(|l| format!("--{l}")));
            all.extend(arg.get_short().map(|s| format!("-{s}")));
            all.extend(arg.get_all_aliases().unwrap_or_default().iter().map(|l| format!("--{l}")));
        }
        all
    }

    fn rows() -> impl Iterator<Item = (Vec<&'static str>, &'static str)> {
        REFERENCE.lines().skip(2).map(|line| {
            let mut fields = line.split('\t').skip(1);
            let names = fields.next().unwrap_or_default().split(' ').collect();
            (names, fields.nth(1).unwrap_or_default())
        })
    }

    #[test]
    fn every_option_of_the_reference_is_supported_or_refused_by_name() {
        let supported = supported();
        let (mut have, mut lack) = (0, 0);
        for (names, _) in rows() {
            for name in &names {
                let refused = match *name {
                    "--agentic-cache-warmup-duration"
                    | "--agentic-warmup-grace-period"
                    | "--allow-dataset-wrap"
                    | "--no-allow-dataset-wrap"
                    | "--burst-phase-starts"
                    | "--system-idle-gap-cap-seconds"
                    | "--trajectory-start-max-ratio"
                    | "--trajectory-start-min-ratio"
                    | "--use-think-time-only" => format!(
                        "{name} shapes only an agentic replay, which this version of maser does not have; remove it, \
                         every other run goes on as it would without"
                    ),
                    "--stream" => {
                        "--stream chooses what is sent to OpenTelemetry, which this version of maser does not \
                                   have; did you mean --streaming?"
                            .to_owned()
                    }
                    _ => format!("{name} is not supported yet by this version of maser; remove it to run without it"),
                };
                if supported.contains(*name) {
                    have += 1;
                    for words in [&["profile", name][..], &["profile", name, "1"]] {
                        let said = read(words).err().unwrap_or_default();
                        assert!(!said.contains("unknown option") && said != refused, "{words:?}: {said}");
                    }
                } else {
                    lack += 1;
                    assert_eq!(read(&["profile", name]).err(), Some(refused.clone()));
                    assert_eq!(read(&["profile", name, "1", "2"]).err(), Some(refused.clone()));
                    if name.starts_with("--") {
                        let joined = format!("{name}=1");
                        assert_eq!(read(&["profile", "-m", "x", &joined]).err(), Some(refused));
                    }
                }
            }
            let known = names.iter().filter(|n| supported.contains(**n)).count();
            assert!(known == 0 || known == names.len(), "spellings torn apart: {names:?}");
        }
        assert!(have > 60 && lack > 10, "{have} supported, {lack} refused");
    }

    #[test]
    fn no_option_is_both_supported_and_refused() {
        let refused: Vec<_> = supported().into_iter().filter(|name| options::refusal(name).is_some()).collect();
        assert!(refused.is_empty(), "{refused:?}");
    }

    #[test]
    fn hints_name_options_that_there_are_for_names_that_there_are_not() {
        let supported = supported();
        for (names, ours) in hints::INTENTS {
            assert!(supported.contains(*ours), "{ours}");
            for name in *names {
                assert!(!supported.contains(*name) && options::refusal(name).is_none(), "{name}");
                let said = format!("unknown option {name}, did you mean {ours}?");
                assert_eq!(read(&["profile", name, "1"]).err(), Some(said));
            }
        }
    }

    #[test]
    fn a_word_that_no_option_takes_says_where_it_goes() {
        for (words, said) in [
            (
                &["http://h:1/?api_key=x"][..],
                "unexpected argument \"http://h:1/?api_key=<redacted>\" (URLs go with -u: maser profile -u \
                 http://h:1/?api_key=<redacted>)",
            ),
            (&["--goodput", "ttft:1", "itl:2"], "unexpected argument \"itl:2\"; quote the list: --goodput \"… itl:2\""),
            (&["--generate-plots"], "unknown option --generate-plots; `maser profile --help` lists them"),
            (&["--version"], "--version must stand alone, as in `maser --version`"),
            (&["word"], "unexpected argument \"word\""),
        ] {
            assert_eq!(read(&[&["profile"], words].concat()).err().as_deref(), Some(said));
        }
    }

    #[test]
    fn flags_take_no_value_and_the_others_take_one() {
        let tree = command_tree();
        let profile = tree.find_subcommand("profile").expect("a command");
        for (names, default) in rows().filter(|(names, _)| supported().contains(names[0])) {
            let long = |name: &str| {
                let mut args = profile.get_arguments();
                args.find(|a| a.get_long().is_some_and(|l| name == format!("--{l}")))
            };
            let arg = names.iter().find_map(|n| long(n));
            let arg = arg.unwrap_or_else(|| panic!("{names:?}: no spelling is the name"));
            let is_switch = matches!(default, "False" | "True") || names.iter().any(|n| n.starts_with("--no-"));
            assert_eq!(arg.get_action().takes_values(), !is_switch, "{names:?}");
        }
    }

    #[test]
    fn every_option_has_help_and_a_group() {
        let tree = command_tree();
        let profile = tree.find_subcommand("profile").expect("a command");
        for arg in profile.get_arguments().filter(|a| a.get_id() != "help") {
            assert!(arg.get_help().is_some(), "{arg}");
            assert!(arg.get_help_heading().is_some(), "{arg}");
        }
        command_tree().debug_assert();
    }

    #[test]
    fn all_spellings_of_an_option_mean_the_same() {
        for spelling in ["--isl", "--prompt-input-tokens-mean", "--synthetic-input-tokens-mean"] {
            assert_eq!(profile(&[spelling, "77"]).prompts.isl.map(|isl| isl.mean()), Some(77.0), "{spelling}");
        }
        assert_eq!(profile(&["--num-requests=5"]).load.request_count, Some(5));
        assert_eq!(profile(&["-vv"]).service.verbose, 2);
        assert_eq!(profile(&["-m", "a,b", "-m", "c"]).endpoint.models, ["a", "b", "c"]);
        let many = profile(&["-H", "A:1", "B:2", "--streaming", "--header", "C:3"]);
        assert_eq!(many.input.headers, ["A:1", "B:2", "C:3"]);
        assert!(many.endpoint.streaming);
    }

    #[test]
    fn a_wrong_value_is_one_sentence_with_the_flag_as_typed() {
        for (words, said) in [
            (["--num-requests", "0"], "--num-requests 0: expected a whole number of at least 1"),
            (
                ["--concurrency", "1,2,4"],
                "--concurrency 1,2,4: sweeps are not supported yet by this version of maser, give a single value",
            ),
            (["--request-rate", "-5"], "--request-rate -5: expected a number above 0 (requests per second)"),
            (["--concurency", "5"], "unknown option --concurency, did you mean --concurrency?"),
        ] {
            assert_eq!(read(&["profile", words[0], words[1]]).err().as_deref(), Some(said));
        }
    }

    #[test]
    fn mock_takes_its_spec_with_an_equals_sign_only() {
        assert_eq!(profile(&["--mock"]).machine.mock.as_deref(), Some(""));
        assert_eq!(profile(&["--mock=ttft=1,itl=2"]).machine.mock.as_deref(), Some("ttft=1,itl=2"));
        assert_eq!(read(&["profile", "--mock", "ttft=1"]).err().as_deref(), Some("unexpected argument \"ttft=1\""));
    }

    #[test]
    fn a_mock_spec_is_read_as_the_options_of_serve() {
        let serve = parse_mock("ttft=20,itl=5,fault=http500:0.3,fault=hang:0.1,model=a").expect("a spec");
        assert_eq!(serve.ttft, Some(20_000_000));
        assert_eq!(serve.faults.len(), 2);
        assert_eq!(serve.models, ["a"]);
        let said = |spec: &str| parse_mock(spec).map_err(|r| r.to_string()).err().unwrap_or_default();
        assert_eq!(
            said("ttft=x"),
            "--mock=ttft=x: --ttft x: expected milliseconds of at least 0, or a time such as 20ms, 1s"
        );
        assert_eq!(said("tfft=1"), "--mock=tfft=1: unknown option --tfft, did you mean --ttft?");
        assert!(said("help").starts_with("--mock=help: expected KEY=VALUE"));
        assert!(parse_mock("").is_ok());
    }
}
