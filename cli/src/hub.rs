//! What happens in the node, handed to every front end that listens; and what is known of each contact's connection.

use crate::limits::CLIENT_EVENTS;
use peerlink_core::api::{AttemptOutcome, Event, SessionEnd};
use peerlink_core::ids::PeerId;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Debug, Clone)]
pub(crate) enum Note {
    Event(Box<Event>),
    /// Something was missed: the store knows.
    Lagged,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    listeners: BTreeMap<u64, (SyncSender<Note>, bool)>,
    links: BTreeMap<PeerId, Link>,
    ready: bool,
    store_failed: bool,
}

/// How a contact can be reached, as far as it is known.
#[derive(Debug, Clone, Default)]
pub(crate) struct Link {
    connected: Option<SocketAddr>,
    ended: Option<SessionEnd>,
    attempt: Option<(SocketAddr, AttemptOutcome)>,
}

impl Link {
    /// In the user's words.
    pub(crate) fn describe(&self) -> String {
        if let Some(remote) = self.connected {
            return format!("connected to {remote}");
        }
        let ended = self.ended.map(|why| match why {
            SessionEnd::Closed => "said goodbye",
            SessionEnd::Lost => "the connection broke",
            SessionEnd::Silent => "went silent",
            SessionEnd::Replaced => "another connection took over",
            SessionEnd::Local => "closed by this side",
            SessionEnd::Misbehaved => "sent something wrong",
        });
        let attempt = self.attempt.map(|(remote, outcome)| {
            let outcome = match outcome {
                AttemptOutcome::Connected => "connected",
                AttemptOutcome::Superseded => "another connection was faster",
                AttemptOutcome::DialFailed(why) => match why {
                    peerlink_core::api::DialFailure::Refused => "nobody listens there",
                    peerlink_core::api::DialFailure::Unreachable => "no route there",
                    peerlink_core::api::DialFailure::TimedOut => "no answer",
                    peerlink_core::api::DialFailure::Local => "this machine could not dial",
                },
                AttemptOutcome::HandshakeFailed => "something else answers there",
                AttemptOutcome::Refused => "does not want a connection",
            };
            format!("last try {remote}: {outcome}")
        });
        match (ended, attempt) {
            (None, None) => "not tried yet".to_owned(),
            (Some(ended), None) => ended.to_owned(),
            (None, Some(attempt)) => attempt,
            (Some(ended), Some(attempt)) => format!("{ended}; {attempt}"),
        }
    }

    pub(crate) fn json(&self) -> Value {
        json!({ "connected": self.connected.is_some(), "remote": self.connected, "detail": self.describe() })
    }
}

#[derive(Debug, Default)]
pub(crate) struct Hub(Mutex<State>);

impl Hub {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on, everything that happens comes out of the receiver; its number ends that.
    pub(crate) fn subscribe(&self) -> (u64, Receiver<Note>) {
        let (sender, receiver) = sync_channel(CLIENT_EVENTS);
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        state.listeners.insert(number, (sender, false));
        (number, receiver)
    }

    pub(crate) fn unsubscribe(&self, number: u64) {
        self.state().listeners.remove(&number);
    }

    pub(crate) fn link(&self, peer: &PeerId) -> Link {
        self.state().links.get(peer).cloned().unwrap_or_default()
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.state().ready
    }

    pub(crate) fn store_failed(&self) -> bool {
        self.state().store_failed
    }

    /// The driver dropped events.
    pub(crate) fn lagged(&self) {
        let mut state = self.state();
        state.listeners.retain(|_, listener| offer(listener, Note::Lagged));
    }

    pub(crate) fn event(&self, event: Event) {
        let mut state = self.state();
        match &event {
            Event::Ready => state.ready = true,
            Event::StoreFailed => state.store_failed = true,
            Event::Connected { peer, remote, .. } => {
                let link = state.links.entry(*peer).or_default();
                *link = Link { connected: Some(*remote), ..Link::default() };
            }
            Event::Disconnected { peer, why } => {
                let link = state.links.entry(*peer).or_default();
                *link = Link { ended: Some(*why), ..Link::default() };
            }
            Event::Attempt { peer, remote, outcome } => {
                state.links.entry(*peer).or_default().attempt = Some((*remote, *outcome));
            }
            Event::Queued { .. }
            | Event::SendFailed { .. }
            | Event::Delivered { .. }
            | Event::Received { .. }
            | Event::Gap { .. }
            | Event::GapFilled { .. }
            | Event::InviteStored { .. }
            | Event::ContactChanged { .. }
            | Event::ProfileChanged
            | Event::NextAttempt { .. }
            | Event::Rejected { .. }
            | Event::Misbehaved { .. }
            | Event::Stopped => {}
        }
        state.listeners.retain(|_, listener| offer(listener, Note::Event(Box::new(event.clone()))));
    }
}

/// `false`: nobody is there any more.
fn offer((sender, missed): &mut (SyncSender<Note>, bool), note: Note) -> bool {
    if *missed && sender.try_send(Note::Lagged).is_ok() {
        *missed = false;
    }
    match sender.try_send(note) {
        Ok(()) => true,
        Err(TrySendError::Full(_)) => {
            *missed = true;
            true
        }
        Err(TrySendError::Disconnected(_)) => false,
    }
}
