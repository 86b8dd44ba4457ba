//! Parquet and Arrow files.
#![no_main]

use libfuzzer_sys::fuzz_target;
use maser_datasets::file::Format;

fuzz_target!(|bytes: &[u8]| {
    for ending in [".parquet", ".arrow"] {
        maser_fuzz::read(bytes, ending, Some(Format::BasetenTrace), None);
    }
});
