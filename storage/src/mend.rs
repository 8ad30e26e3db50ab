//! Makes of whatever records were found a store that a node can start from: heads and cursors are moved to where the
//! entries are, and what belongs to nothing is left out. For the protocol the outcome is an older state of this
//! installation, so the node must draw a new epoch; what is missing the peers give back.

use crate::error::{OpenError, ReadError};
use crate::limits::LEAP;
use crate::open::Shared;
use crate::reader::View;
use crate::salvage::Into;
use fjall::Readable;
use peerlink_core::bounded::List;
use peerlink_core::ids::{ConversationNo, EntryHash, Epoch, FeedNo, PeerId};
use peerlink_core::limits::RANGES;
use peerlink_core::record::{
    Contact, Conversation, CorruptRecord, Counters, Dropped, Entry, Feed, Invite, Key, OrderKey, Place,
    Profile, Range, Record as _, Table,
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

/// Mends the records in `shared`. `epoch` is fresh; it is used if the profile's own record is lost.
pub(crate) fn mend(
    shared: &Shared,
    into: &mut Into<'_>,
    me: PeerId,
    epoch: Epoch,
) -> Result<Mended, OpenError> {
    let view = View::new(shared);
    let mut mended = Mended::default();
    let owners = contacts(&view, into, &mut mended)?;
    let mut feeds = feeds(&view, into, &owners, &mut mended)?;
    index(&view, into, &mut feeds)?;
    for (no, kept) in &feeds {
        if kept.ordered < kept.entries
            || kept.arrived < kept.received
            || kept.called + kept.received < kept.entries
        {
            lead_to(&view, into, me, *no, kept, &mended.replaced)?;
        }
    }
    own(&view, into, epoch, mended.arrival)?;
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

/// Keeps contacts and conversations that decode, and makes for each contact the conversation that it names. Whose each
/// conversation is.
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
    for (no, peer) in &owners {
        if !there.contains(no) {
            let conversation = Conversation { peer: *peer, received: 0, read: 0, erase: None };
            into.put(Key::Conversation(*no).encode(), Some(conversation.encode()))?;
        }
    }
    each(view, into, Table::Invite as u8, |_, _, value| Ok(Invite::decode(value).map(drop)))?;
    mended.contacts = owners.len();
    Ok(owners)
}

fn feeds(
    view: &View<'_>,
    into: &mut Into<'_>,
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
    let mut runs: BTreeMap<FeedNo, Runs> = BTreeMap::new();
    each(view, into, Table::Entry as u8, |_, key, value| {
        let Key::Entry { feed, seq } = key else { return Ok(Err(CorruptRecord::Key)) };
        if !found.contains_key(&feed) {
            return Ok(Err(CorruptRecord::Dangling("an entry's feed")));
        }
        Ok(Entry::decode(value).and_then(|entry| {
            mended.arrival = mended.arrival.max(entry.arrival);
            mended.replaced.extend(entry.replaces.map(|replaced| replaced.hash));
            if runs.entry(feed).or_default().take(seq, &entry) {
                Ok(())
            } else {
                Err(CorruptRecord::Dangling("an entry"))
            }
        }))
    })?;
    let mut kept = BTreeMap::new();
    for (no, mut feed) in found {
        let runs = runs.remove(&no).unwrap_or_default();
        let known = known(&feed);
        mended.entries += runs.entries;
        mended.missing += known.saturating_sub(runs.entries);
        let before = feed.clone();
        set(&mut feed, &runs);
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
}

impl Runs {
    /// The next entry, in order. `false`: it does not fit the chain, or there is no room for it.
    fn take(&mut self, seq: u64, entry: &Entry) -> bool {
        let new = Range { first: seq, last: seq, prev: entry.prev, hash: entry.hash };
        let from_one = seq == 1 || self.runs.first().is_some_and(|run| run.first == 1);
        let full = self.runs.len() >= RANGES + usize::from(from_one);
        match self.runs.last_mut() {
            Some(run) if run.last + 1 == seq => {
                if run.hash != entry.prev {
                    return false;
                }
                (run.last, run.hash) = (seq, entry.hash);
            }
            _ if seq == 0 || (seq == 1 && entry.prev != EntryHash::NONE) => return false,
            _ if full => return false,
            _ => self.runs.push(new),
        }
        self.entries += 1;
        self.received += u64::from(entry.arrival > 0);
        self.lamport = self.lamport.max(entry.lamport);
        true
    }
}

/// Moves heads to where the entries are. What was proven of the own ones stays proven.
fn set(feed: &mut Feed, runs: &Runs) {
    let (first, beyond) = match runs.runs.split_first() {
        Some((first, beyond)) if first.first == 1 => (Some(first), beyond),
        _ => (None, &*runs.runs),
    };
    let known = (feed.head, feed.beyond.clone());
    feed.head = first.map_or(0, |run| run.last);
    feed.hash = first.map_or(EntryHash::NONE, |run| run.hash);
    feed.beyond = List::of(beyond.iter().copied());
    feed.lamport = feed.lamport.max(runs.lamport);
    if known != (feed.head, feed.beyond.clone()) {
        feed.closed = false;
    }
}

/// Removes what leads to an entry that is not kept, and counts the rest.
fn index(view: &View<'_>, into: &mut Into<'_>, feeds: &mut BTreeMap<FeedNo, Kept>) -> Result<(), OpenError> {
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
            let mut leads = Vec::new();
            if !replaced.contains(&entry.hash) && entry.dropped != Some(Dropped::Deleted) {
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

/// The installation's own records. Their counters leap, because their newest values may be among what is lost.
fn own(view: &View<'_>, into: &mut Into<'_>, epoch: Epoch, arrival: u64) -> Result<(), OpenError> {
    let mut profile = view.record(&Key::Profile).ok().flatten().unwrap_or(Profile {
        epoch,
        start: 0,
        nickname: None,
        advertised: List::new(),
        record_seq: 0,
        record_addresses: List::new(),
    });
    profile.start = profile.start.saturating_add(LEAP);
    profile.record_seq = profile.record_seq.saturating_add(LEAP);
    into.put(Key::Profile.encode(), Some(profile.encode()))?;
    let mut counters: Counters = view.record(&Key::Counters).ok().flatten().unwrap_or_default();
    counters.arrival = counters.arrival.max(arrival).saturating_add(LEAP);
    counters.version = counters.version.saturating_add(LEAP);
    into.put(Key::Counters.encode(), Some(counters.encode()))
}
