//! What can happen at a moment of a script, and how each of them is written down: `verb field=value field=value`.

use crate::limits::{HOSTS, RELAYS};
use std::fmt;

/// How a way from one host to another is blocked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Block {
    /// Nothing arrives, nothing is said. TCP goes on when it ends.
    Silent,
    /// As silent, but new connections are told that there is no way.
    Loud,
}

/// What somebody on the way does to bytes that pass. Reading them is no act: that happens to all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attack {
    /// One bit is another.
    Flip,
    /// Some bytes never come.
    Cut,
    /// Some come that nobody sent.
    Inject,
    /// What passed before passes again.
    Replay,
    /// Bytes of an older connection come in this one.
    Splice,
    /// They go back to who sent them as well.
    Reflect,
}

/// What somebody on the way does to a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Touch {
    /// One bit is another.
    Flip,
    /// Its end is missing.
    Cut,
    /// One comes that nobody sent, with a number far ahead.
    Forge,
    /// One that came before comes again, maybe from somewhere else.
    Replay,
    /// It comes from somewhere else, and only then from where it was sent.
    Elsewhere,
    /// It comes late.
    Hold,
    /// Its end is that of another.
    Splice,
    /// It goes back to who sent it as well.
    Reflect,
    /// What began a session comes again, from many addresses.
    Knock,
}

/// What a contact in bad faith does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mischief {
    /// Writes as anybody would.
    Write,
    /// Two entries under one number.
    Fork,
    /// An entry that names another before it than there is.
    BreakChain,
    /// Acknowledges under a wrong hash; or what was never written.
    ClaimWrongHash,
    ClaimTooMuch,
    /// Epochs without end, frames without end, gaps without end.
    Epochs,
    Flood,
    Holes,
    /// Logical times at the edge and beyond it.
    Times,
    /// Sealed bytes that are no frames.
    Noise,
    /// Bodies that never come, or come otherwise than announced.
    Chunks,
    /// Connections that are no handshake.
    Knock,
    /// Comes in the name of another.
    Pose,
    /// Gives back what its author never wrote; says that something is gone.
    GiveBack,
    /// Ends the session, for any reason.
    Leave,
}

/// The people, by the number of their host, and the relays, by numbers that no host has: which hosts they are depends on how
/// many people there are.
pub(crate) const NAMES: [&str; HOSTS + RELAYS] =
    ["alice", "bob", "carol", "dave", "erin", "frank", "relay", "relay2"];

/// What a script calls a relay.
#[must_use]
pub const fn relay(number: usize) -> usize {
    HOSTS + number
}

/// A value of a field, as one word.
pub(crate) trait Word: Sized {
    fn say(&self) -> String;
    fn hear(word: &str) -> Option<Self>;
    /// The host that it names.
    fn host(&self) -> Option<usize> {
        None
    }
    /// Itself, or the number that it has in a world.
    fn placed(self, _place: &impl Fn(usize) -> usize) -> Self {
        self
    }
}

macro_rules! number_words {
    ($($kind:ty),*) => {
        $(impl Word for $kind {
            fn say(&self) -> String {
                self.to_string()
            }

            fn hear(word: &str) -> Option<Self> {
                word.parse().ok()
            }
        })*
    };
}
number_words!(u32, u64, i64);

/// A host.
impl Word for usize {
    fn say(&self) -> String {
        NAMES.get(*self).map_or_else(|| self.to_string(), |name| (*name).to_owned())
    }

    fn hear(word: &str) -> Option<Self> {
        NAMES.iter().position(|name| *name == word)
    }

    fn host(&self) -> Option<usize> {
        Some(*self)
    }

    fn placed(self, place: &impl Fn(usize) -> usize) -> Self {
        place(self)
    }
}

impl Word for bool {
    fn say(&self) -> String {
        (if *self { "yes" } else { "no" }).to_owned()
    }

    fn hear(word: &str) -> Option<Self> {
        match word {
            "yes" => Some(true),
            "no" => Some(false),
            _ => None,
        }
    }
}

/// Closed sets of words.
macro_rules! words {
    ($kind:ident { $($variant:ident = $word:literal),* $(,)? }) => {
        impl Word for $kind {
            fn say(&self) -> String {
                match self {
                    $(Self::$variant => $word.to_owned()),*
                }
            }

            fn hear(word: &str) -> Option<Self> {
                match word {
                    $($word => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}
words!(Block { Silent = "silent", Loud = "loud" });
words!(Mischief {
    Write = "write",
    Fork = "fork",
    BreakChain = "break-chain",
    ClaimWrongHash = "claim-wrong-hash",
    ClaimTooMuch = "claim-too-much",
    Epochs = "epochs",
    Flood = "flood",
    Holes = "holes",
    Times = "times",
    Noise = "noise",
    Chunks = "chunks",
    Knock = "knock",
    Pose = "pose",
    GiveBack = "give-back",
    Leave = "leave",
});
words!(Attack {
    Flip = "flip",
    Cut = "cut",
    Inject = "inject",
    Replay = "replay",
    Splice = "splice",
    Reflect = "reflect",
});

words!(Touch {
    Flip = "flip",
    Cut = "cut",
    Forge = "forge",
    Replay = "replay",
    Elsewhere = "elsewhere",
    Hold = "hold",
    Splice = "splice",
    Reflect = "reflect",
    Knock = "knock",
});

/// The fields of one line, taken one by one.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    words: Vec<(&'a str, &'a str)>,
}

impl<'a> Fields<'a> {
    pub(crate) fn read(words: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let pair = |word: &'a str| word.split_once('=').ok_or(format!("{word} is not field=value"));
        Ok(Self { words: words.map(pair).collect::<Result<_, _>>()? })
    }

    fn take<T: Word>(&mut self, name: &str) -> Result<T, String> {
        let at = self.words.iter().position(|(known, _)| *known == name).ok_or(format!("no {name}="))?;
        let (_, word) = self.words.remove(at);
        T::hear(word).ok_or(format!("{name}={word} is no value of {name}"))
    }

    fn end(&self) -> Result<(), String> {
        self.words.first().map_or(Ok(()), |(name, _)| Err(format!("what is {name}=?")))
    }
}

macro_rules! ops {
    ($($(#[$doc:meta])* $name:ident = $verb:literal { $($field:ident: $kind:ty),* $(,)? })*) => {
        /// Something that happens at a moment of the script. Times are microseconds.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Op {
            $($(#[$doc])* $name { $($field: $kind),* },)*
        }

        impl fmt::Display for Op {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$name { $($field),* } => {
                        f.write_str($verb)?;
                        $(write!(f, concat!(" ", stringify!($field), "={}"), $field.say())?;)*
                        Ok(())
                    })*
                }
            }
        }

        impl Op {
            /// # Errors
            /// What is wrong with the line, for who wrote it.
            pub(crate) fn read(verb: &str, mut fields: Fields<'_>) -> Result<Self, String> {
                let op = match verb {
                    $($verb => Self::$name { $($field: fields.take(stringify!($field))?),* },)*
                    _ => return Err(format!("what is {verb}?")),
                };
                fields.end().map(|()| op)
            }

            /// For how long it goes on, in itself.
            pub(crate) fn lasts(&self) -> u64 {
                match self {
                    $(Self::$name { $($field),* } => {
                        let long = ["lasts", "down", "delay", "by", "commit"];
                        let fields = [$((stringify!($field), $field.say())),*];
                        let lengths = fields.iter().filter(|(name, _)| long.contains(name));
                        lengths.filter_map(|(_, word)| u64::hear(word)).fold(0, u64::saturating_add)
                    })*
                }
            }

            /// Whether every host that it names is one of so many, or one of so many relays.
            pub(crate) fn is_among(&self, hosts: usize, relays: usize) -> bool {
                let there = |host: usize| host < hosts || (HOSTS..HOSTS + relays).contains(&host);
                match self {
                    $(Self::$name { $($field),* } => {
                        [$($field.host()),*].into_iter().flatten().all(there)
                    })*
                }
            }

            /// The same with the numbers that the hosts have in a world.
            pub(crate) fn placed(self, place: &impl Fn(usize) -> usize) -> Self {
                match self {
                    $(Self::$name { $($field),* } => Self::$name { $($field: $field.placed(place)),* },)*
                }
            }

            #[cfg(test)]
            const VERBS: &[&'static str] = &[$($verb),*];
        }
    };
}

ops! {
    /// The host crashes before it carries out its `outputs`-th output from now, and starts again after `down`; if
    /// `writing`, only outputs count while something is not synced. Of the batches that are not synced then, a share
    /// of `kept` parts in a million is there.
    Crash = "crash" { host: usize, outputs: u32, writing: bool, power: bool, kept: u64, down: u64 }
    /// The next commit of the host fails; it then ends, and starts again after `down`.
    FailCommit = "fail-commit" { host: usize, kept: u64, down: u64 }
    /// The power goes in the middle of the next commit of the host; a share of what it held is there.
    CutCommit = "cut-commit" { host: usize, kept: u64, down: u64 }
    /// The disk of the host is full: every commit fails, though the first batches of it may fit, and its node is
    /// started again after `down` each time.
    FullDisk = "full-disk" { host: usize, kept: u64, down: u64, lasts: u64 }
    /// The disk of the host is copied.
    Backup = "backup" { host: usize }
    /// The host loses its disk, and starts `down` later from the newest copy of it.
    RollBack = "roll-back" { host: usize, down: u64 }
    /// A second process starts from a copy of the host's disk, at another address, and the first goes on.
    Twin = "twin" { host: usize }
    /// Commits of the host take this long.
    SlowDisk = "slow-disk" { host: usize, commit: u64, lasts: u64 }
    /// Nothing passes from `from` to `to`; both ways if `both`.
    Partition = "partition" { from: usize, to: usize, how: Block, both: bool, lasts: u64 }
    /// What is sent from `from` to `to` takes this much longer.
    Clog = "clog" { from: usize, to: usize, delay: u64, lasts: u64 }
    /// Every connection between the two is reset.
    Reset = "reset" { a: usize, b: usize }
    /// Every connection that stands between the two swallows all bytes from now on, and says nothing.
    BlackHole = "black-hole" { a: usize, b: usize }
    /// Every connection from `from` to `to` ends in one direction, as if `from` had closed its side.
    HalfClose = "half-close" { from: usize, to: usize }
    /// Somebody on the way from `from` to `to` lets `after` segments pass, and touches the next one. `salt` decides
    /// about what there is to choose.
    Attack = "attack" { from: usize, to: usize, how: Attack, after: u32, salt: u64 }
    /// Of the datagrams from `from` to `to` a share of so many parts in a million is lost, or comes twice; or each takes
    /// up to `by` longer than others.
    LosePackets = "lose-packets" { from: usize, to: usize, share: u64, lasts: u64 }
    DoublePackets = "double-packets" { from: usize, to: usize, share: u64, lasts: u64 }
    ScatterPackets = "scatter-packets" { from: usize, to: usize, by: u64, lasts: u64 }
    /// Somebody on the way from `from` to `to` lets `after` datagrams pass, and touches the next one that it can be done
    /// to. `salt` decides about what there is to choose.
    TouchPacket = "touch-packet" { from: usize, to: usize, how: Touch, after: u32, salt: u64 }
    /// Something on the way of the host gives its datagrams another address, and what comes to the old one is lost.
    Rebind = "rebind" { host: usize }
    /// The contact in bad faith does something to `to`. There is one if the script has a deed of it.
    Mischief = "mischief" { to: usize, how: Mischief, salt: u64 }
    /// So many of the next dials from `from` to `to` vanish; or are refused, although somebody is there.
    LoseDials = "lose-dials" { from: usize, to: usize, dials: u32 }
    RefuseDials = "refuse-dials" { from: usize, to: usize, dials: u32 }
    /// The host gets another address; what stood under the old one is dead, in silence unless `told`.
    Move = "move" { host: usize, told: bool }
    /// The wall clock of the host jumps by so many milliseconds.
    SetWall = "set-wall" { host: usize, by_ms: i64 }
    /// The process of the host stands still.
    Pause = "pause" { host: usize, lasts: u64 }
    /// The machine sleeps: its process stands still, and its clocks are `by` later when it wakes.
    Sleep = "sleep" { host: usize, lasts: u64, by: u64 }
    /// The node is asked to stop in good order, and starts again `down` after it has.
    Restart = "restart" { host: usize, down: u64 }
    /// A person writes a message of this many bytes.
    Send = "send" { host: usize, to: usize, bytes: u32 }
    /// A person takes back a message to a contact: of those that were queued the one that is so many before the newest.
    Cancel = "cancel" { host: usize, to: usize, back: u32 }
    /// A person deletes a message on its own device, counted like that: one that it wrote, or one that came.
    Delete = "delete" { host: usize, with: usize, own: bool, back: u32 }
    /// A person deletes everything that it has of a conversation.
    DeleteConversation = "delete-conversation" { host: usize, with: usize }
    /// A person has another home relay from now on.
    UseRelay = "use-relay" { host: usize, relay: usize }
    /// A person blocks a contact, and lets it in again after `lasts`.
    BlockContact = "block" { host: usize, contact: usize, lasts: u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Op, String> {
        let mut words = line.split(' ');
        Op::read(words.next().unwrap(), Fields::read(words)?)
    }

    #[test]
    fn a_line_reads_back_and_a_mistake_is_named() {
        let op = Op::Partition { from: 1, to: 0, how: Block::Loud, both: true, lasts: 5 };
        assert_eq!(op.to_string(), "partition from=bob to=alice how=loud both=yes lasts=5");
        assert_eq!(read(&op.to_string()), Ok(op));
        let wrong = [
            ("partition from=bob to=alice how=loud both=yes", "no lasts="),
            ("reset a=bob b=eve", "b=eve is no value of b"),
            ("reset a=bob b=alice c=carol", "what is c=?"),
            ("explode a=bob", "what is explode?"),
            ("reset bob", "bob is not field=value"),
        ];
        for (line, why) in wrong {
            assert_eq!(read(line), Err(why.to_owned()));
        }
        assert!(Op::VERBS.len() > 10);
    }
}
