//! The requirements of RFC 4787, and how boxes break them.

use crate::{Bench, at};
use peerlink_core::time::{Duration, Instant};
use peerlink_sim::nat::{
    Clash, Class, Filtering, Hairpin, Header, Lifetimes, Loss, Mapping, Nat, NatCfg, Policy, Pooling, Ports,
    Refresh, Trouble, Unsolicited, Verdict, What,
};
use std::collections::BTreeSet;
use std::net::IpAddr;

const A: &str = "10.0.0.2:5000";
const B: &str = "10.0.0.3:5000";
const S: &str = "9.9.9.9:3478";
const S_PORT: &str = "9.9.9.9:3479";
const T: &str = "8.8.8.8:3478";

fn bench(change: impl Fn(&mut NatCfg)) -> Bench {
    let mut cfg = NatCfg::default();
    change(&mut cfg);
    Bench::new(cfg)
}

#[test]
fn req_1_a_mapping_is_reused_as_the_configuration_says() {
    for (mapping, same) in [
        (Mapping::Endpoint, [true, true]),
        (Mapping::Address, [true, false]),
        (Mapping::AddressPort, [false, false]),
    ] {
        let mut bench = bench(|cfg| (cfg.mapping, cfg.ports) = (mapping, Ports::Random));
        let first = bench.out(A, S);
        assert_eq!(first, bench.out(A, S), "the same flow");
        assert_eq!([first == bench.out(A, S_PORT), first == bench.out(A, T)], same, "{mapping:?}");
        assert_ne!(first, bench.out("10.0.0.2:5001", S), "another socket");
    }
}

#[test]
fn req_2_paired_pooling_gives_one_host_one_address() {
    let addresses: Vec<IpAddr> = (1..=8).map(|last| format!("5.0.0.{last}").parse().unwrap()).collect();
    let seen = |pooling| {
        let cfg = NatCfg { pooling, ports: Ports::Random, ..NatCfg::default() };
        let mut nat = Nat::new(cfg, addresses.clone(), 3);
        let hosts = [2, 3, 4, 5].map(|host| {
            let used = (0..40).map(|port| {
                let header = Header::udp(at(&format!("10.0.0.{host}:{}", 2000 + port)), at(S));
                match nat.from_inside(Instant::ZERO, header) {
                    Verdict::Out(out) => out.from.ip(),
                    other => panic!("{other:?}"),
                }
            });
            used.collect::<BTreeSet<_>>()
        });
        (hosts.iter().all(|used| used.len() == 1), hosts.iter().flatten().collect::<BTreeSet<_>>().len() > 1)
    };
    assert_eq!(seen(Pooling::Paired), (true, true));
    assert_eq!(seen(Pooling::Arbitrary), (false, true));
}

#[test]
fn req_3_two_hosts_never_share_a_port_without_overloading() {
    for ports in [Ports::Preserving(Clash::Random), Ports::Preserving(Clash::Next)] {
        let mut bench = bench(|cfg| (cfg.overload, cfg.ports) = (false, ports));
        assert_eq!(bench.out(A, S).port(), 5000, "preserved");
        let clash = bench.out(B, T).port();
        assert_ne!(clash, 5000);
        assert!(ports != Ports::Preserving(Clash::Next) || clash == 5001, "{clash}");
    }
}

#[test]
fn an_overloading_box_shares_a_port_between_hosts_that_talk_to_different_endpoints() {
    let mut bench = bench(|_| {});
    assert_eq!((bench.out(A, S).port(), bench.out(B, T).port()), (5000, 5000));
    // Each hears from whom it talks to.
    assert_eq!(bench.inward(S, at("5.0.0.1:5000")), Ok(at(A)));
    assert_eq!(bench.inward(T, at("5.0.0.1:5000")), Ok(at(B)));
    // The same endpoint cannot be shared, and that makes the box symmetric for this one.
    let other = bench.out(B, S);
    assert_ne!(other.port(), 5000);
    assert_eq!(bench.inward(S, other), Ok(at(B)));
    assert_eq!(bench.out(B, T).port(), 5000);
}

#[test]
fn ports_follow_in_steps_or_stay_in_the_block_of_a_host_or_spread() {
    let ports = |ports, host: u8| {
        let mut bench = bench(|cfg| (cfg.mapping, cfg.ports) = (Mapping::AddressPort, ports));
        let mut out =
            |host: u8, at: u16| bench.out(&format!("10.0.0.{host}:5000"), &format!("9.9.9.9:{at}")).port();
        let first: Vec<u16> = (1..=200).map(|at| out(host, at)).collect();
        (first, out(host + 1, 1))
    };
    let (sequence, other) = ports(Ports::Sequential(2), 2);
    assert!(sequence.windows(2).all(|pair| pair[1] == pair[0] + 2 || pair[1] == 1024));
    assert_eq!(other, sequence[199] + 2, "one sequence for all hosts");
    let (block, other) = ports(Ports::Block(1024), 2);
    let first = block[0] / 1024;
    assert!(block.iter().all(|port| port / 1024 == first) && other / 1024 != first);
    assert_eq!(block.iter().collect::<BTreeSet<_>>().len(), 200);
    let (spread, _) = ports(Ports::Random, 2);
    assert!(spread.iter().any(|port| *port < 20_000) && spread.iter().any(|port| *port > 50_000));
    assert!(spread.iter().all(|port| *port >= 1024));
}

#[test]
fn a_full_block_and_a_limit_of_mappings_refuse_and_lose_nothing_else() {
    let mut small = bench(|cfg| (cfg.mapping, cfg.ports) = (Mapping::AddressPort, Ports::Block(8)));
    for port in 1..=8 {
        small.out(A, &format!("9.9.9.9:{port}"));
    }
    let ninth = Header::udp(at(A), at("9.9.9.9:9"));
    assert_eq!(small.out_with(ninth), Err(Loss::NoPort));
    small.out(A, "9.9.9.9:8");
    small.wait(31);
    assert!(small.out_with(ninth).is_ok(), "what is over is free");

    let mut limited = bench(|cfg| cfg.mappings_per_host = 2);
    limited.out("10.0.0.2:1", S);
    limited.out("10.0.0.2:2", S);
    assert_eq!(limited.out_with(Header::udp(at("10.0.0.2:3"), at(S))), Err(Loss::Limit));
    limited.out("10.0.0.3:3", S);
    assert_eq!(limited.nat.mappings(limited.now), 3);
}

#[test]
fn req_5_a_new_mapping_lives_as_long_as_it_says_and_a_stream_longer() {
    let mut bench = bench(|_| {});
    let outside = bench.out(A, S);
    assert_eq!(bench.wait(29).inward(S, outside), Ok(at(A)));
    // Two seconds with packets both ways make a stream.
    bench.out(A, S);
    assert_eq!(bench.wait(119).inward(S, outside), Ok(at(A)));
    assert_eq!(bench.wait(121).inward(S, outside), Err(Loss::NoMapping));
    // A short exchange does not.
    bench.out(A, S);
    bench.wait(1).inward(S, outside).unwrap();
    assert_eq!(bench.wait(31).inward(S, outside), Err(Loss::NoMapping));
    // One way alone does not, however long.
    for _ in 0..5 {
        bench.out(A, S);
        bench.wait(20);
    }
    assert_eq!(bench.wait(11).inward(S, outside), Err(Loss::NoMapping));
}

#[test]
fn req_6_packets_outward_prolong_and_packets_inward_if_it_says_so() {
    let lives = |refresh: Refresh, out: bool| {
        let mut bench = bench(|cfg| cfg.refresh = refresh);
        let outside = bench.out(A, S);
        for _ in 0..3 {
            bench.wait(20);
            if out {
                bench.out(A, S);
            } else if bench.inward(S, outside).is_err() {
                return false;
            }
        }
        bench.inward(S, outside).is_ok() && bench.out(A, S) == outside
    };
    let refresh = |out, inward| Refresh { out, inward };
    assert!(lives(refresh(true, true), true) && lives(refresh(true, false), true));
    assert!(lives(refresh(true, true), false) && lives(refresh(false, true), false));
    assert!(!lives(refresh(true, false), false));
}

#[test]
fn a_mapping_with_an_absolute_lifetime_ends_though_it_is_used() {
    let life = Lifetimes { absolute: Some(Duration::from_secs(60)), ..NatCfg::default().life };
    let mut bench = bench(|cfg| (cfg.life, cfg.ports) = (life, Ports::Random));
    let outside = bench.out(A, S);
    for _ in 0..59 {
        assert_eq!(bench.wait(1).out(A, S), outside);
        bench.inward(S, outside).unwrap();
    }
    let next = bench.wait(1).out(A, S);
    assert_ne!(next, outside);
    assert_eq!(bench.inward(S, outside), Err(Loss::NoMapping));
    assert_eq!(bench.inward(S, next), Ok(at(A)));
}

#[test]
fn req_8_filters_let_in_what_they_say() {
    for (filtering, passes) in [
        (Filtering::Endpoint, [true, true]),
        (Filtering::Address, [true, false]),
        (Filtering::AddressPort, [false, false]),
    ] {
        let mut bench = bench(|cfg| cfg.filtering = filtering);
        let outside = bench.out(A, S);
        let found = [S_PORT, T].map(|from| bench.inward(from, outside).is_ok());
        assert_eq!(found, passes, "{filtering:?}");
        assert_eq!(bench.inward(S, outside), Ok(at(A)));
        assert_eq!(bench.inward(S, at("5.0.0.1:5001")), Err(Loss::NoMapping));
        // What came in opens nothing for others.
        let others = [S_PORT, T].map(|from| bench.inward(from, outside).is_ok());
        assert_eq!(others, passes, "{filtering:?}");
    }
}

#[test]
fn what_is_filtered_prolongs_nothing() {
    let mut bench = bench(|_| {});
    let outside = bench.out(A, S);
    for _ in 0..29 {
        assert_eq!(bench.wait(1).inward(T, outside), Err(Loss::Filtered));
    }
    assert_eq!(bench.wait(1).inward(S, outside), Err(Loss::NoMapping));
}

#[test]
fn req_9_a_hairpin_comes_from_the_external_endpoint_or_wrongly_from_inside_or_not_at_all() {
    let turned = |hairpin| {
        let mut bench = bench(|cfg| (cfg.hairpin, cfg.filtering) = (hairpin, Filtering::Endpoint));
        let outside = bench.out("10.0.0.3:6000", S);
        bench.nat.from_inside(bench.now, Header::udp(at(A), outside))
    };
    let from = |verdict| match verdict {
        Verdict::In(header) => {
            assert_eq!(header.to, at("10.0.0.3:6000"));
            Ok(header.from)
        }
        Verdict::Lost(why, _) => Err(why),
        Verdict::Out(_) => panic!("it left"),
    };
    assert_eq!(from(turned(Hairpin::ExternalSource)), Ok(at("5.0.0.1:5000")));
    assert_eq!(from(turned(Hairpin::InternalSource)), Ok(at(A)));
    assert_eq!(from(turned(Hairpin::No)), Err(Loss::Hairpin));
}

#[test]
fn a_hairpin_passes_the_filter_of_who_it_is_for() {
    let mut bench = bench(|cfg| cfg.hairpin = Hairpin::ExternalSource);
    let [a, b] = [bench.out(A, S), bench.out("10.0.0.3:6000", S)];
    let mut turn = |from, to| bench.nat.from_inside(bench.now, Header::udp(from, to));
    assert_eq!(turn(at(A), b), Verdict::Lost(Loss::Filtered, None));
    // Now the other one was asked, and the next hears from whom it asked.
    assert!(
        matches!(turn(at("10.0.0.3:6000"), a), Verdict::In(header) if header.from == b && header.to == at(A))
    );
    assert!(matches!(turn(at(A), b), Verdict::In(header) if header.from == a));
}

#[test]
fn req_10_and_12_errors_pass_translated_and_end_no_mapping() {
    let mut bench = bench(|_| {});
    let outside = bench.out(A, S);
    let error = Header::udp(outside, at(S)).complaint("7.7.7.7".parse().unwrap(), Trouble::HopLimit).unwrap();
    let Verdict::In(seen) = bench.nat.from_outside(bench.now, error) else { panic!("it did not pass") };
    let What::Icmp(about) = seen.what else { panic!("no error any more") };
    assert_eq!((about.from, about.to, seen.to.ip()), (at(A), at(S), at(A).ip()));
    assert_eq!(bench.inward(S, outside), Ok(at(A)));
    // About something that nobody sent.
    let invented =
        Header::udp(outside, at(T)).complaint("7.7.7.7".parse().unwrap(), Trouble::HopLimit).unwrap();
    assert_eq!(bench.nat.from_outside(bench.now, invented), Verdict::Lost(Loss::NoMapping, None));
    // An inside host's own goes out as if the box had said it.
    let inner = Header::udp(at(S), at(A)).complaint(at(A).ip(), Trouble::PortUnreachable).unwrap();
    let Verdict::Out(seen) = bench.nat.from_inside(bench.now, inner) else { panic!("it did not pass") };
    assert!(matches!(seen.what, What::Icmp(about) if about.to == outside && seen.from.ip() == outside.ip()));
    // Errors are not answered by errors.
    assert_eq!(error.complaint("7.7.7.7".parse().unwrap(), Trouble::HopLimit), None);
}

#[test]
fn req_11_a_box_does_not_change_its_kind_under_clashes_unless_it_overloads() {
    let mut bench = bench(|cfg| cfg.overload = false);
    for host in 2..100 {
        let from = format!("10.0.0.{host}:5000");
        let seen = [S, S_PORT, T].map(|to| bench.out(&from, to));
        assert!(seen.iter().all(|other| *other == seen[0]), "{seen:?}");
    }
}

#[test]
fn a_packet_whose_hops_end_here_opens_nothing_and_one_that_ends_later_does() {
    let mut bench = bench(|_| {});
    let last = Header::udp(at(A), at(S)).with_hops(1);
    let Verdict::Lost(Loss::HopLimit, Some(told)) = bench.nat.from_inside(bench.now, last) else {
        panic!("it passed")
    };
    assert_eq!(told.to.ip(), at(A).ip());
    assert_eq!(bench.nat.mappings(bench.now), 0);
    assert_eq!(bench.out_with(last.with_hops(2)), Ok(at("5.0.0.1:5000")));
    assert_eq!(bench.inward(S, at("5.0.0.1:5000")), Ok(at(A)));
}

#[test]
fn what_nobody_asked_for_is_dropped_or_answered() {
    let answer = |unsolicited| {
        let mut bench = bench(|cfg| cfg.unsolicited = unsolicited);
        match bench.nat.from_outside(bench.now, Header::udp(at(S), at("5.0.0.1:5000"))) {
            Verdict::Lost(Loss::NoMapping, answer) => answer.map(|answer| answer.what),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(answer(Unsolicited::Drop), None);
    for told in [Unsolicited::Icmp, Unsolicited::Reset, Unsolicited::ConfirmLocal] {
        assert!(matches!(answer(told), Some(What::Icmp(about)) if about.trouble == Trouble::PortUnreachable));
    }
}

#[test]
fn a_packet_that_came_too_early_poisons_the_mapping_for_its_sender_and_for_newcomers() {
    let mut bench = Bench::new(Class::Naiv.cfg());
    assert_eq!(bench.out(A, S).port(), 5000);
    bench.inward(T, at("5.0.0.1:5000")).unwrap_err();
    let poisoned = bench.out(A, T);
    assert_ne!(poisoned.port(), 5000);
    assert_eq!(bench.inward(T, poisoned), Ok(at(A)));
    // Who was known keeps the port, who is new gets the other one.
    assert_eq!(bench.out(A, S).port(), 5000);
    assert_eq!(bench.out(A, S_PORT), poisoned);
    assert_eq!(bench.inward(S, at("5.0.0.1:5000")), Ok(at(A)));
    // Each further one keeps it so, and those are not let in.
    for _ in 0..4 {
        assert_eq!(bench.wait(20).inward(T, at("5.0.0.1:5000")), Err(Loss::Local));
        assert_eq!((bench.out(A, T), bench.out(A, S).port()), (poisoned, 5000));
    }
    // Nothing for a while, and it is over.
    assert_eq!(bench.wait(130).out(A, T).port(), 5000);
    // Before anything was mapped it is the same.
    bench.wait(200);
    bench.inward(T, at("5.0.0.1:5000")).unwrap_err();
    let poisoned = bench.out(A, T);
    assert_ne!(poisoned.port(), 5000);
    assert_eq!(bench.out(A, S), poisoned);
    // Who was asked first poisons nothing.
    bench.wait(200);
    assert_eq!(bench.out(A, T).port(), 5000);
    bench.inward(T, at("5.0.0.1:5000")).unwrap();
    assert_eq!(bench.out(A, T).port(), 5000);
}

#[test]
fn errors_about_packets_that_came_in_find_their_mapping_whichever_it_is() {
    let mut bench = Bench::new(Class::Naiv.cfg());
    bench.out(A, S);
    bench.inward(T, at("5.0.0.1:5000")).unwrap_err();
    let newer = bench.out(A, T);
    for (remote, outside) in [(S, at("5.0.0.1:5000")), (T, newer)] {
        let error = Header::udp(at(remote), at(A)).complaint(at(A).ip(), Trouble::PortUnreachable).unwrap();
        let Verdict::Out(seen) = bench.nat.from_inside(bench.now, error) else { panic!("it did not pass") };
        assert!(matches!(seen.what, What::Icmp(about) if about.to == outside), "{remote}");
    }
}

#[test]
fn policies_block_in_silence_or_aloud_or_by_port() {
    let out = |policy: Policy, to| {
        let mut bench = bench(|cfg| cfg.udp = policy.clone());
        match bench.nat.from_inside(bench.now, Header::udp(at(A), at(to))) {
            Verdict::Out(_) => Ok(()),
            Verdict::Lost(why, told) => Err((why, told.is_some())),
            Verdict::In(_) => panic!("turned back"),
        }
    };
    assert_eq!(out(Policy::Block, S), Err((Loss::Policy, false)));
    assert_eq!(out(Policy::Reject, S), Err((Loss::Policy, true)));
    assert_eq!(out(Policy::Only(vec![443]), S), Err((Loss::Policy, false)));
    assert_eq!(out(Policy::Only(vec![443]), "9.9.9.9:443"), Ok(()));
    let mut blocked = bench(|cfg| cfg.udp = Policy::Block);
    blocked.lease(A, 100).unwrap();
    assert_eq!(blocked.inward(S, at("5.0.0.1:5000")), Err(Loss::Policy));
}

#[test]
fn a_reboot_and_a_new_address_forget_every_mapping() {
    let mut preserving = bench(|_| {});
    let outside = preserving.out(A, S);
    preserving.nat.reboot();
    assert_eq!(preserving.inward(S, outside), Err(Loss::NoMapping));
    assert_eq!(preserving.out(A, S), outside, "the port is the inside one again");

    let mut random = bench(|cfg| cfg.ports = Ports::Random);
    let outside = random.out(A, S);
    random.nat.reboot();
    assert_ne!(random.out(A, S), outside);

    preserving.nat.readdress(vec!["5.0.0.9".parse().unwrap()]);
    assert_eq!(preserving.out(A, S), at("5.0.0.9:5000"));
    assert_eq!(preserving.inward(S, at("5.0.0.1:5000")), Err(Loss::NoMapping));
}

#[test]
fn a_lease_lets_everybody_in_until_it_ends_whatever_the_box_is() {
    for mapping in crate::MAPPINGS {
        let mut bench = bench(|cfg| (cfg.mapping, cfg.ports) = (mapping, Ports::Random));
        let outside = bench.lease(A, 3600).unwrap();
        assert_eq!(bench.inward(T, outside), Ok(at(A)));
        assert_eq!([S, S_PORT, T].map(|to| bench.out(A, to)), [outside; 3], "{mapping:?}");
        assert_eq!(bench.wait(3500).inward(S, outside), Ok(at(A)), "it needs no packets");
        assert_eq!(bench.lease(A, 3600), Ok(outside), "renewed");
        assert_eq!(bench.wait(3500).inward(S, outside), Ok(at(A)));
        bench.lease(A, 0).unwrap();
        bench.wait(121);
        assert_eq!(bench.inward(S, outside), Err(Loss::NoMapping));
        let seen: BTreeSet<_> = [S, S_PORT, T].map(|to| bench.out(A, to)).into();
        assert_eq!(seen.len() == 1, mapping == Mapping::Endpoint);
    }
}

#[test]
fn who_came_in_by_a_lease_was_not_asked_for_when_it_has_ended() {
    let mut bench = bench(|_| {});
    let outside = bench.lease(A, 10).unwrap();
    bench.out(A, S);
    assert_eq!(bench.wait(5).inward(T, outside), Ok(at(A)));
    assert_eq!(bench.wait(6).inward(T, outside), Err(Loss::Filtered));
    assert_eq!(bench.inward(S, outside), Ok(at(A)));
}

#[test]
fn a_firewall_translates_nothing_and_lets_in_what_was_asked_for_in_both_families() {
    for [inside, remote, other] in [
        ["10.0.0.2:5000", "9.9.9.9:1", "9.9.9.9:2"],
        ["[2001:db8:1::2]:5000", "[2001:db8:9::9]:1", "[2001:db8:9::9]:2"],
    ] {
        let mut bench = Bench::new(NatCfg::firewall());
        assert_eq!(bench.inward(remote, at(inside)), Err(Loss::NoMapping));
        assert_eq!(bench.out(inside, remote), at(inside));
        assert_eq!(bench.inward(remote, at(inside)), Ok(at(inside)));
        assert_eq!(bench.inward(other, at(inside)), Err(Loss::Filtered));
        assert_eq!(bench.lease(inside, 100), Err(Loss::NoMapping));
        // A router knows nothing and passes everything.
        let mut router = Bench::new(NatCfg::router());
        assert_eq!(router.inward(remote, at(inside)), Ok(at(inside)));
    }
}

#[test]
fn the_same_seed_gives_the_same_ports() {
    let ports = |seed| {
        let mut nat = Nat::new(Class::Hard.cfg(), vec!["5.0.0.1".parse().unwrap()], seed);
        (1..50)
            .map(|port| nat.from_inside(Instant::ZERO, Header::udp(at(A), at(&format!("9.9.9.9:{port}")))))
            .collect::<Vec<_>>()
    };
    assert_eq!(ports(1), ports(1));
    assert_ne!(ports(1), ports(2));
}
