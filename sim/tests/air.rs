//! Datagrams: what the weather and somebody on the way do to them, one world each; and what they carry how fast.

use peerlink_sim::fate::MILLION;
use peerlink_sim::limits::{MICROS_PER_MILLI as MILLI, MICROS_PER_SECOND as SECOND};
use peerlink_sim::nat::Class;
use peerlink_sim::probe::Probe;
use peerlink_sim::{Fault, Home, Op, Outcome, Print, Scenario, Touch, World};
use std::fmt::Write as _;

const ALICE: usize = 0;
const BOB: usize = 1;
/// Everybody has met by then.
const MET: u64 = 5 * SECOND;

/// Two hosts without streams.
fn air(seed: u64) -> Scenario {
    Scenario { datagrams: true, streams: false, ..Scenario::calm(seed) }
}

fn run(scenario: Scenario) -> Outcome {
    let outcome = World::new(scenario, Print::Nothing).run();
    assert_eq!(outcome.violation, None);
    outcome
}

/// Both write so many messages of so many bytes, one every `every`.
fn both_write(mut scenario: Scenario, count: u64, every: u64, bytes: u32) -> Scenario {
    for n in 0..count {
        for host in [ALICE, BOB] {
            scenario = scenario.with(MET + n * every, Op::Send { host, to: 1 - host, bytes });
        }
    }
    scenario
}

/// One session stood all along.
fn lasted(outcome: &Outcome) {
    let ends = [Probe::Silent, Probe::Lost, Probe::Goodbye].map(|probe| outcome.met.of(probe));
    assert_eq!((outcome.met.of(Probe::DatagramSession), ends), (2, [0, 0, 0]));
}

#[test]
fn where_no_stream_is_taken_datagrams_carry_everything() {
    let outcome = run(both_write(air(1), 50, SECOND / 10, 1000));
    assert_eq!((outcome.sent, outcome.delivered), (100, 100));
    lasted(&outcome);
}

#[test]
fn what_is_lost_doubled_and_overtaken_costs_time_and_nothing_else() {
    for seed in 0..8 {
        let (from, to) = if seed % 2 == 0 { (ALICE, BOB) } else { (BOB, ALICE) };
        let lasts = 20 * SECOND;
        let scenario = both_write(air(seed), 100, SECOND / 20, 3000)
            .with(MET, Op::LosePackets { from, to, share: MILLION / 5, lasts })
            .with(MET, Op::DoublePackets { from: to, to: from, share: MILLION / 5, lasts })
            .with(MET, Op::ScatterPackets { from, to, by: 100 * MILLI, lasts });
        let outcome = run(scenario);
        assert_eq!((outcome.sent, outcome.delivered), (200, 200));
        for fault in [Fault::PacketLost, Fault::PacketDoubled, Fault::PacketScattered] {
            assert!(outcome.faults.of(fault) > 20, "{}", fault.name());
        }
        lasted(&outcome);
    }
}

#[test]
fn nothing_arrives_in_one_direction_for_a_while() {
    for (from, to) in [(ALICE, BOB), (BOB, ALICE)] {
        let hole = Op::LosePackets { from, to, share: MILLION, lasts: 20 * SECOND };
        let outcome = run(both_write(air(2), 20, SECOND, 100).with(MET + SECOND, hole));
        assert_eq!((outcome.sent, outcome.delivered), (40, 40));
        assert!(outcome.faults.of(Fault::PacketHole) > 0);
    }
}

#[test]
fn a_session_goes_on_from_another_address_that_nobody_announced() {
    let mut scenario = both_write(air(3), 80, SECOND / 4, 2000);
    for n in 1..=4 {
        scenario = scenario.with(MET + n * 4 * SECOND, Op::Rebind { host: BOB });
    }
    let outcome = run(scenario);
    assert_eq!((outcome.sent, outcome.delivered), (160, 160));
    assert!(outcome.met.of(Probe::PathChanged) >= 4);
    lasted(&outcome);
}

#[test]
fn somebody_on_the_way_ends_no_session_whatever_he_does() {
    let all = [
        (Touch::Flip, Fault::PacketFlipped),
        (Touch::Cut, Fault::PacketCut),
        (Touch::Forge, Fault::PacketForged),
        (Touch::Replay, Fault::PacketReplayed),
        (Touch::Elsewhere, Fault::PacketFromElsewhere),
        (Touch::Hold, Fault::PacketHeld),
        (Touch::Splice, Fault::PacketSpliced),
        (Touch::Reflect, Fault::PacketReflected),
        (Touch::Knock, Fault::Knocked),
    ];
    for (how, fault) in all {
        let mut scenario = both_write(air(4), 60, SECOND / 10, 2000);
        for n in 0..20u64 {
            let (from, to) = if n % 2 == 0 { (ALICE, BOB) } else { (BOB, ALICE) };
            let after = u32::try_from(n % 5).unwrap();
            let touch = Op::TouchPacket { from, to, how, after, salt: n.wrapping_mul(0x9e37_79b9_7f4a_7c15) };
            scenario = scenario.with(MET + n * SECOND / 4, touch);
        }
        let outcome = run(scenario);
        assert_eq!((outcome.sent, outcome.delivered), (120, 120), "{how:?}");
        assert!(outcome.faults.of(fault) >= 10, "{how:?}: {}", outcome.faults.of(fault));
        lasted(&outcome);
    }
}

#[test]
fn who_begins_a_session_gets_in_however_many_pretend_to() {
    // Alice is asked by hundreds at once while Bob, whose process is new, wants in as well.
    let mut scenario = air(5);
    for n in 0..30 {
        let knock = Op::TouchPacket { from: BOB, to: ALICE, how: Touch::Knock, after: 0, salt: n };
        scenario = scenario.with(MET + SECOND, knock);
    }
    let scenario = scenario
        .with(MET, Op::Send { host: BOB, to: ALICE, bytes: 100 })
        .with(MET + SECOND, Op::Restart { host: BOB, down: SECOND })
        .with(MET + 3 * SECOND, Op::Send { host: BOB, to: ALICE, bytes: 100 });
    let outcome = run(scenario);
    assert_eq!((outcome.sent, outcome.delivered), (2, 2));
    assert!(outcome.faults.of(Fault::Knocked) > 0 && outcome.met.of(Probe::CookieAsked) > 0);
}

#[test]
fn who_is_behind_a_box_dials_and_is_found_again_when_it_forgot() {
    let classes = [
        Class::Cone,
        Class::Adf,
        Class::Home,
        Class::Naiv,
        Class::Hseq,
        Class::Hblk,
        Class::Hard,
        Class::Nudp,
    ];
    let boxes = classes.map(Home::Behind).into_iter().chain([Home::Firewall, Home::Carrier]);
    for home in boxes {
        let mut scenario = both_write(air(7), 20, SECOND, 1000)
            .with(MET + 10 * SECOND, Op::Rebind { host: BOB })
            .with(MET + 20 * SECOND, Op::Send { host: BOB, to: ALICE, bytes: 10 });
        (scenario.homes[BOB], scenario.lives) = (home, 30);
        scenario.streams = home == Home::Behind(Class::Nudp);
        let outcome = run(scenario);
        assert_eq!((outcome.sent, outcome.delivered), (41, 41), "{home:?}");
        let by_datagrams = outcome.met.of(Probe::DatagramSession) > 0;
        assert_eq!(by_datagrams, home != Home::Behind(Class::Nudp), "{home:?}");
    }
}

/// Messages of 200 bytes in one go, and how many a second are proven to be delivered: the middle of some worlds. The world
/// looks for that ten times a second.
#[test]
fn messages_per_second_by_loss_and_round_trip() {
    const MESSAGES: u64 = 3000;
    let rate = |seed: u64, loss: u64, round_trip: u64| {
        let mut scenario = air(seed);
        scenario.healed = MET;
        for _ in 0..MESSAGES {
            scenario = scenario.with(MET - 1, Op::Send { host: ALICE, to: BOB, bytes: 200 });
        }
        (scenario.climate.latency, scenario.climate.jitter) = (round_trip * MILLI / 2, 0);
        scenario.climate.loss = loss;
        let outcome = run(scenario);
        assert_eq!(outcome.delivered, MESSAGES);
        MESSAGES * SECOND / outcome.healed_after.max(1)
    };
    let mut table = String::from("   loss     10 ms     50 ms    200 ms\n");
    for loss in [0, 1_000, 10_000, 50_000] {
        write!(table, "{:5}.{} %", loss / 10_000, loss / 1_000 % 10).unwrap();
        for round_trip in [10, 50, 200] {
            let mut rates: Vec<u64> = (0..5).map(|seed| rate(seed, loss, round_trip)).collect();
            rates.sort_unstable();
            write!(table, "{:8}/s", rates[2]).unwrap();
        }
        table.push('\n');
    }
    insta::assert_snapshot!(table);
}
