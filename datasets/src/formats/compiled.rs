//! Compiled datasets: one memory-mapped file with a column for each thing that is known of every turn.
//!
//! What takes long is done once: rows read and put together, prompts made, tokens counted, media encoded. The file opens in
//! the same time whatever its size, and gives conversations in any order.
//!
//! ```text
//! head   7 bytes of magic and 1 of version · length u64 and checksum u32 of the JSON after them: format, tokenizer, numbers
//! turns  at u64, delay u64 (ns, all ones for none) · end of its content in the blob u64 · max and input tokens u32
//! sessions  end of its turns u64 · end of its name in the blob u64 · checksum u32 · context u8
//! blob   contents of turns, then names of sessions
//! ```
//! All numbers are little endian. A content is a byte and a text: 0 and the text itself for a plain one, 1 and JSON for
//! everything else.
//!
//! A session's checksum (CRC-32) is over all that is said of it but the ends, which show in the rest, and is checked when the
//! session is read: one over the file would have opening read all of it.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crc32fast::Hasher;
use memmap2::Mmap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::formats::draft::{Draft, Emit, Prompt, Step};
use crate::read::jsonl::Place;
use crate::read::source;
use crate::tokens::Tokenizer;
use crate::{Context, Conversation, Error, Media, Sink, Summary, Turn};

const MAGIC: [u8; 8] = *b"MASERDS\x02";
const NONE: u64 = u64::MAX;
const NO_TOKENS: u32 = u32::MAX;
/// Bytes of a turn and of a session in the columns.
const TURN: u64 = 8 + 8 + 8 + 4 + 4;
const SESSION: u64 = 8 + 8 + 4 + 1;

/// What is known of the whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Head {
    /// Name of the format it was compiled from.
    format: String,
    pub(crate) is_trace: bool,
    /// Name of the tokenizer that counted; none where nothing was counted.
    pub(crate) tokenizer: Option<String>,
    /// Its [`Tokenizer::sum`].
    pub(crate) tokenizer_sum: u32,
    /// Its [`Tokenizer::template_sum`], where it counted requests as its chat template writes them.
    pub(crate) template_sum: Option<u32>,
    turns: u64,
    sessions: u64,
}

impl Head {
    /// Why `tokenizer` would not have come to the same counts, and what to do about it.
    pub(crate) fn counts_otherwise(&self, tokenizer: &Tokenizer) -> Option<String> {
        let (then, now) = (self.tokenizer.as_deref()?, tokenizer.name());
        // A file is the same one wherever it lies.
        let is_same = match (self.tokenizer_sum, tokenizer.sum()) {
            (0, 0) => then == now,
            (then, now) => then == now,
        };
        if !is_same && then == now {
            return Some(format!("{then} has been changed since it was compiled; give what it was"));
        }
        if !is_same {
            return Some(format!(
                "it was compiled with the tokenizer {then}, and this run counts with {now}; give --tokenizer {then}"
            ));
        }
        match (self.template_sum, tokenizer.template_sum()) {
            (Some(_), None) => Some("it was compiled with --apply-chat-template; give it here too".into()),
            (None, Some(_)) => Some("it was compiled without --apply-chat-template; leave it out here".into()),
            (then, now) if then != now => {
                Some(format!("the chat template of {} has been changed since; give what it was", tokenizer.name()))
            }
            _ => None,
        }
    }
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

/// Writes the dataset that `build` streams, counted with `tokenizer`, into the file `out`, which must not be what is read. A
/// file that stood there is replaced when all is written.
///
/// # Errors
/// A sentence: from `build`, or that `out` cannot be written.
pub(crate) fn write(
    out: &Path,
    tokenizer: Option<&Tokenizer>,
    build: impl FnOnce(Sink<'_>) -> Result<Summary, Error>,
) -> Result<Summary, Error> {
    let failed = |e: io::Error| Error(format!("{}: cannot be written: {e}", out.display()));
    let dir = out.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut writer = Writer::new(dir).map_err(failed)?;
    let summary = build(&mut |conversation| writer.put(&conversation).map_err(failed))?;
    let head = Head {
        format: summary.kind.clone().into_owned(),
        is_trace: summary.is_trace,
        tokenizer: tokenizer.map(|tokenizer| tokenizer.name().to_owned()),
        tokenizer_sum: tokenizer.map_or(0, Tokenizer::sum),
        template_sum: tokenizer.and_then(Tokenizer::template_sum),
        turns: summary.requests,
        sessions: summary.conversations,
    };
    writer.finish(&head, dir, out).map_err(failed)?;
    Ok(summary)
}

/// A turn's numbers as they lie in the columns.
struct Numbers {
    at: u64,
    delay: u64,
    most: u32,
    input: u32,
}

impl Numbers {
    fn of(turn: &Turn) -> Self {
        Self {
            at: turn.timestamp_ns.unwrap_or(NONE),
            delay: turn.delay_ns.unwrap_or(NONE),
            most: turn.max_tokens.unwrap_or(NO_TOKENS),
            input: turn.input_tokens.unwrap_or(NO_TOKENS),
        }
    }

    fn add_to(&self, sum: &mut Hasher) {
        for number in [self.at, self.delay] {
            sum.update(&number.to_le_bytes());
        }
        for number in [self.most, self.input] {
            sum.update(&number.to_le_bytes());
        }
    }
}

/// Columns grow in memory (32 bytes a turn, 21 a session), contents in a file without a name.
struct Writer {
    blob: BufWriter<File>,
    at: u64,
    turns: [Vec<u8>; 5],
    sessions: [Vec<u8>; 4],
    names: Vec<u8>,
    count: u64,
}

impl Writer {
    fn new(dir: &Path) -> io::Result<Self> {
        let blob = BufWriter::with_capacity(1 << 18, tempfile::tempfile_in(dir)?);
        Ok(Self { blob, at: 0, turns: Default::default(), sessions: Default::default(), names: Vec::new(), count: 0 })
    }

    fn put(&mut self, conversation: &Conversation) -> io::Result<()> {
        let mut sum = Hasher::new();
        for (k, turn) in conversation.turns.iter().enumerate() {
            self.put_content(conversation, k, turn, &mut sum)?;
            let numbers = Numbers::of(turn);
            numbers.add_to(&mut sum);
            let [at, delay, end, most, input] = &mut self.turns;
            at.extend(numbers.at.to_le_bytes());
            delay.extend(numbers.delay.to_le_bytes());
            end.extend(self.at.to_le_bytes());
            most.extend(numbers.most.to_le_bytes());
            input.extend(numbers.input.to_le_bytes());
            self.count += 1;
        }
        self.names.extend(conversation.session_id.as_bytes());
        let kind = match conversation.context {
            Context::DeltasWithoutResponses => 0,
            Context::DeltasWithResponses => 1,
            Context::MessageArray => 2,
        };
        sum.update(conversation.session_id.as_bytes());
        sum.update(&[kind]);
        let [turns, name, sums, context] = &mut self.sessions;
        turns.extend(self.count.to_le_bytes());
        name.extend((self.names.len() as u64).to_le_bytes());
        sums.extend(sum.finalize().to_le_bytes());
        context.push(kind);
        Ok(())
    }

    fn put_bytes(&mut self, kind: u8, content: &[u8], sum: &mut Hasher) -> io::Result<()> {
        for bytes in [&[kind], content] {
            sum.update(bytes);
            self.blob.write_all(bytes)?;
            self.at += bytes.len() as u64;
        }
        Ok(())
    }

    fn put_content(&mut self, conversation: &Conversation, k: usize, turn: &Turn, sum: &mut Hasher) -> io::Result<()> {
        let session = k == 0 && (conversation.system.is_some() || conversation.user_context.is_some());
        if let ([text], false) = (turn.texts.as_slice(), session)
            && let [content] = text.contents.as_slice()
            && is_plain(turn)
        {
            return self.put_bytes(0, content.as_bytes(), sum);
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
        self.put_bytes(1, &serde_json::to_vec(&content)?, sum)
    }

    fn finish(self, head: &Head, dir: &Path, out: &Path) -> io::Result<()> {
        let mut file = BufWriter::with_capacity(1 << 18, readable().tempfile_in(dir)?);
        let head = serde_json::to_vec(head)?;
        file.write_all(&MAGIC)?;
        file.write_all(&(head.len() as u64).to_le_bytes())?;
        file.write_all(&crc32fast::hash(&head).to_le_bytes())?;
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

/// Whether the file at `path` begins like a compiled dataset, of whatever version.
pub(crate) fn is_compiled(path: &Path) -> bool {
    let mut head = [0; MAGIC.len() - 1];
    path.is_file()
        && File::open(path).and_then(|mut file| file.read_exact(&mut head)).is_ok()
        && MAGIC.starts_with(&head)
}

/// The head of a file, and where it ends; none if it is damaged.
fn head_of(map: &[u8]) -> Option<(Head, usize)> {
    let (length, rest) = map.get(MAGIC.len()..)?.split_first_chunk()?;
    let (sum, rest) = rest.split_first_chunk()?;
    let json = rest.get(..usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    let is_whole = crc32fast::hash(json) == u32::from_le_bytes(*sum);
    let head = serde_json::from_slice(json).ok().filter(|_| is_whole)?;
    Some((head, map.len() - rest.len() + json.len()))
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
        let refused = |why: &str| Error(format!("--input-file {}: {why}; compile it again", path.display()));
        let wrong = || refused("this is no whole compiled dataset");
        if map.starts_with(&MAGIC[..MAGIC.len() - 1]) && !map.starts_with(&MAGIC) {
            return Err(refused("this was compiled by another version of maser"));
        }
        if !map.starts_with(&MAGIC) {
            return Err(wrong());
        }
        let (head, end) = head_of(&map).ok_or_else(wrong)?;
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
        let sum_at = self.sessions.checked_add(self.head.sessions * 16)?;
        let context = *self.map.get(usize::try_from(sum_at + self.head.sessions * 4 + index).ok()?)?;
        let mut conversation = Conversation {
            session_id: std::str::from_utf8(name).ok()?.to_owned(),
            context: match context {
                0 => Context::DeltasWithoutResponses,
                1 => Context::DeltasWithResponses,
                2 => Context::MessageArray,
                _ => return None,
            },
            ..Conversation::default()
        };
        let mut sum = Hasher::new();
        if last > self.head.turns {
            return None;
        }
        for turn in first..last {
            let turn = self.turn(turn, &mut conversation, &mut sum)?;
            conversation.turns.push(turn);
        }
        sum.update(name);
        sum.update(&[context]);
        let is_whole = self.short(sum_at + index * 4)? == sum.finalize();
        (is_whole && !conversation.turns.is_empty()).then_some(conversation)
    }

    fn turn(&self, index: u64, conversation: &mut Conversation, sum: &mut Hasher) -> Option<Turn> {
        let n = self.head.turns;
        let (at, delay) = (self.word(self.turns + index * 8)?, self.word(self.turns + (n + index) * 8)?);
        let tokens = |column: u64| self.short(self.turns + n * (24 + 4 * column) + index * 4);
        let (most, input) = (tokens(0)?, tokens(1)?);
        let from = index.checked_sub(1).map_or(Some(0), |before| self.end_of(before))?;
        let bytes = self.bytes(from, self.end_of(index)?)?;
        sum.update(bytes);
        Numbers { at, delay, most, input }.add_to(sum);
        let (kind, content) = bytes.split_first()?;
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
