//! Kinds of faults: the swarm switches them on by kind, and the report counts by kind how often each struck.

use crate::op::{Mischief, Touch};

/// One kind of fault, or of a hostile contact's deeds.
macro_rules! faults {
    ($($(#[$doc:meta])* $kind:ident = $name:literal),* $(,)?) => {
        /// Kinds of faults.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Fault {
            $($(#[$doc])* $kind),*
        }

        impl Fault {
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$kind),*];

            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name),*
                }
            }
        }
    };
}

faults! {
    // Processes.
    Crash = "crash",
    PowerLoss = "power-loss",
    Pause = "pause",
    Sleep = "sleep",
    /// Two days or longer.
    LongSleep = "long-sleep",
    Restart = "restart",
    // Disks.
    /// What was not synced at the end of a process, and is gone or there.
    BatchLost = "batch-lost",
    BatchKept = "batch-kept",
    /// A commit failed: nothing of it is there at the next start, or all of it is, or its first batches are.
    CommitFailed = "commit-failed",
    CommitFailedKept = "commit-failed-kept",
    CommitTorn = "commit-torn",
    /// The power went in the middle of a commit.
    CommitCut = "commit-cut",
    SlowCommit = "slow-commit",
    FullDisk = "full-disk",
    /// A store is an older copy of itself.
    RolledBack = "rolled-back",
    /// A profile runs twice, each from a disk of its own.
    Twin = "twin",
    // The network.
    Partition = "partition",
    SilentPartition = "silent-partition",
    OneWayPartition = "one-way-partition",
    Clog = "clog",
    Reset = "reset",
    BlackHole = "black-hole",
    HalfClose = "half-close",
    DialRefused = "dial-refused",
    DialLost = "dial-lost",
    AddressChange = "address-change",
    SmallReads = "small-reads",
    // Somebody on the way.
    BitFlipped = "bit-flipped",
    BytesCut = "bytes-cut",
    BytesInjected = "bytes-injected",
    BytesReplayed = "bytes-replayed",
    BytesSpliced = "bytes-spliced",
    BytesReflected = "bytes-reflected",
    // Datagrams.
    PacketLost = "packet-lost",
    /// Nothing arrives in one direction.
    PacketHole = "packet-hole",
    PacketDoubled = "packet-doubled",
    PacketScattered = "packet-scattered",
    /// Others see a host at another address in the middle of a session.
    Rebound = "rebound",
    PacketFlipped = "packet-flipped",
    PacketCut = "packet-cut",
    PacketForged = "packet-forged",
    PacketReplayed = "packet-replayed",
    PacketFromElsewhere = "packet-from-elsewhere",
    PacketHeld = "packet-held",
    PacketSpliced = "packet-spliced",
    PacketReflected = "packet-reflected",
    Knocked = "knocked",
    // Relays.
    RelayDied = "relay-died",
    /// Nothing passes between a relay and somebody whom it serves, and nobody is told.
    RelayCutOff = "relay-cut-off",
    /// What a relay passes on is late, or lost in part.
    RelayLate = "relay-late",
    HomeRelayChanged = "home-relay-changed",
    // A contact in bad faith, and what it does.
    HostileWrites = "hostile-writes",
    HostileForks = "hostile-forks",
    HostileBreaksChain = "hostile-breaks-chain",
    HostileClaimsWrongHash = "hostile-claims-wrong-hash",
    HostileClaimsTooMuch = "hostile-claims-too-much",
    HostileEpochs = "hostile-epochs",
    HostileFloods = "hostile-floods",
    HostileHoles = "hostile-holes",
    HostileTimes = "hostile-times",
    HostileNoise = "hostile-noise",
    HostileChunks = "hostile-chunks",
    HostileKnocks = "hostile-knocks",
    HostilePoses = "hostile-poses",
    HostileGivesBack = "hostile-gives-back",
    HostileLeaves = "hostile-leaves",
    // Clocks.
    ClockSkew = "clock-skew",
    ClockDrift = "clock-drift",
    ClockJump = "clock-jump",
    LateTimers = "late-timers",
    // People.
    RepeatedSend = "repeated-send",
    /// What they think better of.
    TakenBack = "taken-back",
    Deleted = "deleted",
    ConversationDeleted = "conversation-deleted",
    /// A message is given a time after which it is not tried any more.
    Expiring = "expiring",
}

impl Fault {
    /// Those that the swarm draws apart from the others.
    pub(crate) const REGRETS: [Self; 3] = [Self::TakenBack, Self::Deleted, Self::ConversationDeleted];

    /// Whether what is drawn of it takes nothing from what was drawn before there was such a fault.
    pub(crate) fn is_drawn_apart(self) -> bool {
        matches!(self, Self::Expiring | Self::Twin)
            || Self::REGRETS.contains(&self)
            || Self::AIR.contains(&self)
            || Self::RELAYS.contains(&self)
    }
}

impl Mischief {
    pub(crate) const ALL: [(Self, Fault); 15] = [
        (Self::Write, Fault::HostileWrites),
        (Self::Fork, Fault::HostileForks),
        (Self::BreakChain, Fault::HostileBreaksChain),
        (Self::ClaimWrongHash, Fault::HostileClaimsWrongHash),
        (Self::ClaimTooMuch, Fault::HostileClaimsTooMuch),
        (Self::Epochs, Fault::HostileEpochs),
        (Self::Flood, Fault::HostileFloods),
        (Self::Holes, Fault::HostileHoles),
        (Self::Times, Fault::HostileTimes),
        (Self::Noise, Fault::HostileNoise),
        (Self::Chunks, Fault::HostileChunks),
        (Self::Knock, Fault::HostileKnocks),
        (Self::Pose, Fault::HostilePoses),
        (Self::GiveBack, Fault::HostileGivesBack),
        (Self::Leave, Fault::HostileLeaves),
    ];

    /// The kind of fault that it is counted as.
    pub(crate) fn fault(self) -> Fault {
        Self::ALL.iter().find(|(deed, _)| *deed == self).map_or(Fault::HostileWrites, |(_, fault)| *fault)
    }
}

impl Touch {
    pub(crate) const ALL: [(Self, Fault); 9] = [
        (Self::Flip, Fault::PacketFlipped),
        (Self::Cut, Fault::PacketCut),
        (Self::Forge, Fault::PacketForged),
        (Self::Replay, Fault::PacketReplayed),
        (Self::Elsewhere, Fault::PacketFromElsewhere),
        (Self::Hold, Fault::PacketHeld),
        (Self::Splice, Fault::PacketSpliced),
        (Self::Reflect, Fault::PacketReflected),
        (Self::Knock, Fault::Knocked),
    ];
}

impl Fault {
    /// Those of datagrams.
    pub(crate) const AIR: [Self; 14] = [
        Self::PacketLost,
        Self::PacketHole,
        Self::PacketDoubled,
        Self::PacketScattered,
        Self::Rebound,
        Self::PacketFlipped,
        Self::PacketCut,
        Self::PacketForged,
        Self::PacketReplayed,
        Self::PacketFromElsewhere,
        Self::PacketHeld,
        Self::PacketSpliced,
        Self::PacketReflected,
        Self::Knocked,
    ];
}

impl Fault {
    /// Those of relays.
    pub(crate) const RELAYS: [Self; 4] =
        [Self::RelayDied, Self::RelayCutOff, Self::RelayLate, Self::HomeRelayChanged];
}

/// How often each fault struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts([u64; Fault::ALL.len()]);

impl Default for Counts {
    fn default() -> Self {
        Self([0; Fault::ALL.len()])
    }
}

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

    /// Kinds that never struck.
    pub fn idle(&self) -> impl Iterator<Item = Fault> + '_ {
        Fault::ALL.into_iter().filter(|fault| self.of(*fault) == 0)
    }
}
