//! What a disk no longer tells: what people took back or deleted on it, and what a rollback changed.
//!
//! Nothing leaves a disk, and nothing on it changes, but by the wish of its person; and what leaves it then leaves whole.

use super::ledger::{Kept, Ledger, Place, Touched, covers};
use super::{Check, Verdict, Violation, wrong};
use crate::disk::Disk;
use crate::limits::{EXPIRY_EARLY_MS, EXPIRY_SLACK_MS};
use bytes::Bytes;
use peerlink_core::ids::{CallerId, ConversationNo, EntryHash, Epoch, FeedNo, MessageRef, PeerId};
use peerlink_core::record::{Dropped, Entry, Erase, Feed, Key, OrderKey, Place as Stored, Record as _};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Past {
    /// Somebody's store was rolled back: then entries change their names.
    pub(super) mended: bool,
    /// What was issued again, by its old place: there it may go.
    pub(super) replaced: BTreeMap<(Epoch, u64), EntryHash>,
    /// Messages that the person wished to take back or to delete, and conversations that it wished to delete.
    pub(super) wishes: BTreeSet<Place>,
    pub(super) erasing: BTreeSet<PeerId>,
    /// What of conversations was to be deleted; those of which all of that was done at least once.
    erased: BTreeMap<ConversationNo, Erase>,
    finished: BTreeSet<ConversationNo>,
    /// Where histories showed what was deleted; such entries of which the header is there.
    hidden: BTreeSet<OrderKey>,
    pub(super) unordered: BTreeSet<(FeedNo, u64)>,
    /// What was found by an arrival number or by a caller's id, and messages that were counted.
    pub(super) arrivals: BTreeMap<u64, Stored>,
    pub(super) callers: BTreeMap<(ConversationNo, CallerId), MessageRef>,
    /// Entries that went whole.
    pub(super) deleted: BTreeMap<(FeedNo, u64), Kept>,
    pub(super) texts: BTreeMap<FeedNo, u64>,
    /// Messages that are tried for a time only, and how long this host has lived.
    pub(super) expiring: BTreeMap<CallerId, Expiring>,
    pub(super) lived_ms: Option<u64>,
}

/// A message that is tried for so many milliseconds, from this moment of its host's life on. No moment: its wall clock
/// was set, and may have led it astray.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Expiring {
    pub(super) since: Option<u64>,
    pub(super) after_ms: u64,
}

/// One place of a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    hash: EntryHash,
    dropped: Option<Dropped>,
    body: Bytes,
}

impl Line {
    /// What both sides hold here is the same, as far as it is there.
    pub(super) fn agrees(&self, other: &Self) -> bool {
        let there = self.dropped.is_none() && other.dropped.is_none();
        self.hash == other.hash && (!there || self.body == other.body)
    }
}

impl Ledger {
    /// What left the disk or changed on it did so by a wish, or because it was issued again. Gives what was taken back for
    /// certain.
    pub(super) fn check_taken_away(&mut self, touched: &Touched) -> Result<Vec<Place>, Violation> {
        self.note_erasing(touched)?;
        for (feed, seq, before) in &touched.deleted {
            self.check_deleted(*feed, *seq, before)?;
        }
        let mut settled = Vec::new();
        for (feed, seq, before) in &touched.changed {
            let was = touched.feeds.iter().find(|(no, _)| no == feed).map(|(_, was)| was.as_ref());
            settled.extend(self.check_changed(*feed, *seq, before, was)?);
        }
        for (order, feed) in &touched.hidden {
            self.check_hidden(*order, *feed)?;
        }
        let erased = |place: &Stored| {
            let kept = self.was_stored(place.feed, place.seq);
            let feed = self.feeds.get(&place.feed);
            let filled = touched.filled.contains(&(place.feed, place.seq));
            filled || feed.zip(kept).is_some_and(|(feed, kept)| self.is_erased(feed, kept))
        };
        if let Some((number, _)) = touched.unlisted.iter().find(|(_, place)| !erased(place)) {
            return Err(wrong(Check::NothingHidden, format!("arrival {number} was deleted")));
        }
        if let Some((_, caller, _)) = touched.unnamed.iter().find(|(_, _, place)| !erased(place)) {
            return Err(wrong(Check::ExactlyOnce, format!("the id {caller} of a message was deleted")));
        }
        let name = |place: &Stored| {
            let epoch = self.feeds.get(&place.feed)?.epoch;
            Some(MessageRef { epoch, seq: place.seq })
        };
        let callers = touched.unnamed.iter();
        let callers: Vec<_> =
            callers.filter_map(|(no, caller, place)| Some(((*no, *caller), name(place)?))).collect();
        self.past.callers.extend(callers);
        self.past.arrivals.extend(touched.unlisted.iter().copied());
        self.check_erased(touched)?;
        Ok(settled)
    }

    /// A conversation says how far it is to be deleted only if its person wished that.
    fn note_erasing(&mut self, touched: &Touched) -> Verdict {
        for (no, _) in &touched.conversations {
            let Some(conversation) = self.conversations.get(no) else { continue };
            let Some(upto) = conversation.erase else { continue };
            if !self.past.erasing.contains(&conversation.peer) {
                return Err(wrong(Check::SenderKeeps, "a conversation is deleted, and nobody wished that"));
            }
            let erased = self.past.erased.entry(*no).or_insert(upto);
            let (lamport, arrival) = (erased.lamport.max(upto.lamport), erased.arrival.max(upto.arrival));
            *erased = Erase { lamport, arrival };
        }
        Ok(())
    }

    /// Whether it was in its conversation when that was deleted.
    fn is_erased(&self, feed: &Feed, kept: &Kept) -> bool {
        let covers = |upto: &Erase| {
            if feed.mine { kept.lamport <= upto.lamport } else { kept.arrival <= upto.arrival }
        };
        self.past.erased.get(&feed.conversation).is_some_and(covers)
    }

    fn is_wished(&self, no: FeedNo, seq: u64, kept: &Kept) -> bool {
        let Some(feed) = self.feeds.get(&no) else { return false };
        let place = self.place_in(no, seq, feed.mine);
        place.is_some_and(|place| self.past.wishes.contains(&place)) || self.is_erased(feed, kept)
    }

    /// Contract 5: what its recipient has not acknowledged stays, whatever its author wishes; at the end of each feed its
    /// last header does, by which a feed is proven to who lost it.
    fn check_deleted(&mut self, no: FeedNo, seq: u64, before: &Kept) -> Verdict {
        let Some(feed) = self.feeds.get(&no) else { return Ok(()) };
        if self.past.mended && self.past.replaced.get(&(feed.epoch, seq)) == Some(&before.hash) {
            return Ok(());
        }
        let proven = covers(feed.acked, &feed.acked_beyond, seq);
        let last = seq == feed.head || feed.beyond.iter().any(|range| range.last == seq);
        if !self.is_erased(feed, before) || (feed.mine && !proven) || last {
            return Err(wrong(Check::SenderKeeps, format!("entry {seq} of feed {no} was deleted")));
        }
        self.past.unordered.remove(&(no, seq));
        self.past.deleted.insert((no, seq), *before);
        if before.is_text() {
            *self.past.texts.entry(no).or_default() += 1;
        }
        Ok(())
    }

    /// An entry is what it was, or without its body for a reason that its person gave. Gives its place if it is certain
    /// now that it never came.
    fn check_changed(
        &self,
        no: FeedNo,
        seq: u64,
        before: &Kept,
        was: Option<Option<&Feed>>,
    ) -> Result<Option<Place>, Violation> {
        let (Some(after), Some(feed)) = (self.entries.get(&(no, seq)), self.feeds.get(&no)) else {
            return Ok(None);
        };
        let (mine, proven) = (feed.mine, covers(feed.acked, &feed.acked_beyond, seq));
        let wished = self.is_wished(no, seq, before);
        // In one batch it may expire and be proven to have come.
        let was_proven = match was {
            None => proven,
            Some(was) => was.is_some_and(|was| covers(was.acked, &was.acked_beyond, seq)),
        };
        let settles = matches!(
            (before.dropped, after.dropped),
            (Some(Dropped::Cancelled { settled: false }), Some(Dropped::Cancelled { settled: true }))
                | (Some(Dropped::Expired { settled: false }), Some(Dropped::Expired { settled: true }))
        );
        let allowed = match (before.dropped, after.dropped) {
            (None, Some(Dropped::Cancelled { settled: false })) => mine && wished,
            (None, Some(Dropped::Expired { settled: false })) => {
                mine && !was_proven && self.may_expire(&before.caller)
            }
            (None | Some(Dropped::Cancelled { .. } | Dropped::Expired { .. }), Some(Dropped::Deleted)) => {
                wished && (!mine || proven)
            }
            _ => settles && mine && !proven,
        };
        let same = Kept { dropped: before.dropped, body: before.body, ..*after } == *before;
        let gone = after.body == *blake3::hash(&[]).as_bytes();
        if !same || !gone || !allowed {
            let (was, is) = (before.dropped, after.dropped);
            let what = format!("entry {seq} of feed {no} was stored again, was {was:?} and is {is:?}");
            return Err(wrong(if same { Check::EvidenceGrows } else { Check::ExactlyOnce }, what));
        }
        Ok(self.place_in(no, seq, true).filter(|_| settles))
    }

    /// Whether its time is over, as far as that can be said.
    fn may_expire(&self, caller: &CallerId) -> bool {
        self.past.expiring.get(caller).is_some_and(|expiring| {
            let Some((since, now)) = expiring.since.zip(self.past.lived_ms) else { return true };
            // Milliseconds are cut off at every start.
            now.saturating_sub(since) + EXPIRY_EARLY_MS >= expiring.after_ms
        })
    }

    /// A message whose whole time passed while nothing was wrong with its host does not wait any more.
    pub(super) fn check_overdue(&self, lived_ms: u64, calm_ms: u64) -> Verdict {
        let any = !self.past.expiring.is_empty();
        for ((no, seq), kept) in self.entries.iter().filter(|_| any) {
            let Some(expiring) = self.past.expiring.get(&kept.caller) else { continue };
            let Some(feed) = self.feeds.get(no).filter(|feed| feed.mine && kept.dropped.is_none()) else {
                continue;
            };
            let waited = expiring.since.map_or(0, |since| lived_ms.saturating_sub(since)).min(calm_ms);
            if waited > expiring.after_ms + EXPIRY_SLACK_MS && !covers(feed.acked, &feed.acked_beyond, *seq) {
                let (after, epoch) = (expiring.after_ms, feed.epoch);
                let what = format!("{epoch}:{seq} was to be tried for {after} ms, and waits for {waited}");
                return Err(wrong(Check::Liveness, what));
            }
        }
        Ok(())
    }

    fn check_hidden(&mut self, order: OrderKey, no: FeedNo) -> Verdict {
        let there = self.entries.get(&(no, order.seq));
        let wished = self.was_stored(no, order.seq).is_some_and(|kept| self.is_wished(no, order.seq, kept));
        if !wished && self.past.mended {
            return Ok(());
        }
        if !wished {
            let what = format!("entry {} of feed {no} was taken out of its history", order.seq);
            return Err(wrong(Check::NothingHidden, what));
        }
        if there.is_some_and(|kept| kept.dropped.is_none()) {
            let what = format!("entry {} of feed {no} is in no history, and its text is there", order.seq);
            return Err(wrong(Check::NothingHidden, what));
        }
        if there.is_some() {
            self.past.unordered.insert((no, order.seq));
        }
        self.past.hidden.insert(order);
        Ok(())
    }

    /// A conversation that says that its deletion is done has nothing left of what was to go.
    fn check_erased(&mut self, touched: &Touched) -> Verdict {
        for (no, before) in &touched.conversations {
            let erased = before.as_ref().and_then(|before| before.erase);
            let Some(after) = self.conversations.get(no).filter(|after| after.erase != erased) else {
                continue;
            };
            if erased.is_none() || after.erase.is_some() {
                continue;
            }
            let gone = |feed: &FeedNo, seq: u64| {
                let kept = self.feeds.get(feed).zip(self.entries.get(&(*feed, seq)));
                kept.is_some_and(|(feed, kept)| self.is_erased(feed, kept))
            };
            let mut shown = self.orders.range(OrderKey::first(*no)..=OrderKey::last(*no));
            let feeds = self.feeds.iter().filter(|(_, feed)| feed.conversation == *no);
            let mut entries = feeds.flat_map(|(no, _)| self.entries.range((*no, 0)..=(*no, u64::MAX)));
            if shown.any(|(order, feed)| gone(feed, order.seq))
                || entries.any(|((feed, seq), kept)| kept.dropped.is_none() && gone(feed, *seq))
            {
                let what = "a conversation was deleted, and something of it is left";
                return Err(wrong(Check::Restore, what));
            }
            self.past.finished.insert(*no);
        }
        Ok(())
    }

    // --- questions -------------------------------------------------------------------------------------------

    /// The body of this message is gone from here, or all of it is.
    pub(super) fn check_dropped(&self, peer: &PeerId, message: &MessageRef, cancelled: bool) -> Verdict {
        let stored = [true, false].into_iter().find_map(|mine| {
            let (no, _) = self.feed_of(peer, &message.epoch, mine)?;
            Some((mine, self.entries.get(&(no, message.seq))?))
        });
        let said = match stored {
            None => true,
            Some((mine, kept)) => kept.dropped.is_some() && (!cancelled || mine),
        };
        let what = || format!("{message} is said to be gone, cancelled {cancelled}, and is there");
        if said { Ok(()) } else { Err(wrong(Check::QueuedIsDurable, what())) }
    }

    /// Whether this number stands among those that will never come, in an epoch of either side.
    pub(super) fn shows_as_gone(&self, peer: &PeerId, epoch: &Epoch, seq: u64) -> bool {
        [true, false].into_iter().filter_map(|mine| self.feed_of(peer, epoch, mine)).any(|(no, _)| {
            let next = self.entries.range((no, seq)..=(no, u64::MAX)).next();
            next.is_some_and(|(_, kept)| {
                kept.first <= seq && matches!(kept.dropped, Some(Dropped::Gone { .. }))
            })
        })
    }

    /// Whether this message is not stored at all.
    pub(super) fn lacks_entry(&self, peer: &PeerId, message: &MessageRef) -> bool {
        [true, false].into_iter().all(|mine| {
            let feed = self.feed_of(peer, &message.epoch, mine);
            feed.is_none_or(|(no, _)| !self.entries.contains_key(&(no, message.seq)))
        })
    }

    pub(super) fn check_all_deleted(&self, peer: &PeerId) -> Verdict {
        let no = self.contacts.get(peer).map(|contact| contact.conversation);
        if no.is_some_and(|no| self.past.finished.contains(&no)) {
            return Ok(());
        }
        Err(wrong(
            Check::QueuedIsDurable,
            "a conversation is said to be deleted, and it is not stored that it is",
        ))
    }

    /// Why the own entry towards this peer, or one of its entries, has no body; `None`: it is not stored.
    pub(super) fn fate(&self, peer: &PeerId, place: &Place, mine: bool) -> Option<Option<Dropped>> {
        let (no, _) = self.feed_of(peer, &place.epoch, mine)?;
        self.entries.get(&(no, place.seq)).map(|kept| kept.dropped)
    }

    /// Whether this entry was issued again and does not stand in the history, but a later one that stands for the same does.
    pub(super) fn is_shown_elsewhere(&self, feed: &Feed, no: FeedNo, seq: u64, kept: &Kept) -> bool {
        let order = |no: FeedNo, feed: &Feed, seq: u64, kept: &Kept| OrderKey {
            conversation: feed.conversation,
            lamport: kept.lamport,
            rank: self.rank_in(feed.conversation, no, seq),
            epoch: feed.epoch,
            seq,
        };
        let own = order(no, feed, seq, kept);
        let later = |((other_no, other_seq), other): (&(FeedNo, u64), &Kept)| {
            let Some(of) = self.feeds.get(other_no).filter(|of| of.mine == feed.mine) else { return false };
            let order = order(*other_no, of, *other_seq, other);
            other.replaces == kept.replaces && order > own && self.orders.get(&order) == Some(other_no)
        };
        let is_listed = self.orders.get(&own) == Some(&no);
        self.past.mended && kept.replaces.is_some() && !is_listed && self.entries.iter().any(later)
    }

    /// Whether this entry of the peer's is held, and is not the only one that stands for its message.
    pub(super) fn has_names(&self, peer: &PeerId, epoch: &Epoch, seq: u64) -> bool {
        let held = self.feed_of(peer, epoch, false).and_then(|(no, _)| self.entries.get(&(no, seq)));
        let renamed = || self.past.replaced.contains_key(&(*epoch, seq));
        self.past.mended && held.is_some_and(|kept| kept.replaces.is_some() || renamed())
    }

    /// Every own entry towards a peer that is stored.
    pub(super) fn own_entries(&self, peer: &PeerId) -> impl Iterator<Item = Place> {
        let feeds =
            self.feeds().filter(|(other, feed)| feed.mine && other == peer).map(|(_, feed)| feed.epoch);
        let feeds: Vec<_> =
            feeds.filter_map(|epoch| Some((epoch, self.feed_of(peer, &epoch, true)?.0))).collect();
        let peer = *peer;
        feeds.into_iter().flat_map(move |(epoch, no)| {
            let entries = self.entries.range((no, 0)..=(no, u64::MAX));
            entries.map(move |((_, seq), _)| Place { peer, epoch, seq: *seq })
        })
    }

    /// The conversation with a peer in its order, what a person reads, and where something was that it deleted.
    /// Conversations have other numbers on the other side: they are 0 in both.
    pub(super) fn history(
        &self,
        peer: &PeerId,
        disk: &Disk,
    ) -> (BTreeMap<OrderKey, Line>, BTreeSet<OrderKey>) {
        let Some(contact) = self.contacts.get(peer) else { return Default::default() };
        let (first, last) = (OrderKey::first(contact.conversation), OrderKey::last(contact.conversation));
        let anywhere = |order: &OrderKey| OrderKey { conversation: ConversationNo(0), ..*order };
        let read = |(order, feed): (&OrderKey, &FeedNo)| {
            let value = disk.get(&Key::Entry { feed: *feed, seq: order.seq }.encode())?;
            let Entry { hash, dropped, body, .. } = Entry::decode(value).ok()?;
            Some((anywhere(order), Line { hash, dropped, body }))
        };
        let lines = self.orders.range(first..=last).filter_map(read).collect();
        (lines, self.past.hidden.range(first..=last).map(anywhere).collect())
    }
}
