//! Who asks from outside finds what a box was configured to be.

use crate::{FILTERS, MAPPINGS, PORTS};
use peerlink_core::time::Duration;
use peerlink_sim::nat::classify::{Follow, Found, Modelled, Poison, classify};
use peerlink_sim::nat::{
    Clash, Class, Filtering, Hairpin, INTERNET, Mapping, NatCfg, Net, Pooling, Ports, Unsolicited,
};
use std::net::IpAddr;

fn found(cfg: NatCfg, seed: u64) -> Option<Found> {
    classify(&mut Modelled::behind(cfg, seed))
}

#[test]
fn every_combination_is_found_to_be_what_it_is() {
    let mut tried = 0;
    for mapping in MAPPINGS {
        for filtering in FILTERS {
            for (ports, follow) in PORTS.into_iter().zip([
                Follow::Preserved,
                Follow::Preserved,
                Follow::Sequence(1),
                Follow::Near,
                Follow::Spread,
            ]) {
                for hairpin in [Hairpin::No, Hairpin::ExternalSource, Hairpin::InternalSource] {
                    for overload in [false, true] {
                        for seed in 0..4 {
                            let cfg = NatCfg { hairpin, overload, ..NatCfg::nat(mapping, filtering, ports) };
                            let what = format!("{cfg:?} {seed}");
                            let found = found(cfg, seed).expect(&what);
                            assert_eq!((found.mapping, found.filtering), (mapping, filtering), "{what}");
                            assert_eq!((found.ports, found.translated), (follow, true), "{what}");
                            // Where nobody knows the next port, or no port is let in but the right one, it is not seen.
                            if mapping == Mapping::Endpoint || filtering == Filtering::Endpoint {
                                assert_eq!(found.hairpin, hairpin, "{what}");
                            }
                            tried += 1;
                        }
                    }
                }
            }
        }
    }
    assert_eq!(tried, 9 * 5 * 3 * 2 * 4);
}

#[test]
fn the_named_classes_are_what_their_names_say() {
    let class = |class: Class| {
        let found = found(class.cfg(), 5)?;
        Some((found.mapping, found.filtering, found.ports, found.translated))
    };
    use {Filtering as F, Follow::*, Mapping as M};
    assert_eq!(class(Class::Open), Some((M::Endpoint, F::Endpoint, Preserved, false)));
    assert_eq!(class(Class::Cone), Some((M::Endpoint, F::Endpoint, Preserved, true)));
    assert_eq!(class(Class::Adf), Some((M::Endpoint, F::Address, Preserved, true)));
    for home in [Class::Home, Class::Naiv] {
        assert_eq!(class(home), Some((M::Endpoint, F::AddressPort, Preserved, true)));
    }
    let poisoned =
        |class: Class| found(class.cfg(), 5).is_some_and(|found| found.poison == Poison::Newcomers);
    assert_eq!(Class::ALL.map(poisoned), Class::ALL.map(|class| class == Class::Naiv));
    assert_eq!(class(Class::Hseq), Some((M::AddressPort, F::AddressPort, Sequence(1), true)));
    assert_eq!(class(Class::Hblk), Some((M::AddressPort, F::AddressPort, Near, true)));
    assert_eq!(class(Class::Hard), Some((M::AddressPort, F::AddressPort, Spread, true)));
    assert_eq!((class(Class::Nudp), class(Class::T443)), (None, None));
    assert_eq!(
        found(NatCfg::firewall(), 1).map(|found| (found.filtering, found.translated)),
        Some((F::AddressPort, false))
    );
}

#[test]
fn what_is_done_with_unsolicited_packets_changes_no_class() {
    for unsolicited in [Unsolicited::Drop, Unsolicited::Icmp, Unsolicited::Reset, Unsolicited::ConfirmLocal] {
        for (mapping, filtering) in MAPPINGS.into_iter().flat_map(|it| FILTERS.map(|filter| (it, filter))) {
            let cfg = NatCfg { unsolicited, ..NatCfg::nat(mapping, filtering, Ports::Random) };
            let found = found(cfg, 1).unwrap();
            assert_eq!((found.mapping, found.filtering), (mapping, filtering), "{unsolicited:?}");
        }
    }
}

#[test]
fn two_boxes_behind_each_other_are_the_worse_of_both() {
    let random = Ports::Random;
    for (home_map, home_filter) in MAPPINGS.into_iter().flat_map(|it| FILTERS.map(|filter| (it, filter))) {
        for (isp_map, isp_filter) in MAPPINGS.into_iter().flat_map(|it| FILTERS.map(|filter| (it, filter))) {
            let mut net = Net::new(3, Duration::from_millis(10));
            let isp = NatCfg::nat(isp_map, isp_filter, random);
            let (_, subscribers) = net.add_box(INTERNET, isp, &["5.1.0.1".parse().unwrap()], 1);
            let home = NatCfg::nat(home_map, home_filter, random);
            let (_, lan) = net.add_box(subscribers, home, &["100.64.0.2".parse().unwrap()], 2);
            let found = classify(&mut Modelled::new(net, lan, "10.1.0.2".parse().unwrap())).unwrap();
            let worse = (home_map.max(isp_map), home_filter.max(isp_filter));
            assert_eq!(
                (found.mapping, found.filtering),
                worse,
                "{home_map:?} {home_filter:?} {isp_map:?} {isp_filter:?}"
            );
        }
    }
}

#[test]
fn a_pool_without_pairing_looks_symmetric() {
    let addresses: Vec<IpAddr> = (1..=4).map(|last| format!("5.1.0.{last}").parse().unwrap()).collect();
    let of = |pooling, mapping| {
        let mut net = Net::new(3, Duration::from_millis(10));
        let cfg = NatCfg {
            pooling,
            ..NatCfg::nat(mapping, Filtering::AddressPort, Ports::Preserving(Clash::Random))
        };
        let (_, lan) = net.add_box(INTERNET, cfg, &addresses, 3);
        classify(&mut Modelled::new(net, lan, "10.1.0.2".parse().unwrap())).unwrap().mapping
    };
    assert_eq!(of(Pooling::Paired, Mapping::Endpoint), Mapping::Endpoint);
    assert_eq!(of(Pooling::Arbitrary, Mapping::Endpoint), Mapping::Endpoint, "one mapping, one address");
    assert_eq!(of(Pooling::Arbitrary, Mapping::AddressPort), Mapping::AddressPort);
}
