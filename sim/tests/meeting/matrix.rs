//! Everything against everything.

use crate::{ALICE, BOB, Call, MEET, STAY, TRIP, call, run, trips, word};
use peerlink_core::api::PathKind;
use peerlink_sim::limits::{MICROS_PER_MILLI as MILLI, MICROS_PER_SECOND as SECOND};
use peerlink_sim::nat::Class;
use peerlink_sim::nat::oracle::{Way, expected};
use peerlink_sim::{Home, Op, Outcome, relay};
use std::fmt::Write as _;

/// What each is called, and the class that it behaves as.
const PLACES: [(&str, Home, Class); 13] = [
    ("OPEN", Home::Open, Class::Open),
    ("OPEN443", Home::Open443, Class::Open),
    ("CONE", Home::Behind(Class::Cone), Class::Cone),
    ("ADF", Home::Behind(Class::Adf), Class::Adf),
    ("HOME", Home::Behind(Class::Home), Class::Home),
    ("FW", Home::Firewall, Class::Home),
    ("CGN", Home::Carrier, Class::Home),
    ("NAIV", Home::Behind(Class::Naiv), Class::Naiv),
    ("HSEQ", Home::Behind(Class::Hseq), Class::Hseq),
    ("HBLK", Home::Behind(Class::Hblk), Class::Hblk),
    ("HARD", Home::Behind(Class::Hard), Class::Hard),
    ("NUDP", Home::Behind(Class::Nudp), Class::Nudp),
    ("T443", Home::Behind(Class::T443), Class::T443),
];

const DIRECT: &[PathKind] = &[PathKind::Stream, PathKind::Datagram];
const DATAGRAM: &[PathKind] = &[PathKind::Datagram];
const STREAM: &[PathKind] = &[PathKind::Stream];
const RELAYED: &[PathKind] = &[PathKind::Relayed];

/// The paths that the closed form allows between two, of which one must be the last.
fn allowed(caller: (Home, Class), callee: (Home, Class)) -> &'static [PathKind] {
    match expected(caller.1, callee.1).without_search() {
        // Who listens on the internet takes streams as well, if they are let out to it.
        Way::Direct | Way::Reverse if caller.1 == Class::Open || callee.1 == Class::Open => DIRECT,
        Way::Direct | Way::Reverse | Way::Punch | Way::Opener => DATAGRAM,
        Way::DirectTcp | Way::ReverseTcp => STREAM,
        Way::Direct443 | Way::Reverse443 if [caller.0, callee.0].contains(&Home::Open443) => STREAM,
        _ => RELAYED,
    }
}

/// In round trips: the first message is there, whatever carries it, and later both are on the path that stays. Who maps
/// each way to another port is found at the second try.
const MESSAGE: u64 = 3;
const SETTLED: u64 = 7;
const SETTLED_HARD: u64 = 10;
/// Most datagrams to places where nobody may be, and when the last one has left.
const STRAYS: u64 = 32;
const TRIES_END: u64 = 5 * SECOND;

fn is_hard(class: Class) -> bool {
    matches!(class, Class::Hseq | Class::Hblk | Class::Hard)
}

/// Who finds no direct way stops trying.
fn tries_end(outcome: &Outcome) -> bool {
    let ends = |host: usize| {
        let sent = outcome.traffic[host];
        sent.strays <= STRAYS && sent.last_stray < MEET + TRIES_END
    };
    ends(ALICE) && ends(BOB)
}

#[test]
fn every_pair_ends_on_the_path_that_is_expected() {
    let mut table = format!("{:>8}", "");
    PLACES.iter().for_each(|(name, ..)| write!(table, " {name:<18}").unwrap());
    let mut wrong = Vec::new();
    for (caller, from, a) in PLACES {
        write!(table, "\n{caller:>8}").unwrap();
        for (callee, to, b) in PLACES {
            let outcome = run(call(1, [to, from]));
            let found = Call::of(&outcome);
            let wanted = allowed((from, a), (to, b));
            let settled = if is_hard(a) || is_hard(b) { SETTLED_HARD } else { SETTLED };
            let good = found.is_on(wanted)
                && (wanted != RELAYED || tries_end(&outcome))
                // What takes time beside the way is far less than a hundredth of a trip.
                && found.message <= MESSAGE * TRIP + MILLI
                && found.settled <= settled * TRIP + MILLI;
            if !good {
                let sent = &outcome.traffic[..2];
                wrong.push(format!("{caller} to {callee}: {found:?}, wanted {wanted:?}, {sent:?}"));
            }
            let last = found.last[ALICE].map_or("nothing", word);
            let times = format!("{}/{}", trips(found.message), trips(found.settled));
            write!(table, " {last:<8} {times:<9}").unwrap();
        }
    }
    let table: Vec<&str> = table.lines().map(str::trim_end).collect();
    println!("{}", table.join("\n"));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    insta::assert_snapshot!(table.join("\n"));
}

/// Neighbours: the last of them is in the network of the other, or behind the same provider.
#[test]
fn neighbours_end_on_the_path_that_is_expected() {
    let pairs = [
        ("one home", [Home::Behind(Class::Home), Home::Beside], DIRECT),
        ("one home, hairpin", [Home::Hairpin, Home::Beside], DIRECT),
        // The box leads nobody back in, and they do not see each other.
        ("isolated", [Home::Isolated, Home::Beside], RELAYED),
        ("isolated, hairpin", [Home::IsolatedHairpin, Home::Beside], DATAGRAM),
        // Each would reach the other's router, and neither knows the address that it has there: port mapping would say.
        ("one provider", [Home::Carrier, Home::Subscriber], RELAYED),
        ("one provider, hairpin", [Home::CarrierHairpin, Home::Subscriber], DATAGRAM),
    ];
    let mut table = String::new();
    for (name, homes, wanted) in pairs {
        let outcome = run(call(1, homes));
        let found = Call::of(&outcome);
        assert!(found.is_on(wanted), "{name}: {found:?}, wanted {wanted:?}");
        assert!(wanted != RELAYED || tries_end(&outcome), "{name}: {:?}", outcome.traffic);
        let last = found.last[ALICE].map_or("nothing", word);
        writeln!(table, "{name:<22} {last:<8} {}/{}", trips(found.message), trips(found.settled)).unwrap();
    }
    insta::assert_snapshot!(table.trim_end());
}

/// The same whatever the weather and whoever is first: only the time differs.
#[test]
fn the_path_depends_on_the_boxes_alone() {
    for seed in 0..PLACES.len() as u64 * 20 {
        let place = |at: u64| PLACES[usize::try_from(at).unwrap() % PLACES.len()];
        let ((caller, from, a), (callee, to, b)) = (place(seed), place(seed / 13 * 7 + seed));
        let mut scenario = call(seed, [to, from]);
        // One way takes from a millisecond to a quarter of a second, and up to half as much more.
        scenario.climate.latency = MILLI << (seed % 9);
        scenario.climate.jitter = scenario.climate.latency * (seed % 3) / 4;
        let share = [0, 20_000, 50_000][usize::try_from(seed / 3 % 3).unwrap()];
        for (from, to) in [(ALICE, BOB), (ALICE, relay(0)), (BOB, relay(0))] {
            for (from, to) in [(from, to), (to, from)] {
                scenario = scenario.with(MEET - 1, Op::LosePackets { from, to, share, lasts: STAY });
            }
        }
        scenario.climate.commit = MILLI;
        scenario.climate.hops = 3 + seed % 17;
        scenario.healed = MEET + 2 * STAY;
        let found = Call::of(&run(scenario));
        let wanted = allowed((from, a), (to, b));
        assert!(found.is_on(wanted), "seed {seed}, {caller} to {callee}: {found:?}, wanted {wanted:?}");
    }
}
