//! One TCP stream.

use ::mio::net::TcpStream;
use bytes::{Buf, Bytes};
use peerlink_core::api::DialFailure;
use peerlink_core::time::Instant;
use std::io::{self, Read, Write};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Dialling,
    Open,
    /// The core said `Close` with `flush`: the last bytes go out, what comes in is thrown away.
    Closing,
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) socket: TcpStream,
    pub(super) phase: Phase,
    /// The outstanding write, as far as the carrier has not taken it.
    pub(super) out: Option<Bytes>,
    /// The system said that there is something to read, and no read has found the end of it. Edge-triggered: this
    /// is said once.
    pub(super) readable: bool,
    /// The peer ended its side, so a short read does not mean that nothing more is to be read.
    pub(super) read_closed: bool,
    /// Writing failed: over as soon as everything that came before is read.
    pub(super) broken: bool,
    /// In the list of streams to read.
    pub(super) listed: bool,
    /// The one timer of this stream: dial, flush or linger.
    pub(super) timer: Option<Instant>,
}

/// How far a write came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    Whole,
    Partly,
    Failed,
}

/// What a read found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Got {
    Bytes(usize),
    /// Nothing now.
    Dry,
    /// Nothing this time, for no reason that lasts.
    Again,
    End,
    Failed,
}

impl Link {
    pub(super) fn new(socket: TcpStream, phase: Phase) -> Self {
        Self {
            socket,
            phase,
            out: None,
            readable: false,
            read_closed: false,
            broken: false,
            listed: false,
            timer: None,
        }
    }

    /// Hands over as much of the outstanding write as the carrier takes; the count says how much that was.
    pub(super) fn send(&mut self) -> (Sent, u64) {
        let mut taken = 0;
        let Some(out) = &mut self.out else { return (Sent::Whole, 0) };
        while out.has_remaining() {
            match self.socket.write(out) {
                Ok(0) => return (Sent::Failed, taken),
                Ok(count) => {
                    out.advance(count);
                    taken += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return (Sent::Partly, taken),
                Err(_) => return (Sent::Failed, taken),
            }
        }
        self.out = None;
        (Sent::Whole, taken)
    }

    /// One read of at most `buffer`.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> Got {
        match self.socket.read(buffer) {
            Ok(0) => Got::End,
            Ok(count) => {
                // On epoll a short read of a stream has emptied it: what comes later is a new edge (epoll(7)). That
                // saves a system call for each message. Elsewhere only `WouldBlock` arms the next edge.
                if cfg!(target_os = "linux") && count < buffer.len() && !self.read_closed {
                    self.readable = false;
                }
                Got::Bytes(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Got::Again,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                Got::Dry
            }
            Err(_) => Got::Failed,
        }
    }

    /// Whether a dial has come to its end: `None` if not yet.
    pub(super) fn connected(&self) -> Option<Result<(), DialFailure>> {
        match self.socket.take_error() {
            Ok(Some(error)) | Err(error) => return Some(Err(dial_failure(&error))),
            Ok(None) => {}
        }
        match self.socket.peer_addr() {
            // A dial to a port that the system had just given to the dial itself reaches only itself.
            Ok(remote) if self.socket.local_addr().is_ok_and(|local| local == remote) => {
                Some(Err(DialFailure::Refused))
            }
            Ok(_) => Some(Ok(())),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => None,
            Err(error) => Some(Err(dial_failure(&error))),
        }
    }
}

pub(super) fn dial_failure(error: &io::Error) -> DialFailure {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => DialFailure::Refused,
        io::ErrorKind::TimedOut => DialFailure::TimedOut,
        io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NetworkDown
        | io::ErrorKind::AddrNotAvailable
        | io::ErrorKind::PermissionDenied
        | io::ErrorKind::InvalidInput => DialFailure::Unreachable,
        _ => DialFailure::Local,
    }
}
