//! Compiles a dataset file into one that opens at once.

use std::path::Path;

use crate::file::Options;
use crate::formats::compiled;
use crate::{Error, Summary, Tokenizer};

/// Compiles the dataset that `options` describe into the file `out`, which must not be what is read. A file that stood there
/// is replaced when all is written.
///
/// # Errors
/// A sentence: from the dataset, or that `out` cannot be written.
pub fn compile(options: &Options, tokenizer: Option<&Tokenizer>, out: &Path) -> Result<Summary, Error> {
    compiled::write(out, tokenizer, |sink| options.build(tokenizer, sink))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::compiled::Compiled;
    use crate::{Conversation, Spec};

    const ROWS: &str = concat!(
        "{\"text\":\"plain\",\"timestamp\":1.5,\"output_length\":7}\n",
        "{\"session_id\":\"s\",\"text\":\"é\",\"extra\":{\"a\":[1.5,null]},\"role\":\"tool\"}\n",
        "{\"session_id\":\"s\",\"images\":[\"https://x/y\",\"data:image/png;base64,AA\"],\"image_uuids\":[\"1\",\"2\"],\"delay\":3}\n",
        "{\"texts\":[{\"name\":\"query\",\"contents\":[\"q\",\"r\"]}]}\n",
    );

    fn built(options: &Options) -> (Summary, Vec<Conversation>) {
        let mut all = Vec::new();
        let tokenizer = Tokenizer::builtin();
        let summary = Spec::File(Box::new(options.clone())).build(Some(&tokenizer), &mut |c| {
            all.push(c);
            Ok(())
        });
        (summary.unwrap(), all)
    }

    fn source() -> (tempfile::TempDir, Options) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.jsonl");
        std::fs::write(&path, ROWS).unwrap();
        (dir, Options { path, ..Options::default() })
    }

    #[test]
    fn a_compiled_dataset_is_the_dataset() {
        let (dir, options) = source();
        let out = dir.path().join("out");
        let summary = compile(&options, Some(&Tokenizer::builtin()), &out).unwrap();
        let (direct, all) = built(&options);
        assert_eq!(summary, direct);
        let compiled = Compiled::open(&out).unwrap();
        assert_eq!((compiled.sessions(), compiled.requests()), (3, 4));
        let read: Vec<_> = (0..3).map(|k| compiled.conversation(k).unwrap()).collect();
        assert_eq!(read, all);
        assert!(compiled.conversation(3).is_err());
        // As an input file it is told by its first bytes.
        let (again, conversations) = built(&Options { path: out, ..Options::default() });
        assert_eq!((&*again.kind, conversations), ("compiled", all));
    }

    #[test]
    fn damage_anywhere_is_refused() {
        let (dir, options) = source();
        let out = dir.path().join("out");
        compile(&options, None, &out).unwrap();
        let whole = std::fs::read(&out).unwrap();
        let all = |path: &Path| {
            let compiled = Compiled::open(path).ok()?;
            (0..compiled.sessions().min(10)).map(|k| compiled.conversation(k).ok()).collect::<Option<Vec<_>>>()
        };
        assert_eq!(all(&out).map(|sessions| sessions.len()), Some(3));
        for at in 0..whole.len() {
            // A new file each time: a mapped one must not change.
            let cut = dir.path().join(format!("cut{at}"));
            std::fs::write(&cut, &whole[..at]).unwrap();
            assert!(Compiled::open(&cut).is_err());
            for bits in [1, 0xff] {
                let mut flipped = whole.clone();
                flipped[at] ^= bits;
                let bad = dir.path().join(format!("bad{at}-{bits}"));
                std::fs::write(&bad, &flipped).unwrap();
                assert_eq!(all(&bad), None, "byte {at}");
            }
        }
    }
}
