//! The installation's own record: settings, start counter, and the signed statement of where it can be reached.

use crate::bounded::List;
use crate::cx::{Cx, Promise, Timer};
use crate::limits::{ADDRESSES, CANDIDATES, MAPPED, RECORD_LEAP, RECORD_LIFETIME, RELAYS};
use crate::path::dial::places;
use crate::record::{Key, Profile, Record as _};
use crate::time::WallClock;
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
        moved
    }

    /// These are the home relays from now on.
    pub(crate) fn relays(&mut self, cx: &mut Cx, relays: List<Relay, RELAYS>) {
        self.relays_said = self.relays == relays;
        self.relays = relays;
        self.renew(cx, false);
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
