//! What a world is made from: how its network and disks behave, and an explicit list of what happens when. A seed
//! makes one; a test writes one by hand.

use crate::fault::Fault;
use crate::homes::Home;
use crate::limits::{AIR_HOPS, HOSTS, LINK_MTU, MICROS_PER_MILLI, MICROS_PER_SECOND};
use crate::op::Op;
use crate::plan;

/// How a network and its disks behave when nothing is wrong. Times in microseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Climate {
    /// One way between two hosts: least, and how much more it may be.
    pub latency: u64,
    pub jitter: u64,
    /// Bytes that a connection holds between two nodes, and the largest segment of it.
    pub window: usize,
    pub segment: usize,
    /// Most bytes of one read.
    pub read: usize,
    /// A commit takes at least this long, and at most twice more.
    pub commit: u64,
    /// How late a timer may be.
    pub lateness: u64,
    /// Chance, in parts of a million, that a driver hands in another input before it asks for outputs.
    pub defer: u64,
    /// Parts of a million of the datagrams that are lost, and that come twice.
    pub loss: u64,
    pub doubled: u64,
    /// Routers between two hosts, and the largest packet that they pass on.
    pub hops: u64,
    pub mtu: usize,
    /// Milliseconds by which each wall clock is wrong.
    pub wall_skew_ms: [i64; HOSTS],
    /// Parts of a million by which the clocks of each host are fast, or slow.
    pub drift_ppm: [i64; HOSTS],
}

impl Default for Climate {
    fn default() -> Self {
        Self {
            latency: 20 * MICROS_PER_MILLI,
            jitter: 5 * MICROS_PER_MILLI,
            window: 64 * 1024,
            segment: 16 * 1024,
            read: 64 * 1024,
            commit: MICROS_PER_MILLI,
            lateness: 0,
            defer: 0,
            loss: 0,
            doubled: 0,
            hops: AIR_HOPS,
            mtu: LINK_MTU,
            wall_skew_ms: [0; HOSTS],
            drift_ppm: [0; HOSTS],
        }
    }
}

impl Climate {
    /// The faults that are part of the weather.
    pub(crate) fn faults(&self) -> impl Iterator<Item = Fault> {
        let wrong = |clocks: &[i64]| clocks.iter().any(|by| *by != 0);
        let faults = [
            (Fault::SmallReads, self.read < Self::default().read),
            (Fault::LateTimers, self.lateness > 0 || self.defer > 0),
            (Fault::ClockSkew, wrong(&self.wall_skew_ms)),
            (Fault::ClockDrift, wrong(&self.drift_ppm)),
        ];
        faults.into_iter().filter(|(_, on)| *on).map(|(fault, _)| fault)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scenario {
    pub seed: u64,
    pub hosts: usize,
    pub climate: Climate,
    /// Messages that each person writes of its own accord, and what part of a million of them are long.
    pub messages: u32,
    pub long: u64,
    /// Whether people write faster than a disk can follow.
    pub flood: bool,
    /// Chance that a person sends again what was sent before.
    pub repeat: u64,
    /// What part of a million of the messages are tried for a time only, of some seconds.
    pub expire: u64,
    /// Whether people rename, mark as read, and change their nicknames.
    pub lively: bool,
    /// Whether people look at their conversations once the faults are over, so that their nodes try at once. Where
    /// nobody looks, the longest backoff passes first.
    pub looking: bool,
    /// Whether the hosts send and take datagrams; whether they take streams of each other.
    pub datagrams: bool,
    pub streams: bool,
    /// What each host is behind, and for how many seconds boxes remember where unused datagrams go; 0: as usual.
    pub homes: [Home; HOSTS],
    pub lives: u64,
    /// When people add each other, who then do at once whatever they do; 0: whenever they get round to it. Relays are
    /// there first then.
    pub meets: u64,
    /// Nodes that relay for the people: after them, up to as many as there is room for.
    pub relays: usize,
    /// The faults end here.
    pub healed: u64,
    pub script: Vec<(u64, Op)>,
    #[cfg(peerlink_planted)]
    pub planted: Option<peerlink_core::planted::Planted>,
}

impl Scenario {
    /// Two hosts, good weather, and nothing that happens but first contact.
    #[must_use]
    pub fn calm(seed: u64) -> Self {
        Self {
            seed,
            hosts: 2,
            climate: Climate::default(),
            messages: 0,
            long: 0,
            flood: false,
            repeat: 0,
            expire: 0,
            lively: false,
            looking: true,
            datagrams: false,
            streams: true,
            homes: [Home::Open; HOSTS],
            lives: 0,
            meets: 0,
            relays: 0,
            healed: 30 * MICROS_PER_SECOND,
            script: Vec::new(),
            #[cfg(peerlink_planted)]
            planted: None,
        }
    }

    /// Whether there is a contact in bad faith: beside the hosts, under the next number.
    #[must_use]
    pub fn has_hostile(&self) -> bool {
        self.hosts + self.relays < HOSTS
            && self.script.iter().any(|(_, op)| matches!(op, Op::Mischief { .. }))
    }

    /// Whether a store is rolled back to an older copy of itself.
    #[must_use]
    pub fn rolls_back(&self) -> bool {
        self.script.iter().any(|(_, op)| matches!(op, Op::RollBack { .. }))
    }

    /// Which host gets a second process from a copy of its disk: under the number after all others.
    #[must_use]
    pub fn twin_of(&self) -> Option<usize> {
        let twin = |op: &Op| match op {
            Op::Twin { host } => Some(*host),
            _ => None,
        };
        let twin = self.script.iter().find_map(|(_, op)| twin(op));
        twin.filter(|_| self.relays == 0 && self.hosts < HOSTS && !self.has_hostile() && !self.rolls_back())
    }

    #[must_use]
    pub fn with(mut self, at: u64, op: Op) -> Self {
        self.script.push((at, op));
        self
    }

    /// The swarm: each seed has its own subset of faults switched on, and one in ten has none.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        Self::among(2, seed)
    }

    /// The swarm among so many hosts, 2 to [`HOSTS`].
    #[must_use]
    pub fn among(hosts: usize, seed: u64) -> Self {
        plan::scenario(Self { hosts: hosts.clamp(2, HOSTS), ..Self::calm(seed) })
    }
}
