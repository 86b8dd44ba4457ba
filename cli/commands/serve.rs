//! `maser serve`: the built-in server, until it is interrupted.

use super::Failure;
use super::signals::Signals;
use crate::config::ServeConfig;
use crate::say;
use crate::values::{Cores, Jitter};
use maser_engine::clock::{MICRO, MILLI, Nanos};
use maser_engine::credit::StopSignal;
use maser_engine::serve::{BindError, Config, Counts, Server};
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

/// How often signals are passed on.
const TICK: Duration = Duration::from_millis(50);

/// Serves until interrupted; returns the exit code.
pub(crate) fn run(config: &ServeConfig) -> Result<u8, Failure> {
    let io = super::io(config.io)?;
    let core = core(&config.cores);
    let server = bind(config)?;
    let signals = Signals::watch().map_err(|e| Failure::Failed(format!("cannot watch signals: {e}")))?;
    let mut stdout = std::io::stdout();
    say(&stdout, format_args!("maser serve: listening on http://{} ({})", server.local_addr(), describe(config)));
    // Whoever started this waits for the line; that nobody does is no reason to fail.
    let _ = stdout.flush();
    let stop = Arc::new(StopSignal::default());
    let stopped = stop.clone();
    let serving = std::thread::Builder::new()
        .name("maser-serve".into())
        .spawn(move || server.run(io, false, core, stopped))
        .map_err(|e| Failure::Failed(format!("the server could not start: {e}")))?;
    let mut seen = 0;
    while !serving.is_finished() {
        std::thread::park_timeout(TICK);
        signals.pass_on(&stop, &mut seen);
    }
    match serving.join() {
        Ok(Ok(counts)) => {
            say(&stdout, format_args!("maser serve: {}", account(&counts)));
            Ok(0)
        }
        Ok(Err(e)) => Err(Failure::Failed(format!("the server failed: {e}"))),
        // A panic is a bug; it has been reported on stderr.
        Err(_) => std::process::exit(70),
    }
}

/// Listens as `config` says.
pub(crate) fn bind(config: &ServeConfig) -> Result<Server, Failure> {
    Server::bind(engine_config(config)).map_err(|error| {
        Failure::Failed(match (error, &config.log) {
            (BindError::Log(e), Some(log)) => format!("--log {}: {e}", log.display()),
            (error, _) => {
                let (host, port) = (&config.host, config.port);
                let why = match &error {
                    BindError::Address(e) | BindError::Log(e) => e,
                };
                format!("--port {port}: cannot listen on {host} port {port} ({why})")
            }
        })
    })
}

/// The settings as the engine takes them.
fn engine_config(config: &ServeConfig) -> Config {
    Config {
        host: config.host.clone(),
        port: config.port,
        models: config.models.clone(),
        ttft: config.ttft,
        itl: config.itl,
        osl: config.osl,
        tokens_per_chunk: config.tokens_per_chunk,
        reasoning: config.reasoning,
        tool_calls: config.tool_calls,
        spec_decode: config.spec_decode,
        echo: config.echo,
        cached: config.cached,
        usage_details: config.usage_details,
        jitter: config.jitter,
        faults: config.faults.iter().map(|f| (f.kind, f.fraction)).collect(),
        log: config.log.clone(),
        seed: config.seed,
    }
}

/// The core to be pinned to: the first of a list. Otherwise the kernel chooses, since a client on the same machine may
/// have pinned itself.
pub(super) fn core(cores: &Cores) -> Option<usize> {
    let (core, more) = match cores {
        Cores::List(list) => (list.first().copied(), list.len() > 1),
        Cores::Count(n) => (None, *n > 1),
        Cores::Auto => (None, false),
    };
    if more {
        say(std::io::stderr(), format_args!("note: --cores names several cores; the server runs on one"));
    }
    core
}

fn describe(config: &ServeConfig) -> String {
    let ms = |ns: Nanos| ns as f64 / MILLI as f64;
    let mut text = format!("model {}, ttft {} ms, itl {} ms", config.models.join(" "), ms(config.ttft), ms(config.itl));
    text.push_str(&format!(", {} tokens", config.osl));
    if config.tokens_per_chunk > 1 {
        text.push_str(&format!(", {} in an event", config.tokens_per_chunk));
    }
    if config.reasoning > 0 {
        text.push_str(&format!(", {} of reasoning", config.reasoning));
    }
    if let Some(drafted) = config.spec_decode {
        text.push_str(&format!(", {drafted} drafted a step"));
    }
    let ways =
        [(config.tool_calls, "tool calls"), (config.echo, "echo"), (config.usage_details, "usage with all details")];
    for (_, way) in ways.iter().filter(|(is_on, _)| *is_on) {
        text.push_str(&format!(", {way}"));
    }
    if config.cached > 0.0 {
        text.push_str(&format!(", {} cached", config.cached));
    }
    match config.jitter {
        Jitter::Span(0) => {}
        Jitter::Span(span) => text.push_str(&format!(", jitter {} ms", ms(span))),
        Jitter::Fraction(share) => text.push_str(&format!(", jitter {share}")),
    }
    for f in &config.faults {
        text.push_str(&format!(", {} {}", f.kind.name(), f.fraction));
    }
    text
}

fn account(counts: &Counts) -> String {
    let us = |ns: Nanos| ns as f64 / MICRO as f64;
    let late = &counts.lateness;
    format!(
        "{} requests on {} connections ({} open at a time, {} requests in flight), {} tokens in {} chunks, \
         {} faults, {} left by the client; sends late by {:.0} µs (median), {:.0} µs (p99), {:.0} µs (most)",
        counts.requests,
        counts.connections,
        counts.max_open,
        counts.max_in_flight,
        counts.tokens,
        counts.chunks,
        counts.faults,
        counts.client_closed,
        us(late.quantile(0.5)),
        us(late.quantile(0.99)),
        us(late.max()),
    )
}
