//! Entries to frames and back: packs entries into runs, and puts runs and chunks together to whole entries.
//!
//! A run shares what is common and leaves out what its reader can compute; a body that is not small travels apart, in
//! chunks. What is put together here is whole and hashed, not yet believed: who takes it compares the hashes.

use crate::api::Page;
use crate::chain::{FeedKey, body_hash, entry_hash};
use crate::ids::{ConversationId, EntryHash, Epoch, PeerId, StreamId};
use crate::limits::{
    BODY_BYTES, CHUNK_BYTES, FRAME_BYTES, LAMPORT_LIMIT, PARTIALS, PLAINTEXT_BYTES, SEQ_LIMIT,
};
use crate::record::{Dropped, Entry, Key, Kind, Record as _};
use crate::wire::entry::{Author, Body, Chunk, Gone, Item, Run, RunHead, put_item};
use crate::wire::frame::{Frame, put_entries};
use crate::wire::{Malformed, put};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use bytes::Bytes;

/// A body whose chunks are still coming. It lives and dies with its stream.
#[derive(Debug)]
struct Partial {
    seq: u64,
    entry: Box<Entry>,
    body: Vec<u8>,
}

/// An entry that came whole.
#[derive(Debug)]
pub(crate) struct Whole {
    /// Seen from who sent it.
    pub(crate) author: Author,
    pub(crate) epoch: Epoch,
    pub(crate) seq: u64,
    pub(crate) entry: Entry,
}

/// Puts together what one peer sends.
#[derive(Debug)]
pub(crate) struct Assembly {
    conversation: ConversationId,
    sender: PeerId,
    receiver: PeerId,
    /// One for each epoch on each stream: while two sessions overlap, what one had begun comes in turns with what the
    /// other begins again; and what a peer gives back, and its earlier epochs, come in turns with what it writes. At
    /// most [`PARTIALS`] on a stream, and `SESSIONS_PER_PEER` streams.
    partial: BTreeMap<(StreamId, Author, Epoch), Partial>,
    /// The key of the feed that came last: as a rule the next run is of the same.
    key: Option<(Author, Epoch, FeedKey)>,
}

impl Assembly {
    /// `sender` is the peer, `receiver` this node.
    pub(crate) const fn new(conversation: ConversationId, sender: PeerId, receiver: PeerId) -> Self {
        Self { conversation, sender, receiver, partial: BTreeMap::new(), key: None }
    }

    fn key(&mut self, author: Author, epoch: Epoch) -> FeedKey {
        if let Some((.., key)) = self.key.filter(|(of, of_epoch, _)| (*of, *of_epoch) == (author, epoch)) {
            return key;
        }
        let who = match author {
            Author::Sender => &self.sender,
            Author::Receiver => &self.receiver,
        };
        let key = FeedKey::new(&self.conversation, who, &epoch);
        self.key = Some((author, epoch, key));
        key
    }

    /// Hands every entry that is whole to `take`, in order.
    ///
    /// # Errors
    /// `Malformed`: the session ends. What came before it in the run counts.
    pub(crate) fn run(
        &mut self,
        stream: StreamId,
        mut run: Run<'_>,
        mut take: impl FnMut(Whole),
    ) -> Result<(), Malformed> {
        let RunHead { author, epoch, first, prev } = run.head;
        let (mut seq, mut prev) = (first, prev);
        let key = self.key(author, epoch);
        while let Some(item) = run.next_item() {
            let item = item?;
            if seq == 0 || seq > SEQ_LIMIT {
                return Err(Malformed("entry number"));
            }
            let (body_len, body_hash, body, dropped) = match &item.body {
                Body::Inline(bytes) => {
                    (u32::try_from(bytes.len()).unwrap_or(u32::MAX), body_hash(bytes), *bytes, None)
                }
                Body::Chunked { len, hash } => (*len, *hash, &[][..], None),
                Body::Dropped { len, hash } => (*len, *hash, &[][..], Some(Dropped::ByAuthor)),
            };
            let mut entry = received(&item, prev, body_len, body_hash, dropped);
            entry.hash = entry_hash(&key, seq, &entry);
            prev = entry.hash;
            entry.body = Bytes::copy_from_slice(body);
            if matches!(item.body, Body::Chunked { .. }) {
                check_header(&entry)?;
                let partial = Partial { seq, entry: Box::new(entry), body: Vec::new() };
                self.partial.insert((stream, author, epoch), partial);
                if self.partial.keys().filter(|(of, ..)| *of == stream).count() > PARTIALS {
                    return Err(Malformed("too many bodies at once"));
                }
            } else {
                check(&entry)?;
                take(Whole { author, epoch, seq, entry });
            }
            seq += 1;
        }
        Ok(())
    }

    /// # Errors
    /// `Malformed`: the session ends.
    pub(crate) fn chunk(&mut self, stream: StreamId, chunk: &Chunk<'_>) -> Result<Option<Whole>, Malformed> {
        let fits = |partial: &Partial| {
            let next = u32::try_from(partial.body.len()).is_ok_and(|at| at == chunk.offset);
            let end = partial.body.len() + chunk.bytes.len() <= partial.entry.body_len as usize;
            partial.seq == chunk.seq && next && end && !chunk.bytes.is_empty()
        };
        let (author, epoch) = (chunk.author, chunk.epoch);
        let key = (stream, author, epoch);
        let Some(partial) = self.partial.get_mut(&key).filter(|partial| fits(partial)) else {
            return Err(Malformed("chunk"));
        };
        partial.body.extend_from_slice(chunk.bytes);
        if partial.body.len() < partial.entry.body_len as usize {
            return Ok(None);
        }
        let Some(done) = self.partial.remove(&key) else { return Ok(None) };
        let Partial { seq, mut entry, body } = done;
        if body_hash(&body) != entry.body_hash {
            return Err(Malformed("body"));
        }
        entry.body = Bytes::from(body);
        check(&entry)?;
        Ok(Some(Whole { author, epoch, seq, entry: *entry }))
    }

    /// Bodies that were begun.
    pub(crate) fn parts(&self) -> usize {
        self.partial.len()
    }

    /// The stream is over, and with it what it had begun.
    pub(crate) fn stream_over(&mut self, stream: StreamId) {
        self.partial.retain(|(of, ..), _| *of != stream);
    }
}

fn received(
    item: &Item<'_>,
    prev: EntryHash,
    body_len: u32,
    body_hash: EntryHash,
    dropped: Option<Dropped>,
) -> Entry {
    Entry {
        kind: item.kind,
        prev,
        hash: EntryHash::NONE,
        tag: item.tag,
        lamport: item.lamport,
        claimed: item.claimed,
        caller: item.caller,
        heads: item.heads.clone(),
        link: item.link,
        replaces: item.replaces,
        arrival: 0,
        recovered: false,
        dropped,
        expires: None,
        body_hash,
        body_len,
        body: Bytes::new(),
    }
}

/// What no correct peer sends, whatever its history.
fn check_header(entry: &Entry) -> Result<(), Malformed> {
    if entry.body_len as usize > BODY_BYTES {
        return Err(Malformed("body length"));
    }
    if entry.lamport == 0 || entry.lamport > LAMPORT_LIMIT {
        return Err(Malformed("logical time"));
    }
    if entry.kind == Kind::Tombstone {
        return Err(Malformed("kind of entry"));
    }
    Ok(())
}

fn check(entry: &Entry) -> Result<(), Malformed> {
    check_header(entry)?;
    if entry.kind == Kind::Text && core::str::from_utf8(&entry.body).is_err() {
        return Err(Malformed("text"));
    }
    Ok(())
}

/// What is left of entries `first..=seq` that are gone: stands in the place of the last of them. Only its hash is known.
pub(crate) fn gone_marker(first: u64, hash: EntryHash, lamport: u64) -> Entry {
    Entry {
        kind: Kind::Tombstone,
        prev: EntryHash::NONE,
        hash,
        tag: crate::ids::Tag([0; 16]),
        lamport,
        claimed: crate::time::WallClock(0),
        caller: crate::ids::CallerId([0; 16]),
        heads: crate::bounded::List::new(),
        link: None,
        replaces: None,
        arrival: 0,
        recovered: false,
        dropped: Some(Dropped::Gone { first }),
        expires: None,
        body_hash: EntryHash::NONE,
        body_len: 0,
        body: Bytes::new(),
    }
}

/// The entries of a page, as far as they can be read.
pub(crate) fn entries(page: Option<&Page>) -> impl Iterator<Item = (u64, Entry)> + '_ {
    let records = page.map(|page| page.records.as_slice()).unwrap_or_default();
    records.iter().map_while(|(key, value)| {
        let Ok(Key::Entry { seq, .. }) = Key::decode(key) else { return None };
        Entry::decode(value).ok().map(|entry| (seq, entry))
    })
}

/// The first number that this stored entry stands for: its own, unless it stands for some that are gone.
pub(crate) fn first_of(seq: u64, entry: &Entry) -> u64 {
    match entry.dropped {
        Some(Dropped::Gone { first }) => first,
        _ => seq,
    }
}

/// Packs entries of one feed into a record.
#[derive(Debug)]
pub(crate) struct Packer {
    author: Author,
    epoch: Epoch,
    /// The number that comes next in the open run, and its body so far.
    run: Option<(u64, Vec<u8>)>,
    scratch: Vec<u8>,
}

impl Packer {
    pub(crate) const fn new(author: Author, epoch: Epoch) -> Self {
        Self { author, epoch, run: None, scratch: Vec::new() }
    }

    /// Packs an entry with all of its body, or what stands for it; `false` if the record would grow beyond `most`.
    pub(crate) fn push(&mut self, record: &mut Vec<u8>, most: usize, seq: u64, entry: &Entry) -> bool {
        if let Some(Dropped::Gone { first }) = entry.dropped {
            if record.len() + self.open() + 128 > most {
                return false;
            }
            self.finish(record);
            let (author, epoch) = (self.author, self.epoch);
            let (hash, lamport) = (entry.hash, entry.lamport);
            Frame::Gone(Gone { author, epoch, first, last: seq, hash, lamport }).encode(record);
            return true;
        }
        self.scratch.clear();
        let body = if entry.dropped.is_some() {
            Body::Dropped { len: entry.body_len, hash: entry.body_hash }
        } else {
            Body::Inline(&entry.body)
        };
        put_item(&mut self.scratch, &item(entry, body));
        if record.len() + self.open() + self.scratch.len() + 128 > most {
            return false;
        }
        let fits = self
            .run
            .as_ref()
            .is_some_and(|(next, body)| *next == seq && body.len() + self.scratch.len() <= FRAME_BYTES);
        if !fits {
            self.finish(record);
            let mut body = Vec::new();
            put(&mut body, &self.head(seq, entry.prev));
            self.run = Some((seq, body));
        }
        if let Some((next, body)) = &mut self.run {
            body.extend_from_slice(&self.scratch);
            *next = seq + 1;
        }
        true
    }

    /// Packs the next part of a body that travels in chunks, announced first if `sent` is `None`. Gives how much of it
    /// is sent now; `None` if the record has no room.
    pub(crate) fn push_chunk(
        &mut self,
        record: &mut Vec<u8>,
        seq: u64,
        entry: &Entry,
        sent: Option<u32>,
    ) -> Option<u32> {
        self.finish(record);
        if record.len() + CHUNK_BYTES + 1024 > PLAINTEXT_BYTES {
            return None;
        }
        if sent.is_none() {
            let mut run = Vec::new();
            put(&mut run, &self.head(seq, entry.prev));
            put_item(&mut run, &item(entry, Body::Chunked { len: entry.body_len, hash: entry.body_hash }));
            put_entries(record, &run);
        }
        let offset = sent.unwrap_or(0);
        let rest = entry.body.get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or_default();
        let bytes = rest.get(..CHUNK_BYTES).unwrap_or(rest);
        Frame::Chunk(Chunk { author: self.author, epoch: self.epoch, seq, offset, bytes }).encode(record);
        Some(offset.saturating_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX)))
    }

    /// Closes the open run.
    pub(crate) fn finish(&mut self, record: &mut Vec<u8>) {
        if let Some((_, body)) = self.run.take() {
            put_entries(record, &body);
        }
    }

    fn open(&self) -> usize {
        self.run.as_ref().map_or(0, |(_, body)| body.len())
    }

    const fn head(&self, first: u64, prev: EntryHash) -> RunHead {
        RunHead { author: self.author, epoch: self.epoch, first, prev }
    }
}

fn item<'a>(entry: &Entry, body: Body<'a>) -> Item<'a> {
    Item {
        kind: entry.kind,
        lamport: entry.lamport,
        claimed: entry.claimed,
        caller: entry.caller,
        heads: entry.heads.clone(),
        link: entry.link,
        replaces: entry.replaces,
        tag: entry.tag,
        body,
    }
}
