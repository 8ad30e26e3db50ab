//! How long a round trip takes on one path (RFC 9002, section 5), and the waits that follow from it.

use crate::limits::{ACK_DELAY, INITIAL_RTT, LIVENESS_MAX, TIMER_GRANULARITY};
use crate::time::Duration;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Rtt {
    /// Latest sample and the smallest since the path began, once there is one.
    measured: Option<(Duration, Duration)>,
    smoothed: Duration,
    variation: Duration,
}

impl Rtt {
    /// Before the first sample (section 6.2.2).
    pub(crate) const fn new() -> Self {
        Self { measured: None, smoothed: INITIAL_RTT, variation: half(INITIAL_RTT) }
    }

    /// A packet was acknowledged after `latest`, of which its receiver says that it waited `ack_delay`.
    pub(crate) fn sample(&mut self, latest: Duration, ack_delay: Duration) {
        // A session does not live on such a path: the machine slept in between.
        if latest > LIVENESS_MAX {
            return;
        }
        let Some((_, min)) = self.measured else {
            (self.measured, self.smoothed, self.variation) = (Some((latest, latest)), latest, half(latest));
            return;
        };
        let min = min.min(latest);
        self.measured = Some((latest, min));
        // A delay that would make the way shorter than it ever was is not believed, nor one beyond what was agreed.
        let adjusted =
            latest.checked_sub(ack_delay.min(ACK_DELAY)).filter(|way| *way >= min).unwrap_or(latest);
        self.variation = (self.variation * 3 + self.smoothed.abs_diff(adjusted)) / 4;
        self.smoothed = (self.smoothed * 7 + adjusted) / 8;
    }

    /// The way changed so much that its smallest time says nothing any more (section 5.2).
    pub(crate) fn forget_min(&mut self) {
        self.measured = self.measured.map(|(latest, _)| (latest, latest));
    }

    pub(crate) const fn is_measured(&self) -> bool {
        self.measured.is_some()
    }

    pub(crate) const fn smoothed(&self) -> Duration {
        self.smoothed
    }

    /// The smallest sample.
    #[cfg(test)]
    pub(crate) fn min(&self) -> Option<Duration> {
        self.measured.map(|(_, min)| min)
    }

    /// How long to wait for an acknowledgement before probing, without backoff (section 6.2.1).
    pub(crate) fn probe_timeout(&self) -> Duration {
        self.smoothed + (self.variation * 4).max(TIMER_GRANULARITY) + ACK_DELAY
    }

    /// How long after it was sent a packet is lost, if a later one was acknowledged: 9/8 of a round trip (section 6.1.2).
    pub(crate) fn loss_delay(&self) -> Duration {
        let round = self.measured.map_or(self.smoothed, |(latest, _)| latest.max(self.smoothed));
        (round + round / 8).max(TIMER_GRANULARITY)
    }

    /// If everything that was sent over this long was lost, the congestion is persistent (section 7.6.1).
    pub(crate) fn persistent(&self) -> Duration {
        self.probe_timeout() * 3
    }
}

const fn half(duration: Duration) -> Duration {
    Duration::from_micros(duration.as_micros() as u64 / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn before_the_first_sample_the_waits_are_those_of_the_rfc() {
        let rtt = Rtt::new();
        assert!(!rtt.is_measured());
        assert_eq!(rtt.smoothed(), ms(333));
        assert_eq!(rtt.probe_timeout(), ms(333) + ms(666) + ms(25));
        assert_eq!(rtt.loss_delay(), Duration::from_micros(374_625));
    }

    #[test]
    fn samples_are_smoothed_as_in_section_5_3() {
        let mut rtt = Rtt::new();
        rtt.sample(ms(100), ms(20));
        // The first is taken as it is, whatever its delay.
        assert_eq!((rtt.smoothed, rtt.variation, rtt.min()), (ms(100), ms(50), Some(ms(100))));
        rtt.sample(ms(140), ms(20));
        // 120 after the delay: var = (3 * 50 + 20) / 4, smoothed = (7 * 100 + 120) / 8.
        assert_eq!(
            (rtt.variation, rtt.smoothed),
            (Duration::from_micros(42_500), Duration::from_micros(102_500))
        );
        assert_eq!(rtt.min(), Some(ms(100)));
        assert_eq!(rtt.probe_timeout(), Duration::from_micros(102_500 + 170_000 + 25_000));
        assert_eq!(rtt.loss_delay(), Duration::from_micros(157_500), "9/8 of the latest, which is larger");
        assert_eq!(rtt.persistent(), rtt.probe_timeout() * 3);
    }

    #[test]
    fn a_delay_that_cannot_be_is_not_believed() {
        let (mut honest, mut boasting) = (Rtt::new(), Rtt::new());
        for rtt in [&mut honest, &mut boasting] {
            rtt.sample(ms(100), ms(0));
        }
        // It would make the way shorter than its smallest time.
        boasting.sample(ms(101), ms(20));
        honest.sample(ms(101), ms(0));
        assert_eq!(boasting.smoothed(), honest.smoothed());
        // Beyond what was agreed, only that much counts.
        boasting.sample(ms(300), ms(10_000));
        honest.sample(ms(300), ACK_DELAY);
        assert_eq!(boasting.smoothed(), honest.smoothed());
    }

    #[test]
    fn a_way_that_varies_not_at_all_still_leaves_a_granule() {
        let mut rtt = Rtt::new();
        for _ in 0..100 {
            rtt.sample(Duration::from_micros(200), Duration::ZERO);
        }
        assert!(rtt.probe_timeout() >= Duration::from_micros(200) + TIMER_GRANULARITY + ACK_DELAY);
        assert_eq!(rtt.loss_delay(), TIMER_GRANULARITY);
    }

    #[test]
    fn a_sleep_of_the_machine_is_no_sample() {
        let mut rtt = Rtt::new();
        rtt.sample(ms(50), ms(0));
        rtt.sample(Duration::from_secs(8 * 3600), ms(0));
        assert_eq!(rtt.smoothed(), ms(50));
    }

    #[test]
    fn a_path_that_became_longer_gets_a_new_smallest_time() {
        let mut rtt = Rtt::new();
        rtt.sample(ms(10), ms(0));
        rtt.sample(ms(200), ms(0));
        rtt.forget_min();
        assert_eq!(rtt.min(), Some(ms(200)));
    }
}
