//! Finding the blocks of a log, whatever has become of the file: damage costs the blocks that it is in and no other.

use super::{Damage, HEAD, Kind, MAGIC, MARK};
use crate::record::{RECORD_SIZE, Record};

/// A whole block of a kind that this version knows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    pub(super) kind: Kind,
    pub(super) count: u32,
    /// Where its body begins and ends.
    pub(super) from: usize,
    pub(super) to: usize,
}

/// What a log's bytes are made of.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) blocks: Vec<Block>,
    pub(super) damage: Vec<Damage>,
    /// Where the last block begins, if the file ends within it and nothing else is wrong with it.
    pub(super) torn: Option<Damage>,
    /// Whole blocks of kinds that this version does not know.
    pub(super) unknown: u64,
}

/// Reads a log from its first block to its end; `passed` is told how far that is done.
pub(super) fn scan(map: &[u8], mut passed: impl FnMut(usize)) -> Scan {
    let mut scan = Scan::default();
    let mut at = MAGIC.len();
    while at < map.len() {
        if let Some(head) = whole_at(map, at) {
            match head.known() {
                Some(block) => scan.blocks.push(block),
                None => scan.unknown += 1,
            }
            at = head.to;
            passed(at);
            continue;
        }
        let to = next_whole(map, at);
        let damage = Damage { offset: at as u64, bytes: (to - at) as u64, records: records_in(map, at, to) };
        if to == map.len() && is_torn(map, at) {
            scan.torn = Some(damage)
        } else {
            scan.damage.push(damage)
        }
        at = to;
    }
    scan
}

/// The block at `at`, if it is whole and of a kind that this version knows.
pub(super) fn block_at(map: &[u8], at: usize) -> Option<Block> {
    whole_at(map, at)?.known()
}

/// How many rows the blocks of a request table hold, by their heads.
pub(super) fn rows_of_table(table: &[u8]) -> u64 {
    let (mut at, mut rows) = (0, 0);
    while let Some(head) = Head::at(table, at) {
        rows += u64::from(head.count);
        at = head.to;
    }
    rows
}

/// The head of a block, and where that ends.
#[derive(Debug, Clone, Copy)]
struct Head {
    mark: u32,
    kind: u16,
    zero: u16,
    count: u32,
    crc: u32,
    from: usize,
    /// As the head says; perhaps beyond the end of the file.
    to: usize,
}

impl Head {
    fn at(map: &[u8], at: usize) -> Option<Self> {
        let head = map.get(at..at.checked_add(HEAD)?)?;
        let word = |k: usize| u32::from_le_bytes([head[k], head[k + 1], head[k + 2], head[k + 3]]);
        Some(Self {
            mark: word(0),
            kind: word(4) as u16,
            zero: (word(4) >> 16) as u16,
            count: word(8),
            crc: word(16),
            from: at + HEAD,
            to: (at + HEAD).checked_add(word(12) as usize)?,
        })
    }

    /// Whether the checksum is that of this kind, the count, and the body up to `to`.
    fn proves(&self, map: &[u8], kind: u16, to: usize) -> bool {
        let Some(body) = map.get(self.from..to) else { return false };
        let mut crc = crc32fast::Hasher::new();
        crc.update(&MARK.to_le_bytes());
        crc.update(&u32::from(kind).to_le_bytes());
        crc.update(&self.count.to_le_bytes());
        crc.update(&(body.len() as u32).to_le_bytes());
        crc.update(body);
        crc.finalize() == self.crc
    }

    fn known(&self) -> Option<Block> {
        let kind = Kind::from_u16(self.kind)?;
        Some(Block { kind, count: self.count, from: self.from, to: self.to })
    }
}

fn whole_at(map: &[u8], at: usize) -> Option<Head> {
    let head = Head::at(map, at).filter(|head| head.mark == MARK && head.zero == 0)?;
    head.proves(map, head.kind, head.to).then_some(head)
}

/// Where the next whole block begins after the damage at `at`; the end of the file if there is none.
fn next_whole(map: &[u8], at: usize) -> usize {
    // Where the damage is not in the length, that leads past whatever the body holds: it may hold what looks like a block.
    if let Some(to) = Head::at(map, at).map(|head| head.to)
        && to <= map.len()
        && (to == map.len() || whole_at(map, to).is_some())
    {
        return to;
    }
    let (from, mark) = (at + 1, MARK.to_le_bytes());
    let mut marks = memchr::memmem::find_iter(&map[from..], &mark).map(|found| from + found);
    marks.find(|&at| whole_at(map, at).is_some()).unwrap_or(map.len())
}

/// How many records the damaged bytes were, if that can be told.
fn records_in(map: &[u8], at: usize, to: usize) -> Option<u64> {
    let head = Head::at(map, at)?;
    // A checksum that fits with one field put right says what the block was.
    let kind = Kind::ALL.into_iter().find(|kind| head.proves(map, *kind as u16, to));
    let agrees = head.mark == MARK && head.zero == 0 && head.to == to;
    match kind.or_else(|| Kind::from_u16(head.kind).filter(|_| agrees)) {
        Some(Kind::Records) if kind.is_some() => Some(head.count.into()),
        Some(Kind::Records) => walk(map.get(head.from..to)?).or(Some(head.count.into())),
        Some(_) => Some(0),
        None => walk(map.get(head.from..to)?),
    }
}

/// How many records the bytes are, if they are records and nothing else.
fn walk(mut body: &[u8]) -> Option<u64> {
    let mut count = 0;
    while !body.is_empty() {
        let (head, rest) = body.split_at_checked(RECORD_SIZE)?;
        let record: Record = bytemuck::pod_read_unaligned(head);
        body = rest.get(record.payload_len as usize..)?;
        count += 1;
    }
    (count > 0).then_some(count)
}

/// Whether the file ends within the block that begins at `at`.
fn is_torn(map: &[u8], at: usize) -> bool {
    let rest = &map[at..];
    match Head::at(map, at) {
        None => MARK.to_le_bytes().starts_with(&rest[..rest.len().min(4)]),
        // One that is whole but for its length is damaged.
        Some(head) => {
            let is_whole = || Kind::ALL.into_iter().any(|kind| head.proves(map, kind as u16, map.len()));
            head.mark == MARK && head.zero == 0 && head.to > map.len() && !is_whole()
        }
    }
}
