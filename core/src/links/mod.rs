//! The table of links: a session each, on a stream or over datagrams. Bytes in and out, one outstanding write of a stream,
//! half-open ones counted and bounded.

mod datagrams;

use self::datagrams::{Cookies, Datagrams};
use crate::api::{Event, Output, PathKind, Rejection, SessionEnd};
use crate::cx::{Cx, Timer};
use crate::ids::{BatchId, Epoch, PeerId, SessionId, StreamId};
use crate::limits::{DIAL_TIMEOUT, HALF_OPEN, HALF_OPEN_PER_SOURCE, PLAINTEXT_BYTES, SHUTDOWN_MAX, STREAMS};
use crate::path::channel::Place;
use crate::planted::planted;
use crate::session::{Identified, Keys, Session, Step, put_record};
use crate::time::{Duration, Instant};
use crate::wire::frame::{CloseReason, Frame};
use crate::wire::handshake::{Carrier, WANTS_RELAY};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::Bytes;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};

/// What the two ends of a link are to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Two people, who talk.
    Peer,
    /// The other end relays for us.
    Relay,
    /// We relay for the other end.
    Client,
}

#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) session: Session,
    pub(crate) remote: SocketAddr,
    /// Known once the handshake named it (or because we dialled it).
    pub(crate) peer: Option<PeerId>,
    pub(crate) holder: Option<(Epoch, u64)>,
    pub(crate) key: Option<[u8; 32]>,
    /// When its handshake began, as this node saw it.
    pub(crate) began: Instant,
    /// The newest session that the initiator knew of.
    pub(crate) after: Option<SessionId>,
    /// A record was opened on it: the other side has the keys.
    pub(crate) confirmed: bool,
    pub(crate) have_due: bool,
    /// What came before it is durable with this batch: no have-vector goes out on it before.
    pub(crate) have_after: BatchId,
    pub(crate) record_due: bool,
    /// The peer should know where else we may be reached.
    pub(crate) candidates_due: bool,
    carrier: Carried,
    pub(crate) role: Role,
    /// As whom we speak, if not as this node.
    keys: Option<Arc<Keys>>,
    ending: Option<CloseReason>,
}

/// What the carrier of a link needs.
#[derive(Debug)]
enum Carried {
    Stream {
        busy: bool,
        /// Handshake bytes that wait for the carrier.
        outbound: Vec<u8>,
    },
    Datagrams(Box<Datagrams>),
}

impl Link {
    fn new(
        session: Session,
        remote: SocketAddr,
        peer: Option<PeerId>,
        carrier: Carried,
        began: Instant,
    ) -> Self {
        Self {
            session,
            remote,
            peer,
            holder: None,
            key: None,
            began,
            after: None,
            confirmed: false,
            have_due: false,
            have_after: BatchId(0),
            record_due: false,
            candidates_due: false,
            carrier,
            role: Role::Peer,
            keys: None,
            ending: None,
        }
    }

    /// Whether a record can be handed over now.
    pub(crate) fn is_writable(&self) -> bool {
        let takes = match &self.carrier {
            Carried::Stream { busy, .. } => !busy,
            Carried::Datagrams(datagrams) => datagrams.is_writable(PLAINTEXT_BYTES),
        };
        self.session.is_open() && takes && self.ending.is_none()
    }

    pub(crate) fn we_dialled(&self) -> bool {
        self.session.dialled().is_some()
    }

    pub(crate) fn path(&self) -> PathKind {
        match &self.carrier {
            Carried::Stream { .. } => PathKind::Stream,
            Carried::Datagrams(datagrams) if datagrams.is_direct() => PathKind::Datagram,
            Carried::Datagrams(_) => PathKind::Relayed,
        }
    }

    pub(crate) fn is_relayed(&self) -> bool {
        self.path() == PathKind::Relayed
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    /// Packets of others were handed over. Nothing that is due answers them, and a box on the way may have forgotten the
    /// stream: so the other end is asked whether they came. Over datagrams their acknowledgements say so.
    pub(crate) fn forwarded(&mut self, now: Instant) {
        if matches!(self.carrier, Carried::Stream { .. }) {
            self.session.offered(now);
        }
    }

    /// The other end, a relay or a client of ours, got what came before the ping.
    pub(crate) fn forwards_came(&mut self, nonce: u64, now: Instant) -> Option<Duration> {
        let round_trip = self.session.got_pong(nonce, now);
        self.session.answered(true, now);
        round_trip
    }
}

/// What reading from a stream led to.
#[derive(Debug)]
pub(crate) enum Read {
    Nothing,
    Decide(Box<Identified>),
    Record,
    Over(Rejection),
}

#[derive(Debug)]
pub(crate) struct Links {
    keys: Keys,
    map: BTreeMap<StreamId, Link>,
    next_dial: u64,
    next_datagrams: u64,
    /// Sessions over datagrams, by the names that they have here.
    names: BTreeMap<u32, StreamId>,
    cookies: Cookies,
}

impl Links {
    pub(crate) fn new(keys: Keys) -> Self {
        Self {
            keys,
            map: BTreeMap::new(),
            next_dial: 2,
            next_datagrams: datagrams::FIRST,
            names: BTreeMap::new(),
            cookies: Cookies::default(),
        }
    }

    /// Handshakes name this epoch from now on.
    pub(crate) const fn new_epoch(&mut self, epoch: Epoch) {
        self.keys.holder = epoch;
    }

    pub(crate) fn get(&self, stream: StreamId) -> Option<&Link> {
        self.map.get(&stream)
    }

    pub(crate) fn get_mut(&mut self, stream: StreamId) -> Option<&mut Link> {
        self.map.get_mut(&stream)
    }

    pub(crate) fn sealing(&self, stream: StreamId) -> Option<(u64, u64)> {
        let link = self.map.get(&stream)?;
        match &link.carrier {
            Carried::Stream { .. } => link.session.sealing(),
            Carried::Datagrams(datagrams) => datagrams.sealing(),
        }
    }

    pub(crate) fn streams(&self) -> impl Iterator<Item = StreamId> + '_ {
        self.map.keys().copied()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    pub(crate) fn has_room(&self) -> bool {
        self.map.len() < STREAMS
    }

    pub(crate) fn read_budget(&self, stream: StreamId) -> usize {
        self.map
            .get(&stream)
            .filter(|link| link.ending.is_none())
            .map_or(0, |link| link.session.read_budget())
    }

    // --- begin -----------------------------------------------------------------------------------------------

    pub(crate) fn accepted(&mut self, cx: &mut Cx, stream: StreamId, remote: SocketAddr) {
        let half_open = || self.map.values().filter(|link| !link.we_dialled() && !link.session.is_open());
        let same = half_open().filter(|link| source(&link.remote) == source(&remote)).count();
        if half_open().count() >= HALF_OPEN || same >= HALF_OPEN_PER_SOURCE || !self.has_room() {
            cx.stats.rejected_half_open += 1;
            cx.event(Event::Rejected { remote, peer: None, why: Rejection::HalfOpen });
            cx.out.push_back(Output::Close { stream, flush: false });
            return;
        }
        if self.map.contains_key(&stream) {
            return;
        }
        let carrier = Carried::Stream { busy: false, outbound: Vec::new() };
        let session = Session::accept(Carrier::Stream, cx.now);
        self.map.insert(stream, Link::new(session, remote, None, carrier, cx.now));
        self.arm(cx, stream);
    }

    pub(crate) fn dial(&mut self, cx: &mut Cx, peer: PeerId, path: PathKind, remote: SocketAddr) -> StreamId {
        self.dial_as(cx, peer, path, remote, None)
    }

    /// Dials as somebody else than this node, or as this node.
    pub(crate) fn dial_as(
        &mut self,
        cx: &mut Cx,
        peer: PeerId,
        path: PathKind,
        remote: SocketAddr,
        keys: Option<&Arc<Keys>>,
    ) -> StreamId {
        if path == PathKind::Datagram {
            return self.dial_datagrams(cx, peer, Place::Udp(remote), keys);
        }
        let stream = StreamId(self.next_dial);
        self.next_dial += 2;
        let carrier = Carried::Stream { busy: false, outbound: Vec::new() };
        let session = Session::dial(Carrier::Stream, peer, cx.now);
        self.map.insert(stream, Link::new(session, remote, Some(peer), carrier, cx.now));
        self.name(stream, peer, keys);
        cx.out.push_back(Output::Dial { stream, remote, timeout: DIAL_TIMEOUT });
        stream
    }

    /// A link that we dial as somebody else is one to a relay.
    fn name(&mut self, stream: StreamId, peer: PeerId, keys: Option<&Arc<Keys>>) {
        if let (Some(link), Some(keys)) = (self.map.get_mut(&stream), keys) {
            link.peer = Some(peer);
            link.role = Role::Relay;
            link.keys = Some(keys.clone());
        }
    }

    /// A dial succeeded. `false`: not one of ours, or it cannot go on.
    pub(crate) fn connected(&mut self, cx: &mut Cx, stream: StreamId) -> bool {
        let Some(link) = self.map.get_mut(&stream) else { return true };
        let mut out = Vec::new();
        let keys = link.keys.as_deref().unwrap_or(&self.keys);
        let begun = link.session.connected(keys, &mut cx.rng, cx.now, &mut out).is_ok();
        hand_over(cx, stream, link, out);
        self.arm(cx, stream);
        begun
    }

    // --- read ------------------------------------------------------------------------------------------------

    pub(crate) fn push(&mut self, stream: StreamId, bytes: &[u8]) -> Result<(), Rejection> {
        match self.map.get_mut(&stream) {
            Some(link) if link.ending.is_none() => link.session.push(bytes),
            _ => Ok(()),
        }
    }

    /// Works off one record of this stream; a plaintext is left in `record`.
    pub(crate) fn step(&mut self, cx: &mut Cx, stream: StreamId, record: &mut Vec<u8>) -> Read {
        let Some(link) = self.map.get_mut(&stream) else { return Read::Nothing };
        if link.ending.is_some() {
            return Read::Nothing;
        }
        let keys = link.keys.clone();
        let keys = keys.as_deref().unwrap_or(&self.keys);
        loop {
            let mut out = Vec::new();
            let step = match &mut link.carrier {
                Carried::Stream { .. } => link.session.step(keys, &mut cx.rng, cx.now, record, &mut out),
                Carried::Datagrams(datagrams) => datagrams.step(&mut link.session, keys, cx, record),
            };
            match step {
                Step::Wait => return Read::Nothing,
                Step::Went => {
                    hand_over(cx, stream, link, out);
                    self::arm(cx, stream, link);
                }
                Step::Decide(identified) => {
                    link.peer = Some(identified.peer);
                    link.holder = Some((identified.holder, identified.start));
                    link.key = Some(identified.key);
                    link.after = identified.after;
                    return Read::Decide(identified);
                }
                Step::Record => return Read::Record,
                Step::Failed(why) => return Read::Over(why),
            }
        }
    }

    /// Lets a session that was decided upon open. `false`: it cannot.
    pub(crate) fn proceed(
        &mut self,
        cx: &mut Cx,
        stream: StreamId,
        after: Option<SessionId>,
        secret: Option<[u8; 16]>,
    ) -> bool {
        let Some(link) = self.map.get_mut(&stream) else { return false };
        let as_peer = link.role == Role::Peer;
        let nickname = cx.nickname.clone().filter(|_| as_peer);
        let features = if link.role == Role::Relay { WANTS_RELAY } else { 0 };
        let keys = link.keys.as_deref().unwrap_or(&self.keys);
        let Ok(proceeded) = link.session.proceed(keys, after, secret, nickname, features) else {
            return false;
        };
        match (&mut link.carrier, proceeded.split) {
            (Carried::Datagrams(datagrams), Some(split)) => {
                datagrams.proceed(cx, &link.session, split, proceeded.message);
            }
            _ => {
                let mut out = Vec::new();
                if let Some(message) = proceeded.message {
                    put_record(&mut out, &message);
                }
                hand_over(cx, stream, link, out);
                cx.out.push_back(Output::ReadReady { stream });
            }
        }
        self::arm(cx, stream, link);
        cx.stats.sessions += 1;
        true
    }

    // --- write -----------------------------------------------------------------------------------------------

    pub(crate) fn written(&mut self, cx: &mut Cx, stream: StreamId) {
        let Some(link) = self.map.get_mut(&stream) else { return };
        let Carried::Stream { busy, .. } = &mut link.carrier else { return };
        *busy = false;
        hand_over(cx, stream, link, Vec::new());
        if let Some(reason) = link.ending {
            self.end(cx, stream, reason);
        } else if let Some(peer) = link.peer {
            cx.touch(peer);
        }
    }

    /// Seals a record that was begun by the session and hands it over. `false`: the session is used up.
    pub(crate) fn write(&mut self, cx: &mut Cx, stream: StreamId, mut record: Vec<u8>) -> bool {
        let Some(link) = self.map.get_mut(&stream) else { return false };
        if link.session.seal(&mut record).is_err() {
            return false;
        }
        let alive = match &mut link.carrier {
            Carried::Stream { busy, .. } => {
                *busy = !planted!(cx, WrittenBeforeTaken);
                cx.out.push_back(Output::Write { stream, bytes: Bytes::from(record) });
                true
            }
            Carried::Datagrams(datagrams) => datagrams.write(cx, &record),
        };
        self::arm(cx, stream, link);
        alive
    }

    // --- end -------------------------------------------------------------------------------------------------

    /// Ends a stream in good order: the reason, then FIN. If the carrier takes nothing, a timer ends it.
    pub(crate) fn end(&mut self, cx: &mut Cx, stream: StreamId, reason: CloseReason) {
        let Some(link) = self.map.get_mut(&stream) else { return };
        if !link.session.is_open() {
            self.abort(cx, stream);
            return;
        }
        if let Carried::Datagrams(datagrams) = &mut link.carrier {
            if datagrams.is_idle() {
                datagrams.close(cx, reason);
                self.forget(cx, stream);
            } else if link.ending.replace(reason).is_none() {
                // What was said before should arrive.
                datagrams.end_by(cx.now + SHUTDOWN_MAX);
                self.arm(cx, stream);
            }
            return;
        }
        if let Carried::Stream { busy: true, .. } = &link.carrier {
            if link.ending.replace(reason).is_none() {
                cx.timer(Timer::Link(stream), SHUTDOWN_MAX);
            }
            return;
        }
        let mut record = link.session.begin_record(&mut cx.rng, cx.now);
        Frame::Close(reason).encode(&mut record);
        if link.session.seal(&mut record).is_ok() {
            cx.out.push_back(Output::Write { stream, bytes: Bytes::from(record) });
        }
        cx.out.push_back(Output::Close { stream, flush: true });
        self.forget(cx, stream);
    }

    pub(crate) fn abort(&mut self, cx: &mut Cx, stream: StreamId) {
        if let Some(link) = self.forget(cx, stream)
            && link.path() == PathKind::Stream
        {
            cx.out.push_back(Output::Close { stream, flush: false });
        }
    }

    /// The peer said goodbye on it. Where it was.
    pub(crate) fn closed(&mut self, cx: &mut Cx, stream: StreamId) -> Option<(SocketAddr, PathKind)> {
        let link = self.forget(cx, stream)?;
        if link.path() == PathKind::Stream {
            cx.out.push_back(Output::Close { stream, flush: true });
        }
        Some((link.remote, link.path()))
    }

    /// The stream is over, or given up: nothing about it matters any more.
    pub(crate) fn forget(&mut self, cx: &mut Cx, stream: StreamId) -> Option<Link> {
        cx.timers.cancel(Timer::Link(stream));
        let link = self.map.remove(&stream)?;
        if let Carried::Datagrams(datagrams) = &link.carrier {
            self.names.remove(&datagrams.name());
        }
        Some(link)
    }

    // --- time ------------------------------------------------------------------------------------------------

    pub(crate) fn arm(&self, cx: &mut Cx, stream: StreamId) {
        if let Some(link) = self.map.get(&stream) {
            arm(cx, stream, link);
        }
    }

    /// The timer of a stream fired. What ended, if it ended.
    pub(crate) fn due(&mut self, cx: &mut Cx, stream: StreamId) -> Option<SessionEnd> {
        let link = self.map.get_mut(&stream)?;
        let late = match &link.carrier {
            Carried::Stream { .. } => true,
            Carried::Datagrams(datagrams) => datagrams.is_late(cx.now),
        };
        if link.ending.is_some() && late {
            return Some(SessionEnd::Local);
        }
        if let Carried::Datagrams(datagrams) = &mut link.carrier
            && !datagrams.due(cx, &link.session)
        {
            return Some(SessionEnd::Local);
        }
        if let (Carried::Datagrams(datagrams), Some(peer)) = (&link.carrier, link.peer)
            && datagrams.is_silent()
            && link.role == Role::Peer
        {
            cx.silent.insert(peer);
        }
        if !link.session.due(cx.now) {
            return Some(SessionEnd::Silent);
        }
        self::arm(cx, stream, link);
        if let Some(peer) = link.peer {
            cx.touch(peer);
        }
        None
    }
}

fn arm(cx: &mut Cx, stream: StreamId, link: &Link) {
    let carrier = match &link.carrier {
        Carried::Stream { .. } => None,
        Carried::Datagrams(datagrams) => datagrams.deadline(),
    };
    match link.session.deadline().into_iter().chain(carrier).min() {
        Some(at) => cx.timers.set(Timer::Link(stream), at),
        None => cx.timers.cancel(Timer::Link(stream)),
    }
}

/// Hands bytes of a handshake to a stream, now or when it takes some again.
fn hand_over(cx: &mut Cx, stream: StreamId, link: &mut Link, bytes: Vec<u8>) {
    let Carried::Stream { busy, outbound } = &mut link.carrier else { return };
    outbound.extend(bytes);
    if !*busy && !outbound.is_empty() {
        *busy = true;
        cx.out.push_back(Output::Write { stream, bytes: Bytes::from(core::mem::take(outbound)) });
    }
}

/// What one source of streams is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    V4(Ipv4Addr),
    /// The network (/64) that one IPv6 host can fill.
    V6([u16; 4]),
}

fn source(remote: &SocketAddr) -> Source {
    match remote.ip().to_canonical() {
        IpAddr::V4(ip) => Source::V4(ip),
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            Source::V6([a, b, c, d])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_an_ipv4_address_or_an_ipv6_network() {
        let source = |text: &str| source(&text.parse().unwrap());
        assert_eq!(source("192.0.2.1:5"), source("192.0.2.1:6"));
        assert_eq!(source("192.0.2.1:5"), source("[::ffff:192.0.2.1]:7"));
        assert_ne!(source("192.0.2.1:5"), source("192.0.2.2:5"));
        assert_eq!(source("[2001:db8:1:2::3]:5"), source("[2001:db8:1:2:ffff::9]:5"));
        assert_ne!(source("[2001:db8:1:2::3]:5"), source("[2001:db8:1:3::3]:5"));
        // The same first bytes, and nothing to do with each other.
        assert_ne!(source("32.1.13.184:5"), source("[2001:db8::1]:5"));
    }
}
