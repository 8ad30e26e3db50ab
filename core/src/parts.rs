//! Records over packets that get lost: one ordered sequence of bytes, cut into parts as packets have room.
//!
//! [`Outbound`] keeps what the peer's packets did not yet acknowledge and gives what was lost again before anything new.
//! [`Inbound`] holds what came beyond a gap. Both are bounded; the peer says with each acknowledgement how far it takes.

use crate::limits::{INBOUND_BYTES, INBOUND_RANGES, OUTBOUND_BYTES, OUTBOUND_UNSENT_BYTES};
use crate::planted::planted;
use crate::wire::Malformed;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::ops::Range;

/// Disjoint ranges that do not touch.
#[derive(Debug, Default)]
struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let Range { mut start, mut end } = range;
        // What begins before the end and does not end before the start: it is joined.
        while let Some((from, to)) = self.0.range(..=end).next_back().map(|(from, to)| (*from, *to))
            && to >= start
        {
            self.0.remove(&from);
            (start, end) = (start.min(from), end.max(to));
        }
        self.0.insert(start, end);
    }

    fn remove(&mut self, range: &Range<u64>) {
        while let Some((from, to)) = self.0.range(..range.end).next_back().map(|(from, to)| (*from, *to))
            && to > range.start
        {
            self.0.remove(&from);
            if from < range.start {
                self.0.insert(from, range.start);
            }
            if to > range.end {
                self.0.insert(range.end, to);
            }
        }
    }

    fn first(&self) -> Option<Range<u64>> {
        self.0.first_key_value().map(|(from, to)| *from..*to)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

/// What is on its way to the peer.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    bytes: VecDeque<u8>,
    /// Offset of the first byte in `bytes`: everything before it arrived.
    base: u64,
    /// Offset of the first byte that was never sent.
    next: u64,
    arrived: Ranges,
    lost: Ranges,
    /// Up to here the peer takes.
    limit: u64,
    #[cfg(peerlink_planted)]
    pub(crate) planted: Option<crate::planted::Planted>,
}

impl Outbound {
    pub(crate) fn new() -> Self {
        Self { limit: INBOUND_BYTES as u64, ..Self::default() }
    }

    /// Offset behind everything that was pushed.
    pub(crate) fn end(&self) -> u64 {
        self.base.saturating_add(self.bytes.len() as u64)
    }

    /// Whether the peer has everything before this.
    pub(crate) const fn has_arrived(&self, offset: u64) -> bool {
        self.base >= offset
    }

    /// Whether another record should be made now: what waits here long grows stale.
    pub(crate) fn is_writable(&self, record: usize) -> bool {
        let unsent = self.end().saturating_sub(self.next);
        unsent < OUTBOUND_UNSENT_BYTES as u64 && self.bytes.len() + record <= OUTBOUND_BYTES
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn allow(&mut self, limit: u64) {
        self.limit = self.limit.max(limit);
    }

    /// Whether `take` has something.
    pub(crate) fn has_part(&self) -> bool {
        !self.lost.is_empty() || self.next < self.end().min(self.limit)
    }

    /// The next part of at most `most` bytes: what was lost, then what is new.
    pub(crate) fn take(&mut self, most: usize) -> Option<(Range<u64>, Vec<u8>)> {
        let most = most as u64;
        let range = match self.lost.first() {
            Some(lost) => lost.start..lost.end.min(lost.start + most),
            None => self.next..self.end().min(self.limit).min(self.next + most),
        };
        if range.is_empty() {
            return None;
        }
        self.lost.remove(&range);
        self.next = self.next.max(range.end);
        Some((range.clone(), self.bytes_of(&range)))
    }

    fn bytes_of(&self, range: &Range<u64>) -> Vec<u8> {
        let at = |offset: u64| usize::try_from(offset.saturating_sub(self.base)).unwrap_or(usize::MAX);
        let (start, end) = (at(range.start).min(self.bytes.len()), at(range.end).min(self.bytes.len()));
        self.bytes.range(start..end.max(start)).copied().collect()
    }

    /// The peer has it.
    pub(crate) fn arrived(&mut self, range: &Range<u64>) {
        self.lost.remove(range);
        self.arrived.insert(range.start.max(self.base)..range.end);
        while let Some(first) = self.arrived.first().filter(|first| first.start <= self.base) {
            self.arrived.remove(&first);
            let gone = usize::try_from(first.end.saturating_sub(self.base)).unwrap_or(usize::MAX);
            self.bytes.drain(..gone.min(self.bytes.len()));
            self.base = first.end;
        }
        if self.bytes.is_empty() {
            // An idle session costs no buffer.
            self.bytes = VecDeque::new();
        }
    }

    /// It was lost, or that must be assumed.
    pub(crate) fn lost(&mut self, range: &Range<u64>) {
        if planted!(self, LostPartForgotten) {
            return;
        }
        self.lost.insert(range.start.max(self.base)..range.end);
        let arrived: Vec<u64> = self.arrived.0.keys().copied().collect();
        for from in arrived {
            let to = self.arrived.0.get(&from).copied().unwrap_or(from);
            self.lost.remove(&(from..to));
        }
    }
}

/// What came, in order.
#[derive(Debug, Default)]
pub(crate) struct Inbound {
    bytes: VecDeque<u8>,
    /// Offset of the first byte in `bytes`: everything before it was read.
    base: u64,
    have: Ranges,
    /// The limit that the peer was told last.
    told: u64,
}

impl Inbound {
    pub(crate) fn new() -> Self {
        Self { told: INBOUND_BYTES as u64, ..Self::default() }
    }

    /// Up to which offset parts are taken from now on. To be told to the peer.
    pub(crate) fn limit(&mut self) -> u64 {
        self.told = self.base.saturating_add(INBOUND_BYTES as u64);
        self.told
    }

    /// Whether the peer should hear of a new limit: half of what it was told is used up.
    pub(crate) fn has_limit(&self) -> bool {
        self.base.saturating_add(INBOUND_BYTES as u64 / 2) >= self.told
    }

    /// Takes a part. `false`: there are too many gaps to remember it, so that it must come again.
    ///
    /// # Errors
    /// `Malformed` if it goes beyond what the peer was told.
    pub(crate) fn insert(&mut self, offset: u64, part: &[u8]) -> Result<bool, Malformed> {
        let end =
            offset.checked_add(part.len() as u64).filter(|end| *end <= self.told.max(INBOUND_BYTES as u64));
        let Some(end) = end else { return Err(Malformed("more than was allowed")) };
        if end <= self.base {
            return Ok(true);
        }
        if offset > self.base && self.have.len() >= INBOUND_RANGES {
            return Ok(false);
        }
        let start = offset.max(self.base);
        let skip = usize::try_from(start.saturating_sub(offset)).unwrap_or(usize::MAX);
        let at = usize::try_from(start.saturating_sub(self.base)).unwrap_or(usize::MAX);
        let part = part.get(skip..).unwrap_or_default();
        let needed = at.saturating_add(part.len());
        if self.bytes.len() < needed {
            self.bytes.resize(needed, 0);
        }
        for (to, from) in self.bytes.range_mut(at..needed).zip(part) {
            *to = *from;
        }
        self.have.insert(start..end);
        Ok(true)
    }

    /// How many bytes can be read now.
    fn ready(&self) -> usize {
        let first = self.have.first().filter(|first| first.start <= self.base);
        first.map_or(0, |first| usize::try_from(first.end.saturating_sub(self.base)).unwrap_or(0))
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.ready() > 0
    }

    /// Reads at most `most` bytes, in order.
    pub(crate) fn read(&mut self, most: usize) -> Vec<u8> {
        let count = self.ready().min(most).min(self.bytes.len());
        let read: Vec<u8> = self.bytes.drain(..count).collect();
        let from = self.base;
        self.base = self.base.saturating_add(count as u64);
        self.have.remove(&(from..self.base));
        if self.bytes.is_empty() {
            self.bytes = VecDeque::new();
        }
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn ranges_join_and_split() {
        let mut ranges = Ranges::default();
        ranges.insert(10..20);
        ranges.insert(30..40);
        ranges.insert(20..25);
        assert_eq!(ranges.0.iter().map(|(a, b)| (*a, *b)).collect::<Vec<_>>(), [(10, 25), (30, 40)]);
        ranges.remove(&(12..32));
        assert_eq!(ranges.0.iter().map(|(a, b)| (*a, *b)).collect::<Vec<_>>(), [(10, 12), (32, 40)]);
        ranges.insert(0..100);
        assert_eq!((ranges.len(), ranges.first()), (1, Some(0..100)));
    }

    /// Every part is lost, doubled or late at random, and everything arrives once and in order.
    #[test]
    fn everything_arrives_in_order_whatever_becomes_of_the_parts() {
        for seed in 0..16 {
            let mut rng = Rng::from_seed([seed; 32]);
            let sent: Vec<u8> = (0..400_000u32).map(|at| (at % 251) as u8).collect();
            let (mut out, mut inn) = (Outbound::new(), Inbound::new());
            let (mut pushed, mut received) = (0, Vec::new());
            let mut flight: Vec<(Range<u64>, Vec<u8>)> = Vec::new();
            let mut rounds = 0;
            while received.len() < sent.len() {
                rounds += 1;
                assert!(rounds < 1_000_000, "it goes on");
                while pushed < sent.len() && out.is_writable(5000) {
                    let end = (pushed + 5000).min(sent.len());
                    out.push(&sent[pushed..end]);
                    pushed = end;
                }
                if rng.up_to(2) > 0
                    && let Some(part) = out.take(usize::try_from(1 + rng.up_to(1500)).unwrap())
                {
                    flight.push(part);
                }
                if !flight.is_empty() {
                    let at = usize::try_from(rng.up_to(flight.len() as u64 - 1)).unwrap();
                    let (range, bytes) = flight.swap_remove(at);
                    match rng.up_to(3) {
                        0 => out.lost(&range),
                        // Lost in the sender's eyes, and came all the same.
                        1 => {
                            assert!(inn.insert(range.start, &bytes).is_ok());
                            out.lost(&range);
                        }
                        _ => match inn.insert(range.start, &bytes) {
                            Ok(true) => out.arrived(&range),
                            Ok(false) => out.lost(&range),
                            Err(error) => panic!("{error}"),
                        },
                    }
                }
                if rng.up_to(3) == 0 {
                    received.extend(inn.read(usize::try_from(rng.up_to(9000)).unwrap()));
                    out.allow(inn.limit());
                }
                assert!(inn.bytes.len() <= INBOUND_BYTES && out.bytes.len() <= OUTBOUND_BYTES);
            }
            assert_eq!(received, sent);
            while let Some((range, _)) = out.take(1200) {
                out.arrived(&range);
            }
            for (range, _) in flight {
                out.arrived(&range);
            }
            assert!(out.is_empty() && !out.has_part(), "seed {seed}");
        }
    }

    #[test]
    fn nobody_makes_us_hold_more_than_we_said() {
        let mut inn = Inbound::new();
        assert!(inn.insert(INBOUND_BYTES as u64 - 1, &[0, 0]).is_err());
        assert!(inn.insert(u64::MAX, &[0]).is_err());
        for at in 0..INBOUND_RANGES as u64 {
            assert_eq!(inn.insert(10 + 2 * at, &[1]), Ok(true));
        }
        assert_eq!(inn.insert(9_000, &[1]), Ok(false), "one gap too many");
        assert_eq!(inn.insert(0, &[1; 10]), Ok(true), "what fills a gap is always taken");
        assert_eq!(inn.read(100).len(), 11);
        assert_eq!(inn.insert(3, &[9; 4]), Ok(true), "a repetition changes nothing");
        assert!(!inn.is_ready(), "the next is missing");
    }
}
