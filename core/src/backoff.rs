//! Exponential backoff with full jitter: uniform between zero and a bound that doubles (AWS, "Exponential backoff and
//! jitter", 2015), so that two peers that failed together do not try together.

use crate::limits::{RETRY_FIRST, RETRY_MAX};
use crate::rng::Rng;
use crate::time::Duration;

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// How long to wait before the next try.
    pub(crate) fn next(&mut self, rng: &mut Rng) -> Duration {
        let bound =
            RETRY_FIRST.saturating_mul(1u32.checked_shl(self.failures).unwrap_or(u32::MAX)).min(RETRY_MAX);
        self.failures = self.failures.saturating_add(1).min(u32::BITS);
        Duration::from_micros(rng.up_to(u64::try_from(bound.as_micros()).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_stay_under_a_bound_that_doubles_to_its_end() {
        let (mut rng, mut backoff) = (Rng::from_seed([3; 32]), Backoff::default());
        let mut bound = RETRY_FIRST;
        for _ in 0..100 {
            assert!(backoff.next(&mut rng) <= bound);
            bound = (bound * 2).min(RETRY_MAX);
        }
        backoff.reset();
        assert!(backoff.next(&mut rng) <= RETRY_FIRST);
    }
}
