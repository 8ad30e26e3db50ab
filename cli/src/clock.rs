//! The one place where the command line reads clocks.

use peerlink_core::time::Instant;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970.
pub(crate) fn wall_ms() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "the clock's own place")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Time since some start; it never goes back.
pub(crate) fn monotonic() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Now on the node's clock.
pub(crate) fn node() -> Instant {
    peerlink_drivers::clock::now()
}

/// What the wall clock says, or will say, when the node's clock says `at`.
pub(crate) fn wall_ms_at(at: Instant) -> u64 {
    let ahead = at.saturating_since(node()).as_millis();
    wall_ms().saturating_add(u64::try_from(ahead).unwrap_or(u64::MAX))
}
