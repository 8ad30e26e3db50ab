//! The questions of the classifier, asked of kernels: sockets in the namespaces of a host and of two servers, all held
//! by one process.

use crate::lab::{SERVER_SPACES, SERVERS, SERVERS_V6, Site, within};
use peerlink_sim::nat::classify::{Server, Vantage};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

/// How often something is sent before its silence is believed, and how long each time. On these links nothing is lost
/// and everything comes at once.
const TRIES: usize = 4;
const PATIENCE: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(crate) struct Kernel {
    space: String,
    address: IpAddr,
    servers: [[UdpSocket; 2]; 2],
    sockets: Vec<UdpSocket>,
    asked: u64,
}

fn socket(space: &str, address: SocketAddr) -> UdpSocket {
    let socket = within(space, || UdpSocket::bind(address)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

impl Kernel {
    /// The first host of a site, in one family of addresses. `ports`: the first of two ports of the servers.
    pub(crate) fn new(site: &Site, v6: bool, ports: u16) -> Self {
        let (servers, address) = if v6 { (SERVERS_V6, site.v6[0]) } else { (SERVERS, site.v4[0]) };
        let servers = [0, 1].map(|at| {
            [ports, ports + 1].map(|port| socket(SERVER_SPACES[at], SocketAddr::new(servers[at], port)))
        });
        Self { space: site.hosts[0].clone(), address, servers, sockets: Vec::new(), asked: 0 }
    }

    /// Sends until it arrives, and gives up after a few times.
    fn pass(&mut self, number: u64, from: &UdpSocket, to: SocketAddr, at: &UdpSocket) -> Option<SocketAddr> {
        let word = number.to_be_bytes();
        for _ in 0..TRIES {
            // A box that rejects tells the socket, by an error of what comes next.
            let _told = from.send_to(&word, to);
            let mut buffer = [0; 64];
            while let Ok((count, from)) = at.recv_from(&mut buffer) {
                if buffer[..count] == word {
                    return Some(from);
                }
            }
        }
        None
    }

    fn number(&mut self) -> u64 {
        self.asked += 1;
        self.asked
    }

    fn own(&self, socket: usize) -> UdpSocket {
        self.sockets[socket].try_clone().unwrap()
    }

    fn server(&self, [address, port]: Server) -> UdpSocket {
        self.servers[address][port].try_clone().unwrap()
    }
}

impl Vantage for Kernel {
    fn open(&mut self) -> (usize, SocketAddr) {
        let socket = socket(&self.space, SocketAddr::new(self.address, 0));
        let own = socket.local_addr().unwrap();
        self.sockets.push(socket);
        (self.sockets.len() - 1, own)
    }

    fn seen(&mut self, socket: usize, server: Server) -> Option<SocketAddr> {
        let (number, own, server) = (self.number(), self.own(socket), self.server(server));
        self.pass(number, &own, server.local_addr().unwrap(), &server)
    }

    fn reaches(&mut self, server: Server, to: SocketAddr, socket: usize) -> bool {
        let (number, own, server) = (self.number(), self.own(socket), self.server(server));
        self.pass(number, &server, to, &own).is_some()
    }

    fn turns_back(&mut self, from: usize, to: SocketAddr, socket: usize) -> Option<SocketAddr> {
        let (number, from, other) = (self.number(), self.own(from), self.own(socket));
        self.pass(number, &from, to, &other)
    }
}
