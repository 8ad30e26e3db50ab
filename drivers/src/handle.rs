//! The front end's side of a running driver.

use crate::bell::Bell;
use crate::limits::{COMMANDS, REPLIES};
use crate::shell::Carried;
use peerlink_core::api::{Command, Refusal, Refused, Stats};
use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// The driver has ended, or one of its threads panicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the node is not running any more")]
pub struct Gone;

/// Why a driver did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("more than {} addresses to listen on", crate::limits::LISTENERS)]
    TooManyListeners,
    #[error("the system refused what a node needs: {0}")]
    System(#[from] io::Error),
}

/// What the loop is asked.
#[derive(Debug)]
pub(crate) enum Request {
    Command(Box<Command>, SyncSender<Result<(), Box<Refused>>>),
    /// In order; answered by those that were refused.
    Commands(Vec<Command>, SyncSender<Vec<Refused>>),
    Stats(SyncSender<(Stats, Carried)>),
    /// End now: the machine would not stop by itself.
    Halt,
}

#[derive(Debug)]
struct Front {
    requests: SyncSender<Request>,
    bell: Arc<Bell>,
    listen: Vec<SocketAddr>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Front {
    fn drop(&mut self) {
        self.bell.abandon();
    }
}

/// Commands a running node. Clones are the same node; when the last is dropped, the node shuts down by itself.
#[derive(Debug, Clone)]
pub struct Handle(Arc<Front>);

impl Handle {
    pub(crate) fn new(
        requests: SyncSender<Request>,
        bell: Arc<Bell>,
        listen: Vec<SocketAddr>,
        thread: JoinHandle<()>,
    ) -> Self {
        Self(Arc::new(Front { requests, bell, listen, thread: Mutex::new(Some(thread)) }))
    }

    fn ask<T>(&self, request: impl FnOnce(SyncSender<T>) -> Request) -> Result<T, Gone> {
        let (reply, answer) = sync_channel(REPLIES);
        self.0.requests.send(request(reply)).map_err(|_| Gone)?;
        self.0.bell.ring();
        answer.recv().map_err(|_| Gone)
    }

    /// Asks the node for something, and waits for its answer (not for the disk: that comes as an event).
    ///
    /// # Errors
    /// `Gone` outside if the node has ended; inside, the command, whole, and why it was refused.
    pub fn command(&self, command: Command) -> Result<Result<(), Refused>, Gone> {
        let answer = self.ask(|reply| Request::Command(Box::new(command), reply))?;
        Ok(answer.map_err(|refused| *refused))
    }

    /// Asks for several things in order, for one wake-up of the loop and, as a rule, one fsync. Gives back what was
    /// refused.
    ///
    /// # Errors
    /// `Gone` if the node has ended; some may have been taken.
    pub fn commands(&self, commands: impl IntoIterator<Item = Command>) -> Result<Vec<Refused>, Gone> {
        let (mut commands, mut refused) = (commands.into_iter(), Vec::new());
        loop {
            let some: Vec<Command> = commands.by_ref().take(COMMANDS).collect();
            if some.is_empty() {
                return Ok(refused);
            }
            refused.extend(self.ask(|reply| Request::Commands(some, reply))?);
        }
    }

    /// What the node counted since its start; zeros if it has ended.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.ask(Request::Stats).unwrap_or_default().0
    }

    /// What its driver counted since its start; zeros if it has ended.
    #[must_use]
    pub fn carried(&self) -> Carried {
        self.ask(Request::Stats).unwrap_or_default().1
    }

    /// Where the node listens, ports filled in.
    #[must_use]
    pub fn listen_addresses(&self) -> Vec<SocketAddr> {
        self.0.listen.clone()
    }

    /// Stops in good order: everything durable, sessions closed, store closed, threads ended. Waits for the disk as
    /// long as it takes. Called twice, or by two, each call returns when the node has ended. Events then end with
    /// `Stopped`; without it, a thread of the driver panicked.
    pub fn shutdown(&self) {
        match self.command(Command::Shutdown) {
            Ok(Ok(()) | Err(Refused { why: Refusal::Stopping, .. })) | Err(Gone) => {}
            Ok(Err(_)) => {
                // An error says that the loop has ended already.
                let _ = self.0.requests.send(Request::Halt);
                self.0.bell.ring();
            }
        }
        // Held while joining, so that a second caller waits too.
        let mut thread = self.0.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            // A panic is told by the missing `Stopped`.
            let _ = thread.join();
        }
    }
}
