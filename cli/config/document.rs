//! The resolved settings as `profile_export_aiperf.json` shows them.
//!
//! Keys, order and shapes are the reference's. As there, most options appear only if they were given; what this version
//! never collects is shown as not enabled.

mod synthetic;

use super::control::{Profiler, Reset, Wait};
use super::load::Cancellation;
use super::series::RateSeries;
use super::{Arrival, FixedSchedule, Input, PhaseConfig, PhaseKind, ProfileConfig};
use crate::redact;
use crate::values::{CacheBust, ExportLevel, name_of};
use maser_datasets::file::Synthesis;
use maser_engine::clock::{MILLI, Nanos, SECOND};
use maser_engine::schedule::{Ramp, RampStrategy};
use serde_json::{Map, Value, json};

/// An object that leaves out what is not there.
#[derive(Default)]
struct Object(Map<String, Value>);

impl Object {
    fn put(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0.insert(key.into(), value.into());
        self
    }

    fn put_some<T: Into<Value>>(self, key: &str, value: Option<T>) -> Self {
        match value {
            Some(value) => self.put(key, value),
            None => self,
        }
    }

    fn put_if(self, given: bool, key: &str, value: impl Into<Value>) -> Self {
        if given { self.put(key, value) } else { self }
    }
}

impl From<Object> for Value {
    fn from(object: Object) -> Self {
        Value::Object(object.0)
    }
}

/// Nanoseconds as seconds.
fn seconds(ns: Nanos) -> f64 {
    ns as f64 / SECOND as f64
}

impl ProfileConfig {
    /// The `input_config` object of the results; secrets are redacted.
    pub(crate) fn input_config(&self) -> Value {
        let phases: Vec<Value> = self.load.phases.iter().map(|p| self.phase(p)).collect();
        let level = self.typed.log_level.map(name_of);
        let mut document: Value = Object::default()
            .put("models", self.models.document())
            .put("endpoint", self.endpoint_object())
            .put("datasets", vec![self.dataset()])
            .put("phases", phases)
            .put("artifacts", self.artifacts())
            .put_if(!self.service_levels.is_empty(), "slos", self.service_levels.clone())
            .put("tokenizer", self.tokenizer_object())
            .put_some("system_prompt", self.system_prompt.clone())
            .put("gpu_telemetry", json!({"enabled": false}))
            .put("server_metrics", json!({"enabled": false}))
            .put("network_latency", json!({"enabled": false}))
            .put("otel", json!({}))
            .put("mlflow", json!({}))
            .put("wandb", json!({}))
            .put("runtime", self.runtime())
            .put_some("logging", level.map(|l| json!({"level": l.to_uppercase()})))
            .into();
        redact::hidden_in(&mut document);
        document
    }

    fn endpoint_object(&self) -> Object {
        let at = &self.endpoint;
        let key = at.api_key.as_ref().map(|_| redact::REDACTED);
        let headers: Map<String, Value> = at
            .headers
            .iter()
            .filter(|h| {
                at.api_key.is_none() || !["authorization", "x-api-key"].contains(&&*h.name.to_ascii_lowercase())
            })
            .map(|h| (h.name.clone(), h.shown().into()))
            .collect();
        Object::default()
            .put("urls", at.urls.iter().map(|url| redact::url(url.as_str())).collect::<Vec<_>>())
            .put_some("url_strategy", at.url_strategy.map(name_of))
            .put_if(!at.weights.is_empty(), "url_weights", at.weights.clone())
            .put_if(self.typed.endpoint_type, "type", at.kind.name())
            .put_some("path", at.custom_path.as_deref().map(redact::url))
            .put_some("api_key", key)
            .put_if(at.timeout_given, "timeout", seconds(at.timeout))
            .put_if(at.streaming, "streaming", true)
            .put_if(at.use_legacy_max_tokens, "use_legacy_max_tokens", true)
            .put_if(at.per_chunk_usage, "per_chunk_usage", true)
            .put_if(at.follow_ups.fetch, "download_video_content", true)
            .put_if(self.use_server_token_count, "use_server_token_count", true)
            .put_if(!headers.is_empty(), "headers", headers)
            .put_if(!at.extra.is_empty(), "extra", redact::fields(&at.extra))
            .put_some("session_header", at.session_header.clone())
            .put_some("connection_reuse", at.reuse.map(name_of))
            .put_some("wait_for_model", self.control.wait.as_ref().map(wait))
            .put_some("reset_kv_cache", self.control.reset.as_ref().map(reset))
            .put_some("server_profiler", self.control.profiler.as_ref().map(profiler))
    }

    fn tokenizer_object(&self) -> Object {
        Object::default()
            .put("name", self.tokenizer.name())
            .put_some("revision", self.tokenizer.revision.clone())
            .put_if(self.tokenizer.chat_template, "apply_chat_template", true)
    }

    fn dataset(&self) -> Object {
        let dataset = self.source();
        dataset.put_if(self.typed.sampling, "sampling", name_of(self.sampling)).put_if(
            self.cache_bust != CacheBust::None,
            "cache_bust",
            name_of(self.cache_bust),
        )
    }

    fn source(&self) -> Object {
        let named = Object::default().put("name", "main");
        match &self.input {
            Input::Synthetic(made) => synthetic::dataset(made, self.random_seed, named),
            Input::File { path, format, entries, osl, block_size, max_isl, max_osl, trace } => {
                let what = &trace.synthesis;
                let synthesis = Object::default()
                    .put_if(what.speedup != 1.0, "speedup_ratio", what.speedup)
                    .put_if(what.prefix != 1.0, "prefix_len_multiplier", what.prefix)
                    .put_if(what.roots != 1, "prefix_root_multiplier", what.roots)
                    .put_if(what.prompt != 1.0, "prompt_len_multiplier", what.prompt)
                    .put_if(what.output != 1.0, "output_len_multiplier", what.output)
                    .put_some("max_isl", *max_isl)
                    .put_some("max_osl", *max_osl);
                named
                    .put("type", "file")
                    .put("path", path.display().to_string())
                    .put_some("format", format.map(|f| f.name().to_owned()))
                    .put_if(max_isl.or(*max_osl).is_some() || *what != Synthesis::default(), "synthesis", synthesis)
                    .put_some("entries", *entries)
                    .put_some("random_seed", self.random_seed)
                    .put_some("osl", osl.as_ref().map(synthetic::length))
                    .put_some("block_size", *block_size)
                    .put_some("prompt_batch_size", trace.batch.texts)
                    .put_some("image_batch_size", trace.batch.images)
                    .put_some("audio_batch_size", trace.batch.audios)
                    .put_some("video_batch_size", trace.batch.videos)
                    .put_some("prompts", trace.corpus.map(|corpus| Object::default().put("corpus", name_of(corpus))))
            }
        }
    }

    fn phase(&self, phase: &PhaseConfig) -> Value {
        let warmup = phase.kind == PhaseKind::Warmup;
        let kind = if warmup { "warmup" } else { "profiling" };
        let fixed = phase.arrival == Arrival::FixedSchedule;
        let requests = match fixed {
            true => self.typed.asked.load.request_count.or(self.typed.scheduled),
            false => phase.requests,
        };
        let grace = phase.grace_ns.map_or(Value::Null, |ns| seconds(ns).into());
        let object = Object::default()
            .put("name", phase.name)
            .put("kind", kind)
            .put("type", arrival_name(phase.arrival))
            .put_if(warmup, "exclude_from_results", true)
            .put_if(phase.seamless, "seamless", true)
            .put_some("requests", requests)
            .put_some("duration", phase.duration_ns.map(seconds))
            .put_some("sessions", phase.sessions)
            .put_some("concurrency", phase.concurrency)
            .put_some("concurrency_ramp", phase.concurrency_ramp.as_ref().map(ramp))
            .put_some("prefill_concurrency", phase.prefill_concurrency)
            .put_some("prefill_ramp", phase.prefill_ramp.as_ref().map(ramp))
            .put_if(phase.duration_ns.is_some(), "grace_period", grace)
            .put_some("cancellation", phase.cancellation.as_ref().map(cancellation))
            .put_some("failed_request_threshold", self.load.failed_threshold.filter(|_| !warmup))
            .put_some("rate", phase.arrival.rate())
            .put_some("rate_ramp", phase.rate_ramp.as_ref().map(ramp))
            .put_some("rate_series", phase.series.as_ref().map(rate_series));
        let object = match phase.arrival {
            Arrival::Gamma { smoothness, .. } => object.put("smoothness", smoothness),
            Arrival::UserCentric { users, .. } => object.put("users", users),
            _ => object,
        };
        if !fixed || self.fixed_schedule != FixedSchedule::Yes {
            return object.into();
        }
        let window = &self.window;
        object
            .put_if(window.auto_given || window.start_ns.is_some(), "auto_offset", window.auto_offset())
            .put_some("start_offset", window.start_ns.map(|ns| ns / MILLI))
            .put_some("end_offset", window.end_ns.map(|ns| ns / MILLI))
            .put_some("ties", self.ties())
            .into()
    }

    /// What was done about equal timestamps, where --ties asked for something.
    fn ties(&self) -> Option<Value> {
        self.typed.asked.truth.ties?;
        self.typed.tied.and_then(|tied| serde_json::to_value(tied).ok())
    }

    fn artifacts(&self) -> Object {
        let records = match self.output.level {
            ExportLevel::Summary => json!(false),
            ExportLevel::Records | ExportLevel::Raw => json!(["jsonl"]),
        };
        let raw = match self.output.level {
            ExportLevel::Raw => json!(true),
            ExportLevel::Summary | ExportLevel::Records => json!(false),
        };
        Object::default()
            .put("dir", self.artifact_dir().display().to_string())
            .put_some("prefix", self.output.prefix.clone())
            .put_if(self.typed.export_level, "records", records)
            .put_if(self.typed.export_level, "raw", raw)
            .put_if(self.output.traces, "trace", true)
            .put_some("slice_duration", self.output.slice_ns.map(seconds))
            .put_if(self.output.trace_timing, "show_trace_timing", true)
            .put("auto_plot", false)
            .put("plot_required", false)
            .put_if(self.output.outputs, "export_outputs_json", true)
            .put_if(self.output.parquet, "parquet", true)
            .put_if(self.output.hdr, "hdr", true)
    }

    fn runtime(&self) -> Object {
        Object::default().put("ui", name_of(self.ui)).put_some("workers", self.machine.workers_max)
    }
}

fn wait(wait: &Wait) -> Object {
    let object = Object::default().put("timeout", seconds(wait.timeout)).put("mode", name_of(wait.mode));
    object.put("interval", seconds(wait.interval))
}

fn reset(reset: &Reset) -> Object {
    Object::default().put("timeout", seconds(reset.timeout)).put("path", reset.path.clone())
}

fn profiler(with: &Profiler) -> Object {
    let object = Object::default().put("timeout", seconds(with.timeout)).put("start_path", with.start.clone());
    object.put("stop_path", with.stop.clone())
}

fn ramp(ramp: &Ramp) -> Object {
    let named = ramp.strategy != RampStrategy::Linear;
    Object::default().put("duration", seconds(ramp.duration)).put_if(named, "strategy", name_of(ramp.strategy))
}

fn cancellation(cut: &Cancellation) -> Object {
    Object::default().put("rate", cut.percent).put("delay", seconds(cut.delay))
}

fn rate_series(series: &RateSeries) -> Object {
    let point = |(time_s, qps): &(f64, f64)| json!({"time_s": time_s, "qps": qps});
    Object::default().put("points", series.points.iter().map(point).collect::<Vec<_>>())
}

fn arrival_name(arrival: Arrival) -> &'static str {
    match arrival {
        Arrival::ClosedLoop => "concurrency",
        Arrival::Constant(_) => "constant",
        Arrival::Poisson(_) => "poisson",
        Arrival::Gamma { .. } => "gamma",
        Arrival::UserCentric { .. } => "user_centric",
        Arrival::FixedSchedule => "fixed_schedule",
    }
}
