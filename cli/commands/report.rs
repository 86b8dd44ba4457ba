//! `maser report DIR`: rebuilds every file of a run from its record log.

use super::{Failure, place};
use crate::args;
use crate::config::slos;
use crate::exit::Exit;
use crate::refusal::Refusal;
use crate::say;
use crate::values::{ExportLevel, name_of};
use maser::export::directory::{self, Claim};
use maser::export::{self, ExportOptions, Written, console, headline, inputs, summary};
use maser_datasets::Tokenizer;
use maser_engine::clock::Nanos;
use maser_engine::endpoint::Kind;
use maser_engine::log::{FILE_NAME, Header, Log};
use maser_engine::metric::Applies;
use maser_engine::report::{Options, Report, verify};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

/// Columns of the tables where standard output is not a terminal, and at most where it is: the reference's.
const WIDTH: usize = 140;

/// Rebuilds the files and prints the tables.
pub(crate) fn run(args: &args::Report) -> Result<u8, Failure> {
    let (dir, path) = log_of(&args.dir);
    if !path.exists() {
        return Err(Refusal::new(format!("no maser run in {} (no {FILE_NAME})", dir.display())).into());
    }
    let mut log = Log::open(&path).map_err(|e| {
        Failure::Refused(Refusal::new(format!("{}: cannot be read as a run's record log: {e}", path.display())))
    })?;
    if args.verify {
        return check(&log, args.quiet);
    }
    check_prefix(&log.header, &path)?;
    let options = ask(args, &mut log.header)?;
    let show = Show::of(args.quiet, args.json, false);
    let view = View { window: window(args)?, percentiles: &args.percentiles, show, signal: None };
    if let Some(torn) = &log.torn {
        say(
            std::io::stderr(),
            format_args!(
                "note: {}: the last {} bytes are not a whole block and were left out",
                path.display(),
                torn.bytes
            ),
        );
    }
    let out = args.output.as_deref().unwrap_or(dir);
    // Held until the files are written.
    let _claim = place(args, &log, out)?;
    say_tokenizer(&log, &path);
    publish(&log, out, &options, &view, || inputs(&log, dir, out))
}

/// The directory of a run and its log, of which either may be named.
fn log_of(named: &Path) -> (&Path, PathBuf) {
    match named.parent() {
        Some(dir) if named.is_file() => (if dir == Path::new("") { Path::new(".") } else { dir }, named.to_owned()),
        _ => (named, named.join(FILE_NAME)),
    }
}

/// A log may come from anywhere; the names that it asks for are not those of files elsewhere.
fn check_prefix(header: &Header, path: &Path) -> Result<(), Refusal> {
    match header.export_prefix.as_deref() {
        Some(prefix) if export::prefix_of(prefix) != Some(prefix) => Err(Refusal::new(format!(
            "{}: its files would begin with {prefix:?}, which is not the beginning of a file name; maser writes no such log",
            path.display()
        ))),
        _ => Ok(()),
    }
}

/// Takes the directory `out`, in which the results of another run are not replaced unasked.
fn place(args: &args::Report, log: &Log, out: &Path) -> Result<Option<Claim>, Failure> {
    let cannot = |e: std::io::Error| Failure::Failed(format!("{}: cannot write files there: {e}", out.display()));
    if args.output.is_some() {
        std::fs::create_dir_all(out).map_err(cannot)?;
    }
    let claim = place::for_report(out)?;
    if args.output.is_some() && directory::has_another(out, log) {
        if !args.extra.overwrite {
            return Err(Refusal::new(format!(
                "-o {}: the results of another run are there; give another directory, or --overwrite to replace them",
                out.display()
            ))
            .into());
        }
        directory::remove_earlier(out, log.header.export_prefix.as_deref()).map_err(cannot)?;
    }
    Ok(claim)
}

/// A file that the log names and this command line does not is not opened without a word.
fn say_tokenizer(log: &Log, path: &Path) {
    let Some(name) = log.header.tokenizer.as_ref().filter(|_| !log.header.use_server_token_count) else { return };
    if Path::new(name).exists() {
        let name = export::printable(name);
        say(std::io::stderr(), format_args!("note: tokens are counted with {name}, as {} says", path.display()));
    }
}

/// `inputs.json`, where the run was killed before it wrote it.
fn inputs(log: &Log, dir: &Path, out: &Path) -> Option<Result<Written, String>> {
    let restored = inputs::restore(dir, out, &log.header);
    if restored.is_none() && log.header.has_inputs && log.end.is_none() && !dir.join(inputs::FILE_NAME).exists() {
        say(
            std::io::stderr(),
            format_args!(
                "note: there is no {}: the run was killed before it wrote the file, and left no bodies to make it of",
                inputs::FILE_NAME
            ),
        );
    }
    restored
}

/// `--verify`.
fn check(log: &Log, quiet: bool) -> Result<u8, Failure> {
    let checked = verify(log);
    if !checked.is_sound() {
        for finding in &checked.findings {
            say(std::io::stderr(), format_args!("error: {finding}"));
        }
        let sentence = match checked.only_killed {
            true => format!("--verify: the run was killed; all {} blocks that it wrote are sound", checked.blocks),
            false => "--verify: the log failed verification, see above".to_owned(),
        };
        return Err(Failure::Failed(sentence));
    }
    if !quiet {
        let (blocks, records) = (checked.blocks, checked.records);
        say(std::io::stdout(), format_args!("The log is sound: {blocks} blocks, {records} records."));
    }
    Ok(0)
}

/// The part of the run that was asked for, nanoseconds from the start of the first profiling phase.
fn window(args: &args::Report) -> Result<Option<(Nanos, Nanos)>, Refusal> {
    if args.from.or(args.to).is_none() {
        return Ok(None);
    }
    let (from, to) = (args.from.unwrap_or(0), args.to.unwrap_or(Nanos::MAX));
    if from >= to {
        return Err(Refusal::new("--from: expected a moment before that of --to"));
    }
    Ok(Some((from, to)))
}

/// How a run is looked at.
#[derive(Debug)]
pub(super) struct View<'a> {
    /// The part of it, nanoseconds from the start of the first profiling phase.
    window: Option<(Nanos, Nanos)>,
    /// Percentiles with confidence intervals; the usual ones if there are none.
    percentiles: &'a [f64],
    /// What is printed.
    show: Show,
    /// The signal that stopped the run, where that is known.
    signal: Option<&'static str>,
}

impl View<'_> {
    /// The whole of a run that has just ended.
    pub(super) fn of_run(show: Show, signal: Option<&'static str>) -> Self {
        Self { window: None, percentiles: &[], show, signal }
    }
}

/// Puts what is asked for now in the place of what the run asked for. What the log does not hold is refused.
fn ask(args: &args::Report, header: &mut Header) -> Result<ExportOptions, Refusal> {
    let recorded = header.export_level.clone();
    if let Some(level) = args.level {
        if level == ExportLevel::Raw && recorded != name_of(level) {
            return Err(Refusal::new(format!(
                "--export-level raw: the run was recorded at level {recorded}, so its log does not have what was sent \
                 and received"
            )));
        }
        header.export_level = name_of::<ExportLevel>(level).to_owned();
    }
    let mut options = ExportOptions::of(header);
    if args.export_outputs_json && header.use_server_token_count && !options.outputs {
        return Err(Refusal::new(
            "--export-outputs-json: the run took the server's token counts, so its log does not have the texts of the \
             answers",
        ));
    }
    options.slices = args.slice_duration.or(options.slices);
    options.outputs |= args.export_outputs_json;
    options.parquet |= args.extra.export_parquet;
    options.hdr |= args.extra.export_hdr;
    if !header.input_config.is_object() {
        header.input_config = serde_json::json!({});
    }
    if !args.goodput.is_empty() {
        let kind = Kind::from_name(&header.endpoint).unwrap_or(Kind::Chat);
        let applies = Applies::to(kind, header.streaming, header.use_server_token_count);
        header.input_config["slos"] = slos::resolve(&args.goodput, &applies)?.into();
    }
    if args.show_trace_timing || args.export_http_trace {
        let artifacts = &mut header.input_config["artifacts"];
        if !artifacts.is_object() {
            *artifacts = serde_json::json!({});
        }
        let given = [("show_trace_timing", args.show_trace_timing), ("trace", args.export_http_trace)];
        for (key, _) in given.into_iter().filter(|(_, given)| *given) {
            artifacts[key] = true.into();
        }
    }
    Ok(options)
}

/// What goes to standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Show {
    /// The verdict, the tables and the list of files.
    Tables,
    /// One line.
    Line,
    /// One JSON object.
    Json,
    /// Nothing: what went wrong is said elsewhere.
    Nothing,
}

impl Show {
    pub(super) fn of(quiet: bool, json: bool, elsewhere: bool) -> Self {
        match (json, elsewhere, quiet) {
            (true, ..) => Self::Json,
            (_, true, _) => Self::Nothing,
            (_, _, true) => Self::Line,
            _ => Self::Tables,
        }
    }
}

/// Writes every file of a log and then what `last` writes, and prints what [`View::show`] says; returns the exit code.
pub(super) fn publish(
    log: &Log,
    dir: &Path,
    options: &ExportOptions,
    view: &View<'_>,
    last: impl FnOnce() -> Option<Result<Written, String>>,
) -> Result<u8, Failure> {
    let tokenizer = tokenizer(log);
    let count = tokenizer.as_ref().map(|t| |text: &str| t.count(text) as u32);
    let how = Options {
        count_tokens: count.as_ref().map(|c| c as &maser_engine::report::CountTokens<'_>),
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        window: view.window,
        percentiles: view.percentiles.to_vec(),
        ..Options::default()
    };
    let report = Report::build(log, &how);
    if report.is_empty() && view.window.is_some() {
        // The files that stand are worth more than empty ones.
        return Err(Failure::Failed("--from, --to: no request was started in that part of the run".into()));
    }
    let mut results = export::write_all(&report, log, dir, options, &how);
    results.extend(last());
    print(&report, &results, view);
    if report.is_empty() {
        return Err(Failure::Failed("no request was finished: there are no results".into()));
    }
    if report.all_failed() {
        let why = match headline::failures(&report) {
            Some(why) if report.failures() == report.failed => format!("failed: {why}"),
            Some(why) => format!("no request succeeded; failed: {why}"),
            None => "no request succeeded; those in flight were cut".to_owned(),
        };
        return Err(Failure::Failed(format!("{why}; results were still written to {}", dir.display())));
    }
    let failed: Vec<&String> = results.iter().filter_map(|r| r.as_ref().err()).collect();
    match (failed.as_slice(), &report.run.damage) {
        ([], Some(damage)) if damage.lost_requests != Some(0) => {
            Err(Failure::Failed(format!("{}; the files have the others", damage.sentence())))
        }
        ([], damage) => {
            if let Some(damage) = damage {
                say(std::io::stderr(), format_args!("note: {}", damage.sentence()));
            }
            Ok(Exit::Done.code())
        }
        ([one], _) => Err(Failure::Failed(one.trim_end_matches('.').to_owned())),
        ([first, ..], _) => Err(Failure::Failed(format!(
            "{} of {} files could not be written, the first: {}",
            failed.len(),
            results.len(),
            first.trim_end_matches('.')
        ))),
    }
}

/// Says what came of the run: on standard output as asked for, and on standard error what nobody shall miss.
fn print(report: &Report, results: &[Result<Written, String>], view: &View<'_>) {
    let (stdout, stderr) = (std::io::stdout(), std::io::stderr());
    match view.show {
        Show::Tables => {
            let text = console::render(report, width(), console::colour_wanted(stdout.is_terminal()));
            say(&stdout, format_args!("{text}\n{}", console::closing(report, results).trim_end()));
        }
        Show::Line => say(&stdout, format_args!("{}", headline::line(report))),
        Show::Json => say(&stdout, format_args!("{}", summary::summary(report, results, view.signal))),
        Show::Nothing => {}
    }
    if view.show == Show::Tables && stdout.is_terminal() {
        return;
    }
    if let Some(stopped) = headline::stopped(report, view.signal) {
        say(&stderr, format_args!("maser: stopped {stopped}"));
    }
    if !report.all_failed()
        && let Some(failed) = headline::failures(report)
    {
        say(&stderr, format_args!("maser: failed: {}", failed));
    }
}

/// The tokenizer that counts the captured texts, unless the server's counts are taken: because that was asked for, or
/// because the tokenizer's file has gone since the run.
fn tokenizer(log: &Log) -> Option<Tokenizer> {
    let name = log.header.tokenizer.as_ref().filter(|_| !log.header.use_server_token_count)?;
    match Tokenizer::from_name(name) {
        Ok(tokenizer) => Some(tokenizer),
        Err(e) => {
            say(std::io::stderr(), format_args!("note: {e}; the server's token counts are taken instead"));
            None
        }
    }
}

/// What the environment's COLUMNS says, else the terminal.
fn width() -> usize {
    let said = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok()).filter(|n: &usize| *n > 0);
    let terminal = || {
        let size = std::io::stdout().is_terminal().then(terminal_size::terminal_size).flatten();
        size.map(|(columns, _)| usize::from(columns.0))
    };
    said.or_else(terminal).map_or(WIDTH, |columns| columns.min(WIDTH))
}
