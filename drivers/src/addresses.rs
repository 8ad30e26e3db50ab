//! Where this machine can be reached: its interfaces' addresses with the listeners' ports; and the routers that may open
//! ports for it.

use crate::limits::{ADDRESSES_RECHECK, ADDRESSES_STALE};
use peerlink_core::api::{Gateway, Input};
use peerlink_core::bounded::List;
use peerlink_core::limits::{ADDRESSES, GATEWAYS};
use peerlink_core::time::Instant;
use std::net::{IpAddr, SocketAddr};

/// Remembers what was told, so that only a change is.
#[derive(Debug)]
pub(crate) struct Addresses {
    listeners: Vec<SocketAddr>,
    told: Option<List<SocketAddr, ADDRESSES>>,
    gateways: List<Gateway, GATEWAYS>,
    looked: Instant,
}

impl Addresses {
    pub(crate) fn new(listeners: Vec<SocketAddr>) -> Self {
        Self { listeners, told: None, gateways: List::new(), looked: Instant::ZERO }
    }

    /// Looks at interfaces and routes if that is due, sooner with a `reason`: what to tell, if it changed.
    pub(crate) fn look(&mut self, now: Instant, reason: bool) -> Vec<Input<'static>> {
        let after = if reason { ADDRESSES_RECHECK } else { ADDRESSES_STALE };
        if self.told.is_some() && now.saturating_since(self.looked) < after {
            return Vec::new();
        }
        self.looked = now;
        let interfaces = match if_addrs::get_if_addrs() {
            Ok(found) => found,
            // Not known is not "none": keep what was told.
            Err(_) if self.told.is_some() => return Vec::new(),
            Err(_) => Vec::new(),
        };
        let mut facts = Vec::new();
        let own: Vec<IpAddr> = interfaces.iter().map(if_addrs::Interface::ip).collect();
        let found = reachable(&self.listeners, &own);
        if self.told.as_ref() != Some(&found) {
            self.told = Some(found.clone());
            facts.push(Input::LocalAddresses(found));
        }
        let gateways = crate::gateways::find(&crate::gateways::routes(), &interfaces, &self.listeners);
        if self.gateways != gateways {
            self.gateways = gateways.clone();
            facts.push(Input::Gateways(gateways));
        }
        facts
    }
}

/// Listeners' ports on the addresses they serve: those for the wide world first, so that a limit cuts the others.
fn reachable(listeners: &[SocketAddr], interfaces: &[IpAddr]) -> List<SocketAddr, ADDRESSES> {
    let mut found: Vec<SocketAddr> = Vec::new();
    for listener in listeners {
        if listener.ip().is_unspecified() {
            let same = interfaces.iter().filter(|ip| ip.is_ipv4() == listener.is_ipv4());
            found.extend(same.map(|ip| SocketAddr::new(*ip, listener.port())));
        } else {
            found.push(*listener);
        }
    }
    found.retain(|address| is_usable(address.ip()));
    // Chosen on purpose, loopback is as good as any; else it is there for want of something better.
    let chosen = |address: &SocketAddr| listeners.contains(address);
    if found.iter().any(|address| !address.ip().is_loopback()) {
        found.retain(|address| !address.ip().is_loopback() || chosen(address));
    }
    found.sort_by_key(|address| (is_private(address.ip()), *address));
    found.dedup();
    let (loopback, found): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|address| address.ip().is_loopback());
    List::of(take_turns(found).chain(take_turns(loopback)))
}

/// The families one after the other, so that a limit cuts neither off. IPv4 first: it is what fits a short ticket.
fn take_turns(addresses: Vec<SocketAddr>) -> impl Iterator<Item = SocketAddr> {
    let (v4, v6): (Vec<_>, Vec<_>) = addresses.into_iter().partition(SocketAddr::is_ipv4);
    let turns = v4.len().max(v6.len());
    (0..turns).flat_map(move |turn| [v4.get(turn).copied(), v6.get(turn).copied()]).flatten()
}

fn is_usable(ip: IpAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !link_local && !ip.is_unspecified() && !ip.is_multicast()
}

fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_private(),
        IpAddr::V6(v6) => v6.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(listeners: &[&str], interfaces: &[&str]) -> Vec<String> {
        let listeners: Vec<_> = listeners.iter().map(|text| text.parse().unwrap()).collect();
        let interfaces: Vec<_> = interfaces.iter().map(|text| text.parse().unwrap()).collect();
        reachable(&listeners, &interfaces).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_wildcard_listener_serves_every_address_of_its_family() {
        assert_eq!(
            found(
                &["0.0.0.0:7", "[::]:8"],
                &["127.0.0.1", "::1", "192.168.1.5", "fe80::1", "2001:db8::1", "169.254.1.1"]
            ),
            ["192.168.1.5:7", "[2001:db8::1]:8"]
        );
    }

    #[test]
    fn loopback_serves_for_want_of_something_better_or_by_choice() {
        assert_eq!(found(&["0.0.0.0:7"], &["127.0.0.1"]), ["127.0.0.1:7"]);
        assert_eq!(found(&["127.0.0.1:7"], &["127.0.0.1", "10.0.0.1"]), ["127.0.0.1:7"]);
        assert_eq!(
            found(&["127.0.0.1:7", "0.0.0.0:8"], &["127.0.0.1", "10.0.0.1"]),
            ["10.0.0.1:8", "127.0.0.1:7"]
        );
    }

    #[test]
    fn the_wide_world_comes_first_when_there_are_too_many() {
        let mut interfaces: Vec<String> = (1..=ADDRESSES + 2).map(|n| format!("10.0.0.{n}")).collect();
        interfaces.push("203.0.113.9".to_owned());
        let interfaces: Vec<&str> = interfaces.iter().map(String::as_str).collect();
        let found = found(&["0.0.0.0:7"], &interfaces);
        assert_eq!(found.len(), ADDRESSES);
        assert_eq!(found[0], "203.0.113.9:7");
    }

    #[test]
    fn many_addresses_of_one_family_leave_room_for_the_other() {
        let v4 = (1..=ADDRESSES + 2).map(|n| format!("10.0.0.{n}"));
        let v6 = ["fd00::1", "2001:db8::1"].map(str::to_owned);
        let interfaces: Vec<String> = v4.chain(v6).collect();
        let interfaces: Vec<&str> = interfaces.iter().map(String::as_str).collect();
        let both = found(&["0.0.0.0:7", "[::]:7"], &interfaces);
        assert_eq!(both[..4], ["10.0.0.1:7", "[2001:db8::1]:7", "10.0.0.2:7", "[fd00::1]:7"]);
        assert_eq!(both.len(), ADDRESSES);
        assert_eq!(found(&["[::]:7"], &interfaces), ["[2001:db8::1]:7", "[fd00::1]:7"]);
    }

    #[test]
    fn only_a_change_is_told() {
        let mut addresses = Addresses::new(vec!["127.0.0.1:7".parse().unwrap()]);
        assert_eq!(addresses.look(Instant::ZERO, false).len(), 1);
        assert_eq!(addresses.look(Instant::ZERO + ADDRESSES_STALE, true), []);
    }
}
