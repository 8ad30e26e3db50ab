//! The front ends' reading side: records decoded into messages, contacts and counts.
//!
//! Every answer comes from one snapshot, taken after everything that was committed before the call, and is as long
//! as the caller asked for at most.

use crate::error::{ReadError, panic_text};
use crate::message::{ContactInfo, Counts, Gap, Message, gaps, missing_before, queued, state};
use crate::open::Shared;
use bytes::Bytes;
use fjall::{Keyspace, Readable, Snapshot};
use peerlink_core::ids::{CallerId, ConversationNo, FeedNo, MessageRef, PeerId};
use peerlink_core::limits::{CONTACTS, INVITES};
use peerlink_core::record::{
    Contact, Conversation, CorruptRecord, Counters, Entry, Feed, Invite, Key, Kind, OrderKey, Place, Profile,
    Record, Table,
};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Reads what front ends show. Clones share the store; the last part of it that is dropped gives up its lock.
#[derive(Debug, Clone)]
pub struct Reader {
    shared: Arc<Shared>,
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The installation's own record; `None` before its first start.
    ///
    /// # Errors
    /// [`ReadError`], here and below: the store is damaged.
    pub fn profile(&self) -> Result<Option<Profile>, ReadError> {
        self.read(|view| view.record(&Key::Profile))
    }

    /// The newest arrival number and have-vector version.
    ///
    /// # Errors
    /// The store is damaged.
    pub fn counters(&self) -> Result<Counters, ReadError> {
        self.read(|view| Ok(view.record(&Key::Counters)?.unwrap_or_default()))
    }

    /// Every contact, removed ones included, by `PeerId`.
    ///
    /// # Errors
    /// The store is damaged.
    pub fn contacts(&self) -> Result<Vec<ContactInfo>, ReadError> {
        self.read(|view| {
            let mut feeds: BTreeMap<ConversationNo, Vec<Feed>> = BTreeMap::new();
            view.each_feed(|_, feed| feeds.entry(feed.conversation).or_default().push(feed))?;
            let none = Vec::new();
            let mut found = Vec::new();
            view.each(Table::Contact, CONTACTS, |key, value| {
                let Key::Contact(peer) = key else { return Err(CorruptRecord::Key.into()) };
                let contact = Contact::decode(value)?;
                let counts =
                    view.counts(contact.conversation, feeds.get(&contact.conversation).unwrap_or(&none))?;
                found.push(ContactInfo { peer, contact, counts });
                Ok(())
            })?;
            Ok(found)
        })
    }

    /// One contact.
    ///
    /// # Errors
    /// The store is damaged.
    pub fn contact(&self, peer: PeerId) -> Result<Option<ContactInfo>, ReadError> {
        self.read(|view| {
            let Some(contact) = view.record::<Contact>(&Key::Contact(peer))? else { return Ok(None) };
            let feeds: Vec<Feed> = view.feeds(contact.conversation)?.into_values().collect();
            let counts = view.counts(contact.conversation, &feeds)?;
            Ok(Some(ContactInfo { peer, contact, counts }))
        })
    }

    /// How many invitations are stored: open ones, and spent ones.
    ///
    /// # Errors
    /// The store is damaged.
    pub fn invites(&self) -> Result<(usize, usize), ReadError> {
        self.read(|view| {
            let (mut open, mut spent) = (0, 0);
            view.each(Table::Invite, INVITES, |_, value| {
                *if Invite::decode(value)?.spent_by.is_some() { &mut spent } else { &mut open } += 1;
                Ok(())
            })?;
            Ok((open, spent))
        })
    }

    /// How much there is in a conversation.
    ///
    /// # Errors
    /// The store is damaged.
    pub fn counts(&self, conversation: ConversationNo) -> Result<Counts, ReadError> {
        self.read(|view| {
            let feeds: Vec<Feed> = view.feeds(conversation)?.into_values().collect();
            view.counts(conversation, &feeds)
        })
    }

    /// What is missing in a conversation, by feed and number.
    ///
    /// # Errors
    /// The store is damaged.
    pub fn gaps(&self, conversation: ConversationNo) -> Result<Vec<Gap>, ReadError> {
        self.read(|view| {
            let feeds = view.feeds(conversation)?;
            Ok(feeds.values().filter(|feed| !feed.mine).flat_map(gaps).collect())
        })
    }

    /// The newest `limit` entries of a conversation, in its order.
    ///
    /// # Errors
    /// The store is damaged.
    pub fn latest(&self, conversation: ConversationNo, limit: usize) -> Result<Vec<Message>, ReadError> {
        self.page(OrderKey::first(conversation), OrderKey::last(conversation), limit, true)
    }

    /// The `limit` entries that stand right before `order`, in the order of the conversation.
    ///
    /// # Errors
    /// The store is damaged.
    pub fn before(&self, order: OrderKey, limit: usize) -> Result<Vec<Message>, ReadError> {
        let first = OrderKey::first(order.conversation);
        // One more may come than asked for, because `order` itself is in the range; it is the last.
        let mut found = self.page(first, order, limit.saturating_add(1), true)?;
        found.pop_if(|message| message.order == order);
        let extra = found.len().saturating_sub(limit);
        found.drain(..extra);
        Ok(found)
    }

    /// The `limit` entries that stand right after `order`, in the order of the conversation.
    ///
    /// # Errors
    /// The store is damaged.
    pub fn after(&self, order: OrderKey, limit: usize) -> Result<Vec<Message>, ReadError> {
        let last = OrderKey::last(order.conversation);
        let mut found = self.page(order, last, limit.saturating_add(1), false)?;
        if found.first().is_some_and(|message| message.order == order) {
            found.remove(0);
        }
        found.truncate(limit);
        Ok(found)
    }

    /// The first `limit` entries received after the one with this arrival number, in the order of their arrival. With
    /// 0, from the very first.
    ///
    /// # Errors
    /// The store is damaged.
    pub fn arrivals(&self, after: u64, limit: usize) -> Result<Vec<Message>, ReadError> {
        let Some(first) = after.checked_add(1) else { return Ok(Vec::new()) };
        self.read(|view| {
            let (first, last) = (Key::Arrival(first).encode(), Key::Arrival(u64::MAX).encode());
            let bounds = first.as_slice()..=last.as_slice();
            let mut cache = Cache::default();
            let mut found = Vec::new();
            for guard in view.snapshot.range(view.records, bounds).take(limit) {
                let place = Place::decode(Table::Arrival, &guard.value()?)?;
                found.push(view.message(&mut cache, place)?);
            }
            Ok(found)
        })
    }

    /// The own message that its caller named so.
    ///
    /// # Errors
    /// The store is damaged.
    pub fn by_caller(
        &self,
        conversation: ConversationNo,
        caller: CallerId,
    ) -> Result<Option<Message>, ReadError> {
        self.read(|view| {
            let Some(value) = view.get(&Key::Caller { conversation, caller })? else { return Ok(None) };
            let place = Place::decode(Table::Caller, &value)?;
            view.message(&mut Cache::default(), place).map(Some)
        })
    }

    /// The entry that both sides call `message`.
    ///
    /// # Errors
    /// The store is damaged.
    pub fn message(
        &self,
        conversation: ConversationNo,
        message: MessageRef,
    ) -> Result<Option<Message>, ReadError> {
        self.read(|view| {
            let feeds = view.feeds(conversation)?;
            let Some(feed) = feeds.iter().find(|(_, feed)| feed.epoch == message.epoch).map(|(no, _)| *no)
            else {
                return Ok(None);
            };
            let place = Place { feed, seq: message.seq };
            if view.get(&Key::Entry { feed, seq: message.seq })?.is_none() {
                return Ok(None);
            }
            view.message(&mut Cache::default(), place).map(Some)
        })
    }

    /// Entries from `first` to `last`, at most `limit` of them, counted from the end if `newest`; in order either way.
    fn page(
        &self,
        first: OrderKey,
        last: OrderKey,
        limit: usize,
        newest: bool,
    ) -> Result<Vec<Message>, ReadError> {
        self.read(|view| {
            let (first, last) = (Key::Order(first).encode(), Key::Order(last).encode());
            let mut range = view.snapshot.range(view.records, first.as_slice()..=last.as_slice());
            let mut places = Vec::new();
            while places.len() < limit {
                let Some(guard) = (if newest { range.next_back() } else { range.next() }) else { break };
                let (key, value) = guard.into_inner()?;
                let Key::Order(order) = Key::decode(&key)? else { return Err(CorruptRecord::Key.into()) };
                places.push((Place { feed: order_feed(&value)?, seq: order.seq }, order));
            }
            if newest {
                places.reverse();
            }
            let (mut cache, mut entries) = (Cache::default(), view.neighbours(&places)?);
            let message = |(place, order): &(Place, OrderKey)| {
                let entry = match entries.remove(&(place.feed, place.seq)) {
                    Some(entry) => entry,
                    None => view.entry(*place)?,
                };
                view.message_at(&mut cache, place.feed, entry, *order)
            };
            places.iter().map(message).collect()
        })
    }

    fn read<T>(&self, read: impl FnOnce(&View<'_>) -> Result<T, ReadError>) -> Result<T, ReadError> {
        let view = View::new(&self.shared);
        catch_unwind(AssertUnwindSafe(|| read(&view)))
            .unwrap_or_else(|panic| Err(ReadError::Engine(panic_text(&*panic))))
    }
}

/// The feed that an entry of the order belongs to.
fn order_feed(value: &[u8]) -> Result<FeedNo, ReadError> {
    Ok(Place::decode(Table::Order, value)?.feed)
}

/// Feeds and peers that one answer has met.
#[derive(Default)]
struct Cache {
    feeds: BTreeMap<FeedNo, Feed>,
    peers: BTreeMap<ConversationNo, PeerId>,
}

/// The store as it was at one moment.
pub(crate) struct View<'a> {
    pub(crate) snapshot: Snapshot,
    pub(crate) records: &'a Keyspace,
}

impl<'a> View<'a> {
    pub(crate) fn new(shared: &'a Shared) -> Self {
        Self { snapshot: shared.db.snapshot(), records: &shared.records }
    }

    pub(crate) fn get(&self, key: &Key) -> Result<Option<Bytes>, ReadError> {
        Ok(self.snapshot.get(self.records, key.encode())?.map(Bytes::from))
    }

    pub(crate) fn record<R: Record>(&self, key: &Key) -> Result<Option<R>, ReadError> {
        Ok(self.get(key)?.map(|value| R::decode(&value)).transpose()?)
    }

    /// Whether any record is in this range.
    pub(crate) fn any(&self, first: &Key, last: &Key) -> Result<bool, ReadError> {
        let (first, last) = (first.encode(), last.encode());
        let found = self.snapshot.range(self.records, first.as_slice()..=last.as_slice()).next();
        Ok(found.map(|guard| guard.key()).transpose()?.is_some())
    }

    /// Visits at most `limit` records of a table, from its end.
    pub(crate) fn newest(
        &self,
        table: Table,
        limit: usize,
        mut visit: impl FnMut(Key, &[u8]) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        for guard in self.snapshot.prefix(self.records, [table as u8]).rev().take(limit) {
            let (key, value) = guard.into_inner()?;
            visit(Key::decode(&key)?, &value)?;
        }
        Ok(())
    }

    /// Visits at most `limit` records of a table, in order.
    pub(crate) fn each(
        &self,
        table: Table,
        limit: usize,
        mut visit: impl FnMut(Key, &[u8]) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        for guard in self.snapshot.prefix(self.records, [table as u8]).take(limit) {
            let (key, value) = guard.into_inner()?;
            visit(Key::decode(&key)?, &value)?;
        }
        Ok(())
    }

    fn each_feed(&self, mut visit: impl FnMut(FeedNo, Feed)) -> Result<(), ReadError> {
        self.each(Table::Feed, usize::MAX, |key, value| {
            let Key::Feed(no) = key else { return Err(CorruptRecord::Key.into()) };
            visit(no, Feed::decode(value)?);
            Ok(())
        })
    }

    fn feeds(&self, conversation: ConversationNo) -> Result<BTreeMap<FeedNo, Feed>, ReadError> {
        let mut found = BTreeMap::new();
        self.each_feed(|no, feed| {
            if feed.conversation == conversation {
                found.insert(no, feed);
            }
        })?;
        Ok(found)
    }

    fn counts(&self, conversation: ConversationNo, feeds: &[Feed]) -> Result<Counts, ReadError> {
        let mut counts = Counts::default();
        if let Some(conversation) = self.record::<Conversation>(&Key::Conversation(conversation))? {
            counts.received = conversation.received;
            counts.unread = conversation.received.saturating_sub(conversation.read);
        }
        for feed in feeds {
            if feed.mine {
                counts.sent = counts.sent.saturating_add(feed.head);
                counts.queued = counts.queued.saturating_add(queued(feed));
            } else {
                counts.missing = gaps(feed).map(|gap| gap.len()).fold(counts.missing, u64::saturating_add);
            }
        }
        Ok(counts)
    }

    /// An entry whose place in the conversation is not known yet: of its author's rank only one can be there.
    fn message(&self, cache: &mut Cache, place: Place) -> Result<Message, ReadError> {
        let entry = self.entry(place)?;
        let feed = self.feed(cache, place.feed)?;
        let order = |rank| OrderKey {
            conversation: feed.conversation,
            lamport: entry.lamport,
            rank,
            epoch: feed.epoch,
            seq: place.seq,
        };
        for order in [order(0), order(1)] {
            if self.get(&Key::Order(order))?.is_some() {
                let peer = self.peer(cache, order.conversation)?;
                let feed = self.feed(cache, place.feed)?;
                return Ok(assemble(peer, feed, entry, order));
            }
        }
        Err(CorruptRecord::Dangling("an entry without a place in its conversation").into())
    }

    fn message_at(
        &self,
        cache: &mut Cache,
        feed: FeedNo,
        entry: Entry,
        order: OrderKey,
    ) -> Result<Message, ReadError> {
        let peer = self.peer(cache, order.conversation)?;
        Ok(assemble(peer, self.feed(cache, feed)?, entry, order))
    }

    /// What stands close together in its feed, read in one go: that is most of a page, and much faster than one by one.
    fn neighbours(&self, places: &[(Place, OrderKey)]) -> Result<BTreeMap<(FeedNo, u64), Entry>, ReadError> {
        // By feed: the first number, the last, and how many.
        let mut spans: BTreeMap<FeedNo, (u64, u64, u64)> = BTreeMap::new();
        for (place, _) in places {
            let span = spans.entry(place.feed).or_insert((place.seq, place.seq, 0));
            *span = (span.0.min(place.seq), span.1.max(place.seq), span.2 + 1);
        }
        let mut found = BTreeMap::new();
        for (feed, (first, last, count)) in spans {
            if last - first >= 2 * count {
                continue;
            }
            let key = |seq| Key::Entry { feed, seq }.encode();
            let (first, last) = (key(first), key(last));
            for guard in self.snapshot.range(self.records, first.as_slice()..=last.as_slice()) {
                let (key, value) = guard.into_inner()?;
                let Key::Entry { feed, seq } = Key::decode(&key)? else {
                    return Err(CorruptRecord::Key.into());
                };
                found.insert((feed, seq), Entry::decode(&value)?);
            }
        }
        Ok(found)
    }

    fn entry(&self, place: Place) -> Result<Entry, ReadError> {
        let key = Key::Entry { feed: place.feed, seq: place.seq };
        self.record(&key)?.ok_or(ReadError::Record(CorruptRecord::Dangling("an entry")))
    }

    fn feed<'c>(&self, cache: &'c mut Cache, no: FeedNo) -> Result<&'c Feed, ReadError> {
        use std::collections::btree_map::Entry;
        match cache.feeds.entry(no) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(unknown) => {
                let feed = self.record(&Key::Feed(no))?.ok_or(CorruptRecord::Dangling("a feed"))?;
                Ok(unknown.insert(feed))
            }
        }
    }

    fn peer(&self, cache: &mut Cache, no: ConversationNo) -> Result<PeerId, ReadError> {
        if let Some(peer) = cache.peers.get(&no) {
            return Ok(*peer);
        }
        let conversation = self.record::<Conversation>(&Key::Conversation(no))?;
        let peer = conversation.ok_or(CorruptRecord::Dangling("a conversation"))?.peer;
        cache.peers.insert(no, peer);
        Ok(peer)
    }
}

fn assemble(peer: PeerId, feed: &Feed, entry: Entry, order: OrderKey) -> Message {
    Message {
        peer,
        mine: feed.mine,
        message: MessageRef { epoch: feed.epoch, seq: order.seq },
        caller: entry.caller,
        claimed: entry.claimed,
        kind: if entry.dropped.is_some() { Kind::Tombstone } else { entry.kind },
        dropped: entry.dropped,
        body: entry.body,
        state: state(feed, order.seq, entry.dropped),
        order,
        arrival: entry.arrival,
        recovered: entry.recovered,
        missing_before: if feed.mine { 0 } else { missing_before(feed, order.seq) },
    }
}
