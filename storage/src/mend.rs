//! Makes of whatever records were found a store that a node can start from: heads and cursors are moved to where the
//! entries are, and what belongs to nothing is left out. For the protocol the outcome is an older state of this
//! installation, so the next start draws a new epoch; what is missing the peers give back.

use crate::error::{OpenError, ReadError};
use crate::limits::{LEAP, REPAIR_RUNS};
use crate::open::Shared;
use crate::reader::View;
use crate::salvage::{Gap, Into};
use fjall::Readable;
use peerlink_core::bounded::List;
use peerlink_core::ids::{ConversationNo, EntryHash, Epoch, FeedNo, PeerId};
use peerlink_core::limits::RANGES;
use peerlink_core::record::{
    Contact, Conversation, CorruptRecord, Counters, Dropped, Entry, Feed, Hole, Invite, Key, Lived, OrderKey,
    Place, Profile, Range, Record as _, Shown, Table,
};
use std::collections::{BTreeMap, BTreeSet};

/// What a repaired store holds.
#[derive(Debug, Default)]
pub(crate) struct Mended {
    pub(crate) contacts: usize,
    pub(crate) entries: u64,
    /// Entries that the heads knew and that are not there.
    pub(crate) missing: u64,
    arrival: u64,
    /// Conversations of contacts whose own records are lost.
    without: Vec<(ConversationNo, PeerId)>,
    /// Entries that others replace: those stand in their place.
    replaced: BTreeSet<EntryHash>,
}

/// What is kept of a feed.
struct Kept {
    conversation: ConversationNo,
    mine: bool,
    epoch: Epoch,
    peer: PeerId,
    runs: Vec<Range>,
    /// Entries kept, and those of them that the order, the arrivals and the callers' ids lead to.
    entries: u64,
    received: u64,
    ordered: u64,
    arrived: u64,
    called: u64,
}

impl Kept {
    fn holds(&self, seq: u64) -> bool {
        self.runs.iter().any(|run| (run.first..=run.last).contains(&seq))
    }
}

/// What of a store could not be read.
#[derive(Debug)]
pub(crate) struct Loss {
    pub(crate) any: bool,
    /// Any entry may be, with everything that leads to it.
    pub(crate) anywhere: bool,
    pub(crate) gaps: Vec<Gap>,
}

impl Loss {
    /// Whether entries that are not there may be lost. Otherwise the user deleted them, and they must not come back.
    fn may_be(&self, feed: FeedNo, first: u64, last: u64) -> bool {
        let (first, last) =
            (Key::Entry { feed, seq: first }.encode(), Key::Entry { feed, seq: last }.encode());
        self.anywhere || self.gaps.iter().any(|gap| gap.meets(&first, &last))
    }
}

/// Mends the records in `shared`, which are those of `me`.
pub(crate) fn mend(
    shared: &Shared,
    into: &mut Into<'_>,
    me: PeerId,
    loss: &Loss,
) -> Result<Mended, OpenError> {
    let view = View::new(shared);
    let mut mended = Mended::default();
    let owners = contacts(&view, into, &mut mended)?;
    let mut feeds = feeds(&view, into, me, loss, &owners, &mut mended)?;
    for (no, peer) in &mended.without {
        let received = feeds.values().filter(|kept| kept.conversation == *no).map(|kept| kept.received).sum();
        // How many of them the user saw is not known; he is not shown all of them as new.
        let conversation = Conversation { peer: *peer, received, read: received, erase: None };
        into.put(Key::Conversation(*no).encode(), Some(conversation.encode()))?;
    }
    index(&view, into, &mut feeds)?;
    for (no, kept) in &feeds {
        let not_found = kept.ordered < kept.entries
            || kept.arrived < kept.received
            || kept.called + kept.received < kept.entries;
        if loss.any && not_found {
            lead_to(&view, into, me, *no, kept, &mended.replaced)?;
        }
    }
    own(&view, into, mended.arrival)?;
    into.flush()?;
    Ok(mended)
}

/// Visits a whole table. What does not decode is removed.
fn each(
    view: &View<'_>,
    into: &mut Into<'_>,
    table: u8,
    mut visit: impl FnMut(&mut Into<'_>, Key, &[u8]) -> Result<Result<(), CorruptRecord>, OpenError>,
) -> Result<(), OpenError> {
    for guard in view.snapshot.prefix(view.records, [table]) {
        let (key, value) = guard.into_inner().map_err(|error| into.failed(ReadError::from(error)))?;
        let fits = match Key::decode(&key) {
            Ok(key) => visit(into, key, &value)?,
            Err(error) => Err(error),
        };
        if fits.is_err() {
            into.remove(&key)?;
        }
    }
    Ok(())
}

/// Keeps contacts and conversations that decode. Whose each conversation is.
fn contacts(
    view: &View<'_>,
    into: &mut Into<'_>,
    mended: &mut Mended,
) -> Result<BTreeMap<ConversationNo, PeerId>, OpenError> {
    let mut owners = BTreeMap::new();
    each(view, into, Table::Contact as u8, |_, key, value| {
        let Key::Contact(peer) = key else { return Ok(Err(CorruptRecord::Key)) };
        Ok(Contact::decode(value).map(|contact| {
            owners.insert(contact.conversation, peer);
        }))
    })?;
    let mut there = Vec::new();
    each(view, into, Table::Conversation as u8, |_, key, value| {
        let Key::Conversation(no) = key else { return Ok(Err(CorruptRecord::Key)) };
        let conversation = match Conversation::decode(value) {
            Ok(conversation) => conversation,
            Err(error) => return Ok(Err(error)),
        };
        if owners.get(&no) == Some(&conversation.peer) {
            there.push(no);
        }
        Ok(Ok(()))
    })?;
    mended.without =
        owners.iter().map(|(no, peer)| (*no, *peer)).filter(|(no, _)| !there.contains(no)).collect();
    each(view, into, Table::Invite as u8, |_, _, value| Ok(Invite::decode(value).map(drop)))?;
    mended.contacts = owners.len();
    Ok(owners)
}

/// Puts the feeds into `found` whose own records are lost: what is in the order of a conversation says whose they are.
fn lost_feeds(
    view: &View<'_>,
    into: &mut Into<'_>,
    me: PeerId,
    owners: &BTreeMap<ConversationNo, PeerId>,
    found: &mut BTreeMap<FeedNo, Feed>,
) -> Result<(), OpenError> {
    each(view, into, Table::Order as u8, |into, key, value| {
        let Key::Order(order) = key else { return Ok(Err(CorruptRecord::Key)) };
        let place = match Place::decode(Table::Order, value) {
            Ok(place) => place,
            Err(error) => return Ok(Err(error)),
        };
        let Some(peer) = owners.get(&order.conversation).filter(|_| !found.contains_key(&place.feed)) else {
            return Ok(Ok(()));
        };
        let feed = Feed {
            conversation: order.conversation,
            mine: (order.rank == 0) == (me < *peer),
            epoch: order.epoch,
            head: 0,
            hash: EntryHash::NONE,
            beyond: List::new(),
            holes: List::new(),
            lamport: 0,
            heads_named: List::new(),
            acked: 0,
            acked_hash: EntryHash::NONE,
            acked_beyond: List::new(),
            link: None,
            closed: false,
            fork: None,
        };
        into.put(Key::Feed(place.feed).encode(), Some(feed.encode()))?;
        found.insert(place.feed, feed);
        Ok(Ok(()))
    })
}

fn feeds(
    view: &View<'_>,
    into: &mut Into<'_>,
    me: PeerId,
    loss: &Loss,
    owners: &BTreeMap<ConversationNo, PeerId>,
    mended: &mut Mended,
) -> Result<BTreeMap<FeedNo, Kept>, OpenError> {
    let mut found = BTreeMap::new();
    each(view, into, Table::Feed as u8, |_, key, value| {
        let Key::Feed(no) = key else { return Ok(Err(CorruptRecord::Key)) };
        let feed = match Feed::decode(value) {
            Ok(feed) if owners.contains_key(&feed.conversation) => feed,
            Ok(_) => return Ok(Err(CorruptRecord::Dangling("a feed's conversation"))),
            Err(error) => return Ok(Err(error)),
        };
        found.insert(no, feed);
        Ok(Ok(()))
    })?;
    lost_feeds(view, into, me, owners, &mut found)?;
    let mut runs: BTreeMap<FeedNo, Runs> = BTreeMap::new();
    each(view, into, Table::Entry as u8, |into, key, value| {
        let Key::Entry { feed, seq } = key else { return Ok(Err(CorruptRecord::Key)) };
        let Some(ledger) = found.get(&feed) else {
            return Ok(Err(CorruptRecord::Dangling("an entry's feed")));
        };
        let entry = Entry::decode(value);
        // The node finds out itself what leads nowhere, and what was delivered in time.
        if let Ok(Entry { expires: Some(at), dropped: None, .. }) = entry {
            into.put(Key::Expiry { at, feed, seq }.encode(), Some(Place { feed, seq }.encode()))?;
        }
        Ok(entry.and_then(|entry| {
            mended.arrival = mended.arrival.max(entry.arrival);
            mended.replaced.extend(entry.replaces.map(|replaced| replaced.hash));
            let most = if ledger.mine { REPAIR_RUNS } else { RANGES };
            let runs = runs.entry(feed).or_default();
            let is_lost = |first, last| loss.may_be(feed, first, last) || never_held(ledger, first, last);
            if runs.take(seq, &entry, most, is_lost) {
                Ok(())
            } else {
                Err(CorruptRecord::Dangling("an entry"))
            }
        }))
    })?;
    let mut kept = BTreeMap::new();
    for (no, mut feed) in found {
        let runs = runs.remove(&no).unwrap_or_default();
        let before = feed.clone();
        let runs = if feed.mine { set_own(&mut feed, runs) } else { set(&mut feed, runs) };
        mended.entries += runs.entries;
        mended.missing += known(&before).saturating_sub(runs.numbers());
        if feed != before {
            into.put(Key::Feed(no).encode(), Some(feed.encode()))?;
        }
        let peer = owners.get(&feed.conversation).copied();
        let peer =
            peer.ok_or_else(|| into.failed(CorruptRecord::Dangling("a feed's conversation").into()))?;
        kept.insert(
            no,
            Kept {
                conversation: feed.conversation,
                mine: feed.mine,
                epoch: feed.epoch,
                peer,
                entries: runs.entries,
                received: runs.received,
                runs: runs.runs,
                ordered: 0,
                arrived: 0,
                called: 0,
            },
        );
    }
    Ok(kept)
}

/// Whether these are in a gap, by the feed's ledger. One whose ledger was lost says nothing.
fn never_held(feed: &Feed, first: u64, last: u64) -> bool {
    let held = |range: &Range| range.first <= first && last <= range.last;
    known(feed) > 0 && last > feed.head && !feed.beyond.iter().any(held)
}

/// How many entries a feed's ledger knows.
fn known(feed: &Feed) -> u64 {
    let beyond = feed.beyond.iter().map(|range| range.last.saturating_sub(range.first).saturating_add(1));
    beyond.fold(feed.head, u64::saturating_add)
}

/// The runs of a feed's entries, by chain: the first from 1, then as many as a ledger holds.
#[derive(Default)]
struct Runs {
    runs: Vec<Range>,
    entries: u64,
    received: u64,
    lamport: u64,
    /// What markers stand for.
    holes: Vec<Hole>,
}

impl Runs {
    /// The next entry, in order. `false`: it does not fit the chain, or there is no room for it. `is_lost` tells of
    /// numbers that are not there whether they should be.
    fn take(&mut self, seq: u64, entry: &Entry, most: usize, is_lost: impl Fn(u64, u64) -> bool) -> bool {
        let gone = match entry.dropped {
            Some(Dropped::Gone { first }) => Some(first),
            _ => None,
        };
        let first = gone.unwrap_or(seq);
        let (last, hash) = self.runs.last().map_or((0, EntryHash::NONE), |run| (run.last, run.hash));
        if first > seq || first <= last {
            return false;
        }
        let follows = first == last + 1 && (gone.is_some() || entry.prev == hash);
        let joins = follows || (first > last + 1 && !is_lost(last + 1, first - 1));
        if first == last + 1 && !follows {
            return false;
        }
        let marks = gone.filter(|_| follows).map(|first| {
            let (lamport, arrival) = (entry.lamport, entry.arrival);
            Hole { first, last: seq, prev: hash, hash: entry.hash, lamport, arrival }
        });
        let from_one = self.runs.first().is_some_and(|run| run.first == 1);
        let full = self.runs.len() >= most + usize::from(from_one);
        match self.runs.last_mut() {
            Some(run) if joins => (run.last, run.hash) = (seq, entry.hash),
            _ if !joins && full => return false,
            _ => {
                let first = if joins { 1 } else { first };
                self.runs.push(Range { first, last: seq, prev: entry.prev, hash: entry.hash });
            }
        }
        self.holes.extend(marks);
        self.entries += 1;
        self.received += u64::from(entry.arrival > 0);
        self.lamport = self.lamport.max(entry.lamport);
        true
    }

    fn numbers(&self) -> u64 {
        self.runs.iter().map(|run| run.last - run.first + 1).sum()
    }

    /// Up to where everything is there, and what is beyond.
    fn split(&self) -> (u64, EntryHash, &[Range]) {
        match self.runs.split_first() {
            Some((first, beyond)) if first.first == 1 => (first.last, first.hash, beyond),
            _ => (0, EntryHash::NONE, &self.runs),
        }
    }
}

/// Moves the head of a peer's feed to where its entries are.
fn set(feed: &mut Feed, runs: Runs) -> Runs {
    let (head, hash, beyond) = runs.split();
    let beyond = List::of(beyond.iter().copied());
    if (head, &beyond) != (feed.head, &feed.beyond) {
        (feed.head, feed.hash, feed.beyond) = (head, hash, beyond);
        feed.closed = false;
    }
    feed.lamport = feed.lamport.max(runs.lamport);
    set_holes(feed, &runs);
    runs
}

/// What is held only as gone, up to the head: what markers stand for, and of those that the user deleted what was known.
fn set_holes(feed: &mut Feed, runs: &Runs) {
    let marked = |hole: &Hole| runs.holes.iter().any(|other| other.last == hole.last);
    let unmarked = feed.holes.iter().filter(|hole| !marked(hole)).map(|hole| Hole { lamport: 0, ..*hole });
    let mut holes: Vec<Hole> = unmarked.chain(runs.holes.iter().copied()).collect();
    holes.retain(|hole| hole.last <= feed.head);
    holes.sort_unstable_by_key(|hole| hole.first);
    feed.holes = List::of(holes);
}

fn ends(ranges: &[Range]) -> impl Iterator<Item = (u64, u64, EntryHash)> {
    ranges.iter().map(|range| (range.first, range.last, range.hash))
}

/// Moves the head of an own feed. What is beyond a gap and was delivered comes back from the peer in its order. What was
/// not is issued again in the next epoch, as after a rollback.
fn set_own(feed: &mut Feed, mut runs: Runs) -> Runs {
    let (head, hash, beyond) = runs.split();
    let is_whole = if feed.fork.is_some() { beyond.is_empty() } else { ends(beyond).eq(ends(&feed.beyond)) };
    if head == feed.head && is_whole {
        set_holes(feed, &runs);
        return runs;
    }
    let (acked, lamport) = (feed.acked, runs.lamport);
    let mut waiting: Vec<Range> = beyond.iter().filter(|run| run.last > acked).copied().collect();
    if let Some(first) = waiting.first_mut() {
        first.first = first.first.max(acked + 1);
    }
    if acked > head {
        (feed.acked, feed.acked_hash) = (head, hash);
    }
    (feed.head, feed.hash, feed.fork) = match waiting.last() {
        Some(last) => {
            let from = if acked < head { acked + 1 } else { waiting.first().map_or(1, |run| run.first) };
            (last.last, last.hash, Some(from))
        }
        None => (head, hash, None),
    };
    // Of what was proven, what is there whole: that is not issued again.
    let proven = std::mem::take(&mut feed.acked_beyond);
    let whole = |run: &Range, proven: &Range| match (run, proven) {
        (run, proven) if proven.first <= run.first && run.last <= proven.last => Some(*run),
        (run, proven) if run.first <= proven.first && proven.last <= run.last => Some(*proven),
        _ => None,
    };
    let kept = waiting.iter().flat_map(|run| proven.iter().filter_map(|proven| whole(run, proven)));
    feed.acked_beyond = List::of(kept);
    feed.beyond.clear();
    feed.holes.retain(|hole| hole.last <= feed.acked.min(head));
    feed.closed = false;
    feed.lamport = feed.lamport.max(lamport);
    runs.runs.retain(|run| run.first == 1);
    runs.runs.extend(waiting);
    runs
}

/// Removes entries that are not kept and what leads to them, and counts the rest.
fn index(view: &View<'_>, into: &mut Into<'_>, feeds: &mut BTreeMap<FeedNo, Kept>) -> Result<(), OpenError> {
    each(view, into, Table::Entry as u8, |_, key, _| {
        let Key::Entry { feed, seq } = key else { return Ok(Ok(())) };
        let kept = feeds.get(&feed).is_some_and(|kept| kept.holds(seq));
        Ok(if kept { Ok(()) } else { Err(CorruptRecord::Dangling("an entry")) })
    })?;
    each(view, into, Table::Shown as u8, |_, _, value| {
        Ok(Shown::decode(value).and_then(|shown| {
            let kept = feeds.get(&shown.feed).is_some_and(|kept| kept.holds(shown.seq));
            if kept { Ok(()) } else { Err(CorruptRecord::Dangling("an entry")) }
        }))
    })?;
    each(view, into, Table::Expiry as u8, |_, _, value| Ok(Place::decode(Table::Expiry, value).map(drop)))?;
    for table in [Table::Order, Table::Arrival, Table::Caller] {
        each(view, into, table as u8, |_, _, value| {
            Ok(Place::decode(table, value).and_then(|place| {
                let kept = feeds.get_mut(&place.feed).filter(|kept| kept.holds(place.seq));
                let kept = kept.ok_or(CorruptRecord::Dangling("an entry"))?;
                match table {
                    Table::Order => kept.ordered += 1,
                    Table::Arrival => kept.arrived += 1,
                    _ => kept.called += u64::from(kept.mine),
                }
                Ok(())
            }))
        })?;
    }
    Ok(())
}

/// Makes what leads to the entries of this feed, where it is missing.
fn lead_to(
    view: &View<'_>,
    into: &mut Into<'_>,
    me: PeerId,
    no: FeedNo,
    kept: &Kept,
    replaced: &BTreeSet<EntryHash>,
) -> Result<(), OpenError> {
    let (author, other) = if kept.mine { (me, kept.peer) } else { (kept.peer, me) };
    for run in &kept.runs {
        let (first, last) = (
            Key::Entry { feed: no, seq: run.first }.encode(),
            Key::Entry { feed: no, seq: run.last }.encode(),
        );
        for guard in view.snapshot.range(view.records, first.as_slice()..=last.as_slice()) {
            let (key, value) = guard.into_inner().map_err(|error| into.failed(error.into()))?;
            let entry = Entry::decode(&value).map_err(|error| into.failed(error.into()))?;
            let Ok(Key::Entry { seq, .. }) = Key::decode(&key) else { continue };
            let place = Place { feed: no, seq }.encode();
            let order = OrderKey {
                conversation: kept.conversation,
                lamport: entry.lamport,
                rank: u8::from(author > other),
                epoch: kept.epoch,
                seq,
            };
            if entry.dropped == Some(Dropped::Deleted) {
                continue;
            }
            let mut leads = Vec::new();
            // Of all that stand for one message, one is shown.
            let name = entry.replaces.map_or(entry.hash, |first| first.hash);
            let shown: Option<Shown> = view
                .record(&Key::Shown { conversation: kept.conversation, hash: name })
                .map_err(|error| into.failed(error))?;
            if shown.map_or(!replaced.contains(&entry.hash), |shown| (shown.feed, shown.seq) == (no, seq)) {
                leads.push(Key::Order(order));
            }
            if kept.mine {
                leads.push(Key::Caller { conversation: kept.conversation, caller: entry.caller });
            }
            if entry.arrival > 0 {
                leads.push(Key::Arrival(entry.arrival));
            }
            for key in leads {
                let there = view.get(&key).map_err(|error| into.failed(error))?;
                // An id of its caller's may lead to where the same message was issued again.
                if there.is_none() || (there.as_ref() != Some(&place) && !matches!(key, Key::Caller { .. })) {
                    into.put(key.encode(), Some(place.clone()))?;
                }
            }
        }
    }
    Ok(())
}

/// The installation's own records. Their counters leap, because their newest values may be among what is lost, and the
/// epoch is to be drawn at the next start.
fn own(view: &View<'_>, into: &mut Into<'_>, arrival: u64) -> Result<(), OpenError> {
    let found: Option<Profile> = view.record(&Key::Profile).ok().flatten();
    let mut profile = found.unwrap_or(Profile {
        epoch: Epoch::TO_BE_DRAWN,
        start: 0,
        nickname: None,
        advertised: List::new(),
        record_seq: 0,
        record_addresses: List::new(),
        expire_ms: None,
    });
    profile.epoch = Epoch::TO_BE_DRAWN;
    profile.start = profile.start.saturating_add(LEAP);
    profile.record_seq = profile.record_seq.saturating_add(LEAP);
    into.put(Key::Profile.encode(), Some(profile.encode()))?;
    // If that is lost, a life begins anew: what expires does so later.
    each(view, into, Table::Lived as u8, |_, _, value| Ok(Lived::decode(value).map(drop)))?;
    let mut counters: Counters = view.record(&Key::Counters).ok().flatten().unwrap_or_default();
    counters.arrival = counters.arrival.max(arrival).saturating_add(LEAP);
    counters.version = counters.version.saturating_add(LEAP);
    into.put(Key::Counters.encode(), Some(counters.encode()))
}
