//! Files of tokenizers, and chat templates.
#![no_main]

use libfuzzer_sys::fuzz_target;
use maser_datasets::{Error, Tokenizer};

fuzz_target!(|bytes: &[u8]| {
    let file = maser_fuzz::file(bytes, ".json");
    match Tokenizer::open(file.path()) {
        Ok(tokenizer) => {
            let ids = tokenizer.encode("Why, é? 12 34\n\n x");
            assert_eq!(tokenizer.count("Why, é? 12 34\n\n x"), ids.len());
            tokenizer.decode(&ids);
            let _ = tokenizer.with_chat_template();
        }
        Err(Error(said)) => assert!(said.len() > 10, "{said:?}"),
    }
});
