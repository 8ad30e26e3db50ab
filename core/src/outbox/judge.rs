//! What the peer says that it has of my feed.
//!
//! A have-vector is a claim: it counts as far as its hashes are mine, up to its head and in each range beyond a gap. One
//! that says more, or other hashes, proves nothing, but raises a doubt: I ask for what the peer has beyond the last number
//! that we had in common, and judge what it gives back (`given`).

use super::{Claim, Outbox};
use crate::api::Event;
use crate::assemble::first_of;
use crate::bounded::List;
use crate::chain::{hole, insert_range, is_held};
use crate::cx::{Cx, Promise};
use crate::ids::EntryHash;
use crate::limits::HOLES;
use crate::planted::planted;
use crate::record::{Dropped, Hole, Range};
use crate::wire::entry::Author;
use crate::wire::frame::{Have, HaveFeed, HaveRange};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// Hashes of own entries that a have-vector names and that were not at hand.
pub(super) type Hashes = BTreeMap<u64, EntryHash>;

/// What a have-vector says to be gone, with the hash before it, which it names for what it has before.
fn said_gone(row: &HaveFeed) -> List<(u64, u64, EntryHash), HOLES> {
    List::of(row.gone.iter().filter_map(|(first, last)| {
        let before = first.checked_sub(1)?;
        let ends = core::iter::once((row.upto, row.hash));
        let mut ends = ends.chain(row.beyond.iter().map(|range| (range.last, range.hash)));
        let prev = ends.find(|(end, _)| *end == before).map(|(_, hash)| hash)?;
        (first <= last).then_some((*first, *last, prev))
    }))
}

/// The ranges beyond a gap that mean something.
fn beyond(row: &HaveFeed) -> impl Iterator<Item = &HaveRange> {
    row.beyond.iter().filter(|range| range.first > row.upto && range.first <= range.last)
}

impl Outbox {
    /// What a have-vector says of this feed.
    fn claimed<'a>(&self, have: &'a Have) -> Option<&'a HaveFeed> {
        have.feeds.iter().find(|feed| feed.author == Author::Receiver && feed.epoch == self.feed.epoch)
    }

    /// The newest have-vector of the peer. `true` if it acknowledged something.
    pub(crate) fn have(&mut self, cx: &mut Cx, have: &Have, current: bool) -> bool {
        if self.cursor.is_none() {
            return false;
        }
        self.heard = true;
        let older = self.claim.take();
        let row = self.claimed(have);
        let upto = row.map_or(0, |row| row.upto);
        if upto > self.durable.0 {
            // More than I have without holes. Without my own tag it proves nothing.
            let equal = self.given.equal && !is_held(&self.feed, upto);
            let another = !current && equal && !planted!(cx, SecondCopyUnnamed);
            if another && !core::mem::replace(&mut self.given.told, true) {
                cx.event(Event::SecondCopy { peer: self.peer, epoch: self.feed.epoch });
            }
            self.doubt(cx, current || self.feed.acked < self.feed.head);
            return false;
        }
        self.given.equal |= row.is_some_and(|row| {
            (row.upto, row.hash) == (self.feed.head, self.feed.hash)
                && row.beyond.is_empty()
                && self.feed.beyond.is_empty()
        });
        let hashes = older.map(|older| older.hashes).unwrap_or_default();
        if self.unread(have, &hashes).is_none() {
            return self.judge(cx, have, current, &hashes);
        }
        self.hold(Claim { have: have.clone(), current, hashes });
        // The answer to an older question is not waited for.
        if matches!(self.asked, Some((super::Asked::Hash { .. }, _))) {
            self.asked = None;
        }
        false
    }

    /// Keeps a have-vector until the hashes that it names are read, and of what was read before only that.
    fn hold(&mut self, mut claim: Claim) {
        let named: Vec<u64> = self.named(&claim.have).collect();
        claim.hashes.retain(|seq, _| named.contains(seq));
        self.claim = Some(claim);
    }

    /// The numbers whose hashes a have-vector names, as far as I have them.
    fn named(&self, have: &Have) -> impl Iterator<Item = u64> {
        let row = self.claimed(have);
        let upto = row.map(|row| row.upto);
        let ends = row.into_iter().flat_map(|row| beyond(row).map(|range| range.last));
        upto.into_iter().chain(ends).filter(|seq| self.has(*seq))
    }

    /// The first own entry that must be read before this have-vector can be judged.
    fn unread(&self, have: &Have, hashes: &Hashes) -> Option<u64> {
        self.named(have).find(|seq| self.hash_of(*seq, hashes).is_none())
    }

    /// What must be read for the have-vector that is held; one more if all became known meanwhile.
    pub(super) fn wants_hash(&self) -> Option<u64> {
        let claim = self.claim.as_ref()?;
        self.unread(&claim.have, &claim.hashes).or(self.claimed(&claim.have).map(|row| row.upto))
    }

    /// An own entry that a have-vector names was looked up. One that cannot be read is not what the peer has: a hash that
    /// no entry has says so. `true` if the have-vector acknowledged something.
    pub(super) fn hash_loaded(&mut self, cx: &mut Cx, seq: u64, hash: Option<EntryHash>) -> bool {
        let Some(mut claim) = self.claim.take() else { return false };
        claim.hashes.insert(seq, hash.unwrap_or(EntryHash::NONE));
        if self.unread(&claim.have, &claim.hashes).is_none() {
            return self.judge(cx, &claim.have, claim.current, &claim.hashes);
        }
        self.hold(claim);
        false
    }

    fn doubt(&mut self, cx: &mut Cx, doubt: bool) {
        if doubt && !self.given.doubt && self.feed.fork.is_none() {
            cx.stats.doubts += 1;
            self.given.doubt = true;
            self.given.doubt_untold = true;
        }
    }

    pub(crate) const fn has_doubt(&self) -> bool {
        self.given.doubt
    }

    /// Whether there is a doubt that the peer was not asked about.
    pub(crate) const fn take_doubt(&mut self) -> bool {
        core::mem::replace(&mut self.given.doubt_untold, false)
    }

    /// Whether this is mine, and durable: without holes, or beyond a gap that a rollback left.
    fn has(&self, seq: u64) -> bool {
        seq <= self.durable.0 || self.own_range(seq).is_some()
    }

    fn own_range(&self, seq: u64) -> Option<&Range> {
        self.feed.beyond.iter().find(|range| (range.first..=range.last).contains(&seq))
    }

    fn hash_of(&self, seq: u64, hashes: &Hashes) -> Option<EntryHash> {
        hashes.get(&seq).copied().or_else(|| self.known_hash(seq))
    }

    /// Whether that is the hash of my entry there.
    fn is_mine(&self, seq: u64, hash: EntryHash, hashes: &Hashes) -> bool {
        hash != EntryHash::NONE && self.hash_of(seq, hashes) == Some(hash)
    }

    pub(super) fn known_hash(&self, seq: u64) -> Option<EntryHash> {
        if seq == 0 {
            return Some(EntryHash::NONE);
        }
        if seq == self.feed.acked {
            return Some(self.feed.acked_hash);
        }
        if seq == self.feed.head {
            return Some(self.feed.hash);
        }
        let mut ranges = self.feed.acked_beyond.iter().chain(self.feed.beyond.iter());
        let beyond = ranges.find(|range| range.last == seq).map(|range| range.hash);
        let loaded = self.given.own.get(&seq).copied();
        self.flight.get(&seq).map(|flight| flight.hash).or(beyond).or(loaded)
    }

    /// Takes a have-vector at its word as far as its hashes are mine. Those that were not at hand are in `hashes`.
    fn judge(&mut self, cx: &mut Cx, have: &Have, current: bool, hashes: &Hashes) -> bool {
        let row = self.claimed(have);
        let (upto, claimed) = row.map_or((0, EntryHash::NONE), |row| (row.upto, row.hash));
        if upto > 0 && !self.is_mine(upto, claimed, hashes) && !planted!(cx, AcknowledgedByNumber) {
            self.doubt(cx, true);
            return false;
        }
        let before = (self.feed.acked, self.flight.len());
        self.acknowledged(cx, upto, claimed);
        if planted!(cx, EvidenceRegresses) && upto < self.feed.acked {
            (self.feed.acked, self.feed.acked_hash, self.dirty) = (upto, claimed, true);
        }
        let (mut skip, mut doubt) = (Vec::new(), false);
        for range in row.into_iter().flat_map(beyond) {
            if !self.has(range.last) {
                // More than I have. An epoch that ended may have lost it; one that goes on would be forked.
                doubt |= current;
            } else if self.is_mine(range.last, range.hash, hashes) {
                skip.push((range.first, range.last));
                let mine = self.own_range(range.last).map_or(range.first, |own| own.first.max(range.first));
                self.prove_range(cx, mine, range.last, range.hash);
            } else {
                doubt = true;
            }
        }
        self.given.doubt &= doubt;
        self.doubt(cx, doubt);
        self.credit = if planted!(cx, CreditIgnored) { u32::MAX } else { have.credit };
        let regressed = upto < self.base;
        self.base = upto;
        self.skip = skip;
        self.gone = row.map(said_gone).unwrap_or_default();
        let agreed = |hole: &&Hole| {
            self.gone.iter().any(|(first, last, _)| (*first, *last) == (hole.first, hole.last))
        };
        self.skip.extend(self.feed.holes.iter().filter(agreed).map(|hole| (hole.first, hole.last)));
        self.free_flight(cx);
        if regressed {
            // Another holder, or one that lost something: it is served from history, and no evidence is taken back.
            self.restart();
        } else if self.cursor.is_some_and(|cursor| cursor <= upto) {
            self.cursor = Some(upto + 1);
        }
        let progressed = before != (self.feed.acked, self.flight.len());
        if progressed {
            self.backoff.reset();
        }
        progressed
    }

    /// What comes next is gone here too, and the peer said that it is gone there: nobody waits for it any more. Nothing else
    /// ends the wait for a number that the peer says to be gone: who has it offers it again.
    pub(crate) fn settle_gone(&mut self, cx: &mut Cx) {
        while let Some(cursor) = self.settle_cursor() {
            let marker = self.ready.front().filter(|(seq, entry)| {
                let is_marker = matches!(entry.dropped, Some(Dropped::Gone { .. }));
                is_marker && first_of(*seq, entry) <= cursor
            });
            let marker = marker.map(|(seq, entry)| (*seq, entry.hash, entry.lamport));
            let Some((end, hash, lamport)) = marker else { return };
            let gone = self.gone.iter().find(|(first, last, _)| (*first..=*last).contains(&cursor));
            let Some((first, last, prev)) = gone.copied() else { return };
            // In order: what is before it may be on its way. And a gap of this feed ends by what the peer gives back.
            if cursor > self.feed.acked + 1 || cursor > self.feed.head {
                return;
            }
            let last = last.min(end);
            self.skip.push((cursor, last));
            if last == end && first == cursor && hole(&self.feed, cursor).is_none() {
                let hole = Hole { first, last, prev, hash, lamport, arrival: 0 };
                let at = self.feed.holes.iter().position(|other| other.first > first);
                let at = at.unwrap_or(self.feed.holes.len());
                let _as_many_as_fit = self.feed.holes.insert(at, hole);
            }
            if last > self.feed.acked && last == end {
                (self.feed.acked, self.feed.acked_hash) = (last, hash);
                self.join_proven();
            }
            self.dirty = true;
            cx.unsaved.insert(self.peer);
        }
    }

    /// The user deleted an own entry, and what found it: nobody writes it again if it was a marker.
    pub(crate) fn hidden(&mut self, cx: &mut Cx, seq: u64) {
        let hole = self.feed.holes.iter_mut().find(|hole| hole.last == seq && hole.lamport > 0);
        if let Some(hole) = hole {
            hole.lamport = 0;
            self.dirty = true;
            cx.unsaved.insert(self.peer);
        }
    }

    /// What the peer has is not on its way any more.
    pub(super) fn free_flight(&mut self, cx: &mut Cx) {
        let (base, skip) = (self.base, &self.skip);
        let held = |seq: u64| seq <= base || skip.iter().any(|(first, last)| (*first..=*last).contains(&seq));
        let mut freed = 0u32;
        let mut in_time = Vec::new();
        self.flight.retain(|seq, flight| {
            let keep = !held(*seq);
            freed += if keep { 0 } else { flight.cost };
            in_time.extend(flight.expires.filter(|_| !keep).map(|at| (*seq, at)));
            keep
        });
        self.flight_cost -= freed;
        self.overtaken.retain(|body| !held(body.seq));
        self.withheld.retain(|seq| !held(*seq));
        for (seq, at) in in_time {
            if self.is_delivered(seq) && !planted!(cx, ExpiredThoughDelivered) {
                self.unexpire(cx, seq, Some(at));
            }
        }
    }

    /// The peer has everything up to `upto`, whose hash is mine.
    pub(super) fn acknowledged(&mut self, cx: &mut Cx, upto: u64, hash: EntryHash) {
        if upto <= self.feed.acked {
            return;
        }
        self.prove(cx, self.feed.acked + 1, upto);
        self.feed.acked = upto;
        self.feed.acked_hash = hash;
        self.feed.acked_beyond.retain(|range| range.last > upto);
        self.dirty = true;
    }

    /// Everything in it is at the peer: said by one hash over several epochs.
    pub(crate) fn all_acknowledged(&mut self, cx: &mut Cx) {
        if self.feed.fork.is_none() {
            self.acknowledged(cx, self.feed.head, self.feed.hash);
            self.base = self.feed.head;
            self.stop_offering();
            self.cursor = Some(self.feed.head + 1);
        }
    }

    /// Shows `first..=last` as delivered once that is stored, leaving out what was shown before.
    fn prove(&self, cx: &mut Cx, first: u64, last: u64) {
        let mut from = first;
        for range in self.feed.acked_beyond.iter() {
            if range.first > from && from <= last {
                let to = last.min(range.first - 1);
                self.promise_delivered(cx, from, to);
            }
            from = from.max(range.last.saturating_add(1));
        }
        if from <= last {
            self.promise_delivered(cx, from, last);
        }
    }

    fn promise_delivered(&self, cx: &mut Cx, first: u64, last: u64) {
        // The feed record that proves it goes into the batch that closes next; a promise made while the batch is
        // still empty must wait for that one.
        cx.promise_next(Promise::Event(Event::Delivered {
            peer: self.peer,
            epoch: self.feed.epoch,
            first,
            last,
        }));
    }

    pub(super) fn prove_range(&mut self, cx: &mut Cx, first: u64, last: u64, hash: EntryHash) {
        // Who lost something names again what it had proven before.
        let first = first.max(self.feed.acked.saturating_add(1));
        let known = self.feed.acked_beyond.iter().any(|range| range.first <= first && last <= range.last);
        if known || last < first {
            return;
        }
        let mut ranges = self.feed.acked_beyond.clone();
        let own = self.own_range(first).filter(|own| own.first == first);
        let prev = own.map_or(EntryHash::NONE, |own| own.prev);
        // No room to store the proof: then it is not shown either. The gap before it will close, and prove all.
        if insert_range(&mut ranges, Range { first, last, prev, hash }) {
            self.prove(cx, first, last);
            self.feed.acked_beyond = ranges;
            self.dirty = true;
        }
    }
}
