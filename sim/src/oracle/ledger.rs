//! What is on one disk, read as a person who knows the format would, batch by batch: each must keep what earlier ones
//! promised, and must be whole in itself.

use super::past::Past;
use super::{Check, Verdict, Violation, wrong};
use bytes::Bytes;
use peerlink_core::api::Batch;
use peerlink_core::ids::{CallerId, ConversationNo, EntryHash, Epoch, FeedNo, InviteId, MessageRef, PeerId};
use peerlink_core::limits::OPEN_EPOCHS;
use peerlink_core::record::{
    Contact, ContactState, Conversation, Counters, Dropped, Entry, Feed, Head, Invite, Key, KeyBytes, Kind,
    OrderKey, Place as Stored, Profile, Range, Record as _, Table,
};
use std::collections::{BTreeMap, BTreeSet};

/// What the oracle keeps of an entry; its body stays on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) kind: Kind,
    pub(super) hash: EntryHash,
    /// Where what it stands for begins, if that is more than itself.
    pub(super) first: u64,
    pub(super) replaces: Option<Head>,
    pub(super) caller: CallerId,
    pub(super) lamport: u64,
    pub(super) arrival: u64,
    pub(super) dropped: Option<Dropped>,
    pub(super) body: [u8; 32],
}

impl Kept {
    /// No entry, but what stands for some that will never come.
    pub(super) const fn is_marker(&self) -> bool {
        matches!(self.dropped, Some(Dropped::Gone { .. }))
    }

    /// A message, and not the header of one that its author had taken back before it came.
    pub(super) fn is_text(&self) -> bool {
        self.kind == Kind::Text && self.dropped != Some(Dropped::ByAuthor)
    }
}

/// A number of a feed in the conversation with a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) peer: PeerId,
    pub(super) epoch: Epoch,
    pub(super) seq: u64,
}

/// What a batch says about the other side.
#[derive(Debug)]
pub(super) struct News {
    /// The own numbers that the peer is proven to hold.
    pub(super) proven: Vec<Place>,
    /// Numbers of the peer that are held now, and own ones.
    pub(super) received: Vec<Place>,
    pub(super) written: Vec<Place>,
    /// Own ones that were taken back, and of which it is certain now that they never came.
    pub(super) settled: Vec<Place>,
    /// Who answered a ticket, which is forgotten by that.
    pub(super) established: Vec<PeerId>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ledger {
    profile: Option<Profile>,
    pub(super) counters: Counters,
    pub(super) contacts: BTreeMap<PeerId, Contact>,
    invites: BTreeMap<InviteId, Invite>,
    pub(super) conversations: BTreeMap<ConversationNo, Conversation>,
    pub(super) feeds: BTreeMap<FeedNo, Feed>,
    pub(super) entries: BTreeMap<(FeedNo, u64), Kept>,
    pub(super) orders: BTreeMap<OrderKey, FeedNo>,
    pub(super) arrivals: BTreeMap<u64, Stored>,
    pub(super) callers: BTreeMap<(ConversationNo, CallerId), Stored>,
    /// Messages of each feed.
    texts: BTreeMap<FeedNo, u64>,
    /// What no disk tells.
    pub(super) past: Past,
}

/// What one batch touched.
#[derive(Debug, Default)]
pub(super) struct Touched {
    established: Vec<PeerId>,
    pub(super) feeds: Vec<(FeedNo, Option<Feed>)>,
    entries: Vec<(FeedNo, u64)>,
    orders: Vec<OrderKey>,
    arrivals: Vec<u64>,
    pub(super) conversations: Vec<(ConversationNo, Option<Conversation>)>,
    /// What is not there any more, or not as it was.
    pub(super) changed: Vec<(FeedNo, u64, Kept)>,
    pub(super) deleted: Vec<(FeedNo, u64, Kept)>,
    /// What came where a marker stood.
    pub(super) filled: Vec<(FeedNo, u64)>,
    pub(super) hidden: Vec<(OrderKey, FeedNo)>,
    pub(super) unlisted: Vec<(u64, Stored)>,
    pub(super) unnamed: Vec<(ConversationNo, CallerId, Stored)>,
}

fn corrupt(error: peerlink_core::record::CorruptRecord) -> Violation {
    wrong(Check::Restore, format!("a record does not read back: {error}"))
}

pub(super) fn covers(upto: u64, beyond: &[Range], seq: u64) -> bool {
    (seq >= 1 && seq <= upto) || beyond.iter().any(|range| (range.first..=range.last).contains(&seq))
}

/// The first number that the one covers and the other does not any more.
fn lost(before: (u64, &[Range]), after: (u64, &[Range])) -> Option<u64> {
    if after.0 < before.0 {
        return Some(after.0 + 1);
    }
    let whole = |range: &&Range| {
        range.last <= after.0
            || after
                .1
                .iter()
                .any(|kept| kept.first <= range.first.max(after.0 + 1) && range.last <= kept.last)
    };
    before.1.iter().find(|range| !whole(range)).map(|range| {
        // Which of them it is matters to who reads the report alone.
        if covers(after.0, after.1, range.first) { range.last } else { range.first }
    })
}

/// Everything that the one covers and the other did not, or the first number that it covers no more. Of what was
/// proven, so there are no more numbers than entries.
fn grown(before: (u64, &[Range]), after: (u64, &[Range])) -> Result<Vec<u64>, u64> {
    if let Some(lost) = lost(before, after) {
        return Err(lost);
    }
    let now = (before.0 + 1..=after.0).chain(after.1.iter().flat_map(|range| range.first..=range.last));
    Ok(now.filter(|seq| !covers(before.0, before.1, *seq)).collect())
}

impl Ledger {
    /// Everything that is on a disk.
    pub(super) fn read<'a>(
        records: impl Iterator<Item = (&'a KeyBytes, &'a Bytes)>,
    ) -> Result<Self, Violation> {
        let (mut ledger, mut touched) = (Self::default(), Touched::default());
        for (key, value) in records {
            ledger.put(key, value, &mut touched)?;
        }
        Ok(ledger)
    }

    /// A batch became durable.
    pub(super) fn apply(&mut self, batch: &Batch) -> Result<News, Violation> {
        let mut touched = Touched::default();
        for (key, value) in &batch.writes {
            match value {
                Some(value) => self.put(key, value, &mut touched)?,
                None => self.delete(key, &mut touched)?,
            }
        }
        let settled = self.check_taken_away(&touched)?;
        let counts = (self.counters.arrival, self.arrivals.len() as u64 + self.past.arrivals.len() as u64);
        if counts.0 != counts.1 {
            let what =
                format!("arrival number {} is counted, and {} arrivals are stored", counts.0, counts.1);
            return Err(wrong(Check::ExactlyOnce, what));
        }
        self.check_entries(&touched)?;
        self.check_indexes(&touched)?;
        let places = |mine: bool| {
            touched.entries.iter().filter_map(|(feed, seq)| self.place_in(*feed, *seq, mine)).collect()
        };
        let (received, written) = (places(false), places(true));
        let proven = self.check_feeds(&touched)?;
        Ok(News { proven, received, written, settled, established: touched.established })
    }

    fn put(&mut self, key: &KeyBytes, value: &Bytes, touched: &mut Touched) -> Verdict {
        match Key::decode(key).map_err(corrupt)? {
            Key::Profile => self.put_profile(Profile::decode(value).map_err(corrupt)?)?,
            Key::Counters => {
                let counters = Counters::decode(value).map_err(corrupt)?;
                if counters.arrival < self.counters.arrival || counters.version < self.counters.version {
                    return Err(wrong(Check::EvidenceGrows, "a counter went backwards"));
                }
                self.counters = counters;
            }
            Key::Contact(peer) => {
                let contact = Contact::decode(value).map_err(corrupt)?;
                let before = self.contacts.insert(peer, contact);
                let pending = |contact: &Contact| matches!(contact.state, ContactState::Pending { .. });
                if before.as_ref().is_some_and(pending)
                    && self.contacts[&peer].state == ContactState::Established
                {
                    touched.established.push(peer);
                }
                let after = &self.contacts[&peer];
                if before.is_some_and(|before| before.conversation != after.conversation) {
                    return Err(wrong(Check::EvidenceGrows, "a contact was given another conversation"));
                }
            }
            Key::Invite(id) => {
                self.invites.insert(id, Invite::decode(value).map_err(corrupt)?);
            }
            Key::Conversation(no) => {
                let conversation = Conversation::decode(value).map_err(corrupt)?;
                let before = self.conversations.insert(no, conversation);
                touched.conversations.push((no, before));
            }
            Key::Feed(no) => {
                let before = self.feeds.insert(no, Feed::decode(value).map_err(corrupt)?);
                if !touched.feeds.iter().any(|(other, _)| *other == no) {
                    touched.feeds.push((no, before));
                }
            }
            Key::Entry { feed, seq } => self.put_entry(feed, seq, value, touched)?,
            Key::Order(order) => {
                let place = Stored::decode(Table::Order, value).map_err(corrupt)?;
                self.orders.insert(order, place.feed);
                touched.orders.push(order);
            }
            Key::Arrival(number) => {
                let place = Stored::decode(Table::Arrival, value).map_err(corrupt)?;
                if self.arrivals.insert(number, place).is_some_and(|before| before != place)
                    && !self.past.mended
                {
                    return Err(wrong(Check::ExactlyOnce, format!("arrival {number} became another entry")));
                }
                touched.arrivals.push(number);
            }
            // Only after a rollback are there entries that stand for the same.
            Key::Shown { .. } => {}
            Key::Expiry { .. } | Key::Lived => {}
            Key::Caller { conversation, caller } => {
                let place = Stored::decode(Table::Caller, value).map_err(corrupt)?;
                let before = self.callers.insert((conversation, caller), place);
                if before.is_some_and(|before| before != place) && !self.past.mended {
                    return Err(wrong(Check::ExactlyOnce, format!("message {caller} was stored twice")));
                }
            }
        }
        Ok(())
    }

    fn put_profile(&mut self, profile: Profile) -> Verdict {
        if let Some(before) = &self.profile
            && (profile.start < before.start
                || profile.record_seq < before.record_seq
                || (profile.epoch != before.epoch && !self.past.mended))
        {
            return Err(wrong(Check::EvidenceGrows, "the profile went backwards"));
        }
        self.profile = Some(profile);
        Ok(())
    }

    fn put_entry(&mut self, feed: FeedNo, seq: u64, value: &Bytes, touched: &mut Touched) -> Verdict {
        let entry = Entry::decode(value).map_err(corrupt)?;
        let kept = Kept {
            kind: entry.kind,
            hash: entry.hash,
            first: match entry.dropped {
                Some(Dropped::Gone { first }) => first,
                _ => seq,
            },
            replaces: entry.replaces,
            caller: entry.caller,
            lamport: entry.lamport,
            arrival: entry.arrival,
            dropped: entry.dropped,
            body: *blake3::hash(&entry.body).as_bytes(),
        };
        let before = self.entries.insert((feed, seq), kept);
        let fills = before.is_some_and(|before| {
            before.is_marker() && before.hash == kept.hash && (!kept.is_marker() || kept.first > before.first)
        });
        let fills = fills && self.past.mended;
        if (before.is_none() || fills) && kept.is_text() {
            *self.texts.entry(feed).or_default() += 1;
        }
        if let Some(old) = kept.replaces {
            self.past.replaced.insert((old.epoch, old.seq), old.hash);
        }
        match before {
            None => touched.entries.push((feed, seq)),
            Some(_) if fills && kept.is_marker() => {}
            Some(_) if fills => {
                touched.entries.push((feed, seq));
                touched.filled.push((feed, seq));
            }
            Some(before) if before != kept => touched.changed.push((feed, seq, before)),
            Some(_) => {}
        }
        Ok(())
    }

    fn delete(&mut self, key: &KeyBytes, touched: &mut Touched) -> Verdict {
        match Key::decode(key).map_err(corrupt)? {
            Key::Invite(id) => {
                self.invites.remove(&id);
                Ok(())
            }
            Key::Entry { feed, seq } => {
                if let Some(kept) = self.entries.remove(&(feed, seq)) {
                    if kept.is_text() {
                        let left = self.texts.remove(&feed).unwrap_or(0).saturating_sub(1);
                        self.texts.extend((left > 0).then_some((feed, left)));
                    }
                    touched.deleted.push((feed, seq, kept));
                }
                Ok(())
            }
            Key::Order(order) => {
                touched.hidden.extend(self.orders.remove(&order).map(|feed| (order, feed)));
                Ok(())
            }
            Key::Arrival(number) => {
                touched.unlisted.extend(self.arrivals.remove(&number).map(|place| (number, place)));
                Ok(())
            }
            Key::Caller { conversation, caller } => {
                let place = self.callers.remove(&(conversation, caller));
                touched.unnamed.extend(place.map(|place| (conversation, caller, place)));
                Ok(())
            }
            // Delivered in time, or taken back.
            Key::Expiry { .. } => Ok(()),
            other => Err(wrong(Check::SenderKeeps, format!("{other:?} was deleted"))),
        }
    }

    // --- a batch is whole in itself --------------------------------------------------------------------------

    /// Contract 2: an entry is stored together with the record that remembers it, and with its places in the indexes.
    fn check_entries(&self, touched: &Touched) -> Verdict {
        for (feed_no, seq) in &touched.entries {
            let Some(feed) = self.feeds.get(feed_no) else {
                return Err(wrong(Check::AcknowledgedIsDurable, "an entry is stored and its feed is not"));
            };
            if !covers(feed.head, &feed.beyond, *seq) {
                let what = format!("entry {seq} is stored, and its feed does not remember it");
                return Err(wrong(Check::AcknowledgedIsDurable, what));
            }
            let Some(kept) = self.entries.get(&(*feed_no, *seq)) else { continue };
            if self.past.mended && self.past.replaced.get(&(feed.epoch, *seq)) == Some(&kept.hash) {
                continue;
            }
            if kept.arrival == 0 && self.is_shown_elsewhere(feed, *feed_no, *seq, kept) {
                continue;
            }
            let place = Stored { feed: *feed_no, seq: *seq };
            if feed.mine {
                if kept.kind == Kind::Text
                    && self.callers.get(&(feed.conversation, kept.caller)) != Some(&place)
                {
                    return Err(wrong(Check::ExactlyOnce, "an own entry is not found by its caller's id"));
                }
            } else if self.arrivals.get(&kept.arrival) != Some(&place) {
                return Err(wrong(
                    Check::NothingHidden,
                    format!("entry {seq} is stored and has no arrival number"),
                ));
            }
            let order = OrderKey {
                conversation: feed.conversation,
                lamport: kept.lamport,
                rank: self.rank_in(feed.conversation, *feed_no, *seq),
                epoch: feed.epoch,
                seq: *seq,
            };
            if self.orders.get(&order) != Some(feed_no) {
                return Err(wrong(
                    Check::NothingHidden,
                    format!("entry {seq} is stored and not in its history"),
                ));
            }
        }
        Ok(())
    }

    /// The rank under which the history holds this entry: either is looked for, both sides are compared in the end.
    pub(super) fn rank_in(&self, conversation: ConversationNo, feed: FeedNo, seq: u64) -> u8 {
        let Some(kept) = self.entries.get(&(feed, seq)) else { return 0 };
        let Some(of) = self.feeds.get(&feed) else { return 0 };
        let key = |rank| OrderKey { conversation, lamport: kept.lamport, rank, epoch: of.epoch, seq };
        u8::from(self.orders.get(&key(0)) != Some(&feed))
    }

    fn check_indexes(&self, touched: &Touched) -> Verdict {
        for number in &touched.arrivals {
            let place = self.arrivals.get(number);
            let kept = place.and_then(|place| self.entries.get(&(place.feed, place.seq)));
            if kept.is_none_or(|kept| kept.arrival != *number) && !self.past.mended {
                return Err(wrong(
                    Check::ExactlyOnce,
                    format!("arrival {number} names an entry that has another"),
                ));
            }
            let before = number - 1;
            if before > 0 && !self.arrivals.contains_key(&before) && !self.past.arrivals.contains_key(&before)
            {
                return Err(wrong(Check::ExactlyOnce, format!("there is a hole before arrival {number}")));
            }
        }
        if self.orders.len() + self.past.unordered.len() != self.entries.len() && !self.past.mended {
            let (orders, entries) = (self.orders.len(), self.entries.len());
            return Err(wrong(
                Check::ExactlyOnce,
                format!("{entries} entries stand at {orders} places of history"),
            ));
        }
        for (no, before) in &touched.conversations {
            let Some(after) = self.conversations.get(no) else { continue };
            let (received, read) = before.as_ref().map_or((0, 0), |before| (before.received, before.read));
            if after.received < received || after.read < read || after.read > after.received {
                return Err(wrong(Check::EvidenceGrows, "what was received or read became less"));
            }
        }
        let touched = touched.entries.iter().filter_map(|(feed, _)| self.feeds.get(feed));
        let touched: BTreeSet<ConversationNo> = touched.map(|feed| feed.conversation).collect();
        for no in touched {
            let texts = self.texts(|feed| feed.conversation == no && !feed.mine);
            if !self.past.mended
                && self.conversations.get(&no).is_none_or(|conversation| conversation.received != texts)
            {
                return Err(wrong(
                    Check::ExactlyOnce,
                    format!("conversation {no} does not count its messages right"),
                ));
            }
        }
        Ok(())
    }

    /// Contract 8: nobody makes us keep more epochs than that.
    fn check_epochs(&self, touched: &Touched) -> Verdict {
        for (no, _) in &touched.feeds {
            let Some(new) = self.feeds.get(no).filter(|feed| !feed.mine) else { continue };
            let same = |feed: &&Feed| feed.conversation == new.conversation && !feed.mine && !feed.closed;
            let open = self.feeds.values().filter(same).count();
            if open > OPEN_EPOCHS {
                return Err(wrong(Check::Bounded, format!("{open} epochs of one author are open")));
            }
        }
        Ok(())
    }

    fn check_feeds(&self, touched: &Touched) -> Result<Vec<Place>, Violation> {
        self.check_epochs(touched)?;
        let mut proven = Vec::new();
        for (no, before) in &touched.feeds {
            let Some(after) = self.feeds.get(no) else { continue };
            let nothing: &[Range] = &[];
            let held = before.as_ref().map_or((0, nothing), |feed| (feed.head, &feed.beyond));
            let acked = before.as_ref().map_or((0, nothing), |feed| (feed.acked, &feed.acked_beyond));
            let same = |feed: &Feed| {
                feed.mine == after.mine
                    && feed.epoch == after.epoch
                    && feed.conversation == after.conversation
            };
            if !before.as_ref().is_none_or(same) {
                return Err(wrong(Check::EvidenceGrows, format!("feed {no} became another")));
            }
            // What is issued again leaves its old place: an own feed falls back to what both sides have, another's
            // loses what stood beyond a gap.
            let forks = self.past.mended
                && (after.fork.is_some() || before.as_ref().is_some_and(|feed| feed.fork.is_some()));
            let moved = |seq: u64| self.past.mended && self.past.replaced.contains_key(&(after.epoch, seq));
            if let Some(seq) = lost(held, (after.head, &after.beyond)).filter(|seq| !forks && !moved(*seq)) {
                return Err(wrong(
                    Check::EvidenceGrows,
                    format!("feed {no} held {seq}, and does not any more"),
                ));
            }
            let news = std::iter::once((held.0 + 1, after.head));
            let mut news = news.chain(after.beyond.iter().map(|range| (range.first, range.last)));
            // What is being issued again goes one by one.
            let missing = news.find_map(|(first, last)| self.missing(*no, first, last));
            if let Some(seq) = missing.filter(|_| !forks || after.fork.is_none()) {
                let what = format!("feed {no} remembers entry {seq}, and it is not stored");
                return Err(wrong(Check::AcknowledgedIsDurable, what));
            }
            if forks && after.fork.is_some() {
                continue;
            }
            let head = self.entries.get(&(*no, after.head)).map(|kept| kept.hash);
            if after.head > 0 && head != Some(after.hash) {
                return Err(wrong(
                    Check::InOrder,
                    format!("the head of feed {no} is not the entry at its number"),
                ));
            }
            let taken =
                |seq| wrong(Check::EvidenceGrows, format!("the proof that {seq} was delivered is gone"));
            let newly = grown(acked, (after.acked, &after.acked_beyond)).map_err(taken)?;
            if newly.is_empty() {
                continue;
            }
            let places = newly.iter().map(|seq| self.place_in(*no, *seq, true));
            let places: Option<Vec<Place>> = places.collect();
            proven.extend(
                places.ok_or_else(|| wrong(Check::Restore, format!("feed {no} is in no conversation")))?,
            );
        }
        Ok(proven)
    }

    pub(super) fn place_in(&self, feed: FeedNo, seq: u64, mine: bool) -> Option<Place> {
        let feed = self.feeds.get(&feed).filter(|feed| feed.mine == mine)?;
        let peer = self.conversations.get(&feed.conversation)?.peer;
        Some(Place { peer, epoch: feed.epoch, seq })
    }

    /// The first of these numbers that no entry stands for, or did until its person deleted it.
    fn missing(&self, feed: FeedNo, first: u64, last: u64) -> Option<u64> {
        let mut at = first;
        while at <= last {
            let next = self.entries.range((feed, at)..=(feed, u64::MAX)).next();
            at = match next.filter(|(_, kept)| kept.first <= at) {
                Some(((_, seq), _)) => seq + 1,
                None if self.past.deleted.contains_key(&(feed, at)) => at + 1,
                None => return Some(at),
            };
        }
        None
    }

    // --- questions -------------------------------------------------------------------------------------------

    pub(super) fn feed_of(&self, peer: &PeerId, epoch: &Epoch, mine: bool) -> Option<(FeedNo, &Feed)> {
        let conversation = self.contacts.get(peer)?.conversation;
        let found =
            |feed: &Feed| feed.mine == mine && feed.epoch == *epoch && feed.conversation == conversation;
        self.feeds.iter().find(|(_, feed)| found(feed)).map(|(no, feed)| (*no, feed))
    }

    /// The entry that is stored there, or was until its person deleted it.
    pub(super) fn was_stored(&self, feed: FeedNo, seq: u64) -> Option<&Kept> {
        self.entries.get(&(feed, seq)).or_else(|| self.past.deleted.get(&(feed, seq)))
    }

    /// The entry that is held of this peer, if entry and feed record are both there.
    pub(super) fn held(&self, author: &PeerId, epoch: &Epoch, seq: u64) -> Option<EntryHash> {
        let (no, feed) = self.feed_of(author, epoch, false)?;
        self.stands_for(no, seq).filter(|_| covers(feed.head, &feed.beyond, seq)).map(|kept| kept.hash)
    }

    /// The entry that is or was stored there, or what stands for it if it is gone.
    fn stands_for(&self, feed: FeedNo, seq: u64) -> Option<&Kept> {
        let next = || self.entries.range((feed, seq)..=(feed, u64::MAX)).next();
        let stored = self.was_stored(feed, seq);
        stored.or_else(|| next().filter(|(_, kept)| kept.first <= seq).map(|(_, kept)| kept))
    }

    /// Every message that this peer wrote, by the id that it gave it, and how often it stands in the history.
    pub(super) fn messages(&self, peer: &PeerId, mine: bool) -> BTreeMap<CallerId, u64> {
        let mut count = BTreeMap::new();
        let Some(contact) = self.contacts.get(peer) else { return count };
        let (first, last) = (OrderKey::first(contact.conversation), OrderKey::last(contact.conversation));
        for (order, feed) in self.orders.range(first..=last) {
            let kept = self.entries.get(&(*feed, order.seq)).filter(|kept| kept.kind == Kind::Text);
            if self.feeds.get(feed).is_some_and(|feed| feed.mine == mine)
                && let Some(kept) = kept
            {
                *count.entry(kept.caller).or_default() += 1;
            }
        }
        count
    }

    /// Where the own message with this id is, if it is anywhere.
    pub(super) fn find(&self, peer: &PeerId, caller: &CallerId) -> Option<MessageRef> {
        let contact = self.contacts.get(peer)?;
        let place = self.callers.get(&(contact.conversation, *caller))?;
        Some(MessageRef { epoch: self.feeds.get(&place.feed)?.epoch, seq: place.seq })
    }

    /// The id that the author of a held entry gave it.
    pub(super) fn held_caller(&self, author: &PeerId, epoch: &Epoch, seq: u64) -> Option<CallerId> {
        let (no, _) = self.feed_of(author, epoch, false)?;
        self.entries.get(&(no, seq)).map(|kept| kept.caller)
    }

    /// The own entry towards this peer.
    pub(super) fn own(&self, peer: &PeerId, epoch: &Epoch, seq: u64) -> Option<EntryHash> {
        let (no, _) = self.feed_of(peer, epoch, true)?;
        self.stands_for(no, seq).map(|kept| kept.hash)
    }

    pub(super) fn caller_of(&self, peer: &PeerId, epoch: &Epoch, seq: u64) -> Option<CallerId> {
        let (no, _) = self.feed_of(peer, epoch, true)?;
        self.was_stored(no, seq).map(|kept| kept.caller)
    }

    pub(super) fn is_proven(&self, peer: &PeerId, epoch: &Epoch, seq: u64) -> bool {
        self.feed_of(peer, epoch, true).is_some_and(|(_, feed)| covers(feed.acked, &feed.acked_beyond, seq))
    }

    /// Contract 1: the message that `Queued` named is stored, under the caller's id.
    pub(super) fn is_queued(&self, peer: &PeerId, caller: &CallerId, message: &MessageRef) -> Verdict {
        let place =
            self.contacts.get(peer).and_then(|contact| self.callers.get(&(contact.conversation, *caller)));
        let own = self.feed_of(peer, &message.epoch, true);
        let stored = place.zip(own).is_some_and(|(place, (no, _))| {
            let kept = self.entries.get(&(place.feed, place.seq));
            place.feed == no && place.seq == message.seq && kept.is_some_and(|kept| kept.caller == *caller)
        });
        let deleted = self
            .contacts
            .get(peer)
            .is_some_and(|contact| self.past.callers.get(&(contact.conversation, *caller)) == Some(message));
        // Under a new name, if it was issued again.
        let moved = place.and_then(|place| self.entries.get(&(place.feed, place.seq)));
        let moved =
            self.past.mended && moved.is_some_and(|kept| kept.caller == *caller && kept.replaces.is_some());
        let stored = stored || moved || deleted;
        let what = || format!("message {caller} was said to be queued as {message}, and is not stored");
        if stored { Ok(()) } else { Err(wrong(Check::QueuedIsDurable, what())) }
    }

    /// Number of the newest arrival.
    pub(super) fn arrived(&self) -> u64 {
        self.counters.arrival
    }

    pub(super) fn arrival(&self, number: u64) -> Option<(PeerId, MessageRef)> {
        let place = self.arrivals.get(&number).or_else(|| self.past.arrivals.get(&number))?;
        let feed = self.feeds.get(&place.feed)?;
        let peer = self.conversations.get(&feed.conversation)?.peer;
        Some((peer, MessageRef { epoch: feed.epoch, seq: place.seq }))
    }

    /// Whether this epoch is an own one towards this peer.
    pub(super) fn writes(&self, peer: &PeerId, epoch: &Epoch) -> bool {
        self.feed_of(peer, epoch, true).is_some()
    }

    /// Peer and record of every feed.
    pub(super) fn feeds(&self) -> impl Iterator<Item = (PeerId, &Feed)> {
        self.feeds.values().filter_map(|feed| Some((self.conversations.get(&feed.conversation)?.peer, feed)))
    }

    fn texts(&self, which: impl Fn(&Feed) -> bool) -> u64 {
        let feeds = self.feeds.iter().filter(|(_, feed)| which(feed));
        let deleted = |no| self.past.texts.get(no).copied().unwrap_or(0);
        feeds.map(|(no, _)| self.texts.get(no).copied().unwrap_or(0) + deleted(no)).sum()
    }

    pub(super) fn received_texts(&self) -> u64 {
        self.texts(|feed| !feed.mine)
    }

    pub(super) fn own_texts(&self) -> u64 {
        self.texts(|feed| feed.mine)
    }

    /// An own entry without proof of delivery, if it is to anybody in good faith.
    pub(super) fn unproven(&self, hostile: Option<&PeerId>) -> Option<String> {
        let honest = |feed: &&Feed| {
            self.conversations.get(&feed.conversation).map(|conversation| &conversation.peer) != hostile
        };
        let waits = |feed: &&Feed| feed.mine && (feed.acked < feed.head || feed.fork.is_some());
        let open = self.feeds.values().filter(honest).find(waits)?;
        Some(format!(
            "of {} own entries {} are not proven to be delivered",
            open.head,
            open.head - open.acked
        ))
    }

    /// What this disk does not hold of an author's feeds.
    pub(super) fn lacks(&self, author: &PeerId, of: &Self, me: &PeerId) -> Option<String> {
        let conversation = of.contacts.get(me)?.conversation;
        let feeds =
            of.feeds.values().filter(|feed| feed.mine && feed.conversation == conversation && feed.head > 0);
        for feed in feeds {
            let head = self.feed_of(author, &feed.epoch, false).map_or(0, |(_, mine)| mine.head);
            if head < feed.head {
                return Some(format!("{head} of {} entries are held", feed.head));
            }
        }
        // And the author has back what it lost.
        let theirs = self.contacts.get(author).map(|contact| contact.conversation);
        let held = self
            .feeds
            .values()
            .filter(|feed| !feed.mine && Some(feed.conversation) == theirs && feed.head > 0);
        for feed in held {
            let own = of.feed_of(me, &feed.epoch, true).map_or(0, |(_, own)| own.head);
            if own < feed.head {
                return Some(format!("its author has {own} of {} entries that are held", feed.head));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u64, last: u64) -> Range {
        Range { first, last, prev: EntryHash::NONE, hash: EntryHash::NONE }
    }

    #[test]
    fn what_is_covered_may_grow_and_never_shrink() {
        assert_eq!(grown((0, &[]), (2, &[range(4, 5)])), Ok(vec![1, 2, 4, 5]));
        assert_eq!(grown((2, &[range(4, 5)]), (5, &[])), Ok(vec![3]));
        assert_eq!(grown((2, &[]), (1, &[])), Err(2));
        assert_eq!(grown((2, &[range(4, 5)]), (3, &[range(5, 5)])), Err(4));
    }
}
