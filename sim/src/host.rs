//! A host: a disk, clocks, an address, and the process that runs a node on it, if it runs.

use crate::disk::{Backup, Disk};
use crate::fate::MILLION;
use crate::homes::Home;
use crate::hostile::Hostile;
use crate::op::{NAMES, relay};
use crate::queue::{Event, Side};
use crate::scenario::Climate;
use peerlink_core::Node;
use peerlink_core::api::{Input, KeyRange, Output};
use peerlink_core::identity::{Identity, IdentitySecret};
use peerlink_core::ids::{BatchId, LoadId, PeerId, StreamId};
use peerlink_core::time::{Instant, WallClock};
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// What everybody's wall clock says at the start of the world, before its own error.
const EPOCH_MS: u64 = 1_795_000_000_000;
/// The port of every listener.
const PORT: u16 = 4711;
/// But for relays: one that is let out of every network.
const RELAY_PORT: u16 = 443;

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Its kernel lives on and ends its connections.
    Killed,
    /// Nothing lives on.
    PowerLoss,
    /// As killed, by itself, because its store failed.
    Failed,
    /// In good order, after everything was said.
    Stopped,
}

/// How a crash was ordered, and how many outputs are carried out before it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Doom {
    pub(crate) outputs: u32,
    /// Count only while something is not synced.
    pub(crate) writing: bool,
    pub(crate) ending: Ending,
    pub(crate) kept: u64,
    pub(crate) down: u64,
}

#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) index: usize,
    /// No node runs here, but a contact in bad faith.
    pub(crate) is_hostile: bool,
    /// A node that relays, and nobody who writes. Which one.
    pub(crate) relays: Option<usize>,
    /// The home relays of its person, and whether its node was told of them in this run.
    pub(crate) uses: Vec<usize>,
    pub(crate) told_relays: bool,
    /// It is a second process of the profile of this host.
    pub(crate) twin_of: Option<usize>,
    /// It is not there yet.
    pub(crate) absent: bool,
    pub(crate) secret: IdentitySecret,
    pub(crate) peer: PeerId,
    pub(crate) disk: Disk,
    pub(crate) backup: Option<Backup>,
    pub(crate) process: Option<Process>,
    pub(crate) incarnation: u32,
    /// The machine is off: not even its kernel answers.
    pub(crate) off: bool,
    /// What it is behind, which decides about its address.
    pub(crate) home: Home,
    /// How often it moved: part of its address.
    pub(crate) moves: u8,
    /// How often something on its way gave its datagrams another address: part of where they seem to come from.
    pub(crate) rebinds: u16,
    /// What the wall clock is wrong by, in milliseconds, and what part of a million both clocks are fast.
    pub(crate) wall_error: i64,
    /// How many milliseconds it slept more than the world did, and whether its wall clock was ever set.
    pub(crate) slept_ms: u64,
    pub(crate) was_set: bool,
    /// When it last was not in good order: not running, standing still, or with a disk that was slow.
    pub(crate) troubled: u64,
    pub(crate) drift_ppm: i64,
    pub(crate) paused_until: u64,
    /// What is for its process, and waits until it goes on.
    pub(crate) held: Vec<Event>,
    pub(crate) doom: Option<Doom>,
    /// The next commit fails, keeping this share of what it held.
    pub(crate) failing: Option<(u64, u64)>,
    /// The power goes in the middle of the next commit, which keeps this share of what it held.
    pub(crate) cutting: Option<(u64, u64)>,
    /// Since when the disk is full, what share of a commit fits, and how long the node is then down.
    pub(crate) full: Option<(u64, u64, u64)>,
    /// Since when, and how long commits take while the disk is slow.
    pub(crate) slow: Option<(u64, u64)>,
}

/// Who answers to a driver: a node, or somebody who behaves like one.
#[derive(Debug)]
pub(crate) enum Mind {
    Node(Box<Node>),
    Hostile(Box<Hostile>),
}

impl Mind {
    pub(crate) fn handle(&mut self, now: Instant, input: &Input<'_>) {
        match self {
            Self::Node(node) => node.handle(now, input.clone()),
            Self::Hostile(hostile) => hostile.handle(now, input),
        }
    }

    pub(crate) fn poll(&mut self) -> Option<Output> {
        match self {
            Self::Node(node) => node.poll(),
            Self::Hostile(hostile) => hostile.poll(),
        }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Node(node) => node.deadline(),
            Self::Hostile(hostile) => hostile.deadline(),
        }
    }

    pub(crate) fn read_budget(&self, stream: StreamId) -> usize {
        match self {
            Self::Node(node) => node.read_budget(stream),
            Self::Hostile(hostile) => hostile.read_budget(stream),
        }
    }

    pub(crate) fn node(&mut self) -> Option<&mut Node> {
        match self {
            Self::Node(node) => Some(node),
            Self::Hostile(_) => None,
        }
    }

    pub(crate) fn hostile(&mut self) -> Option<&mut Hostile> {
        match self {
            Self::Node(_) => None,
            Self::Hostile(hostile) => Some(hostile),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) mind: Mind,
    pub(crate) boot: u64,
    pub(crate) base: u64,
    drift_ppm: i64,
    /// It was asked to stop: how long it will then be down.
    pub(crate) stopping: Option<u64>,
    pub(crate) next_accept: u64,
    pub(crate) socks: BTreeMap<StreamId, Side>,
    pub(crate) committing: bool,
    /// The newest batch that the node gave, that is synced, and that it was told of.
    pub(crate) given: BatchId,
    pub(crate) synced: BatchId,
    pub(crate) told: BatchId,
    pub(crate) loads: VecDeque<(LoadId, KeyRange, BatchId)>,
    pub(crate) open_loads: BTreeMap<LoadId, KeyRange>,
    pub(crate) last_dial: u64,
    pub(crate) deferred: bool,
    /// Entries that came a second time, as its node counts them.
    pub(crate) duplicates: u64,
    /// What of others it could not believe.
    pub(crate) doubted: u64,
    /// When the timer that is set will fire.
    pub(crate) armed: Option<u64>,
    pub(crate) generation: u64,
    pub(crate) ticked: bool,
    /// Ticks that brought nothing, and when.
    pub(crate) idle: (u64, u32),
    /// A commit failed, and how long the host is down for it; whether the node was told.
    pub(crate) store_failed: Option<u64>,
    pub(crate) told_failed: bool,
}

impl Process {
    pub(crate) fn new(mind: Mind, boot: u64, base: u64, drift_ppm: i64) -> Self {
        Self {
            mind,
            boot,
            base,
            drift_ppm,
            stopping: None,
            next_accept: 1,
            socks: BTreeMap::new(),
            committing: false,
            given: BatchId(0),
            synced: BatchId(0),
            told: BatchId(0),
            loads: VecDeque::new(),
            open_loads: BTreeMap::new(),
            last_dial: 0,
            deferred: false,
            duplicates: 0,
            doubted: 0,
            armed: None,
            generation: 0,
            ticked: false,
            idle: (0, 0),
            store_failed: None,
            told_failed: false,
        }
    }

    /// The monotonic clock of this run.
    pub(crate) fn clock(&self, now: u64) -> Instant {
        Instant::from_micros(drifted(now - self.boot, self.drift_ppm) + self.base)
    }

    /// When in the world's time this clock will show `at`.
    pub(crate) fn when(&self, at: Instant) -> u64 {
        let shown = at.as_micros().saturating_sub(self.base);
        let rate = MILLION.saturating_add_signed(self.drift_ppm);
        let mut passed = (u128::from(shown) * u128::from(MILLION) / u128::from(rate)) as u64;
        // Rounding down twice may miss it by one.
        while drifted(passed, self.drift_ppm) < shown {
            passed += 1;
        }
        passed.saturating_add(self.boot)
    }
}

impl Host {
    pub(crate) fn new(index: usize, seed: [u8; 32], climate: &Climate) -> Option<Self> {
        Self::of(index, IdentitySecret::new(seed)?, climate)
    }

    /// A second process of this profile, which is not there yet.
    pub(crate) fn twin(index: usize, of: usize, secret: IdentitySecret, climate: &Climate) -> Option<Self> {
        Some(Self { twin_of: Some(of), absent: true, ..Self::of(index, secret, climate)? })
    }

    fn of(index: usize, secret: IdentitySecret, climate: &Climate) -> Option<Self> {
        let peer = Identity::new(&secret)?.peer();
        Some(Self {
            index,
            is_hostile: false,
            relays: None,
            uses: Vec::new(),
            told_relays: false,
            twin_of: None,
            absent: false,
            secret,
            peer,
            disk: Disk::new(),
            backup: None,
            process: None,
            incarnation: 0,
            off: false,
            home: Home::Open,
            moves: 0,
            rebinds: 0,
            wall_error: climate.wall_skew_ms.get(index).copied().unwrap_or(0),
            drift_ppm: climate.drift_ppm.get(index).copied().unwrap_or(0),
            slept_ms: 0,
            was_set: false,
            troubled: 0,
            paused_until: 0,
            held: Vec::new(),
            doom: None,
            failing: None,
            cutting: None,
            full: None,
            slow: None,
        })
    }

    pub(crate) fn name(&self) -> &'static str {
        let index = self.relays.map_or(self.index, relay);
        match self.twin_of {
            _ if self.is_hostile => "mallory",
            Some(_) => "twin",
            None => NAMES.get(index).copied().unwrap_or("nobody"),
        }
    }

    pub(crate) fn wall(&self, now: u64) -> WallClock {
        let right = EPOCH_MS + drifted(now, self.drift_ppm) / 1000;
        WallClock(right.saturating_add_signed(self.wall_error))
    }

    /// How many milliseconds passed in its life, on or off, by a clock that nobody sets.
    pub(crate) fn lived_ms(&self, now: u64) -> u64 {
        drifted(now, self.drift_ppm) / 1000 + self.slept_ms
    }

    pub(crate) fn address(&self) -> SocketAddr {
        let here = address(self.index, self.moves);
        match (self.home, here.ip()) {
            // A private network, and its neighbour's.
            (Home::Beside, IpAddr::V4(ip)) => inside(ip, self.index.saturating_sub(1), 100),
            (home, IpAddr::V4(ip)) if home.is_translated() => inside(ip, self.index, 0),
            _ if self.relays.is_some() || self.home == Home::Open443 => {
                SocketAddr::new(here.ip(), RELAY_PORT)
            }
            _ => here,
        }
    }

    /// Where its datagrams come from, as others see it, and where they reach it.
    pub(crate) fn socket(&self) -> SocketAddr {
        let address = self.address();
        SocketAddr::new(address.ip(), address.port().saturating_add(self.rebinds))
    }

    pub(crate) fn is_up(&self) -> bool {
        self.process.is_some()
    }
}

/// What a clock that is fast by so many parts of a million shows after `passed`.
fn drifted(passed: u64, drift_ppm: i64) -> u64 {
    let rate = MILLION.saturating_add_signed(drift_ppm);
    (u128::from(passed) * u128::from(rate) / u128::from(MILLION)) as u64
}

/// A public address for each host and each place it moves to.
fn address(index: usize, moves: u8) -> SocketAddr {
    let third = u8::try_from(index).unwrap_or(u8::MAX);
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(5, 9, third, 10u8.saturating_add(moves))), PORT)
}

/// An address in the private network of a host.
fn inside(public: Ipv4Addr, network: usize, more: u8) -> SocketAddr {
    let [.., last] = public.octets();
    let network = u8::try_from(network).unwrap_or(u8::MAX);
    SocketAddr::from(([10, 9, network, last.saturating_add(more)], PORT))
}

/// Where a dial of host `index` seems to come from.
pub(crate) fn source_of(host: &Host, conn: usize) -> SocketAddr {
    let port = 20_000 + u16::try_from(conn % 40_000).unwrap_or(0);
    SocketAddr::new(host.address().ip(), port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_drifts_shows_what_it_is_asked_for_at_the_first_moment() {
        for drift_ppm in [-500i64, -1, 0, 3, 499] {
            let node = || {
                let secret = IdentitySecret::new([7; 32]).unwrap();
                let restore = peerlink_core::Restore::new(peerlink_core::Config::default(), &secret, [1; 32]);
                Mind::Node(Box::new(restore.start(Instant::from_micros(0), WallClock(0)).unwrap()))
            };
            let process = Process::new(node(), 77, 1000, drift_ppm);
            for shown in [1000, 1001, 4999, 1_000_003, 86_400_000_017] {
                let when = process.when(Instant::from_micros(shown));
                assert!(process.clock(when).as_micros() >= shown);
                assert!(when == 77 || process.clock(when - 1).as_micros() < shown, "{drift_ppm} {shown}");
            }
        }
    }
}
