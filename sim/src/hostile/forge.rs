//! What a hostile contact says, byte by byte, made without the core: entries with their hashes, runs, have-vectors.

use peerlink_core::bounded::List;
use peerlink_core::ids::{CallerId, ConversationId, EntryHash, Epoch, PeerId, Tag};
use peerlink_core::record::Kind;
use peerlink_core::time::WallClock;
use peerlink_core::wire::entry::{Author, Body, Item, RunHead};
use peerlink_core::wire::frame::{Frame, Have, HaveFeed};
use serde::Serialize;

const ENTRIES: u8 = 0x04;

fn postcard(out: &mut Vec<u8>, value: &impl Serialize) {
    // Writing into a growing vector cannot fail.
    out.extend(postcard::to_allocvec(value).unwrap_or_default());
}

/// A variable-length integer (RFC 9000, section 16) of four bytes.
fn length(out: &mut Vec<u8>, value: usize) {
    let [a, b, c, d] = u32::try_from(value).unwrap_or(0).to_be_bytes();
    out.extend([a | 0x80, b, c, d]);
}

pub(super) fn frame(frame: &Frame<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    frame.encode(&mut out);
    out
}

/// A frame of entries, whatever they are.
pub(super) fn run(author: Author, epoch: Epoch, first: u64, prev: EntryHash, items: &[Item<'_>]) -> Vec<u8> {
    let mut body = Vec::new();
    postcard(&mut body, &RunHead { author, epoch, first, prev });
    items.iter().for_each(|item| postcard(&mut body, item));
    let mut out = vec![ENTRIES];
    length(&mut out, body.len());
    out.extend(body);
    out
}

pub(super) fn item(lamport: u64, caller: [u8; 16], body: Body<'_>) -> Item<'_> {
    Item {
        kind: Kind::Text,
        lamport,
        claimed: WallClock(0),
        caller: CallerId(caller),
        heads: List::new(),
        link: None,
        replaces: None,
        tag: Tag([0; 16]),
        body,
    }
}

/// A have-vector about feeds of whom it is sent to.
pub(super) fn have(holder: Epoch, version: u64, credit: u32, feeds: Vec<(Epoch, u64, EntryHash)>) -> Vec<u8> {
    let feed = |(epoch, upto, hash)| HaveFeed {
        author: Author::Receiver,
        epoch,
        upto,
        hash,
        beyond: List::new(),
        gone: List::new(),
    };
    let feeds = List::of(feeds.into_iter().map(feed));
    frame(&Frame::Have(Have { holder, version, credit, feeds, closed: List::new() }))
}

/// Where an entry stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Position<'a> {
    pub(super) conversation: &'a ConversationId,
    pub(super) author: &'a PeerId,
    pub(super) epoch: &'a Epoch,
    pub(super) seq: u64,
    pub(super) prev: EntryHash,
}

/// The hash of an entry, as it is written down: BLAKE3 over its header, which holds length and hash of its body, with a
/// key that stands for the feed.
pub(super) fn entry_hash(at: Position<'_>, item: &Item<'_>) -> EntryHash {
    let (len, body) = match &item.body {
        Body::Inline(bytes) => {
            (u32::try_from(bytes.len()).unwrap_or(0), EntryHash(*blake3::hash(bytes).as_bytes()))
        }
        Body::Chunked { len, hash } | Body::Dropped { len, hash } => (*len, *hash),
    };
    let kind = match item.kind {
        Kind::Text => 1,
        Kind::Tombstone => 2,
        Kind::Cancel => 3,
        Kind::Read => 4,
    };
    let feed = [&at.conversation.0[..], at.author.as_bytes(), &at.epoch.0].concat();
    let mut h = blake3::Hasher::new_keyed(&blake3::derive_key("peerlink 2026-11 v1 feed", &feed));
    h.update(&[3, kind]).update(&at.seq.to_be_bytes()).update(&at.prev.0).update(&item.lamport.to_be_bytes());
    h.update(&item.claimed.0.to_be_bytes()).update(&item.caller.0).update(&[item.heads.len() as u8]);
    for head in item.heads.iter() {
        h.update(&head.epoch.0).update(&head.seq.to_be_bytes()).update(&head.hash.0);
    }
    h.update(&[u8::from(item.link.is_some()), u8::from(item.replaces.is_some())]);
    if let Some(link) = &item.link {
        h.update(&link.epoch.0).update(&link.last.to_be_bytes()).update(&link.hash.0);
    }
    if let Some(replaced) = &item.replaces {
        h.update(&replaced.epoch.0).update(&replaced.seq.to_be_bytes()).update(&replaced.hash.0);
    }
    h.update(&len.to_be_bytes()).update(&body.0);
    EntryHash(*h.finalize().as_bytes())
}
