//! The driver's streams: non-blocking sockets, one outstanding write each, closed at once or in good order.

use crate::limits::CLOSE_GRACE;
use bytes::{Buf as _, Bytes};
use mio::net::TcpStream;
use peerlink_core::api::DialFailure;
use peerlink_core::time::Instant;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::Shutdown;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// A dial that must succeed by then.
    Dialling {
        until: Instant,
    },
    Open,
    /// The core said goodbye: what is left is written, then FIN; it is over when the peer ends too, or by then.
    Closing {
        until: Instant,
        finished: bool,
    },
}

#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) socket: TcpStream,
    pub(crate) state: State,
    /// The outstanding write, as far as the kernel did not take it.
    outgoing: Bytes,
    /// The kernel said that there is something to read, and has not said since that there is not (edge-triggered).
    pub(crate) readable: bool,
}

/// What a write came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrote {
    All,
    Some,
    Broken,
}

/// What a read came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Got {
    Bytes(usize),
    Nothing,
    End,
    Broken,
}

impl Stream {
    pub(crate) fn new(socket: TcpStream, state: State) -> Self {
        Self { socket, state, outgoing: Bytes::new(), readable: false }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Dialling { until } | State::Closing { until, .. } => Some(until),
            State::Open => None,
        }
    }

    /// Whether a dial succeeded; `None`: not known yet.
    pub(crate) fn dialled(&self) -> Option<Result<(), DialFailure>> {
        if let Ok(Some(error)) | Err(error) = self.socket.take_error() {
            return Some(Err(dial_failure(&error)));
        }
        match self.socket.peer_addr() {
            Ok(_) => Some(Ok(())),
            Err(error) if error.kind() == ErrorKind::NotConnected => None,
            Err(error) => Some(Err(dial_failure(&error))),
        }
    }

    /// Takes the outstanding write and hands over what the kernel takes.
    pub(crate) fn begin_write(&mut self, bytes: Bytes) -> Wrote {
        self.outgoing = bytes;
        self.write()
    }

    pub(crate) fn is_writing(&self) -> bool {
        !self.outgoing.is_empty()
    }

    pub(crate) fn write(&mut self) -> Wrote {
        while !self.outgoing.is_empty() {
            match self.socket.write(&self.outgoing) {
                Ok(0) => return Wrote::Broken,
                Ok(count) => self.outgoing.advance(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Wrote::Some,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Wrote::Broken,
            }
        }
        Wrote::All
    }

    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Got {
        loop {
            match self.socket.read(buffer) {
                Ok(0) => return Got::End,
                Ok(count) => return Got::Bytes(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Got::Nothing;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Got::Broken,
            }
        }
    }

    /// Begins to close in good order.
    pub(crate) fn close(&mut self, now: Instant) {
        self.state = State::Closing { until: now + CLOSE_GRACE, finished: false };
    }

    /// Goes on closing. `true`: nothing is left to do.
    pub(crate) fn go_on_closing(&mut self, buffer: &mut [u8]) -> bool {
        let State::Closing { finished, .. } = &mut self.state else { return false };
        let finished_before = std::mem::replace(finished, true);
        if !finished_before {
            match self.write() {
                Wrote::All => {}
                Wrote::Some => {
                    if let State::Closing { finished, .. } = &mut self.state {
                        *finished = false;
                    }
                }
                Wrote::Broken => return true,
            }
            if !self.is_writing() && self.socket.shutdown(Shutdown::Write).is_err() {
                return true;
            }
        }
        // What still comes is not wanted, but leaving it unread would make the kernel send RST and throw away what
        // was written last (RFC 1122, section 4.2.2.13). A few reads; a peer that never stops is cut by the deadline.
        for _ in 0..16 {
            match self.read(buffer) {
                Got::Bytes(_) => {}
                Got::Nothing => return false,
                Got::End | Got::Broken => return !self.is_writing(),
            }
        }
        false
    }
}

pub(crate) fn dial_failure(error: &std::io::Error) -> DialFailure {
    match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => DialFailure::Refused,
        ErrorKind::HostUnreachable
        | ErrorKind::NetworkUnreachable
        | ErrorKind::NetworkDown
        | ErrorKind::AddrNotAvailable => DialFailure::Unreachable,
        ErrorKind::TimedOut => DialFailure::TimedOut,
        _ => DialFailure::Local,
    }
}
