//! The stream of events to the front end: bounded, never in the loop's way.
//!
//! Events are hints and the store is the truth, so a front end that is slow loses events, not messages: it finds
//! [`Notice::Lagged`] where they were and reads the store again.

use crate::handle::Gone;
use crate::limits::{EVENT_BYTES, EVENT_COST, EVENTS};
use peerlink_core::api::Event;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// One thing that the front end is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    Event(Event),
    /// At this place events were dropped, because the front end was slow. The store is the truth.
    Lagged,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Notice>,
    bytes: usize,
    closed: bool,
    unwanted: bool,
    /// The front end waits for something.
    asleep: bool,
}

#[derive(Debug, Default)]
struct Board {
    state: Mutex<State>,
    changed: Condvar,
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The front end's side.
#[derive(Debug)]
pub struct Events(Arc<Board>);

/// The loop's side. Dropping it, by a panic too, ends the stream.
#[derive(Debug)]
pub(crate) struct Notices(Arc<Board>);

pub(crate) fn board() -> (Notices, Events) {
    let board = Arc::new(Board::default());
    (Notices(Arc::clone(&board)), Events(board))
}

fn cost(notice: &Notice) -> usize {
    EVENT_COST
        + match notice {
            Notice::Event(Event::Received { body, .. }) => body.len(),
            Notice::Event(Event::Misbehaved { what, .. }) => what.len(),
            Notice::Event(_) | Notice::Lagged => 0,
        }
}

impl Notices {
    pub(crate) fn push(&self, event: Event) {
        let mut state = self.0.lock();
        if state.unwanted {
            return;
        }
        // These two end everything, and there is one of each.
        let always = matches!(event, Event::StoreFailed | Event::Stopped);
        let notice = Notice::Event(event);
        let cost = cost(&notice);
        if always || (state.waiting.len() < EVENTS && state.bytes + cost <= EVENT_BYTES) {
            state.bytes += cost;
            state.waiting.push_back(notice);
        } else if state.waiting.back() != Some(&Notice::Lagged) {
            state.bytes += EVENT_COST;
            state.waiting.push_back(Notice::Lagged);
        }
    }

    /// After everything of a turn was pushed. Waking a thread costs a system call, so it is done once for all of them,
    /// and only if there is one that sleeps.
    pub(crate) fn wake(&self) {
        let mut state = self.0.lock();
        if !state.waiting.is_empty() && std::mem::take(&mut state.asleep) {
            drop(state);
            self.0.changed.notify_all();
        }
    }
}

impl Drop for Notices {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.changed.notify_all();
    }
}

impl Events {
    /// The next notice, however long it takes; `None` when the driver has ended and everything was read.
    #[must_use]
    pub fn recv(&self) -> Option<Notice> {
        let state = self.0.lock();
        let state = self.0.changed.wait_while(state, must_wait).unwrap_or_else(PoisonError::into_inner);
        take(state).unwrap_or_default()
    }

    /// The next notice within this time, or `None`.
    ///
    /// # Errors
    /// `Gone` if the driver has ended and everything was read.
    pub fn recv_timeout(&self, within: Duration) -> Result<Option<Notice>, Gone> {
        let state = self.0.lock();
        let waited = self.0.changed.wait_timeout_while(state, within, must_wait);
        take(waited.unwrap_or_else(PoisonError::into_inner).0)
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.unwanted = true;
        state.waiting.clear();
    }
}

/// Whether there is nothing to take yet; then whoever asks is about to sleep.
fn must_wait(state: &mut State) -> bool {
    state.asleep = state.waiting.is_empty() && !state.closed;
    state.asleep
}

fn take(mut state: MutexGuard<'_, State>) -> Result<Option<Notice>, Gone> {
    match state.waiting.pop_front() {
        Some(notice) => {
            state.bytes = state.bytes.saturating_sub(cost(&notice));
            Ok(Some(notice))
        }
        None if state.closed => Err(Gone),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(events: &Events) -> Option<Notice> {
        events.recv_timeout(Duration::ZERO).unwrap()
    }

    #[test]
    fn a_slow_front_end_finds_one_marker_where_events_were_dropped() {
        let (notices, events) = board();
        for _ in 0..EVENTS + 7 {
            notices.push(Event::ProfileChanged);
        }
        notices.push(Event::Stopped);
        for _ in 0..EVENTS {
            assert_eq!(next(&events), Some(Notice::Event(Event::ProfileChanged)));
        }
        assert_eq!(next(&events), Some(Notice::Lagged));
        assert_eq!(next(&events), Some(Notice::Event(Event::Stopped)));
        assert_eq!(next(&events), None);
        notices.push(Event::Ready);
        assert_eq!(next(&events), Some(Notice::Event(Event::Ready)), "room again");
        drop(notices);
        assert_eq!(events.recv(), None);
        assert_eq!(events.recv_timeout(Duration::ZERO), Err(Gone));
    }

    #[test]
    fn bytes_are_bounded_too() {
        let (notices, events) = board();
        let what = "x".repeat(EVENT_BYTES / 4);
        let secret = peerlink_core::identity::IdentitySecret::new([1; 32]).unwrap();
        let peer = peerlink_core::identity::Identity::new(&secret).unwrap().peer();
        for _ in 0..5 {
            notices.push(Event::Misbehaved { peer, what: what.clone() });
        }
        for _ in 0..3 {
            assert!(matches!(next(&events), Some(Notice::Event(_))));
        }
        assert_eq!(next(&events), Some(Notice::Lagged));
        assert_eq!(next(&events), None);
    }
}
