//! The UDP sockets: one for each family, which all sessions share, so that a node is seen from one endpoint and can be
//! reached there.
//!
//! Each has the address and port of the first listener of its family. If that port is taken for UDP, the node still
//! dials from another one, and is reached by streams. A node that listens nowhere has sockets on ports of the system's
//! choice; one that listens in one family only has datagrams there only.
//!
//! A machine with several addresses in one network may answer from another one than it was asked at, because the system
//! chooses. Then that path does not prove itself, and another is taken.

use crate::limits::{DATAGRAM_BUFFER_BYTES, TURN_DATAGRAMS};
use crate::shell::Carried;
use ::mio::net::UdpSocket;
use ::mio::{Interest, Registry, Token};
use peerlink_core::api::Input;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

pub(super) const FAMILIES: usize = 2;

#[derive(Debug)]
pub(super) struct Datagrams {
    /// IPv4 and IPv6.
    ports: [Option<Port>; FAMILIES],
}

#[derive(Debug)]
struct Port {
    socket: UdpSocket,
    readable: bool,
    /// The hops that a packet has now, and those that the system gave.
    hops: u32,
    usual: u32,
}

const fn family(address: SocketAddr) -> usize {
    if address.is_ipv4() { 0 } else { 1 }
}

impl Datagrams {
    /// Sockets beside these listeners; a family that cannot have one goes without.
    pub(super) fn beside(listeners: &[SocketAddr], registry: &Registry, first: usize) -> Self {
        let any = [(Ipv4Addr::UNSPECIFIED, 0).into(), (Ipv6Addr::UNSPECIFIED, 0).into()];
        let places: &[SocketAddr] = if listeners.is_empty() { &any } else { listeners };
        let ports = [0, 1].map(|at| {
            let place = places.iter().find(|place| family(**place) == at)?;
            let elsewhere = SocketAddr::new(place.ip(), 0);
            let mut port = Port::bind(*place).or_else(|_| Port::bind(elsewhere)).ok()?;
            registry.register(&mut port.socket, Token(first + at), Interest::READABLE).ok()?;
            Some(port)
        });
        Self { ports }
    }

    pub(super) fn event(&mut self, at: usize) {
        if let Some(port) = self.ports.get_mut(at).and_then(Option::as_mut) {
            port.readable = true;
        }
    }

    /// Something may be left to read.
    pub(super) fn has_work(&self) -> bool {
        self.ports.iter().flatten().any(|port| port.readable)
    }

    /// Of each socket what there is, up to so much that streams have their turn too.
    pub(super) fn receive(
        &mut self,
        buffer: &mut [u8],
        carried: &mut Carried,
        mut tell: impl FnMut(Input<'_>),
    ) {
        for port in self.ports.iter_mut().flatten() {
            for _ in 0..TURN_DATAGRAMS {
                if !port.readable {
                    break;
                }
                match port.socket.recv_from(buffer) {
                    Ok((count, remote)) => {
                        carried.datagrams_read += 1;
                        if let Some(bytes) = buffer.get(..count) {
                            tell(Input::Datagram { remote, bytes });
                        }
                    }
                    // An ICMP error about something that was sent: anybody can make those, and nothing follows from one.
                    Err(error) if is_passing(error.kind()) => carried.datagram_errors += 1,
                    Err(error) => {
                        // Whatever it is, the next event says when it is over.
                        carried.datagram_errors += u64::from(error.kind() != ErrorKind::WouldBlock);
                        port.readable = false;
                    }
                }
            }
        }
    }

    /// Sends one now, or loses it.
    pub(super) fn send(&mut self, remote: SocketAddr, ttl: Option<u8>, bytes: &[u8], carried: &mut Carried) {
        let port = self.ports.get_mut(family(remote)).and_then(Option::as_mut);
        let sent = match port {
            Some(port) => port.send(remote, ttl, bytes),
            None => Err(ErrorKind::AddrNotAvailable.into()),
        };
        match sent {
            Ok(()) => carried.datagrams_written += 1,
            Err(error) if error.kind() == ErrorKind::WouldBlock => carried.datagrams_unsent += 1,
            Err(_) => carried.datagram_errors += 1,
        }
    }
}

fn is_passing(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Interrupted
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionRefused
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
    )
}

impl Port {
    fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // What the system grants; with less, a burst loses more.
        let _ = socket.set_recv_buffer_size(DATAGRAM_BUFFER_BYTES);
        let _ = socket.set_send_buffer_size(DATAGRAM_BUFFER_BYTES);
        whole(&socket, address);
        socket.bind(&address.into())?;
        socket.set_nonblocking(true)?;
        let usual = if address.is_ipv4() { socket.ttl_v4() } else { socket.unicast_hops_v6() }?;
        Ok(Self { socket: UdpSocket::from_std(socket.into()), readable: true, hops: usual, usual })
    }

    fn send(&mut self, remote: SocketAddr, ttl: Option<u8>, bytes: &[u8]) -> io::Result<()> {
        self.set_hops(remote, ttl.map_or(self.usual, u32::from))?;
        loop {
            match self.socket.send_to(bytes, remote) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// If it cannot be set, nothing must be sent: a packet that goes too far does harm.
    fn set_hops(&mut self, remote: SocketAddr, hops: u32) -> io::Result<()> {
        if self.hops != hops {
            let socket = SockRef::from(&self.socket);
            if remote.is_ipv4() { socket.set_ttl_v4(hops) } else { socket.set_unicast_hops_v6(hops) }?;
            self.hops = hops;
        }
        Ok(())
    }
}

/// Packets go whole or not at all, whatever strangers say of the path (RFC 9000, section 14).
#[cfg(target_os = "linux")]
fn whole(socket: &Socket, address: SocketAddr) {
    use rustix::net::sockopt::{
        Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
    };
    // Where it cannot be had, packets of our size are hardly ever cut.
    let _ = if address.is_ipv4() {
        set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::PROBE)
    } else {
        set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::PROBE)
    };
}

#[cfg(not(target_os = "linux"))]
fn whole(_socket: &Socket, _address: SocketAddr) {}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(address: &str) -> Port {
        Port::bind(address.parse().unwrap()).unwrap()
    }

    #[test]
    fn hops_are_those_of_one_datagram_alone() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(mut port) = Port::bind(address.parse().unwrap()) else { continue }; // No IPv6 here.
            let there = port.socket.local_addr().unwrap();
            let now = |port: &Port| {
                let socket = SockRef::from(&port.socket);
                if there.is_ipv4() { socket.ttl_v4() } else { socket.unicast_hops_v6() }.unwrap()
            };
            let usual = now(&port);
            for (ttl, hops) in [(Some(3), 3), (Some(3), 3), (None, usual), (Some(255), 255), (None, usual)] {
                port.send(there, ttl, b"x").unwrap();
                assert_eq!(now(&port), hops, "{ttl:?}");
            }
            // What the system does not take is not sent with something else.
            assert!(there.is_ipv6() || port.send(there, Some(0), b"x").is_err());
        }
    }

    #[test]
    fn one_turn_takes_so_many_and_leaves_the_rest_for_the_next() {
        let poll = ::mio::Poll::new().unwrap();
        let mut sockets = Datagrams::beside(&["127.0.0.1:0".parse().unwrap()], poll.registry(), 10);
        let there = sockets.ports[0].as_ref().unwrap().socket.local_addr().unwrap();
        let stranger = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let waiting = TURN_DATAGRAMS + 9;
        for at in 0..waiting {
            stranger.send_to(&at.to_be_bytes(), there).unwrap();
        }
        let (mut buffer, mut carried, mut read) = ([0; 100], Carried::default(), Vec::new());
        for turn in [TURN_DATAGRAMS, 9, 0] {
            let before = read.len();
            sockets.receive(&mut buffer, &mut carried, |input| match input {
                Input::Datagram { remote, bytes } if remote == stranger.local_addr().unwrap() => {
                    read.push(usize::from_be_bytes(bytes.try_into().unwrap()));
                }
                other => panic!("{other:?}"),
            });
            assert_eq!((read.len() - before, sockets.has_work()), (turn, turn == TURN_DATAGRAMS));
        }
        assert!(read.into_iter().eq(0..waiting));
        assert_eq!(carried.datagrams_read, waiting as u64);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn packets_are_not_cut() {
        use rustix::net::sockopt::{Ipv4PathMtuDiscovery, ip_mtu_discover};
        let port = port("127.0.0.1:0");
        assert_eq!(ip_mtu_discover(&port.socket).unwrap(), Ipv4PathMtuDiscovery::PROBE);
    }

    #[test]
    fn families_follow_the_listeners_and_a_taken_port_only_moves_the_socket() {
        let poll = ::mio::Poll::new().unwrap();
        let bound = |listeners: &[SocketAddr]| {
            let sockets = Datagrams::beside(listeners, poll.registry(), 10);
            sockets.ports.map(|port| port.map(|port| port.socket.local_addr().unwrap()))
        };
        let taken = port("127.0.0.1:0");
        let taken = taken.socket.local_addr().unwrap();
        let [v4, v6] = bound(&[taken]);
        assert_eq!((v4.unwrap().ip(), v6), (taken.ip(), None));
        let free = {
            let held = port("127.0.0.1:0");
            held.socket.local_addr().unwrap()
        };
        assert_eq!(bound(&[free, taken])[0], Some(free), "that of the first");
        let [v4, _] = bound(&[]);
        assert!(v4.is_some_and(|address| address.ip().is_unspecified() && address.port() != 0));
    }
}
