//! The rows.

use super::flag::{
    AUDIO, ERROR_ONLY, EXPERIMENTAL, FAILED_AS_INFINITE, FIXED_SCHEDULE, GOODPUT, HTTP_TRACE, IMAGES, INPUT_TOKENS,
    INTEGER, INTERNAL, LARGER_IS_BETTER, NO_RECORD, NOT_ON_ACCURACY, OURS, REASONING, STREAMING, TOKENS, USAGE_DIFF,
    VIDEO,
};
use super::{Curve, Group, Metric, PerRequest, PerRun, REPLAY_DEGRADED_MS, Sample, Value, rate, tokens};
use crate::record::flag as record_flag;
use crate::said::Counter;

const fn nanos(tag: &'static str, header: &'static str, value: Value, definition: &'static str) -> Metric {
    Metric::new(tag, header, "ns", value, definition).shown_in("ms").with(INTEGER)
}

const fn http(
    tag: &'static str,
    header: &'static str,
    order: u32,
    value: PerRequest,
    definition: &'static str,
) -> Metric {
    nanos(tag, header, Value::Valid(value), definition).order(order).with(HTTP_TRACE)
}

const fn usage(
    tag: &'static str,
    header: &'static str,
    order: u32,
    value: PerRequest,
    definition: &'static str,
) -> Metric {
    Metric::new(tag, header, "tokens", Value::Valid(value), definition)
        .at(Group::Usage, order)
        .with(INTEGER | LARGER_IS_BETTER)
}

const fn speculation(
    tag: &'static str,
    header: &'static str,
    (unit, order): (&'static str, u32),
    value: PerRequest,
    definition: &'static str,
) -> Metric {
    Metric::new(tag, header, unit, Value::Valid(value), definition).order(order)
}

const fn count(tag: &'static str, header: &'static str, value: Value, definition: &'static str) -> Metric {
    Metric::new(tag, header, "requests", value, definition).with(INTEGER | NO_RECORD)
}

const fn per_run(
    tag: &'static str,
    header: &'static str,
    unit: &'static str,
    value: PerRun,
    definition: &'static str,
) -> Metric {
    Metric::new(tag, header, unit, Value::Run(value), definition)
}

const fn effective(
    tag: &'static str,
    header: &'static str,
    unit: &'static str,
    curve: Curve,
    definition: &'static str,
) -> Metric {
    Metric::new(tag, header, unit, Value::Effective(curve), definition).last_in(Group::Effective)
}

const fn active(
    tag: &'static str,
    header: &'static str,
    unit: &'static str,
    curve: Curve,
    definition: &'static str,
) -> Metric {
    Metric::new(tag, header, unit, Value::Active(curve), definition).last_in(Group::Active)
}

const fn adjusted(
    tag: &'static str,
    header: &'static str,
    of: &'static str,
    flags: u32,
    definition: &'static str,
) -> Metric {
    nanos(tag, header, Value::Adjusted(of), definition).last_in(Group::Default).with(flags)
}

/// Every metric, in the order in which files without an order of their own list them.
pub static METRICS: &[Metric] = &[
    // One value a request: latencies.
    nanos(
        "request_latency",
        "Request Latency",
        Value::Valid(|s| s.latency()),
        "From the start of the request to its last response with content.",
    )
    .with(FAILED_AS_INFINITE)
    .at(Group::Default, 300),
    nanos(
        "time_to_first_token",
        "Time to First Token",
        Value::Valid(|s| s.ttft()),
        "From the start of the request to its first response with content.",
    )
    .with(FAILED_AS_INFINITE)
    .at(Group::Default, 100)
    .with(STREAMING | TOKENS),
    nanos(
        "time_to_second_token",
        "Time to Second Token",
        Value::Valid(|s| Sample::span(s.record.second_token, s.record.first_token)),
        "From the first response with content to the second.",
    )
    .at(Group::Default, 200)
    .with(STREAMING | TOKENS),
    nanos(
        "time_to_first_output_token",
        "Time to First Output Token",
        Value::Valid(|s| Sample::span(s.record.first_output, s.record.start)),
        "From the start of the request to its first response with content that is not reasoning.",
    )
    .with(REASONING)
    .at(Group::Default, 210)
    .with(STREAMING | TOKENS),
    Metric::new(
        "inter_token_latency",
        "Inter Token Latency",
        "ns",
        Value::Valid(|s| s.itl()),
        "Decode duration divided by output sequence length minus one; with `--per-chunk-usage`, minus the tokens of the first response as the server counts them.",
    )
    .with(FAILED_AS_INFINITE)
    .shown_in("ms")
    .at(Group::Default, 400)
    .with(STREAMING | TOKENS),
    nanos(
        "inter_chunk_latency",
        "Inter Chunk Latency",
        Value::Gaps,
        "The gaps between consecutive responses with content, of all requests together.",
    )
    .with(STREAMING | TOKENS),
    nanos(
        "decode_duration",
        "Decode Duration",
        Value::Valid(|s| s.decode()),
        "From the first response with content to the last.",
    )
    .with(FAILED_AS_INFINITE)
    .at(Group::Default, 350)
    .with(STREAMING | TOKENS),
    nanos(
        "stream_setup_latency",
        "Stream Setup Latency",
        Value::Valid(|s| s.setup()),
        "From the start of the request to the first byte of the response's head.",
    )
    .last_in(Group::Default)
    .with(STREAMING | EXPERIMENTAL),
    nanos(
        "stream_prefill_latency",
        "Stream Prefill Latency",
        Value::Valid(|s| Some(s.ttft()? - s.setup()?)),
        "Time to first token less stream set-up latency.",
    )
    .last_in(Group::Default)
    .with(STREAMING | TOKENS | EXPERIMENTAL),
    // Lengths.
    Metric::new(
        "output_sequence_length",
        "Output Sequence Length",
        "tokens",
        Value::Valid(|s| s.osl().map(f64::from)),
        "Visible output tokens plus reasoning tokens.",
    )
    .at(Group::Default, 600)
    .with(TOKENS | INTEGER | LARGER_IS_BETTER),
    Metric::new(
        "input_sequence_length",
        "Input Sequence Length",
        "tokens",
        Value::Valid(|s| s.input.map(f64::from)),
        "Tokens of the request's texts, or the server's count of the prompt if its counts are used.",
    )
    .with(INPUT_TOKENS)
    .at(Group::Default, 700)
    .with(INTEGER | LARGER_IS_BETTER),
    Metric::new(
        "output_token_count",
        "Output Token Count",
        "tokens",
        Value::Valid(|s| s.output.filter(|n| *n > 0).map(f64::from)),
        "Tokens of the visible output; absent where there is none.",
    )
    .with(TOKENS | INTEGER | LARGER_IS_BETTER),
    Metric::new(
        "reasoning_token_count",
        "Reasoning Token Count",
        "tokens",
        Value::Valid(|s| s.reasoning.map(f64::from)),
        "Tokens of the reasoning text.",
    )
    .with(REASONING)
    .with(TOKENS | INTEGER | LARGER_IS_BETTER),
    Metric::new(
        "error_isl",
        "Error Input Sequence Length",
        "tokens",
        Value::Failed(|s| s.input.map(f64::from)),
        "Input tokens of the requests that failed.",
    )
    .with(INPUT_TOKENS)
    .order(700)
    .with(ERROR_ONLY | INTEGER | LARGER_IS_BETTER),
    Metric::new(
        "requested_osl",
        "Requested OSL",
        "tokens",
        Value::Valid(|s| s.requested.map(f64::from)),
        "Output tokens asked for.",
    )
    .with(TOKENS | INTEGER | INTERNAL),
    Metric::new(
        "thinking_efficiency",
        "Thinking Efficiency",
        "ratio",
        Value::Valid(|s| Some(f64::from(s.reasoning?) / f64::from(s.output.filter(|n| *n > 0)?))),
        "Reasoning tokens divided by tokens of visible output.",
    )
    .last_in(Group::Default)
    .with(TOKENS | REASONING | EXPERIMENTAL),
    Metric::new(
        "osl_mismatch_diff_pct",
        "OSL Mismatch Diff %",
        "%",
        Value::Valid(|s| s.osl_diff_pct()),
        "Output sequence length minus requested length, per cent of the requested length.",
    )
    .with(NOT_ON_ACCURACY)
    .with(TOKENS),
    count(
        "osl_mismatch_count",
        "OSL Mismatch Count",
        Value::SumValid(|s| s.osl_mismatch()),
        "Requests whose output is off by more than 5 % of the requested length or 50 tokens, whichever is less.",
    )
    .with(NOT_ON_ACCURACY)
    .with(TOKENS),
    // Rates of one request.
    Metric::new(
        "output_token_throughput_per_user",
        "Output Token Throughput Per User",
        "tokens/sec/user",
        Value::Valid(|s| rate(1.0, s.itl()?)),
        "One divided by the inter token latency.",
    )
    .at(Group::Default, 500)
    .with(STREAMING | TOKENS | LARGER_IS_BETTER),
    Metric::new(
        "e2e_output_token_throughput",
        "E2E Output Token Throughput",
        "tokens/sec/user",
        Value::Valid(|s| rate(f64::from(s.osl()?), s.latency()?)),
        "Output sequence length divided by request latency.",
    )
    .at(Group::Default, 510)
    .with(TOKENS | LARGER_IS_BETTER),
    Metric::new(
        "prefill_throughput_per_user",
        "Prefill Throughput Per User",
        "tokens/sec/user",
        Value::Valid(|s| rate(f64::from(s.input?), s.ttft()?)),
        "Input sequence length divided by time to first token.",
    )
    .with(INPUT_TOKENS)
    .with(STREAMING | TOKENS | LARGER_IS_BETTER),
    // Token counts of the server.
    usage(
        "usage_prompt_tokens",
        "Usage Prompt Tokens",
        1000,
        |s| tokens(s.record.usage_prompt),
        "Prompt tokens as the server reports them.",
    )
    .with(INPUT_TOKENS),
    usage(
        "usage_prompt_cache_read_tokens",
        "Usage Prompt Cache Read Tokens",
        1010,
        |s| tokens(s.record.usage_cached),
        "Prompt tokens that the server took from its cache.",
    ),
    Metric::new(
        "usage_prompt_cache_write_tokens",
        "Usage Prompt Cache Write Tokens",
        "tokens",
        Value::Valid(|s| s.said(Counter::CacheWrite)),
        "Prompt tokens that the server wrote to its cache.",
    )
    .at(Group::Usage, 1015)
    .with(INTEGER),
    Metric::new(
        "usage_prompt_cache_miss_tokens",
        "Usage Prompt Cache Miss Tokens",
        "tokens",
        Value::Valid(|s| s.said(Counter::CacheMiss)),
        "Prompt tokens that the server did not find in its cache.",
    )
    .at(Group::Usage, 1017)
    .with(INTEGER),
    Metric::new(
        "usage_prompt_audio_tokens",
        "Usage Prompt Audio Tokens",
        "tokens",
        Value::Valid(|s| s.said(Counter::PromptAudio)),
        "Prompt tokens of audio as the server reports them.",
    )
    .at(Group::Usage, 1020)
    .with(INTEGER | LARGER_IS_BETTER | AUDIO),
    Metric::new(
        "usage_tool_use_prompt_tokens",
        "Usage Tool Use Prompt Tokens",
        "tokens",
        Value::Valid(|s| s.said(Counter::ToolUsePrompt)),
        "Prompt tokens of the results of tools as the server reports them.",
    )
    .at(Group::Usage, 1030)
    .with(INTEGER),
    Metric::new(
        "usage_prompt_audio_seconds",
        "Usage Prompt Audio Seconds",
        "sec",
        Value::Valid(|s| s.said(Counter::PromptAudioSeconds)),
        "Seconds of audio in the prompt as the server reports them.",
    )
    .at(Group::Usage, 1040)
    .with(LARGER_IS_BETTER | AUDIO),
    usage(
        "usage_completion_tokens",
        "Usage Completion Tokens",
        1100,
        |s| tokens(s.record.usage_completion),
        "Completion tokens as the server reports them.",
    )
    .with(TOKENS),
    usage(
        "usage_reasoning_tokens",
        "Usage Reasoning Tokens",
        1110,
        |s| tokens(s.record.usage_reasoning),
        "Reasoning tokens as the server reports them.",
    )
    .with(TOKENS),
    Metric::new(
        "usage_completion_audio_tokens",
        "Usage Completion Audio Tokens",
        "tokens",
        Value::Valid(|s| s.said(Counter::CompletionAudio)),
        "Completion tokens of audio as the server reports them.",
    )
    .at(Group::Usage, 1120)
    .with(INTEGER | TOKENS | LARGER_IS_BETTER | AUDIO),
    Metric::new(
        "usage_accepted_prediction_tokens",
        "Usage Accepted Prediction Tokens",
        "tokens",
        Value::Valid(|s| s.said(Counter::AcceptedPrediction)),
        "Tokens of a predicted output that the server took over.",
    )
    .at(Group::Usage, 1130)
    .with(INTEGER | TOKENS | LARGER_IS_BETTER),
    Metric::new(
        "usage_rejected_prediction_tokens",
        "Usage Rejected Prediction Tokens",
        "tokens",
        Value::Valid(|s| s.said(Counter::RejectedPrediction)),
        "Tokens of a predicted output that the server did not take over.",
    )
    .at(Group::Usage, 1140)
    .with(INTEGER | TOKENS),
    usage(
        "usage_total_tokens",
        "Usage Total Tokens",
        1200,
        |s| tokens(s.record.usage_total),
        "All tokens as the server reports them.",
    )
    .with(TOKENS),
    Metric::new(
        "usage_prompt_tokens_diff_pct",
        "Usage Prompt Diff %",
        "%",
        Value::Valid(|s| s.prompt_diff_pct()),
        "Distance between the server's and the client's prompt tokens, per cent of the client's.",
    )
    .with(INPUT_TOKENS)
    .with(USAGE_DIFF),
    Metric::new(
        "usage_completion_tokens_diff_pct",
        "Usage Completion Diff %",
        "%",
        Value::Valid(|s| s.completion_diff_pct()),
        "Distance between the server's completion tokens and the client's output sequence length, per cent of the latter.",
    )
    .with(TOKENS | USAGE_DIFF),
    Metric::new(
        "usage_reasoning_tokens_diff_pct",
        "Usage Reasoning Diff %",
        "%",
        Value::Valid(|s| s.reasoning_diff_pct()),
        "Distance between the server's and the client's reasoning tokens, per cent of the client's.",
    )
    .with(REASONING)
    .with(TOKENS | USAGE_DIFF),
    count(
        "usage_discrepancy_count",
        "Usage Discrepancy Count",
        Value::SumValid(|s| s.discrepancy()),
        "Requests for which one of these distances passes 10 %; of those whose input and output both have one.",
    )
    .with(USAGE_DIFF),
    // Speculative decoding.
    speculation(
        "spec_decode_acceptance_length",
        "Acceptance Length",
        ("ratio", 5000),
        |s| s.speculation()?.acceptance_length(),
        "One plus the accepted draft tokens divided by the steps: tokens a step.",
    )
    .last_in(Group::Speculation)
    .with(LARGER_IS_BETTER),
    speculation(
        "spec_decode_draft_acceptance_rate",
        "Draft Acceptance Rate",
        ("%", 5020),
        |s| s.speculation()?.acceptance_rate(),
        "Accepted draft tokens, per cent of the proposed ones.",
    )
    .last_in(Group::Speculation)
    .with(LARGER_IS_BETTER),
    speculation(
        "spec_decode_accepted_per_verified",
        "Accepted per Verified",
        ("ratio", 5030),
        |s| s.speculation()?.accepted_per_verified(),
        "Accepted draft tokens plus steps, divided by proposed draft tokens plus steps.",
    )
    .last_in(Group::Speculation)
    .with(LARGER_IS_BETTER),
    speculation(
        "spec_decode_steps",
        "Spec Decode Steps",
        ("count", 5040),
        |s| Some(s.speculation()?.steps as f64),
        "Steps in which draft tokens were verified.",
    )
    .last_in(Group::Speculation)
    .with(INTEGER),
    speculation(
        "spec_decode_accepted_draft_tokens",
        "Accepted Draft Tokens",
        ("tokens", 5050),
        |s| Some(s.speculation()?.accepted as f64),
        "Draft tokens that were accepted.",
    )
    .with(INTEGER),
    speculation(
        "spec_decode_draft_tokens",
        "Draft Tokens",
        ("tokens", 5060),
        |s| Some(s.speculation()?.drafted as f64),
        "Draft tokens that were proposed.",
    )
    .with(INTEGER),
    // What goes in and comes out that is no text.
    Metric::new(
        "num_images",
        "Number of Images",
        "images",
        Value::Valid(|s| s.images()),
        "Images that the request carries, those of the session's earlier turns included; absent where there is none.",
    )
    .with(IMAGES | INTEGER),
    Metric::new(
        "image_throughput",
        "Image Throughput",
        "images/sec",
        Value::Valid(|s| rate(s.images()?, s.latency()?)),
        "Number of images divided by request latency.",
    )
    .at(Group::Default, 860)
    .with(IMAGES),
    Metric::new(
        "image_latency",
        "Image Latency",
        "ms/image",
        Value::Valid(|s| Some(s.latency()? * 1e-6 / s.images()?)),
        "Request latency divided by the number of images.",
    )
    .at(Group::Default, 861)
    .with(IMAGES),
    Metric::new(
        "audio_duration",
        "Audio Duration",
        "sec",
        Value::Valid(|s| s.media.audio_seconds),
        "Length of the first audio clip that the request carries; absent where it is not known.",
    )
    .order(870)
    .with(AUDIO),
    Metric::new(
        "rtfx",
        "Inverse Real-Time Factor (RTFx)",
        "ratio",
        Value::Valid(|s| rate(s.media.audio_seconds?, s.latency()?)),
        "Audio duration divided by request latency: how many times faster than it is played a clip is worked on.",
    )
    .at(Group::Default, 850)
    .with(AUDIO | LARGER_IS_BETTER),
    Metric::new(
        "video_inference_time",
        "Video Inference Time",
        "sec",
        Value::Valid(|s| s.said(Counter::VideoSeconds)),
        "Time that the server says it worked on the video.",
    )
    .shown_in("ms")
    .at(Group::Default, 310)
    .with(VIDEO),
    Metric::new(
        "video_peak_memory",
        "Video Peak Memory",
        "MB",
        Value::Valid(|s| s.said(Counter::VideoMemory)),
        "The most memory that the server says its work on the video took.",
    )
    .at(Group::Default, 311)
    .with(VIDEO),
    Metric::new(
        "results_per_request",
        "Results per Request",
        "results",
        Value::Valid(|s| s.results()),
        "Results that are no text: embeddings, ranked passages, images, detections.",
    )
    .order(940)
    .with(OURS | INTEGER | LARGER_IS_BETTER),
    // HTTP, in the vocabulary of k6.
    http(
        "http_req_blocked",
        "HTTP Blocked",
        2000,
        |s| Some(s.record.blocked as f64),
        "Time spent waiting for a connection of the pool.",
    ),
    http(
        "http_req_dns_lookup",
        "HTTP DNS Lookup",
        2010,
        |_| Some(0.0),
        "Always 0: names are resolved once, before the first request.",
    ),
    http(
        "http_req_connecting",
        "HTTP Connecting",
        2020,
        |s| Some(s.record.connecting as f64),
        "TCP and TLS set-up within the request; 0 on a connection that stood already.",
    ),
    http(
        "http_req_sending",
        "HTTP Sending",
        2030,
        |s| s.sending(),
        "From the first byte handed to the kernel to the last.",
    ),
    http(
        "http_req_waiting",
        "HTTP Waiting (TTFB)",
        2040,
        |s| s.waiting(),
        "From the last byte sent to the first byte of the body.",
    ),
    http(
        "http_req_receiving",
        "HTTP Receiving",
        2050,
        |s| s.receiving(),
        "From the first byte of the body to the last byte of the response.",
    ),
    Metric::new(
        "http_req_connection_reused",
        "HTTP Connection Reused",
        "ratio",
        Value::Valid(|s| Some(s.flagged(record_flag::REUSED))),
        "1 if the request went out on a connection that had served before, else 0.",
    )
    .order(2060)
    .with(HTTP_TRACE | INTEGER),
    Metric::new(
        "http_req_data_sent",
        "HTTP Data Sent",
        "B",
        Value::Valid(|s| Some(f64::from(s.record.bytes_sent))),
        "Bytes sent, head and body; KB of 1024 bytes.",
    )
    .shown_in("KB")
    .order(2070)
    .with(HTTP_TRACE | INTEGER),
    Metric::new(
        "http_req_chunks_sent",
        "HTTP Chunks Sent",
        "count",
        Value::Valid(|s| s.record.sent.is_set().then_some(1.0)),
        "Always 1: a body is handed to the kernel as one piece.",
    )
    .order(2080)
    .with(HTTP_TRACE | INTEGER),
    Metric::new(
        "http_req_data_received",
        "HTTP Data Received",
        "B",
        Value::Valid(|s| Some(f64::from(s.record.bytes_received))),
        "Bytes of the response body; KB of 1024 bytes.",
    )
    .shown_in("KB")
    .order(2090)
    .with(HTTP_TRACE | INTEGER),
    Metric::new(
        "http_req_chunks_received",
        "HTTP Chunks Received",
        "count",
        Value::Valid(|s| Some(f64::from(s.record.reads))),
        "Reads that carried bytes of the body.",
    )
    .order(2100)
    .with(HTTP_TRACE | INTEGER),
    http(
        "http_req_connection_overhead",
        "HTTP Connection Overhead",
        2110,
        |s| Some(s.overhead()),
        "Blocked plus name resolution plus connecting.",
    ),
    http(
        "http_req_duration",
        "HTTP Duration (excl. conn)",
        2120,
        |s| Sample::span(s.record.done, s.record.sent),
        "From the first byte sent to the last byte received.",
    ),
    http(
        "http_req_total",
        "HTTP Total Time",
        2130,
        |s| s.total(),
        "Sum of the six phases of the request.",
    ),
    // Counts of the run.
    count(
        "request_count",
        "Request Count",
        Value::Run(|r| Some(r.valid as f64)),
        "Requests with a complete answer.",
    )
    .at(Group::Default, 1100)
    .with(LARGER_IS_BETTER),
    count(
        "error_request_count",
        "Error Request Count",
        Value::Run(|r| (r.failed > 0).then_some(r.failed as f64)),
        "Requests that failed; absent if none did.",
    )
    .last_in(Group::Default)
    .with(ERROR_ONLY),
    count(
        "context_overflow_count",
        "Context Overflow Count",
        Value::Run(|r| (r.failed > 0).then_some(r.overflowed as f64)),
        "Failed requests whose error says that they do not fit the model's context; absent if none failed.",
    )
    .last_in(Group::Default)
    .with(ERROR_ONLY),
    count(
        "completed_request_count",
        "Completed Requests (Success + Error)",
        Value::Run(|r| Some(r.completed()).filter(|n| *n > 0.0)),
        "Requests answered or failed.",
    )
    .at(Group::Default, 1075),
    per_run(
        "request_error_rate",
        "Request Error Rate",
        "%",
        |r| Some(r.share_of_completed(100.0 * r.failed as f64)),
        "Failed requests, per cent of the completed ones.",
    )
    .at(Group::Default, 1080)
    .with(NO_RECORD),
    Metric::new(
        "good_request_count",
        "Good Request Count",
        "requests",
        Value::Good,
        "Requests that keep every service level; a metric that a request lacks is a level it misses. In the files of single requests 1 or 0.",
    )
    .with(GOODPUT | INTEGER),
    per_run(
        "goodput",
        "Goodput",
        "requests/sec",
        |r| r.rate_of("good_request_count"),
        "Good requests divided by the length of the run's window.",
    )
    .at(Group::Default, 1000)
    .with(GOODPUT | LARGER_IS_BETTER),
    per_run(
        "good_request_fraction",
        "GoodRequestFraction",
        "ratio",
        |r| Some(r.share_of_completed(r.sum("good_request_count")?)),
        "Good requests divided by completed requests.",
    )
    .with(GOODPUT | LARGER_IS_BETTER),
    Metric::new(
        "min_request_timestamp",
        "Minimum Request Timestamp",
        "ns",
        Value::Least(|s| Some(s.record.start.0 as f64)),
        "Start of the first request.",
    )
    .with(NO_RECORD)
    .with(INTERNAL),
    Metric::new(
        "max_response_timestamp",
        "Maximum Response Timestamp",
        "ns",
        Value::Greatest(|s| Some(s.record.last_token.0 as f64)),
        "Last response with content of any request.",
    )
    .with(NO_RECORD)
    .with(INTERNAL),
    per_run(
        "benchmark_duration",
        "Benchmark Duration",
        "ns",
        |r| Some(r.sum("max_response_timestamp")? - r.sum("min_request_timestamp")?),
        "From the start of the first successful request to the last response with content.",
    )
    .shown_in("sec"),
    // Totals.
    per_run(
        "total_isl",
        "Total Input Sequence Length",
        "tokens",
        |r| r.sum("input_sequence_length"),
        "Sum of the input sequence lengths.",
    )
    .with(INPUT_TOKENS)
    .with(LARGER_IS_BETTER),
    per_run(
        "total_osl",
        "Total Output Sequence Length",
        "tokens",
        |r| r.sum("output_sequence_length"),
        "Sum of the output sequence lengths.",
    )
    .with(TOKENS | LARGER_IS_BETTER),
    per_run(
        "total_output_tokens",
        "Total Output Tokens",
        "tokens",
        |r| r.sum("output_token_count"),
        "Sum of the output token counts.",
    )
    .with(TOKENS | LARGER_IS_BETTER),
    per_run(
        "total_reasoning_tokens",
        "Total Reasoning Tokens",
        "tokens",
        |r| r.sum("reasoning_token_count"),
        "Sum of the reasoning token counts.",
    )
    .with(TOKENS | LARGER_IS_BETTER),
    per_run(
        "overall_thinking_efficiency",
        "Overall Thinking Efficiency",
        "ratio",
        |r| Some(r.sum("total_reasoning_tokens")? / r.sum("total_output_tokens").filter(|n| *n > 0.0)?),
        "All reasoning tokens divided by all tokens of visible output.",
    )
    .last_in(Group::Default)
    .with(TOKENS | REASONING | EXPERIMENTAL),
    per_run(
        "total_error_isl",
        "Total Error Input Sequence Length",
        "tokens",
        |r| r.sum("error_isl"),
        "Sum of the input lengths of failed requests.",
    )
    .with(INPUT_TOKENS)
    .with(ERROR_ONLY | LARGER_IS_BETTER),
    per_run(
        "total_usage_prompt_tokens",
        "Total Usage Prompt Tokens",
        "tokens",
        |r| r.sum("usage_prompt_tokens"),
        "Sum over the run.",
    )
    .with(LARGER_IS_BETTER)
    .with(INPUT_TOKENS)
    .at(Group::Usage, 2000),
    per_run(
        "total_usage_prompt_cache_read_tokens",
        "Total Usage Prompt Cache Read Tokens",
        "tokens",
        |r| r.sum("usage_prompt_cache_read_tokens"),
        "Sum over the run.",
    )
    .with(LARGER_IS_BETTER)
    .at(Group::Usage, 2010),
    per_run(
        "overall_usage_prompt_cache_read_pct",
        "Overall Usage Prompt Cache Read %",
        "%",
        |r| {
            let prompt = r
                .sum("total_usage_prompt_tokens")
                .filter(|n| *n > 0.0)?;
            Some(100.0 * r.sum("total_usage_prompt_cache_read_tokens")? / prompt)
        },
        "Prompt tokens taken from the cache, per cent of all prompt tokens.",
    )
    .at(Group::Usage, 2012)
    .with(LARGER_IS_BETTER),
    per_run(
        "total_usage_prompt_cache_write_tokens",
        "Total Usage Prompt Cache Write Tokens",
        "tokens",
        |r| r.sum("usage_prompt_cache_write_tokens"),
        "Sum over the run.",
    )
    .at(Group::Usage, 2015),
    per_run(
        "total_usage_prompt_cache_miss_tokens",
        "Total Usage Prompt Cache Miss Tokens",
        "tokens",
        |r| r.sum("usage_prompt_cache_miss_tokens"),
        "Sum over the run.",
    )
    .at(Group::Usage, 2017),
    per_run(
        "total_usage_prompt_audio_tokens",
        "Total Usage Prompt Audio Tokens",
        "tokens",
        |r| r.sum("usage_prompt_audio_tokens"),
        "Sum over the run.",
    )
    .at(Group::Usage, 2020)
    .with(LARGER_IS_BETTER | AUDIO),
    per_run(
        "total_usage_tool_use_prompt_tokens",
        "Total Usage Tool Use Prompt Tokens",
        "tokens",
        |r| r.sum("usage_tool_use_prompt_tokens"),
        "Sum over the run.",
    )
    .at(Group::Usage, 2030),
    per_run(
        "total_usage_prompt_audio_seconds",
        "Total Usage Prompt Audio Seconds",
        "sec",
        |r| r.sum("usage_prompt_audio_seconds"),
        "Sum over the run.",
    )
    .at(Group::Usage, 2040)
    .with(LARGER_IS_BETTER | AUDIO),
    per_run(
        "total_usage_completion_tokens",
        "Total Usage Completion Tokens",
        "tokens",
        |r| r.sum("usage_completion_tokens"),
        "Sum over the run.",
    )
    .with(LARGER_IS_BETTER)
    .at(Group::Usage, 2100)
    .with(TOKENS),
    per_run(
        "total_usage_reasoning_tokens",
        "Total Usage Reasoning Tokens",
        "tokens",
        |r| r.sum("usage_reasoning_tokens"),
        "Sum over the run.",
    )
    .with(LARGER_IS_BETTER)
    .at(Group::Usage, 2110)
    .with(TOKENS),
    per_run(
        "total_usage_completion_audio_tokens",
        "Total Usage Completion Audio Tokens",
        "tokens",
        |r| r.sum("usage_completion_audio_tokens"),
        "Sum over the run.",
    )
    .at(Group::Usage, 2120)
    .with(TOKENS | LARGER_IS_BETTER | AUDIO),
    per_run(
        "total_usage_accepted_prediction_tokens",
        "Total Usage Accepted Prediction Tokens",
        "tokens",
        |r| r.sum("usage_accepted_prediction_tokens"),
        "Sum over the run.",
    )
    .at(Group::Usage, 2130)
    .with(TOKENS | LARGER_IS_BETTER),
    per_run(
        "total_usage_rejected_prediction_tokens",
        "Total Usage Rejected Prediction Tokens",
        "tokens",
        |r| r.sum("usage_rejected_prediction_tokens"),
        "Sum over the run.",
    )
    .at(Group::Usage, 2140)
    .with(TOKENS),
    per_run(
        "total_usage_total_tokens",
        "Total Usage Total Tokens",
        "tokens",
        |r| r.sum("usage_total_tokens"),
        "Sum over the run.",
    )
    .with(LARGER_IS_BETTER)
    .at(Group::Usage, 2200)
    .with(TOKENS),
    // Rates of the run.
    per_run(
        "request_throughput",
        "Request Throughput",
        "requests/sec",
        |r| r.rate_of("request_count"),
        "Successful requests divided by the length of the run's window.",
    )
    .at(Group::Default, 900)
    .with(LARGER_IS_BETTER),
    per_run(
        "output_token_throughput",
        "Output Token Throughput",
        "tokens/sec",
        |r| r.rate_of("total_osl"),
        "Output tokens divided by the length of the run's window.",
    )
    .at(Group::Default, 800)
    .with(TOKENS | LARGER_IS_BETTER),
    per_run(
        "input_token_throughput",
        "Input Token Throughput",
        "tokens/sec",
        |r| r.rate_of("total_isl"),
        "Input tokens divided by the length of the run's window.",
    )
    .at(Group::Default, 805)
    .with(LARGER_IS_BETTER),
    per_run(
        "total_token_throughput",
        "Total Token Throughput",
        "tokens/sec",
        |r| Some(r.rate_of("total_isl")? + r.rate_of("total_osl")?),
        "Input and output tokens divided by the length of the run's window.",
    )
    .with(TOKENS | LARGER_IS_BETTER),
    per_run(
        "result_throughput",
        "Result Throughput",
        "results/sec",
        |r| r.rate_of("results_per_request"),
        "Results that are no text, divided by the length of the run's window.",
    )
    .at(Group::Default, 950)
    .with(OURS | NO_RECORD | LARGER_IS_BETTER),
    // Speculative decoding, all requests together.
    per_run(
        "total_spec_decode_steps",
        "Total Spec Decode Steps",
        "count",
        |r| r.sum("spec_decode_steps"),
        "Sum over the run.",
    )
    .order(5140),
    per_run(
        "total_accepted_draft_tokens",
        "Total Accepted Draft Tokens",
        "tokens",
        |r| r.sum("spec_decode_accepted_draft_tokens"),
        "Sum over the run.",
    )
    .order(5150),
    per_run(
        "total_draft_tokens",
        "Total Draft Tokens",
        "tokens",
        |r| r.sum("spec_decode_draft_tokens"),
        "Sum over the run.",
    )
    .order(5160),
    per_run(
        "spec_decode_token_weighted_acceptance_length",
        "Token-Weighted Acceptance Length",
        "ratio",
        |r| Some(1.0 + r.sum("total_accepted_draft_tokens")? / r.sum("total_spec_decode_steps").filter(|n| *n > 0.0)?),
        "One plus all accepted draft tokens divided by all steps.",
    )
    .at(Group::Speculation, 5010)
    .with(LARGER_IS_BETTER),
    per_run(
        "spec_decode_overall_draft_acceptance_rate",
        "Overall Draft Acceptance Rate",
        "%",
        |r| Some(100.0 * r.sum("total_accepted_draft_tokens")? / r.sum("total_draft_tokens").filter(|n| *n > 0.0)?),
        "All accepted draft tokens, per cent of all proposed ones.",
    )
    .at(Group::Speculation, 5025)
    .with(LARGER_IS_BETTER),
    // Failed requests as infinitely slow ones.
    adjusted(
        "adj_request_latency",
        "Request Latency (error-adjusted)",
        "request_latency",
        0,
        "Request latency with every failed request entered as infinite; nearest-rank percentiles.",
    ),
    adjusted(
        "adj_time_to_first_token",
        "Time to First Token (error-adjusted)",
        "time_to_first_token",
        STREAMING | TOKENS,
        "Time to first token with every failed request entered as infinite; nearest-rank percentiles.",
    ),
    adjusted(
        "adj_decode_duration",
        "Decode Duration (error-adjusted)",
        "decode_duration",
        STREAMING | TOKENS,
        "Decode duration with every failed request entered as infinite; nearest-rank percentiles.",
    ),
    adjusted(
        "adj_inter_token_latency",
        "Inter Token Latency (error-adjusted)",
        "inter_token_latency",
        STREAMING | TOKENS,
        "Inter token latency with every failed request entered as infinite; nearest-rank percentiles.",
    ),
    // Curves over time.
    effective(
        "effective_concurrency",
        "Effective Concurrency",
        "requests",
        Curve::Concurrency,
        "Requests in flight, time-weighted.",
    ),
    effective(
        "effective_decode_throughput",
        "Effective Decode Throughput",
        "tokens/sec",
        Curve::DecodeThroughput,
        "Tokens after the first, each request's spread over the gaps between its responses, time-weighted.",
    ),
    effective(
        "effective_prefill_throughput",
        "Effective Prefill Throughput",
        "tokens/sec",
        Curve::PrefillThroughput,
        "Input tokens, each request's spread over its time to first token, time-weighted.",
    ),
    effective(
        "effective_decode_concurrency",
        "Effective Decode Concurrency",
        "requests",
        Curve::DecodeConcurrency,
        "Requests past their first token, time-weighted.",
    ),
    effective(
        "effective_prefill_concurrency",
        "Effective Prefill Concurrency",
        "requests",
        Curve::PrefillConcurrency,
        "Requests before their first token, time-weighted.",
    ),
    effective(
        "effective_total_throughput",
        "Effective Total Throughput",
        "tokens/sec",
        Curve::TotalThroughput,
        "Prefill throughput plus output tokens spread evenly over each request's decode time, time-weighted.",
    ),
    effective(
        "effective_decode_throughput_per_user",
        "Effective Decode Throughput Per User",
        "tokens/sec/user",
        Curve::DecodeThroughputPerUser,
        "Decode throughput divided by decode concurrency, time-weighted.",
    ),
    effective(
        "effective_prefill_throughput_per_user",
        "Effective Prefill Throughput Per User",
        "tokens/sec/user",
        Curve::PrefillThroughputPerUser,
        "Prefill throughput divided by prefill concurrency, time-weighted.",
    ),
    effective(
        "tokens_in_flight",
        "Tokens In Flight",
        "tokens",
        Curve::TokensInFlight,
        "Input tokens of the requests in flight plus the output tokens they have received, time-weighted.",
    ),
    active(
        "active_decode_throughput",
        "Active Decode Throughput",
        "tokens/sec",
        Curve::DecodeThroughput,
        "Decode throughput over the time in which some request was decoding.",
    ),
    active(
        "active_prefill_throughput",
        "Active Prefill Throughput",
        "tokens/sec",
        Curve::PrefillThroughput,
        "Prefill throughput over the time in which some request was before its first token.",
    ),
    active(
        "active_decode_throughput_per_user",
        "Active Decode Throughput Per User",
        "tokens/sec/user",
        Curve::DecodeThroughputPerUser,
        "Decode throughput per request over the time in which some request was decoding.",
    ),
    active(
        "active_prefill_throughput_per_user",
        "Active Prefill Throughput Per User",
        "tokens/sec/user",
        Curve::PrefillThroughputPerUser,
        "Prefill throughput per request over the time in which some request was before its first token.",
    ),
    active(
        "active_total_throughput",
        "Active Total Throughput",
        "tokens/sec",
        Curve::TotalThroughput,
        "Total throughput over the time in which some request was in either phase.",
    ),
    // Free of coordinated omission.
    nanos(
        "credit_to_start_latency",
        "Credit-to-Start Latency",
        Value::Every(|s| s.slip()),
        "From the due time to the start of the request, whoever caused the wait.",
    )
    .with(NO_RECORD),
    nanos(
        "effective_latency",
        "Effective Latency (CO-aware)",
        Value::Every(|s| s.since_due()),
        "From the due time to the end of the response, failed requests included.",
    )
    .last_in(Group::Effective)
    .with(NO_RECORD),
    nanos(
        "credit_drop_latency",
        "Credit Drop Latency",
        Value::Valid(|s| s.slip()),
        "From the due time to the start of a successful request: a credit is released at its due time.",
    )
    .with(INTERNAL),
    // Replays.
    Metric::new(
        "replay_send_schedule_offset",
        "Replay Send Schedule Offset",
        "ns",
        Value::Every(|s| s.slip()),
        "From the scheduled time to the start of the request.",
    )
    .with(INTEGER)
    .with(INTERNAL | FIXED_SCHEDULE),
    per_run(
        "replay_sched_lag_p50",
        "Replay Schedule Lag p50",
        "ms",
        |r| r.lag_ms(4),
        "Median distance from the scheduled time, the smallest distance of the run taken off.",
    )
    .with(FIXED_SCHEDULE),
    per_run(
        "replay_sched_lag_p90",
        "Replay Schedule Lag p90",
        "ms",
        |r| r.lag_ms(6),
        "90th percentile of the same.",
    )
    .with(FIXED_SCHEDULE),
    per_run(
        "replay_sched_lag_p99",
        "Replay Schedule Lag p99",
        "ms",
        |r| r.lag_ms(8),
        "99th percentile of the same.",
    )
    .with(FIXED_SCHEDULE),
    per_run(
        "replay_sched_degraded",
        "Replay Schedule Degraded",
        "count",
        |r| Some(f64::from(u8::from(r.lag_ms(8)? > REPLAY_DEGRADED_MS))),
        "1 if the 99th percentile of the lag passes 500 ms, else 0.",
    )
    .with(FIXED_SCHEDULE),
    // maser's account of itself.
    nanos(
        "send_slip",
        "Send Slip",
        Value::Every(|s| s.send_slip()),
        "Our own lateness: from the due time until the first byte of a scheduled request was handed to the kernel, less what the server's side took of it (opening a connection, a lost first attempt); of requests that did not have to wait for a slot.",
    )
    .at(Group::Client, 10)
    .with(OURS),
    nanos(
        "response_time",
        "Response Time",
        Value::Valid(|s| s.since_due()),
        "From the due time to the end of the response: what a user who came at the due time saw.",
    )
    .at(Group::Client, 20)
    .with(OURS),
    nanos(
        "response_time_to_first_token",
        "Response Time to First Token",
        Value::Valid(|s| s.first_since_due()),
        "From the due time to the first response with content: what a user who came at the due time saw.",
    )
    .at(Group::Client, 15)
    .with(OURS | STREAMING | TOKENS),
    nanos(
        "client_delay",
        "Client Delay",
        Value::Every(|s| s.client_delay()),
        "What the client itself adds: the send slip; of a request without a planned time, or that waited for a slot, the same from its start.",
    )
    .at(Group::Client, 12)
    .with(OURS),
    Metric::new(
        "tokens_per_event",
        "Tokens per Event",
        "tokens",
        Value::Valid(|s| s.tokens_per_event()),
        "Output tokens divided by the number of responses with content; the server's own count with every event where there is one.",
    )
    .at(Group::Client, 22)
    .with(OURS | STREAMING | TOKENS),
    Metric::new(
        "first_event_tokens",
        "Tokens in First Event",
        "tokens",
        Value::Valid(|s| Some(s.counted()?.0)),
        "Output tokens of the first response with content, as the server counts them with the event.",
    )
    .order(23)
    .with(OURS | STREAMING | TOKENS | INTEGER),
    Metric::new(
        "delivered_inter_token_latency",
        "Delivered Inter Token Latency",
        "ns",
        Value::Valid(|s| s.delivered_itl()),
        "Decode duration divided by the number of gaps between responses with content: how often something new is seen.",
    )
    .shown_in("ms")
    .at(Group::Client, 24)
    .with(OURS | STREAMING | TOKENS),
    Metric::new(
        "amortised_inter_token_latency",
        "Amortised Inter Token Latency",
        "ns",
        Value::Valid(|s| s.amortised_itl()),
        "Decode duration divided by the tokens that came in it: those of all responses but the first, as the server counts them with every event, else as if all responses carried as many. Unlike the inter token latency, it does not count the first response as one token.",
    )
    .shown_in("ms")
    .at(Group::Client, 26)
    .with(OURS | STREAMING | TOKENS),
    count(
        "late_request_count",
        "Late Requests (slip >= 1 ms)",
        Value::SumEvery(|s| Some(f64::from(u8::from(s.send_slip().is_some() && s.record.is_late())))),
        "Requests with a send slip of a millisecond or more.",
    )
    .at(Group::Client, 30)
    .with(OURS),
    count(
        "queued_request_count",
        "Queued Requests",
        Value::SumEvery(|s| Some(s.flagged(record_flag::QUEUED))),
        "Requests that found no free slot under the concurrency limit at their due time.",
    )
    .at(Group::Client, 40)
    .with(OURS),
    count(
        "over_limit_request_count",
        "Requests Beyond the Limit",
        Value::SumEvery(|s| Some(s.flagged(record_flag::OVER_LIMIT))),
        "Requests that found no free slot at their due time and were sent all the same, beyond the concurrency limit.",
    )
    .at(Group::Client, 45)
    .with(OURS),
    count(
        "lost_record_count",
        "Lost Records",
        Value::Run(|r| r.lost.map(|n| n as f64)),
        "Requests whose record found the ring to the collector full.",
    )
    .at(Group::Client, 50)
    .with(OURS),
    count(
        "retried_request_count",
        "Retried Requests",
        Value::SumEvery(|s| Some(s.flagged(record_flag::RETRIED))),
        "Requests sent a second time because the server had closed the idle connection before it got any of them.",
    )
    .at(Group::Client, 60)
    .with(OURS),
    count(
        "dropped_request_count",
        "Dropped Requests",
        Value::Run(|r| r.unused.map(|n| n as f64)),
        "Requests that were planned and never started, because the run was stopped first.",
    )
    .at(Group::Client, 55)
    .with(OURS),
    count(
        "cut_request_count",
        "Requests Cut at the End",
        Value::Run(|r| Some(r.cut as f64)),
        "Requests still in flight when the run ended. They count as failed; their latencies are unknown, and longer than they had run.",
    )
    .at(Group::Client, 57)
    .with(OURS),
];
