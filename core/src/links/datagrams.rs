//! Links over datagrams: which session a packet is for, handshakes whose messages get lost, and who must first show that
//! he receives where he says he is.
//!
//! Before a peer is known nothing is sent that is longer than what came, and nothing is stored beyond a few half-open
//! links; from a certain number of them on, or from a second for one source, an initiation must bring a cookie, which
//! costs us no memory. Whoever brings one takes the place of somebody who did not.

use super::{Carried, Link, Links, Role, source};
use crate::api::{Output, PathKind, Rejection};
use crate::bounded::List;
use crate::cx::Cx;
use crate::ids::{PeerId, StreamId};
use crate::limits::{
    COOKIE_ABOVE, COOKIE_LIFETIME, EARLY_PACKETS, HALF_OPEN, HALF_OPEN_PER_SOURCE, HANDSHAKE_RETRY,
    HANDSHAKE_TIMEOUT, IDLE_PING, KEEPALIVE,
};
use crate::noise::Split;
use crate::path::channel::{Channel, Opened, Place};
use crate::path::dial::is_far;
use crate::planted::planted;
use crate::session::{Keys, Session, Step};
use crate::time::{Duration, Instant};
use crate::wire::frame::{CloseReason, Frame, Port};
use crate::wire::handshake::Carrier;
use crate::wire::packet::{
    Cookie, DATA_HEADER, INITIATION_LEN, Initiation, Packet, cookie, finish, initiation, mac1_of,
    open_cookie, response,
};
use crate::wire::put;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::Bytes;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Links over datagrams are numbered where no driver numbers its streams.
pub(super) const FIRST: u64 = 1 << 63;
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// A message of a handshake that may have been lost.
#[derive(Debug)]
struct Repeat {
    bytes: Vec<u8>,
    /// `None`: only if the other side repeats what this answers.
    due: Option<Instant>,
    wait: Duration,
}

#[derive(Debug)]
pub(super) struct Datagrams {
    /// What the session is called here, and there once that is known.
    mine: u32,
    theirs: u32,
    remote: Place,
    /// Who began: what Noise message 1 was, by which a repetition of it is known.
    began: Vec<u8>,
    /// Who began has shown that he receives at `remote`.
    shown: bool,
    repeat: Option<Repeat>,
    /// A message of the handshake that was not worked off.
    message: Option<Vec<u8>>,
    /// Who finished the handshake is known, and whether he gets a session is being written down: what he sends already.
    early: List<(Place, Vec<u8>), EARLY_PACKETS>,
    channel: Option<Channel>,
    closed: Option<CloseReason>,
    /// The session is over, and what was said last is still to arrive; not later than this.
    ends: Option<Instant>,
    broken: bool,
}

impl Datagrams {
    fn new(mine: u32, theirs: u32, remote: Place, began: &[u8]) -> Self {
        Self {
            mine,
            theirs,
            remote,
            began: began.to_vec(),
            shown: false,
            repeat: None,
            message: None,
            early: List::new(),
            channel: None,
            closed: None,
            ends: None,
            broken: false,
        }
    }

    pub(super) const fn name(&self) -> u32 {
        self.mine
    }

    /// Where it goes now, or will if the handshake succeeds.
    pub(super) fn is_direct(&self) -> bool {
        self.channel.as_ref().map_or(self.remote, Channel::remote).is_direct()
    }

    pub(super) fn is_silent(&self) -> bool {
        self.channel.as_ref().is_some_and(Channel::is_silent)
    }

    pub(super) fn is_writable(&self, record: usize) -> bool {
        self.channel.as_ref().is_some_and(|channel| channel.is_writable(record))
    }

    pub(super) fn sealing(&self) -> Option<(u64, u64)> {
        self.channel.as_ref().map(Channel::sealing)
    }

    fn send(&mut self, cx: &mut Cx, bytes: Vec<u8>, repeated: bool) {
        send(cx, self.remote, None, bytes.clone());
        let due = repeated.then(|| cx.now + HANDSHAKE_RETRY);
        self.repeat = Some(Repeat { bytes, due, wait: HANDSHAKE_RETRY });
    }

    /// Works off what came: a message of the handshake, then records.
    pub(super) fn step(
        &mut self,
        session: &mut Session,
        keys: &Keys,
        cx: &mut Cx,
        record: &mut Vec<u8>,
    ) -> Step {
        if let Some(message) = self.message.take() {
            let mut out = Vec::new();
            let step = session.message(keys, &mut cx.rng, cx.now, &message, &mut out);
            if !out.is_empty() {
                let packet = response(self.theirs, self.mine, &out);
                debug_assert!(
                    packet.len() <= INITIATION_LEN,
                    "a response is not longer than what it answers"
                );
                self.send(cx, packet, false);
            }
            return step;
        }
        let Some(channel) = &mut self.channel else { return Step::Wait };
        if self.broken {
            return Step::Failed(Rejection::BadHandshake);
        }
        loop {
            let mut none = Vec::new();
            match session.step(keys, &mut cx.rng, cx.now, record, &mut none) {
                Step::Wait => {}
                step => return step,
            }
            let room = session.read_budget();
            if room == 0 || !channel.is_readable() {
                break;
            }
            if session.push(&channel.read(room)).is_err() {
                return Step::Failed(Rejection::BadHandshake);
            }
        }
        // Goodbye, after everything that came before it.
        match self.closed.take() {
            Some(reason) => {
                record.clear();
                Frame::Close(reason).encode(record);
                Step::Record
            }
            None => Step::Wait,
        }
    }

    pub(super) fn proceed(&mut self, cx: &mut Cx, session: &Session, split: Split, message: Option<Vec<u8>>) {
        let mut channel = Channel::new(cx.now, split, self.theirs, self.remote);
        channel.measured(cx.now, session.round_trip());
        self.channel = Some(channel);
        match message {
            Some(message) => {
                let packet = finish(self.theirs, &message);
                self.send(cx, packet, true);
            }
            None => self.repeat = None,
        }
    }

    /// `false`: the key is used up.
    pub(super) fn write(&mut self, cx: &mut Cx, record: &[u8]) -> bool {
        if let Some(channel) = &mut self.channel {
            channel.write(record);
        }
        self.flush(cx)
    }

    /// Lets out what may leave now. `false`: the key is used up.
    fn flush(&mut self, cx: &mut Cx) -> bool {
        let Some(channel) = &mut self.channel else { return true };
        loop {
            match channel.leave(cx.now, &mut cx.rng) {
                Ok(Some(leaving)) => send(cx, leaving.remote, leaving.ttl, leaving.bytes),
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }

    pub(super) fn close(&mut self, cx: &mut Cx, reason: CloseReason) {
        self.flush(cx);
        if let Some(leaving) = self.channel.as_mut().and_then(|channel| channel.close(reason)) {
            send(cx, leaving.remote, leaving.ttl, leaving.bytes);
        }
    }

    /// Everything that was said arrived.
    pub(super) fn is_idle(&self) -> bool {
        self.channel.as_ref().is_none_or(Channel::is_idle)
    }

    pub(super) fn end_by(&mut self, at: Instant) {
        self.ends.get_or_insert(at);
    }

    pub(super) fn is_late(&self, now: Instant) -> bool {
        self.ends.is_some_and(|at| at <= now)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let repeat = self.repeat.as_ref().and_then(|repeat| repeat.due);
        let channel = self.channel.as_ref().and_then(Channel::deadline);
        repeat.into_iter().chain(channel).chain(self.ends).min()
    }

    /// The deadline may have come. `false`: the key is used up.
    pub(super) fn due(&mut self, cx: &mut Cx, session: &Session) -> bool {
        if self.channel.is_some() && !session.is_unproven() {
            // It has the keys: the handshake arrived.
            self.repeat = None;
        }
        if let Some(repeat) =
            self.repeat.as_mut().filter(|repeat| repeat.due.is_some_and(|due| due <= cx.now))
        {
            repeat.wait = (repeat.wait * 2).min(HANDSHAKE_TIMEOUT);
            repeat.due = Some(cx.now + repeat.wait);
            let bytes = repeat.bytes.clone();
            send(cx, self.remote, None, bytes);
        }
        if let Some(channel) = &mut self.channel {
            channel.due(cx.now);
        }
        self.flush(cx)
    }
}

fn send(cx: &mut Cx, remote: Place, ttl: Option<u8>, bytes: Vec<u8>) {
    match remote {
        Place::Udp(remote) => {
            cx.stats.datagrams_sent += 1;
            cx.out.push_back(Output::Datagram { remote, ttl, bytes: Bytes::from(bytes) });
        }
        // Full: the oldest is lost, as packets may be, and counted. What waits longest waits for a relay that does not
        // read, and takes nothing from those that do.
        Place::Via { link, port } => {
            if let Err(packet) = cx.to_relays.push((link, port, bytes)) {
                cx.stats.relay_dropped += 1;
                cx.to_relays.pop();
                let _room_was_made = cx.to_relays.push(packet);
            }
        }
    }
}

fn is_same_source(link: &Link, place: Place) -> bool {
    match (&link.carrier, place) {
        (Carried::Datagrams(of), Place::Via { link, .. }) => {
            matches!(of.remote, Place::Via { link: other, .. } if other == link)
        }
        (Carried::Stream { .. }, Place::Via { .. }) => false,
        (_, Place::Udp(address)) => source(&link.remote) == source(&address),
    }
}

/// What cookies are made of: a secret that changes, and the one before it.
#[derive(Debug, Default)]
pub(super) struct Cookies {
    now: Option<([u8; 32], Instant)>,
    before: Option<[u8; 32]>,
}

impl Cookies {
    fn current(&mut self, cx: &mut Cx) -> [u8; 32] {
        match self.now {
            Some((secret, since)) if cx.now.saturating_since(since) < COOKIE_LIFETIME => secret,
            was => {
                // What is older than two lives is good for nothing.
                let alive = |since: Instant| cx.now.saturating_since(since) < COOKIE_LIFETIME * 2;
                self.before = was.filter(|(_, since)| alive(*since)).map(|(secret, _)| secret);
                let secret = cx.rng.bytes();
                self.now = Some((secret, cx.now));
                secret
            }
        }
    }

    fn make(&mut self, cx: &mut Cx, remote: &Place) -> Cookie {
        bake(&self.current(cx), remote)
    }

    fn good(&mut self, cx: &mut Cx, remote: &Place, initiation: &Initiation<'_>) -> bool {
        let current = self.current(cx);
        initiation.has(&bake(&current, remote))
            || self.before.is_some_and(|before| initiation.has(&bake(&before, remote)))
    }
}

fn bake(secret: &[u8; 32], remote: &Place) -> Cookie {
    let mut hasher = blake3::Hasher::new_keyed(secret);
    let mut name = Vec::new();
    match remote {
        Place::Udp(address) => put(&mut name, &address),
        Place::Via { link, port } => put(&mut name, &(link, port)),
    }
    hasher.update(&name);
    let mut cookie = [0; 16];
    hasher.finalize_xof().fill(&mut cookie);
    Cookie(cookie)
}

impl Links {
    fn draw_name(&self, cx: &mut Cx) -> u32 {
        loop {
            let name = u32::from_be_bytes(cx.rng.bytes());
            if !self.names.contains_key(&name) {
                return name;
            }
        }
    }

    fn add(&mut self, began: Instant, session: Session, peer: Option<PeerId>, of: Datagrams) -> StreamId {
        let remote = self.address_of(of.remote);
        let stream = StreamId(self.next_datagrams);
        self.next_datagrams += 1;
        self.names.insert(of.mine, stream);
        self.map.insert(stream, Link::new(session, remote, peer, Carried::Datagrams(Box::new(of)), began));
        stream
    }

    fn datagrams(&mut self, stream: StreamId) -> Option<(&mut Session, &mut Datagrams, Option<PeerId>)> {
        let link = self.map.get_mut(&stream)?;
        match &mut link.carrier {
            Carried::Datagrams(datagrams) => Some((&mut link.session, datagrams, link.peer)),
            Carried::Stream { .. } => None,
        }
    }

    /// Where a place is, for people: the relay that leads there, or the place itself.
    fn address_of(&self, place: Place) -> SocketAddr {
        match place {
            Place::Udp(address) => address,
            Place::Via { link, .. } => self.map.get(&link).map_or(NOWHERE, |link| link.remote),
        }
    }

    /// Dials `peer` by packets. `keys`: as whom, if not as this node.
    pub(crate) fn dial_datagrams(
        &mut self,
        cx: &mut Cx,
        peer: PeerId,
        place: Place,
        keys: Option<&Arc<Keys>>,
    ) -> StreamId {
        let name = self.draw_name(cx);
        let mut session = Session::dial(Carrier::Datagram, peer, cx.now);
        let as_whom = keys.map_or(&self.keys, |keys| keys);
        let noise = session.begin(as_whom, &mut cx.rng, cx.now).unwrap_or_default();
        let mut of = Datagrams::new(name, 0, place, &noise);
        of.send(cx, initiation(&peer, name, &noise, None), true);
        let stream = self.add(cx.now, session, Some(peer), of);
        self.name(stream, peer, keys);
        self.arm(cx, stream);
        stream
    }

    /// A datagram came. Gives the link that has something to read, or to send.
    pub(crate) fn datagram(&mut self, cx: &mut Cx, remote: Place, bytes: &[u8]) -> Option<StreamId> {
        cx.stats.datagrams_received += u64::from(remote.is_direct());
        self.packet(cx, remote, bytes)
    }

    /// Takes in what came before this session was open.
    pub(crate) fn read_early(&mut self, cx: &mut Cx, stream: StreamId) {
        let early = self.datagrams(stream).map(|(_, of, _)| core::mem::take(&mut of.early));
        for (remote, bytes) in early.iter().flat_map(|early| early.iter()) {
            self.packet(cx, *remote, bytes);
        }
    }

    fn packet(&mut self, cx: &mut Cx, remote: Place, bytes: &[u8]) -> Option<StreamId> {
        let stream = match Packet::parse(bytes) {
            Some(Packet::Initiation(initiation)) => self.initiated(cx, remote, &initiation),
            Some(Packet::Response { receiver, sender, noise }) => {
                self.responded(remote, receiver, sender, noise)
            }
            Some(Packet::Finish { receiver, noise }) => self.finished(remote, receiver, noise),
            Some(Packet::Data { receiver, number, header, sealed }) => {
                self.data(cx, remote, receiver, number, &header, sealed)
            }
            Some(Packet::Cookie { receiver, nonce, sealed }) => {
                self.got_cookie(cx, remote, receiver, nonce, sealed)
            }
            None => None,
        };
        if stream.is_none() {
            cx.stats.datagrams_ignored += 1;
        }
        stream
    }

    fn initiated(&mut self, cx: &mut Cx, remote: Place, initiation: &Initiation<'_>) -> Option<StreamId> {
        if !initiation.is_for(&cx.peer()) {
            cx.stats.rejected_not_for_us += 1;
            return None;
        }
        let half_open = |link: &&Link| !link.we_dialled() && !link.session.is_open();
        for link in self.map.values().filter(half_open) {
            if let Carried::Datagrams(of) = &link.carrier
                && of.remote == remote
                && of.theirs == initiation.sender
                && of.began == initiation.noise
            {
                // The response was lost, or is late.
                if let Some(repeat) = &of.repeat {
                    send(cx, remote, None, repeat.bytes.clone());
                }
                return None;
            }
        }
        let (mut all, mut same, mut shows_nothing) = (0, 0, false);
        for link in self.map.values().filter(half_open) {
            let is_same = is_same_source(link, remote);
            (all, same) = (all + 1, same + usize::from(is_same));
            // Who has a stream does receive where he says he is, and tries that beside datagrams.
            shows_nothing |= is_same && matches!(link.carrier, Carried::Datagrams(_));
        }
        let shown = self.cookies.good(cx, &remote, initiation);
        let crowded = all >= COOKIE_ABOVE || shows_nothing;
        if !shown && crowded && !planted!(cx, CookieNeverAsked) {
            let nonce = cx.rng.bytes();
            let baked = self.cookies.make(cx, &remote);
            if let Some(reply) = cookie(&cx.peer(), initiation.sender, &initiation.mac1, nonce, baked) {
                send(cx, remote, None, reply);
            }
            return None;
        }
        if all >= HALF_OPEN || same >= HALF_OPEN_PER_SOURCE || !self.has_room() {
            let other = |link: &Link| {
                matches!(&link.carrier, Carried::Datagrams(of) if !of.shown)
                    && (same < HALF_OPEN_PER_SOURCE || is_same_source(link, remote))
            };
            let other = self.map.iter().filter(|(_, link)| half_open(link)).find(|(_, link)| other(link));
            let Some(other) = other.map(|(stream, _)| *stream).filter(|_| shown) else {
                cx.stats.rejected_half_open += 1;
                return None;
            };
            self.forget(cx, other);
        }
        let name = self.draw_name(cx);
        let mut of = Datagrams::new(name, initiation.sender, remote, initiation.noise);
        of.shown = shown;
        of.message = Some(initiation.noise.to_vec());
        let stream = self.add(cx.now, Session::accept(Carrier::Datagram, cx.now), None, of);
        self.arm(cx, stream);
        Some(stream)
    }

    fn responded(&mut self, remote: Place, receiver: u32, sender: u32, noise: &[u8]) -> Option<StreamId> {
        let stream = *self.names.get(&receiver)?;
        let (session, of, _) = self.datagrams(stream)?;
        if !session.awaits_hello() || of.remote != remote {
            return None;
        }
        of.theirs = sender;
        of.repeat = None;
        of.message = Some(noise.to_vec());
        Some(stream)
    }

    fn finished(&mut self, remote: Place, receiver: u32, noise: &[u8]) -> Option<StreamId> {
        let stream = *self.names.get(&receiver)?;
        let (session, of, _) = self.datagrams(stream)?;
        if !session.awaits_intro() || of.remote != remote {
            return None;
        }
        of.message = Some(noise.to_vec());
        Some(stream)
    }

    fn got_cookie(
        &mut self,
        cx: &mut Cx,
        remote: Place,
        receiver: u32,
        nonce: [u8; 12],
        sealed: &[u8],
    ) -> Option<StreamId> {
        let stream = *self.names.get(&receiver)?;
        let (session, of, peer) = self.datagrams(stream)?;
        let peer = peer.filter(|_| session.awaits_hello() && of.remote == remote)?;
        let mac1 = of.repeat.as_ref().and_then(|repeat| mac1_of(&repeat.bytes))?;
        let cookie = open_cookie(&peer, &mac1, nonce, sealed)?;
        if core::mem::replace(&mut of.shown, true) {
            // One cookie is enough: whoever sends more does not make us send more.
            return None;
        }
        let again = initiation(&peer, of.mine, &of.began.clone(), Some(&cookie));
        of.send(cx, again, true);
        self.arm(cx, stream);
        Some(stream)
    }

    fn data(
        &mut self,
        cx: &mut Cx,
        remote: Place,
        receiver: u32,
        number: u64,
        header: &[u8; DATA_HEADER],
        sealed: &[u8],
    ) -> Option<StreamId> {
        let stream = *self.names.get(&receiver)?;
        if !remote.is_direct() && self.map.get(&stream)?.role != Role::Peer {
            // A link to or of a relay does not go through relays: it would go through itself.
            return None;
        }
        let is_decided = self.map.get(&stream).is_some_and(|link| link.holder.is_some());
        let (session, of, peer) = self.datagrams(stream)?;
        let mut sealed = sealed.to_vec();
        let Some(channel) = of.channel.as_mut() else {
            if is_decided {
                // What does not fit is lost as any packet may be.
                let _as_many_as_fit = of.early.push((remote, [&header[..], &sealed].concat()));
            }
            return None;
        };
        match channel.packet(cx.now, remote, number, header, &mut sealed) {
            Ok(Opened::Nothing) => return None,
            Ok(Opened::Taken) => {}
            Ok(Opened::Closed(reason)) => of.closed = Some(reason),
            Err(malformed) => {
                of.broken = true;
                if let Some(peer) = peer {
                    cx.misbehaved(peer, malformed.0);
                }
            }
        }
        session.heard(cx.now);
        of.repeat = None;
        if let Some(round) = channel.round_trip() {
            session.measured(round);
        }
        let (now, idle) = (channel.remote(), channel.is_idle());
        if let Some(peer) = peer {
            // There may be room for more.
            cx.touch(peer);
        }
        let address = self.address_of(now);
        let link = self.map.get_mut(&stream)?;
        let path = link.path();
        link.remote = address;
        // A relay that began anew knows nothing of us, and says nothing: until we notice, nobody reaches us through it.
        let far = path == PathKind::Datagram && (is_far(&address) || link.role == Role::Relay);
        link.session.keep(if far { KEEPALIVE } else { IDLE_PING });
        if let Some(reason) = link.ending.filter(|_| idle) {
            self.end(cx, stream, reason);
            return None;
        }
        Some(stream)
    }

    /// Lets out what a link has to say to its carrier's other end. `false`: the key is used up.
    pub(crate) fn flush(&mut self, cx: &mut Cx, stream: StreamId) -> bool {
        let alive = self.datagrams(stream).is_none_or(|(_, of, _)| of.flush(cx));
        self.arm(cx, stream);
        alive
    }

    /// The peer behind this link may be at these places: try them.
    pub(crate) fn try_places(&mut self, cx: &mut Cx, stream: StreamId, places: &[SocketAddr]) {
        let Some((_, of, _)) = self.datagrams(stream) else { return };
        let Some(channel) = &mut of.channel else { return };
        for place in places {
            channel.try_place(cx.now, Place::Udp(*place));
        }
        self.flush(cx, stream);
    }

    /// The peer was told on this link where we may be.
    pub(crate) fn told_places(&mut self, stream: StreamId) {
        if let Some(channel) = self.datagrams(stream).and_then(|(_, of, _)| of.channel.as_mut()) {
            channel.told_places();
        }
    }

    /// Tries a way through a relay for a session whose own way is silent.
    pub(crate) fn try_relay(&mut self, cx: &mut Cx, stream: StreamId, place: Place) {
        if let Some((_, of, _)) = self.datagrams(stream)
            && let Some(channel) = of.channel.as_mut().filter(|channel| channel.is_silent())
        {
            channel.try_place(cx.now, place);
            self.flush(cx, stream);
        }
    }

    /// Places that lead nowhere any more, since a relay is gone or says that nobody is behind its port. Gives the links
    /// that had no other way.
    pub(crate) fn lose(&mut self, cx: &mut Cx, relay: StreamId, port: Option<Port>) -> Vec<StreamId> {
        let through = |place: Place| match place {
            Place::Via { link, port: other } => link == relay && port.is_none_or(|port| port == other),
            Place::Udp(_) => false,
        };
        let mut lost = Vec::new();
        for stream in self.streams().collect::<Vec<_>>() {
            let Some((_, of, _)) = self.datagrams(stream) else { continue };
            // A relay can say this often: whom it does not concern, it costs nothing.
            if of.channel.as_ref().is_some_and(|channel| !channel.leads(through)) {
                continue;
            }
            let alive = match &mut of.channel {
                Some(channel) => channel.lose(cx.now, through),
                None => !through(of.remote),
            };
            if alive {
                self.flush(cx, stream);
            } else {
                lost.push(stream);
            }
        }
        lost
    }

    /// Nobody answered a dial by packets.
    pub(crate) fn is_unanswered(&self, stream: StreamId) -> bool {
        self.map.get(&stream).is_some_and(|link| {
            let nothing = matches!(&link.carrier, Carried::Datagrams(of) if of.theirs == 0);
            nothing && link.we_dialled()
        })
    }

    /// Whether this peer is being dialled there.
    pub(crate) fn is_dialling(&self, peer: &PeerId, place: Place) -> bool {
        self.map.values().any(|link| {
            link.peer == Some(*peer)
                && link.we_dialled()
                && matches!(&link.carrier, Carried::Datagrams(of) if of.remote == place)
        })
    }

    /// This machine is somewhere else: sessions over datagrams say so.
    pub(crate) fn moved(&mut self, cx: &mut Cx) {
        for stream in self.streams().collect::<Vec<_>>() {
            if let Some((_, of, _)) = self.datagrams(stream)
                && let Some(channel) = &mut of.channel
            {
                channel.moved(cx.now);
                self.flush(cx, stream);
            }
        }
    }
}
