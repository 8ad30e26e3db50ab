//! A simulated link for the tests: a bottleneck with a queue, delay, jitter and loss, a sender that has as much to say as
//! the test lets it, and a receiver that acknowledges. Units of data are sent until each was acknowledged.

use super::tests::consistent;
use super::{AckRanges, Fate, Recovery, Sending};
use crate::limits::PACKET_BYTES;
use crate::rng::Rng;
use crate::time::{Duration, Instant};
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::ops::RangeInclusive;

/// One direction of a way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way {
    /// Bytes a second.
    pub(super) rate: u64,
    pub(super) delay: Duration,
    /// Up to so much more for each packet.
    pub(super) jitter: Duration,
    /// Bytes that wait at the bottleneck.
    pub(super) queue: u64,
    /// Lost packets in a thousand, in each direction.
    pub(super) loss: u64,
}

enum Event {
    Data { number: u64, unit: u64 },
    Acks { ranges: Vec<RangeInclusive<u64>>, delay: Duration },
}

/// What is sent: its payload is the unit, or the highest number of the ranges that it carries.
pub(super) struct Link {
    pub(super) now: Instant,
    pub(super) way: Way,
    rng: Rng,
    free_at: Instant,
    events: BTreeMap<(Instant, u64), Event>,
    serial: u64,
    pub(super) sender: Recovery<u64>,
    next_number: u64,
    next_unit: u64,
    /// Units that the application has given so far.
    pub(super) units: u64,
    again: VecDeque<u64>,
    wake: Option<Instant>,
    receiver: AckRanges,
    pub(super) came: BTreeSet<u64>,
    pub(super) acked: BTreeSet<u64>,
    pub(super) packets: u64,
    pub(super) probes: u64,
    pub(super) lost: u64,
    pub(super) most_in_flight: u64,
}

impl Link {
    pub(super) fn new(way: Way, seed: u8) -> Self {
        Self {
            now: Instant::ZERO,
            way,
            rng: Rng::from_seed([seed; 32]),
            free_at: Instant::ZERO,
            events: BTreeMap::new(),
            serial: 0,
            sender: Recovery::new(Instant::ZERO),
            next_number: 0,
            next_unit: 0,
            units: 0,
            again: VecDeque::new(),
            wake: None,
            receiver: AckRanges::new(),
            came: BTreeSet::new(),
            acked: BTreeSet::new(),
            packets: 0,
            probes: 0,
            lost: 0,
            most_in_flight: 0,
        }
    }

    fn lossy(&mut self) -> bool {
        self.rng.up_to(999) < self.way.loss
    }

    fn at(&mut self, at: Instant, event: Event) {
        self.serial += 1;
        self.events.insert((at, self.serial), event);
    }

    fn put_on_the_way(&mut self, number: u64, unit: u64) {
        self.packets += 1;
        let bytes = PACKET_BYTES as u64;
        let start = self.free_at.max(self.now);
        let waiting = start.saturating_since(self.now).as_micros() as u64 * self.way.rate / 1_000_000;
        if waiting + bytes > self.way.queue + bytes {
            return;
        }
        self.free_at = start + Duration::from_micros(bytes * 1_000_000 / self.way.rate);
        if self.lossy() {
            return;
        }
        let jitter = self.rng.up_to(self.way.jitter.as_micros() as u64);
        let arrives = self.free_at + self.way.delay + Duration::from_micros(jitter);
        self.at(arrives, Event::Data { number, unit });
    }

    fn send_one(&mut self) {
        let unit = self.again.pop_front().unwrap_or_else(|| {
            self.next_unit += 1;
            self.next_unit - 1
        });
        let number = self.next_number;
        self.next_number += 1;
        self.sender.sent(self.now, number, PACKET_BYTES, unit).expect("it said that it may");
        self.put_on_the_way(number, unit);
        self.most_in_flight = self.most_in_flight.max(self.sender.congestion().in_flight());
    }

    fn send(&mut self) {
        self.wake = None;
        while !self.again.is_empty() || self.next_unit < self.units {
            match self.sender.may_send(self.now, PACKET_BYTES) {
                Sending::Now => self.send_one(),
                Sending::At(at) => {
                    assert!(at > self.now);
                    self.wake = Some(at);
                    break;
                }
                Sending::Wait => break,
            }
        }
        if self.receiver.is_due(self.now) {
            let ranges = self.receiver.ranges().collect();
            let delay = self.receiver.delay(self.now);
            self.receiver.sent(false);
            if !self.lossy() {
                let arrives = self.now + self.way.delay;
                self.at(arrives, Event::Acks { ranges, delay });
            }
        }
    }

    fn fates(&mut self, fates: Vec<(Fate, u64)>) {
        for (fate, unit) in fates {
            match fate {
                Fate::Acked => {
                    assert!(self.came.contains(&unit), "nothing is acknowledged that did not come");
                    self.acked.insert(unit);
                }
                Fate::Lost => {
                    self.lost += 1;
                    self.again.push_back(unit);
                }
            }
        }
    }

    /// One step of time. False if nothing will ever happen any more.
    pub(super) fn step(&mut self, until: Instant) -> bool {
        self.send();
        let due = [
            self.events.keys().next().map(|(at, _)| *at),
            self.sender.deadline(),
            self.wake,
            self.receiver.deadline(),
        ];
        let Some(next) = due.into_iter().flatten().min().filter(|next| *next <= until) else {
            self.now = until;
            return false;
        };
        self.now = self.now.max(next);
        let mut fates = Vec::new();
        if self.sender.deadline().is_some_and(|at| at <= self.now)
            && self.sender.timeout(self.now, |fate, unit| fates.push((fate, unit)))
        {
            self.probes += 1;
            // A probe repeats the oldest if there is nothing new.
            if self.again.is_empty() && self.next_unit >= self.units {
                let oldest = *self.sender.oldest().expect("a timeout waits for something");
                self.again.push_back(oldest);
            }
        }
        while let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= self.now) {
            match entry.remove() {
                Event::Data { number, unit } => {
                    self.receiver.received(self.now, number, true);
                    self.came.insert(unit);
                }
                Event::Acks { ranges, delay } => self
                    .sender
                    .acked(self.now, ranges.into_iter(), delay, |fate, unit| fates.push((fate, unit)))
                    .expect("an honest receiver"),
            }
        }
        self.fates(fates);
        // It looks at every packet, which is too much for every step of a fast link.
        if self.serial.is_multiple_of(64) {
            consistent(&self.sender);
        }
        true
    }

    /// Lets so much time pass.
    pub(super) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.step(until) {}
    }

    /// Bytes of units that came, for each second since the start.
    pub(super) fn goodput(&self) -> u64 {
        self.came.len() as u64 * PACKET_BYTES as u64 * 1_000_000 / self.now.as_micros().max(1)
    }
}
