//! Frames: everything that two peers say inside a session.

use super::entry::{Author, Chunk, Gone, Run};
use super::{Malformed, put, put_varint, take, take_front, take_varint};
use crate::bounded::List;
use crate::ids::{EntryHash, Epoch, QueueId};
use crate::limits::{CANDIDATES as CANDIDATES_EACH, FRAME_BYTES, HAVE_FEEDS, HAVE_RANGES, HOLES};
use alloc::vec::Vec;
use core::net::SocketAddr;
use serde::{Deserialize, Serialize};

const HAVE: u64 = 0x02;
const ENTRIES: u64 = 0x04;
const CHUNK: u64 = 0x06;
const GONE: u64 = 0x08;
const RECORD: u64 = 0x0a;
const PING: u64 = 0x0c;
const PONG: u64 = 0x0e;
const CLOSE: u64 = 0x10;
const PREKEY_GONE: u64 = 0x11;
const OPEN: u64 = 0x12;
const SHUT: u64 = 0x14;
const FORWARD: u64 = 0x16;
const RELAYED: u64 = 0x18;
const UNDELIVERED: u64 = 0x1a;
const OBSERVED: u64 = 0x1c;
const CANDIDATES: u64 = 0x1e;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame<'a> {
    Have(Have),
    Entries(Run<'a>),
    Chunk(Chunk<'a>),
    Gone(Gone),
    /// A signed peer record, as its subject signed it.
    Record(&'a [u8]),
    Ping(u64),
    Pong(u64),
    Close(CloseReason),
    /// The prekey with this id is gone: envelopes to it cannot be read any more.
    PrekeyGone(u32),
    /// To a relay: take packets for me that are sent to this queue.
    OpenQueue(OpenQueue),
    CloseQueue(QueueId),
    /// To a relay: a packet, and where it should go.
    Forward {
        to: Port,
        packet: &'a [u8],
    },
    /// From a relay: a packet, and where an answer to it should go.
    Relayed {
        from: Port,
        packet: &'a [u8],
    },
    /// From a relay: packets to there come to nothing.
    Undelivered(Undelivered),
    /// From where the packets of this session come, as its other end sees it.
    Observed(SocketAddr),
    /// Where I may be reached by datagrams: try them, as I try yours.
    Candidates(List<SocketAddr, CANDIDATES_EACH>),
}

/// A queue to be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenQueue {
    pub id: QueueId,
    /// For somebody who is no contact yet: a little may pass, and no more.
    pub knock: bool,
}

/// One end of a way through a relay, as the other end names it to the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Port {
    /// The owner of this queue.
    Queue(QueueId),
    /// Whoever sent what came from this; the relay names him anew for each session.
    Back(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undelivered {
    pub to: Port,
    pub why: NotRelayed,
}

/// Why a relay does not pass packets on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NotRelayed {
    /// Nobody who is here has opened that queue, or who sent it is gone.
    Nobody,
    /// More than the relay takes of one client.
    TooMuch,
}

/// What one holder has: acknowledgement, request and credit in one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Have {
    /// The installation, named by its current epoch.
    pub holder: Epoch,
    /// Rises with what it describes; an older one is void.
    pub version: u64,
    /// Bytes of entries that the holder will take beyond what this describes ([`crate::limits::ENTRY_COST`] and the
    /// body each).
    pub credit: u32,
    pub feeds: List<HaveFeed, HAVE_FEEDS>,
    /// One hash over all closed epochs of an author, and their count.
    pub closed: List<Closed, 2>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HaveFeed {
    pub author: Author,
    pub epoch: Epoch,
    /// Everything up to here, and the hash of that entry.
    pub upto: u64,
    pub hash: EntryHash,
    pub beyond: List<HaveRange, HAVE_RANGES>,
    /// Which of the numbers that are missing before the last range are held as gone: they are not asked for, and whoever
    /// has them may give them all the same.
    pub gone: List<(u64, u64), HOLES>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HaveRange {
    pub first: u64,
    pub last: u64,
    pub hash: EntryHash,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    pub author: Author,
    pub epochs: u32,
    pub hash: EntryHash,
}

/// Why a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CloseReason {
    /// The node stops, or has no use for the session.
    Goodbye,
    /// Another session of the same two peers goes on.
    Replaced,
    /// You are no contact of mine.
    Stranger,
    TicketUnknown,
    TicketExpired,
    TicketSpent,
    Full,
    /// You sent what cannot be.
    Misbehaved,
    /// You sent a frame that I would have to know.
    Unsupported,
}

impl Frame<'_> {
    /// Appends the frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut body = Vec::new();
        let kind = match self {
            Self::Have(have) => {
                put(&mut body, have);
                HAVE
            }
            Self::Entries(run) => {
                put(&mut body, &run.head);
                body.extend_from_slice(run.rest);
                ENTRIES
            }
            Self::Chunk(chunk) => {
                put(&mut body, chunk);
                CHUNK
            }
            Self::Gone(gone) => {
                put(&mut body, gone);
                GONE
            }
            Self::Record(record) => {
                body.extend_from_slice(record);
                RECORD
            }
            Self::Ping(nonce) => {
                put(&mut body, nonce);
                PING
            }
            Self::Pong(nonce) => {
                put(&mut body, nonce);
                PONG
            }
            Self::Close(reason) => {
                put(&mut body, reason);
                CLOSE
            }
            Self::PrekeyGone(id) => {
                put(&mut body, id);
                PREKEY_GONE
            }
            Self::OpenQueue(queue) => {
                put(&mut body, queue);
                OPEN
            }
            Self::CloseQueue(id) => {
                put(&mut body, id);
                SHUT
            }
            Self::Forward { to, packet } => {
                put(&mut body, to);
                body.extend_from_slice(packet);
                FORWARD
            }
            Self::Relayed { from, packet } => {
                put(&mut body, from);
                body.extend_from_slice(packet);
                RELAYED
            }
            Self::Undelivered(undelivered) => {
                put(&mut body, undelivered);
                UNDELIVERED
            }
            Self::Observed(address) => {
                put(&mut body, address);
                OBSERVED
            }
            Self::Candidates(addresses) => {
                put(&mut body, addresses);
                CANDIDATES
            }
        };
        put_frame(out, kind, &body);
    }

    fn parse(kind: u64, body: &[u8]) -> Result<Option<Frame<'_>>, Malformed> {
        Ok(Some(match kind {
            HAVE => Frame::Have(take(body, "have-vector")?),
            ENTRIES => Frame::Entries(Run::parse(body)?),
            CHUNK => Frame::Chunk(take(body, "chunk")?),
            GONE => Frame::Gone(take(body, "gone")?),
            RECORD => Frame::Record(body),
            PING => Frame::Ping(take(body, "ping")?),
            PONG => Frame::Pong(take(body, "pong")?),
            CLOSE => Frame::Close(take(body, "close")?),
            PREKEY_GONE => Frame::PrekeyGone(take(body, "prekey gone")?),
            OPEN => Frame::OpenQueue(take(body, "queue")?),
            SHUT => Frame::CloseQueue(take(body, "queue")?),
            FORWARD => {
                let (to, packet) = take_front(body, "port")?;
                Frame::Forward { to, packet }
            }
            RELAYED => {
                let (from, packet) = take_front(body, "port")?;
                Frame::Relayed { from, packet }
            }
            UNDELIVERED => Frame::Undelivered(take(body, "undelivered")?),
            OBSERVED => Frame::Observed(take(body, "address")?),
            CANDIDATES => Frame::Candidates(take(body, "candidates")?),
            unknown if unknown % 2 == 1 => return Ok(None),
            _ => return Err(Malformed("frame of an unknown critical type")),
        }))
    }
}

/// Appends a frame of any type.
fn put_frame(out: &mut Vec<u8>, kind: u64, body: &[u8]) {
    put_varint(out, kind);
    put_varint(out, body.len() as u64);
    out.extend_from_slice(body);
}

/// Appends a frame of entries whose body was built item by item.
pub(crate) fn put_entries(out: &mut Vec<u8>, body: &[u8]) {
    put_frame(out, ENTRIES, body);
}

/// Appends a frame that every reader must skip, so that skipping stays possible (GREASE, RFC 8701): type
/// `0x21 + 0x3e·n`, always odd.
pub(crate) fn put_grease(out: &mut Vec<u8>, n: u8, body: &[u8]) {
    put_frame(out, 0x21 + 0x3e * u64::from(n), body);
}

/// Takes frames off a record, one by one.
#[derive(Debug, Clone, Copy)]
pub struct Frames<'a>(pub &'a [u8]);

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.0.is_empty() {
            let parsed = self.take_one();
            match parsed {
                Ok(Some(frame)) => return Some(Ok(frame)),
                Ok(None) => {}
                Err(malformed) => {
                    self.0 = &[];
                    return Some(Err(malformed));
                }
            }
        }
        None
    }
}

impl<'a> Frames<'a> {
    fn take_one(&mut self) -> Result<Option<Frame<'a>>, Malformed> {
        let kind = take_varint(&mut self.0).ok_or(Malformed("frame type"))?;
        let length = take_varint(&mut self.0).ok_or(Malformed("frame length"))?;
        let length = usize::try_from(length).ok().filter(|length| *length <= FRAME_BYTES);
        let (body, rest) =
            length.and_then(|length| self.0.split_at_checked(length)).ok_or(Malformed("frame length"))?;
        self.0 = rest;
        Frame::parse(kind, body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_odd_frames_are_skipped_and_unknown_even_ones_end_it() {
        let mut out = Vec::new();
        put_grease(&mut out, 3, b"anything");
        Frame::Ping(7).encode(&mut out);
        let mut frames = Frames(&out);
        assert_eq!(frames.next(), Some(Ok(Frame::Ping(7))));
        assert_eq!(frames.next(), None);
        let mut out = Vec::new();
        put_frame(&mut out, 0x40, b"critical");
        assert!(matches!(Frames(&out).next(), Some(Err(_))));
    }

    #[test]
    fn every_cut_of_a_frame_is_malformed_never_a_panic() {
        let have = Have {
            holder: Epoch([1; 16]),
            version: 9,
            credit: 100,
            feeds: List::of([HaveFeed {
                author: Author::Receiver,
                epoch: Epoch([2; 16]),
                upto: 5,
                hash: EntryHash([3; 32]),
                beyond: List::of([HaveRange { first: 7, last: 9, hash: EntryHash([4; 32]) }]),
                gone: List::new(),
            }]),
            closed: List::new(),
        };
        let mut out = Vec::new();
        Frame::Have(have.clone()).encode(&mut out);
        assert_eq!(Frames(&out).next(), Some(Ok(Frame::Have(have))));
        for cut in 1..out.len() {
            assert!(matches!(Frames(&out[..cut]).next(), Some(Err(_))), "{cut}");
        }
    }
}
