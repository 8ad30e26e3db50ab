//! What became of the packets of one session over datagrams: acknowledged or lost (RFC 9002, section 6 and appendix A,
//! with one space of packet numbers), and when the next may leave.
//!
//! Each packet carries a payload `T` of its owner's: what must be sent again if the packet is lost. It comes back exactly
//! once, through the function that is given to [`Recovery::acked`], [`Recovery::timeout`] or [`Recovery::lose_old_path`].
//! A packet that holds acknowledgements only asks for nothing and has no payload.
//!
//! ```text
//! while there is something to send:
//!     match may_send(now, bytes) { Now => sent(now, number, bytes, payload), At(later) => set a timer, Wait => stop }
//! acknowledgement came:  acked(now, ranges, delay, fate)
//! deadline() is due:     timeout(now, fate); if it wants a probe, send one or two packets, whatever they hold
//! ```
//!
//! A loss that turns out to be none costs a second sending and nothing else: the late acknowledgement is recognised, the
//! window is what it was, and if the path reorders, more reordering is waited for from then on (sections 6.1.1 and 6.1.2
//! leave that open), in packets and in time.
//!
//! A new path begins anew ([`Recovery::change_path`], RFC 9000, section 9.4): what was sent on the old one is still
//! awaited for a round trip of the old one, but counts neither for the round trip nor for the congestion of the new.
//! What goes out on other paths than the one in use, to try them, uses numbers and nothing else
//! ([`Recovery::sent_elsewhere`]).

mod acks;
#[cfg(test)]
mod link;
#[cfg(test)]
mod tests;

pub(crate) use acks::AckRanges;

use crate::congestion::{NewReno, Pacer};
use crate::limits::{
    LIVENESS_MAX, PACKET_THRESHOLD, PACKET_THRESHOLD_MAX, PROBE_PACKETS, PROBES, SENT_PACKETS,
    SETTLED_PACKETS,
};
use crate::rtt::Rtt;
use crate::time::{Duration, Instant};
use alloc::collections::VecDeque;
use core::ops::RangeInclusive;

/// What became of a packet that asked to be acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fate {
    Acked,
    Lost,
}

/// Whether a packet that asks to be acknowledged may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sending {
    Now,
    /// The pacer says when.
    At(Instant),
    /// Not before an acknowledgement, a loss or a probe.
    Wait,
}

/// The peer acknowledged what was never sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("acknowledgement of a packet that was never sent")]
pub(crate) struct NeverSent;

#[derive(Debug)]
enum State<T> {
    Outstanding(T),
    /// Sent without asking for an acknowledgement.
    Silent,
    /// Its payload went back then; its acknowledgement may still come.
    Lost(Instant),
    Acked,
}

#[derive(Debug)]
struct Sent<T> {
    number: u64,
    at: Instant,
    /// Which path of this session it was sent on, counted.
    path: u32,
    bytes: u16,
    state: State<T>,
}

#[derive(Debug)]
pub(crate) struct Recovery<T> {
    /// By number, which only rises. Numbers may be missing.
    packets: VecDeque<Sent<T>>,
    /// Packets that are neither acknowledged nor lost, on all paths.
    outstanding: usize,
    last: Option<u64>,
    largest_acked: Option<u64>,
    /// When the next packet is lost that a later one was acknowledged before.
    loss_at: Option<Instant>,
    /// From when the probe timeout counts: the last packet that asked, or the last timeout.
    probe_from: Instant,
    /// Timeouts since the last acknowledgement.
    probe_count: u32,
    /// Probes that may leave without regard to the window.
    probes: u8,
    packet_threshold: u64,
    /// How long the acknowledgement took of what was taken for lost before it came.
    latest: Duration,
    /// Losses that were none.
    spurious: u64,
    path: u32,
    /// How long after it was sent a packet of an earlier path is lost.
    earlier_delay: Duration,
    /// Packets up to this number were in flight when window or pacer held the next one back: their acknowledgement says
    /// that the window is in use (section 7.8).
    in_use: Option<u64>,
    /// Losses of what was sent before do not show persistent congestion. None before the first sample (section 7.6.2).
    persistent_from: Option<Instant>,
    rtt: Rtt,
    congestion: NewReno,
    pacer: Pacer,
}

impl<T> Recovery<T> {
    pub(crate) const fn new(now: Instant) -> Self {
        Self {
            packets: VecDeque::new(),
            outstanding: 0,
            last: None,
            largest_acked: None,
            loss_at: None,
            probe_from: now,
            probe_count: 0,
            probes: 0,
            packet_threshold: PACKET_THRESHOLD,
            latest: Duration::ZERO,
            spurious: 0,
            path: 0,
            earlier_delay: Duration::ZERO,
            in_use: None,
            persistent_from: None,
            rtt: Rtt::new(),
            congestion: NewReno::new(),
            pacer: Pacer::new(now),
        }
    }

    pub(crate) const fn rtt(&self) -> &Rtt {
        &self.rtt
    }

    #[cfg(test)]
    pub(crate) const fn congestion(&self) -> &NewReno {
        &self.congestion
    }

    /// Packets whose payload is still here.
    #[cfg(test)]
    pub(crate) const fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Losses that turned out to be none.
    #[cfg(test)]
    pub(crate) const fn spurious(&self) -> u64 {
        self.spurious
    }

    /// Timeouts in a row without any acknowledgement: how silent the path is.
    pub(crate) const fn silence(&self) -> u32 {
        self.probe_count
    }

    /// The oldest payload that is neither acknowledged nor lost: what a probe should repeat if there is nothing new.
    pub(crate) fn oldest(&self) -> Option<&T> {
        self.packets.iter().find_map(|packet| match &packet.state {
            State::Outstanding(payload) => Some(payload),
            State::Silent | State::Lost(_) | State::Acked => None,
        })
    }

    // --- sending ---------------------------------------------------------------------------------------------------

    /// Whether a packet of so many bytes that asks to be acknowledged may leave now. To be asked only when there is
    /// something to send: a refusal says that the window is in use.
    pub(crate) fn may_send(&mut self, now: Instant, bytes: usize) -> Sending {
        if self.probes > 0 && self.packets.len() < SENT_PACKETS {
            return Sending::Now;
        }
        let answer = if self.packets.len() >= SENT_PACKETS - PROBE_PACKETS
            || !self.congestion.has_room(bytes as u64)
        {
            Sending::Wait
        } else {
            match self.pacer.ready(now, bytes, self.congestion.window(), self.rtt.smoothed()) {
                at if at > now => Sending::At(at),
                _ => return Sending::Now,
            }
        };
        self.in_use = self.last;
        answer
    }

    /// A packet left that asks to be acknowledged.
    ///
    /// # Errors
    /// The payload, if the number does not rise or there is no room: [`Self::may_send`] was not asked.
    pub(crate) fn sent(&mut self, now: Instant, number: u64, bytes: usize, payload: T) -> Result<(), T> {
        if self.packets.len() >= SENT_PACKETS || self.last.is_some_and(|last| number <= last) {
            return Err(payload);
        }
        let bytes = u16::try_from(bytes).unwrap_or(u16::MAX);
        self.congestion.sent(bytes.into());
        self.pacer.sent(bytes.into());
        self.probes = self.probes.saturating_sub(1);
        self.probe_from = now;
        self.outstanding += 1;
        self.push(now, number, bytes, State::Outstanding(payload));
        Ok(())
    }

    /// A packet left that holds acknowledgements only. It needs no permission.
    pub(crate) fn sent_silent(&mut self, now: Instant, number: u64) {
        if self.last.is_some_and(|last| number <= last) {
            return;
        }
        if self.packets.len() < SENT_PACKETS - PROBE_PACKETS {
            self.push(now, number, 0, State::Silent);
            self.trim(now);
        } else {
            // Not remembered: at most one sample of the round trip is missed.
            self.last = Some(number);
        }
    }

    /// A packet left on another path than the one in use: who tries that path waits for an answer of its own.
    pub(crate) fn sent_elsewhere(&mut self, number: u64) {
        self.last = self.last.max(Some(number));
    }

    fn push(&mut self, at: Instant, number: u64, bytes: u16, state: State<T>) {
        self.last = Some(number);
        self.packets.push_back(Sent { number, at, path: self.path, bytes, state });
    }

    // --- acknowledgements ------------------------------------------------------------------------------------------

    /// The peer names what it has, in ranges that do not overlap, and how long it held back the acknowledgement of the
    /// highest.
    ///
    /// # Errors
    /// If one of the numbers was never sent. Then nothing changed.
    pub(crate) fn acked(
        &mut self,
        now: Instant,
        ranges: impl Iterator<Item = RangeInclusive<u64>> + Clone,
        delay: Duration,
        mut fate: impl FnMut(Fate, T),
    ) -> Result<(), NeverSent> {
        let Some(largest) = ranges.clone().map(|range| *range.end()).max() else { return Ok(()) };
        if self.last.is_none_or(|last| largest > last) {
            return Err(NeverSent);
        }
        let mut new = Newly::default();
        for range in ranges {
            self.take(now, &range, largest, &mut new, &mut fate);
        }
        if let (Some(sent_at), true) = (new.largest_at, new.asked) {
            self.rtt.sample(now.saturating_since(sent_at), delay);
            self.persistent_from = self.persistent_from.or(Some(now));
        }
        if new.any {
            let congested = self.detect(now, &mut fate);
            // What was sent before the window was halved just now does not make it grow.
            if !congested {
                self.congestion.grow(new.grown);
            }
            self.probe_count = 0;
            self.probes = 0;
        }
        self.trim(now);
        Ok(())
    }

    /// Notes that the packets of one range came.
    fn take(
        &mut self,
        now: Instant,
        range: &RangeInclusive<u64>,
        largest: u64,
        new: &mut Newly,
        fate: &mut impl FnMut(Fate, T),
    ) {
        let from = self.packets.partition_point(|packet| packet.number < *range.start());
        for packet in self.packets.range_mut(from..) {
            if packet.number > *range.end() {
                break;
            }
            self.largest_acked = self.largest_acked.max(Some(packet.number));
            let here = packet.path == self.path;
            match core::mem::replace(&mut packet.state, State::Acked) {
                State::Acked => continue,
                State::Lost(since) => {
                    self.spurious = self.spurious.saturating_add(1);
                    if here {
                        let seen = (largest - packet.number).saturating_add(1).min(PACKET_THRESHOLD_MAX);
                        self.packet_threshold = self.packet_threshold.max(seen);
                        self.latest = self.latest.max(now.saturating_since(packet.at));
                        self.congestion.spurious(since);
                    }
                    continue;
                }
                State::Silent => {}
                State::Outstanding(payload) => {
                    self.outstanding -= 1;
                    if here {
                        self.congestion.landed(packet.bytes.into());
                        new.asked = true;
                        if self.in_use >= Some(packet.number) && !self.congestion.in_recovery(packet.at) {
                            new.grown = new.grown.saturating_add(packet.bytes.into());
                        }
                    }
                    fate(Fate::Acked, payload);
                }
            }
            new.any = true;
            // Numbers rise from path to path: if one of this path is new, so is the largest of it.
            if packet.number == largest {
                new.largest_at = Some(packet.at);
            }
        }
    }

    // --- losses ----------------------------------------------------------------------------------------------------

    /// Finds what is lost because of what was acknowledged (section 6.1). True if a recovery period began.
    fn detect(&mut self, now: Instant, fate: &mut impl FnMut(Fate, T)) -> bool {
        self.loss_at = None;
        let Some(largest) = self.largest_acked else { return false };
        // Who waits two round trips for what was overtaken waits long enough (RFC 8985, section 6.2).
        let delay = self.rtt.loss_delay().max(self.latest.min(self.rtt.smoothed() * 2));
        let (mut last_loss, mut lost) = (None, 0);
        let mut run = Run::default();
        let mut persistent = false;
        for packet in self.packets.iter_mut().take_while(|packet| packet.number <= largest) {
            let here = packet.path == self.path;
            // The new path may be faster: what overtakes the packets of the old one there says nothing of them.
            let due = packet.at + if here { delay } else { delay.max(self.earlier_delay) };
            let passed = here && packet.number.saturating_add(self.packet_threshold) <= largest;
            let late = passed || due <= now;
            match core::mem::replace(&mut packet.state, State::Lost(now)) {
                State::Outstanding(payload) if late => {
                    self.outstanding -= 1;
                    if here {
                        self.congestion.landed(packet.bytes.into());
                        last_loss = Some(packet.at);
                        lost += 1;
                        let counts = self.persistent_from.is_some_and(|from| packet.at > from);
                        persistent |= counts && run.lost(packet.at) > self.rtt.persistent();
                    }
                    fate(Fate::Lost, payload);
                    continue;
                }
                State::Lost(since) => {
                    let counts = self.persistent_from.is_some_and(|from| packet.at > from);
                    if here && counts {
                        persistent |= run.lost(packet.at) > self.rtt.persistent();
                    }
                    packet.state = State::Lost(since);
                    continue;
                }
                State::Outstanding(payload) => {
                    self.loss_at = Some(self.loss_at.map_or(due, |at| at.min(due)));
                    packet.state = State::Outstanding(payload);
                }
                State::Acked => packet.state = State::Acked,
                // Whether it came, nobody said.
                State::Silent => {
                    packet.state = State::Silent;
                    continue;
                }
            }
            run = Run::default();
        }
        let congested = last_loss.is_some_and(|sent_at| self.congestion.congested(now, sent_at, lost));
        if persistent && last_loss.is_some() {
            self.congestion.collapsed();
            self.rtt.forget_min();
            self.persistent_from = Some(now);
        }
        congested
    }

    /// When [`Self::timeout`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.loss_at.or_else(|| (self.outstanding > 0).then(|| self.probe_from + self.backed_off()))
    }

    /// Doubled with each timeout (section 6.2.1), up to what ends a session: a few packets in that time harm no path.
    fn backed_off(&self) -> Duration {
        let first = self.rtt.probe_timeout();
        let factor = 1u32.checked_shl(self.probe_count).unwrap_or(u32::MAX);
        first.saturating_mul(factor).min(LIVENESS_MAX.max(first))
    }

    /// The deadline came. True if nothing was heard for so long that one or two packets should be sent that ask to be
    /// acknowledged, new or old, whatever the window says (section 6.2.4).
    pub(crate) fn timeout(&mut self, now: Instant, mut fate: impl FnMut(Fate, T)) -> bool {
        if self.deadline().is_none_or(|at| at > now) {
            return false;
        }
        if self.loss_at.is_some() {
            self.detect(now, &mut fate);
            self.trim(now);
            return false;
        }
        // Counted from now and not from when it was due: a machine that slept missed one timeout and not twenty.
        self.probe_from = now;
        self.probe_count = self.probe_count.saturating_add(1);
        self.probes = PROBES;
        self.make_room(now, &mut fate);
        true
    }

    /// So many probes went unanswered that there is no room for the next: the oldest packets are given up.
    fn make_room(&mut self, now: Instant, fate: &mut impl FnMut(Fate, T)) {
        self.trim(now);
        while self.packets.len() + usize::from(PROBES) > SENT_PACKETS {
            let Some(packet) = self.packets.pop_front() else { return };
            if let State::Outstanding(payload) = packet.state {
                self.outstanding -= 1;
                if packet.path == self.path {
                    self.congestion.landed(packet.bytes.into());
                }
                fate(Fate::Lost, payload);
            }
        }
    }

    /// Forgets at the front what tells nothing any more.
    fn trim(&mut self, now: Instant) {
        let kept = self.rtt.persistent();
        while let Some(front) = self.packets.front() {
            let gone = match front.state {
                State::Outstanding(_) => false,
                State::Acked => true,
                State::Silent => {
                    self.packets.len() > SETTLED_PACKETS || Some(front.number) <= self.largest_acked
                }
                State::Lost(since) => self.packets.len() >= SENT_PACKETS / 2 || since + kept <= now,
            };
            if !gone {
                break;
            }
            self.packets.pop_front();
        }
        if self.packets.is_empty() {
            // An idle session keeps no room for what a busy one needed.
            self.packets.shrink_to(SETTLED_PACKETS);
        }
    }

    // --- paths -----------------------------------------------------------------------------------------------------

    /// From now on packets go another way, of which at most the round trip of its challenge is known.
    pub(crate) fn change_path(&mut self, now: Instant, round: Option<Duration>) {
        self.path = self.path.wrapping_add(1);
        self.earlier_delay = self.rtt.loss_delay();
        self.rtt = Rtt::new();
        if let Some(round) = round {
            self.rtt.sample(round, Duration::ZERO);
        }
        self.congestion = NewReno::new();
        self.pacer = Pacer::new(now);
        self.packet_threshold = PACKET_THRESHOLD;
        self.latest = Duration::ZERO;
        self.in_use = None;
        self.persistent_from = round.map(|_| now);
        self.probe_from = now;
        self.probe_count = 0;
        self.probes = 0;
    }

    /// What is outstanding on earlier paths is not waited for any more. It is no sign of congestion on this one.
    pub(crate) fn lose_old_path(&mut self, now: Instant, mut fate: impl FnMut(Fate, T)) {
        for packet in self.packets.iter_mut().filter(|packet| packet.path != self.path) {
            match core::mem::replace(&mut packet.state, State::Lost(now)) {
                State::Outstanding(payload) => {
                    self.outstanding -= 1;
                    fate(Fate::Lost, payload);
                }
                state @ (State::Silent | State::Lost(_) | State::Acked) => packet.state = state,
            }
        }
        self.detect(now, &mut fate);
        self.trim(now);
    }
}

/// What one acknowledgement told that was not known before.
#[derive(Default)]
struct Newly {
    any: bool,
    /// One of them asked for it, on this path.
    asked: bool,
    /// When the largest of the acknowledgement was sent, if it is among them.
    largest_at: Option<Instant>,
    /// Bytes for which the window may grow.
    grown: u64,
}

/// Packets that asked, sent one after the other and all lost: since when.
#[derive(Default)]
struct Run(Option<Instant>);

impl Run {
    /// How long the run is with one more packet.
    fn lost(&mut self, at: Instant) -> Duration {
        at.saturating_since(*self.0.get_or_insert(at))
    }
}
