//! The core's own clock face: microseconds since a start that the driver chose.
//!
//! The core never reads a clock. Every entry point is told what time it is, so a driver, a simulator and a replay
//! agree to the microsecond.

use core::fmt;
use core::ops::{Add, AddAssign};
pub use core::time::Duration;

/// A point on the driver's monotonic clock, in microseconds. It must count the time that the machine slept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Instant(u64);

impl Instant {
    pub const ZERO: Self = Self(0);
    /// Later than anything that will happen: "no timer".
    pub const FAR: Self = Self(u64::MAX);

    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Time since `earlier`; zero if `earlier` is later, because a driver's clock may be wrong but nothing here panics.
    #[must_use]
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(rhs.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, rhs: Duration) {
        *self = *self + rhs;
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Milliseconds since 1970-01-01T00:00:00Z as a wall clock claims them. Shown to people and written into entries;
/// it decides nothing but the expiry of an invitation at its own inviter.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug, serde::Serialize, serde::Deserialize,
)]
pub struct WallClock(pub u64);

/// Milliseconds that a profile has lived, by its own count ([`crate::record::Lived`]): what the user's own deadlines are
/// measured with. It goes on across starts, and back only where it had been led astray by a wall clock.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug, serde::Serialize, serde::Deserialize,
)]
pub struct Age(pub u64);

impl Add<Duration> for Age {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(millis(rhs)))
    }
}

impl Age {
    /// Time from `earlier` on; zero if that is later.
    #[must_use]
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Whole milliseconds of a time.
#[must_use]
pub fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Instant::FAR + Duration::from_secs(1), Instant::FAR);
        assert_eq!(Instant::ZERO.saturating_since(Instant::FAR), Duration::ZERO);
        assert_eq!(alloc::format!("{}", Instant::from_micros(12_000_034)), "12.000034");
    }
}
