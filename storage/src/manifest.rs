//! Checks the engine's list of tables before the engine acts on it.
//!
//! Each keyspace has a file `current`: the number of its newest list (8 bytes, little-endian), the XXH3-128 of that
//! list (16, little-endian) and the kind of the checksum (0). The engine (`lsm-tree` 3) writes the checksum and does
//! not look at it, takes what a damaged list does not name for a leftover, and removes it.

use crate::limits::{LIST_BYTES, SMALL_FILE_BYTES};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Whether the newest list of the keyspace in `dir` is what was written.
pub(crate) fn is_whole(dir: &Path) -> io::Result<bool> {
    let Some(current) = read(&dir.join("current"), SMALL_FILE_BYTES)? else { return Ok(false) };
    let Some((number, rest)) = current.split_first_chunk::<8>() else { return Ok(false) };
    let Some((checksum, [0])) = rest.split_first_chunk::<16>() else { return Ok(false) };
    let list = read(&dir.join(format!("v{}", u64::from_le_bytes(*number))), LIST_BYTES)?;
    Ok(list.is_some_and(|list| xxhash_rust::xxh3::xxh3_128(&list) == u128::from_le_bytes(*checksum)))
}

/// At most `most` bytes of a file, if it is there.
fn read(path: &Path, most: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(most).read_to_end(&mut bytes).map(|_| Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
