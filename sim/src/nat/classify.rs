//! Finds out how a box behaves by what two servers with two ports each see through it (RFC 5780, section 4).
//!
//! It asks through a [`Vantage`], so the same questions go to the model, to a kernel, or to whatever else stands
//! between a client and servers.

use super::net::{INTERNET, Net};
use super::wires::Wires;
use super::{Filtering, Hairpin, Header, Mapping, NatCfg};
use peerlink_core::time::Duration;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// One of two addresses, and one of two ports.
pub type Server = [usize; 2];

/// Client and servers, as the questions need them.
pub trait Vantage {
    /// A new socket of the client on a port that was not used before: its number and its own address.
    fn open(&mut self) -> (usize, SocketAddr);

    /// Sends from this socket to a server: where the server saw it come from, if it came.
    fn seen(&mut self, socket: usize, server: Server) -> Option<SocketAddr>;

    /// Sends from a server: whether this socket got it.
    fn reaches(&mut self, server: Server, to: SocketAddr, socket: usize) -> bool;

    /// Sends from one socket of the client to where another was seen: where the other saw it come from, if it came.
    fn turns_back(&mut self, from: usize, to: SocketAddr, socket: usize) -> Option<SocketAddr>;
}

/// How the ports of new sockets follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    Preserved,
    /// By steps of the same size.
    Sequence(u16),
    /// Near each other, in no order.
    Near,
    Spread,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    pub mapping: Mapping,
    pub filtering: Filtering,
    pub ports: Follow,
    pub hairpin: Hairpin,
    /// Whether servers see another address than the client's own.
    pub translated: bool,
    pub poison: Poison,
}

/// What a packet that came too early does to the mapping ([`super::Unsolicited::ConfirmLocal`]). Where each remote
/// endpoint has its own mapping anyway, that is not seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Poison {
    None,
    /// Its sender sees another port.
    Sender,
    /// So does whoever is new.
    Newcomers,
}

/// Sockets whose ports are compared.
const SAMPLE: usize = 12;
/// Ports that are near each other.
const NEAR: u16 = 1024;
/// Steps of a sequence.
const STEP: u16 = 16;

/// None: no UDP passes, or no answer does.
pub fn classify(vantage: &mut impl Vantage) -> Option<Found> {
    let (socket, own) = vantage.open();
    let [first, port, address, both] =
        [[0, 0], [0, 1], [1, 0], [1, 1]].map(|server| vantage.seen(socket, server));
    let [first, port, address, both] = [first?, port?, address?, both?];
    let mapping = match (first == port && address == both, first == address) {
        (true, true) => Mapping::Endpoint,
        (true, false) => Mapping::Address,
        (false, _) => Mapping::AddressPort,
    };
    let translated = first.ip() != own.ip();
    let filtering = filtering(vantage)?;
    let ports = follow(vantage)?;
    let poison = if mapping == Mapping::Endpoint { poison(vantage)? } else { Poison::None };
    Some(Found { mapping, filtering, ports, hairpin: hairpin(vantage), translated, poison })
}

fn filtering(vantage: &mut impl Vantage) -> Option<Filtering> {
    let (socket, _) = vantage.open();
    let seen = vantage.seen(socket, [0, 0])?;
    let filters =
        [([1, 1], Filtering::Endpoint), ([0, 1], Filtering::Address), ([0, 0], Filtering::AddressPort)];
    filters
        .into_iter()
        .find(|(server, _)| vantage.reaches(*server, seen, socket))
        .map(|(_, filtering)| filtering)
}

fn follow(vantage: &mut impl Vantage) -> Option<Follow> {
    let mut seen = Vec::new();
    let mut preserved = true;
    for _ in 0..SAMPLE {
        let (socket, own) = vantage.open();
        let port = vantage.seen(socket, [0, 0])?.port();
        preserved &= port == own.port();
        seen.push(port);
    }
    let steps: Vec<u16> = seen.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
    let (low, high) = (seen.iter().min()?, seen.iter().max()?);
    Some(match steps.first() {
        _ if preserved => Follow::Preserved,
        Some(step) if *step <= STEP && steps.iter().all(|other| other == step) => Follow::Sequence(*step),
        _ if high - low < NEAR => Follow::Near,
        _ => Follow::Spread,
    })
}

fn poison(vantage: &mut impl Vantage) -> Option<Poison> {
    let (socket, _) = vantage.open();
    let before = vantage.seen(socket, [0, 0])?;
    let _comes_too_early = vantage.reaches([1, 0], before, socket);
    let same = vantage.seen(socket, [1, 0])? == before;
    let newcomer = vantage.seen(socket, [1, 1])? == before;
    Some(match (same, newcomer) {
        (true, _) => Poison::None,
        (false, true) => Poison::Sender,
        (false, false) => Poison::Newcomers,
    })
}

fn hairpin(vantage: &mut impl Vantage) -> Hairpin {
    let ((one, own), (other, _)) = (vantage.open(), vantage.open());
    let (Some(seen_one), Some(seen_other)) = (vantage.seen(one, [0, 0]), vantage.seen(other, [0, 0])) else {
        return Hairpin::No;
    };
    // Without translation there is nothing to turn back.
    if seen_one == own {
        return Hairpin::No;
    }
    // Both send first, so that no filter is in the way.
    let _opens = vantage.turns_back(other, seen_one, one);
    match vantage.turns_back(one, seen_other, other) {
        Some(from) if from == own => Hairpin::InternalSource,
        Some(_) => Hairpin::ExternalSource,
        None => Hairpin::No,
    }
}

/// A client in the model, and two servers on the internet.
#[derive(Debug)]
pub struct Modelled {
    wires: Wires<u64>,
    client: usize,
    address: IpAddr,
    servers: [usize; 2],
    sockets: Vec<SocketAddr>,
    asked: u64,
}

impl Modelled {
    const SERVERS: [IpAddr; 2] =
        [IpAddr::V4(Ipv4Addr::new(9, 9, 9, 9)), IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8))];
    const PORTS: [u16; 2] = [3478, 3479];

    /// One box between them.
    #[must_use]
    pub fn behind(cfg: NatCfg, seed: u64) -> Self {
        let mut net = Net::new(3, Duration::from_millis(10));
        let (_, inside) = net.add_box(INTERNET, cfg, &[Ipv4Addr::new(5, 1, 0, 1).into()], seed);
        Self::new(net, inside, Ipv4Addr::new(10, 1, 0, 2).into())
    }

    /// The client in this realm of any network.
    #[must_use]
    pub fn new(mut net: Net, realm: usize, address: IpAddr) -> Self {
        let servers = Self::SERVERS.map(|address| net.add_host(INTERNET, &[address]));
        let client = net.add_host(realm, &[address]);
        Self { wires: Wires::new(net), client, address, servers, sockets: Vec::new(), asked: 0 }
    }

    fn server([address, port]: Server) -> SocketAddr {
        SocketAddr::new(Self::SERVERS[address], Self::PORTS[port])
    }

    /// What arrives at this endpoint of what is sent now.
    fn send(&mut self, from_host: usize, header: Header, to: (usize, SocketAddr)) -> Option<SocketAddr> {
        self.asked += 1;
        self.wires.send(from_host, header, self.asked);
        let until = self.wires.now() + Duration::from_millis(100);
        let mut found = None;
        while let Some(arrival) = self.wires.next(until) {
            if (arrival.host, arrival.header.to, arrival.payload) == (to.0, to.1, Some(self.asked)) {
                found = Some(arrival.header.from);
            }
        }
        found
    }
}

impl Vantage for Modelled {
    fn open(&mut self) -> (usize, SocketAddr) {
        // Far from each other, and never in steps of the same size.
        let count = u16::try_from(self.sockets.len()).unwrap_or(u16::MAX);
        let own = SocketAddr::new(self.address, 20_000u16.wrapping_add(count.wrapping_mul(977 + count)));
        self.sockets.push(own);
        (self.sockets.len() - 1, own)
    }

    fn seen(&mut self, socket: usize, server: Server) -> Option<SocketAddr> {
        let to = Self::server(server);
        let header = Header::udp(self.sockets[socket], to);
        self.send(self.client, header, (self.servers[server[0]], to))
    }

    fn reaches(&mut self, server: Server, to: SocketAddr, socket: usize) -> bool {
        let header = Header::udp(Self::server(server), to);
        self.send(self.servers[server[0]], header, (self.client, self.sockets[socket])).is_some()
    }

    fn turns_back(&mut self, from: usize, to: SocketAddr, socket: usize) -> Option<SocketAddr> {
        let header = Header::udp(self.sockets[from], to);
        self.send(self.client, header, (self.client, self.sockets[socket]))
    }
}
