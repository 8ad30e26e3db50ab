//! What real nodes ask of a disk, recorded and given to the store: the same commits, cuts and loads give the same
//! answers, and front ends read the same conversation on both sides.

#[path = "../../core/tests/pair/mod.rs"]
mod pair;

use pair::{ALICE, BOB, Pair};
use peerlink_core::api::{Batch, Command, Expire, Input, KeyRange, Loader, Output, Store};
use peerlink_core::ids::LoadId;
use peerlink_core::time::Duration;
use peerlink_core::trace::{self, Item};
use peerlink_storage::{Message, PageReader, Reader, State, Writer};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A store that does what the recorded disk of one side did.
struct Mirror {
    path: PathBuf,
    parts: Option<(Writer, PageReader, Reader)>,
    commits: usize,
    loads: usize,
    starts: usize,
}

impl Mirror {
    fn new(path: &Path) -> Self {
        let parts = Some(peerlink_storage::open(path).unwrap().split());
        Self { path: path.to_owned(), parts, commits: 0, loads: 0, starts: 0 }
    }

    /// One run of a node: what it started from, and everything that went in and came out.
    fn replay(&mut self, began: &pair::Disk, lines: &[String]) {
        self.start(began);
        let (writer, pages, _) = self.parts.as_mut().unwrap();
        let (mut written, mut asked) = (Vec::<Batch>::new(), BTreeMap::<LoadId, KeyRange>::new());
        let mut scratch = Vec::new();
        for line in lines {
            match trace::parse(line, &mut scratch).unwrap().item {
                Item::Output(Output::Persist(batch)) => written.push(batch),
                Item::Input(Input::Persisted { batch: upto }) => {
                    let later = written.split_off(written.partition_point(|batch| batch.id <= upto));
                    writer.commit(&std::mem::replace(&mut written, later)).unwrap();
                    self.commits += 1;
                }
                Item::Output(Output::Load { load, range }) => drop(asked.insert(load, range)),
                Item::Input(Input::Loaded { load, answer }) => {
                    assert_eq!(pages.load(&asked.remove(&load).unwrap()), answer);
                    self.loads += 1;
                }
                _ => {}
            }
        }
    }

    /// The process died, or ended, and starts again from the same records.
    fn start(&mut self, began: &pair::Disk) {
        self.starts += 1;
        if self.starts.is_multiple_of(2) {
            self.parts.as_mut().unwrap().0.close();
        }
        self.parts = None;
        let opened = peerlink_storage::open(&self.path).unwrap();
        let mut expected = began.iter().take_while(|(key, _)| key[0] < peerlink_core::record::RESTORE_END);
        opened
            .restore(|key, value| {
                let record = expected.next().map(|(key, value)| (key.as_slice(), value.as_ref()));
                assert_eq!(record, Some((key, value)));
                Ok(())
            })
            .unwrap();
        assert_eq!(expected.next(), None);
        self.parts = Some(opened.split());
    }

    fn reader(&self) -> &Reader {
        &self.parts.as_ref().unwrap().2
    }
}

/// Both sides' stores, beside both sides' recorded disks.
struct Recorded {
    pair: Pair,
    mirrors: [Mirror; 2],
}

impl Recorded {
    fn restart(&mut self, side: usize) {
        self.take(side);
        self.pair.crash(side);
        self.pair.start(side);
    }

    /// Plays what `side` did since its last start.
    fn take(&mut self, side: usize) {
        let this = &self.pair.sides[side];
        self.mirrors[side].replay(&this.began.1, &this.trace);
    }
}

fn talk(seed: u64, dir: &Path) -> (Recorded, usize) {
    let mut dice = Dice(seed);
    let mirrors = ["alice", "bob"].map(|name| Mirror::new(&dir.join(name)));
    let mut run = Recorded { pair: Pair::met(), mirrors };
    let mut sent = 0;
    for step in 0..120_u32 {
        let side = usize::try_from(dice.roll(2)).unwrap();
        match dice.roll(12) {
            0..=5 => {
                let length = [0, 30, 300, 9_000, 40_000][usize::try_from(dice.roll(5)).unwrap()];
                let peer = run.pair.peer(1 - side);
                let body = bytes::Bytes::from(format!("{step} {}", "x".repeat(length)));
                let send = Command::Send {
                    peer,
                    caller: pair::caller(step),
                    fresh: dice.roll(2) == 0,
                    expire: Expire::Default,
                    body,
                };
                sent += usize::from(run.pair.command(side, send).is_ok());
            }
            6 => run.pair.cut(),
            7 => run.restart(side),
            8 => run.pair.sides[side].slow = !run.pair.sides[side].slow,
            9 => drop(run.pair.sync(side)),
            _ => {
                run.pair.now += Duration::from_millis(dice.roll(20_000));
                run.pair.handle(ALICE, Input::Tick);
                run.pair.handle(BOB, Input::Tick);
            }
        }
        run.pair.settle();
    }
    for side in [ALICE, BOB] {
        run.pair.sides[side].slow = false;
        run.restart(side);
    }
    run.pair.drive_until("everything delivered", |pair| {
        pair.history(ALICE) == pair.history(BOB)
            && [ALICE, BOB].iter().all(|side| pair.acknowledged(*side) == own(pair, *side))
    });
    for side in [ALICE, BOB] {
        run.restart(side);
        run.pair.settle();
        run.take(side);
    }
    (run, sent)
}

fn own(pair: &Pair, side: usize) -> u64 {
    pair.history(side).iter().filter(|(alice, _)| *alice == (side == ALICE)).count() as u64
}

fn history(reader: &Reader) -> Vec<Message> {
    let contacts = reader.contacts().unwrap();
    assert_eq!(contacts.len(), 1);
    reader.latest(contacts[0].contact.conversation, usize::MAX).unwrap()
}

#[test]
fn recorded_nodes_get_the_same_answers_from_the_store_and_front_ends_read_one_conversation() {
    let (mut commits, mut loads) = (0, 0);
    for seed in 0..6 {
        let dir = tempfile::tempdir().unwrap();
        let (run, sent) = talk(seed, dir.path());
        let [alice, bob] = [ALICE, BOB].map(|side| history(run.mirrors[side].reader()));
        assert!(alice.len() > 10 && alice.len() <= sent, "seed {seed}: {} of {sent}", alice.len());
        assert_eq!(alice.len(), bob.len(), "seed {seed}");
        for (one, other) in alice.iter().zip(&bob) {
            assert_eq!((one.message, &one.body, one.claimed), (other.message, &other.body, other.claimed));
            assert_eq!((one.mine, one.missing_before, other.missing_before), (!other.mine, 0, 0));
            let state = |message: &Message| if message.mine { State::Delivered } else { State::Received };
            assert_eq!((one.state, other.state), (state(one), state(other)), "seed {seed}: {}", one.message);
        }
        for (side, messages) in [(ALICE, &alice), (BOB, &bob)] {
            let reader = run.mirrors[side].reader();
            let conversation = messages[0].order.conversation;
            let mine = messages.iter().filter(|message| message.mine).count() as u64;
            let counts = reader.counts(conversation).unwrap();
            let received = messages.len() as u64 - mine;
            assert_eq!((counts.sent, counts.queued, counts.received), (mine, 0, received), "seed {seed}");
            assert_eq!((counts.unread, counts.missing), (received, 0), "seed {seed}");
            let arrivals = reader.arrivals(0, usize::MAX).unwrap();
            let numbers: Vec<u64> = arrivals.iter().map(|message| message.arrival).collect();
            assert_eq!(numbers, (1..=received).collect::<Vec<_>>(), "seed {seed}");
            for message in messages {
                let found = if message.mine {
                    reader.by_caller(conversation, message.caller).unwrap()
                } else {
                    reader.message(conversation, message.message).unwrap()
                };
                assert_eq!(found.as_ref(), Some(message), "seed {seed}");
            }
        }
        commits += run.mirrors.iter().map(|mirror| mirror.commits).sum::<usize>();
        loads += run.mirrors.iter().map(|mirror| mirror.loads).sum::<usize>();
    }
    assert!(commits > 300 && loads > 50, "{commits} commits, {loads} loads: enough was recorded");
}

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
