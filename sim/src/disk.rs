//! The simulated disk: an ordered map of what is synced, and the batches that are written and not yet synced.
//!
//! A cut at any moment keeps a prefix of the batches that were not synced: each batch is atomic, and they are ordered.

use bytes::Bytes;
use peerlink_core::api::{Answer, Batch, KeyRange, Page};
use peerlink_core::ids::BatchId;
use peerlink_core::record::{KeyBytes, RESTORE_END};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Disk {
    synced: BTreeMap<KeyBytes, Bytes>,
    pending: VecDeque<Batch>,
    tape: Option<Vec<Deed>>,
}

/// A copy of what was synced.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Backup(BTreeMap<KeyBytes, Bytes>);

/// One thing that was done to a disk, so that it can be done to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    Write(Batch),
    Sync(BatchId),
    /// The process ended; so many batches that were not synced are there all the same.
    Cut(usize),
    /// A question, and what was answered.
    Load(KeyRange, Answer),
}

impl Disk {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What is synced, to be brought back later.
    #[must_use]
    pub fn backup(&self) -> Backup {
        Backup(self.synced.clone())
    }

    /// Brings back what was there when the backup was made. Not kept as a deed: nobody does that to a store that is open.
    pub fn bring_back(&mut self, backup: &Backup) {
        self.pending.clear();
        self.synced.clone_from(&backup.0);
    }

    /// Keeps from now on what is done to it.
    pub fn record(&mut self) {
        self.tape.get_or_insert_default();
    }

    /// What was done to it since `record`, in order.
    #[must_use]
    pub fn deeds(&self) -> &[Deed] {
        self.tape.as_deref().unwrap_or_default()
    }

    fn note(&mut self, deed: impl FnOnce() -> Deed) {
        if let Some(tape) = &mut self.tape {
            tape.push(deed());
        }
    }

    /// Takes a batch that is not synced yet.
    pub fn write(&mut self, batch: Batch) {
        self.note(|| Deed::Write(batch.clone()));
        self.pending.push_back(batch);
    }

    /// Syncs every batch up to `upto`, and gives them back in order.
    pub fn sync(&mut self, upto: BatchId) -> Vec<Batch> {
        self.note(|| Deed::Sync(upto));
        let count = self.pending.iter().take_while(|batch| batch.id <= upto).count();
        self.keep(count)
    }

    /// The power goes: of the batches that are not synced the first `kept` are there at the next start, the others
    /// never were. Gives back those that are there.
    pub fn cut(&mut self, kept: usize) -> Vec<Batch> {
        self.note(|| Deed::Cut(kept));
        let there = self.keep(kept);
        self.pending.clear();
        there
    }

    fn keep(&mut self, count: usize) -> Vec<Batch> {
        let count = count.min(self.pending.len());
        let kept: Vec<Batch> = self.pending.drain(..count).collect();
        for (key, value) in kept.iter().flat_map(|batch| &batch.writes) {
            match value {
                Some(value) => drop(self.synced.insert(key.clone(), value.clone())),
                None => drop(self.synced.remove(key)),
            }
        }
        kept
    }

    /// Batches that are written and not synced.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Bytes of keys and values that are written and not synced.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.pending.iter().map(batch_bytes).sum()
    }

    /// The newest batch that is written.
    #[must_use]
    pub fn newest(&self) -> Option<BatchId> {
        self.pending.back().map(|batch| batch.id)
    }

    /// Answers a question from what is synced.
    pub fn load(&mut self, range: &KeyRange) -> Answer {
        let answer = self.answer(range);
        self.note(|| Deed::Load(range.clone(), answer.clone()));
        answer
    }

    fn answer(&self, range: &KeyRange) -> Answer {
        let mut page = Page { records: Vec::new(), complete: true };
        if range.first > range.last {
            return Answer::Page(page);
        }
        let most = usize::try_from(range.max_bytes).unwrap_or(usize::MAX);
        let mut bytes = 0;
        let bounds = (Bound::Included(&range.first), Bound::Included(&range.last));
        for (key, value) in self.synced.range::<KeyBytes, _>(bounds) {
            bytes += key.len() + value.len();
            if bytes > most && !page.records.is_empty() {
                page.complete = false;
                break;
            }
            page.records.push((key.clone(), value.clone()));
        }
        Answer::Page(page)
    }

    /// What a node is restored from, in order.
    pub fn restore(&self) -> impl Iterator<Item = (&KeyBytes, &Bytes)> {
        self.synced.iter().take_while(|(key, _)| key.first().is_none_or(|table| *table < RESTORE_END))
    }

    /// Everything that is synced, in order.
    pub fn records(&self) -> impl Iterator<Item = (&KeyBytes, &Bytes)> {
        self.synced.iter()
    }

    #[must_use]
    pub fn get(&self, key: &KeyBytes) -> Option<&Bytes> {
        self.synced.get(key)
    }
}

/// Bytes of keys and values of a batch.
#[must_use]
pub fn batch_bytes(batch: &Batch) -> usize {
    batch.writes.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Bytes::len)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use peerlink_core::record::Key;

    fn key(arrival: u64) -> KeyBytes {
        Key::Arrival(arrival).encode()
    }

    fn batch(id: u64, writes: &[(u64, Option<&'static [u8]>)]) -> Batch {
        let writes = writes.iter().map(|(at, value)| (key(*at), value.map(Bytes::from_static))).collect();
        Batch { id: BatchId(id), writes }
    }

    fn page(disk: &mut Disk, max_bytes: u32) -> (usize, bool) {
        let range = KeyRange { first: key(0), last: key(99), max_bytes };
        match disk.load(&range) {
            Answer::Page(page) => (page.records.len(), page.complete),
            Answer::Damaged => unreachable!("a simulated disk has no damage yet"),
        }
    }

    #[test]
    fn what_is_not_synced_is_not_read_and_a_cut_keeps_a_prefix() {
        let mut disk = Disk::new();
        disk.write(batch(1, &[(1, Some(b"a"))]));
        disk.write(batch(2, &[(2, Some(b"b")), (1, None)]));
        disk.write(batch(3, &[(3, Some(b"c"))]));
        assert_eq!(page(&mut disk, 1000), (0, true));
        assert_eq!(disk.sync(BatchId(1)).len(), 1);
        assert_eq!(page(&mut disk, 1000), (1, true));
        assert_eq!(disk.cut(1).len(), 1);
        assert_eq!(disk.get(&key(1)), None);
        assert!(disk.get(&key(2)).is_some());
        assert_eq!(disk.get(&key(3)), None);
        assert_eq!(disk.pending(), 0);
    }

    #[test]
    fn a_page_holds_at_least_one_record_and_says_when_it_ended_early() {
        let mut disk = Disk::new();
        disk.write(batch(1, &[(1, Some(&[0; 100])), (2, Some(&[0; 100])), (3, Some(&[0; 100]))]));
        let _there = disk.cut(9);
        assert_eq!(page(&mut disk, 1), (1, false));
        assert_eq!(page(&mut disk, 218), (2, false));
        assert_eq!(page(&mut disk, 327), (3, true));
        assert_eq!(disk.restore().count(), 0);
        assert_eq!(disk.records().count(), 3);
    }
}
