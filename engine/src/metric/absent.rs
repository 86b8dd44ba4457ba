//! What the reference registers and no record carries yet.

/// A metric of the reference that this version does not compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Absent {
    /// Its tag.
    pub tag: &'static str,
    /// Why there is no value for it.
    pub reason: &'static str,
}

const GPU: &str = "Power and energy of GPUs are not read.";
const RTT: &str = "The round trip of the network is not measured apart from the requests.";

const AGENTIC: &str = "Only agentic traces state it, which are not replayed; `maser analyze-trace` tells it of any trace with block hashes.";

const fn absent(tag: &'static str, reason: &'static str) -> Absent {
    Absent { tag, reason }
}

/// Every metric that the reference registers or adds at the end, and [`super::METRICS`] lacks.
pub static ABSENT: &[Absent] = &[
    absent("amd_average_gpu_power", GPU),
    absent("amd_energy_delay_product", GPU),
    absent("amd_energy_per_output_token", GPU),
    absent("amd_energy_per_request", GPU),
    absent("amd_energy_per_total_token", GPU),
    absent("amd_energy_per_user", GPU),
    absent("amd_goodput_per_watt", GPU),
    absent("amd_output_tokens_per_joule", GPU),
    absent("amd_output_tps_per_watt", GPU),
    absent("amd_performance_per_watt", GPU),
    absent("amd_total_gpu_energy", GPU),
    absent("amd_total_gpu_power", GPU),
    absent("nvidia_average_gpu_power", GPU),
    absent("nvidia_energy_delay_product", GPU),
    absent("nvidia_energy_per_output_token", GPU),
    absent("nvidia_energy_per_request", GPU),
    absent("nvidia_energy_per_total_token", GPU),
    absent("nvidia_energy_per_user", GPU),
    absent("nvidia_goodput_per_watt", GPU),
    absent("nvidia_output_tokens_per_joule", GPU),
    absent("nvidia_output_tps_per_watt", GPU),
    absent("nvidia_performance_per_watt", GPU),
    absent("nvidia_total_gpu_energy", GPU),
    absent("nvidia_total_gpu_power", GPU),
    absent("network_adjusted_request_latency", RTT),
    absent("network_adjusted_time_to_first_output_token", RTT),
    absent("network_adjusted_time_to_first_token", RTT),
    absent("network_rtt", RTT),
    absent("theoretical_prefix_cache_hit", AGENTIC),
];
