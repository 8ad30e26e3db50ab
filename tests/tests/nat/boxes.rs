//! Kernel and model are asked what they are, and answer the same.

use crate::lab::{Lab, Site, alone};
use crate::rules::Rules;
use crate::vantage::Kernel;
use peerlink_core::time::Duration;
use peerlink_sim::nat::classify::{Found, Modelled, classify};
use peerlink_sim::nat::{Filtering, INTERNET, Mapping, NatCfg, Net};
use std::net::IpAddr;

#[test]
fn the_kernel_s_boxes_are_what_the_model_s_are() {
    alone("boxes", "boxes::inside");
}

/// Boxes behind each other.
const DOUBLE: [[Rules; 2]; 3] = [
    [Rules::Masquerade, Rules::Masquerade],
    [Rules::FullyRandom, Rules::Masquerade],
    [Rules::Masquerade, Rules::Naive],
];

fn modelled(rules: &[Rules]) -> Option<Found> {
    let mut net = Net::new(1, Duration::ZERO);
    let mut realm = INTERNET;
    for (level, (rules, address)) in rules.iter().zip(["5.5.1.2", "100.64.1.2"]).enumerate() {
        let address: IpAddr = address.parse().unwrap();
        realm = net.add_box(realm, rules.model(), &[address], u64::try_from(level).unwrap()).1;
    }
    classify(&mut Modelled::new(net, realm, "10.1.0.2".parse().unwrap()))
}

#[test]
#[ignore = "run by the test above, in namespaces of its own"]
fn inside() {
    let Some(lab) = Lab::enter() else { return };
    let single = Rules::ALL.into_iter().map(|rules| vec![rules]);
    let kinds: Vec<Vec<Rules>> = single.chain(DOUBLE.map(Vec::from)).collect();
    let sites: Vec<Site> = kinds.iter().enumerate().map(|(at, rules)| lab.site(at + 1, rules)).collect();
    let ask = |site: &Site, at: usize, v6: bool| {
        let port = 3000 + 4 * u16::try_from(at).unwrap() + if v6 { 2 } else { 0 };
        classify(&mut Kernel::new(site, v6, port))
    };
    let found: Vec<[Option<Found>; 2]> = std::thread::scope(|scope| {
        let asked: Vec<_> = sites
            .iter()
            .enumerate()
            .map(|(at, site)| [false, true].map(|v6| scope.spawn(move || ask(site, at, v6))))
            .collect();
        asked.into_iter().map(|both| both.map(|asked| asked.join().unwrap())).collect()
    });
    for (site, [v4, v6]) in sites.iter().zip(&found) {
        assert_eq!(*v4, modelled(&site.rules), "{:?}", site.rules);
        assert_eq!(*v6, guarded(&site.rules), "{:?}", site.rules);
    }
    // The control: no two of these are the same, though all are boxes of Linux.
    let told = |rules: Rules| found[Rules::ALL.iter().position(|it| *it == rules).unwrap()][0];
    let different = [
        Rules::Open,
        Rules::Firewall,
        Rules::Masquerade,
        Rules::Naive,
        Rules::FullyRandom,
        Rules::Block,
        Rules::FullCone,
        Rules::Restricted,
        Rules::PerAddress,
        Rules::TurningBack,
        Rules::UdpDropped,
    ];
    for (at, one) in different.into_iter().enumerate() {
        assert!(different.into_iter().skip(at + 1).all(|other| told(one) != told(other)), "{one:?}");
    }
    let count = found.len();
    println!("RAN boxes: {count} as their models, of {} kinds that differ", different.len());
}

/// IPv6 is translated nowhere; only some of these rules guard it.
fn guarded(rules: &[Rules]) -> Option<Found> {
    let blocked =
        rules.iter().any(|rules| matches!(rules, Rules::UdpDropped | Rules::UdpRejected | Rules::WebOnly));
    let guards = |rules: &Rules| !matches!(rules, Rules::Open | Rules::Naive | Rules::Refusing);
    let cfg = if rules.iter().any(guards) { NatCfg::firewall() } else { NatCfg::router() };
    let found = classify(&mut Modelled::behind(cfg, 1)).filter(|_| !blocked);
    if let Some(found) = &found {
        assert!(found.mapping == Mapping::Endpoint && found.filtering != Filtering::Address);
    }
    found
}
