//! What the peer gives back of my feed.
//!
//! An entry that carries my own tag and that my store does not know is proof: my store was rolled back. Then this epoch
//! ends. What I wrote above the last common number is issued again in a newer epoch, unless the peer proved to hold it
//! beyond a gap; what the peer has above it is taken back, beyond a gap too.
//!
//! What neither of us has any more is gone: offered as that like an entry, and written here once the peer says that it
//! does not have it either. So it does not matter what was on its way meanwhile.

use super::Outbox;
use crate::api::{Event, Page};
use crate::assemble::{entries, first_of, gone_marker};
use crate::bounded::List;
use crate::chain::{Placed, fill, first_name, hole, insert_range, is_held, place, place_gone, row};
use crate::cx::{Cx, Promise};
use crate::ids::{EntryHash, FeedNo};
use crate::limits::{LAMPORT_LIMIT, PAGE_BYTES, RUN_ENTRIES, SEQ_LIMIT};
use crate::planted::planted;
use crate::record::{Dropped, Entry, Head, Key, Kind, OrderKey, Range, Record as _, Shown};
use crate::time::Age;
use crate::wire::entry::{Author, Gone};
use crate::wire::frame::{HaveFeed, HaveRange};
use alloc::collections::{BTreeMap, VecDeque};

/// What the peer gives back.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// The peer has something that my store does not.
    pub(super) doubt: bool,
    pub(super) doubt_untold: bool,
    /// Entries with my own tag, and what is gone in between, that wait for the store, or for what must be issued again
    /// first.
    pending: VecDeque<(u64, Entry)>,
    pending_bytes: usize,
    /// Hashes of own entries that were loaded to be compared.
    pub(super) own: BTreeMap<u64, EntryHash>,
    /// A rollback was proven: what follows waits until the newer epoch is there.
    ended: bool,
    /// Which entry is shown for the message that comes next, by the hash of its first name.
    shown: Option<(EntryHash, Option<Shown>)>,
    /// It was also looked for under its first name.
    first: bool,
    /// The highest number that was taken back, if the peer was not told of it.
    pub(super) untold: Option<u64>,
    /// Both had the same once: if it grows after that, somebody else writes it.
    pub(super) equal: bool,
    pub(super) told: bool,
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

    fn push(&mut self, seq: u64, entry: Entry) {
        if self.pending.len() < RUN_ENTRIES && self.pending_bytes < 2 * PAGE_BYTES {
            self.pending_bytes += entry.body.len();
            self.pending.push_back((seq, entry));
        }
    }

    fn pop(&mut self) -> Option<(u64, Entry)> {
        let (seq, entry) = self.pending.pop_front()?;
        self.pending_bytes -= entry.body.len();
        Some((seq, entry))
    }
}

const fn is_gone(entry: &Entry) -> bool {
    matches!(entry.dropped, Some(Dropped::Gone { .. }))
}

impl Outbox {
    /// What I ask the peer to give back of this feed: everything that it has beyond this.
    pub(crate) fn row(&self, current: bool) -> Option<HaveFeed> {
        let author = Author::Sender;
        let said = if self.given.doubt {
            // In doubt everything is compared.
            let (upto, hash, epoch) = (self.feed.acked, self.feed.acked_hash, self.feed.epoch);
            HaveFeed { author, epoch, upto, hash, beyond: List::new(), gone: List::new() }
        } else if !current && !self.feed.closed {
            let mut said = row(author, &self.feed, self.durable);
            for range in self.feed.beyond.iter() {
                let range = HaveRange { first: range.first, last: range.last, hash: range.hash };
                let _there_is_room = said.beyond.push(range);
            }
            said
        } else {
            return None;
        };
        self.feed.fork.is_none().then_some(said)
    }

    /// Whether the peer has something of this that I would ask for.
    pub(crate) fn lacks(&self, has: &HaveFeed) -> bool {
        let Some(row) = self.row(false) else { return false };
        let mine = |range: &HaveRange| {
            let within = |own: &HaveRange| own.first <= range.first && range.last <= own.last;
            range.last <= row.upto || row.beyond.iter().any(within)
        };
        // What is gone there, and neither here nor known to be gone.
        let lost = |(first, _): &(u64, u64)| !is_held(&self.feed, *first);
        row.upto < has.upto || !has.beyond.iter().all(mine) || has.gone.iter().any(lost)
    }

    /// An entry that carries my own tag. `true`: it proves that this store was rolled back.
    pub(crate) fn given(&mut self, cx: &mut Cx, seq: u64, entry: Entry, current: bool, ended: bool) -> bool {
        self.given.push(seq, entry);
        self.settle_given(cx, current, ended)
    }

    /// The peer does not have these of mine. That is no proof of anything, and believed only of what I do not have.
    pub(crate) fn given_gone(&mut self, cx: &mut Cx, gone: &Gone, ended: bool) -> bool {
        let first = gone.first.max(self.feed.head.saturating_add(1));
        if first > gone.last || gone.last > SEQ_LIMIT || gone.lamport > LAMPORT_LIMIT {
            return false;
        }
        self.given.push(gone.last, gone_marker(first, gone.hash, gone.lamport));
        self.settle_given(cx, false, ended)
    }

    /// Works off what was given back. `true`: it proves that this store was rolled back.
    pub(crate) fn settle_given(&mut self, cx: &mut Cx, current: bool, ended: bool) -> bool {
        while let Some((seq, entry)) = self.given.pending.front() {
            if self.feed.fork.is_some() || self.given.ended {
                return false;
            }
            let (seq, hash, prev, gone) = (*seq, entry.hash, entry.prev, is_gone(entry));
            if let Some(first) = hole(&self.feed, seq).map(|hole| hole.first).filter(|_| !gone) {
                if first != seq {
                    // Not what comes next there: it was told, and will be given again.
                    self.given.pop();
                    continue;
                }
                if self.wants_shown(ended).is_some() || self.wants_first().is_some() {
                    return false;
                }
                self.fill_hole(cx);
            } else if seq <= self.feed.acked
                || (gone && (current || self.given.doubt || seq <= self.feed.head))
            {
                self.given.pop();
            } else if seq <= self.feed.head {
                match self.known_hash(seq) {
                    None => return false,
                    Some(mine) if mine == hash && seq == self.feed.acked + 1 => {
                        self.acknowledged(cx, seq, hash);
                        self.given.pop();
                    }
                    Some(mine) if mine == hash => {
                        self.prove_range(cx, seq, seq, hash);
                        self.given.pop();
                    }
                    Some(_) => return self.fork(cx, seq, prev, hash),
                }
            } else if current {
                return self.fork(cx, seq, prev, hash);
            } else if self.given.doubt && self.feed.acked < self.feed.head {
                // Not what was asked for.
                self.given.clear();
            } else {
                self.given.doubt = false;
                if self.wants_shown(ended).is_some() || self.wants_first().is_some() {
                    return false;
                }
                if self.take_back(cx) {
                    return true;
                }
            }
        }
        self.given.own.clear();
        false
    }

    /// My store was rolled back: what I wrote above the last common number must be issued again. What proves it stands at
    /// `seq`, with the hashes of the one before and of itself.
    fn fork(&mut self, cx: &mut Cx, seq: u64, prev: EntryHash, hash: EntryHash) -> bool {
        let common = self.feed.acked;
        // What the peer has beyond a gap stays where it is, but for what this contradicts.
        self.feed.acked_beyond.retain(|range| {
            let below = range.last.saturating_add(1) == seq && range.hash != prev;
            let above = range.first == seq.saturating_add(1) && range.prev != hash;
            !below && !above && !(range.first..=range.last).contains(&seq)
        });
        self.feed.holes.retain(|hole| hole.last <= common);
        if let Some(last) = self.feed.beyond.last() {
            (self.feed.head, self.feed.hash) = (last.last, last.hash);
        }
        self.feed.beyond.clear();
        self.stop_offering();
        self.clear_ready();
        self.reissue.clear();
        self.claim = None;
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

    /// The next that this store had lost. `true`: it does not fit what is here, and proves one more rollback.
    fn take_back(&mut self, cx: &mut Cx) -> bool {
        let Some((seq, mut entry)) = self.given.pop() else { return false };
        let first = first_of(seq, &entry);
        let range = Range { first, last: seq, prev: entry.prev, hash: entry.hash };
        let mut proven = self.feed.acked_beyond.clone();
        if is_held(&self.feed, seq) || !insert_range(&mut proven, range) {
            return false;
        }
        let had_gaps = !self.feed.beyond.is_empty();
        let placed = if is_gone(&entry) {
            let fits = place_gone(&mut self.feed, first, seq, entry.hash, entry.lamport);
            if fits { Placed::Head } else { Placed::NoRoom }
        } else {
            place(&mut self.feed, seq, entry.prev, entry.hash)
        };
        match placed {
            Placed::Head | Placed::Beyond => {}
            // What is here was not acknowledged, or not by who has this.
            Placed::Conflict if seq > self.feed.acked + 1 => {
                return self.fork(cx, seq, range.prev, range.hash);
            }
            Placed::Held | Placed::Conflict | Placed::NoRoom => {
                self.given.clear();
                return false;
            }
        }
        entry.recovered = true;
        self.store_given(cx, seq, &entry);
        if !is_gone(&entry) {
            self.feed.lamport = self.feed.lamport.max(entry.lamport);
        }
        self.feed.link = self.feed.link.or(entry.link);
        self.feed.acked_beyond = proven;
        self.join_proven();
        self.base = self.base.max(self.feed.acked);
        self.skip = self.feed.acked_beyond.iter().map(|range| (range.first, range.last)).collect();
        self.free_flight(cx);
        if had_gaps && placed == Placed::Head && self.cursor.is_some() {
            // What is gone before the next range begins elsewhere now.
            self.restart();
        } else {
            self.cursor = self.cursor.map(|cursor| cursor.max(self.base + 1));
        }
        self.dirty = true;
        self.given.untold = Some(seq);
        cx.unsaved.insert(self.peer);
        self.tell_given(cx, first, seq, entry);
        false
    }

    /// The next was gone here, and the peer has it: another copy of this profile wrote it.
    fn fill_hole(&mut self, cx: &mut Cx) {
        let Some((seq, mut entry)) = self.given.pop() else { return };
        let Some(was) = fill(&mut self.feed, seq, entry.prev, entry.hash) else { return };
        if was.lamport > 0 && was.last > seq {
            let marker = Entry { recovered: true, ..gone_marker(seq + 1, was.hash, was.lamport) };
            cx.put(&Key::Entry { feed: self.no, seq: was.last }, marker.encode());
        } else if was.lamport > 0 {
            cx.delete(&Key::Order(self.order(seq, was.lamport)));
        }
        entry.recovered = true;
        self.store_given(cx, seq, &entry);
        self.feed.lamport = self.feed.lamport.max(entry.lamport);
        self.dirty = true;
        self.given.untold = Some(seq);
        cx.unsaved.insert(self.peer);
        self.tell_given(cx, seq, seq, entry);
    }

    /// What the peer holds beyond a gap and what it holds before it may have met.
    pub(super) fn join_proven(&mut self) {
        while let Some(next) = self.feed.acked_beyond.first().copied()
            && next.first <= self.feed.acked.saturating_add(1)
        {
            (self.feed.acked, self.feed.acked_hash) = (next.last, next.hash);
            self.feed.acked_beyond.remove(0);
        }
    }

    /// Writes what came back, with what finds it unless the same message is shown under a name that comes later.
    fn store_given(&mut self, cx: &mut Cx, seq: u64, entry: &Entry) {
        let first = first_name(self.feed.epoch, seq, entry).hash;
        let known = self.given.shown.take().filter(|(hash, _)| *hash == first);
        self.given.first = false;
        let shown = known.and_then(|(_, shown)| shown);
        let order = self.order(seq, entry.lamport);
        let older = |shown: &Shown| OrderKey { epoch: shown.epoch, ..self.order(shown.seq, shown.lamport) };
        match shown.as_ref().map(older) {
            Some(other) if other > order => cx.put(&Key::Entry { feed: self.no, seq }, entry.encode()),
            other => {
                self.write(cx, seq, entry);
                if let Some(other) = other {
                    cx.delete(&Key::Order(other));
                    self.write_shown(cx, first, seq, entry);
                }
            }
        }
    }

    /// Promises to tell of what came back, here and there, once it is durable.
    fn tell_given(&self, cx: &mut Cx, first: u64, last: u64, entry: Entry) {
        let (peer, epoch, feed) = (self.peer, self.feed.epoch, self.no);
        if is_gone(&entry) {
            cx.promise_event(Event::Gone { peer, epoch, first, last });
        } else {
            cx.stats.recovered += 1;
            cx.promise_event(Event::Recovered { peer, epoch, first, last });
        }
        if planted!(cx, RestoredShownAsNew) {
            let message = crate::ids::MessageRef { epoch, seq: last };
            let (kind, claimed, body) = (entry.kind, entry.claimed, entry.body);
            cx.promise_event(Event::Received { peer, arrival: 0, ordinal: 0, message, kind, claimed, body });
        }
        // The head may have joined what was beyond.
        let is_head = last <= self.feed.head;
        let (seq, hash) = if is_head { (self.feed.head, self.feed.hash) } else { (last, entry.hash) };
        cx.promise(Promise::Offer { peer, feed, seq, hash });
    }

    /// What comes next is a message that is not here, as far as its number tells.
    fn next_lost(&self) -> Option<(u64, &Entry)> {
        let (seq, entry) = self.given.pending.front()?;
        let here = is_held(&self.feed, *seq) && hole(&self.feed, *seq).is_none();
        let lost = self.feed.fork.is_none() && !self.given.doubt && !here;
        lost.then_some((*seq, entry))
    }

    /// The message that comes next has had other names: which of them is shown must be known.
    pub(super) fn wants_shown(&self, ended: bool) -> Option<EntryHash> {
        let (seq, entry) = self.next_lost()?;
        let first = first_name(self.feed.epoch, seq, entry);
        if entry.kind != Kind::Text || !(ended || entry.replaces.is_some()) {
            return None;
        }
        self.given.shown.is_none_or(|(hash, _)| hash != first.hash).then_some(first.hash)
    }

    /// It is shown under no later name: whether it is here under its first is the question, and where that would be.
    pub(crate) fn wants_first(&self) -> Option<Head> {
        let (_, entry) = self.next_lost()?;
        let first = entry.replaces.filter(|_| !self.given.first)?;
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
        let there = |(first, found): &(Head, Entry)| found.hash == first.hash && !is_gone(found);
        if let Some((first, found)) = first.zip(found).filter(there) {
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
        let known = *seq > self.feed.head
            || *seq <= self.feed.acked
            || hole(&self.feed, *seq).is_some()
            || self.known_hash(*seq).is_some();
        (!known && self.feed.fork.is_none()).then_some(*seq)
    }

    pub(super) fn own_hashes(&mut self, from: u64, page: Option<&Page>) {
        self.given.own = entries(page).take(RUN_ENTRIES).map(|(seq, entry)| (seq, entry.hash)).collect();
        // An own entry that cannot be read is not what the peer has: a hash that no entry has says so.
        self.given.own.entry(from).or_insert(EntryHash::NONE);
    }

    // --- issued again ----------------------------------------------------------------------------------------

    /// A page of what must be issued again from `from` on. What the peer holds beyond a gap is not: it stays.
    pub(super) fn reissue_loaded(&mut self, cx: &mut Cx, from: u64, page: Option<&Page>) {
        let found: VecDeque<(u64, Entry)> = entries(page).collect();
        let Some(last) = found.back().map(|(seq, _)| *seq) else {
            if page.is_some_and(|page| page.records.is_empty()) {
                // There never was anything: it was lost before.
                self.reissued_to(cx, Self::run_end(from, self.feed.head));
            } else {
                self.reissue_skipped(cx, from);
            }
            return;
        };
        for (seq, entry) in found {
            let range = Range { first: first_of(seq, &entry), last: seq, prev: entry.prev, hash: entry.hash };
            if is_gone(&entry) {
                self.forget(cx, seq, entry.lamport);
            } else if !self.stays(range) {
                self.reissue.push_back((seq, entry));
            }
        }
        if self.reissue.is_empty() {
            self.reissued_to(cx, last);
        }
    }

    /// What the peer holds beyond a gap stays, as far as there is room to remember it. `range`: one entry, and they come in
    /// order.
    fn stays(&mut self, range: Range) -> bool {
        let proven =
            self.feed.acked_beyond.iter().find(|proven| (proven.first..=proven.last).contains(&range.last));
        let Some(proven) = proven.copied() else { return false };
        let before =
            self.feed.beyond.iter_mut().find(|kept| proven.first <= kept.first && kept.last <= proven.last);
        self.dirty = true;
        if let Some(before) = before {
            // What is missing in between was deleted here.
            if before.last < range.last {
                (before.last, before.hash) = (range.last, range.hash);
            }
            return true;
        }
        insert_range(&mut self.feed.beyond, range)
    }

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
        self.forget(cx, seq, lamport);
        self.reissued_to(cx, seq);
    }

    fn forget(&self, cx: &mut Cx, seq: u64, lamport: u64) {
        cx.delete(&Key::Entry { feed: self.no, seq });
        cx.delete(&Key::Order(self.order(seq, lamport)));
    }

    /// This one cannot be read, so it cannot be issued again. The rest must not wait for it.
    fn reissue_skipped(&mut self, cx: &mut Cx, seq: u64) {
        cx.misbehaved(self.me, "an own entry cannot be read from the store");
        cx.delete(&Key::Entry { feed: self.no, seq });
        self.reissued_to(cx, seq);
    }

    /// Everything up to `seq` was issued again, or cannot be, or stays.
    fn reissued_to(&mut self, cx: &mut Cx, seq: u64) {
        self.dirty = true;
        cx.unsaved.insert(self.peer);
        self.feed.fork = (seq < self.feed.head).then_some(seq.saturating_add(1));
        if self.feed.fork.is_none() {
            self.feed.head = self.feed.acked;
            self.feed.hash = self.feed.acked_hash;
            self.feed.acked_beyond = self.feed.beyond.clone();
            self.durable = (self.feed.head, self.feed.hash);
            if self.feed.head == 0 {
                // The first entry named it, and is not here any more. The peer's may name another.
                self.feed.link = None;
            }
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
        self.skip = self.feed.acked_beyond.iter().map(|range| (range.first, range.last)).collect();
        self.restart();
        self.settle_given(cx, false, ended);
    }
}
