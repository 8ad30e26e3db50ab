//! A peer's feeds as this device holds them: takes entries that fit the chain, stores each with an arrival number in
//! one batch with the record that remembers it, and tells the peer what is held once that batch is durable.
//!
//! A number that is held already is acknowledged again and never shown again. A number beyond a gap is stored and
//! shown at once, with the gap. What does not fit the chain is counted and forgotten, never acknowledged: its author
//! sees what we hold, and can ask for it.

use crate::api::Event;
use crate::api::Page;
use crate::assemble::{entries, gone_marker};
use crate::bounded::List;
use crate::chain::{ClosedEpochs, Placed, displace, is_held, place, place_gone};
use crate::cx::{Cx, Promise, Snapshot};
use crate::ids::{ConversationNo, EntryHash, Epoch, FeedNo, MessageRef, PeerId};
use crate::limits::{
    CREDIT_BYTES, ENTRY_COST, ENTRY_HEADS, EPOCHS, EPOCHS_A_DAY, EPOCHS_WINDOW, OPEN_EPOCHS,
};
use crate::planted::planted;
use crate::record::{Conversation, Dropped, Entry, Feed, Head, Key, Kind, OrderKey, Place, Record as _};
use crate::time::Instant;
use crate::wire::entry::{Author, Gone};
use crate::wire::frame::{Closed, Have, HaveFeed, HaveRange};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use bytes::Bytes;

#[derive(Debug)]
struct Held {
    no: FeedNo,
    feed: Feed,
    dirty: bool,
    /// What came last for the head did not fit it. Until something does, what stands beyond it is of no use either.
    conflict: bool,
}

#[derive(Debug)]
pub(crate) struct Inbox {
    me: PeerId,
    peer: PeerId,
    no: ConversationNo,
    feeds: BTreeMap<Epoch, Held>,
    /// What the newest durable batch holds: the only thing that may be acknowledged.
    durable: Snapshot,
    durable_version: u64,
    changed: bool,
    /// Cost of entries that were taken and are not acknowledged yet, and of those not yet in a closed batch.
    taken: u32,
    taken_open: u32,
    /// Entries that are issued anew and whose old place must be looked at first, and what came after them.
    parked: VecDeque<(Epoch, u64, Entry)>,
    parked_cost: u32,
    asked: bool,
    /// When the peer began new epochs, in this run.
    begun: List<Instant, EPOCHS_A_DAY>,
    lamport: u64,
}

/// What came of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Taken {
    /// Something is held that the peer does not know to be held: tell it again.
    pub(crate) again: bool,
}

impl Inbox {
    pub(crate) fn new(me: PeerId, peer: PeerId, no: ConversationNo, version: u64) -> Self {
        Self {
            me,
            peer,
            no,
            feeds: BTreeMap::new(),
            durable: Snapshot::default(),
            durable_version: version,
            changed: false,
            taken: 0,
            taken_open: 0,
            parked: VecDeque::new(),
            parked_cost: 0,
            asked: false,
            begun: List::new(),
            lamport: 0,
        }
    }

    /// A feed that was stored, at start.
    pub(crate) fn restore(&mut self, no: FeedNo, feed: Feed) {
        self.lamport = self.lamport.max(feed.lamport);
        self.feeds.insert(feed.epoch, Held { no, feed, dirty: false, conflict: false });
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

    /// One whole entry.
    pub(crate) fn take(
        &mut self,
        cx: &mut Cx,
        conversation: &mut Conversation,
        epoch: Epoch,
        seq: u64,
        entry: Entry,
        taken: &mut Taken,
    ) {
        let parked = self.parked.iter().any(|(other, ..)| *other == epoch);
        if !parked && self.old_place(&entry).is_none() {
            self.put(cx, conversation, epoch, seq, entry, None, taken);
            return;
        }
        let cost = cost(&entry);
        if self.parked_cost.saturating_add(cost) > CREDIT_BYTES.saturating_add(ENTRY_COST) {
            cx.misbehaved(self.peer, "sent more than the credit");
            return;
        }
        self.parked_cost += cost;
        self.parked.push_back((epoch, seq, entry));
    }

    /// Where that may be held which this entry issues anew. Below the head of a feed nothing is: its author issues anew
    /// what did not fit there.
    fn old_place(&self, entry: &Entry) -> Option<(FeedNo, u64)> {
        let old = entry.replaces?;
        let held = self.feeds.get(&old.epoch)?;
        let beyond = held.feed.beyond.iter().any(|range| (range.first..=range.last).contains(&old.seq));
        beyond.then_some((held.no, old.seq))
    }

    /// What must be looked at before what is parked can be taken.
    pub(crate) fn wants_load(&self) -> Option<(FeedNo, u64)> {
        let (_, _, entry) = self.parked.front().filter(|_| !self.asked)?;
        self.old_place(entry)
    }

    pub(crate) fn asked(&mut self) {
        self.asked = true;
    }

    /// The old place of what is parked first, if it can be read.
    pub(crate) fn loaded(
        &mut self,
        cx: &mut Cx,
        conversation: &mut Conversation,
        (feed, at): (FeedNo, u64),
        page: Option<&Page>,
        taken: &mut Taken,
    ) {
        self.asked = false;
        let old = entries(page).next().filter(|(seq, _)| *seq == at).map(|(_, entry)| entry);
        let mut answer = Some(old);
        while let Some((epoch, seq, entry)) = self.parked.pop_front() {
            let place = self.old_place(&entry);
            let old = match place {
                None => None,
                // What cannot be read is unknown: then this is shown as new rather than not at all.
                Some(place) if place == (feed, at) && answer.is_some() => answer.take().flatten(),
                Some(_) => {
                    self.parked.push_front((epoch, seq, entry));
                    return;
                }
            };
            self.parked_cost = self.parked_cost.saturating_sub(cost(&entry));
            let old = old.filter(|old| entry.replaces.is_some_and(|replaced| replaced.hash == old.hash));
            self.put(cx, conversation, epoch, seq, entry, old, taken);
        }
    }

    /// Puts an entry in its place. `old`: it was here already under another name.
    #[expect(clippy::too_many_arguments, reason = "an entry, where it goes, and what comes of it")]
    fn put(
        &mut self,
        cx: &mut Cx,
        conversation: &mut Conversation,
        epoch: Epoch,
        seq: u64,
        mut entry: Entry,
        old: Option<Entry>,
        taken: &mut Taken,
    ) {
        let cost = cost(&entry);
        if !self.feeds.contains_key(&epoch) && !self.open_epoch(cx, epoch) {
            return;
        }
        self.reopen(epoch);
        let Some(held) = self.feeds.get_mut(&epoch) else { return };
        // What is sent again costs nothing: it is held, or about to be.
        if !is_held(&held.feed, seq)
            && self.taken.saturating_add(cost) > CREDIT_BYTES.saturating_add(ENTRY_COST)
        {
            cx.misbehaved(self.peer, "sent more than the credit");
            return;
        }
        // With a gap, the highest logical time is that of what stands beyond it.
        let contiguous = seq == held.feed.head + 1 && held.feed.beyond.is_empty();
        if contiguous && entry.lamport <= held.feed.lamport {
            cx.misbehaved(self.peer, "logical time went backwards");
            return;
        }
        let gap_from = gap_before(&held.feed, seq);
        let fills = held.feed.beyond.last().is_some_and(|range| range.last > seq);
        let beyond = seq > held.feed.head + 1 && !is_held(&held.feed, seq);
        let placed = if held.conflict && beyond {
            Placed::Conflict
        } else {
            place(&mut held.feed, seq, entry.prev, entry.hash)
        };
        held.conflict = matches!(placed, Placed::Conflict) || (held.conflict && placed != Placed::Head);
        match placed {
            Placed::Head | Placed::Beyond => {}
            Placed::Held => {
                cx.stats.duplicates += 1;
                taken.again = !planted!(cx, LostAckNeverRepaired);
                if !planted!(cx, DedupOff) {
                    return;
                }
            }
            Placed::Conflict => {
                // Whoever lost something writes like that. What we hold says so, and it can ask for it.
                cx.stats.conflicts += 1;
                taken.again = true;
                return;
            }
            Placed::NoRoom => return,
        }
        held.dirty = true;
        held.feed.lamport = held.feed.lamport.max(entry.lamport);
        held.feed.link = held.feed.link.or(entry.link);
        self.lamport = self.lamport.max(entry.lamport);
        self.changed = true;
        self.taken = self.taken.saturating_add(cost);
        self.taken_open = self.taken_open.saturating_add(cost);
        cx.stats.entries_received += 1;
        entry.arrival = old.as_ref().map_or_else(|| cx.next_arrival(), |old| old.arrival);
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
        if let Some(old) = old
            && let Some(replaced) = entry.replaces
        {
            self.displace(cx, &replaced, &old);
            let new = MessageRef { epoch, seq };
            let old = MessageRef { epoch: replaced.epoch, seq: replaced.seq };
            cx.promise_event(Event::Reissued { peer: self.peer, old, new });
            return;
        }
        let kind = if entry.dropped.is_some() { Kind::Tombstone } else { entry.kind };
        if kind == Kind::Text {
            conversation.received += 1;
        }
        if planted!(cx, GapHidesWhatFollows) && placed == Placed::Beyond {
            return;
        }
        cx.promise_event(Event::Received {
            peer: self.peer,
            arrival: entry.arrival,
            ordinal: conversation.received,
            message: MessageRef { epoch, seq },
            kind,
            claimed: entry.claimed,
            body: entry.body,
        });
    }

    /// What was held under an old name has a new one.
    fn displace(&mut self, cx: &mut Cx, replaced: &Head, old: &Entry) {
        let rank = u8::from(self.peer > self.me);
        let Some(held) = self.feeds.get_mut(&replaced.epoch) else { return };
        let (epoch, seq) = (replaced.epoch, replaced.seq);
        cx.delete(&Key::Order(OrderKey { conversation: self.no, lamport: old.lamport, rank, epoch, seq }));
        if displace(&mut held.feed, seq, old.prev, old.hash) {
            held.dirty = true;
            cx.delete(&Key::Entry { feed: held.no, seq });
            if held.feed.beyond.is_empty() {
                let (first, last) = (held.feed.head + 1, seq);
                cx.promise_event(Event::GapFilled { peer: self.peer, epoch, first, last });
            }
        }
    }

    /// Entries that are gone at their author: counted as held, shown as gone.
    pub(crate) fn gone(&mut self, cx: &mut Cx, gone: &Gone) {
        let begins = gone.first == 1 && gone.last >= 1 && gone.last < u64::MAX;
        let known = self.feeds.contains_key(&gone.epoch);
        if !known && (!begins || !self.open_epoch(cx, gone.epoch)) {
            return;
        }
        self.reopen(gone.epoch);
        let Some(held) = self.feeds.get_mut(&gone.epoch) else { return };
        if !place_gone(&mut held.feed, gone.first, gone.last, gone.hash) {
            return;
        }
        held.dirty = true;
        self.changed = true;
        let mut marker = gone_marker(gone.first, gone.hash, held.feed.lamport);
        marker.arrival = cx.next_arrival();
        let no = held.no;
        self.store(cx, no, gone.epoch, gone.last, &marker);
        let (first, last) = (gone.first, gone.last);
        cx.promise_event(Event::Gone { peer: self.peer, epoch: gone.epoch, first, last });
    }

    fn open_epoch(&mut self, cx: &mut Cx, epoch: Epoch) -> bool {
        let open = self.feeds.values().filter(|held| !held.feed.closed).count();
        self.begun.retain(|at| cx.now.saturating_since(*at) < EPOCHS_WINDOW);
        let first = self.feeds.is_empty();
        if open >= OPEN_EPOCHS || self.feeds.len() >= EPOCHS || (self.begun.is_full() && !first) {
            cx.misbehaved(self.peer, "too many epochs");
            return false;
        }
        if !first {
            let _room_was_checked = self.begun.push(cx.now);
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
            fork: None,
        };
        self.feeds.insert(epoch, Held { no: cx.new_feed(), feed, dirty: true, conflict: false });
        true
    }

    fn store(&self, cx: &mut Cx, no: FeedNo, epoch: Epoch, seq: u64, entry: &Entry) {
        let place = Place { feed: no, seq }.encode();
        let rank = u8::from(self.peer > self.me);
        let order = OrderKey { conversation: self.no, lamport: entry.lamport, rank, epoch, seq };
        cx.put(&Key::Entry { feed: no, seq }, entry.encode());
        cx.put(&Key::Order(order), place.clone());
        cx.put(&Key::Arrival(entry.arrival), place);
    }

    // --- what is held ----------------------------------------------------------------------------------------

    /// What is held of an epoch beyond `upto`, if it is anything.
    pub(crate) fn beyond(&self, epoch: &Epoch, upto: u64) -> Option<(FeedNo, u64)> {
        let held = self.feeds.get(epoch)?;
        let last = held.feed.beyond.last().map_or(held.feed.head, |range| range.last);
        (last > upto).then_some((held.no, last))
    }

    fn find(&self, feed: FeedNo) -> Option<&Held> {
        self.feeds.values().find(|held| held.no == feed)
    }

    pub(crate) fn feed_nos(&self) -> impl Iterator<Item = FeedNo> + '_ {
        self.feeds.values().map(|held| held.no)
    }

    /// Where this message is stored, if it is held.
    pub(crate) fn place(&self, message: MessageRef) -> Option<FeedNo> {
        let held = self.feeds.get(&message.epoch)?;
        is_held(&held.feed, message.seq).then_some(held.no)
    }

    /// Whether nothing of this feed is held beyond.
    pub(crate) fn is_last(&self, feed: FeedNo, seq: u64) -> bool {
        let held = self.find(feed);
        held.is_some_and(|held| {
            seq == held.feed.head || held.feed.beyond.iter().any(|range| range.last == seq)
        })
    }

    pub(crate) fn order_key(&self, feed: FeedNo, seq: u64, lamport: u64) -> Option<OrderKey> {
        let epoch = self.find(feed)?.feed.epoch;
        Some(OrderKey { conversation: self.no, lamport, rank: u8::from(self.peer > self.me), epoch, seq })
    }

    /// The user deletes a message of the peer's, on this device.
    pub(crate) fn drop_body(&self, cx: &mut Cx, feed: FeedNo, seq: u64, entry: Entry) {
        let Some(order) = self.order_key(feed, seq, entry.lamport) else { return };
        let message = MessageRef { epoch: order.epoch, seq };
        let dropped = entry.dropped.or(Some(Dropped::Deleted));
        let entry = Entry { body: Bytes::new(), dropped, ..entry };
        cx.put(&Key::Entry { feed, seq }, entry.encode());
        cx.delete(&Key::Order(order));
        cx.promise_event(Event::Dropped { peer: self.peer, message, cancelled: false });
    }

    /// Whether this number was ever held.
    pub(crate) fn holds(&self, epoch: &Epoch, seq: u64) -> bool {
        self.feeds.get(epoch).is_some_and(|held| is_held(&held.feed, seq))
    }

    fn order(&self) -> Vec<Epoch> {
        ClosedEpochs::order(self.feeds.values().map(|held| &held.feed))
    }

    /// The peer says what it has of its own feeds: an earlier epoch that both hold whole is closed.
    pub(crate) fn close(&mut self, have: &Have) {
        for epoch in self.order() {
            let Some(held) = self.feeds.get(&epoch) else { return };
            let known = have.feeds.iter().any(|row| {
                row.author == Author::Sender
                    && row.epoch == epoch
                    && (row.upto, row.hash) == (held.feed.head, held.feed.hash)
            });
            let mut after = self.feeds.values().filter_map(|held| held.feed.link);
            let follows = after.any(|link| link.epoch == epoch && link.last <= held.feed.head);
            let whole = held.feed.beyond.is_empty() && follows && known;
            if !held.feed.closed && !whole {
                return;
            }
            if let Some(held) = self.feeds.get_mut(&epoch)
                && !core::mem::replace(&mut held.feed.closed, true)
            {
                held.dirty = true;
                self.changed = true;
            }
        }
    }

    /// The peer writes in an epoch that was closed: it lost what it knew. This one and all after it are open again.
    fn reopen(&mut self, epoch: Epoch) {
        if self.feeds.get(&epoch).is_none_or(|held| !held.feed.closed) {
            return;
        }
        for later in self.order().into_iter().skip_while(|other| *other != epoch) {
            if let Some(held) = self.feeds.get_mut(&later)
                && core::mem::take(&mut held.feed.closed)
            {
                held.dirty = true;
                self.changed = true;
            }
        }
    }

    fn snapshot(&self) -> Snapshot {
        let open = self
            .feeds
            .values()
            .filter(|held| !held.feed.closed && (held.feed.head > 0 || !held.feed.beyond.is_empty()));
        let feeds = open.take(OPEN_EPOCHS).map(|held| HaveFeed {
            author: Author::Receiver,
            epoch: held.feed.epoch,
            upto: held.feed.head,
            hash: held.feed.hash,
            beyond: List::of(held.feed.beyond.iter().map(|range| HaveRange {
                first: range.first,
                last: range.last,
                hash: range.hash,
            })),
        });
        let feeds = feeds.collect();
        let order = self.order();
        let all = order.iter().filter_map(|epoch| self.feeds.get(epoch)).map(|held| &held.feed);
        let epochs = all.clone().take_while(|feed| feed.closed).count();
        let closed = (epochs > 0).then(|| Closed {
            author: Author::Receiver,
            epochs: u32::try_from(epochs).unwrap_or(u32::MAX),
            hash: ClosedEpochs::hash(all.take(epochs)),
        });
        Snapshot { feeds, closed }
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
            let (held, cost) = (self.snapshot(), core::mem::take(&mut self.taken_open));
            let promise = Promise::Have { peer: self.peer, version, held, cost };
            #[cfg(peerlink_planted)]
            if planted!(cx, AckBeforeDurable) {
                cx.early.push(promise);
                return;
            }
            cx.promise_next(promise);
        }
    }

    /// The batch of a snapshot is durable.
    pub(crate) fn durable(&mut self, version: u64, held: Snapshot, cost: u32) {
        self.durable_version = version;
        self.durable = held;
        self.taken = self.taken.saturating_sub(cost);
    }

    /// The have-vector that may be sent now. `asked`: what this node asks back of its own feeds.
    pub(crate) fn have(&self, cx: &Cx, asked: impl Iterator<Item = HaveFeed>) -> Have {
        Have {
            holder: cx.epoch,
            version: self.durable_version,
            credit: CREDIT_BYTES,
            feeds: List::of(self.durable.feeds.iter().cloned().chain(asked)),
            closed: List::of(self.durable.closed),
        }
    }
}

/// Where the gap before `seq` begins, if `seq` would stand at the start of something new.
fn gap_before(feed: &Feed, seq: u64) -> Option<u64> {
    let below = feed.beyond.iter().rfind(|range| range.last < seq).map_or(feed.head, |range| range.last);
    (below + 1 < seq).then_some(below + 1)
}

fn cost(entry: &Entry) -> u32 {
    ENTRY_COST.saturating_add(u32::try_from(entry.body.len()).unwrap_or(u32::MAX))
}
