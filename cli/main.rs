//! The command line of maser.

mod args;
// What is resolved here is read by the commands.
#[allow(dead_code)]
mod config;
mod options;
#[allow(dead_code)]
mod redact;
mod refusal;
#[allow(dead_code)]
mod values;

use args::{Command, Stop};
use refusal::Refusal;
use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

/// A wrong command line.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let argv: Vec<OsString> = std::env::args_os().collect();
    let command = match args::parse(&argv) {
        Ok(command) => command,
        Err(Stop::Text(text)) => {
            // Nothing is left to do if the reader of the help has gone.
            let _ = text.print();
            return ExitCode::from(u8::from(text.use_stderr()) * USAGE);
        }
        Err(Stop::Refused(refusal)) => return refuse(&refusal),
    };
    match show(command, &argv) {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => refuse(&refusal),
    }
}

/// Writes a line. That a reader has gone is no reason to fail.
fn say(mut to: impl Write, line: std::fmt::Arguments<'_>) {
    let _ = writeln!(to, "{line}");
}

fn refuse(refusal: &Refusal) -> ExitCode {
    say(std::io::stderr(), format_args!("error: {refusal}"));
    ExitCode::from(USAGE)
}

fn show(command: Command, argv: &[OsString]) -> Result<(), Refusal> {
    match command {
        Command::Profile(profile) => {
            let config = config::ProfileConfig::resolve(*profile, std::io::stderr().is_terminal())?;
            for note in &config.notes {
                say(std::io::stderr(), format_args!("note: {note}"));
            }
            let line = redact::cli_command(argv);
            say(std::io::stdout(), format_args!("{line}\n{config:#?}"));
        }
        Command::Report(report) => say(std::io::stdout(), format_args!("{report:#?}")),
        Command::Serve(serve) => {
            let config = config::ServeConfig::resolve(serve)?;
            say(std::io::stdout(), format_args!("{config:#?}"));
        }
    }
    Ok(())
}
