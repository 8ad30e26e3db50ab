//! Boxes behind each other and hosts beside each other: what reaches whom.

use peerlink_core::time::{Duration, Instant};
use peerlink_sim::nat::punch::{Met, Plan, meet};
use peerlink_sim::nat::{Class, Hairpin, Header, INTERNET, Loss, NatCfg, Net, Segment, Trouble, What, Wires};
use std::net::{IpAddr, SocketAddr};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn net() -> Net {
    Net::new(3, Duration::from_millis(20))
}

fn with(hairpin: Hairpin) -> NatCfg {
    NatCfg { hairpin, ..Class::Home.cfg() }
}

fn both() -> Plan {
    Plan::both([0, 0])
}

/// Two hosts behind one box, who know only what a server said.
fn side_by_side(hairpin: Hairpin) -> Met {
    let mut net = net();
    let (_, lan) = net.add_box(INTERNET, with(hairpin), &[ip("5.1.0.1")], 1);
    // With the same port: one of them gets another one outside.
    meet(net, [lan, lan], [ip("10.1.0.2"), ip("10.1.0.3")], both())
}

#[test]
fn two_hosts_behind_one_box_meet_through_it_only_if_it_turns_packets_back_properly() {
    assert!(side_by_side(Hairpin::ExternalSource).path);
    assert!(!side_by_side(Hairpin::No).heard);
    // Each hears the other from inside and asks back there: they meet on the network that they share.
    assert!(side_by_side(Hairpin::InternalSource).path);
}

#[test]
fn neighbours_reach_each_other_without_a_box_unless_they_are_isolated() {
    for isolated in [false, true] {
        let mut net = net();
        let (_, lan) = net.add_box(INTERNET, with(Hairpin::No), &[ip("5.1.0.1")], 1);
        net.realm(lan).isolated = isolated;
        let hosts = ["10.1.0.2", "10.1.0.3"].map(|address| net.add_host(lan, &[ip(address)]));
        let mut wires = Wires::new(net);
        wires.send(hosts[0], Header::udp(at("10.1.0.2:1"), at("10.1.0.3:2")).with_hops(1), ());
        let arrival = wires.next(Instant::ZERO + Duration::from_secs(1));
        assert_eq!(arrival.map(|arrival| arrival.host), (!isolated).then_some(hosts[1]));
        assert_eq!(wires.lost(Loss::Isolated), u64::from(isolated));
    }
}

/// Two homes behind one provider's box.
fn subscribers(isp: Hairpin, isolated: bool) -> (Net, [usize; 2]) {
    let mut net = net();
    let (_, middle) = net.add_box(INTERNET, with(isp), &[ip("5.1.0.1")], 1);
    net.realm(middle).isolated = isolated;
    let homes = [("100.64.0.2", 2), ("100.64.0.3", 3)]
        .map(|(address, seed)| net.add_box(middle, with(Hairpin::No), &[ip(address)], seed).1);
    (net, homes)
}

#[test]
fn subscribers_of_one_provider_meet_by_its_hairpin_even_if_they_are_isolated() {
    for isolated in [false, true] {
        for (hairpin, met) in [(Hairpin::ExternalSource, true), (Hairpin::No, false)] {
            let (net, homes) = subscribers(hairpin, isolated);
            let found = meet(net, homes, [ip("10.1.0.2"), ip("10.2.0.2")], both());
            assert_eq!(found.path, met, "{hairpin:?} {isolated}");
        }
    }
}

#[test]
fn subscribers_reach_the_addresses_of_each_others_boxes_unless_they_are_isolated() {
    for isolated in [false, true] {
        let (mut net, homes) = subscribers(Hairpin::No, isolated);
        let a = net.add_host(homes[0], &[ip("10.1.0.2")]);
        let b = net.add_host(homes[1], &[ip("10.2.0.2")]);
        let mut wires = Wires::new(net);
        // Each opens towards the other's box, whose ports are preserved.
        let mut send = |host, from, to| {
            wires.send(host, Header::udp(at(from), at(to)), ());
            wires
                .next(wires.now() + Duration::from_secs(1))
                .map(|arrival| (arrival.host, arrival.header.from))
        };
        assert_eq!(send(a, "10.1.0.2:4711", "100.64.0.3:4711"), None);
        let heard = send(b, "10.2.0.2:4711", "100.64.0.2:4711");
        assert_eq!(heard, (!isolated).then_some((a, at("100.64.0.3:4711"))));
    }
}

#[test]
fn a_home_behind_a_provider_meets_a_home_as_if_there_were_one_box() {
    for (isp, met) in [(Class::Home, true), (Class::Cone, true), (Class::Hard, false)] {
        let mut net = net();
        let (_, middle) = net.add_box(INTERNET, isp.cfg(), &[ip("5.1.0.1")], 1);
        let (_, a) = net.add_box(middle, Class::Home.cfg(), &[ip("100.64.0.2")], 2);
        let (_, b) = net.add_box(INTERNET, Class::Home.cfg(), &[ip("5.2.0.1")], 3);
        let found = meet(net, [a, b], [ip("10.1.0.2"), ip("10.2.0.2")], both());
        assert_eq!(found.path, met, "{isp:?}");
    }
}

#[test]
fn with_two_own_boxes_an_opener_must_pass_both() {
    let found = |opener| {
        let mut net = net();
        let (_, middle) = net.add_box(INTERNET, Class::Home.cfg(), &[ip("5.1.0.1")], 1);
        let (_, a) = net.add_box(middle, Class::Home.cfg(), &[ip("100.64.0.2")], 2);
        let (_, b) = net.add_box(INTERNET, Class::Naiv.cfg(), &[ip("5.2.0.1")], 3);
        let plan = Plan { opener: Some(opener), ..Plan::both([0, 300]) };
        meet(net, [a, b], [ip("10.1.0.2"), ip("10.2.0.2")], plan).path
    };
    // Two boxes, three routers, and the sixth is the other's box.
    assert!(found(3) && found(5) && !found(6));
}

#[test]
fn firewalls_of_ipv6_are_passed_in_any_order() {
    for late in [[0, 0], [0, 300], [300, 0]] {
        let mut net = net();
        let realms = [1, 2].map(|site: u64| net.add_box(INTERNET, NatCfg::default(), &[], site).1);
        let found = meet_v6(net, realms, late);
        assert!(found, "{late:?}");
    }
}

/// Both know each other's address, as with IPv6 nobody needs a server for that.
fn meet_v6(mut net: Net, realms: [usize; 2], late: [u64; 2]) -> bool {
    let ends = [at("[2001:db8:a::2]:4711"), at("[2001:db8:b::2]:4711")];
    let hosts = [0, 1].map(|side| net.add_host(realms[side], &[ends[side].ip()]));
    let mut wires = Wires::new(net);
    let mut heard = [false; 2];
    let mut sends: Vec<(u64, usize)> =
        (0..4).flat_map(|n| [0, 1].map(|side| (late[side] + 100 * n, side))).collect();
    sends.sort_unstable();
    let mut arrive = |wires: &mut Wires<()>, until| {
        while let Some(arrival) = wires.next(Instant::from_micros(until * 1000)) {
            heard[hosts.iter().position(|host| *host == arrival.host).unwrap()] = true;
        }
    };
    for (when, side) in sends {
        arrive(&mut wires, when);
        wires.send(hosts[side], Header::udp(ends[side], ends[1 - side]), ());
    }
    arrive(&mut wires, 2_000);
    heard == [true; 2]
}

#[test]
fn a_home_translates_ipv4_and_only_guards_ipv6() {
    let mut net = net();
    let (_, lan) = net.add_box(INTERNET, NatCfg::default(), &[ip("5.1.0.1")], 1);
    let host = net.add_host(lan, &[ip("10.1.0.2"), ip("2001:db8:a::2")]);
    let server = net.add_host(INTERNET, &[ip("9.9.9.9"), ip("2001:db8:9::9")]);
    let mut wires = Wires::new(net);
    for (from, to, seen) in [
        ("10.1.0.2:5000", "9.9.9.9:1", "5.1.0.1:5000"),
        ("[2001:db8:a::2]:5000", "[2001:db8:9::9]:1", "[2001:db8:a::2]:5000"),
    ] {
        wires.send(server, Header::udp(at(to), at(seen)), ());
        assert_eq!(wires.next(wires.now() + Duration::from_secs(1)), None, "nobody asked");
        wires.send(host, Header::udp(at(from), at(to)), ());
        let there = wires.next(wires.now() + Duration::from_secs(1)).unwrap();
        assert_eq!((there.host, there.header.from), (server, at(seen)));
        wires.send(server, Header::udp(at(to), at(seen)), ());
        let back = wires.next(wires.now() + Duration::from_secs(1)).unwrap();
        assert_eq!((back.host, back.header.to), (host, at(from)));
    }
}

#[test]
fn a_small_link_tells_who_sends_too_much_or_swallows_it() {
    for silent in [false, true] {
        let mut net = net();
        let (gateway, lan) = net.add_box(INTERNET, NatCfg::default(), &[ip("5.1.0.1")], 1);
        let host = net.add_host(lan, &[ip("10.1.0.2")]);
        let server = net.add_host(INTERNET, &[ip("9.9.9.9")]);
        net.limit_box(gateway, 1280, silent);
        let mut wires = Wires::new(net);
        let header = Header::udp(at("10.1.0.2:1"), at("9.9.9.9:2"));
        let arrives = |wires: &mut Wires<()>, from: usize, header| {
            wires.send(from, header, ());
            wires
                .next(wires.now() + Duration::from_secs(1))
                .map(|arrival| (arrival.host, arrival.header.what))
        };
        assert_eq!(arrives(&mut wires, host, header.with_size(1280)), Some((server, What::Udp)));
        let back = Header::udp(at("9.9.9.9:2"), at("5.1.0.1:1"));
        for (from, header) in [(host, header), (server, back)] {
            // The small ones pass, which is what makes it a black hole.
            match arrives(&mut wires, from, header.with_size(1281)) {
                None => assert!(silent),
                Some((told, What::Icmp(about))) => {
                    assert!(!silent && told == from && about.trouble == Trouble::TooBig(1280));
                    assert_eq!((about.from, about.to), (header.from, header.to), "as its sender knows it");
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(wires.lost(Loss::TooBig), 2);
    }
}

#[test]
fn an_opener_that_dies_on_the_way_comes_back_as_an_error_and_leaves_the_way_open() {
    let mut net = net();
    let (_, lan) = net.add_box(INTERNET, NatCfg::default(), &[ip("5.1.0.1")], 1);
    let host = net.add_host(lan, &[ip("10.1.0.2")]);
    let peer = net.add_host(INTERNET, &[ip("9.9.9.9")]);
    let mut wires = Wires::new(net);
    wires.send(host, Header::udp(at("10.1.0.2:1"), at("9.9.9.9:2")).with_hops(2), ());
    let told = wires.next(wires.now() + Duration::from_secs(1)).unwrap();
    assert!(
        matches!(told.header.what, What::Icmp(about) if about.trouble == Trouble::HopLimit && about.from == at("10.1.0.2:1"))
    );
    assert_eq!((told.host, told.payload), (host, None));
    wires.send(peer, Header::udp(at("9.9.9.9:2"), at("5.1.0.1:1")), ());
    assert_eq!(wires.next(wires.now() + Duration::from_secs(1)).map(|arrival| arrival.host), Some(host));
}

#[test]
fn who_is_behind_a_translator_has_no_address_outside_and_who_moved_is_found_where_he_is() {
    let mut net = net();
    let (gateway, lan) = net.add_box(INTERNET, Class::Cone.cfg(), &[ip("5.1.0.1")], 1);
    let host = net.add_host(lan, &[ip("10.1.0.2")]);
    let server = net.add_host(INTERNET, &[ip("9.9.9.9")]);
    let mut wires = Wires::new(net);
    let arrives = |wires: &mut Wires<()>, from: usize, header| {
        wires.send(from, header, ());
        wires.next(wires.now() + Duration::from_secs(1)).map(|arrival| (arrival.host, arrival.header.from))
    };
    let (out, server_end) = (Header::udp(at("10.1.0.2:1"), at("9.9.9.9:2")), at("9.9.9.9:2"));
    assert_eq!(arrives(&mut wires, server, Header::udp(server_end, at("10.1.0.2:1"))), None);
    assert_eq!(wires.lost(Loss::NoRoute), 1);
    assert_eq!(arrives(&mut wires, host, out), Some((server, at("5.1.0.1:1"))));
    // The box gets another address: nobody is at the old one.
    wires.net.readdress(gateway, &[ip("5.1.0.9")]);
    assert_eq!(arrives(&mut wires, server, Header::udp(server_end, at("5.1.0.1:1"))), None);
    assert_eq!(wires.lost(Loss::NoRoute), 2);
    assert_eq!(arrives(&mut wires, host, out), Some((server, at("5.1.0.9:1"))));
    wires.net.reboot(gateway);
    assert_eq!(arrives(&mut wires, server, Header::udp(server_end, at("5.1.0.9:1"))), None);
    // The host leaves for the internet.
    wires.net.move_host(host, INTERNET, &[ip("5.2.0.2")]);
    let moved = Header::udp(at("5.2.0.2:1"), server_end);
    assert_eq!(arrives(&mut wires, host, moved), Some((server, at("5.2.0.2:1"))));
    assert_eq!(
        arrives(&mut wires, server, Header::udp(server_end, at("5.2.0.2:1"))).map(|it| it.0),
        Some(host)
    );
}

#[test]
fn tcp_crosses_two_homes_only_if_both_dial() {
    let cross = |a: Class, b: Class, both: bool| {
        let mut net = net();
        let lans = [(a, "5.1.0.1"), (b, "5.2.0.1")]
            .map(|(class, address)| net.add_box(INTERNET, class.cfg(), &[ip(address)], 1).1);
        let inner = [at("10.1.0.2:4711"), at("10.2.0.2:4711")];
        let outer = [at("5.1.0.1:4711"), at("5.2.0.1:4711")];
        let hosts = [0, 1].map(|side| net.add_host(lans[side], &[inner[side].ip()]));
        let mut wires = Wires::new(net);
        for side in if both { &[0, 1][..] } else { &[0][..] } {
            wires.send(hosts[*side], Header::tcp(inner[*side], outer[1 - side], Segment::Syn), ());
        }
        let mut opened = [false; 2];
        while let Some(arrival) = wires.next(Instant::ZERO + Duration::from_secs(3)) {
            let side = hosts.iter().position(|host| *host == arrival.host).unwrap();
            let back = Header::tcp(arrival.header.to, arrival.header.from, Segment::SynAck);
            match arrival.header.what {
                What::Tcp(Segment::Syn) => wires.send(hosts[side], back, ()),
                What::Tcp(Segment::SynAck) => opened[side] = arrival.header.from == outer[1 - side],
                _ => {}
            }
        }
        opened == [true; 2]
    };
    assert!(!cross(Class::Home, Class::Home, false));
    for (a, b) in [(Class::Home, Class::Home), (Class::Nudp, Class::Home), (Class::Nudp, Class::Cone)] {
        assert!(cross(a, b, true), "{a:?} {b:?}");
    }
    assert!(!cross(Class::Home, Class::Hard, true));
    assert!(!cross(Class::T443, Class::Home, true));
}
