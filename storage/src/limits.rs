//! Every figure of the store, and what must hold between them.

use peerlink_core::limits::{KEY_BYTES, UNPERSISTED_BYTES};

/// Cached blocks of tables, in bytes. History is read a page at a time; what restores a node is read once.
pub const CACHE_BYTES: u64 = 8 * 1024 * 1024;
/// Bytes of newest writes held in memory before they become a table; small records take about four times that. It
/// bounds what a start after a crash puts back into memory.
pub const MEMTABLE_BYTES: u64 = 4 * 1024 * 1024;
/// Bytes of journals before old ones must go. The engine makes journals of 64 MiB each and takes no less.
pub const JOURNAL_BYTES: u64 = 128 * 1024 * 1024;
/// Threads that flush and compact behind the writer.
pub const WORKER_THREADS: usize = 1;
/// Table files held open.
pub const OPEN_FILES: usize = 64;
/// Memtables that wait for their flush; a commit waits while there are more.
pub const SEALED_MEMTABLES: usize = 3;
/// Runs of tables not yet compacted; a commit waits while there are more.
pub const UNCOMPACTED_RUNS: usize = 16;
/// Pause between two looks at a flush that a commit or an orderly close waits for, in milliseconds.
pub const FLUSH_POLL_MS: u64 = 1;
/// Looks before an orderly close leaves the rest to the next start, which replays it.
pub const FLUSH_POLLS: u32 = 10_000;
/// Bytes of the store's own small files that are read at most.
pub const SMALL_FILE_BYTES: u64 = 256;
/// Bytes of the engine's list of tables; one table takes 33.
pub const LIST_BYTES: u64 = 64 * 1024 * 1024;
/// Longest value that the engine's journal may hold by our own rules; a length beyond is damage.
pub const VALUE_BYTES: u32 = 16 * 1024 * 1024;
/// Bytes behind the last commit of a journal that are looked at: if they are zero, the rest is taken for unused.
pub const UNUSED_BYTES: u64 = 4096;
/// Bytes of one journal that are read at once to find what is whole in it. The engine ends a journal at 64 MiB.
pub const MOST_JOURNAL_BYTES: u64 = 256 * 1024 * 1024;
/// Feeds whose newest entry is looked for when a store is opened, the newest feeds first.
pub const CHECKED_FEEDS: usize = 4096;
/// Bytes of records that a repair writes at once.
pub const REPAIR_BYTES: usize = 1024 * 1024;
/// Cached blocks of each table that a repair reads, in bytes.
pub const SALVAGE_CACHE_BYTES: u64 = 64 * 1024;
/// Runs of an own feed that a repair keeps, between which entries are lost.
pub const REPAIR_RUNS: usize = 4096;
/// What a repair adds to counters whose newest values may be lost, so that no number is given out twice: peers take
/// only a peer record with a higher number, front ends resume behind an arrival number.
pub const LEAP: u64 = 1_000_000;

const _: () = {
    assert!(JOURNAL_BYTES >= 64 * 1024 * 1024, "the engine refuses less");
    assert!(VALUE_BYTES as usize > UNPERSISTED_BYTES, "every value that was accepted can be read back");
    assert!(KEY_BYTES < u16::MAX as usize, "the engine's longest key");
};
