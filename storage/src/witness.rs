//! The witness: how many commits were promised, kept outside the engine.
//!
//! The engine takes an unreadable spot in its journal for the torn end of a crash and drops what follows, without
//! a word. So every commit also writes its number into the store, and, once it is durable, into this small file, which
//! is never synced on the way: after a crash of the process it is exact, after a loss of power it may be older, and
//! older only makes the check weaker. A store that holds fewer commits than its witness saw has lost some.
//!
//! `magic (8), number (8, big-endian), the same inverted (8)`: a witness that does not check
//! out says nothing.

use crate::limits::SMALL_FILE_BYTES;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

const MAGIC: [u8; 8] = *b"plwit\0\0\x01";

#[derive(Debug)]
pub(crate) struct Witness {
    file: File,
}

impl Witness {
    /// Opens the witness, or makes one, and tells what it saw; `None` if it says nothing.
    pub(crate) fn open(path: &Path) -> io::Result<(Self, Option<u64>)> {
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let mut bytes = Vec::new();
        (&mut file).take(SMALL_FILE_BYTES).read_to_end(&mut bytes)?;
        Ok((Self { file }, parse(&bytes)))
    }

    /// What the witness saw, without making one.
    pub(crate) fn read(path: &Path) -> Option<u64> {
        let mut bytes = Vec::new();
        File::open(path).ok()?.take(SMALL_FILE_BYTES).read_to_end(&mut bytes).ok()?;
        parse(&bytes)
    }

    pub(crate) fn saw(&self, commit: u64) -> io::Result<()> {
        self.file.write_all_at(&render(commit), 0)
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

fn render(commit: u64) -> [u8; 24] {
    let mut out = [0; 24];
    let (magic, rest) = out.split_at_mut(8);
    let (number, check) = rest.split_at_mut(8);
    magic.copy_from_slice(&MAGIC);
    number.copy_from_slice(&commit.to_be_bytes());
    check.copy_from_slice(&(!commit).to_be_bytes());
    out
}

fn parse(bytes: &[u8]) -> Option<u64> {
    let number = bytes.get(8..16)?.try_into().ok().map(u64::from_be_bytes)?;
    (bytes == render(number)).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_witness_reads_back_and_one_flipped_bit_silences_it() {
        let bytes = render(513);
        assert_eq!(parse(&bytes), Some(513));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(parse(&flipped), None, "bit {bit}");
        }
        assert_eq!(parse(&bytes[..23]), None);
        assert_eq!(parse(b""), None);
    }
}
