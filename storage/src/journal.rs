//! Reads the engine's journals without changing them, before the engine does.
//!
//! The engine (`fjall` 3, journal format 3) cuts a journal at the first entry it cannot parse. That is right for the
//! torn end that a crash leaves, and silent loss for anything else. It also leaves out a batch whose sequence number,
//! which no checksum covers, says that it went on into tables. Each of our commits carries its own number, which must
//! follow the one before and reach what the witness saw, and the least sequence number that it can have.
//!
//! Integers are little-endian. A batch is `1, items (4), sequence (8)`, its items
//! `2, type (1), compression (1), keyspace (8), key length (2), length (4), stored length (4), key, value`, and
//! `3, checksum (8), "FJL" 3`; `4, keyspace (8)` clears a keyspace. Unused space at the end is zero. Checksums are the
//! engine's to check: a wrong one is an error there, not a cut.

use crate::limits::VALUE_BYTES;
use crate::writer::{COMMIT_KEY, Mark};
use peerlink_core::limits::KEY_BYTES;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

const TRAILER: [u8; 4] = *b"FJL\x03";

/// What the journals of a store prove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// No commit is in any journal: everything went on into tables, and at most a torn beginning is left.
    Nothing,
    /// There is no journal, or none of it can be read and yet a batch has ended in it.
    Unreadable,
    /// Whole commits without holes up to this one.
    UpTo(u64),
    /// This commit is not what was written, and a later one is there.
    Hole(u64),
}

/// Looks through all journals in `db`, oldest first.
pub(crate) fn look(db: &Path) -> io::Result<Found> {
    let mut last = None;
    let journals = journals(db)?;
    for path in &journals {
        let mut walk = Walk { from: BufReader::new(File::open(path)?) };
        while let Some((sequence, mark)) = walk.next_commit() {
            if sequence < mark.sequence {
                return Ok(Found::Hole(mark.commit));
            }
            match last {
                Some(before) if mark.commit != before + 1 => return Ok(Found::Hole(before + 1)),
                _ => last = Some(mark.commit),
            }
        }
    }
    if let Some(last) = last {
        return Ok(Found::UpTo(last));
    }
    for path in &journals {
        if has_trailer(BufReader::new(File::open(path)?))? {
            return Ok(Found::Unreadable);
        }
    }
    Ok(if journals.is_empty() { Found::Unreadable } else { Found::Nothing })
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
}

impl Walk {
    /// The next whole commit and its sequence number; `None` at the first entry that does not parse, and at the end.
    /// Batches without a mark are the engine's own.
    fn next_commit(&mut self) -> Option<(u64, Mark)> {
        loop {
            if let (sequence, Some(mark)) = self.batch()? {
                return Some((sequence, mark));
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
        if key == COMMIT_KEY {
            return Mark::decode(&self.take::<{ Mark::WIDTH }>()?).map(Some);
        }
        self.from.seek_relative(i64::from(stored_bytes)).ok()?;
        Some(None)
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.from.read_exact(&mut bytes).ok()?;
        Some(bytes)
    }
}
