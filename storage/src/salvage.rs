//! Takes out of a damaged store what can still be read, into a new one. The damaged one is only read.
//!
//! The engine itself is not asked: it gives up on a store whose lists it cannot read, and changes what it opens. Its
//! tables are read one by one, and of each record the newest state that can be read counts: where a block of a newer
//! table is damaged, an older state remains. Then come the journals, read by our own parser, newer than the tables.

use crate::error::{OpenError, ReadError};
use crate::journal::{self, Salvage};
use crate::limits::{MOST_JOURNAL_BYTES, REPAIR_BYTES, SALVAGE_CACHE_BYTES};
use crate::writer::{COMMIT_KEY, Mark, OWN_TABLE, SECOND, Writer, second};
use bytes::Bytes;
use lsm_tree::table::Scanner;
use lsm_tree::{Cache, Checksum, CompressionType, InternalValue, Table, UserKey};
use peerlink_core::api::{Batch, Store as _};
use peerlink_core::ids::BatchId;
use peerlink_core::record::KeyBytes;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where the engine keeps the tables of our records.
const TABLES: &str = "keyspaces/1/tables";

/// Collects writes into commits of a bounded size.
pub(crate) struct Into<'a> {
    path: &'a Path,
    writer: &'a mut Writer,
    batch: Batch,
    bytes: usize,
}

impl<'a> Into<'a> {
    pub(crate) fn new(path: &'a Path, writer: &'a mut Writer) -> Self {
        Self { path, writer, batch: Batch { id: BatchId(0), writes: Vec::new() }, bytes: 0 }
    }

    pub(crate) fn put(&mut self, key: KeyBytes, value: Option<Bytes>) -> Result<(), OpenError> {
        self.bytes += key.len() + value.as_ref().map_or(0, Bytes::len);
        self.batch.writes.push((key, value));
        if self.bytes < REPAIR_BYTES { Ok(()) } else { self.flush() }
    }

    /// A record as it was found. One that no table of ours can hold is passed over.
    fn put_found(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), OpenError> {
        match KeyBytes::from_slice(key) {
            Ok(bytes) if key.first().is_some_and(|table| *table != OWN_TABLE) => {
                self.put(bytes, value.map(Bytes::copy_from_slice))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn remove(&mut self, key: &[u8]) -> Result<(), OpenError> {
        self.put_found(key, None)
    }

    pub(crate) fn failed(&self, error: ReadError) -> OpenError {
        OpenError::read(self.path, error)
    }

    pub(crate) fn flush(&mut self) -> Result<(), OpenError> {
        self.bytes = 0;
        let committed = self.writer.commit(std::slice::from_ref(&self.batch));
        self.batch.writes.clear();
        committed.map_err(|error| OpenError::io(self.path, io::Error::other(error.0)))
    }
}

/// What was found of a store.
#[derive(Debug)]
pub(crate) struct Salvaged {
    /// The newest commit of which something was found.
    pub(crate) newest: u64,
    /// What could not be read, in words.
    pub(crate) unreadable: Vec<String>,
    /// Whether a part of a journal is among it.
    pub(crate) journals_damaged: bool,
    /// What of the tables is.
    pub(crate) gaps: Vec<Gap>,
}

/// Keys between these may be missing; without one, all on that side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gap {
    after: Option<Vec<u8>>,
    before: Option<Vec<u8>>,
}

impl Gap {
    /// Whether one of the keys from `first` to `last` may be missing.
    pub(crate) fn meets(&self, first: &[u8], last: &[u8]) -> bool {
        self.after.as_ref().is_none_or(|after| last > after.as_slice())
            && self.before.as_ref().is_none_or(|before| first < before.as_slice())
    }
}

/// Copies what can be read of the engine's directory `db` into `into`.
pub(crate) fn read(db: &Path, into: &mut Into<'_>) -> Result<Salvaged, OpenError> {
    let mut unreadable = Vec::new();
    let mut journals_damaged = false;
    let mut gaps = Vec::new();
    let in_tables = read_tables(&db.join(TABLES), into, &mut unreadable, &mut gaps)?;
    let mut newest = in_tables;
    for path in journal::journals(db).unwrap_or_default() {
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(MOST_JOURNAL_BYTES).read_to_end(&mut bytes));
        let mut salvage = Salvage::new(&bytes);
        while let Some(batch) = salvage.next() {
            let Some(mark) = batch.mark.filter(|mark| mark.commit > in_tables) else { continue };
            newest = newest.max(mark.commit);
            for (key, value) in batch.writes {
                into.put_found(key, value)?;
            }
        }
        journals_damaged |= read.is_err() || salvage.damaged;
        if let Err(error) = read {
            unreadable.push(format!("{}: {error}", named(db, &path)));
        } else if salvage.damaged {
            unreadable.push(format!("a part of {}", named(db, &path)));
        }
    }
    into.flush()?;
    Ok(Salvaged { newest, unreadable, journals_damaged, gaps })
}

/// The newest commit that went on into a table, as far as that can be read.
pub(crate) fn newest_in_tables(db: &Path) -> u64 {
    let tables = fs::read_dir(db.join(TABLES)).into_iter().flatten().filter_map(Result::ok);
    let newest = tables.filter_map(|entry| {
        let table = open_table(&entry.path())?;
        let newest = || {
            // The store's own records are the last ones, and the newest state of one comes first among its states.
            let own = table.iter().rev().map_while(Result::ok);
            own.take_while(|item| item.key.user_key.first() == Some(&OWN_TABLE))
                .filter(|item| *item.key.user_key == COMMIT_KEY)
                .filter_map(|item| Mark::decode(&item.value))
                .map(|mark| mark.commit)
                .max()
        };
        catch_unwind(AssertUnwindSafe(newest)).ok().flatten()
    });
    newest.max().unwrap_or(0)
}

fn named(db: &Path, path: &Path) -> String {
    path.strip_prefix(db).unwrap_or(path).display().to_string()
}

/// The newest state of every record that is in the tables of `dir`; the newest commit among it.
fn read_tables(
    dir: &Path,
    into: &mut Into<'_>,
    unreadable: &mut Vec<String>,
    gaps: &mut Vec<Gap>,
) -> Result<u64, OpenError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) => {
            unreadable.push(format!("all tables: {error}"));
            gaps.push(Gap { after: None, before: None });
            return Ok(0);
        }
    };
    // Left-overs of a compaction that the engine had yet to remove may be among them; what they hold is older.
    let mut sources: Vec<Source> =
        entries.filter_map(|entry| Some(Source::new(entry.ok()?.path()))).collect();
    let mut newest = 0;
    let mut last: Option<UserKey> = None;
    // When those were written that stand a second time: what is read of either, the newer state counts.
    let mut written = BTreeMap::new();
    while let Some(item) = next_of(&mut sources) {
        let key = &item.key.user_key;
        if last.as_ref() == Some(key) {
            continue;
        }
        last = Some(key.clone());
        if **key == COMMIT_KEY {
            newest = Mark::decode(&item.value).map_or(0, |mark| mark.commit);
        }
        let value = (!item.key.value_type.is_tombstone()).then_some(&*item.value);
        if let Some(second) = second(key) {
            written.insert(second, item.key.seqno);
        }
        match key.strip_prefix(&SECOND) {
            Some(first) if written.get(&**key).is_none_or(|first| *first < item.key.seqno) => {
                into.put_found(first, value)?;
            }
            _ => into.put_found(key, value)?,
        }
    }
    for source in sources.iter().filter(|source| source.damaged) {
        unreadable.push(format!("a part of table {}", named(dir, &source.path)));
        gaps.push(Gap { after: source.last.as_deref().map(<[u8]>::to_vec), before: source.before.clone() });
    }
    Ok(newest)
}

/// The next item of all tables: in the order of keys, the newest state of a key first.
fn next_of(sources: &mut [Source]) -> Option<InternalValue> {
    let order = |item: &InternalValue| (item.key.user_key.clone(), Reverse(item.key.seqno));
    let next = sources.iter_mut().filter(|source| source.next.is_some());
    let next = next.min_by_key(|source| source.next.as_ref().map(order))?;
    let item = next.next.take();
    next.advance();
    item
}

type Items = Box<dyn Iterator<Item = InternalValue>>;

/// One table, read from its front up to what is damaged, then behind it.
struct Source {
    path: PathBuf,
    next: Option<InternalValue>,
    from_front: Option<Scanner>,
    behind: Option<Items>,
    /// The last key that was read from the front.
    last: Option<UserKey>,
    /// The first that was read behind the damage.
    before: Option<Vec<u8>>,
    damaged: bool,
}

impl Source {
    fn new(path: PathBuf) -> Self {
        // How many blocks of records there are says the table's own description. Without it, they end where one cannot
        // be read. What the engine writes without a feature for it is not compressed.
        let table = open_table(&path);
        let scan = || match &table {
            Some(table) => table.scan().ok(),
            None => Scanner::new(&path, usize::MAX, CompressionType::None, 0).ok(),
        };
        let from_front = catch_unwind(AssertUnwindSafe(scan)).ok().flatten();
        let damaged = table.is_none() || from_front.is_none();
        let mut source =
            Self { path, next: None, from_front, behind: None, last: None, before: None, damaged };
        source.advance();
        source
    }

    fn advance(&mut self) {
        if let Some(items) = &mut self.from_front {
            match catch_unwind(AssertUnwindSafe(|| items.next())) {
                Ok(Some(Ok(item))) => {
                    self.last = Some(item.key.user_key.clone());
                    self.next = Some(item);
                    return;
                }
                Ok(None) => {
                    self.from_front = None;
                    self.behind = Some(Box::new(std::iter::empty()));
                }
                Ok(Some(Err(_))) | Err(_) => {
                    self.from_front = None;
                    self.damaged = true;
                }
            }
        }
        if self.behind.is_none() {
            let behind = self.read_behind();
            self.before = behind.first().map(|item| item.key.user_key.to_vec());
            self.behind = Some(Box::new(behind.into_iter()));
        }
        self.next = self.behind.as_mut().and_then(Iterator::next);
    }

    /// From the other end as far as it goes, in order. A table has at most 64 MiB.
    fn read_behind(&self) -> Vec<InternalValue> {
        let mut found = Vec::new();
        let Some(table) = open_table(&self.path) else { return found };
        let mut items = table.iter();
        while let Ok(Some(Ok(item))) = catch_unwind(AssertUnwindSafe(|| items.next_back())) {
            if self.last.as_ref().is_some_and(|last| item.key.user_key <= *last) {
                break;
            }
            found.push(item);
        }
        found.reverse();
        found
    }
}

fn open_table(path: &Path) -> Option<Table> {
    let cache = Arc::new(Cache::with_capacity_bytes(SALVAGE_CACHE_BYTES));
    // The checksum of the whole file is in the list, which may be what is damaged. Each block has its own.
    let open = || Table::recover(path.to_owned(), Checksum::from_raw(0), 0, 0, cache, None, false, true).ok();
    catch_unwind(AssertUnwindSafe(open)).ok().flatten()
}
