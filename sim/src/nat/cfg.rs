//! How a box behaves, and the behaviours that have a name.

use crate::limits::{MAPPINGS_PER_HOST, PORT_BLOCK};
use peerlink_core::time::Duration;

/// Which remote endpoints share one external port (RFC 4787, section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mapping {
    /// All: endpoint-independent (EIM).
    Endpoint,
    /// Those of one address (ADM).
    Address,
    /// None: each remote address and port has its own (APDM, "symmetric").
    AddressPort,
}

/// From where a mapping lets packets in (RFC 4787, section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Filtering {
    /// From anywhere: endpoint-independent (EIF).
    Endpoint,
    /// From addresses that were sent to (ADF).
    Address,
    /// From addresses and ports that were sent to (APDF).
    AddressPort,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Passes everything and knows nothing.
    Router,
    /// Lets in what was asked for from inside; addresses stay (RFC 6092).
    Firewall,
    Nat,
}

/// What becomes of a port that should be preserved and is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clash {
    Random,
    /// The next free one above.
    Next,
}

/// How external ports are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ports {
    /// The port of the inside endpoint.
    Preserving(Clash),
    /// The last one plus this.
    Sequential(u16),
    /// Random, among so many adjacent ones that belong to one inside host (RFC 6888, RFC 7422).
    Block(u16),
    /// Random among all.
    Random,
}

/// Which external address, if there are several (RFC 4787, REQ-2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// One inside host always has the same.
    Paired,
    Arbitrary,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hairpin {
    No,
    /// As REQ-9 of RFC 4787 wants it: the packet comes from the sender's external endpoint.
    ExternalSource,
    /// The sender's inside endpoint is left in.
    InternalSource,
}

/// What becomes of packets from outside that nobody asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsolicited {
    Drop,
    /// An ICMP error.
    Icmp,
    /// A reset for TCP, an ICMP error for UDP.
    Reset,
    /// As [`Self::Reset`], and the box remembers a flow between the sender and itself. While that lives, no mapping can
    /// use this external port to this remote endpoint: the next packet from inside gets another port, and so does
    /// everybody from then on who was not sent to before. It is what a Linux router does whose own input chain accepts
    /// packets from the internet.
    ConfirmLocal,
}

/// What may go out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Policy {
    Allow,
    /// Nothing, in silence, in both directions.
    Block,
    /// Nothing, and the sender inside is told.
    Reject,
    /// To these remote ports alone.
    Only(Vec<u16>),
}

/// How long a flow lives after the last packet that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    pub udp_new: Duration,
    /// Of a UDP flow with packets both ways that is older than `udp_stream_after`.
    pub udp_stream: Duration,
    pub udp_stream_after: Duration,
    pub tcp_established: Duration,
    /// Of a connection that is opening or closing.
    pub tcp_transitory: Duration,
    /// A mapping ends at this age, used or not.
    pub absolute: Option<Duration>,
}

/// Whose packets prolong the life of a flow (RFC 4787, REQ-6). The first one outward always begins one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refresh {
    pub out: bool,
    pub inward: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpRules {
    pub filtering: Filtering,
    /// A SYN from where a SYN was sent to passes (RFC 5382, REQ-2).
    pub simultaneous_open: bool,
    /// Data from inside without a connection begins one, as after a reboot of the box.
    pub picks_up: bool,
}

/// The behaviour of one box for one family of addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatCfg {
    pub kind: Kind,
    pub mapping: Mapping,
    /// Of UDP; that of TCP is in `tcp_rules`.
    pub filtering: Filtering,
    pub ports: Ports,
    /// Whether two inside hosts may have one external port, as long as they talk to different remote endpoints.
    pub overload: bool,
    pub pooling: Pooling,
    pub life: Lifetimes,
    pub refresh: Refresh,
    pub tcp_rules: TcpRules,
    pub hairpin: Hairpin,
    pub unsolicited: Unsolicited,
    pub udp: Policy,
    pub tcp: Policy,
    /// Live mappings of one inside host.
    pub mappings_per_host: usize,
}

impl Default for NatCfg {
    /// A home router on Linux: `masquerade`, input from the internet dropped.
    fn default() -> Self {
        Self {
            kind: Kind::Nat,
            mapping: Mapping::Endpoint,
            filtering: Filtering::AddressPort,
            ports: Ports::Preserving(Clash::Random),
            overload: true,
            pooling: Pooling::Paired,
            life: Lifetimes {
                udp_new: Duration::from_secs(30),
                udp_stream: Duration::from_secs(120),
                udp_stream_after: Duration::from_secs(2),
                tcp_established: Duration::from_secs(7_440),
                tcp_transitory: Duration::from_secs(240),
                absolute: None,
            },
            refresh: Refresh { out: true, inward: true },
            tcp_rules: TcpRules {
                filtering: Filtering::AddressPort,
                simultaneous_open: true,
                picks_up: true,
            },
            hairpin: Hairpin::No,
            unsolicited: Unsolicited::Drop,
            udp: Policy::Allow,
            tcp: Policy::Allow,
            mappings_per_host: MAPPINGS_PER_HOST,
        }
    }
}

impl NatCfg {
    #[must_use]
    pub fn nat(mapping: Mapping, filtering: Filtering, ports: Ports) -> Self {
        Self { mapping, filtering, ports, ..Self::default() }
    }

    /// Nothing in the way.
    #[must_use]
    pub fn router() -> Self {
        Self { kind: Kind::Router, ..Self::default() }
    }

    /// A stateful firewall, as in front of most hosts with IPv6.
    #[must_use]
    pub fn firewall() -> Self {
        Self { kind: Kind::Firewall, ..Self::default() }
    }
}

/// The behaviours that decide how two peers can meet. What else a box does is not in the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// A public address.
    Open,
    /// EIM, EIF: "full cone".
    Cone,
    /// EIM, ADF.
    Adf,
    /// EIM, APDF. A firewall without translation behaves the same.
    Home,
    /// As `Home`, and it confirms what nobody asked for: see [`Unsolicited::ConfirmLocal`].
    Naiv,
    /// APDM, APDF, sequential ports.
    Hseq,
    /// APDM, APDF, random ports in a block.
    Hblk,
    /// APDM, APDF, random ports.
    Hard,
    /// As `Home` for TCP; no UDP.
    Nudp,
    /// TCP to the ports 80 and 443, nothing else.
    T443,
}

impl Class {
    pub const ALL: [Self; 10] = [
        Self::Open,
        Self::Cone,
        Self::Adf,
        Self::Home,
        Self::Naiv,
        Self::Hseq,
        Self::Hblk,
        Self::Hard,
        Self::Nudp,
        Self::T443,
    ];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "OPEN",
            Self::Cone => "CONE",
            Self::Adf => "ADF",
            Self::Home => "HOME",
            Self::Naiv => "NAIV",
            Self::Hseq => "HSEQ",
            Self::Hblk => "HBLK",
            Self::Hard => "HARD",
            Self::Nudp => "NUDP",
            Self::T443 => "T443",
        }
    }

    /// A box of this class.
    #[must_use]
    pub fn cfg(self) -> NatCfg {
        let symmetric = |ports| NatCfg::nat(Mapping::AddressPort, Filtering::AddressPort, ports);
        let home = NatCfg::default();
        match self {
            Self::Open => NatCfg::router(),
            Self::Cone => NatCfg { filtering: Filtering::Endpoint, ..home },
            Self::Adf => NatCfg { filtering: Filtering::Address, ..home },
            Self::Home => home,
            Self::Naiv => NatCfg { unsolicited: Unsolicited::ConfirmLocal, ..home },
            Self::Hseq => symmetric(Ports::Sequential(1)),
            Self::Hblk => symmetric(Ports::Block(PORT_BLOCK)),
            Self::Hard => symmetric(Ports::Random),
            Self::Nudp => NatCfg { udp: Policy::Block, ..home },
            Self::T443 => NatCfg { udp: Policy::Block, tcp: Policy::Only(vec![80, 443]), ..home },
        }
    }
}
