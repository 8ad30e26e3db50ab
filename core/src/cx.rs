//! What every machine of a node shares while one call runs: the time, randomness, identity, the batch that is being
//! built, the gate, the timers, and the way out.

use crate::age::AgeCount;
use crate::api::{Batch, Event, Expire, KeyRange, Output, Refusal, Stats};
use crate::bounded::Queue;
use crate::gate::Gate;
use crate::identity::Identity;
use crate::ids::{
    BatchId, CallerId, ConversationNo, EntryHash, Epoch, FeedNo, LoadId, MessageRef, Name, PeerId, StreamId,
};
use crate::limits::{BATCHES, LOADS, TO_RELAY, UNPERSISTED_BYTES};
use crate::planted::planted;
use crate::record::{Counters, Dropped, Key, KeyBytes, Lived, Record as _};
use crate::rng::Rng;
use crate::time::{Age, Duration, Instant, WallClock};
use crate::timers::Timers;
use crate::wire::frame::{Closed, HaveFeed, Port};
use crate::wire::peer_record::Relay;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use bytes::Bytes;

/// Everything that can fall due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// Handshake or liveness of a stream.
    Link(StreamId),
    /// The next dial to a peer.
    Dial(PeerId),
    /// An offer to a peer that stayed unanswered.
    Retry(PeerId),
    /// The end of waiting for a losing session.
    Overlap(PeerId),
    /// The end of waiting at shutdown.
    Shutdown,
    /// The own peer record grows old.
    Record,
    /// The next message expires.
    Expiry,
    /// The next dial to a relay, or the end of its use.
    Relay(PeerId),
    /// Something is to be asked of a gateway, or a port is not open any more.
    Gateway,
    /// A server that was asked from where we are seen did not answer yet.
    Observe,
}

/// What an outbox asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OutboxAsked {
    /// Entries from here on, to be offered.
    Entries { from: u64 },
    /// The hash of an own entry that an acknowledgement names.
    Hash { seq: u64 },
    /// Own entries from here on, to be compared with what the peer gives back.
    Own { from: u64 },
    /// Which entry is shown for the message whose first name had this hash.
    Shown { hash: EntryHash },
    /// The own entry that had this first name.
    First { feed: FeedNo, seq: u64 },
    /// Own entries from here on, to be issued again.
    Reissue { from: u64 },
}

/// What is held of a peer's feeds, as one durable batch has it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot {
    pub(crate) feeds: Vec<HaveFeed>,
    pub(crate) closed: Option<Closed>,
}

/// Entries `from..=to` of a feed of the peer's, which is held here and which it lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) epoch: Epoch,
    pub(crate) no: FeedNo,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

/// One message whose body goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Removal {
    pub(crate) peer: PeerId,
    pub(crate) feed: FeedNo,
    pub(crate) seq: u64,
    pub(crate) mine: bool,
    pub(crate) message: MessageRef,
    pub(crate) why: Dropped,
    /// What led to it, if its time was over.
    pub(crate) expires: Option<Age>,
    /// Only if it was not delivered.
    pub(crate) cancel: bool,
}

/// What an inbox asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InboxAsked {
    /// Which entry is shown for the message whose first name had this hash.
    Shown { hash: EntryHash },
    /// The entry that had that name.
    First { feed: FeedNo, seq: u64 },
}

/// What a question to storage is about.
#[derive(Debug)]
pub(crate) enum Asked {
    Outbox {
        peer: PeerId,
        feed: FeedNo,
        what: OutboxAsked,
        /// Which question it is: the same may have been asked in a session before, and its answer be an older one.
        turn: u64,
    },
    /// Entries of the peer's own that it asks back.
    Giveback { peer: PeerId, wanted: Wanted },
    /// What a peer issues anew may be held here under an older name.
    Renamed { peer: PeerId, what: InboxAsked },
    /// A message whose body goes.
    Drop(Removal),
    /// What expires next.
    Expiry,
    /// A page of a conversation that is being deleted.
    Erase { peer: PeerId, question: u64 },
    /// A message that may have been sent before, and waits to know.
    Caller { peer: PeerId, caller: CallerId, expire: Expire, body: Bytes },
}

/// What waits for a batch.
#[derive(Debug)]
pub(crate) enum Promise {
    Event(Event),
    /// Own entries to this peer up to `seq` may be on the wire.
    Offer {
        peer: PeerId,
        feed: FeedNo,
        seq: u64,
        hash: EntryHash,
    },
    /// This is what we hold of this peer's feeds.
    Have {
        peer: PeerId,
        version: u64,
        held: Snapshot,
        cost: u32,
    },
    /// The contact behind this stream is stored: the session may open.
    Open(StreamId),
    /// The own peer record with this number may be shown.
    Record,
    /// The first batch: this start is counted.
    Ready,
}

pub(crate) struct Cx {
    pub(crate) now: Instant,
    pub(crate) rng: Rng,
    pub(crate) identity: Identity,
    pub(crate) network: u32,
    /// Datagrams can be sent and received.
    pub(crate) datagrams: bool,
    pub(crate) datagrams_first: bool,
    pub(crate) epoch: Epoch,
    pub(crate) start: u64,
    pub(crate) nickname: Option<Name>,
    pub(crate) counters: Counters,
    counters_dirty: bool,
    wall: (Instant, WallClock),
    age: AgeCount,
    /// How long a message is tried that does not say so itself.
    pub(crate) expire: Option<Duration>,
    pub(crate) next_conversation: u32,
    pub(crate) next_feed: u32,
    next_batch: u64,
    durable: u64,
    writes: Vec<(KeyBytes, Option<Bytes>)>,
    write_bytes: usize,
    in_flight: VecDeque<(BatchId, usize)>,
    next_load: u64,
    questions: Vec<Output>,
    asked: BTreeMap<LoadId, Asked>,
    pub(crate) gate: Gate<Promise>,
    pub(crate) timers: Timers<Timer>,
    pub(crate) out: VecDeque<Output>,
    pub(crate) stats: Stats,
    /// Packets for relays: over which link, to whom.
    pub(crate) to_relays: Queue<(StreamId, Port, Vec<u8>)>,
    /// Peers with heads or cursors that the next batch must hold.
    pub(crate) unsaved: BTreeSet<PeerId>,
    /// Peers that should be reached through this relay.
    pub(crate) through: BTreeSet<(PeerId, Relay)>,
    /// Peers whose way in use is silent.
    pub(crate) silent: BTreeSet<PeerId>,
    /// Who may send to this node through relays changed.
    pub(crate) queues_changed: bool,
    /// Peers that may have something to send or to ask.
    pub(crate) touched: BTreeSet<PeerId>,
    /// The store failed: no promise is made any more.
    pub(crate) failed: bool,
    /// A peer proved that this store was rolled back: the current epoch must end.
    pub(crate) rolled_back: bool,
    #[cfg(peerlink_planted)]
    pub(crate) planted: Option<crate::planted::Planted>,
    #[cfg(peerlink_planted)]
    pub(crate) early: Vec<Promise>,
}

impl Cx {
    pub(crate) fn new(identity: Identity, rng: Rng, network: u32, epoch: Epoch, start: u64) -> Self {
        Self {
            now: Instant::ZERO,
            rng,
            identity,
            network,
            datagrams: false,
            datagrams_first: false,
            epoch,
            start,
            nickname: None,
            counters: Counters::default(),
            counters_dirty: false,
            wall: (Instant::ZERO, WallClock(0)),
            age: AgeCount::new(None, Instant::ZERO, WallClock(0)),
            expire: None,
            next_conversation: 1,
            next_feed: 1,
            next_batch: 1,
            durable: 0,
            writes: Vec::new(),
            write_bytes: 0,
            in_flight: VecDeque::new(),
            next_load: 1,
            questions: Vec::new(),
            asked: BTreeMap::new(),
            unsaved: BTreeSet::new(),
            touched: BTreeSet::new(),
            gate: Gate::new(),
            timers: Timers::new(),
            out: VecDeque::new(),
            stats: Stats::default(),
            to_relays: Queue::new(TO_RELAY),
            through: BTreeSet::new(),
            silent: BTreeSet::new(),
            queues_changed: true,
            failed: false,
            rolled_back: false,
            #[cfg(peerlink_planted)]
            planted: None,
            #[cfg(peerlink_planted)]
            early: Vec::new(),
        }
    }

    /// What the wall clock would say now.
    pub(crate) fn wall(&self) -> WallClock {
        let (at, wall) = self.wall;
        let passed = u64::try_from(self.now.saturating_since(at).as_millis()).unwrap_or(u64::MAX);
        WallClock(wall.0.saturating_add(passed))
    }

    pub(crate) fn set_wall(&mut self, wall: WallClock) {
        self.wall = (self.now, wall);
        self.age.wall_is(self.now, wall);
    }

    /// This is a start, `lived` is what the store says of the life before it.
    pub(crate) fn start_at(&mut self, now: Instant, wall: WallClock, lived: Option<Lived>) {
        self.now = now;
        self.age = AgeCount::new(lived, now, wall);
        self.set_wall(wall);
    }

    /// How long this profile has lived, by its own count.
    pub(crate) fn age(&self) -> Age {
        self.age.age(self.now)
    }

    /// Writes down how long that is.
    pub(crate) fn put_age(&mut self) {
        let lived = self.age.store(self.now, self.wall());
        self.put(&Key::Lived, lived.encode());
    }

    /// Writes it down if it was not for a while.
    pub(crate) fn put_stale_age(&mut self) {
        if self.age.is_stale(self.now) {
            self.put_age();
        }
    }

    /// When a message that is written now expires.
    pub(crate) fn expires(&self, expire: Expire) -> Option<Age> {
        let after = match expire {
            Expire::Default => self.expire,
            Expire::Never => None,
            Expire::After(after) => Some(after),
        };
        after.map(|after| self.age() + after)
    }

    pub(crate) fn peer(&self) -> PeerId {
        self.identity.peer()
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.out.push_back(Output::Event(event));
    }

    pub(crate) fn misbehaved(&mut self, peer: PeerId, what: &'static str) {
        self.stats.misbehaved += 1;
        self.event(Event::Misbehaved { peer, what: what.into() });
    }

    pub(crate) fn timer(&mut self, timer: Timer, after: Duration) {
        self.timers.set(timer, self.now + after);
    }

    /// This peer may have something to send or to ask.
    pub(crate) fn touch(&mut self, peer: PeerId) {
        self.touched.insert(peer);
    }

    // --- storage ---------------------------------------------------------------------------------------------

    /// Adds a write to the batch that is being built.
    pub(crate) fn put(&mut self, key: &Key, value: Bytes) {
        let key = key.encode();
        self.write_bytes += key.len() + value.len();
        self.writes.push((key, Some(value)));
    }

    pub(crate) fn delete(&mut self, key: &Key) {
        let key = key.encode();
        self.write_bytes += key.len();
        self.writes.push((key, None));
    }

    pub(crate) fn next_arrival(&mut self) -> u64 {
        self.counters.arrival += 1;
        if planted!(self, ArrivalSkipped) && self.counters.arrival.is_multiple_of(16) {
            self.counters.arrival += 1;
        }
        self.counters_dirty = true;
        self.counters.arrival
    }

    pub(crate) fn next_version(&mut self) -> u64 {
        self.counters.version += 1;
        self.counters_dirty = true;
        self.counters.version
    }

    /// The batch that the next `put` goes into.
    pub(crate) const fn batch(&self) -> BatchId {
        BatchId(self.next_batch)
    }

    pub(crate) const fn is_durable(&self, batch: BatchId) -> bool {
        batch.0 <= self.durable
    }

    /// Keeps `promise` until the batch that is being built is durable. If there is nothing to wait for, it is enough
    /// to wait for what is already under way.
    pub(crate) fn promise(&mut self, promise: Promise) {
        #[cfg(peerlink_planted)]
        let Some(promise) = self.unless_premature(promise) else { return };
        let batch = if self.writes.is_empty() && !self.counters_dirty {
            BatchId(self.next_batch.saturating_sub(1))
        } else {
            self.batch()
        };
        // `pressed` keeps the gate half empty for what is under way; were it full all the same, a promise unsaid is
        // repaired by the next session, and nothing false was said.
        let _unsaid = self.gate.promise(batch, promise);
    }

    /// Keeps `promise` until the batch that closes next is durable: for what a record proves that is not written yet,
    /// because it is written once, when the batch closes.
    pub(crate) fn promise_next(&mut self, promise: Promise) {
        #[cfg(peerlink_planted)]
        let Some(promise) = self.unless_premature(promise) else { return };
        let _unsaid = self.gate.promise(self.batch(), promise);
    }

    /// A planted bug keeps a promise at once: then there is none to wait.
    #[cfg(peerlink_planted)]
    fn unless_premature(&mut self, promise: Promise) -> Option<Promise> {
        let premature = match &promise {
            Promise::Offer { .. } => planted!(self, OfferedBeforeDurable),
            Promise::Open(_) => planted!(self, ContactBeforeDurable),
            Promise::Event(Event::Queued { .. }) => planted!(self, QueuedBeforeDurable),
            Promise::Event(Event::Received { .. }) => planted!(self, ShownBeforeDurable),
            Promise::Event(Event::Delivered { .. }) => planted!(self, DeliveredBeforeStored),
            _ => false,
        };
        if !premature {
            return Some(promise);
        }
        self.early.push(promise);
        None
    }

    pub(crate) fn promise_event(&mut self, event: Event) {
        self.queues_changed |= matches!(event, Event::ContactChanged { .. } | Event::InviteStored { .. });
        self.promise(Promise::Event(event));
    }

    /// Too much waits for the disk: stop reading and refuse commands.
    pub(crate) fn pressed(&self) -> bool {
        if planted!(self, UnboundedQueue) {
            return false;
        }
        self.gate.is_pressed() || self.unpersisted() > UNPERSISTED_BYTES
    }

    fn unpersisted(&self) -> usize {
        self.write_bytes + self.in_flight.iter().map(|(_, bytes)| bytes).sum::<usize>()
    }

    /// Whether storage takes another batch now.
    pub(crate) fn may_close(&self) -> bool {
        self.in_flight.len() < BATCHES && !self.failed
    }

    /// Whether a batch would leave now.
    pub(crate) fn batch_ready(&self) -> bool {
        self.may_close() && !(self.writes.is_empty() && self.unsaved.is_empty())
    }

    /// Hands the batch that was built to storage.
    pub(crate) fn close_batch(&mut self) {
        if !self.may_close() || self.writes.is_empty() {
            return;
        }
        if self.counters_dirty {
            self.counters_dirty = false;
            let counters = self.counters.encode();
            self.put(&Key::Counters, counters);
        }
        self.put_stale_age();
        let id = self.batch();
        self.next_batch += 1;
        self.stats.batches += 1;
        self.in_flight.push_back((id, self.write_bytes));
        self.write_bytes = 0;
        self.out.push_back(Output::Persist(Batch { id, writes: core::mem::take(&mut self.writes) }));
    }

    /// Every batch up to `batch` is durable.
    pub(crate) fn persisted(&mut self, batch: BatchId) {
        if batch.0 > self.durable && batch.0 < self.next_batch {
            self.durable = batch.0;
        }
        while self.in_flight.front().is_some_and(|(id, _)| id.0 <= self.durable) {
            self.in_flight.pop_front();
        }
    }

    /// The next promise that is true now.
    pub(crate) fn kept(&mut self) -> Option<Promise> {
        if self.failed {
            return None;
        }
        #[cfg(peerlink_planted)]
        if !self.early.is_empty() {
            return Some(self.early.remove(0));
        }
        self.gate.keep(BatchId(self.durable))
    }

    /// Everything that was written is durable.
    pub(crate) fn all_durable(&self) -> bool {
        self.writes.is_empty() && self.unsaved.is_empty() && self.in_flight.is_empty()
    }

    pub(crate) fn fail(&mut self) {
        self.failed = true;
        self.gate.break_all();
        self.writes.clear();
        self.write_bytes = 0;
        self.in_flight.clear();
        self.unsaved.clear();
        self.questions.clear();
    }

    /// Asks storage; `false` if too many questions are open. It leaves after every write that was made before.
    pub(crate) fn ask(&mut self, asked: Asked, range: KeyRange) -> bool {
        if self.asked.len() >= LOADS || self.failed {
            return false;
        }
        let load = LoadId(self.next_load);
        self.next_load += 1;
        self.stats.loads += 1;
        self.asked.insert(load, asked);
        self.questions.push(Output::Load { load, range });
        true
    }

    /// Lets the questions out, if nothing is unwritten that they must see.
    pub(crate) fn let_questions_out(&mut self) {
        if self.writes.is_empty() {
            self.out.extend(self.questions.drain(..));
        }
    }

    pub(crate) fn has_questions(&self) -> bool {
        !self.questions.is_empty() && self.writes.is_empty()
    }

    /// What an answer is about.
    pub(crate) fn answered(&mut self, load: LoadId) -> Option<Asked> {
        self.asked.remove(&load)
    }

    pub(crate) fn new_conversation(&mut self) -> ConversationNo {
        let no = ConversationNo(self.next_conversation);
        self.next_conversation += 1;
        no
    }

    pub(crate) fn new_feed(&mut self) -> FeedNo {
        let no = FeedNo(self.next_feed);
        self.next_feed += 1;
        no
    }

    /// Whether a command that writes can be taken.
    pub(crate) fn accepts(&self) -> Result<(), Refusal> {
        if self.failed {
            Err(Refusal::StoreFailed)
        } else if self.pressed() {
            Err(Refusal::Busy)
        } else {
            Ok(())
        }
    }
}

impl core::fmt::Debug for Cx {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Cx").field("now", &self.now).field("peer", &self.peer()).finish_non_exhaustive()
    }
}
