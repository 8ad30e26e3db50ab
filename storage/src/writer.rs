//! The writing side: several of the core's batches become one atomic commit with one sync.
//!
//! That is `fdatasync`: it writes what is needed to read the data back, so also where a file ends that grew, and leaves
//! out when it was written. A journal's name is durable before its first commit: the engine syncs the directory.

use crate::error::{describe, panic_text};
use crate::journal;
use crate::limits;
use crate::open::Shared;
use bytes::Bytes;
use fjall::{AbstractTree, PersistMode};
use peerlink_core::api::{Batch, Store, StoreError};
use peerlink_core::record::Table;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// Where the store counts its commits: behind every table of the core, and never shown to it.
pub(crate) const COMMIT_KEY: [u8; 2] = [OWN_TABLE, b'n'];
/// Begins the keys under which the records that nobody can give back stand a second time, at the other end of a table:
/// one wrong bit spoils a block, and must not cost the contacts.
pub(crate) const SECOND: [u8; 2] = [OWN_TABLE, b'c'];

/// Where a record stands a second time, if it does. Those of them that are rarely written.
pub(crate) fn second(key: &[u8]) -> Option<Vec<u8>> {
    let table = *key.first()?;
    let rare = [Table::Profile as u8, Table::Contact as u8, Table::Invite as u8].contains(&table);
    rare.then(|| [&SECOND, key].concat())
}

/// What every commit leaves under [`COMMIT_KEY`]: its number and the least sequence number that the engine can have
/// given it, both big-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) commit: u64,
    pub(crate) sequence: u64,
}

impl Mark {
    pub(crate) const WIDTH: usize = 16;

    fn encode(&self) -> [u8; Self::WIDTH] {
        let mut out = [0; Self::WIDTH];
        let (commit, sequence) = out.split_at_mut(8);
        commit.copy_from_slice(&self.commit.to_be_bytes());
        sequence.copy_from_slice(&self.sequence.to_be_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (commit, sequence) = bytes.split_first_chunk::<8>()?;
        Some(Self {
            commit: u64::from_be_bytes(*commit),
            sequence: u64::from_be_bytes(sequence.try_into().ok()?),
        })
    }
}

/// First byte of the keys that are the store's own.
pub(crate) const OWN_TABLE: u8 = 0xff;

/// Commits batches. There is one, and one thread that uses it.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    /// The number of the newest commit.
    commits: u64,
    /// Set while a commit is under way and for ever after one failed.
    failed: bool,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, commits: u64) -> Self {
        Self { shared, commits, failed: false }
    }

    fn write(&mut self, batches: &[Batch]) -> Result<(), StoreError> {
        // Within one commit the engine does not order two writes of a key: only the last is handed over.
        let mut last: BTreeMap<&[u8], Option<&Bytes>> = BTreeMap::new();
        for (key, value) in batches.iter().flat_map(|batch| &batch.writes) {
            if key.first().is_none_or(|table| *table == OWN_TABLE) {
                return Err(StoreError("a key belongs to no table".into()));
            }
            if value.as_ref().is_some_and(|value| value.len() > limits::VALUE_BYTES as usize) {
                return Err(StoreError("a value is too long".into()));
            }
            last.insert(key, value.as_ref());
        }
        if last.is_empty() {
            return Ok(());
        }
        self.wait_for_room()?;
        let commit = self.commits + 1;
        let records = &self.shared.records;
        let mut batch = self.shared.db.batch().durability(Some(PersistMode::SyncData));
        for (key, value) in last {
            if let Some(second) = second(key) {
                match value {
                    Some(value) => batch.insert(records, second, value.clone()),
                    None => batch.remove(records, second),
                }
            }
            match value {
                Some(value) => batch.insert(records, key, value.clone()),
                None => batch.remove(records, key),
            }
        }
        let mark = Mark { commit, sequence: self.shared.db.seqno() };
        batch.insert(records, COMMIT_KEY, mark.encode());
        batch.commit().map_err(|error| StoreError(describe(&error)))?;
        self.commits = commit;
        // Only a check is weaker if this fails: the promise stands on the commit above.
        let _ = self.shared.witness.saw(commit);
        Ok(())
    }

    /// The engine waits for its flushes inside a commit, and would wait for ever if they had failed.
    fn wait_for_room(&self) -> Result<(), StoreError> {
        let tree = &self.shared.records.tree;
        while tree.sealed_memtable_count() > limits::SEALED_MEMTABLES
            || tree.l0_run_count() > limits::UNCOMPACTED_RUNS
        {
            self.check_engine()?;
            std::thread::sleep(Duration::from_millis(limits::FLUSH_POLL_MS));
        }
        Ok(())
    }

    /// Whether the engine still takes writes. Syncs nothing.
    fn check_engine(&self) -> Result<(), StoreError> {
        self.shared.db.persist(PersistMode::Buffer).map_err(|error| StoreError(describe(&error)))
    }

    /// Turns what is in memory into a table, so that the next start has nothing to replay. True if it is all there.
    fn flush(&self) -> Result<bool, StoreError> {
        let failed = |error: fjall::Error| StoreError(describe(&error));
        let tree = &self.shared.records.tree;
        self.check_engine()?;
        self.shared.records.rotate_memtable().map_err(failed)?;
        // Not the engine's own wait, which never ends if the flush fails.
        for _ in 0..limits::FLUSH_POLLS {
            if tree.sealed_memtable_count() == 0 {
                break;
            }
            self.check_engine()?;
            std::thread::sleep(Duration::from_millis(limits::FLUSH_POLL_MS));
        }
        self.shared.db.persist(PersistMode::SyncAll).map_err(failed)?;
        let in_tables = tree.get_highest_persisted_seqno();
        Ok(tree.sealed_memtable_count() == 0 && in_tables == tree.get_highest_seqno())
    }

    /// The engine would read all of its journals at the next start, item by item, to find that tables hold everything.
    /// It removes older journals for the same reason. Nothing writes to them any more: this writer was the only one.
    fn empty_journals(&self) {
        for journal in journal::journals(&self.shared.dir).unwrap_or_default() {
            let emptied = OpenOptions::new().write(true).open(journal).and_then(|file| {
                file.set_len(0)?;
                file.sync_all()
            });
            // One that stays as it was only makes the next start slower.
            let _ = emptied;
        }
    }
}

impl Store for Writer {
    fn commit(&mut self, batches: &[Batch]) -> Result<(), StoreError> {
        if self.failed {
            return Err(StoreError("an earlier commit failed; the store must be opened again".into()));
        }
        self.failed = true;
        let outcome = catch_unwind(AssertUnwindSafe(|| self.write(batches)))
            .unwrap_or_else(|panic| Err(StoreError(panic_text(&*panic))));
        self.failed = outcome.is_err();
        outcome
    }

    fn close(&mut self) {
        if self.failed {
            return;
        }
        self.failed = true;
        // What could not be flushed is in the journal, and the next start replays it.
        let flushed = catch_unwind(AssertUnwindSafe(|| self.flush()));
        let _ = self.shared.witness.sync();
        if matches!(flushed, Ok(Ok(true))) {
            self.empty_journals();
        }
    }
}
