//! Long waits that count the time the machine sleeps.
//!
//! `epoll_wait` counts on a clock that stops during suspend: a wait of fifteen minutes, slept through after one, would
//! last fourteen more after the wake-up. On Linux a timer descriptor on `CLOCK_BOOTTIME` is due at once then. It is
//! set only for waits long enough to be slept through, and only when they change, so that a busy loop pays nothing.

use crate::limits::ALARM_MIN;
use ::mio::{Interest, Registry, Token};
use peerlink_core::time::Instant;
use std::io;

#[cfg(target_os = "linux")]
#[derive(Debug)]
pub(super) struct Alarm {
    timer: std::os::fd::OwnedFd,
    set: Option<Instant>,
}

#[cfg(target_os = "linux")]
impl Alarm {
    pub(super) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
        use std::os::fd::AsRawFd;
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Boottime, flags)?;
        registry.register(&mut ::mio::unix::SourceFd(&timer.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Self { timer, set: None })
    }

    /// Rings at `due`, if that is far. Setting it again also takes back a ring that nobody heard.
    pub(super) fn set(&mut self, now: Instant, due: Option<Instant>) {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};
        let due = due.filter(|due| *due != Instant::FAR && due.saturating_since(now) >= ALARM_MIN);
        // A shorter wait needs no alarm, and one that rings for nothing is heard once and does no harm.
        let Some(due) = due.filter(|due| self.set != Some(*due)) else { return };
        let micros = due.as_micros();
        let at = Timespec {
            tv_sec: i64::try_from(micros / 1_000_000).unwrap_or(i64::MAX),
            tv_nsec: (micros % 1_000_000 * 1000).try_into().unwrap_or(0),
        };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: at };
        // If the system refuses, the wait itself still ends, only late after a sleep.
        self.set = timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &once).is_ok().then_some(due);
    }
}

#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
pub(super) struct Alarm;

#[cfg(not(target_os = "linux"))]
impl Alarm {
    pub(super) fn new(_registry: &Registry, _token: Token) -> io::Result<Self> {
        Ok(Self)
    }

    pub(super) fn set(&mut self, _now: Instant, _due: Option<Instant>) {}
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_far_wait_ends_without_the_help_of_the_poll_and_a_near_one_sets_nothing() {
        let mut poll = ::mio::Poll::new().unwrap();
        let mut events = ::mio::Events::with_capacity(crate::limits::SOCKET_EVENTS);
        let mut alarm = Alarm::new(poll.registry(), Token(7)).unwrap();
        let now = crate::clock::now();
        alarm.set(now, Some(now + ALARM_MIN / 2));
        assert_eq!(alarm.set, None);
        for _again in 0..2 {
            let now = crate::clock::now();
            let due = now + ALARM_MIN;
            for far in [due + Duration::from_secs(1000), due] {
                alarm.set(now, Some(far));
            }
            // Without the alarm this would never return.
            poll.poll(&mut events, None).unwrap();
            assert!(events.iter().any(|event| event.token() == Token(7)));
            assert!(crate::clock::now() >= due);
        }
    }
}
