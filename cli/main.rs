//! The command line of maser.

mod args;
mod commands;
mod config;
mod exit;
mod hints;
mod options;
mod redact;
mod refusal;
mod ui;
mod values;

use args::{Command, Stop};
use commands::Failure;
use exit::Exit;
use refusal::Refusal;
use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let argv: Vec<OsString> = std::env::args_os().collect();
    // Before anything is said of them.
    redact::learn(redact::secrets_of(&argv));
    let command = match args::parse(&argv) {
        Ok(command) => command,
        Err(Stop::Text(text)) => {
            // Nothing is left to do if the reader of the help has gone.
            let _ = text.print();
            return ExitCode::from(if text.use_stderr() { Exit::Refused } else { Exit::Done }.code());
        }
        Err(Stop::Refused(refusal)) => return refuse(&refusal),
    };
    match obey(command, &argv) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            say(std::io::stderr(), format_args!("error: {failure}"));
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Writes a line, without the secrets that are known. That a reader has gone is no reason to fail.
fn say(mut to: impl Write, line: std::fmt::Arguments<'_>) {
    let _ = writeln!(to, "{}", redact::hidden(&line.to_string()));
}

fn refuse(refusal: &Refusal) -> ExitCode {
    say(std::io::stderr(), format_args!("error: {refusal}"));
    ExitCode::from(Exit::Refused.code())
}

fn obey(command: Command, argv: &[OsString]) -> Result<u8, Failure> {
    match command {
        Command::Profile(mut args) => {
            redact::learn(config::read_keys(&mut args.endpoint)?);
            // A variable that is no text is none of the reference's.
            let text =
                |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
            let environment = config::environment(std::env::vars_os().filter_map(text))?;
            let config = commands::profile::configure(*args, &environment, std::io::stderr().is_terminal())?;
            redact::learn(config.secrets());
            commands::profile::run(config, argv)
        }
        Command::Dataset(args) => commands::dataset::run(&args),
        Command::AnalyzeTrace(args) => commands::dataset::analyze(&args),
        Command::Report(args) => commands::report::run(&args),
        Command::Metrics => Ok(commands::metrics::run()),
        Command::Serve(args) => {
            let config = config::ServeConfig::resolve(*args)?;
            commands::serve::run(&config)
        }
    }
}
