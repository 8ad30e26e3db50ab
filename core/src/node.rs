//! The node: dispatch only.

use crate::api::{
    Answer, AttemptOutcome, Command, DialFailure, Event, Gauge, Input, Output, PathKind, Refused, Rejection,
    SessionEnd, Stats, StreamEnd,
};
use crate::cx::{Cx, Promise, Timer};
use crate::gateways::Gateways;
use crate::ids::{LoadId, PeerId, StreamId};
use crate::links::{Links, Read, Role};
use crate::path::channel::Place;
use crate::peers::{Peer, Peers, reject};
use crate::planted::planted;
use crate::profile::Own;
use crate::relay::Relaying;
use crate::session::Keys;
use crate::time::Instant;
use crate::via::{Came, Vias};
use crate::wire::handshake::WANTS_RELAY;
use crate::wire::stun::is_stun;
use alloc::vec::Vec;
use core::net::SocketAddr;

/// What differs between installations beside their secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Nodes of different networks do not speak to each other. 1 is the one network that people use.
    pub network: u32,
    /// Whether this machine can send and receive datagrams. Without, peers are reached by streams alone.
    pub datagrams: bool,
    /// Whether people are dialled by datagrams first, and by streams a moment later; otherwise the other way round.
    pub datagrams_first: bool,
    /// Whether this node relays packets for others.
    pub relay: bool,
    /// Whether routers are asked to open ports for this node.
    pub mapping: bool,
    #[cfg(peerlink_planted)]
    pub planted: Option<crate::planted::Planted>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            network: 1,
            datagrams: false,
            datagrams_first: false,
            relay: false,
            mapping: false,
            #[cfg(peerlink_planted)]
            planted: None,
        }
    }
}

/// One peer-to-peer messenger without sockets, disk or clock: facts go in, effects come out.
///
/// # The contract with a driver
///
/// * After every `handle` and `command`, or after several that one wake-up brought, call `poll` until it gives `None`,
///   and carry out what it gives, in order. What one round of `poll` gives shares one batch, so one fsync.
/// * `deadline` is when to call `handle(Tick)` at the latest. It is the `now` of the last call while `poll` may have
///   something, so a driver that forgets to drain is told at once. It is never the past twice without progress.
/// * Time never goes backwards, and it counts the time that the machine slept.
/// * Read at most `read_budget(stream)` bytes of a stream. At 0, stop; `Output::ReadReady` says when to go on.
/// * `Write` hands over bytes; report `StreamWritten` when the carrier took them all. Until then no other `Write` of
///   that stream comes. `Close` may come at any time and is the core's last word about a stream.
/// * Every stream that was accepted or dialled ends with exactly one `StreamClosed` or `DialFailed`.
/// * `Persist` batches are made durable in order, each as one, on a thread that may stall; confirm the newest with
///   `Persisted`. `Load` is answered once, from a state that holds every batch emitted before it.
/// * A fact is never refused, whatever it says; a command may be, and comes back whole.
///
/// # The loop
///
/// ```
/// use peerlink_core::api::{Event, Input, Output};
/// use peerlink_core::identity::IdentitySecret;
/// use peerlink_core::time::{Instant, WallClock};
/// use peerlink_core::{Config, Restore};
///
/// let secret = IdentitySecret::new([7; 32]).ok_or("a seed")?;
/// let restore = Restore::new(Config::default(), &secret, [1; 32]); // fresh entropy, then each stored record
/// let mut now = Instant::from_micros(0);
/// let mut node = restore.start(now, WallClock(1_790_000_000_000))?;
/// let mut ready = false;
/// while !ready {
///     let mut facts = Vec::new();
///     while let Some(output) = node.poll() {
///         match output {
///             // A real driver hands the batch to its storage thread, which confirms it later.
///             Output::Persist(batch) => facts.push(Input::Persisted { batch: batch.id }),
///             Output::Event(event) => ready |= event == Event::Ready,
///             Output::Dial { .. } | Output::Write { .. } | Output::Close { .. } => {}
///             Output::Datagram { .. } => {}
///             Output::ReadReady { .. } | Output::Load { .. } => {}
///         }
///     }
///     if facts.is_empty() {
///         now = node.deadline().unwrap_or(now); // a real driver sleeps until then, or until a socket wakes it
///         facts.push(Input::Tick);
///     }
///     for fact in facts {
///         node.handle(now, fact);
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Node {
    cx: Cx,
    links: Links,
    vias: Vias,
    relaying: Relaying,
    gateways: Gateways,
    peers: Peers,
    own: Own,
    record: Vec<u8>,
    was_pressed: bool,
    stopped: bool,
}

impl Node {
    pub(crate) fn start(mut cx: Cx, peers: Peers, own: Own, config: &Config) -> Self {
        let mut key_rng = cx.rng.fork();
        #[allow(unused_mut, reason = "a planted bug is set only in builds that have them")]
        let mut keys = Keys::new(&cx.identity, cx.network, cx.epoch, cx.start, &mut key_rng);
        #[cfg(peerlink_planted)]
        {
            keys.planted = cx.planted;
        }
        own.write(&mut cx);
        cx.put_age();
        cx.promise(Promise::Ready);
        Self {
            cx,
            links: Links::new(keys),
            vias: Vias::new(),
            relaying: Relaying::new(config.relay),
            gateways: Gateways::new(config.mapping && config.datagrams),
            peers,
            own,
            record: Vec::new(),
            was_pressed: false,
            stopped: false,
        }
    }

    /// A fact. Total: never fails, never panics, whatever a peer made it say.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) {
        let slept = now.saturating_since(self.cx.now) > crate::limits::RETRY_MAX;
        self.cx.now = self.cx.now.max(now);
        if planted!(self.cx, TimerLostAfterSleep) && slept {
            while self.cx.timers.pop(self.cx.now).is_some() {}
        }
        match input {
            Input::Tick => {}
            Input::StreamAccepted { stream, remote } => self.links.accepted(&mut self.cx, stream, remote),
            Input::StreamConnected { stream, local: _ } => {
                if !self.links.connected(&mut self.cx, stream) {
                    self.over(stream, AttemptOutcome::HandshakeFailed, SessionEnd::Misbehaved, true);
                }
            }
            Input::DialFailed { stream, why } => match self.role(stream) {
                Role::Relay => self.vias.dial_failed(&mut self.cx, &mut self.links, stream, why),
                Role::Peer | Role::Client => {
                    self.peers.dial_failed(&mut self.cx, &mut self.links, stream, why)
                }
            },
            Input::StreamData { stream, bytes } => match self.links.push(stream, bytes) {
                Ok(()) => self.read(stream),
                Err(_) => self.over(stream, AttemptOutcome::HandshakeFailed, SessionEnd::Misbehaved, true),
            },
            Input::StreamWritten { stream } => self.links.written(&mut self.cx, stream),
            Input::StreamClosed { stream, why } => {
                let end = match why {
                    StreamEnd::Finished | StreamEnd::Broken => SessionEnd::Lost,
                    StreamEnd::Local => SessionEnd::Local,
                };
                self.over(stream, AttemptOutcome::HandshakeFailed, end, false);
            }
            Input::Datagram { remote, bytes } if self.gateways.has(&remote) => {
                self.gateways.answer(&mut self.cx, remote, bytes);
                self.map_ports();
            }
            Input::Datagram { remote, bytes } if is_stun(bytes) && self.cx.datagrams => {
                self.stun(remote, bytes);
            }
            Input::Datagram { remote, bytes } if self.cx.datagrams => self.packet(Place::Udp(remote), bytes),
            Input::Datagram { .. } => {}
            Input::Persisted { batch } => self.cx.persisted(batch),
            Input::PersistFailed { batch } if planted!(self.cx, FailedCommitBelieved) => {
                self.cx.persisted(batch)
            }
            Input::PersistFailed { batch: _ } => self.store_failed(),
            Input::Loaded { load, answer } => self.loaded(load, &answer),
            Input::WallClock(wall) => {
                self.cx.set_wall(wall);
                self.peers.set_expiry(&mut self.cx);
            }
            Input::LocalAddresses(addresses) => {
                let somewhere = !addresses.is_empty();
                if self.own.local_addresses(&mut self.cx, addresses) {
                    self.links.moved(&mut self.cx);
                    self.vias.moved(&mut self.cx, &mut self.links, somewhere);
                    self.peers.moved(&mut self.cx, &mut self.links, somewhere);
                }
            }
            Input::Gateways(gateways) => {
                self.gateways.set(&mut self.cx, &gateways);
                self.map_ports();
            }
        }
        if core::mem::take(&mut self.cx.rolled_back) {
            self.new_epoch();
        }
        self.due();
        self.keep();
        self.route();
    }

    /// An answer to what we asked, or somebody's question.
    fn stun(&mut self, remote: SocketAddr, bytes: &[u8]) {
        match self.own.observed_by(&mut self.cx, remote, bytes) {
            Some(true) => self.peers.tell_candidates(&mut self.cx, &mut self.links),
            Some(false) => {}
            None => self.relaying.stun(&mut self.cx, remote, bytes),
        }
    }

    /// This store was rolled back: what is written from now on must not take numbers that were used before.
    fn new_epoch(&mut self) {
        self.cx.epoch = crate::ids::Epoch(self.cx.rng.bytes());
        self.own.profile.epoch = self.cx.epoch;
        self.own.leap(&mut self.cx);
        self.links.new_epoch(self.cx.epoch);
        self.peers.new_epoch(&mut self.cx);
    }

    /// Asks gateways what is to be asked, and tells others where they let them in.
    fn map_ports(&mut self) {
        if !self.peers.ready || self.cx.failed {
            return;
        }
        if let Some(mapped) = self.gateways.work(&mut self.cx) {
            self.own.mapped(&mut self.cx, mapped);
            self.peers.tell_candidates(&mut self.cx, &mut self.links);
        }
    }

    /// A request.
    ///
    /// # Errors
    /// The command, whole, and why it was refused. Nothing moved.
    pub fn command(&mut self, now: Instant, command: Command) -> Result<(), Refused> {
        self.cx.now = self.cx.now.max(now);
        if matches!(command, Command::Invite { .. }) {
            self.peers.drop_expired_invites(&mut self.cx);
        }
        if let Some(why) = self.peers.refusal(&self.cx, &command) {
            return Err(Refused { command, why });
        }
        match &command {
            Command::UseRelays { relays } => {
                self.vias.set_home(&mut self.cx, &mut self.links, relays.clone());
                self.cx.queues_changed = true;
            }
            // Somebody is looking.
            Command::Reach { .. } => self.vias.reach_home(&mut self.cx, &mut self.links),
            Command::Shutdown => {
                self.vias.shutdown(&mut self.cx, &mut self.links);
                self.relaying.shutdown(&mut self.cx, &mut self.links);
                self.gateways.shutdown(&mut self.cx);
            }
            _ => {}
        }
        self.peers.command(&mut self.cx, &mut self.links, &mut self.own, command);
        self.due();
        self.keep();
        self.route();
        Ok(())
    }

    /// The next effect.
    pub fn poll(&mut self) -> Option<Output> {
        if self.cx.out.is_empty() {
            self.finish_turn();
        }
        self.cx.out.pop_front()
    }

    /// When to call again: the last `now` while `poll` may have something, else the next timer.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let pending = !self.cx.out.is_empty()
            || self.cx.batch_ready()
            || self.cx.has_questions()
            || !self.cx.touched.is_empty()
            || self.relieved()
            || self.may_stop();
        let pending = pending || (planted!(self.cx, AwakeForNothing) && self.peers.stopping);
        if pending { Some(self.cx.now) } else { self.cx.timers.next() }
    }

    /// How many bytes of this stream may be handed in now; 0: stop reading until `ReadReady`.
    #[must_use]
    pub fn read_budget(&self, stream: StreamId) -> usize {
        if !self.peers.ready || self.was_pressed || self.cx.failed {
            0
        } else {
            self.links.read_budget(stream)
        }
    }

    /// Which key seals the records of an open stream, by a name that tells nothing of it, and how many it sealed. A
    /// harness that sees every `Write` can hold against it that no key meets a number twice, whatever was restored.
    #[must_use]
    pub fn sealing(&self, stream: StreamId) -> Option<(u64, u64)> {
        self.links.sealing(stream)
    }

    /// Who this node is.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.cx.peer()
    }

    /// What is held of others in memory, each beside its limit: for who checks that the limits hold.
    pub fn held(&self) -> impl Iterator<Item = Gauge> + '_ {
        let peers = self.peers.map.values().flat_map(Peer::held);
        peers.chain(self.relaying.held()).chain(core::iter::once(self.cx.gate.held()))
    }

    #[must_use]
    pub fn stats(&self) -> Stats {
        self.cx.stats
    }

    // --- streams ---------------------------------------------------------------------------------------------

    /// Works off everything whole that came on a stream.
    fn read(&mut self, stream: StreamId) {
        let mut record = core::mem::take(&mut self.record);
        loop {
            match self.links.step(&mut self.cx, stream, &mut record) {
                Read::Nothing => break,
                Read::Decide(_) if self.role(stream) == Role::Relay => {
                    self.vias.decide(&mut self.cx, &mut self.links, stream);
                }
                Read::Decide(who) if who.features & WANTS_RELAY != 0 => {
                    self.relaying.admit(&mut self.cx, &mut self.links, stream, who.peer);
                }
                Read::Decide(who) => {
                    self.peers.decide(&mut self.cx, &mut self.links, &self.own, stream, &who)
                }
                Read::Record => match self.role(stream) {
                    Role::Peer => {
                        self.peers.record(&mut self.cx, &mut self.links, &self.own, stream, &record)
                    }
                    Role::Relay => {
                        let came = self.vias.record(&mut self.cx, &mut self.links, stream, &record);
                        self.came(stream, came);
                    }
                    Role::Client => {
                        if !self.relaying.record(&mut self.cx, &mut self.links, stream, &record) {
                            self.over(stream, AttemptOutcome::HandshakeFailed, SessionEnd::Closed, true);
                            break;
                        }
                    }
                },
                Read::Over(why) => {
                    if let Some(link) =
                        self.links.get(stream).filter(|link| !link.session.is_open() && !link.we_dialled())
                    {
                        let (remote, peer) = (link.remote, link.peer);
                        if link.holder.is_none() {
                            reject(&mut self.cx, remote, peer, why);
                        }
                    }
                    self.over(stream, AttemptOutcome::HandshakeFailed, SessionEnd::Misbehaved, true);
                    break;
                }
            }
        }
        record.clear();
        self.record = record;
    }

    fn role(&self, stream: StreamId) -> Role {
        self.links.get(stream).map_or(Role::Peer, |link| link.role)
    }

    /// What a relay passed on, or said.
    fn came(&mut self, relay: StreamId, came: Vec<Came>) {
        for one in came {
            match one {
                Came::Up => {
                    if let Some(id) = self.vias.relay_of(relay) {
                        self.peers.relay_up(&mut self.cx, &id);
                    }
                    // The network may be back, where nobody answered before.
                    self.own.look_again(&mut self.cx, false);
                }
                Came::Packet { from, packet } => self.packet(Place::Via { link: relay, port: from }, &packet),
                Came::Nobody(port) => {
                    for stream in self.links.lose(&mut self.cx, relay, Some(port)) {
                        let outcome = AttemptOutcome::DialFailed(DialFailure::Unreachable);
                        self.over(stream, outcome, SessionEnd::Lost, true);
                    }
                }
                Came::Observed(address) => {
                    if self.own.observed(address) {
                        self.peers.tell_candidates(&mut self.cx, &mut self.links);
                        self.own.look_again(&mut self.cx, true);
                    }
                }
                Came::Over => self.over(relay, AttemptOutcome::Refused, SessionEnd::Closed, true),
            }
        }
    }

    /// Sends peers' packets through relays: queues that should be open, and who should be reached.
    fn route(&mut self) {
        if !self.peers.ready || self.cx.failed {
            return;
        }
        if core::mem::take(&mut self.cx.queues_changed) {
            for relay in self.vias.home().clone().iter() {
                let queues = self.peers.queues(&self.cx, &relay.peer);
                self.vias.want(relay.peer, queues);
            }
        }
        for relay in self.vias.take_left().iter() {
            for lost in self.links.lose(&mut self.cx, *relay, None) {
                self.over(lost, AttemptOutcome::HandshakeFailed, SessionEnd::Lost, true);
            }
        }
        for peer in core::mem::take(&mut self.cx.silent) {
            self.peers.through_relays(&mut self.cx, &peer);
        }
        for (peer, relay) in core::mem::take(&mut self.cx.through) {
            if let Some(link) = self.vias.link(&mut self.cx, &mut self.links, relay, peer) {
                self.peers.reach_through(&mut self.cx, &mut self.links, peer, &relay.peer, link);
            }
        }
    }

    /// A packet came, over the network or through a relay.
    fn packet(&mut self, place: Place, bytes: &[u8]) {
        if !self.peers.ready || self.cx.failed {
            return;
        }
        let Some(stream) = self.links.datagram(&mut self.cx, place, bytes) else { return };
        if let Some(peer) = self.links.get(stream).and_then(|link| link.peer) {
            self.peers.show(&mut self.cx, &self.links, peer);
        }
        // What is not read is not taken any further by the peer than it was told: that is the backpressure.
        if !self.was_pressed {
            self.read(stream);
        }
        self.flush(stream);
    }

    fn flush(&mut self, stream: StreamId) {
        if !self.links.flush(&mut self.cx, stream) {
            self.over(stream, AttemptOutcome::HandshakeFailed, SessionEnd::Local, true);
        }
    }

    /// A stream is over, by its carrier or because what came on it was wrong.
    fn over(&mut self, stream: StreamId, outcome: AttemptOutcome, end: SessionEnd, close: bool) {
        let Some(link) = self.links.get(stream) else { return };
        match link.role {
            Role::Peer => {}
            Role::Relay => {
                self.vias.over(&mut self.cx, &mut self.links, stream, outcome, close);
                for lost in self.links.lose(&mut self.cx, stream, None) {
                    self.over(lost, AttemptOutcome::HandshakeFailed, SessionEnd::Lost, true);
                }
                return;
            }
            Role::Client => {
                if let Some(who) = link.peer {
                    self.relaying.over(stream, &who);
                }
                if close {
                    self.links.abort(&mut self.cx, stream);
                } else {
                    self.links.forget(&mut self.cx, stream);
                }
                return;
            }
        }
        let (peer, dialled, confirmed) = (link.peer, link.we_dialled(), link.confirmed);
        if let Some(peer) = peer.filter(|_| dialled && !confirmed) {
            self.peers.attempt_over(&mut self.cx, &mut self.links, peer, stream, outcome);
        }
        if close {
            self.links.abort(&mut self.cx, stream);
        } else {
            self.links.forget(&mut self.cx, stream);
        }
        if let Some(peer) = peer {
            self.peers.stream_over(&mut self.cx, &mut self.links, peer, stream, end);
        }
    }

    // --- time ------------------------------------------------------------------------------------------------

    fn due(&mut self) {
        // Each timer that fires is set anew later than now or not at all, so this ends.
        while let Some(timer) = self.cx.timers.pop(self.cx.now) {
            match timer {
                Timer::Link(stream) => self.link_due(stream),
                Timer::Dial(peer) => self.peers.dial_due(&mut self.cx, &mut self.links, peer),
                Timer::Retry(peer) => self.peers.retry_due(&mut self.cx, peer),
                Timer::Overlap(peer) => self.peers.overlap_over(&mut self.cx, &mut self.links, peer),
                Timer::Relay(id) => self.vias.due(&mut self.cx, &mut self.links, id),
                Timer::Gateway => self.map_ports(),
                Timer::Record => self.own.renew(&mut self.cx, true),
                Timer::Observe => self.own.ask(&mut self.cx),
                Timer::Expiry => self.peers.expiry_due(&mut self.cx),
                Timer::Shutdown => {
                    let late: Vec<StreamId> = self.links.streams().collect();
                    for stream in late {
                        self.links.abort(&mut self.cx, stream);
                    }
                }
            }
        }
    }

    fn link_due(&mut self, stream: StreamId) {
        let handshaking = self.links.get(stream).is_some_and(|link| !link.session.is_open());
        if let Some(end) = self.links.due(&mut self.cx, stream) {
            if let Some(link) = self.links.get(stream).filter(|link| handshaking && !link.we_dialled()) {
                let (remote, peer) = (link.remote, link.peer);
                reject(&mut self.cx, remote, peer, Rejection::Slow);
            }
            let outcome = if self.links.is_unanswered(stream) {
                AttemptOutcome::DialFailed(DialFailure::TimedOut)
            } else {
                AttemptOutcome::HandshakeFailed
            };
            self.over(stream, outcome, end, true);
        }
    }

    // --- storage ---------------------------------------------------------------------------------------------

    /// Says what has become true.
    fn keep(&mut self) {
        while let Some(promise) = self.cx.kept() {
            match promise {
                Promise::Event(event) => self.cx.event(event),
                Promise::Offer { peer: id, feed, seq, hash } => {
                    let peer = self.peers.map.get_mut(&id);
                    if peer.is_some_and(|peer| peer.outgoing.durable(feed, seq, hash)) {
                        self.peers.tell_have(&mut self.cx, &mut self.links, id);
                    }
                    self.cx.touch(id);
                }
                Promise::Have { peer: id, version, held, cost } => {
                    if let Some(peer) = self.peers.map.get_mut(&id) {
                        peer.inbox.durable(version, held, cost);
                    }
                    self.peers.tell_have(&mut self.cx, &mut self.links, id);
                }
                Promise::Open(stream) => {
                    self.peers.open(&mut self.cx, &mut self.links, &self.own, stream, None, None);
                    self.links.read_early(&mut self.cx, stream);
                    self.read(stream);
                    self.flush(stream);
                }
                Promise::Record => {
                    self.own.record_durable();
                    self.peers.tell_record(&mut self.cx, &mut self.links);
                }
                Promise::Ready => {
                    self.cx.event(Event::Ready);
                    self.peers.all_reach(&mut self.cx, &mut self.links);
                    self.vias.all_reach(&mut self.cx, &mut self.links);
                    self.map_ports();
                    self.own.started(&mut self.cx);
                    self.peers.go_on(&mut self.cx);
                    self.read_on();
                }
            }
        }
    }

    /// Every stream may be read again.
    fn read_on(&mut self) {
        let streams: Vec<StreamId> = self.links.streams().collect();
        for stream in streams {
            if self.links.get(stream).is_some_and(|link| link.path() == PathKind::Stream) {
                self.cx.out.push_back(Output::ReadReady { stream });
            } else {
                self.read(stream);
                self.links.flush(&mut self.cx, stream);
            }
        }
    }

    fn loaded(&mut self, load: LoadId, answer: &Answer) {
        if let Some(asked) = self.cx.answered(load) {
            self.peers.loaded(&mut self.cx, &mut self.links, asked, answer);
        }
    }

    fn store_failed(&mut self) {
        if self.cx.failed {
            return;
        }
        self.cx.fail();
        let all: Vec<StreamId> = self.links.streams().collect();
        for stream in all {
            self.over(stream, AttemptOutcome::HandshakeFailed, SessionEnd::Local, true);
        }
        self.cx.event(Event::StoreFailed);
    }

    // --- the end of a turn -----------------------------------------------------------------------------------

    /// One batch of all that this turn wrote, then what may be asked, then what may be sent.
    fn finish_turn(&mut self) {
        if self.cx.may_close() {
            self.peers.write_dirty(&mut self.cx);
            self.cx.close_batch();
        }
        self.keep();
        if !self.cx.failed {
            self.relaying.work(&mut self.cx, &mut self.links);
            self.peers.work(&mut self.cx, &mut self.links, &self.own);
            self.route();
            self.vias.work(&mut self.cx, &mut self.links);
        }
        self.cx.touched.clear();
        self.cx.let_questions_out();
        if self.relieved() {
            self.was_pressed = false;
            self.read_on();
        } else {
            self.was_pressed = self.cx.pressed();
        }
        if self.may_stop() {
            self.stopped = true;
            self.cx.event(Event::Stopped);
        }
    }

    /// Reading was stopped for the disk's sake, and may go on.
    fn relieved(&self) -> bool {
        self.was_pressed && !self.cx.pressed()
    }

    fn may_stop(&self) -> bool {
        let durable = self.cx.failed
            || planted!(self.cx, StoppedBeforeDurable)
            || (self.cx.all_durable() && self.cx.gate.is_empty());
        self.peers.stopping && !self.stopped && self.links.is_empty() && durable
    }
}
