//! What the user takes away, and what the other side sees of it, one scenario each.

mod pair;

use pair::{ALICE, BOB, Pair, caller};
use peerlink_core::api::{Command, Event, Refusal};
use peerlink_core::ids::MessageRef;
use peerlink_core::record::{Dropped, Entry, Key, Kind, Record as _, Table};

fn queued(pair: &Pair, side: usize, id: u32) -> MessageRef {
    let known = pair.sides[side].events.iter().rev().find_map(|event| match event {
        Event::Queued { caller: named, message, .. } if *named == caller(id) => Some(*message),
        _ => None,
    });
    known.unwrap()
}

fn dropped(pair: &Pair, side: usize) -> Vec<Dropped> {
    let entries = pair.sides[side].disk.iter().filter(|(key, _)| key[0] == Table::Entry as u8);
    entries.filter_map(|(_, value)| Entry::decode(value).unwrap().dropped).collect()
}

fn all_acknowledged(pair: &Pair) -> bool {
    (0..2).all(|side| pair.feeds(side, true).iter().all(|feed| feed.acked == feed.head))
}

fn shown(pair: &Pair, side: usize) -> Vec<String> {
    let texts = pair.sides[side].events.iter().filter_map(|event| match event {
        Event::Received { kind: Kind::Text, body, .. } => Some(String::from_utf8(body.to_vec()).unwrap()),
        Event::Received { kind: Kind::Tombstone, .. } => Some("(taken back)".to_owned()),
        _ => None,
    });
    texts.collect()
}

#[test]
fn a_message_taken_back_in_the_middle_leaves_its_header_and_no_gap() {
    let mut pair = Pair::met();
    pair.crash(BOB);
    for n in 0..3 {
        pair.send(ALICE, n, &format!("message {n}"));
    }
    pair.settle();
    let (peer, message) = (pair.peer(BOB), queued(&pair, ALICE, 1));
    pair.command(ALICE, Command::Cancel { peer, message }).unwrap();
    pair.settle();
    let said = |event: &Event| matches!(event, Event::Dropped { message: what, cancelled: true, .. } if *what == message);
    assert_eq!(pair.count(ALICE, said), 1);
    assert_eq!(dropped(&pair, ALICE), [Dropped::Cancelled { settled: false }]);
    let secret = b"message 1";
    let left = pair.sides[ALICE].disk.values().any(|value| value.windows(9).any(|part| part == secret));
    assert!(!left, "nothing of the text is left on the disk");
    // Also across a restart.
    pair.crash(ALICE);
    pair.start(ALICE);
    pair.start(BOB);
    pair.drive_until("acknowledged", all_acknowledged);
    assert_eq!(shown(&pair, BOB), ["message 0", "(taken back)", "message 2"]);
    assert_eq!(pair.count(BOB, |event| matches!(event, Event::Gap { .. })), 0);
    assert_eq!(
        dropped(&pair, ALICE),
        [Dropped::Cancelled { settled: true }],
        "it is certain that it never came"
    );
    assert_eq!(dropped(&pair, BOB), [Dropped::ByAuthor]);
}

#[test]
fn what_was_taken_back_and_had_come_all_the_same_is_proven_delivered() {
    let mut pair = Pair::met();
    pair.sides[BOB].slow = true;
    pair.send(ALICE, 0, "too late");
    pair.settle();
    pair.sync(BOB);
    // Stored there; the acknowledgement is lost.
    pair.crash(BOB);
    pair.sides[BOB].slow = false;
    let (peer, message) = (pair.peer(BOB), queued(&pair, ALICE, 0));
    pair.command(ALICE, Command::Cancel { peer, message }).unwrap();
    pair.send(ALICE, 1, "after it");
    pair.settle();
    pair.start(BOB);
    pair.drive_until("acknowledged", all_acknowledged);
    assert_eq!(dropped(&pair, ALICE), [Dropped::Cancelled { settled: false }], "acknowledged, so delivered");
    assert_eq!(pair.history(BOB).len(), 2);
    assert!(dropped(&pair, BOB).is_empty());
    let again = Command::Cancel { peer, message };
    assert_eq!(pair.command(ALICE, again).unwrap_err().why, Refusal::Delivered);
    let nobody = Command::Cancel { peer, message: MessageRef { seq: 99, ..message } };
    assert_eq!(pair.command(ALICE, nobody).unwrap_err().why, Refusal::UnknownMessage);
}

/// The peer has the message and waits for its disk, so it has not said so: what is offered in its place is a duplicate.
#[test]
fn taken_back_while_it_is_on_its_way() {
    for big in [false, true] {
        let mut pair = Pair::met();
        pair.settle();
        pair.sides[BOB].slow = true;
        let text = if big { "0123456789abcdef".repeat(2048) } else { "on its way".to_owned() };
        pair.send(ALICE, 0, &text);
        for _ in 0..2 {
            pair.step();
        }
        let (peer, message) = (pair.peer(BOB), queued(&pair, ALICE, 0));
        pair.command(ALICE, Command::Cancel { peer, message }).unwrap();
        pair.settle();
        pair.cut();
        pair.sides[BOB].slow = false;
        pair.drive_until("acknowledged", all_acknowledged);
        let came = shown(&pair, BOB) == [text.clone()];
        let settled = dropped(&pair, ALICE) == [Dropped::Cancelled { settled: true }];
        assert_ne!(came, settled, "big {big}: what is shown of it is what happened to it");
    }
}

#[test]
fn one_message_deleted_here_stays_there_and_does_not_come_back() {
    let mut pair = Pair::met();
    for n in 0..3 {
        pair.send(ALICE, n, &format!("message {n}"));
    }
    pair.drive_until("delivered", all_acknowledged);
    let message = queued(&pair, ALICE, 1);
    for side in [ALICE, BOB] {
        let peer = pair.peer(1 - side);
        pair.command(side, Command::Delete { peer, message }).unwrap();
        pair.settle();
        assert_eq!(pair.history(side).len(), 2);
    }
    pair.cut();
    pair.send(BOB, 50, "answer");
    pair.drive_until("delivered", all_acknowledged);
    assert_eq!((pair.history(ALICE).len(), pair.history(BOB).len()), (3, 3));
    assert_eq!(shown(&pair, BOB).len(), 3);
}

#[test]
fn a_deleted_conversation_goes_on_from_where_it_was() {
    let mut pair = Pair::met();
    for n in 0..300 {
        pair.send(ALICE, n, &format!("a {n} {}", "x".repeat(500)));
        pair.send(BOB, 1000 + n, &format!("b {n}"));
    }
    pair.drive_until("delivered", all_acknowledged);
    pair.settle();
    let old = pair.sides[BOB].disk.clone();
    pair.refuse = true;
    pair.cut();
    pair.send(ALICE, 500, "queued and then deleted");
    pair.settle();
    let peer = pair.peer(BOB);
    pair.command(ALICE, Command::DeleteConversation { peer }).unwrap();
    pair.settle();
    assert_eq!(pair.count(ALICE, |event| matches!(event, Event::ConversationDeleted { .. })), 1);
    assert_eq!(pair.history(ALICE).len(), 0);
    let entries = pair.sides[ALICE].disk.keys().filter(|key| key[0] == Table::Entry as u8).count();
    assert!(entries <= 3, "{entries} headers are left");
    let texts = pair.sides[ALICE].disk.values().any(|value| value.windows(4).any(|part| part == b"xxxx"));
    assert!(!texts, "no text is left");
    pair.refuse = false;
    pair.send(BOB, 2000, "after it");
    pair.drive_until("delivered", all_acknowledged);
    pair.send(ALICE, 2000, "and on");
    pair.drive_until("delivered", all_acknowledged);
    assert_eq!(pair.history(ALICE).len(), 2);
    assert_eq!(pair.history(BOB).len(), 603, "his is his; what never came is named");
    assert!(shown(&pair, BOB).contains(&"(taken back)".to_owned()));
    assert_eq!(shown(&pair, ALICE).iter().filter(|text| *text == "after it").count(), 1);
    // Who lost what is deleted here is told that it is gone, and waits for nothing.
    let backup: pair::Disk = old
        .into_iter()
        .filter(|(key, _)| {
            !matches!(
                Key::decode(key),
                Ok(Key::Feed(_) | Key::Entry { .. } | Key::Order(_) | Key::Arrival(_))
            )
        })
        .collect();
    pair.roll_back(BOB, &backup);
    pair.sides[BOB].events.clear();
    pair.drive_until("mended", |pair| {
        all_acknowledged(pair) && pair.count(BOB, |event| matches!(event, Event::Gone { .. })) > 0
    });
    assert!(shown(&pair, BOB).contains(&"and on".to_owned()));
    pair.send(BOB, 3000, "from what is left");
    pair.drive_until("delivered", all_acknowledged);
    assert_eq!(shown(&pair, ALICE).iter().filter(|text| *text == "from what is left").count(), 1);
}

#[test]
fn a_crash_while_a_conversation_is_deleted_only_delays_it() {
    let mut worlds = 0;
    for steps in (0..200).step_by(3) {
        let mut pair = Pair::met();
        for n in 0..50 {
            pair.send(ALICE, n, &format!("a {n} {}", "x".repeat(4000)));
            pair.send(BOB, 1000 + n, &format!("b {n}"));
        }
        pair.drive_until("delivered", all_acknowledged);
        let peer = pair.peer(BOB);
        pair.command(ALICE, Command::DeleteConversation { peer }).unwrap();
        let mut idle = 0;
        for turn in 0..steps {
            idle = if pair.small_step(turn) { 0 } else { idle + 1 };
        }
        pair.crash(ALICE);
        let asked = {
            let key = Key::Conversation(peerlink_core::ids::ConversationNo(1)).encode();
            peerlink_core::record::Conversation::decode(&pair.sides[ALICE].disk[&key])
                .unwrap()
                .erase
                .is_some()
        };
        let before = pair.history(ALICE).len();
        pair.start(ALICE);
        pair.drive_until("deleted", |pair| !asked || pair.history(ALICE).is_empty());
        assert!(asked || before == 0 || before == 100, "{before} are left, and nobody remembers why");
        worlds += 1;
        if idle >= 10 {
            break;
        }
    }
    assert!((8..66).contains(&worlds), "{worlds}");
}
