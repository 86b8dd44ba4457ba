//! The options of the reference that this version does not have.
//!
//! They are refused by name, so that a command line written for the reference either runs as it would there or says in
//! one sentence what stands in its way; none is mistaken for a typing error.

use crate::refusal::Refusal;

/// Every spelling of every option of `aiperf profile` 0.13 that maser does not support yet, sorted by bytes.
const NOT_YET: &[&str] = &[
    "--accuracy-benchmark",
    "--accuracy-enable-cot",
    "--accuracy-grader",
    "--accuracy-n-shots",
    "--accuracy-no-enable-cot",
    "--accuracy-system-prompt",
    "--accuracy-tasks",
    "--accuracy-verbose",
    "--api-host",
    "--api-port",
    "--bo-constraint-mode",
    "--concurrency-max",
    "--concurrency-min",
    "--concurrency-steps",
    "--confidence-level",
    "--config",
    "--convergence-metric",
    "--convergence-mode",
    "--convergence-stat",
    "--convergence-threshold",
    "--degradation-metric-tag",
    "--degradation-stat",
    "--degradation-threshold",
    "--e2e-sla-ms",
    "--error-rate-sla",
    "--gen-ai-provider",
    "--hf-weka-dataset",
    "--isl-max",
    "--isl-min",
    "--isl-osl-pairs",
    "--isl-steps",
    "--itl-sla-ms",
    "--max-context-length",
    "--mlflow-artifact-glob",
    "--mlflow-experiment",
    "--mlflow-parent-run-id",
    "--mlflow-run-name",
    "--mlflow-tag",
    "--mlflow-tracking-uri",
    "--network-latency-automatic",
    "--network-latency-mean",
    "--network-latency-ping-interval",
    "--no-parameter-sweep-same-seed",
    "--no-profile-run-disable-warmup-after-first",
    "--no-set-consistent-seed",
    "--no-vary-seed-per-trial",
    "--num-profile-runs",
    "--optuna-acquisition",
    "--optuna-sampler",
    "--optuna-terminator",
    "--osl-max",
    "--osl-min",
    "--osl-steps",
    "--otel-resource-attributes",
    "--otel-url",
    "--parameter-sweep-cooldown-seconds",
    "--parameter-sweep-mode",
    "--parameter-sweep-same-seed",
    "--plot-required",
    "--profile-run-cooldown-seconds",
    "--profile-run-disable-warmup-after-first",
    "--scenario",
    "--search-direction",
    "--search-initial-points",
    "--search-max-iterations",
    "--search-metric",
    "--search-percentile-pooling",
    "--search-planner",
    "--search-random-seed",
    "--search-recipe",
    "--search-sla",
    "--search-sla-tier",
    "--search-space",
    "--search-stat",
    "--search-style",
    "--set-consistent-seed",
    "--slo-attainment-fraction",
    "--stream",
    "--sweep-type",
    "--sweep-variant",
    "--tpot-sla-ms",
    "--trace-idle-gap-cap-seconds",
    "--ttft-sla-ms",
    "--unsafe-override",
    "--variant",
    "--vary-seed-per-trial",
    "--wandb-entity",
    "--wandb-project",
    "--wandb-run-name",
    "--wandb-tag",
    "-f",
];

/// Those that mean something in the reference's agentic replay alone, which maser does not have, sorted by bytes.
const AGENTIC: &[&str] = &[
    "--agentic-cache-warmup-duration",
    "--agentic-warmup-grace-period",
    "--allow-dataset-wrap",
    "--burst-phase-starts",
    "--no-allow-dataset-wrap",
    "--system-idle-gap-cap-seconds",
    "--trajectory-start-max-ratio",
    "--trajectory-start-min-ratio",
    "--use-think-time-only",
];

/// The refusal of `flag` (as typed, without a value) if it is an option of the reference that maser lacks.
pub(crate) fn refusal(flag: &str) -> Option<Refusal> {
    if AGENTIC.binary_search(&flag).is_ok() {
        return Some(Refusal::new(format!(
            "{flag} shapes only an agentic replay, which this version of maser does not have; remove it, every other run \
             goes on as it would without"
        )));
    }
    if flag == "--stream" {
        return Some(Refusal::new(
            "--stream chooses what is sent to OpenTelemetry, which this version of maser does not have; did you mean \
             --streaming?",
        ));
    }
    NOT_YET.binary_search(&flag).ok()?;
    Some(Refusal::new(format!("{flag} is not supported yet by this version of maser; remove it to run without it")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_without_doubles() {
        assert!(NOT_YET.is_sorted_by(|a, b| a < b));
        assert!(AGENTIC.is_sorted_by(|a, b| a < b));
        assert!(AGENTIC.iter().all(|flag| !NOT_YET.contains(flag)));
    }

    #[test]
    fn only_options_of_the_table_are_refused() {
        assert_eq!(
            refusal("--mlflow-tag").map(|r| r.to_string()).as_deref(),
            Some("--mlflow-tag is not supported yet by this version of maser; remove it to run without it")
        );
        assert_eq!(refusal("--concurrency"), None);
        assert_eq!(refusal("--mlflow-tags"), None);
    }
}
