//! The box itself: what it does with one packet.

use super::cfg::{Hairpin, Kind, NatCfg, Policy, Unsolicited};
use super::ports::Chooser;
use super::table::{Ask, Table};
use super::{Complaint, Header, Loss, Proto, Segment, Trouble, What};
use peerlink_core::time::{Duration, Instant};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What a router without an address of its own writes into its errors: RFC 7600, and for IPv6 something of the same
/// use out of the discard prefix.
pub(super) fn nobody(to: IpAddr) -> IpAddr {
    match to {
        IpAddr::V4(_) => Ipv4Addr::new(192, 0, 0, 8).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 8).into(),
    }
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It leaves on the outside.
    Out(Header),
    /// It leaves on the inside.
    In(Header),
    /// It goes no further. What the box answers leaves on the side that the packet came from.
    Lost(Loss, Option<Header>),
}

/// A box, for one family of addresses.
#[derive(Debug, Clone)]
pub struct Nat {
    cfg: NatCfg,
    external: Vec<IpAddr>,
    table: Table,
    chooser: Chooser,
}

impl Nat {
    /// A box with these addresses on its outside, which are its own. Only a [`Kind::Nat`] needs one.
    #[must_use]
    pub fn new(cfg: NatCfg, external: Vec<IpAddr>, seed: u64) -> Self {
        Self { cfg, external, table: Table::default(), chooser: Chooser::new(seed) }
    }

    #[must_use]
    pub const fn cfg(&self) -> &NatCfg {
        &self.cfg
    }

    #[must_use]
    pub fn external(&self) -> &[IpAddr] {
        &self.external
    }

    /// Live mappings.
    #[must_use]
    pub fn mappings(&self, now: Instant) -> usize {
        self.table.len(now, &self.cfg)
    }

    /// It starts again and knows nothing any more. Its addresses stay.
    pub fn reboot(&mut self) {
        self.table = Table::default();
        self.chooser.forget();
    }

    /// It gets other addresses on the outside, and forgets what was mapped to the old ones.
    pub fn readdress(&mut self, external: Vec<IpAddr>) {
        self.external = external;
        self.reboot();
    }

    /// What PCP, NAT-PMP and UPnP ask for: an external endpoint that stands for this inside one, for everybody, for so
    /// long. Asked again, it is prolonged; for no time at all, it ends.
    ///
    /// # Errors
    /// Why there is none.
    pub fn lease(
        &mut self,
        now: Instant,
        proto: Proto,
        inside: SocketAddr,
        life: Duration,
    ) -> Result<SocketAddr, Loss> {
        if self.cfg.kind != Kind::Nat {
            return Err(Loss::NoMapping);
        }
        let ask = Ask { now, proto, inside, remote: SocketAddr::new(nobody(inside.ip()), 0), segment: None };
        self.table.lease(&self.cfg, &mut self.chooser, &self.external, ask, now + life)
    }

    /// A packet from an inside host.
    #[must_use]
    pub fn from_inside(&mut self, now: Instant, header: Header) -> Verdict {
        let (proto, segment) = match header.what {
            What::Icmp(about) => return self.error_outward(now, header, about),
            What::Udp => (Proto::Udp, None),
            What::Tcp(segment) => (Proto::Tcp, Some(segment)),
        };
        if self.cfg.kind == Kind::Router {
            return self.forward(header, Verdict::Out);
        }
        if self.may_pass(proto, header.to.port()).is_err() {
            let tell = *self.policy(proto) == Policy::Reject;
            return Verdict::Lost(
                Loss::Policy,
                tell.then(|| self.complain(&header, Trouble::Prohibited)).flatten(),
            );
        }
        // A packet that ends here maps nothing.
        if header.hops <= 1 {
            return Verdict::Lost(Loss::HopLimit, self.complain(&header, Trouble::HopLimit));
        }
        let hairpins = self.cfg.kind == Kind::Nat && self.external.contains(&header.to.ip());
        if hairpins && self.cfg.hairpin == Hairpin::No {
            return Verdict::Lost(Loss::Hairpin, None);
        }
        let ask = Ask { now, proto, inside: header.from, remote: header.to, segment };
        let outside = match self.table.outward(&self.cfg, &mut self.chooser, &self.external, ask) {
            Ok(outside) => outside,
            Err(why) => return Verdict::Lost(why, None),
        };
        if hairpins {
            return self.hairpin(now, header, proto, outside);
        }
        self.forward(Header { from: outside, ..header }, Verdict::Out)
    }

    fn hairpin(&mut self, now: Instant, header: Header, proto: Proto, source: SocketAddr) -> Verdict {
        match self.table.inward(&self.cfg, now, proto, [header.to, source], header.segment()) {
            Ok(inside) => {
                let external = self.cfg.hairpin == Hairpin::ExternalSource;
                let from = if external { source } else { header.from };
                self.forward(Header { from, to: inside, ..header }, Verdict::In)
            }
            Err(why) => Verdict::Lost(why, None),
        }
    }

    /// A packet that reached it on the outside: one of its addresses, or, without translation, of somebody inside.
    #[must_use]
    pub fn from_outside(&mut self, now: Instant, header: Header) -> Verdict {
        let (proto, segment) = match header.what {
            What::Icmp(about) => return self.error_inward(now, header, about),
            What::Udp => (Proto::Udp, None),
            What::Tcp(segment) => (Proto::Tcp, Some(segment)),
        };
        if self.cfg.kind == Kind::Router {
            return self.forward(header, Verdict::In);
        }
        if let Err(why) = self.may_pass(proto, header.from.port()) {
            return Verdict::Lost(why, None);
        }
        let ends = [header.to, header.from];
        if self.table.is_local(now, proto, header.to, header.from) {
            return self.refuse(now, &header, proto, Loss::Local);
        }
        match self.table.inward(&self.cfg, now, proto, ends, segment) {
            Ok(inside) => self.forward(Header { to: inside, ..header }, Verdict::In),
            Err(why) => self.refuse(now, &header, proto, why),
        }
    }

    /// Nobody asked for it.
    fn refuse(&mut self, now: Instant, header: &Header, proto: Proto, why: Loss) -> Verdict {
        let reset = || match header.segment() {
            None => self.complain(header, Trouble::PortUnreachable),
            Some(Segment::Rst) => None,
            Some(_) => Some(Header::tcp(header.to, header.from, Segment::Rst)),
        };
        let answer = match self.cfg.unsolicited {
            Unsolicited::Drop => None,
            Unsolicited::Icmp => self.complain(header, Trouble::PortUnreachable),
            Unsolicited::Reset | Unsolicited::ConfirmLocal => reset(),
        };
        // A reset ends the flow of a segment at once.
        if self.cfg.unsolicited == Unsolicited::ConfirmLocal
            && proto == Proto::Udp
            && self.cfg.kind == Kind::Nat
        {
            let until = now + self.cfg.life.udp_new;
            self.table.confirm_local(until, proto, [header.to, header.from]);
        }
        Verdict::Lost(why, answer)
    }

    /// An error of an inside host about a packet that was let in.
    fn error_outward(&self, now: Instant, header: Header, about: Complaint) -> Verdict {
        if self.cfg.kind == Kind::Router {
            return self.forward(header, Verdict::Out);
        }
        let Some(outside) = self.table.complains(&self.cfg, now, &about) else {
            return Verdict::Lost(Loss::NoMapping, None);
        };
        let from = SocketAddr::new(outside.ip(), 0);
        let what = What::Icmp(Complaint { to: outside, ..about });
        self.forward(Header { from, what, ..header }, Verdict::Out)
    }

    /// An error about a packet that went out. It ends no mapping (RFC 4787, REQ-10), and passes (RFC 5508, REQ-4).
    fn error_inward(&self, now: Instant, header: Header, about: Complaint) -> Verdict {
        if self.cfg.kind == Kind::Router {
            return self.forward(header, Verdict::In);
        }
        let Some(inside) = self.table.complained(&self.cfg, now, &about) else {
            return Verdict::Lost(Loss::NoMapping, None);
        };
        let to = SocketAddr::new(inside.ip(), 0);
        let what = What::Icmp(Complaint { from: inside, ..about });
        self.forward(Header { to, what, ..header }, Verdict::In)
    }

    fn forward(&self, header: Header, onward: impl Fn(Header) -> Verdict) -> Verdict {
        match header.hops {
            0 | 1 => Verdict::Lost(Loss::HopLimit, self.complain(&header, Trouble::HopLimit)),
            hops => onward(Header { hops: hops - 1, ..header }),
        }
    }

    fn complain(&self, header: &Header, trouble: Trouble) -> Option<Header> {
        header.complaint(self.external.first().copied().unwrap_or_else(|| nobody(header.to.ip())), trouble)
    }

    const fn policy(&self, proto: Proto) -> &Policy {
        match proto {
            Proto::Udp => &self.cfg.udp,
            Proto::Tcp => &self.cfg.tcp,
        }
    }

    fn may_pass(&self, proto: Proto, remote_port: u16) -> Result<(), Loss> {
        match self.policy(proto) {
            Policy::Allow => Ok(()),
            Policy::Only(ports) if ports.contains(&remote_port) => Ok(()),
            Policy::Block | Policy::Reject | Policy::Only(_) => Err(Loss::Policy),
        }
    }
}
