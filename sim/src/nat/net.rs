//! A network of boxes: realms of addresses, joined by boxes, with hosts in them.
//!
//! Realm 0 is the internet. Each box opens a realm behind it, in which hosts and further boxes may stand. A packet moves
//! from door to door ([`Net::depart`], [`Net::enter`]), and whoever runs the network lets the time of each stretch pass
//! in between, so that packets that cross each other meet a box in the order in which they reach it.

use super::cfg::{Kind, NatCfg};
use super::gate::{Nat, Verdict, nobody};
use super::{Header, Loss, Trouble};
use crate::limits::{BOXES_DEEP, LINK_MTU};
use peerlink_core::time::{Duration, Instant};
use std::net::IpAddr;

/// The internet.
pub const INTERNET: usize = 0;

/// Where a stretch ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Door {
    Host(usize),
    /// The outside of a box.
    Outside(usize),
    /// The inside of a box.
    Inside(usize),
}

/// A packet under way, and how long the stretch to the next door takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Onward {
    pub after: Duration,
    pub door: Door,
    pub header: Header,
}

/// What came of a packet at a door: it goes on, or something else does, because it is lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Passed {
    /// The packet, or, if it is lost, an answer to it.
    pub onward: Option<Onward>,
    pub lost: Option<Loss>,
}

/// Where addresses are unique.
#[derive(Debug, Clone)]
pub struct Realm {
    /// Routers between any two doors.
    pub hops: u8,
    pub latency: Duration,
    /// Neighbours do not see each other: subscribers of one provider, guests of one radio network.
    pub isolated: bool,
    /// The box on the way out.
    up: Option<usize>,
}

/// A link to a realm.
#[derive(Debug, Clone, Copy)]
struct Link {
    mtu: usize,
    /// What is too large vanishes, and nobody is told: a black hole.
    silent: bool,
}

const LINK: Link = Link { mtu: LINK_MTU, silent: false };

#[derive(Debug, Clone)]
struct Gateway {
    outside: usize,
    inside: usize,
    link: Link,
    v4: Nat,
    v6: Nat,
}

impl Gateway {
    fn nat(&self, address: IpAddr) -> &Nat {
        if address.is_ipv4() { &self.v4 } else { &self.v6 }
    }
}

#[derive(Debug, Clone)]
struct Station {
    realm: usize,
    addresses: Vec<IpAddr>,
    link: Link,
}

#[derive(Debug, Clone)]
pub struct Net {
    realms: Vec<Realm>,
    gateways: Vec<Gateway>,
    stations: Vec<Station>,
}

impl Net {
    /// The internet, with so many routers and so much time between any two doors.
    #[must_use]
    pub fn new(hops: u8, latency: Duration) -> Self {
        let internet = Realm { hops, latency, isolated: false, up: None };
        Self { realms: vec![internet], gateways: Vec::new(), stations: Vec::new() }
    }

    /// A box in this realm; behind it is a new one, which is returned with it. IPv6 passes a firewall if IPv4 is
    /// translated, as in homes, and else whatever IPv4 passes.
    ///
    /// # Panics
    /// If the realm is behind too many boxes.
    pub fn add_box(&mut self, outside: usize, cfg: NatCfg, external: &[IpAddr], seed: u64) -> (usize, usize) {
        let firewall = NatCfg { udp: cfg.udp.clone(), tcp: cfg.tcp.clone(), ..NatCfg::firewall() };
        let v6 = if cfg.kind == Kind::Nat { firewall } else { cfg.clone() };
        self.add_dual_box(outside, [cfg, v6], external, seed)
    }

    /// The same, with the behaviour for IPv4 and that for IPv6.
    ///
    /// # Panics
    /// If the realm is behind too many boxes.
    pub fn add_dual_box(
        &mut self,
        outside: usize,
        [v4, v6]: [NatCfg; 2],
        external: &[IpAddr],
        seed: u64,
    ) -> (usize, usize) {
        assert!(self.depth(outside) < BOXES_DEEP, "so many boxes behind each other are not a network");
        let (index, inside) = (self.gateways.len(), self.realms.len());
        let [four, six] = split(external);
        self.gateways.push(Gateway {
            outside,
            inside,
            link: LINK,
            v4: Nat::new(v4, four, seed),
            v6: Nat::new(v6, six, seed.rotate_left(32)),
        });
        self.realms.push(Realm { hops: 0, latency: Duration::ZERO, isolated: false, up: Some(index) });
        (index, inside)
    }

    pub fn add_host(&mut self, realm: usize, addresses: &[IpAddr]) -> usize {
        self.stations.push(Station { realm, addresses: addresses.to_vec(), link: LINK });
        self.stations.len() - 1
    }

    pub fn realm(&mut self, realm: usize) -> &mut Realm {
        &mut self.realms[realm]
    }

    /// The realm behind a box.
    #[must_use]
    pub fn inside(&self, gateway: usize) -> usize {
        self.gateways[gateway].inside
    }

    /// The part of a box that handles addresses of this kind.
    pub fn nat(&mut self, gateway: usize, like: IpAddr) -> &mut Nat {
        let gateway = &mut self.gateways[gateway];
        if like.is_ipv4() { &mut gateway.v4 } else { &mut gateway.v6 }
    }

    /// The box starts again.
    pub fn reboot(&mut self, gateway: usize) {
        self.gateways[gateway].v4.reboot();
        self.gateways[gateway].v6.reboot();
    }

    /// The box gets other addresses on the outside.
    pub fn readdress(&mut self, gateway: usize, external: &[IpAddr]) {
        let [four, six] = split(external);
        self.gateways[gateway].v4.readdress(four);
        self.gateways[gateway].v6.readdress(six);
    }

    /// The host moves to other addresses, maybe in another realm.
    pub fn move_host(&mut self, host: usize, realm: usize, addresses: &[IpAddr]) {
        self.stations[host].realm = realm;
        self.stations[host].addresses = addresses.to_vec();
    }

    #[must_use]
    pub fn addresses(&self, host: usize) -> &[IpAddr] {
        &self.stations[host].addresses
    }

    /// Largest packet of the link on the outside of a box, and whether larger ones vanish without a word.
    pub fn limit_box(&mut self, gateway: usize, mtu: usize, silent: bool) {
        self.gateways[gateway].link = Link { mtu, silent };
    }

    /// The same for the link of a host.
    pub fn limit_host(&mut self, host: usize, mtu: usize, silent: bool) {
        self.stations[host].link = Link { mtu, silent };
    }

    /// A host sends a packet.
    #[must_use]
    pub fn depart(&self, host: usize, header: Header) -> Passed {
        self.cross(self.stations[host].realm, Door::Host(host), header)
    }

    /// A packet reaches a door. At that of a host it is at its end, and nothing comes of it here.
    #[must_use]
    pub fn enter(&mut self, now: Instant, door: Door, header: Header) -> Passed {
        let (index, inside) = match door {
            Door::Host(_) => return Passed::default(),
            Door::Inside(index) => (index, true),
            Door::Outside(index) => (index, false),
        };
        let gateway = &mut self.gateways[index];
        let nat = if header.to.is_ipv4() { &mut gateway.v4 } else { &mut gateway.v6 };
        let verdict = if inside { nat.from_inside(now, header) } else { nat.from_outside(now, header) };
        let (within, without) = (gateway.inside, gateway.outside);
        match verdict {
            Verdict::Out(header) => self.cross(without, Door::Outside(index), header),
            Verdict::In(header) => self.cross(within, Door::Inside(index), header),
            Verdict::Lost(why, answer) => {
                let realm = if inside { within } else { without };
                let answer =
                    answer.map(|answer| self.cross(realm, door, answer)).filter(|it| it.lost.is_none());
                Passed { onward: answer.and_then(|answer| answer.onward), lost: Some(why) }
            }
        }
    }

    /// From one door of a realm to another.
    fn cross(&self, index: usize, from: Door, header: Header) -> Passed {
        let realm = &self.realms[index];
        let Some(to) = self.route(index, header.to.ip()).filter(|to| *to != from) else {
            return Passed { onward: None, lost: Some(Loss::NoRoute) };
        };
        let is_neighbour = |door: &Door| !matches!(door, Door::Inside(_));
        if realm.isolated && is_neighbour(&from) && is_neighbour(&to) {
            return Passed { onward: None, lost: Some(Loss::Isolated) };
        }
        for link in [self.link(from), self.link(to)].into_iter().flatten() {
            if header.size > link.mtu {
                let trouble = (!link.silent).then_some(Trouble::TooBig(link.mtu));
                return self.give_up(index, from, &header, Loss::TooBig, trouble);
            }
        }
        if header.hops <= realm.hops {
            return self.give_up(index, from, &header, Loss::HopLimit, Some(Trouble::HopLimit));
        }
        let header = Header { hops: header.hops - realm.hops, ..header };
        Passed { onward: Some(Onward { after: realm.latency, door: to, header }), lost: None }
    }

    /// The packet ends here, and its sender may be told.
    fn give_up(
        &self,
        realm: usize,
        from: Door,
        header: &Header,
        why: Loss,
        trouble: Option<Trouble>,
    ) -> Passed {
        let answer = trouble.and_then(|trouble| header.complaint(nobody(header.to.ip()), trouble));
        let after = self.realms[realm].latency;
        let onward = answer.map(|header| Onward { after, door: from, header });
        Passed { onward, lost: Some(why) }
    }

    /// The door of a realm behind which an address is.
    fn route(&self, realm: usize, to: IpAddr) -> Option<Door> {
        self.down(realm, to).or_else(|| self.realms[realm].up.map(Door::Inside))
    }

    /// The same, in the realm or behind boxes in it.
    fn down(&self, realm: usize, to: IpAddr) -> Option<Door> {
        let host = |station: &Station| station.realm == realm && station.addresses.contains(&to);
        if let Some(host) = self.stations.iter().position(host) {
            return Some(Door::Host(host));
        }
        let behind = |gateway: &Gateway| {
            let nat = gateway.nat(to);
            gateway.outside == realm
                && (nat.external().contains(&to)
                    || (nat.cfg().kind != Kind::Nat && self.down(gateway.inside, to).is_some()))
        };
        self.gateways.iter().position(behind).map(Door::Outside)
    }

    /// The link that joins a door to its realm. Inside boxes it has no limit of its own.
    fn link(&self, door: Door) -> Option<Link> {
        match door {
            Door::Host(host) => Some(self.stations[host].link),
            Door::Outside(gateway) => Some(self.gateways[gateway].link),
            Door::Inside(_) => None,
        }
    }

    fn depth(&self, mut realm: usize) -> usize {
        let mut depth = 0;
        while let Some(up) = self.realms[realm].up {
            realm = self.gateways[up].outside;
            depth += 1;
        }
        depth
    }
}

/// IPv4 and IPv6.
fn split(addresses: &[IpAddr]) -> [Vec<IpAddr>; 2] {
    let (four, six) = addresses.iter().partition(|address| address.is_ipv4());
    [four, six]
}
