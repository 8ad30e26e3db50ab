//! A contact in bad faith, not made of the core: it has good keys and a good ticket, holds its sessions as a node does,
//! and does at moments of the script what no node would ever do. To its driver it looks like a node.

mod deeds;
mod forge;

use crate::fate::{Dice, Fates, Purpose};
use crate::limits::{HOSTILE_IDLE, HOSTILE_WAIT, HOSTILE_WRITES};
use crate::op::Mischief;
use crate::speaker::{Speaker, record, take_record};
use bytes::Bytes;
use forge::Position;
use peerlink_core::api::{Input, Output};
use peerlink_core::identity::{Identity, IdentitySecret, conversation_id};
use peerlink_core::ids::{ConversationId, EntryHash, Epoch, PeerId, StreamId};
use peerlink_core::limits::{CREDIT_BYTES, DIAL_TIMEOUT, STREAM_BUFFER_BYTES};
use peerlink_core::time::Instant;
use peerlink_core::wire::entry::{Author, Run};
use peerlink_core::wire::frame::{Frame, Frames};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

/// Somebody honest who takes it for a contact.
#[derive(Debug)]
struct Victim {
    peer: PeerId,
    conversation: ConversationId,
    secret: [u8; 16],
    address: SocketAddr,
    /// Its own feed towards the victim: the next number, the hash before it, logical time.
    epoch: Epoch,
    next: u64,
    prev: EntryHash,
    lamport: u64,
    /// What came of the victim's feed, without holes.
    heard: BTreeMap<Epoch, Vec<EntryHash>>,
    version: u64,
    /// What waits for a session.
    deeds: VecDeque<(Mischief, u64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Dialling,
    /// The answer to the first message is awaited.
    Hello,
    Open,
    /// It was dialled, and says nothing at all.
    Mute,
}

#[derive(Debug)]
struct Talk {
    victim: usize,
    stage: Stage,
    speaker: Speaker,
    /// In whose name it introduces itself, if not in its own.
    posing: Option<PeerId>,
    /// What it sends instead of a handshake.
    garbage: Option<Vec<u8>>,
    inbound: Vec<u8>,
    outbound: VecDeque<Bytes>,
    busy: bool,
    heard: Instant,
}

/// An own entry that a victim has shown to it: author, epoch, number, hash.
pub(crate) type Shown = (PeerId, Epoch, u64, EntryHash);

#[derive(Debug)]
pub(crate) struct Hostile {
    secret: IdentitySecret,
    peer: PeerId,
    dice: Dice,
    now: Instant,
    victims: Vec<Victim>,
    talks: BTreeMap<StreamId, Talk>,
    next_dial: u64,
    out: VecDeque<Output>,
    due: Instant,
    shown: Vec<Shown>,
}

impl Hostile {
    /// `victims`: who they are, by which ticket secret they take it in, and where they are.
    pub(crate) fn new(
        secret: &IdentitySecret,
        seed: u64,
        now: Instant,
        victims: impl Iterator<Item = (PeerId, [u8; 16], SocketAddr)>,
    ) -> Option<Self> {
        let peer = Identity::new(secret)?.peer();
        let mut dice = Dice::new(Fates::new(seed));
        let victims = victims.map(|(victim, secret, address)| Victim {
            peer: victim,
            conversation: conversation_id(&peer, &victim),
            secret,
            address,
            epoch: Epoch(some(&mut dice)),
            next: 1,
            prev: EntryHash::NONE,
            lamport: 0,
            heard: BTreeMap::new(),
            version: 0,
            deeds: VecDeque::new(),
        });
        let victims = victims.collect();
        let (talks, out, shown) = (BTreeMap::new(), VecDeque::new(), Vec::new());
        Some(Self {
            secret: secret.clone(),
            peer,
            dice,
            now,
            victims,
            talks,
            next_dial: 2,
            out,
            due: now,
            shown,
        })
    }

    pub(crate) fn moved(&mut self, victim: usize, address: SocketAddr) {
        self.victims[victim].address = address;
    }

    /// To do something to a victim, as soon as there is a session with it.
    pub(crate) fn plan(&mut self, now: Instant, victim: usize, deed: Mischief, salt: u64) {
        self.now = now;
        self.victims[victim].deeds.push_back((deed, salt));
        self.work(victim);
    }

    /// Entries of victims that it was sent since the last call.
    pub(crate) fn take_shown(&mut self) -> Vec<Shown> {
        std::mem::take(&mut self.shown)
    }

    // --- as a node does --------------------------------------------------------------------------------------

    pub(crate) fn handle(&mut self, now: Instant, input: &Input<'_>) {
        self.now = now;
        match input {
            Input::Tick if now >= self.due => self.wake(),
            Input::StreamAccepted { stream, .. } => {
                self.out.push_back(Output::Close { stream: *stream, flush: false });
            }
            Input::StreamConnected { stream, .. } => self.connected(*stream),
            Input::DialFailed { stream, .. } | Input::StreamClosed { stream, .. } => {
                self.talks.remove(stream);
            }
            Input::StreamData { stream, bytes } => {
                if let Some(talk) = self.talks.get_mut(stream) {
                    talk.inbound.extend_from_slice(bytes);
                    talk.heard = now;
                }
                self.read(*stream);
            }
            Input::StreamWritten { stream } => {
                if let Some(talk) = self.talks.get_mut(stream) {
                    talk.busy = false;
                }
                self.flush(*stream);
            }
            _ => {}
        }
    }

    pub(crate) fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        Some(if self.out.is_empty() { self.due } else { self.now })
    }

    pub(crate) fn read_budget(&self, stream: StreamId) -> usize {
        self.talks.get(&stream).map_or(0, |talk| STREAM_BUFFER_BYTES.saturating_sub(talk.inbound.len()))
    }

    /// Dials whom it has no session with, gives up what is dead, and asks what is quiet whether it is.
    fn wake(&mut self) {
        self.due = self.now + HOSTILE_WAIT;
        let silent = |talk: &Talk| self.now.saturating_since(talk.heard) > HOSTILE_IDLE;
        let dead: Vec<StreamId> =
            self.talks.iter().filter(|(_, talk)| silent(talk)).map(|(stream, _)| *stream).collect();
        for stream in dead {
            self.talks.remove(&stream);
            self.out.push_back(Output::Close { stream, flush: false });
        }
        for victim in 0..self.victims.len() {
            let known =
                |talk: &Talk| talk.victim == victim && talk.garbage.is_none() && talk.posing.is_none();
            match self.talks.iter().find(|(_, talk)| known(talk)).map(|(stream, _)| *stream) {
                None => drop(self.dial(victim, None, None)),
                Some(stream) => self.say(stream, &forge::frame(&Frame::Ping(1))),
            }
        }
    }

    fn dial(&mut self, victim: usize, posing: Option<PeerId>, garbage: Option<Vec<u8>>) -> StreamId {
        let stream = StreamId(self.next_dial);
        self.next_dial += 2;
        let (peer, remote) = (self.victims[victim].peer, self.victims[victim].address);
        let speaker = Speaker::of(*self.secret.expose(), some(&mut self.dice), &peer);
        let (inbound, outbound) = (Vec::new(), VecDeque::new());
        let talk = Talk {
            victim,
            stage: Stage::Dialling,
            speaker,
            posing,
            garbage,
            inbound,
            outbound,
            busy: false,
            heard: self.now,
        };
        self.talks.insert(stream, talk);
        self.out.push_back(Output::Dial { stream, remote, timeout: DIAL_TIMEOUT });
        stream
    }

    fn connected(&mut self, stream: StreamId) {
        let Some(talk) = self.talks.get_mut(&stream) else { return };
        let first = match talk.garbage.take() {
            Some(garbage) => {
                talk.stage = Stage::Mute;
                garbage
            }
            None => {
                talk.stage = Stage::Hello;
                record(&talk.speaker.first(&self.victims[talk.victim].peer))
            }
        };
        talk.heard = self.now;
        self.send(stream, first);
    }

    /// Hands bytes over, as many at a time as a carrier takes.
    fn send(&mut self, stream: StreamId, bytes: Vec<u8>) {
        let Some(talk) = self.talks.get_mut(&stream) else { return };
        let mut bytes = Bytes::from(bytes);
        while !bytes.is_empty() {
            talk.outbound.push_back(bytes.split_to(HOSTILE_WRITES.min(bytes.len())));
        }
        self.flush(stream);
    }

    fn flush(&mut self, stream: StreamId) {
        let Some(talk) = self.talks.get_mut(&stream).filter(|talk| !talk.busy) else { return };
        if let Some(bytes) = talk.outbound.pop_front() {
            talk.busy = true;
            self.out.push_back(Output::Write { stream, bytes });
        }
    }

    /// Seals frames into a record, if the session is open.
    fn say(&mut self, stream: StreamId, frames: &[u8]) {
        let open = self.talks.get_mut(&stream).filter(|talk| talk.stage == Stage::Open);
        if let Some(sealed) = open.map(|talk| talk.speaker.say(frames)) {
            self.send(stream, sealed);
        }
    }

    fn read(&mut self, stream: StreamId) {
        while let Some(talk) = self.talks.get_mut(&stream) {
            let Some(record) = take_record(&mut talk.inbound) else { return };
            let good = match talk.stage {
                Stage::Hello => self.hello(stream, &record),
                Stage::Open => self.hear(stream, &record),
                Stage::Dialling | Stage::Mute => true,
            };
            if !good {
                self.talks.remove(&stream);
                self.out.push_back(Output::Close { stream, flush: false });
            }
        }
    }

    fn hello(&mut self, stream: StreamId, second: &[u8]) -> bool {
        let Some(talk) = self.talks.get_mut(&stream) else { return false };
        let victim = &self.victims[talk.victim];
        let introduction = match &talk.posing {
            None => talk.speaker.introduction(false),
            Some(peer) => talk.speaker.introduction_as(peer.as_bytes(), false),
        };
        // No session before this one, the ticket's secret, no nickname.
        let payload = [&introduction[..], &[0, 1], &victim.secret, &[0]].concat();
        let Some(third) = talk.speaker.third(second, &payload) else { return false };
        talk.stage = Stage::Open;
        let index = talk.victim;
        self.send(stream, record(&third));
        if self.talks.get(&stream).is_some_and(|talk| talk.posing.is_some()) {
            self.pose(stream, index);
        } else {
            self.answer(stream, index);
            self.work(index);
        }
        true
    }

    /// A have-vector of what it was sent, as a node would give it.
    fn answer(&mut self, stream: StreamId, index: usize) {
        let victim = &mut self.victims[index];
        victim.version += 1;
        let feeds = victim
            .heard
            .iter()
            .filter_map(|(epoch, hashes)| Some((*epoch, hashes.len() as u64, *hashes.last()?)));
        let have = forge::have(victim.epoch, victim.version, CREDIT_BYTES, feeds.collect());
        self.say(stream, &have);
    }

    fn hear(&mut self, stream: StreamId, sealed: &[u8]) -> bool {
        let Some(talk) = self.talks.get_mut(&stream) else { return false };
        let index = talk.victim;
        let Some(frames) = talk.speaker.hear(sealed) else { return false };
        let mut entries = false;
        for frame in Frames(&frames) {
            match frame {
                Ok(Frame::Ping(nonce)) => self.say(stream, &forge::frame(&Frame::Pong(nonce))),
                Ok(Frame::Entries(run)) => {
                    entries = true;
                    self.listen(index, run);
                }
                Ok(Frame::Close(_)) | Err(_) => return false,
                Ok(_) => {}
            }
        }
        // It acknowledges as it likes.
        if entries && self.dice.chance(Purpose::Act, 0, 500_000) {
            self.answer(stream, index);
        }
        true
    }

    /// Keeps the hashes of what a victim sends.
    fn listen(&mut self, index: usize, mut run: Run<'_>) {
        let (author, epoch, mut seq, mut prev) =
            (run.head.author, run.head.epoch, run.head.first, run.head.prev);
        let victim = &mut self.victims[index];
        while author == Author::Sender
            && let Some(Ok(item)) = run.next_item()
        {
            let position = Position {
                conversation: &victim.conversation,
                author: &victim.peer,
                epoch: &epoch,
                seq,
                prev,
            };
            prev = forge::entry_hash(position, &item);
            victim.lamport = victim.lamport.max(item.lamport);
            let hashes = victim.heard.entry(epoch).or_default();
            if hashes.len() as u64 + 1 == seq {
                hashes.push(prev);
            }
            self.shown.push((victim.peer, epoch, seq, prev));
            seq += 1;
        }
    }

    /// Does what it planned to do to a victim, if there is a session.
    fn work(&mut self, index: usize) {
        let open = |talk: &Talk| talk.victim == index && talk.stage == Stage::Open && talk.posing.is_none();
        while let Some(stream) = self.talks.iter().find(|(_, talk)| open(talk)).map(|(stream, _)| *stream) {
            let Some((deed, salt)) = self.victims[index].deeds.pop_front() else { return };
            self.perform(stream, index, deed, salt);
        }
    }
}

/// Any bytes.
fn some<const N: usize>(dice: &mut Dice) -> [u8; N] {
    let mut out = [0; N];
    for chunk in out.chunks_mut(32) {
        chunk.copy_from_slice(&dice.bytes(Purpose::Attack, 0)[..chunk.len()]);
    }
    out
}
