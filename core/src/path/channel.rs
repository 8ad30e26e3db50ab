//! One session over datagrams: numbered packets on the ways that its peer was heard on, whatever becomes of each packet.
//!
//! A packet that does not authenticate, or came before, changes nothing. What a peer should get for certain are records;
//! they travel as parts of one sequence ([`crate::parts`]), and a part that was in a lost packet is sent again in another
//! one. Acknowledgements, challenges and answers end with their packet.
//!
//! A way is where packets go: an address, or a port of a relay. What comes authentic from a new address makes it known and
//! no more. It is used only after it said an unpredictable challenge back (RFC 9000, section 8.2), and then congestion and
//! round trip begin anew. Who moved is followed when the highest packet that did not only try a way came from there
//! (section 9.3); who sees nothing but silence on the way in use tries the others.

use crate::bounded::List;
use crate::bucket::Bucket;
use crate::ids::StreamId;
use crate::limits::{
    ACK_RANGES, AMPLIFICATION, CHALLENGE_TRIES, CHALLENGE_WAIT, NAMED_PLACES, OPENER_TRIES, OPENER_TTL,
    OPENERS, PACKET_BYTES, RECORD_PREFIX, SILENT_PROBES, WAYS,
};
use crate::noise::{Opener, Sealer, Split};
use crate::parts::{Inbound, Outbound};
use crate::planted::planted;
use crate::recovery::{AckRanges, Fate, Recovery, Sending};
use crate::rng::Rng;
use crate::time::{Duration, Instant};
use crate::window::Window;
use crate::wire::Malformed;
use crate::wire::frame::{CloseReason, Port};
use crate::wire::packet::{Ack, DATA_HEADER, PART_HEADER, PIECES, Piece, Pieces, data_header, pad};
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::ops::{Range, RangeInclusive};

/// Where packets go and come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Udp(SocketAddr),
    /// Through the relay at the other end of this link.
    Via {
        link: StreamId,
        port: Port,
    },
}

impl Place {
    pub(crate) const fn is_direct(&self) -> bool {
        matches!(self, Self::Udp(_))
    }
}

/// What a packet carried that matters when its fate is known.
#[derive(Debug, Default)]
struct Carried {
    part: Option<Range<u64>>,
    /// The highest number that it acknowledged.
    acked: Option<u64>,
    /// It told the peer how far it may go.
    limit: bool,
}

#[derive(Debug, Clone, Copy)]
struct Challenge {
    token: [u8; 8],
    sent: Instant,
    tries: u32,
    /// It only opened our own way.
    opener: bool,
}

/// A place, and what is known of it.
#[derive(Debug)]
struct Way {
    remote: Place,
    proven: bool,
    heard: Instant,
    challenge: Option<Challenge>,
    /// A challenge should leave.
    due: bool,
    answer: Option<[u8; 8]>,
    /// Bytes that may go there before it is proven.
    allowance: usize,
    /// So many challenges leave first that do not have to get there: they open our own way for what comes from there. More than
    /// one, because a lost one would leave it shut, and a box that is met by what gets there may hold a grudge for long.
    openers: u8,
}

impl Way {
    const fn new(now: Instant, remote: Place, proven: bool) -> Self {
        Self {
            remote,
            proven,
            heard: now,
            challenge: None,
            due: !proven,
            answer: None,
            allowance: 0,
            openers: 0,
        }
    }
}

/// What a packet led to.
#[derive(Debug)]
pub(crate) enum Opened {
    /// Not authentic, or it came before: it never was.
    Nothing,
    /// Something came; there may be something to read and to send.
    Taken,
    /// The peer ended the session.
    Closed(CloseReason),
}

/// A packet that leaves.
#[derive(Debug)]
pub(crate) struct Leaving {
    pub(crate) remote: Place,
    pub(crate) ttl: Option<u8>,
    pub(crate) bytes: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Channel {
    theirs: u32,
    seal: Sealer,
    open: Opener,
    window: Window,
    recovery: Recovery<Carried>,
    acks: AckRanges,
    outbound: Outbound,
    inbound: Inbound,
    /// The one in use is the first.
    ways: List<Way, WAYS>,
    /// The highest number that came in a packet that did not only try a way.
    highest: Option<u64>,
    /// From where that was.
    latest: Place,
    /// When the pacer lets the next packet go.
    next_send: Option<Instant>,
    /// The peer should hear how far it may go.
    tell: bool,
    /// Something should be sent that asks for an acknowledgement, whatever it is.
    probe: bool,
    /// Places that are tried because the peer says so: it cannot make us send to others without end.
    named: Bucket,
    /// Behind what was said of the places where we may be.
    told: Option<u64>,
}

impl Channel {
    /// `theirs`: what the peer calls the session. Who proved to receive at `remote` did so by the handshake.
    pub(crate) fn new(now: Instant, split: Split, theirs: u32, remote: Place) -> Self {
        #[allow(unused_mut, reason = "a planted bug is set only in builds that have them")]
        let mut outbound = Outbound::new();
        #[cfg(peerlink_planted)]
        {
            outbound.planted = split.seal.planted;
        }
        Self {
            theirs,
            seal: split.seal,
            open: split.open,
            window: Window::new(),
            recovery: Recovery::new(now),
            acks: AckRanges::new(),
            outbound,
            inbound: Inbound::new(),
            ways: List::of([Way::new(now, remote, true)]),
            highest: None,
            latest: remote,
            next_send: None,
            tell: false,
            probe: false,
            named: Bucket::new(now, 1, NAMED_PLACES),
            told: None,
        }
    }

    /// The handshake took this long: the first sample of the round trip.
    pub(crate) fn measured(&mut self, now: Instant, round: Duration) {
        self.recovery.change_path(now, Some(round));
    }

    /// Where packets go now.
    pub(crate) fn remote(&self) -> Place {
        self.ways.first().map_or(self.latest, |way| way.remote)
    }

    pub(crate) fn round_trip(&self) -> Option<Duration> {
        self.recovery.rtt().is_measured().then(|| self.recovery.rtt().smoothed())
    }

    pub(crate) const fn sealing(&self) -> (u64, u64) {
        (self.seal.name(), self.seal.number())
    }

    /// Whether a record of so many bytes may be written.
    pub(crate) fn is_writable(&self, record: usize) -> bool {
        self.outbound.is_writable(record + RECORD_PREFIX)
    }

    /// A record with its length in front.
    pub(crate) fn write(&mut self, record: &[u8]) {
        self.outbound.push(record);
    }

    /// Everything that was written arrived.
    pub(crate) fn is_idle(&self) -> bool {
        self.outbound.is_empty()
    }

    pub(crate) fn is_readable(&self) -> bool {
        self.inbound.is_ready()
    }

    /// Bytes of the peer's records, in order.
    pub(crate) fn read(&mut self, most: usize) -> Vec<u8> {
        self.inbound.read(most)
    }

    /// This machine is somewhere else, or slept: say something, so that the peer sees from where, and learn the way anew.
    pub(crate) fn moved(&mut self, now: Instant) {
        self.recovery.change_path(now, None);
        let (outbound, acks, tell) = (&mut self.outbound, &mut self.acks, &mut self.tell);
        self.recovery.lose_old_path(now, |fate, carried| settle(outbound, acks, tell, fate, carried));
        self.probe = true;
    }

    // --- packets in ------------------------------------------------------------------------------------------

    /// A packet for this session came.
    ///
    /// # Errors
    /// `Malformed` if it is authentic and cannot be from a correct peer.
    pub(crate) fn packet(
        &mut self,
        now: Instant,
        remote: Place,
        number: u64,
        header: &[u8; DATA_HEADER],
        sealed: &mut [u8],
    ) -> Result<Opened, Malformed> {
        let length = sealed.len() + DATA_HEADER;
        if !self.window.check(number) {
            return Ok(Opened::Nothing);
        }
        let early = planted!(self.open, WindowMovedByForged) && self.window.mark(number);
        let Ok(pieces) = self.open.open_packet(number, header, sealed) else { return Ok(Opened::Nothing) };
        if !early && !self.window.mark(number) {
            return Ok(Opened::Nothing);
        }
        let at = self.way(now, remote, length);
        let (mut asks, mut tries_only, mut remembered, mut closed) = (false, true, true, None);
        for piece in Pieces(pieces) {
            let piece = piece?;
            asks |= piece.asks();
            tries_only &= piece.probes();
            match piece {
                Piece::Ack(ack) => self.acknowledged(now, &ack)?,
                Piece::Part { offset, bytes } => remembered &= self.inbound.insert(offset, bytes)?,
                Piece::Challenge(token) => {
                    if let Some(way) = at.and_then(|at| self.ways.get_mut(at)) {
                        way.answer = Some(token);
                    }
                }
                Piece::Answer(token) => self.answered(now, token),
                Piece::Probe => {}
                Piece::Limit(limit) => self.outbound.allow(limit),
                Piece::Close(reason) => closed = Some(reason),
            }
        }
        if remembered {
            self.acks.received(now, number, asks);
        }
        if !tries_only && self.highest.is_none_or(|highest| number > highest) {
            self.highest = Some(number);
            self.latest = remote;
            self.follow(now, None);
        }
        Ok(closed.map_or(Opened::Taken, Opened::Closed))
    }

    /// Which way a packet came on; a new one if there is room.
    fn way(&mut self, now: Instant, remote: Place, bytes: usize) -> Option<usize> {
        let known = self.ways.iter().position(|way| way.remote == remote);
        let at = known.or_else(|| {
            if self.ways.is_full() {
                // One that leads nowhere, then the one that was heard longest ago, never the one in use: whoever catches
                // packets and sends them on from many addresses does not make us forget the ways that are good.
                let oldest =
                    self.ways.iter().enumerate().skip(1).min_by_key(|(_, way)| (way.proven, way.heard));
                let oldest = oldest.map(|(at, _)| at)?;
                self.ways.remove(oldest);
            }
            self.ways.push(Way::new(now, remote, planted!(self.open, PathBelieved))).ok()?;
            Some(self.ways.len() - 1)
        })?;
        let way = self.ways.get_mut(at)?;
        (way.heard, way.openers) = (now, 0);
        if let Some(challenge) = way.challenge.as_mut().filter(|challenge| challenge.opener) {
            // What was opened is open, and the other side's as well: now it gets there.
            challenge.opener = false;
            way.due = true;
        }
        way.allowance = way.allowance.saturating_add(bytes.saturating_mul(AMPLIFICATION));
        Some(at)
    }

    fn acknowledged(&mut self, now: Instant, ack: &Ack) -> Result<(), Malformed> {
        let ranges = ranges(ack)?;
        let delay = Duration::from_micros(ack.delay.into());
        let (outbound, acks, tell) = (&mut self.outbound, &mut self.acks, &mut self.tell);
        self.recovery
            .acked(now, ranges.iter().cloned(), delay, |fate, carried| {
                settle(outbound, acks, tell, fate, carried)
            })
            .map_err(|_| Malformed("acknowledgement of what was never sent"))?;
        if self.knows_places() {
            for way in self.ways.iter_mut() {
                if let Some(challenge) = way.challenge.as_mut().filter(|challenge| challenge.opener) {
                    // The peer has sent to us before it said so: its own box is open now.
                    (challenge.opener, challenge.tries) = (false, 0);
                    (way.openers, way.due) = (0, true);
                }
            }
        }
        Ok(())
    }

    /// The peer knows where we may be.
    fn knows_places(&self) -> bool {
        self.told.is_some_and(|told| self.outbound.has_arrived(told))
    }

    // --- ways ------------------------------------------------------------------------------------------------

    /// A way said a challenge back: it leads to the peer.
    fn answered(&mut self, now: Instant, token: [u8; 8]) {
        let answered = |way: &&mut Way| way.challenge.is_some_and(|challenge| challenge.token == token);
        // The answer may come on another way than the challenge went: it proves the one that was challenged.
        let Some(way) = self.ways.iter_mut().find(answered) else { return };
        let round = way.challenge.take().map(|challenge| now.saturating_since(challenge.sent));
        way.proven = true;
        let proven = way.remote;
        let better = proven.is_direct() && !self.remote().is_direct();
        if proven != self.remote() && (better || self.is_silent()) {
            self.go(now, proven, round);
        } else {
            self.follow(now, round);
        }
    }

    /// Uses the way on which the peer sends, if that is proven. `round`: what its challenge took, if that was just now.
    fn follow(&mut self, now: Instant, round: Option<Duration>) {
        let latest = self.latest;
        // Who still sends through a relay has not found what we have.
        let worse = self.remote().is_direct() && !latest.is_direct() && !self.is_silent();
        if latest != self.remote() && !worse && self.ways.iter().any(|way| way.remote == latest && way.proven)
        {
            self.go(now, latest, round);
        }
    }

    fn go(&mut self, now: Instant, remote: Place, round: Option<Duration>) {
        let Some(at) = self.ways.iter().position(|way| way.remote == remote) else { return };
        let Some(way) = self.ways.remove(at) else { return };
        let _one_was_taken = self.ways.insert(0, way);
        self.recovery.change_path(now, round);
        self.next_send = None;
        self.probe = true;
    }

    /// Nothing comes back on the way in use.
    pub(crate) const fn is_silent(&self) -> bool {
        self.recovery.silence() >= SILENT_PROBES
    }

    /// What was written last says where we may be.
    pub(crate) fn told_places(&mut self) {
        self.told = Some(self.outbound.end());
    }

    /// The peer says that it may be there: try it, in time with the peer, which tries this node as soon as it knows where.
    /// Unless that is so already, the first packet need not get there, only out of here: a box in front of the peer that
    /// sees it before the peer sent may hold a grudge.
    pub(crate) fn try_place(&mut self, now: Instant, place: Place) {
        let opener = !self.knows_places();
        match self.ways.iter_mut().find(|way| way.remote == place) {
            Some(way) if way.proven || way.challenge.is_some() => {}
            _ if !self.named.take(now, 1) => {}
            Some(way) => way.due = true,
            None => {
                let mut way = Way::new(now, place, false);
                // Who says so is the peer, for itself: as much as the challenges need may go there.
                way.allowance = CHALLENGE_TRIES as usize * PACKET_BYTES / 8;
                way.openers = if opener { OPENERS } else { 0 };
                if self.ways.is_full()
                    && let Some(at) = self.ways.iter().position(|way| !way.proven && way.challenge.is_none())
                {
                    self.ways.remove(at);
                }
                let _as_many_as_fit = self.ways.push(way);
            }
        }
    }

    pub(crate) fn leads(&self, through: impl Fn(Place) -> bool) -> bool {
        self.ways.iter().any(|way| through(way.remote))
    }

    /// Places that lead nowhere any more: a relay is gone, or who was behind its port. `false`: no way is left.
    pub(crate) fn lose(&mut self, now: Instant, through: impl Fn(Place) -> bool) -> bool {
        let in_use = self.remote();
        self.ways.retain(|way| !through(way.remote));
        if through(in_use) {
            // A way that answered once is as good as any; it will be doubted if it does not.
            if let Some(other) = self.ways.iter().find(|way| way.proven).map(|way| way.remote) {
                self.go(now, other, None);
            }
        }
        self.ways.iter().any(|way| way.proven)
    }

    /// Nothing comes back on the way in use: ask the others, and it.
    fn doubt(&mut self) {
        for way in self.ways.iter_mut() {
            way.due |= way.challenge.is_none();
        }
    }

    // --- packets out -----------------------------------------------------------------------------------------

    /// The next packet that should leave now.
    ///
    /// # Errors
    /// If the key is used up.
    pub(crate) fn leave(&mut self, now: Instant, rng: &mut Rng) -> Result<Option<Leaving>, ()> {
        if let Some(leaving) = self.try_way(now, rng)? {
            return Ok(Some(leaving));
        }
        self.next_send = None;
        self.tell |= self.inbound.has_limit();
        let wants = self.outbound.has_part() || self.probe || self.tell;
        let allowed = wants
            && match self.recovery.may_send(now, PACKET_BYTES) {
                Sending::Now => true,
                Sending::At(at) => {
                    self.next_send = Some(at);
                    false
                }
                Sending::Wait => false,
            };
        if !allowed && !self.acks.is_due(now) {
            return Ok(None);
        }
        let number = self.seal.number();
        let mut packet = data_header(self.theirs, number).to_vec();
        let mut carried = Carried { part: None, acked: self.put_ack(now, &mut packet), limit: false };
        let mut asks = false;
        if allowed {
            if core::mem::take(&mut self.tell) {
                Piece::Limit(self.inbound.limit()).encode(&mut packet);
                carried.limit = true;
                asks = true;
            }
            let room = PIECES.saturating_sub(packet.len() + PART_HEADER);
            if let Some((range, bytes)) = self.outbound.take(room) {
                Piece::Part { offset: range.start, bytes: &bytes }.encode(&mut packet);
                carried.part = Some(range);
                asks = true;
            } else if self.probe && !asks {
                Piece::Probe.encode(&mut packet);
                asks = true;
            }
            self.probe = false;
        } else if self.acks.should_ask() {
            Piece::Probe.encode(&mut packet);
            asks = true;
        }
        let remote = self.remote();
        self.seal.seal_packet(&mut packet, DATA_HEADER).map_err(|_| ())?;
        if carried.acked.is_some() {
            self.acks.sent(asks);
        }
        if asks {
            if let Err(carried) = self.recovery.sent(now, number, packet.len(), carried) {
                settle(&mut self.outbound, &mut self.acks, &mut self.tell, Fate::Lost, carried);
            }
        } else {
            self.recovery.sent_silent(now, number);
        }
        Ok(Some(Leaving { remote, ttl: None, bytes: packet }))
    }

    /// Puts an acknowledgement in, if there is something to acknowledge. Gives the highest number in it.
    fn put_ack(&mut self, now: Instant, packet: &mut Vec<u8>) -> Option<u64> {
        if !self.acks.has_news() {
            return None;
        }
        let mut ranges = self.acks.ranges();
        let highest = ranges.next()?;
        let length = |range: &RangeInclusive<u64>| {
            u32::try_from(range.end().saturating_sub(*range.start())).unwrap_or(u32::MAX)
        };
        let mut more = List::new();
        let mut below = *highest.start();
        for range in ranges {
            let missing = below.saturating_sub(*range.end()).saturating_sub(2);
            let Ok(missing) = u32::try_from(missing) else { break };
            if more.push((missing, length(&range))).is_err() {
                break;
            }
            below = *range.start();
        }
        let largest = *highest.end();
        let ack = Ack {
            largest,
            delay: u32::try_from(self.acks.delay(now).as_micros()).unwrap_or(u32::MAX),
            first: length(&highest),
            more,
        };
        Piece::Ack(ack).encode(packet);
        Some(largest)
    }

    /// A challenge or an answer that should leave on some way.
    fn try_way(&mut self, now: Instant, rng: &mut Rng) -> Result<Option<Leaving>, ()> {
        let packet_bytes = DATA_HEADER + 2 * 10 + crate::limits::SEAL_BYTES;
        let Some(at) = self.ways.iter().position(|way| {
            (way.answer.is_some() || way.due) && (way.proven || way.allowance >= packet_bytes)
        }) else {
            return Ok(None);
        };
        let in_use = at == 0;
        let number = self.seal.number();
        let mut packet = data_header(self.theirs, number).to_vec();
        let Some(way) = self.ways.get_mut(at) else { return Ok(None) };
        if let Some(token) = way.answer.take() {
            Piece::Answer(token).encode(&mut packet);
        }
        let opener = way.openers > 0;
        way.openers = way.openers.saturating_sub(1);
        if core::mem::replace(&mut way.due, way.openers > 0) {
            // Openers that leave together are one try.
            let tries = way.challenge.map_or(0, |challenge| challenge.tries) + u32::from(way.openers == 0);
            let token = way.challenge.map_or_else(|| rng.bytes(), |challenge| challenge.token);
            way.challenge = Some(Challenge { token, sent: now, tries, opener });
            Piece::Challenge(token).encode(&mut packet);
        }
        // All of one length: who watches cannot tell an answer from a challenge.
        pad(&mut packet, DATA_HEADER + 2 * 10);
        let remote = way.remote;
        let ttl = opener.then_some(OPENER_TTL);
        self.seal.seal_packet(&mut packet, DATA_HEADER).map_err(|_| ())?;
        way.allowance = way.allowance.saturating_sub(packet.len());
        if in_use {
            if let Err(carried) = self.recovery.sent(now, number, packet.len(), Carried::default()) {
                settle(&mut self.outbound, &mut self.acks, &mut self.tell, Fate::Lost, carried);
            }
        } else {
            self.recovery.sent_elsewhere(number);
        }
        Ok(Some(Leaving { remote, ttl, bytes: packet }))
    }

    /// The last packet: the session is over.
    pub(crate) fn close(&mut self, reason: CloseReason) -> Option<Leaving> {
        let mut packet = data_header(self.theirs, self.seal.number()).to_vec();
        Piece::Close(reason).encode(&mut packet);
        self.seal.seal_packet(&mut packet, DATA_HEADER).ok()?;
        Some(Leaving { remote: self.remote(), ttl: None, bytes: packet })
    }

    // --- time ------------------------------------------------------------------------------------------------

    pub(crate) fn deadline(&self) -> Option<Instant> {
        let challenges = self.ways.iter().filter_map(|way| Some(way.challenge?.sent + CHALLENGE_WAIT));
        [self.recovery.deadline(), self.acks.deadline(), self.next_send]
            .into_iter()
            .flatten()
            .chain(challenges)
            .min()
    }

    /// The deadline may have come: what to send is known to [`Self::leave`] then.
    pub(crate) fn due(&mut self, now: Instant) {
        let (outbound, acks, tell) = (&mut self.outbound, &mut self.acks, &mut self.tell);
        if self.recovery.timeout(now, |fate, carried| settle(outbound, acks, tell, fate, carried)) {
            self.probe = true;
            if !self.outbound.has_part()
                && let Some(range) = self.recovery.oldest().and_then(|carried| carried.part.clone())
            {
                // Nothing new to probe with: what is oldest is most likely lost.
                self.outbound.lost(&range);
            }
            if self.is_silent() {
                self.doubt();
            }
        }
        for way in self.ways.iter_mut() {
            if way.challenge.is_some_and(|challenge| challenge.sent + CHALLENGE_WAIT <= now) {
                let tried = way.challenge.is_some_and(|challenge| challenge.tries >= CHALLENGE_TRIES);
                if tried {
                    way.challenge = None;
                } else {
                    way.due = true;
                    // As long as the peer does not know where we are, nothing opens the box in front of it.
                    let waits = |challenge: Challenge| challenge.opener && challenge.tries < OPENER_TRIES;
                    way.openers = u8::from(way.challenge.is_some_and(waits));
                    // Not before the next wait, even if nothing may go there.
                    way.challenge = way.challenge.map(|challenge| Challenge { sent: now, ..challenge });
                }
            }
        }
    }
}

/// The fate of a packet is the fate of what it carried.
fn settle(outbound: &mut Outbound, acks: &mut AckRanges, tell: &mut bool, fate: Fate, carried: Carried) {
    match fate {
        Fate::Acked => {
            if let Some(part) = carried.part {
                outbound.arrived(&part);
            }
            if let Some(highest) = carried.acked {
                acks.settle(highest);
            }
        }
        Fate::Lost => {
            if let Some(part) = carried.part {
                outbound.lost(&part);
            }
            *tell |= carried.limit;
        }
    }
}

fn ranges(ack: &Ack) -> Result<List<RangeInclusive<u64>, ACK_RANGES>, Malformed> {
    let malformed = Malformed("acknowledgement of packets");
    let mut ranges = List::new();
    let mut start = ack.largest.checked_sub(ack.first.into()).ok_or(malformed)?;
    let _there_is_room = ranges.push(start..=ack.largest);
    for (missing, length) in ack.more.iter() {
        let end = start.checked_sub(u64::from(*missing) + 2).ok_or(malformed)?;
        start = end.checked_sub((*length).into()).ok_or(malformed)?;
        ranges.push(start..=end).map_err(|_| malformed)?;
    }
    Ok(ranges)
}

#[cfg(test)]
mod tests;
