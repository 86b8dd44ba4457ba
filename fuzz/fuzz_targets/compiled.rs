//! Compiled datasets: bytes behind the mark of one, and damaged ones.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| maser_fuzz::read(bytes, ".maserds", None, None));
