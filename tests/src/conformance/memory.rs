//! A store in memory, with a gate in front of its disk.

use peerlink_core::api::{Answer, Batch, KeyRange, Loader, Page, Store, StoreError};
use peerlink_core::ids::BatchId;
use peerlink_core::record::KeyBytes;
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// What the disk does with the next commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Disk {
    #[default]
    Works,
    /// Every commit waits until this changes.
    Stuck,
    /// The next commit fails; those after it would not.
    Fails,
    Panics,
}

#[derive(Debug, Default)]
struct State {
    records: BTreeMap<KeyBytes, bytes::Bytes>,
    disk: Disk,
    /// The batches of each commit.
    commits: Vec<Vec<BatchId>>,
    /// Commits that were begun.
    begun: usize,
    closed: usize,
}

/// Store, loader and test hold the same one.
#[derive(Debug, Clone, Default)]
pub struct Memory(Arc<(Mutex<State>, Condvar)>);

impl Memory {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set(&self, disk: Disk) {
        self.lock().disk = disk;
        self.0.1.notify_all();
    }

    /// Waits until this many commits were begun.
    pub fn wait_begun(&self, commits: usize) {
        let state = self.lock();
        let waiting = |state: &mut State| state.begun < commits;
        let waited = self.0.1.wait_timeout_while(state, super::FAILSAFE, waiting);
        let state = waited.unwrap_or_else(PoisonError::into_inner).0;
        assert!(state.begun >= commits, "only {} commits", state.begun);
    }

    #[must_use]
    pub fn commits(&self) -> Vec<Vec<BatchId>> {
        self.lock().commits.clone()
    }

    /// How often the store was closed.
    #[must_use]
    pub fn closed(&self) -> usize {
        self.lock().closed
    }

    #[must_use]
    pub fn records(&self) -> BTreeMap<KeyBytes, bytes::Bytes> {
        self.lock().records.clone()
    }
}

impl Store for Memory {
    fn commit(&mut self, batches: &[Batch]) -> Result<(), StoreError> {
        let mut state = self.lock();
        state.begun += 1;
        self.0.1.notify_all();
        while state.disk == Disk::Stuck {
            state = self.0.1.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.commits.push(batches.iter().map(|batch| batch.id).collect());
        match state.disk {
            Disk::Fails => {
                state.disk = Disk::Works;
                return Err(StoreError("the test says so".to_owned()));
            }
            Disk::Panics => panic!("the test says so"),
            Disk::Works | Disk::Stuck => {}
        }
        for (key, value) in batches.iter().flat_map(|batch| &batch.writes) {
            match value {
                Some(value) => drop(state.records.insert(key.clone(), value.clone())),
                None => drop(state.records.remove(key)),
            }
        }
        Ok(())
    }

    fn close(&mut self) {
        self.lock().closed += 1;
    }
}

impl Loader for Memory {
    fn load(&mut self, range: &KeyRange) -> Answer {
        let state = self.lock();
        let mut page = Page { complete: true, ..Page::default() };
        let mut bytes = 0;
        for (key, value) in state.records.range(range.first.clone()..=range.last.clone()) {
            bytes += key.len() + value.len();
            if bytes > range.max_bytes as usize && !page.records.is_empty() {
                page.complete = false;
                break;
            }
            page.records.push((key.clone(), value.clone()));
        }
        Answer::Page(page)
    }
}
