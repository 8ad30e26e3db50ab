//! Two people and everything that may happen between them, one scenario each.

mod pair;

use bytes::Bytes;
use pair::{ALICE, BOB, Pair, caller};
use peerlink_core::api::{Command, ContactChange, Event, Expire, Input, Refusal, TicketRefusal};
use peerlink_core::bounded::List;
use peerlink_core::ids::Name;
use peerlink_core::limits::SESSION_PROVEN;
use peerlink_core::record::ContactState;
use peerlink_core::time::Duration;

fn texts(from: u32, to: u32) -> Vec<String> {
    (from..to).map(|n| format!("message {n}")).collect()
}

fn send_all(pair: &mut Pair, side: usize, from: u32, to: u32) {
    for n in from..to {
        pair.send(side, n, &format!("message {n}"));
    }
}

fn all_delivered(pair: &mut Pair, side: usize, count: u64) {
    pair.drive_until("all delivered", |pair| pair.delivered(side) == count);
    assert_eq!(pair.history(ALICE), pair.history(BOB));
}

#[test]
fn a_ticket_makes_two_contacts_and_they_talk_both_ways() {
    let mut pair = Pair::met();
    send_all(&mut pair, ALICE, 0, 5);
    send_all(&mut pair, BOB, 100, 103);
    pair.drive_until("delivered", |pair| pair.delivered(ALICE) == 5 && pair.delivered(BOB) == 3);
    assert_eq!(pair.received(BOB), texts(0, 5));
    assert_eq!(pair.received(ALICE), texts(100, 103));
    assert_eq!(pair.history(ALICE), pair.history(BOB));
}

#[test]
fn nothing_is_acknowledged_before_it_is_durable() {
    let mut pair = Pair::met();
    pair.sides[BOB].slow = true;
    send_all(&mut pair, ALICE, 0, 3);
    pair.settle();
    assert_eq!((pair.delivered(ALICE), pair.received(BOB).len()), (0, 0));
    pair.sync(BOB);
    pair.settle();
    assert_eq!(pair.received(BOB), texts(0, 3));
    assert_eq!(pair.delivered(ALICE), 3);
}

#[test]
fn nothing_is_on_the_wire_before_it_is_durable() {
    let mut pair = Pair::met();
    pair.settle();
    pair.sides[ALICE].slow = true;
    let before = pair.delivered_bytes;
    pair.send(ALICE, 1, "secret until stored");
    pair.settle();
    assert_eq!(pair.delivered_bytes, before);
    assert_eq!(pair.count(ALICE, |event| matches!(event, Event::Queued { .. })), 0);
    pair.sync(ALICE);
    pair.sides[ALICE].slow = false;
    all_delivered(&mut pair, ALICE, 1);
}

#[test]
fn a_crash_before_the_acknowledgement_left_doubles_nothing() {
    let mut pair = Pair::met();
    pair.sides[BOB].slow = true;
    send_all(&mut pair, ALICE, 0, 3);
    pair.settle();
    pair.sync(BOB);
    // Durable, and the acknowledgement is lost with the process.
    pair.crash(BOB);
    pair.sides[BOB].slow = false;
    pair.start(BOB);
    pair.drive_until("delivered", |pair| pair.delivered(ALICE) == 3);
    assert_eq!(pair.history(BOB).len(), 3);
    assert_eq!(pair.received(BOB).len(), 0, "its arrival is on disk; the event died with the process");
}

#[test]
fn a_crash_before_the_disk_loses_nothing() {
    let mut pair = Pair::met();
    pair.sides[BOB].slow = true;
    send_all(&mut pair, ALICE, 0, 3);
    pair.settle();
    pair.crash(BOB);
    pair.sides[BOB].slow = false;
    pair.start(BOB);
    pair.drive_until("delivered", |pair| pair.delivered(ALICE) == 3);
    assert_eq!(pair.received(BOB), texts(0, 3));
}

#[test]
fn mail_queued_while_the_peer_is_away_survives_a_restart_of_its_author() {
    let mut pair = Pair::met();
    pair.crash(BOB);
    send_all(&mut pair, ALICE, 0, 2000);
    pair.settle();
    pair.crash(ALICE);
    pair.start(ALICE);
    pair.start(BOB);
    pair.drive_until("delivered", |pair| pair.delivered(ALICE) == 2000);
    assert_eq!(pair.received(BOB), texts(0, 2000));
    assert_eq!(pair.history(ALICE), pair.history(BOB));
}

#[test]
fn large_bodies_travel_in_chunks_and_small_ones_overtake_them() {
    let mut pair = Pair::met();
    let big: String = std::iter::repeat_n("0123456789abcdef", 4096).collect();
    pair.send(ALICE, 1, &big);
    pair.send(ALICE, 2, "small");
    pair.send(ALICE, 3, &big);
    pair.send(ALICE, 4, "small too");
    all_delivered(&mut pair, ALICE, 4);
    let received = pair.received(BOB);
    assert_eq!(received.len(), 4);
    assert_eq!(received[0], "small", "it does not wait for 64 KiB");
    assert_eq!(pair.count(BOB, |event| matches!(event, Event::Gap { first: 1, .. })), 1);
    let history: Vec<String> = pair.history(BOB).into_iter().map(|(_, text)| text).collect();
    assert_eq!(history, [big.clone(), "small".into(), big, "small too".into()]);
}

#[test]
fn a_cut_in_the_middle_of_a_large_body_leaves_no_trace() {
    let mut pair = Pair::met();
    let big: String = std::iter::repeat_n("x", 65_536).collect();
    for n in 0..6 {
        pair.send(ALICE, n, &big);
        pair.send(ALICE, 100 + n, "small");
    }
    pair.drive_until("something came", |pair| !pair.received(BOB).is_empty());
    pair.cut();
    all_delivered(&mut pair, ALICE, 12);
    assert_eq!(pair.received(BOB).len(), 12);
}

#[test]
fn both_dial_at_once_and_one_session_stays() {
    for round in 0..20 {
        let mut pair = Pair::met();
        pair.settle();
        for _ in 0..round % 3 {
            pair.now += Duration::from_millis(7 * round);
        }
        pair.cut();
        // Both wait less than 250 ms; whoever comes first, messages pass and both end with one session.
        send_all(&mut pair, ALICE, 0, 3);
        send_all(&mut pair, BOB, 10, 13);
        pair.drive_until("delivered", |pair| pair.delivered(ALICE) == 3 && pair.delivered(BOB) == 3);
        assert_eq!((pair.received(ALICE).len(), pair.received(BOB).len()), (3, 3));
    }
}

#[test]
fn a_new_handshake_replaces_a_session_that_only_one_side_knows_to_be_dead() {
    let mut pair = Pair::met();
    pair.settle();
    pair.cut_one(BOB);
    pair.send(BOB, 1, "after the cut");
    pair.drive_until("delivered", |pair| pair.delivered(BOB) == 1);
    assert_eq!(pair.received(ALICE), ["after the cut"]);
}

#[test]
fn a_silent_peer_is_noticed_and_reached_again() {
    let mut pair = Pair::met();
    pair.settle();
    pair.silent = true;
    pair.send(ALICE, 1, "into the void");
    let began = pair.now;
    pair.drive_until("noticed", |pair| {
        pair.count(ALICE, |event| matches!(event, Event::Disconnected { .. })) == 1
    });
    assert!(pair.now.saturating_since(began) <= Duration::from_secs(11), "{}", pair.now);
    pair.silent = false;
    pair.cut();
    all_delivered(&mut pair, ALICE, 1);
}

#[test]
fn the_same_callers_id_is_the_same_message() {
    let mut pair = Pair::met();
    let peer = pair.peer(BOB);
    let send = |fresh| Command::Send {
        peer,
        caller: caller(9),
        fresh,
        expire: Expire::Default,
        body: Bytes::from_static(b"once"),
    };
    pair.command(ALICE, send(false)).unwrap();
    pair.command(ALICE, send(false)).unwrap();
    pair.settle();
    pair.crash(ALICE);
    pair.start(ALICE);
    pair.settle();
    pair.command(ALICE, send(false)).unwrap();
    pair.drive_until("delivered", |pair| pair.delivered(ALICE) == 1);
    pair.command(ALICE, send(false)).unwrap();
    pair.settle();
    let queued: Vec<_> = pair.sides[ALICE]
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Queued { message, duplicate, delivered, .. } => {
                Some((message.seq, *duplicate, *delivered))
            }
            _ => None,
        })
        .collect();
    assert_eq!(queued, [(1, false, false), (1, true, false), (1, true, true), (1, true, true)]);
    assert_eq!(pair.received(BOB), ["once"]);
}

#[test]
fn a_spent_ticket_works_again_for_the_same_peer_and_for_nobody_else() {
    let mut pair = Pair::new();
    let ticket = pair.ticket(ALICE, 7);
    // Alice's answer is lost: she crashes when the contact is stored.
    let add = Command::Add { ticket: Box::new(ticket), petname: Name::new("alice").unwrap() };
    pair.command(BOB, add.clone()).unwrap();
    pair.sides[ALICE].slow = true;
    pair.settle();
    pair.sync(ALICE);
    pair.crash(ALICE);
    pair.sides[ALICE].slow = false;
    pair.start(ALICE);
    pair.drive_until("established", |pair| {
        pair.count(BOB, |event| {
            matches!(event, Event::ContactChanged { change: ContactChange::Established, .. })
        }) == 1
    });
    // Another Bob, with the same ticket.
    let mut other = Pair::new();
    other.sides[ALICE].disk = pair.sides[ALICE].disk.clone();
    other.crash(ALICE);
    other.start(ALICE);
    other.sides[BOB] = Pair::with_secret(BOB, 99);
    other.start(BOB);
    other.command(BOB, add).unwrap();
    other.drive_until("refused", |pair| {
        pair.count(BOB, |event| {
            matches!(
                event,
                Event::ContactChanged { change: ContactChange::Refused(TicketRefusal::Spent), .. }
            )
        }) == 1
    });
    let contact = other.contact(BOB, &other.peer(ALICE));
    assert!(matches!(contact.state, ContactState::Refused { .. }));
    assert_eq!(other.sides[ALICE].node.as_ref().unwrap().stats().rejected_ticket, 1);
}

#[test]
fn an_expired_ticket_is_refused_by_the_inviters_clock() {
    let mut pair = Pair::new();
    let ticket = pair.ticket(ALICE, 7);
    pair.now += Duration::from_secs(3601);
    pair.command(BOB, Command::Add { ticket: Box::new(ticket), petname: Name::new("alice").unwrap() })
        .unwrap();
    pair.drive_until("refused", |pair| {
        pair.count(BOB, |event| {
            matches!(
                event,
                Event::ContactChanged { change: ContactChange::Refused(TicketRefusal::Expired), .. }
            )
        }) == 1
    });
}

#[test]
fn a_blocked_contact_gets_nothing_and_what_waits_is_sent_when_it_is_unblocked() {
    let mut pair = Pair::met();
    pair.settle();
    let bob = pair.peer(BOB);
    pair.command(ALICE, Command::Block { peer: bob, blocked: true }).unwrap();
    pair.send(ALICE, 1, "waits");
    pair.send(BOB, 2, "to a wall");
    for _ in 0..20 {
        pair.settle();
        pair.now += Duration::from_secs(60);
        pair.handle(ALICE, peerlink_core::api::Input::Tick);
        pair.handle(BOB, peerlink_core::api::Input::Tick);
    }
    assert_eq!((pair.received(ALICE).len(), pair.received(BOB).len(), pair.delivered(BOB)), (0, 0, 0));
    assert!(pair.sides[ALICE].node.as_ref().unwrap().stats().rejected_blocked > 0);
    pair.command(ALICE, Command::Block { peer: bob, blocked: false }).unwrap();
    pair.drive_until("delivered", |pair| pair.delivered(ALICE) == 1 && pair.delivered(BOB) == 1);
}

#[test]
fn a_removed_contact_is_a_stranger_and_goes_on_from_its_heads_when_added_again() {
    let mut pair = Pair::met();
    send_all(&mut pair, ALICE, 0, 3);
    all_delivered(&mut pair, ALICE, 3);
    let bob = pair.peer(BOB);
    pair.command(ALICE, Command::Remove { peer: bob }).unwrap();
    pair.settle();
    let refused = pair.command(
        ALICE,
        Command::Send {
            peer: bob,
            caller: caller(5),
            fresh: true,
            expire: Expire::Default,
            body: Bytes::from_static(b"x"),
        },
    );
    assert_eq!(refused.unwrap_err().why, Refusal::UnknownContact);
    pair.drive_until("turned away", |pair| {
        pair.sides[ALICE].node.as_ref().unwrap().stats().rejected_stranger > 0
    });
    let ticket = pair.ticket(ALICE, 8);
    pair.command(BOB, Command::Add { ticket: Box::new(ticket), petname: Name::new("alice").unwrap() })
        .unwrap();
    pair.drive_until("back", |pair| {
        pair.count(ALICE, |event| {
            matches!(event, Event::ContactChanged { change: ContactChange::Established, .. })
        }) == 2
    });
    send_all(&mut pair, ALICE, 3, 6);
    all_delivered(&mut pair, ALICE, 6);
    assert_eq!(pair.received(BOB), texts(0, 6));
}

#[test]
fn commands_that_cannot_be_come_back_whole_and_move_nothing() {
    let mut pair = Pair::met();
    let bob = pair.peer(BOB);
    let send = |body: Vec<u8>| Command::Send {
        peer: bob,
        caller: caller(1),
        fresh: true,
        expire: Expire::Default,
        body: Bytes::from(body),
    };
    for (command, why) in [
        (send(vec![]), Refusal::Empty),
        (send(vec![b'x'; 65_537]), Refusal::TooLong),
        (send(vec![0xff]), Refusal::NotText),
        (Command::Remove { peer: pair.peer(ALICE) }, Refusal::UnknownContact),
    ] {
        let refused = pair.command(ALICE, command.clone()).unwrap_err();
        assert_eq!((refused.command, refused.why), (command, why));
    }
    let own = pair.ticket(ALICE, 9);
    let add = Command::Add { ticket: Box::new(own), petname: Name::new("me").unwrap() };
    assert_eq!(pair.command(ALICE, add).unwrap_err().why, Refusal::OwnTicket);
}

#[test]
fn a_failed_store_ends_all_promises() {
    let mut pair = Pair::met();
    pair.settle();
    pair.sides[ALICE].slow = true;
    pair.send(ALICE, 1, "never promised");
    pair.settle();
    let batch = peerlink_core::ids::BatchId(1);
    pair.handle(ALICE, peerlink_core::api::Input::PersistFailed { batch });
    pair.sync(ALICE);
    pair.settle();
    assert_eq!(pair.count(ALICE, |event| matches!(event, Event::StoreFailed)), 1);
    assert_eq!(pair.count(ALICE, |event| matches!(event, Event::Queued { .. })), 0);
    let peer = pair.peer(BOB);
    let refused = pair.command(
        ALICE,
        Command::Send {
            peer,
            caller: caller(2),
            fresh: true,
            expire: Expire::Default,
            body: Bytes::from_static(b"x"),
        },
    );
    assert_eq!(refused.unwrap_err().why, Refusal::StoreFailed);
}

#[test]
fn shutdown_says_goodbye_and_stops_when_all_is_durable() {
    let mut pair = Pair::met();
    pair.settle();
    pair.send(ALICE, 1, "last words");
    pair.command(ALICE, Command::Shutdown).unwrap();
    pair.drive_until("stopped", |pair| pair.count(ALICE, |event| matches!(event, Event::Stopped)) == 1);
    assert_eq!(pair.count(ALICE, |event| matches!(event, Event::Queued { .. })), 1);
    assert_eq!(pair.count(BOB, |event| matches!(event, Event::Disconnected { .. })), 1);
    pair.crash(ALICE);
    pair.start(ALICE);
    all_delivered(&mut pair, ALICE, 1);
}

#[test]
fn a_peer_that_moved_is_found_by_the_record_it_sent() {
    let mut pair = Pair::met();
    pair.settle();
    let moved: std::net::SocketAddr = "127.0.0.1:2222".parse().unwrap();
    pair.sides[BOB].address = moved;
    pair.handle(BOB, peerlink_core::api::Input::LocalAddresses(peerlink_core::bounded::List::of([moved])));
    pair.settle();
    let contact = pair.contact(ALICE, &pair.peer(BOB));
    assert_eq!(&*contact.record_addresses, &[moved]);
    pair.cut();
    send_all(&mut pair, ALICE, 0, 1);
    all_delivered(&mut pair, ALICE, 1);
}

#[test]
fn the_same_inputs_give_the_same_outputs() {
    let run = || {
        let mut pair = Pair::met();
        send_all(&mut pair, ALICE, 0, 50);
        pair.cut();
        all_delivered(&mut pair, ALICE, 50);
        [pair.sides[0].trace.join("\n"), pair.sides[1].trace.join("\n")]
    };
    assert_eq!(run(), run());
}

#[test]
fn a_recorded_trace_replays_line_by_line() {
    let mut pair = Pair::met();
    send_all(&mut pair, ALICE, 0, 20);
    pair.send(BOB, 99, &"large ".repeat(5000));
    pair.cut();
    pair.drive_until("delivered", |pair| pair.delivered(ALICE) == 20 && pair.delivered(BOB) == 1);
    for side in [ALICE, BOB] {
        assert!(pair.sides[side].trace.len() > 30);
        assert_eq!(pair.replay(side), pair.sides[side].trace);
    }
}

#[test]
fn one_failure_of_an_attempt_is_one_step_of_the_backoff() {
    let mut pair = Pair::new();
    let ticket = pair.ticket(ALICE, 7);
    // The inviter's disk is slow: the session is open at who dialled, and nothing came on it yet.
    pair.sides[ALICE].slow = true;
    let petname = Name::new("alice").unwrap();
    pair.command(BOB, Command::Add { ticket: Box::new(ticket), petname }).unwrap();
    pair.settle();
    pair.cut_one(BOB);
    pair.settle();
    assert_eq!(pair.count(BOB, |event| matches!(event, Event::NextAttempt { .. })), 1);
}

/// How long it takes until both are connected again after a cut.
fn reconnect(pair: &mut Pair) -> Duration {
    let connected = |pair: &Pair, side| pair.count(side, |event| matches!(event, Event::Connected { .. }));
    let (before, from) = ([ALICE, BOB].map(|side| connected(pair, side)), pair.now);
    pair.cut();
    pair.drive_until("connected again", |pair| {
        [ALICE, BOB].iter().all(|side| connected(pair, *side) > before[*side])
    });
    pair.now.saturating_since(from)
}

#[test]
fn a_peer_that_breaks_every_session_at_once_is_dialled_ever_more_rarely() {
    let mut pair = Pair::met();
    let quick = Duration::from_millis(250);
    let waits: Vec<Duration> = (0..12).map(|_| reconnect(&mut pair)).collect();
    assert!(waits.iter().sum::<Duration>() > Duration::from_secs(300), "{waits:?}");
    // Something acknowledged, or some time that it stood, is proof that the way is good.
    send_all(&mut pair, ALICE, 0, 1);
    pair.drive_until("delivered", |pair| pair.delivered(ALICE) == 1);
    assert!(reconnect(&mut pair) <= quick);
    pair.now += SESSION_PROVEN;
    assert!(reconnect(&mut pair) <= quick);
    assert!(reconnect(&mut pair) <= SESSION_PROVEN, "and the backoff began anew");
}

#[test]
fn a_peer_whose_disk_stands_still_is_neither_flooded_nor_blamed() {
    let mut pair = Pair::met();
    pair.settle();
    pair.sides[BOB].slow = true;
    let large = "y".repeat(60_000);
    for n in 0..40 {
        pair.send(ALICE, n, &large);
    }
    let began = pair.now;
    // Longer than a ping, its answer, and several repetitions of the offer take.
    pair.drive_until("a minute passed", |pair| pair.now.saturating_since(began) > Duration::from_secs(60));
    assert_eq!(
        pair.count(ALICE, |event| matches!(event, Event::Disconnected { .. })),
        0,
        "a slow disk answers pings"
    );
    assert_eq!(pair.count(BOB, |event| matches!(event, Event::Misbehaved { .. })), 0);
    pair.sides[BOB].slow = false;
    all_delivered(&mut pair, ALICE, 40);
    assert_eq!(pair.received(BOB).len(), 40);
}

#[test]
fn a_nickname_cannot_pose_as_a_petname_that_is_taken() {
    let mut pair = Pair::met();
    let bob = pair.peer(BOB);
    pair.command(ALICE, Command::Rename { peer: bob, petname: Name::new("Mallory").unwrap() }).unwrap();
    let ticket = pair.ticket(ALICE, 8);
    let mut other = Pair::new();
    other.sides[ALICE].disk = pair.sides[ALICE].disk.clone();
    other.crash(ALICE);
    other.start(ALICE);
    other.sides[BOB] = Pair::with_secret(BOB, 99);
    other.start(BOB);
    // Looks alike. (Invisible characters cannot even be said: a name that holds one does not decode.)
    let nickname = Some(Name::new("ma11ory").unwrap());
    other.command(BOB, Command::SetNickname { nickname }).unwrap();
    other
        .command(BOB, Command::Add { ticket: Box::new(ticket), petname: Name::new("alice").unwrap() })
        .unwrap();
    other.drive_until("in", |pair| pair.count(BOB, |event| matches!(event, Event::Connected { .. })) == 1);
    let stranger = other.peer(BOB);
    assert_eq!(other.contact(ALICE, &stranger).petname.as_str(), "ma11ory-2");
    assert_eq!(other.contact(ALICE, &bob).petname.as_str(), "Mallory");
    let taken =
        other.command(ALICE, Command::Rename { peer: stranger, petname: Name::new("MALLORY").unwrap() });
    assert_eq!(taken.unwrap_err().why, Refusal::NameTaken);
}

#[test]
fn a_contact_is_answered_only_when_it_is_durable_also_if_it_comes_a_second_time() {
    let mut pair = Pair::new();
    let ticket = pair.ticket(ALICE, 7);
    pair.sides[ALICE].slow = true;
    let petname = Name::new("alice").unwrap();
    pair.command(BOB, Command::Add { ticket: Box::new(ticket), petname }).unwrap();
    pair.settle();
    pair.cut();
    pair.drive_until("tried again", |pair| {
        pair.count(BOB, |event| matches!(event, Event::Attempt { .. })) >= 2
    });
    // The invitation is not spent on her disk, and then she forgets that he came.
    pair.crash(ALICE);
    pair.sides[ALICE].slow = false;
    pair.start(ALICE);
    pair.send(BOB, 1, "still a contact");
    all_delivered(&mut pair, BOB, 1);
}

#[test]
fn a_dead_session_is_noticed_at_once_by_who_moved_or_looks() {
    for moves in [true, false] {
        let mut pair = Pair::met();
        pair.settle();
        pair.silent = true;
        let began = pair.now;
        if moves {
            let elsewhere = "127.0.0.1:77".parse().unwrap();
            pair.handle(BOB, Input::LocalAddresses(List::of([elsewhere])));
        } else {
            let peer = pair.peer(ALICE);
            pair.command(BOB, Command::Reach { peer }).unwrap();
        }
        pair.drive_until("noticed", |pair| {
            pair.count(BOB, |event| matches!(event, Event::Disconnected { .. })) > 0
        });
        assert!(pair.now.saturating_since(began) < Duration::from_secs(20), "moves: {moves}");
    }
}
