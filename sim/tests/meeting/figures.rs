//! What it takes in round trips between two hosts, and what it costs to be there without a word.

use crate::{ALICE, BOB, MEET, STAY, call, run, trips};
use peerlink_sim::fate::MILLION;
use peerlink_sim::limits::{MICROS_PER_MILLI as MILLI, MICROS_PER_SECOND as SECOND};
use peerlink_sim::nat::Class;
use peerlink_sim::{Home, Op, Outcome, Scenario, Turn, relay};
use std::fmt::Write as _;

/// When something happens to two who have long been on the path that stays.
const THEN: u64 = MEET + STAY;

/// Both on the internet, behind usual homes, where only a relay leads, and where there are no datagrams.
const PAIRS: [(&str, Home); 4] = [
    ("OPEN", Home::Open),
    ("HOME", Home::Behind(Class::Home)),
    ("HARD", Home::Behind(Class::Hard)),
    ("NUDP", Home::Behind(Class::Nudp)),
];

/// Two of a kind, whom a message of each follows what happens at [`THEN`], as soon as they know of it or before.
fn after(home: Home, relays: usize, what: &[Op]) -> Outcome {
    let mut scenario = Scenario { relays, ..call(1, [home, home]) };
    scenario.healed = THEN + 2 * STAY;
    for op in what {
        scenario = scenario.with(THEN, *op);
    }
    for host in [ALICE, BOB] {
        scenario = scenario.with(THEN + MILLI, Op::Send { host, to: 1 - host, bytes: 100 });
    }
    run(scenario)
}

/// From `since` on: when the message of each has reached the other, Alice's first.
fn reached(outcome: &Outcome, since: u64) -> [u64; 2] {
    [BOB, ALICE].map(|host| {
        let came = |it: &&peerlink_sim::Moment| it.host == host && it.turn == Turn::Came && it.at > THEN;
        outcome.moments.iter().find(came).map_or(u64::MAX, |it| it.at.saturating_sub(since))
    })
}

#[test]
fn round_trips_until_a_message_is_there_again() {
    let restart = Op::Restart { host: BOB, down: SECOND };
    let moves = |told| Op::Move { host: BOB, told };
    let crash =
        Op::Crash { host: relay(0), outputs: 1, writing: false, power: true, kept: MILLION, down: STAY };
    let faults: [(&str, usize, &[Op]); 6] = [
        ("nothing", 1, &[]),
        ("Bob's node starts", 1, &[restart]),
        ("Bob's address, told", 1, &[moves(true)]),
        ("Bob's address, untold", 1, &[moves(false)]),
        ("Bob's box starts", 1, &[Op::Rebind { host: BOB }]),
        ("one of two relays dies", 2, &[crash]),
    ];
    let mut table = format!("{:<24}", "");
    PAIRS.iter().for_each(|(name, _)| write!(table, "{name:<16}").unwrap());
    for (what, relays, ops) in faults {
        write!(table, "\n{what:<24}").unwrap();
        for (_, home) in PAIRS {
            let outcome = after(home, relays, ops);
            let started =
                |it: &&peerlink_sim::Moment| it.turn == Turn::Started && it.at > THEN && it.host == BOB;
            let since = outcome.moments.iter().find(started).map_or(THEN + MILLI, |it| it.at);
            let [of_alice, of_bob] = reached(&outcome, since).map(trips);
            write!(table, "{:<16}", format!("{of_alice} / {of_bob}")).unwrap();
        }
    }
    let table: Vec<&str> = table.lines().map(str::trim_end).collect();
    println!("{}", table.join("\n"));
    insta::assert_snapshot!(table.join("\n"));
}

/// What keeping one path alive may cost in an hour: 350 bytes a minute.
const MOST_BYTES: u64 = 350 * 60;

/// What Alice sends in an hour without a word, to so many contacts behind usual homes and to her relay: packets and bytes.
fn idle(home: Home, contacts: usize) -> (u64, u64) {
    let until = |healed: u64| {
        let mut scenario = Scenario { hosts: contacts + 1, ..call(1, [home, Home::Behind(Class::Home)]) };
        scenario.homes[2..=contacts].fill(Home::Behind(Class::Home));
        scenario.healed = healed;
        let sent = run(scenario).traffic[ALICE];
        (sent.packets + sent.segments, sent.bytes + sent.segment_bytes)
    };
    // The beginning is the same to the byte.
    let ((packets, bytes), (before, bytes_before)) = (until(THEN + 3600 * SECOND), until(THEN));
    (packets - before, bytes - bytes_before)
}

#[test]
fn packets_and_bytes_of_an_idle_hour() {
    let places = [
        ("OPEN", Home::Open),
        ("CONE", Home::Behind(Class::Cone)),
        ("HOME", Home::Behind(Class::Home)),
        ("HARD", Home::Behind(Class::Hard)),
        ("NUDP", Home::Behind(Class::Nudp)),
        ("T443", Home::Behind(Class::T443)),
    ];
    let mut table = format!("{:<6}{:>16}{:>16}{:>20}", "", "1 contact", "each more", "20 contacts");
    for (name, home) in places {
        // As many contacts as there is room for. Which of them a stream reaches differs where both kinds of path can be.
        let (one, four) = (idle(home, 1), idle(home, 4));
        let more = ((four.0 - one.0) / 3, (four.1 - one.1) / 3);
        assert!(more.1 <= MOST_BYTES, "{name}: {one:?} {four:?}");
        let all = (one.0 + 19 * more.0, one.1 + 19 * more.1);
        let say = |(packets, bytes): (u64, u64)| format!("{packets} / {} kB", bytes / 1000);
        write!(table, "\n{name:<6}{:>16}{:>16}{:>20}", say(one), say(more), say(all)).unwrap();
    }
    println!("{table}");
    insta::assert_snapshot!(table);
}
