//! Compiled datasets: one memory-mapped file with a column for each thing that is known of every turn.
//!
//! What takes long is done once: rows read and put together, prompts made, tokens counted, media encoded. The file opens in
//! the same time whatever its size, and gives conversations in any order.
//!
//! ```text
//! head   8 bytes of magic and version, 8 bytes length of the JSON after them: format, tokenizer, numbers, summary
//! turns  at u64, delay u64 (ns, all ones for none) · end of its content in the blob u64 · max and input tokens u32
//! sessions  end of its turns u64 · end of its name in the blob u64 · context u8
//! blob   contents of turns, then names of sessions
//! ```
//! All numbers are little endian. A content is a byte and a text: 0 and the text itself for a plain one, 1 and JSON for
//! everything else.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::file::Options;
use crate::intake::{Draft, Emit, Prompt, Step};
use crate::jsonl::Place;
use crate::tokens::Tokenizer;
use crate::{Context, Conversation, Error, Media, Summary, Turn, source};

const MAGIC: [u8; 8] = *b"MASERDS\x01";
const NONE: u64 = u64::MAX;
const NO_TOKENS: u32 = u32::MAX;
/// Bytes of a turn and of a session in the columns.
const TURN: u64 = 8 + 8 + 8 + 4 + 4;
const SESSION: u64 = 8 + 8 + 1;

/// What is known of the whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Head {
    /// Name of the format it was compiled from.
    format: String,
    pub(crate) is_trace: bool,
    /// Name of the tokenizer that counted; none where nothing was counted.
    pub(crate) tokenizer: Option<String>,
    /// Whether it counted requests as its chat template writes them.
    #[serde(default)]
    pub(crate) chat_template: bool,
    turns: u64,
    sessions: u64,
}

/// What of a turn is not in the columns.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Content {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    texts: Vec<Medium>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    images: Vec<Medium>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    audios: Vec<Medium>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    videos: Vec<Medium>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<Value>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    reset_context: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    tools: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    system_blocks: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Value>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    extra: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    audio_seconds: Option<f64>,
    /// The session's own, with its first turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_context: Option<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Medium {
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    contents: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    uuids: Vec<String>,
}

fn mediums(media: &[Media]) -> Vec<Medium> {
    let medium = |m: &Media| Medium { name: m.name.clone(), contents: m.contents.clone(), uuids: m.uuids.clone() };
    media.iter().map(medium).collect()
}

fn media(mediums: Vec<Medium>) -> Vec<Media> {
    mediums.into_iter().map(|m| Media { name: m.name, contents: m.contents, uuids: m.uuids }).collect()
}

/// Compiles a dataset into the file `out`, which must not be what is read. A file that stood there is replaced when all is
/// written.
///
/// # Errors
/// A sentence: from the dataset, or that `out` cannot be written.
pub fn compile(options: &Options, tokenizer: Option<&Tokenizer>, out: &Path) -> Result<Summary, Error> {
    let failed = |e: io::Error| Error(format!("{}: cannot be written: {e}", out.display()));
    let dir = out.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut writer = Writer::new(dir).map_err(failed)?;
    let summary = options.build(tokenizer, &mut |conversation| writer.put(&conversation).map_err(failed))?;
    let head = Head {
        format: summary.kind.clone().into_owned(),
        is_trace: summary.is_trace,
        tokenizer: tokenizer.map(|tokenizer| tokenizer.name().to_owned()),
        chat_template: tokenizer.is_some_and(Tokenizer::has_chat_template),
        turns: summary.requests,
        sessions: summary.conversations,
    };
    writer.finish(&head, dir, out).map_err(failed)?;
    Ok(summary)
}

/// Columns grow in memory (33 bytes a turn, 17 a session), contents in a file without a name.
struct Writer {
    blob: BufWriter<File>,
    at: u64,
    turns: [Vec<u8>; 5],
    sessions: [Vec<u8>; 3],
    names: Vec<u8>,
    count: u64,
}

impl Writer {
    fn new(dir: &Path) -> io::Result<Self> {
        let blob = BufWriter::with_capacity(1 << 18, tempfile::tempfile_in(dir)?);
        Ok(Self { blob, at: 0, turns: Default::default(), sessions: Default::default(), names: Vec::new(), count: 0 })
    }

    fn put(&mut self, conversation: &Conversation) -> io::Result<()> {
        for (k, turn) in conversation.turns.iter().enumerate() {
            self.put_content(conversation, k, turn)?;
            let [at, delay, end, most, input] = &mut self.turns;
            at.extend(turn.timestamp_ns.unwrap_or(NONE).to_le_bytes());
            delay.extend(turn.delay_ns.unwrap_or(NONE).to_le_bytes());
            end.extend(self.at.to_le_bytes());
            most.extend(turn.max_tokens.unwrap_or(NO_TOKENS).to_le_bytes());
            input.extend(turn.input_tokens.unwrap_or(NO_TOKENS).to_le_bytes());
            self.count += 1;
        }
        self.names.extend(conversation.session_id.as_bytes());
        let [turns, name, context] = &mut self.sessions;
        turns.extend(self.count.to_le_bytes());
        name.extend((self.names.len() as u64).to_le_bytes());
        context.push(match conversation.context {
            Context::DeltasWithoutResponses => 0,
            Context::DeltasWithResponses => 1,
            Context::MessageArray => 2,
        });
        Ok(())
    }

    fn put_content(&mut self, conversation: &Conversation, k: usize, turn: &Turn) -> io::Result<()> {
        let session = k == 0 && (conversation.system.is_some() || conversation.user_context.is_some());
        if let ([text], false) = (turn.texts.as_slice(), session)
            && let [content] = text.contents.as_slice()
            && is_plain(turn)
        {
            self.blob.write_all(&[0])?;
            self.blob.write_all(content.as_bytes())?;
            self.at += 1 + content.len() as u64;
            return Ok(());
        }
        let content = Content {
            texts: mediums(&turn.texts),
            images: mediums(&turn.images),
            audios: mediums(&turn.audios),
            videos: mediums(&turn.videos),
            role: turn.role.clone(),
            model: turn.model.clone(),
            messages: turn.messages.clone(),
            reset_context: turn.reset_context,
            tools: turn.tools.clone(),
            system_blocks: turn.system_blocks.clone(),
            payload: turn.payload.clone(),
            extra: turn.extra.clone(),
            audio_seconds: turn.audio_seconds,
            system: conversation.system.clone().filter(|_| k == 0),
            user_context: conversation.user_context.clone().filter(|_| k == 0),
        };
        let json = serde_json::to_vec(&content)?;
        self.blob.write_all(&[1])?;
        self.blob.write_all(&json)?;
        self.at += 1 + json.len() as u64;
        Ok(())
    }

    fn finish(self, head: &Head, dir: &Path, out: &Path) -> io::Result<()> {
        let mut file = BufWriter::with_capacity(1 << 18, readable().tempfile_in(dir)?);
        let head = serde_json::to_vec(head)?;
        file.write_all(&MAGIC)?;
        file.write_all(&(head.len() as u64).to_le_bytes())?;
        file.write_all(&head)?;
        for column in self.turns.iter().chain(&self.sessions) {
            file.write_all(column)?;
        }
        let mut blob = self.blob.into_inner().map_err(io::IntoInnerError::into_error)?;
        blob.seek(SeekFrom::Start(0))?;
        io::copy(&mut blob, &mut file)?;
        file.write_all(&self.names)?;
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.persist(out).map_err(|e| e.error)?;
        Ok(())
    }
}

/// Files that others may read as the umask says; temporary ones are their owner's alone otherwise.
fn readable() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder
}

/// Whether a turn is an unnamed text and what the columns hold.
fn is_plain(turn: &Turn) -> bool {
    let columns = Turn {
        texts: turn.texts.clone(),
        max_tokens: turn.max_tokens,
        timestamp_ns: turn.timestamp_ns,
        delay_ns: turn.delay_ns,
        input_tokens: turn.input_tokens,
        ..Turn::default()
    };
    turn.texts.iter().all(|text| text.name.is_empty() && text.uuids.is_empty()) && *turn == columns
}

/// A compiled dataset, opened.
#[derive(Debug)]
pub struct Compiled {
    map: Mmap,
    path: PathBuf,
    pub(crate) head: Head,
    /// Where the columns begin.
    turns: u64,
    sessions: u64,
    blob: u64,
    /// Where names begin in the blob.
    names: u64,
}

/// Whether the file at `path` begins like a compiled dataset.
pub(crate) fn is_compiled(path: &Path) -> bool {
    let mut head = [0; MAGIC.len()];
    path.is_file() && File::open(path).and_then(|mut file| file.read_exact(&mut head)).is_ok() && head == MAGIC
}

impl Compiled {
    /// Opens a file; its size does not matter.
    ///
    /// # Errors
    /// A sentence: it cannot be read, or it is no whole compiled dataset.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(|e| source::failed(path, &e))?;
        // SAFETY: compiled files are written under another name and renamed when they are whole, and never changed; one
        // that somebody else cuts while it is mapped ends the process, as with any program that maps its input.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| source::failed(path, &e))?;
        let wrong =
            || Error(format!("--input-file {}: this is no whole compiled dataset; compile it again", path.display()));
        let word = |at: usize| Some(u64::from_le_bytes(map.get(at..at + 8)?.try_into().ok()?));
        if !map.starts_with(&MAGIC) {
            return Err(wrong());
        }
        let length = word(8).and_then(|n| usize::try_from(n).ok()).ok_or_else(wrong)?;
        let end = length.checked_add(16).ok_or_else(wrong)?;
        let head: Head = map.get(16..end).and_then(|json| serde_json::from_slice(json).ok()).ok_or_else(wrong)?;
        let turns = end as u64;
        let after = |at: u64, count: u64, bytes: u64| count.checked_mul(bytes).and_then(|n| at.checked_add(n));
        let sessions = after(turns, head.turns, TURN).ok_or_else(wrong)?;
        let blob = after(sessions, head.sessions, SESSION).ok_or_else(wrong)?;
        let mut compiled = Self { map, path: path.to_owned(), head, turns, sessions, blob, names: 0 };
        if blob > compiled.map.len() as u64 {
            return Err(wrong());
        }
        compiled.names =
            if compiled.head.turns == 0 { 0 } else { compiled.end_of(compiled.head.turns - 1).ok_or_else(wrong)? };
        let named = compiled.head.sessions.checked_sub(1).map_or(Some(0), |last| compiled.name_end(last));
        let whole = named.and_then(|named| blob.checked_add(compiled.names)?.checked_add(named));
        if whole != Some(compiled.map.len() as u64) {
            return Err(wrong());
        }
        Ok(compiled)
    }

    /// Number of conversations.
    pub fn sessions(&self) -> u64 {
        self.head.sessions
    }

    /// Number of turns of all of them.
    pub fn requests(&self) -> u64 {
        self.head.turns
    }

    /// Conversation `index`.
    ///
    /// # Errors
    /// A sentence: there is none, or its bytes are damaged.
    pub fn conversation(&self, index: u64) -> Result<Conversation, Error> {
        self.read(index).ok_or_else(|| {
            Error(format!(
                "--input-file {}: session {index} is missing or damaged; compile it again",
                self.path.display()
            ))
        })
    }

    fn read(&self, index: u64) -> Option<Conversation> {
        if index >= self.head.sessions {
            return None;
        }
        let before = |end: fn(&Self, u64) -> Option<u64>| index.checked_sub(1).map_or(Some(0), |at| end(self, at));
        let (first, last) = (before(Self::turns_end)?, self.turns_end(index)?);
        let name = self
            .bytes(self.names.checked_add(before(Self::name_end)?)?, self.names.checked_add(self.name_end(index)?)?)?;
        let context = self.sessions.checked_add(self.head.sessions * 16)?.checked_add(index)?;
        let mut conversation = Conversation {
            session_id: std::str::from_utf8(name).ok()?.to_owned(),
            context: match self.map.get(usize::try_from(context).ok()?)? {
                0 => Context::DeltasWithoutResponses,
                1 => Context::DeltasWithResponses,
                2 => Context::MessageArray,
                _ => return None,
            },
            ..Conversation::default()
        };
        for turn in first..last.min(self.head.turns) {
            let turn = self.turn(turn, &mut conversation)?;
            conversation.turns.push(turn);
        }
        (!conversation.turns.is_empty()).then_some(conversation)
    }

    fn turn(&self, index: u64, conversation: &mut Conversation) -> Option<Turn> {
        let n = self.head.turns;
        let (at, delay) = (self.word(self.turns + index * 8)?, self.word(self.turns + (n + index) * 8)?);
        let tokens = |column: u64| self.short(self.turns + n * (24 + 4 * column) + index * 4);
        let (most, input) = (tokens(0)?, tokens(1)?);
        let from = index.checked_sub(1).map_or(Some(0), |before| self.end_of(before))?;
        let (kind, content) = self.bytes(from, self.end_of(index)?)?.split_first()?;
        let turn = match kind {
            0 => Turn::of_text(std::str::from_utf8(content).ok()?.to_owned()),
            1 => {
                let content: Content = serde_json::from_slice(content).ok()?;
                conversation.system = content.system.or(conversation.system.take());
                conversation.user_context = content.user_context.or(conversation.user_context.take());
                Turn {
                    texts: media(content.texts),
                    images: media(content.images),
                    audios: media(content.audios),
                    videos: media(content.videos),
                    role: content.role,
                    model: content.model,
                    messages: content.messages,
                    reset_context: content.reset_context,
                    tools: content.tools,
                    system_blocks: content.system_blocks,
                    payload: content.payload,
                    extra: content.extra,
                    audio_seconds: content.audio_seconds,
                    ..Turn::default()
                }
            }
            _ => return None,
        };
        Some(Turn {
            timestamp_ns: Some(at).filter(|at| *at != NONE),
            delay_ns: Some(delay).filter(|delay| *delay != NONE),
            max_tokens: Some(most).filter(|n| *n != NO_TOKENS),
            input_tokens: Some(input).filter(|n| *n != NO_TOKENS),
            ..turn
        })
    }

    /// Whether the first turn has a timestamp.
    pub(crate) fn is_timed(&self) -> bool {
        self.head.turns > 0 && self.word(self.turns).is_some_and(|at| at != NONE)
    }

    fn end_of(&self, turn: u64) -> Option<u64> {
        self.word(self.turns + (2 * self.head.turns + turn) * 8)
    }

    fn turns_end(&self, session: u64) -> Option<u64> {
        self.word(self.sessions + session * 8)
    }

    fn name_end(&self, session: u64) -> Option<u64> {
        self.word(self.sessions + (self.head.sessions + session) * 8)
    }

    fn word(&self, at: u64) -> Option<u64> {
        let at = usize::try_from(at).ok()?;
        Some(u64::from_le_bytes(self.map.get(at..at.checked_add(8)?)?.try_into().ok()?))
    }

    fn short(&self, at: u64) -> Option<u32> {
        let at = usize::try_from(at).ok()?;
        Some(u32::from_le_bytes(self.map.get(at..at.checked_add(4)?)?.try_into().ok()?))
    }

    /// A stretch of the blob.
    fn bytes(&self, from: u64, to: u64) -> Option<&[u8]> {
        let at = |offset: u64| usize::try_from(self.blob.checked_add(offset)?).ok();
        self.map.get(at(from)?..at(to)?)
    }
}

/// Hands over all conversations of the file at `path`.
pub(crate) fn read(path: &Path, emit: Emit<'_>) -> Result<(), Error> {
    let compiled = Compiled::open(path)?;
    for index in 0..compiled.sessions() {
        let conversation = compiled.conversation(index)?;
        let place = Place::Entry(usize::try_from(index).unwrap_or(usize::MAX - 1) + 1);
        emit(Draft {
            path: path.into(),
            session_id: Some(conversation.session_id),
            context: conversation.context,
            system: conversation.system,
            steps: conversation
                .turns
                .into_iter()
                .map(|turn| Step {
                    place,
                    prompt: if turn.input_tokens.is_some() { Prompt::Counted } else { Prompt::Given },
                    turn,
                })
                .collect(),
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Spec;

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
    fn no_damage_panics() {
        let (dir, options) = source();
        let out = dir.path().join("out");
        compile(&options, None, &out).unwrap();
        let whole = std::fs::read(&out).unwrap();
        let all = |path: &Path| {
            if let Ok(compiled) = Compiled::open(path) {
                for k in 0..compiled.sessions().min(10) {
                    let _ = compiled.conversation(k);
                }
            }
        };
        for at in 0..whole.len() {
            // A new file each time: a mapped one must not change.
            let cut = dir.path().join(format!("cut{at}"));
            std::fs::write(&cut, &whole[..at]).unwrap();
            assert!(Compiled::open(&cut).is_err());
            let mut flipped = whole.clone();
            flipped[at] ^= 0xff;
            let bad = dir.path().join(format!("bad{at}"));
            std::fs::write(&bad, &flipped).unwrap();
            all(&bad);
        }
    }
}
