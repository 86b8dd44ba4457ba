//! The command line of maser.

mod args;
mod options;
mod refusal;
mod values;

fn main() {
    let argv: Vec<_> = std::env::args_os().collect();
    println!("{:#?}", args::parse(&argv));
}
