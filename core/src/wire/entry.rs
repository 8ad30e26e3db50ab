//! Entries on the wire: a run shares what is common, each item holds the rest, and a body that is not small travels
//! apart. What a run leaves out, its reader computes: numbers, hashes of those before, hashes of bodies.

use super::{Malformed, put};
use crate::bounded::List;
use crate::ids::{CallerId, EntryHash, Epoch, Tag};
use crate::limits::ENTRY_HEADS;
use crate::record::{EpochLink, Head, Kind, put_heads, put_number};
use crate::time::WallClock;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Whose feed: seen from who sends the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Author {
    /// The sender of this frame.
    Sender,
    /// Its receiver, who is given back what it may have lost.
    Receiver,
}

/// The head of a run: entries `first`, `first + 1`, … of one feed follow as items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunHead {
    pub author: Author,
    pub epoch: Epoch,
    pub first: u64,
    /// Hash of the entry before `first`; of the following ones the reader knows it.
    pub prev: EntryHash,
}

/// One entry of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item<'a> {
    pub kind: Kind,
    pub lamport: u64,
    pub claimed: WallClock,
    pub caller: CallerId,
    pub heads: List<Head, ENTRY_HEADS>,
    pub link: Option<EpochLink>,
    pub replaces: Option<Head>,
    pub tag: Tag,
    #[serde(borrow)]
    pub body: Body<'a>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body<'a> {
    Inline(&'a [u8]),
    /// Follows in chunks. Must be the only item of its run.
    Chunked {
        len: u32,
        hash: EntryHash,
    },
    /// Taken away by its author; only the hash is left, so that the chain holds.
    Dropped {
        len: u32,
        hash: EntryHash,
    },
}

/// A part of a body that was announced as `Chunked`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk<'a> {
    pub author: Author,
    pub epoch: Epoch,
    pub seq: u64,
    pub offset: u32,
    pub bytes: &'a [u8],
}

/// Entries `first..=last` are gone at who should have them: counted as filled, shown as gone. `hash` is that of `last`, so
/// that what follows fits the chain; `lamport` is the logical time of that, so that both sides show the hole right before
/// it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    pub author: Author,
    pub epoch: Epoch,
    pub first: u64,
    pub last: u64,
    pub hash: EntryHash,
    pub lamport: u64,
}

/// A run as it was received: its head, and the items still to be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run<'a> {
    pub head: RunHead,
    pub(crate) rest: &'a [u8],
}

impl<'a> Run<'a> {
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let (head, rest) = postcard::take_from_bytes(body).map_err(|_| Malformed("run of entries"))?;
        if rest.is_empty() {
            return Err(Malformed("run of entries"));
        }
        Ok(Self { head, rest })
    }

    /// The next item; `None` at the end.
    ///
    /// # Errors
    /// `Malformed`, after which the run is at its end.
    pub fn next_item(&mut self) -> Option<Result<Item<'a>, Malformed>> {
        if self.rest.is_empty() {
            return None;
        }
        match postcard::take_from_bytes(self.rest) {
            Ok((item, rest)) => {
                self.rest = rest;
                Some(Ok(item))
            }
            Err(_) => {
                self.rest = &[];
                Some(Err(Malformed("entry")))
            }
        }
    }
}

/// Appends an item to the body of a frame of entries. By hand, but for what is rare: postcard writes the same, byte by
/// byte.
pub(crate) fn put_item(out: &mut Vec<u8>, item: &Item<'_>) {
    let Item { kind, lamport, claimed, caller, heads, link, replaces, tag, body } = item;
    out.push(*kind as u8);
    put_number(out, *lamport);
    put_number(out, claimed.0);
    out.extend_from_slice(&caller.0);
    put_heads(out, heads);
    put(out, link);
    put(out, replaces);
    out.extend_from_slice(&tag.0);
    match body {
        Body::Inline(bytes) => {
            out.push(0);
            put_number(out, bytes.len() as u64);
            out.extend_from_slice(bytes);
        }
        Body::Chunked { .. } | Body::Dropped { .. } => put(out, body),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_together_by_hand_is_what_postcard_writes() {
        let hash = EntryHash([9; 32]);
        let bodies = [Body::Inline(b"text"), Body::Inline(&[7; 300]), Body::Inline(b"")];
        let others = [Body::Chunked { len: 70_000, hash }, Body::Dropped { len: 5, hash }];
        for (at, body) in bodies.into_iter().chain(others).enumerate() {
            let head = Head { epoch: Epoch([1; 16]), seq: 300, hash };
            let item = Item {
                kind: [Kind::Text, Kind::Tombstone, Kind::Cancel, Kind::Read][at % 4],
                lamport: u64::MAX >> (at * 13),
                claimed: WallClock(1_790_000_000_000 >> (at * 9)),
                caller: CallerId([3; 16]),
                heads: List::of(core::iter::repeat_n(head, at)),
                link: (at == 1).then_some(EpochLink { epoch: Epoch([2; 16]), last: 4, hash }),
                replaces: (at == 2).then_some(head),
                tag: Tag([4; 16]),
                body,
            };
            let mut ours = Vec::new();
            put_item(&mut ours, &item);
            assert_eq!(ours, postcard::to_allocvec(&item).unwrap());
        }
    }
}
