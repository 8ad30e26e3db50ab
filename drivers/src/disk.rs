//! The loop's side of the store: two threads, one that commits and one that loads.
//!
//! The committing thread takes everything that queued while its last fsync ran, commits it as one, and confirms the
//! newest batch of it: group commit without a timer. A load is held back until the batch emitted before it is
//! confirmed, then goes to the other thread, where no later fsync stands in its way. Neither channel ever makes the
//! loop wait.

use crate::bell::{Bell, Watchman};
use crate::limits::{ANSWERS, COMMITS, LOADS};
use peerlink_core::api::{Answer, Batch, Input, KeyRange, Loader, Store};
use peerlink_core::bounded::Queue;
use peerlink_core::ids::{BatchId, LoadId};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

#[derive(Debug)]
enum Done {
    Persisted(BatchId),
    Failed(BatchId),
    Loaded(LoadId, Answer),
}

#[derive(Debug)]
struct Held {
    after: BatchId,
    load: LoadId,
    range: KeyRange,
}

#[derive(Debug)]
pub(crate) struct Disk {
    batches: SyncSender<Batch>,
    loads: SyncSender<(LoadId, KeyRange)>,
    answers: Receiver<Done>,
    threads: Vec<JoinHandle<()>>,
    emitted: BatchId,
    persisted: BatchId,
    failed: bool,
    held: Queue<Held>,
    /// What is known without asking the store.
    known: VecDeque<Input<'static>>,
}

impl Disk {
    pub(crate) fn start<S, L>(store: S, loader: L, bell: &Arc<Bell>) -> io::Result<Self>
    where
        S: Store + 'static,
        L: Loader + 'static,
    {
        let (batches, to_commit) = sync_channel(COMMITS);
        let (loads, to_load) = sync_channel(LOADS);
        let (done, answers) = sync_channel(ANSWERS);
        let committer = {
            let (done, bell) = (done.clone(), Arc::clone(bell));
            let name = "peerlink-commit".to_owned();
            std::thread::Builder::new().name(name).spawn(move || commit(store, &to_commit, &done, bell))?
        };
        let loader = {
            let bell = Arc::clone(bell);
            let name = "peerlink-load".to_owned();
            std::thread::Builder::new().name(name).spawn(move || load(loader, &to_load, &done, bell))?
        };
        Ok(Self {
            batches,
            loads,
            answers,
            threads: vec![committer, loader],
            emitted: BatchId(0),
            persisted: BatchId(0),
            failed: false,
            held: Queue::new(LOADS),
            known: VecDeque::new(),
        })
    }

    pub(crate) fn persist(&mut self, batch: Batch) {
        let id = batch.id;
        self.emitted = id;
        // Full means that the core has more batches open than it may. Waiting would stop the loop, so nothing more
        // is promised; that is always safe.
        if self.failed || self.batches.try_send(batch).is_err() {
            debug_assert!(self.failed, "more batches than the core may have open");
            self.fail(id);
        }
    }

    pub(crate) fn load(&mut self, load: LoadId, range: KeyRange) {
        if self.persisted >= self.emitted {
            self.send_load(load, range);
        } else if self.failed {
            // What this load must see may never be there.
            self.known.push_back(Input::Loaded { load, answer: Answer::Damaged });
        } else if self.held.push(Held { after: self.emitted, load, range }).is_err() {
            debug_assert!(false, "more loads than the core may have open");
            self.known.push_back(Input::Loaded { load, answer: Answer::Damaged });
        }
    }

    fn send_load(&mut self, load: LoadId, range: KeyRange) {
        if self.loads.try_send((load, range)).is_err() {
            debug_assert!(false, "more loads than the core may have open");
            self.known.push_back(Input::Loaded { load, answer: Answer::Damaged });
        }
    }

    fn fail(&mut self, batch: BatchId) {
        self.failed = true;
        self.known.push_back(Input::PersistFailed { batch });
        while let Some(held) = self.held.pop() {
            self.known.push_back(Input::Loaded { load: held.load, answer: Answer::Damaged });
        }
    }

    /// The next answer of the store, if there is one.
    pub(crate) fn take_done(&mut self) -> Option<Input<'static>> {
        if let Some(known) = self.known.pop_front() {
            return Some(known);
        }
        match self.answers.try_recv().ok()? {
            Done::Persisted(batch) => {
                self.persisted = self.persisted.max(batch);
                while self.held.front().is_some_and(|held| held.after <= self.persisted) {
                    if let Some(held) = self.held.pop() {
                        self.send_load(held.load, held.range);
                    }
                }
                Some(Input::Persisted { batch })
            }
            Done::Failed(batch) => {
                self.fail(batch);
                self.known.pop_front()
            }
            Done::Loaded(load, answer) => Some(Input::Loaded { load, answer }),
        }
    }

    /// An answer waits that no thread will ring for.
    pub(crate) fn has_known(&self) -> bool {
        !self.known.is_empty()
    }

    /// Commits what was handed over, closes the store, ends both threads. Waits for the disk as long as it takes.
    pub(crate) fn close(self) {
        let Self { batches, loads, answers, threads, .. } = self;
        drop((batches, loads, answers));
        for thread in threads {
            // A panic there is known through the bell.
            let _ = thread.join();
        }
    }
}

fn commit<S: Store>(mut store: S, batches: &Receiver<Batch>, done: &SyncSender<Done>, bell: Arc<Bell>) {
    let watchman = Watchman(bell);
    let mut group = Vec::new();
    let mut failed = false;
    while let Ok(first) = batches.recv() {
        group.push(first);
        // At most what the channel holds, so that a flood cannot keep this from committing.
        group.extend(batches.try_iter().take(COMMITS));
        let (oldest, newest) = (group.first().map(|batch| batch.id), group.last().map(|batch| batch.id));
        failed = failed || store.commit(&group).is_err();
        group.clear();
        let answer = if failed { oldest.map(Done::Failed) } else { newest.map(Done::Persisted) };
        // No receiver: the loop has ended and wants only that everything is committed.
        if let Some(answer) = answer
            && done.send(answer).is_ok()
        {
            watchman.0.ring();
        }
    }
    if !failed {
        store.close();
    }
}

fn load<L: Loader>(
    mut loader: L,
    loads: &Receiver<(LoadId, KeyRange)>,
    done: &SyncSender<Done>,
    bell: Arc<Bell>,
) {
    let watchman = Watchman(bell);
    while let Ok((load, range)) = loads.recv() {
        let answer = loader.load(&range);
        if done.send(Done::Loaded(load, answer)).is_err() {
            return;
        }
        watchman.0.ring();
    }
}
