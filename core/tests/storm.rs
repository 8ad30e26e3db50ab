//! A few thousand random steps on a pair: sends, cuts, crashes, slow disks, silence. The simulator does this in earnest
//! (with latency, partial writes and checkers); this is what runs in a second beside the machines.

mod pair;

use pair::{ALICE, BOB, Pair};
use peerlink_core::api::{Command, Event, Expire, Input};
use peerlink_core::time::Duration;

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        // SplitMix64 (Steele et al., 2014).
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

fn storm(seed: u64) {
    let mut dice = Dice(seed);
    let mut pair = Pair::met();
    let mut sent = [Vec::new(), Vec::new()];
    let mut queued = [0usize; 2];
    for step in 0..200u32 {
        let side = usize::try_from(dice.roll(2)).unwrap();
        match dice.roll(12) {
            0..=4 if pair.sides[side].node.is_some() => {
                let length = [3, 30, 300, 9_000, 40_000][usize::try_from(dice.roll(5)).unwrap()];
                let text = format!("{step} {}", "x".repeat(length));
                let peer = pair.peer(1 - side);
                let body = bytes::Bytes::from(text.clone());
                let send = Command::Send {
                    peer,
                    caller: pair::caller(step),
                    fresh: dice.roll(2) == 0,
                    expire: Expire::Default,
                    body,
                };
                sent[side].push((step, send.clone(), text));
                let _busy = pair.command(side, send);
            }
            5 => pair.cut(),
            6 => pair.cut_one(side),
            7 => {
                pair.crash(side);
                pair.start(side);
            }
            8 => pair.sides[side].slow = !pair.sides[side].slow,
            9 => {
                pair.sync(side);
            }
            10 => pair.silent = dice.roll(3) == 0,
            _ => {
                pair.now += Duration::from_millis(dice.roll(20_000));
                pair.handle(ALICE, Input::Tick);
                pair.handle(BOB, Input::Tick);
            }
        }
        pair.settle();
    }
    pair.silent = false;
    pair.cut();
    for side in [ALICE, BOB] {
        pair.sides[side].slow = false;
        pair.crash(side);
        pair.start(side);
    }
    pair.settle();
    // A caller that got no answer asks again, with the same id.
    for side in [ALICE, BOB] {
        for (_, send, _) in sent[side].clone() {
            let Command::Send { peer, caller, body, .. } = send else { unreachable!() };
            pair.command(side, Command::Send { peer, caller, fresh: false, expire: Expire::Default, body })
                .unwrap();
            pair.settle();
        }
        queued[side] = sent[side].len();
    }
    let all = |pair: &Pair, side: usize| pair.acknowledged(side) == queued[side] as u64;
    let began = pair.now;
    pair.drive_until("everything delivered", |pair| all(pair, ALICE) && all(pair, BOB));
    assert!(pair.now.saturating_since(began) <= Duration::from_secs(120), "seed {seed}");
    assert_eq!(pair.history(ALICE), pair.history(BOB), "seed {seed}");
    assert_eq!(pair.history(ALICE).len(), queued[0] + queued[1], "seed {seed}");
    for side in [ALICE, BOB] {
        let mut texts: Vec<String> = sent[side].iter().map(|(_, _, text)| text.clone()).collect();
        let mut held: Vec<String> = pair
            .history(side)
            .into_iter()
            .filter(|(alices, _)| *alices == (side == ALICE))
            .map(|(_, text)| text)
            .collect();
        texts.sort();
        held.sort();
        assert_eq!(held, texts, "seed {seed}");
        assert_eq!(pair.count(side, |event| matches!(event, Event::Misbehaved { .. })), 0, "seed {seed}");
    }
}

#[test]
fn storms_lose_and_double_nothing() {
    for seed in 0..16 {
        storm(seed);
    }
}
