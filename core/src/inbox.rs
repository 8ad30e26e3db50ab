//! A peer's feeds as this device holds them: takes entries that fit the chain, stores each with an arrival number in
//! one batch with the record that remembers it, and tells the peer what is held once that batch is durable.
//!
//! A number that is held already is acknowledged again and never shown again. A number beyond a gap is stored and
//! shown at once, with the gap. What does not fit the chain is counted and forgotten, never acknowledged.

use crate::api::Event;
use crate::bounded::List;
use crate::chain::{Placed, Position, body_hash, entry_hash, is_held, place};
use crate::cx::{Cx, Promise};
use crate::ids::{ConversationId, ConversationNo, EntryHash, Epoch, FeedNo, MessageRef, PeerId, StreamId};
use crate::limits::{BODY_BYTES, CREDIT_BYTES, ENTRY_COST, ENTRY_HEADS, LAMPORT_LIMIT, OPEN_EPOCHS};
use crate::planted::planted;
use crate::record::{Conversation, Entry, Feed, Head, Key, Kind, OrderKey, Place, Record as _};
use crate::wire::Malformed;
use crate::wire::entry::{Author, Body, Chunk, Item, Run};
use crate::wire::frame::{Have, HaveFeed, HaveRange};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use bytes::Bytes;

#[derive(Debug)]
struct Held {
    no: FeedNo,
    feed: Feed,
    dirty: bool,
}

/// A body whose chunks are still coming. It lives and dies with its stream.
#[derive(Debug)]
struct Partial {
    epoch: Epoch,
    seq: u64,
    entry: Box<Entry>,
    body: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Inbox {
    me: PeerId,
    peer: PeerId,
    id: ConversationId,
    no: ConversationNo,
    feeds: BTreeMap<Epoch, Held>,
    /// What the newest durable batch holds: the only thing that may be acknowledged.
    durable: Vec<HaveFeed>,
    durable_version: u64,
    changed: bool,
    /// Cost of entries that were taken and are not acknowledged yet, and of those not yet in a closed batch.
    taken: u32,
    taken_open: u32,
    /// One for each stream, so at most `SESSIONS_PER_PEER`: while two sessions overlap, what one had begun comes in
    /// turns with what the other begins again.
    partial: BTreeMap<StreamId, Partial>,
    lamport: u64,
}

/// What came of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Taken {
    /// Something is held that the peer does not know to be held: tell it again.
    pub(crate) again: bool,
}

impl Inbox {
    pub(crate) fn new(
        me: PeerId,
        peer: PeerId,
        id: ConversationId,
        no: ConversationNo,
        version: u64,
    ) -> Self {
        Self {
            me,
            peer,
            id,
            no,
            feeds: BTreeMap::new(),
            durable: Vec::new(),
            durable_version: version,
            changed: false,
            taken: 0,
            taken_open: 0,
            partial: BTreeMap::new(),
            lamport: 0,
        }
    }

    /// A feed that was stored, at start.
    pub(crate) fn restore(&mut self, no: FeedNo, feed: Feed) {
        self.lamport = self.lamport.max(feed.lamport);
        self.feeds.insert(feed.epoch, Held { no, feed, dirty: false });
        self.durable = self.snapshot();
    }

    pub(crate) const fn lamport(&self) -> u64 {
        self.lamport
    }

    /// The heads that my next entry has seen.
    pub(crate) fn heads(&self) -> Vec<Head> {
        let heads = self.feeds.values().filter(|held| held.feed.head > 0 && !held.feed.closed);
        heads
            .map(|held| Head { epoch: held.feed.epoch, seq: held.feed.head, hash: held.feed.hash })
            .take(ENTRY_HEADS)
            .collect()
    }

    // --- entries ---------------------------------------------------------------------------------------------

    /// # Errors
    /// `Malformed`: the session ends. What came before it in the run counts.
    pub(crate) fn run(
        &mut self,
        cx: &mut Cx,
        conversation: &mut Conversation,
        stream: StreamId,
        mut run: Run<'_>,
    ) -> Result<Taken, Malformed> {
        let mut taken = Taken::default();
        if run.head.author != Author::Sender {
            return Ok(taken);
        }
        let (epoch, mut seq, mut prev) = (run.head.epoch, run.head.first, run.head.prev);
        while let Some(item) = run.next_item() {
            let item = item?;
            let (body_len, hash, body) = match &item.body {
                Body::Inline(bytes) => {
                    (u32::try_from(bytes.len()).unwrap_or(u32::MAX), body_hash(bytes), Some(*bytes))
                }
                Body::Chunked { len, hash } | Body::Dropped { len, hash } => (*len, *hash, None),
            };
            let mut entry = new_entry(&item, prev, body_len, hash);
            let position = Position { conversation: &self.id, author: &self.peer, epoch: &epoch, seq };
            entry.hash = entry_hash(position, &entry);
            prev = entry.hash;
            match item.body {
                Body::Inline(_) | Body::Dropped { .. } => {
                    entry.body = Bytes::copy_from_slice(body.unwrap_or_default());
                    self.take(cx, conversation, epoch, seq, entry, &mut taken)?;
                }
                Body::Chunked { .. } => {
                    check(&entry)?;
                    let partial = Partial { epoch, seq, entry: Box::new(entry), body: Vec::new() };
                    self.partial.insert(stream, partial);
                }
            }
            seq = seq.checked_add(1).ok_or(Malformed("entry number"))?;
        }
        Ok(taken)
    }

    /// # Errors
    /// `Malformed`: the session ends.
    pub(crate) fn chunk(
        &mut self,
        cx: &mut Cx,
        conversation: &mut Conversation,
        stream: StreamId,
        chunk: &Chunk<'_>,
    ) -> Result<Taken, Malformed> {
        let mut taken = Taken::default();
        let fits = |partial: &Partial| {
            let names = partial.epoch == chunk.epoch && partial.seq == chunk.seq;
            let next = u32::try_from(partial.body.len()).is_ok_and(|at| at == chunk.offset);
            let end = partial.body.len() + chunk.bytes.len() <= partial.entry.body_len as usize;
            names && next && end && !chunk.bytes.is_empty() && chunk.author == Author::Sender
        };
        let Some(partial) = self.partial.get_mut(&stream).filter(|partial| fits(partial)) else {
            return Err(Malformed("chunk"));
        };
        partial.body.extend_from_slice(chunk.bytes);
        if partial.body.len() < partial.entry.body_len as usize {
            return Ok(taken);
        }
        let Some(done) = self.partial.remove(&stream) else { return Ok(taken) };
        let mut entry = *done.entry;
        if body_hash(&done.body) != entry.body_hash {
            return Err(Malformed("body"));
        }
        entry.body = Bytes::from(done.body);
        self.take(cx, conversation, done.epoch, done.seq, entry, &mut taken)?;
        Ok(taken)
    }

    /// The stream is over, and with it what it had begun.
    pub(crate) fn stream_over(&mut self, stream: StreamId) {
        self.partial.remove(&stream);
    }

    /// One whole entry.
    fn take(
        &mut self,
        cx: &mut Cx,
        conversation: &mut Conversation,
        epoch: Epoch,
        seq: u64,
        mut entry: Entry,
        taken: &mut Taken,
    ) -> Result<(), Malformed> {
        check(&entry)?;
        if entry.kind == Kind::Text && entry.body.len() != entry.body_len as usize {
            return Err(Malformed("text without its body"));
        }
        let cost = ENTRY_COST + entry.body_len;
        if !self.feeds.contains_key(&epoch) && !self.open_epoch(cx, epoch) {
            return Ok(());
        }
        let Some(held) = self.feeds.get_mut(&epoch) else { return Ok(()) };
        // What is sent again costs nothing: it is held, or about to be.
        if !is_held(&held.feed, seq)
            && self.taken.saturating_add(cost) > CREDIT_BYTES.saturating_add(ENTRY_COST)
        {
            cx.misbehaved(self.peer, "sent more than the credit");
            return Ok(());
        }
        // With a gap, the highest logical time is that of what stands beyond it.
        let contiguous = seq == held.feed.head + 1 && held.feed.beyond.is_empty();
        if contiguous && entry.lamport <= held.feed.lamport {
            cx.misbehaved(self.peer, "logical time went backwards");
            return Ok(());
        }
        let gap_from = gap_before(&held.feed, seq);
        let fills = held.feed.beyond.last().is_some_and(|range| range.last > seq);
        let placed = place(&mut held.feed, seq, entry.prev, entry.hash);
        match placed {
            Placed::Head | Placed::Beyond => {}
            Placed::Held => {
                cx.stats.duplicates += 1;
                taken.again = !planted!(cx, LostAckNeverRepaired);
                if !planted!(cx, DedupOff) {
                    return Ok(());
                }
            }
            Placed::Conflict => {
                cx.misbehaved(self.peer, "an entry does not fit the chain");
                return Ok(());
            }
            Placed::NoRoom => return Ok(()),
        }
        held.dirty = true;
        held.feed.lamport = held.feed.lamport.max(entry.lamport);
        self.lamport = self.lamport.max(entry.lamport);
        self.changed = true;
        self.taken = self.taken.saturating_add(cost);
        self.taken_open = self.taken_open.saturating_add(cost);
        cx.stats.entries_received += 1;
        entry.arrival = cx.next_arrival();
        let no = held.no;
        self.store(cx, no, epoch, seq, &entry);
        if let Some(first) = gap_from
            && placed == Placed::Beyond
        {
            cx.promise_event(Event::Gap { peer: self.peer, epoch, first, last: seq - 1 });
        }
        if fills {
            cx.promise_event(Event::GapFilled { peer: self.peer, epoch, first: seq, last: seq });
        }
        if entry.kind == Kind::Text {
            conversation.received += 1;
        }
        if planted!(cx, GapHidesWhatFollows) && placed == Placed::Beyond {
            return Ok(());
        }
        cx.promise_event(Event::Received {
            peer: self.peer,
            arrival: entry.arrival,
            ordinal: conversation.received,
            message: MessageRef { epoch, seq },
            kind: entry.kind,
            claimed: entry.claimed,
            body: entry.body,
        });
        Ok(())
    }

    fn open_epoch(&mut self, cx: &mut Cx, epoch: Epoch) -> bool {
        if self.feeds.values().filter(|held| !held.feed.closed).count() >= OPEN_EPOCHS {
            cx.misbehaved(self.peer, "too many epochs");
            return false;
        }
        let feed = Feed {
            conversation: self.no,
            mine: false,
            epoch,
            head: 0,
            hash: EntryHash::NONE,
            beyond: List::new(),
            lamport: 0,
            heads_named: List::new(),
            acked: 0,
            acked_hash: EntryHash::NONE,
            acked_beyond: List::new(),
            link: None,
            closed: false,
        };
        self.feeds.insert(epoch, Held { no: cx.new_feed(), feed, dirty: true });
        true
    }

    fn store(&self, cx: &mut Cx, no: FeedNo, epoch: Epoch, seq: u64, entry: &Entry) {
        let place = Place { feed: no, seq }.encode();
        let order = OrderKey {
            conversation: self.no,
            lamport: entry.lamport,
            rank: u8::from(self.peer > self.me),
            epoch,
            seq,
        };
        cx.put(&Key::Entry { feed: no, seq }, entry.encode());
        cx.put(&Key::Order(order), place.clone());
        cx.put(&Key::Arrival(entry.arrival), place);
    }

    // --- what is held ----------------------------------------------------------------------------------------

    fn snapshot(&self) -> Vec<HaveFeed> {
        let open = self
            .feeds
            .values()
            .filter(|held| !held.feed.closed && (held.feed.head > 0 || !held.feed.beyond.is_empty()));
        open.map(|held| HaveFeed {
            author: Author::Receiver,
            epoch: held.feed.epoch,
            upto: held.feed.head,
            hash: held.feed.hash,
            beyond: List::of(held.feed.beyond.iter().map(|range| HaveRange {
                first: range.first,
                last: range.last,
                hash: range.hash,
            })),
        })
        .collect()
    }

    /// Writes heads into the batch that is about to close, and promises to tell of them when it is durable.
    pub(crate) fn write_dirty(&mut self, cx: &mut Cx) {
        for held in self.feeds.values_mut() {
            if core::mem::take(&mut held.dirty) {
                cx.put(&Key::Feed(held.no), held.feed.encode());
            }
        }
        if core::mem::take(&mut self.changed) {
            let version = cx.next_version();
            let (feeds, cost) = (self.snapshot(), core::mem::take(&mut self.taken_open));
            let promise = Promise::Have { peer: self.peer, version, feeds, cost };
            #[cfg(peerlink_planted)]
            if planted!(cx, AckBeforeDurable) {
                cx.early.push(promise);
                return;
            }
            cx.promise_next(promise);
        }
    }

    /// The batch of a snapshot is durable.
    pub(crate) fn durable(&mut self, version: u64, feeds: Vec<HaveFeed>, cost: u32) {
        self.durable_version = version;
        self.durable = feeds;
        self.taken = self.taken.saturating_sub(cost);
    }

    /// The have-vector that may be sent now.
    pub(crate) fn have(&self, cx: &Cx) -> Have {
        Have {
            holder: cx.epoch,
            version: self.durable_version,
            credit: CREDIT_BYTES,
            feeds: List::of(self.durable.iter().cloned()),
            closed: List::new(),
        }
    }
}

/// Where the gap before `seq` begins, if `seq` would stand at the start of something new.
fn gap_before(feed: &Feed, seq: u64) -> Option<u64> {
    let below = feed.beyond.iter().rfind(|range| range.last < seq).map_or(feed.head, |range| range.last);
    (below + 1 < seq).then_some(below + 1)
}

fn new_entry(item: &Item<'_>, prev: EntryHash, body_len: u32, body_hash: EntryHash) -> Entry {
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
        body_hash,
        body_len,
        body: Bytes::new(),
    }
}

/// What no correct peer sends, whatever its history.
fn check(entry: &Entry) -> Result<(), Malformed> {
    if entry.body_len as usize > BODY_BYTES {
        return Err(Malformed("body length"));
    }
    if entry.lamport == 0 || entry.lamport > LAMPORT_LIMIT {
        return Err(Malformed("logical time"));
    }
    if entry.kind == Kind::Text && core::str::from_utf8(&entry.body).is_err() {
        return Err(Malformed("text"));
    }
    Ok(())
}
