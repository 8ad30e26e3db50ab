//! Relays between people: what they carry, and what it costs when they die, fall silent, or are left for others.

use peerlink_core::api::PathKind;
use peerlink_sim::fate::MILLION;
use peerlink_sim::limits::MICROS_PER_SECOND as SECOND;
use peerlink_sim::nat::Class;
use peerlink_sim::probe::Probe;
use peerlink_sim::{Block, Fault, Home, Op, Outcome, Print, Scenario, Turn, World, relay};

const ALICE: usize = 0;
const BOB: usize = 1;
/// Everybody has met by then.
const MET: u64 = 5 * SECOND;

/// Two hosts that never find a direct way, and so many relays.
fn apart(seed: u64, relays: usize) -> Scenario {
    let mut scenario = Scenario { datagrams: true, relays, ..Scenario::calm(seed) };
    (scenario.homes[ALICE], scenario.homes[BOB]) = (Home::Behind(Class::Hard), Home::Behind(Class::Home));
    scenario
}

fn run(scenario: Scenario) -> Outcome {
    let outcome = World::new(scenario, Print::Nothing).run();
    assert_eq!(outcome.violation, None);
    outcome
}

/// Both write so many messages, one every second.
fn both_write(mut scenario: Scenario, count: u64) -> Scenario {
    for n in 0..count {
        for host in [ALICE, BOB] {
            scenario = scenario.with(MET + n * SECOND, Op::Send { host, to: 1 - host, bytes: 500 });
        }
    }
    scenario
}

fn paths(outcome: &Outcome) -> Vec<PathKind> {
    let path = |turn| if let Turn::Path(path) = turn { path } else { None };
    outcome.moments.iter().filter_map(|moment| path(moment.turn)).collect()
}

#[test]
fn who_finds_no_direct_way_is_reached_through_a_relay_and_stays_there() {
    for relays in [1, 2] {
        let outcome = run(both_write(apart(1, relays), 20));
        assert_eq!((outcome.sent, outcome.delivered), (40, 40));
        assert!(paths(&outcome).iter().all(|path| *path == PathKind::Relayed));
        assert_eq!(outcome.met.of(Probe::RelayedSession), 2);
    }
}

#[test]
fn a_relay_that_dies_comes_back_or_falls_silent_costs_time_and_nothing_else() {
    let lasts = 8 * SECOND;
    let crash =
        |power| Op::Crash { host: relay(0), outputs: 1, writing: false, power, kept: MILLION, down: lasts };
    let cut = |host| Op::Partition { from: relay(0), to: host, how: Block::Silent, both: true, lasts };
    let late = |host| Op::Clog { from: relay(0), to: host, delay: 2 * SECOND, lasts };
    let loses = |host| Op::LosePackets { from: relay(0), to: host, share: MILLION / 3, lasts };
    let faults = [
        (crash(true), Fault::RelayDied),
        (crash(false), Fault::RelayDied),
        (Op::Restart { host: relay(0), down: lasts }, Fault::RelayDied),
        (cut(ALICE), Fault::RelayCutOff),
        (cut(BOB), Fault::RelayCutOff),
        (late(ALICE), Fault::RelayLate),
        (loses(BOB), Fault::PacketLost),
    ];
    for (op, fault) in faults {
        let outcome = run(both_write(apart(2, 1), 25).with(MET + 5 * SECOND, op));
        assert_eq!((outcome.sent, outcome.delivered), (50, 50), "{op}");
        assert!(outcome.faults.of(fault) > 0, "{op}");
    }
}

#[test]
fn a_home_relay_that_is_left_for_another_is_found_by_contacts() {
    // The ticket names the first alone, which is gone for long once they have met.
    let mut scenario = both_write(apart(3, 2), 50)
        .with(MET + 20 * SECOND, Op::UseRelay { host: ALICE, relay: relay(1) })
        .with(MET + 23 * SECOND, Op::Restart { host: relay(0), down: 90 * SECOND });
    scenario.healed = 60 * SECOND;
    let outcome = run(scenario);
    assert_eq!((outcome.sent, outcome.delivered), (100, 100));
    assert!(outcome.healed_after < SECOND, "{}", outcome.healed_after);
}
