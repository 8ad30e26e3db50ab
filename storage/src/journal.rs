//! Reads the engine's journals without changing them, before the engine does.
//!
//! The engine (`fjall` 3, journal format 3) cuts a journal at the first entry it cannot parse. That is right for the
//! torn end that a crash leaves, and silent loss for anything else. Each of our commits carries its number, so that
//! both can be told apart first: the numbers must follow each other without holes, and reach what the witness saw.
//!
//! Integers are little-endian. A batch is `1, items (4), sequence (8)`, its items
//! `2, type (1), compression (1), keyspace (8), key length (2), length (4), stored length (4), key, value`, and
//! `3, checksum (8), "FJL" 3`; `4, keyspace (8)` clears a keyspace. Unused space at the end is zero. Checksums are the
//! engine's to check: a wrong one is an error there, not a cut.

use crate::limits::VALUE_BYTES;
use crate::writer::COMMIT_KEY;
use peerlink_core::limits::KEY_BYTES;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

const TRAILER: [u8; 4] = *b"FJL\x03";

/// What the journals of a store prove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// No commit is in any journal: they are new, or everything went on into tables.
    Nothing,
    /// Whole commits without holes up to this one.
    UpTo(u64),
    /// This commit is not there, but a later one is.
    Hole(u64),
}

/// Looks through all journals in `db`, oldest first.
pub(crate) fn look(db: &Path) -> io::Result<Found> {
    let mut last = None;
    for path in journals(db)? {
        let mut walk = Walk { from: BufReader::new(File::open(path)?) };
        while let Some(number) = walk.next_commit() {
            match last {
                Some(before) if number != before + 1 => return Ok(Found::Hole(before + 1)),
                _ => last = Some(number),
            }
        }
    }
    Ok(last.map_or(Found::Nothing, Found::UpTo))
}

/// Paths of the journals, oldest first. A name that is not a number is left for the engine to complain about.
fn journals(db: &Path) -> io::Result<Vec<PathBuf>> {
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
    /// The number of the next whole commit; `None` at the first entry that does not parse, and at the end. Batches
    /// without a number are the engine's own.
    fn next_commit(&mut self) -> Option<u64> {
        loop {
            if let Some(number) = self.batch()? {
                return Some(number);
            }
        }
    }

    fn batch(&mut self) -> Option<Option<u64>> {
        let [1] = self.take::<1>()? else { return None };
        let items = u32::from_le_bytes(self.take()?);
        self.take::<8>()?;
        let mut number = None;
        for _ in 0..items {
            match self.take::<1>()? {
                [2] => number = self.item()?.or(number),
                [4] => drop(self.take::<8>()?),
                _ => return None,
            }
        }
        let [3] = self.take::<1>()? else { return None };
        self.take::<8>()?;
        (self.take::<4>()? == TRAILER).then_some(number)
    }

    /// One item; the commit's number, if it is that.
    fn item(&mut self) -> Option<Option<u64>> {
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
        if key == COMMIT_KEY && stored_bytes == 8 {
            return Some(Some(u64::from_be_bytes(self.take()?)));
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
