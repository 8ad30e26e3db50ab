//! What a box remembers: mappings, the remote endpoints that each was used for, and flows to the box itself.

use super::cfg::{Filtering, Kind, Mapping, NatCfg};
use super::flow::{Flow, Way};
use super::ports::Chooser;
use super::{Complaint, Loss, Proto, Segment};
use crate::limits::{FLOWS_PER_MAPPING, LOCAL_FLOWS, SWEEP_EVERY};
use peerlink_core::time::{Duration, Instant};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// What a mapping of one inside endpoint is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Any,
    Address(IpAddr),
    Exactly(SocketAddr),
    /// For those that it was used for when another one took its place.
    Former(Id),
}

type Id = u64;

#[derive(Debug, Clone)]
struct Entry {
    proto: Proto,
    inside: SocketAddr,
    outside: SocketAddr,
    key: Key,
    began: Instant,
    /// Asked for by the inside host, by PCP or the like: until then it is there and lets everybody in.
    leased: Instant,
    flows: BTreeMap<SocketAddr, Flow>,
}

impl Entry {
    fn is_live(&self, now: Instant, cfg: &NatCfg) -> bool {
        let young = cfg.life.absolute.is_none_or(|most| now < self.began + most);
        now < self.leased || (young && self.flows.values().any(|flow| flow.is_live(now)))
    }

    fn flow(&self, now: Instant, remote: SocketAddr) -> Option<&Flow> {
        self.flows.get(&remote).filter(|flow| flow.is_live(now))
    }

    fn admits(&self, now: Instant, filtering: Filtering, remote: SocketAddr) -> bool {
        let asked = |flow: &Flow| flow.is_live(now) && flow.was_asked();
        now < self.leased
            || match filtering {
                Filtering::Endpoint => true,
                Filtering::Address => {
                    self.flows.iter().any(|(to, flow)| to.ip() == remote.ip() && asked(flow))
                }
                Filtering::AddressPort => self.flows.get(&remote).is_some_and(asked),
            }
    }

    fn passed(&mut self, now: Instant, cfg: &NatCfg, remote: SocketAddr, way: Way, segment: Option<Segment>) {
        if self.flow(now, remote).is_none() {
            if self.flows.len() >= FLOWS_PER_MAPPING {
                forget_first(&mut self.flows, |flow| flow.expires);
            }
            self.flows.insert(remote, Flow::new(now));
        }
        if let Some(flow) = self.flows.get_mut(&remote) {
            flow.passed(now, cfg, way, segment);
        }
    }
}

/// Removes what ends first.
fn forget_first<K: Ord + Clone, V>(from: &mut BTreeMap<K, V>, expires: impl Fn(&V) -> Instant) {
    let first = from.iter().min_by_key(|(_, value)| expires(value)).map(|(key, _)| key.clone());
    if let Some(first) = first {
        from.remove(&first);
    }
}

/// Two endpoints of a packet from inside, and what it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask {
    pub(super) now: Instant,
    pub(super) proto: Proto,
    pub(super) inside: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) segment: Option<Segment>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    entries: BTreeMap<Id, Entry>,
    by_key: BTreeMap<(Proto, SocketAddr, Key), Id>,
    by_outside: BTreeSet<(Proto, SocketAddr, Id)>,
    per_host: BTreeMap<IpAddr, usize>,
    /// Flows between a remote endpoint and the box itself, and until when.
    local: BTreeMap<(Proto, SocketAddr, SocketAddr), Instant>,
    next: Id,
    swept: Instant,
}

impl Table {
    /// Live mappings, of which there may be some more in memory.
    pub(super) fn len(&self, now: Instant, cfg: &NatCfg) -> usize {
        self.entries.values().filter(|entry| entry.is_live(now, cfg)).count()
    }

    /// The external endpoint that a packet from inside goes out with.
    pub(super) fn outward(
        &mut self,
        cfg: &NatCfg,
        chooser: &mut Chooser,
        external: &[IpAddr],
        ask: Ask,
    ) -> Result<SocketAddr, Loss> {
        self.sweep(cfg, ask.now, SWEEP_EVERY);
        let begins = match ask.segment {
            None | Some(Segment::Syn) => true,
            Some(Segment::Data) => cfg.tcp_rules.picks_up,
            Some(Segment::SynAck | Segment::Fin | Segment::Rst) => false,
        };
        let found = self.find(cfg, ask);
        let known = found.and_then(|id| self.entries.get(&id)?.flow(ask.now, ask.remote)).is_some();
        if !known && !begins {
            return Err(Loss::NoConnection);
        }
        let id = match found {
            Some(id) => id,
            None => self.open(cfg, chooser, external, ask)?,
        };
        let entry = self.entries.get_mut(&id).ok_or(Loss::NoMapping)?;
        entry.passed(ask.now, cfg, ask.remote, Way::Out, ask.segment);
        Ok(entry.outside)
    }

    /// The mapping that fits, if its external endpoint can be used for this remote one.
    fn find(&self, cfg: &NatCfg, ask: Ask) -> Option<Id> {
        let keys = [Key::Exactly(ask.remote), Key::Any, Key::Address(ask.remote.ip())];
        let ids = keys.into_iter().filter_map(|key| {
            let id = *self.by_key.get(&(ask.proto, ask.inside, key))?;
            Some((key, id))
        });
        self.former(ask).into_iter().chain(ids).find_map(|(key, id)| {
            let entry = self.entries.get(&id).filter(|entry| entry.is_live(ask.now, cfg))?;
            // What was leased is for everybody as long as the lease lasts.
            let stale = key == Key::Any && key != usual(cfg, ask.remote) && entry.leased <= ask.now;
            let taken = self.is_local(ask.now, ask.proto, entry.outside, ask.remote)
                || self.at(ask.proto, entry.outside).any(|(other, entry)| {
                    other != id && entry.is_live(ask.now, cfg) && entry.flow(ask.now, ask.remote).is_some()
                });
            (!stale && !taken).then_some(id)
        })
    }

    /// The former mapping that this remote endpoint is still known to.
    fn former(&self, ask: Ask) -> Option<(Key, Id)> {
        let of = |id| (ask.proto, ask.inside, Key::Former(id));
        let all = self.by_key.range(of(Id::MIN)..=of(Id::MAX));
        let known = |id: &Id| self.entries.get(id)?.flow(ask.now, ask.remote);
        all.map(|((_, _, key), id)| (*key, *id)).find(|(_, id)| known(id).is_some())
    }

    fn open(
        &mut self,
        cfg: &NatCfg,
        chooser: &mut Chooser,
        external: &[IpAddr],
        ask: Ask,
    ) -> Result<Id, Loss> {
        self.has_room(cfg, ask.now, ask.inside.ip())?;
        let outside = if cfg.kind == Kind::Nat {
            let usable = |outside| self.is_usable(cfg, ask, outside);
            chooser.choose(cfg, external, ask.inside, usable).ok_or(Loss::NoPort)?
        } else {
            ask.inside
        };
        let mut key = usual(cfg, ask.remote);
        let other = self.by_key.get(&(ask.proto, ask.inside, key)).copied();
        if let Some((id, entry)) = other.and_then(|id| Some((id, self.entries.get_mut(&id)?)))
            && entry.is_live(ask.now, cfg)
        {
            if key == Key::Any && entry.leased <= ask.now {
                // Linux takes the newest port of an inside endpoint for whoever is new; the others keep theirs.
                entry.key = Key::Former(id);
                self.by_key.remove(&(ask.proto, ask.inside, Key::Any));
                self.by_key.insert((ask.proto, ask.inside, Key::Former(id)), id);
            } else {
                key = Key::Exactly(ask.remote);
            }
        }
        Ok(self.insert(ask.now, ask.proto, ask.inside, outside, key))
    }

    fn has_room(&mut self, cfg: &NatCfg, now: Instant, inside: IpAddr) -> Result<(), Loss> {
        let full =
            |table: &Self| table.per_host.get(&inside).is_some_and(|count| *count >= cfg.mappings_per_host);
        if full(self) {
            self.sweep(cfg, now, Duration::ZERO);
        }
        if full(self) { Err(Loss::Limit) } else { Ok(()) }
    }

    /// Whether a new mapping may have this external endpoint.
    fn is_usable(&self, cfg: &NatCfg, ask: Ask, outside: SocketAddr) -> bool {
        let free = |entry: &Entry| {
            !entry.is_live(ask.now, cfg)
                || (cfg.overload
                    && entry.leased <= ask.now
                    && entry.inside != ask.inside
                    && entry.flow(ask.now, ask.remote).is_none())
        };
        !self.is_local(ask.now, ask.proto, outside, ask.remote)
            && self.at(ask.proto, outside).all(|(_, entry)| free(entry))
    }

    /// Who of inside a packet from outside is for.
    pub(super) fn inward(
        &mut self,
        cfg: &NatCfg,
        now: Instant,
        proto: Proto,
        [outside, remote]: [SocketAddr; 2],
        segment: Option<Segment>,
    ) -> Result<SocketAddr, Loss> {
        let filtering = if segment.is_some() { cfg.tcp_rules.filtering } else { cfg.filtering };
        let live = |(_, entry): &(Id, &Entry)| entry.is_live(now, cfg);
        let known = self.at(proto, outside).filter(live).find(|(_, entry)| entry.flow(now, remote).is_some());
        let admits = |(_, entry): &(Id, &Entry)| entry.admits(now, filtering, remote);
        let id = match known.filter(admits).or_else(|| self.at(proto, outside).filter(live).find(admits)) {
            Some((id, _)) => id,
            None if self.at(proto, outside).any(|each| live(&each)) => return Err(Loss::Filtered),
            None => return Err(Loss::NoMapping),
        };
        let entry = self.entries.get_mut(&id).ok_or(Loss::NoMapping)?;
        let fits = match (segment, entry.flow(now, remote)) {
            (None, _) | (Some(Segment::Syn), None) => true,
            (Some(Segment::Syn), Some(flow)) => cfg.tcp_rules.simultaneous_open || !flow.opens_outward(),
            (Some(_), flow) => flow.is_some(),
        };
        if !fits {
            return Err(Loss::NoConnection);
        }
        entry.passed(now, cfg, remote, Way::In, segment);
        Ok(entry.inside)
    }

    /// The inside endpoint whose packet an error from outside is about.
    pub(super) fn complained(&self, cfg: &NatCfg, now: Instant, about: &Complaint) -> Option<SocketAddr> {
        let mut all = self.at(about.proto, about.from);
        let hit = |entry: &Entry| entry.is_live(now, cfg) && entry.flow(now, about.to).is_some();
        all.find(|(_, entry)| hit(entry)).map(|(_, entry)| entry.inside)
    }

    /// The external endpoint to which the packet was sent that an error from inside is about.
    pub(super) fn complains(&self, cfg: &NatCfg, now: Instant, about: &Complaint) -> Option<SocketAddr> {
        let all = self
            .by_key
            .range((about.proto, about.to, Key::Any)..=(about.proto, about.to, Key::Former(Id::MAX)));
        let hit = |entry: &&Entry| entry.is_live(now, cfg) && entry.flow(now, about.from).is_some();
        all.filter_map(|(_, id)| self.entries.get(id)).find(hit).map(|entry| entry.outside)
    }

    // --- the box itself --------------------------------------------------------------------------------------

    pub(super) fn is_local(
        &self,
        now: Instant,
        proto: Proto,
        outside: SocketAddr,
        remote: SocketAddr,
    ) -> bool {
        self.local.get(&(proto, outside, remote)).is_some_and(|expires| now < *expires)
    }

    /// A remote endpoint sent something that the box took for itself.
    pub(super) fn confirm_local(&mut self, until: Instant, proto: Proto, [outside, remote]: [SocketAddr; 2]) {
        if self.local.len() >= LOCAL_FLOWS {
            forget_first(&mut self.local, |expires| *expires);
        }
        self.local.insert((proto, outside, remote), until);
    }

    // --- leases ----------------------------------------------------------------------------------------------

    /// Keeps a mapping of this inside endpoint until then, open to everybody.
    pub(super) fn lease(
        &mut self,
        cfg: &NatCfg,
        chooser: &mut Chooser,
        external: &[IpAddr],
        ask: Ask,
        until: Instant,
    ) -> Result<SocketAddr, Loss> {
        let known = self.by_key.get(&(ask.proto, ask.inside, Key::Any)).copied();
        let known = known.filter(|id| self.entries.get(id).is_some_and(|entry| entry.is_live(ask.now, cfg)));
        let id = match known {
            Some(id) => id,
            None => {
                self.has_room(cfg, ask.now, ask.inside.ip())?;
                let alone = NatCfg { overload: false, ..cfg.clone() };
                let usable = |outside| self.is_usable(&alone, ask, outside);
                let outside = chooser.choose(cfg, external, ask.inside, usable).ok_or(Loss::NoPort)?;
                self.insert(ask.now, ask.proto, ask.inside, outside, Key::Any)
            }
        };
        let entry = self.entries.get_mut(&id).ok_or(Loss::NoMapping)?;
        entry.leased = until;
        Ok(entry.outside)
    }

    // --- keeping ---------------------------------------------------------------------------------------------

    fn at(&self, proto: Proto, outside: SocketAddr) -> impl Iterator<Item = (Id, &Entry)> {
        let all = self.by_outside.range((proto, outside, Id::MIN)..=(proto, outside, Id::MAX));
        all.filter_map(|(_, _, id)| Some((*id, self.entries.get(id)?)))
    }

    fn insert(
        &mut self,
        now: Instant,
        proto: Proto,
        inside: SocketAddr,
        outside: SocketAddr,
        key: Key,
    ) -> Id {
        if let Some(old) = self.by_key.get(&(proto, inside, key)).copied() {
            self.remove(old);
        }
        let id = self.next;
        self.next += 1;
        self.by_key.insert((proto, inside, key), id);
        self.by_outside.insert((proto, outside, id));
        *self.per_host.entry(inside.ip()).or_default() += 1;
        let flows = BTreeMap::new();
        self.entries
            .insert(id, Entry { proto, inside, outside, key, began: now, leased: Instant::ZERO, flows });
        id
    }

    fn remove(&mut self, id: Id) {
        let Some(entry) = self.entries.remove(&id) else { return };
        self.by_key.remove(&(entry.proto, entry.inside, entry.key));
        self.by_outside.remove(&(entry.proto, entry.outside, id));
        if let Some(count) = self.per_host.get_mut(&entry.inside.ip()) {
            *count -= 1;
            if *count == 0 {
                self.per_host.remove(&entry.inside.ip());
            }
        }
    }

    /// Forgets what is over, if that was not done within `pause`.
    fn sweep(&mut self, cfg: &NatCfg, now: Instant, pause: Duration) {
        if now < self.swept + pause {
            return;
        }
        self.swept = now;
        self.local.retain(|_, expires| now < *expires);
        let dead = self.entries.iter().filter(|(_, entry)| !entry.is_live(now, cfg)).map(|(id, _)| *id);
        for id in dead.collect::<Vec<_>>() {
            self.remove(id);
        }
        for entry in self.entries.values_mut() {
            entry.flows.retain(|_, flow| flow.is_live(now));
        }
    }
}

/// The key of a mapping for this remote endpoint.
fn usual(cfg: &NatCfg, remote: SocketAddr) -> Key {
    match cfg.mapping {
        _ if cfg.kind != Kind::Nat => Key::Any,
        Mapping::Endpoint => Key::Any,
        Mapping::Address => Key::Address(remote.ip()),
        Mapping::AddressPort => Key::Exactly(remote),
    }
}
