//! Stores that fell back while something stood beyond a gap: it comes back there, what nobody has any more is said to be
//! gone, and no proof of delivery goes with it.

mod pair;

use pair::{ALICE, BOB, Disk, Pair};
use peerlink_core::api::{Command, Event};
use peerlink_core::ids::Epoch;
use peerlink_core::record::{Feed, Key, Profile, Range, Record as _};

fn long(name: &str) -> String {
    format!("{name} {}", "0123456789abcdef".repeat(2800))
}

fn settled(pair: &Pair) -> bool {
    let open = |side: usize| {
        let own = |feed: &Feed| feed.acked < feed.head || feed.fork.is_some() || !feed.beyond.is_empty();
        let held = |feed: &Feed| !feed.beyond.is_empty();
        pair.feeds(side, true).iter().any(own) || pair.feeds(side, false).iter().any(held)
    };
    pair.history(ALICE) == pair.history(BOB) && !open(ALICE) && !open(BOB)
}

/// What is read on both sides, by its first words; what is gone as that.
fn read(pair: &Pair) -> Vec<String> {
    let history = pair.history(BOB).into_iter();
    let first = |text: &str| text.split(' ').take(2).collect::<Vec<_>>().join(" ");
    history.map(|(_, text)| if text.is_empty() { "(gone)".to_owned() } else { first(&text) }).collect()
}

fn count(pair: &Pair, side: usize) -> [usize; 5] {
    [
        pair.count(side, |event| matches!(event, Event::RolledBack { .. })),
        pair.count(side, |event| matches!(event, Event::Reissued { .. })),
        pair.count(side, |event| matches!(event, Event::Recovered { .. })),
        pair.count(side, |event| matches!(event, Event::Gone { .. })),
        pair.count(side, |event| matches!(event, Event::SecondCopy { .. } | Event::Misbehaved { .. })),
    ]
}

/// Steps until Bob holds something beyond a gap, durably, and gives his disk of that moment. From now on little passes at
/// once.
fn bob_has_a_gap(pair: &mut Pair, upto: u64) -> Disk {
    pair.at_once = 4000;
    for _ in 0..1000 {
        pair.step();
        let feeds = pair.feeds(BOB, false);
        if feeds.iter().any(|feed| feed.beyond.last().is_some_and(|range| range.last == upto)) {
            return pair.sides[BOB].disk.clone();
        }
    }
    panic!("there is no gap");
}

/// Alice wrote "old 1", "long 2" and "beyond 3"; a copy of her disk before each of them, and after. Bob's disk when the
/// long one had not come yet, and the one after it had.
fn gap() -> (Pair, Vec<Disk>, Disk) {
    let mut pair = Pair::met();
    let mut alice = vec![pair.sides[ALICE].disk.clone()];
    pair.send(ALICE, 1, "old 1");
    pair.drive_until("delivered", settled);
    alice.push(pair.sides[ALICE].disk.clone());
    pair.send(ALICE, 2, &long("long 2"));
    pair.send(ALICE, 3, "beyond 3");
    let bob = bob_has_a_gap(&mut pair, 3);
    pair.drive_until("delivered", settled);
    alice.push(pair.sides[ALICE].disk.clone());
    (pair, alice, bob)
}

/// Both fall back, and each writes something before they meet.
fn fall_back(pair: &mut Pair, alice: &Disk, bob: &Disk, new: &[&str]) {
    pair.refuse = true;
    pair.at_once = usize::MAX;
    pair.roll_back(ALICE, alice);
    pair.roll_back(BOB, bob);
    for side in [ALICE, BOB] {
        pair.sides[side].events.clear();
    }
    for (n, text) in new.iter().enumerate() {
        pair.send(ALICE, 100 + u32::try_from(n).unwrap(), text);
    }
    pair.settle();
    pair.refuse = false;
    reach(pair);
}

fn reach(pair: &mut Pair) {
    let peer = pair.peer(BOB);
    pair.command(ALICE, Command::Reach { peer }).unwrap();
}

#[test]
fn what_stands_beyond_a_gap_that_nobody_can_fill_comes_back_and_the_gap_is_gone() {
    for new in [&[][..], &["new 2"], &["new 2", "new 3"], &["new 2", "new 3", "new 4"]] {
        let (mut pair, alice, bob) = gap();
        fall_back(&mut pair, &alice[1], &bob, new);
        pair.drive_until("mended", settled);
        let mut expected = vec!["old 1", "(gone)", "beyond 3"];
        expected.extend(new);
        assert_eq!(read(&pair), expected);
        let told = count(&pair, ALICE);
        assert_eq!(told, [1, new.len(), 1, 1, 0], "{new:?}");
        assert_eq!(count(&pair, BOB)[3..], [1, 0]);
        // It goes on, and the old epoch is closed on both sides.
        pair.send(ALICE, 200, "after it");
        pair.drive_until("delivered", settled);
        pair.cut();
        pair.drive_until("delivered", settled);
        let closed = |side: usize| pair.feeds(side, side == ALICE).iter().filter(|feed| feed.closed).count();
        assert_eq!((closed(ALICE), closed(BOB)), (1, 1));
    }
}

/// Of the first epoch Alice knows nothing at all any more, and Bob has only what stood beyond the gap.
#[test]
fn an_epoch_of_which_only_what_stood_beyond_a_gap_is_left_comes_back() {
    for forgets_all in [false, true] {
        let mut pair = Pair::met();
        pair.settle();
        let nothing = pair.sides[ALICE].disk.clone();
        pair.send(ALICE, 1, "first 1");
        pair.drive_until("delivered", settled);
        pair.roll_back(ALICE, &nothing);
        pair.drive_until("mended", |pair| settled(pair) && pair.history(ALICE).len() == 1);
        let before = pair.sides[ALICE].disk.clone();
        pair.send(ALICE, 2, &long("long 1"));
        pair.send(ALICE, 3, "beyond 2");
        let bob = bob_has_a_gap(&mut pair, 2);
        pair.drive_until("delivered", settled);
        fall_back(&mut pair, if forgets_all { &nothing } else { &before }, &bob, &["new 1", "new 2"]);
        pair.drive_until("mended", |pair| settled(pair) && pair.history(ALICE).len() == 5);
        assert_eq!(read(&pair), ["first 1", "(gone)", "beyond 2", "new 1", "new 2"]);
        assert_eq!(count(&pair, ALICE)[4], 0);
    }
}

/// What she wrote again at the same numbers was acknowledged by nobody, and what he holds there is another entry.
#[test]
fn numbers_that_were_used_again_are_noticed_by_the_hash_beyond_the_gap() {
    let (mut pair, alice, bob) = gap();
    fall_back(&mut pair, &alice[1], &bob, &["new 2", "new 3", "new 4"]);
    // He is told of the new ones, and says what he holds.
    pair.drive_until("mended", settled);
    let numbers = |side: usize, mine: bool| {
        let mut heads: Vec<u64> = pair.feeds(side, mine).iter().map(|feed| feed.head).collect();
        heads.sort_unstable();
        heads
    };
    assert_eq!(numbers(ALICE, true), [3, 3], "one epoch ended at 3, the other holds the three new ones");
    assert_eq!(numbers(BOB, false), [3, 3]);
}

/// The proof that something came beyond a gap stays when what is before the gap must be issued again.
#[test]
fn a_proof_beyond_a_gap_survives_the_end_of_its_epoch() {
    let mut pair = Pair::met();
    pair.send(ALICE, 1, &long("long 1"));
    pair.send(ALICE, 2, "beyond 2");
    bob_has_a_gap(&mut pair, 2);
    let proven = |pair: &Pair| pair.feeds(ALICE, true)[0].acked_beyond.first().copied();
    let shown = |event: &Event| matches!(event, Event::Delivered { first: 2, last: 2, .. });
    pair.at_once = 500;
    for _ in 0..100 {
        if pair.count(ALICE, shown) == 0 {
            pair.step();
        }
    }
    assert!(proven(&pair).is_some());
    let alice = pair.sides[ALICE].disk.clone();
    let bob = pair.sides[BOB].disk.clone();
    assert!(pair.feeds(BOB, false)[0].head == 0, "the long one is still on its way");
    pair.drive_until("delivered", settled);
    // And one more, which she forgets and he does not: her store is older than his.
    pair.refuse = true;
    pair.roll_back(ALICE, &alice);
    pair.roll_back(BOB, &bob);
    pair.refuse = false;
    pair.send(ALICE, 3, "lost 3");
    reach(&mut pair);
    let bob = bob_has_a_gap(&mut pair, 3);
    fall_back(&mut pair, &alice, &bob, &["new 3"]);
    let old = pair.feeds(ALICE, true)[0].epoch;
    // Her disk is slow: before she offers anything he gives back what she lost.
    for _ in 0..20 {
        for turn in [0, 2, 4] {
            pair.small_step(turn);
        }
        pair.sync(BOB);
    }
    let holds = |ranges: &[Range]| ranges.iter().any(|range| (range.first..=range.last).contains(&2));
    let is_proven = |feed: &Feed| feed.acked >= 2 || holds(&feed.acked_beyond);
    for turn in 0..400 {
        pair.small_step(turn);
        assert!(pair.feeds(ALICE, true).iter().any(is_proven), "the proof is gone after {turn} steps");
    }
    pair.drive_until("mended", settled);
    assert_eq!(count(&pair, ALICE), [1, 2, 1, 1, 0]);
    assert_eq!(read(&pair), ["(gone)", "beyond 2", "lost 3", "long 1", "new 3"]);
    let again = |event: &Event| matches!(event, Event::Delivered { epoch, .. } if *epoch == old);
    assert_eq!(pair.count(ALICE, again), 0, "once is enough");
}

/// He holds what comes right after her newest entry, and not that: it does not prove that he has hers.
#[test]
fn what_fits_the_head_of_an_epoch_acknowledges_nothing_below() {
    let mut pair = Pair::met();
    pair.refuse = true;
    pair.cut();
    pair.send(ALICE, 1, &long("long 1"));
    pair.send(ALICE, 2, "kept 2");
    pair.settle();
    let mut alice = pair.sides[ALICE].disk.clone();
    pair.send(ALICE, 3, "lost 3");
    pair.settle();
    pair.refuse = false;
    reach(&mut pair);
    let bob = bob_has_a_gap(&mut pair, 3);
    // Her store knows that it is an older one: the epoch has ended before anybody proves it.
    let mut profile = Profile::decode(&alice[&Key::Profile.encode()]).unwrap();
    profile.epoch = Epoch::TO_BE_DRAWN;
    alice.insert(Key::Profile.encode(), profile.encode());
    fall_back(&mut pair, &alice, &bob, &[]);
    pair.at_once = 2000;
    for turn in 0..1000 {
        pair.small_step(turn);
        let proven = pair.feeds(ALICE, true).iter().map(|feed| feed.acked).max();
        let held = pair.feeds(BOB, false).iter().map(|feed| feed.head).max();
        assert!(proven <= held, "{proven:?} of {held:?} are proven after {turn} steps");
    }
    pair.drive_until("mended", |pair| settled(pair) && pair.history(ALICE).len() == 3);
    assert_eq!(read(&pair), ["long 1", "kept 2", "lost 3"]);
    assert_eq!(count(&pair, ALICE), [0, 0, 1, 0, 0]);
}

#[test]
fn a_crash_at_any_moment_of_the_mending_changes_nothing() {
    let mut worlds = 0;
    let (_, alice, bob) = gap();
    for who in [ALICE, BOB] {
        for steps in 0.. {
            let mut pair = Pair::met();
            fall_back(&mut pair, &alice[1], &bob, &["new 2", "new 3", "new 4"]);
            let mut idle = 0;
            for turn in 0..steps {
                idle = if pair.small_step(turn) { 0 } else { idle + 1 };
            }
            pair.crash(who);
            pair.start(who);
            pair.drive_until("mended", settled);
            let mut read = read(&pair);
            read.sort();
            assert_eq!(read, ["(gone)", "beyond 3", "new 2", "new 3", "new 4", "old 1"], "{who} {steps}");
            worlds += 1;
            if idle >= 10 {
                break;
            }
        }
    }
    assert!(worlds > 40, "{worlds}");
}

/// Alice's store fell back to before a long message, which was then gone for both; later a newer copy of the store is put
/// back, which has it and does not know whether it came.
#[test]
fn what_was_gone_and_is_found_in_a_newer_copy_is_not_delivered_before_it_came() {
    for new in [&[][..], &["new 2"]] {
        let mut pair = Pair::met();
        pair.send(ALICE, 1, "old 1");
        pair.drive_until("delivered", settled);
        let old = pair.sides[ALICE].disk.clone();
        pair.send(ALICE, 2, &long("long 2"));
        pair.send(ALICE, 3, "beyond 3");
        let bob = bob_has_a_gap(&mut pair, 3);
        let newer = pair.sides[ALICE].disk.clone();
        fall_back(&mut pair, &old, &bob, new);
        pair.drive_until("mended", settled);
        let mut expected = vec!["old 1", "(gone)", "beyond 3"];
        expected.extend(new);
        assert_eq!(read(&pair), expected);

        pair.refuse = true;
        pair.roll_back(ALICE, &newer);
        for side in [ALICE, BOB] {
            pair.sides[side].events.clear();
        }
        pair.settle();
        pair.refuse = false;
        reach(&mut pair);
        let has = |pair: &Pair| pair.history(BOB).iter().any(|(_, text)| text.starts_with("long 2"));
        let said = |pair: &Pair| {
            pair.count(ALICE, |event| matches!(event, Event::Delivered { first, last, .. } if (*first..=*last).contains(&2)))
        };
        pair.drive_until("Bob has it", |pair| {
            assert!(has(pair) || said(pair) == 0, "it is shown as delivered, and Bob never had it");
            has(pair) && settled(pair)
        });
        expected[1] = "long 2";
        assert_eq!(read(&pair), expected);
        let came = pair
            .count(BOB, |event| matches!(event, Event::Received { body, .. } if body.starts_with(b"long 2")));
        assert_eq!((came, said(&pair)), (1, 1), "{new:?}");
    }
}
