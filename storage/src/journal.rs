//! Reads the engine's journals without changing them, before the engine does.
//!
//! The engine (`fjall` 3, journal format 3) cuts a journal at the first entry it cannot parse. That is right for the
//! torn end that a crash leaves, and silent loss for anything else. It also leaves out a batch whose sequence number,
//! which no checksum covers, says that it went on into tables. Each of our commits carries its own number, which must
//! follow the one before and reach what the witness saw, and the least sequence number that it can have.
//!
//! Integers are little-endian. A batch is `1, items (4), sequence (8)`, its items
//! `2, type (1), compression (1), keyspace (8), key length (2), length (4), stored length (4), key, value`, and
//! `3, checksum (8), "FJL" 3`; `4, keyspace (8)` clears a keyspace. Unused space at the end is zero. The checksum is
//! the XXH3-64 of the items. [`look`] leaves it to the engine, where a wrong one is an error and not a cut;
//! [`Salvage`] checks it.

use crate::limits::{MOST_JOURNAL_BYTES, UNUSED_BYTES, VALUE_BYTES};
use crate::writer::{COMMIT_KEY, Mark};
use peerlink_core::limits::KEY_BYTES;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

const TRAILER: [u8; 4] = *b"FJL\x03";
/// The engine's number for the keyspace that holds our records.
const RECORDS: u64 = 1;

/// What the journals of a store prove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// No commit is in any journal: everything went on into tables, and at most a torn beginning is left.
    Nothing,
    /// There is no journal, or none of it can be read and yet a batch has ended in it.
    Unreadable,
    /// Whole commits without holes from the first of these to the second.
    Commits(u64, u64),
    /// This commit is not what was written, and a later one is there.
    Hole(u64),
}

/// What is behind the last whole batch: a commit that a crash or a loss of power tore, which was never promised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Torn {
    pub(crate) path: PathBuf,
    pub(crate) at: u64,
}

/// Looks through all journals in `db`, oldest first.
pub(crate) fn look(db: &Path) -> io::Result<(Found, Option<Torn>)> {
    let mut held: Option<(u64, u64)> = None;
    let mut torn = None;
    let journals = journals(db)?;
    for path in &journals {
        let mut walk = Walk { from: BufReader::new(File::open(path)?), at: 0 };
        // Where the newest commit of this journal begins, and what was held before it.
        let mut newest = None;
        let mut end = 0;
        while let Some((start, sequence, mark)) = walk.next_commit() {
            if sequence < mark.sequence {
                return Ok((Found::Hole(mark.commit), None));
            }
            newest = Some((start, held));
            end = walk.at;
            held = match held {
                Some((_, last)) if mark.commit != last + 1 => return Ok((Found::Hole(last + 1), None)),
                Some((first, _)) => Some((first, mark.commit)),
                None => Some((mark.commit, mark.commit)),
            };
        }
        if let Some((start, before)) = newest
            && !is_right(&mut walk.from, start, end)?
        {
            (held, end) = (before, start);
        }
        match rest(&mut walk.from, end)? {
            Rest::Unused => {}
            Rest::Torn(at) => torn = Some(Torn { path: path.clone(), at }),
            Rest::Commits => return Ok((Found::Hole(held.map_or(0, |(_, last)| last) + 1), None)),
        }
    }
    if let Some((first, last)) = held {
        return Ok((Found::Commits(first, last), torn));
    }
    for path in &journals {
        if has_trailer(BufReader::new(File::open(path)?))? {
            return Ok((Found::Unreadable, torn));
        }
    }
    Ok((if journals.is_empty() { Found::Unreadable } else { Found::Nothing }, torn))
}

/// Whether the batch that takes these bytes has the right checksum. Only the newest can be torn and yet have its end:
/// when power goes, what was not synced is there in any order.
fn is_right(journal: &mut BufReader<File>, start: u64, end: u64) -> io::Result<bool> {
    journal.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    journal.take(end - start).read_to_end(&mut bytes)?;
    Ok(checked_batch(&bytes, 0).is_some())
}

/// What is behind the last commit that can be reached from the front.
enum Rest {
    Unused,
    /// One commit was torn, at this byte. Only when one is synced, the next is begun: nothing whole is behind it.
    Torn(u64),
    Commits,
}

fn rest(journal: &mut BufReader<File>, end: u64) -> io::Result<Rest> {
    journal.seek(SeekFrom::Start(end))?;
    let mut bytes = Vec::new();
    journal.by_ref().take(UNUSED_BYTES).read_to_end(&mut bytes)?;
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(Rest::Unused);
    }
    journal.take(MOST_JOURNAL_BYTES).read_to_end(&mut bytes)?;
    let mut batches = Salvage::new(&bytes);
    let mut torn = None;
    loop {
        let at = batches.at;
        let batch = batches.next();
        if batches.damaged {
            torn.get_or_insert(end + at as u64);
        }
        match batch {
            Some(batch) if batch.mark.is_some() => return Ok(Rest::Commits),
            Some(_) => {}
            None => return Ok(torn.map_or(Rest::Unused, Rest::Torn)),
        }
    }
}

/// Whether a batch seems to end anywhere. A crash in the first commit of a journal leaves a beginning without an end.
fn has_trailer(journal: BufReader<File>) -> io::Result<bool> {
    let mut newest = [0; TRAILER.len()];
    for byte in journal.bytes() {
        newest.rotate_left(1);
        newest[TRAILER.len() - 1] = byte?;
        if newest == TRAILER {
            return Ok(true);
        }
    }
    Ok(false)
}
/// Paths of the journals, oldest first. A name that is not a number is left for the engine to complain about.
pub(crate) fn journals(db: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(db)? {
        let path = entry?.path();
        let number =
            path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<u64>().ok());
        if let Some(number) = number.filter(|_| path.extension().is_some_and(|extension| extension == "jnl"))
        {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

struct Walk {
    from: BufReader<File>,
    at: u64,
}

impl Walk {
    /// The next whole commit: where it begins, its sequence number, its mark. `None` at the first entry that does not parse, and at the end.
    /// Batches without a mark are the engine's own.
    fn next_commit(&mut self) -> Option<(u64, u64, Mark)> {
        loop {
            let start = self.at;
            if let (sequence, Some(mark)) = self.batch()? {
                return Some((start, sequence, mark));
            }
        }
    }

    fn batch(&mut self) -> Option<(u64, Option<Mark>)> {
        let [1] = self.take::<1>()? else { return None };
        let items = u32::from_le_bytes(self.take()?);
        let sequence = u64::from_le_bytes(self.take()?);
        let mut mark = None;
        for _ in 0..items {
            match self.take::<1>()? {
                [2] => mark = self.item()?.or(mark),
                [4] => drop(self.take::<8>()?),
                _ => return None,
            }
        }
        let [3] = self.take::<1>()? else { return None };
        self.take::<8>()?;
        (self.take::<4>()? == TRAILER).then_some((sequence, mark))
    }

    /// One item; the commit's mark, if it is that.
    fn item(&mut self) -> Option<Option<Mark>> {
        let [kind, compression] = self.take()?;
        if kind > 2 || compression != 0 {
            return None;
        }
        self.take::<8>()?;
        let key_bytes = u16::from_le_bytes(self.take()?);
        let value_bytes = u32::from_le_bytes(self.take()?);
        let stored_bytes = u32::from_le_bytes(self.take()?);
        if usize::from(key_bytes) > KEY_BYTES || value_bytes != stored_bytes || stored_bytes > VALUE_BYTES {
            return None;
        }
        let mut key = Vec::new();
        (&mut self.from).take(u64::from(key_bytes)).read_to_end(&mut key).ok()?;
        self.at += u64::from(key_bytes);
        if key == COMMIT_KEY {
            return Mark::decode(&self.take::<{ Mark::WIDTH }>()?).map(Some);
        }
        self.from.seek_relative(i64::from(stored_bytes)).ok()?;
        self.at += u64::from(stored_bytes);
        Some(None)
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.from.read_exact(&mut bytes).ok()?;
        self.at += N as u64;
        Some(bytes)
    }
}

/// One batch that is what was written.
#[derive(Debug, Default)]
pub(crate) struct Batch<'a> {
    pub(crate) mark: Option<Mark>,
    /// Writes to our records; `None` removes.
    pub(crate) writes: Vec<(&'a [u8], Option<&'a [u8]>)>,
}

/// Finds in a damaged journal all that is as it was written: from its front on, and behind damage, from where whole
/// batches follow each other to the end. What lies between two spots of damage is not taken: there, the body of a
/// message could pose as a batch.
#[derive(Debug)]
pub(crate) struct Salvage<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Whether something was passed over.
    pub(crate) damaged: bool,
}

impl<'a> Salvage<'a> {
    pub(crate) fn new(journal: &'a [u8]) -> Self {
        let used = journal.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        Self { bytes: journal.get(..used).unwrap_or_default(), at: 0, damaged: false }
    }

    pub(crate) fn next(&mut self) -> Option<Batch<'a>> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let Some((batch, next)) = checked_batch(self.bytes, self.at) else {
            self.damaged = true;
            self.at = self.behind_damage()?;
            return self.next();
        };
        self.at = next;
        Some(batch)
    }

    /// Where the batches begin that run to the end.
    fn behind_damage(&self) -> Option<usize> {
        let mut start = self.at + 1;
        while start < self.bytes.len() {
            let mut at = start;
            while let Some((_, next)) = checked_batch(self.bytes, at) {
                at = next;
            }
            if at == self.bytes.len() {
                return Some(start);
            }
            start = at + 1;
        }
        None
    }
}

/// The batch at `at`, if it is whole and its checksum is right, and where the next one begins.
fn checked_batch(bytes: &[u8], at: usize) -> Option<(Batch<'_>, usize)> {
    let mut rest = bytes.get(at..)?;
    let mut batch = Batch::default();
    if part::<1>(&mut rest)? != [1] {
        return None;
    }
    let items = u32::from_le_bytes(part(&mut rest)?);
    let sequence = u64::from_le_bytes(part(&mut rest)?);
    let first = rest;
    for _ in 0..items {
        match part::<1>(&mut rest)? {
            [2] => checked_item(&mut rest, &mut batch)?,
            [4] => drop(part::<8>(&mut rest)?),
            _ => return None,
        }
    }
    let checksum = xxhash_rust::xxh3::xxh3_64(first.get(..first.len() - rest.len())?);
    let end = part::<1>(&mut rest)? == [3] && u64::from_le_bytes(part(&mut rest)?) == checksum;
    if !end || part(&mut rest)? != TRAILER || batch.mark.is_some_and(|mark| sequence < mark.sequence) {
        return None;
    }
    Some((batch, bytes.len() - rest.len()))
}

fn checked_item<'a>(rest: &mut &'a [u8], batch: &mut Batch<'a>) -> Option<()> {
    let [kind, compression] = part(rest)?;
    let keyspace = u64::from_le_bytes(part(rest)?);
    let key_bytes = u16::from_le_bytes(part(rest)?);
    let value_bytes = u32::from_le_bytes(part(rest)?);
    let stored_bytes = u32::from_le_bytes(part(rest)?);
    if kind > 2 || compression != 0 || value_bytes != stored_bytes {
        return None;
    }
    let (key, value) = rest.split_at_checked(usize::from(key_bytes))?;
    let (value, after) = value.split_at_checked(usize::try_from(stored_bytes).ok()?)?;
    *rest = after;
    if keyspace == RECORDS {
        if key == COMMIT_KEY {
            batch.mark = Some(Mark::decode(value)?);
        } else {
            batch.writes.push((key, (kind == 0).then_some(value)));
        }
    }
    Some(())
}

fn part<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}
