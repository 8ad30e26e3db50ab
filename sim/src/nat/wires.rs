//! A network that runs by itself: packets under way, ordered by time, with what they carry. Nothing is random in it.

use super::net::{Door, Net, Passed};
use super::{Header, Loss};
use crate::limits::PACKETS_UNDER_WAY;
use peerlink_core::time::Instant;
use std::collections::BTreeMap;

/// A packet at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival<T> {
    pub at: Instant,
    pub host: usize,
    pub header: Header,
    /// What it carried; an error carries nothing.
    pub payload: Option<T>,
}

#[derive(Debug, Clone)]
pub struct Wires<T> {
    pub net: Net,
    now: Instant,
    sent: u64,
    under_way: BTreeMap<(Instant, u64), (Door, Header, Option<T>)>,
    losses: BTreeMap<Loss, u64>,
}

impl<T> Wires<T> {
    #[must_use]
    pub fn new(net: Net) -> Self {
        let (under_way, losses) = (BTreeMap::new(), BTreeMap::new());
        Self { net, now: Instant::ZERO, sent: 0, under_way, losses }
    }

    #[must_use]
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// Packets that were lost so far, for this reason.
    #[must_use]
    pub fn lost(&self, why: Loss) -> u64 {
        self.losses.get(&why).copied().unwrap_or(0)
    }

    pub fn send(&mut self, host: usize, header: Header, payload: T) {
        let passed = self.net.depart(host, header);
        self.follow(passed, Some(payload));
    }

    /// The next packet that reaches a host, at or before `until`. Without one, it is then `until`.
    pub fn next(&mut self, until: Instant) -> Option<Arrival<T>> {
        while let Some(first) = self.under_way.first_entry() {
            let (at, _) = *first.key();
            if at > until {
                break;
            }
            let (door, header, payload) = first.remove();
            self.now = at;
            if let Door::Host(host) = door {
                return Some(Arrival { at, host, header, payload });
            }
            let passed = self.net.enter(at, door, header);
            self.follow(passed, payload);
        }
        self.now = self.now.max(until);
        None
    }

    /// When the next packet reaches a door.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.under_way.first_key_value().map(|((at, _), _)| *at)
    }

    fn follow(&mut self, passed: Passed, payload: Option<T>) {
        if let Some(why) = passed.lost {
            *self.losses.entry(why).or_default() += 1;
        }
        let Some(onward) = passed.onward else { return };
        assert!(self.under_way.len() < PACKETS_UNDER_WAY, "a storm");
        let payload = if passed.lost.is_some() { None } else { payload };
        self.under_way.insert((self.now + onward.after, self.sent), (onward.door, onward.header, payload));
        self.sent += 1;
    }
}
