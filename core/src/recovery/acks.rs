//! The receiver's half: which packets came, and when their sender must hear of it (RFC 9000, section 13.2).
//!
//! Every second packet that asks for it is acknowledged at once, the last one after at most [`ACK_DELAY`], and what comes
//! out of order at once, so that its sender learns of a gap before a round trip has passed. What is remembered is
//! bounded: of more ranges than fit, the oldest go. A packet in one of these is then sent again and taken as new by
//! nobody, because entries and not packets are what counts.

use crate::bounded::List;
use crate::limits::{ACK_DELAY, ACK_RANGES, ACKS_ALONE};
use crate::time::{Duration, Instant};
use core::ops::RangeInclusive;

#[derive(Debug, Clone)]
pub(crate) struct AckRanges {
    /// First and last number, highest range first, with a gap between any two.
    ranges: List<(u64, u64), ACK_RANGES>,
    /// The sender knows that these came: they are never named again.
    settled: Option<u64>,
    /// When the highest number came.
    highest_at: Instant,
    /// Highest number of those that asked for an acknowledgement.
    asked: Option<u64>,
    /// How many that asked came since the last acknowledgement.
    waiting: u32,
    due: Option<Instant>,
    /// Something came since the last acknowledgement.
    news: bool,
    /// Acknowledgements since the last that will itself be acknowledged.
    alone: u32,
}

impl AckRanges {
    pub(crate) const fn new() -> Self {
        Self {
            ranges: List::new(),
            settled: None,
            highest_at: Instant::ZERO,
            asked: None,
            waiting: 0,
            due: None,
            news: false,
            alone: 0,
        }
    }

    /// An authenticated packet came that the replay window had not seen; `asks` if it holds anything but
    /// acknowledgements.
    pub(crate) fn received(&mut self, now: Instant, number: u64, asks: bool) {
        if self.settled.is_some_and(|settled| number <= settled) {
            // It cannot be named any more: its sender takes it for lost, and what was in it comes again.
            return;
        }
        if self.highest().is_none_or(|highest| number > highest) {
            self.highest_at = now;
        }
        self.insert(number);
        self.news = true;
        if !asks {
            return;
        }
        self.waiting = self.waiting.saturating_add(1);
        let at = if self.waiting >= 2 || self.is_out_of_order(number) { now } else { now + ACK_DELAY };
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
        self.asked = self.asked.max(Some(number));
    }

    /// Section 13.2.1: before one that asked, or beyond a gap behind it.
    fn is_out_of_order(&self, number: u64) -> bool {
        let Some(asked) = self.asked else { return false };
        let known = asked.max(self.settled.unwrap_or(0));
        let first = self.ranges.iter().find(|(first, last)| (*first..=*last).contains(&number));
        number < asked || first.is_some_and(|(first, _)| *first > known.saturating_add(1))
    }

    fn insert(&mut self, number: u64) {
        // The first range that does not lie wholly above the number.
        let at = self.ranges.partition_point(|(first, _)| *first > number);
        let below = self.ranges.get(at).copied();
        if below.is_some_and(|(_, last)| last >= number) {
            return;
        }
        let above = at.checked_sub(1).and_then(|before| self.ranges.get(before)).copied();
        let joins_above = above.is_some_and(|(first, _)| first - 1 == number);
        let joins_below = below.is_some_and(|(_, last)| last + 1 == number);
        if joins_below && let Some(range) = self.ranges.get_mut(at) {
            range.1 = if joins_above { above.map_or(number, |(_, last)| last) } else { number };
        }
        if joins_above && joins_below {
            self.ranges.remove(at - 1);
        } else if joins_above && let Some(range) = self.ranges.get_mut(at - 1) {
            range.0 = number;
        } else if !joins_below {
            if self.ranges.is_full() {
                if at >= ACK_RANGES {
                    return; // It would be the oldest itself.
                }
                self.ranges.remove(ACK_RANGES - 1);
            }
            let _room_was_made = self.ranges.insert(at, (number, number));
        }
    }

    fn highest(&self) -> Option<u64> {
        self.ranges.first().map(|(_, last)| *last).or(self.settled)
    }

    /// What came, highest first.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = RangeInclusive<u64>> + Clone + '_ {
        self.ranges.iter().map(|(first, last)| *first..=*last)
    }

    /// How long the highest number has waited to be acknowledged.
    pub(crate) fn delay(&self, now: Instant) -> Duration {
        now.saturating_since(self.highest_at)
    }

    /// When an acknowledgement must leave, alone if nothing else does.
    pub(crate) const fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Whether it is time.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// Whether there is something new to tell: worth its bytes in a packet that leaves anyway.
    pub(crate) const fn has_news(&self) -> bool {
        self.news
    }

    /// Whether the next acknowledgement should ask to be acknowledged itself, though nothing else does: otherwise the
    /// gaps of long ago would be named for ever (section 13.2.4).
    pub(crate) fn should_ask(&self) -> bool {
        self.ranges.len() > 1 && self.alone >= ACKS_ALONE
    }

    /// The ranges left in a packet that `asks` for an acknowledgement, or does not.
    pub(crate) const fn sent(&mut self, asks: bool) {
        self.waiting = 0;
        self.due = None;
        self.news = false;
        self.alone = if asks { 0 } else { self.alone.saturating_add(1) };
    }

    /// A packet of ours was acknowledged that named ranges up to `highest`: what is not above need not be named again.
    pub(crate) fn settle(&mut self, highest: u64) {
        // Numbers that never came are not settled by saying so.
        let Some(highest) = self.highest().map(|came| came.min(highest)) else { return };
        self.settled = self.settled.max(Some(highest));
        self.ranges.retain(|(_, last)| *last > highest);
        if let Some(lowest) = self.ranges.last_mut() {
            lowest.0 = lowest.0.max(highest.saturating_add(1));
        } else {
            // Nothing is left to name, and so nothing is due.
            (self.waiting, self.due, self.news) = (0, None, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use alloc::collections::BTreeSet;
    use alloc::vec::Vec;

    fn ms(millis: u64) -> Instant {
        Instant::from_micros(millis * 1000)
    }

    fn all(acks: &AckRanges) -> Vec<(u64, u64)> {
        acks.ranges().map(|range| (*range.start(), *range.end())).collect()
    }

    #[test]
    fn every_second_packet_at_once_and_the_last_after_a_delay() {
        let mut acks = AckRanges::new();
        acks.received(ms(0), 0, true);
        assert_eq!(acks.deadline(), Some(ms(25)));
        assert!(!acks.is_due(ms(24)) && acks.is_due(ms(25)));
        acks.received(ms(3), 1, true);
        assert!(acks.is_due(ms(3)));
        assert_eq!(acks.delay(ms(4)), Duration::from_millis(1));
        acks.sent(false);
        assert_eq!((acks.deadline(), acks.has_news()), (None, false));
        acks.received(ms(5), 2, true);
        assert_eq!(acks.deadline(), Some(ms(30)));
        assert_eq!(all(&acks), [(0, 2)]);
    }

    #[test]
    fn what_asks_for_nothing_is_acknowledged_only_beside_something_else() {
        let mut acks = AckRanges::new();
        for number in 0..50 {
            acks.received(ms(number), number, false);
        }
        assert_eq!(acks.deadline(), None);
        assert!(acks.has_news());
        acks.received(ms(50), 50, true);
        assert_eq!(acks.deadline(), Some(ms(75)), "no gap was seen");
    }

    #[test]
    fn a_gap_is_told_at_once_and_only_once() {
        let mut acks = AckRanges::new();
        acks.received(ms(0), 0, true);
        acks.sent(false);
        acks.received(ms(1), 2, true);
        assert!(acks.is_due(ms(1)), "beyond a gap");
        acks.sent(false);
        acks.received(ms(2), 3, true);
        assert!(!acks.is_due(ms(2)), "the gap was told");
        acks.sent(false);
        acks.received(ms(3), 1, true);
        assert!(acks.is_due(ms(3)), "late");
        assert_eq!(all(&acks), [(0, 3)]);
    }

    #[test]
    fn settled_numbers_are_not_named_and_leave_no_gap() {
        let mut acks = AckRanges::new();
        for number in [0, 1, 2, 5, 6, 9] {
            acks.received(ms(0), number, true);
        }
        acks.sent(true);
        acks.settle(5);
        assert_eq!(all(&acks), [(9, 9), (6, 6)]);
        acks.settle(2);
        acks.settle(1000);
        assert_eq!(all(&acks), []);
        acks.received(ms(1), 10, true);
        assert!(!acks.is_due(ms(1)), "9 came and is settled");
        acks.received(ms(1), 3, false);
        assert_eq!(all(&acks), [(10, 10)], "older than what is settled");
        acks.received(ms(2), 12, false);
        assert_eq!(acks.delay(ms(2)), Duration::ZERO);
    }

    #[test]
    fn of_more_gaps_than_fit_the_oldest_go() {
        let mut acks = AckRanges::new();
        for number in 0..200 {
            acks.received(ms(number), 2 * number, true);
        }
        assert_eq!(all(&acks).len(), ACK_RANGES);
        assert_eq!(acks.ranges().next(), Some(398..=398));
        let oldest = acks.ranges().last();
        acks.received(ms(200), 5, true);
        assert_eq!(acks.ranges().last(), oldest, "older than all that is remembered");
        assert!(acks.is_due(ms(200)));
        acks.received(ms(201), 397, true);
        assert_eq!(all(&acks).len(), ACK_RANGES - 1);
    }

    #[test]
    fn old_gaps_are_not_named_for_ever() {
        let mut acks = AckRanges::new();
        acks.received(ms(0), 0, true);
        acks.received(ms(0), 2, true);
        for _ in 0..ACKS_ALONE {
            assert!(!acks.should_ask());
            acks.sent(false);
        }
        assert!(acks.should_ask());
        acks.sent(true);
        assert!(!acks.should_ask());
        acks.settle(2);
        for _ in 0..2 * ACKS_ALONE {
            acks.sent(false);
        }
        assert!(!acks.should_ask(), "without a gap an acknowledgement is short");
    }

    #[test]
    fn any_order_gives_the_ranges_of_the_set() {
        let mut rng = Rng::from_seed([2; 32]);
        for round in 0..200 {
            let (mut acks, mut came, mut settled) = (AckRanges::new(), BTreeSet::new(), None);
            let span = 20 + round; // Beyond twice the room, some go.
            for _ in 0..span {
                let number = rng.up_to(span);
                acks.received(ms(0), number, rng.up_to(1) == 0);
                came.insert(number);
                if rng.up_to(20) == 0 {
                    let upto = rng.up_to(span);
                    acks.settle(upto);
                    settled = settled.max(came.last().copied().map(|last| last.min(upto)));
                }
            }
            let mut ranges: Vec<(u64, u64)> = Vec::new();
            for number in
                came.iter().copied().filter(|number| settled.is_none_or(|settled| *number > settled))
            {
                match ranges.last_mut() {
                    Some((_, last)) if *last + 1 == number => *last = number,
                    _ => ranges.push((number, number)),
                }
            }
            ranges.reverse();
            let got = all(&acks);
            if span < 2 * ACK_RANGES as u64 {
                assert_eq!(got, ranges, "there was always room");
            }
            // Whatever went for want of room, what is named did come, in order and with gaps between.
            assert!(got.iter().all(|(first, last)| (*first..=*last).all(|number| came.contains(&number))));
            assert!(got.windows(2).all(|pair| pair[0].0 > pair[1].1 + 1));
        }
    }

    #[test]
    fn what_can_not_be_named_any_more_is_not_due() {
        let (mut acks, now) = (AckRanges::new(), Instant::from_micros(1));
        acks.received(now, 5, true);
        acks.received(now, 7, false);
        acks.sent(true);
        // One below what was named asks; before that leaves, all that was named is known to be known.
        acks.received(now, 6, true);
        assert!(acks.deadline().is_some());
        acks.settle(7);
        assert_eq!((acks.ranges().count(), acks.deadline(), acks.has_news()), (0, None, false));
        // And one that comes later still.
        acks.received(now, 4, true);
        assert_eq!((acks.ranges().count(), acks.deadline(), acks.has_news()), (0, None, false));
    }
}
