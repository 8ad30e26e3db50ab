//! A machine that says what a test tells it to, and writes down what it is told.

use super::FAILSAFE;
use peerlink_core::api::{
    Answer, Command, DialFailure, Event, Gateway, Input, Output, Refusal, Refused, Stats, StreamEnd,
};
use peerlink_core::ids::{BatchId, LoadId, StreamId};
use peerlink_core::time::Instant;
use peerlink_drivers::{Handle, Machine};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// What the machine was told, without bytes: those are counted, and kept if the test wants them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    Tick(Instant),
    Accepted(StreamId),
    Connected(StreamId),
    DialFailed(StreamId, DialFailure),
    Data(StreamId),
    Written(StreamId),
    Closed(StreamId, StreamEnd),
    Persisted(BatchId),
    PersistFailed(BatchId),
    Loaded(LoadId, Answer),
    /// A datagram, and from where.
    Datagram(SocketAddr, Vec<u8>),
    Wall,
    Addresses(Vec<SocketAddr>),
    Gateways(Vec<Gateway>),
}

#[derive(Debug, Default)]
pub struct State {
    outputs: VecDeque<Output>,
    pub facts: Vec<Fact>,
    pub received: BTreeMap<StreamId, Vec<u8>>,
    pub counts: BTreeMap<StreamId, usize>,
    /// Budgets that are not "all you can read".
    budgets: BTreeMap<StreamId, usize>,
    default_budget: usize,
    count_only: bool,
    deadline: Option<Instant>,
    panics: bool,
    polls: u64,
}

/// The test's side; [`Script::machine`] is the driver's.
#[derive(Debug, Clone)]
pub struct Script(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug)]
pub struct Scripted(Script);

impl Default for Script {
    fn default() -> Self {
        Self::with_budget(usize::MAX)
    }
}

impl Script {
    /// A machine that lets so many bytes of each stream come.
    #[must_use]
    pub fn with_budget(default_budget: usize) -> Self {
        Self(Arc::new((Mutex::new(State { default_budget, ..State::default() }), Condvar::new())))
    }

    #[must_use]
    pub fn machine(&self) -> Scripted {
        Scripted(self.clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes are counted only.
    pub fn count_only(&self) {
        self.lock().count_only = true;
    }

    pub fn set_budget(&self, stream: StreamId, bytes: usize) {
        self.lock().budgets.insert(stream, bytes);
    }

    pub fn set_deadline(&self, at: Option<Instant>) {
        self.lock().deadline = at;
    }

    /// The next fact makes the machine panic.
    pub fn panic(&self) {
        self.lock().panics = true;
    }

    #[must_use]
    pub fn polls(&self) -> u64 {
        self.lock().polls
    }

    /// Has the driver carry these out, in one round: returns when it was asked to.
    pub fn say(&self, handle: &Handle, outputs: impl IntoIterator<Item = Output>) {
        self.lock().outputs.extend(outputs);
        poke(handle);
    }

    /// The same, and returns when they are carried out.
    pub fn do_now(&self, handle: &Handle, outputs: impl IntoIterator<Item = Output>) {
        self.say(handle, outputs);
        self.until("the last output", |state| state.outputs.is_empty().then_some(()));
        // That was taken, and is done before the driver hears anything else.
        poke(handle);
    }

    /// Waits until `found` finds what it looks for.
    pub fn until<T>(&self, what: &str, mut found: impl FnMut(&State) -> Option<T>) -> T {
        let mut state = self.lock();
        loop {
            if let Some(found) = found(&state) {
                return found;
            }
            let waited = self.0.1.wait_timeout(state, FAILSAFE).unwrap_or_else(PoisonError::into_inner);
            state = waited.0;
            assert!(!waited.1.timed_out(), "{what} did not happen; facts: {:?}", state.facts);
        }
    }

    /// Waits for this fact.
    pub fn wait(&self, fact: &Fact) {
        self.until(&format!("{fact:?}"), |state| state.facts.contains(fact).then_some(()));
    }

    /// Waits for the `n`th accepted stream, from 0.
    #[must_use]
    pub fn accepted(&self, n: usize) -> StreamId {
        self.until("accept", |state| {
            let accepted = |fact: &Fact| match fact {
                Fact::Accepted(stream) => Some(*stream),
                _ => None,
            };
            state.facts.iter().filter_map(accepted).nth(n)
        })
    }

    /// Datagrams so far were not worth remembering.
    pub fn forget_datagrams(&self) {
        self.lock().facts.retain(|fact| !matches!(fact, Fact::Datagram(..)));
    }

    /// Waits for so many bytes of this stream.
    pub fn wait_bytes(&self, stream: StreamId, count: usize) {
        self.until(&format!("byte {count}"), |state| (state.count(stream) >= count).then_some(()));
    }

    #[must_use]
    pub fn facts(&self) -> Vec<Fact> {
        self.lock().facts.clone()
    }

    #[must_use]
    pub fn count(&self, stream: StreamId) -> usize {
        self.lock().count(stream)
    }

    #[must_use]
    pub fn received(&self, stream: StreamId) -> Vec<u8> {
        self.lock().received.get(&stream).cloned().unwrap_or_default()
    }

    /// Every stream that ended did so once, and nothing was said of it afterwards.
    pub fn assert_last_words(&self) {
        let mut over = Vec::new();
        for fact in self.facts() {
            let (stream, ends) = match fact {
                Fact::Accepted(stream)
                | Fact::Connected(stream)
                | Fact::Data(stream)
                | Fact::Written(stream) => (stream, false),
                Fact::Closed(stream, _) | Fact::DialFailed(stream, _) => (stream, true),
                _ => continue,
            };
            assert!(!over.contains(&stream), "{fact:?} after the last word");
            if ends {
                over.push(stream);
            }
        }
    }
}

impl State {
    #[must_use]
    pub fn count(&self, stream: StreamId) -> usize {
        self.counts.get(&stream).copied().unwrap_or(0)
    }
}

/// One round through the loop.
pub fn poke(handle: &Handle) {
    handle.command(Command::SetNickname { nickname: None }).expect("the driver runs").expect("never refused");
}

impl Machine for Scripted {
    fn handle(&mut self, now: Instant, input: Input<'_>) {
        let mut state = self.0.lock();
        assert!(!state.panics, "the test says so");
        let fact = match input {
            Input::Tick => {
                state.deadline = state.deadline.filter(|at| *at > now || *at == Instant::ZERO);
                Fact::Tick(now)
            }
            Input::StreamAccepted { stream, remote: _ } => Fact::Accepted(stream),
            Input::StreamConnected { stream, local: _ } => Fact::Connected(stream),
            Input::DialFailed { stream, why } => Fact::DialFailed(stream, why),
            Input::StreamData { stream, bytes } => {
                let default = state.default_budget;
                let budget = state.budgets.entry(stream).or_insert(default);
                assert!(bytes.len() <= *budget && !bytes.is_empty(), "more than the budget, or nothing");
                *budget = if *budget == usize::MAX { usize::MAX } else { *budget - bytes.len() };
                *state.counts.entry(stream).or_default() += bytes.len();
                if state.count_only {
                    drop(state);
                    self.0.0.1.notify_all();
                    return;
                }
                state.received.entry(stream).or_default().extend_from_slice(bytes);
                Fact::Data(stream)
            }
            Input::StreamWritten { stream } => Fact::Written(stream),
            Input::StreamClosed { stream, why } => Fact::Closed(stream, why),
            Input::Persisted { batch } => Fact::Persisted(batch),
            Input::PersistFailed { batch } => Fact::PersistFailed(batch),
            Input::Loaded { load, answer } => Fact::Loaded(load, answer),
            Input::Datagram { remote, bytes } => Fact::Datagram(remote, bytes.to_vec()),
            Input::WallClock(_) => Fact::Wall,
            Input::Gateways(gateways) => Fact::Gateways(gateways.to_vec()),
            Input::LocalAddresses(addresses) => Fact::Addresses(addresses.to_vec()),
        };
        state.facts.push(fact);
        drop(state);
        self.0.0.1.notify_all();
    }

    fn command(&mut self, _now: Instant, command: Command) -> Result<(), Refused> {
        match command {
            Command::SetNickname { nickname: None } => Ok(()),
            Command::Shutdown => {
                self.0.lock().outputs.push_back(Output::Event(Event::Stopped));
                Ok(())
            }
            command => Err(Refused { command, why: Refusal::StoreFailed }),
        }
    }

    fn poll(&mut self) -> Option<Output> {
        let mut state = self.0.lock();
        state.polls += 1;
        let output = state.outputs.pop_front();
        if state.outputs.is_empty() {
            self.0.0.1.notify_all();
        }
        output
    }

    fn deadline(&self) -> Option<Instant> {
        let state = self.0.lock();
        if state.outputs.is_empty() { state.deadline } else { Some(Instant::ZERO) }
    }

    fn read_budget(&self, stream: StreamId) -> usize {
        let state = self.0.lock();
        state.budgets.get(&stream).copied().unwrap_or(state.default_budget)
    }

    fn stats(&self) -> Stats {
        Stats::default()
    }
}
