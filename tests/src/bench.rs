//! One node with everything around it in memory: a disk that is never late, and one stream to a [`Speaker`] that is
//! its contact.

use crate::speaker::{Speaker, record, take_record};
use bytes::Bytes;
use peerlink_core::api::{Answer, Command, Event, Input, KeyRange, Output, Page, StreamEnd};
use peerlink_core::bounded::List;
use peerlink_core::identity::{Identity, IdentitySecret};
use peerlink_core::ids::{CallerId, ConversationNo, Epoch, LoadId, Name, PeerId, StreamId, Tag};
use peerlink_core::limits::{BATCHES, LOADS};
use peerlink_core::record::{
    Contact, ContactState, Conversation, CorruptRecord, Key, KeyBytes, Kind, Profile, RESTORE_END,
    Record as _,
};
use peerlink_core::time::{Duration, Instant, WallClock};
use peerlink_core::wire::entry::{Body, Item, RunHead};
use peerlink_core::{Config, Node, Restore};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Seeds of the two identities.
const NODE: u8 = 1;
pub const SPEAKER: u8 = 2;
/// What one call may lead to at most, before somebody spins.
const OUTPUTS_OF_ONE_CALL: usize = 10_000;

#[derive(Debug)]
pub struct Bench {
    pub node: Node,
    pub now: Instant,
    pub disk: BTreeMap<KeyBytes, Bytes>,
    /// Everything that came out, but batches and questions, which are carried out.
    pub outputs: Vec<Output>,
    /// What the node wrote on each stream and nobody read yet.
    pub written: BTreeMap<StreamId, Vec<u8>>,
    pub closed: Vec<StreamId>,
    /// Dials that nobody answered yet.
    pub dialled: Vec<StreamId>,
    /// Questions that are not answered by themselves.
    pub hold_loads: bool,
    pub loads: Vec<(LoadId, KeyRange)>,
    next_accept: u64,
}

/// Where the speaker is said to be.
#[must_use]
pub fn address() -> SocketAddr {
    ([192, 0, 2, 1], 4711).into()
}

impl Bench {
    /// `reachable`: the node knows an address of its contact, and dials.
    ///
    /// # Panics
    /// If the node does not start from what the core itself calls good records.
    #[must_use]
    pub fn new(reachable: bool) -> Self {
        Self::from_disk(contact_records(reachable).into_iter().collect()).expect("good records")
    }

    /// A node that starts from this disk.
    ///
    /// # Errors
    /// What is wrong with the records.
    pub fn from_disk(disk: BTreeMap<KeyBytes, Bytes>) -> Result<Self, CorruptRecord> {
        let now = Instant::from_micros(1_000_000);
        let node = start(now, &disk)?;
        let mut bench = Self {
            node,
            now,
            disk,
            outputs: Vec::new(),
            written: BTreeMap::new(),
            closed: Vec::new(),
            dialled: Vec::new(),
            hold_loads: false,
            loads: Vec::new(),
            next_accept: 1,
        };
        bench.run();
        Ok(bench)
    }

    #[must_use]
    pub fn peer() -> PeerId {
        let secret = IdentitySecret::new([NODE; 32]).expect("a seed");
        Identity::new(&secret).expect("a good key").peer()
    }

    pub fn accept(&mut self) -> StreamId {
        let stream = StreamId(self.next_accept);
        self.next_accept += 2;
        self.node.handle(self.now, Input::StreamAccepted { stream, remote: address() });
        self.run();
        stream
    }

    /// Gives the node these bytes, at most `step` at once and never more than it wants; stops where it wants none.
    pub fn give(&mut self, stream: StreamId, bytes: &[u8], step: usize) -> usize {
        let mut rest = bytes;
        loop {
            let most = self.node.read_budget(stream).min(step.max(1)).min(rest.len());
            let (now, later) = rest.split_at(most);
            if now.is_empty() {
                return bytes.len() - rest.len();
            }
            self.node.handle(self.now, Input::StreamData { stream, bytes: now });
            rest = later;
        }
    }

    pub fn handle(&mut self, input: Input<'_>) {
        self.node.handle(self.now, input);
        self.run();
    }

    pub fn command(&mut self, command: Command) {
        let _refused = self.node.command(self.now, command);
        self.run();
    }

    /// Lets time pass and whatever fell due happen.
    ///
    /// # Panics
    /// If the node has nothing to say and asks to be called at once all the same.
    pub fn pass(&mut self, time: Duration) {
        self.now += time;
        self.handle(Input::Tick);
        if let Some(deadline) = self.node.deadline() {
            assert!(deadline > self.now, "a deadline that is now must bring an output");
        }
    }

    /// Carries out everything that comes out.
    ///
    /// # Panics
    /// If that does not end, or if a batch or a question is more than the limits allow.
    pub fn run(&mut self) {
        for _ in 0..OUTPUTS_OF_ONE_CALL {
            let Some(output) = self.node.poll() else { return };
            match &output {
                Output::Persist(batch) => {
                    for (key, value) in batch.writes.clone() {
                        match value {
                            Some(value) => self.disk.insert(key, value),
                            None => self.disk.remove(&key),
                        };
                    }
                    self.node.handle(self.now, Input::Persisted { batch: batch.id });
                    continue;
                }
                Output::Load { load, range } => {
                    self.loads.push((*load, range.clone()));
                    assert!(self.loads.len() <= LOADS + BATCHES);
                    if !self.hold_loads {
                        self.answer();
                    }
                    continue;
                }
                Output::Write { stream, bytes } => {
                    self.written.entry(*stream).or_default().extend_from_slice(bytes);
                    self.node.handle(self.now, Input::StreamWritten { stream: *stream });
                }
                Output::Dial { stream, .. } => self.dialled.push(*stream),
                Output::Close { stream, .. } => {
                    self.closed.push(*stream);
                    self.node
                        .handle(self.now, Input::StreamClosed { stream: *stream, why: StreamEnd::Local });
                }
                Output::Datagram { .. } | Output::ReadReady { .. } | Output::Event(_) => {}
            }
            self.outputs.push(output);
        }
        panic!("one call led to more than {OUTPUTS_OF_ONE_CALL} outputs");
    }

    /// Answers the oldest question.
    pub fn answer(&mut self) {
        if self.loads.is_empty() {
            return;
        }
        let (load, range) = self.loads.remove(0);
        let answer = Answer::Page(self.page(&range));
        self.node.handle(self.now, Input::Loaded { load, answer });
    }

    fn page(&self, range: &KeyRange) -> Page {
        let mut page = Page { records: Vec::new(), complete: true };
        if range.first > range.last {
            return page;
        }
        let mut left = range.max_bytes as usize;
        for (key, value) in self.disk.range(range.first.clone()..=range.last.clone()) {
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

    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.outputs.iter().filter_map(|output| match output {
            Output::Event(event) => Some(event),
            _ => None,
        })
    }

    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.events().any(|event| matches!(event, Event::Connected { .. }))
    }

    /// A session that the speaker opened, as it should.
    ///
    /// # Panics
    /// If the node and the speaker do not understand each other.
    pub fn session(&mut self) -> (StreamId, Speaker) {
        self.try_session().expect("message 1 is answered, and so that it checks out")
    }

    /// `None` if the node does not answer.
    pub fn try_session(&mut self) -> Option<(StreamId, Speaker)> {
        let peer = Self::peer();
        let mut speaker = Speaker::new(SPEAKER, &peer);
        let stream = self.accept();
        self.give(stream, &record(&speaker.first(&peer)), usize::MAX);
        self.run();
        let second = self.written.get_mut(&stream).and_then(take_record)?;
        // No session before, no secret, no nickname.
        let payload = [speaker.introduction(false), vec![0, 0, 0]].concat();
        let third = speaker.third(&second, &payload)?;
        self.give(stream, &record(&third), usize::MAX);
        self.run();
        Some((stream, speaker))
    }

    /// Starts another node from what this one stored.
    ///
    /// # Errors
    /// What is wrong with the records.
    pub fn restart(&self) -> Result<Node, CorruptRecord> {
        start(self.now, &self.disk)
    }
}

/// A frame of entries by whoever sends it: the head of the run, then the items one behind the other.
///
/// # Panics
/// If it becomes longer than a frame may be.
#[must_use]
pub fn entries(head: &RunHead, items: &[Item<'_>]) -> Vec<u8> {
    let mut body = postcard::to_allocvec(head).expect("a head");
    for item in items {
        body.extend(postcard::to_allocvec(item).expect("an item"));
    }
    let length = u16::try_from(body.len()).expect("a short frame").to_be_bytes();
    // The length as a variable-length integer of four bytes (RFC 9000, section 16).
    [&[0x04, 0x80, 0, length[0], length[1]][..], &body].concat()
}

/// A message as its author's first is, but for what a test changes.
#[must_use]
pub fn item(lamport: u64, body: Body<'_>) -> Item<'_> {
    Item {
        kind: Kind::Text,
        lamport,
        claimed: WallClock(1),
        caller: CallerId([0; 16]),
        heads: List::new(),
        link: None,
        replaces: None,
        tag: Tag([0; 16]),
        body,
    }
}

fn start(now: Instant, disk: &BTreeMap<KeyBytes, Bytes>) -> Result<Node, CorruptRecord> {
    let secret = IdentitySecret::new([NODE; 32]).expect("a seed");
    let mut restore = Restore::new(Config::default(), &secret, [7; 32]);
    for (key, value) in disk {
        if key.first().is_some_and(|table| *table < RESTORE_END) {
            restore.record(key, value)?;
        }
    }
    restore.start(now, WallClock(1_790_000_000_000))
}

/// What a contact is on disk, and the conversation with it.
#[must_use]
pub fn contact(peer: PeerId, no: u32, name: &str, address: Option<SocketAddr>) -> [(KeyBytes, Bytes); 2] {
    let contact = Contact {
        state: ContactState::Established,
        petname: Name::new(name).expect("a name"),
        nickname: None,
        blocked: false,
        verified: false,
        conversation: ConversationNo(no),
        ticket_addresses: List::of(address),
        record_addresses: List::new(),
        relays: List::new(),
        record_seq: 0,
        record: Bytes::new(),
        added: WallClock(1),
    };
    let conversation = Conversation { peer, received: 0, read: 0, erase: None };
    [
        (Key::Contact(peer).encode(), contact.encode()),
        (Key::Conversation(ConversationNo(no)).encode(), conversation.encode()),
    ]
}

fn contact_records(reachable: bool) -> Vec<(KeyBytes, Bytes)> {
    let profile = Profile {
        epoch: Epoch([3; 16]),
        start: 1,
        nickname: None,
        advertised: List::new(),
        record_seq: 0,
        record_addresses: List::new(),
        expire_ms: None,
    };
    let known = contact(Speaker::peer(SPEAKER), 1, "speaker", reachable.then(address));
    [(Key::Profile.encode(), profile.encode())].into_iter().chain(known).collect()
}
