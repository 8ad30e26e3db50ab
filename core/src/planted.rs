//! Bugs that are planted on purpose, so that the checkers can be shown to fail. They exist only in builds with
//! `--cfg peerlink_planted`; elsewhere `planted!` is `false` and nothing of them, not even a name, is compiled.

/// Which bug a node has. Chosen at run time, by name.
#[cfg(peerlink_planted)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    AckBeforeDurable,
    DedupOff,
    LostAckNeverRepaired,
    GapHidesWhatFollows,
    /// An entry is on the wire before it is durable: a crash, and its number names another.
    OfferedBeforeDurable,
    QueuedBeforeDurable,
    ShownBeforeDurable,
    DeliveredBeforeStored,
    ContactBeforeDurable,
    ArrivalSkipped,
    UnboundedQueue,
    /// A commit that failed is taken for one that did not.
    FailedCommitBelieved,
    /// What fell due while the machine slept never happens.
    TimerLostAfterSleep,
    NonceReused,
    MacIgnored,
    PlaintextOnTheWire,
    CertificateIgnored,
    /// While a session stands, even a dead one, its peer may not begin another.
    NewerHandshakeRefused,
    /// What comes authentic from an address is answered there, whoever receives there.
    PathBelieved,
    /// A packet counts as seen before it proved to be the peer's.
    WindowMovedByForged,
    /// A part that was in a lost packet is not sent again.
    LostPartForgotten,
    /// Whoever begins a session is answered, however many do.
    CookieNeverAsked,
    /// What is sent again under the same id is another message.
    CallerForgotten,
    StoppedBeforeDurable,
    EvidenceLostAtStart,
    WrittenBeforeTaken,
    /// It wants to be woken for what is not due.
    AwakeForNothing,
    EvidenceRegresses,
    AcknowledgedByNumber,
    ClaimWithoutTagBelieved,
    /// What was written before a rollback was noticed is not issued again.
    RollbackOvertaken,
    RestoredShownAsNew,
    /// Somebody else writes in the name of this profile, and the user does not hear of it.
    SecondCopyUnnamed,
    EpochsWithoutEnd,
    /// What is proven to be delivered expires all the same.
    ExpiredThoughDelivered,
    /// More is offered than the peer takes.
    CreditIgnored,
    /// Taken back for certain, although the peer has not said what it has.
    TakenBackUnheard,
    /// What is taken back leaves no header.
    TombstoneForgotten,
    /// The header goes that proves a feed to who lost it.
    HeadDeleted,
    /// A conversation that is deleted takes what came later with it.
    DeletedTooMuch,
    /// What was to expire is not looked for after a start.
    ExpiryForgotten,
    /// A body that a session had begun stays when the session ends.
    ChunkKept,
}

#[cfg(peerlink_planted)]
impl Planted {
    pub const ALL: [(&'static str, Self); 42] = [
        ("ack-before-durable", Self::AckBeforeDurable),
        ("dedup-off", Self::DedupOff),
        ("lost-ack-never-repaired", Self::LostAckNeverRepaired),
        ("gap-hides-what-follows", Self::GapHidesWhatFollows),
        ("offered-before-durable", Self::OfferedBeforeDurable),
        ("queued-before-durable", Self::QueuedBeforeDurable),
        ("shown-before-durable", Self::ShownBeforeDurable),
        ("delivered-before-stored", Self::DeliveredBeforeStored),
        ("contact-before-durable", Self::ContactBeforeDurable),
        ("arrival-skipped", Self::ArrivalSkipped),
        ("unbounded-queue", Self::UnboundedQueue),
        ("failed-commit-believed", Self::FailedCommitBelieved),
        ("timer-lost-after-sleep", Self::TimerLostAfterSleep),
        ("nonce-reused", Self::NonceReused),
        ("mac-ignored", Self::MacIgnored),
        ("plaintext-on-the-wire", Self::PlaintextOnTheWire),
        ("certificate-ignored", Self::CertificateIgnored),
        ("newer-handshake-refused", Self::NewerHandshakeRefused),
        ("path-believed", Self::PathBelieved),
        ("window-moved-by-forged", Self::WindowMovedByForged),
        ("lost-part-forgotten", Self::LostPartForgotten),
        ("cookie-never-asked", Self::CookieNeverAsked),
        ("caller-forgotten", Self::CallerForgotten),
        ("stopped-before-durable", Self::StoppedBeforeDurable),
        ("evidence-lost-at-start", Self::EvidenceLostAtStart),
        ("written-before-taken", Self::WrittenBeforeTaken),
        ("awake-for-nothing", Self::AwakeForNothing),
        ("evidence-regresses", Self::EvidenceRegresses),
        ("acknowledged-by-number", Self::AcknowledgedByNumber),
        ("claim-without-tag-believed", Self::ClaimWithoutTagBelieved),
        ("rollback-overtaken", Self::RollbackOvertaken),
        ("restored-shown-as-new", Self::RestoredShownAsNew),
        ("second-copy-unnamed", Self::SecondCopyUnnamed),
        ("epochs-without-end", Self::EpochsWithoutEnd),
        ("expired-though-delivered", Self::ExpiredThoughDelivered),
        ("credit-ignored", Self::CreditIgnored),
        ("taken-back-unheard", Self::TakenBackUnheard),
        ("tombstone-forgotten", Self::TombstoneForgotten),
        ("head-deleted", Self::HeadDeleted),
        ("deleted-too-much", Self::DeletedTooMuch),
        ("expiry-forgotten", Self::ExpiryForgotten),
        ("chunk-kept", Self::ChunkKept),
    ];

    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, bug)| *bug)
    }
}

/// Whether `$bug` is planted in the node that `$holder.planted` belongs to.
#[cfg(peerlink_planted)]
macro_rules! planted {
    ($holder:expr, $bug:ident) => {
        $holder.planted == Some($crate::planted::Planted::$bug)
    };
}

#[cfg(not(peerlink_planted))]
macro_rules! planted {
    ($holder:expr, $bug:ident) => {
        false
    };
}

pub(crate) use planted;
