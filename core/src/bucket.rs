//! A token bucket: how often something may happen, with a burst at the start. Whole numbers only, so that every
//! platform counts the same, and nothing is lost however often it is asked.

#[cfg(test)]
use crate::time::Duration;
use crate::time::Instant;

/// Parts of a token: with time in microseconds, what a rate per second gives is a whole number of them.
const PARTS: u64 = 1_000_000;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Bucket {
    /// Tokens a second.
    rate: u32,
    /// Most tokens that are ever there.
    burst: u32,
    /// What is there, in parts of a token.
    level: u64,
    /// When `level` was true.
    at: Instant,
}

impl Bucket {
    /// A full bucket.
    pub(crate) fn new(now: Instant, rate: u32, burst: u32) -> Self {
        Self { rate, burst, level: u64::from(burst) * PARTS, at: now }
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_since(self.at).as_micros();
        let gained = u64::try_from(elapsed.saturating_mul(self.rate.into())).unwrap_or(u64::MAX);
        self.level = self.level.saturating_add(gained).min(u64::from(self.burst) * PARTS);
        self.at = self.at.max(now);
    }

    /// Whole tokens that are there now.
    #[cfg(test)]
    pub(crate) fn available(&mut self, now: Instant) -> u32 {
        self.refill(now);
        u32::try_from(self.level / PARTS).unwrap_or(self.burst)
    }

    /// Takes so many tokens, or none of them.
    pub(crate) fn take(&mut self, now: Instant, tokens: u32) -> bool {
        self.refill(now);
        match self.level.checked_sub(u64::from(tokens) * PARTS) {
            Some(left) => {
                self.level = left;
                true
            }
            None => false,
        }
    }

    /// When so many tokens will be there if nothing else takes any: now or later, [`Instant::FAR`] if never.
    #[cfg(test)]
    pub(crate) fn ready(&mut self, now: Instant, tokens: u32) -> Instant {
        self.refill(now);
        let missing = (u64::from(tokens) * PARTS).saturating_sub(self.level);
        match (missing, tokens <= self.burst, self.rate) {
            (0, ..) => now,
            (_, false, _) | (_, _, 0) => Instant::FAR,
            (missing, true, rate) => now + Duration::from_micros(missing.div_ceil(rate.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Instant {
        Instant::from_micros(micros)
    }

    #[test]
    fn a_burst_then_the_rate() {
        let mut bucket = Bucket::new(at(0), 20, 5);
        for _ in 0..5 {
            assert!(bucket.take(at(0), 1));
        }
        assert!(!bucket.take(at(0), 1));
        assert_eq!(bucket.ready(at(0), 1), at(50_000));
        assert!(!bucket.take(at(49_999), 1));
        assert!(bucket.take(at(50_000), 1));
        // However long nothing happens, no more than the burst is saved up.
        assert_eq!(bucket.available(at(1_000_000_000)), 5);
    }

    #[test]
    fn all_or_nothing() {
        let mut bucket = Bucket::new(at(0), 1, 10);
        assert!(!bucket.take(at(0), 11));
        assert_eq!(bucket.available(at(0)), 10);
        assert!(bucket.take(at(0), 10));
        assert_eq!(bucket.ready(at(0), 3), at(3_000_000));
        assert_eq!(bucket.ready(at(0), 11), Instant::FAR);
    }

    #[test]
    fn asking_often_loses_nothing() {
        let (mut often, mut once) = (Bucket::new(at(0), 7, 1000), Bucket::new(at(0), 7, 1000));
        assert!(often.take(at(0), 1000) && once.take(at(0), 1000));
        for micros in (0..=10_000_000).step_by(13) {
            often.available(at(micros));
        }
        assert_eq!(often.available(at(10_000_000)), 70);
        assert_eq!(once.available(at(10_000_000)), 70);
    }

    #[test]
    fn extremes_saturate() {
        let mut bucket = Bucket::new(at(9), u32::MAX, u32::MAX);
        assert!(bucket.take(at(3), u32::MAX), "a clock that went back");
        assert_eq!(bucket.available(at(9)), 0);
        assert_eq!(bucket.available(Instant::FAR), u32::MAX);
        let mut never = Bucket::new(at(0), 0, 1);
        assert!(never.take(at(0), 1));
        assert_eq!(never.ready(at(5), 1), Instant::FAR);
        assert_eq!(never.ready(at(5), 0), at(5));
    }
}
