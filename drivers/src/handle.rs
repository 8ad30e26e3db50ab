//! What a front end holds of a running driver.

use crate::limits::{COMMANDS, EVENTS};
use mio::Waker;
use peerlink_core::api::{Command, Event, Refused, Stats};
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// The driver has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the node has stopped")]
pub struct Gone;

pub(crate) enum Job {
    Command(Command, SyncSender<Result<(), Refused>>),
    Stats(SyncSender<Stats>),
}

/// Commands to a running node, from any thread.
#[derive(Debug, Clone)]
pub struct Handle {
    jobs: SyncSender<Job>,
    waker: Arc<Waker>,
    listening: Arc<[SocketAddr]>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Job")
    }
}

impl Handle {
    pub(crate) fn new(waker: Arc<Waker>, listening: Vec<SocketAddr>) -> (Self, Receiver<Job>) {
        let (jobs, receiver) = sync_channel(COMMANDS);
        (Self { jobs, waker, listening: listening.into(), thread: Arc::default() }, receiver)
    }

    pub(crate) fn runs(&self, thread: JoinHandle<()>) {
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
    }

    fn ask<T>(&self, job: impl FnOnce(SyncSender<T>) -> Job) -> Result<T, Gone> {
        let (answer, answered) = sync_channel(1);
        self.jobs.send(job(answer)).map_err(|_| Gone)?;
        self.waker.wake().map_err(|_| Gone)?;
        answered.recv().map_err(|_| Gone)
    }

    /// Gives a command to the node and waits for its answer (not for what it leads to: that comes as events).
    ///
    /// # Errors
    /// `Gone` if the driver has ended. The inner result is the node's.
    pub fn command(&self, command: Command) -> Result<Result<(), Refused>, Gone> {
        self.ask(|answer| Job::Command(command, answer))
    }

    /// The node's counters; zeros if it has ended.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.ask(Job::Stats).unwrap_or_default()
    }

    /// The addresses that are listened on, with their real ports.
    #[must_use]
    pub fn listen_addresses(&self) -> Vec<SocketAddr> {
        self.listening.to_vec()
    }

    /// Says goodbye to every peer, makes everything durable, closes the store, and waits for all of it.
    pub fn shutdown(&self) {
        let _ended_already = self.command(Command::Shutdown);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _panicked = thread.join();
        }
    }
}

/// What a front end is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    Event(Event),
    /// The front end was slow, and events are missing here. The store is the truth.
    Lagged,
}

/// The stream of events. Bounded: events are hints, and a slow reader is told that it missed some.
#[derive(Debug)]
pub struct Events(Receiver<Notice>);

impl Events {
    /// The next notice; `None` when the driver has ended.
    #[must_use]
    pub fn recv(&self) -> Option<Notice> {
        self.0.recv().ok()
    }

    /// The next notice within this time.
    ///
    /// # Errors
    /// `Gone` if the driver has ended.
    pub fn recv_timeout(&self, within: Duration) -> Result<Option<Notice>, Gone> {
        match self.0.recv_timeout(within) {
            Ok(notice) => Ok(Some(notice)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(Gone),
        }
    }
}

/// The driver's end of the stream of events.
#[derive(Debug)]
pub(crate) struct Announcer {
    notices: SyncSender<Notice>,
    missed: bool,
}

impl Announcer {
    pub(crate) fn new() -> (Self, Events) {
        let (notices, receiver) = sync_channel(EVENTS);
        (Self { notices, missed: false }, Events(receiver))
    }

    pub(crate) fn tell(&mut self, event: Event) {
        if self.missed && self.notices.try_send(Notice::Lagged).is_ok() {
            self.missed = false;
        }
        if self.missed || matches!(self.notices.try_send(Notice::Event(event)), Err(TrySendError::Full(_))) {
            self.missed = true;
        }
    }
}
