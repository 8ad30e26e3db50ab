//! A store that is older than what its owner has said: noticed, proven, and mended, one scenario each.

mod pair;

use pair::{ALICE, BOB, Disk, Pair, caller};
use peerlink_core::api::{Command, Event, Expire};
use peerlink_core::record::{Conversation, Entry, Key, Record as _, Table};

fn send_all(pair: &mut Pair, side: usize, texts: &[String]) {
    for (n, text) in texts.iter().enumerate() {
        let id = 1000 * side as u32 + u32::try_from(n).unwrap();
        pair.send(side, id, text);
    }
}

fn texts(what: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{what} {n}")).collect()
}

fn settled(pair: &Pair) -> bool {
    let queued =
        |side: usize| pair.feeds(side, true).iter().any(|feed| feed.acked < feed.head || feed.fork.is_some());
    pair.history(ALICE) == pair.history(BOB) && !queued(ALICE) && !queued(BOB)
}

fn sorted(mut texts: Vec<String>) -> Vec<String> {
    texts.sort();
    texts
}

fn told(pair: &Pair, side: usize) -> (usize, usize, usize) {
    (
        pair.count(side, |event| matches!(event, Event::RolledBack { .. })),
        pair.count(side, |event| matches!(event, Event::Reissued { .. })),
        pair.count(side, |event| matches!(event, Event::Recovered { .. })),
    )
}

/// Alice wrote `old` and it was delivered; her store is that of the moment when only `kept` of them were written.
fn rolled_back(kept: usize, old: usize) -> (Pair, Vec<String>) {
    let mut pair = Pair::met();
    let all = texts("old", old);
    send_all(&mut pair, ALICE, &all[..kept]);
    pair.drive_until("the first are there", |pair| pair.delivered(ALICE) == kept as u64);
    pair.settle();
    let backup = pair.sides[ALICE].disk.clone();
    for (n, text) in all[kept..].iter().enumerate() {
        pair.send(ALICE, 500 + u32::try_from(n).unwrap(), text);
    }
    pair.drive_until("all are there", |pair| pair.delivered(ALICE) == old as u64);
    for starts in 2..5 {
        pair.crash(ALICE);
        pair.start(ALICE);
        pair.drive_until("she told him where she is", |pair| {
            pair.count(ALICE, |event| matches!(event, Event::Connected { .. })) == starts
        });
    }
    pair.settle();
    pair.crash(ALICE);
    pair.sides[ALICE].disk = backup;
    pair.sides[ALICE].events.clear();
    (pair, all)
}

#[test]
fn what_was_lost_comes_back_and_nothing_of_it_is_new() {
    let (mut pair, all) = rolled_back(4, 10);
    pair.start(ALICE);
    pair.drive_until("mended", settled);
    assert_eq!(told(&pair, ALICE), (1, 0, 6));
    assert_eq!(pair.received(ALICE).len(), 0, "nothing of one's own is shown as new");
    assert_eq!(pair.received(BOB), all);
    let recovered = pair.sides[ALICE].disk.iter().filter(|(key, _)| key[0] == Table::Entry as u8);
    let recovered = recovered.filter(|(_, value)| Entry::decode(value).unwrap().recovered);
    assert_eq!(recovered.count(), 6);
    // What it says of where it is counts again, although it forgot how often it said that.
    let record = pair.contact(BOB, &pair.peer(ALICE)).record_seq;
    let own =
        peerlink_core::record::Profile::decode(&pair.sides[ALICE].disk[&Key::Profile.encode()]).unwrap();
    assert_eq!(record, own.record_seq);
    // It goes on in a new epoch.
    pair.send(ALICE, 900, "after it");
    pair.drive_until("delivered", settled);
    assert_eq!(pair.feeds(ALICE, true).len(), 2);
    assert_eq!(pair.received(BOB).len(), 11);
}

#[test]
fn what_was_written_before_it_was_noticed_arrives_once_under_a_new_name() {
    for offline in [false, true] {
        let (mut pair, all) = rolled_back(4, 10);
        pair.refuse = offline;
        pair.start(ALICE);
        let new = texts("new", 9);
        send_all(&mut pair, ALICE, &new);
        pair.settle();
        pair.refuse = false;
        pair.drive_until("mended", settled);
        assert_eq!(told(&pair, ALICE), (1, 9, 6), "offline: {offline}");
        let expected: Vec<String> = all.iter().chain(&new).cloned().collect();
        assert_eq!(pair.received(BOB), expected);
        assert_eq!(pair.history(ALICE).len(), 19);
        // A caller that asks again gets the same message, under the name that it has now.
        pair.sides[ALICE].events.clear();
        let peer = pair.peer(BOB);
        let again = Command::Send {
            peer,
            caller: caller(0),
            fresh: false,
            expire: Expire::Default,
            body: "new 0".as_bytes().to_vec().into(),
        };
        pair.command(ALICE, again).unwrap();
        pair.settle();
        let known = |event: &Event| matches!(event, Event::Queued { duplicate: true, delivered: true, .. });
        assert_eq!(pair.count(ALICE, known), 1);
        assert_eq!(pair.history(BOB).len(), 19);
    }
}

/// The backup was made when messages were on their way whose acknowledgement it does not know.
#[test]
fn what_both_have_is_not_issued_again() {
    let mut pair = Pair::met();
    send_all(&mut pair, ALICE, &texts("old", 3));
    pair.settle();
    pair.refuse = true;
    for n in 0..4 {
        pair.send(ALICE, 100 + n, &format!("unacknowledged {n}"));
    }
    pair.settle();
    let backup = pair.sides[ALICE].disk.clone();
    pair.refuse = false;
    pair.cut();
    pair.drive_until("delivered", |pair| pair.delivered(ALICE) == 7);
    for n in 0..2 {
        pair.send(ALICE, 200 + n, &format!("lost {n}"));
    }
    pair.drive_until("delivered", |pair| pair.delivered(ALICE) == 9);
    pair.refuse = true;
    pair.roll_back(ALICE, &backup);
    pair.sides[ALICE].events.clear();
    pair.send(ALICE, 300, "new");
    pair.settle();
    pair.refuse = false;
    pair.drive_until("mended", settled);
    assert_eq!(told(&pair, ALICE), (1, 1, 2));
    assert_eq!(pair.history(BOB).len(), 10);
    assert_eq!(pair.received(BOB).len(), 10);
}

#[test]
fn both_sides_restored_from_backups_end_with_the_same_history() {
    for (alice_keeps, bob_keeps) in [(2, 5), (5, 2), (0, 0), (3, 3)] {
        let mut pair = Pair::met();
        pair.settle();
        let mut backups: [Vec<Disk>; 2] =
            [vec![pair.sides[0].disk.clone()], vec![pair.sides[1].disk.clone()]];
        for n in 0..6 {
            pair.send(ALICE, n, &format!("a {n}"));
            pair.send(BOB, 50 + n, &format!("b {n}"));
            pair.settle();
            for (side, kept) in backups.iter_mut().enumerate() {
                kept.push(pair.sides[side].disk.clone());
            }
        }
        assert!(settled(&pair));
        pair.refuse = true;
        pair.roll_back(ALICE, &backups[ALICE][alice_keeps]);
        pair.roll_back(BOB, &backups[BOB][bob_keeps]);
        for n in 0..3 {
            pair.send(ALICE, 100 + n, &format!("new a {n}"));
            pair.send(BOB, 150 + n, &format!("new b {n}"));
        }
        pair.settle();
        pair.refuse = false;
        pair.drive_until("mended", settled);
        let history = pair.history(ALICE);
        let kept = alice_keeps.max(bob_keeps);
        assert_eq!(history.len(), 2 * kept + 6, "{alice_keeps} {bob_keeps}: {history:?}");
        let distinct: std::collections::BTreeSet<_> = history.iter().collect();
        assert_eq!(distinct.len(), history.len());
    }
}

#[test]
fn a_store_that_lost_everything_gets_it_back() {
    let mut pair = Pair::met();
    let big = "0123456789abcdef".repeat(4096);
    for n in 0..600 {
        pair.send(ALICE, n, &if n % 100 == 7 { big.clone() } else { format!("a {n}") });
        pair.send(BOB, 1000 + n, &format!("b {n}"));
    }
    pair.drive_until("delivered", |pair| pair.delivered(ALICE) == 600 && pair.delivered(BOB) == 600);
    pair.settle();
    let before = pair.history(BOB);
    // A new store with the old identity: even who the contacts are must be said again.
    pair.roll_back(BOB, &Disk::new());
    pair.sides[BOB].events.clear();
    pair.introduce_again();
    pair.drive_until("mended", |pair| settled(pair) && pair.history(BOB).len() == before.len());
    assert_eq!(pair.history(BOB), before);
    assert!(told(&pair, BOB).2 >= 600);
    pair.send(BOB, 5000, "from the new store");
    pair.send(ALICE, 5000, "to the new store");
    pair.drive_until("delivered", |pair| settled(pair) && pair.history(BOB).len() == before.len() + 2);
}

#[test]
fn old_epochs_are_closed_and_leave_the_have_vector() {
    let (mut pair, _) = rolled_back(4, 10);
    pair.start(ALICE);
    pair.drive_until("mended", settled);
    for n in 0..3 {
        pair.send(ALICE, 900 + n, "in the new epoch");
        pair.drive_until("delivered", settled);
    }
    let closed = |side: usize, mine: bool| pair.feeds(side, mine).iter().filter(|feed| feed.closed).count();
    assert_eq!((closed(ALICE, true), closed(BOB, false)), (1, 1));
    // Whoever comes back from before that finds all of it open again.
    let before = pair.history(ALICE);
    let very_old = {
        let fresh = Pair::met();
        fresh.sides[ALICE].disk.clone()
    };
    assert!(very_old.len() > 3);
    pair.cut();
    pair.drive_until("again", settled);
    assert_eq!(pair.history(ALICE), before);
}

#[test]
fn epochs_over_epochs_and_one_from_before_all_of_them() {
    let mut pair = Pair::met();
    pair.settle();
    let mut backups = vec![pair.sides[ALICE].disk.clone()];
    let mut written = 0u32;
    for round in 0..4 {
        for _ in 0..3 {
            pair.send(ALICE, written, &format!("message {written}"));
            written += 1;
        }
        pair.drive_until("delivered", settled);
        backups.push(pair.sides[ALICE].disk.clone());
        let at = backups.len() - 2;
        let backup = backups[at].clone();
        pair.roll_back(ALICE, &backup);
        pair.drive_until("mended", |pair| settled(pair) && pair.history(ALICE).len() == written as usize);
        assert_eq!(pair.history(ALICE).len(), written as usize, "round {round}");
    }
    let backup = backups[0].clone();
    pair.refuse = true;
    pair.roll_back(ALICE, &backup);
    for _ in 0..5 {
        pair.send(ALICE, 9000 + written, &format!("message {written}"));
        written += 1;
    }
    pair.settle();
    pair.refuse = false;
    pair.drive_until("mended", |pair| settled(pair) && pair.history(ALICE).len() == written as usize);
    let received = pair.received(BOB);
    assert_eq!(sorted(received.clone()).windows(2).filter(|two| two[0] == two[1]).count(), 0);
    assert_eq!(received.len(), written as usize);
}

/// Two processes of one identity, on two machines: whichever is on, the other is told that it goes on.
#[test]
fn a_second_copy_that_goes_on_writing_is_named() {
    let mut pair = Pair::met();
    for n in 0..4 {
        pair.send(ALICE, n, &format!("before it {n}"));
    }
    pair.drive_until("delivered", settled);
    let backup = pair.sides[ALICE].disk.clone();
    let mut other = Pair::new().sides.remove(ALICE);
    other.node = None;
    other.disk = backup;
    other.events.clear();
    let mut turn = |pair: &mut Pair, text: &str, first: bool| {
        pair.cut();
        std::mem::swap(&mut pair.sides[ALICE], &mut other);
        if first {
            pair.start(ALICE);
        }
        pair.settle();
        let peer = pair.peer(BOB);
        pair.command(ALICE, Command::Reach { peer }).unwrap();
        pair.drive_until("mended", settled);
        pair.send(ALICE, 100 + u32::try_from(text.len()).unwrap(), text);
        pair.drive_until("delivered", settled);
        pair.count(ALICE, |event| matches!(event, Event::SecondCopy { .. }))
    };
    assert_eq!(turn(&mut pair, "the copy", true), 0);
    // Who was there first learns that there is more of it than it wrote, and goes on in an epoch of its own.
    assert_eq!(turn(&mut pair, "the first", false), 0);
    assert_eq!(turn(&mut pair, "the copy again", false), 0);
    assert_eq!(turn(&mut pair, "the first again", false), 1, "its old epoch grew, and not by itself");
    assert_eq!(turn(&mut pair, "the copy once more", false), 1);
    assert_eq!(turn(&mut pair, "the first once more...", false), 1, "once is enough");
    assert_eq!(pair.history(BOB).len(), 10);
    assert_eq!(pair.received(BOB).len(), 10, "nothing came twice");
}

#[test]
fn a_crash_at_any_moment_of_the_mending_changes_nothing() {
    let mut worlds = 0;
    for who in [ALICE, BOB] {
        for steps in 0.. {
            let (mut pair, all) = rolled_back(4, 10);
            pair.refuse = true;
            pair.start(ALICE);
            let new = texts("new", 9);
            send_all(&mut pair, ALICE, &new);
            pair.settle();
            pair.refuse = false;
            let peer = pair.peer(BOB);
            pair.command(ALICE, Command::Reach { peer }).unwrap();
            let mut idle = 0;
            for turn in 0..steps {
                idle = if pair.small_step(turn) { 0 } else { idle + 1 };
            }
            pair.crash(who);
            pair.start(who);
            pair.drive_until("mended", settled);
            let mut expected: Vec<String> = all.iter().chain(&new).cloned().collect();
            expected.sort();
            let history = pair.history(BOB).into_iter().map(|(_, text)| text).collect();
            assert_eq!(sorted(history), expected, "{who} after {steps} steps");
            worlds += 1;
            if idle >= 10 {
                break;
            }
        }
    }
    assert!(worlds > 40, "{worlds}");
}

/// A store that was put together from what was left of an older one says so itself: nothing is ever written twice.
#[test]
fn a_store_that_knows_that_it_is_older_begins_a_new_epoch_at_once() {
    let (mut pair, all) = rolled_back(4, 10);
    let key = Key::Profile.encode();
    let mut profile = peerlink_core::record::Profile::decode(&pair.sides[ALICE].disk[&key]).unwrap();
    profile.epoch = peerlink_core::ids::Epoch::TO_BE_DRAWN;
    pair.sides[ALICE].disk.insert(key, profile.encode());
    pair.refuse = true;
    pair.start(ALICE);
    let new = texts("new", 3);
    send_all(&mut pair, ALICE, &new);
    pair.settle();
    pair.refuse = false;
    pair.drive_until("mended", settled);
    assert_eq!(told(&pair, ALICE), (0, 0, 6), "nothing had to be proven or issued again");
    let expected: Vec<String> = all.iter().chain(&new).cloned().collect();
    assert_eq!(pair.received(BOB), expected);
    let _conversation_reads = Conversation::decode(
        &pair.sides[ALICE].disk[&Key::Conversation(peerlink_core::ids::ConversationNo(1)).encode()],
    )
    .unwrap();
}
