//! Two peers who send to where the other was seen meet exactly where the closed form says so.

use crate::{FILTERS, MAPPINGS, PORTS};
use peerlink_core::time::Duration;
use peerlink_sim::nat::oracle::{Behaviour, Way, expected, punches};
use peerlink_sim::nat::punch::{Met, Plan, Role, apart};
use peerlink_sim::nat::{Class, NatCfg, Policy};

/// Both at once, and each first.
const ORDERS: [[u64; 2]; 3] = [[0, 0], [0, 300], [300, 0]];

/// Every treatment of UDP: nine of boxes that let it pass, and none.
fn behaviours() -> Vec<Behaviour> {
    let all = MAPPINGS.into_iter().flat_map(|mapping| FILTERS.map(|filtering| Some((mapping, filtering))));
    all.chain([None]).collect()
}

fn cfg(behaviour: Behaviour, ports: peerlink_sim::nat::Ports) -> NatCfg {
    match behaviour {
        Some((mapping, filtering)) => NatCfg::nat(mapping, filtering, ports),
        None => NatCfg { udp: Policy::Block, ..NatCfg::default() },
    }
}

#[test]
fn every_pair_meets_in_every_order_where_the_oracle_says_so() {
    let (mut tried, mut met) = (0, 0);
    for ports in PORTS {
        for a in behaviours() {
            for b in behaviours() {
                for order in ORDERS {
                    let found = apart(&cfg(a, ports), &cfg(b, ports), Plan::both(order), 11);
                    let wanted = [punches(a, b, false), punches(a, b, true)];
                    assert_eq!([found.heard, found.path], wanted, "{a:?} {b:?} {ports:?} {order:?}");
                    tried += 1;
                    met += usize::from(found.path);
                }
            }
        }
    }
    assert_eq!(tried, 5 * 100 * 3);
    assert_eq!(met, 5 * 42 * 3);
}

#[test]
fn the_oracle_counts_what_is_known_and_is_symmetric() {
    let all = behaviours();
    let count =
        |strict| all.iter().flat_map(|a| all.iter().filter(move |b| punches(*a, **b, strict))).count();
    // Of 81 ordered pairs; three meet on two one-way paths alone.
    assert_eq!((count(false), count(true)), (45, 42));
    for (a, b, strict) in all.iter().flat_map(|a| all.iter().flat_map(move |b| [(a, b, true), (a, b, false)]))
    {
        assert_eq!(punches(*a, *b, strict), punches(*b, *a, strict));
    }
}

#[test]
fn the_matrix_of_classes_is_this_one() {
    let mut table = String::new();
    for a in Class::ALL {
        let row = Class::ALL.map(|b| format!("{:<5}", expected(a, b).code())).join(" ");
        table += &format!("{:<4} {}\n", a.name(), row.trim_end());
    }
    let wanted = "\
OPEN D     D     R     R     R     R     R     R     Rt    Rt443
CONE D     D     R     R     R     R     R     R     S     X
ADF  D     D     P     P     T     P     P     P     S     X
HOME D     D     P     P     T     L     b     B     S     X
NAIV D     D     T     T     T     L     b     B     S     X
HSEQ D     D     P     L     L     L     X     X     X     X
HBLK D     D     P     b     b     X     X     X     X     X
HARD D     D     P     B     B     X     X     X     X     X
NUDP Dt    S     S     S     S     X     X     X     S     X
T443 Dt443 X     X     X     X     X     X     X     X     X
";
    assert_eq!(table, wanted);
}

fn try_ways(a: Class, b: Class) -> [bool; 4] {
    let (a, b) = (a.cfg(), b.cfg());
    let now = Role::Sends(Duration::ZERO);
    let alone = |roles| apart(&a, &b, Plan { roles, opener: None }, 3).path;
    let all =
        |plan: &dyn Fn([u64; 2]) -> Plan| ORDERS.iter().all(|order| apart(&a, &b, plan(*order), 3).path);
    [
        alone([now, Role::Answers]),
        alone([Role::Answers, now]),
        all(&Plan::both),
        all(&|order| Plan { opener: Some(3), ..Plan::both(order) }),
    ]
}

#[test]
fn each_cell_needs_what_its_code_says_and_no_less() {
    for a in Class::ALL {
        for b in Class::ALL {
            let [direct, reverse, both, opened] = try_ways(a, b);
            let found = match expected(a, b) {
                Way::Direct => direct,
                Way::Reverse => !direct && reverse,
                Way::Punch => !direct && !reverse && both && opened,
                // Poisoned, a box is symmetric for this peer, and who filters by address alone does not mind.
                Way::Opener => !direct && !reverse && opened && both == [a, b].contains(&Class::Adf),
                // Without a guess, or without UDP, nothing of this helps.
                _ => !direct && !reverse && !both && !opened,
            };
            assert!(found, "{a:?} to {b:?}: {direct} {reverse} {both} {opened}");
        }
    }
}

#[test]
fn openers_that_end_too_early_only_delay_and_those_that_go_too_far_poison() {
    let (home, naiv) = (Class::Home.cfg(), Class::Naiv.cfg());
    let with = |opener| apart(&home, &naiv, Plan { opener: Some(opener), ..Plan::both([0, 300]) }, 3);
    // The own box takes one, three routers the next three, and the fifth is the other's box.
    assert!((1..=4).all(|opener| with(opener).path));
    assert!(!with(5).path);
}

#[test]
fn who_meets_does_so_within_the_round_trips_there_are() {
    // 20 ms between any two doors: 40 ms for one round trip of peers.
    let trip = Duration::from_millis(40);
    let after = |a: Class, b: Class| apart(&a.cfg(), &b.cfg(), Plan::both([0, 0]), 3).after;
    assert_eq!(after(Class::Open, Class::Home), Some(trip));
    assert_eq!(after(Class::Home, Class::Home), Some(trip), "both send at once");
    assert_eq!(after(Class::Home, Class::Hard), None);
    // Only the hard side gets through, and is asked back at once.
    let learnt = after(Class::Adf, Class::Hard).unwrap();
    assert!(learnt <= trip + trip / 2, "{learnt:?}");
    let Met { heard, path, after } = apart(&Class::Nudp.cfg(), &Class::Open.cfg(), Plan::both([0, 0]), 3);
    assert_eq!((heard, path, after), (false, false, None));
}
