//! The installation's own record: settings, start counter, and the signed statement of where it can be reached.

use crate::api::{Event, Output};
use crate::bounded::List;
use crate::cx::{Cx, Promise, Timer};
use crate::limits::{
    ADDRESSES, CANDIDATES, MAPPED, RECORD_LEAP, RECORD_LIFETIME, RELAYS, STUN_REST, STUN_SERVERS,
};
use crate::path::dial::places;
use crate::path::observe::Observer;
use crate::record::{Key, Profile, Record as _};
use crate::time::{Instant, WallClock};
use crate::wire::peer_record::{PeerRecord, Relay, VERSION};
use alloc::vec::Vec;
use bytes::Bytes;
use core::net::SocketAddr;

#[derive(Debug)]
pub(crate) struct Own {
    pub(crate) profile: Profile,
    local: List<SocketAddr, ADDRESSES>,
    relays: List<Relay, RELAYS>,
    relays_said: bool,
    /// From where relays see our packets come.
    observed: List<SocketAddr, RELAYS>,
    /// Where gateways let others in.
    mapped: List<SocketAddr, MAPPED>,
    stun: List<SocketAddr, STUN_SERVERS>,
    observer: Observer,
    /// This start is counted.
    ready: bool,
    /// When the questions of the newest round were first asked.
    asked: Instant,
    /// The peer record that may be shown, and the one that is not durable yet.
    record: Option<Bytes>,
    unsaved: Option<Bytes>,
}

impl Own {
    pub(crate) fn new(profile: Profile) -> Self {
        Self {
            profile,
            local: List::new(),
            relays: List::new(),
            relays_said: true,
            observed: List::new(),
            mapped: List::new(),
            stun: List::new(),
            observer: Observer::default(),
            ready: false,
            asked: Instant::ZERO,
            record: None,
            unsaved: None,
        }
    }

    pub(crate) const fn record(&self) -> Option<&Bytes> {
        self.record.as_ref()
    }

    pub(crate) fn write(&self, cx: &mut Cx) {
        cx.put(&Key::Profile, self.profile.encode());
    }

    /// Whether it is somewhere else than before.
    pub(crate) fn local_addresses(&mut self, cx: &mut Cx, addresses: List<SocketAddr, ADDRESSES>) -> bool {
        let moved = self.local != addresses;
        self.local = addresses;
        self.renew(cx, false);
        if moved {
            // Who sees it now sees it elsewhere.
            self.observed.clear();
            self.look(cx);
        }
        moved
    }

    /// Servers beside the relays that are asked from where we are seen.
    pub(crate) fn stun_servers(&mut self, cx: &mut Cx, servers: List<SocketAddr, STUN_SERVERS>) {
        self.stun = servers;
        self.look(cx);
    }

    /// This start is counted: others may be spoken to.
    pub(crate) fn started(&mut self, cx: &mut Cx) {
        self.ready = true;
        self.look(cx);
    }

    /// Asks from where we are seen.
    fn look(&mut self, cx: &mut Cx) {
        if !cx.datagrams || !self.ready {
            return;
        }
        let relays = self.relays.iter().map(|relay| relay.address);
        self.observer.begin(cx.now, &mut cx.rng, relays.chain(self.stun.iter().copied()));
        self.asked = cx.now;
        self.ask(cx);
    }

    /// The same, if there is a reason: something is new, or somebody did not answer. Not again and again: the reason comes
    /// from a relay.
    pub(crate) fn look_again(&mut self, cx: &mut Cx, new: bool) {
        let rested = cx.now.saturating_since(self.asked) >= STUN_REST;
        if rested && !self.observer.is_running() && (new || self.observer.has_unanswered()) {
            self.look(cx);
        }
    }

    /// Asks what is due to be asked, and says what is known when all is.
    pub(crate) fn ask(&mut self, cx: &mut Cx) {
        let over = self.observer.ends(cx.now, &mut cx.rng);
        for (remote, bytes) in self.observer.leave(cx.now) {
            cx.stats.datagrams_sent += 1;
            cx.out.push_back(Output::Datagram { remote, ttl: None, bytes: Bytes::from(bytes) });
        }
        if over {
            cx.event(Event::Observed {
                addresses: self.observed.clone(),
                mapping: self.observer.mapping(&self.local),
                filtering: self.observer.filtering(),
            });
        }
        match self.observer.deadline() {
            Some(at) => cx.timers.set(Timer::Observe, at),
            None => cx.timers.cancel(Timer::Observe),
        }
    }

    /// An answer of a server that was asked: whether it says something new. `None`: it is no such answer.
    pub(crate) fn observed_by(&mut self, cx: &mut Cx, from: SocketAddr, bytes: &[u8]) -> Option<bool> {
        let address = self.observer.answered(cx.now, &mut cx.rng, from, bytes)?;
        let new = self.observed(address);
        self.ask(cx);
        Some(new)
    }

    /// These are the home relays from now on.
    pub(crate) fn relays(&mut self, cx: &mut Cx, relays: List<Relay, RELAYS>) {
        let same = self.relays == relays;
        self.relays_said = same;
        self.relays = relays;
        self.renew(cx, false);
        if !same {
            self.look(cx);
        }
    }

    /// Gateways let others in there, and nowhere else.
    pub(crate) fn mapped(&mut self, cx: &mut Cx, mapped: List<SocketAddr, MAPPED>) {
        self.mapped = mapped;
        self.renew(cx, false);
    }

    /// A relay sees our packets come from there. `false`: that was known.
    pub(crate) fn observed(&mut self, address: SocketAddr) -> bool {
        if self.observed.contains(&address) {
            return false;
        }
        if self.observed.is_full() {
            self.observed.remove(0);
        }
        let _room_was_made = self.observed.push(address);
        true
    }

    /// Where a peer may reach this node by datagrams.
    pub(crate) fn candidates(&self) -> List<SocketAddr, CANDIDATES> {
        let mut all: List<SocketAddr, CANDIDATES> = List::new();
        let said = self.profile.advertised.iter().chain(self.mapped.iter()).chain(self.local.iter());
        for address in self.observed.iter().chain(said) {
            if !all.contains(address) {
                let _as_many_as_fit = all.push(*address);
            }
        }
        all
    }

    /// Where a peer may be, of what it says itself: `remote` is the way on which it said so.
    pub(crate) fn places(&self, named: &[SocketAddr], remote: &SocketAddr) -> Vec<SocketAddr> {
        places(named, remote, &self.observed).collect()
    }

    /// This store is older than what it has said. Its newest record may carry any number up to that of the lost ones,
    /// and peers believe none that is lower: it goes on far above.
    pub(crate) fn leap(&mut self, cx: &mut Cx) {
        self.profile.record_seq = self.profile.record_seq.saturating_add(RECORD_LEAP);
        self.renew(cx, true);
    }

    /// Signs a new peer record if what it says changed, or `always`. It is shown once its number is durable, because
    /// among records only the number decides.
    pub(crate) fn renew(&mut self, cx: &mut Cx, always: bool) {
        let said = self.profile.advertised.iter().chain(self.mapped.iter());
        let all = said.chain(self.local.iter()).copied();
        let mut addresses: List<SocketAddr, ADDRESSES> = List::new();
        for address in all {
            if !addresses.contains(&address) && addresses.push(address).is_err() {
                break;
            }
        }
        let made = self.record.is_some() || self.unsaved.is_some();
        let said = core::mem::replace(&mut self.relays_said, true);
        if made && !always && said && addresses == self.profile.record_addresses {
            return;
        }
        self.profile.record_seq += 1;
        self.profile.record_addresses = addresses.clone();
        let issued = cx.wall();
        let lifetime = u64::try_from(RECORD_LIFETIME.as_millis()).unwrap_or(u64::MAX);
        let record = PeerRecord {
            version: VERSION,
            peer: cx.peer(),
            seq: self.profile.record_seq,
            issued,
            expires: WallClock(issued.0.saturating_add(lifetime)),
            addresses,
            relays: self.relays.clone(),
            prekey: None,
            features: 0,
        };
        self.unsaved = Some(Bytes::from(record.sign(&cx.identity)));
        self.write(cx);
        cx.promise(Promise::Record);
        cx.timer(Timer::Record, RECORD_LIFETIME / 2);
    }

    /// The newest record's number is durable.
    pub(crate) fn record_durable(&mut self) {
        if let Some(record) = self.unsaved.take() {
            self.record = Some(record);
        }
    }
}
