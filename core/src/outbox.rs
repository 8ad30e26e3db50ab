//! My feed towards one peer: numbers what is written, offers what is durable, and believes an acknowledgement only if
//! its hash is mine.
//!
//! In memory is only what waits to be offered next (`ready`, a run without holes) and what is on the way (`flight`:
//! numbers, costs and hashes). Everything else is on disk and is loaded by page when its turn comes.
//!
//! A body in chunks is overtaken by later small entries: the peer sees a gap for a moment rather than a queue that
//! stands still. On a stream nothing that was handed over is lost while the session lives, so offers are repeated
//! only when a session is new or when nothing was answered for a backoff.

use crate::api::{Event, KeyRange, Page};
use crate::backoff::Backoff;
use crate::bounded::List;
use crate::chain::{Position, body_hash, insert_range, seal_own};
use crate::cx::{Cx, OutboxAsked as Asked, Promise};
use crate::ids::{CallerId, ConversationId, EntryHash, FeedNo, PeerId};
use crate::limits::{
    CHUNK_BYTES, CREDIT_BYTES, ENTRY_COST, ENTRY_HEADS, FRAME_BYTES, IN_FLIGHT, INLINE_BODY_BYTES, OVERTAKEN,
    PAGE_BYTES, PLAINTEXT_BYTES, RANGES, READY_BYTES, RUN_ENTRIES, UNACKNOWLEDGED,
};
use crate::record::{Entry, Feed, Head, Key, Kind, OrderKey, Place, Range, Record as _};
use crate::time::Duration;
use crate::wire::entry::{Author, Body, Chunk, Item, RunHead, put_item};
use crate::wire::frame::{Frame, Have, HaveFeed, put_entries};
use crate::wire::put;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use bytes::Bytes;

/// On the way to the peer.
#[derive(Debug, Clone, Copy)]
struct Flight {
    cost: u32,
    hash: EntryHash,
}

/// A body that travels in chunks.
#[derive(Debug)]
struct Overtaken {
    seq: u64,
    entry: Entry,
    /// Bytes of the body that were sent; `None`: not even announced.
    sent: Option<u32>,
}

#[derive(Debug)]
pub(crate) struct Outbox {
    me: PeerId,
    peer: PeerId,
    conversation: ConversationId,
    no: FeedNo,
    feed: Feed,
    dirty: bool,
    /// Highest number on stable storage.
    durable: u64,
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
    seen_version: Option<(crate::ids::Epoch, u64)>,
    asked: Option<Asked>,
    /// A have-vector whose hash is being looked up. Only the newest counts.
    held_have: Option<Have>,
    backoff: Backoff,
}

impl Outbox {
    pub(crate) fn new(
        me: PeerId,
        peer: PeerId,
        conversation: ConversationId,
        no: FeedNo,
        feed: Feed,
    ) -> Self {
        let durable = feed.head;
        Self {
            me,
            peer,
            conversation,
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
            seen_version: None,
            asked: None,
            held_have: None,
            backoff: Backoff::default(),
        }
    }

    pub(crate) const fn feed(&self) -> &Feed {
        &self.feed
    }

    pub(crate) fn unacknowledged(&self) -> u64 {
        let beyond: u64 = self.feed.acked_beyond.iter().map(|range| range.last - range.first + 1).sum();
        self.feed.head.saturating_sub(self.feed.acked).saturating_sub(beyond)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.unacknowledged() >= UNACKNOWLEDGED
    }

    pub(crate) fn is_delivered(&self, seq: u64) -> bool {
        seq <= self.feed.acked
            || self.feed.acked_beyond.iter().any(|range| (range.first..=range.last).contains(&seq))
    }

    /// Appends an entry. It may be on the wire once its batch is durable.
    pub(crate) fn append(
        &mut self,
        cx: &mut Cx,
        caller: CallerId,
        body: Bytes,
        lamport: u64,
        seen: &[Head],
    ) -> u64 {
        let seq = self.feed.head + 1;
        let heads: List<Head, ENTRY_HEADS> =
            List::of(seen.iter().filter(|head| !self.feed.heads_named.contains(head)).copied());
        let mut entry = Entry {
            kind: Kind::Text,
            prev: self.feed.hash,
            hash: EntryHash::NONE,
            tag: crate::ids::Tag([0; 16]),
            lamport,
            claimed: cx.wall(),
            caller,
            heads,
            link: None,
            replaces: None,
            arrival: 0,
            recovered: false,
            body_hash: body_hash(&body),
            body_len: u32::try_from(body.len()).unwrap_or(u32::MAX),
            body,
        };
        let position =
            Position { conversation: &self.conversation, author: &self.me, epoch: &self.feed.epoch, seq };
        seal_own(&cx.identity, position, &mut entry);
        self.write(cx, seq, &entry);
        self.feed.head = seq;
        self.feed.hash = entry.hash;
        self.feed.lamport = lamport;
        self.feed.heads_named = List::of(seen.iter().copied());
        self.dirty = true;
        let next_ready = self.ready.back().map_or(self.cursor, |(last, _)| Some(last + 1));
        if next_ready == Some(seq) && self.ready_bytes + entry.body.len() <= READY_BYTES {
            self.push_ready(seq, entry);
        }
        cx.promise(Promise::Offer { peer: self.peer, seq });
        seq
    }

    fn write(&self, cx: &mut Cx, seq: u64, entry: &Entry) {
        let place = Place { feed: self.no, seq }.encode();
        let order = OrderKey {
            conversation: self.feed.conversation,
            lamport: entry.lamport,
            rank: u8::from(self.me > self.peer),
            epoch: self.feed.epoch,
            seq,
        };
        cx.put(&Key::Entry { feed: self.no, seq }, entry.encode());
        cx.put(&Key::Order(order), place.clone());
        cx.put(&Key::Caller { conversation: self.feed.conversation, caller: entry.caller }, place);
    }

    /// Writes heads and cursors into the batch that is about to close.
    pub(crate) fn write_dirty(&mut self, cx: &mut Cx) {
        if core::mem::take(&mut self.dirty) {
            cx.put(&Key::Feed(self.no), self.feed.encode());
        }
    }

    /// Entries up to `seq` are durable now.
    pub(crate) fn durable(&mut self, seq: u64) {
        self.durable = self.durable.max(seq);
    }

    // --- session ---------------------------------------------------------------------------------------------

    /// A session carries the messages from now on. What the peer proved to have need not be offered; the rest is, at
    /// once, without waiting for its have-vector.
    pub(crate) fn begin(&mut self) {
        self.end();
        self.base = self.feed.acked;
        self.skip = self.feed.acked_beyond.iter().map(|range| (range.first, range.last)).collect();
        self.credit = CREDIT_BYTES;
        self.restart();
    }

    /// There is no session any more: nothing is on the way.
    pub(crate) fn end(&mut self) {
        self.flight.clear();
        self.flight_cost = 0;
        self.overtaken.clear();
        self.cursor = None;
        self.seen_version = None;
        self.held_have = None;
        self.asked = None;
        self.backoff.reset();
    }

    /// Offers everything again that the peer is not known to have.
    fn restart(&mut self) {
        self.flight.clear();
        self.flight_cost = 0;
        self.overtaken.clear();
        let from = self.base + 1;
        self.cursor = Some(from);
        if self.ready.front().is_some_and(|(seq, _)| *seq != from) {
            self.ready.clear();
            self.ready_bytes = 0;
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

    fn push_ready(&mut self, seq: u64, entry: Entry) {
        self.ready_bytes += entry.body.len();
        self.ready.push_back((seq, entry));
    }

    fn pop_ready(&mut self) -> Option<(u64, Entry)> {
        let (seq, entry) = self.ready.pop_front()?;
        self.ready_bytes -= entry.body.len();
        Some((seq, entry))
    }

    /// Moves the cursor over what the peer has, and drops what is ready for numbers that are past.
    fn settle_cursor(&mut self) -> Option<u64> {
        let mut cursor = self.cursor?;
        while let Some((_, last)) = self.skip.iter().find(|(first, last)| (*first..=*last).contains(&cursor))
        {
            cursor = last + 1;
        }
        self.cursor = Some(cursor);
        while self.ready.front().is_some_and(|(seq, _)| *seq < cursor) {
            self.pop_ready();
        }
        if self.ready.front().is_some_and(|(seq, _)| *seq > cursor) {
            self.ready.clear();
            self.ready_bytes = 0;
        }
        Some(cursor)
    }

    /// What must be loaded before anything can be offered, if no question is open yet.
    pub(crate) fn wants_load(&mut self) -> Option<(Asked, KeyRange)> {
        if self.asked.is_some() {
            return None;
        }
        let key = |seq| Key::Entry { feed: self.no, seq };
        if let Some(have) = &self.held_have
            && let Some(feed) = self.claimed(have)
        {
            let asked = Asked::Hash { seq: feed.upto };
            return Some((asked, KeyRange::new(&key(feed.upto), &key(feed.upto), 1)));
        }
        let cursor = self.settle_cursor()?;
        if cursor > self.durable || !self.ready.is_empty() || self.credit_left() < ENTRY_COST {
            return None;
        }
        let last = self.durable.min(cursor.saturating_add(RUN_ENTRIES as u64));
        let page = u32::try_from(PAGE_BYTES).unwrap_or(u32::MAX);
        Some((
            Asked::Entries { from: cursor },
            KeyRange::new(
                &Key::Entry { feed: self.no, seq: cursor },
                &Key::Entry { feed: self.no, seq: last },
                page,
            ),
        ))
    }

    pub(crate) fn asked(&mut self, asked: Asked) {
        self.asked = Some(asked);
    }

    /// The answer to a question, if it is still open. `None` as page: the range is damaged.
    pub(crate) fn loaded(&mut self, cx: &mut Cx, asked: &Asked, page: Option<&Page>) -> bool {
        if self.asked.as_ref() != Some(asked) {
            return false;
        }
        self.asked = None;
        let decode = |(key, value): &(crate::record::KeyBytes, Bytes)| {
            let Ok(Key::Entry { seq, .. }) = Key::decode(key) else { return None };
            Entry::decode(value).ok().map(|entry| (seq, entry))
        };
        match asked {
            Asked::Hash { seq } => {
                let found = page.and_then(|page| page.records.first()).and_then(decode);
                let hash = found.filter(|(at, _)| at == seq).map(|(_, entry)| entry.hash);
                self.held_have.take().is_some_and(|have| self.judge(cx, &have, hash))
            }
            Asked::Entries { from } => {
                let mut next = *from;
                if !self.ready.is_empty() {
                    return true;
                }
                for record in page.map(|page| page.records.as_slice()).unwrap_or_default() {
                    let Some((seq, entry)) = decode(record) else { break };
                    if seq != next || self.cursor.is_none() {
                        break;
                    }
                    self.push_ready(seq, entry);
                    next += 1;
                }
                if next == *from && self.cursor == Some(*from) {
                    // This entry cannot be read. What comes after it must not wait for it: the peer shows a gap.
                    self.cursor = Some(from + 1);
                    cx.misbehaved(self.me, "an own entry cannot be read from the store");
                }
                true
            }
        }
    }

    /// The peer says how much it takes; how much we keep track of, we say.
    fn credit_left(&self) -> u32 {
        if self.flight.len() >= IN_FLIGHT { 0 } else { self.credit.saturating_sub(self.flight_cost) }
    }

    /// Whether `fill` would write something.
    pub(crate) fn wants_record(&mut self) -> bool {
        if self
            .overtaken
            .iter()
            .any(|body| self.cursor.is_some() && body.sent.is_none_or(|sent| sent < body.entry.body_len))
        {
            return true;
        }
        let Some(cursor) = self.settle_cursor() else { return false };
        cursor <= self.durable
            && self.ready.front().is_some_and(|(_, entry)| {
                cost(entry) <= self.credit_left()
                    && (entry.body.len() <= INLINE_BODY_BYTES || !self.overtaken.is_full())
            })
    }

    /// Appends frames of entries to a record until it is full, the credit is used up, or nothing is left.
    pub(crate) fn fill(&mut self, cx: &mut Cx, record: &mut Vec<u8>) {
        // While a body travels in chunks, half of each record is for it.
        let most = |overtaken: bool| if overtaken { PLAINTEXT_BYTES / 2 } else { PLAINTEXT_BYTES };
        let mut run: Option<(u64, Vec<u8>)> = None;
        let mut scratch = Vec::new();
        while let Some(cursor) = self.settle_cursor() {
            let left = self.credit_left();
            let Some((_, entry)) = self.ready.front().filter(|_| cursor <= self.durable) else { break };
            if cost(entry) > left {
                break;
            }
            if entry.body.len() > INLINE_BODY_BYTES {
                if self.overtaken.is_full() {
                    break;
                }
            } else {
                scratch.clear();
                put_item(&mut scratch, &item(entry, Body::Inline(&entry.body)));
                let run_len = run.as_ref().map_or(0, |(_, body)| body.len());
                if record.len() + run_len + scratch.len() + 128 > most(!self.overtaken.is_empty()) {
                    break;
                }
                let fits = run
                    .as_ref()
                    .is_some_and(|(next, body)| *next == cursor && body.len() + scratch.len() <= FRAME_BYTES);
                if !fits {
                    if let Some((_, body)) = run.take() {
                        put_entries(record, &body);
                    }
                    let mut body = Vec::new();
                    put(&mut body, &self.run_head(cursor, entry.prev));
                    run = Some((cursor, body));
                }
                if let Some((next, body)) = &mut run {
                    body.extend_from_slice(&scratch);
                    *next = cursor + 1;
                }
            }
            let Some((seq, entry)) = self.pop_ready() else { break };
            self.flight_cost += cost(&entry);
            self.flight.insert(seq, Flight { cost: cost(&entry), hash: entry.hash });
            self.cursor = Some(seq + 1);
            cx.stats.entries_sent += 1;
            if entry.body.len() > INLINE_BODY_BYTES {
                let _room_was_checked = self.overtaken.push(Overtaken { seq, entry, sent: None });
            }
        }
        if let Some((_, body)) = run {
            put_entries(record, &body);
        }
        self.fill_chunks(record);
    }

    fn run_head(&self, first: u64, prev: EntryHash) -> RunHead {
        RunHead { author: Author::Sender, epoch: self.feed.epoch, first, prev }
    }

    /// One body after the other: its announcement, then its chunks.
    fn fill_chunks(&mut self, record: &mut Vec<u8>) {
        while let Some(body) = self.overtaken.first() {
            let (seq, total) = (body.seq, body.entry.body_len);
            if record.len() + CHUNK_BYTES + 1024 > PLAINTEXT_BYTES {
                return;
            }
            let offset = match body.sent {
                Some(sent) => sent,
                None => {
                    let mut run = Vec::new();
                    put(&mut run, &self.run_head(seq, body.entry.prev));
                    put_item(
                        &mut run,
                        &item(&body.entry, Body::Chunked { len: total, hash: body.entry.body_hash }),
                    );
                    put_entries(record, &run);
                    0
                }
            };
            let from = usize::try_from(offset).unwrap_or(usize::MAX);
            let rest = body.entry.body.get(from..).unwrap_or_default();
            let bytes = rest.get(..CHUNK_BYTES).unwrap_or(rest);
            Frame::Chunk(Chunk { author: Author::Sender, epoch: self.feed.epoch, seq, offset, bytes })
                .encode(record);
            let sent = offset.saturating_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
            if sent >= total {
                self.overtaken.remove(0);
            } else if let Some(body) = self.overtaken.first_mut() {
                body.sent = Some(sent);
            }
        }
    }

    // --- acknowledgement -------------------------------------------------------------------------------------

    /// What a have-vector says of my current feed.
    fn claimed<'a>(&self, have: &'a Have) -> Option<&'a HaveFeed> {
        have.feeds.iter().find(|feed| feed.author == Author::Receiver && feed.epoch == self.feed.epoch)
    }

    /// A have-vector of the peer. `true` if it answered something.
    pub(crate) fn have(&mut self, cx: &mut Cx, have: Have) -> bool {
        if self.cursor.is_none() {
            return false;
        }
        if self.seen_version.is_some_and(|(holder, version)| holder == have.holder && version > have.version)
        {
            return false;
        }
        self.seen_version = Some((have.holder, have.version));
        self.held_have = None;
        let Some(upto) = self.claimed(&have).map(|feed| feed.upto) else {
            return self.judge(cx, &have, None);
        };
        if upto > self.durable {
            // More than I ever offered. Without the author's own tag it proves nothing.
            cx.misbehaved(self.peer, "acknowledged what was never sent");
            return false;
        }
        match self.known_hash(upto) {
            Some(hash) => self.judge(cx, &have, Some(hash)),
            None => {
                self.held_have = Some(have);
                // An answer to an older question would be taken for this one's.
                if matches!(self.asked, Some(Asked::Hash { .. })) {
                    self.asked = None;
                }
                false
            }
        }
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
        self.flight.get(&seq).map(|flight| flight.hash).or(beyond)
    }

    /// Takes a have-vector at its word as far as its hashes are mine. `hash` is that of my entry at its `upto`.
    fn judge(&mut self, cx: &mut Cx, have: &Have, hash: Option<EntryHash>) -> bool {
        let (upto, claimed, ranges) = match self.claimed(have) {
            Some(feed) => (feed.upto, feed.hash, feed.beyond.as_ref()),
            None => (0, EntryHash::NONE, &[][..]),
        };
        if upto > 0 && hash != Some(claimed) {
            cx.misbehaved(self.peer, "acknowledged another entry than mine");
            return false;
        }
        let before = (self.feed.acked, self.flight.len());
        if upto > self.feed.acked {
            self.prove(cx, self.feed.acked + 1, upto);
            self.feed.acked = upto;
            self.feed.acked_hash = claimed;
            self.feed.acked_beyond.retain(|range| range.last > upto);
            self.dirty = true;
        }
        let mut skip = Vec::new();
        for range in ranges.iter().take(RANGES) {
            let mine = range.last <= self.durable && self.known_hash(range.last) == Some(range.hash);
            if mine && range.first > upto && range.first <= range.last {
                skip.push((range.first, range.last));
                self.prove_range(cx, range.first, range.last, range.hash);
            }
        }
        let held = |seq: u64| seq <= upto || skip.iter().any(|(first, last)| (*first..=*last).contains(&seq));
        let mut freed = 0u32;
        self.flight.retain(|seq, flight| {
            let keep = !held(*seq);
            freed += if keep { 0 } else { flight.cost };
            keep
        });
        self.flight_cost -= freed;
        self.overtaken.retain(|body| !held(body.seq));
        self.credit = have.credit;
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
        progressed || self.flight.is_empty()
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
        let known = self.feed.acked_beyond.iter().any(|range| range.first <= first && last <= range.last);
        if known {
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
}

fn cost(entry: &Entry) -> u32 {
    ENTRY_COST + entry.body_len
}

fn item<'a>(entry: &Entry, body: Body<'a>) -> Item<'a> {
    Item {
        kind: entry.kind,
        lamport: entry.lamport,
        claimed: entry.claimed,
        caller: entry.caller,
        heads: entry.heads.clone(),
        link: entry.link,
        replaces: entry.replaces,
        tag: entry.tag,
        body,
    }
}
