//! How long the profile has lived, by its own count: what the user's own deadlines are measured with.
//!
//! No clock that a machine has is good enough for that by itself. The monotonic one can be trusted and begins anew with
//! the machine; the wall clock goes on, and may be wrong by years. So the count goes by the monotonic clock while the
//! node runs, and is stored. For the pause before a start there is only what the wall clock says, and it is believed
//! within limits:
//!
//! * A pause counts with at most [`PAUSE_MAX`]: a clock that is years ahead brings a deadline nearer by that much, once.
//! * The newest word about the pause counts: a clock that is set right while the node runs takes back what it had said.
//! * So does one that is found to be behind where it was: what had been believed is taken back, as far as it was believed.
//!   Time that the node was running is never taken back.
//!
//! A clock that is wrong at every start, and set right after it, so costs nothing; one that swings between two times
//! costs `PAUSE_MAX` at most, and one that stands still or goes back makes deadlines later, never nearer.

use crate::limits::{LIVED_EVERY, PAUSE_MAX};
use crate::record::Lived;
use crate::time::{Age, Instant, WallClock, millis};

/// The count of one run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AgeCount {
    /// What was stored before this start; `None`: this is the first, so there was no pause.
    before: Option<Lived>,
    started: Instant,
    /// The pause before this start, in milliseconds; negative if it takes back what was believed before.
    pause: i64,
    stored: Instant,
}

impl AgeCount {
    /// Goes on from what was stored.
    pub(crate) fn new(before: Option<Lived>, now: Instant, wall: WallClock) -> Self {
        let mut count = Self { before, started: now, pause: 0, stored: now };
        count.wall_is(now, wall);
        count
    }

    /// The wall clock says something else than before.
    pub(crate) fn wall_is(&mut self, now: Instant, wall: WallClock) {
        let Some(before) = self.before else { return };
        let expected = before.wall.0.saturating_add(self.ran(now));
        self.pause = if wall.0 >= expected {
            (wall.0 - expected).min(millis(PAUSE_MAX)).cast_signed()
        } else {
            let back = (expected - wall.0).min(before.believed_ms).min(millis(PAUSE_MAX));
            -back.cast_signed()
        };
    }

    fn ran(&self, now: Instant) -> u64 {
        millis(now.saturating_since(self.started))
    }

    pub(crate) fn age(&self, now: Instant) -> Age {
        let before = self.before.map_or(0, |before| before.age.0);
        Age(before.saturating_add_signed(self.pause).saturating_add(self.ran(now)))
    }

    /// Whether what is stored is worth storing again.
    pub(crate) fn is_stale(&self, now: Instant) -> bool {
        now.saturating_since(self.stored) >= LIVED_EVERY
    }

    /// What is to be stored now.
    pub(crate) fn store(&mut self, now: Instant, wall: WallClock) -> Lived {
        self.stored = now;
        let believed_ms = self.before.map_or(0, |before| before.believed_ms);
        let believed_ms = believed_ms.saturating_add_signed(self.pause).min(millis(PAUSE_MAX));
        Lived { age: self.age(now), believed_ms, wall }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;

    const HOUR: u64 = 3_600_000;
    const DAY: u64 = 24 * HOUR;
    const YEAR: u64 = 365 * DAY;
    /// When every life here begins.
    const BORN: u64 = 50 * YEAR;

    /// A profile, as its machine sees it: runs of some length, and what the wall clock says at their beginning.
    struct Life {
        stored: Option<Lived>,
        /// The truth, in milliseconds since it was born.
        lived: u64,
    }

    impl Life {
        fn new() -> Self {
            Self { stored: None, lived: 0 }
        }

        fn age(&self) -> u64 {
            self.stored.unwrap().age.0
        }

        /// A pause, then a run in which the wall clock is `wrong` by so many milliseconds, and after half of it by `then`.
        fn run(&mut self, pause: u64, length: u64, wrong: i64, then: i64) {
            self.lived += pause;
            let wall = |lived: u64, wrong: i64| WallClock((BORN + lived).saturating_add_signed(wrong));
            // The monotonic clock begins anywhere.
            let started = Instant::from_micros(7_000_000);
            let now = |ran: u64| started + Duration::from_millis(ran);
            let mut count = AgeCount::new(self.stored, started, wall(self.lived, wrong));
            let half = length / 2;
            count.wall_is(now(half), wall(self.lived + half, then));
            self.lived += length;
            self.stored = Some(count.store(now(length), wall(self.lived, then)));
        }
    }

    #[test]
    fn with_clocks_that_are_right_it_is_the_time_that_passed() {
        let mut life = Life::new();
        for _ in 0..50 {
            life.run(16 * HOUR, 8 * HOUR, 0, 0);
        }
        assert_eq!(life.age(), life.lived - 16 * HOUR, "it began with the first start");
    }

    #[test]
    fn a_pause_counts_with_a_week_at_most() {
        let mut life = Life::new();
        life.run(0, HOUR, 0, 0);
        life.run(60 * DAY, HOUR, 0, 0);
        assert_eq!(life.age(), 7 * DAY + 2 * HOUR);
    }

    #[test]
    fn a_clock_that_is_years_ahead_once_costs_a_week_and_that_comes_back() {
        let ahead = (30 * YEAR).cast_signed();
        let mut life = Life::new();
        life.run(0, HOUR, 0, 0);
        life.run(HOUR, HOUR, ahead, ahead);
        assert_eq!(life.age(), 7 * DAY + 2 * HOUR);
        life.run(HOUR, HOUR, 0, 0);
        assert_eq!(life.age(), 3 * HOUR, "both pauses are lost, nothing else");
        life.run(DAY, HOUR, 0, 0);
        assert_eq!(life.age(), DAY + 4 * HOUR);
    }

    #[test]
    fn a_clock_that_is_wrong_at_every_start_and_then_set_right_costs_nothing() {
        for wrong in [(9 * YEAR).cast_signed(), -(40 * YEAR).cast_signed()] {
            let mut life = Life::new();
            for _ in 0..30 {
                life.run(16 * HOUR, 8 * HOUR, wrong, 0);
            }
            assert_eq!(life.age(), life.lived - 16 * HOUR);
        }
    }

    #[test]
    fn a_clock_that_swings_brings_a_deadline_nearer_by_a_week_at_most() {
        let ahead = (3 * YEAR).cast_signed();
        let mut life = Life::new();
        life.run(0, HOUR, 0, 0);
        for turn in 0..40 {
            let wrong = if turn % 2 == 0 { ahead } else { 0 };
            life.run(HOUR, HOUR, wrong, wrong);
            assert!(life.age() <= life.lived + 7 * DAY, "turn {turn}");
        }
    }

    #[test]
    fn time_that_the_node_ran_counts_whatever_the_wall_clock_says() {
        let mut life = Life::new();
        life.run(0, DAY, 0, 0);
        // Every start finds the same time: the machine has no clock that runs while it is off.
        for _ in 0..30 {
            let wrong = -life.lived.cast_signed() - HOUR.cast_signed();
            life.run(HOUR, DAY, wrong, wrong);
        }
        assert_eq!(life.age(), 31 * DAY);
    }

    #[test]
    fn no_clock_of_any_machine_makes_it_panic() {
        let wild = Lived { age: Age(u64::MAX), believed_ms: u64::MAX, wall: WallClock(u64::MAX) };
        for (wall, now) in [(0, Instant::ZERO), (u64::MAX, Instant::FAR), (1, Instant::FAR)] {
            let mut count = AgeCount::new(Some(wild), now, WallClock(wall));
            count.wall_is(Instant::ZERO, WallClock(0));
            let stored = count.store(Instant::FAR, WallClock(u64::MAX));
            assert!(stored.believed_ms <= millis(PAUSE_MAX));
        }
    }
}
