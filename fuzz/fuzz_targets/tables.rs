//! Parquet and Arrow files. Damaged ones state lengths that no machine has: `ASAN_OPTIONS=allocator_may_return_null=1`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use maser_datasets::file::Format;

fuzz_target!(|bytes: &[u8]| {
    for ending in [".parquet", ".arrow"] {
        maser_fuzz::read(bytes, ending, Some(Format::BasetenTrace), None);
    }
});
