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
}

#[cfg(peerlink_planted)]
impl Planted {
    pub const ALL: [(&'static str, Self); 4] = [
        ("ack-before-durable", Self::AckBeforeDurable),
        ("dedup-off", Self::DedupOff),
        ("lost-ack-never-repaired", Self::LostAckNeverRepaired),
        ("gap-hides-what-follows", Self::GapHidesWhatFollows),
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
