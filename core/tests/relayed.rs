//! Two people and a relay between them that both can reach.

mod pair;

use pair::{ALICE, BOB, Pair, RELAY};
use peerlink_core::api::{Command, Event, Input, NatFiltering, NatMapping, PathKind};
use peerlink_core::bounded::List;
use peerlink_core::identity::{Identity, IdentitySecret};
use peerlink_core::ids::{Name, PeerId};
use peerlink_core::limits::{KEEPALIVE, LIVENESS_MAX, LIVENESS_MIN, RELAYS_EACH};
use peerlink_core::ticket::{Ticket, TicketSecret};
use peerlink_core::time::{Duration, Instant, WallClock};
use peerlink_core::wire::peer_record::Relay;
use peerlink_core::wire::stun::{Message, Request, Success, is_stun};
use std::collections::BTreeSet;
use std::net::SocketAddr;

fn texts(from: u32, to: u32) -> Vec<String> {
    (from..to).map(|n| format!("message {n}")).collect()
}

fn send_all(pair: &mut Pair, side: usize, from: u32, to: u32) {
    for n in from..to {
        pair.send(side, n, &format!("message {n}"));
    }
}

fn by(pair: &Pair, side: usize, wanted: PathKind) -> usize {
    pair.count(side, |event| match event {
        Event::Connected { path, .. } | Event::PathChanged { path, .. } => *path == wanted,
        _ => false,
    })
}

#[test]
fn who_cannot_reach_each_other_talk_through_a_relay_that_sees_nothing() {
    let mut pair = Pair::met_through_a_relay(1, Pair::cut_direct);
    assert_eq!((by(&pair, ALICE, PathKind::Relayed), by(&pair, BOB, PathKind::Relayed)), (1, 1));
    send_all(&mut pair, ALICE, 0, 50);
    send_all(&mut pair, BOB, 100, 120);
    pair.drive_until("delivered", |pair| pair.delivered(ALICE) == 50 && pair.delivered(BOB) == 20);
    assert_eq!(pair.received(BOB), texts(0, 50));
    assert_eq!(pair.history(ALICE), pair.history(BOB));
    let seen = pair.air.log.iter().any(|(.., bytes)| bytes.windows(7).any(|window| window == b"message"));
    assert!(!seen, "nothing readable is on the wire");
    assert_eq!(by(&pair, ALICE, PathKind::Datagram) + by(&pair, BOB, PathKind::Datagram), 0);
    assert!(pair.sides[RELAY].node.as_ref().unwrap().stats().forwarded > 0);
}

#[test]
fn two_behind_boxes_meet_through_a_relay_and_then_speak_directly() {
    let mut pair = Pair::met_through_a_relay(2, |pair| {
        pair.sides[ALICE].boxed = true;
        pair.sides[BOB].boxed = true;
    });
    send_all(&mut pair, ALICE, 0, 5);
    pair.drive_until("direct", |pair| {
        by(pair, ALICE, PathKind::Datagram) > 0 && by(pair, BOB, PathKind::Datagram) > 0
    });
    let before = pair.sides[RELAY].node.as_ref().unwrap().stats().forwarded;
    send_all(&mut pair, ALICE, 5, 50);
    pair.drive_until("delivered", |pair| pair.delivered(ALICE) == 50);
    assert_eq!(pair.received(BOB), texts(0, 50));
    let after = pair.sides[RELAY].node.as_ref().unwrap().stats().forwarded;
    assert!(after <= before + 2, "{before} {after}: the relay is not needed any more");
    let sessions = |side| pair.count(side, |event| matches!(event, Event::Connected { .. }));
    assert_eq!((sessions(ALICE), sessions(BOB)), (1, 1), "one session, on another way");
}

#[test]
fn a_direct_way_that_dies_in_silence_is_left_for_the_relay() {
    let mut pair = Pair::met_through_a_relay(3, |_| {});
    pair.drive_until("direct", |pair| {
        by(pair, ALICE, PathKind::Datagram) > 0 && by(pair, BOB, PathKind::Datagram) > 0
    });
    send_all(&mut pair, ALICE, 0, 5);
    pair.drive_until("delivered", |pair| pair.delivered(ALICE) == 5);
    pair.cut_direct();
    let at = pair.now;
    send_all(&mut pair, ALICE, 5, 10);
    pair.drive_until("delivered", |pair| pair.delivered(ALICE) == 10);
    assert_eq!(pair.received(BOB), texts(0, 10));
    assert!(pair.now.saturating_since(at) < Duration::from_secs(5), "{} later", pair.now);
}

#[test]
fn a_relay_that_dies_and_comes_back_loses_nothing() {
    let mut pair = Pair::met_through_a_relay(4, Pair::cut_direct);
    send_all(&mut pair, ALICE, 0, 20);
    pair.settle();
    pair.crash(RELAY);
    send_all(&mut pair, BOB, 100, 110);
    for _ in 0..30 {
        pair.now += Duration::from_millis(500);
        for side in 0..2 {
            pair.handle(side, peerlink_core::api::Input::Tick);
        }
        pair.settle();
    }
    pair.start(RELAY);
    pair.drive_until("delivered", |pair| pair.delivered(ALICE) == 20 && pair.delivered(BOB) == 10);
    assert_eq!(pair.received(BOB), texts(0, 20));
    assert_eq!(pair.history(ALICE), pair.history(BOB));
}

#[test]
fn a_relay_tells_anybody_where_he_is_and_others_tell_nobody() {
    let mut pair = Pair::met_through_a_relay(5, |_| {});
    let client: SocketAddr = "192.0.2.9:3333".parse().unwrap();
    let mut request = Vec::new();
    Request { transaction: [7; 12], ..Request::default() }.encode(&mut request, 0);
    for side in [RELAY, ALICE] {
        pair.handle(side, Input::Datagram { remote: client, bytes: &request });
        pair.settle();
    }
    let answers: Vec<_> = pair.air.log.iter().filter(|(_, _, to, _)| *to == client).collect();
    assert_eq!(answers.len(), 1, "from the relay alone");
    let (_, from, _, answer) = answers[0];
    assert_eq!(*from, pair.relay().address);
    let Ok(Message::Success(success)) = Message::decode(answer) else { panic!("{answer:?}") };
    assert_eq!((success.mapped, success.transaction), (client, [7; 12]));
    // Whoever asks without end, perhaps in another's name, is not answered without end.
    for _ in 0..10_000 {
        pair.handle(RELAY, Input::Datagram { remote: client, bytes: &request });
    }
    pair.settle();
    let answers = pair.air.log.iter().filter(|(_, _, to, _)| *to == client).count();
    assert!(answers < 2_100, "{answers}");
}

#[test]
fn a_relay_that_nobody_needs_for_long_is_still_there_and_the_node_sleeps() {
    let mut pair = Pair::met_through_a_relay(6, |_| {});
    let end = pair.now + Duration::from_secs(1_000);
    pair.drive_until("a quarter of an hour", |pair| pair.now >= end);
    pair.cut_direct();
    send_all(&mut pair, ALICE, 0, 3);
    pair.drive_until("delivered", |pair| pair.delivered(ALICE) == 3);
    assert_eq!(pair.received(BOB), texts(0, 3));
}

#[test]
fn a_relay_that_began_anew_without_a_word_is_noticed_by_who_only_listens() {
    let mut pair = Pair::met_through_a_relay(7, Pair::cut_direct);
    pair.settle();
    pair.crash(RELAY);
    pair.start(RELAY);
    let at = pair.now;
    send_all(&mut pair, ALICE, 0, 3);
    pair.drive_until("delivered", |pair| pair.delivered(ALICE) == 3);
    let took = pair.now.saturating_since(at);
    assert!(took < KEEPALIVE + LIVENESS_MAX + Duration::from_secs(2), "{took:?}");
}

#[test]
fn no_relay_is_dialled_before_this_start_is_on_disk() {
    let mut pair = Pair::met_through_a_relay(8, |_| {});
    pair.crash(ALICE);
    pair.settle();
    pair.sides[ALICE].slow = true;
    let before = pair.air.log.len();
    pair.start(ALICE);
    let relays = List::of([pair.relay()]);
    pair.command(ALICE, Command::UseRelays { relays }).unwrap();
    pair.settle();
    let sent =
        pair.air.log.iter().skip(before).filter(|(_, from, ..)| *from == pair.sides[ALICE].seen).count();
    assert_eq!(sent, 0, "a handshake names the start");
    pair.sides[ALICE].slow = false;
    let up = |pair: &Pair| {
        pair.count(ALICE, |event| {
            matches!(event, Event::RelayChanged { up: true, path: PathKind::Datagram, .. })
        })
    };
    let (ups, at) = (up(&pair), pair.now);
    pair.drive_until("the relay serves", |pair| up(pair) > ups);
    assert!(pair.now.saturating_since(at) < Duration::from_secs(1), "at once, and by datagrams");
}

#[test]
fn a_stream_that_gets_through_later_takes_over_from_the_relay() {
    let mut pair = Pair::met_through_a_relay(9, Pair::cut_direct);
    send_all(&mut pair, ALICE, 0, 10);
    pair.drive_until("delivered", |pair| pair.delivered(ALICE) == 10);
    pair.refuse = false;
    send_all(&mut pair, ALICE, 10, 20);
    send_all(&mut pair, BOB, 100, 110);
    pair.drive_until("a stream", |pair| (0..2).all(|side| by(pair, side, PathKind::Stream) > 0));
    let before = pair.sides[RELAY].node.as_ref().unwrap().stats().forwarded;
    send_all(&mut pair, ALICE, 20, 50);
    pair.drive_until("delivered", |pair| pair.delivered(ALICE) == 50 && pair.delivered(BOB) == 10);
    assert_eq!(pair.received(BOB), texts(0, 50));
    assert_eq!(pair.history(ALICE), pair.history(BOB));
    for side in 0..2 {
        let broke = pair.count(side, |event| matches!(event, Event::Disconnected { .. }));
        assert_eq!(broke, 0, "the one is left when the other stands");
        assert_eq!(by(&pair, side, PathKind::Stream), 1);
    }
    let after = pair.sides[RELAY].node.as_ref().unwrap().stats().forwarded;
    assert!(after <= before + 2, "{before} {after}");
    // And when the stream breaks, and no other can be had, the relay leads on.
    pair.refuse = true;
    pair.cut();
    send_all(&mut pair, BOB, 110, 120);
    pair.drive_until("delivered", |pair| pair.delivered(BOB) == 20);
    // That goes on: neither has anything new to say of where it is.
    pair.refuse = false;
    pair.drive_until("a stream", |pair| (0..2).all(|side| by(pair, side, PathKind::Stream) > 1));
    send_all(&mut pair, BOB, 120, 130);
    pair.drive_until("delivered", |pair| pair.delivered(BOB) == 30);
    assert_eq!(pair.history(ALICE), pair.history(BOB));
}

#[test]
fn who_sends_no_datagrams_finds_from_the_relay_to_a_stream() {
    let mut pair = Pair::met_through_a_relay(10, |pair| {
        for side in 0..2 {
            pair.sides[side].datagrams = false;
            pair.crash(side);
            pair.start(side);
        }
    });
    let known = |pair: &Pair| pair.contact(ALICE, &pair.peer(BOB)).record.len();
    pair.drive_until("Alice knows where Bob is", |pair| known(pair) > 0);
    pair.settle();
    // Now every dial is refused before the answer comes through the relay.
    let peer = pair.peer(ALICE);
    for blocked in [true, false] {
        pair.command(BOB, Command::Block { peer, blocked }).unwrap();
        pair.settle();
    }
    pair.drive_until("again", |pair| by(pair, ALICE, PathKind::Relayed) > 1);
    assert_eq!(by(&pair, ALICE, PathKind::Stream), 0);
    let tries = |pair: &Pair, side| {
        pair.count(side, |event| matches!(event, Event::Attempt { path: PathKind::Stream, peer, .. } if *peer != pair.peer(RELAY)))
    };
    let before = [tries(&pair, ALICE), tries(&pair, BOB)];
    let end = pair.now + Duration::from_secs(120);
    pair.drive_until("two minutes", |pair| pair.now >= end);
    for (side, before) in before.into_iter().enumerate() {
        assert!((1..20).contains(&(tries(&pair, side) - before)), "each tries, and not without end");
    }
    pair.refuse = false;
    pair.drive_until("a stream", |pair| (0..2).all(|side| by(pair, side, PathKind::Stream) > 0));
}

#[test]
fn a_stream_to_a_relay_that_swallows_what_is_forwarded_is_left() {
    let mut pair = Pair::met_through_a_relay(11, |pair| {
        for side in 0..2 {
            pair.sides[side].datagrams = false;
            pair.crash(side);
            pair.start(side);
        }
    });
    send_all(&mut pair, ALICE, 0, 3);
    pair.drive_until("delivered", |pair| pair.delivered(ALICE) == 3);
    let left =
        |pair: &Pair| pair.count(ALICE, |event| matches!(event, Event::RelayChanged { up: false, .. }));
    let before = left(&pair);
    // Nothing was said for a while, and a box on the way forgot the streams.
    pair.silent = true;
    send_all(&mut pair, ALICE, 3, 5);
    let at = pair.now;
    pair.drive_until("it is noticed", |pair| left(pair) > before);
    let took = pair.now.saturating_since(at);
    assert!(took < LIVENESS_MIN * 2 + Duration::from_secs(1), "{took:?}");
    pair.silent = false;
    pair.drive_until("delivered", |pair| pair.delivered(ALICE) == 5);
    assert_eq!(pair.received(BOB), texts(0, 5));
}

/// What `side` last said of how others see it.
fn seen(pair: &Pair, side: usize) -> Option<(Vec<SocketAddr>, NatMapping, NatFiltering)> {
    pair.sides[side].events.iter().rev().find_map(|event| match event {
        Event::Observed { addresses, mapping, filtering } => Some((addresses.to_vec(), *mapping, *filtering)),
        _ => None,
    })
}

#[test]
fn a_node_learns_from_its_relay_that_a_box_stands_between() {
    let pair = Pair::met_through_a_relay(11, |pair| {
        pair.sides[ALICE].seen = "198.51.100.1:40000".parse().unwrap();
    });
    let outside = pair.sides[ALICE].seen;
    assert_eq!(seen(&pair, ALICE), Some((vec![outside], NatMapping::Translated, NatFiltering::Unknown)));
    let own = pair.sides[BOB].address;
    assert_eq!(seen(&pair, BOB), Some((vec![own], NatMapping::None, NatFiltering::Unknown)));
}

#[test]
fn who_moved_asks_again_and_forgets_where_it_was_seen() {
    let mut pair = Pair::met_through_a_relay(12, |_| {});
    let (count, new): (_, SocketAddr) = (observed(&pair), "192.0.2.77:41000".parse().unwrap());
    pair.sides[ALICE].seen = new;
    pair.handle(ALICE, Input::LocalAddresses(List::of(["10.9.9.9:4000".parse().unwrap()])));
    pair.drive_until("asked again", |pair| observed(pair) > count);
    assert_eq!(seen(&pair, ALICE).unwrap().0, [new]);
}

fn observed(pair: &Pair) -> usize {
    pair.count(ALICE, |event| matches!(event, Event::Observed { .. }))
}

#[test]
fn a_server_beside_the_relays_is_asked_and_nobody_without_end() {
    let mut pair = Pair::met_through_a_relay(13, |_| {});
    let server: SocketAddr = "203.0.113.5:3478".parse().unwrap();
    let count = observed(&pair);
    pair.command(ALICE, Command::UseStunServers { servers: List::of([server]) }).unwrap();
    pair.drive_until("it does not answer", |pair| observed(pair) > count);
    let asked = |pair: &Pair| pair.air.log.iter().filter(|(_, _, to, _)| *to == server).count();
    assert_eq!(asked(&pair), 3);
    // Whatever comes by itself changes nothing.
    let mut answer = Vec::new();
    let mapped = "192.0.2.1:1".parse().unwrap();
    Success { transaction: [1; 12], mapped, other: None, origin: None }.encode(&mut answer, 200);
    pair.handle(ALICE, Input::Datagram { remote: server, bytes: &answer });
    let end = pair.now + Duration::from_secs(600);
    pair.drive_until("ten minutes", |pair| pair.now >= end);
    assert_eq!(asked(&pair), 3);
    assert!(seen(&pair, ALICE).unwrap().0.iter().all(|address| *address == pair.sides[ALICE].seen));
}

/// Alice hears nobody for hours: the waits between her tries have grown.
fn hours_alone(seed: u64) -> Pair {
    let mut pair = Pair::met_through_a_relay(seed, |_| {});
    let (alice, relay, bob) = (pair.sides[ALICE].seen, pair.sides[RELAY].seen, pair.sides[BOB].seen);
    pair.air.cut.extend([(alice, relay), (relay, alice), (alice, bob), (bob, alice)]);
    let end = pair.now + Duration::from_secs(3 * 3600);
    pair.drive_until("hours", |pair| pair.now >= end);
    pair
}

#[test]
fn who_comes_back_to_a_network_does_not_wait_for_the_next_try() {
    let mut pair = hours_alone(14);
    pair.air.cut.clear();
    let at = pair.now;
    pair.handle(ALICE, Input::LocalAddresses(List::of(["10.9.9.9:4000".parse().unwrap()])));
    let before = (by(&pair, ALICE, PathKind::Relayed), by(&pair, ALICE, PathKind::Datagram));
    pair.drive_until("somebody is reached", |pair| {
        (by(pair, ALICE, PathKind::Relayed), by(pair, ALICE, PathKind::Datagram)) != before
    });
    assert!(pair.now.saturating_since(at) <= Duration::from_secs(1), "{:?}", pair.now.saturating_since(at));
}

#[test]
fn who_looks_at_a_contact_has_the_home_relay_tried_as_well() {
    let mut pair = hours_alone(15);
    pair.air.cut.clear();
    let up = |pair: &Pair| pair.count(ALICE, |event| matches!(event, Event::RelayChanged { up: true, .. }));
    let (before, at, peer) = (up(&pair), pair.now, pair.peer(BOB));
    pair.command(ALICE, Command::Reach { peer }).unwrap();
    pair.drive_until("the relay serves", |pair| up(pair) > before);
    assert!(pair.now.saturating_since(at) <= Duration::from_secs(1), "{:?}", pair.now.saturating_since(at));
}

/// Somebody, and nobody's address.
fn somebody(n: u8) -> (PeerId, SocketAddr) {
    let secret = IdentitySecret::new([n; 32]).unwrap();
    (Identity::new(&secret).unwrap().peer(), SocketAddr::from(([203, 0, 113, n], 443)))
}

/// A ticket of `peer` with relays `from..from + 4` in it.
fn ticket(peer: PeerId, from: u8) -> Command {
    let relays = (from..from + 4).map(somebody).map(|(peer, address)| Relay { peer, address });
    let ticket = Ticket {
        peer,
        secret: TicketSecret([1; 16]),
        nickname: None,
        expires: WallClock(u64::MAX),
        addresses: List::new(),
        relays: List::of(relays),
    };
    let text = peer.to_string();
    Command::Add { ticket: Box::new(ticket), petname: Name::new(&text[..16]).unwrap() }
}

/// To how many relays `side` sent something since then.
fn spoken_to(pair: &Pair, since: Instant) -> usize {
    let to = pair.air.log.iter().filter(|(at, _, to, _)| *at >= since && to.port() == 443);
    to.map(|(_, _, to, _)| *to).collect::<BTreeSet<_>>().len()
}

#[test]
fn a_peer_that_names_relay_after_relay_has_few_of_them_dialled() {
    let mut pair = Pair::met_through_a_relay(16, |_| {});
    let (peer, _) = somebody(200);
    for n in 0..20 {
        pair.command(ALICE, ticket(peer, 10 + 4 * n)).unwrap();
        pair.settle();
    }
    let since = pair.now + Duration::from_secs(11);
    pair.drive_until("the first tries are over", |pair| pair.now >= since);
    let since = pair.now;
    let end = pair.now + Duration::from_secs(90);
    pair.drive_until("a while", |pair| pair.now >= end);
    assert!((4..=RELAYS_EACH).contains(&spoken_to(&pair, since)), "{}", spoken_to(&pair, since));
}

#[test]
fn whatever_peers_name_a_home_relay_has_a_place() {
    let mut pair = Pair::met_through_a_relay(17, |_| {});
    for n in 0..20 {
        pair.command(ALICE, ticket(somebody(150 + n).0, 10 + 4 * n)).unwrap();
        pair.settle();
    }
    let (peer, address) = somebody(240);
    pair.command(ALICE, Command::UseRelays { relays: List::of([Relay { peer, address }]) }).unwrap();
    pair.settle();
    // To be asked from where it sees us is not to be dialled.
    let dialled = pair.air.log.iter().any(|(_, _, to, bytes)| *to == address && !is_stun(bytes));
    assert!(dialled);
}
