//! Every format of rows or documents, and what tells them apart; compressed files too, by their first bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    maser_fuzz::read(bytes, ".jsonl", None, None);
    for format in maser_fuzz::text_formats() {
        maser_fuzz::read(bytes, ".jsonl", Some(format), None);
    }
});
