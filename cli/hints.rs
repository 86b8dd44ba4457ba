//! What a user may have meant by an option that there is not.

use maser_engine::metric::{self, Metric};

/// Options as other tools spell them (wrk, oha, hey, k6, vegeta, vLLM's bench, GenAI-Perf), and ours.
pub(crate) const INTENTS: &[(&[&str], &str)] = &[
    (&["--rate", "--rps", "--qps", "--requests-per-second", "-r"], "--request-rate"),
    (&["--rate-type", "--distribution", "--arrival", "--arrival-process"], "--arrival-pattern"),
    (&["--burstiness"], "--arrival-smoothness"),
    (&["--duration", "--time", "--run-time", "--measurement-interval", "-d"], "--benchmark-duration"),
    (&["--requests", "--count", "--max-requests", "--iterations", "-n"], "--request-count"),
    (&["--connections", "--clients", "--users", "--vus", "--streams", "--parallel"], "--concurrency"),
    (&["--max-concurrency", "--parallelism", "-c"], "--concurrency"),
    (&["--warmup", "--warmups", "--warmup-requests", "--num-warmups"], "--warmup-request-count"),
    (&["--timeout", "--request-timeout"], "--request-timeout-seconds"),
    (&["--output", "--out", "--output-dir", "--result-dir", "-o"], "--artifact-dir"),
    (&["--backend", "--api", "--service-kind", "--endpoint-kind"], "--endpoint-type"),
    (&["--base-url", "--host", "--server", "--server-url", "--target", "--address"], "--url"),
    (&["--dataset", "--dataset-path", "--prompts", "--prompt-file", "--data", "--trace"], "--input-file"),
    (&["--dataset-name"], "--public-dataset"),
    (&["--dataset-type", "--input-format"], "--custom-dataset-type"),
    (&["--input-len", "--input-length", "--input-tokens", "--prompt-tokens", "--random-input-len"], "--isl"),
    (&["--output-len", "--output-length", "--random-output-len", "--max-tokens", "--num-tokens"], "--osl"),
    (&["--seed"], "--random-seed"),
    (&["--slo", "--slos", "--sla", "--service-level"], "--goodput"),
    (&["--key", "--auth", "--bearer"], "--api-key"),
    (&["--turns", "--num-turns"], "--conversation-turn-mean"),
    (&["--sessions", "--conversations"], "--num-conversations"),
    (&["--ramp", "--ramp-up", "--rampup"], "--request-rate-ramp-duration"),
    (&["--threads", "--workers", "-t"], "--workers-max"),
    (&["--silent"], "--quiet"),
];

/// The option of `maser profile` that users of other tools mean by `flag`.
pub(crate) fn intent(flag: &str) -> Option<&'static str> {
    INTENTS.iter().find(|(names, _)| names.contains(&flag)).map(|(_, ours)| *ours)
}

/// The one of `options` that `flag` is a misspelling of: at most one letter in five is wrong. What is further off than that
/// is something else, and a wrong hint costs more than none.
pub(crate) fn similar(flag: &str, options: impl Iterator<Item = String>) -> Option<String> {
    let letters = flag.trim_start_matches('-').chars().count();
    let most = (letters / 5).clamp(1, 3);
    if letters < 3 {
        return None;
    }
    let near = options.map(|option| (strsim::damerau_levenshtein(flag, &option), option));
    near.filter(|(wrong, _)| *wrong <= most).min_by_key(|(wrong, _)| *wrong).map(|(_, option)| option)
}

/// The metric called `name`: by its tag, or as it is called in speech and by other tools.
pub(crate) fn metric(name: &str) -> Option<&'static Metric> {
    let tag = match name.to_ascii_lowercase().as_str() {
        "ttft" => "time_to_first_token",
        "ttst" => "time_to_second_token",
        "itl" | "tpot" => "inter_token_latency",
        "e2e" | "e2el" | "latency" => "request_latency",
        "tps_per_user" => "output_token_throughput_per_user",
        "isl" => "input_sequence_length",
        "osl" => "output_sequence_length",
        _ => name,
    };
    metric::find(tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_given_for_a_slip_of_the_pen_and_for_nothing_else() {
        let options = ["--concurrency", "--request-rate", "--video-duration", "--ui", "--isl", "--benchmark-duration"];
        let hint = |flag: &str| similar(flag, options.iter().map(|o| (*o).to_owned()));
        for (flag, meant) in [
            ("--concurency", "--concurrency"),
            ("--conurrency", "--concurrency"),
            ("--request-rat", "--request-rate"),
            ("--benchmark-duraiton", "--benchmark-duration"),
        ] {
            assert_eq!(hint(flag).as_deref(), Some(meant), "{flag}");
        }
        for flag in ["--duration", "--rate", "--backend", "--generate-plots", "-c", "-n", "--x"] {
            assert_eq!(hint(flag), None, "{flag}");
        }
    }

    #[test]
    fn every_metric_s_short_name_is_a_metric() {
        for name in ["ttft", "TTST", "itl", "tpot", "e2e", "e2el", "latency", "tps_per_user", "isl", "osl"] {
            assert!(metric(name).is_some_and(|metric| metric.tag != name), "{name}");
        }
        assert_eq!(metric("request_latency").map(|m| m.tag), Some("request_latency"));
        assert!(metric("ttfb").is_none());
    }

    #[test]
    fn no_name_is_listed_twice() {
        let names: Vec<_> = INTENTS.iter().flat_map(|(names, _)| names.iter()).collect();
        assert!(names.iter().enumerate().all(|(k, name)| !names[..k].contains(name)));
    }
}
