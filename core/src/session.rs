//! One secured association over one carrier: the handshake, then records, then silence or goodbye.
//!
//! ```text
//! initiator:  dialling ──connected/1──▶ hello awaited ──2──▶ (decide) ──3──▶ open
//! responder:  first awaited ──1/2──▶ intro awaited ──3──▶ (decide) ──▶ open
//! ```
//!
//! On a stream it seals and opens the records itself. Over datagrams packets are sealed (`path::channel`), and records are
//! what their parts put together.
//!
//! It decides nothing about peers: who may come in, and which of two sessions stays, is the tables' business. Nothing
//! that is not authenticated moves its state: a bad message ends the stream, which on a stream carrier is all that
//! can be done with it.
//!
//! Liveness: what is offered and unanswered for max(3 round trips, 5 s) sends a ping, and a ping unanswered as long
//! ends the session. A slow disk answers pings. A session that hears nothing for long pings too, so that "connected"
//! does not become a lie.

use crate::api::Rejection;
use crate::deframe::Deframe;
use crate::identity::Identity;
use crate::ids::{Epoch, Name, PeerId, SessionId};
use crate::limits::{
    HANDSHAKE_BYTES, HANDSHAKE_TIMEOUT, IDLE_PING, LIVENESS_MAX, LIVENESS_MIN, RECORD_BYTES, RECORD_PREFIX,
};
use crate::noise::{Handshake, Opener, Role, Sealer, Split, StaticKey};
use crate::planted::planted;
use crate::rng::Rng;
use crate::time::{Duration, Instant};
use crate::wire::frame::{Frame, put_grease};
use crate::wire::handshake::{
    Carrier, Certificate, Hello, Intro, check_first, decode, encode, first, prologue,
};
use alloc::boxed::Box;
use alloc::vec::Vec;

/// What every handshake of this start uses.
#[derive(Debug)]
pub(crate) struct Keys {
    network: u32,
    peer: PeerId,
    pub(crate) holder: Epoch,
    start: u64,
    key: StaticKey,
    as_initiator: Certificate,
    as_responder: Certificate,
    #[cfg(peerlink_planted)]
    pub(crate) planted: Option<crate::planted::Planted>,
}

impl Keys {
    pub(crate) fn new(identity: &Identity, network: u32, holder: Epoch, start: u64, rng: &mut Rng) -> Self {
        let key = StaticKey::generate(rng);
        let as_initiator = Certificate::make(identity, network, false, key.public());
        let as_responder = Certificate::make(identity, network, true, key.public());
        Self {
            network,
            peer: identity.peer(),
            holder,
            start,
            key,
            as_initiator,
            as_responder,
            #[cfg(peerlink_planted)]
            planted: None,
        }
    }
}

/// Who the other side proved to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identified {
    pub(crate) peer: PeerId,
    pub(crate) holder: Epoch,
    pub(crate) start: u64,
    /// Its static key, which every start draws anew: it tells starts apart that a rollback made alike.
    pub(crate) key: [u8; 32],
    /// Responder only: what the initiator said.
    pub(crate) after: Option<SessionId>,
    pub(crate) secret: Option<[u8; 16]>,
    pub(crate) nickname: Option<Name>,
    /// Responder only: what the initiator wants of the session.
    pub(crate) features: u64,
}

/// What one record, or its lack, led to.
#[derive(Debug)]
pub(crate) enum Step {
    /// Nothing whole is there.
    Wait,
    /// Something was sent; go on.
    Went,
    /// The table decides whether this session opens; until then nothing is read.
    Decide(Box<Identified>),
    /// A record was opened into the caller's buffer.
    Record,
    Failed(Rejection),
}

enum State {
    Dialling,
    First,
    Hello(Box<Handshake>),
    Intro(Box<Handshake>),
    /// The initiator may send its last message, the responder may open.
    Deciding(Box<Handshake>),
    /// On a stream with ciphers, which are the channel's over datagrams.
    Open(Option<Box<Ciphers>>),
    Over,
}

struct Ciphers {
    seal: Sealer,
    open: Opener,
}

/// What it takes to go on once the table decided.
pub(crate) struct Proceeded {
    /// The last message of the handshake, if we began it.
    pub(crate) message: Option<Vec<u8>>,
    /// Over datagrams: the keys.
    pub(crate) split: Option<Split>,
}

pub(crate) struct Session {
    state: State,
    carrier: Carrier,
    deframe: Deframe,
    /// Whom we dialled; `None` if we were dialled.
    dialled: Option<PeerId>,
    id: Option<SessionId>,
    began: Instant,
    smoothed_rtt: Duration,
    heard: Instant,
    /// How long it may hear nothing before it asks.
    idle: Duration,
    /// No record came yet: whether the other side has the keys is not known.
    unproven: bool,
    offered: Option<Instant>,
    ping: Option<(u64, Instant)>,
    ping_due: Option<Instant>,
    pong_due: Option<u64>,
    greased: bool,
}

impl Session {
    pub(crate) fn dial(carrier: Carrier, peer: PeerId, now: Instant) -> Self {
        Self::new(State::Dialling, carrier, Some(peer), now)
    }

    pub(crate) fn accept(carrier: Carrier, now: Instant) -> Self {
        Self::new(State::First, carrier, None, now)
    }

    fn new(state: State, carrier: Carrier, dialled: Option<PeerId>, now: Instant) -> Self {
        Self {
            state,
            carrier,
            deframe: Deframe::new(HANDSHAKE_BYTES),
            dialled,
            id: None,
            began: now,
            smoothed_rtt: Duration::ZERO,
            heard: now,
            idle: IDLE_PING,
            unproven: true,
            offered: None,
            ping: None,
            ping_due: None,
            pong_due: None,
            greased: false,
        }
    }

    pub(crate) const fn dialled(&self) -> Option<PeerId> {
        self.dialled
    }

    pub(crate) const fn id(&self) -> Option<SessionId> {
        self.id
    }

    pub(crate) const fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// The dial succeeded: Noise message 1, not wrapped.
    pub(crate) fn begin(&mut self, keys: &Keys, rng: &mut Rng, now: Instant) -> Result<Vec<u8>, Rejection> {
        let (State::Dialling, Some(peer)) = (&self.state, self.dialled) else {
            return Err(Rejection::BadHandshake);
        };
        let bind = prologue(keys.network, self.carrier, &peer);
        let mut handshake =
            Handshake::new(Role::Initiator, &bind, &keys.key, rng).map_err(|_| Rejection::BadHandshake)?;
        let mut noise = Vec::new();
        handshake.write(&[], &mut noise).map_err(|_| Rejection::BadHandshake)?;
        self.began = now;
        self.state = State::Hello(Box::new(handshake));
        Ok(noise)
    }

    /// The dial of a stream succeeded: message 1.
    pub(crate) fn connected(
        &mut self,
        keys: &Keys,
        rng: &mut Rng,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<(), Rejection> {
        let noise = self.begin(keys, rng, now)?;
        let peer = self.dialled.ok_or(Rejection::BadHandshake)?;
        put_record(out, &first(&peer, &noise));
        Ok(())
    }

    /// How much may be read: nothing while the table decides.
    pub(crate) fn read_budget(&self) -> usize {
        match self.state {
            State::Dialling | State::Deciding(_) | State::Over => 0,
            State::First | State::Hello(_) | State::Intro(_) | State::Open(_) => self.deframe.room(),
        }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), Rejection> {
        self.deframe.push(bytes).map_err(|_| Rejection::BadHandshake)
    }

    /// Works off one record. A plaintext is left in `record`.
    pub(crate) fn step(
        &mut self,
        keys: &Keys,
        rng: &mut Rng,
        now: Instant,
        record: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Step {
        if matches!(self.state, State::Dialling | State::Deciding(_) | State::Over) {
            return Step::Wait;
        }
        match self.deframe.pop(record) {
            Ok(true) => {}
            Ok(false) => return Step::Wait,
            Err(_) => {
                let why = if matches!(self.state, State::First) {
                    Rejection::NotForUs
                } else {
                    Rejection::BadHandshake
                };
                return self.fail(why);
            }
        }
        match &self.state {
            State::First => {
                let Ok(noise) = check_first(&keys.peer, record) else {
                    return self.fail(Rejection::NotForUs);
                };
                let mut message = Vec::new();
                let step = self.message(keys, rng, now, noise, &mut message);
                if !message.is_empty() {
                    put_record(out, &message);
                }
                step
            }
            State::Hello(_) | State::Intro(_) => self.message(keys, rng, now, record, out),
            State::Open(_) => self.opened(now, record),
            State::Dialling | State::Deciding(_) | State::Over => Step::Wait,
        }
    }

    /// A Noise message of the handshake came. The answer, if there is one at once, is left in `out`.
    pub(crate) fn message(
        &mut self,
        keys: &Keys,
        rng: &mut Rng,
        now: Instant,
        record: &[u8],
        out: &mut Vec<u8>,
    ) -> Step {
        match core::mem::replace(&mut self.state, State::Over) {
            State::First => match self.got_first(keys, rng, record, out) {
                Ok(handshake) => {
                    self.began = now;
                    self.state = State::Intro(handshake);
                    Step::Went
                }
                Err(why) => self.fail(why),
            },
            State::Hello(mut handshake) => {
                match Self::got_hello(keys, self.dialled, &mut handshake, record) {
                    Some(identified) => {
                        self.sample_rtt(now.saturating_since(self.began));
                        self.state = State::Deciding(handshake);
                        Step::Decide(Box::new(identified))
                    }
                    None => self.fail(Rejection::BadHandshake),
                }
            }
            State::Intro(mut handshake) => match Self::got_intro(keys, &mut handshake, record) {
                Some(identified) => {
                    self.sample_rtt(now.saturating_since(self.began));
                    self.id = None;
                    self.state = State::Deciding(handshake);
                    Step::Decide(Box::new(identified))
                }
                None => self.fail(Rejection::BadHandshake),
            },
            state @ (State::Open(_) | State::Dialling | State::Deciding(_) | State::Over) => {
                self.state = state;
                Step::Wait
            }
        }
    }

    fn opened(&mut self, now: Instant, record: &mut Vec<u8>) -> Step {
        if let State::Open(Some(ciphers)) = &mut self.state {
            let length = ciphers.open.open(record).map(|plain| plain.len());
            let Ok(length) = length else { return self.fail(Rejection::BadHandshake) };
            record.truncate(length);
        }
        self.heard(now);
        Step::Record
    }

    /// Something authenticated came.
    pub(crate) fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.unproven = false;
        // Whatever arrives proves that the peer lives; only a pong proves that it hears us, but a pong can stand in line
        // behind much data.
        if let Some((_, since)) = &mut self.ping {
            *since = now;
        }
    }

    /// The first thing is still awaited that proves that the other side has the keys.
    pub(crate) const fn is_unproven(&self) -> bool {
        self.unproven
    }

    /// Over datagrams: which message would be taken now.
    pub(crate) const fn awaits_hello(&self) -> bool {
        matches!(self.state, State::Hello(_))
    }

    pub(crate) const fn awaits_intro(&self) -> bool {
        matches!(self.state, State::Intro(_))
    }

    pub(crate) const fn round_trip(&self) -> Duration {
        self.smoothed_rtt
    }

    /// How long the way stands without a packet.
    pub(crate) const fn keep(&mut self, idle: Duration) {
        self.idle = idle;
    }

    /// Packets measured the round trip.
    pub(crate) const fn measured(&mut self, round: Duration) {
        self.smoothed_rtt = round;
    }

    fn fail(&mut self, why: Rejection) -> Step {
        self.state = State::Over;
        Step::Failed(why)
    }

    fn got_first(
        &self,
        keys: &Keys,
        rng: &mut Rng,
        noise: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Box<Handshake>, Rejection> {
        let bind = prologue(keys.network, self.carrier, &keys.peer);
        let bad = |_| Rejection::BadHandshake;
        let mut handshake = Handshake::new(Role::Responder, &bind, &keys.key, rng).map_err(bad)?;
        handshake.read(noise).map_err(bad)?;
        let hello =
            Hello { certificate: keys.as_responder, holder: keys.holder, start: keys.start, features: 0 };
        handshake.write(&encode(&hello), out).map_err(bad)?;
        Ok(Box::new(handshake))
    }

    fn got_hello(
        keys: &Keys,
        dialled: Option<PeerId>,
        handshake: &mut Handshake,
        record: &[u8],
    ) -> Option<Identified> {
        let payload = handshake.read(record).ok()?;
        let hello: Hello = decode(&payload).ok()?;
        if Some(hello.certificate.peer) != dialled {
            return None;
        }
        let key = handshake.remote_static()?;
        hello.certificate.check(keys.network, true, &key).ok()?;
        Some(Identified {
            peer: hello.certificate.peer,
            holder: hello.holder,
            start: hello.start,
            key,
            after: None,
            secret: None,
            nickname: None,
            features: 0,
        })
    }

    fn got_intro(keys: &Keys, handshake: &mut Handshake, record: &[u8]) -> Option<Identified> {
        let payload = handshake.read(record).ok()?;
        let intro: Intro = decode(&payload).ok()?;
        let key = handshake.remote_static()?;
        let certified = intro.certificate.check(keys.network, false, &key);
        if !planted!(keys, CertificateIgnored) {
            certified.ok()?;
        }
        // One's own identity at the other end is a reflection or a second copy; neither is a conversation.
        (intro.certificate.peer != keys.peer).then_some(Identified {
            peer: intro.certificate.peer,
            holder: intro.holder,
            start: intro.start,
            key,
            after: intro.after,
            secret: intro.secret,
            nickname: intro.nickname,
            features: intro.features,
        })
    }

    /// The table decided to go on: the initiator says who it is, and either side's session opens.
    pub(crate) fn proceed(
        &mut self,
        keys: &Keys,
        after: Option<SessionId>,
        secret: Option<[u8; 16]>,
        nickname: Option<Name>,
        features: u64,
    ) -> Result<Proceeded, Rejection> {
        let State::Deciding(mut handshake) = core::mem::replace(&mut self.state, State::Over) else {
            return Err(Rejection::BadHandshake);
        };
        let bad = |_| Rejection::BadHandshake;
        let mut message = None;
        if self.dialled.is_some() {
            let intro = Intro {
                certificate: keys.as_initiator,
                holder: keys.holder,
                start: keys.start,
                features,
                after,
                secret,
                nickname,
            };
            handshake.write(&encode(&intro), message.insert(Vec::new())).map_err(bad)?;
        }
        #[allow(unused_mut, reason = "a planted bug is set only in builds that have them")]
        let mut split = handshake.split().map_err(bad)?;
        #[cfg(peerlink_planted)]
        {
            (split.seal.planted, split.open.planted) = (keys.planted, keys.planted);
        }
        let mut id = [0; 8];
        for (to, from) in id.iter_mut().zip(split.hash) {
            *to = from;
        }
        self.id = Some(SessionId(id));
        self.deframe.accept_up_to(RECORD_BYTES);
        let split = match self.carrier {
            Carrier::Stream => {
                self.state = State::Open(Some(Box::new(Ciphers { seal: split.seal, open: split.open })));
                None
            }
            Carrier::Datagram => {
                self.state = State::Open(None);
                Some(split)
            }
        };
        Ok(Proceeded { message, split })
    }

    /// Makes frames that a caller began with [`Session::begin_record`] one record, sealed on a stream.
    pub(crate) fn seal(&mut self, record: &mut Vec<u8>) -> Result<(), Rejection> {
        match &mut self.state {
            State::Open(Some(ciphers)) => {
                ciphers.seal.seal(record, RECORD_PREFIX).map_err(|_| Rejection::BadHandshake)?;
            }
            State::Open(None) => {}
            _ => return Err(Rejection::BadHandshake),
        }
        let length = record.len().saturating_sub(RECORD_PREFIX);
        let prefix = u16::try_from(length).map_err(|_| Rejection::BadHandshake)?.to_be_bytes();
        for (to, from) in record.iter_mut().zip(prefix) {
            *to = from;
        }
        Ok(())
    }

    /// The name of the key that seals, and how many records it sealed; `None` while the session is not open.
    pub(crate) const fn sealing(&self) -> Option<(u64, u64)> {
        match &self.state {
            State::Open(Some(ciphers)) => Some((ciphers.seal.name(), ciphers.seal.number())),
            _ => None,
        }
    }

    /// Starts a record: room for its length, then the frames that the session itself has to say.
    pub(crate) fn begin_record(&mut self, rng: &mut Rng, now: Instant) -> Vec<u8> {
        let mut record = alloc::vec![0; RECORD_PREFIX];
        if !self.greased {
            self.greased = true;
            let [n, length, noise @ ..] = rng.bytes::<10>();
            put_grease(&mut record, n, noise.get(..usize::from(length % 9)).unwrap_or_default());
        }
        if let Some(nonce) = self.pong_due.take() {
            Frame::Pong(nonce).encode(&mut record);
        }
        if self.ping_due.take().is_some() {
            let nonce = rng.up_to(u64::MAX);
            self.ping = Some((nonce, now));
            Frame::Ping(nonce).encode(&mut record);
        }
        record
    }

    /// Whether the session itself has something to say.
    pub(crate) const fn wants_record(&self) -> bool {
        self.is_open() && (self.pong_due.is_some() || self.ping_due.is_some())
    }

    // --- liveness --------------------------------------------------------------------------------------------

    pub(crate) fn got_ping(&mut self, nonce: u64) {
        // One slot: who pings faster than it reads gets the newest answer only.
        self.pong_due = Some(nonce);
    }

    /// The round trip, if this answers what was asked.
    pub(crate) fn got_pong(&mut self, nonce: u64, now: Instant) -> Option<Duration> {
        let (_, since) = self.ping.take_if(|(expected, _)| *expected == nonce)?;
        let sample = now.saturating_since(since);
        self.sample_rtt(sample);
        // Still unanswered, but by a peer that hears us: ask again later, not at once.
        self.offered = self.offered.map(|_| now);
        Some(sample)
    }

    /// Something was sent that the peer should answer.
    pub(crate) fn offered(&mut self, now: Instant) {
        self.offered.get_or_insert(now);
    }

    /// It was answered: all of it, or some, and the rest has time anew.
    pub(crate) fn answered(&mut self, all: bool, now: Instant) {
        self.offered = if all { None } else { self.offered.map(|_| now) };
    }

    /// RFC 6298, section 2, without the variance: a bound of 3 round trips has room for it.
    fn sample_rtt(&mut self, sample: Duration) {
        self.smoothed_rtt =
            if self.smoothed_rtt.is_zero() { sample } else { (self.smoothed_rtt * 7 + sample) / 8 };
    }

    /// Since when something is expected of the peer: an answer, or its first record.
    fn asked(&self) -> Option<Instant> {
        self.offered.or(self.unproven.then_some(self.began))
    }

    /// Asks at once whether the peer still hears us.
    pub(crate) fn probe(&mut self, now: Instant) {
        if self.is_open() && self.ping.is_none() {
            self.ping_due.get_or_insert(now);
        }
    }

    fn patience(&self) -> Duration {
        (self.smoothed_rtt * 3).clamp(LIVENESS_MIN, LIVENESS_MAX)
    }

    /// When `due` wants to be called.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Over | State::Dialling => None,
            State::First | State::Hello(_) | State::Intro(_) | State::Deciding(_) => {
                Some(self.began + HANDSHAKE_TIMEOUT)
            }
            State::Open(_) => Some(match (self.ping, self.ping_due, self.asked()) {
                // A ping that waits for a carrier that takes nothing: that is silence too.
                (Some((_, since)), _, _) | (None, Some(since), _) => since + self.patience(),
                (None, None, Some(since)) => (since + self.patience()).min(self.heard + self.idle),
                (None, None, None) => self.heard + self.idle,
            }),
        }
    }

    /// The deadline passed. `false`: the session is dead.
    pub(crate) fn due(&mut self, now: Instant) -> bool {
        if self.deadline().is_none_or(|deadline| deadline > now) {
            return true;
        }
        if !self.is_open() || self.ping.is_some() || self.ping_due.is_some() {
            return false;
        }
        self.ping_due = Some(now);
        true
    }
}

/// Appends a message with its length.
pub(crate) fn put_record(out: &mut Vec<u8>, message: &[u8]) {
    let length = u16::try_from(message.len()).unwrap_or(0);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(message);
}

impl core::fmt::Debug for Session {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let state = match self.state {
            State::Dialling => "dialling",
            State::First => "first awaited",
            State::Hello(_) => "hello awaited",
            State::Intro(_) => "intro awaited",
            State::Deciding(_) => "deciding",
            State::Open(_) => "open",
            State::Over => "over",
        };
        f.debug_struct("Session")
            .field("state", &state)
            .field("dialled", &self.dialled)
            .finish_non_exhaustive()
    }
}
