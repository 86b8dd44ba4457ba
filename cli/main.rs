//! The command line of maser.
fn main() {}
