//! Ports that a gateway opens for us, asked for with the Port Control Protocol (RFC 6887), and where a gateway knows only
//! its predecessor, with NAT-PMP (RFC 6886).
//!
//! One question at a time is on its way, repeated with waits that double. What is held is asked for again at half of its
//! life, and all of it as soon as the gateway's own clock says that it began anew, because then it has forgotten. Whoever
//! is on our network can answer in the gateway's name: an answer counts only if it was asked for, and in the newer language
//! only with our nonce. What it can do at worst is to keep a port from being opened, or to name one that does not lead here.

use crate::api::{Gateway, Transport};
use crate::limits::{
    MAPPING_AGAIN, MAPPING_AGAIN_MIN, MAPPING_LIFETIME, MAPPING_LIFETIME_MAX, MAPPING_LIFETIME_MIN,
    MAPPING_WAIT_MAX, NATPMP_TRIES, NATPMP_WAIT, PCP_TRIES, PCP_TRIES_SPOKEN, PCP_WAIT,
};
use crate::rng::Rng;
use crate::time::{Duration, Instant};
use crate::wire::natpmp::{self, Body, Subject};
use crate::wire::pcp::{self, Answer, Nonce};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Language {
    Pcp,
    NatPmp,
}

/// One port of ours, and what the gateway opened for it.
#[derive(Debug)]
struct Lease {
    transport: Transport,
    nonce: Nonce,
    external: Option<SocketAddr>,
    ends: Instant,
    /// When to ask for it, first or again.
    due: Instant,
}

/// What was asked, and how often.
#[derive(Debug, Clone, Copy)]
struct Question {
    about: Subject,
    tries: u32,
    wait: Duration,
    /// When to ask again, if nothing comes.
    repeat: Instant,
}

/// What we have with one gateway.
#[derive(Debug)]
pub(crate) struct Mapping {
    gateway: Gateway,
    language: Language,
    /// It has opened something, in this language.
    spoken: bool,
    /// Languages that it did not understand since it last understood one.
    misunderstood: u8,
    /// NAT-PMP tells the address apart from ports: the newest, while ports are asked for.
    address: Option<Ipv4Addr>,
    leases: [Lease; 2],
    question: Option<Question>,
    /// Seconds since the gateway began, and when it said so.
    epoch: Option<(u32, Instant)>,
    /// When something last made us ask for everything anew.
    doubted: Option<Instant>,
}

impl Mapping {
    /// `gateway` will be asked as soon as [`Self::leave`] is.
    pub(crate) fn new(now: Instant, rng: &mut Rng, gateway: Gateway) -> Self {
        let mut lease =
            |transport| Lease { transport, nonce: rng.bytes(), external: None, ends: Instant::FAR, due: now };
        Self {
            gateway,
            language: Language::Pcp,
            spoken: false,
            misunderstood: 0,
            address: None,
            leases: [lease(Transport::Udp), lease(Transport::Tcp)],
            question: None,
            epoch: None,
            doubted: None,
        }
    }

    pub(crate) const fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// What is open now.
    pub(crate) fn open(&self) -> impl Iterator<Item = (Transport, SocketAddr)> + '_ {
        self.leases.iter().filter_map(|lease| Some((lease.transport, lease.external?)))
    }

    // --- questions -------------------------------------------------------------------------------------------

    /// What to send to the gateway now.
    pub(crate) fn leave(&mut self, now: Instant, rng: &mut Rng) -> Option<Vec<u8>> {
        for lease in &mut self.leases {
            if lease.external.is_some() && lease.ends <= now {
                lease.external = None;
            }
        }
        if self.question.is_some_and(|question| question.repeat > now) {
            return None;
        }
        if self.question.is_some_and(|question| question.tries >= self.tries()) {
            self.unanswered(now);
        }
        let question = match self.question {
            Some(question) => {
                let wait = (question.wait * 2).min(MAPPING_WAIT_MAX);
                Question { tries: question.tries + 1, wait, ..question }
            }
            None => Question {
                about: self.next(now)?,
                tries: 1,
                wait: match self.language {
                    Language::Pcp => PCP_WAIT,
                    Language::NatPmp => NATPMP_WAIT,
                },
                repeat: now,
            },
        };
        // Within a tenth to both sides (RFC 6887, section 8.1.1), so that a house does not ask in step.
        let tenth = question.wait.as_micros() / 10;
        let shift = Duration::from_micros(rng.up_to(u64::try_from(tenth * 2).unwrap_or_default()));
        let wait = question.wait * 9 / 10 + shift;
        self.question = Some(Question { repeat: now + wait, ..question });
        Some(self.request(question.about, MAPPING_LIFETIME))
    }

    fn tries(&self) -> u32 {
        match self.language {
            Language::Pcp if self.spoken => PCP_TRIES_SPOKEN,
            Language::Pcp => PCP_TRIES,
            Language::NatPmp => NATPMP_TRIES,
        }
    }

    fn next(&self, now: Instant) -> Option<Subject> {
        let due = self.leases.iter().find(|lease| lease.due <= now)?;
        match (self.language, self.address) {
            (Language::NatPmp, None) => Some(Subject::Address),
            _ => Some(Subject::Mapping(due.transport)),
        }
    }

    /// No answer came, however often it was asked.
    fn unanswered(&mut self, now: Instant) {
        if self.language == Language::Pcp && !self.spoken {
            self.speak(now, Language::NatPmp);
        } else {
            self.give_up(now);
        }
    }

    fn speak(&mut self, now: Instant, language: Language) {
        self.question = None;
        self.misunderstood += 1;
        if self.misunderstood > 2 {
            self.give_up(now);
        } else {
            (self.language, self.spoken, self.epoch) = (language, false, None);
        }
    }

    /// For a while. What is held is held until its end.
    fn give_up(&mut self, now: Instant) {
        (self.question, self.address) = (None, None);
        self.misunderstood = 0;
        if !self.spoken {
            self.language = Language::Pcp;
        }
        for lease in &mut self.leases {
            lease.due = lease.due.max(now + MAPPING_AGAIN);
        }
    }

    fn request(&self, about: Subject, lifetime: Duration) -> Vec<u8> {
        let lifetime_s = u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX);
        let own = self.gateway.own;
        let mut out = Vec::new();
        let lease = self.leases.iter().find(|lease| about == Subject::Mapping(lease.transport));
        let held = lease.and_then(|lease| lease.external);
        // A wish: what is held, or the port that we have ourselves. To give back is to wish for nothing.
        let wish = if lifetime_s == 0 { 0 } else { held.map_or(own.port(), |external| external.port()) };
        match (self.language, lease) {
            (Language::Pcp, Some(Lease { transport, nonce, .. })) => {
                let (transport, nonce) = (*transport, *nonce);
                let nowhere = if own.is_ipv4() {
                    IpAddr::V4(Ipv4Addr::UNSPECIFIED)
                } else {
                    IpAddr::V6(Ipv6Addr::UNSPECIFIED)
                };
                let ip = held.filter(|_| lifetime_s > 0).map_or(nowhere, |external| external.ip());
                let external = SocketAddr::new(ip, wish);
                let map = pcp::Map { nonce, transport, internal: own.port(), external };
                pcp::Request { lifetime_s, client: own.ip(), map: Some(map) }.encode(&mut out);
            }
            (Language::NatPmp, Some(Lease { transport, .. })) => {
                let map =
                    natpmp::Map { transport: *transport, internal: own.port(), external: wish, lifetime_s };
                natpmp::Request::Map(map).encode(&mut out);
            }
            (_, None) => natpmp::Request::Address.encode(&mut out),
        }
        out
    }

    /// Gives back what is held, and what was asked for: nobody waits for the answers.
    pub(crate) fn give_back(&mut self) -> Vec<Vec<u8>> {
        let asked = self.question.take().map(|question| question.about);
        let held =
            |lease: &&Lease| lease.external.is_some() || asked == Some(Subject::Mapping(lease.transport));
        let requests = self.leases.iter().filter(held);
        requests.map(|lease| self.request(Subject::Mapping(lease.transport), Duration::ZERO)).collect()
    }

    // --- answers ---------------------------------------------------------------------------------------------

    /// A datagram that came from where the gateway answers. `false`: nothing of ours.
    pub(crate) fn answer(&mut self, now: Instant, rng: &mut Rng, bytes: &[u8]) -> bool {
        match self.language {
            Language::Pcp => match Answer::decode(bytes) {
                Ok(Answer::Response(response)) => self.pcp(now, rng, response),
                Ok(Answer::OtherVersion(_)) => self.other_language(now, Language::NatPmp),
                Err(_) => false,
            },
            Language::NatPmp => match (natpmp::Response::decode(bytes), Answer::decode(bytes)) {
                (Ok(response), _) => self.natpmp(now, rng, response),
                (_, Ok(Answer::Response(response))) if response.result == pcp::UNSUPP_VERSION => {
                    self.other_language(now, Language::Pcp)
                }
                _ => false,
            },
        }
    }

    /// The gateway does not speak as we did. Who answered before does: somebody else says so.
    fn other_language(&mut self, now: Instant, language: Language) -> bool {
        let believed = self.question.is_some() && !self.spoken;
        if believed {
            self.speak(now, language);
        }
        believed
    }

    fn asked(&self, about: Subject) -> bool {
        self.question.is_some_and(|question| question.about == about)
    }

    fn pcp(&mut self, now: Instant, rng: &mut Rng, response: pcp::Response) -> bool {
        let Some(map) = response.map else {
            return self.announced(now, response.epoch_s);
        };
        let ours =
            self.leases.iter().any(|lease| lease.transport == map.transport && lease.nonce == map.nonce);
        if !ours || !self.asked(Subject::Mapping(map.transport)) || map.internal != self.gateway.own.port() {
            return false;
        }
        self.question = None;
        self.counts(now, response.epoch_s);
        let external = Some(map.external).filter(|_| response.result == pcp::SUCCESS);
        self.settle(now, rng, map.transport, external, response.lifetime_s);
        true
    }

    fn natpmp(&mut self, now: Instant, rng: &mut Rng, response: natpmp::Response) -> bool {
        let about = match response.body {
            Body::Address(_) => Subject::Address,
            Body::Map(map) => Subject::Mapping(map.transport),
            Body::Failed(about, _) => about,
        };
        let ours = match response.body {
            Body::Map(map) => map.internal == self.gateway.own.port(),
            Body::Address(_) | Body::Failed(..) => true,
        };
        if !ours || !self.asked(about) {
            return false;
        }
        self.question = None;
        self.counts(now, response.epoch_s);
        match (response.body, self.address) {
            (Body::Address(address), _) => self.address = Some(address),
            (Body::Map(map), Some(address)) => {
                let external = SocketAddr::new(address.into(), map.external);
                self.settle(now, rng, map.transport, Some(external), map.lifetime_s);
            }
            (Body::Failed(_, natpmp::UNSUPPORTED_VERSION), _) => self.speak(now, Language::Pcp),
            (Body::Failed(Subject::Mapping(transport), _), _) => self.settle(now, rng, transport, None, 0),
            // Without an address no port is of use.
            (Body::Failed(Subject::Address, _) | Body::Map(_), _) => self.give_up(now),
        }
        true
    }

    /// What became of one port. `lifetime_s`: how long that is so.
    fn settle(
        &mut self,
        now: Instant,
        rng: &mut Rng,
        transport: Transport,
        external: Option<SocketAddr>,
        lifetime_s: u32,
    ) {
        let Some(lease) = self.leases.iter_mut().find(|lease| lease.transport == transport) else { return };
        let lifetime = Duration::from_secs(lifetime_s.into());
        // A lease that is over at once would have us ask without end.
        match external.filter(|external| is_place(external) && lifetime >= MAPPING_LIFETIME_MIN) {
            Some(external) => {
                let lifetime = lifetime.min(MAPPING_LIFETIME_MAX);
                lease.external = Some(external);
                lease.ends = now + lifetime;
                // From a half to five eighths (RFC 6887, section 11.2.1).
                let eighth = u64::try_from(lifetime.as_micros() / 8).unwrap_or_default();
                lease.due = now + lifetime / 2 + Duration::from_micros(rng.up_to(eighth));
                (self.spoken, self.misunderstood) = (true, 0);
            }
            None => lease.due = now + lifetime.clamp(MAPPING_AGAIN_MIN, MAPPING_AGAIN),
        }
        if self.leases.iter().all(|lease| lease.due > now) {
            // It may be another one by the time that something is asked again.
            self.address = None;
        }
    }

    // --- the gateway's clock ---------------------------------------------------------------------------------

    /// The gateway told us, by an answer that counts, how long it has been there.
    fn counts(&mut self, now: Instant, epoch_s: u32) {
        if self.has_begun_anew(now, epoch_s) {
            self.doubt(now);
        }
        self.epoch = Some((epoch_s, now));
    }

    /// It told everybody, which proves nothing: but to ask does no harm, if that is not done too often.
    fn announced(&mut self, now: Instant, epoch_s: u32) -> bool {
        let doubtful = self.has_begun_anew(now, epoch_s);
        if doubtful {
            self.doubt(now);
        }
        doubtful
    }

    /// RFC 6887, section 8.5; RFC 6886, section 3.6, lets a clock run less true.
    fn has_begun_anew(&self, now: Instant, epoch_s: u32) -> bool {
        let Some((before, at)) = self.epoch else { return false };
        let ours = now.saturating_since(at).as_secs();
        let (before, after) = (u64::from(before), u64::from(epoch_s));
        let theirs = after.saturating_sub(before);
        match self.language {
            Language::Pcp => {
                after + 1 < before || ours + 2 < theirs - theirs / 16 || theirs + 2 < ours - ours / 16
            }
            Language::NatPmp => after + 2 < before + ours - ours / 8,
        }
    }

    /// What is held may be forgotten: ask for all of it.
    fn doubt(&mut self, now: Instant) {
        if self.doubted.is_some_and(|doubted| now.saturating_since(doubted) < MAPPING_AGAIN_MIN) {
            return;
        }
        self.doubted = Some(now);
        for lease in self.leases.iter_mut().filter(|lease| lease.external.is_some()) {
            lease.due = now;
        }
    }

    /// When [`Self::leave`] has something to do.
    pub(crate) fn deadline(&self) -> Instant {
        let leases = self.leases.iter();
        let ends = leases.filter(|lease| lease.external.is_some()).map(|lease| lease.ends);
        let ask = match self.question {
            Some(question) => question.repeat,
            None => self.leases.iter().map(|lease| lease.due).min().unwrap_or(Instant::FAR),
        };
        ends.fold(ask, Instant::min)
    }
}

/// Whether this can be an address that others see: of the wide world, or, behind two boxes, of the network between them.
fn is_place(external: &SocketAddr) -> bool {
    let ip = external.ip();
    let nobody = ip.is_unspecified() || ip.is_loopback() || ip.is_multicast();
    !nobody && ip != IpAddr::V4(Ipv4Addr::BROADCAST) && external.port() != 0
}

#[cfg(test)]
mod tests;
