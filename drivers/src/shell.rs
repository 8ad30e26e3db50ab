//! What every driver does alike, however it waits for sockets: facts into the machine, outputs to where they belong,
//! commands answered, and an end in good order.

use crate::bell::Bell;
use crate::disk::Disk;
use crate::handle::Request;
use crate::limits::{IDLE_TURNS, REQUESTS, TURN_ROUNDS};
use crate::machine::Machine;
use crate::notices::Notices;
use bytes::Bytes;
use peerlink_core::api::{Command, Event, Input, Output};
use peerlink_core::ids::StreamId;
use peerlink_core::limits::SHUTDOWN_MAX;
use peerlink_core::time::{Duration, Instant};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};

/// Counts of a driver since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Carried {
    pub accepted: u64,
    pub dialled: u64,
    /// The system refused to accept a connection, for want of a descriptor or of memory, or it was gone already.
    pub accept_errors: u64,
    /// Streams open now.
    pub streams: u64,
    pub bytes_read: u64,
    pub bytes_written: u64,
    pub datagrams_read: u64,
    pub datagrams_written: u64,
    /// The system had no room for them.
    pub datagrams_unsent: u64,
    /// The system would not send them at all, or said that somebody did not take one.
    pub datagram_errors: u64,
}

/// What carries streams and datagrams.
pub(crate) trait Carrier {
    fn dial(&mut self, now: Instant, stream: StreamId, remote: SocketAddr, timeout: Duration);
    fn write(&mut self, now: Instant, stream: StreamId, bytes: Bytes);
    fn close(&mut self, now: Instant, stream: StreamId, flush: bool);
    fn read_ready(&mut self, stream: StreamId);
    /// Sends one, or loses it.
    fn datagram(&mut self, remote: SocketAddr, ttl: Option<u8>, bytes: &[u8]);
    /// What has happened and was not told yet.
    fn next_fact(&mut self) -> Option<Input<'static>>;
    fn carried(&self) -> Carried;
}

/// The machine with all that is not a socket.
#[derive(Debug)]
pub(crate) struct Shell<M> {
    machine: M,
    disk: Disk,
    notices: Notices,
    requests: Receiver<Request>,
    bell: Arc<Bell>,
    stopping: bool,
    /// The machine said that it stopped; until then, streams have time for their last bytes.
    stopped: Option<Instant>,
    halted: bool,
    moved: bool,
    idle_turns: u32,
}

impl<M: Machine> Shell<M> {
    pub(crate) fn new(
        machine: M,
        disk: Disk,
        notices: Notices,
        requests: Receiver<Request>,
        bell: Arc<Bell>,
    ) -> Self {
        Self {
            machine,
            disk,
            notices,
            requests,
            bell,
            stopping: false,
            stopped: None,
            halted: false,
            moved: false,
            idle_turns: 0,
        }
    }

    /// Tells the machine a fact. Outputs wait for [`Self::turn`].
    pub(crate) fn fact(&mut self, now: Instant, input: Input<'_>) {
        self.moved = true;
        self.machine.handle(now, input);
    }

    pub(crate) fn read_budget(&self, stream: StreamId) -> usize {
        self.machine.read_budget(stream)
    }

    /// Everything that `carrier` has seen and not told.
    pub(crate) fn facts(&mut self, now: Instant, carrier: &mut impl Carrier) -> bool {
        let mut any = false;
        while let Some(fact) = carrier.next_fact() {
            self.fact(now, fact);
            any = true;
        }
        any
    }

    /// All inputs that wait, then all outputs, and again while carrying out brings facts at once, but not so often
    /// that sockets are forgotten.
    pub(crate) fn turn(&mut self, clock: impl Fn() -> Instant, carrier: &mut impl Carrier) {
        self.bell.heard();
        for round in 0..TURN_ROUNDS {
            let now = clock();
            let any = self.facts(now, carrier) | self.answers(now);
            if round == 0 {
                self.asked(now, carrier);
                if self.machine.deadline().is_some_and(|due| due <= now) {
                    self.machine.handle(now, Input::Tick);
                }
            } else if !any {
                break;
            }
            self.outputs(now, carrier);
        }
        let stuck = !self.moved && self.machine.deadline().is_some_and(|due| due <= clock());
        self.idle_turns = if stuck { self.idle_turns.saturating_add(1) } else { 0 };
        self.moved = false;
    }

    /// The machine keeps saying that something is due, and nothing comes of it: its fault, which must not become a
    /// busy loop.
    pub(crate) fn is_stuck(&self) -> bool {
        self.idle_turns > IDLE_TURNS
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.machine.deadline().into_iter().chain(self.stopped).min()
    }

    /// Nothing more is to be done: end the loop.
    pub(crate) fn over(&self, now: Instant, carrier: &impl Carrier) -> bool {
        let sent = self.stopped.is_some_and(|until| now >= until || carrier.carried().streams == 0);
        sent || self.halted || self.bell.died()
    }

    fn answers(&mut self, now: Instant) -> bool {
        let mut any = false;
        while let Some(answer) = self.disk.take_done() {
            self.fact(now, answer);
            any = true;
        }
        any
    }

    /// Something is left to tell the machine without waiting.
    pub(crate) fn has_work(&self) -> bool {
        self.disk.has_known()
    }

    fn asked(&mut self, now: Instant, carrier: &impl Carrier) {
        for _ in 0..REQUESTS {
            match self.requests.try_recv() {
                // A caller that does not wait for the answer does not want it.
                Ok(Request::Command(command, reply)) => {
                    self.moved = true;
                    self.stopping |= *command == Command::Shutdown;
                    let _ = reply.send(self.machine.command(now, *command).map_err(Box::new));
                }
                Ok(Request::Commands(commands, reply)) => {
                    self.moved = true;
                    self.stopping |= commands.contains(&Command::Shutdown);
                    let refused =
                        commands.into_iter().filter_map(|command| self.machine.command(now, command).err());
                    let _ = reply.send(refused.collect());
                }
                Ok(Request::Stats(reply)) => {
                    let _ = reply.send((self.machine.stats(), carrier.carried()));
                }
                Ok(Request::Halt) => self.halted = true,
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => {
                    if self.bell.abandoned() && !self.stopping {
                        self.stopping = true;
                        self.moved = true;
                        self.halted = self.machine.command(now, Command::Shutdown).is_err();
                    }
                    return;
                }
            }
        }
        // There may be more: come again.
        self.bell.ring();
    }

    fn outputs(&mut self, now: Instant, carrier: &mut impl Carrier) {
        while let Some(output) = self.machine.poll() {
            self.moved = true;
            match output {
                Output::Dial { stream, remote, timeout } => carrier.dial(now, stream, remote, timeout),
                Output::Write { stream, bytes } => carrier.write(now, stream, bytes),
                Output::Close { stream, flush } => carrier.close(now, stream, flush),
                Output::ReadReady { stream } => carrier.read_ready(stream),
                Output::Datagram { remote, ttl, bytes } => carrier.datagram(remote, ttl, &bytes),
                Output::Persist(batch) => self.disk.persist(batch),
                Output::Load { load, range } => self.disk.load(load, range),
                // Told when it is true for the store too.
                Output::Event(Event::Stopped) => self.stopped = Some(now + SHUTDOWN_MAX),
                Output::Event(event) => self.notices.push(event),
            }
        }
        self.notices.wake();
    }

    /// Closes the store and lets the front end know. Streams must be gone.
    pub(crate) fn close(self) {
        let Self { disk, notices, bell, requests, stopped, .. } = self;
        // Whoever asks from now on is told that nobody is here, and does not wait for the disk.
        drop(requests);
        disk.close();
        if stopped.is_some() && !bell.died() {
            notices.push(Event::Stopped);
        }
    }
}
