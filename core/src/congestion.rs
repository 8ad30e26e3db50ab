//! How much may be on the way on one path, and how fast it may leave: NewReno and pacing after RFC 9002, section 7 and
//! appendix B. Packets that ask for no acknowledgement are neither counted nor held back.

use crate::limits::{
    INITIAL_WINDOW_BYTES, MAXIMUM_WINDOW_BYTES, MINIMUM_WINDOW_BYTES, PACING_BURST, PACKET_BYTES,
    TIMER_GRANULARITY,
};
use crate::time::{Duration, Instant};

#[derive(Debug, Clone)]
pub(crate) struct NewReno {
    window: u64,
    /// Below it the window doubles with each round trip (slow start), from it on it grows by a packet.
    threshold: u64,
    in_flight: u64,
    /// Bytes acknowledged towards the next growth by a packet.
    credit: u64,
    /// When the window was last halved: losses of what was sent before are of the same event.
    recovery: Option<Instant>,
    /// Window and threshold before that, and the losses of the event that are not known to be none.
    before: Option<(u64, u64, u32)>,
}

impl NewReno {
    pub(crate) const fn new() -> Self {
        Self {
            window: INITIAL_WINDOW_BYTES,
            threshold: u64::MAX,
            in_flight: 0,
            credit: 0,
            recovery: None,
            before: None,
        }
    }

    pub(crate) const fn window(&self) -> u64 {
        self.window
    }

    #[cfg(test)]
    pub(crate) const fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Whether so many bytes may be sent.
    pub(crate) const fn has_room(&self, bytes: u64) -> bool {
        self.in_flight.saturating_add(bytes) <= self.window
    }

    pub(crate) const fn sent(&mut self, bytes: u64) {
        self.in_flight = self.in_flight.saturating_add(bytes);
    }

    /// Bytes are not on the way any more, for whatever reason.
    pub(crate) const fn landed(&mut self, bytes: u64) {
        self.in_flight = self.in_flight.saturating_sub(bytes);
    }

    /// Whether what was sent then is of a time for which the window was already halved (section 7.3.2).
    pub(crate) fn in_recovery(&self, sent_at: Instant) -> bool {
        self.recovery.is_some_and(|since| sent_at <= since)
    }

    /// Bytes were acknowledged that were sent outside of a recovery period, and while the window was in use
    /// (sections 7.3.1, 7.3.3 and 7.8).
    pub(crate) fn grow(&mut self, bytes: u64) {
        if self.window < self.threshold {
            self.window = self.window.saturating_add(bytes);
        } else {
            self.credit = self.credit.saturating_add(bytes);
            if self.credit >= self.window {
                self.credit -= self.window;
                self.window += PACKET_BYTES as u64;
            }
        }
        self.window = self.window.min(MAXIMUM_WINDOW_BYTES);
    }

    /// So many packets are lost, the last of which was sent then. True if that began a recovery period.
    pub(crate) fn congested(&mut self, now: Instant, sent_at: Instant, lost: u32) -> bool {
        if self.in_recovery(sent_at) {
            if let Some((_, _, losses)) = &mut self.before {
                *losses = losses.saturating_add(lost);
            }
            return false;
        }
        self.recovery = Some(now);
        self.before = Some((self.window, self.threshold, lost));
        self.threshold = self.window / 2;
        self.window = self.threshold.max(MINIMUM_WINDOW_BYTES);
        self.credit = 0;
        true
    }

    /// A packet that was taken for lost then had only been overtaken. If that is so of all losses for which the window was
    /// halved, there was no congestion, and it is what it was (as in RFC 9438, section 4.9.2): a path that only reorders
    /// would have the smallest window for ever.
    pub(crate) fn spurious(&mut self, lost_at: Instant) {
        let Some((window, threshold, losses)) = self.before.as_mut() else { return };
        if self.recovery.is_none_or(|since| lost_at < since) {
            return;
        }
        *losses = losses.saturating_sub(1);
        if *losses == 0 {
            self.window = self.window.max(*window);
            self.threshold = self.threshold.max(*threshold);
            (self.recovery, self.before) = (None, None);
        }
    }

    /// Everything was lost for so long that the path must be learnt anew (section 7.6.2).
    pub(crate) const fn collapsed(&mut self) {
        self.before = None;
        self.window = MINIMUM_WINDOW_BYTES;
        self.recovery = None;
        self.credit = 0;
    }
}

/// Spreads what may be sent over the round trip (section 7.7): a leaky bucket that fills at 5/4 of the window for each
/// round trip and holds the initial window, or what its rate gives while a coarse timer sleeps.
#[derive(Debug, Clone)]
pub(crate) struct Pacer {
    /// Bytes that may leave at once, in parts of a byte, so that being asked often loses nothing.
    level: u128,
    at: Instant,
}

const PARTS: u128 = 1 << 16;

impl Pacer {
    pub(crate) const fn new(now: Instant) -> Self {
        Self { level: INITIAL_WINDOW_BYTES as u128 * PARTS, at: now }
    }

    /// When so many bytes may leave: `now`, or later.
    pub(crate) fn ready(&mut self, now: Instant, bytes: usize, window: u64, round: Duration) -> Instant {
        // 5/4 of the window for each round trip: parts of bytes for each `per` microseconds.
        let (rate, per) = (u128::from(window.max(1)) * 5 * PARTS, round.as_micros().max(1) * 4);
        let in_time = |time: Duration| time.as_micros().saturating_mul(rate) / per;
        let burst = in_time(PACING_BURST).max(INITIAL_WINDOW_BYTES as u128 * PARTS);
        self.level = self.level.saturating_add(in_time(now.saturating_since(self.at))).min(burst);
        self.at = self.at.max(now);
        let wanted = (bytes as u128 * PARTS).min(burst);
        if self.level >= wanted {
            return now;
        }
        // Who waits at all waits for what a timer can tell apart: a fast path wakes nobody for each packet.
        let missing = wanted.max(in_time(TIMER_GRANULARITY)).saturating_sub(self.level);
        let wait = missing.saturating_mul(per).div_ceil(rate);
        now + Duration::from_micros(u64::try_from(wait).unwrap_or(u64::MAX))
    }

    /// Bytes left, whether they were ready or not: a probe does not wait.
    pub(crate) const fn sent(&mut self, bytes: u64) {
        self.level = self.level.saturating_sub(bytes as u128 * PARTS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: u64 = PACKET_BYTES as u64;

    fn ms(millis: u64) -> Instant {
        Instant::from_micros(millis * 1000)
    }

    #[test]
    fn slow_start_doubles_and_a_loss_halves_once_for_each_round() {
        let mut reno = NewReno::new();
        assert_eq!(reno.window(), 12_000);
        reno.sent(12_000);
        assert!(!reno.has_room(1));
        reno.landed(12_000);
        reno.grow(12_000);
        assert_eq!(reno.window(), 24_000);

        assert!(reno.congested(ms(50), ms(10), 1));
        assert_eq!(reno.window(), 12_000);
        // The rest of the same flight: the same event.
        assert!(!reno.congested(ms(51), ms(50), 1));
        assert!(reno.in_recovery(ms(50)) && !reno.in_recovery(ms(51)));
        assert_eq!(reno.window(), 12_000);
        // What was sent after the window was halved, and lost, is another one.
        assert!(reno.congested(ms(99), ms(51), 1));
        assert_eq!(reno.window(), 6_000);
    }

    #[test]
    fn congestion_avoidance_adds_a_packet_for_each_window() {
        let mut reno = NewReno::new();
        assert!(reno.congested(ms(1), ms(0), 1));
        assert_eq!(reno.window(), 6_000);
        for _ in 0..4 {
            reno.grow(PACKET);
        }
        assert_eq!(reno.window(), 6_000);
        reno.grow(PACKET);
        assert_eq!(reno.window(), 6_000 + PACKET);
    }

    #[test]
    fn a_window_that_was_halved_for_nothing_is_what_it_was() {
        let mut reno = NewReno::new();
        reno.grow(12_000);
        assert!(reno.congested(ms(50), ms(10), 1));
        assert!(!reno.congested(ms(60), ms(20), 1));
        reno.spurious(ms(50));
        assert_eq!(reno.window(), 12_000, "one of the two may be real");
        reno.spurious(ms(60));
        assert_eq!((reno.window(), reno.threshold), (24_000, u64::MAX));
        assert!(!reno.in_recovery(ms(10)));
        // What was lost in an earlier event says nothing of this one.
        assert!(reno.congested(ms(70), ms(65), 1));
        reno.spurious(ms(60));
        assert_eq!(reno.window(), 12_000);
    }

    #[test]
    fn the_window_has_a_floor_and_a_ceiling() {
        let mut reno = NewReno::new();
        for round in 1..20 {
            reno.congested(ms(round), ms(round), 1);
        }
        assert_eq!(reno.window(), MINIMUM_WINDOW_BYTES);
        reno.collapsed();
        assert_eq!(reno.window(), MINIMUM_WINDOW_BYTES);
        assert!(reno.has_room(2 * PACKET) && !reno.in_recovery(ms(0)));
        let mut reno = NewReno::new();
        for _ in 0..64 {
            reno.grow(reno.window());
        }
        assert_eq!(reno.window(), MAXIMUM_WINDOW_BYTES);
    }

    #[test]
    fn a_collapsed_path_starts_slowly_up_to_the_old_threshold() {
        let mut reno = NewReno::new();
        reno.grow(36_000);
        assert!(reno.congested(ms(9), ms(5), 1));
        reno.collapsed();
        assert_eq!((reno.window(), reno.threshold), (2_400, 24_000));
        reno.grow(2_400);
        assert_eq!(reno.window(), 4_800);
    }

    #[test]
    fn a_pacer_lets_a_burst_out_and_then_five_quarters_of_the_window_for_each_round() {
        let mut pacer = Pacer::new(ms(0));
        let (window, round) = (24_000, Duration::from_millis(100));
        for _ in 0..10 {
            assert_eq!(pacer.ready(ms(0), PACKET_BYTES, window, round), ms(0));
            pacer.sent(PACKET);
        }
        // 300 bytes each millisecond.
        assert_eq!(pacer.ready(ms(0), PACKET_BYTES, window, round), ms(4));
        assert_eq!(pacer.ready(ms(3), PACKET_BYTES, window, round), ms(4));
        assert_eq!(pacer.ready(ms(4), PACKET_BYTES, window, round), ms(4));
        pacer.sent(PACKET);
        assert_eq!(pacer.ready(ms(4), PACKET_BYTES, window, round), ms(8));
        // An idle path saves up no more than the burst.
        assert_eq!(pacer.ready(ms(90_000), 20_000, window, round), ms(90_000));
        pacer.sent(12_000);
        assert_eq!(pacer.ready(ms(90_000), 300, window, round), ms(90_001));
    }

    #[test]
    fn asking_a_pacer_often_loses_nothing() {
        let mut pacer = Pacer::new(ms(0));
        let (window, round) = (24_000, Duration::from_millis(333));
        pacer.sent(12_000);
        // 90 bytes each millisecond: less than a byte each time that it is asked.
        for micros in (0..100_000).step_by(7) {
            pacer.ready(Instant::from_micros(micros), PACKET_BYTES, window, round);
        }
        pacer.ready(ms(100), PACKET_BYTES, window, round);
        assert_eq!(pacer.level / PARTS, 9_009);
    }

    #[test]
    fn a_fast_path_waits_for_many_packets_at_once() {
        let mut pacer = Pacer::new(ms(0));
        // 37,500 bytes each millisecond: a packet each 32 microseconds.
        let (window, round) = (1_200_000, Duration::from_millis(40));
        assert_eq!(pacer.ready(ms(2), PACKET_BYTES, window, round), ms(2));
        pacer.sent(75_000);
        assert_eq!(pacer.ready(ms(2), PACKET_BYTES, window, round), ms(3));
        assert_eq!(pacer.ready(Instant::from_micros(2_040), PACKET_BYTES, window, round).as_micros(), 2_040);
    }

    #[test]
    fn a_fast_path_is_not_held_to_the_pace_of_timers() {
        let mut pacer = Pacer::new(ms(0));
        let (window, round) = (1_000_000, Duration::from_micros(500));
        pacer.ready(ms(10), PACKET_BYTES, window, round);
        // All that two milliseconds would let through, which is more than the whole window.
        assert_eq!(pacer.level / PARTS, 5_000_000);
        assert_eq!(
            pacer.ready(ms(12), usize::MAX, u64::MAX, Duration::ZERO),
            ms(12),
            "and extremes saturate"
        );
    }
}
