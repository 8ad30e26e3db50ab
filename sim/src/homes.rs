//! Where hosts are: on the internet, or behind boxes that translate, filter, forget, and start again.
//!
//! A packet passes the boxes on its own side when it is sent and those of the other side when it arrives; the time that it
//! takes lies between. Who is behind a box can dial and cannot be dialled, so that only the last host of a world is, with or
//! without a neighbour.

use crate::limits::{FAR_AWAY, HOSTS};
use crate::nat::{Class, Door, Hairpin, Header, INTERNET, NatCfg, Net};
use peerlink_core::time::{Duration, Instant};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// What a host is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Home {
    /// Nothing.
    Open,
    /// One box of this class.
    Behind(Class),
    Firewall,
    /// A router at home, behind one of the provider.
    Carrier,
    /// In the same network as the host before.
    Beside,
    /// Nothing, and its port is one that is let out of every network.
    Open443,
    /// As a usual home; packets from inside to the own external address come back in.
    Hairpin,
    /// The same two, and whoever is in that network sees no neighbour in it.
    Isolated,
    IsolatedHairpin,
    /// As [`Self::Carrier`]; packets from one subscriber to another come back in.
    CarrierHairpin,
    /// A router at home, behind the provider's of the host before.
    Subscriber,
}

impl Home {
    /// From where a host can dial by datagrams; all of them can by streams.
    pub(crate) const PLACES: [Self; 11] = [
        Self::Behind(Class::Cone),
        Self::Behind(Class::Adf),
        Self::Behind(Class::Home),
        Self::Behind(Class::Naiv),
        Self::Behind(Class::Hseq),
        Self::Behind(Class::Hblk),
        Self::Behind(Class::Hard),
        Self::Behind(Class::Nudp),
        Self::Firewall,
        Self::Carrier,
        Self::Open,
    ];
    const WORDS: [(&'static str, Self); 19] = [
        ("open", Self::Open),
        ("cone", Self::Behind(Class::Cone)),
        ("adf", Self::Behind(Class::Adf)),
        ("home", Self::Behind(Class::Home)),
        ("naiv", Self::Behind(Class::Naiv)),
        ("hseq", Self::Behind(Class::Hseq)),
        ("hblk", Self::Behind(Class::Hblk)),
        ("hard", Self::Behind(Class::Hard)),
        ("nudp", Self::Behind(Class::Nudp)),
        ("t443", Self::Behind(Class::T443)),
        ("firewall", Self::Firewall),
        ("carrier", Self::Carrier),
        ("beside", Self::Beside),
        ("open443", Self::Open443),
        ("hairpin", Self::Hairpin),
        ("isolated", Self::Isolated),
        ("isolated-hairpin", Self::IsolatedHairpin),
        ("carrier-hairpin", Self::CarrierHairpin),
        ("subscriber", Self::Subscriber),
    ];

    pub(crate) fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, home)| *home == self).map_or("open", |(word, _)| word)
    }

    pub(crate) fn read(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(known, _)| *known == word).map(|(_, home)| *home)
    }

    /// Addresses are translated on the way to the internet.
    pub(crate) const fn is_translated(self) -> bool {
        !matches!(self, Self::Open | Self::Open443 | Self::Firewall)
    }

    pub(crate) const fn has_datagrams(self) -> bool {
        !matches!(self, Self::Behind(Class::Nudp | Class::T443))
    }
}

#[derive(Debug)]
pub(crate) struct Homes {
    net: Net,
    /// The box next to each host, and its realm.
    at: Vec<(Option<usize>, usize)>,
    /// The box of each host that stands on the internet.
    outer: Vec<Option<usize>>,
    /// Who is somewhere on the internet, under no address of his own.
    anybody: usize,
}

fn external(index: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(5, 7, index as u8, 1))
}

impl Homes {
    /// `None`: nothing is between anybody. `lives`: seconds that a mapping for datagrams lives unused, 0 for as long as
    /// such boxes usually keep one.
    pub(crate) fn new(
        homes: &[Home; HOSTS],
        addresses: &[IpAddr],
        hops: u64,
        mtu: usize,
        lives: u64,
        seed: u64,
    ) -> Option<Self> {
        if homes.iter().all(|home| matches!(home, Home::Open | Home::Open443)) {
            return None;
        }
        let mut net = Net::new(u8::try_from(hops).unwrap_or(u8::MAX), Duration::ZERO);
        let limited = |cfg: NatCfg| {
            let mut cfg = cfg;
            if lives > 0 {
                (cfg.life.udp_new, cfg.life.udp_stream) =
                    (Duration::from_secs(lives), Duration::from_secs(lives));
            }
            cfg
        };
        let (mut at, mut outer) = (Vec::<(Option<usize>, usize)>::new(), Vec::<Option<usize>>::new());
        for (index, address) in addresses.iter().enumerate() {
            let home = homes.get(index).copied().unwrap_or(Home::Open);
            let seed = seed.wrapping_add(index as u64);
            let mut add = |outside, cfg: NatCfg, external: &[IpAddr], seed| {
                let (gateway, inside) = net.add_box(outside, limited(cfg), external, seed);
                (Some(gateway), inside)
            };
            // The router at home of a provider's subscriber.
            let own = IpAddr::V4(Ipv4Addr::new(100, 64, index as u8, 2));
            let hairpin = |cfg| NatCfg { hairpin: Hairpin::ExternalSource, ..cfg };
            let (place, box_outside) = match home {
                Home::Beside => {
                    at.last().zip(outer.last()).map_or(((None, INTERNET), None), |(at, outer)| (*at, *outer))
                }
                Home::Subscriber => {
                    let provider = outer.last().copied().flatten();
                    let subscribers = provider.map_or(INTERNET, |provider| net.inside(provider));
                    let place = net.add_box(subscribers, limited(NatCfg::default()), &[own], seed ^ 1);
                    ((Some(place.0), place.1), provider)
                }
                Home::Open | Home::Open443 => ((None, INTERNET), None),
                Home::Carrier | Home::CarrierHairpin => {
                    let cfg = Class::Home.cfg();
                    let cfg = if home == Home::Carrier { cfg } else { hairpin(cfg) };
                    let (provider, subscribers) = add(INTERNET, cfg, &[external(index)], seed);
                    (add(subscribers, NatCfg::default(), &[own], seed ^ 1), provider)
                }
                Home::Firewall => same(add(INTERNET, NatCfg::firewall(), &[], seed)),
                Home::Behind(class) => same(add(INTERNET, class.cfg(), &[external(index)], seed)),
                Home::Isolated => same(add(INTERNET, NatCfg::default(), &[external(index)], seed)),
                Home::Hairpin | Home::IsolatedHairpin => {
                    same(add(INTERNET, hairpin(NatCfg::default()), &[external(index)], seed))
                }
            };
            if matches!(home, Home::Isolated | Home::IsolatedHairpin) {
                net.realm(place.1).isolated = true;
            }
            let host = net.add_host(place.1, &[*address]);
            net.limit_host(host, mtu, true);
            at.push(place);
            outer.push(box_outside);
        }
        let anybody = net.add_host(INTERNET, &[FAR_AWAY]);
        Some(Self { net, at, outer, anybody })
    }

    /// From a host through the boxes on its side; where the stretch over the internet ends.
    pub(crate) fn depart(&mut self, now: u64, host: usize, header: Header) -> Option<(Door, Header)> {
        let mut passed = self.net.depart(host, header);
        loop {
            let onward = passed.onward.filter(|_| passed.lost.is_none())?;
            match onward.door {
                Door::Inside(_) => passed = self.net.enter(clock(now), onward.door, onward.header),
                door => return Some((door, onward.header)),
            }
        }
    }

    /// The same from somewhere on the internet.
    pub(crate) fn depart_anywhere(&mut self, now: u64, header: Header) -> Option<(Door, Header)> {
        self.depart(now, self.anybody, header)
    }

    /// Through the boxes on the other side, to a host.
    pub(crate) fn arrive(&mut self, now: u64, mut door: Door, mut header: Header) -> Option<(usize, Header)> {
        loop {
            if let Door::Host(host) = door {
                return Some((host, header)).filter(|(host, _)| *host != self.anybody);
            }
            let passed = self.net.enter(clock(now), door, header);
            let onward = passed.onward.filter(|_| passed.lost.is_none())?;
            (door, header) = (onward.door, onward.header);
        }
    }

    /// Who is there, or the first who is behind it.
    pub(crate) fn owner(&self, door: Door) -> Option<usize> {
        match door {
            Door::Host(host) => Some(host).filter(|host| *host != self.anybody),
            Door::Outside(gateway) | Door::Inside(gateway) => self
                .outer
                .iter()
                .zip(&self.at)
                .position(|(outer, (next, _))| *outer == Some(gateway) || *next == Some(gateway)),
        }
    }

    /// The boxes of a host start again. `false`: it has none.
    pub(crate) fn reboot(&mut self, host: usize) -> bool {
        let boxes = [self.at[host].0, self.outer[host]];
        boxes.into_iter().flatten().for_each(|gateway| self.net.reboot(gateway));
        self.at[host].0.is_some()
    }

    /// The host has another address in its network.
    pub(crate) fn moved(&mut self, host: usize, address: SocketAddr) {
        self.net.move_host(host, self.at[host].1, &[address.ip()]);
    }
}

/// A host behind one box, which stands on the internet.
fn same(place: (Option<usize>, usize)) -> ((Option<usize>, usize), Option<usize>) {
    (place, place.0)
}

fn clock(now: u64) -> Instant {
    Instant::from_micros(now)
}
