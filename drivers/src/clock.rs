//! The one place where a driver reads clocks.

use peerlink_core::time::{Instant, WallClock};
use std::time::{SystemTime, UNIX_EPOCH};

/// Time since boot, which counts the time that the machine slept (`CLOCK_BOOTTIME` of clock_gettime(2)).
#[must_use]
pub fn now() -> Instant {
    #[cfg(target_os = "linux")]
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    #[cfg(not(target_os = "linux"))]
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let micros = u64::try_from(time.tv_nsec / 1000).unwrap_or(0);
    Instant::from_micros(seconds.saturating_mul(1_000_000).saturating_add(micros))
}

/// What the wall clock says.
#[must_use]
pub fn wall() -> WallClock {
    #[expect(clippy::disallowed_methods, reason = "the clock's own place")]
    let now = SystemTime::now();
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    WallClock(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Notices that the wall clock was set: its distance to the monotonic clock moved.
#[derive(Debug)]
pub(crate) struct Watch {
    distance_ms: u64,
}

impl Watch {
    pub(crate) fn new(now: Instant, wall: WallClock) -> Self {
        Self { distance_ms: distance_ms(now, wall) }
    }

    pub(crate) fn jumped(&mut self, now: Instant, wall: WallClock) -> bool {
        let distance_ms = distance_ms(now, wall);
        let jumped = distance_ms.abs_diff(self.distance_ms) > crate::limits::CLOCK_JUMP_MS;
        if jumped {
            self.distance_ms = distance_ms;
        }
        jumped
    }
}

/// Wrapping, because a wall clock may stand before the boot.
fn distance_ms(now: Instant, wall: WallClock) -> u64 {
    wall.0.wrapping_sub(now.as_micros() / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_does_not_go_back_and_a_set_clock_is_noticed_once() {
        let first = now();
        assert!(now() >= first);
        let at = |ms: u64| Instant::from_micros(ms * 1000);
        let mut watch = Watch::new(at(10_000), WallClock(1_000_000));
        assert!(!watch.jumped(at(20_000), WallClock(1_010_500)));
        assert!(watch.jumped(at(20_000), WallClock(5_000)));
        assert!(!watch.jumped(at(21_000), WallClock(6_000)));
    }
}
