//! TCP as two ordered pipes of bytes: segments with latency, a window, half-close, reset. Who does what with them is
//! the world's business; here is only what a pipe holds.

use crate::nat::{Door, Header};
use crate::tap::Tail;
use bytes::{Buf, Bytes};
use peerlink_core::ids::StreamId;
use std::collections::VecDeque;
use std::net::SocketAddr;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    Data(Bytes),
    /// The sender will send no more.
    Fin,
    /// The sender knows nothing of this connection (any more).
    Rst,
}

#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub(crate) at: u64,
    pub(crate) what: What,
}

/// One direction of a connection, from the writer's hand to the reader's.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pipe {
    /// The rest of the one outstanding write, which the window had no room for.
    pub(crate) outgoing: Option<Bytes>,
    pub(crate) fin_due: bool,
    pub(crate) fin_sent: bool,
    pub(crate) segments: VecDeque<Segment>,
    pub(crate) last_at: u64,
    pub(crate) arrived: VecDeque<Bytes>,
    /// Bytes in segments and arrived.
    pub(crate) held: usize,
    pub(crate) eof: bool,
    pub(crate) reset: bool,
    /// A read is under way, or waits for the node's `ReadReady`.
    pub(crate) reading: bool,
    pub(crate) hungry: bool,
    /// Nothing passes until the link is up again.
    pub(crate) stalled: bool,
    /// The host was off when something arrived: its kernel answers with a reset when it is back.
    pub(crate) unknown: bool,
    pub(crate) tail: Tail,
    /// What passed first, and what passed last, for who will send it again.
    pub(crate) tape: Vec<u8>,
    pub(crate) last: Bytes,
}

impl Pipe {
    pub(crate) fn arrived_bytes(&self) -> usize {
        self.arrived.iter().map(Bytes::len).sum()
    }

    /// Takes up to `most` bytes that arrived.
    pub(crate) fn take(&mut self, most: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(most.min(self.arrived_bytes()));
        while out.len() < most
            && let Some(mut front) = self.arrived.pop_front()
        {
            let count = front.len().min(most - out.len());
            out.extend_from_slice(&front[..count]);
            front.advance(count);
            if !front.is_empty() {
                self.arrived.push_front(front);
            }
        }
        self.held -= out.len();
        out
    }

    /// What arrived and was not read is thrown away.
    pub(crate) fn discard(&mut self) {
        self.held -= self.arrived_bytes();
        self.arrived.clear();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndState {
    /// Dialled, and not answered yet; or not accepted yet.
    Opening,
    Open,
    /// Closed by its node, after what was handed over is sent.
    Closing,
    /// No process knows it.
    Gone,
}

#[derive(Debug, Clone)]
pub(crate) struct End {
    pub(crate) host: usize,
    pub(crate) incarnation: u32,
    pub(crate) stream: StreamId,
    pub(crate) state: EndState,
}

#[derive(Debug, Clone)]
pub(crate) struct Conn {
    pub(crate) remote: SocketAddr,
    pub(crate) ends: [End; 2],
    /// `pipes[n]` begins at `ends[n]`.
    pub(crate) pipes: [Pipe; 2],
    /// Everything that is sent on it vanishes.
    pub(crate) swallows: bool,
    /// The other host accepted it.
    pub(crate) accepted: bool,
    /// If there are boxes: where its first segment enters those of the other side, and then how each end sees both, its
    /// own endpoint first.
    pub(crate) door: Option<(Door, Header)>,
    pub(crate) flow: Option<[(SocketAddr, SocketAddr); 2]>,
}

impl Conn {
    pub(crate) fn is_over(&self) -> bool {
        self.ends.iter().all(|end| end.state == EndState::Gone)
    }

    pub(crate) fn joins(&self, a: usize, b: usize) -> bool {
        let hosts = [self.ends[0].host, self.ends[1].host];
        self.accepted && (hosts == [a, b] || hosts == [b, a])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_in_order_whatever_the_sizes() {
        let mut pipe = Pipe::default();
        for part in [&b"abc"[..], b"", b"defg", b"h"] {
            pipe.held += part.len();
            pipe.arrived.push_back(Bytes::from_static(part));
        }
        assert_eq!(pipe.take(2), b"ab");
        assert_eq!(pipe.take(4), b"cdef");
        assert_eq!(pipe.take(9), b"gh");
        assert_eq!((pipe.held, pipe.arrived_bytes()), (0, 0));
    }
}
