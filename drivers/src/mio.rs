//! The mio driver: one thread that waits for sockets, timers, the storage threads and front ends, and never for a disk.
//!
//! A turn: take what the kernel, the storage threads and the front ends have; hand it all to the node; then carry out
//! everything that the node wants. So all that one wake-up brought shares one batch and one fsync.

use crate::addresses;
use crate::clock::{self, Watch};
use crate::disk::Disk;
use crate::handle::{Announcer, Events, Handle, Job};
use crate::limits::{
    ACCEPT_RETRY, ACCEPT_TURN, BACKLOG, CLOSE_GRACE, POLL_EVENTS, READ_BYTES, READ_TURN_BYTES,
};
use crate::streams::{Got, State, Stream, Wrote, dial_failure};
use mio::event::Event as Readiness;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Poll, Token, Waker};
use peerlink_core::Node;
use peerlink_core::api::{DialFailure, Event, Input, Loader, Output, Store, StreamEnd};
use peerlink_core::ids::StreamId;
use peerlink_core::time::Instant;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

const WAKE: Token = Token(usize::MAX);

/// What a driver needs to know.
#[derive(Debug, Clone, Default)]
pub struct DriverConfig {
    /// Where to listen; port 0 takes a free one.
    pub listen: Vec<SocketAddr>,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// The mio driver.
#[derive(Debug)]
pub struct Driver {
    poll: Poll,
    node: Node,
    disk: Disk,
    jobs: Receiver<Job>,
    announcer: Announcer,
    listeners: Vec<TcpListener>,
    listening: Vec<SocketAddr>,
    accept_again: Option<Instant>,
    accept_left: bool,
    streams: BTreeMap<StreamId, Stream>,
    next_accepted: u64,
    /// Facts that carrying out an effect brought at once.
    facts: Vec<Input<'static>>,
    watch: Watch,
    buffer: Vec<u8>,
    stop_by: Option<Instant>,
}

impl Driver {
    /// Runs `node` on its own threads until [`Handle::shutdown`].
    ///
    /// # Errors
    /// `StartError` if an address cannot be listened on, or the system gives no poll, waker or thread. An IPv6
    /// address on a machine without IPv6 is passed over if another address works.
    pub fn start(
        node: Node,
        store: impl Store + 'static,
        loader: impl Loader + 'static,
        config: DriverConfig,
    ) -> Result<(Handle, Events), StartError> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let (mut listeners, listening) = listen(&config.listen)?;
        for (at, listener) in listeners.iter_mut().enumerate() {
            poll.registry().register(listener, Token(at), Interest::READABLE)?;
        }
        let wake = waker.clone();
        let disk = Disk::start(store, loader, Arc::new(move || drop(wake.wake())))?;
        let (handle, jobs) = Handle::new(waker, listening.clone());
        let (announcer, events) = Announcer::new();
        let driver = Self {
            poll,
            node,
            disk,
            jobs,
            announcer,
            listeners,
            listening,
            accept_again: None,
            accept_left: false,
            streams: BTreeMap::new(),
            next_accepted: 1,
            facts: Vec::new(),
            watch: Watch::new(clock::now(), clock::wall()),
            buffer: vec![0; READ_BYTES],
            stop_by: None,
        };
        handle.runs(std::thread::Builder::new().name("node".into()).spawn(move || driver.run())?);
        Ok((handle, events))
    }

    fn run(mut self) {
        let now = clock::now();
        self.node.handle(now, Input::WallClock(clock::wall()));
        self.tell_addresses(now);
        let mut events = mio::Events::with_capacity(POLL_EVENTS);
        loop {
            self.carry_out();
            if self.is_over() {
                return;
            }
            let timeout = self.timeout();
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return,
                // After an interruption the set may hold the events of the turn before.
                Err(_) => events.clear(),
                Ok(()) => {}
            }
            self.turn(&events);
        }
    }

    /// Everything is closed, and the last bytes went out or had their time.
    fn is_over(&self) -> bool {
        self.stop_by.is_some_and(|by| self.streams.is_empty() || clock::now() >= by)
    }

    fn timeout(&self) -> Option<Duration> {
        if self.accept_left || self.streams.iter().any(|(id, stream)| self.wants_read(*id, stream)) {
            return Some(Duration::ZERO);
        }
        let streams = self.streams.values().filter_map(Stream::deadline);
        let next = streams.chain(self.node.deadline()).chain(self.accept_again).chain(self.stop_by).min()?;
        let wait = next.saturating_since(clock::now());
        // The kernel counts milliseconds; rounded down, the loop would spin through the last one.
        Some(Duration::from_millis(u64::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(u64::MAX)))
    }

    fn wants_read(&self, id: StreamId, stream: &Stream) -> bool {
        stream.readable && stream.state == State::Open && self.node.read_budget(id) > 0
    }

    /// Hands everything that came to the node.
    fn turn(&mut self, events: &mio::Events) {
        let now = clock::now();
        if self.watch.jumped(now, clock::wall()) {
            self.node.handle(now, Input::WallClock(clock::wall()));
            self.tell_addresses(now);
        }
        while let Some(input) = self.disk.take_done() {
            self.node.handle(now, input);
        }
        for event in events {
            match event.token() {
                WAKE => {}
                Token(at) if at < self.listeners.len() => self.accept(at, now),
                Token(token) => self.readiness(StreamId((token - self.listeners.len()) as u64), event, now),
            }
        }
        if self.accept_left || self.accept_again.is_some_and(|at| at <= now) {
            self.accept_left = false;
            self.accept_again = None;
            for at in 0..self.listeners.len() {
                self.accept(at, now);
            }
        }
        self.read_all(now);
        self.take_jobs(now);
        self.due(now);
        self.node.handle(now, Input::Tick);
    }

    fn take_jobs(&mut self, now: Instant) {
        while let Ok(job) = self.jobs.try_recv() {
            // Who asked may have gone.
            match job {
                Job::Command(command, answer) => drop(answer.try_send(self.node.command(now, command))),
                Job::Stats(answer) => drop(answer.try_send(self.node.stats())),
            }
        }
    }

    fn tell_addresses(&mut self, now: Instant) {
        self.node.handle(now, Input::LocalAddresses(addresses::local(&self.listening)));
    }

    // --- in --------------------------------------------------------------------------------------------------

    fn token(&self, id: StreamId) -> Token {
        Token(usize::try_from(id.0).unwrap_or(usize::MAX).saturating_add(self.listeners.len()))
    }

    fn accept(&mut self, at: usize, now: Instant) {
        for _ in 0..ACCEPT_TURN {
            let Some(listener) = self.listeners.get(at) else { return };
            match listener.accept() {
                Ok((socket, remote)) => self.accepted(socket, remote, now),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // The peer went before we came (accept(2)).
                Err(error)
                    if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                Err(_) => {
                    // No descriptor is free. The edge is gone, so nobody would wake us for those who wait.
                    self.accept_again = Some(now + ACCEPT_RETRY);
                    return;
                }
            }
        }
        self.accept_left = true;
    }

    fn accepted(&mut self, mut socket: TcpStream, remote: SocketAddr, now: Instant) {
        let stream = StreamId(self.next_accepted);
        self.next_accepted += 2;
        let token = self.token(stream);
        let interests = Interest::READABLE | Interest::WRITABLE;
        if self.poll.registry().register(&mut socket, token, interests).is_err() {
            return;
        }
        // Without it a message waits for the acknowledgement of the one before (RFC 896). A kernel that refuses is
        // slower, not wrong.
        let _slower = socket.set_nodelay(true);
        self.streams.insert(stream, Stream::new(socket, State::Open));
        self.node.handle(now, Input::StreamAccepted { stream, remote });
    }

    fn readiness(&mut self, id: StreamId, event: &Readiness, now: Instant) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        match stream.state {
            State::Dialling { .. } => match stream.dialled() {
                None => {}
                Some(Ok(())) => self.connected(id, now),
                Some(Err(why)) => self.dial_failed(id, why, now),
            },
            State::Open if event.is_writable() && stream.is_writing() => {
                let wrote = stream.write();
                self.wrote(id, wrote);
            }
            State::Open => {}
            State::Closing { .. } => {
                if stream.go_on_closing(&mut self.buffer) {
                    self.streams.remove(&id);
                }
            }
        }
        self.tell_facts(now);
    }

    fn connected(&mut self, id: StreamId, now: Instant) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.state = State::Open;
        let _slower = stream.socket.set_nodelay(true);
        match stream.socket.local_addr() {
            Ok(local) => self.node.handle(now, Input::StreamConnected { stream: id, local }),
            Err(error) => self.dial_failed(id, dial_failure(&error), now),
        }
    }

    fn dial_failed(&mut self, id: StreamId, why: DialFailure, now: Instant) {
        self.streams.remove(&id);
        self.node.handle(now, Input::DialFailed { stream: id, why });
        if why == DialFailure::Unreachable {
            // Perhaps this machine is somewhere else now.
            self.tell_addresses(now);
        }
    }

    fn tell_facts(&mut self, now: Instant) {
        for fact in std::mem::take(&mut self.facts) {
            self.node.handle(now, fact);
        }
    }

    /// Reads every stream as far as its budget and its turn go.
    fn read_all(&mut self, now: Instant) {
        let ready: Vec<StreamId> = self
            .streams
            .iter()
            .filter(|(id, stream)| self.wants_read(**id, stream))
            .map(|(id, _)| *id)
            .collect();
        for id in ready {
            self.read(id, now);
        }
    }

    fn read(&mut self, id: StreamId, now: Instant) {
        let mut turn = READ_TURN_BYTES;
        while let Some(stream) = self.streams.get_mut(&id) {
            let budget = self.node.read_budget(id).min(self.buffer.len()).min(turn);
            let Some(buffer) = self.buffer.get_mut(..budget).filter(|buffer| !buffer.is_empty()) else {
                return;
            };
            let end = match stream.read(buffer) {
                Got::Bytes(count) => {
                    turn -= count;
                    let bytes = buffer.get(..count).unwrap_or_default();
                    self.node.handle(now, Input::StreamData { stream: id, bytes });
                    continue;
                }
                Got::Nothing => return,
                Got::End => StreamEnd::Finished,
                Got::Broken => StreamEnd::Broken,
            };
            self.streams.remove(&id);
            self.node.handle(now, Input::StreamClosed { stream: id, why: end });
        }
    }

    fn due(&mut self, now: Instant) {
        let due = |(id, stream): (&StreamId, &Stream)| {
            stream.deadline().filter(|at| *at <= now).map(|_| (*id, stream.state))
        };
        let due: Vec<(StreamId, State)> = self.streams.iter().filter_map(due).collect();
        for (id, state) in due {
            match state {
                State::Dialling { .. } => self.dial_failed(id, DialFailure::TimedOut, now),
                State::Closing { .. } => drop(self.streams.remove(&id)),
                State::Open => {}
            }
        }
    }

    // --- out -------------------------------------------------------------------------------------------------

    /// Carries out everything that the node wants, and what follows from that, until it wants nothing.
    fn carry_out(&mut self) {
        loop {
            while let Some(output) = self.node.poll() {
                self.effect(output);
            }
            if self.facts.is_empty() {
                return;
            }
            self.tell_facts(clock::now());
        }
    }

    fn effect(&mut self, output: Output) {
        match output {
            Output::Dial { stream, remote, timeout } => self.dial(stream, remote, timeout),
            Output::Write { stream, bytes } => {
                if let Some(open) = self.streams.get_mut(&stream) {
                    let wrote = open.begin_write(bytes);
                    self.wrote(stream, wrote);
                }
            }
            Output::Close { stream, flush } => self.close(stream, flush),
            // What is readable is read in the next turn, which `timeout` sees.
            Output::ReadReady { stream: _ } => {}
            Output::Persist(batch) => self.disk.persist(batch),
            Output::Load { load, range } => self.disk.load(load, range),
            Output::Event(event) => {
                if event == Event::Stopped {
                    self.stop_by = Some(clock::now() + CLOSE_GRACE);
                }
                self.announcer.tell(event);
            }
        }
    }

    fn dial(&mut self, stream: StreamId, remote: SocketAddr, timeout: Duration) {
        let token = self.token(stream);
        let dialled = TcpStream::connect(remote).and_then(|mut socket| {
            self.poll.registry().register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
            Ok(socket)
        });
        match dialled {
            Ok(socket) => {
                let until = clock::now() + timeout;
                self.streams.insert(stream, Stream::new(socket, State::Dialling { until }));
            }
            Err(error) => self.facts.push(Input::DialFailed { stream, why: dial_failure(&error) }),
        }
    }

    fn wrote(&mut self, stream: StreamId, wrote: Wrote) {
        match wrote {
            Wrote::All => self.facts.push(Input::StreamWritten { stream }),
            Wrote::Some => {}
            Wrote::Broken => {
                self.streams.remove(&stream);
                self.facts.push(Input::StreamClosed { stream, why: StreamEnd::Broken });
            }
        }
    }

    fn close(&mut self, id: StreamId, flush: bool) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.close(clock::now());
        if !flush || stream.go_on_closing(&mut self.buffer) {
            self.streams.remove(&id);
        }
        self.facts.push(Input::StreamClosed { stream: id, why: StreamEnd::Local });
    }
}

/// Listeners for these addresses. IPv6 sockets take IPv6 alone, so that both families can have the same port.
fn listen(wanted: &[SocketAddr]) -> Result<(Vec<TcpListener>, Vec<SocketAddr>), StartError> {
    let mut sockets = Vec::new();
    let mut failed = None;
    for &address in wanted.iter().collect::<BTreeSet<_>>() {
        let open = || {
            let socket =
                socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
            if address.is_ipv6() {
                socket.set_only_v6(true)?;
            }
            // A port whose last connections are still in TIME_WAIT is ours to take again.
            socket.set_reuse_address(true)?;
            socket.set_nonblocking(true)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            let listener = std::net::TcpListener::from(socket);
            let bound = listener.local_addr()?;
            Ok((TcpListener::from_std(listener), bound))
        };
        match open() {
            Ok(open) => sockets.push(open),
            Err(source) => {
                let source: io::Error = source;
                let no_ipv6 = address.is_ipv6()
                    && (source.kind() == ErrorKind::AddrNotAvailable || source.raw_os_error() == Some(97));
                if !no_ipv6 {
                    return Err(StartError::Listen { address, source });
                }
                failed = Some(StartError::Listen { address, source });
            }
        }
    }
    match failed {
        Some(error) if sockets.is_empty() => Err(error),
        _ => Ok(sockets.into_iter().unzip()),
    }
}
