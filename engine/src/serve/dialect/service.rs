//! What a server tells of itself, and the switches that benchmarks turn: models, health, metrics, cache, profiler.

use super::{Ready, Request};
use crate::serve::errors::Refused;
use crate::serve::world::World;
use serde_json::{Value, json};
use std::fmt::Write;

/// `/v1/models`.
pub(in crate::serve) fn models(_: &Request<'_>, world: &mut World) -> Result<Ready, Refused> {
    let model = |id: &String| json!({"id": id, "object": "model", "created": world.started, "owned_by": "maser"});
    let data: Vec<Value> = world.config.models.iter().map(model).collect();
    Ok(Ready::json(&json!({"object": "list", "data": data}), 0))
}

/// A path that answers with nothing but its status: `/health`, `/reset_prefix_cache`, `/start_profile`, `/stop_profile`.
pub(in crate::serve) fn nothing(_: &Request<'_>, _: &mut World) -> Result<Ready, Refused> {
    Ok(Ready::bytes("", Vec::new(), 0))
}

/// `/metrics`, under vLLM's names. The server has no queue and no cache: what vLLM tells of those is constant here.
pub(in crate::serve) fn metrics(_: &Request<'_>, world: &mut World) -> Result<Ready, Refused> {
    let (totals, running) = (world.totals, world.totals.running as f64);
    let model = Value::from(world.config.models.first().map_or("", String::as_str));
    let labels = format!("engine=\"0\",model_name={model}");
    let mut page = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, more: &str, value: f64| {
        let _ = write!(page, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name}{{{labels}{more}}} {value:?}\n");
    };
    metric("vllm:num_requests_running", "gauge", "Number of requests being answered.", "", running);
    metric("vllm:num_requests_waiting", "gauge", "Number of requests that wait.", "", 0.0);
    metric("vllm:kv_cache_usage_perc", "gauge", "KV-cache usage. 1 means all of it.", "", 0.0);
    let (prompt, cached, output) =
        (totals.prompt_tokens as f64, totals.cached_tokens as f64, totals.output_tokens as f64);
    metric("vllm:prefix_cache_queries_total", "counter", "Prompt tokens looked up in the prefix cache.", "", prompt);
    metric("vllm:prefix_cache_hits_total", "counter", "Prompt tokens found in the prefix cache.", "", cached);
    metric("vllm:prompt_tokens_total", "counter", "Tokens of prompts.", "", prompt);
    metric("vllm:generation_tokens_total", "counter", "Tokens of answers.", "", output);
    let (name, help) = ("vllm:request_success_total", "Requests answered to their end.");
    metric(name, "counter", help, ",finished_reason=\"length\"", totals.succeeded as f64);
    Ok(Ready::bytes("text/plain; version=0.0.4; charset=utf-8", page.into_bytes(), 0))
}
