//! All sockets of a node: listeners, streams, their timers, and the list of streams to read.

use super::datagrams::{Datagrams, FAMILIES};
use super::link::{Got, Link, Phase, Sent, dial_failure};
use crate::handle::StartError;
use crate::limits::{
    ACCEPT_RETRY, BACKLOG, FLUSH_MAX, LINGER_MAX, LISTENERS, READ_BYTES, STREAMS, TURN_ACCEPTS, TURN_READS,
};
use crate::machine::Machine;
use crate::shell::{Carried, Carrier, Shell};
use ::mio::event::Event;
use ::mio::net::{TcpListener, TcpStream};
use ::mio::{Interest, Registry, Token};
use bytes::Bytes;
use peerlink_core::api::{DialFailure, Input, StreamEnd};
use peerlink_core::ids::StreamId;
use peerlink_core::time::{Duration, Instant};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::{Shutdown, SocketAddr};

/// Tokens: the waker, the alarm, then the listeners, the sockets for datagrams, and the streams by their ids.
pub(super) const WAKER: usize = 0;
pub(super) const ALARM: usize = 1;
const FIRST_LISTENER: usize = 2;
const FIRST_DATAGRAMS: usize = FIRST_LISTENER + LISTENERS;
const FIRST_STREAM: usize = FIRST_DATAGRAMS + FAMILIES;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Accept,
    Stream(StreamId),
}

#[derive(Debug)]
pub(super) struct Net {
    registry: Registry,
    listeners: Vec<TcpListener>,
    /// By listener: connections may wait to be accepted.
    acceptable: Vec<bool>,
    datagrams: Datagrams,
    /// Accepting rests until the timer, because the system had no room.
    resting: bool,
    /// The next accepted stream's id: odd.
    next_accepted: u64,
    links: BTreeMap<StreamId, Link>,
    /// Streams with something to read and a budget, each once, in order of their turn.
    to_read: VecDeque<StreamId>,
    timers: BTreeSet<(Instant, Timer)>,
    facts: VecDeque<Input<'static>>,
    buffer: Box<[u8]>,
    unreachable: bool,
    carried: Carried,
}

/// Binds all of `addresses`, or none.
pub(super) fn listen(addresses: &[SocketAddr]) -> Result<Vec<(TcpListener, SocketAddr)>, StartError> {
    let mut listeners = Vec::new();
    let mut left_out = None;
    for address in addresses {
        match bind(*address) {
            Ok(listener) => listeners.push(listener),
            Err(source) => {
                let failed = StartError::Listen { address: *address, source };
                if !is_missing_ipv6(&failed) {
                    return Err(failed);
                }
                left_out = Some(failed);
            }
        }
    }
    match left_out {
        Some(failed) if listeners.is_empty() => Err(failed),
        _ => Ok(listeners),
    }
}

/// "Everywhere, on IPv6 too" on a machine that has no IPv6 means everywhere.
fn is_missing_ipv6(error: &StartError) -> bool {
    let StartError::Listen { address, source } = error else { return false };
    address.is_ipv6()
        && address.ip().is_unspecified()
        && (matches!(source.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported)
            // EAFNOSUPPORT has no kind of its own.
            || (cfg!(target_os = "linux") && source.raw_os_error() == Some(97)))
}

fn bind(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A restart must not wait for old connections to be forgotten. On Windows this option means something else.
    if cfg!(unix) {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    let listener = TcpListener::from_std(socket.into());
    let bound = listener.local_addr()?;
    Ok((listener, bound))
}

fn token(stream: StreamId) -> Option<Token> {
    usize::try_from(stream.0).ok()?.checked_add(FIRST_STREAM).map(Token)
}

impl Net {
    pub(super) fn new(registry: Registry, listeners: Vec<(TcpListener, SocketAddr)>) -> io::Result<Self> {
        let bound: Vec<SocketAddr> = listeners.iter().map(|(_, address)| *address).collect();
        let datagrams = Datagrams::beside(&bound, &registry, FIRST_DATAGRAMS);
        let mut listeners: Vec<TcpListener> = listeners.into_iter().map(|(listener, _)| listener).collect();
        for (index, listener) in listeners.iter_mut().enumerate() {
            registry.register(listener, Token(FIRST_LISTENER + index), Interest::READABLE)?;
        }
        Ok(Self {
            registry,
            acceptable: vec![false; listeners.len()],
            listeners,
            datagrams,
            resting: false,
            next_accepted: 1,
            links: BTreeMap::new(),
            to_read: VecDeque::new(),
            timers: BTreeSet::new(),
            facts: VecDeque::new(),
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            unreachable: false,
            carried: Carried::default(),
        })
    }

    /// What one socket said. Nothing is read here: each stream waits for its turn.
    pub(super) fn event(&mut self, now: Instant, event: &Event) {
        let Token(token) = event.token();
        if let Some(index) = token.checked_sub(FIRST_STREAM) {
            self.stream_event(now, StreamId(index as u64), event);
        } else if let Some(index) = token.checked_sub(FIRST_DATAGRAMS) {
            self.datagrams.event(index);
        } else if let Some(index) = token.checked_sub(FIRST_LISTENER)
            && let Some(acceptable) = self.acceptable.get_mut(index)
        {
            *acceptable = true;
        }
    }

    fn stream_event(&mut self, now: Instant, stream: StreamId, event: &Event) {
        let Some(link) = self.links.get_mut(&stream) else { return };
        if link.phase == Phase::Dialling {
            match link.connected() {
                None => return,
                Some(Err(why)) => return self.dial_failed(stream, why),
                Some(Ok(())) => self.connected(stream),
            }
        }
        let Some(link) = self.links.get_mut(&stream) else { return };
        link.read_closed |= event.is_read_closed() || event.is_error();
        link.broken |= event.is_error();
        if event.is_readable() || link.read_closed {
            link.readable = true;
            self.list(stream);
        }
        if event.is_writable() {
            self.send(now, stream);
        }
    }

    fn connected(&mut self, stream: StreamId) {
        self.set_timer(stream, None);
        let Some(link) = self.links.get_mut(&stream) else { return };
        link.phase = Phase::Open;
        // Without it a message waits for the acknowledgement of the one before; with an error it merely does.
        let _ = link.socket.set_nodelay(true);
        match link.socket.local_addr() {
            Ok(local) => self.facts.push_back(Input::StreamConnected { stream, local }),
            Err(_) => self.dial_failed(stream, DialFailure::Local),
        }
    }

    fn dial_failed(&mut self, stream: StreamId, why: DialFailure) {
        self.unreachable |= why == DialFailure::Unreachable;
        self.forget(stream);
        self.facts.push_back(Input::DialFailed { stream, why });
    }

    /// Timers that are due.
    pub(super) fn due(&mut self, now: Instant) {
        while let Some((at, timer)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, timer));
            match timer {
                Timer::Accept => self.resting = false,
                Timer::Stream(stream) => match self.links.get(&stream).map(|link| link.phase) {
                    Some(Phase::Dialling) => self.dial_failed(stream, DialFailure::TimedOut),
                    Some(Phase::Open | Phase::Closing) => self.end(stream, StreamEnd::Local),
                    None => {}
                },
            }
        }
    }

    /// Accepts what waits, of each listener a few.
    pub(super) fn accept(&mut self, now: Instant) {
        for index in 0..self.listeners.len() {
            for _ in 0..TURN_ACCEPTS {
                if self.resting || self.acceptable.get(index) != Some(&true) {
                    break;
                }
                if self.links.len() >= STREAMS {
                    return self.rest(now);
                }
                let Some(listener) = self.listeners.get(index) else { break };
                match listener.accept() {
                    Ok((socket, remote)) => self.accepted(socket, remote),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        if let Some(acceptable) = self.acceptable.get_mut(index) {
                            *acceptable = false;
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    // That connection was gone before we took it; the next one may be there.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {
                        self.carried.accept_errors += 1;
                    }
                    // No descriptor, no memory: the connection still waits, and no edge will tell of it again.
                    Err(_) => {
                        self.carried.accept_errors += 1;
                        return self.rest(now);
                    }
                }
            }
        }
    }

    fn rest(&mut self, now: Instant) {
        self.resting = true;
        self.timers.insert((now + ACCEPT_RETRY, Timer::Accept));
    }

    fn accepted(&mut self, mut socket: TcpStream, remote: SocketAddr) {
        let stream = StreamId(self.next_accepted);
        self.next_accepted += 2;
        // As in `connected`.
        let _ = socket.set_nodelay(true);
        if !self.register(stream, &mut socket) {
            self.carried.accept_errors += 1;
            return;
        }
        self.carried.accepted += 1;
        self.links.insert(stream, Link::new(socket, Phase::Open));
        self.facts.push_back(Input::StreamAccepted { stream, remote });
    }

    fn register(&self, stream: StreamId, socket: &mut TcpStream) -> bool {
        token(stream).is_some_and(|token| {
            self.registry.register(socket, token, Interest::READABLE | Interest::WRITABLE).is_ok()
        })
    }

    /// Puts a stream into the list of those to read.
    fn list(&mut self, stream: StreamId) {
        if let Some(link) = self.links.get_mut(&stream)
            && !link.listed
        {
            link.listed = true;
            self.to_read.push_back(stream);
        }
    }

    /// Datagrams that came, and one read for each stream in the list; those that have more go to its end.
    pub(super) fn read<M: Machine>(&mut self, now: Instant, shell: &mut Shell<M>) {
        self.datagrams.receive(&mut self.buffer, &mut self.carried, |input| shell.fact(now, input));
        for _ in 0..self.to_read.len().min(TURN_READS) {
            let Some(stream) = self.to_read.pop_front() else { return };
            if let Some(link) = self.links.get_mut(&stream) {
                link.listed = false;
                self.read_one(now, stream, shell);
            }
        }
    }

    fn read_one<M: Machine>(&mut self, now: Instant, stream: StreamId, shell: &mut Shell<M>) {
        let Some(link) = self.links.get_mut(&stream) else { return };
        let open = link.phase == Phase::Open;
        let budget = if open { shell.read_budget(stream).min(READ_BYTES) } else { READ_BYTES };
        if budget == 0 {
            // Parked until `ReadReady`; but for a broken one there is nothing to wait for.
            if link.broken {
                self.end(stream, StreamEnd::Broken);
            }
            return;
        }
        let Some(buffer) = self.buffer.get_mut(..budget) else { return };
        match link.receive(buffer) {
            Got::Bytes(count) => {
                self.carried.bytes_read += count as u64;
                if let (true, Some(bytes)) = (open, self.buffer.get(..count)) {
                    shell.fact(now, Input::StreamData { stream, bytes });
                }
            }
            Got::Again => {}
            Got::Dry if !link.broken => return,
            Got::End if !link.broken => return self.end(stream, StreamEnd::Finished),
            Got::Dry | Got::End | Got::Failed => return self.end(stream, StreamEnd::Broken),
        }
        if self.links.get(&stream).is_some_and(|link| link.readable || link.broken) {
            self.list(stream);
        }
    }

    /// Goes on with the outstanding write.
    fn send(&mut self, now: Instant, stream: StreamId) {
        let Some(link) = self.links.get_mut(&stream).filter(|link| link.out.is_some()) else { return };
        let (sent, taken) = link.send();
        self.carried.bytes_written += taken;
        match (sent, link.phase) {
            (Sent::Partly, _) => {}
            (Sent::Whole, Phase::Closing) => self.finish(now, stream),
            (Sent::Whole, _) => self.facts.push_back(Input::StreamWritten { stream }),
            (Sent::Failed, Phase::Closing) => self.end(stream, StreamEnd::Local),
            (Sent::Failed, _) => {
                // What the peer sent before it went away may still be read.
                link.out = None;
                link.broken = true;
                self.list(stream);
            }
        }
    }

    /// Everything was sent: our FIN, then the peer has a moment to close its side.
    fn finish(&mut self, now: Instant, stream: StreamId) {
        let Some(link) = self.links.get_mut(&stream) else { return };
        if link.socket.shutdown(Shutdown::Write).is_err() {
            return self.end(stream, StreamEnd::Local);
        }
        self.set_timer(stream, Some(now + LINGER_MAX));
        self.list(stream);
    }

    fn set_timer(&mut self, stream: StreamId, at: Option<Instant>) {
        let Some(link) = self.links.get_mut(&stream) else { return };
        if let Some(old) = core::mem::replace(&mut link.timer, at) {
            self.timers.remove(&(old, Timer::Stream(stream)));
        }
        if let Some(at) = at {
            self.timers.insert((at, Timer::Stream(stream)));
        }
    }

    fn forget(&mut self, stream: StreamId) -> Option<Link> {
        self.set_timer(stream, None);
        self.links.remove(&stream)
    }

    /// The stream is over: the last word about it, once.
    fn end(&mut self, stream: StreamId, why: StreamEnd) {
        if let Some(link) = self.forget(stream) {
            let why = if matches!(link.phase, Phase::Closing) { StreamEnd::Local } else { why };
            self.facts.push_back(Input::StreamClosed { stream, why });
        }
    }

    /// Something is left to do without waiting.
    pub(super) fn has_work(&self) -> bool {
        !self.to_read.is_empty()
            || self.datagrams.has_work()
            || !self.facts.is_empty()
            || (!self.resting && self.acceptable.contains(&true))
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Whether a dial found no way since this was asked last.
    pub(super) fn take_unreachable(&mut self) -> bool {
        core::mem::take(&mut self.unreachable)
    }
}

impl Carrier for Net {
    fn dial(&mut self, now: Instant, stream: StreamId, remote: SocketAddr, timeout: Duration) {
        self.carried.dialled += 1;
        let failure = match TcpStream::connect(remote) {
            Ok(mut socket) => {
                if self.register(stream, &mut socket) {
                    self.links.insert(stream, Link::new(socket, Phase::Dialling));
                    return self.set_timer(stream, Some(now + timeout));
                }
                DialFailure::Local
            }
            Err(error) => dial_failure(&error),
        };
        self.dial_failed(stream, failure);
    }

    fn write(&mut self, now: Instant, stream: StreamId, bytes: Bytes) {
        // A stream that is gone has been reported, or is about to be.
        let Some(link) = self.links.get_mut(&stream) else { return };
        let ready = link.phase == Phase::Open && link.out.is_none();
        debug_assert!(ready, "a write while one is outstanding, or out of place");
        if !ready {
            return self.end(stream, StreamEnd::Broken);
        }
        if link.broken {
            return;
        }
        link.out = Some(bytes);
        self.send(now, stream);
    }

    fn close(&mut self, now: Instant, stream: StreamId, flush: bool) {
        let Some(link) = self.links.get_mut(&stream) else { return };
        match link.phase {
            Phase::Open if flush && !link.broken => {
                link.phase = Phase::Closing;
                if link.out.is_some() {
                    // What comes in meanwhile is thrown away, so that the peer is not kept from reading.
                    self.set_timer(stream, Some(now + FLUSH_MAX));
                    self.list(stream);
                } else {
                    self.finish(now, stream);
                }
            }
            Phase::Closing if flush => {}
            Phase::Dialling | Phase::Open | Phase::Closing => self.end(stream, StreamEnd::Local),
        }
    }

    fn read_ready(&mut self, stream: StreamId) {
        if self.links.get(&stream).is_some_and(|link| link.readable || link.broken) {
            self.list(stream);
        }
    }

    fn datagram(&mut self, remote: SocketAddr, ttl: Option<u8>, bytes: &[u8]) {
        self.datagrams.send(remote, ttl, bytes, &mut self.carried);
    }

    fn next_fact(&mut self) -> Option<Input<'static>> {
        self.facts.pop_front()
    }

    fn carried(&self) -> Carried {
        Carried { streams: self.links.len() as u64, ..self.carried }
    }
}
