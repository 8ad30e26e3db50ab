//! What a world is made from: how its network and disks behave, and an explicit list of what happens when. A seed
//! makes one; a test writes one by hand.

use crate::fate::{Dice, Fates, MILLION, Purpose, link};
use crate::limits::{HEALING, HOSTS, MICROS_PER_MILLI, MICROS_PER_SECOND, SHORT_BYTES};
use peerlink_core::limits::BODY_BYTES;

/// Kinds of faults, for the swarm that switches them off and for the count that reports them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Fault {
    Crash,
    PowerLoss,
    BatchLost,
    BatchKept,
    CommitFailed,
    SlowCommit,
    Partition,
    SilentPartition,
    OneWayPartition,
    Clog,
    Reset,
    BlackHole,
    HalfClose,
    DialRefused,
    DialLost,
    AddressChange,
    ClockJump,
    Pause,
    Sleep,
    Restart,
    SmallReads,
    LateTimers,
    RepeatedSend,
}

impl Fault {
    pub const ALL: [Self; 23] = [
        Self::Crash,
        Self::PowerLoss,
        Self::BatchLost,
        Self::BatchKept,
        Self::CommitFailed,
        Self::SlowCommit,
        Self::Partition,
        Self::SilentPartition,
        Self::OneWayPartition,
        Self::Clog,
        Self::Reset,
        Self::BlackHole,
        Self::HalfClose,
        Self::DialRefused,
        Self::DialLost,
        Self::AddressChange,
        Self::ClockJump,
        Self::Pause,
        Self::Sleep,
        Self::Restart,
        Self::SmallReads,
        Self::LateTimers,
        Self::RepeatedSend,
    ];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::PowerLoss => "power-loss",
            Self::BatchLost => "batch-lost",
            Self::BatchKept => "batch-kept",
            Self::CommitFailed => "commit-failed",
            Self::SlowCommit => "slow-commit",
            Self::Partition => "partition",
            Self::SilentPartition => "silent-partition",
            Self::OneWayPartition => "one-way-partition",
            Self::Clog => "clog",
            Self::Reset => "reset",
            Self::BlackHole => "black-hole",
            Self::HalfClose => "half-close",
            Self::DialRefused => "dial-refused",
            Self::DialLost => "dial-lost",
            Self::AddressChange => "address-change",
            Self::ClockJump => "clock-jump",
            Self::Pause => "pause",
            Self::Sleep => "sleep",
            Self::Restart => "restart",
            Self::SmallReads => "small-reads",
            Self::LateTimers => "late-timers",
            Self::RepeatedSend => "repeated-send",
        }
    }
}

/// How often each fault struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts([u64; Fault::ALL.len()]);

impl Counts {
    pub fn add(&mut self, fault: Fault) {
        self.0[fault as usize] += 1;
    }

    pub fn merge(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, more)| *sum += more);
    }

    #[must_use]
    pub fn of(&self, fault: Fault) -> u64 {
        self.0[fault as usize]
    }

    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

/// How a way from one host to another is blocked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Block {
    /// Nothing arrives, nothing is said. TCP goes on when it ends.
    Silent,
    /// As silent, but new connections are told that there is no way.
    Loud,
}

/// Something that happens at a moment of the script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Op {
    /// The host crashes before it carries out its `outputs`-th output from now, and starts again after `down`; if
    /// `writing`, only outputs count while something is not synced. Of the batches that are not synced then, a share
    /// of `kept` parts in a million is there.
    Crash { host: usize, outputs: u32, writing: bool, power: bool, kept: u64, down: u64 },
    /// The next commit of the host fails; it then ends, and starts again after `down`.
    FailCommit { host: usize, kept: u64, down: u64 },
    /// Commits of the host take this long.
    SlowDisk { host: usize, commit: u64, lasts: u64 },
    /// Nothing passes from `from` to `to`; both ways if `both`.
    Partition { from: usize, to: usize, how: Block, both: bool, lasts: u64 },
    /// What is sent from `from` to `to` takes this much longer.
    Clog { from: usize, to: usize, delay: u64, lasts: u64 },
    /// Every connection between the two is reset.
    Reset { a: usize, b: usize },
    /// Every connection that stands between the two swallows all bytes from now on, and says nothing.
    BlackHole { a: usize, b: usize },
    /// Every connection from `from` to `to` ends in one direction, as if `from` had closed its side.
    HalfClose { from: usize, to: usize },
    /// The host gets another address; what stood under the old one is dead, in silence unless `told`.
    Move { host: usize, told: bool },
    /// The wall clock of the host jumps.
    SetWall { host: usize, by_ms: i64 },
    /// The process of the host stands still.
    Pause { host: usize, lasts: u64 },
    /// The machine sleeps: its process stands still, and its clocks are `by` later when it wakes.
    Sleep { host: usize, lasts: u64, by: u64 },
    /// The node is asked to stop in good order, and starts again `down` after it has.
    Restart { host: usize, down: u64 },
    /// A person writes a message of this many bytes.
    Send { host: usize, to: usize, bytes: u32 },
    /// A person blocks a contact, and lets it in again after `lasts`.
    BlockContact { host: usize, contact: usize, lasts: u64 },
}

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
    /// Chances that a dial is refused or lost for no reason.
    pub dial_refused: u64,
    pub dial_lost: u64,
    /// Milliseconds by which each wall clock is wrong.
    pub wall_skew_ms: [u64; HOSTS],
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
            dial_refused: 0,
            dial_lost: 0,
            wall_skew_ms: [0; HOSTS],
        }
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
    /// Whether people rename, mark as read, and change their nicknames.
    pub lively: bool,
    /// Whether people look at their conversations once the faults are over, so that their nodes try at once. Where
    /// nobody looks, the longest backoff passes first.
    pub looking: bool,
    /// The faults end here.
    pub healed: u64,
    pub script: Vec<(u64, Op)>,
    /// Faults of the climate, counted once a world.
    pub climate_faults: Vec<Fault>,
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
            lively: false,
            looking: true,
            healed: 30 * MICROS_PER_SECOND,
            script: Vec::new(),
            climate_faults: Vec::new(),
            #[cfg(peerlink_planted)]
            planted: None,
        }
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
        let calm = Self { hosts: hosts.clamp(2, HOSTS), ..Self::calm(seed) };
        let mut plan = Plan { dice: Dice::new(Fates::new(seed)), scenario: calm };
        plan.people();
        plan.weather();
        if !plan.chance(100_000) {
            plan.faults();
        }
        plan.scenario.script.sort_unstable();
        plan.scenario
    }
}

struct Plan {
    dice: Dice,
    scenario: Scenario,
}

impl Plan {
    fn between(&mut self, low: u64, high: u64) -> u64 {
        self.dice.between(Purpose::Plan, link(0, 0), low, high)
    }

    fn chance(&mut self, per_million: u64) -> bool {
        self.dice.chance(Purpose::Plan, link(0, 0), per_million)
    }

    /// Small values often, large ones now and then: uniform in the exponent.
    fn scaled(&mut self, low: u64, high: u64) -> u64 {
        let (from, to) = (u64::from(low.max(1).ilog2()), u64::from(high.max(1).ilog2()));
        let bits = self.between(from, to);
        self.between(low.max(1 << bits), high.min((2 << bits) - 1).max(low.max(1 << bits)))
    }

    fn host(&mut self) -> usize {
        let most = self.scenario.hosts as u64 - 1;
        self.between(0, most) as usize
    }

    fn two_hosts(&mut self) -> (usize, usize) {
        let a = self.host();
        let b = (a + 1 + self.between(0, self.scenario.hosts as u64 - 2) as usize) % self.scenario.hosts;
        (a, b)
    }

    fn moment(&mut self) -> u64 {
        let healed = self.scenario.healed;
        self.between(0, healed - 1)
    }

    fn people(&mut self) {
        self.scenario.healed = self.between(10, 60) * MICROS_PER_SECOND;
        let most = if self.chance(50_000) { 1500 } else { 100 };
        self.scenario.messages = self.scaled(4, most) as u32;
        self.scenario.long = if self.chance(500_000) { self.scaled(5_000, 300_000) } else { 0 };
        if self.chance(4_000) {
            (self.scenario.flood, self.scenario.messages, self.scenario.long) = (true, 400, MILLION);
            let (host, at) = (self.host(), self.between(1, self.scenario.healed));
            let op = Op::SlowDisk { host, commit: 2 * MICROS_PER_SECOND, lasts: 20 * MICROS_PER_SECOND };
            self.scenario.script.push((at, op));
        }
        self.scenario.lively = self.chance(500_000);
        self.scenario.looking = !self.chance(100_000);
    }

    fn weather(&mut self) {
        let latency = self.scaled(200, 150 * MICROS_PER_MILLI);
        let jitter = self.scaled(1, latency);
        let window = self.scaled(8 * 1024, 256 * 1024).max(self.least_window(latency + jitter)) as usize;
        let segment = self.scaled(1400, 64 * 1024) as usize;
        let commit = self.scaled(100, 10 * MICROS_PER_MILLI);
        self.scenario.climate = Climate { latency, jitter, window, segment, commit, ..Climate::default() };
        for host in 0..HOSTS {
            self.scenario.climate.wall_skew_ms[host] = self.scaled(1, 1 << 36);
        }
    }

    /// What a connection must hold on its way so that everything that people write passes in a third of the time that
    /// it may take after the faults.
    fn least_window(&self, one_way: u64) -> u64 {
        let long = BODY_BYTES as u64 * self.scenario.long / MILLION;
        let volume = u64::from(self.scenario.messages) * (long + 2 * SHORT_BYTES);
        volume * 2 * one_way / (HEALING / 3)
    }

    fn faults(&mut self) {
        let on: Vec<Fault> = Fault::ALL.into_iter().filter(|_| self.chance(MILLION / 2)).collect();
        for fault in on {
            self.fault(fault);
        }
    }

    /// Some of one kind.
    fn fault(&mut self, fault: Fault) {
        let scripted = match fault {
            // What becomes of batches is part of each crash.
            Fault::BatchLost | Fault::BatchKept => return,
            Fault::SmallReads => {
                let least = if self.scenario.flood { 4096 } else { 64 };
                self.scenario.climate.read = self.scaled(1, 1024).max(least) as usize;
                self.scenario.climate_faults.push(fault);
                return;
            }
            Fault::LateTimers => {
                self.scenario.climate.lateness = self.scaled(1, 100 * MICROS_PER_MILLI);
                self.scenario.climate.defer = self.between(0, MILLION / 2);
                self.scenario.climate_faults.push(fault);
                return;
            }
            Fault::DialRefused => {
                self.scenario.climate.dial_refused = self.between(0, MILLION / 3);
                return;
            }
            Fault::DialLost => {
                self.scenario.climate.dial_lost = self.between(0, MILLION / 3);
                return;
            }
            Fault::RepeatedSend => {
                self.scenario.repeat = self.scaled(10_000, MILLION / 3);
                return;
            }
            Fault::Crash
            | Fault::PowerLoss
            | Fault::CommitFailed
            | Fault::SlowCommit
            | Fault::Partition
            | Fault::SilentPartition
            | Fault::OneWayPartition
            | Fault::Clog
            | Fault::Reset
            | Fault::BlackHole
            | Fault::HalfClose
            | Fault::AddressChange
            | Fault::ClockJump
            | Fault::Pause
            | Fault::Sleep
            | Fault::Restart => fault,
        };
        let times = self.scaled(1, 8);
        for _ in 0..times {
            let at = self.moment();
            let op = self.op(scripted);
            self.scenario.script.push((at, op));
        }
    }

    fn op(&mut self, fault: Fault) -> Op {
        let (host, other) = self.two_hosts();
        let kept = self.between(0, MILLION + MILLION / 2).min(MILLION);
        let down = self.scaled(MICROS_PER_MILLI, 20 * MICROS_PER_SECOND);
        let lasts = self.scaled(100 * MICROS_PER_MILLI, 30 * MICROS_PER_SECOND);
        match fault {
            Fault::PowerLoss | Fault::Crash => {
                let outputs = self.scaled(1, 60) as u32;
                let writing = self.chance(MILLION / 2);
                Op::Crash { host, outputs, writing, power: fault == Fault::PowerLoss, kept, down }
            }
            Fault::CommitFailed => Op::FailCommit { host, kept, down },
            Fault::SlowCommit => {
                let commit = self.scaled(10 * MICROS_PER_MILLI, 3 * MICROS_PER_SECOND);
                Op::SlowDisk { host, commit, lasts }
            }
            Fault::Partition => Op::Partition { from: host, to: other, how: Block::Loud, both: true, lasts },
            Fault::SilentPartition => {
                Op::Partition { from: host, to: other, how: Block::Silent, both: true, lasts }
            }
            Fault::OneWayPartition => {
                Op::Partition { from: host, to: other, how: Block::Silent, both: false, lasts }
            }
            Fault::Clog => {
                let delay = self.scaled(100 * MICROS_PER_MILLI, 5 * MICROS_PER_SECOND);
                Op::Clog { from: host, to: other, delay, lasts }
            }
            Fault::Reset => Op::Reset { a: host, b: other },
            Fault::BlackHole => Op::BlackHole { a: host, b: other },
            Fault::HalfClose => Op::HalfClose { from: host, to: other },
            // Only the last host moves: two who moved while apart cannot find each other without a relay.
            Fault::AddressChange => {
                Op::Move { host: self.scenario.hosts - 1, told: self.chance(MILLION / 2) }
            }
            Fault::ClockJump => {
                let by = self.scaled(1, 1 << 36) as i64;
                Op::SetWall { host, by_ms: if self.chance(MILLION / 2) { by } else { -by } }
            }
            Fault::Pause => Op::Pause { host, lasts },
            Fault::Sleep => {
                let by = self.scaled(MICROS_PER_SECOND, 30 * 24 * 3600 * MICROS_PER_SECOND);
                Op::Sleep { host, lasts, by }
            }
            Fault::Restart => Op::Restart { host, down },
            Fault::BatchLost
            | Fault::BatchKept
            | Fault::DialRefused
            | Fault::DialLost
            | Fault::SmallReads
            | Fault::LateTimers
            | Fault::RepeatedSend => Op::Pause { host, lasts: 1 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_one_scenario_and_one_in_ten_has_no_fault() {
        assert_eq!(Scenario::from_seed(5), Scenario::from_seed(5));
        let calm = |scenario: &Scenario| scenario.script.is_empty() && scenario.climate_faults.is_empty();
        let count = (0..1000).filter(|seed| calm(&Scenario::from_seed(*seed))).count();
        assert!((70..140).contains(&count), "{count}");
    }

    #[test]
    fn every_fault_has_its_own_place_in_the_count() {
        for (index, fault) in Fault::ALL.iter().enumerate() {
            assert_eq!(*fault as usize, index);
        }
    }
}
