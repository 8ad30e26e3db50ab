//! The relays that this node uses: its home relays, where its queues are, and those of peers that it wants to reach.
//!
//! To a relay a node is a pseudonym that no two relays share, and a queue is a number that only the two peers it is for
//! can compute. What passes are sealed packets of sessions that the relay has no part in: it can lose them, delay them,
//! repeat them, and nothing else.

use crate::api::{AttemptOutcome, DialFailure, Event, PathKind};
use crate::bounded::List;
use crate::cx::{Cx, Timer};
use crate::ids::{PeerId, QueueId, StreamId};
use crate::limits::{
    PACKET_BYTES, PLAINTEXT_BYTES, RECORD_FRAMES, RELAY_IDLE, RELAYS, RELAYS_EACH, RELAYS_USED,
};
use crate::links::{Link, Links};
use crate::path::dial::{Datagrams, Dial};
use crate::session::Keys;
use crate::time::Instant;
use crate::wire::Malformed;
use crate::wire::frame::{CloseReason, Frame, Frames, OpenQueue, Port};
use crate::wire::peer_record::Relay;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;

/// What came over a relay.
#[derive(Debug)]
pub(crate) enum Came {
    /// The relay serves us now.
    Up,
    Packet {
        from: Port,
        packet: Vec<u8>,
    },
    /// Nobody is behind this port.
    Nobody(Port),
    /// From where our packets come.
    Observed(SocketAddr),
    /// The relay ended the session.
    Over,
}

#[derive(Debug)]
struct Via {
    keys: Arc<Keys>,
    addresses: List<SocketAddr, RELAYS>,
    /// For which peer's sake it is here, if it is no home relay.
    whose: Option<PeerId>,
    home: bool,
    dial: Dial,
    link: Option<StreamId>,
    /// It answered: packets may go.
    up: bool,
    /// When it last was of use.
    used: Instant,
    opened: BTreeMap<QueueId, bool>,
}

#[derive(Debug)]
pub(crate) struct Vias {
    home: List<Relay, RELAYS>,
    map: BTreeMap<PeerId, Via>,
    /// What should be open at each home relay.
    wanted: BTreeMap<PeerId, BTreeMap<QueueId, bool>>,
    /// Links that this node ended; those who used them are told in the same turn.
    left: List<StreamId, RELAYS_USED>,
    /// This start is counted: handshakes may name it.
    ready: bool,
    stopping: bool,
}

impl Vias {
    pub(crate) const fn new() -> Self {
        Self {
            home: List::new(),
            map: BTreeMap::new(),
            wanted: BTreeMap::new(),
            left: List::new(),
            ready: false,
            stopping: false,
        }
    }

    pub(crate) fn home(&self) -> &List<Relay, RELAYS> {
        &self.home
    }

    /// These are the home relays from now on.
    pub(crate) fn set_home(&mut self, cx: &mut Cx, links: &mut Links, relays: List<Relay, RELAYS>) {
        self.home = relays;
        for (id, via) in &mut self.map {
            if core::mem::take(&mut via.home) && via.link.is_some() {
                // It may still be of use for a peer; its timer finds out.
                cx.timer(Timer::Relay(*id), RELAY_IDLE);
            }
        }
        for relay in self.home.clone().iter() {
            if let Some(via) = self.via(cx, links, *relay, None) {
                via.home = true;
                // What a peer says of this relay may have filled the list: what the user says has a place.
                if !via.addresses.contains(&relay.address) {
                    via.addresses.remove(0);
                    let _one_was_removed = via.addresses.push(relay.address);
                }
            }
        }
        self.reach_home(cx, links);
        self.wanted.retain(|id, _| self.home.iter().any(|relay| relay.peer == *id));
    }

    /// Starts reaching the home relays: this start is counted.
    pub(crate) fn all_reach(&mut self, cx: &mut Cx, links: &mut Links) {
        self.ready = true;
        self.reach_home(cx, links);
    }

    /// Asks the home relays whether they are there, and tries those now that do not serve us.
    pub(crate) fn reach_home(&mut self, cx: &mut Cx, links: &mut Links) {
        for relay in self.home.clone().iter() {
            self.probe(cx, links, &relay.peer);
            self.reach(cx, links, relay.peer);
        }
    }

    fn probe(&self, cx: &mut Cx, links: &mut Links, id: &PeerId) {
        if let Some(stream) = self.map.get(id).and_then(|via| via.link)
            && let Some(link) = links.get_mut(stream)
        {
            link.session.probe(cx.now);
            links.arm(cx, stream);
        }
    }

    /// This device is somewhere else: relays may not hear it any more, and those that did not answer may answer now.
    pub(crate) fn moved(&mut self, cx: &mut Cx, links: &mut Links, somewhere: bool) {
        for via in self.map.values_mut() {
            via.dial.moved();
        }
        for id in self.map.keys() {
            self.probe(cx, links, id);
        }
        if somewhere {
            self.reach_home(cx, links);
        }
    }

    /// Queues that should be open at a home relay; `true`: for somebody who is no contact yet.
    pub(crate) fn want(&mut self, relay: PeerId, queues: BTreeMap<QueueId, bool>) {
        self.wanted.insert(relay, queues);
    }

    /// Makes room for one more, for this peer's sake; `None`: it is a home relay, which always has a place. A peer that names
    /// relay after relay loses those that it named before, not those of others.
    fn make_room(&mut self, cx: &mut Cx, links: &mut Links, whose: Option<PeerId>) -> bool {
        let least = |vias: &mut dyn Iterator<Item = (&PeerId, &Via)>| {
            vias.min_by_key(|(_, via)| (via.up, via.used)).map(|(id, _)| *id)
        };
        let mut others = self.map.iter().filter(|(_, via)| !via.home);
        let surplus = if let Some(whose) = whose {
            let mut named = others.filter(|(_, via)| via.whose == Some(whose));
            if named.clone().count() >= RELAYS_EACH { least(&mut named) } else { None }
        } else if self.map.len() >= RELAYS_USED {
            least(&mut others)
        } else {
            None
        };
        if let Some(id) = surplus {
            self.leave(cx, links, id);
        }
        self.map.len() < RELAYS_USED
    }

    /// This relay is of no use any more.
    fn leave(&mut self, cx: &mut Cx, links: &mut Links, id: PeerId) {
        let Some(mut via) = self.map.remove(&id) else { return };
        cx.timers.cancel(Timer::Relay(id));
        for dialled in via.dial.stop().iter().copied() {
            links.abort(cx, dialled);
        }
        if let Some(link) = via.link {
            links.end(cx, link, CloseReason::Goodbye);
            // They are taken in every turn, and none has as many links.
            let _room_is_there = self.left.push(link);
        }
    }

    /// Links to relays that were left since this was asked last: no way leads over them any more.
    pub(crate) fn take_left(&mut self) -> List<StreamId, RELAYS_USED> {
        core::mem::take(&mut self.left)
    }

    fn via(
        &mut self,
        cx: &mut Cx,
        links: &mut Links,
        relay: Relay,
        whose: Option<PeerId>,
    ) -> Option<&mut Via> {
        if !self.map.contains_key(&relay.peer) {
            if relay.peer == cx.peer() || !self.make_room(cx, links, whose) {
                return None;
            }
            let pseudonym = cx.identity.pseudonym(&relay.peer)?;
            let mut rng = cx.rng.fork();
            let keys = Arc::new(Keys::new(&pseudonym, cx.network, cx.epoch, cx.start, &mut rng));
            let via = Via {
                keys,
                addresses: List::new(),
                whose,
                home: false,
                dial: Dial::new(),
                link: None,
                up: false,
                used: cx.now,
                opened: BTreeMap::new(),
            };
            self.map.insert(relay.peer, via);
        }
        let via = self.map.get_mut(&relay.peer)?;
        if !via.addresses.contains(&relay.address) {
            let _as_many_as_fit = via.addresses.push(relay.address);
        }
        Some(via)
    }

    /// The link to a relay of this peer's, if it is up; otherwise it will be, if that can be.
    pub(crate) fn link(
        &mut self,
        cx: &mut Cx,
        links: &mut Links,
        relay: Relay,
        whose: PeerId,
    ) -> Option<StreamId> {
        let now = cx.now;
        let via = self.via(cx, links, relay, Some(whose))?;
        via.used = now;
        if via.up {
            return via.link;
        }
        self.reach(cx, links, relay.peer);
        None
    }

    // --- dialling --------------------------------------------------------------------------------------------

    fn reach(&mut self, cx: &mut Cx, links: &mut Links, id: PeerId) {
        let Some(via) = self.map.get_mut(&id).filter(|via| via.link.is_none() && !via.dial.is_racing())
        else {
            return;
        };
        if self.ready && !self.stopping {
            let datagrams = if cx.datagrams { Datagrams::First } else { Datagrams::None };
            via.dial.race(via.addresses.iter().copied(), datagrams);
            self.dial_next(cx, links, id);
        }
    }

    /// The timer of a relay fired: the next address, a new race, or it is not needed any more.
    pub(crate) fn due(&mut self, cx: &mut Cx, links: &mut Links, id: PeerId) {
        let Some(via) = self.map.get_mut(&id) else { return };
        let idle = !via.home && via.used + RELAY_IDLE <= cx.now;
        if via.dial.is_racing() {
            self.dial_next(cx, links, id);
        } else if idle {
            self.leave(cx, links, id);
        } else if via.link.is_none() {
            self.reach(cx, links, id);
        } else if !via.home {
            // Later than now, or it would be idle.
            cx.timers.set(Timer::Relay(id), via.used + RELAY_IDLE);
        }
    }

    fn dial_next(&mut self, cx: &mut Cx, links: &mut Links, id: PeerId) {
        let Some(via) = self.map.get_mut(&id) else { return };
        if links.has_room()
            && let Some((path, remote)) = via.dial.next()
        {
            let stream = links.dial_as(cx, id, path, remote, Some(&via.keys));
            via.dial.started(stream);
        }
        if let Some(after) = via.dial.stagger() {
            cx.timer(Timer::Relay(id), after);
        } else if via.dial.is_lost() {
            let wait = via.dial.wait(&mut cx.rng);
            cx.timer(Timer::Relay(id), wait);
        }
    }

    pub(crate) fn dial_failed(&mut self, cx: &mut Cx, links: &mut Links, stream: StreamId, why: DialFailure) {
        self.attempt_over(cx, links, stream, AttemptOutcome::DialFailed(why));
        links.forget(cx, stream);
    }

    fn attempt_over(&mut self, cx: &mut Cx, links: &mut Links, stream: StreamId, outcome: AttemptOutcome) {
        let Some((id, remote, path)) = about(links, stream) else { return };
        let Some(via) = self.map.get_mut(&id) else { return };
        via.dial.ended(stream);
        cx.event(Event::Attempt { peer: id, remote, path, outcome });
        if via.dial.is_racing() {
            self.dial_next(cx, links, id);
        }
    }

    /// The relay proved who it is.
    pub(crate) fn decide(&mut self, cx: &mut Cx, links: &mut Links, stream: StreamId) {
        let Some((id, ..)) = about(links, stream) else { return };
        let wanted = self.map.get_mut(&id).filter(|via| via.link.is_none() && !self.stopping);
        let Some(via) = wanted.filter(|_| links.proceed(cx, stream, None, None)) else {
            self.attempt_over(cx, links, stream, AttemptOutcome::Superseded);
            links.abort(cx, stream);
            return;
        };
        via.link = Some(stream);
        via.opened.clear();
        via.dial.ended(stream);
        for other in via.dial.stop().iter().copied() {
            links.abort(cx, other);
        }
    }

    /// A link to a relay is over, and forgotten.
    pub(crate) fn over(
        &mut self,
        cx: &mut Cx,
        links: &mut Links,
        stream: StreamId,
        outcome: AttemptOutcome,
        close: bool,
    ) {
        let Some((id, remote, path)) = about(links, stream) else { return };
        let stood = self.map.get(&id).is_some_and(|via| via.link == Some(stream) && via.up);
        if !stood {
            self.attempt_over(cx, links, stream, outcome);
        }
        if close {
            links.abort(cx, stream);
        } else {
            links.forget(cx, stream);
        }
        let Some(via) = self.map.get_mut(&id).filter(|via| via.link == Some(stream)) else { return };
        (via.link, via.up) = (None, false);
        if stood {
            cx.event(Event::RelayChanged { relay: id, remote, path, up: false });
        }
        via.dial.fell(cx.now, 0);
        let wait = if stood { via.dial.wait_after_break(&mut cx.rng) } else { via.dial.wait(&mut cx.rng) };
        cx.timer(Timer::Relay(id), wait);
    }

    // --- packets ---------------------------------------------------------------------------------------------

    /// A record of a relay.
    pub(crate) fn record(
        &mut self,
        cx: &mut Cx,
        links: &mut Links,
        stream: StreamId,
        record: &[u8],
    ) -> Vec<Came> {
        let mut came = Vec::new();
        let Some((id, remote, path)) = about(links, stream) else { return came };
        let Some(via) = self.map.get_mut(&id).filter(|via| via.link == Some(stream)) else { return came };
        for (count, frame) in Frames(record).enumerate() {
            let frame = frame.and_then(|frame| {
                if count < RECORD_FRAMES { Ok(frame) } else { Err(Malformed("too many frames")) }
            });
            match frame {
                Ok(Frame::Close(_)) => {
                    came.push(Came::Over);
                    break;
                }
                Ok(Frame::Relayed { from, packet }) if packet.len() <= PACKET_BYTES => {
                    via.used = cx.now;
                    came.push(Came::Packet { from, packet: packet.to_vec() });
                }
                Ok(Frame::Undelivered(undelivered)) => came.push(Came::Nobody(undelivered.to)),
                // From where a stream comes says nothing about datagrams.
                Ok(Frame::Observed(address)) => {
                    if path == PathKind::Datagram {
                        came.push(Came::Observed(address));
                    }
                }
                Ok(Frame::Ping(nonce)) => {
                    if let Some(link) = links.get_mut(stream) {
                        link.session.got_ping(nonce);
                    }
                }
                Ok(Frame::Pong(nonce)) => {
                    let pong = links.get_mut(stream).map(|link| link.forwards_came(nonce, cx.now));
                    if let Some(round_trip) = pong.flatten() {
                        cx.event(Event::RoundTrip { peer: id, round_trip });
                    }
                }
                Ok(_) | Err(_) => {
                    cx.misbehaved(id, "a relay sent what a relay does not send");
                    came.push(Came::Over);
                    break;
                }
            }
        }
        if !core::mem::replace(&mut via.up, true) {
            via.dial.stands(cx.now, 0);
            cx.event(Event::Attempt { peer: id, remote, path, outcome: AttemptOutcome::Connected });
            cx.event(Event::RelayChanged { relay: id, remote, path, up: true });
            if !via.home {
                cx.timer(Timer::Relay(id), RELAY_IDLE);
            }
            came.insert(0, Came::Up);
        }
        links.arm(cx, stream);
        came
    }

    /// Which relay is at the other end.
    pub(crate) fn relay_of(&self, stream: StreamId) -> Option<PeerId> {
        self.map.iter().find(|(_, via)| via.link == Some(stream)).map(|(id, _)| *id)
    }

    /// Hands relays what waits for them: queues to open, packets, and what the sessions have to say.
    pub(crate) fn work(&mut self, cx: &mut Cx, links: &mut Links) {
        let mut broken = Vec::new();
        for (id, via) in &mut self.map {
            let Some(stream) = via.link else { continue };
            let Some(link) = links.get_mut(stream).filter(|link| link.is_writable()) else { continue };
            let wanted = self.wanted.get(id).filter(|_| via.home && via.up);
            let changes = wanted.is_some_and(|wanted| *wanted != via.opened);
            let waits = via.up && cx.to_relays.iter().any(|(to, ..)| *to == stream);
            if !(changes || waits || link.session.wants_record()) {
                continue;
            }
            let mut record = link.session.begin_record(&mut cx.rng, cx.now);
            if let Some(wanted) = wanted.filter(|_| changes) {
                open(&mut record, wanted, &mut via.opened);
            }
            let (mut full, mut forwards) = (false, false);
            cx.to_relays.retain(|(to, port, packet)| {
                full |= record.len() + packet.len() + 64 > PLAINTEXT_BYTES;
                if *to != stream || full || !via.up {
                    return true;
                }
                Frame::Forward { to: *port, packet }.encode(&mut record);
                via.used = cx.now;
                forwards = true;
                false
            });
            if forwards && let Some(link) = links.get_mut(stream) {
                link.forwarded(cx.now);
            }
            if !links.write(cx, stream, record) {
                broken.push(stream);
            }
        }
        // What waits for a link that is gone will never leave.
        cx.to_relays.retain(|(to, ..)| links.get(*to).is_some());
        for stream in broken {
            self.over(cx, links, stream, AttemptOutcome::HandshakeFailed, true);
        }
    }

    /// The node stops.
    pub(crate) fn shutdown(&mut self, cx: &mut Cx, links: &mut Links) {
        self.stopping = true;
        for (id, via) in core::mem::take(&mut self.map) {
            cx.timers.cancel(Timer::Relay(id));
            if let Some(link) = via.link {
                links.end(cx, link, CloseReason::Goodbye);
            }
        }
    }
}

/// Frames that make what is open what should be, as far as they fit.
fn open(record: &mut Vec<u8>, wanted: &BTreeMap<QueueId, bool>, opened: &mut BTreeMap<QueueId, bool>) {
    let room = |record: &Vec<u8>| record.len() + 64 < PLAINTEXT_BYTES;
    let gone: Vec<QueueId> = opened.keys().filter(|id| !wanted.contains_key(*id)).copied().collect();
    for id in gone {
        if room(record) {
            Frame::CloseQueue(id).encode(record);
            opened.remove(&id);
        }
    }
    for (id, knock) in wanted {
        if room(record) && opened.get(id) != Some(knock) {
            Frame::OpenQueue(OpenQueue { id: *id, knock: *knock }).encode(record);
            opened.insert(*id, *knock);
        }
    }
}

fn about(links: &Links, stream: StreamId) -> Option<(PeerId, SocketAddr, PathKind)> {
    let link: &Link = links.get(stream)?;
    Some((link.peer?, link.remote, link.path()))
}
