//! The requests of a run: bodies end to end in one memory-mapped file, and columns of what is known of each.
//!
//! A run's own file has no name unless it is given one. One that is kept opens in the same time whatever its size:
//!
//! ```text
//! bodies    end to end, then zeros up to a multiple of 8
//! ends      u64 for each request: where its body ends
//! planned   u64 for each request: nanoseconds from the schedule's zero, all ones for none
//! turns     32 bytes for each request, none where every session has one
//! sessions  u32 first request, u32 number of turns
//! table     blocks of the record log, as they stand in it
//! note      whatever the keeper wants to know again
//! foot      magic, the numbers that the places of these follow from, and two checksums (CRC-32)
//! ```
//! Numbers are in the machine's own byte order: such a file stays where it was made. What lies after the bodies is checked
//! when the file is opened, the bodies when somebody asks.

use super::{Hidden, Marks};
use crate::clock::Nanos;
use crate::endpoint::Splice;
use crate::log::{self, RequestInfo};
use bytemuck::{Pod, Zeroable};
use memmap2::Mmap;
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

/// The first bytes of a kept file's foot; the last is the format's version.
const MAGIC: u64 = u64::from_ne_bytes(*b"MASERRQ\x02");

/// Rows of the request table in one block of the log.
const TABLE_BLOCK: u32 = 4096;

/// Nothing planned.
const UNPLANNED: Nanos = Nanos::MAX;

/// One turn among the others of its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// Where the history goes.
    pub splice: Splice,
    /// What of it the later turns carry.
    pub history: History,
    /// The history so far is forgotten before this turn.
    pub reset: bool,
    /// Wait after the end of the session's previous turn, nanoseconds.
    pub delay: Nanos,
    /// Planned offset from the schedule's zero, where the trace gives one.
    pub at: Option<Nanos>,
}

impl Default for Turn {
    /// A turn by itself.
    fn default() -> Self {
        Self { splice: Splice::NONE, history: History::None, reset: false, delay: 0, at: None }
    }
}

/// What a turn leaves behind for the later turns of its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum History {
    /// Nothing.
    None,
    /// Its own values.
    Own,
    /// Its own values and the server's answer.
    OwnAndReply,
}

/// A turn as it lies in a file, without its planned time.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Packed {
    splice: [u32; 4],
    delay: Nanos,
    history: u32,
    reset: u32,
}

impl Packed {
    fn of(turn: &Turn) -> Self {
        let Splice { at, end, head, chain } = turn.splice;
        let history = match turn.history {
            History::None => 0,
            History::Own => 1,
            History::OwnAndReply => 2,
        };
        Self { splice: [at, end, head, chain], delay: turn.delay, history, reset: turn.reset.into() }
    }

    fn turn(&self, at: Option<Nanos>) -> Turn {
        let [from, end, head, chain] = self.splice;
        let history = match self.history {
            0 => History::None,
            1 => History::Own,
            _ => History::OwnAndReply,
        };
        Turn { splice: Splice { at: from, end, head, chain }, history, reset: self.reset != 0, delay: self.delay, at }
    }
}

/// First request and number of turns of a session. Its requests follow one another.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Session {
    first: u32,
    turns: u32,
}

/// The end of a kept file: sizes in bytes of what has no rows, numbers of rows of the rest.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Foot {
    magic: u64,
    bodies: u64,
    requests: u64,
    turns: u64,
    sessions: u64,
    table: u64,
    note: u64,
    /// Checksum of the bodies.
    bodies_sum: u64,
    /// Checksum of all that is between the bodies and the foot, and of the foot's numbers before this one.
    sum: u64,
}

impl Foot {
    /// `sum`, where `columns` stand before this foot.
    fn sum(&self, columns: &[&[u8]]) -> u64 {
        let mut crc = crc32fast::Hasher::new();
        columns.iter().for_each(|column| crc.update(column));
        crc.update(&bytemuck::bytes_of(self)[..FOOT - size_of::<u64>()]);
        crc.finalize().into()
    }
}

const FOOT: usize = size_of::<Foot>();

/// A column, made by this run or lying in the mapped file.
#[derive(Debug)]
enum Column<T> {
    Owned(Vec<T>),
    Mapped { from: usize, to: usize },
}

impl<T: Pod> Column<T> {
    fn rows<'a>(&'a self, map: &'a [u8]) -> &'a [T] {
        match self {
            Self::Owned(rows) => rows,
            Self::Mapped { from, to } => {
                map.get(*from..*to).and_then(|bytes| bytemuck::try_cast_slice(bytes).ok()).unwrap_or(&[])
            }
        }
    }
}

/// The request bodies, end to end in one memory-mapped file, and the sessions they make up.
#[derive(Debug)]
pub struct Requests {
    map: Option<Mmap>,
    ends: Column<u64>,
    planned: Column<Nanos>,
    /// Empty where every session has one turn.
    turns: Column<Packed>,
    sessions: Column<Session>,
    table: Column<u8>,
    note: Column<u8>,
    /// Where the bodies lie, at its end.
    file: File,
    /// Checksum of the bodies.
    bodies_sum: u64,
    /// They come from a kept file.
    is_kept: bool,
    marks: Marks,
    hidden: Hidden,
}

impl Requests {
    /// Says what becomes of the [`MARKER`](super::MARKER)s in the bodies each time one is sent.
    pub fn set_marks(&mut self, marks: Marks) {
        self.marks = marks;
    }

    /// What becomes of the [`MARKER`](super::MARKER)s in the bodies.
    pub fn marks(&self) -> Marks {
        self.marks
    }

    /// Says what no file may show.
    pub fn set_hidden(&mut self, hidden: Hidden) {
        self.hidden = hidden;
    }

    /// What no file may show.
    pub fn hidden(&self) -> &Hidden {
        &self.hidden
    }

    fn map(&self) -> &[u8] {
        self.map.as_deref().unwrap_or(&[])
    }

    /// Opens a file that [`RequestsBuilder::finish_as`] made, in the same time whatever the size of the bodies, which are not
    /// looked at: [`Requests::is_whole`] does.
    ///
    /// # Errors
    /// It cannot be read, is no whole file of this version, or what is known of the bodies is damaged.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        // SAFETY: these files are written under another name, renamed when they are whole, and never changed; one that
        // somebody else cuts while it is mapped ends the process, as with any program that maps its input.
        let map = unsafe { Mmap::map(&file)? };
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "not whole, or of another version");
        let tail = map.len().checked_sub(FOOT).ok_or_else(damaged)?;
        let foot: Foot = bytemuck::pod_read_unaligned(&map[tail..]);
        if foot.magic != MAGIC {
            return Err(damaged());
        }
        Self::laid_out(file, map, &foot, tail).ok_or_else(damaged)
    }

    /// `None` where the numbers of the foot do not come to `tail` bytes.
    fn laid_out(file: File, map: Mmap, foot: &Foot, tail: usize) -> Option<Self> {
        let from = usize::try_from(foot.bodies).ok()?;
        if foot.sum(&[map.get(from..tail)?]) != foot.sum {
            return None;
        }
        let mut at = from.checked_next_multiple_of(8)?;
        let mut next = |rows: u64, bytes: usize| {
            let from = at;
            at = usize::try_from(rows).ok()?.checked_mul(bytes)?.checked_add(from)?;
            Some((from, at))
        };
        let ends = next(foot.requests, 8)?;
        let planned = next(foot.requests, 8)?;
        let turns = next(foot.turns, size_of::<Packed>())?;
        let sessions = next(foot.sessions, size_of::<Session>())?;
        let table = next(foot.table, 1)?;
        let note = next(foot.note, 1)?;
        fn mapped<T>((from, to): (usize, usize)) -> Column<T> {
            Column::Mapped { from, to }
        }
        // A column that does not lie as its rows must would read as none.
        fn lies<T: Pod>(map: &[u8], (from, to): (usize, usize)) -> bool {
            map.get(from..to).is_some_and(|bytes| bytemuck::try_cast_slice::<u8, T>(bytes).is_ok())
        }
        let all_lie = lies::<u64>(&map, ends)
            && lies::<u64>(&map, planned)
            && lies::<Packed>(&map, turns)
            && lies::<Session>(&map, sessions);
        (all_lie && at == tail && (foot.turns == 0 || foot.turns == foot.requests)).then(|| Self {
            map: Some(map),
            ends: mapped(ends),
            planned: mapped(planned),
            turns: mapped(turns),
            sessions: mapped(sessions),
            table: mapped(table),
            note: mapped(note),
            file,
            bodies_sum: foot.bodies_sum,
            is_kept: true,
            marks: Marks::None,
            hidden: Hidden::default(),
        })
    }

    /// Whether the bodies are as they were when they were kept: reads them all. Those of this run's own always are.
    pub fn is_whole(&self) -> bool {
        let bodies = || self.map().get(..self.bytes() as usize).unwrap_or_default();
        !self.is_kept || self.bodies_sum == u64::from(crc32fast::hash(bodies()))
    }

    /// Gives the bodies' file the name `path` too, in a directory of the same file system: [`Requests::open`] opens it when
    /// this process is gone. No body is copied.
    ///
    /// # Errors
    /// The bodies hold what no file may show, the file system gives no name to a file that has none, `path` is taken or on
    /// another one, or the disk is full.
    pub fn keep_as(&self, path: &Path) -> io::Result<()> {
        if self.hidden.is_in_bodies() {
            return Err(io::Error::other("the bodies hold what no file may show"));
        }
        if !self.is_kept {
            self.put_columns(b"")?;
        }
        link(&self.file, path)
    }

    /// Makes the run's own file a kept one but for its name.
    fn put_columns(&self, note: &[u8]) -> io::Result<()> {
        let (map, bodies) = (self.map(), self.bytes());
        let (turns, sessions) = (self.turns.rows(map), self.sessions.rows(map));
        let columns: [&[u8]; 7] = [
            &[0; 8][..(bodies.next_multiple_of(8) - bodies) as usize],
            bytemuck::cast_slice(self.ends.rows(map)),
            bytemuck::cast_slice(self.planned.rows(map)),
            bytemuck::cast_slice(turns),
            bytemuck::cast_slice(sessions),
            self.table(),
            note,
        ];
        let mut foot = Foot {
            magic: MAGIC,
            bodies,
            requests: self.len() as u64,
            turns: turns.len() as u64,
            sessions: sessions.len() as u64,
            table: self.table().len() as u64,
            note: note.len() as u64,
            bodies_sum: self.bodies_sum,
            sum: 0,
        };
        foot.sum = foot.sum(&columns);
        let mut file = &self.file;
        file.seek(SeekFrom::Start(bodies))?;
        columns.iter().chain([&bytemuck::bytes_of(&foot)]).try_for_each(|column| file.write_all(column))
    }

    /// Number of bodies.
    pub fn len(&self) -> usize {
        self.ends.rows(self.map()).len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all bodies.
    pub fn bytes(&self) -> u64 {
        self.ends.rows(self.map()).last().copied().unwrap_or(0)
    }

    /// The body of request `index`; empty if there is no such request.
    pub fn body(&self, index: u32) -> &[u8] {
        let (map, index) = (self.map(), index as usize);
        let ends = self.ends.rows(map);
        let from = index.checked_sub(1).map_or(Some(0), |before| ends.get(before).copied());
        let (Some(from), Some(&to)) = (from, ends.get(index)) else { return &[] };
        map.get(from as usize..to as usize).unwrap_or_default()
    }

    /// What is known of request `index` beside its body.
    pub fn turn(&self, index: u32) -> Turn {
        match self.turns.rows(self.map()).get(index as usize) {
            Some(packed) => packed.turn(self.planned(index)),
            None => Turn::default(),
        }
    }

    /// Planned offset of request `index` from the schedule's zero, where there is one.
    pub fn planned(&self, index: u32) -> Option<Nanos> {
        self.planned.rows(self.map()).get(index as usize).copied().filter(|at| *at != UNPLANNED)
    }

    /// Number of sessions.
    pub fn sessions(&self) -> usize {
        self.sessions.rows(self.map()).len()
    }

    /// First request and number of turns of session `index`; `(0, 0)` if there is no such session.
    pub fn session(&self, index: usize) -> (u32, u32) {
        self.sessions.rows(self.map()).get(index).map_or((0, 0), |session| (session.first, session.turns))
    }

    /// Changes the planned times of turns, as where a trace's zero is moved or its pace changed: `new` is given the session,
    /// the planned time of its first turn, and the turn's.
    pub fn retime(&mut self, new: impl Fn(usize, Nanos, Nanos) -> Nanos) {
        if self.is_single_turn() {
            return;
        }
        let mut planned = self.planned.rows(self.map()).to_vec();
        for (k, session) in self.sessions.rows(self.map()).iter().enumerate() {
            let from = session.first as usize;
            let Some(times) = planned.get_mut(from..from + session.turns as usize) else { continue };
            let first = times.first().copied().filter(|at| *at != UNPLANNED).unwrap_or(0);
            times.iter_mut().filter(|at| **at != UNPLANNED).for_each(|at| *at = new(k, first, *at));
        }
        self.planned = Column::Owned(planned);
    }

    /// Whether every session has one turn.
    pub fn is_single_turn(&self) -> bool {
        self.turns.rows(self.map()).is_empty()
    }

    /// The request table, in blocks as the record log has it; [`log::requests_in`] reads it.
    pub fn table(&self) -> &[u8] {
        self.table.rows(self.map())
    }

    /// What was given to [`RequestsBuilder::finish_as`].
    pub fn note(&self) -> &[u8] {
        self.note.rows(self.map())
    }
}

/// Collects request bodies.
#[derive(Debug)]
pub struct RequestsBuilder {
    file: BufWriter<File>,
    /// The file's name, if it has one for now.
    path: Option<tempfile::TempPath>,
    len: u64,
    sum: crc32fast::Hasher,
    ends: Vec<u64>,
    planned: Vec<Nanos>,
    turns: Vec<Packed>,
    sessions: Vec<Session>,
    table: Vec<u8>,
    /// Rows of the table that wait for their block to be full.
    rows: (u32, Vec<u8>),
}

impl RequestsBuilder {
    /// Bodies go to an unlinked file in `dir`: nothing is left behind however the run ends.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn new(dir: &Path) -> io::Result<Self> {
        Ok(Self::into(tempfile::tempfile_in(dir)?, None))
    }

    /// Bodies go to a file in `dir` that [`RequestsBuilder::finish_as`] gives its name. Its owner alone may read it.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn kept_in(dir: &Path) -> io::Result<Self> {
        let (file, path) = tempfile::Builder::new().prefix(".unfinished-").tempfile_in(dir)?.into_parts();
        Ok(Self::into(file, Some(path)))
    }

    fn into(file: File, path: Option<tempfile::TempPath>) -> Self {
        Self {
            file: BufWriter::with_capacity(1 << 18, file),
            path,
            len: 0,
            sum: crc32fast::Hasher::new(),
            ends: Vec::new(),
            planned: Vec::new(),
            turns: Vec::new(),
            sessions: Vec::new(),
            table: Vec::new(),
            rows: (0, Vec::new()),
        }
    }

    /// Whether nothing was collected.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of the bodies collected so far.
    pub fn bytes(&self) -> u64 {
        self.len
    }

    /// Appends a session of one turn; the index of its request is the number of requests before it.
    ///
    /// # Errors
    /// The file cannot be written (a full disk).
    pub fn push(&mut self, body: &[u8]) -> io::Result<()> {
        self.begin_session();
        self.push_turn(body, Turn::default())
    }

    /// Begins a session: the turns pushed from here on are its own.
    pub fn begin_session(&mut self) {
        self.sessions.push(Session { first: self.ends.len() as u32, turns: 0 });
    }

    /// Appends a turn to the session begun last.
    ///
    /// # Errors
    /// The file cannot be written (a full disk).
    pub fn push_turn(&mut self, body: &[u8], turn: Turn) -> io::Result<()> {
        self.file.write_all(body)?;
        self.sum.update(body);
        self.len += body.len() as u64;
        self.ends.push(self.len);
        self.planned.push(turn.at.unwrap_or(UNPLANNED));
        self.turns.push(Packed::of(&turn));
        if let Some(session) = self.sessions.last_mut() {
            session.turns += 1;
        }
        Ok(())
    }

    /// Appends a row to the request table: what the dataset knows of the request pushed last.
    pub fn describe(&mut self, info: &RequestInfo<'_>) {
        let (count, body) = &mut self.rows;
        log::put_request(body, info);
        *count += 1;
        if *count == TABLE_BLOCK {
            self.close_block();
        }
    }

    fn close_block(&mut self) {
        let (count, body) = &mut self.rows;
        if *count > 0 {
            log::put_block(&mut self.table, log::Kind::Requests, *count, body);
            *count = 0;
            body.clear();
        }
    }

    /// Puts the sessions in the order of the planned times of their first turns; those at the same time keep their order.
    /// Requests keep their numbers.
    pub fn sort_sessions(&mut self) {
        let planned = &self.planned;
        let key = |session: &Session| planned.get(session.first as usize).copied().filter(|at| *at != UNPLANNED);
        self.sessions.sort_by_key(key);
    }

    fn settle(&mut self) {
        self.close_block();
        if self.sessions.len() == self.ends.len() {
            self.turns = Vec::new();
        }
    }

    /// Maps what was collected.
    ///
    /// # Errors
    /// The file cannot be written or mapped.
    pub fn finish(mut self) -> io::Result<Requests> {
        self.settle();
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        // SAFETY: nobody but this process has the file open, which only adds to it.
        let map = if self.len > 0 { Some(unsafe { Mmap::map(&file)? }) } else { None };
        Ok(Requests {
            map,
            ends: Column::Owned(self.ends),
            planned: Column::Owned(self.planned),
            turns: Column::Owned(self.turns),
            sessions: Column::Owned(self.sessions),
            table: Column::Owned(self.table),
            note: Column::Owned(Vec::new()),
            file,
            bodies_sum: self.sum.finalize().into(),
            is_kept: false,
            marks: Marks::None,
            hidden: Hidden::default(),
        })
    }

    /// Keeps what was collected as the file `path`, which replaces one that stood there, and opens it. `note` comes back
    /// from [`Requests::note`]. The builder must be one of [`RequestsBuilder::kept_in`] the same directory.
    ///
    /// # Errors
    /// The file cannot be written, renamed or mapped.
    pub fn finish_as(mut self, path: &Path, note: &[u8]) -> io::Result<Requests> {
        let own = self.path.take().ok_or_else(|| io::Error::other("the file has no name"))?;
        self.finish()?.put_columns(note)?;
        own.persist(path).map_err(|e| e.error)?;
        Requests::open(path)
    }
}

/// Gives a file one name more; its only one, where it had none and was made so.
#[cfg(target_os = "linux")]
fn link(file: &File, path: &Path) -> io::Result<()> {
    use std::ffi::CString;
    use std::os::fd::AsRawFd;
    use std::os::unix::ffi::OsStrExt;
    let from = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let to = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: both are texts that end in a zero and live until the call returns.
    let done =
        unsafe { libc::linkat(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), libc::AT_SYMLINK_FOLLOW) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(not(target_os = "linux"))]
fn link(_: &File, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_come_back_by_index() {
        let dir = tempfile::tempdir().unwrap();
        let mut builder = RequestsBuilder::new(dir.path()).unwrap();
        for body in ["a", "", "bcd"] {
            builder.push(body.as_bytes()).unwrap();
        }
        let requests = builder.finish().unwrap();
        assert_eq!([0, 1, 2, 3].map(|n| requests.body(n)), [b"a".as_slice(), b"", b"bcd", b""]);
        assert!(requests.is_single_turn());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn sessions_are_sorted_by_their_first_turn_and_ties_stay() {
        let mut builder = RequestsBuilder::new(&std::env::temp_dir()).unwrap();
        for at in [Some(3), Some(1), None, Some(1)] {
            builder.begin_session();
            builder.push_turn(b"{}", Turn { at, ..Turn::default() }).unwrap();
        }
        builder.sort_sessions();
        let requests = builder.finish().unwrap();
        assert_eq!([0, 1, 2, 3].map(|n| requests.session(n).0), [2, 1, 3, 0]);
        assert_eq!([0, 1, 2, 4].map(|n| requests.planned(n)), [Some(3), Some(1), None, None]);
    }

    /// Two sessions, the second of two turns, and a row of the table for each request.
    fn fill(builder: &mut RequestsBuilder) -> Turn {
        let splice = Splice { at: 1, end: 2, head: 3, chain: 1 };
        let turn = Turn { splice, history: History::Own, reset: true, delay: 5, at: Some(7) };
        builder.push(b"alone").unwrap();
        builder.begin_session();
        builder.push_turn(b"[1]", Turn { delay: 0, ..turn }).unwrap();
        builder.push_turn(b"[2]", turn).unwrap();
        for k in 0..3 {
            let info = RequestInfo { conversation: "é", turn: k, ..RequestInfo::default() };
            builder.describe(&info);
        }
        turn
    }

    fn check(requests: &Requests, turn: Turn) {
        assert!(!requests.is_single_turn());
        assert_eq!((requests.len(), requests.sessions()), (3, 2));
        assert_eq!([0, 1, 2].map(|n| requests.session(n)), [(0, 1), (1, 2), (0, 0)]);
        assert_eq!((requests.body(0), requests.body(2)), (b"alone".as_slice(), b"[2]".as_slice()));
        assert_eq!([requests.turn(0), requests.turn(2)], [Turn::default(), turn]);
        let rows: Vec<_> = log::requests_in(requests.table()).map(|r| (r.conversation, r.turn)).collect();
        assert_eq!(rows, [("é", 0), ("é", 1), ("é", 2)]);
    }

    #[test]
    fn turns_stay_with_their_session_in_a_file_without_and_with_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let mut builder = RequestsBuilder::new(dir.path()).unwrap();
        let turn = fill(&mut builder);
        let requests = builder.finish().unwrap();
        check(&requests, turn);
        // It gets a name when one is wanted, and one more.
        for name in ["named", "again"].map(|name| dir.path().join(name)) {
            let from =
                if name.ends_with("named") { &requests } else { &Requests::open(&dir.path().join("named")).unwrap() };
            from.keep_as(&name).unwrap();
            let kept = Requests::open(&name).unwrap();
            check(&kept, turn);
            assert!(kept.is_whole());
            let taken = from.keep_as(&name).unwrap_err();
            assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
            check(&Requests::open(&name).unwrap(), turn);
        }
        std::fs::remove_file(dir.path().join("named")).unwrap();
        let mut secret = requests;
        secret.set_hidden(Hidden { texts: vec![b"alone".to_vec()], ..Hidden::default() });
        secret.keep_as(&dir.path().join("named")).unwrap();
        std::fs::remove_file(dir.path().join("named")).unwrap();
        secret.set_hidden(Hidden { fields: vec![(b"alone".to_vec(), Vec::new())], ..Hidden::default() });
        assert!(secret.keep_as(&dir.path().join("named")).is_err());
        // Not before: a file whose last name has gone takes no other one.
        std::fs::remove_file(dir.path().join("again")).unwrap();

        let mut builder = RequestsBuilder::kept_in(dir.path()).unwrap();
        fill(&mut builder);
        let path = dir.path().join("kept");
        let mut requests = builder.finish_as(&path, b"note").unwrap();
        check(&requests, turn);
        assert_eq!(requests.note(), b"note");
        assert!(requests.is_whole());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        requests.retime(|session, first, at| session as u64 * 100 + first + at);
        assert_eq!([0, 1, 2].map(|n| requests.planned(n)), [None, Some(114), Some(114)]);
        // What was changed is not in the file.
        check(&Requests::open(&path).unwrap(), turn);
    }

    #[test]
    fn no_damage_panics() {
        let dir = tempfile::tempdir().unwrap();
        let mut builder = RequestsBuilder::kept_in(dir.path()).unwrap();
        fill(&mut builder);
        let path = dir.path().join("kept");
        builder.finish_as(&path, b"").unwrap();
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let cut = dir.path().join(format!("cut{at}"));
            std::fs::write(&cut, &whole[..at]).unwrap();
            assert!(Requests::open(&cut).is_err());
            let mut flipped = whole.clone();
            flipped[at] ^= 0xff;
            let bad = dir.path().join(format!("bad{at}"));
            std::fs::write(&bad, &flipped).unwrap();
            if let Ok(mut requests) = Requests::open(&bad) {
                assert!(!requests.is_whole(), "byte {at}");
                (0..4).for_each(|n| drop((requests.body(n).to_vec(), requests.turn(n), requests.session(n as usize))));
                requests.retime(|_, _, at| at);
                assert!(log::requests_in(requests.table()).count() <= 3);
            }
        }
    }
}
