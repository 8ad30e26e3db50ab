//! The one place that reads clocks.
//!
//! The monotonic clock counts the time that the machine slept (`CLOCK_BOOTTIME`): a timer of fifteen minutes that a
//! laptop sleeps through is due when it wakes. Where the system has no such clock, the standard library's serves.
//! Nothing polls for a wall clock that was set or for a sleep: both are noticed at the next wake-up.

use crate::limits::WALL_JUMP;
use peerlink_core::time::{Instant, WallClock};

/// Now on the monotonic clock. Every reading in this process is on the same scale, so that what a node was started
/// with and what its driver tells it later agree.
#[must_use]
pub fn now() -> Instant {
    Instant::from_micros(read().counted_us)
}

/// What the wall clock claims.
#[must_use]
pub fn wall() -> WallClock {
    WallClock(read().wall_us / 1000)
}

/// One reading of all clocks, in microseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    /// Monotonic, sleep counted.
    pub(crate) counted_us: u64,
    /// Monotonic, sleep not counted; the same as `counted_us` where the system cannot tell.
    pub(crate) awake_us: u64,
    /// Since 1970.
    pub(crate) wall_us: u64,
}

#[cfg(target_os = "linux")]
pub(crate) fn read() -> Reading {
    use rustix::time::{ClockId, clock_gettime};
    let micros = |clock| {
        let time = clock_gettime(clock);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        seconds.saturating_mul(1_000_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0) / 1000)
    };
    Reading {
        counted_us: micros(ClockId::Boottime),
        awake_us: micros(ClockId::Monotonic),
        wall_us: micros(ClockId::Realtime),
    }
}

#[cfg(not(target_os = "linux"))]
#[expect(clippy::disallowed_methods, reason = "the one place that reads clocks")]
pub(crate) fn read() -> Reading {
    use std::sync::OnceLock;
    use std::time::{Instant as StdInstant, SystemTime};
    static START: OnceLock<StdInstant> = OnceLock::new();
    let counted = START.get_or_init(StdInstant::now).elapsed().as_micros();
    let counted_us = u64::try_from(counted).unwrap_or(u64::MAX);
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_micros();
    Reading { counted_us, awake_us: counted_us, wall_us: u64::try_from(wall).unwrap_or(u64::MAX) }
}

/// What a wake-up found out about the clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Seen {
    /// The wall clock was set; this is what it says now.
    pub(crate) wall: Option<WallClock>,
    /// The machine slept: networks may have changed meanwhile.
    pub(crate) slept: bool,
}

/// Remembers how the clocks stood to each other.
#[derive(Debug)]
pub(crate) struct Watch {
    wall_offset_us: i128,
    slept_us: u64,
}

impl Watch {
    pub(crate) fn new(reading: Reading) -> Self {
        Self { wall_offset_us: wall_offset(reading), slept_us: slept(reading) }
    }

    pub(crate) fn look(&mut self, reading: Reading) -> Seen {
        let mut seen = Seen::default();
        let jump_us = WALL_JUMP.as_micros();
        let offset = wall_offset(reading);
        if offset.abs_diff(self.wall_offset_us) > jump_us {
            self.wall_offset_us = offset;
            seen.wall = Some(WallClock(reading.wall_us / 1000));
        }
        let slept = slept(reading);
        if u128::from(slept.abs_diff(self.slept_us)) > jump_us {
            self.slept_us = slept;
            seen.slept = true;
        }
        seen
    }
}

fn wall_offset(reading: Reading) -> i128 {
    i128::from(reading.wall_us) - i128::from(reading.counted_us)
}

fn slept(reading: Reading) -> u64 {
    reading.counted_us.saturating_sub(reading.awake_us)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(counted_s: u64, awake_s: u64, wall_s: u64) -> Reading {
        Reading {
            counted_us: counted_s * 1_000_000,
            awake_us: awake_s * 1_000_000,
            wall_us: wall_s * 1_000_000,
        }
    }

    #[test]
    fn a_wall_clock_that_was_set_is_noticed_once_in_either_direction() {
        let mut watch = Watch::new(at(100, 100, 5000));
        assert_eq!(watch.look(at(200, 200, 5100)), Seen::default());
        assert_eq!(watch.look(at(300, 300, 5201)), Seen::default(), "one second is drift");
        assert_eq!(watch.look(at(400, 400, 9000)).wall, Some(WallClock(9_000_000)));
        assert_eq!(watch.look(at(401, 401, 9001)), Seen::default());
        assert_eq!(watch.look(at(402, 402, 10)).wall, Some(WallClock(10_000)));
    }

    #[test]
    fn drift_adds_up_to_a_jump() {
        let mut watch = Watch::new(at(0, 0, 1000));
        assert_eq!(watch.look(at(1000, 1000, 2001)).wall, None);
        assert_eq!(watch.look(at(2000, 2000, 3002)).wall, Some(WallClock(3_002_000)));
    }

    #[test]
    fn sleep_is_noticed_and_moves_no_wall_clock() {
        let mut watch = Watch::new(at(100, 100, 5000));
        assert_eq!(watch.look(at(4000, 200, 8900)), Seen { wall: None, slept: true });
        assert_eq!(watch.look(at(4001, 201, 8901)), Seen::default());
    }

    #[test]
    fn the_clocks_of_this_machine_are_plausible() {
        let (first, second) = (now(), now());
        assert!(first <= second);
        assert!(wall() > WallClock(1_700_000_000_000));
    }
}
