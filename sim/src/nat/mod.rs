//! What stands between hosts and the internet: address translators and firewalls as RFC 4787 (UDP), RFC 5382 (TCP) and
//! RFC 5508 (ICMP) describe them, good ones and the ones that exist.
//!
//! A box is a pure machine. It takes the header of a packet and the time, and says with which header the packet goes on,
//! or why it does not ([`Nat::from_inside`], [`Nat::from_outside`]). It knows no payload, no clock and no entropy but its
//! seed, so datagrams and the segments of streams pass through it alike, in a simulated world or behind a real wire.
//!
//! * [`NatCfg`] says how a box behaves, [`Class`] names the ten behaviours that decide how two peers can meet.
//! * [`Net`] joins hosts and boxes to a network: any number of boxes behind each other, hosts side by side behind one.
//! * [`classify`] finds out what a box does, from outside of it, as a node or another implementation would.
//! * [`oracle`] says in closed form how two peers can meet; it shares no code with the boxes.
//! * [`punch`] lets two peers try, with nothing but "send to where the other was seen".
//!
//! What is left out: translation between IPv4 and IPv6 or of prefixes, fragments, parity of ports.

mod cfg;
pub mod classify;
mod flow;
mod gate;
mod net;
pub mod oracle;
mod ports;
pub mod punch;
mod table;
mod wires;

pub use cfg::{
    Clash, Class, Filtering, Hairpin, Kind, Lifetimes, Mapping, NatCfg, Policy, Pooling, Ports, Refresh,
    TcpRules, Unsolicited,
};
pub use gate::{Nat, Verdict};
pub use net::{Door, INTERNET, Net, Onward, Passed, Realm};
pub use wires::{Arrival, Wires};

use std::net::SocketAddr;

/// What is translated by ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Proto {
    Udp,
    Tcp,
}

/// What of a TCP segment matters to a box on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segment {
    Syn,
    SynAck,
    /// Data, or an acknowledgement alone.
    Data,
    Fin,
    Rst,
}

/// What an ICMP error says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Nobody listens there.
    PortUnreachable,
    /// A box does not let it pass.
    Prohibited,
    /// Its hops were used up.
    HopLimit,
    /// It is larger than what the next link takes, in bytes.
    TooBig(usize),
}

/// An ICMP error, with the packet that it is about, as it looked where the error was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Complaint {
    pub trouble: Trouble,
    pub proto: Proto,
    pub from: SocketAddr,
    pub to: SocketAddr,
}

/// What a packet carries, as far as boxes look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Udp,
    Tcp(Segment),
    /// Its ports mean nothing.
    Icmp(Complaint),
}

/// What boxes read and write of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub from: SocketAddr,
    pub to: SocketAddr,
    /// Boxes and routers that it may still pass (TTL, hop limit); who would take the last one drops it.
    pub hops: u8,
    /// Bytes of the whole packet.
    pub size: usize,
    pub what: What,
}

impl Header {
    /// A datagram as a host sends it that chooses no TTL.
    #[must_use]
    pub const fn udp(from: SocketAddr, to: SocketAddr) -> Self {
        Self { from, to, hops: crate::limits::HOPS, size: crate::limits::SMALL_PACKET, what: What::Udp }
    }

    #[must_use]
    pub const fn tcp(from: SocketAddr, to: SocketAddr, segment: Segment) -> Self {
        Self { what: What::Tcp(segment), ..Self::udp(from, to) }
    }

    #[must_use]
    pub const fn with_hops(self, hops: u8) -> Self {
        Self { hops, ..self }
    }

    #[must_use]
    pub const fn with_size(self, size: usize) -> Self {
        Self { size, ..self }
    }

    /// The error that somebody at `by` sends back for this packet. None for an error: those are never answered.
    #[must_use]
    pub fn complaint(&self, by: std::net::IpAddr, trouble: Trouble) -> Option<Self> {
        let proto = self.proto()?;
        let about = Complaint { trouble, proto, from: self.from, to: self.to };
        let to = SocketAddr::new(self.from.ip(), 0);
        Some(Self { what: What::Icmp(about), ..Self::udp(SocketAddr::new(by, 0), to) })
    }

    /// None for an error.
    #[must_use]
    pub const fn proto(&self) -> Option<Proto> {
        match self.what {
            What::Udp => Some(Proto::Udp),
            What::Tcp(_) => Some(Proto::Tcp),
            What::Icmp(_) => None,
        }
    }

    const fn segment(&self) -> Option<Segment> {
        match self.what {
            What::Tcp(segment) => Some(segment),
            What::Udp | What::Icmp(_) => None,
        }
    }
}

/// Why a packet goes no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// Nobody has that address, or nobody from here.
    NoRoute,
    HopLimit,
    TooBig,
    /// The box lets nothing of this kind pass.
    Policy,
    /// There is a mapping, and not for this sender.
    Filtered,
    NoMapping,
    /// No port is left to map to.
    NoPort,
    /// This host has all the mappings that it may have.
    Limit,
    /// From inside to an external address of the same box, which does not do that.
    Hairpin,
    /// Between neighbours that must not see each other.
    Isolated,
    /// A segment that belongs to no connection.
    NoConnection,
    /// The box took it for itself.
    Local,
}
