//! Two people whose packets are datagrams: lost, doubled, late, from changing addresses, and forged.

mod pair;

use pair::{ALICE, BOB, Pair};
use peerlink_core::api::{AttemptOutcome, Command, Event, Input, PathKind};
use peerlink_core::time::Duration;
use std::net::SocketAddr;

fn texts(from: u32, to: u32) -> Vec<String> {
    (from..to).map(|n| format!("message {n}")).collect()
}

fn send_all(pair: &mut Pair, side: usize, from: u32, to: u32) {
    for n in from..to {
        pair.send(side, n, &format!("message {n}"));
    }
}

#[test]
fn two_meet_and_talk_by_datagrams_alone() {
    let mut pair = Pair::met_by_datagrams(1);
    let by = |event: &Event| matches!(event, Event::Connected { path: PathKind::Datagram, .. });
    assert_eq!((pair.count(ALICE, by), pair.count(BOB, by)), (1, 1));
    send_all(&mut pair, ALICE, 0, 5);
    send_all(&mut pair, BOB, 100, 103);
    pair.drive_until("delivered", |pair| pair.delivered(ALICE) == 5 && pair.delivered(BOB) == 3);
    assert_eq!(pair.received(BOB), texts(0, 5));
    assert_eq!(pair.received(ALICE), texts(100, 103));
    assert_eq!(pair.history(ALICE), pair.history(BOB));
}

#[test]
fn whatever_becomes_of_the_packets_messages_arrive_once_and_in_order() {
    for seed in 0..12 {
        let mut pair = Pair::met_by_datagrams(seed);
        pair.air.lost = 10 * (seed % 4);
        pair.air.doubled = 20;
        pair.air.jitter = Duration::from_millis(15 * (seed % 3));
        send_all(&mut pair, ALICE, 0, 200);
        let long = "long ".repeat(12_000);
        pair.send(BOB, 1, &long);
        send_all(&mut pair, BOB, 500, 520);
        pair.drive_until("delivered", |pair| pair.delivered(ALICE) == 200 && pair.delivered(BOB) == 21);
        assert_eq!(pair.received(BOB), texts(0, 200), "seed {seed}");
        assert_eq!(pair.received(ALICE).len(), 21);
        assert_eq!(pair.history(ALICE), pair.history(BOB));
        assert_eq!(pair.count(BOB, |event| matches!(event, Event::Gap { .. })), 0, "no packet makes a gap");
    }
}

/// Where `side` is seen from now on: a NAT that forgot, or another network.
fn move_to(pair: &mut Pair, side: usize, port: u16) {
    pair.sides[side].seen = SocketAddr::from(([127, 0, 0, 1], port));
}

#[test]
fn a_session_follows_its_peer_to_another_address_without_a_word_lost() {
    let mut pair = Pair::met_by_datagrams(3);
    send_all(&mut pair, ALICE, 0, 3);
    pair.drive_until("delivered", |pair| pair.delivered(ALICE) == 3);
    // Nobody tells Bob that he is seen elsewhere now. What he writes shows it.
    move_to(&mut pair, BOB, 2001);
    pair.send(BOB, 100, "from somewhere else");
    pair.drive_until("delivered", |pair| pair.delivered(BOB) == 1);
    send_all(&mut pair, ALICE, 3, 6);
    pair.drive_until("and back", |pair| pair.delivered(ALICE) == 6);
    let to_new = |pair: &Pair| pair.air.log.iter().filter(|(_, _, to, _)| to.port() == 2001).count();
    assert!(to_new(&pair) > 0, "Alice writes to where he is");
    let sessions = |pair: &Pair, side| pair.count(side, |event| matches!(event, Event::Connected { .. }));
    assert_eq!((sessions(&pair, ALICE), sessions(&pair, BOB)), (1, 1), "one session all along");
}

#[test]
fn nothing_big_goes_to_an_address_that_did_not_answer_a_challenge() {
    let mut pair = Pair::met_by_datagrams(4);
    send_all(&mut pair, ALICE, 0, 1);
    pair.drive_until("delivered", |pair| pair.delivered(ALICE) == 1);
    // Somebody catches a packet of Bob's and sends it on from his own address. Bob himself is not heard any more.
    pair.send(BOB, 100, "caught on the way");
    while pair.air.flying.values().all(|(_, to, _)| to.port() != 4000) {
        assert!(pair.step(), "Bob sends");
    }
    let liar = SocketAddr::from(([192, 0, 2, 66], 6666));
    let mut came = 0;
    for (from, to, bytes) in pair.air.flying.values_mut() {
        if to.port() == 4000 {
            *from = liar;
            came += bytes.len();
        }
    }
    move_to(&mut pair, BOB, 2002);
    pair.air.lost = 100;
    pair.drive_until("it came", |pair| pair.received(ALICE).len() == 1);
    for n in 1..50 {
        pair.send(ALICE, n, &format!("message {n}"));
        pair.settle();
    }
    for _ in 0..100 {
        pair.now += Duration::from_millis(40);
        pair.handle(ALICE, Input::Tick);
        pair.handle(BOB, Input::Tick);
        pair.settle();
    }
    let to_liar = pair.air.log.iter().filter(|(_, _, to, _)| *to == liar).map(|(.., bytes)| bytes.len());
    let sent: usize = to_liar.sum();
    assert!(sent > 0 && sent <= 3 * came, "{sent} bytes to who sent {came}");
    pair.air.lost = 0;
    pair.drive_until("delivered", |pair| pair.delivered(ALICE) == 50);
    assert_eq!(pair.received(BOB), texts(0, 50));
}

#[test]
fn forged_cut_and_repeated_packets_change_nothing() {
    let mut pair = Pair::met_by_datagrams(5);
    for round in 0..20u32 {
        pair.send(ALICE, round, &format!("message {round}"));
        pair.drive_until("delivered", |pair| pair.delivered(ALICE) == u64::from(round) + 1);
        // Everything that ever flew comes again, once as it was, once with a bit turned, once cut.
        let log: Vec<_> = pair.air.log.iter().rev().take(40).cloned().collect();
        for (at, (_, from, to, bytes)) in log.into_iter().enumerate() {
            let side = if to.port() == 4000 { ALICE } else { BOB };
            let mut wrong = bytes.clone();
            let bit = (at * 31 + round as usize) % (wrong.len() * 8);
            wrong[bit / 8] ^= 1 << (bit % 8);
            for bytes in [&bytes[..], &wrong, &bytes[..bytes.len() / 2], &bytes[..1]] {
                pair.handle(side, Input::Datagram { remote: from, bytes });
            }
        }
        pair.settle();
    }
    assert_eq!(pair.received(BOB), texts(0, 20));
    let sessions = |side| pair.count(side, |event| matches!(event, Event::Connected { .. }));
    let ends = |side| pair.count(side, |event| matches!(event, Event::Disconnected { .. }));
    assert_eq!((sessions(ALICE), sessions(BOB), ends(ALICE), ends(BOB)), (1, 1, 0, 0));
    assert_eq!(pair.count(ALICE, |event| matches!(event, Event::Misbehaved { .. })), 0);
}

#[test]
fn a_silent_way_ends_the_session_and_the_next_one_goes_on() {
    let mut pair = Pair::met_by_datagrams(6);
    pair.silent = true;
    send_all(&mut pair, ALICE, 0, 10);
    pair.drive_until("noticed", |pair| {
        pair.count(ALICE, |event| matches!(event, Event::Disconnected { .. })) == 1
    });
    pair.silent = false;
    pair.drive_until("delivered", |pair| pair.delivered(ALICE) == 10);
    assert_eq!(pair.received(BOB), texts(0, 10));
}

#[test]
fn a_crash_on_either_side_is_found_out_and_mended() {
    for side in [ALICE, BOB] {
        let mut pair = Pair::met_by_datagrams(7);
        send_all(&mut pair, ALICE, 0, 10);
        pair.settle();
        pair.crash(side);
        pair.start(side);
        pair.drive_until("delivered", |pair| pair.history(BOB).len() == 10 && pair.acknowledged(ALICE) == 10);
        assert_eq!(pair.history(ALICE), pair.history(BOB));
    }
}

/// The stream was refused, and that set the next race. When it is due a session stands as far as this side can see, so
/// there is none; and then nobody confirms that session.
#[test]
fn who_is_gone_in_the_middle_of_a_handshake_is_tried_again() {
    let mut pair = Pair::new();
    pair.refuse = true;
    for side in [ALICE, BOB] {
        pair.crash(side);
        pair.sides[side].datagrams = true;
        pair.start(side);
    }
    pair.introduce();
    // Alice has not stored who came when she crashes, so that she dials nobody.
    pair.drive_until("Bob has done his part", |pair| {
        pair.air.flying.values().any(|(.., bytes)| bytes[0] == 0xc3)
    });
    pair.crash(ALICE);
    pair.start(ALICE);
    pair.send(BOB, 1, "are you there");
    pair.drive_until("delivered", |pair| pair.acknowledged(BOB) == 1);
    let failed = |event: &Event| {
        matches!(
            event,
            Event::Attempt { path: PathKind::Datagram, outcome: AttemptOutcome::HandshakeFailed, .. }
        )
    };
    assert_eq!(pair.count(BOB, failed), 1);
}

#[test]
fn a_slow_disk_holds_the_sender_back_and_loses_nothing() {
    let mut pair = Pair::met_by_datagrams(8);
    pair.air.lost = 5;
    pair.sides[BOB].slow = true;
    let body = "0123456789abcdef".repeat(256);
    for n in 0..600 {
        pair.send(ALICE, n, &body);
    }
    for _ in 0..40 {
        pair.settle();
        pair.now += Duration::from_millis(40);
        pair.handle(ALICE, Input::Tick);
        pair.handle(BOB, Input::Tick);
    }
    assert_eq!(pair.received(BOB).len(), 0);
    pair.sides[BOB].slow = false;
    pair.drive_until("delivered", |pair| pair.delivered(ALICE) == 600);
    assert_eq!(pair.received(BOB).len(), 600);
}

#[test]
fn goodbye_arrives_after_what_was_said_before_it() {
    let mut pair = Pair::met_by_datagrams(9);
    pair.air.lost = 20;
    send_all(&mut pair, ALICE, 0, 100);
    pair.settle();
    pair.command(ALICE, Command::Shutdown).unwrap();
    pair.drive_until("stopped", |pair| pair.count(ALICE, |event| *event == Event::Stopped) == 1);
    pair.drive_until("told", |pair| {
        pair.count(BOB, |event| matches!(event, Event::Disconnected { .. })) == 1
    });
}

#[test]
fn initiations_from_nowhere_cost_little_and_keep_nobody_out() {
    let mut pair = Pair::met_by_datagrams(10);
    let log = pair.air.log.clone();
    let (_, _, _, first) = log.iter().find(|(.., bytes)| bytes[0] == 0xc1).unwrap();
    let (first, target) = (first.clone(), if log[0].2.port() == 4000 { ALICE } else { BOB });
    pair.cut_air();
    let before: usize = pair.air.log.len();
    for n in 0..2000u32 {
        let [a, b, c, d] = n.to_be_bytes();
        let remote = SocketAddr::from(([10, b, c, d], 1000 + u16::from(a)));
        pair.handle(target, Input::Datagram { remote, bytes: &first });
        pair.settle();
    }
    let out: usize = pair.air.log[before..].iter().map(|(.., bytes)| bytes.len()).sum();
    assert!(out <= 2000 * first.len(), "{out} bytes out for {} in", 2000 * first.len());
    let challenged = pair.air.log[before..].iter().filter(|(.., bytes)| bytes[0] == 0xc5).count();
    assert!(challenged > 1900, "beyond a few, a cookie is asked for");
    // Whoever shows where he is comes in all the same.
    let other = 1 - target;
    pair.crash(other);
    pair.start(other);
    pair.send(other, 900, "let me in");
    pair.drive_until("in", |pair| pair.acknowledged(other) == 1);
}
