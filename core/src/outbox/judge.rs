//! What the peer says that it has of my feed, and what it gives back of it.
//!
//! A have-vector is a claim: it counts as far as its hashes are mine. One that says more, or other hashes, proves
//! nothing, but raises a doubt: I ask for what the peer has beyond the last number that we had in common. An entry that
//! carries my own tag and that my store does not know is proof: my store was rolled back. Then this epoch ends. What I
//! wrote above the last common number is issued again in a newer epoch, what the peer has above it is taken back.

use super::{Asked, Outbox};
use crate::api::{Event, Page};
use crate::assemble::{entries, first_of, gone_marker};
use crate::chain::{first_name, insert_range};
use crate::cx::{Cx, Promise};
use crate::ids::{EntryHash, FeedNo};
use crate::limits::{PAGE_BYTES, RANGES, RUN_ENTRIES, SEQ_LIMIT};
use crate::planted::planted;
use crate::record::{Dropped, Entry, Head, Key, Kind, OrderKey, Range, Record as _, Shown};
use crate::time::Age;
use crate::wire::entry::{Author, Gone};
use crate::wire::frame::{Have, HaveFeed};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

/// What the peer gives back.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// The peer has something that my store does not.
    doubt: bool,
    doubt_untold: bool,
    /// Entries with my own tag that wait for the store, or for what must be issued again first.
    pending: VecDeque<(u64, Entry)>,
    pending_bytes: usize,
    /// Hashes of own entries that were loaded to be compared.
    own: BTreeMap<u64, EntryHash>,
    /// A rollback was proven: what follows waits until the newer epoch is there.
    ended: bool,
    /// Which entry is shown for the message that comes next, by the hash of its first name.
    shown: Option<(EntryHash, Option<Shown>)>,
    /// It was also looked for under its first name.
    first: bool,
    /// The highest number that was taken back, if the peer was not told of it.
    pub(super) untold: Option<u64>,
    /// Both had the same once: if it grows after that, somebody else writes it.
    equal: bool,
    told: bool,
}

impl Given {
    /// What a session brought goes with it; what was learnt stays.
    pub(super) fn session_over(&mut self) {
        let (equal, told) = (self.equal, self.told);
        *self = Self { equal, told, ..Self::default() };
    }

    fn clear(&mut self) {
        self.pending.clear();
        self.pending_bytes = 0;
        self.own.clear();
    }

    fn pop(&mut self) -> Option<(u64, Entry)> {
        let (seq, entry) = self.pending.pop_front()?;
        self.pending_bytes -= entry.body.len();
        Some((seq, entry))
    }
}

impl Outbox {
    /// What a have-vector says of this feed.
    pub(super) fn claimed<'a>(&self, have: &'a Have) -> Option<&'a HaveFeed> {
        have.feeds.iter().find(|feed| feed.author == Author::Receiver && feed.epoch == self.feed.epoch)
    }

    /// The newest have-vector of the peer. `true` if it acknowledged something.
    pub(crate) fn have(&mut self, cx: &mut Cx, have: &Have, current: bool) -> bool {
        if self.cursor.is_none() {
            return false;
        }
        self.heard = true;
        self.held_have = None;
        let Some((upto, hash)) = self.claimed(have).map(|feed| (feed.upto, feed.hash)) else {
            return self.judge(cx, have, None);
        };
        if upto > self.durable.0 {
            // More than I have. Without my own tag it proves nothing.
            if !current && self.given.equal && !core::mem::replace(&mut self.given.told, true) {
                cx.event(Event::SecondCopy { peer: self.peer, epoch: self.feed.epoch });
            }
            self.doubt(cx, current || self.feed.acked < self.feed.head);
            return false;
        }
        self.given.equal |= upto == self.feed.head && hash == self.feed.hash;
        if self.unknown_hash(have).is_none() {
            return self.judge(cx, have, self.known_hash(upto));
        }
        self.held_have = Some(have.clone());
        // An answer to an older question would be taken for this one's.
        if matches!(self.asked, Some(Asked::Hash { .. })) {
            self.asked = None;
        }
        false
    }

    /// The first number that a have-vector names and whose hash must be read from the store: only then is it known what
    /// the peer has, and what it never got.
    pub(super) fn unknown_hash(&self, have: &Have) -> Option<u64> {
        let claimed = self.claimed(have)?;
        let ranges = claimed.beyond.iter().take(RANGES).map(|range| range.last);
        let stored = |seq: &u64| *seq <= self.durable.0 && self.known_hash(*seq).is_none();
        core::iter::once(claimed.upto).chain(ranges).find(stored)
    }

    /// What stands at a number that the have-vector names.
    pub(super) fn hash_loaded(&mut self, cx: &mut Cx, seq: u64, hash: Option<EntryHash>) -> bool {
        if self.looked_up.len() > RANGES {
            self.looked_up.clear();
        }
        // What cannot be read is not what the peer has: a hash that no entry has says so.
        self.looked_up.insert(seq, hash.unwrap_or(EntryHash::NONE));
        let Some(have) = self.held_have.take() else { return false };
        if self.unknown_hash(&have).is_some() {
            self.held_have = Some(have);
            return false;
        }
        let upto = self.claimed(&have).map_or(0, |feed| feed.upto);
        self.judge(cx, &have, self.known_hash(upto))
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

    fn known_hash(&self, seq: u64) -> Option<EntryHash> {
        if seq == 0 {
            return Some(EntryHash::NONE);
        }
        if seq == self.feed.acked {
            return Some(self.feed.acked_hash);
        }
        if seq == self.feed.head {
            return Some(self.feed.hash);
        }
        let beyond = self.feed.acked_beyond.iter().find(|range| range.last == seq).map(|range| range.hash);
        let loaded = self.given.own.get(&seq).copied();
        let loaded = loaded.or_else(|| self.looked_up.get(&seq).copied());
        self.flight.get(&seq).map(|flight| flight.hash).or(beyond).or(loaded)
    }

    /// Takes a have-vector at its word as far as its hashes are mine. `hash` is that of my entry at its `upto`.
    pub(super) fn judge(&mut self, cx: &mut Cx, have: &Have, hash: Option<EntryHash>) -> bool {
        let (upto, claimed, ranges) = match self.claimed(have) {
            Some(feed) => (feed.upto, feed.hash, feed.beyond.as_ref()),
            None => (0, EntryHash::NONE, &[][..]),
        };
        let hash = hash.filter(|hash| *hash != EntryHash::NONE);
        if upto > 0 && hash != Some(claimed) && !planted!(cx, AcknowledgedByNumber) {
            self.doubt(cx, true);
            return false;
        }
        self.given.doubt = false;
        let before = (self.feed.acked, self.flight.len());
        self.acknowledged(cx, upto, claimed);
        if planted!(cx, EvidenceRegresses) && upto < self.feed.acked {
            (self.feed.acked, self.feed.acked_hash, self.dirty) = (upto, claimed, true);
        }
        let mut skip = Vec::new();
        for range in ranges.iter().take(RANGES) {
            let hash = self.known_hash(range.last).filter(|hash| *hash != EntryHash::NONE);
            let mine = range.last <= self.durable.0 && hash == Some(range.hash);
            if mine && range.first > upto && range.first <= range.last {
                skip.push((range.first, range.last));
                self.prove_range(cx, range.first, range.last, range.hash);
            }
        }
        let held = |seq: u64| seq <= upto || skip.iter().any(|(first, last)| (*first..=*last).contains(&seq));
        let mut freed = 0u32;
        let mut in_time = Vec::new();
        self.flight.retain(|seq, flight| {
            let keep = !held(*seq);
            freed += if keep { 0 } else { flight.cost };
            in_time.extend(flight.expires.filter(|_| !keep).map(|at| (*seq, at)));
            keep
        });
        for (seq, at) in in_time {
            if self.is_delivered(seq) && !planted!(cx, ExpiredThoughDelivered) {
                self.unexpire(cx, seq, Some(at));
            }
        }
        self.flight_cost -= freed;
        self.overtaken.retain(|body| !held(body.seq));
        self.withheld.retain(|seq| !held(*seq));
        self.credit = if planted!(cx, CreditIgnored) { u32::MAX } else { have.credit };
        let regressed = upto < self.base;
        self.base = upto;
        self.skip = skip;
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

    /// The peer has everything up to `upto`, whose hash is mine.
    fn acknowledged(&mut self, cx: &mut Cx, upto: u64, hash: EntryHash) {
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

    fn prove_range(&mut self, cx: &mut Cx, first: u64, last: u64, hash: EntryHash) {
        // Who lost something names again what it had proven before.
        let first = first.max(self.feed.acked.saturating_add(1));
        let known = self.feed.acked_beyond.iter().any(|range| range.first <= first && last <= range.last);
        if known || last < first {
            return;
        }
        let mut ranges = self.feed.acked_beyond.clone();
        // No room to store the proof: then it is not shown either. The gap before it will close, and prove all.
        if insert_range(&mut ranges, Range { first, last, prev: EntryHash::NONE, hash }) {
            self.prove(cx, first, last);
            self.feed.acked_beyond = ranges;
            self.dirty = true;
        }
    }

    // --- what comes back -------------------------------------------------------------------------------------

    /// What I ask the peer to give back of this feed: everything that it has beyond this.
    pub(crate) fn row(&self, current: bool) -> Option<HaveFeed> {
        let (upto, hash) = if self.given.doubt {
            (self.feed.acked, self.feed.acked_hash)
        } else if !current && !self.feed.closed {
            self.durable
        } else {
            return None;
        };
        self.feed.fork.is_none().then(|| HaveFeed {
            author: Author::Sender,
            epoch: self.feed.epoch,
            upto,
            hash,
            beyond: crate::bounded::List::new(),
        })
    }

    /// An entry that carries my own tag. `true`: it proves that this store was rolled back.
    pub(crate) fn given(&mut self, cx: &mut Cx, seq: u64, entry: Entry, current: bool, ended: bool) -> bool {
        let room = self.given.pending.len() < RUN_ENTRIES && self.given.pending_bytes < 2 * PAGE_BYTES;
        if room {
            self.given.pending_bytes += entry.body.len();
            self.given.pending.push_back((seq, entry));
        }
        self.settle_given(cx, current, ended)
    }

    /// Works off what was given back. `true`: it proves that this store was rolled back.
    pub(crate) fn settle_given(&mut self, cx: &mut Cx, current: bool, ended: bool) -> bool {
        while let Some((seq, entry)) = self.given.pending.front() {
            if self.feed.fork.is_some() || self.given.ended {
                return false;
            }
            let (seq, hash) = (*seq, entry.hash);
            let common = if current || self.given.doubt { self.feed.acked } else { self.feed.head };
            if seq <= common {
                self.given.pop();
            } else if seq <= self.feed.head {
                match self.known_hash(seq) {
                    None => return false,
                    Some(mine) if mine == hash => {
                        self.acknowledged(cx, seq, hash);
                        self.given.pop();
                    }
                    Some(_) => return self.fork(cx),
                }
            } else if current {
                return self.fork(cx);
            } else if self.wants_shown(ended).is_some() || self.wants_first().is_some() {
                return false;
            } else {
                self.take_back(cx);
            }
        }
        self.given.own.clear();
        false
    }

    /// My store was rolled back: what I wrote above the last common number must be issued again.
    fn fork(&mut self, cx: &mut Cx) -> bool {
        let common = self.feed.acked;
        self.feed.acked_beyond.clear();
        self.stop_offering();
        self.clear_ready();
        self.reissue.clear();
        self.held_have = None;
        self.looked_up.clear();
        self.asked = None;
        self.given.doubt = false;
        self.given.equal = false;
        self.given.ended = true;
        self.given.own.clear();
        let issued_again = common < self.feed.head && !planted!(cx, RollbackOvertaken);
        self.feed.fork = issued_again.then_some(common + 1);
        self.dirty = true;
        cx.unsaved.insert(self.peer);
        let epoch = self.feed.epoch;
        cx.promise_next(Promise::Event(Event::RolledBack { peer: self.peer, epoch, common }));
        true
    }

    /// The next entry that this store had lost.
    fn take_back(&mut self, cx: &mut Cx) {
        let Some((seq, mut entry)) = self.given.pop() else { return };
        let is_marker = matches!(entry.dropped, Some(Dropped::Gone { .. }));
        let fits = first_of(seq, &entry) == self.feed.head + 1 && (is_marker || entry.prev == self.feed.hash);
        if !fits {
            // Not what was asked for. It is asked for again.
            self.given.clear();
            return;
        }
        entry.recovered = true;
        let first = first_name(self.feed.epoch, seq, &entry).hash;
        let known = self.given.shown.take().filter(|(hash, _)| *hash == first);
        self.given.first = false;
        let shown = known.and_then(|(_, shown)| shown);
        let order = self.order(seq, entry.lamport);
        let older = |shown: &Shown| OrderKey { epoch: shown.epoch, ..self.order(shown.seq, shown.lamport) };
        match shown.as_ref().map(older) {
            // The same message is shown under a name that comes later.
            Some(other) if other > order => cx.put(&Key::Entry { feed: self.no, seq }, entry.encode()),
            other => {
                self.write(cx, seq, &entry);
                if let Some(other) = other {
                    cx.delete(&Key::Order(other));
                    self.write_shown(cx, first, seq, &entry);
                }
            }
        }
        let first = self.feed.head + 1;
        self.feed.link = self.feed.link.or(entry.link);
        self.feed.head = seq;
        self.feed.hash = entry.hash;
        self.feed.lamport = self.feed.lamport.max(entry.lamport);
        self.feed.acked = seq;
        self.feed.acked_hash = entry.hash;
        self.base = self.base.max(seq);
        self.cursor = self.cursor.map(|cursor| cursor.max(seq + 1));
        self.dirty = true;
        self.given.untold = Some(seq);
        cx.unsaved.insert(self.peer);
        cx.stats.recovered += 1;
        let (peer, epoch, hash) = (self.peer, self.feed.epoch, entry.hash);
        cx.promise_event(Event::Recovered { peer, epoch, first, last: seq });
        if planted!(cx, RestoredShownAsNew) {
            let message = crate::ids::MessageRef { epoch, seq };
            let (kind, claimed, body) = (entry.kind, entry.claimed, entry.body.clone());
            cx.promise_event(Event::Received { peer, arrival: 0, ordinal: 0, message, kind, claimed, body });
        }
        cx.promise(Promise::Offer { peer, feed: self.no, seq, hash });
    }

    /// The peer does not have these of mine any more. Only what cannot be had elsewhere is believed to be gone: it is
    /// no proof of anything.
    pub(crate) fn given_gone(&mut self, cx: &mut Cx, gone: &Gone) {
        let asked = !self.given.doubt && self.feed.fork.is_none() && self.given.pending.is_empty();
        if asked && gone.first == self.feed.head + 1 && gone.last >= gone.first && gone.last <= SEQ_LIMIT {
            let marker = gone_marker(gone.first, gone.hash, self.feed.lamport);
            self.given.pending.push_back((gone.last, marker));
            self.take_back(cx);
        }
    }

    /// The message that comes next has had other names: which of them is shown must be known.
    pub(super) fn wants_shown(&self, ended: bool) -> Option<EntryHash> {
        let (seq, entry) = self.given.pending.front()?;
        let next = self.feed.fork.is_none() && !self.given.doubt && *seq > self.feed.head;
        let first = first_name(self.feed.epoch, *seq, entry);
        let asks = next && entry.kind == Kind::Text && (ended || entry.replaces.is_some());
        if !asks {
            return None;
        }
        self.given.shown.is_none_or(|(hash, _)| hash != first.hash).then_some(first.hash)
    }

    /// It is shown under no later name: whether it is here under its first is the question, and where that would be.
    pub(crate) fn wants_first(&self) -> Option<Head> {
        let (seq, entry) = self.given.pending.front()?;
        let next = self.feed.fork.is_none() && !self.given.doubt && *seq > self.feed.head;
        let first = entry.replaces.filter(|_| next && !self.given.first)?;
        matches!(self.given.shown, Some((hash, None)) if hash == first.hash).then_some(first)
    }

    /// Nothing is where its first name would be.
    pub(crate) const fn no_first(&mut self) {
        self.given.first = true;
    }

    pub(super) fn first_loaded(&mut self, feed: FeedNo, seq: u64, page: Option<&Page>) {
        let first = self.given.pending.front().and_then(|(_, entry)| entry.replaces);
        let found = entries(page).next().map(|(_, entry)| entry);
        self.given.first = true;
        if let Some((first, found)) = first.zip(found).filter(|(first, found)| found.hash == first.hash) {
            let shown = Shown { feed, epoch: first.epoch, seq, lamport: found.lamport, arrival: 0 };
            self.given.shown = Some((first.hash, Some(shown)));
        }
    }

    pub(super) fn shown_loaded(&mut self, hash: EntryHash, page: Option<&Page>) {
        let value = page.and_then(|page| page.records.first()).map(|(_, value)| value);
        self.given.shown = Some((hash, value.and_then(|value| Shown::decode(value).ok())));
    }

    pub(super) fn wants_own_hashes(&self) -> Option<u64> {
        let (seq, _) = self.given.pending.front()?;
        let known = *seq > self.feed.head || *seq <= self.feed.acked || self.known_hash(*seq).is_some();
        (!known && self.feed.fork.is_none()).then_some(*seq)
    }

    pub(super) fn own_hashes(&mut self, from: u64, page: Option<&Page>) {
        self.given.own = entries(page).take(RUN_ENTRIES).map(|(seq, entry)| (seq, entry.hash)).collect();
        // An own entry that cannot be read is not what the peer has: a hash that no entry has says so.
        self.given.own.entry(from).or_insert(EntryHash::NONE);
    }

    // --- issued again ----------------------------------------------------------------------------------------

    /// The entry that is to be issued again next, once it is known whether it was already: then with where.
    pub(crate) fn next_to_reissue(&mut self) -> Option<(u64, Entry, Option<Shown>)> {
        let (seq, entry) = self.reissue.front().filter(|_| self.feed.fork.is_some())?;
        let hash = first_name(self.feed.epoch, *seq, entry).hash;
        let (_, shown) = self.given.shown.take_if(|(known, _)| *known == hash)?;
        let (seq, entry) = self.reissue.pop_front()?;
        Some((seq, entry, shown))
    }

    /// An entry that stands in a newer epoch now is gone from here.
    pub(crate) fn reissued(&mut self, cx: &mut Cx, seq: u64, lamport: u64, expires: Option<Age>) {
        self.unexpire(cx, seq, expires);
        cx.delete(&crate::record::Key::Entry { feed: self.no, seq });
        cx.delete(&crate::record::Key::Order(self.order(seq, lamport)));
        self.reissued_to(seq);
    }

    /// This one cannot be read, so it cannot be issued again. The rest must not wait for it.
    pub(super) fn reissue_skipped(&mut self, cx: &mut Cx, seq: u64) {
        cx.misbehaved(self.me, "an own entry cannot be read from the store");
        cx.unsaved.insert(self.peer);
        cx.delete(&crate::record::Key::Entry { feed: self.no, seq });
        self.reissued_to(seq);
    }

    /// Everything up to `seq` was issued again, or cannot be.
    fn reissued_to(&mut self, seq: u64) {
        self.dirty = true;
        self.feed.fork = (seq < self.feed.head).then_some(seq + 1);
        if self.feed.fork.is_none() {
            self.feed.head = self.feed.acked;
            self.feed.hash = self.feed.acked_hash;
            self.durable = (self.feed.head, self.feed.hash);
        }
    }

    /// Whether what must be issued again still waits for that.
    pub(crate) const fn has_fork(&self) -> bool {
        self.feed.fork.is_some()
    }

    /// A rollback was proven in it.
    pub(super) const fn is_ended(&self) -> bool {
        self.given.ended
    }

    /// Nothing waits to be issued again: goes on from what is common.
    pub(crate) fn resume(&mut self, cx: &mut Cx, ended: bool) {
        self.given.ended = false;
        self.base = self.feed.acked;
        self.skip.clear();
        self.restart();
        self.settle_given(cx, false, ended);
    }
}
