//! What the fuzz targets share: bytes as a file, and that file read.

use std::io::Write;

use maser_datasets::file::{Format, Options};
use maser_datasets::{Error, Spec, Tokenizer};

/// A file of these bytes whose name ends so.
pub fn file(bytes: &[u8], ending: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(ending).tempfile().expect("a temporary file");
    file.write_all(bytes).expect("room for it");
    file
}

/// Reads a file of these bytes as `format`, or as what it looks like. Its error must be one sentence.
pub fn read(bytes: &[u8], ending: &str, format: Option<Format>, tokenizer: Option<&Tokenizer>) {
    let file = file(bytes, ending);
    let options = Options {
        path: file.path().into(),
        format,
        entries: Some(3),
        // Longer prompts than this take time and find nothing.
        synthesis_max_isl: tokenizer.and(Some(2048)),
        ..Options::default()
    };
    let built = Spec::File(Box::new(options)).build(tokenizer, &mut |conversation| {
        assert!(!conversation.turns.is_empty());
        Ok(())
    });
    if let Err(Error(said)) = built {
        assert!(said.len() > 20 && !said.contains('\n'), "{said:?}");
    }
}

/// The formats whose files are lines or one document.
pub fn text_formats() -> impl Iterator<Item = Format> {
    Format::ALL.into_iter().filter(|format| *format != Format::BasetenTrace)
}
