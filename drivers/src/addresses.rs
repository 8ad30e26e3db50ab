//! Where this machine can be reached, as far as it knows.

use peerlink_core::bounded::List;
use peerlink_core::limits::ADDRESSES;
use std::net::{IpAddr, SocketAddr};

/// The listeners' ports on the addresses of the interfaces. Loopback only if a listener is bound to it or there is
/// nothing else: two profiles on one machine without a network still find each other.
pub(crate) fn local(listeners: &[SocketAddr]) -> List<SocketAddr, ADDRESSES> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let ips: Vec<IpAddr> = interfaces.iter().map(if_addrs::Interface::ip).collect();
    choose(listeners, &ips)
}

fn choose(listeners: &[SocketAddr], ips: &[IpAddr]) -> List<SocketAddr, ADDRESSES> {
    let useful = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => !ip.is_link_local() && !ip.is_multicast() && !ip.is_unspecified(),
        IpAddr::V6(ip) => !ip.is_unicast_link_local() && !ip.is_multicast() && !ip.is_unspecified(),
    };
    let mut found: Vec<SocketAddr> = Vec::new();
    for listener in listeners {
        let same_family = |ip: &&IpAddr| ip.is_ipv4() == listener.is_ipv4();
        if listener.ip().is_unspecified() {
            found.extend(
                ips.iter()
                    .filter(same_family)
                    .filter(|ip| useful(ip))
                    .map(|ip| SocketAddr::new(*ip, listener.port())),
            );
        } else {
            found.push(*listener);
        }
    }
    let bound_to_loopback = listeners.iter().any(|listener| listener.ip().is_loopback());
    let beyond = found.iter().any(|address| !address.ip().is_loopback());
    if beyond && !bound_to_loopback {
        found.retain(|address| !address.ip().is_loopback());
    }
    // IPv4 first: it is what fits a short ticket.
    found.sort_by_key(|address| (address.ip().is_loopback(), address.is_ipv6(), *address));
    found.dedup();
    List::of(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_named_only_when_there_is_nothing_else() {
        let any = ["[::]:7".parse().unwrap(), "0.0.0.0:7".parse().unwrap()];
        let ips = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
        let text =
            |found: List<SocketAddr, ADDRESSES>| found.iter().map(ToString::to_string).collect::<Vec<_>>();
        let all = ips(&["127.0.0.1", "::1", "192.168.1.5", "fe80::1", "2001:db8::5", "169.254.3.3"]);
        assert_eq!(text(choose(&any, &all)), ["192.168.1.5:7", "[2001:db8::5]:7"]);
        assert_eq!(text(choose(&any, &all[..2])), ["127.0.0.1:7", "[::1]:7"]);
        assert_eq!(text(choose(&["127.0.0.1:9".parse().unwrap()], &all)), ["127.0.0.1:9"]);
    }
}
