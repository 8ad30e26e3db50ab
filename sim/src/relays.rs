//! The relays of a world: nodes like those of people, on the internet, that serve whoever asks; and who uses which.
//!
//! A relay has nothing to promise but to lose packets at worst. So nothing is held against it but what holds for every node:
//! the contract with its driver, numbers, bounds.

use crate::fate::{Dice, Purpose, link};
use crate::fault::Fault;
use crate::host::Host;
use crate::limits::{HOSTS, IP_TCP_HEADERS, IP_UDP_HEADERS, MOMENTS, RELAYS};
use crate::op::Op;
use crate::probe::Probe;
use crate::scenario::Scenario;
use crate::world::World;
use peerlink_core::api::{Command, ContactChange, Event, PathKind};
use peerlink_core::bounded::List;
use peerlink_core::wire::peer_record::Relay;
use std::net::SocketAddr;

/// Something that matters for how well people reach each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// A contact is reached on this, or not at all.
    Path(Option<PathKind>),
    /// The node starts.
    Started,
    /// A contact is known; a message is stored.
    Added,
    Queued,
    /// A message came; one of one's own is proven to be there.
    Came,
    Delivered,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Simulated microseconds.
    pub at: u64,
    /// To whom.
    pub host: usize,
    pub turn: Turn,
}

/// What a host sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sent {
    /// By datagrams, and the bytes of these with the headers of IPv4 and UDP.
    pub packets: u64,
    pub bytes: u64,
    /// Those of them that no relay was to get, and when the last one left.
    pub strays: u64,
    pub last_stray: u64,
    /// By streams, and the bytes of these with the headers of IPv4 and TCP; not what only acknowledges.
    pub segments: u64,
    pub segment_bytes: u64,
}

impl World {
    /// Part of a stream leaves a host.
    pub(crate) fn count_segment(&mut self, index: usize, bytes: usize) {
        if let Some(sent) = self.sent.get_mut(index) {
            sent.segments += 1;
            sent.segment_bytes += (bytes + IP_TCP_HEADERS) as u64;
        }
    }

    /// A datagram leaves a host.
    pub(crate) fn count_sent(&mut self, index: usize, to: SocketAddr, bytes: usize) {
        let stray = !self.hosts[self.acquaintances..].iter().any(|relay| relay.socket() == to);
        let Some(sent) = self.sent.get_mut(index) else { return };
        sent.packets += 1;
        sent.bytes += (bytes + IP_UDP_HEADERS) as u64;
        if stray {
            sent.strays += 1;
            sent.last_stray = self.now;
        }
    }

    /// What a person's node says of how others are reached.
    pub(crate) fn noticed(&mut self, index: usize, event: &Event) {
        let turn = match event {
            Event::Connected { peer, path, .. } | Event::PathChanged { peer, path, .. } => {
                let before = self.paths.insert((index, *peer), *path);
                if before == Some(PathKind::Relayed) && *path == PathKind::Datagram {
                    self.met.add(Probe::LeftRelay);
                }
                Turn::Path(Some(*path))
            }
            Event::Disconnected { peer, .. } => {
                self.paths.remove(&(index, *peer));
                Turn::Path(None)
            }
            Event::ContactChanged { change: ContactChange::Added, .. } => Turn::Added,
            Event::Queued { .. } => Turn::Queued,
            Event::Received { .. } => Turn::Came,
            Event::Delivered { .. } => Turn::Delivered,
            _ => return,
        };
        self.turned(index, turn);
    }

    pub(crate) fn turned(&mut self, index: usize, turn: Turn) {
        if self.moments.len() < MOMENTS {
            self.moments.push(Moment { at: self.now, host: index, turn });
        }
    }

    /// Adds them behind everybody else; each person begins with one of them, or with both.
    pub(crate) fn add_relays(scenario: &Scenario, dice: &mut Dice, hosts: &mut Vec<Host>) {
        let count = scenario.relays.min(RELAYS).min(HOSTS.saturating_sub(hosts.len()));
        for number in 0..count {
            let index = hosts.len();
            let host = Host::new(index, dice.bytes(Purpose::Seed, link(index, index)), &scenario.climate);
            hosts.extend(host.map(|host| Host { relays: Some(number), ..host }));
        }
        for (index, host) in hosts.iter_mut().enumerate().take(scenario.hosts) {
            host.uses = match (count, index % 3) {
                (0, _) => Vec::new(),
                (1, _) | (_, 0) => vec![0],
                (_, 1) => vec![1],
                _ => vec![0, 1],
            };
        }
    }

    pub(crate) fn is_person(&self, index: usize) -> bool {
        index < self.people.len()
    }

    /// What happens, with the numbers that hosts have in this world; nothing if somebody of it is not there.
    pub(crate) fn placed(&self, op: Op) -> Option<Op> {
        let first = self.acquaintances;
        op.is_among(self.acquaintances, self.hosts.len() - first)
            .then(|| op.placed(&|host| if host < HOSTS { host } else { first + host - HOSTS }))
    }

    /// Where others reach this person if they cannot do so directly.
    pub(crate) fn home_relays<const MOST: usize>(&self, index: usize) -> List<Relay, MOST> {
        let mut relays = List::new();
        for number in &self.hosts[index].uses {
            if let Some(host) = self.hosts.get(self.acquaintances + number) {
                let _as_many_as_fit = relays.push(Relay { peer: host.peer, address: host.address() });
            }
        }
        relays
    }

    /// Tells a node its home relays, until it takes that.
    pub(crate) fn use_relays(&mut self, index: usize) {
        let host = &self.hosts[index];
        if host.told_relays || host.uses.is_empty() || !host.is_up() {
            return;
        }
        let relays = self.home_relays(index);
        self.hosts[index].told_relays = true;
        if self.ask(index, Command::UseRelays { relays }).is_err() {
            self.hosts[index].told_relays = false;
        }
    }

    pub(crate) fn change_relay(&mut self, index: usize, relay: usize) {
        self.counts.add(Fault::HomeRelayChanged);
        let number = relay - self.acquaintances;
        (self.hosts[index].uses, self.hosts[index].told_relays) = (vec![number], false);
        self.use_relays(index);
    }

    /// What a relay says of itself matters only if it stops.
    pub(crate) fn hear_relay(&mut self, index: usize, event: &Event) {
        if *event == Event::Stopped {
            self.stopped(index);
        }
    }
}
