//! A node whose disk is memory and confirms at once, driven by hand: the core's own cost, without a driver.

use bytes::Bytes;
use peerlink_core::api::{Answer, Batch, Command, Event, Expire, Input, KeyRange, Output, Page, StreamEnd};
use peerlink_core::bounded::List;
use peerlink_core::identity::IdentitySecret;
use peerlink_core::ids::{CallerId, Name, PeerId, StreamId};
use peerlink_core::record::{KeyBytes, RESTORE_END};
use peerlink_core::ticket::{Ticket, TicketSecret};
use peerlink_core::time::{Instant, WallClock};
use peerlink_core::{Config, Node, Restore};
use peerlink_drivers::clock;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

/// Who else wants to see a batch.
pub(crate) type Sink = Box<dyn FnMut(&Batch) + Send>;

pub(crate) struct Local {
    pub(crate) node: Node,
    pub(crate) peer: PeerId,
    pub(crate) disk: BTreeMap<KeyBytes, Bytes>,
    /// Entries are dropped instead of kept.
    pub(crate) forgets: bool,
    /// Where batches go beside memory.
    pub(crate) store: Option<Sink>,
    pub(crate) stream: Option<StreamId>,
    pub(crate) dialled: Option<StreamId>,
    pub(crate) delivered: u64,
    pub(crate) connected: bool,
    next: u64,
}

pub(crate) fn address(seed: u8) -> SocketAddr {
    ([127, 0, 0, 1], 4000 + u16::from(seed)).into()
}

impl Local {
    pub(crate) fn new(seed: u8) -> Self {
        let secret = IdentitySecret::new([seed; 32]).expect("a seed");
        let restore = Restore::new(Config::default(), &secret, [seed + 1; 32]);
        Self::from(restore.start(clock::now(), clock::wall()).expect("an empty store"), BTreeMap::new())
    }

    fn from(node: Node, disk: BTreeMap<KeyBytes, Bytes>) -> Self {
        let peer = node.peer();
        let mut local = Self {
            node,
            peer,
            disk,
            forgets: false,
            store: None,
            stream: None,
            dialled: None,
            delivered: 0,
            connected: false,
            next: 0,
        };
        local.drain(clock::now(), &mut Vec::new());
        local
    }

    /// Another start from the same disk, with entropy of its own.
    pub(crate) fn restart(self, seed: u8, entropy: u64) -> Self {
        let secret = IdentitySecret::new([seed; 32]).expect("a seed");
        let mut fresh = [seed + 2; 32];
        fresh[..8].copy_from_slice(&entropy.to_be_bytes());
        let mut restore = Restore::new(Config::default(), &secret, fresh);
        for (key, value) in self.disk.range(..KeyBytes::from_slice(&[RESTORE_END]).expect("a key")) {
            restore.record(key, value).expect("the node's own");
        }
        let node = restore.start(clock::now(), clock::wall()).expect("whole");
        Self::from(node, self.disk)
    }

    pub(crate) fn handle(&mut self, now: Instant, input: Input<'_>) {
        self.node.handle(now, input);
    }

    pub(crate) fn send(&mut self, now: Instant, to: PeerId, body: &Bytes) {
        self.next += 1;
        let mut caller = [0; 16];
        caller[..8].copy_from_slice(&self.next.to_be_bytes());
        let send = Command::Send {
            peer: to,
            caller: CallerId(caller),
            fresh: true,
            expire: Expire::Default,
            body: body.clone(),
        };
        self.node.command(now, send).expect("there is room");
    }

    /// Carries out everything. What is written goes to `wire`.
    pub(crate) fn drain(&mut self, now: Instant, wire: &mut Vec<u8>) {
        while let Some(output) = self.node.poll() {
            match output {
                Output::Write { stream, bytes } => {
                    wire.extend_from_slice(&bytes);
                    self.node.handle(now, Input::StreamWritten { stream });
                }
                Output::Persist(batch) => {
                    if let Some(store) = &mut self.store {
                        store(&batch);
                    }
                    for (key, value) in batch.writes {
                        let kept = key.first().is_some_and(|table| *table < RESTORE_END);
                        match value {
                            Some(value) if kept || !self.forgets => drop(self.disk.insert(key, value)),
                            Some(_) => {}
                            None => drop(self.disk.remove(&key)),
                        }
                    }
                    self.node.handle(now, Input::Persisted { batch: batch.id });
                }
                Output::Load { load, range } => {
                    assert!(!self.forgets, "a load of what was forgotten");
                    let page = page(&self.disk, &range);
                    self.node.handle(now, Input::Loaded { load, answer: Answer::Page(page) });
                }
                Output::Event(Event::Delivered { first, last, .. }) => self.delivered += last - first + 1,
                Output::Event(Event::Connected { .. }) => self.connected = true,
                Output::Dial { stream, .. } => self.dialled = Some(stream),
                Output::Close { stream, .. } => {
                    self.node.handle(now, Input::StreamClosed { stream, why: StreamEnd::Local });
                }
                Output::Event(_) | Output::Datagram { .. } | Output::ReadReady { .. } => {}
            }
        }
    }
}

fn page(disk: &BTreeMap<KeyBytes, Bytes>, range: &KeyRange) -> Page {
    let mut page = Page { records: Vec::new(), complete: true };
    let mut left = range.max_bytes as usize;
    for (key, value) in disk.range(range.first.clone()..=range.last.clone()) {
        let size = key.len() + value.len();
        if size > left && !page.records.is_empty() {
            page.complete = false;
            break;
        }
        left = left.saturating_sub(size);
        page.records.push((key.clone(), value.clone()));
    }
    page
}

/// Two nodes in one thread, and a pipe between them.
pub(crate) struct Joined {
    pub(crate) sides: [Local; 2],
    wires: [VecDeque<Vec<u8>>; 2],
    /// Times that bytes were on their way: two are a round trip.
    pub(crate) flights: u64,
    streams: u64,
}

impl Joined {
    pub(crate) fn strangers() -> Self {
        Self::of([Local::new(1), Local::new(2)])
    }

    pub(crate) fn of(sides: [Local; 2]) -> Self {
        Self { sides, wires: Default::default(), flights: 0, streams: 0 }
    }

    /// Contacts with a session.
    pub(crate) fn met() -> Self {
        let mut joined = Self::strangers();
        joined.introduce();
        joined.settle();
        assert!(joined.sides.iter().all(|side| side.connected));
        joined
    }

    pub(crate) fn introduce(&mut self) {
        let now = clock::now();
        let secret = TicketSecret([9; 16]);
        let expires = WallClock(clock::wall().0 + 3_600_000);
        let [alice, bob] = &mut self.sides;
        alice.node.command(now, Command::Invite { secret, expires }).expect("room");
        alice.drain(now, &mut Vec::new());
        let addresses = List::of([address(1)]);
        let ticket =
            Ticket { peer: alice.peer, secret, nickname: None, expires, addresses, relays: List::new() };
        let petname = Name::new("alice").expect("a name");
        bob.node.command(now, Command::Add { ticket: Box::new(ticket), petname }).expect("room");
    }

    /// Whoever dials reaches the other; `true` if anybody did.
    fn connect(&mut self) -> bool {
        let before = self.streams;
        for from in 0..2 {
            if let Some(stream) = self.sides[from].dialled.take() {
                let now = clock::now();
                let accepted = StreamId(1 + 2 * self.streams);
                self.streams += 1;
                self.sides[from].stream = Some(stream);
                self.sides[1 - from].stream = Some(accepted);
                let remote = address(9);
                self.sides[1 - from].handle(now, Input::StreamAccepted { stream: accepted, remote });
                self.sides[from].handle(now, Input::StreamConnected { stream, local: remote });
            }
        }
        self.streams > before
    }

    /// One step: all outputs of both, then what was written before reaches the other side. `false` if nothing was.
    pub(crate) fn step(&mut self) -> bool {
        let now = clock::now();
        for side in 0..2 {
            let mut wire = Vec::new();
            self.sides[side].drain(now, &mut wire);
            if !wire.is_empty() {
                self.wires[side].push_back(wire);
            }
        }
        let connected = self.connect();
        let flying = [self.wires[0].pop_front(), self.wires[1].pop_front()];
        let mut busy = false;
        for (from, bytes) in flying.iter().enumerate() {
            let (Some(bytes), Some(stream)) = (bytes, self.sides[1 - from].stream) else { continue };
            busy = true;
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let to = &mut self.sides[1 - from];
                let budget = to.node.read_budget(stream).min(rest.len());
                assert!(budget > 0, "nobody is slow here");
                let (piece, later) = rest.split_at(budget);
                to.handle(now, Input::StreamData { stream, bytes: piece });
                rest = later;
            }
        }
        self.flights += u64::from(busy);
        busy || connected
    }

    pub(crate) fn settle(&mut self) {
        while self.step() {}
    }

    /// Alice says `count` messages, at most `window` of them not yet acknowledged.
    pub(crate) fn talk(&mut self, count: u64, window: u64) {
        let body = Bytes::from(vec![b'x'; crate::machine::MESSAGE]);
        let (mut sent, before) = (0, self.sides[0].delivered);
        let to = self.sides[1].peer;
        while self.sides[0].delivered - before < count {
            let now = clock::now();
            while sent < count && sent - (self.sides[0].delivered - before) < window {
                self.sides[0].send(now, to, &body);
                sent += 1;
            }
            self.step();
        }
    }
}
