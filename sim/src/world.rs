//! The world: hosts, connections, people and their oracle, and the one loop that lets things happen in order.
//!
//! A world is a function of its scenario and of how many events have happened, so [`World::fork`] makes another
//! that stands at the same moment.

use crate::air::{Air, Squall};
use crate::attack::Planned;
use crate::disk::Disk;
use crate::fate::{Dice, Fates, Purpose, link};
use crate::fault::{Counts, Fault};
use crate::homes::Homes;
use crate::host::{Ending, Host, Mind, Process};
use crate::hostile::Hostile;
use crate::limits::{
    AFTERGLOW, ATTEMPT, DONE_CHECK, EVENTS, HEALING, HOSTS, LINKS, LOOKING, MICROS_PER_SECOND, TAKING_TURNS,
    UNATTENDED,
};
use crate::net::{Conn, EndState};
use crate::op::{Block, Op};
use crate::oracle::{Check, Oracle, Violation};
use crate::people::Person;
use crate::probe::Met;
use crate::queue::{Event, Queue, Run};
use crate::relays::{Moment, Sent, Turn};
use crate::scenario::{Climate, Scenario};
use crate::tap::{Tail, Tap};
use crate::touch::{Awaited, Reel};
use crate::tracer::{Print, Tracer};
use crate::watch::Watch;
use bytes::Bytes;
use peerlink_core::api::{Input, PathKind};
use peerlink_core::bounded::List;
use peerlink_core::ids::PeerId;
use peerlink_core::{Config, Restore};
use std::collections::BTreeMap;

/// One way from a host to another.
#[derive(Debug, Clone, Default)]
pub(crate) struct Link {
    /// Since when, and how, nothing passes.
    pub(crate) blocked: Option<(u64, Block)>,
    /// Since when, and by how much, everything is late.
    pub(crate) clogged: Option<(u64, u64)>,
    /// Dials that will vanish, and that will be refused.
    pub(crate) lose: u32,
    pub(crate) refuse: u32,
    /// What somebody on it will do, in order, and whether he did something.
    pub(crate) attacks: Vec<Planned>,
    pub(crate) attacked: bool,
    /// What it does to datagrams, what somebody will do to those on it, and what he remembers of them.
    pub(crate) squall: Squall,
    pub(crate) touches: Vec<Awaited>,
    pub(crate) touched: bool,
    pub(crate) reel: Reel,
}

/// What came of a world.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub seed: u64,
    pub violation: Option<Violation>,
    pub hash: [u8; 32],
    /// Events of the world, and lines of trace: inputs, commands and outputs of nodes.
    pub events: u64,
    pub lines: u64,
    pub sent: u64,
    pub delivered: u64,
    pub faults: Counts,
    pub met: Met,
    pub wire_bytes: u64,
    /// Simulated microseconds, and how long after the last fault everything was delivered.
    pub ended: u64,
    pub healed_after: u64,
    /// How people reached each other when, in order.
    pub moments: Vec<Moment>,
    /// What each host sent.
    pub traffic: Vec<Sent>,
}

#[derive(Debug)]
pub struct World {
    pub(crate) scenario: Scenario,
    pub(crate) dice: Dice,
    pub(crate) now: u64,
    pub(crate) queue: Queue,
    pub(crate) hosts: Vec<Host>,
    pub(crate) conns: Vec<Conn>,
    pub(crate) links: Vec<Link>,
    pub(crate) people: Vec<Person>,
    pub(crate) oracle: Oracle,
    pub(crate) tap: Tap,
    pub(crate) tracer: Tracer,
    pub(crate) counts: Counts,
    pub(crate) met: Met,
    pub(crate) healed: bool,
    /// Somebody is on some way.
    pub(crate) attackers: bool,
    pub(crate) touchers: bool,
    pub(crate) air: Air,
    pub(crate) homes: Option<Homes>,
    pub(crate) watch: Watch,
    /// Those whom people know, or may: everybody but the relays.
    pub(crate) acquaintances: usize,
    /// On what people reach each other, as their nodes say, and when that changed.
    pub(crate) paths: BTreeMap<(usize, PeerId), PathKind>,
    pub(crate) moments: Vec<Moment>,
    pub(crate) sent: Vec<Sent>,
    /// Until then a session may end for what a fault did, other than somebody on the way.
    pub(crate) disturbed: u64,
    /// With whom a host has a session, as it said, and in which run of it.
    pub(crate) stands: BTreeMap<(usize, PeerId), Run>,
    pub(crate) events: u64,
    violation: Option<Violation>,
    done_at: Option<u64>,
    ended: bool,
}

impl World {
    #[must_use]
    pub fn new(scenario: Scenario, print: Print) -> Self {
        let mut dice = Dice::new(Fates::new(scenario.seed));
        let mut hosts = Vec::new();
        for index in 0..scenario.hosts {
            // A seed that makes no identity is not known to exist; the next draw would make one.
            hosts.extend(Host::new(index, dice.bytes(Purpose::Seed, link(index, index)), &scenario.climate));
        }
        if let Some(original) = scenario.twin_of() {
            let again = hosts.get(original).map(|host: &Host| host.secret.clone());
            hosts.extend(
                again.and_then(|secret| Host::twin(scenario.hosts, original, secret, &scenario.climate)),
            );
        }
        if scenario.has_hostile() {
            let (index, climate) = (scenario.hosts, &scenario.climate);
            let host = Host::new(index, dice.bytes(Purpose::Seed, link(index, index)), climate);
            hosts.extend(host.map(|host| Host { is_hostile: true, ..host }));
        }
        World::add_relays(&scenario, &mut dice, &mut hosts);
        for (host, home) in hosts.iter_mut().zip(scenario.homes) {
            host.home = home;
        }
        let homes = {
            let addresses: Vec<_> = hosts.iter().map(|host| host.address().ip()).collect();
            let Climate { hops, mtu, .. } = scenario.climate;
            Homes::new(&scenario.homes, &addresses, hops, mtu, scenario.lives, scenario.seed)
        };
        let peers: Vec<_> = hosts.iter().filter(|host| host.relays.is_none()).map(|host| host.peer).collect();
        let honest = hosts.iter().filter(|host| !host.is_hostile && host.relays.is_none()).count();
        let mut tap = Tap::default();
        for host in &hosts {
            tap.search_for(format!("the PeerId of {}", host.name()), host.peer.as_bytes());
        }
        Person::mark(&mut tap);
        let twins: Vec<_> = hosts.iter().map(|host| host.twin_of).collect();
        let people = (0..honest).map(|index| Person::new(index, &peers, honest, &twins, &mut dice)).collect();
        let mut counts = Counts::default();
        scenario.climate.faults().for_each(|fault| counts.add(fault));
        let attackers = scenario.script.iter().any(|(_, op)| matches!(op, Op::Attack { .. }));
        let touchers = scenario.script.iter().any(|(_, op)| matches!(op, Op::TouchPacket { .. }));
        let mut world = Self {
            oracle: Oracle::new(&peers[..honest], peers.get(honest).copied(), scenario.rolls_back(), &twins),
            tracer: Tracer::new(print),
            scenario,
            dice,
            now: 0,
            queue: Queue::default(),
            hosts,
            conns: Vec::new(),
            links: vec![Link::default(); LINKS],
            people,
            tap,
            counts,
            met: Met::default(),
            healed: false,
            attackers,
            touchers,
            air: Air::default(),
            homes,
            acquaintances: peers.len(),
            paths: BTreeMap::new(),
            moments: Vec::new(),
            sent: vec![Sent::default(); HOSTS],
            watch: Watch::default(),
            disturbed: 0,
            stands: BTreeMap::new(),
            events: 0,
            violation: None,
            done_at: None,
            ended: false,
        };
        // Who dials a relay may do so before it was ever there.
        for host in world.acquaintances..world.hosts.len() {
            world.watch.knows(world.hosts[host].address());
        }
        world.begin();
        world
    }

    fn begin(&mut self) {
        for host in 0..self.hosts.len() {
            let at = self.dice.below(Purpose::Act, link(host, host), MICROS_PER_SECOND);
            let is_late = self.scenario.meets > 0 && self.hosts[host].relays.is_none();
            let at = at + if is_late { MICROS_PER_SECOND } else { 0 };
            self.queue.push(at, Event::Boot { host });
            if host < self.people.len() && !self.hosts[host].absent {
                self.queue.push(at + 1, Event::Act { host });
            }
        }
        for (index, (at, _)) in self.scenario.script.iter().enumerate() {
            self.queue.push(*at, Event::Script(index));
        }
        self.queue.push(self.scenario.healed, Event::Heal);
    }

    /// Another world at the same moment: made from the same scenario, led through as many events.
    #[must_use]
    pub fn fork(&self) -> Self {
        let mut other = Self::new(self.scenario.clone(), Print::Nothing);
        while other.events < self.events && other.step() {}
        other
    }

    /// Lets everything happen until the end, or until something is wrong.
    pub fn run(mut self) -> Outcome {
        while self.step() {}
        self.outcome()
    }

    /// One event. `false`: the world has ended.
    pub fn step(&mut self) -> bool {
        if self.ended || self.violation.is_some() {
            return false;
        }
        let Some((at, event)) = self.queue.pop() else {
            self.fail(Check::Liveness, "nothing will ever happen again");
            return false;
        };
        self.now = at;
        self.events += 1;
        if self.events > EVENTS {
            self.fail(Check::Livelock, "more events than any world should have");
            return false;
        }
        match self.paused(event) {
            Some(host) => self.hold(host, event),
            None => self.happen(event),
        }
        self.violation.is_none() && !self.ended
    }

    /// Every disk keeps from now on what is done to it.
    pub fn record_disks(&mut self) {
        self.hosts.iter_mut().for_each(|host| host.disk.record());
    }

    pub fn disks(&self) -> impl Iterator<Item = &Disk> {
        self.hosts.iter().take(self.people.len()).map(|host| &host.disk)
    }

    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        self.tracer.hash()
    }

    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    fn outcome(self) -> Outcome {
        Outcome {
            seed: self.scenario.seed,
            hash: self.tracer.hash(),
            events: self.events,
            lines: self.tracer.lines,
            sent: self.oracle.queued(),
            delivered: self.oracle.delivered(),
            faults: self.counts,
            met: self.met,
            wire_bytes: self.tap.bytes,
            ended: self.now,
            healed_after: self.done_at.unwrap_or(self.now).saturating_sub(self.scenario.healed),
            violation: self.violation,
            moments: self.moments,
            traffic: self.sent,
        }
    }

    pub(crate) fn fail(&mut self, check: Check, what: impl Into<String>) {
        self.wrong(Violation { check, what: what.into() });
    }

    pub(crate) fn wrong(&mut self, violation: Violation) {
        if self.violation.is_none() {
            self.tracer.note(self.now, || format!("VIOLATION {violation}"));
            self.violation = Some(violation);
        }
    }

    /// How many milliseconds a host has lived, if its node can know: its wall clock was never set.
    pub(crate) fn lived(&self, host: usize) -> Option<u64> {
        let host = &self.hosts[host];
        (!host.was_set).then(|| host.lived_ms(self.now))
    }

    pub(crate) fn judged(&mut self, verdict: Result<(), Violation>) {
        if let Err(violation) = verdict {
            self.wrong(violation);
        }
    }

    pub(crate) fn is_wrong(&self) -> bool {
        self.violation.is_some()
    }

    pub(crate) fn run_of(&self, host: usize) -> Run {
        Run { host, incarnation: self.hosts[host].incarnation }
    }

    pub(crate) fn is_current(&self, run: Run) -> bool {
        let host = &self.hosts[run.host];
        host.incarnation == run.incarnation && host.is_up()
    }

    /// What is for a host that stands still happens when it goes on.
    fn hold(&mut self, host: usize, event: Event) {
        let until = self.hosts[host].paused_until;
        if self.hosts[host].held.is_empty() {
            self.queue.push(until, Event::Wake { host });
        }
        self.hosts[host].held.push(event);
    }

    fn go_on(&mut self, host: usize) {
        let until = self.hosts[host].paused_until;
        if until > self.now {
            return self.queue.push(until, Event::Wake { host });
        }
        for event in std::mem::take(&mut self.hosts[host].held) {
            self.queue.push(self.now, event);
        }
    }

    /// The host that this event is for, if it stands still.
    fn paused(&self, event: Event) -> Option<usize> {
        let host = match event {
            Event::Timer { run, .. }
            | Event::Drain { run }
            | Event::Committed { run, .. }
            | Event::Told { run, .. }
            | Event::Loaded { run, .. }
            | Event::Over { run, .. } => run.host,
            Event::Act { host } | Event::Look { host } | Event::Surroundings { host } => host,
            Event::Syn { conn, .. } => self.host_at(self.conns[conn].remote)?,
            Event::SynAck { conn, .. } | Event::DialFailed { conn, .. } | Event::DialTimeout { conn } => {
                self.conns[conn].ends[0].host
            }
            Event::Readable(side) | Event::Written(side) => self.conns[side.conn].ends[side.side].host,
            Event::Script(_)
            | Event::LinkUp { .. }
            | Event::Boot { .. }
            | Event::Cut { .. }
            | Event::Wake { .. }
            | Event::Arrive(_)
            | Event::Linger(_)
            | Event::DoneCheck
            | Event::Heal
            | Event::End => return None,
            Event::Land { flight } => self.lands_at(flight)?,
        };
        Some(host).filter(|host| self.hosts[*host].paused_until > self.now)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Script(index) => self.script(index),
            Event::LinkUp { link, began } => self.link_up(link, began),
            Event::Boot { host } => self.boot(host),
            Event::Timer { run, generation } => self.timer(run, generation),
            Event::Drain { run } => {
                if self.is_current(run) && self.hosts[run.host].process.as_ref().is_some_and(|p| p.deferred) {
                    self.drain(run.host);
                }
            }
            Event::Committed { run, upto } => self.committed(run, upto),
            Event::Wake { host } => self.go_on(host),
            Event::Cut { run } => self.power_cut(run),
            Event::Told { run, upto, failed } => self.told(run, upto, failed),
            Event::Loaded { run, load } => self.loaded(run, load),
            Event::Act { host } => self.act(host),
            Event::Surroundings { host } => self.notice(host),
            Event::Look { host } => self.look(host),
            Event::Syn { conn, attempt } => self.syn(conn, attempt),
            Event::SynAck { conn, attempt } => self.syn_ack(conn, attempt),
            Event::DialFailed { conn, refused } => self.dial_failed(conn, refused),
            Event::DialTimeout { conn } => self.dial_timeout(conn),
            Event::Land { flight } => self.land(flight),
            Event::Arrive(side) => self.arrive(side),
            Event::Readable(side) => self.readable(side),
            Event::Written(side) => self.written(side),
            Event::Over { run, stream } => self.over(run, stream),
            Event::Linger(side) => self.linger(side),
            Event::DoneCheck => self.done_check(),
            Event::Heal => self.heal(),
            Event::End => self.end(),
        }
    }

    // --- start and crash -------------------------------------------------------------------------------------

    fn boot(&mut self, index: usize) {
        if self.hosts[index].is_up() || self.hosts[index].absent {
            return;
        }
        let own = link(index, index);
        let seed = self.dice.bytes(Purpose::Seed, own);
        let base = self.dice.below(Purpose::Seed, own, 1 << 40);
        if self.hosts[index].is_hostile {
            return self.boot_hostile(index, seed, base);
        }
        if self.is_person(index) {
            let verdict = self.oracle.booted(index, &self.hosts[index].disk);
            self.judged(verdict);
            let oracle = &self.oracle;
            self.people[index].recall(|peer| oracle.is_blocked(index, peer).is_some());
        }
        let now = self.now;
        let host = &mut self.hosts[index];
        #[allow(unused_mut, reason = "a planted bug is set only in builds that have them")]
        let mut config =
            Config { datagrams: self.scenario.datagrams, relay: host.relays.is_some(), ..Config::default() };
        #[cfg(peerlink_planted)]
        {
            config.planted = self.scenario.planted;
        }
        let mut restore = Restore::new(config, &host.secret, seed);
        let fed = host.disk.restore().try_for_each(|(key, value)| restore.record(key, value));
        let clock = peerlink_core::time::Instant::from_micros(base);
        let started = fed.and_then(|()| restore.start(clock, host.wall(now)));
        let node = match started {
            Ok(node) => node,
            Err(error) => return self.fail(Check::Restore, format!("the store does not restore: {error}")),
        };
        host.process = Some(Process::new(Mind::Node(Box::new(node)), now, base, host.drift_ppm));
        (host.off, host.told_relays) = (false, false);
        let (name, incarnation, address) = (host.name(), host.incarnation, host.address());
        self.watch.knows(address);
        self.tracer.note(now, || format!("{name} starts (run {incarnation}) at {address}"));
        self.turned(index, Turn::Started);
        self.answer_unknown(index);
        self.use_relays(index);
        self.feed(index, &Input::LocalAddresses(List::of([address])));
        // A driver that was never told to hand in anything still drains what the start brought.
        self.drain(index);
    }

    fn boot_hostile(&mut self, index: usize, seed: [u8; 32], base: u64) {
        let victims =
            self.people.iter().enumerate().map(|(at, person)| {
                (self.hosts[at].peer, person.ticket_secret(index), self.hosts[at].address())
            });
        let (seed, clock) =
            (u64::from(seed[0]) << 32 | self.scenario.seed, peerlink_core::time::Instant::from_micros(base));
        let Some(hostile) = Hostile::new(&self.hosts[index].secret, seed, clock, victims) else { return };
        let (now, drift_ppm) = (self.now, self.hosts[index].drift_ppm);
        self.hosts[index].process =
            Some(Process::new(Mind::Hostile(Box::new(hostile)), now, base, drift_ppm));
        self.drain(index);
    }

    /// The process ends here and now. Of the batches that are not synced a share of `kept` parts in a million is there.
    pub(crate) fn crash(&mut self, index: usize, ending: Ending, kept: u64, down: u64) {
        let host = &mut self.hosts[index];
        if host.process.take().is_none() {
            return;
        }
        host.doom = None;
        host.failing = None;
        host.cutting = None;
        let run = Run { host: index, incarnation: host.incarnation };
        host.incarnation += 1;
        host.off = ending == Ending::PowerLoss;
        let pending = host.disk.pending() as u64;
        let count = ((pending + 1) * kept / crate::fate::MILLION).min(pending);
        let there = host.disk.cut(usize::try_from(count).unwrap_or(0));
        let (name, lost) = (host.name(), pending - count);
        let note = || format!("{name} ends: {ending:?}; {count} unsynced batches are there, {lost} are lost");
        self.tracer.note(self.now, note);
        match ending {
            Ending::Killed | Ending::PowerLoss if !self.is_person(index) => self.counts.add(Fault::RelayDied),
            Ending::Killed => self.counts.add(Fault::Crash),
            Ending::PowerLoss => self.counts.add(Fault::PowerLoss),
            Ending::Failed => {}
            Ending::Stopped if pending == 0 => {}
            Ending::Stopped => {
                self.fail(Check::QueuedIsDurable, format!("{name} stopped before its disk was done"))
            }
        }
        self.disturb(down);
        (0..lost).for_each(|_| self.counts.add(Fault::BatchLost));
        (0..count).for_each(|_| self.counts.add(Fault::BatchKept));
        if self.is_person(index) {
            let verdict = self.oracle.synced(index, self.lived(index), &there);
            self.judged(verdict);
            self.oracle.crashed(index);
            self.people[index].crashed();
        }
        self.close_all(run, ending);
        // An orderly stop that was asked for before the faults ended may end after them.
        let down = if self.healed { down.min(MICROS_PER_SECOND) } else { down };
        self.queue.push(self.now + down.max(1), Event::Boot { host: index });
    }

    // --- the end ---------------------------------------------------------------------------------------------

    fn heal(&mut self) {
        self.healed = true;
        self.tracer.note(self.now, || "the faults are over".into());
        for index in 0..self.links.len() {
            self.unblock(index);
            let way = &mut self.links[index];
            (way.lose, way.refuse) = (0, 0);
            way.attacks.clear();
            way.touches.clear();
            way.squall = Squall::default();
        }
        for host in &mut self.hosts {
            host.doom = None;
            host.failing = None;
            host.cutting = None;
            host.full = None;
            host.slow = None;
            host.paused_until = self.now;
        }
        for host in 0..self.hosts.len() {
            self.queue.push(self.now, Event::Wake { host });
            self.queue.push(self.now, Event::Boot { host });
            if self.scenario.looking && host < self.people.len() && !self.hosts[host].absent {
                let wait = self.dice.between(Purpose::Act, link(host, host), LOOKING / 2, LOOKING);
                let at = self.now + wait;
                self.queue.push(at, Event::Look { host });
            }
        }
        self.queue.push(self.now + DONE_CHECK, Event::DoneCheck);
    }

    fn done_check(&mut self) {
        let patience = match self.scenario.looking {
            _ if self.sessions_alternate() => TAKING_TURNS,
            true => HEALING,
            false => HEALING + UNATTENDED,
        };
        let stopping = |host: &&Host| host.process.as_ref().is_some_and(|process| process.stopping.is_some());
        let late = self.hosts.iter().find(stopping).map(|host| format!("{} does not stop", host.name()));
        let there = self.people.iter().zip(&self.hosts).filter(|(_, host)| !host.absent);
        let mut there = there.map(|(person, _)| person);
        let waiting = late.or_else(|| there.find_map(Person::waits_for));
        let waiting = waiting.or_else(|| self.oracle.waits_for());
        let waiting = waiting.or_else(|| self.waits_for_twins());
        match waiting {
            None => {
                self.done_at = Some(self.now);
                self.tracer.note(self.now, || "everything is delivered".into());
                self.queue.push(self.now + AFTERGLOW, Event::End);
            }
            Some(what) if self.now >= self.scenario.healed + patience => {
                let seconds = patience / MICROS_PER_SECOND;
                self.fail(Check::Liveness, format!("{seconds} s after the last fault: {what}"));
            }
            Some(_) => self.queue.push(self.now + DONE_CHECK, Event::DoneCheck),
        }
    }

    fn end(&mut self) {
        let disks: Vec<_> = self.disks().collect();
        let verdict = self.oracle.finish(&disks);
        self.judged(verdict);
        self.ended = true;
    }

    /// For so long, and until its traces are gone, faults may end sessions.
    pub(crate) fn disturb(&mut self, lasts: u64) {
        self.disturbed = self.disturbed.max(self.now.saturating_add(lasts).saturating_add(ATTEMPT));
    }

    /// A datagram passes the reader on the path.
    pub(crate) fn overhear_datagram(&mut self, bytes: &[u8]) {
        if let Some(found) = self.tap.read(&mut Tail::default(), bytes) {
            let what = format!("the reader on the path found {found}");
            self.fail(Check::Secrecy, what);
        }
    }

    /// The bytes that one end hands to the network pass the reader on the path.
    pub(crate) fn overhear(&mut self, side: crate::queue::Side, bytes: &Bytes) {
        let pipe = &mut self.conns[side.conn].pipes[side.side];
        if let Some(found) = self.tap.read(&mut pipe.tail, bytes) {
            let what = format!("the reader on the path found {found}");
            self.fail(Check::Secrecy, what);
        }
    }

    /// Connections that somebody still knows.
    pub(crate) fn live(&self) -> Vec<usize> {
        (0..self.conns.len()).filter(|conn| !self.conns[*conn].is_over()).collect()
    }

    pub(crate) fn end_state(&self, side: crate::queue::Side) -> EndState {
        self.conns[side.conn].ends[side.side].state
    }
}
