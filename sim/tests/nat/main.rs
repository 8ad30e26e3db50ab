//! The boxes between hosts: that they do what RFC 4787 and RFC 5382 say, and what their configuration says; that who
//! asks from outside finds just that; and that two peers behind them meet exactly where a closed form says so.

mod classes;
mod networks;
mod punches;
mod rfc4787;
mod rfc5382;

use peerlink_core::time::{Duration, Instant};
use peerlink_sim::nat::{
    Clash, Filtering, Header, Loss, Mapping, Nat, NatCfg, Ports, Proto, Segment, Verdict,
};
use std::net::SocketAddr;

const MAPPINGS: [Mapping; 3] = [Mapping::Endpoint, Mapping::Address, Mapping::AddressPort];
const FILTERS: [Filtering; 3] = [Filtering::Endpoint, Filtering::Address, Filtering::AddressPort];
const PORTS: [Ports; 5] = [
    Ports::Preserving(Clash::Random),
    Ports::Preserving(Clash::Next),
    Ports::Sequential(1),
    Ports::Block(1024),
    Ports::Random,
];

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// One box between an inside of 10.0.0.0/8 and an outside where it is 5.0.0.1, and a clock.
struct Bench {
    nat: Nat,
    now: Instant,
}

impl Bench {
    fn new(cfg: NatCfg) -> Self {
        Self { nat: Nat::new(cfg, vec!["5.0.0.1".parse().unwrap()], 7), now: Instant::from_micros(1) }
    }

    fn wait(&mut self, seconds: u64) -> &mut Self {
        self.now += Duration::from_secs(seconds);
        self
    }

    fn out_with(&mut self, header: Header) -> Result<SocketAddr, Loss> {
        match self.nat.from_inside(self.now, header) {
            Verdict::Out(out) => {
                assert_eq!((out.to, out.hops), (header.to, header.hops - 1));
                Ok(out.from)
            }
            Verdict::Lost(why, _) => Err(why),
            Verdict::In(_) => panic!("turned back"),
        }
    }

    fn in_with(&mut self, header: Header) -> Result<SocketAddr, Loss> {
        match self.nat.from_outside(self.now, header) {
            Verdict::In(inward) => {
                assert_eq!((inward.from, inward.hops), (header.from, header.hops - 1));
                Ok(inward.to)
            }
            Verdict::Lost(why, _) => Err(why),
            Verdict::Out(_) => panic!("turned back"),
        }
    }

    /// The external endpoint with which a datagram goes out.
    fn out(&mut self, from: &str, to: &str) -> SocketAddr {
        self.out_with(Header::udp(at(from), at(to))).unwrap()
    }

    /// The inside endpoint that a datagram from outside reaches.
    fn inward(&mut self, from: &str, to: SocketAddr) -> Result<SocketAddr, Loss> {
        self.in_with(Header::udp(at(from), to))
    }

    fn tcp_out(&mut self, from: &str, to: &str, segment: Segment) -> Result<SocketAddr, Loss> {
        self.out_with(Header::tcp(at(from), at(to), segment))
    }

    fn tcp_in(&mut self, from: &str, to: SocketAddr, segment: Segment) -> Result<SocketAddr, Loss> {
        self.in_with(Header::tcp(at(from), to, segment))
    }

    fn lease(&mut self, inside: &str, seconds: u64) -> Result<SocketAddr, Loss> {
        self.nat.lease(self.now, Proto::Udp, at(inside), Duration::from_secs(seconds))
    }
}
