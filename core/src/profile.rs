//! The installation's own record: settings, start counter, and the signed statement of where it can be reached.

use crate::bounded::List;
use crate::cx::{Cx, Promise, Timer};
use crate::limits::{ADDRESSES, RECORD_LEAP, RECORD_LIFETIME};
use crate::record::{Key, Profile, Record as _};
use crate::time::WallClock;
use crate::wire::peer_record::{PeerRecord, VERSION};
use bytes::Bytes;
use core::net::SocketAddr;

#[derive(Debug)]
pub(crate) struct Own {
    pub(crate) profile: Profile,
    local: List<SocketAddr, ADDRESSES>,
    /// The peer record that may be shown, and the one that is not durable yet.
    record: Option<Bytes>,
    unsaved: Option<Bytes>,
}

impl Own {
    pub(crate) fn new(profile: Profile) -> Self {
        Self { profile, local: List::new(), record: None, unsaved: None }
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

    /// This store is older than what it has said. Its newest record may carry any number up to that of the lost ones,
    /// and peers believe none that is lower: it goes on far above.
    pub(crate) fn leap(&mut self, cx: &mut Cx) {
        self.profile.record_seq = self.profile.record_seq.saturating_add(RECORD_LEAP);
        self.renew(cx, true);
    }

    /// Signs a new peer record if what it says changed, or `always`. It is shown once its number is durable, because
    /// among records only the number decides.
    pub(crate) fn renew(&mut self, cx: &mut Cx, always: bool) {
        let all = self.profile.advertised.iter().chain(self.local.iter()).copied();
        let mut addresses: List<SocketAddr, ADDRESSES> = List::new();
        for address in all {
            if !addresses.contains(&address) && addresses.push(address).is_err() {
                break;
            }
        }
        let made = self.record.is_some() || self.unsaved.is_some();
        if made && !always && addresses == self.profile.record_addresses {
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
            relays: List::new(),
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
