//! A peer's feeds as this device holds them: takes entries that fit the chain, stores each with an arrival number in
//! one batch with the record that remembers it, and tells the peer what is held once that batch is durable.
//!
//! A number that is held already is acknowledged again and never shown again. A number beyond a gap is stored and
//! shown at once, with the gap. What does not fit the chain is counted and forgotten, never acknowledged: its author
//! sees what we hold, and can ask for it.

use crate::api::{Event, Gauge, KeyRange, Page};
use crate::assemble::{entries, gone_marker};
use crate::bounded::List;
use crate::chain::{
    ClosedEpochs, Placed, displace, empty_feed, fill, first_name, hole, is_held, place, place_gone, row,
};
use crate::cx::{Cx, InboxAsked, Promise, Snapshot};
use crate::ids::{BatchId, ConversationNo, EntryHash, Epoch, FeedNo, MessageRef, PeerId};
use crate::limits::{
    CREDIT_BYTES, ENTRY_COST, ENTRY_HEADS, EPOCHS, EPOCHS_A_DAY, EPOCHS_WINDOW, LAMPORT_LIMIT, OPEN_EPOCHS,
    SEQ_LIMIT,
};
use crate::planted::planted;
use crate::record::{
    Conversation, Dropped, Entry, Feed, Head, Hole, Key, Kind, OrderKey, Place, Record as _, Shown,
};
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
    peer: PeerId,
    /// Whose entries these are in the order of the conversation: 0 for the lower PeerId.
    rank: u8,
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
    /// The parked one is not known under any later name; whether under its first is the question.
    unshown: bool,
    asked: Option<InboxAsked>,
    /// When the peer began new epochs, in this run.
    begun: List<Instant, EPOCHS_A_DAY>,
    lamport: u64,
}

/// The name under which a message is held already.
#[derive(Debug)]
struct Old {
    shown: Shown,
    /// It is its first name, and this is the hash before it there.
    first: Option<EntryHash>,
    /// The hash that its first name has.
    hash: EntryHash,
}

impl Old {
    const fn order(&self, inbox: &Inbox) -> OrderKey {
        inbox.order_of(self.shown.epoch, self.shown.seq, self.shown.lamport)
    }
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
            peer,
            rank: u8::from(peer > me),
            no,
            feeds: BTreeMap::new(),
            durable: Snapshot::default(),
            durable_version: version,
            changed: false,
            taken: 0,
            taken_open: 0,
            parked: VecDeque::new(),
            parked_cost: 0,
            unshown: false,
            asked: None,
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
        if !parked && !self.may_have_names(&epoch, &entry) {
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

    /// Whether this may be held, or have been, under another name: it is issued again, or what was in its epoch was.
    fn may_have_names(&self, epoch: &Epoch, entry: &Entry) -> bool {
        let ended =
            || self.feeds.values().any(|held| held.feed.link.is_some_and(|link| link.epoch == *epoch));
        entry.replaces.is_some() || ended()
    }

    /// What must be looked at before what is parked can be taken.
    pub(crate) fn wants_load(&self) -> Option<(InboxAsked, KeyRange)> {
        let (epoch, seq, entry) = self.parked.front().filter(|_| self.asked.is_none())?;
        let first = first_name(*epoch, *seq, entry);
        if self.unshown {
            let (feed, seq) = (self.feeds.get(&first.epoch)?.no, first.seq);
            let key = Key::Entry { feed, seq };
            return Some((InboxAsked::First { feed, seq }, KeyRange::new(&key, &key, 1)));
        }
        let key = Key::Shown { conversation: self.no, hash: first.hash };
        Some((InboxAsked::Shown { hash: first.hash }, KeyRange::new(&key, &key, 1)))
    }

    pub(crate) fn asked(&mut self, what: InboxAsked) {
        self.asked = Some(what);
    }

    /// An answer about what is parked first. What cannot be read is unknown: then this is shown as new rather than not at
    /// all.
    pub(crate) fn loaded(
        &mut self,
        cx: &mut Cx,
        conversation: &mut Conversation,
        what: InboxAsked,
        page: Option<&Page>,
        taken: &mut Taken,
    ) {
        if self.asked != Some(what) {
            return;
        }
        self.asked = None;
        let Some((epoch, seq, entry)) = self.parked.front() else { return };
        let (first, again) = (first_name(*epoch, *seq, entry), entry.replaces.is_some());
        let old = match what {
            InboxAsked::Shown { .. } => {
                let value = page.and_then(|page| page.records.first()).map(|(_, value)| value);
                let shown = value.and_then(|value| Shown::decode(value).ok());
                if shown.is_none() && again && self.holds(&first.epoch, first.seq) {
                    self.unshown = true;
                    return;
                }
                shown.map(|shown| Old { shown, first: None, hash: first.hash })
            }
            InboxAsked::First { feed, seq } => {
                self.unshown = false;
                let entry = entries(page).next().map(|(_, entry)| entry);
                let here = |entry: &Entry| entry.hash == first.hash && !is_marker(entry);
                entry.filter(here).map(|entry| Old {
                    shown: Shown {
                        feed,
                        epoch: first.epoch,
                        seq,
                        lamport: entry.lamport,
                        arrival: entry.arrival,
                    },
                    first: Some(entry.prev),
                    hash: entry.hash,
                })
            }
        };
        let mut old = old;
        while let Some((epoch, seq, entry)) = self.parked.pop_front() {
            self.parked_cost = self.parked_cost.saturating_sub(cost(&entry));
            self.put(cx, conversation, epoch, seq, entry, old.take(), taken);
            if self.parked.front().is_none_or(|(epoch, _, entry)| self.may_have_names(epoch, entry)) {
                return;
            }
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
        old: Option<Old>,
        taken: &mut Taken,
    ) {
        let cost = cost(&entry);
        if !self.feeds.contains_key(&epoch) && !self.open_epoch(cx, epoch) {
            return;
        }
        self.reopen(epoch);
        let Some(held) = self.feeds.get_mut(&epoch) else { return };
        // What is sent again costs nothing: it is held, or about to be.
        let was_gone = hole(&held.feed, seq).is_some();
        if (was_gone || !is_held(&held.feed, seq))
            && self.taken.saturating_add(cost) > CREDIT_BYTES.saturating_add(ENTRY_COST)
        {
            cx.misbehaved(self.peer, "sent more than the credit");
            return;
        }
        // With a gap, the highest logical time is that of what stands beyond it. What does not fit the chain is judged by
        // that alone: whoever lost something lost the time too.
        let contiguous = seq == held.feed.head + 1 && held.feed.beyond.is_empty();
        if contiguous && entry.prev == held.feed.hash && entry.lamport <= held.feed.lamport {
            cx.misbehaved(self.peer, "logical time went backwards");
            return;
        }
        let gap_from = gap_before(&held.feed, seq);
        let fills = held.feed.beyond.last().is_some_and(|range| range.last > seq);
        let beyond = seq > held.feed.head + 1 && !is_held(&held.feed, seq);
        let mut filled = None;
        let placed = if held.conflict && beyond {
            Placed::Conflict
        } else if was_gone {
            // A copy of its author's profile did not have it, and this one does. The first of a range, or not yet.
            filled = fill(&mut held.feed, seq, entry.prev, entry.hash);
            if filled.is_some() { Placed::Beyond } else { Placed::NoRoom }
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
        let no = held.no;
        if let Some(was) = filled {
            self.shrink_marker(cx, no, epoch, seq, &was);
        }
        let order = self.order_of(epoch, seq, entry.lamport);
        let is_last = old.as_ref().is_none_or(|old| order > old.order(self));
        entry.arrival = match &old {
            None => cx.next_arrival(),
            Some(old) if is_last => old.shown.arrival,
            Some(_) => 0,
        };
        let first = (old.is_some() || entry.replaces.is_some()).then(|| first_name(epoch, seq, &entry).hash);
        self.store(cx, no, order, &entry, is_last.then_some(first));
        if let Some(first) = gap_from
            && placed == Placed::Beyond
        {
            cx.promise_event(Event::Gap { peer: self.peer, epoch, first, last: seq - 1 });
        }
        if fills {
            cx.promise_event(Event::GapFilled { peer: self.peer, epoch, first: seq, last: seq });
        }
        if let Some(old) = old {
            self.displace(cx, &old, is_last.then_some(MessageRef { epoch, seq }));
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

    /// What was held under an old name is held under a new one too. `new`: that is the one that is shown.
    fn displace(&mut self, cx: &mut Cx, old: &Old, new: Option<MessageRef>) {
        let (epoch, seq) = (old.shown.epoch, old.shown.seq);
        if let Some(new) = new {
            cx.delete(&Key::Order(old.order(self)));
            cx.promise_event(Event::Reissued { peer: self.peer, old: MessageRef { epoch, seq }, new });
        }
        let Some((held, prev)) = self.feeds.get_mut(&epoch).zip(old.first) else { return };
        // Beyond a gap it stood for nothing that will ever be filled: its author goes on from another entry there.
        let hash = old.hash;
        if displace(&mut held.feed, seq, prev, hash) {
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
        if gone.lamport > LAMPORT_LIMIT {
            return;
        }
        let begins = gone.first == 1 && (1..=SEQ_LIMIT).contains(&gone.last);
        let known = self.feeds.contains_key(&gone.epoch);
        if !known && (!begins || !self.open_epoch(cx, gone.epoch)) {
            return;
        }
        self.reopen(gone.epoch);
        let Some(held) = self.feeds.get_mut(&gone.epoch) else { return };
        if !place_gone(&mut held.feed, gone.first, gone.last, gone.hash, gone.lamport) {
            return;
        }
        held.dirty = true;
        self.changed = true;
        let mut marker = gone_marker(gone.first, gone.hash, gone.lamport);
        marker.arrival = cx.next_arrival();
        if let Some(hole) = held.feed.holes.last_mut() {
            hole.arrival = marker.arrival;
        }
        let no = held.no;
        let order = self.order_of(gone.epoch, gone.last, marker.lamport);
        self.store(cx, no, order, &marker, Some(None));
        let (first, last) = (gone.first, gone.last);
        cx.promise_event(Event::Gone { peer: self.peer, epoch: gone.epoch, first, last });
    }

    /// What stands for numbers that were gone stands for one less, or for none.
    fn shrink_marker(&self, cx: &mut Cx, feed: FeedNo, epoch: Epoch, seq: u64, was: &Hole) {
        if was.lamport == 0 {
            return;
        }
        if was.last > seq {
            let marker = Entry { arrival: was.arrival, ..gone_marker(seq + 1, was.hash, was.lamport) };
            cx.put(&Key::Entry { feed, seq: was.last }, marker.encode());
        } else {
            cx.delete(&Key::Order(self.order_of(epoch, seq, was.lamport)));
            cx.delete(&Key::Arrival(was.arrival));
        }
    }

    /// The user deleted an entry, and what found it: nobody writes it again if it was a marker.
    pub(crate) fn hidden(&mut self, cx: &mut Cx, feed: FeedNo, seq: u64) {
        let held = self.feeds.values_mut().find(|held| held.no == feed);
        if let Some(held) = held
            && let Some(hole) = held.feed.holes.iter_mut().find(|hole| hole.last == seq && hole.lamport > 0)
        {
            hole.lamport = 0;
            held.dirty = true;
            cx.unsaved.insert(self.peer);
        }
    }

    fn open_epoch(&mut self, cx: &mut Cx, epoch: Epoch) -> bool {
        let open = self.feeds.values().filter(|held| !held.feed.closed).count();
        self.begun.retain(|at| cx.now.saturating_since(*at) < EPOCHS_WINDOW);
        let first = self.feeds.is_empty();
        let endless = planted!(cx, EpochsWithoutEnd);
        if !endless && (open >= OPEN_EPOCHS || self.feeds.len() >= EPOCHS || (self.begun.is_full() && !first))
        {
            cx.misbehaved(self.peer, "too many epochs");
            return false;
        }
        if !first {
            let _room_was_checked = self.begun.push(cx.now);
        }
        let feed = Feed { mine: false, ..empty_feed(self.no, epoch) };
        self.feeds.insert(epoch, Held { no: cx.new_feed(), feed, dirty: true, conflict: false });
        true
    }

    const fn order_of(&self, epoch: Epoch, seq: u64, lamport: u64) -> OrderKey {
        OrderKey { conversation: self.no, lamport, rank: self.rank, epoch, seq }
    }

    /// Writes an entry; `shown`: with everything that finds it, also by the hash of its first name if it has several.
    fn store(
        &self,
        cx: &mut Cx,
        feed: FeedNo,
        order: OrderKey,
        entry: &Entry,
        shown: Option<Option<EntryHash>>,
    ) {
        let seq = order.seq;
        cx.put(&Key::Entry { feed, seq }, entry.encode());
        let Some(first) = shown else { return };
        let place = Place { feed, seq }.encode();
        cx.put(&Key::Order(order), place.clone());
        if entry.arrival > 0 {
            cx.put(&Key::Arrival(entry.arrival), place);
        }
        if let Some(hash) = first {
            let key = Key::Shown { conversation: self.no, hash };
            let (epoch, lamport, arrival) = (order.epoch, entry.lamport, entry.arrival);
            cx.put(&key, Shown { feed, epoch, seq, lamport, arrival }.encode());
        }
    }

    pub(crate) fn held(&self) -> Gauge {
        let most = (CREDIT_BYTES + ENTRY_COST) as usize;
        Gauge::new("bytes of entries that wait for their place", self.parked_cost as usize, most)
    }

    // --- what is held ----------------------------------------------------------------------------------------

    /// From the first to the last number that is held of an epoch and that its author does not have, if there is one.
    pub(crate) fn lacking(&self, row: &HaveFeed) -> Option<(FeedNo, u64, u64)> {
        let held = self.feeds.get(&row.epoch)?;
        let last = held.feed.beyond.last().map_or(held.feed.head, |range| range.last);
        let mut from = row.upto.checked_add(1)?;
        while from <= last {
            let agreed = hole(&held.feed, from)
                .filter(|_| row.gone.iter().any(|(first, last)| (*first..=*last).contains(&from)));
            if let Some(range) = row.beyond.iter().find(|range| (range.first..=range.last).contains(&from)) {
                from = range.last.checked_add(1)?;
            } else if let Some(hole) = agreed {
                // Neither of us has it.
                from = hole.last.checked_add(1)?;
            } else if is_held(&held.feed, from) {
                return Some((held.no, from, last));
            } else {
                from = held.feed.beyond.iter().find(|range| range.first > from)?.first;
            }
        }
        None
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
        Some(self.order_of(epoch, seq, lamport))
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
    ///
    /// One that was closed and that the peer does not name is open again: the peer lost what it knew.
    pub(crate) fn close(&mut self, have: &Have) {
        if let Some(unknown) = self.closed_unknown_to(have) {
            self.reopen(unknown);
        }
        for epoch in self.order() {
            let Some(held) = self.feeds.get(&epoch) else { return };
            let mine = row(Author::Sender, &held.feed, (held.feed.head, held.feed.hash));
            let known = have.feeds.iter().any(|said| {
                let same = said.author == Author::Sender && said.epoch == epoch && said.gone == mine.gone;
                let upto = (said.upto, said.hash) == (mine.upto, mine.hash);
                same && upto && (mine.gone.is_empty() || said.beyond == mine.beyond)
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

    /// The first closed epoch that the peer's have-vector names neither by itself nor among those that it closed too.
    fn closed_unknown_to(&self, have: &Have) -> Option<Epoch> {
        let order = self.order();
        let feeds: Vec<&Feed> =
            order.iter().filter_map(|epoch| self.feeds.get(epoch)).map(|held| &held.feed).collect();
        let said = have.closed.iter().find(|closed| closed.author == Author::Sender);
        let named = said
            .and_then(|said| feeds.get(..usize::try_from(said.epochs).ok()?).map(|first| (said, first)))
            .filter(|(said, first)| ClosedEpochs::hash(first.iter().copied()) == said.hash)
            .map_or(0, |(_, first)| first.len());
        let row = |feed: &Feed| {
            have.feeds.iter().any(|row| row.author == Author::Sender && row.epoch == feed.epoch)
        };
        feeds.iter().skip(named).find(|feed| feed.closed && !row(feed)).map(|feed| feed.epoch)
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
        let feeds = open.take(OPEN_EPOCHS).map(|held| {
            let mut said = row(Author::Receiver, &held.feed, (held.feed.head, held.feed.hash));
            for range in held.feed.beyond.iter() {
                let range = HaveRange { first: range.first, last: range.last, hash: range.hash };
                let _there_is_room = said.beyond.push(range);
            }
            said
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

    /// The batch in which everything is that was taken and may not be told of yet.
    pub(crate) fn taken_in(&self, cx: &Cx) -> BatchId {
        match (self.changed, self.taken) {
            (true, _) => cx.batch(),
            (false, 0) => BatchId(0),
            (false, _) => BatchId(cx.batch().0.saturating_sub(1)),
        }
    }

    /// The batch of a snapshot is durable.
    pub(crate) fn durable(&mut self, version: u64, held: Snapshot, cost: u32) {
        self.durable_version = version;
        self.durable = held;
        self.taken = self.taken.saturating_sub(cost);
    }

    /// The have-vector that may be sent now. `asked`: what this node asks back of its own feeds; `own_closed`: those of
    /// its own that need no asking.
    pub(crate) fn have(
        &self,
        cx: &Cx,
        asked: impl Iterator<Item = HaveFeed>,
        own_closed: Option<Closed>,
    ) -> Have {
        Have {
            holder: cx.epoch,
            version: self.durable_version,
            credit: CREDIT_BYTES,
            feeds: List::of(self.durable.feeds.iter().cloned().chain(asked)),
            closed: List::of(self.durable.closed.into_iter().chain(own_closed)),
        }
    }
}

/// It is no entry, but stands for some that are gone.
const fn is_marker(entry: &Entry) -> bool {
    matches!(entry.dropped, Some(Dropped::Gone { .. }))
}

/// Where the gap before `seq` begins, if `seq` would stand at the start of something new.
fn gap_before(feed: &Feed, seq: u64) -> Option<u64> {
    let below = feed.beyond.iter().rfind(|range| range.last < seq).map_or(feed.head, |range| range.last);
    (below + 1 < seq).then_some(below + 1)
}

fn cost(entry: &Entry) -> u32 {
    ENTRY_COST.saturating_add(u32::try_from(entry.body.len()).unwrap_or(u32::MAX))
}
