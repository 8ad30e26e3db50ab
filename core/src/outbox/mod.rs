//! My feed of one epoch towards one peer: numbers what is written, offers what is durable, and believes an
//! acknowledgement only if its hash is mine (`judge`). What a rollback lost comes back from the peer (`given`).
//!
//! In memory is only what waits to be offered next (`ready`, a run without holes) and what is on the way (`flight`:
//! numbers, costs and hashes). Everything else is on disk and is loaded by page when its turn comes.
//!
//! A body in chunks is overtaken by later small entries: the peer sees a gap for a moment rather than a queue that
//! stands still. On a stream nothing that was handed over is lost while the session lives, so offers are repeated
//! only when a session is new or when nothing was answered for a backoff.
//!
//! What the user took back is offered only after the peer said what it has: then it is known whether it came all the
//! same, and if it did not, that it never will.

mod given;
mod judge;

use crate::api::{Event, Gauge, KeyRange, Page};
use crate::assemble::{Packer, entries, first_of, gone_marker};
use crate::backoff::Backoff;
use crate::bounded::List;
use crate::chain::{FeedKey, first_name, seal_own};
use crate::cx::{Cx, OutboxAsked as Asked, Promise};
use crate::ids::{ConversationId, EntryHash, FeedNo, MessageRef, PeerId};
use crate::limits::{
    CREDIT_BYTES, ENTRY_COST, ENTRY_HEADS, HOLES, IN_FLIGHT, INLINE_BODY_BYTES, OVERTAKEN, PAGE_BYTES,
    PLAINTEXT_BYTES, READY_BYTES, RUN_ENTRIES,
};
use crate::planted::planted;
use crate::record::{Dropped, Entry, EpochLink, Feed, Head, Key, OrderKey, Place, Range, Record as _, Shown};
use crate::time::{Age, Duration};
use crate::wire::entry::Author;
use crate::wire::frame::Have;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use bytes::Bytes;

/// On the way to the peer.
#[derive(Debug, Clone, Copy)]
struct Flight {
    cost: u32,
    hash: EntryHash,
    expires: Option<Age>,
}

/// A have-vector that waits for hashes of own entries, and those that were read. Only the newest counts.
#[derive(Debug)]
struct Claim {
    have: Have,
    current: bool,
    hashes: judge::Hashes,
}

/// A body that travels in chunks.
#[derive(Debug)]
struct Overtaken {
    seq: u64,
    entry: Entry,
    /// Bytes of the body that were sent; `None`: not even announced.
    sent: Option<u32>,
}

/// What is written, before it has its place.
pub(crate) struct Draft {
    pub(crate) caller: crate::ids::CallerId,
    pub(crate) claimed: crate::time::WallClock,
    pub(crate) body: Bytes,
    pub(crate) body_hash: EntryHash,
    pub(crate) body_len: u32,
    pub(crate) dropped: Option<Dropped>,
    pub(crate) expires: Option<Age>,
    pub(crate) replaces: Option<Head>,
    pub(crate) lamport: u64,
}

#[derive(Debug)]
pub(crate) struct Outbox {
    me: PeerId,
    peer: PeerId,
    key: FeedKey,
    no: FeedNo,
    feed: Feed,
    dirty: bool,
    /// Highest number on stable storage, and its hash.
    durable: (u64, EntryHash),
    ready: VecDeque<(u64, Entry)>,
    ready_bytes: usize,
    flight: BTreeMap<u64, Flight>,
    flight_cost: u32,
    overtaken: List<Overtaken, OVERTAKEN>,
    /// The next number to offer in this session; `None` while there is no session.
    cursor: Option<u64>,
    credit: u32,
    /// What the newest have-vector of this session acknowledged without holes, and beyond.
    base: u64,
    skip: Vec<(u64, u64)>,
    /// What the newest have-vector of this session says to be gone there, each with the hash before it.
    gone: List<(u64, u64, EntryHash), HOLES>,
    /// The peer said in this session what it has.
    heard: bool,
    asked: Option<(Asked, u64)>,
    claim: Option<Claim>,
    backoff: Backoff,
    /// An entry that was taken back waits until it is stored that the peer does not have it.
    settling: Option<u64>,
    /// Highest number whose body was offered in this session, and in others that the peer may still read.
    offered: u64,
    elsewhere: u64,
    /// Numbers below that whose bodies were overtaken, and did not go out whole.
    withheld: List<u64, { 2 * OVERTAKEN }>,
    /// The entry that comes next, if its time is over: it is not offered as it is.
    overdue: Option<u64>,
    /// The page that is being loaded was asked for before the user took something away.
    stale: bool,
    /// A page of what must be issued again.
    reissue: VecDeque<(u64, Entry)>,
    given: given::Given,
}

impl Outbox {
    pub(crate) fn new(
        me: PeerId,
        peer: PeerId,
        conversation: ConversationId,
        no: FeedNo,
        feed: Feed,
    ) -> Self {
        let durable = (feed.head, feed.hash);
        Self {
            me,
            peer,
            key: FeedKey::new(&conversation, &me, &feed.epoch),
            no,
            feed,
            dirty: false,
            durable,
            ready: VecDeque::new(),
            ready_bytes: 0,
            flight: BTreeMap::new(),
            flight_cost: 0,
            overtaken: List::new(),
            cursor: None,
            credit: 0,
            base: 0,
            skip: Vec::new(),
            gone: List::new(),
            heard: false,
            asked: None,
            claim: None,
            backoff: Backoff::default(),
            settling: None,
            offered: 0,
            elsewhere: 0,
            withheld: List::new(),
            overdue: None,
            stale: false,
            reissue: VecDeque::new(),
            given: given::Given::default(),
        }
    }

    pub(crate) const fn feed(&self) -> &Feed {
        &self.feed
    }

    pub(crate) const fn no(&self) -> FeedNo {
        self.no
    }

    pub(crate) fn unacknowledged(&self) -> u64 {
        let below = self.feed.acked_beyond.iter().filter(|range| range.last <= self.feed.head);
        let beyond: u64 = below.map(|range| range.last - range.first + 1).sum();
        self.feed.head.saturating_sub(self.feed.acked).saturating_sub(beyond)
    }

    pub(crate) fn is_delivered(&self, seq: u64) -> bool {
        seq <= self.feed.acked
            || self.feed.acked_beyond.iter().any(|range| (range.first..=range.last).contains(&seq))
    }

    /// Offers nothing: there is no session, or something must be issued again first.
    pub(crate) const fn is_stopped(&self) -> bool {
        self.cursor.is_none()
    }

    /// Nothing was ever written in it, as far as anybody knows.
    pub(crate) const fn is_unused(&self) -> bool {
        self.feed.head == 0 && !self.is_ended()
    }

    /// The peer has all of it, and so have I: it is told of in one hash with others.
    pub(crate) fn set_closed(&mut self, closed: bool) {
        self.dirty |= self.feed.closed != closed;
        self.feed.closed = closed;
    }

    /// Appends an entry. It may be on the wire once its batch is durable.
    pub(crate) fn append(
        &mut self,
        cx: &mut Cx,
        draft: Draft,
        seen: &[Head],
        link: Option<EpochLink>,
    ) -> u64 {
        let seq = self.feed.head + 1;
        let link = link.filter(|_| seq == 1);
        let heads: List<Head, ENTRY_HEADS> =
            List::of(seen.iter().filter(|head| !self.feed.heads_named.contains(head)).copied());
        let mut entry = Entry {
            kind: crate::record::Kind::Text,
            prev: self.feed.hash,
            hash: EntryHash::NONE,
            tag: crate::ids::Tag([0; 16]),
            lamport: draft.lamport,
            claimed: draft.claimed,
            caller: draft.caller,
            heads,
            link,
            replaces: draft.replaces,
            arrival: 0,
            recovered: false,
            dropped: draft.dropped,
            expires: draft.expires,
            body_hash: draft.body_hash,
            body_len: draft.body_len,
            body: draft.body,
        };
        seal_own(&cx.identity, &self.key, seq, &mut entry);
        self.write(cx, seq, &entry);
        self.feed.head = seq;
        self.feed.hash = entry.hash;
        self.feed.lamport = entry.lamport;
        self.feed.heads_named = List::of(seen.iter().copied());
        self.feed.link = self.feed.link.or(link);
        self.dirty = true;
        let hash = entry.hash;
        let next_ready = self.ready.back().map_or(self.cursor, |(last, _)| Some(last + 1));
        if next_ready == Some(seq) && self.ready_bytes + entry.body.len() <= READY_BYTES {
            self.push_ready(seq, entry);
        }
        cx.promise(Promise::Offer { peer: self.peer, feed: self.no, seq, hash });
        seq
    }

    /// Writes an entry with everything that finds it.
    fn write(&self, cx: &mut Cx, seq: u64, entry: &Entry) {
        if let Some(first) = entry.replaces {
            self.write_shown(cx, first.hash, seq, entry);
        }
        self.write_found(cx, seq, entry);
    }

    /// Writes that of all entries that stand for the same message this one is shown.
    fn write_shown(&self, cx: &mut Cx, first: EntryHash, seq: u64, entry: &Entry) {
        let conversation = self.feed.conversation;
        let (feed, epoch, lamport) = (self.no, self.feed.epoch, entry.lamport);
        let shown = Shown { feed, epoch, seq, lamport, arrival: 0 };
        cx.put(&Key::Shown { conversation, hash: first }, shown.encode());
    }

    fn write_found(&self, cx: &mut Cx, seq: u64, entry: &Entry) {
        let place = Place { feed: self.no, seq }.encode();
        cx.put(&Key::Entry { feed: self.no, seq }, entry.encode());
        cx.put(&Key::Order(self.order(seq, entry.lamport)), place.clone());
        if entry.kind == crate::record::Kind::Text {
            let key = Key::Caller { conversation: self.feed.conversation, caller: entry.caller };
            cx.put(&key, place.clone());
        }
        if let Some(at) = entry.expires.filter(|_| entry.dropped.is_none()) {
            cx.put(&Key::Expiry { at, feed: self.no, seq }, place);
        }
    }

    /// This one does not expire any more.
    pub(crate) fn unexpire(&self, cx: &mut Cx, seq: u64, expires: Option<Age>) {
        if let Some(at) = expires {
            cx.delete(&Key::Expiry { at, feed: self.no, seq });
        }
    }

    pub(crate) fn order(&self, seq: u64, lamport: u64) -> OrderKey {
        OrderKey {
            conversation: self.feed.conversation,
            lamport,
            rank: u8::from(self.me > self.peer),
            epoch: self.feed.epoch,
            seq,
        }
    }

    /// Writes heads and cursors into the batch that is about to close.
    pub(crate) fn write_dirty(&mut self, cx: &mut Cx) {
        if core::mem::take(&mut self.dirty) {
            cx.put(&Key::Feed(self.no), self.feed.encode());
        }
    }

    /// Entries up to `seq` are durable now. `true`: they were given back, and the peer should know.
    pub(crate) fn durable(&mut self, seq: u64, hash: EntryHash) -> bool {
        if seq > self.durable.0 && seq <= self.feed.head {
            self.durable = (seq, hash);
        }
        self.settling = self.settling.filter(|waits| *waits != seq);
        let untold = self.given.untold;
        self.given.untold = untold.filter(|last| *last > seq);
        untold.is_some()
    }

    // --- session ---------------------------------------------------------------------------------------------

    /// A session carries the messages from now on. What the peer proved to have need not be offered; the rest is, at
    /// once, without waiting for its have-vector.
    /// `elsewhere`: the highest number whose body was offered in another session that the peer may still read.
    pub(crate) fn begin(&mut self, elsewhere: u64) {
        self.end();
        self.elsewhere = elsewhere;
        self.base = self.feed.acked;
        self.skip = self.feed.acked_beyond.iter().map(|range| (range.first, range.last)).collect();
        self.credit = CREDIT_BYTES;
        self.restart();
    }

    /// There is no session any more: nothing is on the way.
    pub(crate) fn end(&mut self) {
        self.stop_offering();
        self.heard = false;
        self.gone.clear();
        self.claim = None;
        self.asked = None;
        self.backoff.reset();
        (self.offered, self.elsewhere) = (0, 0);
        self.withheld.clear();
        self.stale = false;
        self.given.session_over();
    }

    fn stop_offering(&mut self) {
        self.flight.clear();
        self.flight_cost = 0;
        while let Some(body) = self.overtaken.first() {
            self.withhold(body.seq);
            self.overtaken.remove(0);
        }
        self.cursor = None;
    }

    /// Offers everything again that the peer is not known to have.
    fn restart(&mut self) {
        self.stop_offering();
        let from = self.base + 1;
        self.cursor = Some(from);
        if self.ready.front().is_some_and(|(seq, entry)| first_of(*seq, entry) != from) {
            self.clear_ready();
        }
    }

    /// Nothing was answered for a backoff: offer again.
    pub(crate) fn retry(&mut self) {
        if self.cursor.is_some() && !self.flight.is_empty() {
            self.restart();
        }
    }

    /// How long to wait for an answer before offering again; `None` if nothing is on the way.
    pub(crate) fn retry_after(&mut self, cx: &mut Cx) -> Option<Duration> {
        (self.cursor.is_some() && !self.flight.is_empty())
            .then(|| crate::limits::RETRY_FIRST + self.backoff.next(&mut cx.rng))
    }

    pub(crate) fn has_flight(&self) -> bool {
        !self.flight.is_empty()
    }

    pub(crate) const fn flight_cost(&self) -> u32 {
        self.flight_cost
    }

    pub(crate) fn held(&self) -> [Gauge; 2] {
        let ready = Gauge::new("bytes of entries ready to be offered", self.ready_bytes, READY_BYTES);
        [ready, Gauge::new("entries on their way", self.flight.len(), IN_FLIGHT)]
    }

    fn push_ready(&mut self, seq: u64, entry: Entry) {
        self.ready_bytes += entry.body.len();
        self.ready.push_back((seq, entry));
    }

    fn pop_ready(&mut self) -> Option<(u64, Entry)> {
        let (seq, entry) = self.ready.pop_front()?;
        self.ready_bytes -= entry.body.len();
        Some((seq, entry))
    }

    fn clear_ready(&mut self) {
        self.ready.clear();
        self.ready_bytes = 0;
    }

    /// Moves the cursor over what the peer has, and drops what is ready for numbers that are past.
    fn settle_cursor(&mut self) -> Option<u64> {
        if self.feed.fork.is_some() {
            return None;
        }
        let mut cursor = self.cursor?;
        while let Some((_, last)) = self.skip.iter().find(|(first, last)| (*first..=*last).contains(&cursor))
        {
            cursor = last + 1;
        }
        self.cursor = Some(cursor);
        while self.ready.front().is_some_and(|(seq, _)| *seq < cursor) {
            self.pop_ready();
        }
        if self.ready.front().is_some_and(|(seq, entry)| first_of(*seq, entry) > cursor) {
            self.clear_ready();
        }
        Some(cursor)
    }

    // --- questions -------------------------------------------------------------------------------------------

    /// What must be loaded before anything can go on, if no question is open yet. `left`: what the credit leaves; `ended`:
    /// this epoch ended, and what was in it may have been issued again.
    pub(crate) fn wants_load(&mut self, left: u32, ended: bool) -> Option<(Asked, KeyRange)> {
        if self.asked.is_some() {
            return None;
        }
        let shown = |hash| {
            let key = Key::Shown { conversation: self.feed.conversation, hash };
            Some((Asked::Shown { hash }, KeyRange::new(&key, &key, 1)))
        };
        if let Some(from) = self.feed.fork {
            return match self.reissue.front() {
                Some((seq, entry)) => shown(first_name(self.feed.epoch, *seq, entry).hash),
                None => Some((Asked::Reissue { from }, self.range(from, self.feed.head))),
            };
        }
        if let Some(seq) = self.wants_hash() {
            return Some((Asked::Hash { seq }, self.range(seq, seq)));
        }
        if let Some(hash) = self.wants_shown(ended) {
            return shown(hash);
        }
        if let Some(from) = self.wants_own_hashes() {
            return Some((Asked::Own { from }, self.range(from, self.feed.head)));
        }
        let cursor = self.settle_cursor()?;
        if cursor > self.last() || !self.ready.is_empty() || self.credit_left(left) < ENTRY_COST {
            return None;
        }
        let first = self.gap(cursor).map_or(cursor, |next| next.first);
        Some((Asked::Entries { from: cursor }, self.range(first, self.last())))
    }

    /// The highest number that may be offered.
    fn last(&self) -> u64 {
        self.feed.beyond.last().map_or(self.durable.0, |range| range.last)
    }

    /// If this number is in a gap of the feed: what comes after the gap.
    fn gap(&self, seq: u64) -> Option<Range> {
        let next = self.feed.beyond.iter().find(|range| seq <= range.last)?;
        (seq > self.feed.head && seq < next.first).then_some(*next)
    }

    /// Where the page ends that begins here.
    fn run_end(first: u64, last: u64) -> u64 {
        last.min(first.saturating_add(RUN_ENTRIES as u64))
    }

    fn range(&self, first: u64, last: u64) -> KeyRange {
        let last = Self::run_end(first, last);
        let page = u32::try_from(PAGE_BYTES).unwrap_or(u32::MAX);
        let key = |seq| Key::Entry { feed: self.no, seq };
        KeyRange::new(&key(first), &key(last), page)
    }

    pub(crate) const fn is_asking(&self) -> bool {
        self.asked.is_some()
    }

    pub(crate) fn asked(&mut self, asked: Asked, turn: u64) {
        self.asked = Some((asked, turn));
    }

    /// The answer to a question, if it is still open. `None` as page: the range is damaged. `true`: the peer's
    /// have-vector answered something.
    pub(crate) fn loaded(&mut self, cx: &mut Cx, (asked, turn): (&Asked, u64), page: Option<&Page>) -> bool {
        if self.asked.as_ref().map(|(what, turn)| (what, *turn)) != Some((asked, turn)) {
            return false;
        }
        self.asked = None;
        match asked {
            Asked::Hash { seq } => {
                let hash = entries(page).next().filter(|(at, _)| at == seq).map(|(_, entry)| entry.hash);
                self.hash_loaded(cx, *seq, hash)
            }
            Asked::Shown { hash } => {
                self.shown_loaded(*hash, page);
                false
            }
            Asked::First { feed, seq } => {
                self.first_loaded(*feed, *seq, page);
                false
            }
            Asked::Own { from } => {
                self.own_hashes(*from, page);
                false
            }
            Asked::Entries { from } => {
                if !core::mem::take(&mut self.stale) {
                    self.entries_loaded(cx, *from, page);
                }
                false
            }
            Asked::Reissue { from } => {
                self.reissue_loaded(cx, *from, page);
                false
            }
        }
    }

    fn entries_loaded(&mut self, cx: &mut Cx, from: u64, page: Option<&Page>) {
        if !self.ready.is_empty() || self.cursor.is_none() {
            return;
        }
        let mut next = from;
        for (seq, entry) in entries(page) {
            let first = first_of(seq, &entry);
            if let Some(after) = self.gap(next) {
                // What a rollback lost, and the peer does not have either.
                self.push_ready(after.first - 1, gone_marker(next, after.prev, entry.lamport));
                next = after.first;
            }
            if first > next {
                // What was deleted is gone; what follows it says which hash it ended with.
                self.push_ready(first - 1, gone_marker(next, entry.prev, entry.lamport));
            }
            next = seq + 1;
            self.push_ready(seq, entry);
        }
        if next == from && self.cursor == Some(from) {
            // This entry cannot be read. What comes after it must not wait for it: the peer shows a gap.
            self.cursor = Some(self.gap(from).map_or(from, |after| after.first) + 1);
            cx.misbehaved(self.me, "an own entry cannot be read from the store");
        }
    }

    // --- offers ----------------------------------------------------------------------------------------------

    /// The peer says how much it takes; how much we keep track of, we say.
    fn credit_left(&self, left: u32) -> u32 {
        if self.flight.len() >= IN_FLIGHT {
            0
        } else {
            left.min(self.credit.saturating_sub(self.flight_cost))
        }
    }

    /// Whether the entry that comes next may be offered now. Where its body went before on this stream, the peer has
    /// that when it sees what is left.
    fn may_offer(&self, seq: u64, entry: &Entry) -> bool {
        let waits = match entry.dropped {
            Some(Dropped::Cancelled { settled } | Dropped::Expired { settled }) => {
                !settled && !self.was_offered(seq) && !self.is_delivered(seq)
            }
            Some(Dropped::Deleted | Dropped::ByAuthor | Dropped::Gone { .. }) | None => false,
        };
        !waits && self.settling.is_none() && self.overdue.is_none()
    }

    /// Whether `fill` would write something.
    pub(crate) fn wants_record(&mut self, left: u32) -> bool {
        if self
            .overtaken
            .iter()
            .any(|body| self.cursor.is_some() && body.sent.is_none_or(|sent| sent < body.entry.body_len))
        {
            return true;
        }
        let Some(cursor) = self.settle_cursor() else { return false };
        cursor <= self.last()
            && self.ready.front().is_some_and(|(seq, entry)| {
                cost(entry) <= self.credit_left(left)
                    && self.may_offer(*seq, entry)
                    && (entry.body.len() <= INLINE_BODY_BYTES || !self.overtaken.is_full())
            })
    }

    /// Whether the body went out whole in this session.
    fn was_offered(&self, seq: u64) -> bool {
        let under_way = || self.overtaken.iter().any(|body| body.seq == seq);
        seq <= self.offered && !self.withheld.contains(&seq) && !under_way()
    }

    /// This body does not go out whole. Of so many others that is so that nobody keeps count: then another session tells.
    fn withhold(&mut self, seq: u64) {
        if !self.withheld.contains(&seq) && self.withheld.push(seq).is_err() {
            self.elsewhere = self.elsewhere.max(seq);
        }
    }

    /// The highest number whose body was offered in this session, or in one before that was still there.
    pub(crate) fn offered_anywhere(&self, crossed: bool) -> u64 {
        if crossed { self.offered.max(self.elsewhere) } else { 0 }
    }

    /// What comes next was taken back, and was offered in another session that the peer may still read: whether it has it
    /// can be known only in a session that stands alone.
    pub(crate) fn is_unsure(&self) -> bool {
        self.ready.front().is_some_and(|(seq, entry)| {
            let open = matches!(
                entry.dropped,
                Some(Dropped::Cancelled { settled: false } | Dropped::Expired { settled: false })
            );
            open && !self.was_offered(*seq) && !self.is_delivered(*seq) && *seq <= self.elsewhere
        })
    }

    /// What the user took back comes next, and the peer has said that it does not have it: that is stored first, of all that
    /// follow each other.
    pub(crate) fn settle_withdrawn(&mut self, cx: &mut Cx) {
        let heard = self.heard && self.claim.is_none();
        let heard = heard || planted!(cx, TakenBackUnheard);
        if !heard || self.settling.is_some() || self.settle_cursor().is_none() {
            return;
        }
        // What is proven to have come stays so, whatever a peer says that lost it.
        let (acked, beyond) = (self.feed.acked, &self.feed.acked_beyond);
        let proven =
            |seq: u64| seq <= acked || beyond.iter().any(|range| (range.first..=range.last).contains(&seq));
        let (withheld, overtaken, skip) = (&self.withheld, &self.overtaken, &self.skip);
        let part = |seq: u64| withheld.contains(&seq) || overtaken.iter().any(|body| body.seq == seq);
        let unsure = |seq: u64| (seq <= self.offered && !part(seq)) || seq <= self.elsewhere;
        let held = |seq: u64| {
            unsure(seq) || proven(seq) || skip.iter().any(|(first, last)| (*first..=*last).contains(&seq))
        };
        let mut last = None;
        for (seq, entry) in self.ready.iter_mut().take_while(|(seq, _)| !held(*seq)) {
            entry.dropped = match entry.dropped {
                Some(Dropped::Cancelled { settled: false }) => Some(Dropped::Cancelled { settled: true }),
                Some(Dropped::Expired { settled: false }) => Some(Dropped::Expired { settled: true }),
                _ => break,
            };
            cx.put(&Key::Entry { feed: self.no, seq: *seq }, entry.encode());
            last = Some((*seq, entry.hash));
        }
        let Some((seq, hash)) = last else { return };
        self.settling = Some(seq);
        cx.promise(Promise::Offer { peer: self.peer, feed: self.no, seq, hash });
    }

    /// Holds back the entry that comes next if its time is over: which, and since when it is.
    pub(crate) fn hold_overdue(&mut self, cx: &Cx) -> Option<(u64, Age)> {
        self.overdue = None;
        self.settle_cursor()?;
        let (seq, at) = self.ready.front().and_then(|(seq, entry)| {
            let at = entry.expires.filter(|_| self.is_overdue(cx, *seq, entry))?;
            Some((*seq, at))
        })?;
        self.overdue = Some(seq);
        Some((seq, at))
    }

    /// Its time is over, and it was not delivered.
    fn is_overdue(&self, cx: &Cx, seq: u64, entry: &Entry) -> bool {
        let over = entry.dropped.is_none() && entry.expires.is_some_and(|at| at <= cx.age());
        over && !self.is_delivered(seq) && !planted!(cx, ExpiryForgotten)
    }

    /// Appends frames of entries to a record until it is full, the credit is used up, or nothing is left.
    pub(crate) fn fill(&mut self, cx: &mut Cx, record: &mut Vec<u8>, left: u32) {
        // While a body travels in chunks, half of each record is for it.
        let most = |overtaken: bool| if overtaken { PLAINTEXT_BYTES / 2 } else { PLAINTEXT_BYTES };
        let mut left = left;
        let mut packer = Packer::new(Author::Sender, self.feed.epoch);
        while let Some(cursor) = self.settle_cursor() {
            let Some((seq, entry)) = self.ready.front().filter(|_| cursor <= self.last()) else { break };
            let held = !self.may_offer(*seq, entry) || self.is_overdue(cx, *seq, entry);
            if held || cost(entry) > self.credit_left(left) {
                break;
            }
            if entry.body.len() > INLINE_BODY_BYTES {
                if self.overtaken.is_full() {
                    break;
                }
            } else if !packer.push(record, most(!self.overtaken.is_empty()), *seq, entry) {
                break;
            }
            let Some((seq, entry)) = self.pop_ready() else { break };
            let (cost, hash, expires) = (cost(&entry), entry.hash, entry.expires);
            self.flight_cost += cost;
            left = left.saturating_sub(cost);
            self.flight.insert(seq, Flight { cost, hash, expires });
            self.cursor = Some(seq + 1);
            if entry.dropped.is_none() {
                self.offered = self.offered.max(seq);
            }
            cx.stats.entries_sent += 1;
            if entry.body.len() > INLINE_BODY_BYTES {
                let _room_was_checked = self.overtaken.push(Overtaken { seq, entry, sent: None });
            }
        }
        packer.finish(record);
        // One body after the other: its announcement, then its chunks.
        while let Some(body) = self.overtaken.first_mut() {
            let Some(sent) = packer.push_chunk(record, body.seq, &body.entry, body.sent) else { return };
            if sent >= body.entry.body_len {
                let seq = body.seq;
                self.withheld.retain(|other| *other != seq);
                self.overtaken.remove(0);
            } else {
                body.sent = Some(sent);
            }
        }
    }

    // --- what the user takes away ----------------------------------------------------------------------------

    /// Takes the body of an own entry away, for the reason that it carries from now on.
    pub(crate) fn drop_body(&mut self, cx: &mut Cx, seq: u64, mut entry: Entry, why: Dropped) {
        entry.body = Bytes::new();
        // What was taken back before is as certain as it was.
        let before = entry.dropped.filter(|before| before.is_withdrawn() && why.is_withdrawn());
        entry.dropped = before.or(Some(why));
        if planted!(cx, TombstoneForgotten) {
            cx.delete(&Key::Entry { feed: self.no, seq });
        } else {
            cx.put(&Key::Entry { feed: self.no, seq }, entry.encode());
        }
        self.unexpire(cx, seq, entry.expires);
        if why == Dropped::Deleted {
            cx.delete(&Key::Order(self.order(seq, entry.lamport)));
        }
        if self.ready.iter().any(|(at, _)| *at == seq) {
            self.clear_ready();
        }
        self.stale |= matches!(self.asked, Some((Asked::Entries { .. }, _)));
        let withheld = self.overtaken.iter().any(|body| body.seq == seq && body.sent.is_none());
        if withheld {
            self.withhold(seq);
            self.overtaken.retain(|body| body.seq != seq);
        }
        let message = MessageRef { epoch: self.feed.epoch, seq };
        cx.promise_event(match why {
            Dropped::Expired { .. } => Event::Expired { peer: self.peer, message },
            _ => Event::Dropped { peer: self.peer, message, cancelled: why.is_withdrawn() },
        });
    }
}

fn cost(entry: &Entry) -> u32 {
    ENTRY_COST + u32::try_from(entry.body.len()).unwrap_or(u32::MAX)
}
