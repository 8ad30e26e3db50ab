//! The router in front of this machine, which may open ports: the default route of IPv4, where this machine's own address is
//! one that others do not see.
//!
//! Routes are read where Linux shows them. Elsewhere no router is known, and none is asked. IPv6 is not translated; to have
//! a firewall opened there, requests would have to come from the address that it is to be opened for, and one socket for
//! all cannot choose.

use if_addrs::{IfAddr, Interface};
use peerlink_core::api::Gateway;
use peerlink_core::bounded::List;
use peerlink_core::limits::GATEWAYS;
use peerlink_core::wire::pcp::PORT;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Flags of a route: it is in use, and leads through a gateway (linux/route.h).
const UP_AND_GATEWAY: u32 = 3;

/// What the system knows of routes.
pub(crate) fn routes() -> String {
    std::fs::read_to_string("/proc/net/route").unwrap_or_default()
}

/// Routers behind which a listener of ours is hidden.
pub(crate) fn find(
    routes: &str,
    interfaces: &[Interface],
    listeners: &[SocketAddr],
) -> List<Gateway, GATEWAYS> {
    let mut found: Vec<(u32, &str, Ipv4Addr)> = routes.lines().filter_map(default_route).collect();
    found.sort_unstable();
    let all = found.into_iter().filter_map(|(_, name, router)| {
        let own = interfaces.iter().filter(|interface| interface.name == name).find_map(hidden)?;
        let serves = |listener: &&SocketAddr| {
            listener.ip() == IpAddr::V4(own) || listener.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        };
        let listener = listeners.iter().find(serves)?;
        Some(Gateway { router: (router, PORT).into(), own: (own, listener.port()).into() })
    });
    // The best of them: packets leave by no other.
    List::of(all.take(1))
}

/// Metric, interface and gateway of a line that is a default route.
fn default_route(line: &str) -> Option<(u32, &str, Ipv4Addr)> {
    let mut words = line.split_whitespace();
    let name = words.next()?;
    // In the order of the bytes in memory.
    let address = |word: &str| Some(Ipv4Addr::from(u32::from_str_radix(word, 16).ok()?.to_ne_bytes()));
    let (to, router) = (address(words.next()?)?, address(words.next()?)?);
    let flags = u32::from_str_radix(words.next()?, 16).ok()?;
    let metric = words.nth(2)?.parse().ok()?;
    let mask = address(words.next()?)?;
    let is_default = to.is_unspecified() && mask.is_unspecified() && flags & UP_AND_GATEWAY == UP_AND_GATEWAY;
    (is_default && !router.is_unspecified()).then_some((metric, name, router))
}

/// The address of an interface that is translated on the way out: RFC 1918, and the shared space of RFC 6598.
fn hidden(interface: &Interface) -> Option<Ipv4Addr> {
    let IfAddr::V4(v4) = &interface.addr else { return None };
    let [a, b, ..] = v4.ip.octets();
    (v4.ip.is_private() || (a == 100 && b & 0xc0 == 64)).then_some(v4.ip)
}

#[cfg(test)]
mod tests {
    use super::*;
    use if_addrs::{IfOperStatus, Ifv4Addr};

    const HEAD: &str = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n";

    fn interface(name: &str, ip: [u8; 4]) -> Interface {
        let v4 =
            Ifv4Addr { ip: ip.into(), netmask: [255, 255, 255, 0].into(), prefixlen: 24, broadcast: None };
        Interface {
            name: name.to_owned(),
            addr: IfAddr::V4(v4),
            index: None,
            oper_status: IfOperStatus::Up,
            is_p2p: false,
        }
    }

    fn line(name: &str, [to, router, mask]: [[u8; 4]; 3], flags: u32, metric: u32) -> String {
        let hex = |octets: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(octets));
        format!("{name}\t{}\t{}\t{flags:04X}\t0\t0\t{metric}\t{}\t0\t0\t0\n", hex(to), hex(router), hex(mask))
    }

    fn found(routes: &str, interfaces: &[Interface], listen: &str) -> Vec<(String, String)> {
        let found = find(&format!("{HEAD}{routes}"), interfaces, &[listen.parse().unwrap()]);
        found.iter().map(|it| (it.router.to_string(), it.own.to_string())).collect()
    }

    #[test]
    fn the_best_default_route_leads_to_the_router_in_front_of_a_listener() {
        let here = [
            interface("lo", [127, 0, 0, 1]),
            interface("eth0", [10, 1, 0, 2]),
            interface("wlan0", [10, 2, 0, 9]),
        ];
        let (none, eth, wlan) = ([0; 4], [10, 1, 0, 1], [10, 2, 0, 1]);
        let routes = line("wlan0", [none, wlan, none], 3, 600)
            + &line("eth0", [none, eth, none], 3, 100)
            + &line("eth0", [[10, 1, 0, 0], none, [255, 255, 255, 0]], 1, 0);
        let expected = |own: &str| vec![("10.1.0.1:5351".to_owned(), own.to_owned())];
        assert_eq!(found(&routes, &here, "0.0.0.0:4711"), expected("10.1.0.2:4711"));
        assert_eq!(found(&routes, &here, "10.1.0.2:4711"), expected("10.1.0.2:4711"));
        // On this machine alone, in the other family, and elsewhere.
        for listen in ["127.0.0.1:4711", "[::]:4711", "10.9.0.1:4711"] {
            assert_eq!(found(&routes, &here, listen), [], "{listen}");
        }
        // A route that is not in use, one to the half of the world, and no gateway.
        for other in [
            line("eth0", [none, eth, none], 2, 1),
            line("eth0", [none, eth, [128, 0, 0, 0]], 3, 1),
            line("eth0", [none; 3], 3, 1),
        ] {
            assert_eq!(found(&other, &here, "0.0.0.0:4711"), []);
        }
    }

    #[test]
    fn nobody_is_asked_for_an_address_that_all_see_or_by_routes_that_cannot_be_read() {
        let (none, router) = ([0; 4], [9, 9, 9, 1]);
        let routes = line("eth0", [none, router, none], 3, 0);
        assert_eq!(found(&routes, &[interface("eth0", [9, 9, 9, 9])], "0.0.0.0:1"), []);
        assert_eq!(found(&routes, &[interface("eth0", [100, 64, 9, 9])], "0.0.0.0:1").len(), 1);
        let mask = routes.rfind("00000000").unwrap();
        for length in 0..mask {
            assert_eq!(found(&routes[..length], &[interface("eth0", [10, 0, 0, 1])], "0.0.0.0:1"), []);
        }
    }
}
