//! What happens in the node, handed to every front end that listens; and what is known of each contact's connection.

use crate::limits::{CLIENT_EVENTS, TRIES};
use peerlink_core::api::{
    AttemptOutcome, DialFailure, Event, NatFiltering, NatMapping, PathKind, SessionEnd, Transport,
};
use peerlink_core::ids::PeerId;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

#[derive(Debug, Clone)]
pub(crate) enum Note {
    Event(Box<Event>),
    /// Something was missed: the store knows.
    Lagged,
    /// Whoever this is for has gone.
    Gone,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    listeners: BTreeMap<u64, (SyncSender<Note>, bool)>,
    links: BTreeMap<PeerId, Link>,
    /// What routers opened: in front of which, for what, and where.
    mapped: BTreeSet<(SocketAddr, Transport, SocketAddr)>,
    seen: Option<Seen>,
    ready: bool,
    store_failed: bool,
    closed: bool,
}

/// How others see this node's datagrams, as it last said.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) mapping: NatMapping,
    pub(crate) filtering: NatFiltering,
}

impl Seen {
    /// For front ends that are programs.
    pub(crate) fn json(&self) -> Value {
        let mapping = match self.mapping {
            NatMapping::Unknown => "unknown",
            NatMapping::None => "none",
            NatMapping::Translated => "translated",
            NatMapping::EndpointIndependent => "endpoint_independent",
            NatMapping::EndpointDependent => "endpoint_dependent",
        };
        let filtering = match self.filtering {
            NatFiltering::Unknown => "unknown",
            NatFiltering::EndpointIndependent => "endpoint_independent",
            NatFiltering::AddressDependent => "address_dependent",
            NatFiltering::AddressAndPortDependent => "address_and_port_dependent",
        };
        json!({ "addresses": self.addresses, "mapping": mapping, "filtering": filtering })
    }
}

#[derive(Debug, Clone, Copy)]
struct Try {
    remote: SocketAddr,
    path: PathKind,
    outcome: AttemptOutcome,
    at_ms: u64,
}

impl Try {
    fn words(&self) -> String {
        let by = match self.path {
            PathKind::Stream => "",
            PathKind::Datagram => " by UDP",
            PathKind::Relayed => " through the relay",
        };
        format!("{}{by}: {}", self.remote, outcome_words(self.outcome))
    }
}

/// How a contact can be reached, as far as it is known. Times are milliseconds since 1970.
#[derive(Debug, Clone, Default)]
pub(crate) struct Link {
    connected: Option<(SocketAddr, u64)>,
    path: Option<PathKind>,
    /// How long an answer last took.
    round_trip: Option<Duration>,
    ended: Option<(SessionEnd, u64)>,
    /// The newest last.
    tries: VecDeque<Try>,
    next_ms: Option<u64>,
}

pub(crate) fn outcome_words(outcome: AttemptOutcome) -> &'static str {
    match outcome {
        AttemptOutcome::Connected => "connected",
        AttemptOutcome::Superseded => "another connection was faster",
        AttemptOutcome::DialFailed(why) => match why {
            DialFailure::Refused => "nobody listens there",
            DialFailure::Unreachable => "no route there",
            DialFailure::TimedOut => "no answer",
            DialFailure::Local => "this machine could not dial",
        },
        AttemptOutcome::HandshakeFailed => "something else answers there",
        AttemptOutcome::Refused => "does not want a connection",
    }
}

fn end_words(why: SessionEnd) -> &'static str {
    match why {
        SessionEnd::Closed => "said goodbye",
        SessionEnd::Lost => "the connection broke",
        SessionEnd::Silent => "went silent",
        SessionEnd::Replaced => "another connection took over",
        SessionEnd::Local => "closed by this side",
        SessionEnd::Misbehaved => "sent something wrong",
    }
}

/// How front ends that are programs name a path.
pub(crate) const fn path_word(path: PathKind) -> &'static str {
    match path {
        PathKind::Stream => "tcp",
        PathKind::Datagram => "udp",
        PathKind::Relayed => "relay",
    }
}

impl Link {
    pub(crate) const fn is_connected(&self) -> bool {
        self.connected.is_some()
    }

    /// How it is connected, if it is.
    pub(crate) fn path(&self) -> Option<PathKind> {
        self.path.filter(|_| self.is_connected())
    }

    /// In the user's words.
    pub(crate) fn describe(&self) -> String {
        if let Some((remote, _)) = self.connected {
            let words = match self.path {
                Some(PathKind::Relayed) => format!("connected through the relay at {remote}"),
                Some(PathKind::Datagram) => format!("connected to {remote} by UDP"),
                Some(PathKind::Stream) | None => format!("connected to {remote}"),
            };
            return match self.round_trip {
                Some(time) if time < Duration::from_millis(1) => format!("{words}, below 1 ms"),
                Some(time) => format!("{words}, {} ms", time.as_millis()),
                None => words,
            };
        }
        let ended = self.ended.map(|(why, _)| end_words(why).to_owned());
        let tried = self.tries.back().map(|last| format!("last try {}", last.words()));
        let words: Vec<String> = ended.into_iter().chain(tried).collect();
        if words.is_empty() { "not tried yet".to_owned() } else { words.join("; ") }
    }

    pub(crate) fn json(&self) -> Value {
        let tries: Vec<Value> = self
            .tries
            .iter()
            .map(|one| {
                json!({
                    "at_ms": one.at_ms,
                    "remote": one.remote,
                    "path": path_word(one.path),
                    "outcome": outcome_words(one.outcome),
                    "words": one.words(),
                })
            })
            .collect();
        json!({
            "connected": self.connected.is_some(),
            "remote": self.connected.map(|(remote, _)| remote),
            "path": self.path.filter(|_| self.connected.is_some()).map(path_word),
            "round_trip_us": self.round_trip.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
            "since_ms": self.connected.map(|(_, since)| since).or(self.ended.map(|(_, since)| since)),
            "tries": tries,
            "next_ms": self.next_ms,
            "detail": self.describe(),
        })
    }

    fn note(&mut self, event: &Event) {
        let now = crate::clock::wall_ms();
        match event {
            Event::Connected { remote, path, .. } => {
                *self = Self { connected: Some((*remote, now)), path: Some(*path), ..Self::default() };
            }
            Event::RelayChanged { remote, path, up: true, .. } => {
                *self = Self { connected: Some((*remote, now)), path: Some(*path), ..Self::default() };
            }
            Event::RelayChanged { up: false, .. } => {
                *self = Self { ended: Some((SessionEnd::Lost, now)), ..Self::default() };
            }
            Event::PathChanged { remote, path, .. } => {
                let since = self.connected.map_or(now, |(_, since)| since);
                *self = Self { connected: Some((*remote, since)), path: Some(*path), ..Self::default() };
            }
            Event::Disconnected { why, .. } => *self = Self { ended: Some((*why, now)), ..Self::default() },
            Event::RoundTrip { round_trip, .. } => self.round_trip = Some(*round_trip),
            Event::Attempt { remote, path, outcome, .. } => {
                if self.tries.len() >= TRIES {
                    self.tries.pop_front();
                }
                self.tries.push_back(Try { remote: *remote, path: *path, outcome: *outcome, at_ms: now });
                self.next_ms = None;
            }
            Event::NextAttempt { at, .. } => self.next_ms = Some(crate::clock::wall_ms_at(*at)),
            _ => {}
        }
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
        if !state.closed {
            state.listeners.insert(number, (sender, false));
        }
        (number, receiver)
    }

    pub(crate) fn unsubscribe(&self, number: u64) {
        self.state().listeners.remove(&number);
    }

    /// Nobody reads what this one is told.
    pub(crate) fn gone(&self, number: u64) {
        if let Some(listener) = self.state().listeners.get_mut(&number) {
            // One that is full has plenty to wake up for, and finds out by writing.
            let _ = offer(listener, Note::Gone);
        }
    }

    /// The node has ended: nothing more will come.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.listeners.clear();
    }

    pub(crate) fn link(&self, peer: &PeerId) -> Link {
        self.state().links.get(peer).cloned().unwrap_or_default()
    }

    /// What routers opened for this node.
    pub(crate) fn mapped(&self) -> Vec<Value> {
        let word = |transport| match transport {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
        };
        let state = self.state();
        let of = |(router, transport, external): &(SocketAddr, Transport, SocketAddr)| json!({ "router": router.ip(), "transport": word(*transport), "external": external });
        state.mapped.iter().map(of).collect()
    }

    /// How others see this node. `None`: that was not found out yet.
    pub(crate) fn seen(&self) -> Option<Seen> {
        self.state().seen.clone()
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
            Event::Observed { addresses, mapping, filtering } => {
                state.seen =
                    Some(Seen { addresses: addresses.to_vec(), mapping: *mapping, filtering: *filtering });
            }
            Event::StoreFailed => state.store_failed = true,
            Event::Connected { peer, .. }
            | Event::PathChanged { peer, .. }
            | Event::RelayChanged { relay: peer, .. }
            | Event::RoundTrip { peer, .. }
            | Event::Disconnected { peer, .. }
            | Event::Attempt { peer, .. }
            | Event::NextAttempt { peer, .. } => state.links.entry(*peer).or_default().note(&event),
            Event::PortMapped { router, transport, external, up } => {
                let one = (*router, *transport, *external);
                if *up {
                    state.mapped.insert(one);
                } else {
                    state.mapped.remove(&one);
                }
            }
            Event::Queued { .. }
            | Event::SendFailed { .. }
            | Event::Delivered { .. }
            | Event::Received { .. }
            | Event::Gap { .. }
            | Event::GapFilled { .. }
            | Event::Gone { .. }
            | Event::RolledBack { .. }
            | Event::Recovered { .. }
            | Event::Reissued { .. }
            | Event::SecondCopy { .. }
            | Event::Dropped { .. }
            | Event::Expired { .. }
            | Event::DropFailed { .. }
            | Event::ConversationDeleted { .. }
            | Event::InviteStored { .. }
            | Event::ContactChanged { .. }
            | Event::ProfileChanged
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
