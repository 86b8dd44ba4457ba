//! Opens a compiled dataset and reads it: how long either takes.
//!
//! `cargo run --release -p maser-datasets --example open -- FILE`
#![expect(clippy::disallowed_methods, reason = "this crate's own code takes no time")]

use maser_datasets::Error;
use maser_datasets::compiled::Compiled;
use std::path::PathBuf;
use std::time::Instant;

fn main() -> Result<(), Error> {
    let path: PathBuf =
        std::env::args_os().nth(1).ok_or_else(|| Error("give the path of a compiled dataset".into()))?.into();
    let start = Instant::now();
    let compiled = Compiled::open(&path)?;
    let opened = start.elapsed();
    let last = compiled.conversation(compiled.sessions().saturating_sub(1))?;
    let looked_up = start.elapsed();
    for index in 0..compiled.sessions() {
        compiled.conversation(index)?;
    }
    let ms = |time: std::time::Duration| time.as_secs_f64() * 1e3;
    println!(
        "{} requests in {} sessions: opened after {:.3} ms, the last session, {}, after {:.3} ms, all of them after {:.1} ms",
        compiled.requests(),
        compiled.sessions(),
        ms(opened),
        last.session_id,
        ms(looked_up),
        ms(start.elapsed())
    );
    Ok(())
}
