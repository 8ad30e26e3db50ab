//! Datagrams between the hosts: each is alone, and may be lost, doubled, late, overtaken, or too large.

use crate::fate::{MILLION, Purpose, link};
use crate::fault::Fault;
use crate::limits::{HOPS, IP_UDP_HEADERS, LATE_COPY};
use crate::nat::{Door, Header};
use crate::oracle::Check;
use crate::probe::Probe;
use crate::queue::{Event, Run};
use crate::watch::COOKIE;
use crate::world::World;
use bytes::Bytes;
use peerlink_core::api::{Input, SessionEnd};
use peerlink_core::ids::PeerId;
use peerlink_core::limits::PACKET_BYTES;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// What a way does to datagrams beside what the weather does: since when, and how much.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Squall {
    /// Shares of a million.
    pub(crate) loses: Option<(u64, u64)>,
    pub(crate) doubles: Option<(u64, u64)>,
    /// Each takes up to so much longer than the others.
    pub(crate) scatters: Option<(u64, u64)>,
}

impl Squall {
    /// What began then is over.
    pub(crate) fn ends(&mut self, began: u64) {
        for one in [&mut self.loses, &mut self.doubles, &mut self.scatters] {
            one.take_if(|(at, _)| *at == began);
        }
    }
}

/// A datagram under way.
#[derive(Debug, Clone)]
pub(crate) struct Flight {
    /// The run that sent it; none for what somebody on the way made, or sent again.
    pub(crate) by: Option<Run>,
    /// The directed link that it is on.
    pub(crate) way: usize,
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) bytes: Bytes,
    /// If there are boxes: where the stretch over the internet ends, and to whom it goes there, which a box that leads back
    /// in has changed. And the routers and boxes that it may still pass.
    pub(crate) door: Option<(Door, SocketAddr)>,
    pub(crate) hops: u8,
}

#[derive(Debug, Default)]
pub(crate) struct Air {
    flying: BTreeMap<u64, Flight>,
    next: u64,
}

fn header(from: SocketAddr, to: SocketAddr, bytes: usize) -> Header {
    Header::udp(from, to).with_size(bytes + IP_UDP_HEADERS)
}

impl World {
    /// The host that a datagram to this address reaches now.
    pub(crate) fn receiver(&self, to: SocketAddr) -> Option<usize> {
        self.hosts.iter().position(|host| host.socket() == to && !host.is_hostile)
    }

    /// The same, of a datagram under way; with boxes, the first who may get it.
    pub(crate) fn lands_at(&self, flight: u64) -> Option<usize> {
        let flight = self.air.flying.get(&flight)?;
        match (&self.homes, flight.door) {
            (Some(homes), Some((door, _))) => homes.owner(door),
            _ => self.receiver(flight.to),
        }
    }

    /// Who gets a packet, and where it seems to come from for him.
    fn passes(&mut self, flight: &Flight) -> Option<(usize, SocketAddr)> {
        let (Some(homes), Some((door, to))) = (self.homes.as_mut(), flight.door) else {
            return Some((self.receiver(flight.to)?, flight.from));
        };
        let header = header(flight.from, to, flight.bytes.len()).with_hops(flight.hops);
        let (host, header) = homes.arrive(self.now, door, header)?;
        let open = self.hosts.get(host).is_some_and(|host| host.socket() == header.to && !host.is_hostile);
        open.then_some((host, header.from))
    }

    /// Where a packet goes that somebody on the internet sends in the name of another.
    pub(crate) fn door_to(&mut self, from: SocketAddr, to: SocketAddr) -> Option<(Door, SocketAddr)> {
        let header = header(from, to, 0);
        self.homes.as_mut()?.depart_anywhere(self.now, header).map(|(door, header)| (door, header.to))
    }

    /// A node sends a datagram.
    pub(crate) fn send_datagram(&mut self, index: usize, to: SocketAddr, ttl: Option<u8>, bytes: Bytes) {
        let run = self.run_of(index);
        if bytes.is_empty() || bytes.len() > PACKET_BYTES {
            self.fail(Check::Bounded, format!("a datagram has {} bytes", bytes.len()));
        }
        let clock =
            self.hosts[index].process.as_ref().map_or(0, |process| process.clock(self.now).as_micros());
        let verdict = self.watch.sent(clock, run, to, &bytes);
        if verdict.as_ref().is_ok_and(|moved| *moved) {
            self.met.add(Probe::PathChanged);
        }
        self.judged(verdict.map(|_| ()));
        self.overhear_datagram(&bytes);
        self.count_sent(index, to, bytes.len());
        if bytes.first() == Some(&COOKIE) {
            self.met.add(Probe::CookieAsked);
        }
        let climate = &self.scenario.climate;
        let (hops, mtu) = (climate.hops, climate.mtu);
        let mut from = self.hosts[index].socket();
        let mut left = ttl.unwrap_or(HOPS);
        let mut door = None;
        // Whoever may be there when it arrives: without anybody now it is on no link that could do anything to it.
        let there = if let Some(homes) = self.homes.as_mut() {
            let header = header(from, to, bytes.len()).with_hops(left);
            homes.depart(self.now, index, header).and_then(|(next, header)| {
                (from, left, door) = (header.from, header.hops, Some((next, header.to)));
                homes.owner(next)
            })
        } else if u64::from(left) > hops && bytes.len() + IP_UDP_HEADERS <= mtu {
            self.receiver(to)
        } else {
            None
        };
        let Some(there) = there else { return };
        let way = link(index, there);
        let flight = Flight { by: Some(run), way, from, to, bytes, door, hops: left };
        for (flight, later) in self.touch(flight) {
            self.fly(flight, later);
        }
    }

    /// Lets it go, `later` than it would.
    fn fly(&mut self, flight: Flight, later: u64) {
        let way = flight.way;
        let Squall { loses, doubles, scatters } = self.links[way].squall;
        let more = |squall: Option<(u64, u64)>| squall.map_or(0, |(_, share)| share);
        let (lost, doubled) =
            (self.scenario.climate.loss + more(loses), self.scenario.climate.doubled + more(doubles));
        // Drawn for every packet, so that the end of a fault moves no other fate.
        let is_lost = self.dice.chance(Purpose::Flight, way, lost);
        let is_doubled = self.dice.chance(Purpose::Flight, way, doubled);
        if is_lost {
            let hole = loses.is_some_and(|(_, share)| share >= MILLION);
            self.counts.add(if hole { Fault::PacketHole } else { Fault::PacketLost });
            return;
        }
        let least = self.scenario.climate.latency + self.links[way].clogged.map_or(0, |(_, delay)| delay);
        for copy in 0..1 + u64::from(is_doubled) {
            let jitter = self.dice.below(Purpose::Flight, way, self.scenario.climate.jitter + 1);
            let scattered = self.dice.below(Purpose::Flight, way, more(scatters) + 1);
            let late = self.dice.below(Purpose::Flight, way, LATE_COPY) * copy;
            if scattered > 0 {
                self.counts.add(Fault::PacketScattered);
            }
            if copy > 0 {
                self.counts.add(Fault::PacketDoubled);
            }
            let at = self.now + later + least + jitter + scattered + late;
            self.air.next += 1;
            self.air.flying.insert(self.air.next, flight.clone());
            self.queue.push(at, Event::Land { flight: self.air.next });
        }
    }

    /// It is there, if somebody is.
    pub(crate) fn land(&mut self, flight: u64) {
        let Some(flight) = self.air.flying.remove(&flight) else { return };
        if self.links[flight.way].blocked.is_some() {
            return;
        }
        let Some((host, from)) = self.passes(&flight) else { return };
        let Flight { by, to, bytes, .. } = flight;
        if !self.hosts[host].is_up() || !self.scenario.datagrams {
            return;
        }
        self.watch.came(self.run_of(host), by, from, to, bytes.len());
        self.feed(host, &Input::Datagram { remote: from, bytes: &bytes });
    }

    pub(crate) fn stands_with(&mut self, index: usize, peer: PeerId) {
        let run = self.run_of(index);
        self.stands.insert((index, peer), run);
    }

    /// A session ended that no stream carried: not for what somebody on the way did to its packets.
    pub(crate) fn must_last(&mut self, index: usize, peer: &PeerId, why: SessionEnd) {
        self.stands.remove(&(index, *peer));
        if self.scenario.streams || self.scenario.relays > 0 || self.oracle.is_hostile(peer) {
            return;
        }
        // What the other run of it does not know (any more) must end.
        let other = self.hosts.iter().position(|host| host.peer == *peer).unwrap_or(index);
        let both = self.stands.get(&(other, self.hosts[index].peer)) == Some(&self.run_of(other));
        let impossible = match why {
            SessionEnd::Lost | SessionEnd::Misbehaved => true,
            // A box may have forgotten where a session goes, in silence.
            SessionEnd::Silent => both && self.now > self.disturbed && self.homes.is_none(),
            // People end sessions as well, and so does a newer one.
            SessionEnd::Closed | SessionEnd::Replaced | SessionEnd::Local => false,
        };
        if impossible {
            let name = self.hosts[index].name();
            let what = format!("a session of {name} ends ({why:?}), and its way and its ends were good");
            self.fail(Check::Lasting, what);
        }
    }
}
