//! Relaying for others: packets between clients that this node serves, never seeing inside.
//!
//! It also tells anybody from where his packets come, as any STUN server does.
//!
//! A client is a pseudonym. It opens queues under numbers that say nothing; whoever knows such a number may send there,
//! and gets answers back through a port that exists for the two of them alone. Nothing is stored. What a client does not
//! take in time is lost like any packet, oldest sender's turn first: each sender has a short queue of its own, and they
//! are served in turns.

use crate::api::{Gauge, Output, PathKind};
use crate::bounded::Queue;
use crate::bucket::Bucket;
use crate::cx::Cx;
use crate::ids::{PeerId, QueueId, StreamId};
use crate::limits::{
    BACK_PORTS, CLIENTS, FORWARD_BURST, FORWARD_RATE, FORWARDED, FORWARDED_BYTES, FORWARDERS, KNOCK_BURST,
    KNOCK_RATE, PACKET_BYTES, PLAINTEXT_BYTES, QUEUES, QUEUES_SERVED, RECORD_FRAMES, STUN_BURST, STUN_RATE,
};
use crate::links::{Links, Role};
use crate::wire::Malformed;
use crate::wire::frame::{CloseReason, Frame, Frames, NotRelayed, OpenQueue, Port, Undelivered};
use crate::wire::stun::{Change, Failure, Message, Success};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use bytes::Bytes;
use core::net::SocketAddr;

#[derive(Debug)]
struct Client {
    link: StreamId,
    /// It was not told yet from where its packets come.
    greet: bool,
    queues: BTreeSet<QueueId>,
    /// Who sends to this client by which queue, and the ports that answers go to.
    senders: BTreeMap<(PeerId, QueueId), u32>,
    back: BTreeMap<u32, (PeerId, QueueId)>,
    next_back: u32,
    /// Packets for it, by sender.
    waiting: BTreeMap<PeerId, Queue<(Port, Vec<u8>)>>,
    /// Bytes of these.
    bytes: usize,
    /// Whose turn was last.
    turn: Option<PeerId>,
    /// What became of what it sent.
    undelivered: Queue<Undelivered>,
    sends: Bucket,
}

impl Client {
    fn new(cx: &Cx, link: StreamId) -> Self {
        Self {
            link,
            greet: true,
            queues: BTreeSet::new(),
            senders: BTreeMap::new(),
            back: BTreeMap::new(),
            next_back: 0,
            waiting: BTreeMap::new(),
            bytes: 0,
            turn: None,
            undelivered: Queue::new(FORWARDED),
            sends: Bucket::new(cx.now, FORWARD_RATE, FORWARD_BURST),
        }
    }

    fn undelivered(&mut self, to: Port, why: NotRelayed) {
        let said = self.undelivered.iter().any(|other| other.to == to);
        if !said {
            // Full: the packets stay unanswered, which says the same later.
            let _unsaid = self.undelivered.push(Undelivered { to, why });
        }
    }

    /// The port through which this client answers `sender`.
    fn port_back(&mut self, sender: PeerId, queue: QueueId) -> u32 {
        if let Some(port) = self.senders.get(&(sender, queue)) {
            return *port;
        }
        if self.back.len() >= BACK_PORTS
            && let Some((_, oldest)) = self.back.pop_first()
        {
            self.senders.remove(&oldest);
        }
        self.next_back = self.next_back.wrapping_add(1);
        self.back.insert(self.next_back, (sender, queue));
        self.senders.insert((sender, queue), self.next_back);
        self.next_back
    }

    /// `false`: there is no room. Beyond what may wait in all, whoever has most there loses his oldest packet, so that who
    /// sends much takes nothing from who sends little.
    fn push(&mut self, sender: PeerId, from: Port, packet: &[u8]) -> bool {
        if !self.waiting.contains_key(&sender) && self.waiting.len() >= FORWARDERS {
            return false;
        }
        if self.waiting.get(&sender).is_some_and(Queue::is_full) {
            return false;
        }
        while self.bytes + packet.len() > FORWARDED_BYTES {
            let longest = self.waiting.iter().max_by_key(|(_, queue)| queue.len()).map(|(id, _)| *id);
            let Some(longest) = longest.filter(|longest| *longest != sender) else { return false };
            self.take(longest);
        }
        let queue = self.waiting.entry(sender).or_insert_with(|| Queue::new(FORWARDED));
        let pushed = queue.push((from, packet.to_vec())).is_ok();
        self.bytes += if pushed { packet.len() } else { 0 };
        pushed
    }

    /// The oldest packet of a sender.
    fn take(&mut self, sender: PeerId) -> Option<(Port, Vec<u8>)> {
        let queue = self.waiting.get_mut(&sender)?;
        let taken = queue.pop();
        if queue.is_empty() {
            self.waiting.remove(&sender);
        }
        self.bytes = self.bytes.saturating_sub(taken.as_ref().map_or(0, |(_, packet)| packet.len()));
        taken
    }

    /// Fills a record with one packet of each sender in turn, as long as there is room.
    fn fill(&mut self, record: &mut Vec<u8>) -> u64 {
        let mut count = 0;
        while record.len() + PACKET_BYTES + 64 < PLAINTEXT_BYTES {
            let next = match self.turn {
                Some(last) => {
                    let after = (core::ops::Bound::Excluded(last), core::ops::Bound::Unbounded);
                    self.waiting.range(after).next().or_else(|| self.waiting.first_key_value())
                }
                None => self.waiting.first_key_value(),
            };
            let Some(sender) = next.map(|(sender, _)| *sender) else { break };
            self.turn = Some(sender);
            if let Some((from, packet)) = self.take(sender) {
                Frame::Relayed { from, packet: &packet }.encode(record);
                count += 1;
            }
        }
        count
    }
}

#[derive(Debug)]
struct Opened {
    owner: PeerId,
    knock: Option<Bucket>,
}

#[derive(Debug)]
pub(crate) struct Relaying {
    on: bool,
    clients: BTreeMap<PeerId, Client>,
    queues: BTreeMap<QueueId, Opened>,
    answers: Option<Bucket>,
}

impl Relaying {
    pub(crate) const fn new(on: bool) -> Self {
        Self { on, clients: BTreeMap::new(), queues: BTreeMap::new(), answers: None }
    }

    /// Somebody asks from where his packets come (STUN, RFC 8489): any client of that protocol may. The answer is not longer
    /// than the question, or has nothing in it but the address.
    pub(crate) fn stun(&mut self, cx: &mut Cx, remote: SocketAddr, datagram: &[u8]) {
        if !self.on {
            return;
        }
        let Ok(Message::Request(request)) = Message::decode(datagram) else { return };
        let now = cx.now;
        if !self.answers.get_or_insert_with(|| Bucket::new(now, STUN_RATE, STUN_BURST)).take(now, 1) {
            cx.stats.not_forwarded += 1;
            return;
        }
        let mut out = Vec::new();
        if let Some(failure) = Failure::unknown_attributes(&request) {
            failure.encode(&mut out);
        } else if request.change != Change::default() {
            Failure::cannot_change(&request).encode(&mut out);
        } else {
            let mapped = SocketAddr::new(remote.ip().to_canonical(), remote.port());
            let success = Success { transaction: request.transaction, mapped, other: None, origin: None };
            success.encode(&mut out, datagram.len());
        }
        cx.stats.datagrams_sent += 1;
        cx.out.push_back(Output::Datagram { remote, ttl: None, bytes: Bytes::from(out) });
    }

    /// Somebody asks to be served.
    pub(crate) fn admit(&mut self, cx: &mut Cx, links: &mut Links, stream: StreamId, who: PeerId) {
        let known = self.clients.contains_key(&who);
        let direct = links.get(stream).is_some_and(|link| link.path() != PathKind::Relayed);
        if !self.on || !direct || (!known && self.clients.len() >= CLIENTS) {
            if links.proceed(cx, stream, None, None) {
                links.end(cx, stream, CloseReason::Unsupported);
            } else {
                links.abort(cx, stream);
            }
            return;
        }
        if let Some(link) = links.get_mut(stream) {
            link.role = Role::Client;
        }
        if !links.proceed(cx, stream, None, None) {
            links.abort(cx, stream);
            return;
        }
        if let Some(before) = self.drop_client(&who) {
            links.end(cx, before, CloseReason::Replaced);
        }
        self.clients.insert(who, Client::new(cx, stream));
        cx.touch(who);
    }

    fn drop_client(&mut self, who: &PeerId) -> Option<StreamId> {
        let client = self.clients.remove(who)?;
        for id in client.queues {
            self.queues.remove(&id);
        }
        Some(client.link)
    }

    /// A link to a client is over.
    pub(crate) fn over(&mut self, stream: StreamId, who: &PeerId) {
        if self.clients.get(who).is_some_and(|client| client.link == stream) {
            self.drop_client(who);
        }
    }

    /// A record of a client. `false`: the session is over.
    pub(crate) fn record(&mut self, cx: &mut Cx, links: &mut Links, stream: StreamId, record: &[u8]) -> bool {
        let Some(who) = links.get(stream).and_then(|link| link.peer) else { return false };
        for (count, frame) in Frames(record).enumerate() {
            let taken = match frame {
                Ok(_) if count >= RECORD_FRAMES => Err(Malformed("too many frames")),
                Ok(Frame::Close(_)) => return false,
                Ok(frame) => self.frame(cx, links, stream, who, &frame),
                Err(malformed) => Err(malformed),
            };
            if taken.is_err() {
                cx.stats.misbehaved += 1;
                return false;
            }
        }
        links.arm(cx, stream);
        true
    }

    fn frame(
        &mut self,
        cx: &mut Cx,
        links: &mut Links,
        stream: StreamId,
        who: PeerId,
        frame: &Frame<'_>,
    ) -> Result<(), Malformed> {
        match frame {
            Frame::OpenQueue(queue) => self.open(cx, who, queue),
            Frame::CloseQueue(id) => {
                if let Some(client) = self.clients.get_mut(&who)
                    && client.queues.remove(id)
                {
                    self.queues.remove(id);
                }
            }
            Frame::Forward { to, packet } => {
                if packet.len() > PACKET_BYTES {
                    return Err(Malformed("a packet that is too long"));
                }
                self.forward(cx, who, *to, packet);
            }
            Frame::Ping(nonce) => {
                if let Some(link) = links.get_mut(stream) {
                    link.session.got_ping(*nonce);
                }
                cx.touch(who);
            }
            Frame::Pong(nonce) => {
                if let Some(link) = links.get_mut(stream) {
                    let _not_shown = link.forwards_came(*nonce, cx.now);
                }
            }
            _ => return Err(Malformed("a frame that clients do not send")),
        }
        Ok(())
    }

    /// Who opened a number first has it as long as he is here: the only other one who can know it is who sends there.
    fn open(&mut self, cx: &mut Cx, who: PeerId, queue: &OpenQueue) {
        let Some(client) = self.clients.get_mut(&who) else { return };
        let taken = self.queues.get(&queue.id).is_some_and(|opened| opened.owner != who);
        let full = client.queues.len() >= QUEUES || self.queues.len() >= QUEUES_SERVED;
        let too_many = !client.queues.contains(&queue.id) && full;
        if taken || too_many {
            client.undelivered(Port::Queue(queue.id), NotRelayed::TooMuch);
            cx.touch(who);
            return;
        }
        let knock = queue.knock.then(|| Bucket::new(cx.now, KNOCK_RATE, KNOCK_BURST));
        client.queues.insert(queue.id);
        self.queues.insert(queue.id, Opened { owner: who, knock });
    }

    fn forward(&mut self, cx: &mut Cx, who: PeerId, to: Port, packet: &[u8]) {
        let Some(client) = self.clients.get_mut(&who) else { return };
        let cost = u32::try_from(packet.len()).unwrap_or(u32::MAX);
        if !client.sends.take(cx.now, cost) {
            cx.stats.not_forwarded += 1;
            return;
        }
        let target = match to {
            Port::Queue(id) => self.queues.get_mut(&id).map(|opened| {
                let passes = opened.knock.as_mut().is_none_or(|knock| knock.take(cx.now, cost));
                (opened.owner, id, passes)
            }),
            Port::Back(port) => client.back.get(&port).map(|(sender, queue)| (*sender, *queue, true)),
        };
        let passed = match target {
            Some((_, _, false)) => false,
            Some((owner, queue, true)) => self.clients.get_mut(&owner).is_some_and(|receiver| {
                let from = match to {
                    Port::Queue(_) => Port::Back(receiver.port_back(who, queue)),
                    Port::Back(_) => Port::Queue(queue),
                };
                receiver.push(who, from, packet)
            }),
            None => {
                if let Some(client) = self.clients.get_mut(&who) {
                    client.undelivered(to, NotRelayed::Nobody);
                }
                cx.touch(who);
                false
            }
        };
        if let Some((owner, ..)) = target.filter(|_| passed) {
            cx.touch(owner);
        } else {
            cx.stats.not_forwarded += 1;
        }
    }

    /// Sends what waits for clients that were touched.
    pub(crate) fn work(&mut self, cx: &mut Cx, links: &mut Links) {
        if self.clients.is_empty() {
            return;
        }
        let touched: Vec<PeerId> =
            cx.touched.iter().filter(|id| self.clients.contains_key(*id)).copied().collect();
        for who in touched {
            let Some(client) = self.clients.get_mut(&who) else { continue };
            let stream = client.link;
            let Some(link) = links.get_mut(stream).filter(|link| link.is_writable()) else { continue };
            let says = client.greet || !client.undelivered.is_empty() || !client.waiting.is_empty();
            if !(says || link.session.wants_record()) {
                continue;
            }
            let mut record = link.session.begin_record(&mut cx.rng, cx.now);
            if core::mem::take(&mut client.greet) {
                Frame::Observed(link.remote).encode(&mut record);
            }
            while let Some(undelivered) = client.undelivered.pop() {
                Frame::Undelivered(undelivered).encode(&mut record);
            }
            let forwards = client.fill(&mut record);
            cx.stats.forwarded += forwards;
            if forwards > 0 {
                link.forwarded(cx.now);
            }
            if !links.write(cx, stream, record) {
                links.abort(cx, stream);
                self.over(stream, &who);
            }
        }
    }

    pub(crate) fn held(&self) -> impl Iterator<Item = Gauge> + '_ {
        let waiting = |client: &Client| Gauge::new("bytes for a client", client.bytes, FORWARDED_BYTES);
        self.clients.values().map(waiting)
    }

    /// The node stops.
    pub(crate) fn shutdown(&mut self, cx: &mut Cx, links: &mut Links) {
        self.on = false;
        for client in core::mem::take(&mut self.clients).into_values() {
            links.end(cx, client.link, CloseReason::Goodbye);
        }
        self.queues.clear();
    }
}
