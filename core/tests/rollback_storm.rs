//! Two people whose stores fall back to older states again and again, at any moment of anything: in the end both
//! histories are equal, nothing is in them twice, and what was proven to be delivered is there unless both lost it.

mod pair;

use pair::{ALICE, BOB, Disk, Pair};
use peerlink_core::api::{Command, Event};
use std::collections::BTreeSet;

/// A small generator that is the same everywhere (xorshift64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn settled(pair: &Pair) -> bool {
    let queued =
        |side: usize| pair.feeds(side, true).iter().any(|feed| feed.acked < feed.head || feed.fork.is_some());
    pair.history(ALICE) == pair.history(BOB) && !queued(ALICE) && !queued(BOB)
}

fn heal(pair: &mut Pair) {
    for side in [ALICE, BOB] {
        pair.sides[side].slow = false;
        if pair.sides[side].node.is_none() {
            pair.start(side);
        }
    }
    pair.refuse = false;
    pair.settle();
    for side in [ALICE, BOB] {
        let peer = pair.peer(1 - side);
        pair.command(side, Command::Reach { peer }).unwrap();
    }
    pair.drive_until("mended", settled);
}

/// `gently`: whatever fell back is mended before the next falls back, so nothing that was delivered may be missing.
fn storm(seed: u64, gently: bool) {
    let mut dice = Dice(seed * 2 + 1);
    let mut pair = Pair::met();
    pair.settle();
    let mut backups: [Vec<Disk>; 2] = [vec![pair.sides[0].disk.clone()], vec![pair.sides[1].disk.clone()]];
    let mut written = 0u32;
    let mut delivered: BTreeSet<String> = BTreeSet::new();
    let mut fallen = 0;
    for _ in 0..40 {
        let side = usize::try_from(dice.below(2)).unwrap();
        match dice.below(10) {
            0..=3 => {
                for _ in 0..=dice.below(4) {
                    if pair.sides[side].node.is_some() {
                        written += 1;
                        let long = if dice.below(12) == 0 { "x".repeat(20_000) } else { String::new() };
                        pair.send(side, written, &format!("{side} {written} {long}"));
                    }
                }
            }
            4 => {
                pair.crash(side);
                pair.start(side);
            }
            5 => pair.cut(),
            6 => pair.refuse = !pair.refuse,
            // At most three epochs a day begin, so that none is refused.
            7 if fallen < 3 => {
                if gently {
                    heal(&mut pair);
                    for (_, text) in pair.history(BOB) {
                        delivered.insert(text);
                    }
                }
                let kept = &backups[side];
                let back = usize::try_from(dice.below(kept.len() as u64)).unwrap();
                let backup = kept[back].clone();
                // What was later never was.
                backups[side].truncate(back + 1);
                pair.roll_back(side, &backup);
                fallen += 1;
                if gently {
                    heal(&mut pair);
                }
            }
            8 => pair.sides[side].slow = !pair.sides[side].slow,
            _ => {}
        }
        for turn in 0..dice.below(30) {
            pair.small_step(usize::try_from(turn).unwrap());
        }
        if dice.below(3) == 0 {
            pair.settle();
        }
        if dice.below(4) == 0 && pair.sides[side].node.is_some() {
            let disk = pair.sides[side].disk.clone();
            backups[side].push(disk);
        }
    }
    heal(&mut pair);
    let texts: Vec<String> = pair.history(ALICE).into_iter().map(|(_, text)| text).collect();
    let distinct: BTreeSet<String> = texts.iter().cloned().collect();
    assert_eq!(distinct.len(), texts.len(), "seed {seed}: twice in the history");
    let missing: Vec<_> = delivered.difference(&distinct).map(|text| text.get(..8)).collect();
    assert!(missing.is_empty(), "seed {seed}: {missing:?} were on both sides");
    for side in [ALICE, BOB] {
        assert_eq!(pair.count(side, |event| matches!(event, Event::Misbehaved { .. })), 0, "seed {seed}");
    }
}

#[test]
fn one_store_after_the_other_falls_back_and_nothing_delivered_is_missing() {
    (1..=20).for_each(|seed| storm(seed, true));
}

#[test]
fn stores_fall_back_at_any_moment_and_both_end_with_one_history() {
    // 72: a first name that comes after a later one. 94: what was to be said on a session that lost an overlap.
    (1..=100).for_each(|seed| storm(1000 + seed, false));
}
