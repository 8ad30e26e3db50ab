//! How two peers can meet, in closed form: from what their boxes are, without a box, a packet or a protocol.

use super::{Class, Filtering, Mapping};

/// How one box treats UDP. None: not at all.
pub type Behaviour = Option<(Mapping, Filtering)>;

/// Whether two peers meet who each send to where a server saw the other, and to where they hear the other from.
///
/// `strict`: on one pair of endpoints, so that each hears from where it sent to, as ICE and QUIC want it. Otherwise two
/// one-way paths count as well.
#[must_use]
pub fn punches(a: Behaviour, b: Behaviour, strict: bool) -> bool {
    let (Some((map_a, filter_a)), Some((map_b, filter_b))) = (a, b) else { return false };
    match (map_a == Mapping::Endpoint, map_b == Mapping::Endpoint) {
        // Both are where the server saw them.
        (true, true) => true,
        // The other comes from a port that nobody could know.
        (true, false) => filter_a != Filtering::AddressPort,
        (false, true) => filter_b != Filtering::AddressPort,
        (false, false) => {
            let one_hears = |anybody: Filtering, address: Filtering| {
                anybody == Filtering::Endpoint && address != Filtering::AddressPort
            };
            let hear = one_hears(filter_a, filter_b) || one_hears(filter_b, filter_a);
            // One pair of endpoints: some side must keep its mapping when the other's port turns out to be another.
            let same = map_a == Mapping::Address || map_b == Mapping::Address;
            hear && (same || !strict)
        }
    }
}

/// The best way for one to reach another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// Send there; it answers.
    Direct,
    /// Let the other do that.
    Reverse,
    /// Both send.
    Punch,
    /// Both send, at first with a TTL that opens the own box and does not reach the other's.
    Opener,
    /// Both send, to ports that are predicted in lock-step.
    Lockstep,
    /// Many ports against the few of a block.
    BlockBirthday,
    /// Many ports against all.
    Birthday,
    /// TCP, both dial.
    SimultaneousOpen,
    /// TCP, direct or reverse; to port 443 if nothing else goes out.
    DirectTcp,
    ReverseTcp,
    Direct443,
    Reverse443,
    Relay,
}

impl Way {
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Direct => "D",
            Self::Reverse => "R",
            Self::Punch => "P",
            Self::Opener => "T",
            Self::Lockstep => "L",
            Self::BlockBirthday => "b",
            Self::Birthday => "B",
            Self::SimultaneousOpen => "S",
            Self::DirectTcp => "Dt",
            Self::ReverseTcp => "Rt",
            Self::Direct443 => "Dt443",
            Self::Reverse443 => "Rt443",
            Self::Relay => "X",
        }
    }

    /// The same without what is not built: prediction, search, and simultaneous open fall back to the relay.
    #[must_use]
    pub const fn without_search(self) -> Self {
        match self {
            Self::Lockstep | Self::BlockBirthday | Self::Birthday | Self::SimultaneousOpen => Self::Relay,
            other => other,
        }
    }
}

/// How the ports of a symmetric box can be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guess {
    Sequence,
    Block,
    All,
}

/// What is known of a class, written down and not looked up in a box.
struct Facts {
    udp: Behaviour,
    /// None: the mapping need not be guessed.
    guess: Option<Guess>,
    /// TCP goes to 80 and 443 alone.
    only_443: bool,
    /// TCP has the same external endpoint for everybody.
    tcp_endpoint: bool,
}

fn facts(class: Class) -> Facts {
    let of = |udp, guess, only_443, tcp_endpoint| Facts { udp, guess, only_443, tcp_endpoint };
    let easy = |filtering| of(Some((Mapping::Endpoint, filtering)), None, false, true);
    let hard = |guess| of(Some((Mapping::AddressPort, Filtering::AddressPort)), Some(guess), false, false);
    match class {
        Class::Open | Class::Cone => easy(Filtering::Endpoint),
        Class::Adf => easy(Filtering::Address),
        Class::Home | Class::Naiv => easy(Filtering::AddressPort),
        Class::Hseq => hard(Guess::Sequence),
        Class::Hblk => hard(Guess::Block),
        Class::Hard => hard(Guess::All),
        Class::Nudp => of(None, None, false, true),
        Class::T443 => of(None, None, true, false),
    }
}

/// How `a` best reaches `b`, if a relay brought them together.
#[must_use]
pub fn expected(a: Class, b: Class) -> Way {
    let (from, to) = (facts(a), facts(b));
    let (Some(behaviour_a), Some(behaviour_b)) = (from.udp, to.udp) else { return over_tcp(a, b) };
    // A mapping that lets everybody in is as good as a public address while it lives.
    let anybody = (Mapping::Endpoint, Filtering::Endpoint);
    if behaviour_b == anybody {
        return Way::Direct;
    }
    if behaviour_a == anybody {
        return Way::Reverse;
    }
    if punches(from.udp, to.udp, true) {
        return if a == Class::Naiv || b == Class::Naiv { Way::Opener } else { Way::Punch };
    }
    match (from.guess, to.guess) {
        (Some(Guess::Sequence), Some(Guess::Sequence) | None) | (None, Some(Guess::Sequence)) => {
            Way::Lockstep
        }
        (Some(Guess::Block), None) | (None, Some(Guess::Block)) => Way::BlockBirthday,
        (Some(Guess::All), None) | (None, Some(Guess::All)) => Way::Birthday,
        _ => Way::Relay,
    }
}

/// Some side has no UDP.
fn over_tcp(a: Class, b: Class) -> Way {
    let (from, to) = (facts(a), facts(b));
    match (a, b) {
        (_, Class::Open) if from.only_443 => Way::Direct443,
        (_, Class::Open) => Way::DirectTcp,
        (Class::Open, _) if to.only_443 => Way::Reverse443,
        (Class::Open, _) => Way::ReverseTcp,
        _ if from.tcp_endpoint && to.tcp_endpoint => Way::SimultaneousOpen,
        _ => Way::Relay,
    }
}
