//! Two nodes, a wire between them and a disk each, driven by hand. Time moves only when nothing else is left to do.

#![allow(dead_code, unreachable_pub, missing_debug_implementations, reason = "each test file uses its part")]

use bytes::Bytes;
use peerlink_core::api::{
    Answer, Command, DialFailure, Event, Expire, Input, Output, Page, Refused, StreamEnd,
};
use peerlink_core::bounded::List;
use peerlink_core::identity::IdentitySecret;
use peerlink_core::ids::{BatchId, CallerId, FeedNo, LoadId, Name, PeerId, StreamId};
use peerlink_core::limits::{BATCHES, LOADS, PAGE_BYTES};
use peerlink_core::record::{self, Key, KeyBytes, OrderKey, Record as _, Table};
use peerlink_core::ticket::{Ticket, TicketSecret};
use peerlink_core::time::{Duration, Instant, WallClock};
use peerlink_core::trace;
use peerlink_core::wire::peer_record::Relay;
use peerlink_core::{Config, Node, Restore};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

pub const ALICE: usize = 0;
pub const BOB: usize = 1;
/// A third node, which relays; only some tests have it.
pub const RELAY: usize = 2;

pub type Disk = BTreeMap<KeyBytes, Bytes>;

/// A node, its disk, and what it said.
pub struct Side {
    pub node: Option<Node>,
    pub disk: Disk,
    pub events: Vec<Event>,
    secret: IdentitySecret,
    starts: u8,
    /// Batches that wait while `slow` is set.
    pub slow: bool,
    pending: VecDeque<peerlink_core::api::Batch>,
    loads: Vec<(LoadId, BatchId, peerlink_core::api::KeyRange)>,
    newest: BatchId,
    next_accept: u64,
    pub address: SocketAddr,
    /// Where its datagrams come from, as others see it, and where it gets them.
    pub seen: SocketAddr,
    pub datagrams: bool,
    relay: bool,
    /// A box in front of it lets in only what comes from where it sent to.
    pub boxed: bool,
    sent_to: BTreeSet<SocketAddr>,
    /// Everything that went in and came out since the last start, and from what it started.
    pub trace: Vec<String>,
    pub began: (Instant, Disk),
    /// By how many milliseconds the wall clock of its machine is wrong when it starts.
    pub wrong_ms: i64,
}

/// One direction-less pipe: which stream of which side it is at either end; the lower side first.
struct Pipe {
    ends: [(usize, StreamId); 2],
    bytes: [VecDeque<u8>; 2],
    finished: [bool; 2],
}

/// What becomes of datagrams.
pub struct Air {
    /// When it lands, in which order it left, from where, to where.
    pub flying: BTreeMap<(Instant, u64), (SocketAddr, SocketAddr, Vec<u8>)>,
    sent: u64,
    pub latency: Duration,
    /// How much longer some take.
    pub jitter: Duration,
    /// Of a hundred.
    pub lost: u64,
    pub doubled: u64,
    /// Nothing passes from the one to the other.
    pub cut: BTreeSet<(SocketAddr, SocketAddr)>,
    /// Every datagram that was sent.
    pub log: Vec<(Instant, SocketAddr, SocketAddr, Vec<u8>)>,
    pub state: u64,
}

impl Air {
    fn new() -> Self {
        Self {
            flying: BTreeMap::new(),
            sent: 0,
            latency: Duration::from_millis(20),
            jitter: Duration::ZERO,
            lost: 0,
            doubled: 0,
            cut: BTreeSet::new(),
            log: Vec::new(),
            state: 1,
        }
    }

    /// A number below `most` (xorshift: Marsaglia, 2003).
    pub fn draw(&mut self, most: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % most.max(1)
    }

    pub fn send(&mut self, now: Instant, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        self.log.push((now, from, to, bytes.to_vec()));
        let copies =
            if self.draw(100) < self.lost { 0 } else { 1 + u64::from(self.draw(100) < self.doubled) };
        for _ in 0..copies {
            let jitter = self.draw(u64::try_from(self.jitter.as_micros()).unwrap());
            self.sent += 1;
            let at = now + self.latency + Duration::from_micros(jitter);
            self.flying.insert((at, self.sent), (from, to, bytes.to_vec()));
        }
    }

    fn next(&self) -> Option<Instant> {
        self.flying.first_key_value().map(|((at, _), _)| *at)
    }

    fn land(&mut self, now: Instant) -> Option<(SocketAddr, SocketAddr, Vec<u8>)> {
        let entry = self.flying.first_entry().filter(|entry| entry.key().0 <= now)?;
        Some(entry.remove())
    }
}

pub struct Pair {
    pub now: Instant,
    pub sides: Vec<Side>,
    pipes: Vec<Pipe>,
    /// Nothing passes, and nobody is told.
    pub silent: bool,
    /// Dials are refused. (Those of a relay are by who has datagrams.)
    pub refuse: bool,
    /// Bytes that pass at once in one direction.
    pub at_once: usize,
    pub delivered_bytes: u64,
    /// Datagrams can be sent; set before the sides start.
    pub datagrams: bool,
    pub air: Air,
    /// What was written on streams of somebody else, by side and stream, and nobody read yet.
    pub strays: BTreeMap<(usize, StreamId), Vec<u8>>,
}

pub fn wall(now: Instant) -> WallClock {
    WallClock(1_790_000_000_000 + now.as_micros() / 1000)
}

impl Pair {
    pub fn new() -> Self {
        Self::with(false)
    }

    /// Two nodes that can reach each other by datagrams alone, and know each other.
    pub fn met_by_datagrams(seed: u64) -> Self {
        let mut pair = Self::with(true);
        pair.refuse = true;
        pair.air.state = seed.wrapping_mul(2) | 1;
        pair.introduce();
        pair.drive_until("both established", |pair| {
            (0..2).all(|side| pair.count(side, |event| matches!(event, Event::Connected { .. })) > 0)
        });
        pair
    }

    /// Two that know each other by a ticket with a relay in it, and can reach that. Before they meet, `prepare` says what
    /// else they can do.
    pub fn met_through_a_relay(seed: u64, prepare: impl FnOnce(&mut Self)) -> Self {
        let mut pair = Self::with(true);
        pair.refuse = true;
        pair.air.state = seed.wrapping_mul(2) | 1;
        pair.sides.push(Self::third());
        pair.start(RELAY);
        prepare(&mut pair);
        for side in 0..2 {
            let relays = List::of([pair.relay()]);
            pair.command(side, Command::UseRelays { relays }).unwrap();
        }
        let mut ticket = pair.ticket(ALICE, 7);
        ticket.relays = List::of([pair.relay()]);
        let petname = Name::new("alice").unwrap();
        pair.command(BOB, Command::Add { ticket: Box::new(ticket), petname }).unwrap();
        pair.drive_until("both established", |pair| {
            (0..2).all(|side| pair.count(side, |event| matches!(event, Event::Connected { .. })) > 0)
        });
        pair
    }

    pub fn relay(&self) -> Relay {
        Relay { peer: self.peer(RELAY), address: self.sides[RELAY].address }
    }

    /// Nothing passes straight between the two.
    pub fn cut_direct(&mut self) {
        let (a, b) = (self.sides[ALICE].seen, self.sides[BOB].seen);
        self.air.cut.extend([(a, b), (b, a)]);
    }

    fn side(n: u8, datagrams: bool) -> Side {
        Side {
            node: None,
            disk: Disk::new(),
            events: Vec::new(),
            secret: IdentitySecret::new([n + 1; 32]).unwrap(),
            starts: 0,
            slow: false,
            pending: VecDeque::new(),
            loads: Vec::new(),
            newest: BatchId(0),
            next_accept: 1,
            address: SocketAddr::from(([127, 0, 0, 1], 4000 + u16::from(n))),
            seen: SocketAddr::from(([127, 0, 0, 1], 4000 + u16::from(n))),
            datagrams,
            relay: n == 2,
            boxed: false,
            sent_to: BTreeSet::new(),
            trace: Vec::new(),
            began: (Instant::ZERO, Disk::new()),
            wrong_ms: 0,
        }
    }

    fn third() -> Side {
        Self::side(2, true)
    }

    fn with(datagrams: bool) -> Self {
        let side = |n: u8| Self::side(n, datagrams);
        let mut pair = Self {
            now: Instant::from_micros(1_000_000),
            sides: vec![side(0), side(1)],
            pipes: Vec::new(),
            silent: false,
            refuse: false,
            at_once: usize::MAX,
            delivered_bytes: 0,
            datagrams,
            air: Air::new(),
            strays: BTreeMap::new(),
        };
        pair.start(ALICE);
        pair.start(BOB);
        pair
    }

    /// Two nodes that know each other: Bob added Alice's ticket.
    pub fn met() -> Self {
        let mut pair = Self::new();
        pair.introduce();
        pair.drive_until("both established", |pair| {
            (0..2).all(|side| pair.count(side, |event| matches!(event, Event::Connected { .. })) > 0)
        });
        pair
    }

    pub fn ticket(&mut self, side: usize, secret: u8) -> Ticket {
        let secret = TicketSecret([secret; 16]);
        let expires = WallClock(wall(self.now).0 + 3_600_000);
        self.command(side, Command::Invite { secret, expires }).unwrap();
        self.settle();
        let (peer, address) = (self.peer(side), self.sides[side].address);
        Ticket {
            peer,
            secret,
            nickname: Name::new("inviter").ok(),
            expires,
            addresses: List::of([address]),
            relays: List::new(),
        }
    }

    pub fn introduce(&mut self) {
        let ticket = self.ticket(ALICE, 7);
        let petname = Name::new("alice").unwrap();
        self.command(BOB, Command::Add { ticket: Box::new(ticket), petname }).unwrap();
    }

    /// Bob lost who his contacts are, and adds Alice by another ticket.
    pub fn introduce_again(&mut self) {
        let ticket = self.ticket(ALICE, 8);
        let petname = Name::new("alice").unwrap();
        self.command(BOB, Command::Add { ticket: Box::new(ticket), petname }).unwrap();
    }

    pub fn start(&mut self, side: usize) {
        self.now += Duration::from_millis(1);
        let now = self.now;
        let this = &mut self.sides[side];
        this.starts += 1;
        this.began = (now, this.disk.clone());
        this.trace.clear();
        this.node = Some(this.restore(side));
        this.newest = BatchId(0);
        let addresses = List::of([this.address]);
        self.handle(side, Input::LocalAddresses(addresses));
    }

    /// Feeds what went into `side` since its last start to a node that starts from the same disk; what comes out.
    pub fn replay(&self, side: usize) -> Vec<String> {
        let this = &self.sides[side];
        let mut node = this.restore(side);
        let (mut trace, mut scratch) = (Vec::new(), Vec::new());
        for text in &this.trace {
            let entry = trace::parse(text, &mut scratch).unwrap();
            assert_eq!(&entry.to_string(), text);
            match entry.item {
                trace::Item::Input(input) => node.handle(entry.at, input),
                trace::Item::Command(command) => {
                    let _refused_then_too = node.command(entry.at, command);
                }
                trace::Item::Output(_) => {
                    let output = node.poll().map(|output| trace::line(entry.at, &output).to_string());
                    trace.push(output.unwrap_or_default());
                    continue;
                }
            }
            trace.push(text.clone());
        }
        trace
    }

    /// The process is gone: what was not synced is lost, streams break.
    pub fn crash(&mut self, side: usize) {
        let this = &mut self.sides[side];
        this.node = None;
        this.pending.clear();
        this.loads.clear();
        self.strays.retain(|(at, _), _| *at != side);
        self.break_streams(|end, other| end != side && other == side);
    }

    /// Every stream breaks; both sides notice.
    pub fn cut(&mut self) {
        self.break_streams(|end, other| end.max(other) < RELAY);
    }

    /// Streams break of which one end notices: the one that `notices`, given its side and the other's.
    fn break_streams(&mut self, notices: impl Fn(usize, usize) -> bool) {
        let hit = |pipe: &Pipe| {
            let [a, b] = [pipe.ends[0].0, pipe.ends[1].0];
            (notices(a, b), notices(b, a))
        };
        let (broken, whole) = std::mem::take(&mut self.pipes).into_iter().partition(|pipe| {
            let (a, b) = hit(pipe);
            a || b
        });
        self.pipes = whole;
        let broken: Vec<Pipe> = broken;
        for pipe in broken {
            let (a, b) = hit(&pipe);
            for ((side, stream), notices) in pipe.ends.into_iter().zip([a, b]) {
                if notices {
                    self.handle(side, Input::StreamClosed { stream, why: StreamEnd::Broken });
                }
            }
        }
    }

    /// What flies is lost.
    pub fn cut_air(&mut self) {
        self.air.flying.clear();
    }

    /// Only `side` notices that its streams broke.
    pub fn cut_one(&mut self, side: usize) {
        self.break_streams(|end, other| end == side && other < RELAY);
    }

    pub fn peer(&self, side: usize) -> PeerId {
        peerlink_core::identity::Identity::new(&self.sides[side].secret).unwrap().peer()
    }

    pub fn handle(&mut self, side: usize, input: Input<'_>) {
        let now = self.now;
        let this = &mut self.sides[side];
        if let Some(node) = &mut this.node {
            this.trace.push(trace::line(now, &input).to_string());
            node.handle(now, input);
        }
    }

    pub fn command(&mut self, side: usize, command: Command) -> Result<(), Refused> {
        let now = self.now;
        let this = &mut self.sides[side];
        this.trace.push(trace::line(now, &command).to_string());
        this.node.as_mut().unwrap().command(now, command)
    }

    pub fn send(&mut self, side: usize, id: u32, text: &str) {
        self.send_until(side, id, Expire::Default, text);
    }

    pub fn send_until(&mut self, side: usize, id: u32, expire: Expire, text: &str) {
        let peer = self.peer(1 - side);
        let body = Bytes::copy_from_slice(text.as_bytes());
        self.command(side, Command::Send { peer, caller: caller(id), fresh: true, expire, body }).unwrap();
    }

    pub fn count(&self, side: usize, what: impl Fn(&Event) -> bool) -> usize {
        self.sides[side].events.iter().filter(|event| what(event)).count()
    }

    /// Texts that were shown at `side`, in order.
    pub fn received(&self, side: usize) -> Vec<String> {
        let events = self.sides[side].events.iter();
        events
            .filter_map(|event| match event {
                Event::Received { body, .. } => Some(String::from_utf8(body.to_vec()).unwrap()),
                _ => None,
            })
            .collect()
    }

    /// How many own messages `side` has seen proof for.
    pub fn delivered(&self, side: usize) -> u64 {
        let ranges = self.sides[side].events.iter().map(|event| match event {
            Event::Delivered { first, last, .. } => last - first + 1,
            _ => 0,
        });
        ranges.sum()
    }

    /// The conversation as it is on disk, in its order.
    pub fn history(&self, side: usize) -> Vec<(bool, String)> {
        let disk = &self.sides[side].disk;
        let conversation =
            record::Key::Order(OrderKey::first(peerlink_core::ids::ConversationNo(1))).encode();
        let last = record::Key::Order(OrderKey::last(peerlink_core::ids::ConversationNo(1))).encode();
        disk.range(conversation..=last)
            .map(|(_, value)| {
                let place = record::Place::decode(Table::Order, value).unwrap();
                let entry = &disk[&Key::Entry { feed: place.feed, seq: place.seq }.encode()];
                let feed = record::Feed::decode(&disk[&Key::Feed(place.feed).encode()]).unwrap();
                let entry = record::Entry::decode(entry).unwrap();
                (feed.mine == (side == ALICE), String::from_utf8(entry.body.to_vec()).unwrap())
            })
            .collect()
    }

    /// How far the peer's acknowledgement is stored at `side`.
    pub fn acknowledged(&self, side: usize) -> u64 {
        let (first, last) = (Key::Feed(FeedNo(0)).encode(), Key::Feed(FeedNo(u32::MAX)).encode());
        let feeds =
            self.sides[side].disk.range(first..=last).map(|(_, value)| record::Feed::decode(value).unwrap());
        feeds.filter(|feed| feed.mine).map(|feed| feed.acked).sum()
    }

    // --- driving ---------------------------------------------------------------------------------------------

    /// Carries out every effect of one side; `true` if there was one.
    fn drain(&mut self, side: usize) -> bool {
        let mut busy = false;
        while let Some(output) = self.sides[side].node.as_mut().and_then(Node::poll) {
            busy = true;
            let line = trace::line(self.now, &output).to_string();
            self.sides[side].trace.push(line);
            self.carry_out(side, output);
        }
        busy
    }

    fn carry_out(&mut self, side: usize, output: Output) {
        match output {
            Output::Dial { stream, remote, .. } => self.dial(side, stream, remote),
            Output::Write { stream, bytes } => {
                if let Some((at, end)) = self.pipe(side, stream) {
                    self.pipes[at].bytes[end].extend(bytes.iter());
                    self.handle(side, Input::StreamWritten { stream });
                } else if let Some(stray) = self.strays.get_mut(&(side, stream)) {
                    stray.extend_from_slice(&bytes);
                    self.handle(side, Input::StreamWritten { stream });
                }
            }
            Output::Close { stream, flush } => {
                if self.strays.remove(&(side, stream)).is_some() {
                    self.handle(side, Input::StreamClosed { stream, why: StreamEnd::Local });
                }
                let Some((at, end)) = self.pipe(side, stream) else { return };
                if flush {
                    self.pipes[at].finished[end] = true;
                    let pipe = &mut self.pipes[at];
                    pipe.bytes[1 - end].clear();
                } else {
                    let (other, stream) = self.pipes.remove(at).ends[1 - end];
                    self.handle(other, Input::StreamClosed { stream, why: StreamEnd::Broken });
                }
                self.handle(side, Input::StreamClosed { stream, why: StreamEnd::Local });
            }
            Output::Datagram { remote, bytes, .. } => {
                let from = self.sides[side].seen;
                self.sides[side].sent_to.insert(remote);
                self.air.send(self.now, from, remote, &bytes);
            }
            Output::ReadReady { .. } => {}
            Output::Persist(batch) => {
                let this = &mut self.sides[side];
                assert_eq!(batch.id.0, this.newest.0 + 1, "batches are numbered without holes");
                this.newest = batch.id;
                this.pending.push_back(batch);
                assert!(this.pending.len() <= BATCHES);
            }
            Output::Load { load, range } => {
                let this = &mut self.sides[side];
                this.loads.push((load, this.newest, range));
                assert!(this.loads.len() <= LOADS);
            }
            Output::Event(event) => self.sides[side].events.push(event),
        }
    }

    fn dial(&mut self, side: usize, stream: StreamId, remote: SocketAddr) {
        if self.silent {
            return;
        }
        let other =
            (0..self.sides.len()).find(|other| *other != side && self.sides[*other].address == remote);
        let refused = |other: usize| if other < RELAY { self.refuse } else { self.sides[side].datagrams };
        let open = |other: &usize| self.sides[*other].node.is_some() && !refused(*other);
        let Some(other) = other.filter(open) else {
            self.handle(side, Input::DialFailed { stream, why: DialFailure::Refused });
            return;
        };
        let accepted = StreamId(self.sides[other].next_accept);
        self.sides[other].next_accept += 2;
        let mut ends = [(side, stream), (other, accepted)];
        ends.sort();
        self.pipes.push(Pipe { ends, bytes: Default::default(), finished: [false; 2] });
        let local = SocketAddr::from(([127, 0, 0, 1], 50_000));
        self.handle(other, Input::StreamAccepted { stream: accepted, remote: local });
        self.handle(side, Input::StreamConnected { stream, local });
    }

    /// Somebody else dials `side`, from an address of his own.
    pub fn accept_stray(&mut self, side: usize) -> StreamId {
        let stream = StreamId(self.sides[side].next_accept);
        self.sides[side].next_accept += 2;
        self.strays.insert((side, stream), Vec::new());
        let remote = SocketAddr::from(([192, 0, 2, 7], 4711));
        self.handle(side, Input::StreamAccepted { stream, remote });
        stream
    }

    /// He says these bytes, as many of them as `side` wants to read.
    pub fn say(&mut self, side: usize, stream: StreamId, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some(node) = &self.sides[side].node
            && let (now, later) = rest.split_at(node.read_budget(stream).min(rest.len()))
            && !now.is_empty()
        {
            self.handle(side, Input::StreamData { stream, bytes: now });
            rest = later;
        }
    }

    /// Which pipe this is, and which of its ends.
    fn pipe(&self, side: usize, stream: StreamId) -> Option<(usize, usize)> {
        let end = |pipe: &Pipe| pipe.ends.iter().position(|end| *end == (side, stream));
        self.pipes.iter().enumerate().find_map(|(at, pipe)| Some((at, end(pipe)?)))
    }

    /// Makes everything durable that waits, and answers what was asked.
    pub fn sync(&mut self, side: usize) -> bool {
        let this = &mut self.sides[side];
        let mut last = None;
        for batch in this.pending.drain(..) {
            for (key, value) in batch.writes {
                match value {
                    Some(value) => this.disk.insert(key, value),
                    None => this.disk.remove(&key),
                };
            }
            last = Some(batch.id);
        }
        let loads = std::mem::take(&mut this.loads);
        if let Some(batch) = last {
            self.handle(side, Input::Persisted { batch });
        }
        let busy = last.is_some() || !loads.is_empty();
        for (load, _, range) in loads {
            let page = page(&self.sides[side].disk, &range);
            self.handle(side, Input::Loaded { load, answer: Answer::Page(page) });
        }
        busy
    }

    /// Moves bytes as far as budgets allow.
    fn pass(&mut self) -> bool {
        self.pass_some(usize::MAX)
    }

    /// The same, at most so many of each stream.
    pub fn pass_some(&mut self, most: usize) -> bool {
        if self.silent {
            self.air.flying.clear();
            return false;
        }
        let mut busy = false;
        while let Some((from, to, bytes)) = self.air.land(self.now) {
            busy = true;
            if let Some(side) = (0..self.sides.len()).find(|side| self.sides[*side].seen == to) {
                let this = &self.sides[side];
                let blocked = this.boxed && !this.sent_to.contains(&from);
                if !blocked && !self.air.cut.contains(&(from, to)) {
                    self.handle(side, Input::Datagram { remote: from, bytes: &bytes });
                }
            }
        }
        for at in 0..self.pipes.len() {
            for end in 0..2 {
                let Some(pipe) = self.pipes.get(at) else { return true };
                let (to, stream) = pipe.ends[end];
                let budget = self.sides[to].node.as_ref().map_or(0, |node| node.read_budget(stream));
                let pipe = &mut self.pipes[at];
                let take = pipe.bytes[1 - end].len().min(budget).min(most.min(self.at_once));
                if take > 0 {
                    let bytes: Vec<u8> = pipe.bytes[1 - end].drain(..take).collect();
                    self.delivered_bytes += bytes.len() as u64;
                    self.handle(to, Input::StreamData { stream, bytes: &bytes });
                    busy = true;
                } else if pipe.bytes[1 - end].is_empty() && pipe.finished[1 - end] {
                    self.pipes.remove(at);
                    self.handle(to, Input::StreamClosed { stream, why: StreamEnd::Finished });
                    return true;
                }
            }
        }
        busy
    }

    /// Everything that happens without time passing.
    pub fn settle(&mut self) {
        for _ in 0..100_000 {
            if !self.step() {
                return;
            }
        }
        panic!("livelock at {}", self.now);
    }

    /// One kind of thing that happens without time passing, in turns; `false` if nothing did.
    pub fn small_step(&mut self, turn: usize) -> bool {
        let side = turn / 2 % 2;
        match turn % 5 {
            4 => self.pass(),
            even if even % 2 == 0 => self.drain(side),
            _ => self.sync(side),
        }
    }

    /// A little of what happens without time passing; `false` if nothing did.
    pub fn step(&mut self) -> bool {
        let mut busy = false;
        for side in 0..self.sides.len() {
            busy |= self.drain(side);
            if !self.sides[side].slow {
                busy |= self.sync(side);
            }
        }
        busy | self.pass()
    }

    /// The store of `side` is what it was when `disk` was copied.
    pub fn roll_back(&mut self, side: usize, disk: &Disk) {
        self.crash(side);
        self.sides[side].disk.clone_from(disk);
        self.start(side);
    }

    /// The feeds of one author on the disk of `side`, oldest first.
    pub fn feeds(&self, side: usize, mine: bool) -> Vec<record::Feed> {
        let (first, last) = (Key::Feed(FeedNo(0)).encode(), Key::Feed(FeedNo(u32::MAX)).encode());
        let feeds =
            self.sides[side].disk.range(first..=last).map(|(_, value)| record::Feed::decode(value).unwrap());
        feeds.filter(|feed| feed.mine == mine).collect()
    }

    /// Lets time pass, from deadline to deadline, until `done`.
    pub fn drive_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        for _ in 0..10_000 {
            self.settle();
            if done(self) {
                return;
            }
            let next = self.sides.iter().filter_map(|side| side.node.as_ref()?.deadline());
            let next = next.chain(self.air.next()).min();
            let Some(next) = next else { panic!("nothing is left to happen, and not yet: {what}") };
            assert!(next > self.now, "a deadline that is now must bring an output: {what}");
            self.now = next;
            for side in 0..self.sides.len() {
                self.handle(side, Input::Tick);
            }
        }
        panic!("never: {what}");
    }
}

pub fn caller(id: u32) -> CallerId {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&id.to_be_bytes());
    CallerId(bytes)
}

pub fn page(disk: &Disk, range: &peerlink_core::api::KeyRange) -> Page {
    let mut page = Page { records: Vec::new(), complete: true };
    let mut left = range.max_bytes as usize;
    assert!(left <= PAGE_BYTES);
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

impl Pair {
    /// A fresh side with another identity.
    pub fn with_secret(side: usize, secret: u8) -> Side {
        let mut fresh = Self::new();
        fresh.sides[side].secret = IdentitySecret::new([secret; 32]).unwrap();
        fresh.sides[side].disk.clear();
        fresh.sides[side].node = None;
        fresh.sides[side].pending.clear();
        fresh.sides[side].loads.clear();
        fresh.sides.remove(side)
    }

    pub fn contact(&self, side: usize, peer: &PeerId) -> record::Contact {
        record::Contact::decode(&self.sides[side].disk[&Key::Contact(*peer).encode()]).unwrap()
    }
}

impl Side {
    fn restore(&self, side: usize) -> Node {
        let (now, disk) = &self.began;
        let seed = [self.starts * 2 + side as u8 + 100; 32];
        let config = Config { datagrams: self.datagrams, relay: self.relay, ..Config::default() };
        let mut restore = Restore::new(config, &self.secret, seed);
        for (key, value) in disk.iter().take_while(|(key, _)| key[0] < record::RESTORE_END) {
            restore.record(key, value).unwrap();
        }
        restore.start(*now, WallClock(wall(*now).0.saturating_add_signed(self.wrong_ms))).unwrap()
    }
}
