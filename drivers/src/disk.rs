//! The two storage threads of every driver. One commits: whatever batches queued while the last fsync ran are
//! committed together, with one fsync. One loads, never behind a commit. A stalled disk stalls these threads, not the
//! event loop.

use crate::limits::{ANSWERS, BATCHES, LOADS};
use peerlink_core::api::{Answer, Batch, Input, KeyRange, Loader, Store};
use peerlink_core::ids::{BatchId, LoadId};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Wakes the event loop.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

enum Done {
    Persisted(BatchId),
    Failed(BatchId),
    Loaded(LoadId, Answer),
}

/// A driver's way to its store.
#[derive(Debug)]
pub struct Disk {
    commits: Option<SyncSender<Batch>>,
    loads: Option<SyncSender<(LoadId, KeyRange)>>,
    done: Receiver<Done>,
    threads: Vec<JoinHandle<()>>,
    newest: BatchId,
    durable: BatchId,
    /// Questions that must see batches which are not committed yet, and questions for which there was no room.
    held: VecDeque<(BatchId, LoadId, KeyRange)>,
}

impl Disk {
    /// # Errors
    /// No thread could be started.
    pub fn start(
        mut store: impl Store + 'static,
        mut loader: impl Loader + 'static,
        wake: Wake,
    ) -> std::io::Result<Self> {
        let (commits, to_commit) = sync_channel::<Batch>(BATCHES);
        let (loads, to_load) = sync_channel::<(LoadId, KeyRange)>(LOADS);
        let (answers, done) = sync_channel(ANSWERS);
        let committed = answers.clone();
        let woken = wake.clone();
        let commit = move || {
            while let Ok(first) = to_commit.recv() {
                let mut batches = vec![first];
                batches.extend(to_commit.try_iter());
                let (Some(oldest), Some(newest)) = (batches.first(), batches.last()) else { continue };
                let (oldest, newest) = (oldest.id, newest.id);
                let done = match store.commit(&batches) {
                    Ok(()) => Done::Persisted(newest),
                    Err(_) => Done::Failed(oldest),
                };
                let failed = matches!(done, Done::Failed(_));
                if committed.send(done).is_err() {
                    break;
                }
                woken();
                if failed {
                    break;
                }
            }
            store.close();
        };
        let load = move || {
            while let Ok((load, range)) = to_load.recv() {
                if answers.send(Done::Loaded(load, loader.load(&range))).is_err() {
                    return;
                }
                wake();
            }
        };
        let threads = vec![
            std::thread::Builder::new().name("commit".into()).spawn(commit)?,
            std::thread::Builder::new().name("load".into()).spawn(load)?,
        ];
        Ok(Self {
            commits: Some(commits),
            loads: Some(loads),
            done,
            threads,
            newest: BatchId(0),
            durable: BatchId(0),
            held: VecDeque::new(),
        })
    }

    /// Hands a batch over. The core gives no more at once than there is room for.
    pub fn persist(&mut self, batch: Batch) {
        self.newest = batch.id;
        if let Some(commits) = &self.commits {
            // A committing thread that ended has said why.
            let _ended = commits.try_send(batch);
        }
    }

    /// Hands a question over, once what it must see is committed.
    pub fn load(&mut self, load: LoadId, range: KeyRange) {
        self.held.push_back((self.newest, load, range));
        self.release();
    }

    fn release(&mut self) {
        while let Some((batch, load, range)) = self.held.pop_front_if(|(batch, _, _)| *batch <= self.durable)
        {
            let Some(loads) = &self.loads else { return };
            if let Err(std::sync::mpsc::TrySendError::Full((load, range))) = loads.try_send((load, range)) {
                self.held.push_front((batch, load, range));
                return;
            }
        }
    }

    /// What the threads have done since, as a fact for the core.
    pub fn take_done(&mut self) -> Option<Input<'static>> {
        let input = match self.done.try_recv().ok()? {
            Done::Persisted(batch) => {
                self.durable = batch;
                Input::Persisted { batch }
            }
            Done::Failed(batch) => Input::PersistFailed { batch },
            Done::Loaded(load, answer) => Input::Loaded { load, answer },
        };
        self.release();
        Some(input)
    }

    /// Ends both threads: everything that was handed over is committed, and the store is closed.
    pub fn close(&mut self) {
        self.commits = None;
        self.loads = None;
        // A thread that still has something to say must not wait for a loop that has ended.
        while self.threads.iter().any(|thread| !thread.is_finished()) {
            let _answer = self.done.recv_timeout(std::time::Duration::from_millis(1));
        }
        for thread in self.threads.drain(..) {
            let _panicked = thread.join();
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.close();
    }
}
