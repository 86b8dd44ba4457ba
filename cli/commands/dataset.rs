//! `maser dataset` and `maser analyze-trace`: looks at datasets, and traces written anew.

use super::{Failure, bodies, body_cache, prepare};
use crate::args;
use crate::config::{Input, NO_CHAT_TEMPLATE, ProfileConfig, Tokenizer as Chosen, Trace};
use crate::refusal::Refusal;
use crate::say;
use maser_datasets::analysis::{Analysis, Figures};
use maser_datasets::file::Options;
use maser_datasets::stats::{Arrivals, Distribution, Stats};
use maser_datasets::tokens::HubCache;
use maser_datasets::{Error, Tokenizer, public, rewrite};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Does what was asked for; returns the exit code.
pub(crate) fn run(args: &args::Dataset) -> Result<u8, Failure> {
    match args {
        args::Dataset::Stats(args) => stats(args),
        args::Dataset::AnalyzeTrace(args) => analyze(args),
        args::Dataset::Synthesize(args) => synthesize(args),
        args::Dataset::Compile(args) => compile(args),
        args::Dataset::List => {
            for (name, repo) in public::names() {
                say(std::io::stdout(), format_args!("{name:<18} {repo}"));
            }
            Ok(0)
        }
    }
}

/// The datasets' sentences name `--input-file`, which these commands have as a bare argument.
fn refused(e: Error) -> Failure {
    Refusal::new(e.0.strip_prefix("--input-file ").unwrap_or(&e.0)).into()
}

fn options(source: &args::Source, block_size: Option<u32>) -> Options {
    Options { path: source.path.clone(), format: source.format, isl_block_size: block_size, ..Options::default() }
}

fn stats(args: &args::DatasetStats) -> Result<u8, Failure> {
    let tokenizer = tokenizer(args.tokenizer.as_deref())?;
    let stats = Stats::of(&options(&args.source, args.block_size), Some(&tokenizer)).map_err(refused)?;
    let out = std::io::stdout();
    if args.json {
        say(out, format_args!("{}", serde_json::to_string_pretty(&stats).unwrap_or_default()));
    } else {
        say(out, format_args!("{}", stats_text(&args.source.path, &stats)));
    }
    Ok(0)
}

fn stats_text(path: &Path, stats: &Stats) -> String {
    let mut text = format!(
        "{}\n{}, {} requests in {} sessions\n",
        path.display(),
        stats.format,
        grouped(stats.requests),
        grouped(stats.sessions)
    );
    for (verb, rows) in [("left out", &stats.rows_skipped), ("changed", &stats.rows_adjusted)] {
        for (why, n) in rows {
            text += &format!("  {} rows {verb}: {why}\n", grouped(*n));
        }
    }
    if let Some(arrivals) = &stats.arrivals {
        text += &arrivals_text(arrivals);
    }
    text += &format!(
        "\n{:<16}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}\n",
        "", "mean", "std dev", "min", "p25", "median", "p75", "p99", "max"
    );
    let rows = [
        ("input tokens", &stats.input_tokens),
        ("output tokens", &stats.output_tokens),
        ("turns", &stats.turns),
        ("delays, ms", &stats.delays_ms),
    ];
    for (name, values) in &rows {
        if let Some(d) = values {
            let figures = [d.mean, d.std_dev, d.min, d.p25, d.median, d.p75, d.p99, d.max];
            text += &format!("{name:<16}{}\n", figures.map(|x| format!(" {:>7}", figure(x))).concat());
        }
    }
    for (name, values) in &rows {
        if let Some(d) = values.as_ref().filter(|d| d.histogram.len() > 1) {
            text += &plot(name, d);
        }
    }
    if let Some(blocks) = &stats.blocks {
        text += &format!(
            "\nblocks of {} tokens: {} references, {} unique\n  {:.1} % name a block again, a prefix cache without limits \
             answers {:.1} %\n",
            blocks.size,
            grouped(blocks.references),
            grouped(blocks.unique),
            100.0 * blocks.reuse,
            100.0 * blocks.prefix_hits
        );
    }
    text.trim_end().to_owned()
}

fn arrivals_text(a: &Arrivals) -> String {
    let fano: Vec<String> = a.fano.iter().map(|f| format!("{:.2} over {} s", f.factor, f.window_s)).collect();
    let mut text = format!(
        "\narrivals: {} s, {:.3} requests/s; gaps have CV {:.2}\n  Fano factor {}\n  {} different times for {} requests, \
         at most {} at once\n  all gaps are multiples of {} s{}\n",
        figure(a.span_s),
        a.rate,
        a.gap_cv,
        if fano.is_empty() { "unknown, the span is short".to_owned() } else { fano.join(", ") },
        grouped(a.distinct),
        grouped(a.requests),
        grouped(a.most_at_once),
        a.quantum_s,
        if a.sorted { "" } else { "; the file is not in the order of its times" }
    );
    if a.over_time.len() > 1 {
        text += &format!("  over time      {}\n", bars(&a.over_time));
    }
    text
}

fn plot(name: &str, d: &Distribution) -> String {
    format!("\n{name}, {} to {}\n  {}\n", figure(d.min), figure(d.max), bars(&d.histogram))
}

/// Counts as blocks of eight heights; a count above 0 is never blank.
fn bars(counts: &[u64]) -> String {
    const HEIGHTS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = counts.iter().copied().max().unwrap_or(0).max(1);
    counts.iter().map(|n| HEIGHTS.get(((n * 8).div_ceil(most)) as usize).copied().unwrap_or('█')).collect()
}

/// A number in about six characters.
fn figure(x: f64) -> String {
    if x.fract() == 0.0 && x.abs() < 1e12 {
        return grouped_signed(x);
    }
    match x.abs() {
        big if big >= 1000.0 => grouped_signed(x.round()),
        middle if middle >= 10.0 => format!("{x:.1}"),
        _ => format!("{x:.3}"),
    }
}

fn grouped_signed(x: f64) -> String {
    let sign = if x < 0.0 { "-" } else { "" };
    format!("{sign}{}", grouped(x.abs() as u64))
}

/// A whole number with commas.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (k, digit) in digits.chars().enumerate() {
        if k > 0 && (digits.len() - k).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `maser analyze-trace`.
pub(crate) fn analyze(args: &args::Analyze) -> Result<u8, Failure> {
    let analysis = Analysis::of(&options(&args.source, args.block_size)).map_err(refused)?;
    if let Some(path) = &args.output_file {
        let json = serde_json::to_string_pretty(&analysis).unwrap_or_default();
        std::fs::write(path, json)
            .map_err(|e| Failure::Failed(format!("--output-file {}: cannot be written: {e}", path.display())))?;
    }
    say(std::io::stdout(), format_args!("{}", analysis_text(&args.source.path, &analysis)));
    Ok(0)
}

fn analysis_text(path: &Path, a: &Analysis) -> String {
    let mut text = format!(
        "{}: {} requests, {} unique prefixes, {} prefix groups\n\n{:<22}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}\n",
        path.display(),
        grouped(a.total_requests),
        grouped(a.unique_prefixes),
        grouped(a.num_prefix_groups),
        "",
        "Mean",
        "Std Dev",
        "Min",
        "P25",
        "Median",
        "P75",
        "Max"
    );
    let rows: [(&str, &Figures); 5] = [
        ("Input Length", &a.isl_stats),
        ("Context Length", &a.context_length_stats),
        ("Unique Prompt Length", &a.unique_prompt_length_stats),
        ("Output Length", &a.osl_stats),
        ("Theoretical Hit Rates", &a.hit_rate_stats),
    ];
    for (name, f) in rows {
        let figures = [f.mean, f.std_dev, f.min, f.p25, f.median, f.p75, f.max];
        text += &format!("{name:<22}{}\n", figures.map(|x| format!(" {:>7}", figure(x))).concat());
    }
    text.trim_end().to_owned()
}

fn tokenizer(name: Option<&str>) -> Result<Tokenizer, Failure> {
    let found = Chosen::named(name.unwrap_or("builtin"), "main", HubCache::of_user().as_ref())?;
    Tokenizer::open_found(&found).map_err(refused)
}

/// What is read and how; `out` must be another file.
fn rewritten(args: &args::Synthesize) -> Result<Options, Failure> {
    let same = |path: &Path| path.canonicalize().ok();
    if same(&args.out).is_some() && same(&args.out) == same(&args.source.path) {
        return Err(Refusal::new(format!("{}: the file would overwrite itself", args.out.display())).into());
    }
    let trace = Trace::resolve(&args.trace);
    Ok(Options {
        synthesis: trace.synthesis,
        synthesis_max_isl: args.max_isl,
        synthesis_max_osl: args.max_osl,
        ignore_trace_delays: trace.ignore_delays,
        replay: trace.replay,
        seed: args.random_seed.unwrap_or(0),
        ..options(&args.source, args.block_size)
    })
}

fn synthesize(args: &args::Synthesize) -> Result<u8, Failure> {
    let options = rewritten(args)?;
    let failed = |e: std::io::Error| Failure::Failed(format!("{}: cannot be written: {e}", args.out.display()));
    let mut out = BufWriter::new(File::create(&args.out).map_err(failed)?);
    let rows = rewrite::as_mooncake(&options, &mut out).map_err(refused)?;
    out.flush().map_err(failed)?;
    say(std::io::stdout(), format_args!("{}: {} rows", args.out.display(), grouped(rows)));
    Ok(0)
}

fn compile(args: &args::Compile) -> Result<u8, Failure> {
    let options = rewritten(&args.synthesize)?;
    let mut tokenizer = tokenizer(args.tokenizer.as_deref())?;
    if args.apply_chat_template {
        tokenizer = tokenizer.with_chat_template().map_err(refused)?;
        if !tokenizer.has_chat_template() {
            say(std::io::stderr(), format_args!("note: {NO_CHAT_TEMPLATE}"));
        }
    }
    let out = &args.synthesize.out;
    let run = args.run.as_deref().map(|run| settings(run, &options.path)).transpose()?;
    let summary = maser_datasets::compile(&options, Some(&tokenizer), out).map_err(refused)?;
    let (requests, sessions) = (grouped(summary.requests), grouped(summary.conversations));
    say(std::io::stdout(), format_args!("{}: {requests} requests in {sessions} sessions", out.display()));
    run.map_or(Ok(0), |run| bodies_for(run, out))
}

/// What `--for` says, of a run on `input`.
fn settings(run: &str, input: &Path) -> Result<ProfileConfig, Refusal> {
    let resolved = args::parse_profile(run, input).and_then(|parsed| ProfileConfig::resolve(parsed, false));
    resolved.map_err(|refusal| Refusal::new(format!("--for {run:?}: {refusal}")))
}

/// Makes the request bodies of such runs on the compiled dataset, and keeps them beside it.
fn bodies_for(mut config: ProfileConfig, out: &Path) -> Result<u8, Failure> {
    let dir = body_cache::beside(out);
    if let Input::File { path, trace, .. } = &mut config.input {
        (*path, trace.cache) = (out.to_owned(), Some(dir.clone()));
    }
    if config.hidden().is_in_bodies() {
        return Err(Refusal::new(
            "--for: its --extra-inputs puts a secret into the request bodies, which no file may show; such bodies are made \
             when they are sent",
        )
        .into());
    }
    prepare::settle_file(&mut config)?;
    std::fs::create_dir_all(&dir).map_err(bodies::full(&dir))?;
    let seed = config.random_seed.unwrap_or_default();
    let bytes = bodies::bodies(&mut config, seed, &dir)?.requests.bytes();
    config.notes.iter().for_each(|note| say(std::io::stderr(), format_args!("note: {note}")));
    say(std::io::stdout(), format_args!("{}: {} bytes of request bodies", dir.display(), grouped(bytes)));
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_bars_are_readable() {
        assert_eq!([0, 999, 1000, 288_500, 12_345_678].map(grouped), ["0", "999", "1,000", "288,500", "12,345,678"]);
        assert_eq!([0.0, -2.0, 0.125, 12.34, 12345.6].map(figure), ["0", "-2", "0.125", "12.3", "12,346"]);
        assert_eq!(bars(&[0, 1, 8, 800]), " ▁▁█");
        assert_eq!(bars(&[0, 0]), "  ");
    }
}
